"""What ``Database.check()`` and ``stemmadb doctor`` look at: read-only, as the run-time login, in a bounded number of statements."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util.concurrency import greenlet_spawn

from stemmadb import _deadlines, _engines, _heads
from stemmadb._doctor._addresses import judge_addresses, read_address, read_direct
from stemmadb._doctor._kinds import finding
from stemmadb._doctor._logins import judge_login, read_login
from stemmadb._doctor._rows import examine_rows
from stemmadb._doctor._server import Demands, ServerFacts, judge_server, read_server
from stemmadb._doctor._tables import examine_tables
from stemmadb._openings import Opening
from stemmadb._sqlstates import translate
from stemmadb.errors import LockTimeoutError, MigrationError, QueryTimeoutError, StemmaError
from stemmadb.reports import CheckReport, Finding

if TYPE_CHECKING:
    from stemmadb.database import Database

LIMIT_S = 60.0
_MIGRATED = text("SELECT pg_catalog.to_regclass('stemma.stemma_alembic_version') IS NOT NULL")
_READABLE = text("SELECT pg_catalog.has_table_privilege('stemma.stemma_alembic_version', 'SELECT')")
_VERSIONS = text("SELECT version_num FROM stemma.stemma_alembic_version ORDER BY version_num")
_PATIENCE = text("SELECT pg_catalog.set_config('statement_timeout', '10s', true), pg_catalog.set_config('lock_timeout', '2s', true)")


def examine(db: Database, host: Engine | None = None) -> CheckReport:
    """
    Look at everything.

    Args:
        db: which database.
        host: the engine of the host application; None for a Database with engines of its own.

    Raises:
        StemmaError: no connection could be made.
    """
    findings: list[Finding] = []
    todo = 0
    facts: ServerFacts | None = None
    try:
        with _deadlines.within(LIMIT_S), _connected(db, host) as connection:
            facts = read_server(connection)
            connection.execute(_PATIENCE)
            findings += judge_server(facts, _demands(db))
            here = read_address(connection)
            direct = read_direct(db.direct_url) if db.has_direct_url and host is None else None
            findings += judge_addresses(here, declared_pooler=_declares_pooler(db), direct=direct)
            login = read_login(connection)
            findings += judge_login(login)
            found, told = _revisions(connection)
            findings += told
            usable = found is not None and not any(each.severity == "error" for each in told)
            if found is not None and usable:
                todo = len(_heads.pending(found))
                findings += _tables(connection, found)
        with _deadlines.within(LIMIT_S):
            if usable:
                findings += examine_rows(db)
    except QueryTimeoutError as error:
        if facts is None:
            raise
        findings.append(finding("not_checked", "the rest", why=str(error), remedy="run stemmadb doctor again when the server is less busy"))
    except StemmaError:
        raise
    except Exception as error:
        raise translate(error) from None
    order = {"error": 0, "warning": 1, "info": 2}
    ranked = sorted(findings, key=lambda each: order[each.severity])
    return CheckReport(ranked, facts.version, facts.latency_ms, todo)


async def aexamine(db: Database) -> CheckReport:
    """As ``examine``, from an event loop; through a host's own engine where that is an async one."""
    if isinstance(db._host, AsyncEngine):
        return await greenlet_spawn(examine, db, db._host.sync_engine)
    return await asyncio.to_thread(examine, db)


@contextlib.contextmanager
def _connected(db: Database, host: Engine | None) -> Iterator[Connection]:
    """Open a transaction that only reads, as sessions have it, but also where the schema does not fit."""
    if host is not None or db._url is None:
        with (host or db.engine).connect() as connection:
            connection.exec_driver_sql("SET TRANSACTION READ ONLY")
            yield connection
            connection.rollback()
        return
    engines = _engines.Engines(db._url, db.settings, check_schema=False)
    try:
        with engines.opened_by(engines.sync, Opening(read_only=True)).connect() as connection:
            yield connection
            connection.rollback()
    finally:
        engines.dispose()


def _demands(db: Database) -> Demands:
    return Demands(
        production=db.settings.environment == "production", pool_max=db.pool_stats().size, query_timeout_ms=db.settings.query_timeout_ms
    )


def _declares_pooler(db: Database) -> bool:
    return db._url is not None and db._url.pooled


def _tables(connection: Connection, found: tuple[str, ...]) -> list[Finding]:
    try:
        return examine_tables(connection, found)
    except DBAPIError as error:
        # pg_get_expr() locks the table whose policy or default it spells.
        failure = translate(error)
        if not isinstance(failure, LockTimeoutError | QueryTimeoutError):
            raise failure from None
        return [finding("not_checked", "tables", why=str(failure), remedy="run stemmadb doctor again when no migration runs")]


def _revisions(connection: Connection) -> tuple[tuple[str, ...] | None, list[Finding]]:
    """Return the rows of the version table, None when there is none to read, and what is wrong with them."""
    try:
        _heads.revisions()
    except MigrationError as error:
        return None, [finding("diverged_heads", "revisions", why=str(error))]
    if not connection.scalar(_MIGRATED):
        return None, [finding("not_migrated", "stemma")]
    if not connection.scalar(_READABLE):
        # lacks_privileges has said so.
        return None, []
    found = tuple(connection.scalars(_VERSIONS))
    return found, list(_judge_revisions(found))


def _judge_revisions(found: tuple[str, ...]) -> Iterator[Finding]:
    if not found:
        yield finding("not_migrated", "stemma")
        return
    branches = [_heads.branch_of(id) for id in found]
    foreign = [id for id, branch in zip(found, branches, strict=True) if branch == id]
    for id in foreign:
        yield finding("unknown_revision", id)
    for branch in sorted({branch for branch in branches if branches.count(branch) > 1}):
        yield finding("two_heads", ", ".join(id for id in found if _heads.branch_of(id) == branch))
    if foreign:
        return
    difference = _heads.compare(found)
    newer = _heads.unknown(found)
    if difference is not None:
        yield finding("schema_ahead" if newer else "schema_behind", difference.found, needed=difference.needed)
    elif newer:
        yield finding("newer_revision", ", ".join(newer))
    elif todo := _heads.pending(found):
        yield finding("pending_migrations", ", ".join(todo))
