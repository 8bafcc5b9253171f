"""Whether runs can be compared, before any number. Import ``comparability`` from ``stemmadb.evaluation.comparisons``."""

import json
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy.orm import Session

from stemmadb.entity import Id
from stemmadb.errors import DocumentError
from stemmadb.evaluation._comparing import distinct_keys
from stemmadb.evaluation._comparison_data import ComparabilityReport, RunDifference
from stemmadb.evaluation._comparison_rows import log
from stemmadb.evaluation._run_rows import get_run
from stemmadb.evaluation.documents import Coverage, RunConfig
from stemmadb.query import sql_rows, tenant_query

_REPORT: Final = sql_rows(
    """
    WITH asked AS MATERIALIZED (
        SELECT runs.id AS run_id, given.place, CAST(runs.config AS text) AS config, encode(definitions.content_hash, 'hex') AS definition
          FROM unnest(CAST(:run_ids AS uuid[])) WITH ORDINALITY AS given (run_id, place)
          JOIN stemma.runs ON runs.workspace_id = :workspace_id AND runs.id = given.run_id
          JOIN stemma.definitions ON definitions.workspace_id = :workspace_id AND definitions.id = runs.definition_id
    ), said AS MATERIALIZED (
        SELECT asked.place, coalesce(encode(scenarios.content_hash, 'hex'), '') AS scenario, transcripts.model, transcripts.sample_index,
               bool_or(transcripts.invalidated_at IS NULL) AS is_live
          FROM asked
          JOIN stemma.transcripts ON transcripts.workspace_id = :workspace_id AND transcripts.run_id = asked.run_id
          LEFT JOIN stemma.scenarios ON scenarios.workspace_id = :workspace_id AND scenarios.id = transcripts.scenario_id
         GROUP BY asked.place, scenarios.content_hash, transcripts.model, transcripts.sample_index
    ), sets AS (
        SELECT said.place, encode(sha256(convert_to(string_agg(DISTINCT said.scenario, ',' ORDER BY said.scenario), 'UTF8')), 'hex')
                   AS scenarios
          FROM said
         WHERE said.is_live
         GROUP BY said.place
    ), cells AS (
        SELECT count(*) AS runs, count(*) FILTER (WHERE said.is_live) AS live,
               coalesce(bool_or(said.is_live) FILTER (WHERE said.place = 1), false) AS in_first
          FROM said
         GROUP BY said.scenario, said.model, said.sample_index
    ), covered AS (
        SELECT count(*) FILTER (WHERE cells.live = :count) AS matched,
               count(*) FILTER (WHERE cells.live BETWEEN 1 AND :count - 1 AND cells.runs < :count AND cells.in_first) AS only_baseline,
               count(*) FILTER (WHERE cells.live BETWEEN 1 AND :count - 1 AND cells.runs < :count AND NOT cells.in_first)
                   AS only_comparison,
               count(*) FILTER (WHERE cells.live BETWEEN 1 AND :count - 1 AND cells.runs = :count) AS invalidated
          FROM cells
    )
    SELECT asked.run_id, asked.config, asked.definition, sets.scenarios, covered.matched, covered.only_baseline, covered.only_comparison,
           covered.invalidated
      FROM asked
     CROSS JOIN covered
      LEFT JOIN sets ON sets.place = asked.place
     ORDER BY asked.place
    """
)


@tenant_query
def comparability(session: Session, run_ids: Sequence[Id]) -> ComparabilityReport:
    """
    Return what is not the same in runs, and how far they cover the same samples. One statement.

    Args:
        session: the caller's session, in a workspace.
        run_ids: 2 to 200 runs; the first is the baseline.

    Raises:
        NotFoundError: no run of this workspace has one of the ids.
        UnknownSchemaVersionError, CorruptDocumentError: a configuration cannot be read.
        ValidationError: too few or too many runs, or one of them twice.
    """
    keys = distinct_keys(run_ids)
    log.debug("comparing what runs %s are made of", keys)
    rows = _REPORT.all(session, run_ids=keys, count=len(keys))
    if len(rows) < len(keys):
        for key in keys:
            get_run(session, key)
    facts = {row.run_id: _facts(row) for row in rows}
    pointers = sorted({pointer for each in facts.values() for pointer in each})
    differences = []
    for pointer in pointers:
        values = {run_id: each.get(pointer) for run_id, each in facts.items()}
        if len({json.dumps(value, sort_keys=True) for value in values.values()}) > 1:
            differences.append(RunDifference(pointer, values))
    found = Coverage(
        matched=rows[0].matched,
        only_baseline=rows[0].only_baseline,
        only_comparison=rows[0].only_comparison,
        invalidated=rows[0].invalidated,
    )
    return ComparabilityReport(found.matched > 0 and not found.only_baseline and not found.only_comparison, differences, found)


def _facts(row: Any) -> dict[str, Any]:
    return {"/definition": row.definition, "/scenarios": row.scenarios} | {
        f"/config/{name}": value for name, value in _config(row.run_id, row.config).items()
    }


def _config(run_id: UUID, stored: str) -> dict[str, Any]:
    try:
        return RunConfig.load(stored).model_dump(mode="json", exclude={"schema_version"})
    except DocumentError as error:
        raise error.located("runs", "config", run_id) from None
