"""
The cursors and sockets of our own connections, and when what a connection sends is on its way.

SQLAlchemy asks for the description of every result, and reads names and types in it. psycopg makes an object for each column that answers
many more questions, which takes an eighth of the time of a short statement.
"""

import contextlib
import os
import socket
from collections.abc import Callable, Generator, Iterator
from typing import Any, Final

import psycopg
from psycopg.pq.abc import PGresult
from psycopg.waiting import Wait
from sqlalchemy import Connection


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


_ROOM: Final = 4 * 1024 * 1024


def make_room(fileno: int) -> None:
    """
    Let the socket to a server on this machine take 4 MB at once, or what the system allows.

    Its 200 kB are full twenty times while a thousand documents are sent. Each time the two wait for each other, and libpq moves what is
    left to the front of its buffer. Over TCP the system finds the size by itself.
    """
    with socket.socket(fileno=os.dup(fileno)) as local:
        if local.family == getattr(socket, "AF_UNIX", None):
            # Some systems refuse what is over their bound, instead of giving that: then it stays as it is.
            with contextlib.suppress(OSError):
                local.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ROOM)


@contextlib.contextmanager
def telling(connection: Connection, sent: Callable[[], None]) -> Iterator[None]:
    """
    Call *sent* when a statement of the block is with the server, whose answer is waited for; at the latest when the block ends.

    It may be called more than once, and is called at once where the driver is another one than psycopg.
    """
    driver: Any = connection.connection.driver_connection
    if not isinstance(driver, psycopg.Connection | psycopg.AsyncConnection):
        sent()
        yield
        return
    own, wait = vars(driver), driver.wait
    outer = own.get("wait")
    own["wait"] = lambda steps, *args, **kwargs: wait(_told(steps, sent), *args, **kwargs)
    try:
        yield
    finally:
        if outer is None:
            del own["wait"]
        else:
            own["wait"] = outer
        sent()


def _told(steps: Generator[Any, Any, Any], sent: Callable[[], None]) -> Generator[Any, Any, Any]:
    """Do what psycopg does step by step; once it only waits for something to read, everything has been sent."""
    try:
        wanted = next(steps)
        while True:
            if wanted == Wait.R:
                sent()
            wanted = steps.send((yield wanted))
    except StopIteration as end:
        return end.value
