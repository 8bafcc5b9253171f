"""What may be done, by whom: keys, roles, permissions."""

import re
from datetime import datetime
from typing import Annotated, Any, ClassVar
from uuid import UUID

from pydantic import AfterValidator
from sqlalchemy import CheckConstraint, Index, PrimaryKeyConstraint, SmallInteger, UniqueConstraint, func, text

from stemmadb.entity import Entity, Field, Mapped, NaturalKey, NotBlank

_SCOPE = re.compile(r"[a-z][a-z0-9_]*:([a-z][a-z0-9_]*|\*)")


def _scopes(values: tuple[str, ...]) -> tuple[str, ...]:
    if not all(_SCOPE.fullmatch(value) for value in values):
        raise ValueError("must be of the form domain:action or domain:*")
    return values


class ApiKey(Entity, table=True):
    """
    An access token, of a user or of a workspace. A row alone cannot authenticate anybody: it holds a digest and the public part.

    Not under row-level security, because a key is looked up before its workspace is known.
    """

    __tablename__ = "api_keys"
    __table_args__: ClassVar[tuple[Any, ...]] = (
        CheckConstraint("btrim(name) <> ''", name="name"),
        CheckConstraint("prefix ~ '^[0-9A-Za-z_-]{8,64}$'", name="prefix_format"),
        CheckConstraint("octet_length(key_hash) = 32", name="hash_length"),
        CheckConstraint(
            "array_position(scopes, NULL) IS NULL AND stemma.stemma_join_text(scopes) ~ '^([a-z][a-z0-9_]*:([a-z][a-z0-9_]*|[*])( |$))*$'",
            name="scopes",
        ),
        CheckConstraint("expires_at IS NULL OR expires_at > created_at", name="expires_after_created"),
        UniqueConstraint("prefix"),
        Index("api_keys_user_id_created_at_idx", "user_id", text("created_at DESC")),
        Index("api_keys_workspace_id_idx", "workspace_id"),
        Index("api_keys_rotated_from_id_idx", "rotated_from_id"),
    )

    user_id: Mapped[UUID] = Field(foreign_key="users.id", ondelete="CASCADE")
    """Who made it and answers for it."""
    workspace_id: Mapped[UUID | None] = Field(default=None, foreign_key="workspaces.id", ondelete="CASCADE")
    """The one workspace that it opens; None for a personal key."""
    name: Mapped[NotBlank]
    prefix: Mapped[str] = Field(pattern=r"^[0-9A-Za-z_-]{8,64}$")
    """The public part of the token, by which it is looked up and shown in lists."""
    key_hash: Mapped[bytes] = Field(min_length=32, max_length=32, secret=True)
    """HMAC-SHA-256 of the token with the pepper; its SHA-256 where no pepper is configured."""
    pepper_version: Mapped[int | None] = Field(default=None, sa_type=SmallInteger())
    """Which pepper; None for none. Rewritten at the next use after a rotation."""
    last_four: Mapped[str | None] = Field(default=None)
    """The last four characters of the token, to recognise it by."""
    scopes: Mapped[Annotated[tuple[str, ...], AfterValidator(_scopes)]] = Field(default=())
    """``domain:action`` or ``domain:*``. Empty means that nothing is allowed."""
    expires_at: Mapped[datetime | None] = Field(default=None)
    """None for a key without an end."""
    revoked_at: Mapped[datetime | None] = Field(default=None)
    rotated_from_id: Mapped[UUID | None] = Field(default=None, foreign_key="api_keys.id", ondelete="SET NULL")
    """The key that this one replaces; both are valid until that one's ``expires_at``."""
    last_used_at: Mapped[datetime | None] = Field(default=None)
    """The last use, to 5 minutes."""


class Role(Entity, table=True):
    """A named set of permissions."""

    __tablename__ = "roles"
    __table_args__: ClassVar[tuple[Any, ...]] = (
        CheckConstraint("name ~ '^[a-z][a-z0-9_-]{0,62}$'", name="name"),
        UniqueConstraint("name"),
    )

    name: Mapped[str] = Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")
    description: Mapped[str | None] = Field(default=None)
    is_system: Mapped[bool] = Field(default=False)
    """Made by the library's seeds; cannot be deleted through its functions."""


class Permission(Entity, table=True):
    """The right to do one thing, or everything in one domain."""

    __tablename__ = "permissions"
    __table_args__: ClassVar[tuple[Any, ...]] = (
        CheckConstraint(r"key ~ '^[a-z][a-z0-9_]*:([a-z][a-z0-9_]*|\*)$'", name="key_format"),
        UniqueConstraint("key"),
    )

    key: Mapped[str] = Field(pattern=r"^[a-z][a-z0-9_]*:([a-z][a-z0-9_]*|\*)$")
    """``domain:action`` or ``domain:*``."""
    description: Mapped[str | None] = Field(default=None)


class RolePermission(NaturalKey, table=True):
    """A permission that a role gives."""

    __tablename__ = "role_permissions"
    __table_args__: ClassVar[tuple[Any, ...]] = (
        PrimaryKeyConstraint("role_id", "permission_id"),
        Index("role_permissions_permission_id_idx", "permission_id"),
    )

    role_id: Mapped[UUID] = Field(foreign_key="roles.id", ondelete="CASCADE")
    permission_id: Mapped[UUID] = Field(foreign_key="permissions.id", ondelete="CASCADE")
    assigned_at: Mapped[datetime] = Field(default=None, server_default=func.now())


class UserRole(NaturalKey, table=True):
    """A role that a user has."""

    __tablename__ = "user_roles"
    __table_args__: ClassVar[tuple[Any, ...]] = (
        PrimaryKeyConstraint("user_id", "role_id"),
        Index("user_roles_role_id_idx", "role_id"),
    )

    user_id: Mapped[UUID] = Field(foreign_key="users.id", ondelete="CASCADE")
    role_id: Mapped[UUID] = Field(foreign_key="roles.id", ondelete="CASCADE")
    assigned_at: Mapped[datetime] = Field(default=None, server_default=func.now())


class UserPermission(NaturalKey, table=True):
    """A permission that a user has beside those of their roles."""

    __tablename__ = "user_permissions"
    __table_args__: ClassVar[tuple[Any, ...]] = (
        PrimaryKeyConstraint("user_id", "permission_id"),
        Index("user_permissions_permission_id_idx", "permission_id"),
    )

    user_id: Mapped[UUID] = Field(foreign_key="users.id", ondelete="CASCADE")
    permission_id: Mapped[UUID] = Field(foreign_key="permissions.id", ondelete="CASCADE")
    assigned_at: Mapped[datetime] = Field(default=None, server_default=func.now())
