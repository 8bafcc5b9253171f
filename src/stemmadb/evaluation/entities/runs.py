"""Runs, the scenarios they sampled, the slots they planned, and the transcripts that came out."""

from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar, Self
from uuid import UUID

from pydantic import model_validator
from sqlalchemy import CHAR, BigInteger, CheckConstraint, Index, UniqueConstraint, func, text

from stemmadb.entity import (
    Field,
    Mapped,
    NaturalKey,
    NotBlank,
    WorkspaceEntity,
    document_field,
    generated_field,
    reference,
    vocabulary_field,
)
from stemmadb.evaluation.documents import RunConfig, RunProgress, TranscriptContent, TranscriptMetrics
from stemmadb.evaluation.vocabularies import RunStatus, SlotStatus

_NO_PROGRESS = '{"schema_version":1,"total":0,"completed":0,"failed":0}'
_COUNTED = "coalesce((progress->>'{}')::bigint,0)"
_TOTAL, _COMPLETED, _FAILED = (_COUNTED.format(count) for count in ("total", "completed", "failed"))


class Run(WorkspaceEntity, table=True):
    """
    One execution of a definition.

    Its progress has exactly one source: the slots that it planned, or what it reports itself in ``progress``.
    """

    __tablename__ = "runs"
    __table_args__: ClassVar[tuple[Any, ...]] = (
        *WorkspaceEntity.keys(),
        reference("definition_id", "definitions", ondelete="NO ACTION"),
        reference("experiment_id", "experiments", ondelete="NO ACTION"),
        CheckConstraint("jsonb_typeof(config) = 'object'", name="config_object"),
        CheckConstraint("(slot_count IS NULL) <> (progress IS NULL)", name="progress_source"),
        CheckConstraint("slot_count IS NULL OR slot_count >= 1", name="slot_count"),
        CheckConstraint(
            f"{_TOTAL} >= 0 AND {_COMPLETED} >= 0 AND {_FAILED} >= 0 AND {_COMPLETED} + {_FAILED} <= {_TOTAL}", name="progress_counts"
        ),
        CheckConstraint("(status IN ('COMPLETED','PARTIAL','FAILED','CANCELLED')) = (completed_at IS NOT NULL)", name="finished"),
        CheckConstraint("started_at IS NULL OR completed_at IS NULL OR completed_at >= started_at", name="times"),
        Index("runs_definition_id_created_at_idx", "workspace_id", "definition_id", text("created_at DESC"), text("id DESC")),
        Index("runs_experiment_id_created_at_idx", "workspace_id", "experiment_id", text("created_at DESC")),
        Index("runs_status_created_at_idx", "workspace_id", "status", text("created_at DESC"), text("id DESC")),
        Index("runs_created_at_id_idx", "workspace_id", text("created_at DESC"), text("id DESC")),
        Index("runs_created_by_id_idx", "created_by_id"),
    )

    definition_id: Mapped[UUID]
    """What it runs. Never changes; a definition with runs cannot be deleted."""
    experiment_id: Mapped[UUID | None] = Field(default=None)
    name: Mapped[str | None] = Field(default=None)
    status: Mapped[RunStatus] = vocabulary_field(RunStatus, default=RunStatus.PENDING)
    config: Mapped[RunConfig] = document_field(RunConfig)
    """How it runs. Never changes once it has started."""
    config_version: Mapped[int | None] = generated_field("stemma.stemma_document_version(config)")
    """The ``schema_version`` of the stored configuration; 0 = missing, -1 = malformed."""
    config_hash: Mapped[bytes | None] = generated_field("stemma.stemma_document_hash(config)")
    """SHA-256 of the canonical JSON of the configuration."""
    slot_count: Mapped[int | None] = Field(default=None, ge=1)
    """Planned slots; None for a run that plans none and reports its progress. Never changes once it is set."""
    progress: Mapped[RunProgress | None] = document_field(RunProgress, default_factory=RunProgress, server_default=_NO_PROGRESS)
    """As reported; None in a run with slots, whose progress is counted when it is read."""
    error_code: Mapped[str | None] = Field(default=None)
    error_message: Mapped[str | None] = Field(default=None)
    cancel_requested_at: Mapped[datetime | None] = Field(default=None)
    """From then on workers claim nothing; the status follows when none is running."""
    started_at: Mapped[datetime | None] = Field(default=None)
    completed_at: Mapped[datetime | None] = Field(default=None)
    """When it reached a final status; None before."""
    created_by_id: Mapped[UUID | None] = Field(default=None, foreign_key="users.id", ondelete="SET NULL")

    @model_validator(mode="after")
    def _count_progress_once(self) -> Self:
        if self.slot_count is not None and "progress" not in self.model_fields_set:
            self.progress = None
        return self


class RunScenarioSelection(NaturalKey, WorkspaceEntity, table=True):
    """A scenario that a run sampled, pinned when the run was made and never derived again."""

    __tablename__ = "run_scenario_selection"
    __table_args__: ClassVar[tuple[Any, ...]] = (
        *WorkspaceEntity.keys("run_id", "scenario_id"),
        reference("run_id", "runs", ondelete="CASCADE"),
        reference("scenario_id", "scenarios", ondelete="NO ACTION"),
        Index("run_scenario_selection_scenario_id_idx", "workspace_id", "scenario_id"),
    )

    run_id: Mapped[UUID]
    scenario_id: Mapped[UUID]


class RunSlot(NaturalKey, WorkspaceEntity, table=True):
    """
    One probe of a run: scenario, model, sample. Planned once, when the run starts.

    Progress, completion and resumption are derived from these rows. A result is accepted only while (lease_owner, attempt) still match.
    """

    __tablename__ = "run_slots"
    __table_args__: ClassVar[tuple[Any, ...]] = (
        *WorkspaceEntity.keys("run_id", "scenario_id", "model", "sample_index"),
        reference("run_id", "runs", ondelete="CASCADE"),
        reference("scenario_id", "scenarios", ondelete="NO ACTION"),
        reference("transcript_id", "transcripts", ondelete="NO ACTION"),
        CheckConstraint("sample_index >= 0", name="sample_index"),
        CheckConstraint("attempt >= 0", name="attempt"),
        CheckConstraint("btrim(model) <> ''", name="model"),
        CheckConstraint(
            "(status = 'RUNNING') = (lease_owner IS NOT NULL) AND (lease_owner IS NULL) = (lease_expires_at IS NULL)", name="lease"
        ),
        CheckConstraint("(status IN ('COMPLETED','FAILED','SKIPPED')) = (finished_at IS NOT NULL)", name="finished"),
        CheckConstraint("status <> 'FAILED' OR error_code IS NOT NULL", name="failed"),
        CheckConstraint("transcript_id IS NULL OR status = 'COMPLETED'", name="transcript"),
        CheckConstraint("started_at IS NULL OR finished_at IS NULL OR finished_at >= started_at", name="times"),
        UniqueConstraint("workspace_id", "transcript_id"),
        # Serves the count of the progress, from the index alone, and the claim of the next slots.
        Index("run_slots_run_id_status_available_at_idx", "workspace_id", "run_id", "status", "available_at"),
        Index("run_slots_scenario_id_idx", "workspace_id", "scenario_id"),
        Index("run_slots_lease_expires_at_idx", "workspace_id", "lease_expires_at", postgresql_where=text("status = 'RUNNING'")),
    )

    run_id: Mapped[UUID]
    scenario_id: Mapped[UUID]
    model: Mapped[NotBlank]
    sample_index: Mapped[int] = Field(default=0, ge=0)
    status: Mapped[SlotStatus] = vocabulary_field(SlotStatus, default=SlotStatus.QUEUED)
    attempt: Mapped[int] = Field(default=0, ge=0)
    """How often it was claimed so far."""
    error_code: Mapped[str | None] = Field(default=None)
    """Of the last attempt that failed."""
    error_message: Mapped[str | None] = Field(default=None)
    transcript_id: Mapped[UUID | None] = Field(default=None)
    """The outcome; only in a completed slot."""
    queued_at: Mapped[datetime] = Field(default=None, server_default=func.now())
    """When it was queued; set again by each retry."""
    available_at: Mapped[datetime] = Field(default=None, server_default=func.now())
    """Not claimed before this: the back-off between attempts."""
    started_at: Mapped[datetime | None] = Field(default=None)
    finished_at: Mapped[datetime | None] = Field(default=None)
    """When it reached a final status; None before."""
    lease_owner: Mapped[str | None] = Field(default=None)
    """The worker that holds it; only while it is running."""
    lease_expires_at: Mapped[datetime | None] = Field(default=None)
    """On the database's clock. An expired lease may be taken over."""


class Transcript(WorkspaceEntity, table=True):
    """
    The raw dialogue of one model on one scenario, with its metrics.

    It is corrected by invalidation and a new row, never by editing. Token counts and durations are None when unknown, never 0.
    """

    __tablename__ = "transcripts"
    __table_args__: ClassVar[tuple[Any, ...]] = (
        *WorkspaceEntity.keys(),
        reference("run_id", "runs", ondelete="CASCADE"),
        reference("scenario_id", "scenarios", ondelete="NO ACTION"),
        CheckConstraint("jsonb_typeof(content) = 'object'", name="content_object"),
        CheckConstraint("btrim(model) <> ''", name="model"),
        CheckConstraint(
            "turn_count >= 0 AND sample_index >= 0 AND coalesce(duration_ms,0) >= 0 AND coalesce(ttft_ms,0) >= 0", name="counts"
        ),
        CheckConstraint(
            "coalesce(input_tokens,0) >= 0 AND coalesce(output_tokens,0) >= 0 AND coalesce(reasoning_tokens,0) >= 0"
            " AND coalesce(cache_read_tokens,0) >= 0 AND coalesce(cache_write_tokens,0) >= 0",
            name="tokens",
        ),
        CheckConstraint("cost IS NULL OR (cost >= 0 AND cost <> 'NaN' AND cost_currency IS NOT NULL)", name="cost"),
        CheckConstraint("cost_currency IS NULL OR cost_currency ~ '^[A-Z]{3}$'", name="currency"),
        CheckConstraint("length(preview) <= 500", name="preview"),
        CheckConstraint("(invalidated_at IS NULL) = (invalidated_reason IS NULL)", name="invalidated"),
        # A worker's retry is not a second row, also without a scenario; an invalidated transcript frees its place.
        Index(
            "transcripts_live_slot_key",
            *("workspace_id", "run_id", "scenario_id", "model", "sample_index"),
            unique=True,
            postgresql_nulls_not_distinct=True,
            postgresql_where=text("invalidated_at IS NULL"),
        ),
        Index("transcripts_run_id_created_at_id_idx", "workspace_id", "run_id", "created_at", "id"),
        Index("transcripts_scenario_id_idx", "workspace_id", "scenario_id"),
        Index("transcripts_model_created_at_idx", "workspace_id", "model", text("created_at DESC"), text("id DESC")),
        Index("transcripts_invalidated_by_id_idx", "invalidated_by_id"),
    )

    run_id: Mapped[UUID]
    scenario_id: Mapped[UUID | None] = Field(default=None)
    """None for an imported dialogue without a scenario."""
    model: Mapped[NotBlank]
    """The model that was asked for: ``openai:gpt-4o``."""
    model_version: Mapped[str | None] = Field(default=None)
    """The version that really answered."""
    sample_index: Mapped[int] = Field(default=0, ge=0)
    """0, 1, ... when a scenario is sampled more than once."""
    content: Mapped[TranscriptContent] = document_field(TranscriptContent, deferred=True)
    content_version: Mapped[int | None] = generated_field("stemma.stemma_document_version(content)")
    """The ``schema_version`` of the stored content; 0 = missing, -1 = malformed."""
    metrics: Mapped[TranscriptMetrics] = document_field(TranscriptMetrics, default_factory=TranscriptMetrics)
    preview: Mapped[str | None] = Field(default=None, max_length=500)
    """The first 500 characters of the last turn of the assistant, so that lists need no content."""
    turn_count: Mapped[int] = Field(default=0, ge=0)
    input_tokens: Mapped[int | None] = Field(default=None, ge=0, sa_type=BigInteger())
    output_tokens: Mapped[int | None] = Field(default=None, ge=0, sa_type=BigInteger())
    reasoning_tokens: Mapped[int | None] = Field(default=None, ge=0, sa_type=BigInteger())
    cache_read_tokens: Mapped[int | None] = Field(default=None, ge=0, sa_type=BigInteger())
    cache_write_tokens: Mapped[int | None] = Field(default=None, ge=0, sa_type=BigInteger())
    duration_ms: Mapped[int | None] = Field(default=None, ge=0, sa_type=BigInteger())
    ttft_ms: Mapped[int | None] = Field(default=None, ge=0, sa_type=BigInteger())
    """Time to the first token."""
    cost: Mapped[Decimal | None] = Field(default=None, ge=0, max_digits=19, decimal_places=8)
    """As the caller reported it, in ``cost_currency``."""
    cost_currency: Mapped[str | None] = Field(default=None, pattern="^[A-Z]{3}$", sa_type=CHAR(3))
    """ISO 4217; there whenever there is a cost."""
    stop_reason: Mapped[str | None] = Field(default=None)
    error_message: Mapped[str | None] = Field(default=None)
    invalidated_at: Mapped[datetime | None] = Field(default=None)
    """From then on comparisons and analyses leave it out, unless asked for it."""
    invalidated_by_id: Mapped[UUID | None] = Field(default=None, foreign_key="users.id", ondelete="SET NULL")
    invalidated_reason: Mapped[str | None] = Field(default=None)
