"""A backup, and a database made from it."""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass(frozen=True)
class _Backup:
    file: Path
    contents: dict[str, tuple[int, int]]
    schema: str


@pytest.fixture
def backup(migrated: Place, tmp_path: Path) -> _Backup:
    """A dump with rows in it, taken by a login that row-level security does not hold."""
    migrated.do(
        "INSERT INTO stemma.users (email) VALUES ('o@example.com')",
        "INSERT INTO stemma.workspaces (owner_id, name, slug) SELECT id, 'W', 'w' FROM stemma.users",
        "INSERT INTO stemma.definitions (workspace_id, name, content) SELECT id, 'd' || n, '{\"schema_version\": 1}' "
        "FROM stemma.workspaces, generate_series(1, 20) AS n",
        "INSERT INTO stemma.audit_logs (action, entity, entity_id) VALUES ('CREATE', 'users', '1')",
    )
    file = tmp_path / "stemma.dump"
    migrated.server.tool("pg_dump", "--format=custom", "--schema=stemma", f"--file={file}", database=migrated.name)
    return _Backup(file, _contents(migrated), migrated.dump())


@pytest.mark.requirement("RF-043")
def test_a_backup_is_restored_on_a_new_server(backup: _Backup, plain: Place) -> None:
    """
    Rows, owners, policies, grants and revisions are those of the original, as docs/runbook.md does it.

    The login has CREATEROLE and owns the database, and no role of ours exists before.
    """
    login = str(plain.direct_url.username)
    migrations.roles(plain)
    plain.do(f"GRANT CREATE ON DATABASE {plain.name} TO stemma_owner", user=login)
    options = ("--exit-on-error", "--single-transaction", "--no-owner", "--role=stemma_owner", f"--dbname={plain.name}", backup.file)
    plain.server.tool("pg_restore", *options, database=plain.name, user=login)
    migrations.upgrade(plain)
    assert _contents(plain) == backup.contents
    assert backup.contents["definitions"][0] == 20
    assert plain.dump() == backup.schema
    assert migrations.status(plain).up_to_date
    assert migrations.check(plain).findings == []


@pytest.mark.requirement("RF-043")
def test_a_backup_by_the_owner_is_refused_rather_than_short(migrated: Place) -> None:
    """Row-level security would hide rows from the owner: pg_dump stops, so a backup needs a login with BYPASSRLS."""
    result = migrated.server.tool("pg_dump", "--schema", "stemma", database=migrated.name, user="stemma_owner", check=False)
    assert result.returncode != 0
    assert "row-level security" in result.stderr
