"""
What the modules about transcripts share: ids as callers give them, rows that are missing, and rows as they are sent.

Rows are sent as a JSON array, one parameter whatever their number. PostgreSQL takes it apart with ``json_to_recordset``, as fast as COPY,
under row-level security and with ON CONFLICT and RETURNING.
"""

import logging
from collections.abc import Iterable
from typing import Final
from uuid import UUID

import pydantic_core

from stemmadb.documents import dump_json
from stemmadb.entity import Id, parse_id, parse_reference
from stemmadb.errors import NotFoundError
from stemmadb.evaluation.data import TranscriptCreate
from stemmadb.evaluation.documents import TranscriptContent, TranscriptMetrics

# The private modules of the pack log under the name that callers import.
log = logging.getLogger("stemmadb.evaluation.transcripts")

PREVIEW_LENGTH: Final = 500

_PLAIN: Final = (
    "model",
    "model_version",
    "sample_index",
    "input_tokens",
    "output_tokens",
    "reasoning_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "duration_ms",
    "ttft_ms",
    "cost_currency",
    "stop_reason",
    "error_message",
)

_TYPES: Final = {
    "id": "uuid",
    "scenario_id": "uuid",
    "model": "text",
    "model_version": "text",
    "sample_index": "integer",
    "content": "jsonb",
    "metrics": "jsonb",
    "preview": "text",
    "turn_count": "integer",
    "input_tokens": "bigint",
    "output_tokens": "bigint",
    "reasoning_tokens": "bigint",
    "cache_read_tokens": "bigint",
    "cache_write_tokens": "bigint",
    "duration_ms": "bigint",
    "ttft_ms": "bigint",
    "cost": "numeric",
    "cost_currency": "text",
    "stop_reason": "text",
    "error_message": "text",
}

COLUMNS: Final = tuple(_TYPES)
"""The columns of transcripts that a row names."""

RECORD: Final = ", ".join(("n integer", *(f"{name} {kind}" for name, kind in _TYPES.items())))
"""The same with their types, as json_to_recordset wants them, behind the number ``n`` that the caller gave the row."""


def key_of(transcript_id: Id) -> UUID:
    """
    Return the id as a UUID.

    Raises:
        NotFoundError: it is malformed, so no transcript has it.
    """
    try:
        return parse_id(transcript_id, "Transcript")
    except NotFoundError:
        log.warning("transcript %r was not found: that is no id", transcript_id)
        raise


def missing(transcript_id: Id) -> NotFoundError:
    """Log that there is no such transcript in the session's workspace, and return the error that says so."""
    log.warning("transcript %s was not found", transcript_id)
    return NotFoundError("Transcript", transcript_id)


def scenario_of(data: TranscriptCreate) -> UUID | None:
    """
    Return the id of a transcript's scenario.

    Raises:
        ValidationError: it is not a UUID.
    """
    return None if data.scenario_id is None else parse_reference(data.scenario_id, "scenario_id")


def as_json(number: int, transcript_id: UUID, data: TranscriptCreate, *, with_content: bool = True) -> str:
    """
    Return one row as JSON text, with or without the content.

    Raises:
        ValidationError: scenario_id is not a UUID.
        DocumentError: the content or the metrics cannot be stored.
    """
    scenario_id = scenario_of(data)
    values = {name: getattr(data, name) for name in _PLAIN}
    values |= {
        "n": number,
        "id": transcript_id,
        "scenario_id": scenario_id,
        "preview": preview_of(data.content) if data.preview is None else data.preview,
        "turn_count": len(data.content.turns),
        # As text: a JSON number would pass through a float in other readers of the statement's log, and 19 digits do not fit one.
        "cost": None if data.cost is None else str(data.cost),
    }
    # What is unknown is left out, and json_to_recordset makes it NULL.
    known = pydantic_core.to_json({name: value for name, value in values.items() if value is not None}).decode()
    content = f',"content":{dump_json(data.content)}' if with_content else ""
    return f'{known[:-1]}{content},"metrics":{dump_json(data.metrics or TranscriptMetrics())}}}'


def array_of(rows: Iterable[str]) -> str:
    """Return rows of JSON text as one JSON array."""
    return f"[{','.join(rows)}]"


def preview_of(content: TranscriptContent) -> str | None:
    """Return the first 500 characters of the last assistant turn; None without one."""
    for turn in reversed(content.turns):
        if turn.role == "assistant":
            return _storable(turn.content[:PREVIEW_LENGTH])
    return None


def _storable(text: str) -> str:
    """Put U+FFFD for what a document holds and a text column does not: U+0000 and lone surrogates."""
    return text.replace("\0", "\ufffd").encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
