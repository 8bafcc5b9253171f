"""
The status of runs. Import these functions from ``stemmadb.evaluation.runs``.

Every change is one UPDATE that names the statuses it starts from: of callers that compete, the first to lock the row changes it, and the
others, who waited for the lock, no longer find what they asked for.
"""

from collections.abc import Collection, Mapping
from typing import Any, Final
from uuid import UUID

from sqlalchemy.orm import Session

from stemmadb.entity import Id
from stemmadb.errors import InvalidTransitionError, ValidationError
from stemmadb.evaluation._run_plan import plan_selected
from stemmadb.evaluation._run_rows import get_run, key_of, lock_run, log
from stemmadb.evaluation.entities import Run
from stemmadb.evaluation.vocabularies import RunStatus
from stemmadb.query import sql, tenant_query

_NEXT: Final[Mapping[RunStatus, frozenset[RunStatus]]] = {
    RunStatus.PENDING: frozenset({RunStatus.RUNNING, RunStatus.CANCELLED, RunStatus.FAILED}),
    RunStatus.RUNNING: frozenset({RunStatus.PAUSED, RunStatus.COMPLETED, RunStatus.PARTIAL, RunStatus.FAILED, RunStatus.CANCELLED}),
    RunStatus.PAUSED: frozenset({RunStatus.RUNNING, RunStatus.CANCELLED, RunStatus.FAILED}),
    RunStatus.PARTIAL: frozenset({RunStatus.RUNNING}),
    RunStatus.FAILED: frozenset({RunStatus.RUNNING}),
    RunStatus.COMPLETED: frozenset(),
    RunStatus.CANCELLED: frozenset(),
}
_TRIES: Final = 10
"""How often a run that changes its experiment is tried to be started."""
_FINAL: Final = frozenset({RunStatus.COMPLETED, RunStatus.PARTIAL, RunStatus.FAILED, RunStatus.CANCELLED})

# The first run that starts freezes the plan of its experiment. The sub-select makes that happen before the run is locked: an experiment is
# locked before its runs. It is locked also without a plan, so that who stores one then sees the run as started; and what FOR NO KEY UPDATE
# returns is the plan as it is after waiting, not as it was when the statement began.
_FREEZE_PLAN: Final = """, held AS MATERIALIZED (
        SELECT experiments.id, experiments.plan_frozen_at IS NULL AND experiments.analysis_plan IS NOT NULL AS is_due
          FROM starting
          JOIN stemma.experiments ON experiments.workspace_id = :workspace_id AND experiments.id = starting.experiment_id
         WHERE experiments.plan_frozen_at IS NULL
           FOR NO KEY UPDATE OF experiments
    ), plan AS (
        UPDATE stemma.experiments
           SET plan_frozen_at = statement_timestamp()
          FROM held
         WHERE experiments.workspace_id = :workspace_id AND experiments.id = held.id AND held.is_due
        RETURNING experiments.id
    )"""
_TO_RUNNING: Final = """
    UPDATE stemma.runs
       SET status = 'RUNNING', started_at = coalesce(runs.started_at, statement_timestamp()), completed_at = NULL,
           error_code = NULL, error_message = NULL"""

_RUN: Final = sql(
    Run,
    f"""
    WITH starting AS MATERIALIZED (
        SELECT runs.id, runs.experiment_id
          FROM stemma.runs
         WHERE runs.workspace_id = :workspace_id AND runs.id = :id AND runs.status = 'PENDING'
    ){_FREEZE_PLAN}{_TO_RUNNING}
     WHERE runs.workspace_id = :workspace_id AND runs.id = :id AND runs.status = ANY(:sources)
       AND (SELECT count(*) FROM plan) >= 0
       AND (runs.status <> 'PENDING' OR runs.experiment_id IS NOT DISTINCT FROM (SELECT starting.experiment_id FROM starting))
    RETURNING {{columns}}
    """,  # noqa: S608  (of constants only)
)

# A run may have been started by a statement that began after this one and was waited for, hence greatest().
_STOP: Final = sql(
    Run,
    """
    UPDATE stemma.runs
       SET status = :status,
           completed_at = CASE WHEN :is_final THEN greatest(runs.started_at, statement_timestamp()) END,
           error_code = coalesce(CAST(:error_code AS text), runs.error_code),
           error_message = coalesce(CAST(:error_message AS text), runs.error_message)
     WHERE runs.workspace_id = :workspace_id AND runs.id = :id AND runs.status = ANY(:sources)
       AND (:slots = 'any' OR runs.slot_count IS NULL OR :slots = 'done' AND runs.slot_count = (
               SELECT count(*) FROM stemma.run_slots
                WHERE run_slots.workspace_id = :workspace_id AND run_slots.run_id = :id AND run_slots.status IN ('COMPLETED', 'SKIPPED')))
    RETURNING {columns}
    """,
)


@tenant_query
def set_status(session: Session, run_id: Id, status: RunStatus, *, error_code: str | None = None, error_message: str | None = None) -> Run:
    """
    Change the status of a run.

    PENDING leads to RUNNING, CANCELLED and FAILED; RUNNING to PAUSED, COMPLETED, PARTIAL, FAILED and CANCELLED; PAUSED to RUNNING,
    CANCELLED and FAILED; PARTIAL and FAILED to RUNNING, a retry; COMPLETED and CANCELLED to nothing. One compare-and-swap UPDATE, which
    sets started_at and completed_at; COMPLETED on a run with slots then locks the run and counts them. No slot is planned or requeued.

    Args:
        session: the caller's session, in a workspace.
        run_id: which run.
        status: the wanted status. The one that the run has already is no change and no error.
        error_code: why it failed, in a word; None keeps what is there. RUNNING removes both.
        error_message: the same in a sentence.

    Raises:
        InvalidTransitionError: the status does not lead there, or COMPLETED is wanted while a slot is neither COMPLETED nor SKIPPED.
        NotFoundError: no run of this workspace has this id.
        ValidationError: not a status.
    """
    key = key_of(run_id)
    wanted = _status(status)
    sources = [source for source, following in _NEXT.items() if wanted in following]
    run = _change(session, key, wanted, sources, error_code, error_message)
    if run is not None:
        return run
    run = get_run(session, key)
    if run.status != wanted:
        raise _refused(run, wanted)
    return run


@tenant_query
def start(session: Session, run_id: Id, *, plan: bool = True) -> Run:
    """
    Start a run: PENDING becomes RUNNING. Of concurrent callers one wins.

    The first run that starts freezes the plan of its experiment. Locks the experiment, then the run.

    Args:
        session: the caller's session, in a workspace.
        run_id: which run.
        plan: whether the slots of the selected scenarios are planned; a run that selected none plans none and reports its progress.

    Raises:
        FrozenError: the slots were planned before: start it with ``plan=False``.
        InvalidTransitionError: the run is not PENDING.
        NotFoundError: no run of this workspace has this id.
        ValidationError: there are scenarios, and the configuration names no model.
    """
    key = key_of(run_id)
    with session.begin_nested():
        run = _change(session, key, RunStatus.RUNNING, [RunStatus.PENDING])
        if run is None:
            raise _refused(get_run(session, key), RunStatus.RUNNING)
        return plan_selected(session, run) if plan else run


@tenant_query
def pause(session: Session, run_id: Id) -> Run:
    """
    Pause a run: RUNNING becomes PAUSED. No slot of it is claimed; what is claimed already may be worked off. A paused run stays as it is.

    Raises:
        InvalidTransitionError: the run is neither RUNNING nor PAUSED.
        NotFoundError: no run of this workspace has this id.
    """
    return _to(session, run_id, RunStatus.PAUSED, [RunStatus.RUNNING])


@tenant_query
def resume(session: Session, run_id: Id) -> Run:
    """
    Let a run go on: PAUSED, PARTIAL or FAILED becomes RUNNING. A running one stays as it is.

    No slot is requeued: ``retry_slots`` does that.

    Raises:
        InvalidTransitionError: the run is PENDING, COMPLETED or CANCELLED.
        NotFoundError: no run of this workspace has this id.
    """
    return _to(session, run_id, RunStatus.RUNNING, [RunStatus.PAUSED, RunStatus.PARTIAL, RunStatus.FAILED])


# Two statements: a slot that was running while the first one waited for the run's lock is seen by the second.
_REQUEST_CANCEL: Final = sql(
    Run,
    """
    UPDATE stemma.runs
       SET cancel_requested_at = coalesce(runs.cancel_requested_at, statement_timestamp())
     WHERE runs.workspace_id = :workspace_id AND runs.id = :id AND runs.status IN ('PENDING', 'RUNNING', 'PAUSED')
    RETURNING {columns}
    """,
)
_CANCEL: Final = sql(
    Run,
    """
    UPDATE stemma.runs
       SET status = 'CANCELLED', completed_at = greatest(runs.started_at, statement_timestamp())
     WHERE runs.workspace_id = :workspace_id AND runs.id = :id
       AND runs.cancel_requested_at IS NOT NULL AND runs.status IN ('PENDING', 'RUNNING', 'PAUSED')
       AND NOT EXISTS (SELECT FROM stemma.run_slots
                        WHERE run_slots.workspace_id = :workspace_id AND run_slots.run_id = :id AND run_slots.status = 'RUNNING')
    RETURNING {columns}
    """,
)


@tenant_query
def request_cancel(session: Session, run_id: Id) -> Run:
    """
    Ask for the end of a run: no slot of it is claimed any more.

    It is CANCELLED at once when no slot is running, else with the outcome of the last one; outcomes of slots that are running are stored. A
    claim that is under way at the same moment may still be worked off. Two statements; locks the run. A cancelled run stays as it is.

    Raises:
        InvalidTransitionError: the run is COMPLETED, PARTIAL or FAILED.
        NotFoundError: no run of this workspace has this id.
    """
    key = key_of(run_id)
    with session.begin_nested():
        run = _REQUEST_CANCEL.write(session, id=key)
        if run is None:
            run = get_run(session, key)
            if run.status != RunStatus.CANCELLED:
                raise _refused(run, RunStatus.CANCELLED)
            return run
        log.info("run %s: cancel requested", key)
        return _cancel(session, key) or run


def settle_cancelled(session: Session, keys: Collection[UUID]) -> None:
    """Cancel those of the runs whose cancelling was requested and of which no slot is running any more. Locks them, by id."""
    for key in sorted(keys):
        lock_run(session, key)
        _cancel(session, key)


def _cancel(session: Session, key: UUID) -> Run | None:
    run = _CANCEL.write(session, id=key)
    if run is not None:
        log.info("run %s is CANCELLED", key)
    return run


# Everything is decided by the database's own count; FAILED only when nothing else came out.
_FINISH: Final = sql(
    Run,
    """
    UPDATE stemma.runs
       SET status = CASE WHEN slot.failed = 0 THEN 'COMPLETED' WHEN slot.failed = runs.slot_count THEN 'FAILED' ELSE 'PARTIAL' END,
           completed_at = greatest(runs.started_at, statement_timestamp())
      FROM (SELECT count(*) FILTER (WHERE run_slots.status IN ('QUEUED', 'RUNNING')) AS unfinished,
                   count(*) FILTER (WHERE run_slots.status = 'FAILED') AS failed
              FROM stemma.run_slots
             WHERE run_slots.workspace_id = :workspace_id AND run_slots.run_id = :id) AS slot
     WHERE runs.workspace_id = :workspace_id AND runs.id = :id AND runs.status = 'RUNNING' AND slot.unfinished = 0
    RETURNING {columns}
    """,
)


@tenant_query
def finish(session: Session, run_id: Id) -> Run | None:
    """
    Finish a run if nothing is left to do.

    All slots COMPLETED or SKIPPED make it COMPLETED, all FAILED make it FAILED, and some FAILED make it PARTIAL. Without slots the
    reported progress decides likewise, once completed and failed add up to a total above 0. A run whose cancelling was requested becomes
    CANCELLED as soon as no slot is running.

    Locks the run until the transaction ends, also when it is not finished: of two workers that each record one of the last two outcomes and
    finish in the same transaction, the second sees the first one's outcome. Two statements.

    Returns:
        The run, for the one caller that finished it; None for everybody else, while a slot is QUEUED or RUNNING, and for a run that is not
        RUNNING.

    Raises:
        NotFoundError: no run of this workspace has this id.
    """
    key = key_of(run_id)
    with session.begin_nested():
        run = lock_run(session, key)
        if run.cancel_requested_at is not None:
            return _cancel(session, key)
        if run.status != RunStatus.RUNNING:
            return None
        if run.slot_count is None:
            return _finish_reported(session, run)
        finished = _FINISH.write(session, id=key)
    if finished is not None:
        log.info("run %s: RUNNING -> %s", key, finished.status)
    return finished


def _finish_reported(session: Session, run: Run) -> Run | None:
    done = run.progress
    if done is None or done.total == 0 or done.pending > 0:
        return None
    status = RunStatus.COMPLETED if done.failed == 0 else RunStatus.FAILED if done.completed == 0 else RunStatus.PARTIAL
    return _change(session, run.id, status, [RunStatus.RUNNING])


# Materialised, so that the run is chosen once, whatever plan the UPDATE gets.
_CLAIM_NEXT: Final = sql(
    Run,
    f"""
    WITH starting AS MATERIALIZED (
        SELECT runs.id, runs.experiment_id
          FROM stemma.runs
         WHERE runs.workspace_id = :workspace_id AND runs.status = ANY(:statuses) AND runs.cancel_requested_at IS NULL
         ORDER BY runs.created_at, runs.id
         LIMIT 1
           FOR NO KEY UPDATE SKIP LOCKED
    ){_FREEZE_PLAN}{_TO_RUNNING}
      FROM starting
     WHERE runs.workspace_id = :workspace_id AND runs.id = starting.id
    RETURNING {{columns}}
    """,  # noqa: S608  (of constants only)
)


@tenant_query
def claim_next(session: Session, *, statuses: Collection[RunStatus] = (RunStatus.PENDING,)) -> Run | None:
    """
    Start the oldest run that nobody else is starting. Plans no slots.

    One statement; runs that others have locked are passed over (SKIP LOCKED), so callers do not wait for each other.

    Args:
        session: the caller's session, in a workspace.
        statuses: which runs: those from which RUNNING follows, PENDING, PAUSED, PARTIAL, FAILED.

    Returns:
        The run, RUNNING; None when there is none.

    Raises:
        ValidationError: none, or another status was given; nothing was sent.
    """
    wanted = [_status(status) for status in statuses]
    if not wanted or any(RunStatus.RUNNING not in _NEXT[status] for status in wanted):
        raise ValidationError("statuses takes PENDING, PAUSED, PARTIAL and FAILED, at least one of them", "statuses")
    run = _CLAIM_NEXT.write(session, statuses=[str(status) for status in wanted])
    if run is not None:
        log.info("run %s is RUNNING, claimed", run.id)
    return run


def _to(session: Session, run_id: Id, wanted: RunStatus, sources: Collection[RunStatus]) -> Run:
    """Change the status from one of these; the wanted one is no change."""
    key = key_of(run_id)
    run = _change(session, key, wanted, sources) or get_run(session, key)
    if run.status != wanted:
        raise _refused(run, wanted)
    return run


def _change(
    session: Session,
    key: UUID,
    wanted: RunStatus,
    sources: Collection[RunStatus],
    error_code: str | None = None,
    error_message: str | None = None,
) -> Run | None:
    """Compare and swap. None when the run has another status than these, or slots that stand against it, or does not exist."""
    given: dict[str, Any] = {"id": key, "sources": [str(source) for source in sources]}
    if wanted is RunStatus.RUNNING:
        run = _run(session, given)
    else:
        given |= {"status": str(wanted), "is_final": wanted in _FINAL, "error_code": error_code, "error_message": error_message}
        run = _STOP.write(session, **given, slots="none" if wanted is RunStatus.COMPLETED else "any")
        if run is None and wanted is RunStatus.COMPLETED:
            # The slots are counted by a statement that begins with the lock in hand, else one that a retry requeues would be missed.
            lock_run(session, key)
            run = _STOP.write(session, **given, slots="done")
    if run is not None:
        log.info("run %s is %s", key, wanted)
    return run


def _run(session: Session, given: dict[str, Any]) -> Run | None:
    for _ in range(_TRIES):
        with session.begin_nested() as savepoint:
            run = _RUN.write(session, **given)
            if run is not None:
                return run
            # Somebody else took the run between this statement's snapshot and its lock: the plan stays as it was.
            savepoint.rollback()
        if get_run(session, given["id"]).status not in given["sources"]:
            break
        # It came into another experiment meanwhile, whose plan was not looked at.
    return None


def _refused(run: Run, wanted: RunStatus) -> InvalidTransitionError:
    name = f"Run {run.id}"
    if wanted in _NEXT.get(run.status, ()):
        name += ", which has slots that are neither COMPLETED nor SKIPPED," if wanted is RunStatus.COMPLETED else ""
    return InvalidTransitionError(run.status, wanted, name)


def _status(value: RunStatus) -> RunStatus:
    try:
        return RunStatus(value)
    except ValueError:
        raise ValidationError(f"status is one of {', '.join(RunStatus)}", "status") from None
