"""``importers.import_inspect``: logs of Inspect AI become runs, exactly, once, and also after a kill."""

import json
import math
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from tests.evaluation import interrupted_import
from tests.evaluation.inspect_logs import ODD, header, many, sample, write_eval, write_json
from tests.test_cli import call

from stemmadb.aio.evaluation import importers as aio_importers
from stemmadb.database import Database
from stemmadb.errors import MalformedFileError, MissingDependencyError, NotFoundError
from stemmadb.evaluation import definitions, importers, runs, scenarios, transcripts
from stemmadb.evaluation.entities import Run, Transcript
from stemmadb.evaluation.importers import ImportProgress, ImportReport
from stemmadb.testing import make_workspace

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "tests" / "data" / "importers"
REAL = Path(os.environ.get("STEMMADB_TEST_DATA") or ROOT.parent / "shared" / "data") / "inspect"
# STEMMADB_TEST_IMPORT_MB=1000 for the figure that the documentation names.
MEGABYTES = int(os.environ.get("STEMMADB_TEST_IMPORT_MB", "100"))
TABLES = ("definitions", "scenarios", "runs", "run_scenario_selection", "transcripts", "scores")

Import = Callable[..., ImportReport]


@pytest.fixture
def load(committed_db: Database, committed_workspace: UUID) -> Import:
    """The importer in a workspace of the test's database."""
    return lambda *paths, **options: importers.import_inspect(committed_db, paths, workspace=committed_workspace, **options)


def rows_of(db: Database, workspace: UUID) -> dict[str, list[Any]]:
    """Every row of the pack's tables, as text."""
    with db.session(workspace) as session:
        return {table: sorted(session.scalars(text(f"SELECT CAST(r AS text) FROM stemma.{table} AS r"))) for table in TABLES}


def stored(db: Database, workspace: UUID, report: ImportReport, at: int = 0) -> tuple[Run, list[Transcript]]:
    """A run of a report, and its transcripts with their dialogues, by id."""
    run_id = report.logs[at].run_id
    assert run_id is not None
    with db.session(workspace) as session:
        return runs.get(session, run_id), list(transcripts.iter_for_run(session, run_id))


def scores_of(db: Database, workspace: UUID) -> list[tuple[Any, ...]]:
    """Every score, by name and value."""
    statement = "SELECT name, value, label, annotator_kind, annotator, rationale FROM stemma.scores ORDER BY name, value, label"
    with db.session(workspace) as session:
        return [tuple(row) for row in session.execute(text(statement))]


def test_a_log_becomes_a_run(tmp_path: Path, load: Import, committed_db: Database, committed_workspace: UUID) -> None:
    """Task, samples, epochs, dialogues, tokens, cost, times, scores and what the log says about itself are where they belong."""
    path = write_json(tmp_path / "a.json", header(), [sample(1), sample(1, epoch=2), sample(2)])
    report = load(path)
    (log,) = report.logs
    assert (log.definitions, log.runs, log.scenarios, log.transcripts, log.scores, log.present) == (1, 1, 2, 3, 3, 0)
    assert (log.tool, log.name, log.status) == ("inspect_ai 0.3.135", "capitals 2026-01-02T03:04:05+00:00", "COMPLETED")
    run, found = stored(committed_db, committed_workspace, report)
    assert (run.config.models, run.config.temperature, run.config.seed, run.config.samples_per_scenario) == (("openai:gpt-4o",), 0.5, 7, 2)
    assert run.progress is not None
    assert (run.progress.total, run.progress.completed) == (3, 3)
    assert run.started_at is not None
    assert run.completed_at is not None
    assert (run.completed_at - run.started_at).total_seconds() == 60
    source = (run.config.model_extra or {})["source"]
    assert (source["sha256"], source["file"], source["original"]["eval"]["eval_id"]) == (log.sha256, "a.json", "e1")
    assert source["original"]["results"]["scores"][0]["metrics"]["mean"]["value"] == "NaN"
    one = found[0]
    assert (one.model, one.model_version, one.stop_reason) == ("openai:gpt-4o", "gpt-4o-2024-08-06", "stop")
    assert (one.input_tokens, one.output_tokens, one.reasoning_tokens, one.duration_ms) == (9, 3, None, 1500)
    assert (str(one.cost), one.cost_currency, one.sample_index, found[1].sample_index) == ("0.00012500", "USD", 0, 1)
    assert [turn.content for turn in one.content.turns] == ["What is the capital of country 1?", "City 1"]
    assert dict(one.content.turns[1].raw or {}) == {"model": "gpt-4o", "tool_calls": ({"id": "c1", "function": "look"},)}
    with committed_db.session(committed_workspace) as session:
        assert definitions.get(session, run.definition_id).name == "capitals"
        assert one.scenario_id is not None
        content = scenarios.get_content(session, one.scenario_id)
        assert (content.prompt, (content.model_extra or {})["target"]) == ("What is the capital of country 1?", "City 1")
        assert len(runs.selected_scenarios(session, run.id)) == 2
    assert scores_of(committed_db, committed_workspace)[0][:5] == ("match", 1.0, "C", "RULE", "match")


def test_a_second_import_changes_nothing(tmp_path: Path, load: Import, committed_db: Database, committed_workspace: UUID) -> None:
    """The same log again, also in the other form of its file, leaves every row as it was, and the report says so."""
    samples = [sample(1), sample(2)]
    first = load(write_json(tmp_path / "a.json", header(), samples))
    before = rows_of(committed_db, committed_workspace)
    again = load(tmp_path / "a.json", write_eval(tmp_path / "a.eval", header(), samples))
    assert first.changed
    assert not again.changed
    assert [(log.run_id, log.present, log.differing) for log in again.logs] == [(first.logs[0].run_id, 2, 0)] * 2
    assert rows_of(committed_db, committed_workspace) == before


def test_a_dry_run_stores_nothing(tmp_path: Path, load: Import, committed_db: Database, committed_workspace: UUID) -> None:
    """It says what the import would do, before it and after it, and no row is written."""
    path = write_json(tmp_path / "a.json", header(), [sample(1), sample(2)])
    before = rows_of(committed_db, committed_workspace)
    would = load(path, dry_run=True)
    assert rows_of(committed_db, committed_workspace) == before
    did = load(path)
    counts = ("definitions", "runs", "scenarios", "transcripts", "scores")
    assert [would.count(each) for each in counts] == [did.count(each) for each in counts] == [1, 1, 2, 2, 2]
    assert (would.dry_run, would.logs[0].run_id) == (True, None)
    more = write_json(tmp_path / "b.json", header(), [sample(1), sample(2), sample(3)])
    assert [load(more, dry_run=True).count(each) for each in counts] == [0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("status", "expected"), [("success", "COMPLETED"), ("cancelled", "CANCELLED"), ("error", "FAILED"), ("started", "RUNNING")]
)
def test_every_end_of_an_evaluation_is_kept(status: str, expected: str, tmp_path: Path, load: Import) -> None:
    """Success, cancellation, failure and none at all are statuses of the run."""
    path = write_json(tmp_path / "a.json", header(status=status, error={"message": "it broke"}), [sample(1)])
    assert load(path).logs[0].status == expected


def test_a_log_that_grew_is_continued(tmp_path: Path, load: Import, committed_db: Database, committed_workspace: UUID) -> None:
    """A log of an evaluation that goes on, imported again when it is over, gets its samples and scores, and its end."""
    first = load(write_eval(tmp_path / "a.eval", None, [sample(1, scores=None)]))
    assert (first.logs[0].status, first.logs[0].scores) == ("RUNNING", 0)
    second = load(write_eval(tmp_path / "a.eval", header(), [sample(1), sample(2)]))
    (log,) = second.logs
    assert (log.run_id, log.status, log.status_changed) == (first.logs[0].run_id, "COMPLETED", True)
    assert (log.transcripts, log.present, log.differing, log.scores) == (1, 1, 0, 2)
    third = load(write_eval(tmp_path / "a.eval", header(), [sample(1, messages=[{"role": "user", "content": "other"}]), sample(2)]))
    assert (third.changed, third.logs[0].differing) == (False, 1)
    assert stored(committed_db, committed_workspace, second)[1][0].content.turns[1].content == "City 1"


@pytest.mark.requirement("AD-007")
def test_failed_samples_make_a_run_partial(tmp_path: Path, load: Import, committed_db: Database, committed_workspace: UUID) -> None:
    """A log that ended well with a sample that did not is PARTIAL, and the sample keeps its error."""
    broken = sample(2, error={"message": ODD, "traceback": "..."}, scores=None)
    report = load(write_json(tmp_path / "a.json", header(), [sample(1), broken]))
    run, found = stored(committed_db, committed_workspace, report)
    assert (run.status, run.progress and run.progress.failed) == ("PARTIAL", 1)
    assert found[1].error_message == ODD.replace("\0", "\ufffd").replace("\ud800", "\ufffd", 1)
    assert (found[1].content.model_extra or {})["source"]["error"]["message"] == ODD


@pytest.mark.requirement("AD-016")
def test_text_comes_back_exactly(tmp_path: Path, load: Import, committed_db: Database, committed_workspace: UUID) -> None:
    """U+0000, lone surrogates, replacement characters and escapes, in every place that a log has for text."""
    said = [{"role": "user", "content": ODD}, {"role": "assistant", "content": [{"type": "text", "text": ODD}], ODD: ODD}]
    odd = sample(1, id=ODD, input=ODD, target=ODD, messages=said, metadata={ODD: [ODD]}, scores={ODD: {"value": ODD, "explanation": ODD}})
    report = load(write_json(tmp_path / "a.json", header(), [odd]))
    _, (one,) = stored(committed_db, committed_workspace, report)
    assert [turn.content for turn in one.content.turns] == [ODD, ODD]
    assert (one.content.turns[1].raw or {})[ODD] == ODD
    assert (one.content.model_extra or {})["source"]["metadata"] == {ODD: (ODD,)}
    with committed_db.session(committed_workspace) as session:
        assert one.scenario_id is not None
        assert scenarios.get_content(session, one.scenario_id).prompt == ODD
        ((rationale,),) = session.execute(text("SELECT rationale FROM stemma.scores"))
    assert importers._records.ScoreRationale.load(rationale).raw["value"] == ODD  # type: ignore[attr-defined]
    assert not load(tmp_path / "a.json").changed


@pytest.mark.requirement("AD-009")
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (float("nan"), [("s", math.nan, None)]),
        (None, [("s", math.nan, None)]),
        (float("-inf"), [("s", -math.inf, None)]),
        (True, [("s", 1.0, "true")]),
        ("I", [("s", 0.0, "I")]),
        ("P", [("s", 0.5, "P")]),
        ("No", [("s", 0.0, "No")]),
        (" 2.5 ", [("s", 2.5, " 2.5 ")]),
        ("blue", [("s", None, "blue")]),
        ({"a": 1, "b": "C", "c": [1]}, [("s/a", 1.0, None), ("s/b", 1.0, "C"), ("s/c", math.nan, None)]),
        ([0.25, False], [("s/0", 0.25, None), ("s/1", 0.0, "false")]),
    ],
)
def test_a_score_keeps_number_and_word(
    value: Any, expected: list[Any], tmp_path: Path, load: Import, committed_db: Database, committed_workspace: UUID
) -> None:
    """Numbers, NaN included, are values; words are labels, with a value where Inspect gives them one; parts are scores of their own."""
    load(write_json(tmp_path / "a.json", header(), [sample(1, scores={"s": {"value": value}})]))
    found = [row[:3] for row in scores_of(committed_db, committed_workspace)]
    assert [repr(row) for row in found] == [repr(row) for row in expected]


def test_attachments_and_pools_are_put_back(tmp_path: Path, load: Import, committed_db: Database, committed_workspace: UUID) -> None:
    """A long text stands where it was referred to, and a sample without messages has what its last call was told and answered."""
    key = "0123456789abcdef0123456789abcdef"
    pool = [{"role": "user", "content": f"attachment://{key}"}, {"role": "assistant", "content": "call"}, {"role": "user", "content": "b"}]
    answer = {"message": {"role": "assistant", "content": "the end"}}
    events = [{"event": "model", "input": [], "input_refs": [[0, 1]]}, {"event": "tool"}]
    events.append({"event": "model", "input": [], "input_refs": [[0, 2], [2, 3]], "output": {"choices": [answer]}})
    pooled = sample(1, messages=[], events=events, message_pool=pool, attachments={key: ODD})
    newer = sample(2, messages=[], events=events, events_data={"messages": pool, "calls": []}, attachments={key: ODD})
    plain = sample(3, input=f"attachment://{key}", messages=pool, transcript={"content": {key: ODD}})
    report = load(write_eval(tmp_path / "a.eval", header(version=3), [pooled, newer, plain]))
    _, found = stored(committed_db, committed_workspace, report)
    told = [[turn.content for turn in each.content.turns] for each in found]
    assert told == [[ODD, "call", "b", "the end"], [ODD, "call", "b", "the end"], [ODD, "call", "b"]]
    with committed_db.session(committed_workspace) as session:
        assert found[2].scenario_id is not None
        assert scenarios.get_content(session, found[2].scenario_id).prompt == ODD


def test_a_data_set_may_change_under_its_ids(tmp_path: Path, load: Import) -> None:
    """A sample of the same id with another question is another scenario of the same definition."""
    load(write_json(tmp_path / "a.json", header(), [sample(1)]))
    about = header()
    about["eval"] = {**about["eval"], "eval_id": "e2", "run_id": "r2"}
    (log,) = load(write_json(tmp_path / "b.json", about, [sample(1, input="Another question?")])).logs
    assert (log.definitions, log.runs, log.scenarios, log.transcripts) == (0, 1, 1, 1)


def test_an_invalidated_transcript_stays_so(tmp_path: Path, load: Import, committed_db: Database, committed_workspace: UUID) -> None:
    """What somebody invalidated is not brought back by a later state of the log."""
    first = load(write_json(tmp_path / "a.json", header(status="started"), [sample(1), sample(2)]))
    _, found = stored(committed_db, committed_workspace, first)
    with committed_db.session(committed_workspace) as session:
        transcripts.invalidate(session, found[0].id, reason="a leak")
    second = load(write_json(tmp_path / "a.json", header(), [sample(1), sample(2), sample(3)]))
    assert (second.logs[0].transcripts, second.logs[0].present) == (1, 2)
    assert [each.id for each in stored(committed_db, committed_workspace, second)[1]][:1] == [found[1].id]


@pytest.mark.race
def test_of_imports_at_once_each_row_is_made_once(tmp_path: Path, load: Import, committed_db: Database, committed_workspace: UUID) -> None:
    """Four imports of one log at the same moment make one run, and each transcript and score once."""
    path = write_json(tmp_path / "a.json", header(), many(450, 10))
    barrier = threading.Barrier(4)

    def work(_: int) -> ImportReport:
        barrier.wait()
        return load(path)

    with ThreadPoolExecutor(4) as pool:
        reports = list(pool.map(work, range(4)))
    assert len({report.logs[0].run_id for report in reports}) == 1
    assert sum(report.count("runs") for report in reports) == sum(report.count("definitions") for report in reports) == 1
    assert sum(report.count("transcripts") for report in reports) == 450
    counts = {table: len(rows) for table, rows in rows_of(committed_db, committed_workspace).items()}
    assert counts == {"definitions": 1, "runs": 1, "scenarios": 450, "run_scenario_selection": 450, "transcripts": 450, "scores": 450}


def test_an_import_stays_in_its_workspace(tmp_path: Path, load: Import, committed_db: Database) -> None:
    """The same log in two workspaces is two runs; neither sees the other."""
    other = make_workspace(committed_db, "other")
    path = write_json(tmp_path / "a.json", header(), [sample(1)])
    load(path)
    assert all(not rows for rows in rows_of(committed_db, other).values())
    again = importers.import_inspect(committed_db, [path], workspace=other)
    assert (again.count("definitions"), again.count("runs"), again.count("transcripts")) == (1, 1, 1)


# ------------------------------------------------------------------------------------------------------------ malformed files


def cut(path: Path, length: int) -> None:
    """Cut a file off."""
    path.write_bytes(path.read_bytes()[:length])


@pytest.mark.parametrize(
    ("change", "part", "pointer", "reason"),
    [
        ({"messages": [{"role": "user", "content": 7}]}, "", "/samples/1/messages/0/content", "expected an array, found a number"),
        ({"messages": [{"content": "x"}]}, "", "/samples/1/messages/0/role", "expected a text, found null"),
        ({"messages": "x"}, "", "/samples/1/messages", "expected an array, found a text"),
        ({"id": " "}, "", "/samples/1/id", "not blank"),
        ({"epoch": -1}, "", "/samples/1/epoch", "at least 0"),
        ({"output": []}, "", "/samples/1/output", "expected an object, found an array"),
        ({"scores": {"a/b": 1}}, "", "/samples/1/scores/a~1b", "expected an object, found a number"),
        ({"messages": [], "events": [{"event": "model", "input_refs": [[0, 9]]}]}, "", "/samples/1/events/0/input_refs/0", "bounds"),
    ],
)
def test_a_malformed_sample_is_named(
    change: Any, part: str, pointer: str, reason: str, tmp_path: Path, load: Import, committed_db: Database, committed_workspace: UUID
) -> None:
    """The error names file and JSON Pointer, and nothing of the file is stored."""
    before = rows_of(committed_db, committed_workspace)
    path = write_json(tmp_path / "a.json", header(), [sample(1), sample(2, **change)])
    with pytest.raises(MalformedFileError, match=reason) as caught:
        load(path)
    assert (caught.value.file, caught.value.part, caught.value.pointer) == (str(path), part, pointer)
    assert rows_of(committed_db, committed_workspace) == before


def test_a_malformed_member_is_named(tmp_path: Path, load: Import) -> None:
    """The error about an archive names the member; about one that was cut off, the file."""
    path = write_eval(tmp_path / "a.eval", header(), [sample(1, messages=[{"role": 1}])])
    with pytest.raises(MalformedFileError) as caught:
        load(path)
    assert (caught.value.part, caught.value.pointer) == ("samples/1_epoch_1.json", "/messages/0/role")
    cut(path, 300)
    with pytest.raises(MalformedFileError, match="no zip archive"):
        load(path)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "the file ends in the middle"),
        (b"{", "the file ends in the middle"),
        (b'{"eval": {"task": "x', "the file ends in the middle"),
        (b'{"version": 2} x', "something follows"),
        (b'{"version": 2}', "it has no eval"),
        (b"[]", "it has no eval"),
        (b'{"version": 4, "eval": {}}', "versions 2 and 3"),
        (b'{"version": 2, "status": "odd", "eval": {"task": "x"}}', "expected one of started"),
        (b'{"version": 2 "eval"}', "expected , or }"),
        (b'{"version": 2, 7: 1}', "expected a key"),
        (b'{"version": tru}', "this is not JSON"),
        (b'{"version": "\xff"}', "this is not UTF-8"),
        (b'{"version": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
    ],
)
def test_a_file_that_is_no_log_is_refused(body: bytes, reason: str, tmp_path: Path, load: Import) -> None:
    """Whatever is wrong with a file is one typed error that names it."""
    path = tmp_path / "a.json"
    path.write_bytes(body)
    with pytest.raises(MalformedFileError, match=reason):
        load(path)


def test_files_and_workspaces_that_are_not_there_are_named(tmp_path: Path, committed_db: Database) -> None:
    """A missing file is a typed error, and so is a missing workspace."""
    with pytest.raises(MalformedFileError, match="No such file"):
        importers.import_inspect(committed_db, [tmp_path / "none.eval"], workspace="none")
    path = write_json(tmp_path / "a.json", header(), [])
    with pytest.raises(NotFoundError, match="none"):
        importers.import_inspect(committed_db, [path], workspace="none")


# ----------------------------------------------------------------------------------------------------------------- real files


def test_logs_of_the_tool_itself(load: Import, committed_db: Database, committed_workspace: UUID) -> None:
    """What Inspect wrote, with members compressed with Zstandard, is read; two evaluations of one task share their scenarios."""
    pytest.importorskip("zstandard")
    paths = [FIXTURES / name for name in ("inspect_success.eval", "inspect_success.json", "inspect_partial.eval", "inspect_error.eval")]
    report = load(*paths)
    assert [log.status for log in report.logs] == ["COMPLETED", "COMPLETED", "PARTIAL", "FAILED"]
    assert [log.transcripts for log in report.logs] == [4, 4, 3, 3]
    assert [log.scenarios for log in report.logs] == [2, 0, 3, 3]
    _, found = stored(committed_db, committed_workspace, report)
    answers = {each.content.turns[-1].content for each in found}
    # Inspect itself writes surrogates as their escapes.
    assert "nul \0 and \\ud83d\\ude00 café" in answers
    assert {str(row[1]) for row in scores_of(committed_db, committed_workspace) if row[0] == "odd/nan"} == {"nan"}
    assert not load(*paths).changed


def test_a_missing_extra_is_named(load: Import, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what reads Zstandard the error says what to install, and nothing is stored."""
    monkeypatch.setitem(sys.modules, "zstandard", None)
    monkeypatch.delattr(zipfile, "ZIP_ZSTANDARD", raising=False)
    with pytest.raises(MissingDependencyError, match=r"stemmadb\[importers\]"):
        load(FIXTURES / "inspect_success.eval")


def test_a_damaged_zstandard_member_is_named(tmp_path: Path, load: Import) -> None:
    """A byte that is wrong in a compressed member is found."""
    pytest.importorskip("zstandard")
    data = bytearray((FIXTURES / "inspect_success.eval").read_bytes())
    with zipfile.ZipFile(FIXTURES / "inspect_success.eval") as opened:
        info = next(each for each in opened.infolist() if each.filename.startswith("samples/"))
    data[info.header_offset + 30 + len(info.filename) + info.compress_size // 2] ^= 0xFF
    path = tmp_path / "damaged.eval"
    path.write_bytes(data)
    with pytest.raises(MalformedFileError, match="cannot be read") as caught:
        load(path)
    assert caught.value.part == info.filename


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="the logs are not there: name the parent of their folder in STEMMADB_TEST_DATA")
def test_real_logs_are_imported_once(load: Import, committed_db: Database, committed_workspace: UUID) -> None:
    """Logs of versions 2 and 3 give the samples that they hold, every message exactly, and a second import changes no row."""
    paths = sorted(REAL.iterdir())
    report = load(*paths)
    # One log is there as .eval and as .json.
    assert report.count("transcripts") == 206
    said = {
        turn.content
        for log in range(len(paths))
        for each in stored(committed_db, committed_workspace, report, log)[1]
        for turn in each.content.turns
    }
    for path in REAL.glob("scout_*.eval"):
        with zipfile.ZipFile(path) as opened:
            for name in opened.namelist():
                if name.startswith("samples/"):
                    messages = json.loads(opened.read(name))["messages"]
                    assert {message["content"] for message in messages if isinstance(message["content"], str)} <= said
    before = rows_of(committed_db, committed_workspace)
    assert not load(*paths).changed
    assert rows_of(committed_db, committed_workspace) == before


# ---------------------------------------------------------------------------------------------------------- kills and memory


def start(db: Database, workspace: UUID, *files: Path) -> subprocess.Popen[str]:
    """Start an import as a process of its own; the first file warms it up."""
    url = db.url.render_as_string(hide_password=False)
    command = [sys.executable, "-W", "error", interrupted_import.__file__, url, str(workspace), *map(str, files)]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True)


@pytest.mark.fault
@pytest.mark.slow
def test_a_killed_import_goes_on(tmp_path: Path, load: Import, committed_db: Database, committed_workspace: UUID) -> None:
    """Killed between batches, the run is RUNNING with whole batches; imported again it is complete, and nothing is there twice."""
    count = 1000
    warm = write_json(tmp_path / "warm.json", header(), [])
    about = header()
    about["eval"] = {**about["eval"], "eval_id": "killed"}
    path = write_json(tmp_path / "a.json", about, many(count, 200))
    with start(committed_db, committed_workspace, warm, path) as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("storing 400"):
            pass
        process.kill()
    before = rows_of(committed_db, committed_workspace)
    assert 400 <= len(before["transcripts"]) < count
    (log,) = load(path).logs
    assert (log.runs, log.status, log.status_changed, log.differing) == (0, "COMPLETED", True, 0)
    assert log.present == len(before["transcripts"])
    assert log.present + log.transcripts == count
    after = rows_of(committed_db, committed_workspace)
    assert (len(after["transcripts"]), len(after["scores"]), len(after["scenarios"])) == (count, count, count)
    assert set(before["transcripts"]) <= set(after["transcripts"])


@pytest.mark.slow
@pytest.mark.timeout(120 + MEGABYTES)
def test_memory_does_not_grow_with_the_file(tmp_path: Path, committed_db: Database, committed_workspace: UUID) -> None:
    """A log of 100 MB takes less than 48 MB more than a small one."""
    warm = write_json(tmp_path / "warm.json", header(), many(50, 10_000))
    about = header()
    about["eval"] = {**about["eval"], "eval_id": "large"}
    count = 20 * MEGABYTES
    path = write_json(tmp_path / "large.json", about, many(count, 50_000))
    assert path.stat().st_size > MEGABYTES * 1_000_000
    with start(committed_db, committed_workspace, warm, path) as process:
        assert process.stdout is not None
        lines = process.stdout.read().splitlines()
    assert lines[-2:-1] == [f"storing {count}"]
    print(lines[-1], "KiB")
    assert int(lines[-1].split()[1]) < 48 * 1024


# ------------------------------------------------------------------------------------------------------------ other ways to it


def test_progress_is_told(tmp_path: Path, load: Import) -> None:
    """First the reading, without a total, then the storing, with one."""
    told: list[ImportProgress] = []
    load(write_json(tmp_path / "a.json", header(), many(450, 1)), on_progress=told.append)
    assert [(each.phase, each.done, each.total) for each in told] == [
        ("reading", 200, None),
        ("reading", 400, None),
        ("storing", 200, 450),
        ("storing", 400, 450),
        ("storing", 450, 450),
    ]


async def test_an_import_leaves_the_event_loop(tmp_path: Path, committed_db: Database, committed_workspace: UUID) -> None:
    """The async twin does the same."""
    path = write_json(tmp_path / "a.json", header(), [sample(1)])
    report = await aio_importers.import_inspect(committed_db, [path], workspace=committed_workspace)
    assert report.count("transcripts") == 1


def test_the_command(tmp_path: Path, committed_db: Database, committed_workspace: UUID) -> None:
    """It prints what it did, as a table or as JSON; a malformed file is one line and exit code 1."""
    url = committed_db.url.render_as_string(hide_password=False)
    path = str(write_json(tmp_path / "a.json", header(), [sample(1), sample(2)]))

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return call("import", "inspect", *arguments, "--workspace", str(committed_workspace), DATABASE_URL=url)

    dry = run(path, "--dry-run")
    assert (dry.returncode, dry.stderr) == (0, "")
    assert "this is what would be" in dry.stdout
    made = json.loads(run(path, "--json").stdout)
    assert (made["changed"], made["dry_run"], made["logs"][0]["transcripts"]) == (True, False, 2)
    again = run(path)
    assert "all of it was there already, and nothing was changed" in again.stdout
    cut(Path(path), 100)
    refused = run(path)
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"stemmadb: {path}")
    assert refused.stderr.count("\n") == 1
