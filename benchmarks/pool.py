"""
What a connection from the pool costs, and how many of them twenty threads need.

The floor of the first case opens a connection for each use. In the second, twenty threads read ten definitions each, every one in a
transaction of its own, with pools of two, five and twenty connections; the floor is the pool of two, the smallest that settings allow.
Threads share one core here, so more connections pay only while somebody waits.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg

from benchmarks.datasets import Dataset
from benchmarks.harness import FLOOR, OURS, Call, Case, Contender
from stemmadb import connect
from stemmadb.database import Database
from stemmadb.evaluation import definitions
from stemmadb.settings import Settings

JOB = "pool"
_THREADS = 20
_READS = 10


def cases(dataset: Dataset) -> list[Case]:
    """Getting a connection and giving it back; many readers on few connections."""
    checkout = [Contender(f"{FLOOR}, connecting", lambda: _connecting(dataset)), Contender(OURS, lambda: _checking_out(dataset))]
    readers = [Contender(f"{OURS}, pool of {size}", lambda size=size: _reading(dataset, size)) for size in (2, 5, 20)]
    return [
        Case(JOB, "one connection", dataset.rows, checkout, outcome=bool, most_calls=50),
        Case(JOB, f"{_THREADS} threads, {_READS} reads each", dataset.rows, readers, outcome=len, most_calls=1),
    ]


@contextlib.contextmanager
def _connecting(dataset: Dataset) -> Iterator[Call]:
    address = dataset.db.url.set(drivername="postgresql").render_as_string(hide_password=False)

    def call(number: int) -> bool:
        with psycopg.connect(address) as connection:
            return not connection.closed

    yield call


@contextlib.contextmanager
def _checking_out(dataset: Dataset) -> Iterator[Call]:
    def call(number: int) -> bool:
        connection = dataset.db.engine.raw_connection()
        try:
            return connection.is_valid
        finally:
            connection.close()

    yield call


@contextlib.contextmanager
def _reading(dataset: Dataset, size: int) -> Iterator[Call]:
    settings = Settings(database_url=dataset.db.url, workspace=None, pool_min=size, pool_max=size)

    def read(number: int) -> Any:
        with db.session() as session:
            return definitions.get(session, dataset.deep_ids[number % len(dataset.deep_ids)]).id

    def call(number: int) -> list[Any]:
        return list(threads.map(read, range(_THREADS * _READS)))

    with contextlib.closing(_connect(settings, dataset)) as db, ThreadPoolExecutor(_THREADS) as threads:
        # Every connection is open and knows the statement before anybody looks at the clock.
        call(0)
        yield call


def _connect(settings: Settings, dataset: Dataset) -> Database:
    return connect(settings=settings, workspace=dataset.workspace_id)
