"""
What the modules about transcripts share: ids as callers give them, rows that are missing, and rows as they are sent.

Rows are sent as a JSON array, one parameter whatever their number. PostgreSQL takes it apart with ``json_to_recordset``, as fast as COPY,
under row-level security and with ON CONFLICT and RETURNING. What is long goes beside the array, the dialogues and their previews: in it,
PostgreSQL would parse them once more.
"""

import logging
from collections.abc import Collection, Iterable
from typing import Final, NamedTuple
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

# Between the dialogues and the previews: a character that JSON text has only escaped. The other one stands for a preview that is not here.
_SEPARATOR: Final = "\x01"
_ABSENT: Final = "\x02"

_RECORD: Final = {"run_id": "uuid", **{name: kind for name, kind in _TYPES.items() if name != "content"}}
_COLUMNS: Final = ", ".join((*_RECORD, "dialogue", "start"))

ROWS: Final = f"""ROWS FROM (json_to_recordset(CAST(:rows AS json)) AS ({", ".join(map(" ".join, _RECORD.items()))}),
                          unnest(string_to_array(CAST(:contents AS text), chr(1))),
                          unnest(string_to_array(CAST(:previews AS text), chr(1), chr(2)))) AS given ({_COLUMNS})"""
"""
What stands in FROM to read the rows, dialogues and previews of ``sent``, in the order given.

They are read where they are inserted, and nowhere else: a statement that sorts or keeps a thousand dialogues writes them to the disk.
"""

_VALUES: Final = {"content": "CAST(given.dialogue AS jsonb)", "preview": "coalesce(given.preview, given.start)"}
VALUES: Final = ", ".join(_VALUES.get(name, f"given.{name}") for name in COLUMNS)
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


class TranscriptRow(NamedTuple):
    """A transcript as it is sent."""

    row: str
    """As JSON, without its dialogue."""
    content: str
    """Its dialogue as JSON."""
    preview: str
    """The preview, unless the row has it."""

    @property
    def size(self) -> int:
        """How many characters are sent."""
        return len(self.row) + len(self.content) + len(self.preview)


def row_of(transcript_id: UUID, data: TranscriptCreate, **place: object) -> TranscriptRow:
    """
    Return a transcript as it is sent.

    Args:
        transcript_id: the id that it will have.
        data: everything else.
        place: columns that do not come from ``data``, the scenario among them.

    Raises:
        DocumentError: the dialogue or the metrics cannot be stored.
    """
    # What is unknown is left out, and json_to_recordset makes it NULL. A Decimal goes as text, exactly.
    known = data.__pydantic_serializer__.to_json(data, exclude=_APART, exclude_none=True).decode()
    values = {"id": transcript_id, "turn_count": len(data.content.turns), **place}
    preview = preview_of(data.content) if data.preview is None else data.preview
    if preview is not None and (not preview or _SEPARATOR in preview or _ABSENT in preview):
        values["preview"], preview = preview, None
    rest = pydantic_core.to_json(values, exclude_none=True).decode()
    # Of two values of one name the latter counts.
    row = f'{known[:-1]},{rest[1:-1]},"metrics":{dump_json(data.metrics or TranscriptMetrics())}}}'
    return TranscriptRow(row, dump_json(data.content), _ABSENT if preview is None else preview)


def sent(rows: Collection[TranscriptRow]) -> dict[str, str]:
    """Return the parameters of ROWS."""
    return {
        "rows": array_of(row.row for row in rows),
        "contents": _SEPARATOR.join(row.content for row in rows),
        "previews": _SEPARATOR.join(row.preview for row in rows),
    }


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
