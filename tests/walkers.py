"""Callers who walk at random: any function of a workspace, with rows of any workspace, and what shows that they met a neighbour."""

from __future__ import annotations

import contextlib
import inspect
import random
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID, uuid4

from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.orm import Session
from tests.full_databases import Filled, fill
from tests.generated_calls import Nobodys, Rows, TenantFunction, arguments_of, places_of, tenant_functions
from tests.neighbours import TENANTS, rows_of, twin_of

from stemmadb import tenancy
from stemmadb._test_server import DatabaseServer
from stemmadb.accounts import users
from stemmadb.database import Database
from stemmadb.errors import StemmaError

FUNCTIONS = [(function, places_of(function.function)) for function in tenant_functions()]
ENTITY = re.compile(r"workspace_id=UUID\('([^']*)'\)")
ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
# Texts by which no row is looked up: each gets the mark of its workspace.
_MARKED = {"title", "description", "message", "preview", "reason", "error_message", "name"}

Ending = Literal["commit", "rollback", "exception"]


_STATE = text(
    " UNION ALL ".join(
        f"SELECT workspace_id, '{table.name}', count(*), sum(hashtextextended(CAST(to_jsonb(found) AS text), 0)) "
        f"FROM stemma.{table.name} AS found GROUP BY workspace_id"
        for table in TENANTS
    )
)


class Undone(Exception):
    """Rolls a savepoint, or a session, back."""


class City:
    """Three full workspaces in one database, whose every row it is, and a mark that all texts of a workspace carry."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.marks: dict[UUID, str] = {}
        self.filled = []
        for word in ("north", "east", "south"):
            filled = fill(db, word)
            self.filled.append(filled)
            # No caller ever names it, as callers name labels and contents of others.
            self.marks[filled.workspace_id] = f"mark-{uuid4().hex}"
        self.marked = self._mark()
        with db.session() as session:
            self.nobodys = Nobodys(self.filled[0], users.create(session, "stranger@walks.example").id)
        # A cohort keeps the ids that its maker names, of whatever they are, and shows them to its workspace.
        self.criteria: dict[UUID, set[str]] = {filled.workspace_id: set() for filled in self.filled}
        self.homes: dict[str, UUID] = {}
        with db.session() as session:
            connection = session.connection()
            connection.exec_driver_sql("SET LOCAL ROLE stemma_maintenance")
            for table in TENANTS:
                if "id" in table.columns:
                    rows = connection.execute(text(f"SELECT id, workspace_id FROM stemma.{table.name}"))
                    self.homes.update((str(id), workspace_id) for id, workspace_id in rows)

    def _mark(self) -> set[str]:
        """Put the mark of its workspace into texts, and return which tables have marked ones."""
        found = set()
        owner = create_engine(self.db.direct_url, poolclass=NullPool)
        with owner.begin() as connection:
            for table in TENANTS:
                columns = [column.name for column in table.columns if column.name in _MARKED and not column.primary_key]
                if not columns:
                    continue
                found.add(table.name)
                connection.exec_driver_sql(f"ALTER TABLE stemma.{table.name} DISABLE TRIGGER USER")
                changes = ", ".join(f"{name} = {name} || ' ' || :mark" for name in columns)
                for workspace_id, mark in self.marks.items():
                    connection.exec_driver_sql(f"SET LOCAL stemma.workspace_id = '{workspace_id}'")
                    connection.execute(text(f"UPDATE stemma.{table.name} SET {changes}"), {"mark": mark})
                connection.exec_driver_sql("SET CONSTRAINTS ALL IMMEDIATE")
                connection.exec_driver_sql(f"ALTER TABLE stemma.{table.name} ENABLE TRIGGER USER")
        owner.dispose()
        return found

    def others(self, own: Filled) -> list[Filled]:
        """The workspaces beside this one."""
        return [filled for filled in self.filled if filled is not own]

    def reveals(self, own: Filled, answer: str, given: str, function: str = "") -> list[str]:
        """What an answer tells of other workspaces: their rows, ids of rows that the caller did not name, and marked texts."""
        rows = [found for found in ENTITY.findall(answer) if found != str(own.workspace_id)]
        named = set(ID.findall(given))
        if function.startswith("evaluation.cohorts."):
            named |= self.criteria[own.workspace_id]
        ids = [found for found in ID.findall(answer) if found not in named and self.homes.get(found, own.workspace_id) != own.workspace_id]
        theirs = [mark for workspace_id, mark in self.marks.items() if workspace_id != own.workspace_id]
        return rows + ids + [mark for mark in theirs if mark in answer and mark not in given]

    def state(self) -> dict[UUID, list[Any]]:
        """Number and digest of the rows of each workspace, in each table."""
        found: dict[UUID, list[Any]] = {filled.workspace_id: [] for filled in self.filled}
        with self.db.session() as session:
            connection = session.connection()
            connection.exec_driver_sql("SET LOCAL ROLE stemma_maintenance")
            for workspace_id, *row in connection.execute(_STATE):
                found[workspace_id].append(tuple(row))
        return found

    def counts(self, own: Filled) -> list[str]:
        """The tables of which a session in the workspace counts other rows than those of the workspace."""
        statement = text(" UNION ALL ".join(f"SELECT '{table.name}', count(*) FROM stemma.{table.name}" for table in TENANTS))
        with self.db.session(workspace=own.workspace_id) as session:
            seen = session.execute(statement).all()
        with self.db.session() as session:
            there = [(name, count) for name, count, _digest in rows_of(session, own.workspace_id)]
        return [name for (name, count), (_, expected) in zip(seen, there, strict=True) if count != expected]


@contextmanager
def city_on(server: DatabaseServer) -> Iterator[City]:
    """Make a city in a database of its own, and drop it afterwards."""
    name = server.create()
    db = server.connect(name)
    try:
        yield City(db)
    finally:
        db.close()
        server.drop(name)


@dataclass(frozen=True)
class Visit:
    """One session of a walk."""

    own: Filled
    steps: int
    ending: Ending


@dataclass(frozen=True)
class Step:
    """A call of one function, and what it was given."""

    function: TenantFunction
    positional: tuple[Any, ...]
    keywords: dict[str, Any]

    @property
    def given(self) -> str:
        """All that the caller names."""
        return repr((self.positional, self.keywords))

    def answer(self, session: Session) -> tuple[str, bool]:
        """What the caller learns, and whether it is a result and no error."""
        try:
            found = self.function.function(session, *self.positional, **self.keywords)
            return repr(list(found) if inspect.isgenerator(found) else found), True
        except StemmaError as error:
            return f"{type(error).__name__}: {error} {error.args!r}", False

    async def async_answer(self, session: Any) -> tuple[str, bool]:
        """As answer, through the twin."""
        try:
            found = twin_of(self.function)(session, *self.positional, **self.keywords)
            return repr([row async for row in found] if isinstance(found, AsyncIterator) else await found), True
        except StemmaError as error:
            return f"{type(error).__name__}: {error} {error.args!r}", False


class Walker:
    """A caller in one workspace after another, who takes steps by a random number generator of its own."""

    def __init__(self, city: City, seed: object) -> None:
        self._city = city
        self._random = random.Random(f"{seed}")
        self.called: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.revealed: list[str] = []

    @property
    def steps(self) -> int:
        """How many were taken."""
        return self.called.total()

    def visits(self, steps: int, home: Filled | None = None) -> Iterator[Visit]:
        """Yield one session after another, until so many steps are taken."""
        while (left := steps - self.steps) > 0:
            chance = self._random.random()
            ending: Ending = "commit" if chance < 0.1 else "exception" if chance < 0.3 else "rollback"
            yield Visit(home or self._random.choice(self._city.filled), min(left, self._random.randint(1, 12)), ending)

    def chance(self, share: float) -> bool:
        """Decide by lot."""
        return self._random.random() < share

    def choose(self, own: Filled) -> Step:
        """Choose a function, and for each place a row: half of them our own, the others of another workspace or of nobody."""
        function, places = self._random.choice(FUNCTIONS)

        def row(_place: str, kind: str) -> Any:
            whose = self._random.random()
            rows = Rows(own) if whose < 0.5 else Rows(self._random.choice(self._city.others(own))) if whose < 0.85 else self._city.nobodys
            return rows[kind]

        optional = [place for place, required in places if not required and self._random.random() < 0.3]
        arguments = arguments_of(function.function, row, optional=optional)
        keywords = dict(arguments.keywords)
        if "seed" in inspect.signature(function.function).parameters:
            # Without one each call draws another sample.
            keywords["seed"] = 7
        step = Step(function, arguments.positional, keywords)
        if function.name in {"evaluation.cohorts.create", "evaluation.cohorts.update"}:
            self._city.criteria[own.workspace_id].update(ID.findall(step.given))
        return step

    def note(self, own: Filled, step: Step, answer: str, *, is_result: bool) -> None:
        """Count a step, and keep what it revealed."""
        self.called[step.function.name] += 1
        self.answered[step.function.name] += is_result
        self.revealed += [f"{step.function.name}: {what}" for what in self._city.reveals(own, answer, step.given, step.function.name)]

    def step(self, session: Session, own: Filled) -> None:
        """Call one function, in up to three savepoints of which some are rolled back."""
        step = self.choose(own)
        with contextlib.ExitStack() as savepoints:
            for _ in range(self._random.choice((1, 1, 2, 3))):
                savepoints.enter_context(contextlib.suppress(Undone))
                savepoints.enter_context(session.begin_nested())
            answer, is_result = step.answer(session)
            self.note(own, step, answer, is_result=is_result)
            if not is_result or self.chance(0.5):
                raise Undone

    async def async_step(self, session: Any, own: Filled) -> None:
        """As step, through the twin."""
        step = self.choose(own)
        with contextlib.suppress(Undone):
            async with session.begin_nested():
                answer, is_result = await step.async_answer(session)
                self.note(own, step, answer, is_result=is_result)
                if not is_result or self.chance(0.5):
                    raise Undone

    def inside(self, own: Filled, fn: Callable[[], None]) -> None:
        """Run a function in the workspace of the context, as a block or decorated."""
        if self.chance(0.5):
            with tenancy.workspace(own.workspace_id):
                fn()
        else:
            tenancy.workspace(str(own.workspace_id))(fn)()
