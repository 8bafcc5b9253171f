"""The revisions up and down: every table, every step, nothing left behind."""

from __future__ import annotations

import time

import pytest
from tests.migrations.places import TABLES, Place, Revisions

from stemmadb import _heads, migrations
from stemmadb.errors import MigrationError

_ENUMS = "SELECT typname::text FROM pg_type WHERE typnamespace = to_regnamespace('stemma') AND typtype = 'e'"
_FUNCTIONS = "SELECT proname::text FROM pg_proc WHERE pronamespace = to_regnamespace('stemma')"


@pytest.mark.requirement("TN-008", "EC-124", "EC-132", "PF-045", "VR-004")
def test_an_empty_database_gets_every_table(empty: Place) -> None:
    """One upgrade makes all tables of the shipped branches, in far less than thirty seconds."""
    started = time.monotonic()
    migrations.upgrade(empty)
    assert time.monotonic() - started < 10
    assert len(empty.tables()) == TABLES
    assert migrations.status(empty).up_to_date
    assert set(empty.ask(_ENUMS)) == {"user_status", "actor_type", "mfa_method", "external_source", "read_status", "review_status"}


@pytest.mark.requirement("VR-021", "PF-053")
def test_no_extension_and_no_special_right_is_needed(migrated: Place) -> None:
    """The owner has neither superuser nor CREATEROLE, and no extension was made."""
    assert migrated.ask("SELECT extname::text FROM pg_extension") == ["plpgsql"]
    assert migrated.ask("SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls FROM pg_roles WHERE rolname = current_user") == [
        False
    ]


@pytest.mark.requirement("EC-125", "PF-047", "RF-039", "RF-040")
def test_up_down_up_leaves_the_same_schema(migrated: Place) -> None:
    """Undoing everything leaves no table, type, function or policy; doing it again gives the same schema to the byte."""
    first = migrated.dump()
    migrations.downgrade(migrated, "base@base", with_dependents=True)
    assert migrated.tables() == []
    assert migrated.ask(_ENUMS) == []
    assert migrated.ask(_FUNCTIONS) == []
    assert migrations.status(migrated).found == ()
    migrations.upgrade(migrated)
    assert migrated.dump() == first


@pytest.mark.requirement("EC-125")
def test_every_revision_goes_up_and_down_alone(empty: Place) -> None:
    """Each revision, one after the other: up, down and up again leaves what the first up left."""
    for id, revision in _heads.revisions().items():
        before = empty.dump() if empty.tables() else ""
        migrations.upgrade(empty, [revision.branch])
        after = empty.dump()
        migrations.downgrade(empty, f"{revision.branch}@-1")
        assert empty.tables() == [] or empty.dump() == before, id
        migrations.upgrade(empty, [revision.branch])
        assert empty.dump() == after, id


@pytest.mark.requirement("RF-038", "EC-122")
def test_a_second_upgrade_changes_nothing(migrated: Place) -> None:
    """Upgrading again is fast and writes nothing into the catalogue."""
    newest = (
        "SELECT max(xmin::text::bigint) FROM "
        "(SELECT xmin FROM pg_class UNION ALL SELECT xmin FROM pg_policy UNION ALL SELECT xmin FROM pg_proc) AS catalogue"
    )
    before, at = migrated.dump(), migrated.ask(newest)
    migrations.upgrade(migrated)
    assert migrated.dump() == before
    assert migrated.ask(newest) == at


@pytest.mark.requirement("RF-037", "PF-048")
def test_a_pack_comes_and_goes_beside_rows_of_the_base(empty: Place) -> None:
    """The rows of the base survive a pack's upgrade and downgrade; the pack's own rows are lost, as its description says."""
    migrations.upgrade(empty, ["base"])
    empty.do("INSERT INTO stemma.users (email) VALUES ('a@example.com')", user="stemma_app")
    migrations.upgrade(empty)
    empty.do(
        "INSERT INTO stemma.workspaces (owner_id, name, slug) SELECT id, 'W', 'w' FROM stemma.users",
        "DO $$ BEGIN PERFORM set_config('stemma.workspace_id', (SELECT id::text FROM stemma.workspaces), true); "
        "INSERT INTO stemma.definitions (name, content) VALUES ('d', '{}'); END $$",
        user="stemma_app",
    )
    migrations.downgrade(empty, "evaluation@base")
    assert empty.ask("SELECT email FROM stemma.users") == ["a@example.com"]
    assert "definitions" not in empty.tables()
    migrations.upgrade(empty)
    assert empty.ask("SELECT count(*) FROM stemma.definitions", user="postgres") == [0]


@pytest.mark.requirement("RF-027")
def test_a_pack_alters_no_table_of_the_base(empty: Place) -> None:
    """The columns, checks and indexes of the base are the same with and without the pack; only foreign keys point at them."""
    catalogue = (
        "SELECT attrelid::regclass || '.' || attname || ' ' || atttypid::regtype || attnotnull FROM pg_attribute "
        "WHERE attrelid::regclass::text = ANY(%s) AND attnum > 0 ORDER BY 1"
    )
    migrations.upgrade(empty, ["base"])
    tables = [f"stemma.{name}" for name in empty.tables()]
    before = empty.ask(catalogue, tables)
    migrations.upgrade(empty)
    assert before
    assert empty.ask(catalogue, tables) == before


@pytest.mark.fault
@pytest.mark.requirement("VR-092", "RF-042")
def test_a_failure_in_the_last_statement_leaves_no_table(empty: Place, revisions: Revisions) -> None:
    """A revision is one transaction: its last statement fails, and none of its tables is there."""
    for branch in _heads.branches():
        path = next((revisions.folder / "versions" / branch).glob("0001_*.py"))
        sound = path.read_text()
        path.write_text(sound.replace("\n\ndef downgrade", "    op.execute('SELECT 1/0')\n\n\ndef downgrade"))
        before = empty.tables()
        with pytest.raises(MigrationError, match="division by zero") as refused:
            migrations.upgrade(empty)
        assert refused.value.revision == f"{branch}_0001"
        assert empty.tables() == before
        path.write_text(sound)
        migrations.upgrade(empty, [branch])
    assert len(empty.tables()) == TABLES
