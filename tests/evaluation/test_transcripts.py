"""Transcripts: one live row for each slot, invalidation instead of editing, streams, and sums that know what is unknown."""

import itertools
import logging
import re
import threading
import tracemalloc
import uuid
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from stemmadb.aio.evaluation import definitions as async_definitions
from stemmadb.aio.evaluation import scenarios as async_scenarios
from stemmadb.aio.evaluation import transcripts as async_transcripts
from stemmadb.database import Database
from stemmadb.documents import RawDocument
from stemmadb.entity import uuid7
from stemmadb.errors import (
    ConflictError,
    CorruptDocumentError,
    DocumentError,
    InvalidCursorError,
    NotFoundError,
    ReferenceNotFoundError,
    StillReferencedError,
    UnknownSchemaVersionError,
    ValidationError,
    WorkspaceNotSetError,
)
from stemmadb.evaluation import _transcript_adding, definitions, runs, scenarios, transcripts
from stemmadb.evaluation._transcript_rows import preview_of
from stemmadb.evaluation._transcript_writes import ADD_ALL, SKIP_LIVE, SUPERSEDE_LIVE
from stemmadb.evaluation.data import DefinitionCreate, RunCreate, ScenarioCreate, SlotKey, SlotOutcome, TranscriptCreate
from stemmadb.evaluation.documents import DefinitionContent, RunConfig, ScenarioContent, TranscriptContent, TranscriptMetrics, Turn
from stemmadb.evaluation.entities import Run, RunSlot, Scenario, Score, Transcript
from stemmadb.evaluation.vocabularies import AnnotatorKind, SlotStatus
from stemmadb.query import RowStatement, TupleStatement
from stemmadb.tenancy import workspace_of
from stemmadb.testing import assert_max_queries, count_queries, make_workspace, run_together

MODELS = ("model-a", "model-b")


class Setting:
    """A definition with scenarios, and a run of them that has planned its slots."""

    def __init__(self, session: Session, count: int = 3, *, plan: bool = True) -> None:
        definition = definitions.create(session, DefinitionCreate(name="T", content=DefinitionContent(preamble="", template="t")))
        items = (ScenarioCreate(name=f"s{n}", content=ScenarioContent(prompt=f"prompt {n}")) for n in range(count))
        self.scenarios: list[Scenario] = scenarios.create_many(session, definition.id, items)
        ids = [scenario.id for scenario in self.scenarios]
        data = RunCreate(definition_id=definition.id, config=RunConfig(models=MODELS), scenario_ids=list(ids))
        self.run: Run = runs.create(session, data)
        if plan:
            runs.start(session, self.run.id)

    def slot(self, session: Session, number: int = 0, model: str = MODELS[0]) -> RunSlot:
        """A slot as the database has it now."""
        wanted = select(RunSlot).where(
            RunSlot.run_id == self.run.id, RunSlot.scenario_id == self.scenarios[number].id, RunSlot.model == model
        )
        return session.scalars(wanted, execution_options={"populate_existing": True}).one()

    def item(self, number: int = 0, model: str = MODELS[0], answer: str = "Yes.", **fields: Any) -> TranscriptCreate:
        """A transcript for a slot."""
        return TranscriptCreate(model=model, scenario_id=self.scenarios[number].id, content=dialogue(answer), **fields)

    def items(self, answer: str = "Yes.") -> list[TranscriptCreate]:
        """A transcript for every slot."""
        return [self.item(number, model, answer) for number, model in itertools.product(range(len(self.scenarios)), MODELS)]


def dialogue(*answers: str) -> TranscriptContent:
    turns = [turn for answer in answers for turn in (Turn(role="user", content="Pull it?"), Turn(role="assistant", content=answer))]
    return TranscriptContent(turns=tuple(turns))


def count(session: Session) -> int:
    return session.scalar(select(func.count()).select_from(Transcript)) or 0


EMPTY = '{"schema_version": 1, "turns": []}'


def insert_raw(session: Session, run_id: uuid.UUID, *, content: str = EMPTY, metrics: str | None = None) -> uuid.UUID:
    """Plant a row as another release, or somebody else, would have written it."""
    transcript_id = uuid7()
    session.execute(
        text(
            """
            INSERT INTO stemma.transcripts (id, run_id, model, content, metrics)
            VALUES (:id, :run_id, :model, CAST(:content AS jsonb), CAST(:metrics AS jsonb))
            """
        ),
        {
            "id": transcript_id,
            "run_id": run_id,
            "model": str(transcript_id),
            "content": content,
            "metrics": metrics or '{"schema_version": 1}',
        },
    )
    return transcript_id


# --------------------------------------------------------------------------------------------------------------- adding


@pytest.mark.requirement("VR-033", "VR-077")
def test_add_stores_what_it_is_given(session: Session) -> None:
    """Everything that is given comes back, the dialogue exactly; what is not given is None, never 0."""
    setting = Setting(session)
    content = dialogue("naïve \0 \ud800 \x1a 🚋", "second")
    made = transcripts.add(
        session,
        setting.run.id,
        TranscriptCreate(
            model="openai:gpt-4o",
            scenario_id=str(setting.scenarios[0].id),
            content=content,
            sample_index=3,
            model_version="gpt-4o-2024-08-06",
            metrics=TranscriptMetrics(values={"refusal": 0.25}, decision="pull"),
            input_tokens=2**40,
            duration_ms=0,
            cost=Decimal("0.12345678"),
            cost_currency="EUR",
            stop_reason="stop",
        ),
    )
    assert made.content == content
    assert made.metrics.values == {"refusal": 0.25}
    session.expunge_all()
    stored = transcripts.get(session, made.id)
    assert (stored.model, stored.model_version, stored.sample_index) == ("openai:gpt-4o", "gpt-4o-2024-08-06", 3)
    assert (stored.stop_reason, stored.turn_count, stored.preview) == ("stop", 4, "second")
    assert (stored.input_tokens, stored.duration_ms, stored.cost, stored.cost_currency) == (2**40, 0, Decimal("0.12345678"), "EUR")
    unknown = (stored.output_tokens, stored.reasoning_tokens, stored.cache_read_tokens, stored.cache_write_tokens, stored.ttft_ms)
    assert unknown == (None, None, None, None, None)
    assert transcripts.get_content(session, made.id) == content


def test_add_is_one_statement(session: Session) -> None:
    """A transcript and its slot are stored by one statement."""
    setting = Setting(session)
    with assert_max_queries(1):
        transcripts.add(session, setting.run.id, setting.item())
    assert setting.slot(session).status is SlotStatus.COMPLETED


def test_add_logs_model_and_run(session: Session, caplog: pytest.LogCaptureFixture) -> None:
    """A creation is logged at INFO with the model and the run, and never with what was said."""
    setting = Setting(session)
    with caplog.at_level(logging.INFO, "stemmadb.evaluation.transcripts"):
        transcripts.add(session, setting.run.id, setting.item(answer="a secret"))
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert MODELS[0] in caplog.text
    assert str(setting.run.id) in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (TranscriptContent(turns=()), None),
        (TranscriptContent(turns=(Turn(role="user", content="only asked"),)), None),
        (dialogue("first", "x" * 600), "x" * 500),
        (dialogue("a\0b\ud800c"), "a\ufffdb\ufffdc"),
        (dialogue("é" * 499 + "🚋" * 9), "é" * 499 + "🚋"),
        (dialogue(""), ""),
    ],
    ids=["no turns", "no answer", "long", "not storable", "by characters", "empty"],
)
def test_the_preview_is_the_start_of_the_last_answer(session: Session, content: TranscriptContent, expected: str | None) -> None:
    """500 characters of the last assistant turn, with U+FFFD for what a text column does not hold; None without such a turn."""
    setting = Setting(session, plan=False)
    made = transcripts.add(session, setting.run.id, TranscriptCreate(model="m", content=content))
    assert made.preview == expected
    assert made.turn_count == len(content.turns)


@pytest.mark.property
@pytest.mark.offline
@given(st.text(st.characters(exclude_categories=())))
def test_every_answer_has_a_storable_preview(answer: str) -> None:
    """The preview of any text is text that UTF-8 holds, without U+0000, of at most 500 characters, and equal where it can be."""
    preview = preview_of(dialogue(answer))
    assert preview is not None
    preview.encode()
    assert "\0" not in preview
    assert len(preview) == min(len(answer), 500)
    assert all(kept in (given_, "\ufffd") for kept, given_ in zip(preview, answer, strict=False))


def test_a_given_preview_is_kept(session: Session) -> None:
    """A preview that is given is stored as it is; one that is too long, or text that no column holds, is refused."""
    setting = Setting(session)
    assert transcripts.add(session, setting.run.id, setting.item(preview="mine")).preview == "mine"
    for wrong in ({"preview": "x" * 501}, {"preview": "a\0"}, {"stop_reason": "a\0"}, {"cost": Decimal(1)}, {"input_tokens": -1}):
        with pytest.raises(ValidationError):
            setting.item(1, **wrong)


@pytest.mark.property
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    previews=st.lists(st.none() | st.text(st.sampled_from('\x01\x02a,"\\\n{}é')), min_size=1, max_size=8),
    on_conflict=st.sampled_from(["error", "skip"]),
)
def test_previews_of_many_are_kept(session: Session, previews: list[str | None], on_conflict: Any) -> None:
    """Whatever characters they have, and beside whatever others: previews are stored as they were given; left out, they are the answers."""
    with session.begin_nested() as savepoint:
        setting = Setting(session, 1)
        items = [setting.item(preview=preview, sample_index=n, answer=f"answer {n}") for n, preview in enumerate(previews)]
        transcripts.add_many(session, setting.run.id, items, on_conflict=on_conflict)
        stored = [row.preview for row in transcripts.iter_for_run(session, setting.run.id, with_content=False)]
        assert stored == [f"answer {n}" if preview is None else preview for n, preview in enumerate(previews)]
        savepoint.rollback()


def test_transcripts_without_an_answer_have_no_preview(session: Session) -> None:
    """Among others that have one, and alone."""
    setting = Setting(session, 1)
    silent = {"model": "m", "content": TranscriptContent(turns=(Turn(role="user", content="Well?"),))}
    items = [TranscriptCreate(**silent), setting.item(sample_index=1), TranscriptCreate(**silent, sample_index=2)]
    transcripts.add_many(session, setting.run.id, items)
    transcripts.add_many(session, setting.run.id, [TranscriptCreate(**silent, sample_index=3)])
    found = {row.sample_index: row.preview for row in transcripts.iter_for_run(session, setting.run.id, with_content=False)}
    assert found == {0: None, 1: "Yes.", 2: None, 3: None}


def test_items_that_fail_leave_no_thread_behind(session: Session) -> None:
    """A generator that breaks off, an item that cannot be stored and a conflict end the call, its thread and nothing else."""
    setting = Setting(session, 1)

    def items(count: int, last: TranscriptCreate | None = None) -> Iterator[TranscriptCreate]:
        for n in range(count):
            yield setting.item(sample_index=n)
        if last is None:
            raise ZeroDivisionError
        yield last

    broken = TranscriptContent.model_construct(turns=(Turn(role="user", content="x"),), extra_number=1 << 70_000)
    unstorable = setting.item(sample_index=5000).model_copy(update={"content": broken})
    for given_, error in (
        (items(2500), ZeroDivisionError),
        (items(2500, unstorable), DocumentError),
        (items(2500, setting.item(sample_index=7)), ConflictError),
    ):
        with pytest.raises(error):
            transcripts.add_many(session, setting.run.id, given_)
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("stemmadb-rows")]
        assert count(session) == 0


@pytest.mark.requirement("VR-033")
def test_a_second_live_transcript_is_refused(session: Session) -> None:
    """A slot has one live transcript, also where there is no scenario; another sample is another slot."""
    setting = Setting(session, plan=False)
    for scenario_id in (setting.scenarios[0].id, None):
        item = TranscriptCreate(model="m", scenario_id=scenario_id, content=dialogue("a"))
        transcripts.add(session, setting.run.id, item)
        with pytest.raises(ConflictError) as caught, session.begin_nested():
            transcripts.add(session, setting.run.id, item)
        assert caught.value.fields == ("run_id", "scenario_id", "model", "sample_index")
        other = TranscriptCreate(model="m", scenario_id=scenario_id, content=dialogue("b"), sample_index=1)
        transcripts.add(session, setting.run.id, other)
    assert count(session) == 4


def test_what_a_transcript_refers_to_must_exist(session: Session) -> None:
    """An unknown run and an unknown scenario are missing references; malformed ids are refused before anything is sent."""
    setting = Setting(session)
    with pytest.raises(ReferenceNotFoundError) as caught, session.begin_nested():
        transcripts.add(session, uuid.uuid4(), setting.item())
    assert caught.value.field == "run_id"
    item = TranscriptCreate(model="m", scenario_id=uuid.uuid4(), content=dialogue("a"))
    with pytest.raises(ReferenceNotFoundError) as caught, session.begin_nested():
        transcripts.add(session, setting.run.id, item)
    assert caught.value.field == "scenario_id"
    with count_queries() as sent:
        with pytest.raises(ValidationError):
            transcripts.add(session, "no id", setting.item())
        with pytest.raises(ValidationError):
            transcripts.add(session, setting.run.id, TranscriptCreate(model="m", scenario_id="no id", content=dialogue("a")))
    assert sent.count == 0


def test_another_workspace_gives_nothing(committed_db: Database) -> None:
    """A run and a transcript of another workspace are not there, with the same answers as for unknown ids."""
    mine, theirs = make_workspace(committed_db), make_workspace(committed_db)
    with committed_db.session(theirs) as session:
        setting = Setting(session)
        foreign = transcripts.add(session, setting.run.id, setting.item())
    with committed_db.session(mine) as session:
        with pytest.raises(ReferenceNotFoundError), session.begin_nested():
            transcripts.add(session, setting.run.id, TranscriptCreate(model="m", content=dialogue("a")))
        assert transcripts.find(session, foreign.id) is None
        assert transcripts.find_by_slot(session, SlotKey(setting.run.id, setting.scenarios[0].id, MODELS[0])) is None
        assert len(transcripts.list_for_run(session, setting.run.id)) == 0
        assert len(transcripts.list_for_scenario(session, setting.scenarios[0].id)) == 0
        for call in (transcripts.get, transcripts.get_content, transcripts.revalidate, transcripts.delete):
            with pytest.raises(NotFoundError):
                call(session, foreign.id)
        with pytest.raises(NotFoundError):
            transcripts.invalidate(session, foreign.id, reason="x")
        with pytest.raises(NotFoundError):
            transcripts.set_metrics(session, foreign.id, TranscriptMetrics())
        with pytest.raises(NotFoundError):
            transcripts.summarize_run(session, setting.run.id)
        with pytest.raises(NotFoundError):
            list(transcripts.iter_for_run(session, setting.run.id))
    with committed_db.session(theirs) as session:
        assert transcripts.get(session, foreign.id).invalidated_at is None


# ---------------------------------------------------------------------------------------------------------------- slots


def test_add_fills_a_queued_slot(session: Session) -> None:
    """The slot of the transcript is completed with it, and the run's progress counts it."""
    setting = Setting(session)
    made = transcripts.add(session, setting.run.id, setting.item())
    slot = setting.slot(session)
    assert (slot.status, slot.transcript_id, slot.attempt) == (SlotStatus.COMPLETED, made.id, 0)
    assert slot.finished_at is not None
    assert setting.slot(session, 1).status is SlotStatus.QUEUED
    assert runs.progress(session, setting.run.id).completed == 1


def test_add_leaves_a_leased_slot_to_its_worker(session: Session) -> None:
    """While a lease lasts its slot stays the worker's, and the transcript is stored all the same."""
    setting = Setting(session, 1)
    claims = runs.claim_slots(session, setting.run.id, worker="w", models=[MODELS[0]])
    assert len(claims) == 1
    made = transcripts.add(session, setting.run.id, setting.item())
    slot = setting.slot(session)
    assert (slot.status, slot.lease_owner, slot.transcript_id) == (SlotStatus.RUNNING, "w", None)
    assert transcripts.find_by_slot(session, claims[0].key) is made


def test_add_takes_a_slot_over_whose_lease_ran_out(session: Session) -> None:
    """An expired lease is none: the slot is completed, and the worker's late result is not taken."""
    setting = Setting(session, 1)
    (claim,) = runs.claim_slots(session, setting.run.id, worker="w", models=[MODELS[0]])
    session.execute(text("UPDATE stemma.run_slots SET lease_expires_at = now() - interval '1 second' WHERE lease_owner = 'w'"))
    made = transcripts.add(session, setting.run.id, setting.item())
    slot = setting.slot(session)
    assert (slot.status, slot.transcript_id, slot.lease_owner) == (SlotStatus.COMPLETED, made.id, None)
    (late,) = runs.record_outcomes(session, [SlotOutcome(claim=claim, transcript=setting.item(answer="late"))])
    assert late.result == "LEASE_LOST"
    assert count(session) == 1


@pytest.mark.parametrize("status", [SlotStatus.FAILED, SlotStatus.SKIPPED])
def test_add_fills_a_slot_that_ended_without_outcome(session: Session, status: SlotStatus) -> None:
    """A failed and a skipped slot get a transcript that comes later."""
    setting = Setting(session, 1)
    session.execute(
        text("UPDATE stemma.run_slots SET status = :status, error_code = 'x', finished_at = now() WHERE run_id = :run_id"),
        {"status": status, "run_id": setting.run.id},
    )
    made = transcripts.add(session, setting.run.id, setting.item())
    slot = setting.slot(session)
    assert (slot.status, slot.transcript_id, slot.error_code) == (SlotStatus.COMPLETED, made.id, None)


@pytest.mark.requirement("VR-104")
def test_transcripts_of_workers_and_of_callers_meet(session: Session) -> None:
    """What workers record and what callers add are transcripts of one run: listed, summed, and found by slot together."""
    setting = Setting(session, 2)
    (claim,) = runs.claim_slots(session, setting.run.id, worker="w")
    number = next(number for number, scenario in enumerate(setting.scenarios) if scenario.id == claim.key.scenario_id)
    item = setting.item(number, claim.key.model, output_tokens=5, cost=Decimal("0.1"), cost_currency="USD")
    (result,) = runs.record_outcomes(session, [SlotOutcome(claim=claim, transcript=item)])
    report = transcripts.add_many(session, setting.run.id, setting.items(), on_conflict="skip")
    assert (report.inserted, report.skipped) == (3, 1)
    assert result.transcript_id in report.ids
    found = transcripts.find_by_slot(session, claim.key)
    assert found is not None
    assert (found.id, found.preview, found.turn_count, found.output_tokens) == (result.transcript_id, "Yes.", 2, 5)
    assert runs.progress(session, setting.run.id).completed == 4
    assert sorted(report.ids) == [transcript.id for transcript in transcripts.iter_for_run(session, setting.run.id)]
    assert len(runs.get_with_transcripts(session, setting.run.id).transcripts) == 4


# ----------------------------------------------------------------------------------------------------------------- bulk


@pytest.mark.requirement("VR-033")
def test_add_many_fills_every_slot_in_the_order_given(session: Session) -> None:
    """The ids are in the order given, slots and lists follow, and one statement does it."""
    setting = Setting(session)
    items = setting.items()
    with assert_max_queries(1):
        report = transcripts.add_many(session, setting.run.id, items)
    assert (report.inserted, report.skipped, report.superseded, len(report.ids)) == (6, 0, 0, 6)
    page = transcripts.list_for_run(session, setting.run.id)
    assert [transcript.id for transcript in page] == report.ids
    assert [(transcript.scenario_id, transcript.model) for transcript in page] == [(item.scenario_id, item.model) for item in items]
    assert runs.progress(session, setting.run.id).completed == 6


@pytest.mark.requirement("VR-033")
def test_add_many_refuses_all_for_one(session: Session) -> None:
    """With "error" a live transcript in one place refuses all, also one of the same call, and the transaction goes on."""
    setting = Setting(session)
    transcripts.add(session, setting.run.id, setting.item(1))
    for items in ([setting.item(0), setting.item(1)], [setting.item(0), setting.item(0)]):
        with pytest.raises(ConflictError) as caught:
            transcripts.add_many(session, setting.run.id, items)
        assert caught.value.fields == ("run_id", "scenario_id", "model", "sample_index")
    assert count(session) == 1
    assert setting.slot(session, 0).status is SlotStatus.QUEUED
    with pytest.raises(ValidationError):
        transcripts.add_many(session, setting.run.id, [], on_conflict="replace")  # type: ignore[arg-type]


@pytest.mark.requirement("VR-033", "VR-077")
def test_add_many_twice_adds_nothing(session: Session) -> None:
    """With "skip" a repetition changes nothing and gives the ids of what is there."""
    setting = Setting(session)
    first = transcripts.add_many(session, setting.run.id, setting.items(), on_conflict="skip")
    with assert_max_queries(1):
        again = transcripts.add_many(session, setting.run.id, setting.items("other"), on_conflict="skip")
    assert (again.inserted, again.skipped, again.superseded, again.ids) == (0, 6, 0, first.ids)
    assert {transcript.preview for transcript in transcripts.iter_for_run(session, setting.run.id)} == {"Yes."}


def test_skip_keeps_the_first_of_a_call(session: Session) -> None:
    """Of two items in one place the first is stored, with and without a scenario, and both get its id."""
    setting = Setting(session)
    items = [
        setting.item(0, answer="first"),
        TranscriptCreate(model="m", content=dialogue("first")),
        setting.item(0, answer="second"),
        TranscriptCreate(model="m", content=dialogue("second")),
        setting.item(1, answer="first"),
    ]
    report = transcripts.add_many(session, setting.run.id, items, on_conflict="skip")
    assert (report.inserted, report.skipped) == (3, 2)
    assert (report.ids[0], report.ids[1]) == (report.ids[2], report.ids[3])
    assert {transcript.preview for transcript in transcripts.iter_for_run(session, setting.run.id)} == {"first"}
    again = transcripts.add_many(session, setting.run.id, items, on_conflict="skip")
    assert (again.inserted, again.ids) == (0, report.ids)


@pytest.mark.requirement("VR-033")
def test_supersede_invalidates_what_was_there(session: Session) -> None:
    """With "supersede" the old rows stay, invalidated with a reason that names their successors, and the slots follow."""
    setting = Setting(session)
    old = transcripts.add_many(session, setting.run.id, setting.items("old")[:4])
    with assert_max_queries(1):
        new = transcripts.add_many(session, setting.run.id, setting.items("new"), on_conflict="supersede")
    assert (new.inserted, new.skipped, new.superseded) == (6, 0, 4)
    assert count(session) == 10
    for before, after in zip(old.ids, new.ids, strict=False):
        was = transcripts.get(session, before)
        assert was.invalidated_at is not None
        assert was.invalidated_reason == f"superseded by {after}"
    assert setting.slot(session).transcript_id == new.ids[0]
    assert [transcript.id for transcript in transcripts.list_for_run(session, setting.run.id)] == new.ids
    assert runs.progress(session, setting.run.id).completed == 6


def test_supersede_keeps_the_last_of_a_call(session: Session) -> None:
    """Items in one place supersede each other in the order given, with and without a scenario."""
    setting = Setting(session, 1)
    answers = ["a", "b", "c"]
    items = [setting.item(0, answer=answer) for answer in answers]
    items += [TranscriptCreate(model="m", content=dialogue(answer)) for answer in answers]
    report = transcripts.add_many(session, setting.run.id, items, on_conflict="supersede")
    assert (report.inserted, report.superseded) == (6, 4)
    live = {transcript.id: transcript.preview for transcript in transcripts.iter_for_run(session, setting.run.id)}
    assert live == {report.ids[2]: "c", report.ids[5]: "c"}
    assert setting.slot(session).transcript_id == report.ids[2]


BULK = pytest.mark.parametrize("statement", [ADD_ALL, SKIP_LIVE, SUPERSEDE_LIVE], ids=["error", "skip", "supersede"])
Bulk = RowStatement | TupleStatement[Any]


def check_look_ups(session: Session, statement: Bulk) -> None:
    """Store 51 rows, 50 of which have slots, into a run with a thousand others: no row of it is read but those asked for."""
    setting = Setting(session, 25)
    others = (TranscriptCreate(model="other", content=dialogue("Yes."), sample_index=n) for n in range(1000))
    transcripts.add_many(session, setting.run.id, others)
    if statement is not ADD_ALL:
        transcripts.add_many(session, setting.run.id, [*setting.items(), TranscriptCreate(model="m", content=dialogue("Yes."))])
    bare = [TranscriptCreate(model="m", content=dialogue("No."))]
    (chunk,) = _transcript_adding._made([*setting.items(), *bare], repeats=False)
    explained = text(f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF, BUFFERS OFF) {statement.text.text}")
    given = {**chunk.parameters, "run_id": setting.run.id, "workspace_id": workspace_of(session)}
    lines = list(session.connection().execute(explained, given).scalars())
    plan = "\n".join(lines)
    assert not re.search(r"Seq Scan on (run_slots|transcripts)", plan), plan
    scans = [line for line in lines if "Index Scan using" in line and ("on transcripts" in line or "on run_slots" in line)]
    assert any("run_slots_pkey" in line for line in scans), plan
    # Each of the 51 rows finds its own.
    assert all(float(re.search(r"actual rows=([0-9.]+)", line)[1]) <= 1 for line in scans), plan
    removed = [int(number) for number in re.findall(r"Rows Removed by Filter: (\d+)", plan)]
    assert all(number <= 51 for number in removed), plan


@BULK
@pytest.mark.parametrize("known", ["nothing", "others", "an empty table"])
def test_a_row_is_looked_up_by_its_whole_key(committed_db: Database, owner: Engine, statement: Bulk, known: str) -> None:
    """However large the run is, whether the planner has no statistics, those of other workspaces, or those of a table that was empty."""
    if known != "nothing":
        with committed_db.session(make_workspace(committed_db)) as session:
            setting = Setting(session, 1000)
            transcripts.add_many(session, setting.run.id, setting.items())
            if known != "others":
                session.rollback()
        with owner.begin() as connection:
            connection.execute(text("ANALYZE stemma.run_slots, stemma.transcripts"))
    with committed_db.session(make_workspace(committed_db)) as session:
        check_look_ups(session, statement)


def test_a_run_without_slots_is_asked_for_them_once(session: Session) -> None:
    """Its rows are not looked up one by one, and their keys are not even read."""
    setting = Setting(session, 5, plan=False)
    (chunk,) = _transcript_adding._made(setting.items(), repeats=False)
    explained = text(f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF, BUFFERS OFF) {ADD_ALL.text.text}")
    given = {**chunk.parameters, "run_id": setting.run.id, "workspace_id": workspace_of(session)}
    plan = "\n".join(session.connection().execute(explained, given).scalars())
    assert re.search(r"CTE Scan on given .*never executed", plan), plan
    assert len(transcripts.list_for_run(session, setting.run.id).items) == 10


@pytest.mark.slow
@pytest.mark.requirement("VR-077")
def test_ten_thousand_are_twelve_statements(session: Session) -> None:
    """10,000 transcripts from a generator are twelve statements, whatever is done about conflicts, and every row is there."""
    setting = Setting(session, 1, plan=False)

    def items() -> Iterator[TranscriptCreate]:
        return (TranscriptCreate(model="m", content=dialogue(f"answer {n}"), sample_index=n) for n in range(10_000))

    with assert_max_queries(12):
        report = transcripts.add_many(session, setting.run.id, items())
    assert (report.inserted, len(set(report.ids))) == (10_000, 10_000)
    with assert_max_queries(12):
        again = transcripts.add_many(session, setting.run.id, items(), on_conflict="skip")
    assert (again.skipped, again.ids) == (10_000, report.ids)
    with assert_max_queries(12):
        newer = transcripts.add_many(session, setting.run.id, items(), on_conflict="supersede")
    assert (newer.superseded, newer.inserted) == (10_000, 10_000)
    stored = [transcript.sample_index for transcript in transcripts.iter_for_run(session, setting.run.id, with_content=False)]
    assert stored == list(range(10_000))


def test_large_items_go_in_smaller_statements(session: Session) -> None:
    """Items of some megabytes are spread over statements instead of making one of a gigabyte, and all of them are stored."""
    setting = Setting(session, 1, plan=False)
    items = (TranscriptCreate(model="m", content=dialogue("x" * 9_000_000), sample_index=n) for n in range(5))
    with count_queries() as sent:
        report = transcripts.add_many(session, setting.run.id, items)
    assert (report.inserted, sent.count) == (5, 2)
    assert transcripts.get_content(session, report.ids[4]).turns[1].content == "x" * 9_000_000


CHOICES = st.lists(st.tuples(st.integers(0, 2), st.sampled_from(MODELS), st.booleans()), min_size=1, max_size=12)


@pytest.mark.property
@pytest.mark.requirement("VR-033")
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=st.lists(st.tuples(st.sampled_from(["skip", "supersede"]), CHOICES), min_size=1, max_size=4))
def test_bulk_writes_equal_single_steps(session: Session, calls: list[tuple[Any, list[tuple[int, str, bool]]]]) -> None:
    """Bulk writes leave what their items leave one by one: under skip the first of a place is live, under supersede the last."""
    with session.begin_nested() as savepoint:
        setting = Setting(session)
        live: dict[tuple[uuid.UUID | None, str], str] = {}
        written = inserted = 0
        for on_conflict, choices in calls:
            items = []
            for number, model, has_scenario in choices:
                written += 1
                scenario_id = setting.scenarios[number].id if has_scenario else None
                items.append(TranscriptCreate(model=model, scenario_id=scenario_id, content=dialogue(str(written))))
                if on_conflict == "supersede" or (scenario_id, model) not in live:
                    live[scenario_id, model] = str(written)
                    inserted += 1
            transcripts.add_many(session, setting.run.id, items, on_conflict=on_conflict)
        found = {(row.scenario_id, row.model): row for row in transcripts.iter_for_run(session, setting.run.id)}
        assert {key: row.preview for key, row in found.items()} == live
        assert count(session) == inserted
        outcomes = {(slot.scenario_id, slot.model): slot.transcript_id for slot in runs.list_slots(session, setting.run.id, limit=200)}
        assert {key: outcomes[key] for key in found if key[0]} == {key: row.id for key, row in found.items() if key[0]}
        savepoint.rollback()


@pytest.mark.race
@pytest.mark.requirement("VR-033")
@pytest.mark.parametrize("has_slots", [True, False], ids=["slots", "no slots"])
@pytest.mark.parametrize("on_conflict", ["skip", "supersede"])
def test_bulk_writes_at_once_leave_one_live_row(
    committed_db: Database, committed_workspace: uuid.UUID, on_conflict: Any, has_slots: bool
) -> None:
    """Of eight callers who fill the same places at the same moment, in different orders, none fails, and each place has one live row."""
    with committed_db.session(committed_workspace) as session:
        setting = Setting(session, 20, plan=has_slots)

    def add(number: int) -> transcripts.AddReport:
        items = setting.items(f"answer {number}")
        with committed_db.session(committed_workspace) as session:
            return transcripts.add_many(session, setting.run.id, items[number:] + items[:number], on_conflict=on_conflict)

    results = run_together(8, add)
    reports = [result for result in results if isinstance(result, transcripts.AddReport)]
    assert len(reports) == 8, results
    with committed_db.session(committed_workspace) as session:
        live = list(transcripts.iter_for_run(session, setting.run.id))
        assert len(live) == 40
        assert len({(row.scenario_id, row.model) for row in live}) == 40
        assert sum(report.inserted for report in reports) == count(session)
        assert sum(report.superseded for report in reports) == count(session) - 40
        outcomes = {slot.transcript_id for slot in runs.list_slots(session, setting.run.id, limit=200)}
        assert outcomes == ({row.id for row in live} if has_slots else set())


@pytest.mark.race
def test_adding_and_recording_at_once_do_not_lock_each_other_out(committed_db: Database, committed_workspace: uuid.UUID) -> None:
    """Callers who add to slots while workers record theirs: no deadlock, and one live row for each slot."""
    with committed_db.session(committed_workspace) as session:
        setting = Setting(session, 20)
    with committed_db.session(committed_workspace) as session:
        claims = runs.claim_slots(session, setting.run.id, worker="w", count=40)
    numbers = {scenario.id: number for number, scenario in enumerate(setting.scenarios)}

    def act(number: int) -> object:
        with committed_db.session(committed_workspace) as session:
            if number % 2:
                items = setting.items(f"answer {number}")
                return transcripts.add_many(session, setting.run.id, list(reversed(items)), on_conflict="skip")
            outcomes = [
                SlotOutcome(claim=claim, transcript=setting.item(numbers[claim.key.scenario_id], claim.key.model, "worker"))
                for claim in claims[number * 5 : number * 5 + 10]
            ]
            return runs.record_outcomes(session, outcomes)

    results = run_together(8, act)
    assert not [result for result in results if isinstance(result, BaseException) and not isinstance(result, ConflictError)], results
    with committed_db.session(committed_workspace) as session:
        live = list(transcripts.iter_for_run(session, setting.run.id))
        assert len({(row.scenario_id, row.model) for row in live}) == len(live) == 40


# -------------------------------------------------------------------------------------------------------------- reading


@pytest.mark.requirement("VR-087", "VR-088")
def test_reading_logs(session: Session, caplog: pytest.LogCaptureFixture) -> None:
    """A read logs its id at DEBUG before the query, and a missing row logs it at WARNING."""
    setting = Setting(session)
    made = transcripts.add(session, setting.run.id, setting.item())
    unknown = uuid.uuid4()
    with caplog.at_level(logging.DEBUG, "stemmadb.evaluation.transcripts"):
        caplog.clear()
        assert transcripts.get(session, str(made.id)) is made
        assert transcripts.find(session, unknown) is None
        assert transcripts.find(session, "no id") is None
    assert [record.levelname for record in caplog.records] == ["DEBUG", "DEBUG", "WARNING", "WARNING"]
    assert str(made.id) in caplog.records[0].getMessage()
    assert str(unknown) in caplog.records[2].getMessage()


@pytest.mark.parametrize(
    "call",
    [
        transcripts.get,
        transcripts.get_content,
        transcripts.revalidate,
        transcripts.delete,
        lambda session, key: transcripts.set_metrics(session, key, TranscriptMetrics()),
        lambda session, key: transcripts.invalidate(session, key, reason="x"),
    ],
    ids=["get", "get_content", "revalidate", "delete", "set_metrics", "invalidate"],
)
def test_what_is_missing_is_not_found(session: Session, call: Callable[[Session, str | uuid.UUID], object]) -> None:
    """An unknown id and one that is none read the same."""
    for unknown in (uuid.uuid4(), "no id"):
        with pytest.raises(NotFoundError) as caught:
            call(session, unknown)
        assert str(caught.value) == str(NotFoundError("Transcript", unknown))


def test_a_missing_run_is_not_found(session: Session) -> None:
    """Summing and streaming an unknown run say so; listing it gives nothing."""
    for unknown in (uuid.uuid4(), "no id"):
        with pytest.raises(NotFoundError, match="Run"):
            transcripts.summarize_run(session, unknown)
        with pytest.raises(NotFoundError, match="Run"):
            list(transcripts.iter_for_run(session, unknown))
    assert len(transcripts.list_for_run(session, uuid.uuid4())) == 0
    assert len(transcripts.list_for_scenario(session, uuid.uuid4())) == 0


@pytest.mark.parametrize(
    "call",
    [
        lambda session, key: transcripts.add(session, key, TranscriptCreate(model="m", content=dialogue("a"))),
        lambda session, key: transcripts.add_many(session, key, [TranscriptCreate(model="m", content=dialogue("a"))]),
        transcripts.get,
        transcripts.find,
        lambda session, key: transcripts.find_by_slot(session, SlotKey(key, key, "m")),
        transcripts.get_content,
        transcripts.list_for_run,
        transcripts.list_for_scenario,
        lambda session, key: list(transcripts.iter_for_run(session, key)),
        lambda session, key: transcripts.set_metrics(session, key, TranscriptMetrics()),
        lambda session, key: transcripts.invalidate(session, key, reason="x"),
        transcripts.revalidate,
        transcripts.summarize_run,
        transcripts.delete,
    ],
)
def test_nothing_is_sent_without_a_workspace(db: Database, call: Callable[[Session, uuid.UUID], object]) -> None:
    """Every function refuses a session without a workspace before a statement is sent, and names itself."""
    with db.session() as session, count_queries() as sent:
        with pytest.raises(WorkspaceNotSetError, match=r"evaluation\."):
            call(session, uuid.uuid4())
        assert sent.count == 0


def test_pages_are_oldest_first_and_narrowed(session: Session) -> None:
    """Joined pages are all live transcripts in the order added; model, scenario and invalidated ones narrow or widen them."""
    setting = Setting(session)
    report = transcripts.add_many(session, setting.run.id, setting.items())
    transcripts.invalidate(session, report.ids[0], reason="wrong key")
    found: list[uuid.UUID] = []
    cursor = None
    for _ in range(3):
        page = transcripts.list_for_run(session, setting.run.id, cursor=cursor, limit=2)
        found += [transcript.id for transcript in page]
        cursor = page.next_cursor
    assert (found, cursor) == (report.ids[1:], None)

    def ids(**options: Any) -> list[uuid.UUID]:
        return [transcript.id for transcript in transcripts.list_for_run(session, setting.run.id, **options)]

    assert ids(include_invalidated=True) == report.ids
    assert ids(model=MODELS[0]) == report.ids[2::2]
    assert ids(scenario_id=str(setting.scenarios[1].id)) == report.ids[2:4]
    assert ids(model=MODELS[0], scenario_id=setting.scenarios[0].id, include_invalidated=True) == report.ids[:1]
    first = transcripts.list_for_run(session, setting.run.id, limit=2)
    with pytest.raises(InvalidCursorError):
        transcripts.list_for_run(session, setting.run.id, include_invalidated=True, cursor=first.next_cursor, limit=2)


def test_a_scenario_has_transcripts_of_several_runs(session: Session) -> None:
    """The live transcripts of a scenario over all runs, newest first, narrowed to a model, without their dialogues."""
    setting = Setting(session)
    other = Run(definition_id=setting.run.definition_id, config=RunConfig(models=MODELS))
    session.add(other)
    first = transcripts.add_many(session, setting.run.id, [setting.item(0, model) for model in MODELS])
    second = transcripts.add_many(session, other.id, [setting.item(0, model) for model in MODELS])
    dead = transcripts.add(session, other.id, setting.item(0, sample_index=1))
    transcripts.invalidate(session, dead.id, reason="x")
    session.expunge_all()
    with assert_max_queries(1):
        page = transcripts.list_for_scenario(session, setting.scenarios[0].id)
    assert [transcript.id for transcript in page] == list(reversed(first.ids + second.ids))
    assert all("content" not in transcript.__dict__ for transcript in page)
    narrowed = transcripts.list_for_scenario(session, setting.scenarios[0].id, model=MODELS[1], limit=1)
    assert [transcript.id for transcript in narrowed] == [second.ids[1]]
    rest = transcripts.list_for_scenario(session, setting.scenarios[0].id, model=MODELS[1], limit=1, cursor=narrowed.next_cursor)
    assert [transcript.id for transcript in rest] == [first.ids[1]]


def test_a_list_fetches_no_dialogues_unless_asked(session: Session) -> None:
    """The statement of a page does not name the dialogues, and reading one raises; with_content brings them, also to rows held already."""
    setting = Setting(session)
    transcripts.add_many(session, setting.run.id, setting.items())
    with count_queries() as sent:
        page = transcripts.list_for_run(session, setting.run.id)
    (statement,) = sent.statements
    assert "transcripts.content_version" in statement
    assert "transcripts.content," not in statement.replace(" AS TEXT", "")
    assert "CAST(stemma.transcripts.content AS" not in statement
    assert page[0].preview == "Yes."
    assert "content" not in page[0].__dict__
    with assert_max_queries(1):
        full = transcripts.list_for_run(session, setting.run.id, with_content=True)
    assert full[0] is page[0]
    assert full[0].content == dialogue("Yes.")
    assert not session.dirty


BAD = {
    "corrupt": ('{"schema_version": 1, "turns": 7}', None, CorruptDocumentError),
    "newer": ('{"schema_version": 99, "turns": []}', None, UnknownSchemaVersionError),
    "corrupt metrics": ('{"schema_version": 1, "turns": []}', '{"schema_version": 1, "values": 7}', CorruptDocumentError),
    "newer metrics": ('{"schema_version": 1, "turns": []}', '{"schema_version": 99}', UnknownSchemaVersionError),
}


def listed(session: Session, run_id: uuid.UUID, **options: Any) -> list[Transcript]:
    return list(transcripts.list_for_run(session, run_id, **options))


def streamed(session: Session, run_id: uuid.UUID, **options: Any) -> list[Transcript]:
    return list(transcripts.iter_for_run(session, run_id, batch=2, **options))


@pytest.mark.fault
@pytest.mark.parametrize("read", [listed, streamed])
@pytest.mark.parametrize("kind", BAD)
def test_a_row_that_cannot_be_read_costs_itself_alone(session: Session, read: Callable[..., list[Transcript]], kind: str) -> None:
    """A corrupt or newer document raises with its place, is left out, or comes raw, as asked; the other rows are as ever."""
    content, metrics, error = BAD[kind]
    setting = Setting(session, 1)
    good = [transcripts.add(session, setting.run.id, setting.item())]
    bad = insert_raw(session, setting.run.id, content=content, metrics=metrics)
    good.append(transcripts.add(session, setting.run.id, setting.item(0, MODELS[1])))
    ids = [transcript.id for transcript in good]
    session.expunge_all()

    with pytest.raises(error) as caught:
        read(session, setting.run.id, with_content=True)
    assert isinstance(caught.value, DocumentError)
    column = "metrics" if metrics else "content"
    assert (caught.value.table, caught.value.column, caught.value.key) == ("transcripts", column, bad)

    kept = read(session, setting.run.id, with_content=True, on_invalid="skip")
    assert [transcript.id for transcript in kept] == ids
    assert all(transcript.content == dialogue("Yes.") for transcript in kept)

    raw = read(session, setting.run.id, with_content=True, on_invalid="raw")
    assert [transcript.id for transcript in raw] == [ids[0], bad, ids[1]]
    document = getattr(raw[1], column)
    assert isinstance(document, RawDocument)
    assert document.raw["schema_version"] in (1, 99)
    assert document.error.key == bad
    assert not session.dirty

    del kept, raw, document
    session.expunge_all()
    if metrics is None:
        assert [transcript.id for transcript in read(session, setting.run.id, with_content=False)] == [ids[0], bad, ids[1]]
    with pytest.raises(ValidationError):
        read(session, setting.run.id, on_invalid="ignore")


@pytest.mark.fault
def test_pages_go_on_behind_rows_that_were_left_out(session: Session) -> None:
    """A page whose rows are all left out is empty and has a cursor, and the next one begins behind them."""
    setting = Setting(session, 1)
    for _ in range(2):
        insert_raw(session, setting.run.id, content='{"schema_version": 99}')
    last = transcripts.add(session, setting.run.id, setting.item())
    first = transcripts.list_for_run(session, setting.run.id, with_content=True, on_invalid="skip", limit=2)
    assert (len(first), first.has_more) == (0, True)
    second = transcripts.list_for_run(session, setting.run.id, with_content=True, on_invalid="skip", limit=2, cursor=first.next_cursor)
    assert list(second) == [last]


@pytest.mark.fault
def test_a_dialogue_that_cannot_be_read_says_where_it_is(session: Session) -> None:
    """get_content upcasts old dialogues, refuses newer and corrupt ones with their place, and changes none of them."""
    setting = Setting(session, 1)
    old = insert_raw(session, setting.run.id, content='{"messages": [{"role": "assistant", "content": "old"}]}')
    assert transcripts.get_content(session, old).turns[0].content == "old"
    for content, error in (('{"schema_version": 99}', UnknownSchemaVersionError), ('{"schema_version": 1}', CorruptDocumentError)):
        bad = insert_raw(session, setting.run.id, content=content)
        with pytest.raises(error) as caught:
            transcripts.get_content(session, bad)
        assert (caught.value.table, caught.value.column, caught.value.key) == ("transcripts", "content", bad)  # type: ignore[attr-defined]
        assert transcripts.get(session, bad).id == bad
    assert session.scalar(text("SELECT content ? 'messages' FROM stemma.transcripts WHERE id = :id"), {"id": old}) is True


# ------------------------------------------------------------------------------------------------------------ streaming


def test_a_stream_is_by_id_and_sees_live_rows(session: Session) -> None:
    """All live transcripts come by id with their dialogues, whatever the batch; a batch below 1 is refused."""
    setting = Setting(session)
    report = transcripts.add_many(session, setting.run.id, setting.items())
    transcripts.invalidate(session, report.ids[2], reason="x")
    expected = sorted(set(report.ids) - {report.ids[2]})
    session.expunge_all()
    for batch in (1, 2, 5, 500):
        found = list(transcripts.iter_for_run(session, setting.run.id, batch=batch))
        assert [transcript.id for transcript in found] == expected
        assert all(transcript.content == dialogue("Yes.") for transcript in found)
    with pytest.raises(ValidationError):
        next(transcripts.iter_for_run(session, setting.run.id, batch=0))


def test_a_run_without_transcripts_streams_nothing(session: Session) -> None:
    """A run that has none yields none."""
    assert list(transcripts.iter_for_run(session, Setting(session).run.id)) == []


def test_a_stream_that_is_left_closes_its_cursor(session: Session) -> None:
    """Whoever stops in the middle leaves no cursor open, and the session goes on."""
    setting = Setting(session)
    transcripts.add_many(session, setting.run.id, setting.items())
    stream = transcripts.iter_for_run(session, setting.run.id, batch=1)
    next(stream)
    cursors = text("SELECT count(*) FROM pg_cursors WHERE name <> ''")
    assert session.scalar(cursors) == 1
    stream.close()  # type: ignore[attr-defined]
    assert session.scalar(cursors) == 0


def test_the_session_can_work_while_it_streams(session: Session) -> None:
    """Rows may be written and read between two batches."""
    setting = Setting(session)
    transcripts.add_many(session, setting.run.id, setting.items())
    for transcript in transcripts.iter_for_run(session, setting.run.id, batch=2):
        transcripts.set_metrics(session, transcript.id, TranscriptMetrics(values={"length": len(transcript.content.turns)}))
    assert all(row.metrics.values == {"length": 2.0} for row in transcripts.list_for_run(session, setting.run.id))


@pytest.mark.slow
def test_a_stream_takes_constant_memory(session: Session) -> None:
    """Reading 60 MB of dialogues takes a fraction of them at any moment, and the session keeps none."""
    setting = Setting(session, 1, plan=False)
    body = "x" * 100_000
    items = (TranscriptCreate(model="m", content=dialogue(body), sample_index=n) for n in range(600))
    transcripts.add_many(session, setting.run.id, items)
    session.expunge_all()
    # The first statements compile and cache, which is not the stream's memory.
    for _ in itertools.islice(transcripts.iter_for_run(session, setting.run.id, batch=10), 20):
        pass
    tracemalloc.start()
    try:
        seen = sum(len(transcript.content.turns[1].content) for transcript in transcripts.iter_for_run(session, setting.run.id, batch=10))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert seen == 60_000_000
    assert peak < 15_000_000
    assert len(session.identity_map) < 50


# ---------------------------------------------------------------------------------------------------------- correcting


def test_metrics_are_replaced(session: Session) -> None:
    """Metrics are set by one statement, all of them; the rest of the row stays."""
    setting = Setting(session)
    made = transcripts.add(session, setting.run.id, setting.item(metrics=TranscriptMetrics(values={"a": 1.0})))
    with assert_max_queries(1):
        changed = transcripts.set_metrics(session, made.id, TranscriptMetrics(values={"b": 2.5}, decision="pull"))
    assert changed is made
    session.expunge_all()
    assert transcripts.get(session, made.id).metrics == TranscriptMetrics(values={"b": 2.5}, decision="pull")


@pytest.mark.fault
def test_metrics_of_a_newer_release_stay(session: Session) -> None:
    """Metrics that this release cannot read are not overwritten."""
    setting = Setting(session)
    newer = insert_raw(session, setting.run.id, metrics='{"schema_version": 99, "new": true}')
    with pytest.raises(UnknownSchemaVersionError) as caught:
        transcripts.set_metrics(session, newer, TranscriptMetrics())
    assert (caught.value.table, caught.value.column, caught.value.key, caught.value.found) == ("transcripts", "metrics", newer, 99)
    malformed = insert_raw(session, setting.run.id, metrics='{"schema_version": "x"}')
    with pytest.raises(CorruptDocumentError):
        transcripts.set_metrics(session, malformed, TranscriptMetrics())
    assert session.scalar(text("SELECT metrics ->> 'new' FROM stemma.transcripts WHERE id = :id"), {"id": newer}) == "true"


@pytest.mark.requirement("VR-033")
def test_an_invalidated_transcript_frees_its_place(session: Session) -> None:
    """An invalidated row stays readable and its place takes another, which the slot follows."""
    setting = Setting(session)
    first = transcripts.add(session, setting.run.id, setting.item(answer="wrong"))
    gone = transcripts.invalidate(session, first.id, reason="wrong prompt")
    assert gone is first
    assert (gone.invalidated_reason, gone.invalidated_by_id) == ("wrong prompt", None)
    assert gone.invalidated_at is not None
    key = SlotKey(setting.run.id, setting.scenarios[0].id, MODELS[0])
    assert transcripts.find_by_slot(session, key) is None
    assert setting.slot(session).transcript_id == first.id
    second = transcripts.add(session, setting.run.id, setting.item(answer="right"))
    assert transcripts.find_by_slot(session, key) is second
    assert setting.slot(session).transcript_id == second.id
    assert transcripts.get_content(session, first.id) == dialogue("wrong")


def test_invalidating_is_idempotent(session: Session) -> None:
    """A second invalidation changes nothing of the first; a blank reason and an unknown user are refused."""
    setting = Setting(session)
    made = transcripts.add(session, setting.run.id, setting.item())
    user = session.scalar(text("SELECT id FROM stemma.users LIMIT 1"))
    transcripts.invalidate(session, made.id, reason="first", by_user_id=user)
    before = (made.invalidated_at, made.updated_at)
    again = transcripts.invalidate(session, made.id, reason="second")
    assert (again.invalidated_reason, again.invalidated_by_id) == ("first", user)
    assert (again.invalidated_at, again.updated_at) == before
    other = transcripts.add(session, setting.run.id, setting.item(1))
    for reason in ("", " ", "a\0"):
        with pytest.raises(ValidationError):
            transcripts.invalidate(session, other.id, reason=reason)
    with pytest.raises(ValidationError):
        transcripts.invalidate(session, other.id, reason="x", by_user_id="no id")
    with pytest.raises(ReferenceNotFoundError) as caught, session.begin_nested():
        transcripts.invalidate(session, other.id, reason="x", by_user_id=uuid.uuid4())
    assert caught.value.field == "invalidated_by_id"


def test_an_invalidation_can_be_taken_back(session: Session) -> None:
    """A revalidated transcript is live again, as if nothing had been; twice is once."""
    setting = Setting(session)
    made = transcripts.add(session, setting.run.id, setting.item())
    transcripts.invalidate(session, made.id, reason="x")
    back = transcripts.revalidate(session, made.id)
    assert back is made
    assert (back.invalidated_at, back.invalidated_reason, back.invalidated_by_id) == (None, None, None)
    assert transcripts.revalidate(session, made.id) is made
    assert setting.slot(session).transcript_id == made.id


def test_a_revalidated_transcript_fills_its_slot_again(session: Session) -> None:
    """A slot that was queued again has its outcome back, unless a worker has leased it meanwhile."""
    setting = Setting(session, 1)
    made = transcripts.add_many(session, setting.run.id, setting.items())
    for transcript_id in made.ids:
        transcripts.invalidate(session, transcript_id, reason="x")
    assert runs.retry_slots(session, setting.run.id) == 2
    (claim,) = runs.claim_slots(session, setting.run.id, worker="w", models=[MODELS[1]])
    for transcript_id in made.ids:
        transcripts.revalidate(session, transcript_id)
    free, leased = setting.slot(session), setting.slot(session, 0, MODELS[1])
    assert (free.status, free.transcript_id) == (SlotStatus.COMPLETED, made.ids[0])
    assert (leased.status, leased.lease_owner, leased.attempt) == (SlotStatus.RUNNING, "w", claim.attempt)


def test_a_place_that_is_taken_refuses_the_old_transcript(session: Session) -> None:
    """A transcript whose place has a newer live one stays invalidated, and the refusal leaves the transaction usable."""
    setting = Setting(session)
    first = transcripts.add(session, setting.run.id, setting.item())
    transcripts.invalidate(session, first.id, reason="x")
    second = transcripts.add(session, setting.run.id, setting.item())
    with pytest.raises(ConflictError) as caught:
        transcripts.revalidate(session, first.id)
    assert caught.value.fields == ("run_id", "scenario_id", "model", "sample_index")
    assert transcripts.get(session, first.id).invalidated_reason == "x"
    assert setting.slot(session).transcript_id == second.id


@pytest.mark.race
def test_of_a_revalidation_and_an_addition_at_once_one_wins(committed_db: Database, committed_workspace: uuid.UUID) -> None:
    """Eight callers who fill one place, half by revalidating and half by adding: one is kept, the others are told."""
    with committed_db.session(committed_workspace) as session:
        setting = Setting(session, 1)
        dead = transcripts.add(session, setting.run.id, setting.item())
        transcripts.invalidate(session, dead.id, reason="x")

    def act(number: int) -> Transcript:
        with committed_db.session(committed_workspace) as session:
            if number % 2:
                return transcripts.revalidate(session, dead.id)
            return transcripts.add(session, setting.run.id, setting.item(answer=str(number)))

    results = run_together(8, act)
    assert all(isinstance(result, Transcript | ConflictError) for result in results), results
    with committed_db.session(committed_workspace) as session:
        (live,) = transcripts.iter_for_run(session, setting.run.id)
        assert {result.id for result in results if isinstance(result, Transcript)} == {live.id}
        assert setting.slot(session).transcript_id == live.id


# -------------------------------------------------------------------------------------------------------------- summing


@pytest.mark.requirement("AD-014")
def test_the_unknown_is_counted_as_unknown(session: Session) -> None:
    """What transcripts do not say is absent from the sums and counted for each column; a 0 that was said is a 0."""
    setting = Setting(session)
    known = {"input_tokens": 10, "output_tokens": 0, "duration_ms": 100, "cost": Decimal("0.1"), "cost_currency": "USD"}
    transcripts.add_many(session, setting.run.id, [setting.item(0, **known), setting.item(1, input_tokens=5), setting.item(2)])
    with assert_max_queries(1):
        metrics = transcripts.summarize_run(session, setting.run.id)
    (model,) = metrics.models
    assert (metrics.run_id, model.model, model.count, model.invalidated) == (setting.run.id, MODELS[0], 3, 0)
    assert model.tokens == {"input": 15, "output": 0}
    assert model.unknown == {
        "input_tokens": 1,
        "output_tokens": 2,
        "reasoning_tokens": 3,
        "cache_read_tokens": 3,
        "cache_write_tokens": 3,
        "duration_ms": 2,
        "ttft_ms": 3,
        "cost": 2,
    }
    assert model.cost == {"USD": Decimal("0.1")}
    assert model.duration_ms == {"p50": 100.0, "p90": 100.0, "p99": 100.0}


@pytest.mark.requirement("AD-014")
def test_costs_are_exact_and_apart_by_currency(session: Session) -> None:
    """Costs are summed exactly, to the last place, and those of two currencies are never added."""
    setting = Setting(session)
    costs = [("0.10000001", "USD"), ("0.20000002", "USD"), ("1000000000.00000003", "EUR")]
    items = [setting.item(number, cost=Decimal(cost), cost_currency=currency) for number, (cost, currency) in enumerate(costs)]
    transcripts.add_many(session, setting.run.id, items)
    (model,) = transcripts.summarize_run(session, setting.run.id).models
    assert model.cost == {"EUR": Decimal("1000000000.00000003"), "USD": Decimal("0.30000003")}
    assert list(model.cost) == ["EUR", "USD"]


def test_models_are_summed_apart_and_the_invalidated_counted(session: Session) -> None:
    """Each model has its own sums, by name; invalidated transcripts are counted and add nothing, also where they are all there is."""
    setting = Setting(session)
    items = [setting.item(number, model, output_tokens=2**62, duration_ms=number * 100) for number in range(3) for model in (*MODELS, "B")]
    report = transcripts.add_many(session, setting.run.id, items)
    transcripts.invalidate(session, report.ids[0], reason="x")
    for transcript_id in report.ids[2::3]:
        transcripts.invalidate(session, transcript_id, reason="x")
    first, second, third = transcripts.summarize_run(session, setting.run.id).models
    assert (first.model, first.count, first.invalidated, first.tokens, first.duration_ms) == ("B", 0, 3, {}, {})
    assert (second.model, second.count, second.invalidated, second.tokens) == (MODELS[0], 2, 1, {"output": 2**63})
    assert (third.model, third.count, third.tokens) == (MODELS[1], 3, {"output": 3 * 2**62})
    assert (second.duration_ms["p50"], third.duration_ms["p50"], third.duration_ms["p90"]) == (150.0, 100.0, 180.0)
    assert set(first.unknown.values()) == {0}


def test_a_run_without_transcripts_sums_to_nothing(session: Session) -> None:
    """A run that has none is found, and has no models."""
    assert transcripts.summarize_run(session, Setting(session).run.id).models == []


# ------------------------------------------------------------------------------------------------------------- deleting


def test_a_transcript_is_deleted_with_its_scores(session: Session) -> None:
    """What is no slot's outcome can be deleted, and its scores go with it."""
    setting = Setting(session, plan=False)
    made = transcripts.add(session, setting.run.id, setting.item())
    session.add(Score(transcript_id=made.id, annotator_kind=AnnotatorKind.RULE, annotator="length/1", value=1.0))
    session.flush()
    transcripts.delete(session, made.id)
    assert transcripts.find(session, made.id) is None
    assert session.scalar(select(func.count()).select_from(Score)) == 0


def test_the_outcome_of_a_slot_stays(session: Session) -> None:
    """A slot's outcome cannot be deleted, invalidated or not, and the refusal leaves the transaction usable."""
    setting = Setting(session)
    made = transcripts.add(session, setting.run.id, setting.item())
    for _ in range(2):
        with pytest.raises(StillReferencedError) as caught:
            transcripts.delete(session, made.id)
        assert caught.value.by == ("run_slots",)
        transcripts.invalidate(session, made.id, reason="x")
    assert transcripts.get(session, made.id) is made


@pytest.mark.requirement("VR-045")
def test_transcripts_go_with_their_run(session: Session) -> None:
    """Deleting a run deletes its transcripts."""
    setting = Setting(session)
    transcripts.add_many(session, setting.run.id, setting.items())
    runs.delete(session, setting.run.id)
    assert count(session) == 0


# ---------------------------------------------------------------------------------------------------------------- async


async def test_the_twins_do_the_same(async_session: AsyncSession) -> None:
    """Each function has an async twin that does the same."""
    content = DefinitionContent(preamble="", template="t")
    definition = await async_definitions.create(async_session, DefinitionCreate(name="T", content=content))
    (scenario,) = await async_scenarios.generate(async_session, definition.id)
    run = Run(definition_id=definition.id, config=RunConfig(models=MODELS))
    async_session.add(run)
    await async_session.flush()
    item = TranscriptCreate(model="m", scenario_id=scenario.id, content=dialogue("a"), output_tokens=3)
    made = await async_transcripts.add(async_session, run.id, item)
    assert made.content == dialogue("a")
    report = await async_transcripts.add_many(async_session, run.id, [item], on_conflict="skip")
    assert report.ids == [made.id]
    assert await async_transcripts.get(async_session, made.id) is made
    assert await async_transcripts.find(async_session, uuid.uuid4()) is None
    assert await async_transcripts.find_by_slot(async_session, SlotKey(run.id, scenario.id, "m")) is made
    assert await async_transcripts.get_content(async_session, made.id) == dialogue("a")
    assert len(await async_transcripts.list_for_run(async_session, run.id, with_content=True)) == 1
    assert len(await async_transcripts.list_for_scenario(async_session, scenario.id)) == 1
    assert (await async_transcripts.set_metrics(async_session, made.id, TranscriptMetrics(decision="x"))).metrics.decision == "x"
    assert (await async_transcripts.summarize_run(async_session, run.id)).models[0].tokens == {"output": 3}
    assert (await async_transcripts.invalidate(async_session, made.id, reason="x")).invalidated_reason == "x"
    assert (await async_transcripts.revalidate(async_session, made.id)).invalidated_at is None
    await async_transcripts.delete(async_session, made.id)
    with pytest.raises(NotFoundError):
        await async_transcripts.get(async_session, made.id)


async def test_the_twin_streams(async_session: AsyncSession) -> None:
    """The async stream yields the same rows by id through a server-side cursor, and closes it when it is left."""
    definition = await async_definitions.create(
        async_session, DefinitionCreate(name="T", content=DefinitionContent(preamble="", template="t"))
    )
    run = Run(definition_id=definition.id, config=RunConfig(models=MODELS))
    async_session.add(run)
    await async_session.flush()
    items = [TranscriptCreate(model="m", content=dialogue(str(n)), sample_index=n) for n in range(1200)]
    report = await async_transcripts.add_many(async_session, run.id, items)
    found = [row.sample_index async for row in async_transcripts.iter_for_run(async_session, run.id, batch=100)]
    assert found == list(range(1200))
    cursors = text("SELECT count(*) FROM pg_cursors WHERE name <> ''")
    stream = async_transcripts.iter_for_run(async_session, run.id, batch=100)
    assert (await anext(stream)).id == min(report.ids)
    assert await async_session.scalar(cursors) == 1
    await stream.aclose()  # type: ignore[attr-defined]
    assert await async_session.scalar(cursors) == 0
    with pytest.raises(NotFoundError):
        async for _ in async_transcripts.iter_for_run(async_session, uuid.uuid4()):
            pass
