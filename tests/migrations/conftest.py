"""Servers of each supported version, empty databases on them, and a copy of the revisions that a test may add to."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
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
from tests.migrations.places import Place, Revisions

from stemmadb import _heads, embedded, migrations
from stemmadb.embedded import Server
from stemmadb.errors import MissingDependencyError


def _versions() -> list[Any]:
    """Return the version that STEMMADB_TEST_PG names; else the newest one, and each older one whose programs are installed."""
    if (wanted := os.environ.get("STEMMADB_TEST_PG", "")).isdigit():
        return [pytest.param(int(wanted), id=f"postgresql{wanted}")]
    found = []
    for major in (17, 16):
        with contextlib.suppress(MissingDependencyError):
            embedded.bindir(major)
            found.append(major)
    return [pytest.param(major, id=f"postgresql{major}") for major in (18, *found)]


@pytest.fixture(scope="session", params=_versions())
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """
    An embedded server of each version whose programs are there, with the three roles.

    Not the one of the other tests, because these rename roles; and not in pytest's folder, which other runs of pytest close to the
    server's own account.
    """
    try:
        programs = embedded.bindir(request.param)
    except MissingDependencyError:
        pytest.skip(f"the programs of PostgreSQL {request.param} are not installed")
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="stemmadb-migrations-", dir=memory if os.access(memory, os.W_OK) else None))
    folder.chmod(0o755)
    with embedded.start(folder / "data", durable=False, bindir=programs, settings={"max_connections": "60"}) as started:
        embedded.prepare(started, "postgres")
        yield started
    running = folder / "data" / "cluster" / "postmaster.pid"
    deadline = time.monotonic() + 10
    while running.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    shutil.rmtree(folder, ignore_errors=True)


def _create(server: Server, template: str = "template0") -> Place:
    name = f"m{uuid4().hex[:12]}"
    with psycopg.connect(server._superuser_conninfo(), autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} OWNER stemma_owner TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
        )
    return Place(server, name, server.owner_url(name))


def _drop(place: Place) -> None:
    with psycopg.connect(place.server._superuser_conninfo(), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(place.name)))


@pytest.fixture
def empty(server: Server) -> Iterator[Place]:
    """An empty database of ``stemma_owner``."""
    place = _create(server)
    try:
        yield place
    finally:
        _drop(place)


@pytest.fixture(scope="session")
def _template(server: Server) -> str:
    place = _create(server)
    migrations.upgrade(place)
    return place.name


@pytest.fixture
def migrated(server: Server, _template: str) -> Iterator[Place]:
    """A database at the newest revisions."""
    place = _create(server, _template)
    try:
        yield place
    finally:
        _drop(place)


@pytest.fixture
def plain(empty: Place) -> Iterator[Place]:
    """An empty database of a login with CREATEROLE and nothing more; the three roles do not exist while the test runs."""
    login = f"deploy_{uuid4().hex[:8]}"
    renamed = ("stemma_owner", "stemma_app", "stemma_maintenance")
    empty.do(f"CREATE ROLE {login} LOGIN CREATEROLE", f"ALTER DATABASE {empty.name} OWNER TO {login}")
    empty.do(*(f"ALTER ROLE {name} RENAME TO {name}_aside" for name in renamed))
    try:
        yield replace(empty, direct_url=empty.direct_url.set(username=login))
    finally:
        there = empty.ask("SELECT rolname::text FROM pg_roles WHERE rolname = ANY(%s)", list(renamed), user="postgres")
        for name in (*there, login):
            empty.do(f"REASSIGN OWNED BY {name} TO postgres", f"DROP OWNED BY {name}", f"DROP ROLE {name}")
        empty.do(*(f"ALTER ROLE {name}_aside RENAME TO {name}" for name in renamed))


@pytest.fixture
def revisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Revisions]:
    """A copy of the revisions, for adding to."""
    folder = tmp_path / "alembic"
    shutil.copytree(_heads.location(), folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(_heads, "location", lambda: folder)
    _heads.forget()
    yield Revisions(folder)
    _heads.forget()


@pytest.fixture
def migrator() -> Callable[..., subprocess.Popen[str]]:
    """Start a process that migrates: ``migrator(place, "--kill-at", "12")``."""

    def start(place: Place, *options: str) -> subprocess.Popen[str]:
        program = Path(__file__).with_name("migrator.py")
        address = place.direct_url.render_as_string(hide_password=False)
        return subprocess.Popen([sys.executable, program, address, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    return start
