"""Comparing runs under a plan. Import these functions from ``stemmadb.evaluation.comparisons``."""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy.orm import Session

from stemmadb.aio import in_thread
from stemmadb.data import checked_text
from stemmadb.documents import dump_json
from stemmadb.entity import Id, parse_id, parse_reference, uuid7
from stemmadb.errors import CoverageError, NotFoundError, ValidationError
from stemmadb.evaluation._comparison_data import PairedStatistics, PairwiseCell, PairwiseMatrix
from stemmadb.evaluation._comparison_rows import PairOfRuns, log, read_input_hash, read_pairs
from stemmadb.evaluation._experiment_plans import read_plan
from stemmadb.evaluation._paired_tests import RESAMPLING, check_plan, judge
from stemmadb.evaluation._run_rows import key_of as run_key_of
from stemmadb.evaluation.documents import AnalysisPlan, MetricDelta, RunDelta
from stemmadb.evaluation.entities import RunComparison
from stemmadb.query import read, sql, sql_rows, tenant_query

_DEFAULT: Final = AnalysisPlan(alpha=0.05)
_METRIC: Final = "overall"
_MOST_RUNS: Final = 200


class Planned(NamedTuple):
    """The plan that counts, with its hash where the database has one."""

    plan: AnalysisPlan
    hash: bytes | None


def plan_of(session: Session, experiment_id: UUID | None, plan: AnalysisPlan | None) -> Planned:
    """Return the plan given, the one in force in the experiment, or the default one; another than that in force is refused."""
    in_force = None if experiment_id is None else read_plan(session, experiment_id)
    if in_force is not None:
        if plan is not None and plan != in_force.plan:
            raise ValidationError("the experiment has another plan in force: amend it, or compare outside of the experiment", "plan")
        chosen = Planned(in_force.plan, in_force.hash)
    else:
        chosen = Planned(_DEFAULT if plan is None else plan, None)
    check_plan(chosen.plan)
    return chosen


def metric_of(metric: str | None, plan: AnalysisPlan) -> str:
    """Return what is compared."""
    return checked_text(metric or plan.metric or _METRIC, "metric")


def cells_of(session: Session, run_ids: Sequence[UUID], metric: str, plan: AnalysisPlan) -> list[tuple[PairOfRuns, PairwiseCell]]:
    """
    Return every pair of runs with what was found, in the order given. One statement.

    Raises:
        CoverageError: the samples of two runs differ, and the plan is strict.
        NotFoundError: no run of this workspace has one of the ids.
        MissingDependencyError: the test draws samples, and the extra ``stats`` is not installed.
    """
    pairs = read_pairs(session, run_ids, metric, with_differences=plan.test in RESAMPLING)
    for pair in pairs:
        missing = (pair.coverage.only_baseline, pair.coverage.only_comparison)
        if plan.coverage == "strict" and any(missing):
            raise CoverageError(pair.coverage.matched, *missing)
    # Without a seed of its own a plan draws by what it draws from, so that the same inputs give the same numbers.
    seeds = [int.from_bytes(pair.input_hash[:8], "big") if plan.seed is None else abs(plan.seed) for pair in pairs]
    found = in_thread(judge, [pair.sample for pair in pairs], plan, seeds)
    return [
        (pair, PairwiseCell(pair.baseline_run_id, pair.comparison_run_id, _delta(statistics), pair.coverage, statistics))
        for pair, statistics in zip(pairs, found, strict=True)
    ]


def _delta(found: PairedStatistics) -> MetricDelta:
    return MetricDelta(
        baseline=found.baseline,
        comparison=found.comparison,
        delta=found.difference,
        p_value=found.p_adjusted,
        effect_size=found.cohens_d,
        n=found.n,
    )


def run_delta(metric: str, cell: PairwiseCell) -> RunDelta:
    """Return what is stored of a comparison."""
    found = cell.statistics
    summary = f"{found.verdict}: {found.test}, {found.wins} wins, {found.losses} losses, {found.ties} ties"
    return RunDelta(
        metrics={metric: cell.delta},
        coverage=cell.coverage,
        summary=summary if found.reason is None else f"{summary}; {found.reason}",
    )


@tenant_query
def pairwise(session: Session, run_ids: Sequence[Id], *, metric: str | None = None, plan: AnalysisPlan | None = None) -> list[PairwiseCell]:
    """
    Compare many runs, each with each. Stores nothing. One statement, whatever their number (``benchmarks/comparisons.py``).

    Drawing samples and reading distributions keep a processor busy; in the async twin they run in a thread.

    Samples align by the content of the scenario, the model, and the number of the sample. The p-values of all pairs are one family of the
    plan's correction.

    Args:
        session: the caller's session, in a workspace.
        run_ids: 2 to 200 runs.
        metric: the name of a score, or else of a metric of transcripts; None: the plan's, or ``overall``.
        plan: the test (``paired_permutation``, ``paired_t``, ``clustered_t``, ``wilcoxon``, ``mcnemar``), alpha, correction and coverage;
            None: ``paired_permutation`` at 0.05. Without a seed the draws follow from the inputs: the same again gives the same.

    Returns:
        Every pair in the order given: first with second, first with third, and so on. Zero variance, ties and too few pairs are data.
        Notebooks show them as a matrix.

    Raises:
        CoverageError: a run has samples that another has not, and the plan's coverage is "strict".
        MissingDependencyError: the test is ``paired_permutation``, and the extra ``stats`` is not installed.
        NotFoundError: no run of this workspace has one of the ids.
        ValidationError: too few or too many runs, one of them twice, or a plan that names what there is not.
    """
    keys = distinct_keys(run_ids)
    chosen = plan_of(session, None, plan).plan
    return PairwiseMatrix(cell for _, cell in cells_of(session, keys, metric_of(metric, chosen), chosen))


def distinct_keys(run_ids: Sequence[Id]) -> list[UUID]:
    """
    Return the ids of runs to compare.

    Raises:
        NotFoundError: one is malformed.
        ValidationError: too few or too many, or one of them twice.
    """
    keys = [run_key_of(run_id) for run_id in run_ids]
    if not 2 <= len(keys) <= _MOST_RUNS or len(set(keys)) < len(keys):
        raise ValidationError(f"give 2 to {_MOST_RUNS} different runs", "run_ids")
    return keys


_INSERT: Final = sql(
    RunComparison,
    """
    INSERT INTO stemma.run_comparisons
           (workspace_id, id, experiment_id, baseline_run_id, comparison_run_id, delta, plan_hash, input_hash, code_version, notes)
    VALUES (:workspace_id, :id, CAST(:experiment_id AS uuid), :baseline_run_id, :comparison_run_id, CAST(:delta AS jsonb),
            coalesce(CAST(:plan_hash AS bytea), stemma.stemma_document_hash(CAST(:plan AS jsonb))), CAST(:input_hash AS bytea),
            :code_version, CAST(:notes AS text))
    RETURNING {columns}
    """,
)


@tenant_query
def compare(
    session: Session,
    baseline_run_id: Id,
    comparison_run_id: Id,
    *,
    experiment_id: Id | None = None,
    metric: str | None = None,
    plan: AnalysisPlan | None = None,
) -> RunComparison:
    """
    Compare two runs and store what came out, with hashes of the plan and of everything it was computed from. Two statements; three in an
    experiment.

    Samples align by the content of the scenario, the model, and the number of the sample. Invalidated transcripts are left out, and
    counted.

    Args:
        session: the caller's session, in a workspace.
        baseline_run_id: what is compared with.
        comparison_run_id: what is compared. Differences are comparison - baseline.
        experiment_id: the experiment that it is made for; its plan in force counts.
        metric: the name of a score, or else of a metric of transcripts; None: the plan's, or ``overall``.
        plan: as for pairwise; in an experiment with a plan only that one.

    Raises:
        ConflictError: these runs have been compared, in this experiment or outside of any: refresh that comparison.
        CoverageError: a run has samples that the other has not, and the plan's coverage is "strict".
        MissingDependencyError: the test is ``paired_permutation``, and the extra ``stats`` is not installed.
        NotFoundError: no run, or no experiment, of this workspace has this id.
        ValidationError: it is the same run, or the plan is not the one in force, or names what there is not.
    """
    keys = distinct_keys((baseline_run_id, comparison_run_id))
    experiment = None if experiment_id is None else parse_reference(experiment_id, "experiment_id")
    chosen = plan_of(session, experiment, plan)
    name = metric_of(metric, chosen.plan)
    ((pair, cell),) = cells_of(session, keys, name, chosen.plan)
    with session.begin_nested():
        (stored,) = _INSERT.write_all(
            session,
            id=uuid7(),
            experiment_id=experiment,
            baseline_run_id=keys[0],
            comparison_run_id=keys[1],
            delta=dump_json(run_delta(name, cell)),
            plan=dump_json(chosen.plan),
            plan_hash=chosen.hash,
            input_hash=pair.input_hash,
            code_version=version("stemmadb"),
            notes=None,
        )
    log.info("compared run %s with %s: %s", keys[1], keys[0], stored.id)
    return stored


def comparison_key(comparison_id: Id) -> UUID:
    """
    Return the id as a UUID.

    Raises:
        NotFoundError: it is malformed, so no comparison has it.
    """
    try:
        return parse_id(comparison_id, "RunComparison")
    except NotFoundError:
        log.warning("comparison %r was not found: that is no id", comparison_id)
        raise


def get_comparison(session: Session, key: UUID) -> RunComparison:
    """
    Return the comparison as it is now.

    Raises:
        NotFoundError: no comparison of this workspace has this id.
    """
    log.debug("reading comparison %s", key)
    comparison = read(session, RunComparison, key)
    if comparison is None:
        log.warning("comparison %s was not found", key)
        raise NotFoundError("RunComparison", key)
    return comparison


@tenant_query
def is_stale(session: Session, comparison_id: Id) -> bool | None:
    """
    Return whether a comparison would be another one now, or None when it does not say what it was computed from.

    Computed when it is asked: by the transcripts that are live, their scores, the configurations, and in an experiment the plan in force.
    Two statements; three in an experiment.

    Raises:
        NotFoundError: no comparison of this workspace has this id.
    """
    found = get_comparison(session, comparison_key(comparison_id))
    metric = next(iter(found.delta.metrics), None)
    if found.input_hash is None or metric is None:
        return None
    if found.experiment_id is not None:
        in_force = read_plan(session, found.experiment_id)
        if in_force is not None and in_force.hash != found.plan_hash:
            return True
    return read_input_hash(session, (found.baseline_run_id, found.comparison_run_id), metric) != found.input_hash


_LOCKED: Final = sql(
    RunComparison,
    """
    SELECT {columns}
      FROM stemma.run_comparisons
     WHERE run_comparisons.workspace_id = :workspace_id AND run_comparisons.id = :id
       FOR NO KEY UPDATE
    """,
)
_PLAN_HASH: Final = sql_rows("SELECT stemma.stemma_document_hash(CAST(:plan AS jsonb))")
_UPDATE: Final = sql(
    RunComparison,
    """
    UPDATE stemma.run_comparisons
       SET delta = CAST(:delta AS jsonb), plan_hash = CAST(:plan_hash AS bytea), input_hash = CAST(:input_hash AS bytea),
           code_version = :code_version
     WHERE run_comparisons.workspace_id = :workspace_id AND run_comparisons.id = :id
    RETURNING {columns}
    """,
)


@tenant_query
def refresh(session: Session, comparison_id: Id, *, plan: AnalysisPlan | None = None) -> RunComparison:
    """
    Compute a comparison anew, of the same metric. Locks its row until the transaction ends. At most five statements.

    Args:
        session: the caller's session, in a workspace.
        comparison_id: which one.
        plan: as for compare. Outside of experiments only the plan's hash is stored: without a plan it is the default one, and refused when
            the comparison was made under another.

    Raises:
        CoverageError: a run has samples that the other has not, and the plan's coverage is "strict".
        MissingDependencyError: the test is ``paired_permutation``, and the extra ``stats`` is not installed.
        NotFoundError: no comparison of this workspace has this id.
        ValidationError: the plan is needed, or is not the one in force, or names what there is not.
    """
    key = comparison_key(comparison_id)
    with session.begin_nested():
        found = _LOCKED.write(session, id=key)
        if found is None:
            return get_comparison(session, key)
        chosen = plan_of(session, found.experiment_id, plan)
        plan_hash = chosen.hash or bytes(_PLAN_HASH.scalar(session, plan=dump_json(chosen.plan)))
        if plan is None and chosen.hash is None and found.plan_hash not in (None, plan_hash):
            raise ValidationError("the comparison was made under a plan that is not stored: give it", "plan")
        metric = metric_of(next(iter(found.delta.metrics), None), chosen.plan)
        ((pair, cell),) = cells_of(session, (found.baseline_run_id, found.comparison_run_id), metric, chosen.plan)
        delta = dump_json(run_delta(metric, cell))
        fresh = _UPDATE.write(
            session, id=key, delta=delta, plan_hash=plan_hash, input_hash=pair.input_hash, code_version=version("stemmadb")
        )
    log.info("refreshed comparison %s", key)
    return get_comparison(session, key) if fresh is None else fresh
