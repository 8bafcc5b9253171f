"""How definitions, runs and what comes out of them are made up for tests, each in its place: in a tree, of one definition, frozen."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, TypeVar
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from stemmadb.errors import ReferenceNotFoundError
from stemmadb.evaluation.documents import DefinitionContent, RunConfig, ScenarioContent
from stemmadb.evaluation.entities import (
    Definition,
    Experiment,
    ExperimentStatus,
    Run,
    RunComparison,
    RunScenarioSelection,
    RunSlot,
    RunStatus,
    Scenario,
    Score,
    SlotStatus,
    Transcript,
)
from stemmadb.query import sql
from stemmadb.testing import _values
from stemmadb.testing.factories import EntityFactory, PostGenerated, Use

__all__ = [
    "FACTORIES",
    "DefinitionFactory",
    "ScenarioFactory",
    "ExperimentFactory",
    "RunFactory",
    "RunScenarioSelectionFactory",
    "RunSlotFactory",
    "TranscriptFactory",
    "ScoreFactory",
    "RunComparisonFactory",
]

T = TypeVar("T")
Rows = list[dict[str, object]]

_ENDED = (RunStatus.COMPLETED, RunStatus.PARTIAL, RunStatus.FAILED, RunStatus.CANCELLED)
_FINISHED = (SlotStatus.COMPLETED, SlotStatus.FAILED, SlotStatus.SKIPPED)
_FREEZE = sql(
    Definition,
    """
    UPDATE stemma.definitions
       SET frozen_at = now()
     WHERE definitions.workspace_id = :workspace_id AND definitions.id = ANY (CAST(:ids AS uuid[])) AND definitions.frozen_at IS NULL
    RETURNING {columns}
    """,
)


def _freeze(session: Session, ids: Iterable[object]) -> None:
    """Freeze what rows are about to refer to, as the query functions do."""
    _FREEZE.write_all(session, ids=sorted({str(id) for id in ids}))


class DefinitionFactory(EntityFactory[Definition]):
    """A root. A child is stored with ``parent_id`` alone; built without a database, it needs ``root_id`` and ``depth`` as well."""

    content: ClassVar[object] = Use(lambda: _values.model(DefinitionContent).replace(template=f"{_values.text()} {_values.token()}"))

    @classmethod
    def before_insert(cls, session: Session, rows: Rows) -> None:
        """Put children into their trees, and freeze their parents."""
        children = [row for row in rows if row.get("parent_id") is not None and "root_id" not in row]
        if children:
            _freeze(session, [row["parent_id"] for row in children])
            wanted = {UUID(str(row["parent_id"])) for row in children}
            found = session.execute(select(Definition.id, Definition.root_id, Definition.depth).where(Definition.id.in_(wanted)))
            places = {row.id: (row.root_id, row.depth + 1) for row in found}
            for row in children:
                row["root_id"], row["depth"] = _known(places, row["parent_id"], "parent_id")
        super().before_insert(session, rows)


class ScenarioFactory(EntityFactory[Scenario]):
    """A variant, other than all others; its definition is frozen."""

    content: ClassVar[object] = Use(lambda: _values.model(ScenarioContent).replace(prompt=f"{_values.text()} {_values.token()}"))

    @classmethod
    def before_insert(cls, session: Session, rows: Rows) -> None:
        """Freeze the definitions."""
        super().before_insert(session, rows)
        _freeze(session, [row["definition_id"] for row in rows])


class ExperimentFactory(EntityFactory[Experiment]):
    """A draft without a plan. ``concluded_at`` brings the status COMPLETED."""

    status: ClassVar[object] = PostGenerated(
        lambda _, values: ExperimentStatus.COMPLETED if values.get("concluded_at") else ExperimentStatus.DRAFT
    )


class RunFactory(EntityFactory[Run]):
    """A pending run that reports its progress itself. A final status brings ``completed_at``, and ``completed_at`` a completion."""

    config: ClassVar[object] = Use(lambda: RunConfig(models=("stub:model",)))
    status: ClassVar[object] = PostGenerated(lambda _, values: RunStatus.COMPLETED if values.get("completed_at") else RunStatus.PENDING)
    completed_at: ClassVar[object] = PostGenerated(lambda _, values: _values.later() if values["status"] in _ENDED else None)

    @classmethod
    def before_insert(cls, session: Session, rows: Rows) -> None:
        """Freeze the definitions."""
        super().before_insert(session, rows)
        _freeze(session, [row["definition_id"] for row in rows])


class RunScenarioSelectionFactory(EntityFactory[RunScenarioSelection]):
    """A run and a scenario of one definition."""

    @classmethod
    def before_insert(cls, session: Session, rows: Rows) -> None:
        """Make the run, the scenario, or both."""
        _give_runs_and_scenarios(session, rows, {})
        super().before_insert(session, rows)


class RunSlotFactory(EntityFactory[RunSlot]):
    """A queued slot of a run that has planned one. A status brings the lease, the end and the error that belong to it."""

    model: ClassVar[object] = Use(lambda: f"stub:{_values.token()}")
    status: ClassVar[object] = PostGenerated(lambda _, values: _slot_status(values))
    lease_owner: ClassVar[object] = PostGenerated(lambda _, values: "worker" if values["status"] == SlotStatus.RUNNING else None)
    lease_expires_at: ClassVar[object] = PostGenerated(lambda _, values: None if values["lease_owner"] is None else _values.later())
    finished_at: ClassVar[object] = PostGenerated(lambda _, values: _values.later() if values["status"] in _FINISHED else None)
    error_code: ClassVar[object] = PostGenerated(lambda _, values: "stub" if values["status"] == SlotStatus.FAILED else None)

    @classmethod
    def before_insert(cls, session: Session, rows: Rows) -> None:
        """Make the run, the scenario, or both."""
        _give_runs_and_scenarios(session, rows, {"slot_count": 1})
        super().before_insert(session, rows)


class TranscriptFactory(EntityFactory[Transcript]):
    """A dialogue of a run. With ``scenario_id`` alone, of a run of the scenario's definition. An invalidated one has a reason."""

    model: ClassVar[object] = Use(lambda: f"stub:{_values.token()}")
    input_tokens: ClassVar[object] = Use(lambda: _values.RANDOM.choice((None, 0, 1, 2**40)))
    output_tokens: ClassVar[object] = Use(lambda: _values.RANDOM.choice((None, 0, 1, 2**40)))
    cost_currency: ClassVar[object] = PostGenerated(lambda _, values: None if values.get("cost") is None else "EUR")
    invalidated_at: ClassVar[object] = PostGenerated(
        lambda _, values: _values.moment() if values.get("invalidated_reason") is not None else None
    )
    invalidated_reason: ClassVar[object] = PostGenerated(lambda _, values: None if values.get("invalidated_at") is None else _values.text())

    @classmethod
    def before_insert(cls, session: Session, rows: Rows) -> None:
        """Make the runs of scenarios that are given."""
        _give_runs_and_scenarios(session, [row for row in rows if row.get("scenario_id") is not None], {})
        super().before_insert(session, rows)


class ScoreFactory(EntityFactory[Score]):
    """A number that somebody gave to a transcript."""

    annotator: ClassVar[object] = Use(lambda: f"judge {_values.token()}")
    value: ClassVar[object] = Use(lambda: _values.RANDOM.choice((0.0, 1.0, -1.5, _values.RANDOM.random())))
    cost_currency: ClassVar[object] = PostGenerated(lambda _, values: None if values.get("cost") is None else "EUR")


class RunComparisonFactory(EntityFactory[RunComparison]):
    """Two runs of one definition."""

    @classmethod
    def before_insert(cls, session: Session, rows: Rows) -> None:
        """Make the run that is not given of the definition of the one that is, or both of a new one."""
        names = ("baseline_run_id", "comparison_run_id")
        unpaired = [row for row in rows if not any(name in row for name in names)]
        for row, run in zip(unpaired, RunFactory.create_many(session, len(unpaired)), strict=True):
            row[names[0]] = run.id
        for given, missing in (names, names[::-1]):
            alone = [row for row in rows if given in row and missing not in row]
            of = _definitions_of(session, Run, [row[given] for row in alone])
            made = RunFactory.create_each(session, [{"definition_id": _known(of, row[given], given)} for row in alone])
            for row, run in zip(alone, made, strict=True):
                row[missing] = run.id
        super().before_insert(session, rows)


def _slot_status(values: Mapping[str, Any]) -> SlotStatus:
    if values.get("lease_owner") is not None:
        return SlotStatus.RUNNING
    if values.get("transcript_id") is not None or values.get("finished_at") is not None:
        return SlotStatus.COMPLETED
    return SlotStatus.QUEUED


def _give_runs_and_scenarios(session: Session, rows: Rows, run_values: Mapping[str, object]) -> None:
    """Give each row a run and a scenario of the same definition, whichever of the two it has."""
    bare = [row for row in rows if "run_id" not in row and "scenario_id" not in row]
    for row, scenario in zip(bare, ScenarioFactory.create_many(session, len(bare)), strict=True):
        row["scenario_id"] = scenario.id
    without_run = [row for row in rows if "run_id" not in row]
    of = _definitions_of(session, Scenario, [row["scenario_id"] for row in without_run])
    given = [{**run_values, "definition_id": _known(of, row["scenario_id"], "scenario_id")} for row in without_run]
    for row, run in zip(without_run, RunFactory.create_each(session, given), strict=True):
        row["run_id"] = run.id
    without_scenario = [row for row in rows if "scenario_id" not in row]
    of = _definitions_of(session, Run, [row["run_id"] for row in without_scenario])
    wanted = [{"definition_id": _known(of, row["run_id"], "run_id")} for row in without_scenario]
    for row, scenario in zip(without_scenario, ScenarioFactory.create_each(session, wanted), strict=True):
        row["scenario_id"] = scenario.id


def _definitions_of(session: Session, entity: type[Run] | type[Scenario], ids: list[object]) -> dict[UUID, UUID]:
    if not ids:
        return {}
    wanted = {UUID(str(id)) for id in ids}
    found = session.execute(select(entity.id, entity.definition_id).where(entity.id.in_(wanted)))
    return {row.id: row.definition_id for row in found}


def _known(found: Mapping[UUID, T], id: object, field: str) -> T:
    known = found.get(UUID(str(id)))
    if known is None:
        raise ReferenceNotFoundError(None, field)
    return known


FACTORIES = (
    DefinitionFactory,
    ScenarioFactory,
    ExperimentFactory,
    RunFactory,
    RunScenarioSelectionFactory,
    RunSlotFactory,
    TranscriptFactory,
    ScoreFactory,
    RunComparisonFactory,
)
