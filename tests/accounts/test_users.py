"""Users: one address, one person, any letter case; deleted ones are hidden and come back."""

import logging
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from stemmadb.accounts import api_keys, roles, sessions, users
from stemmadb.accounts.data import UserUpdate
from stemmadb.accounts.vocabularies import UserStatus
from stemmadb.aio.accounts import users as ausers
from stemmadb.database import Database
from stemmadb.errors import (
    AuthenticationError,
    ConflictError,
    ConstraintViolationError,
    NotFoundError,
    StillReferencedError,
    ValidationError,
)
from stemmadb.testing import assert_max_queries, count_queries, run_together

HASH = "$argon2id$v=19$m=47104,t=1,p=1$c29tZXNhbHRzb21lc2FsdA$aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNoaGFzaGhhc2g"


def address() -> str:
    """An address that nobody has."""
    return f"{uuid4().hex}@example.com"


@pytest.mark.requirement("VR-029", "VR-080", "VR-081", "EC-163")
def test_create_and_read_back(session: Session) -> None:
    """By id and by e-mail in any letter case, stored trimmed and in lower case; one statement to make."""
    wanted = address()
    with assert_max_queries(1):
        user = users.create(session, f"  {wanted.upper()} ", HASH, name="Ada")
    assert user.email == wanted
    assert users.get(session, user.id) is user
    assert users.get(session, str(user.id)) is user
    assert users.get_by_email(session, wanted.upper()) is user
    assert users.find_by_email(session, address()) is None
    assert user.created_at.utcoffset() is not None


@pytest.mark.requirement("EC-010")
def test_a_password_is_not_needed(session: Session) -> None:
    """Somebody who signs in elsewhere has no hash."""
    assert users.create(session, address()).status == UserStatus.ACTIVE


@pytest.mark.requirement("VR-080", "EC-098", "EC-201")
def test_a_second_user_of_an_address_is_refused(session: Session) -> None:
    """ConflictError names the field, in any letter case, and the transaction goes on."""
    wanted = address()
    users.create(session, wanted)
    with pytest.raises(ConflictError) as caught:
        users.create(session, wanted.title())
    assert (caught.value.entity, tuple(caught.value.fields)) == ("User", ("email",))
    assert "already exists" in str(caught.value)
    assert users.get_by_email(session, wanted).email == wanted


@pytest.mark.race
def test_of_ten_concurrent_registrations_one_wins(committed_db: Database) -> None:
    """Ten callers, one address: one user, nine ConflictErrors."""
    wanted = address()
    results = run_together(10, lambda _: committed_db.run(users.create, wanted))
    assert sum(isinstance(result, ConflictError) for result in results) == 9


@pytest.mark.requirement("EC-008", "EC-011", "EC-246")
@pytest.mark.parametrize(
    ("email", "password_hash", "field"),
    [("nonsense", None, "email"), ("a@b", None, "email"), ("a\x00@b.c", None, "email"), ("ok@b.cd", "hunter2", "password_hash")],
)
def test_bad_input_is_refused_before_anything_is_sent(session: Session, email: str, password_hash: str | None, field: str) -> None:
    """A malformed address, a plain password: a ValidationError that names the field and does not repeat the value."""
    with count_queries() as sent, pytest.raises(ValidationError) as caught:
        users.create(session, email, password_hash)
    assert sent.count == 0
    assert caught.value.field == field
    assert "hunter2" not in str(caught.value)


@pytest.mark.requirement("EC-008", "EC-009", "EC-195")
@pytest.mark.parametrize("column", ["email", "password_hash"])
def test_the_database_refuses_what_the_library_would(session: Session, column: str) -> None:
    """A CHECK stands behind each rule, for raw SQL."""
    values = {"email": address(), "password_hash": HASH, column: "plain"}
    with pytest.raises(Exception, match="check constraint"):
        session.execute(text("INSERT INTO stemma.users (email, password_hash) VALUES (:email, :password_hash)"), values)


@pytest.mark.requirement("EC-161")
@pytest.mark.parametrize("wanted", ["nonexistent-id", "0190a000-0000-7000-8000-000000000000"])
def test_an_unknown_id(session: Session, wanted: str, caplog: pytest.LogCaptureFixture) -> None:
    """get raises and logs a warning with the id, find returns None; a malformed id is nobody's."""
    assert users.find(session, wanted) is None
    with caplog.at_level(logging.WARNING, "stemmadb.accounts.users"), pytest.raises(NotFoundError, match="User"):
        users.get(session, wanted)
    assert caplog.records[0].user_id == wanted  # type: ignore[attr-defined]


def test_update_changes_what_was_given(session: Session) -> None:
    """Absent fields stay, None clears, the address is normalised; an empty update changes nothing."""
    user = users.create(session, address(), name="Ada", phone="1")
    wanted = address()
    changed = users.update(session, user.id, UserUpdate(email=wanted.upper(), phone=None))
    assert (changed.email, changed.name, changed.phone) == (wanted, "Ada", None)
    assert users.update(session, user.id, UserUpdate()) is user


def test_update_refuses_an_address_that_is_taken(session: Session) -> None:
    """ConflictError, and the transaction goes on."""
    first, second = users.create(session, address()), users.create(session, address())
    with pytest.raises(ConflictError):
        users.update(session, second.id, UserUpdate(email=first.email))
    assert users.get(session, second.id).email != first.email


def test_update_of_nobody(session: Session) -> None:
    """An unknown user is NotFoundError; an unknown field is a ValidationError."""
    with pytest.raises(NotFoundError):
        users.update(session, uuid4(), UserUpdate(name="x"))
    with pytest.raises(ValidationError):
        UserUpdate(status="DELETED")  # type: ignore[call-arg]
    with pytest.raises(ValidationError):
        UserUpdate(email="nonsense")


@pytest.mark.requirement("EC-172")
def test_soft_delete_hides_and_restore_brings_back(session: Session) -> None:
    """Hidden from every default read, its keys revoked, its address reserved; back as ACTIVE, the keys stay revoked."""
    user = users.create(session, address())
    key = api_keys.issue(session, user.id, "k").key
    deleted = users.soft_delete(session, user.id)
    assert (deleted.status, deleted.deleted_at is None) == (UserStatus.DELETED, False)
    assert users.find(session, user.id) is None
    assert users.find_by_email(session, user.email) is None
    assert users.get(session, user.id, include_deleted=True) is user
    assert user.id not in {row.id for row in users.list_all(session, limit=200)}
    assert api_keys.get(session, key.id).revoked_at is not None
    with pytest.raises(ConflictError):
        users.create(session, user.email)
    with pytest.raises(NotFoundError):
        users.soft_delete(session, user.id)
    restored = users.restore(session, user.id)
    assert (restored.status, restored.deleted_at) == (UserStatus.ACTIVE, None)
    assert users.get_by_email(session, user.email) is user
    assert users.restore(session, user.id) is user
    assert api_keys.get(session, key.id).revoked_at is not None
    with pytest.raises(NotFoundError):
        users.restore(session, uuid4())


def test_list_pages_newest_first(session: Session) -> None:
    """Joined pages are everybody, newest first; filters by status and by part of name or address, % as itself."""
    session.execute(text("DELETE FROM stemma.workspaces"))
    session.execute(text("DELETE FROM stemma.users"))
    made = [users.create(session, f"u{number}@example.com", name="100%" if number == 3 else "Ada") for number in range(7)]
    users.soft_delete(session, made[0].id)
    found, cursor = [], None
    while True:
        page = users.list_all(session, limit=2, cursor=cursor, with_total=True)
        assert page.total == 6
        found += [row.id for row in page]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert found == [user.id for user in reversed(made[1:])]
    assert [row.id for row in users.list_all(session, query="100%")] == [made[3].id]
    assert [row.id for row in users.list_all(session, query="U5@")] == [made[5].id]
    assert [row.id for row in users.list_all(session, status=UserStatus.DELETED)] == [made[0].id]
    assert len(users.list_all(session, include_deleted=True)) == 7


@pytest.mark.requirement("EC-048", "EC-212")
def test_secrets_stay_out_of_default_reads(session: Session) -> None:
    """Neither the hash nor the second factor is fetched, shown, or dumped."""
    user = users.create(session, address(), HASH)
    session.expunge_all()
    read = users.get(session, user.id)
    assert "password_hash" not in read.__dict__
    assert "two_factor_secret" not in read.__dict__
    assert "argon2" not in repr(read)
    assert not {"password_hash", "two_factor_secret"} & read.model_dump().keys()


async def test_twins(async_session: object) -> None:
    """The async twins do the same work."""
    user = await ausers.create(async_session, address())  # type: ignore[arg-type]
    assert (await ausers.get(async_session, user.id)).id == user.id  # type: ignore[arg-type]
    assert await ausers.find(async_session, uuid4()) is None  # type: ignore[arg-type]


def test_errors_hold_no_values(session: Session) -> None:
    """What PostgreSQL refuses by a CHECK comes out as our error, without the row."""
    user = users.create(session, address(), HASH)
    user.failed_login_count = 3
    session.flush()
    with pytest.raises(ConstraintViolationError) as caught:
        users.update(session, user.id, UserUpdate.model_construct(_fields_set={"email"}, email="UPPER@example.com"))
    assert "UPPER" not in str(caught.value)


@pytest.mark.requirement("EC-012")
def test_suspend_and_reinstate(session: Session) -> None:
    """Sessions end for good, keys and permissions for as long as it lasts; the reason is on record, with sessions or without."""
    user = users.create(session, address())
    key, opened = api_keys.issue(session, user.id, "k"), sessions.open(session, user.id)
    roles.create_permission(session, "posts:read")
    roles.grant(session, user.id, "posts:read")
    assert users.suspend(session, user.id, reason="spam").status == UserStatus.SUSPENDED
    assert users.suspend(session, user.id, reason="more spam") is user
    assert not roles.has_permission(session, user.id, "posts:read")
    for call in (lambda: api_keys.verify(session, key.token), lambda: sessions.authenticate(session, opened.token)):
        with pytest.raises(AuthenticationError):
            call()
    events = text("SELECT payload ->> 'reason' FROM stemma.security_events WHERE user_id = :id AND type = 'SESSION_REVOKED'")
    assert sorted(session.scalars(events, {"id": user.id})) == ["more spam", "spam"]
    assert users.reinstate(session, user.id).status == UserStatus.ACTIVE
    assert users.reinstate(session, user.id) is user
    assert api_keys.verify(session, key.token).user_id == user.id
    assert roles.has_permission(session, user.id, "posts:read")
    with pytest.raises(AuthenticationError):
        sessions.authenticate(session, opened.token)
    users.soft_delete(session, user.id)
    for wanted in (user.id, uuid4(), "nonsense"):
        with pytest.raises(NotFoundError):
            users.suspend(session, wanted, reason="spam")
        with pytest.raises(NotFoundError):
            users.reinstate(session, wanted)


@pytest.mark.requirement("EC-092", "VR-048")
def test_purge_takes_what_is_theirs(session: Session) -> None:
    """Sessions, keys, roles, permissions, tokens; the events stay without them, and the address is free again."""
    user = users.create(session, address())
    api_keys.issue(session, user.id, "k")
    sessions.open(session, user.id)
    roles.create(session, "reader")
    roles.create_permission(session, "posts:read")
    roles.assign(session, user.id, "reader")
    roles.grant(session, user.id, "posts:read")
    users.create_email_verification(session, user.id, user.email)
    users.create_password_reset(session, user.id)
    before = session.scalar(text("SELECT count(*) FROM stemma.security_events"))
    users.soft_delete(session, user.id)
    users.purge(session, user.id)
    tables = ("api_keys", "user_sessions", "user_roles", "user_permissions", "email_verification_tokens", "password_reset_tokens")
    for table in tables:
        assert session.scalar(text(f"SELECT count(*) FROM stemma.{table} WHERE user_id = :id"), {"id": user.id}) == 0
    assert session.scalar(text("SELECT count(*) FROM stemma.security_events")) == before
    assert users.find(session, user.id, include_deleted=True) is None
    assert users.create(session, user.email).id != user.id
    for wanted in (user.id, uuid4(), "nonsense"):
        with pytest.raises(NotFoundError):
            users.purge(session, wanted)


def test_the_owner_of_a_workspace_is_not_purged(session: Session, workspace: UUID) -> None:
    """StillReferencedError, and the transaction goes on."""
    owner_id = session.scalar(text("SELECT owner_id FROM stemma.workspaces WHERE id = :id"), {"id": workspace})
    with pytest.raises(StillReferencedError):
        users.purge(session, owner_id)
    assert users.get(session, owner_id).id == owner_id
