"""The workspace of the context: what code that opens sessions elsewhere names, and what stands in a session's info in its place."""

import contextlib
import functools
import inspect
from collections.abc import Callable
from contextvars import ContextVar, Token
from dataclasses import dataclass
from typing import Any, TypeVar, cast
from uuid import UUID

from stemmadb.errors import ValidationError, WorkspaceNotSetError

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class WorkspaceContext:
    """The workspace that a session is bound to: ``session.info["stemma"]``."""

    workspace_id: UUID

    @property
    def tenant_id(self) -> UUID:
        """The same id, under the name that other designs use."""
        return self.workspace_id


RECORD_OF_READING = """
    INSERT INTO stemma.audit_logs (user_id, actor_type, action, entity, entity_id, after, ip_address, user_agent)
    SELECT (SELECT users.id FROM stemma.users WHERE users.id = CAST(actor ->> 'user_id' AS uuid)),
           CAST(coalesce(actor ->> 'type', 'SYSTEM') AS stemma.actor_type), 'ALL_WORKSPACES', 'workspaces', '*',
           jsonb_build_object('schema_version', 1, 'table', 'workspaces',
                              'data', jsonb_build_object('reason', CAST(:reason AS text)), 'changed', '[]'::jsonb),
           CAST(actor ->> 'ip_address' AS inet), actor ->> 'user_agent'
      FROM stemma.stemma_actor() AS actor
"""
"""What audit_logs keeps of a session that reads across workspaces."""


@dataclass(frozen=True, slots=True)
class AllWorkspaces:
    """In the place of a workspace: the session reads across all of them, as stemma_maintenance."""

    reason: str


@dataclass(frozen=True, slots=True)
class NoWorkspace:
    """In the place of a workspace: the session was opened without one, and keeps having none."""


_current: ContextVar[str | UUID | NoWorkspace | None] = ContextVar("stemmadb_workspace", default=None)


class _InWorkspace(contextlib.ContextDecorator, contextlib.AbstractContextManager[None]):
    """The context that ``workspace`` gives, also around functions."""

    def __init__(self, wanted: str | UUID | NoWorkspace) -> None:
        self._wanted = wanted
        self._tokens: list[Token[str | UUID | NoWorkspace | None]] = []

    def __enter__(self) -> None:
        self._tokens.append(_current.set(self._wanted))

    def __exit__(self, *_error: object) -> None:
        _current.reset(self._tokens.pop())

    def __call__(self, fn: F) -> F:
        """Let the function run in the workspace as a whole, a coroutine function to its last await."""
        if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
            raise TypeError(f"{fn.__qualname__} yields, and what is set for it would hold for whoever iterates: use `with` inside of it")
        if inspect.iscoroutinefunction(fn):

            async def awaited(*args: Any, **kwargs: Any) -> Any:
                with _InWorkspace(self._wanted):
                    return await fn(*args, **kwargs)

            return cast("F", functools.wraps(fn)(awaited))

        def called(*args: Any, **kwargs: Any) -> Any:
            with _InWorkspace(self._wanted):
                return fn(*args, **kwargs)

        return cast("F", functools.wraps(fn)(called))


def workspace(slug_or_id: str | UUID) -> _InWorkspace:
    """
    Name the workspace of the sessions opened inside; for code that opens its sessions elsewhere.

    A context manager and a decorator, of coroutine functions too. Nests; the outer one is back afterwards. Tasks and copied contexts
    inherit it, other threads do not.

    Raises:
        ValidationError: neither a text nor a UUID.

    Example:
        >>> with workspace("trolley-lab"):
        ...     current_workspace()
        'trolley-lab'
    """
    require_name(slug_or_id)
    return _InWorkspace(slug_or_id)


def outside() -> _InWorkspace:
    """Let sessions opened inside have no workspace unless they are given one: for work on tables that belong to none."""
    return _InWorkspace(NoWorkspace())


def nearest(default: str | UUID | None) -> str | UUID | None:
    """Return the workspace of the context, else the default."""
    value = _current.get()
    if isinstance(value, NoWorkspace):
        return None
    return default if value is None else value


def current_workspace() -> str | UUID:
    """
    Return the workspace of the context, as it was given.

    Raises:
        WorkspaceNotSetError: there is none.
    """
    value = find_current_workspace()
    if value is None:
        raise WorkspaceNotSetError("tenancy.current_workspace")
    return value


def find_current_workspace() -> str | UUID | None:
    """Return the workspace of the context as it was given, or None."""
    return nearest(None)


def require_name(slug_or_id: object) -> None:
    """
    Raise for what can be no name of a workspace.

    Raises:
        ValidationError: neither a text nor a UUID.
    """
    if not isinstance(slug_or_id, str | UUID):
        raise ValidationError("a workspace is named by its slug or its id", field="workspace")
