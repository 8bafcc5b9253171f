"""
How far runs are. Import these functions from ``stemmadb.evaluation.runs``.

The progress of a run with slots is counted from them whenever it is asked for, and nothing is stored beside them that could drift. A run
without slots reports its own.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NoReturn
from uuid import UUID

from sqlalchemy import Row
from sqlalchemy.orm import Session

from stemmadb.documents import dump_json, write_version
from stemmadb.entity import Id, parse_id
from stemmadb.errors import (
    DocumentError,
    InvalidTransitionError,
    NotFoundError,
    ProgressDerivedError,
    ValidationError,
)
from stemmadb.evaluation._run_rows import get_run, key_of, log
from stemmadb.evaluation.data import RunProgressReport
from stemmadb.evaluation.documents import RunProgress
from stemmadb.evaluation.entities import Run
from stemmadb.evaluation.vocabularies import RunStatus
from stemmadb.query import sql, sql_rows, tenant_query

# Status and run are in run_slots_run_id_status_available_at_idx: no slot is fetched.
_PROGRESS: Final = sql_rows(
    """
    SELECT run.id, run.status, run.slot_count, CAST(run.progress AS text) AS progress, run.started_at,
           coalesce(run.completed_at, statement_timestamp()) AS until,
           slot.completed, slot.failed, slot.skipped, slot.running, slot.queued
      FROM stemma.runs AS run
     CROSS JOIN LATERAL (
         SELECT count(*) FILTER (WHERE run_slots.status = 'COMPLETED') AS completed,
                count(*) FILTER (WHERE run_slots.status = 'FAILED') AS failed,
                count(*) FILTER (WHERE run_slots.status = 'SKIPPED') AS skipped,
                count(*) FILTER (WHERE run_slots.status = 'RUNNING') AS running,
                count(*) FILTER (WHERE run_slots.status = 'QUEUED') AS queued
           FROM stemma.run_slots
          WHERE run_slots.workspace_id = :workspace_id AND run_slots.run_id = run.id
     ) AS slot
     WHERE run.workspace_id = :workspace_id AND run.id = ANY(CAST(:run_ids AS uuid[]))
    """
)


@tenant_query
def progress(session: Session, run_id: Id) -> RunProgressReport:
    """
    Return how far a run is: counted from its slots, by a scan of an index alone, or as it reported itself.

    Raises:
        CorruptDocumentError, UnknownSchemaVersionError: the reported progress cannot be read.
        NotFoundError: no run of this workspace has this id.
    """
    key = key_of(run_id)
    log.debug("reading the progress of run %s", key)
    row = _PROGRESS.first(session, run_ids=[key])
    if row is None:
        log.warning("run %s was not found", key)
        raise NotFoundError("Run", key)
    return _report(row)


@tenant_query
def progress_many(session: Session, run_ids: Sequence[Id]) -> dict[UUID, RunProgressReport]:
    """
    Return how far each of the runs is, by its id; as progress, in one statement. Runs that this workspace does not have are left out.

    Raises:
        CorruptDocumentError, UnknownSchemaVersionError: a reported progress cannot be read.
    """
    keys = {key for key in map(_known, run_ids) if key is not None}
    log.debug("reading the progress of %d runs", len(keys))
    rows = _PROGRESS.all(session, run_ids=sorted(keys)) if keys else ()
    return {row.id: _report(row) for row in rows}


def _known(run_id: Id) -> UUID | None:
    try:
        return parse_id(run_id, "Run")
    except NotFoundError:
        return None


def _report(row: Row[Any]) -> RunProgressReport:
    if row.slot_count is None:
        try:
            done = RunProgress.load(row.progress)
        except DocumentError as error:
            raise error.located("runs", "progress", row.id) from None
        return RunProgressReport(done.total, done.completed, done.failed, done.skipped, 0, done.pending, "reported")
    outcomes = row.completed + row.failed
    elapsed: timedelta | None = row.until - row.started_at if row.started_at is not None else None
    pace = outcomes * 60 / elapsed.total_seconds() if outcomes and elapsed else None
    left = row.running + row.queued
    return RunProgressReport(
        total=row.slot_count,
        completed=row.completed,
        failed=row.failed,
        skipped=row.skipped,
        running=row.running,
        queued=row.queued,
        source="slots",
        per_minute=pace,
        eta=_eta(row.until, left / pace) if pace and left and row.status == RunStatus.RUNNING else None,
    )


def _eta(now: datetime, minutes: float) -> datetime | None:
    try:
        return now + timedelta(minutes=minutes)
    except OverflowError:
        return None


_FINISHED: Final = "('COMPLETED', 'PARTIAL', 'FAILED', 'CANCELLED')"
_CHANGEABLE: Final = f"""
     WHERE runs.workspace_id = :workspace_id AND runs.id = :id AND runs.slot_count IS NULL AND runs.status NOT IN {_FINISHED}
       AND stemma.stemma_document_version(runs.progress) BETWEEN 0 AND {RunProgress.newest_version}"""

_REPORT: Final = sql(
    Run,
    f"""
    UPDATE stemma.runs SET progress = CAST(:progress AS jsonb){_CHANGEABLE}
    RETURNING {{columns}}
    """,  # noqa: S608  (of constants only)
)


@tenant_query
def report_progress(session: Session, run_id: Id, progress: RunProgress) -> Run:
    """
    Store the progress of a run without slots, in place of what was reported before.

    One UPDATE. Of two reports at once the later one stays: workers that share a run use increment_progress.

    Raises:
        InvalidTransitionError: the run is finished.
        NotFoundError: no run of this workspace has this id.
        ProgressDerivedError: the run has slots.
        UnknownSchemaVersionError: a newer release reported the stored progress.
    """
    key = key_of(run_id)
    run = _REPORT.write(session, id=key, progress=dump_json(progress))
    if run is None:
        _explain(get_run(session, key))
    return run


_TOTAL: Final = "coalesce(CAST(runs.progress ->> 'total' AS bigint), 0)"
_COMPLETED: Final = "coalesce(CAST(runs.progress ->> 'completed' AS bigint), 0)"
_FAILED: Final = "coalesce(CAST(runs.progress ->> 'failed' AS bigint), 0)"
# As the steps read it: before version 2 the key is one that a step down has left, and counts as far as there is room.
_SKIPPED: Final = f"""CASE
        WHEN stemma.stemma_document_version(runs.progress) >= 2 THEN coalesce(CAST(runs.progress ->> 'skipped' AS bigint), 0)
        WHEN jsonb_typeof(runs.progress -> 'skipped') = 'number' AND runs.progress ->> 'skipped' ~ '^[0-9]+$'
        THEN CAST(least(CAST(runs.progress ->> 'skipped' AS numeric), {_TOTAL} - {_COMPLETED} - {_FAILED}) AS bigint)
        ELSE 0
    END"""
REPORTED: Final = {"total": _TOTAL, "completed": _COMPLETED, "failed": _FAILED, "skipped": _SKIPPED}
"""SQL: the counts in ``runs.progress``, of whatever version it is."""
_STEPPED: Final = (
    f"{_COMPLETED} + CAST(:completed AS bigint)",
    f"{_FAILED} + CAST(:failed AS bigint)",
    f"{_SKIPPED} + CAST(:skipped AS bigint)",
)

# The expressions are evaluated on the row as it is once it is locked, so no increment is lost. The document is written whole, at the
# version that is written: counts may be absent in what is stored, and unknown keys stay. Version 1, to which a step leads down, is the same
# but for its number.
_INCREMENT: Final = sql(
    Run,
    f"""
    UPDATE stemma.runs
       SET progress = runs.progress || jsonb_build_object(
               'schema_version', CAST(:version AS integer),
               'total', {_TOTAL}, 'completed', {_STEPPED[0]}, 'failed', {_STEPPED[1]}, 'skipped', {_STEPPED[2]}){_CHANGEABLE}
       AND {_STEPPED[0]} + {_STEPPED[1]} + {_STEPPED[2]} <= {_TOTAL}
    RETURNING {{columns}}
    """,  # noqa: S608  (of constants only)
)
_MOST: Final = 2**62


@tenant_query
def increment_progress(session: Session, run_id: Id, *, completed: int = 0, failed: int = 0, skipped: int = 0) -> Run:
    """
    Add to the reported progress of a run without slots. One atomic UPDATE: exact, however many workers do so at once.

    Args:
        session: the caller's session, in a workspace.
        run_id: which run.
        completed: how many more are completed, at least 0.
        failed: how many more have failed, at least 0.
        skipped: how many more are not going to be done, at least 0.

    Raises:
        InvalidTransitionError: the run is finished.
        NotFoundError: no run of this workspace has this id.
        ProgressDerivedError: the run has slots.
        UnknownSchemaVersionError: a newer release reported the stored progress.
        ValidationError: an argument is negative, or completed, failed and skipped would be more than total.
    """
    steps = {"completed": completed, "failed": failed, "skipped": skipped}
    for name, count in steps.items():
        if not 0 <= count < _MOST:
            raise ValidationError(f"{name} cannot be negative, nor beyond 64 bits", name)
    key = key_of(run_id)
    run = _INCREMENT.write(session, id=key, version=write_version(RunProgress), **steps)
    if run is None:
        _explain(get_run(session, key))
    return run


def _explain(run: Run) -> NoReturn:
    """Raise what stood against a change of the progress."""
    if run.slot_count is not None:
        raise ProgressDerivedError(run.id)
    if run.completed_at is not None:
        raise InvalidTransitionError(run.status, RunStatus.RUNNING, f"Run {run.id}")
    total = run.progress.total if run.progress is not None else 0
    raise ValidationError(f"completed, failed and skipped would be more than the total of {total}: report the total first", "completed")
