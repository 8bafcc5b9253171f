"""Reading one definition by its key: what every request does first."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from uuid import UUID

import sqlmodel
from pydantic import BaseModel
from sqlalchemy.orm import Session, defer

from benchmarks.datasets import Dataset
from benchmarks.harness import ALCHEMY, FLOOR, OURS, SQLMODEL, Call, Case, Contender
from benchmarks.peers import HAS_ALCHEMY, VERSION_COLUMNS, PlainDefinition, Version
from stemmadb.evaluation import definitions

if HAS_ALCHEMY:
    from benchmarks.peers import AlchemyDefinition, AlchemyDefinitions

JOB = "read"

Key = Callable[[int], UUID]
"""The id that a call is about."""


class Dimension(BaseModel):
    """An axis, as a plain model has it."""

    name: str
    values: list[str] = []


class Content(BaseModel):
    """What a definition says, as a plain model: for those who validate by hand what they have read."""

    schema_version: int
    preamble: str
    template: str
    dimensions: list[Dimension] = []
    matching_rules: list[str] = []


def cases(dataset: Dataset) -> list[Case]:
    """Reading in an open session, in a transaction of its own, and with the content as a validated document."""
    ids = dataset.deep_ids

    def key(number: int) -> UUID:
        return ids[number % len(ids)]

    opened = [
        Contender(FLOOR, lambda: _psycopg(dataset, key)),
        Contender(OURS, lambda: _stemmadb(dataset, key)),
        Contender(SQLMODEL, lambda: _sqlmodel(dataset, key)),
    ]
    own = [
        Contender(FLOOR, lambda: _psycopg(dataset, key)),
        Contender(OURS, lambda: _stemmadb_transaction(dataset, key)),
        Contender(SQLMODEL, lambda: _sqlmodel_transaction(dataset, key)),
    ]
    validated = [
        Contender(FLOOR, lambda: _psycopg_validated(dataset, key)),
        Contender(OURS, lambda: _stemmadb_validated(dataset, key)),
        Contender(SQLMODEL, lambda: _sqlmodel_validated(dataset, key)),
    ]
    if HAS_ALCHEMY:
        opened.append(Contender(ALCHEMY, lambda: _alchemy(dataset, key)))
        own.append(Contender(ALCHEMY, lambda: _alchemy_transaction(dataset, key)))
        validated.append(Contender(ALCHEMY, lambda: _alchemy_validated(dataset, key)))
    return [
        Case(JOB, "by key, open session", dataset.rows, opened, outcome=lambda found: (found.id, found.parent_id, found.message)),
        Case(JOB, "by key, own transaction", dataset.rows, own, outcome=lambda found: (found.id, found.parent_id, found.message)),
        Case(JOB, "by key, with its validated document", dataset.rows, validated, outcome=lambda found: (found[0], found[1].template)),
    ]


# ------------------------------------------------------------------------------------------------------------------- floor


@contextlib.contextmanager
def _psycopg(dataset: Dataset, key: Key) -> Iterator[Call]:
    cursor = dataset.floor.cursor(binary=True)
    statement = f"SELECT {VERSION_COLUMNS} FROM plain.definitions WHERE id = %s".encode()

    def call(number: int) -> Version:
        return Version(*cursor.execute(statement, (key(number),)).fetchone())

    yield call


@contextlib.contextmanager
def _psycopg_validated(dataset: Dataset, key: Key) -> Iterator[Call]:
    cursor = dataset.floor.cursor()
    statement = f"SELECT {VERSION_COLUMNS}, content::text FROM plain.definitions WHERE id = %s".encode()

    def call(number: int) -> tuple[UUID, Content]:
        row = cursor.execute(statement, (key(number),)).fetchone()
        return Version(*row[:-1]).id, Content.model_validate_json(row[-1])

    yield call


# ---------------------------------------------------------------------------------------------------------------- stemmadb


@contextlib.contextmanager
def _stemmadb(dataset: Dataset, key: Key) -> Iterator[Call]:
    with dataset.db.session() as session:
        yield lambda number: definitions.get(session, key(number))


@contextlib.contextmanager
def _stemmadb_transaction(dataset: Dataset, key: Key) -> Iterator[Call]:
    def call(number: int) -> definitions.Definition:
        with dataset.db.session() as session:
            return definitions.get(session, key(number))

    yield call


@contextlib.contextmanager
def _stemmadb_validated(dataset: Dataset, key: Key) -> Iterator[Call]:
    def call(number: int) -> tuple[UUID, definitions.DefinitionContent]:
        found = definitions.get_with_content(session, key(number))
        return found.definition.id, found.content

    with dataset.db.session() as session:
        yield call


# ------------------------------------------------------------------------------------------------------------------- peers

_NO_CONTENT = [defer(PlainDefinition.content)]


@contextlib.contextmanager
def _sqlmodel(dataset: Dataset, key: Key) -> Iterator[Call]:
    with sqlmodel.Session(dataset.engine) as session:
        yield lambda number: session.get(PlainDefinition, key(number), options=_NO_CONTENT)


@contextlib.contextmanager
def _sqlmodel_transaction(dataset: Dataset, key: Key) -> Iterator[Call]:
    def call(number: int) -> PlainDefinition | None:
        with sqlmodel.Session(dataset.engine) as session:
            return session.get(PlainDefinition, key(number), options=_NO_CONTENT)

    yield call


@contextlib.contextmanager
def _sqlmodel_validated(dataset: Dataset, key: Key) -> Iterator[Call]:
    def call(number: int) -> tuple[UUID, Content]:
        found = session.get_one(PlainDefinition, key(number))
        return found.id, Content.model_validate(found.content)

    with sqlmodel.Session(dataset.engine) as session:
        yield call


@contextlib.contextmanager
def _alchemy(dataset: Dataset, key: Key) -> Iterator[Call]:
    with Session(dataset.engine, expire_on_commit=False) as session:
        repository = AlchemyDefinitions(session=session)
        yield lambda number: repository.get(key(number), load=defer(AlchemyDefinition.content))


@contextlib.contextmanager
def _alchemy_transaction(dataset: Dataset, key: Key) -> Iterator[Call]:
    def call(number: int) -> AlchemyDefinition:
        with Session(dataset.engine, expire_on_commit=False) as session:
            return AlchemyDefinitions(session=session).get(key(number), load=defer(AlchemyDefinition.content))

    yield call


@contextlib.contextmanager
def _alchemy_validated(dataset: Dataset, key: Key) -> Iterator[Call]:
    def call(number: int) -> tuple[UUID, Content]:
        found = repository.get(key(number))
        return found.id, Content.model_validate(found.content)

    with Session(dataset.engine, expire_on_commit=False) as session:
        repository = AlchemyDefinitions(session=session)
        yield call
