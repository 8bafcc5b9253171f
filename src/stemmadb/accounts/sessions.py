"""
Sessions: refresh tokens that are rotated, and that end a whole log-in when one is used twice.

    issued = sessions.open(session, user.id, user_agent="Firefox")
    sessions.authenticate(session, issued.token)
    issued = sessions.rotate(session, issued.token)             # the old token is spent

A log-in is a family: the session that it began with, and those that it was rotated into. It is open until one of its rows is revoked, or it
ends: absolutely, or because nobody used it.
"""

import hashlib
import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from pydantic import AwareDatetime, SecretStr
from sqlalchemy import Select, bindparam, exists, func, select
from sqlalchemy.orm import Session, aliased

from stemmadb import _apart
from stemmadb._exports import adopt
from stemmadb.accounts import _tokens
from stemmadb.accounts._session_ends import delete_expired, revoke, revoke_all, revoke_family
from stemmadb.accounts._session_rows import FAMILY_TEXT, checked_client, parameters
from stemmadb.accounts.data import IssuedSession
from stemmadb.accounts.entities import User, UserSession
from stemmadb.accounts.vocabularies import UserStatus
from stemmadb.entity import Id, parse_id, parse_reference, uuid7
from stemmadb.errors import AuthenticationError, ConflictError, NotFoundError, PermissionDeniedError, StemmaError, ValidationError
from stemmadb.paging import Page, page
from stemmadb.query import query, read, sql, sql_rows

__all__ = [
    "IssuedSession",
    "open",
    "create",
    "authenticate",
    "find_active",
    "rotate",
    "list_for_user",
    "revoke",
    "revoke_family",
    "revoke_all",
    "delete_expired",
]

logger: Final = logging.getLogger(__name__)

_GRAIN = timedelta(minutes=5)
_GRACE = timedelta(seconds=10)

_OPEN = sql(
    UserSession,
    """
    INSERT INTO stemma.user_sessions (id, family_id, user_id, refresh_token_hash, fingerprint, ip_address, user_agent, expires_at,
            idle_expires_at)
    SELECT :id, :id, users.id, :hash, :fingerprint, CAST(:ip_address AS inet), :user_agent, now() + CAST(:ttl AS interval),
           now() + CAST(:idle AS interval)
      FROM stemma.users
     WHERE users.id = :user_id AND users.status = 'ACTIVE'
    RETURNING {columns}
    """,
)


@query
def open(
    session: Session,
    user_id: Id,
    *,
    ttl: timedelta = timedelta(days=30),
    idle: timedelta = timedelta(days=7),
    fingerprint: str | None = None,
    ip_address: str | None = None,
    user_agent: str | None = None,
) -> IssuedSession:
    """
    Begin a log-in, and make its refresh token, which is shown this once. One statement.

    Args:
        session: the caller's session; needs no workspace.
        user_id: who signed in.
        ttl: the absolute end, from now; rotation does not move it.
        idle: the end when nobody uses it; moved forward at use, never beyond the absolute one.
        fingerprint: what the client is told by; within 10 seconds a spent token of the same client is refused without further ado.
        ip_address: where the client is.
        user_agent: what it calls itself.

    Raises:
        NotFoundError: no live user has this id.
        PermissionDeniedError: the user is suspended.
        ValidationError: an end that is not positive, a malformed address; nothing was sent.
    """
    for field, value in (("ttl", ttl), ("idle", idle)):
        if value <= timedelta(0):
            raise ValidationError(f"{field} must be above 0", field=field)
    client = checked_client(fingerprint, ip_address, user_agent)
    key, token = parse_id(user_id, "User"), _tokens.generate("r", live=True)
    opened = _OPEN.write(session, id=uuid7(), user_id=key, hash=_digest(token.text), ttl=ttl, idle=min(idle, ttl), **client)
    if opened is None:
        user = read(session, User, key)
        if user is None or user.deleted_at is not None:
            raise NotFoundError("User", user_id)
        raise PermissionDeniedError("sessions:open", "A suspended user cannot sign in: end the suspension first")
    logger.info("session opened", extra={"session_id": str(opened.id), "user_id": str(key)})
    return IssuedSession(opened, SecretStr(token.text))


_INSERT_DIGEST = sql(
    UserSession,
    """
    INSERT INTO stemma.user_sessions (id, family_id, user_id, refresh_token_hash, fingerprint, ip_address, user_agent, expires_at,
            idle_expires_at)
    VALUES (:id, :id, :user_id, :hash, :fingerprint, CAST(:ip_address AS inet), :user_agent, :expires_at, :expires_at)
    ON CONFLICT (refresh_token_hash) DO NOTHING
    RETURNING {columns}
    """,
)


@query
def create(
    session: Session,
    user_id: Id,
    refresh_token_hash: bytes,
    expires_at: AwareDatetime,
    *,
    fingerprint: str | None = None,
    ip_address: str | None = None,
    user_agent: str | None = None,
) -> UserSession:
    """
    Store the digest of a token that was made elsewhere. ``find_active`` finds it. It has no end but the absolute one. One statement.

    Args:
        session: the caller's session; needs no workspace.
        user_id: who signed in.
        refresh_token_hash: 32 bytes: the SHA-256 of the token.
        expires_at: the end, in the future.
        fingerprint: what the client is told by.
        ip_address: where the client is.
        user_agent: what it calls itself.

    Raises:
        ConflictError: the digest belongs to a session. The transaction stays usable.
        ReferenceNotFoundError: no such user.
        ValidationError: a digest of another length, an end that is past or has no time zone, a malformed address; nothing was sent.
    """
    if expires_at.tzinfo is None or expires_at <= datetime.now(UTC):
        raise ValidationError("expires_at is a time in the future, with a time zone", field="expires_at")
    created = _INSERT_DIGEST.write(
        session,
        id=uuid7(),
        user_id=parse_reference(user_id, "user_id"),
        hash=_checked_digest(refresh_token_hash),
        expires_at=expires_at,
        **checked_client(fingerprint, ip_address, user_agent),
    )
    if created is None:
        raise ConflictError("UserSession", ("refresh_token_hash",))
    logger.info("session stored", extra={"session_id": str(created.id), "user_id": str(user_id)})
    return created


def _open_sessions() -> Select[UserSession]:
    """Select what is open: of an active user, newest of its family, no row of which is revoked, before both ends."""
    family = aliased(UserSession)
    return select(UserSession).where(
        UserSession.rotated_at.is_(None),
        UserSession.expires_at > func.now(),
        UserSession.idle_expires_at > func.now(),
        ~exists().where(family.family_id == UserSession.family_id, family.revoked_at.is_not(None)),
        exists().where(User.id == UserSession.user_id, User.status == UserStatus.ACTIVE),
    )


_BY_DIGEST = _open_sessions().where(UserSession.refresh_token_hash == bindparam("hash"))
# A row that somebody holds is left alone: nobody waits for this. The time that may pass unused is what it was, up to the absolute end.
_SEEN = """
    UPDATE stemma.user_sessions
       SET last_seen_at = now(), idle_expires_at = least(now() + (idle_expires_at - coalesce(last_seen_at, created_at)), expires_at)
     WHERE id = (SELECT id FROM stemma.user_sessions
                  WHERE id = :id AND (last_seen_at IS NULL OR last_seen_at < now() - CAST(:grain AS interval))
                    FOR NO KEY UPDATE SKIP LOCKED)
"""


@query
def authenticate(session: Session, token: SecretStr, *, fingerprint: str | None = None) -> UserSession:
    """
    Return the session of a token: form and checksum without a query, then one indexed read.

    A spent token, one that was rotated, ends its log-in: every session of the family is revoked, with a security event, in a transaction of
    its own. ``last_seen_at`` and ``idle_expires_at`` are written at most every 5 minutes, likewise; that it fails never fails the call.

    Args:
        session: the caller's session; needs no workspace.
        token: what the client sent.
        fingerprint: what the client is told by; a token that the same client spent less than 10 seconds ago is refused, and ends nothing.

    Raises:
        AuthenticationError: unknown, spent, expired, revoked, or of somebody who is not active: one message for all.
    """
    digest = _parsed(token)
    found = find_active(session, digest)
    if found is None:
        _answer_reuse(session, digest, fingerprint)
        raise AuthenticationError
    if found.last_seen_at is None or found.last_seen_at < datetime.now(UTC) - _GRAIN:
        try:
            _apart.execute(session, _SEEN, {"id": found.id, "grain": _GRAIN})
        except StemmaError as error:
            logger.warning("last_seen_at was not written: %s", error.code, extra={"session_id": str(found.id)})
    return found


@query
def find_active(session: Session, refresh_token_hash: bytes) -> UserSession | None:
    """
    Return the open session with this digest, of an active user, or None. One statement; nothing is written.

    Raises:
        ValidationError: a digest of another length than 32 bytes; nothing was sent.
    """
    values = {"hash": _checked_digest(refresh_token_hash)}
    return session.scalars(_BY_DIGEST, values, execution_options={"populate_existing": True}).one_or_none()


# Marked and succeeded in one statement: of two callers the second waits for the row, and then finds it rotated.
_ROTATE = sql(
    UserSession,
    """
    WITH spent AS (
        UPDATE stemma.user_sessions AS old
           SET rotated_at = now()
          FROM stemma.users
         WHERE old.refresh_token_hash = :spent AND old.rotated_at IS NULL AND old.revoked_at IS NULL
           AND old.expires_at > now() AND old.idle_expires_at > now()
           AND users.id = old.user_id AND users.status = 'ACTIVE'
           AND NOT EXISTS (SELECT 1 FROM stemma.user_sessions AS family
                            WHERE family.family_id = old.family_id AND family.revoked_at IS NOT NULL)
        RETURNING old.family_id, old.user_id, old.fingerprint, old.ip_address, old.user_agent, old.expires_at,
                  old.idle_expires_at - coalesce(old.last_seen_at, old.created_at) AS idle
    )
    INSERT INTO stemma.user_sessions (id, family_id, user_id, refresh_token_hash, fingerprint, ip_address, user_agent, expires_at,
            idle_expires_at)
    SELECT :id, spent.family_id, spent.user_id, :hash, spent.fingerprint, spent.ip_address, spent.user_agent, spent.expires_at,
           least(now() + spent.idle, spent.expires_at)
      FROM spent
    RETURNING {columns}
    """,
)


@query
def rotate(session: Session, token: SecretStr, *, fingerprint: str | None = None) -> IssuedSession:
    """
    Spend a token, and make the next one of its log-in, which is shown this once. One statement. Locks the old session's row.

    The absolute end stays. Of two calls at once one wins; the other has used a spent token, which ends the log-in as ``authenticate`` says.

    Args:
        session: the caller's session; needs no workspace.
        token: what the client sent.
        fingerprint: what the client is told by; a token that the same client spent less than 10 seconds ago is refused, and ends nothing.

    Raises:
        AuthenticationError: unknown, spent, expired, revoked, or of somebody who is not active: one message for all.
    """
    digest = _parsed(token)
    next_token = _tokens.generate("r", live=True)
    rotated = _spend(session, digest, next_token.text)
    if rotated is None:
        _answer_reuse(session, digest, fingerprint)
        raise AuthenticationError
    logger.info("session rotated", extra={"session_id": str(rotated.id), "user_id": str(rotated.user_id)})
    return IssuedSession(rotated, SecretStr(next_token.text))


def _spend(session: Session, digest: bytes, next_token: str) -> UserSession | None:
    session.flush()
    savepoint = session.connection().begin_nested()
    try:
        rotated = _ROTATE.write(session, spent=digest, id=uuid7(), hash=_digest(next_token))
    except BaseException:
        savepoint.rollback()
        raise
    if rotated is None:
        # Whoever waited for the row holds it now, though it no longer qualifies: revoking the family apart would wait for this transaction.
        savepoint.rollback()
    else:
        savepoint.commit()
    return rotated


# By the clock, not by the transaction's beginning: it may have waited for the other caller.
_SPENT = sql_rows(
    """
    SELECT family_id, user_id, fingerprint, rotated_at > clock_timestamp() - CAST(:grace AS interval) AS just_now
      FROM stemma.user_sessions
     WHERE refresh_token_hash = :hash AND rotated_at IS NOT NULL
    """
)


def _answer_reuse(session: Session, digest: bytes, fingerprint: str | None) -> None:
    """Revoke the family of a token that was spent before, unless the client that spent it just asks twice."""
    spent = _SPENT.first(session, hash=digest, grace=_GRACE)
    if spent is None or (spent.just_now and fingerprint is not None and fingerprint == spent.fingerprint):
        return
    values: Mapping[str, Any] = {"family_id": spent.family_id, **parameters(session, "ROTATED_TOKEN_REUSED")}
    if _apart.settle(session, FAMILY_TEXT, values) is not None:
        logger.warning("spent token used again: family revoked", extra={"family_id": str(spent.family_id), "user_id": str(spent.user_id)})


@query
def list_for_user(
    session: Session, user_id: Id, *, active_only: bool = True, cursor: str | None = None, limit: int = 50
) -> Page[UserSession]:
    """
    Return a user's sessions, newest first, by (created_at, id); digests are not fetched. An unknown user has none.

    Args:
        session: the caller's session; needs no workspace.
        user_id: whose.
        active_only: whether only open ones are in the list, one for each log-in; else spent, expired and revoked ones as well.
        cursor: ``next_cursor`` of the page before; None starts at the first.
        limit: 1 to 200.

    Raises:
        InvalidCursorError: the cursor is not of this list.
    """
    statement = (_open_sessions() if active_only else select(UserSession)).where(UserSession.user_id == parse_id(user_id, "User"))
    return page(session, statement, order_by=[UserSession.created_at.desc(), UserSession.id.desc()], cursor=cursor, limit=limit)


def _parsed(token: SecretStr) -> bytes:
    text = token.get_secret_value()
    if _tokens.parse(text, "r") is None and _tokens.parse(text, "s") is None:
        raise AuthenticationError
    return _digest(text)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _checked_digest(digest: bytes) -> bytes:
    if not isinstance(digest, bytes) or len(digest) != 32:
        raise ValidationError("refresh_token_hash is a digest of 32 bytes", field="refresh_token_hash")
    return digest


adopt(globals())
