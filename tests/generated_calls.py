"""
Calls of query functions, made from their signatures: whatever names a row can be one's own, another workspace's or nobody's.

A *place* is what names a row: a parameter (``run_id``), an item of one (``scenario_ids``), a field of a data object (``data.parent_id``), a
label, a worker, a claim. Functions that are added are called without a new line here, unless they name rows in a new way.
"""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from enum import Enum
from importlib.util import find_spec
from typing import Any, Literal, Union
from uuid import UUID, uuid4

from pydantic import BaseModel
from tests.evaluation.run_setups import MODEL
from tests.full_databases import Filled

from stemmadb._conformance._sources import sources_of
from stemmadb.evaluation.data import SlotClaim, SlotKey
from stemmadb.evaluation.documents import DefinitionContent
from stemmadb.packs import packs

# What parameters and fields call a row, where it is not <table>_id.
_DEFINITIONS = ("parent", "ancestor", "a", "b", "ours", "theirs", "good", "bad", "expected_definition")
_KINDS = {
    **dict.fromkeys(_DEFINITIONS, "definition"),
    **dict.fromkeys(("baseline_run", "comparison_run"), "run"),
    "comparison_run": "other_run",
    **dict.fromkeys(("assigned_to", "decided_by"), "user"),
    "root_definition": "root",
}
# The row of the kind with which a function can do something.
_STATES = {
    **{name: {"run": "pending_run"} for name in ("start", "plan_slots", "select_scenarios")},
    **{name: {"scenario": "claimed_scenario"} for name in ("complete_slot", "record_outcomes")},
    "record_many": {"item": "transcript"},
}
# They take two runs at least.
_COMPARING = ("pairwise", "comparability")
# Users belong to no workspace.
_GLOBAL = ("created_by", "by_user", "invited_by", "annotator_user", "moved_by", "requested_by")
# Given wherever it is asked for: without it nothing would be sent.
_GIVEN: dict[str, Any] = {"percentage": 50.0}
_ONE_ROW: dict[Any, str] = {SlotClaim: "claim", SlotKey: "slot"}
# Elsewhere a label is a word, and a content is what is written.
_BY_PLACE = {"label": "label", "data.label": "label", "worker": "worker", "content": "content"}
# Fields without which a data object says nothing, although each of them may be absent.
_SAYING = {("DefinitionUpdate", "name"), ("RunUpdate", "name"), ("SlotOutcome", "transcript"), ("ScoreCreate", "value")}


@dataclasses.dataclass(frozen=True)
class TenantFunction:
    """A query function of a workspace."""

    name: str
    """As messages name it: ``evaluation.runs.start``."""
    function: Callable[..., Any]


def tenant_functions() -> Iterator[TenantFunction]:
    """Yield every query function of a workspace."""
    for pack in packs():
        for module, name, function in sources_of(pack).functions():
            if module.__name__ == "stemmadb.evaluation.frames" and find_spec("adbc_driver_postgresql") is None:
                continue
            if getattr(function, "__stemma_query__", None) == "tenant":
                yield TenantFunction(f"{module.__name__.removeprefix('stemmadb.')}.{name}", function)


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What a function is called with beside the session."""

    positional: tuple[Any, ...]
    keywords: Mapping[str, Any]


class Rows:
    """What places are filled with: the rows of a workspace."""

    def __init__(self, filled: Filled) -> None:
        self._filled = filled

    def __getitem__(self, kind: str) -> Any:
        filled = self._filled
        known = {
            "label": filled.label,
            "worker": filled.claim.worker,
            "claim": filled.claim,
            "slot": filled.slot,
            "content": filled.content,
        }
        return known.get(kind, filled.ids.get(kind))


class Nobodys:
    """Ids and names that no workspace has; and ``user``, who is a member of none. The same ones each time."""

    def __init__(self, like: Filled, stranger_id: UUID) -> None:
        key = dataclasses.replace(like.claim.key, run_id=uuid4(), scenario_id=uuid4())
        self._known = {
            "user": stranger_id,
            "label": "nobodys-label",
            "worker": "nobodys-worker",
            "slot": key,
            "claim": dataclasses.replace(like.claim, key=key, worker="nobodys-worker"),
            "content": like.content.replace(template="nobody's"),
        }

    def __getitem__(self, kind: str) -> Any:
        return self._known.setdefault(kind, uuid4())


def places_of(function: Callable[..., Any]) -> list[tuple[str, bool]]:
    """Return the places of a function, and whether each has to be filled."""
    builder = _Builder(lambda _place, _kind: None, None)
    builder.arguments(function)
    return list(builder.places.items())


def arguments_of(function: Callable[..., Any], rows: Callable[[str, str], Any], *, optional: Collection[str] = ()) -> Arguments:
    """
    Return arguments for a function.

    Args:
        function: what is called.
        rows: what a place is filled with, given its name and the kind of row.
        optional: the places that are filled although they need not be.
    """
    return _Builder(rows, optional).arguments(function)


class _Builder:
    def __init__(self, rows: Callable[[str, str], Any], optional: Collection[str] | None) -> None:
        self._rows = rows
        self._optional = optional  # None: all of them, to find them
        self._states: dict[str, str] = {}
        self._function = ""
        self.places: dict[str, bool] = {}

    def arguments(self, function: Callable[..., Any]) -> Arguments:
        self._states = _STATES.get(function.__name__, {})
        self._function = function.__name__
        hints = typing.get_type_hints(function)
        positional, keywords = [], {}
        for parameter in list(inspect.signature(function).parameters.values())[1:]:
            required = parameter.default is parameter.empty
            found, value = self._value(hints[parameter.name], parameter.name, parameter.name, required=required)
            if parameter.kind is parameter.KEYWORD_ONLY:
                keywords.update({parameter.name: value} if found else {})
            else:
                positional.append(value if found else parameter.default)
        if all(self.places.get(place) for place in self._optional or ()):
            keywords.update({name: value for name, value in _GIVEN.items() if name in hints})
        return Arguments(tuple(positional), keywords)

    def _value(self, hint: Any, name: str, place: str, *, required: bool) -> tuple[bool, Any]:
        """Return whether there is something to give, and what."""
        hint = _plain(hint)
        if (kind := self._kind_of(hint, name, place)) is not None:
            return self._place(place, kind, required=required)
        origin, inner = typing.get_origin(hint), typing.get_args(hint)
        if origin is tuple and len(inner) > 1 and inner[-1] is not ...:
            parts = [self._value(each, name, f"{place}.{number}", required=required) for number, each in enumerate(inner)]
            return all(found for found, _ in parts), tuple(value for _, value in parts)
        if name == "run_ids" and self._function in _COMPARING:
            parts = [self._place(place, "run", required=required), self._place(f"{place}.1", "other_run", required=required)]
            return all(found for found, _ in parts), [value for _, value in parts]
        if origin in (Sequence, Collection, Iterable, list, tuple, set, frozenset):
            found, value = self._value(inner[0], name.removesuffix("s"), place, required=required)
            return found, (value,) if origin is tuple else [value]
        if isinstance(hint, type) and issubclass(hint, BaseModel):
            return self._model(hint, place, required=required)
        if not required:
            return False, None
        return True, _sample(hint, name)

    def _kind_of(self, hint: Any, name: str, place: str) -> str | None:
        if hint in _ONE_ROW:
            return _ONE_ROW[hint]
        if place in _BY_PLACE and hint in (str, DefinitionContent):
            return _BY_PLACE[place]
        is_id = hint is UUID or set(typing.get_args(hint)) == {UUID, str}
        if not is_id or name == "id":
            return None
        stem = name.removesuffix("_id")
        kind = _KINDS.get(stem, stem)
        return None if stem in _GLOBAL else self._states.get(kind, kind)

    def _place(self, place: str, kind: str, *, required: bool) -> tuple[bool, Any]:
        self.places[place] = required
        wanted = required or self._optional is None or place in self._optional
        return wanted, self._rows(place, kind) if wanted else None

    def _model(self, model: type[BaseModel], place: str, *, required: bool) -> tuple[bool, Any]:
        values, inside = {}, False
        before = len(self.places)
        for name, field in model.model_fields.items():
            if name == "schema_version":
                continue
            needed = required and (field.is_required() or (model.__name__, name) in _SAYING)
            found, value = self._value(field.annotation, name, f"{place}.{name}", required=needed)
            if found:
                values[name] = value
                inside = inside or not field.is_required()
        wanted = required or (inside and len(self.places) > before)
        if self._optional is None or not wanted:
            return wanted, None
        if not required:
            return self._model(model, place, required=True)
        return True, model(**values)


def _plain(hint: Any) -> Any:
    """Return a type without None and without annotations."""
    while True:
        origin, inner = typing.get_origin(hint), typing.get_args(hint)
        if origin is typing.Annotated:
            hint = inner[0]
        elif origin in (Union, types.UnionType) and type(None) in inner:
            rest = tuple(each for each in inner if each is not type(None))
            hint = rest[0] if len(rest) == 1 else Union[rest]  # noqa: UP007
        else:
            return hint


def _sample(hint: Any, name: str) -> Any:
    """Return something of a type that names no row."""
    if typing.get_origin(hint) is Literal:
        return typing.get_args(hint)[0]
    if isinstance(hint, type) and issubclass(hint, Enum):
        # The last is the least of the roles, and the end of what runs and slots come to.
        return list(hint)[-1]
    samples: dict[Any, Any] = {
        str: {"model": MODEL, "analysis_type": "basic"}.get(name, "x"),
        int: 1,
        float: 0.05 if name == "alpha" else 1.0,
        bool: True,
        bytes: bytes(32),
        timedelta: timedelta(minutes=1),
        datetime: datetime.now(UTC),
        date: datetime.now(UTC).date(),
    }
    if hint not in samples:
        raise TypeError(f"say in tests/generated_calls.py what is given for {name}: {hint}")
    return samples[hint]
