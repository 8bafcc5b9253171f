"""What changes about an API key while it is in use: its token, and what it may do."""

from collections.abc import Collection
from datetime import timedelta

from sqlalchemy.orm import Session

from stemmadb.accounts._key_rows import NewKey, checked_lifetime, checked_scopes, insert_key, log
from stemmadb.accounts.data import IssuedApiKey
from stemmadb.accounts.entities import ApiKey
from stemmadb.entity import Id, parse_id
from stemmadb.errors import InvalidTransitionError, NotFoundError
from stemmadb.query import query, read, sql

# Never later than it was. A key that was made in this very transaction ends a microsecond after it began, as its CHECK demands.
_END_AFTER = sql(
    ApiKey,
    """
    UPDATE stemma.api_keys
       SET expires_at = least(expires_at, greatest(now() + CAST(:overlap AS interval), created_at + interval '1 microsecond'))
     WHERE id = :id AND revoked_at IS NULL
    RETURNING {columns}
    """,
)


@query
def rotate(session: Session, key_id: Id, *, overlap: timedelta = timedelta(hours=24)) -> IssuedApiKey:
    """
    Make a key that takes another's place: of the same name, scopes, workspace and owner, with a lifetime as long as that one's was.

    Locks the old key's row. Until the old one ends, both hold; ``rotated_from_id`` links them. Writes a security event.

    Args:
        session: the caller's session; needs no workspace.
        key_id: the key to replace.
        overlap: how long the old key still holds, from now; it ends earlier if it was to end earlier.

    Raises:
        ConflictError: every token that was made has the id of another key, which does not happen by chance.
        InvalidTransitionError: the old key is revoked; nothing was made.
        NotFoundError: no key has this id.
        ValidationError: ``overlap`` is negative; nothing was sent.
    """
    checked_lifetime(overlap, "overlap", may_be_zero=True)
    key = parse_id(key_id, "ApiKey")
    with session.begin_nested():
        before = read(session, ApiKey, key)
        if before is None:
            raise NotFoundError("ApiKey", key_id)
        lifetime = None if before.expires_at is None else before.expires_at - before.created_at
        old = _END_AFTER.write(session, id=key, overlap=overlap)
        if old is None:
            raise InvalidTransitionError("revoked", "rotated", "The API key")
        issued = insert_key(
            session,
            NewKey(
                user_id=old.user_id,
                workspace_id=old.workspace_id,
                name=old.name,
                scopes=list(old.scopes),
                expires_in=lifetime,
                live=not old.prefix.startswith("stm_k_test_"),
                rotated_from_id=old.id,
            ),
        )
    log.info("api key rotated", extra={"key_id": str(key), "successor_id": str(issued.key.id)})
    return issued


_SET_SCOPES = sql(
    ApiKey,
    """
    UPDATE stemma.api_keys SET scopes = CAST(:scopes AS text[])
     WHERE id = :id
    RETURNING {columns}
    """,
)


@query
def set_scopes(session: Session, key_id: Id, scopes: Collection[str]) -> ApiKey:
    """
    Say anew what a key may do; it holds from the next verification. One statement.

    Args:
        session: the caller's session; needs no workspace.
        key_id: which key.
        scopes: ``domain:action`` or ``domain:*``, all of them; none allows nothing.

    Raises:
        NotFoundError: no key has this id.
        ValidationError: a malformed scope; nothing was sent.
    """
    wanted = checked_scopes(scopes)
    key = _SET_SCOPES.write(session, id=parse_id(key_id, "ApiKey"), scopes=wanted)
    if key is None:
        raise NotFoundError("ApiKey", key_id)
    log.info("scopes of api key set", extra={"key_id": str(key.id)})
    return key
