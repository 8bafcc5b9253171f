"""
What the modules about transcripts share: ids as callers give them, rows that are missing, and rows as they are sent.

Rows are sent as a JSON array, one parameter whatever their number. PostgreSQL takes it apart with ``json_to_recordset``, as fast as COPY,
under row-level security and with ON CONFLICT and RETURNING. The dialogues, which are most of it, go beside the array: in it, PostgreSQL
would parse them twice, as long as it takes to compress them.
"""

import logging
import time
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

# What a row has in another shape than the data object, or not at all.
_APART: Final = {"content", "metrics", "preview", "scenario_id"}

_ROWS_IN_A_ROW: Final = 8
_PAUSE_S: Final = 2e-5

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

# Between the dialogues: a character that JSON text has only escaped.
_SEPARATOR: Final = "\x01"

_RECORD: Final = ", ".join(("run_id uuid", *(f"{name} {kind}" for name, kind in _TYPES.items() if name != "content")))

ROWS: Final = f"""ROWS FROM (json_to_recordset(CAST(:rows AS json)) AS ({_RECORD}),
                          unnest(string_to_array(CAST(:contents AS text), chr(1)))) AS given"""
"""
What stands in FROM to read rows of ``as_json`` and the dialogues of ``joined``, in the order given.

They are read where they are inserted, and nowhere else: a statement that sorts or keeps a thousand dialogues writes them to the disk.
"""

VALUES: Final = ", ".join("CAST(given.unnest AS jsonb)" if name == "content" else f"given.{name}" for name in COLUMNS)
"""The columns as ROWS has them."""


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


def as_json(transcript_id: UUID, data: TranscriptCreate, **place: object) -> str:
    """
    Return one row as JSON text, without its dialogue.

    Args:
        transcript_id: the id that it will have.
        data: everything else.
        place: columns that do not come from ``data``, the scenario among them.

    Raises:
        DocumentError: the metrics cannot be stored.
    """
    # What is unknown is left out, and json_to_recordset makes it NULL. A Decimal goes as text, exactly.
    known = data.__pydantic_serializer__.to_json(data, exclude=_APART, exclude_none=True).decode()
    preview = preview_of(data.content) if data.preview is None else data.preview
    values = {"id": transcript_id, "turn_count": len(data.content.turns), "preview": preview, **place}
    rest = pydantic_core.to_json(values, exclude_none=True).decode()
    # Of two values of one name the latter counts.
    return f'{known[:-1]},{rest[1:-1]},"metrics":{dump_json(data.metrics or TranscriptMetrics())}}}'


def give_way(number: int) -> None:
    """
    Let other threads go on, every few rows.

    A thread that makes rows keeps the interpreter for 5 ms at a time, and whoever sends a chunk meanwhile asks for it with every 200 kB:
    the server would wait for its rows as long as it takes to make others.
    """
    if number % _ROWS_IN_A_ROW == 0:
        time.sleep(_PAUSE_S)


def array_of(rows: Iterable[str]) -> str:
    """Return rows of JSON text as one JSON array."""
    return f"[{','.join(rows)}]"


def joined(contents: Iterable[str]) -> str:
    """Return the JSON texts of dialogues as one parameter."""
    return _SEPARATOR.join(contents)


def preview_of(content: TranscriptContent) -> str | None:
    """Return the first 500 characters of the last assistant turn; None without one."""
    for turn in reversed(content.turns):
        if turn.role == "assistant":
            return _storable(turn.content[:PREVIEW_LENGTH])
    return None


def _storable(text: str) -> str:
    """Put U+FFFD for what a document holds and a text column does not: U+0000 and lone surrogates."""
    return text.replace("\0", "\ufffd").encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
