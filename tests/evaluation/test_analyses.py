"""Analyses: versions that stay, hashes of what they were computed from, and a cache by them."""

import uuid
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from tests.evaluation.judged_runs import Bench, judgement

from stemmadb.aio.evaluation import analyses as async_analyses
from stemmadb.database import Database
from stemmadb.errors import NotFoundError, ReferenceNotFoundError, StillReferencedError, UnknownSchemaVersionError, ValidationError
from stemmadb.evaluation import analyses, cohorts, rubrics, runs, scores, transcripts
from stemmadb.evaluation.data import CohortCreate, CohortUpdate
from stemmadb.evaluation.documents import AnalysisOutput, CohortCriteria, RubricContent, RubricValue, TranscriptMetrics
from stemmadb.testing import assert_max_queries, make_workspace, run_together

OUTPUT = AnalysisOutput(summary={"n": 1})


@pytest.mark.requirement("VR-037", "VR-046")
def test_versions_count_up_and_stay(session: Session) -> None:
    """Saving twice gives versions 1 and 2 of one type, rubric and cohort; each keeps its output, and deleting the run takes them along."""
    bench = Bench(session, 1)
    run = bench.run([1.0])
    rubric = rubrics.create_version(session, "r", RubricContent(values=(RubricValue(key="k", label="K"),)))
    cohort = cohorts.create(session, CohortCreate(name="c"))
    with assert_max_queries(4):
        first = analyses.save(session, run, "basic", OUTPUT, code_version="1")
    second = analyses.save(session, run, "basic", AnalysisOutput(summary={"n": 2}))
    other = analyses.save(session, run, "basic", OUTPUT, rubric_id=rubric.id, cohort_id=cohort.id)
    assert [each.version for each in (first, second, other)] == [1, 2, 1]
    assert analyses.save(session, run, "another", OUTPUT).version == 1
    assert analyses.get_latest(session, run, "basic") is second
    assert analyses.find_latest(session, run, "basic", rubric_id=rubric.id, cohort_id=cohort.id) is other
    assert analyses.find_latest(session, run, "basic", rubric_id=rubric.id) is None
    assert analyses.get_version(session, run, "basic", 1) is first
    assert analyses.get_output(session, second.id).summary == {"n": 2}
    assert [(each.analysis_type, each.version) for each in analyses.list_versions(session, run)] == [
        ("another", 1),
        ("basic", 2),
        ("basic", 1),
        ("basic", 1),
    ]
    assert len(analyses.list_versions(session, run, "another")) == 1
    with pytest.raises(StillReferencedError):
        cohorts.delete(session, cohort.id)
        session.execute(text("SET CONSTRAINTS ALL IMMEDIATE"))
    runs.delete(session, run)
    assert analyses.find(session, first.id) is None


@pytest.mark.requirement("VR-037", "AD-013")
def test_staleness_follows_every_input(session: Session) -> None:
    """Invalidated and taken back, judged again, measured anew: stale exactly while an input is another one."""
    bench = Bench(session, 2)
    run = bench.run([1.0, 2.0])
    saved = analyses.save(session, run, "basic", OUTPUT)
    with assert_max_queries(2):
        assert not analyses.is_stale(session, saved.id)
    transcripts.invalidate(session, bench.transcript(run), reason="a test")
    assert analyses.is_stale(session, saved.id)
    transcripts.revalidate(session, bench.transcript(run))
    assert not analyses.is_stale(session, saved.id)
    transcripts.set_metrics(session, bench.transcript(run), TranscriptMetrics(values={"x": 1.0}))
    assert analyses.is_stale(session, saved.id)
    transcripts.set_metrics(session, bench.transcript(run), TranscriptMetrics())
    assert not analyses.is_stale(session, saved.id)
    scores.record(session, bench.transcript(run), judgement(1.0), on_conflict="update")
    assert not analyses.is_stale(session, saved.id)
    scores.record(session, bench.transcript(run), judgement(1.5), on_conflict="update")
    assert analyses.is_stale(session, saved.id)


@pytest.mark.requirement("VR-037", "VR-040")
def test_rubrics_cohorts_and_parameters_are_inputs(session: Session) -> None:
    """Another rubric, cohort, criteria or parameter is another hash; scores by other rubrics do not count."""
    bench = Bench(session, 2)
    run = bench.run([1.0, 2.0])
    rubric = rubrics.create_version(session, "r", RubricContent(values=(RubricValue(key="k", label="K"),)))
    cohort = cohorts.create(session, CohortCreate(name="c", criteria=CohortCriteria(models=("nobody",))))
    plain = analyses.input_hash(session, run)
    found = {
        plain,
        analyses.input_hash(session, run, rubric_id=rubric.id),
        analyses.input_hash(session, run, cohort_id=cohort.id),
        analyses.input_hash(session, run, parameters={"a": 1}),
        analyses.input_hash(session, run, parameters={"a": 2}),
    }
    assert {len(each) for each in found} == {32}
    assert len(found) == 5
    assert analyses.input_hash(session, run, parameters={"b": 1, "a": 2}) == analyses.input_hash(session, run, parameters={"a": 2, "b": 1})
    saved = analyses.save(session, run, "basic", OUTPUT, rubric_id=rubric.id, cohort_id=cohort.id)
    scores.record(session, bench.transcript(run), judgement(9.0, name="other"))
    assert not analyses.is_stale(session, saved.id)
    cohorts.update(session, cohort.id, CohortUpdate(criteria=CohortCriteria()))
    assert analyses.is_stale(session, saved.id)


@pytest.mark.requirement("VR-037")
def test_a_result_is_found_by_its_inputs(session: Session) -> None:
    """The newest result of the same inputs, type and code is the cache."""
    run = Bench(session, 1).run([1.0])
    key = analyses.input_hash(session, run)
    assert analyses.find_cached(session, key, analysis_type="basic") is None
    analyses.save(session, run, "basic", OUTPUT, input_hash=key, code_version="1")
    newest = analyses.save(session, run, "basic", OUTPUT, input_hash=key, code_version="2")
    assert analyses.find_cached(session, key, analysis_type="basic") is newest
    cached = analyses.find_cached(session, key, analysis_type="basic", code_version="1")
    assert cached is not None
    assert cached.version == 1
    assert analyses.find_cached(session, key, analysis_type="other") is None
    with pytest.raises(ValidationError, match="32 bytes"):
        analyses.find_cached(session, b"short", analysis_type="basic")


def test_what_is_not_there_is_refused(session: Session) -> None:
    """Unknown runs, rubrics and cohorts, malformed types, and outputs of newer releases."""
    run = Bench(session, 1).run([1.0])
    unknown = uuid.uuid4()
    for call in (
        lambda: analyses.get(session, unknown),
        lambda: analyses.get(session, "no id"),
        lambda: analyses.get_output(session, unknown),
        lambda: analyses.is_stale(session, unknown),
        lambda: analyses.delete(session, unknown),
        lambda: analyses.get_latest(session, run, "basic"),
        lambda: analyses.get_version(session, run, "basic", 0),
        lambda: analyses.input_hash(session, unknown),
        lambda: analyses.input_hash(session, run, rubric_id=unknown),
        lambda: analyses.input_hash(session, run, cohort_id=unknown),
    ):
        with pytest.raises(NotFoundError):
            call()
    for arguments in ({}, {"rubric_id": unknown}, {"cohort_id": unknown}):
        with pytest.raises(ReferenceNotFoundError):
            analyses.save(session, run if arguments else unknown, "basic", OUTPUT, **arguments)
    for name in ("", "Basic", "a\0"):
        with pytest.raises(ValidationError):
            analyses.save(session, run, name, OUTPUT)
    wrong: Any = {"a": object()}
    with pytest.raises(ValidationError, match="JSON"):
        analyses.input_hash(session, run, parameters=wrong)
    saved = analyses.save(session, run, "basic", OUTPUT)
    session.execute(text("UPDATE stemma.analysis_results SET output = '{\"schema_version\": 99}' WHERE id = :id"), {"id": saved.id})
    with pytest.raises(UnknownSchemaVersionError):
        analyses.get_output(session, saved.id)
    analyses.delete(session, saved.id)
    assert analyses.find(session, saved.id) is None


@pytest.mark.race
@pytest.mark.requirement("VR-037")
def test_of_four_at_once_each_has_a_number(committed_db: Database) -> None:
    """Four who save at once get the versions 1 to 4."""
    workspace_id = make_workspace(committed_db, "race")
    with committed_db.session(workspace=workspace_id) as session:
        run = Bench(session, 1).run([1.0])

    def save(_: int) -> int:
        with committed_db.session(workspace=workspace_id) as session:
            return analyses.save(session, run, "basic", OUTPUT).version

    assert sorted(run_together(4, save)) == [1, 2, 3, 4]  # type: ignore[type-var]


@pytest.mark.requirement("AD-027")
async def test_the_twins_do_the_same(async_session: AsyncSession) -> None:
    """What is not there is not found through a twin either."""
    assert await async_analyses.find(async_session, uuid.uuid4()) is None
    assert await async_analyses.find_latest(async_session, uuid.uuid4(), "basic") is None
