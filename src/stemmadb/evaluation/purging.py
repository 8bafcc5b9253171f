"""
Removing large runs.

    purging.purge_run(db, run_id, on_progress=print)

``runs.delete`` is one statement: PostgreSQL notes every transcript in memory until it has looked for its scores, and holds every lock until
the last row is gone. Here the run is ended first, so that nobody works on it any more, and its rows go in short transactions. What is left
says where to go on, so that to go on is to start again.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import UUID

from sqlalchemy.orm import Session

from stemmadb.database import Database
from stemmadb.entity import Id
from stemmadb.errors import NotFoundError, ValidationError
from stemmadb.evaluation._run_rows import PURGED, key_of, log
from stemmadb.evaluation.data import PurgeReport
from stemmadb.query import RowStatement, sql_rows

__all__ = ["purge_run", "PurgeReport"]

_MAX_BATCH: Final = 10_000
_NO_ID: Final = UUID(int=0)

# Whatever it was, from now on it is a run that was given up: workers claim nothing, slots are not retried, and it cannot be taken for one
# that was completed while its transcripts go. Whoever records outcomes holds the run FOR KEY SHARE, and is waited for.
_END: Final = sql_rows(
    f"""
    WITH held AS MATERIALIZED (
        SELECT runs.id
          FROM stemma.runs
         WHERE runs.workspace_id = :workspace_id AND runs.id = :run_id
           FOR UPDATE
    )
    UPDATE stemma.runs
       SET status = 'CANCELLED', error_code = '{PURGED}', error_message = 'purge_run has begun to remove this run',
           cancel_requested_at = coalesce(runs.cancel_requested_at, statement_timestamp()),
           completed_at = coalesce(runs.completed_at, greatest(runs.started_at, statement_timestamp()))
     WHERE runs.workspace_id = :workspace_id AND runs.id = (SELECT held.id FROM held)
    """  # noqa: S608  (of constants only)
)
_REMOVE: Final = sql_rows("DELETE FROM stemma.runs WHERE runs.workspace_id = :workspace_id AND runs.id = :run_id")


def _removal(table: str, types: dict[str, str]) -> RowStatement:
    """
    Return the statement that removes the next rows of a run from a table, in the order of an index that begins with these columns.

    Rows are found and removed by their place: by their keys, the planner may look through all of the run for each batch. A row that is
    changed while its lock is waited for has moved, and stays.
    """
    order = ", ".join(f"doomed.{column}" for column in types)
    last = ", ".join(f"CAST(:{column} AS {kind})" for column, kind in types.items())
    return sql_rows(
        f"""
        WITH doomed AS MATERIALIZED (
            SELECT doomed.ctid AS place, {order}
              FROM stemma.{table} AS doomed
             WHERE doomed.workspace_id = :workspace_id AND doomed.run_id = :run_id AND ({order}) > ({last})
             ORDER BY doomed.run_id, {order}
             LIMIT :batch
               FOR UPDATE
        ), gone AS (
            DELETE FROM stemma.{table} AS gone
             WHERE gone.workspace_id = :workspace_id AND gone.ctid = ANY(ARRAY(SELECT doomed.place FROM doomed))
            RETURNING 1
        )
        SELECT (SELECT count(*) FROM gone) AS removed, count(*) OVER () AS found, {order}
          FROM doomed
         ORDER BY {", ".join(f"{part} DESC" for part in order.split(", "))}
         LIMIT 1
        """  # noqa: S608  (of constants only)
    )


# In this order: a slot refers to its transcript.
_TABLES: Final[dict[str, tuple[RowStatement, dict[str, Any]]]] = {
    "slots": (
        _removal("run_slots", {"scenario_id": "uuid", "model": "text", "sample_index": "integer"}),
        {"scenario_id": _NO_ID, "model": "", "sample_index": -1},
    ),
    "transcripts": (
        _removal("transcripts", {"created_at": "timestamptz", "id": "uuid"}),
        {"created_at": "-infinity", "id": _NO_ID},
    ),
    "selected": (_removal("run_scenario_selection", {"scenario_id": "uuid"}), {"scenario_id": _NO_ID}),
}


@dataclass(frozen=True, slots=True)
class _Batch:
    """The next rows of a table."""

    statement: RowStatement
    run_id: UUID
    size: int
    behind: dict[str, Any]
    """The last row that went, by the columns of the order."""

    def __call__(self, session: Session) -> tuple[int, int, dict[str, Any] | None]:
        """Remove them; return how many went, how many stayed because they moved, and the last of them unless nothing lies behind it."""
        row = self.statement.first(session, run_id=self.run_id, batch=self.size, **self.behind)
        if row is None:
            return 0, 0, None
        last = {name: getattr(row, name) for name in self.behind} if row.found == self.size else None
        return row.removed, row.found - row.removed, last


def purge_run(
    db: Database,
    run_id: Id,
    *,
    workspace: str | UUID | None = None,
    batch: int = 2000,
    on_progress: Callable[[PurgeReport], object] | None = None,
) -> PurgeReport:
    """
    Remove a run of any size, with all that ``runs.delete`` removes, in short transactions and constant memory.

    The first transaction ends the run: CANCELLED, with "purged" for its error_code, whatever it was. Then slots, transcripts with their
    scores, and the selection go, so many rows to a transaction, and with the last one the run itself, its comparisons and its analyses.
    Nobody waits for longer than a batch takes. It may be killed at any point and called again; until it ends, what is left can be read.
    Each batch is repeated as ``Database.run`` repeats work. Locks the slots of a batch in key order, then the transcripts of a batch.

    Args:
        db: where; no session of the caller's is used.
        run_id: which run.
        workspace: slug or id of its workspace; None as for ``Database.session``.
        batch: rows in a transaction, 1 to 10,000, besides the scores of its transcripts.
        on_progress: called after each batch with what has gone so far.

    Returns:
        How many rows this call removed.

    Raises:
        NotFoundError: no run of this workspace has this id, or another purge has just removed it.
        ValidationError: batch is out of bounds; nothing was sent.
    """
    if isinstance(batch, bool) or not isinstance(batch, int) or not 1 <= batch <= _MAX_BATCH:
        raise ValidationError(f"batch is a whole number from 1 to {_MAX_BATCH:,}", "batch")
    key = key_of(run_id)
    report = PurgeReport(key)
    started = time.monotonic()

    def run(statement: Callable[[Session], Any]) -> Any:
        return db.run(statement, workspace=workspace)

    if not run(lambda session: _END.run(session, run_id=key)):
        log.warning("run %s was not found", key)
        raise NotFoundError("Run", key)
    for name, (statement, first) in _TABLES.items():
        behind, moved = first, 0
        while True:
            removed, stayed, last = run(_Batch(statement, key, batch, behind))
            moved += stayed
            report = replace(report, **{name: getattr(report, name) + removed}, seconds=time.monotonic() - started)
            if removed and on_progress is not None:
                on_progress(report)
            if last is None and moved == 0:
                break
            # Behind the last row there is nothing, but some stayed: once more from the first.
            behind, moved = (first, 0) if last is None else (last, moved)
    run(lambda session: _REMOVE.run(session, run_id=key))
    log.info("purged run %s: %d slots, %d transcripts", key, report.slots, report.transcripts)
    return replace(report, seconds=time.monotonic() - started)
