"""Records that no trigger writes: how they come into audit_logs, in the caller's transaction or apart from it."""

import logging
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import pydantic
from sqlalchemy.orm import Session

from stemmadb import _apart
from stemmadb._entity_errors import invalid
from stemmadb.accounts.documents import AuditSnapshot
from stemmadb.accounts.entities import AuditLog
from stemmadb.audit import Actor, ActorType, actor_of, masked
from stemmadb.data import checked_text
from stemmadb.documents import dump_json
from stemmadb.entity import uuid7
from stemmadb.errors import ValidationError, WorkspaceNotSetError
from stemmadb.query import sql
from stemmadb.tenancy import workspace_of

log = logging.getLogger("stemmadb.accounts.audit")

_TEXT = """
    INSERT INTO stemma.audit_logs (id, user_id, workspace_id, actor_type, action, entity, entity_id, before, after, ip_address, user_agent,
            created_at, updated_at)
    SELECT CAST(:id AS uuid),
           (SELECT users.id FROM stemma.users WHERE users.id = CAST(:user_id AS uuid) FOR KEY SHARE),
           {workspace_id}, CAST(:actor_type AS stemma.actor_type), :action, :entity, :entity_id, CAST(:before AS jsonb),
           CAST(:after AS jsonb), CAST(:ip_address AS inet), :user_agent, clock_timestamp(), clock_timestamp()
"""
_INSERT = sql(AuditLog, _TEXT.format(workspace_id="CAST(:place AS uuid)") + "RETURNING {columns}")
# A connection of a host's own knows no workspace, and the policy asks for the record's.
_INSERT_APART = (
    _TEXT.format(workspace_id="CAST(nullif(setting.place, '') AS uuid)")
    + "FROM pg_catalog.set_config('stemma.workspace_id', :place, true) AS setting (place) RETURNING 1"
)


def insert(
    session: Session,
    action: str,
    entity: str,
    entity_id: str,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    acting: Actor | None = None,
) -> AuditLog:
    """
    Write a record in the caller's transaction.

    Raises:
        ValidationError: something that cannot be recorded; nothing was sent.
    """
    place = find_workspace(session)
    written = _INSERT.write(session, place=place, **_values(session, action, entity, entity_id, before, after, acting))
    if written is None:
        raise RuntimeError("INSERT ... RETURNING gave no row")
    return written


def insert_apart(session: Session, action: str, entity: str, entity_id: str) -> None:
    """
    Write a record that survives the caller's rollback.

    Raises:
        StemmaError: it could not be written.
    """
    place = find_workspace(session)
    values = _values(session, action, entity, entity_id, None, None, None)
    _apart.settle(session, _INSERT_APART, {**values, "place": "" if place is None else str(place)})


def find_workspace(session: Session) -> UUID | None:
    """Return the workspace that the session is bound to, or None."""
    try:
        return workspace_of(session)
    except WorkspaceNotSetError:
        return None


def _values(
    session: Session,
    action: str,
    entity: str,
    entity_id: str,
    before: Mapping[str, Any] | None,
    after: Mapping[str, Any] | None,
    acting: Actor | None,
) -> dict[str, Any]:
    """Return the columns of a record, but for its workspace."""
    table, key = checked_text(entity, "entity"), checked_text(entity_id, "entity_id")
    # Made as an entity first: its rules are those of the columns.
    draft = AuditLog(id=uuid7(), action=action, entity=table, entity_id=key)
    old, new = _checked(before, "before"), _checked(after, "after")
    changed = () if old is None or new is None else tuple(sorted(_differing(old, new)))
    who = acting or actor_of(session) or Actor(type=ActorType.SYSTEM)
    return {
        "id": draft.id,
        "user_id": who.user_id,
        "actor_type": who.type.value,
        "action": draft.action,
        "entity": table,
        "entity_id": key,
        "before": _snapshot(table, old, (), "before"),
        "after": _snapshot(table, new, changed, "after"),
        "ip_address": who.ip_address,
        "user_agent": who.user_agent,
    }


def _snapshot(table: str, data: Mapping[str, Any] | None, changed: tuple[str, ...], field: str) -> str | None:
    """Return what is stored of a snapshot."""
    if data is None:
        return None
    try:
        return dump_json(AuditSnapshot(table=table, data=masked(data), changed=changed))
    except pydantic.ValidationError as error:
        raise invalid("AuditLog", error, field) from None


def _checked(data: Mapping[str, Any] | None, field: str) -> Mapping[str, Any] | None:
    if data is not None and not isinstance(data, Mapping):
        raise ValidationError(f"{field} is a mapping of names to values, or None", field=field)
    return data


def _differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> set[str]:
    return {name for name in old.keys() | new.keys() if (name in old, old.get(name)) != (name in new, new.get(name))}
