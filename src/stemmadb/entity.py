"""
What every entity has: its key and times, validation at construction and at assignment, and a table in the schema ``stemma``.

    class Note(Entity, table=True):
        __tablename__ = "notes"

        owner_id: Mapped[UUID] = Field(foreign_key="users.id", ondelete="CASCADE")
        text: Mapped[str] = Field(min_length=1)

Entities have no relationships: related rows come from functions. They live in a registry and a ``MetaData`` of the library's own, so
that tables of a host application with the same names do not collide with them.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Final, NoReturn, Self
from uuid import UUID

import pydantic
import pydantic_core
import sqlmodel
from pydantic import BaseModel, TypeAdapter
from sqlalchemy import DateTime, FetchedValue, ForeignKey, ForeignKeyConstraint, MetaData, PrimaryKeyConstraint, Table, Uuid, event, func
from sqlalchemy.orm import Mapped, Mapper, declared_attr, registry
from sqlalchemy.orm.attributes import instance_state
from sqlalchemy.schema import ColumnCollectionConstraint, Constraint
from sqlmodel._compat import SQLModelConfig, finish_init
from uuid_utils.compat import uuid7

from stemmadb._entity_class import EntityMeta, LineageKey
from stemmadb._entity_errors import generated, invalid
from stemmadb._fields import (
    SCHEMA,
    Field,
    NativeEnum,
    NotBlank,
    OnDelete,
    Vocabulary,
    document_field,
    enum_field,
    generated_field,
    ordered_field,
    vocabulary_field,
)
from stemmadb._ids import Id, parse_id, parse_reference
from stemmadb._tables import record_html
from stemmadb.errors import ValidationError

__all__ = [
    "Id",
    "parse_id",
    "parse_reference",
    "uuid7",
    "metadata",
    "Entity",
    "WorkspaceEntity",
    "NaturalKey",
    "SoftDelete",
    "Versioned",
    "Mapped",
    "Field",
    "document_field",
    "enum_field",
    "vocabulary_field",
    "ordered_field",
    "generated_field",
    "NotBlank",
    "reference",
    "lineage_key",
    "NativeEnum",
    "Vocabulary",
]

# --------------------------------------------------------------------------------------------------------------- names


def _columns_of(constraint: Constraint, table: Table) -> str:
    """Return the columns that a constraint's name lists: those of a tenant table leave out the workspace, which is in all of them."""
    names = [column.name for column in constraint.columns] if isinstance(constraint, ColumnCollectionConstraint) else []
    tenant = "workspace_id" in table.columns and not table.columns["workspace_id"].nullable
    if tenant and len(names) > 1:
        names = [name for name in names if name != "workspace_id"]
    return "_".join(names)


metadata: MetaData = MetaData(
    schema=SCHEMA,
    naming_convention={
        "columns": _columns_of,
        "pk": "%(table_name)s_pkey",
        "uq": "%(table_name)s_%(columns)s_key",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "fk": "%(table_name)s_%(columns)s_fkey",
        "ck": "%(table_name)s_%(constraint_name)s_check",
    },
)
_registry = registry(metadata=metadata)


# ----------------------------------------------------------------------------------------------------------- the entity

_STATE: Final = "_sa_instance_state"
_set_attribute = object.__setattr__
_set_fields = BaseModel.__dict__["__pydantic_fields_set__"].__set__
_set_extra = BaseModel.__dict__["__pydantic_extra__"].__set__
_set_private = BaseModel.__dict__["__pydantic_private__"].__set__


class Entity(sqlmodel.SQLModel, metaclass=EntityMeta, registry=_registry):
    """
    A row of a global table: ``id``, ``created_at``, ``updated_at``.

    Two objects are equal when they are the same object. A value that does not fit raises ValidationError, at construction and at assignment
    alike, and a refused assignment keeps the old value. Rules over several columns are the table's CHECKs.
    """

    __slots__ = ()
    __hash__ = object.__hash__  # pyright: ignore[reportAssignmentType]
    # Digests are bytes, and JSON has none: they are written in hexadecimal.
    model_config: ClassVar[SQLModelConfig] = {  # pyright: ignore[reportIncompatibleVariableOverride]
        "extra": "forbid",
        "ser_json_bytes": "hex",
        "val_json_bytes": "hex",
    }

    if TYPE_CHECKING:
        __tablename__: ClassVar[str]  # pyright: ignore[reportIncompatibleVariableOverride]
        __table__: ClassVar[Table]
    __generated__: ClassVar[frozenset[str]] = frozenset()
    __server_made__: ClassVar[frozenset[str]] = frozenset()
    __checks__: ClassVar[dict[str, Any]] = {}

    id: Mapped[UUID] = Field(
        default_factory=uuid7,
        sa_type=Uuid(),
        server_default=func.stemma.stemma_uuidv7(),
        # Known before the flush, so rows come back matched to their objects and an INSERT takes a thousand of them at once.
        column_options={"default": uuid7, "insert_sentinel": True},
    )
    """Made in Python with the object; ordered by time of creation."""
    created_at: Mapped[datetime] = Field(default=None, sa_type=DateTime(timezone=True), server_default=func.now())
    """When the row was inserted; set by the database unless given."""
    updated_at: Mapped[datetime] = Field(
        default=None, sa_type=DateTime(timezone=True), server_default=func.now(), column_options={"server_onupdate": FetchedValue()}
    )
    """When the row was last changed; kept by a trigger, whatever the statement says."""

    @declared_attr.directive
    def __mapper_args__(cls) -> dict[str, Any]:  # noqa: N805
        # What triggers and generated columns make comes back with the statement: nothing is loaded later behind the caller's back.
        entity: Any = cls
        found: dict[str, Any] = {"eager_defaults": True}
        if issubclass(entity, Versioned):
            found["version_id_col"] = entity.__dict__["version"]
        return found

    def __new__(cls, *_args: Any, **_values: Any) -> Self:
        # What pydantic's own does, without its detours: loading a row costs a quarter less.
        made = object.__new__(cls)
        _set_extra(made, None)
        _set_private(made, None)
        return made

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            # Of a row, what was loaded counts as set. Made when it is first asked for: most rows are only read.
            if name != "__pydantic_fields_set__":
                return super().__getattr__(name)
            loaded = type(self).model_fields.keys() & self.__dict__.keys()
            _set_fields(self, loaded)
            return loaded

        # The parameters come from the columns (PEP 681).
        def __init__(self, **values: Any) -> None:
            cls = type(self)
            if not finish_init.get() or not cls.model_config.get("table"):
                return
            if computed := cls.__generated__ & values.keys():
                raise generated(cls.__name__, min(computed))
            kept = self.__dict__  # holds SQLAlchemy's state; pydantic puts a new dictionary in its place
            try:
                cls.__pydantic_validator__.validate_python(values, self_instance=self)
                fields = self.__dict__
            except pydantic.ValidationError as error:
                raise invalid(cls.__name__, error) from None
            finally:
                _set_attribute(self, "__dict__", kept)
            given, server_made = self.__pydantic_fields_set__, cls.__server_made__
            for name, value in fields.items():
                if value is not None or name in given or name not in server_made:
                    _set_attribute(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        state: Any = self.__dict__
        if name == _STATE:
            state[name] = value
            return
        self.__pydantic_fields_set__.add(name)
        if _STATE not in state:  # inside a validator of the constructor
            state[name] = value
            return
        cls = type(self)
        check = cls.__checks__.get(name) or cls._check_of(name)
        try:
            value = check(value)
        except pydantic.ValidationError as error:
            raise invalid(cls.__name__, error, name) from None
        _set_attribute(self, name, value)

    @classmethod
    def _check_of(cls, name: str) -> Any:
        """Return what validates a value for this column, made at its first assignment."""
        field = cls.model_fields.get(name)
        if field is None:
            raise AttributeError(f"{cls.__name__} has no column {name!r}")
        if name in cls.__generated__:
            raise generated(cls.__name__, name)
        annotation: Any = field.rebuild_annotation()
        check = cls.__checks__[name] = TypeAdapter(annotation).validator.validate_python
        return check

    def __eq__(self, other: object) -> bool:
        return self is other

    def __str__(self) -> str:
        return BaseModel.__repr__(self)

    def __repr_args__(self) -> list[tuple[str | None, Any]]:
        """Loaded columns in the order of the table, without bodies and secrets. Loads nothing."""
        loaded = self.__dict__
        shown = [column.key for column in self.__table__.columns if not column.info["deferred"]]
        return [(name, loaded[name]) for name in shown if name in loaded]

    def _repr_html_(self) -> str:
        return record_html(self)

    def model_dump(self, **options: Any) -> dict[str, Any]:
        """
        Return the columns as a dictionary, without the secret ones.

        Raises:
            ValidationError: a column was not fetched. Fetch it with ``undefer``, or leave it out with ``exclude={"..."}``.
        """
        self._require_loaded(options)
        dumped = super().model_dump(**options)
        # Else the order is that in which columns happened to be loaded.
        return {column.key: dumped[column.key] for column in self.__table__.columns if column.key in dumped}

    def model_dump_json(self, *, indent: int | None = None, **options: Any) -> str:
        """Return the columns as JSON text; as model_dump."""
        return pydantic_core.to_json(self.model_dump(mode="json", **options), indent=indent).decode()

    def _require_loaded(self, options: Mapping[str, Any]) -> None:
        if instance_state(self).key is None:
            return  # not a row yet: what the database will fill in is simply absent
        include, exclude = options.get("include"), options.get("exclude") or ()
        for name, field in type(self).model_fields.items():
            wanted = not field.exclude and (include is None or name in include) and name not in exclude
            if wanted and name not in self.__dict__:
                entity = type(self).__name__
                raise ValidationError(f"{entity}.{name} was not fetched: ask for it with undefer({entity}.{name}), or exclude it", name)

    @classmethod
    def model_validate(cls, obj: Any, *, update: dict[str, Any] | None = None, **_options: Any) -> Self:
        """Return a new entity with the values of a mapping, or of the attributes of an object."""
        if not isinstance(obj, Mapping):
            found = {name: getattr(obj, name) for name in cls.model_fields if name not in cls.__generated__ and hasattr(obj, name)}
            obj = {name: value for name, value in found.items() if value is not None or name not in cls.__server_made__}
        return cls(**{**obj, **(update or {})})

    @classmethod
    def model_construct(cls, _fields_set: set[str] | None = None, **_values: Any) -> NoReturn:
        """Refused: an entity is always validated."""
        raise TypeError(f"{cls.__name__} is not made without validation: call {cls.__name__}(...)")

    def __copy__(self) -> NoReturn:
        raise TypeError(f"{type(self).__name__} is not copied, since a copy would share the row's state: make a new one from its values")

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> NoReturn:
        self.__copy__()

    def model_copy(self, **_options: Any) -> NoReturn:
        """Refused: a copy would share the row's state, and a change of one would be saved through the other."""
        self.__copy__()

    def copy(self, **_options: Any) -> NoReturn:
        """Refused, as ``model_copy``, of which it is the older name."""
        self.__copy__()

    @classmethod
    def fk(cls, *, ondelete: OnDelete | None = None) -> ForeignKey:
        """
        Return a fresh foreign key to this table's id, for a column of a host application's table.

        Args:
            ondelete: what a deletion of our row does to the host's; None leaves it to PostgreSQL, which refuses.
        """
        return ForeignKey(cls.__table__.c.id, ondelete=ondelete)


class WorkspaceEntity(Entity):
    """
    A row of a tenant table: it belongs to one workspace for ever, and its key is (workspace_id, id).

    A table is tenant-scoped by deriving from this class. Sessions put the workspace into new rows and into every statement.
    """

    # It is the same for all rows of a statement: told so, SQLAlchemy matches rows by the rest of the key, and inserts many at once.
    workspace_id: Mapped[UUID] = Field(default=None, sa_type=Uuid(), server_default=func.stemma.stemma_workspace_id(monotonic=True))
    """Set when the row is flushed, to the workspace of the session."""

    @classmethod
    def keys(cls, *columns: str) -> tuple[Constraint, ...]:
        """
        Return the constraints that every tenant table has: its primary key, and the foreign key to its workspace.

        Args:
            columns: what follows workspace_id in the primary key; ``id`` when none is given.
        """
        return (
            PrimaryKeyConstraint("workspace_id", *(columns or ("id",))),
            ForeignKeyConstraint(["workspace_id"], [f"{SCHEMA}.workspaces.id"], ondelete="CASCADE"),
        )

    @classmethod
    def fk(  # type: ignore[override]  # one column cannot point at a key of two
        cls, workspace_column: str = "workspace_id", column: str | None = None, *, ondelete: OnDelete | None = None
    ) -> ForeignKeyConstraint:
        """
        Return a fresh foreign key to this table, for the ``__table_args__`` of a host application's table.

        It has two columns, because the key has: a key on the id alone would let a row of one workspace hang on a row of another.

        Args:
            workspace_column: the host's column with the id of the workspace.
            column: the host's column with the id; ``definition_id`` for Definition when None.
            ondelete: what a deletion of our row does to the host's; None leaves it to PostgreSQL, which refuses.
        """
        if column is None:
            column = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in cls.__name__).strip("_") + "_id"
        target = cls.__table__.c
        return ForeignKeyConstraint([workspace_column, column], [target.workspace_id, target.id], ondelete=ondelete)


class NaturalKey(Entity):
    """Mixin: the row has no id, because other columns are its key."""

    id: ClassVar[Any]  # type: ignore[misc]  # pyright: ignore[reportIncompatibleVariableOverride]


class SoftDelete(Entity):
    """Mixin: the row is hidden, not removed. Functions leave deleted rows out unless asked."""

    deleted_at: Mapped[datetime | None] = Field(default=None)
    """When the row was deleted; None while it is live."""


class Versioned(Entity):
    """Mixin: an object whose row somebody changed since it was read cannot be saved; functions then raise VersionConflictError."""

    version: Mapped[int] = Field(default=1, ge=1)
    """Counts saves of this row, for optimistic locking. Starts at 1."""


# ----------------------------------------------------------------------------------------------------------- table args


def reference(column: str, table: str, *, ondelete: OnDelete) -> ForeignKeyConstraint:
    """Return the foreign key of one tenant table to another: (workspace_id, column) to (workspace_id, id)."""
    return ForeignKeyConstraint(["workspace_id", column], [f"{SCHEMA}.{table}.workspace_id", f"{SCHEMA}.{table}.id"], ondelete=ondelete)


def lineage_key(parent: str, root: str, parent_depth: str) -> Any:
    """
    Return the foreign key of a version tree: a row lies one level below its parent and in its parent's tree.

    The table needs UNIQUE (workspace_id, id, root_id, depth) and a generated column ``parent_depth`` of ``depth - 1``. Since depth grows
    along every edge, no statement can make a cycle.

    Args:
        parent: the column with the parent's id, NULL for a root.
        root: the column with the root's id.
        parent_depth: the column with the parent's depth.
    """
    return LineageKey(parent, root, parent_depth)


# ------------------------------------------------------------------------------------------------------------- mappers


@event.listens_for(Mapper, "before_configured")
def _load_packs() -> None:
    """Import the entities of all packs before the first is used: their tables refer to each other, and SQLAlchemy follows that."""
    from stemmadb.packs import packs

    packs()
