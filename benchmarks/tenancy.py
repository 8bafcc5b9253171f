"""
What workspaces cost, with and without: the policy of row-level security, the setting of the transaction, the condition on a statement.

Everybody reads one definition by its key. For the policy and the setting these are contenders on psycopg; the floor has a role that no
policy holds. ``naive`` is what people write who set the workspace by hand: BEGIN, SET LOCAL, SELECT and COMMIT, one after the other. For
the condition it is one ORM statement, in a session across all workspaces, to which none is added, and in a session in a workspace. The last
case is the whole of it: a function of the library in a workspace, beside the same statement by the same means under no policy.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, select

from benchmarks.datasets import Connection, Dataset
from benchmarks.harness import OURS, Call, Case, Contender
from stemmadb.evaluation import definitions
from stemmadb.evaluation.entities import Definition
from stemmadb.query import sql

JOB = "tenancy"

_READ = b"SELECT id, name, depth, message, version, created_at FROM stemma.definitions WHERE workspace_id = %s AND id = %s"
_UNGUARDED = sql(
    Definition, "SELECT {columns} FROM stemma.definitions WHERE definitions.workspace_id = :workspace_id AND definitions.id = :id"
)
_SELECT = select(Definition).where(Definition.id == bindparam("id"))


def cases(dataset: Dataset) -> list[Case]:
    """All of it; the policy and the setting; the condition."""
    free, held = dataset.connect(dataset.db.url), dataset.connect(dataset.db.url)
    free.execute("SET ROLE stemma_maintenance")
    kept = dataset.connect(dataset.db.url)
    kept.execute("SELECT set_config('stemma.workspace_id', %s, false)", [str(dataset.workspace_id)])
    policy = [
        Contender("no policy", lambda: _plain(dataset, free)),
        Contender("policy", lambda: _plain(dataset, kept)),
        Contender("policy, BEGIN with the setting", lambda: _in_transaction(dataset, held, at_once=True)),
        Contender("policy, naive", lambda: _in_transaction(dataset, held, at_once=False)),
    ]
    condition = [
        Contender("no condition", lambda: _orm_everywhere(dataset)),
        Contender(OURS, lambda: _orm(dataset)),
    ]
    reading = [
        Contender("no workspace, no policy", lambda: _unguarded(dataset)),
        Contender(OURS, lambda: _guarded(dataset)),
    ]
    return [
        Case(JOB, "reading by key with the library", dataset.rows, reading, outcome=lambda found: found.id),
        Case(JOB, "policy and setting", dataset.rows, policy, outcome=lambda row: row[0]),
        Case(JOB, "condition on an ORM statement", dataset.rows, condition, outcome=lambda found: found.id),
    ]


def _key(dataset: Dataset, number: int) -> UUID:
    return dataset.deep_ids[number % len(dataset.deep_ids)]


@contextlib.contextmanager
def _plain(dataset: Dataset, connection: Connection) -> Iterator[Call]:
    def call(number: int) -> Any:
        return connection.execute(_READ, (dataset.workspace_id, _key(dataset, number)), prepare=True).fetchone()

    yield call


@contextlib.contextmanager
def _in_transaction(dataset: Dataset, connection: Connection, *, at_once: bool) -> Iterator[Call]:
    setting = f"SET LOCAL stemma.workspace_id = '{dataset.workspace_id}'"
    opening = [f"BEGIN; {setting}"] if at_once else ["BEGIN", setting]

    def call(number: int) -> Any:
        for command in opening:
            connection.execute(command.encode(), prepare=False)
        row = connection.execute(_READ, (dataset.workspace_id, _key(dataset, number)), prepare=True).fetchone()
        connection.execute("COMMIT", prepare=False)
        return row

    yield call


@contextlib.contextmanager
def _orm_everywhere(dataset: Dataset) -> Iterator[Call]:
    with dataset.db.all_workspaces(reason="benchmark") as session:
        yield lambda number: session.scalars(_SELECT, {"id": _key(dataset, number)}).one()


@contextlib.contextmanager
def _orm(dataset: Dataset) -> Iterator[Call]:
    with dataset.db.session() as session:
        yield lambda number: session.scalars(_SELECT, {"id": _key(dataset, number)}).one()


@contextlib.contextmanager
def _unguarded(dataset: Dataset) -> Iterator[Call]:
    with dataset.db.all_workspaces(reason="benchmark") as session:
        yield lambda number: _UNGUARDED.write(session, workspace_id=dataset.workspace_id, id=_key(dataset, number))


@contextlib.contextmanager
def _guarded(dataset: Dataset) -> Iterator[Call]:
    with dataset.db.session() as session:
        yield lambda number: definitions.get(session, _key(dataset, number))
