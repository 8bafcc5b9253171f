"""Writes that must survive the caller's rollback, and where they go when they cannot be made apart."""

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from stemmadb import _apart
from stemmadb.database import Database
from stemmadb.errors import ConstraintViolationError, LockTimeoutError

RENAME = "UPDATE stemma.users SET name = :name WHERE email = 'a@example.com' RETURNING name"


@pytest.fixture
def db(committed_db: Database) -> Database:
    """A database with one user."""
    with committed_db.session() as session:
        session.execute(text("INSERT INTO stemma.users (email) VALUES ('a@example.com')"))
    return committed_db


def name_in(db: Database) -> str | None:
    """What is committed."""
    with db.session() as session:
        found: str | None = session.scalar(text("SELECT name FROM stemma.users WHERE email = 'a@example.com'"))
        return found


@pytest.mark.parametrize("modes", [{}, {"read_only": True}, {"isolation": "serializable"}], ids=["plain", "read only", "serializable"])
def test_it_survives_the_rollback(db: Database, modes: dict[str, object]) -> None:
    """Whatever the caller's transaction was told, and whether it has begun or not."""
    for name, begun in (("first", False), ("second", True)):
        with pytest.raises(ZeroDivisionError), db.session(**modes) as session:  # type: ignore[arg-type]
            if begun:
                session.execute(text("SELECT 1"))
            found = _apart.settle(session, RENAME, {"name": name})
            assert found is not None
            assert found.name == name
            _ = 1 / 0
        assert name_in(db) == name


def test_a_session_that_has_not_begun_takes_no_connection(db: Database) -> None:
    """So that many callers at once do not wait for each other's second one."""
    with db.session() as session:
        _apart.settle(session, RENAME, {"name": "x"})
        assert _apart.settle(session, RENAME.replace("a@", "b@"), {"name": "x"}) is None
        assert not session.in_transaction()


def test_what_the_caller_holds_is_written_by_the_caller(db: Database) -> None:
    """A row that is locked for a second, and one that only the caller sees; it goes with the caller's transaction."""
    with pytest.raises(ZeroDivisionError), db.session() as session:
        session.execute(text("SELECT 1 FROM stemma.users FOR UPDATE"))
        assert _apart.settle(session, RENAME, {"name": "held"}) is not None
        session.execute(text("INSERT INTO stemma.users (email) VALUES ('b@example.com')"))
        assert _apart.settle(session, RENAME.replace("a@", "b@"), {"name": "new"}) is not None
        _ = 1 / 0
    assert name_in(db) is None


def test_what_somebody_else_holds_is_not_waited_for_for_ever(db: Database) -> None:
    """LockTimeoutError, for a caller whose transaction has not begun."""
    with db.session() as holder:
        holder.execute(text("SELECT 1 FROM stemma.users FOR UPDATE"))
        with db.session() as session, pytest.raises(LockTimeoutError):
            _apart.settle(session, RENAME, {"name": "x"})


def test_on_one_connection_it_is_a_savepoint(session: Session) -> None:
    """What is refused leaves the caller's transaction usable."""
    bad = "UPDATE stemma.users SET email = 'X' RETURNING id"
    for call in (_apart.settle, _apart.execute):
        with pytest.raises(ConstraintViolationError):
            call(session, bad, {})
    assert session.scalar(text("SELECT count(*) FROM stemma.users WHERE email = 'X'")) == 0
