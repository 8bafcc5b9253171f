"""
Random walks of callers in three workspaces: any function, with rows of any of them, in sessions that nest, commit and roll back.

Two thousand steps; fifty thousand with HYPOTHESIS_PROFILE=ci. A walk is repeated by its seed, which is in the name of the test.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import random
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session
from tests.full_databases import Filled, fill
from tests.generated_calls import Nobodys, Rows, TenantFunction, arguments_of, places_of, tenant_functions
from tests.neighbours import TENANTS, rows_of, twin_of

from stemmadb import tenancy
from stemmadb._test_server import DatabaseServer
from stemmadb.accounts import users
from stemmadb.database import Database
from stemmadb.errors import StemmaError
from stemmadb.testing import run_together

FUNCTIONS = [(function, places_of(function.function)) for function in tenant_functions()]
STEPS = 50_000 if os.environ.get("HYPOTHESIS_PROFILE") == "ci" else 2_000
_ENTITY = re.compile(r"workspace_id=UUID\('([^']*)'\)")
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

pytestmark = [pytest.mark.property, pytest.mark.slow]


class City:
    """Three full workspaces in one database, and whose every row is."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.filled = [fill(db, slug) for slug in ("north", "east", "south")]
        with db.session() as session:
            self.nobodys = Nobodys(self.filled[0], users.create(session, "stranger@walks.example").id)
        self._homes: dict[str, UUID] = {}
        with db.session() as session:
            connection = session.connection()
            connection.exec_driver_sql("SET LOCAL ROLE stemma_maintenance")
            for table in TENANTS:
                if "id" in table.columns:
                    rows = connection.execute(text(f"SELECT id, workspace_id FROM stemma.{table.name}"))
                    self._homes.update((str(id), workspace_id) for id, workspace_id in rows)

    def others(self, own: Filled) -> list[Filled]:
        """The workspaces beside this one."""
        return [filled for filled in self.filled if filled is not own]

    def reveals(self, own: Filled, answer: str, given: str) -> list[str]:
        """What an answer tells of other workspaces: their rows, or ids of rows that the caller did not name."""
        rows = [found for found in _ENTITY.findall(answer) if found != str(own.workspace_id)]
        named = set(_ID.findall(given))
        ids = [
            found for found in _ID.findall(answer) if found not in named and self._homes.get(found, own.workspace_id) != own.workspace_id
        ]
        return rows + ids


class Walker:
    """A caller in one workspace after another, who takes steps by a random number generator of its own."""

    def __init__(self, city: City, seed: object) -> None:
        self._city = city
        self._random = random.Random(f"{seed}")

    def sessions(self, steps: int, home: Filled | None = None) -> Iterator[tuple[Filled, int, bool]]:
        """Yield the workspace, the number of steps and whether to commit, of one session after another."""
        while steps > 0:
            count = min(steps, self._random.randint(1, 12))
            yield home or self._random.choice(self._city.filled), count, self._random.random() < 0.1
            steps -= count

    def call(self, own: Filled) -> tuple[TenantFunction, tuple[Any, ...], dict[str, Any]]:
        """Choose a function, and for each place a row: half of them our own, the others of another workspace or of nobody."""
        function, places = self._random.choice(FUNCTIONS)

        def choose(_place: str, kind: str) -> Any:
            whose = self._random.random()
            rows = Rows(own) if whose < 0.5 else Rows(self._random.choice(self._city.others(own))) if whose < 0.85 else self._city.nobodys
            return rows[kind]

        optional = [place for place, required in places if not required and self._random.random() < 0.3]
        arguments = arguments_of(function.function, choose, optional=optional)
        return function, arguments.positional, dict(arguments.keywords)

    def step(self, session: Session, own: Filled) -> list[str]:
        """Call one function, in a savepoint or not, and return what was revealed."""
        function, positional, keywords = self.call(own)
        kept = self._random.random() < 0.5
        with contextlib.suppress(_Undone), session.begin_nested():
            try:
                found = function.function(session, *positional, **keywords)
                answer = repr(list(found) if inspect.isgenerator(found) else found)
            except StemmaError as error:
                answer = f"{error} {error.args!r}"
                kept = False
            revealed = self._city.reveals(own, answer, repr((positional, keywords)))
            if not kept:
                raise _Undone
        return [f"{function.name}: {what}" for what in revealed]

    async def async_step(self, session: Any, own: Filled) -> list[str]:
        """As step, through the twin."""
        function, positional, keywords = self.call(own)
        try:
            async with session.begin_nested():
                found = twin_of(function)(session, *positional, **keywords)
                answer = repr([row async for row in found] if isinstance(found, AsyncIterator) else await found)
        except StemmaError as error:
            answer = f"{error} {error.args!r}"
        return [f"{function.name}: {what}" for what in self._city.reveals(own, answer, repr((positional, keywords)))]


class _Undone(Exception):
    """Rolls a savepoint back."""


@pytest.fixture
def city(stemmadb_server: DatabaseServer) -> Iterator[City]:
    """A city of the test's own: walkers leave traces."""
    name = stemmadb_server.create()
    db = stemmadb_server.connect(name)
    try:
        yield City(db)
    finally:
        db.close()
        stemmadb_server.drop(name)


@pytest.mark.requirement("TN-032", "TN-034", "TN-035", "TN-044")
@pytest.mark.parametrize("seed", [1, 2])
def test_a_walker_leaves_the_neighbours_alone(city: City, seed: int) -> None:
    """After every session of one walker, the two other workspaces are what they were to the byte, and nothing of them was told."""
    walker = Walker(city, seed)
    for own, steps, commits in walker.sessions(STEPS // 4):
        with city.db.session() as session:
            before = [rows_of(session, other.workspace_id) for other in city.others(own)]
        with city.db.session(workspace=own.workspace_id) as session:
            for _ in range(steps):
                assert walker.step(session, own) == []
            if not commits:
                session.rollback()
        with city.db.session() as session:
            assert [rows_of(session, other.workspace_id) for other in city.others(own)] == before
        with city.db.session() as session:
            assert session.scalar(text("SELECT count(*) FROM stemma.definitions")) == 0


@pytest.mark.race
@pytest.mark.requirement("TN-039", "TN-040", "TN-044")
def test_walkers_in_threads_meet_nobody(city: City) -> None:
    """Six at once, each in a workspace of the context, nesting into another one in between: none is told of the others."""
    db = city.db

    def walk(number: int) -> list[str]:
        walker, home = Walker(city, f"thread {number}"), city.filled[number % 3]
        revealed: list[str] = []
        for own, steps, commits in walker.sessions(STEPS // 24, home):
            with tenancy.workspace(own.workspace_id), db.session() as session:
                for _ in range(steps):
                    revealed += walker.step(session, own)
                # A session keeps its workspace, whatever the context says meanwhile. The inner one waits for no lock of the outer one.
                other = city.others(own)[0]
                with tenancy.workspace(other.workspace_id), db.session(read_only=True) as inner:
                    revealed += walker.step(inner, other)
                    revealed += walker.step(session, own)
                if not commits:
                    session.rollback()
        return revealed

    assert run_together(6, walk) == [[]] * 6


@pytest.mark.race
@pytest.mark.requirement("TN-039", "TN-040")
async def test_walkers_in_tasks_meet_nobody(city: City) -> None:
    """The same with the async twins, in twenty tasks over one pool."""

    async def walk(number: int) -> list[str]:
        walker = Walker(city, f"task {number}")
        revealed: list[str] = []
        for own, steps, commits in walker.sessions(STEPS // 80, city.filled[number % 3]):
            async with city.db.async_session(workspace=own.workspace_id) as session:
                for _ in range(steps):
                    revealed += await walker.async_step(session, own)
                    await asyncio.sleep(0)
                if not commits:
                    await session.rollback()
        return revealed

    try:
        assert await asyncio.gather(*map(walk, range(20))) == [[]] * 20
    finally:
        await city.db.async_engine.dispose()


@pytest.mark.offline
def test_a_walk_would_notice() -> None:
    """What reveals() looks for: an entity of another workspace, and the id of a row over there that the caller did not name."""
    own, other, row = uuid4(), uuid4(), uuid4()
    city = object.__new__(City)
    city._homes = {str(row): other}
    here = Filled(own, {}, "", None, None, None)  # type: ignore[arg-type]
    assert city.reveals(here, f"[Run(workspace_id=UUID('{other}'))]", "") == [str(other)]
    assert city.reveals(here, f"{{'{row}'}}", "") == [str(row)]
    assert city.reveals(here, f"{{'{row}'}}", f"{row}") == []
    assert city.reveals(here, f"[Run(workspace_id=UUID('{own}'))]", "") == []
