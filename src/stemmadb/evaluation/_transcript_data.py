"""What the functions about scenarios and transcripts take and give. Import it from ``stemmadb.evaluation.data``."""

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Annotated, ClassVar, Self
from uuid import UUID

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from stemmadb._tables import items_html
from stemmadb.data import DataObject
from stemmadb.entity import Id
from stemmadb.evaluation._data_types import Cost, Count, Currency, Text, Word, storable
from stemmadb.evaluation.documents import ScenarioContent, TranscriptContent, TranscriptMetrics


class ScenarioCreate(DataObject):
    """A new scenario of a definition."""

    noun: ClassVar[str] = "Scenario"

    name: Word
    content: ScenarioContent


class TranscriptCreate(DataObject):
    """A new transcript. Counts that are not known are None, never 0."""

    noun: ClassVar[str] = "Transcript"

    model: Word
    content: TranscriptContent
    scenario_id: Id | None = None
    sample_index: Annotated[int, Field(ge=0, lt=2**31)] = 0
    model_version: Text | None = None
    metrics: TranscriptMetrics | None = None
    input_tokens: Count | None = None
    output_tokens: Count | None = None
    reasoning_tokens: Count | None = None
    cache_read_tokens: Count | None = None
    cache_write_tokens: Count | None = None
    duration_ms: Count | None = None
    ttft_ms: Count | None = None
    cost: Cost | None = None
    cost_currency: Currency | None = None
    stop_reason: Text | None = None
    preview: Annotated[str, StringConstraints(max_length=500), AfterValidator(storable)] | None = None
    """None: the first 500 characters of the last assistant turn."""
    error_message: Text | None = None

    @model_validator(mode="after")
    def _cost_has_currency(self) -> Self:
        if self.cost is not None and self.cost_currency is None:
            message = "cost needs cost_currency"
            raise ValueError(message)
        return self


@dataclass(frozen=True, slots=True)
class AddReport:
    """What a bulk write did, with the ids in the order given."""

    inserted: int = 0
    """New rows, those that supersede others included."""
    skipped: int = 0
    """Items that were there already."""
    superseded: int = 0
    """Rows that were invalidated to make room for new ones."""
    updated: int = 0
    ids: list[UUID] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ModelMetrics:
    """The live transcripts of one model in one run."""

    model: str
    count: int
    invalidated: int
    tokens: dict[str, int]
    """Sum of the known counts by kind: input, output, reasoning, cache_read, cache_write."""
    cost: dict[str, Decimal]
    """Sum of the known costs by currency."""
    duration_ms: dict[str, float]
    """Quantiles p50, p90, p99 of the known durations; empty when none is known."""
    unknown: dict[str, int]
    """How many transcripts do not say: by column."""


@dataclass(frozen=True, slots=True)
class RunMetrics:
    """What a run cost, per model."""

    run_id: UUID
    models: list[ModelMetrics]
    """By model."""

    def _repr_html_(self) -> str:
        return items_html(self.models, caption=f"Run {self.run_id}")
