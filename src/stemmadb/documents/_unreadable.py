"""What becomes of stored documents that cannot be read, so that one row does not break its page."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

from sqlalchemy import Row
from sqlalchemy.orm import Mapper, QueryableAttribute
from sqlalchemy.orm.attributes import instance_state, set_committed_value

from stemmadb import errors
from stemmadb.documents._load import parse

_ON_INVALID = ("raise", "skip", "raw")

log = logging.getLogger("stemmadb.documents")

E = TypeVar("E")

OnInvalid: TypeAlias = Literal["raise", "skip", "raw"]
"""Whether a row whose document cannot be read raises, is left out, or comes with a RawDocument in the document's place."""


@dataclass(frozen=True)
class RawDocument:
    """What stands in the place of a document that cannot be read. It is never written."""

    raw: Any
    """What is stored: the JSON value, or the text where it cannot be parsed."""

    error: errors.DocumentError
    """Why it cannot be read."""


_keeping: ContextVar[bool] = ContextVar("stemmadb_keep_unreadable", default=False)


@contextmanager
def keep_unreadable() -> Iterator[None]:
    """
    Put a RawDocument where a fetched document cannot be read, instead of raising.

    Rows are to be fetched inside the block and given to ``resolve_unreadable`` behind it. In a generator, no ``yield`` belongs inside.
    """
    token = _keeping.set(True)
    try:
        yield
    finally:
        _keeping.reset(token)


def raw_or_raise(raw: Any, error: errors.DocumentError) -> RawDocument:
    """Return the stored value inside of ``keep_unreadable``, and raise the error elsewhere."""
    if not _keeping.get():
        raise error
    return RawDocument(_value(raw), error)


def check_on_invalid(on_invalid: str) -> None:
    """
    Refuse what is no ``OnInvalid``, before anything is sent.

    Raises:
        ValidationError: it is none.
    """
    if on_invalid not in _ON_INVALID:
        raise errors.ValidationError('on_invalid is "raise", "skip" or "raw"', "on_invalid")


def resolve_unreadable(entities: Iterable[E], on_invalid: OnInvalid = "raise") -> list[E]:
    """
    Apply ``on_invalid`` to entities, or to rows of entities and values, that were fetched inside of ``keep_unreadable``.

    Raises:
        DocumentError: a document cannot be read, and ``on_invalid`` is "raise". The error has the key of the row.
    """
    return [entity for entity in entities if _stays(entity, on_invalid)]


def attach_documents(
    pairs: Iterable[tuple[E, str | bytes | dict[str, Any] | None]], attribute: QueryableAttribute[Any], on_invalid: OnInvalid = "raise"
) -> list[E]:
    """
    Give entities the documents of a column that was selected beside them, as text: ``cast(Transcript.content, Text)``.

    The documents count as loaded: no entity is changed by it.

    Args:
        pairs: entities and what is stored; None is NULL.
        attribute: the column's attribute, ``Transcript.content``.
        on_invalid: what becomes of a row whose document cannot be read.

    Returns:
        The entities in the order given, less those left out.

    Raises:
        DocumentError: a document cannot be read, and ``on_invalid`` is "raise". The error names table, column and key.
    """
    column: Any = attribute.type
    kept = []
    for entity, raw in pairs:
        with keep_unreadable():
            document = column.read(raw)
        set_committed_value(entity, attribute.key, document)
        if not isinstance(document, RawDocument) or _keep(entity, [(attribute.key, document)], on_invalid):
            kept.append(entity)
    return kept


def _stays(found: Any, on_invalid: OnInvalid) -> bool:
    """Raise, or tell whether an entity, a value or a row of these stays."""
    if isinstance(found, Row):
        return all(_stays(part, on_invalid) for part in found)
    if isinstance(found, RawDocument):
        if on_invalid == "raise":
            raise found.error
        return on_invalid == "raw"
    return getattr(found, "_sa_instance_state", None) is None or _keep(found, _unreadable_in(found), on_invalid)


def _keep(entity: Any, unreadable: list[tuple[str, RawDocument]], on_invalid: OnInvalid) -> bool:
    """Raise, or tell whether an entity stays; set its unreadable documents, with errors that have its key."""
    for attribute, document in unreadable:
        key = key_of(entity)
        error = document.error.located(document.error.table, document.error.column, key)
        if on_invalid == "raise":
            raise error from document.error.__cause__
        if on_invalid == "skip":
            log.warning("left out a row whose document cannot be read: %s", error)
            return False
        set_committed_value(entity, attribute, RawDocument(document.raw, error))
    return True


def _unreadable_in(entity: Any) -> list[tuple[str, RawDocument]]:
    state = instance_state(entity)
    held = ((name, state.dict.get(name)) for name in document_attributes(state.mapper))
    return [(name, value) for name, value in held if isinstance(value, RawDocument)]


_attributes: WeakKeyDictionary[Mapper[Any], tuple[str, ...]] = WeakKeyDictionary()


def document_attributes(mapper: Mapper[Any]) -> tuple[str, ...]:
    """Return the names of a mapper's document attributes; looked up once."""
    names = _attributes.get(mapper)
    if names is None:
        # The type of the column imports this module.
        names = tuple(item.key for item in mapper.column_attrs if getattr(item.columns[0].type, "document", None) is not None)
        _attributes[mapper] = names
    return names


def key_of(entity: Any) -> Any:
    """Return the id in the key of a stored entity; its whole key, where that has none. Nothing is fetched for it."""
    state = instance_state(entity)
    return None if state.key is None else shown_key(state.mapper, state.key[1])


def shown_key(mapper: Mapper[Any], identity: tuple[Any, ...]) -> Any:
    """Return what names a row in messages: the id in its key; the whole key, where that has none."""
    names = [column.key for column in mapper.primary_key]
    return identity[names.index("id")] if "id" in names else identity


def _value(raw: Any) -> Any:
    if not isinstance(raw, str | bytes):
        return raw
    try:
        return parse(raw)
    except errors.CorruptDocumentError:
        return raw
