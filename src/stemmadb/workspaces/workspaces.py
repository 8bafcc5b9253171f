"""Workspaces: the tenants. These functions need no workspace themselves."""

import contextlib
import logging
import secrets
from collections.abc import Iterator
from typing import Final
from uuid import UUID

from sqlalchemy import bindparam, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from stemmadb._exports import adopt
from stemmadb._workspace_ids import forget_at_commit
from stemmadb.data import checked_text
from stemmadb.documents import OnInvalid, dump_json
from stemmadb.entity import Id, parse_id, parse_reference
from stemmadb.errors import ConflictError, NotFoundError, ReferenceNotFoundError
from stemmadb.paging import Page, page
from stemmadb.query import query, read, sql, sql_rows
from stemmadb.tenancy import connection_of
from stemmadb.workspaces._changes import purge, restore, soft_delete, transfer_ownership, update
from stemmadb.workspaces._entering import entered
from stemmadb.workspaces._slugs import checked_slug, is_slug, slug_of
from stemmadb.workspaces.data import WorkspaceUpdate, WorkspaceWithRole
from stemmadb.workspaces.documents import WorkspaceSettings
from stemmadb.workspaces.entities import Workspace, WorkspaceMember
from stemmadb.workspaces.vocabularies import WorkspaceRole

__all__ = [
    "WorkspaceUpdate",
    "WorkspaceWithRole",
    "create",
    "get",
    "find",
    "get_by_slug",
    "find_by_slug",
    "list_all",
    "list_for_user",
    "update",
    "transfer_ownership",
    "soft_delete",
    "restore",
    "purge",
]

logger: Final = logging.getLogger(__name__)

_TRIES = 5

# Nothing happens on a conflict: a slug made from the name gets another suffix, in a transaction that is still usable.
_INSERT = sql(
    Workspace,
    """
    INSERT INTO stemma.workspaces (id, owner_id, name, slug, description, settings)
    VALUES (:id, :owner_id, :name, :slug, :description, CAST(:settings AS jsonb))
    ON CONFLICT (slug) WHERE deleted_at IS NULL DO NOTHING
    RETURNING {columns}
    """,
)
_ADD_OWNER = sql_rows("INSERT INTO stemma.workspace_members (workspace_id, user_id, role) VALUES (:id, :owner_id, 'OWNER')")
_OWNER_EXISTS = sql_rows("SELECT 1 FROM stemma.users WHERE id = :id AND deleted_at IS NULL")


@query
def create(
    session: Session,
    owner_id: Id,
    name: str,
    *,
    slug: str | None = None,
    description: str | None = None,
    settings: WorkspaceSettings | None = None,
) -> Workspace:
    """
    Make a workspace, with its owner as its first member. The session's own workspace, if it has one, stays what it was.

    Args:
        session: the caller's session; needs no workspace.
        owner_id: a live user.
        name: what people call it.
        slug: lower-case letters, digits and hyphens; None makes one from the name, with a suffix where that is taken.
        description: what it is for.
        settings: None: the defaults.

    Raises:
        ConflictError: a live workspace has the slug that was given. The transaction stays usable.
        ReferenceNotFoundError: no live user has this id. The transaction stays usable.
        ValidationError: a malformed slug, or one that reads as a UUID; nothing was sent.
    """
    owner = parse_reference(owner_id, "owner_id")
    if slug is not None:
        checked_slug(slug)
    draft = Workspace(
        owner_id=owner,
        name=checked_text(name, "name"),
        slug=slug_of(name) if slug is None else slug,
        description=description,
        settings=WorkspaceSettings() if settings is None else settings,
    )
    if _OWNER_EXISTS.first(session, id=owner) is None:
        raise ReferenceNotFoundError("workspaces_owner_id_fkey", "owner_id")
    with session.begin_nested():
        workspace = _insert(session, draft, fixed=slug is not None)
        with entered(session, workspace.id):
            _ADD_OWNER.run(session, id=workspace.id, owner_id=owner)
    forget_at_commit(session)
    logger.info("workspace created: %s", workspace.slug, extra={"workspace_id": str(workspace.id)})
    return workspace


def _insert(session: Session, draft: Workspace, *, fixed: bool) -> Workspace:
    stem = draft.slug
    for attempt in range(1 if fixed else _TRIES):
        workspace = _INSERT.write(
            session,
            id=draft.id,
            owner_id=draft.owner_id,
            name=draft.name,
            slug=stem if attempt == 0 else f"{stem}-{secrets.token_hex(3)}",
            description=draft.description,
            settings=dump_json(draft.settings),
        )
        if workspace is not None:
            return workspace
    raise ConflictError("Workspace", ("slug",))


_BY_SLUG = select(Workspace).where(Workspace.slug == bindparam("slug"), Workspace.deleted_at.is_(None))


@query
def get(session: Session, workspace_id: Id, *, include_deleted: bool = False) -> Workspace:
    """
    Return a workspace by id.

    Raises:
        NotFoundError: no workspace has this id, or it is deleted and ``include_deleted`` is False.
    """
    workspace = _find(session, workspace_id)
    if workspace is None or (workspace.deleted_at is not None and not include_deleted):
        logger.warning("workspace not found", extra={"workspace_id": str(workspace_id)})
        raise NotFoundError("Workspace", workspace_id)
    return workspace


@query
def find(session: Session, workspace_id: Id) -> Workspace | None:
    """Return a live workspace by id, or None."""
    workspace = _find(session, workspace_id)
    return workspace if workspace is not None and workspace.deleted_at is None else None


def _find(session: Session, workspace_id: Id) -> Workspace | None:
    try:
        key = parse_id(workspace_id, "Workspace")
    except NotFoundError:
        return None
    logger.debug("reading workspace", extra={"workspace_id": str(key)})
    return read(session, Workspace, key)


@query
def get_by_slug(session: Session, slug: str) -> Workspace:
    """
    Return a live workspace by slug.

    Raises:
        NotFoundError: no live workspace has it.
    """
    workspace = find_by_slug(session, slug)
    if workspace is None:
        raise NotFoundError("Workspace", slug)
    return workspace


@query
def find_by_slug(session: Session, slug: str) -> Workspace | None:
    """Return a live workspace by slug, or None."""
    if not is_slug(slug):
        return None
    return session.scalars(_BY_SLUG, {"slug": slug}).one_or_none()


@query
def list_all(
    session: Session,
    *,
    include_deleted: bool = False,
    cursor: str | None = None,
    limit: int = 50,
    on_invalid: OnInvalid = "raise",
) -> Page[Workspace]:
    """
    Return workspaces, newest first, by (created_at, id).

    Args:
        session: the caller's session; needs no workspace.
        include_deleted: whether deleted workspaces are in the list.
        cursor: ``next_cursor`` of the page before; None starts at the first.
        limit: 1 to 200.
        on_invalid: what becomes of a workspace whose settings cannot be read: "raise" refuses the page, "skip" leaves it out (the page is
            shorter then), "raw" puts a RawDocument in their place.

    Raises:
        CorruptDocumentError, UnknownSchemaVersionError: settings cannot be read and on_invalid is "raise".
        InvalidCursorError: the cursor is not of this list.
    """
    statement = select(Workspace)
    if not include_deleted:
        statement = statement.where(Workspace.deleted_at.is_(None))
    return page(
        session, statement, order_by=[Workspace.created_at.desc(), Workspace.id.desc()], cursor=cursor, limit=limit, on_invalid=on_invalid
    )


@query
def list_for_user(
    session: Session, user_id: Id, *, cursor: str | None = None, limit: int = 50, on_invalid: OnInvalid = "raise"
) -> Page[WorkspaceWithRole]:
    """
    Return the live workspaces that a user is a member of, by name, then id. An unknown user has none.

    It crosses workspaces: for its one statement ``stemma.user_id`` is set, under which a policy shows that user's own memberships.

    Args:
        session: the caller's session; needs no workspace, and one does not narrow the list.
        user_id: whose memberships.
        cursor: ``next_cursor`` of the page before; None starts at the first.
        limit: 1 to 200.
        on_invalid: as for list_all.

    Raises:
        CorruptDocumentError, UnknownSchemaVersionError: settings cannot be read and on_invalid is "raise".
        InvalidCursorError: the cursor is not of this list.
    """
    member = parse_id(user_id, "User")
    membership = WorkspaceMember.__table__.c
    statement = (
        select(Workspace, membership.role)
        .join_from(Workspace, WorkspaceMember.__table__, membership.workspace_id == Workspace.id)
        .where(membership.user_id == member, Workspace.deleted_at.is_(None))
    )
    with _shown_to(session, member):
        found = page(session, statement, order_by=[Workspace.name, Workspace.id], cursor=cursor, limit=limit, on_invalid=on_invalid)
    items = [WorkspaceWithRole(row[0], WorkspaceRole(row[1])) for row in found.items]
    return Page(items=items, next_cursor=found.next_cursor, has_more=found.has_more, total=found.total)


@contextlib.contextmanager
def _shown_to(session: Session, member: UUID) -> Iterator[None]:
    """Let the policy of memberships show one user's inside the block, and nobody's afterwards, whatever happens in it."""
    connection = connection_of(session)
    connection.exec_driver_sql(f"SET LOCAL stemma.user_id = '{member}'")
    try:
        yield
    except BaseException:
        # In a transaction that failed nothing can be set, nor read.
        with contextlib.suppress(SQLAlchemyError):
            connection.exec_driver_sql("SET LOCAL stemma.user_id = ''")
        raise
    connection.exec_driver_sql("SET LOCAL stemma.user_id = ''")


adopt(globals())
