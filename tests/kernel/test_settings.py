"""Settings come from the environment, once and on request; URLs are taken as people write them."""

import base64
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from stemmadb import connect
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


def test_a_small_maximum_alone_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default minimum gives way to it."""
    monkeypatch.setenv("DATABASE_POOL_MAX", "3")
    assert (load_settings().pool_min, load_settings().pool_max) == (3, 3)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pool_timeout_s", float("nan")),
        ("pool_timeout_s", float("inf")),
        ("pool_timeout_s", 0),
        ("query_timeout_ms", 2**31),
        ("query_timeout_ms", -1),
        ("connect_timeout_ms", 10**9),
        ("pool_max", 1),
    ],
)
def test_numbers_that_a_server_would_refuse_are_refused_here(name: str, value: float) -> None:
    """Before the first transaction, not in each."""
    with pytest.raises(ValueError, match="validation error"):
        Settings(**{name: value})  # type: ignore[arg-type]


def test_secrets_are_masked() -> None:
    """The repr of settings shows neither passwords nor keys."""
    found = Settings(database_url="postgresql://app:hunter2@localhost/x", secret_keys=(("a", SecretBytes(b"0123456789abcdef")),))
    assert "hunter2" not in repr(found)
    assert "0123456789abcdef" not in repr(found)


@pytest.mark.parametrize("where", ["u:hunter2@h/d", "u@h/d?password=hunter2", "u@h/d?sslpassword=hunter2", "u:p@h/d?sslpassword=hunter2"])
def test_secrets_are_masked_wherever_they_stand(where: str) -> None:
    """Also as parameters of a URL: in the repr of settings and of a Database, and in descriptions; what is connected with has them."""
    url = f"postgresql://{where}"
    with connect(url) as db:
        shown = [repr(Settings(database_url=url)), str(Settings(direct_database_url=url)), repr(db), describe(db.url)]
        arguments = db.engine.dialect.create_connect_args(db.url)
    assert not any("hunter2" in text for text in shown)
    assert "hunter2" in str(arguments)


def test_a_refused_url_is_not_repeated() -> None:
    """Nor when settings are made by hand."""
    with pytest.raises(ValueError, match="malformed") as caught:
        Settings(database_url="postgresql://u:hunter2@h:port/d")
    assert "hunter2" not in str(caught.value)


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


@pytest.mark.requirement("TN-010")
def test_what_the_environments_url_says_of_poolers_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """pgbouncer=true in DATABASE_URL reaches the engine: nothing is prepared on the server; and the pool has the size that it says."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:p@h/d?pgbouncer=true&connection_limit=7&pool_timeout=2&schema=stemma")
    monkeypatch.setenv("DIRECT_URL", "postgresql://o:p@h/d?connection_limit=1&schema=stemma")
    with connect() as db:
        engines = db._own
        assert engines._pooled
        assert (db.pool_stats().size, engines._pool_timeout_s) == (7, 2.0)
        assert dict(db.url.query) == dict(db.direct_url.query) == {}
        assert db.direct_url.username == "o"


@pytest.mark.parametrize(
    ("address", "arguments"),
    [
        ("u:p%40s%2Fs%3A%23@h:5433/d", {"host": "h", "port": 5433, "user": "u", "password": "p@s/s:#", "dbname": "d"}),
        ("u@[::1]:5433/d", {"host": "::1", "port": 5433, "user": "u", "dbname": "d"}),
        ("u@h1:5433,h2:5434/d", {"host": "h1,h2", "port": "5433,5434", "user": "u", "dbname": "d"}),
        ("u@h1,[::1]:5434/d?sslmode=require", {"host": "h1,::1", "port": ",5434", "sslmode": "require", "user": "u", "dbname": "d"}),
        ("u@h1,h2/d", {"host": "h1,h2", "port": ",", "user": "u", "dbname": "d"}),
        ("u@%2Fvar%2Frun%2Fpg/d", {"host": "/var/run/pg", "user": "u", "dbname": "d"}),
        ("u@%2Fvar%2Frun%2Fpg:5433/d", {"host": "/var/run/pg", "port": "5433", "user": "u", "dbname": "d"}),
        ("/d?host=/var/run/pg&port=5433", {"host": "/var/run/pg", "port": "5433", "dbname": "d"}),
        ("/d?host=h1:1&host=h2:2", {"host": "h1,h2", "port": "1,2", "dbname": "d"}),
        ("u@h/d?options=-c%20statement_timeout%3D5s", {"host": "h", "options": "-c statement_timeout=5s", "user": "u", "dbname": "d"}),
        ("u@h/d?password=p%40", {"host": "h", "user": "u", "password": "p@", "dbname": "d"}),
        ("u@h/d\n", {"host": "h", "user": "u", "dbname": "d"}),
        ("h/d?connect_timeout=9&application_name=web", {"host": "h", "dbname": "d", "connect_timeout": "9", "application_name": "web"}),
    ],
)
def test_addresses_as_libpq_has_them(address: str, arguments: dict[str, object]) -> None:
    """Escaped passwords, IPv6, several hosts, sockets and libpq's parameters arrive at the driver as they were meant."""
    url = parse_url(f"postgresql://{address}").url
    found = create_engine(url).dialect.create_connect_args(url)[1]
    assert {name: value for name, value in found.items() if name != "context"} == arguments


@pytest.mark.parametrize(
    "query",
    [
        "schema=public",
        "nonsense=1",
        *(f"{name}={value}" for name in ("connection_limit", "pool_timeout") for value in ("x", "nan", "inf", "-1")),
    ],
)
def test_parameters_that_cannot_be_kept_are_refused(query: str) -> None:
    """Another schema, a parameter that libpq does not know, a limit that is no number."""
    with pytest.raises(ConfigurationError):
        parse_url(f"postgresql://u:hunter2@h/d?{query}")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "postgresql+asyncpg://u:hunter2@h/d",
        "postgresql://u:hunter2@h:port/d",
        "postgresql://u:p@hunter2@h/d",
        "postgresql://u:1/hunter2@h/d",
        "postgresql://u:p@h/hunter2%00",
        "postgresql://u:p@h/\nhunter2",
    ],
)
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
