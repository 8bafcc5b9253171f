"""Query functions that are not as query functions are."""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session
from tests.planted._hidden import hidden
from tests.planted.entities import PlantedParent, PlantedSeeded, PlantedTag

from stemmadb.errors import ConflictError, NotFoundError, StemmaError
from stemmadb.paging import Page
from stemmadb.query import query, sql, sql_rows

__all__ = [
    "bare",
    "closed",
    "find",
    "forgotten",
    "get",
    "get_or_none",
    "hidden",
    "iter_all",
    "Kept",
    "list_all",
    "misleading",
    "of_a_workspace",
    "other",
    "raising",
    "silent",
    "untold",
    "untyped",
]


class Kept:
    """Something that takes no session."""


class LostError(StemmaError):
    """Does not remember what it was made from."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")


class Oops(StemmaError):
    """Called after nothing."""


_STAR = sql_rows("SELECT * FROM stemma.planted_seeded WHERE text <> 'select *'")
_TABLE_STAR = "SELECT planted_seeded.* FROM stemma.planted_seeded"
_FINE = sql_rows("SELECT count(*), 2 * 3 FROM stemma.planted_seeded -- SELECT *")
_UNGUARDED = {
    "plain": sql_rows("SELECT name FROM stemma.planted_parents WHERE id = :id"),
}
_HALF_GUARDED = sql(
    PlantedParent,
    """
    SELECT {columns} FROM stemma.planted_parents WHERE workspace_id = :workspace_id
     UNION ALL
    SELECT {columns} FROM stemma.planted_parents WHERE name = 'workspace_id = :workspace_id'
    """,
)
_CORE = select(PlantedParent.__table__.c.name)
_ORM = select(PlantedParent)


def bare(session: Session) -> None:
    """Not decorated."""


@query
def untyped(session: Session, value) -> None:
    """A parameter without a type."""


@query
def closed(session: Session, json: dict[str, Any], anything: list[Any]) -> None:
    """A JSON object, and a list of anything."""


@query
def silent(session: Session) -> None: ...


@query
def raising(session: Session) -> None:
    """Raises, and names another error."""
    raise ConflictError("Note", ("name",))


raising.__doc__ = """
    Raise an error that is not told.

    Raises:
        NotFoundError: never.
    """


@query
def untold(session: Session) -> None:
    """Raise what another function makes, without a word."""
    raise _made()


def _made() -> StemmaError:
    return NotFoundError("Note", 1)


@query
def list_all(session: Session) -> list[PlantedSeeded]:
    """Everything at once."""
    return []


@query
def find(session: Session, note_id: str) -> PlantedSeeded:
    """Never None."""
    raise _made()


find.__doc__ = """
    Never None.

    Raises:
        NotFoundError: there is none.
    """


@query
def get(session: Session, note_id: str) -> PlantedSeeded:
    """Says nothing of what is not there."""
    return PlantedSeeded(text=note_id)


@query
def get_or_none(session: Session, note_id: str) -> PlantedSeeded | None:
    """May return None."""
    return None


@query
def of_a_workspace(session: Session) -> Page[PlantedParent]:
    """Rows of a workspace, without asking for one."""
    return Page([])


@query
def iter_all(session: Session) -> Iterator[PlantedTag]:
    """Yield nothing."""
    yield from ()


@query
def misleading(session: Session) -> None:
    """Has another function's twin."""


@query
def other(session: Session, *, limit: int = 1) -> None:
    """Has a twin with other parameters."""


@query
def forgotten(session: Session) -> None:
    """Has no twin."""
