"""
The types that fields of documents may have.

Checked when a class is made: a frozen document with a list inside could be edited in place, and the edit would be lost silently. The
same walk makes what is left exact: mappings are frozen, scalars are not converted, datetimes know their time zone.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import AfterValidator, AwareDatetime, BaseModel, JsonValue, Strict

from stemmadb.documents._values import FrozenDict, freeze

JsonAny = Annotated[Any, AfterValidator(freeze)]
"""Any JSON value, read-only all the way down."""

_INSTEAD: dict[str, str] = {
    "list": "tuple[X, ...]",
    "dict": "Mapping[str, X]",
    "set": "tuple[X, ...]",
    "frozenset": "tuple[X, ...], since a set has no order and would be stored in another one each time",
    "MutableMapping": "Mapping[str, X]",
    "MutableSequence": "tuple[X, ...]",
    "Sequence": "tuple[X, ...]",
    "Iterable": "tuple[X, ...]",
    "Collection": "tuple[X, ...]",
    "deque": "tuple[X, ...]",
    "defaultdict": "Mapping[str, X]",
    "OrderedDict": "Mapping[str, X]",
    "Counter": "Mapping[str, int]",
}
_STRICT: dict[Any, Any] = {kind: Annotated[kind, Strict()] for kind in (str, int, float, bool)} | {datetime: AwareDatetime}
_OPEN: tuple[Any, ...] = (Any, object, JsonValue)


def settle(annotation: Any, part: type[BaseModel], owner: type[BaseModel]) -> Any:
    """
    Return a field's annotation with everything under it read-only and exact.

    Args:
        annotation: as it was written, resolved.
        part: what nested models have to derive from.
        owner: the class that the field is of.

    Raises:
        TypeError: a type that can be changed in place, or that JSON gives back differently; the message says what to use.
    """
    if annotation in _OPEN:
        return JsonAny
    if hasattr(annotation, "__value__"):
        return settle(annotation.__value__, part, owner)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return Annotated[(settle(arguments[0], part, owner), *arguments[1:])]
    if origin is Union or origin is types.UnionType:
        return Union[tuple(settle(argument, part, owner) for argument in arguments)]  # noqa: UP007 -- the members are computed
    if origin is Literal or annotation is None or annotation is type(None):
        return annotation
    if origin is tuple or annotation is tuple:
        items = arguments or (Any, ...)
        settled: Any = tuple(item if item is ... else settle(item, part, owner) for item in items)
        return tuple[settled]
    if origin in (Mapping, FrozenDict) or annotation in (Mapping, typing.Mapping, FrozenDict):
        return _mapping(arguments or (str, Any), part, owner)
    return _scalar(origin or annotation, part, owner)


def _mapping(arguments: tuple[Any, ...], part: type[BaseModel], owner: type[BaseModel]) -> Any:
    key: Any
    key, value = arguments
    if not (key is str or get_origin(key) is Literal or (isinstance(key, type) and issubclass(key, str))):
        raise TypeError(f"the keys of a JSON object are strings, not {key}: use Mapping[str, X]")
    # With open values one call freezes the whole, instead of one for each value.
    whole, item = (freeze, Any) if value in _OPEN else (FrozenDict, settle(value, part, owner))
    return Annotated[dict.__class_getitem__((key, item)), AfterValidator(whole)]


def _scalar(kind: Any, part: type[BaseModel], owner: type[BaseModel]) -> Any:
    if kind in _STRICT:
        return _STRICT[kind]
    name = getattr(kind, "__name__", str(kind))
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        if kind is owner:
            raise TypeError("a part cannot hold itself")
        if not issubclass(kind, part):
            raise TypeError(f"{name} must derive from DocumentPart, so that it is frozen and keeps unknown keys")
        return kind
    if dataclasses.is_dataclass(kind):
        raise TypeError(f"{name} is a dataclass and drops unknown keys: make it a DocumentPart")
    if name in _INSTEAD and not (isinstance(kind, type) and issubclass(kind, Enum)):
        raise TypeError(f"{name} can be changed in place, or comes back differently: use {_INSTEAD[name]}")
    return kind
