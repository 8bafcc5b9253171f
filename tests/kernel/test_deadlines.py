"""A deadline ends every wait: for a reply that never comes, for statements that add up, for a free connection; or waits for a server."""

import asyncio
import threading
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from tests.chaos import ChaosProxy

from stemmadb import _deadlines, connect, use
from stemmadb.accounts import users
from stemmadb.database import Database
from stemmadb.errors import CommitUnknownError, DatabaseUnavailableError, PoolTimeoutError, QueryTimeoutError, ValidationError
from stemmadb.settings import Settings
from stemmadb.testing import make_workspace

ONE = text("SELECT 1")
DEADLINE_S = 0.4
SOON_S = DEADLINE_S + 0.5


@pytest.fixture
def proxy(committed_db: Database) -> Iterator[ChaosProxy]:
    """A network between client and server that can be silenced."""
    with ChaosProxy(committed_db.url) as made:
        yield made


@pytest.fixture
def far(proxy: ChaosProxy) -> Iterator[Database]:
    """A Database behind the proxy, with a connection in its pool."""
    with connect(proxy.url.render_as_string(hide_password=False), settings=Settings(pool_max=2, connect_timeout_ms=1000)) as db:
        with db.session() as session:
            assert users.find_by_email(session, "a@example.com") is None
        yield db


@pytest.fixture
def stopwatch() -> Iterator[None]:
    """Nothing takes longer than the deadline and half a second."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < SOON_S


# ----------------------------------------------------------------------------------------------------- a network that is silent


@pytest.mark.fault
@pytest.mark.requirement("EC-180")
def test_a_silent_network_before_the_work(far: Database, proxy: ChaosProxy, stopwatch: None) -> None:
    """The connection of the pool looks alive and answers nothing: QueryTimeoutError at the deadline, and no connection is lost."""
    proxy.is_silent.set()
    with pytest.raises(QueryTimeoutError) as caught:
        far.run(lambda session: session.execute(ONE), deadline_s=DEADLINE_S)
    assert caught.value.kind == "deadline"
    assert far.pool_stats().in_use == 0


@pytest.mark.fault
@pytest.mark.parametrize("again", range(3))
def test_a_silent_network_within_the_work(far: Database, proxy: ChaosProxy, stopwatch: None, again: int) -> None:
    """The same in the middle, and the pool works again as soon as the network does."""

    def work(session: Session) -> None:
        session.execute(ONE)
        proxy.is_silent.set()
        session.execute(ONE)

    with pytest.raises(QueryTimeoutError, match="deadline"):
        far.run(work, deadline_s=DEADLINE_S)
    proxy.is_silent.clear()
    assert far.run(lambda session: session.scalar(ONE)) == 1


@pytest.mark.fault
def test_a_silent_network_at_commit(far: Database, proxy: ChaosProxy) -> None:
    """Nobody can be asked what came of it: CommitUnknownError with the transaction's id, soon after the deadline."""

    def work(session: Session) -> None:
        users.create(session, "a@example.com")
        event.listen(session, "before_commit", lambda _: proxy.is_silent.set())

    began = time.monotonic()
    with pytest.raises(CommitUnknownError) as caught:
        far.run(work, deadline_s=DEADLINE_S)
    # A new connection is tried for two seconds at least.
    assert time.monotonic() - began < SOON_S + 2.5
    assert caught.value.transaction_id is not None


@pytest.mark.fault
async def test_a_silent_network_in_an_event_loop(far: Database, proxy: ChaosProxy, stopwatch: None) -> None:
    """arun: the wait of the task ends, and so does that of its connection."""

    async def work(session: AsyncSession) -> None:
        await session.execute(ONE)
        proxy.is_silent.set()
        await session.execute(ONE)

    with pytest.raises(QueryTimeoutError) as caught:
        await far.arun(work, deadline_s=DEADLINE_S)
    assert caught.value.kind == "deadline"
    assert far.pool_stats().in_use == 0


@pytest.mark.fault
@pytest.mark.requirement("EC-035")
def test_health_is_told_in_time(far: Database, proxy: ChaosProxy) -> None:
    """A liveness probe is answered when the database is not, after the time that a connection may take."""
    proxy.is_silent.set()
    began = time.monotonic()
    health = far.health()
    assert not health.ok
    assert time.monotonic() - began < 2


@pytest.mark.fault
def test_a_silent_server_is_not_ready(far: Database, proxy: ChaosProxy, stopwatch: None) -> None:
    """A connection that is open already proves nothing."""
    proxy.is_silent.set()
    with pytest.raises(DatabaseUnavailableError, match=r"127\.0\.0\.1"):
        far.wait_until_ready(timedelta(seconds=DEADLINE_S))


@pytest.mark.offline
@pytest.mark.parametrize("timeout", [3, None, "1s"])
def test_ready_takes_a_timedelta(timeout: object) -> None:
    """Anything else is refused by name."""
    with connect("postgresql://u@127.0.0.1:9/x") as db, pytest.raises(ValidationError) as caught:
        db.wait_until_ready(timeout)  # type: ignore[arg-type]
    assert caught.value.field == "timeout"


# ---------------------------------------------------------------------------------------------------------- what takes too long


@pytest.mark.fault
def test_statements_add_up(committed_db: Database, stopwatch: None) -> None:
    """Each alone is within the time; together they are not, and nothing of them is stored."""

    def work(session: Session) -> None:
        users.create(session, "slow@example.com")
        for _ in range(20):
            session.execute(text("SELECT pg_sleep(0.1)"))

    with pytest.raises(QueryTimeoutError) as caught:
        committed_db.run(work, deadline_s=DEADLINE_S)
    assert caught.value.kind == "deadline"
    with committed_db.session() as session:
        assert users.find_by_email(session, "slow@example.com") is None


@pytest.mark.fault
def test_one_long_statement_is_ended_by_the_server(committed_db: Database, stopwatch: None) -> None:
    """Its connection stays in the pool, and the error says that it was the deadline."""
    pid: list[int] = []

    def work(session: Session) -> None:
        pid.append(session.scalar(text("SELECT pg_backend_pid()")))
        session.execute(text("SELECT pg_sleep(30)"))

    with pytest.raises(QueryTimeoutError) as caught:
        committed_db.run(work, deadline_s=DEADLINE_S)
    assert (caught.value.kind, caught.value.sqlstate) == ("deadline", "57014")
    with committed_db.session() as session:
        assert session.scalar(text("SELECT count(*) FROM pg_stat_activity WHERE pid = :pid"), {"pid": pid[0]}) == 1


@pytest.mark.fault
def test_a_full_pool_is_not_waited_for_beyond_the_deadline(committed_db: Database, stopwatch: None) -> None:
    """The pool would let the caller wait for five seconds."""
    url = committed_db.url.render_as_string(hide_password=False)
    with connect(url, settings=Settings(pool_max=2, pool_timeout_s=5)) as db, db.session() as one, db.session() as two:
        one.execute(ONE)
        two.execute(ONE)
        with pytest.raises(PoolTimeoutError):
            db.run(lambda session: session.execute(ONE), deadline_s=DEADLINE_S)


def test_work_that_is_in_time_is_not_disturbed(committed_db: Database) -> None:
    """The connection is used on after the deadline has passed."""
    with connect(committed_db.url.render_as_string(hide_password=False), settings=Settings(pool_max=2, slow_query_ms=1)) as db:
        seen = [db.run(lambda session: session.scalar(text("SELECT pg_backend_pid()")), deadline_s=0.3)]
        with db.session() as session:
            seen.append(session.scalar(text("SELECT pg_backend_pid() FROM pg_sleep(0.6)")))
            assert session.scalar(text("SHOW statement_timeout")) == "0"
    assert seen[0] == seen[1]


async def test_a_task_that_outlives_the_work_has_no_deadline(committed_db: Database) -> None:
    """What was started inside goes on after the unit of work has ended."""
    tasks: list[asyncio.Task[int]] = []

    async def later() -> int:
        await asyncio.sleep(0.4)
        async with committed_db.async_session() as session:
            return int(await session.scalar(ONE))

    async def work(session: AsyncSession) -> None:
        await session.execute(ONE)
        tasks.append(asyncio.create_task(later()))

    await committed_db.arun(work, deadline_s=0.3)
    assert await tasks[0] == 1


def test_the_nearest_deadline_holds(committed_db: Database, stopwatch: None) -> None:
    """Work inside of work cannot take longer than the outer one allows."""

    def outer(_: Session) -> None:
        committed_db.run(lambda session: session.execute(text("SELECT pg_sleep(30)")), deadline_s=30)

    with pytest.raises(QueryTimeoutError):
        committed_db.run(outer, deadline_s=DEADLINE_S)
    assert _deadlines.current() is None


@pytest.mark.race
async def test_deadlines_of_many_tasks_take_no_threads(committed_db: Database) -> None:
    """A thousand units of work at once, each with its own: the event loop keeps the time."""
    seen: list[int] = []

    async def work(session: AsyncSession) -> None:
        seen.append(threading.active_count())
        await session.execute(ONE)

    before = threading.active_count()
    with connect(committed_db.url.render_as_string(hide_password=False), settings=Settings(pool_max=5, pool_timeout_s=60)) as db:
        await asyncio.gather(*(db.arun(work, deadline_s=60) for _ in range(1000)))
    assert max(seen) == before


# -------------------------------------------------------------------------------------------------------- a server that is away


@pytest.mark.fault
@pytest.mark.requirement("EC-035")
@pytest.mark.parametrize("workspace", [None, "lab"])
def test_a_server_that_is_away_is_waited_for_until_the_deadline(committed_db: Database, workspace: str | None) -> None:
    """Longer than the retries alone would, for the look-up of the workspace as for the work, which is done when the server comes."""
    make_workspace(committed_db, "lab")
    with ChaosProxy(committed_db.url) as proxy:
        url, port = proxy.url, int(str(proxy.url.port))
    back: list[ChaosProxy] = []
    timer = threading.Timer(1.5, lambda: back.append(ChaosProxy(committed_db.url, port=port)))
    timer.start()
    with connect(url.render_as_string(hide_password=False)) as db:
        with pytest.raises(DatabaseUnavailableError):
            db.run(users.create, "late@example.com", retries=0, workspace=workspace)
        assert db.run(users.create, "late@example.com", retries=0, deadline_s=20, workspace=workspace).email == "late@example.com"
    timer.join()
    back[0].close()


@pytest.mark.fault
def test_a_server_that_stays_away_is_named_as_the_cause() -> None:
    """QueryTimeoutError at the deadline, and why."""
    with connect("postgresql://u:hunter2@127.0.0.1:9/x") as db, pytest.raises(QueryTimeoutError) as caught:
        db.run(lambda session: session.execute(ONE), deadline_s=DEADLINE_S)
    assert isinstance(caught.value.__cause__, DatabaseUnavailableError)
    assert "refused" in str(caught.value.__cause__)
    assert "hunter2" not in str(caught.value.__cause__)


# ---------------------------------------------------------------------------------------------------------------- a host's engine


@pytest.mark.fault
def test_a_deadline_on_a_hosts_engine(proxy: ChaosProxy) -> None:
    """What is asked of the Database holds for its transactions there as well."""
    engine = create_engine(proxy.url)
    host = use(engine)
    assert host.run(lambda session: session.scalar(ONE)) == 1
    assert host.run(lambda session: session.scalar(text("SHOW statement_timeout")), deadline_s=30) != "0"

    def work(session: Session) -> None:
        session.execute(ONE)
        proxy.is_silent.set()
        session.execute(ONE)

    began = time.monotonic()
    with pytest.raises(QueryTimeoutError):
        host.run(work, deadline_s=DEADLINE_S)
    assert time.monotonic() - began < SOON_S
    engine.dispose()
