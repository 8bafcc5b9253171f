"""What every command shares: how it opens a database, says things, and fails."""

import json
import sys
from collections.abc import Callable, Sequence
from types import EllipsisType
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table
from rich.text import Text

from stemmadb._display import printable
from stemmadb.database import Database
from stemmadb.errors import ConfigurationError, StemmaError
from stemmadb.paging import Page
from stemmadb.settings import load_settings

T = TypeVar("T")

_PAGE = 200

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Url = Annotated[str | None, typer.Option("--database-url", help="Default: DATABASE_URL, else the embedded server.", show_default=False)]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
Limit = Annotated[int, typer.Option("--limit", min=1, help="How many at most.")]
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


def show_table(rows: Sequence[dict[str, Any]], columns: dict[str, str]) -> None:
    """
    Draw rows as people read them. What is stored is shown as text, whatever it looks like to a terminal.

    Args:
        rows: as they are printed as JSON.
        columns: the keys that are shown, each with its heading.
    """
    table = Table(*columns.values())
    for row in rows:
        table.add_row(*(Text(printable("" if row[name] is None else str(row[name]))) for name in columns))
    Console().print(table)


def gathered(read_page: Callable[[str | None, int], Page[T]], limit: int) -> list[T]:
    """
    Return the first rows of a list, over as many pages as it takes, and say on stderr when there are more.

    Args:
        read_page: reads a page from a cursor, of a size.
        limit: how many rows at most.
    """
    found: list[T] = []
    cursor: str | None = None
    while True:
        page = read_page(cursor, min(limit - len(found), _PAGE))
        found += page.items
        cursor = page.next_cursor
        if cursor is None or not page.has_more:
            return found
        if len(found) >= limit:
            err(f"there are more than {limit}: raise --limit to see them")
            return found


def read_password(what: str) -> SecretStr:
    """
    Ask for a password twice at a terminal, else read the first line of stdin: it is never an argument, which others could see.

    Raises:
        ConfigurationError: nothing was typed or piped in.
    """
    if sys.stdin.isatty():
        typed = str(typer.prompt(what, hide_input=True, confirmation_prompt=True, err=True))
    else:
        typed = sys.stdin.readline().rstrip("\r\n")
    if not typed:
        raise ConfigurationError(f"{what.lower()}: nothing was given: type it at a terminal, or pipe it in on stdin")
    return SecretStr(typed)


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
