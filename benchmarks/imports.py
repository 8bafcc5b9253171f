"""
Importing what other tools stored: samples a second, and that the memory does not grow with the file.

The floor reads the same file and parses each sample, which an import does twice, and stores nothing. Memory is measured by itself, since a
process gives back what it took as it likes:

    python -m benchmarks.imports --megabytes 1024

imports a file of a tenth of that size and then the whole one, and says how much more memory the second took at its highest.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import random
import resource
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.datasets import Dataset, benchmark_server
from benchmarks.harness import OURS, Call, Case, Contender
from stemmadb.database import Database
from stemmadb.evaluation import importers
from stemmadb.testing import make_workspace

JOB = "imports"
READING = "json.loads of each"

_SAMPLES = 2_000
_MAPPING = {"prompt": "question", "response": "answer", "model": "=openai:gpt-4o", "sample_index": "sample", "score:right": "right"}
_WORDS = (
    "the",
    "lever",
    "trolley",
    "track",
    "five",
    "people",
    "one",
    "person",
    "choose",
    "save",
    "harm",
    "duty",
    "because",
    "would",
    "however",
)
_ABOUT = {
    "version": 2,
    "status": "success",
    "eval": {"eval_id": "e", "run_id": "r", "task_id": "t", "created": "2026-01-02T03:04:05+00:00", "task": "t", "model": "openai/gpt-4o"},
}


def _texts() -> Iterator[str]:
    """Yield answers of about 3 kB."""
    chance = random.Random(7)
    said = [" ".join(chance.choices(_WORDS, k=550)) for _ in range(50)]
    return itertools.cycle(said)


def _write_table(path: Path, enough: Callable[[int, int], bool]) -> int:
    """Write JSONL until it is enough by the number of samples and of bytes; return how many samples there are."""
    with path.open("w") as file:
        for number, answer in enumerate(_texts()):
            if enough(number, file.tell()):
                return number
            row = {"question": f"Question {number % 1000}", "answer": answer, "sample": number // 1000, "right": number % 2}
            file.write(json.dumps(row) + "\n")
    return 0


def _write_inspect(path: Path, count: int) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as opened:
        for number, answer in zip(range(count), _texts(), strict=False):
            question, said = f"Question {number % 1000}", {"role": "assistant", "content": answer}
            sample = {
                "id": number % 1000,
                "epoch": number // 1000 + 1,
                "input": question,
                "target": "",
                "scores": {"match": {"value": "C"}},
            }
            sample |= {
                "messages": [{"role": "user", "content": question}, said],
                "output": {"model": "gpt-4o", "choices": [{"message": said}]},
            }
            opened.writestr(f"samples/{number % 1000}_epoch_{number // 1000 + 1}.json", json.dumps(sample))
        opened.writestr("header.json", json.dumps(_ABOUT))


def cases(dataset: Dataset) -> list[Case]:
    """A table and a log of Inspect, each into a workspace of its own."""
    count = _SAMPLES if dataset.rows >= 1000 else 50
    folder = tempfile.TemporaryDirectory(prefix="stemmadb-bench-")
    dataset._opened.callback(folder.cleanup)
    table, log = Path(folder.name) / "table.jsonl", Path(folder.name) / "log.eval"
    _write_table(table, lambda number, size: number == count)
    _write_inspect(log, count)
    return [
        _case(dataset, f"JSONL, {count:,} samples of 3 kB", lambda: _lines(table), lambda key: _import_table(dataset.db, table, key)),
        _case(dataset, f"Inspect, {count:,} samples of 3 kB", lambda: _members(log), lambda key: _import_log(dataset.db, log, key)),
    ]


def _case(dataset: Dataset, title: str, texts: Callable[[], Iterator[bytes]], store: Callable[[Any], int]) -> Case:
    @contextlib.contextmanager
    def reading() -> Iterator[Call]:
        yield lambda number: sum(isinstance(json.loads(text), dict) for text in texts())

    @contextlib.contextmanager
    def storing() -> Iterator[Call]:
        workspace_id = make_workspace(dataset.db)
        yield lambda number: store(workspace_id)

    contenders = [Contender(READING, reading), Contender(OURS, storing)]
    return Case(JOB, title, dataset.rows, contenders, outcome=int, most_calls=1, most_rounds=5)


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from file


def _members(path: Path) -> Iterator[bytes]:
    with zipfile.ZipFile(path) as opened:
        for name in opened.namelist():
            if name.startswith("samples/"):
                yield opened.read(name)


def _import_table(db: Database, path: Path, workspace_id: Any) -> int:
    return importers.import_table(db, [path], _MAPPING, workspace=workspace_id).count("transcripts")


def _import_log(db: Database, path: Path, workspace_id: Any) -> int:
    return importers.import_inspect(db, [path], workspace=workspace_id).count("transcripts")


# ------------------------------------------------------------------------------------------------------------------ memory


def main(arguments: Sequence[str] | None = None) -> int:
    """Import a file of a tenth of the size and one of the whole size, and print what each took."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.imports", description="Import a large file, and watch the memory.")
    parser.add_argument("--megabytes", type=float, default=64, help="size of the large file; 64 unless told")
    size = parser.parse_args(arguments).megabytes * 1024**2
    with (
        benchmark_server() as server,
        server.connect(server.create()) as db,
        tempfile.TemporaryDirectory(prefix="stemmadb-bench-") as folder,
    ):
        print("| file, MB | samples | seconds | samples/s | MB/s | peak memory, MB |\n| ---: | ---: | ---: | ---: | ---: | ---: |")
        for share in (10, 1):
            print(measured(db, Path(folder) / f"{share}.jsonl", size / share), flush=True)
    return 0


def measured(db: Database, path: Path, size: float) -> str:
    """Import a table of this size in bytes, and return a row of figures."""
    count = _write_table(path, lambda number, written: written >= size)
    started = time.perf_counter()
    stored = _import_table(db, path, make_workspace(db))
    took = time.perf_counter() - started
    assert stored == count
    megabytes = path.stat().st_size / 1024**2
    # Linux counts in kB, macOS in bytes.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)
    return f"| {megabytes:,.0f} | {count:,} | {took:,.1f} | {count / took:,.0f} | {megabytes / took:,.1f} | {peak:,.0f} |"


if __name__ == "__main__":
    sys.exit(main())
