"""db.run: what failed for a reason that passes is repeated, what was committed never is."""

import math
import random
import threading
from uuid import uuid4

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from tests.chaos import DROP, SWALLOW, ChaosProxy

from stemmadb import connect
from stemmadb._settling import backoff
from stemmadb.accounts import users
from stemmadb.accounts.entities import User
from stemmadb.database import Database
from stemmadb.errors import ConflictError, ConnectionLostError, NotFoundError, QueryTimeoutError, SerializationError, ValidationError
from stemmadb.testing import count_queries, run_together

COUNT = text("SELECT failed_login_count FROM stemma.users WHERE id = :id")
SET = text("UPDATE stemma.users SET failed_login_count = :count WHERE id = :id")


@pytest.fixture
def counter(committed_db: Database) -> dict[str, object]:
    """A row with a number in it."""
    with committed_db.session() as session:
        return {"id": users.create(session, f"{uuid4().hex}@example.com").id}


def increment(session: Session, key: dict[str, object]) -> int:
    """Read, then write: wrong unless the transaction is serializable and repeated."""
    count = int(session.scalar(COUNT, key)) + 1
    session.execute(SET, {**key, "count": count})
    return count


def value(db: Database, key: dict[str, object]) -> int:
    """The number."""
    with db.session() as session:
        return int(session.scalar(COUNT, key))


@pytest.mark.race
@pytest.mark.requirement("EC-158")
def test_serialization_failures_are_repeated(committed_db: Database, counter: dict[str, object]) -> None:
    """Four writers of read-modify-write at serializable: the sum is exact."""

    def work(_: int) -> None:
        for _ in range(25):
            committed_db.run(increment, counter, isolation="serializable", retries=100)

    assert run_together(4, work) == [None] * 4
    assert value(committed_db, counter) == 100


@pytest.mark.race
def test_retries_end(committed_db: Database, counter: dict[str, object]) -> None:
    """Without retries somebody is told: SerializationError, and nothing of that transaction is there."""
    meet = threading.Barrier(2)

    def collide(session: Session) -> None:
        count = session.scalar(COUNT, counter)
        meet.wait(10)
        session.execute(SET, {**counter, "count": count + 1})

    results = run_together(2, lambda _: committed_db.run(collide, isolation="serializable", retries=0))
    assert sorted(type(result).__name__ for result in results) == ["NoneType", "SerializationError"]
    assert value(committed_db, counter) == 1


@pytest.mark.race
def test_deadlocks_are_repeated(committed_db: Database) -> None:
    """Two units of work that lock two rows in opposite order both get through."""
    with committed_db.session() as session:
        rows = [users.create(session, f"{uuid4().hex}@example.com").id for _ in range(2)]
    meet = threading.Barrier(2)
    first_time = [True, True]

    def both(session: Session, number: int) -> None:
        for position, row in enumerate(rows if number == 0 else rows[::-1]):
            session.execute(text("UPDATE stemma.users SET failed_login_count = failed_login_count + 1 WHERE id = :id"), {"id": row})
            if position == 0 and first_time[number]:
                first_time[number] = False
                meet.wait(10)

    assert run_together(2, lambda number: committed_db.run(both, number)) == [None, None]
    assert [value(committed_db, {"id": row}) for row in rows] == [2, 2]


@pytest.mark.fault
def test_a_connection_that_breaks_before_commit_is_repeated(committed_db: Database, counter: dict[str, object]) -> None:
    """The backend is killed in the middle, fifty times: every increment is there, once."""
    for _ in range(50):
        killed = []

        def work(session: Session) -> None:
            increment(session, counter)
            if not killed:  # noqa: B023
                killed.append(session.scalar(text("SELECT pg_backend_pid()")))  # noqa: B023
                with committed_db.session() as other:
                    other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": killed[0]})  # noqa: B023
                session.execute(text("SELECT 1"))

        committed_db.run(work)
    assert value(committed_db, counter) == 50


@pytest.mark.fault
def test_a_lost_connection_is_named_when_the_retries_end(committed_db: Database) -> None:
    """Without retries the caller is told that nothing was stored."""

    def die(session: Session) -> None:
        session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    with pytest.raises(ConnectionLostError):
        committed_db.run(die, retries=0)


@pytest.mark.fault
@pytest.mark.parametrize("key", [False, True], ids=["by transaction id", "with a key"])
def test_a_lost_reply_to_commit_is_settled(committed_db: Database, counter: dict[str, object], key: bool) -> None:
    """Of a hundred commits a third are dropped and a third not answered: nothing is lost, nothing is done twice."""
    generator = random.Random(20261120)
    with ChaosProxy(committed_db.url, lambda: generator.choice([None, SWALLOW, DROP])) as proxy:
        with connect(proxy.url.render_as_string(hide_password=False)) as db:
            for number in range(100):
                db.run(increment, counter, retries=50, idempotency_key=f"work {number}" if key else None)
    assert value(committed_db, counter) == 100
    assert {SWALLOW, DROP} <= set(proxy.faults)


@pytest.mark.fault
async def test_the_async_twin_settles_the_same(committed_db: Database, counter: dict[str, object]) -> None:
    """arun: the same code, the same outcome."""
    generator = random.Random(7)

    async def work(session: AsyncSession) -> int:
        return await session.run_sync(increment, counter)

    with ChaosProxy(committed_db.url, lambda: generator.choice([None, SWALLOW, DROP])) as proxy:
        with connect(proxy.url.render_as_string(hide_password=False)) as db:
            for _ in range(40):
                await db.arun(work, retries=50)
    assert value(committed_db, counter) == 40


@pytest.mark.race
def test_an_idempotency_key_runs_once(committed_db: Database, counter: dict[str, object]) -> None:
    """Ten callers of one key: the work is done once, nine are told."""
    results = run_together(10, lambda _: committed_db.run(increment, counter, idempotency_key="once"))
    assert sum(isinstance(result, ConflictError) for result in results) == 9
    assert value(committed_db, counter) == 1


def test_a_key_of_work_that_failed_is_free_again(committed_db: Database, counter: dict[str, object]) -> None:
    """The key is a row of the same transaction: it goes with it."""
    with pytest.raises(ZeroDivisionError):
        committed_db.run(lambda _: 1 / 0, idempotency_key="again")
    assert committed_db.run(increment, counter, idempotency_key="again") == 1


def test_keys_are_kept_for_seven_days(committed_db: Database, owner: Engine) -> None:
    """An older key counts no longer, and the next claims clear old keys away; a younger one stays."""
    for key in ("old", "older", "young"):
        committed_db.run(lambda _: None, idempotency_key=key)
    with owner.begin() as connection:
        connection.execute(text("SET LOCAL row_security = off"))
        connection.execute(text("ALTER TABLE stemma.stemma_idempotency_keys NO FORCE ROW LEVEL SECURITY"))
        connection.execute(text("UPDATE stemma.stemma_idempotency_keys SET created_at = now() - interval '8 days' WHERE key <> 'young'"))
        connection.execute(text("ALTER TABLE stemma.stemma_idempotency_keys FORCE ROW LEVEL SECURITY"))
    assert committed_db.run(lambda _: "again", idempotency_key="old") == "again"
    with committed_db.session() as session:
        assert set(session.scalars(text("SELECT key FROM stemma.stemma_idempotency_keys"))) == {"old", "young"}
    for key in ("old", "young"):
        with pytest.raises(ConflictError):
            committed_db.run(lambda _: None, idempotency_key=key)


def test_keys_are_of_a_workspace(committed_db: Database, committed_workspace: object) -> None:
    """The same key inside a workspace and outside are two."""
    assert committed_db.run(lambda _: 1, idempotency_key="k") == 1
    assert committed_db.run(lambda _: 2, idempotency_key="k", workspace=committed_workspace) == 2  # type: ignore[arg-type]


def test_other_errors_are_not_repeated(committed_db: Database) -> None:
    """A refusal is final: the function ran once."""
    runs = []

    def refuse(session: Session) -> None:
        runs.append(1)
        users.get(session, uuid4())

    with pytest.raises(NotFoundError):
        committed_db.run(refuse)
    assert len(runs) == 1


def test_an_error_of_the_caller_keeps_its_cause(committed_db: Database) -> None:
    """What the function raises comes out as it was raised."""

    def fail(_: Session) -> None:
        try:
            _ = 1 / 0
        except ZeroDivisionError as cause:
            raise LookupError("mine") from cause

    with pytest.raises(LookupError, match="mine") as caught:
        committed_db.run(fail)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.fault
def test_a_deadline_bounds_statements_and_repetitions(committed_db: Database) -> None:
    """A statement that would take longer is ended; no repetition starts after the deadline."""
    with pytest.raises((QueryTimeoutError, SerializationError)):
        committed_db.run(lambda session: session.execute(text("SELECT pg_sleep(30)")), deadline_s=0.2)


def test_work_that_committed_by_itself_is_not_repeated(committed_db: Database, counter: dict[str, object]) -> None:
    """A function that breaks the rule is not run twice: the caller is told of the lost connection, and what it stored is there once."""
    runs = []

    def commit_and_die(session: Session) -> None:
        runs.append(increment(session, counter))
        session.commit()
        session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    with pytest.raises(ConnectionLostError):
        committed_db.run(commit_and_die)
    assert len(runs) == 1
    assert value(committed_db, counter) == 1


async def test_each_kind_of_function_has_its_own(committed_db: Database) -> None:
    """run() would not run a coroutine function, arun() could not await anything else: nothing is stored, and it says so."""

    async def later(session: AsyncSession) -> None:
        await session.run_sync(users.create, "later@example.com")

    def now(session: AsyncSession) -> None:
        session.add(User(email="now@example.com"))

    with pytest.raises(ValidationError, match="arun"):
        committed_db.run(later)
    with pytest.raises(ValidationError, match=r"use run\(\)"):
        await committed_db.arun(now)  # type: ignore[arg-type]
    with committed_db.session() as session:
        assert users.list_all(session).items == []


@pytest.mark.offline
def test_pauses_stay_below_two_seconds() -> None:
    """However often work was repeated."""
    assert all(0 < backoff(attempt, None) < 2 for attempt in (0, 1, 10, 100, 5000))


@pytest.mark.parametrize(
    "options",
    [
        *({"retries": wrong} for wrong in (-1, True, 1.5, "3", None)),
        *({"deadline_s": wrong} for wrong in (0, -1, math.nan, math.inf, 1e12, "1", True)),
        *({"idempotency_key": wrong} for wrong in (" ", "", "x" * 201, 5, b"x", "a\0b", "\ud800")),
    ],
    ids=repr,
)
def test_options_are_checked_before_anything_is_sent(db: Database, options: dict[str, object]) -> None:
    """A malformed option is a ValidationError that names it."""
    with count_queries() as sent, pytest.raises(ValidationError) as caught:
        db.run(lambda _: None, **options)  # type: ignore[arg-type]
    assert caught.value.field in options
    assert sent.count == 0
