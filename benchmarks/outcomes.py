"""
Recording what became of 10,000 slots of a run: a transcript each, and the slot marked as completed under the worker's lease.

The floor is a bare COPY of the transcripts, with their documents serialized beforehand, and no slots. It goes into a table like ours, with
the same constraints and indexes but without row-level security, under which there is no COPY; and into a plain one, which has a primary
key and an index on the run. The peers store the same in plain tables: transcripts, and the slots that the worker still holds.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import sqlmodel
from psycopg import sql
from sqlalchemy import BigInteger, DateTime, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, Session, mapped_column

from benchmarks.datasets import Dataset
from benchmarks.harness import ALCHEMY, OURS, SQLMODEL, Call, Case, Contender
from benchmarks.peers import HAS_ALCHEMY
from stemmadb.database import Database
from stemmadb.documents import dump_json
from stemmadb.entity import uuid7
from stemmadb.evaluation import runs
from stemmadb.evaluation.data import SlotClaim, SlotKey, SlotOutcome, TranscriptCreate
from stemmadb.evaluation.documents import TranscriptContent, TranscriptMetrics, Turn

JOB = "outcomes"
OUTCOMES = 10_000
COPY_ALIKE = "COPY, table alike"
COPY_PLAIN = "COPY, plain table"

MODEL = "openai:gpt-4o"
WORKER = "worker-1"
SAMPLES = 10
COLUMNS = (
    "id",
    "run_id",
    "scenario_id",
    "model",
    "sample_index",
    "content",
    "metrics",
    "preview",
    "turn_count",
    "input_tokens",
    "output_tokens",
    "duration_ms",
    "stop_reason",
)
_PREPARE = """
CREATE TABLE plain.transcripts (
    id uuid PRIMARY KEY,
    run_id uuid NOT NULL,
    scenario_id uuid NOT NULL,
    model text NOT NULL,
    sample_index integer NOT NULL,
    content jsonb NOT NULL,
    metrics jsonb NOT NULL,
    preview text,
    turn_count integer NOT NULL,
    input_tokens bigint,
    output_tokens bigint,
    duration_ms bigint,
    stop_reason text,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON plain.transcripts (run_id);
CREATE TABLE plain.run_slots (
    id uuid PRIMARY KEY,
    run_id uuid NOT NULL,
    scenario_id uuid NOT NULL,
    model text NOT NULL,
    sample_index integer NOT NULL,
    status text NOT NULL,
    attempt integer NOT NULL,
    lease_owner text,
    transcript_id uuid,
    finished_at timestamptz
);
CREATE INDEX ON plain.run_slots (run_id);
CREATE TABLE plain.transcripts_alike (LIKE stemma.transcripts INCLUDING ALL);
ALTER TABLE plain.transcripts_alike ADD FOREIGN KEY (workspace_id) REFERENCES stemma.workspaces (id),
    ADD FOREIGN KEY (workspace_id, run_id) REFERENCES stemma.runs (workspace_id, id) ON DELETE CASCADE,
    ADD FOREIGN KEY (workspace_id, scenario_id) REFERENCES stemma.scenarios (workspace_id, id),
    ADD FOREIGN KEY (invalidated_by_id) REFERENCES stemma.users (id) ON DELETE SET NULL;
INSERT INTO stemma.scenarios (definition_id, name, content)
SELECT '{definition_id}', 'Scenario ' || n, jsonb_build_object('schema_version', 1, 'prompt', 'Scenario ' || n)
  FROM generate_series(1, {scenarios}) AS n;
"""
MAKE_RUN = """
INSERT INTO stemma.runs (id, definition_id, config, slot_count, progress, status, started_at)
VALUES (%(run_id)s, %(definition_id)s, '{"schema_version": 1, "models": ["openai:gpt-4o"]}', %(count)s, NULL, 'RUNNING', now())
"""
# What is there already, with short dialogues: the size of the indexes is the point.
_FILL = """
INSERT INTO stemma.transcripts (run_id, scenario_id, model, sample_index, content, turn_count)
SELECT %(run_id)s, (%(scenario_ids)s::uuid[])[n %% %(scenarios)s + 1], 'openai:gpt-4o', n, '{"schema_version": 1, "turns": []}', 0
  FROM generate_series(1, %(rows)s) AS n
"""
_FILL_ALIKE = f"""
INSERT INTO plain.transcripts_alike (workspace_id, {", ".join(COLUMNS)}) SELECT workspace_id, {", ".join(COLUMNS)} FROM stemma.transcripts
"""
_FILL_PLAIN = f"INSERT INTO plain.transcripts ({', '.join(COLUMNS)}) SELECT {', '.join(COLUMNS)} FROM stemma.transcripts"
MAKE_SLOTS = """
INSERT INTO stemma.run_slots (run_id, scenario_id, model, sample_index, status, attempt, started_at, lease_owner, lease_expires_at)
SELECT %(run_id)s, scenario_id, %(model)s, sample_index, 'RUNNING', 1, now(), %(worker)s, now() + interval '1 hour'
  FROM unnest(%(scenario_ids)s::uuid[]) AS scenario_id CROSS JOIN generate_series(0, %(samples)s - 1) AS sample_index
"""
_MAKE_PLAIN_SLOTS = """
INSERT INTO plain.run_slots (id, run_id, scenario_id, model, sample_index, status, attempt, lease_owner)
SELECT gen_random_uuid(), %(run_id)s, scenario_id, %(model)s, sample_index, 'RUNNING', 1, %(worker)s
  FROM unnest(%(scenario_ids)s::uuid[]) AS scenario_id CROSS JOIN generate_series(0, %(samples)s - 1) AS sample_index
"""
_WORDS = (
    *("the", "lever", "trolley", "track", "five", "people", "one", "person", "choose", "save", "harm", "duty", "consequence", "because"),
    *("would", "however", "moral", "reason", "question", "act", "allow", "between", "difference", "intention", "outcome", "responsible"),
    *("argument", "life", "value", "rule", "principle", "if", "and", "not", "to", "of", "a", "in", "is", "that", "it", "for", "but"),
)


def dialogues() -> list[TranscriptCreate]:
    """Return 50 dialogues of about 3 kB, of words in random order: they compress as text does."""
    chance = random.Random(7)

    def text(words: int) -> str:
        return " ".join(chance.choices(_WORDS, k=words)).capitalize() + "."

    return [
        TranscriptCreate(
            model=MODEL,
            content=TranscriptContent(
                turns=(
                    Turn(role="system", content=text(60)),
                    Turn(role="user", content=text(120)),
                    Turn(role="assistant", content=text(360)),
                )
            ),
            metrics=TranscriptMetrics(values={"sureness": chance.random()}, decision="pull"),
            input_tokens=240,
            output_tokens=480,
            duration_ms=chance.randrange(500, 9000),
            stop_reason="end_turn",
        )
        for _ in range(50)
    ]


def recording(db: Database, claims: Sequence[SlotClaim], dialogues: Sequence[TranscriptCreate]) -> Call:
    """Return the call that records a dialogue, one after the other, for each claim, and counts what was stored."""
    outcomes = [SlotOutcome(claim=claim, transcript=dialogues[number % len(dialogues)]) for number, claim in enumerate(claims)]

    def call(number: int) -> int:
        with db.session() as session:
            results = runs.record_outcomes(session, outcomes)
        return sum(result.result == runs.OutcomeKind.STORED for result in results)

    return call


def claims_of(run_id: UUID, scenario_ids: Sequence[UUID]) -> list[SlotClaim]:
    """Return the claims of a worker who holds every slot of a run."""
    end = datetime.now(UTC) + timedelta(hours=1)
    keys = [SlotKey(run_id, scenario_id, MODEL, sample) for scenario_id in scenario_ids for sample in range(SAMPLES)]
    return [SlotClaim(key, 1, WORKER, end) for key in keys]


def transcripts_of(claims: Sequence[SlotClaim], given: Sequence[TranscriptCreate]) -> list[dict[str, Any]]:
    """Return a row for each claim, with its documents as models."""
    rows = []
    for number, claim in enumerate(claims):
        data = given[number % len(given)]
        rows.append(
            {
                "id": uuid7(),
                "run_id": claim.key.run_id,
                "scenario_id": claim.key.scenario_id,
                "model": MODEL,
                "sample_index": claim.key.sample_index,
                "content": data.content,
                "metrics": data.metrics,
                "preview": data.content.turns[-1].content[:500],
                "turn_count": len(data.content.turns),
                "input_tokens": data.input_tokens,
                "output_tokens": data.output_tokens,
                "duration_ms": data.duration_ms,
                "stop_reason": data.stop_reason,
            }
        )
    return rows


class _Work:
    """The scenarios and dialogues of a data set, and a new run for every recording."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.count = OUTCOMES if dataset.rows >= 1000 else dataset.rows
        self.dialogues = dialogues()
        self.definition_id = dataset.chain_id(0)
        scenarios = self.count // SAMPLES
        clerk = dataset.clerk
        clerk.execute(_PREPARE.format(definition_id=self.definition_id, scenarios=scenarios).encode())
        self.scenario_ids = dataset.ids("SELECT id FROM stemma.scenarios WHERE definition_id = %(id)s ORDER BY id", id=self.definition_id)
        filled = uuid7()
        with clerk.transaction():
            self._make_run(filled)
            clerk.execute(_FILL, {"run_id": filled, "scenario_ids": self.scenario_ids, "scenarios": scenarios, "rows": dataset.rows})
            clerk.execute(_FILL_ALIKE.encode())
            clerk.execute(_FILL_PLAIN.encode())
        self.vacuum()

    def vacuum(self) -> None:
        """Take away what was recorded and deleted again."""
        self.dataset.vacuum(*(f"stemma.{name}" for name in ("transcripts", "run_slots", "runs")))
        self.dataset.vacuum(*(f"plain.{name}" for name in ("transcripts", "run_slots", "transcripts_alike")))

    def claims(self, run_id: UUID) -> list[SlotClaim]:
        """Return the claims of a worker who holds every slot of the run."""
        return claims_of(run_id, self.scenario_ids)

    def transcripts(self, run_id: UUID) -> list[dict[str, Any]]:
        """Return the rows to store, with their documents as models."""
        return transcripts_of(self.claims(run_id), self.dialogues)

    @contextlib.contextmanager
    def run(self, *, slots: str | None) -> Iterator[UUID]:
        """Make a run, with slots in our table (``stemma``), in the plain one (``plain``) or none; delete everything of it afterwards."""
        run_id = uuid7()
        clerk = self.dataset.clerk
        given = {"run_id": run_id, "scenario_ids": self.scenario_ids, "samples": SAMPLES, "model": MODEL, "worker": WORKER}
        self._make_run(run_id)
        if slots:
            clerk.execute(MAKE_SLOTS if slots == "stemma" else _MAKE_PLAIN_SLOTS, given)
        yield run_id
        for table in ("plain.run_slots", "plain.transcripts", "plain.transcripts_alike", "stemma.run_slots", "stemma.transcripts"):
            clerk.execute(f"DELETE FROM {table} WHERE run_id = %s".encode(), [run_id])

    def _make_run(self, run_id: UUID) -> None:
        self.dataset.clerk.execute(MAKE_RUN, {"run_id": run_id, "definition_id": self.definition_id, "count": self.count})


def cases(dataset: Dataset) -> list[Case]:
    """Recording all outcomes of a run, in a transaction."""
    work = _Work(dataset)
    contenders = [
        Contender(COPY_ALIKE, lambda: _copy(work, "transcripts_alike")),
        Contender(COPY_PLAIN, lambda: _copy(work, "transcripts")),
        Contender(OURS, lambda: _stemmadb(work)),
        Contender(SQLMODEL, lambda: _sqlmodel(work)),
    ]
    if HAS_ALCHEMY:
        contenders.append(Contender(ALCHEMY, lambda: _alchemy(work)))
    return [Case(JOB, f"{work.count:,} outcomes", dataset.rows, contenders, outcome=int, most_calls=1, most_rounds=7, after=work.vacuum)]


# ------------------------------------------------------------------------------------------------------------------- floor


@contextlib.contextmanager
def _copy(work: _Work, table: str) -> Iterator[Call]:
    columns = ("workspace_id", *COLUMNS) if table == "transcripts_alike" else COLUMNS
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    statement = sql.SQL("COPY plain.{} ({}) FROM STDIN").format(sql.Identifier(table), names)
    cursor = work.dataset.floor.cursor()

    def call(number: int) -> int:
        with cursor.copy(statement) as copy:
            for row in rows:
                copy.write_row(row)
        return cursor.rowcount

    with work.run(slots=None) as run_id:
        rows = []
        for values in work.transcripts(run_id):
            values |= {"workspace_id": work.dataset.workspace_id}
            values |= {name: dump_json(values[name]) for name in ("content", "metrics")}
            rows.append(tuple(values[name] for name in columns))
        yield call


# ---------------------------------------------------------------------------------------------------------------- stemmadb


@contextlib.contextmanager
def _stemmadb(work: _Work) -> Iterator[Call]:
    with work.run(slots="stemma") as run_id:
        yield recording(work.dataset.db, work.claims(run_id), work.dialogues)


# ------------------------------------------------------------------------------------------------------------------- peers


class PlainTranscript(sqlmodel.SQLModel, table=True):
    """A transcript in SQLModel."""

    __tablename__ = "transcripts"
    __table_args__ = {"schema": "plain"}

    id: UUID = sqlmodel.Field(default_factory=uuid7, primary_key=True)
    run_id: UUID = sqlmodel.Field(index=True)
    scenario_id: UUID
    model: str
    sample_index: int
    content: dict[str, Any] = sqlmodel.Field(sa_type=JSONB)
    metrics: dict[str, Any] = sqlmodel.Field(sa_type=JSONB)
    preview: str | None = None
    turn_count: int
    input_tokens: int | None = sqlmodel.Field(default=None, sa_type=BigInteger)
    output_tokens: int | None = sqlmodel.Field(default=None, sa_type=BigInteger)
    duration_ms: int | None = sqlmodel.Field(default=None, sa_type=BigInteger)
    stop_reason: str | None = None
    created_at: datetime | None = sqlmodel.Field(
        default=None, sa_type=DateTime(timezone=True), sa_column_kwargs={"server_default": func.now()}
    )


class PlainSlot(sqlmodel.SQLModel, table=True):
    """A slot in SQLModel."""

    __tablename__ = "run_slots"
    __table_args__ = {"schema": "plain"}

    id: UUID = sqlmodel.Field(default_factory=uuid7, primary_key=True)
    run_id: UUID = sqlmodel.Field(index=True)
    scenario_id: UUID
    model: str
    sample_index: int
    status: str
    attempt: int
    lease_owner: str | None = None
    transcript_id: UUID | None = None
    finished_at: datetime | None = sqlmodel.Field(default=None, sa_type=DateTime(timezone=True))


def _settle(slots: list[Any], transcripts: list[Any]) -> list[tuple[Any, Any]]:
    """Complete the slots that the worker still holds, and return them with their transcripts."""
    held = {(slot.scenario_id, slot.model, slot.sample_index): slot for slot in slots if _is_held(slot)}
    settled = []
    for transcript in transcripts:
        slot = held.get((transcript.scenario_id, transcript.model, transcript.sample_index))
        if slot is not None:
            slot.status = "COMPLETED"
            slot.transcript_id = transcript.id
            slot.lease_owner = None
            slot.finished_at = datetime.now(UTC)
            settled.append((slot, transcript))
    return settled


def _is_held(slot: Any) -> bool:
    return bool(slot.status == "RUNNING" and slot.lease_owner == WORKER and slot.attempt == 1)


@contextlib.contextmanager
def _given(work: _Work) -> Iterator[tuple[UUID, list[dict[str, Any]]]]:
    with work.run(slots="plain") as run_id:
        yield run_id, work.transcripts(run_id)


def _dumped(given: list[dict[str, Any]], make: Callable[..., Any]) -> list[Any]:
    """Make rows of what was given; the documents become what a JSON column takes."""
    return [make(**{**values, "content": values["content"].dump(), "metrics": values["metrics"].dump()}) for values in given]


@contextlib.contextmanager
def _sqlmodel(work: _Work) -> Iterator[Call]:
    def call(number: int) -> int:
        with sqlmodel.Session(work.dataset.engine) as session:
            held = sqlmodel.select(PlainSlot).where(PlainSlot.run_id == run_id).with_for_update()
            settled = _settle(list(session.exec(held)), _dumped(given, PlainTranscript))
            session.add_all(transcript for _, transcript in settled)
            session.commit()
        return len(settled)

    with _given(work) as (run_id, given):
        yield call


if HAS_ALCHEMY:
    from benchmarks.peers import DefaultBase, SQLAlchemySyncRepository

    class AlchemyTranscript(DefaultBase):
        """A transcript in advanced-alchemy."""

        __tablename__ = "transcripts"
        __table_args__ = {"schema": "plain"}  # noqa: RUF012

        id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
        run_id: Mapped[UUID] = mapped_column(index=True)
        scenario_id: Mapped[UUID]
        model: Mapped[str]
        sample_index: Mapped[int]
        content: Mapped[dict[str, Any]] = mapped_column(JSONB)
        metrics: Mapped[dict[str, Any]] = mapped_column(JSONB)
        preview: Mapped[str | None]
        turn_count: Mapped[int]
        input_tokens: Mapped[int | None] = mapped_column(BigInteger)
        output_tokens: Mapped[int | None] = mapped_column(BigInteger)
        duration_ms: Mapped[int | None] = mapped_column(BigInteger)
        stop_reason: Mapped[str | None]
        created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())

    class AlchemySlot(DefaultBase):
        """A slot in advanced-alchemy."""

        __tablename__ = "run_slots"
        __table_args__ = {"schema": "plain"}  # noqa: RUF012

        id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
        run_id: Mapped[UUID] = mapped_column(index=True)
        scenario_id: Mapped[UUID]
        model: Mapped[str]
        sample_index: Mapped[int]
        status: Mapped[str]
        attempt: Mapped[int]
        lease_owner: Mapped[str | None]
        transcript_id: Mapped[UUID | None]
        finished_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))

    class AlchemyTranscripts(SQLAlchemySyncRepository[AlchemyTranscript]):
        """Their repository."""

        model_type = AlchemyTranscript

    class AlchemySlots(SQLAlchemySyncRepository[AlchemySlot]):
        """Their repository."""

        model_type = AlchemySlot


@contextlib.contextmanager
def _alchemy(work: _Work) -> Iterator[Call]:
    def call(number: int) -> int:
        with Session(work.dataset.engine, expire_on_commit=False) as session:
            transcripts, slots = AlchemyTranscripts(session=session), AlchemySlots(session=session)
            held = slots.get_many(AlchemySlot.run_id == run_id)
            settled = _settle(list(held), _dumped(given, AlchemyTranscript))
            transcripts.add_many([transcript for _, transcript in settled])
            slots.update_many([slot for slot, _ in settled])
            session.commit()
        return len(settled)

    with _given(work) as (run_id, given):
        yield call
