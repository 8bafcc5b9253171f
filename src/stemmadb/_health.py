"""The cheap question that a liveness probe asks."""

import time
from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.engine import URL

from stemmadb import _deadlines, _heads
from stemmadb._sqlstates import translate
from stemmadb._urls import describe
from stemmadb.errors import (
    DatabaseUnavailableError,
    PoolTimeoutError,
    QueryTimeoutError,
    SchemaOutOfDateError,
    StemmaError,
    ValidationError,
)
from stemmadb.reports import Health

if TYPE_CHECKING:
    from stemmadb.database import Database

_PROBE = text("SELECT pg_catalog.current_setting('server_version')")
_MIGRATED = text("SELECT pg_catalog.to_regclass('stemma.stemma_alembic_version') IS NOT NULL")
_HEADS = text("SELECT version_num FROM stemma.stemma_alembic_version")


def health(db: "Database") -> Health:
    """Ask for the server's version, and compare the schema with what the code needs; for as long as a connection attempt may take."""
    started = time.perf_counter()
    try:
        with _deadlines.within(db.settings.connect_timeout_ms / 1000), db.engine.connect() as connection:
            version = str(connection.scalar(_PROBE))
    except Exception as error:
        found = error if isinstance(error, StemmaError) else translate(error)
        return Health(
            ok=False,
            server_version=None,
            latency_ms=(time.perf_counter() - started) * 1000,
            pending_migrations=len(_heads.pending(_revisions(found.found))) if isinstance(found, SchemaOutOfDateError) else 0,
            error=str(found),
        )
    return Health(ok=True, server_version=version, latency_ms=(time.perf_counter() - started) * 1000, pending_migrations=0)


def wait_until_ready(db: "Database", timeout: timedelta) -> None:
    """Ask until there is an answer, with growing pauses."""
    if not isinstance(timeout, timedelta):
        raise ValidationError("timeout is a timedelta", field="timeout")
    end = time.monotonic() + timeout.total_seconds()
    pause = 0.05
    while True:
        try:
            with _deadlines.within(max(0.0, end - time.monotonic())), db.engine.connect() as connection:
                connection.execute(_PROBE)
                return
        except Exception as error:
            found = translate(error)
            if not isinstance(found, DatabaseUnavailableError | PoolTimeoutError | QueryTimeoutError):
                raise found from None
            if time.monotonic() + pause > end:
                if isinstance(found, QueryTimeoutError):
                    found = DatabaseUnavailableError(f"The database did not answer in time ({describe(db.url)})", safe_to_retry=True)
                raise found from None
        time.sleep(pause)
        pause = min(pause * 1.6, 1.0)


def _revisions(found: str | None) -> list[str]:
    return [] if found in (None, "nothing") else str(found).split(", ")


def installed_heads(url: URL) -> set[str]:
    """Return the rows of the version table, over a connection of its own that checks nothing; empty before the first migration."""
    engine = create_engine(url, poolclass=NullPool)
    try:
        with engine.connect() as connection:
            return set(connection.scalars(_HEADS)) if connection.scalar(_MIGRATED) else set()
    except Exception as error:
        raise translate(error) from None
    finally:
        engine.dispose()
