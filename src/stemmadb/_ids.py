"""Ids as callers have them, and as columns have them."""

from uuid import UUID

from stemmadb.errors import NotFoundError, ValidationError

Id = UUID | str
"""An id as callers have it: a UUID, or its text."""


def parse_id(value: Id, entity: str) -> UUID:
    """
    Return the id as a UUID, for a row that is looked up.

    Raises:
        NotFoundError: it is not a UUID, so no row has it.
    """
    parsed = _as_uuid(value)
    if parsed is None:
        raise NotFoundError(entity, value)
    return parsed


def parse_reference(value: Id, field: str) -> UUID:
    """
    Return the id as a UUID, for a value that is stored or filtered by.

    Raises:
        ValidationError: it is not a UUID; ``field`` says which value.
    """
    parsed = _as_uuid(value)
    if parsed is None:
        raise ValidationError(f"{field} is not a UUID", field)
    return parsed


def _as_uuid(value: object) -> UUID | None:
    if isinstance(value, UUID):
        return value
    try:
        return UUID(value) if isinstance(value, str) else None
    except ValueError:
        return None
