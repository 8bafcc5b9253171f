"""
Reading 20,000 transcripts into frames, and 200,000 with ``--rows 100000``: six plain columns, all scalar columns, and dialogues of 3 kB.

The floor is ADBC by hand, on a connection that is open already, as the owner of the tables: its UUIDs are 16 bytes and its costs texts.
A COPY whose bytes are thrown away says what the server needs alone. Ours connects each time, begins a transaction in the role of the
application, and gives ids as text and costs as decimals.
"""

import contextlib
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

import adbc_driver_postgresql.dbapi
import pandas
import polars
import sqlmodel
from sqlalchemy import text

from benchmarks.datasets import Dataset
from benchmarks.harness import OURS, SQLMODEL, Call, Case, Contender
from benchmarks.outcomes import MAKE_RUN
from stemmadb.entity import uuid7
from stemmadb.evaluation import frames

JOB = "frames"
ADBC = "ADBC"
COPY = "COPY, thrown away"
COPY_CSV = "COPY as CSV, polars"
TUPLES = "psycopg, tuples"
PANDAS_SQL = "pandas.read_sql"
TO_POLARS, TO_PANDAS = f"{OURS}, polars", f"{OURS}, pandas"

_MAKE = """
INSERT INTO stemma.transcripts (run_id, model, sample_index, content, preview, turn_count, input_tokens, output_tokens, duration_ms, cost,
                                cost_currency)
SELECT %(run_id)s, 'openai:gpt-4o', n, jsonb_build_object('schema_version', 1, 'turns', jsonb_build_array(
           jsonb_build_object('role', 'user', 'content', left(repeat(md5(n::text), 32), 1000)),
           jsonb_build_object('role', 'assistant', 'content', left(repeat(md5((-n)::text), 64), 2000)))),
       repeat(md5(n::text), 4), 2, 300 + n %% 50, CASE WHEN n %% 10 > 0 THEN 200 + n %% 90 END, 1000 + n %% 700, 0.00001 * (n %% 999), 'USD'
  FROM generate_series(1, %(count)s) AS n
"""
_PLAIN = "model, sample_index, input_tokens, output_tokens, duration_ms, created_at"
_SCALARS = (
    "id, run_id, scenario_id, model, model_version, sample_index, turn_count, input_tokens, output_tokens, reasoning_tokens, "
    "cache_read_tokens, cache_write_tokens, duration_ms, ttft_ms, cost, cost_currency, stop_reason, error_message, preview, "
    "invalidated_at, invalidated_reason, created_at"
)


class _Transcript(sqlmodel.SQLModel, table=True):
    """The plain columns as SQLModel has them."""

    __tablename__ = "transcripts"
    __table_args__ = {"schema": "stemma"}

    id: UUID = sqlmodel.Field(primary_key=True)
    run_id: UUID
    model: str
    sample_index: int
    input_tokens: int | None
    output_tokens: int | None
    duration_ms: int | None
    created_at: datetime


class _Work:
    """The transcripts of a run, and the statements that read them."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.count = 200_000 if dataset.rows >= 100_000 else 20_000 if dataset.rows >= 1000 else dataset.rows
        self.run_id = uuid7()
        given = {"run_id": self.run_id, "definition_id": dataset.chain_id(0), "count": self.count}
        dataset.clerk.execute(MAKE_RUN, given)
        dataset.clerk.execute(_MAKE.encode(), given)
        dataset.vacuum("stemma.transcripts")
        self.setting = f"SELECT set_config('stemma.workspace_id', '{dataset.workspace_id}', false)"

    def select(self, columns: str) -> str:
        """Return a statement that reads these columns."""
        return f"SELECT {columns} FROM stemma.transcripts WHERE workspace_id = '{self.dataset.workspace_id}' AND run_id = '{self.run_id}'"

    def done(self) -> None:
        """Delete what was made."""
        self.dataset.clerk.execute(b"DELETE FROM stemma.transcripts WHERE run_id = %s", [self.run_id])
        self.dataset.clerk.execute(b"DELETE FROM stemma.runs WHERE id = %s", [self.run_id])


def cases(dataset: Dataset) -> list[Case]:
    """The first of our contenders gives Arrow, as the floor does."""
    work = _Work(dataset)
    plain, scalars = work.select(_PLAIN), work.select(_SCALARS)
    whole = work.select(f"{_SCALARS}, content::text AS content")
    db = dataset.db
    jobs: list[tuple[str, list[Contender]]] = [
        (
            f"{work.count:,} rows of six plain columns",
            [
                Contender(ADBC, partial(_adbc, work, plain)),
                *_ours(lambda backend: db.frame(plain, backend=backend)),
                Contender(COPY, partial(_copy, work, plain)),
                Contender(COPY_CSV, partial(_csv, work, plain)),
                Contender(TUPLES, partial(_tuples, work, plain)),
                Contender(PANDAS_SQL, partial(_read_sql, work, plain)),
                Contender(SQLMODEL, partial(_objects, work)),
            ],
        ),
        (
            f"{work.count:,} transcripts, scalar columns",
            [
                Contender(ADBC, partial(_adbc, work, scalars)),
                *_ours(lambda backend: _transcripts(work, backend)),
                Contender(COPY, partial(_copy, work, scalars)),
                Contender(COPY_CSV, partial(_csv, work, scalars)),
                Contender(PANDAS_SQL, partial(_read_sql, work, scalars)),
            ],
        ),
        (
            f"{work.count:,} transcripts with dialogues of 3 kB",
            [
                Contender(ADBC, partial(_adbc, work, whole)),
                *_ours(lambda backend: _transcripts(work, backend, with_content=True)),
                Contender(COPY, partial(_copy, work, whole)),
                Contender(COPY_CSV, partial(_csv, work, whole)),
                Contender(PANDAS_SQL, partial(_read_sql, work, whole)),
            ],
        ),
    ]
    found = [
        Case(JOB, title, dataset.rows, contenders, outcome=int, most_calls=1, most_rounds=5, is_long=True) for title, contenders in jobs
    ]
    found[-1].after = work.done
    return found


# -------------------------------------------------------------------------------------------------------------------- ours


def _ours(read: Callable[[Any], Any]) -> list[Contender]:
    def opened(backend: str) -> contextlib.AbstractContextManager[Call]:
        return contextlib.nullcontext(lambda number: len(read(backend)))

    names = {"arrow": OURS, "polars": TO_POLARS, "pandas": TO_PANDAS}
    return [Contender(name, partial(opened, backend)) for backend, name in names.items()]


def _transcripts(work: _Work, backend: Any, *, with_content: bool = False) -> Any:
    with work.dataset.db.session(read_only=True) as session:
        return frames.transcripts_df(session, [work.run_id], with_content=with_content, backend=backend)


# ------------------------------------------------------------------------------------------------------------------- peers


@contextlib.contextmanager
def _adbc(work: _Work, statement: str) -> Iterator[Call]:
    address = work.dataset.owner_url.set(drivername="postgresql").render_as_string(hide_password=False)
    with adbc_driver_postgresql.dbapi.connect(address, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(work.setting)
        cursor.fetchall()

        def call(number: int) -> int:
            cursor.execute(statement)
            return len(cursor.fetch_arrow_table())

        yield call


@contextlib.contextmanager
def _copy(work: _Work, statement: str) -> Iterator[Call]:
    cursor = work.dataset.clerk.cursor()

    def call(number: int) -> int:
        with cursor.copy(f"COPY ({statement}) TO STDOUT (FORMAT binary)".encode()) as copy:
            for _ in copy:
                pass
        return cursor.rowcount

    yield call


@contextlib.contextmanager
def _csv(work: _Work, statement: str) -> Iterator[Call]:
    cursor = work.dataset.clerk.cursor()

    def call(number: int) -> int:
        with cursor.copy(f"COPY ({statement}) TO STDOUT (FORMAT csv, HEADER)".encode()) as copy:
            found = b"".join(copy)
        return len(polars.read_csv(found, infer_schema_length=1000))

    yield call


@contextlib.contextmanager
def _tuples(work: _Work, statement: str) -> Iterator[Call]:
    cursor = work.dataset.clerk.cursor()
    yield lambda number: len(cursor.execute(statement.encode()).fetchall())


@contextlib.contextmanager
def _read_sql(work: _Work, statement: str) -> Iterator[Call]:
    with work.dataset.engine.connect() as connection:
        connection.execute(text(work.setting))
        yield lambda number: len(pandas.read_sql(text(statement), connection))


@contextlib.contextmanager
def _objects(work: _Work) -> Iterator[Call]:
    with sqlmodel.Session(work.dataset.engine) as session:
        session.connection().execute(text(work.setting))

        def call(number: int) -> int:
            session.expunge_all()
            return len(session.exec(sqlmodel.select(_Transcript).where(_Transcript.run_id == work.run_id)).all())

        yield call
