"""The tables of the pack ``workspaces``: the tenant, its members, their AI providers, and what waits for a person's decision."""

from datetime import date, datetime
from decimal import Decimal
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Index, UniqueConstraint, func, text

from stemmadb.entity import (
    Entity,
    Field,
    Mapped,
    NotBlank,
    SoftDelete,
    Versioned,
    WorkspaceEntity,
    document_field,
    ordered_field,
    vocabulary_field,
)
from stemmadb.workspaces.documents import AIProviderSettings, ApprovalPayload, WorkspaceSettings
from stemmadb.workspaces.vocabularies import AIProvider, ApprovalPriority, ApprovalStatus, WorkspaceRole

__all__ = [
    "Workspace",
    "WorkspaceMember",
    "AIProviderConfig",
    "ApprovalItem",
    "WorkspaceRole",
    "AIProvider",
    "ApprovalStatus",
    "ApprovalPriority",
]


class Workspace(SoftDelete, Entity, table=True):
    """
    The tenant: every row of a tenant table belongs to one workspace, and goes with it.

    Not tenant-scoped itself, so that a slug can be looked up before a workspace is set.
    """

    __tablename__ = "workspaces"
    __table_args__: ClassVar[tuple[Any, ...]] = (
        CheckConstraint("btrim(name) <> ''", name="name"),
        CheckConstraint("slug ~ '^[a-z0-9]+(-[a-z0-9]+)*$'", name="slug_format"),
        Index("workspaces_slug_live_key", "slug", unique=True, postgresql_where=text("deleted_at IS NULL")),
        Index("workspaces_owner_id_idx", "owner_id"),
        Index("workspaces_deleted_at_idx", "deleted_at", postgresql_where=text("deleted_at IS NOT NULL")),
    )

    owner_id: Mapped[UUID] = Field(foreign_key="users.id", ondelete="RESTRICT")
    """The user who cannot be deleted before the ownership is handed over."""
    name: Mapped[NotBlank]
    slug: Mapped[str] = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    """What addresses it, unique among live workspaces."""
    description: Mapped[str | None] = Field(default=None)
    settings: Mapped[WorkspaceSettings] = document_field(WorkspaceSettings, default_factory=WorkspaceSettings)


class WorkspaceMember(WorkspaceEntity, table=True):
    """A user's membership in a workspace."""

    __tablename__ = "workspace_members"
    __table_args__: ClassVar[tuple[Any, ...]] = (
        *WorkspaceEntity.keys(),
        UniqueConstraint("workspace_id", "user_id"),
        # Led by the user: "which workspaces has this user?" is asked before a workspace is chosen.
        Index("workspace_members_user_id_idx", "user_id"),
        Index("workspace_members_invited_by_id_idx", "invited_by_id"),
    )

    user_id: Mapped[UUID] = Field(foreign_key="users.id", ondelete="CASCADE")
    role: Mapped[WorkspaceRole] = vocabulary_field(WorkspaceRole, default=WorkspaceRole.MEMBER)
    invited_by_id: Mapped[UUID | None] = Field(default=None, foreign_key="users.id", ondelete="SET NULL")
    invited_at: Mapped[datetime | None] = Field(default=None)
    joined_at: Mapped[datetime] = Field(default=None, server_default=func.now())


class AIProviderConfig(WorkspaceEntity, table=True):
    """The key that a workspace brings for one AI provider, and how it is used."""

    __tablename__ = "ai_provider_configs"
    __table_args__: ClassVar[tuple[Any, ...]] = (
        *WorkspaceEntity.keys(),
        CheckConstraint("btrim(label) <> ''", name="label"),
        CheckConstraint("api_key IS NULL OR api_key ~ '^v[0-9]+:[A-Za-z0-9_-]+:[A-Za-z0-9+/=]+$'", name="api_key"),
        CheckConstraint("daily_token_limit IS NULL OR daily_token_limit > 0", name="daily_token_limit"),
        CheckConstraint("tokens_used_today >= 0", name="tokens_used_today"),
        CheckConstraint("base_url IS NULL OR base_url ~ '^https?://'", name="base_url"),
        UniqueConstraint("workspace_id", "provider", "label"),
        Index("ai_provider_configs_default_key", "workspace_id", unique=True, postgresql_where=text("is_default")),
    )

    provider: Mapped[AIProvider] = vocabulary_field(AIProvider)
    label: Mapped[NotBlank] = Field(default="default")
    """Tells several configurations of one provider apart."""
    api_key: Mapped[str | None] = Field(default=None, pattern=r"^v[0-9]+:[A-Za-z0-9_-]+:[A-Za-z0-9+/=]+$", secret=True)
    """Ciphertext ``v1:<key id>:<base64>``, bound to this row: in another row or workspace it does not open."""
    api_key_hint: Mapped[str | None] = Field(default=None)
    """The last four characters of the key, to recognise it by."""
    base_url: Mapped[str | None] = Field(default=None, pattern="^https?://")
    default_model: Mapped[str | None] = Field(default=None)
    is_default: Mapped[bool] = Field(default=False)
    """At most one configuration of a workspace is the default."""
    is_enabled: Mapped[bool] = Field(default=True)
    daily_token_limit: Mapped[int | None] = Field(default=None, gt=0, sa_type=BigInteger())
    """None for no limit."""
    tokens_used_today: Mapped[int] = Field(default=0, ge=0, sa_type=BigInteger())
    """Tokens used on ``tokens_reset_on``; of an earlier day they count as none."""
    tokens_reset_on: Mapped[date | None] = Field(default=None)
    last_validated_at: Mapped[datetime | None] = Field(default=None)
    last_error: Mapped[str | None] = Field(default=None)
    settings: Mapped[AIProviderSettings] = document_field(AIProviderSettings, default_factory=AIProviderSettings)


class ApprovalItem(Versioned, WorkspaceEntity, table=True):
    """Something that waits for a person's decision."""

    __tablename__ = "approval_items"
    __table_args__: ClassVar[tuple[Any, ...]] = (
        *WorkspaceEntity.keys(),
        CheckConstraint("priority BETWEEN 0 AND 3", name="priority"),
        CheckConstraint("confidence_score IS NULL OR confidence_score BETWEEN 0 AND 100", name="confidence_score"),
        CheckConstraint("(status IN ('APPROVED','REJECTED')) = (decided_at IS NOT NULL)", name="decided"),
        CheckConstraint("btrim(title) <> ''", name="title"),
        # The queue as it is shown: the most urgent first, then the oldest.
        Index("approval_items_queue_idx", "workspace_id", "status", text("priority DESC"), "created_at", "id"),
        Index(
            "approval_items_assignee_idx", "workspace_id", "assigned_to_id", "status", postgresql_where=text("assigned_to_id IS NOT NULL")
        ),
        Index("approval_items_assigned_to_id_idx", "assigned_to_id"),
        Index("approval_items_requested_by_id_idx", "requested_by_id"),
        Index("approval_items_decided_by_id_idx", "decided_by_id"),
        Index("approval_items_due_at_idx", "workspace_id", "due_at", postgresql_where=text("status = 'PENDING'")),
    )

    type: Mapped[str]
    """What is to be approved, in the application's words: ``content.publish``."""
    title: Mapped[NotBlank]
    description: Mapped[str | None] = Field(default=None)
    status: Mapped[ApprovalStatus] = vocabulary_field(ApprovalStatus, default=ApprovalStatus.PENDING)
    priority: Mapped[ApprovalPriority] = ordered_field(ApprovalPriority, default=ApprovalPriority.NORMAL)
    confidence_score: Mapped[Decimal | None] = Field(default=None, ge=0, le=100, max_digits=5, decimal_places=2)
    """How sure the proposer is, 0 to 100."""
    payload: Mapped[ApprovalPayload] = document_field(ApprovalPayload, default_factory=ApprovalPayload)
    requested_by_id: Mapped[UUID | None] = Field(default=None, foreign_key="users.id", ondelete="SET NULL")
    assigned_to_id: Mapped[UUID | None] = Field(default=None, foreign_key="users.id", ondelete="SET NULL")
    decided_by_id: Mapped[UUID | None] = Field(default=None, foreign_key="users.id", ondelete="SET NULL")
    decided_at: Mapped[datetime | None] = Field(default=None)
    """Set exactly while the status is APPROVED or REJECTED."""
    decision_note: Mapped[str | None] = Field(default=None)
    due_at: Mapped[datetime | None] = Field(default=None)
    """After this a pending item expires; None for never."""
    version: Mapped[int] = Field(default=1, ge=1)
    """Counts saves of this row, for optimistic locking. Starts at 1."""
