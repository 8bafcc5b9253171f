"""Many rows of a repository: all at once, or streamed. One whose documents cannot be read costs itself at most."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import Select
from sqlalchemy.orm import Session

from stemmadb.documents import OnInvalid, keep_unreadable, resolve_unreadable
from stemmadb.documents._unreadable import check_on_invalid
from stemmadb.query import translated


def fetch(session: Session, statement: Select[Any], values: Mapping[str, Any], on_invalid: OnInvalid) -> list[Any]:
    """Return the entities of a statement."""
    check_on_invalid(on_invalid)
    with keep_unreadable():
        found = session.scalars(statement, values).all()
    return resolve_unreadable(found, on_invalid)


def stream(session: Session, statement: Select[Any], batch: int, on_invalid: OnInvalid) -> Iterator[Any]:
    """Yield the entities of a statement, so many at a time from the server."""
    with translated(), contextlib.closing(session.scalars(statement.execution_options(yield_per=batch))) as rows:
        while True:
            # Entities are made in here, and nothing is yielded with the documents kept.
            with keep_unreadable():
                found = rows.fetchmany(batch)
            if not found:
                return
            yield from resolve_unreadable(found, on_invalid)
