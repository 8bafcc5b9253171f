"""
Differences between JSON documents as changes at JSON Pointers, and their three-way merge.

Values are the same when their types are too: ``1``, ``1.0`` and ``true`` differ. Nothing here touches a database.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeVar

from stemmadb.documents import Document, escape, unescape
from stemmadb.documents._values import map_strings
from stemmadb.errors import ValidationError
from stemmadb.evaluation.data import MergeConflict

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
        values = values_of(document)
        for change in self.changes:
            _make(change, values)
        return document_of(type(document), values)


def values_of(document: Document) -> dict[str, Any]:
    """Return a document as a JSON object of the newest version, its strings as they were given: not escaped as jsonb needs them."""
    values: dict[str, Any] = map_strings(document.dump(), unescape)
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


def leaves(document: dict[str, Any]) -> dict[str, Any]:
    """Return the values that hold no others, by JSON Pointer; an empty object or list is one."""
    return dict(_leaves(document, ""))


def merge_documents(base: dict[str, Any], ours: dict[str, Any], theirs: dict[str, Any]) -> tuple[dict[str, Any], list[MergeConflict]]:
    """
    Make the changes of both sides against the base.

    What one side changed is taken from it, what both changed alike is taken once. Of a list both sides may change separate parts; where
    the parts overlap and nothing was inserted or removed, it is merged item by item, an object inside only if it kept its name.

    Returns:
        The document and no conflicts; or the conflicts in the order of the places, and a document that means nothing.
    """
    conflicts: list[MergeConflict] = []
    return _merge(base, ours, theirs, "", conflicts), conflicts


def same(a: Any, b: Any) -> bool:
    """Return whether two JSON values are the same, types included."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(value, b[key]) for key, value in a.items())
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def _escape(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


# ----------------------------------------------------------------------------------------------------------- differences


def _compare(old: Any, new: Any, pointer: str) -> Iterator[Change]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            below = f"{pointer}/{_escape(key)}"
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
    """Compare what lies between the equal beginnings and ends item by item; what one list has more there is added or removed."""
    start, old_end, new_end = _changed_part(old, new)
    paired = min(old_end, new_end)
    for index in range(start, paired):
        yield from _compare(old[index], new[index], f"{pointer}/{index}")
    for index in reversed(range(paired, old_end)):
        yield Change("remove", f"{pointer}/{index}", old=old[index])
    for index in range(paired, new_end):
        yield Change("add", f"{pointer}/{index}", new=new[index])


def _changed_part(old: list[Any], new: list[Any]) -> tuple[int, int, int]:
    """Return where two lists begin to differ, and where the part that differs ends in each."""
    shorter = min(len(old), len(new))
    start = 0
    while start < shorter and same(old[start], new[start]):
        start += 1
    equal = 0
    while equal < shorter - start and same(old[-1 - equal], new[-1 - equal]):
        equal += 1
    return start, len(old) - equal, len(new) - equal


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


def _find(document: Any, pointer: str) -> tuple[Any, Any]:
    """Return the object or list that holds the place, and its key or index there."""
    steps = [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]
    holder = document
    for number, step in enumerate(steps):
        key: Any = step
        if isinstance(holder, list):
            key = int(step) if step.isascii() and step.isdigit() else -1
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
            yield from _leaves(below, f"{pointer}/{_escape(key)}")
    elif isinstance(value, list) and value:
        for index, below in enumerate(value):
            yield from _leaves(below, f"{pointer}/{index}")
    else:
        yield pointer, value


# ----------------------------------------------------------------------------------------------------------------- merge

_ABSENT: Final[Any] = object()

# What an item of a list is known by. Two sides that gave it different ones are not speaking of the same item.
_NAMES: Final = ("id", "key", "name", "label")


def _merge(base: Any, ours: Any, theirs: Any, pointer: str, conflicts: list[MergeConflict]) -> Any:
    if same(ours, theirs) or same(base, theirs):
        return ours
    if same(base, ours):
        return theirs
    if isinstance(ours, dict) and isinstance(theirs, dict) and (isinstance(base, dict) or base is _ABSENT):
        return _merge_objects({} if base is _ABSENT else base, ours, theirs, pointer, conflicts)
    if isinstance(base, list) and isinstance(ours, list) and isinstance(theirs, list):
        return _merge_lists(base, ours, theirs, pointer, conflicts)
    return _conflict(base, ours, theirs, pointer, conflicts)


def _merge_objects(
    base: dict[str, Any], ours: dict[str, Any], theirs: dict[str, Any], pointer: str, conflicts: list[MergeConflict]
) -> dict[str, Any]:
    merged = {}
    for key in sorted(ours.keys() | theirs.keys()):
        place = f"{pointer}/{_escape(key)}"
        value = _merge(base.get(key, _ABSENT), ours.get(key, _ABSENT), theirs.get(key, _ABSENT), place, conflicts)
        if value is not _ABSENT:
            merged[key] = value
    return merged


def _merge_lists(base: list[Any], ours: list[Any], theirs: list[Any], pointer: str, conflicts: list[MergeConflict]) -> Any:
    parts = []
    for side in (ours, theirs):
        start, base_end, side_end = _changed_part(base, side)
        parts.append((start, base_end, side[start:side_end]))
    first, second = sorted(parts, key=lambda part: part[:2])
    both_insert_there = first[:2] == second[:2]
    if first[1] <= second[0] and not both_insert_there:
        return [*base[: first[0]], *first[2], *base[first[1] : second[0]], *second[2], *base[second[1] :]]
    if len(base) == len(ours) == len(theirs):
        items = zip(base, ours, theirs, strict=True)
        return [_merge_items(*item, f"{pointer}/{index}", conflicts) for index, item in enumerate(items)]
    return _conflict(base, ours, theirs, pointer, conflicts)


def _merge_items(base: Any, ours: Any, theirs: Any, pointer: str, conflicts: list[MergeConflict]) -> Any:
    both_changed = not (same(ours, theirs) or same(base, ours) or same(base, theirs))
    if both_changed and isinstance(base, dict) and isinstance(ours, dict) and isinstance(theirs, dict):
        names = [{name: item[name] for name in _NAMES if name in item} for item in (base, ours, theirs)]
        if not same(names[0], names[1]) or not same(names[0], names[2]):
            return _conflict(base, ours, theirs, pointer, conflicts)
    return _merge(base, ours, theirs, pointer, conflicts)


def _conflict(base: Any, ours: Any, theirs: Any, pointer: str, conflicts: list[MergeConflict]) -> Any:
    shown = {"base": base, "ours": ours, "theirs": theirs}
    conflicts.append(MergeConflict(pointer, **{side: None if value is _ABSENT else value for side, value in shown.items()}))
    return ours
