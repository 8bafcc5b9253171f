"""The kernel's own tables: which seeds were applied, and which units of work were committed."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

import pydantic
from sqlalchemy import CheckConstraint, Index, UniqueConstraint, Uuid, func

from stemmadb.documents import Document, Raw
from stemmadb.entity import Entity, Field, Mapped, NotBlank, document_field

__all__ = ["SeedRowCounts", "SeedHistory", "IdempotencyKey"]


class SeedRowCounts(Document, version=1):
    """How many rows a seed wrote, by table."""

    inserted: Mapping[str, int] = pydantic.Field(default_factory=dict)
    updated: Mapping[str, int] = pydantic.Field(default_factory=dict)


@SeedRowCounts.upcast(0)
def _counts_0(raw: Raw) -> Raw:
    """0 to 1: only the version is new."""
    return raw


class SeedHistory(Entity, table=True):
    """A seed module that was applied, once for each profile."""

    __tablename__ = "stemma_seed_history"
    __table_args__: ClassVar[tuple[Any, ...]] = (UniqueConstraint("profile", "module"),)

    profile: Mapped[str]
    """dev, qa, prod, demo or test."""
    module: Mapped[str]
    checksum: Mapped[str]
    """SHA-256 of the module's data, in hexadecimal."""
    row_counts: Mapped[SeedRowCounts] = document_field(SeedRowCounts, default_factory=SeedRowCounts)
    applied_at: Mapped[datetime] = Field(default=None, server_default=func.now())


class IdempotencyKey(Entity, table=True):
    """
    The key of a unit of work, written in its transaction: where it is, the work was committed.

    Inside a workspace only its keys are visible, outside only those of none.
    """

    __tablename__ = "stemma_idempotency_keys"
    __table_args__: ClassVar[tuple[Any, ...]] = (
        CheckConstraint("btrim(key) <> '' AND length(key) <= 200", name="key"),
        UniqueConstraint("workspace_id", "key", postgresql_nulls_not_distinct=True),
        Index("stemma_idempotency_keys_created_at_idx", "created_at"),
    )

    workspace_id: Mapped[UUID | None] = Field(
        default=None, sa_type=Uuid(), server_default=func.stemma.stemma_workspace_id(), foreign_key="workspaces.id", ondelete="CASCADE"
    )
    """The workspace of the session, unless None is given."""
    key: Mapped[NotBlank] = Field(max_length=200)
    """Chosen by the caller; kept for 7 days."""
