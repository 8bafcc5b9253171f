"""
Outcomes of slots as rows of JSON arrays, which is how a thousand of them are sent: three parameters.

What was claimed and what became of it goes apart from the transcripts: it is sorted and looked through several times by the statement. A
row is made of texts: the documents are dumped straight to JSON, and so are the other fields, without an entity or a dict of the whole.
"""

from collections.abc import Generator, Sequence
from datetime import timedelta
from random import uniform
from typing import Any, Final, NamedTuple
from uuid import UUID

import pydantic_core
from sqlalchemy.orm import Session

from stemmadb.entity import parse_reference, uuid7
from stemmadb.errors import ValidationError
from stemmadb.evaluation._making_ahead import give_way, made_ahead
from stemmadb.evaluation._score_rows import judgement_json
from stemmadb.evaluation._transcript_rows import TranscriptRow, array_of, row_of, sent
from stemmadb.evaluation.data import ScoreCreate, SlotClaim, SlotKey, SlotOutcome, TranscriptCreate

CLAIM_RECORD: Final = """
    run_id uuid, scenario_id uuid, model text, sample_index integer, attempt integer, worker text, id uuid, scores json,
    error_code text, error_message text, retry_s double precision"""
"""The columns of a claim with its outcome: the transcript's id and its scores, or the error and the pause."""

_CHUNK: Final = 1000
# A parameter has at most 1 GB, and documents at most 16 MB each: large ones go in smaller chunks.
_CHUNK_CHARACTERS: Final = 32_000_000

_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 300.0


class Chunk(NamedTuple):
    """Outcomes as they are sent."""

    keys: list[SlotKey]
    ids: list[UUID | None]
    """For each key the transcript's id; None where the attempt failed."""
    parameters: dict[str, str]


def chunks(session: Session, outcomes: Sequence[SlotOutcome]) -> Generator[list[Chunk], None, None]:
    """
    Yield the outcomes in chunks of at most 1,000, or of fewer long ones.

    A thread makes the next chunk while the caller's statement for the one before is executed.

    Raises:
        ValidationError: an outcome is not that of its claim, or two of its scores are the same judgement.
        DocumentError: a document cannot be stored.
    """
    return made_ahead(session, (outcomes[n : n + _CHUNK] for n in range(0, len(outcomes), _CHUNK)), _made)


def _made(outcomes: Sequence[SlotOutcome]) -> list[Chunk]:
    made: list[Chunk] = []
    rows: list[_Row] = []
    size = 0
    for number, outcome in enumerate(outcomes):
        give_way(number)
        row = _row(outcome)
        length = len(row.claim) + (row.transcript.size if row.transcript else 0)
        if rows and size + length > _CHUNK_CHARACTERS:
            made.append(_chunk(rows))
            rows, size = [], 0
        rows.append(row)
        size += length
    return [*made, _chunk(rows)]


class _Row(NamedTuple):
    key: SlotKey
    id: UUID | None
    claim: str
    """As JSON."""
    transcript: TranscriptRow | None
    """None when the attempt failed."""


def _chunk(rows: list[_Row]) -> Chunk:
    parameters = {"claims": array_of(row.claim for row in rows), **sent([row.transcript for row in rows if row.transcript is not None])}
    return Chunk([row.key for row in rows], [row.id for row in rows], parameters)


def _row(outcome: SlotOutcome) -> _Row:
    claim = outcome.claim
    key = claim.key
    place = {"run_id": key.run_id, "scenario_id": key.scenario_id, "sample_index": key.sample_index}
    values: dict[str, Any] = {**place, "model": key.model, "attempt": claim.attempt, "worker": claim.worker}
    if outcome.transcript is None:
        pause = _back_off(claim.attempt) if outcome.retry_in is None else outcome.retry_in
        values |= {"error_code": outcome.error_code, "error_message": outcome.error_message, "retry_s": pause.total_seconds()}
        return _Row(key, None, pydantic_core.to_json(values, exclude_none=True).decode(), None)
    _check_key(claim, outcome.transcript)
    transcript_id = values["id"] = uuid7()
    told = pydantic_core.to_json(values).decode()
    if outcome.scores:
        told = f'{told[:-1]},"scores":{_scores(outcome.scores)}}}'
    return _Row(key, transcript_id, told, row_of(transcript_id, outcome.transcript, **place))


def _check_key(claim: SlotClaim, transcript: TranscriptCreate) -> None:
    """Refuse the transcript of another slot; what it leaves out is the claim's."""
    key = claim.key
    if transcript.model != key.model:
        message = "the transcript is of another model than its claim: the version that really answered goes into model_version"
        raise ValidationError(message, "model")
    if transcript.scenario_id is not None and parse_reference(transcript.scenario_id, "scenario_id") != key.scenario_id:
        raise ValidationError("the transcript is of another scenario than its claim", "scenario_id")
    if transcript.sample_index != key.sample_index and "sample_index" in transcript.model_fields_set:
        raise ValidationError("the transcript is of another sample than its claim", "sample_index")


def _back_off(attempt: int) -> timedelta:
    """Return the pause after an attempt: a second, doubled with each one up to five minutes, with jitter."""
    # Computed here and not by the UPDATE, where Citus allows no random().
    seconds = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(attempt - 1, 30))
    return timedelta(seconds=seconds * uniform(0.5, 1.5))  # noqa: S311


def _scores(scores: list[ScoreCreate]) -> str:
    judgements = {(score.rubric_id and str(score.rubric_id), score.name, score.annotator_kind, score.annotator) for score in scores}
    if len(judgements) < len(scores):
        message = "two scores of one transcript have the same rubric, name and annotator: an annotator judges once"
        raise ValidationError(message, "scores")
    return f"[{','.join(map(judgement_json, scores))}]"
