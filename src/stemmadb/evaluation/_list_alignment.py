"""
Which items of two lists are the same item: by their names if all have one, else by being equal.

Equal beginnings and ends are found at once. Between them the fewest insertions and removals are looked for (Myers' algorithm), up to 500;
where there are more, what each list holds once stays in its longest common order, and the search goes on in between. What is not found so
is compared by place. The work is thus bounded, whatever the lists hold.
"""

import bisect
import json
import math
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from typing import Any, Final

# What an item of a list is known by.
NAMES: Final = ("id", "key", "name", "label")

_MOST_EDITS: Final = 500
"""Insertions and removals that are looked for in two lists; the work grows with the square."""

Part = tuple[int, int, int, int]
"""Where a part starts and ends in the first list, and in the second."""


def by_name(items: list[Any]) -> dict[str, Any] | None:
    """Return the items by name, in their order; None when not each is an object with a name of its own."""
    named: dict[str, Any] = {}
    for item in items:
        field_name = next((name for name in NAMES if name in item), None) if isinstance(item, dict) else None
        if field_name is None or not isinstance(item[field_name], str | int):
            return None
        key = f"{field_name}: {json.dumps(item[field_name])}"
        if key in named:
            return None
        named[key] = item
    return named


def keys_of(items: list[Any]) -> list[str]:
    """Return for each item a text that only the same value has."""
    return [json.dumps(item, sort_keys=True) for item in items]


def aligned(old: list[Any], new: list[Any]) -> Iterator[tuple[int | None, int | None, int]]:
    """
    Yield what leads from one list to the other: the place of an item in the old list, in the new one, and where the list is changed for it.

    Without a new place the item is removed, without an old one it is added; with both it is the same item, or stands in the other's place.
    In the order in which it applies: when an item is reached, what stands before in the list is as in the new one.
    """
    names = by_name(old), by_name(new)
    is_named = names[0] is not None and names[1] is not None
    sides = [list(side) for side in names if side is not None] if is_named else [keys_of(old), keys_of(new)]
    done, shift = 0, 0
    for start, end, new_start, new_end in [*differing(*sides), (len(old), len(old), len(new), len(new))]:
        for place in range(done, new_start):
            yield place - shift, place, place
        paired = min(end - start, new_end - new_start)
        for step in range(paired):
            yield start + step, new_start + step, new_start + step
        for step in reversed(range(paired, end - start)):
            yield start + step, None, new_start + step
        for place in range(new_start + paired, new_end):
            yield None, place, place
        done, shift = new_end, new_end - end


def differing(old: Sequence[Hashable], new: Sequence[Hashable]) -> list[Part]:
    """Return the parts in which two lists of keys differ, in order."""
    start, old_end, new_end = _trimmed(old, new, (0, len(old), 0, len(new)))
    whole = (start, old_end, start, new_end)
    common = _common(old, new, whole, _MOST_EDITS)
    if common is None:
        anchors = _anchors(old, new, whole)
        gaps = list(_gaps(anchors, whole))
        most = math.isqrt(_MOST_EDITS**2 // len(gaps)) if gaps else 0
        common = sorted([*anchors, *(pair for gap in gaps for pair in _common_of_gap(old, new, gap, most))])
    return list(_gaps(common, whole))


def _trimmed(old: Sequence[Hashable], new: Sequence[Hashable], part: Part) -> tuple[int, int, int]:
    """Return how far beginnings are equal, in the first list, and from where on ends are, in both."""
    start, old_end, new_start, new_end = part
    shift = new_start - start
    while start < old_end and start + shift < new_end and old[start] == new[start + shift]:
        start += 1
    while start < old_end and start + shift < new_end and old[old_end - 1] == new[new_end - 1]:
        old_end, new_end = old_end - 1, new_end - 1
    return start, old_end, new_end


def _common_of_gap(old: Sequence[Hashable], new: Sequence[Hashable], gap: Part, most: int) -> list[tuple[int, int]]:
    start, old_end, new_end = _trimmed(old, new, gap)
    shift = gap[2] - gap[0]
    return [
        *zip(range(gap[0], start), range(gap[2], start + shift), strict=True),
        *(_common(old, new, (start, old_end, start + shift, new_end), most) or ()),
        *zip(range(old_end, gap[1]), range(new_end, gap[3]), strict=True),
    ]


def _gaps(common: Sequence[tuple[int, int]], part: Part) -> Iterator[Part]:
    """Yield what lies between the equal items of a part."""
    start, end, new_start, new_end = part
    for place, new_place in [*common, (end, new_end)]:
        if place > start or new_place > new_start:
            yield start, place, new_start, new_place
        start, new_start = place + 1, new_place + 1


def _anchors(old: Sequence[Hashable], new: Sequence[Hashable], part: Part) -> list[tuple[int, int]]:
    """Return where the items are that each list holds once, as far as their order is the same: the most that go together."""
    start, end, new_start, new_end = part
    counts, new_counts = Counter(old[start:end]), Counter(new[new_start:new_end])
    places = {new[place]: place for place in range(new_start, new_end) if new_counts[new[place]] == 1}
    pairs = [(place, places[old[place]]) for place in range(start, end) if old[place] in places and counts[old[place]] == 1]
    ends: list[int] = []
    # For each length of an increasing sequence the pair that ends it lowest, and for each pair the one before it.
    last: list[int] = []
    before: list[int] = []
    for number, (_, new_place) in enumerate(pairs):
        length = bisect.bisect_left(ends, new_place)
        before.append(last[length - 1] if length else -1)
        if length == len(ends):
            ends.append(new_place)
            last.append(number)
        else:
            ends[length], last[length] = new_place, number
    found = []
    number = last[-1] if last else -1
    while number >= 0:
        found.append(pairs[number])
        number = before[number]
    return found[::-1]


def _common(old: Sequence[Hashable], new: Sequence[Hashable], part: Part, most: int) -> list[tuple[int, int]] | None:
    """Return the places of the longest sequence that is in both parts; None when it leaves out more than so many items."""
    start, end, new_start, new_end = part
    width, height = end - start, new_end - new_start
    if not width or not height:
        return []
    # For each round, that is number of edits, how far down each diagonal of the grid one comes: the column, by column - row.
    rounds: list[dict[int, int]] = []
    for edits in range(min(most, width + height) + 1):
        reached: dict[int, int] = {}
        for diagonal in range(-min(edits, height), min(edits, width) + 1):
            if (diagonal - edits) % 2:
                continue
            column = _entered(rounds, diagonal, width, height)
            if column < 0:
                continue
            while column < width and column - diagonal < height and old[start + column] == new[new_start + column - diagonal]:
                column += 1
            reached[diagonal] = column
            if column == width and column - diagonal == height:
                return [(start + a, new_start + b) for a, b in _way_back([*rounds, reached], width, height)]
        rounds.append(reached)
    return None


def _entered(rounds: Sequence[dict[int, int]], diagonal: int, width: int, height: int) -> int:
    """Return the farthest column at which one edit more than in these rounds leads to the diagonal; -1 for none."""
    if not rounds:
        return 0
    inserted, removed = rounds[-1].get(diagonal + 1, -1), rounds[-1].get(diagonal - 1, -2) + 1
    return max(inserted if inserted - diagonal <= height else -1, removed if removed <= width else -1)


def _way_back(rounds: list[dict[int, int]], width: int, height: int) -> list[tuple[int, int]]:
    """Return the equal items on the way to the corner that the last round has reached, in order."""
    found: list[tuple[int, int]] = []
    column, diagonal = width, width - height
    while rounds:
        rounds.pop()
        entered = _entered(rounds, diagonal, width, height)
        found += ((place, place - diagonal) for place in reversed(range(entered, column)))
        # Of two items that changed places the first one stays.
        if rounds and rounds[-1].get(diagonal - 1) == entered - 1:
            column, diagonal = entered - 1, diagonal - 1
        else:
            column, diagonal = entered, diagonal + 1
    return found[::-1]
