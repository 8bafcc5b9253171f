"""The pools of our own engines: they say who waits and who holds, and keep no connection that nobody will ask for again."""

import asyncio
import contextlib
import select
import time
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import psycopg
import sqlalchemy
from sqlalchemy import AsyncAdaptedQueuePool, QueuePool, exc
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.util import queue

from stemmadb import _deadlines
from stemmadb import _openings as openings
from stemmadb._places import application_place
from stemmadb.errors import PoolTimeoutError


class _Queue(queue.Queue[ConnectionPoolEntry]):
    """Waits no longer than the deadline."""

    def get(self, block: bool = True, timeout: float | None = None) -> ConnectionPoolEntry:
        return super().get(block, _bounded(timeout))


class _AsyncQueue(queue.AsyncAdaptedQueue[ConnectionPoolEntry]):
    """Waits no longer than the deadline."""

    def get(self, block: bool = True, timeout: float | None = None) -> ConnectionPoolEntry:
        return super().get(block, _bounded(timeout))


def _bounded(timeout: float | None) -> float | None:
    deadline, patience = _deadlines.current(), _patience.get()
    bounds = (timeout, patience, None if deadline is None else deadline.left_s)
    return None if timeout is None else min(bound for bound in bounds if bound is not None)


_patience: ContextVar[float | None] = ContextVar("stemmadb_patience", default=None)


@contextlib.contextmanager
def patience(seconds: float | None) -> Iterator[None]:
    """
    Wait for a free connection no longer than this inside the block; None: as long as the pool allows.

    For a second connection beside one that the caller holds: when everybody holds one and waits for another, nobody gets any.
    """
    token = _patience.set(seconds)
    try:
        yield
    finally:
        _patience.reset(token)


class Pool(QueuePool):
    """Connections of one engine."""

    _queue_class: type[queue.QueueCommon[ConnectionPoolEntry]] = _Queue

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._asking: set[object] = set()
        self._holders: dict[ConnectionPoolEntry, tuple[float, str | None]] = {}
        self._is_over = False

    def dispose(self) -> None:
        """Close the connections that nobody holds; those in use are closed when they come back."""
        self._is_over = True
        super().dispose()

    def _do_get(self) -> ConnectionPoolEntry:
        me = object()
        self._asking.add(me)
        try:
            entry = super()._do_get()
        except exc.TimeoutError:
            raise self._exhausted() from None
        finally:
            self._asking.discard(me)
        self._holders[entry] = time.monotonic(), application_place()
        return entry

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        self._holders.pop(record, None)
        if not self._is_over:
            super()._do_return_conn(record)
            return
        try:
            record.close()
        finally:
            self._dec_overflow()

    def drop(self, entry: ConnectionPoolEntry) -> None:
        """Close a connection without a word to the server, and make room for another one."""
        if entry.dbapi_connection is not None:
            openings.driver_of(entry.dbapi_connection).pgconn.finish()
        self._holders.pop(entry, None)
        self._dec_overflow()

    def _exhausted(self) -> PoolTimeoutError:
        held = sorted(self._holders.values(), key=lambda holder: holder[0])
        return PoolTimeoutError(self.size() + self._max_overflow, len(held), len(self._asking), held[0][1] if held else None)


class AsyncPool(Pool):
    """The same for async sessions: what tells SQLAlchemy's AsyncAdaptedQueuePool from its QueuePool."""

    _is_asyncio = True
    _queue_class = _AsyncQueue
    _dialect = AsyncAdaptedQueuePool._dialect


# ------------------------------------------------------------------------------------------------------------- connections


def refuse_dead(dbapi_connection: Any, _record: object, _proxy: object) -> None:
    """
    Refuse an idle connection that the server has closed, so that the pool makes a new one before anything is sent.

    A server that ends an idle connection says so: its socket is readable. Looking costs a microsecond, a ping a round trip.
    """
    driver = openings.driver_of(dbapi_connection)
    if not driver.autocommit:
        # Whoever had it last chose an isolation level, and SQLAlchemy leaves it so.
        dbapi_connection.autocommit = True
    try:
        poll = select.poll()
        poll.register(driver.fileno(), select.POLLIN | select.POLLHUP | select.POLLERR)
        if not poll.poll(0):
            return
        driver.pgconn.consume_input()
    except Exception as error:
        raise exc.InvalidatePoolError("the server closed the connection") from error


def close_idle(pool: sqlalchemy.Pool) -> None:
    """Close the connections of an async pool that nobody holds, without the event loop that they were made in."""
    if not isinstance(pool, Pool):
        return
    while pool.checkedin():
        pool.drop(pool._do_get())


async def connect_async(*args: Any, **options: Any) -> psycopg.AsyncConnection[Any]:
    """
    Connect for an async pool.

    psycopg leaves the socket of an attempt that is cancelled to the garbage collector, and the server keeps a process for it until then:
    here the attempt goes on, and what it made is closed.
    """
    deadline = _deadlines.current()
    attempt = asyncio.ensure_future(psycopg.AsyncConnection.connect(*args, **options))
    try:
        async with asyncio.timeout(None if deadline is None else deadline.left_s):
            return await asyncio.shield(attempt)
    except (asyncio.CancelledError, TimeoutError):
        attempt.add_done_callback(_close_unwanted)
        raise


def _close_unwanted(attempt: asyncio.Future[psycopg.AsyncConnection[Any]]) -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().pgconn.finish()
