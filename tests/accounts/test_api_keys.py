"""API keys: shown once, stored as a digest, verified with one read, refused offline when mistyped."""

import hashlib
import logging
import random
import string
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from stemmadb.accounts import api_keys, audit, users
from stemmadb.accounts.entities import User
from stemmadb.aio.accounts import api_keys as aapi_keys
from stemmadb.aio.accounts import users as ausers
from stemmadb.database import Database
from stemmadb.errors import (
    AuthenticationError,
    ConflictError,
    InvalidTransitionError,
    NotFoundError,
    PermissionDeniedError,
    ReferenceNotFoundError,
    ValidationError,
    WorkspaceNotSetError,
)
from stemmadb.testing import assert_max_queries, count_queries

PEPPERS = "2:" + "bmV3LXBlcHBlci1uZXctcGVwcGVy" + ",1:" + "b2xkLXBlcHBlci1vbGQtcGVwcGVy"


@pytest.fixture
def user(session: Session) -> User:
    """Somebody."""
    return users.create(session, f"{uuid4().hex}@example.com")


@pytest.mark.requirement("VR-030", "TN-022", "EC-246")
def test_issue_and_verify(session: Session, user: User, workspace: UUID) -> None:
    """A token opens what it was made for; the table holds no readable part of the secret."""
    personal = api_keys.issue(session, user.id, "mine", scopes=["runs:read"])
    shared = api_keys.issue(session, user.id, "lab", workspace_id=workspace, scopes=["runs:*"])
    found = api_keys.verify(session, personal.token, required_scope="runs:read")
    assert (found.key_id, found.user_id, found.workspace_id, found.scopes) == (personal.key.id, user.id, None, frozenset({"runs:read"}))
    assert api_keys.verify(session, shared.token, required_scope="runs:write").workspace_id == workspace
    stored = str(session.execute(text("SELECT * FROM stemma.api_keys")).all())
    secret = personal.token.get_secret_value()
    assert secret not in stored
    assert secret[24:60] not in stored
    assert secret not in repr(personal) + repr(personal.key) + repr(personal.token)


@pytest.mark.requirement("VR-030")
def test_a_token_has_its_form(session: Session, user: User) -> None:
    """stm_k_<env>_<id12>_<secret43><crc6>; the prefix is what is looked up, the last four what is recognised."""
    issued = api_keys.issue(session, user.id, "k", live=False)
    token = issued.token.get_secret_value()
    assert token.startswith(issued.key.prefix + "_")
    assert issued.key.prefix.startswith("stm_k_test_")
    assert issued.key.last_four == token[-4:]
    assert api_keys.looks_like_token(token)


@pytest.mark.offline
@pytest.mark.property
@pytest.mark.requirement("AD-023")
def test_mistyped_tokens_are_refused_offline() -> None:
    """Every character of a token edited, and 100,000 random strings: none looks like a token, and no database is asked."""
    from stemmadb.accounts import _tokens

    generator = random.Random(1)
    alphabet = string.ascii_letters + string.digits + "_-"
    for _ in range(20):
        token = _tokens.generate("k", live=True).text
        for position, character in enumerate(token):
            for other in alphabet:
                if other != character:
                    assert not api_keys.looks_like_token(token[:position] + other + token[position + 1 :])
    for _ in range(100_000):
        assert not api_keys.looks_like_token("stm_k_live_" + "".join(generator.choices(alphabet, k=62)))


@pytest.mark.slow
@pytest.mark.offline
@pytest.mark.property
@pytest.mark.timeout(600)
@pytest.mark.requirement("AD-023")
@pytest.mark.parametrize("seed", range(4))
def test_ten_million_random_strings_are_no_tokens(seed: int) -> None:
    """Two and a half million in each of four tests, all of the right form: the checksum refuses every one of them."""
    generator = random.Random(seed)
    letters = bytes((string.digits + string.ascii_letters).encode()[byte % 62] for byte in range(256))
    accepted = 0
    for _ in range(50):
        text_ = generator.randbytes(50_000 * 61).translate(letters).decode()
        for start in range(0, len(text_), 61):
            accepted += api_keys.looks_like_token(f"stm_k_live_{text_[start : start + 12]}_{text_[start + 12 : start + 61]}")
    assert accepted == 0


@pytest.mark.requirement("AD-023")
def test_garbage_sends_nothing(session: Session) -> None:
    """A string that is no token is refused without a statement."""
    with count_queries() as sent, pytest.raises(AuthenticationError):
        api_keys.verify(session, SecretStr("hunter2"))
    assert sent.count == 0


def test_one_message_for_every_reason(session: Session, user: User) -> None:
    """Unknown, wrong, expired, revoked, of a deleted person: the same error, word for word."""
    from stemmadb.accounts import _tokens

    expired, revoked, orphaned, wrong = (api_keys.issue(session, user.id, name) for name in ("a", "b", "c", "d"))
    session.execute(
        text("UPDATE stemma.api_keys SET created_at = now() - interval '2 days', expires_at = now() - interval '1 day' WHERE id = :id"),
        {"id": expired.key.id},
    )
    api_keys.revoke(session, revoked.key.id)
    session.execute(text("UPDATE stemma.api_keys SET key_hash = :hash WHERE id = :id"), {"hash": bytes(32), "id": wrong.key.id})
    unknown = SecretStr(_tokens.generate("k", live=True).text)
    messages = set()
    for token in (expired.token, revoked.token, wrong.token, unknown):
        with assert_max_queries(1), pytest.raises(AuthenticationError) as caught:
            api_keys.verify(session, token)
        messages.add(str(caught.value))
    session.execute(text("UPDATE stemma.users SET status = 'SUSPENDED' WHERE id = :id"), {"id": user.id})
    with pytest.raises(AuthenticationError) as caught:
        api_keys.verify(session, orphaned.token)
    assert messages == {str(caught.value)}


def test_scopes_deny_by_default(session: Session, user: User) -> None:
    """No scope allows nothing; domain:* allows the domain and no other."""
    none, some = api_keys.issue(session, user.id, "a"), api_keys.issue(session, user.id, "b", scopes=["runs:*"])
    for token, scope in ((none.token, "runs:read"), (some.token, "users:read")):
        with pytest.raises(PermissionDeniedError):
            api_keys.verify(session, token, required_scope=scope)
    assert api_keys.verify(session, some.token, required_scope="runs:read")


def test_a_scope_that_is_refused_is_on_record(committed_db: Database) -> None:
    """Also when the caller's transaction is rolled back, as it is by the error."""
    with committed_db.session() as session:
        user_id = users.create(session, "a@example.com").id
        issued = api_keys.issue(session, user_id, "laptop", scopes=["runs:read"])
    with pytest.raises(PermissionDeniedError) as caught, committed_db.session() as session:
        api_keys.verify(session, issued.token, required_scope="runs:write")
    with committed_db.session() as session:
        (event,) = audit.list_security_events(session, user_id=user_id, type="PERMISSION_DENIED").items
    assert (caught.value.permission, event.payload.details) == ("runs:write", {"permission": "runs:write"})


@pytest.mark.requirement("AD-024")
def test_last_used_is_written_at_most_every_five_minutes(committed_db: Database, owner: Engine) -> None:
    """The first use writes, the next ones do not, also when the caller rolls back; after five minutes it is written again."""
    with committed_db.session() as session:
        issued = api_keys.issue(session, users.create(session, "a@example.com").id, "k")
    with pytest.raises(ZeroDivisionError), committed_db.session() as session:
        api_keys.verify(session, issued.token)
        _ = 1 / 0
    with committed_db.session() as session:
        first = api_keys.get(session, issued.key.id).last_used_at
        assert first is not None
        with assert_max_queries(1):
            api_keys.verify(session, issued.token)
    with owner.begin() as connection:
        connection.execute(text("UPDATE stemma.api_keys SET last_used_at = now() - interval '6 minutes'"))
    with committed_db.session() as session, assert_max_queries(2):
        api_keys.verify(session, issued.token)
    with committed_db.session() as session:
        again = api_keys.get(session, issued.key.id).last_used_at
    assert again is not None
    assert again >= first


@pytest.mark.fault
@pytest.mark.requirement("AD-024")
def test_a_last_use_that_cannot_be_written_fails_nothing(committed_db: Database, owner: Engine, caplog: pytest.LogCaptureFixture) -> None:
    """The row is locked, then the column cannot be written at all: verification goes through, and a warning says so."""
    with committed_db.session() as session:
        issued = api_keys.issue(session, users.create(session, "a@example.com").id, "k")
    with committed_db.session() as holder:
        holder.execute(text("SELECT 1 FROM stemma.api_keys FOR UPDATE"))
        with committed_db.session() as session:
            assert api_keys.verify(session, issued.token).key_id == issued.key.id
    with owner.begin() as connection:
        connection.execute(text("REVOKE UPDATE ON stemma.api_keys FROM stemma_app"))
    with committed_db.session() as session, caplog.at_level(logging.WARNING, "stemmadb.accounts.api_keys"):
        assert api_keys.verify(session, issued.token).key_id == issued.key.id
    assert "last_used_at" in caplog.text


@pytest.mark.parametrize("before", ["", PEPPERS.partition(",")[2]], ids=["no pepper", "an older one"])
def test_peppers_rotate(committed_db: Database, monkeypatch: pytest.MonkeyPatch, before: str) -> None:
    """Any known pepper verifies; the newest is written at the next use; a pepper that is gone closes its keys."""
    monkeypatch.setenv("STEMMADB_TOKEN_PEPPERS", before)
    with committed_db.session() as session:
        issued = api_keys.issue(session, users.create(session, "a@example.com").id, "k")
    monkeypatch.setenv("STEMMADB_TOKEN_PEPPERS", PEPPERS)
    with committed_db.session() as session:
        assert api_keys.verify(session, issued.token)
    with committed_db.session() as session:
        assert api_keys.get(session, issued.key.id).pepper_version == 2
        assert api_keys.verify(session, issued.token)
    monkeypatch.setenv("STEMMADB_TOKEN_PEPPERS", "")
    with committed_db.session() as session, pytest.raises(AuthenticationError):
        api_keys.verify(session, issued.token)


@pytest.mark.requirement("VR-082", "VR-083")
def test_a_digest_made_elsewhere(session: Session, user: User) -> None:
    """Found by its prefix; a second key of the prefix is refused and the transaction goes on."""
    digest = hashlib.sha256(b"token").digest()
    key = api_keys.create(session, user.id, "imported", digest, "legacy_0001", expires_at=datetime.now(UTC) + timedelta(days=1))
    assert api_keys.get_by_prefix(session, "legacy_0001") is key
    with pytest.raises(ConflictError):
        api_keys.create(session, user.id, "again", digest, "legacy_0001")
    assert api_keys.find_by_prefix(session, "legacy_0002") is None
    assert api_keys.find_by_prefix(session, "'; --") is None
    with pytest.raises(NotFoundError):
        api_keys.get_by_prefix(session, "legacy_0002")


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"name": " "}, "name"),
        ({"scopes": ["everything"]}, "scopes"),
        ({"scopes": "runs:read"}, "scopes"),
        ({"expires_in": timedelta(0)}, "expires_in"),
        ({"workspace_id": "nonsense"}, "workspace_id"),
    ],
)
def test_bad_input_is_refused_before_anything_is_sent(session: Session, user: User, arguments: dict[str, object], field: str) -> None:
    """A malformed name, scope, lifetime or id: a ValidationError that names the field."""
    with count_queries() as sent, pytest.raises(ValidationError) as caught:
        api_keys.issue(session, user.id, **{"name": "k", **arguments})  # type: ignore[arg-type]
    assert (caught.value.field, sent.count) == (field, 0)


def test_a_digest_of_another_length_is_refused(session: Session, user: User) -> None:
    """32 bytes, no more and no fewer; a prefix of letters and digits; an end with a time zone."""
    for arguments, field in (
        ((b"short", "legacy_0001", None), "key_hash"),
        ((bytes(32), "x", None), "prefix"),
        ((bytes(32), "legacy_0001", datetime(2030, 1, 1)), "expires_at"),
    ):
        with pytest.raises(ValidationError) as caught:
            api_keys.create(session, user.id, "k", arguments[0], arguments[1], expires_at=arguments[2])
        assert caught.value.field == field


@pytest.mark.requirement("EC-200")
def test_an_unknown_owner(session: Session) -> None:
    """A key of nobody is refused by name."""
    with pytest.raises(ReferenceNotFoundError) as caught:
        api_keys.issue(session, uuid4(), "k")
    assert caught.value.field == "user_id"


@pytest.mark.requirement("VR-084")
def test_list_is_of_one_user(session: Session, user: User) -> None:
    """Newest first, only the user's own, digests not fetched."""
    other = users.create(session, f"{uuid4().hex}@example.com")
    made = [api_keys.issue(session, user.id, f"k{number}").key for number in range(5)]
    api_keys.issue(session, other.id, "theirs")
    api_keys.revoke(session, made[0].id)
    session.expunge_all()
    found = api_keys.list_for_user(session, user.id, limit=3)
    rest = api_keys.list_for_user(session, user.id, limit=3, cursor=found.next_cursor)
    assert [key.id for key in [*found, *rest]] == [key.id for key in reversed(made)]
    assert all("key_hash" not in key.__dict__ for key in found)
    assert len(api_keys.list_for_user(session, user.id, include_revoked=False)) == 4


@pytest.mark.requirement("VR-085")
def test_revoke_and_delete(session: Session, user: User) -> None:
    """A revocation holds at once and twice is once; a second deletion is NotFoundError."""
    key = api_keys.issue(session, user.id, "k").key
    revoked = api_keys.revoke(session, key.id).revoked_at
    assert revoked is not None
    assert api_keys.revoke(session, key.id).revoked_at == revoked
    api_keys.delete(session, key.id)
    for call in (api_keys.delete, api_keys.revoke, api_keys.get):
        with pytest.raises(NotFoundError):
            call(session, key.id)
    assert api_keys.find(session, "nonsense") is None


@pytest.mark.requirement("VR-048")
def test_keys_go_with_their_user(session: Session, user: User) -> None:
    """Removing the user removes the keys."""
    key = api_keys.issue(session, user.id, "k").key
    session.execute(text("DELETE FROM stemma.users WHERE id = :id"), {"id": user.id})
    assert session.scalar(text("SELECT count(*) FROM stemma.api_keys WHERE id = :id"), {"id": key.id}) == 0


def test_issue_and_revoke_are_on_record(session: Session, user: User) -> None:
    """Each writes a security event in the same transaction, without the token."""
    issued = api_keys.issue(session, user.id, "k")
    api_keys.revoke(session, issued.key.id)
    rows = session.execute(
        text("SELECT type, payload::text FROM stemma.security_events WHERE user_id = :id ORDER BY created_at, id"), {"id": user.id}
    ).all()
    assert [row[0] for row in rows] == ["API_KEY_CREATED", "API_KEY_REVOKED"]
    assert issued.token.get_secret_value() not in str(rows)


async def test_twins(async_session: object) -> None:
    """The async twins issue and verify."""
    user = await ausers.create(async_session, f"{uuid4().hex}@example.com")  # type: ignore[arg-type]
    issued = await aapi_keys.issue(async_session, user.id, "k")  # type: ignore[arg-type]
    assert (await aapi_keys.verify(async_session, issued.token)).user_id == user.id  # type: ignore[arg-type]
    assert aapi_keys.looks_like_token(issued.token.get_secret_value())


def test_list_for_workspace(session: Session, user: User, workspace: UUID) -> None:
    """The keys of the session's workspace, newest first, whoever made them; personal ones and those of others are not among them."""
    with assert_max_queries(0), pytest.raises(WorkspaceNotSetError), Session(session.get_bind()) as none:
        api_keys.list_for_workspace(none)
    other = users.create(session, f"{uuid4().hex}@example.com")
    made = [api_keys.issue(session, owner.id, "k", workspace_id=workspace).key for owner in (user, other)]
    api_keys.issue(session, user.id, "personal")
    elsewhere = session.scalar(
        text("INSERT INTO stemma.workspaces (owner_id, name, slug) VALUES (:owner, 'x', :slug) RETURNING id"),
        {"owner": user.id, "slug": f"other-{uuid4().hex[:8]}"},
    )
    api_keys.issue(session, user.id, "theirs", workspace_id=elsewhere)
    found = api_keys.list_for_workspace(session, limit=1)
    rest = api_keys.list_for_workspace(session, cursor=found.next_cursor)
    assert [key.id for key in [*found, *rest]] == [made[1].id, made[0].id]
    api_keys.revoke(session, made[0].id)
    assert [key.id for key in api_keys.list_for_workspace(session, include_revoked=False)] == [made[1].id]


def test_rotate(session: Session, user: User, workspace: UUID) -> None:
    """The successor is as the key was; both hold until the overlap is over; the event tells of the new one."""
    old = api_keys.issue(session, user.id, "ci", workspace_id=workspace, scopes=["runs:*"], expires_in=timedelta(days=30), live=False)
    new = api_keys.rotate(session, old.key.id, overlap=timedelta(hours=2))
    assert (new.key.name, new.key.user_id, new.key.workspace_id, new.key.scopes) == ("ci", user.id, workspace, ("runs:*",))
    assert (new.key.rotated_from_id, new.key.prefix[:11]) == (old.key.id, "stm_k_test_")
    assert new.key.expires_at is not None
    assert new.key.expires_at - new.key.created_at == timedelta(days=30)
    assert old.key.expires_at is not None
    assert timedelta(hours=1) < old.key.expires_at - datetime.now(UTC) < timedelta(hours=3)
    assert {api_keys.verify(session, issued.token).key_id for issued in (old, new)} == {old.key.id, new.key.id}
    ended = old.key.expires_at
    api_keys.rotate(session, old.key.id, overlap=timedelta(days=2))
    assert old.key.expires_at == ended
    assert "API_KEY_CREATED" in str(session.execute(text("SELECT type FROM stemma.security_events")).all())


def test_rotate_a_key_without_an_end(session: Session, user: User) -> None:
    """The old one gets an end, the new one none."""
    old = api_keys.issue(session, user.id, "k", expires_in=None)
    new = api_keys.rotate(session, old.key.id, overlap=timedelta(0))
    assert new.key.expires_at is None
    assert api_keys.get(session, old.key.id).expires_at is not None


def test_rotate_refuses(session: Session, user: User) -> None:
    """A revoked key, an unknown one, an overlap into the past: nothing is made, and the transaction goes on."""
    key = api_keys.issue(session, user.id, "k").key
    with count_queries() as sent, pytest.raises(ValidationError):
        api_keys.rotate(session, key.id, overlap=timedelta(seconds=-1))
    assert sent.count == 0
    api_keys.revoke(session, key.id)
    with pytest.raises(InvalidTransitionError):
        api_keys.rotate(session, key.id)
    for wanted in (uuid4(), "nonsense"):
        with pytest.raises(NotFoundError):
            api_keys.rotate(session, wanted)
    assert len(api_keys.list_for_user(session, user.id)) == 1


def test_set_scopes(session: Session, user: User) -> None:
    """They hold from the next verification; malformed ones are refused before anything is sent."""
    issued = api_keys.issue(session, user.id, "k", scopes=["runs:*"])
    assert api_keys.set_scopes(session, issued.key.id, ["users:read", "users:read"]).scopes == ("users:read",)
    assert api_keys.verify(session, issued.token, required_scope="users:read")
    with pytest.raises(PermissionDeniedError):
        api_keys.verify(session, issued.token, required_scope="runs:read")
    assert api_keys.set_scopes(session, issued.key.id, []).scopes == ()
    with count_queries() as sent, pytest.raises(ValidationError):
        api_keys.set_scopes(session, issued.key.id, ["everything"])
    assert sent.count == 0
    with pytest.raises(NotFoundError):
        api_keys.set_scopes(session, uuid4(), [])
