"""Writing: from a document to the JSON text that is stored of it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pydantic_core

from stemmadb import errors
from stemmadb.documents._canonical import digest
from stemmadb.documents._load import parse
from stemmadb.documents._values import MAX_BYTES, MAX_LEVELS, escape, has_long_digits, is_too_deep, map_strings, pointer, unescape
from stemmadb.documents._write_version import checked_version, require_readable, step_down

if TYPE_CHECKING:
    from stemmadb.documents._document import Document, DocumentPart

_CONTROL = re.compile(rb"\\u00(?:00|1a)")


def dump_json(document: Document, version: int | None = None) -> str:
    """
    Return the JSON text that is stored of a document: of the newest version, unless ``set_write_version`` asks for an older one.

    Args:
        document: any one.
        version: the version to give instead; steps have to lead down to it.

    Raises:
        ConfigurationError: there is no such version, or no step down to it.
        DocumentTooLargeError: it has over 16 MB.
        CorruptDocumentError: it is nested over 64 levels, or holds a number that cannot be read back; or a step down failed.
    """
    kind = type(document)
    text = newest_json(document)
    written = kind._write_version if version is None else checked_version(kind, version)
    if written is not None:
        text = step_down(kind, text, written)
    if len(text) > MAX_BYTES:
        raise errors.DocumentTooLargeError(None, None, None, len(text), MAX_BYTES)
    if is_too_deep(text):
        place = _deepest(pydantic_core.from_json(text))
        raise errors.CorruptDocumentError(None, None, None, f"a document is nested at most {MAX_LEVELS} levels", place)
    if has_long_digits(text):
        parse(text)
    if written is not None:
        require_readable(kind, text, written)
    return text.decode()


def newest_json(document: DocumentPart) -> bytes:
    """Return the JSON text of a document, or of a part, in its newest shape, whatever version is written. Limits are not looked at."""
    serializer = type(document).__pydantic_serializer__
    try:
        # A computed field would come back as an unknown key.
        text: bytes = serializer.to_json(document, exclude_computed_fields=True)
    except pydantic_core.PydanticSerializationError:
        # A lone surrogate in a value: no text in UTF-8 holds one. In a key it silently becomes U+FFFD.
        text = b"\\u0000"
    # One byte is found much faster than a pattern, and most texts have neither.
    if (b"\\" in text and _CONTROL.search(text)) or (b"\xef" in text and b"\xef\xbf\xbd" in text):
        text = pydantic_core.to_json(map_strings(document.model_dump(exclude_computed_fields=True), escape))
    return text


def plain_json(document: DocumentPart) -> str:
    """Return the JSON text of a document in its newest shape, for those who read it as JSON: its texts are those of the document."""
    return json.dumps(map_strings(pydantic_core.from_json(newest_json(document)), unescape))


def content_hash(document: Document) -> bytes:
    """Return the 32 bytes that the database computes for this document (``stemma_document_hash``). Costs several times a dump."""
    return digest(dump_json(document))


def stored_forms(document: Document) -> list[str]:
    """Return the JSON texts as which a document may be stored: at the newest version, and at those to which steps lead down."""
    kind = type(document)
    forms = [dump_json(document, kind.newest_version)]
    for version in range(kind.newest_version - 1, -1, -1):
        if version + 1 not in kind._steps_down:
            break
        forms.append(dump_json(document, version))
    return forms


def _deepest(value: Any) -> str:
    """Return the JSON Pointer of a place that is nested too deeply."""
    pending: list[tuple[Any, list[str | int]]] = [(value, [])]
    while pending:
        item, parts = pending.pop()
        if isinstance(item, dict | list) and len(parts) >= MAX_LEVELS:
            return pointer(parts)
        children = item.items() if isinstance(item, dict) else enumerate(item) if isinstance(item, list) else ()
        pending.extend((child, [*parts, name]) for name, child in children)
    return ""
