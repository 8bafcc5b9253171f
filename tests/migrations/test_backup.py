"""A backup, and a database made from it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.migrations.places import Place

from stemmadb import migrations


def _contents(place: Place) -> dict[str, tuple[int, int]]:
    """Return the number of rows of each table, and a sum over what is in them."""
    found = {}
    with place.connect("postgres") as connection:
        for table in place.tables():
            row = connection.execute(f"SELECT count(*), coalesce(sum(hashtext(t::text)), 0) FROM stemma.{table} AS t".encode()).fetchone()
            assert row
            found[table] = row
    return found


@pytest.mark.requirement("RF-043")
def test_a_restored_backup_is_the_same_database(migrated: Place, empty: Place, tmp_path: Path) -> None:
    """Rows, policies, grants and revisions are those of the original; the owner restores without any special right."""
    migrated.do(
        "INSERT INTO stemma.users (email) VALUES ('o@example.com')",
        "INSERT INTO stemma.workspaces (owner_id, name, slug) SELECT id, 'W', 'w' FROM stemma.users",
        "INSERT INTO stemma.definitions (workspace_id, name, content) SELECT id, 'd' || n, '{\"schema_version\": 1}' "
        "FROM stemma.workspaces, generate_series(1, 20) AS n",
        "INSERT INTO stemma.audit_logs (action, entity, entity_id) VALUES ('CREATE', 'users', '1')",
    )
    script = migrated.server.tool("pg_dump", "--schema", "stemma", database=migrated.name).stdout
    file = tmp_path / "backup.sql"
    file.write_text(script)
    empty.server.tool("psql", "--quiet", "--set", "ON_ERROR_STOP=1", "--file", file, database=empty.name, user="stemma_owner")
    assert _contents(empty) == _contents(migrated)
    assert _contents(empty)["definitions"][0] == 20
    assert empty.dump() == migrated.dump()
    assert migrations.status(empty).up_to_date
    assert migrations.check(empty).findings == []


@pytest.mark.requirement("RF-043")
def test_a_backup_by_the_owner_is_refused_rather_than_short(migrated: Place) -> None:
    """Row-level security would hide rows from the owner: pg_dump stops, so a backup needs a login with BYPASSRLS."""
    result = migrated.server.tool("pg_dump", "--schema", "stemma", database=migrated.name, user="stemma_owner", check=False)
    assert result.returncode != 0
    assert "row-level security" in result.stderr
