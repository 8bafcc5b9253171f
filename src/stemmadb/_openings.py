"""What a transaction is told as it begins, in one message."""

import functools
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args
from uuid import UUID

from stemmadb import audit
from stemmadb._deadlines import Deadline
from stemmadb.errors import ValidationError

Isolation = Literal["read committed", "repeatable read", "serializable"]

OPTION = "stemma"
"""The execution option of an engine that carries the Opening of its transactions."""


@dataclass(frozen=True)
class Opening:
    """What a transaction is told as it begins."""

    workspace_id: UUID | None = None
    isolation: Isolation | None = None
    read_only: bool = False
    role: str | None = None
    actor: str = ""
    """Who acts, as the setting has it; empty for nobody."""

    def __post_init__(self) -> None:
        if self.isolation is not None and self.isolation not in get_args(Isolation):
            message = f"isolation is one of {', '.join(get_args(Isolation))}, or None for the server's default"
            raise ValidationError(message, field="isolation")


def told(opening: Opening, workspace_id: UUID | None) -> Opening:
    """Return the opening of a session that is opened now: with its workspace, and with who acts in it."""
    return replace(opening, workspace_id=workspace_id, actor=audit.setting_of(audit.find_current_actor()))


def modes_of(opening: Opening) -> str:
    """Return the modes of the transaction as BEGIN and SET TRANSACTION take them; empty for the server's defaults."""
    isolation = f" ISOLATION LEVEL {opening.isolation.upper()}" if opening.isolation else ""
    return isolation + (" READ ONLY" if opening.read_only else "")


@functools.lru_cache(maxsize=4096)
def text_of(opening: Opening, *, switches_role: bool, begins: bool, level: str | None = None) -> str:
    """
    Return the message.

    Args:
        opening: what the session asked for.
        switches_role: whether the login is another one than stemma_app.
        begins: whether the message begins the transaction; else the driver does, and the modes are set in it.
        level: the isolation that the caller gave SQLAlchemy for this connection; it wins, as the nearest.
    """
    role = opening.role or ("stemma_app" if switches_role else None)
    modes = modes_of(replace(opening, isolation=None) if level else opening)
    parts = [
        f"BEGIN{modes}" if begins else f"SET TRANSACTION{modes}" if modes else "",
        f"SET LOCAL ROLE {role}" if role else "",
        "SET LOCAL search_path = stemma, public",
        "SET LOCAL timezone = 'UTC'",
        f"SET LOCAL stemma.workspace_id = '{opening.workspace_id}'" if opening.workspace_id else "",
        f"SET LOCAL stemma.actor = {audit.literal(opening.actor)}" if opening.actor else "",
    ]
    return "; ".join(filter(None, parts))


def timeout_of(timeout_ms: int, deadline: Deadline | None) -> str:
    """Return the end of the message: the statement timeout, of the settings (0: none) or until the deadline, whichever is less."""
    if deadline is not None:
        timeout_ms = min(timeout_ms or deadline.left_ms, deadline.left_ms)
    return f"; SET LOCAL statement_timeout = {timeout_ms}" if timeout_ms else ""


def send(connection: Any, text: str) -> None:
    """Send the message over a DBAPI connection of either kind."""
    # Several commands in one message cannot be prepared, and SQLAlchemy's cursor for async drivers does not take the argument.
    if hasattr(connection, "run_async"):
        connection.run_async(lambda driver: driver.execute(text, prepare=False))
    else:
        connection.execute(text, prepare=False)


def driver_of(connection: Any) -> Any:
    """Return psycopg's own connection of a DBAPI connection of either kind."""
    return getattr(connection, "driver_connection", None) or connection
