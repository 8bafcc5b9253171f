"""Pools get over what happens to a server: a failover, changed tables, a restart; and what cannot be reached says why."""

import threading
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from stemmadb import connect
from stemmadb.accounts import users
from stemmadb.database import Database
from stemmadb.errors import ConnectionLostError, DatabaseUnavailableError
from stemmadb.query import query, sql_rows
from stemmadb.settings import Settings
from stemmadb.testing import run_together

READ_THINGS = text("SELECT id, name FROM stemma.things")
_THINGS = sql_rows("SELECT id, name FROM stemma.things")


@query
def things(session: Session) -> int:
    """How many there are, by a query function."""
    return len(_THINGS.all(session))


@pytest.fixture
def read_only_by_default(committed_db: Database, owner: Engine) -> Iterator[Engine]:
    """A database whose new connections only read, as those to a server that was demoted."""

    def alter(what: str) -> None:
        with owner.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("SET default_transaction_read_only = off"))
            connection.execute(text(f"ALTER DATABASE {committed_db.url.database} {what}"))

    alter("SET default_transaction_read_only = on")
    owner.alter = alter  # type: ignore[attr-defined]
    yield owner
    alter("RESET default_transaction_read_only")


@pytest.mark.fault
@pytest.mark.requirement("EC-189")
def test_a_failover_to_a_server_that_only_reads_is_got_over(committed_db: Database, read_only_by_default: Engine) -> None:
    """Connections to the old server are given up when it refuses to write: once the address leads to another, the next call works."""
    url = committed_db.url.render_as_string(hide_password=False)
    with connect(url, settings=Settings(pool_max=3, slow_query_ms=0)) as db:
        with db.session() as one, db.session() as two, db.session() as three:
            for session in (one, two, three):
                session.execute(text("SELECT 1"))
        with pytest.raises(DatabaseUnavailableError) as caught:
            db.run(users.create, "a@example.com", retries=1)
        assert caught.value.sqlstate == "25006"
        read_only_by_default.alter("RESET default_transaction_read_only")  # type: ignore[attr-defined]
        for number in range(6):
            with db.session() as session:
                users.create(session, f"b{number}@example.com")


def test_a_session_that_asked_to_read_only_gives_nothing_up(committed_db: Database) -> None:
    """That PostgreSQL refuses its writes says nothing about the server."""
    with connect(committed_db.url.render_as_string(hide_password=False), settings=Settings(pool_max=3, slow_query_ms=1)) as db:
        pids = []
        for _ in range(3):
            with pytest.raises(DatabaseUnavailableError), db.session(read_only=True) as session:
                pids.append(session.scalar(text("SELECT pg_backend_pid()")))
                users.create(session, "a@example.com")
    assert len(set(pids)) == 1


@pytest.fixture
def changing(committed_db: Database, owner: Engine) -> Engine:
    """A table whose column changes its type."""
    with owner.begin() as connection:
        connection.execute(text("CREATE TABLE stemma.things (id integer, name varchar(10))"))
        connection.execute(text("GRANT ALL ON stemma.things TO stemma_app"))
        connection.execute(text("INSERT INTO stemma.things VALUES (1, 'a')"))
    return owner


def change(owner: Engine, number: int) -> None:
    """Give the column another type."""
    with owner.begin() as connection:
        connection.execute(text(f"ALTER TABLE stemma.things ALTER name TYPE varchar({20 + number})"))
        connection.execute(text(f"ALTER TABLE stemma.things ALTER id TYPE {'bigint' if number % 2 else 'integer'}"))


@pytest.mark.fault
def test_units_of_work_get_over_changed_tables(committed_db: Database, changing: Engine) -> None:
    """Statements that the driver had prepared do not fit any more: twenty changes under four busy threads, and nobody notices."""
    stop = threading.Event()

    def work(number: int) -> int:
        if number == 0:
            for change_number in range(20):
                change(changing, change_number)
                stop.wait(0.01)
            stop.set()
            return 1
        done = 0
        while not stop.is_set():
            done += committed_db.run(lambda session: len(session.execute(READ_THINGS).all()))
        return done

    results = run_together(5, work)
    assert all(isinstance(result, int) and result > 0 for result in results), results


@pytest.mark.fault
def test_a_query_function_says_that_the_tables_changed(committed_db: Database, changing: Engine) -> None:
    """In a session, which cannot be repeated, it is a typed error, once for all connections of the pool; the next session works."""
    sessions = [committed_db.session() for _ in range(3)]
    for _ in range(7):
        opened = [session.__enter__() for session in sessions]
        assert [things(session) for session in opened] == [1, 1, 1]
        for session in sessions:
            session.__exit__(None, None, None)
        sessions = [committed_db.session() for _ in range(3)]
    change(changing, 1)
    with pytest.raises(ConnectionLostError, match="tables changed") as caught, committed_db.session() as session:
        things(session)
    assert caught.value.safe_to_retry
    for _ in range(6):
        with committed_db.session() as session:
            assert things(session) == 1


# ---------------------------------------------------------------------------------------------- what cannot be reached says why


@pytest.mark.fault
@pytest.mark.requirement("TN-061")
@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("postgresql://u:hunter2@127.0.0.1:9/x", "refused"),
        ("postgresql://u:hunter2@[::1]:9/x", "(refused|address)"),
        ("postgresql://u:hunter2@nowhere.invalid/x", "(resolve|name|service)"),
        ("postgresql://u:hunter2@/x?host=/nonexistent", "No such file"),
        ("postgresql://u:hunter2@%2Fnonexistent:9/x", "No such file"),
        ("postgresql://u:hunter2@127.0.0.1:9,[::1]:10/x", "refused"),
    ],
)
def test_an_unreachable_database_says_why(address: str, reason: str) -> None:
    """Refused, unknown or no socket: the message has the reason and the address, sync, async and in health; never the password."""
    with connect(address, settings=Settings(connect_timeout_ms=1000)) as db:
        with pytest.raises(DatabaseUnavailableError, match=f"(?i){reason}") as caught:
            db.run(lambda session: session.connection(), retries=0)
        health = db.health()
    for message in (str(caught.value), str(health.error), repr(caught.value)):
        assert "database x, user u" in message
        assert "hunter2" not in message
    assert not health.ok
