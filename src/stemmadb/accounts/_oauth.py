"""Identities of users at other providers, with the tokens that these gave, encrypted."""

from uuid import UUID

from pydantic import SecretStr
from sqlalchemy import bindparam, select
from sqlalchemy import update as sa_update
from sqlalchemy.orm import Session

from stemmadb import _secrets
from stemmadb._secrets import Place
from stemmadb.accounts._credentials import log
from stemmadb.accounts.data import OAuthLink, OAuthTokens
from stemmadb.accounts.entities import OAuthAccount, User
from stemmadb.documents import OnInvalid, dump_json
from stemmadb.entity import Id, parse_id, uuid7
from stemmadb.errors import ConflictError, NotFoundError
from stemmadb.paging import Page, page
from stemmadb.query import query, read, sql, sql_rows

_FIND = sql_rows(
    """
    SELECT id, user_id FROM stemma.oauth_accounts
     WHERE provider = :provider AND provider_account_id = :provider_account_id
       FOR NO KEY UPDATE
    """
)
_INSERT = sql(
    OAuthAccount,
    """
    INSERT INTO stemma.oauth_accounts (id, user_id, provider, provider_account_id, email, access_token, refresh_token, token_type, scope,
            token_expires_at, profile)
    VALUES (:id, :user_id, :provider, :provider_account_id, :email, :access_token, :refresh_token, :token_type, :scope, :token_expires_at,
            CAST(:profile AS jsonb))
    ON CONFLICT (provider, provider_account_id) DO NOTHING
    RETURNING {columns}
    """,
)
_KEY = ("provider", "provider_account_id")


@query
def link_oauth(session: Session, user_id: Id, data: OAuthLink) -> OAuthAccount:
    """
    Link an identity at a provider to a live user, or renew what is known of it: fields that ``data`` does not give stay.

    The provider's tokens are stored encrypted, and move to no other row; ``get_oauth_tokens`` returns them.

    Raises:
        ConfigurationError: there are tokens, and STEMMADB_SECRET_KEYS holds no key.
        ConflictError: the identity is linked to somebody else. The transaction stays usable.
        MissingDependencyError: there are tokens, and the extra ``auth`` is not installed.
        NotFoundError: no live user has this id.
        ValidationError: a text that PostgreSQL cannot store; nothing was sent.
    """
    key, given = parse_id(user_id, "User"), OAuthLink.of(data)
    # Made as an entity first: its rules are those of the columns.
    OAuthAccount(user_id=key, **given.model_dump(exclude={"access_token", "refresh_token", "profile"}))
    user = read(session, User, key)
    if user is None or user.deleted_at is not None:
        raise NotFoundError("User", user_id)
    identity = {"provider": given.provider, "provider_account_id": given.provider_account_id}
    # Twice: whoever made the row between the two statements has committed it then.
    for _ in range(2):
        found = _FIND.first(session, **identity)
        if found is not None and found.user_id != key:
            break
        account = _insert(session, key, given) if found is None else _renew(session, found.id, given)
        if account is not None:
            log.info("identity linked", extra={"user_id": str(key), "provider": given.provider})
            return account
    raise ConflictError("OAuthAccount", _KEY)


def _insert(session: Session, user_id: UUID, given: OAuthLink) -> OAuthAccount | None:
    row_id = uuid7()
    return _INSERT.write(
        session,
        id=row_id,
        user_id=user_id,
        provider=given.provider,
        provider_account_id=given.provider_account_id,
        email=given.email,
        access_token=_seal(given.access_token, "access_token", row_id),
        refresh_token=_seal(given.refresh_token, "refresh_token", row_id),
        token_type=given.token_type,
        scope=given.scope,
        token_expires_at=given.token_expires_at,
        profile=dump_json(given.profile),
    )


def _renew(session: Session, row_id: UUID, given: OAuthLink) -> OAuthAccount | None:
    changes = {name: value for name, value in given.changes().items() if name not in _KEY}
    for column in ("access_token", "refresh_token"):
        if column in changes:
            changes[column] = _seal(changes[column], column, row_id)
    if not changes:
        return read(session, OAuthAccount, row_id)
    statement = sa_update(OAuthAccount).where(OAuthAccount.id == row_id).values(**changes).returning(OAuthAccount)
    return session.scalars(statement, execution_options={"populate_existing": True}).one_or_none()


_BY_IDENTITY = (
    select(User)
    .join(OAuthAccount, OAuthAccount.user_id == User.id)
    .where(
        OAuthAccount.provider == bindparam("provider"),
        OAuthAccount.provider_account_id == bindparam("provider_account_id"),
        User.deleted_at.is_(None),
    )
)


@query
def find_by_oauth(session: Session, provider: str, provider_account_id: str) -> User | None:
    """
    Return the live user to whom an identity is linked, or None. One statement.

    Args:
        session: the caller's session; needs no workspace.
        provider: in any letter case.
        provider_account_id: what the provider calls the user.
    """
    values = {"provider": provider.lower(), "provider_account_id": provider_account_id}
    return session.scalars(_BY_IDENTITY, values).one_or_none()


@query
def list_oauth(
    session: Session, user_id: Id, *, cursor: str | None = None, limit: int = 50, on_invalid: OnInvalid = "raise"
) -> Page[OAuthAccount]:
    """
    Return the identities of a user, newest first, by (created_at, id); their tokens are not fetched. An unknown user has none.

    Args:
        session: the caller's session; needs no workspace.
        user_id: whose.
        cursor: ``next_cursor`` of the page before; None starts at the first.
        limit: 1 to 200.
        on_invalid: what becomes of an identity whose profile cannot be read: "raise" refuses the page, "skip" leaves it out (the page is
            shorter then), "raw" puts a RawDocument in its place.

    Raises:
        CorruptDocumentError, UnknownSchemaVersionError: a profile cannot be read and on_invalid is "raise".
        InvalidCursorError: the cursor is not of this list.
    """
    statement = select(OAuthAccount).where(OAuthAccount.user_id == parse_id(user_id, "User"))
    return page(
        session,
        statement,
        order_by=[OAuthAccount.created_at.desc(), OAuthAccount.id.desc()],
        cursor=cursor,
        limit=limit,
        on_invalid=on_invalid,
    )


_READ_TOKENS = sql_rows("SELECT access_token, refresh_token FROM stemma.oauth_accounts WHERE id = :id")


@query
def get_oauth_tokens(session: Session, oauth_account_id: Id) -> OAuthTokens:
    """
    Return the tokens that a provider gave, decrypted.

    Raises:
        ConfigurationError: STEMMADB_SECRET_KEYS does not hold the key, or a stored text was altered or moved here.
        MissingDependencyError: there are tokens, and the extra ``auth`` is not installed.
        NotFoundError: no identity has this id.
    """
    key = parse_id(oauth_account_id, "OAuthAccount")
    row = _READ_TOKENS.first(session, id=key)
    if row is None:
        raise NotFoundError("OAuthAccount", oauth_account_id)
    return OAuthTokens(_unseal(row.access_token, "access_token", key), _unseal(row.refresh_token, "refresh_token", key))


_UNLINK = sql_rows("DELETE FROM stemma.oauth_accounts WHERE id = :id")


@query
def unlink_oauth(session: Session, oauth_account_id: Id) -> None:
    """
    Remove an identity, with its tokens.

    Raises:
        NotFoundError: no identity has this id.
    """
    key = parse_id(oauth_account_id, "OAuthAccount")
    if _UNLINK.run(session, id=key) == 0:
        raise NotFoundError("OAuthAccount", oauth_account_id)
    log.info("identity unlinked", extra={"oauth_account_id": str(key)})


def _seal(token: SecretStr | None, column: str, row_id: UUID) -> str | None:
    return None if token is None else _secrets.encrypt(token.get_secret_value(), Place("oauth_accounts", column, row_id))


def _unseal(stored: str | None, column: str, row_id: UUID) -> SecretStr | None:
    return None if stored is None else SecretStr(_secrets.decrypt(stored, Place("oauth_accounts", column, row_id)))
