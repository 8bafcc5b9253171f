"""Reading: from what is stored, of whatever version, to the newest document."""

from __future__ import annotations

import json
import marshal
import re
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import pydantic
import pydantic_core

from stemmadb import errors
from stemmadb.documents._step import Steps
from stemmadb.documents._steps import check_steps
from stemmadb.documents._values import MAX_BYTES, MAX_LEVELS, map_strings, may_be_escaped, pointer, unescape

if TYPE_CHECKING:
    from stemmadb.documents._document import Document

D = TypeVar("D", bound="Document")


# How a JSON text shows a character that was escaped, or one of its neighbours. A regular expression finds it faster than ``in``.
_LEAD = re.compile(r"\\u001")
_LEAD_BYTES = re.compile(rb"\\u001")
# A text shorter than this has no more bytes than a document may have.
_SURELY_SMALL = MAX_BYTES // 4


def load_text(document: type[D], raw: str | bytes) -> D:
    """
    Make a document from JSON text.

    One of the newest version, without escaped characters, is parsed and validated in one go; others take the longer way.
    """
    escaped = ("\\" in raw and _LEAD.search(raw)) if isinstance(raw, str) else (b"\\" in raw and _LEAD_BYTES.search(raw))
    if not escaped and len(raw) < _SURELY_SMALL and _names_newest(document.newest_version, raw):
        try:
            loaded: D = document.__pydantic_validator__.validate_json(raw)
        except pydantic.ValidationError:
            pass
        else:
            # The version has a default for those who make documents, and a stored one without it is of version 0.
            if "schema_version" in loaded.__pydantic_fields_set__:
                return loaded
    value = parse(raw)
    if len(raw) >= _SURELY_SMALL and len(pydantic_core.to_json(value)) > MAX_BYTES:
        raise errors.CorruptDocumentError(None, None, None, f"a document has at most {MAX_BYTES} bytes")
    return _upcast(document, _unescaped(value) if escaped else value)


_newest: dict[int, tuple[str, str, bytes, bytes]] = {}


def _names_newest(version: int, raw: str | bytes) -> bool:
    """
    Whether a JSON text may be of a version. What is not would be validated in vain: that takes as long as for what is.

    The version is looked for as PostgreSQL writes it, and as it is written without spaces; any other text takes the longer way.
    """
    written = _newest.get(version)
    if written is None:
        spaced, short = f'"schema_version": {version}', f'"schema_version":{version}'
        written = _newest[version] = spaced, short, spaced.encode(), short.encode()
    if isinstance(raw, str):
        return written[0] in raw or written[1] in raw
    return written[2] in raw or written[3] in raw


def load_object(document: type[D], raw: Any) -> D:
    """Make a document from what JSON text stands for. The object is not changed, and nothing of it becomes part of the document."""
    if raw is None:
        return _upcast(document, {})
    try:
        packed = marshal.dumps(raw)
    except ValueError:
        # Not JSON, or nested without end: whatever it is, the longer way says so.
        return _upcast(document, _unescaped(raw))
    if may_be_escaped(packed):
        return _upcast(document, _unescaped(raw))
    if type(raw) is dict:
        version = raw.get("schema_version")
        if type(version) is int and version == document.newest_version:
            try:
                loaded: D = document.__pydantic_validator__.validate_python(raw)
            except pydantic.ValidationError:
                pass
            else:
                return loaded
        if _is_declared(document, version):
            # Such steps change nothing in place.
            return _upcast(document, raw)
    return _upcast(document, marshal.loads(packed))  # noqa: S302 -- packed above


def _is_declared(document: type[Document], version: Any) -> bool:
    """Whether no step of Python leads from a version to the newest."""
    first = 0 if version is None else version
    return type(first) is int and all(isinstance(document._steps.get(number), Steps) for number in range(first, document.newest_version))


def _unescaped(value: Any) -> Any:
    """Return a copy of a stored value with its strings as they were before they were escaped."""
    try:
        return map_strings(value, unescape)
    except RecursionError:
        raise errors.CorruptDocumentError(None, None, None, f"a document is nested at most {MAX_LEVELS} levels") from None


def _upcast(document: type[D], value: Any) -> D:
    """Bring a stored value of any version to the newest, and make the document."""
    version = _version(document, value)
    if version < document.newest_version:
        check_steps(document)
    while version < document.newest_version:
        try:
            value = document._steps[version](value)
        except Exception as error:
            reason = f"the step from version {version} failed with {type(error).__name__}"
            raise errors.CorruptDocumentError(None, None, None, reason) from error
        version += 1
        if not isinstance(value, dict):
            raise errors.CorruptDocumentError(None, None, None, f"the step to version {version} gave no object")
        value = {**value, "schema_version": version}
    try:
        made: D = document.__pydantic_validator__.validate_python(value)
        return made
    except pydantic.ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)
        place, reason = problem(problems[0], value)
        more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise errors.CorruptDocumentError(None, None, None, f"{reason}{more}", place) from None


def _version(document: type[Document], value: Any) -> int:
    """
    Return the version of a stored value.

    Raises:
        UnknownSchemaVersionError: it is newer than the class.
        CorruptDocumentError: it has no version that makes sense.
    """
    if document.newest_version == 0:
        raise errors.ConfigurationError(f'{document.__name__} has no version: write "class {document.__name__}(Document, version=1)"')
    if isinstance(value, list):
        return 0
    if not isinstance(value, dict):
        raise errors.CorruptDocumentError(None, None, None, f"a document is a JSON object, and this is {type(value).__name__}")
    version = value.get("schema_version")
    if version is None:
        return 0
    if type(version) is not int or version < 0:
        raise errors.CorruptDocumentError(None, None, None, "a version is a whole number from 0", "/schema_version")
    if version > document.newest_version:
        raise errors.UnknownSchemaVersionError(None, None, None, version, document.newest_version)
    return version


def parse(raw: str | bytes) -> Any:
    """Parse JSON, of which lone surrogates may be part."""
    try:
        return pydantic_core.from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        reason = str(error)
    try:
        return json.loads(raw, parse_constant=_no_constant)
    except RecursionError:
        reason = f"a document is nested at most {MAX_LEVELS} levels"
    except ValueError:
        pass
    raise errors.CorruptDocumentError(None, None, None, f"this is not JSON that can be read: {reason}")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def problem(item: Any, value: Any) -> tuple[str, str]:
    """Return the JSON Pointer and the reason of one of pydantic's errors. Its path also names branches of unions, which are left out."""
    parts: list[str | int] = []
    for position, part in enumerate(item["loc"]):
        last = position == len(item["loc"]) - 1
        if isinstance(part, str) and isinstance(value, dict) and (part in value or (last and item["type"] == "missing")):
            parts.append(part)
            value = value.get(part)
        elif isinstance(part, int) and isinstance(value, list | tuple) and part < len(value):
            parts.append(part)
            value = value[part]
    return pointer(parts) + item.get("ctx", {}).get("pointer", ""), item["msg"]
