"""
Experiments: a hypothesis, a plan that is fixed before results are seen, and the runs made for it.

    experiment = experiments.create(session, ExperimentCreate(name="Shorter preamble", analysis_plan=AnalysisPlan(alpha=0.05)))
    experiments.add_run(session, experiment.id, run.id)

The first run that starts freezes the plan. From then on it changes by amendments only, each with a reason.
"""

from collections.abc import Collection
from typing import Any, Final

from sqlalchemy import bindparam, select
from sqlalchemy import delete as delete_from
from sqlalchemy.orm import Session

from stemmadb._exports import adopt
from stemmadb.data import checked_member, checked_text
from stemmadb.documents import OnInvalid, dump_json, keep_unreadable, resolve_unreadable
from stemmadb.documents._unreadable import check_on_invalid
from stemmadb.entity import Id, parse_reference
from stemmadb.errors import ConflictError, FrozenError, InvalidTransitionError, NotFoundError, ValidationError, VersionConflictError
from stemmadb.evaluation._experiment_plans import (
    amend_plan,
    find_experiment,
    freeze_plan,
    get_experiment,
    key_of,
    list_amendments,
    lock_experiment,
    log,
    plan_in_force,
)
from stemmadb.evaluation._run_rows import get_run
from stemmadb.evaluation._run_rows import key_of as run_key_of
from stemmadb.evaluation.data import ExperimentCreate, ExperimentUpdate, ExperimentWithRuns
from stemmadb.evaluation.documents import AnalysisPlan
from stemmadb.evaluation.entities import Experiment, Run
from stemmadb.evaluation.vocabularies import ExperimentStatus
from stemmadb.paging import Page, page
from stemmadb.query import sql, sql_rows, tenant_query

__all__ = [
    "create",
    "get",
    "find",
    "get_with_runs",
    "list_all",
    "update",
    "freeze_plan",
    "amend_plan",
    "plan_in_force",
    "list_amendments",
    "add_run",
    "remove_run",
    "conclude",
    "archive",
    "delete",
    "ExperimentCreate",
    "ExperimentUpdate",
    "ExperimentWithRuns",
    "OnInvalid",
]


@tenant_query
def create(session: Session, data: ExperimentCreate) -> Experiment:
    """
    Store an experiment, in status DRAFT.

    Raises:
        ReferenceNotFoundError: there is no such user.
        ValidationError: created_by_id is malformed.
    """
    data = ExperimentCreate.of(data)
    created_by = None if data.created_by_id is None else parse_reference(data.created_by_id, "created_by_id")
    values = data.model_dump(include={"name", "hypothesis", "null_hypothesis", "description"})
    experiment = Experiment(**values, analysis_plan=data.analysis_plan, created_by_id=created_by)
    with session.begin_nested():
        session.add(experiment)
        session.flush()
    log.info("created experiment %r: %s", experiment.name, experiment.id)
    return experiment


@tenant_query
def get(session: Session, experiment_id: Id) -> Experiment:
    """
    Return an experiment.

    Raises:
        NotFoundError: no experiment of this workspace has this id.
        UnknownSchemaVersionError, CorruptDocumentError: its plan cannot be read.
    """
    return get_experiment(session, key_of(experiment_id))


@tenant_query
def find(session: Session, experiment_id: Id) -> Experiment | None:
    """
    Return an experiment, or None.

    Raises:
        UnknownSchemaVersionError, CorruptDocumentError: its plan cannot be read.
    """
    try:
        key = key_of(experiment_id)
    except NotFoundError:
        return None
    return find_experiment(session, key)


_RUNS: Final = select(Run).where(Run.experiment_id == bindparam("experiment_id")).order_by(Run.created_at.desc(), Run.id.desc())


@tenant_query
def get_with_runs(session: Session, experiment_id: Id, *, on_invalid: OnInvalid = "raise") -> ExperimentWithRuns:
    """
    Return an experiment with all of its runs, newest first. Two statements.

    Args:
        session: the caller's session, in a workspace.
        experiment_id: which one.
        on_invalid: what becomes of a run whose configuration or progress cannot be read: "raise" refuses all of them, "skip" leaves it out,
            "raw" puts a RawDocument in the document's place.

    Raises:
        NotFoundError: no experiment of this workspace has this id.
        UnknownSchemaVersionError, CorruptDocumentError: its plan cannot be read, or a run's documents and on_invalid is "raise".
    """
    check_on_invalid(on_invalid)
    experiment = get_experiment(session, key_of(experiment_id))
    with keep_unreadable():
        found = session.scalars(_RUNS, {"experiment_id": experiment.id}, execution_options={"populate_existing": True}).all()
    return ExperimentWithRuns(experiment, resolve_unreadable(found, on_invalid))


@tenant_query
def list_all(
    session: Session,
    *,
    statuses: Collection[ExperimentStatus] = (),
    name_contains: str | None = None,
    cursor: str | None = None,
    limit: int = 50,
    on_invalid: OnInvalid = "raise",
) -> Page[Experiment]:
    """
    Return a page of experiments, newest first. One statement.

    Args:
        session: the caller's session, in a workspace.
        statuses: only experiments that stand so; empty: all.
        name_contains: only names with this text; letter case counts, ``%`` and ``_`` are themselves.
        cursor: the ``next_cursor`` of the page before.
        limit: the most experiments, 1 to 200.
        on_invalid: what becomes of an experiment whose plan cannot be read: "raise" refuses the page, "skip" leaves it out, "raw" puts a
            RawDocument in the plan's place.

    Raises:
        UnknownSchemaVersionError, CorruptDocumentError: a plan cannot be read and on_invalid is "raise".
        InvalidCursorError: the cursor is not of this list with these filters.
    """
    log.debug("listing experiments")
    wanted = select(Experiment).execution_options(populate_existing=True)
    if statuses:
        wanted = wanted.where(Experiment.status.in_(sorted({checked_member(each, ExperimentStatus, "statuses") for each in statuses})))
    if name_contains is not None:
        wanted = wanted.where(Experiment.name.contains(checked_text(name_contains, "name_contains"), autoescape=True))
    return page(session, wanted, order_by=[Experiment.created_at.desc()], cursor=cursor, limit=limit, on_invalid=on_invalid)


# A plan that comes after a run has started has seen results: it is frozen as it is stored.
_UPDATE: Final = sql(
    Experiment,
    """
    UPDATE stemma.experiments
       SET name = CASE WHEN :has_name THEN CAST(:name AS text) ELSE experiments.name END,
           hypothesis = CASE WHEN :has_hypothesis THEN CAST(:hypothesis AS text) ELSE experiments.hypothesis END,
           null_hypothesis = CASE WHEN :has_null_hypothesis THEN CAST(:null_hypothesis AS text) ELSE experiments.null_hypothesis END,
           description = CASE WHEN :has_description THEN CAST(:description AS text) ELSE experiments.description END,
           status = coalesce(CAST(:status AS text), experiments.status),
           analysis_plan = CASE WHEN :has_plan THEN CAST(:plan AS jsonb) ELSE experiments.analysis_plan END,
           plan_frozen_at = CASE WHEN :has_plan AND CAST(:plan AS jsonb) IS NOT NULL AND EXISTS (
               SELECT FROM stemma.runs
                WHERE runs.workspace_id = :workspace_id AND runs.experiment_id = experiments.id AND runs.started_at IS NOT NULL
           ) THEN statement_timestamp() ELSE experiments.plan_frozen_at END
     WHERE experiments.workspace_id = :workspace_id AND experiments.id = :id
       AND (CAST(:expected AS integer) IS NULL OR experiments.version = CAST(:expected AS integer))
       AND (NOT :has_plan OR experiments.plan_frozen_at IS NULL AND (
            experiments.analysis_plan IS NULL OR stemma.stemma_document_version(experiments.analysis_plan) BETWEEN 0 AND :known))
       AND (CAST(:status AS text) IS NULL OR experiments.status IN ('DRAFT', 'ACTIVE'))
    RETURNING {columns}
    """,
)


@tenant_query
def update(session: Session, experiment_id: Id, data: ExperimentUpdate, *, expected_version: int | None = None) -> Experiment:
    """
    Change an experiment; its plan only until it is frozen. One guarded UPDATE.

    A plan that is given after a run of the experiment has started is frozen at once. With a plan the experiment is locked first, by a
    statement of its own: a run of it that is starting is waited for, and seen.

    Args:
        session: the caller's session, in a workspace.
        experiment_id: which one.
        data: what changes.
        expected_version: the version that the caller read; None takes whatever is there.

    Raises:
        FrozenError: a plan is given, and the plan is frozen: amend it.
        InvalidTransitionError: a status is given, and the experiment is concluded or archived.
        NotFoundError: no experiment of this workspace has this id.
        VersionConflictError: somebody saved first.
        UnknownSchemaVersionError: a newer release wrote the stored plan; it stays.
    """
    key = key_of(experiment_id)
    changes = ExperimentUpdate.of(data).changes()
    plan: AnalysisPlan | None = changes.get("analysis_plan")
    values: dict[str, Any] = {name: changes.get(name) for name in ("name", "hypothesis", "null_hypothesis", "description", "status")}
    given = {f"has_{name}": name in changes for name in ("name", "hypothesis", "null_hypothesis", "description")}
    with session.begin_nested():
        if plan is not None:
            lock_experiment(session, key)
        experiment = _UPDATE.write(
            session,
            id=key,
            has_plan="analysis_plan" in changes,
            plan=None if plan is None else dump_json(plan),
            expected=expected_version,
            known=AnalysisPlan.newest_version,
            **values,
            **given,
        )
        if experiment is None:
            present = get_experiment(session, key)
            if expected_version is not None and present.version != expected_version:
                raise VersionConflictError("Experiment", key, expected_version, present.version)
            if "analysis_plan" in changes and present.plan_frozen_at is not None:
                raise FrozenError("Experiment", key, "the analysis plan is frozen: amend it, with a reason")
            raise InvalidTransitionError(present.status, str(changes.get("status")))
    return experiment


_ADD_RUN: Final = sql(
    Run,
    """
    UPDATE stemma.runs
       SET experiment_id = :experiment_id
     WHERE runs.workspace_id = :workspace_id AND runs.id = :id AND (runs.experiment_id IS NULL OR runs.experiment_id = :experiment_id)
    RETURNING {columns}
    """,
)


@tenant_query
def add_run(session: Session, experiment_id: Id, run_id: Id) -> Run:
    """
    Make a run one of an experiment's. Idempotent. A run that has started freezes the plan.

    Locks the experiment, then the run. Two statements, and a third that freezes.

    Raises:
        ConflictError: the run is in another experiment.
        NotFoundError: no experiment, or no run, of this workspace has this id.
    """
    key, run_key = key_of(experiment_id), run_key_of(run_id)
    with session.begin_nested():
        experiment = lock_experiment(session, key)
        run = _ADD_RUN.write(session, id=run_key, experiment_id=key)
        if run is None:
            get_run(session, run_key)
            raise ConflictError("Run", ("experiment_id",), "the run is in another experiment: remove it there first")
        if run.started_at is not None and experiment.plan_hash is not None and experiment.plan_frozen_at is None:
            freeze_plan(session, key)
    log.info("added run %s to experiment %s", run_key, key)
    return run


_REMOVE_RUN: Final = sql(
    Run, "UPDATE stemma.runs SET experiment_id = NULL WHERE runs.workspace_id = :workspace_id AND runs.id = :id RETURNING {columns}"
)


@tenant_query
def remove_run(session: Session, run_id: Id) -> Run:
    """
    Take a run out of its experiment, if it is in one. A plan that it has frozen stays frozen. One statement.

    Raises:
        NotFoundError: no run of this workspace has this id.
    """
    key = run_key_of(run_id)
    run = _REMOVE_RUN.write(session, id=key)
    return get_run(session, key) if run is None else run


_CONCLUDE: Final = sql(
    Experiment,
    """
    UPDATE stemma.experiments
       SET status = 'COMPLETED', conclusion = :conclusion, concluded_at = statement_timestamp()
     WHERE experiments.workspace_id = :workspace_id AND experiments.id = :id AND experiments.status IN ('DRAFT', 'ACTIVE')
    RETURNING {columns}
    """,
)


@tenant_query
def conclude(session: Session, experiment_id: Id, conclusion: str) -> Experiment:
    """
    Record what came out, and complete the experiment. One statement; of concurrent callers one wins.

    Raises:
        InvalidTransitionError: it is completed or archived.
        NotFoundError: no experiment of this workspace has this id.
        ValidationError: the conclusion is blank.
    """
    if not checked_text(conclusion, "conclusion").strip():
        raise ValidationError("conclusion must say what came out", "conclusion")
    key = key_of(experiment_id)
    experiment = _CONCLUDE.write(session, id=key, conclusion=conclusion)
    if experiment is None:
        raise InvalidTransitionError(get_experiment(session, key).status, ExperimentStatus.COMPLETED)
    log.info("concluded experiment %s", key)
    return experiment


_ARCHIVE: Final = sql(
    Experiment,
    """
    UPDATE stemma.experiments
       SET status = 'ARCHIVED'
     WHERE experiments.workspace_id = :workspace_id AND experiments.id = :id AND experiments.status <> 'ARCHIVED'
    RETURNING {columns}
    """,
)


@tenant_query
def archive(session: Session, experiment_id: Id) -> Experiment:
    """
    Put an experiment away, concluded or not. Idempotent. One statement, then two.

    Raises:
        NotFoundError: no experiment of this workspace has this id.
    """
    key = key_of(experiment_id)
    experiment = _ARCHIVE.write(session, id=key)
    return get_experiment(session, key) if experiment is None else experiment


_RELEASE_RUNS: Final = sql_rows(
    "UPDATE stemma.runs SET experiment_id = NULL WHERE runs.workspace_id = :workspace_id AND runs.experiment_id = :id"
)
_DELETE: Final = delete_from(Experiment).where(Experiment.id == bindparam("id"))


@tenant_query
def delete(session: Session, experiment_id: Id) -> None:
    """
    Delete an experiment with its amendments and comparisons. Its runs live on without one. Three statements.

    Locks the experiment, then its runs.

    Raises:
        NotFoundError: no experiment of this workspace has this id.
    """
    key = key_of(experiment_id)
    with session.begin_nested():
        lock_experiment(session, key)
        _RELEASE_RUNS.run(session, id=key)
        session.execute(_DELETE, {"id": key})
    log.info("deleted experiment %s", key)


adopt(globals())
