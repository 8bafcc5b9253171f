"""Frames of any statement: exact types, one workspace, errors that say what is wrong, and no more memory than a batch takes."""

from __future__ import annotations

import _thread
import asyncio
import gc
import math
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import create_engine, func, select, text
from sqlalchemy.orm import Session

import stemmadb
from stemmadb import _arrow, _frames, connect
from stemmadb._test_server import DatabaseServer
from stemmadb.database import Database
from stemmadb.errors import (
    ConfigurationError,
    DatabaseError,
    MissingDependencyError,
    NotFoundError,
    PermissionDeniedError,
    QueryTimeoutError,
    StemmaError,
    ValidationError,
    WorkspaceNotSetError,
)
from stemmadb.evaluation.entities import Definition
from stemmadb.settings import Settings
from stemmadb.testing import make_workspace

polars = pytest.importorskip("polars")
pandas = pytest.importorskip("pandas")
pyarrow = pytest.importorskip("pyarrow")
pytest.importorskip("adbc_driver_postgresql")

BACKENDS: list[_frames.Backend] = ["polars", "pandas", "arrow"]
ADD = text(
    """
    INSERT INTO stemma.definitions (workspace_id, id, root_id, name, content)
    SELECT :workspace_id, id, id, name, '{"schema_version": 1}' FROM unnest(CAST(:ids AS uuid[]), CAST(:names AS text[])) AS new (id, name)
    """
)


def add(db: Database, workspace_id: UUID, *names: str) -> None:
    """Commit definitions of these names."""
    with db.session(workspace=workspace_id) as session:
        session.execute(ADD, {"workspace_id": workspace_id, "ids": [uuid4() for _ in names], "names": list(names)})


@pytest.fixture(scope="module")
def db(stemmadb_server: DatabaseServer) -> Iterator[Database]:
    """A database with the workspaces ``ours``, its default, and ``theirs``; each has definitions that are called like it."""
    name = stemmadb_server.create()
    db = stemmadb_server.connect(name)
    try:
        for slug in ("ours", "theirs"):
            add(db, make_workspace(db, slug), f"{slug} 1", f"{slug} 2")
        db.workspace = "ours"
        yield db
    finally:
        db.close()
        stemmadb_server.drop(name)


def rows(frame: Any) -> list[dict[str, Any]]:
    """The rows of a frame of any backend."""
    if isinstance(frame, pandas.DataFrame):
        return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]
    found: list[dict[str, Any]] = frame.to_pylist() if isinstance(frame, pyarrow.Table) else frame.to_dicts()
    return found


# ------------------------------------------------------------------------------------------------------------------- values


VALUES = """
SELECT CAST(32767 AS smallint) AS small, 9007199254740993 AS large, CAST(1.5 AS real) AS single, CAST('NaN' AS float8) AS nan,
       true AS truth, 'é\\ud83d'::text AS words, 'ab'::varchar AS short, 'c'::char(3) AS padded, '\\x00ff'::bytea AS bytes,
       '01234567-89ab-7def-8123-456789abcdef'::uuid AS id, '{"a": [1, null]}'::jsonb AS document, '{"a" : 1}'::json AS source,
       12345678901.12345678::numeric(19, 8) AS money, 2.5::numeric AS average, 'USER'::stemma.actor_type AS enum,
       '2026-02-03 04:05:06.000007+02'::timestamptz AS at, '2026-02-03 04:05:06'::timestamp AS naive, '2026-02-03'::date AS day,
       interval '1 month 2 days' AS took, '127.0.0.1'::inet AS address, int4range(1, 3) AS span, 4294967295::oid AS oid,
       ARRAY[1, NULL] AS whole, ARRAY[0.5] AS parts, ARRAY['01234567-89ab-7def-8123-456789abcdef'::uuid] AS ids, ROW(1, 'x') AS pair,
       CAST(NULL AS bigint) AS nothing
""".replace("\\ud83d", "🙂")
EXACT = {
    "small": 32767,
    "large": 9007199254740993,
    "single": 1.5,
    "truth": True,
    "words": "é🙂",
    "short": "ab",
    "padded": "c  ",
    "bytes": b"\x00\xff",
    "id": "01234567-89ab-7def-8123-456789abcdef",
    "document": '{"a": [1, null]}',
    "source": '{"a" : 1}',
    "money": Decimal("12345678901.12345678"),
    "average": 2.5,
    "enum": "USER",
    "at": datetime(2026, 2, 3, 2, 5, 6, 7, tzinfo=UTC),
    "naive": datetime(2026, 2, 3, 4, 5, 6),
    "took": "1 mon 2 days",
    "address": "127.0.0.1/32",
    "span": "[1,3)",
    "oid": 4294967295,
    "parts": [0.5],
    "ids": ["01234567-89ab-7def-8123-456789abcdef"],
    "pair": "(1,x)",
}


@pytest.mark.requirement("VR-096")
@pytest.mark.parametrize("backend", BACKENDS)
def test_values_are_exact(db: Database, backend: _frames.Backend) -> None:
    """Every type of PostgreSQL comes as documented, beside NULL as well."""
    frame = db.frame(VALUES, backend=backend)
    (row,) = rows(frame)
    nothing, day, whole, nan = row.pop("nothing"), row.pop("day"), list(row.pop("whole")), row.pop("nan")
    assert {name: list(value) if name in ("parts", "ids") else value for name, value in row.items()} == EXACT
    assert math.isnan(nan)
    assert nothing is None
    assert backend != "pandas" or frame.dtypes["nothing"] == "Int64"
    assert (day.date() if backend == "pandas" else day) == date(2026, 2, 3)
    assert whole[0] == 1
    assert whole[1] is None or math.isnan(whole[1])


def test_a_result_without_rows_keeps_its_schema(db: Database) -> None:
    """Types do not depend on what is found."""
    nothing, something = (db.frame(f"SELECT * FROM ({VALUES}) AS given WHERE {found}", backend="arrow") for found in ("false", "true"))
    assert nothing.num_rows == 0
    assert nothing.schema == something.schema
    assert db.frame(f"SELECT * FROM ({VALUES}) AS given WHERE false").schema == db.frame(VALUES).schema
    assert list(db.frame("SELECT 1 AS a, 'x' AS b WHERE false", backend="pandas").columns) == ["a", "b"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("SELECT CAST('NaN' AS numeric(4, 2)) AS a", "the column 'a' holds NaN"),
        ("SELECT CAST('infinity' AS timestamptz) AS a", "the column 'a' holds infinity"),
        ("SELECT CAST('-infinity' AS date) AS a", "the column 'a' holds infinity"),
        ("SELECT 1 AS a, 2 AS a", "two columns are called 'a'"),
        ("EXPLAIN SELECT 1", "SELECT, WITH, VALUES or TABLE"),
        ("", "SELECT, WITH, VALUES or TABLE"),
        ("SELECT 1 / (5 - n) AS a FROM generate_series(1, 9) AS n", "division by zero"),
    ],
)
def test_what_has_no_place_in_a_frame_is_told(db: Database, given: str, message: str) -> None:
    """A value is never bent until it fits, and what fails in the middle of a stream says why."""
    with pytest.raises(ValidationError, match=message):
        db.frame(given)


# --------------------------------------------------------------------------------------------------------------- statements


def test_statements_take_parameters(db: Database) -> None:
    """Of text by name, quoted by the driver; of SQLAlchemy's statements as they are."""
    nasty = "it's \\ :x %s %(x)s -- $1"
    assert rows(db.frame("SELECT :x AS x, 10 % 4 AS left WHERE :x = ANY(:these)", {"x": nasty, "these": ["a", nasty]})) == [
        {"x": nasty, "left": 2}
    ]
    assert rows(db.frame("SELECT ':x' AS colon, 10 % 4 AS left, 5::text AS five -- it ends;\n;")) == [
        {"colon": ":x", "left": 2, "five": "5"}
    ]
    statement = select(Definition.name).where(Definition.name.in_(["ours 1", "theirs 1"]))
    assert rows(db.frame(statement)) == [{"name": "ours 1"}]
    key = uuid4()
    assert rows(db.frame(select(func.coalesce(text(":id"), None).label("id")), {"id": key})) == [{"id": str(key)}]
    with pytest.raises(ValidationError, match="without a value: these, x"):
        db.frame("SELECT :x, :these", {})


def test_the_order_of_the_statement_stays(db: Database) -> None:
    """Also where columns are turned into text."""
    found = db.frame("SELECT n, CAST(n AS numeric) AS m FROM generate_series(1, 5000) AS n ORDER BY n DESC")
    assert found["n"].to_list() == list(range(5000, 0, -1))


def test_a_frame_only_reads(db: Database) -> None:
    """Neither a second statement nor one that writes goes through, and the role cannot be changed."""
    with pytest.raises(ValidationError, match="that reads"):
        db.frame("DELETE FROM definitions RETURNING id")
    with pytest.raises(DatabaseError, match="writes") as caught:
        db.frame("WITH gone AS (DELETE FROM definitions RETURNING name) SELECT * FROM gone")
    assert caught.value.sqlstate == "25006"
    with pytest.raises(DatabaseError, match="multiple commands"):
        db.frame("SELECT 1; SELECT 2")
    with pytest.raises(PermissionDeniedError):
        db.frame("SELECT set_config('role', 'stemma_owner', true)")
    assert db.frame("SELECT count(*) AS n FROM definitions")["n"].to_list() == [2]


# --------------------------------------------------------------------------------------------------------------- workspaces


@pytest.mark.requirement("TN-032", "TN-034")
def test_a_frame_is_of_one_workspace(db: Database) -> None:
    """Plain SQL sees the rows of the workspace that is meant, and no other; the nearest name wins."""
    names = "SELECT name FROM definitions ORDER BY name"
    assert db.frame(names)["name"].to_list() == ["ours 1", "ours 2"]
    assert db.frame(names, workspace="theirs")["name"].to_list() == ["theirs 1", "theirs 2"]
    with stemmadb.tenancy.workspace("theirs"), db.frame_batches(names) as batches:
        assert batches.read_all().column("name").to_pylist() == ["theirs 1", "theirs 2"]
    with pytest.raises(NotFoundError):
        db.frame(names, workspace="nobodys")


@pytest.mark.requirement("TN-035")
def test_without_a_workspace_nothing_is_sent(stemmadb_server: DatabaseServer, db: Database) -> None:
    """Row-level security would return an empty frame, which looks like an answer."""
    with connect(db.url, settings=Settings(workspace=None)) as without:
        with pytest.raises(WorkspaceNotSetError, match=r"Database\.frame"):
            without.frame("SELECT 1")
        assert without.pool_stats().open == 0


def test_the_role_of_the_session_holds(db: Database) -> None:
    """A login with more rights than stemma_app reads with those of the session; so does one whose host sets another role."""
    owned = create_engine(db.direct_url)
    try:
        with Session(owned, info={"workspace": db.frame("SELECT id FROM workspaces WHERE slug = 'ours'")["id"][0]}) as session:
            question = _frames.question(session, "SELECT current_user AS who, count(*) AS n FROM stemma.definitions", None, "test")
            assert rows(question.frame("arrow")) == [{"who": "stemma_owner", "n": 2}]
            session.execute(text("SET LOCAL search_path = pg_catalog, stemma"))
            question = _frames.question(session, "SELECT current_schemas(false) AS path", None, "test")
            assert rows(question.frame("arrow")) == [{"path": ["pg_catalog", "stemma"]}]
    finally:
        owned.dispose()
    assert rows(
        db.frame("SELECT current_user AS who, current_setting('transaction_read_only') AS only, current_setting('timezone') AS zone")
    ) == [{"who": "stemma_app", "only": "on", "zone": "UTC"}]


def test_uncommitted_rows_are_not_seen(db: Database) -> None:
    """A frame is read on a connection of its own."""
    with db.session() as session:
        session.execute(ADD, {"workspace_id": session.info["stemma"].workspace_id, "ids": [uuid4()], "names": ["new"]})
        found = _frames.question(session, "SELECT name FROM definitions WHERE name = 'new'", None, "test").frame("arrow")
        assert found.num_rows == 0
        session.rollback()


# ------------------------------------------------------------------------------------------------------------------ batches


def test_batches_come_as_they_are_read(db: Database) -> None:
    """So that more rows can be read than memory holds; leaving early ends the statement, and errors keep their class."""
    with db.frame_batches("SELECT generate_series(1, 100000) AS n, repeat('x', 1000) AS x, gen_random_uuid() AS id") as batches:
        assert batches.schema.names == ["n", "x", "id"]
        sizes = [batch.num_rows for batch in batches]
    assert sum(sizes) == 100_000
    assert len(sizes) > 3
    with db.frame_batches("SELECT generate_series(1, 100000000) AS n, repeat('x', 1000) AS x") as batches:
        assert next(iter(batches)).num_rows < 100_000
    assert running(db, "COPY") == 0
    with (
        db.frame_batches("SELECT n, repeat('x', 1000) AS x, 1 / (60000 - n) AS q FROM generate_series(1, 100000) AS n") as batches,
        pytest.raises(ValidationError, match="division by zero"),
    ):
        batches.read_all()


RUNNING = text(
    """
    SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' AND starts_with(query, :start)
    """
)


def running(db: Database, start: str) -> int:
    """How many statements that start so are being run in the database."""
    with db.session() as session:
        found: int = session.execute(RUNNING, {"start": start}).scalar_one()
        return found


def wait_until_running(db: Database) -> None:
    """Return when the statement of a frame is being run."""
    while running(db, "COPY") == 0:
        pass


# ------------------------------------------------------------------------------------------------------------- interruptions

LONG = "SELECT pg_sleep(60)"


def test_ctrl_c_ends_the_statement(db: Database) -> None:
    """Whoever stops a cell of a notebook leaves nothing running."""

    def interrupt() -> None:
        wait_until_running(db)
        _thread.interrupt_main()

    thread = threading.Thread(target=interrupt)
    # What is raised in a callback of the collector, and hypothesis has one, reaches nobody.
    gc.disable()
    try:
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            db.frame(LONG)
    finally:
        gc.enable()
    thread.join()
    assert running(db, "COPY") == 0


async def test_frames_beside_the_event_loop(db: Database) -> None:
    """aframe gives what frame gives, and a task that is cancelled ends the statement."""
    try:
        assert (await db.aframe("SELECT name FROM definitions ORDER BY name"))["name"].to_list() == ["ours 1", "ours 2"]
        with pytest.raises(ValidationError):
            await db.aframe("SELECT 1 / 0 AS a")
        task = asyncio.create_task(db.aframe(LONG))
        await asyncio.to_thread(wait_until_running, db)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert running(db, "COPY") == 0
    finally:
        await db.async_engine.dispose()


def test_timeouts_hold(db: Database) -> None:
    """Those of the settings and of a unit of work."""
    with connect(db.url, workspace="ours", settings=Settings(query_timeout_ms=50)) as hurried:
        with pytest.raises(QueryTimeoutError) as caught:
            hurried.frame(LONG)
        assert caught.value.kind == "statement"

    def work(session: Session) -> Any:
        return _frames.question(session, LONG, None, "test").frame("arrow")

    with pytest.raises(QueryTimeoutError):
        db.run(work, deadline_s=0.2)


# ------------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(("statement", "sqlstate"), [("SELECT nope", "42703"), ("TABLE nope", "42P01"), ("SELECT (", "42601")])
def test_a_statement_that_is_wrong_says_so(db: Database, statement: str, sqlstate: str) -> None:
    """A name that is not there is the statement's fault, not that of the schema."""
    with pytest.raises(DatabaseError, match="refused the statement") as caught:
        db.frame(statement)
    assert caught.value.sqlstate == sqlstate


@pytest.mark.offline
def test_a_backend_that_is_unknown_is_refused() -> None:
    """Before anything is opened."""
    with pytest.raises(ValidationError, match="polars, pandas, arrow") as caught:
        _frames.check("dask")  # type: ignore[arg-type]
    assert caught.value.field == "backend"


@pytest.mark.offline
@pytest.mark.parametrize(
    ("missing", "backend", "extra"),
    [
        ("adbc_driver_postgresql", "arrow", "frames"),
        ("pyarrow", "arrow", "frames"),
        ("polars", "polars", "frames"),
        ("pandas", "pandas", "pandas"),
    ],
)
def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, missing: str, backend: _frames.Backend, extra: str) -> None:
    """In one line that says what to install."""
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingDependencyError) as caught:
        _frames.check(backend)
    assert str(caught.value) == f"This needs the extra '{extra}': pip install \"stemmadb[{extra}]\""


def test_another_driver_is_refused(db: Database) -> None:
    """The library's frames connect as psycopg did."""
    with db.engine.connect() as connection:
        connection.connection.dbapi_connection = object()  # type: ignore[assignment]
        try:
            with pytest.raises(ConfigurationError, match="psycopg"):
                _arrow.driver_of(connection)
        finally:
            connection.invalidate()


@pytest.mark.fault
def test_passwords_and_values_stay_out_of_messages(db: Database) -> None:
    """Of an address that does not answer any more, and of a connection that is ended."""
    source = _arrow.Source("host=127.0.0.1 port=1 user=ada password=tulip dbname=x connect_timeout=2", "BEGIN READ ONLY")
    with pytest.raises(StemmaError) as caught:
        _frames.Question(source, "SELECT 'orchid'").frame("arrow")
    assert "tulip" not in f"{source!r} {caught.value!r} {caught.value}"
    assert "reached" in str(caught.value)

    with db.session() as session:
        kill = text(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND starts_with(query, 'COPY')"
        )

        def end() -> None:
            wait_until_running(db)
            session.execute(kill)

        thread = threading.Thread(target=end)
        thread.start()
        with pytest.raises(StemmaError) as caught:
            db.frame("SELECT pg_sleep(60), :secret", {"secret": "orchid"})
        thread.join()
    assert "orchid" not in f"{caught.value!r} {caught.value}"
