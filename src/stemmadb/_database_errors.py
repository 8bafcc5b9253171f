"""Errors about the database as such: reaching it, its limits, its schema; and about the configuration of the library."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from stemmadb._error import StemmaError


class DatabaseError(StemmaError):
    """The database refused a statement for a reason without a class of its own. HTTP 500."""

    def __init__(self, sqlstate: str | None, message: str = "the database refused the statement") -> None:
        super().__init__(sqlstate, message)
        self.sqlstate = sqlstate
        self.message = message

    def __str__(self) -> str:
        return f"{self.message} (SQLSTATE {self.sqlstate})" if self.sqlstate else self.message


class DatabaseUnavailableError(DatabaseError):
    """
    The database cannot be reached or takes no work now. HTTP 503.

    Args:
        message: what happened.
        safe_to_retry: True when nothing of the transaction can have been committed.
        sqlstate: the server's code; None when there was no answer.
    """

    def __init__(self, message: str, safe_to_retry: bool = False, sqlstate: str | None = None) -> None:
        super().__init__(sqlstate, message)
        self.args: tuple[Any, ...] = (message, safe_to_retry, sqlstate)
        self.safe_to_retry = safe_to_retry


class ConnectionLostError(DatabaseUnavailableError):
    """The connection broke inside a transaction. HTTP 503."""

    def __init__(
        self,
        message: str = "The connection to the database was lost: open a new session and repeat the work",
        safe_to_retry: bool = False,
        sqlstate: str | None = None,
    ) -> None:
        super().__init__(message, safe_to_retry, sqlstate)


class StorageFullError(DatabaseUnavailableError):
    """The server has no space left. Nothing was stored, and repeating does not help. HTTP 507."""

    def __init__(
        self,
        message: str = "The database server has no space left on its disk: free some, then repeat the work",
        safe_to_retry: bool = False,
        sqlstate: str | None = "53100",
    ) -> None:
        super().__init__(message, safe_to_retry, sqlstate)


class EmbeddedServerError(DatabaseUnavailableError):
    """The embedded server cannot start: its folder is read-only, damaged, or in use by another version."""

    def __init__(self, data_dir: Path | str, reason: str) -> None:
        super().__init__(f"The embedded PostgreSQL in {data_dir} did not start: {reason}")
        self.args: tuple[Any, ...] = (data_dir, reason)
        self.data_dir = data_dir
        self.reason = reason


class CommitUnknownError(DatabaseError):
    """The reply to COMMIT was lost, and whether it took effect could not be found out. HTTP 503."""

    def __init__(self, transaction_id: str | None = None) -> None:
        which = "the transaction" if transaction_id is None else f"transaction {transaction_id}"
        super().__init__(
            None, f"The reply to COMMIT was lost, and whether {which} took effect is not known: look for its rows before repeating it"
        )
        self.args: tuple[Any, ...] = (transaction_id,)
        self.transaction_id = transaction_id


class QueryTimeoutError(DatabaseError):
    """
    A statement or a transaction took too long and was ended. HTTP 504.

    ``kind`` says which limit it was: "statement" (statement_timeout, or a cancel), "idle" (a transaction that waited for the
    client), "deadline" (the caller's own limit).
    """

    def __init__(self, kind: Literal["statement", "idle", "deadline"], sqlstate: str | None = None) -> None:
        what = {
            "statement": "The statement was ended because it took too long: narrow it, or raise QUERY_TIMEOUT_MS",
            "idle": "The transaction was ended because it waited too long for its client: keep slow work outside of transactions",
            "deadline": "The deadline passed before the work was done: allow more time, or split the work",
        }
        super().__init__(sqlstate, what[kind])
        self.args: tuple[Any, ...] = (kind, sqlstate)
        self.kind = kind


class LockTimeoutError(DatabaseError):
    """A lock was not granted in time. HTTP 503."""

    def __init__(
        self, message: str = "Another transaction holds a lock that this one needs: repeat the work, or find the one left open"
    ) -> None:
        super().__init__("55P03", message)
        self.args: tuple[Any, ...] = (message,)


class PoolTimeoutError(DatabaseError):
    """
    No connection became free in time. HTTP 503.

    Args:
        size: the most connections that the pool opens; None when it is not known, as for the others.
        in_use: how many are held now.
        waiting: how many callers wait.
        oldest_holder: where the connection that is held for longest was taken.
    """

    def __init__(
        self, size: int | None = None, in_use: int | None = None, waiting: int | None = None, oldest_holder: str | None = None
    ) -> None:
        counts = "" if size is None else f" ({in_use} of {size} in use, {waiting} waiting)"
        holder = "" if oldest_holder is None else f"; the oldest was taken at {oldest_holder}"
        super().__init__(None, f"No connection became free in time{counts}{holder}: close sessions sooner, or raise DATABASE_POOL_MAX")
        self.args: tuple[Any, ...] = (size, in_use, waiting, oldest_holder)
        self.size = size
        self.in_use = in_use
        self.waiting = waiting
        self.oldest_holder = oldest_holder


class SerializationError(DatabaseError):
    """Concurrent transactions stood in each other's way, also after retries. Nothing was stored. HTTP 503."""

    def __init__(self, sqlstate: str = "40001") -> None:
        super().__init__(sqlstate, "The transaction met another one that changed the same rows: repeat it from its beginning")
        self.args: tuple[Any, ...] = (sqlstate,)


class SchemaOutOfDateError(DatabaseError):
    """The tables are not those that this release works with. HTTP 503."""

    def __init__(self, needed: str | None = None, found: str | None = None, command: str = "stemmadb migrate up") -> None:
        versions = "The tables are not those that this release needs"
        if needed is not None:
            versions = f"The schema is at {found or 'nothing'}, and this release needs {needed}"
        super().__init__(None, f'{versions}: run "{command}"')
        self.args: tuple[Any, ...] = (needed, found, command)
        self.needed = needed
        self.found = found
        self.command = command


class ConfigurationError(StemmaError):
    """A setting or an address is wrong. It names host, port, database and user, never the password."""

    def __init__(
        self, message: str, host: str | None = None, port: int | None = None, database: str | None = None, user: str | None = None
    ) -> None:
        super().__init__(message, host, port, database, user)
        self.message = message
        self.host = host
        self.port = port
        self.database = database
        self.user = user

    def __str__(self) -> str:
        parts = {"host": self.host, "port": self.port, "database": self.database, "user": self.user}
        known = ", ".join(f"{name} {value}" for name, value in parts.items() if value is not None)
        return f"{self.message} ({known})" if known else self.message


class MissingDependencyError(StemmaError):
    """A feature needs an extra that is not installed."""

    def __init__(self, extra: str) -> None:
        super().__init__(extra)
        self.extra = extra

    def __str__(self) -> str:
        return f'This needs the extra {self.extra!r}: pip install "stemmadb[{self.extra}]"'


class MigrationError(StemmaError):
    """A migration cannot run, or was refused before it ran."""

    def __init__(self, message: str, revision: str | None = None) -> None:
        super().__init__(message, revision)
        self.message = message
        self.revision = revision

    def __str__(self) -> str:
        return f"{self.message} (revision {self.revision})" if self.revision else self.message


class SeedError(StemmaError):
    """A row of seed data could not be stored. Nothing of its module was."""

    def __init__(self, module: str, row: str, reason: str | None = None) -> None:
        super().__init__(module, row, reason)
        self.module = module
        self.row = row
        self.reason = reason

    def __str__(self) -> str:
        return f"Seed {self.module} failed at {self.row}: {self.reason or 'the cause says why'}; correct the seed data and run it again"
