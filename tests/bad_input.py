"""What callers get wrong, and what each function must answer to it."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import Any
from uuid import UUID

from pydantic import SecretStr
from sqlalchemy.orm import Session

from stemmadb.errors import DatabaseError, StemmaError, ValidationError
from stemmadb.testing import count_queries

GARBAGE: tuple[Any, ...] = (
    None,
    5,
    True,
    1.5,
    float("nan"),
    b"bytes",
    bytearray(b"bytes"),
    "",
    " ",
    "a\0b",
    "a\ud800",
    "\u202e\n",
    "'; DROP TABLE stemma.users; --",
    "x" * 100_000,
    ["a"],
    {"a": 1},
    {1: 2},
    object(),
    timedelta.max,
    timedelta.min,
    datetime(2030, 1, 1),
    datetime.max.replace(tzinfo=UTC),
    datetime.min.replace(tzinfo=UTC),
    SecretStr("a\0b"),
    UUID(int=0),
)

Call = Callable[..., Any]


def parameters_of(module: ModuleType, names: list[str]) -> Iterator[tuple[Call, str]]:
    """Every parameter of these functions but the session and those that are only asked whether they are true."""
    for name in names:
        fn = getattr(module, name)
        for parameter in inspect.signature(fn).parameters.values():
            if parameter.name != "session" and parameter.annotation is not bool:
                yield fn, parameter.name


def misuse(session: Session, fn: Call, good: Mapping[str, Any], parameter: str) -> None:
    """
    Give one argument of a function everything that it is not, the others being right.

    Whatever is refused is refused with an error of the library, with a short message that can be printed. Malformed values are
    refused before anything is sent. Functions that find refuse nothing.
    """
    wanted = inspect.signature(fn).parameters
    arguments = {name: good[name] for name in wanted if name != "session" and name in good}
    for value in GARBAGE:
        said = repr(value)[:80]
        with count_queries() as sent:
            try:
                with session.begin_nested():
                    fn(*([session] if "session" in wanted else []), **{**arguments, parameter: value})
            except StemmaError as error:
                shown = str(error)
                assert shown.isprintable(), said
                assert shown.encode(), said
                assert len(shown) < 1000, said
                assert not fn.__name__.startswith("find"), said
                if isinstance(error, ValidationError | DatabaseError):
                    assert sent.count == 0, (said, sent.statements)
            else:
                assert not isinstance(value, bytes | bytearray) or fn.__name__.startswith(("find", "looks")), said
        session.expire_all()
