"""What the functions about comparisons take and give. Import it from ``stemmadb.evaluation.data``."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Final
from uuid import UUID

from pydantic import Field

from stemmadb._tables import fields_of, items_html, record_html, table_html
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
        return record_html(runs | fields_of(self.statistics) | coverage_fields(self.coverage), "Comparison of two runs")


class PairwiseMatrix(list[PairwiseCell]):
    """Every pair of some runs, which notebooks show as a matrix."""

    def _repr_html_(self) -> str:
        by_pair = {(cell.baseline_run_id, cell.comparison_run_id): cell.statistics for cell in self}
        runs = list(dict.fromkeys(run_id for pair in by_pair for run_id in pair))
        shown = runs[:_MOST_RUNS]
        head = ["baseline", *(f"run {place + 1}" for place in range(1, len(shown)))]
        rows = (
            [f"run {place + 1}: {run_id}", *(_said(by_pair.get((run_id, other))) for other in shown[1:])]
            for place, run_id in enumerate(shown)
        )
        caption = "Mean of the column's run - mean of the row's run, with its interval"
        return table_html(head, rows, caption=caption, count=len(runs))


def _said(found: PairedStatistics | None) -> str:
    """Return a difference, its interval and the verdict in words."""
    if found is None or found.difference is None:
        return "" if found is None else str(found.verdict).lower()
    interval = "" if found.low is None or found.high is None else f" ({found.low:+.3g} to {found.high:+.3g})"
    p = "" if found.p_adjusted is None else f", p {found.p_adjusted:.2g}"
    return f"{found.difference:+.3g}{interval}, {str(found.verdict).lower()}{p}"


def coverage_fields(coverage: Coverage | None) -> dict[str, object]:
    """Return the samples that two runs have in common and those that they have not, under the names of a table."""
    if coverage is None:
        return {}
    return {f"samples: {name.replace('_', ' ')}": count for name, count in fields_of(coverage).items() if isinstance(count, int)}


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
        verdict = "comparable" if self.comparable else "not comparable"
        samples = ", ".join(f"{name} {count}" for name, count in coverage_fields(self.scenarios).items())
        return items_html(self.differences, caption=f"{verdict}; {samples}; what differs:")


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
