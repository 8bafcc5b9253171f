"""
What becomes of PostgreSQL's types in a frame.

Numbers, texts, times and lists of these are Arrow's own. The server turns into text what only PostgreSQL has a form for.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from stemmadb.errors import ValidationError

if TYPE_CHECKING:
    import pyarrow

# The whole numbers with which PostgreSQL says infinity and -infinity, and what ADBC makes of them as it counts from 1970 instead of 2000.
_INFINITE: Final = {
    "timestamp": frozenset({2**63 - 1, -(2**63), -9222425352054775809, -9222425352054775808}),
    "date": frozenset({2**31 - 1, -(2**31), -2147472692, -2147472691}),
}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a result."""

    field: "pyarrow.Field[Any]"
    """As it is given."""
    cast: str | None
    """The SQL type that the server turns it into; None: it comes as it is."""
    converted: "Callable[[pyarrow.Array[Any]], pyarrow.Array[Any]]"
    """What is done with the values that ADBC gives."""


def columns_of(found: "pyarrow.Schema") -> list[Column]:
    """
    Decide about the columns of a statement, of which ADBC says this.

    Raises:
        ValidationError: two columns have one name.
    """
    names = [field.name for field in found]
    for name in names:
        if names.count(name) > 1:
            raise ValidationError(f"two columns are called {name!r}, and a frame has one of each name: rename one with AS", "statement")
    return [_column(field) for field in found]


def wrapped(statement: str, columns: Sequence[Column]) -> str:
    """Return the statement with the casts of its columns; as it is where nothing is to be cast."""
    if all(column.cast is None for column in columns):
        return statement
    aliases = [f"c{number}" for number in range(len(columns))]
    given = [
        alias if column.cast is None else f"CAST({alias} AS {column.cast}) AS {alias}"
        for alias, column in zip(aliases, columns, strict=True)
    ]
    # Behind a line break: the statement may end in a comment.
    return f"SELECT {', '.join(given)} FROM ({statement}\n) AS stemma_frame({', '.join(aliases)})"  # noqa: S608


def refuse_infinity(columns: Sequence[Column], arrays: "Sequence[pyarrow.Array[Any]]") -> None:
    """
    Refuse times without an end, for which no frame has a value: they would read as the year 294,247.

    Raises:
        ValidationError: there is one.
    """
    import pyarrow.compute

    for column, array in zip(columns, arrays, strict=True):
        infinite = next((values for name, values in _INFINITE.items() if str(column.field.type).startswith(name)), None)
        if infinite is not None and len(array):
            whole: Any = array.cast(pyarrow.int64() if column.field.type.bit_width == 64 else pyarrow.int32())
            bounds: Any = pyarrow.compute.min_max(whole)
            if not infinite.isdisjoint(bounds.as_py().values()):
                name = column.field.name
                raise ValidationError(f"the column {name!r} holds infinity, for which a frame has no time: cast it to text", name)


def _column(field: "pyarrow.Field[Any]") -> Column:
    import pyarrow

    found, name = field.type, (field.metadata or {}).get(b"POSTGRESQL:type", b"").decode()
    match name:
        case "numeric":
            return _numeric(field)
        case "json" | "jsonb":
            return Column(pyarrow.field(field.name, pyarrow.string()), None, _storage)
        case "oid":
            return Column(pyarrow.field(field.name, pyarrow.int64()), "bigint", _unchanged)
        case "_numeric":
            return Column(pyarrow.field(field.name, pyarrow.list_(pyarrow.float64())), "float8[]", _unchanged)
        case "_oid":
            return Column(pyarrow.field(field.name, pyarrow.list_(pyarrow.int64())), "bigint[]", _unchanged)
    if pyarrow.types.is_list(found):
        if _is_common(found.value_type) and name != "_money":
            return Column(pyarrow.field(field.name, pyarrow.list_(found.value_type)), None, _unchanged)
        return Column(pyarrow.field(field.name, pyarrow.list_(pyarrow.string())), "text[]", _unchanged)
    if _is_common(found) and name != "money":
        return Column(pyarrow.field(field.name, found), None, _unchanged)
    return Column(pyarrow.field(field.name, pyarrow.string()), "text", _unchanged)


def _numeric(field: "pyarrow.Field[Any]") -> Column:
    """Return a numeric as an exact decimal where the column has a precision; what is computed has none, and is a float."""
    import pyarrow

    typmod = int((field.metadata or {}).get(b"POSTGRESQL:typmod", b"-1"))
    precision = (typmod - 4) >> 16
    # Eleven bits, of which one is the sign.
    scale = (((typmod - 4) & 0x7FF) ^ 1024) - 1024
    if typmod < 4 or precision > 38 or not 0 <= scale <= precision:
        return Column(pyarrow.field(field.name, pyarrow.float64()), "float8", _unchanged)
    decimal = pyarrow.decimal128(precision, scale)

    def converted(array: "pyarrow.Array[Any]") -> "pyarrow.Array[Any]":
        try:
            return _storage(array).cast(decimal)
        except pyarrow.ArrowInvalid:
            message = f"the column {field.name!r} holds NaN, which no decimal is: cast it to double precision"
            raise ValidationError(message, field.name) from None

    return Column(pyarrow.field(field.name, decimal), None, converted)


_COMMON: Final = re.compile(r"bool|int(16|32|64)|float|double|string|binary|date32|timestamp|time64")


def _is_common(found: "pyarrow.DataType") -> bool:
    """Whether all frames have this type."""
    return _COMMON.match(str(found)) is not None


def _unchanged(array: "pyarrow.Array[Any]") -> "pyarrow.Array[Any]":
    return array


def _storage(array: Any) -> "pyarrow.Array[Any]":
    """Return the values without the name that ADBC gave their type."""
    return cast("pyarrow.Array[Any]", getattr(array, "storage", array))
