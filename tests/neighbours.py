"""Two workspaces side by side, and what a caller in one learns of the other when functions are called with the other's ids."""

from __future__ import annotations

import inspect
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any
from uuid import UUID

import psycopg
from sqlalchemy import text
from sqlalchemy.exc import InternalError
from sqlalchemy.orm import Session
from tests.full_databases import Filled, fill
from tests.generated_calls import Arguments, Nobodys, Rows, TenantFunction, arguments_of, places_of

from stemmadb._conformance._tables import is_tenant_table
from stemmadb._test_server import DatabaseServer
from stemmadb.accounts import users
from stemmadb.database import Database
from stemmadb.entity import metadata
from stemmadb.errors import StemmaError
from stemmadb.packs import packs

packs()
TENANTS = [table for table in metadata.sorted_tables if is_tenant_table(table)]


@dataclass(frozen=True)
class Neighbours:
    """Two workspaces that have everything, in one database."""

    db: Database
    ours: Filled
    theirs: Filled
    nobodys: Nobodys


@contextmanager
def two_workspaces(server: DatabaseServer) -> Iterator[Neighbours]:
    """Make a database with two full workspaces, and drop it afterwards."""
    name = server.create()
    db = server.connect(name)
    try:
        ours, theirs = fill(db, "ours"), fill(db, "theirs")
        with db.session() as session:
            stranger = users.create(session, "stranger@full.example").id
        yield Neighbours(db, ours, theirs, Nobodys(ours, stranger))
    finally:
        db.close()
        server.drop(name)


_ROWS = text(
    " UNION ALL ".join(
        f"SELECT '{table.name}', count(*), coalesce(sum(hashtextextended(CAST(to_jsonb(found) AS text), 0)), 0) "
        f"FROM stemma.{table.name} AS found WHERE workspace_id = :workspace_id"
        for table in TENANTS
    )
)


def rows_of(session: Session, workspace_id: UUID) -> Any:
    """Number and digest of the rows of a workspace in each table, as the session's transaction would leave them; None if it failed."""
    connection = session.connection()
    try:
        connection.exec_driver_sql("SET LOCAL ROLE stemma_maintenance")
    except InternalError as error:
        if isinstance(error.orig, psycopg.errors.InFailedSqlTransaction):
            # Nothing of it can stay.
            return None
        raise
    return connection.execute(_ROWS, {"workspace_id": workspace_id}).all()


def told(answer: Any, given: Mapping[str, Any]) -> str:
    """What a caller learns from a result or an error, without what the caller gave and what is new in each call."""
    found = f"{type(answer).__name__}: {answer} {answer.args!r}" if isinstance(answer, BaseException) else repr(answer)
    for value in given.values():
        for part in _parts(value):
            found = found.replace(part, "<given>")
    found = re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}", "<id>", found)
    found = re.sub(r"datetime\.datetime\([^)]*\)\)?", "<time>", found)
    # The hash of a content that was given.
    found = re.sub(r"""\bb('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")""", "<bytes>", found)
    return re.sub(r"next_cursor='[^']*'", "<cursor>", found)


def _parts(value: Any) -> list[str]:
    if isinstance(value, UUID | str):
        return [str(value)]
    if hasattr(value, "key"):
        return [*_parts(value.key), value.worker]
    return [str(value.run_id), str(value.scenario_id)] if hasattr(value, "run_id") else [value.template]


class Call:
    """A call of one function in which one place, or each that must be filled, names a row of somebody else."""

    def __init__(self, neighbours: Neighbours, function: TenantFunction, place: str | None) -> None:
        self._neighbours = neighbours
        self._function = function
        self.place = place
        self.given: dict[str, Any] = {}

    def arguments(self, rows: Any) -> Arguments:
        """Return its arguments, with these rows in the place, and rows of our own elsewhere."""
        self.given = {}
        ours = Rows(self._neighbours.ours)

        def choose(place: str, kind: str) -> Any:
            if self.place not in (None, place):
                return ours[kind]
            self.given[place] = rows[kind]
            assert self.given[place] is not None, f"tests/full_databases.py makes no {kind}"
            return self.given[place]

        return arguments_of(self._function.function, choose, optional=() if self.place is None else (self.place,))

    def answer(self, session: Session, rows: Any, **more: Any) -> str:
        """Call the function and return what the caller learns; arguments that it does not take are left out."""
        arguments = self.arguments(rows)
        taken = inspect.signature(self._function.function).parameters
        keywords = {**arguments.keywords, **{name: value for name, value in more.items() if name in taken}}
        try:
            found = self._function.function(session, *arguments.positional, **keywords)
            found = list(found) if inspect.isgenerator(found) else found
        except StemmaError as error:
            found = error
        return told(found, self.given)

    async def async_answer(self, session: Any, rows: Any) -> str:
        """As answer, through the twin."""
        arguments = self.arguments(rows)
        try:
            found = twin_of(self._function)(session, *arguments.positional, **arguments.keywords)
            found = [row async for row in found] if isinstance(found, AsyncIterator) else await found
        except StemmaError as error:
            found = error
        return told(found, self.given)


def twin_of(function: TenantFunction) -> Callable[..., Any]:
    """The async twin of a function."""
    module, _, name = function.name.rpartition(".")
    found: Callable[..., Any] = getattr(import_module(f"stemmadb.aio.{module}"), name)
    return found


def calls(neighbours: Neighbours, function: TenantFunction) -> list[Call]:
    """Every place on its own, and all that must be filled together."""
    places = places_of(function.function)
    together = [Call(neighbours, function, None)] if sum(required for _, required in places) > 1 else []
    return [Call(neighbours, function, place) for place, _ in places] + together


def refuse_to_tell(neighbours: Neighbours, function: TenantFunction) -> None:
    """Call a function with ids of the other workspace and with nobody's, and compare what came of it."""
    with neighbours.db.session() as session:
        before = rows_of(session, neighbours.theirs.workspace_id)
    for call in calls(neighbours, function):
        answers = []
        for rows in (Rows(neighbours.theirs), neighbours.nobodys):
            with neighbours.db.session(workspace=neighbours.ours.workspace_id) as session:
                answers.append(call.answer(session, rows))
                assert rows_of(session, neighbours.theirs.workspace_id) in (before, None)
                session.rollback()
        assert answers[0] == answers[1]


_CLOCKED = re.compile(r"\b(per_minute)=[0-9.]+")


def refuse_to_depend(neighbours: Neighbours, function: TenantFunction) -> None:
    """Call a function with a workspace's own rows, the other workspace there and deleted, and compare what came of it: for both of them."""
    for own, other in ((neighbours.ours, neighbours.theirs), (neighbours.theirs, neighbours.ours)):
        call, answers = Call(replace(neighbours, ours=own, theirs=other), function, None), []
        with neighbours.db.session() as session:
            before = rows_of(session, other.workspace_id)
        for alone in (False, True):
            with neighbours.db.session(workspace=own.workspace_id) as session:
                if alone:
                    statement = text("DELETE FROM stemma.workspaces WHERE id <> :own")
                    assert session.connection().execute(statement, {"own": own.workspace_id}).rowcount > 0
                answers.append(_CLOCKED.sub("<rate>", call.answer(session, Rows(own), seed=7)))
                if not alone:
                    assert rows_of(session, other.workspace_id) in (before, None)
                session.rollback()
        assert answers[0] == answers[1]
