"""
The documents of the pack ``evaluation``.

Version 0 is what was stored before documents had a version: any object, with any of its keys absent.
"""

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, Self
from uuid import UUID

from pydantic import Field, model_validator

from stemmadb.documents import Document, DocumentPart, Raw, load_document
from stemmadb.documents.search import search_key
from stemmadb.evaluation import _document_steps as steps
from stemmadb.evaluation._document_steps import filled, under
from stemmadb.evaluation.vocabularies import AnnotatorKind

__all__ = [
    "DefinitionContent",
    "Dimension",
    "DimensionLevel",
    "load_definition_content",
    "ScenarioContent",
    "RunConfig",
    "RunProgress",
    "TranscriptContent",
    "Turn",
    "TranscriptMetrics",
    "DecisionSource",
    "ScoreRationale",
    "Evidence",
    "AnalysisPlan",
    "RunDelta",
    "MetricDelta",
    "Coverage",
    "AnalysisOutput",
    "RubricContent",
    "RubricValue",
    "CohortCriteria",
]

# ------------------------------------------------------------------------------------------------ definitions, scenarios


class DimensionLevel(DocumentPart):
    """One step of a scored dimension."""

    score: int
    label: str
    description: str | None = None


class Dimension(DocumentPart):
    """An axis along which scenarios of a definition vary: plain values, or levels with a score."""

    name: str
    values: tuple[str, ...] = ()
    levels: tuple[DimensionLevel, ...] = ()


class DefinitionContent(Document, version=2):
    """What a definition says: the text it expands, and the axes it varies."""

    preamble: str
    """Said before every scenario."""
    template: str
    """The scenario, with the names of dimensions as placeholders: ``{severity}``."""
    dimensions: tuple[Dimension, ...] = ()
    matching_rules: tuple[str, ...] = ()
    """Which combinations of values make sense, each rule in words; none for all of them."""


@DefinitionContent.upcast(0)
def _definition_0(raw: Raw) -> Raw:
    """0 to 1: the first writers let any of the three be absent."""
    return filled(raw, preamble="", template="", dimensions=[])


DefinitionContent.upcast(1)(steps.rules_become_a_list)
DefinitionContent.downcast(2)(steps.rules_become_a_text)


def load_definition_content(raw: Any) -> DefinitionContent:
    """
    Read the stored content of a definition, of any version.

    Args:
        raw: any decoded JSON value. None is an empty definition of version 0.

    Raises:
        UnknownSchemaVersionError: a newer release wrote it; it was not parsed.
        CorruptDocumentError: it is no object, or not what its version says.
    """
    return load_document(raw, DefinitionContent)


class ScenarioContent(Document, version=1):
    """One generated variant: what the model is told."""

    prompt: str
    preamble: str | None = None
    dimension_values: Mapping[str, str | int] = Field(default_factory=dict)
    """The value of each dimension in this variant."""
    followups: tuple[str, ...] = ()
    """What is said next, in order, whatever the model answers."""


@ScenarioContent.upcast(0)
def _scenario_0(raw: Raw) -> Raw:
    """0 to 1: the prompt may have been absent."""
    return filled(raw, prompt="")


# ----------------------------------------------------------------------------------------------------------------- runs


class RunConfig(Document, version=1):
    """How a run probes its definition."""

    models: tuple[str, ...]
    """Whom it asks, each as ``provider:model``."""
    temperature: float | None = Field(default=None, ge=0, le=2)
    """None leaves it to each model."""
    sample_percentage: float | None = Field(default=None, gt=0, le=100)
    """How much of the scenarios it samples, over 0 to 100; None for all of them."""
    samples_per_scenario: int = Field(default=1, ge=1)
    seed: int | None = None
    """Makes the sample repeatable."""
    max_attempts: int = Field(default=3, ge=1)
    """How often a slot is tried before it has failed."""
    lease_seconds: int = Field(default=300, ge=1)
    """How long a worker may hold a slot without a sign of life."""


@RunConfig.upcast(0)
def _config_0(raw: Raw) -> Raw:
    """0 to 1: the models may have been absent."""
    return filled(raw, models=[])


class RunProgress(Document, version=2):
    """The progress that a run reports itself, when it plans no slots."""

    total: int = Field(default=0, ge=0)
    completed: int = Field(default=0, ge=0)
    failed: int = Field(default=0, ge=0)
    skipped: int = Field(default=0, ge=0)
    """What the run decided not to do."""

    @model_validator(mode="after")
    def _at_most_total(self) -> Self:
        if self.completed + self.failed + self.skipped > self.total:
            raise ValueError("completed, failed and skipped are together more than total")
        return self

    @property
    def pending(self) -> int:
        """What is neither completed, failed nor skipped."""
        return self.total - self.completed - self.failed - self.skipped

    @property
    def percent(self) -> float:
        """How much is completed, failed or skipped, 0 to 100; 0 when there is nothing to do."""
        return 100 * (self.total - self.pending) / self.total if self.total else 0.0


@RunProgress.upcast(0)
def _progress_0(raw: Raw) -> Raw:
    """0 to 1: counts may have been absent."""
    return filled(raw, total=0, completed=0, failed=0)


RunProgress.upcast(1)(steps.skipped_is_counted)
RunProgress.downcast(2)(steps.skipped_stays)


# ---------------------------------------------------------------------------------------------------------- transcripts


class Turn(DocumentPart):
    """One message of a dialogue."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    """Exactly as it was said."""
    at: datetime | None = None
    raw: Mapping[str, Any] | None = None
    """The message as the provider sent it, where it holds more."""


class TranscriptContent(Document, version=1):
    """A dialogue, in order."""

    turns: tuple[Turn, ...]


@TranscriptContent.upcast(0)
def _transcript_0(raw: Raw | list[Any]) -> Raw:
    """0 to 1: the turns were called messages, or were the whole document."""
    if isinstance(raw, list):
        return {"turns": raw}
    kept = dict(raw)
    turns = kept.pop("messages", None) if kept.get("turns") is None else kept["turns"]
    return {**kept, "turns": [] if turns is None else turns}


class DecisionSource(DocumentPart):
    """Who read a decision out of an answer."""

    kind: AnnotatorKind | None = None
    """None where it was not said, as before version 2."""
    name: str
    """Of the rule, the model or the person."""


@search_key("decision_source", {0: "/decision_source", 2: "/decision_source/name"})
@search_key("decision")
class TranscriptMetrics(Document, version=2):
    """What was measured of one transcript."""

    values: Mapping[str, float] = Field(default_factory=dict)
    decision: str | None = None
    """What the model decided, in a word."""
    decision_source: DecisionSource | None = None
    """Who read the decision out of the answer."""


@TranscriptMetrics.upcast(0)
def _metrics_0(raw: Raw) -> Raw:
    """0 to 1: only the version is new."""
    return raw


TranscriptMetrics.upcast(1)(steps.source_becomes_an_object)
TranscriptMetrics.downcast(2)(steps.source_becomes_a_text)


# --------------------------------------------------------------------------------------------------------------- scores


class Evidence(DocumentPart):
    """A passage that a judgement rests on."""

    turn: int | None = None
    """Its place in the dialogue, from 0; None for the whole."""
    quote: str


class ScoreRationale(Document, version=1):
    """Why a score is what it is."""

    text: str | None = None
    evidence: tuple[Evidence, ...] = ()
    raw: Mapping[str, Any] = Field(default_factory=dict)
    """What the judge gave, where it gave more."""


@ScoreRationale.upcast(0)
def _rationale_0(raw: Raw) -> Raw:
    """0 to 1: whatever the judge gave was stored as it was."""
    return under("raw", raw)


class RubricValue(DocumentPart):
    """One thing that a rubric looks for."""

    key: str
    """Names it in scores; unique in the rubric."""
    label: str
    description: str = ""
    weight: float = 1.0


class RubricContent(Document, version=1):
    """What a rubric looks for."""

    values: tuple[RubricValue, ...]

    @model_validator(mode="after")
    def _unique_keys(self) -> Self:
        repeated = [key for key, count in Counter(value.key for value in self.values).items() if count > 1]
        if repeated:
            raise ValueError(f"{len(repeated)} of the keys stand there more than once")
        return self


@RubricContent.upcast(0)
def _rubric_0(raw: Raw | list[Any]) -> Raw:
    """0 to 1: the values were the whole document."""
    return {"values": raw} if isinstance(raw, list) else filled(raw, values=[])


# ---------------------------------------------------------------------------------------------- experiments and analyses


class AnalysisPlan(Document, version=1):
    """How runs will be compared; fixed before results are seen."""

    test: str = "paired_permutation"
    alpha: float = Field(gt=0, lt=1)
    """The probability of a false alarm that is accepted, between 0 and 1."""
    correction: str | None = None
    """For several comparisons: None, ``bonferroni``, ``holm`` or ``bh``."""
    metric: str | None = None
    """What is compared: a metric of transcripts or the name of a score."""
    two_sided: bool = True
    coverage: Literal["strict", "overlap"] = "strict"
    """``strict`` refuses runs that do not cover the same slots; ``overlap`` compares those that both have."""
    resamples: int = Field(default=10_000, ge=1)
    seed: int | None = None
    """Makes resampling repeatable."""


@AnalysisPlan.upcast(0)
def _plan_0(raw: Raw) -> Raw:
    """0 to 1: the first plans did not say their alpha."""
    return filled(raw, alpha=0.05)


class MetricDelta(DocumentPart):
    """How one metric differs between two runs. None where it could not be computed."""

    baseline: float | None = None
    comparison: float | None = None
    delta: float | None = None
    """comparison - baseline"""
    p_value: float | None = None
    effect_size: float | None = None
    n: int | None = None
    """The number of pairs."""


class Coverage(DocumentPart):
    """How far two runs cover the same slots."""

    matched: int
    only_baseline: int
    only_comparison: int
    invalidated: int
    """Left out because one side was invalidated."""


class RunDelta(Document, version=1):
    """What changed from a baseline run to another."""

    metrics: Mapping[str, MetricDelta] = Field(default_factory=dict)
    coverage: Coverage | None = None
    summary: str | None = None


@RunDelta.upcast(0)
def _delta_0(raw: Raw) -> Raw:
    """0 to 1: only the version is new."""
    return raw


class AnalysisOutput(Document, version=1):
    """What an analysis found."""

    summary: Mapping[str, Any] = Field(default_factory=dict)
    per_model: Mapping[str, Mapping[str, Any]] = Field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@AnalysisOutput.upcast(0)
def _output_0(raw: Raw) -> Raw:
    """0 to 1: whatever the analysis gave was stored as it was."""
    return under("summary", raw)


class CohortCriteria(Document, version=1):
    """Which runs and transcripts belong to a cohort: those that meet all criteria that are given."""

    models: tuple[str, ...] = ()
    definition_ids: tuple[UUID, ...] = ()
    experiment_ids: tuple[UUID, ...] = ()
    created_from: datetime | None = None
    """Inclusive."""
    created_to: datetime | None = None
    """Exclusive."""
    dimension_values: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    """For each dimension the values that count."""


@CohortCriteria.upcast(0)
def _criteria_0(raw: Raw) -> Raw:
    """0 to 1: only the version is new."""
    return raw
