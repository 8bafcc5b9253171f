"""
Comparisons: what changed from a baseline run to another, tested under a plan.

    found = comparisons.compare(session, baseline.id, candidate.id, plan=AnalysisPlan(test="paired_t", alpha=0.05))
    for cell in comparisons.pairwise(session, [first.id, second.id, third.id]):
        print(cell.statistics.verdict, cell.delta.delta, cell.statistics.p_adjusted)

Samples align by the content of the scenario, the model, and the number of the sample. Coverage is always told, and unequal coverage is
refused unless the plan asks for the overlap. Whether a comparison is stale is computed when it is asked.
"""

from typing import Any, Final

from sqlalchemy import Select, bindparam, or_, select
from sqlalchemy import delete as delete_from
from sqlalchemy.orm import Session

from stemmadb._exports import adopt
from stemmadb.documents import OnInvalid, dump_json
from stemmadb.entity import Id, parse_reference
from stemmadb.errors import NotFoundError, ValidationError
from stemmadb.evaluation._comparability import comparability
from stemmadb.evaluation._comparing import compare, comparison_key, get_comparison, is_stale, pairwise, refresh
from stemmadb.evaluation._comparison_rows import log
from stemmadb.evaluation._experiment_plans import key_of as experiment_key_of
from stemmadb.evaluation._run_rows import key_of as run_key_of
from stemmadb.evaluation.data import (
    ComparabilityReport,
    PairedStatistics,
    PairwiseCell,
    RunComparisonCreate,
    RunDifference,
    Verdict,
)
from stemmadb.evaluation.entities import RunComparison
from stemmadb.paging import Page, page
from stemmadb.query import sql, tenant_query

__all__ = [
    "compare",
    "pairwise",
    "create",
    "get",
    "find",
    "find_pair",
    "list_for_run",
    "list_for_experiment",
    "comparability",
    "is_stale",
    "refresh",
    "delete",
    "RunComparisonCreate",
    "PairwiseCell",
    "PairedStatistics",
    "Verdict",
    "ComparabilityReport",
    "RunDifference",
    "OnInvalid",
]

_INSERT: Final = sql(
    RunComparison,
    """
    INSERT INTO stemma.run_comparisons
           (workspace_id, experiment_id, baseline_run_id, comparison_run_id, delta, plan_hash, input_hash, code_version, notes)
    VALUES (:workspace_id, CAST(:experiment_id AS uuid), :baseline_run_id, :comparison_run_id, CAST(:delta AS jsonb),
            CAST(:plan_hash AS bytea), CAST(:input_hash AS bytea), CAST(:code_version AS text), CAST(:notes AS text))
    RETURNING {columns}
    """,
)


@tenant_query
def create(session: Session, data: RunComparisonCreate) -> RunComparison:
    """
    Store a comparison that was computed elsewhere. Without an input_hash nobody can tell whether it is stale. One statement.

    Raises:
        ConflictError: these runs have been compared, in this experiment or outside of any.
        ReferenceNotFoundError: a run or the experiment does not exist in this workspace.
        ValidationError: it is the same run, or an id is malformed.
    """
    data = RunComparisonCreate.of(data)
    baseline = parse_reference(data.baseline_run_id, "baseline_run_id")
    comparison = parse_reference(data.comparison_run_id, "comparison_run_id")
    if baseline == comparison:
        raise ValidationError("a run is not compared with itself", "comparison_run_id")
    with session.begin_nested():
        (stored,) = _INSERT.write_all(
            session,
            experiment_id=None if data.experiment_id is None else parse_reference(data.experiment_id, "experiment_id"),
            baseline_run_id=baseline,
            comparison_run_id=comparison,
            delta=dump_json(data.delta),
            plan_hash=data.plan_hash,
            input_hash=data.input_hash,
            code_version=data.code_version,
            notes=data.notes,
        )
    log.info("stored a comparison of run %s with %s: %s", comparison, baseline, stored.id)
    return stored


@tenant_query
def get(session: Session, comparison_id: Id) -> RunComparison:
    """
    Return a comparison.

    Raises:
        NotFoundError: no comparison of this workspace has this id.
        UnknownSchemaVersionError, CorruptDocumentError: its delta cannot be read.
    """
    return get_comparison(session, comparison_key(comparison_id))


@tenant_query
def find(session: Session, comparison_id: Id) -> RunComparison | None:
    """
    Return a comparison, or None.

    Raises:
        UnknownSchemaVersionError, CorruptDocumentError: its delta cannot be read.
    """
    try:
        return get_comparison(session, comparison_key(comparison_id))
    except NotFoundError:
        return None


_PAIR: Final = sql(
    RunComparison,
    """
    SELECT {columns}
      FROM stemma.run_comparisons
     WHERE run_comparisons.workspace_id = :workspace_id
       AND run_comparisons.baseline_run_id = :baseline_run_id
       AND run_comparisons.comparison_run_id = :comparison_run_id
       AND run_comparisons.experiment_id IS NOT DISTINCT FROM CAST(:experiment_id AS uuid)
    """,
)


@tenant_query
def find_pair(session: Session, baseline_run_id: Id, comparison_run_id: Id, *, experiment_id: Id | None = None) -> RunComparison | None:
    """
    Return the comparison of two runs in an experiment, or without one outside of any; None when there is none. One statement.

    Raises:
        NotFoundError: an id of a run is malformed.
        ValidationError: experiment_id is malformed.
        UnknownSchemaVersionError, CorruptDocumentError: its delta cannot be read.
    """
    baseline, comparison = run_key_of(baseline_run_id), run_key_of(comparison_run_id)
    experiment = None if experiment_id is None else parse_reference(experiment_id, "experiment_id")
    log.debug("reading the comparison of run %s with %s", comparison, baseline)
    found = _PAIR.write(session, baseline_run_id=baseline, comparison_run_id=comparison, experiment_id=experiment)
    if found is None:
        log.warning("runs %s and %s have no comparison", baseline, comparison)
    return found


@tenant_query
def list_for_run(
    session: Session, run_id: Id, *, cursor: str | None = None, limit: int = 50, on_invalid: OnInvalid = "raise"
) -> Page[RunComparison]:
    """
    Return a page of the comparisons in which a run is either side, newest first.

    Args:
        session: the caller's session, in a workspace.
        run_id: whose comparisons. An unknown one has none.
        cursor: the ``next_cursor`` of the page before.
        limit: the most comparisons, 1 to 200.
        on_invalid: what becomes of a comparison whose delta cannot be read: "raise" refuses the page, "skip" leaves it out, "raw" puts a
            RawDocument in the delta's place.

    Raises:
        UnknownSchemaVersionError, CorruptDocumentError: a delta cannot be read and on_invalid is "raise".
        InvalidCursorError: the cursor is not of this list.
    """
    key = run_key_of(run_id)
    log.debug("listing comparisons of run %s", key)
    wanted = select(RunComparison).where(or_(RunComparison.baseline_run_id == key, RunComparison.comparison_run_id == key))
    return _page(session, wanted, cursor=cursor, limit=limit, on_invalid=on_invalid)


@tenant_query
def list_for_experiment(
    session: Session, experiment_id: Id, *, cursor: str | None = None, limit: int = 50, on_invalid: OnInvalid = "raise"
) -> Page[RunComparison]:
    """
    Return a page of the comparisons that were made for an experiment, newest first.

    Args:
        session: the caller's session, in a workspace.
        experiment_id: whose comparisons. An unknown one has none.
        cursor: the ``next_cursor`` of the page before.
        limit: the most comparisons, 1 to 200.
        on_invalid: as for list_for_run.

    Raises:
        UnknownSchemaVersionError, CorruptDocumentError: a delta cannot be read and on_invalid is "raise".
        InvalidCursorError: the cursor is not of this list.
    """
    key = experiment_key_of(experiment_id)
    log.debug("listing comparisons of experiment %s", key)
    wanted = select(RunComparison).where(RunComparison.experiment_id == key)
    return _page(session, wanted, cursor=cursor, limit=limit, on_invalid=on_invalid)


def _page(session: Session, wanted: Select[Any], *, cursor: str | None, limit: int, on_invalid: OnInvalid) -> Page[RunComparison]:
    wanted = wanted.execution_options(populate_existing=True)
    return page(session, wanted, order_by=[RunComparison.created_at.desc()], cursor=cursor, limit=limit, on_invalid=on_invalid)


_DELETE: Final = delete_from(RunComparison).where(RunComparison.id == bindparam("id"))


@tenant_query
def delete(session: Session, comparison_id: Id) -> None:
    """
    Delete a comparison. One statement.

    Raises:
        NotFoundError: no comparison of this workspace has this id.
    """
    key = comparison_key(comparison_id)
    if not session.execute(_DELETE, {"id": key}).rowcount:  # type: ignore[attr-defined]
        log.warning("comparison %s was not found", key)
        raise NotFoundError("RunComparison", comparison_id)
    log.info("deleted comparison %s", key)


adopt(globals())
