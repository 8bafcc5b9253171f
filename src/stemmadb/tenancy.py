"""
The workspace of a session, and the first line of its defence; row-level security is the second.

The nearest wins: ``db.session(workspace=...)``, then ``with tenancy.workspace(...)``, then ``connect(workspace=...)``. A session belongs to
one workspace for its life.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NoReturn
from uuid import UUID

from sqlalchemy import Connection, Uuid, bindparam, column, event, text
from sqlalchemy.orm import ORMExecuteState, Session, SessionTransaction, with_loader_criteria
from sqlalchemy.orm.context import FromStatement
from sqlalchemy.orm.util import LoaderCriteriaOption

from stemmadb.entity import WorkspaceEntity
from stemmadb.errors import NotFoundError, TenantViolationError, WorkspaceNotSetError

__all__ = ["WorkspaceContext", "workspace", "current_workspace", "find_current_workspace", "workspace_of"]

_KEY = "stemma"

_current: ContextVar[str | UUID | None] = ContextVar("stemmadb_workspace", default=None)


@dataclass(frozen=True, slots=True)
class WorkspaceContext:
    """The workspace that a session is bound to: ``session.info["stemma"]``."""

    workspace_id: UUID

    @property
    def tenant_id(self) -> UUID:
        """The same id, under the name that other designs use."""
        return self.workspace_id


@dataclass(frozen=True, slots=True)
class AllWorkspaces:
    """In the place of a workspace: the session reads across all of them, as stemma_maintenance."""

    reason: str


@dataclass(frozen=True, slots=True)
class NoWorkspace:
    """In the place of a workspace: the session was opened without one, and keeps having none."""


# ---------------------------------------------------------------------------------------------------------- the context


@contextlib.contextmanager
def workspace(slug_or_id: str | UUID) -> Iterator[None]:
    """
    Name the workspace of the sessions opened inside; for code that opens its sessions elsewhere.

    A context manager and a decorator. Nests; the outer one is back afterwards. Tasks and copied contexts inherit it, other threads do not.

    Example:
        >>> with workspace("trolley-lab"):
        ...     current_workspace()
        'trolley-lab'
    """
    token = _current.set(slug_or_id)
    try:
        yield
    finally:
        _current.reset(token)


def current_workspace() -> str | UUID:
    """
    Return the workspace of the context, as it was given.

    Raises:
        WorkspaceNotSetError: there is none.
    """
    value = _current.get()
    if value is None:
        raise WorkspaceNotSetError("tenancy.current_workspace")
    return value


def find_current_workspace() -> str | UUID | None:
    """Return the workspace of the context as it was given, or None."""
    return _current.get()


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


Default = Callable[[Session], "str | UUID | None"]
_defaults: list[Default] = []
_FIND_SLUG = text("SELECT id FROM stemma.workspaces WHERE slug = :slug AND deleted_at IS NULL")


def add_default(default: Default) -> None:
    """Register where a foreign session's workspace may come from when neither it nor the context names one."""
    _defaults.append(default)


def _bind(session: Session) -> WorkspaceContext | None:
    """Bind a session that a host made; its transaction, when one is open already, gets the setting."""
    wanted = session.info.get("workspace") or _current.get()
    for default in _defaults:
        wanted = wanted or default(session)
    if wanted is None:
        return None
    running = session.in_transaction()
    context = session.info[_KEY] = WorkspaceContext(_resolve(session, wanted))
    if running:
        _send(session.connection(), context.workspace_id)
    return context


def _resolve(session: Session, wanted: str | UUID) -> UUID:
    found = as_id(wanted)
    if found is None:
        with session.no_autoflush:
            found = session.connection().scalar(_FIND_SLUG, {"slug": wanted})
    if found is None:
        raise NotFoundError("Workspace", wanted)
    return found


def as_id(slug_or_id: str | UUID) -> UUID | None:
    """Return what parses as a UUID as one; None for a slug."""
    if isinstance(slug_or_id, UUID):
        return slug_or_id
    try:
        return UUID(slug_or_id)
    except ValueError:
        return None


def _send(connection: Connection, workspace_id: UUID) -> None:
    # A literal, not set_config: Citus passes on SET LOCAL only. A UUID object cannot hold anything but hexadecimal digits.
    connection.exec_driver_sql(f"SET LOCAL stemma.workspace_id = '{workspace_id}'")


def _begin(session: Session, transaction: SessionTransaction, connection: Connection) -> None:
    """Send the workspace with a transaction that the engine's own settings did not cover: a host's, or the test fixtures' savepoint."""
    if transaction.nested:
        return
    context = session.info.get(_KEY)
    if context is None and (session.info.get("workspace") or _current.get() or _defaults):
        wanted = session.info.get("workspace") or _current.get()
        for default in _defaults:
            wanted = wanted or default(session)
        if wanted is not None:
            found = as_id(wanted) or connection.scalar(_FIND_SLUG, {"slug": wanted})
            if found is None:
                raise NotFoundError("Workspace", wanted)
            context = session.info[_KEY] = WorkspaceContext(found)
    if (
        isinstance(context, WorkspaceContext)
        and getattr(connection.get_execution_options().get(_KEY), "workspace_id", None) != context.workspace_id
    ):
        _send(connection, context.workspace_id)


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


def _filter(state: ORMExecuteState) -> None:
    """Give ORM statements on tenant entities the workspace, wherever in the statement the entity stands."""
    session = state.session
    context = session.info.get(_KEY)
    if isinstance(context, AllWorkspaces) or isinstance(state.statement, FromStatement) or state.is_column_load:
        return
    if state.is_insert:
        if state.bind_mapper is not None and is_tenant(state.bind_mapper.class_):
            require(session, f"insert({state.bind_mapper.class_.__name__})")
        return
    if context is None:
        context = _bind(session)
    option = _criteria(context.workspace_id) if isinstance(context, WorkspaceContext) else _UNSET
    state.statement = state.statement.options(option)


def _stamp(session: Session, _context: object, _instances: object) -> None:
    """Give new rows the workspace of the session, and refuse rows of another or a change of it."""
    for row in session.new:
        if isinstance(row, WorkspaceEntity):
            bound = require(session, f"adding a {type(row).__name__}")
            if row.__dict__.get("workspace_id") is None:
                row.workspace_id = bound
            elif row.workspace_id != bound:
                raise TenantViolationError(f"a {type(row).__name__} of another workspace cannot be added to this session")
    for row in session.dirty:
        if isinstance(row, WorkspaceEntity) and row.workspace_id != require(session, f"changing a {type(row).__name__}"):
            raise TenantViolationError(f"a {type(row).__name__} cannot be moved to another workspace")


# On the class, so that sessions which a host makes for itself are covered too; each returns at once for a session without tenant rows.
event.listen(Session, "after_begin", _begin)
event.listen(Session, "do_orm_execute", _filter)
event.listen(Session, "before_flush", _stamp)
