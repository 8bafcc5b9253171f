"""Runs: making, reading, listing, changing and deleting them, and the scenarios that they select."""

import logging
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.engine import Engine
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from tests.evaluation.run_setups import MODEL, complete_all, make_definition, make_run, make_scenarios, success

from stemmadb.aio.evaluation import definitions as aio_definitions
from stemmadb.aio.evaluation import runs as aio_runs
from stemmadb.aio.evaluation import scenarios as aio_scenarios
from stemmadb.database import Database
from stemmadb.documents import RawDocument
from stemmadb.errors import (
    FrozenError,
    InvalidCursorError,
    NotFoundError,
    ReferenceNotFoundError,
    StillReferencedError,
    UnknownSchemaVersionError,
    ValidationError,
)
from stemmadb.evaluation import definitions, runs, transcripts
from stemmadb.evaluation.data import (
    DefinitionCreate,
    DefinitionFork,
    RunCreate,
    RunFilters,
    RunUpdate,
    ScenarioCreate,
    ScoreCreate,
    TranscriptCreate,
)
from stemmadb.evaluation.documents import DefinitionContent, RunConfig, RunProgress, ScenarioContent, TranscriptContent, Turn
from stemmadb.evaluation.entities import Experiment, Run, RunStatus
from stemmadb.evaluation.vocabularies import AnnotatorKind
from stemmadb.testing import assert_max_queries, make_workspace

CONFIG = RunConfig(models=(MODEL,))


def count(session: Session, table: str, run_id: UUID) -> int:
    return int(session.execute(text(f"SELECT count(*) FROM stemma.{table} WHERE run_id = :id"), {"id": run_id}).scalar_one())


# ------------------------------------------------------------------------------------------------------------------ create


@pytest.mark.requirement("VR-032", "VR-070", "VR-089", "AD-002")
def test_a_new_run_is_pending_and_freezes_its_definition(session: Session, caplog: pytest.LogCaptureFixture) -> None:
    """A run begins PENDING with zero progress, and from then on its definition cannot change."""
    definition = make_definition(session)
    assert definition.frozen_at is None
    with caplog.at_level(logging.INFO, "stemmadb.evaluation.runs"):
        run = runs.create(session, RunCreate(definition_id=definition.id, config=CONFIG, name="first"))
    assert (run.status, run.slot_count, run.progress) == (RunStatus.PENDING, None, RunProgress())
    assert run.config == CONFIG
    assert run.config_version == 1
    assert run.started_at is run.completed_at is None
    assert definition.frozen_at is not None
    assert any(record.levelname == "INFO" and "'first'" in record.getMessage() for record in caplog.records)
    with pytest.raises(FrozenError):
        definitions.update(session, definition.id, definitions.DefinitionUpdate(name="other"))


@pytest.mark.requirement("VR-054")
def test_progress_is_stored_with_its_version(session: Session) -> None:
    """What is stored for a new run says its version; what the database fills in is version 1."""
    run = make_run(session, scenario_count=0, started=False)
    stored = text("SELECT progress->>'schema_version' FROM stemma.runs WHERE id = :id")
    assert session.execute(stored, {"id": run.id}).scalar() == "2"
    raw = text(
        'INSERT INTO stemma.runs (definition_id, config) VALUES (:definition_id, \'{"schema_version": 1, "models": []}\') RETURNING id'
    )
    raw_id = session.execute(raw, {"definition_id": run.definition_id}).scalar_one()
    assert session.execute(stored, {"id": raw_id}).scalar() == "1"
    assert runs.get(session, raw_id).progress == RunProgress()


@pytest.mark.requirement("VR-032")
def test_progress_has_exactly_one_source(session: Session) -> None:
    """The database refuses a run with slots and stored progress, and a run with neither."""
    run = make_run(session, started=True)
    for change in ("progress = '{}'", "slot_count = NULL"):
        with pytest.raises(IntegrityError), session.begin_nested():
            session.execute(text(f"UPDATE stemma.runs SET {change} WHERE id = :id"), {"id": run.id})


@pytest.mark.requirement("VR-054")
def test_total_is_scenarios_times_models_times_samples(session: Session) -> None:
    """The progress of a run that selected scenarios begins with all of its transcripts as the total."""
    run = make_run(session, scenario_count=3, models=("a", "b"), started=False, samples_per_scenario=2)
    assert run.progress == RunProgress(total=12)


@pytest.mark.requirement("VR-039", "VR-053")
@pytest.mark.parametrize(("percentage", "chosen"), [(100, 10), (50, 5), (41, 5), (0.1, 1)])
def test_a_configured_sample_is_selected(session: Session, percentage: float, chosen: int) -> None:
    """A run whose configuration has a percentage selects that much, rounded up, and the same for the same seed."""
    definition = make_definition(session)
    make_scenarios(session, definition.id, 10)
    config = RunConfig(models=("a",), sample_percentage=percentage, seed=7)
    first, second = (runs.create(session, RunCreate(definition_id=definition.id, config=config)) for _ in range(2))
    selected = runs.selected_scenarios(session, first.id)
    assert len(selected) == chosen
    assert selected == runs.selected_scenarios(session, second.id)
    assert first.progress == RunProgress(total=chosen)


@pytest.mark.requirement("VR-070")
@pytest.mark.parametrize("field", ["definition_id", "experiment_id", "scenario_ids"])
def test_create_names_a_reference_that_does_not_exist(session: Session, field: str) -> None:
    """An unknown definition, experiment or scenario is refused; nothing is stored, and the transaction goes on."""
    definition = make_definition(session)
    given = {"definition_id": definition.id, "config": CONFIG, field: [uuid4()] if field == "scenario_ids" else uuid4()}
    with pytest.raises(ReferenceNotFoundError) as caught:
        runs.create(session, RunCreate(**given))
    assert caught.value.field == field.removesuffix("s")
    assert not runs.list_all(session).items
    assert definitions.get(session, definition.id).frozen_at is None


def test_create_refuses_malformed_ids_before_sending(session: Session) -> None:
    """An id that is no UUID is a ValidationError, and nothing is sent."""
    with assert_max_queries(0), pytest.raises(ValidationError) as caught:
        runs.create(session, RunCreate(definition_id="nonsense", config=CONFIG))
    assert caught.value.field == "definition_id"


def test_text_columns_refuse_nul_before_sending(session: Session) -> None:
    """A name with U+0000 is refused when the data object is made."""
    with pytest.raises(ValidationError) as caught:
        RunCreate(definition_id=uuid4(), config=CONFIG, name="a\0b")
    assert caught.value.field == "name"


# ------------------------------------------------------------------------------------------------------------------- reads


@pytest.mark.requirement("VR-071", "VR-087", "VR-088")
def test_get_and_find(session: Session, caplog: pytest.LogCaptureFixture) -> None:
    """get returns the run or raises, find returns it or None; the id is logged before the query and again when there is no row."""
    run = make_run(session, started=False)
    caplog.set_level(logging.DEBUG, "stemmadb.evaluation.runs")
    assert runs.get(session, str(run.id)) is run
    assert runs.find(session, run.id) is run
    assert [(record.levelname, str(run.id) in record.getMessage()) for record in caplog.records] == [("DEBUG", True)] * 2
    caplog.clear()
    missing = uuid4()
    assert runs.find(session, missing) is None
    assert runs.find(session, "nonsense") is None
    with pytest.raises(NotFoundError):
        runs.get(session, missing)
    assert [record.levelname for record in caplog.records if str(missing) in record.getMessage()] == ["DEBUG", "WARNING"] * 2


@pytest.mark.requirement("VR-071")
def test_a_run_of_another_workspace_is_not_found(committed_db: Database) -> None:
    """The id of another workspace's run reads like a random one, for every function, and the run stays as it is."""
    mine, other = make_workspace(committed_db), make_workspace(committed_db)
    with committed_db.session(mine) as session:
        run_id = make_run(session).id
    calls = [
        lambda session, key: runs.get(session, key),
        lambda session, key: runs.get_with_transcripts(session, key),
        lambda session, key: runs.update(session, key, RunUpdate(name="x")),
        lambda session, key: runs.delete(session, key),
        lambda session, key: runs.set_status(session, key, RunStatus.PAUSED),
        lambda session, key: runs.start(session, key),
        lambda session, key: runs.pause(session, key),
        lambda session, key: runs.resume(session, key),
        lambda session, key: runs.request_cancel(session, key),
        lambda session, key: runs.finish(session, key),
        lambda session, key: runs.progress(session, key),
        lambda session, key: runs.report_progress(session, key, RunProgress()),
        lambda session, key: runs.increment_progress(session, key, completed=1),
        lambda session, key: runs.plan_slots(session, key),
        lambda session, key: runs.claim_slots(session, key, worker="w"),
        lambda session, key: runs.skip_slots(session, key, reason="none"),
        lambda session, key: runs.retry_slots(session, key),
        lambda session, key: runs.missing_slots(session, key),
        lambda session, key: runs.reconcile(session, key),
        lambda session, key: runs.select_scenarios(session, key, scenario_ids=[]),
        lambda session, key: runs.selected_scenarios(session, key),
    ]
    with committed_db.session(other) as session:
        random = uuid4()
        for call in calls:
            messages = []
            for key in (run_id, random):
                with pytest.raises(NotFoundError) as caught:
                    call(session, key)
                messages.append(str(caught.value).replace(str(key), "-"))
            assert messages[0] == messages[1]
        assert runs.find(session, run_id) is None
        assert runs.progress_many(session, [run_id, "nonsense"]) == {}
        assert not runs.list_slots(session, run_id).items
        assert not runs.claim_slots(session, worker="w")
        assert not runs.list_all(session).items
    with committed_db.session(mine) as session:
        run = runs.get(session, run_id)
        assert (run.status, run.name) == (RunStatus.RUNNING, "a run")
        assert runs.progress(session, run_id).queued == 2


@pytest.mark.requirement("VR-072", "VR-104", "VR-045")
def test_get_with_transcripts(session: Session) -> None:
    """A run comes with its transcripts, oldest first, in two statements however many there are."""
    run = make_run(session, scenario_count=3)
    complete_all(session, run.id)
    slots = runs.list_slots(session, run.id)
    transcripts.invalidate(session, slots[0].transcript_id, reason="wrong prompt")
    session.expunge_all()
    with assert_max_queries(2):
        found = runs.get_with_transcripts(session, run.id)
    assert found.run.id == run.id
    assert [each.id for each in found.transcripts] == sorted(slot.transcript_id for slot in slots[1:])
    assert {each.run_id for each in found.transcripts} == {run.id}
    assert {each.scenario_id for each in found.transcripts} == {slot.scenario_id for slot in slots[1:]}
    with assert_max_queries(2):
        everything = runs.get_with_transcripts(session, run.id, include_invalidated=True)
    assert len(everything.transcripts) == 3


@pytest.mark.requirement("VR-073", "VR-079")
def test_list_all_filters(session: Session) -> None:
    """Runs are listed newest first and narrowed by definition, experiment, status, configuration and time."""
    first, second = make_definition(session, "A"), make_definition(session, "B")
    experiment = Experiment(name="E")
    session.add(experiment)
    other_config = RunConfig(models=("b",))
    made = [
        runs.create(session, RunCreate(definition_id=first.id, config=CONFIG)),
        runs.create(session, RunCreate(definition_id=first.id, config=other_config, experiment_id=experiment.id)),
        runs.create(session, RunCreate(definition_id=second.id, config=CONFIG)),
    ]
    runs.start(session, made[2].id)
    now = datetime.now(UTC)

    def listed(**filters: object) -> list[Run]:
        return sorted(runs.list_all(session, RunFilters(**filters)).items, key=made.index)

    assert listed() == made
    assert listed(definition_id=first.id) == made[:2]
    assert listed(experiment_id=str(experiment.id)) == [made[1]]
    assert listed(statuses={RunStatus.RUNNING}) == [made[2]]
    assert listed(statuses={RunStatus.RUNNING, RunStatus.PENDING}, definition_id=second.id) == [made[2]]
    assert listed(config_hash=made[0].config_hash) == [made[0], made[2]]
    assert listed(created_from=now + timedelta(hours=1)) == []
    assert listed(created_to=now + timedelta(hours=1), created_from=now - timedelta(hours=1)) == made
    assert runs.list_all(session, RunFilters(statuses={RunStatus.PENDING}), with_total=True, limit=1).total == 2


@pytest.mark.requirement("VR-073")
def test_list_all_pages(committed_db: Database, committed_workspace: UUID) -> None:
    """Pages joined are the list, newest first, one statement each; a cursor of other filters is refused."""
    made = []
    for _ in range(5):
        with committed_db.session(committed_workspace) as session:
            made.append(make_run(session, started=False, scenario_count=0).id)
    with committed_db.session(committed_workspace) as session:
        cursor, found = None, []
        for _ in range(3):
            with assert_max_queries(1):
                page = runs.list_all(session, limit=2, cursor=cursor)
            found += [run.id for run in page]
            cursor = page.next_cursor or cursor
        assert found == made[::-1]
        with pytest.raises(InvalidCursorError):
            runs.list_all(session, RunFilters(statuses={RunStatus.PENDING}), cursor=cursor)


@pytest.mark.requirement("VR-076")
def test_list_for_tree(session: Session) -> None:
    """The runs of a definition and of everything below it come in one statement, from a root or from the middle of a tree."""
    root = make_definition(session)
    child = definitions.fork(session, root.id, DefinitionFork(message="shorter"))
    grandchild = definitions.fork(session, child.id)
    stranger = make_definition(session, "B")
    of = {each.id: runs.create(session, RunCreate(definition_id=each.id, config=CONFIG)).id for each in (root, child, grandchild, stranger)}
    runs.start(session, of[grandchild.id])

    def listed(definition_id: UUID, **filters: object) -> set[UUID]:
        with assert_max_queries(1):
            return {run.id for run in runs.list_for_tree(session, definition_id, **filters)}

    assert listed(root.id) == {of[root.id], of[child.id], of[grandchild.id]}
    assert listed(child.id) == {of[child.id], of[grandchild.id]}
    assert listed(grandchild.id) == {of[grandchild.id]}
    assert listed(stranger.id) == {of[stranger.id]}
    assert listed(root.id, statuses=[RunStatus.RUNNING]) == {of[grandchild.id]}
    assert listed(uuid4()) == set()
    page = runs.list_for_tree(session, child.id, limit=1)
    rest = runs.list_for_tree(session, child.id, limit=1, cursor=page.next_cursor)
    assert {page[0].id, rest[0].id} == {of[child.id], of[grandchild.id]}
    with pytest.raises(InvalidCursorError):
        runs.list_for_tree(session, root.id, cursor=page.next_cursor)


@pytest.mark.requirement("VR-073")
def test_one_unreadable_run_does_not_break_its_page(session: Session) -> None:
    """A configuration of a newer release raises with its place, or is left out, or comes raw: as the caller asks."""
    good, bad = (make_run(session, started=False, scenario_count=0) for _ in range(2))
    session.execute(text('UPDATE stemma.runs SET config = \'{"schema_version": 99, "models": []}\' WHERE id = :id'), {"id": bad.id})
    session.expunge_all()
    with pytest.raises(UnknownSchemaVersionError) as caught:
        runs.list_all(session)
    assert (caught.value.table, caught.value.column, caught.value.key) == ("runs", "config", bad.id)
    session.expunge_all()
    assert [run.id for run in runs.list_all(session, on_invalid="skip")] == [good.id]
    session.expunge_all()
    raw = {run.id: run.config for run in runs.list_all(session, on_invalid="raw")}
    assert isinstance(raw[bad.id], RawDocument)
    assert raw[good.id] == CONFIG
    with pytest.raises(ValidationError):
        runs.list_all(session, on_invalid="ignore")  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------------ update, delete


def test_update_changes_what_is_given(session: Session) -> None:
    """A name may change for ever, a configuration until the start, and the total follows it."""
    run = make_run(session, scenario_count=3, started=False)
    wider = RunConfig(models=("a", "b"), samples_per_scenario=2)
    assert runs.update(session, run.id, RunUpdate(config=wider)) is run
    assert (run.name, run.config, run.progress) == ("a run", wider, RunProgress(total=12))
    runs.start(session, run.id)
    assert runs.progress(session, run.id).total == 12
    assert runs.update(session, run.id, RunUpdate(name="renamed")).name == "renamed"
    assert runs.update(session, run.id, RunUpdate(name=None)).name is None
    assert runs.update(session, run.id, RunUpdate()).config == wider
    for change in (lambda: runs.update(session, run.id, RunUpdate(config=CONFIG, name="x")),):
        with pytest.raises(FrozenError):
            change()
    assert (run.name, run.config) == (None, wider)
    with pytest.raises(ValidationError):
        RunUpdate(config=None)


def test_update_refuses_the_configuration_of_planned_slots(session: Session) -> None:
    """Slots that are planned fix the configuration before the start, too."""
    run = make_run(session, started=False)
    runs.plan_slots(session, run.id)
    with pytest.raises(FrozenError):
        runs.update(session, run.id, RunUpdate(config=RunConfig(models=("b",))))


def test_update_overwrites_no_newer_configuration(session: Session) -> None:
    """A configuration that a newer release wrote is refused, not overwritten."""
    run = make_run(session, started=False)
    session.execute(text("UPDATE stemma.runs SET config = '{\"schema_version\": 2}' WHERE id = :id"), {"id": run.id})
    session.expunge_all()
    with pytest.raises(UnknownSchemaVersionError):
        runs.update(session, run.id, RunUpdate(config=CONFIG))
    assert session.execute(text("SELECT config_version FROM stemma.runs WHERE id = :id"), {"id": run.id}).scalar() == 2


@pytest.mark.requirement("VR-045", "VR-046")
def test_delete_takes_everything_with_it(session: Session) -> None:
    """One statement deletes a run with slots, selection, transcripts, scores, comparisons and analyses; the other run stays."""
    run, other = make_run(session), make_run(session)
    for each in (run, other):
        claims = runs.claim_slots(session, each.id, worker="w", count=10)
        judged = ScoreCreate(annotator_kind=AnnotatorKind.RULE, annotator="r", value=1.0)
        runs.record_outcomes(session, [success(claim, judged) for claim in claims])
    session.execute(
        text("INSERT INTO stemma.run_comparisons (baseline_run_id, comparison_run_id) VALUES (:a, :b)"), {"a": other.id, "b": run.id}
    )
    session.execute(
        text(
            "INSERT INTO stemma.analysis_results (run_id, analysis_type, input_hash, output) "
            "VALUES (:id, 'basic', decode(repeat('00', 32), 'hex'), '{\"schema_version\": 1}')"
        ),
        {"id": run.id},
    )
    with assert_max_queries(1):
        runs.delete(session, run.id)
    assert run not in session
    assert runs.find(session, run.id) is None
    for table in ("run_slots", "run_scenario_selection", "transcripts", "analysis_results"):
        assert count(session, table, run.id) == 0
    assert session.execute(text("SELECT count(*) FROM stemma.run_comparisons")).scalar() == 0
    assert session.execute(text("SELECT count(*) FROM stemma.scores")).scalar() == 2
    assert count(session, "run_slots", other.id) == count(session, "transcripts", other.id) == 2


@pytest.mark.requirement("VR-043")
def test_a_definition_with_runs_cannot_be_deleted(session: Session) -> None:
    """The run keeps its definition, and goes first."""
    run = make_run(session, scenario_count=0, started=False)
    with pytest.raises(StillReferencedError):
        definitions.delete(session, run.definition_id)
    runs.delete(session, run.id)
    assert definitions.delete(session, run.definition_id) == 1


# --------------------------------------------------------------------------------------------------------------- selection


@pytest.mark.requirement("VR-039")
def test_select_scenarios_replaces_the_selection(session: Session) -> None:
    """Scenarios are chosen by id or by a repeatable sample; the last choice counts, and the total of the progress follows."""
    run = make_run(session, scenario_count=8, started=False)
    everything = runs.selected_scenarios(session, run.id)
    assert len(everything) == 8
    few = runs.select_scenarios(session, run.id, scenario_ids=[everything[0].id, everything[0].id, str(everything[1].id)])
    assert few == runs.selected_scenarios(session, run.id) == sorted(everything[:2], key=lambda each: (each.created_at, each.id))
    assert run.progress == RunProgress(total=2)
    drawn = [runs.select_scenarios(session, run.id, percentage=50, seed=seed) for seed in (1, 1, 2, 3, 4)]
    assert drawn[0] == drawn[1]
    assert {len(each) for each in drawn} == {4}
    assert len({tuple(scenario.id for scenario in each) for each in drawn}) > 1
    larger = runs.select_scenarios(session, run.id, percentage=75, seed=1)
    assert {scenario.id for scenario in drawn[0]} < {scenario.id for scenario in larger}
    assert runs.select_scenarios(session, run.id, scenario_ids=[]) == []
    assert run.progress == RunProgress(total=0)


def test_select_scenarios_takes_the_configuration_where_nothing_is_given(session: Session) -> None:
    """Percentage and seed of the configuration stand in for arguments; without either there is nothing to go by."""
    run = make_run(session, scenario_count=6, started=False, sample_percentage=50, seed=3)
    by_config = runs.select_scenarios(session, run.id)
    assert len(by_config) == 3
    assert by_config == runs.select_scenarios(session, run.id, percentage=50)
    plain = make_run(session, scenario_count=6, started=False)
    with pytest.raises(ValidationError):
        runs.select_scenarios(session, plain.id)
    assert len(runs.select_scenarios(session, plain.id, percentage=10)) == 1


@pytest.mark.requirement("VR-039")
def test_select_scenarios_refusals(session: Session) -> None:
    """Two ways at once, a bad percentage, unknown scenarios and a run that has started are refused; the selection stays."""
    run = make_run(session, scenario_count=2, started=False)
    before = runs.selected_scenarios(session, run.id)
    for given in ({"scenario_ids": [], "percentage": 5}, {"percentage": 0}, {"percentage": 101}, {"percentage": float("nan")}):
        with pytest.raises(ValidationError):
            runs.select_scenarios(session, run.id, **given)  # type: ignore[arg-type]
    with pytest.raises(ReferenceNotFoundError):
        runs.select_scenarios(session, run.id, scenario_ids=[uuid4()])
    runs.start(session, run.id)
    with pytest.raises(FrozenError):
        runs.select_scenarios(session, run.id, scenario_ids=[])
    assert runs.selected_scenarios(session, run.id) == before
    with pytest.raises(IntegrityError), session.begin_nested():
        session.execute(
            text("INSERT INTO stemma.run_scenario_selection (run_id, scenario_id) VALUES (:run_id, :scenario_id)"),
            {"run_id": run.id, "scenario_id": before[0].id},
        )


# ------------------------------------------------------------------------------------------------------------------- async


@pytest.mark.requirement("VR-070", "VR-104")
async def test_the_async_twins_run_a_run(async_session: AsyncSession) -> None:
    """A whole run through the async functions: made, started, claimed, recorded, finished."""
    content = DefinitionContent(preamble="", template="")
    definition = await aio_definitions.create(async_session, DefinitionCreate(name="D", content=content))
    items = [ScenarioCreate(name="S", content=ScenarioContent(prompt="?"))]
    (scenario,) = await aio_scenarios.create_many(async_session, definition.id, items)
    run = await aio_runs.create(async_session, RunCreate(definition_id=definition.id, config=CONFIG, scenario_ids=[scenario.id]))
    await aio_runs.start(async_session, run.id)
    (claim,) = await aio_runs.claim_slots(async_session, run.id, worker="w")
    answer = TranscriptCreate(model=MODEL, content=TranscriptContent(turns=(Turn(role="assistant", content="Yes."),)))
    stored = await aio_runs.complete_slot(async_session, claim, answer)
    assert stored.preview == "Yes."
    assert (await aio_runs.progress(async_session, run.id)).percent == 100
    finished = await aio_runs.finish(async_session, run.id)
    assert finished is not None
    assert finished.status == RunStatus.COMPLETED
    assert [each.id for each in (await aio_runs.get_with_transcripts(async_session, run.id)).transcripts] == [stored.id]


@pytest.mark.offline
def test_every_function_has_its_twin() -> None:
    """The async module has the same names in the same order."""
    assert aio_runs.__all__ == runs.__all__
    assert all(hasattr(aio_runs, name) for name in runs.__all__)


@pytest.mark.requirement("VR-032", "VR-074")
def test_the_status_check_is_the_vocabulary(owner: Engine) -> None:
    """The CHECK of the catalogue allows the members of RunStatus and nothing else."""
    with owner.connect() as connection:
        rule = connection.execute(text("SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'runs_status_check'")).scalar()
    assert set(rule.split("'")[1::2]) == set(RunStatus)
