"""The commands ``stemmadb runs``."""

from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console

from stemmadb._console import AsJson, Url, WorkspaceOption, Yes, open_database, output, refuse_in_production
from stemmadb.evaluation import purging
from stemmadb.evaluation.purging import PurgeReport

group = typer.Typer(no_args_is_help=True, help="Runs.")

Batch = Annotated[int, typer.Option("--batch", min=1, max=10_000, help="Rows in a transaction.")]


@group.command()
def purge(
    run_id: Annotated[str, typer.Argument(metavar="ID", show_default=False)],
    workspace: WorkspaceOption = None,
    batch: Batch = 2000,
    url: Url = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Remove a run of any size for good, in short transactions. May be interrupted, and called again."""
    refuse_in_production(yes, f"remove the run {run_id} for good, with its transcripts")
    # Progress is no result: it goes to stderr, and to a terminal only.
    with open_database(url, workspace) as db, Console(stderr=True).status("waiting for its workers") as status:
        report = purging.purge_run(db, run_id, batch=batch, on_progress=lambda told: status.update(_said(told)))
    output(asdict(report), as_json, lambda: typer.echo(f"removed {_said(report)}"))


def _said(report: PurgeReport) -> str:
    return f"{report.slots:,} slots and {report.transcripts:,} transcripts"
