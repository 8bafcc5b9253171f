"""
Roles and permissions: what a user may do.

    roles.assign(session, user.id, "staff")
    roles.grant(session, user.id, "audit:read")
    roles.has_permission(session, user.id, "orders:write")

A permission is ``domain:action``; ``domain:*`` stands for every action of the domain.
"""

import logging
import re
from typing import Final

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from stemmadb._exports import adopt
from stemmadb.accounts import _security_events
from stemmadb.accounts._grants import assign, grant, grant_to_role, remove, revoke, revoke_from_role
from stemmadb.accounts.entities import Permission, Role
from stemmadb.entity import Id, parse_id
from stemmadb.errors import ConflictError, NotFoundError, PermissionDeniedError, ValidationError
from stemmadb.paging import Page, page
from stemmadb.query import query, sql, sql_rows

__all__ = [
    "create",
    "get_by_name",
    "list_all",
    "delete",
    "create_permission",
    "list_permissions",
    "grant_to_role",
    "revoke_from_role",
    "assign",
    "remove",
    "grant",
    "revoke",
    "permissions_of",
    "has_permission",
    "require",
]

logger: Final = logging.getLogger(__name__)

_KEY = re.compile(r"[a-z][a-z0-9_]*:([a-z][a-z0-9_]*|\*)")

# Nothing happens on a conflict, rather than an error, so that a name that is taken leaves the caller's transaction usable.
_INSERT = sql(
    Role,
    """
    INSERT INTO stemma.roles (id, name, description) VALUES (:id, :name, :description)
    ON CONFLICT (name) DO NOTHING
    RETURNING {columns}
    """,
)
_BY_NAME = select(Role).where(Role.name == bindparam("name"))


@query
def create(session: Session, name: str, *, description: str | None = None) -> Role:
    """
    Make a role without permissions. One statement.

    Args:
        session: the caller's session; needs no workspace.
        name: up to 63 lower-case letters, digits, ``_`` and ``-``, a letter first; unique.
        description: what it is for.

    Raises:
        ConflictError: there is a role of this name. The transaction stays usable.
        ValidationError: a malformed name; nothing was sent.
    """
    draft = Role(name=name, description=description)
    role = _INSERT.write(session, id=draft.id, name=draft.name, description=draft.description)
    if role is None:
        raise ConflictError("Role", ("name",))
    logger.info("role created", extra={"role": role.name})
    return role


@query
def get_by_name(session: Session, name: str) -> Role:
    """
    Return a role.

    Raises:
        NotFoundError: there is none of this name.
    """
    role = session.scalars(_BY_NAME, {"name": name}).one_or_none()
    if role is None:
        logger.warning("role not found", extra={"role": name})
        raise NotFoundError("Role", name)
    return role


@query
def list_all(session: Session, *, cursor: str | None = None, limit: int = 50) -> Page[Role]:
    """
    Return the roles, by name.

    Args:
        session: the caller's session; needs no workspace.
        cursor: ``next_cursor`` of the page before; None starts at the first.
        limit: 1 to 200.

    Raises:
        InvalidCursorError: the cursor is not of this list.
    """
    return page(session, select(Role), order_by=[Role.name], cursor=cursor, limit=limit)


_DELETE = sql_rows("DELETE FROM stemma.roles WHERE name = :name AND NOT is_system")


@query
def delete(session: Session, name: str) -> None:
    """
    Remove a role; whoever had it loses what it gave.

    Raises:
        NotFoundError: there is none of this name.
        PermissionDeniedError: it is a role of the library's own, which its seeds would make again.
    """
    if _DELETE.run(session, name=name) == 0:
        get_by_name(session, name)
        raise PermissionDeniedError(
            "roles:delete", f"The role {name!r} is one of the library's own and stays: take its permissions away instead"
        )
    logger.info("role deleted", extra={"role": name})


_INSERT_PERMISSION = sql(
    Permission,
    """
    INSERT INTO stemma.permissions (id, key, description) VALUES (:id, :key, :description)
    ON CONFLICT (key) DO NOTHING
    RETURNING {columns}
    """,
)


@query
def create_permission(session: Session, key: str, *, description: str | None = None) -> Permission:
    """
    Make a permission, which nobody has yet. One statement.

    Args:
        session: the caller's session; needs no workspace.
        key: ``domain:action`` or ``domain:*``, in lower case; unique.
        description: what it allows.

    Raises:
        ConflictError: there is a permission of this key. The transaction stays usable.
        ValidationError: a malformed key; nothing was sent.
    """
    draft = Permission(key=key, description=description)
    permission = _INSERT_PERMISSION.write(session, id=draft.id, key=draft.key, description=draft.description)
    if permission is None:
        raise ConflictError("Permission", ("key",))
    logger.info("permission created", extra={"permission": permission.key})
    return permission


@query
def list_permissions(session: Session, *, domain: str | None = None, cursor: str | None = None, limit: int = 50) -> Page[Permission]:
    """
    Return the permissions, by key.

    Args:
        session: the caller's session; needs no workspace.
        domain: only those of it: what stands before the colon.
        cursor: ``next_cursor`` of the page before; None starts at the first.
        limit: 1 to 200.

    Raises:
        InvalidCursorError: the cursor is not of this list.
    """
    statement = select(Permission)
    if domain is not None:
        statement = statement.where(Permission.key.startswith(f"{domain}:", autoescape=True))
    return page(session, statement, order_by=[Permission.key], cursor=cursor, limit=limit)


_GRANTED = """
    SELECT role_permissions.permission_id
      FROM stemma.user_roles
      JOIN stemma.role_permissions ON role_permissions.role_id = user_roles.role_id
     WHERE user_roles.user_id = users.id
 UNION
    SELECT user_permissions.permission_id FROM stemma.user_permissions WHERE user_permissions.user_id = users.id
"""
# A user without permissions is one row without a key; nobody is no row.
_PERMISSIONS_OF = sql_rows(
    f"""
    SELECT permissions.key
      FROM stemma.users
      LEFT JOIN stemma.permissions ON permissions.id IN ({_GRANTED})
     WHERE users.id = :user_id
    """  # noqa: S608  (constants only)
)
_HAS = sql_rows(
    f"""
    SELECT EXISTS (SELECT 1 FROM stemma.permissions WHERE permissions.key IN (:key, :all) AND permissions.id IN ({_GRANTED}))
      FROM stemma.users
     WHERE users.id = :user_id AND users.status = 'ACTIVE'
    """  # noqa: S608  (constants only)
)


@query
def permissions_of(session: Session, user_id: Id) -> frozenset[str]:
    """
    Return the keys that a user has been given, through roles and directly. One statement.

    They are what is on record: ``has_permission`` also asks whether the user is active, and knows what ``domain:*`` means.

    Raises:
        NotFoundError: no user has this id.
    """
    rows = _PERMISSIONS_OF.all(session, user_id=parse_id(user_id, "User"))
    if not rows:
        raise NotFoundError("User", user_id)
    return frozenset(row.key for row in rows if row.key is not None)


@query
def has_permission(session: Session, user_id: Id, permission: str) -> bool:
    """
    Return whether a user may do something, by a role or directly, as the permission itself or as ``domain:*``. One statement.

    A suspended or deleted user may do nothing, and nobody neither.

    Args:
        session: the caller's session; needs no workspace.
        user_id: who.
        permission: ``domain:action``; it need not have been made.

    Raises:
        ValidationError: a malformed permission; nothing was sent.
    """
    if not _KEY.fullmatch(permission):
        raise ValidationError("a permission is domain:action or domain:*, in lower case", field="permission")
    try:
        user = parse_id(user_id, "User")
    except NotFoundError:
        return False
    return bool(_HAS.scalar(session, user_id=user, key=permission, all=f"{permission.partition(':')[0]}:*"))


@query
def require(session: Session, user_id: Id, permission: str) -> None:
    """
    Refuse whoever may not do something. The refusal is a security event, which outlives the caller's rollback.

    Args:
        session: the caller's session; needs no workspace.
        user_id: who.
        permission: ``domain:action``; it need not have been made.

    Raises:
        PermissionDeniedError: the user may not, as ``has_permission`` tells.
        ValidationError: a malformed permission; nothing was sent.
    """
    if not has_permission(session, user_id, permission):
        raise _security_events.refused(session, user_id, permission)


adopt(globals())
