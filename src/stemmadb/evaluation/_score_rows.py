"""What the modules about scores share: ids as callers give them, rows that are missing, and rows as they are sent."""

import logging
from typing import Final
from uuid import UUID

import pydantic_core

from stemmadb.documents import dump_json, escape
from stemmadb.entity import Id, parse_id, parse_reference
from stemmadb.errors import NotFoundError
from stemmadb.evaluation.data import ScoreCreate

# The private modules of the pack log under the name that callers import.
log = logging.getLogger("stemmadb.evaluation.scores")

SCORE_TYPES: Final = {
    "rubric_id": "uuid",
    "name": "text",
    "annotator_kind": "text",
    "annotator": "text",
    "annotator_user_id": "uuid",
    "value": "double precision",
    "label": "text",
    "rationale": "jsonb",
    "duration_ms": "bigint",
    "cost": "numeric",
    "cost_currency": "text",
}
"""The columns of a score besides its transcript, with their types."""

SCORE_RECORD: Final = ", ".join(f"{name} {kind}" for name, kind in SCORE_TYPES.items())
"""The same as the columns of a JSON array's rows."""

JudgementKey = tuple[UUID, UUID | None, str, str, str]
"""Transcript, rubric, name, kind of annotator, annotator: what there is one score for."""


def key_of(score_id: Id) -> UUID:
    """
    Return the id as a UUID.

    Raises:
        NotFoundError: it is malformed, so no score has it.
    """
    try:
        return parse_id(score_id, "Score")
    except NotFoundError:
        log.warning("score %r was not found: that is no id", score_id)
        raise


def missing(score_id: Id) -> NotFoundError:
    """Log that there is no such score in the session's workspace, and return the error that says so."""
    log.warning("score %s was not found", score_id)
    return NotFoundError("Score", score_id)


def judgement_of(transcript_id: UUID, data: ScoreCreate) -> JudgementKey:
    """
    Return what there is one score for.

    Raises:
        ValidationError: rubric_id is not a UUID.
    """
    rubric_id = None if data.rubric_id is None else parse_reference(data.rubric_id, "rubric_id")
    return transcript_id, rubric_id, data.name, str(data.annotator_kind), data.annotator


def as_json(number: int, score_id: UUID, transcript_id: UUID, data: ScoreCreate) -> str:
    """
    Return one row as JSON text, under the number that the caller gave it.

    Raises:
        ValidationError: an id is not a UUID.
        DocumentError: the rationale cannot be stored.
    """
    # As the document of the rubric has it: its texts are escaped.
    rubric_key = None if data.rubric_id is None else escape(data.name)
    return judgement_json(data, n=number, id=score_id, transcript_id=transcript_id, rubric_key=rubric_key)


def judgement_json(data: ScoreCreate, **beside: object) -> str:
    """
    Return the columns of ``SCORE_TYPES`` and what stands beside them as JSON text, without those that are empty.

    Raises:
        ValidationError: an id is not a UUID.
        DocumentError: the rationale cannot be stored.
    """
    user_id = data.annotator_user_id
    values = {
        **beside,
        "rubric_id": None if data.rubric_id is None else parse_reference(data.rubric_id, "rubric_id"),
        "name": data.name,
        "annotator_kind": data.annotator_kind,
        "annotator": data.annotator,
        "annotator_user_id": None if user_id is None else parse_reference(user_id, "annotator_user_id"),
        # As text: JSON has no NaN, and the shortest text that reads back the same is exact.
        "value": None if data.value is None else repr(data.value),
        "label": data.label,
        "duration_ms": data.duration_ms,
        "cost": None if data.cost is None else str(data.cost),
        "cost_currency": data.cost_currency,
    }
    known = pydantic_core.to_json(values, exclude_none=True).decode()
    return known if data.rationale is None else f'{known[:-1]},"rationale":{dump_json(data.rationale)}}}'
