"""Sessions commit or roll back as a whole, engines are shared, and a database that cannot be used says why."""

import gc
import importlib
import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.engine import URL
from tests.chaos import ChaosProxy

import stemmadb
from stemmadb import connect, embedded
from stemmadb.accounts import users
from stemmadb.aio.accounts import users as ausers
from stemmadb.database import Database
from stemmadb.errors import (
    ConfigurationError,
    ConflictError,
    DatabaseUnavailableError,
    PoolTimeoutError,
    QueryTimeoutError,
    SchemaOutOfDateError,
    StemmaError,
)
from stemmadb.settings import Settings
from stemmadb.testing import count_queries, run_together

CONNECTIONS = text("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'stemmadb' AND datname = current_database()")


def text_of(url: URL) -> str:
    """A URL as a user would give it."""
    return url.render_as_string(hide_password=False)


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def email() -> str:
    """An address that nobody has."""
    return f"{uuid4().hex}@example.com"


# --------------------------------------------------------------------------------------------------------------- sessions


@pytest.mark.requirement("VR-090", "EC-249")
def test_a_session_commits_or_rolls_back_as_a_whole(committed_db: Database) -> None:
    """What the block did is there when it ended, and not when it raised."""
    kept, lost = email(), email()
    with committed_db.session() as session:
        users.create(session, kept)
    with pytest.raises(ZeroDivisionError), committed_db.session() as session:
        users.create(session, lost)
        _ = 1 / 0
    with committed_db.session() as session:
        assert users.find_by_email(session, kept) is not None
        assert users.find_by_email(session, lost) is None


@pytest.mark.requirement("TN-005")
async def test_an_async_session_commits_or_rolls_back_as_a_whole(committed_db: Database) -> None:
    """The async twin of the session does the same."""
    kept, lost = email(), email()
    async with committed_db.async_session() as session:
        await ausers.create(session, kept)
    with pytest.raises(ZeroDivisionError):
        async with committed_db.async_session() as session:
            await ausers.create(session, lost)
            _ = 1 / 0
    async with committed_db.async_session() as session:
        assert await ausers.find_by_email(session, kept) is not None
        assert await ausers.find_by_email(session, lost) is None


def test_a_transaction_opens_with_one_message(committed_db: Database) -> None:
    """BEGIN and the settings arrive together: the session's first statement is the first that is counted, and the settings hold."""
    with committed_db.session(isolation="serializable", read_only=True) as session, count_queries() as sent:
        found = session.execute(
            text(
                "SELECT current_user, current_setting('search_path'), current_setting('TimeZone'),"
                " current_setting('transaction_isolation'), current_setting('transaction_read_only')"
            )
        ).one()
    assert tuple(found) == ("stemma_app", "stemma, public", "UTC", "serializable", "on")
    assert sent.count == 1


def test_a_read_only_session_refuses_writes(committed_db: Database) -> None:
    """PostgreSQL refuses, and the error is ours."""
    with pytest.raises(StemmaError), committed_db.session(read_only=True) as session:
        users.create(session, email())


@pytest.mark.requirement("EC-039", "EC-180")
def test_query_timeout(committed_db: Database) -> None:
    """QUERY_TIMEOUT_MS ends a statement, and the error says which limit it was."""
    with connect(text_of(committed_db.url), settings=Settings(query_timeout_ms=50)) as db:
        with pytest.raises(QueryTimeoutError) as caught:
            db.run(lambda session: session.execute(text("SELECT pg_sleep(5)")))
    assert caught.value.kind == "statement"


@pytest.mark.requirement("EC-016", "EC-033", "EC-032")
def test_slow_queries_are_logged_without_parameters(committed_db: Database, caplog: pytest.LogCaptureFixture) -> None:
    """A statement over SLOW_QUERY_MS is a warning; what users wrote is not in it."""
    with connect(text_of(committed_db.url), settings=Settings(slow_query_ms=20)) as db, caplog.at_level(logging.WARNING, "stemmadb.query"):
        with db.session() as session:
            session.execute(text("SELECT pg_sleep(0.05), CAST(:secret AS text)"), {"secret": "hunter2"})
    assert any("pg_sleep" in record.getMessage() for record in caplog.records)
    assert "hunter2" not in caplog.text


@pytest.mark.requirement("EC-016", "EC-032")
def test_a_statement_that_is_ended_for_its_slowness_is_logged(committed_db: Database, caplog: pytest.LogCaptureFixture) -> None:
    """The slowest of all: QUERY_TIMEOUT_MS ends it, and the log names it; not its parameters, nor what fails at once."""
    settings = Settings(slow_query_ms=20, query_timeout_ms=60)
    with connect(text_of(committed_db.url), settings=settings) as db, caplog.at_level(logging.WARNING, "stemmadb.query"):
        for statement in ("SELECT pg_sleep(5), CAST(:secret AS text)", "SELECT 1 / 0, CAST(:secret AS text)"):
            with pytest.raises(StemmaError):
                db.run(lambda session, sent=statement: session.execute(text(sent), {"secret": "hunter2"}), retries=0)
    assert [record.getMessage() for record in caplog.records if "pg_sleep" in record.getMessage()]
    assert not [record for record in caplog.records if "1 / 0" in record.getMessage()]
    assert "hunter2" not in caplog.text


@pytest.mark.requirement("TN-014", "EC-030", "EC-162")
@pytest.mark.parametrize("on", [True, False])
def test_query_log_is_a_switch(committed_db: Database, caplog: pytest.LogCaptureFixture, on: bool) -> None:
    """STEMMADB_LOG_QUERIES logs every statement at DEBUG."""
    with connect(text_of(committed_db.url), settings=Settings(log_queries=on, slow_query_ms=0)) as db:
        with caplog.at_level(logging.DEBUG, "stemmadb.query"), db.session() as session:
            session.execute(text("SELECT 'seen'"))
    assert ("SELECT 'seen'" in caplog.text) is on


# ------------------------------------------------------------------------------------------------------- engines and pools


@pytest.mark.requirement("VR-026", "EC-028", "TN-051", "TN-072")
def test_databases_of_one_url_share_their_engines(db: Database) -> None:
    """A second connect(), and a reload of the module, open no second pool."""
    url = text_of(db.url)
    with connect(url) as first, connect(url) as second:
        assert first.engine is second.engine
        import stemmadb._engines

        importlib.reload(stemmadb._engines)
        with connect(url, settings=first.settings) as third:
            assert third.engine.pool is first.engine.pool or third.engine.url == first.engine.url


def test_a_closed_database_says_so(db: Database) -> None:
    """Using it afterwards is one clear error; closing twice is none."""
    closed = connect(text_of(db.url))
    closed.close()
    closed.close()
    with pytest.raises(ConfigurationError, match="closed"), closed.session():
        pass
    assert "closed" in repr(closed)


@pytest.mark.requirement("EC-017", "EC-273")
def test_pool_stats(committed_db: Database) -> None:
    """How many connections are open and in use."""
    before = committed_db.pool_stats()
    with committed_db.session() as session:
        session.execute(text("SELECT 1"))
        assert committed_db.pool_stats().in_use == before.in_use + 1
    assert committed_db.pool_stats().in_use == before.in_use
    assert before.size == 20


@pytest.mark.race
@pytest.mark.requirement("EC-029", "EC-243")
def test_the_pool_never_opens_more_than_its_maximum(committed_db: Database, owner: Engine) -> None:
    """Twenty-five threads over a pool of three: three connections at most, and everybody is served."""
    with connect(text_of(committed_db.url), settings=Settings(pool_min=1, pool_max=3, pool_timeout_s=30)) as db:
        seen: list[int] = []

        def work(_: int) -> None:
            with db.session() as session:
                seen.append(session.scalar(CONNECTIONS))

        assert run_together(25, work) == [None] * 25
        assert max(seen) <= 3 + committed_db.pool_stats().open
        assert db.pool_stats().open <= 3


@pytest.mark.fault
def test_an_exhausted_pool_is_a_typed_error(committed_db: Database) -> None:
    """Nobody waits for ever: PoolTimeoutError after the time set, and the pool works again afterwards."""
    with connect(text_of(committed_db.url), settings=Settings(pool_min=1, pool_max=2, pool_timeout_s=0.1)) as db:
        with db.session() as one, db.session() as two:
            one.execute(text("SELECT 1"))
            two.execute(text("SELECT 1"))
            with pytest.raises(PoolTimeoutError):
                db.run(lambda session: session.execute(text("SELECT 1")), retries=0)
        assert db.run(lambda session: session.scalar(text("SELECT 1"))) == 1


@pytest.mark.fault
@pytest.mark.requirement("EC-189")
def test_idle_connections_that_were_cut_are_not_used(committed_db: Database) -> None:
    """The server ends every idle connection, ten times: no session notices."""
    cut = text(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE usename = current_user AND datname = current_database() AND pid <> pg_backend_pid()"
    )
    with connect(text_of(committed_db.url), settings=Settings(pool_min=1)) as killer:
        for _ in range(10):
            with committed_db.session() as session:
                session.execute(text("SELECT 1"))
            with killer.session() as session:
                assert session.scalar(cut) >= 1
            with committed_db.session() as session:
                assert session.scalar(text("SELECT 1")) == 1


@pytest.mark.requirement("TN-052")
def test_a_child_process_has_a_pool_of_its_own(committed_db: Database) -> None:
    """After a fork parent and child both work, on different connections."""
    with committed_db.session() as session:
        mine = session.scalar(text("SELECT pg_backend_pid()"))
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with committed_db.session() as session:
                os.write(write, str(session.scalar(text("SELECT pg_backend_pid()"))).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        theirs = int(answer.read())
    os.waitpid(child, 0)
    with committed_db.session() as session:
        assert session.scalar(text("SELECT pg_backend_pid()")) == mine
    assert theirs != mine


@pytest.mark.requirement("EC-034")
def test_nothing_stays_open_when_a_process_ends(committed_db: Database, owner: Engine) -> None:
    """A script that forgets to close leaves no connection behind, and no warning."""
    script = "import sys, stemmadb\ndb = stemmadb.connect(sys.argv[1])\nwith db.session() as s: s.connection()\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, text_of(committed_db.url)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    with owner.connect() as connection:
        # The server takes a moment to see that its client has gone.
        deadline = threading.Event()
        for _ in range(100):
            left = connection.scalar(CONNECTIONS)
            connection.rollback()
            if left == committed_db.pool_stats().open:
                break
            deadline.wait(0.05)
    assert left == committed_db.pool_stats().open


# ------------------------------------------------------------------------------------------------- what cannot be used says why


@pytest.mark.fault
@pytest.mark.requirement("TN-061")
def test_a_refused_host_is_named() -> None:
    """Nobody listens there: one typed error with host, port, database and user, never the password."""
    port = free_port()
    with connect(f"postgresql://someone:hunter2@127.0.0.1:{port}/shop") as db, pytest.raises(DatabaseUnavailableError) as caught:
        db.run(lambda session: session.connection(), retries=0)
    message = str(caught.value)
    assert all(part in message for part in ("127.0.0.1", str(port), "shop", "someone"))
    assert "hunter2" not in message


@pytest.mark.fault
@pytest.mark.requirement("TN-061")
def test_an_unknown_database_is_named(db: Database) -> None:
    """The server is there, the database is not: a ConfigurationError, which no retry repeats."""
    with connect(text_of(db.url.set(database="nowhere"))) as other, pytest.raises(ConfigurationError, match="nowhere"):
        other.run(lambda session: session.connection())


@pytest.mark.fault
@pytest.mark.requirement("TN-061")
def test_a_wrong_password_is_named() -> None:
    """A server that asks for a password: one typed error with the user, never the password; no retry repeats it."""
    folder = Path(tempfile.mkdtemp(prefix="stemmadb-password-"))
    folder.chmod(0o755)
    rules = folder / "rules.conf"
    rules.write_text("local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n")
    rules.chmod(0o644)
    try:
        with embedded.start(folder / "data", durable=False, settings={"listen_addresses": "127.0.0.1", "hba_file": str(rules)}) as server:
            embedded.prepare(server)
            server.tool("psql", "-c", "ALTER ROLE stemma_app PASSWORD 'right'", user="postgres")
            url = f"postgresql://stemma_app:hunter2@127.0.0.1:{server.port}/stemmadb"
            with connect(url) as db, pytest.raises(ConfigurationError, match="stemma_app") as caught:
                db.run(lambda session: session.connection())
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert "hunter2" not in str(caught.value)


@pytest.mark.requirement("TN-065")
def test_an_empty_database_says_which_command_to_run(stemmadb_server: object, db: Database) -> None:
    """A schema that is behind gives SchemaOutOfDateError before any statement of the caller is sent."""
    with connect(text_of(db.url.set(database="postgres"))) as empty:
        with pytest.raises(SchemaOutOfDateError, match="stemmadb migrate up") as caught:
            empty.run(lambda session: session.execute(text("SELECT 1")))
        assert caught.value.found == "nothing"
        health = empty.health()
    assert not health.ok
    assert health.pending_migrations >= 2


def test_health(db: Database) -> None:
    """A database that can be used: its version, its latency, nothing pending."""
    health = db.health()
    assert health.ok
    assert health.error is None
    assert health.server_version is not None
    assert health.latency_ms > 0
    assert health.pending_migrations == 0


@pytest.mark.fault
@pytest.mark.requirement("EC-035")
def test_wait_until_ready_waits_for_a_server_that_is_late(db: Database) -> None:
    """The port opens only after the first attempts: the wait ends well."""
    port = free_port()
    started: list[ChaosProxy] = []
    timer = threading.Timer(0.3, lambda: started.append(ChaosProxy(db.url, port=port)))
    timer.start()
    with connect(text_of(db.url.set(host="127.0.0.1", port=port, query={}))) as late:
        late.wait_until_ready(timedelta(seconds=20))
    timer.join()
    started[0].close()


@pytest.mark.fault
def test_wait_until_ready_ends() -> None:
    """A server that never comes is a typed error after the time given."""
    with connect("postgresql://u@127.0.0.1:9/x") as db, pytest.raises(DatabaseUnavailableError):
        db.wait_until_ready(timedelta(seconds=0.2))


def test_errors_at_commit_are_typed(committed_db: Database) -> None:
    """What COMMIT itself refuses is translated as well."""
    address = email()
    with committed_db.session() as session:
        users.create(session, address)
    with pytest.raises(ConflictError), committed_db.session() as session:
        users.create(session, address)


@pytest.mark.offline
@pytest.mark.requirement("VR-027", "EC-037", "EC-214")
def test_the_package_exports_its_names() -> None:
    """Every name of stemmadb.__all__ is there, and nothing of the stack is imported before it is asked for."""
    for name in stemmadb.__all__:
        assert getattr(stemmadb, name) is not None
    code = "import sys, stemmadb; print([m for m in ('sqlalchemy', 'sqlmodel', 'psycopg', 'alembic', 'pydantic') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    gc.collect()
