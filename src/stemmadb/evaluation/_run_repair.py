"""
What is done about slots that will not, did not or should not have ended as they stand. Import these functions from
``stemmadb.evaluation.runs``.
"""

import logging
from collections.abc import Collection, Sequence
from typing import Final

from sqlalchemy.orm import Session

from stemmadb.entity import Id, parse_reference
from stemmadb.errors import InvalidTransitionError, ValidationError
from stemmadb.evaluation._run_rows import get_run, key_of, key_of_row, lock_run, log
from stemmadb.evaluation._run_status import finish
from stemmadb.evaluation._slot_statements import INSERT_KEY, KEY, UPDATE, key_in
from stemmadb.evaluation.data import ReconcileReport, SlotKey
from stemmadb.evaluation.entities import Run
from stemmadb.evaluation.vocabularies import RunStatus
from stemmadb.query import sql, sql_rows, tenant_query

_SKIP: Final = sql_rows(
    f"""
    WITH held AS MATERIALIZED (
        SELECT {key_in("slot")}
          FROM stemma.run_slots AS slot
         WHERE slot.workspace_id = :workspace_id AND slot.run_id = :run_id AND slot.status = 'QUEUED'
           AND (CAST(:scenario_ids AS uuid[]) IS NULL OR slot.scenario_id = ANY(CAST(:scenario_ids AS uuid[])))
           AND (CAST(:models AS text[]) IS NULL OR slot.model = ANY(CAST(:models AS text[])))
         ORDER BY {key_in("slot")}
           FOR NO KEY UPDATE
    )
    {INSERT_KEY})
    SELECT :workspace_id, {key_in("held")} FROM held
    {UPDATE} status = 'SKIPPED', finished_at = greatest(run_slots.started_at, statement_timestamp()), error_code = NULL,
           error_message = :reason
    """  # noqa: S608  (of constants only)
)


@tenant_query
def skip_slots(session: Session, run_id: Id, *, scenario_ids: Sequence[Id] = (), models: Sequence[str] = (), reason: str) -> int:
    """
    Leave out queued slots: they become SKIPPED and count as done. Slots that are running or finished stay as they are.

    One statement; locks the slots in the order of their keys.

    Args:
        session: the caller's session, in a workspace.
        run_id: which run.
        scenario_ids: only slots of these; empty: of every scenario.
        models: only slots of these; empty: of every model.
        reason: why; kept as the slot's error_message.

    Returns:
        The number of slots.

    Raises:
        NotFoundError: no run of this workspace has this id.
        ValidationError: reason is blank; nothing was sent.
    """
    if not reason.strip():
        raise ValidationError("reason must say why", "reason")
    key = key_of(run_id)
    given = [parse_reference(each, "scenario_ids") for each in scenario_ids]
    count = _SKIP.run(session, run_id=key, scenario_ids=given or None, models=list(models) or None, reason=reason)
    if not count:
        get_run(session, key)
    log.info("run %s: %d slots skipped", key, count)
    return count


# A slot whose transcript was invalidated after another one took its place is not probed again: reconcile attaches that one.
_RETRY: Final = sql_rows(
    f"""
    WITH held AS MATERIALIZED (
        SELECT {key_in("slot")}
          FROM stemma.run_slots AS slot
         WHERE slot.workspace_id = :workspace_id AND slot.run_id = :run_id
           AND (slot.status = 'FAILED' AND (CAST(:error_codes AS text[]) IS NULL OR slot.error_code = ANY(CAST(:error_codes AS text[])))
             OR slot.status = 'COMPLETED' AND :include_invalidated
                AND slot.transcript_id IN (
                    SELECT old.id FROM stemma.transcripts AS old
                     WHERE old.workspace_id = :workspace_id AND old.run_id = :run_id AND old.invalidated_at IS NOT NULL)
                AND (slot.scenario_id, slot.model, slot.sample_index) NOT IN (
                    SELECT live.scenario_id, live.model, live.sample_index FROM stemma.transcripts AS live
                     WHERE live.workspace_id = :workspace_id AND live.run_id = :run_id AND live.invalidated_at IS NULL
                       AND live.scenario_id IS NOT NULL))
         ORDER BY {key_in("slot")}
           FOR NO KEY UPDATE OF slot
    )
    {INSERT_KEY})
    SELECT :workspace_id, {key_in("held")} FROM held
    {UPDATE} status = 'QUEUED', queued_at = statement_timestamp(), available_at = statement_timestamp(), finished_at = NULL,
           transcript_id = NULL
    """  # noqa: S608  (of constants only)
)
_REOPEN: Final = sql(
    Run,
    """
    UPDATE stemma.runs
       SET status = 'RUNNING', completed_at = NULL, error_code = NULL, error_message = NULL
     WHERE runs.workspace_id = :workspace_id AND runs.id = :run_id AND runs.status IN ('COMPLETED', 'PARTIAL', 'FAILED')
    RETURNING {columns}
    """,
)


@tenant_query
def retry_slots(session: Session, run_id: Id, *, error_codes: Collection[str] = (), include_invalidated: bool = True) -> int:
    """
    Queue slots again: failed ones, and completed ones whose transcript was invalidated since.

    A slot keeps the number of its attempts: beyond max_attempts each retry gives one more. A finished run becomes RUNNING when at least one
    slot is queued again; from COMPLETED that happens by this function only. Locks the run, then the slots in the order of their keys.

    Args:
        session: the caller's session, in a workspace.
        run_id: which run.
        error_codes: only slots that failed with one of these; empty: all failed ones.
        include_invalidated: whether completed slots without a live transcript are queued, too.

    Returns:
        The number of slots.

    Raises:
        InvalidTransitionError: the run is CANCELLED.
        NotFoundError: no run of this workspace has this id.
    """
    with session.begin_nested():
        run = lock_run(session, key_of(run_id))
        if run.status == RunStatus.CANCELLED:
            raise InvalidTransitionError(run.status, RunStatus.RUNNING, f"Run {run.id}")
        codes = sorted(set(error_codes)) or None
        count = _RETRY.run(session, run_id=run.id, error_codes=codes, include_invalidated=include_invalidated)
        if count and _REOPEN.write(session, run_id=run.id) is not None:
            log.info("run %s is RUNNING again", run.id)
    log.info("run %s: %d slots queued again", run.id, count)
    return count


_MISSING: Final = sql_rows(
    f"""
    SELECT {key_in("slot")} FROM stemma.run_slots AS slot WHERE slot.workspace_id = :workspace_id AND slot.run_id = :run_id
    EXCEPT
    SELECT {key_in("live")}
      FROM stemma.transcripts AS live
     WHERE live.workspace_id = :workspace_id AND live.run_id = :run_id AND live.invalidated_at IS NULL
     ORDER BY {KEY}
    """  # noqa: S608  (of constants only)
)


@tenant_query
def missing_slots(session: Session, run_id: Id) -> list[SlotKey]:
    """
    Return the slots of a run that have no live transcript, whatever their status, by key. One statement.

    Raises:
        NotFoundError: no run of this workspace has this id.
    """
    key = key_of(run_id)
    log.debug("reading the missing slots of run %s", key)
    rows = _MISSING.all(session, run_id=key)
    if not rows:
        get_run(session, key)
    return [key_of_row(row) for row in rows]


# A FULL JOIN is hashed or merged, whatever the planner expects of the two sides: each is read once.
_ATTACH: Final = sql_rows(
    f"""
    WITH wanted AS MATERIALIZED (
        SELECT {KEY}, slot.started_at, live.id AS transcript_id
          FROM (SELECT {KEY}, transcript_id, started_at, status = 'RUNNING' AND lease_expires_at > statement_timestamp() AS is_leased
                  FROM stemma.run_slots WHERE workspace_id = :workspace_id AND run_id = :run_id) AS slot
          FULL JOIN (SELECT {KEY}, id
                       FROM stemma.transcripts WHERE workspace_id = :workspace_id AND run_id = :run_id AND invalidated_at IS NULL) AS live
         USING ({KEY})
         WHERE live.id IS NOT NULL AND NOT slot.is_leased AND slot.transcript_id IS DISTINCT FROM live.id
         ORDER BY {KEY}
    )
    {INSERT_KEY}, status, transcript_id, started_at, finished_at)
    SELECT :workspace_id, {key_in("wanted")}, 'COMPLETED', wanted.transcript_id, wanted.started_at,
           greatest(wanted.started_at, statement_timestamp())
      FROM wanted
    {UPDATE} status = 'COMPLETED', transcript_id = excluded.transcript_id,
           finished_at = greatest(run_slots.started_at, excluded.finished_at),
           error_code = NULL, error_message = NULL, lease_owner = NULL, lease_expires_at = NULL
     WHERE run_slots.transcript_id IS DISTINCT FROM excluded.transcript_id
       AND (run_slots.status <> 'RUNNING' OR run_slots.lease_expires_at <= statement_timestamp())
    """  # noqa: S608  (of constants only)
)
# Locked slots are passed over: whoever holds one is about to settle it.
_EXPIRE: Final = sql_rows(
    f"""
    WITH held AS MATERIALIZED (
        SELECT {key_in("slot")}
          FROM stemma.run_slots AS slot
         WHERE slot.workspace_id = :workspace_id AND slot.run_id = :run_id AND slot.status = 'RUNNING'
           AND slot.lease_expires_at <= statement_timestamp()
         ORDER BY {key_in("slot")}
           FOR NO KEY UPDATE SKIP LOCKED
    )
    {INSERT_KEY})
    SELECT :workspace_id, {key_in("held")} FROM held
    {UPDATE}
           status = CASE WHEN run_slots.attempt < :max_attempts THEN 'QUEUED' ELSE 'FAILED' END,
           queued_at = CASE WHEN run_slots.attempt < :max_attempts THEN statement_timestamp() ELSE run_slots.queued_at END,
           finished_at = CASE WHEN run_slots.attempt < :max_attempts THEN NULL ELSE statement_timestamp() END,
           error_code = CASE WHEN run_slots.attempt < :max_attempts THEN run_slots.error_code ELSE 'lease_expired' END,
           error_message = CASE WHEN run_slots.attempt < :max_attempts THEN run_slots.error_message
                                ELSE 'worker ' || run_slots.lease_owner || ' did not report before its lease expired' END,
           started_at = NULL, lease_owner = NULL, lease_expires_at = NULL
    RETURNING run_slots.status
    """  # noqa: S608  (of constants only)
)


@tenant_query
def reconcile(session: Session, run_id: Id) -> ReconcileReport:
    """
    Bring the slots of a run in line with what is there, and finish the run if nothing is left. Doing it twice changes nothing more.

    Transcripts that lie in a slot's key are attached to it. Slots whose lease expired are queued again while attempts remain, and FAILED
    with the error code ``lease_expired`` after the last one. Then as finish. Workers call it when there is nothing left to claim. Locks
    the run, then the slots in the order of their keys.

    Raises:
        NotFoundError: no run of this workspace has this id.
    """
    key = key_of(run_id)
    with session.begin_nested():
        run = lock_run(session, key)
        attached = _ATTACH.run(session, run_id=key)
        expired = [row.status for row in _EXPIRE.all(session, run_id=key, max_attempts=run.config.max_attempts)]
        finished = finish(session, key)
    requeued = expired.count("QUEUED")
    # Workers without work call this again and again: what changed nothing is no news.
    level = logging.INFO if attached or expired else logging.DEBUG
    log.log(level, "run %s: %d slots attached, %d queued again, %d failed", key, attached, requeued, len(expired) - requeued)
    return ReconcileReport(attached, requeued, finished is not None)
