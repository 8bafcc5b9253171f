"""The closed lists of names that an entity offers for filters, orders and columns, and what the names become."""

import functools
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

import pydantic
from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field, TypeAdapter
from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    ColumnOperators,
    Date,
    DateTime,
    Float,
    Integer,
    LargeBinary,
    Numeric,
    SmallInteger,
    String,
    Uuid,
    inspect,
)
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.types import TypeEngine

from stemmadb import tenancy
from stemmadb.errors import UnknownFieldError, ValidationError

MAX_TERMS = 1000

_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "eq": operator.eq,
    "ne": ColumnOperators.is_distinct_from,
    "lt": operator.lt,
    "lte": operator.le,
    "gt": operator.gt,
    "gte": operator.ge,
}
_PATTERNS: dict[str, Callable[..., Any]] = {"contains": ColumnOperators.contains, "starts_with": ColumnOperators.startswith}
_OPERATORS = (*_COMPARISONS, "in", *_PATTERNS, "is_null")


class Criteria:
    """
    What may be asked of an entity by name.

    Secret columns are not on offer: whoever may filter by a digest can find it out letter by letter. Neither is the workspace.
    """

    def __init__(self, entity: type[Any]) -> None:
        hidden = {"workspace_id"} if tenancy.is_tenant(entity) else set()
        self._entity = entity.__name__
        self._attributes: dict[str, InstrumentedAttribute[Any]] = {}
        for found in inspect(entity).column_attrs:
            if found.key not in hidden and not found.columns[0].info.get("secret"):
                self._attributes[found.key] = getattr(entity, found.key)
        self.columns = tuple(self._attributes)
        self.filters = tuple(name for name, found in self._attributes.items() if found.property.columns[0].info.get("document") is None)
        self.orders = tuple(name for name in self.filters if _adapter(self._attributes[name].type) is not None)

    def conditions(self, filters: Any) -> list[ColumnElement[bool]]:
        """
        Return the conditions of filters: field -> value, field -> (operator, value), or field -> a list of such pairs, which all hold.

        Raises:
            UnknownFieldError: a field that is not on offer.
            ValidationError: an unknown operator, a value that the column cannot have, or more than 1,000 terms.
        """
        if filters is None:
            return []
        if not isinstance(filters, Mapping):
            message = "filters is a mapping of field to value, or of field to (operator, value)"
            raise ValidationError(message, "filters")
        terms = [(name, *pair) for name, asked in filters.items() for pair in _pairs(self._named(name, self.filters), asked)]
        if sum(len(value) if operation == "in" else 1 for _, operation, value in terms) > MAX_TERMS:
            message = f"filters have more than {MAX_TERMS} terms, each value of an `in` counted: ask in several calls"
            raise ValidationError(message, "filters")
        return [_condition(name, self._attributes[name], operation, value) for name, operation, value in terms]

    def order(self, sort: Sequence[str]) -> list[ColumnElement[Any]]:
        """
        Return the order of names; a leading ``-`` sorts downwards. NULLs come last upwards and first downwards.

        Raises:
            UnknownFieldError: a name that is not on offer.
        """
        terms: list[ColumnElement[Any]] = []
        for name in [sort] if isinstance(sort, str) else sort:
            downwards = isinstance(name, str) and name.startswith("-")
            column = self._attributes[self._named(name[1:] if downwards else name, self.orders)]
            terms.append(column.desc() if downwards else column.asc())
        return terms

    def fetched(self, fields: Sequence[str]) -> list[InstrumentedAttribute[Any]]:
        """
        Return the columns of names.

        Raises:
            UnknownFieldError: a name that is not on offer.
        """
        return [self._attributes[self._named(name, self.columns)] for name in ([fields] if isinstance(fields, str) else fields)]

    def _named(self, name: Any, offered: tuple[str, ...]) -> str:
        if not isinstance(name, str) or name not in offered:
            raise UnknownFieldError(self._entity, str(name), offered)
        return name


def parse_value(type_: TypeEngine[Any], value: Any) -> Any:
    """
    Return the value as a column of this type has it.

    Raises:
        ValueError: it is none that the column could hold, or the type does not compare with values.
    """
    adapter = _adapter(type_)
    if adapter is None:
        raise ValueError("has a type that is not compared with values")
    return adapter.validate_python(value)


def _pairs(name: str, asked: Any) -> Iterator[tuple[str, Any]]:
    """Yield what is asked of one field as operators and values."""
    for item in asked if isinstance(asked, list) else [asked]:
        if not isinstance(item, tuple):
            operation, value = "eq", item
        elif len(item) == 2 and item[0] in _OPERATORS:
            operation, value = item
        else:
            raise ValidationError(f"The filter on {name} is no (operator, value) pair: the operators are {', '.join(_OPERATORS)}", name)
        if operation == "in":
            if isinstance(value, str | bytes | Mapping):
                raise ValidationError(f"`in` on {name} takes several values, such as a list", name)
            try:
                value = list(value)
            except TypeError:
                raise ValidationError(f"`in` on {name} takes several values, such as a list", name) from None
        yield operation, value


def _condition(name: str, column: InstrumentedAttribute[Any], operation: str, value: Any) -> ColumnElement[bool]:
    if operation == "is_null":
        if not isinstance(value, bool):
            raise ValidationError(f"`is_null` on {name} takes True or False", name)
        return column.is_(None) if value else column.is_not(None)
    if operation == "in":
        return column.in_([_value(name, column.type, item) for item in value])
    if value is None and operation in ("eq", "ne"):
        return column.is_(None) if operation == "eq" else column.is_not(None)
    if operation in _PATTERNS:
        if not isinstance(column.type, String):
            raise ValidationError(f"`{operation}` is for text, and {name} is none", name)
        return _PATTERNS[operation](column, _value(name, column.type, value), autoescape=True)  # type: ignore[no-any-return]
    return _COMPARISONS[operation](column, _value(name, column.type, value))  # type: ignore[no-any-return]


def _value(name: str, type_: TypeEngine[Any], value: Any) -> Any:
    try:
        return parse_value(type_, value)
    except pydantic.ValidationError as error:
        reason = error.errors(include_url=False, include_context=False, include_input=False)[0]["msg"].removeprefix("Value error, ")
        raise ValidationError(f"The filter on {name}: {reason}", name) from None
    except ValueError as error:
        raise ValidationError(f"{name} {error}: only `is_null` is possible", name) from None


def _storable(text: str) -> str:
    if "\0" in text:
        raise ValueError("contains the character U+0000, which no stored text has")
    return text


def _exact(value: Any) -> Any:
    if isinstance(value, float):
        raise ValueError("is a float, which cannot hold most decimal fractions: give a Decimal or a string")
    return value


def _whole(bits: int) -> Any:
    return Annotated[int, Field(strict=True, ge=-(2**bits), lt=2**bits)]


# The first that fits: subclasses stand before their parents.
_PYTHON_TYPES: tuple[tuple[type[TypeEngine[Any]], Any], ...] = (
    (Uuid, UUID),
    (Boolean, Annotated[bool, Field(strict=True)]),
    (SmallInteger, _whole(15)),
    (BigInteger, _whole(63)),
    (Integer, _whole(31)),
    (Float, float),
    (Numeric, Annotated[Decimal, Field(allow_inf_nan=True), BeforeValidator(_exact)]),
    (DateTime, AwareDatetime),
    (Date, date),
    (LargeBinary, Annotated[bytes, Field(strict=True)]),
    (String, Annotated[str, Field(strict=True), AfterValidator(_storable)]),
)


def _adapter(type_: TypeEngine[Any]) -> TypeAdapter[Any] | None:
    """Return what checks values for columns of a type; None for arrays, documents and the like."""
    labels = getattr(type_, "enum", None)
    found = labels if labels is not None else next((python for kind, python in _PYTHON_TYPES if isinstance(type_, kind)), None)
    if isinstance(type_, DateTime) and not type_.timezone:
        found = datetime
    return None if found is None else _made(found)


@functools.lru_cache(maxsize=256)
def _made(found: Any) -> TypeAdapter[Any]:
    return TypeAdapter(found)
