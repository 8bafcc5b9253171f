"""
Pieces of the statements about slots.

The planner's statistics cannot keep up with runs: one that was planned a moment ago looks as if it had a single slot, and a join by key
may then read all slots of the run for each of its rows. Slots are therefore updated by an INSERT that meets its conflict. It goes through
the primary key, row by row, in the order given, whatever the planner thinks; a row that is locked by somebody else is waited for and comes
as it is then; and WHERE decides by that.

The row that it proposes must obey the CHECKs, although it is not to be inserted, and it has NO_SUCH_SLOT for queued_at: that it comes back
means that there was no slot with this key.
"""

from typing import Final

KEY: Final = "run_id, scenario_id, model, sample_index"

INSERT_KEY: Final = f"INSERT INTO stemma.run_slots (workspace_id, {KEY}"
"""Opens the INSERT; further columns and a closing bracket follow."""

UPDATE: Final = f"ON CONFLICT (workspace_id, {KEY}) DO UPDATE SET"
"""What changes follows: the old row is ``run_slots``, the proposed one ``excluded``."""

NO_SUCH_SLOT: Final = "CAST('-infinity' AS timestamptz)"


def key_in(alias: str) -> str:
    """Return the columns of a slot's key under an alias."""
    return ", ".join(f"{alias}.{column}" for column in KEY.split(", "))


def locked_slot(given: str) -> str:
    """
    Return the sub-select, for a LATERAL join, that locks the slot at or behind the key of a row and yields its columns.

    In the order of the key only the first row is wanted, so the index on the whole key is taken. Behind the key of a slot that is not there
    lies another one: compare the keys.
    """
    return f"""(
            SELECT {key_in("slot")}, slot.status, slot.attempt, slot.started_at, slot.transcript_id, slot.lease_owner
              FROM stemma.run_slots AS slot
             WHERE slot.workspace_id = :workspace_id AND ({key_in("slot")}) >= ({key_in(given)})
             ORDER BY {key_in("slot")}
             LIMIT 1
               FOR NO KEY UPDATE)"""  # noqa: S608  (of constants only)


def live_transcript(slot: str) -> str:
    """Return the sub-select, for a LATERAL join, that yields the live transcript at or behind the key of a slot, likewise."""
    return f"""(
            SELECT live.id, {key_in("live")}
              FROM stemma.transcripts AS live
             WHERE live.workspace_id = :workspace_id AND live.invalidated_at IS NULL AND ({key_in("live")}) >= ({key_in(slot)})
             ORDER BY {key_in("live")}
             LIMIT 1)"""  # noqa: S608  (of constants only)
