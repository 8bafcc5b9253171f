"""
No UPDATE overwrites a document of a newer release.

Changes that a session flushes are checked here: just before the UPDATEs, one statement for each table locks the rows whose documents were
assigned, in the order of their keys, and reads the versions stored. The UPDATE itself cannot carry the condition, since SQLAlchemy writes
its WHERE, and what was loaded proves nothing: a newer release may have written since, and a deferred document may be assigned without
having been read. The price is a round trip for a flush that changes documents; the lock is the one that the UPDATE takes anyway.

An ``update()`` that a session executes gets the condition into its WHERE. SQL text, an INSERT with ON CONFLICT DO UPDATE, and what is
executed on a connection add ``version_guard(column)`` themselves.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Update, event, func, select, tuple_
from sqlalchemy.orm import Mapper, ORMExecuteState, Session
from sqlalchemy.orm.attributes import get_state_history, instance_state
from sqlalchemy.orm.base import PASSIVE_NO_INITIALIZE
from sqlalchemy.orm.context import FromStatement
from sqlalchemy.orm.state import InstanceState

from stemmadb import errors
from stemmadb.documents._column import DocumentColumn
from stemmadb.documents._unreadable import document_attributes, shown_key


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
    read again, to tell what stood against it. An ``update()`` that a session executes has the condition without being asked.
    """
    return stored_version(column).between(0, column.type.document.newest_version)


@event.listens_for(Session, "before_flush")
def _check_assigned(session: Session, flush_context: Any, instances: Any) -> None:  # noqa: ARG001
    assigned: dict[Mapper[Any], dict[str, list[InstanceState[Any]]]] = defaultdict(lambda: defaultdict(list))
    for entity in session.dirty:
        state = instance_state(entity)
        for name in document_attributes(state.mapper):
            if name in state.committed_state and get_state_history(state, name, PASSIVE_NO_INITIALIZE).has_changes():
                assigned[state.mapper][name].append(state)
    for mapper, attributes in assigned.items():
        _lock_and_check(session, mapper, {name: [_identity(state) for state in states] for name, states in attributes.items()})


def _identity(state: InstanceState[Any]) -> tuple[Any, ...]:
    """Return the key of a stored entity."""
    return () if state.key is None else state.key[1]


@event.listens_for(Session, "do_orm_execute")
def _guard_update(execution: ORMExecuteState) -> None:
    if not execution.is_update:
        return
    whole: Any = execution.statement
    statement: Any = whole.element if isinstance(whole, FromStatement) else whole
    columns = _documents_set_by(statement, execution) if isinstance(statement, Update) else {}
    if not columns:
        return
    parameters: Any = execution.parameters
    if execution.bind_mapper is not None and isinstance(parameters, list | tuple) and statement.whereclause is None:
        # By primary key: SQLAlchemy lets no condition be added, so that the rows are checked as those of a flush.
        _lock_and_check(execution.session, execution.bind_mapper, _rows_by_key(execution.bind_mapper, columns, parameters))
        return
    guarded = statement.where(*(version_guard(column) for column in columns.values()))
    if isinstance(whole, FromStatement):
        execution.statement = whole._clone()
        execution.statement.element = guarded
    else:
        execution.statement = guarded
    if execution.execution_options.get("synchronize_session") == "evaluate":
        # Python cannot evaluate the condition.
        execution.update_execution_options(synchronize_session="fetch")


def _documents_set_by(statement: Update, execution: ORMExecuteState) -> dict[str, Any]:
    """Return the document columns that an UPDATE sets, in its values or its parameters, by the names of their attributes."""
    given: Any = execution.parameters or ()
    names = {name for row in (given if isinstance(given, list | tuple) else [given]) for name in row}
    names |= {name if isinstance(name, str) else name.key for name in statement._values or ()}
    mapper = execution.bind_mapper
    # By key, since the columns of an alias are others.
    attributes = {} if mapper is None else {attribute.columns[0].key: attribute.key for attribute in mapper.column_attrs}
    found: dict[str, Any] = {}
    for column in statement.table.columns:
        if isinstance(column.type, DocumentColumn):
            name = attributes.get(column.key, column.key)
            if not names.isdisjoint({name, column.key}):
                found[name] = column
    return found


def _rows_by_key(mapper: Mapper[Any], columns: Collection[str], rows: Collection[Any]) -> dict[str, list[tuple[Any, ...]]]:
    """Return, for each attribute, the keys of the rows that set it."""
    key = [mapper.get_property_by_column(column).key for column in mapper.primary_key]
    return {name: [tuple(row[part] for part in key) for row in rows if name in row and row.keys() >= set(key)] for name in columns}


def _lock_and_check(session: Session, mapper: Mapper[Any], attributes: dict[str, list[tuple[Any, ...]]]) -> None:
    """Lock rows, by the attributes that are to be written and their keys, and refuse those with documents of unknown versions."""
    key = mapper.primary_key
    columns = {name: mapper.column_attrs[name].columns[0] for name in attributes}
    identities = sorted({identity for written in attributes.values() for identity in written if identity})
    if not identities:
        return
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
        for identity in attributes[name]:
            # A row that is gone is the UPDATE's to report.
            if identity in stored:
                _check(stored[identity][position], column, shown_key(mapper, identity))


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
