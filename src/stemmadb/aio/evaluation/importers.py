"""
Async twins of ``stemmadb.evaluation.importers``.

An import reads files and is busy for long, so each runs in a thread, on the sync engine of the Database.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

from stemmadb.database import Database
from stemmadb.evaluation import importers as _sync
from stemmadb.evaluation.importers import ImportedLog, ImportProgress, ImportReport, OnProgress

__all__ = [
    "import_inspect",
    "ImportReport",
    "ImportedLog",
    "ImportProgress",
    "OnProgress",
]


async def import_inspect(
    db: Database,
    paths: Sequence[Path],
    *,
    workspace: str | UUID | None = None,
    dry_run: bool = False,
    on_progress: OnProgress | None = None,
) -> ImportReport:
    """Import logs of Inspect AI; on_progress is called in the thread. Arguments and errors are those of the sync function."""
    return await asyncio.to_thread(_sync.import_inspect, db, paths, workspace=workspace, dry_run=dry_run, on_progress=on_progress)
