"""The status of runs: what leads where, and who wins when several want to change it."""

import logging
from collections.abc import Callable
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session
from tests.evaluation.run_setups import MODEL, complete_all, expire_leases, failure, make_run, slots_of, success

from stemmadb.database import Database
from stemmadb.errors import FrozenError, InvalidTransitionError, StemmaError, ValidationError
from stemmadb.evaluation import runs, transcripts
from stemmadb.evaluation.documents import AnalysisPlan, RunProgress
from stemmadb.evaluation.entities import Experiment, Run, RunStatus
from stemmadb.testing import assert_max_queries, run_together

P, R, Z = RunStatus.PENDING, RunStatus.RUNNING, RunStatus.PAUSED
C, PART, F, X = RunStatus.COMPLETED, RunStatus.PARTIAL, RunStatus.FAILED, RunStatus.CANCELLED
ALLOWED = {P: {R, X, F}, R: {Z, C, PART, F, X}, Z: {R, X, F}, PART: {R}, F: {R}, C: set(), X: set()}
FINAL = {C, PART, F, X}
PATHS: dict[RunStatus, list[RunStatus]] = {P: [], R: [R], Z: [R, Z], C: [R, C], PART: [R, PART], F: [F], X: [X]}


def run_in(session: Session, status: RunStatus) -> Run:
    """Return a run without slots that stands so."""
    run = make_run(session, scenario_count=0, started=False)
    for step in PATHS[status]:
        runs.set_status(session, run.id, step)
    assert run.status == status
    return run


def status_of(db: Database, workspace: UUID, run_id: UUID) -> RunStatus:
    with db.session(workspace) as session:
        return runs.get(session, run_id).status


@pytest.mark.requirement("VR-074")
@pytest.mark.parametrize("wanted", list(RunStatus))
@pytest.mark.parametrize("current", list(RunStatus))
def test_transition_matrix(session: Session, current: RunStatus, wanted: RunStatus) -> None:
    """A status leads where the contract says, in one statement; the same status is no change; everything else is refused."""
    run = run_in(session, current)
    before = (run.started_at, run.completed_at)
    if wanted == current:
        assert runs.set_status(session, run.id, wanted) is run
        assert (run.status, run.started_at, run.completed_at) == (current, *before)
    elif wanted in ALLOWED[current]:
        with assert_max_queries(1):
            changed = runs.set_status(session, run.id, wanted)
        assert changed is run
        assert run.status == wanted
        assert (run.completed_at is not None) == (wanted in FINAL)
        assert run.started_at is not None or R not in (current, wanted)
    else:
        with pytest.raises(InvalidTransitionError) as caught:
            runs.set_status(session, run.id, wanted)
        assert (caught.value.current, caught.value.wanted) == (current, wanted)
        assert runs.get(session, run.id).status == current


def test_errors_are_kept_until_the_run_goes_on(session: Session) -> None:
    """A code and a message come with the failure and go with the retry."""
    run = run_in(session, R)
    runs.set_status(session, run.id, F, error_code="quota", error_message="The quota is used up.")
    assert (run.error_code, run.error_message) == ("quota", "The quota is used up.")
    started_at = run.started_at
    runs.resume(session, run.id)
    assert (run.status, run.error_code, run.error_message, run.completed_at) == (R, None, None, None)
    assert run.started_at == started_at


def test_a_status_that_does_not_exist_is_refused(session: Session) -> None:
    """A word that is no status is a ValidationError, before anything is sent; its text will do for one that is."""
    run = run_in(session, P)
    with assert_max_queries(0), pytest.raises(ValidationError):
        runs.set_status(session, run.id, "DONE")  # type: ignore[arg-type]
    assert runs.set_status(session, run.id, "RUNNING").status is R  # type: ignore[arg-type]


def test_status_changes_are_logged(session: Session, caplog: pytest.LogCaptureFixture) -> None:
    """Each change is an INFO with the run and its new status."""
    with caplog.at_level(logging.INFO, "stemmadb.evaluation.runs"):
        run = run_in(session, Z)
    assert [record.getMessage() for record in caplog.records][-2:] == [f"run {run.id} is RUNNING", f"run {run.id} is PAUSED"]


# ------------------------------------------------------------------------------------------------------- start, pause, resume


def test_start_plans_the_selected_scenarios(session: Session) -> None:
    """Starting plans scenarios x models x samples; with plan=False, or without a selection, nothing is planned."""
    run = make_run(session, scenario_count=2, models=("a", "b"), started=False, samples_per_scenario=3)
    assert runs.start(session, run.id) is run
    assert (run.status, run.slot_count, run.progress) == (R, 12, None)
    assert run.started_at is not None
    later = make_run(session, scenario_count=2, started=False)
    assert runs.start(session, later.id, plan=False).slot_count is None
    empty = make_run(session, scenario_count=0, started=False)
    assert runs.start(session, empty.id).slot_count is None


def test_start_refuses_what_was_planned_or_cannot_be(session: Session) -> None:
    """Planned slots, a run that has started and a configuration without models are refused, and the run stays as it is."""
    planned = make_run(session, started=False)
    runs.plan_slots(session, planned.id)
    with pytest.raises(FrozenError):
        runs.start(session, planned.id)
    assert runs.get(session, planned.id).status == P
    assert runs.start(session, planned.id, plan=False).status == R
    with pytest.raises(InvalidTransitionError):
        runs.start(session, planned.id, plan=False)
    nobody = make_run(session, models=(), started=False)
    with pytest.raises(ValidationError):
        runs.start(session, nobody.id)
    assert runs.get(session, nobody.id).status == P


def test_pause_and_resume(session: Session) -> None:
    """A paused run gives no slots and takes outcomes; doing either twice changes nothing."""
    run = make_run(session, scenario_count=3)
    (claim,) = runs.claim_slots(session, run.id, worker="w")
    assert runs.pause(session, run.id).status == runs.pause(session, run.id).status == Z
    assert not runs.claim_slots(session, run.id, worker="w")
    assert not runs.claim_slots(session, worker="w")
    assert runs.record_outcomes(session, [success(claim)])[0].result == "STORED"
    assert runs.finish(session, run.id) is None
    assert runs.resume(session, run.id).status == runs.resume(session, run.id).status == R
    assert len(runs.claim_slots(session, run.id, worker="w", count=9)) == 2
    waiting = make_run(session, started=False)
    with pytest.raises(InvalidTransitionError):
        runs.resume(session, waiting.id)
    with pytest.raises(InvalidTransitionError):
        runs.pause(session, waiting.id)


@pytest.mark.race
@pytest.mark.requirement("VR-074", "AD-005")
def test_one_of_sixteen_concurrent_starts_wins(committed_db: Database, committed_workspace: UUID) -> None:
    """Of sixteen callers that start a run at once one starts it and plans its slots, and fifteen are told."""
    with committed_db.session(committed_workspace) as session:
        run_id = make_run(session, scenario_count=10, started=False).id

    def start(_: int) -> int | None:
        with committed_db.session(committed_workspace) as session:
            return runs.start(session, run_id).slot_count

    outcomes = run_together(16, start)
    assert outcomes.count(10) == 1
    assert sum(isinstance(outcome, InvalidTransitionError) for outcome in outcomes) == 15
    with committed_db.session(committed_workspace) as session:
        assert len(slots_of(session, run_id)) == 10


@pytest.mark.race
def test_competing_changes_have_one_winner(committed_db: Database, committed_workspace: UUID) -> None:
    """Of callers that want a running run to end in different ways one wins, and the status is the winner's."""
    with committed_db.session(committed_workspace) as session:
        run_id = run_in(session, R).id
    wanted = [C, PART, X, F] * 3

    def change(number: int) -> RunStatus:
        with committed_db.session(committed_workspace) as session:
            return runs.set_status(session, run_id, wanted[number]).status

    outcomes = run_together(len(wanted), change)
    won = {outcome for outcome in outcomes if isinstance(outcome, RunStatus)}
    assert won == {status_of(committed_db, committed_workspace, run_id)}
    assert all(isinstance(outcome, RunStatus | InvalidTransitionError) for outcome in outcomes)


# ---------------------------------------------------------------------------------------------------------- the experiment


def planned_experiment(session: Session, **fields: object) -> Experiment:
    experiment = Experiment(name="E", analysis_plan=AnalysisPlan(alpha=0.05), **fields)
    session.add(experiment)
    session.flush()
    return experiment


def frozen_at(session: Session, experiment: Experiment) -> object:
    return session.execute(text("SELECT plan_frozen_at FROM stemma.experiments WHERE id = :id"), {"id": experiment.id}).scalar()


@pytest.mark.requirement("VR-074")
@pytest.mark.parametrize(
    "begin",
    [
        lambda session, run: runs.start(session, run.id),
        lambda session, run: runs.set_status(session, run.id, R),
        lambda session, run: runs.claim_next(session),
    ],
    ids=["start", "set_status", "claim_next"],
)
def test_the_first_start_freezes_the_plan(session: Session, begin: Callable[[Session, Run], Run]) -> None:
    """However a run of an experiment begins, its plan is frozen then, and once."""
    experiment = planned_experiment(session)
    first, second = (make_run(session, started=False) for _ in range(2))
    for run in (first, second):
        run.experiment_id = experiment.id
    session.flush()
    assert frozen_at(session, experiment) is None
    begin(session, first)
    assert (moment := frozen_at(session, experiment)) is not None
    begin(session, second)
    assert frozen_at(session, experiment) == moment
    assert second.status == R


def test_an_experiment_without_a_plan_is_left_alone(session: Session) -> None:
    """There is nothing to freeze, and the run starts."""
    experiment = Experiment(name="E")
    session.add(experiment)
    run = make_run(session, started=False)
    run.experiment_id = experiment.id
    assert runs.start(session, run.id).status == R
    assert frozen_at(session, experiment) is None


def test_a_refused_start_freezes_nothing(session: Session) -> None:
    """A run that cannot start leaves the plan of its experiment open."""
    experiment = planned_experiment(session)
    run = make_run(session, started=False, models=())
    run.experiment_id = experiment.id
    with pytest.raises(ValidationError):
        runs.start(session, run.id)
    assert frozen_at(session, experiment) is None


# ------------------------------------------------------------------------------------------------------------------ finish


@pytest.mark.requirement("AD-007")
@pytest.mark.parametrize(
    ("ends", "status"),
    [("ccc", C), ("ccs", C), ("sss", C), ("ccf", PART), ("sff", PART), ("fff", F), ("ccq", None), ("ccr", None), ("fffr", None)],
)
def test_finish_goes_by_the_slots(session: Session, ends: str, status: RunStatus | None) -> None:
    """Completed and skipped slots make COMPLETED, some failures PARTIAL, only failures FAILED; open slots leave the run as it is."""
    run = make_run(session, scenario_count=len(ends), max_attempts=1)
    claimed = len(ends) - ends.count("q") - ends.count("s")
    for claim in runs.claim_slots(session, run.id, worker="w", count=claimed) if claimed else []:
        end = next(letter for letter in ends if letter in "cfr")
        ends = ends.replace(end, "", 1)
        if end != "r":
            runs.record_outcomes(session, [success(claim) if end == "c" else failure(claim)])
    if "s" in ends:
        runs.skip_slots(session, run.id, reason="not wanted")
    finished = runs.finish(session, run.id)
    assert (finished and finished.status) == status
    assert runs.get(session, run.id).status == (status or R)
    assert runs.finish(session, run.id) is None


@pytest.mark.requirement("AD-007")
@pytest.mark.parametrize(("done", "status"), [((3, 3, 0), C), ((3, 2, 1), PART), ((3, 0, 3), F), ((3, 1, 1), None), ((0, 0, 0), None)])
def test_finish_goes_by_reported_progress(session: Session, done: tuple[int, int, int], status: RunStatus | None) -> None:
    """A run without slots is finished by what it reported, once everything is."""
    run = run_in(session, R)
    total, completed, failed = done
    runs.report_progress(session, run.id, RunProgress(total=total, completed=completed, failed=failed))
    finished = runs.finish(session, run.id)
    assert (finished and finished.status) == status


def test_finish_leaves_runs_that_do_not_run(session: Session) -> None:
    """A run that has not started, is paused or finished is not finished again."""
    for status in set(RunStatus) - {R}:
        run = run_in(session, status)
        assert runs.finish(session, run.id) is None
        assert run.status == status


@pytest.mark.race
@pytest.mark.requirement("AD-007")
def test_one_of_sixteen_concurrent_finishers_wins(committed_db: Database, committed_workspace: UUID) -> None:
    """Of sixteen workers that find nothing left at once, one finishes the run."""
    with committed_db.session(committed_workspace) as session:
        run_id = make_run(session, scenario_count=4).id
        complete_all(session, run_id)

    def finish(_: int) -> bool:
        with committed_db.session(committed_workspace) as session:
            return runs.finish(session, run_id) is not None

    assert sorted(run_together(16, finish)) == [False] * 15 + [True]
    assert status_of(committed_db, committed_workspace, run_id) == C


@pytest.mark.race
@pytest.mark.requirement("AD-007")
def test_the_last_two_workers_do_not_miss_each_other(committed_db: Database, committed_workspace: UUID) -> None:
    """Two workers that record the last two outcomes and finish in the same transaction leave a finished run, every time."""
    for _ in range(10):
        with committed_db.session(committed_workspace) as session:
            run_id = make_run(session, scenario_count=2).id
            claims = runs.claim_slots(session, run_id, worker="w", count=2)

        def work(number: int, run_id: UUID = run_id, claims: list = claims) -> bool:
            with committed_db.session(committed_workspace) as session:
                runs.record_outcomes(session, [success(claims[number])])
                return runs.finish(session, run_id) is not None

        assert sorted(run_together(2, work)) == [False, True]


@pytest.mark.race
def test_finish_and_retry_agree(committed_db: Database, committed_workspace: UUID) -> None:
    """A run is never finished while a retry has queued one of its slots."""
    for _ in range(10):
        with committed_db.session(committed_workspace) as session:
            run_id = make_run(session, scenario_count=2, max_attempts=1).id
            claims = runs.claim_slots(session, run_id, worker="w", count=2)
            runs.record_outcomes(session, [success(claims[0]), failure(claims[1])])

        def work(number: int, run_id: UUID = run_id) -> object:
            with committed_db.session(committed_workspace) as session:
                if number % 2:
                    return runs.retry_slots(session, run_id)
                return runs.finish(session, run_id)

        assert not [outcome for outcome in run_together(6, work) if isinstance(outcome, BaseException)]
        with committed_db.session(committed_workspace) as session:
            assert runs.get(session, run_id).status == R
            assert runs.progress(session, run_id).queued == 1


def test_completed_needs_every_slot_done(session: Session) -> None:
    """COMPLETED is refused by hand while a slot is open or failed, and allowed when all are completed or skipped."""
    run = make_run(session, scenario_count=2, max_attempts=1)
    (claim,) = runs.claim_slots(session, run.id, worker="w")
    runs.record_outcomes(session, [failure(claim)])
    with pytest.raises(InvalidTransitionError, match="neither COMPLETED nor SKIPPED"):
        runs.set_status(session, run.id, C)
    runs.retry_slots(session, run.id)
    runs.skip_slots(session, run.id, reason="enough")
    assert runs.set_status(session, run.id, C).status == C


# ------------------------------------------------------------------------------------------------------------------ cancel


def test_cancel_at_once_when_nothing_runs(session: Session) -> None:
    """A run without running slots is CANCELLED by the request; asking again changes nothing, and finished runs refuse."""
    for run in (make_run(session), make_run(session, started=False), run_in(session, Z), run_in(session, P)):
        assert runs.request_cancel(session, run.id).status == X
        assert run.cancel_requested_at is not None
        assert run.completed_at is not None
        assert runs.request_cancel(session, run.id) is run
    for status in (C, PART, F):
        with pytest.raises(InvalidTransitionError):
            runs.request_cancel(session, run_in(session, status).id)


@pytest.mark.parametrize("last", ["success", "failure", "release", "reconcile", "finish"])
def test_cancel_with_the_last_running_slot(session: Session, last: str) -> None:
    """With slots running, nothing is claimed any more, outcomes are kept, and the end of the last one cancels the run."""
    run = make_run(session, scenario_count=5)
    first, second = runs.claim_slots(session, run.id, worker="w", count=2)
    assert runs.request_cancel(session, run.id).status == R
    assert not runs.claim_slots(session, run.id, worker="w")
    assert not runs.claim_slots(session, worker="w")
    assert runs.record_outcomes(session, [success(first)])[0].result == "STORED"
    assert runs.get(session, run.id).status == R
    assert runs.finish(session, run.id) is None
    match last:
        case "success" | "finish":
            runs.record_outcomes(session, [success(second)])
        case "failure":
            runs.record_outcomes(session, [failure(second)])
        case "release":
            assert runs.release_slots(session, worker="w") == 1
        case "reconcile":
            expire_leases(session, run.id)
            assert runs.reconcile(session, run.id).finished
    assert runs.get(session, run.id).status == X
    assert runs.progress(session, run.id).completed == (2 if last in ("success", "finish") else 1)


@pytest.mark.race
def test_cancel_settles_under_concurrent_last_outcomes(committed_db: Database, committed_workspace: UUID) -> None:
    """Workers that deliver the last outcomes of a run that is to be cancelled at once leave it CANCELLED."""
    with committed_db.session(committed_workspace) as session:
        run_id = make_run(session, scenario_count=8).id
        claims = runs.claim_slots(session, run_id, worker="w", count=8)
        runs.request_cancel(session, run_id)

    def work(number: int) -> str:
        with committed_db.session(committed_workspace) as session:
            return runs.record_outcomes(session, [success(claims[number])])[0].result

    assert run_together(8, work) == ["STORED"] * 8
    assert status_of(committed_db, committed_workspace, run_id) == X


# -------------------------------------------------------------------------------------------------------------- claim_next


def test_claim_next_takes_the_oldest(committed_db: Database, committed_workspace: UUID) -> None:
    """Waiting runs are started oldest first, of the statuses asked for, and nothing is planned."""
    made = []
    for _ in range(3):
        with committed_db.session(committed_workspace) as session:
            made.append(make_run(session, started=False).id)
    with committed_db.session(committed_workspace) as session:
        runs.set_status(session, made[0], F)
        first, second = runs.claim_next(session), runs.claim_next(session)
        assert [first and first.id, second and second.id] == made[1:]
        assert first is not None
        assert (first.status, first.slot_count) == (R, None)
        assert runs.claim_next(session) is None
        again = runs.claim_next(session, statuses=[F, Z])
        assert again is not None
        assert (again.id, again.status, again.completed_at) == (made[0], R, None)
        for statuses in ([], [R], [P, C]):
            with assert_max_queries(0), pytest.raises(ValidationError):
                runs.claim_next(session, statuses=statuses)


@pytest.mark.race
def test_concurrent_claims_take_different_runs(committed_db: Database, committed_workspace: UUID) -> None:
    """Twelve callers over eight waiting runs get eight different runs, and four get none."""
    with committed_db.session(committed_workspace) as session:
        made = {make_run(session, started=False, scenario_count=0).id for _ in range(8)}

    def claim(_: int) -> UUID | None:
        with committed_db.session(committed_workspace) as session:
            run = runs.claim_next(session)
            return run.id if run else None

    outcomes = run_together(12, claim)
    assert not [outcome for outcome in outcomes if isinstance(outcome, StemmaError)]
    taken = [outcome for outcome in outcomes if outcome is not None]
    assert len(taken) == len(set(taken)) == 8
    assert set(taken) == made


# ----------------------------------------------------------------------------------------------------------------- reopening


@pytest.mark.requirement("AD-008")
def test_only_retry_reopens_a_completed_run(session: Session) -> None:
    """A COMPLETED run whose transcript was invalidated runs again by retry_slots, and by nothing else."""
    run = make_run(session, scenario_count=2, models=(MODEL,))
    complete_all(session, run.id)
    assert runs.finish(session, run.id) is run
    for reopen in (runs.resume, runs.start):
        with pytest.raises(InvalidTransitionError):
            reopen(session, run.id)
    assert runs.retry_slots(session, run.id) == 0
    assert run.status == C
    slot = slots_of(session, run.id)[0]
    transcripts.invalidate(session, slot.transcript_id, reason="the prompt was wrong")
    assert runs.retry_slots(session, run.id, include_invalidated=False) == 0
    assert runs.retry_slots(session, run.id) == 1
    assert (run.status, run.completed_at) == (R, None)
    complete_all(session, run.id)
    assert runs.finish(session, run.id) is run
    cancelled = run_in(session, X)
    with pytest.raises(InvalidTransitionError):
        runs.retry_slots(session, cancelled.id)
