"""
The audit trail: who changed what, and when; and the security events.

    audit.history(session, "users", str(user.id))
    audit.list_all(session, action=AuditAction.DELETE, since=yesterday)

Changes of audited tables record themselves, by trigger and in their own transaction, those of bulk statements and raw SQL included. Who
acts is said with ``actor``.
"""

import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, TypeVar

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from stemmadb import tenancy
from stemmadb.accounts import _audit_rows, _security_events
from stemmadb.accounts._session_rows import checked_client
from stemmadb.accounts.documents import SecurityEventPayload
from stemmadb.accounts.entities import AuditLog, SecurityEvent
from stemmadb.accounts.vocabularies import AuditAction, SecurityEventType
from stemmadb.audit import Actor, ActorType, actor, masked
from stemmadb.data import checked_text
from stemmadb.documents import OnInvalid, dump_json
from stemmadb.entity import Entity, Id, parse_reference, uuid7
from stemmadb.errors import ReferenceNotFoundError, ValidationError
from stemmadb.paging import Page, page
from stemmadb.query import AnySelect, query, sql

__all__ = [
    "Actor",
    "ActorType",
    "AuditAction",
    "SecurityEventType",
    "record",
    "actor",
    "history",
    "list_all",
    "record_security_event",
    "list_security_events",
]

logger: Final = logging.getLogger(__name__)

E = TypeVar("E", bound=Entity)


@query
def record(
    session: Session,
    action: str,
    entity: str,
    entity_id: str,
    *,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    actor: Actor | None = None,
) -> AuditLog:
    """
    Write a record of something that no table shows: an export, a look at somebody's data. One statement, in the caller's transaction.

    Secrets become ``***``: what is called like one, at any depth (``token``, ``password_hash``, ``apiKey``), and pydantic's SecretStr. The
    record belongs to the session's workspace, or to none.

    Args:
        session: the caller's session; needs no workspace.
        action: one of AuditAction, or a word of the application's own, in capitals: ``EXPORT``.
        entity: the table that it is about, or another noun.
        entity_id: which of it; the parts of a composite key are joined by ``/``.
        before: what was there, as names and JSON values.
        after: what is there; with both given, the record also says which names differ.
        actor: who acts; None: the session's actor, else SYSTEM. A user who does not exist is left out.

    Raises:
        ValidationError: the action is no word in capitals, or a value has no JSON; nothing was sent.
    """
    written = _audit_rows.insert(session, action, entity, entity_id, before, after, actor)
    logger.info("recorded: %s of %s", written.action, written.entity, extra={"entity_id": written.entity_id})
    return written


@query
def history(
    session: Session, entity: str, entity_id: str, *, cursor: str | None = None, limit: int = 50, on_invalid: OnInvalid = "raise"
) -> Page[AuditLog]:
    """
    Return the records of one row, newest first: inside a workspace those made in it, outside those made outside.

    Args:
        session: the caller's session; needs no workspace.
        entity: the name of the table.
        entity_id: the key of the row, without the workspace; the parts of a composite key are joined by ``/``.
        cursor: ``next_cursor`` of the page before; None starts at the newest.
        limit: 1 to 200.
        on_invalid: what becomes of a record whose documents cannot be read: "raise" refuses the page, "skip" leaves it out (the page is
            shorter then), "raw" puts a RawDocument in the document's place.

    Raises:
        InvalidCursorError: the cursor is not of this list.
        UnknownSchemaVersionError, CorruptDocumentError: a document cannot be read, and ``on_invalid`` is "raise".
    """
    key = checked_text(str(entity_id), "entity_id")
    statement = _records(session).where(AuditLog.entity == checked_text(entity, "entity"), AuditLog.entity_id == key)
    return _page(session, AuditLog, statement, cursor, limit, on_invalid)


@query
def list_all(
    session: Session,
    *,
    user_id: Id | None = None,
    entity: str | None = None,
    action: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    cursor: str | None = None,
    limit: int = 50,
    on_invalid: OnInvalid = "raise",
) -> Page[AuditLog]:
    """
    Return records, newest first: inside a workspace those made in it, outside those made outside, in ``all_workspaces`` all of them.

    Args:
        session: the caller's session; needs no workspace.
        user_id: only those of what this user did.
        entity: only those about this table.
        action: only those of this action.
        since: only those from this moment on.
        until: only those before this moment.
        cursor: ``next_cursor`` of the page before; None starts at the newest.
        limit: 1 to 200.
        on_invalid: what becomes of a record whose documents cannot be read: "raise" refuses the page, "skip" leaves it out (the page is
            shorter then), "raw" puts a RawDocument in the document's place.

    Raises:
        InvalidCursorError: the cursor is not of this list with these filters.
        UnknownSchemaVersionError, CorruptDocumentError: a document cannot be read, and ``on_invalid`` is "raise".
        ValidationError: ``user_id`` is no UUID, or a time has no time zone; nothing was sent.
    """
    wanted = _given(
        (user_id, lambda value: AuditLog.user_id == parse_reference(value, "user_id")),
        (entity, lambda value: AuditLog.entity == checked_text(value, "entity")),
        (action, lambda value: AuditLog.action == checked_text(value, "action")),
        (since, lambda value: AuditLog.created_at >= _moment(value, "since")),
        (until, lambda value: AuditLog.created_at < _moment(value, "until")),
    )
    return _page(session, AuditLog, _records(session).where(*wanted), cursor, limit, on_invalid)


_INSERT_EVENT = sql(
    SecurityEvent,
    """
    INSERT INTO stemma.security_events (id, user_id, type, payload, ip_address, user_agent)
    SELECT :id, CAST(:user_id AS uuid), :type, CAST(:payload AS jsonb), CAST(:ip_address AS inet), :user_agent
     WHERE CAST(:user_id AS uuid) IS NULL OR EXISTS (SELECT FROM stemma.users WHERE users.id = CAST(:user_id AS uuid))
    RETURNING {columns}
    """,
)


@query
def record_security_event(
    session: Session,
    type: str,
    *,
    user_id: Id | None = None,
    payload: SecurityEventPayload | None = None,
    ip_address: str | None = None,
    user_agent: str | None = None,
) -> SecurityEvent:
    """
    Write a security event of the application's own. One statement, in the caller's transaction. The library's own write themselves.

    Args:
        session: the caller's session; needs no workspace.
        type: one of SecurityEventType, or another word in capitals.
        user_id: whom it is about; None: nobody who is known.
        payload: more about it. Never a token, a password or a digest: what is called like one becomes ``***``.
        ip_address: where the client is; None: what the session's actor says.
        user_agent: likewise.

    Raises:
        ReferenceNotFoundError: no user has this id. The transaction stays usable.
        ValidationError: the type is no word in capitals, or something that cannot be stored; nothing was sent.
    """
    about = None if user_id is None else parse_reference(user_id, "user_id")
    given, acting = checked_client(None, ip_address, user_agent), _security_events.client_of(session)
    draft = SecurityEvent(id=uuid7(), type=type, payload=SecurityEventPayload() if payload is None else payload)
    event = _INSERT_EVENT.write(
        session,
        id=draft.id,
        user_id=about,
        type=draft.type,
        payload=dump_json(SecurityEventPayload.load(masked(draft.payload.dump()))),
        ip_address=given["ip_address"] or acting["ip_address"],
        user_agent=given["user_agent"] or acting["user_agent"],
    )
    if event is None:
        raise ReferenceNotFoundError("security_events_user_id_fkey", "user_id")
    logger.info("security event: %s", event.type, extra={"user_id": str(about)})
    return event


@query
def list_security_events(
    session: Session,
    *,
    user_id: Id | None = None,
    type: str | None = None,
    since: datetime | None = None,
    cursor: str | None = None,
    limit: int = 50,
    on_invalid: OnInvalid = "raise",
) -> Page[SecurityEvent]:
    """
    Return security events, newest first; they belong to no workspace.

    Args:
        session: the caller's session; needs no workspace.
        user_id: only those about this user.
        type: only those of this type.
        since: only those from this moment on.
        cursor: ``next_cursor`` of the page before; None starts at the newest.
        limit: 1 to 200.
        on_invalid: what becomes of an event whose payload cannot be read; as for ``list_all``.

    Raises:
        InvalidCursorError: the cursor is not of this list with these filters.
        UnknownSchemaVersionError, CorruptDocumentError: a payload cannot be read, and ``on_invalid`` is "raise".
        ValidationError: ``user_id`` is no UUID, or ``since`` has no time zone; nothing was sent.
    """
    wanted = _given(
        (user_id, lambda value: SecurityEvent.user_id == parse_reference(value, "user_id")),
        (type, lambda value: SecurityEvent.type == checked_text(value, "type")),
        (since, lambda value: SecurityEvent.created_at >= _moment(value, "since")),
    )
    return _page(session, SecurityEvent, select(SecurityEvent).where(*wanted), cursor, limit, on_invalid)


# -------------------------------------------------------------------------------------------------------------------- lists


def _records(session: Session) -> AnySelect:
    """Return the statement of the records that are the session's: the policy says the same, but not to a login that bypasses it."""
    if tenancy.reads_everything(session):
        return select(AuditLog)
    place = _audit_rows.find_workspace(session)
    return select(AuditLog).where(AuditLog.workspace_id.is_(None) if place is None else AuditLog.workspace_id == place)


def _given(*filters: tuple[Any, Callable[[Any], ColumnElement[bool]]]) -> list[ColumnElement[bool]]:
    return [condition(value) for value, condition in filters if value is not None]


def _moment(value: datetime, field: str) -> datetime:
    if not isinstance(value, datetime) or value.utcoffset() is None:
        raise ValidationError(f"{field} is a datetime with a time zone", field=field)
    return value


def _page(session: Session, entity: type[E], statement: AnySelect, cursor: str | None, limit: int, on_invalid: OnInvalid) -> Page[E]:
    order: list[ColumnElement[Any]] = [entity.created_at.desc(), entity.id.desc()]
    return page(session, statement, order_by=order, cursor=cursor, limit=limit, on_invalid=on_invalid)
