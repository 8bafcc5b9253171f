"""Passwords of users, failed log-ins, and the lock that they end in."""

import logging
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from pydantic import SecretStr
from sqlalchemy import Row
from sqlalchemy.orm import Session

from stemmadb import _apart
from stemmadb.accounts import _passwords, _security_events
from stemmadb.accounts._emails import normalize_email
from stemmadb.accounts.entities import User
from stemmadb.accounts.vocabularies import SecurityEventType, UserStatus
from stemmadb.entity import Id, parse_id
from stemmadb.errors import NotFoundError, ValidationError
from stemmadb.query import query, read, sql, sql_rows

# The private modules about users log under the name that callers import.
log = logging.getLogger("stemmadb.accounts.users")

MAX_ATTEMPTS = 10
LOCK_FOR = timedelta(minutes=15)

_SET = sql(
    User,
    """
    UPDATE stemma.users SET password_hash = :password_hash, failed_login_count = 0, lockout_until = NULL
     WHERE id = :id AND deleted_at IS NULL
    RETURNING {columns}
    """,
)
# A statement after the one above, whose lock orders it against others. A session that is rotated meanwhile ends with its family.
_CLOSE = sql_rows(
    """
    WITH sessions AS (
        UPDATE stemma.user_sessions SET revoked_at = now(), revoked_reason = 'PASSWORD_CHANGED' WHERE user_id = :id AND revoked_at IS NULL
    )
    UPDATE stemma.password_reset_tokens SET used_at = now() WHERE user_id = :id AND used_at IS NULL
    """
)


@query
def set_password(session: Session, user_id: Id, password: SecretStr) -> User:
    """
    Give a live user a new password. It is hashed with Argon2id, off the event loop.

    Every session is revoked, every reset token that is out is void, and a lock ends. Writes a security event.

    Args:
        session: the caller's session; needs no workspace.
        user_id: whose.
        password: 15 to 1024 characters, 8 for a user with a second factor, in Unicode's form NFKC; no NUL.

    Raises:
        MissingDependencyError: the extra ``auth`` is not installed.
        NotFoundError: no live user has this id.
        ValidationError: the password is too short, too long, or no SecretStr.
    """
    _passwords.require_extra()
    key = parse_id(user_id, "User")
    user = read(session, User, key)
    if user is None or user.deleted_at is not None:
        raise NotFoundError("User", user_id)
    normal = _passwords.checked_password(password, second_factor=user.two_factor_enabled)
    return store_password(session, key, _passwords.hash_password(normal))


def store_password(session: Session, user_id: UUID, password_hash: str) -> User:
    """
    Store the hash of a new password, and close what the old one opened.

    Raises:
        NotFoundError: no live user has this id.
    """
    user = _SET.write(session, id=user_id, password_hash=password_hash)
    if user is None:
        raise NotFoundError("User", user_id)
    _CLOSE.run(session, id=user_id)
    _security_events.record(session, SecurityEventType.PASSWORD_CHANGED, user_id)
    log.info("password set", extra={"user_id": str(user_id)})
    return user


# The lock is read under the row's lock, so that of many attempts at once each sees what those before it did. A lock that is over starts
# the count anew; one that holds is not made longer.
_COUNT = """
    WITH attempt AS (
        SELECT users.id, coalesce(users.lockout_until > now(), false) AS locked,
               CASE WHEN users.lockout_until <= now() THEN 0 ELSE users.failed_login_count END AS before
          FROM stemma.users
         WHERE users.{column} = :{column} AND users.deleted_at IS NULL
           FOR NO KEY UPDATE
    )
    UPDATE stemma.users
       SET failed_login_count = attempt.before + 1,
           lockout_until = CASE WHEN attempt.locked THEN users.lockout_until
                                WHEN attempt.before + 1 >= :max_attempts THEN now() + CAST(:lock_for AS interval) END
      FROM attempt
     WHERE users.id = attempt.id
    RETURNING users.id, users.status, users.password_hash, attempt.locked, users.lockout_until IS NOT NULL AND NOT attempt.locked AS locks
"""
_COUNT_BY_EMAIL = _COUNT.format(column="email")
_COUNT_BY_ID = _COUNT.format(column="id")
# Only under the hash that was compared: one that changed meanwhile is another password.
_VERIFIED = """
    UPDATE stemma.users
       SET failed_login_count = 0, lockout_until = NULL, password_hash = :password_hash
     WHERE id = :id AND status = 'ACTIVE' AND password_hash = :compared
    RETURNING id
"""


@query
def verify_password(session: Session, email: str, password: SecretStr) -> User | None:
    """
    Return the user who has this password, or None: for unknown, wrong, suspended and locked alike.

    The attempt is counted as a failure before the hash is evaluated, in a transaction of its own that outlives the caller's rollback, and
    taken back when the password is right. The tenth failure in a row locks the user out for 15 minutes. Whoever is unknown costs a hash as
    well, which takes some 50 ms, off the event loop. A hash of an earlier system (bcrypt) is replaced by Argon2id. Failures are security
    events.

    Args:
        session: the caller's session; needs no workspace.
        email: any letter case.
        password: as it was typed.

    Returns:
        The user, whose second factor is still to be asked for if they have one; then call ``record_successful_login``.

    Raises:
        MissingDependencyError: the extra ``auth`` is not installed.
        ValidationError: ``password`` is no SecretStr.
    """
    _passwords.require_extra()
    attempt = _count_by_email(session, email)
    if attempt is None:
        _passwords.matches(None, password)
        _security_events.record_apart(session, SecurityEventType.LOGIN_FAILED, None, reason="unknown")
        return None
    refused = "locked" if attempt.locked else None if attempt.status == UserStatus.ACTIVE else "suspended"
    stored = None if refused else attempt.password_hash
    if _passwords.matches(stored, password) and stored is not None and _settle(session, attempt.id, stored, password):
        return read(session, User, attempt.id)
    _record_failure(session, attempt.id, refused or "wrong", locks=attempt.locks)
    return None


def _count_by_email(session: Session, email: str) -> Row[Any] | None:
    try:
        address = normalize_email(email)
    except ValueError:
        return None
    return _apart.settle(session, _COUNT_BY_EMAIL, {"email": address, "max_attempts": MAX_ATTEMPTS, "lock_for": LOCK_FOR})


def _settle(session: Session, user_id: UUID, compared: str, password: SecretStr) -> bool:
    """Take the failure back that was counted before, renew a hash of another kind, and return whether the password is still the one."""
    renewed = compared if _passwords.is_current(compared) else _passwords.hash_password(_passwords.normalized(password))
    done = _apart.settle(session, _VERIFIED, {"id": user_id, "compared": compared, "password_hash": renewed})
    if done is not None and renewed != compared:
        log.info("password hash renewed", extra={"user_id": str(user_id)})
    return done is not None


def _record_failure(session: Session, user_id: UUID, reason: str, *, locks: bool) -> None:
    _security_events.record_apart(session, SecurityEventType.LOGIN_FAILED, user_id, reason=reason)
    if locks:
        _security_events.record_apart(session, SecurityEventType.LOCKOUT, user_id)
        log.warning("user locked out", extra={"user_id": str(user_id)})


@query
def record_failed_login(session: Session, user_id: Id, *, max_attempts: int = 10, lock_for: timedelta = timedelta(minutes=15)) -> User:
    """
    Count a failed log-in of another kind: of a second factor, or of an application that compares passwords by itself.

    One statement, in a transaction of its own that outlives the caller's rollback. ``verify_password`` counts its failures by itself.

    Args:
        session: the caller's session; needs no workspace.
        user_id: who failed.
        max_attempts: the failure in a row that locks the user out; at least 1.
        lock_for: how long; the lock ends by itself, and failures meanwhile do not make it longer.

    Raises:
        NotFoundError: no live user has this id.
        ValidationError: ``max_attempts`` or ``lock_for`` is not positive; nothing was sent.
    """
    if max_attempts < 1:
        raise ValidationError("max_attempts must be at least 1", field="max_attempts")
    if lock_for <= timedelta(0):
        raise ValidationError("lock_for must be above 0", field="lock_for")
    key = parse_id(user_id, "User")
    attempt = _apart.settle(session, _COUNT_BY_ID, {"id": key, "max_attempts": max_attempts, "lock_for": lock_for})
    user = None if attempt is None else read(session, User, key)
    if attempt is None or user is None:
        raise NotFoundError("User", user_id)
    _record_failure(session, key, "locked" if attempt.locked else "wrong", locks=attempt.locks)
    return user


_SUCCEEDED = sql(
    User,
    """
    UPDATE stemma.users SET failed_login_count = 0, lockout_until = NULL, last_login_at = now()
     WHERE id = :id AND deleted_at IS NULL
    RETURNING {columns}
    """,
)


@query
def record_successful_login(session: Session, user_id: Id) -> User:
    """
    Note that a live user signed in: the time, no failures in a row, no lock. Writes a security event.

    Raises:
        NotFoundError: no live user has this id.
    """
    user = _SUCCEEDED.write(session, id=parse_id(user_id, "User"))
    if user is None:
        raise NotFoundError("User", user_id)
    _security_events.record(session, SecurityEventType.LOGIN_SUCCEEDED, user.id)
    log.info("user signed in", extra={"user_id": str(user.id)})
    return user


def is_locked_out(user: User, now: datetime | None = None) -> bool:
    """
    Return whether failed log-ins keep a user out at the moment; no database is asked.

    Args:
        user: as it was read.
        now: the moment; None: now, by this machine's clock.
    """
    return user.lockout_until is not None and user.lockout_until > (now or datetime.now(UTC))
