"""
Runs side by side: one statement that aligns them by scenario content, model and sample, and sums up how each two of them differ.

Scenarios align by their content, so that runs of a definition and of its forks do. A sample has the mean of its annotators' numbers, else
the metric of its transcript. Numbers beyond 1e100 in size are none: their squares would leave double precision.
"""

import hashlib
import logging
from collections.abc import Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy.orm import Session

from stemmadb.documents import escape
from stemmadb.evaluation._paired_tests import Sample
from stemmadb.evaluation._run_rows import get_run
from stemmadb.evaluation.documents import Coverage
from stemmadb.query import sql_rows

# The private modules of the pack log under the name that callers import.
log = logging.getLogger("stemmadb.evaluation.comparisons")

# Scores are looked up by the key of each transcript: joined as a set, which nobody has statistics of, they were compared each with each.
# OFFSET 0 keeps the name out of the choice of the index.
SAMPLES: Final = """
    WITH asked AS MATERIALIZED (
        SELECT runs.id AS run_id, given.place, runs.config_hash, definitions.content_hash
          FROM unnest(CAST(:run_ids AS uuid[])) WITH ORDINALITY AS given (run_id, place)
          JOIN stemma.runs ON runs.workspace_id = :workspace_id AND runs.id = given.run_id
          JOIN stemma.definitions ON definitions.workspace_id = :workspace_id AND definitions.id = runs.definition_id
    ), said AS MATERIALIZED (
        SELECT transcripts.run_id, transcripts.id, coalesce(encode(scenarios.content_hash, 'hex'), '') AS scenario, transcripts.model,
               transcripts.sample_index, transcripts.invalidated_at IS NULL AS is_live,
               coalesce(judged.trace, CAST(metric.value AS text)) AS trace,
               CASE WHEN transcripts.invalidated_at IS NOT NULL THEN NULL
                    WHEN judged.is_there THEN judged.value
                    WHEN jsonb_typeof(metric.value) <> 'number' OR abs(CAST(metric.value AS numeric)) > 1e100 THEN NULL
                    WHEN abs(CAST(metric.value AS numeric)) < 1e-300 THEN 0
                    ELSE CAST(CAST(metric.value AS text) AS double precision) END AS value
          FROM asked
          JOIN stemma.transcripts ON transcripts.workspace_id = :workspace_id AND transcripts.run_id = asked.run_id
          LEFT JOIN stemma.scenarios ON scenarios.workspace_id = :workspace_id AND scenarios.id = transcripts.scenario_id
         CROSS JOIN LATERAL (
               SELECT count(*) > 0 AS is_there,
                      avg(scores.value ORDER BY scores.id) FILTER (WHERE scores.value BETWEEN -1e100 AND 1e100) AS value,
                      string_agg(scores.id || '=' || coalesce(CAST(scores.value AS text), ''), ',' ORDER BY scores.id) AS trace
                 FROM (SELECT scores.id, scores.name, scores.value
                         FROM stemma.scores
                        WHERE scores.workspace_id = :workspace_id AND scores.transcript_id = transcripts.id
                       OFFSET 0) AS scores
                WHERE scores.name = :metric
               ) AS judged
         CROSS JOIN LATERAL (SELECT transcripts.metrics -> 'values' -> :key AS value) AS metric
    ), digests AS MATERIALIZED (
        SELECT asked.run_id, sha256(convert_to(concat_ws(
                   ';', asked.run_id, encode(asked.content_hash, 'hex'), encode(asked.config_hash, 'hex'),
                   string_agg(said.id || ':' || coalesce(said.trace, ''), ';' ORDER BY said.id) FILTER (WHERE said.is_live)
               ), 'UTF8')) AS digest
          FROM asked
          LEFT JOIN said ON said.run_id = asked.run_id
         GROUP BY asked.run_id, asked.content_hash, asked.config_hash
    )"""

DIGESTS: Final = sql_rows(
    SAMPLES  # noqa: S608  (of constants only)
    + """
    SELECT digests.digest, asked.run_id FROM asked JOIN digests ON digests.run_id = asked.run_id ORDER BY asked.place
    """
)

# The rank of a difference that ties with others is the mean of their ranks. Equal differences have no deviation, whatever sums round to.
_PAIRS: Final = sql_rows(
    SAMPLES  # noqa: S608  (of constants only)
    + """
    , pairs AS MATERIALIZED (
        SELECT a.run_id AS baseline, b.run_id AS comparison, a.place AS place_a, b.place AS place_b
          FROM asked AS a
          JOIN asked AS b ON b.place > a.place
    ), aligned AS MATERIALIZED (
        SELECT pairs.baseline, pairs.comparison, said.scenario, said.model, said.sample_index,
               avg(said.value) FILTER (WHERE side.is_baseline) AS x,
               avg(said.value) FILTER (WHERE NOT side.is_baseline) AS y,
               coalesce(bool_and(NOT said.is_live) FILTER (WHERE side.is_baseline), false) AS x_is_dead,
               coalesce(bool_and(NOT said.is_live) FILTER (WHERE NOT side.is_baseline), false) AS y_is_dead
          FROM pairs
         CROSS JOIN LATERAL (VALUES (pairs.baseline, true), (pairs.comparison, false)) AS side (run_id, is_baseline)
          JOIN said ON said.run_id = side.run_id
         GROUP BY pairs.baseline, pairs.comparison, said.scenario, said.model, said.sample_index
    ), covered AS (
        SELECT aligned.baseline, aligned.comparison,
               count(*) FILTER (WHERE aligned.x IS NOT NULL AND aligned.y IS NOT NULL) AS matched,
               count(*) FILTER (WHERE aligned.x IS NOT NULL AND aligned.y IS NULL AND NOT aligned.y_is_dead) AS only_baseline,
               count(*) FILTER (WHERE aligned.x IS NULL AND aligned.y IS NOT NULL AND NOT aligned.x_is_dead) AS only_comparison,
               count(*) FILTER (WHERE aligned.x IS NOT NULL AND aligned.y_is_dead OR aligned.y IS NOT NULL AND aligned.x_is_dead)
                   AS invalidated
          FROM aligned
         GROUP BY aligned.baseline, aligned.comparison
    ), differences AS MATERIALIZED (
        SELECT aligned.baseline, aligned.comparison, aligned.scenario, aligned.model, aligned.sample_index, aligned.x, aligned.y,
               aligned.y - aligned.x AS d
          FROM aligned
         WHERE aligned.x IS NOT NULL AND aligned.y IS NOT NULL
    ), ranked AS (
        SELECT differences.baseline, differences.comparison, differences.d,
               rank() OVER (PARTITION BY differences.baseline, differences.comparison ORDER BY abs(differences.d)) AS rank,
               count(*) OVER (PARTITION BY differences.baseline, differences.comparison, abs(differences.d)) AS ties
          FROM differences
         WHERE differences.d <> 0
    ), signed AS (
        SELECT ranked.baseline, ranked.comparison,
               sum(ranked.rank + (ranked.ties - 1) / 2.0) FILTER (WHERE ranked.d > 0) AS w_plus,
               sum(ranked.ties * ranked.ties - 1) AS ties_term
          FROM ranked
         GROUP BY ranked.baseline, ranked.comparison
    ), summed AS MATERIALIZED (
        SELECT differences.baseline, differences.comparison, count(*) AS n, avg(differences.x) AS x, avg(differences.y) AS y,
               CASE WHEN min(differences.d) = max(differences.d) THEN min(differences.d) ELSE avg(differences.d) END AS mean,
               CASE WHEN min(differences.d) = max(differences.d) THEN 0 ELSE stddev_samp(differences.d) END AS deviation,
               count(*) FILTER (WHERE differences.d > 0) AS wins,
               count(*) FILTER (WHERE differences.d < 0) AS losses,
               bool_and(differences.x IN (0, 1) AND differences.y IN (0, 1)) AS is_binary,
               CASE WHEN CAST(:with_differences AS boolean) THEN
                   array_agg(differences.d ORDER BY differences.scenario, differences.model COLLATE "C", differences.sample_index)
               END AS differences
          FROM differences
         GROUP BY differences.baseline, differences.comparison
    ), residuals AS (
        SELECT differences.baseline, differences.comparison, sum(differences.d - summed.mean) AS total
          FROM differences
          JOIN summed ON summed.baseline = differences.baseline AND summed.comparison = differences.comparison
         GROUP BY differences.baseline, differences.comparison, differences.scenario,
               CASE WHEN differences.scenario = '' THEN differences.model || ' ' || differences.sample_index END
    ), clustered AS (
        SELECT residuals.baseline, residuals.comparison, count(*) AS clusters, var_pop(residuals.total) AS spread,
               avg(residuals.total) AS middle
          FROM residuals
         GROUP BY residuals.baseline, residuals.comparison
    )
    SELECT pairs.baseline, pairs.comparison, a.digest AS baseline_digest, b.digest AS comparison_digest,
           covered.matched, covered.only_baseline, covered.only_comparison, covered.invalidated,
           summed.n, summed.x, summed.y, summed.mean, summed.deviation, summed.wins, summed.losses, summed.is_binary, summed.differences,
           signed.w_plus, signed.ties_term, clustered.clusters, clustered.spread, clustered.middle
      FROM pairs
      JOIN digests AS a ON a.run_id = pairs.baseline
      JOIN digests AS b ON b.run_id = pairs.comparison
      LEFT JOIN covered ON covered.baseline = pairs.baseline AND covered.comparison = pairs.comparison
      LEFT JOIN summed ON summed.baseline = pairs.baseline AND summed.comparison = pairs.comparison
      LEFT JOIN signed ON signed.baseline = pairs.baseline AND signed.comparison = pairs.comparison
      LEFT JOIN clustered ON clustered.baseline = pairs.baseline AND clustered.comparison = pairs.comparison
     ORDER BY pairs.place_a, pairs.place_b
    """
)


class PairOfRuns(NamedTuple):
    """Two runs side by side."""

    baseline_run_id: UUID
    comparison_run_id: UUID
    coverage: Coverage
    sample: Sample
    input_hash: bytes


def read_pairs(session: Session, run_ids: Sequence[UUID], metric: str, *, with_differences: bool) -> list[PairOfRuns]:
    """
    Return every pair of the runs, in the order given. One statement.

    Raises:
        NotFoundError: no run of this workspace has one of the ids.
    """
    log.debug("comparing %s of runs %s", metric, run_ids)
    rows = _PAIRS.all(session, run_ids=list(run_ids), metric=metric, key=escape(metric), with_differences=with_differences)
    if len(rows) < len(run_ids) * (len(run_ids) - 1) // 2:
        for run_id in run_ids:
            get_run(session, run_id)
    return [_pair(row, metric) for row in rows]


def read_input_hash(session: Session, run_ids: Sequence[UUID], metric: str) -> bytes | None:
    """Return the hash of what two runs are compared by, as it is now; None when one of them is gone. One statement."""
    rows = DIGESTS.all(session, run_ids=list(run_ids), metric=metric, key=escape(metric))
    return _hash(metric, *(row.digest for row in rows)) if len(rows) == len(run_ids) else None


def _hash(metric: str, *digests: bytes) -> bytes:
    return hashlib.sha256(metric.encode() + b"".join(bytes(each) for each in digests)).digest()


def _pair(row: Any, metric: str) -> PairOfRuns:
    coverage = Coverage(
        matched=row.matched or 0,
        only_baseline=row.only_baseline or 0,
        only_comparison=row.only_comparison or 0,
        invalidated=row.invalidated or 0,
    )
    sample = Sample()
    if row.n:
        sample = Sample(
            n=row.n,
            baseline=row.x,
            comparison=row.y,
            mean=row.mean,
            deviation=row.deviation,
            clusters=row.clusters,
            spread=row.spread,
            middle=row.middle,
            wins=row.wins,
            losses=row.losses,
            w_plus=float(row.w_plus or 0),
            ties_term=float(row.ties_term or 0),
            is_binary=row.is_binary,
            differences=row.differences,
        )
    return PairOfRuns(row.baseline, row.comparison, coverage, sample, _hash(metric, row.baseline_digest, row.comparison_digest))
