"""What each command promises, and what it says when it cannot."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace

import psycopg
import pytest
from sqlalchemy import make_url
from tests.migrations.places import TABLES, Place, Revisions

from stemmadb import migrations
from stemmadb.errors import (
    ConfigurationError,
    DatabaseUnavailableError,
    MigrationError,
    PermissionDeniedError,
    SchemaOutOfDateError,
    ValidationError,
)
from stemmadb.migrations import _alembic, _connection

SECRET = "do-not-print-me"


@pytest.mark.requirement("RF-040")
def test_status_tells_what_is_installed_and_what_is_to_run(empty: Place) -> None:
    """Before, between and after: the installed revision and the pending ones of each branch."""
    before = migrations.status(empty)
    assert (before.pending, before.found, before.up_to_date) == (("base_0001", "evaluation_0001", "reviews_0001"), (), False)
    migrations.upgrade(empty, ["base"])
    base, evaluation, reviews = migrations.status(empty).branches
    assert (base.installed, base.pending) == ("base_0001", ())
    assert (evaluation.installed, evaluation.pending) == (None, ("evaluation_0001",))
    assert (reviews.installed, reviews.pending) == (None, ("reviews_0001",))
    migrations.upgrade(empty)
    after = migrations.status(empty)
    assert after.up_to_date
    assert [branch.installed for branch in after.branches] == ["base_0001", "evaluation_0001", "reviews_0001"]


def test_a_pack_brings_what_it_depends_on(empty: Place) -> None:
    """Asking for the evaluation pack alone installs the base as well; accounts and workspaces are the base."""
    migrations.upgrade(empty, ["accounts", "workspaces"])
    assert migrations.status(empty).pending == ("evaluation_0001", "reviews_0001")
    migrations.upgrade(empty, ["evaluation"])
    assert migrations.status(empty).pending == ("reviews_0001",)
    migrations.upgrade(empty, ["reviews"])
    assert migrations.status(empty).up_to_date


@pytest.mark.requirement("EC-122")
def test_the_expand_phase_stops_before_what_takes_away(migrated: Place, revisions: Revisions) -> None:
    """Before a deployment only expand revisions run; after it, the rest, with what is built on it."""
    for phase in ("expand", "contract", "expand"):
        revisions.add("evaluation", "op.execute('SELECT 1')", phase=phase)
    revisions.add("base", "op.execute('SELECT 1')")
    migrations.upgrade(migrated, phase="expand")
    assert migrations.status(migrated).pending == ("evaluation_0003", "evaluation_0004")
    migrations.upgrade(migrated)
    assert migrations.status(migrated).up_to_date


def test_an_unknown_pack_is_refused_before_anything_is_sent() -> None:
    """The message lists the packs that there are."""
    nowhere = make_url("postgresql+psycopg://nobody@127.0.0.1:1/none")
    with pytest.raises(ValidationError, match=r"a pack evalutaion: .*accounts, base, evaluation, reviews"):
        migrations.upgrade(_at(nowhere), ["evalutaion"])


@pytest.mark.requirement("TN-061")
def test_an_unreachable_server_is_named_without_its_password() -> None:
    """A wrong port: host, port, database and user, and what to try."""
    url = make_url(f"postgresql+psycopg://deploy:{SECRET}@127.0.0.1:1/shop")
    with pytest.raises(DatabaseUnavailableError) as refused:
        migrations.status(_at(url))
    said = str(refused.value)
    for part in ("host 127.0.0.1", "port 1", "database shop", "user deploy", "DIRECT_URL"):
        assert part in said
    assert SECRET not in said + repr(refused.value) + str(refused.value.__cause__ or "")


@pytest.mark.requirement("TN-061")
def test_a_missing_database_is_named(empty: Place) -> None:
    """The server answers, and has no such database."""
    gone = replace(empty, direct_url=empty.direct_url.set(database="no_such_database", password=SECRET))
    with pytest.raises(DatabaseUnavailableError, match=r"database no_such_database, user stemma_owner.*does not exist") as refused:
        migrations.upgrade(gone)
    assert SECRET not in str(refused.value)


@pytest.mark.requirement("TN-061")
def test_a_refused_login_is_named_without_its_password(empty: Place) -> None:
    """A login that the server does not know."""
    other = replace(empty, direct_url=empty.direct_url.set(username="nobody_here", password=SECRET))
    with pytest.raises(DatabaseUnavailableError, match="user nobody_here") as refused:
        migrations.upgrade(other)
    assert SECRET not in str(refused.value)


@pytest.mark.requirement("TN-004")
def test_without_a_direct_url_a_warning_says_so(empty: Place, caplog: pytest.LogCaptureFixture) -> None:
    """The runtime address is used, and the log names the setting that is missing."""
    with caplog.at_level(logging.WARNING, "stemmadb.migrations"):
        migrations.upgrade(empty)
        assert "DIRECT_URL" not in caplog.text
        migrations.status(replace(empty, has_direct_url=False))
    assert "DIRECT_URL is not set" in caplog.text


@pytest.mark.requirement("TN-004")
def test_the_connection_is_the_owners_and_names_itself(empty: Place, revisions: Revisions) -> None:
    """In pg_stat_activity a migration is told by its application name."""
    revisions.add(
        "base",
        "op.execute('CREATE TABLE stemma.seen AS SELECT application_name, usename, current_user AS me FROM pg_stat_activity "
        "WHERE pid = pg_backend_pid()')",
    )
    migrations.upgrade(empty)
    with empty.connect() as connection:
        assert connection.execute("SELECT application_name, usename, me FROM stemma.seen").fetchall() == [
            ("stemmadb-migrate", "stemma_owner", "stemma_owner")
        ]


def test_a_superuser_migrates_as_the_owner(empty: Place) -> None:
    """Whoever migrates, everything belongs to one role: the schema is made for stemma_owner, and the login acts as it."""
    root = replace(empty, direct_url=empty.direct_url.set(username="postgres"))
    migrations.upgrade(root)
    assert set(empty.ask("SELECT pg_get_userbyid(relowner)::text FROM pg_class WHERE relnamespace = 'stemma'::regnamespace")) == {
        "stemma_owner"
    }
    assert empty.ask("SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'stemma'") == ["stemma_owner"]


def test_a_login_that_may_not_act_as_the_owner_is_told(migrated: Place, revisions: Revisions) -> None:
    """The message names the owner of the schema and the login."""
    revisions.add("base", "op.execute('SELECT 1')")
    app = replace(migrated, direct_url=migrated.direct_url.set(username="stemma_app"))
    with pytest.raises(MigrationError, match="belongs to stemma_owner, and stemma_app may not"):
        migrations.upgrade(app)


def test_a_login_that_may_not_create_is_told(empty: Place) -> None:
    """PostgreSQL's refusal comes back as the library's, with what to set."""
    app = replace(empty, direct_url=empty.direct_url.set(username="stemma_app"))
    with pytest.raises(PermissionDeniedError, match="DIRECT_URL"):
        migrations.upgrade(app)


@pytest.mark.fault
def test_a_read_only_server_is_told(migrated: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica is refused before anything is tried, and so is a version that is not supported."""
    monkeypatch.setattr(_connection, "_OLDEST_SERVER", 990000)
    with pytest.raises(ConfigurationError, match="is not supported: 16, 17 and 18 are"):
        migrations.upgrade(migrated)


@pytest.mark.requirement("EC-274")
def test_what_exists_already_gets_advice_and_stamp_settles_it(migrated: Place) -> None:
    """A restored schema without its version table: the message says how to record it, and that works."""
    migrated.do("TRUNCATE stemma.stemma_alembic_version")
    before = migrated.dump()
    with pytest.raises(MigrationError, match=r'already exists.*"stemmadb migrate stamp base_0001"') as refused:
        migrations.upgrade(migrated)
    assert refused.value.revision == "base_0001"
    assert migrated.dump() == before
    migrations.stamp(migrated, "base_0001")
    assert migrations.status(migrated).pending == ("evaluation_0001", "reviews_0001")
    migrations.stamp(migrated, "heads")
    migrations.upgrade(migrated)
    assert migrations.status(migrated).up_to_date
    with pytest.raises(MigrationError, match="'base_0009' is no place"):
        migrations.stamp(migrated, "base_0009")


@pytest.mark.requirement("RF-042")
def test_a_table_in_the_way_leaves_the_database_as_it_was(empty: Place) -> None:
    """A table of the same name in the schema stops the revision, and nothing of it is kept."""
    empty.do("CREATE SCHEMA stemma AUTHORIZATION stemma_owner", "CREATE TABLE stemma.runs (id integer)")
    with pytest.raises(MigrationError, match='"runs" already exists') as refused:
        migrations.upgrade(empty)
    assert refused.value.revision == "evaluation_0001"
    assert "definitions" not in empty.tables()
    assert migrations.status(empty).found == ("base_0001",)


@pytest.mark.requirement("EC-130")
def test_downgrade_does_not_take_another_pack_along(migrated: Place) -> None:
    """Undoing the base would drop the evaluation pack: refused, and nothing has happened; said aloud, it is done."""
    with pytest.raises(MigrationError, match=r"evaluation_0001.* depends? on what would be undone"):
        migrations.downgrade(migrated, "base@base")
    assert len(migrated.tables()) == TABLES
    migrations.downgrade(migrated, "base@base", with_dependents=True)
    assert migrated.tables() == []


def test_downgrade_stops_at_its_target(migrated: Place, revisions: Revisions) -> None:
    """A revision stays, a step is one step, what is not installed is nothing to do, and what does not exist is refused."""
    for number in (2, 3):
        revisions.add(
            "evaluation", f"op.execute('CREATE TABLE stemma.t{number} ()')", f"op.execute('DROP TABLE stemma.t{number}')", depends_on=None
        )
    migrations.upgrade(migrated)
    migrations.downgrade(migrated, "evaluation@-1")
    assert migrations.status(migrated).pending == ("evaluation_0003",)
    migrations.downgrade(migrated, "evaluation_0003")
    assert migrations.status(migrated).pending == ("evaluation_0003",)
    migrations.downgrade(migrated, "evaluation_0001")
    assert {"t2", "t3"}.isdisjoint(migrated.tables())
    for target in ("base", "evaluation", "evaluation@head", "evaluation_0009", "portfolio@base", "evaluation@-0", ""):
        with pytest.raises(MigrationError, match="is no place in the migrations"):
            migrations.downgrade(migrated, target)


def test_downgrade_stops_at_an_object_of_somebody_else(migrated: Place) -> None:
    """A host's foreign key to our table is not dropped silently: the message names it, and everything stays."""
    migrated.do("CREATE TABLE public.mine (user_id uuid REFERENCES stemma.users (id))")
    with pytest.raises(MigrationError, match=r"mine.*depends on"):
        migrations.downgrade(migrated, "base@base", with_dependents=True)
    assert "users" in migrated.tables()


@pytest.mark.requirement("EC-123", "EC-124")
def test_the_sql_written_down_makes_the_same_schema(empty: Place, server: object) -> None:
    """psql runs the SQL of ``sql()``, grants included, and the schema is that of ``upgrade``."""
    script = migrations.sql()
    with psycopg.connect(empty.direct_url.set(drivername="postgresql").render_as_string(), autocommit=True) as connection:
        connection.execute(script.encode())
    by_hand = empty.dump()
    assert migrations.status(empty).up_to_date
    migrations.upgrade(empty)
    assert empty.dump() == by_hand
    migrations.downgrade(empty, "base@base", with_dependents=True)
    migrations.upgrade(empty)
    assert empty.dump() == by_hand


@pytest.mark.offline
def test_sql_takes_targets_and_ranges() -> None:
    """A branch, a revision, a range upwards or downwards; nothing else."""
    assert "CREATE TABLE stemma.runs" in migrations.sql("evaluation@head")
    assert "CREATE TABLE stemma.runs" not in migrations.sql("base_0001")
    assert "CREATE TABLE stemma.users" not in migrations.sql("base_0001:evaluation@head")
    undo = migrations.sql("evaluation_0001:evaluation@base")
    assert "DROP TABLE" in undo
    assert "CREATE TABLE" not in undo
    for target in ("evaluation", "base_0009", "evaluation_0001:", "x:heads"):
        with pytest.raises(MigrationError):
            migrations.sql(target)


@pytest.mark.offline
def test_history_is_newest_first_and_says_why() -> None:
    """Branch, phase, reason and file of every shipped revision."""
    reviews, evaluation, base = migrations.history()
    assert (evaluation.revision, evaluation.branch, evaluation.depends_on) == ("evaluation_0001", "evaluation", ("base_0001",))
    assert (reviews.revision, reviews.branch) == ("reviews_0001", "reviews")
    assert base.why == "Users, workspaces and what every pack needs."
    assert base.phase == "expand"
    assert base.file == "base/0001_expand_accounts_workspaces_infra.py"


def test_a_database_one_revision_ahead_is_left_alone(migrated: Place) -> None:
    """A release that was rolled back migrates in its deployment as always: one ahead is fine, and what it cannot undo is refused."""
    migrated.do("UPDATE stemma.stemma_alembic_version SET version_num = 'evaluation_0002' WHERE version_num = 'evaluation_0001'")
    migrations.upgrade(migrated)
    assert migrations.status(migrated).unknown == ("evaluation_0002",)
    with pytest.raises(SchemaOutOfDateError, match="evaluation_0002"):
        migrations.downgrade(migrated, "evaluation@base")
    migrated.do("UPDATE stemma.stemma_alembic_version SET version_num = 'evaluation_0003' WHERE version_num = 'evaluation_0002'")
    with pytest.raises(SchemaOutOfDateError, match="evaluation_0003"):
        migrations.upgrade(migrated)


def test_a_connection_in_a_transaction_is_refused(migrated: Place) -> None:
    """Alembic would take it for the caller's, and closing it would undo the migrations without a word."""
    from alembic import command
    from sqlalchemy import create_engine, text

    engine = create_engine(migrated.direct_url)
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        with pytest.raises(MigrationError, match="no transaction is open"):
            _alembic.run(command.upgrade, _alembic.config(connection=connection), "base_0001")
    engine.dispose()
    with pytest.raises(MigrationError, match="stemmadb migrate"):
        _alembic.run(command.current, _alembic.config())


@pytest.mark.race
def test_threads_of_one_process_take_turns(empty: Place) -> None:
    """Alembic keeps its context for the whole process; four threads upgrade at once without an error."""
    errors: list[Exception] = []
    start = threading.Barrier(4)

    def work() -> None:
        start.wait()
        try:
            migrations.upgrade(empty)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert migrations.status(empty).up_to_date


def _at(url: object) -> Place:
    return Place(None, "", url)  # type: ignore[arg-type]
