"""An upgrade of documents that is killed again and again: no document is lost, half written, or written twice."""

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text
from tests.kernel import killed_upgrade
from tests.kernel.document_releases import NewNote, changes, drop_tables, make_tables

from stemmadb.database import Database

ROOT = Path(__file__).parents[2]
# STEMMADB_TEST_KILLS=200 for the figure that the documentation names.
KILLS = int(os.environ.get("STEMMADB_TEST_KILLS", "6"))
BATCH = 5
# A process gets as far as this many batches, the first and the last included, before it is killed.
MOST_BATCHES = 4
ROWS = KILLS * BATCH * MOST_BATCHES + 20


def old(number: int) -> dict[str, Any]:
    """Return a document of version 0, 1 or 2, each of its own."""
    return [
        {"text": f"text {number}", "x": {"kept": number}},
        {"schema_version": 1, "text": f"text {number}", "tag": f"tag {number}"},
        {"schema_version": 2, "text": f"text {number}", "tags": ["a", f"b{number}"], "weights": {"a": number}},
    ][number % 3]


@pytest.fixture
def table(committed_db: Database, owner: Engine) -> Iterator[Engine]:
    """The table of the two releases, full of old rows and, among them, of rows that are not to be touched."""
    make_tables(owner)
    rows = [{"id": id, "note": json.dumps(old(id))} for id in range(ROWS)]
    rows += [{"id": -1, "note": '{"schema_version": 4}'}, {"id": -2, "note": '{"text": 7}'}]
    with owner.begin() as connection:
        connection.execute(
            text("INSERT INTO probe_releases.notes (id, note, updated_at) VALUES (:id, CAST(:note AS jsonb), '2001-01-01')"), rows
        )
    yield owner
    drop_tables(owner)


def stored(table: Engine) -> dict[int, tuple[Any, ...]]:
    """Every row: its document, version and time, by its id."""
    with table.connect() as connection:
        rows = connection.execute(text("SELECT id, note, version, extract(year FROM updated_at) FROM probe_releases.notes"))
        return {row[0]: tuple(row[1:]) for row in rows}


def start(db: Database) -> subprocess.Popen[str]:
    """Start an upgrade as a process of its own."""
    url = db.url.render_as_string(hide_password=False)
    command = [sys.executable, "-W", "error", killed_upgrade.__file__, url, str(BATCH)]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True)


@pytest.mark.fault
@pytest.mark.slow
@pytest.mark.timeout(120 + 5 * KILLS)
def test_an_upgrade_that_is_killed_loses_nothing(committed_db: Database, table: Engine) -> None:
    """Killed at random moments of random batches and started again, it leaves each row old or new, and writes each exactly once."""
    chance = random.Random(KILLS)
    expected = {id: (NewNote.load(old(id)).dump(), 1, 2001) for id in range(ROWS)}
    untouched = {-1: ({"schema_version": 4}, 1, 2001), -2: ({"text": 7}, 1, 2001)}
    unfinished = 0
    for _ in range(KILLS):
        process = start(committed_db)
        assert process.stdout is not None
        for _ in range(chance.randint(1, MOST_BATCHES)):
            said = process.stdout.readline()
        # A batch takes some milliseconds: the next one is under way.
        time.sleep(chance.uniform(0, 0.006))
        process.kill()
        assert process.wait() == -9
        process.stdout.close()
        unfinished += "left" not in said
        found = stored(table)
        assert {id: found[id] for id in untouched} == untouched
        assert [id for id in range(ROWS) if found[id] not in (expected[id], (old(id), 1, 2001))] == []
    assert unfinished == KILLS
    assert Counter(row[0].get("schema_version") == 3 for id, row in found.items() if id >= 0)[False] > 0
    # The server may still be busy with the last batch of a dead client.
    for _ in range(50):
        out, _ = start(committed_db).communicate(timeout=60)
        if out.splitlines()[-1] == "left 0":
            break
    assert stored(table) == {**expected, **untouched}
    with table.connect() as connection:
        written = changes(connection)
    assert [change[0] for change in written] == list(range(ROWS))
    assert {change[3] for change in written} == {3}
