"""Dialogues in a frame: those of older versions are brought to the newest shape, the others stay as they are stored."""

import logging
from typing import TYPE_CHECKING, Any
from uuid import UUID

from stemmadb.documents import OnInvalid
from stemmadb.documents._dump import plain_json
from stemmadb.errors import DocumentError
from stemmadb.evaluation.documents import TranscriptContent

if TYPE_CHECKING:
    import pyarrow

log = logging.getLogger("stemmadb.evaluation.frames")


def newest_contents(table: "pyarrow.Table", on_invalid: OnInvalid) -> "pyarrow.Table":
    """
    Return the table with every content in its newest shape, and without the column content_version.

    Args:
        table: with the columns id, content and content_version; content comes from the database as text.
        on_invalid: what becomes of a row whose content cannot be read.

    Raises:
        CorruptDocumentError, UnknownSchemaVersionError: it cannot, and on_invalid is "raise".
    """
    import pyarrow
    import pyarrow.compute as compute

    contents = table.column("content")
    # A text with characters that PostgreSQL cannot store holds them escaped, at any version.
    is_old = compute.not_equal(table.column("content_version"), pyarrow.scalar(TranscriptContent.newest_version))
    # As a pattern it is found fifty times faster than as a substring.
    found: Any = compute.or_(is_old, compute.match_substring_regex(contents, r"\\u001"))
    wanted = found.combine_chunks()
    places = compute.indices_nonzero(wanted)
    table = table.drop_columns(["content_version"])
    if not len(places):
        return table
    rows: Any = zip(places.to_pylist(), table.column("id").take(places).to_pylist(), contents.take(places).to_pylist(), strict=True)
    texts, unreadable = [], set()
    for place, id, stored in rows:
        text = _newest(id, stored, on_invalid)
        texts.append(stored if text is None else text)
        if text is None:
            unreadable.add(place)
    replaced = compute.replace_with_mask(contents, wanted, pyarrow.array(texts, pyarrow.string()))
    table = table.set_column(table.schema.get_field_index("content"), "content", replaced)
    if on_invalid == "skip" and unreadable:
        table = table.filter(pyarrow.array([place not in unreadable for place in range(len(table))]))
    return table


def _newest(id: str, stored: str, on_invalid: OnInvalid) -> str | None:
    """Return a stored content in the newest shape; None when it cannot be read, and need not be."""
    try:
        return plain_json(TranscriptContent.load(stored))
    except DocumentError as error:
        found = error.located("transcripts", "content", UUID(id))
        if on_invalid == "raise":
            raise found from None
        log.warning("a document cannot be read: %s", found)
        return None
