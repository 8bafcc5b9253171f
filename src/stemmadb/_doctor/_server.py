"""The server and its settings: read in one statement, then judged without it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, text

from stemmadb._doctor._kinds import finding
from stemmadb.reports import Finding

_SETTINGS = (
    "autovacuum",
    "fsync",
    "full_page_writes",
    "idle_in_transaction_session_timeout",
    "log_min_duration_statement",
    "log_parameter_max_length",
    "log_statement",
    "max_connections",
    "row_security",
    "session_replication_role",
    "standard_conforming_strings",
    "statement_timeout",
    "superuser_reserved_connections",
    "synchronous_commit",
    "track_counts",
)
_METHODS = (
    "enable_bitmapscan",
    "enable_hashagg",
    "enable_hashjoin",
    "enable_indexonlyscan",
    "enable_indexscan",
    "enable_nestloop",
    "enable_sort",
)
# What a transaction begins with: our own time limits are set in it.
_READ = text(
    """
    SELECT pg_catalog.current_setting('server_version_num')::integer AS version_num,
           pg_catalog.current_setting('server_version') AS version,
           pg_catalog.current_database()::text AS database,
           session_user::text AS login,
           (SELECT pg_catalog.jsonb_object_agg(name, reset_val) FROM pg_catalog.pg_settings WHERE name = ANY (CAST(:names AS text[])))
             AS settings,
           pg_catalog.current_setting('reserved_connections', true) AS reserved,
           pg_catalog.pg_encoding_to_char(base.encoding)::text AS encoding,
           base.datcollversion AS collation_recorded,
           pg_catalog.pg_database_collation_actual_version(base.oid) AS collation_actual,
           pg_catalog.age(base.datfrozenxid) AS transaction_age,
           nullif(base.datconnlimit, -1) AS database_limit,
           nullif(role.rolconnlimit, -1) AS login_limit,
           pg_catalog.pg_is_in_recovery() OR pg_catalog.current_setting('default_transaction_read_only') = 'on' AS read_only,
           coalesce((SELECT ssl FROM pg_catalog.pg_stat_ssl WHERE pid = pg_catalog.pg_backend_pid()), false) AS encrypted,
           pg_catalog.host(pg_catalog.inet_client_addr()) AS client,
           (SELECT pg_catalog.jsonb_object_agg(slot_name,
                     CAST((CASE WHEN pg_catalog.pg_is_in_recovery() THEN 0
                                ELSE pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), restart_lsn) END) / 1048576 AS bigint))
              FROM pg_catalog.pg_replication_slots WHERE NOT active AND restart_lsn IS NOT NULL) AS slots,
           (SELECT pg_catalog.array_agg(gid) FROM pg_catalog.pg_prepared_xacts
             WHERE database = pg_catalog.current_database() AND prepared < pg_catalog.clock_timestamp() - interval '1 hour') AS prepared,
           pg_catalog.clock_timestamp() AS now
      FROM pg_catalog.pg_database AS base, pg_catalog.pg_roles AS role
     WHERE base.datname = pg_catalog.current_database() AND role.rolname = session_user
    """
)

# Below these, a server lacks fixes of faults that any login can make use of.
_FIXED = {16: 14, 17: 10, 18: 4}
_WHY = "a computed size may wrap around, and any login may write beyond its memory (CVE-2026-6473)"
_OLDEST, _NEWEST = 16, 18
_SKEW_S = 5.0
_AGE = 1_000_000_000
_SLOT_MB = 1024
_LOST = {
    "fsync": "loses the whole database",
    "full_page_writes": "leaves torn pages behind",
    "synchronous_commit": "loses transactions that were acknowledged",
}


@dataclass(frozen=True)
class ServerFacts:
    """What the server said of itself, and how the client stands to it."""

    version_num: int
    version: str
    database: str
    login: str
    settings: dict[str, str]
    reserved: int
    """Connections for roles other than this one."""
    encoding: str
    collation_recorded: str | None
    collation_actual: str | None
    """None: the provider has no versions."""
    transaction_age: int
    database_limit: int | None
    login_limit: int | None
    """None: unlimited."""
    read_only: bool
    encrypted: bool
    client: str | None
    """The client's address as the server sees it; None over a local socket."""
    slots: dict[str, int]
    """Replication slots that nobody reads, and the MB of log kept for each."""
    prepared: tuple[str, ...]
    """Prepared transactions of more than an hour ago."""
    skew_s: float
    """How far this machine's clock is behind, beyond what the round trip explains."""
    latency_ms: float


@dataclass(frozen=True)
class Demands:
    """What the client asks of the server."""

    production: bool
    pool_max: int
    query_timeout_ms: int


def read_server(connection: Connection) -> ServerFacts:
    """Ask the server, in one statement."""
    connection.exec_driver_sql("SELECT 1")
    began, started = datetime.now(UTC), time.perf_counter()
    row: Any = connection.execute(_READ, {"names": [*_SETTINGS, *_METHODS]}).one()
    took = time.perf_counter() - started
    return ServerFacts(
        version_num=row.version_num,
        version=row.version,
        database=row.database,
        login=row.login,
        settings=row.settings,
        reserved=int(row.settings["superuser_reserved_connections"]) + int(row.reserved or 0),
        encoding=row.encoding,
        collation_recorded=row.collation_recorded,
        collation_actual=row.collation_actual,
        transaction_age=row.transaction_age,
        database_limit=row.database_limit,
        login_limit=row.login_limit,
        read_only=row.read_only,
        encrypted=row.encrypted,
        client=row.client,
        slots=row.slots or {},
        prepared=tuple(row.prepared or ()),
        skew_s=_outside((row.now - began).total_seconds(), took),
        latency_ms=took * 1000,
    )


def _outside(difference: float, took: float) -> float:
    """Return by how much the server's time is not between the question and the answer; negative: it is before."""
    return difference if difference < 0 else max(0.0, difference - took)


def judge_server(facts: ServerFacts, demands: Demands) -> Iterator[Finding]:
    """Say what is wrong with a server. Asks nothing."""
    yield from _version(facts)
    yield from _database(facts)
    yield from _connections(facts, demands)
    yield from _settings(facts)
    if demands.production:
        yield from _production(facts, demands)


def _version(facts: ServerFacts) -> Iterator[Finding]:
    major, minor = divmod(facts.version_num, 10_000)
    if major < _OLDEST:
        yield finding("unsupported_server", facts.version)
    elif major > _NEWEST:
        yield finding("untested_server", facts.version)
    elif minor < _FIXED[major]:
        yield finding("old_minor", facts.version, fixed=f"{major}.{_FIXED[major]}", why=_WHY)


def _database(facts: ServerFacts) -> Iterator[Finding]:
    if facts.encoding != "UTF8":
        yield finding("not_utf8", facts.encoding)
    if facts.collation_actual is not None and facts.collation_recorded != facts.collation_actual:
        yield finding(
            "collation_changed", facts.database, recorded=facts.collation_recorded or "not recorded", actual=facts.collation_actual
        )
    if facts.read_only:
        yield finding("read_only_server", facts.database, database=facts.database)
    if abs(facts.skew_s) > _SKEW_S:
        yield finding("clock_skew", f"{abs(facts.skew_s):.0f} s")
    if facts.transaction_age > _AGE:
        yield finding("transaction_ids_running_out", f"{facts.transaction_age:,}")
    for slot, kept in sorted(facts.slots.items()):
        if kept > _SLOT_MB:
            yield finding("stale_slot", slot, kept_mb=kept)
    for gid in facts.prepared:
        yield finding("forgotten_transaction", gid)


def _connections(facts: ServerFacts, demands: Demands) -> Iterator[Finding]:
    limits = {
        "max_connections": int(facts.settings["max_connections"]) - facts.reserved,
        f"ALTER DATABASE {facts.database} CONNECTION LIMIT": facts.database_limit,
        f"ALTER ROLE {facts.login} CONNECTION LIMIT": facts.login_limit,
    }
    allowed, limit = min((allowed, limit) for limit, allowed in limits.items() if allowed is not None)
    if demands.pool_max > allowed:
        yield finding("too_few_connections", str(demands.pool_max), allowed=allowed, limit=limit)


def _settings(facts: ServerFacts) -> Iterator[Finding]:
    said, where = facts.settings, {"login": facts.login, "database": facts.database}
    if said["row_security"] == "off":
        yield finding("row_security_setting", "row_security", **where)
    if said["standard_conforming_strings"] == "off":
        yield finding("strings_not_standard", "standard_conforming_strings", **where)
    if said["session_replication_role"] != "origin":
        yield finding("triggers_off", said["session_replication_role"], **where)
    for method in _METHODS:
        if said[method] == "off":
            yield finding("planner_method_off", method, **where)
    if said["log_parameter_max_length"] != "0":
        if said["log_statement"] in ("mod", "all"):
            yield finding("parameters_logged", f"log_statement = {said['log_statement']}")
        elif said["log_min_duration_statement"] == "0":
            yield finding("parameters_logged", "log_min_duration_statement = 0")
    if said["track_counts"] == "off":
        yield finding("track_counts_off", "track_counts", **where)
    if said["autovacuum"] == "off":
        yield finding("autovacuum_off", "autovacuum")


def _production(facts: ServerFacts, demands: Demands) -> Iterator[Finding]:
    said, where = facts.settings, {"login": facts.login, "database": facts.database}
    for name, loses in _LOST.items():
        if said[name] == "off":
            yield finding("not_durable", name, loses=loses, **where)
    if demands.query_timeout_ms == 0 and said["statement_timeout"] == "0":
        yield finding("no_statement_timeout", "statement_timeout", **where)
    if said["idle_in_transaction_session_timeout"] == "0":
        yield finding("no_idle_timeout", "idle_in_transaction_session_timeout", **where)
    if facts.client is not None and not facts.encrypted and not facts.client.startswith("127.") and facts.client != "::1":
        yield finding("not_encrypted", facts.client)
