"""Providers: keys that come back through one door, one default, and a daily limit that holds."""

import base64
import logging
import sys
from datetime import date, datetime
from uuid import UUID, uuid4

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from stemmadb.aio.workspaces import providers as aproviders
from stemmadb.database import Database
from stemmadb.errors import (
    ConfigurationError,
    ConflictError,
    MissingDependencyError,
    NotFoundError,
    QuotaExceededError,
    UnknownSchemaVersionError,
    ValidationError,
)
from stemmadb.testing import assert_max_queries, count_queries, make_workspace, run_together
from stemmadb.workspaces import providers
from stemmadb.workspaces.documents import AIProviderSettings
from stemmadb.workspaces.entities import AIProviderConfig
from stemmadb.workspaces.providers import AIProvider, ProviderConfigUpdate

OLD = "old:" + base64.b64encode(b"o" * 32).decode()
NEW = "new:" + base64.b64encode(b"n" * 32).decode()
PLAIN = "sk-test-0123456789abcdef"
KEY = SecretStr(PLAIN)
TODAY, TOMORROW = date(2026, 1, 1), date(2026, 1, 2)


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEMMADB_SECRET_KEYS", OLD)


def stored(session: Session, config_id: UUID) -> str:
    """What the column of a key holds."""
    return str(session.scalar(text("SELECT api_key FROM stemma.ai_provider_configs WHERE id = :id"), {"id": config_id}))


# ---------------------------------------------------------------------------------------------------------------- upsert


def test_upsert_makes_and_changes(session: Session) -> None:
    """The same provider and label are one row, whose object follows; two statements; what is absent stays, None clears."""
    settings = AIProviderSettings(temperature=0.5)
    with assert_max_queries(2):
        made = providers.upsert(
            session,
            AIProvider.OPENAI,
            data=ProviderConfigUpdate(default_model="m", daily_token_limit=10, settings=settings, is_enabled=False),
        )
    assert (made.provider, made.label, made.default_model, made.daily_token_limit) == (AIProvider.OPENAI, "default", "m", 10)
    assert (made.settings.temperature, made.is_enabled, made.is_default, made.api_key_hint) == (0.5, False, False, None)
    with assert_max_queries(2):
        again = providers.upsert(session, AIProvider.OPENAI, data=ProviderConfigUpdate(base_url="https://x", daily_token_limit=None))
    assert again is made
    assert (made.base_url, made.default_model, made.daily_token_limit, made.is_enabled) == ("https://x", "m", None, False)
    assert providers.upsert(session, AIProvider.OPENAI) is made
    other = providers.upsert(session, AIProvider.OPENAI, label="second")
    assert other.id != made.id
    assert providers.upsert(session, "ANTHROPIC").provider == AIProvider.ANTHROPIC  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"provider": "NOBODY"}, "provider"),
        ({"label": " "}, "label"),
        ({"label": "a\0"}, "label"),
        ({"api_key": SecretStr(" ")}, "api_key"),
        ({"api_key": SecretStr("a\0")}, "api_key"),
        ({"api_key": PLAIN}, "api_key"),
        ({"data": {"base_url": "ftp://x"}}, "base_url"),
        ({"data": {"daily_token_limit": 0}}, "daily_token_limit"),
        ({"data": {"is_enabled": None}}, "is_enabled"),
        ({"data": {"settings": None}}, "settings"),
        ({"data": {"api_key": "x"}}, "api_key"),
    ],
)
def test_upsert_refuses_what_cannot_be(session: Session, arguments: dict[str, object], field: str) -> None:
    """ValidationError that names the field and holds no key; nothing is sent."""
    with count_queries() as sent, pytest.raises(ValidationError) as caught:
        providers.upsert(session, **{"provider": AIProvider.OPENAI, **arguments})  # type: ignore[arg-type]
    assert (caught.value.field, sent.count) == (field, 0)
    assert PLAIN not in str(caught.value)


def test_settings_of_a_newer_release_stay(session: Session) -> None:
    """They are not overwritten, and the transaction goes on; a new key can be stored nevertheless by the release that knows them."""
    made = providers.upsert(session, AIProvider.OPENAI)
    session.execute(text("""UPDATE stemma.ai_provider_configs SET settings = '{"schema_version": 99}' WHERE id = :id"""), {"id": made.id})
    with pytest.raises(UnknownSchemaVersionError):
        providers.upsert(session, AIProvider.OPENAI, data=ProviderConfigUpdate(settings=AIProviderSettings()))
    found = session.scalar(text("SELECT settings ->> 'schema_version' FROM stemma.ai_provider_configs WHERE id = :id"), {"id": made.id})
    assert found == "99"


@pytest.mark.race
def test_of_ten_first_upserts_one_row_comes(committed_db: Database, committed_workspace: UUID) -> None:
    """Ten callers with ten keys make one configuration; its key is one of them, and opens."""
    keys = [f"{PLAIN}-{number}" for number in range(10)]
    results = run_together(
        10,
        lambda number: committed_db.run(providers.upsert, AIProvider.XAI, api_key=SecretStr(keys[number]), workspace=committed_workspace),
    )
    ids = {result.id for result in results if isinstance(result, AIProviderConfig)}
    assert [type(result) for result in results] == [AIProviderConfig] * 10
    (config_id,) = ids
    with committed_db.session(workspace=committed_workspace) as session:
        assert len(providers.list_all(session)) == 1
        assert providers.reveal_key(session, config_id).get_secret_value() in keys


# ------------------------------------------------------------------------------------------------------------------- keys


def test_a_key_comes_back_through_one_door(session: Session, caplog: pytest.LogCaptureFixture) -> None:
    """reveal_key gives it, in a statement and a record; no object, repr, dump, list, log or row shows it or its ciphertext."""
    with caplog.at_level(logging.DEBUG):
        made = providers.upsert(session, AIProvider.OPENAI, api_key=KEY)
        with assert_max_queries(2):
            assert providers.reveal_key(session, str(made.id)).get_secret_value() == PLAIN
        shown = [made, providers.get(session, made.id), *providers.list_all(session), providers.reveal_key(session, made.id)]
    ciphertext = stored(session, made.id)
    assert ciphertext.startswith("v1:old:")
    assert made.api_key_hint == "cdef"
    everything = "".join(repr(found) for found in shown) + str(made.model_dump()) + made.model_dump_json() + caplog.text
    everything += "".join(str(record.__dict__) for record in caplog.records)
    for secret in (PLAIN, ciphertext, ciphertext.rpartition(":")[2], PLAIN[-8:]):
        assert secret not in everything
    assert "api_key" not in made.__dict__
    assert "provider key revealed" in caplog.text


def test_a_key_is_replaced(session: Session) -> None:
    """An absent key leaves the stored one; a new one takes its place, and what was found out about the old one is forgotten."""
    made = providers.upsert(session, AIProvider.OPENAI, api_key=KEY)
    providers.mark_validated(session, made.id, error="no credit")
    providers.upsert(session, AIProvider.OPENAI, data=ProviderConfigUpdate(default_model="m"))
    assert providers.reveal_key(session, made.id).get_secret_value() == PLAIN
    assert made.last_error == "no credit"
    providers.upsert(session, AIProvider.OPENAI, api_key=SecretStr("sk-other-abcdefghijkl"))
    assert providers.reveal_key(session, made.id).get_secret_value() == "sk-other-abcdefghijkl"
    assert (made.api_key_hint, made.last_error, made.last_validated_at, made.default_model) == ("ijkl", None, None, "m")
    assert providers.upsert(session, AIProvider.OPENAI, api_key=SecretStr("short")).api_key_hint is None


@pytest.mark.requirement("AD-026")
def test_a_ciphertext_that_moved_does_not_open(committed_db: Database, owner: Engine) -> None:
    """Copied to another row of the workspace, or to the same provider of another workspace: ConfigurationError without the secret."""
    here, there = make_workspace(committed_db), make_workspace(committed_db)
    with committed_db.session(workspace=here) as session:
        made = providers.upsert(session, AIProvider.OPENAI, api_key=KEY)
        beside = providers.upsert(session, AIProvider.OPENAI, label="second", api_key=SecretStr("another-key-0123"))
        ciphertext = stored(session, made.id)
    with committed_db.session(workspace=there) as session:
        elsewhere = providers.upsert(session, AIProvider.OPENAI)
    for workspace_id, config in ((here, beside), (there, elsewhere)):
        with committed_db.session(workspace=workspace_id) as session:
            session.execute(
                text("UPDATE stemma.ai_provider_configs SET api_key = :moved WHERE id = :id"), {"moved": ciphertext, "id": config.id}
            )
            with pytest.raises(ConfigurationError) as caught:
                providers.reveal_key(session, config.id)
            assert PLAIN not in str(caught.value)
            assert ciphertext not in str(caught.value)
    # Even with its id: a row of another workspace is another row.
    with owner.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE stemma.ai_provider_configs NO FORCE ROW LEVEL SECURITY")
        connection.execute(text("DELETE FROM stemma.ai_provider_configs WHERE workspace_id = :there"), {"there": there})
        connection.execute(
            text(
                """
                INSERT INTO stemma.ai_provider_configs (workspace_id, id, provider, api_key)
                SELECT :there, id, provider, api_key FROM stemma.ai_provider_configs WHERE workspace_id = :here AND id = :id
                """
            ),
            {"there": there, "here": here, "id": made.id},
        )
    with committed_db.session(workspace=there) as session, pytest.raises(ConfigurationError):
        providers.reveal_key(session, made.id)
    with committed_db.session(workspace=here) as session:
        assert providers.reveal_key(session, made.id).get_secret_value() == PLAIN


def test_keys_of_the_ring_rotate(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest encrypts, any known one opens; one that is gone is named, and so is an empty ring."""
    made = providers.upsert(session, AIProvider.OPENAI, api_key=KEY)
    monkeypatch.setenv("STEMMADB_SECRET_KEYS", f"{NEW},{OLD}")
    other = providers.upsert(session, AIProvider.XAI, api_key=KEY)
    assert stored(session, other.id).startswith("v1:new:")
    assert providers.reveal_key(session, made.id).get_secret_value() == PLAIN
    monkeypatch.setenv("STEMMADB_SECRET_KEYS", NEW)
    with pytest.raises(ConfigurationError, match="old"):
        providers.reveal_key(session, made.id)
    assert providers.reveal_key(session, other.id).get_secret_value() == PLAIN
    monkeypatch.setenv("STEMMADB_SECRET_KEYS", "")
    for call in (lambda: providers.reveal_key(session, made.id), lambda: providers.upsert(session, AIProvider.GOOGLE, api_key=KEY)):
        with pytest.raises(ConfigurationError, match="STEMMADB_SECRET_KEYS"):
            call()
    assert providers.upsert(session, AIProvider.GOOGLE).api_key_hint is None


def test_without_a_key(session: Session) -> None:
    """A configuration without a key has none to reveal."""
    made = providers.upsert(session, AIProvider.OLLAMA)
    with pytest.raises(ConflictError, match="upsert") as caught:
        providers.reveal_key(session, made.id)
    assert caught.value.fields == ("api_key",)


def test_without_the_extra(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """What encrypts and decrypts names the extra; everything else works."""
    made = providers.upsert(session, AIProvider.OPENAI, api_key=KEY)
    for name in [name for name in sys.modules if name.startswith("cryptography.hazmat.primitives.ciphers.aead")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    for call in (lambda: providers.reveal_key(session, made.id), lambda: providers.upsert(session, AIProvider.XAI, api_key=KEY)):
        with pytest.raises(MissingDependencyError) as caught:
            call()
        assert caught.value.extra == "auth"
    assert providers.upsert(session, AIProvider.OPENAI, data=ProviderConfigUpdate(is_enabled=False)) is made
    assert list(providers.list_all(session)) == [made]


# ---------------------------------------------------------------------------------------------------------- lists, default


def test_list_all(session: Session) -> None:
    """By provider, then label; pages join; disabled ones on request."""
    made = [
        providers.upsert(session, provider, label=label, data=ProviderConfigUpdate(is_enabled=label != "c"))
        for provider in (AIProvider.XAI, AIProvider.ANTHROPIC)
        for label in ("c", "a", "b")
    ]
    expected = sorted(made, key=lambda config: (config.provider, config.label))
    first = providers.list_all(session, limit=4)
    second = providers.list_all(session, limit=4, cursor=first.next_cursor)
    assert [*first, *second] == expected
    assert list(providers.list_all(session, enabled_only=True)) == [config for config in expected if config.is_enabled]


@pytest.mark.parametrize("id", [UUID(int=1), "nonsense"])
def test_unknown_ids(session: Session, id: UUID | str) -> None:
    """get and every verb raise, find returns None; the default stays."""
    made = providers.upsert(session, AIProvider.OPENAI)
    providers.set_default(session, made.id)
    assert providers.find(session, id) is None
    for call in (
        lambda: providers.get(session, id),
        lambda: providers.set_default(session, id),
        lambda: providers.reveal_key(session, id),
        lambda: providers.consume_tokens(session, id, 1, on=TODAY),
        lambda: providers.mark_validated(session, id),
        lambda: providers.delete(session, id),
    ):
        with pytest.raises(NotFoundError) as caught:
            call()
        assert caught.value.entity == "AIProviderConfig"
    assert providers.get_default(session) is made


def test_default(session: Session) -> None:
    """One at a time; of a provider it is the workspace's, else the one labelled default; a disabled one is none."""
    with pytest.raises(NotFoundError):
        providers.get_default(session)
    first = providers.upsert(session, AIProvider.OPENAI)
    second = providers.upsert(session, AIProvider.OPENAI, label="second")
    third = providers.upsert(session, AIProvider.XAI, label="third")
    with pytest.raises(NotFoundError):
        providers.get_default(session)
    with assert_max_queries(1):
        assert providers.get_default(session, AIProvider.OPENAI) is first
    assert providers.set_default(session, str(second.id)) is second
    assert providers.get_default(session) is second
    assert providers.get_default(session, AIProvider.OPENAI) is second
    assert providers.set_default(session, second.id).is_default
    providers.set_default(session, third.id)
    assert (first.is_default, second.is_default, third.is_default) == (False, False, True)
    assert providers.get_default(session, AIProvider.OPENAI) is first
    providers.upsert(session, AIProvider.XAI, label="third", data=ProviderConfigUpdate(is_enabled=False))
    for wanted in (None, AIProvider.XAI, AIProvider.GOOGLE):
        with pytest.raises(NotFoundError):
            providers.get_default(session, wanted)
    # An object that was brought up to date can be saved.
    second.default_model = "m"
    session.flush()
    assert not providers.get(session, second.id).is_default


@pytest.mark.race
def test_ten_defaults_at_once_leave_one(committed_db: Database, committed_workspace: UUID) -> None:
    """Ten callers, ten configurations: all succeed without a retry, and one of them is the default."""
    with committed_db.session(workspace=committed_workspace) as session:
        made = [providers.upsert(session, AIProvider.CUSTOM, label=str(number)).id for number in range(10)]

    def choose(number: int) -> AIProviderConfig:
        return committed_db.run(providers.set_default, made[number], workspace=committed_workspace, retries=0)

    results = run_together(10, choose)
    assert [type(result) for result in results] == [AIProviderConfig] * 10
    with committed_db.session(workspace=committed_workspace) as session:
        assert sum(config.is_default for config in providers.list_all(session)) == 1


# ------------------------------------------------------------------------------------------------------------------ tokens


def test_tokens_are_counted_by_the_day(session: Session) -> None:
    """They add up, start at 0 on a new day, and what is reported late counts for the day on record; one statement."""
    made = providers.upsert(session, AIProvider.OPENAI)
    with assert_max_queries(1):
        assert providers.consume_tokens(session, made.id, 5, on=TODAY) is made
    assert (made.tokens_used_today, made.tokens_reset_on) == (5, TODAY)
    assert providers.consume_tokens(session, made.id, 0, on=TODAY).tokens_used_today == 5
    assert providers.consume_tokens(session, made.id, 7, on=TODAY).tokens_used_today == 12
    providers.consume_tokens(session, made.id, 3, on=TOMORROW)
    assert (made.tokens_used_today, made.tokens_reset_on) == (3, TOMORROW)
    providers.consume_tokens(session, made.id, 4, on=TODAY)
    assert (made.tokens_used_today, made.tokens_reset_on) == (7, TOMORROW)


def test_the_limit_holds(session: Session) -> None:
    """Up to the limit and not beyond: nothing is counted then, and the transaction goes on; a new day has all of it again."""
    made = providers.upsert(session, AIProvider.OPENAI, data=ProviderConfigUpdate(daily_token_limit=10))
    providers.consume_tokens(session, made.id, 9, on=TODAY)
    for count in (2, 11, 2**63 - 1):
        with pytest.raises(QuotaExceededError) as caught:
            providers.consume_tokens(session, made.id, count, on=TODAY)
        assert caught.value.limit == 10
    assert providers.consume_tokens(session, made.id, 1, on=TODAY).tokens_used_today == 10
    with pytest.raises(QuotaExceededError):
        providers.consume_tokens(session, made.id, 11, on=TOMORROW)
    assert (made.tokens_used_today, made.tokens_reset_on) == (10, TODAY)
    assert providers.consume_tokens(session, made.id, 10, on=TOMORROW).tokens_used_today == 10
    providers.upsert(session, AIProvider.OPENAI, data=ProviderConfigUpdate(daily_token_limit=5))
    with pytest.raises(QuotaExceededError):
        providers.consume_tokens(session, made.id, 0, on=TOMORROW)


@pytest.mark.parametrize(
    ("count", "on", "field"),
    [
        (-1, TODAY, "count"),
        (True, TODAY, "count"),
        (1.5, TODAY, "count"),
        (2**63, TODAY, "count"),
        (1, datetime(2026, 1, 1), "on"),
        (1, "x", "on"),
    ],
)
def test_what_cannot_be_counted(session: Session, count: int, on: date, field: str) -> None:
    """ValidationError before anything is sent."""
    with count_queries() as sent, pytest.raises(ValidationError) as caught:
        providers.consume_tokens(session, uuid4(), count, on=on)
    assert (caught.value.field, sent.count) == (field, 0)


@pytest.mark.race
def test_twenty_who_consume_count_exactly(committed_db: Database, committed_workspace: UUID) -> None:
    """At once, five tokens each, of 52: ten are let through, ten are told, and fifty are counted."""
    with committed_db.session(workspace=committed_workspace) as session:
        made = providers.upsert(session, AIProvider.OPENAI, data=ProviderConfigUpdate(daily_token_limit=52)).id

    def consume(_: int) -> None:
        committed_db.run(providers.consume_tokens, made, 5, on=TODAY, workspace=committed_workspace)

    results = run_together(20, consume)
    assert sorted(type(result).__name__ for result in results) == ["NoneType"] * 10 + ["QuotaExceededError"] * 10
    with committed_db.session(workspace=committed_workspace) as session:
        assert providers.get(session, made).tokens_used_today == 50


# ------------------------------------------------------------------------------------------------- mark_validated, delete


def test_mark_validated(session: Session) -> None:
    """When it was tried, and how that went; one statement."""
    made = providers.upsert(session, AIProvider.OPENAI)
    with assert_max_queries(1):
        assert providers.mark_validated(session, made.id) is made
    assert made.last_validated_at is not None
    assert made.last_error is None
    assert providers.mark_validated(session, made.id, error="401").last_error == "401"
    assert providers.mark_validated(session, made.id).last_error is None
    with pytest.raises(ValidationError):
        providers.mark_validated(session, made.id, error="a\0")


def test_delete(session: Session) -> None:
    """Row and key are gone, and the default with them; the session finds it no more."""
    made = providers.upsert(session, AIProvider.OPENAI, api_key=KEY)
    providers.set_default(session, made.id)
    with assert_max_queries(1):
        providers.delete(session, made.id)
    assert made not in session
    assert providers.find(session, made.id) is None
    with pytest.raises(NotFoundError):
        providers.delete(session, made.id)
    with pytest.raises(NotFoundError):
        providers.get_default(session)
    assert providers.upsert(session, AIProvider.OPENAI).id != made.id


async def test_twins(async_session: object) -> None:
    """The async twins do the same work."""
    made = await aproviders.upsert(async_session, AIProvider.OPENAI, api_key=KEY)  # type: ignore[arg-type]
    await aproviders.set_default(async_session, made.id)  # type: ignore[arg-type]
    assert await aproviders.get_default(async_session) is made  # type: ignore[arg-type]
    assert (await aproviders.reveal_key(async_session, made.id)).get_secret_value() == PLAIN  # type: ignore[arg-type]
    assert (await aproviders.consume_tokens(async_session, made.id, 2, on=TODAY)).tokens_used_today == 2  # type: ignore[arg-type]
    assert [row.id for row in await aproviders.list_all(async_session)] == [made.id]  # type: ignore[arg-type]
