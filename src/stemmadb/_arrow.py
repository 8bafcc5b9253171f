"""
Results of statements as Arrow record batches, read by ADBC: C from the socket to the columns.

ADBC opens a connection of its own. It goes where the session's went, with the same login, and begins a transaction that only reads, in the
session's role, schemas and workspace.
"""

import asyncio
import contextlib
import importlib
import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from sqlalchemy import Connection
from sqlalchemy.util.concurrency import await_only, in_greenlet

from stemmadb import _deadlines
from stemmadb import _openings as openings
from stemmadb._arrow_types import Column, columns_of, refuse_infinity, wrapped
from stemmadb._sqlstates import refused
from stemmadb.errors import (
    ConfigurationError,
    ConnectionLostError,
    DatabaseUnavailableError,
    MissingDependencyError,
    QueryTimeoutError,
)

if TYPE_CHECKING:
    import pyarrow
    from adbc_driver_manager import AdbcConnection, AdbcDatabase, AdbcStatement

T = TypeVar("T")

# As the session's own transaction was told, or its host has set it: whoever wraps a pool in a role of less rights counts on it.
_TOLD = """
SELECT pg_catalog.current_setting('role'), pg_catalog.current_schemas(false), pg_catalog.current_setting('statement_timeout')
"""
_PATIENCE_S: Final = 5.0
"""How long an interrupted reader is waited for."""
_PAUSE_S: Final = 0.05
_BATCH_BYTES: Final = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Source:
    """Where a reader connects to, and what its transaction is told."""

    conninfo: str = field(repr=False)
    """It may hold a password."""
    opening: str


def source_of(connection: Connection, workspace_id: UUID) -> Source:
    """
    Return the place of a session's connection. One statement.

    Args:
        connection: of the session, in its transaction.
        workspace_id: of the session.

    Raises:
        ConfigurationError: the driver is another one than psycopg.
    """
    driver = driver_of(connection)
    role, schemas, timeout = connection.exec_driver_sql(_TOLD).one()
    path = ", ".join(sql.Identifier(schema).as_string(driver) for schema in schemas)
    told = [
        "BEGIN READ ONLY",
        f"SET LOCAL ROLE {sql.Identifier(role).as_string(driver)}" if role != "none" else "",
        f"SET LOCAL search_path = {path or sql.Literal('').as_string(driver)}",
        "SET LOCAL timezone = 'UTC'",
        f"SET LOCAL stemma.workspace_id = '{workspace_id}'",
        f"SET LOCAL statement_timeout = '{timeout}'",
    ]
    password = {"password": driver.info.password} if driver.info.password else {}
    conninfo = make_conninfo(**{**driver.info.get_parameters(), **password, "client_encoding": "UTF8"})
    return Source(conninfo, "; ".join(filter(None, told)))


def driver_of(connection: Connection) -> "psycopg.Connection[Any] | psycopg.AsyncConnection[Any]":
    """
    Return psycopg's own connection.

    Raises:
        ConfigurationError: the engine has another driver.
    """
    driver = openings.driver_of(connection.connection.dbapi_connection)
    if not isinstance(driver, psycopg.Connection | psycopg.AsyncConnection):
        raise ConfigurationError("frames need an engine whose driver is psycopg: postgresql+psycopg://")
    return driver


def require_adbc() -> None:
    """
    Raise when what reads frames is not installed.

    Raises:
        MissingDependencyError: the extra ``frames`` is not.
    """
    try:
        importlib.import_module("adbc_driver_postgresql")
        importlib.import_module("pyarrow")
    except ImportError:
        raise MissingDependencyError("frames") from None


class Reader:
    """
    The result of one statement, batch by batch, on a connection of its own; ``close`` ends both.

    The calls that wait for the server are made in a thread: Ctrl-C and the cancellation of a task reach whoever waits, and end the
    statement.
    """

    def __init__(self, source: Source, statement: str) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="stemmadb-frame")
        self._connection: AdbcConnection | None = None
        self._statement: AdbcStatement | None = None
        self._batches: pyarrow.RecordBatchReader | None = None
        self._columns: list[Column] = []
        try:
            self._call(lambda: self._open(source, statement))
        except BaseException:
            self.close()
            raise

    @property
    def schema(self) -> "pyarrow.Schema":
        """The columns as they are given, with no rows as well."""
        import pyarrow

        return pyarrow.schema([column.field for column in self._columns])

    def next_batch(self) -> "pyarrow.RecordBatch | None":
        """Return the next rows, about 8 MB of them; None when there are no more."""
        return self._call(self._next)

    def whole(self, finish: "Callable[[pyarrow.Table], T]") -> T:
        """Return what becomes of all rows that are left, off the event loop as well."""
        import pyarrow

        return self._call(lambda: finish(pyarrow.Table.from_batches(list(iter(self._next, None)), self.schema)))

    def close(self) -> None:
        """End the statement, if it has not ended, and close the connection."""
        # Behind whatever runs in the thread: nothing may be closed under it.
        ended = self._thread.submit(self._end)
        self._thread.shutdown(wait=False)
        wait([ended], timeout=_PATIENCE_S)

    def _end(self) -> None:
        # Where the server is gone, closing may fail, and there is nothing to be saved.
        with contextlib.suppress(Exception):
            if self._batches is not None and self._statement is not None:
                self._statement.cancel()
        self._batches = None
        for opened in (self._statement, self._connection):
            with contextlib.suppress(Exception):
                if opened is not None:
                    opened.close()

    def _open(self, source: Source, statement: str) -> None:
        import pyarrow
        from adbc_driver_manager import AdbcConnection, AdbcStatement

        # pyarrow's own reader of a stream would lose the SQLSTATE of what fails in the middle of it.
        from adbc_driver_manager._reader import AdbcRecordBatchReader

        self._connection = AdbcConnection(_database(source.conninfo))
        with contextlib.closing(AdbcStatement(self._connection)) as begin:
            begin.set_sql_query(source.opening)
            begin.execute_update()
        self._statement = asked = AdbcStatement(self._connection)
        asked.set_options(**{"adbc.postgresql.batch_size_hint_bytes": str(_BATCH_BYTES)})
        asked.set_sql_query(statement)
        self._columns = columns_of(pyarrow.schema(cast("Any", asked.execute_schema())))
        asked.set_sql_query(wrapped(statement, self._columns))
        stream, _ = asked.execute_query()
        self._batches = AdbcRecordBatchReader._import_from_c(stream.address)

    def _next(self) -> "pyarrow.RecordBatch | None":
        import pyarrow

        if self._batches is None:
            return None
        try:
            batch = self._batches.read_next_batch()
        except StopIteration:
            self._batches = None
            return None
        arrays = [column.converted(array) for column, array in zip(self._columns, batch.columns, strict=True)]
        refuse_infinity(self._columns, arrays)
        return pyarrow.RecordBatch.from_arrays(arrays, schema=self.schema)

    def _call(self, fn: Callable[[], T]) -> T:
        future: Future[T] = self._thread.submit(fn)
        deadline = _deadlines.current()
        try:
            left_s = None if deadline is None else deadline.left_s
            if in_greenlet():
                return await_only(asyncio.wait_for(asyncio.wrap_future(future), left_s))
            end = math.inf if left_s is None else time.monotonic() + left_s
            # Not in one wait: the system may give Ctrl-C to another thread, and Python hears of it when this one wakes.
            while not wait([future], timeout=_PAUSE_S).done and time.monotonic() < end:
                pass
            return future.result(0)
        except BaseException as error:
            if isinstance(error, Exception) and future.done():
                raise _translated(error) from None
            self._interrupt(future)
            if isinstance(error, TimeoutError):
                raise QueryTimeoutError("deadline") from None
            raise

    def _interrupt(self, future: "Future[Any]") -> None:
        """End the statement; again and again, since one that is sent only now is not met by a cancellation before."""
        end = time.monotonic() + _PATIENCE_S
        while time.monotonic() < end and not wait([future], timeout=_PAUSE_S).done:
            with contextlib.suppress(Exception):
                if self._statement is not None:
                    self._statement.cancel()


_databases: "dict[str, AdbcDatabase]" = {}
_lock = threading.Lock()
_MOST_DATABASES: Final = 16


def _database(conninfo: str) -> "AdbcDatabase":
    """
    Return what ADBC knows of a database; kept, since it asks for all of its types first, which takes far longer than connecting.

    It holds no connection.
    """
    driver: Any = importlib.import_module("adbc_driver_postgresql")
    with _lock:
        found = _databases.pop(conninfo, None)
    if found is None:
        found = cast("AdbcDatabase", driver.connect(conninfo))
    with _lock:
        # The one that was used last is the last to go; those that are still in use live on with their connections.
        _databases[conninfo] = found
        while len(_databases) > _MOST_DATABASES:
            del _databases[next(iter(_databases))]
    return found


def _translated(error: Exception) -> Exception:
    """Return the library's error for one of ADBC's; any other as it is."""
    import adbc_driver_manager

    if not isinstance(error, adbc_driver_manager.Error):
        return error
    if error.sqlstate:
        return refused(error.sqlstate, {_text(name).removeprefix("PG_DIAG_").lower(): _text(value) for name, value in error.details})
    # Its texts repeat the statement, whose values are nobody's business.
    if "connect:" in str(error):
        return DatabaseUnavailableError("The database cannot be reached for a frame", safe_to_retry=True)
    return ConnectionLostError(safe_to_retry=True)


def _text(value: "str | bytes") -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


@contextlib.contextmanager
def reading(source: Source, statement: str) -> Iterator[Reader]:
    """Read a statement inside the block, which ends it."""
    reader = Reader(source, statement)
    try:
        yield reader
    finally:
        reader.close()
