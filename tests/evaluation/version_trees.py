"""Trees of definitions for tests: generated ones, and what a walk in plain Python says about them."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.orm import Session

from stemmadb.entity import uuid7
from stemmadb.evaluation import definitions
from stemmadb.evaluation._patches import Change, changes_between
from stemmadb.evaluation.definitions import DefinitionCreate
from stemmadb.evaluation.documents import DefinitionContent, Dimension, DimensionLevel
from stemmadb.evaluation.entities import Definition

CONTENT = DefinitionContent(preamble="You are at a lever.", template="A trolley nears {victims}.")

_EPOCH = datetime(2025, 1, 1, tzinfo=UTC)


def make(session: Session, name: str = "Trolley", content: DefinitionContent = CONTENT, **values: Any) -> Definition:
    """A definition with these values."""
    return definitions.create(session, DefinitionCreate(name=name, content=content, **values))


def chain(session: Session, length: int) -> list[Definition]:
    """A root and its forks, each of the one before."""
    line = [make(session)]
    while len(line) < length:
        line.append(definitions.fork(session, line[-1].id))
    return line


@dataclass
class Forest:
    """Which definition is whose child, as plain Python knows it."""

    parents: dict[UUID, UUID | None] = field(default_factory=dict)
    created: dict[UUID, datetime] = field(default_factory=dict)

    def up(self, id: UUID) -> list[UUID]:
        """From the definition to its root, both included."""
        line = [id]
        while (parent := self.parents[line[-1]]) is not None:
            line.append(parent)
        return line

    def depth(self, id: UUID) -> int:
        """Levels below the root."""
        return len(self.up(id)) - 1

    def children(self, id: UUID) -> list[UUID]:
        """Oldest first, then by id."""
        return sorted((child for child, parent in self.parents.items() if parent == id), key=self._age)

    def below(self, id: UUID) -> list[UUID]:
        """What descends from the definition, level by level, oldest first in each."""
        found = [other for other in self.parents if id in self.up(other)[1:]]
        return sorted(found, key=lambda other: (self.depth(other), *self._age(other)))

    def nested(self, id: UUID, levels: int | None = None) -> tuple[UUID, list[Any]]:
        """The definition and its trees."""
        deeper = levels is None or levels > 0
        return id, [self.nested(child, None if levels is None else levels - 1) for child in self.children(id)] if deeper else []

    def merge_base(self, a: UUID, b: UUID) -> UUID | None:
        """The first on the way up from one that is on the way up from the other."""
        other = set(self.up(b))
        return next((id for id in self.up(a) if id in other), None)

    def _age(self, id: UUID) -> tuple[datetime, int]:
        return self.created[id], id.int


@st.composite
def shapes(draw: st.DrawFn, most: int = 25) -> list[tuple[int, int]]:
    """For each version the place of its parent among those before it, -1 for a root, and its age in minutes, in which there are ties."""
    count = draw(st.integers(1, most))
    return [(draw(st.integers(-1, place - 1)), draw(st.integers(0, 5))) for place in range(count)]


_INSERT = text(
    """
    INSERT INTO stemma.definitions (id, parent_id, root_id, depth, name, content, created_at)
    SELECT id, parent_id, root_id, depth, 'Version', coalesce(r.content, CAST(:content AS jsonb)), created_at
      FROM json_to_recordset(CAST(:rows AS json))
        AS r (id uuid, parent_id uuid, root_id uuid, depth integer, created_at timestamptz, content jsonb)
    """
)


def plant(session: Session, shape: Iterable[tuple[int, int]], said: Sequence[DefinitionContent] = ()) -> Forest:
    """Insert a forest of this shape in one statement; each version says what stands at its place, or ``CONTENT``."""
    forest = Forest()
    ids: list[UUID] = []
    rows: list[Mapping[str, Any]] = []
    for place, minutes in shape:
        id = uuid7()
        forest.parents[id] = None if place < 0 else ids[place]
        forest.created[id] = _EPOCH + timedelta(minutes=minutes)
        ids.append(id)
    for place, id in enumerate(ids):
        line = forest.up(id)
        row = {"id": id, "parent_id": forest.parents[id], "root_id": line[-1], "depth": len(line) - 1, "created_at": forest.created[id]}
        rows.append(row | {"content": said[place].dump() if said else None})
    session.execute(_INSERT, {"content": json.dumps(CONTENT.dump()), "rows": json.dumps(rows, default=str)})
    return forest


# -------------------------------------------------------------------------------------------------------------------- blame


@dataclass
class _Place:
    """A place in a document, and which version it is from; without items it is a value."""

    version: UUID
    items: Any = None

    @classmethod
    def of(cls, value: Any, version: UUID) -> "_Place":
        if isinstance(value, dict):
            return cls(version, {key: cls.of(item, version) for key, item in value.items()})
        return cls(version, [cls.of(item, version) for item in value] if isinstance(value, list) else None)

    def change(self, change: Change, version: UUID) -> None:
        """Make a step of a JSON Patch, as its standard says."""
        *way, last = [step.replace("~1", "/").replace("~0", "~") for step in change.pointer.split("/")[1:]]
        holder = self
        for step in way:
            holder = holder.items[int(step) if isinstance(holder.items, list) else step]
        key: Any = int(last) if isinstance(holder.items, list) else last
        if change.op != "add":
            del holder.items[key]
        if change.op == "remove":
            holder.version = version
        elif isinstance(holder.items, list):
            holder.items.insert(key, _Place.of(change.new, version))
        else:
            holder.items[key] = _Place.of(change.new, version)

    def values(self, pointer: str = "") -> Iterator[tuple[str, UUID]]:
        """Yield what holds no items, and its version."""
        if not self.items:
            yield pointer, self.version
            return
        for key, item in self.items.items() if isinstance(self.items, dict) else enumerate(self.items):
            yield from item.values(f"{pointer}/{str(key).replace('~', '~0').replace('/', '~1')}")


def naive_blame(line: Sequence[tuple[UUID, dict[str, Any]]]) -> dict[str, UUID]:
    """The version of each value of the last content: each difference from the one before is made, step by step, and only that is new."""
    (version, values), *later = line
    document = _Place.of(values, version)
    for version, following in later:
        for change in changes_between(values, following):
            document.change(change, version)
        values = following
    found = dict(document.values())
    del found["/schema_version"]
    return found


# ----------------------------------------------------------------------------------------------------------------- contents

_WORDS = st.text(alphabet="ab~/\x00\x1aé\ud800 ", max_size=4)
_SCALARS = st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from([1.0, 0.5]) | _WORDS
_ANY = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_WORDS, inner, max_size=3),
    max_leaves=6,
)
_LEVELS = st.builds(DimensionLevel, score=st.integers(0, 2), label=_WORDS, description=st.none() | _WORDS)
_DIMENSIONS = st.builds(
    Dimension,
    name=st.sampled_from(["age", "role", "count"]),
    values=st.lists(_WORDS, max_size=3).map(tuple),
    levels=st.lists(_LEVELS, max_size=3).map(tuple),
)
_KEYS = st.sampled_from(["x", "y/z", "~", "~1", "~01", "", "0", "-", "\x00"])
_UNKNOWN = st.dictionaries(_KEYS, _ANY, max_size=3)


def raw_objects() -> st.SearchStrategy[dict[str, Any]]:
    """JSON objects of no shape, with keys that a JSON Pointer escapes or that look like places in a list."""
    inner = st.recursive(_SCALARS, lambda below: st.lists(below, max_size=4) | st.dictionaries(_KEYS, below, max_size=4), max_leaves=12)
    return st.dictionaries(_KEYS, inner, max_size=4)


@st.composite
def contents(draw: st.DrawFn) -> DefinitionContent:
    """A content with few different values, so that two of them are alike in places; with keys that this release does not know."""
    return DefinitionContent(
        preamble=draw(_WORDS),
        template=draw(_WORDS),
        dimensions=tuple(draw(st.lists(_DIMENSIONS, max_size=4))),
        matching_rules=tuple(draw(st.lists(_WORDS, max_size=2))),
        **draw(_UNKNOWN),
    )
