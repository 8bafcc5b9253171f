"""Experiments: a hypothesis, a plan that is fixed before results are seen, and the changes to it that are on record."""

from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, UniqueConstraint, text

from stemmadb.entity import (
    Field,
    Mapped,
    NotBlank,
    Versioned,
    WorkspaceEntity,
    document_field,
    generated_field,
    reference,
    vocabulary_field,
)
from stemmadb.evaluation.documents import AnalysisPlan
from stemmadb.evaluation.vocabularies import ExperimentStatus


class Experiment(Versioned, WorkspaceEntity, table=True):
    """
    A hypothesis, how it will be tested, and the runs and comparisons made for it.

    The plan in force is that of the latest amendment, else ``analysis_plan``.
    """

    __tablename__ = "experiments"
    __table_args__: ClassVar[tuple[Any, ...]] = (
        *WorkspaceEntity.keys(),
        CheckConstraint("btrim(name) <> ''", name="name"),
        CheckConstraint("plan_frozen_at IS NULL OR analysis_plan IS NOT NULL", name="plan_frozen"),
        CheckConstraint("concluded_at IS NULL OR status IN ('COMPLETED','ARCHIVED')", name="concluded"),
        Index("experiments_status_created_at_idx", "workspace_id", "status", text("created_at DESC"), text("id DESC")),
        Index("experiments_created_by_id_idx", "created_by_id"),
    )

    name: Mapped[NotBlank]
    hypothesis: Mapped[str | None] = Field(default=None)
    null_hypothesis: Mapped[str | None] = Field(default=None)
    description: Mapped[str | None] = Field(default=None)
    status: Mapped[ExperimentStatus] = vocabulary_field(ExperimentStatus, default=ExperimentStatus.DRAFT)
    analysis_plan: Mapped[AnalysisPlan | None] = document_field(AnalysisPlan, default=None)
    """The plan as registered. Never changes once it is frozen."""
    plan_hash: Mapped[bytes | None] = generated_field("stemma.stemma_document_hash(analysis_plan)")
    """SHA-256 of the canonical JSON of the plan; None without one."""
    plan_frozen_at: Mapped[datetime | None] = Field(default=None)
    """When the first run of the experiment started; later changes are amendments."""
    conclusion: Mapped[str | None] = Field(default=None)
    concluded_at: Mapped[datetime | None] = Field(default=None)
    version: Mapped[int] = Field(default=1, ge=1)
    """Counts saves of this row, for optimistic locking. Starts at 1."""
    created_by_id: Mapped[UUID | None] = Field(default=None, foreign_key="users.id", ondelete="SET NULL")


class ExperimentAmendment(WorkspaceEntity, table=True):
    """A change of a frozen analysis plan, and its reason. Never changes itself."""

    __tablename__ = "experiment_amendments"
    __table_args__: ClassVar[tuple[Any, ...]] = (
        *WorkspaceEntity.keys(),
        reference("experiment_id", "experiments", ondelete="CASCADE"),
        CheckConstraint("sequence >= 1", name="sequence"),
        CheckConstraint("btrim(reason) <> ''", name="reason"),
        CheckConstraint("jsonb_typeof(plan) = 'object'", name="plan_object"),
        UniqueConstraint("workspace_id", "experiment_id", "sequence"),
        Index("experiment_amendments_amended_by_id_idx", "amended_by_id"),
    )

    experiment_id: Mapped[UUID]
    sequence: Mapped[int] = Field(ge=1)
    """1, 2, 3, ... within the experiment."""
    plan: Mapped[AnalysisPlan] = document_field(AnalysisPlan)
    """The whole plan after the change."""
    plan_hash: Mapped[bytes | None] = generated_field("stemma.stemma_document_hash(plan)")
    """SHA-256 of the canonical JSON of the plan."""
    reason: Mapped[NotBlank]
    amended_by_id: Mapped[UUID | None] = Field(default=None, foreign_key="users.id", ondelete="SET NULL")
