"""What repositories write: values checked by name, the version and document guards of a change, and INSERT ... ON CONFLICT."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

import pydantic
from sqlalchemy import Column, ColumnElement, PrimaryKeyConstraint, UniqueConstraint, and_, func, literal, select
from sqlalchemy.dialects.postgresql import Insert, insert
from sqlalchemy.orm import Session

from stemmadb import tenancy
from stemmadb._entity_errors import invalid
from stemmadb.entity import Entity, Versioned
from stemmadb.errors import (
    CorruptDocumentError,
    NotFoundError,
    StemmaError,
    UnknownFieldError,
    UnknownSchemaVersionError,
    ValidationError,
    VersionConflictError,
)

T = TypeVar("T", bound=Entity)

# Set once, by the database, or by the functions made for them.
_FIXED = frozenset({"workspace_id", "created_at", "updated_at", "version", "deleted_at"})

FRESH = {"populate_existing": True, "synchronize_session": False}
"""Execution options: an object that the session has takes the values that RETURNING brings, and forgets deferred ones."""


def made(entity: type[T], data: Mapping[str, Any]) -> T:
    """
    Return a new object with these values, not yet in a session.

    Raises:
        UnknownFieldError: a name that is no column.
        ValidationError: a value that its column cannot have.
    """
    _require_names(entity, data, sorted(set(entity.model_fields) - entity.__generated__))
    return entity(**data)


def changes(entity: type[Entity], data: Mapping[str, Any], key: Collection[str]) -> dict[str, Any]:
    """
    Return the values of an UPDATE, checked as an assignment checks them.

    Raises:
        UnknownFieldError: a name that is no column, or of one that never changes.
        ValidationError: a value that its column cannot have.
    """
    _require_names(entity, data, sorted(set(entity.model_fields) - entity.__generated__ - _FIXED - set(key)))
    checked: dict[str, Any] = {}
    for name, value in data.items():
        try:
            checked[name] = entity._check_of(name)(value)
        except pydantic.ValidationError as error:
            raise invalid(entity.__name__, error, name) from None
    return checked


def next_version(entity: type[Entity]) -> dict[str, Any]:
    """Return what an UPDATE adds to its values so that optimistic locking sees it."""
    return {"version": entity.version + 1} if issubclass(entity, Versioned) else {}


def version_guards(entity: type[Entity], expected: int | None) -> list[ColumnElement[bool]]:
    """
    Return the condition that the row has this version; none for None.

    Raises:
        ValidationError: rows of the entity have no version.
    """
    if expected is None:
        return []
    if not issubclass(entity, Versioned):
        raise ValidationError(f"{entity.__name__} has no version: leave expected_version out", "expected_version")
    return [entity.version == expected]


def document_guards(entity: type[Entity], names: Collection[str]) -> list[ColumnElement[bool]]:
    """Return conditions under which the documents among these columns may be replaced: this release knows the stored versions."""
    # A malformed version, which is -1 here, may be of any release.
    return [version.between(0, known) for _, version, known in _documents(entity, names)]


def refusal(
    session: Session, entity: type[Entity], where: Sequence[ColumnElement[bool]], key: Any, names: Collection[str], seen: int | None
) -> StemmaError:
    """Return why an UPDATE of the row changed nothing: it is not there, was saved since, or has a document of an unknown version."""
    documents = _documents(entity, names)
    version: Any = entity.version if issubclass(entity, Versioned) else literal(None)
    row = session.execute(select(version, *[found for _, found, _ in documents]).select_from(entity).where(*where)).first()
    if row is None:
        return NotFoundError(entity.__name__, key)
    current, *found = row
    if seen is None or seen == current:
        for (name, _, known), stored in zip(documents, found, strict=True):
            if stored < 0:
                reason = "its version is malformed, or of more than nine digits"
                return CorruptDocumentError(entity.__table__.name, name, key, reason, "/schema_version")
            if stored > known:
                return UnknownSchemaVersionError(entity.__table__.name, name, key, stored, known)
    return VersionConflictError(entity.__name__, key, seen, current)


def upsert(session: Session, row: Entity, names: Collection[str], on: Sequence[str]) -> Insert:
    """
    Return the INSERT of an object's values that, where a row with the same values of ``on`` exists, changes ``names`` of that row.

    Raises:
        UnknownFieldError: a name of ``on`` is not among ``names``.
        ValidationError: no unique key has exactly the columns of ``on``.
    """
    entity = type(row)
    _require_names(entity, on, sorted(names))
    columns, where = _unique_key(entity, on)
    given = [name for name in entity.model_fields if name in row.__dict__ and name not in entity.__generated__]
    values = {name: getattr(row, name) for name in given}
    if tenancy.is_tenant(entity):
        values["workspace_id"] = tenancy.workspace_of(session)
    statement = insert(entity).values(values)
    key = {column.name for column in entity.__table__.primary_key}
    changed = [name for name in names if name not in on and name not in key and name not in _FIXED]
    # DO NOTHING would return no row, so a row about which nothing new is said is written as it is.
    taken: dict[str, Any] = {name: statement.excluded[name] for name in changed or on}
    guards = document_guards(entity, changed)
    return statement.on_conflict_do_update(
        index_elements=columns,
        index_where=where,
        set_={**taken, **(next_version(entity) if changed else {})},
        where=and_(*guards) if guards else None,
    )


def _documents(entity: type[Entity], names: Collection[str]) -> list[tuple[str, ColumnElement[int], int]]:
    """Return the documents among these columns: name, version in the row, and the newest version that this release knows."""
    found = []
    for name in names:
        column = entity.__table__.c[name]
        document = column.info.get("document")
        if document is not None:
            version: ColumnElement[int] = func.coalesce(func.stemma.stemma_document_version(column), 0)
            found.append((name, version, document.newest_version))
    return found


def _unique_key(entity: type[Entity], on: Sequence[str]) -> tuple[list[Column[Any]], Any]:
    """Return the columns of the unique key that has exactly these, and the condition of its index when it covers some rows only."""
    table = entity.__table__
    wanted = {*on, "workspace_id"} if tenancy.is_tenant(entity) else set(on)
    for constraint in table.constraints:
        if isinstance(constraint, PrimaryKeyConstraint | UniqueConstraint) and not constraint.deferrable:
            columns = list(constraint.columns)
            if {column.name for column in columns} == wanted:
                return columns, None
    for index in table.indexes:
        columns = list(index.columns)
        if index.unique and len(columns) == len(index.expressions) and {column.name for column in columns} == wanted:
            return columns, index.dialect_options["postgresql"]["where"]
    raise ValidationError(f"{entity.__name__} has no unique key of exactly {', '.join(on)}: name the columns of one", "on")


def _require_names(entity: type[Entity], names: Collection[Any], offered: Sequence[str]) -> None:
    for name in names:
        if not isinstance(name, str) or name not in offered:
            raise UnknownFieldError(entity.__name__, str(name), offered)
