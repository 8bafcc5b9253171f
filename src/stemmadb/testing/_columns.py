"""What a factory has to know about the columns of an entity: which it varies, which no two rows share, which point at other rows."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, ClassVar

from pydantic_core import PydanticUndefined
from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)

from stemmadb._fields import _parts
from stemmadb.entity import Entity, WorkspaceEntity

_TIMES = frozenset({"created_at", "updated_at"})
_MANY = (Text, Integer, LargeBinary, Uuid)


@dataclass(frozen=True)
class Parent:
    """A column that holds the key of another row."""

    column: str
    entity: type[Entity] | None
    """None for a table that no entity of the library's registry has."""
    target: str
    required: bool


class EntityColumns:
    """The columns of one entity; ``of`` makes it once."""

    _made: ClassVar[dict[type[Entity], "EntityColumns"]] = {}

    def __init__(self, entity: type[Entity]) -> None:
        self._entity = entity
        self._table: Table = entity.__table__
        self._tenant = issubclass(entity, WorkspaceEntity)

    @classmethod
    def of(cls, entity: type[Entity]) -> "EntityColumns":
        """Return what is known about the entity."""
        found = cls._made.get(entity)
        if found is None:
            found = cls._made[entity] = cls(entity)
        return found

    @cached_property
    def parents(self) -> tuple[Parent, ...]:
        """The columns that point at other rows, without that of the workspace, which the session sets."""
        return tuple(self._parents())

    def _parents(self) -> Iterator[Parent]:
        for constraint in sorted(self._table.foreign_key_constraints, key=_column_names):
            pairs = [(element.parent, element.column) for element in constraint.elements]
            if self._tenant:
                pairs = [(column, target) for column, target in pairs if column.name != "workspace_id"]
            if pairs:
                column, target = pairs[0]
                # A key of more columns says more than which row it points at: where in a tree it lies, for instance.
                required = len(pairs) == 1 and not column.nullable
                yield Parent(column.name, _entity_of(target.table), target.name, required)

    @cached_property
    def varied(self) -> frozenset[str]:
        """
        The columns that a factory fills with values of its own; the others keep the entity's defaults.

        Kept are defaults that say something (a status, a count, a flag), times that mark events, secrets, nullable references, whatever
        the database makes, and columns that a CHECK ties to others.
        """
        tied, pointing = self._tied(), {parent.column for parent in self.parents}
        return frozenset(name for name in self._entity.model_fields if self._varies(name, name in tied, name in pointing))

    def _varies(self, name: str, tied: bool, pointing: bool) -> bool:
        field, column = self._entity.model_fields[name], self._table.columns[name]
        if column.computed is not None or name in _TIMES or (name == "workspace_id" and self._tenant):
            return False
        if field.default_factory is not None:
            return column.info["document"] is not None and not tied
        if field.default is PydanticUndefined:
            return True
        if field.default is not None:
            return name in self.unique
        python_type, _, _ = _parts(field.annotation)
        kept = tied or pointing or python_type is datetime or column.info["secret"] or column.server_default is not None
        return not kept

    def _tied(self) -> set[str]:
        """Return the columns that stand together with another one in a CHECK."""
        names = {column.name for column in self._table.columns}
        rules = [str(item.sqltext) for item in self._table.constraints if isinstance(item, CheckConstraint)]
        named = [set(re.findall(r"\w+", rule)) & names for rule in rules]
        return {name for together in named if len(together) > 1 for name in together}

    @cached_property
    def unique(self) -> frozenset[str]:
        """The columns that need a value of their own in each row, so that its unique keys hold."""
        return frozenset(name for columns in self._unique_keys() for name in self._told_apart_by(columns))

    def _unique_keys(self) -> Iterator[list[Column[Any]]]:
        for constraint in self._table.constraints:
            if isinstance(constraint, PrimaryKeyConstraint | UniqueConstraint):
                yield list(constraint.columns)
        yield from (list(index.columns) for index in self._table.indexes if index.unique)

    def _told_apart_by(self, columns: list[Column[Any]]) -> list[str]:
        """Of a unique key return what must be given and has many values; where there is nothing of the kind, the last text."""
        pointing = {"workspace_id", "id", *(parent.column for parent in self.parents)}
        free = [column for column in columns if column.name not in pointing and isinstance(column.type, _MANY)]
        given = [column.name for column in free if self._entity.model_fields[column.name].default is PydanticUndefined]
        return given or [column.name for column in free if isinstance(column.type, Text)][-1:]


def _column_names(constraint: ForeignKeyConstraint) -> tuple[str, ...]:
    return tuple(constraint.column_keys)


def _entity_of(table: Any) -> type[Entity] | None:
    for mapper in Entity._sa_registry.mappers:
        if mapper.local_table is table:
            found: type[Entity] = mapper.class_
            return found
    return None
