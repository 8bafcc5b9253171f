"""``python -m benchmarks``."""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.datasets import benchmark_server, make_dataset
from benchmarks.harness import OURS, Case, Effort, Measurement, measure
from benchmarks.marks import Mark, marks_of
from benchmarks.report import as_json, environment, heading, tables

JOBS = (
    *("read", "insert", "update", "ancestry", "page", "feed", "outcomes", "documents", "tenancy", "credentials", "pool", "volume"),
    *("lineage", "comparisons", "imports", "frames"),
)

# For these the size of the tables is no matter.
_SIZELESS = ("documents", "credentials", "pool", "volume", "comparisons", "imports", "frames")


class _Slow(logging.Handler):
    """Counts the statements that the library called slow, instead of printing them."""

    count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run jobs, print their tables, and return 1 when ``--check`` is given and a mark is missed."""
    options = _options(arguments)
    jobs = JOBS if "all" in options.jobs else options.jobs
    effort = Effort(rounds=options.rounds)
    slow = _Slow()
    log = logging.getLogger("stemmadb.query")
    log.addHandler(slow)
    log.propagate = False
    measurements: list[Measurement] = []
    with benchmark_server() as server:
        datasets = []
        for rows in options.rows:
            _say(f"making {rows:,} definitions")
            datasets.append(make_dataset(server, rows))
        try:
            facts = environment(datasets[0].server_version, effort)
            print(heading(facts), flush=True)
            for job in jobs:
                sizes = datasets[:1] if job in _SIZELESS else datasets
                found = [importlib.import_module(f"benchmarks.{job}").cases(dataset) for dataset in sizes]
                for same in zip(*found, strict=True):
                    measurements += _measure(same, effort)
        finally:
            for dataset in datasets:
                dataset.close()
    marks = [*marks_of(measurements), *_slow_mark(slow.count, measurements)]
    print("\n## Marks\n", *marks, sep="\n")
    if options.json:
        text = as_json(facts, measurements, marks)
        Path(options.json).write_text(text) if options.json != "-" else print(text)
    return 1 if options.check and not all(mark.reached for mark in marks) else 0


def _measure(cases: Sequence[Case], effort: Effort) -> list[Measurement]:
    _say(f"{cases[0].job}: {cases[0].title}")
    found = measure(cases, effort)
    print(tables(found), flush=True)
    return found


def _slow_mark(count: int, measurements: Sequence[Measurement]) -> list[Mark]:
    """Slow statements are below one in a hundred; an import is one call of many."""
    trips = sum(one.samples * one.round_trips for one in measurements if one.contender == OURS and one.round_trips)
    return [Mark("all jobs: statements that were logged as slow, in a hundred round trips", 100 * count / trips, 1.0)] if trips else []


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Time the library side by side with its peers.")
    parser.add_argument("jobs", nargs="+", choices=[*JOBS, "all"], metavar="job", help=f"{', '.join(JOBS)}, or all")
    parser.add_argument("--rows", type=_sizes, default=[1_000, 100_000, 1_000_000], help="sizes of the tables, with commas between")
    parser.add_argument("--rounds", type=int, default=25, help="how often every contender takes its turn")
    parser.add_argument("--json", nargs="?", const="-", metavar="FILE", help="also write the figures as JSON, to a file or to stdout")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a mark is missed")
    return parser.parse_args(arguments)


def _sizes(text: str) -> list[int]:
    return sorted({int(size) for size in text.split(",")})


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
