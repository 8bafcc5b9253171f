"""What every declarative step has, the walk to where it applies in Python and in SQL, and the steps of one version together."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Hashable
from typing import Any, ClassVar

from pydantic_core import PydanticCustomError

from stemmadb import errors
from stemmadb.documents._canonical import equality_key
from stemmadb.documents._sql_text import quote_stored
from stemmadb.documents._steps import Raw
from stemmadb.documents._values import MAX_LEVELS, freeze

EACH = "*"
VERSION_KEY = "schema_version"


@dataclasses.dataclass(frozen=True, eq=False)
class Step(ABC):
    """
    One change to the objects at a place of a document.

    Pure and total: a document that has no such place, or something else there, is left as it is. Python and PostgreSQL give the same.

    Steps that say the same are equal. ``Default("a", 1)`` and ``Default("a", True)`` are not.
    """

    at: tuple[str, ...] = dataclasses.field(default=(), kw_only=True)
    """The way to the objects: keys, and ``"*"`` for every element of an array. Empty for the document itself."""

    _keys: ClassVar[tuple[str, ...]] = ()
    """The fields that hold a key, or a path of keys, of the objects at that place."""

    def __post_init__(self) -> None:
        self._set("at", as_path(self.at))
        paths = [as_path(getattr(self, name)) for name in self._keys]
        for path in (self.at, *paths):
            self._check_path(path)
        if EACH in self.at[:1]:
            raise self._refusal(f'a document is an object, so at= does not begin with "{EACH}"')
        if any((*self.at, *path)[0] == VERSION_KEY for path in paths):
            raise self._refusal(f"{VERSION_KEY} is not for steps to change")

    def _check_path(self, path: tuple[str, ...]) -> None:
        if len(path) > MAX_LEVELS:
            raise self._refusal(f"a document is nested at most {MAX_LEVELS} levels")
        for key in path:
            if not isinstance(key, str):
                raise self._refusal(f"keys are strings, not {type(key).__name__}")
            if "\x1a" in key:
                # It leads the escapes, and raw SQL may have stored it by itself: the database would find only one of the two forms.
                raise self._refusal("a key with U+001A cannot be looked for")

    def _set(self, field: str, value: Any) -> None:
        object.__setattr__(self, field, value)

    def _frozen(self, value: Any) -> Any:
        """Return a read-only copy of a JSON value."""
        try:
            return freeze(value)
        except PydanticCustomError as error:
            raise self._refusal(error.message()) from None

    def _refusal(self, reason: str) -> errors.ConfigurationError:
        return errors.ConfigurationError(f"{type(self).__name__}: {reason}")

    def _said(self) -> tuple[Hashable, ...]:
        return tuple(equality_key(getattr(self, field.name)) for field in dataclasses.fields(self))

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and isinstance(other, Step) and self._said() == other._said()

    def __hash__(self) -> int:
        return hash((type(self), self._said()))

    @abstractmethod
    def _change(self, found: dict[str, Any]) -> dict[str, Any]:
        """Return a changed copy of an object at the place, or the object itself."""

    @abstractmethod
    def _change_sql(self, found: str) -> str:
        """Return the same as an expression, over one whose value is a jsonb object."""

    def _apply(self, value: Any, at: tuple[str, ...]) -> Any:
        """Return a JSON value with the objects at a place of it changed; what is not on the way there is not copied."""
        if not at:
            return self._change(value) if isinstance(value, dict) else value
        key, rest = at[0], at[1:]
        if key == EACH:
            return [self._apply(item, rest) for item in value] if isinstance(value, list | tuple) else value
        if isinstance(value, dict) and key in value:
            return {**value, key: self._apply(value[key], rest)}
        return value

    def _apply_sql(self, value: str, at: tuple[str, ...], level: int = 1) -> str:
        """
        Return the same as an expression, over one whose value is of type jsonb and not NULL.

        Every operator is guarded by the type: on arrays and scalars they mean something else.
        """
        if not at:
            return f"CASE WHEN jsonb_typeof({value}) = 'object' THEN {self._change_sql(value)} ELSE {value} END"
        key, rest = at[0], at[1:]
        if key == EACH:
            item = f"item{level}"
            changed = self._apply_sql(f"{item}.value", rest, level + 1)
            items = f"jsonb_array_elements({value}) WITH ORDINALITY AS {item} (value, place)"
            array = f"SELECT coalesce(jsonb_agg({changed} ORDER BY {item}.place), '[]'::jsonb) FROM {items}"  # noqa: S608 -- all quoted
            return f"CASE WHEN jsonb_typeof({value}) = 'array' THEN ({array}) ELSE {value} END"
        name = quote_stored(key)
        changed = self._apply_sql(f"({value} -> {name})", rest, level)
        return (
            f"CASE WHEN jsonb_typeof({value}) = 'object' AND {value} ? {name} "
            f"THEN {value} || jsonb_build_object({name}, {changed}) ELSE {value} END"
        )


@dataclasses.dataclass(frozen=True, init=False)
class Steps:
    """
    What leads from one version of a document to the next: steps, taken in order. An upcaster.

    It returns a changed copy, which may share with what it was given whatever it did not change.
    """

    steps: tuple[Step, ...]

    def __init__(self, *steps: Step) -> None:
        object.__setattr__(self, "steps", steps)

    def __call__(self, raw: Raw) -> Raw:
        changed: Any = raw
        for step in self.steps:
            changed = step._apply(changed, step.at)
        return {**changed} if changed is raw and isinstance(raw, dict) else changed


def as_path(path: Any) -> tuple[str, ...]:
    """Return a path of keys. A string is one key, and not its characters."""
    return tuple(path) if isinstance(path, list | tuple) else (path,)
