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
    Return the sub-select, for a LATERAL join, that locks the slot with the key of a row, if there is one, and yields its columns.

    The key is given as two bounds: with equations the planner may take another index, and with an order and a limit it takes this one;
    but for statistics of a table that was emptied and has kept large indexes, until autovacuum has analysed it again.
    """
    return f"""(
            SELECT {key_in("slot")}, slot.status, slot.attempt, slot.started_at, slot.transcript_id, slot.lease_owner, slot.lease_expires_at
              FROM stemma.run_slots AS slot
             WHERE slot.workspace_id = :workspace_id
               AND ({key_in("slot")}) >= ({key_in(given)}) AND ({key_in("slot")}) <= ({key_in(given)})
             ORDER BY {key_in("slot")}
             LIMIT 1
               FOR NO KEY UPDATE)"""  # noqa: S608  (of constants only)


def live_transcript(given: str, lock: str = "") -> str:
    """Return the sub-select, for a LATERAL join, that yields the live transcript with the key of a row, likewise."""
    return f"""(
            SELECT live.id
              FROM stemma.transcripts AS live
             WHERE live.workspace_id = :workspace_id AND live.invalidated_at IS NULL
               AND ({key_in("live")}) >= ({key_in(given)}) AND ({key_in("live")}) <= ({key_in(given)})
             ORDER BY {key_in("live")}
             LIMIT 1 {lock})"""  # noqa: S608  (of constants only)


def live_without_scenario(given: str, lock: str = "") -> str:
    """Return the same for a row whose key has no scenario, with which no comparison is true."""
    rest, wanted = ", ".join(("live.model", "live.sample_index")), f"{given}.model, {given}.sample_index"
    return f"""(
            SELECT live.id
              FROM stemma.transcripts AS live
             WHERE live.workspace_id = :workspace_id AND live.run_id = {given}.run_id AND live.scenario_id IS NULL
               AND live.invalidated_at IS NULL AND ({rest}) >= ({wanted}) AND ({rest}) <= ({wanted})
             ORDER BY {key_in("live")}
             LIMIT 1 {lock})"""  # noqa: S608  (of constants only)
