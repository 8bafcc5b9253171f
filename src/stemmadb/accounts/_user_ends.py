"""How users end, for a while or for good: suspended, deleted and restored, removed."""

from sqlalchemy.orm import Session
from sqlalchemy.orm.util import identity_key

from stemmadb.accounts import _security_events
from stemmadb.accounts._acting import as_admin
from stemmadb.accounts._credentials import log
from stemmadb.accounts._session_rows import checked_reason, revoke_user
from stemmadb.accounts.entities import User
from stemmadb.accounts.vocabularies import SecurityEventType
from stemmadb.entity import Id, parse_id
from stemmadb.errors import NotFoundError
from stemmadb.query import query, read, sql, sql_rows

_SUSPEND = sql(
    User,
    """
    UPDATE stemma.users SET status = 'SUSPENDED'
     WHERE id = :id AND deleted_at IS NULL
    RETURNING {columns}
    """,
)
_REINSTATE = sql(
    User,
    """
    UPDATE stemma.users SET status = 'ACTIVE'
     WHERE id = :id AND status = 'SUSPENDED'
    RETURNING {columns}
    """,
)


@query
def suspend(session: Session, user_id: Id, *, reason: str) -> User:
    """
    Keep a live user out: sessions are revoked, and API keys, passwords and permissions are good for nothing until ``reinstate``.

    Writes a security event; the audit record says ADMIN.

    Args:
        session: the caller's session; needs no workspace.
        user_id: whom.
        reason: why, for the record.

    Raises:
        NotFoundError: no live user has this id.
        ValidationError: the reason is empty; nothing was sent.
    """
    why, key = checked_reason(reason), parse_id(user_id, "User")
    with as_admin(session):
        user = _SUSPEND.write(session, id=key)
    if user is None:
        raise NotFoundError("User", user_id)
    if revoke_user(session, key, "ADMIN", told=why) is None:
        _security_events.record(session, SecurityEventType.SESSION_REVOKED, key, reason=why)
    log.info("user suspended", extra={"user_id": str(key)})
    return user


@query
def reinstate(session: Session, user_id: Id) -> User:
    """
    End a suspension; an active user is returned as they are. What was revoked stays revoked, API keys are good again.

    Raises:
        NotFoundError: no live user has this id.
    """
    key = parse_id(user_id, "User")
    user = _REINSTATE.write(session, id=key)
    if user is not None:
        log.info("user reinstated", extra={"user_id": str(key)})
        return user
    user = read(session, User, key)
    if user is None or user.deleted_at is not None:
        raise NotFoundError("User", user_id)
    return user


_SOFT_DELETE = sql(
    User,
    """
    UPDATE stemma.users SET status = 'DELETED', deleted_at = now()
     WHERE id = :id AND deleted_at IS NULL
    RETURNING {columns}
    """,
)
_REVOKE_ALL = sql_rows(
    """
    WITH sessions AS (
        UPDATE stemma.user_sessions SET revoked_at = now(), revoked_reason = 'USER_DELETED' WHERE user_id = :id AND revoked_at IS NULL
    )
    UPDATE stemma.api_keys SET revoked_at = now() WHERE user_id = :id AND revoked_at IS NULL
    """
)


@query
def soft_delete(session: Session, user_id: Id) -> User:
    """
    Hide a user: status DELETED and deleted_at together; sessions and API keys are revoked. Two statements.

    The e-mail stays reserved: a person who comes back is restored, not made again. What was revoked stays revoked.

    Raises:
        NotFoundError: no live user has this id.
    """
    key = parse_id(user_id, "User")
    user = _SOFT_DELETE.write(session, id=key)
    if user is None:
        raise NotFoundError("User", user_id)
    _REVOKE_ALL.run(session, id=key)
    log.info("user deleted", extra={"user_id": str(key)})
    return user


_RESTORE = sql(
    User,
    """
    UPDATE stemma.users SET status = 'ACTIVE', deleted_at = NULL
     WHERE id = :id AND deleted_at IS NOT NULL
    RETURNING {columns}
    """,
)


@query
def restore(session: Session, user_id: Id) -> User:
    """
    Bring a deleted user back as ACTIVE; a live one is returned as it is.

    Raises:
        NotFoundError: no user has this id.
    """
    key = parse_id(user_id, "User")
    user = _RESTORE.write(session, id=key) or read(session, User, key)
    if user is None:
        raise NotFoundError("User", user_id)
    return user


_PURGE = sql_rows("DELETE FROM stemma.users WHERE id = :id")


@query
def purge(session: Session, user_id: Id) -> None:
    """
    Remove a user for good, live or deleted, and with them sessions, keys, roles, permissions, tokens and memberships.

    What others need stays without its author: definitions, runs, logs. The address is free again.

    Raises:
        NotFoundError: no user has this id.
        StillReferencedError: the user owns a workspace: give it to somebody else first. The transaction stays usable.
    """
    key = parse_id(user_id, "User")
    with session.begin_nested():
        removed = _PURGE.run(session, id=key)
    if removed == 0:
        raise NotFoundError("User", user_id)
    held = session.identity_map.get(identity_key(User, key))
    if held is not None:
        session.expunge(held)
    log.info("user purged", extra={"user_id": str(key)})
