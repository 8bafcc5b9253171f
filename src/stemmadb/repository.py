"""
Create, read, page, change and delete rows of any entity that has no functions of its own.

    notes = Repository(Note)
    note = notes.create(session, {"text": "shorter preamble"})
    newest = notes.list_all(session, filters={"text": ("contains", "preamble")}, sort=["-created_at"])

Repositories hold no session and no rows: one of each is enough for a process, and any number of them work in one transaction. They
flush, never commit. A statement that the database refuses ends the transaction unless it stands in ``with session.begin_nested()``.
"""

import functools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Concatenate, Final, Generic, ParamSpec, TypeVar, cast

from sqlalchemy import ARRAY, ColumnElement, CursorResult, Select, any_, bindparam, delete, func, select, tuple_, update
from sqlalchemy.orm import Session, load_only

from stemmadb import _writes as writes
from stemmadb._criteria import Criteria
from stemmadb._row_keys import Key, RowKey
from stemmadb._streams import fetch, stream
from stemmadb.documents import OnInvalid
from stemmadb.documents._unreadable import check_on_invalid
from stemmadb.entity import Entity, SoftDelete, Versioned
from stemmadb.errors import NotFoundError, ValidationError
from stemmadb.paging import Page, page
from stemmadb.query import guard, translated

__all__ = ["Filters", "Key", "Repository"]

Filters = Mapping[str, Any]
"""
Field -> value, field -> (operator, value), or field -> a list of such pairs; all must hold.

The operators are eq, ne, lt, lte, gt, gte, in, contains, starts_with and is_null. None as a value stands for NULL, and ``ne`` includes
rows in which the field is NULL. ``contains`` and ``starts_with`` tell letter case apart; ``%`` and ``_`` are themselves.
"""

T = TypeVar("T", bound=Entity)
S = TypeVar("S", bound="Repository[Any]")
P = ParamSpec("P")
R = TypeVar("R")

log: Final = logging.getLogger("stemmadb.repository")

_BATCH = 1000
_MAX_BATCH = 10_000


def _query(method: Callable[Concatenate[S, Session, P], R]) -> Callable[Concatenate[S, Session, P], R]:
    """As ``query.tenant_query`` and ``query.query`` for methods: the entity says whether a workspace is needed."""

    @functools.wraps(method)
    def wrapped(self: S, session: Session, *args: P.args, **kwargs: P.kwargs) -> R:
        with translated():
            guard(session, self.entity, f"Repository({self.entity.__name__}).{method.__name__}")
            return method(self, session, *args, **kwargs)

    return cast("Callable[Concatenate[S, Session, P], R]", wrapped)


class Repository(Generic[T]):
    """
    The rows of one entity.

    For a tenant entity every call needs a session with a workspace, and sees its rows only. Rows that were soft-deleted are left out of
    every call but ``restore``, ``delete`` and ``list_all(include_deleted=True)``.

    On an AsyncSession: ``await session.run_sync(notes.get, key)``, or once ``get_note = aio.twin(notes.get)``.

    Args:
        entity: a class with a table.
    """

    def __init__(self, entity: type[T]) -> None:
        self.entity = entity
        self._key = RowKey(entity)
        self._criteria = Criteria(entity)

    def __repr__(self) -> str:
        return f"Repository({self.entity.__name__})"

    # ------------------------------------------------------------------------------------------------------------- reading

    @_query
    def get(self, session: Session, key: Key) -> T:
        """
        Return the row with this key. One statement.

        Raises:
            NotFoundError: there is none, or it is deleted. A malformed key counts as one that no row has.
        """
        return self._required(self._find(session, key), key)

    @_query
    def find(self, session: Session, key: Key) -> T | None:
        """Return the row with this key, or None. One statement."""
        return self._find(session, key)

    @_query
    def get_many(self, session: Session, keys: Iterable[Key], *, on_invalid: OnInvalid = "raise") -> list[T]:
        """
        Return the rows with these keys, in the order given; keys without a row are left out. One statement for each 1,000 keys.

        ``on_invalid`` is as for list_all.
        """
        wanted = [values for values in map(self._key.parse, keys) if values is not None]
        found: dict[tuple[Any, ...], T] = {}
        for start in range(0, len(wanted), _BATCH):
            batch = wanted[start : start + _BATCH]
            log.debug("reading %s %s", len(batch), self.entity.__name__)
            values = [key[0] for key in batch] if len(self._key.columns) == 1 else batch
            found.update((self._key.of(row), row) for row in fetch(session, self._by_keys, {"keys": values}, on_invalid))
        return [found[key] for key in wanted if key in found]

    @_query
    def list_all(
        self,
        session: Session,
        *,
        filters: Filters | None = None,
        sort: Sequence[str] = (),
        fields: Sequence[str] = (),
        include_deleted: bool = False,
        cursor: str | None = None,
        limit: int = 50,
        with_total: bool = False,
        on_invalid: OnInvalid = "raise",
    ) -> Page[T]:
        """
        Return one page of rows. One statement.

        Args:
            session: the caller's session.
            filters: which rows; see ``Filters``. At most 1,000 terms, each value of an ``in`` counted.
            sort: field names, with a leading ``-`` downwards; the key is added. Newest first when empty.
            fields: the columns to fetch beside the key, documents among them; the others raise when they are read. All columns but the
                deferred ones when empty.
            include_deleted: whether deleted rows are in the list.
            cursor: ``next_cursor`` of the page before, with the same filters, sort and fields; None for the first page.
            limit: the most rows, 1 to 200.
            with_total: also count all rows, in the same snapshot.
            on_invalid: whether a row whose documents cannot be read refuses the page ("raise"), is left out ("skip"), or comes with a
                RawDocument in the document's place ("raw").

        Raises:
            DocumentError: a document cannot be read and on_invalid is "raise".
            UnknownFieldError: a name that the entity does not offer for this; nothing was sent.
            InvalidCursorError: the cursor was edited, or is of another list.
            ValidationError: an unknown operator, a value that the field cannot have, or a limit out of bounds; nothing was sent.
        """
        statement = select(self.entity).where(*self._criteria.conditions(filters), *([] if include_deleted else self._live))
        if fields:
            # What optimistic locking compares is always there, so that a row of the page can be changed and saved.
            version = [self.entity.version] if issubclass(self.entity, Versioned) else []
            statement = statement.options(load_only(*self._key.columns, *version, *self._criteria.fetched(fields), raiseload=True))
        order = self._criteria.order(sort or ["-created_at"])
        return page(session, statement, order_by=order, cursor=cursor, limit=limit, with_total=with_total, on_invalid=on_invalid)

    @_query
    def exists(self, session: Session, key: Key) -> bool:
        """Return whether there is a row with this key. One statement that reads no row."""
        values = self._key.parse(key)
        return values is not None and session.scalar(self._key_by_key, dict(zip(self._names, values, strict=True))) is not None

    @_query
    def count(self, session: Session, *, filters: Filters | None = None) -> int:
        """
        Return how many rows there are. A scan of them, unless an index answers the filters.

        Raises:
            UnknownFieldError, ValidationError: as list_all.
        """
        statement = select(func.count()).select_from(self.entity).where(*self._criteria.conditions(filters), *self._live)
        return session.scalars(statement).one()

    @_query
    def iter_all(
        self, session: Session, *, filters: Filters | None = None, batch: int = 500, on_invalid: OnInvalid = "raise"
    ) -> Iterator[T]:
        """
        Yield rows by key, from a server-side cursor in constant memory.

        The rows are those of one snapshot. The iteration ends with an error when the transaction is over.

        Args:
            session: the caller's session; the cursor lives in its transaction.
            filters: which rows; see ``Filters``.
            batch: how many rows each round trip fetches, 1 to 10,000.
            on_invalid: as for list_all.

        Raises:
            UnknownFieldError, ValidationError: as list_all, at the call.
        """
        if isinstance(batch, bool) or not isinstance(batch, int) or not 1 <= batch <= _MAX_BATCH:
            raise ValidationError(f"batch must be a whole number from 1 to {_MAX_BATCH:,}", "batch")
        check_on_invalid(on_invalid)
        statement = select(self.entity).where(*self._criteria.conditions(filters), *self._live).order_by(*self._key.columns)
        return stream(session, statement, batch, on_invalid)

    # ------------------------------------------------------------------------------------------------------------- writing

    @_query
    def create(self, session: Session, data: Mapping[str, Any]) -> T:
        """
        Insert a row. One statement.

        Raises:
            ConflictError: a row with the same unique values exists; ``fields`` names them.
            ForeignKeyError: a row that it refers to does not exist.
            UnknownFieldError: a name that is no column.
            ValidationError: a value that the column cannot have; nothing was sent.
        """
        row = writes.made(self.entity, data)
        session.add(row)
        session.flush()
        log.info("%s %s created", self.entity.__name__, self._key.text(row))
        return row

    @_query
    def create_many(self, session: Session, items: Iterable[Mapping[str, Any]]) -> list[T]:
        """
        Insert rows: all or none. One statement for each 1,000.

        Runs in a savepoint, so that a refused call leaves the transaction usable.

        Returns:
            The rows in the order given.

        Raises:
            ConflictError, ForeignKeyError, UnknownFieldError, ValidationError: as create.
        """
        rows = [writes.made(self.entity, data) for data in items]
        if rows:
            with session.begin_nested():
                session.add_all(rows)
        log.info("%s %s created", len(rows), self.entity.__name__)
        return rows

    @_query
    def update(self, session: Session, key: Key, data: Mapping[str, Any], *, expected_version: int | None = None) -> T:
        """
        Change a row; fields that ``data`` does not name stay. One statement; a second one tells why nothing was changed.

        An object that the session has for the row shows the new values. Deferred columns are then to be fetched again.

        Args:
            session: the caller's session.
            key: which row.
            data: field -> new value. The key, the times and the version are not among the fields.
            expected_version: the version that the caller read; None changes the row whatever its version is.

        Raises:
            NotFoundError: there is no such row, or it is deleted.
            VersionConflictError: somebody saved the row since.
            UnknownSchemaVersionError: a newer release wrote a document that ``data`` would replace.
            ConflictError, ForeignKeyError, UnknownFieldError, ValidationError: as create.
        """
        changes = writes.changes(self.entity, data, self._key.names)
        where = [*self._is(key), *self._live]
        guards = [*writes.document_guards(self.entity, changes), *writes.version_guards(self.entity, expected_version)]
        if not changes:
            found = session.scalars(select(self.entity).where(*where, *guards)).one_or_none()
        else:
            log.debug("updating %s %s", self.entity.__name__, key)
            statement = update(self.entity).where(*where, *guards).values(**changes, **writes.next_version(self.entity))
            found = session.scalars(statement.returning(self.entity), execution_options=writes.FRESH).one_or_none()
        if found is None:
            raise writes.refusal(session, self.entity, where, key, changes, expected_version)
        return found

    @_query
    def upsert(self, session: Session, data: Mapping[str, Any], *, on: Sequence[str]) -> T:
        """
        Insert a row, or change the one that has the same values of ``on``. One statement; of concurrent callers none fails.

        Args:
            session: the caller's session.
            data: the values. Of a row that exists, the key, the times and what ``data`` does not name stay.
            on: the columns of a unique key, without the workspace.

        Raises:
            UnknownSchemaVersionError: a newer release wrote a document that ``data`` would replace.
            ValidationError: no unique key has exactly the columns of ``on``.
            ConflictError, ForeignKeyError, UnknownFieldError: as create.
        """
        row = writes.made(self.entity, data)
        on = [on] if isinstance(on, str) else on
        statement = writes.upsert(session, row, data.keys(), on)
        found = session.scalars(statement.returning(self.entity), execution_options={"populate_existing": True}).one_or_none()
        if found is None:
            same = [getattr(self.entity, name) == getattr(row, name) for name in on]
            raise writes.refusal(session, self.entity, same, tuple(getattr(row, name) for name in on), data.keys(), None)
        log.info("%s %s saved", self.entity.__name__, self._key.text(found))
        return found

    @_query
    def delete(self, session: Session, key: Key) -> None:
        """
        Remove a row, deleted or not, for good. One statement.

        Raises:
            NotFoundError: there is no such row.
            StillReferencedError: rows of other tables refer to it; ``by`` names them.
        """
        statement = delete(self.entity).where(*self._is(key))
        if cast("CursorResult[Any]", session.execute(statement)).rowcount == 0:
            raise self._missing(key)
        log.info("%s %s deleted", self.entity.__name__, key)

    @_query
    def soft_delete(self, session: Session, key: Key) -> T:
        """
        Hide a row, at the time of the database. One statement.

        Raises:
            NotFoundError: there is no such row, or it is deleted already.
            ValidationError: rows of this entity cannot be hidden; nothing was sent.
        """
        row = self._set_deleted(session, key, deleted=True)
        if row is None:
            raise self._missing(key)
        log.info("%s %s soft-deleted", self.entity.__name__, key)
        return row

    @_query
    def restore(self, session: Session, key: Key) -> T:
        """
        Show a hidden row again; a live one is returned as it is. One statement, two for a live one.

        Raises:
            ConflictError: a live row has taken a value that must be unique.
            NotFoundError: there is no such row.
            ValidationError: rows of this entity cannot be hidden; nothing was sent.
        """
        row = self._set_deleted(session, key, deleted=False)
        if row is None:
            return self._required(self._find(session, key), key)
        log.info("%s %s restored", self.entity.__name__, key)
        return row

    # ---------------------------------------------------------------------------------------------------------- statements

    @functools.cached_property
    def _by_key(self) -> Select[Any]:
        parameters: tuple[Any, ...] = tuple(bindparam(name) for name in self._names)
        return select(self.entity).where(*self._key.equals(parameters), *self._live)

    @functools.cached_property
    def _key_by_key(self) -> Select[Any]:
        return self._by_key.with_only_columns(self._key.columns[0])

    @functools.cached_property
    def _by_keys(self) -> Select[Any]:
        columns = self._key.columns
        if len(columns) == 1:
            condition = columns[0] == any_(bindparam("keys", type_=ARRAY(columns[0].type)))
        else:
            condition = tuple_(*columns).in_(bindparam("keys", expanding=True))
        return select(self.entity).where(condition, *self._live)

    @functools.cached_property
    def _names(self) -> list[str]:
        return [f"key_{name}" for name in self._key.names]

    @functools.cached_property
    def _live(self) -> list[ColumnElement[bool]]:
        return [self.entity.deleted_at.is_(None)] if issubclass(self.entity, SoftDelete) else []

    def _is(self, key: Key) -> list[ColumnElement[bool]]:
        values = self._key.parse(key)
        if values is None:
            raise self._missing(key)
        return self._key.equals(values)

    def _find(self, session: Session, key: Key) -> T | None:
        log.debug("reading %s %s", self.entity.__name__, key)
        values = self._key.parse(key)
        return None if values is None else session.scalars(self._by_key, dict(zip(self._names, values, strict=True))).one_or_none()

    def _required(self, row: T | None, key: Key) -> T:
        if row is None:
            raise self._missing(key)
        return row

    def _missing(self, key: Key) -> NotFoundError:
        log.warning("%s %s was not found", self.entity.__name__, key)
        return NotFoundError(self.entity.__name__, key)

    def _set_deleted(self, session: Session, key: Key, *, deleted: bool) -> T | None:
        """Hide a row that is live, or show one that is hidden; None when there is no such row."""
        if not issubclass(self.entity, SoftDelete):
            raise ValidationError(f"{self.entity.__name__} has no deleted_at: its rows are deleted, not hidden")
        deleted_at: Any = self.entity.deleted_at
        where = [*self._is(key), deleted_at.is_(None) if deleted else deleted_at.is_not(None)]
        values = {"deleted_at": func.now() if deleted else None, **writes.next_version(self.entity)}
        statement = update(self.entity).where(*where).values(values).returning(self.entity)
        return session.scalars(statement, execution_options=writes.FRESH).one_or_none()
