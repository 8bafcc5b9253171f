"""
The plans of experiments: frozen once, amended with reasons. Import these functions from ``stemmadb.evaluation.experiments``.

An experiment is locked before its runs, here and where runs start; only who claims the next run, whichever it is, has the run first.
"""

import logging
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from stemmadb.data import checked_text
from stemmadb.documents import OnInvalid, dump_json
from stemmadb.entity import Id, parse_id, parse_reference, uuid7
from stemmadb.errors import ConflictError, DocumentError, NotFoundError, ValidationError
from stemmadb.evaluation.documents import AnalysisPlan
from stemmadb.evaluation.entities import Experiment, ExperimentAmendment
from stemmadb.paging import Page, page
from stemmadb.query import read, sql, sql_rows, tenant_query

# The private modules of the pack log under the name that callers import.
log = logging.getLogger("stemmadb.evaluation.experiments")


def key_of(experiment_id: Id) -> UUID:
    """
    Return the id as a UUID.

    Raises:
        NotFoundError: it is malformed, so no experiment has it.
    """
    try:
        return parse_id(experiment_id, "Experiment")
    except NotFoundError:
        log.warning("experiment %r was not found: that is no id", experiment_id)
        raise


def find_experiment(session: Session, key: UUID) -> Experiment | None:
    """Return the experiment as it is now, also when the session has read it before; None when there is none."""
    log.debug("reading experiment %s", key)
    experiment = read(session, Experiment, key)
    if experiment is None:
        log.warning("experiment %s was not found", key)
    return experiment


def get_experiment(session: Session, key: UUID) -> Experiment:
    """
    Return the experiment as it is now.

    Raises:
        NotFoundError: no experiment of this workspace has this id.
    """
    experiment = find_experiment(session, key)
    if experiment is None:
        raise NotFoundError("Experiment", key)
    return experiment


_LOCKED: Final = sql(
    Experiment,
    """
    SELECT {columns}
      FROM stemma.experiments
     WHERE experiments.workspace_id = :workspace_id AND experiments.id = :id
       FOR NO KEY UPDATE
    """,
)


def lock_experiment(session: Session, key: UUID) -> Experiment:
    """
    Return the experiment, locked FOR NO KEY UPDATE until the transaction ends.

    Raises:
        NotFoundError: no experiment of this workspace has this id.
    """
    experiment = _LOCKED.write(session, id=key)
    if experiment is None:
        log.warning("experiment %s was not found", key)
        raise NotFoundError("Experiment", key)
    return experiment


_FREEZE: Final = sql(
    Experiment,
    """
    UPDATE stemma.experiments
       SET plan_frozen_at = statement_timestamp()
     WHERE experiments.workspace_id = :workspace_id AND experiments.id = :id
       AND experiments.plan_frozen_at IS NULL AND experiments.analysis_plan IS NOT NULL
    RETURNING {columns}
    """,
)


@tenant_query
def freeze_plan(session: Session, experiment_id: Id) -> Experiment:
    """
    Freeze the analysis plan of an experiment, as the first run that starts does. Idempotent. One statement, then two.

    Raises:
        NotFoundError: no experiment of this workspace has this id.
        ValidationError: it has no plan.
    """
    key = key_of(experiment_id)
    frozen = _FREEZE.write(session, id=key)
    if frozen is not None:
        log.info("froze the plan of experiment %s", key)
        return frozen
    experiment = get_experiment(session, key)
    if experiment.plan_frozen_at is None:
        raise ValidationError("the experiment has no analysis plan: update it with one", "analysis_plan")
    return experiment


_AMEND: Final = sql(
    ExperimentAmendment,
    """
    INSERT INTO stemma.experiment_amendments (workspace_id, id, experiment_id, sequence, plan, reason, amended_by_id)
    SELECT :workspace_id, :id, :experiment_id, coalesce(max(experiment_amendments.sequence), 0) + 1, CAST(:plan AS jsonb), :reason,
           CAST(:by_id AS uuid)
      FROM stemma.experiment_amendments
     WHERE experiment_amendments.workspace_id = :workspace_id AND experiment_amendments.experiment_id = :experiment_id
    RETURNING {columns}
    """,
)


@tenant_query
def amend_plan(
    session: Session, experiment_id: Id, plan: AnalysisPlan, *, reason: str, by_user_id: Id | None = None
) -> ExperimentAmendment:
    """
    Put another plan in force, on record with its reason. Comparisons made under the plan before are stale from now on.

    Locks the experiment FOR NO KEY UPDATE until the transaction ends. Two statements.

    Args:
        session: the caller's session, in a workspace.
        experiment_id: whose plan.
        plan: the whole plan after the change.
        reason: why, for people; not blank.
        by_user_id: who says so.

    Raises:
        ConflictError: the plan is not frozen: update the experiment instead.
        NotFoundError: no experiment of this workspace has this id.
        ReferenceNotFoundError: there is no such user.
        ValidationError: the reason is blank, or by_user_id is malformed.
    """
    if not checked_text(reason, "reason").strip():
        raise ValidationError("reason must say why", "reason")
    key = key_of(experiment_id)
    by_id = None if by_user_id is None else parse_reference(by_user_id, "by_user_id")
    with session.begin_nested():
        if lock_experiment(session, key).plan_frozen_at is None:
            raise ConflictError("Experiment", ("analysis_plan",), "the plan is not frozen yet: update it")
        amendment = _AMEND.write(session, id=uuid7(), experiment_id=key, plan=dump_json(plan), reason=reason, by_id=by_id)
    if amendment is None:
        raise NotFoundError("Experiment", experiment_id)
    log.info("amended the plan of experiment %s: %d", key, amendment.sequence)
    return amendment


class PlanInForce(NamedTuple):
    """The plan of an experiment that counts now."""

    plan: AnalysisPlan
    hash: bytes


_IN_FORCE: Final = sql_rows(
    """
    SELECT CAST(coalesce(latest.plan, experiments.analysis_plan) AS text) AS plan, coalesce(latest.plan_hash, experiments.plan_hash) AS hash
      FROM stemma.experiments
      LEFT JOIN LATERAL (
           SELECT experiment_amendments.plan, experiment_amendments.plan_hash
             FROM stemma.experiment_amendments
            WHERE experiment_amendments.workspace_id = :workspace_id AND experiment_amendments.experiment_id = experiments.id
            ORDER BY experiment_amendments.sequence DESC
            LIMIT 1
           ) AS latest ON true
     WHERE experiments.workspace_id = :workspace_id AND experiments.id = :id
    """
)


def read_plan(session: Session, key: UUID) -> PlanInForce | None:
    """
    Return the plan in force with its hash, or None without one. One statement.

    Raises:
        NotFoundError: no experiment of this workspace has this id.
        UnknownSchemaVersionError, CorruptDocumentError: the plan cannot be read.
    """
    log.debug("reading the plan of experiment %s", key)
    row = _IN_FORCE.first(session, id=key)
    if row is None:
        log.warning("experiment %s was not found", key)
        raise NotFoundError("Experiment", key)
    if row.plan is None:
        return None
    try:
        return PlanInForce(AnalysisPlan.load(row.plan), bytes(row.hash))
    except DocumentError as error:
        raise error.located("experiments", "analysis_plan", key) from None


@tenant_query
def plan_in_force(session: Session, experiment_id: Id) -> AnalysisPlan | None:
    """
    Return the plan that counts now: of the latest amendment, else the one registered; None without one. One statement.

    Raises:
        NotFoundError: no experiment of this workspace has this id.
        UnknownSchemaVersionError, CorruptDocumentError: the plan cannot be read.
    """
    found = read_plan(session, key_of(experiment_id))
    return None if found is None else found.plan


@tenant_query
def list_amendments(
    session: Session, experiment_id: Id, *, cursor: str | None = None, limit: int = 50, on_invalid: OnInvalid = "raise"
) -> Page[ExperimentAmendment]:
    """
    Return a page of the amendments of an experiment's plan, in their order.

    Args:
        session: the caller's session, in a workspace.
        experiment_id: whose amendments. An unknown one has none.
        cursor: the ``next_cursor`` of the page before.
        limit: the most amendments, 1 to 200.
        on_invalid: what becomes of an amendment whose plan cannot be read: "raise" refuses the page, "skip" leaves it out, "raw" puts a
            RawDocument in the plan's place.

    Raises:
        UnknownSchemaVersionError, CorruptDocumentError: a plan cannot be read and on_invalid is "raise".
        InvalidCursorError: the cursor is not of this list.
    """
    key = key_of(experiment_id)
    log.debug("listing amendments of experiment %s", key)
    wanted = select(ExperimentAmendment).where(ExperimentAmendment.experiment_id == key)
    order = [ExperimentAmendment.sequence.asc()]
    return page(session, wanted, order_by=order, cursor=cursor, limit=limit, on_invalid=on_invalid)
