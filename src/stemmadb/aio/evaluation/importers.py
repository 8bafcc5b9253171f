"""
Async twins of ``stemmadb.evaluation.importers``.

An import reads files and is busy for long, so each runs in a thread, on the sync engine of the Database.
"""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from uuid import UUID

from stemmadb.database import Database
from stemmadb.evaluation import importers as _sync
from stemmadb.evaluation.importers import ImportedLog, ImportProgress, ImportReport, OnProgress

__all__ = [
    "import_inspect",
    "import_lm_eval",
    "import_promptfoo",
    "import_table",
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


async def import_lm_eval(
    db: Database,
    paths: Sequence[Path],
    *,
    workspace: str | UUID | None = None,
    dry_run: bool = False,
    on_progress: OnProgress | None = None,
) -> ImportReport:
    """Import results of lm-evaluation-harness; on_progress is called in the thread. Arguments and errors are those of the sync function."""
    return await asyncio.to_thread(_sync.import_lm_eval, db, paths, workspace=workspace, dry_run=dry_run, on_progress=on_progress)


async def import_promptfoo(
    db: Database,
    paths: Sequence[Path],
    *,
    workspace: str | UUID | None = None,
    dry_run: bool = False,
    on_progress: OnProgress | None = None,
) -> ImportReport:
    """Import exports of promptfoo; on_progress is called in the thread. Arguments and errors are those of the sync function."""
    return await asyncio.to_thread(_sync.import_promptfoo, db, paths, workspace=workspace, dry_run=dry_run, on_progress=on_progress)


async def import_table(
    db: Database,
    paths: Sequence[Path],
    mapping: Mapping[str, str],
    *,
    workspace: str | UUID | None = None,
    dry_run: bool = False,
    on_progress: OnProgress | None = None,
) -> ImportReport:
    """Import tables, JSONL and CSV; on_progress is called in the thread. Arguments and errors are those of the sync function."""
    return await asyncio.to_thread(_sync.import_table, db, paths, mapping, workspace=workspace, dry_run=dry_run, on_progress=on_progress)
