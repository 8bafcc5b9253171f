"""Comparisons: aligned by content, tested under a plan, held against scipy and statsmodels."""

import asyncio
import itertools
import math
import sys
import threading
import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from tests.evaluation.judged_runs import Bench, judgement, most_discarded
from tests.evaluation.run_setups import MODEL

from stemmadb.aio.evaluation import comparisons as async_comparisons
from stemmadb.aio.evaluation import scores as async_scores
from stemmadb.errors import ConflictError, CoverageError, MissingDependencyError, NotFoundError, ReferenceNotFoundError, ValidationError
from stemmadb.evaluation import _paired_tests, _score_summary, comparisons, definitions, experiments, runs, scenarios, transcripts
from stemmadb.evaluation._comparison_rows import _PAIRS
from stemmadb.evaluation._distributions import t_quantile
from stemmadb.evaluation._paired_tests import Sample, adjust, judge
from stemmadb.evaluation._resampling import bootstrap_interval, sign_flip_p
from stemmadb.evaluation.data import DefinitionFork, ExperimentCreate, RunComparisonCreate, ScenarioCreate
from stemmadb.evaluation.documents import AnalysisPlan, MetricDelta, RunDelta, ScenarioContent
from stemmadb.testing import assert_max_queries

NAN = float("nan")
PLAN = AnalysisPlan(test="paired_t", alpha=0.05)
RANDOM = np.random.default_rng(11)
X = [float(value) for value in RANDOM.normal(0, 1, 24)]
Y = [x + float(value) for x, value in zip(X, RANDOM.normal(0.4, 0.8, 24), strict=True)]


def pair(session: Session, x: list[float | None], y: list[float | None], **fields: Any) -> tuple[uuid.UUID, uuid.UUID]:
    bench = Bench(session, max(len(x), len(y)))
    return bench.run(x, **fields), bench.run(y, **fields)


def statistics(session: Session, x: list[float | None], y: list[float | None], **plan: Any) -> comparisons.PairedStatistics:
    (cell,) = comparisons.pairwise(session, pair(session, x, y), plan=AnalysisPlan(**{"alpha": 0.05} | plan))
    return cell.statistics


# ---------------------------------------------------------------------------------------------------- against scipy


@pytest.mark.requirement("VR-036")
@pytest.mark.parametrize("two_sided", [True, False])
def test_tests_agree_with_scipy(session: Session, two_sided: bool) -> None:
    """Paired t, Wilcoxon and sign flips give scipy's p-values; intervals and effect sizes are the textbook's."""
    alternative = "two-sided" if two_sided else "greater"
    runs_ = pair(session, X, Y)
    d = np.array(Y) - np.array(X)
    expected = {
        "paired_t": stats.ttest_rel(Y, X, alternative=alternative).pvalue,
        "wilcoxon": stats.wilcoxon(d, alternative=alternative, method="exact").pvalue,
    }
    for test, p_value in expected.items():
        (cell,) = comparisons.pairwise(session, runs_, plan=AnalysisPlan(test=test, alpha=0.05, two_sided=two_sided))
        assert cell.statistics.p_value == pytest.approx(p_value, rel=1e-9), test
    found = cell.statistics
    low, high = stats.t.interval(0.95, 23, d.mean(), stats.sem(d))
    assert (found.difference, found.standard_error, found.low, found.high) == pytest.approx((d.mean(), stats.sem(d), low, high))
    assert found.cohens_d == pytest.approx(d.mean() / d.std(ddof=1))
    assert (found.wins, found.losses, found.ties) == (int((d > 0).sum()), int((d < 0).sum()), 0)
    assert (cell.delta.baseline, cell.delta.comparison) == pytest.approx((np.mean(X), np.mean(Y)))
    (cell,) = comparisons.pairwise(session, runs_, plan=AnalysisPlan(alpha=0.05, two_sided=two_sided, seed=5))
    reference = stats.permutation_test(
        (d,), np.mean, permutation_type="samples", alternative=alternative, n_resamples=20_000, rng=np.random.default_rng(3)
    )
    assert cell.statistics.p_value == pytest.approx(reference.pvalue, abs=0.01)


@pytest.mark.requirement("VR-036")
def test_ranks_with_ties_and_zeros_agree_with_scipy(session: Session) -> None:
    """Ties share their mean rank, zeros are left out, and the normal approximation is corrected for both."""
    x = [0.0] * 30
    y = [float(n % 5 - 1) for n in range(30)]
    found = statistics(session, x, y, test="wilcoxon")
    expected = stats.wilcoxon(y, zero_method="wilcox", correction=False, method="asymptotic")
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-9)
    assert (found.ties, found.wins, found.losses) == (6, 18, 6)


@pytest.mark.requirement("VR-036")
def test_small_sign_flips_are_exact(session: Session) -> None:
    """With few pairs every pattern of signs is tried, as scipy does."""
    d = [0.5, -0.1, 0.9, 0.3, 0.7, -0.2, 0.4]
    found = statistics(session, [0.0] * 7, list(d))
    expected = stats.permutation_test((np.array(d),), np.mean, permutation_type="samples", n_resamples=math.inf)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-9)


@pytest.mark.requirement("VR-036")
def test_mcnemar_and_clusters_agree_with_statsmodels(session: Session) -> None:
    """McNemar's exact p-value, and the clustered error of samples of one scenario, are statsmodels'."""
    x = [1.0] * 14 + [0.0] * 26
    y = [1.0] * 10 + [0.0] * 4 + [1.0] * 13 + [0.0] * 13
    found = statistics(session, x, y, test="mcnemar")
    assert found.p_value == pytest.approx(mcnemar([[10, 4], [13, 13]], exact=True).pvalue)
    assert found.verdict == "HIGHER"
    bench = Bench(session, 10)
    cells = [(n, MODEL, sample) for n, sample in itertools.product(range(10), range(3))]
    first = {cell: float(RANDOM.normal()) for cell in cells}
    second = {cell: first[cell] + cell[0] / 5 + float(RANDOM.normal(0, 0.2)) for cell in cells}
    plan = AnalysisPlan(test="clustered_t", alpha=0.05)
    (cell,) = comparisons.pairwise(session, [bench.run(first), bench.run(second)], plan=plan)
    d = np.array([second[each] - first[each] for each in cells])
    fit = sm.OLS(d, np.ones(30)).fit(cov_type="cluster", cov_kwds={"groups": [n for n, _, _ in cells]}, use_t=True)
    assert cell.statistics.clustered_error == pytest.approx(fit.bse[0])
    assert cell.statistics.p_value == pytest.approx(fit.pvalues[0], rel=1e-6)
    assert (cell.statistics.low, cell.statistics.high) == pytest.approx(tuple(fit.conf_int()[0]))


@pytest.mark.offline
@pytest.mark.property
@pytest.mark.requirement("VR-036")
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
@settings(deadline=None)
def test_corrections_agree_with_statsmodels(p_values: list[float]) -> None:
    """Bonferroni, Holm and Benjamini-Hochberg are statsmodels'; what was not tested is not of the family."""
    for name, theirs in (("bonferroni", "bonferroni"), ("holm", "holm"), ("bh", "fdr_bh")):
        expected = multipletests(p_values, method=theirs)[1]
        assert adjust(p_values, name) == pytest.approx(list(expected))
        assert adjust([None, *p_values], name)[0] is None
        assert adjust([*p_values, None], name)[:-1] == adjust(p_values, name)
    assert adjust(p_values, None) == adjust(p_values, "none") == p_values


@pytest.mark.offline
@pytest.mark.requirement("VR-036")
def test_draws_repeat_with_their_seed() -> None:
    """The same seed gives the same p-value and interval, another seed others close by; the interval is scipy's."""
    d = list(np.array(Y) - np.array(X))
    given: dict[str, Any] = {"two_sided": True, "resamples": 3000}
    assert sign_flip_p(d, seed=1, **given) == sign_flip_p(d, seed=1, **given)
    assert sign_flip_p(d, seed=1, **given) == pytest.approx(sign_flip_p(d, seed=2, **given), abs=0.02)
    low, high = bootstrap_interval(d, alpha=0.05, resamples=20_000, seed=1)
    assert (low, high) == bootstrap_interval(d, alpha=0.05, resamples=20_000, seed=1)
    expected = stats.bootstrap((d,), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(4)).confidence_interval
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.02)


# ------------------------------------------------------------------------------------------------- what is degenerate


@pytest.mark.requirement("VR-036")
@pytest.mark.parametrize("test", ["paired_permutation", "paired_t", "clustered_t", "wilcoxon", "mcnemar"])
@pytest.mark.parametrize(
    ("x", "y", "verdicts"),
    [
        ([], [], {"UNTESTED"}),
        ([1.0], [0.0], {"UNTESTED", "TIED"}),
        ([0.1] * 9, [0.1] * 9, {"TIED", "UNTESTED"}),
        ([0.1] * 9, [0.3] * 9, {"HIGHER", "UNTESTED"}),
        ([1.0, 0.0, 1.0], [1.0, 0.0, 1.0], {"TIED"}),
        ([NAN, NAN], [NAN, NAN], {"UNTESTED"}),
        ([None, None], [None, None], {"UNTESTED"}),
        ([1e300, float("inf")], [float("-inf"), NAN], {"UNTESTED"}),
        ([5e-324, 0.0, 1e-320], [0.0, 5e-324, 1e-310], {"TIED", "UNTESTED"}),
        ([1e99, -1e99, 1e99], [-1e99, 1e99, 0.0], {"TIED", "UNTESTED"}),
    ],
)
def test_what_says_nothing_is_data(session: Session, test: str, x: list[Any], y: list[Any], verdicts: set[str]) -> None:
    """No pairs, one pair, no variance, ties, NaN, infinities, the largest and the smallest numbers: a verdict, and never an error."""
    found = statistics(session, x, y, test=test, coverage="overlap")
    assert found.verdict in verdicts
    assert (found.p_value is None) == (found.verdict == "UNTESTED") == (found.reason is not None)
    assert not [value for value in (found.p_value, found.low, found.high, found.difference) if value is not None and math.isnan(value)]


@pytest.mark.offline
def test_without_numpy_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """What draws samples says which extra is missing; closed forms need none."""
    sample = Sample(n=2, mean=1.0, deviation=1.0, wins=2, w_plus=3.0, differences=[0.5, 1.5])
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "numpy", None)
        with pytest.raises(MissingDependencyError, match="stats"):
            judge([sample], AnalysisPlan(alpha=0.05), [1])
        (found,) = judge([sample], PLAN, [1])
    assert found.p_value == pytest.approx(stats.ttest_1samp([1 - math.sqrt(0.5), 1 + math.sqrt(0.5)], 0).pvalue)


# ------------------------------------------------------------------------------------------------- alignment, coverage


@pytest.mark.requirement("AD-012", "VR-036")
def test_unequal_coverage_is_refused(session: Session) -> None:
    """Strict plans say how many samples are where; overlap compares what both have; invalidated ones are left out and counted."""
    bench = Bench(session, 5)
    first, second = bench.run([1.0, 2.0, 3.0, None, 5.0]), bench.run([2.0, 3.0, None, 4.0, 7.0])
    with pytest.raises(CoverageError) as caught:
        comparisons.compare(session, first, second, plan=PLAN)
    assert (caught.value.matched, caught.value.only_baseline, caught.value.only_comparison) == (3, 1, 1)
    transcripts.invalidate(session, bench.transcript(second, 4), reason="a test")
    stored = comparisons.compare(session, first, second, plan=PLAN.replace(coverage="overlap"))
    coverage = stored.delta.coverage
    assert coverage is not None
    assert (coverage.matched, coverage.only_baseline, coverage.only_comparison, coverage.invalidated) == (2, 1, 1, 1)
    delta = stored.delta.metrics["overall"]
    assert (delta.n, delta.baseline, delta.comparison, delta.delta) == (2, 1.5, 2.5, 1.0)


@pytest.mark.requirement("VR-036", "AD-012")
def test_runs_of_forks_align_by_content(session: Session) -> None:
    """Scenarios of another version count as the same when they say the same; models and samples never mix."""
    bench = Bench(session, 3)
    first = bench.run({(0, "a", 0): 1.0, (0, "a", 1): 2.0, (0, "b", 0): 3.0, (2, "a", 0): 4.0})
    fork = definitions.fork(session, bench.definition.id, DefinitionFork(message="a test"))
    other = Bench.__new__(Bench)
    other.session, other.definition, other.cells = session, fork, {}
    prompts = ["Scenario 2?", "Scenario 0?"]
    items = [ScenarioCreate(name=prompt, content=ScenarioContent(prompt=prompt)) for prompt in prompts]
    other.scenarios = scenarios.create_many(session, fork.id, items)
    second = other.run({(0, "a", 0): 14.0, (1, "b", 0): 13.0, (1, "a", 1): 12.0, (1, "a", 0): 11.0})
    (cell,) = comparisons.pairwise(session, [first, second], plan=PLAN)
    assert (cell.coverage.matched, cell.delta.delta, cell.statistics.standard_error) == (4, 10.0, 0.0)
    assert (cell.statistics.verdict, cell.statistics.reason) == ("UNTESTED", "no variance")


@pytest.mark.requirement("VR-036")
def test_a_metric_is_a_score_or_else_of_the_transcript(session: Session) -> None:
    """Scores of several annotators are averaged; without a score the transcript's own metric counts."""
    bench = Bench(session, 2)
    first, second = bench.run([1.0, 2.0], metric=True), bench.run([3.0, 5.0], metric=True)
    (cell,) = comparisons.pairwise(session, [first, second], plan=PLAN)
    assert (cell.delta.baseline, cell.delta.comparison) == (1.5, 4.0)
    bench.judge((bench.transcript(second), judgement(value, annotator=str(value))) for value in (6.0, 8.0))
    (cell,) = comparisons.pairwise(session, [first, second], plan=PLAN)
    assert cell.delta.comparison == 6.0
    session.execute(text('UPDATE stemma.transcripts SET metrics = \'{"schema_version": 2, "values": {"overall": 1e400}}\''))
    session.execute(text("DELETE FROM stemma.scores"))
    (cell,) = comparisons.pairwise(session, [first, second], plan=PLAN)
    assert (cell.delta.n, cell.statistics.reason) == (0, "no pairs")


@pytest.mark.requirement("VR-036")
def test_a_matrix_is_one_statement(session: Session) -> None:
    """Ten runs are 45 pairs in one statement, in the order given, corrected as one family."""
    bench = Bench(session, 20)
    ids = [bench.run([float(value) for value in RANDOM.normal(n / 10, 1, 20)]) for n in range(10)]
    with assert_max_queries(1):
        cells = comparisons.pairwise(session, ids, plan=PLAN.replace(correction="holm"))
    assert [(cell.baseline_run_id, cell.comparison_run_id) for cell in cells] == list(itertools.combinations(ids, 2))
    raw = [cell.statistics.p_value for cell in cells]
    assert [cell.statistics.p_adjusted for cell in cells] == pytest.approx(list(multipletests(raw, method="holm")[1]))
    assert [cell.delta.p_value for cell in cells] == [cell.statistics.p_adjusted for cell in cells]


@pytest.mark.requirement("VR-036")
def test_large_runs_are_compared_by_sets(session: Session) -> None:
    """5,000 pairs are one statement, and the permutation test still repeats."""
    bench = Bench(session, 50)
    cells = [(n, MODEL, sample) for n, sample in itertools.product(range(50), range(100))]
    first = bench.run({cell: float(value) for cell, value in zip(cells, RANDOM.normal(0, 1, 5000), strict=True)}, metric=True)
    second = bench.run({cell: float(value) for cell, value in zip(cells, RANDOM.normal(0.1, 1, 5000), strict=True)}, metric=True)
    plan = AnalysisPlan(alpha=0.05, resamples=400)
    with assert_max_queries(2):
        (one,), (again,) = (comparisons.pairwise(session, [first, second], plan=plan) for _ in range(2))
    assert one == again
    assert (one.statistics.n, one.statistics.verdict) == (5000, "HIGHER")


# ------------------------------------------------------------------------------------------------------------- storing


@pytest.mark.requirement("VR-036", "VR-047", "AD-013")
def test_a_comparison_goes_stale_and_is_refreshed(session: Session) -> None:
    """What it was computed from changes, and it is stale; taken back, it is not; refreshed, it says what is so now."""
    bench = Bench(session, 6)
    first, second = bench.run(X[:6]), bench.run(Y[:6])
    with assert_max_queries(4):
        stored = comparisons.compare(session, first, second, plan=PLAN)
    assert (len(stored.plan_hash or b""), len(stored.input_hash or b""), stored.code_version is None) == (32, 32, False)
    with assert_max_queries(2):
        assert comparisons.is_stale(session, stored.id) is False
    transcripts.invalidate(session, bench.transcript(first), reason="a test")
    assert comparisons.is_stale(session, stored.id) is True
    transcripts.revalidate(session, bench.transcript(first))
    assert comparisons.is_stale(session, stored.id) is False
    before = stored.delta
    bench.judge([(bench.transcript(second), judgement(99.0))])
    assert comparisons.is_stale(session, stored.id) is True
    with pytest.raises(ValidationError, match="plan that is not stored"):
        comparisons.refresh(session, stored.id)
    fresh = comparisons.refresh(session, stored.id, plan=PLAN)
    assert fresh is stored
    assert fresh.delta != before
    assert comparisons.is_stale(session, stored.id) is False
    with pytest.raises(ConflictError):
        comparisons.compare(session, first, second, plan=PLAN)
    runs.delete(session, first)
    assert comparisons.find(session, stored.id) is None


@pytest.mark.requirement("AD-011", "AD-013", "VR-049")
def test_an_experiments_plan_counts(session: Session) -> None:
    """In an experiment its plan in force is applied and its hash stored; another is refused; an amendment makes the comparison stale."""
    first, second = pair(session, X, Y)
    experiment = experiments.create(session, ExperimentCreate(name="e", analysis_plan=PLAN))
    with pytest.raises(ValidationError, match="another plan in force"):
        comparisons.compare(session, first, second, experiment_id=experiment.id, plan=PLAN.replace(alpha=0.1))
    stored = comparisons.compare(session, first, second, experiment_id=experiment.id)
    assert stored.plan_hash == experiment.plan_hash
    assert comparisons.find_pair(session, first, second, experiment_id=experiment.id) is stored
    assert comparisons.find_pair(session, first, second) is None
    assert list(comparisons.list_for_experiment(session, experiment.id)) == [stored]
    assert comparisons.is_stale(session, stored.id) is False
    experiments.freeze_plan(session, experiment.id)
    experiments.amend_plan(session, experiment.id, PLAN.replace(test="wilcoxon"), reason="a test")
    assert comparisons.is_stale(session, stored.id) is True
    comparisons.refresh(session, stored.id)
    assert comparisons.is_stale(session, stored.id) is False
    assert "wilcoxon" in (stored.delta.summary or "")
    experiments.delete(session, experiment.id)
    assert comparisons.find(session, stored.id) is None


@pytest.mark.requirement("VR-036", "VR-047")
def test_what_was_computed_elsewhere_is_stored(session: Session) -> None:
    """Without a hash of the inputs nobody can tell whether it is stale; lists have either side, newest first."""
    bench = Bench(session, 1)
    a, b, c = (bench.run([1.0]) for _ in range(3))
    delta = RunDelta(metrics={"x": MetricDelta(delta=1.0)})
    first = comparisons.create(session, RunComparisonCreate(baseline_run_id=a, comparison_run_id=b, delta=delta, notes="by hand"))
    second = comparisons.create(session, RunComparisonCreate(baseline_run_id=c, comparison_run_id=a, delta=delta))
    assert (first.delta, first.notes, comparisons.is_stale(session, first.id)) == (delta, "by hand", None)
    page = comparisons.list_for_run(session, a, limit=1)
    assert [*page, *comparisons.list_for_run(session, a, cursor=page.next_cursor)] == [second, first]
    assert comparisons.get(session, first.id) is first
    comparisons.delete(session, first.id)
    for call in (comparisons.get, comparisons.is_stale, comparisons.refresh, comparisons.delete):
        with pytest.raises(NotFoundError):
            call(session, first.id)
    with pytest.raises(ValidationError, match="itself"):
        comparisons.create(session, RunComparisonCreate(baseline_run_id=a, comparison_run_id=a, delta=delta))
    with pytest.raises(ReferenceNotFoundError):
        comparisons.create(session, RunComparisonCreate(baseline_run_id=a, comparison_run_id=uuid.uuid4(), delta=delta))


@pytest.mark.requirement("VR-036", "VR-055")
def test_what_cannot_be_compared_is_refused(session: Session) -> None:
    """The same run, unknown runs, tests and corrections."""
    first, second = pair(session, [1.0], [2.0])
    for wrong in ([first], [first, first], []):
        with pytest.raises(ValidationError, match="different runs"):
            comparisons.pairwise(session, wrong)
    with pytest.raises(NotFoundError):
        comparisons.pairwise(session, [first, uuid.uuid4()])
    with pytest.raises(NotFoundError):
        comparisons.compare(session, first, second, experiment_id=uuid.uuid4())
    for change in ({"test": "magic"}, {"correction": "magic"}):
        with pytest.raises(ValidationError):
            comparisons.pairwise(session, [first, second], plan=PLAN.replace(**change))


@pytest.mark.requirement("VR-036", "AD-012")
def test_what_differs_is_told_before_any_number(session: Session) -> None:
    """Definition, scenarios and configuration by pointer; comparable are runs that cover the same samples."""
    bench = Bench(session, 3)
    first, second = bench.run([1.0, 2.0, 3.0]), bench.run([1.0, 2.0, 3.0])
    with assert_max_queries(1):
        report = comparisons.comparability(session, [first, second])
    assert (report.comparable, report.differences, report.scenarios.matched) == (True, [], 3)
    third = bench.run({(0, "other", 0): 1.0, (1, MODEL, 0): 1.0})
    transcripts.invalidate(session, bench.transcript(second), reason="a test")
    report = comparisons.comparability(session, [first, second, third])
    assert not report.comparable
    assert [each.pointer for each in report.differences] == ["/config/models", "/scenarios"]
    assert report.differences[0].values[first] == [MODEL]
    coverage = report.scenarios
    assert (coverage.matched, coverage.only_baseline, coverage.only_comparison, coverage.invalidated) == (1, 2, 1, 0)
    with pytest.raises(NotFoundError):
        comparisons.comparability(session, [first, uuid.uuid4()])


@pytest.mark.requirement("VR-036")
def test_no_plan_compares_each_with_each(session: Session) -> None:
    """Also before tables were analyzed: no join of the statement looks at pairs of rows only to throw them away."""
    bench = Bench(session, 60)
    ids = [bench.run({(n, MODEL, sample): float(n) for n in range(60) for sample in range(5)}, metric=metric) for metric in (True, False)]
    values = {"metric": "overall", "key": "overall", "count": 2, "with_differences": True}
    assert most_discarded(session, _PAIRS, run_ids=ids, **values) <= len(ids) ** 2


@pytest.mark.requirement("AD-027")
@pytest.mark.parametrize("name", ["pairwise", "compare", "summarize"])
async def test_numbers_are_found_off_the_loop(async_session: AsyncSession, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """While samples are drawn and distributions are read for a twin, the event loop goes on."""
    first, second = await async_session.run_sync(lambda session: pair(session, X, Y))
    loop, entered, went_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def waiting(work: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            loop.call_soon_threadsafe(entered.set)
            assert went_on.wait(60), "the loop stands still"
            return work(*args, **kwargs)

        return call

    async def beat() -> None:
        await entered.wait()
        went_on.set()

    monkeypatch.setattr(_paired_tests, "sign_flip_p", waiting(sign_flip_p))
    monkeypatch.setattr(_score_summary, "t_quantile", waiting(t_quantile))
    heart = asyncio.create_task(beat())
    match name:
        case "pairwise":
            assert await async_comparisons.pairwise(async_session, [first, second])
        case "compare":
            assert await async_comparisons.compare(async_session, first, second)
        case _:
            assert await async_scores.summarize(async_session, first, name="overall")
    await heart


@pytest.mark.requirement("AD-027")
async def test_the_twins_do_the_same(async_session: AsyncSession) -> None:
    """A run that is not there is not found through a twin either."""
    with pytest.raises(NotFoundError):
        await async_comparisons.pairwise(async_session, [uuid.uuid4(), uuid.uuid4()], plan=PLAN)
