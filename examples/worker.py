"""
A worker: it claims slots of a run, asks a model for each, and records what became of them.

    python examples/worker.py RUN --workspace lab

Start as many as you like, on as many machines; none knows of the others. A slot is leased to one worker at a time. While the model thinks,
no transaction is open, and the lease is renewed; a worker that is killed loses its leases when they expire, and others take its slots.
An outcome counts under the lease that it was made for, and once. Interrupted (Ctrl-C, SIGTERM), a worker gives back what it holds.

The model is a stand-in, which answers by rule and fails now and then; put yours into ``ask``.
"""

import argparse
import asyncio
import contextlib
import hashlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from uuid import UUID

import stemmadb
from stemmadb.aio.evaluation import runs, scenarios
from stemmadb.database import Database
from stemmadb.errors import StemmaError
from stemmadb.evaluation.documents import ScenarioContent, TranscriptContent, Turn
from stemmadb.evaluation.runs import OutcomeKind, RunStatus, SlotClaim, SlotOutcome
from stemmadb.evaluation.transcripts import TranscriptCreate

_PAUSE_S = 0.5
"""Between two looks for slots, when there are none."""
_OVER = {RunStatus.COMPLETED, RunStatus.PARTIAL, RunStatus.FAILED, RunStatus.CANCELLED}


async def ask(model: str, prompt: str, attempt: int) -> str:
    """
    Stand in for a model: an answer that depends on what is asked, after 5 to 50 ms; one first attempt in eight times out.

    Raises:
        TimeoutError: so that there is something to try again.
    """
    number = int.from_bytes(hashlib.sha256(f"{model} {prompt}".encode()).digest()[:4])
    await asyncio.sleep(0.005 + number % 46 / 1000)
    if attempt == 1 and number % 8 == 0:
        message = f"{model} did not answer"
        raise TimeoutError(message)
    return f"{model} says {('yes', 'no', 'it depends')[number % 3]}."


async def work(claim: SlotClaim, prompt: str) -> SlotOutcome:
    """Return what the model made of a slot; its failure is an outcome too."""
    try:
        answer = await ask(claim.key.model, prompt, claim.attempt)
    except TimeoutError as error:
        return SlotOutcome(claim=claim, error_code="timeout", error_message=str(error), retry_in=timedelta(milliseconds=100))
    turns = (Turn(role="user", content=prompt), Turn(role="assistant", content=answer))
    transcript = TranscriptCreate(model=claim.key.model, content=TranscriptContent(turns=turns), output_tokens=len(answer.split()))
    return SlotOutcome(claim=claim, transcript=transcript)


@contextlib.asynccontextmanager
async def renewed(db: Database, claims: Sequence[SlotClaim], lease: timedelta) -> AsyncIterator[None]:
    """Renew the leases, three times in their length, for as long as the block runs."""

    async def beat() -> None:
        while True:
            await asyncio.sleep(lease.total_seconds() / 3)
            await db.arun(runs.renew_slots, claims, lease=lease)

    task = asyncio.create_task(beat())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def run_worker(db: Database, run_id: UUID, name: str, *, slots: int, lease: timedelta, deliveries: int = 1) -> int:
    """
    Work until the run is over; return how many transcripts were stored by this worker.

    Args:
        db: a database, bound to the run's workspace.
        run_id: the run.
        name: of the worker, different from all others.
        slots: how many are claimed at a time.
        lease: how long the worker may be silent before others take its slots.
        deliveries: how often each outcome is delivered; more than once only to see that it does no harm.
    """
    stored = 0
    prompts: dict[UUID, ScenarioContent] = {}
    while True:
        claims = await db.arun(runs.claim_slots, run_id, worker=name, count=slots, lease=lease)
        if not claims:
            # Everything may be done, or what is left may be with workers that were killed.
            await db.arun(runs.reconcile, run_id)
            if (await db.arun(runs.get, run_id)).status in _OVER:
                return stored
            await asyncio.sleep(_PAUSE_S)
            continue
        for scenario_id in {claim.key.scenario_id for claim in claims} - prompts.keys():
            prompts[scenario_id] = await db.arun(scenarios.get_content, scenario_id)
        async with renewed(db, claims, lease):
            outcomes = await asyncio.gather(*(work(claim, prompts[claim.key.scenario_id].prompt) for claim in claims))
        for _ in range(deliveries):
            results = await db.arun(runs.record_outcomes, outcomes)
            kept = {result.key for result in results if result.result is OutcomeKind.STORED}
            stored += sum(outcome.claim.key in kept and outcome.transcript is not None for outcome in outcomes)


async def run_until_signalled(db: Database, options: argparse.Namespace) -> int:
    """Work as the command line says; SIGINT and SIGTERM end it, and give back its slots."""
    run = await db.arun(runs.get, options.run)
    lease = timedelta(seconds=options.lease)
    work = run_worker(db, run.id, options.name, slots=options.slots, lease=lease, deliveries=options.deliveries)
    worker = asyncio.create_task(work)
    print(f"{options.name}: working on run {run.id}", flush=True)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, worker.cancel)
    try:
        return await worker
    except asyncio.CancelledError:
        given_back = await db.arun(runs.release_slots, worker=options.name)
        print(f"{options.name}: interrupted, {given_back} slots given back")
        return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().partition("\n")[0])
    parser.add_argument("run", help="the id of a run that was started")
    parser.add_argument("--workspace", default="lab", help="slug or id (default: lab)")
    parser.add_argument("--name", default=f"{socket.gethostname()}-{os.getpid()}", help="default: made of the host and the process")
    parser.add_argument("--slots", type=int, default=8, help="claimed at a time (default: 8)")
    parser.add_argument("--lease", type=float, default=60.0, help="seconds of silence after which others take over (default: 60)")
    parser.add_argument("--deliveries", type=int, default=1, help="deliver each outcome so often, to see that it counts once")
    parser.add_argument("--database-url", help="default: DATABASE_URL, else the embedded server")
    options = parser.parse_args(arguments)
    try:
        with stemmadb.connect(options.database_url, workspace=options.workspace) as db:
            stored = asyncio.run(run_until_signalled(db, options))
    except StemmaError as error:
        print(f"worker: {error}", file=sys.stderr)
        return 1
    print(f"{options.name}: {stored} transcripts")
    return 0


if __name__ == "__main__":
    sys.exit(main())
