"""
SQL text whose rows become entities, executed past what SQLAlchemy does around every statement.

It looks up what it compiled, makes a context and a result, and asks its listeners: half of the client's time for reading a row by its key.
Whatever somebody could notice still goes its way: listeners, echo, execution options, other drivers than psycopg, and every error.
"""

import time
from collections.abc import Sequence
from typing import Any, Final

import psycopg
from sqlalchemy import Boolean, Column, Connection, DateTime, Integer, LargeBinary, String, TextualSelect, Uuid

from stemmadb import _openings as openings
from stemmadb import observability
from stemmadb.documents import DocumentColumn

_DRIVERS: Final = ("psycopg", "psycopg_async")
_HARMLESS: Final = {openings.OPTION, "isolation_level"}
# What the driver makes of them is the same in both formats, and a third less work in the binary one. Documents arrive as text.
_BINARY: Final = (Boolean, DateTime, DocumentColumn, Integer, LargeBinary, String, Uuid)


class DirectStatement:
    """
    A statement that is executed so.

    Args:
        statement: the text. Its parameters are given as psycopg adapts them.
        columns: the columns of its rows, in order, whose types say what becomes of the driver's values.
    """

    def __init__(self, statement: TextualSelect, columns: Sequence[Column[Any]]) -> None:
        self._statement = statement
        self._columns = columns
        self._binary = all(isinstance(column.type, _BINARY) for column in columns)
        self._texts: dict[str, str] = {}
        self._processors: dict[str, list[tuple[int, Any]]] = {}

    def fetch(self, connection: Connection, parameters: dict[str, Any]) -> Sequence[Sequence[Any]]:
        """Execute, and return every row."""
        is_unheard, log = observability.log_of(connection)
        if not is_unheard or not _is_plain(connection):
            return connection.execute(self._statement, parameters).all()
        driver = connection.dialect.driver
        text = self._texts.get(driver) or self._texts.setdefault(driver, str(self._statement.compile(dialect=connection.dialect)))
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
