"""examples/worker.py: processes that share the slots of a run, are killed, and deliver twice."""

import itertools
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from uuid import UUID

import pytest
from sqlalchemy import text
from tests.evaluation.run_setups import make_run

from stemmadb.database import Database
from stemmadb.evaluation import runs
from stemmadb.evaluation.runs import RunStatus
from stemmadb.testing import make_workspace

WORKER = Path(__file__).parents[1] / "examples" / "worker.py"
SLOTS = 1200

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def workspace_id(committed_db: Database) -> UUID:
    """The workspace of the run."""
    return make_workspace(committed_db, "lab")


@pytest.fixture
def start(committed_db: Database) -> Iterator[Start]:
    """Starts a worker."""
    url = committed_db.url.render_as_string(hide_password=False)
    started: list[subprocess.Popen[str]] = []

    def start(run_id: object, name: str, *options: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(WORKER), str(run_id), "--database-url", url, "--name", name, "--lease", "3", *options]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def ready(worker: "subprocess.Popen[str]") -> None:
    """Wait until a worker has found its run."""
    assert worker.stdout is not None
    # On a busy machine, lines about slow statements come first.
    assert any("working on run" in line for line in iter(worker.stdout.readline, ""))


def finished(db: Database, run_id: UUID) -> int:
    """How many slots have a transcript."""
    with db.session("lab") as session:
        return runs.progress(session, run_id).completed


def wait_for(db: Database, run_id: UUID, count: int) -> None:
    """Wait until so many slots are done."""
    pause = Event()
    for _ in range(2400):
        if finished(db, run_id) >= count:
            return
        pause.wait(0.05)
    pytest.fail(f"{finished(db, run_id)} of {count} slots were done in two minutes")


@pytest.mark.slow
@pytest.mark.race
@pytest.mark.fault
@pytest.mark.requirement("AD-006", "VR-075")
def test_sixteen_workers_that_are_killed_leave_one_outcome_in_each_slot(committed_db: Database, workspace_id: UUID, start: Start) -> None:
    """Whoever is killed, in the middle of whatever: every slot ends with one transcript, although each is delivered twice."""
    with committed_db.session(workspace_id) as session:
        run = make_run(session, scenario_count=60, models=("a:x", "b:y"), samples_per_scenario=10, max_attempts=50, started=False)
    workers = [start(run.id, f"worker-{n}", "--slots", "4", "--deliveries", "2") for n in range(16)]
    for worker in workers:
        ready(worker)
    with committed_db.session(workspace_id) as session:
        runs.start(session, run.id)
    chance = random.Random(5)
    names = itertools.count(16)
    for share in (0.2, 0.4, 0.6):
        wait_for(committed_db, run.id, int(SLOTS * share))
        for number in chance.sample(range(16), 3):
            workers[number].send_signal(signal.SIGKILL)
        left = chance.choice([worker for worker in workers if worker.poll() is None])
        left.send_signal(signal.SIGTERM)
        workers.append(start(run.id, f"worker-{next(names)}", "--slots", "4", "--deliveries", "2"))
    codes = {worker.wait(120) for worker in workers}
    assert codes <= {0, -signal.SIGKILL}
    with committed_db.session(workspace_id) as session:
        assert runs.get(session, run.id).status is RunStatus.COMPLETED
        assert runs.progress(session, run.id).completed == SLOTS
        transcripts, slots, worked = session.execute(
            text(
                """
                SELECT count(*), count(DISTINCT (scenario_id, model, sample_index)),
                       (SELECT count(*) FROM stemma.run_slots AS slot JOIN stemma.transcripts AS own ON own.id = slot.transcript_id
                         WHERE slot.status = 'COMPLETED' AND (own.scenario_id, own.model, own.sample_index)
                             = (slot.scenario_id, slot.model, slot.sample_index))
                  FROM stemma.transcripts
                """
            )
        ).one()
    assert (transcripts, slots, worked) == (SLOTS, SLOTS, SLOTS)


@pytest.mark.fault
def test_an_interrupted_worker_gives_back_its_slots(committed_db: Database, workspace_id: UUID, start: Start) -> None:
    """SIGTERM: nothing stays leased to it, and what it had stored stays; another worker ends the run."""
    with committed_db.session(workspace_id) as session:
        run = make_run(session, scenario_count=300, models=("a:x",), max_attempts=9)
    worker = start(run.id, "first", "--slots", "20")
    wait_for(committed_db, run.id, 20)
    worker.send_signal(signal.SIGTERM)
    assert "slots given back" in worker.communicate(timeout=60)[0]
    with committed_db.session(workspace_id) as session:
        assert runs.progress(session, run.id).running == 0
    output, _ = start(run.id, "second", "--slots", "50").communicate(timeout=60)
    assert "second: " in output
    assert finished(committed_db, run.id) == 300


def test_a_run_that_is_not_there(committed_db: Database, workspace_id: UUID) -> None:
    """It says so, and the exit code is 1."""
    url = committed_db.url.render_as_string(hide_password=False)
    ran = subprocess.run([sys.executable, str(WORKER), str(workspace_id), "--database-url", url], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.splitlines()[-1].startswith("worker: ")
    assert "Traceback" not in ran.stderr
