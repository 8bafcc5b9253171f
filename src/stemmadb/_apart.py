"""Writes that must survive the caller's rollback: a failed log-in counted, a key's last use."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Engine, Row, text
from sqlalchemy.orm import Session

from stemmadb import tenancy
from stemmadb._openings import OPTION
from stemmadb._pools import patience
from stemmadb.errors import LockTimeoutError, PoolTimeoutError
from stemmadb.query import translated

# The caller's own transaction may hold the row, and would never end while this waits for it.
_SECOND_S = 0.25
_PATIENCE = text("SET LOCAL lock_timeout = '1s'")


def execute(session: Session, statement: str, parameters: Mapping[str, Any]) -> None:
    """
    Execute in a short transaction of its own, on a second connection of the session's engine.

    In a session that is bound to one connection, as the test fixtures', a savepoint there takes its place.

    Raises:
        PoolTimeoutError: and every other error of the library, when it could not be written.
    """
    with translated():
        bind = tenancy.bind_of(session)
        if isinstance(bind, Engine):
            with _second(session), _writing(bind).begin() as connection:
                connection.execute(text(statement), parameters)
        else:
            with bind.begin_nested():
                bind.execute(text(statement), parameters)


def settle(session: Session, statement: str, parameters: Mapping[str, Any]) -> Row[Any] | None:
    """
    As ``execute``, for a write that must not be left out: what cannot be done apart is done in the caller's transaction.

    That is so for a row that the caller's transaction made, which nobody else sees yet; for one that is locked for over a second, by
    that transaction perhaps; and when no second connection can be had. A session that has not begun takes no connection.

    Args:
        session: the caller's.
        statement: one that is safe to send again when it touched nothing, and that returns a row when it touched one.
        parameters: its parameters.

    Returns:
        The first row that the statement returned, or None.

    Raises:
        StemmaError: it could not be written in either way.
    """
    with translated():
        bind = tenancy.bind_of(session)
    if isinstance(bind, Engine):
        try:
            with translated(), _second(session), _writing(bind).begin() as connection:
                connection.execute(_PATIENCE)
                found = _first(connection, statement, parameters)
        except (LockTimeoutError, PoolTimeoutError):
            if not session.in_transaction():
                raise
            found = None
        if found is not None or not session.in_transaction():
            return found
    with translated():
        session.flush()
        with session.begin_nested():
            return _first(tenancy.connection_of(session), statement, parameters)


def _writing(engine: Engine) -> Engine:
    """Return the engine for transactions that may write, one row at a time, whatever the session's own were told."""
    opening = engine.get_execution_options().get(OPTION)
    if opening is None or (not opening.read_only and opening.isolation is None and opening.role is None):
        return engine
    return engine.execution_options(**{OPTION: replace(opening, read_only=False, isolation=None, role=None)})


def _second(session: Session) -> AbstractContextManager[None]:
    """Bound the wait for the second connection of a caller who holds one."""
    return patience(_SECOND_S if session.in_transaction() else None)


def _first(connection: Connection, statement: str, parameters: Mapping[str, Any]) -> Row[Any] | None:
    return connection.execute(text(statement), parameters).first()
