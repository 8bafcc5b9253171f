"""
The newest definitions, fifty at a time: the first page, and one in the middle of the list.

The floor compares rows with the last one of the page before, as ours does; the peers skip rows with OFFSET, as their documentation does.
For this job the plain table has an index in the order of the list. Nobody counts: ``get_many_and_count`` would add a scan of the table.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlmodel
from sqlalchemy.orm import Session, defer

from benchmarks.datasets import Dataset
from benchmarks.harness import ALCHEMY, FLOOR, OURS, SQLMODEL, Call, Case, Contender
from benchmarks.peers import HAS_ALCHEMY, VERSION_COLUMNS, PlainDefinition, Version
from stemmadb.evaluation import definitions

if HAS_ALCHEMY:
    from benchmarks.peers import AlchemyDefinition, AlchemyDefinitions, LimitOffset, OrderBy

JOB = "page"
LIMIT = 50

_FIRST = f"SELECT {VERSION_COLUMNS} FROM plain.definitions ORDER BY created_at DESC, id DESC LIMIT {LIMIT + 1}".encode()
_BEHIND = f"""
SELECT {VERSION_COLUMNS} FROM plain.definitions WHERE (created_at, id) < (%s, %s) ORDER BY created_at DESC, id DESC LIMIT {LIMIT + 1}
""".encode()


def cases(dataset: Dataset) -> list[Case]:
    """The first page and the one in the middle, in an open session."""
    dataset.clerk.execute("CREATE INDEX IF NOT EXISTS definitions_created_at_id_idx ON plain.definitions (created_at DESC, id DESC)")
    middle = dataset.rows // 2 // 200 * 200
    cursor, last = _walk(dataset, middle)
    return [
        _case(dataset, "the first page of 50", None, None, 0),
        _case(dataset, "the page in the middle", cursor, last, middle),
    ]


def _walk(dataset: Dataset, offset: int) -> tuple[str | None, tuple[datetime, UUID] | None]:
    """Return the cursor behind so many rows, and the row there, by walking the pages before it."""
    cursor, last = None, None
    with dataset.db.session() as session:
        for _ in range(offset // 200):
            page = definitions.list_all(session, limit=200, cursor=cursor)
            cursor, last = page.next_cursor, (page[-1].created_at, page[-1].id)
    return cursor, last


def _case(dataset: Dataset, title: str, cursor: str | None, last: tuple[datetime, UUID] | None, offset: int) -> Case:
    contenders = [
        Contender(FLOOR, lambda: _psycopg(dataset, last)),
        Contender(OURS, lambda: _stemmadb(dataset, cursor)),
        Contender(SQLMODEL, lambda: _sqlmodel(dataset, offset)),
    ]
    if HAS_ALCHEMY:
        contenders.append(Contender(ALCHEMY, lambda: _alchemy(dataset, offset)))

    def drop_index() -> None:
        dataset.clerk.execute("DROP INDEX IF EXISTS plain.definitions_created_at_id_idx")

    return Case(JOB, title, dataset.rows, contenders, outcome=_ids, after=drop_index if cursor else None)


def _ids(found: Any) -> list[UUID]:
    return [version.id for version in found]


@contextlib.contextmanager
def _psycopg(dataset: Dataset, last: tuple[datetime, UUID] | None) -> Iterator[Call]:
    cursor = dataset.floor.cursor()

    def call(number: int) -> list[Version]:
        rows = cursor.execute(_BEHIND, last) if last else cursor.execute(_FIRST)
        return [Version(*row) for row in rows][:LIMIT]

    yield call


@contextlib.contextmanager
def _stemmadb(dataset: Dataset, cursor: str | None) -> Iterator[Call]:
    with dataset.db.session() as session:
        yield lambda number: definitions.list_all(session, limit=LIMIT, cursor=cursor)


@contextlib.contextmanager
def _sqlmodel(dataset: Dataset, offset: int) -> Iterator[Call]:
    def call(number: int) -> Any:
        newest = sqlmodel.select(PlainDefinition).options(defer(PlainDefinition.content))
        newest = newest.order_by(sqlmodel.desc(PlainDefinition.created_at), sqlmodel.desc(PlainDefinition.id))
        return session.exec(newest.offset(offset).limit(LIMIT)).all()

    with sqlmodel.Session(dataset.engine) as session:
        yield call


@contextlib.contextmanager
def _alchemy(dataset: Dataset, offset: int) -> Iterator[Call]:
    def call(number: int) -> Any:
        return repository.get_many(
            LimitOffset(limit=LIMIT, offset=offset),
            OrderBy(field_name="created_at", sort_order="desc"),
            OrderBy(field_name="id", sort_order="desc"),
            load=defer(AlchemyDefinition.content),
        )

    with Session(dataset.engine, expire_on_commit=False) as session:
        repository = AlchemyDefinitions(session=session)
        yield call
