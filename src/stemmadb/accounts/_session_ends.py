"""How sessions end: revoked one by one, by log-in or all at once, and removed when they are long over."""

import logging
from datetime import datetime

from sqlalchemy.orm import Session

from stemmadb.accounts import _session_rows
from stemmadb.accounts._session_rows import checked_reason
from stemmadb.accounts.entities import User, UserSession
from stemmadb.entity import Id, parse_id, parse_reference
from stemmadb.errors import NotFoundError, ValidationError
from stemmadb.query import query, read, sql_rows

log = logging.getLogger("stemmadb.accounts.sessions")


@query
def revoke(session: Session, session_id: Id, *, reason: str = "LOGOUT") -> None:
    """
    End the log-in that a session belongs to: it, and those that it was rotated from and into. One statement; twice is as once.

    Writes a security event.

    Args:
        session: the caller's session; needs no workspace.
        session_id: any session of the log-in.
        reason: LOGOUT, ADMIN, or the application's own.

    Raises:
        NotFoundError: no session has this id.
        ValidationError: the reason is empty; nothing was sent.
    """
    why, key = checked_reason(reason), parse_id(session_id, "UserSession")
    if _session_rows.revoke_family_of(session, key, why) is not None:
        log.info("session revoked", extra={"session_id": str(key), "reason": why})
    elif read(session, UserSession, key) is None:
        raise NotFoundError("UserSession", session_id)


@query
def revoke_family(session: Session, family_id: Id, *, reason: str) -> int:
    """
    End a log-in. One statement. Writes a security event.

    Args:
        session: the caller's session; needs no workspace.
        family_id: of its sessions; an unknown one has none.
        reason: what the rows say.

    Returns:
        1 when it was open, else 0.

    Raises:
        NotFoundError: the id is malformed.
        ValidationError: the reason is empty; nothing was sent.
    """
    closed = _session_rows.revoke_family(session, parse_id(family_id, "UserSession"), checked_reason(reason))
    log.info("family of sessions revoked", extra={"family_id": str(family_id), "reason": reason})
    return closed or 0


@query
def revoke_all(session: Session, user_id: Id, *, except_session_id: Id | None = None, reason: str = "LOGOUT") -> int:
    """
    End all log-ins of a user. One statement. Writes a security event.

    A session that is being rotated at this moment ends too, whichever of the two comes first.

    Args:
        session: the caller's session; needs no workspace.
        user_id: whose.
        except_session_id: a session whose log-in stays; None: none does.
        reason: LOGOUT, ADMIN, or the application's own.

    Returns:
        How many were open.

    Raises:
        NotFoundError: no user has this id.
        ValidationError: the reason is empty, or ``except_session_id`` is no id; nothing was sent.
    """
    key, why = parse_id(user_id, "User"), checked_reason(reason)
    kept = None if except_session_id is None else parse_reference(except_session_id, "except_session_id")
    closed = _session_rows.revoke_user(session, key, why, except_session_id=kept)
    if closed is None and read(session, User, key) is None:
        raise NotFoundError("User", user_id)
    log.info("sessions revoked", extra={"user_id": str(key), "count": closed or 0, "reason": why})
    return closed or 0


_DELETE = sql_rows(
    """
    DELETE FROM stemma.user_sessions
     WHERE id IN (SELECT id FROM stemma.user_sessions
                   WHERE expires_at < least(now(), CAST(:before AS timestamptz))
                   ORDER BY expires_at
                   LIMIT :batch
                     FOR UPDATE SKIP LOCKED)
    """
)


@query
def delete_expired(session: Session, *, before: datetime | None = None, batch: int = 1000) -> int:
    """
    Remove sessions that are over, the oldest first: one batch, without those that somebody holds. Call it until it returns 0.

    Spent and revoked ones stay until their log-in's absolute end, since a spent token could not be told without them.

    Args:
        session: the caller's session; needs no workspace.
        before: only those that ended before; None, and a time to come: now.
        batch: the most that are removed at once, 1 to 10,000.

    Returns:
        How many were removed.

    Raises:
        ValidationError: ``before`` has no time zone, or ``batch`` is out of bounds; nothing was sent.
    """
    if before is not None and before.tzinfo is None:
        raise ValidationError("before needs a time zone", field="before")
    if not 1 <= batch <= 10_000:
        raise ValidationError("batch is 1 to 10,000", field="batch")
    removed = _DELETE.run(session, before=before, batch=batch)
    log.info("expired sessions removed", extra={"count": removed})
    return removed
