"""The figures as Markdown tables, and as JSON for the record."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from benchmarks.harness import Effort, Measurement
from benchmarks.marks import Mark

_PACKAGES = ("stemmadb", "psycopg", "SQLAlchemy", "sqlmodel", "advanced-alchemy", "Django", "pydantic", "pyrmute", "orjson")


def environment(server_version: str, effort: Effort) -> dict[str, Any]:
    """Return when and with what the figures were measured."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "postgresql": server_version,
        "cores": os.cpu_count(),
        "rounds": effort.rounds,
        "versions": versions,
    }


def heading(facts: dict[str, Any]) -> str:
    """Return the environment as one line."""
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    return f"{facts['date']}, {facts['cores']} cores, Python {facts['python']}, PostgreSQL {facts['postgresql']}, {versions}"


def tables(measurements: Sequence[Measurement]) -> str:
    """Return one table for each case."""
    cases = dict.fromkeys((one.job, one.case) for one in measurements)
    return "\n".join(_table(job, case, [one for one in measurements if (one.job, one.case) == (job, case)]) for job, case in cases)


def _table(job: str, case: str, measurements: Sequence[Measurement]) -> str:
    return "\n".join([f"\n### {job}: {case}\n", *_rows(measurements)])


def _rows(measurements: Iterable[Measurement]) -> Iterator[str]:
    yield "| rows | | x floor | CPU x floor | round trips | median | spread | p95 |"
    yield "| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    for one in measurements:
        trips = "" if one.round_trips is None else f"{one.round_trips:g}"
        yield (
            f"| {one.rows:,} | {one.contender} | {one.ratio:.2f} | {one.cpu_ratio:.2f} | {trips} "
            f"| {_time(one.wall_us)} | {one.spread:.0%} | {_time(one.p95_us)} |"
        )


def _time(microseconds: float) -> str:
    if microseconds < 1000:
        return f"{microseconds:.0f} us"
    return f"{microseconds / 1000:.1f} ms" if microseconds < 1_000_000 else f"{microseconds / 1_000_000:.2f} s"


def as_json(facts: dict[str, Any], measurements: Iterable[Measurement], marks: Iterable[Mark]) -> str:
    """Return everything, to be kept."""
    found = [{"text": mark.text, "value": mark.value, "limit": mark.limit, "reached": mark.reached} for mark in marks]
    return json.dumps({**facts, "measurements": [one.as_dict() for one in measurements], "marks": found}, indent=1)
