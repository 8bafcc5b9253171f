"""
The outcomes of slots. Import these functions from ``stemmadb.evaluation.runs``.

An outcome is accepted under the lease that claimed its slot, and once: a worker may deliver it as often as it likes.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row
from sqlalchemy.orm import Session

from stemmadb.errors import LeaseLostError, NotFoundError
from stemmadb.evaluation._outcome_rows import OUTCOME_RECORD, SCORE_COLUMNS, SCORE_RECORD, TRANSCRIPT_COLUMNS, chunks
from stemmadb.evaluation._run_rows import MAX_ATTEMPTS, log
from stemmadb.evaluation._run_status import settle_cancelled
from stemmadb.evaluation._slot_statements import INSERT_KEY, KEY, UPDATE, is_key, key_in, live_transcript, locked_slot
from stemmadb.evaluation.data import OutcomeKind, OutcomeResult, SlotClaim, SlotKey, SlotOutcome, TranscriptCreate
from stemmadb.evaluation.entities import RunSlot, Transcript
from stemmadb.evaluation.vocabularies import SlotStatus
from stemmadb.query import read, sql, sql_rows, tenant_query


def _columns(alias: str) -> str:
    return ", ".join(f"{alias}.{column}" for column in TRANSCRIPT_COLUMNS)


# The runs are locked before the slots, each in the order of their keys: sorting what was given completes the first locks before the
# second ones begin. A slot that is locked comes as it is then, not as the snapshot has it.
#
# held: the lease is the claim's. repeated: the slot is no longer running, and has started_at, which is cleared when a slot is given back,
# so this claim settled it. live: a transcript lies in the slot's key already, put there by other means; the slot gets that one.
_RECORD: Final = sql_rows(
    f"""
    WITH run AS MATERIALIZED (
        SELECT run.id, {MAX_ATTEMPTS} AS max_attempts, run.cancel_requested_at IS NOT NULL AS is_cancelled
          FROM stemma.runs AS run
         WHERE run.workspace_id = :workspace_id AND run.id = ANY(CAST(:run_ids AS uuid[]))
         ORDER BY run.id
           FOR KEY SHARE
    ), given AS MATERIALIZED (
        SELECT given.n, given.run_id, given.slot_scenario_id AS scenario_id, given.slot_model AS model, given.slot_index AS sample_index,
               given.attempt, given.worker, given.scores, given.error_code, given.slot_error, given.retry_s, {_columns("given")},
               run.max_attempts, run.is_cancelled
          FROM json_to_recordset(CAST(:outcomes AS json)) AS given ({OUTCOME_RECORD})
          JOIN run ON run.id = given.run_id
         ORDER BY given.run_id, given.slot_scenario_id, given.slot_model, given.slot_index
    ), found AS MATERIALIZED (
        SELECT given.n, {key_in("given")}, given.scores, given.error_code, given.slot_error, {_columns("given")}, given.is_cancelled,
               slot.attempt, slot.started_at, slot.queued_at, slot.available_at, live.id AS live_id, it.is_held, it.is_repeated,
               CASE WHEN it.is_held THEN coalesce(live.id, given.id) ELSE slot.transcript_id END AS transcript_id,
               CASE WHEN NOT it.is_held THEN slot.status WHEN it.is_completed THEN 'COMPLETED'
                    WHEN slot.attempt < given.max_attempts THEN 'QUEUED' ELSE 'FAILED' END AS status,
               statement_timestamp() + make_interval(secs => given.retry_s) AS next_at
          FROM given
         CROSS JOIN LATERAL {locked_slot("given")} AS slot
          LEFT JOIN LATERAL {live_transcript("given")} AS live ON {is_key("live", "given")}
         CROSS JOIN LATERAL (
            SELECT slot.status = 'RUNNING' AND slot.lease_owner = given.worker AND slot.attempt = given.attempt AS is_held,
                   slot.status <> 'RUNNING' AND slot.started_at IS NOT NULL AND slot.attempt = given.attempt AS is_repeated,
                   given.error_code IS NULL OR live.id IS NOT NULL AS is_completed) AS it
         WHERE {is_key("slot", "given")}
    ), added AS (
        INSERT INTO stemma.transcripts (workspace_id, {KEY}, {", ".join(TRANSCRIPT_COLUMNS)})
        SELECT :workspace_id, {key_in("found")}, {_columns("found")}
          FROM found
         WHERE found.is_held AND found.status = 'COMPLETED' AND found.live_id IS NULL
    ), scored AS (
        INSERT INTO stemma.scores (workspace_id, transcript_id, {", ".join(SCORE_COLUMNS)})
        SELECT :workspace_id, found.id, {", ".join(f"score.{column}" for column in SCORE_COLUMNS)}
          FROM found
         CROSS JOIN LATERAL json_to_recordset(found.scores) AS score ({SCORE_RECORD})
         WHERE found.is_held AND found.status = 'COMPLETED' AND found.live_id IS NULL AND found.scores IS NOT NULL
    ), settled AS (
        {INSERT_KEY}, status, transcript_id, error_code, error_message, queued_at, available_at, started_at, finished_at)
        SELECT :workspace_id, {key_in("found")}, found.status,
               CASE found.status WHEN 'COMPLETED' THEN found.transcript_id END,
               CASE found.status WHEN 'COMPLETED' THEN NULL ELSE found.error_code END,
               CASE found.status WHEN 'COMPLETED' THEN NULL ELSE found.slot_error END,
               CASE found.status WHEN 'QUEUED' THEN statement_timestamp() ELSE found.queued_at END,
               CASE found.status WHEN 'QUEUED' THEN found.next_at ELSE found.available_at END,
               found.started_at,
               CASE found.status WHEN 'QUEUED' THEN NULL ELSE greatest(found.started_at, statement_timestamp()) END
          FROM found
         WHERE found.is_held
        {UPDATE} status = excluded.status, transcript_id = excluded.transcript_id, error_code = excluded.error_code,
               error_message = excluded.error_message, queued_at = excluded.queued_at, available_at = excluded.available_at,
               finished_at = excluded.finished_at, lease_owner = NULL, lease_expires_at = NULL
    )
    SELECT found.n, found.run_id, found.status, found.is_held AND found.is_cancelled AS may_be_last,
           CASE WHEN found.is_held AND found.live_id IS NULL THEN 'STORED'
                WHEN found.is_held OR found.is_repeated THEN 'DUPLICATE' ELSE 'LEASE_LOST' END AS result,
           CASE WHEN found.status = 'COMPLETED' AND (found.is_held OR found.is_repeated) THEN found.transcript_id END AS transcript_id
      FROM found
    """  # noqa: S608  (of constants only)
)


@tenant_query
def record_outcomes(session: Session, outcomes: Sequence[SlotOutcome]) -> list[OutcomeResult]:
    """
    Store what became of claimed slots: transcripts with their scores, or errors.

    A transcript makes its slot COMPLETED. An error makes it FAILED, or QUEUED again after a pause while attempts remain. Only under the
    lease that claimed the slot; a repeated delivery, also within one call, changes nothing. All or none.

    One statement for each 1,000 outcomes, whatever they hold; one pair more for each run whose cancelling was requested, which becomes
    CANCELLED with its last running slot. Locks the runs FOR KEY SHARE, then the slots in the order of their keys.

    Args:
        session: the caller's session, in a workspace.
        outcomes: a transcript belongs to the slot of its claim; its scenario_id and sample_index may be left out. Without ``retry_in``, the
            pause after an error is a second, doubled with each attempt up to five minutes.

    Returns:
        For each outcome, in the order given: STORED; DUPLICATE, when this claim was settled before, or a transcript was put into its slot
        by other means; LEASE_LOST, when the slot was given to somebody else, given back or deleted since.

    Raises:
        ConflictError: a transcript was put into a slot by other means at the same moment: deliver again.
        DocumentError: a document cannot be stored; its chunk was not sent.
        ReferenceNotFoundError: no rubric, or no user, has the id that a score names.
        ValidationError: an outcome does not fit its claim; its chunk was not sent.
    """
    given = [SlotOutcome.of(outcome) for outcome in outcomes]
    delivered = [_identity(outcome.claim) for outcome in given]
    # Within one call the first delivery of a claim counts.
    first = {identity: n for n, identity in reversed(list(enumerate(delivered)))}
    numbers = sorted(first.values())
    found = _send(session, [given[n] for n in numbers]) if numbers else {}
    results = {n: _result(given[n].claim.key, found.get(place)) for place, n in enumerate(numbers)}
    counts = [result.result for result in results.values()]
    log.info("%d outcomes stored, %d leases lost", counts.count(OutcomeKind.STORED), counts.count(OutcomeKind.LEASE_LOST))
    return [results[n] if n in results else _repeated(results[first[identity]]) for n, identity in enumerate(delivered)]


def _identity(claim: SlotClaim) -> tuple[SlotKey, int, str]:
    # Without the end of the lease: a renewed claim is the same one.
    return claim.key, claim.attempt, claim.worker


def _send(session: Session, outcomes: list[SlotOutcome]) -> dict[int, Row[Any]]:
    run_ids = sorted({outcome.claim.key.run_id for outcome in outcomes})
    found: dict[int, Row[Any]] = {}
    with session.begin_nested():
        for rows in chunks(outcomes):
            found |= {row.n: row for row in _RECORD.all(session, outcomes=rows, run_ids=run_ids)}
        settle_cancelled(session, {row.run_id for row in found.values() if row.may_be_last})
    return found


def _result(key: SlotKey, row: Row[Any] | None) -> OutcomeResult:
    if row is None:
        return OutcomeResult(key, OutcomeKind.LEASE_LOST, None, None)
    return OutcomeResult(key, OutcomeKind(row.result), row.transcript_id, SlotStatus(row.status))


def _repeated(result: OutcomeResult) -> OutcomeResult:
    if result.result is OutcomeKind.LEASE_LOST:
        return result
    return OutcomeResult(result.key, OutcomeKind.DUPLICATE, result.transcript_id, result.status)


@tenant_query
def complete_slot(session: Session, claim: SlotClaim, transcript: TranscriptCreate) -> Transcript:
    """
    Store the transcript of a claimed slot; record_outcomes of one. A repeated delivery returns the transcript that is there.

    Raises:
        LeaseLostError: the lease is no longer the claim's. Nothing was stored.
        ValidationError: the transcript does not fit the claim; nothing was sent.
    """
    result = _settle(session, SlotOutcome(claim=claim, transcript=transcript))
    stored = None if result.transcript_id is None else read(session, Transcript, result.transcript_id)
    if stored is None:
        # This claim was settled before, as an error.
        raise LeaseLostError(_key(claim.key))
    return stored


_SLOT: Final = sql(
    RunSlot,
    """
    SELECT {columns}
      FROM stemma.run_slots
     WHERE run_slots.workspace_id = :workspace_id AND run_slots.run_id = :run_id AND run_slots.scenario_id = :scenario_id
       AND run_slots.model = :model AND run_slots.sample_index = :sample_index
    """,
)


@tenant_query
def fail_slot(
    session: Session, claim: SlotClaim, *, error_code: str, error_message: str | None = None, retry_in: timedelta | None = None
) -> RunSlot:
    """
    Store that the attempt on a claimed slot failed; record_outcomes of one.

    Args:
        session: the caller's session, in a workspace.
        claim: the lease.
        error_code: why, in a word: retry_slots chooses by it.
        error_message: why, in a sentence.
        retry_in: the pause before the next attempt; None: a second, doubled with each attempt up to five minutes.

    Returns:
        The slot: QUEUED while attempts remain, else FAILED.

    Raises:
        LeaseLostError: the lease is no longer the claim's. Nothing was stored.
        NotFoundError: the run was deleted meanwhile, and its slots with it.
        ValidationError: error_code is blank, or retry_in negative; nothing was sent.
    """
    outcome = SlotOutcome(claim=claim, error_code=error_code, error_message=error_message, retry_in=retry_in)
    _settle(session, outcome)
    key = claim.key
    slot = _SLOT.write(session, run_id=key.run_id, scenario_id=key.scenario_id, model=key.model, sample_index=key.sample_index)
    if slot is None:
        raise NotFoundError("RunSlot", _key(key))
    return slot


def _settle(session: Session, outcome: SlotOutcome) -> OutcomeResult:
    (result,) = record_outcomes(session, [outcome])
    if result.result is OutcomeKind.LEASE_LOST:
        raise LeaseLostError(_key(outcome.claim.key))
    return result


def _key(key: SlotKey) -> tuple[UUID, UUID, str, int]:
    return key.run_id, key.scenario_id, key.model, key.sample_index
