"""
Statements whose rows become entities, executed past what SQLAlchemy does around every statement.

It looks up what it compiled, makes a context and a result, and asks its listeners: half of the client's time for reading a row by its key.
Whatever somebody could notice still goes its way: listeners, echo, execution options, other drivers than psycopg, and every error.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import psycopg
from sqlalchemy import Boolean, Column, Connection, DateTime, Integer, LargeBinary, Select, String, TextClause, TextualSelect, Uuid

from stemmadb import _openings as openings
from stemmadb import observability
from stemmadb.documents import DocumentColumn

_DRIVERS: Final = ("psycopg", "psycopg_async")
_HARMLESS: Final = {openings.OPTION, "isolation_level"}
# What the driver makes of them is the same in both formats, and a third less work in the binary one. Documents arrive as text.
_BINARY: Final = (Boolean, DateTime, DocumentColumn, Integer, LargeBinary, String, Uuid)


class _Bind(NamedTuple):
    """A parameter of a compiled statement."""

    name: str
    """In the text."""
    key: str
    """What callers call it."""
    default: Any
    process: Callable[[Any], Any] | None
    """What becomes of its value before the driver adapts it."""


class _Compiled(NamedTuple):
    """A statement for one driver."""

    text: str
    binds: list[_Bind] | None
    """None: the text has the names that callers use, and nothing becomes of the values."""


class DirectStatement:
    """
    A statement that is executed so.

    Args:
        statement: what is executed. Parameters of a text are given as psycopg adapts them.
        columns: the columns of its rows, in order, whose types say what becomes of the driver's values. None: nothing does.
        is_binary: whether the rows arrive in the binary format. None: where every column's type is the same in both.
    """

    def __init__(
        self, statement: TextClause | TextualSelect | Select[Any], columns: Sequence[Column[Any]] = (), *, is_binary: bool | None = None
    ) -> None:
        self._statement = statement
        self._columns = columns
        self._binary = all(isinstance(column.type, _BINARY) for column in columns) if is_binary is None else is_binary
        self._compiled: dict[str, _Compiled | None] = {}
        self._processors: dict[str, list[tuple[int, Any]]] = {}

    def fetch(self, connection: Connection, parameters: dict[str, Any]) -> Sequence[Sequence[Any]]:
        """Execute, and return every row."""
        is_unheard, log = observability.log_of(connection)
        compiled = self._compile(connection) if is_unheard and _is_plain(connection) else None
        if compiled is None:
            return connection.execute(self._statement, parameters).all()
        text = compiled.text
        if compiled.binds is not None:
            parameters = {bind.name: _value(bind, parameters) for bind in compiled.binds}
        cursor: Any = connection.connection.cursor()
        if self._binary:
            # SQLAlchemy's cursor for asynchronous drivers stands before psycopg's.
            getattr(cursor, "_cursor", cursor).format = psycopg.pq.Format.BINARY
        started = time.perf_counter()
        try:
            cursor.execute(text, parameters)
            rows: Sequence[Sequence[Any]] = cursor.fetchall()
        except BaseException as error:
            if log is not None:
                log.failed(text, started)
            if isinstance(error, Exception) and not isinstance(error, psycopg.Error):
                cursor.close()
                raise
            # Tells the pool of a connection that is lost, and raises what SQLAlchemy calls the error.
            connection._handle_dbapi_exception(error, text, parameters, cursor, None)
        if log is not None:
            log.finished(text, started)
        return self._processed(connection, cursor, rows)

    def _compile(self, connection: Connection) -> _Compiled | None:
        """Return the statement for the connection's driver; None for one whose text depends on the values of its parameters."""
        driver = connection.dialect.driver
        if driver not in self._compiled:
            made: Any = self._statement.compile(dialect=connection.dialect)
            binds = None
            if isinstance(self._statement, Select):
                processors = made._bind_processors
                binds = [_Bind(name, bind.key, bind.effective_value, processors.get(name)) for bind, name in made.bind_names.items()]
            fits = not (made.post_compile_params or made.literal_execute_params or made.escaped_bind_names)
            self._compiled[driver] = _Compiled(str(made), binds) if fits else None
        return self._compiled[driver]

    def _processed(self, connection: Connection, cursor: Any, rows: Sequence[Sequence[Any]]) -> Sequence[Sequence[Any]]:
        driver = connection.dialect.driver
        processors = self._processors.get(driver)
        if processors is None:
            types = zip(self._columns, cursor.description, strict=False)
            found = [column.type.dialect_impl(connection.dialect).result_processor(connection.dialect, told[1]) for column, told in types]
            processors = self._processors[driver] = [(place, made) for place, made in enumerate(found) if made is not None]
        cursor.close()
        if not processors:
            return rows
        processed = [list(row) for row in rows]
        for place, process in processors:
            for row in processed:
                row[place] = process(row[place])
        return processed


def _value(bind: _Bind, parameters: dict[str, Any]) -> Any:
    value = parameters.get(bind.key, bind.default)
    return value if bind.process is None else bind.process(value)


def _is_plain(connection: Connection) -> bool:
    """Whether the connection is in a transaction, and nothing is asked of it that SQLAlchemy would do."""
    savepoint = connection.get_nested_transaction()
    return (
        connection.dialect.driver in _DRIVERS
        and connection.in_transaction()
        and (savepoint is None or savepoint.is_active)
        and not connection._echo
        and connection.get_execution_options().keys() <= _HARMLESS
    )
