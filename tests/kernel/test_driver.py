"""The cursors of our own connections describe their results as psycopg's do, and somebody is told when a statement is on its way."""

import os
import socket
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.ext.asyncio import AsyncConnection

from stemmadb._driver import make_room, telling
from stemmadb.database import Database

STATEMENTS = ("SELECT 1 AS \"größe\", 'x'::text AS name", "SELECT", "SET LOCAL lock_timeout = 1000", "SELECT 1 AS none WHERE false")


def described(cursor: Any) -> Any:
    """What PEP 249 promises of a description that everybody uses: names and types."""
    return None if cursor.description is None else [(column[0], column[1]) for column in cursor.description]


@pytest.mark.parametrize("statement", STATEMENTS)
def test_descriptions_are_those_of_psycopg(db: Database, statement: str) -> None:
    """Names, of any alphabet, and types; None where there is no result; also before anything was executed."""
    with db.engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        ours, theirs = driver.cursor(), psycopg.Cursor(driver)
        assert ours.description is None
        ours.execute(statement)
        theirs.execute(statement)
        assert described(ours) == described(theirs)


async def test_descriptions_of_async_connections(db: Database) -> None:
    """The same for the other kind of connection."""
    async with db.async_engine.connect() as connection:
        found = await connection.execute(text(STATEMENTS[0]))
        assert list(found.keys()) == ["größe", "name"]
        assert (await row_types(connection)) == [23, 25]


async def row_types(connection: AsyncConnection) -> list[int]:
    """The types that the driver tells of a result's columns."""
    raw: Any = (await connection.get_raw_connection()).driver_connection
    async with raw.cursor() as cursor:
        await cursor.execute(STATEMENTS[0])
        return [column[1] for column in cursor.description]


HOLD = text("SELECT pg_advisory_lock(7311)")
RELEASE = text("SELECT pg_advisory_unlock(7311)")
# Far longer than anything here takes, and an end if nobody is told.
WAIT = "SET LOCAL lock_timeout = '20s'"


def wait_for_the_lock(connection: Connection, sent: Any) -> None:
    """Wait for a lock that whoever is told of it releases."""
    connection.exec_driver_sql(WAIT)
    with telling(connection, sent):
        connection.execute(text("SELECT pg_advisory_xact_lock(7311), :long"), {"long": "x" * 10_000_000})


def test_somebody_is_told_while_the_server_works(db: Database) -> None:
    """Ten megabytes are with the server before it answers: the lock that it waits for is released then."""
    told: list[bool] = []
    with db.engine.connect() as other, db.engine.connect() as connection:
        other.execute(HOLD)
        wait_for_the_lock(connection, lambda: told.append(told or other.execute(RELEASE).scalar()))
        assert told[0] is True
        before = len(told)
        connection.execute(text("SELECT 1"))
        assert len(told) == before


async def test_somebody_is_told_of_async_connections(db: Database) -> None:
    """The same for the other kind of connection."""
    told: list[bool] = []
    with db.engine.connect() as other:
        async with db.async_engine.connect() as connection:
            other.execute(HOLD)
            await connection.run_sync(wait_for_the_lock, lambda: told.append(told or other.execute(RELEASE).scalar()))
            assert told[0] is True


def test_somebody_is_told_when_the_statement_fails_or_is_none(db: Database) -> None:
    """The block ends, and so does the waiting for it; what happens in it reaches the caller."""
    told: list[int] = []
    with db.engine.connect() as connection:
        with pytest.raises(psycopg.errors.DivisionByZero), telling(connection, lambda: told.append(1)):
            connection.connection.cursor().execute("SELECT 1 / 0")
        assert told
        told.clear()
        connection.rollback()
        with telling(connection, lambda: told.append(1)):
            assert not told
        assert told == [1]
        with telling(connection, lambda: told.append(2)):
            with telling(connection, lambda: told.append(3)):
                assert connection.execute(text("SELECT 4")).scalar() == 4
            assert {2, 3} < set(told)
            told.clear()
            connection.execute(text("SELECT 5"))
            assert set(told) == {2}
        told.clear()
        connection.execute(text("SELECT 6"))
        assert not told


def test_another_driver_tells_at_once() -> None:
    """Nothing is known of when it sends."""
    told: list[int] = []
    with create_engine("sqlite://").connect() as connection, telling(connection, lambda: told.append(1)):
        assert told == [1]


@pytest.mark.offline
def test_local_sockets_get_room() -> None:
    """As much as the system allows, which is more than it gives by itself; sockets to other machines stay as they are."""
    limit = Path("/proc/sys/net/core/wmem_max")
    allowed = int(limit.read_text()) if limit.exists() else 0
    local, remote = socket.socketpair(), socket.socket()
    before = [each.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) for each in (local[0], remote)]
    make_room(local[0].fileno())
    make_room(remote.fileno())
    after = [each.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) for each in (local[0], remote)]
    assert after[1] == before[1]
    assert after[0] >= max(before[0], min(allowed, 4 * 1024 * 1024))
    local[0].sendall(b"still open")
    for each in (*local, remote):
        each.close()


def test_our_connections_have_room(db: Database) -> None:
    """Those that lead to a server on this machine by a socket of its own."""
    with db.engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        with socket.socket(fileno=os.dup(driver.fileno())) as ours:
            if ours.family != socket.AF_UNIX:
                pytest.skip("the server is reached by TCP")
            room = ours.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    plain = socket.socketpair()
    assert room > plain[0].getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    for each in plain:
        each.close()
