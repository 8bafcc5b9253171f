"""
How much memory it takes to stream a large run and to remove one, and how long others would have to wait.

    python -m benchmarks.memory --rows 200000 --slots 1000000

Each figure is of a fresh process. The server's side is looked at twenty times a second: the longest transaction, and the memory of the
process that serves it, without what all of them share.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg

from benchmarks.datasets import Dataset, benchmark_server, make_dataset
from benchmarks.growth import REMOVALS, STREAMS
from stemmadb._test_server import DatabaseServer
from stemmadb.entity import uuid7

WORKS = (*STREAMS, *REMOVALS)
GROWTH_MB = 50.0
"""What a process may grow by, whatever it streams."""
LONGEST_S = 5.0
"""What others may have to wait for a purge."""

_SCENARIOS = """
INSERT INTO stemma.scenarios (definition_id, name, content)
SELECT %(definition_id)s, 'Memory ' || n, jsonb_build_object('schema_version', 1, 'prompt', 'Memory ' || n)
  FROM generate_series(1, 100) AS n
ON CONFLICT DO NOTHING
"""
_RUN = """
INSERT INTO stemma.runs (id, definition_id, config, slot_count, progress, status, started_at)
VALUES (%(run_id)s, %(definition_id)s, '{"schema_version": 1, "models": ["m"]}', %(rows)s, NULL, 'RUNNING', now())
"""
# Of words that differ from row to row, so that a dialogue of 3 kB is read and not one that is found in the cache.
_TRANSCRIPTS = """
INSERT INTO stemma.transcripts (id, run_id, scenario_id, model, sample_index, turn_count, preview, content)
SELECT gen_random_uuid(), %(run_id)s, scenario.id, 'm', n, 2, 'Yes.', jsonb_build_object('schema_version', 1, 'turns', jsonb_build_array(
           jsonb_build_object('role', 'user', 'content', 'Pull it?'),
           jsonb_build_object('role', 'assistant', 'content', repeat(md5(n::text) || ' ', %(words)s))))
  FROM (SELECT id, row_number() OVER (ORDER BY id) - 1 AS place FROM stemma.scenarios WHERE definition_id = %(definition_id)s LIMIT 100)
           AS scenario
  JOIN generate_series(0, %(rows)s - 1) AS n ON n %% 100 = scenario.place
"""
_SLOTS = """
INSERT INTO stemma.run_slots (run_id, scenario_id, model, sample_index, status, attempt, transcript_id, finished_at)
SELECT run_id, scenario_id, model, sample_index, 'COMPLETED', 1, id, now() FROM stemma.transcripts WHERE run_id = %(run_id)s
"""
_WORK_OF_OTHERS = """
SELECT pid, coalesce(extract(epoch FROM clock_timestamp() - xact_start), 0)
  FROM pg_stat_activity
 WHERE datname = %s AND pid <> pg_backend_pid() AND backend_type = 'client backend' AND xact_start IS NOT NULL
"""


@dataclass(frozen=True)
class Figure:
    """What one piece of work took."""

    work: str
    rows: int
    seconds: float
    grown_mb: float
    """The client."""
    server_mb: float
    longest_s: float
    """The longest transaction, as far as it was seen."""

    def __str__(self) -> str:
        memory = f"{self.grown_mb:.1f} MB | {self.server_mb:.0f} MB"
        return f"| {self.work} | {self.rows:,} | {self.seconds:.1f} s | {memory} | {self.longest_s:.2f} s |"


class _Watch:
    """Looks at the server from a thread."""

    def __init__(self, server: DatabaseServer, database: str) -> None:
        # Others' transactions are shown to an administrator only.
        known = server._connection.info
        self._connection = psycopg.connect(known.dsn, password=known.password, autocommit=True)
        self._database = database
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.longest_s = 0.0
        self.server_mb = 0.0

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._connection.close()

    def _look(self) -> None:
        while not self._ended.wait(0.05):
            for pid, seconds in self._connection.execute(_WORK_OF_OTHERS, [self._database]).fetchall():
                self.longest_s = max(self.longest_s, float(seconds))
                status = Path(f"/proc/{pid}/status")
                if status.exists():
                    own = (int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("RssAnon:"))
                    self.server_mb = max(self.server_mb, next(own, 0) / 1024)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a table, and return 1 when ``--check`` is given and something took too much."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description="Measure what streams and removals keep in memory.")
    parser.add_argument("--rows", type=int, default=200_000, help="transcripts of 3 kB that are streamed")
    parser.add_argument("--slots", type=int, default=1_000_000, help="slots with a transcript each that are removed")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a limit is passed")
    options = parser.parse_args(arguments)
    with benchmark_server() as server:
        dataset = make_dataset(server, 100)
        try:
            figures = figures_of(server, dataset, options.rows, options.slots)
        finally:
            dataset.close()
    late = [figure for figure in figures if figure.work != "runs.delete" and figure.grown_mb > GROWTH_MB]
    late += [figure for figure in figures if figure.work == "purging.purge_run" and figure.longest_s > LONGEST_S]
    return 1 if options.check and late else 0


def figures_of(server: DatabaseServer, dataset: Dataset, rows: int, slots: int, works: Collection[str] = WORKS) -> list[Figure]:
    """Measure these streams and removals, and print a line for each as it comes."""
    print(
        "| work | rows | time | client grew by | server process | longest transaction |\n| --- | ---: | ---: | ---: | ---: | ---: |",
        flush=True,
    )
    found = []
    streamed = _make(dataset, rows, words=90)
    for work in filter(works.__contains__, STREAMS):
        found.append(_figure(server, dataset, streamed, work))
        print(found[-1], flush=True)
    for work in filter(works.__contains__, REMOVALS):
        found.append(_figure(server, dataset, _make(dataset, slots, words=3), work, rows=slots))
        print(found[-1], flush=True)
    return found


def _make(dataset: Dataset, rows: int, *, words: int) -> UUID:
    """Return a run with so many completed slots."""
    run_id = uuid7()
    given = {"run_id": run_id, "definition_id": dataset.chain_id(0), "rows": rows, "words": words}
    with dataset.clerk.transaction():
        for statement in (_SCENARIOS, _RUN, _TRANSCRIPTS, _SLOTS):
            dataset.clerk.execute(statement.encode(), given)
    dataset.vacuum("stemma.transcripts", "stemma.run_slots")
    return run_id


def _figure(server: DatabaseServer, dataset: Dataset, run_id: UUID, work: str, rows: int | None = None) -> Figure:
    url = dataset.db.url.render_as_string(hide_password=False)
    command = [sys.executable, "-m", "benchmarks.growth", url, str(dataset.workspace_id), str(run_id), work]
    with _Watch(server, str(dataset.db.url.database)) as watch:
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return Figure(work, told["rows"] if rows is None else rows, told["seconds"], told["grown_mb"], watch.server_mb, watch.longest_s)


if __name__ == "__main__":
    sys.exit(main())
