"""What every command shares: how it opens a database, says things, and fails."""

import json
import sys
from collections.abc import Callable
from types import EllipsisType
from typing import Annotated, Any, NoReturn

import typer

from stemmadb.database import Database
from stemmadb.errors import ConfigurationError, StemmaError
from stemmadb.settings import load_settings

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Url = Annotated[str | None, typer.Option("--database-url", help="Default: DATABASE_URL, else the embedded server.", show_default=False)]
WorkspaceOption = Annotated[
    str | None, typer.Option("--workspace", "-w", help="Slug or id. Default: STEMMADB_WORKSPACE.", show_default=False)
]


def open_database(url: str | None = None, workspace: str | EllipsisType | None = ..., *, migrate: bool = True) -> Database:
    """
    Open the database of a command: the one named, else DATABASE_URL, else the embedded server.

    Args:
        url: what the command was given.
        workspace: slug or id; None is STEMMADB_WORKSPACE. Left out by commands that need none: their tables belong to no workspace, and
            the one of the environment need not exist yet.
        migrate: whether the embedded server is migrated first; False for the commands that migrate.
    """
    from stemmadb import _entry

    if not migrate:
        return _entry.connect_unmigrated(url)
    db = _entry.connect(url, workspace=None if isinstance(workspace, EllipsisType) else workspace)
    if isinstance(workspace, EllipsisType):
        db.workspace = None
    return db


def output(value: Any, as_json: bool, show: Callable[[], object]) -> None:
    """Print a result: as JSON when asked for, else as people read it."""
    if as_json:
        print(json.dumps(value, default=str, indent=2))
    else:
        show()


def err(message: str) -> None:
    """Say something that is no result: on stderr."""
    print(f"stemmadb: {message}", file=sys.stderr)


def fail_for(error: StemmaError) -> NoReturn:
    """Leave with one line that says what to do, and exit code 1."""
    err(" ".join(str(error).split()))
    sys.exit(1)


def refuse_in_production(yes: bool, what: str) -> None:
    """
    Ask before something is destroyed.

    Raises:
        ConfigurationError: STEMMADB_ENV is production; or nobody can be asked and --yes was not given.
    """
    if load_settings().environment == "production":
        raise ConfigurationError(f"STEMMADB_ENV is production: stemmadb does not {what} there")
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigurationError(f"this would {what}: add --yes to do it without being asked")
    if not typer.confirm(f"This will {what}. Go on?"):
        raise typer.Abort
