"""What the functions of this pack take and give besides entities and documents."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import ClassVar, Literal, Self
from uuid import UUID

from pydantic import AwareDatetime, Field, model_validator

from stemmadb._tables import record_html
from stemmadb.data import DataObject
from stemmadb.entity import Id
from stemmadb.evaluation._comparison_data import ComparabilityReport as ComparabilityReport
from stemmadb.evaluation._comparison_data import PairedStatistics as PairedStatistics
from stemmadb.evaluation._comparison_data import PairwiseCell as PairwiseCell
from stemmadb.evaluation._comparison_data import RunComparisonCreate as RunComparisonCreate
from stemmadb.evaluation._comparison_data import RunDifference as RunDifference
from stemmadb.evaluation._comparison_data import Verdict as Verdict
from stemmadb.evaluation._conclusion_data import CohortCreate as CohortCreate
from stemmadb.evaluation._conclusion_data import CohortUpdate as CohortUpdate
from stemmadb.evaluation._conclusion_data import ExperimentCreate as ExperimentCreate
from stemmadb.evaluation._conclusion_data import ExperimentUpdate as ExperimentUpdate
from stemmadb.evaluation._conclusion_data import ExperimentWithRuns as ExperimentWithRuns
from stemmadb.evaluation._data_types import Cost, Count, Currency, Name, Text, Word
from stemmadb.evaluation._lineage_data import ABSENT as ABSENT
from stemmadb.evaluation._lineage_data import Absent as Absent
from stemmadb.evaluation._lineage_data import BlameEntry as BlameEntry
from stemmadb.evaluation._lineage_data import DefinitionTreeNode as DefinitionTreeNode
from stemmadb.evaluation._lineage_data import MergeConflict as MergeConflict
from stemmadb.evaluation._lineage_data import MergeResult as MergeResult
from stemmadb.evaluation._score_data import Agreement as Agreement
from stemmadb.evaluation._score_data import AgreementPair as AgreementPair
from stemmadb.evaluation._score_data import ScoreSummary as ScoreSummary
from stemmadb.evaluation._transcript_data import AddReport as AddReport
from stemmadb.evaluation._transcript_data import ModelMetrics as ModelMetrics
from stemmadb.evaluation._transcript_data import RunMetrics as RunMetrics
from stemmadb.evaluation._transcript_data import ScenarioCreate as ScenarioCreate
from stemmadb.evaluation._transcript_data import TranscriptCreate as TranscriptCreate
from stemmadb.evaluation.documents import DefinitionContent, RunConfig, ScoreRationale
from stemmadb.evaluation.entities import Definition, Run, Transcript
from stemmadb.evaluation.vocabularies import AnnotatorKind, RunStatus, SlotStatus

# ------------------------------------------------------------------------------------------------------------ definitions


class DefinitionCreate(DataObject):
    """A new definition: a root, or with ``parent_id`` a fork."""

    noun: ClassVar[str] = "Definition"

    name: Name
    content: DefinitionContent
    parent_id: Id | None = None
    message: Text | None = None
    """Why this version exists."""
    created_by_id: Id | None = None
    id: UUID | None = None
    """A caller's own id; None: a new UUIDv7."""


class DefinitionFork(DataObject):
    """What a fork changes; an absent name or content is the parent's."""

    noun: ClassVar[str] = "Definition"

    name: Name | None = None
    content: DefinitionContent | None = None
    message: Text | None = None
    label: Text | None = None
    """A label to move from the parent to the fork."""
    created_by_id: Id | None = None


class DefinitionUpdate(DataObject):
    """What an update changes; an absent field is unchanged."""

    noun: ClassVar[str] = "Definition"

    name: Name | None = None
    content: DefinitionContent | None = None
    message: Text | None = None

    @model_validator(mode="after")
    def _required_stays(self) -> Self:
        for field_name in ("name", "content"):
            if field_name in self.model_fields_set and getattr(self, field_name) is None:
                message = f"{field_name} cannot be removed"
                raise ValueError(message)
        return self


class DefinitionFilters(DataObject):
    """What ``definitions.list_all`` is narrowed to; an absent field does not narrow."""

    noun: ClassVar[str] = "DefinitionFilters"

    name_contains: Word | None = None
    """Letter case counts; ``%`` and ``_`` are themselves."""
    parent_id: Id | None = None
    root_id: Id | None = None
    roots_only: bool = False
    frozen: bool | None = None
    has_runs: bool | None = None
    created_from: AwareDatetime | None = None
    """Inclusive."""
    created_to: AwareDatetime | None = None
    """Exclusive."""


@dataclass(frozen=True, slots=True)
class DefinitionWithContent:
    """A definition with its content in the newest shape; the stored row is as it was."""

    definition: Definition
    content: DefinitionContent
    stored_version: int
    """The ``schema_version`` of the stored document; 0 when it has none."""


# --------------------------------------------------------------------------------------------------------------------- runs


class RunCreate(DataObject):
    """A new run of a definition."""

    noun: ClassVar[str] = "Run"

    definition_id: Id
    config: RunConfig
    experiment_id: Id | None = None
    scenario_ids: list[Id] | None = None
    """The scenarios to select; None: by ``config.sample_percentage`` if it is set, else none."""
    name: Text | None = None
    created_by_id: Id | None = None


class RunUpdate(DataObject):
    """What an update changes; an absent field is unchanged."""

    noun: ClassVar[str] = "Run"

    name: Text | None = None
    """None removes it."""
    config: RunConfig | None = None

    @model_validator(mode="after")
    def _required_stays(self) -> Self:
        if "config" in self.model_fields_set and self.config is None:
            message = "config cannot be removed"
            raise ValueError(message)
        return self


class RunFilters(DataObject):
    """What ``runs.list_all`` is narrowed to; an absent field does not narrow."""

    noun: ClassVar[str] = "RunFilters"

    definition_id: Id | None = None
    experiment_id: Id | None = None
    statuses: frozenset[RunStatus] = frozenset()
    config_hash: bytes | None = None
    created_from: AwareDatetime | None = None
    """Inclusive."""
    created_to: AwareDatetime | None = None
    """Exclusive."""


@dataclass(frozen=True, slots=True)
class RunWithTranscripts:
    """A run and its transcripts, by created_at, id."""

    run: Run
    transcripts: list[Transcript]


@dataclass(frozen=True, slots=True)
class RunProgressReport:
    """How far a run is."""

    total: int
    completed: int
    failed: int
    skipped: int
    running: int
    queued: int
    source: Literal["slots", "reported"]
    """Counted from the slots, or as the run reported it."""
    per_minute: float | None = None
    """Outcomes a minute since the start; None before the first, and for reported progress."""
    eta: datetime | None = None
    """When the last slot is expected to end at that pace."""

    @property
    def percent(self) -> float:
        """Share of the total that is completed, failed or skipped, 0 to 100; 0 for a total of 0."""
        return 100.0 * (self.completed + self.failed + self.skipped) / self.total if self.total else 0.0

    def _repr_html_(self) -> str:
        return record_html(self, f"{self.percent:.0f} % of {self.total:,} done")


@dataclass(frozen=True, slots=True, order=True)
class SlotKey:
    """What a slot is the slot of."""

    run_id: UUID
    scenario_id: UUID
    model: str
    sample_index: int = 0


@dataclass(frozen=True, slots=True)
class SlotClaim:
    """The lease of a worker on a slot. A result is accepted only under the worker and attempt named here."""

    key: SlotKey
    attempt: int
    worker: str
    lease_expires_at: datetime


class ScoreCreate(DataObject):
    """A judgement of a transcript."""

    noun: ClassVar[str] = "Score"

    annotator_kind: AnnotatorKind
    annotator: Word
    name: Word = "overall"
    rubric_id: Id | None = None
    value: float | None = None
    """NaN: judged, but no number."""
    label: Text | None = None
    rationale: ScoreRationale | None = None
    annotator_user_id: Id | None = None
    duration_ms: Count | None = None
    cost: Cost | None = None
    cost_currency: Currency | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.value is None and self.label is None:
            message = "value or label is needed"
            raise ValueError(message)
        if self.annotator_user_id is not None and self.annotator_kind != AnnotatorKind.HUMAN:
            message = "annotator_user_id is for annotator_kind HUMAN"
            raise ValueError(message)
        if self.cost is not None and self.cost_currency is None:
            message = "cost needs cost_currency"
            raise ValueError(message)
        return self


class SlotOutcome(DataObject):
    """What became of a claimed slot: a transcript with its scores, or an error."""

    noun: ClassVar[str] = "SlotOutcome"

    claim: SlotClaim
    transcript: TranscriptCreate | None = None
    scores: list[ScoreCreate] = Field(default_factory=list)
    error_code: Word | None = None
    error_message: Text | None = None
    retry_in: timedelta | None = None
    """Pause before the next attempt; None: the library's back-off."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.transcript is None) == (self.error_code is None):
            message = "give either a transcript or an error_code"
            raise ValueError(message)
        if self.scores and self.transcript is None:
            message = "scores need a transcript"
            raise ValueError(message)
        if self.retry_in is not None and self.retry_in < timedelta(0):
            message = "retry_in cannot be negative"
            raise ValueError(message)
        return self


class OutcomeKind(StrEnum):
    """What ``record_outcomes`` did with an outcome."""

    STORED = "STORED"
    DUPLICATE = "DUPLICATE"
    """It was delivered before; nothing changed."""
    LEASE_LOST = "LEASE_LOST"
    """The lease is somebody else's now; nothing was stored."""


@dataclass(frozen=True, slots=True)
class OutcomeResult:
    """What became of one outcome."""

    key: SlotKey
    result: OutcomeKind
    transcript_id: UUID | None
    status: SlotStatus | None
    """The slot's status afterwards; None when there is no such slot, because its run was deleted."""


@dataclass(frozen=True, slots=True)
class ReconcileReport:
    """What ``runs.reconcile`` put right."""

    attached: int
    requeued: int
    finished: bool


@dataclass(frozen=True, slots=True)
class PurgeReport:
    """What ``purging.purge_run`` has removed."""

    run_id: UUID
    slots: int = 0
    transcripts: int = 0
    selected: int = 0
    """Scenarios of its selection."""
    seconds: float = 0.0


DimensionValues = Mapping[str, str | int]
