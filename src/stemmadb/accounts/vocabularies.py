"""The words that columns of this pack may hold."""

from enum import StrEnum


class UserStatus(StrEnum):
    """Whether a user may sign in. DELETED goes with ``deleted_at``."""

    ACTIVE = "ACTIVE"
    SUSPENDED = "SUSPENDED"
    DELETED = "DELETED"


class ActorType(StrEnum):
    """Who did what an audit record tells."""

    USER = "USER"
    ADMIN = "ADMIN"
    API_KEY = "API_KEY"
    SYSTEM = "SYSTEM"


class MfaMethod(StrEnum):
    """How a user's second factor reaches them."""

    TOTP = "TOTP"
    SMS = "SMS"
    EMAIL = "EMAIL"
    WEBAUTHN = "WEBAUTHN"


class SecurityEventType(StrEnum):
    """The security events that the library itself records. The column is open: applications add words of their own."""

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


class AuditAction(StrEnum):
    """The actions that the library itself records. The column is open: applications add words of their own."""

    CREATE = "CREATE"
    UPDATE = "UPDATE"
    DELETE = "DELETE"
    RESTORE = "RESTORE"
    LOGIN = "LOGIN"
    ACCOUNT_FORCE_DELETE = "ACCOUNT_FORCE_DELETE"
