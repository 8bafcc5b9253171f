"""
Stored examples of a document, made up from the types of its fields.

The same document and version give the same examples, so that nothing changes when they are made again. They are JSON as a release stores
it: with and without the keys that have defaults, with keys that the class does not know, with escaped characters.
"""

import json
import random
import types
from collections.abc import Callable, Iterator
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin
from uuid import UUID

import annotated_types
import pydantic

from stemmadb import errors
from stemmadb.documents import Document, DocumentPart, Raw

AT_LEAST = 25
"""How many examples there are of each released version."""

_TRIES = 5000
# U+001A leads what jsonb cannot hold: here NUL, a lone surrogate and U+001A itself.
_TEXTS = [
    "",
    "a",
    "two words",
    "Grüße, 世界 🙂",
    "line\nbreak\ttab",
    '"quoted" \\ {severity}',
    "\x1a0000",
    "x\x1ad800y\x1a001a",
    "NULL",
    "-1",
    "k" * 60,
]
_NAMES = ["a", "b c", "größe", "x/y~z", "\x1a0000", "0", "true"]
_INTEGERS = [0, 1, -1, 2, 7, 42, 2**31, -(2**63), 10**20]
_FLOATS = [0.0, 0.5, -1.25, 0.1, 1e-7, 3.0, 123456.789, 1e16, 99.5]
_DECIMALS = ["0", "1.50", "-0.00000001", "123456789012345.1234"]
_TIMES = ["2024-02-29T23:59:59Z", "2001-01-01T00:00:00.123456+09:00", "1999-12-31T12:00:00-03:30"]
_ANYTHING: list[Any] = [None, True, False, 0, 2.5, 10**18, "", "text", [], {}, [1, "a", None], {"k": {"deep": [{"er": 1}]}}]


def examples(document: type[Document], count: int = AT_LEAST) -> list[Any]:
    """Return stored examples of the newest version of a document, the smallest first."""
    chance = random.Random(f"{document.__name__} {document.newest_version}")

    def made(optional: float, unknown: float) -> Raw:
        model = _model(document, chance, lambda: chance.random() < optional, lambda: chance.random() < unknown)
        return {"schema_version": document.newest_version, **model}

    # The smallest one; some with everything; the rest with some of it.
    return _different(
        document, count, [(1, (made(0, 0) for _ in range(_TRIES))), (5, (made(1, 1) for _ in range(_TRIES)))], lambda: made(0.7, 0.3)
    )


def examples_of_version_0(document: type[Document], count: int = AT_LEAST) -> list[Any]:
    """
    Return stored examples of version 0: those of version 1 without what the step to it fills in.

    Only what the step really takes is returned: absent and null keys, whole documents that were arrays, keys of other names.
    """
    chance = random.Random(f"{document.__name__} 0")
    stored = [{key: value for key, value in example.items() if key != "schema_version"} for example in examples(document, 4 * count)]

    def made() -> Raw:
        raw = dict(chance.choice(stored))
        for key in list(raw):
            match chance.randrange(8):
                case 0 | 1:
                    del raw[key]
                case 2:
                    raw[key] = None
        return chance.choice([raw, raw, raw, {"schema_version": None, **raw}, {**raw, "schema_version": 0}])

    arrays = (value for raw in stored for value in raw.values() if isinstance(value, list))
    # Transcripts had another name for turns.
    renamed = ({"messages": raw["turns"]} for raw in stored if "turns" in raw)
    return _different(document, count, [(1, iter([{}])), (5, arrays), (9, renamed)], made)


def _different(document: type[Document], count: int, first: list[tuple[int, Iterator[Any]]], rest: Callable[[], Any]) -> list[Any]:
    """
    Return as many examples that can be read and differ from each other.

    Args:
        document: what reads them.
        count: how many.
        first: candidates of special kinds, each with the number of examples up to which they are taken.
        rest: makes any other.
    """
    found: dict[str, Any] = {}
    for enough, candidates in [*first, (count, (rest() for _ in range(_TRIES)))]:
        for candidate in candidates:
            if len(found) >= enough:
                break
            try:
                document.load(candidate)
            except errors.DocumentError:
                continue
            found.setdefault(json.dumps(candidate, sort_keys=True), candidate)
    return list(found.values())


def _model(model: type[DocumentPart], chance: random.Random, has_optional: Callable[[], bool], has_unknown: Callable[[], bool]) -> Raw:
    made: Raw = {}
    for name, field in model.model_fields.items():
        if name != "schema_version" and (field.is_required() or has_optional()):
            made[name] = _value(
                field.annotation, list(field.metadata), chance, lambda part: _model(part, chance, has_optional, has_unknown)
            )
    if has_unknown():
        made[chance.choice(["x", "added later", "größe"])] = chance.choice(_ANYTHING)
    return made


def _value(annotation: Any, rules: list[Any], chance: random.Random, part: Callable[[type[DocumentPart]], Raw]) -> Any:
    """Return a JSON value for a field of this type."""
    origin, arguments = get_origin(annotation), get_args(annotation)

    def inner(argument: Any) -> Any:
        return _value(argument, rules, chance, part)

    if origin is Annotated:
        return _value(arguments[0], [*rules, *arguments[1:]], chance, part)
    if origin is Union or origin is types.UnionType:
        return inner(chance.choice(arguments))
    if origin is Literal:
        return chance.choice(arguments)
    if origin is tuple:
        several = len(arguments) == 2 and arguments[1] is ...
        return [inner(arguments[0]) for _ in range(chance.randrange(4))] if several else [inner(argument) for argument in arguments]
    if origin is dict:
        return {name: inner(arguments[1]) for name in chance.sample(_NAMES, chance.randrange(4))}
    return _scalar(annotation, rules, chance, part)


def _scalar(kind: Any, rules: list[Any], chance: random.Random, part: Callable[[type[DocumentPart]], Raw]) -> Any:
    if kind is Any:
        return chance.choice(_ANYTHING)
    if kind is None or kind is type(None):
        return None
    if kind in (int, float):
        pool: list[Any] = _INTEGERS if kind is int else _FLOATS
        return chance.choice([number for number in pool if _holds(rules, number)] or [1])
    if kind is pydantic.AwareDatetime or kind is datetime:
        return chance.choice(_TIMES)
    plain = {str: _TEXTS, bool: [True, False], Decimal: _DECIMALS}
    if kind in plain:
        return chance.choice(plain[kind])
    if kind is UUID:
        return str(UUID(int=chance.getrandbits(128), version=4))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return chance.choice(list(kind)).value
    if isinstance(kind, type) and issubclass(kind, DocumentPart):
        return part(kind)
    raise TypeError(f"no example of {kind} can be made: say how in tests/golden/examples.py")


def _holds(rules: list[Any], number: Any) -> bool:
    for rule in rules:
        match rule:
            case annotated_types.Ge(ge=bound) if number < bound:
                return False
            case annotated_types.Gt(gt=bound) if number <= bound:
                return False
            case annotated_types.Le(le=bound) if number > bound:
                return False
            case annotated_types.Lt(lt=bound) if number >= bound:
                return False
    return True
