"""What the modules about API keys share: how a key gets its row and is found, and what a name and scopes must be."""

import functools
import logging
import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

from pydantic import SecretStr
from sqlalchemy.orm import Session

from stemmadb.accounts import _security_events, _tokens
from stemmadb.accounts.data import IssuedApiKey
from stemmadb.accounts.entities import ApiKey
from stemmadb.accounts.vocabularies import SecurityEventType
from stemmadb.data import checked_text
from stemmadb.entity import uuid7
from stemmadb.errors import ConflictError, ValidationError
from stemmadb.query import sql, sql_tuples
from stemmadb.settings import KeyRing, load_settings

# The private modules about keys log under the name that callers import.
log = logging.getLogger("stemmadb.accounts.api_keys")

_SCOPE = re.compile(r"[a-z][a-z0-9_]*:([a-z][a-z0-9_]*|\*)")
_TRIES = 3
_LATEST = datetime(9998, 12, 31, tzinfo=UTC)

# Nothing happens on a conflict: a new id is tried, in a transaction that is still usable.
_INSERT = sql(
    ApiKey,
    """
    INSERT INTO stemma.api_keys (id, user_id, workspace_id, name, prefix, key_hash, pepper_version, last_four, scopes, expires_at,
            rotated_from_id)
    VALUES (:id, :user_id, :workspace_id, :name, :prefix, :key_hash, :pepper_version, :last_four, CAST(:scopes AS text[]),
            now() + CAST(:expires_in AS interval), :rotated_from_id)
    ON CONFLICT (prefix) DO NOTHING
    RETURNING {columns}
    """,
)


class StoredKey(NamedTuple):
    """What a token is compared with."""

    id: UUID
    user_id: UUID
    workspace_id: UUID | None
    key_hash: bytes
    pepper_version: int | None
    scopes: list[str]
    holds: bool
    """Neither the key nor its owner or workspace has ended."""
    stale: bool
    """Its last use is to be written."""


# The owner is read with the key, so that a deleted or suspended person's keys stop at once.
STORED: Final = sql_tuples(
    StoredKey,
    """
    SELECT api_keys.id, api_keys.user_id, api_keys.workspace_id, api_keys.key_hash, api_keys.pepper_version, api_keys.scopes,
           api_keys.revoked_at IS NULL AND (api_keys.expires_at IS NULL OR api_keys.expires_at > now()) AND users.status = 'ACTIVE'
               AND (workspaces.id IS NULL OR workspaces.deleted_at IS NULL) AS holds,
           coalesce(api_keys.last_used_at < now() - CAST(:grain AS interval), true) AS stale
      FROM stemma.api_keys
      JOIN stemma.users ON users.id = api_keys.user_id
      LEFT JOIN stemma.workspaces ON workspaces.id = api_keys.workspace_id
     WHERE api_keys.prefix = :prefix
    """,
)


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that is to be made; checked already."""

    user_id: UUID
    workspace_id: UUID | None
    name: str
    scopes: list[str]
    expires_in: timedelta | None
    live: bool
    rotated_from_id: UUID | None = None


def insert_key(session: Session, new: NewKey) -> IssuedApiKey:
    """
    Store a key with a new token, and the event that tells of it.

    Raises:
        ConflictError: every token that was made has the id of another key, which does not happen by chance.
    """
    version, pepper = _tokens.newest_pepper(known_peppers())
    for _ in range(_TRIES):
        token = _tokens.generate("k", live=new.live)
        key = _INSERT.write(
            session,
            id=uuid7(),
            user_id=new.user_id,
            workspace_id=new.workspace_id,
            name=new.name,
            prefix=token.prefix,
            key_hash=_tokens.digest(token.text, pepper),
            pepper_version=version,
            last_four=token.last_four,
            scopes=new.scopes,
            expires_in=new.expires_in,
            rotated_from_id=new.rotated_from_id,
        )
        if key is not None:
            record_key_event(session, key, SecurityEventType.API_KEY_CREATED)
            log.info("api key issued", extra={"key_id": str(key.id), "user_id": str(new.user_id)})
            return IssuedApiKey(key, SecretStr(token.text))
    raise ConflictError("ApiKey", ("prefix",))


def record_key_event(session: Session, key: ApiKey, type: SecurityEventType) -> None:
    """Write a security event about a key, in the caller's transaction."""
    _security_events.record(session, type, key.user_id, details={"key_id": str(key.id), "prefix": key.prefix})


def checked_name(name: str) -> str:
    """
    Return the name.

    Raises:
        ValidationError: it is no text that can be stored, or there is nothing to read in it.
    """
    if not checked_text(name, "name").strip():
        raise ValidationError("name says what the key is for", field="name")
    return name


def checked_lifetime(lifetime: timedelta, field: str, *, may_be_zero: bool = False) -> timedelta:
    """
    Return how long something holds from now.

    Args:
        lifetime: the time.
        field: the parameter that it was given as.
        may_be_zero: whether it may end at once.

    Raises:
        ValidationError: it is no timedelta, too short, or ends after the year 9998.
    """
    least = timedelta(0) if may_be_zero else timedelta.resolution
    if not isinstance(lifetime, timedelta) or not least <= lifetime < _LATEST - datetime.now(UTC):
        raise ValidationError(f"{field} must be {'0 or more' if may_be_zero else 'above 0'}, and end before the year 9999", field=field)
    return lifetime


def is_scope(value: object) -> bool:
    """Return whether it is ``domain:action`` or ``domain:*``."""
    return isinstance(value, str) and _SCOPE.fullmatch(value) is not None


def checked_scopes(scopes: Collection[str]) -> list[str]:
    """
    Return the scopes as they are stored: each once, sorted.

    Raises:
        ValidationError: one is malformed.
    """
    if isinstance(scopes, str | bytes) or not isinstance(scopes, Collection):
        raise ValidationError("scopes is a collection of domain:action", field="scopes")
    for scope in scopes:
        if not is_scope(scope):
            raise ValidationError("a scope is domain:action or domain:*, in lower case", field="scopes")
    return sorted(set(scopes))


def known_peppers() -> KeyRing:
    """Return the peppers of the environment, newest first."""
    return _peppers(os.environ.get("STEMMADB_TOKEN_PEPPERS", ""))


@functools.lru_cache(maxsize=8)
def _peppers(_configured: str) -> KeyRing:
    # Reading the environment takes three times as long as verifying a key.
    return load_settings().token_peppers
