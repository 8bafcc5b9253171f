"""
Rubrics: what judges look for, in versions that never change.

    rubric = rubrics.create_version(session, "care", RubricContent(values=(RubricValue(key="harm", label="Avoids harm"),)))
    assert rubrics.get_active(session, "care") is rubric

A change is a new version under the same name. Scores name the version that they were made by.
"""

import logging
from typing import Final
from uuid import UUID

from sqlalchemy import bindparam, select
from sqlalchemy import delete as delete_from
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value

from stemmadb.data import checked_text
from stemmadb.documents import dump_json
from stemmadb.entity import Id, parse_id, parse_reference, uuid7
from stemmadb.errors import ConflictError, DocumentError, NotFoundError, ValidationError
from stemmadb.evaluation.documents import RubricContent
from stemmadb.evaluation.entities import Rubric
from stemmadb.paging import Page, page
from stemmadb.query import read, sql, sql_rows, tenant_query

__all__ = [
    "create_version",
    "get",
    "find",
    "get_content",
    "get_active",
    "get_version",
    "list_versions",
    "list_all",
    "set_active",
    "delete",
]

log: Final = logging.getLogger(__name__)

_ROUNDS: Final = 10
"""How often a version is numbered anew that others have taken."""

# The latest version is compared by the hash that the database makes, so that equal content is one whoever wrote it.
_CREATE: Final = sql_rows(
    """
    WITH latest AS (
        SELECT rubrics.id, rubrics.version, rubrics.content_hash
          FROM stemma.rubrics
         WHERE rubrics.workspace_id = :workspace_id AND rubrics.name = :name
         ORDER BY rubrics.version DESC
         LIMIT 1
    ), added AS (
        INSERT INTO stemma.rubrics (workspace_id, id, name, version, content, is_active, created_by_id)
        SELECT :workspace_id, :id, :name, coalesce((SELECT latest.version FROM latest), 0) + 1, CAST(:content AS jsonb), :active,
               CAST(:created_by_id AS uuid)
         WHERE NOT EXISTS (
               SELECT FROM latest WHERE latest.content_hash = stemma.stemma_document_hash(CAST(:content AS jsonb)))
            ON CONFLICT (workspace_id, name, version) DO NOTHING
        RETURNING rubrics.id
    )
    SELECT added.id, true AS is_new FROM added
 UNION ALL
    SELECT latest.id, false
      FROM latest
     WHERE latest.content_hash = stemma.stemma_document_hash(CAST(:content AS jsonb))
    """
)


@tenant_query
def create_version(session: Session, name: str, content: RubricContent, *, active: bool = True, created_by_id: Id | None = None) -> Rubric:
    """
    Store the next version of a rubric; 1 is the first. Two statements, and one more for each version that others store meanwhile.

    Args:
        session: the caller's session, in a workspace.
        name: the rubric's; not blank.
        content: what it looks for. Equal to that of the latest version, nothing is stored.
        active: whether ``get_active`` finds the version. Of a version that was there it stays as it is.
        created_by_id: who wrote it.

    Returns:
        The new version, or the latest one when its content is equal.

    Raises:
        ConflictError: others stored a version each time that this one was numbered.
        ReferenceNotFoundError: there is no such user.
        ValidationError: the name is blank, or created_by_id is malformed.
    """
    if not checked_text(name, "name").strip():
        raise ValidationError("name must not be blank", "name")
    created_by = None if created_by_id is None else parse_reference(created_by_id, "created_by_id")
    values = {"id": uuid7(), "name": name, "content": dump_json(content), "active": active, "created_by_id": created_by}
    with session.begin_nested():
        for _ in range(_ROUNDS):
            row = _CREATE.first(session, **values)
            if row is not None:
                break
        else:
            raise ConflictError("Rubric", ("name", "version"))
        rubric = _get(session, row.id)
    if row.is_new:
        set_committed_value(rubric, "content", content)
        log.info("created version %d of rubric %r: %s", rubric.version, name, rubric.id)
    return rubric


@tenant_query
def get(session: Session, rubric_id: Id) -> Rubric:
    """
    Return a version of a rubric, without its content.

    Raises:
        NotFoundError: no rubric of this workspace has this id.
    """
    return _get(session, _key_of(rubric_id))


@tenant_query
def find(session: Session, rubric_id: Id) -> Rubric | None:
    """Return a version of a rubric, without its content, or None."""
    try:
        key = _key_of(rubric_id)
    except NotFoundError:
        return None
    return _find(session, key)


_CONTENT: Final = sql_rows(
    "SELECT CAST(rubrics.content AS text) FROM stemma.rubrics WHERE rubrics.workspace_id = :workspace_id AND rubrics.id = :id"
)


@tenant_query
def get_content(session: Session, rubric_id: Id) -> RubricContent:
    """
    Return what a version looks for, in the newest shape; the stored row is as it was.

    Raises:
        NotFoundError: no rubric of this workspace has this id.
        UnknownSchemaVersionError: a newer release wrote it.
        CorruptDocumentError: it is not what its version says.
    """
    key = _key_of(rubric_id)
    log.debug("reading the content of rubric %s", key)
    stored = _CONTENT.scalar(session, id=key)
    if stored is None:
        raise _missing(rubric_id)
    try:
        return RubricContent.load(stored)
    except DocumentError as error:
        raise error.located("rubrics", "content", key) from None


_ACTIVE: Final = sql(
    Rubric,
    """
    SELECT {columns}
      FROM stemma.rubrics
     WHERE rubrics.workspace_id = :workspace_id AND rubrics.name = :name AND rubrics.is_active
     ORDER BY rubrics.version DESC
     LIMIT 1
    """,
)


@tenant_query
def get_active(session: Session, name: str) -> Rubric:
    """
    Return the highest active version of a rubric, without its content.

    Raises:
        NotFoundError: the workspace has no active version under this name.
    """
    log.debug("reading the active version of rubric %r", name)
    rubric = _ACTIVE.write(session, name=checked_text(name, "name"))
    if rubric is None:
        raise _missing(name)
    return rubric


_VERSION: Final = sql(
    Rubric,
    """
    SELECT {columns}
      FROM stemma.rubrics
     WHERE rubrics.workspace_id = :workspace_id AND rubrics.name = :name AND rubrics.version = :version
    """,
)


@tenant_query
def get_version(session: Session, name: str, version: int) -> Rubric:
    """
    Return a version of a rubric by its number, active or not, without its content.

    Raises:
        NotFoundError: the workspace has no such version.
    """
    log.debug("reading version %s of rubric %r", version, name)
    known = not isinstance(version, bool) and isinstance(version, int) and 0 < version < 2**31
    rubric = _VERSION.write(session, name=checked_text(name, "name"), version=version) if known else None
    if rubric is None:
        raise _missing(f"{name} {version}")
    return rubric


@tenant_query
def list_versions(session: Session, name: str, *, cursor: str | None = None, limit: int = 50) -> Page[Rubric]:
    """
    Return a page of a rubric's versions, highest first, without their contents. An unknown name has none.

    Raises:
        InvalidCursorError: the cursor is not of this list.
    """
    log.debug("listing versions of rubric %r", name)
    wanted = select(Rubric).where(Rubric.name == checked_text(name, "name")).execution_options(populate_existing=True)
    return page(session, wanted, order_by=[Rubric.version.desc()], cursor=cursor, limit=limit)


@tenant_query
def list_all(session: Session, *, active_only: bool = True, cursor: str | None = None, limit: int = 50) -> Page[Rubric]:
    """
    Return a page of rubrics by name, of each the highest version first, without their contents.

    Args:
        session: the caller's session, in a workspace.
        active_only: leave out the versions that are not active.
        cursor: the ``next_cursor`` of the page before.
        limit: the most versions, 1 to 200.

    Raises:
        InvalidCursorError: the cursor is not of this list.
    """
    log.debug("listing rubrics")
    wanted = select(Rubric).execution_options(populate_existing=True)
    if active_only:
        wanted = wanted.where(Rubric.is_active.is_(True))
    return page(session, wanted, order_by=[Rubric.name.asc(), Rubric.version.desc()], cursor=cursor, limit=limit)


_SET_ACTIVE: Final = sql(
    Rubric,
    """
    UPDATE stemma.rubrics
       SET is_active = :active
     WHERE rubrics.workspace_id = :workspace_id AND rubrics.id = :id
    RETURNING {columns}
    """,
)


@tenant_query
def set_active(session: Session, rubric_id: Id, active: bool) -> Rubric:
    """
    Say whether ``get_active`` may find a version. Idempotent; other versions stay as they are. One statement.

    Raises:
        NotFoundError: no rubric of this workspace has this id.
    """
    key = _key_of(rubric_id)
    rubric = _SET_ACTIVE.write(session, id=key, active=bool(active))
    if rubric is None:
        raise _missing(rubric_id)
    return rubric


_DELETE: Final = delete_from(Rubric).where(Rubric.id == bindparam("id"))


@tenant_query
def delete(session: Session, rubric_id: Id) -> None:
    """
    Delete a version of a rubric. Its number is given again only if it was the highest.

    Raises:
        NotFoundError: no rubric of this workspace has this id.
        StillReferencedError: scores or analyses were made by it.
    """
    key = _key_of(rubric_id)
    with session.begin_nested():
        if not session.execute(_DELETE, {"id": key}).rowcount:  # type: ignore[attr-defined]
            raise _missing(rubric_id)
    log.info("deleted rubric %s", key)


def _key_of(rubric_id: Id) -> UUID:
    try:
        return parse_id(rubric_id, "Rubric")
    except NotFoundError:
        log.warning("rubric %r was not found: that is no id", rubric_id)
        raise


def _missing(rubric: Id) -> NotFoundError:
    log.warning("rubric %s was not found", rubric)
    return NotFoundError("Rubric", rubric)


def _find(session: Session, key: UUID) -> Rubric | None:
    log.debug("reading rubric %s", key)
    rubric = read(session, Rubric, key)
    if rubric is None:
        log.warning("rubric %s was not found", key)
    return rubric


def _get(session: Session, key: UUID) -> Rubric:
    rubric = _find(session, key)
    if rubric is None:
        raise NotFoundError("Rubric", key)
    return rubric
