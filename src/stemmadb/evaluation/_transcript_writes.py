"""
The statements that store transcripts.

All lock in one order: the run, the slots in key order, then the keys of the transcripts. A worker that records the outcome of a slot does
the same, so that of the two one waits, and never both. A slot counts as leased while its worker's lease lasts, on the database's clock.

What is looked up for each row is looked up by the whole key, however large the run is and whatever the planner knows of it: see
``_slot_statements``.
"""

from typing import Final, NamedTuple
from uuid import UUID

from stemmadb.evaluation._slot_statements import INSERT_KEY, KEY, UPDATE, key_in, live_transcript, live_without_scenario, locked_slot
from stemmadb.evaluation._transcript_rows import COLUMNS, ROWS, VALUES
from stemmadb.evaluation.entities import Transcript
from stemmadb.query import sql, sql_rows, sql_tuples

# Asked once, before anything is looked up for a row; ordered, so that it is asked of the primary key.
_HAS_SLOTS: Final = f"""(
            SELECT true
              FROM run
             CROSS JOIN LATERAL (
                SELECT FROM stemma.run_slots
                 WHERE run_slots.workspace_id = :workspace_id AND run_slots.run_id = run.id
                 ORDER BY {key_in("run_slots")}
                 LIMIT 1) AS slot)"""  # noqa: S608  (of constants only)

# The slots are locked before a transcript is inserted, leased ones included: their workers hold the same lock while they insert theirs.
_GIVEN: Final = f"""
    WITH run AS MATERIALIZED (
        SELECT runs.id
          FROM stemma.runs
         WHERE runs.workspace_id = :workspace_id AND runs.id = :run_id
           FOR KEY SHARE
    ), given AS MATERIALIZED (
        SELECT given.id, CAST(:run_id AS uuid) AS run_id, given.scenario_id, given.model, given.sample_index
          FROM json_to_recordset(CAST(:keys AS json)) AS given (id uuid, scenario_id uuid, model text, sample_index integer)
         ORDER BY given.scenario_id, given.model, given.sample_index
    ), held AS MATERIALIZED (
        SELECT given.id, {key_in("given")}, slot.status = 'RUNNING' AND slot.lease_expires_at > statement_timestamp() AS is_leased
          FROM given
         CROSS JOIN LATERAL {locked_slot("given")} AS slot
         WHERE {_HAS_SLOTS}
    )"""  # noqa: S608  (of constants only)

# The old rows leave the live-slot key before the new ones enter it: counting them completes the UPDATE first. It goes by an INSERT that
# meets its conflict, as those of slots do; the rows are locked before, so that none is inserted.
_SUPERSEDED: Final = f""", old AS MATERIALIZED (
        SELECT {key_in("given")}, given.id AS given_id, live.id
          FROM (SELECT count(*) FROM held) AS locked
         CROSS JOIN given
         CROSS JOIN LATERAL {live_transcript("given", "FOR NO KEY UPDATE")} AS live
     UNION ALL
        SELECT {key_in("given")}, given.id AS given_id, live.id
          FROM (SELECT count(*) FROM held) AS locked
         CROSS JOIN given
         CROSS JOIN LATERAL {live_without_scenario("given", "FOR NO KEY UPDATE")} AS live
         WHERE given.scenario_id IS NULL
    ), superseded AS (
        INSERT INTO stemma.transcripts (workspace_id, id, {KEY}, content, invalidated_at, invalidated_reason)
        SELECT :workspace_id, old.id, {key_in("old")}, '{{}}', now(), 'superseded by ' || old.given_id
          FROM old
        ON CONFLICT (workspace_id, id) DO UPDATE
           SET invalidated_at = excluded.invalidated_at, invalidated_reason = excluded.invalidated_reason
        RETURNING transcripts.id
    )"""  # noqa: S608  (of constants only)

# No attempt gave this outcome, so started_at goes: a late result of an attempt is told from a repeated one by it.
_FILLED: Final = f""", filled AS (
        {INSERT_KEY}, status, transcript_id, finished_at)
        SELECT :workspace_id, {key_in("held")}, 'COMPLETED', held.id, statement_timestamp()
          FROM held
         WHERE NOT held.is_leased
        {UPDATE} status = 'COMPLETED', transcript_id = excluded.transcript_id, started_at = NULL, finished_at = excluded.finished_at,
               lease_owner = NULL, lease_expires_at = NULL, error_code = NULL, error_message = NULL
    )"""  # noqa: S608  (of constants only)
_FILLED_WHERE_ADDED: Final = _FILLED.replace(
    "WHERE NOT held.is_leased", "WHERE NOT held.is_leased AND (held.id IN (SELECT added.id FROM added)) IS TRUE"
)


def _inserted(before: str) -> str:
    """Return the INSERT of the rows in the order given, once every row of *before* is there."""
    return f"""
        INSERT INTO stemma.transcripts (workspace_id, run_id, {", ".join(COLUMNS)})
        SELECT :workspace_id, :run_id, {VALUES}
          FROM (SELECT count(*) FROM {before}) AS before
         CROSS JOIN {ROWS}"""  # noqa: S608  (of constants only)


def _added(before: str) -> str:
    """Return the same, of the rows whose keys are free."""
    return f""", added AS ({_inserted(before)}
        ON CONFLICT (workspace_id, run_id, scenario_id, model, sample_index) WHERE invalidated_at IS NULL DO NOTHING
        RETURNING transcripts.id
    )"""


_IS_NEW: Final = "(given.id IN (SELECT added.id FROM added))"
_LIVE_INSTEAD: Final = f"""
    SELECT given.id AS given_id, live.id AS live_id
      FROM given
      LEFT JOIN LATERAL {live_transcript("given")} AS live ON true
     WHERE given.scenario_id IS NOT NULL AND {_IS_NEW} IS NOT TRUE
 UNION ALL
    SELECT given.id, live.id
      FROM given
      LEFT JOIN LATERAL {live_without_scenario("given")} AS live ON true
     WHERE given.scenario_id IS NULL AND {_IS_NEW} IS NOT TRUE"""  # noqa: S608  (of constants only)
_NOT_ADDED: Final = f"""
    SELECT given.id AS given_id, NULL AS old_id FROM given WHERE {_IS_NEW} IS NOT TRUE
 UNION ALL
    SELECT NULL, superseded.id FROM superseded"""  # noqa: S608  (of constants only)


class Skipped(NamedTuple):
    """A row that was not inserted."""

    given_id: UUID
    live_id: UUID | None
    """The transcript that is live in its key; None when it was committed after the statement began, which therefore does not see it."""


class Superseding(NamedTuple):
    """A row that was not inserted, because another came between; or a transcript that was superseded."""

    given_id: UUID | None
    old_id: UUID | None


ADD: Final = sql(Transcript, f"{_GIVEN}{_FILLED}{_inserted('held')} RETURNING {{columns}}")
"""One row. Yields the transcript."""

ADD_ALL: Final = sql_rows(f"{_GIVEN}{_FILLED}{_inserted('held')}")
"""All or none: a live transcript in the key of a row refuses the statement. Keys may not repeat among the rows."""

SKIP_LIVE: Final = sql_tuples(Skipped, f"{_GIVEN}{_added('held')}{_FILLED_WHERE_ADDED}{_LIVE_INSTEAD}")
"""The rows whose keys are free; yields the others. Keys may not repeat."""

# Whoever supersedes holds the run, so that two of them do not wait for each other's rows: each has invalidated some before it adds its own.
SUPERSEDE_LIVE: Final = sql_tuples(
    Superseding,
    f"{_GIVEN.replace('FOR KEY SHARE', 'FOR NO KEY UPDATE')}{_SUPERSEDED}{_added('superseded')}{_FILLED_WHERE_ADDED}{_NOT_ADDED}",
)
"""As SKIP_LIVE, with the live transcripts of the keys invalidated first. Yields these, and the rows that were not inserted."""

REVALIDATE: Final = sql(
    Transcript,
    """
    WITH wanted AS MATERIALIZED (
        SELECT transcripts.id, transcripts.run_id, transcripts.scenario_id, transcripts.model, transcripts.sample_index
          FROM stemma.transcripts
         WHERE transcripts.workspace_id = :workspace_id AND transcripts.id = :id AND transcripts.invalidated_at IS NOT NULL
    ), held AS MATERIALIZED (
        SELECT run_slots.run_id, run_slots.scenario_id, run_slots.model, run_slots.sample_index,
               run_slots.status = 'RUNNING' AND run_slots.lease_expires_at > statement_timestamp() AS is_leased
          FROM wanted
          JOIN stemma.run_slots
            ON run_slots.workspace_id = :workspace_id
           AND run_slots.run_id = wanted.run_id
           AND run_slots.scenario_id = wanted.scenario_id
           AND run_slots.model = wanted.model
           AND run_slots.sample_index = wanted.sample_index
           FOR NO KEY UPDATE OF run_slots
    ), filled AS (
        UPDATE stemma.run_slots AS slot
           SET status = 'COMPLETED', transcript_id = :id, started_at = NULL, finished_at = statement_timestamp(),
               lease_owner = NULL, lease_expires_at = NULL, error_code = NULL, error_message = NULL
          FROM held
         WHERE slot.workspace_id = :workspace_id
           AND slot.run_id = held.run_id
           AND slot.scenario_id = held.scenario_id
           AND slot.model = held.model
           AND slot.sample_index = held.sample_index
           AND slot.transcript_id IS DISTINCT FROM CAST(:id AS uuid)
           AND NOT held.is_leased
    )
    UPDATE stemma.transcripts
       SET invalidated_at = NULL, invalidated_by_id = NULL, invalidated_reason = NULL
      FROM wanted
     CROSS JOIN (SELECT count(*) FROM held) AS locked
     WHERE transcripts.workspace_id = :workspace_id AND transcripts.id = wanted.id AND transcripts.invalidated_at IS NOT NULL
    RETURNING {columns}
    """,
)
"""Yields the transcript, or nothing when it was live already."""
