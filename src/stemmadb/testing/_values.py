"""Values for columns and documents, all drawn from one source, so that a seed repeats them."""

import math
import re
import types
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from random import Random
from typing import Annotated, Any, Final, Literal, TypeVar, Union, get_args, get_origin
from uuid import UUID

import pydantic
from pydantic import AwareDatetime, BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from uuid_utils.compat import uuid7

from stemmadb.errors import ConfigurationError, ValidationError

T = TypeVar("T")

RANDOM: Final = Random()  # noqa: S311  (sample data, not secrets)
"""The one source of every factory. Factories of one process share it: what is repeatable is one thread's sequence of calls."""

_TRIES: Final = 40
_WORDS: Final = (
    *("a", "word", "Straße", "naïve", "한강", "채식주의자", "犬", "Привет", "שלום", "مرحبا", "नमस्ते", "ﬁ", "e\u0301", "İ"),
    *(
        "😀",
        "👩‍👩‍👧",
        "O'Brien",
        '"quoted"',
        "back\\slash",
        "100%",
        ":name",
        "$1",
        "{}",
        "--",
        "<b>",
        "a\tb",
        "line\nbreak",
        "\u200b",
        "zero",
    ),
)
_PATTERNED: Final = ("https://example.com/{0}", "{0}@example.com", "t{0}", "T{0}", "t{0}:read", "v1:key:{0}", "EUR", "{0}")
_BOUNDS: Final = {"ge", "gt", "le", "lt", "min_length", "max_length", "pattern"}


class _Unsupported(Exception):  # noqa: N818  (caught where it is asked for, never seen outside)
    """There is nothing to draw for this type."""


class _Ids:
    """UUIDv7s: of the time, or counted from a fixed moment once there is a seed."""

    seeded: int | None = None

    def next(self) -> UUID:
        if self.seeded is None:
            return uuid7()
        self.seeded += 1
        tail = RANDOM.getrandbits(74)
        return UUID(int=self.seeded << 80 | 7 << 76 | (tail >> 62) << 64 | 2 << 62 | tail & (1 << 62) - 1)


_ids: Final = _Ids()


def seed(number: int) -> None:
    """Begin the sequence of values that this number stands for; ids then count milliseconds from the beginning of 2026."""
    RANDOM.seed(number)
    _ids.seeded = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1000)


def is_seeded() -> bool:
    """Return whether the values are those of a seed."""
    return _ids.seeded is not None


def new_id() -> UUID:
    """Return an id as rows have them."""
    return _ids.next()


def token() -> str:
    """Return sixteen hexadecimal digits that no other row has."""
    return f"{RANDOM.getrandbits(64):016x}"


def text() -> str:
    """Return text of any script, now and then empty, long, or with white space around it."""
    words = RANDOM.choices(_WORDS, k=RANDOM.choice((0, 1, 1, 2, 3, 5, 60)))
    return RANDOM.choice((" ", "", "\n")).join(words) if words else RANDOM.choice(("", " "))


def moment() -> datetime:
    """Return a time between 1970 and 2070, to the microsecond."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=RANDOM.randrange(100 * 365 * 86_400 * 1_000_000))


def later(days: int = 365) -> datetime:
    """Return a time of the year 2099 or up to so many days before it, for what has not ended: no clock of a test comes after it."""
    return datetime(2099, 1, 1, tzinfo=UTC) - timedelta(seconds=RANDOM.randrange(days * 86_400))


def drawn(annotation: Any, metadata: tuple[Any, ...], accepts: Callable[[Any], Any], *, unique: bool, place: str) -> Any:
    """
    Return a value of a type that a validator accepts.

    Args:
        annotation: the type of the column.
        metadata: what pydantic knows about the column beside its type.
        accepts: raises what pydantic raises for a value that it refuses.
        unique: whether no other row may have the value; then it is not None either.
        place: what is drawn for, for the message.

    Raises:
        ConfigurationError: nothing was accepted.
    """
    for attempt in range(_TRIES):
        try:
            candidate = _of(annotation, _bounds(metadata), unique=unique, attempt=attempt)
            accepts(candidate)
        except _Unsupported:
            break
        except (pydantic.ValidationError, ValidationError, ValueError):
            continue
        return candidate
    raise ConfigurationError(f"no value was found for {place}: declare the column in a factory of your own, or give it a value")


def _bounds(metadata: Any) -> dict[str, Any]:
    return {name: value for part in metadata for name in _BOUNDS if (value := getattr(part, name, None)) is not None}


def _of(annotation: Any, bounds: Mapping[str, Any], *, unique: bool = False, attempt: int = 0) -> Any:
    if get_origin(annotation) is Annotated:
        annotation, *metadata = get_args(annotation)
        return _of(annotation, {**bounds, **_bounds(metadata)}, unique=unique, attempt=attempt)
    if get_origin(annotation) in (Union, types.UnionType):
        members = [member for member in get_args(annotation) if member is not type(None)]
        if len(members) < len(get_args(annotation)) and not unique and RANDOM.random() < 0.3:
            return None
        return _of(RANDOM.choice(members), bounds, unique=unique, attempt=attempt)
    if annotation is str:
        return _text(bounds, unique=unique, attempt=attempt)
    if annotation in (int, float, Decimal):
        return _number(annotation, bounds, unique=unique)
    if annotation is bytes:
        return RANDOM.randbytes(bounds.get("min_length", RANDOM.randrange(16, 40)))
    if get_origin(annotation) is Literal:
        return RANDOM.choice(get_args(annotation))
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return RANDOM.choice(list(annotation))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return model(annotation)
    return _collection(annotation, bounds) if get_origin(annotation) else _plain(annotation)


def _text(bounds: Mapping[str, Any], *, unique: bool, attempt: int) -> str:
    if "pattern" in bounds or attempt >= len(_PATTERNED):
        # Text that follows a rule: what the columns of applications usually ask for.
        made = _PATTERNED[attempt % len(_PATTERNED)].format(token())
    elif unique:
        made = f"{RANDOM.choice(_WORDS)} {token()}"
    else:
        made = text()
    made = made[: bounds.get("max_length")]
    if "pattern" in bounds and re.search(bounds["pattern"], made) is None:
        raise ValueError(made)
    return made


def _number(kind: type[Any], bounds: Mapping[str, Any], *, unique: bool) -> Any:
    least = bounds.get("ge", bounds.get("gt"))
    most = bounds.get("le", bounds.get("lt"))
    low, high = (0 if least is None else least), (2**31 - 1 if most is None else most)
    if unique and kind is int:
        return RANDOM.randint(max(int(low), 1), int(high))
    edges = [edge for edge in (least, most) if edge is not None]
    if kind is int:
        small = min(int(high), int(low) + 1000)
        return RANDOM.choice([*map(int, edges), 0, 1, RANDOM.randint(int(low), small), RANDOM.randint(int(low), int(high))])
    if kind is float:
        made = RANDOM.choice([*map(float, edges), 0.0, 1.0, RANDOM.uniform(float(low), min(float(high), float(low) + 1000))])
        return made if math.isfinite(made) else 0.0
    return RANDOM.choice([*map(Decimal, edges), Decimal(0), Decimal("0.01"), Decimal(RANDOM.randint(0, 9999)) / 100])


def _plain(annotation: Any) -> Any:
    makers: dict[Any, Callable[[], Any]] = {
        bool: lambda: RANDOM.random() < 0.5,
        UUID: new_id,
        datetime: moment,
        AwareDatetime: moment,
        date: lambda: moment().date(),
        IPv4Address: lambda: IPv4Address(RANDOM.getrandbits(32)),
        IPv6Address: lambda: IPv6Address(RANDOM.getrandbits(128)),
        Any: lambda: RANDOM.choice((None, True, 3, 0.5, text(), ("a", 1), {"key": "value"})),
    }
    if annotation not in makers:
        raise _Unsupported
    return makers[annotation]()


def _collection(annotation: Any, bounds: Mapping[str, Any]) -> Any:
    origin, arguments = get_origin(annotation), get_args(annotation)
    size = range(max(bounds.get("min_length", 0), RANDOM.choice((0, 1, 2, 3))))
    if origin is tuple:
        return tuple(_of(arguments[0], {}) for _ in size)
    if origin is list:
        return [_of(arguments[0], {}) for _ in size]
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {_of(arguments[0], {}): _of(arguments[1], {}) for _ in size}
    raise _Unsupported


def model(kind: type[T]) -> T:
    """
    Return a document, or a part of one, with some of its optional fields.

    Raises:
        ConfigurationError: its validators accepted nothing.
    """
    fields: dict[str, FieldInfo] = kind.model_fields  # type: ignore[attr-defined]
    for attempt in range(_TRIES):
        # The last attempts keep to what must be given, which fewer rules speak about.
        chosen = _chosen(fields, everything=attempt < _TRIES - 3)
        try:
            return kind(**{name: _of(field.annotation, _bounds(field.metadata)) for name, field in chosen})
        except (pydantic.ValidationError, ValidationError):
            continue
    raise ConfigurationError(f"no value was found for {kind.__name__}: give the document, or declare the column in a factory of your own")


def _chosen(fields: Mapping[str, FieldInfo], *, everything: bool) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in fields.items():
        optional = field.default is not PydanticUndefined or field.default_factory is not None
        if name != "schema_version" and (not optional or (everything and RANDOM.random() < 0.5)):
            yield name, field
