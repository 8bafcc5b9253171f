"""
The statements that store transcripts.

All lock in one order: the run, the slots in key order, then the keys of the transcripts. A worker that records the outcome of a slot does
the same, so that of the two one waits, and never both. A slot counts as leased while its worker's lease lasts, on the database's clock.
"""

from typing import Final

from stemmadb.evaluation._transcript_rows import COLUMNS, RECORD
from stemmadb.evaluation.entities import Transcript
from stemmadb.query import sql, sql_rows

# The slots are locked before a transcript is inserted, leased ones included: their workers hold the same lock while they insert theirs.
_GIVEN: Final = """
    WITH given AS MATERIALIZED (
        SELECT given.n, <columns>
          FROM json_to_recordset(CAST(:rows AS json)) AS given (<record>)
    ), run AS MATERIALIZED (
        SELECT runs.id
          FROM stemma.runs
         WHERE runs.workspace_id = :workspace_id AND runs.id = :run_id
           FOR KEY SHARE
    ), held AS MATERIALIZED (
        SELECT run_slots.scenario_id, run_slots.model, run_slots.sample_index,
               run_slots.status = 'RUNNING' AND run_slots.lease_expires_at > statement_timestamp() AS is_leased
          FROM given
          JOIN stemma.run_slots
            ON run_slots.workspace_id = :workspace_id
           AND run_slots.run_id = (SELECT run.id FROM run)
           AND run_slots.scenario_id = given.scenario_id
           AND run_slots.model = given.model
           AND run_slots.sample_index = given.sample_index
         ORDER BY run_slots.scenario_id, run_slots.model, run_slots.sample_index
           FOR NO KEY UPDATE OF run_slots
    )"""

# The old rows leave the live-slot key before the new ones enter it: counting them completes the UPDATE first.
_SUPERSEDED: Final = """, superseded AS (
        UPDATE stemma.transcripts AS old
           SET invalidated_at = now(), invalidated_reason = 'superseded by ' || given.id
          FROM given
         CROSS JOIN (SELECT count(*) FROM held) AS locked
         WHERE old.workspace_id = :workspace_id
           AND old.run_id = :run_id
           AND (old.scenario_id = given.scenario_id OR (old.scenario_id IS NULL AND given.scenario_id IS NULL))
           AND old.model = given.model
           AND old.sample_index = given.sample_index
           AND old.invalidated_at IS NULL
        RETURNING old.id
    )"""

# No attempt gave this outcome, so started_at goes: a late result of an attempt is told from a repeated one by it.
_FILLED: Final = """, filled AS (
        UPDATE stemma.run_slots AS slot
           SET status = 'COMPLETED', transcript_id = outcome.id, started_at = NULL, finished_at = statement_timestamp(),
               lease_owner = NULL, lease_expires_at = NULL, error_code = NULL, error_message = NULL
          FROM <source> AS outcome
          JOIN held
            ON held.scenario_id = outcome.scenario_id AND held.model = outcome.model AND held.sample_index = outcome.sample_index
         WHERE slot.workspace_id = :workspace_id
           AND slot.run_id = :run_id
           AND slot.scenario_id = held.scenario_id
           AND slot.model = held.model
           AND slot.sample_index = held.sample_index
           AND NOT held.is_leased
    )"""

_INSERT: Final = """
        INSERT INTO stemma.transcripts (workspace_id, run_id, <names>)
        SELECT :workspace_id, :run_id, <columns>
          FROM given
         CROSS JOIN (SELECT count(*) FROM <before>) AS before"""
# By key, so that two callers with the same keys in another order wait for each other instead of locking each other out.
_IN_KEY_ORDER: Final = """
         ORDER BY given.scenario_id, given.model, given.sample_index, given.n"""
_UNLESS_LIVE: Final = """
        ON CONFLICT (workspace_id, run_id, scenario_id, model, sample_index) WHERE invalidated_at IS NULL DO NOTHING"""
_ENTITY: Final = """
        RETURNING {columns}"""
_ADDED: Final = """, added AS (<insert>
        RETURNING transcripts.id, transcripts.scenario_id, transcripts.model, transcripts.sample_index
    )"""

# A stand-in for the scenario that there is not lets the first join hash its keys; the second one has an index.
_LIVE_OF_GIVEN: Final = """
    SELECT given.id AS given_id, coalesce(given.id = added.id, false) AS is_new, coalesce(added.id, live.id) AS id
      FROM given
      LEFT JOIN added
        ON coalesce(added.scenario_id, stemma_none.id) = coalesce(given.scenario_id, stemma_none.id)
       AND added.model = given.model
       AND added.sample_index = given.sample_index
      LEFT JOIN stemma.transcripts AS live
        ON live.workspace_id = :workspace_id
       AND live.run_id = :run_id
       AND (live.scenario_id = given.scenario_id OR (live.scenario_id IS NULL AND given.scenario_id IS NULL))
       AND live.model = given.model
       AND live.sample_index = given.sample_index
       AND live.invalidated_at IS NULL""".replace("stemma_none.id", "CAST('00000000-0000-0000-0000-000000000000' AS uuid)")
_NEW_OF_GIVEN: Final = """
    SELECT given.id AS given_id, added.id IS NOT NULL AS is_new, added.id
      FROM given
      LEFT JOIN added ON added.id = given.id
 UNION ALL
    SELECT NULL, false, superseded.id FROM superseded"""


def _joined(*parts: str) -> str:
    """Return the parts as one statement, with the columns of a given row in their places."""
    names = {"<names>": ", ".join(COLUMNS), "<columns>": ", ".join(f"given.{column}" for column in COLUMNS), "<record>": RECORD}
    text = "".join(parts)
    for mark, found in names.items():
        text = text.replace(mark, found)
    return text


def _inserted(before: str, *rest: str) -> str:
    return "".join((_INSERT.replace("<before>", before), *rest))


ADD: Final = sql(Transcript, _joined(_GIVEN, _FILLED.replace("<source>", "given"), _inserted("held", _ENTITY)))
"""One row. Yields the transcript."""

ADD_ALL: Final = sql_rows(_joined(_GIVEN, _FILLED.replace("<source>", "given"), _inserted("held", _IN_KEY_ORDER)))
"""All or none: a live transcript in the key of a row refuses the statement."""

SKIP_LIVE: Final = sql_rows(
    _joined(
        _GIVEN,
        _ADDED.replace("<insert>", _inserted("held", _IN_KEY_ORDER, _UNLESS_LIVE)),
        _FILLED.replace("<source>", "added"),
        _LIVE_OF_GIVEN,
    )
)
"""
Per row: the id that it was given, whether it was inserted, and the id of the transcript that is live in its key.

The id is NULL when somebody else's transcript came between: it was committed after this statement began, which therefore does not see it.
"""

# Whoever supersedes holds the run, so that two of them do not wait for each other's rows: each has invalidated some before it adds its own.
SUPERSEDE_LIVE: Final = sql_rows(
    _joined(
        _GIVEN.replace("FOR KEY SHARE", "FOR NO KEY UPDATE"),
        _SUPERSEDED,
        _ADDED.replace("<insert>", _inserted("superseded", _IN_KEY_ORDER, _UNLESS_LIVE)),
        _FILLED.replace("<source>", "added"),
        _NEW_OF_GIVEN,
    )
)
"""
As SKIP_LIVE, with the live transcripts of the keys invalidated first. Keys may not repeat among the rows.

The ids of those that were follow the rows; they have no given_id.
"""

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
