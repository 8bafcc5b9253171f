"""Tokens that are mailed: they confirm an address or allow a new password, once."""

import hashlib
import re
import secrets
from datetime import timedelta

from pydantic import SecretStr
from sqlalchemy.orm import Session

from stemmadb.accounts import _credentials, _passwords
from stemmadb.accounts._emails import normalize_email
from stemmadb.accounts._session_rows import checked_address
from stemmadb.accounts.data import IssuedToken
from stemmadb.accounts.entities import User
from stemmadb.entity import Id, parse_id, uuid7
from stemmadb.errors import AuthenticationError, NotFoundError, ValidationError
from stemmadb.query import RowStatement, query, sql, sql_rows

_FORM = re.compile(r"[A-Za-z0-9_-]{43}")

# The user is looked up, and not only referred to, so that an unknown one leaves the caller's transaction usable.
_INSERT_VERIFICATION = sql_rows(
    """
    INSERT INTO stemma.email_verification_tokens (id, user_id, token_hash, email, expires_at)
    SELECT :id, users.id, :token_hash, :email, now() + CAST(:ttl AS interval)
      FROM stemma.users
     WHERE users.id = :user_id AND users.deleted_at IS NULL
    RETURNING expires_at
    """
)


@query
def create_email_verification(session: Session, user_id: Id, email: str, *, ttl: timedelta = timedelta(days=1)) -> IssuedToken:
    """
    Make a token that confirms an address, to be sent there; it is shown this once. One statement.

    Args:
        session: the caller's session; needs no workspace.
        user_id: whose address it is to be.
        email: the one that they have, or the one that they want instead.
        ttl: how long the token is good, from now.

    Raises:
        NotFoundError: no live user has this id.
        ValidationError: not an address, or a lifetime that is not positive; nothing was sent.
    """
    try:
        address = normalize_email(email)
    except ValueError:
        raise ValidationError("email is not an e-mail address", field="email") from None
    return _issue(session, _INSERT_VERIFICATION, user_id, ttl, email=address)


_VERIFY = sql(
    User,
    """
    WITH used AS (
        UPDATE stemma.email_verification_tokens SET used_at = now()
         WHERE token_hash = :token_hash AND used_at IS NULL AND expires_at > now()
        RETURNING user_id, email
    )
    UPDATE stemma.users SET email = used.email, email_verified = true, email_verified_at = now()
      FROM used
     WHERE users.id = used.user_id AND users.deleted_at IS NULL
    RETURNING {columns}
    """,
)


@query
def verify_email(session: Session, token: SecretStr) -> User:
    """
    Confirm the address that a token was sent to; it becomes the user's, if it is another one. One statement. A token is good once.

    Raises:
        AuthenticationError: unknown, expired or used, or of a deleted user: one message for all.
        ConflictError: the address has become somebody else's meanwhile. The transaction stays usable, and the token is not used.
    """
    token_hash = _parsed(token)
    with session.begin_nested():
        user = _VERIFY.write(session, token_hash=token_hash)
    if user is None:
        raise AuthenticationError
    _credentials.log.info("e-mail verified", extra={"user_id": str(user.id)})
    return user


_INSERT_RESET = sql_rows(
    """
    INSERT INTO stemma.password_reset_tokens (id, user_id, token_hash, ip_address, expires_at)
    SELECT :id, users.id, :token_hash, CAST(:ip_address AS inet), now() + CAST(:ttl AS interval)
      FROM stemma.users
     WHERE users.id = :user_id AND users.deleted_at IS NULL
    RETURNING expires_at
    """
)


@query
def create_password_reset(
    session: Session, user_id: Id, *, ttl: timedelta = timedelta(hours=1), ip_address: str | None = None
) -> IssuedToken:
    """
    Make a token that allows a new password, to be sent to the user's address; it is shown this once. One statement.

    Args:
        session: the caller's session; needs no workspace.
        user_id: who asks.
        ttl: how long the token is good, from now.
        ip_address: where they ask from.

    Raises:
        NotFoundError: no live user has this id. Whoever asked should not be told.
        ValidationError: a lifetime that is not positive, a malformed address; nothing was sent.
    """
    return _issue(session, _INSERT_RESET, user_id, ttl, ip_address=checked_address(ip_address))


_FIND_RESET = sql_rows(
    """
    SELECT users.id, users.two_factor_enabled
      FROM stemma.password_reset_tokens
      JOIN stemma.users ON users.id = password_reset_tokens.user_id AND users.status = 'ACTIVE'
     WHERE token_hash = :token_hash AND used_at IS NULL AND expires_at > now()
    """
)
_USE_RESET = sql_rows(
    """
    UPDATE stemma.password_reset_tokens SET used_at = now()
     WHERE token_hash = :token_hash AND used_at IS NULL AND expires_at > now()
    """
)


@query
def consume_password_reset(session: Session, token: SecretStr, new_password: SecretStr) -> User:
    """
    Give the user of a token a new password, as ``set_password`` does: every session is revoked, and a lock ends. A token is good once.

    A password that is refused leaves the token good.

    Args:
        session: the caller's session; needs no workspace.
        token: what the user was sent.
        new_password: 15 to 1024 characters, 8 for a user with a second factor, in Unicode's form NFKC; no NUL.

    Raises:
        AuthenticationError: unknown, expired or used, or of somebody who is not active: one message for all.
        MissingDependencyError: the extra ``auth`` is not installed.
        ValidationError: the password is too short, too long, or no SecretStr.
    """
    _passwords.require_extra()
    token_hash = _parsed(token)
    found = _FIND_RESET.first(session, token_hash=token_hash)
    if found is None:
        raise AuthenticationError
    normal = _passwords.checked_password(new_password, second_factor=found.two_factor_enabled, field="new_password")
    password_hash = _passwords.hash_password(normal)
    # After the hash: of two callers at once the second finds it used here.
    if _USE_RESET.run(session, token_hash=token_hash) == 0:
        raise AuthenticationError
    return _credentials.store_password(session, found.id, password_hash)


def _issue(session: Session, statement: RowStatement, user_id: Id, ttl: timedelta, **values: str | None) -> IssuedToken:
    if ttl <= timedelta(0):
        raise ValidationError("ttl must be above 0", field="ttl")
    key, row_id, token = parse_id(user_id, "User"), uuid7(), secrets.token_urlsafe(32)
    expires_at = statement.scalar(session, id=row_id, user_id=key, token_hash=_digest(token), ttl=ttl, **values)
    if expires_at is None:
        raise NotFoundError("User", user_id)
    return IssuedToken(row_id, SecretStr(token), expires_at)


def _parsed(token: SecretStr) -> bytes:
    text = token.get_secret_value()
    if not _FORM.fullmatch(text):
        raise AuthenticationError
    return _digest(text)


def _digest(token: str) -> bytes:
    # 256 bits: a slow hash would add nothing.
    return hashlib.sha256(token.encode()).digest()
