"""
Runs: a definition put to models, the slots that this takes, and what came out.

    run = runs.create(session, RunCreate(definition_id=definition.id, config=RunConfig(models=("openai:gpt-4o",), sample_percentage=10)))
    runs.start(session, run.id)
    for claim in runs.claim_slots(session, run.id, worker="w1", count=10):
        ...

A run probes its scenarios through slots, one for each scenario, model and sample, which workers lease; or it plans none and reports its
progress itself. Status changes are compare-and-swap: exactly one of concurrent callers wins.
"""

from collections.abc import Collection
from typing import Any, Final

from sqlalchemy import Select, bindparam, union_all
from sqlalchemy import delete as delete_from
from sqlalchemy import select as select_from
from sqlalchemy.orm import Session, aliased

from stemmadb._exports import adopt
from stemmadb.documents import OnInvalid, dump_json, keep_unreadable, resolve_unreadable
from stemmadb.documents._unreadable import check_on_invalid
from stemmadb.entity import Id, parse_reference
from stemmadb.errors import FrozenError, NotFoundError
from stemmadb.evaluation._definition_rows import key_of as definition_key_of
from stemmadb.evaluation._filtering import run_conditions
from stemmadb.evaluation._freezing import freeze_once
from stemmadb.evaluation._run_outcomes import complete_slot, fail_slot, record_outcomes
from stemmadb.evaluation._run_plan import (
    plan_slots,
    planned_total,
    probes,
    sampled,
    select,
    select_scenarios,
    selected_scenarios,
    unique,
)
from stemmadb.evaluation._run_progress import increment_progress, progress, progress_many, report_progress
from stemmadb.evaluation._run_repair import missing_slots, reconcile, retry_slots, skip_slots
from stemmadb.evaluation._run_rows import find_run, get_run, key_of, log
from stemmadb.evaluation._run_slots import claim_slots, list_slots, release_slots, renew_slots
from stemmadb.evaluation._run_status import claim_next, finish, pause, request_cancel, resume, set_status, start
from stemmadb.evaluation.data import (
    OutcomeKind,
    OutcomeResult,
    ReconcileReport,
    RunCreate,
    RunFilters,
    RunProgressReport,
    RunUpdate,
    RunWithTranscripts,
    SlotClaim,
    SlotKey,
    SlotOutcome,
)
from stemmadb.evaluation.documents import RunConfig, RunProgress
from stemmadb.evaluation.entities import Definition, Run, Transcript
from stemmadb.evaluation.vocabularies import RunStatus, SlotStatus
from stemmadb.paging import Page, page
from stemmadb.query import sql, tenant_query

__all__ = [
    "create",
    "get",
    "find",
    "get_with_transcripts",
    "list_all",
    "list_for_tree",
    "update",
    "delete",
    # status
    "set_status",
    "start",
    "pause",
    "resume",
    "request_cancel",
    "finish",
    "claim_next",
    # progress
    "progress",
    "progress_many",
    "report_progress",
    "increment_progress",
    # slots
    "plan_slots",
    "claim_slots",
    "renew_slots",
    "record_outcomes",
    "complete_slot",
    "fail_slot",
    "skip_slots",
    "retry_slots",
    "release_slots",
    "list_slots",
    "missing_slots",
    "reconcile",
    # selection
    "select_scenarios",
    "selected_scenarios",
    # types
    "RunCreate",
    "RunUpdate",
    "RunFilters",
    "RunConfig",
    "RunProgress",
    "RunStatus",
    "RunWithTranscripts",
    "RunProgressReport",
    "SlotStatus",
    "SlotKey",
    "SlotClaim",
    "SlotOutcome",
    "OutcomeKind",
    "OutcomeResult",
    "ReconcileReport",
]


@tenant_query
def create(session: Session, data: RunCreate) -> Run:
    """
    Make a run, PENDING, and freeze its definition.

    ``scenario_ids``, or a sample as the configuration describes it, become the run's selection. The progress starts at zero, with the
    transcripts that the selection makes as its total: scenarios x models x samples. Locks the definition, if this is its first reference.

    Raises:
        ReferenceNotFoundError: the definition, the experiment or a scenario does not exist in this workspace.
        ValidationError: an id is malformed.
    """
    data = RunCreate.of(data)
    definition_id = parse_reference(data.definition_id, "definition_id")
    scenario_ids = None if data.scenario_ids is None else unique(data.scenario_ids)
    with session.begin_nested():
        freeze_once(session, definition_id)
        if scenario_ids is None:
            scenario_ids = sampled(session, definition_id, data.config)
        run = Run(
            definition_id=definition_id,
            experiment_id=None if data.experiment_id is None else parse_reference(data.experiment_id, "experiment_id"),
            name=data.name,
            config=data.config,
            progress=RunProgress(total=probes(len(scenario_ids or ()), data.config)),
            created_by_id=None if data.created_by_id is None else parse_reference(data.created_by_id, "created_by_id"),
        )
        session.add(run)
        session.flush()
        select(session, run.id, scenario_ids or ())
    log.info("created run %r of definition %s: %s", run.name, definition_id, run.id)
    return run


@tenant_query
def get(session: Session, run_id: Id) -> Run:
    """
    Return a run.

    Raises:
        CorruptDocumentError, UnknownSchemaVersionError: its configuration or progress cannot be read.
        NotFoundError: no run of this workspace has this id.
    """
    return get_run(session, key_of(run_id))


@tenant_query
def find(session: Session, run_id: Id) -> Run | None:
    """
    Return a run, or None.

    Raises:
        CorruptDocumentError, UnknownSchemaVersionError: its configuration or progress cannot be read.
    """
    try:
        key = key_of(run_id)
    except NotFoundError:
        return None
    return find_run(session, key)


_TRANSCRIPTS: Final = {
    include_invalidated: select_from(Transcript)
    .where(Transcript.run_id == bindparam("run_id"), *([] if include_invalidated else [Transcript.invalidated_at.is_(None)]))
    .order_by(Transcript.created_at, Transcript.id)
    for include_invalidated in (True, False)
}


@tenant_query
def get_with_transcripts(
    session: Session, run_id: Id, *, include_invalidated: bool = False, on_invalid: OnInvalid = "raise"
) -> RunWithTranscripts:
    """
    Return a run with all of its transcripts, by created_at, id. Two statements.

    Dialogues are not fetched: ``transcripts.iter_for_run`` streams them, ``transcripts.get_content`` reads one.

    Args:
        session: the caller's session, in a workspace.
        run_id: which run.
        include_invalidated: also those that were invalidated.
        on_invalid: what becomes of a transcript whose metrics cannot be read: "raise" refuses all of them, "skip" leaves it out, "raw" puts
            a RawDocument in their place.

    Raises:
        CorruptDocumentError, UnknownSchemaVersionError: the run's documents cannot be read, or a transcript's and on_invalid is "raise".
        NotFoundError: no run of this workspace has this id.
    """
    check_on_invalid(on_invalid)
    run = get_run(session, key_of(run_id))
    with keep_unreadable():
        found = session.scalars(_TRANSCRIPTS[include_invalidated], {"run_id": run.id}).all()
    return RunWithTranscripts(run, resolve_unreadable(found, on_invalid))


@tenant_query
def list_all(
    session: Session,
    filters: RunFilters | None = None,
    *,
    cursor: str | None = None,
    limit: int = 50,
    with_total: bool = False,
    on_invalid: OnInvalid = "raise",
) -> Page[Run]:
    """
    Return runs, newest first. One statement.

    Args:
        session: the caller's session, in a workspace.
        filters: what they are narrowed to; None: nothing.
        cursor: ``next_cursor`` of the page before; None starts at the first.
        limit: 1 to 200.
        with_total: also count all runs that match, in the same snapshot.
        on_invalid: what becomes of a run whose configuration or progress cannot be read: "raise" refuses the page, "skip" leaves it out
            (the page is shorter then), "raw" puts a RawDocument in the document's place.

    Raises:
        CorruptDocumentError, UnknownSchemaVersionError: a document cannot be read and on_invalid is "raise".
        InvalidCursorError: the cursor is not of this list with these filters.
    """
    log.debug("listing runs: %s", filters)
    statement = select_from(Run).where(*run_conditions(filters))
    return _page(session, statement, cursor=cursor, limit=limit, with_total=with_total, on_invalid=on_invalid)


@tenant_query
def list_for_tree(
    session: Session,
    root_definition_id: Id,
    *,
    statuses: Collection[RunStatus] = (),
    cursor: str | None = None,
    limit: int = 50,
    on_invalid: OnInvalid = "raise",
) -> Page[Run]:
    """
    Return the runs of a definition and of all its descendants, newest first.

    One statement: for a root by the id of the tree, for another version by a recursion over ids.

    Args:
        session: the caller's session, in a workspace.
        root_definition_id: the top of the tree; it need not be a root. An unknown one has no runs.
        statuses: only runs that stand so; empty: all.
        cursor: ``next_cursor`` of the page before; None starts at the first.
        limit: 1 to 200.
        on_invalid: as for list_all.

    Raises:
        CorruptDocumentError, UnknownSchemaVersionError: a document cannot be read and on_invalid is "raise".
        InvalidCursorError: the cursor is not of this list with these filters.
        NotFoundError: root_definition_id is malformed.
    """
    key = definition_key_of(root_definition_id)
    log.debug("listing runs of the tree of definition %s", key)
    statement = _standing(_of_tree(key), statuses)
    return _page(session, statement, cursor=cursor, limit=limit, with_total=False, on_invalid=on_invalid)


def _of_tree(top_id: Any) -> Select[Any]:
    """Rows carry the id of their root, and only a root has rows under its id; the walk leaves roots out: one of the two halves is empty."""
    line = (
        select_from(Definition.workspace_id, Definition.id)
        .where(Definition.id == top_id, Definition.parent_id.is_not(None))
        .cte("line", recursive=True)
    )
    child = aliased(Definition, name="child")
    line = line.union_all(
        select_from(child.workspace_id, child.id).where(child.workspace_id == line.c.workspace_id, child.parent_id == line.c.id)
    )
    return select_from(Run).where(
        Run.definition_id.in_(union_all(select_from(Definition.id).where(Definition.root_id == top_id), select_from(line.c.id)))
    )


def _standing(statement: Select[Any], statuses: Collection[RunStatus]) -> Select[Any]:
    return statement.where(Run.status.in_(sorted(statuses))) if statuses else statement


def _page(
    session: Session, statement: Select[Any], *, cursor: str | None, limit: int, with_total: bool, on_invalid: OnInvalid
) -> Page[Run]:
    # Workers change runs all the time: those that the session has read before are brought up to date.
    statement = statement.execution_options(populate_existing=True)
    order = [Run.created_at.desc()]
    return page(session, statement, order_by=order, cursor=cursor, limit=limit, with_total=with_total, on_invalid=on_invalid)


# The configuration may change while nothing was made of it: neither slots nor a start.
_UPDATE: Final = sql(
    Run,
    f"""
    UPDATE stemma.runs
       SET name = CASE WHEN :has_name THEN CAST(:name AS text) ELSE runs.name END,
           config = coalesce(CAST(:config AS jsonb), runs.config)
     WHERE runs.workspace_id = :workspace_id AND runs.id = :id
       AND (CAST(:config AS jsonb) IS NULL
            OR runs.status = 'PENDING' AND runs.slot_count IS NULL AND runs.config_version BETWEEN 0 AND {RunConfig.newest_version})
    RETURNING {{columns}}
    """,  # noqa: S608  (of constants only)
)


@tenant_query
def update(session: Session, run_id: Id, data: RunUpdate) -> Run:
    """
    Change the name of a run, and its configuration before the start.

    One guarded UPDATE. With a configuration the total of the progress follows, as long as nothing was reported: a statement more.

    Raises:
        FrozenError: a configuration is given, and the run has started or planned its slots.
        NotFoundError: no run of this workspace has this id.
        UnknownSchemaVersionError: a newer release wrote the stored configuration.
    """
    key = key_of(run_id)
    changes = RunUpdate.of(data).changes()
    config = changes.get("config")
    with session.begin_nested():
        run = _UPDATE.write(
            session,
            id=key,
            has_name="name" in changes,
            name=changes.get("name"),
            config=None if config is None else dump_json(config),
        )
        if run is None:
            get_run(session, key)
            raise FrozenError("Run", key, "the configuration of a run that has started or planned its slots stays as it is")
        if config is not None and run.progress is not None and run.progress.completed == run.progress.failed == 0:
            total = planned_total(session, key, config)
            if total:
                run.progress = run.progress.replace(total=total)
                session.flush()
    return run


_DELETE: Final = delete_from(Run).where(Run.id == bindparam("id")).returning(Run.id)


@tenant_query
def delete(session: Session, run_id: Id) -> None:
    """
    Delete a run, with its slots, selection, transcripts, scores, comparisons and analyses. One statement.

    With very many transcripts it takes long, holds all of their locks and notes each in the server's memory: ``purging.purge_run``
    does not.

    Raises:
        NotFoundError: no run of this workspace has this id.
    """
    key = key_of(run_id)
    deleted = session.execute(_DELETE, {"id": key}, execution_options={"synchronize_session": "fetch"}).scalar()
    if deleted is None:
        get_run(session, key)
    log.info("deleted run %s", key)


adopt(globals())
