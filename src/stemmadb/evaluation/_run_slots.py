"""
The slots of runs, leased to workers. Import these functions from ``stemmadb.evaluation.runs``.

Leases are on the database's clock: statement_timestamp(), which unlike clock_timestamp() can bound an index scan. A claim is known by the
number of its attempt, which only ever rises: whoever gives a slot back without an outcome clears started_at, so that a late result of that
attempt is told from a repeated one.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

import pydantic_core
from sqlalchemy import select
from sqlalchemy.orm import Session

from stemmadb.entity import Id
from stemmadb.errors import NotFoundError, ValidationError
from stemmadb.evaluation._run_rows import LEASE_SECONDS, MAX_ATTEMPTS, get_run, key_of, key_of_row, log
from stemmadb.evaluation._run_status import settle_cancelled
from stemmadb.evaluation._slot_statements import INSERT_KEY, NO_SUCH_SLOT, UPDATE, key_in
from stemmadb.evaluation.data import SlotClaim
from stemmadb.evaluation.entities import RunSlot
from stemmadb.evaluation.vocabularies import SlotStatus
from stemmadb.paging import Page, page
from stemmadb.query import sql_rows, tenant_query

# Expired leases first: their slots were due before. Each half ends with its LIMIT, in the order of the index; the run's id is a constant in
# both, because behind a join with the run the planner would sort all queued slots for each claim.
_CLAIM: Final = sql_rows(
    f"""
    WITH run AS MATERIALIZED (
        SELECT {MAX_ATTEMPTS} AS max_attempts, {LEASE_SECONDS} AS lease_seconds
          FROM stemma.runs AS run
         WHERE run.workspace_id = :workspace_id AND run.id = :run_id AND run.status = 'RUNNING' AND run.cancel_requested_at IS NULL
    ), expired AS MATERIALIZED (
        SELECT slot.scenario_id, slot.model, slot.sample_index
          FROM stemma.run_slots AS slot
         WHERE slot.workspace_id = :workspace_id AND slot.run_id = :run_id AND slot.status = 'RUNNING'
           AND slot.lease_expires_at <= statement_timestamp()
           AND slot.attempt < (SELECT run.max_attempts FROM run)
           AND (CAST(:models AS text[]) IS NULL OR slot.model = ANY(CAST(:models AS text[])))
         ORDER BY slot.available_at
         LIMIT :count
           FOR NO KEY UPDATE SKIP LOCKED
    ), queued AS MATERIALIZED (
        SELECT slot.scenario_id, slot.model, slot.sample_index
          FROM stemma.run_slots AS slot
         WHERE slot.workspace_id = :workspace_id AND slot.run_id = :run_id AND slot.status = 'QUEUED'
           AND slot.available_at <= statement_timestamp()
           AND EXISTS (SELECT FROM run)
           AND (CAST(:models AS text[]) IS NULL OR slot.model = ANY(CAST(:models AS text[])))
         ORDER BY slot.available_at
         LIMIT CAST(:count AS bigint) - (SELECT count(*) FROM expired)
           FOR NO KEY UPDATE SKIP LOCKED
    ), due AS (
        SELECT expired.scenario_id, expired.model, expired.sample_index FROM expired
     UNION ALL
        SELECT queued.scenario_id, queued.model, queued.sample_index FROM queued
    )
    {INSERT_KEY}, status, lease_owner, lease_expires_at)
    SELECT :workspace_id, :run_id, due.scenario_id, due.model, due.sample_index, 'RUNNING', :worker,
           statement_timestamp()
               + make_interval(secs => coalesce(CAST(:lease_s AS double precision), (SELECT run.lease_seconds FROM run)))
      FROM due
    {UPDATE} status = 'RUNNING', attempt = run_slots.attempt + 1, started_at = statement_timestamp(),
           lease_owner = excluded.lease_owner, lease_expires_at = excluded.lease_expires_at
    RETURNING {key_in("run_slots")}, run_slots.attempt, run_slots.lease_expires_at, run_slots.available_at
    """  # noqa: S608  (of constants only)
)

# Runs with something to claim, the one that waits longest first: one probe of an index for each running run.
_CLAIMABLE: Final = sql_rows(
    f"""
    SELECT run.id
      FROM stemma.runs AS run
     CROSS JOIN LATERAL (
         SELECT least(
             (SELECT slot.available_at FROM stemma.run_slots AS slot
               WHERE slot.workspace_id = :workspace_id AND slot.run_id = run.id AND slot.status = 'QUEUED'
                 AND slot.available_at <= statement_timestamp()
               ORDER BY slot.available_at LIMIT 1),
             (SELECT min(slot.available_at) FROM stemma.run_slots AS slot
               WHERE slot.workspace_id = :workspace_id AND slot.run_id = run.id AND slot.status = 'RUNNING'
                 AND slot.lease_expires_at <= statement_timestamp() AND slot.attempt < {MAX_ATTEMPTS})
         ) AS since
     ) AS due
     WHERE run.workspace_id = :workspace_id AND run.status = 'RUNNING' AND run.cancel_requested_at IS NULL AND due.since IS NOT NULL
     ORDER BY due.since, run.id
    """  # noqa: S608  (of constants only)
)


@tenant_query
def claim_slots(
    session: Session,
    run_id: Id | None = None,
    *,
    worker: str,
    count: int = 1,
    models: Collection[str] = (),
    lease: timedelta | None = None,
) -> list[SlotClaim]:
    """
    Lease slots to a worker: queued ones that are due, and those whose lease expired while attempts remain.

    Slots that others have locked are passed over (SKIP LOCKED): two workers never get the same slot, and do not wait for each other. Each
    claim is one more attempt. Commit before calling a model: no model call belongs inside a transaction, and until then nobody else sees
    the claim.

    Args:
        session: the caller's session, in a workspace.
        run_id: whose slots; None: of every running run, the one that waits longest first, one statement more for each run that is tried.
        worker: names the worker; a result is accepted under this name.
        count: the most slots, at least 1.
        models: only slots of these; empty: of every model.
        lease: how long the worker may stay silent; None: the lease_seconds of the run's configuration.

    Returns:
        The claims, by available_at, then by key. Empty when nothing is due, and for a run that is not RUNNING or is to be cancelled.

    Raises:
        NotFoundError: no run of this workspace has this id.
        ValidationError: worker is blank, or count or lease is not above 0; nothing was sent.
    """
    if not worker.strip() or "\0" in worker:
        raise ValidationError("worker must be a name, without U+0000", "worker")
    if count < 1:
        raise ValidationError("count must be at least 1", "count")
    given = {"worker": worker, "models": sorted(set(models)) or None, "lease_s": _seconds(lease)}
    if run_id is not None:
        key = key_of(run_id)
        rows = list(_CLAIM.all(session, **given, run_id=key, count=count))
        if not rows:
            get_run(session, key)
    else:
        rows = []
        for run in _CLAIMABLE.all(session):
            rows += _CLAIM.all(session, **given, run_id=run.id, count=count - len(rows))
            if len(rows) == count:
                break
    rows.sort(key=lambda row: (row.available_at, row.run_id, row.scenario_id, row.model, row.sample_index))
    return [SlotClaim(key_of_row(row), row.attempt, worker, row.lease_expires_at) for row in rows]


_RENEW: Final = sql_rows(
    f"""
    WITH run AS MATERIALIZED (
        SELECT run.id, {LEASE_SECONDS} AS lease_seconds
          FROM stemma.runs AS run
         WHERE run.workspace_id = :workspace_id AND run.id = ANY(CAST(:run_ids AS uuid[]))
    )
    {INSERT_KEY}, status, attempt, lease_owner, lease_expires_at, queued_at)
    SELECT :workspace_id, {key_in("given")}, 'RUNNING', given.attempt, given.worker,
           statement_timestamp() + make_interval(secs => coalesce(CAST(:lease_s AS double precision), run.lease_seconds)), {NO_SUCH_SLOT}
      FROM json_to_recordset(CAST(:claims AS json))
        AS given (run_id uuid, scenario_id uuid, model text, sample_index integer, attempt integer, worker text)
      JOIN run ON run.id = given.run_id
     ORDER BY {key_in("given")}
    {UPDATE} lease_expires_at = excluded.lease_expires_at
     WHERE run_slots.status = 'RUNNING' AND run_slots.lease_owner = excluded.lease_owner AND run_slots.attempt = excluded.attempt
    RETURNING {key_in("run_slots")}, run_slots.attempt, run_slots.lease_expires_at, run_slots.queued_at = {NO_SUCH_SLOT} AS is_unknown
    """  # noqa: S608  (of constants only)
)


@tenant_query
def renew_slots(session: Session, claims: Sequence[SlotClaim], *, lease: timedelta | None = None) -> list[SlotClaim]:
    """
    Renew leases, counted from now.

    One statement; locks the slots in the order of their keys. An expired lease that nobody has taken over is renewed as well.

    Args:
        session: the caller's session, in a workspace.
        claims: the leases.
        lease: how long from now; None: the lease_seconds of each run's configuration.

    Returns:
        The claims that are still held, with their new end, in the order given. Stop working on the others.

    Raises:
        NotFoundError: a claim is of a slot that its run never planned.
        ValidationError: lease is not above 0; nothing was sent.
    """
    seconds = _seconds(lease)
    if not claims:
        return []
    # Of two claims of one slot at most one is held: the later one.
    latest = {claim.key: claim for claim in sorted(claims, key=lambda claim: claim.attempt)}
    given = pydantic_core.to_json([_named(claim) for claim in latest.values()]).decode()
    run_ids = sorted({key.run_id for key in latest})
    with session.begin_nested():
        rows = _RENEW.all(session, claims=given, run_ids=run_ids, lease_s=seconds)
        ends = {(key_of_row(row), row.attempt): row.lease_expires_at for row in rows}
        for row in rows:
            if row.is_unknown:
                raise NotFoundError("RunSlot", tuple(row[:4]))
    return [
        replace(claim, lease_expires_at=ends[claim.key, claim.attempt])
        for claim in dict.fromkeys(claims)
        if (claim.key, claim.attempt) in ends and latest[claim.key].worker == claim.worker
    ]


def _named(claim: SlotClaim) -> dict[str, Any]:
    key = claim.key
    return {
        "run_id": key.run_id,
        "scenario_id": key.scenario_id,
        "model": key.model,
        "sample_index": key.sample_index,
        "attempt": claim.attempt,
        "worker": claim.worker,
    }


def _seconds(lease: timedelta | None) -> float | None:
    if lease is not None and lease <= timedelta(0):
        raise ValidationError("lease must be above 0", "lease")
    return None if lease is None else lease.total_seconds()


_RELEASE: Final = sql_rows(
    f"""
    WITH held AS MATERIALIZED (
        SELECT {key_in("slot")}
          FROM stemma.run_slots AS slot
         WHERE slot.workspace_id = :workspace_id AND slot.status = 'RUNNING' AND slot.lease_owner = :worker
         ORDER BY {key_in("slot")}
           FOR NO KEY UPDATE
    ), released AS (
        {INSERT_KEY})
        SELECT :workspace_id, {key_in("held")} FROM held
        {UPDATE} status = 'QUEUED', started_at = NULL, lease_owner = NULL, lease_expires_at = NULL
    )
    SELECT held.run_id, count(*) AS slot_count, run.cancel_requested_at IS NOT NULL AS is_cancelled
      FROM held
      JOIN stemma.runs AS run ON run.workspace_id = :workspace_id AND run.id = held.run_id
     GROUP BY held.run_id, run.cancel_requested_at
    """  # noqa: S608  (of constants only)
)


@tenant_query
def release_slots(session: Session, *, worker: str) -> int:
    """
    Give back every lease of a worker, in every run of the workspace: its slots are queued again, due at once.

    Their attempts count as made, and a result that the worker still delivers is refused. Locks the slots in the order of their keys. A run
    that is to be cancelled becomes CANCELLED when this was its last running slot.

    Returns:
        The number of slots.
    """
    with session.begin_nested():
        rows = _RELEASE.all(session, worker=worker)
        settle_cancelled(session, {row.run_id for row in rows if row.is_cancelled})
    count: int = sum(row.slot_count for row in rows)
    log.info("worker %r: %d slots released", worker, count)
    return count


@tenant_query
def list_slots(
    session: Session, run_id: Id, *, statuses: Collection[SlotStatus] = (), cursor: str | None = None, limit: int = 50
) -> Page[RunSlot]:
    """
    Return the slots of a run, by scenario_id, model, sample_index.

    Args:
        session: the caller's session, in a workspace.
        run_id: whose slots. An unknown run has none.
        statuses: only slots that stand so; empty: all.
        cursor: ``next_cursor`` of the page before; None starts at the first.
        limit: 1 to 200.

    Raises:
        InvalidCursorError: the cursor is not of this list with these filters.
    """
    key = key_of(run_id)
    log.debug("reading the slots of run %s", key)
    # Outcomes are recorded by SQL: slots that the session has listed before are brought up to date.
    statement = select(RunSlot).where(RunSlot.run_id == key).execution_options(populate_existing=True)
    if statuses:
        statement = statement.where(RunSlot.status.in_(sorted(statuses)))
    order = (RunSlot.scenario_id, RunSlot.model, RunSlot.sample_index)
    return page(session, statement, order_by=order, cursor=cursor, limit=limit)
