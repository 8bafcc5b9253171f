"""
Keyset pages: each starts behind the last row of the one before, so it costs the same however far it is, and rows that others
insert or delete meanwhile make it neither skip nor repeat one.

    newest = page(session, select(Definition), order_by=[Definition.created_at.desc()], limit=20)
    older = page(session, select(Definition), order_by=[Definition.created_at.desc()], limit=20, cursor=newest.next_cursor)
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar, overload

from sqlalchemy import Dialect, FromClause, Select, SQLColumnExpression, Table, inspect, select
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Session
from sqlalchemy.sql import visitors
from sqlalchemy.sql.cache_key import HasCacheKey
from sqlalchemy.sql.elements import BindParameter

from stemmadb import _keysets as keysets
from stemmadb import tenancy
from stemmadb._cursors import fingerprint_of, read_cursor, write_cursor
from stemmadb._direct import DirectStatement
from stemmadb._instances import Loader
from stemmadb._tables import items_html
from stemmadb.documents import DocumentColumn, OnInvalid, keep_unreadable, resolve_unreadable
from stemmadb.documents._unreadable import check_on_invalid, document_attributes
from stemmadb.entity import Entity
from stemmadb.errors import ValidationError
from stemmadb.query import AnySelect, query

__all__ = ["Page", "page"]

T = TypeVar("T")

MAX_LIMIT = 200


@dataclasses.dataclass(frozen=True, slots=True)
class Page(Sequence[T], Generic[T]):
    """Some rows of a list, in its order, and the cursor of the rest."""

    items: list[T]
    next_cursor: str | None = None
    """Where the next page begins; None when this one is the last."""
    has_more: bool = False
    total: int | None = None
    """How many rows all pages have; None unless it was asked for."""

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        return self.items[index]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[T]:
        return iter(self.items)

    def _repr_html_(self) -> str:
        of_all = "" if self.total is None else f" of {self.total:,}"
        return items_html(self.items, caption=f"{len(self.items)}{of_all} rows; {'there are more' if self.has_more else 'the last page'}")


@query
def page(
    session: Session,
    statement: AnySelect,
    *,
    order_by: Sequence[SQLColumnExpression[Any]],
    cursor: str | None = None,
    limit: int = 50,
    with_total: bool = False,
    on_invalid: OnInvalid = "raise",
) -> Page[Any]:
    """
    Return one page of a statement's rows.

    One statement, which fetches one row more than it returns. With an index in the page's order it reads no others, for a page deep in
    the list as for the first one.

    Args:
        session: the caller's session.
        statement: what to page: entities or columns of at least one table with a primary key, one row for each key, without ORDER BY, LIMIT
            and DISTINCT.
        order_by: column expressions, with ``asc()``, ``desc()``, ``nulls_first()`` and ``nulls_last()``. NULLs come last upwards and first
            downwards unless said otherwise. The key is added in the direction of the last term, so that ties have an order too.
        cursor: the ``next_cursor`` of a page of the same statement and order; None for the first page.
        limit: the most rows, 1 to 200.
        with_total: also count all rows, in the snapshot of the same statement. Costs a scan of them.
        on_invalid: what becomes of a row whose documents cannot be read: "raise" refuses the page, "skip" leaves the row out (the page is
            shorter then, and the next one begins where it should), "raw" puts a RawDocument in the document's place.

    Returns:
        Entities for a statement that selects one entity, else rows.

    Raises:
        CorruptDocumentError, UnknownSchemaVersionError: a document cannot be read and on_invalid is "raise".
        InvalidCursorError: the cursor was edited, or is from another statement, filter, order or workspace.
        ValidationError: the limit is out of bounds, or the statement cannot be paged.
        WorkspaceNotSetError: the statement selects rows of a workspace and the session has none; nothing was sent.
    """
    check_limit(limit)
    check_on_invalid(on_invalid)
    everything = tenancy.reads_everything(session)
    shape, values = _shape_of(statement, order_by, everything)
    if shape.is_tenant and not everything:
        workspace_id = tenancy.require(session, "paging.page")
        fingerprint = fingerprint_of(shape.text, [workspace_id, *values.values()])
    else:
        fingerprint = fingerprint_of(shape.text, values.values())
    after = None if cursor is None else read_cursor(cursor, fingerprint, [term.enum for term in shape.terms])
    parameters = {**values, **shape.parameters(after or ()), keysets.FETCH.key: limit + 1}
    with keep_unreadable() if shape.has_documents else contextlib.nullcontext():
        items, marks = shape.fetch(session, after, parameters, total=bool(with_total))
    total = None
    if with_total:
        # Without a row nothing carries the number: either nothing matches at all, or what was behind the cursor is gone.
        total = marks(0)[-1] if items else session.scalar(shape.count, values) if after else 0
    has_more = len(items) > limit
    following = write_cursor(marks(limit - 1)[: len(shape.terms)], fingerprint) if has_more else None
    if shape.has_documents:
        return Page(resolve_unreadable(items[:limit], on_invalid), following, has_more, total)
    return Page(items[:limit], following, has_more, total)


def check_limit(limit: int) -> None:
    """
    Refuse what is no number of rows on a page.

    Raises:
        ValidationError: it is not a whole number from 1 to 200.
    """
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MAX_LIMIT:
        message = f"limit must be a whole number from 1 to {MAX_LIMIT}"
        raise ValidationError(message, "limit")


class _Shape:
    """A statement and its order without the values in them, and what is made of the two: once, since that costs as much as running it."""

    def __init__(self, statement: Select[Any], order_by: Sequence[Any], everything: bool) -> None:
        self._statement = statement
        descriptions = statement.column_descriptions
        # Columns of plain tables have no entity.
        entities = [item.get("entity") for item in descriptions]
        tenants = [_selectable(entity) for entity in entities if _is_tenant(entity)]
        self.is_tenant = bool(tenants)
        self.has_documents = any(_fetches_documents(item, statement) for item in descriptions)
        self._is_entity = len(descriptions) == 1 and descriptions[0]["expr"] is entities[0]
        self._width = len(descriptions)
        is_plain = self._is_entity and (self.is_tenant or not _names_tenants(statement))
        self._loader = _loader_of(entities[0], statement) if is_plain else None
        self._fresh = bool(statement.get_execution_options().get(_FRESH))
        self._everything = everything
        self.terms = keysets.terms_of(statement, order_by, () if everything else [table.c.workspace_id for table in tenants])
        self._pages: dict[Any, Select[Any]] = {}
        self._directs: dict[Any, DirectStatement] = {}

    @functools.cached_property
    def text(self) -> bytes:
        """The statement and its order as SQL, the same in every process."""
        ordered = self._statement.order_by(None).order_by(*[term.ordered for term in self.terms])
        return str(ordered.compile(dialect=_DIALECT)).encode()

    @functools.cached_property
    def _places(self) -> list[int] | None:
        """Where the values of the order stand among the columns that the loader wants; None when one of them is not there."""
        columns = self._loader.columns if self._loader is not None else []
        found = [next((place for place, column in enumerate(columns) if term.expression.compare(column)), None) for term in self.terms]
        return None if None in found else [place for place in found if place is not None]

    @functools.cached_property
    def count(self) -> Select[Any]:
        """The number of all rows."""
        return select(keysets.count_of(self._statement))

    def fetch(
        self, session: Session, after: Sequence[Any] | None, parameters: dict[str, Any], *, total: bool
    ) -> tuple[list[Any], Callable[[int], Sequence[Any]]]:
        """Return the rows as the caller gets them, one more than on the page; and what tells a row's values in the order, and the total."""
        loader = self._loader
        if loader is not None and loader.is_alone(session):
            return self._load(loader, session, after, parameters, total=total)
        found = session.execute(self._page(after, total=total), parameters).freeze()
        rows = found().all()
        items = found().scalars() if self._is_entity else found().columns(*range(self._width))
        return list(items), lambda number: rows[number][self._width :]

    def _load(
        self, loader: Loader[Any], session: Session, after: Sequence[Any] | None, parameters: dict[str, Any], *, total: bool
    ) -> tuple[list[Any], Callable[[int], Sequence[Any]]]:
        """As fetch, without SQLAlchemy's own loading, which takes as long again."""
        if session.autoflush:
            session.flush()
        scoped = self.is_tenant and not self._everything
        given = {**parameters, tenancy.SCOPE: tenancy.workspace_of(session)} if scoped else parameters
        connection = session.connection(bind_arguments={"mapper": loader.entity})
        rows: Sequence[Any]
        if self._places and not total:
            rows = self._direct(loader, after, parameters[keysets.FETCH.key]).fetch(connection, given)
        else:
            rows = connection.execute(self._page(after, total=total, loader=loader), given).all()
        behind = len(loader.attributes)
        places = self._places or range(behind, behind + len(self.terms))
        return loader.load(session, rows, fresh=self._fresh), lambda number: [*[rows[number][place] for place in places], rows[number][-1]]

    def _direct(self, loader: Loader[Any], after: Sequence[Any] | None, fetch: int) -> DirectStatement:
        """Return the statement of a page of so many rows whose columns are the loader's alone."""
        key = _nulls_in(after), fetch
        made = self._directs.get(key)
        if made is None:
            made = self._directs[key] = DirectStatement(self._page(after, total=False, loader=loader, fetch=fetch), loader.columns)
        return made

    def _page(
        self, after: Sequence[Any] | None, *, total: bool, loader: Loader[Any] | None = None, fetch: int | None = None
    ) -> Select[Any]:
        """Return the statement of a page; for a loader, of its columns. Of the cursor's values it only matters which are NULL."""
        nulls = _nulls_in(after)
        key = nulls, total, loader is None, fetch
        built = self._pages.get(key)
        if built is None:
            rest: Any = self._statement if nulls is None else self._statement.where(keysets.behind(self._statement, self.terms, nulls))
            if loader is not None:
                rest = rest.with_only_columns(*loader.attributes, maintain_column_froms=True)
                rest = tenancy.scoped(rest) if self.is_tenant and not self._everything else rest
            # The total is that of the whole list, so it is counted without the cursor's condition.
            terms = () if loader is not None and self._places else self.terms
            marks = keysets.marks(self._statement, terms, total=total)
            built = self._pages[key] = keysets.ordered(rest, self.terms, fetch).add_columns(*marks)
        return built

    @staticmethod
    def parameters(after: Sequence[Any]) -> dict[str, Any]:
        """Return the cursor's values under their names; a NULL is in the statement's text."""
        return {keysets.parameter(number): value for number, value in enumerate(after) if value is not None}


def _nulls_in(after: Sequence[Any] | None) -> tuple[bool, ...] | None:
    return None if after is None else tuple(value is None for value in after)


_FRESH = "populate_existing"
_shapes: dict[Any, tuple[_Shape, list[str]]] = {}
_MAX_SHAPES = 1000
_DIALECT: Dialect = postgresql.dialect()  # type: ignore[no-untyped-call]


def _shape_of(statement: Select[Any], order_by: Sequence[Any], everything: bool) -> tuple[_Shape, dict[str, Any]]:
    """Return the shape of a call, and the values of its statement and order under the names that the shape has for them."""
    keys = [part._generate_cache_key() if isinstance(part, HasCacheKey) else None for part in (statement, *order_by)]
    options = statement.get_execution_options()
    if None in keys or options.keys() - {_FRESH}:
        # Something in it cannot be cached, a type of the host for example, or is no part of the key: built anew, with its values inside.
        shape = _Shape(statement, order_by, everything)
        binds = [part for root in (statement, *order_by) for part in visitors.iterate(root) if isinstance(part, BindParameter)]
        return shape, {bind.key: bind.effective_value for bind in binds if not bind.required}
    binds = [bind for key in keys if key is not None for bind in key.bindparams]
    name = (everything, bool(options.get(_FRESH)), *[key.key for key in keys if key is not None])
    known = _shapes.get(name)
    if known is None:
        if len(_shapes) >= _MAX_SHAPES:
            _shapes.clear()
        known = _shapes[name] = (_Shape(statement, order_by, everything), [bind.key for bind in binds])
    shape, names = known
    return shape, {name: bind.effective_value for name, bind in zip(names, binds, strict=True) if not bind.required}


def _loader_of(entity: Any, statement: Select[Any]) -> Loader[Any] | None:
    """Return what makes the statement's entities of plain rows; None when it asks for more than their columns."""
    if statement._with_options or statement.get_execution_options().keys() - {_FRESH}:
        return None
    if not (isinstance(entity, type) and issubclass(entity, Entity)):
        return None
    return Loader(entity, [column for column in entity.__table__.columns if not column.info.get("deferred")])


def _names_tenants(statement: Select[Any]) -> bool:
    """Return whether a tenant table stands anywhere in the statement, whose rows SQLAlchemy's own loading narrows to the workspace."""
    return any(isinstance(part, Table) and "workspace_id" in part.c for part in visitors.iterate(statement))


def _fetches_documents(description: Any, statement: Select[Any]) -> bool:
    """Return whether what a statement selects is a document, or an entity with documents that are fetched with its row."""
    entity = description.get("entity")
    if entity is None or description["expr"] is not entity:
        return isinstance(description["type"], DocumentColumn)
    mapper = inspect(entity).mapper
    names = document_attributes(mapper)
    # An option may ask for what is deferred.
    return any(statement._with_options or not mapper.column_attrs[name].columns[0].info.get("deferred") for name in names)


def _selectable(entity: Any) -> FromClause:
    return inspect(entity).selectable  # type: ignore[no-any-return]


def _is_tenant(entity: Any) -> bool:
    return entity is not None and tenancy.is_tenant(inspect(entity).mapper.class_)
