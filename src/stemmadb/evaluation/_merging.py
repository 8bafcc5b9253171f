"""The three-way merge of JSON documents, and what stands in the result where nobody has decided. Nothing here touches a database."""

from typing import Any

from stemmadb.evaluation._lineage_data import ABSENT, MergeConflict
from stemmadb.evaluation._list_alignment import NAMES, by_name, differing, keys_of
from stemmadb.evaluation._patches import escape_key, same


def merge_documents(base: dict[str, Any], ours: dict[str, Any], theirs: dict[str, Any]) -> tuple[Any, list[MergeConflict]]:
    """
    Make the changes of both sides against the base.

    What one side changed is taken from it, what both changed alike is taken once. Of a list both sides may change separate parts. Where
    the parts overlap, items are merged one by one: by their places if nothing was inserted or removed, objects inside only if they kept
    their names; else by their names, if all have one. A name stands in a merged list once, if it did in each of the three.

    Returns:
        The document, in which a conflict stands at its own place; and the conflicts in the order of their places.
    """
    conflicts: list[MergeConflict] = []
    return _merge(base, ours, theirs, "", conflicts), conflicts


def _merge(base: Any, ours: Any, theirs: Any, pointer: str, conflicts: list[MergeConflict]) -> Any:
    if same(ours, theirs) or same(base, theirs):
        return ours
    if same(base, ours):
        return theirs
    if isinstance(ours, dict) and isinstance(theirs, dict) and (isinstance(base, dict) or base is ABSENT):
        return _merge_objects({} if base is ABSENT else base, ours, theirs, pointer, conflicts)
    if isinstance(base, list) and isinstance(ours, list) and isinstance(theirs, list):
        return _merge_lists(base, ours, theirs, pointer, conflicts)
    return _conflict(base, ours, theirs, pointer, conflicts)


def _merge_objects(
    base: dict[str, Any], ours: dict[str, Any], theirs: dict[str, Any], pointer: str, conflicts: list[MergeConflict]
) -> dict[str, Any]:
    merged = {}
    for key in sorted(ours.keys() | theirs.keys()):
        place = f"{pointer}/{escape_key(key)}"
        value = _merge(base.get(key, ABSENT), ours.get(key, ABSENT), theirs.get(key, ABSENT), place, conflicts)
        if value is not ABSENT:
            merged[key] = value
    return merged


def _merge_lists(base: list[Any], ours: list[Any], theirs: list[Any], pointer: str, conflicts: list[MergeConflict]) -> Any:
    inside: list[MergeConflict] = []
    merged = _merge_parts(base, ours, theirs, pointer, inside)
    if merged is not None and not inside and by_name(merged) is None and all(by_name(side) is not None for side in (base, ours, theirs)):
        # Both gave the same name to different items.
        merged = None
    if merged is None:
        return _conflict(base, ours, theirs, pointer, conflicts)
    conflicts += inside
    return merged


def _merge_parts(base: list[Any], ours: list[Any], theirs: list[Any], pointer: str, conflicts: list[MergeConflict]) -> list[Any] | None:
    joined = _join(base, ours, theirs)
    if joined is not None:
        return joined
    if len(base) == len(ours) == len(theirs):
        items = zip(base, ours, theirs, strict=True)
        return [_merge_items(*item, f"{pointer}/{index}", conflicts) for index, item in enumerate(items)]
    return _merge_by_name(base, ours, theirs, pointer, conflicts)


def _join(base: list[Any], ours: list[Any], theirs: list[Any]) -> list[Any] | None:
    """Return the list with the changes of both sides; None when they are not to separate parts of it."""
    keys = keys_of(base)
    parts = [
        (start, end, side[side_start:side_end])
        for side in (ours, theirs)
        for start, end, side_start, side_end in differing(keys, keys_of(side))
    ]
    joined: list[Any] = []
    last: tuple[int, int, list[Any]] = (0, 0, [])
    for number, part in enumerate(sorted(parts, key=lambda part: part[:2])):
        is_same_place = number > 0 and part[:2] == last[:2]
        if is_same_place and same(part[2], last[2]):
            continue
        if is_same_place or part[0] < last[1]:
            return None
        joined += [*base[last[1] : part[0]], *part[2]]
        last = part
    return [*joined, *base[last[1] :]]


def _merge_items(base: Any, ours: Any, theirs: Any, pointer: str, conflicts: list[MergeConflict]) -> Any:
    both_changed = not (same(ours, theirs) or same(base, ours) or same(base, theirs))
    if both_changed and isinstance(base, dict) and isinstance(ours, dict) and isinstance(theirs, dict):
        names = [{name: item[name] for name in NAMES if name in item} for item in (base, ours, theirs)]
        if not same(names[0], names[1]) or not same(names[0], names[2]):
            return _conflict(base, ours, theirs, pointer, conflicts)
    return _merge(base, ours, theirs, pointer, conflicts)


def _merge_by_name(base: list[Any], ours: list[Any], theirs: list[Any], pointer: str, conflicts: list[MergeConflict]) -> list[Any] | None:
    """Merge items by their names; None when not all have one of their own, or what became of them does not go together."""
    named = [by_name(side) for side in (base, ours, theirs)]
    if any(side is None for side in named):
        return None
    old, our, their = (side or {} for side in named)
    order = _merged_order(list(old), list(our), list(their))
    if order is None or len(set(order)) < len(order):
        return None
    for name in old.keys() - set(order):
        # One side removed it: the other must have left it as it was, or have removed it too.
        if not all(same(side.get(name, old[name]), old[name]) for side in (our, their)):
            return None
    return [
        _merge(old.get(name, ABSENT), our.get(name, ABSENT), their.get(name, ABSENT), f"{pointer}/{index}", conflicts)
        for index, name in enumerate(order)
    ]


def _merged_order(base: list[Any], ours: list[Any], theirs: list[Any]) -> list[Any] | None:
    if ours in (theirs, base):
        return theirs
    return ours if theirs == base else _join(base, ours, theirs)


def _conflict(base: Any, ours: Any, theirs: Any, pointer: str, conflicts: list[MergeConflict]) -> MergeConflict:
    conflict = MergeConflict(pointer, base, ours, theirs)
    conflicts.append(conflict)
    return conflict
