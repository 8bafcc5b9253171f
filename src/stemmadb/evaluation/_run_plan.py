"""
What runs probe: the scenarios that they select, and the slots that they plan. Import these functions from ``stemmadb.evaluation.runs``.
"""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from sqlalchemy.orm import Session

from stemmadb.entity import Id, parse_reference
from stemmadb.errors import FrozenError, InvalidTransitionError, ValidationError
from stemmadb.evaluation import _sampling
from stemmadb.evaluation._run_rows import get_run, key_of, lock_run, log
from stemmadb.evaluation.documents import RunConfig, RunProgress
from stemmadb.evaluation.entities import Run, Scenario
from stemmadb.evaluation.vocabularies import RunStatus
from stemmadb.query import sql, sql_rows, tenant_query

# ------------------------------------------------------------------------------------------------------------ the selection

_DESELECT: Final = sql_rows("DELETE FROM stemma.run_scenario_selection WHERE workspace_id = :workspace_id AND run_id = :run_id")
_SELECT: Final = sql_rows(
    """
    INSERT INTO stemma.run_scenario_selection (workspace_id, run_id, scenario_id)
    SELECT :workspace_id, :run_id, given.id
      FROM unnest(CAST(:scenario_ids AS uuid[])) AS given (id)
     ORDER BY given.id
    """
)
_SELECTED: Final = sql(
    Scenario,
    """
    SELECT {columns}
      FROM stemma.run_scenario_selection AS selection
      JOIN stemma.scenarios ON scenarios.workspace_id = :workspace_id AND scenarios.id = selection.scenario_id
     WHERE selection.workspace_id = :workspace_id AND selection.run_id = :run_id
     ORDER BY scenarios.created_at, scenarios.id
    """,
)
_SELECTED_COUNT: Final = sql_rows(
    "SELECT count(*) FROM stemma.run_scenario_selection WHERE workspace_id = :workspace_id AND run_id = :run_id"
)


@tenant_query
def select_scenarios(
    session: Session,
    run_id: Id,
    *,
    scenario_ids: Sequence[Id] | None = None,
    percentage: float | None = None,
    seed: int | None = None,
) -> list[Scenario]:
    """
    Choose the scenarios of a run that has not started; the choice before is replaced.

    The total of the progress follows, as long as nothing was reported. Locks the run.

    Args:
        session: the caller's session, in a workspace.
        run_id: which run.
        scenario_ids: these scenarios; repeated ones count once.
        percentage: a sample of the scenarios of the run's definition instead, over 0 to 100, rounded up to whole scenarios; None without
            scenario_ids: the configuration's sample_percentage.
        seed: makes the sample repeatable; None: the configuration's seed, and without one a new sample each time.

    Returns:
        The scenarios, by created_at, id.

    Raises:
        FrozenError: the run has started, or has planned its slots.
        NotFoundError: no run of this workspace has this id.
        ReferenceNotFoundError: no scenario of this workspace has one of the ids.
        ValidationError: both or neither are given, or the percentage is out of bounds.
    """
    if scenario_ids is not None and percentage is not None:
        raise ValidationError("give either scenario_ids or a percentage", "percentage")
    given = None if scenario_ids is None else unique(scenario_ids)
    with session.begin_nested():
        run = lock_run(session, key_of(run_id))
        if run.status != RunStatus.PENDING or run.slot_count is not None:
            raise FrozenError("Run", run.id, "the scenarios of a run that has started or planned its slots stay as they are")
        if given is None:
            given = sampled(session, run.definition_id, run.config, percentage, seed)
            if given is None:
                raise ValidationError("give scenario_ids or a percentage: the configuration has no sample_percentage", "percentage")
        _DESELECT.run(session, run_id=run.id)
        select(session, run.id, given)
        if run.progress is not None and run.progress.completed == run.progress.failed == 0:
            run.progress = RunProgress(total=probes(len(given), run.config))
            session.flush()
    return _SELECTED.all(session, run_id=run.id)


@tenant_query
def selected_scenarios(session: Session, run_id: Id) -> list[Scenario]:
    """
    Return the scenarios that a run selected, by created_at, id.

    Raises:
        NotFoundError: no run of this workspace has this id.
    """
    key = key_of(run_id)
    log.debug("reading the scenarios of run %s", key)
    found = _SELECTED.all(session, run_id=key)
    if not found:
        get_run(session, key)
    return found


def select(session: Session, run_id: UUID, scenario_ids: Sequence[UUID]) -> None:
    """
    Store the selection of a run that has none.

    Raises:
        ReferenceNotFoundError: no scenario of this workspace has one of the ids.
    """
    if scenario_ids:
        _SELECT.run(session, run_id=run_id, scenario_ids=list(scenario_ids))


def sampled(
    session: Session, definition_id: UUID, config: RunConfig, percentage: float | None = None, seed: int | None = None
) -> list[UUID] | None:
    """Return the ids of a sample as the arguments, else the configuration, describe it; None when neither has a percentage."""
    percentage = config.sample_percentage if percentage is None else percentage
    if percentage is None:
        return None
    seed = config.seed if seed is None else seed
    return [scenario.id for scenario in _sampling.sample(session, definition_id, percentage=percentage, count=None, seed=seed)]


def unique(scenario_ids: Sequence[Id]) -> list[UUID]:
    """
    Return the ids, each once, in the order given.

    Raises:
        ValidationError: one is not a UUID.
    """
    return list(dict.fromkeys(parse_reference(each, "scenario_ids") for each in scenario_ids))


def probes(scenario_count: int, config: RunConfig) -> int:
    """Return the number of transcripts that so many scenarios make: each for every model and sample."""
    return scenario_count * len(set(config.models)) * config.samples_per_scenario


def planned_total(session: Session, run_id: UUID, config: RunConfig) -> int:
    """Return the number of transcripts that the selected scenarios make under a configuration."""
    return probes(_SELECTED_COUNT.scalar(session, run_id=run_id), config)


# ---------------------------------------------------------------------------------------------------------------- the slots

_PLAN: Final = sql_rows(
    """
    INSERT INTO stemma.run_slots (workspace_id, run_id, scenario_id, model, sample_index)
    SELECT :workspace_id, :run_id, scenario.id, model.name, sample_index
      FROM (SELECT selection.scenario_id AS id
              FROM stemma.run_scenario_selection AS selection
             WHERE selection.workspace_id = :workspace_id AND selection.run_id = :run_id AND CAST(:scenario_ids AS uuid[]) IS NULL
         UNION ALL
            SELECT given.id FROM unnest(CAST(:scenario_ids AS uuid[])) AS given (id)) AS scenario
     CROSS JOIN unnest(CAST(:models AS text[])) AS model (name)
     CROSS JOIN generate_series(0, CAST(:samples AS integer) - 1) AS sample_index
     ORDER BY scenario.id, model.name, sample_index
    """
)
_PLANNED: Final = sql(
    Run,
    """
    UPDATE stemma.runs SET slot_count = :slot_count, progress = NULL
     WHERE runs.workspace_id = :workspace_id AND runs.id = :run_id
    RETURNING {columns}
    """,
)
_MAX_SAMPLES: Final = 2**31 - 1


@tenant_query
def plan_slots(
    session: Session,
    run_id: Id,
    *,
    scenario_ids: Sequence[Id] | None = None,
    models: Sequence[str] | None = None,
    samples: int | None = None,
) -> int:
    """
    Plan the slots of a run: one for each scenario, model and sample. Once; from then on the progress is counted from them.

    One INSERT .. SELECT. Locks the run.

    Args:
        session: the caller's session, in a workspace.
        run_id: which run.
        scenario_ids: the scenarios; None: those that the run selected. Repeated ones count once.
        models: the models; None: those of the configuration. Repeated ones count once.
        samples: how often each scenario is put to each model, at least 1; None: the configuration's samples_per_scenario.

    Returns:
        The number of slots.

    Raises:
        FrozenError: the slots were planned before.
        InvalidTransitionError: the run is finished.
        NotFoundError: no run of this workspace has this id.
        ReferenceNotFoundError: no scenario of this workspace has one of the ids.
        ValidationError: there is nothing to plan, or a model is blank.
    """
    given = None if scenario_ids is None else unique(scenario_ids)
    with session.begin_nested():
        run = lock_run(session, key_of(run_id))
        if run.completed_at is not None:
            raise InvalidTransitionError(run.status, RunStatus.RUNNING, f"Run {run.id}")
        return _plan(session, run, given, models, samples).slot_count or 0


_HAS_SELECTION: Final = sql_rows(
    "SELECT EXISTS (SELECT FROM stemma.run_scenario_selection WHERE workspace_id = :workspace_id AND run_id = :run_id)"
)


def plan_selected(session: Session, run: Run) -> Run:
    """Plan the slots of a run that the caller has locked, if it selected scenarios. Raises as plan_slots."""
    if run.slot_count is None and not _HAS_SELECTION.scalar(session, run_id=run.id):
        return run
    return _plan(session, run, None, None, None)


def _plan(session: Session, run: Run, scenario_ids: list[UUID] | None, models: Sequence[str] | None, samples: int | None) -> Run:
    if run.slot_count is not None:
        raise FrozenError("Run", run.id, "its slots were planned before; a run plans once")
    names = list(dict.fromkeys(run.config.models if models is None else models))
    if any(not name.strip() or "\0" in name for name in names):
        raise ValidationError("a model needs a name, without U+0000", "models")
    count = run.config.samples_per_scenario if samples is None else samples
    if not 1 <= count <= _MAX_SAMPLES:
        raise ValidationError("samples must be at least 1", "samples")
    slot_count = _PLAN.run(session, run_id=run.id, scenario_ids=scenario_ids, models=names, samples=count)
    if slot_count < 1:
        raise ValidationError("there is nothing to plan: a run needs scenarios, selected or given, and models")
    planned = _PLANNED.write(session, run_id=run.id, slot_count=slot_count)
    log.info("run %s: %d slots planned", run.id, slot_count)
    return planned or run
