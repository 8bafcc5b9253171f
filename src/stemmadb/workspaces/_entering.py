"""Statements under the policies of a workspace, in a session that has another one or none."""

import contextlib
from collections.abc import Iterator
from typing import Final
from uuid import UUID

from sqlalchemy.orm import Session

from stemmadb.query import sql_rows
from stemmadb.tenancy import connection_of

_SETTING: Final = sql_rows("SELECT pg_catalog.current_setting('stemma.workspace_id', true)")


@contextlib.contextmanager
def entered(session: Session, workspace_id: UUID) -> Iterator[None]:
    """
    Let SQL constants inside reach the rows of a workspace; afterwards the transaction's own setting is back.

    Inside is a savepoint: what fails there is undone, the setting with it, and the transaction stays usable.
    """
    before = _SETTING.scalar(session) or ""
    # What the session still holds back is flushed by this, under its own workspace.
    with session.begin_nested():
        # The new id is a UUID object and the old setting was a UUID or empty: neither can hold a quote.
        _set(session, str(workspace_id))
        yield
        _set(session, str(UUID(before)) if before else "")


def _set(session: Session, value: str) -> None:
    connection_of(session).exec_driver_sql(f"SET LOCAL stemma.workspace_id = '{value}'")
