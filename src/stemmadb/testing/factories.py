"""
Factories: entities with values that vary, built without a database or stored with the rows that they need.

    from stemmadb.testing.factories import factory_of

    user = factory_of(User).build(name="Ada")               # nothing is sent
    run = factory_of(Run).create(session)                   # with the definition that it runs
    many = factory_of(Transcript).create_many(session, 500, run_id=run.id)

They are polyfactory's model factories, with its ways of declaring columns. Needs the extra ``testing``.
"""

import functools
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeGuard, TypeVar, cast

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from stemmadb.entity import Entity
from stemmadb.errors import MissingDependencyError, ValidationError
from stemmadb.packs import packs
from stemmadb.query import guard, query
from stemmadb.testing import _values
from stemmadb.testing._columns import EntityColumns

try:
    from faker import Faker
    from polyfactory import PostGenerated, Use
    from polyfactory.factories.pydantic_factory import ModelFactory
    from polyfactory.field_meta import FieldMeta
except ImportError as _error:
    raise MissingDependencyError("testing") from _error

if TYPE_CHECKING:
    from random import Random

__all__ = ["EntityFactory", "PostGenerated", "Use", "factory_of", "seed"]

E = TypeVar("E", bound=Entity)

_own: dict[type[Entity], "type[EntityFactory[Any]]"] = {}
_derived: dict[type[Entity], "type[EntityFactory[Any]]"] = {}


def _faker() -> Faker:
    made: Any = Faker()
    made.random = _values.RANDOM
    return cast("Faker", made)


class EntityFactory(ModelFactory[E], Generic[E]):
    """
    Makes entities of one class. The columns that say something keep their defaults: a user is active, a run is pending.

    The others vary on purpose, with text of many scripts, empty where that is allowed, and numbers at their bounds: a test that is about
    a value gives it. What CHECKs tie together is told to a factory of its own:

        class NoteFactory(EntityFactory[Note]):
            __set_as_default_factory_for_type__ = True

            closed_at = PostGenerated(lambda name, values: later() if values["status"] is NoteStatus.CLOSED else None)
    """

    __is_base_factory__ = True
    __faker__: ClassVar[Faker] = _faker()
    __random__: ClassVar["Random"] = _values.RANDOM

    def __init_subclass__(cls, *args: object, **options: object) -> None:
        super().__init_subclass__(*args, **options)
        if cls.__dict__.get("__set_as_default_factory_for_type__"):
            _own[cls.__model__] = cls

    @classmethod
    def create(cls, session: Session, **values: object) -> E:
        """
        Store one entity, and the rows that its required references point at where none are given; flushed, not committed.

        One statement for it, and one for each row that it needs. A refused row leaves the caller's transaction usable.

        Args:
            session: in a workspace, for a tenant table.
            values: columns, by name.

        Raises:
            ValidationError: a value does not fit its column, or there is no such column.
            ConstraintViolationError: the database refused it; a CHECK over several columns wants a factory that knows it.
            ConflictError: a value given is taken.
            WorkspaceNotSetError: the session has no workspace; nothing was sent.
        """
        return cls.create_each(session, [values])[0]

    @classmethod
    def create_many(cls, session: Session, size: int, **values: object) -> list[E]:
        """
        Store so many entities, as ``create``: a thousand of a table with one statement.

        Each gets rows of its own for its required references, unless they are given.

        Args:
            session: in a workspace, for a tenant table.
            size: how many.
            values: columns that all of them have alike.
        """
        return cls.create_each(session, [values] * size)

    @classmethod
    def create_each(cls, session: Session, rows: Iterable[Mapping[str, object]]) -> list[E]:
        """
        Store one entity for each mapping of columns, as ``create_many``.

        Args:
            session: in a workspace, for a tenant table.
            rows: what each of them has of its own.

        Returns:
            The entities, in the order of the mappings.
        """
        guard(session, cls.__model__, f"{cls.__name__}.create")
        return cast("list[E]", _create(session, cls, [dict(row) for row in rows]))

    @classmethod
    async def acreate(cls, session: AsyncSession, **values: object) -> E:
        """Store one entity, as ``create``, in an async session."""
        return (await session.run_sync(cls.create_each, [values]))[0]

    @classmethod
    async def acreate_many(cls, session: AsyncSession, size: int, **values: object) -> list[E]:
        """Store so many entities, as ``create_many``, in an async session."""
        return await session.run_sync(cls.create_each, [values] * size)

    @classmethod
    def before_insert(cls, session: Session, rows: list[dict[str, object]]) -> None:
        """
        Complete what was given for each row before the entities are built: the keys of rows that it points at, which are stored here.

        A factory of an entity that needs more than one row of each kind overrides it, and calls it for the rest.

        Args:
            session: where they will be stored.
            rows: the columns given for each; changed in place.
        """
        for parent in EntityColumns.of(cls.__model__).parents:
            waiting = [row for row in rows if parent.column not in row]
            if parent.required and waiting and parent.entity is not None and parent.entity is not cls.__model__:
                stored = factory_of(parent.entity).create_many(session, len(waiting))
                for row, other in zip(waiting, stored, strict=True):
                    row[parent.column] = getattr(other, parent.target)

    # ------------------------------------------------------------------------------------------------ polyfactory's own hooks

    @classmethod
    def is_supported_type(cls, value: object) -> TypeGuard[type[E]]:
        """Return whether it is an entity."""
        return isinstance(value, type) and issubclass(value, Entity)

    @classmethod
    def get_model_fields(cls) -> list[FieldMeta]:
        """Return the columns. What their types and rules are is asked of the entity."""
        if "_fields_metadata" not in cls.__dict__:
            cls._fields_metadata = [FieldMeta(name=name, annotation=object) for name in cls.__model__.model_fields]
        return cls._fields_metadata

    @classmethod
    def process_kwargs(cls, **kwargs: object) -> dict[str, object]:
        """Return the values of one entity: those given, those declared, those drawn."""
        unknown = kwargs.keys() - cls.__model__.model_fields.keys() - {"_build_context"}
        if unknown:
            raise ValidationError(f"{cls.__model__.__name__} has no column {min(unknown)!r}", min(unknown))
        if _values.is_seeded() and "id" in cls.__model__.model_fields:
            kwargs.setdefault("id", _values.new_id())
        made = super().process_kwargs(**kwargs)
        made.pop("_build_context", None)
        return made

    @classmethod
    def should_use_default_value(cls, field_meta: FieldMeta) -> bool:
        """Return whether the entity's default is kept: whatever is neither declared nor varied."""
        name = field_meta.name
        declared = hasattr(cls, name) and not hasattr(EntityFactory, name)
        return not declared and name not in EntityColumns.of(cls.__model__).varied

    @classmethod
    def get_field_value(cls, field_meta: FieldMeta, field_build_parameters: object = None, build_context: object = None) -> object:  # noqa: ARG003
        """Return a value for a column that its validator accepts."""
        entity, name = cls.__model__, field_meta.name
        field = entity.model_fields[name]
        return _values.drawn(
            field.annotation,
            tuple(field.metadata),
            entity._check_of(name),
            unique=name in EntityColumns.of(entity).unique,
            place=f"{entity.__name__}.{name}",
        )


def factory_of(entity: type[E]) -> type[EntityFactory[E]]:
    """
    Return the factory of an entity: an application's own, else that of its pack, else one made from its columns.

    Args:
        entity: of a pack, or of an application. A factory is an application's own when it says ``__set_as_default_factory_for_type__``.
    """
    found = _own.get(entity) or _of_packs().get(entity) or _derived.get(entity)
    if found is None:
        found = _derived[entity] = type(f"{entity.__name__}Factory", (EntityFactory,), {"__model__": entity, "__module__": __name__})
    return cast("type[EntityFactory[E]]", found)


@query
def _create(session: Session, factory: type[EntityFactory[Any]], rows: list[dict[str, object]]) -> list[Any]:
    if not rows:
        return []
    with session.begin_nested():
        factory.before_insert(session, rows)
        made = [factory.build(**cast("dict[str, Any]", row)) for row in rows]
        session.add_all(made)
        session.flush()
    return made


@functools.cache
def _of_packs() -> Mapping[type[Entity], type[EntityFactory[Any]]]:
    return {factory.__model__: factory for pack in packs() for factory in pack.load_factories()}


def seed(number: int) -> None:
    """
    Begin the sequence of values that this number stands for, for all factories of the process.

    The same calls in the same order, in one thread, give the same entities: ids, keys of other rows and documents included.
    """
    _values.seed(number)
