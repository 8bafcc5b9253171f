"""Scores: one for each judgement, replaced explicitly, summed up without taking what is unknown for 0."""

import itertools
import math
import uuid
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from statsmodels.stats.inter_rater import cohens_kappa
from tests.evaluation.judged_runs import Bench, judgement, most_discarded
from tests.evaluation.run_setups import MODEL

from stemmadb.aio.evaluation import definitions as async_definitions
from stemmadb.aio.evaluation import runs as async_runs
from stemmadb.aio.evaluation import scores as async_scores
from stemmadb.aio.evaluation import transcripts as async_transcripts
from stemmadb.database import Database
from stemmadb.errors import ConflictError, InvalidCursorError, NotFoundError, ReferenceNotFoundError, ValidationError
from stemmadb.evaluation import scores, transcripts
from stemmadb.evaluation._distributions import beta_share, fair_tail, normal_tail, t_quantile, t_tail
from stemmadb.evaluation._score_summary import _AGREEMENT, _SUMMARY
from stemmadb.evaluation.data import DefinitionCreate, RunCreate, TranscriptCreate
from stemmadb.evaluation.documents import (
    DefinitionContent,
    Evidence,
    RubricContent,
    RubricValue,
    RunConfig,
    ScoreRationale,
    TranscriptContent,
)
from stemmadb.evaluation.entities import Rubric, Score
from stemmadb.evaluation.vocabularies import AnnotatorKind
from stemmadb.testing import assert_max_queries, make_workspace, run_together

NAN = float("nan")


def count(session: Session) -> int:
    return session.scalar(select(func.count()).select_from(Score)) or 0


def add_rubric(session: Session, *keys: str) -> Rubric:
    values = tuple(RubricValue(key=key, label=key) for key in keys)
    rubric = Rubric(name="A rubric", content=RubricContent(values=values))
    session.add(rubric)
    session.flush()
    return rubric


# ------------------------------------------------------------------------------------------------------------- recording


@pytest.mark.requirement("AD-009", "VR-078")
def test_record_stores_what_it_is_given(session: Session) -> None:
    """Everything that is given comes back; NaN stays NaN, and what is not given is None."""
    bench = Bench(session, 1)
    run = bench.run([None])
    rationale = ScoreRationale(text="because", evidence=(Evidence(turn=0, quote="Yes."),))
    with assert_max_queries(4):
        made = scores.record(
            session,
            bench.transcript(run),
            judgement(NAN, label="?", rationale=rationale, duration_ms=12, cost=Decimal("0.00000001"), cost_currency="EUR"),
        )
    found = scores.get(session, made.id)
    assert found is made
    assert math.isnan(found.value or 0)
    assert (found.label, found.rationale, found.duration_ms, found.cost) == ("?", rationale, 12, Decimal("0.00000001"))
    assert (found.annotator_user_id, found.rubric_id) == (None, None)
    assert scores.find(session, "no id") is None
    assert scores.find(session, uuid.uuid4()) is None


@pytest.mark.requirement("AD-009")
def test_judging_again_is_explicit(session: Session) -> None:
    """A second judgement of one annotator is refused, and the transaction goes on; "update" replaces all of the first one."""
    bench = Bench(session, 1)
    transcript_id = bench.transcript(bench.run([None]))
    first = scores.record(session, transcript_id, judgement(0.5, label="half"))
    with pytest.raises(ConflictError):
        scores.record(session, transcript_id, judgement(0.7))
    again = scores.record(session, transcript_id, judgement(0.7), on_conflict="update")
    assert (again.id, again.value, again.label) == (first.id, 0.7, None)
    scores.record(session, transcript_id, judgement(0.1, annotator="another"))
    scores.record(session, transcript_id, judgement(0.1, annotator_kind=AnnotatorKind.HUMAN))
    assert count(session) == 3


@pytest.mark.requirement("AD-009")
def test_a_name_is_a_value_of_its_rubric(session: Session) -> None:
    """With a rubric the name is the key of one of its values, or overall; nothing of a batch with another name is stored."""
    bench = Bench(session, 1)
    transcript_id = bench.transcript(bench.run([None]))
    rubric = add_rubric(session, "care", "a\x1ab")
    for name in ("care", "overall", "a\x1ab"):
        scores.record(session, transcript_id, judgement(1.0, name=name, rubric_id=rubric.id))
    items = [judgement(1.0, name=name, annotator="b", rubric_id=rubric.id) for name in ("care", "harm")]
    with pytest.raises(ValidationError, match="1 of the scores"):
        scores.record_many(session, [(transcript_id, item) for item in items])
    scores.record(session, transcript_id, judgement(1.0, name="harm"))
    assert count(session) == 4


@pytest.mark.requirement("AD-009")
def test_what_does_not_exist_is_refused(session: Session) -> None:
    """Unknown transcripts, rubrics and words are told apart, and the transaction goes on."""
    bench = Bench(session, 1)
    transcript_id = bench.transcript(bench.run([None]))
    with pytest.raises(ReferenceNotFoundError):
        scores.record(session, uuid.uuid4(), judgement(1.0))
    with pytest.raises(ReferenceNotFoundError):
        scores.record(session, transcript_id, judgement(1.0, rubric_id=uuid.uuid4()))
    for wrong in (lambda: scores.record(session, "no id", judgement(1.0)), lambda: judgement()):
        with pytest.raises(ValidationError):
            wrong()
    unknown: Any = "merge"
    with pytest.raises(ValidationError, match="on_conflict"):
        scores.record(session, transcript_id, judgement(1.0), on_conflict=unknown)
    with pytest.raises(ValidationError, match="on_conflict"):
        scores.record_many(session, [], on_conflict=unknown)
    with pytest.raises(NotFoundError):
        scores.delete(session, uuid.uuid4())
    assert count(session) == 0


@pytest.mark.requirement("AD-009")
def test_a_repeated_delivery_changes_nothing(session: Session) -> None:
    """2,500 scores are three statements; again they are all skipped, and no row is written; a change of one is one update."""
    bench = Bench(session, 50)
    run = bench.run({(n, MODEL, sample): None for n, sample in itertools.product(range(50), range(50))})
    items = [(transcript_id, judgement(number / 7)) for number, transcript_id in enumerate(bench.cells[run].values())]
    with assert_max_queries(5):
        report = scores.record_many(session, iter(items))
    assert (report.inserted, report.updated, report.skipped) == (2500, 0, 0)
    before = session.execute(select(func.max(Score.updated_at), func.count())).one()
    again = scores.record_many(session, items)
    assert (again.inserted, again.updated, again.skipped, again.ids) == (0, 0, 2500, report.ids)
    assert session.execute(select(func.max(Score.updated_at), func.count())).one() == before
    changed = scores.record_many(session, [(items[3][0], judgement(NAN)), items[4]])
    assert (changed.updated, changed.skipped, changed.ids) == (1, 1, report.ids[3:5])
    assert scores.record_many(session, [(items[3][0], judgement(NAN))]).skipped == 1
    kept = scores.record_many(session, [(items[3][0], judgement(9.0))], on_conflict="skip")
    assert (kept.skipped, kept.ids) == (1, report.ids[3:4])
    with pytest.raises(ConflictError):
        scores.record_many(session, items, on_conflict="error")
    assert scores.record_many(session, []).ids == []


@pytest.mark.requirement("AD-009")
def test_the_last_of_two_in_one_batch_stands(session: Session) -> None:
    """A judgement that stands there twice is stored and replaced in the order given."""
    bench = Bench(session, 1)
    transcript_id = bench.transcript(bench.run([None]))
    report = scores.record_many(session, [(transcript_id, judgement(1.0)), (transcript_id, judgement(2.0))])
    assert (report.inserted, report.updated, len(set(report.ids))) == (1, 1, 1)
    assert scores.get(session, report.ids[0]).value == 2.0


@pytest.mark.race
@pytest.mark.requirement("AD-009")
def test_ten_who_deliver_the_same_at_once_store_it_once(committed_db: Database) -> None:
    """Ten writers of the same hundred scores, in other orders, wait for each other; each score is inserted by exactly one of them."""
    workspace_id = make_workspace(committed_db, "race")
    with committed_db.session(workspace=workspace_id) as session:
        bench = Bench(session, 100)
        run = bench.run([None] * 100)
        items = [(transcript_id, judgement(1.0)) for transcript_id in bench.cells[run].values()]

    def deliver(number: int) -> int:
        with committed_db.session(workspace=workspace_id) as session:
            return scores.record_many(session, items if number % 2 else items[::-1]).inserted

    assert sum(run_together(10, deliver)) == 100
    with committed_db.session(workspace=workspace_id) as session:
        assert count(session) == 100


# --------------------------------------------------------------------------------------------------------------- reading


@pytest.mark.requirement("VR-078")
def test_lists_are_narrowed_and_paged(session: Session) -> None:
    """Scores come oldest first, those of invalidated transcripts only when asked for."""
    bench = Bench(session, 3)
    run = bench.run([0.1, 0.2, 0.3])
    bench.judge([(bench.transcript(run), judgement(1.0, name="care", annotator_kind=AnnotatorKind.HUMAN))])
    first = scores.list_for_run(session, run, limit=3)
    rest = scores.list_for_run(session, run, limit=3, cursor=first.next_cursor)
    assert [score.value for score in (*first, *rest)] == [0.1, 0.2, 0.3, 1.0]
    assert [score.value for score in scores.list_for_run(session, run, name="care")] == [1.0]
    assert len(scores.list_for_run(session, run, annotator_kind=AnnotatorKind.RULE)) == 3
    assert len(scores.list_for_run(session, run, rubric_id=uuid.uuid4())) == 0
    assert [score.value for score in scores.list_for_transcript(session, bench.transcript(run))] == [0.1, 1.0]
    transcripts.invalidate(session, bench.transcript(run), reason="a test")
    assert [score.value for score in scores.list_for_run(session, run)] == [0.2, 0.3]
    assert len(scores.list_for_run(session, run, include_invalidated=True)) == 4
    with pytest.raises(InvalidCursorError):
        scores.list_for_run(session, run, cursor="edited")
    scores.delete(session, rest[0].id)
    assert scores.find(session, rest[0].id) is None


# ------------------------------------------------------------------------------------------------------------- summaries


@pytest.mark.requirement("VR-078")
def test_a_summary_agrees_with_scipy_and_statsmodels(session: Session) -> None:
    """Mean, error, interval and clustered error are scipy's and statsmodels', in one statement."""
    random = np.random.default_rng(7)
    bench = Bench(session, 12)
    values = {(n, MODEL, sample): float(random.normal(n, 2)) for n, sample in itertools.product(range(12), range(4))}
    run = bench.run(values)
    with assert_max_queries(1):
        (summary,) = scores.summarize(session, run, name="overall")
    found = np.array(list(values.values()))
    low, high = stats.t.interval(0.95, len(found) - 1, found.mean(), stats.sem(found))
    fit = sm.OLS(found, np.ones(len(found))).fit(cov_type="cluster", cov_kwds={"groups": [n for n, _, _ in values]})
    expected = (found.mean(), stats.sem(found), low, high, fit.bse[0])
    assert (summary.mean, summary.standard_error, summary.low, summary.high, summary.clustered_error) == pytest.approx(expected, rel=1e-9)
    by_scenario = scores.summarize(session, run, name="overall", by="scenario")
    assert [each.n for each in by_scenario] == [4] * 12
    assert {each.scenario_id for each in by_scenario} == {scenario.id for scenario in bench.scenarios}
    for each in by_scenario:
        number = next(n for n, scenario in enumerate(bench.scenarios) if scenario.id == each.scenario_id)
        assert each.mean == pytest.approx(np.mean([values[number, MODEL, sample] for sample in range(4)]))


@pytest.mark.requirement("VR-078", "AD-009")
def test_what_has_no_number_is_counted_apart(session: Session) -> None:
    """NaN and infinities are judged without a number; labels alone and no score are missing; invalidated transcripts are not there."""
    bench = Bench(session, 8)
    run = bench.run([1.0, NAN, float("inf"), 1e300, None, None, 3.0, 99.0])
    bench.judge([(bench.transcript(run, 4), judgement(label="fine"))])
    bench.judge(
        [(bench.transcript(run, 0), judgement(2.0, annotator="second")), (bench.transcript(run, 6), judgement(NAN, annotator="second"))]
    )
    transcripts.invalidate(session, bench.transcript(run, 7), reason="a test")
    (summary,) = scores.summarize(session, run, name="overall")
    assert (summary.n, summary.mean, summary.nan, summary.missing) == (2, 2.25, 3, 2)
    (nobody,) = scores.summarize(session, run, name="nothing")
    assert (nobody.n, nobody.mean, nobody.standard_error, nobody.low, nobody.nan, nobody.missing) == (0, None, None, None, 0, 7)
    (people,) = scores.summarize(session, run, name="overall", annotator_kind=AnnotatorKind.HUMAN)
    assert (people.n, people.missing) == (0, 7)
    (rubric,) = scores.summarize(session, run, name="overall", rubric_id=uuid.uuid4())
    assert rubric.n == 0


@pytest.mark.parametrize(
    ("values", "n", "mean", "error", "clustered"),
    [([0.1], 1, 0.1, None, None), ([0.1] * 7, 7, 0.1, 0.0, 0.0), ([5e-324, 5e-324, 1e-320], 3, 0.0, 0.0, 0.0)],
)
def test_small_and_even_samples(
    session: Session, values: list[float], n: int, mean: float, error: float | None, clustered: float | None
) -> None:
    """One number has no error, equal numbers have none either, and the smallest numbers are no error of the database."""
    bench = Bench(session, len(values))
    (summary,) = scores.summarize(session, bench.run(values), name="overall")
    assert (summary.n, summary.standard_error, summary.clustered_error) == (n, error, clustered)
    assert summary.mean == pytest.approx(mean, abs=1e-300)


def test_a_run_without_transcripts_has_no_summaries(session: Session) -> None:
    """Nothing of an empty run, NotFoundError of no run."""
    run = Bench(session, 0).run([])
    assert scores.summarize(session, run, name="overall") == []
    assert scores.agreement(session, run, name="overall").pairs == []
    for function in (scores.summarize, scores.agreement):
        with pytest.raises(NotFoundError):
            function(session, uuid.uuid4(), name="overall")
    unknown: Any = "rubric"
    with pytest.raises(ValidationError, match="by is"):
        scores.summarize(session, run, name="overall", by=unknown)


# ------------------------------------------------------------------------------------------------------------- agreement


@pytest.mark.requirement("VR-078")
def test_agreement_is_that_of_the_published_tables(session: Session) -> None:
    """Kappa is statsmodels', and alpha that of Krippendorff's own example of nominal data with missing values: 0.743."""
    # Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), C: four observers, twelve units.
    table = {
        "A": [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
        "B": [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
        "C": [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
        "D": [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
    }
    bench = Bench(session, 12)
    run = bench.run([None] * 12)
    bench.judge(
        (bench.transcript(run, unit), judgement(annotator=observer, label=str(verdict)))
        for observer, verdicts in table.items()
        for unit, verdict in enumerate(verdicts)
        if verdict is not None
    )
    with assert_max_queries(1):
        found = scores.agreement(session, run, name="overall")
    assert found.alpha == pytest.approx(0.743, abs=5e-4)
    assert [(pair.a, pair.b) for pair in found.pairs] == [(f"RULE:{a}", f"RULE:{b}") for a, b in itertools.combinations("ABCD", 2)]
    for pair, (a, b) in zip(found.pairs, itertools.combinations("ABCD", 2), strict=True):
        both = [(x, y) for x, y in zip(table[a], table[b], strict=True) if x is not None and y is not None]
        cells = np.zeros((5, 5))
        for x, y in both:
            cells[x - 1, y - 1] += 1
        assert (pair.n, pair.equal) == (len(both), sum(x == y for x, y in both) / len(both))
        assert pair.kappa == pytest.approx(cohens_kappa(cells).kappa)


def test_agreement_of_those_who_always_say_the_same(session: Session) -> None:
    """Where chance alone explains all there is no kappa and no alpha, and no error."""
    bench = Bench(session, 3)
    run = bench.run([1.0, 1.0, 1.0])
    bench.judge((transcript_id, judgement(1.0, annotator="z")) for transcript_id in bench.cells[run].values())
    found = scores.agreement(session, run, name="overall")
    assert [(pair.n, pair.equal, pair.kappa) for pair in found.pairs] == [(3, 1.0, None)]
    assert found.alpha is None


@pytest.mark.requirement("VR-036")
def test_no_plan_compares_each_with_each(session: Session) -> None:
    """Also before tables were analyzed, and with a group for each scenario: the work grows with the scores, not with their square."""
    bench = Bench(session, 300)
    run_id = bench.run([float(n % 3) for n in range(300)])
    bench.judge((transcript_id, judgement(1.0, annotator="other")) for transcript_id in bench.cells[run_id].values())
    asked = {"run_id": run_id, "name": "overall", "rubric_id": None}
    assert most_discarded(session, _SUMMARY, **asked, annotator_kind=None, by_scenario=True) == 0
    # Of four pairs of annotators of a transcript one is counted.
    assert most_discarded(session, _AGREEMENT, **asked) <= 3 * 300


# --------------------------------------------------------------------------------------------------------- distributions


@pytest.mark.offline
@pytest.mark.property
@given(
    st.floats(0.5, 5e4), st.floats(0.5, 5e4), st.floats(0, 1), st.floats(-60, 60), st.floats(1, 1e5), st.integers(1, 2000), st.floats(0, 1)
)
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_distributions_agree_with_scipy(a: float, b: float, x: float, t: float, freedom: float, n: int, share: float) -> None:
    """The tails that tests are read from are scipy's."""
    assert beta_share(a, b, x) == pytest.approx(stats.beta.cdf(x, a, b), rel=1e-6, abs=1e-9)
    assert t_tail(t, freedom) == pytest.approx(stats.t.sf(t, freedom), rel=1e-6, abs=1e-12)
    assert normal_tail(t) == pytest.approx(stats.norm.sf(t), rel=1e-9)
    heads = int(share * n)
    assert fair_tail(heads, n) == pytest.approx(stats.binom.sf(heads - 1, n, 0.5), rel=1e-6, abs=1e-12)
    assert t_quantile(0.975, freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-7)


# ----------------------------------------------------------------------------------------------------------------- twins


@pytest.mark.requirement("AD-027")
async def test_the_twins_do_the_same(async_session: AsyncSession) -> None:
    """What is recorded through a twin is read through another."""
    content = DefinitionContent(preamble="", template="")
    definition = await async_definitions.create(async_session, DefinitionCreate(name="A", content=content))
    run = await async_runs.create(async_session, RunCreate(definition_id=definition.id, config=RunConfig(models=(MODEL,))))
    transcript = await async_transcripts.add(async_session, run.id, TranscriptCreate(model=MODEL, content=TranscriptContent(turns=())))
    made = await async_scores.record(async_session, transcript.id, judgement(0.5))
    (summary,) = await async_scores.summarize(async_session, run.id, name="overall")
    assert (summary.mean, (await async_scores.get(async_session, made.id)).value) == (0.5, 0.5)
