"""
The shape of a document in words of our own, and its hash.

It is made from the types of the fields, and not from pydantic's JSON Schema, whose text changes between releases of pydantic: a shape that
was released must have the same hash under every one of them.
"""

import dataclasses
import hashlib
import json
import types
from collections.abc import Iterable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin
from uuid import UUID

import pydantic
import pydantic_core
from annotated_types import BaseMetadata
from pydantic import AfterValidator, BeforeValidator, Strict
from pydantic.fields import FieldInfo

from stemmadb.documents import Document, DocumentPart

_WORDS: Mapping[Any, str] = {
    Any: "anything",
    None: "null",
    type(None): "null",
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    UUID: "uuid",
    Decimal: "decimal",
    date: "date",
    time: "time",
    timedelta: "duration",
    datetime: "moment",
    pydantic.AwareDatetime: "moment with a zone",
}


def fingerprint(document: type[Document]) -> str:
    """Return the hash of a document's shape."""
    return hashlib.sha256(json.dumps(shape(document), sort_keys=True).encode()).hexdigest()


def shape(model: type[DocumentPart]) -> dict[str, Any]:
    """Return what a document, or a part of one, may hold: keys, their types, bounds and defaults. Rules over several keys are not in it."""
    return {name: _field(field) for name, field in model.model_fields.items()}


def _field(field: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"type": _type(field.annotation)}
    if not field.is_required():
        found["default"] = pydantic_core.to_jsonable_python(field.get_default(call_default_factory=True))
    if rules := _rules(field.metadata):
        found["rules"] = rules
    aliases = {field.alias, field.validation_alias, field.serialization_alias} - {None}
    if aliases:
        found["aliases"] = sorted(map(str, aliases))
    return found


def _type(annotation: Any) -> Any:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        rules = _rules(arguments[1:])
        return {"type": _type(arguments[0]), "rules": rules} if rules else _type(arguments[0])
    if origin is Union or origin is types.UnionType:
        return {"any of": [_type(argument) for argument in arguments]}
    if origin is Literal:
        return {"one of": list(arguments)}
    if origin is tuple:
        if len(arguments) == 2 and arguments[1] is ...:
            return {"list of": _type(arguments[0])}
        return {"row of": [_type(argument) for argument in arguments]}
    if origin is dict:
        return {"keys": _type(arguments[0]), "values": _type(arguments[1])}
    return _plain(annotation)


def _plain(kind: Any) -> Any:
    if kind in _WORDS:
        return _WORDS[kind]
    if isinstance(kind, type) and issubclass(kind, Enum):
        return {"one of": [member.value for member in kind]}
    if isinstance(kind, type) and issubclass(kind, DocumentPart):
        return {"part": shape(kind)}
    raise TypeError(f"a field of {kind} has no word: add one to tests/golden/fingerprints.py")


def _rules(metadata: Iterable[Any]) -> list[Any]:
    """Return bounds and other rules of a field, but for those that every field of its kind has."""
    found: list[Any] = []
    for rule in metadata:
        if isinstance(rule, FieldInfo):
            found += _rules(rule.metadata)
        elif isinstance(rule, BeforeValidator | AfterValidator):
            name = f"{rule.func.__module__}.{getattr(rule.func, '__qualname__', '')}"
            found += [] if name.startswith("stemmadb.documents.") else [name]
        elif isinstance(rule, Strict):
            # Scalars of documents are strict, all of them.
            continue
        elif isinstance(rule, BaseMetadata) and dataclasses.is_dataclass(rule):
            found.append(dataclasses.asdict(rule))
        else:
            # Patterns, digits: pydantic has no public class for them.
            found.append({name: str(value) for name, value in vars(rule).items() if value is not None})
    return sorted(found, key=str)
