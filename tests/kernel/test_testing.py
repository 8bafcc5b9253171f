"""The pytest plug-in: what a test does is gone after it, and what a run made is gone after the run."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from stemmadb import _test_server, embedded
from stemmadb._test_server import DatabaseServer, open_server
from stemmadb.database import Database
from stemmadb.errors import ConfigurationError
from stemmadb.testing import assert_max_queries, count_queries, make_workspace, run_together

_USERS = text("SELECT count(*) FROM stemma.users WHERE email LIKE '%@testing.example'")
_ADD_USER = text("INSERT INTO stemma.users (email) VALUES (:name || '@testing.example')")
_MEMBERS = text("SELECT count(*) FROM stemma.workspace_members")


# ----------------------------------------------------------------------------------------------------------- one test's view


@pytest.mark.parametrize("attempt", ["first", "second"])
def test_a_commit_is_undone_after_the_test(session: Session, attempt: str) -> None:
    """A test finds nothing of what another one committed in its session."""
    assert session.scalar(_USERS) == 0
    session.execute(_ADD_USER, {"name": "ada"})
    session.commit()
    assert session.scalar(_USERS) == 1


def test_a_rollback_goes_back_to_the_last_commit(session: Session) -> None:
    """Inside a test, commit and rollback of the session mean what they mean outside, and the workspace stays."""
    session.execute(_ADD_USER, {"name": "kept"})
    session.commit()
    session.execute(_ADD_USER, {"name": "dropped"})
    session.rollback()
    assert session.scalar(_USERS) == 1
    assert session.scalar(_MEMBERS) == 1


@pytest.mark.parametrize("attempt", ["first", "second"])
async def test_an_async_commit_is_undone_after_the_test(async_session: AsyncSession, workspace: UUID, attempt: str) -> None:
    """The same holds for AsyncSession, in the workspace that the test is given."""
    assert await async_session.scalar(_USERS) == 0
    await async_session.execute(_ADD_USER, {"name": "ada"})
    await async_session.commit()
    assert await async_session.scalar(_USERS) == 1
    assert await async_session.scalar(text("SELECT stemma.stemma_workspace_id()")) == workspace


async def test_both_sessions_have_workspaces_of_their_own(async_session: AsyncSession, session: Session, workspace: UUID) -> None:
    """A test may take both sessions; they are two transactions, and ``workspace`` is that of the synchronous one."""
    found = await async_session.scalar(text("SELECT stemma.stemma_workspace_id()"))
    assert session.scalar(text("SELECT stemma.stemma_workspace_id()")) == workspace
    assert found not in (None, workspace)


def test_a_session_sees_its_workspace_alone(session: Session, workspace: UUID) -> None:
    """It works as stemma_app, under row-level security, in a workspace with one owner."""
    assert session.scalar(text("SELECT current_user")) == "stemma_app"
    assert session.execute(text("SELECT workspace_id, role FROM stemma.workspace_members")).all() == [(workspace, "OWNER")]


def test_a_session_without_a_workspace_finds_none(db: Database, session: Session) -> None:
    """Making the workspace leaves no setting behind in the transaction that others could live on."""
    with db.session_on(session.connection()) as bare:
        assert bare.info["stemma"] != session.info["stemma"]
    with db.session() as other:
        assert other.scalar(text("SELECT stemma.stemma_workspace_id()")) is None
        assert other.scalar(_MEMBERS) == 0


async def test_the_async_pool_survives_a_new_event_loop(db: Database) -> None:
    """Connections opened in one test's loop are not handed to the next test."""
    async with db.async_session() as session:
        assert await session.scalar(text("SELECT 1")) == 1


@pytest.mark.parametrize("attempt", ["first", "second"])
async def test_the_async_pool_is_used_again(db: Database, attempt: str) -> None:
    """The loop before this one is closed by now."""
    async with db.async_session() as session:
        assert await session.scalar(text("SELECT 1")) == 1


@pytest.mark.parametrize("attempt", ["first", "second"])
def test_a_clone_is_empty_and_takes_real_commits(
    committed_db: Database, stemmadb_database: Database, committed_workspace: UUID, attempt: str
) -> None:
    """committed_db is another database each time, in which other connections see what was committed."""
    assert committed_db.url.database != stemmadb_database.url.database
    with committed_db.session() as session:
        assert session.scalar(_USERS) == 0
        session.execute(_ADD_USER, {"name": "ada"})
    with committed_db.session(committed_workspace) as other:
        assert other.scalar(_USERS) == 1
        assert other.scalar(_MEMBERS) == 1


def test_the_owner_works_on_the_database_of_the_test(committed_db: Database, owner: Engine) -> None:
    """The engine of the owner goes to the clone when the test has one, and may change the schema there."""
    with owner.begin() as connection:
        assert connection.scalar(text("SELECT current_database()")) == committed_db.url.database
        assert connection.scalar(text("SELECT current_user")) == "stemma_owner"
        connection.execute(text("CREATE TABLE stemma.made_by_the_owner (id integer)"))


def test_the_owner_works_on_the_workers_database_otherwise(stemmadb_database: Database, owner: Engine) -> None:
    """Without a clone it is the database that all tests of the worker share."""
    with owner.connect() as connection:
        assert connection.scalar(text("SELECT current_database()")) == stemmadb_database.url.database


def test_workspaces_are_made_by_slug(committed_db: Database) -> None:
    """make_workspace() commits a workspace that sessions find by its slug."""
    made = make_workspace(committed_db, "lab")
    with committed_db.session("lab") as session:
        assert session.scalar(text("SELECT stemma.stemma_workspace_id()")) == made


# ----------------------------------------------------------------------------------------------------------------- counting


def test_queries_are_counted_without_their_frame(committed_db: Database, session: Session) -> None:
    """Every engine counts; BEGIN, COMMIT, settings and savepoints do not."""
    with count_queries() as sent:
        session.execute(text("SELECT 1"))
        session.commit()
        with session.begin_nested():
            session.execute(text("SELECT 2"))
        with committed_db.session() as other:
            other.execute(text("SELECT 3"))
        assert sent.statements == ["SELECT 1", "SELECT 2", "SELECT 3"]
        assert sent.count == 3
    session.execute(text("SELECT 4"))
    assert sent.count == 3


async def test_async_queries_are_counted(async_session: AsyncSession) -> None:
    """Statements of AsyncSession count the same."""
    with assert_max_queries(1) as sent:
        await async_session.execute(text("SELECT 1"))
    assert sent.count == 1


def test_too_many_queries_fail_with_a_list(session: Session) -> None:
    """The failure says how many there were and shows each; as many as allowed pass."""
    with assert_max_queries(2):
        session.execute(text("SELECT 1"))
        session.execute(text("SELECT 2"))
    with pytest.raises(AssertionError) as failed, assert_max_queries(1):
        session.execute(text("SELECT 1"))
        session.execute(text("SELECT 2\n  + 2"))
    assert str(failed.value) == "2 statements were sent, and 1 are allowed:\n1. SELECT 1\n2. SELECT 2 + 2"


def test_an_error_inside_the_block_is_not_hidden(session: Session) -> None:
    """When the block raises, its error comes out, not the count."""
    with pytest.raises(ZeroDivisionError), assert_max_queries(0):
        session.execute(text("SELECT 1"))
        raise ZeroDivisionError


@pytest.mark.offline
def test_calls_run_together_and_answer_in_order() -> None:
    """Each thread gets its number; a result or an error stands at its place."""

    def half(number: int) -> float:
        if number == 2:
            raise ValueError(number)
        return number / 2

    results = run_together(4, half)
    assert results[:2] + results[3:] == [0.0, 0.5, 1.5]
    assert isinstance(results[2], ValueError)


@pytest.mark.offline
def test_the_plug_in_costs_nothing_until_it_is_used() -> None:
    """pytest imports it in every run, so it imports neither SQLAlchemy nor psycopg by itself."""
    code = "import sys, stemmadb.testing; assert not {'sqlalchemy', 'psycopg', 'pydantic', 'alembic'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# --------------------------------------------------------------------------------------------------------------- whole runs


_BODY = """
    import os, signal
    from pathlib import Path
    import pytest
    from sqlalchemy import text

    def note(db):
        with Path("names").open("a") as names:
            print(db.url.database, file=names)

    def test_commits(committed_db):
        note(committed_db)

    def test_reads(db, session):
        note(db)
        assert session.scalar(text("SELECT current_user")) == "stemma_app"

    async def test_waits(async_session):
        assert await async_session.scalar(text("SELECT current_user")) == "stemma_app"
"""


def pytest_run(folder: Path, body: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_inner.py").write_text(textwrap.dedent(body))
    (folder / "pytest.ini").write_text(
        "[pytest]\nfilterwarnings = error\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
    )
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def databases(server: DatabaseServer) -> set[str]:
    return set(server._databases())


def test_a_run_leaves_no_database_behind(tmp_path: Path, stemmadb_server: DatabaseServer) -> None:
    """After a run the databases that it made are gone."""
    run = pytest_run(tmp_path, _BODY)
    assert "3 passed" in run.stdout, run.stdout
    names = set((tmp_path / "names").read_text().split())
    assert len(names) == 2
    assert all(name.startswith("stemmadb_test_") for name in names)
    assert not names & databases(stemmadb_server)


def test_strict_mode_of_pytest_asyncio_knows_the_fixture(tmp_path: Path) -> None:
    """async_session works where tests have to be marked, too."""
    body = """
        import pytest
        from sqlalchemy import text

        @pytest.mark.asyncio
        async def test_waits(async_session):
            assert await async_session.scalar(text("SELECT 1")) == 1
    """
    run = pytest_run(tmp_path, body, "-o", "asyncio_mode=strict")
    assert "1 passed" in run.stdout, run.stdout


def test_workers_have_databases_of_their_own(tmp_path: Path) -> None:
    """Under pytest-xdist each worker works on one database that no other uses."""
    body = """
        from pathlib import Path
        import pytest

        @pytest.mark.parametrize("n", range(8))
        def test_notes(db, worker_id, n):
            Path(f"{worker_id}-{n}").write_text(db.url.database)
    """
    run = pytest_run(tmp_path, body, "-n", "2")
    assert "8 passed" in run.stdout, run.stdout
    used: dict[str, set[str]] = {}
    for path in tmp_path.glob("gw*-*"):
        used.setdefault(path.name.partition("-")[0], set()).add(path.read_text())
    assert all(len(names) == 1 for names in used.values())
    assert len(set.union(*used.values())) == len(used)


@pytest.mark.fault
def test_the_next_run_drops_what_a_killed_one_left(tmp_path: Path, stemmadb_server: DatabaseServer) -> None:
    """kill -9 of a run leaves its databases; the next run drops them, and those of living runs stay."""
    body = _BODY.replace("note(committed_db)", "note(committed_db); os.kill(os.getpid(), signal.SIGKILL)")
    assert pytest_run(tmp_path, body).returncode == -signal.SIGKILL
    left = set((tmp_path / "names").read_text().split())
    mine = {name for name in databases(stemmadb_server) if f"_{stemmadb_server._run:08x}" in name}
    run = pytest_run(tmp_path, _BODY)
    assert "3 passed" in run.stdout, run.stdout
    assert not left & databases(stemmadb_server)
    assert mine <= databases(stemmadb_server)


# --------------------------------------------------------------------------------------------------------- other test servers


@pytest.fixture
def own_server() -> Iterator[embedded.Server]:
    """An embedded server of this test alone: templates and roles are changed on it."""
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="stemmadb-plugin-", dir=base))
    folder.chmod(0o755)
    with embedded.start(folder / "data", durable=False) as server:
        yield server
    with (folder / "data" / "supervisor.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
    shutil.rmtree(folder)


def execute(server: embedded.Server, statement: str) -> Any:
    with psycopg.connect(server._superuser_conninfo(), autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else None


def login(server: embedded.Server, attributes: str) -> str:
    execute(server, f"CREATE ROLE tester LOGIN {attributes}")
    return server.url("postgres", "tester").render_as_string()


@pytest.mark.parametrize("attributes", ["CREATEDB CREATEROLE", "SUPERUSER"])
@pytest.mark.requirement("VR-106")
def test_a_named_server_is_used(tmp_path: Path, own_server: embedded.Server, attributes: str) -> None:
    """With TEST_DATABASE_URL only stemmadb_test_... databases are made there, all but the template dropped, and tests are stemma_app."""
    run = pytest_run(tmp_path, _BODY, TEST_DATABASE_URL=login(own_server, attributes))
    assert "3 passed" in run.stdout, run.stdout
    left = [name for (name,) in execute(own_server, "SELECT datname FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres'")]
    assert len(left) == 1
    assert re.fullmatch(r"stemmadb_test_template_[0-9a-f]{12}", left[0])
    assert execute(own_server, "SELECT count(*) FROM pg_namespace WHERE nspname = 'stemma'") == [(0,)]


def test_a_login_without_rights_is_told_which_it_lacks(own_server: embedded.Server) -> None:
    """CREATEDB and CREATEROLE are named when the login of TEST_DATABASE_URL has neither."""
    with pytest.raises(ConfigurationError, match="CREATEDB and CREATEROLE"):
        open_server({"TEST_DATABASE_URL": login(own_server, "")})


def test_a_login_that_makes_no_databases_is_told_so(own_server: embedded.Server) -> None:
    """A login with CREATEROLE alone gets as far as the first database, and the same message."""
    server = open_server({"TEST_DATABASE_URL": login(own_server, "CREATEROLE")})
    with pytest.raises(ConfigurationError, match="CREATEDB and CREATEROLE"):
        server.create()
    server.close()


@pytest.mark.offline
def test_an_address_without_a_server_is_told(tmp_path: Path) -> None:
    """The error says that the test server cannot be reached, without the password."""
    with pytest.raises(ConfigurationError, match="cannot be reached") as raised:
        open_server({"TEST_DATABASE_URL": f"postgresql://me:secret@/postgres?host={tmp_path}"})
    assert "secret" not in str(raised.value)


def test_a_template_is_made_once_for_the_same_migrations(own_server: embedded.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The template is migrated once, made anew when a migration changes, and of the old ones the last two stay."""
    migrated: list[str] = []
    monkeypatch.setattr(DatabaseServer, "_migrate", lambda self, database: migrated.append(database))
    address = login(own_server, "SUPERUSER")
    for digest in ("aaaaaaaaaaaa", "aaaaaaaaaaaa", "bbbbbbbbbbbb", "cccccccccccc", "dddddddddddd"):
        monkeypatch.setattr(_test_server, "_fingerprint", lambda digest=digest: digest)
        server = open_server({"TEST_DATABASE_URL": address})
        server.create()
        server.close()
    assert len(migrated) == 4
    names = {name for (name,) in execute(own_server, "SELECT datname FROM pg_database WHERE datname LIKE 'stemmadb%'")}
    assert names == {f"stemmadb_test_template_{letter * 12}" for letter in "bcd"}


@pytest.mark.race
def test_runs_that_begin_at_once_make_one_template(own_server: embedded.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several workers that need a new template at the same moment one makes it, and each gets its own database."""
    migrated: list[str] = []
    monkeypatch.setattr(DatabaseServer, "_migrate", lambda self, database: migrated.append(database))

    def begin(_: int) -> tuple[DatabaseServer, str]:
        server = open_server({"TEST_DATABASE_URL": address})
        return server, server.create()

    address = login(own_server, "SUPERUSER")
    begun = [result for result in run_together(6, begin) if not isinstance(result, BaseException)]
    assert len({name for _, name in begun}) == 6
    assert len(migrated) == 1
    for server, _ in begun:
        server.close()


@pytest.mark.offline
def test_the_disk_is_used_where_memory_is_short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Less than 512 MB in /dev/shm, as in a container, and the server's folder is in the temporary folder."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(Path, "exists", lambda self: False)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=64 * 1024 * 1024))
    folder, in_memory = _test_server._folder("18")
    assert (folder.parent.parent, in_memory) == (tmp_path, False)
