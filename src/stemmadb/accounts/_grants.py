"""Who is given what: roles to users, permissions to roles and to users. Each is one INSERT or DELETE, and twice is as once.

The records of all of them say ADMIN (``stemmadb.audit``).
"""

import logging
from typing import Any

from sqlalchemy.orm import Session

from stemmadb.accounts._acting import as_admin
from stemmadb.entity import Id, parse_id
from stemmadb.errors import NotFoundError
from stemmadb.query import RowStatement, query, sql_rows

log = logging.getLogger("stemmadb.accounts.roles")

_GRANT_TO_ROLE = sql_rows(
    """
    INSERT INTO stemma.role_permissions (role_id, permission_id)
    SELECT roles.id, permissions.id FROM stemma.roles, stemma.permissions WHERE roles.name = :role AND permissions.key = :permission
    ON CONFLICT DO NOTHING
    """
)
_REVOKE_FROM_ROLE = sql_rows(
    """
    DELETE FROM stemma.role_permissions
     USING stemma.roles, stemma.permissions
     WHERE role_permissions.role_id = roles.id AND role_permissions.permission_id = permissions.id
       AND roles.name = :role AND permissions.key = :permission
    """
)
# The users are looked up, and not only referred to, so that an unknown one leaves the transaction usable.
_ASSIGN = sql_rows(
    """
    INSERT INTO stemma.user_roles (user_id, role_id)
    SELECT users.id, roles.id FROM stemma.users, stemma.roles
     WHERE users.id = :user_id AND users.deleted_at IS NULL AND roles.name = :role
    ON CONFLICT DO NOTHING
    """
)
_REMOVE = sql_rows(
    """
    DELETE FROM stemma.user_roles
     USING stemma.roles
     WHERE user_roles.role_id = roles.id AND user_roles.user_id = :user_id AND roles.name = :role
    """
)
_GRANT = sql_rows(
    """
    INSERT INTO stemma.user_permissions (user_id, permission_id)
    SELECT users.id, permissions.id FROM stemma.users, stemma.permissions
     WHERE users.id = :user_id AND users.deleted_at IS NULL AND permissions.key = :permission
    ON CONFLICT DO NOTHING
    """
)
_REVOKE = sql_rows(
    """
    DELETE FROM stemma.user_permissions
     USING stemma.permissions
     WHERE user_permissions.permission_id = permissions.id AND user_permissions.user_id = :user_id AND permissions.key = :permission
    """
)


@query
def grant_to_role(session: Session, role: str, permission: str) -> bool:
    """
    Let a role give a permission.

    Returns:
        True when it is new, False when the role gave it already.

    Raises:
        NotFoundError: there is no such role or permission. The transaction stays usable.
    """
    return _change(session, _GRANT_TO_ROLE, "permission granted to role", role=role, permission=permission)


@query
def revoke_from_role(session: Session, role: str, permission: str) -> bool:
    """
    Take a permission from a role.

    Returns:
        True when the role gave it, False when it did not.

    Raises:
        NotFoundError: there is no such role or permission.
    """
    return _change(session, _REVOKE_FROM_ROLE, "permission revoked from role", role=role, permission=permission)


@query
def assign(session: Session, user_id: Id, role: str) -> bool:
    """
    Give a live user a role.

    Returns:
        True when it is new, False when the user had it already.

    Raises:
        NotFoundError: there is no such live user, or no such role. The transaction stays usable.
    """
    return _change(session, _ASSIGN, "role assigned", user_id=parse_id(user_id, "User"), role=role)


@query
def remove(session: Session, user_id: Id, role: str) -> bool:
    """
    Take a role from a user.

    Returns:
        True when the user had it, False when not.

    Raises:
        NotFoundError: there is no such live user, or no such role.
    """
    return _change(session, _REMOVE, "role removed", user_id=parse_id(user_id, "User"), role=role)


@query
def grant(session: Session, user_id: Id, permission: str) -> bool:
    """
    Give a live user a permission beside those of their roles.

    Returns:
        True when it is new, False when it had been granted directly already.

    Raises:
        NotFoundError: there is no such live user, or no such permission. The transaction stays usable.
    """
    return _change(session, _GRANT, "permission granted", user_id=parse_id(user_id, "User"), permission=permission)


@query
def revoke(session: Session, user_id: Id, permission: str) -> bool:
    """
    Take back a permission that was granted directly; what a role gives stays.

    Returns:
        True when it had been granted, False when not.

    Raises:
        NotFoundError: there is no such live user, or no such permission.
    """
    return _change(session, _REVOKE, "permission revoked", user_id=parse_id(user_id, "User"), permission=permission)


_EXISTS = {
    "user_id": ("User", sql_rows("SELECT 1 FROM stemma.users WHERE id = :value AND deleted_at IS NULL")),
    "role": ("Role", sql_rows("SELECT 1 FROM stemma.roles WHERE name = :value")),
    "permission": ("Permission", sql_rows("SELECT 1 FROM stemma.permissions WHERE key = :value")),
}


def _change(session: Session, statement: RowStatement, message: str, **named: Any) -> bool:
    """Run a statement; when it changed nothing, tell what was there already from what is not there at all."""
    with as_admin(session):
        changed = statement.run(session, **named) == 1
    if changed:
        log.info(message, extra={name: str(value) for name, value in named.items()})
        return True
    for name, value in named.items():
        entity, exists = _EXISTS[name]
        if exists.first(session, value=value) is None:
            raise NotFoundError(entity, value)
    return False
