"""Security events: what is written when somebody signs in or may not, in the caller's transaction or apart from it."""

import logging
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from stemmadb import _apart
from stemmadb.accounts.documents import SecurityEventPayload
from stemmadb.accounts.vocabularies import SecurityEventType
from stemmadb.audit import actor_of
from stemmadb.documents import dump_json
from stemmadb.entity import Id, parse_id
from stemmadb.errors import NotFoundError, PermissionDeniedError, StemmaError
from stemmadb.query import sql_rows

log = logging.getLogger(__name__)

# The user is looked up, so that one whom this transaction does not see is left out rather than refused.
_TEXT = """
    INSERT INTO stemma.security_events (user_id, type, payload, ip_address, user_agent)
    VALUES ((SELECT users.id FROM stemma.users WHERE users.id = CAST(:user_id AS uuid)), :type, CAST(:payload AS jsonb),
            CAST(:ip_address AS inet), :user_agent)
    RETURNING 1
"""
_INSERT = sql_rows(_TEXT)


def record(
    session: Session,
    type: SecurityEventType,
    user_id: UUID | None,
    *,
    reason: str | None = None,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Write an event in the caller's transaction."""
    _INSERT.run(session, user_id=user_id, type=type.value, payload=payload(reason, details), **client_of(session))


def record_apart(
    session: Session,
    type: SecurityEventType,
    user_id: UUID | None,
    *,
    reason: str | None = None,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Write an event that survives the caller's rollback. That it cannot be written is logged: what it tells of is refused all the same."""
    parameters = {"user_id": user_id, "type": type.value, "payload": payload(reason, details), **client_of(session)}
    try:
        _apart.settle(session, _TEXT, parameters)
    except StemmaError as error:
        log.warning("security event %s was not written: %s", type, error.code, extra={"user_id": str(user_id)})


def refused(session: Session, user_id: Id, permission: str) -> PermissionDeniedError:
    """Write that a user may not do something, apart from the caller's transaction, and return the error that says so."""
    try:
        user = parse_id(user_id, "User")
    except NotFoundError:
        user = None
    record_apart(session, SecurityEventType.PERMISSION_DENIED, user, details={"permission": permission})
    log.warning("permission denied", extra={"user_id": str(user_id), "permission": permission})
    return PermissionDeniedError(permission)


def client_of(session: Session) -> dict[str, str | None]:
    """Return where the one who acts in the session comes from, as parameters of an event."""
    acting = actor_of(session)
    if acting is None:
        return {"ip_address": None, "user_agent": None}
    return {"ip_address": acting.ip_address, "user_agent": acting.user_agent}


def payload(reason: str | None = None, details: Mapping[str, Any] | None = None) -> str:
    """Return the JSON text of an event's payload."""
    return dump_json(SecurityEventPayload(reason=reason, details=dict(details or {})))
