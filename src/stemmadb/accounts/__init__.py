"""Users and how they sign in, what they may do, and what is on record."""

from stemmadb.accounts import entities
from stemmadb.packs import Pack

__all__ = ["PACK"]

PACK = Pack(
    name="accounts",
    branch="base",
    entities=(
        entities.User,
        entities.UserSession,
        entities.OAuthAccount,
        entities.MfaSettings,
        entities.EmailVerificationToken,
        entities.PasswordResetToken,
        entities.ApiKey,
        entities.Role,
        entities.Permission,
        entities.RolePermission,
        entities.UserRole,
        entities.UserPermission,
        entities.SecurityEvent,
        entities.AuditLog,
    ),
    seeds=("stemmadb.accounts.seed:SEEDS",),
    commands="stemmadb.accounts.commands:register",
    secrets=("users.two_factor_secret", "oauth_accounts.access_token", "oauth_accounts.refresh_token"),
    checks=("stemmadb.accounts._checks:CHECK",),
    factories="stemmadb.accounts.factories:FACTORIES",
)
