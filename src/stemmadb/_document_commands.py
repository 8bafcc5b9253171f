"""The commands ``stemmadb documents``: at which versions documents are stored, bringing them up to date, their JSON Schemas."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from stemmadb import documents
from stemmadb._console import AsJson, Url, err, open_database, output
from stemmadb._rewrites import MAX_BATCH
from stemmadb.database import Database
from stemmadb.documents import ColumnCensus, UpgradeReport
from stemmadb.documents._registered import document_called

group = typer.Typer(no_args_is_help=True, help="Versioned documents as they are stored.")


@group.command()
def status(
    column: Annotated[str | None, typer.Argument(help="transcripts.metrics; default: every column", show_default=False)] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Count the rows of each document column by their version, over all workspaces."""
    with open_database(url) as db:
        found = documents.census(db, column)

    def show() -> None:
        table = Table("column", "document", "rows by version", "old", "newer", "malformed", "without")
        for row in found:
            versions = ", ".join(f"{version}: {count}" for version, count in row.versions.items())
            counts = (str(count or "") for count in (row.old, row.newer, row.malformed, row.without))
            table.add_row(row.column, f"{row.document} {_versions(row)}", versions, *counts)
        Console().print(table)

    output([{**asdict(row), "old": row.old, "newer": row.newer} for row in found], as_json, show)


def _versions(row: ColumnCensus) -> str:
    return str(row.newest_version) if row.write_version == row.newest_version else f"{row.newest_version}, written at {row.write_version}"


@group.command()
def upgrade(
    column: Annotated[str, typer.Argument(help="transcripts.metrics")],
    url: Url = None,
    batch: Annotated[int, typer.Option("--batch", min=1, max=MAX_BATCH, help="Rows in a transaction.")] = 500,
    rate: Annotated[float | None, typer.Option("--rate", help="Rows per second at most.", show_default=False)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only read, and say what would be written.")] = False,
    as_json: AsJson = False,
) -> None:
    """
    Rewrite stored documents of old versions. It may be stopped at any time, and run again.

    Nothing has to be rewritten: old documents are read as the newest. Exit code 1 when rows are left that others held.
    """
    with open_database(url) as db:
        try:
            with _bar(db, column) as progress:
                report = documents.upgrade(db, column, batch=batch, rate=rate, dry_run=dry_run, progress=progress)
        except KeyboardInterrupt:
            err("stopped: what was upgraded stays; run the command again to go on")
            raise typer.Exit(130) from None
    output(asdict(report), as_json, lambda: typer.echo(_said(report)))
    if report.left:
        raise typer.Exit(1)


@contextmanager
def _bar(db: Database, column: str) -> Iterator[Callable[[UpgradeReport], object] | None]:
    """Show how far an upgrade is, where somebody is looking."""
    if not sys.stderr.isatty():
        yield None
        return
    (before,) = documents.census(db, column)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(column, total=before.old)
        yield lambda report: bar.update(task, completed=report.upgraded + report.corrupt)


def _said(report: UpgradeReport) -> str:
    done = "would upgrade" if report.dry_run else "upgraded"
    parts = [f"{done} {report.upgraded} rows of {report.column} to version {report.version}"]
    if report.corrupt:
        parts.append(f"{report.corrupt} cannot be read and stay as they are")
    if report.newer:
        parts.append(f"{report.newer} are of a newer release and stay as they are")
    if report.left:
        parts.append(f"{report.left} are still old, because others held them: run it again")
    return "; ".join(parts)


@group.command()
def schema(document: Annotated[str | None, typer.Argument(help="DefinitionContent; default: all", show_default=False)] = None) -> None:
    """Print the JSON Schema of a document; without a name, an object with those of all. Needs no database."""
    if document is not None:
        found: object = documents.json_schema(document_called(document))
    else:
        found = {name: documents.json_schema(kind) for name, kind in documents.registered_documents().items()}
    typer.echo(json.dumps(found, indent=2))
