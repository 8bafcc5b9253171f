"""One pair of engines per database and process: what a connection is asked when it is made, and what a transaction is told as it begins."""

import logging
import math
import os
import threading
from dataclasses import dataclass, replace
from typing import Any

import psycopg
import sqlalchemy
from psycopg.pq import TransactionStatus
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, Dialect, ExceptionContext
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from stemmadb import _deadlines, _driver, _heads, observability, tenancy
from stemmadb import _openings as openings
from stemmadb._loops import PerLoop
from stemmadb._openings import Opening
from stemmadb._pools import AsyncPool, Pool, close_idle, connect_async, refuse_dead
from stemmadb._settling import LIFE, LIFE_COLUMNS, Life
from stemmadb._sqlstates import is_stale_plan, translate
from stemmadb._urls import ParsedUrl, describe
from stemmadb.errors import (
    ConfigurationError,
    ConnectionLostError,
    DatabaseError,
    DatabaseUnavailableError,
    SchemaOutOfDateError,
    StemmaError,
)
from stemmadb.settings import Settings

logger = logging.getLogger("stemmadb.database")

# What a new connection is asked, in one round trip. A pooler hands out a process id of its own, which differs from pg_backend_pid().
_INSPECT = f"""
SELECT pg_catalog.pg_backend_pid(),
       pg_catalog.current_setting('server_version_num')::integer,
       me.rolname = 'stemma_app',
       coalesce((SELECT pg_catalog.pg_has_role(me.oid, app.oid, 'SET')
                   FROM pg_catalog.pg_roles AS app WHERE app.rolname = 'stemma_app'), false),
       me.rolsuper OR me.rolbypassrls,
       pg_catalog.to_regclass('stemma.stemma_alembic_version') IS NOT NULL,
       {LIFE_COLUMNS}
  FROM pg_catalog.pg_roles AS me
 WHERE me.rolname = current_user
"""  # noqa: S608
_MAX_DERIVED = 2048
_MAX_CONNECT_S = 3600
_HEADS = "SELECT version_num FROM stemma.stemma_alembic_version"


@dataclass(frozen=True)
class Login:
    """What the server said about the login that the pool uses."""

    server_version: int
    switches_role: bool
    bypasses_policies: bool
    pooled: bool


class Engines:
    """The sync and the async engine of one URL, each made on first use."""

    def __init__(self, url: ParsedUrl, settings: Settings, *, check_schema: bool = True) -> None:
        self.url = url.url
        self.settings = settings
        self.login: Login | None = None
        self._pooled = url.pooled
        self._pool_max = url.pool_max or settings.pool_max
        self._pool_timeout_s = url.pool_timeout_s or settings.pool_timeout_s
        self._check_schema = check_schema
        self._lock = threading.Lock()
        self._sync: Engine | None = None
        self._asyncs = PerLoop(self._make_async, self._end_async)
        self._derived: dict[Engine, dict[Opening, Engine]] = {}

    @property
    def sync(self) -> Engine:
        """The engine of synchronous sessions."""
        if self._sync is not None:
            return self._sync
        with self._lock:
            if self._sync is None:
                made = create_engine(self.url, **self._options(_driver.Cursor, Pool))
                self._hook(made)
                self._sync = made
            return self._sync

    @property
    def asynchronous(self) -> AsyncEngine:
        """The engine of the asynchronous sessions of the event loop that runs; a pool of its own."""
        return self._asyncs.get()

    def opened_by(self, engine: Engine, opening: Opening) -> Engine:
        """Return the engine with an opening for each of its transactions; kept, since making one costs as much as a query."""
        known = self._derived.setdefault(engine, {})
        derived = known.get(opening)
        if derived is None:
            if len(known) > _MAX_DERIVED:
                known.clear()
            derived = known[opening] = engine.execution_options(**{openings.OPTION: opening})
        return derived

    def pools(self) -> list[sqlalchemy.Pool]:
        """The pools that exist so far."""
        return [engine.pool for engine in self._all()]

    @property
    def pool_size(self) -> int:
        """How many connections a pool opens at most."""
        return self._pool_max

    def dispose(self) -> None:
        """Close the connections that nobody holds; those in use are closed when they come back."""
        if self._sync is not None:
            self._sync.dispose()
        for engine in self._asyncs.all():
            self._end_async(engine)

    def close_idle_async(self) -> None:
        """Close the connections of async pools that nobody holds; what is asked for later is opened anew."""
        for engine in self._asyncs.all():
            close_idle(engine.sync_engine.pool)

    def forget(self) -> None:
        """Leave the connections to the parent process: called in a child after a fork."""
        # Another thread of the parent, which does not exist here, may have held a lock.
        self._lock = threading.Lock()
        self._asyncs.after_fork()
        for engine in self._all():
            engine.dispose(close=False)

    def _all(self) -> list[Engine]:
        return [*([self._sync] if self._sync is not None else []), *(engine.sync_engine for engine in self._asyncs.all())]

    # ------------------------------------------------------------------------------------------------------- building

    def _make_async(self) -> AsyncEngine:
        made = create_async_engine(self.url, **self._options(_driver.AsyncCursor, AsyncPool, async_creator_fn=connect_async))
        self._hook(made.sync_engine)
        return made

    def _end_async(self, engine: AsyncEngine) -> None:
        # The sockets of an async pool may belong to a loop that is gone: they are closed without it.
        self._derived.pop(engine.sync_engine, None)
        pool = engine.sync_engine.pool
        close_idle(pool)
        pool.dispose()
        engine.sync_engine.dispose(close=False)

    def _options(self, cursor: type[Any], pool: type[Pool], **driver: Any) -> dict[str, Any]:
        kept = min(self.settings.pool_min, self._pool_max) or 1
        arguments = {
            "connect_timeout": -(-self.settings.connect_timeout_ms // 1000),
            "application_name": "stemmadb",
            "keepalives_idle": 30,
            "keepalives_interval": 10,
            "keepalives_count": 3,
        }
        return {
            "poolclass": pool,
            "pool_size": kept,
            "max_overflow": self._pool_max - kept,
            "pool_timeout": self._pool_timeout_s,
            "hide_parameters": True,
            "use_native_hstore": False,
            "connect_args": {
                # What the URL says is nearer than the settings.
                **{name: value for name, value in arguments.items() if name not in self.url.query},
                # BEGIN goes out together with the settings, in one message, from _begin; psycopg alone would send it by itself.
                "autocommit": True,
                "cursor_factory": cursor,
                **({"prepare_threshold": None} if self._pooled else {}),
                **driver,
            },
        }

    def _hook(self, engine: Engine) -> None:
        tenancy.adopt(engine)
        event.listen(engine, "do_connect", self._connect)
        event.listen(engine, "begin", self._begin)
        event.listen(engine, "begin_twophase", _refuse_two_phases)
        event.listen(engine, "commit", self._commit)
        event.listen(engine, "handle_error", self._refused)
        event.listen(engine.pool, "checkout", refuse_dead)
        observability.watch(engine, log_queries=self.settings.log_queries, slow_query_ms=self.settings.slow_query_ms)

    def _connect(self, dialect: Dialect, record: ConnectionPoolEntry | None, cargs: Any, cparams: dict[str, Any]) -> Any:
        """Make a connection, and refuse one that the library cannot work with."""
        deadline = _deadlines.current()
        if deadline is not None:
            deadline.check()
            # libpq counts whole seconds, two at least; 0 is no limit.
            seconds = min(int(cparams["connect_timeout"]) or _MAX_CONNECT_S, math.ceil(deadline.left_s) or 1)
            cparams = {**cparams, "connect_timeout": seconds}
        try:
            connection = dialect.connect(*cargs, **cparams)
        except Exception as error:
            raise _named(translate(error), self.url) from None
        try:
            fileno = openings.driver_of(connection).fileno()
            _driver.make_room(fileno)
            if deadline is not None:
                deadline.watch(fileno)
            life = self._inspect(connection)
        except BaseException:
            connection.close()
            raise
        if record is not None:
            record.info[LIFE] = life
        return connection

    def _inspect(self, connection: Any) -> Life | None:
        cursor = connection.cursor()
        try:
            cursor.execute(_INSPECT)
            pid, version, is_app, may_switch, bypasses, migrated, *life = cursor.fetchone()
            driver = openings.driver_of(connection)
            if driver.info.backend_pid != pid:
                # Statements prepared through a transaction pooler may be answered by another client's: wrong rows, without an error.
                self._pooled = True
            if self._pooled:
                driver.prepare_threshold = None
            if self.login is None:
                self._check_heads(cursor, migrated=migrated)
                self.login = Login(version, may_switch and not is_app, bypasses and not may_switch, self._pooled)
                if self.login.bypasses_policies:
                    logger.warning(
                        "the login bypasses row-level security: grant it stemma_app, or connect as stemma_app (stemmadb migrate roles)"
                    )
            self.login = replace(self.login, pooled=self._pooled)
            # A pooler may go on with another server, or another life of it, on the same connection.
            return None if self._pooled else Life.of(*life)
        finally:
            cursor.close()

    def _check_heads(self, cursor: Any, *, migrated: bool) -> None:
        if not self._check_schema:
            return
        found: set[str] = set()
        if migrated:
            cursor.execute(_HEADS)
            found = {row[0] for row in cursor.fetchall()}
        if (difference := _heads.compare(found)) is not None:
            raise SchemaOutOfDateError(*difference)

    # ---------------------------------------------------------------------------------------------------- transactions

    def _begin(self, connection: Connection) -> None:
        """Send BEGIN and the settings of the transaction in one message; on a fresh connection when the pool's was dead."""
        options = connection.get_execution_options()
        opening: Opening = options.get(openings.OPTION) or Opening()
        level: str | None = options.get("isolation_level")
        if level == "AUTOCOMMIT" and opening.workspace_id is not None:
            raise ConfigurationError("a session in a workspace cannot be in AUTOCOMMIT: its workspace is set for a transaction")
        if level == "AUTOCOMMIT" or self.login is None:
            return
        deadline = _deadlines.current()
        for last in (False, False, True):
            dbapi: Any = connection.connection  # after an invalidation: another one
            begins, switches_role = bool(dbapi.autocommit), self.login.switches_role
            text = openings.text_of(opening, switches_role=switches_role, begins=begins, level=level)
            if deadline is not None:
                deadline.check()
            try:
                if deadline is not None:
                    deadline.watch(openings.driver_of(dbapi.dbapi_connection).fileno())
                openings.send(dbapi.dbapi_connection, text + openings.timeout_of(self.settings.query_timeout_ms, deadline))
            except BaseException as error:
                connection.invalidate(error)
                if not isinstance(error, psycopg.Error):
                    raise
                found = translate(error)
                # The caller has sent nothing yet, so nothing is lost by trying again.
                if last or not isinstance(found, DatabaseUnavailableError):
                    raise found from None
            else:
                return

    @staticmethod
    def _refused(context: ExceptionContext) -> None:
        """
        Give up every connection of a pool whose server only reads, or whose tables are not what they were.

        After a failover the address leads to another server, but connections that are open lead to the old one for as long as they live.
        A statement that was prepared before a column changed its type fails once on each of them.
        """
        error, connection = context.original_exception, context.connection
        if not isinstance(error, psycopg.Error) or connection is None:
            return
        opening: Opening = connection.get_execution_options().get(openings.OPTION) or Opening()
        if (error.sqlstate == "25006" and not opening.read_only) or is_stale_plan(error):
            context.is_disconnect = True

    def _commit(self, connection: Connection) -> None:
        """Refuse the COMMIT of a transaction in which a statement failed: the server would roll it back, and report no error."""
        driver = None if connection.invalidated else openings.driver_of(connection.connection.dbapi_connection)
        if driver is not None and driver.pgconn.transaction_status == TransactionStatus.INERROR:
            message = "A statement of this transaction failed, so it cannot be committed: roll back, or put what may fail into a savepoint"
            raise DatabaseError("25P02", message)


def _refuse_two_phases(_connection: Connection, _xid: Any) -> None:
    raise ConfigurationError("two-phase transactions cannot be begun with our settings: make an engine of your own, and give it to use()")


def _named(error: StemmaError, url: URL) -> StemmaError:
    """Say which database could not be reached."""
    if isinstance(error, ConfigurationError):
        return ConfigurationError(error.message, url.host, url.port, url.database, url.username)
    if type(error) in (ConnectionLostError, DatabaseUnavailableError):
        reason = getattr(error, "message", str(error))
        return DatabaseUnavailableError(f"{reason} ({describe(url)})", True, getattr(error, "sqlstate", None))
    return error


# ------------------------------------------------------------------------------------------------------------- the registry

# A reload of the module keeps the registry: a second pool per reload is what notebooks used to leak.
_registry: dict[Any, tuple[Engines, int]] = globals().get("_registry", {})
_registry_lock = threading.Lock()


def acquire(url: ParsedUrl, settings: Settings) -> Engines:
    """Return the engines of the URL: one pair per process, however often it is asked for."""
    key = _key(url, settings)
    with _registry_lock:
        engines, users = _registry.get(key) or (Engines(url, settings), 0)
        _registry[key] = engines, users + 1
    return engines


def release(url: ParsedUrl, settings: Settings) -> None:
    """Give the engines back; the last one closes their connections."""
    key = _key(url, settings)
    with _registry_lock:
        engines, users = _registry.get(key) or (None, 0)
        if engines is None:
            return
        if users > 1:
            _registry[key] = engines, users - 1
            return
        del _registry[key]
    engines.dispose()


def _key(url: ParsedUrl, settings: Settings) -> tuple[Any, ...]:
    """Return what engines depend on."""
    return (
        url,
        settings.pool_min,
        settings.pool_max,
        settings.pool_timeout_s,
        settings.connect_timeout_ms,
        settings.query_timeout_ms,
        settings.log_queries,
        settings.slow_query_ms,
    )


def _after_fork() -> None:
    global _registry_lock
    _registry_lock = threading.Lock()
    for engines, _ in _registry.values():
        engines.forget()


os.register_at_fork(after_in_child=_after_fork)
