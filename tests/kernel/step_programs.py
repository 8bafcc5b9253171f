"""
Programs of declarative steps, and documents drawn from the programs' own keys and values.

Documents drawn from anything at all hardly ever hold what a step looks for: they did not find steps that take ``True`` for ``1``, nor ones
that compare integers as floats.
"""

import copy
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from stemmadb.documents.steps import Default, Drop, Listify, MapValues, Move, Rename, Step, Steps, Wrap

NEWEST = 3

# The last ones mean something to SQL, SQLAlchemy, psycopg, Alembic, arrays or the escape of strings.
PLAIN = ["a", "b", "c"]
KEYS = [*PLAIN, *PLAIN, "", "0", "-1", "*", "é", "it's", "x:y", "%s", "$$", "\\", '"', "\t", "\x00", "\ud800", "😀", "schema_version"]
# Each beside those that a careless comparison takes for the same.
SCALARS: list[Any] = [None, True, False, 0, 1, 1.0, 0.0, -0.0, "", "1", "true", "null", "a", "it's %s :a $$ \\", "\x00\ud800\t"]
SCALARS += [2**53, 2**53 + 1, float(2**53), -(10**30), 0.1, 1e16, 1e-7, 1.5]
VALUES: list[Any] = [
    *SCALARS,
    [],
    {},
    [None],
    [1],
    [True],
    ["a"],
    {"a": 1},
    {"a": 1.0},
    {"a": True},
    {"a": {"b": [2**53]}},
    {"\x00": "\x00"},
]
VERSIONS: list[Any] = [None, 0, 1, 2, 3, 4, 10**9, -1, 1.0, 1.5, True, False, "1", "", [], {}, [1]]
STEPS = (Rename, Default, Move, Wrap, Listify, Drop, MapValues)

keys = st.sampled_from(KEYS)
root_keys = keys.filter(lambda key: key != "schema_version")
scalars = (
    st.sampled_from(SCALARS) | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text("a\x00\x1a\ud800", max_size=3)
)
values = st.sampled_from(VALUES) | scalars
# What is looked for cannot have U+001A.
few: st.SearchStrategy[Any] = st.sampled_from([None, True, False, 1, 2**53, "1", "null"])
wanted = few | st.sampled_from(VALUES) | st.integers() | st.text("a\x00\ud800", max_size=3)

other_places = st.tuples(root_keys.filter(lambda key: key != "*"), keys) | st.tuples(st.sampled_from(PLAIN), st.just("*"), keys)


@dataclass(frozen=True)
class Program:
    """The steps from each version to the next, and documents that they are for."""

    steps: tuple[tuple[Step, ...], ...]
    documents: tuple[Any, ...]

    def upcasters(self, replace: Callable[[Step], Step] = lambda step: step) -> dict[int, Steps]:
        """The steps as a document has them; each may be replaced by another."""
        return {version: Steps(*map(replace, steps)) for version, steps in enumerate(self.steps)}


@st.composite
def steps(draw: st.DrawFn, kinds: Sequence[type[Step]] = STEPS) -> Step:
    """One step of any kind, at any place."""
    kind = draw(st.sampled_from(kinds))
    at = draw(st.sampled_from([(), (), ("a",), ("a", "*"), ("b", "*", "c"), ("a", "*", "b", "*")]) | other_places)
    key = keys if at else root_keys
    names = draw(st.lists(key, min_size=2, max_size=2, unique=True))
    if kind is Rename:
        return Rename(*names, at=at)
    if kind is Default:
        return Default(names[0], draw(few | values), at=at)
    if kind is Wrap:
        return Wrap(names[0], draw(keys), at=at)
    if kind is MapValues:
        pairs = draw(st.lists(st.tuples(wanted, few | values), max_size=4, unique_by=_distinct))
        if len(pairs) > 1 and draw(st.booleans()):
            # What one pair makes, another one looks for.
            pairs[0] = (pairs[0][0], pairs[1][0])
        return MapValues(names[0], tuple(pairs), at=at)
    if kind is Move:
        # Places that differ in their first key are never inside of each other.
        old, new = ((name, *draw(st.lists(st.sampled_from(["0", "a"]) | keys, max_size=2))) for name in names)
        inside = draw(st.sampled_from([(), (), ("c",)]))
        return Move((*inside, *old), (*inside, *new), at=at)
    assert issubclass(kind, Listify | Drop)
    return kind(names[0], at=at)


def _distinct(pair: tuple[Any, Any]) -> str:
    value = pair[0]
    # Coarser than the library's own rule, so that no program is refused.
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(float(value) + 0.0)  # of the two zeros, the positive one
    return repr(value).replace("1.0", "1")


@st.composite
def programs(draw: st.DrawFn, including: type[Step] | None = None, documents: int = 40) -> Program:
    """A program with its documents; with ``including``, one that has a step of that kind."""
    drawn = [draw(st.lists(steps(), max_size=2)) for _ in range(NEWEST)]
    if including is not None:
        drawn[draw(st.integers(0, NEWEST - 1))].append(draw(steps((including,))))
    garden = Garden(draw(st.integers(0, 2**32)), [step for group in drawn for step in group])
    return Program(tuple(map(tuple, drawn)), tuple(garden.document() for _ in range(documents)))


def thawed(value: Any) -> Any:
    """A copy of a step's value that can be changed."""
    if isinstance(value, dict):
        return {key: thawed(item) for key, item in value.items()}
    return [thawed(item) for item in value] if isinstance(value, list | tuple) else value


def resembling(value: Any) -> list[Any]:
    """Values that a careless comparison takes for this one, and those that it must take for it."""
    if isinstance(value, bool) or value is None:
        return [str(value).lower(), json.dumps(value), int(bool(value)), float(bool(value)), not value]
    if isinstance(value, int | float):
        whole = [int(value), int(value) + 1, int(value) - 1, int(value) == 1]
        return [*whole, str(value), json.dumps(value), *([float(value)] if abs(value) < 1e16 else [])]
    if isinstance(value, str):
        return [None, True, 1, 0, [value], {value: value}, f"{value} ", value.upper(), "null" if value else None]
    return [json.dumps(value), [value], None, *(list(value) if isinstance(value, list) else value.values())]


class Garden:
    """Grows documents for a program, from a seed: to draw each part of them one by one takes a hundred times as long."""

    def __init__(self, seed: int, program: Sequence[Step]) -> None:
        self.random = random.Random(seed)
        self.program = program
        self.keys, self.values = [*PLAIN], [*VALUES, 2**53 + 2, 0.30000000000000004, "\x1a", "\x1a0041", "\x1a0000", "\udfff"]
        for step in program:
            for field in ("old", "new", "key", "inner"):
                found = getattr(step, field, ())
                self.keys += [found] if isinstance(found, str) else found
            self.keys += [key for key in step.at if key != "*"]
            self.values += [value for pair in getattr(step, "values", ()) for value in pair] * 3
        self.values = [thawed(value) for value in self.values]

    def often(self) -> bool:
        """True four times out of five."""
        return self.random.random() < 0.8

    def document(self) -> Any:
        """A document of any version, mostly with what the steps look for where they look; now and then no document at all."""
        if not self.random.randrange(40):
            return self.random.choice([[], [{}], "text", 1, True, None])
        document = self.object()
        for step in self.program:
            if self.often():
                self.plant(document, step.at, step)
        document.pop("schema_version", None)
        if self.often():
            document["schema_version"] = copy.deepcopy(self.random.choice(VERSIONS[:5] if self.often() else VERSIONS))
        return document

    def object(self, room: int = 2) -> dict[str, Any]:
        """An object with a few of the keys."""
        return {self.random.choice(self.keys): self.value(room) for _ in range(self.random.randrange(4))}

    def value(self, room: int) -> Any:
        """Any value, nested at most so deeply."""
        kind = self.random.randrange(10)
        if room and kind == 0:
            return self.object(room - 1)
        if room and kind == 1:
            return [self.value(room - 1) for _ in range(self.random.randrange(3))]
        return copy.deepcopy(self.random.choice(self.values))

    def plant(self, place: Any, at: Sequence[str], step: Step) -> None:
        """Make the way to a step's objects, and put into each what the step looks for, or something like it."""
        if not at:
            if isinstance(place, dict):
                self.serve(place, step)
            return
        key, rest = at[0], at[1:]
        if key == "*":
            for item in place if isinstance(place, list) else ():
                self.plant(item, rest, step)
            return
        if not isinstance(place, dict):
            return
        if not isinstance(place.get(key), dict | list) and self.often():
            many = [self.object() if self.often() else self.value(1) for _ in range(self.random.randrange(4))]
            place[key] = many if rest[:1] == ("*",) or not self.often() else self.object()
        self.plant(place.get(key), rest, step)

    def serve(self, place: dict[str, Any], step: Step) -> None:
        """Put what a step looks for into an object, or something like it."""
        if isinstance(step, Move):
            for path in (step.old, step.new) if self.random.randrange(2) else (step.old,):
                self.serve_path(place, path)
            return
        for field in ("old", "key", "new"):
            if hasattr(step, field) and (self.often() if field != "new" else self.random.randrange(2)):
                place[getattr(step, field)] = self.looked_for(step)

    def looked_for(self, step: Step) -> Any:
        """A value that the step looks for, one that resembles it, or any other."""
        wanted_here = [old for old, _ in getattr(step, "values", ())]
        if not wanted_here or not self.often():
            return self.value(1)
        value = thawed(self.random.choice(wanted_here))
        return value if self.random.randrange(2) else self.random.choice(resembling(value))

    def serve_path(self, place: dict[str, Any], path: Sequence[str]) -> None:
        """Put a value at a path; something that is no object may stand in its way."""
        for key in path[:-1]:
            if not isinstance(place.get(key), dict):
                place[key] = copy.deepcopy(self.random.choice([{}, {}, {}, None, [], [{}, 1], "a"]))
            place = place[key]
            if not isinstance(place, dict):
                return
        place[path[-1]] = self.value(1)
