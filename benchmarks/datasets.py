"""
What the jobs work on: the same forest of definitions in the library's tables and in plain ones, made by SQL.

A tree has 1,000 versions on eleven levels, each forked from a random earlier version of the level above. Beside the forest stands one
chain, in which each version is forked from the one before, 1,000 levels deep. The plain tables are what people start with: a primary key,
a foreign key to the parent, and an index on it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from sqlalchemy import URL, Engine, create_engine

from benchmarks.harness import watch
from stemmadb import embedded
from stemmadb._test_server import DatabaseServer, open_server
from stemmadb.database import Database
from stemmadb.testing import make_workspace

Connection = psycopg.Connection[tuple[Any, ...]]

CHAIN_LEVELS = 1000
_TREE_ROWS = 1000
# What a large data set takes, with its indexes and the write-ahead log.
_ROOM = 12 * 1024**3
_SETTINGS = {
    "max_connections": "100",
    "shared_buffers": "1GB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "1h",
    # The jobs clean up between rounds; in the middle of a round nobody shall.
    "autovacuum": "off",
}


@dataclass
class Dataset:
    """One database: so many definitions in a workspace, the same in plain tables, and what the contenders connect with."""

    rows: int
    db: Database
    """The library, in the workspace of the definitions."""
    workspace_id: UUID
    owner_url: URL
    """The login of the peers: the tables' owner."""
    _opened: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @cached_property
    def floor(self) -> Connection:
        """The connection that the floor holds: autocommit, every statement prepared."""
        connection = self.connect()
        connection.prepare_threshold = 0
        return connection

    @cached_property
    def clerk(self) -> Connection:
        """The connection that prepares and cleans up outside of what is timed; it sees the workspace."""
        connection = self.connect()
        connection.execute("SELECT set_config('stemma.workspace_id', %s, false)", [str(self.workspace_id)])
        return connection

    @cached_property
    def engine(self) -> Engine:
        """The engine of the peers, as create_engine makes it."""
        engine = create_engine(self.owner_url)
        self._opened.callback(engine.dispose)
        return engine

    @cached_property
    def deep_ids(self) -> list[UUID]:
        """Versions at the lowest level of their trees, in random order, at most 2,000: ten ancestors each in a forest of 1,000 or more."""
        return self.ids(
            "SELECT id FROM stemma.definitions WHERE root_id <> %(chain)s AND depth = %(depth)s ORDER BY md5(id::text) LIMIT 2000",
            chain=self.chain_id(0),
            depth=min(10, self.rows - 1),
        )

    @cached_property
    def root_ids(self) -> list[UUID]:
        """The roots of trees, in random order, at most 500."""
        return self.ids(
            "SELECT id FROM stemma.definitions WHERE parent_id IS NULL AND id <> %(chain)s ORDER BY md5(id::text) LIMIT 500",
            chain=self.chain_id(0),
        )

    def ids(self, statement: str, **parameters: Any) -> list[UUID]:
        """Return the ids that a statement selects."""
        return [row[0] for row in self.clerk.execute(statement.encode(), parameters)]

    def chain_id(self, level: int) -> UUID:
        """Return the version of the chain at this level."""
        return self.ids(f"SELECT {_ID.format(self.rows + _GAP + level)}")[0]

    @cached_property
    def server_version(self) -> str:
        """The version of PostgreSQL."""
        row = self.clerk.execute("SHOW server_version").fetchone()
        return row[0] if row else ""

    def connect(self, url: URL | None = None) -> Connection:
        """Open a connection of psycopg's own, as the owner of the tables unless another login is given; closed with the data set."""
        address = (url or self.owner_url).set(drivername="postgresql").render_as_string(hide_password=False)
        connection = psycopg.connect(address, autocommit=True)
        watch(connection)
        self._opened.callback(connection.close)
        return connection

    def vacuum(self, *tables: str) -> None:
        """Take away what the rounds before have left behind."""
        for table in tables:
            self.clerk.execute(f"VACUUM ANALYZE {table}".encode())

    def close(self) -> None:
        """Close every connection."""
        self._opened.close()
        self.db.close()


# Identifiers in the order of their creation, as uuidv7 makes them; with a number for the time, so that they can be computed.
_DIGEST = "md5(({0})::text)"
_ID = f"(lpad(to_hex(1735689600000 + {{0}}), 12, '0') || '7' || substr({_DIGEST}, 1, 3) || '8' || substr({_DIGEST}, 4, 15))::uuid"
_GAP = 1_000_000

_PLAIN = """
CREATE SCHEMA plain;
CREATE TABLE plain.definitions (
    id uuid PRIMARY KEY,
    parent_id uuid REFERENCES plain.definitions (id),
    name text NOT NULL,
    content jsonb NOT NULL,
    message text,
    version integer NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON plain.definitions (parent_id);
"""
_SHAPE = """
CREATE TEMP TABLE shape (n integer, parent_n integer, depth integer) ON COMMIT DROP;
INSERT INTO shape
SELECT n,
       CASE WHEN n = 0 THEN NULL WHEN n %% 10 = 1 THEN 0
            ELSE (hashint4(n) & 2147483647) %% ((n - 1) / 10 + 1) * 10 + (n - 1) %% 10 END,
       CASE WHEN n = 0 THEN 0 ELSE (n - 1) %% 10 + 1 END
  FROM generate_series(0, %(tree_rows)s - 1) AS n;
"""
_CONTENT = """jsonb_build_object(
    'schema_version', 2, 'preamble', 'You are the only one near the lever. ' || repeat('Nobody can be asked. ', 12),
    'template', 'Trolley ' || n || ' nears {victims}, who cannot hear it. On the other track stands {bystander}.',
    'dimensions', '[{"name": "victims", "values": ["one", "two", "five"]}, {"name": "bystander", "values": ["a friend"]}]'::jsonb
)"""
_FOREST = f"""
WITH place AS (
    SELECT tree * %(tree_rows)s + n AS n, tree * %(tree_rows)s + parent_n AS parent_n, tree * %(tree_rows)s AS root_n, depth
      FROM generate_series(0, %(trees)s - 1) AS tree CROSS JOIN shape
 UNION ALL
    SELECT %(chain)s + level, CASE WHEN level > 0 THEN %(chain)s + level - 1 END, %(chain)s, level
      FROM generate_series(0, %(chain_levels)s) AS level
), definition AS (
    SELECT {_ID.format("n")} AS id, {_ID.format("parent_n")} AS parent_id, {_ID.format("root_n")} AS root_id, depth,
           'Version ' || n AS name, {_CONTENT} AS content, 'forked to see whether it matters' AS message,
           timestamptz '2025-01-01 UTC' + n * interval '1 second' AS created_at
      FROM place
     ORDER BY n
)
"""
_INSERT_PLAIN = f"""
{_FOREST}
INSERT INTO plain.definitions (id, parent_id, name, content, message, created_at, updated_at)
SELECT id, parent_id, name, content, message, created_at, created_at FROM definition
"""
_INSERT = f"""
{_FOREST}
INSERT INTO stemma.definitions (id, parent_id, root_id, depth, name, content, message, created_at, updated_at)
SELECT id, parent_id, root_id, depth, name, content, message, created_at, created_at FROM definition
"""


def make_dataset(server: DatabaseServer, rows: int) -> Dataset:
    """Make a database with so many definitions, in trees of 1,000 or one smaller tree, and the chain beside them."""
    name = server.create()
    db = server.connect(name)
    db.workspace = workspace_id = make_workspace(db)
    dataset = Dataset(rows, db, workspace_id, server.owner_url(name))
    tree_rows = min(rows, _TREE_ROWS)
    parameters = {"tree_rows": tree_rows, "trees": rows // tree_rows, "chain": rows + _GAP, "chain_levels": min(CHAIN_LEVELS, rows)}
    clerk = dataset.clerk
    with clerk.transaction():
        clerk.execute(_PLAIN)
        for statement in _SHAPE.split(";\n"):
            clerk.execute(statement.encode(), parameters if "%(" in statement else None)
        clerk.execute(_INSERT_PLAIN.encode(), parameters)
        clerk.execute(_INSERT.encode(), parameters)
    dataset.vacuum("plain.definitions", "stemma.definitions")
    return dataset


# -------------------------------------------------------------------------------------------------------------- the server


@contextlib.contextmanager
def benchmark_server() -> Iterator[DatabaseServer]:
    """
    Run the server of the benchmarks: that of BENCH_DATABASE_URL, else an embedded one, not durable, in a folder of its own.

    The login of BENCH_DATABASE_URL needs CREATEDB and CREATEROLE. The embedded one runs on one core, this process on another, if there
    are two: unpinned, short calls take one of two times by chance.
    """
    if address := os.environ.get("BENCH_DATABASE_URL"):
        server = open_server({"TEST_DATABASE_URL": address})
        try:
            yield server
        finally:
            server.close()
        return
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > _ROOM
    folder = Path(tempfile.mkdtemp(prefix="stemmadb-bench-", dir=memory if roomy else None))
    folder.chmod(0o755)
    try:
        with embedded.start(folder / "data", durable=False, settings=_SETTINGS) as started:
            _pin(started)
            server = DatabaseServer(started._superuser_conninfo(), started.url("postgres"), embedded=started, in_memory=roomy)
            try:
                yield server
            finally:
                server.close()
        _wait_for_end(folder / "data")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _pin(server: embedded.Server) -> None:
    """Give the server one core and this process another; connections are served by children, which inherit it."""
    if not hasattr(os, "sched_setaffinity"):
        return
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        return
    postmaster = (server.data_dir / "cluster" / "postmaster.pid").read_text().split()[0]
    running = Path(f"/proc/{postmaster}/task/{postmaster}/children")
    for pid in [postmaster, *(running.read_text().split() if running.exists() else [])]:
        os.sched_setaffinity(int(pid), {cores[-1]})
    os.sched_setaffinity(0, {cores[0]})


def _wait_for_end(data_dir: Path) -> None:
    """Wait until the server has ended: its supervisor holds this lock for as long."""
    import fcntl

    with (data_dir / "supervisor.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
