"""
Steps between versions that say what changes, instead of doing it.

    from stemmadb.documents.steps import Default, Listify, Rename, Steps

    register_upcaster(Survey, 0)(Steps(Default("title", "")))
    register_upcaster(Survey, 1)(Steps(Rename("question", "questions"), Listify("questions"), Rename("name", "label", at=("options", "*"))))

``Steps`` is an upcaster like any other: a document with such steps is read as always. Since what it does is known, it can be compiled
too: when every step of a document is declared, ``upcast_function`` gives a function of PostgreSQL that does the same inside the database.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from stemmadb.documents._canonical import equality_key
from stemmadb.documents._sql_text import quote_jsonb, quote_stored
from stemmadb.documents._step import Step, Steps, as_path
from stemmadb.documents._upcast_function import drop_upcast_function, upcast_expression, upcast_function, upcast_function_name

__all__ = [
    "Steps",
    "Step",
    "Rename",
    "Default",
    "Move",
    "Wrap",
    "Listify",
    "Drop",
    "MapValues",
    "upcast_function",
    "upcast_function_name",
    "drop_upcast_function",
    "upcast_expression",
]


@dataclasses.dataclass(frozen=True, eq=False)
class Rename(Step):
    """A key gets another name. A value that stood under the new name is replaced."""

    old: str
    new: str

    _keys: ClassVar[tuple[str, ...]] = ("old", "new")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.old == self.new:
            raise self._refusal("the new name is the old one")

    def _change(self, found: dict[str, Any]) -> dict[str, Any]:
        if self.old not in found:
            return found
        changed = dict(found)
        changed[self.new] = changed.pop(self.old)
        return changed

    def _change_sql(self, found: str) -> str:
        old, new = quote_stored(self.old), quote_stored(self.new)
        return f"CASE WHEN {found} ? {old} THEN ({found} - {old}::text) || jsonb_build_object({new}, {found} -> {old}) ELSE {found} END"


@dataclasses.dataclass(frozen=True, eq=False)
class Default(Step):
    """A key that is absent gets a value, any JSON. A null is not absent: ``MapValues("title", [(None, "")])`` is for those."""

    key: str
    value: Any

    _keys: ClassVar[tuple[str, ...]] = ("key",)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set("value", self._frozen(self.value))

    def _change(self, found: dict[str, Any]) -> dict[str, Any]:
        return found if self.key in found else {**found, self.key: _thawed(self.value)}

    def _change_sql(self, found: str) -> str:
        return f"jsonb_build_object({quote_stored(self.key)}, {quote_jsonb(self.value)}) || {found}"


@dataclasses.dataclass(frozen=True, eq=False)
class Drop(Step):
    """A key goes, with its value. Unlike other keys that a release does not know, it does not survive a write."""

    key: str

    _keys: ClassVar[tuple[str, ...]] = ("key",)

    def _change(self, found: dict[str, Any]) -> dict[str, Any]:
        return _without(found, self.key)

    def _change_sql(self, found: str) -> str:
        return f"{found} - {quote_stored(self.key)}::text"


@dataclasses.dataclass(frozen=True, eq=False)
class Wrap(Step):
    """A value goes into an object of its own, under a key: ``"Ada"`` becomes ``{"name": "Ada"}``."""

    key: str
    inner: str

    _keys: ClassVar[tuple[str, ...]] = ("key",)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_path((self.inner,))

    def _change(self, found: dict[str, Any]) -> dict[str, Any]:
        return {**found, self.key: {self.inner: found[self.key]}} if self.key in found else found

    def _change_sql(self, found: str) -> str:
        key, inner = quote_stored(self.key), quote_stored(self.inner)
        wrapped = f"jsonb_build_object({inner}, {found} -> {key})"
        return f"CASE WHEN {found} ? {key} THEN {found} || jsonb_build_object({key}, {wrapped}) ELSE {found} END"


@dataclasses.dataclass(frozen=True, eq=False)
class Listify(Step):
    """A value becomes an array of one. An array stays as it is, and null becomes an empty one."""

    key: str

    _keys: ClassVar[tuple[str, ...]] = ("key",)

    def _change(self, found: dict[str, Any]) -> dict[str, Any]:
        if self.key not in found or isinstance(found[self.key], list | tuple):
            return found
        value = found[self.key]
        return {**found, self.key: [] if value is None else [value]}

    def _change_sql(self, found: str) -> str:
        key = quote_stored(self.key)
        return (
            f"CASE WHEN NOT ({found} ? {key}) OR jsonb_typeof({found} -> {key}) = 'array' THEN {found} "
            f"WHEN jsonb_typeof({found} -> {key}) = 'null' THEN {found} || jsonb_build_object({key}, '[]'::jsonb) "
            f"ELSE {found} || jsonb_build_object({key}, jsonb_build_array({found} -> {key})) END"
        )


@dataclasses.dataclass(frozen=True, eq=False)
class MapValues(Step):
    """
    Some values of a key become others; any other value stays.

    Values are compared as JSON: ``1`` is ``1.0`` and is not ``true``, arrays and objects are compared whole. Numbers that raw SQL stored
    with more digits than a float has are the one thing that Python, which reads floats, and the database may tell apart differently.
    """

    key: str
    values: Sequence[tuple[Any, Any]] | Mapping[str, Any]
    """Pairs of an old and a new value, each any JSON; a mapping will do where all the old ones are strings. Kept as a tuple of pairs."""

    _keys: ClassVar[tuple[str, ...]] = ("key",)

    def __post_init__(self) -> None:
        super().__post_init__()
        # In a mapping, True and 1 are one key.
        if isinstance(self.values, Mapping) and not all(isinstance(old, str) for old in self.values):
            raise self._refusal("a mapping is for strings: give other values as pairs, [(old, new), ...]")
        given = self.values.items() if isinstance(self.values, Mapping) else self.values
        pairs = tuple((self._frozen(old), self._frozen(new)) for old, new in given)
        table = {equality_key(old): new for old, new in pairs}
        if len(table) != len(pairs):
            raise self._refusal("two pairs begin with the same value")
        if any(_mentions_escape_lead(old) for old, _ in pairs):
            raise self._refusal("a string with U+001A cannot be looked for")
        self._set("values", pairs)
        self._set("_table", table)

    def _change(self, found: dict[str, Any]) -> dict[str, Any]:
        if self.key not in found:
            return found
        table: dict[Any, Any] = self.__dict__["_table"]
        old = equality_key(found[self.key])
        return {**found, self.key: _thawed(table[old])} if old in table else found

    def _change_sql(self, found: str) -> str:
        key = quote_stored(self.key)
        pairs: Any = self.values
        if not pairs:
            return found
        cases = " ".join(f"WHEN {quote_jsonb(old)} THEN {found} || jsonb_build_object({key}, {quote_jsonb(new)})" for old, new in pairs)
        return f"CASE {found} -> {key} {cases} ELSE {found} END"


@dataclasses.dataclass(frozen=True, eq=False)
class Move(Step):
    """
    A value goes to another place: ``Move("city", ("address", "city"))``, ``Move(("meta", "title"), "title")``.

    Objects on the way to the new place are made where there is nothing or null; where there is something else, the value stays where it
    is, so that nothing is lost. A value at the new place is replaced. The object that the value came from stays, even when it is empty.
    """

    old: str | tuple[str, ...]
    """Where it is: keys from the objects at ``at``. A string is one key; kept as a tuple."""
    new: str | tuple[str, ...]
    """Where it goes, likewise."""

    _keys: ClassVar[tuple[str, ...]] = ("old", "new")

    def __post_init__(self) -> None:
        old, new = as_path(self.old), as_path(self.new)
        self._set("old", old)
        self._set("new", new)
        shared = min(len(old), len(new))
        if shared == 0 or old[:shared] == new[:shared]:
            raise self._refusal("neither place may be inside of the other: Wrap puts a value into an object of its own")
        super().__post_init__()

    def _change(self, found: dict[str, Any]) -> dict[str, Any]:
        old, new = as_path(self.old), as_path(self.new)
        holder: Any = found
        for key in old:
            if not isinstance(holder, dict) or key not in holder:
                return found
            holder = holder[key]
        target: Any = found
        for key in new[:-1]:
            target = target.get(key)
            if target is None:
                break
            if not isinstance(target, dict):
                return found
        return _with(_removed(found, old), new, holder)

    def _change_sql(self, found: str) -> str:
        old, new = as_path(self.old), as_path(self.new)
        places = [_place(found, old[:depth]) for depth in range(len(old))]
        present = [f"jsonb_typeof({place}) = 'object'" for place in places[1:]] + [f"{places[-1]} ? {quote_stored(old[-1])}"]
        free = [f"coalesce(jsonb_typeof({_place(found, new[:depth])}), 'null') IN ('object', 'null')" for depth in range(1, len(new))]
        rest = f"({found} #- ARRAY[{', '.join(map(quote_stored, old))}])"
        moved = f"({places[-1]} -> {quote_stored(old[-1])})"
        for depth in reversed(range(len(new))):
            holder = _place(rest, new[:depth])
            if depth:
                holder = f"CASE jsonb_typeof({holder}) WHEN 'object' THEN {holder} ELSE '{{}}'::jsonb END"
            moved = f"({holder}) || jsonb_build_object({quote_stored(new[depth])}, {moved})"
        return f"CASE WHEN {' AND '.join([*present, *free])} THEN {moved} ELSE {found} END"


def _without(found: dict[str, Any], key: str) -> dict[str, Any]:
    changed = dict(found)
    changed.pop(key, None)
    return changed


def _removed(found: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    key, rest = path[0], path[1:]
    return {**found, key: _removed(found[key], rest)} if rest else _without(found, key)


def _with(found: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    key, rest = path[0], path[1:]
    return {**found, key: _with(found.get(key) or {}, rest, value) if rest else value}


def _place(found: str, path: Iterable[str]) -> str:
    for key in path:
        found = f"({found} -> {quote_stored(key)})"
    return found


def _thawed(value: Any) -> Any:
    """Return a copy of a read-only JSON value that whoever gets it may change."""
    if isinstance(value, dict):
        return {key: _thawed(item) for key, item in value.items()}
    return [_thawed(item) for item in value] if isinstance(value, tuple) else value


def _mentions_escape_lead(value: Any) -> bool:
    """Whether a string or a key in a JSON value has U+001A."""
    if isinstance(value, str):
        return "\x1a" in value
    if isinstance(value, dict):
        return any("\x1a" in key or _mentions_escape_lead(item) for key, item in value.items())
    return isinstance(value, tuple) and any(_mentions_escape_lead(item) for item in value)
