"""
What may stand behind a column of an entity: the field specifiers, and the PostgreSQL type that each Python type becomes.

A specifier only notes what was asked for; the metaclass of entities turns the note into a validated field and a column, because
it knows the annotation: whether None is allowed, and which type the column has.
"""

import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin
from uuid import UUID

import sqlmodel
from pydantic import AfterValidator, BeforeValidator, ValidatorFunctionWrapHandler, WrapValidator
from pydantic_core import PydanticUndefined
from sqlalchemy import BigInteger, Boolean, Computed, Date, DateTime, Double, Integer, LargeBinary, Numeric, SmallInteger, Text, Uuid, text
from sqlalchemy.dialects.postgresql import ARRAY, ENUM, INET
from sqlalchemy.engine import Dialect
from sqlalchemy.sql.elements import ColumnElement, TextClause
from sqlalchemy.types import TypeDecorator, TypeEngine

from stemmadb.documents import Document, DocumentColumn

SCHEMA: Final = "stemma"
FIRST_DOCUMENT: Final = '{"schema_version":1}'

OnDelete = Literal["CASCADE", "RESTRICT", "SET NULL", "NO ACTION"]
ServerDefault = str | TextClause | ColumnElement[Any]


# ------------------------------------------------------------------------------------------------------- vocabularies


class Vocabulary(TypeDecorator[StrEnum]):
    """
    Text that Python sees as members of a StrEnum: the vocabulary of a tenant table, with the CHECK that the entity adds.

    A label that a newer release added is read as the plain string, so that a row of its does not stop this one.
    """

    impl: TypeEngine[Any] | type[TypeEngine[Any]] = Text
    cache_ok: bool | None = True

    def __init__(self, enum: type[StrEnum]) -> None:
        super().__init__()
        self.enum = enum

    def bind_processor(self, dialect: Dialect) -> Any:  # noqa: ARG002
        """Return what turns a member, or its label, into text."""
        return lambda value: None if value is None else str(value)

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:  # noqa: ARG002
        """Return what turns a label into its member."""
        members: dict[Any, Any] = {member.value: member for member in self.enum}
        return lambda label: members.get(label, label)

    def process_literal_param(self, value: Any, dialect: Dialect) -> str:  # noqa: ARG002
        """Return the label, for statements that are printed with their values."""
        return str(value)


class NativeEnum(Vocabulary):
    """The vocabulary of a global table: a PostgreSQL enum in the schema ``stemma``, its labels in the order of the members."""

    impl: TypeEngine[Any] | type[TypeEngine[Any]] = ENUM
    cache_ok: bool | None = True

    def __init__(self, enum: type[StrEnum], name: str) -> None:
        TypeDecorator.__init__(self, *[member.value for member in enum], name=name, schema=SCHEMA)
        self.enum = enum
        self.name = name


class OrderedVocabulary(TypeDecorator[IntEnum]):
    """A small number that Python sees as a member of an IntEnum: for vocabularies that are sorted by index."""

    impl: TypeEngine[Any] | type[TypeEngine[Any]] = SmallInteger
    cache_ok: bool | None = True

    def __init__(self, enum: type[IntEnum]) -> None:
        super().__init__()
        self.enum = enum

    def bind_processor(self, dialect: Dialect) -> Any:  # noqa: ARG002
        """Return what turns a member into its number."""
        return lambda value: None if value is None else int(value)

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:  # noqa: ARG002
        """Return what turns a number into its member."""
        members: dict[Any, Any] = {member.value: member for member in self.enum}
        return lambda number: members.get(number, number)


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be blank")
    return value


NotBlank = Annotated[str, AfterValidator(_not_blank)]
"""Text with something to read in it: the CHECK ``btrim(...) <> ''``, before anything is sent."""


# ----------------------------------------------------------------------------------------------------------- the note


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnSpec:
    """What a specifier noted down. ``constraints`` go to pydantic as they are (``ge``, ``max_length``, ...)."""

    default: Any = PydanticUndefined
    default_factory: Callable[[], Any] | None = None
    server_default: ServerDefault | None = None
    sa_type: TypeEngine[Any] | None = None
    foreign_key: str | None = None
    ondelete: OnDelete | None = None
    deferred: bool = False
    secret: bool = False
    generated: str | None = None
    document: type[Document] | None = None
    constraints: dict[str, Any] = field(default_factory=dict)
    column_options: Mapping[str, Any] = field(default_factory=dict)


def Field(  # noqa: N802  (the name that users of pydantic and SQLModel know)
    default: Any = PydanticUndefined,
    *,
    default_factory: Callable[[], Any] | None = None,
    gt: float | Decimal | None = None,
    ge: float | Decimal | None = None,
    lt: float | Decimal | None = None,
    le: float | Decimal | None = None,
    min_length: int | None = None,
    max_length: int | None = None,
    pattern: str | None = None,
    max_digits: int | None = None,
    decimal_places: int | None = None,
    server_default: ServerDefault | None = None,
    sa_type: TypeEngine[Any] | None = None,
    foreign_key: str | None = None,
    ondelete: OnDelete | None = None,
    deferred: bool = False,
    secret: bool = False,
    column_options: Mapping[str, Any] | None = None,
) -> Any:
    """
    Describe a column beyond its type.

    Args:
        default: the value of a new object that names none. It becomes the column's default too. None means NULL, or, where the column
            has a default of its own (server_default), that default.
        default_factory: makes that value for each object.
        gt, ge, lt, le, min_length, max_length, pattern: checked in Python, before anything is sent.
        max_digits, decimal_places: precision and scale of a ``Decimal``.
        server_default: the column's default; a string is a literal, SQL is given as ``text(...)`` or ``func...``.
        sa_type: the column's type where the Python type does not settle it (``BigInteger()``).
        foreign_key: ``table.column`` in the schema ``stemma``, for keys of one column.
        ondelete: what a deletion of the row there does here.
        deferred: not fetched unless a query asks for it with ``undefer``; reading it otherwise raises.
        secret: deferred, and never shown: neither by repr nor by model_dump.
        column_options: passed on to ``sqlalchemy.Column``.
    """
    given = {
        "gt": gt,
        "ge": ge,
        "lt": lt,
        "le": le,
        "min_length": min_length,
        "max_length": max_length,
        "max_digits": max_digits,
        "decimal_places": decimal_places,
    }
    constraints: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if pattern is not None:
        constraints["schema_extra"] = {"pattern": pattern}
    return ColumnSpec(
        default=default,
        default_factory=default_factory,
        server_default=server_default,
        sa_type=sa_type,
        foreign_key=foreign_key,
        ondelete=ondelete,
        deferred=deferred or secret,
        secret=secret,
        constraints=constraints,
        column_options=column_options or {},
    )


def document_field(
    document: type[Document],
    *,
    default: Any = PydanticUndefined,
    default_factory: Callable[[], Any] | None = None,
    server_default: str | None = None,
    deferred: bool = False,
) -> Any:
    """
    Describe a JSONB column that holds a versioned document.

    Args:
        document: its type. Stored documents of earlier versions are read as the newest.
        default: None for a column that may be NULL. Without default and default_factory the document must be given.
        default_factory: makes the document of an object that names none, usually the document's class. The column's default is then the
            smallest document, ``{"schema_version":1}``.
        server_default: the column's default as JSON, where it is another.
        deferred: not fetched unless a query asks for it with ``undefer``.
    """
    if default_factory is not None and server_default is None:
        server_default = FIRST_DOCUMENT
    return ColumnSpec(
        default=default,
        default_factory=default_factory,
        server_default=server_default,
        sa_type=DocumentColumn(document),
        deferred=deferred,
        document=document,
    )


def enum_field(enum: type[StrEnum], name: str, *, default: Any = PydanticUndefined) -> Any:
    """Describe a column of a global table that holds a member of ``enum``, as the native enum ``name``."""
    return ColumnSpec(default=default, sa_type=NativeEnum(enum, name))


def vocabulary_field(enum: type[StrEnum], *, default: Any = PydanticUndefined) -> Any:
    """Describe a column of a tenant table that holds a member of ``enum``: text, with the CHECK ``<table>_<column>_check``."""
    return ColumnSpec(default=default, sa_type=Vocabulary(enum))


def ordered_field(enum: type[IntEnum], *, default: Any = PydanticUndefined) -> Any:
    """Describe a smallint column that holds a member of ``enum``."""
    return ColumnSpec(default=default, sa_type=OrderedVocabulary(enum))


def generated_field(
    sql: str,
    *,
    sa_type: TypeEngine[Any] | None = None,
    secret: bool = False,
    init: Literal[False] = False,  # noqa: ARG001  (read by type checkers)
) -> Any:
    """
    Describe a column that PostgreSQL computes with every write. It cannot be given or assigned; None until the row is flushed.

    ``sa_type`` and ``secret`` are those of Field.
    """
    return ColumnSpec(default=None, generated=sql, sa_type=sa_type, deferred=secret, secret=secret)


# ------------------------------------------------------------------------------------------- from the note to the field

_TYPES: Final[dict[Any, Callable[[], TypeEngine[Any]]]] = {
    str: Text,
    UUID: Uuid,
    # Not SQLModel's own type: it converts every value in Python, which makes reading a third slower.
    datetime: lambda: DateTime(timezone=True),
    date: Date,
    bytes: LargeBinary,
    bool: Boolean,
    int: Integer,
    float: Double,
    IPv4Address: INET,
    IPv6Address: INET,
}
_make_field: Any = sqlmodel.Field  # its overloads cannot be told apart through keywords
_INTEGER_BITS: Final[dict[type[TypeEngine[Any]], int]] = {SmallInteger: 15, Integer: 31, BigInteger: 63}
_EARLIEST: Final = datetime(1, 1, 2, tzinfo=UTC)
_LATEST: Final = datetime(9999, 12, 30, tzinfo=UTC)


def _storable_text(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    if isinstance(value, bytes | bytearray):
        # Pydantic would decode them.
        raise ValueError("is bytes, and not text")
    value = validate(value)
    for part in value if isinstance(value, tuple) else (value,):
        if not isinstance(part, str):
            continue
        if "\0" in part:
            raise ValueError("contains the character U+0000, which PostgreSQL cannot store in text")
        try:
            _ = part.isascii() or part.encode()
        except UnicodeEncodeError:
            raise ValueError("contains half of a surrogate pair, which PostgreSQL cannot store in text") from None
    return value


def _storable_time(value: Any) -> Any:
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            raise ValueError("has no time zone: give an aware datetime, such as datetime.now(UTC)")
        if not _EARLIEST <= value <= _LATEST:
            raise ValueError("lies outside 0001-01-02 to 9999-12-30")
    return value


def _exact(value: Any) -> Any:
    if isinstance(value, float):
        raise ValueError("is a float, which cannot hold most decimal fractions: give a Decimal or a string")
    return value


_CHECKS: Final[dict[Any, AfterValidator | BeforeValidator | WrapValidator]] = {
    str: WrapValidator(_storable_text),
    datetime: AfterValidator(_storable_time),
    Decimal: BeforeValidator(_exact),
}


def field_for(annotation: Any, spec: ColumnSpec) -> Any:
    """Return the SQLModel field that makes the column and checks its values."""
    python_type, item, nullable = _parts(annotation)
    if spec.sa_type is None:
        spec = replace(spec, sa_type=_type_for(python_type, item, spec))
    server_default = _server_default(spec)
    column_type = spec.sa_type
    if nullable and server_default is not None and column_type is not None:
        # Else SQLAlchemy leaves a None out of the INSERT, and the column's default takes its place.
        column_type = column_type.evaluates_none()
    made = _make_field(
        **_value_options(spec),
        **_with_range(spec, python_type),
        **({"foreign_key": f"{SCHEMA}.{spec.foreign_key}", "ondelete": spec.ondelete} if spec.foreign_key else {}),
        sa_type=column_type,
        nullable=nullable,
        exclude=spec.secret or None,
        repr=not spec.secret,
        sa_column_args=[Computed(spec.generated, persisted=True)] if spec.generated else [],
        sa_column_kwargs={
            # Objects carry their defaults, and the column repeats them: a third place would only have to be kept equal.
            "default": None,
            "server_default": server_default,
            "info": {"deferred": spec.deferred, "secret": spec.secret, "document": spec.document},
            **spec.column_options,
        },
    )
    check = _CHECKS.get(item or python_type)
    if check is not None:
        made.metadata.append(check)
    return made


def _parts(annotation: Any) -> tuple[Any, Any, bool]:
    """Return the type without None, the item type of a tuple, and whether None is allowed."""
    nullable = False
    if get_origin(annotation) in (Union, types.UnionType):
        members = [member for member in get_args(annotation) if member is not type(None)]
        nullable = len(members) < len(get_args(annotation))
        annotation = members[0]
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) is tuple:
        return tuple, get_args(annotation)[0], nullable
    return annotation, None, nullable


def _type_for(python_type: Any, item: Any, spec: ColumnSpec) -> TypeEngine[Any]:
    if python_type is tuple and item in _TYPES:
        return ARRAY(_TYPES[item](), as_tuple=True)
    if python_type is Decimal:
        return Numeric(spec.constraints.get("max_digits"), spec.constraints.get("decimal_places"))
    if isinstance(python_type, type) and issubclass(python_type, Enum) and not issubclass(python_type, IntEnum):
        raise TypeError(f"{python_type.__name__} needs enum_field() in a global table, or vocabulary_field() in a tenant table")
    if python_type not in _TYPES:
        raise TypeError(f"{python_type!r} has no PostgreSQL type of its own: give one with Field(sa_type=...)")
    return _TYPES[python_type]()


def _server_default(spec: ColumnSpec) -> ServerDefault | None:
    if spec.server_default is not None or spec.default is PydanticUndefined or spec.default is None:
        return spec.server_default
    if isinstance(spec.default, str):
        return str(spec.default)
    if isinstance(spec.default, tuple):
        return "{}"
    return text(str(int(spec.default) if isinstance(spec.default, IntEnum) else spec.default).lower())


def _value_options(spec: ColumnSpec) -> dict[str, Any]:
    if spec.default_factory is not None:
        return {"default_factory": spec.default_factory}
    return {} if spec.default is PydanticUndefined else {"default": spec.default}


def _with_range(spec: ColumnSpec, python_type: Any) -> dict[str, Any]:
    """Add the bounds of the integer type, so that 22003 is found before anything is sent."""
    bits = next((bits for kind, bits in _INTEGER_BITS.items() if type(spec.sa_type) is kind), None)
    if bits is None or python_type is not int or spec.generated:
        return spec.constraints
    bounds: dict[str, Any] = {} if "gt" in spec.constraints else {"ge": -(2**bits)}
    if "lt" not in spec.constraints:
        bounds["le"] = 2**bits - 1
    return {**bounds, **spec.constraints}
