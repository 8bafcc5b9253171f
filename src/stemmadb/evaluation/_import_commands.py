"""The commands ``stemmadb import``: what other tools stored of their evaluations."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from stemmadb._console import AsJson, Url, WorkspaceOption, open_database, output, show_table
from stemmadb.database import Database
from stemmadb.errors import ValidationError
from stemmadb.evaluation import importers
from stemmadb.evaluation.importers import ImportProgress, ImportReport, OnProgress

group = typer.Typer(no_args_is_help=True, help="Import evaluations that other tools stored.")

Files = Annotated[list[Path], typer.Argument(help="the files", exists=True, show_default=False)]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only read, and say what would be stored.")]

_COLUMNS = {
    "file": "file",
    "name": "run",
    "status": "status",
    "scenarios": "scenarios",
    "transcripts": "transcripts",
    "scores": "scores",
    "present": "there already",
    "differing": "of these, other",
}


@group.command()
def inspect(files: Files, workspace: WorkspaceOption = None, dry_run: DryRun = False, url: Url = None, as_json: AsJson = False) -> None:
    """Import logs of Inspect AI, .eval and .json."""
    _import(lambda db, told: importers.import_inspect(db, files, dry_run=dry_run, on_progress=told), workspace, url, as_json)


@group.command("lm-eval")
def lm_eval(files: Files, workspace: WorkspaceOption = None, dry_run: DryRun = False, url: Url = None, as_json: AsJson = False) -> None:
    """Import results of lm-evaluation-harness, with the samples beside them."""
    _import(lambda db, told: importers.import_lm_eval(db, files, dry_run=dry_run, on_progress=told), workspace, url, as_json)


@group.command()
def promptfoo(files: Files, workspace: WorkspaceOption = None, dry_run: DryRun = False, url: Url = None, as_json: AsJson = False) -> None:
    """Import exports of promptfoo, .json and .jsonl."""
    _import(lambda db, told: importers.import_promptfoo(db, files, dry_run=dry_run, on_progress=told), workspace, url, as_json)


@group.command()
def jsonl(
    files: Files,
    mapping: Annotated[list[str], typer.Option("--mapping", "-m", help="FIELD=COLUMN, or FIELD==TEXT; once for each.", show_default=False)],
    workspace: WorkspaceOption = None,
    dry_run: DryRun = False,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Import tables, JSONL, .csv and .tsv, with a dialogue in each row."""
    columns = dict(_pair(each) for each in mapping)
    _import(lambda db, told: importers.import_table(db, files, columns, dry_run=dry_run, on_progress=told), workspace, url, as_json)


def _pair(given: str) -> tuple[str, str]:
    field, equals, column = given.partition("=")
    if not equals:
        raise ValidationError(f"--mapping {given}: write FIELD=COLUMN, or FIELD==TEXT for the same in every row", "mapping")
    return field, column


def _import(work: Callable[[Database, OnProgress], ImportReport], workspace: str | None, url: str | None, as_json: bool) -> None:
    with open_database(url, workspace) as db, _bar() as told:
        report = work(db, told)
    rows = [asdict(log) for log in report.logs]
    output({"dry_run": report.dry_run, "changed": report.changed, "logs": rows}, as_json, lambda: _show(report, rows))


def _show(report: ImportReport, rows: list[dict[str, Any]]) -> None:
    show_table([{**row, "file": Path(row["file"]).name} for row in rows], _COLUMNS)
    if not report.changed:
        typer.echo("all of it was there already, and nothing was changed")
    elif report.dry_run:
        typer.echo("nothing was stored: this is what would be")


@contextmanager
def _bar() -> Iterator[OnProgress]:
    """Draw how far an import is, on a terminal only: stdout is for results."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("reading", total=None)

        def told(progress: ImportProgress) -> None:
            description = f"{progress.phase} {Path(progress.file).name}"
            bar.update(task, description=description, completed=progress.done, total=progress.total)

        yield told
