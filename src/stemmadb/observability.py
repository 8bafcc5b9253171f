"""What was sent to the database: counted, logged, and named when it was slow."""

import contextlib
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import ExceptionContext

from stemmadb._places import application_place

__all__ = ["StatementCount", "count_statements"]

logger: Final = logging.getLogger("stemmadb.query")

_LOG: Final = "stemma_log"
_TOLD: Final = 300
"""How much of a slow statement a line of the log has."""
_FRAMING = ("SET LOCAL ", "SAVEPOINT ", "RELEASE SAVEPOINT ", "ROLLBACK TO SAVEPOINT ")


@dataclass
class StatementCount:
    """The statements that were sent inside a block; BEGIN, the settings, savepoints and COMMIT are none."""

    statements: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        """How many there were."""
        return len(self.statements)


@contextlib.contextmanager
def count_statements() -> Iterator[StatementCount]:
    """
    Count the statements of every engine of the process, sync and async.

    Example:
        >>> with count_statements() as sent:
        ...     pass
        >>> sent.count
        0
    """
    seen = StatementCount()

    def note(_connection: Connection, _cursor: Any, statement: str, *_rest: Any) -> None:
        if not statement.startswith(_FRAMING):
            seen.statements.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(Engine, "before_cursor_execute", note)


@dataclass(frozen=True)
class StatementLog:
    """What becomes of a statement whose time is known."""

    log_queries: bool
    slow_query_ms: int

    def finished(self, statement: str, started: float) -> None:
        """Log a statement that was sent at this time of ``time.perf_counter``."""
        elapsed_ms = (time.perf_counter() - started) * 1000
        if self.log_queries:
            logger.debug("%.2f ms: %s", elapsed_ms, statement, extra={"duration_ms": elapsed_ms})
        if self.slow_query_ms and elapsed_ms > self.slow_query_ms:
            self._slow("slow query, %.0f ms", elapsed_ms, statement)

    def failed(self, statement: str, started: float) -> None:
        """Log a slow statement that failed: the slowest of all are those that a time limit ends."""
        elapsed_ms = (time.perf_counter() - started) * 1000
        if self.slow_query_ms and elapsed_ms > self.slow_query_ms:
            self._slow("slow query, failed after %.0f ms", elapsed_ms, statement)

    @staticmethod
    def _slow(message: str, elapsed_ms: float, statement: str) -> None:
        if not logger.isEnabledFor(logging.WARNING):
            return
        told = " ".join(statement.split())
        if len(told) > _TOLD:
            told = f"{told[:_TOLD]}... ({len(told):,} characters)"
        extra = {"duration_ms": elapsed_ms, "statement": statement}
        logger.warning(f"{message}, called at %s: %s", elapsed_ms, application_place() or "an unknown place", told, extra=extra)


def watch(engine: Engine, *, log_queries: bool, slow_query_ms: int) -> None:
    """
    Log an engine's statements to the logger ``stemmadb.query``: the slow ones as warnings, all of them at DEBUG when asked for.

    A line about a slow one says where the application called it, and has the statement's first 300 characters; the whole text is the
    record's attribute ``statement``. Parameters are never logged: they hold what users wrote.
    """
    if not log_queries and not slow_query_ms:
        return
    log = StatementLog(log_queries, slow_query_ms)

    # The time is kept on the execution's own context: a look into connection.info costs a tenth of a short statement.
    def before(_connection: Connection, _cursor: Any, statement: str, parameters: Any, context: Any, _many: bool) -> tuple[str, Any]:
        context.stemma_started = time.perf_counter()
        return statement, parameters

    def after(_connection: Connection, _cursor: Any, statement: str, _parameters: Any, context: Any, _many: bool) -> None:
        log.finished(statement, context.stemma_started)

    def failed(context: ExceptionContext) -> None:
        started = getattr(context.execution_context, "stemma_started", None)
        if started is not None:
            log.failed(context.statement or "", started)

    for listener in (before, after):
        setattr(listener, _LOG, log)
    # With retval, SQLAlchemy keeps the function as it is, so that log_of() knows it again.
    event.listen(engine, "before_cursor_execute", before, retval=True)
    event.listen(engine, "after_cursor_execute", after)
    event.listen(engine, "handle_error", failed)


def log_of(connection: Connection) -> tuple[bool, "StatementLog | None"]:
    """Return whether nobody but ``watch`` listens to the statements of a connection, and the log that they are for."""
    events = connection.dispatch
    if events.before_execute or events.after_execute:
        return False, None
    logs = [getattr(listener, _LOG, None) for listener in (*events.before_cursor_execute, *events.after_cursor_execute)]
    return None not in logs, logs[0] if logs else None
