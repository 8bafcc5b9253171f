"""
How a workspace changes, is handed over, deleted, brought back and removed. Import these functions from ``stemmadb.workspaces.workspaces``.

A refused call leaves the caller's transaction usable.
"""

import logging
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row
from sqlalchemy import update as sa_update
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value
from sqlalchemy.orm.util import identity_key

from stemmadb import _writes as writes
from stemmadb._workspace_ids import forget_at_commit
from stemmadb.entity import Id, parse_id, parse_reference
from stemmadb.errors import InvalidTransitionError, NotFoundError, ReferenceNotFoundError
from stemmadb.query import query, read, sql, sql_rows
from stemmadb.workspaces._entering import entered
from stemmadb.workspaces.data import WorkspaceUpdate
from stemmadb.workspaces.entities import Workspace, WorkspaceMember
from stemmadb.workspaces.vocabularies import WorkspaceRole

# The private modules of the pack log under the name that callers import.
log: Final = logging.getLogger("stemmadb.workspaces.workspaces")


@query
def update(session: Session, workspace_id: Id, data: WorkspaceUpdate) -> Workspace:
    """
    Change a live workspace; fields that ``data`` does not give stay.

    One UPDATE in a savepoint. Whoever used the old slug does not find the workspace any more.

    Args:
        session: the caller's session; needs no workspace.
        workspace_id: which one.
        data: what changes; None takes the description away.

    Raises:
        ConflictError: another live workspace has the slug. The transaction stays usable.
        NotFoundError: no live workspace has this id.
        UnknownSchemaVersionError: a newer release wrote the settings, which are not overwritten.
    """
    key = parse_id(workspace_id, "Workspace")
    changes = writes.changes(Workspace, WorkspaceUpdate.of(data).changes(), ("id",))
    where = [Workspace.id == key, Workspace.deleted_at.is_(None)]
    if not changes:
        return _live(session, key)
    statement = sa_update(Workspace).where(*where).values(**changes).returning(Workspace)
    with session.begin_nested():
        workspace = session.scalars(statement, execution_options=writes.FRESH).one_or_none()
        if workspace is None:
            raise writes.refusal(session, Workspace, where, workspace_id, changes, None)
    forget_at_commit(session)
    log.info("workspace updated: %s", ", ".join(sorted(changes)), extra={"workspace_id": str(key)})
    return workspace


def _live(session: Session, key: UUID) -> Workspace:
    workspace = read(session, Workspace, key)
    if workspace is None or workspace.deleted_at is not None:
        raise NotFoundError("Workspace", key)
    return workspace


# members.change_role and members.remove take the same lock: of whoever changes owners, one at a time reads who they are.
_LOCK = sql_rows("SELECT owner_id FROM stemma.workspaces WHERE id = :id AND deleted_at IS NULL FOR NO KEY UPDATE")
# The old owner may have stepped down before; then there is nothing to take away.
_SWAP_ROLES = sql_rows(
    """
    UPDATE stemma.workspace_members
       SET role = CASE WHEN workspace_members.user_id = :new_id THEN 'OWNER' ELSE 'ADMIN' END
     WHERE workspace_members.workspace_id = :workspace_id
       AND (workspace_members.user_id = :new_id OR (workspace_members.user_id = :old_id AND workspace_members.role = 'OWNER'))
       AND EXISTS (SELECT FROM stemma.users WHERE users.id = :new_id AND users.deleted_at IS NULL)
    RETURNING workspace_members.id, workspace_members.user_id, workspace_members.role, workspace_members.updated_at
    """
)
_SET_OWNER = sql(Workspace, "UPDATE stemma.workspaces SET owner_id = :owner_id WHERE id = :id RETURNING {columns}")


@query
def transfer_ownership(session: Session, workspace_id: Id, new_owner_id: Id) -> Workspace:
    """
    Hand a workspace over to one of its members: that one becomes OWNER, and who owned it ADMIN.

    Other members with the role OWNER keep it. To hand it to its owner changes nothing but that they are OWNER again. Locks the
    workspace row until the transaction ends.

    Args:
        session: the caller's session; needs no workspace, and keeps the one it has.
        workspace_id: a live workspace.
        new_owner_id: a live user who is a member of it.

    Raises:
        NotFoundError: no live workspace has this id.
        ReferenceNotFoundError: the user is not a member, or deleted. The transaction stays usable.
    """
    key, new_owner = parse_id(workspace_id, "Workspace"), parse_reference(new_owner_id, "new_owner_id")
    with entered(session, key):
        locked = _LOCK.first(session, id=key)
        if locked is None:
            raise NotFoundError("Workspace", workspace_id)
        members = _SWAP_ROLES.all(session, workspace_id=key, new_id=new_owner, old_id=locked.owner_id)
        if all(row.user_id != new_owner for row in members):
            raise ReferenceNotFoundError("workspaces_owner_id_fkey", "new_owner_id")
        workspace = _SET_OWNER.write(session, id=key, owner_id=new_owner)
    if workspace is None:
        raise NotFoundError("Workspace", workspace_id)
    _tell_held(session, key, members)
    log.info("workspace handed over", extra={"workspace_id": str(key), "owner_id": str(new_owner)})
    return workspace


def _tell_held(session: Session, workspace_id: UUID, members: Sequence[Row[Any]]) -> None:
    """Bring the memberships that the session holds up to date: the session need not be one of the workspace, so they are not loaded."""
    for row in members:
        held = session.identity_map.get(identity_key(WorkspaceMember, (workspace_id, row.id)))
        if held is not None:
            set_committed_value(held, "role", WorkspaceRole(row.role))
            set_committed_value(held, "updated_at", row.updated_at)


# Both see the workspace as it was, live.
_SOFT_DELETE = sql(
    Workspace,
    """
    WITH revoked AS (
        UPDATE stemma.api_keys SET revoked_at = now()
         WHERE api_keys.workspace_id = :id AND api_keys.revoked_at IS NULL
           AND EXISTS (SELECT FROM stemma.workspaces WHERE workspaces.id = :id AND workspaces.deleted_at IS NULL)
    )
    UPDATE stemma.workspaces SET deleted_at = now()
     WHERE workspaces.id = :id AND workspaces.deleted_at IS NULL
    RETURNING {columns}
    """,
)


@query
def soft_delete(session: Session, workspace_id: Id) -> Workspace:
    """
    Hide a workspace with everything in it, and revoke its API keys. One statement.

    Its slug is free for another one. Nothing in it changes, and ``restore`` brings it back; what was revoked stays revoked. Sessions
    that are open go on; new ones are refused as for an unknown workspace, in other processes within 60 seconds, which is how long a
    ``Database`` remembers a workspace.

    Raises:
        NotFoundError: no live workspace has this id.
    """
    key = parse_id(workspace_id, "Workspace")
    workspace = _SOFT_DELETE.write(session, id=key)
    if workspace is None:
        raise NotFoundError("Workspace", workspace_id)
    forget_at_commit(session)
    log.info("workspace deleted", extra={"workspace_id": str(key)})
    return workspace


_RESTORE = sql(
    Workspace,
    """
    UPDATE stemma.workspaces SET deleted_at = NULL
     WHERE workspaces.id = :id AND workspaces.deleted_at IS NOT NULL
    RETURNING {columns}
    """,
)


@query
def restore(session: Session, workspace_id: Id) -> Workspace:
    """
    Bring a deleted workspace back, with everything in it but its API keys; a live one is returned as it is. One UPDATE in a savepoint.

    Raises:
        ConflictError: another workspace has taken the slug: change that one's, then restore. The transaction stays usable.
        NotFoundError: no workspace has this id.
    """
    key = parse_id(workspace_id, "Workspace")
    with session.begin_nested():
        restored = _RESTORE.write(session, id=key)
    if restored is None:
        return _live(session, key)
    forget_at_commit(session)
    log.info("workspace restored", extra={"workspace_id": str(key)})
    return restored


_PURGE = sql_rows("DELETE FROM stemma.workspaces WHERE id = :id AND deleted_at IS NOT NULL")


@query
def purge(session: Session, workspace_id: Id) -> None:
    """
    Remove a deleted workspace for good, and everything in it. One DELETE, whose time grows with what is in it; there is no way back.

    Its rows are locked until the transaction ends. Records of it in ``audit_logs`` stay, without the workspace.

    Raises:
        InvalidTransitionError: it is live: delete it with ``soft_delete`` first.
        NotFoundError: no workspace has this id.
    """
    key = parse_id(workspace_id, "Workspace")
    if _PURGE.run(session, id=key) == 0:
        if read(session, Workspace, key) is None:
            raise NotFoundError("Workspace", workspace_id)
        raise InvalidTransitionError("LIVE", "PURGED", "Workspace")
    held = session.identity_map.get(identity_key(Workspace, key))
    if held is not None:
        session.expunge(held)
    log.info("workspace purged", extra={"workspace_id": str(key)})
