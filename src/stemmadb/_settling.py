"""Finds out whether a transaction took effect whose COMMIT was not answered, by asking the server."""

import contextlib
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from stemmadb import _deadlines
from stemmadb.errors import CommitUnknownError, StemmaError
from stemmadb.tenancy import connection_of

logger: Final = logging.getLogger("stemmadb.database")

OpenSession = Callable[[], Session]
Pause = Callable[[float], None]

LIFE = "stemma_life"
"""Where the info of a connection of our own engines has the Life of its server."""

# The server's own processes, which have no user. When one of its processes crashes all of them are started anew; the postmaster is not.
LIFE_COLUMNS = """
       pg_catalog.pg_postmaster_start_time()::text,
       (SELECT pg_catalog.array_agg(pid) FROM pg_catalog.pg_stat_get_activity(NULL) WHERE usesysid IS NULL)
"""
_XID = text("SELECT pg_catalog.pg_current_xact_id_if_assigned()::text")
_LIFE = text(f"SELECT {LIFE_COLUMNS}")
_STATUS = text(f"SELECT pg_catalog.pg_xact_status(CAST(:xid AS xid8)), {LIFE_COLUMNS}")
_IS_OURS = text(
    "SELECT CAST(xmin::text AS numeric) = CAST(:xid AS numeric) % 4294967296 FROM stemma.stemma_idempotency_keys WHERE key = :key"
)
_SETTLE_S = 30.0
_LAST_LOOK_S = 0.25
_FUTURE = "22023"


@dataclass(frozen=True)
class Life:
    """One life of a server, from its start or its recovery to its end or its crash."""

    started: str
    processes: frozenset[int]

    @classmethod
    def of(cls, started: str, processes: list[int] | None) -> "Life":
        """Return the life that LIFE_COLUMNS tell of."""
        return cls(started, frozenset(processes or ()))

    def goes_on(self, now: "Life") -> bool:
        """Return whether the server has not crashed or been restarted since; single processes may have been."""
        return self.started == now.started and not self.processes.isdisjoint(now.processes)


@dataclass(frozen=True)
class Mark:
    """What a transaction is known by, noted before its COMMIT."""

    xid: str
    key: str | None
    life: Life


def mark(session: Session, key: str | None, xid: str | None) -> Mark | None:
    """Return what the session's transaction is known by; None when it has written nothing, so that nothing could be lost."""
    connection = connection_of(session)
    found = xid or connection.scalar(_XID)
    if found is None:
        return None
    life = connection.info.get(LIFE)
    # Behind a pooler, and on a host's engine, the connection does not know.
    return Mark(found, key, life or Life.of(*connection.execute(_LIFE).one()))


def took_effect(transaction: Mark, end: float | None, open_session: OpenSession, pause: Pause) -> bool:
    """
    Find out whether a transaction whose COMMIT was not answered took effect.

    The server may not have noticed yet that its client is gone: while the transaction is in progress, it is asked again.

    Raises:
        CommitUnknownError: it could not be asked in time; or it crashed meanwhile, and may have given the id to another transaction.
    """
    now = time.monotonic()
    # A deadline that has passed leaves time for one look: not to know is worse than a moment more.
    until = now + _SETTLE_S if end is None else max(end, now + _LAST_LOOK_S)
    attempt = 0
    while (left := until - time.monotonic()) > 0:
        try:
            with _deadlines.within(left), contextlib.closing(open_session()) as session:
                answer = _ask(session, transaction)
        except CommitUnknownError:
            raise
        except (SQLAlchemyError, psycopg.Error, StemmaError) as error:
            # A server that does not know the id has lost the transaction in a crash.
            answer = False if getattr(getattr(error, "orig", None), "sqlstate", None) == _FUTURE else None
            logger.info("a lost COMMIT could not be settled yet: %s", type(error).__name__)
        if answer is not None:
            return answer
        pause(backoff(attempt, until))
        attempt += 1
    raise CommitUnknownError(transaction.xid)


def _ask(session: Session, transaction: Mark) -> bool | None:
    """Return whether it took effect; None while nobody knows."""
    row: Any = session.execute(_STATUS, {"xid": transaction.xid}).one()
    status, started, processes = row
    if transaction.life.goes_on(Life.of(started, processes)):
        return {"committed": True, "aborted": False}.get(str(status))
    # Ids that were given out and not yet written to the log when the server crashed are given out again.
    if status in ("aborted", "in progress"):
        return False
    if transaction.key is None:
        raise CommitUnknownError(transaction.xid)
    return bool(session.scalar(_IS_OURS, {"key": transaction.key, "xid": transaction.xid}))


def backoff(attempt: int, end: float | None) -> float:
    """Return seconds to wait: 10 ms doubled each time up to a second, with jitter, never past the end."""
    seconds = min(1.0, 0.01 * 2 ** min(attempt, 10)) * random.uniform(0.5, 1.5)  # noqa: S311
    return float(seconds if end is None else max(0.0, min(seconds, end - time.monotonic())))
