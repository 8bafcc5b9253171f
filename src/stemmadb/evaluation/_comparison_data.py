"""What the functions about comparisons take and give. Import it from ``stemmadb.evaluation.data``."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Final
from uuid import UUID

from pydantic import Field

from stemmadb._display import json_text
from stemmadb._tables import fields_of, record_html, table_html
from stemmadb.data import DataObject
from stemmadb.entity import Id
from stemmadb.evaluation._data_types import Text
from stemmadb.evaluation.documents import Coverage, MetricDelta, RunDelta

_MOST_RUNS: Final = 20
"""Of a matrix that is shown."""

Hash = Annotated[bytes, Field(min_length=32, max_length=32)]


class Verdict(StrEnum):
    """What a test says of a difference."""

    HIGHER = "HIGHER"
    """The comparison run is higher, at the plan's alpha."""
    LOWER = "LOWER"
    TIED = "TIED"
    """No difference was shown at the plan's alpha."""
    UNTESTED = "UNTESTED"
    """There is no p-value: ``reason`` says why."""


@dataclass(frozen=True, slots=True)
class PairedStatistics:
    """The differences of two runs, comparison - baseline, over the samples that both have a number for."""

    test: str
    n: int
    """Pairs."""
    baseline: float | None
    """Mean over the pairs; None without any."""
    comparison: float | None
    difference: float | None
    standard_error: float | None
    """Of the mean difference, for independent pairs; None with fewer than two."""
    clustered_error: float | None
    """The same when pairs of one scenario depend on each other; None with fewer than two scenarios."""
    low: float | None
    """Where the interval of the mean difference begins, of confidence 1 - alpha: bootstrap for ``paired_permutation``, else Student's t."""
    high: float | None
    p_value: float | None
    """None where the test says nothing: ``reason`` says why."""
    p_adjusted: float | None
    """After the plan's correction over all pairs of runs."""
    cohens_d: float | None
    """Mean difference by its standard deviation; None without variance."""
    rank_biserial: float | None
    """-1 to 1, of the ranks of the differences; None when all are ties."""
    wins: int
    """Pairs in which the comparison run is higher."""
    losses: int
    ties: int
    verdict: Verdict
    """By ``p_adjusted``."""
    reason: str | None = None

    def _repr_html_(self) -> str:
        return record_html(self)


@dataclass(frozen=True, slots=True)
class PairwiseCell:
    """Two runs of a matrix."""

    baseline_run_id: UUID
    comparison_run_id: UUID
    delta: MetricDelta
    coverage: Coverage
    statistics: PairedStatistics

    def _repr_html_(self) -> str:
        runs = {"baseline_run_id": self.baseline_run_id, "comparison_run_id": self.comparison_run_id}
        samples = {"samples": coverage_said(self.coverage)}
        return record_html(runs | fields_of(self.statistics) | samples, "Comparison of two runs")


class PairwiseMatrix(list[PairwiseCell]):
    """Every pair of some runs, which notebooks show as a matrix."""

    def _repr_html_(self) -> str:
        words = {(cell.baseline_run_id, cell.comparison_run_id): effect_said(cell.statistics) for cell in self}
        runs = list(dict.fromkeys(run_id for pair in words for run_id in pair))
        shown = runs[:_MOST_RUNS]
        head = ["baseline", *(f"run {place + 1}" for place in range(1, len(shown)))]
        rows = (
            [
                f"run {place + 1}: {run_id}",
                *(words.get((run_id, other)) for other in shown[1:]),
            ]
            for place, run_id in enumerate(shown)
        )
        caption = "Mean of the column's run - mean of the row's run, with its interval"
        return table_html(head, rows, caption=caption, count=len(runs))


def effect_said(found: PairedStatistics) -> str:
    """Return a difference, its interval and the verdict in words."""
    verdict = str(found.verdict).lower() if found.reason is None else f"{str(found.verdict).lower()}: {found.reason}"
    if found.difference is None:
        return verdict
    interval = "" if found.low is None or found.high is None else f" ({found.low:+.3g} to {found.high:+.3g})"
    p = "" if found.p_adjusted is None else f", p {found.p_adjusted:.2g}"
    return f"{found.difference:+.3g}{interval}, {verdict}{p}"


def coverage_said(found: Coverage) -> str:
    """Return in words which samples two runs have in common and which they have not."""
    counts = f"{found.matched} matched, {found.only_baseline} only in the baseline, {found.only_comparison} only in the other run"
    return f"{counts}, {found.invalidated} invalidated"


def _value_said(value: Any) -> str:
    """Return what a run has at a place; hashes are long."""
    text = json_text(value)
    return text if len(text) <= 40 else f"{text[:20]}…"


@dataclass(frozen=True, slots=True)
class RunDifference:
    """Something that is not the same in all runs."""

    pointer: str
    """Where: ``/definition``, ``/scenarios``, or a key of the configuration as ``/config/temperature``."""
    values: dict[UUID, Any]
    """Of each run. Hashes are in hexadecimal."""


@dataclass(frozen=True, slots=True)
class ComparabilityReport:
    """Whether runs can be compared, before any number."""

    comparable: bool
    """Every live sample of one run is there in each other run."""
    differences: list[RunDifference]
    """What is not the same, by pointer."""
    scenarios: Coverage
    """Samples that all runs have; that not all have, the first among them or not; that are invalidated in some run."""

    def _repr_html_(self) -> str:
        verdict = "Comparable" if self.comparable else "Not comparable"
        runs = list(dict.fromkeys(run_id for found in self.differences for run_id in found.values))[:_MOST_RUNS]
        head = ["what differs", *(f"in run {run_id}" for run_id in runs)]
        rows = ([found.pointer, *(_value_said(found.values.get(run_id)) for run_id in runs)] for found in self.differences)
        return table_html(head, rows, caption=f"{verdict}. Samples: {coverage_said(self.scenarios)}")


class RunComparisonCreate(DataObject):
    """A comparison that was computed elsewhere."""

    noun: ClassVar[str] = "RunComparison"

    baseline_run_id: Id
    comparison_run_id: Id
    delta: RunDelta
    experiment_id: Id | None = None
    plan_hash: Hash | None = None
    input_hash: Hash | None = None
    """None: whether it is stale is not known."""
    code_version: Text | None = None
    notes: Text | None = None
