"""Database URLs as people write them, Prisma's parameters included, made into what libpq accepts."""

from dataclasses import dataclass

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from stemmadb.errors import ConfigurationError

_DRIVERS = frozenset({"postgres", "postgresql", "postgresql+psycopg", "postgresql+psycopg_async"})
# Prisma's own parameters that mean nothing to a libpq client: libpq refuses what it does not know.
_IGNORED = frozenset({"statement_cache_size", "socket_timeout", "max_idle_connection_lifetime", "max_connection_lifetime"})


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
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        # The text may hold a password: it is not repeated.
        raise ConfigurationError("the database URL is malformed: expected postgresql://user:password@host:5432/database") from None
    if url.drivername not in _DRIVERS:
        raise ConfigurationError(f"the database URL starts with {url.drivername}://, expected postgresql://")
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
        url.set(drivername="postgresql+psycopg", query=query),
        pooled=pooled,
        pool_max=None if limit is None else max(2, int(limit)),
        pool_timeout_s=timeout or None,
    )


def _take(query: dict[str, str | tuple[str, ...]], name: str) -> str | None:
    value = query.pop(name, None)
    return value[-1] if isinstance(value, tuple) else value


def _number(query: dict[str, str | tuple[str, ...]], name: str) -> float | None:
    value = _take(query, name)
    if value is None:
        return None
    try:
        return float(value)
    except ValueError:
        raise ConfigurationError(f"{name} in the database URL is not a number") from None


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
