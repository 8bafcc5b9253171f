"""Who belongs to the session's workspace, and as what. A workspace always keeps an owner."""

import logging
from typing import Final

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from stemmadb.accounts import _security_events
from stemmadb.data import checked_member
from stemmadb.entity import Id, parse_id, parse_reference, uuid7
from stemmadb.errors import ConflictError, LastOwnerError, NotFoundError
from stemmadb.paging import Page, page
from stemmadb.query import sql, sql_rows, tenant_query
from stemmadb.workspaces.entities import WorkspaceMember
from stemmadb.workspaces.vocabularies import WorkspaceRole

__all__ = ["WorkspaceRole", "add", "get", "find", "list_all", "change_role", "remove", "require_role"]

logger: Final = logging.getLogger(__name__)

_RANK = {WorkspaceRole.VIEWER: 0, WorkspaceRole.MEMBER: 1, WorkspaceRole.ADMIN: 2, WorkspaceRole.OWNER: 3}

_INSERT = sql(
    WorkspaceMember,
    """
    INSERT INTO stemma.workspace_members (workspace_id, id, user_id, role, invited_by_id)
    VALUES (:workspace_id, :id, :user_id, :role, :invited_by_id)
    ON CONFLICT (workspace_id, user_id) DO NOTHING
    RETURNING {columns}
    """,
)


@tenant_query
def add(session: Session, user_id: Id, role: WorkspaceRole = WorkspaceRole.MEMBER, *, invited_by_id: Id | None = None) -> WorkspaceMember:
    """
    Make a user a member. One statement.

    Raises:
        ConflictError: the user is a member already. The transaction stays usable.
        ReferenceNotFoundError: no such user.
    """
    member = _INSERT.write(
        session,
        id=uuid7(),
        user_id=parse_reference(user_id, "user_id"),
        role=checked_member(role, WorkspaceRole, "role").value,
        invited_by_id=None if invited_by_id is None else parse_reference(invited_by_id, "invited_by_id"),
    )
    if member is None:
        raise ConflictError("WorkspaceMember", ("user_id",))
    logger.info("member added", extra={"user_id": str(user_id), "role": member.role})
    return member


_BY_USER = select(WorkspaceMember).where(WorkspaceMember.user_id == bindparam("user_id"))


@tenant_query
def get(session: Session, user_id: Id) -> WorkspaceMember:
    """
    Return the membership of a user.

    Raises:
        NotFoundError: the user is not a member of this workspace.
    """
    member = find(session, user_id)
    if member is None:
        logger.warning("member not found", extra={"user_id": str(user_id)})
        raise NotFoundError("WorkspaceMember", user_id)
    return member


@tenant_query
def find(session: Session, user_id: Id) -> WorkspaceMember | None:
    """Return the membership of a user, or None."""
    try:
        key = parse_id(user_id, "WorkspaceMember")
    except NotFoundError:
        return None
    logger.debug("reading member", extra={"user_id": str(key)})
    return session.scalars(_BY_USER, {"user_id": key}).one_or_none()


@tenant_query
def list_all(session: Session, *, role: WorkspaceRole | None = None, cursor: str | None = None, limit: int = 50) -> Page[WorkspaceMember]:
    """
    Return the members, by joined_at, id.

    Args:
        session: the caller's session, in a workspace.
        role: only these; None: all.
        cursor: ``next_cursor`` of the page before; None starts at the first.
        limit: 1 to 200.

    Raises:
        InvalidCursorError: the cursor is not of this list.
    """
    statement = select(WorkspaceMember)
    if role is not None:
        statement = statement.where(WorkspaceMember.role == checked_member(role, WorkspaceRole, "role"))
    return page(session, statement, order_by=[WorkspaceMember.joined_at, WorkspaceMember.id], cursor=cursor, limit=limit)


# Every change of an owner takes this lock first, so that two owners cannot step down at once, each counting on the other.
_LOCK = sql_rows("SELECT 1 FROM stemma.workspaces WHERE id = :workspace_id FOR NO KEY UPDATE")
# Reads after the lock, on a snapshot of its own: under read committed it sees what the holder before did.
_OTHER_OWNERS = sql_rows(
    "SELECT count(*) FROM stemma.workspace_members WHERE workspace_id = :workspace_id AND role = 'OWNER' AND user_id <> :user_id"
)
_SET_ROLE = sql(
    WorkspaceMember,
    """
    UPDATE stemma.workspace_members SET role = :role
     WHERE workspace_id = :workspace_id AND user_id = :user_id
    RETURNING {columns}
    """,
)
_REMOVE = sql_rows("DELETE FROM stemma.workspace_members WHERE workspace_id = :workspace_id AND user_id = :user_id")


@tenant_query
def change_role(session: Session, user_id: Id, role: WorkspaceRole) -> WorkspaceMember:
    """
    Give a member another role. Locks the workspace row until the transaction ends.

    Raises:
        LastOwnerError: the workspace would be left without an owner.
        NotFoundError: the user is not a member of this workspace.
    """
    key, wanted = parse_id(user_id, "WorkspaceMember"), checked_member(role, WorkspaceRole, "role")
    _LOCK.run(session)
    if wanted != WorkspaceRole.OWNER:
        _require_other_owner(session, user_id)
    member = _SET_ROLE.write(session, user_id=key, role=wanted.value)
    if member is None:
        raise NotFoundError("WorkspaceMember", user_id)
    logger.info("role changed", extra={"user_id": str(key), "role": member.role})
    return member


@tenant_query
def remove(session: Session, user_id: Id) -> None:
    """
    End a membership. Locks the workspace row until the transaction ends.

    Raises:
        LastOwnerError: the workspace would be left without an owner.
        NotFoundError: the user is not a member of this workspace.
    """
    key = parse_id(user_id, "WorkspaceMember")
    _LOCK.run(session)
    _require_other_owner(session, user_id)
    _REMOVE.run(session, user_id=key)
    logger.info("member removed", extra={"user_id": str(key)})


@tenant_query
def require_role(session: Session, user_id: Id, at_least: WorkspaceRole) -> WorkspaceMember:
    """
    Return the membership of a user who is at least this: OWNER > ADMIN > MEMBER > VIEWER.

    The refusal is a security event, which outlives the caller's rollback.

    Raises:
        PermissionDeniedError: the user is less, or no member.
    """
    least = checked_member(at_least, WorkspaceRole, "at_least")
    member = find(session, user_id)
    if member is None or _RANK[WorkspaceRole(member.role)] < _RANK[least]:
        raise _security_events.refused(session, user_id, f"workspace:{least.value.lower()}")
    return member


def _require_other_owner(session: Session, user_id: Id) -> None:
    member = get(session, user_id)
    if member.role == WorkspaceRole.OWNER and _OTHER_OWNERS.scalar(session, user_id=member.user_id) == 0:
        raise LastOwnerError
