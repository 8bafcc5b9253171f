"""
Differences between JSON documents as changes at JSON Pointers.

Values are the same when their types are too: ``1``, ``1.0`` and ``true`` differ. Nothing here touches a database.
"""

import copy
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeVar

import pydantic_core

from stemmadb._display import json_text
from stemmadb._tables import table_html
from stemmadb.documents import Document, DocumentPart, escape, unescape
from stemmadb.documents._dump import newest_json
from stemmadb.documents._values import map_strings
from stemmadb.errors import ValidationError
from stemmadb.evaluation._list_alignment import aligned

D = TypeVar("D", bound=Document)


@dataclass(frozen=True, slots=True)
class Change:
    """One step from one document to another, as in a JSON Patch (RFC 6902)."""

    op: Literal["add", "remove", "replace"]
    pointer: str
    """JSON Pointer of the place. In a list, ``add`` puts the value before the item that is there, and ``remove`` closes the gap."""
    old: Any = None
    """What was there; None for ``add``."""
    new: Any = None
    """What is there now; None for ``remove``."""


@dataclass(frozen=True, slots=True)
class ContentDiff:
    """What leads from one document to another."""

    changes: list[Change] = field(default_factory=list)
    """In the order in which they apply: each pointer is that of the document as the changes before it left it."""

    def apply(self, document: D) -> D:
        """
        Return the document with the changes made; the one given stays as it is.

        Raises:
            ValidationError: the document has another value where a change says what was there. ``field`` is the pointer.
        """
        return document_of(type(document), make_changes(values_of(document), self.changes))

    def _repr_html_(self) -> str:
        rows = (
            (
                change.pointer,
                change.op,
                "" if change.op == "add" else json_text(change.old),
                "" if change.op == "remove" else json_text(change.new),
            )
            for change in self.changes
        )
        return table_html(("place", "change", "was", "is"), rows)


def values_of(document: DocumentPart) -> dict[str, Any]:
    """
    Return a document as a JSON object of the newest version, its strings as they were given: not escaped as jsonb needs them.

    It is the newest also while an older version is written: stored so, a document need not say all that it says.
    """
    values: dict[str, Any] = map_strings(pydantic_core.from_json(newest_json(document)), unescape)
    return values


def document_of(kind: type[D], values: dict[str, Any]) -> D:
    """
    Return the document of a JSON object that values_of gave, perhaps changed since.

    Raises:
        CorruptDocumentError: the changes left something that is no such document.
    """
    return kind.load(map_strings(values, escape))


def changes_between(old: dict[str, Any], new: dict[str, Any]) -> list[Change]:
    """Return what leads from one document to the other, in the order in which it applies; keys in the order of their text."""
    return list(_compare(old, new, ""))


def make_changes(document: dict[str, Any], changes: Iterable[Change]) -> dict[str, Any]:
    """
    Make changes in place, in their order, and return what became of the document.

    Raises:
        ValidationError: it has another value where a change says what was there. ``field`` is the pointer.
    """
    for change in changes:
        _make(change, document)
    return document


def leaves(document: dict[str, Any]) -> dict[str, Any]:
    """Return the values that hold no others, by JSON Pointer; an empty object or list is one."""
    return dict(_leaves(document, ""))


def same(a: Any, b: Any) -> bool:
    """Return whether two JSON values are the same, types included."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(value, b[key]) for key, value in a.items())
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def escape_key(key: str) -> str:
    """Return a key as it stands in a JSON Pointer."""
    return key.replace("~", "~0").replace("/", "~1")


# ----------------------------------------------------------------------------------------------------------- differences


def _compare(old: Any, new: Any, pointer: str) -> Iterator[Change]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            below = f"{pointer}/{escape_key(key)}"
            if key not in new:
                yield Change("remove", below, old=old[key])
            elif key not in old:
                yield Change("add", below, new=new[key])
            else:
                yield from _compare(old[key], new[key], below)
    elif isinstance(old, list) and isinstance(new, list):
        yield from _compare_lists(old, new, pointer)
    elif not same(old, new):
        yield Change("replace", pointer, old=old, new=new)


def _compare_lists(old: list[Any], new: list[Any], pointer: str) -> Iterator[Change]:
    """Compare items that are the same or stand for each other; the others are added or removed."""
    for place, new_place, where in aligned(old, new):
        below = f"{pointer}/{where}"
        if place is None:
            yield Change("add", below, new=new[where])
        elif new_place is None:
            yield Change("remove", below, old=old[place])
        else:
            yield from _compare(old[place], new[new_place], below)


def _make(change: Change, document: Any) -> None:
    """Make one change in place."""
    holder, key = _find(document, change.pointer)
    is_there = key in holder if isinstance(holder, dict) else 0 <= key < len(holder)
    if change.op == "add":
        if isinstance(holder, list) and 0 <= key <= len(holder):
            holder.insert(key, copy.deepcopy(change.new))
            return
        if isinstance(holder, list) or is_there:
            raise _other_value(change.pointer)
        holder[key] = copy.deepcopy(change.new)
        return
    if not is_there or not same(holder[key], change.old):
        raise _other_value(change.pointer)
    if change.op == "remove":
        del holder[key]
    else:
        holder[key] = copy.deepcopy(change.new)


# A longer number is the place of no item, and Python refuses to read one of thousands of digits.
_INDEX: Final = re.compile("0|[1-9][0-9]{0,17}")


def _find(document: Any, pointer: str) -> tuple[Any, Any]:
    """Return the object or list that holds the place, and its key or index there."""
    first, *steps = [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")]
    if first:
        raise _other_value(pointer)
    holder = document
    for number, step in enumerate(steps):
        key: Any = step
        if isinstance(holder, list):
            key = int(step) if _INDEX.fullmatch(step) else -1
        if number == len(steps) - 1 and isinstance(holder, (dict, list)):
            return holder, key
        if (isinstance(holder, dict) and key in holder) or (isinstance(holder, list) and 0 <= key < len(holder)):
            holder = holder[key]
        else:
            break
    raise _other_value(pointer)


def _other_value(pointer: str) -> ValidationError:
    message = f"The document has another value at {pointer!r} than the one that the change was made from: compare with it again"
    return ValidationError(message, pointer)


def _leaves(value: Any, pointer: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, below in value.items():
            yield from _leaves(below, f"{pointer}/{escape_key(key)}")
    elif isinstance(value, list) and value:
        for index, below in enumerate(value):
            yield from _leaves(below, f"{pointer}/{index}")
    else:
        yield pointer, value
