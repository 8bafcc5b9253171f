"""Writes that must survive the caller's rollback: a failed log-in counted, a key's last use."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from stemmadb.query import translated


def execute(session: Session, statement: str, parameters: Mapping[str, Any]) -> None:
    """
    Execute in a short transaction of its own, on a second connection of the session's engine.

    In a session that is bound to one connection, as the test fixtures', a savepoint there takes its place.

    Raises:
        PoolTimeoutError: and every other error of the library, when it could not be written.
    """
    bind = session.get_bind()
    with translated():
        if isinstance(bind, Engine):
            with bind.begin() as connection:
                connection.execute(text(statement), parameters)
        else:
            with bind.begin_nested():
                bind.execute(text(statement), parameters)
