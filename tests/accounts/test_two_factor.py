"""Second factors: a secret that only its row and its key open, and codes that work once."""

import base64
import logging
import sys
from typing import Any
from uuid import uuid4

import pytest
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from stemmadb.accounts import users
from stemmadb.accounts.entities import User
from stemmadb.accounts.vocabularies import MfaMethod
from stemmadb.aio.accounts import users as ausers
from stemmadb.database import Database
from stemmadb.errors import ConfigurationError, MissingDependencyError, NotFoundError, ValidationError
from stemmadb.testing import assert_max_queries, count_queries, run_together

OLD = "old:" + base64.b64encode(b"o" * 32).decode()
NEW = "new:" + base64.b64encode(b"n" * 32).decode()
SECRET = SecretStr("JBSWY3DPEHPK3PXP")


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEMMADB_SECRET_KEYS", OLD)


@pytest.fixture
def user(session: Session) -> User:
    """Somebody without a second factor."""
    return users.create(session, f"{uuid4().hex}@example.com")


def stored(session: Session, user: User) -> str:
    """What the table holds of the secret."""
    return str(session.scalar(text("SELECT two_factor_secret FROM stemma.users WHERE id = :id"), {"id": user.id}))


def event_types(session: Session, user: User) -> list[str]:
    """The types of the events about somebody."""
    return sorted(session.scalars(text("SELECT type FROM stemma.security_events WHERE user_id = :id"), {"id": user.id}))


@pytest.mark.requirement("EC-048", "EC-040")
def test_enable_and_read_back(session: Session, user: User) -> None:
    """The secret is stored as a ciphertext and read back; ten codes of 80 bits, of which digests are stored."""
    setup = users.enable_two_factor(session, user.id, SECRET, method=MfaMethod.TOTP)
    assert user.two_factor_enabled
    assert setup.settings.method == MfaMethod.TOTP
    assert stored(session, user).startswith("v1:old:")
    assert users.get_two_factor_secret(session, user.id) == SECRET
    codes = [code.get_secret_value() for code in setup.backup_codes]
    assert len(set(codes)) == 10
    assert {len(base64.b32decode(code.replace("-", ""))) for code in codes} == {10}
    table = str(session.execute(text("SELECT * FROM stemma.mfa_settings")).all()) + repr(setup) + repr(setup.settings) + repr(user)
    for secret in (*codes, SECRET.get_secret_value(), stored(session, user)):
        assert secret not in table
    session.expunge_all()
    assert "two_factor_secret" not in users.get(session, user.id).__dict__
    assert event_types(session, user) == ["TWO_FACTOR_ENABLED"]


@pytest.mark.requirement("AD-026")
def test_a_secret_moved_to_another_user_does_not_open(session: Session, user: User) -> None:
    """Nor does it say what it is."""
    other = users.create(session, f"{uuid4().hex}@example.com")
    for one, secret in ((user, SECRET), (other, SecretStr("OTHER"))):
        users.enable_two_factor(session, one.id, secret)
    session.execute(
        text("UPDATE stemma.users SET two_factor_secret = :stored WHERE id = :id"), {"stored": stored(session, user), "id": other.id}
    )
    with pytest.raises(ConfigurationError) as caught:
        users.get_two_factor_secret(session, other.id)
    assert SECRET.get_secret_value() not in str(caught.value)


def test_disable(session: Session, user: User) -> None:
    """Secret and codes are gone; twice is as once; a second factor anew has new codes."""
    first = users.enable_two_factor(session, user.id, SECRET)
    users.disable_two_factor(session, user.id)
    users.disable_two_factor(session, user.id)
    assert not user.two_factor_enabled
    assert stored(session, user) == "None"
    assert not users.consume_backup_code(session, user.id, first.backup_codes[0])
    assert event_types(session, user) == ["TWO_FACTOR_DISABLED", "TWO_FACTOR_ENABLED"]
    with pytest.raises(NotFoundError):
        users.get_two_factor_secret(session, user.id)
    second = users.enable_two_factor(session, user.id, SECRET)
    third = users.enable_two_factor(session, user.id, SecretStr("OTHER"), method=MfaMethod.SMS)
    assert third.settings.id == second.settings.id
    assert third.settings.method == MfaMethod.SMS
    assert not users.consume_backup_code(session, user.id, second.backup_codes[0])
    assert users.consume_backup_code(session, user.id, third.backup_codes[0])


def test_a_code_works_once(session: Session, user: User) -> None:
    """One statement; however it is typed; only its user's, while they are active."""
    other = users.create(session, f"{uuid4().hex}@example.com")
    codes = users.enable_two_factor(session, user.id, SECRET).backup_codes
    users.enable_two_factor(session, other.id, SECRET)
    with assert_max_queries(1):
        assert users.consume_backup_code(session, user.id, codes[0])
    assert not users.consume_backup_code(session, user.id, codes[0])
    typed = SecretStr(f" {codes[1].get_secret_value().lower().replace('-', ' ')} ")
    assert not users.consume_backup_code(session, other.id, typed)
    assert users.consume_backup_code(session, user.id, typed)
    for wrong in ("", "AAAA-AAAA-AAAA-AAAA", "\x00", "\ud800", "x" * 10_000):
        assert not users.consume_backup_code(session, user.id, SecretStr(wrong))
    for nobody in (uuid4(), "nonsense"):
        assert not users.consume_backup_code(session, nobody, codes[2])
    users.suspend(session, user.id, reason="spam")
    assert not users.consume_backup_code(session, user.id, codes[2])
    users.reinstate(session, user.id)
    assert [users.consume_backup_code(session, user.id, code) for code in codes] == [False, False] + [True] * 8


@pytest.mark.race
def test_of_eight_uses_of_a_code_at_once_one_succeeds(committed_db: Database) -> None:
    """Eight callers, two codes: each works once."""
    with committed_db.session() as session:
        user = users.create(session, "a@example.com")
        codes = users.enable_two_factor(session, user.id, SECRET).backup_codes

    def use(number: int) -> bool:
        with committed_db.session() as session:
            return users.consume_backup_code(session, user.id, codes[number % 2])

    results = run_together(8, use)
    assert [results[0::2].count(True), results[1::2].count(True)] == [1, 1]
    assert results.count(False) == 6
    with committed_db.session() as session:
        assert session.scalar(text("SELECT cardinality(backup_code_hashes) FROM stemma.mfa_settings")) == 8


def test_keys_rotate(session: Session, user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an older key closed is opened while it is known, codes as well."""
    codes = users.enable_two_factor(session, user.id, SECRET).backup_codes
    monkeypatch.setenv("STEMMADB_SECRET_KEYS", f"{NEW},{OLD}")
    assert users.get_two_factor_secret(session, user.id) == SECRET
    assert users.consume_backup_code(session, user.id, codes[0])
    monkeypatch.setenv("STEMMADB_SECRET_KEYS", NEW)
    with pytest.raises(ConfigurationError):
        users.get_two_factor_secret(session, user.id)
    assert not users.consume_backup_code(session, user.id, codes[1])


def test_a_password_may_be_shorter_beside_it(session: Session, user: User) -> None:
    """Eight characters."""
    with pytest.raises(ValidationError):
        users.set_password(session, user.id, SecretStr("12345678"))
    users.enable_two_factor(session, user.id, SECRET)
    assert users.set_password(session, user.id, SecretStr("12345678")) is user


def test_without_keys_and_without_the_extra(session: Session, user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written; the errors name the variable and the extra."""
    with monkeypatch.context() as patch:
        patch.setenv("STEMMADB_SECRET_KEYS", "")
        for call in (
            lambda: users.enable_two_factor(session, user.id, SECRET),
            lambda: users.consume_backup_code(session, user.id, SECRET),
        ):
            with pytest.raises(ConfigurationError, match="STEMMADB_SECRET_KEYS"):
                call()
    with monkeypatch.context() as patch:
        for name in [name for name in sys.modules if name.partition(".")[0] == "cryptography"]:
            patch.setitem(sys.modules, name, None)
        with count_queries() as sent, pytest.raises(MissingDependencyError) as caught:
            users.enable_two_factor(session, user.id, SECRET)
        assert (caught.value.extra, sent.count) == ("auth", 0)
    assert not users.get(session, user.id).two_factor_enabled


@pytest.mark.parametrize("secret", [SecretStr(""), SecretStr("x" * 1025), SecretStr("\x00é"), "JBSWY3DPEHPK3PXP"])
def test_bad_secrets_are_refused_before_anything_is_sent(session: Session, user: User, secret: Any) -> None:
    """A ValidationError that names the field and not the secret."""
    with count_queries() as sent, pytest.raises(ValidationError) as caught:
        users.enable_two_factor(session, user.id, secret)
    assert (sent.count, caught.value.field) == (0, "secret")
    assert "JBSWY" not in str(caught.value)


def test_nobody_has_a_second_factor(session: Session) -> None:
    """NotFoundError, and the transaction goes on."""
    for wanted in (uuid4(), "nonsense"):
        with pytest.raises(NotFoundError):
            users.enable_two_factor(session, wanted, SECRET)
        with pytest.raises(NotFoundError):
            users.disable_two_factor(session, wanted)
        with pytest.raises(NotFoundError):
            users.get_two_factor_secret(session, wanted)


def test_no_secret_in_logs(session: Session, user: User, caplog: pytest.LogCaptureFixture) -> None:
    """At any level, of any logger."""
    with caplog.at_level(logging.DEBUG):
        codes = users.enable_two_factor(session, user.id, SECRET).backup_codes
        users.consume_backup_code(session, user.id, codes[0])
        users.get_two_factor_secret(session, user.id)
    for secret in (SECRET, *codes):
        assert secret.get_secret_value() not in caplog.text


async def test_twins(async_session: AsyncSession) -> None:
    """The async twins do the same work."""
    user = await ausers.create(async_session, f"{uuid4().hex}@example.com")
    setup = await ausers.enable_two_factor(async_session, user.id, SECRET)
    assert await ausers.get_two_factor_secret(async_session, user.id) == SECRET
    assert await ausers.consume_backup_code(async_session, user.id, setup.backup_codes[0])
    await ausers.disable_two_factor(async_session, user.id)
