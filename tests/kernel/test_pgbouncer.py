"""
Through PgBouncer in transaction mode, where each transaction may run on another connection of the server.

Debian's package is used when it is installed (``apt-get install pgbouncer``).
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.engine import URL
from tests import test_tenant_isolation as isolation
from tests.evaluation.run_setups import make_definition
from tests.interleaved import CONNECTIONS, interleave
from tests.neighbours import TENANTS, Neighbours, two_workspaces

from stemmadb import connect, migrations
from stemmadb._test_server import DatabaseServer
from stemmadb.aio.evaluation import definitions as adefinitions
from stemmadb.database import Database
from stemmadb.evaluation import definitions
from stemmadb.settings import Settings
from stemmadb.testing import make_workspace, run_together

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
SERVER_CONNECTIONS = 2

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="PgBouncer is not installed")


@pytest.fixture(scope="module")
def pooler(stemmadb_server: DatabaseServer) -> Iterator[URL]:
    """The address of a PgBouncer in front of the test server, which hands out two connections of each database."""
    target = stemmadb_server.url("postgres")
    with _started(target) as port:
        yield URL.create("postgresql+psycopg", target.username, host="127.0.0.1", port=port)


@contextmanager
def _started(target: URL) -> Iterator[int]:
    assert PROGRAM is not None
    host = str(target.query.get("host") or target.host)
    port = str(target.query.get("port") or target.port or 5432)
    password = f" password={target.password}" if target.password else ""
    # It refuses to run as root. Who owns the server's socket may use it.
    account = Path(host).stat().st_uid if host.startswith("/") and os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="stemmadb-pgbouncer-"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        listened = free.getsockname()[1]
    (folder / "users.txt").write_text(f'"{target.username}" "{target.password or ""}"\n')
    (folder / "pgbouncer.ini").write_text(
        f"""
        [databases]
        * = host={host} port={port}{password}
        [pgbouncer]
        listen_addr = 127.0.0.1
        listen_port = {listened}
        unix_socket_dir =
        auth_type = trust
        auth_file = {folder}/users.txt
        pool_mode = transaction
        default_pool_size = {SERVER_CONNECTIONS}
        max_client_conn = 200
        logfile = {folder}/pgbouncer.log
        pidfile = {folder}/pgbouncer.pid
        """.replace("        ", "")
    )
    if account is not None:
        for path in (folder, *folder.iterdir()):
            os.chown(path, account, -1)
    process = subprocess.Popen(
        [PROGRAM, "-q", str(folder / "pgbouncer.ini")], user=account, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _await_listener(listened, process, folder / "pgbouncer.log")
        yield listened
    finally:
        process.terminate()
        process.wait(10)
        shutil.rmtree(folder, ignore_errors=True)


def _await_listener(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        else:
            return


def through(pooler: URL, db: Database, *, connections: int = 20, **parameters: str) -> Database:
    """The same database through the pooler; migrations still go straight to the server."""
    url = pooler.set(database=db.url.database).update_query_dict(parameters)
    settings = Settings(workspace=None, pool_min=2, pool_max=connections, pool_timeout_s=120)
    return connect(url.render_as_string(hide_password=False), settings=settings)


@pytest.fixture
def pooled(pooler: URL, committed_db: Database) -> Iterator[Database]:
    """A database of the test's own, through the pooler."""
    with through(pooler, committed_db) as db:
        yield db


@pytest.fixture
def lab(pooled: Database) -> UUID:
    """The id of a workspace in it, with one definition."""
    workspace_id = make_workspace(pooled, "lab")
    with pooled.session(workspace=workspace_id) as session:
        make_definition(session, "lab")
    return workspace_id


# ---------------------------------------------------------------------------------------------------------------- detected


def test_doctor_names_poolers(pooler: URL, committed_db: Database) -> None:
    """One that DATABASE_URL does not speak of, and one that migrations would go through; one that is declared is as it should be."""
    for parameters, expected in (({}, ["undeclared_pooler"]), ({"pgbouncer": "true"}, [])):
        with through(pooler, committed_db, **parameters) as db:
            assert [finding.code for finding in db.check().findings if "pooler" in finding.code] == expected
    direct = pooler.set(database=committed_db.url.database)
    with connect(settings=Settings(database_url=committed_db.url, direct_database_url=direct, workspace=None)) as db:
        assert "direct_url_pooled" in {finding.code for finding in db.check().findings}


def test_a_pooler_is_noticed(pooled: Database, committed_db: Database) -> None:
    """By the process id that it makes up: nothing is prepared on the server then, and on a direct connection it is."""
    for db, expected in ((pooled, True), (committed_db, False)):
        with db.engine.connect() as connection:
            driver = connection.connection.driver_connection
            assert driver is not None
            assert (driver.prepare_threshold is None) is expected
            assert (driver.info.backend_pid != connection.scalar(text("SELECT pg_backend_pid()"))) is expected


async def test_a_pooler_is_noticed_under_asyncio(pooled: Database) -> None:
    """The async engine asks each of its connections as well."""
    async with pooled.async_engine.connect() as connection:
        raw = await connection.get_raw_connection()
        assert raw.driver_connection is not None
        assert raw.driver_connection.prepare_threshold is None
    await pooled.async_engine.dispose()


@pytest.mark.requirement("TN-010")
def test_the_url_may_say_so(pooler: URL, committed_db: Database) -> None:
    """``?pgbouncer=true`` does not reach libpq, and holds from the first statement on."""
    with through(pooler, committed_db, pgbouncer="true") as db:
        assert "pgbouncer" not in db.url.query
        with db.engine.connect() as connection:
            driver = connection.connection.driver_connection
            assert driver is not None
            assert driver.prepare_threshold is None


# ---------------------------------------------------------------------------------------------------------------- isolated


@pytest.mark.race
@pytest.mark.fault
@pytest.mark.requirement("TN-009", "TN-039", "TN-044")
def test_transactions_of_many_workspaces_keep_apart(pooled: Database) -> None:
    """Two hundred transactions of five workspaces, by eight threads over two connections of the server: each sees its own rows alone."""
    rows: dict[UUID, UUID] = {}
    for number in range(5):
        workspace_id = make_workspace(pooled, f"w{number}")
        with pooled.session(workspace=workspace_id) as session:
            rows[workspace_id] = make_definition(session, f"of {number}").id
    workspaces = list(rows)

    def work(number: int) -> list[str]:
        wrong = []
        for turn in range(25):
            own, other = workspaces[(number + turn) % 5], workspaces[(number + turn + 1) % 5]
            with pooled.session(workspace=own) as session:
                if [row.id for row in definitions.list_all(session)] != [rows[own]]:
                    wrong.append(f"{number}.{turn}: a list of another workspace")
                if definitions.get(session, rows[own]).workspace_id != own:
                    wrong.append(f"{number}.{turn}: a row of another workspace")
                if definitions.find(session, rows[other]) is not None:
                    wrong.append(f"{number}.{turn}: a foreign id was found")
                if session.scalar(text("SELECT count(*) FROM stemma.definitions")) != 1:
                    wrong.append(f"{number}.{turn}: raw SQL saw another workspace")
        return wrong

    assert run_together(8, work) == [[]] * 8


@pytest.mark.race
@pytest.mark.requirement("TN-009", "TN-039")
async def test_tasks_of_many_workspaces_keep_apart(pooled: Database) -> None:
    """A hundred interleaved tasks on AsyncSessions do so too."""
    workspaces = [make_workspace(pooled, f"w{number}") for number in range(5)]
    for number, workspace_id in enumerate(workspaces):
        with pooled.session(workspace=workspace_id) as session:
            make_definition(session, f"of {number}")

    async def look(number: int) -> list[str]:
        async with pooled.async_session(workspace=workspaces[number % 5]) as session:
            return [row.name for row in await adefinitions.list_all(session)]

    try:
        assert await asyncio.gather(*map(look, range(100))) == [[f"of {number % 5}"] for number in range(100)]
    finally:
        await pooled.async_engine.dispose()


@pytest.mark.requirement("TN-009", "TN-044")
def test_settings_end_with_their_transaction(pooled: Database, lab: UUID) -> None:
    """After transactions in a workspace no connection of the server keeps it, its role or its search path."""
    plain = "SELECT current_setting('stemma.workspace_id', true), current_setting('statement_timeout'), current_setting('timezone')"
    with pooled.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        before = connection.execute(text(plain)).one()
    for _ in range(3 * SERVER_CONNECTIONS):
        with pooled.session(workspace=lab) as session:
            assert session.scalar(text("SELECT stemma.stemma_workspace_id()")) == lab
    for _ in range(3 * SERVER_CONNECTIONS):
        with pooled.session() as session:
            assert session.scalar(text("SELECT stemma.stemma_workspace_id()")) is None
            assert session.scalar(text("SELECT count(*) FROM stemma.definitions")) == 0
        with pooled.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            after = connection.execute(text(plain)).one()
        assert after[0] in (None, "")
        assert after[1:] == before[1:]


@pytest.mark.slow
@pytest.mark.race
@pytest.mark.requirement("TN-009", "TN-039", "TN-040")
async def test_a_thousand_tasks_keep_apart(pooler: URL, committed_db: Database) -> None:
    """Of twenty workspaces, over five connections to the pooler and two of the server, with nested contexts and savepoints."""
    with through(pooler, committed_db, connections=CONNECTIONS) as db:
        assert await interleave(db) == []


@pytest.fixture(scope="module")
def neighbours(pooler: URL, stemmadb_server: DatabaseServer) -> Iterator[Neighbours]:
    """Two full workspaces, through the pooler."""
    with two_workspaces(stemmadb_server) as found, through(pooler, found.db) as db:
        yield dataclasses.replace(found, db=db)


@pytest.mark.slow
@pytest.mark.requirement("TN-009", "TN-035", "TN-038")
def test_no_function_tells_of_another_workspace(neighbours: Neighbours) -> None:
    """All of tests/test_tenant_isolation.py about functions: foreign ids read like nobody's, answers do not depend on the neighbour."""
    for function in isolation.FUNCTIONS:
        isolation.test_anothers_ids_read_like_nobodys(neighbours, function)
        isolation.test_no_answer_depends_on_a_neighbour(neighbours, neighbours, function, True)
        isolation.test_without_a_workspace_nothing_is_sent(neighbours, function)
    isolation.test_the_calls_would_find_our_own(neighbours)
    isolation.test_across_workspaces_every_function_refuses(neighbours)
    for entity, kind in isolation._ENTITIES:
        isolation.test_a_session_takes_no_object_of_another_workspace(neighbours, entity, kind)
        isolation.test_the_kernels_functions_tell_nothing_either(neighbours, entity, kind)


@pytest.mark.slow
@pytest.mark.requirement("TN-009", "TN-035", "TN-038")
async def test_no_twin_tells_of_another_workspace(neighbours: Neighbours) -> None:
    """The async twins, likewise."""
    await isolation.test_anothers_ids_read_like_nobodys_to_twins(neighbours)
    await isolation.test_without_a_workspace_no_twin_sends_anything(neighbours)


@pytest.mark.requirement("TN-009", "TN-042")
def test_policies_hold_behind_the_pooler(neighbours: Neighbours) -> None:
    """Raw SQL in every table: one's own rows alone, and none put into another workspace."""
    for table in TENANTS:
        isolation.test_policies_hold_where_predicates_are_forgotten(neighbours, table)
        isolation.test_no_row_is_put_into_another_workspace(neighbours, table)


def test_units_of_work_and_savepoints_work(pooled: Database, lab: UUID) -> None:
    """What else a session does in one transaction: units of work, savepoints, server-side cursors."""

    def work(session: object) -> int:
        return len(definitions.list_all(session))  # type: ignore[arg-type]

    assert pooled.run(work, workspace=lab) == 1
    with pooled.session(workspace=lab) as session:
        with pytest.raises(RuntimeError), session.begin_nested():
            make_definition(session, "undone")
            raise RuntimeError
        streamed = session.execute(text("SELECT name FROM stemma.definitions"), execution_options={"yield_per": 1})
        assert list(streamed.scalars()) == ["lab"]


# ---------------------------------------------------------------------------------------------------------------- migrated


@pytest.mark.requirement("TN-009")
def test_frames_keep_apart(pooled: Database, lab: UUID) -> None:
    """Frames begin their transaction with their workspace, and leave nothing behind on the connection that the next one gets."""
    pytest.importorskip("adbc_driver_postgresql")
    other = make_workspace(pooled)
    for workspace_id in (lab, other, lab):
        for _ in range(3):
            found = pooled.frame(
                "SELECT current_setting('stemma.workspace_id') AS id, count(*) AS n FROM workspace_members",
                workspace=workspace_id,
                backend="arrow",
            )
            assert found.column("id").to_pylist() == [str(workspace_id)]
    with pooled.session() as session:
        assert session.execute(text("SELECT current_setting('stemma.workspace_id', true)")).scalar_one() in (None, "")


def test_migrations_go_past_the_pooler(pooler: URL, committed_db: Database, caplog: pytest.LogCaptureFixture) -> None:
    """Over DIRECT_URL; without one they go through the pooler's address, and say that this is not what they need."""
    url = pooler.set(database=committed_db.url.database)
    settings = Settings(database_url=url, direct_database_url=committed_db.direct_url, workspace=None)
    with caplog.at_level(logging.WARNING, "stemmadb.migrations"):
        with connect(settings=settings) as db:
            migrations.downgrade(db, "evaluation@base")
            assert not migrations.status(db).up_to_date
            migrations.upgrade(db)
            assert migrations.status(db).up_to_date
            with db.session(workspace=make_workspace(db)) as session:
                assert definitions.list_all(session).items == []
        assert caplog.messages == []
        with through(pooler, committed_db) as db:
            assert migrations.status(db).up_to_date
    assert [message for message in caplog.messages if "pooler" in message]
