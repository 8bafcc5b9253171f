"""Identities at other providers: one user each, with tokens that only their row and their key open."""

import base64
import logging
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from stemmadb.accounts import users
from stemmadb.accounts.documents import OAuthProfile
from stemmadb.accounts.entities import OAuthAccount, User
from stemmadb.accounts.users import OAuthLink
from stemmadb.aio.accounts import users as ausers
from stemmadb.database import Database
from stemmadb.errors import ConfigurationError, ConflictError, NotFoundError, ValidationError
from stemmadb.testing import assert_max_queries, count_queries, run_together

ACCESS, REFRESH = SecretStr("ya29.access-token"), SecretStr("1//refresh-token")


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEMMADB_SECRET_KEYS", "one:" + base64.b64encode(b"o" * 32).decode())


@pytest.fixture
def user(session: Session) -> User:
    """Somebody who signs in elsewhere."""
    return users.create(session, f"{uuid4().hex}@example.com")


@pytest.mark.requirement("TN-018", "EC-010")
def test_link_and_find(session: Session, user: User) -> None:
    """By provider in any letter case and account; the tokens are stored as ciphertexts and read back."""
    account, end = uuid4().hex, datetime.now(UTC) + timedelta(hours=1)
    link = OAuthLink(
        provider="Google",
        provider_account_id=account,
        email="a@example.com",
        access_token=ACCESS,
        refresh_token=REFRESH,
        token_expires_at=end,
        profile=OAuthProfile(subject=account, name="Ada"),
    )
    made = users.link_oauth(session, user.id, link)
    assert (made.user_id, made.provider, made.email, made.token_expires_at, made.profile.name) == (
        user.id,
        "google",
        "a@example.com",
        end,
        "Ada",
    )
    with assert_max_queries(1):
        assert users.find_by_oauth(session, "GOOGLE", account) is user
    assert users.find_by_oauth(session, "github", account) is None
    tokens = users.get_oauth_tokens(session, made.id)
    assert (tokens.access_token, tokens.refresh_token) == (ACCESS, REFRESH)
    told = str(session.execute(text("SELECT * FROM stemma.oauth_accounts")).all()) + repr(link) + repr(made) + repr(tokens)
    for token in (ACCESS, REFRESH):
        assert token.get_secret_value() not in told
    session.expunge_all()
    assert not {"access_token", "refresh_token"} & users.list_oauth(session, user.id)[0].__dict__.keys()
    users.soft_delete(session, user.id)
    assert users.find_by_oauth(session, "google", account) is None


def test_linked_again_it_is_renewed(session: Session, user: User) -> None:
    """What is not given stays; what is given as None is cleared; nothing given changes nothing."""
    key = {"provider": "github", "provider_account_id": uuid4().hex}
    made = users.link_oauth(session, user.id, OAuthLink(**key, access_token=ACCESS, refresh_token=REFRESH, scope="user"))
    again = users.link_oauth(
        session, user.id, OAuthLink(**key, access_token=SecretStr("new"), scope=None, profile=OAuthProfile(name="Ada"))
    )
    assert (again.id, again.scope, again.profile.name) == (made.id, None, "Ada")
    tokens = users.get_oauth_tokens(session, made.id)
    assert (tokens.access_token, tokens.refresh_token) == (SecretStr("new"), REFRESH)
    assert users.link_oauth(session, user.id, OAuthLink(**key)) is again
    bare = users.link_oauth(session, user.id, OAuthLink(provider="github", provider_account_id=uuid4().hex))
    assert users.get_oauth_tokens(session, bare.id).access_token is None
    assert [row.id for row in users.list_oauth(session, user.id)] == [bare.id, made.id]
    assert len(users.list_oauth(session, user.id, limit=1)) == 1


def test_an_identity_is_one_users(session: Session, user: User) -> None:
    """ConflictError, and the transaction goes on; it is free again when it is unlinked."""
    other, link = users.create(session, f"{uuid4().hex}@example.com"), OAuthLink(provider="google", provider_account_id=uuid4().hex)
    made = users.link_oauth(session, user.id, link)
    with pytest.raises(ConflictError) as caught:
        users.link_oauth(session, other.id, link)
    assert tuple(caught.value.fields) == ("provider", "provider_account_id")
    users.unlink_oauth(session, made.id)
    assert users.link_oauth(session, other.id, link).user_id == other.id
    for wanted in (made.id, "nonsense"):
        with pytest.raises(NotFoundError):
            users.unlink_oauth(session, wanted)
        with pytest.raises(NotFoundError):
            users.get_oauth_tokens(session, wanted)
    for wanted in (uuid4(), "nonsense"):
        with pytest.raises(NotFoundError):
            users.link_oauth(session, wanted, link)


@pytest.mark.requirement("AD-026")
def test_a_token_moved_to_another_row_or_column_does_not_open(session: Session, user: User) -> None:
    """Between two identities, and between the two columns of one."""
    first, second = (
        users.link_oauth(session, user.id, OAuthLink(provider="google", provider_account_id=uuid4().hex, access_token=ACCESS)) for _ in "12"
    )
    session.execute(
        text(
            "UPDATE stemma.oauth_accounts SET access_token = (SELECT access_token FROM stemma.oauth_accounts WHERE id = :a) WHERE id = :b"
        ),
        {"a": first.id, "b": second.id},
    )
    session.execute(
        text("UPDATE stemma.oauth_accounts SET refresh_token = access_token, access_token = NULL WHERE id = :a"), {"a": first.id}
    )
    for moved in (first, second):
        with pytest.raises(ConfigurationError) as caught:
            users.get_oauth_tokens(session, moved.id)
        assert ACCESS.get_secret_value() not in str(caught.value)


@pytest.mark.race
def test_of_eight_users_at_once_one_gets_the_identity(committed_db: Database) -> None:
    """The others are told; the same user eight times is one row."""
    with committed_db.session() as session:
        people = [users.create(session, f"u{number}@example.com").id for number in range(8)]
    for owners, expected in ((people, 1), ([people[0]] * 8, 8)):
        link = OAuthLink(provider="google", provider_account_id=uuid4().hex, access_token=ACCESS)

        def attempt(number: int, link: OAuthLink = link, owners: Any = owners) -> OAuthAccount:
            with committed_db.session() as session:
                return users.link_oauth(session, owners[number], link)

        results = run_together(8, attempt)
        assert sum(isinstance(result, OAuthAccount) for result in results) == expected
        assert sum(isinstance(result, ConflictError) for result in results) == 8 - expected
        with committed_db.session() as session:
            assert (
                session.scalar(
                    text("SELECT count(*) FROM stemma.oauth_accounts WHERE provider_account_id = :a"), {"a": link.provider_account_id}
                )
                == 1
            )


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"provider": ""}, "provider"),
        ({"provider_account_id": ""}, "provider_account_id"),
        ({"token_expires_at": datetime(2030, 1, 1)}, "token_expires_at"),
        ({"scope": "a\x00"}, "scope"),
        ({"provider_account_id": "\ud800"}, "provider_account_id"),
        ({"user_id": "x"}, "user_id"),
    ],
)
def test_bad_input_is_refused_before_anything_is_sent(session: Session, user: User, values: dict[str, Any], field: str) -> None:
    """A ValidationError that names the field."""
    with count_queries() as sent, pytest.raises(ValidationError) as caught:
        users.link_oauth(session, user.id, OAuthLink(**{"provider": "google", "provider_account_id": "1", **values}))
    assert (sent.count, caught.value.field) == (0, field)


def test_keys_are_asked_for_only_where_there_are_tokens(session: Session, user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """An identity without tokens needs neither keys nor the extra."""
    monkeypatch.setenv("STEMMADB_SECRET_KEYS", "")
    made = users.link_oauth(session, user.id, OAuthLink(provider="google", provider_account_id=uuid4().hex))
    assert users.get_oauth_tokens(session, made.id).refresh_token is None
    with pytest.raises(ConfigurationError):
        users.link_oauth(session, user.id, OAuthLink(provider="google", provider_account_id=uuid4().hex, access_token=ACCESS))


def test_no_token_in_logs(session: Session, user: User, caplog: pytest.LogCaptureFixture) -> None:
    """At any level, of any logger."""
    with caplog.at_level(logging.DEBUG):
        link = OAuthLink(provider="google", provider_account_id=uuid4().hex, access_token=ACCESS, refresh_token=REFRESH)
        for _ in range(2):
            users.get_oauth_tokens(session, users.link_oauth(session, user.id, link).id)
    for token in (ACCESS, REFRESH):
        assert token.get_secret_value() not in caplog.text


async def test_twins(async_session: AsyncSession) -> None:
    """The async twins do the same work."""
    user = await ausers.create(async_session, f"{uuid4().hex}@example.com")
    link = OAuthLink(provider="google", provider_account_id=uuid4().hex, access_token=ACCESS)
    made = await ausers.link_oauth(async_session, user.id, link)
    assert await ausers.find_by_oauth(async_session, "google", link.provider_account_id) is user
    assert (await ausers.get_oauth_tokens(async_session, made.id)).access_token == ACCESS
    assert len(await ausers.list_oauth(async_session, user.id)) == 1
    await ausers.unlink_oauth(async_session, made.id)
