"""Paired tests: from what the database has summed up of the differences to a p-value, an interval and a verdict."""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from stemmadb.errors import ValidationError
from stemmadb.evaluation._comparison_data import PairedStatistics, Verdict
from stemmadb.evaluation._distributions import fair_tail, normal_tail, t_quantile, t_tail
from stemmadb.evaluation._resampling import bootstrap_interval, sign_flip_p
from stemmadb.evaluation._score_summary import clustered_error
from stemmadb.evaluation.documents import AnalysisPlan

_EXACT_RANKS: Final = 50
"""Up to how many differences without ties the distribution of Wilcoxon's statistic is counted out."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The differences of two runs, comparison - baseline, summed up."""

    n: int = 0
    baseline: float | None = None
    comparison: float | None = None
    mean: float = 0.0
    deviation: float | None = None
    clusters: int = 0
    spread: float = 0.0
    middle: float = 0.0
    wins: int = 0
    losses: int = 0
    w_plus: float = 0.0
    ties_term: float = 0.0
    """Sum of t**3 - t over the groups of t differences of one size."""
    is_binary: bool = False
    differences: Sequence[float] | None = None

    @property
    def error(self) -> float | None:
        """The standard error of the mean difference; None with fewer than two pairs."""
        return None if self.n < 2 or self.deviation is None else self.deviation / math.sqrt(self.n)

    @property
    def clustered(self) -> float | None:
        """The same for pairs that depend on each other within a scenario; None with fewer than two scenarios."""
        if self.clusters < 2:
            return None
        found = clustered_error(self.n, self.clusters, self.spread, self.middle)
        # What is left of sums that cancel out is rounding.
        return 0.0 if found <= 1e-12 * (self.deviation or 0.0) else found


Outcome = tuple[float | None, str | None]
"""The p-value, or why there is none."""


def _sided(upper: float, lower: float, *, two_sided: bool) -> float:
    return min(1.0, 2 * min(upper, lower)) if two_sided else upper


def _by_t(sample: Sample, error: float | None, freedom: int, plan: AnalysisPlan) -> Outcome:
    if error is None:
        return None, "too few pairs"
    if error == 0.0:
        return (1.0, None) if sample.mean == 0.0 else (None, "no variance")
    t = sample.mean / error
    return _sided(t_tail(t, freedom), t_tail(-t, freedom), two_sided=plan.two_sided), None


def _paired_t(sample: Sample, plan: AnalysisPlan, seed: int) -> Outcome:  # noqa: ARG001
    return _by_t(sample, sample.error, sample.n - 1, plan)


def _clustered_t(sample: Sample, plan: AnalysisPlan, seed: int) -> Outcome:  # noqa: ARG001
    return _by_t(sample, sample.clustered, sample.clusters - 1, plan)


def _wilcoxon(sample: Sample, plan: AnalysisPlan, seed: int) -> Outcome:  # noqa: ARG001
    n = sample.wins + sample.losses
    if not n:
        return 1.0, None
    if n <= _EXACT_RANKS and sample.ties_term == 0.0:
        counts = _rank_sums(n)
        place = round(sample.w_plus)
        total = 2**n
        return _sided(sum(counts[place:]) / total, sum(counts[: place + 1]) / total, two_sided=plan.two_sided), None
    variance = n * (n + 1) * (2 * n + 1) / 24 - sample.ties_term / 48
    z = (sample.w_plus - n * (n + 1) / 4) / math.sqrt(variance)
    return _sided(normal_tail(z), normal_tail(-z), two_sided=plan.two_sided), None


@functools.lru_cache(_EXACT_RANKS)
def _rank_sums(n: int) -> list[int]:
    """Return how many of the subsets of 1 to n add up to each sum."""
    counts = [1]
    for rank in range(1, n + 1):
        longer = counts + [0] * rank
        for place, count in enumerate(counts):
            longer[place + rank] += count
        counts = longer
    return counts


def _mcnemar(sample: Sample, plan: AnalysisPlan, seed: int) -> Outcome:  # noqa: ARG001
    if not sample.is_binary:
        return None, "not all values are 0 or 1"
    n = sample.wins + sample.losses
    return _sided(fair_tail(sample.wins, n), fair_tail(sample.losses, n), two_sided=plan.two_sided), None


def _permutation(sample: Sample, plan: AnalysisPlan, seed: int) -> Outcome:
    given = sample.differences or ()
    return sign_flip_p(given, two_sided=plan.two_sided, resamples=plan.resamples, seed=seed), None


_TESTS: Final[dict[str, Callable[[Sample, AnalysisPlan, int], Outcome]]] = {
    "paired_permutation": _permutation,
    "paired_t": _paired_t,
    "clustered_t": _clustered_t,
    "wilcoxon": _wilcoxon,
    "mcnemar": _mcnemar,
}
RESAMPLING: Final = frozenset({"paired_permutation"})
"""The tests that need every difference, not only their sums."""
_CORRECTIONS: Final = (None, "none", "bonferroni", "holm", "bh")


def check_plan(plan: AnalysisPlan) -> None:
    """
    Refuse a plan that names what there is not.

    Raises:
        ValidationError: the test or the correction is unknown.
    """
    if plan.test not in _TESTS:
        raise ValidationError(f"test is one of {', '.join(_TESTS)}", "test")
    if plan.correction not in _CORRECTIONS:
        raise ValidationError("correction is none, bonferroni, holm or bh", "correction")


def judge(samples: Sequence[Sample], plan: AnalysisPlan, seeds: Sequence[int]) -> list[PairedStatistics]:
    """Return the statistics of a family of comparisons: each tested, the p-values corrected together, a verdict for each."""
    tested = [_TESTS[plan.test](each, plan, seed) if each.n else (None, "no pairs") for each, seed in zip(samples, seeds, strict=True)]
    adjusted = adjust([p for p, _ in tested], plan.correction)
    return [
        _statistics(sample, plan, seed, outcome, corrected)
        for sample, seed, outcome, corrected in zip(samples, seeds, tested, adjusted, strict=True)
    ]


def _statistics(sample: Sample, plan: AnalysisPlan, seed: int, outcome: Outcome, corrected: float | None) -> PairedStatistics:
    low, high = _interval(sample, plan, seed)
    ranked = sample.wins + sample.losses
    all_ranks = ranked * (ranked + 1) / 2
    return PairedStatistics(
        test=plan.test,
        n=sample.n,
        baseline=sample.baseline,
        comparison=sample.comparison,
        difference=sample.mean if sample.n else None,
        standard_error=sample.error,
        clustered_error=sample.clustered,
        low=low,
        high=high,
        p_value=outcome[0],
        p_adjusted=corrected,
        cohens_d=sample.mean / sample.deviation if sample.deviation else None,
        rank_biserial=2 * sample.w_plus / all_ranks - 1 if ranked else None,
        wins=sample.wins,
        losses=sample.losses,
        ties=sample.n - ranked,
        verdict=_verdict(sample.mean, corrected, plan.alpha),
        reason=outcome[1],
    )


def _interval(sample: Sample, plan: AnalysisPlan, seed: int) -> tuple[float | None, float | None]:
    if plan.test in RESAMPLING and sample.differences and sample.n > 1:
        return bootstrap_interval(sample.differences, alpha=plan.alpha, resamples=plan.resamples, seed=seed)
    clustered = plan.test == "clustered_t"
    error, freedom = (sample.clustered, sample.clusters - 1) if clustered else (sample.error, sample.n - 1)
    if error is None:
        return None, None
    margin = t_quantile(1 - plan.alpha / 2, freedom) * error
    return sample.mean - margin, sample.mean + margin


def _verdict(difference: float, p_value: float | None, alpha: float) -> Verdict:
    if p_value is None:
        return Verdict.UNTESTED
    if p_value > alpha or difference == 0.0:
        return Verdict.TIED
    return Verdict.HIGHER if difference > 0 else Verdict.LOWER


def adjust(p_values: Sequence[float | None], correction: str | None) -> list[float | None]:
    """Return p-values corrected over their family, in the order given. None belongs to no family, and stays None."""
    order = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    count = len(order)
    found: list[float | None] = [None] * len(p_values)
    bound = 0.0
    if correction == "bh":
        bound = 1.0
        for rank, (p, place) in reversed(list(enumerate(order, 1))):
            bound = min(bound, p * count / rank)
            found[place] = bound
        return found
    for rank, (p, place) in enumerate(order):
        scaled = min(1.0, p * {"bonferroni": count, "holm": count - rank}.get(correction or "", 1))
        bound = max(bound, scaled)
        found[place] = bound
    return found
