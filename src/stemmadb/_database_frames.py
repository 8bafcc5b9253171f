"""The part of a Database that reads frames."""

import contextlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast, overload
from uuid import UUID

from sqlalchemy import Executable
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.util.concurrency import greenlet_spawn

from stemmadb import _frames
from stemmadb._frames import Backend, Batches, Frame

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

_spawn = cast("Callable[..., Awaitable[Any]]", greenlet_spawn)


class _Opens(Protocol):
    """What opens sessions."""

    def session(self, workspace: str | UUID | None = None, *, read_only: bool = False) -> AbstractContextManager[Session]:
        """Open a session."""
        ...

    def async_session(self, workspace: str | UUID | None = None, *, read_only: bool = False) -> AbstractAsyncContextManager[AsyncSession]:
        """Open a session for an event loop."""
        ...


class FrameReading:
    """Reads what a statement returns into frames; a Database is one."""

    @overload
    def frame(
        self: _Opens,
        statement: Executable | str,
        params: Mapping[str, Any] | None = None,
        *,
        workspace: str | UUID | None = None,
        backend: Literal["polars"] = "polars",
    ) -> "polars.DataFrame": ...

    @overload
    def frame(
        self: _Opens,
        statement: Executable | str,
        params: Mapping[str, Any] | None = None,
        *,
        workspace: str | UUID | None = None,
        backend: Literal["pandas"],
    ) -> "pandas.DataFrame": ...

    @overload
    def frame(
        self: _Opens,
        statement: Executable | str,
        params: Mapping[str, Any] | None = None,
        *,
        workspace: str | UUID | None = None,
        backend: Literal["arrow"],
    ) -> "pyarrow.Table": ...

    @overload
    def frame(
        self: _Opens,
        statement: Executable | str,
        params: Mapping[str, Any] | None = None,
        *,
        workspace: str | UUID | None = None,
        backend: Backend,
    ) -> Frame: ...

    def frame(
        self: _Opens,
        statement: Executable | str,
        params: Mapping[str, Any] | None = None,
        *,
        workspace: str | UUID | None = None,
        backend: Backend = "polars",
    ) -> Frame:
        """
        Return what a statement that reads returns, as a frame.

        Read on a connection of its own, in a transaction that only reads, with the role and the workspace of a session: row-level security
        holds, and what a session has not committed is not seen. What becomes of PostgreSQL's types: docs/reference/database.md.

        Args:
            statement: SQL text (SELECT, WITH, VALUES or TABLE), or a statement of SQLAlchemy.
            params: values for its ``:name`` parameters; None: text is sent as it is, its colons included.
            workspace: as for ``session``.
            backend: "polars", "pandas" (of the extra ``pandas``) or "arrow".

        Raises:
            DatabaseError: the server refuses the statement.
            MissingDependencyError: the extra ``frames`` or ``pandas`` is not installed.
            NotFoundError: no live workspace of that name.
            QueryTimeoutError: it took longer than ``query_timeout_ms``.
            ValidationError: the backend is unknown, two columns have one name, or a value has no place in a frame.
            WorkspaceNotSetError: there is no workspace; nothing was sent.
        """
        _frames.check(backend)
        with self.session(workspace, read_only=True) as session:
            question = _frames.question(session, statement, params, "Database.frame")
        return question.frame(backend)

    @overload
    async def aframe(
        self: _Opens,
        statement: Executable | str,
        params: Mapping[str, Any] | None = None,
        *,
        workspace: str | UUID | None = None,
        backend: Literal["polars"] = "polars",
    ) -> "polars.DataFrame": ...

    @overload
    async def aframe(
        self: _Opens,
        statement: Executable | str,
        params: Mapping[str, Any] | None = None,
        *,
        workspace: str | UUID | None = None,
        backend: Literal["pandas"],
    ) -> "pandas.DataFrame": ...

    @overload
    async def aframe(
        self: _Opens,
        statement: Executable | str,
        params: Mapping[str, Any] | None = None,
        *,
        workspace: str | UUID | None = None,
        backend: Literal["arrow"],
    ) -> "pyarrow.Table": ...

    @overload
    async def aframe(
        self: _Opens,
        statement: Executable | str,
        params: Mapping[str, Any] | None = None,
        *,
        workspace: str | UUID | None = None,
        backend: Backend,
    ) -> Frame: ...

    async def aframe(
        self: _Opens,
        statement: Executable | str,
        params: Mapping[str, Any] | None = None,
        *,
        workspace: str | UUID | None = None,
        backend: Backend = "polars",
    ) -> Frame:
        """As ``frame``, beside the event loop: a task that is cancelled ends the statement."""
        _frames.check(backend)
        async with self.async_session(workspace, read_only=True) as session:
            question = await session.run_sync(_frames.question, statement, params, "Database.aframe")
        return cast("Frame", await _spawn(question.frame, backend))

    @contextlib.contextmanager
    def frame_batches(
        self: _Opens,
        statement: Executable | str,
        params: Mapping[str, Any] | None = None,
        *,
        workspace: str | UUID | None = None,
    ) -> Iterator[Batches]:
        """
        Give what ``frame`` would return in Arrow's batches, for more rows than memory holds.

        The reader knows its schema, is iterated once, and can be given to whatever takes Arrow streams: Parquet, DuckDB, polars. A batch
        has about 8 MB. Leaving the block ends the statement; ``query_timeout_ms`` counts until the last row was taken.

        Args:
            statement: as for ``frame``.
            params: as for ``frame``.
            workspace: as for ``session``.

        Raises:
            StemmaError: as ``frame``; also while batches are taken.
        """
        _frames.check("arrow")
        with self.session(workspace, read_only=True) as session:
            question = _frames.question(session, statement, params, "Database.frame_batches")
        with question.batches() as reader:
            yield reader
