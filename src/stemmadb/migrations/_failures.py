"""What PostgreSQL and Alembic say when a migration fails, as something to act on."""

from __future__ import annotations

from alembic.util import CommandError
from psycopg import Error as PostgresError
from psycopg import errors as postgres
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from stemmadb.errors import DatabaseUnavailableError, MigrationError, PermissionDeniedError, StemmaError

_DUPLICATES = (
    postgres.DuplicateTable,
    postgres.DuplicateObject,
    postgres.DuplicateFunction,
    postgres.DuplicateColumn,
    postgres.DuplicateSchema,
)
_GONE = (postgres.AdminShutdown, postgres.CrashShutdown, postgres.CannotConnectNow, postgres.TooManyConnections)

# Columns of other users' sessions read as NULL without pg_monitor.
_OLDEST_TRANSACTION = text(
    """
    SELECT pid, application_name, xact_start
      FROM pg_stat_activity
     WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
     ORDER BY xact_start LIMIT 1
    """
)


def is_lock_timeout(error: DBAPIError) -> bool:
    """True when another transaction held a lock: trying again later is right."""
    return isinstance(error.orig, (postgres.LockNotAvailable, postgres.DeadlockDetected))


def explain(error: Exception, revision: str | None) -> StemmaError:
    """
    Return the error to raise for what Alembic or a revision raised.

    Args:
        error: as it came; it becomes the cause.
        revision: the revision that was running; None when it is not known.
    """
    if isinstance(error, StemmaError):
        return error
    if isinstance(error, CommandError):
        return MigrationError(str(error), revision)
    if not isinstance(error, DBAPIError) or not isinstance(error.orig, PostgresError):
        return MigrationError(f"the migration failed: {error}", revision)
    cause = error.orig
    said = cause.diag.message_primary or str(cause).strip()
    if isinstance(cause, _DUPLICATES):
        return MigrationError(
            f"{said}, and nothing of this revision was kept. If the schema is from this revision (a restored dump without its version "
            f'table), record that with "stemmadb migrate stamp {revision or "REVISION"}"; otherwise move what is in the way out of the '
            "schema stemma, then run the migration again",
            revision,
        )
    if isinstance(cause, postgres.DependentObjectsStillExist):
        return MigrationError(
            f"{said}: {cause.diag.message_detail}. Drop what depends on it first; nothing of this revision was undone", revision
        )
    # What row_security = off turns a silently shortened result into.
    if cause.diag.source_function == "check_enable_rls":
        return MigrationError(f"{said}: change a tenant table workspace by workspace, with op.backfill", revision)
    if isinstance(cause, postgres.InsufficientPrivilege):
        return PermissionDeniedError("owner of the schema stemma", f"{said}: let DIRECT_URL log in as the owner of the schema stemma")
    if error.connection_invalidated or isinstance(cause, _GONE) or cause.sqlstate is None:
        return DatabaseUnavailableError(
            f"the connection was lost while migrating: {said}. Revisions that had ended are kept; run the migration again",
            True,
            cause.sqlstate,
        )
    return MigrationError(f"{said} (SQLSTATE {cause.sqlstate}); nothing of this revision was kept", revision)


def oldest_transaction(connection: Connection) -> str:
    """Name the transaction that is most likely in the way."""
    row = connection.execute(_OLDEST_TRANSACTION).first()
    connection.rollback()
    if row is None:
        return "look for it in pg_stat_activity"
    return f"the oldest open transaction is that of process {row.pid} ({row.application_name or 'unnamed'}), since {row.xact_start}"
