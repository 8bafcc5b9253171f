"""What is on record. Rows are only ever added."""

from ipaddress import IPv4Address, IPv6Address
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, text

from stemmadb.accounts.documents import AuditSnapshot, SecurityEventPayload
from stemmadb.accounts.vocabularies import ActorType
from stemmadb.entity import Entity, Field, Mapped, document_field, enum_field


class SecurityEvent(Entity, table=True):
    """A log-in, a lockout, a revoked key, a refused permission. A trigger refuses changes and deletions."""

    __tablename__ = "security_events"
    __table_args__: ClassVar[tuple[Any, ...]] = (
        CheckConstraint("type ~ '^[A-Z][A-Z0-9_]*$'", name="type_format"),
        Index("security_events_user_id_created_at_idx", "user_id", text("created_at DESC")),
        Index("security_events_type_created_at_idx", "type", text("created_at DESC")),
    )

    user_id: Mapped[UUID | None] = Field(default=None, foreign_key="users.id", ondelete="SET NULL")
    """None when nobody is known by that name, or once the user was deleted."""
    type: Mapped[str] = Field(pattern=r"^[A-Z][A-Z0-9_]*$")
    """One of SecurityEventType, or the application's own."""
    ip_address: Mapped[IPv4Address | IPv6Address | None] = Field(default=None)
    user_agent: Mapped[str | None] = Field(default=None)
    payload: Mapped[SecurityEventPayload] = document_field(SecurityEventPayload, default_factory=SecurityEventPayload)


class AuditLog(Entity, table=True):
    """
    One change of one row, or one act of an administrator. A trigger refuses changes and deletions.

    Inside a workspace only its records are visible, outside only those of none.
    """

    __tablename__ = "audit_logs"
    __table_args__: ClassVar[tuple[Any, ...]] = (
        CheckConstraint("action ~ '^[A-Z][A-Z0-9_]*$'", name="action_format"),
        Index("audit_logs_user_id_created_at_idx", "user_id", text("created_at DESC")),
        Index("audit_logs_workspace_id_created_at_idx", "workspace_id", text("created_at DESC")),
        Index("audit_logs_entity_entity_id_created_at_idx", "entity", "entity_id", text("created_at DESC")),
        Index("audit_logs_created_at_idx", "created_at"),
    )

    user_id: Mapped[UUID | None] = Field(default=None, foreign_key="users.id", ondelete="SET NULL")
    """Who did it; None for SYSTEM, or once the user was deleted."""
    workspace_id: Mapped[UUID | None] = Field(default=None, foreign_key="workspaces.id", ondelete="SET NULL")
    actor_type: Mapped[ActorType] = enum_field(ActorType, "actor_type", default=ActorType.SYSTEM)
    action: Mapped[str] = Field(pattern=r"^[A-Z][A-Z0-9_]*$")
    """One of AuditAction, or the application's own."""
    entity: Mapped[str]
    """The name of the table."""
    entity_id: Mapped[str]
    """The key of the row; the parts of a composite one are joined by ``/``."""
    before: Mapped[AuditSnapshot | None] = document_field(AuditSnapshot, default=None)
    """The row before; None for a creation. Secrets are replaced by ``***``."""
    after: Mapped[AuditSnapshot | None] = document_field(AuditSnapshot, default=None)
    """The row afterwards; None for a deletion."""
    ip_address: Mapped[IPv4Address | IPv6Address | None] = Field(default=None)
    user_agent: Mapped[str | None] = Field(default=None)
