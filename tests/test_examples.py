"""The programs in examples/ do what they say, on real data where it is there."""

import gzip
import importlib.util
import json
import os
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from stemmadb.database import Database
from stemmadb.evaluation import runs, scenarios
from stemmadb.testing import make_workspace

ROOT = Path(__file__).parents[1]
ARENA_HARD = Path(os.environ.get("STEMMADB_TEST_DATA") or ROOT.parent / "shared" / "data") / "arena_hard"
MODELS = ("model-a", "model-b")


def program(name: str) -> Any:
    """An example as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


load_arena_hard = program("load_arena_hard")


@pytest.fixture
def lab(committed_db: Database) -> uuid.UUID:
    """The workspace that the program loads into."""
    return make_workspace(committed_db, "lab")


@pytest.fixture
def load(committed_db: Database, lab: uuid.UUID, capsys: pytest.CaptureFixture[str]) -> Callable[[Path], tuple[int, str, str]]:
    """Runs the program; gives its exit code and what it printed."""
    url = committed_db.url.render_as_string(hide_password=False)

    def call(folder: Path) -> tuple[int, str, str]:
        code = load_arena_hard.main([str(folder), "--workspace", "lab", "--database-url", url])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


TABLES = ("definitions", "scenarios", "runs", "run_scenario_selection", "run_slots", "transcripts")


def contents(db: Database, workspace: uuid.UUID) -> dict[str, list[Any]]:
    """Every row of the tables, with the transaction that wrote it."""
    with db.session(workspace) as session:
        return {table: list(session.execute(text(f"SELECT xmin, CAST(t AS text) FROM stemma.{table} AS t ORDER BY 2"))) for table in TABLES}


def question(number: int) -> dict[str, Any]:
    return {"uid": f"q{number}", "category": "arena-hard-v0.1", "cluster": f"c{number % 2}", "prompt": f"Question {number}?"}


def answer(number: int, model: str, tokens: int | None = None) -> dict[str, Any]:
    line = {
        "uid": f"q{number}",
        "model": model,
        "tstamp": 1711491874.5,
        "messages": [
            {"role": "user", "content": f"Question {number}?"},
            {"role": "assistant", "content": {"answer": f"\0 {model} {number}"}},
        ],
    }
    return line if tokens is None else {**line, "metadata": {"token_len": tokens}}


def write(path: Path, lines: list[Any]) -> None:
    body = "".join(f"{json.dumps(line)}\n" for line in lines)
    path.write_bytes(gzip.compress(body.encode()) if path.suffix == ".gz" else body.encode())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small benchmark: five questions, two models, of which one says most of its token counts."""
    write(tmp_path / "question.jsonl", [question(number) for number in range(5)])
    write(tmp_path / "model_answer_a.jsonl.gz", [answer(number, MODELS[0], 10 if number else None) for number in range(5)])
    (tmp_path / "model_answer").mkdir()
    write(tmp_path / "model_answer" / "b.jsonl", [answer(number, MODELS[1]) for number in reversed(range(5))])
    return tmp_path


@pytest.mark.slow
@pytest.mark.skipif(not ARENA_HARD.is_dir(), reason="the Arena-Hard files are not there: name their parent in STEMMADB_TEST_DATA")
def test_arena_hard_is_loaded_once(committed_db: Database, lab: uuid.UUID, load: Callable[[Path], tuple[int, str, str]]) -> None:
    """The real files give 500 scenarios and 1,000 transcripts that read back exactly; a second load changes no row and says so."""
    code, out, err = load(ARENA_HARD)
    assert (code, err) == (0, "")
    assert "questions 500, models gpt-3.5-turbo-0125, gpt-4-0613" in out
    assert "transcripts 1000/1000\n" in out
    first = contents(committed_db, lab)
    assert {table: len(rows) for table, rows in first.items()} == {
        "definitions": 1,
        "scenarios": 500,
        "runs": 1,
        "run_scenario_selection": 500,
        "run_slots": 1000,
        "transcripts": 1000,
    }
    require_every_answer(committed_db, lab, out)

    code, again, err = load(ARENA_HARD)
    assert (code, err) == (0, "")
    assert "transcripts 1000/1000: all of it was there already, and nothing was changed" in again
    assert contents(committed_db, lab) == first


def require_every_answer(db: Database, workspace: uuid.UUID, out: str) -> None:
    """Compare what is stored with the files, read anew and by other means."""
    said: dict[tuple[str, str], tuple[str, int | None]] = {}
    for path in ARENA_HARD.glob("*model_answer*"):
        for line in map(json.loads, gzip.decompress(path.read_bytes()).decode().splitlines()):
            tokens = line.get("metadata", {}).get("token_len")
            said[line["model"], line["uid"]] = line["messages"][1]["content"]["answer"], tokens
    with db.session(workspace) as session:
        stored = session.execute(
            text(
                """
                SELECT transcripts.model, scenarios.name, transcripts.content #>> '{turns,1,content}', transcripts.output_tokens
                  FROM stemma.transcripts JOIN stemma.scenarios ON scenarios.id = transcripts.scenario_id
                """
            )
        )
        assert {(model, uid): (answer_, tokens) for model, uid, answer_, tokens in stored} == said
    for model in sorted({model for model, _ in said}):
        known = [tokens for (of, _), (_, tokens) in said.items() if of == model and tokens is not None]
        assert f"{model}: 500 transcripts, {f'{sum(known):,} output tokens' if known else 'output tokens unknown'}" in out


def test_a_benchmark_is_loaded_once(
    committed_db: Database, lab: uuid.UUID, folder: Path, load: Callable[[Path], tuple[int, str, str]]
) -> None:
    """Plain and packed files, in any order, give one run that is COMPLETED; tokens that are not known are not counted; twice is once."""
    code, out, err = load(folder)
    assert (code, err) == (0, "")
    assert "transcripts 10/10\n" in out
    assert "model-a: 5 transcripts, 40 output tokens (1 unknown)\n" in out
    assert "model-b: 5 transcripts, output tokens unknown\n" in out
    first = contents(committed_db, lab)
    assert [len(first[table]) for table in TABLES] == [1, 5, 1, 5, 10, 10]
    with committed_db.session(lab) as session:
        (run,) = runs.list_all(session)
        assert (run.status, runs.progress(session, run.id).completed) == ("COMPLETED", 10)
        for row in runs.get_with_transcripts(session, run.id).transcripts:
            assert row.scenario_id is not None
            number = scenarios.get(session, row.scenario_id).name.removeprefix("q")
            assert row.preview == f"\ufffd {row.model} {number}"
    code, out, err = load(folder)
    assert (code, err) == (0, "")
    assert "nothing was changed" in out
    assert contents(committed_db, lab) == first


def test_an_interrupted_load_goes_on(
    committed_db: Database, lab: uuid.UUID, folder: Path, load: Callable[[Path], tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A load that died between claiming and recording is completed by the next one, which stores nothing twice."""
    monkeypatch.setattr(load_arena_hard, "BATCH", 3)
    outcome_of, calls = load_arena_hard.outcome_of, iter(range(99))

    def dying(*arguments: Any) -> Any:
        if next(calls) == 4:
            raise KeyboardInterrupt
        return outcome_of(*arguments)

    monkeypatch.setattr(load_arena_hard, "outcome_of", dying)
    with pytest.raises(KeyboardInterrupt):
        load(folder)
    monkeypatch.setattr(load_arena_hard, "outcome_of", outcome_of)
    assert len(contents(committed_db, lab)["transcripts"]) == 3
    code, out, _ = load(folder)
    assert code == 0
    assert "transcripts 10/10\n" in out
    assert [len(rows) for rows in contents(committed_db, lab).values()] == [1, 5, 1, 5, 10, 10]


def without(line: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in line.items() if name != key}


WRONG: dict[str, tuple[str, bytes | list[Any], str]] = {
    "not JSON": ("question.jsonl", b'{"uid": \n', "question.jsonl, line 1: this is not JSON"),
    "no object": ("question.jsonl", [1], "question.jsonl, line 1: this is not a JSON object"),
    "empty": ("question.jsonl", [], "question.jsonl is empty"),
    "not UTF-8": ("question.jsonl", b"\xff\n", "question.jsonl cannot be read"),
    "too deep": ("question.jsonl", b"[" * 100_000, "question.jsonl cannot be read"),
    "not packed": ("model_answer_a.jsonl.gz", b"{}\n", "model_answer_a.jsonl.gz cannot be read"),
    "cut off": ("model_answer_a.jsonl.gz", gzip.compress(b"x" * 999)[:-9], "model_answer_a.jsonl.gz cannot be read"),
    "no prompt": ("question.jsonl", [question(0), without(question(1), "prompt")], "question.jsonl, line 2: prompt must be a text"),
    "twice": ("question.jsonl", [question(0), question(0)], "question.jsonl, line 2: the uid q0 stands there twice"),
    "same question": ("question.jsonl", [*map(question, range(5)), {**question(3), "uid": "q5"}], "answers 5 of 6 questions"),
    "unknown question": ("model_answer/b.jsonl", [answer(7, MODELS[1])], "line 1: there is no question q7"),
    "answered twice": ("model_answer/b.jsonl", [answer(0, MODELS[1])] * 2, "line 2: the question q0 is answered twice"),
    "missing answers": ("model_answer/b.jsonl", [answer(0, MODELS[1])], "b.jsonl answers 1 of 5 questions"),
    "two models": ("model_answer/b.jsonl", [answer(0, "x"), answer(1, "y")], "line 2: the model is y, and above it is x"),
    "same model": ("model_answer/b.jsonl", [answer(number, MODELS[0]) for number in range(5)], "another file has the answers of"),
    "no messages": ("model_answer/b.jsonl", [without(answer(0, "x"), "messages")], "line 1: messages must be a list"),
    "no content": ("model_answer/b.jsonl", [{**answer(0, "x"), "messages": [{"role": "user"}]}], "line 1: a message has a role and"),
    "bad time": ("model_answer/b.jsonl", [{**answer(0, "x"), "tstamp": "now"}], "line 1: tstamp must be seconds since 1970"),
    "bad tokens": ("model_answer/b.jsonl", [{**answer(0, "x"), "metadata": {"token_len": "7"}}], "metadata.token_len must be"),
    "another question file": ("other_question.jsonl", [question(0)], "has 2 files *question*.jsonl"),
}


@pytest.mark.fault
@pytest.mark.offline
@pytest.mark.parametrize("kind", WRONG)
def test_a_malformed_file_gives_one_line(folder: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is wrong with a file is one line that names the place, with exit code 1, before any database is asked for."""
    name, lines, message = WRONG[kind]
    if isinstance(lines, bytes):
        (folder / name).write_bytes(lines)
    else:
        write(folder / name, lines)
    assert load_arena_hard.main([str(folder), "--database-url", "postgresql://nobody@127.0.0.1:1/nowhere"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert (err.count("\n"), err.startswith("load_arena_hard: ")) == (1, True)


@pytest.mark.fault
@pytest.mark.offline
def test_a_wrong_folder_gives_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder that is not there, or holds no such files, is one line and exit code 1."""
    for folder, message in ((tmp_path / "none", "is not a folder"), (tmp_path, "has 0 files")):
        assert load_arena_hard.main([str(folder)]) == 1
        err = capsys.readouterr().err
        assert message in err
        assert err.count("\n") == 1
    write(tmp_path / "question.jsonl", [question(0)])
    assert load_arena_hard.main([str(tmp_path)]) == 1
    assert "has no files *model_answer*.jsonl" in capsys.readouterr().err


@pytest.mark.fault
def test_a_database_that_refuses_gives_one_line(
    committed_db: Database, folder: Path, capsys: pytest.CaptureFixture[str], load: Callable[[Path], tuple[int, str, str]]
) -> None:
    """An unknown workspace, a database out of reach and equal questions are one line each, and nothing is stored."""
    url = committed_db.url.render_as_string(hide_password=False)
    assert load_arena_hard.main([str(folder), "--workspace", "nowhere", "--database-url", url]) == 1
    assert "nowhere" in capsys.readouterr().err
    assert load_arena_hard.main([str(folder), "--database-url", "postgresql://nobody@127.0.0.1:1/nowhere"]) == 1
    err = capsys.readouterr().err
    assert "cannot be reached" in err
    assert err.count("\n") == 1
    equal = [{**question(0), "uid": f"q{number}"} for number in range(5)]
    write(folder / "question.jsonl", equal)
    code, _, err = load(folder)
    assert (code, err) == (1, "load_arena_hard: 4 questions are the same as others\n")
    with committed_db.session("lab") as session:
        assert len(runs.list_all(session)) == 0
