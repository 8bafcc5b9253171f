"""
What errors call the parts of the schema: a table by its entity, a constraint by its fields.

The entities are looked up when an error is made, so that they need not know about errors. A table that is not of ours, or a
constraint that a host added, is named by the convention of its name: ``<table>_<columns>_<key|fkey|idx>``.
"""

from __future__ import annotations

import sys
from typing import Any

from sqlalchemy import Column, ForeignKeyConstraint, PrimaryKeyConstraint, Table, UniqueConstraint

_SCHEMA = "stemma"


def entity_name(table: str) -> str:
    """Return the class of a table's rows, ``Definition`` for ``definitions``; the table's name when there is none."""
    pending: list[type[Any]] = [base] if (base := getattr(sys.modules.get("stemmadb.entity"), "Entity", None)) is not None else []
    while pending:
        entity = pending.pop()
        # The mapped table, and not __tablename__, which plain base classes compute for each subclass.
        mapped = entity.__dict__.get("__table__")
        if isinstance(mapped, Table) and mapped.name == table:
            return entity.__name__
        pending.extend(entity.__subclasses__())
    return table


def unique_fields(table: str | None, constraint: str | None) -> tuple[str, ...]:
    """Return the fields that a unique constraint or index keeps apart, in its order, without the workspace."""
    if constraint is None:
        return ()
    known = _table(table)
    if known is not None:
        for item in known.constraints:
            if item.name == constraint and isinstance(item, UniqueConstraint | PrimaryKeyConstraint):
                return _names(list(item.columns))
        for index in known.indexes:
            if index.name == constraint:
                return _names(list(index.columns))
    return _by_convention(table, constraint)


def foreign_key_field(table: str | None, constraint: str | None) -> str | None:
    """Return the field that holds a reference: of a composite key the last column that is not the workspace's."""
    if constraint is None:
        return None
    known = _table(table)
    if known is not None:
        for item in known.constraints:
            if isinstance(item, ForeignKeyConstraint) and item.name == constraint:
                return next(iter(_names(list(item.columns))), None)
    return next(iter(_by_convention(table, constraint)), None)


def _table(name: str | None) -> Table | None:
    metadata = getattr(sys.modules.get("stemmadb.entity"), "metadata", None)
    return None if metadata is None or name is None else metadata.tables.get(f"{_SCHEMA}.{name}")


def _names(columns: list[Column[Any]]) -> tuple[str, ...]:
    names = tuple(column.name for column in columns if column.name != "workspace_id")
    return names or tuple(column.name for column in columns)


def _by_convention(table: str | None, constraint: str) -> tuple[str, ...]:
    if constraint.endswith("_pkey"):
        return ("id",)
    body, _, _ = constraint.rpartition("_")
    body = body.removeprefix(f"{table}_") if table else body
    return (body,) if body else (constraint,)
