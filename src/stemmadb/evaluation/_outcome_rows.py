"""
Outcomes of slots as rows of JSON arrays, which is how a thousand of them are sent: three parameters.

What was claimed and what became of it goes apart from the transcripts: it is sorted and looked through several times by the statement. A
row is made of texts: the documents are dumped straight to JSON, and so are the other fields, without an entity or a dict of the whole.
"""

from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from random import uniform
from typing import Any, Final, NamedTuple

import pydantic_core

from stemmadb.documents import dump_json
from stemmadb.entity import parse_reference, uuid7
from stemmadb.errors import ValidationError
from stemmadb.evaluation._score_rows import judgement_json
from stemmadb.evaluation._transcript_rows import array_of, as_json, give_way, joined
from stemmadb.evaluation.data import ScoreCreate, SlotClaim, SlotOutcome, TranscriptCreate

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

    claims: str
    """A JSON array: every outcome."""
    rows: str
    """A JSON array: the transcripts, without their dialogues."""
    contents: str
    """The dialogue of each of them."""


def chunks(outcomes: Sequence[SlotOutcome]) -> Generator[Chunk, None, None]:
    """
    Yield the outcomes in chunks of at most 1,000.

    A thread makes the next chunk while the caller sends one: making it takes a third of the time that the server takes to store it.

    Raises:
        ValidationError: an outcome is not that of its claim, or two of its scores are the same judgement.
        DocumentError: a document cannot be stored.
    """
    made = _made(outcomes)
    if len(outcomes) <= _CHUNK:
        yield from made
        return
    with ThreadPoolExecutor(1, "stemmadb-outcomes") as thread:
        following = thread.submit(next, made, None)
        while (chunk := following.result()) is not None:
            following = thread.submit(next, made, None)
            yield chunk


def _made(outcomes: Sequence[SlotOutcome]) -> Iterator[Chunk]:
    claims: list[str] = []
    rows: list[str] = []
    contents: list[str] = []
    size = 0
    for number, outcome in enumerate(outcomes):
        give_way(number)
        claim, row, content = _row(outcome)
        length = len(claim) + len(row) + len(content)
        if claims and (len(claims) == _CHUNK or size + length > _CHUNK_CHARACTERS):
            yield Chunk(array_of(claims), array_of(rows), joined(contents))
            claims, rows, contents, size = [], [], [], 0
        claims.append(claim)
        if outcome.transcript is not None:
            rows.append(row)
            contents.append(content)
        size += length
    if claims:
        yield Chunk(array_of(claims), array_of(rows), joined(contents))


def _row(outcome: SlotOutcome) -> tuple[str, str, str]:
    """Return the claim, the transcript and its dialogue; the latter two are empty when the attempt failed."""
    claim = outcome.claim
    key = claim.key
    place = {"run_id": key.run_id, "scenario_id": key.scenario_id, "sample_index": key.sample_index}
    values: dict[str, Any] = {**place, "model": key.model, "attempt": claim.attempt, "worker": claim.worker}
    if outcome.transcript is None:
        pause = _back_off(claim.attempt) if outcome.retry_in is None else outcome.retry_in
        values |= {"error_code": outcome.error_code, "error_message": outcome.error_message, "retry_s": pause.total_seconds()}
        return pydantic_core.to_json(values, exclude_none=True).decode(), "", ""
    _check_key(claim, outcome.transcript)
    values["id"] = uuid7()
    told = pydantic_core.to_json(values).decode()
    if outcome.scores:
        told = f'{told[:-1]},"scores":{_scores(outcome.scores)}}}'
    return told, as_json(values["id"], outcome.transcript, **place), dump_json(outcome.transcript.content)


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
