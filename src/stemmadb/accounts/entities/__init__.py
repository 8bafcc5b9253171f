"""The tables of the pack ``accounts``: users and how they sign in, what they may do, and what is on record."""

from stemmadb.accounts.entities.access import ApiKey, Permission, Role, RolePermission, UserPermission, UserRole
from stemmadb.accounts.entities.records import AuditLog, SecurityEvent
from stemmadb.accounts.entities.users import EmailVerificationToken, MfaSettings, OAuthAccount, PasswordResetToken, User, UserSession
from stemmadb.accounts.vocabularies import ActorType, AuditAction, MfaMethod, SecurityEventType, UserStatus

__all__ = [
    "User",
    "UserSession",
    "OAuthAccount",
    "MfaSettings",
    "EmailVerificationToken",
    "PasswordResetToken",
    "ApiKey",
    "Role",
    "Permission",
    "RolePermission",
    "UserRole",
    "UserPermission",
    "SecurityEvent",
    "AuditLog",
    "UserStatus",
    "ActorType",
    "MfaMethod",
    "SecurityEventType",
    "AuditAction",
]
