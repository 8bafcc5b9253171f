"""
The outcomes of slots. Import these functions from ``stemmadb.evaluation.runs``.

An outcome is accepted under the lease that claimed its slot, and once: a worker may deliver it as often as it likes.
"""

import contextlib
import itertools
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from stemmadb._sqlstates import translate
from stemmadb.errors import ConflictError, LeaseLostError, NotFoundError
from stemmadb.evaluation._outcome_rows import CLAIM_RECORD, chunks
from stemmadb.evaluation._run_rows import MAX_ATTEMPTS, PURGED, log
from stemmadb.evaluation._run_status import settle_cancelled
from stemmadb.evaluation._score_rows import SCORE_RECORD, SCORE_TYPES
from stemmadb.evaluation._slot_statements import INSERT_KEY, NO_SUCH_SLOT, UPDATE, key_in, live_transcript, locked_slot
from stemmadb.evaluation._transcript_rows import COLUMNS, ROWS, VALUES
from stemmadb.evaluation.data import OutcomeKind, OutcomeResult, SlotClaim, SlotKey, SlotOutcome, TranscriptCreate
from stemmadb.evaluation.entities import RunSlot, Transcript
from stemmadb.evaluation.vocabularies import SlotStatus
from stemmadb.query import read, sql, sql_rows, sql_tuples, tenant_query


class _Deviation(NamedTuple):
    """An outcome that did not simply complete its slot."""

    run_id: UUID
    scenario_id: UUID
    model: str
    sample_index: int
    result: str
    status: str | None
    is_unknown: bool
    may_be_last: bool
    transcript_id: UUID | None


# The runs are locked before the slots, each in the order of their keys: the list of the locked runs is complete before the first row is
# given, and sorting completes the rows before the first slot is locked. Nothing is joined: the rows of one step are looked up in the next
# by IN (...) IS TRUE, which is hashed, where the planner might make a loop in a loop of a join.
_GIVEN: Final = f"""
    WITH run AS MATERIALIZED (
        SELECT run.id, {MAX_ATTEMPTS} AS max_attempts, run.cancel_requested_at IS NOT NULL AS is_cancelled
          FROM stemma.runs AS run
         WHERE run.workspace_id = :workspace_id AND run.id = ANY(CAST(:run_ids AS uuid[])) AND run.error_code IS DISTINCT FROM '{PURGED}'
         ORDER BY run.id
           FOR KEY SHARE
    ), given AS MATERIALIZED (
        SELECT {key_in("given")}, given.attempt, given.worker, given.id, given.scores, given.error_code, given.error_message, given.retry_s,
               given.run_id = ANY(ARRAY(SELECT run.id FROM run)) AS has_run
          FROM json_to_recordset(CAST(:claims AS json)) AS given ({CLAIM_RECORD})
         ORDER BY {key_in("given")}
    )"""  # noqa: S608  (of constants only)

# The proposed row is a running slot, so that it may carry the worker; as such it may hold no transcript, whose id travels as text.
#
# missed: what was not settled, because the lease is no longer the claim's. A slot that is not running and has kept the claim's attempt and
# started_at, which is cleared when a slot is given back, was settled by this claim before.
# What is not among the rows was stored, and completed its slot: of a thousand outcomes most are so.
_RECORD: Final = sql_tuples(
    _Deviation,
    f"""{_GIVEN}, settled AS (
        {INSERT_KEY}, status, attempt, lease_owner, lease_expires_at, error_code, error_message, available_at, queued_at)
        SELECT :workspace_id, {key_in("given")}, 'RUNNING', given.attempt, given.worker, statement_timestamp(), given.error_code,
               CASE WHEN given.error_code IS NULL THEN CAST(given.id AS text) ELSE given.error_message END,
               statement_timestamp() + make_interval(secs => coalesce(given.retry_s, 0)), {NO_SUCH_SLOT}
          FROM given
         WHERE given.has_run
        {UPDATE}
               (status, transcript_id, error_code, error_message, queued_at, available_at, finished_at, lease_owner, lease_expires_at) = (
                SELECT it.status,
                       CASE it.status WHEN 'COMPLETED' THEN CAST(excluded.error_message AS uuid) END,
                       excluded.error_code,
                       CASE WHEN it.status <> 'COMPLETED' THEN excluded.error_message END,
                       CASE it.status WHEN 'QUEUED' THEN statement_timestamp() ELSE run_slots.queued_at END,
                       CASE it.status WHEN 'QUEUED' THEN excluded.available_at ELSE run_slots.available_at END,
                       CASE WHEN it.status <> 'QUEUED' THEN greatest(run_slots.started_at, statement_timestamp()) END,
                       NULL, CAST(NULL AS timestamptz)
                  FROM (SELECT CASE WHEN excluded.error_code IS NULL THEN 'COMPLETED'
                                    WHEN run_slots.attempt < run.max_attempts THEN 'QUEUED' ELSE 'FAILED' END AS status
                          FROM run WHERE run.id = excluded.run_id) AS it)
         WHERE run_slots.status = 'RUNNING' AND run_slots.lease_owner = excluded.lease_owner AND run_slots.attempt = excluded.attempt
        RETURNING {key_in("run_slots")}, run_slots.status, run_slots.transcript_id, run_slots.queued_at = {NO_SUCH_SLOT} AS is_unknown
    ), added AS (
        INSERT INTO stemma.transcripts (workspace_id, run_id, {", ".join(COLUMNS)})
        SELECT :workspace_id, given.run_id, {VALUES}
          FROM {ROWS}
         WHERE (given.id IN (SELECT settled.transcript_id FROM settled)) IS TRUE
    ), scored AS (
        INSERT INTO stemma.scores (workspace_id, transcript_id, {", ".join(SCORE_TYPES)})
        SELECT :workspace_id, given.id, {", ".join(f"score.{column}" for column in SCORE_TYPES)}
          FROM given
         CROSS JOIN LATERAL json_to_recordset(given.scores) AS score ({SCORE_RECORD})
         WHERE given.scores IS NOT NULL AND (given.id IN (SELECT settled.transcript_id FROM settled)) IS TRUE
    ), missed AS MATERIALIZED (
        SELECT {key_in("given")}, slot.status, slot.transcript_id,
               slot.status <> 'RUNNING' AND slot.started_at IS NOT NULL AND slot.attempt = given.attempt AS is_repeated
          FROM given
          LEFT JOIN LATERAL {locked_slot("given")} AS slot ON given.has_run
         WHERE (({key_in("given")}) IN (SELECT {key_in("settled")} FROM settled)) IS NOT TRUE
    )
    SELECT {key_in("settled")}, 'STORED' AS result, settled.status, settled.is_unknown,
           settled.run_id IN (SELECT run.id FROM run WHERE run.is_cancelled) AS may_be_last, settled.transcript_id
      FROM settled
     WHERE settled.status <> 'COMPLETED' OR settled.is_unknown OR settled.run_id IN (SELECT run.id FROM run WHERE run.is_cancelled)
 UNION ALL
    SELECT {key_in("missed")}, CASE WHEN missed.is_repeated THEN 'DUPLICATE' ELSE 'LEASE_LOST' END, missed.status, false, false,
           CASE WHEN missed.is_repeated THEN missed.transcript_id END
      FROM missed
    """,  # noqa: S608  (of constants only)
)

# For the rare slot in whose key a transcript lies already, put there by other means.
_TAKE_LIVE: Final = sql_rows(
    f"""{_GIVEN}, held AS MATERIALIZED (
        SELECT {key_in("given")}, slot.started_at, live.id AS transcript_id
          FROM given
         CROSS JOIN LATERAL {locked_slot("given")} AS slot
         CROSS JOIN LATERAL {live_transcript("given")} AS live
         WHERE given.has_run AND slot.status = 'RUNNING' AND slot.lease_owner = given.worker AND slot.attempt = given.attempt
    )
    {INSERT_KEY}, status, transcript_id, started_at, finished_at)
    SELECT :workspace_id, {key_in("held")}, 'COMPLETED', held.transcript_id, held.started_at,
           greatest(held.started_at, statement_timestamp())
      FROM held
    {UPDATE} status = 'COMPLETED', transcript_id = excluded.transcript_id, finished_at = excluded.finished_at,
           error_code = NULL, error_message = NULL, lease_owner = NULL, lease_expires_at = NULL
    """  # noqa: S608  (of constants only)
)


@tenant_query
def record_outcomes(session: Session, outcomes: Sequence[SlotOutcome]) -> list[OutcomeResult]:
    """
    Store what became of claimed slots: transcripts with their scores, or errors.

    A transcript makes its slot COMPLETED. An error makes it FAILED, or QUEUED again after a pause while attempts remain. Only under the
    lease that claimed the slot; a repeated delivery, also within one call, changes nothing. All or none.

    One statement for each 1,000 outcomes, whatever they hold; of more than 1,000 the first go in statements of 100, 300 and 600, so that
    the database has something to do soon. Two more for each run whose cancelling was requested, which becomes CANCELLED with its last
    running slot. Locks the runs FOR KEY SHARE, then the slots in the order of their keys.

    Args:
        session: the caller's session, in a workspace.
        outcomes: a transcript belongs to the slot of its claim; its scenario_id and sample_index may be left out. Without ``retry_in``, the
            pause after an error is a second, doubled with each attempt up to five minutes.

    Returns:
        For each outcome, in the order given: STORED; DUPLICATE, when this claim was settled before, or a transcript was put into its slot
        by other means; LEASE_LOST, when the slot was given to somebody else or given back since, or its run was deleted or is being purged.

    Raises:
        DocumentError: a document cannot be stored; its chunk was not sent.
        NotFoundError: a claim is of a slot that its run never planned.
        ReferenceNotFoundError: no rubric, or no user, has the id that a score names.
        ValidationError: an outcome does not fit its claim; its chunk was not sent.
    """
    given = [SlotOutcome.of(outcome) for outcome in outcomes]
    results = _send(session, given) if len({outcome.claim.key for outcome in given}) == len(given) else _send_in_turns(session, given)
    counts = Counter(result.result for result in results)
    log.debug("%d outcomes stored, %d leases lost", counts[OutcomeKind.STORED], counts[OutcomeKind.LEASE_LOST])
    return results


def _send_in_turns(session: Session, outcomes: list[SlotOutcome]) -> list[OutcomeResult]:
    """Record outcomes some of which are of the same slots, and return their results in the order given."""
    delivered = [(outcome.claim.key, outcome.claim.attempt, outcome.claim.worker) for outcome in outcomes]
    # Within one call the first delivery of a claim counts; a renewed claim is the same one.
    first: dict[tuple[SlotKey, int, str], int] = {}
    for n, claim in enumerate(delivered):
        first.setdefault(claim, n)
    results: dict[int, OutcomeResult] = {}
    for turn in _turns(list(first.values()), outcomes):
        results.update(zip(turn, _send(session, [outcomes[n] for n in turn]), strict=True))
    return [results[n] if n in results else _repeated(results[first[claim]]) for n, claim in enumerate(delivered)]


def _turns(numbers: list[int], outcomes: Sequence[SlotOutcome]) -> list[list[int]]:
    """Share out outcomes so that no slot is in one turn twice: a statement may update a row only once."""
    turns: list[list[int]] = []
    seen: Counter[SlotKey] = Counter()
    for n in numbers:
        key = outcomes[n].claim.key
        if seen[key] == len(turns):
            turns.append([])
        turns[seen[key]].append(n)
        seen[key] += 1
    return turns


def _send(session: Session, outcomes: list[SlotOutcome]) -> list[OutcomeResult]:
    """Record outcomes of different slots, and return their results in the order given."""
    if not outcomes:
        return []
    run_ids = sorted({outcome.claim.key.run_id for outcome in outcomes})
    try:
        with session.begin_nested():
            return _record(session, outcomes, run_ids)
    except IntegrityError as error:
        conflict = translate(error)
        if not isinstance(conflict, ConflictError) or conflict.entity != "Transcript":
            raise
    with session.begin_nested():
        with contextlib.closing(chunks(session, outcomes)) as prepared:
            for chunk in itertools.chain.from_iterable(prepared):
                _TAKE_LIVE.run(session, claims=chunk.parameters["claims"], run_ids=run_ids)
        return _record(session, outcomes, run_ids)


def _record(session: Session, outcomes: list[SlotOutcome], run_ids: list[UUID]) -> list[OutcomeResult]:
    results: list[OutcomeResult] = []
    cancelled: set[UUID] = set()
    with contextlib.closing(chunks(session, outcomes)) as prepared:
        for chunk in itertools.chain.from_iterable(prepared):
            found = {SlotKey(*row[:4]): row for row in _RECORD.all(session, **chunk.parameters, run_ids=run_ids)}
            for row in found.values():
                if row.is_unknown:
                    raise NotFoundError("RunSlot", row[:4])
            cancelled.update(row.run_id for row in found.values() if row.may_be_last)
            results += [_result(key, id, found.get(key)) for key, id in zip(chunk.keys, chunk.ids, strict=True)]
    settle_cancelled(session, cancelled)
    return results


def _result(key: SlotKey, transcript_id: UUID | None, row: _Deviation | None) -> OutcomeResult:
    if row is None:
        return OutcomeResult(key, OutcomeKind.STORED, transcript_id, SlotStatus.COMPLETED)
    status = None if row.status is None else SlotStatus(row.status)
    return OutcomeResult(key, OutcomeKind(row.result), row.transcript_id, status)


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
