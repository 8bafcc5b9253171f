"""The values inside a document: read-only mappings, strings that jsonb cannot hold, and what is JSON at all."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from pydantic_core import PydanticCustomError

from stemmadb.errors import CorruptDocumentError

K = TypeVar("K")
V = TypeVar("V")

MAX_LEVELS = 64
"""The most arrays and objects inside one another, the document itself counted."""

MAX_BYTES = 16 * 1024 * 1024
"""The most bytes of a document as it is sent."""

# Python reads no longer number, so what is longer could be stored and never read.
_MAX_DIGITS = 4300
_MAX_BITS = 14_000
# From here on floats are written with an exponent.
_EXPONENT = 1e16


class FrozenDict(dict[K, V]):
    """
    A mapping that cannot be changed. Documents have it where JSON has an object of open keys.

    It is a ``dict``, so that everything that serializes or compares dicts takes it; ``{**old, "key": value}`` and ``old | other`` give
    changed copies, which are plain dicts.
    """

    __slots__ = ()

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("the mappings of a document cannot be changed: use document.replace(field={**document.field, ...})")

    if not TYPE_CHECKING:
        # To type checkers these stay what a dict has: fields of documents are Mappings, on which they are not offered.
        __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))

    def __repr__(self) -> str:
        return dict.__repr__(self)

    def __copy__(self) -> FrozenDict[K, V]:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenDict[K, V]:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenDict, (dict(self),)


class _NotJsonError(Exception):
    """Something is not JSON; the pointer grows on the way up."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.pointer = ""


def freeze(value: Any) -> Any:
    """
    Return a read-only copy of a JSON value: objects as FrozenDict, arrays as tuples.

    What JSON does not have is refused, instead of becoming something else on the way to the database and back.
    """
    try:
        # The document around it is one level.
        return _freeze(value, MAX_LEVELS - 1)
    except _NotJsonError as error:
        raise PydanticCustomError("json_value", "{reason}", {"reason": error.reason, "pointer": error.pointer}) from None


def _freeze(value: Any, room: int) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return value if type(value) is str else str(value)
    if isinstance(value, int):
        if value.bit_length() > _MAX_BITS:
            raise _NotJsonError(f"a number has at most {_MAX_DIGITS} digits")
        return value if type(value) is int else int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _NotJsonError("NaN and infinity are not JSON")
        # It is whole, and jsonb writes it with all its digits and no point. As a float, the digits that it shows are not its value.
        return int(value) if abs(value) >= _EXPONENT else value
    if isinstance(value, Mapping | list | tuple):
        if room == 0:
            raise _NotJsonError(f"a document is nested at most {MAX_LEVELS} levels")
        return _freeze_object(value, room - 1) if isinstance(value, Mapping) else _freeze_array(value, room - 1)
    raise _NotJsonError(f"{type(value).__name__} is not JSON: give the field a type, or convert it to a string or a number")


def _freeze_object(value: Mapping[Any, Any], room: int) -> FrozenDict[str, Any]:
    frozen = {}
    for key, item in value.items():
        if not isinstance(key, str):
            raise _NotJsonError(f"keys are strings, and one is {type(key).__name__}")
        try:
            frozen[key] = _freeze(item, room)
        except _NotJsonError as error:
            error.pointer = pointer([key]) + error.pointer
            raise
    return FrozenDict(frozen)


def _freeze_array(value: list[Any] | tuple[Any, ...], room: int) -> tuple[Any, ...]:
    frozen = []
    for position, item in enumerate(value):
        try:
            frozen.append(_freeze(item, room))
        except _NotJsonError as error:
            error.pointer = pointer([position]) + error.pointer
            raise
    return tuple(frozen)


def pointer(parts: list[str | int]) -> str:
    """Write a path as a JSON Pointer (RFC 6901)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


# U+001A leads; jsonb has neither U+0000 nor surrogates, which in a Python string are always unpaired.
_UNSTORABLE = re.compile("[\x00\x1a\ud800-\udfff]")
_ESCAPED = re.compile("\x1a(0000|001a|d[89a-f][0-9a-f]{2})")


def escape(text: str) -> str:
    """Return a string in the form in which jsonb holds it. Whatever looks for text inside of documents passes it through here."""
    return _UNSTORABLE.sub(lambda found: f"\x1a{ord(found[0]):04x}", text)


def unescape(text: str) -> str:
    """Return the string that ``escape`` was given. A U+001A that it did not write is left alone."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text)


# The first digits of a surrogate are enough: what it finds too often is only read the longer way.
_ESCAPED_BYTES = re.compile(rb"\x1a(?:0000|001a|d[89a-f])")


def may_be_escaped(packed: bytes) -> bool:
    """Whether a JSON value may hold a string that ``unescape`` would change, given what ``marshal`` makes of it."""
    # The byte is also found in lengths of strings, and in the numbers of repeated ones. To search for more than it would be slower.
    place = packed.find(b"\x1a")
    while place >= 0:
        if _ESCAPED_BYTES.match(packed, place):
            return True
        place = packed.find(b"\x1a", place + 1)
    return False


def map_strings(value: Any, change: Callable[[str], str]) -> Any:
    """Return a copy of a JSON value with every string and every key changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        changed = {change(key) if isinstance(key, str) else key: map_strings(item, change) for key, item in value.items()}
        if len(changed) != len(value):
            raise CorruptDocumentError(None, None, None, "two keys are the same once their escapes are read")
        return changed
    if isinstance(value, list | tuple):
        return [map_strings(item, change) for item in value]
    return value


_OUTSIDE_OF_NESTING = re.compile(rb'"(?:[^"\\]|\\.)*"|[^][{}"]+', re.DOTALL)
_INNERMOST = re.compile(rb"\[\]|\{\}")


def is_too_deep(json_text: bytes) -> bool:
    """Whether a JSON text is nested too deeply. It must be well formed."""
    # A document cannot be deeper than it has openings: this alone answers for most.
    if json_text.count(b"[") + json_text.count(b"{") <= MAX_LEVELS:
        return False
    brackets = _OUTSIDE_OF_NESTING.sub(b"", json_text)
    for _ in range(MAX_LEVELS):
        if not brackets:
            return False
        brackets = _INNERMOST.sub(b"", brackets)
    return bool(brackets)


_LONG_NUMBER = re.compile(rb"[0-9]{%d}" % (_MAX_DIGITS + 1))


def has_long_digits(json_text: bytes) -> bool:
    """Whether there is a run of digits longer than a number that can be read back; it may stand inside of a string."""
    return len(json_text) > _MAX_DIGITS and _LONG_NUMBER.search(json_text) is not None
