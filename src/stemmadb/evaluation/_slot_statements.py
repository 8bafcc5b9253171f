"""
Pieces of the statements about slots.

The planner's statistics cannot keep up with runs: one that was planned a moment ago looks as if it had a single slot, and a join by key may
then read all slots of the run for each of its rows. Two things are therefore written so that they need no estimate.

A row is looked up as the first one that is not before its key, in the order of the key: only the index on the whole key gives that.

Locked rows are updated by an INSERT that always meets its conflict. It goes through the primary key, row by row, in the order given. The
row that it proposes must obey the CHECKs, although it is never inserted.
"""

from typing import Final

KEY: Final = "run_id, scenario_id, model, sample_index"

INSERT_KEY: Final = f"INSERT INTO stemma.run_slots (workspace_id, {KEY}"
"""Opens the INSERT; further columns and a closing bracket follow."""

UPDATE: Final = f"ON CONFLICT (workspace_id, {KEY}) DO UPDATE SET"
"""What changes follows: the old row is ``run_slots``, the proposed one ``excluded``."""


def key_in(alias: str) -> str:
    """Return the columns of a slot's key under an alias."""
    return ", ".join(f"{alias}.{column}" for column in KEY.split(", "))


def locked_slot(given: str) -> str:
    """
    Return the sub-select, for a LATERAL join, that locks the slot at or behind a key and yields its columns.

    Compare it with ``is_key``: behind the key of a slot that is gone lies another one.
    """
    return f"""(
            SELECT {key_in("slot")}, slot.status, slot.attempt, slot.started_at, slot.queued_at, slot.available_at,
                   slot.transcript_id, slot.lease_owner
              FROM stemma.run_slots AS slot
             WHERE slot.workspace_id = :workspace_id AND ({key_in("slot")}) >= ({key_in(given)})
             ORDER BY {key_in("slot")}
             LIMIT 1
               FOR NO KEY UPDATE)"""  # noqa: S608  (of constants only)


def live_transcript(slot: str) -> str:
    """Return the sub-select, for a LATERAL join, that yields the live transcript at or behind a slot's key. Compare it with ``is_key``."""
    return f"""(
            SELECT live.id, {key_in("live")}
              FROM stemma.transcripts AS live
             WHERE live.workspace_id = :workspace_id AND live.invalidated_at IS NULL AND ({key_in("live")}) >= ({key_in(slot)})
             ORDER BY {key_in("live")}
             LIMIT 1)"""  # noqa: S608  (of constants only)


def is_key(found: str, wanted: str) -> str:
    """Return the condition that two rows have the same key."""
    return f"({key_in(found)}) = ({key_in(wanted)})"
