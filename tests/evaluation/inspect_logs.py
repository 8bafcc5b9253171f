"""Logs of Inspect AI for tests: made by hand, so that each holds exactly what a test is about."""

import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

ODD = "nul \0, lone \ud800, emoji \U0001f600, \ufffd and \\ud800"


def header(**changes: Any) -> dict[str, Any]:
    """What a log says about its evaluation."""
    about = {"eval_id": "e1", "run_id": "r1", "task_id": "t1", "created": "2026-01-02T03:04:05+00:00", "task": "capitals"}
    about |= {"task_version": 1, "dataset": {"name": "cities"}, "model": "openai/gpt-4o", "packages": {"inspect_ai": "0.3.135"}}
    stats = {"started_at": "2026-01-02T03:04:05+00:00", "completed_at": "2026-01-02T03:05:05+00:00"}
    results = {"total_samples": 2, "completed_samples": 2, "scores": [{"name": "match", "metrics": {"mean": {"value": float("nan")}}}]}
    made = {"version": 2, "status": "success", "eval": about, "plan": {"config": {"temperature": 0.5, "seed": 7}}}
    return {**made, "results": results, "stats": stats, **changes}


def sample(number: int = 1, **changes: Any) -> dict[str, Any]:
    """A sample with a question, an answer and a score."""
    question = f"What is the capital of country {number}?"
    answer = {"role": "assistant", "content": f"City {number}", "model": "gpt-4o", "tool_calls": [{"id": "c1", "function": "look"}]}
    return {
        "id": number,
        "epoch": 1,
        "input": question,
        "target": f"City {number}",
        "messages": [{"role": "user", "content": question}, answer],
        "output": {
            "model": "gpt-4o-2024-08-06",
            "choices": [{"message": answer, "stop_reason": "stop"}],
            "usage": {"input_tokens": 9, "output_tokens": 3, "reasoning_tokens": None, "total_cost": 0.000125},
        },
        "scores": {"match": {"value": "C", "answer": f"City {number}", "explanation": "equal"}},
        "total_time": 1.5,
        **changes,
    }


def write_json(path: Path, about: Mapping[str, Any], samples: Iterable[Mapping[str, Any]]) -> Path:
    """Write a log as one JSON value, a sample at a time."""
    with path.open("w", encoding="utf-8", errors="surrogatepass") as file:
        file.write(json.dumps(about)[:-1] + ', "samples": [')
        for number, each in enumerate(samples):
            file.write(("," if number else "") + json.dumps(each))
        file.write('], "reductions": [{"scorer": "match", "samples": []}]}')
    return path


def write_eval(path: Path, about: Mapping[str, Any] | None, samples: Iterable[Mapping[str, Any]]) -> Path:
    """Write a log as an archive; without *about* it is one that was not finished."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("_journal/start.json", json.dumps(header()))
        for each in samples:
            opened.writestr(f"samples/{each['id']}_epoch_{each['epoch']}.json", json.dumps(each))
        if about is not None:
            opened.writestr("header.json", json.dumps(about))
    return path


def many(count: int, length: int) -> Iterator[dict[str, Any]]:
    """Samples with answers of some length."""
    for number in range(count):
        said = {"role": "assistant", "content": f"{number} " + "x" * length}
        yield sample(number, messages=[{"role": "user", "content": f"question {number}"}, said], output={})
