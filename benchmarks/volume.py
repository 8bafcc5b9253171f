"""
Storing 20,000 transcripts of 3 kB, and 200,000 with ``--rows 100000``: as they are, and as the outcomes of slots, which are settled.

The floor is a COPY of the same rows into the same table, by its owner, whom row-level security then does not hold: under it there is no
COPY. The documents of its rows are JSON text already. The bulk insert of the ORM goes into that table as well. What recording leaves are
transcripts and settled slots, a row each: its floor copies both, into tables that have none of the run. A COPY of the transcripts alone
stands beside it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from psycopg import Cursor, sql
from sqlalchemy import insert
from sqlalchemy.orm import Session

from benchmarks.datasets import Dataset
from benchmarks.harness import OURS, Call, Case, Contender
from benchmarks.outcomes import COLUMNS, MAKE_RUN, MAKE_SLOTS, MODEL, SAMPLES, WORKER, claims_of, dialogues, recording, transcripts_of
from stemmadb.documents import dump_json
from stemmadb.entity import uuid7
from stemmadb.evaluation import transcripts
from stemmadb.evaluation.entities import Transcript

JOB = "volume"
COPY = "COPY, same table"
COPY_BOTH = "COPY, same tables"
COPY_ONE = "COPY, transcripts only"
SKIPPING = "stemmadb, skip"
ORM = "SQLAlchemy, bulk insert"

_SCENARIOS = """
INSERT INTO stemma.scenarios (definition_id, name, content)
SELECT %(definition_id)s, 'Volume ' || n, jsonb_build_object('schema_version', 1, 'prompt', 'Volume ' || n)
  FROM generate_series(1, %(count)s) AS n
RETURNING id
"""
_FORCE = "ALTER TABLE stemma.{} {} ROW LEVEL SECURITY"
_TABLES = ("transcripts", "run_slots")
_SLOT_COLUMNS = (
    "workspace_id",
    "run_id",
    "scenario_id",
    "model",
    "sample_index",
    "status",
    "attempt",
    "transcript_id",
    "started_at",
    "finished_at",
)


class _Work:
    """The scenarios and dialogues, and a new run for every contender."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.count = 200_000 if dataset.rows >= 100_000 else 20_000 if dataset.rows >= 1000 else dataset.rows
        self.dialogues = dialogues()
        self.definition_id = dataset.chain_id(0)
        given = {"definition_id": self.definition_id, "count": self.count // SAMPLES}
        self.scenario_ids = sorted(row[0] for row in dataset.clerk.execute(_SCENARIOS.encode(), given))

    @contextlib.contextmanager
    def run(self, *, slots: bool) -> Iterator[UUID]:
        """Make a run, with slots that the worker holds or with none; delete everything of it afterwards."""
        run_id = uuid7()
        clerk = self.dataset.clerk
        clerk.execute(MAKE_RUN, {"run_id": run_id, "definition_id": self.definition_id, "count": self.count})
        if slots:
            given = {"run_id": run_id, "scenario_ids": self.scenario_ids, "samples": SAMPLES, "model": MODEL, "worker": WORKER}
            clerk.execute(MAKE_SLOTS, given)
            self.dataset.vacuum("stemma.run_slots")
        yield run_id
        clerk.execute("TRUNCATE stemma.run_slots, stemma.transcripts, stemma.scores")
        self.dataset.vacuum("stemma.transcripts", "stemma.run_slots")

    def rows(self, run_id: UUID) -> list[dict[str, Any]]:
        """Return what is stored, with documents as models."""
        rows = transcripts_of(claims_of(run_id, self.scenario_ids), self.dialogues)
        return [{"workspace_id": self.dataset.workspace_id, **row} for row in rows]

    @contextlib.contextmanager
    def unguarded(self) -> Iterator[None]:
        """Let the owner past row-level security."""
        self._force("NO FORCE")
        try:
            yield
        finally:
            self._force("FORCE")

    def _force(self, word: str) -> None:
        for table in _TABLES:
            self.dataset.clerk.execute(_FORCE.format(table, word).encode())


def cases(dataset: Dataset) -> list[Case]:
    """All in one transaction."""
    work = _Work(dataset)
    adding = [
        Contender(COPY, lambda: _copy(work)),
        Contender(OURS, lambda: _adding(work, "error")),
        Contender(SKIPPING, lambda: _adding(work, "skip")),
        Contender(ORM, lambda: _orm(work)),
    ]
    recording = [
        Contender(COPY_BOTH, lambda: _copy(work, slots=True)),
        Contender(COPY_ONE, lambda: _copy(work)),
        Contender(OURS, lambda: _recording(work)),
    ]
    rounds = 3 if work.count > 20_000 else 11
    told: dict[str, Any] = {"outcome": int, "most_calls": 1, "most_rounds": rounds, "is_long": True}
    return [
        Case(JOB, f"{title} {work.count:,} transcripts", dataset.rows, contenders, **told)
        for title, contenders in (("adding", adding), ("recording", recording))
    ]


@contextlib.contextmanager
def _copy(work: _Work, *, slots: bool = False) -> Iterator[Call]:
    """Copy the transcripts, and with *slots* also the slots that they settled, in one transaction."""
    columns = ("workspace_id", *COLUMNS)
    floor = work.dataset.floor

    def call(number: int) -> int:
        with floor.transaction(), floor.cursor() as cursor:
            _copy_rows(cursor, "transcripts", columns, rows)
            _copy_rows(cursor, "run_slots", _SLOT_COLUMNS, settled)
        return len(rows)

    with work.run(slots=False) as run_id, work.unguarded():
        texts: dict[int, str] = {}
        rows: list[tuple[Any, ...]] = []
        settled: list[tuple[Any, ...]] = []
        now = datetime.now(UTC)
        for values in work.rows(run_id):
            for name in ("content", "metrics"):
                document = values[name]
                values[name] = texts.setdefault(id(document), dump_json(document))
            rows.append(tuple(values[name] for name in columns))
            if slots:
                slot = {**values, "status": "COMPLETED", "attempt": 1, "transcript_id": values["id"], "started_at": now, "finished_at": now}
                settled.append(tuple(slot[name] for name in _SLOT_COLUMNS))
        yield call


def _copy_rows(cursor: Cursor, table: str, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
    if not rows:
        return
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    with cursor.copy(sql.SQL("COPY stemma.{} ({}) FROM STDIN").format(sql.Identifier(table), names)) as copy:
        for row in rows:
            copy.write_row(row)


@contextlib.contextmanager
def _adding(work: _Work, on_conflict: Any) -> Iterator[Call]:
    def call(number: int) -> int:
        with work.dataset.db.session() as session:
            return transcripts.add_many(session, run_id, items, on_conflict=on_conflict).inserted

    with work.run(slots=False) as run_id:
        items = [
            work.dialogues[number % len(work.dialogues)].model_copy(
                update={"scenario_id": claim.key.scenario_id, "sample_index": claim.key.sample_index}
            )
            for number, claim in enumerate(claims_of(run_id, work.scenario_ids))
        ]
        yield call


@contextlib.contextmanager
def _recording(work: _Work) -> Iterator[Call]:
    with work.run(slots=True) as run_id:
        yield recording(work.dataset.db, claims_of(run_id, work.scenario_ids), work.dialogues)


@contextlib.contextmanager
def _orm(work: _Work) -> Iterator[Call]:
    def call(number: int) -> int:
        with Session(work.dataset.engine) as session:
            session.connection().execute(insert(Transcript.__table__), rows)
            session.commit()
        return len(rows)

    with work.run(slots=False) as run_id, work.unguarded():
        rows = work.rows(run_id)
        yield call
