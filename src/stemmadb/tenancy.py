"""
The workspace of a session, and the first line of its defence; row-level security is the second.

The nearest wins: ``db.session(workspace=...)``, then ``with tenancy.workspace(...)``, then ``connect(workspace=...)``. A session belongs to
one workspace for its life.
"""

import functools
import re
import weakref
from collections.abc import Iterator
from typing import Any, NoReturn, cast
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Connection,
    Engine,
    Executable,
    Select,
    Table,
    TextClause,
    TextualSelect,
    Uuid,
    bindparam,
    column,
    event,
    text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import ORMExecuteState, Session, SessionTransaction, with_loader_criteria
from sqlalchemy.orm.attributes import instance_state
from sqlalchemy.orm.context import FromStatement
from sqlalchemy.orm.util import LoaderCriteriaOption
from sqlalchemy.sql import Alias, visitors

from stemmadb import _deadlines, audit
from stemmadb import _openings as openings
from stemmadb._deadlines import Deadline
from stemmadb._openings import Opening
from stemmadb._workspace_context import AllWorkspaces as AllWorkspaces
from stemmadb._workspace_context import NoWorkspace as NoWorkspace
from stemmadb._workspace_context import WorkspaceContext, current_workspace, find_current_workspace, require_name, workspace
from stemmadb._workspace_context import nearest as nearest
from stemmadb._workspace_context import outside as outside
from stemmadb.entity import WorkspaceEntity, metadata
from stemmadb.errors import ConfigurationError, NotFoundError, TenantViolationError, WorkspaceNotSetError

__all__ = ["WorkspaceContext", "workspace", "current_workspace", "find_current_workspace", "workspace_of"]

_KEY = "stemma"


# ---------------------------------------------------------------------------------------------------------- the session


def workspace_of(session: Session) -> UUID:
    """
    Return the id of the workspace that the session is bound to.

    Raises:
        WorkspaceNotSetError: it is bound to none; nothing was sent.
    """
    return require(session, "tenancy.workspace_of")


def require(session: Session, function: str) -> UUID:
    """As workspace_of, with the name of the function that needs it in the message."""
    context = session.info.get(_KEY)
    if context is None:
        context = _bind(session)
    if isinstance(context, WorkspaceContext):
        return context.workspace_id
    raise WorkspaceNotSetError(function)


def is_tenant(entity: type[Any]) -> bool:
    """Return whether rows of the entity belong to a workspace."""
    return issubclass(entity, WorkspaceEntity)


def reads_everything(session: Session) -> bool:
    """Return whether the session came from ``db.all_workspaces()``."""
    return isinstance(session.info.get(_KEY), AllWorkspaces)


_FIND_SLUG = text("SELECT id FROM stemma.workspaces WHERE slug = :slug AND deleted_at IS NULL")
_SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_MODES = "stemma_modes"
_SAVEPOINT = "stemma_savepoint"

# By their dialects, which an engine shares with what its execution_options() returns.
_known: "weakref.WeakKeyDictionary[Dialect, str | UUID | None]" = weakref.WeakKeyDictionary()


def adopt(engine: Engine, default: str | UUID | None = None) -> None:
    """Let the sessions of an engine, whoever makes them, take the workspace of the context or this one as they begin."""
    _known[engine.dialect] = default


def modes(opening: Opening) -> dict[Any, Any]:
    """Return what a session's info says about its transactions where the engine is a host's, and does not send it by itself."""
    return {_MODES: (openings.modes_of(opening), _deadlines.current())}


def connection_of(session: Session) -> Connection:
    """Return the session's connection to our tables; of several binds the one for our entities."""
    from stemmadb.infra import IdempotencyKey

    return session.connection(bind_arguments={"mapper": IdempotencyKey})


def bind_of(session: Session) -> Engine | Connection:
    """Return what the session is bound to for our tables."""
    from stemmadb.infra import IdempotencyKey

    return session.get_bind(mapper=IdempotencyKey)


def _dialect_of(session: Session) -> Dialect | None:
    """Return the dialect of the engine that has our tables; None when the session has no engine for them."""
    try:
        return (session.bind or bind_of(session)).dialect
    except SQLAlchemyError:
        return None


def _is_known(session: Session, dialect: Dialect | None) -> bool:
    """Whether the session was given a workspace, or its engine is ours or was given to ``use``."""
    return session.info.get("workspace") is not None or (dialect is not None and dialect in _known)


def _wanted(session: Session, dialect: Dialect | None) -> str | UUID | None:
    """Return the workspace that the session names, else the context, else what was given to ``use``."""
    given: str | UUID | None = session.info.get("workspace")
    return nearest(None if dialect is None else _known.get(dialect)) if given is None else given


def _bind(session: Session) -> WorkspaceContext | None:
    """Bind a session that a host made; its transaction, when one is open already, gets the setting."""
    wanted = _wanted(session, _dialect_of(session))
    if wanted is None:
        return None
    found = parse(wanted)
    if isinstance(found, UUID) and not session.in_transaction():
        return _belongs(session, found)
    with session.no_autoflush:
        connection = connection_of(session)
    # A transaction that began just now was told already.
    context = session.info.get(_KEY)
    if not isinstance(context, WorkspaceContext):
        context = _belongs(session, _resolve(connection, found))
        if session.in_nested_transaction():
            session.info[_SAVEPOINT] = connection
        _send(connection, context.workspace_id)
    return context


def _belongs(session: Session, workspace_id: UUID) -> WorkspaceContext:
    """Note which workspace the session is of, for its life; what was attached before it was known must be of it."""
    for row in session.identity_map.values():
        _require_own(row, workspace_id)
    context = session.info[_KEY] = WorkspaceContext(workspace_id)
    return context


def _resolve(connection: Connection, wanted: str | UUID) -> UUID:
    found = wanted if isinstance(wanted, UUID) else connection.scalar(_FIND_SLUG, {"slug": wanted})
    if found is None:
        raise NotFoundError("Workspace", wanted)
    return UUID(str(found))


def parse(slug_or_id: str | UUID) -> str | UUID:
    """
    Return an id as a UUID, a slug as it is.

    Raises:
        NotFoundError: no workspace can have this slug.
        ValidationError: neither a text nor a UUID.
    """
    require_name(slug_or_id)
    found = as_id(slug_or_id)
    if found is not None:
        return found
    if not _SLUG.fullmatch(str(slug_or_id)):
        raise NotFoundError("Workspace", slug_or_id)
    return slug_or_id


def as_id(slug_or_id: str | UUID) -> UUID | None:
    """Return what parses as a UUID as one; None for a slug."""
    if isinstance(slug_or_id, UUID):
        return slug_or_id
    try:
        return UUID(slug_or_id)
    except ValueError:
        return None


def _send(connection: Connection, workspace_id: UUID) -> None:
    if connection._is_autocommit_isolation():
        raise ConfigurationError("a session in a workspace cannot be in AUTOCOMMIT: its workspace is set for a transaction")
    # A literal, not set_config: Citus passes on SET LOCAL only. A UUID object cannot hold anything but hexadecimal digits.
    connection.exec_driver_sql(f"SET LOCAL stemma.workspace_id = '{workspace_id}'")


def _begin(session: Session, transaction: SessionTransaction, connection: Connection) -> None:
    """Send the workspace with a transaction that the engine's own settings did not cover: a host's, or the test fixtures' savepoint."""
    if transaction.nested or connection.dialect.name != "postgresql":
        return
    if _MODES in session.info:
        _set_modes(connection, *session.info[_MODES])
    context = session.info.get(_KEY)
    if context is None and _is_known(session, connection.dialect):
        wanted = _wanted(session, connection.dialect)
        found = None if wanted is None else parse(wanted)
        # Of several binds this one need not be the one with our tables.
        if found is not None and (session.bind is not None or isinstance(found, UUID)):
            context = _belongs(session, _resolve(connection, found))
    opening = connection.get_execution_options().get(openings.OPTION)
    if isinstance(context, WorkspaceContext) and getattr(opening, "workspace_id", None) != context.workspace_id:
        _send(connection, context.workspace_id)
    if audit.is_bound(session) or _is_known(session, connection.dialect):
        audit.begin(session, connection, getattr(opening, "actor", ""))


def _set_modes(connection: Connection, wanted: str, deadline: Deadline | None) -> None:
    """Tell a transaction on a host's engine what was asked of the Database."""
    if wanted:
        connection.exec_driver_sql(f"SET TRANSACTION{wanted}")
    if deadline is not None and not deadline.is_over:
        deadline.check()
        if hasattr(driver := openings.driver_of(connection.connection.dbapi_connection), "fileno"):
            deadline.watch(driver.fileno())
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {deadline.left_ms}")


def _back_to_savepoint(session: Session, previous: SessionTransaction) -> None:
    """Send the workspace again when it was set within a savepoint that was rolled back: PostgreSQL takes the setting back with the rest."""
    # On the connection: the session answers no calls until the block of its savepoint is left.
    connection: Connection | None = session.info.get(_SAVEPOINT) if previous.nested else None
    if connection is not None and not connection.closed and not connection.invalidated:
        _send(connection, session.info[_KEY].workspace_id)


# ---------------------------------------------------------------------------------------------- every statement, every flush


class _TenantTables:
    """
    What the criteria below are about: every entity that derives from WorkspaceEntity.

    SQLAlchemy tries a criterion on the class that it is given, then looks for that class's children. WorkspaceEntity cannot serve: an
    entity that is no table has no column attributes.
    """

    workspace_id: Any = column("workspace_id", Uuid())

    @classmethod
    def __subclasses__(cls) -> list[type[Any]]:
        return WorkspaceEntity.__subclasses__()


def _refuse() -> NoReturn:
    raise WorkspaceNotSetError("this statement")


_UNSET = with_loader_criteria(
    _TenantTables,
    lambda cls: cls.workspace_id == bindparam("stemma_workspace", callable_=_refuse, type_=Uuid()),
    include_aliases=True,
    track_closure_variables=False,
)


@functools.lru_cache(maxsize=4096)
def _criteria(workspace_id: UUID) -> LoaderCriteriaOption:
    # One option per workspace, kept: building it costs as much as a tenth of a point query.
    return with_loader_criteria(_TenantTables, lambda cls: cls.workspace_id == workspace_id, include_aliases=True)


SCOPE = "scope_workspace_id"
_GIVEN = with_loader_criteria(
    _TenantTables,
    lambda cls: cls.workspace_id == bindparam("scope_workspace_id", type_=Uuid()),
    include_aliases=True,
    track_closure_variables=False,
)


def scoped(statement: Any) -> Any:
    """Return an ORM statement on the tenant entities of the workspace that the parameter SCOPE names: a constant for all workspaces."""
    return statement.options(_GIVEN)


def narrowed(statement: Executable, workspace_id: UUID) -> Executable:
    """Return an ORM statement with the workspace, for those who compile it themselves; any other as it is."""
    if isinstance(statement, Select | CompoundSelect):
        return cast("Executable", statement.options(_criteria(workspace_id)))
    return statement


def _filter(state: ORMExecuteState) -> None:
    """Give ORM statements on tenant entities the workspace, wherever in the statement the entity stands."""
    session = state.session
    context = session.info.get(_KEY)
    if isinstance(context, AllWorkspaces) or state.is_column_load or _is_textual(state.statement):
        return
    if context is None:
        if not _is_known(session, _dialect_of(session)) and not _names_our_tables(state.statement):
            return
        context = _bind(session)
    if state.is_insert and state.bind_mapper is not None and is_tenant(state.bind_mapper.class_):
        require(session, f"insert({state.bind_mapper.class_.__name__})")
    option = _criteria(context.workspace_id) if isinstance(context, WorkspaceContext) else _UNSET
    statement: Any = state.statement.options(option)
    if state.is_update or state.is_delete:
        wrapped = isinstance(state.statement, FromStatement)
        changed: Any = statement.element if wrapped else statement
        changed = changed.where(*_joined(session, changed))
        if wrapped:
            statement.element = changed
        else:
            statement = changed
    state.statement = statement


def _is_textual(statement: Any) -> bool:
    """Whether it is SQL text, in which no criterion finds a place."""
    text_of = statement.element if isinstance(statement, FromStatement) else statement
    return isinstance(text_of, TextClause | TextualSelect)


def _names_our_tables(statement: Any) -> bool:
    """Whether a statement of a session that we know nothing of is any of our business."""
    return any(isinstance(part, Table) and part.metadata is metadata for part in visitors.iterate(statement))


def _joined(session: Session, statement: Any) -> Iterator[ColumnElement[bool]]:
    """Yield what the criteria leave out: the tenant tables that an UPDATE or DELETE names beside its own."""
    named = {part for condition in statement._where_criteria for part in condition._from_objects}
    own = getattr(statement.table, "_deannotate", lambda: statement.table)()
    for part in named - {own}:
        table = part.element if isinstance(part, Alias) else part
        if any(table is entity.__table__ for entity in _TenantTables.__subclasses__() if hasattr(entity, "__table__")):
            yield part.c.workspace_id == require(session, "this statement")


def _stamp(session: Session, _context: object, _instances: object) -> None:
    """Give new rows the workspace of the session, and refuse rows of another or a change of it."""
    for row in session.new:
        if isinstance(row, WorkspaceEntity):
            bound = require(session, f"adding a {type(row).__name__}")
            if row.__dict__.get("workspace_id") is None:
                row.workspace_id = bound
            elif row.workspace_id != bound:
                raise TenantViolationError(type(row).__name__)
    for row in (*session.dirty, *session.deleted):
        if isinstance(row, WorkspaceEntity) and row.workspace_id != require(session, f"changing a {type(row).__name__}"):
            raise TenantViolationError(type(row).__name__)


def _attach(session: Session, row: object) -> None:
    """Refuse a stored row of another workspace: whatever asks the session for it by its key would get it."""
    context = session.info.get(_KEY)
    if isinstance(context, WorkspaceContext):
        _require_own(row, context.workspace_id)


def _require_own(row: object, workspace_id: UUID) -> None:
    key = instance_state(row).key if isinstance(row, WorkspaceEntity) else None
    if key is not None and key[1][0] != workspace_id:
        raise TenantViolationError(type(row).__name__)


# On the class, so that sessions which a host makes for itself are covered too; each returns at once for a session without tenant rows.
event.listen(Session, "after_begin", _begin)
event.listen(Session, "after_soft_rollback", _back_to_savepoint)
event.listen(Session, "do_orm_execute", _filter)
event.listen(Session, "before_attach", _attach)
event.listen(Session, "before_flush", _stamp)
