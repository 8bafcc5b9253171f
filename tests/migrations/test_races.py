"""Several migrators, killed migrators, locked tables."""

from __future__ import annotations

import logging
import subprocess
import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text
from tests.migrations.places import TABLES, Place, Revisions

from stemmadb import migrations
from stemmadb.errors import DatabaseUnavailableError, LockTimeoutError, MigrationError
from stemmadb.migrations import _commands, _connection

Migrator = Callable[..., subprocess.Popen[str]]


@pytest.mark.race
@pytest.mark.requirement("TN-062")
def test_eight_processes_at_once_migrate_once(empty: Place, migrator: Migrator) -> None:
    """One of eight migrates, the others wait and find nothing to do; all end well."""
    processes = [migrator(empty) for _ in range(8)]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 8, outputs
    statements = sorted(int(output.split()[-1]) for output in outputs)
    assert statements[-1] > 100
    assert statements[-2] < 100
    assert migrations.status(empty).up_to_date


def _kill_points() -> list[Any]:
    few = (0, 3, 12, 40, 85, 110, 150)
    return [pytest.param(few, id="some"), pytest.param(tuple(range(0, 200, 8)), id="many", marks=pytest.mark.slow)]


@pytest.mark.fault
@pytest.mark.parametrize("points", _kill_points())
def test_a_killed_migration_is_finished_by_the_next(empty: Place, migrator: Migrator, points: tuple[int, ...]) -> None:
    """SIGKILL before a statement: what was not committed is gone, and running again ends at the same schema."""
    migrations.upgrade(empty)
    whole = empty.dump()
    for point in points:
        migrations.downgrade(empty, "base@base", with_dependents=True)
        killed = migrator(empty, "--kill-at", str(point))
        output, _ = killed.communicate(timeout=60)
        assert killed.returncode in (-9, 0), output
        assert len(empty.tables()) in (0, 20, 34, TABLES)
        migrations.upgrade(empty)
        assert empty.dump() == whole, point


@pytest.mark.race
@pytest.mark.requirement("TN-062")
def test_a_migrator_that_waits_too_long_names_the_other(migrated: Place) -> None:
    """Who holds the lock, by process and application name."""
    with _connection.connected(migrated) as other:
        other.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _connection._LOCK_KEY})
        other.commit()
        pid = other.scalar(text("SELECT pg_backend_pid()"))
        with pytest.raises(MigrationError, match=rf"process {pid} \(stemmadb-migrate, .* still migrates this database after 0.2 s"):
            migrations.upgrade(migrated, wait_s=0.2)


@pytest.mark.race
def test_a_locked_table_holds_up_nobody_for_long(
    migrated: Place, revisions: Revisions, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A revision that cannot lock a table gives up, lets the queue behind it through, and succeeds once the table is free."""
    monkeypatch.setattr(_connection, "LOCK_TIMEOUT", "100ms")
    revisions.add("base", "op.execute('ALTER TABLE stemma.users ADD COLUMN nickname text')")
    tried = threading.Event()

    class Told(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "found a table locked" in record.getMessage():
                tried.set()

    handler = Told()
    logging.getLogger("stemmadb.migrations").addHandler(handler)
    try:
        with migrated.connect("stemma_app") as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT 1 FROM stemma.users")
            thread = threading.Thread(target=migrations.upgrade, args=(migrated,))
            thread.start()
            assert tried.wait(20)
            reader.execute("COMMIT")
            thread.join(30)
    finally:
        logging.getLogger("stemmadb.migrations").removeHandler(handler)
    assert migrations.status(migrated).up_to_date
    assert migrated.ask("SELECT 1 FROM pg_attribute WHERE attrelid = 'stemma.users'::regclass AND attname = 'nickname'") == [1]


@pytest.mark.race
def test_a_table_that_stays_locked_ends_the_upgrade(migrated: Place, revisions: Revisions, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the last attempt the error names the oldest open transaction, and nothing of the revision is there."""
    monkeypatch.setattr(_connection, "LOCK_TIMEOUT", "50ms")
    monkeypatch.setattr(_commands, "_ATTEMPTS", 2)
    id = revisions.add("base", "op.execute('ALTER TABLE stemma.users ADD COLUMN nickname text')")
    with migrated.connect("stemma_owner") as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT 1 FROM stemma.users")
        pid = reader.info.backend_pid
        with pytest.raises(LockTimeoutError, match=rf"{id} could not lock a table in 2 attempts.*process {pid}"):
            migrations.upgrade(migrated)
    assert migrations.status(migrated).pending == (id,)


@pytest.mark.fault
def test_a_lost_connection_is_told_apart(migrated: Place, revisions: Revisions) -> None:
    """The server ends the session in the middle: the error says that running again is right, and it is."""
    revisions.add("base", "op.execute('SELECT pg_terminate_backend(pg_backend_pid())')")
    with pytest.raises(DatabaseUnavailableError, match="connection was lost") as lost:
        migrations.upgrade(migrated)
    assert lost.value.safe_to_retry
    assert len(migrated.tables()) == TABLES
