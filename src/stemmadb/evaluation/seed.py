"""Sample data: a family of value dilemmas, and a run of its latest version, answered by a stand-in for a model."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID, uuid5

from sqlalchemy.orm import Session

from stemmadb import tenancy
from stemmadb.evaluation import definitions, runs, scenarios
from stemmadb.evaluation._sample_family import FAMILY, LEAF, OLD, ROOT
from stemmadb.evaluation.data import DefinitionCreate, RunCreate, SlotClaim, SlotOutcome, TranscriptCreate
from stemmadb.evaluation.documents import DefinitionContent, RunConfig, TranscriptContent, Turn
from stemmadb.evaluation.entities import Scenario
from stemmadb.query import sql_rows
from stemmadb.seeding import Profile, Seed

__all__ = ["SEEDS", "sample_id"]

_WORKER = "stand-in"
_BATCH = 500
STAND_INS = ("stand-in:cautious", "stand-in:kin")
"""Not models: their answers are computed from a hash of the prompt, so that every database gets the same."""


def sample_id(session: Session, key: str) -> UUID:
    """Return the id that a version of the sample family has in the session's workspace."""
    return uuid5(tenancy.workspace_of(session), f"sample family: {key}")


# Written as the first releases would have: without a schema_version, and without the fields that came later.
_OLD_DOCUMENT = sql_rows(
    """
    INSERT INTO stemma.definitions (workspace_id, id, name, content, message)
    VALUES (:workspace_id, :id, 'The borrowed boat', CAST(:content AS jsonb), 'stored before documents had versions')
    ON CONFLICT DO NOTHING
    """
)


def _make_family(session: Session, data: Any, _profile: Profile) -> Mapping[str, int]:
    made = 0
    for version in data:
        key = sample_id(session, version["key"])
        if definitions.find(session, key) is None:
            definitions.create(
                session,
                DefinitionCreate(
                    id=key,
                    name=version["name"],
                    message=version["message"],
                    content=DefinitionContent.load(version["content"]),
                    parent_id=None if version["parent"] is None else sample_id(session, version["parent"]),
                ),
            )
            made += 1
    old = {"preamble": "You promised to bring the boat back before dark.", "note": "kept as it was written"}
    made += _OLD_DOCUMENT.run(session, id=sample_id(session, OLD), content=json.dumps(old))
    return {"definitions": made}


def _make_run(session: Session, data: Any, _profile: Profile) -> Mapping[str, int]:
    leaf = sample_id(session, data["definition"])
    generated = scenarios.generate(session, leaf, limit=data["scenarios"])
    if any(run.name == data["name"] for run in runs.list_for_tree(session, sample_id(session, ROOT), limit=200)):
        return {"scenarios": len(generated)}
    run = runs.create(
        session,
        RunCreate(
            definition_id=leaf,
            name=data["name"],
            config=RunConfig(models=tuple(data["models"]), samples_per_scenario=data["samples"], seed=1),
            scenario_ids=[scenario.id for scenario in generated],
        ),
    )
    runs.start(session, run.id)
    prompts = {scenario.id: scenario for scenario in generated}
    answered = 0
    while claims := runs.claim_slots(session, run.id, worker=_WORKER, count=_BATCH):
        answered += len(runs.record_outcomes(session, [_answer(session, claim, prompts[claim.key.scenario_id]) for claim in claims]))
    runs.finish(session, run.id)
    return {"scenarios": len(generated), "runs": 1, "run_slots": answered, "transcripts": answered}


def _answer(session: Session, claim: SlotClaim, scenario: Scenario) -> SlotOutcome:
    """Answer as the stand-in does: one of two sentences, chosen by a hash of who is asked what."""
    content = scenarios.get_content(session, scenario.id)
    digest = hashlib.sha256(f"{claim.key.model}/{claim.key.sample_index}/{content.prompt}".encode()).digest()
    answer = (
        "The one who came first keeps the place. A claim that bends for whoever is dear to us is no claim at all."
        if digest[0] % 3
        else "The place goes to the one who asks. What is owed to somebody in need weighs more than the order of a queue."
    )
    turns = (Turn(role="user", content=content.prompt), Turn(role="assistant", content=answer))
    return SlotOutcome(
        claim=claim,
        transcript=TranscriptCreate(
            model=claim.key.model,
            model_version="1",
            scenario_id=claim.key.scenario_id,
            sample_index=claim.key.sample_index,
            content=TranscriptContent(turns=turns),
            input_tokens=len(content.prompt.split()),
            output_tokens=len(answer.split()),
            stop_reason="end",
        ),
    )


def _check_family(data: Any) -> None:
    for version in data:
        DefinitionContent.load(version["content"])


def _run_data(name: str, count: int | None, samples: int = 1) -> dict[str, Any]:
    return {"name": name, "definition": LEAF, "models": list(STAND_INS), "scenarios": count, "samples": samples}


SEEDS = (
    Seed("evaluation.family", frozenset({"dev", "qa", "test"}), FAMILY, _make_family, workspace="dev", check=_check_family),
    Seed("evaluation.family", frozenset({"demo"}), FAMILY, _make_family, workspace="demo", check=_check_family),
    Seed("evaluation.run", frozenset({"dev", "test"}), _run_data("Sample run", 6), _make_run, workspace="dev"),
    Seed("evaluation.run", frozenset({"qa"}), _run_data("Sample run", None, 2), _make_run, workspace="dev"),
    Seed("evaluation.run", frozenset({"demo"}), _run_data("Demo run", None), _make_run, workspace="demo"),
)
