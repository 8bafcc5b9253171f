"""
Who changed what: blame of a version, what differs between two, and where two come from, on lines of 10 and 1,000 versions.

The floor is what somebody writes on plain tables: the contents of the line by recursion, and dictionaries of values by place. It takes an
item of a list for the one at the same place, has no types, and names no author; the line changes one value with each version, so that
nobody sees the difference.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from benchmarks.datasets import CHAIN_LEVELS, Dataset
from benchmarks.harness import FLOOR, OURS, Call, Case, Contender
from stemmadb.evaluation import definitions

JOB = "lineage"

_LINE = b"""
WITH RECURSIVE line AS (
    SELECT id, parent_id, 0 AS up FROM plain.definitions WHERE id = %s
 UNION ALL
    SELECT definitions.id, definitions.parent_id, line.up + 1 FROM line JOIN plain.definitions ON definitions.id = line.parent_id
)
"""
_CONTENTS = _LINE + b"SELECT id, content FROM line JOIN plain.definitions USING (id) ORDER BY up DESC"
_IDS = _LINE + b"SELECT id FROM line ORDER BY up"
_CONTENT = b"SELECT content FROM plain.definitions WHERE id = %s"


def cases(dataset: Dataset) -> list[Case]:
    """Blame, difference and merge base of the ends of lines."""
    found = []
    top = dataset.chain_id(0)
    for levels in (10, CHAIN_LEVELS):
        end, middle = (dataset.chain_id(min(level, dataset.rows)) for level in (levels, levels // 2))
        found += [
            _blame(dataset, f"blame, {levels:,} versions", end),
            _diff(dataset, f"difference of the ends of {levels:,} versions", top, end),
            _merge_base(dataset, f"merge base, {levels:,} versions", end, middle),
        ]
    return found


def _blame(dataset: Dataset, title: str, end: UUID) -> Case:
    def by_hand(cursor: Any) -> list[tuple[str, UUID]]:
        last: dict[str, tuple[Any, UUID]] = {}
        for id, content in cursor.execute(_CONTENTS, (end,)):
            values = _flat(content)
            last = {place: last[place] if place in last and last[place][0] == value else (value, id) for place, value in values.items()}
        return [(place, id) for place, (_, id) in sorted(last.items())]

    def ours(session: Session) -> list[tuple[str, UUID]]:
        return [(entry.pointer, entry.definition_id) for entry in definitions.blame(session, end)]

    # The newest shape has places that were not stored.
    return _case(dataset, title, by_hand, ours, lambda found: [one for one in found if one[0] in ("/preamble", "/template")])


def _diff(dataset: Dataset, title: str, a: UUID, b: UUID) -> Case:
    def by_hand(cursor: Any) -> list[str]:
        old, new = (_flat(cursor.execute(_CONTENT, (id,)).fetchone()[0]) for id in (a, b))
        return sorted(place for place in old.keys() | new.keys() if old.get(place) != new.get(place))

    def ours(session: Session) -> list[str]:
        return [change.pointer for change in definitions.diff(session, a, b).changes]

    return _case(dataset, title, by_hand, ours)


def _merge_base(dataset: Dataset, title: str, a: UUID, b: UUID) -> Case:
    def by_hand(cursor: Any) -> UUID | None:
        above = {id for (id,) in cursor.execute(_IDS, (a,))}
        return next((id for (id,) in cursor.execute(_IDS, (b,)) if id in above), None)

    def ours(session: Session) -> UUID | None:
        found = definitions.merge_base(session, a, b)
        return None if found is None else found.id

    return _case(dataset, title, by_hand, ours)


def _flat(value: Any, place: str = "") -> dict[str, Any]:
    """Return the values that hold no others, but for the version of the shape, by place."""
    if isinstance(value, dict) and value:
        kept = ((key, item) for key, item in value.items() if key != "schema_version")
        return {at: below for key, item in kept for at, below in _flat(item, f"{place}/{key}").items()}
    if isinstance(value, list) and value:
        return {at: below for index, item in enumerate(value) for at, below in _flat(item, f"{place}/{index}").items()}
    return {place: value}


def _as_it_is(found: Any) -> Any:
    return found


def _case(
    dataset: Dataset, title: str, by_hand: Callable[[Any], Any], ours: Callable[[Session], Any], outcome: Callable[[Any], Any] = _as_it_is
) -> Case:
    @contextlib.contextmanager
    def floor() -> Iterator[Call]:
        cursor = dataset.floor.cursor()
        yield lambda number: by_hand(cursor)

    @contextlib.contextmanager
    def library() -> Iterator[Call]:
        with dataset.db.session() as session:
            yield lambda number: ours(session)

    return Case(JOB, title, dataset.rows, [Contender(FLOOR, floor), Contender(OURS, library)], outcome=outcome)
