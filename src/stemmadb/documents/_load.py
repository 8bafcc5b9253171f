"""Reading: from what is stored, of whatever version, to the newest document."""

from __future__ import annotations

import json
import marshal
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import pydantic
import pydantic_core

from stemmadb import errors
from stemmadb.documents._steps import check_steps
from stemmadb.documents._values import MAX_BYTES, MAX_LEVELS, map_strings, pointer, unescape

if TYPE_CHECKING:
    from stemmadb.documents._document import Document

D = TypeVar("D", bound="Document")


def load_text(document: type[D], raw: str | bytes) -> D:
    escaped = "\\u001" in raw if isinstance(raw, str) else b"\\u001" in raw
    if not escaped and len(raw) < MAX_BYTES // 4:
        try:
            loaded: D = document.__pydantic_validator__.validate_json(raw)
        except pydantic.ValidationError:
            pass
        else:
            # The version has a default for those who make documents, and a stored one without it is of version 0.
            if "schema_version" in loaded.__pydantic_fields_set__:
                return loaded
    value = parse(raw)
    if len(raw) >= MAX_BYTES // 4 and len(pydantic_core.to_json(value)) > MAX_BYTES:
        raise errors.CorruptDocumentError(None, None, None, f"a document has at most {MAX_BYTES} bytes")
    return _upcast(document, _copy(value))


def load_object(document: type[D], raw: Any) -> D:
    if isinstance(raw, dict) and type(raw.get("schema_version")) is int and raw["schema_version"] == document.newest_version:
        try:
            # The cheapest way to learn that no string in it is escaped; a length that looks like one does no harm.
            if b"\x1a" not in marshal.dumps(raw):
                return document.model_validate(raw)
        except (ValueError, pydantic.ValidationError):
            pass
    return _upcast(document, {} if raw is None else _copy(raw))


def _copy(value: Any) -> Any:
    """Return a stored value as it was before it was escaped; a copy also where nothing was."""
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
        value["schema_version"] = version
    try:
        return document.model_validate(value)
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
