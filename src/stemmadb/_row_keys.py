"""Keys of rows as callers give them: an id, or the values of several columns."""

from typing import Any

from sqlalchemy import ColumnElement, inspect
from sqlalchemy.orm import InstrumentedAttribute

from stemmadb import tenancy
from stemmadb._criteria import parse_value
from stemmadb.entity import Entity, Id

Key = Id | tuple[Any, ...]
"""An id, or the values of a key of several columns, without the workspace."""


class RowKey:
    """The primary key of an entity without the workspace, which the session knows."""

    def __init__(self, entity: type[Entity]) -> None:
        mapper = inspect(entity)
        names = [mapper.get_property_by_column(column).key for column in mapper.primary_key]
        self.names = [name for name in names if not (tenancy.is_tenant(entity) and name == "workspace_id")]
        self.columns: list[InstrumentedAttribute[Any]] = [getattr(entity, name) for name in self.names]

    def parse(self, key: Key) -> tuple[Any, ...] | None:
        """Return the values as the columns have them; None for a malformed key, which no row has."""
        parts = key if isinstance(key, tuple) else (key,)
        if len(parts) != len(self.columns):
            return None
        try:
            return tuple(parse_value(column.type, part) for column, part in zip(self.columns, parts, strict=True))
        except ValueError:
            return None

    def equals(self, values: tuple[Any, ...]) -> list[ColumnElement[bool]]:
        """Return the conditions that a row has this key; ``values`` may be parameters."""
        return [column == value for column, value in zip(self.columns, values, strict=True)]

    def of(self, row: Entity) -> tuple[Any, ...]:
        """Return the key of a row."""
        return tuple(getattr(row, name) for name in self.names)

    def text(self, row: Entity) -> str:
        """Return the key of a row for a message."""
        return ", ".join(map(str, self.of(row)))
