"""DocumentColumn: the SQLAlchemy type of a JSONB column that holds documents."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from psycopg.types.json import Jsonb
from sqlalchemy import Column, Dialect, Text, cast, type_coerce
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeDecorator, TypeEngine

from stemmadb import errors
from stemmadb.documents._document import Document
from stemmadb.documents._dump import dump_json
from stemmadb.documents._unreadable import RawDocument, raw_or_raise

D = TypeVar("D", bound=Document)


class DocumentColumn(TypeDecorator[D], Generic[D]):
    """
    A JSONB column whose values are documents of one class.

    The driver hands over text, which is validated without a dict in between, and takes bytes. ``Definition.content["preamble"].astext`` and
    the other operators of JSONB work in queries, on what is stored, whatever its version.

    A document that cannot be read raises with its table and column; the key is added where it is known. NULL is None.
    """

    impl: TypeEngine[Any] | type[TypeEngine[Any]] = JSONB
    cache_ok: bool | None = True

    class JsonComparator(JSONB.Comparator[Any]):
        def _setup_getitem(self, index: Any) -> Any:
            # What stands inside of a document is plain JSON: with this type, its value would be read as a whole document.
            operator, adjusted, _ = super()._setup_getitem(index)  # type: ignore[no-untyped-call]
            return operator, adjusted, JSONB()

        def _adapt_expression(self, op: Any, other_comparator: Any) -> Any:
            # Nor is the result of any other operator a document.
            operator, result = super()._adapt_expression(op, other_comparator)
            return operator, JSONB() if isinstance(result, DocumentColumn) else result

    comparator_factory = JsonComparator  # pyright: ignore[reportAssignmentType]

    def __init__(self, document: type[D]) -> None:
        super().__init__(none_as_null=True)
        self.document = document
        self._owner: Column[Any] | None = None

    def copy(self, **_: Any) -> DocumentColumn[D]:
        """Return an equal type. SQLAlchemy works with copies, which belong to the same column until they are given to another."""
        copied = DocumentColumn(self.document)
        copied._owner = self._owner
        return copied

    def _set_parent(self, parent: Any, outer: bool = False, **kw: Any) -> None:
        # Its table is set only later.
        self._owner = parent if isinstance(parent, Column) else None
        super()._set_parent(parent, outer=outer, **kw)

    def place(self) -> tuple[str | None, str | None]:
        """Return the table and the column that this is the type of; None for what is not known, as in an expression."""
        if self._owner is None:
            return None, None
        table = getattr(self._owner, "table", None)
        return getattr(table, "name", None), self._owner.name

    def read(self, raw: Any) -> D | RawDocument | None:
        """
        Make the document of a stored value, which is its text or what the driver made of it.

        Raises:
            DocumentError: it cannot be read. The error names table and column. Inside of ``keep_unreadable``, a RawDocument is returned.
        """
        if raw is None:
            return None
        try:
            return self.document.load(raw)
        except errors.DocumentError as error:
            located = error.located(*self.place(), None)
            located.__cause__ = error.__cause__
            return raw_or_raise(raw, located)

    def column_expression(self, column: Any) -> Any:
        """Select the text of the value."""
        return type_coerce(cast(column, Text), self)

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:  # noqa: ARG002
        """Return what makes documents of rows."""
        return self.read

    def bind_processor(self, dialect: Dialect) -> Any:  # noqa: ARG002
        """Return what makes parameters of documents. They become bytes only as they are sent, so that errors are raised as they are."""

        def bind(value: Any) -> Any:
            return None if value is None else Jsonb(value, dumps=self._dumps)

        return bind

    def literal_processor(self, dialect: Dialect) -> Any:
        """Return what writes documents into SQL text."""

        def literal(value: Any) -> str:
            text = self._dumps(value).decode().replace("'", "''")
            if getattr(dialect.identifier_preparer, "_double_percents", False):
                # The driver takes a single one for the beginning of a parameter.
                text = text.replace("%", "%%")
            return f"CAST('{text}' AS jsonb)"

        return literal

    def _dumps(self, value: Any) -> bytes:
        table, column = self.place()
        if not isinstance(value, self.document):
            given, wanted = type(value).__name__, self.document.__name__
            raise errors.ValidationError(f"{column or 'The column'} takes a {wanted}, not {given}: use {wanted}.load(...) for JSON", column)
        try:
            return dump_json(value).encode()
        except errors.DocumentError as error:
            raise error.located(table, column, None) from None

    def coerce_compared_value(self, op: Any, value: Any) -> TypeEngine[Any]:
        """Compare with documents as documents, and with anything else as JSONB does."""
        if isinstance(value, Document):
            return self
        compared: TypeEngine[Any] = self.impl_instance.coerce_compared_value(op, value)
        return compared

    def compare_values(self, x: Any, y: Any) -> bool:
        """Whether an assigned document is no change. Python takes 1, 1.0 and True for the same; JSON does not."""
        if x is y:
            return True
        if not (isinstance(x, Document) and isinstance(y, Document)):
            return False
        return type(x) is type(y) and x == y and dump_json(x) == dump_json(y)

    def __repr__(self) -> str:
        # What migrations write: a column of the database has no class.
        return "postgresql.JSONB()"
