"""Database URLs as people write them, Prisma's parameters included, made into what libpq accepts."""

import math
import re
from dataclasses import dataclass
from urllib.parse import unquote

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from stemmadb.errors import ConfigurationError

_DRIVERS = frozenset({"postgres", "postgresql", "postgresql+psycopg", "postgresql+psycopg_async"})
# Prisma's own parameters that mean nothing to a libpq client: libpq refuses what it does not know.
_IGNORED = frozenset({"statement_cache_size", "socket_timeout", "max_idle_connection_lifetime", "max_connection_lifetime"})
_SECRETS = frozenset({"password", "sslpassword"})
# The login ends with the last @ before the path; SQLAlchemy and libpq take the first, and the rest for the host.
_FORM = re.compile(r"(?P<scheme>[^:/?#]+)://(?P<login>(?:[^/?#]*@)?)(?P<hosts>[^/?#@]*)(?P<rest>(?:/[^@?]*)?(?:\?.*)?)")
_HOST = re.compile(r"(\[[^\]]*\]|[^:\[\]]*)(?::(\d*))?")
_MAX_POOL = 1000


@dataclass(frozen=True)
class ParsedUrl:
    """A URL that libpq accepts, and what the removed parameters said."""

    url: URL
    pooled: bool = False
    """``pgbouncer=true``: a transaction pooler is between, so nothing is prepared on the server."""
    pool_max: int | None = None
    pool_timeout_s: float | None = None


def parse_url(text: str | URL) -> ParsedUrl:
    """
    Understand a database URL.

    ``postgres://``, ``postgresql://`` and ``postgresql+psycopg://`` are the same. ``pgbouncer``, ``connection_limit``, ``pool_timeout``
    and ``schema=stemma`` are taken out.

    Raises:
        ConfigurationError: not a PostgreSQL URL, another schema than ``stemma``, or a parameter that libpq would refuse.
    """
    url = read_url(text)
    query = dict(url.query)
    schema = _take(query, "schema")
    if schema not in (None, "stemma"):
        raise ConfigurationError(f"the database URL says schema={schema}: stemmadb lives in the schema stemma, remove the parameter")
    pooled = (_take(query, "pgbouncer") or "false").lower() in ("true", "1", "yes")
    limit, timeout = _number(query, "connection_limit"), _number(query, "pool_timeout")
    for name in _IGNORED:
        query.pop(name, None)
    _refuse_unknown(query)
    return ParsedUrl(
        url.set(query=query),
        pooled=pooled,
        pool_max=None if limit is None else min(max(2, int(limit)), _MAX_POOL),
        pool_timeout_s=timeout or None,
    )


def read_url(text: str | URL) -> URL:
    """
    Return the URL with psycopg as its driver, and with every parameter that it has.

    Several hosts (``h1:5432,h2:5432``) and the folder of a socket (``%2Fvar%2Frun``) may stand in the place of the host, as libpq has them.

    Raises:
        ConfigurationError: not a PostgreSQL URL. The message repeats its scheme at most: the rest may hold a password.
    """
    try:
        url = _with_hosts(text.strip()) if isinstance(text, str) else make_url(text)
    except (ArgumentError, ValueError):
        message = "the database URL is malformed: expected postgresql://user:password@host:5432/database, with %40 for an @ in the password"
        raise ConfigurationError(message) from None
    if url.drivername not in _DRIVERS:
        raise ConfigurationError(f"the database URL starts with {url.drivername}://, expected postgresql://")
    secret = _take(query := dict(url.query), "password")
    if secret is not None:
        # Where it is masked when the URL is shown.
        url = url.set(query=query, password=url.password or secret)
    return url.set(drivername="postgresql+psycopg")


def _with_hosts(text: str) -> URL:
    form = _FORM.fullmatch(text)
    if form is None or form["login"].count("@") > 1 or "%00" in text or any(letter < " " for letter in text):
        raise ValueError("malformed")
    hosts = [_HOST.fullmatch(unquote(host)) for host in form["hosts"].split(",")]
    if None in hosts:
        raise ValueError("malformed")
    found = [(host[1].strip("[]"), host[2] or "") for host in hosts if host is not None]
    if len(found) == 1 and not found[0][0].startswith("/"):
        return make_url(text)
    url = make_url(f"{form['scheme']}://{form['login']}{form['rest'] or '/'}")
    ports = {"port": ",".join(port for _, port in found)} if any(port for _, port in found) else {}
    return url.update_query_dict({"host": ",".join(host for host, _ in found), **ports})


def _take(query: dict[str, str | tuple[str, ...]], name: str) -> str | None:
    value = query.pop(name, None)
    return value[-1] if isinstance(value, tuple) else value


def _number(query: dict[str, str | tuple[str, ...]], name: str) -> float | None:
    value = _take(query, name)
    if value is None:
        return None
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 <= number < math.inf:
        raise ConfigurationError(f"{name} in the database URL is not a number of 0 or more")
    return number


def _refuse_unknown(query: dict[str, str | tuple[str, ...]]) -> None:
    from psycopg import pq

    known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
    if unknown := sorted(query.keys() - known):
        raise ConfigurationError(f"the database URL has parameters that libpq does not know: {', '.join(unknown)}")


def describe(url: URL) -> str:
    """Return host, port, database and user for a message; never the password."""
    host = url.host or (url.query.get("host") or "a local socket")
    where = host if isinstance(host, str) else ", ".join(host)
    port = url.port or url.query.get("port") or 5432
    return f"host {where}, port {port}, database {url.database or '(default)'}, user {url.username or '(default)'}"


def masked(url: URL) -> str:
    """Return the URL as it may be shown: without any secret, wherever it stands."""
    query = {name: "***" if name in _SECRETS else value for name, value in url.query.items()}
    return url.set(query=query).render_as_string(hide_password=True)
