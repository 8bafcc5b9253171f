"""Passwords: hashed slowly and off the loop, counted before they are compared, the same for everybody who is not let in."""

import asyncio
import logging
import sys
import threading
import traceback
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import bcrypt
import pytest
from argon2 import PasswordHasher
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from stemmadb.accounts import _passwords, users
from stemmadb.accounts.entities import User
from stemmadb.accounts.vocabularies import SecurityEventType
from stemmadb.aio.accounts import users as ausers
from stemmadb.database import Database
from stemmadb.errors import MissingDependencyError, NotFoundError, ValidationError
from stemmadb.testing import assert_max_queries, count_queries, run_together

RIGHT = SecretStr("correct horse battery")
WRONG = SecretStr("incorrect horse battery")


def address() -> str:
    """An address that nobody has."""
    return f"{uuid4().hex}@example.com"


def stored_hash(session: Session, user_id: UUID) -> str:
    """What the table holds."""
    found = session.scalar(text("SELECT password_hash FROM stemma.users WHERE id = :id"), {"id": user_id})
    assert isinstance(found, str)
    return found


def events(session: Session, user_id: UUID | None) -> list[str]:
    """The types of the security events about somebody, in their order."""
    statement = text("SELECT type FROM stemma.security_events WHERE user_id IS NOT DISTINCT FROM CAST(:id AS uuid) ORDER BY created_at, id")
    return list(session.scalars(statement, {"id": user_id}))


@pytest.fixture
def user(session: Session) -> User:
    """Somebody with the right password."""
    made = users.create(session, address())
    return users.set_password(session, made.id, RIGHT)


@pytest.fixture
def committed_user(committed_db: Database) -> User:
    """The same, committed."""
    with committed_db.session() as session:
        made = users.create(session, address())
        return users.set_password(session, made.id, RIGHT)


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hashes that passwords are compared with."""
    found: list[str] = []
    original = _passwords._matches_argon2

    def spy(stored: str, normal: str) -> bool:
        found.append(stored)
        return original(stored, normal)

    monkeypatch.setattr(_passwords, "_matches_argon2", spy)
    return found


@pytest.mark.requirement("EC-008", "EC-009", "EC-163")
def test_set_and_verify(session: Session, user: User) -> None:
    """Stored as Argon2id with 46 MiB, one pass and one lane; the right password returns the user, any other None."""
    assert stored_hash(session, user.id).startswith("$argon2id$v=19$m=47104,t=1,p=1$")
    assert users.verify_password(session, user.email.upper(), RIGHT) is user
    assert users.verify_password(session, user.email, WRONG) is None
    assert users.get(session, user.id).failed_login_count == 1
    assert events(session, user.id) == [SecurityEventType.PASSWORD_CHANGED, SecurityEventType.LOGIN_FAILED]


@pytest.mark.requirement("EC-010")
def test_whoever_is_not_let_in_costs_and_reads_the_same(session: Session, user: User, evaluated: list[str]) -> None:
    """Unknown, malformed, without a password, wrong, suspended, locked: None, after one hash with the same parameters."""
    bare = users.create(session, address())
    suspended = users.set_password(session, users.create(session, address()).id, RIGHT)
    locked = users.set_password(session, users.create(session, address()).id, RIGHT)
    session.execute(text("UPDATE stemma.users SET status = 'SUSPENDED' WHERE id = :id"), {"id": suspended.id})
    session.execute(text("UPDATE stemma.users SET lockout_until = now() + interval '1 hour' WHERE id = :id"), {"id": locked.id})
    tried = [
        (address(), RIGHT),
        ("nonsense", RIGHT),
        (bare.email, RIGHT),
        (user.email, WRONG),
        (suspended.email, RIGHT),
        (locked.email, RIGHT),
    ]
    for email, password in tried:
        assert users.verify_password(session, email, password) is None
    assert len(evaluated) == len(tried)
    assert {stored.partition("$bm9i")[0].rsplit("p=1", 1)[0] for stored in evaluated} == {"$argon2id$v=19$m=47104,t=1,"}
    assert events(session, None)[-2:] == [SecurityEventType.LOGIN_FAILED] * 2


@pytest.mark.parametrize(
    ("password", "second_factor", "accepted"),
    [
        ("x" * 14, False, False),
        ("x" * 15, False, True),
        ("x" * 1024, False, True),
        ("x" * 1025, False, False),
        ("x" * 7, True, False),
        ("x" * 8, True, True),
        ("ﬁ" * 14, False, True),
        ("ﷺ" * 100, False, False),
        ("x" * 20 + "\x00", False, False),
        ("x" * 20 + "\ud800", False, False),
        ("a\u0301" * 10, False, False),
        ("", True, False),
    ],
    ids=["14", "15", "1024", "1025", "7 and a factor", "8 and a factor", "grows", "grows too long", "NUL", "surrogate", "shrinks", "empty"],
)
def test_what_a_password_may_be(session: Session, password: str, second_factor: bool, accepted: bool) -> None:
    """15 to 1024 characters in the form NFKC, 8 with a second factor, without NUL; the message does not repeat it."""
    user = users.create(session, address())
    if second_factor:
        session.execute(text("UPDATE stemma.users SET two_factor_secret = 'x', two_factor_enabled = true WHERE id = :id"), {"id": user.id})
    if accepted:
        users.set_password(session, user.id, SecretStr(password))
        assert users.verify_password(session, user.email, SecretStr(password)) is user
        return
    with pytest.raises(ValidationError) as caught:
        users.set_password(session, user.id, SecretStr(password))
    assert caught.value.field == "password"
    assert len(password) < 3 or password not in str(caught.value)
    assert users.verify_password(session, user.email, SecretStr(password)) is None


def test_one_password_on_every_keyboard(session: Session) -> None:
    """However the characters were composed."""
    user = users.create(session, address())
    users.set_password(session, user.id, SecretStr("r\u00e9sum\u00e9 of a \ufb01ne life"))
    assert users.verify_password(session, user.email, SecretStr("re\u0301sume\u0301 of a fine life")) is user


def test_a_plain_string_is_no_password(session: Session, user: User) -> None:
    """A SecretStr is asked for, and the string is not repeated."""
    for call in (
        lambda: users.set_password(session, user.id, "hunter2 hunter2 hunter2"),
        lambda: users.verify_password(session, user.email, "hunter2"),
    ):  # type: ignore[arg-type]
        with pytest.raises(ValidationError) as caught:
            call()
        assert "hunter2" not in str(caught.value)


def test_nobody_has_a_password(session: Session, user: User) -> None:
    """An unknown or deleted user is NotFoundError."""
    users.soft_delete(session, user.id)
    for wanted in (user.id, uuid4(), "nonsense"):
        with pytest.raises(NotFoundError):
            users.set_password(session, wanted, RIGHT)
        with pytest.raises(NotFoundError):
            users.record_failed_login(session, wanted)
        with pytest.raises(NotFoundError):
            users.record_successful_login(session, wanted)
    assert users.verify_password(session, user.email, RIGHT) is None


def test_a_new_password_closes_what_the_old_one_opened(session: Session, user: User) -> None:
    """Sessions are revoked, reset tokens void, the lock ends, and the old password is none."""
    session.execute(
        text(
            "INSERT INTO stemma.user_sessions (user_id, family_id, refresh_token_hash, expires_at, idle_expires_at)"
            " VALUES (:id, :id, :hash, now() + interval '1 day', now() + interval '1 day')"
        ),
        {"id": user.id, "hash": bytes(32)},
    )
    session.execute(
        text("INSERT INTO stemma.password_reset_tokens (user_id, token_hash, expires_at) VALUES (:id, :hash, now() + interval '1 day')"),
        {"id": user.id, "hash": bytes(32)},
    )
    session.execute(text("UPDATE stemma.users SET failed_login_count = 12, lockout_until = now() + interval '1 hour'"))
    assert not users.is_locked_out(users.set_password(session, user.id, WRONG))
    assert users.verify_password(session, user.email, RIGHT) is None
    assert users.verify_password(session, user.email, WRONG) is user
    assert (
        session.scalar(text("SELECT revoked_reason FROM stemma.user_sessions WHERE user_id = :id"), {"id": user.id}) == "PASSWORD_CHANGED"
    )
    assert session.scalar(text("SELECT used_at FROM stemma.password_reset_tokens WHERE user_id = :id"), {"id": user.id}) is not None


# --------------------------------------------------------------------------------------------------------- counting


@pytest.mark.race
@pytest.mark.slow
def test_of_64_wrong_passwords_at_once_64_are_counted(committed_db: Database, committed_user: User, evaluated: list[str]) -> None:
    """All are counted, at most ten are compared, one locks; more callers than the pool has connections."""

    def attempt(_: int) -> User | None:
        with committed_db.session() as session:
            return users.verify_password(session, committed_user.email, WRONG)

    assert run_together(64, attempt) == [None] * 64
    with committed_db.session() as session:
        found = users.get(session, committed_user.id)
        assert found.failed_login_count == 64
        assert users.is_locked_out(found)
        own = stored_hash(session, found.id)
        assert evaluated.count(own) <= 10
        assert len(evaluated) == 64
        assert events(session, found.id).count(SecurityEventType.LOCKOUT) == 1
        assert events(session, found.id).count(SecurityEventType.LOGIN_FAILED) == 64
        assert users.verify_password(session, found.email, RIGHT) is None


def test_a_failure_outlives_the_rollback(committed_db: Database, committed_user: User) -> None:
    """Whoever raises after a wrong password has not undone it; a session that only reads counts as well."""
    with pytest.raises(ZeroDivisionError), committed_db.session() as session:
        assert users.verify_password(session, committed_user.email, WRONG) is None
        _ = 1 / 0
    with committed_db.session(read_only=True, isolation="serializable") as session:
        assert users.verify_password(session, committed_user.email, WRONG) is None
    with pytest.raises(ZeroDivisionError), committed_db.session() as session:
        assert users.record_failed_login(session, committed_user.id).failed_login_count == 3
        _ = 1 / 0
    with committed_db.session() as session:
        assert users.get(session, committed_user.id).failed_login_count == 3


def test_a_right_password_takes_the_failures_back(committed_db: Database, committed_user: User) -> None:
    """Also when the caller rolls back: twenty right log-ins lock nobody out."""
    for _ in range(9):
        with committed_db.session() as session:
            users.verify_password(session, committed_user.email, WRONG)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), committed_db.session() as session:
            assert users.verify_password(session, committed_user.email, RIGHT) is not None
            _ = 1 / 0
    with committed_db.session() as session:
        assert users.get(session, committed_user.id).failed_login_count == 0


def test_a_row_that_the_caller_holds_is_counted(committed_db: Database, committed_user: User) -> None:
    """A user made or changed in the same transaction: nobody waits for ever, and nothing is left out."""
    with committed_db.session() as session:
        new = users.create(session, address())
        users.set_password(session, new.id, RIGHT)
        assert users.verify_password(session, new.email, WRONG) is None
        assert users.get(session, new.id).failed_login_count == 1
        assert users.verify_password(session, new.email, RIGHT) is new
        users.update(session, committed_user.id, users.UserUpdate(name="Ada"))
        assert users.record_failed_login(session, committed_user.id).failed_login_count == 1
    with committed_db.session() as session:
        assert users.get(session, committed_user.id).failed_login_count == 1


def test_a_lock_ends_by_itself(session: Session, user: User) -> None:
    """It is not made longer by failures; when it is over the count begins anew, and the right password lets in."""
    for number in range(1, 4):
        assert users.record_failed_login(session, user.id, max_attempts=3, lock_for=timedelta(hours=1)).failed_login_count == number
    until = user.lockout_until
    assert users.is_locked_out(user)
    assert not users.is_locked_out(user, datetime.now(UTC) + timedelta(hours=2))
    users.record_failed_login(session, user.id, max_attempts=3, lock_for=timedelta(hours=9))
    assert user.lockout_until == until
    assert users.verify_password(session, user.email, RIGHT) is None
    session.execute(text("UPDATE stemma.users SET lockout_until = now() - interval '1 second' WHERE id = :id"), {"id": user.id})
    assert users.record_failed_login(session, user.id).failed_login_count == 1
    assert not users.is_locked_out(user)
    assert users.verify_password(session, user.email, RIGHT) is user
    assert events(session, user.id).count(SecurityEventType.LOCKOUT) == 1


def test_a_successful_login_is_noted(session: Session, user: User) -> None:
    """The time, no failures, no lock, an event; two statements."""
    users.record_failed_login(session, user.id, max_attempts=1)
    with assert_max_queries(2):
        users.record_successful_login(session, user.id)
    assert (user.failed_login_count, user.lockout_until) == (0, None)
    assert user.last_login_at is not None
    assert SecurityEventType.LOGIN_SUCCEEDED in events(session, user.id)


@pytest.mark.parametrize("arguments", [{"max_attempts": 0}, {"lock_for": timedelta(0)}])
def test_bad_limits_are_refused_before_anything_is_sent(session: Session, user: User, arguments: dict[str, Any]) -> None:
    """A ValidationError that names the field."""
    with count_queries() as sent, pytest.raises(ValidationError) as caught:
        users.record_failed_login(session, user.id, **arguments)
    assert (sent.count, caught.value.field) == (0, next(iter(arguments)))


# ----------------------------------------------------------------------------------------------------------- hashes


def bcrypt_of(password: str) -> str:
    """A hash of an earlier system."""
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()


@pytest.mark.requirement("EC-009")
def test_a_bcrypt_hash_is_replaced(session: Session) -> None:
    """By Argon2id, at the first right password, however short; a wrong one leaves it."""
    user = users.create(session, address(), bcrypt_of("short"))
    assert users.verify_password(session, user.email, WRONG) is None
    assert stored_hash(session, user.id).startswith("$2b$")
    assert users.verify_password(session, user.email, SecretStr("short")) is user
    assert stored_hash(session, user.id).startswith("$argon2id$v=19$m=47104,t=1,p=1$")
    assert users.verify_password(session, user.email, SecretStr("short")) is user


def test_bcrypt_sees_the_whole_password(session: Session) -> None:
    """Over 72 bytes, of which bcrypt would look at the first, none matches."""
    user = users.create(session, address(), bcrypt_of("x" * 72))
    assert users.verify_password(session, user.email, SecretStr("x" * 73)) is None
    assert users.verify_password(session, user.email, SecretStr("é" * 37)) is None
    assert users.verify_password(session, user.email, SecretStr("x" * 72)) is user


@pytest.mark.parametrize(
    ("memory", "passes", "accepted"),
    [(47104, 1, True), (19456, 2, True), (65536, 3, True), (19456, 1, False), (8192, 9, False), (38000, 1, False)],
)
def test_weak_hashes_are_refused(session: Session, memory: int, passes: int, accepted: bool) -> None:
    """Less work than 19 MiB and two passes is not stored, and not compared when SQL stored it; stronger and other ones are renewed."""
    made = PasswordHasher(time_cost=passes, memory_cost=memory, parallelism=1).hash(RIGHT.get_secret_value())
    user = users.create(session, address(), made if accepted else None)
    if not accepted:
        with pytest.raises(ValidationError) as caught:
            users.create(session, address(), made)
        assert caught.value.field == "password_hash"
        session.execute(text("UPDATE stemma.users SET password_hash = :hash WHERE id = :id"), {"hash": made, "id": user.id})
    assert (users.verify_password(session, user.email, RIGHT) is user) == accepted
    assert stored_hash(session, user.id).startswith("$argon2id$v=19$m=47104,t=1,p=1$") == accepted


def test_a_password_that_changes_meanwhile_is_no_longer_right(
    committed_db: Database, committed_user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the reading of the hash and the answer."""
    original = _passwords._matches_argon2

    def change(stored: str, normal: str) -> bool:
        monkeypatch.setattr(_passwords, "_matches_argon2", original)
        right = original(stored, normal)

        def other() -> None:
            with committed_db.session() as session:
                users.set_password(session, committed_user.id, WRONG)

        # The gate is held here.
        monkeypatch.setattr(_passwords, "_GATE", threading.BoundedSemaphore(2))
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        return right

    monkeypatch.setattr(_passwords, "_matches_argon2", change)
    with committed_db.session() as session:
        assert users.verify_password(session, committed_user.email, RIGHT) is None


# -------------------------------------------------------------------------------------------------- threads and loops


async def test_the_loop_goes_on(async_session: AsyncSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashing and comparing wait for something that only the event loop does."""
    ticked, waiting = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    seen: list[bool] = []

    def held(*arguments: Any, then: Any) -> Any:
        loop.call_soon_threadsafe(waiting.set)
        seen.append(ticked.wait(20))
        return then(*arguments)

    async def tick() -> None:
        await waiting.wait()
        ticked.set()

    user = await ausers.create(async_session, address())
    for name in ("_hash", "_matches"):
        original = getattr(_passwords, name)
        with monkeypatch.context() as patch:
            patch.setattr(_passwords, name, lambda *arguments, then=original: held(*arguments, then=then))
            ticker = asyncio.create_task(tick())
            if name == "_hash":
                await ausers.set_password(async_session, user.id, RIGHT)
            else:
                assert await ausers.verify_password(async_session, user.email, RIGHT) is user
            await ticker
        ticked.clear()
        waiting.clear()
    assert seen == [True, True]


@pytest.mark.offline
@pytest.mark.race
def test_hashing_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more threads hash at once than the gate lets in."""
    monkeypatch.setattr(_passwords, "_GATE", threading.BoundedSemaphore(2))
    lock, inside, most = threading.Lock(), 0, 0
    original = _passwords._matches_argon2

    def counted(stored: str, normal: str) -> bool:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        try:
            return original(stored, normal)
        finally:
            with lock:
                inside -= 1

    monkeypatch.setattr(_passwords, "_matches_argon2", counted)
    assert run_together(8, lambda _: _passwords.matches(None, RIGHT)) == [False] * 8
    assert 1 <= most <= 2


# ---------------------------------------------------------------------------------------------------- extra and secrets


@pytest.mark.parametrize("module", ["argon2", "bcrypt"])
def test_without_the_extra(session: Session, user: User, monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    """The error names the extra before anything is sent; everything else works."""
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.setitem(sys.modules, name, None)
    with count_queries() as sent:
        for call in (lambda: users.set_password(session, user.id, RIGHT), lambda: users.verify_password(session, user.email, RIGHT)):
            with pytest.raises(MissingDependencyError, match=r"stemmadb\[auth\]") as caught:
                call()
            assert caught.value.extra == "auth"
    assert sent.count == 0
    assert users.record_failed_login(session, user.id).failed_login_count == 1


@pytest.mark.requirement("EC-008", "EC-246")
def test_no_password_in_logs_and_errors(committed_db: Database, committed_user: User, caplog: pytest.LogCaptureFixture) -> None:
    """At any level, of any logger, with every statement logged, and when the database refuses."""
    shown: list[str] = []
    with caplog.at_level(logging.DEBUG):
        with committed_db.session() as session:
            users.verify_password(session, committed_user.email, WRONG)
            users.verify_password(session, committed_user.email, RIGHT)
            user = users.set_password(session, committed_user.id, RIGHT)
            shown.append(repr(user))
            digest = stored_hash(session, user.id)
            for call in (
                lambda: users.set_password(session, user.id, SecretStr("too short")),
                lambda: users.create(session, "a@b.cd", "hunter2"),
            ):
                try:
                    call()
                except ValidationError as error:
                    shown += [repr(error), "".join(traceback.format_exception(error))]
    told = caplog.text + "".join(shown)
    for secret in (RIGHT.get_secret_value(), WRONG.get_secret_value(), digest):
        assert secret not in told
    # The traceback shows the source of this very test, where the short ones stand.
    assert all("hunter2" not in text for text in (shown[-2], caplog.text))


async def test_twins(async_session: AsyncSession) -> None:
    """The async twins do the same work."""
    user = await ausers.create(async_session, address())
    await ausers.set_password(async_session, user.id, RIGHT)
    assert await ausers.verify_password(async_session, user.email, WRONG) is None
    assert await ausers.verify_password(async_session, user.email, RIGHT) is user
    assert (await ausers.record_failed_login(async_session, user.id)).failed_login_count == 1
    assert (await ausers.record_successful_login(async_session, user.id)).failed_login_count == 0
    assert not ausers.is_locked_out(user)
