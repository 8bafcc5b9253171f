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

# Nobody has statistics of what a CTE holds, and of tables that were just filled; expecting one row, PostgreSQL compares each with each. It
# cannot for a FULL JOIN, which is a LEFT JOIN here: scores are read of these transcripts alone. OFFSET 0 keeps the name of the score out
# of the choice of the index.
SAMPLES: Final = """
    WITH asked AS MATERIALIZED (
        SELECT runs.id AS run_id, CAST(given.place AS integer) AS place, runs.config_hash, definitions.content_hash
          FROM unnest(CAST(:run_ids AS uuid[])) WITH ORDINALITY AS given (run_id, place)
          JOIN stemma.runs ON runs.workspace_id = :workspace_id AND runs.id = given.run_id
          JOIN stemma.definitions ON definitions.workspace_id = :workspace_id AND definitions.id = runs.definition_id
    ), mine AS MATERIALIZED (
        SELECT asked.place, transcripts.id, coalesce(scenarios.content_hash, CAST('' AS bytea)) AS scenario, transcripts.model,
               transcripts.sample_index, transcripts.invalidated_at IS NULL AS is_live, transcripts.metrics -> 'values' -> :key AS metric
          FROM asked
          JOIN stemma.transcripts ON transcripts.workspace_id = :workspace_id AND transcripts.run_id = asked.run_id
          LEFT JOIN stemma.scenarios ON scenarios.workspace_id = :workspace_id AND scenarios.id = transcripts.scenario_id
    ), judged AS MATERIALIZED (
        SELECT scores.transcript_id, avg(scores.value ORDER BY scores.id) FILTER (WHERE scores.value BETWEEN -1e100 AND 1e100) AS value,
               string_agg(scores.id || '=' || coalesce(CAST(scores.value AS text), ''), ',' ORDER BY scores.id) AS trace
          FROM (SELECT scores.id, scores.transcript_id, scores.name, scores.value
                  FROM stemma.scores
                 WHERE scores.workspace_id = :workspace_id AND scores.transcript_id = ANY (ARRAY(SELECT mine.id FROM mine))
                OFFSET 0) AS scores
         WHERE scores.name = :metric
         GROUP BY scores.transcript_id
    ), said AS MATERIALIZED (
        SELECT mine.place, mine.id, mine.scenario, mine.model, mine.sample_index, mine.is_live,
               coalesce(judged.trace, CAST(mine.metric AS text)) AS trace,
               CASE WHEN NOT mine.is_live THEN NULL
                    WHEN judged.transcript_id IS NOT NULL THEN judged.value
                    WHEN jsonb_typeof(mine.metric) <> 'number' OR abs(CAST(mine.metric AS numeric)) > 1e100 THEN NULL
                    WHEN abs(CAST(mine.metric AS numeric)) < 1e-300 THEN 0
                    ELSE CAST(CAST(mine.metric AS text) AS double precision) END AS value
          FROM mine
          FULL JOIN judged ON judged.transcript_id = mine.id
    ), traces AS MATERIALIZED (
        SELECT said.place, string_agg(said.id || ':' || coalesce(said.trace, ''), ';' ORDER BY said.id) FILTER (WHERE said.is_live) AS trace
          FROM said
         GROUP BY said.place
    ), digests AS MATERIALIZED (
        SELECT asked.run_id, asked.place, sha256(convert_to(concat_ws(
                   ';', asked.run_id, encode(asked.content_hash, 'hex'), encode(asked.config_hash, 'hex'), traces.trace
               ), 'UTF8')) AS digest
          FROM asked
          LEFT JOIN traces ON traces.place = asked.place
    )"""

DIGESTS: Final = sql_rows(
    SAMPLES  # noqa: S608  (of constants only)
    + """
    SELECT digests.digest, digests.run_id FROM digests ORDER BY digests.place
    """
)

# A cell is what aligns. Each run becomes an array of its numbers, one for every cell: NULL where the run has none, NaN where all it has is
# invalidated, and no comparison with either is true. Two runs side by side are then two arrays, and nothing is joined.
_CELLS: Final = """
    , sampled AS (
        SELECT said.scenario, said.model, said.sample_index, said.place,
               CASE WHEN bool_or(said.is_live) THEN avg(said.value) ELSE 'NaN' END AS value
          FROM said
         GROUP BY said.scenario, said.model, said.sample_index, said.place
    ), cells AS (
        SELECT row_number() OVER (ORDER BY sampled.scenario, sampled.model COLLATE "C", sampled.sample_index) AS number,
               CASE WHEN sampled.scenario = '' THEN 0 ELSE dense_rank() OVER (ORDER BY sampled.scenario) END AS cluster,
               array_agg(sampled.place ORDER BY sampled.place) AS places,
               array_agg(sampled.value ORDER BY sampled.place) AS values
          FROM sampled
         GROUP BY sampled.scenario, sampled.model, sampled.sample_index
    ), filled AS MATERIALIZED (
        SELECT cells.number, CASE WHEN cells.cluster = 0 THEN -cells.number ELSE cells.cluster END AS cluster,
               CASE WHEN cardinality(cells.places) = :count THEN cells.values
                    ELSE ARRAY(SELECT cells.values[array_position(cells.places, place)]
                                 FROM generate_series(1, :count) AS place
                                ORDER BY place) END AS values
          FROM cells
    ), clusters AS MATERIALIZED (
        SELECT array_agg(filled.cluster ORDER BY filled.number) AS numbers FROM filled
    ), lines AS MATERIALIZED (
        SELECT digests.run_id, digests.place, digests.digest,
               ARRAY(SELECT filled.values[digests.place] FROM filled ORDER BY filled.number) AS values
          FROM digests
    )"""

# Ranks are summed by twos, and differences of one size at once: they share the mean of their ranks. Equal differences have no deviation,
# whatever sums round to.
_PAIRS: Final = sql_rows(
    SAMPLES  # noqa: S608  (of constants only)
    + _CELLS
    + """
    SELECT a.run_id AS baseline, b.run_id AS comparison, a.digest AS baseline_digest, b.digest AS comparison_digest,
           covered.only_baseline, covered.only_comparison, covered.invalidated,
           summed.n, summed.x, summed.y, summed.mean, summed.deviation, summed.wins, summed.losses, summed.is_binary,
           CASE WHEN CAST(:with_differences AS boolean) THEN
               ARRAY(SELECT side.y - side.x
                       FROM unnest(a.values, b.values) WITH ORDINALITY AS side (x, y, number)
                      WHERE side.x <= 1e100 AND side.y <= 1e100
                      ORDER BY side.number)
           END AS differences,
           signed.w_plus, signed.ties_term, clustered.clusters, clustered.spread, clustered.middle
      FROM lines AS a
      JOIN lines AS b ON b.place > a.place
     CROSS JOIN clusters
     CROSS JOIN LATERAL (
           SELECT count(*) FILTER (WHERE side.x <= 1e100 AND side.y IS NULL) AS only_baseline,
                  count(*) FILTER (WHERE side.x IS NULL AND side.y <= 1e100) AS only_comparison,
                  count(*) FILTER (WHERE side.x <= 1e100 AND side.y = 'NaN' OR side.x = 'NaN' AND side.y <= 1e100) AS invalidated
             FROM unnest(a.values, b.values) AS side (x, y)
           ) AS covered
     CROSS JOIN LATERAL (
           SELECT count(*) AS n, avg(side.x) AS x, avg(side.y) AS y,
                  CASE WHEN min(side.y - side.x) = max(side.y - side.x) THEN min(side.y - side.x) ELSE avg(side.y - side.x) END AS mean,
                  CASE WHEN min(side.y - side.x) = max(side.y - side.x) THEN 0 ELSE stddev_samp(side.y - side.x) END AS deviation,
                  count(*) FILTER (WHERE side.y > side.x) AS wins,
                  count(*) FILTER (WHERE side.y < side.x) AS losses,
                  bool_and(side.x IN (0, 1) AND side.y IN (0, 1)) AS is_binary
             FROM unnest(a.values, b.values) AS side (x, y)
            WHERE side.x <= 1e100 AND side.y <= 1e100
           ) AS summed
     CROSS JOIN LATERAL (
           SELECT sum(sized.higher * (2 * sized.up_to - sized.ties + 1)) / 2 AS w_plus, sum(sized.ties ^ 3 - sized.ties) AS ties_term
             FROM (SELECT CAST(count(*) AS double precision) AS ties, count(*) FILTER (WHERE side.y > side.x) AS higher,
                          sum(CAST(count(*) AS double precision)) OVER (ORDER BY abs(side.y - side.x)) AS up_to
                     FROM unnest(a.values, b.values) AS side (x, y)
                    WHERE side.x <= 1e100 AND side.y <= 1e100 AND side.y <> side.x
                    GROUP BY abs(side.y - side.x)) AS sized
           ) AS signed
     CROSS JOIN LATERAL (
           SELECT count(*) AS clusters, var_pop(residuals.total) AS spread, avg(residuals.total) AS middle
             FROM (SELECT sum(side.y - side.x - summed.mean) AS total
                     FROM unnest(a.values, b.values, clusters.numbers) AS side (x, y, cluster)
                    WHERE side.x <= 1e100 AND side.y <= 1e100
                    GROUP BY side.cluster) AS residuals
           ) AS clustered
     ORDER BY a.place, b.place
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
    rows = _PAIRS.all(
        session, run_ids=list(run_ids), metric=metric, key=escape(metric), count=len(run_ids), with_differences=with_differences
    )
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
    coverage = Coverage(matched=row.n, only_baseline=row.only_baseline, only_comparison=row.only_comparison, invalidated=row.invalidated)
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
