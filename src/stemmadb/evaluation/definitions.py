"""
Definitions and their versions.

    parent = definitions.create(session, DefinitionCreate(name="Trolley", content=content))
    child = definitions.fork(session, parent.id, DefinitionFork(message="shorter preamble"))
    definitions.ancestors(session, child.id)                    # [parent]

A definition can be edited until a child, a scenario or a run refers to it; from then on it is frozen, and a change is a fork.
"""

from typing import Any

from sqlalchemy import SQLColumnExpression, select
from sqlalchemy.orm import Session

from stemmadb._exports import adopt
from stemmadb.documents._dump import stored_forms
from stemmadb.entity import Id, parse_id
from stemmadb.errors import DocumentError, NotFoundError
from stemmadb.evaluation._changes import bisect, blame, diff, merge
from stemmadb.evaluation._definition_rows import key_of, log, missing, read_definition
from stemmadb.evaluation._definition_search import search
from stemmadb.evaluation._edits import delete, freeze, update
from stemmadb.evaluation._filtering import definition_conditions
from stemmadb.evaluation._forks import create, fork
from stemmadb.evaluation._labels import delete_label, find_by_label, get_by_label, list_labels, move_label, protect_label, set_label
from stemmadb.evaluation._lineage import ancestors, depth, descendants, is_ancestor, lineage, merge_base, root, siblings, tree
from stemmadb.evaluation._patches import Change, ContentDiff
from stemmadb.evaluation.data import (
    ABSENT,
    Absent,
    BlameEntry,
    DefinitionCreate,
    DefinitionFilters,
    DefinitionFork,
    DefinitionTreeNode,
    DefinitionUpdate,
    DefinitionWithContent,
    MergeConflict,
    MergeResult,
)
from stemmadb.evaluation.documents import DefinitionContent
from stemmadb.evaluation.entities import Definition
from stemmadb.paging import Page, page
from stemmadb.query import sql, tenant_query

__all__ = [
    "create",
    "fork",
    "get",
    "find",
    "get_by_label",
    "find_by_label",
    "find_by_content",
    "get_with_content",
    "list_all",
    "list_children",
    "search",
    "update",
    "freeze",
    "delete",
    "ancestors",
    "descendants",
    "tree",
    "root",
    "depth",
    "siblings",
    "is_ancestor",
    "merge_base",
    "lineage",
    "diff",
    "blame",
    "merge",
    "bisect",
    "set_label",
    "move_label",
    "protect_label",
    "delete_label",
    "list_labels",
    "DefinitionCreate",
    "DefinitionFork",
    "DefinitionUpdate",
    "DefinitionFilters",
    "DefinitionTreeNode",
    "DefinitionWithContent",
    "ContentDiff",
    "Change",
    "BlameEntry",
    "MergeResult",
    "MergeConflict",
    "Absent",
    "ABSENT",
]


@tenant_query
def get(session: Session, definition_id: Id) -> Definition:
    """
    Return a definition by id, without its content. One statement.

    Raises:
        NotFoundError: no definition of this workspace has this id.
    """
    found = read_definition(session, key_of(definition_id))
    if found is None:
        raise missing(definition_id)
    return found


@tenant_query
def find(session: Session, definition_id: Id) -> Definition | None:
    """Return a definition by id, without its content, or None; a malformed id is nobody's."""
    try:
        key = parse_id(definition_id, "Definition")
    except NotFoundError:
        return None
    return read_definition(session, key)


_BY_CONTENT = sql(
    Definition,
    """
    SELECT {columns}
      FROM stemma.definitions
     WHERE definitions.workspace_id = :workspace_id
       AND definitions.content_hash = ANY(ARRAY(
           SELECT stemma.stemma_document_hash(CAST(form.content AS jsonb)) FROM unnest(CAST(:forms AS text[])) AS form (content)))
     ORDER BY definitions.created_at, definitions.id
    """,
)


@tenant_query
def find_by_content(session: Session, content: DefinitionContent) -> list[Definition]:
    """
    Return the definitions that say exactly this, oldest first.

    One statement over an index of hashes. They are hashes of what is stored, so the content is looked for in every form in which a release
    stores it: at the newest schema version and at those to which steps lead down. What raw SQL stored in another form, without a key for
    example, is another content.
    """
    log.debug("reading definitions by content")
    return _BY_CONTENT.all(session, forms=stored_forms(content))


_WITH_CONTENT = sql(
    Definition,
    """
    SELECT {columns}
      FROM stemma.definitions
     WHERE definitions.workspace_id = :workspace_id AND definitions.id = :id
    """,
    undefer=["content"],
)


@tenant_query
def get_with_content(session: Session, definition_id: Id) -> DefinitionWithContent:
    """
    Return a definition with its content in the newest shape. One statement. The stored row stays as it is, whatever its version.

    Raises:
        CorruptDocumentError, UnknownSchemaVersionError: the content cannot be read; the error names the definition.
        NotFoundError: no definition of this workspace has this id.
    """
    key = key_of(definition_id)
    log.debug("reading definition %s with content", key)
    try:
        definition = _WITH_CONTENT.write(session, id=key)
    except DocumentError as error:
        raise error.located("definitions", "content", key) from None
    if definition is None:
        raise missing(definition_id)
    return DefinitionWithContent(definition, definition.content, definition.content_version or 0)


_ALL = select(Definition)
_NEWEST: list[SQLColumnExpression[Any]] = [Definition.created_at.desc(), Definition.id.desc()]


@tenant_query
def list_all(
    session: Session,
    filters: DefinitionFilters | None = None,
    *,
    cursor: str | None = None,
    limit: int = 50,
    with_total: bool = False,
) -> Page[Definition]:
    """
    Return the definitions, newest first, without their contents.

    Args:
        session: the caller's session, in a workspace.
        filters: which ones; None: all.
        cursor: ``next_cursor`` of the page before; None starts at the newest.
        limit: 1 to 200.
        with_total: also count all pages.

    Raises:
        InvalidCursorError: the cursor is not of this list with these filters.
    """
    log.debug("reading definitions")
    statement = _ALL if filters is None else _ALL.where(*definition_conditions(filters))
    return page(session, statement, order_by=_NEWEST, cursor=cursor, limit=limit, with_total=with_total)


@tenant_query
def list_children(session: Session, definition_id: Id, *, cursor: str | None = None, limit: int = 50) -> Page[Definition]:
    """
    Return the versions forked from this one, oldest first, without their contents.

    Args:
        session: the caller's session, in a workspace.
        definition_id: their parent.
        cursor: ``next_cursor`` of the page before; None starts at the oldest.
        limit: 1 to 200.

    Raises:
        InvalidCursorError: the cursor is not of this list.
        NotFoundError: no definition of this workspace has this id.
    """
    key = key_of(definition_id)
    log.debug("reading children of definition %s", key)
    statement = select(Definition).where(Definition.parent_id == key)
    found = page(session, statement, order_by=[Definition.created_at.asc(), Definition.id.asc()], cursor=cursor, limit=limit)
    if not found.items and cursor is None and read_definition(session, key) is None:
        raise missing(definition_id)
    return found


adopt(globals())
