"""
Importers: what other tools stored of their evaluations, as definitions, scenarios, runs, transcripts and scores.

    report = importers.import_inspect(db, [Path("logs/2025-09-23_popularity.eval")], workspace="lab")
    print(report.count("transcripts"), report.changed)

Every evaluation of a file becomes one run. A file is read to its end and checked before anything of it is stored, and then
stored in batches, each in a transaction of its own: an import that was killed goes on where it stopped, and importing again
changes nothing. A file of any size takes the memory of its largest sample and of one batch.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final
from uuid import UUID

from stemmadb._exports import adopt
from stemmadb.database import Database
from stemmadb.evaluation.importers import _inspect, _lm_eval, _promptfoo, _table
from stemmadb.evaluation.importers._importing import import_files
from stemmadb.evaluation.importers._reports import ImportedLog, ImportProgress, ImportReport, OnProgress

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

log: Final = logging.getLogger("stemmadb.evaluation.importers")


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


def import_lm_eval(
    db: Database,
    paths: Sequence[Path],
    *,
    workspace: str | UUID | None = None,
    dry_run: bool = False,
    on_progress: OnProgress | None = None,
) -> ImportReport:
    """
    Import results of lm-evaluation-harness with their samples.

    A task becomes a definition and a run, a document of it a scenario, and the answer a transcript; the metrics of each filter are scores.
    What a model generated is the last turn; of a multiple choice, it is the continuation that the model held most likely.

    Args:
        db: where it is stored.
        paths: files ``results_<time>.json``, beside which are those of the samples; or files of samples, or folders that are searched.
        workspace: slug or id; None takes the context's, then the one given to ``connect``.
        dry_run: whether nothing is stored, and the report says what would be.
        on_progress: is told after each batch.

    Raises:
        MalformedFileError: a file cannot be read, or samples have no results beside them. What was stored of the files before it stays.
        NotFoundError: there is no such workspace.
    """
    sources = _lm_eval.sources([Path(path) for path in paths])
    return import_files(db, sources, workspace=workspace, dry_run=dry_run, on_progress=on_progress)


def import_promptfoo(
    db: Database,
    paths: Sequence[Path],
    *,
    workspace: str | UUID | None = None,
    dry_run: bool = False,
    on_progress: OnProgress | None = None,
) -> ImportReport:
    """
    Import exports of promptfoo, JSON and JSONL.

    An evaluation becomes a definition and a run, a test with a prompt a scenario, and the output of each provider a transcript. What
    promptfoo judged are scores: ``score``, ``pass``, and those that have names.

    Args:
        db: where it is stored.
        paths: the files; those that end in ``.jsonl`` have a result on each line, all others are one JSON value.
        workspace: slug or id; None takes the context's, then the one given to ``connect``.
        dry_run: whether nothing is stored, and the report says what would be.
        on_progress: is told after each batch.

    Raises:
        MalformedFileError: a file cannot be read. What was stored of the files before it stays.
        NotFoundError: there is no such workspace.
    """
    sources = [_promptfoo.source(Path(path)) for path in paths]
    return import_files(db, sources, workspace=workspace, dry_run=dry_run, on_progress=on_progress)


def import_table(
    db: Database,
    paths: Sequence[Path],
    mapping: Mapping[str, str],
    *,
    workspace: str | UUID | None = None,
    dry_run: bool = False,
    on_progress: OnProgress | None = None,
) -> ImportReport:
    """
    Import tables, JSONL and CSV, with a dialogue in each row. A file becomes a run.

    Without the field ``sample_index`` the rows of one question and model are numbered in the order of the file, which takes some 100 bytes
    of memory for each.

    Args:
        db: where it is stored.
        paths: the files; those that end in ``.csv`` or ``.tsv`` are such, all others are JSONL.
        mapping: what is in which column: ``{"prompt": "question", "model": "=openai:gpt-4o"}``. A column is a name, in JSONL also a
            JSON Pointer, or ``=TEXT`` for the same in every row. ``model`` is needed, and either ``prompt`` and ``response`` or
            ``messages``; the other fields are on the page of reference.
        workspace: slug or id; None takes the context's, then the one given to ``connect``.
        dry_run: whether nothing is stored, and the report says what would be.
        on_progress: is told after each batch.

    Raises:
        MalformedFileError: a file cannot be read. What was stored of the files before it stays.
        NotFoundError: there is no such workspace.
        ValidationError: the mapping names a field that there is not, or leaves out what is needed; no file was read.
    """
    sources = [_table.source(Path(path), mapping) for path in paths]
    return import_files(db, sources, workspace=workspace, dry_run=dry_run, on_progress=on_progress)


adopt(globals())
