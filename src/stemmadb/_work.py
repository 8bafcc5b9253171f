"""One unit of work with retries, for sessions of either kind; the ambiguous COMMIT is settled by asking the server."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar, cast

import psycopg
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from stemmadb import _deadlines
from stemmadb._settling import Mark, OpenSession, Pause, backoff, mark, took_effect
from stemmadb._sqlstates import translate
from stemmadb.data import checked_text
from stemmadb.errors import (
    ConflictError,
    ConnectionLostError,
    DatabaseUnavailableError,
    QueryTimeoutError,
    SerializationError,
    StemmaError,
    ValidationError,
)

logger = logging.getLogger("stemmadb.database")

R = TypeVar("R")

# A key of more than 7 days ago is as if it had not been; each claim clears a few such keys away, so that nothing else has to.
_CLAIM = text(
    """
    WITH cleared AS (
        DELETE FROM stemma.stemma_idempotency_keys
         WHERE id IN (SELECT id FROM stemma.stemma_idempotency_keys
                       WHERE created_at < now() - interval '7 days' AND key <> :key
                       ORDER BY created_at LIMIT 10 FOR UPDATE SKIP LOCKED)
    )
    INSERT INTO stemma.stemma_idempotency_keys AS held (key) VALUES (:key)
    ON CONFLICT (workspace_id, key) DO UPDATE SET created_at = excluded.created_at WHERE held.created_at < now() - interval '7 days'
    RETURNING pg_catalog.pg_current_xact_id()::text
    """
)
_FOREIGN = (SQLAlchemyError, psycopg.Error)


@dataclass(frozen=True)
class Plan:
    """How often, how long and under which name a unit of work is tried."""

    retries: int
    deadline_s: float | None
    key: str | None

    def __post_init__(self) -> None:
        if isinstance(self.retries, bool) or not isinstance(self.retries, int) or self.retries < 0:
            raise ValidationError("retries is a whole number, 0 or more", field="retries")
        if self.deadline_s is not None:
            is_number = isinstance(self.deadline_s, int | float) and not isinstance(self.deadline_s, bool)
            if not is_number or not 0 < self.deadline_s <= threading.TIMEOUT_MAX:
                raise ValidationError("deadline_s is a number of seconds above 0, or None", field="deadline_s")
        if self.key is not None and not 0 < len(checked_text(self.key, "idempotency_key").strip()) <= len(self.key) <= 200:
            raise ValidationError("idempotency_key takes 1 to 200 characters", field="idempotency_key")


def run(plan: Plan, open_session: OpenSession, work: Callable[[Session], R], pause: Pause) -> R:
    """Run the work in a transaction of its own until it is committed, refused for good, or given up."""
    end = None if plan.deadline_s is None else time.monotonic() + plan.deadline_s
    attempt = repeated = 0
    before: StemmaError | None = None
    while True:
        try:
            with _deadlines.within(None if end is None else end - time.monotonic()):
                return _attempt(plan, open_session, work)
        except _Unanswered as lost:
            if took_effect(lost.transaction, end, open_session, pause):
                return cast("R", lost.result)
            again = _Again(lost.error)
        except _Again as error:
            again = error
        except QueryTimeoutError as error:
            # The server's own limit is set to the same moment.
            if end is None or error.kind == "idle" or time.monotonic() < end:
                raise
            raise QueryTimeoutError("deadline", error.sqlstate) from before
        before = again.error
        if end is not None and time.monotonic() >= end:
            raise QueryTimeoutError("deadline") from before
        # A server that is away has run nothing: with a deadline it is waited for until then.
        repeated += end is None or not isinstance(again.error, DatabaseUnavailableError)
        if repeated > plan.retries:
            raise again.error from None
        attempt += 1
        logger.info("unit of work is repeated: %s", type(again.error).__name__, extra={"attempt": attempt})
        pause(backoff(attempt, end))


class _Again(Exception):  # noqa: N818
    """Nothing was committed, and trying again may help."""

    def __init__(self, error: StemmaError) -> None:
        self.error = error


class _Unanswered(Exception):  # noqa: N818
    """COMMIT was sent, and the connection broke before the reply."""

    def __init__(self, transaction: Mark, result: object, error: StemmaError) -> None:
        self.transaction = transaction
        self.result = result
        self.error = error


def _attempt(plan: Plan, open_session: OpenSession, work: Callable[[Session], R]) -> R:
    with contextlib.ExitStack() as stack:
        begun = session = None
        try:
            session = stack.enter_context(contextlib.closing(open_session()))
            begun = session.begin()
            xid = _claim(session, plan.key)
            result = work(session)
            session.flush()
            transaction = mark(session, plan.key, xid)
        except BaseException as error:
            # What the work has committed by itself must not be done twice.
            is_whole = session is None or session.get_transaction() is begun
            roll_back(session)
            found = translate(error) if isinstance(error, _FOREIGN) else error
            if is_whole and _is_passing(found):
                raise _Again(cast("StemmaError", found)) from None
            if found is error:
                raise
            raise found from None
        _commit(session, transaction, result)
        return result


def _commit(session: Session, transaction: Mark | None, result: object) -> None:
    try:
        session.commit()
    except _FOREIGN as error:
        found = translate(error)
        roll_back(session)
        if isinstance(found, SerializationError):
            raise _Again(found) from None
        if not isinstance(found, DatabaseUnavailableError):
            raise found from None
        if transaction is not None:
            raise _Unanswered(transaction, result, found) from None


def _claim(session: Session, key: str | None) -> str | None:
    """Take the key, and return the transaction's id; a concurrent holder of the same key is waited for."""
    if key is None:
        return None
    xid: str | None = session.scalar(_CLAIM, {"key": key})
    if xid is None:
        raise ConflictError("IdempotencyKey", ("key",), "work of this idempotency key was done before: nothing was run")
    return xid


def roll_back(session: Session | None) -> None:
    """Roll back as far as it goes: a connection that broke cannot, and need not, because the server did."""
    with contextlib.suppress(*_FOREIGN):
        if session is not None:
            session.rollback()


def _is_passing(error: BaseException) -> bool:
    """Return whether repeating the work may help."""
    if isinstance(error, SerializationError | ConnectionLostError):
        return True
    return isinstance(error, DatabaseUnavailableError) and error.safe_to_retry
