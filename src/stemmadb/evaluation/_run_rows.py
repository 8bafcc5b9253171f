"""What the modules about runs share: ids as callers give them, the row of a run, rows that are missing."""

import logging
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row
from sqlalchemy.orm import Session

from stemmadb.entity import Id, parse_id
from stemmadb.errors import NotFoundError
from stemmadb.evaluation.data import SlotKey
from stemmadb.evaluation.documents import RunConfig
from stemmadb.evaluation.entities import Run
from stemmadb.query import read, sql

# The private modules of the pack log under the name that callers import.
log = logging.getLogger("stemmadb.evaluation.runs")

_LOCKED: Final = sql(Run, "SELECT {columns} FROM stemma.runs WHERE runs.workspace_id = :workspace_id AND runs.id = :id FOR NO KEY UPDATE")

PURGED: Final = "purged"
"""The error_code of a run that ``purging.purge_run`` is removing."""

MAX_ATTEMPTS: Final = f"coalesce(CAST(run.config ->> 'max_attempts' AS integer), {RunConfig.model_fields['max_attempts'].default})"
"""SQL: how often a slot of ``run`` is tried. The key has been called so since version 0, where it may be absent."""
LEASE_SECONDS: Final = f"coalesce(CAST(run.config ->> 'lease_seconds' AS integer), {RunConfig.model_fields['lease_seconds'].default})"
"""SQL: how long a slot of ``run`` is leased unless the worker says otherwise, likewise."""


def key_of(run_id: Id) -> UUID:
    """
    Return the id as a UUID.

    Raises:
        NotFoundError: it is malformed, so no run has it.
    """
    try:
        return parse_id(run_id, "Run")
    except NotFoundError:
        log.warning("run %r was not found: that is no id", run_id)
        raise


def find_run(session: Session, key: UUID) -> Run | None:
    """Return the run as it is now, also when the session has read it before; None when there is none."""
    log.debug("reading run %s", key)
    run = read(session, Run, key)
    if run is None:
        log.warning("run %s was not found", key)
    return run


def get_run(session: Session, key: UUID) -> Run:
    """
    Return the run as it is now.

    Raises:
        NotFoundError: no run of this workspace has this id.
    """
    run = find_run(session, key)
    if run is None:
        raise NotFoundError("Run", key)
    return run


def key_of_row(row: Row[Any]) -> SlotKey:
    """Return the key of the slot that a row is about."""
    return SlotKey(row.run_id, row.scenario_id, row.model, row.sample_index)


def lock_run(session: Session, key: UUID) -> Run:
    """
    Return the run, locked FOR NO KEY UPDATE until the transaction ends.

    Whoever makes a finished slot unfinished holds this lock, and whoever decides by the slots that a run is finished takes it before
    counting them: the count is read by a later statement, which sees what the holder before has done.

    Raises:
        NotFoundError: no run of this workspace has this id.
    """
    run = _LOCKED.write(session, id=key)
    if run is None:
        log.warning("run %s was not found", key)
        raise NotFoundError("Run", key)
    return run
