"""``Database.check()`` and ``stemmadb doctor``: a healthy database has no finding, and each thing that is wrong has its name."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine
from tests.kernel.doctor_cases import CASES, Case
from tests.migrations.places import Place, Revisions
from tests.test_cli import call

from stemmadb import _heads, connect, documents, embedded, migrations, use
from stemmadb._doctor import _rows
from stemmadb._doctor._addresses import AddressFacts, judge_addresses
from stemmadb._doctor._kinds import all_kinds
from stemmadb._doctor._logins import judge_login, read_login
from stemmadb._doctor._server import Demands, ServerFacts, judge_server, read_server
from stemmadb.database import Database
from stemmadb.embedded import Server
from stemmadb.errors import DatabaseUnavailableError
from stemmadb.evaluation.documents import TranscriptMetrics
from stemmadb.reports import CheckReport
from stemmadb.settings import Settings
from stemmadb.testing import assert_max_queries

RING = ",".join(f"{name}:{base64.b64encode(name[:1].encode() * 32).decode()}" for name in ("new", "old"))
PAGE = Path(__file__).parents[2] / "docs" / "howto" / "doctor.md"
# What a check may send: it does not grow with the rows, only with the columns of documents and secrets.
MOST_STATEMENTS = 80

Look = Callable[..., CheckReport]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server of its own: what is of the whole server is changed here, which the other tests share."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="stemmadb-doctor-", dir=memory if os.access(memory, os.W_OK) else None))
    folder.chmod(0o755)
    wanted = os.environ.get("STEMMADB_TEST_PG", "")
    programs = embedded.bindir(int(wanted)) if wanted.isdigit() else Path(wanted) if wanted else embedded.bindir()
    with embedded.start(folder / "data", bindir=programs, settings={"max_connections": "60"}) as started:
        embedded.prepare(started, "postgres")
        yield started
    running = folder / "data" / "cluster" / "postmaster.pid"
    deadline = time.monotonic() + 10
    while running.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    shutil.rmtree(folder, ignore_errors=True)


def create(server: Server, template: str = "template0", options: str = "") -> Place:
    name = f"d{uuid4().hex[:12]}"
    with psycopg.connect(server._superuser_conninfo(), autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} OWNER stemma_owner TEMPLATE {} {}").format(
                sql.Identifier(name), sql.Identifier(template), sql.SQL(options)
            )
        )
    return Place(server, name, server.owner_url(name))


def drop(place: Place) -> None:
    with psycopg.connect(place.server._superuser_conninfo(), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(place.name)))


@pytest.fixture(scope="module")
def template(server: Server) -> str:
    """A migrated database to copy."""
    place = create(server)
    migrations.upgrade(place)
    return place.name


@pytest.fixture
def place(server: Server, template: str) -> Iterator[Place]:
    """A healthy database for one test."""
    made = create(server, template)
    yield made
    drop(made)


@pytest.fixture
def empty(server: Server) -> Iterator[Place]:
    """A database without our schema."""
    made = create(server)
    yield made
    drop(made)


@pytest.fixture
def revisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Revisions]:
    """A copy of the revisions, for adding to."""
    folder = tmp_path / "alembic"
    shutil.copytree(_heads.location(), folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(_heads, "location", lambda: folder)
    _heads.forget()
    yield Revisions(folder)
    _heads.forget()


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEMMADB_SECRET_KEYS", RING)


def open_database(place: Place, *, login: str = "stemma_app", query: dict[str, str] | None = None, **settings: Any) -> Database:
    url = place.server.url(place.name, login).update_query_dict(query or {})
    direct = settings.pop("direct_database_url", place.direct_url)
    return connect(settings=Settings(database_url=url, direct_database_url=direct, workspace=None, pool_max=20, **settings))


def look(place: Place, **options: Any) -> CheckReport:
    """What doctor says of a database."""
    with open_database(place, **options) as db:
        return db.check()


def codes(report: CheckReport) -> set[str]:
    return {finding.code for finding in report.findings}


def make_production(place: Place, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Let a database be as one of production should, and return the settings of its clients."""
    place.do(f"ALTER DATABASE {place.name} SET idle_in_transaction_session_timeout = '5min'")
    patch.setenv("STEMMADB_ENV", "production")
    patch.setenv("STEMMADB_TOKEN_PEPPERS", "1:" + base64.b64encode(b"p" * 32).decode())
    return {"query_timeout_ms": 30_000}


# ----------------------------------------------------------------------------------------------------------------- healthy


@pytest.mark.requirement("TN-043", "PF-058")
def test_a_healthy_database_has_no_finding(place: Place) -> None:
    """Nothing, in a bounded number of statements, and one record of who read across workspaces is all that is left."""
    before = place.dump()
    with open_database(place) as db:
        db.check()
        with assert_max_queries(MOST_STATEMENTS):
            report = db.check()
    assert report.findings == []
    assert report.ok
    assert re.match(r"1[678]\.", report.server_version)
    assert report.latency_ms > 0
    assert place.dump() == before
    assert place.ask("SELECT after -> 'data' ->> 'reason' FROM stemma.audit_logs", user="postgres") == ["stemmadb doctor"] * 2


def test_a_healthy_database_of_production_has_no_finding(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a time limit for statements and for idle transactions, and a pepper."""
    assert look(place, **make_production(place, monkeypatch)).findings == []


async def test_from_an_event_loop(place: Place) -> None:
    """The loop goes on meanwhile, and the findings are the same."""
    place.do("ALTER TABLE stemma.runs NO FORCE ROW LEVEL SECURITY")
    with open_database(place) as db:
        report = await db.acheck()
    assert codes(report) == {"row_security_not_forced"}


async def test_the_engines_of_a_host(place: Place) -> None:
    """A host's engine is looked through as it is; rows of all workspaces cannot be reached through it."""
    place.do("ALTER TABLE stemma.runs NO FORCE ROW LEVEL SECURITY")
    wanted = {"row_security_not_forced", "not_checked"}
    engine = create_engine(place.server.url(place.name))
    assert codes(use(engine).check()) == wanted
    engine.dispose()
    asynchronous = create_async_engine(place.server.url(place.name))
    assert codes(await use(asynchronous).acheck()) == wanted
    await asynchronous.dispose()


# ------------------------------------------------------------------------------------------------------------------- seeded


@pytest.mark.fault
@pytest.mark.requirement("TN-043", "TN-045", "AD-029")
@pytest.mark.parametrize("case", CASES, ids=[f"{number}-{case}" for number, case in enumerate(CASES)])
def test_each_misconfiguration_is_named(place: Place, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Done to a healthy database it is named, with what to do, and nothing else is but what comes with it."""
    options = make_production(place, monkeypatch) if case.production else {}
    try:
        place.do(*(statement.format(db=place.name) for statement in case.statements))
        report = look(place, login=case.login, **options)
    finally:
        place.do(*case.undo)
    assert codes(report) == {case.code} | case.also, report.findings
    found = [finding for finding in report.findings if finding.code == case.code]
    assert case.object is None or case.object in {finding.object for finding in found}
    for finding in report.findings:
        assert finding.message
        assert finding.remedy
        assert "{" not in finding.remedy


@pytest.mark.fault
def test_autovacuum_off(place: Place) -> None:
    """A setting of the whole server."""

    def set_to(value: str) -> None:
        place.do(f"ALTER SYSTEM SET autovacuum = {value}", "SELECT pg_reload_conf()")
        while place.ask("SHOW autovacuum") != [value]:
            time.sleep(0.01)

    set_to("off")
    try:
        assert codes(look(place)) == {"autovacuum_off"}
    finally:
        set_to("on")


@pytest.mark.fault
def test_production_without_limits(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no finding elsewhere is one in production."""
    monkeypatch.setenv("STEMMADB_ENV", "production")
    assert codes(look(place)) == {"no_statement_timeout", "no_idle_timeout", "pepper_missing"}


@pytest.mark.fault
def test_another_encoding(server: Server) -> None:
    """A database in LATIN1 works until a text does not fit."""
    made = create(server, options="ENCODING 'LATIN1' LOCALE 'C' LOCALE_PROVIDER libc")
    migrations.upgrade(made)
    try:
        assert codes(look(made)) == {"not_utf8"}
    finally:
        drop(made)


@pytest.mark.fault
def test_another_collation(place: Place) -> None:
    """The version of the collation that the database was made with is not the system's."""
    place.do(f"UPDATE pg_database SET datcollversion = '0' WHERE datname = '{place.name}'")
    if place.ask("SELECT pg_database_collation_actual_version(oid) FROM pg_database WHERE datname = current_database()") == [None]:
        pytest.skip("the collations of this server have no versions")
    assert codes(look(place)) == {"collation_changed"}


@pytest.mark.fault
def test_a_table_that_is_locked(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A question that gets no answer in time is told as such, and the others are answered: it waits for nobody."""
    monkeypatch.setattr(_rows, "_PATIENCE", text("SELECT set_config('lock_timeout', '20ms', true)"))
    place.do(f"ALTER DATABASE {place.name} SET enable_indexscan = off")
    with place.connect("postgres") as other, other.transaction():
        other.execute("LOCK TABLE stemma.definitions IN ACCESS EXCLUSIVE MODE")
        began = time.monotonic()
        report = look(place)
        assert time.monotonic() - began < 30
    assert codes(report) == {"not_checked", "planner_method_off"}
    assert {finding.object for finding in report.findings if finding.code == "not_checked"} >= {"tables", "definitions.content"}


# ---------------------------------------------------------------------------------------------------------------- addresses


@pytest.mark.fault
def test_a_pooler_that_is_not_there(place: Place) -> None:
    """Statements are not prepared, for nothing."""
    assert codes(look(place, query={"pgbouncer": "true"})) == {"declared_pooler_missing"}


@pytest.mark.fault
def test_direct_url(place: Place, empty: Place) -> None:
    """Another database, a login that is not the owner, no database at all; the password is not shown."""
    assert codes(look(place, direct_database_url=empty.direct_url)) == {"direct_url_elsewhere"}
    assert codes(look(place, direct_database_url=place.server.url(place.name))) == {"direct_url_not_owner"}
    nowhere = place.direct_url.set(database="nowhere", password="hunter2")
    report = look(place, direct_database_url=nowhere)
    assert codes(report) == {"direct_url_unreachable"}
    assert report.ok
    assert "nowhere" in report.findings[0].message
    assert "hunter2" not in str(report)


# ---------------------------------------------------------------------------------------------------------------- revisions


@pytest.mark.fault
def test_an_empty_database(empty: Place) -> None:
    """One finding, with the command that makes it usable."""
    report = look(empty)
    assert [(finding.code, finding.remedy) for finding in report.findings] == [("not_migrated", "stemmadb migrate up")]


@pytest.mark.fault
@pytest.mark.parametrize(
    ("statement", "wanted"),
    [
        (
            "UPDATE stemma.stemma_alembic_version SET version_num = 'evaluation_0009' WHERE version_num = 'evaluation_0001'",
            {"schema_ahead"},
        ),
        (
            "UPDATE stemma.stemma_alembic_version SET version_num = 'evaluation_0002' WHERE version_num = 'evaluation_0001'",
            {"newer_revision"},
        ),
        ("UPDATE stemma.stemma_alembic_version SET version_num = 'nonsense' WHERE version_num = 'evaluation_0001'", {"unknown_revision"}),
        ("INSERT INTO stemma.stemma_alembic_version VALUES ('evaluation_0002')", {"two_heads", "newer_revision"}),
        ("DELETE FROM stemma.stemma_alembic_version", {"not_migrated"}),
    ],
)
def test_revisions_of_the_database(place: Place, statement: str, wanted: set[str]) -> None:
    """Too far ahead, one ahead, of no release, twice, none: each is told, also where sessions are refused."""
    place.do(statement)
    assert codes(look(place)) == wanted


@pytest.mark.fault
def test_revisions_of_the_release(place: Place, revisions: Revisions) -> None:
    """A contract revision may wait; an expand revision may not; two of one number are told."""
    revisions.add("base", "op.execute('SELECT 1')", phase="contract")
    report = look(place)
    assert (codes(report), report.ok, report.pending_migrations) == ({"pending_migrations"}, True, 1)
    revisions.add("base", "op.execute('SELECT 1')")
    assert codes(look(place)) == {"schema_behind"}
    facts = {"revision": "base_0002", "down_revision": "base_0001", "branch_labels": None, "depends_on": None}
    revisions.write("base", "0002_expand_mine.py", "op.execute('SELECT 1')", "op.execute('SELECT 1')", "expand", facts)
    revisions.forget()
    assert codes(look(place)) == {"diverged_heads"}


# --------------------------------------------------------------------------------------------------------- keys and releases


def test_a_secret_without_keys_or_the_extra(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stored secrets that nothing here can open."""
    place.do(
        "INSERT INTO stemma.users (email, two_factor_enabled, two_factor_secret) VALUES ('ada@example.com', true, 'v1:new:AAAA')",
    )
    assert look(place).findings == []
    monkeypatch.setenv("STEMMADB_SECRET_KEYS", "")
    assert codes(look(place)) == {"secret_keys_missing"}
    monkeypatch.setenv("STEMMADB_SECRET_KEYS", RING)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    assert codes(look(place)) == {"extra_missing"}


def test_an_older_version_that_is_written(place: Place) -> None:
    """What was set for a roll-out is named until it is taken back."""
    TranscriptMetrics.downcast(1)(lambda raw: raw)
    try:
        documents.set_write_version(TranscriptMetrics, 0)
        assert codes(look(place)) == {"old_write_version"}
    finally:
        documents.set_write_version(TranscriptMetrics, None)
        del TranscriptMetrics._steps_down[1]


# ----------------------------------------------------------------------------------------------------------- judged by itself


@pytest.fixture(scope="module")
def facts(server: Server, template: str) -> ServerFacts:
    """What a real server says of itself."""
    engine = create_engine(server.url(template))
    with engine.connect() as connection:
        read = read_server(connection)
    engine.dispose()
    return read


DEMANDS = Demands(production=True, pool_max=20, query_timeout_ms=1000)


def edited(facts: ServerFacts, **changes: Any) -> ServerFacts:
    """The facts with one field changed; ``settings`` adds to what is there."""
    settings = {"idle_in_transaction_session_timeout": "60000", **changes.pop("settings", {})}
    return replace(facts, settings={**facts.settings, **settings}, **changes)


@pytest.mark.fault
@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, None),
        ({"version_num": 150_012, "version": "15.12"}, "unsupported_server"),
        ({"version_num": 190_000, "version": "19.0"}, "untested_server"),
        ({"version_num": 160_013, "version": "16.13"}, "old_minor"),
        ({"version_num": 160_014, "version": "16.14"}, None),
        ({"version_num": 170_009, "version": "17.9"}, "old_minor"),
        ({"version_num": 180_003, "version": "18.3"}, "old_minor"),
        ({"encoding": "SQL_ASCII"}, "not_utf8"),
        ({"collation_recorded": "2.31", "collation_actual": "2.36"}, "collation_changed"),
        ({"read_only": True}, "read_only_server"),
        ({"skew_s": 4.0}, None),
        ({"skew_s": 7.0}, "clock_skew"),
        ({"skew_s": -7.0}, "clock_skew"),
        ({"transaction_age": 999_999_999}, None),
        ({"transaction_age": 1_500_000_000}, "transaction_ids_running_out"),
        ({"slots": {"replica": 1}}, None),
        ({"slots": {"replica": 5000}}, "stale_slot"),
        ({"prepared": ("order-17",)}, "forgotten_transaction"),
        ({"settings": {"max_connections": "20"}}, "too_few_connections"),
        ({"reserved": 50}, "too_few_connections"),
        ({"settings": {"fsync": "off"}}, "not_durable"),
        ({"settings": {"full_page_writes": "off"}}, "not_durable"),
        ({"settings": {"log_statement": "all"}}, "parameters_logged"),
        ({"settings": {"log_statement": "all", "log_parameter_max_length": "0"}}, None),
        ({"client": "10.0.0.7"}, "not_encrypted"),
        ({"client": "10.0.0.7", "encrypted": True}, None),
        ({"client": "127.0.0.1"}, None),
    ],
)
def test_what_is_judged_of_a_server(facts: ServerFacts, changes: dict[str, Any], wanted: str | None) -> None:
    """What a server is like elsewhere, as read from this one with a field edited."""
    found = [finding.code for finding in judge_server(edited(facts, **changes), DEMANDS)]
    assert found == ([] if wanted is None else [wanted])


@pytest.mark.fault
@pytest.mark.parametrize(
    ("here", "direct", "declared", "wanted"),
    [
        ({}, {}, False, []),
        ({"pooled": True}, {}, False, ["undeclared_pooler"]),
        ({"pooled": True}, {}, True, []),
        ({}, {}, True, ["declared_pooler_missing"]),
        ({}, {"pooled": True}, False, ["direct_url_pooled"]),
        ({}, {"place": "elsewhere"}, False, ["direct_url_elsewhere"]),
        ({}, {"may_migrate": False}, False, ["direct_url_not_owner"]),
    ],
)
def test_what_is_judged_of_addresses(here: dict[str, Any], direct: dict[str, Any], declared: bool, wanted: list[str]) -> None:
    """Poolers and mistaken addresses; test_pgbouncer.py has a real one."""
    plain = AddressFacts(pooled=False, place="1 of today", database="x", login="stemma_owner", owner="stemma_owner", may_migrate=True)
    found = judge_addresses(replace(plain, **here), declared_pooler=declared, direct=replace(plain, **direct))
    assert [finding.code for finding in found] == wanted


def test_what_is_judged_of_a_login(server: Server, template: str) -> None:
    """A superuser is not told that it may become each role; what it may is in its one finding."""
    engine = create_engine(server.url(template, "postgres"))
    with engine.connect() as connection:
        read = read_login(connection)
    engine.dispose()
    assert [finding.code for finding in judge_login(read)] == ["bypasses_policies"]


# ------------------------------------------------------------------------------------------------------------- command line


def test_the_command(place: Place) -> None:
    """Errors are exit code 1, warnings are with --strict, and what to do stands below each."""
    url = place.server.url(place.name).render_as_string(hide_password=False)
    fine = call("doctor", DATABASE_URL=url)
    assert (fine.returncode, fine.stderr) == (0, "")
    assert fine.stdout.startswith("ok: nothing is wrong: PostgreSQL 1")
    place.do("ALTER TABLE stemma.runs SET (autovacuum_enabled = false)")
    warned = call("doctor", DATABASE_URL=url)
    assert warned.returncode == 0
    assert warned.stdout.splitlines()[:2] == [
        "warning: table_without_autovacuum: autovacuum is switched off for runs",
        "    ALTER TABLE stemma.runs RESET (autovacuum_enabled)",
    ]
    assert call("doctor", "--strict", DATABASE_URL=url).returncode == 1
    place.do("ALTER TABLE stemma.runs NO FORCE ROW LEVEL SECURITY")
    failed = call("doctor", "--json", DATABASE_URL=url)
    assert failed.returncode == 1
    said = json.loads(failed.stdout)
    assert said["ok"] is False
    assert [finding["code"] for finding in said["findings"]] == ["row_security_not_forced", "table_without_autovacuum"]


@pytest.mark.fault
def test_no_server() -> None:
    """What cannot be asked is one line, as everywhere; the function raises."""
    url = "postgresql://u:hunter2@127.0.0.1:9/x"
    failed = call("doctor", DATABASE_URL=url)
    assert (failed.returncode, failed.stdout, len(failed.stderr.splitlines())) == (1, "", 1)
    assert "hunter2" not in failed.stderr
    with connect(url) as db, pytest.raises(DatabaseUnavailableError):
        db.check()


def test_no_secret_is_shown(place: Place) -> None:
    """Not what is stored, nor the keys."""
    place.do("INSERT INTO stemma.users (email, two_factor_enabled, two_factor_secret) VALUES ('a@b.co', true, 'v1:lost:c2VjcmV0c2VjcmV0')")
    report = str(look(place))
    assert "c2VjcmV0" not in report
    for key in RING.split(","):
        assert key.partition(":")[2] not in report


# ------------------------------------------------------------------------------------------------------------ documentation


@pytest.mark.offline
def test_every_code_is_described_and_tested() -> None:
    """The table of the page is that of the code, there are more than 25, and each is found by a test of this file."""
    kinds = dict(all_kinds())
    assert len(kinds) > 25
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|", PAGE.read_text(), re.MULTILINE)
    assert dict(rows) == {code: kind.severity for code, kind in kinds.items()}
    assert len(rows) == len(kinds)
    here = Path(__file__)
    tested = here.read_text() + here.with_name("doctor_cases.py").read_text()
    assert [code for code in kinds if f'"{code}"' not in tested] == []
