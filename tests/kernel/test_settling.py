"""A COMMIT whose reply was lost is settled by asking the server, and by nothing that a crash makes untrue."""

import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from stemmadb import connect, embedded
from stemmadb._openings import Opening
from stemmadb._settling import LIFE, Life, Mark, mark, took_effect
from stemmadb.accounts import users
from stemmadb.database import Database
from stemmadb.errors import CommitUnknownError
from stemmadb.settings import Settings

XID = text("SELECT pg_current_xact_id()::text")
KEY = text("INSERT INTO stemma.stemma_idempotency_keys (key) VALUES (:key)")


class Crashing:
    """An embedded server of its own, which can be made to crash: one of its processes is killed, and it recovers by itself."""

    def __init__(self, server: embedded.Server, db: Database) -> None:
        self.db = db
        self._conninfo = server._superuser_conninfo("stemmadb")

    def crash(self) -> None:
        """Kill a process in the middle of whatever everybody does, and wait for the recovery."""
        with psycopg.connect(self._conninfo, autocommit=True) as connection:
            os.kill(connection.info.backend_pid, signal.SIGKILL)
            with pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT pg_sleep(30)")
        for _ in range(200):
            try:
                with psycopg.connect(self._conninfo):
                    return
            except psycopg.OperationalError:
                time.sleep(0.05)
        raise AssertionError("the server did not recover")


@pytest.fixture(scope="module")
def crashing() -> Iterator[Crashing]:
    base = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="stemmadb-settling-", dir=base if os.access(base, os.W_OK) else None))
    folder.chmod(0o755)
    with embedded.start(folder / "data") as server, connect(data_dir=folder / "data", settings=Settings(pool_max=12)) as db:
        yield Crashing(server, db)
    shutil.rmtree(folder, ignore_errors=True)


def life_of(db: Database) -> Life:
    """The life that a new connection notes."""
    with db.session() as session:
        life: Life = session.connection().info[LIFE]
        return life


def settle(db: Database, transaction: Mark) -> bool:
    """Ask for two seconds at most."""
    return took_effect(transaction, time.monotonic() + 2, lambda: db._open(None, Opening()), time.sleep)


def committed(db: Database, key: str | None = None) -> str:
    """The id of a transaction that is committed."""
    with db.session() as session:
        if key is not None:
            session.execute(KEY, {"key": key})
        return str(session.scalar(XID))


# ---------------------------------------------------------------------------------------------------------------- one life


def test_a_life_is_noted_with_the_connection(committed_db: Database) -> None:
    """Of all connections the same; what has written nothing has no mark."""
    assert life_of(committed_db).goes_on(life_of(committed_db))
    with committed_db.session() as session:
        assert mark(session, None, None) is None
        users.create(session, "a@example.com")
        found = mark(session, None, None)
        assert found is not None
        assert found.xid == session.scalar(XID)
        assert found.life.goes_on(life_of(committed_db))


def test_within_a_life_the_status_is_the_answer(committed_db: Database) -> None:
    """Committed, rolled back, or in progress until it is known."""
    life = life_of(committed_db)
    assert settle(committed_db, Mark(committed(committed_db), None, life))
    with committed_db.session() as session:
        lost = str(session.scalar(XID))
        with pytest.raises(CommitUnknownError):
            took_effect(Mark(lost, None, life), time.monotonic(), lambda: committed_db._open(None, Opening()), time.sleep)
        session.rollback()
    assert not settle(committed_db, Mark(lost, None, life))


def test_single_processes_of_a_server_may_be_started_anew() -> None:
    """A life ends when none of them is left, or with the postmaster."""
    life = Life.of("now", [1, 2, 3])
    assert life.goes_on(Life.of("now", [3, 4]))
    assert not life.goes_on(Life.of("now", [4, 5]))
    assert not life.goes_on(Life.of("later", [1, 2, 3]))
    assert not life.goes_on(Life.of("now", None))


# ------------------------------------------------------------------------------------------------------------ after a crash


@pytest.mark.fault
def test_after_a_crash_an_id_says_only_what_was_not_committed(crashing: Crashing) -> None:
    """It may be another transaction's by now: committed is no answer, all others are; with a key its row is one."""
    db = crashing.db
    before = life_of(db)
    keyed = committed(db, "mine")
    crashing.crash()
    assert not before.goes_on(life_of(db))
    other, others_key = committed(db), committed(db, "theirs")
    with pytest.raises(CommitUnknownError) as caught:
        settle(db, Mark(other, None, before))
    assert caught.value.transaction_id == other
    assert settle(db, Mark(keyed, "mine", before))
    assert not settle(db, Mark(other, "mine", before))
    assert not settle(db, Mark(other, "never", before))
    assert not settle(db, Mark(other, "theirs", before))
    assert settle(db, Mark(others_key, "theirs", before))
    with db.session() as session:
        running = str(session.scalar(XID))
        assert not settle(db, Mark(running, None, before))
        session.rollback()
    assert not settle(db, Mark(running, None, before))
    assert not settle(db, Mark(str(int(running) + 1000), None, before))


@pytest.mark.fault
@pytest.mark.slow
def test_crashes_under_load_lose_nothing_that_was_acknowledged(crashing: Crashing) -> None:
    """Twelve threads of units of work, six crashes: what was said to be committed is there, once."""
    stop, lock = threading.Event(), threading.Lock()
    acknowledged: list[str] = []

    def work(thread: int) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            address = f"load-{thread}-{number}@example.com"

            def create(session: Session, address: str = address) -> None:
                session.execute(text("INSERT INTO stemma.users (email) VALUES (:email)"), {"email": address})

            try:
                crashing.db.run(create, deadline_s=60)
            except CommitUnknownError:
                continue
            with lock:
                acknowledged.append(address)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for _ in range(6):
        stop.wait(0.4)
        crashing.crash()
    stop.set()
    for thread in threads:
        thread.join(90)
    with crashing.db.session() as session:
        stored = set(session.scalars(text("SELECT email FROM stemma.users WHERE email LIKE 'load-%'")))
    assert len(acknowledged) > 100
    assert set(acknowledged) - stored == set()
