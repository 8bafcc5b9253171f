"""The commands ``stemmadb secrets``: which keys stored secrets are under, bringing them under the newest one, making a key."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from stemmadb import _ciphertexts, secrets
from stemmadb._console import AsJson, Url, err, open_database, output
from stemmadb._rewrites import MAX_BATCH
from stemmadb.database import Database
from stemmadb.secrets import RotationReport

group = typer.Typer(no_args_is_help=True, help="Secrets that are stored encrypted, and their keys.")

Chosen = Annotated[str | None, typer.Argument(help="users.two_factor_secret; default: every column", show_default=False)]


@group.command()
def status(column: Chosen = None, url: Url = None, as_json: AsJson = False) -> None:
    """Count stored secrets by the id of their key, over all workspaces. Decrypts nothing."""
    with open_database(url) as db:
        found = secrets.status(db, column)
    ring = _ciphertexts.key_names()

    def show() -> None:
        table = Table("column", "key", "rows", "")
        for row in found:
            for key, number in row.keys.items():
                table.add_row(row.column, key, str(number), _standing(key, ring))
            if row.malformed:
                table.add_row(row.column, "-", str(row.malformed), "no ciphertext")
            if not row.keys and not row.malformed:
                table.add_row(row.column, "-", "0", "")
        Console().print(table)

    output({"keys": ring, "columns": [asdict(row) for row in found]}, as_json, show)


def _standing(key: str, ring: list[str]) -> str:
    return "newest" if ring[:1] == [key] else "older" if key in ring else "not in STEMMADB_SECRET_KEYS"


@group.command()
def rotate(
    column: Chosen = None,
    url: Url = None,
    batch: Annotated[int, typer.Option("--batch", min=1, max=MAX_BATCH, help="Rows in a transaction.")] = 500,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only read, and say what would be written.")] = False,
    as_json: AsJson = False,
) -> None:
    """
    Encrypt stored secrets anew with the newest key. It may be stopped at any time, and run again.

    Exit code 1 when some are left: under a key that STEMMADB_SECRET_KEYS does not hold, unreadable, or held by others.
    """
    with open_database(url) as db:
        try:
            with _bar(db, column) as progress:
                reports = secrets.rotate(db, column, batch=batch, dry_run=dry_run, progress=progress)
        except KeyboardInterrupt:
            err("stopped: what was encrypted anew stays; run the command again to go on")
            raise typer.Exit(130) from None

    def show() -> None:
        for report in reports:
            typer.echo(_said(report))

    output([{**asdict(report), "complete": report.complete} for report in reports], as_json, show)
    if not all(report.complete for report in reports):
        raise typer.Exit(1)


@contextmanager
def _bar(db: Database, column: str | None) -> Iterator[Callable[[RotationReport], object] | None]:
    """Show how far a rotation is, where somebody is looking."""
    if not sys.stderr.isatty():
        yield None
        return
    older = set(_ciphertexts.key_names()[1:])
    totals = {row.column: sum(number for key, number in row.keys.items() if key in older) for row in secrets.status(db, column)}
    with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=Console(stderr=True), transient=True) as bar:
        tasks = {name: bar.add_task(name, total=total) for name, total in totals.items()}
        yield lambda report: bar.update(tasks[report.column], completed=report.rotated)


def _said(report: RotationReport) -> str:
    done = "would encrypt" if report.dry_run else "encrypted"
    parts = [f"{report.column}: {done} {report.rotated} with the key {report.key}"]
    parts += [f"{number} are under the key {key}, which is not known, and stay as they are" for key, number in report.unknown.items()]
    if report.unreadable:
        parts.append(f"{report.unreadable} cannot be opened and stay as they are")
    if report.left:
        parts.append(f"{report.left} are left, because others held them: run it again")
    return "; ".join(parts)


@group.command()
def generate(
    id: Annotated[
        str | None, typer.Option("--id", help="Default: k and the time of now; of a pepper a number.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print a new key for STEMMADB_SECRET_KEYS or STEMMADB_TOKEN_PEPPERS, this once. Needs no database."""
    made = secrets.generate_key(id)
    output({"id": made.partition(":")[0], "key": made}, as_json, lambda: typer.echo(made))
