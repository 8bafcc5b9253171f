"""Tokens that are mailed: good once, for a while, for one person."""

import logging
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from stemmadb.accounts import roles, sessions, users
from stemmadb.accounts.data import UserRegistration
from stemmadb.accounts.entities import User
from stemmadb.aio.accounts import users as ausers
from stemmadb.database import Database
from stemmadb.errors import AuthenticationError, ConflictError, NotFoundError, StemmaError, ValidationError
from stemmadb.testing import assert_max_queries, count_queries, run_together

PASSWORD = SecretStr("correct horse battery")
OTHER = SecretStr("another horse battery")


def address() -> str:
    """An address that nobody has."""
    return f"{uuid4().hex}@example.com"


@pytest.fixture
def user(session: Session) -> User:
    """Somebody."""
    return users.create(session, address())


# ----------------------------------------------------------------------------------------------------- registration


@pytest.mark.requirement("EC-226", "EC-163", "EC-079")
def test_register(session: Session) -> None:
    """User, role and token in one go: they sign in, and confirm the address."""
    roles.create(session, "reader")
    roles.create_permission(session, "books:*")
    roles.grant_to_role(session, "reader", "books:*")
    wanted = address()
    made = users.register(session, UserRegistration(email=wanted.upper(), password=PASSWORD, name="Ada"), role="reader")
    assert (made.user.email, made.user.name, made.user.email_verified) == (wanted, "Ada", False)
    assert users.verify_password(session, wanted, PASSWORD) is made.user
    assert roles.has_permission(session, made.user.id, "books:read")
    assert users.verify_email(session, made.verification.token) is made.user
    assert made.user.email_verified
    assert made.user.email_verified_at is not None
    with assert_max_queries(1):
        found = users.get_with_roles(session, made.user.id)
    assert (found.user, [role.name for role in found.roles], found.permissions) == (made.user, ["reader"], {"books:*"})


def test_register_is_all_or_nothing(session: Session) -> None:
    """An address that is taken, a role that is not there, a short password: nothing is made, and the transaction goes on."""
    roles.create(session, "reader")
    taken, wanted = users.create(session, address()), address()
    cases: list[tuple[dict[str, Any], str, type[StemmaError]]] = [
        ({"email": taken.email, "password": PASSWORD}, "reader", ConflictError),
        ({"email": wanted, "password": PASSWORD}, "nobody", NotFoundError),
        ({"email": wanted, "password": "short"}, "reader", ValidationError),
    ]
    for data, role, error in cases:
        with pytest.raises(error):
            users.register(session, UserRegistration(**data), role=role)
        assert users.find_by_email(session, wanted) is None
    for wrong in (
        {"email": "nonsense", "password": PASSWORD},
        {"email": wanted},
        {"email": wanted, "password": PASSWORD, "status": "ACTIVE"},
    ):
        with pytest.raises(ValidationError) as caught:
            UserRegistration(**wrong)
        assert PASSWORD.get_secret_value() not in str(caught.value)


@pytest.mark.race
def test_of_four_registrations_at_once_one_wins(committed_db: Database) -> None:
    """One user, one role, one token; three ConflictErrors."""
    with committed_db.session() as session:
        roles.create(session, "customer")
    data = UserRegistration(email=address(), password=PASSWORD)

    def register(_: int) -> users.Registration:
        with committed_db.session() as session:
            return users.register(session, data)

    results = run_together(4, register)
    assert sum(isinstance(result, ConflictError) for result in results) == 3
    with committed_db.session() as session:
        assert session.scalar(text("SELECT count(*) FROM stemma.email_verification_tokens")) == 1


def test_get_with_roles(session: Session, user: User) -> None:
    """Without roles, with direct grants only, with several; nobody is NotFoundError."""
    found = users.get_with_roles(session, user.id)
    assert (found.roles, found.permissions) == ([], frozenset())
    for key in ("a:read", "a:write", "b:*"):
        roles.create_permission(session, key)
    roles.grant(session, user.id, "a:read")
    assert users.get_with_roles(session, user.id).permissions == {"a:read"}
    for name, key in (("second", "a:write"), ("first", "b:*")):
        roles.create(session, name)
        roles.grant_to_role(session, name, key)
        roles.assign(session, user.id, name)
    found = users.get_with_roles(session, str(user.id))
    assert [role.name for role in found.roles] == ["first", "second"]
    assert found.permissions == {"a:read", "a:write", "b:*"} == roles.permissions_of(session, user.id)
    users.soft_delete(session, user.id)
    for wanted in (user.id, uuid4(), "nonsense"):
        with pytest.raises(NotFoundError):
            users.get_with_roles(session, wanted)


# ------------------------------------------------------------------------------------------------------------ e-mail


def test_an_address_is_confirmed_once(session: Session, user: User) -> None:
    """The token is good once; the table holds its digest."""
    issued = users.create_email_verification(session, user.id, user.email.upper())
    token = issued.token.get_secret_value()
    assert token not in str(session.execute(text("SELECT * FROM stemma.email_verification_tokens")).all()) + repr(issued)
    with assert_max_queries(1):
        assert users.verify_email(session, issued.token).email_verified
    for wrong in (issued.token, SecretStr(token[:-1] + ("A" if token[-1] != "A" else "B")), SecretStr("nonsense"), SecretStr("")):
        with pytest.raises(AuthenticationError):
            users.verify_email(session, wrong)


def test_a_new_address_becomes_theirs_when_it_is_confirmed(session: Session, user: User) -> None:
    """Unless somebody else has it by then: then the token stays good, and the transaction goes on."""
    wanted = address()
    issued = users.create_email_verification(session, user.id, wanted)
    rival = users.create(session, wanted)
    with pytest.raises(ConflictError) as caught:
        users.verify_email(session, issued.token)
    assert tuple(caught.value.fields) == ("email",)
    users.purge(session, rival.id)
    assert (users.verify_email(session, issued.token).email, user.email_verified) == (wanted, True)


def test_a_changed_address_is_not_confirmed(session: Session, user: User) -> None:
    """Tokens that were sent to the old one are void; the same address again changes nothing."""
    old = users.create_email_verification(session, user.id, user.email)
    users.verify_email(session, users.create_email_verification(session, user.id, user.email).token)
    assert users.update(session, user.id, users.UserUpdate(email=user.email, name="Ada")).email_verified
    changed = users.update(session, user.id, users.UserUpdate(email=address()))
    assert (changed.email_verified, changed.email_verified_at) == (False, None)
    with pytest.raises(AuthenticationError):
        users.verify_email(session, old.token)


@pytest.mark.parametrize("table", ["email_verification_tokens", "password_reset_tokens"])
def test_a_token_ends(session: Session, user: User, table: str) -> None:
    """After its time, and with its user."""
    verification, reset = users.create_email_verification(session, user.id, user.email), users.create_password_reset(session, user.id)
    session.execute(text(f"UPDATE stemma.{table} SET created_at = now() - interval '9 days', expires_at = now() - interval '1 second'"))
    for name, call in (
        ("email_verification_tokens", lambda: users.verify_email(session, verification.token)),
        ("password_reset_tokens", lambda: users.consume_password_reset(session, reset.token, PASSWORD)),
    ):
        if name == table:
            with pytest.raises(AuthenticationError):
                call()
    users.soft_delete(session, user.id)
    for call in (
        lambda: users.verify_email(session, verification.token),
        lambda: users.consume_password_reset(session, reset.token, PASSWORD),
    ):
        with pytest.raises(AuthenticationError):
            call()


# ------------------------------------------------------------------------------------------------------------ resets


def test_a_password_is_reset_once(session: Session, user: User) -> None:
    """Sessions end, the lock ends, other reset tokens are void; a password that is refused leaves the token good."""
    users.set_password(session, user.id, PASSWORD)
    opened = sessions.open(session, user.id)
    users.record_failed_login(session, user.id, max_attempts=1)
    first, second = users.create_password_reset(session, user.id, ip_address="10.0.0.1"), users.create_password_reset(session, user.id)
    with pytest.raises(ValidationError) as caught:
        users.consume_password_reset(session, first.token, SecretStr("short"))
    assert caught.value.field == "new_password"
    assert users.consume_password_reset(session, first.token, OTHER) is user
    assert users.verify_password(session, user.email, OTHER) is user
    with pytest.raises(AuthenticationError):
        sessions.authenticate(session, opened.token)
    for token in (first.token, second.token, SecretStr("nonsense")):
        with pytest.raises(AuthenticationError):
            users.consume_password_reset(session, token, PASSWORD)


def test_a_suspended_user_resets_nothing(session: Session, user: User) -> None:
    """A new password would be of no use to them."""
    issued = users.create_password_reset(session, user.id)
    users.suspend(session, user.id, reason="spam")
    with pytest.raises(AuthenticationError):
        users.consume_password_reset(session, issued.token, PASSWORD)


@pytest.mark.race
@pytest.mark.parametrize("kind", ["reset", "verification"])
def test_of_four_uses_at_once_one_succeeds(committed_db: Database, kind: str) -> None:
    """A token is single use, also concurrently."""
    with committed_db.session() as session:
        user = users.create(session, address())
        token = (
            users.create_password_reset(session, user.id)
            if kind == "reset"
            else users.create_email_verification(session, user.id, user.email)
        ).token

    def use(_: int) -> User:
        with committed_db.session() as session:
            return users.consume_password_reset(session, token, PASSWORD) if kind == "reset" else users.verify_email(session, token)

    results = run_together(4, use)
    assert sum(isinstance(result, User) for result in results) == 1
    assert sum(isinstance(result, AuthenticationError) for result in results) == 3


# ------------------------------------------------------------------------------------------------------------- input


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda s, u: users.create_email_verification(s, u, "nonsense"), "email"),
        (lambda s, u: users.create_email_verification(s, u, "a@b.cd", ttl=timedelta(0)), "ttl"),
        (lambda s, u: users.create_password_reset(s, u, ttl=timedelta(seconds=-1)), "ttl"),
        (lambda s, u: users.create_password_reset(s, u, ip_address="localhost"), "ip_address"),
        (lambda s, u: users.suspend(s, u, reason=""), "reason"),
    ],
)
def test_bad_input_is_refused_before_anything_is_sent(session: Session, user: User, call: Any, field: str) -> None:
    """A ValidationError that names the field."""
    with count_queries() as sent, pytest.raises(ValidationError) as caught:
        call(session, user.id)
    assert (sent.count, caught.value.field) == (0, field)


def test_nobody_gets_a_token(session: Session) -> None:
    """NotFoundError, and the transaction goes on."""
    for wanted in (uuid4(), "nonsense"):
        with pytest.raises(NotFoundError):
            users.create_email_verification(session, wanted, address())
        with pytest.raises(NotFoundError):
            users.create_password_reset(session, wanted)


def test_no_token_in_logs_and_errors(session: Session, user: User, caplog: pytest.LogCaptureFixture) -> None:
    """At any level, of any logger."""
    told: list[str] = []
    with caplog.at_level(logging.DEBUG):
        verification, reset = users.create_email_verification(session, user.id, user.email), users.create_password_reset(session, user.id)
        users.verify_email(session, verification.token)
        users.consume_password_reset(session, reset.token, PASSWORD)
        for call in (
            lambda: users.verify_email(session, verification.token),
            lambda: users.consume_password_reset(session, reset.token, PASSWORD),
        ):
            try:
                call()
            except StemmaError as error:
                told.append(repr(error))
        told += [repr(verification), repr(reset), repr(UserRegistration(email="a@b.cd", password=PASSWORD))]
    for secret in (verification.token, reset.token, PASSWORD):
        assert secret.get_secret_value() not in caplog.text + "".join(told)


async def test_twins(async_session: AsyncSession) -> None:
    """The async twins do the same work."""
    user = await ausers.create(async_session, address())
    issued = await ausers.create_email_verification(async_session, user.id, user.email)
    assert (await ausers.verify_email(async_session, issued.token)).email_verified
    reset = await ausers.create_password_reset(async_session, user.id)
    await ausers.consume_password_reset(async_session, reset.token, PASSWORD)
    assert (await ausers.get_with_roles(async_session, user.id)).roles == []
