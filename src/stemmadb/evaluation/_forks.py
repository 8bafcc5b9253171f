"""
How versions come into being. Import these functions from ``stemmadb.evaluation.definitions``.

A child holds its full content and never only what differs, so that no ancestor can change what it means; and its parent is frozen in the
same statement, so that the child is what the parent was.
"""

from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value

from stemmadb.documents import dump_json, write_version
from stemmadb.entity import Id, parse_reference, uuid7
from stemmadb.errors import ConflictError, LabelMovedError, ReferenceNotFoundError
from stemmadb.evaluation._definition_rows import key_of, log, missing, read_content
from stemmadb.evaluation._labels import move_label, protected, state_of
from stemmadb.evaluation.data import DefinitionCreate, DefinitionFork
from stemmadb.evaluation.documents import DefinitionContent
from stemmadb.evaluation.entities import Definition
from stemmadb.query import EntityStatement, sql, sql_rows, tenant_query

# Nothing happens when the id is taken, rather than an error, so that a refused call leaves the caller's transaction usable.
_INSERT_ROOT = sql(
    Definition,
    """
    INSERT INTO stemma.definitions (workspace_id, id, root_id, depth, name, content, message, created_by_id)
    VALUES (:workspace_id, :id, :id, 0, :name, :content, :message, :created_by_id)
    ON CONFLICT (workspace_id, id) DO NOTHING
    RETURNING {columns}
    """,
)


def _insert_child(label: str = "", join: str = "") -> EntityStatement[Definition]:
    # The lock comes first: after a wait for an editor it is his content that is copied, and from here on nobody edits. The parent's
    # content is copied inside the database if it has the version that would be written; else nothing happens, and it is read.
    return sql(
        Definition,
        f"""
        WITH parent AS MATERIALIZED (
            SELECT id, root_id, depth, name, content, content_version
              FROM stemma.definitions
             WHERE workspace_id = :workspace_id AND id = :parent_id
               FOR NO KEY UPDATE
        ){label}, child AS (
            INSERT INTO stemma.definitions (workspace_id, id, parent_id, root_id, depth, name, content, message, created_by_id)
            SELECT :workspace_id, :id, parent.id, parent.root_id, parent.depth + 1, coalesce(CAST(:name AS text), parent.name),
                   coalesce(CAST(:content AS jsonb), parent.content), CAST(:message AS text), CAST(:created_by_id AS uuid)
              FROM parent{join}
             WHERE CAST(:content AS jsonb) IS NOT NULL OR parent.content_version = :written_version
            ON CONFLICT (workspace_id, id) DO NOTHING
            RETURNING {{columns}}
        ), frozen AS (
            UPDATE stemma.definitions SET frozen_at = now()
              FROM child
             WHERE definitions.workspace_id = :workspace_id AND definitions.id = child.parent_id AND definitions.frozen_at IS NULL
            RETURNING {{columns}}
        )
        SELECT {{columns}} FROM child AS definitions
        UNION ALL
        SELECT {{columns}} FROM frozen AS definitions
        """,  # noqa: S608  (of constants only)
    )


_INSERT_CHILD = _insert_child()
_INSERT_LABELLED_CHILD = _insert_child(
    """, label AS MATERIALIZED (
            SELECT found.definition_id, found.is_protected
              FROM parent
              JOIN stemma.definition_labels AS found ON found.workspace_id = :workspace_id AND found.name = :label
               FOR NO KEY UPDATE OF found
        )""",
    " JOIN label ON label.definition_id = parent.id AND NOT label.is_protected",
)
_PARENT = sql_rows(
    """
    SELECT CAST(content AS text) AS content
      FROM stemma.definitions
     WHERE workspace_id = :workspace_id AND id = :parent_id
    """
)


@tenant_query
def create(session: Session, data: DefinitionCreate) -> Definition:
    """
    Make a definition: a root, or with ``parent_id`` a fork, whose parent is locked and frozen. One statement.

    Args:
        session: the caller's session, in a workspace.
        data: what it says.

    Returns:
        The new definition, with its content.

    Raises:
        ConflictError: the id given is taken. The transaction stays usable.
        ReferenceNotFoundError: no definition of this workspace has the id of the parent, or no user that of the author.
        ValidationError: the data is not acceptable; nothing was sent.
    """
    data = DefinitionCreate.of(data)
    values = {
        "id": data.id or uuid7(),
        "name": data.name,
        "content": dump_json(data.content),
        "message": data.message,
        "created_by_id": _reference(data.created_by_id, "created_by_id"),
    }
    if data.parent_id is None:
        made = _INSERT_ROOT.write(session, **values)
    else:
        parent_key = parse_reference(data.parent_id, "parent_id")
        made = _write_child(session, _INSERT_CHILD, parent_id=parent_key, **values)
        if made is None and _PARENT.first(session, parent_id=parent_key) is None:
            log.warning("definition %s was not found", parent_key)
            raise ReferenceNotFoundError("definitions_parent_id_fkey", "parent_id")
    if made is None:
        raise ConflictError("Definition", ("id",))
    set_committed_value(made, "content", data.content)
    log.info("definition %r created with id %s", made.name, made.id)
    return made


@tenant_query
def fork(session: Session, parent_id: Id, data: DefinitionFork | None = None) -> Definition:
    """
    Make a new version of a definition, which is frozen by it.

    The parent is locked (FOR NO KEY UPDATE) until the transaction ends. One statement; three when the parent's content is not of the
    schema version that is written, since it is then read and written in that one; one more to move a label.

    Args:
        session: the caller's session, in a workspace.
        parent_id: the version to fork.
        data: what differs from it; None: nothing does.

    Returns:
        The new version; with its content if that was given or had to be read.

    Raises:
        ConflictError: the id that was made for it is taken, which does not happen by chance.
        CorruptDocumentError, UnknownSchemaVersionError: the parent's content, which is to be taken over, cannot be read.
        LabelMovedError: the label to move does not point at the parent; ``actual`` is what it points at, None when there is no such label.
        NotFoundError: no definition of this workspace has this id. Nothing was written.
        PermissionDeniedError: the label is protected.
    """
    data = DefinitionFork() if data is None else DefinitionFork.of(data)
    parent_key = key_of(parent_id)
    log.debug("reading definition %s to fork it", parent_key)
    values = {
        "parent_id": parent_key,
        "id": uuid7(),
        "name": data.name,
        "message": data.message,
        "created_by_id": _reference(data.created_by_id, "created_by_id"),
        **({} if data.label is None else {"label": data.label}),
    }
    content = data.content
    statement = _INSERT_CHILD if data.label is None else _INSERT_LABELLED_CHILD
    child = _write_child(session, statement, content=None if content is None else dump_json(content), **values)
    if child is None:
        stored = _stored_unless_refused(session, parent_key, data.label)
        content = read_content(parent_key, stored) if content is None else content
        child = _write_child(session, statement, content=dump_json(content), **values)
    if child is None:
        raise ConflictError("Definition", ("id",))
    if content is not None:
        set_committed_value(child, "content", content)
    if data.label is not None:
        # Cannot fail: the label is locked, and was at the parent.
        move_label(session, data.label, child.id, expected_definition_id=parent_key)
    log.info("definition %s forked to %s", parent_key, child.id)
    return child


def _write_child(session: Session, statement: EntityStatement[Definition], **values: Any) -> Definition | None:
    """Return the child; its parent, if the session has it, is brought up to date."""
    written = statement.write_all(session, written_version=write_version(DefinitionContent), **values)
    return next((definition for definition in written if definition.id == values["id"]), None)


def _stored_unless_refused(session: Session, parent_key: UUID, label: str | None) -> str:
    """Say why a parent was not forked; or return its content when that is only of an old version. It is locked, so it is still the same."""
    parent = _PARENT.first(session, parent_id=parent_key)
    if parent is None:
        raise missing(parent_key)
    if label is not None:
        state = state_of(session, label, parent_key)
        if state.definition_id != parent_key:
            raise LabelMovedError(state.definition_id, label)
        if state.is_protected:
            raise protected(label, "move")
    return str(parent.content)


def _reference(value: Id | None, field: str) -> UUID | None:
    return None if value is None else parse_reference(value, field)
