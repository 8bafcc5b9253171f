"""Making a definition: one row with a document, of which the caller wants to see what the database made of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pydantic_core
import sqlmodel
from psycopg.types.json import Jsonb
from sqlalchemy.orm import Session

from benchmarks.datasets import Dataset
from benchmarks.harness import ALCHEMY, FLOOR, OURS, SQLMODEL, Call, Case, Contender
from benchmarks.peers import HAS_ALCHEMY, VERSION_COLUMNS, PlainDefinition, Version
from stemmadb.entity import uuid7
from stemmadb.evaluation import definitions
from stemmadb.evaluation.definitions import DefinitionCreate
from stemmadb.evaluation.documents import DefinitionContent, Dimension

if HAS_ALCHEMY:
    from benchmarks.peers import AlchemyDefinition, AlchemyDefinitions

JOB = "insert"

_MESSAGE = "made by the benchmark"
_CONTENT = DefinitionContent(
    preamble="You are the only one near the lever. " + "Nobody can be asked. " * 12,
    template="A trolley nears {victims}, who cannot hear it. On the other track stands {bystander}.",
    dimensions=(Dimension(name="victims", values=("one", "two", "five")), Dimension(name="bystander", values=("a friend", "a stranger"))),
)
_RAW = _CONTENT.dump()


def cases(dataset: Dataset) -> list[Case]:
    """Inserting in a transaction of its own, committed, and as one of many in an open session."""
    own = [
        Contender(FLOOR, lambda: _psycopg(dataset)),
        Contender(OURS, lambda: _stemmadb_transaction(dataset)),
        Contender(SQLMODEL, lambda: _sqlmodel_transaction(dataset)),
    ]
    opened = [
        Contender(FLOOR, lambda: _psycopg_open(dataset)),
        Contender(OURS, lambda: _stemmadb(dataset)),
        Contender(SQLMODEL, lambda: _sqlmodel(dataset)),
    ]
    if HAS_ALCHEMY:
        own.append(Contender(ALCHEMY, lambda: _alchemy_transaction(dataset)))
        opened.append(Contender(ALCHEMY, lambda: _alchemy(dataset)))

    def vacuum() -> None:
        dataset.vacuum("plain.definitions", "stemma.definitions")

    return [
        Case(JOB, "one definition, own transaction", dataset.rows, own, outcome=_outcome, after=vacuum),
        Case(JOB, "one definition, open session", dataset.rows, opened, outcome=_outcome, after=vacuum),
    ]


def _outcome(made: Version) -> tuple[str, int, bool]:
    return made.name, made.version, made.created_at == made.updated_at


@contextlib.contextmanager
def _cleaned(dataset: Dataset, table: str, call: Call) -> Iterator[Call]:
    """Delete what the calls have made."""
    ids = []

    def noted(number: int) -> Version:
        made = call(number)
        ids.append(made.id)
        return made

    yield noted
    dataset.clerk.execute(f"DELETE FROM {table} WHERE id = ANY (%s)".encode(), [ids])


# ------------------------------------------------------------------------------------------------------------------- floor


def _psycopg(dataset: Dataset) -> contextlib.AbstractContextManager[Call]:
    cursor = dataset.floor.cursor()
    statement = f"INSERT INTO plain.definitions (id, name, content, message) VALUES (%s, %s, %s, %s) RETURNING {VERSION_COLUMNS}".encode()

    def call(number: int) -> Version:
        values = (uuid7(), f"New {number}", Jsonb(_CONTENT, pydantic_core.to_json), _MESSAGE)
        return Version(*cursor.execute(statement, values).fetchone())

    return _cleaned(dataset, "plain.definitions", call)


@contextlib.contextmanager
def _psycopg_open(dataset: Dataset) -> Iterator[Call]:
    with _psycopg(dataset) as call, dataset.floor.transaction():
        yield call


# ---------------------------------------------------------------------------------------------------------------- stemmadb


def _stemmadb_transaction(dataset: Dataset) -> contextlib.AbstractContextManager[Call]:
    def call(number: int) -> definitions.Definition:
        with dataset.db.session() as session:
            return definitions.create(session, DefinitionCreate(name=f"New {number}", content=_CONTENT, message=_MESSAGE))

    return _cleaned(dataset, "stemma.definitions", call)


@contextlib.contextmanager
def _stemmadb(dataset: Dataset) -> Iterator[Call]:
    def call(number: int) -> definitions.Definition:
        return definitions.create(session, DefinitionCreate(name=f"New {number}", content=_CONTENT, message=_MESSAGE))

    with _cleaned(dataset, "stemma.definitions", call) as cleaned, dataset.db.session() as session:
        yield cleaned


# ------------------------------------------------------------------------------------------------------------------- peers


def _sqlmodel_transaction(dataset: Dataset) -> contextlib.AbstractContextManager[Call]:
    def call(number: int) -> PlainDefinition:
        with sqlmodel.Session(dataset.engine) as session:
            made = PlainDefinition(name=f"New {number}", content=_RAW, message=_MESSAGE)
            session.add(made)
            session.commit()
            session.refresh(made)
            return made

    return _cleaned(dataset, "plain.definitions", call)


@contextlib.contextmanager
def _sqlmodel(dataset: Dataset) -> Iterator[Call]:
    def call(number: int) -> PlainDefinition:
        made = PlainDefinition(name=f"New {number}", content=_RAW, message=_MESSAGE)
        session.add(made)
        session.flush()
        session.refresh(made)
        return made

    with _cleaned(dataset, "plain.definitions", call) as cleaned, sqlmodel.Session(dataset.engine) as session:
        yield cleaned
        session.commit()


def _alchemy_transaction(dataset: Dataset) -> contextlib.AbstractContextManager[Call]:
    def call(number: int) -> AlchemyDefinition:
        with Session(dataset.engine, expire_on_commit=False) as session:
            made = AlchemyDefinition(name=f"New {number}", content=_RAW, message=_MESSAGE)
            return AlchemyDefinitions(session=session).add(made, auto_commit=True)

    return _cleaned(dataset, "plain.definitions", call)


@contextlib.contextmanager
def _alchemy(dataset: Dataset) -> Iterator[Call]:
    def call(number: int) -> AlchemyDefinition:
        return repository.add(AlchemyDefinition(name=f"New {number}", content=_RAW, message=_MESSAGE))

    with _cleaned(dataset, "plain.definitions", call) as cleaned, Session(dataset.engine, expire_on_commit=False) as session:
        repository = AlchemyDefinitions(session=session)
        yield cleaned
        session.commit()
