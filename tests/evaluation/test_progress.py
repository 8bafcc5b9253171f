"""How far runs are: counted from slots, or as they report it."""

import json
import re
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.engine import Engine
from sqlalchemy.orm import Session
from tests.evaluation.run_setups import complete_all, failure, make_run, success
from tests.golden.shapes import read_examples

from stemmadb.database import Database
from stemmadb.documents import set_write_version
from stemmadb.errors import InvalidTransitionError, NotFoundError, ProgressDerivedError, UnknownSchemaVersionError, ValidationError
from stemmadb.evaluation import _run_progress, runs
from stemmadb.evaluation.documents import RunProgress
from stemmadb.evaluation.entities import RunStatus
from stemmadb.testing import assert_max_queries, run_together


def reporting_run(session: Session, total: int = 0, **fields: int) -> UUID:
    """Return the id of a running run without slots."""
    run = make_run(session, scenario_count=0)
    runs.report_progress(session, run.id, RunProgress(total=total, **fields))
    return run.id


# ----------------------------------------------------------------------------------------------------------------- counted


@pytest.mark.requirement("VR-075")
def test_progress_is_counted_from_the_slots(session: Session) -> None:
    """Every slot is in one of the counts, in one statement, and percent is what is done of the total."""
    run = make_run(session, scenario_count=10, max_attempts=1)
    claims = runs.claim_slots(session, run.id, worker="w", count=6)
    runs.record_outcomes(session, [*map(success, claims[:3]), failure(claims[3])])
    runs.skip_slots(session, run.id, scenario_ids=[runs.missing_slots(session, run.id)[-1].scenario_id], reason="not wanted")
    with assert_max_queries(1):
        report = runs.progress(session, run.id)
    counts = (report.total, report.completed, report.failed, report.skipped, report.running, report.queued)
    assert counts[:3] == (10, 3, 1)
    assert sum(counts[1:]) == 10
    assert (report.running, report.queued + report.skipped) == (2, 4)
    assert report.source == "slots"
    assert report.percent == 10.0 * (4 + report.skipped)


def test_pace_and_expected_end(committed_db: Database, committed_workspace: UUID) -> None:
    """Four outcomes in ten minutes are 0.4 a minute, and six open slots take fifteen minutes more; a finished run expects nothing."""
    with committed_db.session(committed_workspace) as session:
        run_id = make_run(session, scenario_count=10).id
        assert runs.progress(session, run_id).per_minute is None
        claims = runs.claim_slots(session, run_id, worker="w", count=5)
        runs.record_outcomes(session, [success(claim) for claim in claims[:4]])
        session.execute(
            text("UPDATE stemma.runs SET started_at = statement_timestamp() - interval '10 minutes' WHERE id = :id"), {"id": run_id}
        )
        report = runs.progress(session, run_id)
        assert report.per_minute == pytest.approx(0.4, rel=0.01)
        assert report.eta is not None
        assert report.eta - datetime.now(UTC) == pytest.approx(timedelta(minutes=15), abs=timedelta(seconds=20))
        runs.pause(session, run_id)
        assert runs.progress(session, run_id).eta is None
        runs.resume(session, run_id)
        runs.record_outcomes(session, [success(claims[4])])
        complete_all(session, run_id)
        runs.finish(session, run_id)
        done = runs.progress(session, run_id)
        assert (done.percent, done.eta) == (100, None)
        assert done.per_minute == pytest.approx(1, rel=0.02)


@pytest.mark.requirement("VR-075")
def test_progress_reads_an_index_alone(committed_db: Database, committed_workspace: UUID, owner: Engine) -> None:
    """The slots are counted by an index-only scan, among the slots of other runs, inside the workspace's policy."""
    with committed_db.session(committed_workspace) as session:
        made = [make_run(session, scenario_count=100, models=("a", "b", "c")).id for _ in range(5)]
    with owner.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE stemma.run_slots"))
    with committed_db.session(committed_workspace) as session:
        explained = text(f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) {_run_progress._PROGRESS.text.text}")
        given = {"workspace_id": committed_workspace, "run_ids": [made[2]]}
        plan = "\n".join(row[0] for row in session.execute(explained, given))
    assert "Index Only Scan using run_slots_run_id_status_available_at_idx" in plan
    assert re.search(r"Heap Fetches: 0", plan)
    assert "Seq Scan on run_slots" not in plan


def test_progress_of_many_runs_is_one_statement(session: Session) -> None:
    """A page of runs costs one statement, whatever their kind; unknown and malformed ids are left out."""
    planned, reporting = make_run(session, scenario_count=3).id, reporting_run(session, total=4, completed=1)
    with assert_max_queries(1):
        found = runs.progress_many(session, [planned, str(reporting), uuid4(), "nonsense", planned])
    assert {key: (report.source, report.total) for key, report in found.items()} == {planned: ("slots", 3), reporting: ("reported", 4)}
    assert found[planned] == runs.progress(session, planned)
    with assert_max_queries(0):
        assert runs.progress_many(session, []) == {}


# ---------------------------------------------------------------------------------------------------------------- reported


@pytest.mark.requirement("VR-054", "VR-075")
@pytest.mark.parametrize("written", [1, 2])
def test_an_increment_in_sql_is_one_in_python(session: Session, written: int) -> None:
    """On every progress that was ever stored, at every version that is written: the same counts, the same unknown keys."""
    run_id = reporting_run(session)
    stored = [example.stored for version in range(3) for example in read_examples("RunProgress", version)]
    # What a step down has left, and what releases of version 1 made of it.
    stored += [{"schema_version": 1, "total": 5, "completed": 1, "failed": 0, "skipped": skipped} for skipped in (2, 9, -1, 2.5, "2", None)]
    stored += [{"total": 3, "completed": 3, "failed": 0, "skipped": 2}, {"schema_version": 1, "total": 4, "skipped": 10**30}]
    put = text("UPDATE stemma.runs SET progress = CAST(:raw AS jsonb) WHERE id = :id")
    tried = 0
    set_write_version(RunProgress, written)
    try:
        for raw in stored:
            before = RunProgress.load(raw)
            if before.total >= 2**62:
                # No row can hold it.
                continue
            session.execute(put, {"raw": json.dumps(raw), "id": run_id})
            session.expunge_all()
            if before.pending == 0:
                with pytest.raises(ValidationError):
                    runs.increment_progress(session, run_id, completed=1)
                continue
            after = runs.increment_progress(session, run_id, completed=1)
            tried += 1
            in_database = session.execute(text("SELECT progress FROM stemma.runs WHERE id = :id"), {"id": run_id}).scalar()
            assert in_database == before.replace(completed=before.completed + 1).dump()
            assert after.progress == before.replace(completed=before.completed + 1)
    finally:
        set_write_version(RunProgress, None)
    assert tried > 20


@pytest.mark.requirement("VR-075", "VR-054")
def test_report_and_increment(session: Session) -> None:
    """A report replaces what was there; an increment adds to it, in one statement each; unknown keys stay."""
    run_id = reporting_run(session)
    with assert_max_queries(1):
        reported = RunProgress.load({"schema_version": 1, "total": 10, "completed": 2, "stage": "warm-up"})
        run = runs.report_progress(session, run_id, reported)
    assert run.progress is not None
    assert (run.progress.total, run.progress.completed) == (10, 2)
    with assert_max_queries(1):
        assert runs.increment_progress(session, run_id, completed=3, failed=1) is run
    expected = {"schema_version": 2, "total": 10, "completed": 5, "failed": 1, "skipped": 0, "stage": "warm-up"}
    assert run.progress.model_dump() == expected
    report = runs.progress(session, run_id)
    assert (report.source, report.completed, report.failed, report.queued, report.percent) == ("reported", 5, 1, 4, 60)
    assert runs.increment_progress(session, run_id, skipped=3) is run
    report = runs.progress(session, run_id)
    assert (report.skipped, report.queued, report.percent) == (3, 1, 90)


@pytest.mark.requirement("VR-075")
def test_increments_stay_within_the_total(session: Session) -> None:
    """Beyond the total, and below zero, is refused, and the progress stays as it is."""
    run_id = reporting_run(session, total=3, completed=2)
    for given in ({"completed": 2}, {"completed": 1, "failed": 1}, {"skipped": 2}, {"completed": -1}, {"failed": 2**63}, {"skipped": -1}):
        with pytest.raises(ValidationError):
            runs.increment_progress(session, run_id, **given)
    assert runs.progress(session, run_id).completed == 2
    with pytest.raises(NotFoundError):
        runs.increment_progress(session, uuid4(), completed=1)


@pytest.mark.requirement("VR-075")
def test_a_run_with_slots_takes_no_reports(session: Session) -> None:
    """What is counted cannot be reported."""
    run = make_run(session)
    with pytest.raises(ProgressDerivedError):
        runs.report_progress(session, run.id, RunProgress(total=2))
    with pytest.raises(ProgressDerivedError):
        runs.increment_progress(session, run.id, completed=1)


@pytest.mark.requirement("VR-075")
def test_a_finished_run_takes_no_reports(session: Session) -> None:
    """A worker that reports to a run which was cancelled meanwhile is told so."""
    run_id = reporting_run(session, total=2)
    runs.request_cancel(session, run_id)
    for report in (lambda: runs.report_progress(session, run_id, RunProgress()), lambda: runs.increment_progress(session, run_id)):
        with pytest.raises(InvalidTransitionError) as caught:
            report()
        assert caught.value.current == RunStatus.CANCELLED


def test_progress_of_version_0_is_read_and_raised(session: Session) -> None:
    """Counts may be absent in what was stored before there were versions; an increment writes them all, at the newest version."""
    run_id = reporting_run(session, total=1)
    session.execute(text("UPDATE stemma.runs SET progress = '{\"total\": 2}' WHERE id = :id"), {"id": run_id})
    session.expunge_all()
    assert runs.progress(session, run_id).queued == 2
    runs.increment_progress(session, run_id, failed=1)
    stored = session.execute(text("SELECT progress FROM stemma.runs WHERE id = :id"), {"id": run_id}).scalar()
    assert stored == {"schema_version": 2, "total": 2, "completed": 0, "failed": 1, "skipped": 0}
    assert RunProgress.newest_version == 2, "increment_progress writes versions 1 and 2 in SQL: teach it the new one"


def test_progress_of_a_newer_release_is_not_overwritten(session: Session) -> None:
    """A progress that this release does not know is neither replaced nor added to; reading it names the run."""
    run_id = reporting_run(session, total=1)
    session.execute(text('UPDATE stemma.runs SET progress = \'{"schema_version": 3, "total": 5}\' WHERE id = :id'), {"id": run_id})
    session.expunge_all()
    calls = [
        lambda: runs.report_progress(session, run_id, RunProgress()),
        lambda: runs.increment_progress(session, run_id, completed=1),
        lambda: runs.progress(session, run_id),
    ]
    for call in calls:
        with pytest.raises(UnknownSchemaVersionError) as caught:
            call()
    assert caught.value.key == run_id
    assert session.execute(text("SELECT progress->>'total' FROM stemma.runs WHERE id = :id"), {"id": run_id}).scalar() == "5"


@pytest.mark.race
@pytest.mark.requirement("VR-075")
def test_no_increment_is_lost(committed_db: Database, committed_workspace: UUID) -> None:
    """Eight threads that each add one a hundred times make eight hundred."""
    with committed_db.session(committed_workspace) as session:
        run_id = reporting_run(session, total=800)

    def work(number: int) -> None:
        for n in range(100):
            with committed_db.session(committed_workspace) as session:
                failed = int((number + n) % 4 == 0)
                runs.increment_progress(session, run_id, completed=1 - failed, failed=failed)

    assert run_together(8, work) == [None] * 8
    with committed_db.session(committed_workspace) as session:
        report = runs.progress(session, run_id)
    assert (report.completed, report.failed, report.percent) == (600, 200, 100)


@pytest.mark.race
def test_concurrent_increments_stop_at_the_total(committed_db: Database, committed_workspace: UUID) -> None:
    """Of twenty increments of a total of twelve, twelve are kept and eight are told."""
    with committed_db.session(committed_workspace) as session:
        run_id = reporting_run(session, total=12)

    def work(_: int) -> None:
        with committed_db.session(committed_workspace) as session:
            runs.increment_progress(session, run_id, completed=1)

    outcomes = run_together(20, work)
    assert outcomes.count(None) == 12
    assert sum(isinstance(outcome, ValidationError) for outcome in outcomes) == 8
