"""What every query function shares: the workspace asked for before anything is sent, typed errors, statements as constants."""

import contextlib
import functools
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType, NoneType
from typing import Any, ClassVar, Concatenate, Generic, NamedTuple, ParamSpec, TypeVar, cast, get_args, get_type_hints
from uuid import UUID

import psycopg
from sqlalchemy import Column, CursorResult, Row, Select, TextClause, TextualSelect, bindparam, select, text
from sqlalchemy import column as named_column
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, undefer
from sqlalchemy.orm.attributes import set_committed_value
from sqlalchemy.orm.util import identity_key
from sqlalchemy.types import TypeEngine

from stemmadb import tenancy
from stemmadb._direct import DirectStatement
from stemmadb._instances import Loader
from stemmadb._sqlstates import translate
from stemmadb.documents import DocumentColumn
from stemmadb.entity import Entity

__all__ = [
    "query",
    "tenant_query",
    "sql",
    "sql_rows",
    "sql_tuples",
    "EntityStatement",
    "RowStatement",
    "TupleStatement",
    "AnySelect",
    "read",
    "guard",
    "translated",
]

P = ParamSpec("P")
R = TypeVar("R")
E = TypeVar("E", bound=Entity)
T = TypeVar("T", bound=NamedTuple)

AnySelect = Select[*tuple[Any, ...]]
"""A SELECT of any number of columns or entities."""

# A lone surrogate in a parameter is refused by the codec, before psycopg has a name for it.
_FOREIGN = (SQLAlchemyError, psycopg.Error, UnicodeEncodeError)
# An object that the session holds already takes the values that the statement returned.
_FRESH = {"populate_existing": True}
# What the driver makes of them is the same in both of PostgreSQL's formats.
_NATIVE = {UUID, str, int, float, bool, bytes, datetime, NoneType}


def query(fn: Callable[Concatenate[Session, P], R], /) -> Callable[Concatenate[Session, P], R]:
    """Mark a query function that needs no workspace; whatever it raises is a StemmaError."""
    return _wrap(fn, tenant=False)


def tenant_query(fn: Callable[Concatenate[Session, P], R], /) -> Callable[Concatenate[Session, P], R]:
    """Mark a query function of a workspace: WorkspaceNotSetError before any statement when the session has none."""
    return _wrap(fn, tenant=True)


def _wrap(fn: Callable[Concatenate[Session, P], R], *, tenant: bool) -> Callable[Concatenate[Session, P], R]:
    def answer(session: Session, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            if tenant:
                tenancy.require(session, _name_of(made))
            return fn(session, *args, **kwargs)
        except _FOREIGN as error:
            # Their texts hold parameters and rows, secrets among them: the cause is not printed with ours.
            raise translate(error) from None

    def stream(session: Session, /, *args: P.args, **kwargs: P.kwargs) -> Any:
        if tenant:
            with translated():
                tenancy.require(session, _name_of(made))
        return _stream(cast("Iterator[Any]", fn(session, *args, **kwargs)))

    made: Any = functools.wraps(fn)(stream if inspect.isgeneratorfunction(fn) else answer)
    made.__stemma_query__ = "tenant" if tenant else "global"
    return cast("Callable[Concatenate[Session, P], R]", made)


def _name_of(fn: Any) -> str:
    # Asked for with each call: a function of a private module gets the name of the module that callers import only after it is made.
    return f"{fn.__module__.removeprefix('stemmadb.')}.{fn.__name__}"


def _stream(rows: Iterator[R]) -> Iterator[R]:
    with contextlib.closing(cast("Any", rows)), translated():
        yield from rows


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turn what SQLAlchemy and psycopg raise inside the block into StemmaErrors."""
    try:
        yield
    except _FOREIGN as error:
        raise translate(error) from None


def guard(session: Session, entity: type[Entity], function: str) -> None:
    """
    Ask for the session's workspace when the entity belongs to one.

    Raises:
        WorkspaceNotSetError: the session has none; nothing was sent. The message names ``function``.
    """
    if tenancy.is_tenant(entity):
        tenancy.require(session, function)


class _Reading:
    """How one row of an entity is read by its id; made once per entity."""

    _made: ClassVar[dict[type[Entity], "_Reading"]] = {}

    def __init__(self, entity: type[Entity]) -> None:
        self.columns = _fetched(entity)
        self.entity: AnySelect = select(entity).where(entity.id == bindparam("id"))
        self.values: AnySelect = select(*(getattr(entity, column.key) for column in self.columns)).where(entity.id == bindparam("id"))

    @classmethod
    def of(cls, entity: type[Entity]) -> "_Reading":
        found = cls._made.get(entity)
        if found is None:
            found = cls._made[entity] = cls(entity)
        return found


def read(session: Session, entity: type[E], id: UUID) -> E | None:
    """
    Return the entity of this id as the database has it now, or None. One statement.

    An object that the session holds already is brought up to date, but for its deferred columns, which stay as they were fetched.
    """
    reading = _Reading.of(entity)
    key: Any = (tenancy.workspace_of(session), id) if tenancy.is_tenant(entity) else id
    held = session.identity_map.get(identity_key(entity, key))
    if held is None:
        return cast("E | None", session.scalars(reading.entity, {"id": id}).one_or_none())
    session.flush()
    row = session.execute(reading.values, {"id": id}).one_or_none()
    if row is None:
        # Deleted meanwhile, by SQL that the session did not see.
        session.expunge(held)
        return None
    # Not session.refresh(): that forgets the values first, also of a row that turns out to be gone.
    for column, value in zip(reading.columns, row, strict=True):
        set_committed_value(held, column.key, value)
    return held


class _Statement:
    """SQL text that fills in the session's workspace where it asks for one."""

    def __init__(self, statement: str) -> None:
        self._tenant = ":workspace_id" in statement

    def _parameters(self, session: Session, parameters: dict[str, Any]) -> dict[str, Any]:
        if self._tenant and "workspace_id" not in parameters:
            parameters["workspace_id"] = tenancy.workspace_of(session)
        if session.autoflush:
            # SQLAlchemy flushes by itself before ORM statements only: what was added must be there for SQL text as well.
            session.flush()
        return parameters


class RowStatement(_Statement):
    """An SQL constant that yields plain rows, or none."""

    def __init__(self, statement: str) -> None:
        super().__init__(statement)
        self.text: TextClause = text(statement)

    def all(self, session: Session, **parameters: Any) -> Sequence[Row[Any]]:
        """Return every row."""
        return self._execute(session, parameters).all()

    def first(self, session: Session, **parameters: Any) -> Row[Any] | None:
        """Return the first row, or None."""
        return self._execute(session, parameters).first()

    def scalar(self, session: Session, **parameters: Any) -> Any:
        """Return the first column of the first row, or None."""
        return self._execute(session, parameters).scalar()

    def run(self, session: Session, **parameters: Any) -> int:
        """Execute, and return the number of rows that changed."""
        return self._execute(session, parameters).rowcount

    def _execute(self, session: Session, parameters: dict[str, Any]) -> CursorResult[Any]:
        filled = self._parameters(session, parameters)
        # On the connection: what a session does around statements is about entities, and costs half as much as the statement itself.
        return tenancy.connection_of(session).execute(self.text, filled)


class TupleStatement(_Statement, Generic[T]):
    """An SQL constant whose rows are named tuples, executed past what SQLAlchemy does around statements."""

    def __init__(self, row: type[T], statement: str) -> None:
        super().__init__(statement)
        self._make = row._make
        hints = get_type_hints(row).values()
        self.text: TextClause = text(statement)
        self._direct = DirectStatement(self.text, is_binary=all(_NATIVE.issuperset(get_args(hint) or (hint,)) for hint in hints))

    def all(self, session: Session, **parameters: object) -> list[T]:
        """Return every row."""
        filled = self._parameters(session, parameters)
        return [self._make(row) for row in self._direct.fetch(tenancy.connection_of(session), filled)]

    def first(self, session: Session, **parameters: object) -> T | None:
        """Return the first row, or None. Every row is fetched: for statements that find one."""
        return next(iter(self.all(session, **parameters)), None)


class EntityStatement(_Statement, Generic[E]):
    """An SQL constant whose rows are entities, attached to the session."""

    def __init__(
        self,
        entity: type[E],
        statement: str,
        alias: str | None = None,
        undefer: Collection[str] = (),
        beside: Mapping[str, TypeEngine[Any]] = MappingProxyType({}),
    ) -> None:
        super().__init__(statement)
        self.entity = entity
        self._source = statement
        self._alias = alias
        self._undefer = undefer
        self._beside: list[Any] = [named_column(name, type) for name, type in beside.items()]

    @functools.cached_property
    def _text(self) -> TextualSelect:
        """The statement as it is sent; built on first use, when the mappers are complete."""
        prefix = self._alias or self.entity.__table__.name
        rendered = ", ".join(_rendered(prefix, column) for column in self._columns)
        return text(self._source.replace("{columns}", rendered)).columns(*self._columns, *self._beside)

    @functools.cached_property
    def select(self) -> Select[Any]:
        """The statement as SQLAlchemy's own loading runs it."""
        undeferred = [undefer(getattr(self.entity, name)) for name in self._undefer]
        return cast("Select[Any]", select(self.entity, *self._beside).from_statement(self._text).options(*undeferred))

    @functools.cached_property
    def _columns(self) -> list[Column[Any]]:
        return [*_fetched(self.entity), *(self.entity.__table__.columns[name] for name in self._undefer)]

    @functools.cached_property
    def _direct(self) -> DirectStatement:
        return DirectStatement(self._text, [*self._columns, *self._beside])

    @functools.cached_property
    def _loader(self) -> Loader[E]:
        return Loader(self.entity, self._columns)

    def all(self, session: Session, **parameters: Any) -> list[E]:
        """Return every entity, in the statement's order. An object that the session has already stays as it is."""
        return self._load(session, parameters, fresh=False)

    def one_or_none(self, session: Session, **parameters: Any) -> E | None:
        """Return the first entity, or None. An object that the session has already stays as it is."""
        return next(iter(self._load(session, parameters, fresh=False)), None)

    def write(self, session: Session, **parameters: Any) -> E | None:
        """Execute an INSERT, UPDATE or DELETE with RETURNING, and return the entity as it is now, or None when no row was touched."""
        return next(iter(self._load(session, parameters, fresh=True)), None)

    def write_all(self, session: Session, **parameters: Any) -> list[E]:
        """As write, for every row, in the statement's order."""
        return self._load(session, parameters, fresh=True)

    def pairs(self, session: Session, **parameters: Any) -> list[tuple[E, Sequence[Any]]]:
        """Return every entity as it is now, with the values of ``beside`` in their order. The key of no row is NULL."""
        filled = self._parameters(session, parameters)
        if self._loader.is_watched(session):
            return [(row[0], row[1:]) for row in session.execute(self.select, filled, execution_options=_FRESH)]
        connection = session.connection(bind_arguments={"mapper": self.entity})
        rows = self._direct.fetch(connection, filled)
        width = len(self._columns)
        return [(entity, row[width:]) for entity, row in zip(self._loader.load(session, rows, fresh=True), rows, strict=True)]

    def _load(self, session: Session, parameters: dict[str, Any], *, fresh: bool) -> list[E]:
        filled = self._parameters(session, parameters)
        if self._loader.is_watched(session):
            return list(session.scalars(self.select, filled, execution_options=_FRESH if fresh else {}))
        connection = session.connection(bind_arguments={"mapper": self.entity})
        return self._loader.load(session, self._direct.fetch(connection, filled), fresh=fresh)


def _fetched(entity: type[Entity]) -> list[Column[Any]]:
    """Return the columns that are not deferred."""
    return [column for column in entity.__table__.columns if not column.info.get("deferred")]


def _rendered(prefix: str, column: Column[Any]) -> str:
    """Return a column as SQL; a document as text, which it is parsed from."""
    name = f"{prefix}.{column.name}"
    return f"CAST({name} AS text) AS {column.name}" if isinstance(column.type, DocumentColumn) else name


def sql(
    entity: type[E],
    statement: str,
    alias: str | None = None,
    *,
    undefer: Collection[str] = (),
    beside: Mapping[str, TypeEngine[Any]] = MappingProxyType({}),
) -> EntityStatement[E]:
    """
    Make a constant from SQL text that yields entities.

    ``{columns}`` becomes the columns that are not deferred, and those of ``undefer``, each under ``alias`` or the table's name.
    ``:workspace_id`` fills itself in. ``beside`` names what else the statement selects, behind the columns, with its types.
    """
    return EntityStatement(entity, statement, alias, undefer, beside)


def sql_rows(statement: str) -> RowStatement:
    """Make a constant from SQL text that yields plain rows. ``:workspace_id`` fills itself in."""
    return RowStatement(statement)


def sql_tuples(row: type[T], statement: str) -> TupleStatement[T]:
    """
    Make a constant from SQL text that yields named tuples, for what is read often: it costs half as much as plain rows.

    ``row`` is a NamedTuple of the statement's columns in their order, with the types that psycopg makes of them; an enum is cast to text.
    ``:workspace_id`` fills itself in.
    """
    return TupleStatement(row, statement)
