"""SQL text that goes past SQLAlchemy's machinery is still seen, logged and refused like any other."""

import logging
import re
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError, PendingRollbackError
from sqlalchemy.orm import Session

from stemmadb import connect
from stemmadb._direct import DirectStatement
from stemmadb.accounts.vocabularies import UserStatus
from stemmadb.database import Database
from stemmadb.errors import ConnectionLostError, NotFoundError, QueryTimeoutError, StemmaError
from stemmadb.evaluation import definitions
from stemmadb.evaluation.definitions import DefinitionCreate
from stemmadb.evaluation.documents import DefinitionContent, RunConfig
from stemmadb.evaluation.entities import Definition, Run
from stemmadb.query import query, sql, sql_tuples
from stemmadb.settings import Settings
from stemmadb.testing import count_queries

SLEEP = sql(Definition, "SELECT {columns} FROM pg_sleep(:seconds), stemma.definitions WHERE definitions.workspace_id = :workspace_id")
RUNS = sql(Run, "SELECT {columns} FROM stemma.runs WHERE runs.workspace_id = :workspace_id")


class Native(NamedTuple):
    """One value of each type that PostgreSQL sends in the binary format, and some of none."""

    id: UUID
    name: str
    whole: int
    real: float
    holds: bool
    raw: bytes
    at: datetime
    texts: list[str]
    nothing: str | None


class Named(NamedTuple):
    """A document and a vocabulary among the columns: they come as text."""

    name: str
    content: dict[str, Any]
    status: UserStatus


NATIVE = sql_tuples(
    Native,
    r"""
    SELECT definitions.id, definitions.name, definitions.version, 0.1::float8, definitions.parent_id IS NULL, '\x00ff'::bytea,
           timestamptz '2026-02-03 04:05:06.789 UTC', ARRAY['a', NULL, ''], NULL
      FROM stemma.definitions
     WHERE definitions.workspace_id = :workspace_id AND definitions.name LIKE :name
     ORDER BY definitions.name
    """,
)
NAMED = sql_tuples(
    Named,
    """
    SELECT name, content, CAST('ACTIVE' AS stemma.user_status)
      FROM stemma.definitions
     WHERE definitions.workspace_id = :workspace_id
    """,
)
CONTENT = DefinitionContent(preamble="p", template="t")


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each statement, whether it went past SQLAlchemy."""
    found: list[bool] = []
    whole = DirectStatement.fetch

    def fetch(self: DirectStatement, connection: Any, parameters: dict[str, Any]) -> Any:
        contexts: list[object] = []
        execute = type(connection).execute
        with monkeypatch.context() as patched:
            patched.setattr(type(connection), "execute", lambda *args: contexts.append(args) or execute(*args))
            rows = whole(self, connection, parameters)
        found.append(not contexts)
        return rows

    monkeypatch.setattr(DirectStatement, "fetch", fetch)
    return found


def test_both_ways_lead_to_the_same_tuples(session: Session, sent: list[bool]) -> None:
    """What was added but not sent is there; each type is what psycopg makes of it, whatever listens."""
    for name in ("Trolley", "100% boat", "Trolley bus"):
        session.add(Definition(name=name, content=CONTENT))
    direct = NATIVE.all(session, name="Trolley%")
    with count_queries() as count:
        heard = NATIVE.all(session, name="Trolley%")
    assert (sent, count.count) == ([True, False], 1)
    assert direct == heard
    assert [row.name for row in direct] == ["Trolley", "Trolley bus"]
    assert {type(row) for row in direct + heard} == {Native}
    at = datetime(2026, 2, 3, 4, 5, 6, 789_000, tzinfo=UTC)
    assert direct[0][2:] == (1, 0.1, True, b"\x00\xff", at, ["a", None, ""], None)
    assert direct[0].id == session.query(Definition).filter_by(name="Trolley").one().id
    assert NATIVE.first(session, name="100\\%%") == NATIVE.all(session, name="100% boat")[0]
    assert NATIVE.first(session, name="nothing") is None


def test_what_is_not_native_comes_as_text(session: Session, sent: list[bool]) -> None:
    """In the binary format a vocabulary would be bytes: such rows are read as SQLAlchemy reads them."""
    definitions.create(session, DefinitionCreate(name="Trolley", content=CONTENT))
    with count_queries():
        heard = NAMED.first(session)
    assert NAMED.first(session) == heard
    assert heard is not None
    assert (heard.content["template"], heard.status) == ("t", UserStatus.ACTIVE)
    assert sent[-2:] == [False, True]


def test_both_ways_lead_to_the_same_entities(session: Session, sent: list[bool]) -> None:
    """Documents and vocabularies among their columns."""
    made = definitions.create(session, DefinitionCreate(name="Trolley", content=CONTENT))
    session.add(Run(definition_id=made.id, config=RunConfig(models=("m",))))
    session.flush()
    session.expunge_all()
    (direct,) = RUNS.all(session)
    values = {name: value for name, value in direct.__dict__.items() if name != "_sa_instance_state"}
    session.expunge_all()
    with count_queries() as count:
        (heard,) = RUNS.all(session)
    assert count.count == 1
    assert {name: value for name, value in heard.__dict__.items() if name != "_sa_instance_state"} == values
    assert (values["config"], type(values["status"]).__name__) == (RunConfig(models=("m",)), "RunStatus")
    assert sent[-2:] == [True, False]


@pytest.mark.parametrize("name", ["before_execute", "after_execute", "before_cursor_execute", "after_cursor_execute"])
def test_listeners_are_called(session: Session, sent: list[bool], name: str) -> None:
    """A host that listens, on the connection or the engine, hears of every statement."""
    heard: list[str] = []

    def listen(*_arguments: Any) -> None:
        heard.append(name)

    event.listen(session.connection(), name, listen)
    RUNS.all(session)
    assert heard == [name]
    assert sent == [False]


def test_echo_and_options_take_the_long_way(session: Session, sent: list[bool]) -> None:
    """What SQLAlchemy was asked to do, it does."""
    session.connection(execution_options={"stream_results": False})
    session.connection().execution_options(compiled_cache=None)
    RUNS.all(session)
    assert sent == [False]


def test_a_failure_is_sqlalchemys(committed_db: Database, committed_workspace: Any) -> None:
    """The error is wrapped as others are, and translated for callers of query functions; a savepoint saves the transaction."""

    @query
    def sleep(session: Session) -> None:
        SLEEP.all(session, seconds="no number")

    with committed_db.session(committed_workspace) as session:
        with pytest.raises(DBAPIError), session.begin_nested():
            SLEEP.all(session, seconds="no number")
        with pytest.raises(StemmaError), session.begin_nested():
            sleep(session)
        assert RUNS.all(session) == []


def test_nothing_is_sent_into_a_savepoint_that_is_over(session: Session) -> None:
    """SQLAlchemy refuses it, and so it is asked."""
    connection = session.connection()
    savepoint = connection.begin_nested()
    RUNS.all(session)
    savepoint.is_active = False
    with pytest.raises(PendingRollbackError):
        RUNS.all(session)
    savepoint.is_active = True
    savepoint.rollback()


def test_a_lost_connection_leaves_the_pool(committed_db: Database, committed_workspace: Any) -> None:
    """The caller is told, and the next session gets another one."""

    @query
    def read(session: Session) -> None:
        RUNS.all(session)

    with pytest.raises(ConnectionLostError), committed_db.session(committed_workspace) as session:
        pid = session.execute(text("SELECT pg_backend_pid()")).scalar()
        with committed_db.session() as other:
            other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
        read(session)
    with committed_db.session(committed_workspace) as session, pytest.raises(NotFoundError):
        definitions.get(session, committed_workspace)


def test_slow_statements_are_logged(committed_db: Database, committed_workspace: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Those that end, and those that a time limit ends; without parameters."""
    settings = Settings(database_url=committed_db.url, workspace=None, slow_query_ms=20, query_timeout_ms=200)

    @query
    def sleep(session: Session, seconds: float) -> None:
        SLEEP.all(session, seconds=seconds)

    with connect(settings=settings) as db, caplog.at_level(logging.WARNING, "stemmadb.query"):
        with db.session(committed_workspace) as session:
            sleep(session, 0.05)
        with pytest.raises(QueryTimeoutError), db.session(committed_workspace) as session:
            sleep(session, 5.0)
        with db.session(committed_workspace) as session:
            session.execute(text(f"SELECT pg_sleep(0.05),{' ' * 400}\n 1 AS {'x' * 60}, {', '.join(map(str, range(200)))}"))
    first, second, long = caplog.records
    here = rf"called at {re.escape(__file__)}:\d+ in sleep: SELECT definitions\..*"
    assert re.fullmatch(rf"slow query, \d+ ms, {here}", first.getMessage())
    assert re.fullmatch(rf"slow query, failed after \d+ ms, {here}", second.getMessage())
    assert "pg_sleep(0.05), 1 AS xxx" in long.getMessage()
    assert long.getMessage().endswith(" characters)")
    assert len(long.getMessage()) < 600
    assert long.__dict__["statement"].endswith(", 199")


async def test_asynchronous_sessions_go_the_same_way(async_session: Any, sent: list[bool]) -> None:
    """Their driver has other cursors."""
    assert await async_session.run_sync(RUNS.all) == []
    assert sent == [True]
