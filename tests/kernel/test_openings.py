"""What a transaction is told as it begins holds for it, whatever its connection was used for before."""

from collections.abc import Iterator

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from stemmadb import connect
from stemmadb.accounts import users
from stemmadb.database import Database
from stemmadb.errors import ConfigurationError, DatabaseError, ReferenceNotFoundError, StemmaError, ValidationError
from stemmadb.evaluation import definitions
from stemmadb.testing import count_queries, make_workspace
from stemmadb.workspaces import members

MODES = text("SELECT current_setting('transaction_isolation'), current_setting('transaction_read_only'), current_user, pg_backend_pid()")
FAILING = text("SELECT 1 / 0")
NOBODY = "00000000-0000-7000-8000-000000000000"


@pytest.fixture
def narrow(committed_db: Database) -> Iterator[Database]:
    """A Database with a pool whose sessions have one connection after the other."""
    with connect(f"{committed_db.url.render_as_string(hide_password=False)}&connection_limit=2") as db:
        yield db


def test_modes_hold_after_a_session_that_chose_its_isolation(narrow: Database) -> None:
    """SQLAlchemy's own isolation_level changes how the connection begins: the next session has its modes all the same."""
    with narrow.session() as session:
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        first = session.execute(MODES).one()
    with narrow.session(isolation="serializable", read_only=True) as session:
        second = session.execute(MODES).one()
    assert tuple(first[:3]) == ("repeatable read", "off", "stemma_app")
    assert tuple(second[:3]) == ("serializable", "on", "stemma_app")
    assert first[3] == second[3]


async def test_modes_hold_after_an_async_session_that_chose_its_isolation(narrow: Database) -> None:
    """The same on the async driver."""
    async with narrow.async_session() as session:
        await session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        first = (await session.execute(MODES)).one()
    async with narrow.async_session(isolation="serializable", read_only=True) as session:
        second = (await session.execute(MODES)).one()
    assert tuple(second[:3]) == ("serializable", "on", "stemma_app")
    assert first[3] == second[3]


def test_read_only_holds_beside_an_isolation_of_sqlalchemy(narrow: Database) -> None:
    """The nearest isolation wins; that the session only reads stays."""
    with narrow.session(read_only=True, isolation="serializable") as session:
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        assert tuple(session.execute(MODES).one()[:2]) == ("repeatable read", "on")


def test_a_workspace_is_refused_in_autocommit(narrow: Database) -> None:
    """Its settings hold for a transaction, and without them every table of a workspace would look empty."""
    workspace = make_workspace(narrow)
    with pytest.raises(ConfigurationError, match="AUTOCOMMIT"), narrow.session(workspace) as session:
        session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
    with narrow.session(workspace) as session:
        assert len(members.list_all(session)) == 1
    with narrow.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        assert connection.scalar(text("SELECT 1")) == 1


@pytest.mark.parametrize("isolation", ["read uncommitted", "SERIALIZABLE", "", 1, ["serializable"], "'; DROP TABLE x; --"])
def test_an_unknown_isolation_is_refused_before_anything_is_sent(db: Database, isolation: object) -> None:
    """A ValidationError that names the parameter."""
    with count_queries() as sent, pytest.raises(ValidationError) as caught, db.session(isolation=isolation):  # type: ignore[arg-type]
        pass
    assert (caught.value.field, sent.count) == ("isolation", 0)


def test_two_phases_are_refused(db: Database) -> None:
    """They begin without our settings: role, workspace and time zone would be missing."""
    with Session(db.engine, twophase=True) as session, pytest.raises(ConfigurationError, match="two-phase"):
        session.execute(text("SELECT 1"))
    assert db.pool_stats().in_use == 0


# ---------------------------------------------------------------------------------------------- what failed is not committed


def test_a_transaction_with_a_failed_statement_is_not_said_to_be_committed(committed_db: Database) -> None:
    """PostgreSQL answers such a COMMIT with a rollback and no error: whoever swallowed the first error is told now."""
    with pytest.raises(DatabaseError, match="cannot be committed") as caught, committed_db.session() as session:
        users.create(session, "a@example.com")
        with pytest.raises(Exception, match="division"):
            session.execute(FAILING)
    assert caught.value.sqlstate == "25P02"
    with committed_db.session() as session:
        assert users.find_by_email(session, "a@example.com") is None
    assert committed_db.pool_stats().in_use == 0


def test_a_refused_call_that_was_swallowed_is_told_at_the_end(committed_db: Database) -> None:
    """Also when the error was one of ours."""
    with pytest.raises(DatabaseError, match="cannot be committed"), committed_db.session(make_workspace(committed_db)) as session:
        with pytest.raises(ReferenceNotFoundError):
            members.add(session, NOBODY)


async def test_an_async_transaction_with_a_failed_statement_is_not_said_to_be_committed(committed_db: Database) -> None:
    """The same on the async driver; the session can be rolled back and goes on."""
    async with committed_db.async_session() as session:
        with pytest.raises(Exception, match="division"):
            await session.execute(FAILING)
        with pytest.raises(StemmaError, match="cannot be committed"):
            await session.commit()
        await session.rollback()
        assert await session.scalar(text("SELECT 1")) == 1


def test_a_failure_in_a_savepoint_does_not_count(committed_db: Database) -> None:
    """What was rolled back to a savepoint leaves the rest to be committed."""
    with committed_db.session() as session:
        users.create(session, "b@example.com")
        with pytest.raises(Exception, match="division"), session.begin_nested():
            session.execute(FAILING)
    with committed_db.session() as session:
        assert users.find_by_email(session, "b@example.com") is not None


def test_units_of_work_tell_a_swallowed_failure_too(committed_db: Database) -> None:
    """run() raises, and repeats nothing."""
    runs = []

    def swallow(session: Session) -> None:
        runs.append(1)
        with pytest.raises(Exception, match="division"):
            session.execute(FAILING)

    with pytest.raises(DatabaseError):
        committed_db.run(swallow)
    assert len(runs) == 1
    with committed_db.session(make_workspace(committed_db)) as session:
        assert definitions.list_all(session).items == []
