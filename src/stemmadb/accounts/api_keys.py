"""API keys: issued once, stored as a digest, verified with one indexed read."""

import hmac
import logging
import re
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from pydantic import AwareDatetime, SecretStr
from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from stemmadb import _apart
from stemmadb._exports import adopt
from stemmadb.accounts import _security_events, _tokens
from stemmadb.accounts._key_rotation import rotate, set_scopes
from stemmadb.accounts._key_rows import (
    STORED,
    NewKey,
    checked_lifetime,
    checked_name,
    checked_scopes,
    insert_key,
    is_scope,
    known_peppers,
    record_key_event,
)
from stemmadb.accounts.data import ApiKeyIdentity, IssuedApiKey
from stemmadb.accounts.entities import ApiKey
from stemmadb.accounts.vocabularies import SecurityEventType
from stemmadb.entity import Id, parse_id, parse_reference, uuid7
from stemmadb.errors import AuthenticationError, ConflictError, NotFoundError, StemmaError, ValidationError
from stemmadb.paging import Page, page
from stemmadb.query import query, read, sql, sql_rows, tenant_query
from stemmadb.settings import KeyRing
from stemmadb.tenancy import workspace_of

__all__ = [
    "ApiKeyIdentity",
    "IssuedApiKey",
    "create",
    "issue",
    "verify",
    "looks_like_token",
    "get",
    "find",
    "get_by_prefix",
    "find_by_prefix",
    "list_for_user",
    "list_for_workspace",
    "rotate",
    "set_scopes",
    "revoke",
    "delete",
]

logger: Final = logging.getLogger(__name__)

_PREFIX = re.compile(r"[0-9A-Za-z_-]{8,64}")
_GRAIN = "5 minutes"


@query
def issue(
    session: Session,
    user_id: Id,
    name: str,
    *,
    workspace_id: Id | None = None,
    scopes: Collection[str] = (),
    expires_in: timedelta | None = timedelta(days=365),
    live: bool = True,
) -> IssuedApiKey:
    """
    Make a key, and its token, which is shown this once. Writes a security event in the same transaction.

    Args:
        session: the caller's session; needs no workspace.
        user_id: whose key it is.
        name: what it is for.
        workspace_id: the workspace it opens; None makes a personal key.
        scopes: what it may do, ``domain:action`` or ``domain:*``; none allows nothing.
        expires_in: how long it holds, from now; None: for ever.
        live: False makes a token that says ``test``.

    Raises:
        ConflictError: every token that was made has the id of another key, which does not happen by chance.
        ReferenceNotFoundError: no such user or workspace.
        ValidationError: a malformed scope, an empty name, a lifetime that is not positive; nothing was sent.
    """
    if expires_in is not None:
        checked_lifetime(expires_in, "expires_in")
    return insert_key(
        session,
        NewKey(
            user_id=parse_reference(user_id, "user_id"),
            workspace_id=None if workspace_id is None else parse_reference(workspace_id, "workspace_id"),
            name=checked_name(name),
            scopes=checked_scopes(scopes),
            expires_in=expires_in,
            live=live,
        ),
    )


_INSERT_DIGEST = sql(
    ApiKey,
    """
    INSERT INTO stemma.api_keys (id, user_id, workspace_id, name, prefix, key_hash, scopes, expires_at)
    VALUES (:id, :user_id, :workspace_id, :name, :prefix, :key_hash, CAST(:scopes AS text[]), :expires_at)
    ON CONFLICT (prefix) DO NOTHING
    RETURNING {columns}
    """,
)


@query
def create(
    session: Session,
    user_id: Id,
    name: str,
    key_hash: bytes,
    prefix: str,
    *,
    workspace_id: Id | None = None,
    scopes: Collection[str] = (),
    expires_at: AwareDatetime | None = None,
) -> ApiKey:
    """
    Store a digest that was made elsewhere. ``verify`` checks it when its token has the library's form.

    Args:
        session: the caller's session; needs no workspace.
        user_id: whose key it is.
        name: what it is for.
        key_hash: 32 bytes: the SHA-256 of the token.
        prefix: what the key is found by; 8 to 64 letters, digits, ``_`` and ``-``.
        workspace_id: the workspace it opens; None makes a personal key.
        scopes: what it may do; none allows nothing.
        expires_at: until when it holds; None: for ever.

    Raises:
        ConflictError: the prefix belongs to a key.
        ReferenceNotFoundError: no such user or workspace.
        ValidationError: a digest of another length, a malformed prefix or scope; nothing was sent.
    """
    if not isinstance(key_hash, bytes) or len(key_hash) != 32:
        raise ValidationError("key_hash is a digest of 32 bytes", field="key_hash")
    if not _is_prefix(prefix):
        raise ValidationError("prefix takes 8 to 64 letters, digits, _ and -", field="prefix")
    if expires_at is not None and (not isinstance(expires_at, datetime) or expires_at.utcoffset() is None):
        raise ValidationError("expires_at is a datetime with a time zone", field="expires_at")
    if expires_at is not None:
        checked_lifetime(expires_at - datetime.now(UTC), "expires_at")
    key = _INSERT_DIGEST.write(
        session,
        id=uuid7(),
        user_id=parse_reference(user_id, "user_id"),
        workspace_id=None if workspace_id is None else parse_reference(workspace_id, "workspace_id"),
        name=checked_name(name),
        prefix=prefix,
        key_hash=key_hash,
        scopes=checked_scopes(scopes),
        expires_at=expires_at,
    )
    if key is None:
        raise ConflictError("ApiKey", ("prefix",))
    logger.info("api key stored", extra={"key_id": str(key.id)})
    return key


# Conditional, so that of many concurrent uses one writes, at most every five minutes; a digest of an older pepper is renewed with it.
# A row that somebody holds, the caller's own transaction perhaps, is left alone: nobody waits for this.
_USED = """
    UPDATE stemma.api_keys
       SET last_used_at = now(), key_hash = :key_hash, pepper_version = :pepper_version
     WHERE id = (SELECT id FROM stemma.api_keys
                  WHERE id = :id AND (last_used_at IS NULL OR last_used_at < now() - CAST(:grain AS interval))
                    FOR NO KEY UPDATE SKIP LOCKED)
"""


@query
def verify(session: Session, token: SecretStr, *, required_scope: str | None = None) -> ApiKeyIdentity:
    """
    Say whom a token speaks for: form and checksum without a query, then one indexed read and a comparison in constant time.

    ``last_used_at`` is written at most every 5 minutes, in a transaction of its own; that it fails never fails the verification.

    Args:
        session: the caller's session; needs no workspace.
        token: what the client sent.
        required_scope: ``domain:action`` that the key must allow; None asks for nothing.

    Raises:
        AuthenticationError: unknown, wrong, expired, revoked, or of somebody who is not active: one message for all.
        PermissionDeniedError: the key is right, but does not allow ``required_scope``. That is a security event.
        ValidationError: the token is not wrapped, or the scope is malformed; nothing was sent.
    """
    if not isinstance(token, SecretStr):
        raise ValidationError("token is a pydantic SecretStr, which no log and no traceback shows", field="token")
    if required_scope is not None and not is_scope(required_scope):
        raise ValidationError("required_scope is of the form domain:action", field="required_scope")
    parsed = _tokens.parse(token.get_secret_value(), "k")
    if parsed is None:
        raise AuthenticationError
    peppers = known_peppers()
    row = STORED.first(session, prefix=parsed.prefix, grain=_GRAIN)
    # An unknown id does the same work as a known one.
    stored = bytes(32) if row is None else row.key_hash
    computed = _tokens.digest(parsed.text, _tokens.pepper_of(peppers, None if row is None else row.pepper_version))
    if not hmac.compare_digest(stored, computed) or row is None or not row.holds:
        raise AuthenticationError
    identity = ApiKeyIdentity(row.id, row.user_id, row.workspace_id, frozenset(row.scopes))
    if row.stale:
        _touch(session, row.id, parsed.text, peppers)
    if required_scope is not None and not identity.allows(required_scope):
        raise _security_events.refused(session, identity.user_id, required_scope)
    return identity


def _touch(session: Session, key_id: UUID, token: str, peppers: KeyRing) -> None:
    version, pepper = _tokens.newest_pepper(peppers)
    try:
        _apart.execute(
            session, _USED, {"id": key_id, "key_hash": _tokens.digest(token, pepper), "pepper_version": version, "grain": _GRAIN}
        )
    except StemmaError as error:
        logger.warning("last_used_at was not written: %s", type(error).__name__, extra={"key_id": str(key_id)})


def looks_like_token(text: str) -> bool:
    """Return whether the text has the form and the checksum of an API key; no database is asked."""
    return _tokens.parse(text, "k") is not None


def _is_prefix(value: object) -> bool:
    return isinstance(value, str) and _PREFIX.fullmatch(value) is not None


_BY_PREFIX = select(ApiKey).where(ApiKey.prefix == bindparam("prefix"))


@query
def get(session: Session, key_id: Id) -> ApiKey:
    """
    Return a key by id, revoked and expired ones included; its digest is not fetched.

    Raises:
        NotFoundError: no key has this id.
    """
    key = find(session, key_id)
    if key is None:
        raise NotFoundError("ApiKey", key_id)
    return key


@query
def find(session: Session, key_id: Id) -> ApiKey | None:
    """Return a key by id, or None."""
    try:
        return read(session, ApiKey, parse_id(key_id, "ApiKey"))
    except NotFoundError:
        return None


@query
def get_by_prefix(session: Session, prefix: str) -> ApiKey:
    """
    Return the key with this prefix, revoked and expired ones included.

    Raises:
        NotFoundError: no key has it.
    """
    key = find_by_prefix(session, prefix)
    if key is None:
        raise NotFoundError("ApiKey", prefix)
    return key


@query
def find_by_prefix(session: Session, prefix: str) -> ApiKey | None:
    """Return the key with this prefix, or None."""
    if not _is_prefix(prefix):
        return None
    return session.scalars(_BY_PREFIX, {"prefix": prefix}).one_or_none()


@query
def list_for_user(
    session: Session, user_id: Id, *, include_revoked: bool = True, cursor: str | None = None, limit: int = 50
) -> Page[ApiKey]:
    """
    Return a user's keys, newest first, by (created_at, id); digests are not fetched. An unknown user has none.

    Args:
        session: the caller's session; needs no workspace.
        user_id: whose keys.
        include_revoked: whether revoked keys are in the list.
        cursor: ``next_cursor`` of the page before; None starts at the first.
        limit: 1 to 200.

    Raises:
        InvalidCursorError: the cursor is not of this list.
    """
    statement = select(ApiKey).where(ApiKey.user_id == parse_id(user_id, "User"))
    if not include_revoked:
        statement = statement.where(ApiKey.revoked_at.is_(None))
    return page(session, statement, order_by=[ApiKey.created_at.desc(), ApiKey.id.desc()], cursor=cursor, limit=limit)


@tenant_query
def list_for_workspace(session: Session, *, include_revoked: bool = True, cursor: str | None = None, limit: int = 50) -> Page[ApiKey]:
    """
    Return the keys of the session's workspace, whoever made them, newest first, by (created_at, id); digests are not fetched.

    Args:
        session: the caller's session, in a workspace.
        include_revoked: whether revoked keys are in the list.
        cursor: ``next_cursor`` of the page before; None starts at the first.
        limit: 1 to 200.

    Raises:
        InvalidCursorError: the cursor is not of this list.
    """
    statement = select(ApiKey).where(ApiKey.workspace_id == workspace_of(session))
    if not include_revoked:
        statement = statement.where(ApiKey.revoked_at.is_(None))
    return page(session, statement, order_by=[ApiKey.created_at.desc(), ApiKey.id.desc()], cursor=cursor, limit=limit)


_REVOKE = sql(
    ApiKey,
    """
    UPDATE stemma.api_keys SET revoked_at = now()
     WHERE id = :id AND revoked_at IS NULL
    RETURNING {columns}
    """,
)


@query
def revoke(session: Session, key_id: Id) -> ApiKey:
    """
    End a key: from the next verification on it is refused. A revoked key stays as it is. Writes a security event.

    Raises:
        NotFoundError: no key has this id.
    """
    key = _REVOKE.write(session, id=parse_id(key_id, "ApiKey"))
    if key is None:
        return get(session, key_id)
    record_key_event(session, key, SecurityEventType.API_KEY_REVOKED)
    logger.info("api key revoked", extra={"key_id": str(key.id)})
    return key


_DELETE = sql_rows("DELETE FROM stemma.api_keys WHERE id = :id")


@query
def delete(session: Session, key_id: Id) -> None:
    """
    Remove a key for good.

    Raises:
        NotFoundError: no key has this id.
    """
    if _DELETE.run(session, id=parse_id(key_id, "ApiKey")) == 0:
        raise NotFoundError("ApiKey", key_id)


adopt(globals())
