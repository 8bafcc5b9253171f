"""Frames of evaluations: closed columns, exact values, dialogues in their newest shape, and what lists and functions say."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from datetime import UTC
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.orm import Session
from tests.evaluation.judged_runs import Bench, judgement
from tests.evaluation.run_setups import MODEL, make_run

from stemmadb._test_server import DatabaseServer
from stemmadb.aio.evaluation import frames as aio_frames
from stemmadb.database import Database
from stemmadb.errors import UnknownSchemaVersionError, ValidationError, WorkspaceNotSetError
from stemmadb.evaluation import definitions, frames, runs, scores, transcripts
from stemmadb.evaluation.data import DefinitionFilters, DefinitionFork, RunCreate, RunFilters, TranscriptCreate
from stemmadb.evaluation.documents import RunConfig, RunProgress, TranscriptContent, Turn
from stemmadb.evaluation.entities import Run, RunStatus
from stemmadb.testing import count_queries, make_workspace

polars = pytest.importorskip("polars")
pandas = pytest.importorskip("pandas")
pyarrow = pytest.importorskip("pyarrow")
pytest.importorskip("adbc_driver_postgresql")

NUL = "a\x00b\ud800"


class Lab:
    """A workspace with runs, committed: frames see nothing else."""

    def __init__(self, db: Database, session: Session) -> None:
        self.db = db
        bench = Bench(session, 3)
        self.definition_id = bench.definition.id
        self.judged = bench.run([1.0, 0.0, math.nan])
        first = bench.transcript(self.judged)
        scores.record(session, first, judgement(label="good", name="verdict", cost=Decimal("0.00000001"), cost_currency="EUR"))
        transcripts.invalidate(session, bench.transcript(self.judged, 1), reason="the model was another one")
        self.slotted = make_run(session, scenario_count=4).id
        for claim in runs.claim_slots(session, self.slotted, worker="w", count=1):
            content = TranscriptContent(turns=(Turn(role="assistant", content=NUL),))
            answer = TranscriptCreate(model=MODEL, content=content, input_tokens=9007199254740993, cost="12.5", cost_currency="USD")
            runs.complete_slot(session, claim, answer)
        self.reported = runs.create(session, RunCreate(definition_id=bench.definition.id, config=RunConfig(models=(MODEL,)))).id
        runs.report_progress(session, self.reported, RunProgress(total=10, completed=3, failed=1, skipped=2))
        definitions.fork(session, bench.definition.id, DefinitionFork(message="shorter"))


@pytest.fixture(scope="module")
def lab(stemmadb_server: DatabaseServer) -> Iterator[Lab]:
    name = stemmadb_server.create()
    db = stemmadb_server.connect(name)
    try:
        for slug in ("theirs", "ours"):
            workspace_id = make_workspace(db, slug)
            with db.session(workspace=workspace_id) as session:
                found = Lab(db, session)
        db.workspace = "ours"
        yield found
    finally:
        db.close()
        stemmadb_server.drop(name)


@pytest.fixture
def session(lab: Lab) -> Iterator[Session]:
    with lab.db.session() as session:
        yield session


def by_id(frame: Any) -> dict[UUID, dict[str, Any]]:
    """The rows of a polars frame by their ids."""
    return {UUID(row["id"]): row for row in frame.to_dicts()}


COLUMNS: dict[str, list[str]] = {
    "definitions_df": [
        *("id", "parent_id", "root_id", "depth", "name", "message", "content_hash", "version", "frozen_at", "created_by_id"),
        *("created_at", "updated_at"),
    ],
    "runs_df": [
        *(
            "id",
            "definition_id",
            "definition_name",
            "experiment_id",
            "name",
            "status",
            "total",
            "completed",
            "failed",
            "skipped",
            "running",
        ),
        *("queued", "error_code", "error_message", "cancel_requested_at", "started_at", "completed_at", "created_by_id", "created_at"),
        "updated_at",
    ],
    "transcripts_df": [
        *("id", "run_id", "scenario_id", "scenario_name", "model", "model_version", "sample_index", "turn_count", "input_tokens"),
        *("output_tokens", "reasoning_tokens", "cache_read_tokens", "cache_write_tokens", "duration_ms", "ttft_ms", "cost"),
        *("cost_currency", "stop_reason", "error_message", "preview", "invalidated_at", "invalidated_reason", "created_at", "content"),
    ],
    "scores_df": [
        *("id", "transcript_id", "run_id", "scenario_id", "model", "sample_index", "rubric_id", "name", "annotator_kind", "annotator"),
        *("annotator_user_id", "value", "label", "duration_ms", "cost", "cost_currency", "created_at", "updated_at"),
    ],
}
NOTHING: dict[str, dict[str, Any]] = {
    "definitions_df": {"filters": DefinitionFilters(name_contains="nobody's")},
    "runs_df": {"filters": RunFilters(definition_id=uuid4())},
    "transcripts_df": {"run_ids": [], "with_content": True},
    "scores_df": {"run_ids": ["no id"]},
}


def everything(lab: Lab, function: str) -> dict[str, Any]:
    """Arguments with which a function finds rows."""
    given: dict[str, dict[str, Any]] = {
        "transcripts_df": {"run_ids": [lab.judged, lab.slotted], "with_content": True},
        "scores_df": {"run_ids": [str(lab.judged)]},
    }
    return given.get(function, {})


@pytest.mark.requirement("VR-096")
@pytest.mark.parametrize("function", COLUMNS)
def test_columns_are_closed(lab: Lab, session: Session, function: str) -> None:
    """Names, order and types are the same in each backend, with rows and without."""
    call: Any = getattr(frames, function)
    found, nothing = (call(session, **given, backend="arrow") for given in (everything(lab, function), NOTHING[function]))
    assert found.schema.names == COLUMNS[function]
    assert found.num_rows > 0
    assert nothing.num_rows == 0
    assert nothing.schema == found.schema
    assert call(session, **everything(lab, function)).columns == COLUMNS[function]
    assert list(call(session, **everything(lab, function), backend="pandas").columns) == COLUMNS[function]


def test_definitions_are_those_of_the_list(lab: Lab, session: Session) -> None:
    """The same rows in the same order, under the same filters."""
    for filters in (
        None,
        DefinitionFilters(roots_only=True),
        DefinitionFilters(parent_id=lab.definition_id),
        DefinitionFilters(has_runs=True),
    ):
        listed = list(definitions.list_all(session, filters, limit=200))
        frame = frames.definitions_df(session, filters)
        assert frame["id"].to_list() == [str(each.id) for each in listed]
        assert frame["content_hash"].to_list() == [each.content_hash.hex() for each in listed if each.content_hash]
        assert [each.replace(tzinfo=UTC) for each in frame["created_at"].to_list()] == [each.created_at for each in listed]


def test_runs_have_their_progress(lab: Lab, session: Session) -> None:
    """Counted from slots, or as reported: what ``runs.progress_many`` says."""
    frame = frames.runs_df(session)
    assert frame["id"].to_list() == [str(run.id) for run in runs.list_all(session)]
    found = by_id(frame)
    names = ("total", "completed", "failed", "skipped", "running", "queued")
    for key, report in runs.progress_many(session, list(found)).items():
        assert {name: found[key][name] for name in names} == {name: getattr(report, name) for name in names}, key
    assert (found[lab.slotted]["completed"], found[lab.reported]["skipped"]) == (1, 2)
    assert frames.runs_df(session, RunFilters(statuses=frozenset({RunStatus.RUNNING})))["id"].to_list() == [str(lab.slotted)]


def test_transcripts_are_exact(lab: Lab, session: Session) -> None:
    """Whole numbers beside NULL, costs to the last place, names of scenarios; invalidated ones on request, dialogues too."""
    (row,) = frames.transcripts_df(session, [lab.slotted]).to_dicts()
    assert (row["input_tokens"], row["output_tokens"]) == (9007199254740993, None)
    assert (row["cost"], row["cost_currency"]) == (Decimal("12.5"), "USD")
    assert row["scenario_name"].startswith("scenario ")
    assert "content" not in row
    assert frames.transcripts_df(session, [lab.slotted], backend="pandas")["input_tokens"].tolist() == [9007199254740993]
    assert len(frames.transcripts_df(session, [lab.judged])) == 2
    both = frames.transcripts_df(session, [lab.judged], include_invalidated=True)
    assert both["invalidated_reason"].drop_nulls().to_list() == ["the model was another one"]
    (stored,) = frames.transcripts_df(session, [lab.slotted], with_content=True)["content"].to_list()
    assert json.loads(stored)["turns"][0]["content"] == NUL


def test_scores_tell_nan_from_nothing(lab: Lab, session: Session) -> None:
    """Judged without a number is NaN, a label alone is NULL; names and invalidated transcripts narrow."""
    frame = frames.scores_df(session, [lab.judged], name="overall")
    assert sorted(map(str, frame["value"].to_list())) == ["1.0", "nan"]
    (verdict,) = frames.scores_df(session, [lab.judged], name="verdict").to_dicts()
    assert (verdict["value"], verdict["label"], verdict["cost"], verdict["annotator_kind"]) == (None, "good", Decimal("0.00000001"), "RULE")
    assert len(frames.scores_df(session, [lab.judged], include_invalidated=True)) == 4


@pytest.fixture
def old_contents(lab: Lab) -> Iterator[dict[str, UUID]]:
    """A run with a dialogue of version 0, one that cannot be read, and one of a release that is not there yet."""
    with lab.db.session() as session:
        run = runs.create(session, RunCreate(definition_id=lab.definition_id, config=RunConfig(models=("a", "b", "c")))).id
        ids = {
            model: transcripts.add(session, run, TranscriptCreate(model=model, content=TranscriptContent(turns=()))).id for model in "abc"
        }
    texts = {
        "a": '{"turns": [{"role": "user", "content": "Hi"}], "kept": 1}',
        "b": '{"schema_version": 1, "turns": 5}',
        "c": '{"schema_version": 99}',
    }
    owner: Engine = create_engine(lab.db.direct_url)
    with owner.begin() as connection:
        workspace_id = connection.execute(text("SELECT id FROM stemma.workspaces WHERE slug = 'ours'")).scalar_one()
        connection.exec_driver_sql(f"SET LOCAL stemma.workspace_id = '{workspace_id}'")
        for model, content in texts.items():
            connection.execute(
                text("UPDATE stemma.transcripts SET content = CAST(:content AS jsonb) WHERE id = :id"),
                {"id": ids[model], "content": content},
            )
    owner.dispose()
    yield {"run": run, **ids}
    with lab.db.session() as session:
        runs.delete(session, run)


def test_dialogues_come_in_their_newest_shape(session: Session, old_contents: dict[str, UUID]) -> None:
    """Old ones are brought to it; what cannot be is told, left out or given as it is."""
    run_ids = [old_contents["run"]]
    with pytest.raises(UnknownSchemaVersionError) as caught:
        frames.transcripts_df(session, run_ids, with_content=True)
    assert str(old_contents["c"]) in str(caught.value)
    kept = by_id(frames.transcripts_df(session, run_ids, with_content=True, on_invalid="skip"))
    assert kept.keys() == {old_contents["a"], old_contents["b"]}
    newest = json.loads(kept[old_contents["a"]]["content"])
    assert newest == {**json.loads(TranscriptContent.load(json.dumps(newest)).model_dump_json()), "kept": 1}
    assert newest["schema_version"] == TranscriptContent.newest_version
    raw = by_id(frames.transcripts_df(session, run_ids, with_content=True, on_invalid="raw"))
    assert json.loads(raw[old_contents["c"]]["content"]) == {"schema_version": 99}
    with pytest.raises(ValidationError, match="on_invalid"):
        frames.transcripts_df(session, run_ids, on_invalid="ignore")  # type: ignore[call-overload]


def test_one_id_is_no_list(session: Session) -> None:
    """A text is a sequence of texts to type checkers."""
    with pytest.raises(ValidationError, match="brackets"):
        frames.transcripts_df(session, str(uuid4()))
    with pytest.raises(ValidationError, match="backend"):
        frames.runs_df(session, backend="dask")  # type: ignore[call-overload]


@pytest.mark.requirement("TN-035")
def test_without_a_workspace_nothing_is_sent(lab: Lab) -> None:
    """The message names the function."""
    lab.db.workspace = None
    try:
        with (
            lab.db.session() as nowhere,
            count_queries() as counted,
            pytest.raises(WorkspaceNotSetError, match=r"evaluation\.frames\.runs_df"),
        ):
            frames.runs_df(nowhere)
        assert counted.count == 0
    finally:
        lab.db.workspace = "ours"


def test_a_frame_takes_one_statement_of_the_session(lab: Lab, session: Session) -> None:
    """Whatever the number of rows: the question what its transaction was told. The frame's own runs elsewhere."""
    session.get(Run, (session.info["stemma"].workspace_id, lab.judged))
    with count_queries() as counted:
        frames.transcripts_df(session, [lab.judged, lab.slotted], with_content=True)
    assert counted.count == 1


@pytest.mark.requirement("AD-027")
async def test_twins_give_the_same(lab: Lab) -> None:
    """In an event loop, of any backend."""
    try:
        async with lab.db.async_session() as session:
            found = await aio_frames.transcripts_df(session, [lab.slotted], with_content=True)
            assert len(found) == 1
            assert found.columns == COLUMNS["transcripts_df"]
            assert (await aio_frames.runs_df(session, backend="arrow")).num_rows == 3
            assert len(await aio_frames.scores_df(session, [lab.judged], backend="pandas")) == 3
            assert (await aio_frames.definitions_df(session))["name"].to_list()
    finally:
        await lab.db.async_engine.dispose()
