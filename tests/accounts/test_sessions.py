"""Sessions: a token is good until it is spent, and spent once; used again it ends the whole log-in."""

import hashlib
import logging
import random
import string
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from stemmadb.accounts import _tokens, sessions, users
from stemmadb.aio.accounts import sessions as asessions
from stemmadb.aio.accounts import users as ausers
from stemmadb.database import Database
from stemmadb.errors import (
    AuthenticationError,
    ConflictError,
    NotFoundError,
    PermissionDeniedError,
    ReferenceNotFoundError,
    StemmaError,
    ValidationError,
)
from stemmadb.testing import assert_max_queries, count_queries, run_together


@pytest.fixture
def user(session: Session) -> UUID:
    """Somebody."""
    return users.create(session, f"{uuid4().hex}@example.com").id


@pytest.fixture
def committed_user(committed_db: Database) -> UUID:
    """Somebody, committed."""
    with committed_db.session() as session:
        return users.create(session, f"{uuid4().hex}@example.com").id


def refused(session: Session, token: SecretStr, **arguments: Any) -> None:
    """Require that a token is refused."""
    with pytest.raises(AuthenticationError):
        sessions.authenticate(session, token, **arguments)


def reasons(session: Session, user_id: UUID) -> list[str]:
    """What the security events about revoked sessions say."""
    statement = (
        "SELECT payload ->> 'reason' FROM stemma.security_events WHERE user_id = :id AND type = 'SESSION_REVOKED' ORDER BY created_at, id"
    )
    return list(session.scalars(text(statement), {"id": user_id}))


@pytest.mark.requirement("EC-041", "EC-078", "TN-018")
def test_open_and_authenticate(session: Session, user: UUID) -> None:
    """One statement each, and one the first time it is seen; the table holds the SHA-256 of the token and nothing readable."""
    with assert_max_queries(1):
        issued = sessions.open(session, user, fingerprint="f", ip_address="::1", user_agent="Firefox")
    token = issued.token.get_secret_value()
    assert token.startswith("stm_r_live_")
    assert (issued.session.user_id, issued.session.family_id, str(issued.session.ip_address)) == (user, issued.session.id, "::1")
    assert issued.session.expires_at - issued.session.created_at == timedelta(days=30)
    assert issued.session.idle_expires_at - issued.session.created_at == timedelta(days=7)
    with assert_max_queries(2):
        assert sessions.authenticate(session, issued.token) is issued.session
    digest = hashlib.sha256(token.encode()).digest()
    assert sessions.find_active(session, digest) is issued.session
    assert session.scalar(text("SELECT refresh_token_hash FROM stemma.user_sessions WHERE id = :id"), {"id": issued.session.id}) == digest
    assert token not in str(session.execute(text("SELECT * FROM stemma.user_sessions")).all())
    assert token not in repr(issued) + repr(issued.session)
    session.expunge_all()
    assert "refresh_token_hash" not in sessions.list_for_user(session, user)[0].__dict__


@pytest.mark.property
def test_garbage_sends_nothing(session: Session, user: UUID) -> None:
    """A mistyped token, an API key, a string that is no token: refused without a statement."""
    token = sessions.open(session, user).token.get_secret_value()
    generator = random.Random(1)
    mistyped = [
        token[:place] + generator.choice(string.ascii_letters.replace(token[place], "")) + token[place + 1 :] for place in range(len(token))
    ]
    with count_queries() as sent:
        for wrong in [*mistyped, "", "hunter2", _tokens.generate("k", live=True).text]:
            refused(session, SecretStr(wrong))
            with pytest.raises(AuthenticationError):
                sessions.rotate(session, SecretStr(wrong))
    assert sent.count == 0


def test_one_message_for_every_reason(session: Session, user: UUID) -> None:
    """Unknown, revoked, spent, expired, unused for too long, of somebody suspended or deleted: the same error, word for word."""
    tokens = {name: sessions.open(session, user) for name in ("revoked", "spent", "expired", "idle")}
    other = {name: users.create(session, f"{uuid4().hex}@example.com").id for name in ("suspended", "deleted")}
    tokens |= {name: sessions.open(session, who) for name, who in other.items()}
    sessions.revoke(session, tokens["revoked"].session.id)
    sessions.rotate(session, tokens["spent"].token)
    past = "created_at = now() - interval '9 days', expires_at = now() + {}, idle_expires_at = now() - interval '1 second'"
    for name, end in (("expired", "interval '-1 second'"), ("idle", "interval '1 day'")):
        session.execute(text(f"UPDATE stemma.user_sessions SET {past.format(end)} WHERE id = :id"), {"id": tokens[name].session.id})
    session.execute(text("UPDATE stemma.users SET status = 'SUSPENDED' WHERE id = :id"), {"id": other["suspended"]})
    session.execute(text("UPDATE stemma.users SET status = 'DELETED', deleted_at = now() WHERE id = :id"), {"id": other["deleted"]})
    messages = set()
    for token in [*(issued.token for issued in tokens.values()), SecretStr(_tokens.generate("r", live=True).text)]:
        for call in (sessions.authenticate, sessions.rotate):
            with pytest.raises(AuthenticationError) as caught:
                call(session, token)
            messages.add(str(caught.value))
    assert len(messages) == 1


# --------------------------------------------------------------------------------------------------------- rotation


@pytest.mark.requirement("AD-025")
def test_rotate(session: Session, user: UUID) -> None:
    """The next session keeps family, client and absolute end; the spent token is good for nothing more."""
    first = sessions.open(session, user, ttl=timedelta(days=3), idle=timedelta(days=2), fingerprint="f", user_agent="Firefox")
    with assert_max_queries(1):
        second = sessions.rotate(session, first.token)
    old, new = first.session, second.session
    assert (new.family_id, new.user_id, new.fingerprint, new.user_agent) == (old.id, user, "f", "Firefox")
    assert (new.expires_at, new.idle_expires_at) == (old.expires_at, old.idle_expires_at)
    assert second.token.get_secret_value() != first.token.get_secret_value()
    assert sessions.authenticate(session, second.token) is new
    third = sessions.rotate(session, second.token)
    assert third.session.family_id == old.id
    assert [row.id for row in sessions.list_for_user(session, user)] == [third.session.id]
    assert len(sessions.list_for_user(session, user, active_only=False)) == 3


@pytest.mark.requirement("AD-025", "EC-041")
@pytest.mark.parametrize("call", [sessions.authenticate, sessions.rotate], ids=["authenticate", "rotate"])
def test_a_spent_token_ends_the_log_in(committed_db: Database, committed_user: UUID, call: Any) -> None:
    """Of two clients with one token the second to come ends both, whatever its transaction does; other log-ins stay."""
    with committed_db.session() as session:
        stolen, elsewhere = sessions.open(session, committed_user), sessions.open(session, committed_user)
    with committed_db.session() as session:
        thief = sessions.rotate(session, stolen.token)
    with pytest.raises(AuthenticationError), committed_db.session() as session:
        call(session, stolen.token)
    with committed_db.session() as session:
        refused(session, thief.token)
        assert sessions.authenticate(session, elsewhere.token).user_id == committed_user
        rows = sessions.list_for_user(session, committed_user, active_only=False)
        assert {row.revoked_reason for row in rows if row.family_id == stolen.session.id} == {"ROTATED_TOKEN_REUSED"}
        assert reasons(session, committed_user) == ["ROTATED_TOKEN_REUSED"]
        refused(session, stolen.token)
        assert reasons(session, committed_user) == ["ROTATED_TOKEN_REUSED"]


def test_a_client_that_asks_twice_is_refused_only(session: Session, user: UUID) -> None:
    """Within ten seconds, with the fingerprint that the session has; later, and without one, the log-in ends."""
    first = sessions.open(session, user, fingerprint="f")
    second = sessions.rotate(session, first.token)
    refused(session, first.token, fingerprint="f")
    with pytest.raises(AuthenticationError):
        sessions.rotate(session, first.token, fingerprint="f")
    assert sessions.authenticate(session, second.token)
    session.execute(
        text("UPDATE stemma.user_sessions SET rotated_at = now() - interval '11 seconds' WHERE id = :id"), {"id": first.session.id}
    )
    refused(session, first.token, fingerprint="f")
    refused(session, second.token)
    bare = sessions.open(session, user)
    heir = sessions.rotate(session, bare.token)
    refused(session, bare.token)
    refused(session, heir.token)


def test_a_spent_token_in_the_same_transaction(committed_db: Database, committed_user: UUID) -> None:
    """Nobody waits for ever for the row that the caller itself holds."""
    with committed_db.session() as session:
        first = sessions.open(session, committed_user)
        second = sessions.rotate(session, first.token)
        refused(session, first.token)
        refused(session, second.token)


@pytest.mark.race
@pytest.mark.requirement("AD-025")
def test_of_ten_rotations_at_once_one_wins(committed_db: Database, committed_user: UUID) -> None:
    """One new token, nine refusals; with one fingerprint the log-in goes on, without it is over."""
    for fingerprint, open_afterwards in (("f", 1), (None, 0)):
        with committed_db.session() as session:
            token = sessions.open(session, committed_user, fingerprint=fingerprint).token

        def rotate(_: int, token: SecretStr = token, fingerprint: str | None = fingerprint) -> Any:
            with committed_db.session() as session:
                return sessions.rotate(session, token, fingerprint=fingerprint)

        results = run_together(10, rotate)
        assert sum(isinstance(result, sessions.IssuedSession) for result in results) == 1
        assert sum(isinstance(result, AuthenticationError) for result in results) == 9
        with committed_db.session() as session:
            assert len(sessions.list_for_user(session, committed_user)) == open_afterwards
            sessions.revoke_all(session, committed_user)


@pytest.mark.race
def test_no_session_survives_revoke_all_by_being_rotated(committed_db: Database, committed_user: UUID) -> None:
    """Rotated and revoked at the same moment, twenty times: nothing is open afterwards."""
    for _ in range(20):
        with committed_db.session() as session:
            token = sessions.open(session, committed_user).token

        def race(number: int, token: SecretStr = token) -> Any:
            with committed_db.session() as session:
                return sessions.rotate(session, token) if number else sessions.revoke_all(session, committed_user)

        results = run_together(2, race)
        assert all(not isinstance(result, BaseException) or isinstance(result, AuthenticationError) for result in results)
        with committed_db.session() as session:
            assert list(sessions.list_for_user(session, committed_user)) == []
            if isinstance(results[1], sessions.IssuedSession):
                refused(session, results[1].token)


# ------------------------------------------------------------------------------------------------------------- time


def test_use_moves_the_idle_end_every_five_minutes(committed_db: Database, committed_user: UUID, owner: Engine) -> None:
    """The first use writes, the next do not, also when the caller rolls back; never beyond the absolute end."""
    with committed_db.session() as session:
        issued = sessions.open(session, committed_user, ttl=timedelta(days=8), idle=timedelta(days=7))

    def later(days: int) -> None:
        with owner.begin() as connection:
            columns = ", ".join(
                f"{name} = {name} - interval '{days} days'" for name in ("created_at", "expires_at", "idle_expires_at", "last_seen_at")
            )
            connection.execute(text(f"UPDATE stemma.user_sessions SET {columns}"))

    with pytest.raises(ZeroDivisionError), committed_db.session() as session:
        sessions.authenticate(session, issued.token)
        _ = 1 / 0
    with committed_db.session() as session:
        with assert_max_queries(1):
            found = sessions.authenticate(session, issued.token)
        assert found.last_seen_at is not None
        assert timedelta(days=7) - timedelta(minutes=1) < found.idle_expires_at - found.created_at < timedelta(days=7, minutes=1)
    later(5)
    with committed_db.session() as session:
        sessions.authenticate(session, issued.token)
        found = sessions.list_for_user(session, committed_user)[0]
        session.refresh(found)
        assert found.idle_expires_at == found.expires_at
    later(2)
    with committed_db.session() as session:
        assert sessions.authenticate(session, issued.token)
    later(2)
    with committed_db.session() as session:
        refused(session, issued.token)


@pytest.mark.fault
def test_a_use_that_cannot_be_written_fails_nothing(
    committed_db: Database, committed_user: UUID, owner: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    """The row is locked, then the column cannot be written at all: the token is good, and a warning says so."""
    with committed_db.session() as session:
        issued = sessions.open(session, committed_user)
    with committed_db.session() as holder:
        holder.execute(text("SELECT 1 FROM stemma.user_sessions FOR UPDATE"))
        with committed_db.session() as session:
            assert sessions.authenticate(session, issued.token).user_id == committed_user
    with owner.begin() as connection:
        connection.execute(text("REVOKE UPDATE ON stemma.user_sessions FROM stemma_app"))
    with committed_db.session() as session, caplog.at_level(logging.WARNING, "stemmadb.accounts.sessions"):
        assert sessions.authenticate(session, issued.token).user_id == committed_user
    assert "last_seen_at" in caplog.text


# ------------------------------------------------------------------------------------------------------------- ends


def test_revoke_ends_one_log_in(session: Session, user: UUID) -> None:
    """By any of its sessions, spent ones included; twice is as once; the others stay."""
    first, other = sessions.open(session, user), sessions.open(session, user)
    second = sessions.rotate(session, first.token)
    with assert_max_queries(1):
        sessions.revoke(session, first.session.id)
    refused(session, second.token)
    assert sessions.authenticate(session, other.token)
    sessions.revoke(session, second.session.id, reason="ADMIN")
    assert reasons(session, user) == ["LOGOUT"]
    assert sessions.revoke_family(session, other.session.family_id, reason="ADMIN") == 1
    assert sessions.revoke_family(session, other.session.family_id, reason="ADMIN") == 0
    assert sessions.revoke_family(session, uuid4(), reason="ADMIN") == 0
    refused(session, other.token)
    for wanted in (uuid4(), "nonsense"):
        with pytest.raises(NotFoundError):
            sessions.revoke(session, wanted)


def test_revoke_all(session: Session, user: UUID) -> None:
    """One statement; the log-in that asks may stay; the number is that of log-ins that were open."""
    mine = sessions.rotate(session, sessions.open(session, user).token)
    others = [sessions.open(session, user) for _ in range(3)]
    sessions.rotate(session, others[0].token)
    stranger = sessions.open(session, users.create(session, f"{uuid4().hex}@example.com").id)
    with assert_max_queries(1):
        assert sessions.revoke_all(session, user, except_session_id=mine.session.id) == 3
    assert [row.id for row in sessions.list_for_user(session, user)] == [mine.session.id]
    assert sessions.revoke_all(session, user, reason="ADMIN") == 1
    assert sessions.revoke_all(session, user) == 0
    assert sorted(reasons(session, user)) == ["ADMIN", "LOGOUT"]
    assert sessions.authenticate(session, stranger.token)
    with pytest.raises(NotFoundError):
        sessions.revoke_all(session, uuid4())


@pytest.mark.requirement("EC-092")
def test_sessions_go_with_their_user(session: Session, user: UUID) -> None:
    """Removing the user removes them; hiding the user ends them."""
    issued = sessions.open(session, user)
    users.soft_delete(session, user)
    users.restore(session, user)
    refused(session, issued.token)
    session.execute(text("DELETE FROM stemma.users WHERE id = :id"), {"id": user})
    assert session.scalar(text("SELECT count(*) FROM stemma.user_sessions WHERE user_id = :id"), {"id": user}) == 0


@pytest.mark.requirement("EC-115")
def test_delete_expired(committed_db: Database, committed_user: UUID, owner: Engine) -> None:
    """A batch at a time, the oldest first, without rows that somebody holds, and never one that is still good."""
    with committed_db.session() as session:
        made = [sessions.open(session, committed_user).session.id for _ in range(6)]
    with owner.begin() as connection:
        for number, key in enumerate(made[:5], 1):
            connection.execute(
                text(
                    "UPDATE stemma.user_sessions SET created_at = now() - interval '99 days', expires_at = now() - :age * interval '1 day',"
                    " idle_expires_at = now() - :age * interval '1 day' WHERE id = :id"
                ),
                {"age": number, "id": key},
            )
    with committed_db.session() as holder:
        holder.execute(text("SELECT 1 FROM stemma.user_sessions WHERE id = :id FOR UPDATE"), {"id": made[4]})
        with committed_db.session() as session:
            assert sessions.delete_expired(session, before=datetime.now(UTC) - timedelta(days=2, hours=1), batch=1) == 1
            left = {row.id for row in sessions.list_for_user(session, committed_user, active_only=False)}
            assert left == {made[0], made[1], made[2], made[4], made[5]}
            assert sessions.delete_expired(session, before=datetime.now(UTC) + timedelta(days=99)) == 3
    with committed_db.session() as session:
        assert [sessions.delete_expired(session) for _ in range(2)] == [1, 0]
        assert [row.id for row in sessions.list_for_user(session, committed_user)] == [made[5]]


@pytest.mark.requirement("EC-115")
def test_the_clean_up_has_an_index(session: Session) -> None:
    """Expired sessions are found by (expires_at, revoked_at)."""
    session.execute(text("SET LOCAL enable_seqscan = off"))
    plan = session.execute(
        text("EXPLAIN SELECT id FROM stemma.user_sessions WHERE expires_at < now() ORDER BY expires_at LIMIT 1000")
    ).all()
    assert "user_sessions_expires_at_revoked_at_idx" in str(plan)


# ------------------------------------------------------------------------------------------------------------ input


def test_a_digest_made_elsewhere(session: Session, user: UUID) -> None:
    """Found by its digest until its end; a second one is refused, and the transaction goes on."""
    digest, end = hashlib.sha256(b"token").digest(), datetime.now(UTC) + timedelta(days=90)
    made = sessions.create(session, user, digest, end, user_agent="Firefox")
    assert (made.expires_at, made.idle_expires_at, made.family_id) == (end, end, made.id)
    assert sessions.find_active(session, digest) is made
    assert sessions.find_active(session, bytes(32)) is None
    with pytest.raises(ConflictError):
        sessions.create(session, user, digest, end)
    sessions.revoke(session, made.id)
    assert sessions.find_active(session, digest) is None


def test_whom_a_session_is_for(session: Session, user: UUID) -> None:
    """Nobody is NotFoundError, somebody suspended PermissionDeniedError, and the transaction goes on."""
    for wanted in (uuid4(), "nonsense"):
        with pytest.raises(NotFoundError):
            sessions.open(session, wanted)
    session.execute(text("UPDATE stemma.users SET status = 'SUSPENDED' WHERE id = :id"), {"id": user})
    with pytest.raises(PermissionDeniedError):
        sessions.open(session, user)
    with pytest.raises(ReferenceNotFoundError), session.begin_nested():
        sessions.create(session, uuid4(), bytes(32), datetime.now(UTC) + timedelta(days=1))
    assert len(sessions.list_for_user(session, user)) == 0


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda s, u: sessions.open(s, u, ttl=timedelta(0)), "ttl"),
        (lambda s, u: sessions.open(s, u, idle=timedelta(seconds=-1)), "idle"),
        (lambda s, u: sessions.open(s, u, ip_address="1.2.3"), "ip_address"),
        (lambda s, u: sessions.open(s, u, user_agent="a\x00"), "user_agent"),
        (lambda s, u: sessions.open(s, u, fingerprint="\ud800"), "fingerprint"),
        (lambda s, u: sessions.create(s, u, b"short", datetime.now(UTC) + timedelta(days=1)), "refresh_token_hash"),
        (lambda s, u: sessions.create(s, u, bytes(32), datetime(2090, 1, 1)), "expires_at"),
        (lambda s, u: sessions.create(s, u, bytes(32), datetime.now(UTC)), "expires_at"),
        (lambda s, u: sessions.find_active(s, b"short"), "refresh_token_hash"),
        (lambda s, u: sessions.revoke(s, u, reason=" "), "reason"),
        (lambda s, u: sessions.revoke_all(s, u, except_session_id="nonsense"), "except_session_id"),
        (lambda s, u: sessions.delete_expired(s, batch=0), "batch"),
        (lambda s, u: sessions.delete_expired(s, before=datetime(2020, 1, 1)), "before"),
    ],
)
def test_bad_input_is_refused_before_anything_is_sent(session: Session, user: UUID, call: Any, field: str) -> None:
    """A ValidationError that names the field."""
    with count_queries() as sent, pytest.raises(ValidationError) as caught:
        call(session, user)
    assert (sent.count, caught.value.field) == (0, field)


def test_no_token_in_logs_and_errors(session: Session, user: UUID, caplog: pytest.LogCaptureFixture) -> None:
    """At any level, of any logger."""
    told: list[str] = []
    with caplog.at_level(logging.DEBUG):
        first = sessions.open(session, user)
        second = sessions.rotate(session, first.token)
        for token in (first.token, second.token):
            try:
                sessions.authenticate(session, token)
            except StemmaError as error:
                told.append(repr(error))
        told += [repr(first), repr(second)]
    for issued in (first, second):
        token = issued.token.get_secret_value()
        assert token[20:] not in caplog.text + "".join(told)
        assert hashlib.sha256(token.encode()).hexdigest() not in caplog.text + "".join(told)


def test_pages_join(session: Session, user: UUID) -> None:
    """Newest first."""
    made = [sessions.open(session, user).session.id for _ in range(5)]
    first = sessions.list_for_user(session, user, limit=3)
    rest = sessions.list_for_user(session, user, limit=3, cursor=first.next_cursor)
    assert [row.id for row in [*first, *rest]] == made[::-1]


async def test_twins(async_session: AsyncSession) -> None:
    """The async twins do the same work."""
    user = await ausers.create(async_session, f"{uuid4().hex}@example.com")
    issued = await asessions.open(async_session, user.id)
    assert (await asessions.authenticate(async_session, issued.token)).user_id == user.id
    successor = await asessions.rotate(async_session, issued.token)
    with pytest.raises(AuthenticationError):
        await asessions.authenticate(async_session, issued.token)
    with pytest.raises(AuthenticationError):
        await asessions.authenticate(async_session, successor.token)
    assert await asessions.delete_expired(async_session) == 0
