"""A database: its engines and pools, the sessions on it and their workspace, units of work with retries, health."""

import contextlib
import functools
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar
from uuid import UUID

from sqlalchemy import Connection, Engine, QueuePool, text
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.util.concurrency import await_only, greenlet_spawn

from stemmadb import _engines, _work, audit, tenancy
from stemmadb._database_frames import FrameReading
from stemmadb._database_tables import TableReading
from stemmadb._engines import Engines
from stemmadb._frames import Backend, Frame
from stemmadb._openings import Isolation, Opening, told
from stemmadb._sqlstates import translate
from stemmadb._urls import ParsedUrl, masked
from stemmadb._workspace_context import RECORD_OF_READING
from stemmadb._workspace_ids import WorkspaceIds
from stemmadb.data import checked_text
from stemmadb.errors import CommitUnknownError, ConfigurationError, ConnectionLostError, PermissionDeniedError, StemmaError, ValidationError
from stemmadb.settings import Settings

if TYPE_CHECKING:
    from stemmadb.embedded import Server
    from stemmadb.reports import CheckReport, Health

__all__ = ["Backend", "Database", "Frame", "Isolation", "PoolStats"]

R = TypeVar("R")


@dataclass(frozen=True)
class PoolStats:
    """The connections of a Database's pools, sync and async together."""

    size: int
    """The most that one pool opens."""
    open: int
    in_use: int


class Database(FrameReading, TableReading):
    """
    One PostgreSQL database, and the default workspace of its sessions.

    Made by ``connect()`` or ``use()``. Databases of one URL share their engines. Close it, or use it in a ``with`` block.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        workspace: str | UUID | None,
        url: ParsedUrl | None = None,
        direct_url: URL | None = None,
        host: Engine | AsyncEngine | None = None,
        server: "Server | None" = None,
    ) -> None:
        self.settings = settings
        self.workspace = workspace
        self.server = server
        self._url = url
        self._direct_url = direct_url
        self._host = host
        self._engines: Engines | None = _engines.acquire(url, settings) if url is not None else None
        self._workspace_ids = WorkspaceIds()

    # ------------------------------------------------------------------------------------------------------- engines

    @property
    def engine(self) -> Engine:
        """SQLAlchemy's own engine, for hosts that need it."""
        if self._host is not None:
            if isinstance(self._host, AsyncEngine):
                raise ConfigurationError("this Database was made from an AsyncEngine: use async_session")
            return self._host
        return self._own.sync

    @property
    def async_engine(self) -> AsyncEngine:
        """SQLAlchemy's own async engine; made on first use, with a pool of its own."""
        if self._host is not None:
            if not isinstance(self._host, AsyncEngine):
                raise ConfigurationError("this Database was made from a synchronous engine: use session")
            return self._host
        return self._own.asynchronous

    @property
    def url(self) -> URL:
        """Where run-time connections go; its repr masks the password."""
        if self._host is not None:
            return self._host.url
        return self._own.url

    @property
    def direct_url(self) -> URL:
        """Where migrations go, as the owner: DIRECT_URL, else the run-time URL."""
        return self._direct_url or self.url

    @property
    def has_direct_url(self) -> bool:
        """Whether migrations have a URL of their own."""
        return self._direct_url is not None

    @property
    def _own(self) -> Engines:
        if self._engines is None:
            if self._host is not None:
                raise ConfigurationError("this needs a Database made by connect(): the engine here belongs to the host")
            raise ConfigurationError("the Database is closed")
        return self._engines

    # ------------------------------------------------------------------------------------------------------ sessions

    @contextlib.contextmanager
    def session(
        self, workspace: str | UUID | None = None, *, read_only: bool = False, isolation: Isolation | None = None
    ) -> Iterator[Session]:
        """
        Open a session in a transaction: COMMIT when the block ends, ROLLBACK when it raises.

        Args:
            workspace: slug or id; None takes the context's, then the one given to ``connect``, then none.
            read_only: whether PostgreSQL refuses writes.
            isolation: None is the server's default, read committed.

        Raises:
            NotFoundError: no live workspace of that name; nothing else was sent.
            ConflictError: and every other class of ``stemmadb.errors``, when COMMIT is refused.
            CommitUnknownError: the connection broke at COMMIT; ``run`` finds out what came of it.
        """
        session = self._open(workspace, Opening(isolation=isolation, read_only=read_only))
        try:
            yield session
            _commit(session, read_only=read_only)
        except BaseException:
            _work.roll_back(session)
            raise
        finally:
            session.close()

    @contextlib.asynccontextmanager
    async def async_session(
        self, workspace: str | UUID | None = None, *, read_only: bool = False, isolation: Isolation | None = None
    ) -> AsyncIterator[AsyncSession]:
        """As ``session``, for an AsyncSession."""
        session = await _spawn(self._open_async, workspace, Opening(isolation=isolation, read_only=read_only))
        # Leaving this block closes the session, also when the task is cancelled once more meanwhile.
        async with session:
            try:
                yield session
                await _spawn(functools.partial(_commit, session.sync_session, read_only=read_only))
            except BaseException:
                await _spawn(_work.roll_back, session.sync_session)
                raise

    def session_on(self, connection: Connection, workspace: UUID | None = None) -> Session:
        """Return a session on a connection that the caller began; what it commits is a savepoint there, for tests that roll back."""
        return Session(bind=connection, expire_on_commit=False, join_transaction_mode="create_savepoint", info=_info(workspace))

    def async_session_on(self, connection: AsyncConnection, workspace: UUID | None = None) -> AsyncSession:
        """As ``session_on``, for an AsyncSession."""
        return AsyncSession(bind=connection, expire_on_commit=False, join_transaction_mode="create_savepoint", info=_info(workspace))

    @contextlib.contextmanager
    def all_workspaces(self, *, reason: str) -> Iterator[Session]:
        """
        Open a session that reads across workspaces, as stemma_maintenance; the reason is kept in audit_logs, whatever becomes of the block.

        Raises:
            PermissionDeniedError: the login was not granted stemma_maintenance.
            ValidationError: the reason is empty; nothing was sent.
        """
        if not checked_text(reason, "reason").strip():
            raise ValidationError("reason is what the audit record says", field="reason")
        engine = self._own.opened_by(self.engine, told(Opening(role="stemma_maintenance"), None))
        session = Session(bind=engine, expire_on_commit=False, info={"stemma": tenancy.AllWorkspaces(reason), **audit.info()})
        try:
            try:
                session.execute(text(RECORD_OF_READING), {"reason": reason})
                # Before anything is seen: what was read stays on record also when the block is left by an error.
                session.commit()
            except Exception as error:
                found = translate(error)
                raise PermissionDeniedError("stemma_maintenance") if isinstance(found, PermissionDeniedError) else found from None
            yield session
            _commit(session)
        except BaseException:
            _work.roll_back(session)
            raise
        finally:
            session.close()

    def _open(self, workspace: str | UUID | None, opening: Opening) -> Session:
        found = self._resolve(workspace)
        if self._host is not None:
            return Session(bind=self.engine, expire_on_commit=False, info=_info(found) | tenancy.modes(opening))
        engine = self._own.opened_by(self._own.sync, told(opening, found))
        return Session(bind=engine, expire_on_commit=False, info=_info(found))

    def _open_async(self, workspace: str | UUID | None, opening: Opening) -> AsyncSession:
        found = self._resolve(workspace, asynchronous=True)
        if self._host is not None:
            return AsyncSession(bind=self.async_engine, expire_on_commit=False, info=_info(found) | tenancy.modes(opening))
        engine = self._own.opened_by(self._own.asynchronous.sync_engine, told(opening, found))
        return AsyncSession(bind=AsyncEngine(engine), expire_on_commit=False, info=_info(found))

    def _resolve(self, workspace: str | UUID | None, *, asynchronous: bool = False) -> UUID | None:
        """Return the id of the workspace that is meant: the given one, the context's, the Database's own, or none."""
        wanted = tenancy.nearest(self.workspace) if workspace is None else workspace
        if wanted is None:
            return None
        return self._workspace_ids.resolve(wanted, self.async_engine.sync_engine if asynchronous else self.engine)

    # ------------------------------------------------------------------------------------------------- units of work

    def run(
        self,
        fn: Callable[..., R],
        /,
        *args: Any,
        workspace: str | UUID | None = None,
        isolation: Isolation | None = None,
        retries: int = 5,
        deadline_s: float | None = None,
        idempotency_key: str | None = None,
        **kwargs: Any,
    ) -> R:
        """
        Run ``fn(session, *args, **kwargs)`` as one unit of work, with retries.

        Repeated after a serialization failure, a deadlock, and a connection that broke before COMMIT; never after COMMIT was sent unless
        the server says that it was rolled back, and never when the function committed by itself. It may run several times: it must have
        no effect outside the database.

        Args:
            fn: the work.
            retries: how many repetitions at most, with growing pauses.
            deadline_s: seconds after which nothing is waited for any more, whatever it is: a free connection, a reply, a server that is
                away, which alone is waited for beyond ``retries``. Its connections are given up then. Making one may take 2 seconds
                beyond. None: no limit.
            idempotency_key: a name for this work, kept for 7 days in its own transaction.

        Returns:
            What ``fn`` returned in the transaction that was committed.

        Raises:
            SerializationError: the retries were not enough.
            QueryTimeoutError: the deadline passed, kind "deadline"; nothing was stored.
            ConflictError: work of that idempotency key was done before; nothing was run.
            CommitUnknownError: the reply to COMMIT was lost, and the server could not be asked, or crashed meanwhile. With an idempotency
                key a crash does not matter.
        """
        plan = _work.Plan(retries, deadline_s, idempotency_key)

        def open_session() -> Session:
            return self._open(workspace, Opening(isolation=isolation))

        def work(session: Session) -> R:
            result = fn(session, *args, **kwargs)
            if inspect.iscoroutine(result):
                result.close()
                raise ValidationError("fn is a coroutine function, which run() does not await: use arun()", field="fn")
            return result

        return _work.run(plan, open_session, work, time.sleep)

    async def arun(
        self,
        fn: Callable[..., Awaitable[R]],
        /,
        *args: Any,
        workspace: str | UUID | None = None,
        isolation: Isolation | None = None,
        retries: int = 5,
        deadline_s: float | None = None,
        idempotency_key: str | None = None,
        **kwargs: Any,
    ) -> R:
        """As ``run``, for an async function of an AsyncSession."""
        import asyncio

        plan = _work.Plan(retries, deadline_s, idempotency_key)
        opened: dict[Session, AsyncSession] = {}

        def open_session() -> Session:
            session = self._open_async(workspace, Opening(isolation=isolation))
            opened.clear()
            opened[session.sync_session] = session
            return session.sync_session

        def work(session: Session) -> R:
            result = fn(opened[session], *args, **kwargs)
            if not inspect.isawaitable(result):
                raise ValidationError("fn returned nothing to await: use run()", field="fn")
            return await_only(result)

        def pause(seconds: float) -> None:
            await_only(asyncio.sleep(seconds))

        return await _spawn(_work.run, plan, open_session, work, pause)

    # -------------------------------------------------------------------------------------------------------- health

    def health(self) -> "Health":
        """Ask the server one question: is it there, how fast, how many migrations are pending. Never raises."""
        from stemmadb import _health

        return _health.health(self)

    def check(self) -> "CheckReport":
        """
        Look for what is known to go wrong with a database, as ``stemmadb doctor`` does. Reads only, as the run-time login.

        At most two minutes. Rows are read across workspaces, which leaves a record in audit_logs; where the login may not, or a question
        takes too long, a finding ``not_checked`` says so. Raises what keeps a connection from being made.
        """
        from stemmadb import _doctor

        return _doctor.examine(self)

    async def acheck(self) -> "CheckReport":
        """As ``check``, in a thread of its own beside the event loop."""
        from stemmadb import _doctor

        return await _doctor.aexamine(self)

    def wait_until_ready(self, timeout: timedelta = timedelta(seconds=30)) -> None:
        """
        Wait until the database takes connections.

        Raises:
            DatabaseUnavailableError: it did not in time. A wrong password or an unknown database is not waited for.
            ValidationError: ``timeout`` is no timedelta.
        """
        from stemmadb import _health

        _health.wait_until_ready(self, timeout)

    def pool_stats(self) -> PoolStats:
        """Return how many connections are open and in use."""
        host = self._host.sync_engine if isinstance(self._host, AsyncEngine) else self._host
        pools = [pool for pool in (self._own.pools() if host is None else [host.pool]) if isinstance(pool, QueuePool)]
        size = self._engines.pool_size if self._engines else sum(pool.size() for pool in pools)
        in_use = sum(pool.checkedout() for pool in pools)
        return PoolStats(size=size, open=in_use + sum(pool.checkedin() for pool in pools), in_use=in_use)

    # --------------------------------------------------------------------------------------------------------- close

    def close(self) -> None:
        """Give the connections back; the last Database of a URL closes them. The embedded server stops when its last user leaves."""
        if self._engines is not None and self._url is not None:
            self._engines = None
            _engines.release(self._url, self.settings)
        if self.server is not None:
            self.server.close()
            self.server = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        where = "closed" if self._engines is None and self._host is None else masked(self.url)
        return f"Database({where!r}, workspace={self.workspace!r})"


async def _spawn(fn: Callable[..., R], *args: Any) -> R:
    spawn: Callable[..., Awaitable[R]] = greenlet_spawn
    return await spawn(fn, *args)


def _commit(session: Session, *, read_only: bool = False) -> None:
    try:
        session.commit()
    except StemmaError:
        raise
    except Exception as error:
        found = translate(error)
        if isinstance(found, ConnectionLostError) and not found.safe_to_retry and not read_only:
            raise CommitUnknownError from None
        raise found from None


def _info(workspace_id: UUID | None) -> dict[Any, Any]:
    workspace = tenancy.NoWorkspace() if workspace_id is None else tenancy.WorkspaceContext(workspace_id)
    return {"stemma": workspace, **audit.info()}
