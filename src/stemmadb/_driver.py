"""
The cursors of our own connections.

SQLAlchemy asks for the description of every result, and reads names and types in it. psycopg makes an object for each column that answers
many more questions, which takes an eighth of the time of a short statement.
"""

from typing import Any

import psycopg
from psycopg.pq.abc import PGresult


def _described(result: PGresult | None) -> list[tuple[Any, ...]]:
    """Return the columns of a result as PEP 249 has them: name, type, and five times None."""
    if result is None:
        return []
    return [((result.fname(n) or b"").decode(), result.ftype(n), None, None, None, None, None) for n in range(result.nfields)]


class Cursor(psycopg.Cursor[Any]):
    """A cursor of psycopg, quick to describe its result."""

    @property
    def description(self) -> Any:
        """The columns of the result, names and types alone; None when there is no result."""
        return _described(self.pgresult) or super().description


class AsyncCursor(psycopg.AsyncCursor[Any]):
    """A cursor of psycopg for asynchronous connections, quick to describe its result."""

    @property
    def description(self) -> Any:
        """The columns of the result, names and types alone; None when there is no result."""
        return _described(self.pgresult) or super().description
