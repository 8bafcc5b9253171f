"""
Labels: movable names of definitions, like branches. Import these functions from ``stemmadb.evaluation.definitions``.

A label does not freeze its definition, and keeps it from being deleted.
"""

import re
from typing import Any
from uuid import UUID

from sqlalchemy import Row, select
from sqlalchemy.orm import Session

from stemmadb.audit import actor_of
from stemmadb.entity import Id, parse_reference
from stemmadb.errors import ConflictError, LabelMovedError, NotFoundError, PermissionDeniedError, ValidationError
from stemmadb.evaluation._definition_rows import key_of, log, missing
from stemmadb.evaluation.entities import Definition, DefinitionLabel
from stemmadb.paging import Page, page
from stemmadb.query import sql, sql_rows, tenant_query

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")

_BY_LABEL = sql(
    Definition,
    """
    SELECT {columns}
      FROM stemma.definition_labels AS label
      JOIN stemma.definitions ON definitions.workspace_id = :workspace_id AND definitions.id = label.definition_id
     WHERE label.workspace_id = :workspace_id AND label.name = :label
    """,
)


@tenant_query
def get_by_label(session: Session, label: str) -> Definition:
    """
    Return the definition that a label points at.

    Raises:
        NotFoundError: this workspace has no such label.
    """
    found = find_by_label(session, label)
    if found is None:
        raise _no_label(label)
    return found


@tenant_query
def find_by_label(session: Session, label: str) -> Definition | None:
    """Return the definition that a label points at, or None."""
    log.debug("reading definition labelled %r", label)
    return _BY_LABEL.one_or_none(session, label=label) if _is_name(label) else None


# Nothing happens on a conflict or without the definition, rather than an error, so that the caller's transaction stays usable.
_SET_LABEL = sql(
    DefinitionLabel,
    """
    INSERT INTO stemma.definition_labels (workspace_id, name, definition_id, is_protected, description, moved_by_id)
    SELECT :workspace_id, :label, definitions.id, :is_protected, :description,
           (SELECT users.id FROM stemma.users WHERE users.id = CAST(:moved_by_id AS uuid))
      FROM stemma.definitions
     WHERE definitions.workspace_id = :workspace_id AND definitions.id = :definition_id
    ON CONFLICT (workspace_id, name) DO NOTHING
    RETURNING {columns}
    """,
)
_STATE = sql_rows(
    """
    SELECT label.definition_id, label.is_protected,
           EXISTS (SELECT FROM stemma.definitions WHERE workspace_id = :workspace_id AND id = :definition_id) AS definition_exists
      FROM (SELECT CAST(:label AS text) AS name) AS wanted
      LEFT JOIN stemma.definition_labels AS label ON label.workspace_id = :workspace_id AND label.name = wanted.name
    """
)


@tenant_query
def set_label(
    session: Session, label: str, definition_id: Id, *, protected: bool | None = None, description: str | None = None
) -> DefinitionLabel:
    """
    Make a label that points at a definition. One statement. ``moved_by_id`` is the session's actor (``stemmadb.audit``).

    Args:
        session: the caller's session, in a workspace.
        label: 1 to 200 ASCII letters, digits and ``._/-``; the first a letter or digit.
        definition_id: what it points at.
        protected: whether moving or deleting it takes ``force=True``; None: it does not.
        description: what it is for.

    Raises:
        ConflictError: the label exists: move it with ``move_label``.
        NotFoundError: no definition of this workspace has this id.
        ValidationError: not a name for a label; nothing was sent.
    """
    if not _is_name(label):
        raise ValidationError("a label has 1 to 200 ASCII letters, digits and ._/-, and begins with a letter or digit", "label")
    key = key_of(definition_id)
    values = {"is_protected": bool(protected), "description": description, "moved_by_id": _mover(session)}
    made = _SET_LABEL.write(session, label=label, definition_id=key, **values)
    if made is None:
        state = state_of(session, label, key)
        if not state.definition_exists:
            raise missing(definition_id)
        raise ConflictError("DefinitionLabel", ("name",), f"the label {label!r} exists: move it with move_label")
    log.info("label %r set at definition %s", label, key)
    return made


# Compare and swap: of two movers that expect the same definition, the second waits for the first and then finds another one.
_MOVE_LABEL = sql(
    DefinitionLabel,
    """
    UPDATE stemma.definition_labels
       SET definition_id = :definition_id, moved_at = now(),
           moved_by_id = (SELECT users.id FROM stemma.users WHERE users.id = CAST(:moved_by_id AS uuid))
     WHERE definition_labels.workspace_id = :workspace_id AND definition_labels.name = :label
       AND definition_labels.definition_id = coalesce(CAST(:expected_id AS uuid), definition_labels.definition_id)
       AND (:force OR NOT definition_labels.is_protected)
       AND EXISTS (SELECT FROM stemma.definitions WHERE workspace_id = :workspace_id AND id = :definition_id)
    RETURNING {columns}
    """,
)


@tenant_query
def move_label(
    session: Session, label: str, definition_id: Id, *, expected_definition_id: Id | None = None, force: bool = False
) -> DefinitionLabel:
    """
    Point a label at another definition.

    One guarded UPDATE; a second statement, when it met no row, tells why. Of two callers with the same expectation one wins.
    ``moved_by_id`` is the session's actor (``stemmadb.audit``), and the audit trail keeps every move.

    Args:
        session: the caller's session, in a workspace.
        label: its name.
        definition_id: what it shall point at.
        expected_definition_id: what the caller believes that it points at; None: whatever it is.
        force: also when the label is protected.

    Raises:
        LabelMovedError: it no longer points at the expected definition; ``actual`` is the one that it points at.
        NotFoundError: this workspace has no such label, or no definition with this id.
        PermissionDeniedError: it is protected, and ``force`` is False.
    """
    key = key_of(definition_id)
    expected = None if expected_definition_id is None else parse_reference(expected_definition_id, "expected_definition_id")
    moved = None
    if _is_name(label):
        guards = {"expected_id": expected, "force": force}
        moved = _MOVE_LABEL.write(session, label=label, definition_id=key, moved_by_id=_mover(session), **guards)
    if moved is None:
        state = state_of(session, label, key)
        if state.definition_id is None:
            raise _no_label(label)
        if not state.definition_exists:
            raise missing(definition_id)
        if state.is_protected and not force:
            raise protected(label, "move")
        raise LabelMovedError(state.definition_id, label)
    log.info("label %r moved to definition %s", label, key)
    return moved


_PROTECT_LABEL = sql(
    DefinitionLabel,
    """
    UPDATE stemma.definition_labels SET is_protected = :is_protected
     WHERE definition_labels.workspace_id = :workspace_id AND definition_labels.name = :label
    RETURNING {columns}
    """,
)


@tenant_query
def protect_label(session: Session, label: str, *, protected: bool = True) -> DefinitionLabel:
    """
    Say whether moving or deleting a label takes ``force=True``. One statement; idempotent.

    Args:
        session: the caller's session, in a workspace.
        label: its name.
        protected: False takes the protection away, which needs no force.

    Raises:
        NotFoundError: this workspace has no such label.
    """
    found = _PROTECT_LABEL.write(session, label=label, is_protected=protected) if _is_name(label) else None
    if found is None:
        raise _no_label(label)
    log.info("label %r is %s", label, "protected" if protected else "protected no more")
    return found


_DELETE_LABEL = sql(
    DefinitionLabel,
    """
    DELETE FROM stemma.definition_labels
     WHERE definition_labels.workspace_id = :workspace_id AND definition_labels.name = :label
       AND (:force OR NOT definition_labels.is_protected)
    RETURNING {columns}
    """,
)
_EXISTS = sql_rows("SELECT true FROM stemma.definition_labels WHERE workspace_id = :workspace_id AND name = :label")


@tenant_query
def delete_label(session: Session, label: str, *, force: bool = False) -> None:
    """
    Delete a label; its definition stays.

    Args:
        session: the caller's session, in a workspace.
        label: its name.
        force: also when the label is protected.

    Raises:
        NotFoundError: this workspace has no such label.
        PermissionDeniedError: it is protected, and ``force`` is False.
    """
    gone = _DELETE_LABEL.write(session, label=label, force=force) if _is_name(label) else None
    if gone is None:
        if _is_name(label) and _EXISTS.scalar(session, label=label):
            raise protected(label, "delete")
        raise _no_label(label)
    session.expunge(gone)
    log.info("label %r deleted", label)


@tenant_query
def list_labels(
    session: Session, *, definition_id: Id | None = None, prefix: str | None = None, cursor: str | None = None, limit: int = 50
) -> Page[DefinitionLabel]:
    """
    Return the labels, by name.

    Args:
        session: the caller's session, in a workspace.
        definition_id: only those that point at this definition.
        prefix: only those whose name begins so; letter case counts.
        cursor: ``next_cursor`` of the page before; None starts at the first.
        limit: 1 to 200.

    Raises:
        InvalidCursorError: the cursor is not of this list with these filters.
    """
    log.debug("reading labels of definition %s", definition_id)
    statement = select(DefinitionLabel)
    if definition_id is not None:
        statement = statement.where(DefinitionLabel.definition_id == parse_reference(definition_id, "definition_id"))
    if prefix is not None:
        statement = statement.where(DefinitionLabel.name.startswith(prefix, autoescape=True))
    return page(session, statement, order_by=[DefinitionLabel.name.asc()], cursor=cursor, limit=limit)


_OF_TREE = sql_rows(
    """
    SELECT label.definition_id, label.name
      FROM stemma.definitions
      JOIN stemma.definition_labels AS label ON label.workspace_id = :workspace_id AND label.definition_id = definitions.id
     WHERE definitions.workspace_id = :workspace_id AND definitions.root_id = :root_id
     ORDER BY label.name
    """
)


def labels_of_tree(session: Session, root_id: UUID) -> dict[UUID, list[str]]:
    """Return the names of the labels in a tree, by the definition that they point at."""
    found: dict[UUID, list[str]] = {}
    for row in _OF_TREE.all(session, root_id=root_id):
        found.setdefault(row.definition_id, []).append(row.name)
    return found


def state_of(session: Session, label: str, definition_id: UUID) -> Row[Any]:
    """Return what a label points at (None when there is no such label), whether it is protected, and whether the definition exists."""
    return _STATE.all(session, label=label if _is_name(label) else "", definition_id=definition_id)[0]


def _mover(session: Session) -> UUID | None:
    """Return who moves labels in the session: its actor."""
    acting = actor_of(session)
    return None if acting is None else acting.user_id


def _is_name(label: str) -> bool:
    return isinstance(label, str) and _NAME.fullmatch(label) is not None


def _no_label(label: str) -> NotFoundError:
    log.warning("label %r was not found", label)
    return NotFoundError("DefinitionLabel", label)


def protected(label: str, verb: str) -> PermissionDeniedError:
    """Return the error that says that a label is protected."""
    return PermissionDeniedError("labels.force", f"the label {label!r} is protected: {verb} it with force=True")
