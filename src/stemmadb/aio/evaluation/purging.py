"""
Async twin of ``stemmadb.evaluation.purging``.

A purge is many transactions, so it runs in a thread, on the sync engine of the Database.
"""

import asyncio
from collections.abc import Callable
from uuid import UUID

from stemmadb.database import Database
from stemmadb.entity import Id
from stemmadb.evaluation import purging as _sync
from stemmadb.evaluation.purging import PurgeReport

__all__ = ["purge_run", "PurgeReport"]


async def purge_run(
    db: Database,
    run_id: Id,
    *,
    workspace: str | UUID | None = None,
    batch: int = 2000,
    on_progress: Callable[[PurgeReport], object] | None = None,
) -> PurgeReport:
    """Remove a run of any size; on_progress is called in the thread. Arguments and errors are those of the sync function."""
    return await asyncio.to_thread(_sync.purge_run, db, run_id, workspace=workspace, batch=batch, on_progress=on_progress)
