"""The cursors of our own connections describe their results as psycopg's do, as far as anybody asks."""

from typing import Any

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

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
