"""Filters of definitions and runs as conditions of their statements."""

from typing import Final

from sqlalchemy import ColumnElement, exists

from stemmadb.entity import parse_reference
from stemmadb.evaluation.data import DefinitionFilters, RunFilters
from stemmadb.evaluation.entities import Definition, Run

_HAS_RUNS: Final = exists().where(Run.workspace_id == Definition.workspace_id, Run.definition_id == Definition.id)


def definition_conditions(filters: DefinitionFilters | None) -> list[ColumnElement[bool]]:
    """
    Return what the filters ask of a definition; nothing for None.

    Raises:
        ValidationError: a filter is malformed.
    """
    if filters is None:
        return []
    filters = DefinitionFilters.of(filters)
    found: list[ColumnElement[bool]] = []
    if filters.name_contains is not None:
        found.append(Definition.name.contains(filters.name_contains, autoescape=True))
    if filters.parent_id is not None:
        found.append(Definition.parent_id == parse_reference(filters.parent_id, "parent_id"))
    if filters.root_id is not None:
        found.append(Definition.root_id == parse_reference(filters.root_id, "root_id"))
    if filters.roots_only:
        found.append(Definition.parent_id.is_(None))
    if filters.frozen is not None:
        found.append(Definition.frozen_at.is_not(None) if filters.frozen else Definition.frozen_at.is_(None))
    if filters.has_runs is not None:
        found.append(_HAS_RUNS if filters.has_runs else ~_HAS_RUNS)
    if filters.created_from is not None:
        found.append(Definition.created_at >= filters.created_from)
    if filters.created_to is not None:
        found.append(Definition.created_at < filters.created_to)
    return found


def run_conditions(filters: RunFilters | None) -> list[ColumnElement[bool]]:
    """
    Return what the filters ask of a run; nothing for None.

    Raises:
        ValidationError: a filter is malformed.
    """
    if filters is None:
        return []
    filters = RunFilters.of(filters)
    found: list[ColumnElement[bool]] = []
    if filters.definition_id is not None:
        found.append(Run.definition_id == parse_reference(filters.definition_id, "definition_id"))
    if filters.experiment_id is not None:
        found.append(Run.experiment_id == parse_reference(filters.experiment_id, "experiment_id"))
    if filters.config_hash is not None:
        found.append(Run.config_hash == filters.config_hash)
    if filters.created_from is not None:
        found.append(Run.created_at >= filters.created_from)
    if filters.created_to is not None:
        found.append(Run.created_at < filters.created_to)
    if filters.statuses:
        found.append(Run.status.in_(sorted(filters.statuses)))
    return found
