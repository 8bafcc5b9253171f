"""
Every error that stemmadb raises on purpose.

There is one root, ``StemmaError``, and one class for each thing that a caller does differently. Messages say what, which and
what to do, and never hold values of a row. Every class pickles and has a ``code`` that never changes.

    try:
        definitions.update(session, definition_id, data, expected_version=3)
    except errors.VersionConflictError as error:
        show(f"somebody saved version {error.current}")
"""

from __future__ import annotations

from stemmadb._conflict_errors import (
    ConflictError,
    CouponError,
    CurrencyMismatchError,
    EmptyCartError,
    ForeignKeyError,
    FrozenError,
    InsufficientHoldingError,
    InsufficientStockError,
    InvalidTransitionError,
    LabelMovedError,
    LastOwnerError,
    LeaseLostError,
    ProgressDerivedError,
    QuotaExceededError,
    ReferenceNotFoundError,
    StillReferencedError,
    VersionConflictError,
)
from stemmadb._database_errors import (
    CommitUnknownError,
    ConfigurationError,
    ConnectionLostError,
    DatabaseError,
    DatabaseUnavailableError,
    EmbeddedServerError,
    LockTimeoutError,
    MigrationError,
    MissingDependencyError,
    PoolTimeoutError,
    QueryTimeoutError,
    SchemaOutOfDateError,
    SeedError,
    SerializationError,
    StorageFullError,
)
from stemmadb._error import (
    AllWorkspacesRequiredError,
    AuthenticationError,
    ConstraintViolationError,
    CorruptDocumentError,
    CoverageError,
    DocumentError,
    DocumentTooLargeError,
    ExpiredCursorError,
    InvalidCursorError,
    MalformedFileError,
    NotFoundError,
    PermissionDeniedError,
    StemmaError,
    TenancyError,
    TenantViolationError,
    UnknownFieldError,
    UnknownSchemaVersionError,
    ValidationError,
    WorkspaceNotSetError,
)

__all__ = [
    "StemmaError",
    "NotFoundError",
    # what the caller gave
    "ValidationError",
    "ConstraintViolationError",
    "UnknownFieldError",
    "InvalidCursorError",
    "ExpiredCursorError",
    "DocumentError",
    "UnknownSchemaVersionError",
    "CorruptDocumentError",
    "DocumentTooLargeError",
    "CoverageError",
    "MalformedFileError",
    # the state that the database is in
    "ConflictError",
    "VersionConflictError",
    "FrozenError",
    "InvalidTransitionError",
    "LeaseLostError",
    "LabelMovedError",
    "ProgressDerivedError",
    "LastOwnerError",
    "InsufficientStockError",
    "InsufficientHoldingError",
    "QuotaExceededError",
    "EmptyCartError",
    "CurrencyMismatchError",
    "CouponError",
    "ForeignKeyError",
    "ReferenceNotFoundError",
    "StillReferencedError",
    # workspaces and rights
    "TenancyError",
    "WorkspaceNotSetError",
    "TenantViolationError",
    "AllWorkspacesRequiredError",
    "AuthenticationError",
    "PermissionDeniedError",
    # the database
    "DatabaseError",
    "DatabaseUnavailableError",
    "ConnectionLostError",
    "StorageFullError",
    "EmbeddedServerError",
    "CommitUnknownError",
    "QueryTimeoutError",
    "LockTimeoutError",
    "PoolTimeoutError",
    "SerializationError",
    "SchemaOutOfDateError",
    # the library
    "ConfigurationError",
    "MissingDependencyError",
    "MigrationError",
    "SeedError",
]

# Tracebacks and pickles name the module that callers import, not the one in which a class happens to stand.
for _name in __all__:
    globals()[_name].__module__ = __name__
