"""Runs, workers and outcomes as the tests of runs need them."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from stemmadb.evaluation import definitions, runs, scenarios
from stemmadb.evaluation.data import DefinitionCreate, RunCreate, ScenarioCreate, ScoreCreate, SlotClaim, SlotOutcome, TranscriptCreate
from stemmadb.evaluation.documents import DefinitionContent, RunConfig, ScenarioContent, TranscriptContent, Turn
from stemmadb.evaluation.entities import Definition, Run, RunSlot, Scenario

MODEL = "openai:gpt-4o"
NOW = timedelta(0)


def make_definition(session: Session, name: str = "Trolley", **fields: Any) -> Definition:
    """Return a new definition, a root unless ``parent_id`` is given."""
    content = DefinitionContent(preamble="You decide.", template=f"{name}: {{side}}")
    return definitions.create(session, DefinitionCreate(name=name, content=content, **fields))


def make_scenarios(session: Session, definition_id: UUID, count: int) -> list[Scenario]:
    """Return so many new scenarios of a definition."""
    items = [ScenarioCreate(name=f"scenario {n}", content=ScenarioContent(prompt=f"Scenario {n}?")) for n in range(count)]
    return scenarios.create_many(session, definition_id, items)


def make_run(session: Session, *, scenario_count: int = 2, models: Sequence[str] = (MODEL,), started: bool = True, **config: Any) -> Run:
    """Return a run of a new definition that selected all of so many scenarios, with planned slots if it is started."""
    definition = make_definition(session)
    made = make_scenarios(session, definition.id, scenario_count) if scenario_count else []
    run = runs.create(
        session,
        RunCreate(
            definition_id=definition.id,
            name="a run",
            config=RunConfig(models=tuple(models), **config),
            scenario_ids=[scenario.id for scenario in made],
        ),
    )
    return runs.start(session, run.id) if started else run


def transcript(claim: SlotClaim, answer: str = "Pull the lever.", **fields: Any) -> TranscriptCreate:
    """Return what the model of a claim has said."""
    turns = (Turn(role="user", content="Which?"), Turn(role="assistant", content=answer))
    return TranscriptCreate(model=claim.key.model, content=TranscriptContent(turns=turns), **fields)


def success(claim: SlotClaim, *scores: ScoreCreate, **fields: Any) -> SlotOutcome:
    """Return the outcome of a slot that worked out."""
    return SlotOutcome(claim=claim, transcript=transcript(claim, **fields), scores=list(scores))


def failure(claim: SlotClaim, error_code: str = "timeout", retry_in: timedelta | None = NOW) -> SlotOutcome:
    """Return the outcome of a slot that did not work out, to be tried again at once."""
    return SlotOutcome(claim=claim, error_code=error_code, error_message="no answer", retry_in=retry_in)


def slots_of(session: Session, run_id: UUID) -> list[RunSlot]:
    """Return the slots of a small run, by key, as they are now."""
    return list(runs.list_slots(session, run_id, limit=200))


def expire_leases(session: Session, run_id: UUID) -> None:
    """Let the leases of a run run out, on the database's clock."""
    session.execute(
        text(
            "UPDATE stemma.run_slots SET lease_expires_at = statement_timestamp() - interval '1 second' "
            "WHERE run_id = :run_id AND status = 'RUNNING'"
        ),
        {"run_id": run_id},
    )


def complete_all(session: Session, run_id: UUID) -> None:
    """Work off all that can be claimed of a run."""
    while claims := runs.claim_slots(session, run_id, worker="w", count=100):
        runs.record_outcomes(session, [success(claim) for claim in claims])
