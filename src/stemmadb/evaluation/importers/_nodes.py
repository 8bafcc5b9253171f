"""
Values of the files of others, each with its place: whoever asks for another kind than is there gets an error that names the place.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from stemmadb.errors import MalformedFileError

MAX_LEVELS: Final = 40
"""From here on nested values are kept as JSON text: a document has at most 64 levels, of which ours and those of a turn take some."""
_MAX_BITS: Final = 14_000


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value stands."""

    file: str
    part: str = ""
    """``line 3``, or the member of an archive; empty for a file of one JSON value."""
    pointer: str = ""
    """The JSON Pointer inside of that."""

    def under(self, key: str | int) -> "Place":
        """Return the place of a member of the value at this place."""
        return Place(self.file, self.part, f"{self.pointer}/{str(key).replace('~', '~0').replace('/', '~1')}")

    def error(self, reason: str) -> MalformedFileError:
        """Return the error about the value at this place."""
        return MalformedFileError(self.file, self.part, self.pointer, reason)


@dataclass(frozen=True, slots=True)
class Node:
    """A decoded JSON value and its place. What is absent is null."""

    value: Any
    place: Place

    def get(self, key: str) -> "Node":
        """Return a member of an object, null when it is absent or the object is null."""
        return Node(self.object().get(key), self.place.under(key))

    def at(self, *keys: str) -> "Node":
        """Return the member at the end of a path."""
        node = self
        for key in keys:
            node = node.get(key)
        return node

    def __iter__(self) -> Iterator["Node"]:
        """Yield the elements of an array; of null there are none."""
        if self.value is None:
            return
        if not isinstance(self.value, list):
            raise self.place.error(f"expected an array, found {_kind(self.value)}")
        for index, item in enumerate(self.value):
            yield Node(item, self.place.under(index))

    def object(self) -> Mapping[str, Any]:
        """Return an object; null is an empty one."""
        if self.value is None:
            return {}
        if not isinstance(self.value, dict):
            raise self.place.error(f"expected an object, found {_kind(self.value)}")
        return self.value

    def members(self) -> Iterator[tuple[str, "Node"]]:
        """Yield the keys and values of an object."""
        for key, value in self.object().items():
            yield key, Node(value, self.place.under(key))

    def text(self, default: str | None = None) -> str:
        """Return a text; null is the default, and an error without one."""
        if self.value is None and default is not None:
            return default
        if not isinstance(self.value, str):
            raise self.place.error(f"expected a text, found {_kind(self.value)}")
        return self.value

    def text_or_none(self) -> str | None:
        """Return a text, or None for null."""
        return None if self.value is None else self.text()

    def word(self) -> str:
        """Return a text that is not blank; a whole number is one, too."""
        if type(self.value) is int and self.value.bit_length() <= _MAX_BITS:
            return str(self.value)
        if not self.text().strip():
            raise self.place.error("expected a text that is not blank")
        return self.text()

    def count(self) -> int | None:
        """Return a whole number from 0 that fits a bigint, or None for null."""
        value = self.number()
        if value is None:
            return None
        if not math.isfinite(value) or value != int(value) or not 0 <= value < 2**63:
            raise self.place.error("expected a whole number, at least 0")
        return int(value)

    def number(self) -> float | int | None:
        """Return a number, NaN and infinity included, or None for null."""
        if self.value is None:
            return None
        if isinstance(self.value, bool) or not isinstance(self.value, int | float):
            raise self.place.error(f"expected a number, found {_kind(self.value)}")
        if isinstance(self.value, int) and self.value.bit_length() > 1000:
            raise self.place.error("the number is too large")
        return self.value

    def milliseconds(self) -> int | None:
        """Return seconds as whole milliseconds, or None for null and what is no duration."""
        seconds = self.number()
        return None if seconds is None or not 0 <= seconds < 2**50 else round(seconds * 1000)

    def time(self) -> datetime | None:
        """Return a time: ISO 8601 (without an offset it is UTC) or seconds since 1970; None for null."""
        if self.value is None or self.value == "":
            return None
        try:
            if isinstance(self.value, str):
                found = datetime.fromisoformat(self.value)
                return found if found.tzinfo else found.replace(tzinfo=UTC)
            return datetime.fromtimestamp(self.number() or 0, UTC)
        except (ValueError, OverflowError, OSError):
            raise self.place.error("expected a time in ISO 8601, or seconds since 1970") from None


def _kind(value: Any) -> str:
    names = {bool: "a truth value", int: "a number", float: "a number", str: "a text", list: "an array", dict: "an object"}
    return "null" if value is None else names.get(type(value), type(value).__name__)


def storable(value: Any, room: int = MAX_LEVELS) -> Any:
    """
    Return a value as a document can hold it.

    NaN and infinity become the texts ``NaN``, ``Infinity`` and ``-Infinity``, as they stood in the file; numbers that are too long to be
    read back become texts, too; and what is nested too deeply becomes its JSON text. Everything else stays what it is.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return json.dumps(value)
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > _MAX_BITS:
        return hex(value)
    if isinstance(value, dict | list):
        if room == 0:
            return json.dumps(value)
        if isinstance(value, dict):
            return {key: storable(item, room - 1) for key, item in value.items()}
        return [storable(item, room - 1) for item in value]
    return value


_SECRET: Final = re.compile(
    r"(?:.*(?:api[-_ ]?key|secret|password|access[-_]?token|credentials?)|(?:proxy-)?authorization|bearer)", re.IGNORECASE
)
_SECRET_ARGUMENT: Final = re.compile(r"((?:^|,)[^,=]*(?:api_?key|secret|password|access_?token)=)[^,]+", re.IGNORECASE)


def masked(value: Any) -> Any:
    """Return what a tool was told, with ``***`` for texts under keys that name secrets, also in ``name=value,name=value``."""
    if isinstance(value, dict):
        return {key: "***" if isinstance(item, str) and item and _SECRET.fullmatch(key) else masked(item) for key, item in value.items()}
    if isinstance(value, list):
        return [masked(item) for item in value]
    return _SECRET_ARGUMENT.sub(r"\1***", value) if isinstance(value, str) else value


def column_text(text: str | None) -> str | None:
    """Return a text as a column can hold it, with U+FFFD for U+0000 and lone surrogates; the documents beside it have it exactly."""
    if text is None:
        return None
    return text.replace("\0", "\ufffd").encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def column_word(text: str) -> str:
    """Return ``column_text``, and a stand-in for a text that is blank."""
    return column_text(text) if text.strip() else "(blank)"  # type: ignore[return-value]
