"""Removing a run in short transactions: nothing stays, whoever kills it, and nobody works on what is being removed."""

import json
import threading
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session
from tests.evaluation.run_setups import failure, make_run, slots_of, success
from tests.test_cli import call

from stemmadb.aio.evaluation import purging as async_purging
from stemmadb.database import Database
from stemmadb.entity import uuid7
from stemmadb.errors import NotFoundError, ValidationError
from stemmadb.evaluation import purging, runs, transcripts
from stemmadb.evaluation.data import OutcomeKind, RunStatus, ScoreCreate, SlotClaim, TranscriptCreate
from stemmadb.evaluation.documents import TranscriptContent
from stemmadb.evaluation.purging import PurgeReport
from stemmadb.testing import count_queries, make_workspace

_ROWS = """
SELECT (SELECT count(*) FROM stemma.run_slots WHERE run_id = :id), (SELECT count(*) FROM stemma.transcripts WHERE run_id = :id),
       (SELECT count(*) FROM stemma.run_scenario_selection WHERE run_id = :id),
       (SELECT count(*) FROM stemma.scores AS score JOIN stemma.transcripts AS it ON it.id = score.transcript_id WHERE it.run_id = :id),
       (SELECT count(*) FROM stemma.runs WHERE id = :id)
"""


class Killed(BaseException):
    """What comes between two batches."""


def rows_of(db: Database, workspace: UUID, run_id: UUID) -> tuple[int, ...]:
    with db.session(workspace) as session:
        return tuple(session.execute(text(_ROWS), {"id": run_id}).one())


def make_large(db: Database, workspace: UUID) -> UUID:
    """Make a run of 7 slots: 5 with transcripts, 2 with a score, one failed and one still running; and a transcript of none."""
    with db.session(workspace) as session:
        run_id = make_run(session, scenario_count=7).id
        claims = runs.claim_slots(session, run_id, worker="w", count=7)
        score = ScoreCreate(annotator_kind="RULE", annotator="length", value=1.0)
        outcomes = [success(claims[0], score), success(claims[1], score), *map(success, claims[2:5]), failure(claims[5])]
        runs.record_outcomes(session, outcomes)
        transcripts.add(session, run_id, TranscriptCreate(model="other", content=TranscriptContent(turns=())))
    return run_id


def test_a_purge_removes_everything(committed_db: Database, committed_workspace: UUID) -> None:
    """Slots, transcripts, scores and selection go in batches, then the run; another run stays. What is gone is not found."""
    run_id, other = (make_large(committed_db, committed_workspace) for _ in range(2))
    told: list[PurgeReport] = []
    with count_queries() as sent:
        report = purging.purge_run(committed_db, run_id, workspace=committed_workspace, batch=3, on_progress=told.append)
    assert (report.run_id, report.slots, report.transcripts, report.selected) == (run_id, 7, 6, 7)
    assert [one.slots for one in told] == [3, 6, 7, 7, 7, 7, 7, 7]
    # Three batches of each table, of which the last one of transcripts finds that there are no more, and the run.
    assert sum("DELETE" in statement for statement in sent.statements) == 10
    assert rows_of(committed_db, committed_workspace, run_id) == (0, 0, 0, 0, 0)
    assert rows_of(committed_db, committed_workspace, other) == (7, 6, 7, 2, 1)
    with pytest.raises(NotFoundError):
        purging.purge_run(committed_db, run_id, workspace=committed_workspace)


def test_a_killed_purge_goes_on(committed_db: Database, committed_workspace: UUID) -> None:
    """Wherever it is killed, what went stays gone, the run says what it is, and the next call removes the rest."""

    def kill(at: int) -> Callable[[PurgeReport], None]:
        def tell(report: PurgeReport) -> None:
            if report.slots + report.transcripts + report.selected >= at:
                raise Killed

        return tell

    for at in range(2, 21, 6):
        run_id = make_large(committed_db, committed_workspace)
        with pytest.raises(Killed):
            purging.purge_run(committed_db, run_id, workspace=committed_workspace, batch=2, on_progress=kill(at))
        slots, dialogues, selected, _, there = rows_of(committed_db, committed_workspace, run_id)
        assert (20 - at - 1 <= slots + dialogues + selected <= 20 - at, there) == (True, 1)
        with committed_db.session(committed_workspace) as session:
            run = runs.get(session, run_id)
            assert (run.status, run.error_code) == (RunStatus.CANCELLED, "purged")
        rest = purging.purge_run(committed_db, run_id, workspace=committed_workspace, batch=2)
        assert rest.slots + rest.transcripts + rest.selected == slots + dialogues + selected
        assert rows_of(committed_db, committed_workspace, run_id) == (0, 0, 0, 0, 0)


def test_nobody_works_on_what_is_purged(committed_db: Database, committed_workspace: UUID) -> None:
    """Between batches others write as ever; workers get nothing of this run, and what they bring is LEASE_LOST."""
    run_id, other = (make_large(committed_db, committed_workspace) for _ in range(2))
    with committed_db.session(committed_workspace) as session:
        key = next(slot for slot in slots_of(session, run_id) if slot.status == "RUNNING")
        claim = SlotClaim(
            runs.SlotKey(run_id, key.scenario_id, key.model, key.sample_index), key.attempt, key.lease_owner or "", key.lease_expires_at
        )
    seen: list[Any] = []

    def work(report: PurgeReport) -> None:
        with committed_db.session(committed_workspace) as session:
            seen.append(
                (
                    runs.claim_slots(session, run_id, worker="v"),
                    runs.record_outcomes(session, [success(claim)])[0].result,
                    runs.record_outcomes(session, [failure(claim)])[0].result,
                )
            )
            transcripts.add(session, other, TranscriptCreate(model=str(uuid7()), content=TranscriptContent(turns=())))

    purging.purge_run(committed_db, run_id, workspace=committed_workspace, batch=4, on_progress=work)
    assert seen
    assert all(one == ([], OutcomeKind.LEASE_LOST, OutcomeKind.LEASE_LOST) for one in seen)
    assert rows_of(committed_db, committed_workspace, run_id) == (0, 0, 0, 0, 0)


@pytest.mark.race
def test_a_slot_that_moves_meanwhile_goes_too(committed_db: Database, committed_workspace: UUID) -> None:
    """A worker that is just writing is waited for; the row that it left is not the one that was found, and a second pass removes it."""
    run_id = make_large(committed_db, committed_workspace)
    reports: list[PurgeReport] = []
    with committed_db.session(committed_workspace) as session:
        session.execute(text("UPDATE stemma.run_slots SET error_message = 'moved' WHERE run_id = :id"), {"id": run_id})
        purge = threading.Thread(
            target=lambda: reports.append(purging.purge_run(committed_db, run_id, workspace=committed_workspace, batch=3))
        )
        purge.start()
        _wait_until_somebody_waits(session)
    purge.join(30)
    assert [(report.slots, report.transcripts) for report in reports] == [(7, 6)]
    assert rows_of(committed_db, committed_workspace, run_id) == (0, 0, 0, 0, 0)


def _wait_until_somebody_waits(session: Session) -> None:
    ask = text("SELECT EXISTS (SELECT FROM pg_locks AS held WHERE NOT held.granted)")
    deadline = threading.Event()
    for _ in range(1000):
        if session.scalar(ask):
            return
        deadline.wait(0.01)
    pytest.fail("nobody came to wait")


def test_the_command_says_what_it_removed(committed_db: Database, committed_workspace: UUID) -> None:
    """As a sentence or as JSON; a run that is not there is one line on stderr."""
    environment = {"DATABASE_URL": committed_db.url.render_as_string(hide_password=False), "STEMMADB_WORKSPACE": str(committed_workspace)}
    runs_there = [make_large(committed_db, committed_workspace) for _ in range(2)]
    said = call("runs", "purge", str(runs_there[0]), "--batch", "3", "--yes", **environment)
    assert (said.returncode, said.stdout) == (0, "removed 7 slots and 6 transcripts\n"), said.stderr
    told = json.loads(call("runs", "purge", str(runs_there[1]), "--yes", "--json", **environment).stdout)
    assert (told["run_id"], told["slots"], told["transcripts"], told["selected"]) == (str(runs_there[1]), 7, 6, 7)
    gone = call("runs", "purge", str(runs_there[0]), "--yes", **environment)
    assert (gone.returncode, gone.stdout, gone.stderr.count("\n")) == (1, "", 1)


async def test_the_twin_does_the_same(committed_db: Database, committed_workspace: UUID) -> None:
    """In a thread, off the event loop."""
    run_id = make_large(committed_db, committed_workspace)
    report = await async_purging.purge_run(committed_db, run_id, workspace=committed_workspace)
    assert (report.slots, report.transcripts) == (7, 6)
    assert rows_of(committed_db, committed_workspace, run_id) == (0, 0, 0, 0, 0)


@pytest.mark.requirement("TN-034")
def test_a_purge_stays_in_its_workspace(committed_db: Database, committed_workspace: UUID) -> None:
    """A run of another workspace is not found and stays; a batch out of bounds is refused before anything is sent."""
    run_id = make_large(committed_db, committed_workspace)
    with pytest.raises(NotFoundError):
        purging.purge_run(committed_db, run_id, workspace=make_workspace(committed_db))
    for batch in (0, 10_001, True, 1.5):
        with count_queries() as sent, pytest.raises(ValidationError):
            purging.purge_run(committed_db, run_id, workspace=committed_workspace, batch=batch)  # type: ignore[arg-type]
        assert sent.count == 0
    with pytest.raises(NotFoundError):
        purging.purge_run(committed_db, "no id", workspace=committed_workspace)
    assert rows_of(committed_db, committed_workspace, run_id) == (7, 6, 7, 2, 1)
