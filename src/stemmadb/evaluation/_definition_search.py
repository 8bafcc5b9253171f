"""
Definitions by the words that they say. Import ``search`` from ``stemmadb.evaluation.definitions``.

Under row-level security ``@@`` is no condition of an index: PostgreSQL asks it row by row, behind the policy. The function
stemma_search_definitions runs as stemma_maintenance, which no policy of a workspace holds, and asks for the workspace itself.
"""

from typing import Any

from sqlalchemy import SQLColumnExpression, Uuid, column, func, select
from sqlalchemy.orm import Session

from stemmadb.data import checked_text
from stemmadb.errors import ValidationError
from stemmadb.evaluation._definition_rows import log
from stemmadb.evaluation.entities import Definition
from stemmadb.paging import Page, page
from stemmadb.query import tenant_query
from stemmadb.tenancy import workspace_of

_MOST_CHARACTERS = 1000
_NEWEST: list[SQLColumnExpression[Any]] = [Definition.created_at.desc(), Definition.id.desc()]


@tenant_query
def search(session: Session, query: str, *, cursor: str | None = None, limit: int = 50) -> Page[Definition]:
    """
    Return the definitions whose name, message, preamble or template has these words, newest first, without their contents.

    Words are compared as they are written, but for their case: none is reduced to its stem, none is left out. Of a preamble and of a
    template the first 50,000 characters count. One statement over an index, which costs what there is to find, in a workspace of any
    size (``tests/evaluation/test_definition_search.py``).

    Args:
        session: the caller's session, in a workspace.
        query: all of the words, in any order; ``"a phrase"``, ``or`` and ``-without`` as in web searches. A text without a word finds
            nothing. At most 1,000 characters.
        cursor: ``next_cursor`` of the page before; None starts at the newest.
        limit: 1 to 200.

    Raises:
        InvalidCursorError: the cursor is not of this list with this query.
        ValidationError: the query is no text, or too long; nothing was sent.
    """
    if len(checked_text(query, "query")) > _MOST_CHARACTERS:
        raise ValidationError(f"query takes at most {_MOST_CHARACTERS:,} characters", field="query")
    log.debug("searching definitions")
    found = func.stemma.stemma_search_definitions(workspace_of(session), query).table_valued(column("id", Uuid()), name="found")
    statement = select(Definition).where(Definition.id.in_(select(found.c.id)))
    return page(session, statement, order_by=_NEWEST, cursor=cursor, limit=limit)
