"""Freezing a definition in the transaction that makes the first reference to it."""

from typing import Final
from uuid import UUID

from sqlalchemy.orm import Session

from stemmadb.evaluation.entities import Definition
from stemmadb.query import sql

_HELD: Final = sql(
    Definition,
    """
    SELECT {columns}
      FROM stemma.definitions
     WHERE definitions.workspace_id = :workspace_id AND definitions.id = :id
       FOR NO KEY UPDATE
    """,
)
_FROZEN: Final = sql(
    Definition,
    """
    UPDATE stemma.definitions
       SET frozen_at = now()
     WHERE definitions.workspace_id = :workspace_id AND definitions.id = :id AND definitions.frozen_at IS NULL
    RETURNING {columns}
    """,
)


def hold_frozen(session: Session, definition_id: UUID) -> Definition | None:
    """
    Return the definition, locked FOR NO KEY UPDATE until the transaction ends, and frozen; None when there is none.

    Until then nobody else makes a reference to it, edits it or deletes it. One statement, two for the first reference.
    """
    held = _HELD.write(session, id=definition_id)
    if held is None or held.frozen_at is not None:
        return held
    return _FROZEN.write(session, id=definition_id)


def freeze_once(session: Session, definition_id: UUID) -> None:
    """
    Freeze the definition for a reference that the caller inserts next, unless it is frozen: then nothing is locked.

    A definition that is frozen stays so, and the foreign key of the reference keeps it from being deleted. One statement; an unknown
    definition is the foreign key's to report.
    """
    _FROZEN.write(session, id=definition_id)
