"""Which transcripts meet the criteria of a cohort: one statement for lists, counts and hashes of inputs."""

import json
from typing import Any, Final

from stemmadb.documents import escape
from stemmadb.evaluation.documents import CohortCriteria

# A dimension's values are texts or numbers in a scenario, and texts in the criteria: both are compared as text.
MEMBERS: Final = """
    WITH members AS MATERIALIZED (
        SELECT transcripts.id
          FROM stemma.transcripts
          LEFT JOIN stemma.runs ON runs.workspace_id = :workspace_id AND runs.id = transcripts.run_id
          LEFT JOIN stemma.scenarios ON scenarios.workspace_id = :workspace_id AND scenarios.id = transcripts.scenario_id
         WHERE transcripts.workspace_id = :workspace_id
           AND (CAST(:include_invalidated AS boolean) OR transcripts.invalidated_at IS NULL)
           AND (CAST(:models AS text[]) IS NULL OR transcripts.model = ANY(CAST(:models AS text[])))
           AND (CAST(:definition_ids AS uuid[]) IS NULL OR runs.definition_id = ANY(CAST(:definition_ids AS uuid[])))
           AND (CAST(:experiment_ids AS uuid[]) IS NULL OR runs.experiment_id = ANY(CAST(:experiment_ids AS uuid[])))
           AND (CAST(:created_from AS timestamptz) IS NULL OR transcripts.created_at >= CAST(:created_from AS timestamptz))
           AND (CAST(:created_to AS timestamptz) IS NULL OR transcripts.created_at < CAST(:created_to AS timestamptz))
           AND NOT EXISTS (
               SELECT FROM jsonb_each(CAST(:dimension_values AS jsonb)) AS dimension (name, wanted)
                WHERE NOT coalesce(dimension.wanted ? (scenarios.content -> 'dimension_values' ->> dimension.name), false))
    )"""
"""SQL: ``members`` has the ids. Takes what ``parameters_of`` returns."""


def parameters_of(criteria: CohortCriteria, *, include_invalidated: bool = False) -> dict[str, Any]:
    """Return the parameters of the statement; what is not given is None."""
    values = {escape(name): [escape(value) for value in wanted] for name, wanted in criteria.dimension_values.items()}
    return {
        "include_invalidated": include_invalidated,
        "models": list(criteria.models) or None,
        "definition_ids": list(criteria.definition_ids) or None,
        "experiment_ids": list(criteria.experiment_ids) or None,
        "created_from": criteria.created_from,
        "created_to": criteria.created_to,
        "dimension_values": json.dumps(values),
    }
