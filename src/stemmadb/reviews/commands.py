"""The commands of the pack ``reviews``."""

from datetime import timedelta
from typing import Annotated, Final

import typer

from stemmadb._console import AsJson, Url, open_database, output
from stemmadb.reviews import reviews

reviews_app: Final = typer.Typer(no_args_is_help=True, help="Reviews of books.")

Hours = Annotated[float, typer.Option("--older-than-h", min=0, help="What is older, in hours.")]
_BATCH = 10_000


def register(app: typer.Typer) -> None:
    """Add the group ``reviews``."""
    app.add_typer(reviews_app, name="reviews")


# A group of one command would lose its name.
@reviews_app.callback()
def _group() -> None:
    pass


@reviews_app.command("prune")
def prune(older_than_h: Hours = 24, url: Url = None, as_json: AsJson = False) -> None:
    """Remove what only old walks through the most liked reviews need."""
    removed = 0
    with open_database(url) as db:
        while True:
            count = db.run(reviews.prune_places, older_than=timedelta(hours=older_than_h), batch=_BATCH)
            removed += count
            if count < _BATCH:
                break
    output({"removed": removed}, as_json, lambda: print(f"removed {removed}"))
