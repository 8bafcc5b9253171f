"""
A pytest plug-in: a migrated database for tests, and a session whose work is rolled back.

Installed with the package; nothing is started before a test asks for it.

    def test_fork_freezes_its_parent(session):
        parent = definitions.create(session, {...})
        with assert_max_queries(3):
            definitions.fork(session, parent.id, {...})

``session`` and ``async_session`` work in a workspace made for the test, in a transaction that is rolled back after it. Tests that
need real commits (concurrency, LISTEN, a second connection) take ``committed_db``, a database of their own.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID, uuid4

import pytest

# This module is imported in every pytest run of an environment that has the package: SQLAlchemy is left for when it is needed.
if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session

    from stemmadb._test_server import DatabaseServer
    from stemmadb.database import Database
    from stemmadb.observability import StatementCount
    from stemmadb.packs import Pack
    from stemmadb.reports import Finding

__all__ = ["assert_max_queries", "count_queries", "make_workspace", "pack_conformance", "run_together"]

R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])

try:
    # In strict mode pytest-asyncio runs only what its own decorator marks.
    _decorator: Any = import_module("pytest_asyncio").fixture
except ImportError:
    # Another plug-in, such as AnyIO's, runs async fixtures then.
    _decorator = pytest.fixture


def _async_fixture(fn: F) -> F:
    decorated: F = _decorator(fn)
    return decorated


# --------------------------------------------------------------------------------------------------------------- databases


@pytest.fixture(scope="session")
def stemmadb_server() -> Iterator[DatabaseServer]:
    """
    The PostgreSQL server of this test run: that of TEST_DATABASE_URL, else an embedded one, not durable, in memory if there is room.

    ``STEMMADB_TEST_PG=16`` chooses the embedded one's major version.
    """
    from stemmadb._test_server import open_server

    server = open_server(os.environ)
    try:
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def stemmadb_database(stemmadb_server: DatabaseServer) -> Iterator[Database]:
    """The migrated database of this worker, dropped at the end of the run. What is committed to it stays until then."""
    db = stemmadb_server.connect(stemmadb_server.create())
    try:
        yield db
    finally:
        _close(db)


@pytest.fixture
def db(stemmadb_database: Database) -> Iterator[Database]:
    """The database of this worker, for tests that read it or commit nothing; those that commit take ``committed_db``."""
    try:
        yield stemmadb_database
    finally:
        _close_async_connections(stemmadb_database)


@pytest.fixture
def committed_db(stemmadb_server: DatabaseServer) -> Iterator[Database]:
    """A migrated, empty database for this test alone, dropped after it (20 to 80 ms)."""
    name = stemmadb_server.create()
    db = stemmadb_server.connect(name)
    try:
        yield db
    finally:
        _close(db)
        stemmadb_server.drop(name)


@pytest.fixture
def owner(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """An engine of the schema's owner on the database of the test, ``committed_db`` if it takes that: for DDL and the catalogue."""
    from sqlalchemy import NullPool, create_engine

    name = "committed_db" if "committed_db" in request.fixturenames else "stemmadb_database"
    database: Database = request.getfixturevalue(name)
    engine = create_engine(database.direct_url, poolclass=NullPool)
    try:
        yield engine
    finally:
        engine.dispose()


# ---------------------------------------------------------------------------------------------------------------- sessions


@pytest.fixture
def session(stemmadb_database: Database) -> Iterator[Session]:
    """A session in a workspace made for the test. Its commits are savepoints, and everything is rolled back after the test."""
    with stemmadb_database.engine.connect() as connection:
        outer = connection.begin()
        try:
            with stemmadb_database.session_on(connection, workspace=_insert_workspace(connection)) as session:
                yield session
        finally:
            outer.rollback()


@_async_fixture
async def async_session(stemmadb_database: Database) -> AsyncIterator[AsyncSession]:
    """As ``session``, for an AsyncSession, on a connection of its own."""
    engine = stemmadb_database.async_engine
    try:
        async with engine.connect() as connection:
            outer = await connection.begin()
            try:
                workspace_id = await connection.run_sync(_insert_workspace)
                async with stemmadb_database.async_session_on(connection, workspace=workspace_id) as session:
                    yield session
            finally:
                await outer.rollback()
    finally:
        # The next test has another event loop.
        await engine.dispose()


@pytest.fixture
def workspace(request: pytest.FixtureRequest) -> UUID:
    """The id of the workspace of ``session``; that of ``async_session`` in a test that takes only this one."""
    names = request.fixturenames
    chosen = "async_session" if "async_session" in names and "session" not in names else "session"
    workspace_id: UUID = request.getfixturevalue(chosen).info["stemma"].workspace_id
    return workspace_id


@pytest.fixture
def committed_workspace(committed_db: Database) -> UUID:
    """The id of a workspace in ``committed_db``, committed."""
    return make_workspace(committed_db)


def make_workspace(db: Database, slug: str | None = None) -> UUID:
    """
    Commit a workspace with an owner of its own, who is its member, and return its id.

    Args:
        db: where.
        slug: its slug, free in *db*; None makes one up.
    """
    with db.engine.begin() as connection:
        return _insert_workspace(connection, slug)


def _insert_workspace(connection: Connection, slug: str | None = None) -> UUID:
    from sqlalchemy import text

    unique = uuid4().hex[:12]
    found = connection.execute(
        text(
            """
            WITH owner AS (
                INSERT INTO stemma.users (email, name) VALUES (:email, 'Owner') RETURNING id
            )
            INSERT INTO stemma.workspaces (owner_id, name, slug) SELECT id, :slug, :slug FROM owner
            RETURNING id, owner_id
            """
        ),
        {"email": f"owner-{unique}@example.com", "slug": slug or f"test-{unique}"},
    ).one()
    # Unset again afterwards, so that a session without a workspace does not find one in its transaction.
    connection.execute(text("SELECT set_config('stemma.workspace_id', :id, true)"), {"id": str(found.id)})
    connection.execute(
        text("INSERT INTO stemma.workspace_members (workspace_id, user_id, role) VALUES (:id, :owner_id, 'OWNER')"),
        {"id": found.id, "owner_id": found.owner_id},
    )
    connection.execute(text("SELECT set_config('stemma.workspace_id', '', true)"))
    return UUID(str(found.id))


def _close(db: Database) -> None:
    _close_async_connections(db)
    db.close()


def _close_async_connections(db: Database) -> None:
    """Close the idle connections of async pools: the event loop that opened them is gone, and so is whoever would use them."""
    if db._engines is not None:
        db._engines.close_idle_async()


# ----------------------------------------------------------------------------------------------------------------- helpers


def count_queries() -> contextlib.AbstractContextManager[StatementCount]:
    """
    Count the statements that are sent inside the block, on every engine of the process, sync and async.

    BEGIN, COMMIT, savepoints and settings are none.

        with count_queries() as sent:
            definitions.tree(session, root.id)
        assert sent.count == 1
    """
    from stemmadb.observability import count_statements

    return count_statements()


@contextlib.contextmanager
def assert_max_queries(n: int) -> Iterator[StatementCount]:
    """
    Fail when the block sends more than *n* statements; the message lists them. Counted as by ``count_queries()``.

    Raises:
        AssertionError: there were more.
    """
    with count_queries() as sent:
        yield sent
    if sent.count > n:
        listed = "\n".join(f"{number}. {' '.join(statement.split())}" for number, statement in enumerate(sent.statements, 1))
        raise AssertionError(f"{sent.count} statements were sent, and {n} are allowed:\n{listed}")


def pack_conformance(pack: Pack, db: Database | None = None, *, package: str | None = None) -> list[Finding]:
    """
    Find everything in which a pack does not do as packs do. One test of this kind is all that a new pack needs:

        @pytest.mark.parametrize("pack", packs(), ids=lambda pack: pack.name)
        def test_conformance(pack):
            assert pack_conformance(pack) == []

    Looked at are its tables (names, times, indexed references with a rule for deletions; keys, references, vocabularies and policies of
    tenant tables), its documents (registered, frozen, without a gap in their versions), its query functions (decorated, typed,
    documented, logged under their module's name, named for what they return, and twinned for async), its SQL (columns named, the
    workspace asked for), its errors (pickled), its seeds (applied twice) and its migrations (equal to the entities; up, down and up).

    Args:
        pack: installed or not.
        db: a migrated database that may be lost: the pack's branch is undone in it and made again, and its seeds are applied. None makes
            one on the server of the tests and drops it.
        package: the package of its query modules; None: the one of its entities in which the pack is defined. The twins are in
            ``stemmadb.aio.<pack>`` for a pack of the library, else in ``<package>.aio``.

    Returns:
        What was found, each with a ``code`` that never changes; empty when the pack conforms.

    Raises:
        ConfigurationError: the package cannot be told, or no test database can be had.
    """
    from stemmadb._conformance import findings

    return findings(pack, db, package)


def run_together(n: int, fn: Callable[[int], R]) -> list[R | BaseException]:
    """
    Call ``fn(0)`` to ``fn(n - 1)`` in threads that a barrier lets go at the same moment, and wait for all.

    Returns:
        What each call returned or raised, in the order of the numbers.
    """
    barrier = threading.Barrier(n)
    results: list[R | BaseException] = [RuntimeError("not run")] * n

    def run(number: int) -> None:
        try:
            barrier.wait()
            results[number] = fn(number)
        except BaseException as error:
            results[number] = error

    threads = [threading.Thread(target=run, args=(number,), name=f"together-{number}") for number in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results
