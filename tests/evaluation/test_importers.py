"""The importers of lm-evaluation-harness, promptfoo and tables, and how all of them read JSON."""

import io
import json
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.evaluation.inspect_logs import ODD
from tests.evaluation.test_importers_inspect import FIXTURES, Import, rows_of, scores_of, stored
from tests.test_cli import call

from stemmadb.aio.evaluation import importers as aio_importers
from stemmadb.database import Database
from stemmadb.errors import MalformedFileError, ValidationError
from stemmadb.evaluation import importers, scenarios
from stemmadb.evaluation.importers import _json_stream
from stemmadb.evaluation.importers._json_stream import JsonStream
from stemmadb.evaluation.importers._nodes import Place

RESULTS = FIXTURES / "lm_eval" / "results_2026-11-20T13-24-05.668249.json"
MAPPING = {"prompt": "question", "response": "answer", "model": "=openai:gpt-4o", "id": "id", "score:right": "ok"}
MAPPING |= {"label:right": "verdict", "dimension:level": "level", "output_tokens": "tokens", "cost": "price", "error": "error"}


@pytest.fixture
def lm_eval(committed_db: Database, committed_workspace: UUID) -> Import:
    """The importer of lm-evaluation-harness in a workspace of the test's database."""
    return lambda *paths, **options: importers.import_lm_eval(committed_db, paths, workspace=committed_workspace, **options)


@pytest.fixture
def promptfoo(committed_db: Database, committed_workspace: UUID) -> Import:
    """The importer of promptfoo, likewise."""
    return lambda *paths, **options: importers.import_promptfoo(committed_db, paths, workspace=committed_workspace, **options)


@pytest.fixture
def table(committed_db: Database, committed_workspace: UUID) -> Import:
    """The importer of tables, likewise; the mapping is an option."""
    load = partial(importers.import_table, committed_db, workspace=committed_workspace)
    return lambda *paths, mapping=MAPPING, **options: load(paths, mapping, **options)


# -------------------------------------------------------------------------------------------------- lm-evaluation-harness


def test_results_become_a_run_for_each_task(lm_eval: Import, committed_db: Database, committed_workspace: UUID) -> None:
    """Documents are scenarios, answers transcripts, and the metrics of each filter are scores of the one transcript."""
    report = lm_eval(RESULTS)
    assert [(log.name, log.status, log.scenarios, log.transcripts, log.scores) for log in report.logs] == [
        ("capitals_gen dummy:dummy-model", "COMPLETED", 2, 2, 4),
        ("capitals_mc dummy:dummy-model", "COMPLETED", 2, 2, 4),
    ]
    run, found = stored(committed_db, committed_workspace, report)
    source = (run.config.model_extra or {})["source"]
    assert (source["tool"], source["results"]["exact_match,strict"]) == ("lm_eval 0.4.13", 0.0)
    assert (run.config.models, run.progress and run.progress.total) == (("dummy:dummy-model",), 2)
    assert [turn.content for turn in found[1].content.turns] == ["Q: Capital of Italy? café 😀 nul \0\nA:", "lol"]
    chosen = stored(committed_db, committed_workspace, report, 1)[1][0].content.turns[1]
    assert chosen.content == " Paris"
    assert (chosen.raw or {})["resps"][0][0][0] == "-0.10905784593110368"
    names = {row[0] for row in scores_of(committed_db, committed_workspace)}
    assert names == {"exact_match,strict", "exact_match,lower", "acc", "acc_norm"}


def test_samples_and_folders_lead_to_the_results(lm_eval: Import, committed_db: Database, committed_workspace: UUID) -> None:
    """Whichever file of an evaluation is named, it is imported once, and again nothing changes."""
    samples = sorted(RESULTS.parent.glob("samples_*"))
    assert lm_eval(*samples, RESULTS, RESULTS.parent).count("runs") == 2
    before = rows_of(committed_db, committed_workspace)
    assert not lm_eval(RESULTS.parent).changed
    assert rows_of(committed_db, committed_workspace) == before


def test_samples_inside_the_results_are_read(tmp_path: Path, lm_eval: Import) -> None:
    """A program that calls the harness writes both into one file; a task without samples is a run with its results."""
    about = json.loads(RESULTS.read_text())
    lines = (RESULTS.parent / "samples_capitals_mc_2026-11-20T13-24-05.668249.jsonl").read_text().splitlines()
    path = tmp_path / "results.json"
    path.write_text(json.dumps({**about, "samples": {"capitals_mc": [json.loads(line) for line in lines]}}))
    report = lm_eval(path)
    assert [(log.transcripts, log.status) for log in report.logs] == [(0, "COMPLETED"), (2, "COMPLETED")]


def test_older_forms_of_samples_are_read(tmp_path: Path, lm_eval: Import, committed_db: Database, committed_workspace: UUID) -> None:
    """Arguments as lists, metrics that are not named, NaN, a chat as prompt, and a likelihood without an answer."""
    chat = json.dumps([{"role": "system", "content": "Be brief."}, {"role": "user", "content": ODD}])
    rows = [
        {"doc_id": 0, "doc": {}, "target": "x", "arguments": [[chat, {}]], "resps": [["said"]], "acc": float("nan"), "f1": [1, 2]},
        {"doc_id": 1, "doc": {}, "target": "x", "arguments": [["whole text"]], "resps": [[-3.5]], "acc": 1},
    ]
    about = {"results": {"t": {}}, "configs": {"t": {}}, "config": {"model": "hf", "model_args": "dtype=auto,pretrained=gpt2"}}
    (tmp_path / "results.json").write_text(json.dumps(about))
    (tmp_path / "samples_t.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    report = lm_eval(tmp_path)
    _, found = stored(committed_db, committed_workspace, report)
    assert [[turn.role for turn in each.content.turns] for each in found] == [["system", "user", "assistant"], ["user"]]
    assert (found[0].model, found[0].content.turns[1].content) == ("hf:gpt2", ODD)
    assert [repr(row[:2]) for row in scores_of(committed_db, committed_workspace)] == ["('acc', 1.0)", "('acc', nan)", "('f1', nan)"]


def test_malformed_samples_are_named(tmp_path: Path, lm_eval: Import) -> None:
    """The error names the line of the samples; samples alone, and a folder without results, are told what is missing."""
    samples = tmp_path / "samples_t_2026-01-01T00-00-00.1.jsonl"
    samples.write_text('{"doc_id": 0, "arguments": [["a"]]}\n\n{"doc_id": "x", "arguments": [["a"]]}\n')
    with pytest.raises(MalformedFileError, match=r"results_2026-01-01T00-00-00\.1\.json is not beside them"):
        lm_eval(samples)
    with pytest.raises(MalformedFileError, match="no files results"):
        lm_eval(tmp_path)
    results = tmp_path / "results_2026-01-01T00-00-00.1.json"
    results.write_text('{"results": {}, "configs": {"t": {}}}')
    with pytest.raises(MalformedFileError) as caught:
        lm_eval(samples)
    assert (caught.value.file, caught.value.part, caught.value.pointer) == (str(samples), "line 3", "/doc_id")
    results.write_text("[]")
    with pytest.raises(MalformedFileError, match="no results of lm-evaluation-harness"):
        lm_eval(results)


# -------------------------------------------------------------------------------------------------------------- promptfoo


@pytest.mark.parametrize("name", ["promptfoo.json", "promptfoo.jsonl"])
def test_an_export_becomes_a_run(name: str, promptfoo: Import, committed_db: Database, committed_workspace: UUID) -> None:
    """Two tests, two prompts and two providers are four scenarios and eight transcripts, with scores; again nothing changes."""
    report = promptfoo(FIXTURES / name)
    (log,) = report.logs
    # score and pass of each, and a named score of those that have the assertion.
    assert (log.status, log.scenarios, log.transcripts, log.scores) == ("COMPLETED", 4, 8, 20)
    run, found = stored(committed_db, committed_workspace, report)
    assert set(run.config.models) == {"echo", "echo (echo again)"}
    assert {each.content.turns[1].content for each in found} == {each.content.turns[0].content for each in found}
    assert "Name the capital: Côte d'Ivoire 😀 2" in {each.content.turns[1].content for each in found}
    # Of what was not counted nothing is known, and an assertion that does not hold is no error.
    assert {(each.input_tokens, each.cost, each.error_message) for each in found} == {(None, None, None)}
    judged = [row[:3] for row in scores_of(committed_db, committed_workspace)]
    assert [judged.count(each) for each in (("pass", 1.0, "true"), ("pass", 0.0, "false"))] == [4, 4]
    assert {row for row in judged if row[0] == "says-capital"} == {("says-capital", 1.0, None)}
    with committed_db.session(committed_workspace) as session:
        assert found[0].scenario_id is not None
        assert scenarios.get_content(session, found[0].scenario_id).dimension_values == {"country": "France", "n": 1}
    before = rows_of(committed_db, committed_workspace)
    assert not promptfoo(FIXTURES / name).changed
    assert rows_of(committed_db, committed_workspace) == before


def result(**changes: Any) -> dict[str, Any]:
    """A result of promptfoo."""
    usage = {"total": 9, "prompt": 5, "completion": 4, "completionDetails": {"reasoning": 1}}
    made = {
        "id": "r1",
        "testIdx": 0,
        "promptIdx": 0,
        "promptId": "p",
        "provider": "openai:gpt-4o",
        "vars": {"list": [1]},
        "latencyMs": 12.4,
    }
    made |= {"prompt": {"raw": "Say it."}, "response": {"output": "It.", "tokenUsage": usage}, "cost": 0.5, "score": 1, "success": True}
    return {**made, **changes}


@pytest.mark.requirement("AD-014")
def test_outputs_and_errors_of_providers(tmp_path: Path, promptfoo: Import, committed_db: Database, committed_workspace: UUID) -> None:
    """Objects are their JSON, tokens and cost are kept, and a provider that failed leaves an error and no scores."""
    failed = result(testIdx=1, failureReason=2, error=ODD, response=None)
    objects = result(testIdx=2, response={"output": {ODD: [1]}}, namedScores={"score": float("nan")}, prompt={"raw": "[1]"})
    path = tmp_path / "out.jsonl"
    path.write_text("".join(f"{json.dumps(each)}\n" for each in (result(), failed, objects)))
    report = promptfoo(path)
    run, (one, two, three) = stored(committed_db, committed_workspace, report)
    assert (one.input_tokens, one.output_tokens, one.reasoning_tokens, one.duration_ms, str(one.cost)) == (5, 4, 1, 12, "0.50000000")
    assert (run.status, run.progress and run.progress.failed) == ("PARTIAL", 1)
    assert (two.error_message or "").startswith("nul \ufffd, lone \ufffd")
    assert [turn.content for turn in two.content.turns] == ["Say it."]
    assert json.loads(three.content.turns[1].content) == {ODD: [1]}
    assert three.content.turns[0].content == "[1]"
    assert [repr(row[1]) for row in scores_of(committed_db, committed_workspace) if row[0] == "named/score"] == ["nan"]
    path.write_text(path.read_text() + json.dumps(result(testIdx=3)))
    (grown,) = promptfoo(path).logs
    assert (grown.runs, grown.transcripts, grown.present) == (0, 1, 3)


def test_keys_are_not_stored(tmp_path: Path, promptfoo: Import, lm_eval: Import, committed_db: Database, committed_workspace: UUID) -> None:
    """Secrets in configurations become three stars; names that only look alike, and dialogues, stay."""
    config = {
        "description": "d",
        "providers": [{"id": "x", "config": {"apiKey": "sk-1", "headers": {"Authorization": "sk-2"}, "max_tokens": 7}}],
    }
    path = tmp_path / "out.json"
    one = result(provider={"id": "x", "config": {"api_key": "sk-3"}}, prompt={"raw": "password=kept"})
    path.write_text(json.dumps({"evalId": "e", "config": config, "results": {"version": 3, "prompts": [], "results": [one]}}))
    promptfoo(path)
    (tmp_path / "results.json").write_text(
        json.dumps({"results": {}, "configs": {"t": {}}, "config": {"model": "api", "model_args": "model=m,api_key=sk-4,tokenizer=none"}})
    )
    lm_eval(tmp_path / "results.json")
    found = "".join(each for rows in rows_of(committed_db, committed_workspace).values() for each in rows)
    assert "sk-" not in found
    assert all(kept in found for kept in ("password=kept", "max_tokens", "api_key=***,tokenizer=none"))


def test_a_malformed_export_is_named(tmp_path: Path, promptfoo: Import) -> None:
    """The error names the line, or the JSON Pointer."""
    path = tmp_path / "out.jsonl"
    path.write_text(json.dumps(result()) + "\n" + json.dumps(result(prompt={})))
    with pytest.raises(MalformedFileError) as caught:
        promptfoo(path)
    assert (caught.value.part, caught.value.pointer) == ("line 2", "/prompt/raw")
    whole = tmp_path / "out.json"
    whole.write_text(json.dumps({"results": {"version": 3, "prompts": [], "results": [result(testIdx=-1)]}}))
    with pytest.raises(MalformedFileError) as caught:
        promptfoo(whole)
    assert caught.value.pointer == "/results/results/0/testIdx"
    whole.write_text("{}")
    with pytest.raises(MalformedFileError, match="no export of promptfoo"):
        promptfoo(whole)


# ------------------------------------------------------------------------------------------------------------------ tables

QUIET: dict[str, Any] = {"verdict": None, "tokens": None, "price": None, "error": None}
ROWS: list[dict[str, Any]] = [
    {"question": "2 + 2?", "answer": "4", "id": "a", "ok": 1, "level": "easy", **QUIET, "verdict": "right", "tokens": 1, "price": 0.25},
    {"question": "3 + 3?", "answer": "7", "id": "b", "ok": 0, "level": 2, **QUIET},
    {"question": "4 + 4?", "answer": None, "id": "c", "ok": None, "level": 3, **QUIET, "error": "late"},
]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write a table in the form that its name ends in."""
    if path.suffix == ".jsonl":
        path.write_text("\ufeff" + "".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    else:
        cells = [list(rows[0]), *(["" if value is None else str(value) for value in row.values()] for row in rows)]
        path.write_text("\r\n".join({".csv": ",", ".tsv": "\t"}[path.suffix].join(line) for line in cells) + "\r\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["t.jsonl", "t.csv", "t.tsv"])
def test_a_table_becomes_a_run(name: str, tmp_path: Path, table: Import, committed_db: Database, committed_workspace: UUID) -> None:
    """A row is a dialogue; what is empty is unknown; again nothing changes."""
    path = write(tmp_path / name, ROWS)
    report = table(path)
    (log,) = report.logs
    assert (log.name, log.status, log.scenarios, log.transcripts, log.scores) == (name, "PARTIAL", 3, 3, 2)
    _, found = stored(committed_db, committed_workspace, report)
    assert [[turn.content for turn in each.content.turns] for each in found] == [["2 + 2?", "4"], ["3 + 3?", "7"], ["4 + 4?"]]
    assert [(each.output_tokens, each.cost and str(each.cost), each.error_message) for each in found] == [
        (1, "0.25000000", None),
        (None, None, None),
        (None, None, "late"),
    ]
    assert [row[:5] for row in scores_of(committed_db, committed_workspace)][1] == ("right", 1.0, "right", "RULE", "table")
    before = rows_of(committed_db, committed_workspace)
    assert not table(path).changed
    assert rows_of(committed_db, committed_workspace) == before


def test_messages_pointers_and_repeats(tmp_path: Path, table: Import, committed_db: Database, committed_workspace: UUID) -> None:
    """Whole dialogues, columns inside of columns, one question put several times, and a run that grows under a name of its own."""
    said = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": ODD}, {"role": "assistant", "content": "a"}]
    rows = [{"data": {"x/y": said}, "who": {"~": "m:1"}, "grade": "good"}] * 3
    mapping = {"messages": "/data/x~1y", "model": "/who/~0", "label:tone": "grade", "run": "=nightly", "definition": "=Tone"}
    mapping |= {"annotator": "=ada", "annotator_kind": "=HUMAN"}
    first = table(write(tmp_path / "t.jsonl", rows[:2]), mapping=mapping)
    second = table(write(tmp_path / "t.jsonl", rows), mapping=mapping)
    assert (second.logs[0].run_id, second.count("transcripts"), second.count("present")) == (first.logs[0].run_id, 1, 2)
    run, found = stored(committed_db, committed_workspace, second)
    assert (run.name, [each.sample_index for each in found], {each.model for each in found}) == ("nightly", [0, 1, 2], {"m:1"})
    assert [turn.role for turn in found[0].content.turns] == ["system", "user", "assistant"]
    assert found[0].content.turns[1].content == ODD
    assert {row[:5] for row in scores_of(committed_db, committed_workspace)} == {("tone", None, "good", "HUMAN", "ada")}


@pytest.mark.parametrize(
    ("mapping", "reason"),
    [
        ({"model": "m"}, "needs model, and either prompt and response or messages"),
        ({"prompt": "p", "response": "r"}, "needs model"),
        ({**MAPPING, "colour": "c"}, "no field 'colour'"),
        ({**MAPPING, "score: ": "c"}, "no field"),
        ({**MAPPING, "target": ""}, "name the column of target"),
        ({**MAPPING, "run": "column"}, "those of the whole file"),
        ({**MAPPING, "annotator_kind": "=ROBOT"}, "=HUMAN, =MODEL or =RULE"),
    ],
)
def test_a_mapping_is_checked_first(mapping: dict[str, str], reason: str, tmp_path: Path, table: Import) -> None:
    """What a mapping lacks, or has too much, is said before a file is opened."""
    with pytest.raises(ValidationError, match=reason):
        table(tmp_path / "none.jsonl", mapping=mapping)


@pytest.mark.parametrize(
    ("name", "body", "part", "pointer"),
    [
        ("t.jsonl", b'{"question": 1}\n', "line 1", "/question"),
        ("t.jsonl", b'\n{"question": "a", "answer": "b", "tokens": "x"}\n', "line 2", "/tokens"),
        ("t.jsonl", b'{"question": "a"\n', "line 1", ""),
        ("t.jsonl", b"null\n", "line 1", ""),
        ("t.csv", b"", "line 1", ""),
        ("t.csv", b"a,a\n", "line 1", ""),
        ("t.csv", b"question,answer\n1,2,3\n", "line 2", ""),
        ("t.csv", b'question,answer\n"1,2\n', "line 2", ""),
        ("t.csv", b"question,answer\n\xff,2\n", "after line 0", ""),
    ],
)
def test_a_malformed_row_is_named(name: str, body: bytes, part: str, pointer: str, tmp_path: Path, table: Import) -> None:
    """The error names the line, and the column as a JSON Pointer."""
    path = tmp_path / name
    path.write_bytes(body)
    with pytest.raises(MalformedFileError) as caught:
        table(path)
    assert (caught.value.part, caught.value.pointer) == (part, pointer)


# ------------------------------------------------------------------------------------------------------------ other ways to it


async def test_imports_leave_the_event_loop(tmp_path: Path, committed_db: Database, committed_workspace: UUID) -> None:
    """The async twins do the same."""
    options: Any = {"workspace": committed_workspace, "dry_run": True}
    assert (await aio_importers.import_lm_eval(committed_db, [RESULTS], **options)).count("runs") == 2
    assert (await aio_importers.import_promptfoo(committed_db, [FIXTURES / "promptfoo.json"], **options)).count("runs") == 1
    path = write(tmp_path / "t.jsonl", ROWS)
    assert (await aio_importers.import_table(committed_db, [path], MAPPING, **options)).count("transcripts") == 3


def test_the_commands(tmp_path: Path, committed_db: Database, committed_workspace: UUID) -> None:
    """Each format has its command; a mapping is given field by field."""
    url = committed_db.url.render_as_string(hide_password=False)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return call("import", *arguments, DATABASE_URL=url, STEMMADB_WORKSPACE=str(committed_workspace))

    path = str(write(tmp_path / "t.csv", ROWS))
    options = [each for field, column in MAPPING.items() for each in ("--mapping", f"{field}={column}")]
    export = str(FIXTURES / "promptfoo.json")
    for arguments, count in ((["lm-eval", str(RESULTS)], 2), (["promptfoo", export], 8), (["jsonl", path, *options], 3)):
        done = run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["logs"][0]["transcripts"] == count
    refused = run("jsonl", path, "--mapping", "prompt")
    assert (refused.returncode, "write FIELD=COLUMN" in refused.stderr) == (1, True)


# ---------------------------------------------------------------------------------------------------------------- reading JSON

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec=None, categories=None)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)


@pytest.fixture(params=[1, 7, 1024 * 1024], scope="module")
def chunk(request: pytest.FixtureRequest) -> Iterator[int]:
    """How much is read at a time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_json_stream, "_CHUNK", request.param)
        yield request.param


@pytest.mark.offline
@pytest.mark.property
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(value=st.fixed_dictionaries({"a": VALUES, "samples": st.lists(VALUES, max_size=5), "z": VALUES}), indent=st.sampled_from([None, 1]))
def test_reading_piece_by_piece_is_reading(chunk: int, value: Any, indent: int | None) -> None:
    """Whatever is read at a time, the pieces are what the standard library reads of the whole, with their places."""
    body = json.dumps(value, indent=indent).encode()
    place = Place("f")
    read: Callable[..., dict[str, Any]] = lambda **options: {  # noqa: E731
        node.place.pointer: node.value for node in JsonStream(io.BytesIO(body), place, **options)
    }
    pieces = {f"/samples/{number}": each for number, each in enumerate(value["samples"])}
    assert read(inside=()) == {"": value}
    assert read(inside=("", "/samples")) == {"/a": value["a"], **pieces, "/z": value["z"]}
    assert read(inside=("", "/samples"), skip=("/*",)) == pieces
    assert read(inside=("",), skip=("/samples",)) == {"/a": value["a"], "/z": value["z"]}


@pytest.mark.offline
@pytest.mark.property
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(value=st.fixed_dictionaries({"a": VALUES, "samples": st.lists(VALUES, min_size=1, max_size=5)}), data=st.data())
def test_a_file_that_is_cut_off_is_an_error(value: Any, data: st.DataObject) -> None:
    """Wherever it was cut, the error is ours."""
    body = json.dumps(value).encode()
    cut = data.draw(st.integers(0, len(body) - 1))
    with pytest.raises(MalformedFileError):
        list(JsonStream(io.BytesIO(body[:cut]), Place("f"), inside=("", "/samples")))


@pytest.mark.offline
def test_a_value_may_be_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """A single value over the limit is refused before it is held."""
    monkeypatch.setattr(_json_stream, "MAX_VALUE", 1000)
    monkeypatch.setattr(_json_stream, "_CHUNK", 100)
    body = json.dumps({"samples": ["x", "y" * 5000]}).encode()
    with pytest.raises(MalformedFileError, match="over 1000 bytes") as caught:
        list(JsonStream(io.BytesIO(body), Place("f"), inside=("", "/samples")))
    assert caught.value.pointer == "/samples/1"
    with pytest.raises(MalformedFileError, match="over 1000 bytes"):
        list(_json_stream.json_lines(io.BytesIO(b"1\n" + b"2" * 5000), "f"))
