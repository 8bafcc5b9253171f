"""The words that columns of this pack may hold."""

from enum import StrEnum

from stemmadb.audit import ActorType as ActorType


class UserStatus(StrEnum):
    """Whether a user may sign in. DELETED goes with ``deleted_at``."""

    ACTIVE = "ACTIVE"
    SUSPENDED = "SUSPENDED"
    DELETED = "DELETED"


class MfaMethod(StrEnum):
    """How a user's second factor reaches them."""

    TOTP = "TOTP"
    SMS = "SMS"
    EMAIL = "EMAIL"
    WEBAUTHN = "WEBAUTHN"


class SecurityEventType(StrEnum):
    """The security events that the library itself records, but for the last. The column is open: applications add words of their own."""

    LOGIN_SUCCEEDED = "LOGIN_SUCCEEDED"
    LOGIN_FAILED = "LOGIN_FAILED"
    LOCKOUT = "LOCKOUT"
    PASSWORD_CHANGED = "PASSWORD_CHANGED"  # noqa: S105  (a word, not a password)
    TWO_FACTOR_ENABLED = "TWO_FACTOR_ENABLED"
    TWO_FACTOR_DISABLED = "TWO_FACTOR_DISABLED"
    SESSION_REVOKED = "SESSION_REVOKED"
    API_KEY_CREATED = "API_KEY_CREATED"
    API_KEY_REVOKED = "API_KEY_REVOKED"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    TENANT_VIOLATION = "TENANT_VIOLATION"
    """For applications that catch a TenantViolationError: what was tried is theirs to tell, and mostly an error of their own."""


class AuditAction(StrEnum):
    """
    What audit records tell. The column is open: applications add words of their own.

    Triggers record the first four. A soft deletion is a DELETE too, and its end a RESTORE.
    """

    CREATE = "CREATE"
    UPDATE = "UPDATE"
    DELETE = "DELETE"
    RESTORE = "RESTORE"
    ALL_WORKSPACES = "ALL_WORKSPACES"
    """Rows of every workspace were open to somebody (``db.all_workspaces``)."""
    REVEAL_KEY = "REVEAL_KEY"
    """A provider's key was read."""
    LOGIN = "LOGIN"
    """For applications; of the library's own log-ins the security events tell."""
    ACCOUNT_FORCE_DELETE = "ACCOUNT_FORCE_DELETE"
    """For applications."""
