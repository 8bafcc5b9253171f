"""The operations that revisions may use beside Alembic's own."""

from __future__ import annotations

import threading
from uuid import UUID

import psycopg
import pytest
from tests.migrations.places import Place, Revisions

from stemmadb import migrations
from stemmadb.errors import MigrationError


def _fill(place: Place, workspaces: int = 3, rows: int = 4) -> list[UUID]:
    """Make workspaces with cohorts in each, as the application would."""
    ids: list[UUID] = []
    with place.connect("stemma_app") as app:
        owner = app.execute("INSERT INTO stemma.users (email) VALUES ('o@example.com') RETURNING id").fetchone()
        assert owner
        for number in range(workspaces):
            row = app.execute(
                "INSERT INTO stemma.workspaces (owner_id, name, slug) VALUES (%s, 'W', %s) RETURNING id", [owner[0], f"w{number}"]
            ).fetchone()
            assert row
            ids.append(row[0])
            with app.transaction():
                app.execute(f"SET LOCAL stemma.workspace_id = '{row[0]}'".encode())
                for name in range(rows):
                    app.execute("INSERT INTO stemma.cohorts (name) VALUES (%s)", [f"c{name}"])
    return ids


_SET = "UPDATE stemma.cohorts SET description = 'filled' WHERE workspace_id = :workspace_id AND description IS NULL"


def test_a_backfill_reaches_every_workspace(migrated: Place, revisions: Revisions) -> None:
    """The owner is under row-level security like everybody else; every row of every workspace is changed all the same."""
    _fill(migrated)
    revisions.add("evaluation", f'assert op.backfill("cohorts", "{_SET}") == 12', depends_on=None)
    migrations.upgrade(migrated)
    assert migrated.ask("SELECT count(*) FROM stemma.cohorts WHERE description = 'filled'", user="postgres") == [12]


def test_a_backfill_in_batches_ends_when_nothing_is_left(migrated: Place, revisions: Revisions) -> None:
    """A statement that limits itself runs again in each workspace until it changes no row."""
    _fill(migrated, workspaces=2, rows=5)
    batch = (
        "UPDATE stemma.cohorts SET description = 'filled' WHERE workspace_id = :workspace_id AND id IN "
        "(SELECT id FROM stemma.cohorts WHERE workspace_id = :workspace_id AND description IS NULL LIMIT 2)"
    )
    revisions.add("evaluation", f'assert op.backfill("cohorts", "{batch}", repeat=True) == 10', depends_on=None)
    migrations.upgrade(migrated)
    assert migrated.ask("SELECT count(*) FROM stemma.cohorts WHERE description IS NULL", user="postgres") == [0]


def test_a_plain_update_of_a_tenant_table_is_an_error(migrated: Place, revisions: Revisions) -> None:
    """Not zero rows without a word: the policy that would hide the rows stops the revision."""
    _fill(migrated, workspaces=1)
    revisions.add("evaluation", "op.execute(\"UPDATE stemma.cohorts SET description = 'x'\")", depends_on=None)
    with pytest.raises(MigrationError, match=r"row-level security.*op\.backfill"):
        migrations.upgrade(migrated)


def test_a_backfill_names_the_workspace(migrated: Place, revisions: Revisions) -> None:
    """An owner that bypasses policies would otherwise change every row as often as there are workspaces."""
    revisions.add("evaluation", "op.backfill('cohorts', 'UPDATE stemma.cohorts SET description = NULL')", depends_on=None)
    with pytest.raises(MigrationError, match=":workspace_id"):
        migrations.upgrade(migrated)


@pytest.mark.fault
def test_a_backfill_that_broke_off_is_run_again(migrated: Place, revisions: Revisions) -> None:
    """What the first workspaces got is kept; the next run does the rest, and the revision is recorded only then."""
    ids = sorted(_fill(migrated, workspaces=3, rows=1))
    migrated.do(
        "CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN IF NEW.workspace_id = '{ids[1]}' THEN RAISE EXCEPTION 'not yet'; END IF; RETURN NEW; END $$",
        "CREATE TRIGGER refuse BEFORE UPDATE ON stemma.cohorts FOR EACH ROW EXECUTE FUNCTION public.refuse()",
    )
    id = revisions.add("evaluation", f'op.backfill("cohorts", "{_SET}")', depends_on=None)
    with pytest.raises(MigrationError, match="not yet"):
        migrations.upgrade(migrated)
    assert migrated.ask("SELECT workspace_id FROM stemma.cohorts WHERE description = 'filled'", user="postgres") == [ids[0]]
    assert migrations.status(migrated).pending == (id,)
    migrated.do("DROP TRIGGER refuse ON stemma.cohorts")
    migrations.upgrade(migrated)
    assert migrated.ask("SELECT count(*) FROM stemma.cohorts WHERE description = 'filled'", user="postgres") == [3]


@pytest.mark.parametrize("repeat", [False, True])
def test_a_backfill_can_be_written_down(migrated: Place, revisions: Revisions, repeat: bool) -> None:
    """The offline SQL finds the workspaces when it runs."""
    _fill(migrated)
    id = revisions.add("evaluation", f'op.backfill("cohorts", "{_SET}", repeat={repeat})', depends_on=None)
    with migrated.connect() as owner:
        owner.execute(migrations.sql(f"evaluation_0001:{id}").encode())
    assert migrated.ask("SELECT count(*) FROM stemma.cohorts WHERE description = 'filled'", user="postgres") == [12]
    assert migrations.status(migrated).up_to_date


def test_a_table_of_an_application_can_be_scoped(migrated: Place, revisions: Revisions) -> None:
    """``op.enable_tenant`` takes a table in any schema."""
    migrated.do("CREATE SCHEMA shop AUTHORIZATION stemma_owner")
    revisions.add(
        "base",
        "op.execute('CREATE TABLE shop.\"Orders\" (workspace_id uuid NOT NULL)'); op.enable_tenant('Orders', schema='shop')",
    )
    migrations.upgrade(migrated)
    assert migrated.ask("SELECT relrowsecurity AND relforcerowsecurity FROM pg_class WHERE relname = 'Orders'") == [True]
    with migrated.connect() as owner, pytest.raises(psycopg.errors.InsufficientPrivilege):
        owner.execute('INSERT INTO shop."Orders" VALUES (gen_random_uuid())')


_INDEX = "op.create_index_concurrently('cohorts_description_idx', 'ON stemma.cohorts (workspace_id, description)')"
_VALID = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('stemma.cohorts_description_idx')"


def test_an_index_is_built_beside_writes(migrated: Place, revisions: Revisions) -> None:
    """A transaction that wrote to the table and is still open delays it, and is not held up by it."""
    revisions.add("evaluation", _INDEX, "op.execute('DROP INDEX stemma.cohorts_description_idx')", depends_on=None)
    migrations.upgrade(migrated)
    assert migrated.ask(_VALID) == [True]
    migrations.downgrade(migrated, "evaluation_0001")
    migrations.upgrade(migrated)
    assert migrated.ask(_VALID) == [True]


@pytest.mark.fault
def test_an_index_whose_build_broke_off_is_built_again(migrated: Place, revisions: Revisions) -> None:
    """The interrupted build leaves an invalid index, of which IF NOT EXISTS would say that all is well."""
    ids = _fill(migrated, workspaces=1, rows=2)
    migrated.do(f"UPDATE stemma.cohorts SET description = 'same' WHERE workspace_id = '{ids[0]}'")
    unique = _INDEX.replace("description)'", "description)', unique=True")
    revisions.add("evaluation", unique, "op.execute('DROP INDEX stemma.cohorts_description_idx')", depends_on=None)
    with pytest.raises(MigrationError, match="could not create unique index"):
        migrations.upgrade(migrated)
    assert migrated.ask(_VALID) == [False]
    migrated.do(f"UPDATE stemma.cohorts SET description = name WHERE workspace_id = '{ids[0]}'")
    migrations.upgrade(migrated)
    assert migrated.ask(_VALID) == [True]
    assert migrations.status(migrated).up_to_date


@pytest.mark.race
def test_an_index_and_eight_migrators(migrated: Place, revisions: Revisions) -> None:
    """Waiting inside pg_advisory_lock() would deadlock with the build; polling does not."""
    revisions.add("evaluation", _INDEX, "op.execute('DROP INDEX stemma.cohorts_description_idx')", depends_on=None)
    errors: list[Exception] = []

    def work() -> None:
        try:
            migrations.upgrade(migrated)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert migrated.ask(_VALID) == [True]


def test_an_index_can_be_written_down(revisions: Revisions) -> None:
    """Outside a transaction, an invalid one dropped first."""
    id = revisions.add("evaluation", _INDEX, depends_on=None)
    script = migrations.sql(f"evaluation_0001:{id}")
    assert "COMMIT;\n\nDROP INDEX CONCURRENTLY IF EXISTS stemma.cohorts_description_idx;\n\nCREATE INDEX CONCURRENTLY" in script
