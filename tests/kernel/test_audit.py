"""Who acts: the actor of a context, how sessions come by it, and what records hide."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextvars import copy_context
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from stemmadb import tenancy, use
from stemmadb.audit import Actor, ActorType, actor, actor_of, find_current_actor, literal, masked, setting_of
from stemmadb.database import Database
from stemmadb.errors import ValidationError
from stemmadb.testing import count_queries, make_workspace

SETTING = text("SELECT nullif(current_setting('stemma.actor', true), '')")
ADA, BOB = uuid4(), uuid4()
NASTY = "it's 100% \\ \"é\" \U0001f600 '; DROP TABLE x; -- :name %(x)s"


def told(session: Session) -> dict[str, Any] | None:
    """What the transaction was told about who acts."""
    found = session.scalar(SETTING)
    return None if found is None else json.loads(found)


# ------------------------------------------------------------------------------------------------------------------ the context


@pytest.mark.offline
@pytest.mark.requirement("EC-191")
def test_the_inner_actor_holds_and_the_outer_comes_back() -> None:
    """Also after an error, and when one context is entered twice."""
    assert find_current_actor() is None
    with actor(ADA, ip_address="10.0.0.1") as outer:
        assert find_current_actor() is outer
        assert outer == Actor(ADA, ActorType.USER, "10.0.0.1")
        with pytest.raises(LookupError), actor(BOB, type=ActorType.ADMIN) as inner:
            assert find_current_actor() is inner
            assert inner.ip_address is None
            raise LookupError
        assert find_current_actor() is outer
    again = actor(str(BOB))
    with again, again:
        assert find_current_actor() == Actor(BOB)
    assert find_current_actor() is None


@pytest.mark.offline
@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"user_id": "ada"}, "user_id"),
        ({"type": "ROBOT"}, "type"),
        ({"ip_address": "300.0.0.1"}, "ip_address"),
        ({"ip_address": "fe80::1%eth0"}, "ip_address"),
        ({"ip_address": 5}, "ip_address"),
        ({"user_agent": "a\0b"}, "user_agent"),
        ({"user_agent": "\ud800"}, "user_agent"),
    ],
)
def test_what_can_be_no_actor_is_refused(values: dict[str, Any], field: str) -> None:
    """Before anything is opened, with the name of the field."""
    for make in (actor, Actor):
        with pytest.raises(ValidationError) as caught:
            make(**values)
        assert caught.value.field == field


@pytest.mark.offline
async def test_tasks_inherit_the_actor_and_threads_do_not() -> None:
    """A thread has it only when it runs in a copy of the context."""
    found: list[Actor | None] = []

    async def look() -> Actor | None:
        await asyncio.sleep(0)
        return find_current_actor()

    async def act(id: UUID) -> Actor | None:
        with actor(id):
            return await asyncio.create_task(look())

    assert await asyncio.gather(act(ADA), look(), act(BOB)) == [Actor(ADA), None, Actor(BOB)]
    with actor(ADA):
        for run in (lambda: found.append(find_current_actor()), lambda: None):
            thread = threading.Thread(target=run)
            thread.start()
            thread.join()
        context = copy_context()
    thread = threading.Thread(target=context.run, args=(lambda: found.append(find_current_actor()),))
    thread.start()
    thread.join()
    assert found == [None, Actor(ADA)]


# ----------------------------------------------------------------------------------------------------------------- the sessions


@pytest.mark.requirement("EC-191", "EC-077")
def test_a_session_sends_its_actor_with_the_message_that_begins(db: Database) -> None:
    """Without a statement more, in every transaction, as it was given; a session opened outside has none."""
    with actor(ADA, type=ActorType.API_KEY, ip_address="2001:db8::1", user_agent=NASTY), db.session() as session, count_queries() as sent:
        wanted = {"user_id": str(ADA), "type": "API_KEY", "ip_address": "2001:db8::1", "user_agent": NASTY}
        assert told(session) == wanted
        session.commit()
        assert told(session) == wanted
        assert sent.count == 2
        assert actor_of(session) == Actor(ADA, ActorType.API_KEY, "2001:db8::1", NASTY)
    with db.session() as session:
        assert told(session) is None
        assert actor_of(session) is None


def test_a_session_keeps_the_actor_that_it_was_opened_under(db: Database) -> None:
    """Whoever is the actor of the context when its transaction begins."""
    with actor(ADA):
        opened = db.session()
        session = opened.__enter__()
    with actor(BOB):
        assert told(session) == {"user_id": str(ADA), "type": "USER"}
    opened.__exit__(None, None, None)
    with db.session() as session, actor(BOB):
        assert told(session) is None
        assert actor_of(session) is None


def test_units_of_work_have_the_actor(db: Database) -> None:
    """run() opens its session where it is called."""
    with actor(ADA):
        assert db.run(lambda session: told(session)) == {"user_id": str(ADA), "type": "USER"}
    assert db.run(lambda session: told(session)) is None


async def test_async_sessions_have_the_actor_of_their_task(db: Database) -> None:
    """Interleaved tasks keep theirs apart, with arun() too."""

    async def look(session: AsyncSession) -> Any:
        await asyncio.sleep(0)
        return await session.scalar(SETTING)

    async def act(id: UUID) -> set[str]:
        found = set()
        for _ in range(5):
            with actor(id):
                async with db.async_session() as session:
                    found.add(json.loads(await look(session))["user_id"])
                found.add(json.loads(await db.arun(look))["user_id"])
        return found

    ids = [uuid4() for _ in range(10)]
    assert await asyncio.gather(*map(act, ids)) == [{str(id)} for id in ids]
    async with db.async_session() as session:
        assert await look(session) is None


@pytest.mark.race
def test_actors_of_threads_do_not_mix(db: Database) -> None:
    """Threads that share a pool see their own actor in every transaction, and none after it."""
    from stemmadb.testing import run_together

    def act(number: int) -> bool:
        id = UUID(int=number)
        for _ in range(20):
            with actor(id), db.session() as session:
                if told(session) != {"user_id": str(id), "type": "USER"}:
                    return False
            with db.session() as session:
                if told(session) is not None:
                    return False
        return True

    assert run_together(8, act) == [True] * 8


@pytest.fixture
def host(committed_db: Database) -> Iterator[Any]:
    """A host's own engine on our database, and a workspace in it."""
    engine = create_engine(committed_db.url)
    yield engine, make_workspace(committed_db, "lab")
    engine.dispose()


def test_a_host_s_session_sends_its_actor_too(host: Any) -> None:
    """On an engine given to use(), or in a workspace; in a savepoint nothing is sent again; elsewhere nothing at all."""
    engine, workspace = host
    with actor(ADA, user_agent=NASTY), Session(engine) as session:
        assert told(session) is None
    with actor(ADA, user_agent=NASTY), Session(engine, info={"workspace": workspace}) as session:
        with session.begin_nested():
            assert told(session) == {"user_id": str(ADA), "type": "USER", "user_agent": NASTY}
        assert tenancy.workspace_of(session) == workspace
    database = use(engine)
    with actor(BOB):
        opened = database.session()
        session = opened.__enter__()
    assert told(session) == {"user_id": str(BOB), "type": "USER"}
    opened.__exit__(None, None, None)
    with Session(engine) as session:
        assert told(session) is None
        assert actor_of(session) is None


def test_a_session_on_a_connection_sends_its_actor(db: Database) -> None:
    """As the fixtures of tests have it."""
    with db.engine.connect() as connection, connection.begin() as outer:
        with actor(ADA), db.session_on(connection) as session:
            assert told(session) == {"user_id": str(ADA), "type": "USER"}
        outer.rollback()


@pytest.mark.requirement("AD-021", "TN-048")
def test_whoever_reads_across_workspaces_is_on_record(committed_db: Database) -> None:
    """With the address and the user; SYSTEM when nobody said who."""
    with committed_db.session() as session:
        id = session.scalar(text("INSERT INTO stemma.users (email) VALUES ('ada@example.com') RETURNING id"))
    with actor(id, type=ActorType.ADMIN, ip_address="10.0.0.9", user_agent=NASTY), committed_db.all_workspaces(reason="audit"):
        pass
    with committed_db.all_workspaces(reason="census") as session:
        rows = session.execute(
            text(
                "SELECT user_id, actor_type::text, host(ip_address), user_agent FROM stemma.audit_logs "
                "WHERE action = 'ALL_WORKSPACES' ORDER BY created_at"
            )
        ).all()
    assert [tuple(row) for row in rows] == [(id, "ADMIN", "10.0.0.9", NASTY), (None, "SYSTEM", None, None)]


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30))
@pytest.mark.property
def test_any_user_agent_arrives_as_it_is(stemmadb_database: Database, user_agent: str) -> None:
    """Whatever a client calls itself, it is a value and never SQL, under either meaning of backslashes."""
    setting = setting_of(Actor(user_agent=user_agent))
    assert setting.isascii()
    with stemmadb_database.engine.connect() as connection:
        for meaning in ("on", "off"):
            connection.exec_driver_sql("SET LOCAL escape_string_warning = off")
            connection.exec_driver_sql(f"SET LOCAL standard_conforming_strings = {meaning}")
            connection.exec_driver_sql(f"SET LOCAL stemma.actor = {literal(setting)}")
            assert json.loads(str(connection.scalar(SETTING)))["user_agent"] == user_agent
        connection.rollback()


# ----------------------------------------------------------------------------------------------------------------- what is hidden

HIDDEN = (
    "password",
    "Password",
    "new_password",
    "password_hash",
    "token",
    "access_token",
    "refreshToken",
    "X-Api-Key",
    "apiKey",
    "api_keys",
    "secret",
    "client_secrets",
    "private-key",
    "Authorization",
    "Set-Cookie",
    "credentials",
    "digest",
    "backup_code_hashes",
    "ciphertext",
    "pin",
    "card_cvv",
    "totp_otp",
)
SHOWN = (
    "name",
    "tokens_used_today",
    "daily_token_limit",
    "max_output_tokens",
    "token_expires_at",
    "api_key_hint",
    "opinion",
    "spin",
    "hashtag",
    "",
)


@pytest.mark.requirement("EC-048")
def test_python_and_the_database_hide_the_same(db: Database) -> None:
    """By name, at any depth, letter case and separators aside; what is absent stays None."""
    data: dict[str, Any] = {name: f"planted {name}" for name in (*HIDDEN, *SHOWN)}
    data |= {"deep": {"list": [{"token": "planted"}, "plain"], "password": None}, "number": 5, "nothing": None}
    found = masked(data)
    assert {name for name, value in found.items() if value == "***"} == set(HIDDEN)
    assert found["deep"] == {"list": [{"token": "***"}, "plain"], "password": None}
    with db.session() as session:
        statement = text("SELECT stemma.stemma_mask(CAST(:data AS jsonb), '{}')")
        assert session.scalar(statement, {"data": json.dumps(data)}) == found


@pytest.mark.offline
def test_what_pydantic_holds_as_secret_is_hidden() -> None:
    """Under any name."""
    assert masked({"note": SecretStr("planted"), "notes": (SecretStr("planted"), 1)}) == {"note": "***", "notes": ["***", 1]}


def test_what_is_nested_too_deep_to_be_read_is_cut(db: Database) -> None:
    """A record can be read whatever raw SQL has put into a document, and no document is too deep to be changed."""
    deep: Any = "end"
    for _ in range(500):
        deep = {"d": deep}
    with db.session() as session:
        found = session.scalar(text("SELECT stemma.stemma_mask(CAST(:data AS jsonb), '{}')"), {"data": json.dumps({"doc": deep})})
    levels = 0
    while isinstance(found, dict):
        (found,) = found.values()
        levels += 1
    assert found == "***"
    assert levels <= 62
