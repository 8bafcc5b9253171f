"""What a run cost. Import the function from ``stemmadb.evaluation.transcripts``."""

from decimal import Decimal
from typing import Any, Final

from sqlalchemy.orm import Session

from stemmadb.entity import Id
from stemmadb.errors import NotFoundError
from stemmadb.evaluation._run_rows import key_of
from stemmadb.evaluation._transcript_rows import log
from stemmadb.evaluation.data import ModelMetrics, RunMetrics
from stemmadb.query import sql_rows, tenant_query

_KINDS: Final = ("input", "output", "reasoning", "cache_read", "cache_write")
_QUANTILES: Final = ("p50", "p90", "p99")

# Costs are added up currency by currency, and go out as text: a JSON number would not be exact.
_SUMMARY: Final = sql_rows(
    """
    WITH mine AS MATERIALIZED (
        SELECT transcripts.model, transcripts.invalidated_at IS NULL AS is_live, transcripts.input_tokens, transcripts.output_tokens,
               transcripts.reasoning_tokens, transcripts.cache_read_tokens, transcripts.cache_write_tokens, transcripts.duration_ms,
               transcripts.ttft_ms, transcripts.cost, transcripts.cost_currency
          FROM stemma.transcripts
         WHERE transcripts.workspace_id = :workspace_id AND transcripts.run_id = :run_id
    ), live AS (
        SELECT mine.model,
               count(*) AS live_count,
               sum(mine.input_tokens) AS input, sum(mine.output_tokens) AS output, sum(mine.reasoning_tokens) AS reasoning,
               sum(mine.cache_read_tokens) AS cache_read, sum(mine.cache_write_tokens) AS cache_write,
               count(mine.input_tokens) AS input_tokens, count(mine.output_tokens) AS output_tokens,
               count(mine.reasoning_tokens) AS reasoning_tokens, count(mine.cache_read_tokens) AS cache_read_tokens,
               count(mine.cache_write_tokens) AS cache_write_tokens, count(mine.duration_ms) AS duration_ms,
               count(mine.ttft_ms) AS ttft_ms, count(mine.cost) AS cost,
               percentile_cont(CAST('{0.5,0.9,0.99}' AS double precision[])) WITHIN GROUP (ORDER BY mine.duration_ms) AS quantiles
          FROM mine
         WHERE mine.is_live
         GROUP BY mine.model
    ), costs AS (
        SELECT added.model, json_object_agg(added.cost_currency, CAST(added.total AS text) ORDER BY added.cost_currency) AS by_currency
          FROM (
              SELECT mine.model, mine.cost_currency, sum(mine.cost) AS total
                FROM mine
               WHERE mine.is_live AND mine.cost IS NOT NULL
               GROUP BY mine.model, mine.cost_currency
          ) AS added
         GROUP BY added.model
    ), dead AS (
        SELECT mine.model, count(*) AS dead_count FROM mine WHERE NOT mine.is_live GROUP BY mine.model
    )
    SELECT model.model, coalesce(live.live_count, 0) AS live_count, coalesce(dead.dead_count, 0) AS dead_count,
           live.input, live.output, live.reasoning, live.cache_read, live.cache_write,
           live.input_tokens, live.output_tokens, live.reasoning_tokens, live.cache_read_tokens, live.cache_write_tokens,
           live.duration_ms, live.ttft_ms, live.cost, live.quantiles, costs.by_currency
      FROM stemma.runs
      LEFT JOIN (SELECT DISTINCT mine.model FROM mine) AS model ON true
      LEFT JOIN live ON live.model = model.model
      LEFT JOIN dead ON dead.model = model.model
      LEFT JOIN costs ON costs.model = model.model
     WHERE runs.workspace_id = :workspace_id AND runs.id = :run_id
     ORDER BY model.model COLLATE "C"
    """
)
_COUNTED: Final = (*(f"{kind}_tokens" for kind in _KINDS), "duration_ms", "ttft_ms", "cost")


@tenant_query
def summarize_run(session: Session, run_id: Id) -> RunMetrics:
    """
    Return what the live transcripts of a run took, per model: tokens, costs, durations. One statement.

    What a transcript does not say counts as unknown, never as 0: a kind of tokens that no transcript knows is absent from ``tokens``, and
    ``unknown`` says for each column how many sums it is missing from. Costs are exact, and those of different currencies are never added.

    Returns:
        A ModelMetrics for each model of the run's transcripts, by model; a model whose transcripts are all invalidated has the count 0.

    Raises:
        NotFoundError: no run of this workspace has this id.
    """
    key = key_of(run_id)
    log.debug("summarizing run %s", key)
    rows = _SUMMARY.all(session, run_id=key)
    if not rows:
        log.warning("run %s was not found", key)
        raise NotFoundError("Run", run_id)
    return RunMetrics(key, [_metrics(row) for row in rows if row.model is not None])


def _metrics(row: Any) -> ModelMetrics:
    tokens = {kind: getattr(row, kind) for kind in _KINDS}
    return ModelMetrics(
        model=row.model,
        count=row.live_count,
        invalidated=row.dead_count,
        tokens={kind: int(total) for kind, total in tokens.items() if total is not None},
        cost={currency: Decimal(total) for currency, total in (row.by_currency or {}).items()},
        duration_ms=dict(zip(_QUANTILES, row.quantiles or (), strict=False)),
        unknown={column: row.live_count - (getattr(row, column) or 0) for column in _COUNTED},
    )
