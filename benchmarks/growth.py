"""
A process that streams or removes a run, and says how much memory that took: it is started afresh for each figure.

    python -m benchmarks.growth URL WORKSPACE RUN_ID WORK
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import stemmadb
from stemmadb.aio.evaluation import transcripts as async_transcripts
from stemmadb.database import Database
from stemmadb.evaluation import purging, runs, transcripts
from stemmadb.evaluation.entities import RunSlot, Transcript
from stemmadb.repository import Repository

_WARM_UP = 2_000


def _streamed(db: Database, run_id: str, most: int | None, **options: Any) -> int:
    with db.session(read_only=True) as session:
        return _counted(transcripts.iter_for_run(session, run_id, **options), most)


def _repository(db: Database, entity: Any, run_id: str, most: int | None) -> int:
    with db.session(read_only=True) as session:
        return _counted(Repository(entity).iter_all(session, filters={"run_id": run_id}), most)


def _twin(db: Database, run_id: str, most: int | None) -> int:
    async def count() -> int:
        number = 0
        async with db.async_session(read_only=True) as session:
            async for _ in async_transcripts.iter_for_run(session, run_id):
                number += 1
                if number == most:
                    break
        return number

    return asyncio.run(count())


def _counted(rows: Any, most: int | None) -> int:
    number = 0
    for _ in rows:
        number += 1
        if number == most:
            rows.close()
            break
    return number


STREAMS: dict[str, Callable[[Database, str, int | None], int]] = {
    "transcripts.iter_for_run": _streamed,
    "transcripts.iter_for_run, no dialogues": lambda db, run_id, most: _streamed(db, run_id, most, with_content=False),
    "aio transcripts.iter_for_run": _twin,
    "Repository(Transcript).iter_all": lambda db, run_id, most: _repository(db, Transcript, run_id, most),
    "Repository(RunSlot).iter_all": lambda db, run_id, most: _repository(db, RunSlot, run_id, most),
}


def _purged(db: Database, run_id: str) -> int:
    report = purging.purge_run(db, run_id)
    return report.slots


def _deleted(db: Database, run_id: str) -> int:
    with db.session() as session:
        runs.delete(session, run_id)
    return 0


REMOVALS: dict[str, Callable[[Database, str], int]] = {"purging.purge_run": _purged, "runs.delete": _deleted}


def _memory(name: str) -> int:
    """Return a count of this process in KiB; VmHWM is the most so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def main(url: str, workspace: str, run_id: str, work: str) -> dict[str, Any]:
    """Do the work, after some of it when it can be repeated, and return what it took."""
    with stemmadb.connect(url, workspace=workspace) as db:
        if work in STREAMS:
            STREAMS[work](db, run_id, _WARM_UP)
        else:
            with db.session() as session:
                runs.get(session, run_id)
        # From here on the peak is counted anew.
        Path("/proc/self/clear_refs").write_text("5")
        before, started = _memory("VmRSS"), time.perf_counter()
        rows = STREAMS[work](db, run_id, None) if work in STREAMS else REMOVALS[work](db, run_id)
        return {"rows": rows, "grown_mb": max(0, _memory("VmHWM") - before) / 1024, "seconds": time.perf_counter() - started}


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
