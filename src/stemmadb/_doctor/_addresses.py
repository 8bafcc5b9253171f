"""DATABASE_URL and DIRECT_URL: whether a pooler is between, and whether both lead to one database."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, NullPool, create_engine, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from stemmadb import _openings as openings
from stemmadb._doctor._kinds import finding
from stemmadb.reports import Finding

_WAIT_S = 5
_PATIENCE = text(f"SELECT pg_catalog.set_config('statement_timeout', '{_WAIT_S}s', true)")
# The start of the server tells two servers apart; a number of a database is one within a server.
_PLACE = text(
    """
    SELECT pg_catalog.pg_backend_pid() AS pid,
           (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())::text
             || ' of ' || pg_catalog.pg_postmaster_start_time()::text AS place,
           pg_catalog.current_database()::text AS database,
           session_user::text AS login,
           (SELECT pg_catalog.pg_get_userbyid(nspowner)::text FROM pg_catalog.pg_namespace WHERE nspname = 'stemma') AS owner,
           coalesce((SELECT pg_catalog.pg_has_role(session_user, nspowner, 'SET')
                       FROM pg_catalog.pg_namespace WHERE nspname = 'stemma'), true) AS may_migrate
    """
)


@dataclass(frozen=True)
class AddressFacts:
    """Where a connection ends up."""

    pooled: bool
    """Whether the process that the client was told of is another one than answers."""
    place: str
    """Tells databases apart, also those of one name on two servers."""
    database: str
    login: str
    owner: str | None
    """Of the schema; None before the first migration."""
    may_migrate: bool


def read_address(connection: Connection) -> AddressFacts:
    """Ask where a connection has ended up, in one statement."""
    row: Any = connection.execute(_PLACE).one()
    driver = openings.driver_of(connection.connection.dbapi_connection)
    return AddressFacts(driver.info.backend_pid != row.pid, row.place, row.database, row.login, row.owner, row.may_migrate)


def read_direct(url: URL) -> AddressFacts | str:
    """Ask over a connection of its own, or return why there is none; never the password."""
    arguments = {"connect_timeout": _WAIT_S, "prepare_threshold": None}
    engine = create_engine(url, poolclass=NullPool, connect_args=arguments)
    try:
        with engine.connect() as connection:
            # Not as an option of the connection, which a pooler may refuse.
            connection.execute(_PATIENCE)
            return read_address(connection)
    except DBAPIError as error:
        return str(error.orig).strip().splitlines()[-1].strip() or type(error.orig).__name__
    finally:
        engine.dispose()


def judge_addresses(here: AddressFacts, *, declared_pooler: bool, direct: AddressFacts | str | None) -> Iterator[Finding]:
    """
    Say what is wrong with the addresses. Asks nothing.

    Args:
        here: where run-time connections end up.
        declared_pooler: whether DATABASE_URL says that a pooler is between.
        direct: where those of migrations do, or why there are none; None without a DIRECT_URL.
    """
    if here.pooled and not declared_pooler:
        yield finding("undeclared_pooler", "DATABASE_URL")
    if declared_pooler and not here.pooled:
        yield finding("declared_pooler_missing", "DATABASE_URL")
    if isinstance(direct, str):
        yield finding("direct_url_unreachable", "DIRECT_URL", why=direct)
    elif direct is not None:
        if direct.pooled:
            yield finding("direct_url_pooled", "DIRECT_URL")
        if direct.place != here.place:
            yield finding("direct_url_elsewhere", direct.database)
        elif not direct.may_migrate:
            yield finding("direct_url_not_owner", direct.login, owner=direct.owner)
