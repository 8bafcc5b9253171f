"""One unit of work with retries, for sessions of either kind; the ambiguous COMMIT is settled by asking the server."""

import contextlib
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import psycopg
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from stemmadb._sqlstates import translate
from stemmadb.errors import (
    CommitUnknownError,
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

_CLAIM = text(
    "INSERT INTO stemma.stemma_idempotency_keys (key) VALUES (:key) ON CONFLICT DO NOTHING RETURNING pg_catalog.pg_current_xact_id()::text"
)
_XID = text("SELECT pg_catalog.pg_current_xact_id_if_assigned()::text")
_STATUS = text("SELECT pg_catalog.pg_xact_status(CAST(:xid AS xid8))")
_SETTLE_S = 30.0


@dataclass(frozen=True)
class Plan:
    """How often, how long and under which name a unit of work is tried."""

    retries: int
    deadline_s: float | None
    key: str | None

    def __post_init__(self) -> None:
        if self.retries < 0:
            raise ValidationError("retries cannot be negative", field="retries")
        if self.deadline_s is not None and self.deadline_s <= 0:
            raise ValidationError("deadline_s must be above 0", field="deadline_s")
        if self.key is not None and not 0 < len(self.key.strip()) <= len(self.key) <= 200:
            raise ValidationError("idempotency_key takes 1 to 200 characters", field="idempotency_key")


OpenSession = Callable[[int | None], Session]


def run(plan: Plan, open_session: OpenSession, work: Callable[[Session], R], pause: Callable[[float], None]) -> R:
    """Run the work in a transaction of its own until it is committed, refused for good, or given up."""
    end = None if plan.deadline_s is None else time.monotonic() + plan.deadline_s
    for attempt in range(plan.retries + 1):
        left = None if end is None else end - time.monotonic()
        if left is not None and left <= 0:
            raise QueryTimeoutError("deadline")
        session = open_session(None if left is None else max(1, int(left * 1000)))
        try:
            return _attempt(plan, session, open_session, work, pause)
        except _Again as again:
            if attempt == plan.retries:
                raise again.error from None
            logger.info("unit of work is repeated: %s", type(again.error).__name__, extra={"attempt": attempt + 1})
            pause(_backoff(attempt, end))
        finally:
            session.close()
    raise AssertionError("unreachable")  # pragma: no cover


class _Again(Exception):  # noqa: N818
    """Nothing was committed, and trying again may help."""

    def __init__(self, error: StemmaError) -> None:
        self.error = error


def _attempt(plan: Plan, session: Session, open_session: OpenSession, work: Callable[[Session], R], pause: Callable[[float], None]) -> R:
    try:
        xid = _claim(session, plan.key)
        result = work(session)
        session.flush()
        xid = xid or session.scalar(_XID)
    except BaseException as error:
        _roll_back(session)
        if (found := _sorted(error)) is error:
            raise
        raise found from None
    try:
        session.commit()
    except (SQLAlchemyError, psycopg.Error) as error:
        found = translate(error)
        _roll_back(session)
        if not isinstance(found, DatabaseUnavailableError):
            raise _sorted(found) from None
        # Without a transaction id nothing was written, so there is nothing that could be lost.
        if xid is None or _took_effect(plan, xid, open_session, pause):
            return result
        raise _Again(found) from None
    return result


def _claim(session: Session, key: str | None) -> str | None:
    """Take the key, and return the transaction's id; a concurrent holder of the same key is waited for."""
    if key is None:
        return None
    xid: str | None = session.scalar(_CLAIM, {"key": key})
    if xid is None:
        raise ConflictError("IdempotencyKey", ("key",), "work of this idempotency key was done before: nothing was run")
    return xid


def _roll_back(session: Session) -> None:
    # A connection that broke cannot roll back, and need not: the server did.
    with contextlib.suppress(SQLAlchemyError, psycopg.Error):
        session.rollback()


def _sorted(error: BaseException) -> BaseException:
    """Return an _Again around what is worth repeating, the translated error around the rest."""
    found = translate(error) if isinstance(error, (SQLAlchemyError, psycopg.Error)) else error
    if isinstance(found, (SerializationError, ConnectionLostError)):
        return _Again(found)
    if isinstance(found, DatabaseUnavailableError) and found.safe_to_retry:
        return _Again(found)
    return found


def _took_effect(plan: Plan, xid: str, open_session: OpenSession, pause: Callable[[float], None]) -> bool:
    """
    Find out whether a transaction whose COMMIT was not answered took effect.

    The server may not have noticed yet that its client is gone: while the transaction is in progress, it is asked again.
    """
    end = time.monotonic() + min(_SETTLE_S, plan.deadline_s or _SETTLE_S)
    attempt = 0
    while time.monotonic() < end:
        try:
            with contextlib.closing(open_session(None)) as session:
                status = session.scalar(_STATUS, {"xid": xid})
            if status in ("committed", "aborted"):
                return bool(status == "committed")
        except (SQLAlchemyError, psycopg.Error, StemmaError) as error:
            logger.info("a lost COMMIT could not be settled yet: %s", type(error).__name__)
        pause(_backoff(attempt, end))
        attempt += 1
    raise CommitUnknownError(xid)


def _backoff(attempt: int, end: float | None) -> float:
    """Return seconds to wait: 10 ms doubled each time up to a second, with jitter, never past the end."""
    seconds = min(1.0, 0.01 * 2**attempt) * random.uniform(0.5, 1.5)  # noqa: S311
    return float(seconds if end is None else max(0.0, min(seconds, end - time.monotonic())))
