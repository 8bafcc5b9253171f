"""What the scores of a run say together. Import these functions from ``stemmadb.evaluation.scores``."""

import math
from typing import Any, Final, Literal

from sqlalchemy.orm import Session

from stemmadb.aio import in_thread
from stemmadb.data import checked_member, checked_text
from stemmadb.entity import Id, parse_reference
from stemmadb.errors import ValidationError
from stemmadb.evaluation._distributions import t_quantile
from stemmadb.evaluation._run_rows import get_run
from stemmadb.evaluation._run_rows import key_of as run_key_of
from stemmadb.evaluation._score_rows import log
from stemmadb.evaluation.data import Agreement, AgreementPair, ScoreSummary
from stemmadb.evaluation.vocabularies import AnnotatorKind
from stemmadb.notebook import Table
from stemmadb.query import sql_rows, tenant_query

_CONFIDENCE: Final = 0.95

# Beyond 1e100 sums of squares would leave double precision, which PostgreSQL refuses with an error. NaN is greater than every number.
# OFFSET 0: scores are looked up by their transcript, whatever is known of their names. What is clustered has been summed, so the FULL JOIN
# is a LEFT JOIN, but one that does not compare each group with each; the id of the run stands for no scenario.
_SUMMARY: Final = sql_rows(
    """
    WITH mine AS MATERIALIZED (
        SELECT transcripts.model, CASE WHEN CAST(:by_scenario AS boolean) THEN transcripts.scenario_id END AS scenario_id,
               coalesce(transcripts.scenario_id, transcripts.id) AS cluster, judged.value, coalesce(judged.has_value, false) AS has_value
          FROM stemma.transcripts
         CROSS JOIN LATERAL (
               SELECT avg(scores.value) FILTER (WHERE scores.value BETWEEN -1e100 AND 1e100) AS value,
                      bool_or(scores.value IS NOT NULL) AS has_value
                 FROM (SELECT scores.name, scores.rubric_id, scores.annotator_kind, scores.value
                         FROM stemma.scores
                        WHERE scores.workspace_id = :workspace_id AND scores.transcript_id = transcripts.id
                       OFFSET 0) AS scores
                WHERE scores.name = :name
                  AND (CAST(:rubric_id AS uuid) IS NULL OR scores.rubric_id = CAST(:rubric_id AS uuid))
                  AND (CAST(:annotator_kind AS text) IS NULL OR scores.annotator_kind = CAST(:annotator_kind AS text))
               ) AS judged
         WHERE transcripts.workspace_id = :workspace_id AND transcripts.run_id = :run_id AND transcripts.invalidated_at IS NULL
    ), summed AS MATERIALIZED (
        SELECT mine.model, mine.scenario_id, count(mine.value) AS n,
               CASE WHEN min(mine.value) = max(mine.value) THEN min(mine.value) ELSE avg(mine.value) END AS mean,
               CASE WHEN min(mine.value) = max(mine.value) THEN 0 ELSE stddev_samp(mine.value) END AS deviation,
               count(*) FILTER (WHERE mine.value IS NULL AND mine.has_value) AS nan_count,
               count(*) FILTER (WHERE NOT mine.has_value) AS missing_count
          FROM mine
         GROUP BY mine.model, mine.scenario_id
    ), residual AS (
        SELECT around.model, around.scenario_id, around.cluster, sum(around.value - around.mean) AS total
          FROM (SELECT mine.model, mine.scenario_id, mine.cluster, mine.value,
                       CASE WHEN min(mine.value) OVER same = max(mine.value) OVER same THEN min(mine.value) OVER same
                            ELSE avg(mine.value) OVER same END AS mean
                  FROM mine
                 WHERE mine.value IS NOT NULL
                WINDOW same AS (PARTITION BY mine.model, mine.scenario_id)) AS around
         GROUP BY around.model, around.scenario_id, around.cluster
    ), clustered AS (
        SELECT residual.model, residual.scenario_id, count(*) AS clusters, var_pop(residual.total) AS spread, avg(residual.total) AS middle
          FROM residual
         GROUP BY residual.model, residual.scenario_id
    )
    SELECT summed.model, summed.scenario_id, summed.n, summed.mean, summed.deviation, summed.nan_count, summed.missing_count,
           clustered.clusters, clustered.spread, clustered.middle
      FROM summed
      FULL JOIN clustered ON clustered.model = summed.model
                         AND coalesce(clustered.scenario_id, :run_id) = coalesce(summed.scenario_id, :run_id)
     ORDER BY summed.model COLLATE "C", summed.scenario_id
    """
)


@tenant_query
def summarize(
    session: Session,
    run_id: Id,
    *,
    name: str,
    rubric_id: Id | None = None,
    annotator_kind: AnnotatorKind | None = None,
    by: Literal["model", "scenario"] = "model",
) -> list[ScoreSummary]:
    """
    Return what was judged in a run under one name: number, mean, standard errors, and the 95 % interval of the mean.

    A live transcript counts once, with the mean of its annotators' numbers. What has no number is left out and counted: ``nan`` was judged
    without one, ``missing`` was not judged. One statement; another to tell a run without transcripts from none.

    Args:
        session: the caller's session, in a workspace.
        run_id: whose transcripts.
        name: the criterion of a rubric, or the name of a metric.
        rubric_id: only judgements by this version of a rubric; None: by any, and by none.
        annotator_kind: only judgements of this kind of annotator.
        by: "model" gives one summary for each model, "scenario" one for each model and scenario.

    Returns:
        By model, then by scenario. Notebooks show them as a table.

    Raises:
        NotFoundError: no run of this workspace has this id.
        ValidationError: rubric_id is malformed, or by is something else.
    """
    if by not in ("model", "scenario"):
        raise ValidationError('by is "model" or "scenario"', "by")
    key = run_key_of(run_id)
    log.debug("summarizing scores %r of run %s", name, key)
    rows = _SUMMARY.all(
        session,
        run_id=key,
        name=checked_text(name, "name"),
        rubric_id=None if rubric_id is None else parse_reference(rubric_id, "rubric_id"),
        annotator_kind=None if annotator_kind is None else str(checked_member(annotator_kind, AnnotatorKind, "annotator_kind")),
        by_scenario=by == "scenario",
    )
    if not rows:
        get_run(session, key)
    # By scenario there are thousands of intervals.
    return in_thread(lambda: Table(_summary(row) for row in rows))


def _summary(row: Any) -> ScoreSummary:
    error = low = high = clustered = None
    if row.n > 1:
        error = row.deviation / math.sqrt(row.n)
        margin = t_quantile((1 + _CONFIDENCE) / 2, row.n - 1) * error
        low, high = row.mean - margin, row.mean + margin
    if row.clusters is not None and row.clusters > 1:
        clustered = clustered_error(row.n, row.clusters, row.spread, row.middle)
    return ScoreSummary(
        model=row.model,
        n=row.n,
        mean=row.mean,
        standard_error=error,
        low=low,
        high=high,
        nan=row.nan_count,
        missing=row.missing_count,
        clustered_error=clustered,
        scenario_id=row.scenario_id,
    )


def clustered_error(n: int, clusters: int, spread: float, middle: float) -> float:
    """
    Return the standard error of a mean whose observations come in clusters, with the usual correction for few clusters.

    Args:
        n: the number of observations.
        clusters: the number of clusters, at least 2.
        spread: the population variance of the clusters' sums of residuals.
        middle: their mean, which is 0 but for rounding.
    """
    return math.sqrt(clusters / (clusters - 1) * clusters * (spread + middle * middle)) / n


# One verdict for each annotator and transcript, the newest: with any rubric there may be one for each version. Verdicts meet within arrays,
# since a join of the set with itself would compare each with each where nobody has statistics of it.
_AGREEMENT: Final = sql_rows(
    """
    WITH verdicts AS MATERIALIZED (
        SELECT DISTINCT ON (scores.transcript_id, scores.annotator_kind, scores.annotator)
               scores.transcript_id, (scores.annotator_kind || ':' || scores.annotator) COLLATE "C" AS annotator,
               coalesce(scores.label, CAST(scores.value AS text)) AS verdict
          FROM (SELECT scores.id, scores.created_at, scores.transcript_id, scores.name, scores.rubric_id, scores.annotator_kind,
                       scores.annotator, scores.label, scores.value
                  FROM stemma.scores
                 WHERE scores.workspace_id = :workspace_id AND scores.transcript_id = ANY (ARRAY(
                       SELECT transcripts.id
                         FROM stemma.transcripts
                        WHERE transcripts.workspace_id = :workspace_id AND transcripts.run_id = :run_id
                          AND transcripts.invalidated_at IS NULL))
                OFFSET 0) AS scores
         WHERE scores.name = :name AND (CAST(:rubric_id AS uuid) IS NULL OR scores.rubric_id = CAST(:rubric_id AS uuid))
         ORDER BY scores.transcript_id, scores.annotator_kind, scores.annotator, scores.created_at DESC, scores.id DESC
    ), judged AS (
        SELECT array_agg(verdicts.annotator ORDER BY verdicts.annotator) AS annotators,
               array_agg(verdicts.verdict ORDER BY verdicts.annotator) AS verdicts
          FROM verdicts
         GROUP BY verdicts.transcript_id
    ), cells AS MATERIALIZED (
        SELECT a.annotator COLLATE "C" AS a, b.annotator COLLATE "C" AS b, a.verdict AS verdict_a, b.verdict AS verdict_b, count(*) AS n
          FROM judged
         CROSS JOIN LATERAL unnest(judged.annotators, judged.verdicts) AS a (annotator, verdict)
          JOIN LATERAL unnest(judged.annotators, judged.verdicts) AS b (annotator, verdict)
            ON b.annotator COLLATE "C" > a.annotator COLLATE "C"
         GROUP BY a.annotator COLLATE "C", b.annotator COLLATE "C", a.verdict, b.verdict
    ), of_a AS (
        SELECT cells.a, cells.b, cells.verdict_a AS verdict, sum(cells.n) AS n FROM cells GROUP BY cells.a, cells.b, cells.verdict_a
    ), of_b AS (
        SELECT cells.a, cells.b, cells.verdict_b AS verdict, sum(cells.n) AS n FROM cells GROUP BY cells.a, cells.b, cells.verdict_b
    ), chance AS (
        SELECT of_a.a, of_a.b, sum(of_a.n * of_b.n) AS products
          FROM of_a
          JOIN of_b ON of_b.a = of_a.a AND of_b.b = of_a.b AND of_b.verdict = of_a.verdict
         GROUP BY of_a.a, of_a.b
    ), pairs AS (
        SELECT cells.a, cells.b, sum(cells.n) AS n, sum(cells.n) FILTER (WHERE cells.verdict_a = cells.verdict_b) AS equal
          FROM cells
         GROUP BY cells.a, cells.b
    ), counted AS (
        SELECT verdicts.transcript_id, verdicts.verdict, count(*) AS n,
               sum(count(*)) OVER (PARTITION BY verdicts.transcript_id) AS of_unit
          FROM verdicts
         GROUP BY verdicts.transcript_id, verdicts.verdict
    ), totals AS (
        SELECT counted.verdict, sum(counted.n) AS n, sum(counted.n * (counted.of_unit - counted.n) / (counted.of_unit - 1)) AS apart
          FROM counted
         WHERE counted.of_unit > 1
         GROUP BY counted.verdict
    )
    SELECT pairs.a, pairs.b, pairs.n AS n, coalesce(pairs.equal, 0) AS equal, coalesce(chance.products, 0) AS other
      FROM pairs
      LEFT JOIN chance ON chance.a = pairs.a AND chance.b = pairs.b
 UNION ALL
    SELECT NULL, NULL, sum(totals.n), sum(totals.apart), sum(totals.n * totals.n)
      FROM totals
     ORDER BY a, b
    """
)


@tenant_query
def agreement(session: Session, run_id: Id, *, name: str, rubric_id: Id | None = None) -> Agreement:
    """
    Return how far the annotators of a run agree, as verdicts in words: the label, else the number as it is.

    Only live transcripts count, and of an annotator's several verdicts on one transcript the newest. One statement; another when there is
    nothing to compare.

    Args:
        session: the caller's session, in a workspace.
        run_id: whose transcripts.
        name: what was judged.
        rubric_id: only judgements by this version of a rubric; None: by any, and by none.

    Returns:
        For each pair of annotators with a transcript in common Cohen's kappa, and Krippendorff's alpha over all of them.

    Raises:
        NotFoundError: no run of this workspace has this id.
        ValidationError: rubric_id is malformed.
    """
    key = run_key_of(run_id)
    log.debug("asking for the agreement on %r in run %s", name, key)
    rubric = None if rubric_id is None else parse_reference(rubric_id, "rubric_id")
    *pairs, total = _AGREEMENT.all(session, run_id=key, name=checked_text(name, "name"), rubric_id=rubric)
    if not pairs:
        get_run(session, key)
    return Agreement([_pair(row) for row in pairs], _alpha(total))


def _pair(row: Any) -> AgreementPair:
    n, equal = int(row.n), float(row.equal) / float(row.n)
    by_chance = float(row.other) / (n * n)
    return AgreementPair(row.a, row.b, n, equal, None if row.other == row.n * row.n else (equal - by_chance) / (1 - by_chance))


def _alpha(total: Any) -> float | None:
    if total.n is None or total.other == total.n * total.n:
        return None
    expected = (float(total.n) ** 2 - float(total.other)) / (float(total.n) - 1)
    return 1 - float(total.equal) / expected
