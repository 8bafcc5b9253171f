"""What analyses are computed from, as a hash. Import ``input_hash`` from ``stemmadb.evaluation.analyses``."""

import hashlib
import json
import logging
from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from sqlalchemy.orm import Session

from stemmadb.entity import Id, parse_id
from stemmadb.errors import NotFoundError, ValidationError
from stemmadb.evaluation._cohort_members import MEMBERS, parameters_of
from stemmadb.evaluation._run_rows import key_of as run_key_of
from stemmadb.evaluation.entities import Cohort, Rubric
from stemmadb.query import read, sql_rows, tenant_query

# The private modules of the pack log under the name that callers import.
log = logging.getLogger("stemmadb.evaluation.analyses")

# Of the metrics the values count, not the document: a rewrite in a newer version is the same input.
_INPUTS: Final = """
    used AS MATERIALIZED (
        SELECT transcripts.id, concat_ws(
                   ':', transcripts.id, CAST(transcripts.metrics -> 'values' AS text),
                   string_agg(concat_ws('=', scores.id, CAST(scores.value AS text), scores.label), ',' ORDER BY scores.id)
               ) AS trace
          FROM stemma.transcripts
          <members>
          LEFT JOIN stemma.scores
            ON scores.workspace_id = :workspace_id AND scores.transcript_id = transcripts.id
           AND (CAST(:rubric_id AS uuid) IS NULL OR scores.rubric_id = CAST(:rubric_id AS uuid))
         WHERE transcripts.workspace_id = :workspace_id AND transcripts.run_id = :run_id AND transcripts.invalidated_at IS NULL
         GROUP BY transcripts.id, transcripts.metrics
    )
    SELECT sha256(convert_to(concat_ws(
               ';', runs.id, encode(definitions.content_hash, 'hex'), encode(runs.config_hash, 'hex'),
               (SELECT string_agg(used.trace, ';' ORDER BY used.id) FROM used)
           ), 'UTF8')) AS digest
      FROM stemma.runs
      JOIN stemma.definitions ON definitions.workspace_id = :workspace_id AND definitions.id = runs.definition_id
     WHERE runs.workspace_id = :workspace_id AND runs.id = :run_id
"""
_OF_RUN: Final = sql_rows("WITH" + _INPUTS.replace("<members>", ""))
_OF_COHORT: Final = sql_rows(MEMBERS + "," + _INPUTS.replace("<members>", "JOIN members ON members.id = transcripts.id"))


def hash_of(
    session: Session, run_id: UUID, rubric_id: UUID | None, cohort_id: UUID | None, parameters: Mapping[str, Any] | None
) -> bytes | None:
    """
    Return the hash of the inputs as they are now; None when the run, the rubric or the cohort does not exist.

    One statement, and one more each with a rubric and a cohort.

    Raises:
        ValidationError: a parameter is no JSON.
    """
    try:
        given = json.dumps({} if parameters is None else dict(parameters), sort_keys=True)
    except (TypeError, ValueError):
        raise ValidationError("parameters are values of JSON", "parameters") from None
    rubric = None if rubric_id is None else read(session, Rubric, rubric_id)
    cohort = None if cohort_id is None else read(session, Cohort, cohort_id)
    if (rubric is None) != (rubric_id is None) or (cohort is None) != (cohort_id is None):
        return None
    if cohort is None:
        digest = _OF_RUN.scalar(session, run_id=run_id, rubric_id=rubric_id)
    else:
        digest = _OF_COHORT.scalar(session, run_id=run_id, rubric_id=rubric_id, **parameters_of(cohort.criteria))
    if digest is None:
        return None
    of_rubric = None if rubric is None else rubric.content_hash
    of_cohort = None if cohort is None else cohort.criteria_hash
    return hashlib.sha256(b";".join([bytes(digest), of_rubric or b"", of_cohort or b"", given.encode()])).digest()


@tenant_query
def input_hash(
    session: Session,
    run_id: Id,
    *,
    rubric_id: Id | None = None,
    cohort_id: Id | None = None,
    parameters: Mapping[str, str | int | float | bool | None] | None = None,
) -> bytes:
    """
    Return a hash of everything that an analysis is computed from: 32 bytes, the same as long as none of it changes.

    It covers the live transcripts, their metrics and scores, the definition, the configuration, the rubric, the cohort and the parameters.
    One statement, and one more each with a rubric and a cohort.

    Args:
        session: the caller's session, in a workspace.
        run_id: what is analysed.
        rubric_id: only scores by this version of a rubric count; None: all of them.
        cohort_id: only transcripts of the cohort count.
        parameters: what else decides the output.

    Raises:
        NotFoundError: no run, rubric or cohort of this workspace has this id.
        UnknownSchemaVersionError, CorruptDocumentError: the criteria of the cohort cannot be read.
        ValidationError: a parameter is no JSON.
    """
    key = run_key_of(run_id)
    rubric = None if rubric_id is None else parse_id(rubric_id, "Rubric")
    cohort = None if cohort_id is None else parse_id(cohort_id, "Cohort")
    log.debug("hashing the inputs of analyses of run %s", key)
    found = hash_of(session, key, rubric, cohort, parameters)
    if found is None:
        log.warning("run %s, or the rubric or the cohort, was not found", key)
        if rubric is not None and read(session, Rubric, rubric) is None:
            raise NotFoundError("Rubric", rubric)
        if cohort is not None and read(session, Cohort, cohort) is None:
            raise NotFoundError("Cohort", cohort)
        raise NotFoundError("Run", key)
    return found
