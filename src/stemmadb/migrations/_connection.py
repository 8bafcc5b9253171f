"""The owner's connection: opened for one command, with the settings and the lock that migrations need."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

from sqlalchemy import URL, Connection, NullPool, TextClause, create_engine, text
from sqlalchemy.exc import DBAPIError

from stemmadb._urls import describe
from stemmadb.errors import ConfigurationError, DatabaseUnavailableError, MigrationError, StemmaError
from stemmadb.migrations._failures import explain

log = logging.getLogger("stemmadb.migrations")

APPLICATION_NAME = "stemmadb-migrate"
SCHEMA = "stemma"
VERSION_TABLE = "stemma_alembic_version"
LOCK_TIMEOUT = "5s"
"""The longest that a migration waits for a lock on a table, and so the longest that it holds up the transactions behind it."""
_LOCK_KEY = 0x7374656D6D61
_POLL_S = 0.1
_OLDEST_SERVER = 160000

_VERSION_TABLE_EXISTS = text("SELECT to_regclass('stemma.stemma_alembic_version') IS NOT NULL")
_VERSIONS = text("SELECT version_num FROM stemma.stemma_alembic_version ORDER BY version_num")
SCHEMA_EXISTS = text("SELECT to_regnamespace('stemma') IS NOT NULL")
_TRY_LOCK = text("SELECT pg_try_advisory_lock(:key)")
_UNLOCK = text("SELECT pg_advisory_unlock(:key)")
# A bigint key shows as two halves in pg_locks.
_HOLDER = text(
    """
    SELECT activity.pid, activity.application_name, activity.client_addr, activity.backend_start
      FROM pg_locks AS locks
      JOIN pg_stat_activity AS activity ON activity.pid = locks.pid
     WHERE locks.locktype = 'advisory' AND locks.granted AND locks.objsubid = 1
       AND (locks.classid::bigint << 32) + locks.objid::bigint = :key
       AND locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    """
)
_SESSION = text("SELECT set_config('lock_timeout', :lock_timeout, false), set_config('row_security', 'off', false)")
_SERVER = text("SELECT current_setting('server_version_num')::int, current_setting('server_version'), pg_is_in_recovery()")
# Whom the schema belongs to, or should: the roles may have been made before it.
_OWNER = text(
    """
    SELECT coalesce(
             (SELECT rolname::text FROM pg_namespace JOIN pg_roles ON pg_roles.oid = nspowner WHERE nspname = :schema),
             (SELECT rolname::text FROM pg_roles WHERE rolname = 'stemma_owner' AND pg_has_role(session_user, oid, 'SET'))
           ) AS owner,
           EXISTS (SELECT FROM pg_namespace WHERE nspname = :schema) AS present,
           current_user::text AS login
    """
)
_MAY_BECOME = text("SELECT pg_has_role(session_user, :owner, 'SET')")


class HasDirectUrl(Protocol):
    """What migrations ask of a ``Database``: the address that the owner uses."""

    @property
    def direct_url(self) -> URL: ...

    @property
    def has_direct_url(self) -> bool: ...


@contextmanager
def connected(db: HasDirectUrl) -> Iterator[Connection]:
    """
    Open a connection of its own over ``DIRECT_URL``, with no transaction begun.

    Raises:
        DatabaseUnavailableError: the server does not answer, or refuses the login. The message names host, port, database and user.
        ConfigurationError: the server is older than PostgreSQL 16.
    """
    url = db.direct_url
    if not db.has_direct_url:
        log.warning("DIRECT_URL is not set: migrations use DATABASE_URL, whose login must own the schema and must not go through a pooler")
    engine = create_engine(url, poolclass=NullPool, connect_args=_connect_args(url))
    try:
        try:
            connection = engine.connect()
        except DBAPIError as error:
            raise _unreachable(url, error) from error
        with connection:
            _require_server(connection, url)
            yield connection
    finally:
        engine.dispose()


@contextmanager
def migrating(db: HasDirectUrl, *, wait_s: float) -> Iterator[Connection]:
    """
    Open the owner's connection, alone: the only one that migrates this database until the block ends.

    Makes the schema if it is missing, acts as its owner where the login may, and gives up after five seconds on any lock.

    Args:
        db: whose ``direct_url`` is used.
        wait_s: how long to wait for another migrator.

    Raises:
        MigrationError: another process still migrates after ``wait_s``; the message names it.
    """
    with connected(db) as connection:
        try:
            _lock(connection, wait_s)
            _become_owner(connection)
            step(connection, _SESSION, lock_timeout=LOCK_TIMEOUT)
        except DBAPIError as error:
            raise explain(error, None) from error
        try:
            yield connection
        finally:
            # A connection that is gone has let go of the lock.
            with suppress(DBAPIError):
                connection.rollback()
                connection.exec_driver_sql("RESET ROLE")
                step(connection, _UNLOCK, key=_LOCK_KEY)


def step(connection: Connection, statement: TextClause, **params: Any) -> Any:
    """Run one statement in a transaction of its own and return its first value, None when it has no rows."""
    result = connection.execute(statement, params)
    value = result.scalar() if result.returns_rows else None
    connection.commit()
    return value


def found(connection: Connection) -> tuple[str, ...]:
    """Return the rows of the version table; none when there is no such table."""
    rows = tuple(connection.scalars(_VERSIONS)) if connection.scalar(_VERSION_TABLE_EXISTS) else ()
    connection.rollback()
    return rows


def _connect_args(url: URL) -> dict[str, Any]:
    # Prepared statements would break behind a pooler, and nothing here runs often enough to gain from them.
    defaults: dict[str, Any] = {"application_name": APPLICATION_NAME, "connect_timeout": 10}
    return {"prepare_threshold": None, **{name: value for name, value in defaults.items() if name not in url.query}}


def _unreachable(url: URL, error: DBAPIError) -> StemmaError:
    # libpq reports a refused login without a SQLSTATE, so one message covers both; it may quote the server, never the password.
    reason = str(error.orig).strip().splitlines()[-1].strip() if error.orig is not None else "no answer"
    return DatabaseUnavailableError(
        f"the database for migrations cannot be reached: {describe(url)}: {reason}. Check DIRECT_URL (DATABASE_URL where it is not set), "
        "that the server runs and accepts connections from here, and the login's password",
        safe_to_retry=True,
    )


def _require_server(connection: Connection, url: URL) -> None:
    number, version, in_recovery = connection.execute(_SERVER).one()
    connection.rollback()
    if number < _OLDEST_SERVER:
        raise ConfigurationError(
            f"PostgreSQL {version} is not supported: 16, 17 and 18 are", url.host, url.port, url.database, url.username
        )
    if in_recovery:
        raise ConfigurationError(
            "the server is a read-only replica: let DIRECT_URL name the primary", url.host, url.port, url.database, url.username
        )
    reported = connection.connection.driver_connection.info.backend_pid  # type: ignore[union-attr]
    if reported != step(connection, text("SELECT pg_backend_pid()")):
        log.warning("a pooler seems to stand before the server: migrations need a direct connection, set DIRECT_URL")


def _lock(connection: Connection, wait_s: float) -> None:
    # Polled with no transaction open. A wait inside pg_advisory_lock() would hold a snapshot, CREATE INDEX CONCURRENTLY of the process
    # that has the lock would wait for that snapshot, and PostgreSQL would end one of the two as a deadlock.
    deadline = time.monotonic() + wait_s
    told = False
    while not step(connection, _TRY_LOCK, key=_LOCK_KEY):
        if not told:
            log.info("waiting for %s", _holder(connection))
            told = True
        if time.monotonic() >= deadline:
            raise MigrationError(
                f"{_holder(connection)} still migrates this database after {wait_s:g} s: let it finish, or end it with "
                "pg_terminate_backend(pid) and run this again"
            )
        time.sleep(_POLL_S)


def _holder(connection: Connection) -> str:
    row = connection.execute(_HOLDER, {"key": _LOCK_KEY}).first()
    connection.rollback()
    if row is None:
        return "another process"
    return f"process {row.pid} ({row.application_name or 'unnamed'}, from {row.client_addr or 'a local socket'}, since {row.backend_start})"


def _become_owner(connection: Connection) -> None:
    """Make the schema if it is missing, and act as its owner, so that whoever migrates, everything belongs to one role."""
    row = connection.execute(_OWNER, {"schema": SCHEMA}).one()
    quote = connection.dialect.identifier_preparer.quote
    if not row.present:
        # As the login: the owner needs no right to create in the database.
        authorization = "" if row.owner is None else f" AUTHORIZATION {quote(row.owner)}"
        connection.exec_driver_sql(f"CREATE SCHEMA {SCHEMA}{authorization}")
    connection.commit()
    if row.owner is None or row.owner == row.login:
        return
    if not step(connection, _MAY_BECOME, owner=row.owner):
        raise MigrationError(
            f"the schema {SCHEMA} belongs to {row.owner}, and {row.login} may not act as it: let DIRECT_URL log in as the owner"
        )
    connection.exec_driver_sql(f"SET ROLE {quote(row.owner)}")
    connection.commit()
