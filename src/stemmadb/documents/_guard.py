"""
No UPDATE overwrites a document of a newer release.

Functions and hosts that write an UPDATE of their own add ``version_guard(column)`` to its WHERE. Changes that a session flushes are checked
here: just before the UPDATEs, one statement for each table locks the rows whose documents were assigned, in the order of their keys, and
reads the versions stored. The UPDATE itself cannot carry the condition, since SQLAlchemy writes its WHERE, and what was loaded proves
nothing: a newer release may have written since, and a deferred document may be assigned without having been read. The price is a
round trip for a flush that changes documents; the lock is the one that the UPDATE takes anyway.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import ColumnElement, event, func, select, tuple_
from sqlalchemy.orm import Mapper, Session
from sqlalchemy.orm.attributes import get_state_history, instance_state
from sqlalchemy.orm.base import PASSIVE_NO_INITIALIZE
from sqlalchemy.orm.state import InstanceState

from stemmadb import errors
from stemmadb.documents._column import DocumentColumn
from stemmadb.documents._unreadable import key_of


def stored_version(column: Any) -> ColumnElement[int]:
    """
    Return the version of a stored document as SQL: 0 without one, also for NULL, and -1 when it is malformed.

    The column ``<column>_version`` is used where there is one: it spares fetching a large document.
    """
    mapped: Any = getattr(column, "property", None)
    plain = mapped.columns[0] if mapped is not None else column
    narrow = plain.table.columns.get(f"{plain.name}_version")
    return func.coalesce(func.stemma.stemma_document_version(plain) if narrow is None else narrow, 0)


def version_guard(column: Any) -> ColumnElement[bool]:
    """
    Return the condition under which a document column may be overwritten: this release knows the stored version.

    A malformed version is not known either: it may be of any release. When an UPDATE with this condition changes no row, the row is to be
    read again, to tell what stood against it.
    """
    return stored_version(column).between(0, column.type.document.newest_version)


@event.listens_for(Session, "before_flush")
def _check_assigned(session: Session, flush_context: Any, instances: Any) -> None:  # noqa: ARG001
    assigned: dict[Mapper[Any], dict[str, list[InstanceState[Any]]]] = defaultdict(lambda: defaultdict(list))
    for entity in session.dirty:
        state = instance_state(entity)
        for name in _document_attributes(state.mapper):
            if name in state.committed_state and get_state_history(state, name, PASSIVE_NO_INITIALIZE).has_changes():
                assigned[state.mapper][name].append(state)
    for mapper, attributes in assigned.items():
        _lock_and_check(session, mapper, attributes)


_attributes: WeakKeyDictionary[Mapper[Any], tuple[str, ...]] = WeakKeyDictionary()


def _document_attributes(mapper: Mapper[Any]) -> tuple[str, ...]:
    """Return the names of a mapper's document attributes; looked up once."""
    names = _attributes.get(mapper)
    if names is None:
        names = tuple(attribute.key for attribute in mapper.column_attrs if isinstance(attribute.columns[0].type, DocumentColumn))
        _attributes[mapper] = names
    return names


def _lock_and_check(session: Session, mapper: Mapper[Any], attributes: dict[str, list[InstanceState[Any]]]) -> None:
    key = mapper.primary_key
    columns = {name: mapper.column_attrs[name].columns[0] for name in attributes}
    identities = sorted({state.key[1] for states in attributes.values() for state in states if state.key is not None})
    statement = (
        select(*key, *(stored_version(column).label(f"_{position}") for position, column in enumerate(columns.values())))
        .where(*_among(key, identities))
        .order_by(*key)
        .with_for_update(key_share=True)
    )
    # On the connection: the session adds to its own queries, and may look for a workspace.
    rows = session.connection(bind_arguments={"mapper": mapper}).execute(statement)
    stored = {tuple(row[: len(key)]): row[len(key) :] for row in rows}
    for position, (name, column) in enumerate(columns.items()):
        for state in attributes[name]:
            identity = state.key[1] if state.key is not None else None
            # A row that is gone is the UPDATE's to report.
            if identity in stored:
                _check(stored[identity][position], column, key_of(state.obj()))


def _among(key: Sequence[ColumnElement[Any]], identities: list[tuple[Any, ...]]) -> list[ColumnElement[bool]]:
    """Return the condition that selects rows by key. A column with one value is compared by itself: Citus routes by the workspace's."""
    shared = [position for position in range(len(key)) if len({identity[position] for identity in identities}) == 1]
    conditions = [key[position] == identities[0][position] for position in shared]
    others = [position for position in range(len(key)) if position not in shared]
    if others:
        wanted = [tuple(identity[position] for position in others) for identity in identities]
        conditions.append(tuple_(*(key[position] for position in others)).in_(wanted))
    return conditions


def _check(version: int, column: Any, key: object) -> None:
    known = column.type.document.newest_version
    table, name = column.type.place()
    if version < 0:
        raise errors.CorruptDocumentError(table, name, key, "its version is malformed, or of more than nine digits", "/schema_version")
    if version > known:
        raise errors.UnknownSchemaVersionError(table, name, key, version, known)
