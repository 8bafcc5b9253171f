"""
The canonical text of a document: what PostgreSQL writes for the jsonb value.

Keys are ordered by their length in bytes and then by their bytes, separators are ``", "`` and ``": "``, numbers have no exponent and keep
their trailing zeros, and only quotes, backslashes and control characters are escaped.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Hashable
from decimal import Decimal
from typing import Any

_SHORT = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_ESCAPE = re.compile(r'["\\\x00-\x1f]')


def equality_key(value: Any) -> Hashable:
    """
    Return what is equal for JSON values that jsonb takes for equal, and for no others.

    Numbers are compared by value with all their digits, whatever their type, and true is not 1. What is not JSON equals only itself.
    """
    if isinstance(value, bool):
        return bool, value
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float):
        # As it is written, and not as it is in binary: that is what the database has.
        return Decimal(repr(value))
    if isinstance(value, int | Decimal):
        return Decimal(value)
    if isinstance(value, list | tuple):
        return list, tuple(equality_key(item) for item in value)
    if isinstance(value, dict):
        return dict, frozenset((key, equality_key(item)) for key, item in value.items())
    return object, id(value)


class _Number(str):
    """A number as it is written in the JSON text."""

    __slots__ = ()


def canonical(json_text: str) -> str:
    """Return what ``CAST(json_text AS jsonb)::text`` gives, for a text that is valid for jsonb."""
    parts: list[str] = []
    _write(parse_exactly(json_text), parts)
    return "".join(parts)


def digest(json_text: str) -> bytes:
    """Return the 32 bytes that ``stemma_document_hash`` gives for a JSON text."""
    return hashlib.sha256(canonical(json_text).encode()).digest()


def parse_exactly(json_text: str) -> Any:
    """Parse JSON for ``scalar_text``, which needs numbers as they are written."""
    return json.loads(json_text, parse_int=_Number, parse_float=_Number)


def scalar_text(value: Any) -> str | None:
    """
    Return the text of a value that ``parse_exactly`` gave: of a number without trailing zeros, of true and false their names.

    None for null, arrays and objects.
    """
    if isinstance(value, _Number):
        text = _number(value)
        return text.rstrip("0").rstrip(".") if "." in text else text
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else None


def _write(value: Any, parts: list[str]) -> None:
    if isinstance(value, _Number):
        parts.append(_number(value))
    elif isinstance(value, str):
        parts.append(_string(value))
    elif isinstance(value, dict):
        separator = "{"
        for _, key in sorted((len(encoded := key.encode()), encoded) for key in value):
            name = key.decode()
            parts.append(f"{separator}{_string(name)}: ")
            _write(value[name], parts)
            separator = ", "
        parts.append("}" if value else "{}")
    elif isinstance(value, list):
        separator = "["
        for item in value:
            parts.append(separator)
            _write(item, parts)
            separator = ", "
        parts.append("]" if value else "[]")
    else:
        parts.append({None: "null", True: "true", False: "false"}[value])


def _string(text: str) -> str:
    return '"' + _ESCAPE.sub(_escaped, text) + '"'


def _escaped(found: re.Match[str]) -> str:
    return _SHORT.get(found[0]) or f"\\u{ord(found[0]):04x}"


def _number(token: str) -> str:
    number = Decimal(token)
    # numeric knows no negative zero.
    return f"{abs(number) if number.is_zero() else number:f}"
