"""Pools lose no connection: not to closed databases, cancelled tasks, ended event loops or forks; and they say who holds the last one."""

import asyncio
import gc
import os
import threading
from collections.abc import Iterator
from uuid import UUID

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.ext.asyncio import AsyncSession

from stemmadb import connect
from stemmadb._loops import PerLoop
from stemmadb.accounts import users
from stemmadb.aio.accounts import users as ausers
from stemmadb.database import Database
from stemmadb.errors import PoolTimeoutError
from stemmadb.settings import Settings
from stemmadb.testing import make_workspace, run_together

# Not the server's own, which have no user: autovacuum looks in as well.
OPEN = text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND usename IS NOT NULL")
ONE = text("SELECT 1")


def second(db: Database, **settings: object) -> Database:
    """A Database of its own, with a pool of its own."""
    return connect(db.url.render_as_string(hide_password=False), settings=Settings(**settings))


def open_connections(owner: Engine, expected: int | None = None) -> int:
    """How many connections the server sees; it takes a moment to notice that one is gone."""
    pause = threading.Event()
    for _ in range(100):
        with owner.connect() as connection:
            found: int = connection.scalar(OPEN)
        if expected in (None, found):
            break
        pause.wait(0.05)
    return found


async def all_returned(db: Database) -> None:
    """Wait until no connection is in use: a session that is closed when its task is cancelled is closed by the loop."""
    for _ in range(5000):
        if not db.pool_stats().in_use:
            break
        await asyncio.sleep(0.001)
    assert db.pool_stats().in_use == 0


@pytest.fixture
def narrow(committed_db: Database) -> Iterator[Database]:
    """A Database with two connections at most."""
    with second(committed_db, pool_min=1, pool_max=2, pool_timeout_s=0.1) as db:
        yield db


# --------------------------------------------------------------------------------------------------------- when none is free


@pytest.mark.fault
@pytest.mark.requirement("EC-243")
def test_an_exhausted_pool_says_who_holds_it(narrow: Database) -> None:
    """How many there are, in use and waited for, and where in the application the oldest was taken."""

    def hold(session: object) -> None:
        session.execute(ONE)  # type: ignore[attr-defined]

    with narrow.session() as one, narrow.session() as two:
        hold(one)
        two.execute(ONE)
        with pytest.raises(PoolTimeoutError) as caught, narrow.session() as three:
            three.execute(ONE)
    error = caught.value
    assert (error.size, error.in_use, error.waiting) == (2, 2, 1)
    assert error.oldest_holder is not None
    assert __file__ in error.oldest_holder
    assert error.oldest_holder.endswith("in hold")
    assert "2 of 2 in use" in str(error)


@pytest.mark.fault
async def test_an_exhausted_async_pool_says_who_holds_it(narrow: Database) -> None:
    """The holder is found behind the greenlet that the driver runs in."""

    async def hold(session: AsyncSession) -> None:
        await session.execute(ONE)

    async with narrow.async_session() as one, narrow.async_session() as two:
        await hold(one)
        await two.execute(ONE)
        with pytest.raises(PoolTimeoutError) as caught:
            async with narrow.async_session() as three:
                await three.execute(ONE)
    assert caught.value.in_use == 2
    assert str(caught.value.oldest_holder).endswith("in hold")
    assert narrow.pool_stats().in_use == 0


@pytest.mark.race
def test_waiting_callers_are_counted(narrow: Database) -> None:
    """Ten threads that all time out were told of one another."""
    with narrow.session() as one, narrow.session() as two:
        one.execute(ONE)
        two.execute(ONE)
        results = run_together(10, lambda _: narrow.run(lambda session: session.execute(ONE), retries=0))
    assert {type(result) for result in results} == {PoolTimeoutError}
    assert max(result.waiting for result in results) > 1  # type: ignore[union-attr]


# -------------------------------------------------------------------------------------------------------------------- closing


def test_a_session_outlives_its_database_and_leaves_nothing(committed_db: Database, owner: Engine) -> None:
    """close() while a session is open: it goes on, and its connection is closed with it, not left to the garbage collector."""
    before = open_connections(owner)
    db = second(committed_db, pool_max=3)
    with db.session() as session:
        session.execute(ONE)
        db.close()
        assert session.scalar(ONE) == 1
    assert open_connections(owner, before) == before


async def test_an_async_session_outlives_its_database_and_leaves_nothing(committed_db: Database, owner: Engine) -> None:
    """The same on the async driver."""
    before = open_connections(owner)
    db = second(committed_db, pool_max=3)
    async with db.async_session() as session:
        await session.execute(ONE)
        db.close()
        assert await session.scalar(ONE) == 1
    assert open_connections(owner, before) == before


def test_databases_of_other_settings_do_not_share(committed_db: Database) -> None:
    """Whatever an engine depends on tells two of them apart."""
    with second(committed_db, connect_timeout_ms=1000) as first, second(committed_db, connect_timeout_ms=9000) as other:
        assert first.engine is not other.engine
        with second(committed_db, connect_timeout_ms=1000) as same:
            assert same.engine is first.engine


def test_the_url_is_nearer_than_the_settings(committed_db: Database) -> None:
    """application_name and time-outs that stand in the URL hold."""
    with connect(f"{committed_db.url.render_as_string(hide_password=False)}&application_name=web&connect_timeout=7") as db:
        with db.session() as session:
            assert session.scalar(text("SHOW application_name")) == "web"
        assert "connect_timeout" not in str(db.engine.dialect.create_connect_args(committed_db.url))
    with committed_db.session() as session:
        assert session.scalar(text("SHOW application_name")) == "stemmadb"


# ------------------------------------------------------------------------------------------------------------------ event loops


async def busy(db: Database, callers: int = 8) -> list[int]:
    """More callers than connections, so that some wait."""

    async def one() -> int:
        async with db.async_session() as session:
            return int(await session.scalar(text("SELECT pg_backend_pid() FROM pg_sleep(0.002)")))

    return await asyncio.gather(*(one() for _ in range(callers)))


@pytest.mark.requirement("TN-005", "TN-051")
def test_event_loops_follow_one_another(committed_db: Database, owner: Engine) -> None:
    """asyncio.run() again and again on one Database, with callers that wait: each works, and an ended loop keeps no connection."""
    before = open_connections(owner)
    with second(committed_db, pool_min=2, pool_max=2) as db:
        for _ in range(4):
            assert len(asyncio.run(busy(db))) == 8
            assert db.pool_stats().in_use == 0
        assert open_connections(owner, before + 2) == before + 2
    assert open_connections(owner, before) == before


@pytest.mark.race
def test_event_loops_of_threads_run_side_by_side(committed_db: Database) -> None:
    """Three threads with a loop each, on one Database."""
    with second(committed_db, pool_min=1, pool_max=2) as db:
        results = run_together(3, lambda _: asyncio.run(busy(db)))
        assert [len(result) for result in results] == [8, 8, 8]  # type: ignore[arg-type]


async def test_the_async_engine_of_a_loop_is_one(committed_db: Database) -> None:
    """Within a loop it is the same object; what was made before any loop ran is that of the first loop."""
    with second(committed_db, pool_max=3) as db:
        made = await asyncio.to_thread(lambda: db.async_engine)
        assert db.async_engine is made
        assert db.async_engine is made
        assert await asyncio.to_thread(asyncio.run, engine_of(db)) is not made


async def engine_of(db: Database) -> object:
    """The async engine of the loop that runs this."""
    return db.async_engine


@pytest.mark.offline
def test_what_belongs_to_an_ended_loop_is_closed() -> None:
    """Once, and when another loop asks."""
    closed: list[object] = []
    each = PerLoop(object, closed.append)

    async def get() -> object:
        return each.get()

    first, second_one = asyncio.run(get()), asyncio.run(get())
    assert first is not second_one
    assert closed == [first]
    assert each.all() == [second_one]


@pytest.mark.fault
@pytest.mark.requirement("EC-189")
def test_a_cancelled_connection_attempt_leaves_no_connection(committed_db: Database, owner: Engine) -> None:
    """Tasks cancelled at every moment of connecting: what the server accepted meanwhile is closed, without a garbage collection."""
    before = open_connections(owner)

    async def cancelled(delay: int) -> None:
        with second(committed_db, pool_min=1, pool_max=2, slow_query_ms=1000 + delay) as db:
            task = asyncio.create_task(busy(db, 2))
            await asyncio.sleep(delay / 2000)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await all_returned(db)

    async def all_of_them() -> None:
        for delay in range(24):
            await cancelled(delay % 8)
        # What was accepted too late is closed by the loop.
        await asyncio.sleep(0.2)

    gc.collect()
    gc.disable()
    try:
        asyncio.run(all_of_them())
        assert open_connections(owner, before) == before
    finally:
        gc.enable()


@pytest.mark.fault
@pytest.mark.requirement("EC-249")
async def test_cancellation_at_any_await_returns_the_connection(committed_db: Database) -> None:
    """Sessions and units of work, cancelled once or twice at a hundred moments: nothing of them is stored, no connection is lost."""
    make_workspace(committed_db, "lab")

    async def session(number: int) -> None:
        async with committed_db.async_session("lab") as open_session:
            await ausers.create(open_session, f"s{number}@example.com")
            await open_session.execute(text("SELECT pg_sleep(30)"))

    async def unit(number: int) -> None:
        async def work(open_session: AsyncSession) -> None:
            await ausers.create(open_session, f"u{number}@example.com")
            await open_session.execute(text("SELECT pg_sleep(30)"))

        await committed_db.arun(work, workspace="lab")

    for number in range(120):
        task = asyncio.create_task((session if number % 2 else unit)(number))
        await asyncio.sleep((number % 30) / 3000)
        task.cancel()
        if number % 3 == 0:
            await asyncio.sleep(0)
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await all_returned(committed_db)
    async with committed_db.async_session() as open_session:
        assert [user.email for user in (await ausers.list_all(open_session)).items if user.name is None] == []


# ------------------------------------------------------------------------------------------------------------------------ forks


@pytest.mark.fault
@pytest.mark.requirement("TN-052")
def test_a_child_does_not_wait_for_locks_of_its_parents_threads(committed_db: Database) -> None:
    """A fork while other threads of the parent are opening databases and engines: the child works at once."""
    from stemmadb import _engines

    engines = committed_db._own
    url = committed_db.url.render_as_string(hide_password=False)
    read, write = os.pipe()
    with _engines._registry_lock, engines._lock, engines._asyncs._lock:
        child = os.fork()
        if child == 0:
            try:
                with connect(url, settings=Settings(pool_max=3)) as other, other.session() as session:
                    os.write(write, str(session.scalar(ONE)).encode())
                with committed_db.session() as session:
                    os.write(write, str(session.scalar(ONE)).encode())
                os.write(write, str(len(asyncio.run(busy(committed_db, 1)))).encode())
            finally:
                os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        thread = threading.Thread(target=lambda: seen.append(answer.read()))
        seen: list[str] = []
        thread.start()
        thread.join(20)
        if not seen:
            os.kill(child, 9)
            thread.join()
    os.waitpid(child, 0)
    assert seen == ["111"]


def test_ids_of_workspaces_are_uuids(committed_db: Database) -> None:
    """What is remembered of a workspace is its id, and users are read in it."""
    made = make_workspace(committed_db, "lab")
    for _ in range(2):
        with committed_db.session("lab") as session:
            assert session.info["stemma"].workspace_id == made
            assert isinstance(session.info["stemma"].workspace_id, UUID)
            assert users.find_by_email(session, "nobody@example.com") is None
