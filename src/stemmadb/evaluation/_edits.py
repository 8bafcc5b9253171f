"""
How a definition changes, is frozen and goes. Import these functions from ``stemmadb.evaluation.definitions``.

A refused call leaves the caller's transaction usable: what stands against it is a condition of the statement, not an error of the database.
"""

import functools
from collections.abc import Collection, Iterable
from uuid import UUID

from sqlalchemy import inspect
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value

from stemmadb._sqlstates import translate
from stemmadb.documents import dump_json
from stemmadb.entity import Id
from stemmadb.errors import (
    CorruptDocumentError,
    FrozenError,
    StemmaError,
    StillReferencedError,
    UnknownSchemaVersionError,
    VersionConflictError,
)
from stemmadb.evaluation._definition_rows import key_of, log, missing, read_definition
from stemmadb.evaluation._freezing import hold_frozen
from stemmadb.evaluation.data import DefinitionUpdate
from stemmadb.evaluation.documents import DefinitionContent
from stemmadb.evaluation.entities import Definition
from stemmadb.query import EntityStatement, sql, sql_rows, tenant_query
from stemmadb.tenancy import workspace_of

_ASSIGNMENTS = {
    "name": "name = :name",
    "content": "content = CAST(:content AS jsonb)",
    "message": "message = :message",
}
_UNFROZEN = " AND definitions.frozen_at IS NULL"
_KNOWN = " AND definitions.content_version BETWEEN 0 AND :known_version"


@functools.cache
def _update(names: frozenset[str]) -> EntityStatement[Definition]:
    """Return the UPDATE of these columns, of which there are seven; it meets no row where one of its conditions does not hold."""
    return sql(
        Definition,
        f"""
        UPDATE stemma.definitions SET {", ".join(_ASSIGNMENTS[name] for name in sorted(names))}
         WHERE definitions.workspace_id = :workspace_id AND definitions.id = :id
           AND definitions.version = coalesce(CAST(:expected_version AS integer), definitions.version)
               {_UNFROZEN if names & {"name", "content"} else ""}{_KNOWN if "content" in names else ""}
        RETURNING {{columns}}
        """,  # noqa: S608  (of constants only)
    )


@tenant_query
def update(session: Session, definition_id: Id, data: DefinitionUpdate, *, expected_version: int | None = None) -> Definition:
    """
    Change a definition that nothing refers to yet; the message of any.

    One guarded UPDATE; a second statement, when it met no row, tells why.

    Args:
        session: the caller's session, in a workspace.
        definition_id: which one.
        data: what changes; absent fields stay. None takes the message away.
        expected_version: the ``version`` that the caller read; None overwrites whatever is there.

    Returns:
        The definition as it is now; with its content if that was given.

    Raises:
        FrozenError: it is frozen, and name or content was given: fork it.
        NotFoundError: no definition of this workspace has this id.
        UnknownSchemaVersionError: a newer release wrote its content, which is not overwritten. CorruptDocumentError: nobody can tell which.
        VersionConflictError: somebody saved after the caller read.
    """
    changes = DefinitionUpdate.of(data).changes()
    key = key_of(definition_id)
    log.debug("updating definition %s", key)
    content = changes.get("content")
    values = {name: value for name, value in changes.items() if name != "content"}
    if content is not None:
        values |= {"content": dump_json(content), "known_version": DefinitionContent.newest_version}
    saved = None
    if changes:
        saved = _update(frozenset(changes)).write(session, id=key, expected_version=expected_version, **values)
    if saved is None:
        current = read_definition(session, key)
        if current is None:
            raise missing(definition_id)
        if changes or expected_version not in (None, current.version):
            raise _refusal(current, changes.keys(), expected_version)
        return current
    if content is not None:
        set_committed_value(saved, "content", content)
    log.info("definition %s updated: %s", key, ", ".join(sorted(changes)))
    return saved


def _refusal(current: Definition, names: Collection[str], expected_version: int | None) -> StemmaError:
    """Return why an UPDATE of these columns met no row. To fork helps a frozen one, whatever else stands against the change."""
    if current.frozen_at is not None and not {"name", "content"}.isdisjoint(names):
        reason = "a child, scenario or run refers to it, so its name and content are frozen. Fork it, and change the fork"
        return FrozenError("Definition", current.id, reason)
    version = current.content_version or 0
    if "content" in names and version > DefinitionContent.newest_version:
        return UnknownSchemaVersionError("definitions", "content", current.id, version, DefinitionContent.newest_version)
    if "content" in names and version < 0:
        return CorruptDocumentError("definitions", "content", current.id, "a version is a whole number from 0", "/schema_version")
    return VersionConflictError("Definition", current.id, expected_version, current.version)


@tenant_query
def freeze(session: Session, definition_id: Id) -> Definition:
    """
    Make name and content of a definition unchangeable, as its first child, scenario or run would. Idempotent; there is no way back.

    Locks the row (FOR NO KEY UPDATE) until the transaction ends.

    Raises:
        NotFoundError: no definition of this workspace has this id.
    """
    key = key_of(definition_id)
    log.debug("freezing definition %s", key)
    found = hold_frozen(session, key)
    if found is None:
        raise missing(definition_id)
    return found


# What refers to one of them from outside of the set is looked for in the same statement; nothing is deleted then.
_DELETE = sql_rows(
    """
    WITH RECURSIVE doomed AS (
        SELECT id FROM stemma.definitions WHERE workspace_id = :workspace_id AND id = :id
     UNION ALL
        SELECT child.id
          FROM doomed
          JOIN stemma.definitions AS child ON child.workspace_id = :workspace_id AND child.parent_id = doomed.id
         WHERE :subtree
    ), held AS MATERIALIZED (
        SELECT NOT :subtree AND EXISTS (
                   SELECT FROM stemma.definitions WHERE workspace_id = :workspace_id AND parent_id = :id) AS children,
               EXISTS (SELECT FROM doomed JOIN stemma.runs ON runs.workspace_id = :workspace_id AND runs.definition_id = doomed.id) AS runs,
               EXISTS (SELECT FROM doomed JOIN stemma.definition_labels AS label
                         ON label.workspace_id = :workspace_id AND label.definition_id = doomed.id) AS labels
    ), gone AS (
        DELETE FROM stemma.definitions
         USING doomed, held
         WHERE definitions.workspace_id = :workspace_id AND definitions.id = doomed.id
           AND NOT (held.children OR held.runs OR held.labels)
        RETURNING definitions.id
    )
    SELECT held.children, held.runs, held.labels, ARRAY(SELECT id FROM gone) AS gone
      FROM held
    """
)
_REFERRERS = {
    "children": "definitions_parent_id_fkey",
    "runs": "runs_definition_id_fkey",
    "labels": "definition_labels_definition_id_fkey",
}


@tenant_query
def delete(session: Session, definition_id: Id, *, subtree: bool = False) -> int:
    """
    Delete a definition and its scenarios. One DELETE in a savepoint; a refused call leaves the transaction usable.

    Args:
        session: the caller's session, in a workspace.
        definition_id: which one.
        subtree: with everything below it; else a definition with children stays.

    Returns:
        How many definitions were deleted.

    Raises:
        NotFoundError: no definition of this workspace has this id.
        StillReferencedError: ``by`` says what refers to one of them: ``children``, ``runs``, ``labels``.
    """
    key = key_of(definition_id)
    log.debug("deleting definition %s", key)
    try:
        with session.begin_nested():
            outcome = _DELETE.all(session, id=key, subtree=subtree)[0]
    except IntegrityError as error:
        # Somebody referred to one of them meanwhile; or the scenario of one is used by the run of another definition.
        refused = translate(error)
        if isinstance(refused, StillReferencedError):
            names = {"definitions": "children", "definition_labels": "labels"}
            refused = StillReferencedError(refused.constraint, refused.field, [names.get(table, "runs") for table in refused.by])
        raise refused from None
    by = [name for name in _REFERRERS if getattr(outcome, name)]
    if by:
        raise StillReferencedError(_REFERRERS[by[0]], None, by)
    if not outcome.gone:
        raise missing(definition_id)
    _forget(session, outcome.gone)
    log.info("definition %s deleted, with those below it %d", key, len(outcome.gone))
    return len(outcome.gone)


def _forget(session: Session, ids: Iterable[UUID]) -> None:
    """Take deleted definitions out of the session, so that session.get() finds them no more."""
    workspace_id = workspace_of(session)
    mapper = inspect(Definition)
    for definition_id in ids:
        held = session.identity_map.get(mapper.identity_key_from_primary_key((workspace_id, definition_id)))
        if held is not None:
            session.expunge(held)
