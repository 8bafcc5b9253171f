"""Settings come from the environment, once and on request; URLs are taken as people write them."""

import base64
from pathlib import Path

import pytest

from stemmadb._urls import describe, parse_url
from stemmadb.errors import ConfigurationError
from stemmadb.settings import SecretBytes, Settings, load_settings

pytestmark = pytest.mark.offline
KEY = base64.b64encode(b"0123456789abcdef").decode()
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in Settings.model_fields.values():
        monkeypatch.delenv(str(field.validation_alias), raising=False)


@pytest.mark.requirement("EC-188", "EC-027", "EC-243")
def test_defaults() -> None:
    """Without an environment: a pool of 5 to 20, five seconds to connect, slow from 200 ms, no time limit on statements."""
    found = Settings()
    assert (found.pool_min, found.pool_max, found.connect_timeout_ms, found.slow_query_ms, found.query_timeout_ms) == (5, 20, 5000, 200, 0)
    assert found.database_url is None


@pytest.mark.requirement("VR-112", "EC-013", "EC-025", "EC-029", "TN-003")
def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every setting has its variable."""
    values = {
        "DATABASE_URL": "postgres://app:pw@db.example:6432/shop?pgbouncer=true",
        "DIRECT_URL": "postgresql://owner:pw@db.example/shop",
        "DATABASE_POOL_MIN": "1",
        "DATABASE_POOL_MAX": "9",
        "QUERY_TIMEOUT_MS": "1500",
        "STEMMADB_WORKSPACE": "lab",
        "STEMMADB_SECRET_KEYS": f"new:{KEY},old:{KEY[:-3]}g==",
        "STEMMADB_TOKEN_PEPPERS": f"2:{KEY}",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    found = load_settings()
    assert found.database_url is not None
    assert found.database_url.database == "shop"
    assert found.direct_database_url is not None
    assert found.direct_database_url.username == "owner"
    assert (found.pool_min, found.pool_max, found.query_timeout_ms, found.workspace) == (1, 9, 1500, "lab")
    assert [name for name, _ in found.secret_keys] == ["new", "old"]
    assert found.secret_keys[0][1].reveal() == b"0123456789abcdef"
    assert found.token_peppers[0][0] == "2"


@pytest.mark.requirement("TN-015", "TN-064")
@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DATABASE_POOL_MAX", "many"),
        ("DATABASE_URL", "mysql://root:hunter2@localhost/x"),
        ("STEMMADB_SECRET_KEYS", "hunter2"),
        ("STEMMADB_TOKEN_PEPPERS", f"one:{KEY}"),
        ("STEMMADB_ENV", "hunter2"),
    ],
)
def test_a_malformed_variable_is_named(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    """One typed error names the variable and repeats no value, before anything is connected to."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert variable in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_pool_bounds() -> None:
    """A minimum above the maximum is refused."""
    with pytest.raises(ValueError, match="DATABASE_POOL_MIN"):
        Settings(pool_min=30, pool_max=20)


def test_secrets_are_masked() -> None:
    """The repr of settings shows neither passwords nor keys."""
    found = Settings(database_url="postgresql://app:hunter2@localhost/x", secret_keys=(("a", SecretBytes(b"0123456789abcdef")),))
    assert "hunter2" not in repr(found)
    assert "0123456789abcdef" not in repr(found)


def test_serverless_preset() -> None:
    """Short-lived processes keep no connection and open two at most."""
    assert (Settings.serverless().pool_min, Settings.serverless().pool_max) == (0, 2)


@pytest.mark.requirement("TN-011")
@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_url_forms(scheme: str) -> None:
    """The three spellings of the scheme are one."""
    assert parse_url(f"{scheme}://u:p@h:1/d").url.drivername == "postgresql+psycopg"


@pytest.mark.requirement("TN-010")
def test_prisma_parameters_are_understood() -> None:
    """pgbouncer, connection_limit, pool_timeout and schema=stemma are taken out; libpq's own stay."""
    found = parse_url("postgresql://u:p@h/d?pgbouncer=true&schema=stemma&connection_limit=1&pool_timeout=7&sslmode=prefer&socket_timeout=3")
    assert (found.pooled, found.pool_max, found.pool_timeout_s) == (True, 2, 7.0)
    assert dict(found.url.query) == {"sslmode": "prefer"}


@pytest.mark.parametrize("query", ["schema=public", "nonsense=1", "connection_limit=x"])
def test_parameters_that_cannot_be_kept_are_refused(query: str) -> None:
    """Another schema, a parameter that libpq does not know, a limit that is no number."""
    with pytest.raises(ConfigurationError):
        parse_url(f"postgresql://u:hunter2@h/d?{query}")


@pytest.mark.parametrize("text", ["", "nonsense", "postgresql+asyncpg://u:hunter2@h/d", "postgresql://u:hunter2@h:port/d"])
def test_malformed_urls_are_refused_without_their_password(text: str) -> None:
    """The message never repeats what was given."""
    with pytest.raises(ConfigurationError) as caught:
        parse_url(text)
    assert "hunter2" not in str(caught.value)


def test_description_has_no_password() -> None:
    """Host, port, database and user are what a message names."""
    assert describe(parse_url("postgresql://u:hunter2@h:1/d").url) == "host h, port 1, database d, user u"


@pytest.mark.requirement("TN-017", "EC-038", "EC-269", "VR-112")
def test_example_environment_names_every_setting() -> None:
    """.env.example has every variable that is read."""
    text = (ROOT / ".env.example").read_text()
    missing = [str(field.validation_alias) for field in Settings.model_fields.values() if f"{field.validation_alias}=" not in text]
    assert missing == []
