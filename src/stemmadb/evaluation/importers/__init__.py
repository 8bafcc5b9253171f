"""
Importers: what other tools stored of their evaluations, as definitions, scenarios, runs, transcripts and scores.

    report = importers.import_inspect(db, [Path("logs/2025-09-23_popularity.eval")], workspace="lab")
    print(report.count("transcripts"), report.changed)

Every evaluation of a file becomes one run. A file is read to its end and checked before anything of it is stored, and then
stored in batches, each in a transaction of its own: an import that was killed goes on where it stopped, and importing again
changes nothing. A file of any size takes the memory of its largest sample and of one batch.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

from stemmadb._exports import adopt
from stemmadb.database import Database
from stemmadb.evaluation.importers import _inspect
from stemmadb.evaluation.importers._importing import import_files
from stemmadb.evaluation.importers._reports import ImportedLog, ImportProgress, ImportReport, OnProgress

__all__ = [
    "import_inspect",
    "ImportReport",
    "ImportedLog",
    "ImportProgress",
    "OnProgress",
]

log = logging.getLogger("stemmadb.evaluation.importers")


def import_inspect(
    db: Database,
    paths: Sequence[Path],
    *,
    workspace: str | UUID | None = None,
    dry_run: bool = False,
    on_progress: OnProgress | None = None,
) -> ImportReport:
    """
    Import logs of Inspect AI, ``.eval`` and ``.json``, of versions 2 and 3.

    A task becomes a definition, a sample of its data set a scenario, a log a run, and each epoch of a sample a transcript with the scores
    that were given to it. A log is known by the ids that Inspect gave it, so that ``.eval`` and ``.json`` of one evaluation are one run.

    Args:
        db: where it is stored.
        paths: the files.
        workspace: slug or id; None takes the context's, then the one given to ``connect``.
        dry_run: whether nothing is stored, and the report says what would be.
        on_progress: is told after each batch.

    Raises:
        MalformedFileError: a file cannot be read. What was stored of the files before it stays.
        MissingDependencyError: a log has members compressed with Zstandard, and the extra ``importers`` is not installed.
        NotFoundError: there is no such workspace.
    """
    sources = [_inspect.source(Path(path)) for path in paths]
    return import_files(db, sources, workspace=workspace, dry_run=dry_run, on_progress=on_progress)


adopt(globals())
