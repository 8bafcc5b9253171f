"""Renaming a definition under optimistic locking: only the version that the caller has read is overwritten."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator
from uuid import UUID

import sqlmodel
from sqlalchemy.orm import Session, defer

from benchmarks.datasets import Dataset
from benchmarks.harness import ALCHEMY, FLOOR, OURS, SQLMODEL, Call, Case, Contender
from benchmarks.peers import HAS_ALCHEMY, VERSION_COLUMNS, PlainDefinition, Version
from stemmadb.errors import VersionConflictError
from stemmadb.evaluation import definitions
from stemmadb.evaluation.definitions import DefinitionUpdate

if HAS_ALCHEMY:
    from benchmarks.peers import AlchemyDefinition, AlchemyDefinitions

JOB = "update"


class _Seen:
    """The versions that a caller has read, of rows that nobody else changes: each contender has rows of its own."""

    def __init__(self, ids: list[UUID]) -> None:
        self._ids = ids
        self._versions: defaultdict[UUID, int] = defaultdict(lambda: 1)

    def next(self, number: int) -> tuple[UUID, int]:
        """Return what a call updates, and the version that is there."""
        id = self._ids[number % len(self._ids)]
        version = self._versions[id]
        self._versions[id] = version + 1
        return id, version


def cases(dataset: Dataset) -> list[Case]:
    """Updating in a transaction of its own, committed, and as one of many in an open session."""
    # Each contender of each case has as many rows of its own; ours are those of the floor, in the other table.
    count = len(dataset.deep_ids) // 6
    ids = [dataset.deep_ids[start * count : (start + 1) * count] for start in range(6)]
    own_ids, open_ids = _Seen(ids[0]), _Seen(ids[3])
    own_plain, open_plain = [_Seen(part) for part in ids[:3]], [_Seen(part) for part in ids[3:]]
    own = [
        Contender(FLOOR, lambda: _psycopg(dataset, own_plain[0])),
        Contender(OURS, lambda: _stemmadb_transaction(dataset, own_ids)),
        Contender(SQLMODEL, lambda: _sqlmodel_transaction(dataset, own_plain[1])),
    ]
    opened = [
        Contender(FLOOR, lambda: _psycopg_open(dataset, open_plain[0])),
        Contender(OURS, lambda: _stemmadb(dataset, open_ids)),
        Contender(SQLMODEL, lambda: _sqlmodel(dataset, open_plain[1])),
    ]
    if HAS_ALCHEMY:
        own.append(Contender(ALCHEMY, lambda: _alchemy_transaction(dataset, own_plain[2])))
        opened.append(Contender(ALCHEMY, lambda: _alchemy(dataset, open_plain[2])))

    def vacuum() -> None:
        dataset.vacuum("plain.definitions", "stemma.definitions")

    return [
        Case(JOB, "one definition, own transaction", dataset.rows, own, outcome=_outcome, after=vacuum),
        Case(JOB, "one definition, open session", dataset.rows, opened, outcome=_outcome, after=vacuum),
    ]


def _outcome(updated: Version) -> tuple[str, int]:
    return updated.name, updated.version


# ------------------------------------------------------------------------------------------------------------------- floor


@contextlib.contextmanager
def _psycopg(dataset: Dataset, seen: _Seen) -> Iterator[Call]:
    cursor = dataset.floor.cursor()
    statement = f"""
        UPDATE plain.definitions SET name = %s, version = version + 1, updated_at = now()
         WHERE id = %s AND version = %s
        RETURNING {VERSION_COLUMNS}
    """.encode()

    def call(number: int) -> Version:
        id, version = seen.next(number)
        row = cursor.execute(statement, (f"Renamed {number}", id, version)).fetchone()
        if row is None:
            raise VersionConflictError("Definition", id, version, -1)
        return Version(*row)

    yield call


@contextlib.contextmanager
def _psycopg_open(dataset: Dataset, seen: _Seen) -> Iterator[Call]:
    with _psycopg(dataset, seen) as call, dataset.floor.transaction():
        yield call


# ---------------------------------------------------------------------------------------------------------------- stemmadb


@contextlib.contextmanager
def _stemmadb_transaction(dataset: Dataset, seen: _Seen) -> Iterator[Call]:
    def call(number: int) -> definitions.Definition:
        id, version = seen.next(number)
        with dataset.db.session() as session:
            return definitions.update(session, id, DefinitionUpdate(name=f"Renamed {number}"), expected_version=version)

    yield call


@contextlib.contextmanager
def _stemmadb(dataset: Dataset, seen: _Seen) -> Iterator[Call]:
    def call(number: int) -> definitions.Definition:
        id, version = seen.next(number)
        return definitions.update(session, id, DefinitionUpdate(name=f"Renamed {number}"), expected_version=version)

    with dataset.db.session() as session:
        yield call


# ------------------------------------------------------------------------------------------------------------------- peers

_NO_CONTENT = [defer(PlainDefinition.content)]


@contextlib.contextmanager
def _sqlmodel_transaction(dataset: Dataset, seen: _Seen) -> Iterator[Call]:
    def call(number: int) -> PlainDefinition:
        id, version = seen.next(number)
        with sqlmodel.Session(dataset.engine) as session:
            found = session.get_one(PlainDefinition, id, options=_NO_CONTENT)
            if found.version != version:
                raise VersionConflictError("Definition", id, version, found.version)
            found.name = f"Renamed {number}"
            session.add(found)
            session.commit()
            session.refresh(found)
            return found

    yield call


@contextlib.contextmanager
def _sqlmodel(dataset: Dataset, seen: _Seen) -> Iterator[Call]:
    def call(number: int) -> PlainDefinition:
        id, version = seen.next(number)
        found = session.get_one(PlainDefinition, id, options=_NO_CONTENT)
        if found.version != version:
            raise VersionConflictError("Definition", id, version, found.version)
        found.name = f"Renamed {number}"
        session.add(found)
        session.flush()
        return found

    with sqlmodel.Session(dataset.engine) as session:
        yield call
        session.commit()


@contextlib.contextmanager
def _alchemy_transaction(dataset: Dataset, seen: _Seen) -> Iterator[Call]:
    def call(number: int) -> AlchemyDefinition:
        with Session(dataset.engine, expire_on_commit=False) as session:
            return _alchemy_update(AlchemyDefinitions(session=session, auto_commit=True), seen, number)

    yield call


@contextlib.contextmanager
def _alchemy(dataset: Dataset, seen: _Seen) -> Iterator[Call]:
    with Session(dataset.engine, expire_on_commit=False) as session:
        repository = AlchemyDefinitions(session=session)
        yield lambda number: _alchemy_update(repository, seen, number)
        session.commit()


def _alchemy_update(repository: AlchemyDefinitions, seen: _Seen, number: int) -> AlchemyDefinition:
    id, version = seen.next(number)
    found = repository.get(id, load=defer(AlchemyDefinition.content))
    if found.version != version:
        raise VersionConflictError("Definition", id, version, found.version)
    found.name = f"Renamed {number}"
    return repository.update(found)
