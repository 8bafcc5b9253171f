"""Experiments: a plan that is fixed before results are seen."""

import queue
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from tests.evaluation.run_setups import make_run

from stemmadb.aio.evaluation import experiments as async_experiments
from stemmadb.database import Database
from stemmadb.errors import (
    ConflictError,
    FrozenError,
    InvalidTransitionError,
    NotFoundError,
    UnknownSchemaVersionError,
    ValidationError,
    VersionConflictError,
)
from stemmadb.evaluation import experiments, runs
from stemmadb.evaluation.data import ExperimentCreate, ExperimentUpdate
from stemmadb.evaluation.documents import AnalysisPlan
from stemmadb.evaluation.entities import Experiment
from stemmadb.evaluation.vocabularies import ExperimentStatus
from stemmadb.testing import assert_max_queries, make_workspace, run_together

PLAN = AnalysisPlan(alpha=0.05)
STRICTER = AnalysisPlan(alpha=0.01, test="paired_t")


def make(session: Session, name: str = "e", plan: AnalysisPlan | None = PLAN) -> Experiment:
    return experiments.create(session, ExperimentCreate(name=name, hypothesis="shorter is better", analysis_plan=plan))


@pytest.mark.requirement("VR-035")
def test_an_experiment_is_read_as_it_was_made(session: Session) -> None:
    """What is given comes back; it begins as a draft, with the hash of its plan."""
    made = make(session)
    assert experiments.get(session, made.id) is made
    assert (made.status, made.hypothesis, made.analysis_plan, made.plan_frozen_at) == ("DRAFT", "shorter is better", PLAN, None)
    assert len(made.plan_hash or b"") == 32
    assert make(session, plan=None).plan_hash is None
    assert experiments.find(session, "no id") is None
    for call in (experiments.get, experiments.get_with_runs, experiments.freeze_plan, experiments.plan_in_force, experiments.archive):
        with pytest.raises(NotFoundError):
            call(session, uuid.uuid4())


@pytest.mark.requirement("AD-011", "VR-035")
def test_the_first_run_that_starts_freezes_the_plan(session: Session) -> None:
    """Before it the plan can be changed and taken away; after it only amended, also by raw SQL."""
    made = make(session)
    run = make_run(session, started=False)
    experiments.add_run(session, made.id, run.id)
    assert experiments.update(session, made.id, ExperimentUpdate(analysis_plan=None)).analysis_plan is None
    changed = experiments.update(session, made.id, ExperimentUpdate(analysis_plan=STRICTER))
    assert (changed.analysis_plan, changed.plan_frozen_at) == (STRICTER, None)
    with pytest.raises(ConflictError, match="not frozen"):
        experiments.amend_plan(session, made.id, PLAN, reason="too early")
    runs.start(session, run.id)
    frozen = experiments.get(session, made.id)
    assert frozen.plan_frozen_at is not None
    with pytest.raises(FrozenError, match="amend"):
        experiments.update(session, made.id, ExperimentUpdate(analysis_plan=PLAN))
    with pytest.raises(Exception, match="frozen"), session.begin_nested():
        session.execute(text("UPDATE stemma.experiments SET analysis_plan = NULL, plan_frozen_at = NULL WHERE id = :id"), {"id": made.id})
    assert experiments.update(session, made.id, ExperimentUpdate(description="what")).description == "what"
    assert experiments.freeze_plan(session, made.id).plan_frozen_at == frozen.plan_frozen_at


@pytest.mark.requirement("AD-011")
def test_amendments_are_on_record(session: Session) -> None:
    """Each has the next number and a reason, the latest is in force, and none ever changes."""
    made = make(session)
    assert experiments.plan_in_force(session, make(session, plan=None).id) is None
    assert experiments.plan_in_force(session, made.id) == PLAN
    experiments.freeze_plan(session, made.id)
    with assert_max_queries(4):
        first = experiments.amend_plan(session, made.id, STRICTER, reason="a reviewer asked")
    second = experiments.amend_plan(session, made.id, PLAN, reason="back again")
    assert [(each.sequence, each.reason, each.plan) for each in (first, second)] == [
        (1, "a reviewer asked", STRICTER),
        (2, "back again", PLAN),
    ]
    with assert_max_queries(1):
        assert experiments.plan_in_force(session, made.id) == PLAN
    assert experiments.get(session, made.id).analysis_plan == PLAN
    page = experiments.list_amendments(session, made.id, limit=1)
    assert [*page, *experiments.list_amendments(session, made.id, cursor=page.next_cursor)] == [first, second]
    with pytest.raises(ValidationError, match="reason"):
        experiments.amend_plan(session, made.id, PLAN, reason=" ")
    with pytest.raises(Exception, match="amendments never change"), session.begin_nested():
        session.execute(text("UPDATE stemma.experiment_amendments SET reason = 'x'"))


@pytest.mark.requirement("AD-011")
def test_a_plan_that_has_seen_results_is_frozen_at_once(session: Session) -> None:
    """A run that has started freezes the plan as it joins, and a plan that comes after it is frozen as it is stored."""
    early, late = make(session), make(session, plan=None)
    experiments.add_run(session, early.id, make_run(session, scenario_count=0).id)
    assert experiments.get(session, early.id).plan_frozen_at is not None
    experiments.add_run(session, late.id, make_run(session, scenario_count=0).id)
    with pytest.raises(ValidationError, match="no analysis plan"):
        experiments.freeze_plan(session, late.id)
    assert experiments.update(session, late.id, ExperimentUpdate(analysis_plan=PLAN)).plan_frozen_at is not None


@pytest.mark.requirement("VR-049", "VR-035")
def test_runs_come_and_go(session: Session) -> None:
    """A run is in one experiment at a time; deleting an experiment leaves its runs."""
    first, second = make(session), make(session)
    older, newer = (make_run(session, scenario_count=0, started=False) for _ in range(2))
    for run in (older, newer, newer):
        assert experiments.add_run(session, first.id, run.id).experiment_id == first.id
    with assert_max_queries(2):
        found = experiments.get_with_runs(session, first.id)
    assert (found.experiment, found.runs) == (first, [newer, older])
    with pytest.raises(ConflictError, match="another experiment"):
        experiments.add_run(session, second.id, newer.id)
    for experiment_id, run_id in ((uuid.uuid4(), newer.id), (second.id, uuid.uuid4())):
        with pytest.raises(NotFoundError):
            experiments.add_run(session, experiment_id, run_id)
    assert experiments.remove_run(session, newer.id).experiment_id is None
    with pytest.raises(NotFoundError):
        experiments.remove_run(session, uuid.uuid4())
    experiments.delete(session, first.id)
    assert experiments.find(session, first.id) is None
    assert runs.get(session, older.id).experiment_id is None
    with pytest.raises(NotFoundError):
        experiments.delete(session, first.id)


@pytest.mark.requirement("VR-035")
def test_an_experiment_ends(session: Session) -> None:
    """It is concluded once, with words, and archived any number of times; what is concluded does not become active again."""
    made = make(session)
    assert experiments.update(session, made.id, ExperimentUpdate(status=ExperimentStatus.ACTIVE)).status == "ACTIVE"
    with pytest.raises(ValidationError, match="conclude"):
        ExperimentUpdate(status=ExperimentStatus.COMPLETED)
    with pytest.raises(ValidationError):
        experiments.conclude(session, made.id, " ")
    done = experiments.conclude(session, made.id, "it is")
    assert (done.status, done.conclusion, done.concluded_at is None) == ("COMPLETED", "it is", False)
    for call in (
        lambda: experiments.conclude(session, made.id, "it is not"),
        lambda: experiments.update(session, made.id, ExperimentUpdate(status=ExperimentStatus.DRAFT)),
    ):
        with pytest.raises(InvalidTransitionError):
            call()
    assert experiments.archive(session, made.id).status == experiments.archive(session, made.id).status == "ARCHIVED"
    assert done.conclusion == "it is"


def test_a_change_is_guarded_by_the_version(session: Session) -> None:
    """Of two who read the same version the second is told; a plan of a newer release is never overwritten."""
    made = make(session)
    experiments.update(session, made.id, ExperimentUpdate(name="f"), expected_version=1)
    with pytest.raises(VersionConflictError):
        experiments.update(session, made.id, ExperimentUpdate(name="g"), expected_version=1)
    with pytest.raises(ValidationError, match="cannot be removed"):
        ExperimentUpdate(name=None)
    session.execute(text("UPDATE stemma.experiments SET analysis_plan = '{\"schema_version\": 99}' WHERE id = :id"), {"id": made.id})
    with pytest.raises(UnknownSchemaVersionError):
        experiments.update(session, made.id, ExperimentUpdate(analysis_plan=PLAN))
    with pytest.raises(UnknownSchemaVersionError):
        experiments.plan_in_force(session, made.id)


def test_lists_are_narrowed(session: Session) -> None:
    """By status and by a part of the name, newest first; signs of patterns are themselves."""
    made = [make(session, name) for name in ("a_b", "axb", "100 %")]
    experiments.archive(session, made[0].id)
    assert [each.name for each in experiments.list_all(session)] == ["100 %", "axb", "a_b"]
    assert [each.name for each in experiments.list_all(session, name_contains="a_b")] == ["a_b"]
    assert [each.name for each in experiments.list_all(session, statuses=[ExperimentStatus.DRAFT], limit=1)] == ["100 %"]
    unknown: Any = ["OPEN"]
    with pytest.raises(ValidationError):
        experiments.list_all(session, statuses=unknown)


@pytest.mark.race
@pytest.mark.requirement("AD-011")
def test_of_eight_amendments_at_once_each_has_a_number(committed_db: Database) -> None:
    """Eight who amend at once wait for each other: the numbers are 1 to 8."""
    workspace_id = make_workspace(committed_db, "race")
    with committed_db.session(workspace=workspace_id) as session:
        key = experiments.freeze_plan(session, make(session).id).id

    def amend(number: int) -> int:
        with committed_db.session(workspace=workspace_id) as session:
            return experiments.amend_plan(session, key, PLAN, reason=f"{number}").sequence

    assert sorted(run_together(8, amend)) == list(range(1, 9))  # type: ignore[type-var]


def _waits(db: Database, pid: int) -> bool:
    with db.session(workspace=None) as session:
        return bool(session.execute(text("SELECT cardinality(pg_blocking_pids(:pid)) > 0"), {"pid": pid}).scalar_one())


Step = Callable[[Session, uuid.UUID, uuid.UUID], object]


def _give_plan(session: Session, experiment_id: uuid.UUID, run_id: uuid.UUID) -> object:
    return experiments.update(session, experiment_id, ExperimentUpdate(analysis_plan=STRICTER))


def _start(session: Session, experiment_id: uuid.UUID, run_id: uuid.UUID) -> object:
    return runs.start(session, run_id, plan=False)


def _claim(session: Session, experiment_id: uuid.UUID, run_id: uuid.UUID) -> object:
    return runs.claim_next(session)


def _add(session: Session, experiment_id: uuid.UUID, run_id: uuid.UUID) -> object:
    return experiments.add_run(session, experiment_id, run_id)


@pytest.mark.race
@pytest.mark.requirement("AD-011")
@pytest.mark.parametrize(
    ("first", "second", "plan", "is_member"),
    [
        (_give_plan, _start, None, True),
        (_start, _give_plan, None, True),
        (_give_plan, _claim, None, True),
        (_claim, _give_plan, None, True),
        (_give_plan, _start, PLAN, True),
        (_add, _start, PLAN, False),
        (_start, _add, PLAN, False),
    ],
)
def test_no_run_starts_past_a_plan(committed_db: Database, first: Step, second: Step, plan: AnalysisPlan | None, is_member: bool) -> None:
    """Whoever comes second waits for the first to commit: with a run that has started and a plan, the plan is frozen."""
    workspace_id = make_workspace(committed_db, "race")
    with committed_db.session(workspace=workspace_id) as session:
        key, run_id = make(session, plan=plan).id, make_run(session, started=False).id
        if is_member:
            experiments.add_run(session, key, run_id)
    pids: queue.Queue[int] = queue.Queue()

    def come_second() -> None:
        with committed_db.session(workspace=workspace_id) as session:
            pids.put(session.execute(text("SELECT pg_backend_pid()")).scalar_one())
            second(session, key, run_id)

    with ThreadPoolExecutor() as pool:
        with committed_db.session(workspace=workspace_id) as session:
            first(session, key, run_id)
            coming = pool.submit(come_second)
            pid = pids.get(timeout=60)
            while not _waits(committed_db, pid):
                assert not coming.done(), coming.result()
        coming.result(timeout=60)
    with committed_db.session(workspace=workspace_id) as session:
        run, experiment = runs.get(session, run_id), experiments.get(session, key)
    assert (run.status, run.experiment_id, experiment.plan_frozen_at is None) == ("RUNNING", key, False)
    assert experiment.analysis_plan == (PLAN if second is _add or first is _add else STRICTER)


@pytest.mark.requirement("AD-027")
async def test_the_twins_do_the_same(async_session: AsyncSession) -> None:
    """What is stored through a twin is read through another."""
    made = await async_experiments.create(async_session, ExperimentCreate(name="e", analysis_plan=PLAN))
    await async_experiments.freeze_plan(async_session, made.id)
    assert await async_experiments.plan_in_force(async_session, made.id) == PLAN
