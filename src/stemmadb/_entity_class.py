"""
The metaclass of entities.

Columns are annotated ``Mapped[T]``: type checkers then see SQLAlchemy's descriptors (``Definition.name == "x"`` is a
``ColumnElement[bool]``, ``definition.name`` a ``str``), and pydantic, which gets the bare ``T``, validates.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, dataclass_transform, get_args, get_origin, get_type_hints

import sqlmodel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from sqlalchemy import CheckConstraint, Column, ForeignKeyConstraint, PrimaryKeyConstraint
from sqlalchemy.orm import Mapped, deferred
from sqlmodel._compat import get_annotations
from sqlmodel.main import SQLModelMetaclass

from stemmadb._fields import (
    SCHEMA,
    ColumnSpec,
    Field,
    Vocabulary,
    document_field,
    enum_field,
    field_for,
    generated_field,
    ordered_field,
    vocabulary_field,
)

_LAST = ("created_at", "updated_at")


@dataclass(frozen=True, slots=True)
class LineageKey:
    """A foreign key of a table to itself; it waits here for the name of its table."""

    parent: str
    root: str
    parent_depth: str

    def on(self, table: str) -> ForeignKeyConstraint:
        """Return the constraint for this table."""
        target = f"{SCHEMA}.{table}"
        return ForeignKeyConstraint(
            ["workspace_id", self.parent, self.root, self.parent_depth],
            [f"{target}.workspace_id", f"{target}.id", f"{target}.root_id", f"{target}.depth"],
            name=f"{table}_{self.parent}_fkey",
            ondelete="NO ACTION",
        )


@dataclass_transform(
    kw_only_default=True,
    field_specifiers=(Field, document_field, enum_field, vocabulary_field, ordered_field, generated_field, sqlmodel.Field, FieldInfo),
)
class EntityMeta(SQLModelMetaclass):
    """Strips ``Mapped``, makes the columns, puts them in order, defers what is deferred."""

    def __new__(mcs, name: str, bases: tuple[type[Any], ...], namespace: dict[str, Any], **options: Any) -> Any:
        annotations = _plain_annotations(namespace)
        own = [field for field, annotation in annotations.items() if not _is_class_variable(annotation)]
        checks = []
        for field in own:
            spec = namespace.get(field, PydanticUndefined)
            if isinstance(spec, FieldInfo):
                continue
            if not isinstance(spec, ColumnSpec):
                spec = Field(spec)
            namespace[field] = field_for(annotations[field], spec)
            if type(spec.sa_type) is Vocabulary:
                labels = ", ".join(f"'{label}'" for label in spec.sa_type.enum)
                checks.append(CheckConstraint(f"{field} IN ({labels})", name=field))
        namespace["__annotations__"] = annotations
        if options.get("table"):
            table = namespace["__tablename__"]
            given = [item.on(table) if isinstance(item, LineageKey) else item for item in namespace.get("__table_args__", ())]
            if not any(isinstance(item, PrimaryKeyConstraint) for item in given):
                given.insert(0, PrimaryKeyConstraint("id"))
            namespace["__table_args__"] = (*given, *checks)
        made: Any = super().__new__(mcs, name, bases, namespace, **options)
        if options.get("table"):
            _refuse_field_validators(made)
            _arrange(made, own)
        return made


def _plain_annotations(namespace: dict[str, Any]) -> dict[str, Any]:
    annotations = dict(get_annotations(namespace))
    if any(isinstance(annotation, str) for annotation in annotations.values()):
        # The module postpones the evaluation of its annotations; everything that a column needs is defined above its class.
        holder = type("holder", (), {"__annotations__": annotations, "__module__": namespace["__module__"]})
        annotations = get_type_hints(holder, include_extras=True)
    return {name: get_args(hint)[0] if get_origin(hint) is Mapped else hint for name, hint in annotations.items()}


def _is_class_variable(annotation: Any) -> bool:
    return annotation is ClassVar or get_origin(annotation) is ClassVar


def _refuse_field_validators(entity: Any) -> None:
    """Assignment checks one value by its annotation, where the decorated methods are not."""
    if names := sorted(entity.__pydantic_decorators__.field_validators):
        raise TypeError(
            f"{entity.__name__} has field validators ({', '.join(names)}), which would not run at assignment: "
            "put the function into the annotation, Mapped[Annotated[str, AfterValidator(...)]]"
        )


def _arrange(entity: Any, own: list[str]) -> None:
    """Put the columns in the order key, own, inherited, times: SQLAlchemy takes the order of the class's attributes."""
    columns: Mapping[str, Column[Any]] = {name: entity.__dict__[name] for name in entity.model_fields}
    first = [name for name in ("workspace_id", "id") if name in columns and name not in own]
    last = [name for name in _LAST if name in columns and name not in own]
    inherited = [name for name in columns if name not in (*first, *own, *last)]
    order = [*first, *(name for name in own if name in columns), *inherited, *last]
    for name in order:
        column = columns[name]
        type.__delattr__(entity, name)
        type.__setattr__(entity, name, deferred(column, raiseload=True) if column.info.get("deferred") else column)
    annotations = entity.__annotations__
    entity.__annotations__ = {name: annotations[name] for name in order if name in annotations} | annotations
    type.__setattr__(entity, "__generated__", frozenset(name for name, column in columns.items() if column.computed is not None))
    made_by_server = frozenset(name for name, column in columns.items() if column.server_default is not None)
    type.__setattr__(entity, "__server_made__", made_by_server)
    type.__setattr__(entity, "__checks__", {})
