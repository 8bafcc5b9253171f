"""How users, tokens and keys are made up for tests: what their CHECKs tie together, and times that lie in the future."""

from typing import ClassVar

from sqlalchemy.orm import Session

from stemmadb.accounts.entities import (
    ApiKey,
    AuditLog,
    EmailVerificationToken,
    OAuthAccount,
    PasswordResetToken,
    User,
    UserSession,
    UserStatus,
)
from stemmadb.errors import WorkspaceNotSetError
from stemmadb.tenancy import workspace_of
from stemmadb.testing import _values
from stemmadb.testing.factories import EntityFactory, PostGenerated, Use

__all__ = [
    "FACTORIES",
    "UserFactory",
    "UserSessionFactory",
    "OAuthAccountFactory",
    "EmailVerificationTokenFactory",
    "PasswordResetTokenFactory",
    "ApiKeyFactory",
    "AuditLogFactory",
]


def _email() -> str:
    return f"{_values.token()}@example.com"


class UserFactory(EntityFactory[User]):
    """An active user with an address and no password. ``status=DELETED`` brings ``deleted_at``, and the reverse; as do the other pairs."""

    email: ClassVar[object] = Use(_email)
    status: ClassVar[object] = PostGenerated(lambda _, values: UserStatus.DELETED if values.get("deleted_at") else UserStatus.ACTIVE)
    deleted_at: ClassVar[object] = PostGenerated(lambda _, values: _values.moment() if values.get("status") == UserStatus.DELETED else None)
    email_verified: ClassVar[object] = PostGenerated(lambda _, values: values.get("email_verified_at") is not None)
    email_verified_at: ClassVar[object] = PostGenerated(lambda _, values: _values.moment() if values.get("email_verified") else None)
    two_factor_enabled: ClassVar[object] = PostGenerated(lambda _, values: values.get("two_factor_secret") is not None)
    two_factor_secret: ClassVar[object] = PostGenerated(
        lambda _, values: f"v1:key:{_values.token()}" if values.get("two_factor_enabled") else None
    )


class UserSessionFactory(EntityFactory[UserSession]):
    """The first session of a log-in that has not ended."""

    expires_at: ClassVar[object] = Use(_values.later)
    idle_expires_at: ClassVar[object] = PostGenerated(lambda _, values: values["expires_at"])
    family_id: ClassVar[object] = Use(_values.new_id)


class OAuthAccountFactory(EntityFactory[OAuthAccount]):
    """An identity at one of two providers."""

    provider: ClassVar[object] = Use(lambda: _values.RANDOM.choice(("google", "github")))
    provider_account_id: ClassVar[object] = Use(_values.token)


class EmailVerificationTokenFactory(EntityFactory[EmailVerificationToken]):
    """A token that can still be used."""

    email: ClassVar[object] = Use(_email)
    expires_at: ClassVar[object] = Use(_values.later)


class PasswordResetTokenFactory(EntityFactory[PasswordResetToken]):
    """A token that can still be used."""

    expires_at: ClassVar[object] = Use(_values.later)


class ApiKeyFactory(EntityFactory[ApiKey]):
    """A personal key without an end. Its digest is of no token: ``api_keys.issue`` makes keys that authenticate somebody."""

    prefix: ClassVar[object] = Use(_values.token)
    pepper_version = None


class AuditLogFactory(EntityFactory[AuditLog]):
    """A record of the session's workspace, or of none: others are not visible to it."""

    @classmethod
    def before_insert(cls, session: Session, rows: list[dict[str, object]]) -> None:
        """Put the session's workspace into the rows."""
        try:
            workspace_id = workspace_of(session)
        except WorkspaceNotSetError:
            workspace_id = None
        for row in rows:
            row.setdefault("workspace_id", workspace_id)
        super().before_insert(session, rows)


FACTORIES = (
    UserFactory,
    UserSessionFactory,
    OAuthAccountFactory,
    EmailVerificationTokenFactory,
    PasswordResetTokenFactory,
    ApiKeyFactory,
    AuditLogFactory,
)
