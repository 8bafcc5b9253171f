"""
Outcomes of slots as rows of a JSON array, which is how a thousand of them are sent: two parameters.

A row is made of texts: the documents are dumped straight to JSON, and so are the other fields, without an entity or a dict of the whole.
The dialogues, which are most of it, go beside the array: in it, PostgreSQL would parse them twice, as long as it takes to compress them.
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
from stemmadb.evaluation._transcript_rows import COLUMNS, RECORD, as_json
from stemmadb.evaluation.data import ScoreCreate, SlotClaim, SlotOutcome, TranscriptCreate

OUTCOME_RECORD: Final = f"""{RECORD.replace(", content jsonb", "")},
    run_id uuid, slot_scenario_id uuid, slot_model text, slot_index integer, attempt integer, worker text, scores json,
    error_code text, slot_error text, retry_s double precision"""
"""
The columns of a row: a transcript's but for the content, empty when the attempt failed; the claim, the scores, the error and the pause.
"""

TRANSCRIPT_COLUMNS: Final = tuple(name for name in COLUMNS if name not in ("scenario_id", "model", "sample_index"))
"""Columns of the transcript besides its key, which is the slot's."""

_CHUNK: Final = 1000
# A parameter has at most 1 GB, and documents at most 16 MB each: large ones go in smaller chunks.
_CHUNK_CHARACTERS: Final = 32_000_000

# Between the contents: a character that JSON text has only escaped.
_SEPARATOR: Final = "\x01"

_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 300.0


class Chunk(NamedTuple):
    """Outcomes as they are sent."""

    outcomes: str
    """A JSON array of rows."""
    contents: str
    """The content of each row's transcript, or nothing for one without, with U+0001 between them."""


def chunks(outcomes: Sequence[SlotOutcome]) -> Generator[Chunk, None, None]:
    """
    Yield the outcomes in chunks of at most 1,000 rows, numbered through from 0.

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
    rows: list[str] = []
    contents: list[str] = []
    size = 0
    for number, outcome in enumerate(outcomes):
        row = _row(number, outcome)
        content = "" if outcome.transcript is None else dump_json(outcome.transcript.content)
        length = len(row) + len(content)
        if rows and (len(rows) == _CHUNK or size + length > _CHUNK_CHARACTERS):
            yield Chunk(f"[{','.join(rows)}]", _SEPARATOR.join(contents))
            rows, contents, size = [], [], 0
        rows.append(row)
        contents.append(content)
        size += length
    if rows:
        yield Chunk(f"[{','.join(rows)}]", _SEPARATOR.join(contents))


def _row(number: int, outcome: SlotOutcome) -> str:
    claim = outcome.claim
    key = claim.key
    values: dict[str, Any] = {
        "run_id": key.run_id,
        "slot_scenario_id": key.scenario_id,
        "slot_model": key.model,
        "slot_index": key.sample_index,
        "attempt": claim.attempt,
        "worker": claim.worker,
    }
    if outcome.transcript is None:
        pause = _back_off(claim.attempt) if outcome.retry_in is None else outcome.retry_in
        values |= {"n": number, "error_code": outcome.error_code, "slot_error": outcome.error_message, "retry_s": pause.total_seconds()}
        return pydantic_core.to_json(values, exclude_none=True).decode()
    _check_key(claim, outcome.transcript)
    transcript = as_json(number, uuid7(), outcome.transcript, with_content=False)
    scores = f',"scores":{_scores(outcome.scores)}' if outcome.scores else ""
    return f"{transcript[:-1]}{scores},{pydantic_core.to_json(values).decode()[1:]}"


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
