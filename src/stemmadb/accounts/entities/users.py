"""Users and how they sign in."""

from datetime import datetime
from ipaddress import IPv4Address, IPv6Address
from typing import Annotated, Any, ClassVar
from uuid import UUID

from pydantic import AfterValidator
from sqlalchemy import CheckConstraint, Index, UniqueConstraint, text

from stemmadb.accounts._emails import Email
from stemmadb.accounts.documents import OAuthProfile
from stemmadb.accounts.vocabularies import MfaMethod, UserStatus
from stemmadb.entity import Entity, Field, Mapped, SoftDelete, document_field, enum_field


class User(SoftDelete, Entity, table=True):
    """
    A person, or the identity of a service.

    The address stays reserved while the user is deleted, so that somebody who returns is restored and not duplicated.
    """

    __tablename__ = "users"
    __table_args__: ClassVar[tuple[Any, ...]] = (
        CheckConstraint(r"email ~ '^[^@\s]+@[^@\s]+\.[^@\s]+$'", name="email_format"),
        CheckConstraint("email = lower(btrim(email))", name="email_lower"),
        CheckConstraint(r"password_hash IS NULL OR password_hash ~ '^\$(2[aby]|argon2id)\$'", name="password_hash_format"),
        CheckConstraint("failed_login_count >= 0", name="failed_login_count"),
        CheckConstraint("NOT two_factor_enabled OR two_factor_secret IS NOT NULL", name="two_factor"),
        CheckConstraint("NOT email_verified OR email_verified_at IS NOT NULL", name="email_verified"),
        CheckConstraint("(status = 'DELETED') = (deleted_at IS NOT NULL)", name="soft_delete"),
        UniqueConstraint("email"),
        Index("users_status_created_at_idx", "status", "created_at"),
        Index("users_deleted_at_idx", "deleted_at", postgresql_where=text("deleted_at IS NOT NULL")),
    )

    email: Mapped[Email]
    """In lower case and trimmed; unique, deleted users included."""
    password_hash: Mapped[str | None] = Field(default=None, pattern=r"^\$(2[aby]|argon2id)\$", secret=True)
    """A PHC string: Argon2id, or bcrypt from an earlier system until the next log-in. None for users who only sign in elsewhere."""
    name: Mapped[str | None] = Field(default=None)
    """What others see."""
    first_name: Mapped[str | None] = Field(default=None)
    last_name: Mapped[str | None] = Field(default=None)
    phone: Mapped[str | None] = Field(default=None)
    email_verified: Mapped[bool] = Field(default=False)
    email_verified_at: Mapped[datetime | None] = Field(default=None)
    """When the address was confirmed; there whenever ``email_verified`` is true."""
    failed_login_count: Mapped[int] = Field(default=0, ge=0)
    """Wrong passwords in a row."""
    lockout_until: Mapped[datetime | None] = Field(default=None)
    """No log-in before this; the lock ends by itself."""
    two_factor_secret: Mapped[str | None] = Field(default=None, secret=True)
    """Ciphertext of the TOTP secret."""
    two_factor_enabled: Mapped[bool] = Field(default=False)
    status: Mapped[UserStatus] = enum_field(UserStatus, "user_status", default=UserStatus.ACTIVE)
    last_login_at: Mapped[datetime | None] = Field(default=None)


class UserSession(Entity, table=True):
    """
    A refresh token in use. Using it makes a successor of the same family; using it twice revokes the family.

    Rows stay until the family's absolute end, since a repeated use could not be seen without them.
    """

    __tablename__ = "user_sessions"
    __table_args__: ClassVar[tuple[Any, ...]] = (
        CheckConstraint("expires_at > created_at", name="expires_after_created"),
        CheckConstraint("idle_expires_at <= expires_at", name="idle_within"),
        CheckConstraint("octet_length(refresh_token_hash) = 32", name="hash_length"),
        UniqueConstraint("refresh_token_hash"),
        Index("user_sessions_user_id_revoked_at_idx", "user_id", "revoked_at"),
        Index("user_sessions_family_id_idx", "family_id"),
        Index("user_sessions_expires_at_revoked_at_idx", "expires_at", "revoked_at"),
    )

    user_id: Mapped[UUID] = Field(foreign_key="users.id", ondelete="CASCADE")
    family_id: Mapped[UUID]
    """The id of the first session of the chain; rotation keeps it."""
    refresh_token_hash: Mapped[bytes] = Field(min_length=32, max_length=32, secret=True)
    """SHA-256 of the token."""
    fingerprint: Mapped[str | None] = Field(default=None)
    ip_address: Mapped[IPv4Address | IPv6Address | None] = Field(default=None)
    user_agent: Mapped[str | None] = Field(default=None)
    expires_at: Mapped[datetime]
    """The absolute end. Rotation does not move it."""
    idle_expires_at: Mapped[datetime]
    """The end when nobody uses it; moved forward at use, at most every 5 minutes."""
    last_seen_at: Mapped[datetime | None] = Field(default=None)
    """The last use, to 5 minutes."""
    rotated_at: Mapped[datetime | None] = Field(default=None)
    """When a successor was issued; None for the newest of its family."""
    revoked_at: Mapped[datetime | None] = Field(default=None)
    revoked_reason: Mapped[str | None] = Field(default=None)
    """LOGOUT, ROTATED_TOKEN_REUSED, PASSWORD_CHANGED, ADMIN, or the application's own."""


def _lower_case(provider: str) -> str:
    if not provider:
        raise ValueError("must not be empty")
    return provider.lower()


class OAuthAccount(Entity, table=True):
    """The identity of a user at another provider."""

    __tablename__ = "oauth_accounts"
    __table_args__: ClassVar[tuple[Any, ...]] = (
        CheckConstraint("provider = lower(provider) AND provider <> ''", name="provider"),
        UniqueConstraint("provider", "provider_account_id"),
        Index("oauth_accounts_user_id_idx", "user_id"),
    )

    user_id: Mapped[UUID] = Field(foreign_key="users.id", ondelete="CASCADE")
    provider: Mapped[Annotated[str, AfterValidator(_lower_case)]]
    """In lower case: ``google``, ``github``."""
    provider_account_id: Mapped[str]
    email: Mapped[str | None] = Field(default=None)
    """As the provider gave it; not confirmed by us."""
    access_token: Mapped[str | None] = Field(default=None, secret=True)
    """Ciphertext."""
    refresh_token: Mapped[str | None] = Field(default=None, secret=True)
    """Ciphertext."""
    token_type: Mapped[str | None] = Field(default=None)
    scope: Mapped[str | None] = Field(default=None)
    token_expires_at: Mapped[datetime | None] = Field(default=None)
    profile: Mapped[OAuthProfile] = document_field(OAuthProfile, default_factory=OAuthProfile)


class MfaSettings(Entity, table=True):
    """A user's second factor, one row a user. The TOTP secret itself is ``users.two_factor_secret``."""

    __tablename__ = "mfa_settings"
    __table_args__: ClassVar[tuple[Any, ...]] = (UniqueConstraint("user_id"),)

    user_id: Mapped[UUID] = Field(foreign_key="users.id", ondelete="CASCADE")
    method: Mapped[MfaMethod] = enum_field(MfaMethod, "mfa_method", default=MfaMethod.TOTP)
    backup_code_hashes: Mapped[tuple[bytes, ...]] = Field(default=(), secret=True)
    """HMAC-SHA-256 of the codes that are left; a used one is removed."""
    enabled_at: Mapped[datetime | None] = Field(default=None)
    last_used_at: Mapped[datetime | None] = Field(default=None)


class EmailVerificationToken(Entity, table=True):
    """A token that confirms an address, once."""

    __tablename__ = "email_verification_tokens"
    __table_args__: ClassVar[tuple[Any, ...]] = (
        CheckConstraint("octet_length(token_hash) = 32", name="hash_length"),
        CheckConstraint("expires_at > created_at", name="expires_after_created"),
        UniqueConstraint("token_hash"),
        Index("email_verification_tokens_user_id_idx", "user_id"),
        Index("email_verification_tokens_expires_at_idx", "expires_at"),
    )

    user_id: Mapped[UUID] = Field(foreign_key="users.id", ondelete="CASCADE")
    token_hash: Mapped[bytes] = Field(min_length=32, max_length=32, secret=True)
    """SHA-256 of the token."""
    email: Mapped[Email]
    """The address that is being confirmed."""
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None] = Field(default=None)


class PasswordResetToken(Entity, table=True):
    """A token that lets a user set a new password, once."""

    __tablename__ = "password_reset_tokens"
    __table_args__: ClassVar[tuple[Any, ...]] = (
        CheckConstraint("octet_length(token_hash) = 32", name="hash_length"),
        CheckConstraint("expires_at > created_at", name="expires_after_created"),
        UniqueConstraint("token_hash"),
        Index("password_reset_tokens_user_id_idx", "user_id"),
        Index("password_reset_tokens_expires_at_idx", "expires_at"),
    )

    user_id: Mapped[UUID] = Field(foreign_key="users.id", ondelete="CASCADE")
    token_hash: Mapped[bytes] = Field(min_length=32, max_length=32, secret=True)
    """SHA-256 of the token."""
    ip_address: Mapped[IPv4Address | IPv6Address | None] = Field(default=None)
    """Where the reset was asked for."""
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None] = Field(default=None)
