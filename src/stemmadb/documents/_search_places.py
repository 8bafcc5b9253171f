"""Where search keys point: JSON Pointers that Python and PostgreSQL follow alike, to values that have one text only."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from stemmadb import errors
from stemmadb.documents._values import escape

if TYPE_CHECKING:
    from stemmadb.documents._document import Document

Path = tuple[str, ...]

_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")
# What PostgreSQL counts with in an array: it takes "-1" for the last element, and " 01" for the second.
_COUNTED = re.compile(r"[ \t-\r]*[+-]?[0-9]+")


def parse_pointer(pointer: str) -> Path:
    """
    Return the keys of a JSON Pointer (RFC 6901), in the form in which jsonb holds them.

    Raises:
        ConfigurationError: it is none, or Python and PostgreSQL would follow it to different places.
    """
    if not pointer.startswith("/") or re.search("~(?![01])", pointer):
        raise errors.ConfigurationError(f'{pointer!r} is no JSON Pointer to a place in a document: write "/dimensions/0/name"')
    keys = [part.replace("~1", "/").replace("~0", "~") for part in pointer[1:].split("/")]
    for key in keys:
        if _COUNTED.fullmatch(key) and not _INDEX.fullmatch(key):
            raise errors.ConfigurationError(f"{pointer!r}: PostgreSQL takes {key!r} for a place in an array, and JSON Pointer does not")
        if "\x1a" in key:
            raise errors.ConfigurationError(f"{pointer!r}: a key with U+001A cannot be looked for, since raw SQL may store it otherwise")
    return tuple(map(escape, keys))


def follow(value: Any, path: Path) -> Any:
    """Return what stands at a path of a parsed jsonb value; None where there is nothing."""
    for key in path:
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, list) and _INDEX.fullmatch(key) and int(key) < len(value):
            value = value[int(key)]
        else:
            return None
    return value


def check_field(document: type[Document], pointer: str) -> None:
    """
    Check that a pointer leads to a field of a class, and that its values have one text only.

    Raises:
        ConfigurationError: there is no such field, it is an object or an array, or it is read from several texts, as times are.
    """
    # The keys of fields are what they are in Python.
    keys = [part.replace("~1", "/").replace("~0", "~") for part in pointer[1:].split("/")]
    found = list(_kinds(document, keys))
    if not found:
        raise errors.ConfigurationError(f"{document.__name__} has no field at {pointer}, or one that holds no text, number or boolean")
    for kind in found:
        if not _has_one_text(kind):
            name = getattr(kind, "__name__", str(kind))
            raise errors.ConfigurationError(
                f"{document.__name__}{pointer} is of type {name}, and what is stored of it depends on who wrote it: let the field be a str"
            )


def _kinds(annotation: Any, keys: Sequence[str]) -> Iterator[Any]:
    """Yield the types that a value at a place may have, apart from null, arrays and objects."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        yield from _kinds(arguments[0], keys)
    elif origin is Union or origin is types.UnionType:
        for argument in arguments:
            yield from _kinds(argument, keys)
    elif annotation is Any:
        yield annotation
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field = annotation.model_fields.get(keys[0]) if keys else None
        if field is not None:
            yield from _kinds(field.annotation, keys[1:])
    elif origin is tuple:
        yield from _kinds_in_tuple(arguments, keys)
    elif origin is dict:
        if keys:
            yield from _kinds(arguments[1], keys[1:])
    elif annotation is not None and annotation is not type(None) and not keys:
        yield annotation


def _kinds_in_tuple(items: tuple[Any, ...], keys: Sequence[str]) -> Iterator[Any]:
    if not keys or not _INDEX.fullmatch(keys[0]):
        return
    if items[1:] == (...,):
        yield from _kinds(items[0], keys[1:])
    elif int(keys[0]) < len(items):
        yield from _kinds(items[int(keys[0])], keys[1:])


def _has_one_text(kind: Any) -> bool:
    if kind is Any or kind in (str, int, float, bool):
        return True
    if get_origin(kind) is Literal:
        return all(isinstance(value, str) or type(value) is int for value in get_args(kind))
    values = [member.value for member in kind] if isinstance(kind, type) and issubclass(kind, Enum) else [None]
    return all(isinstance(value, str) or type(value) is int for value in values)
