"""What the modules about sessions share: the rows that are revoked, and what a caller gives about a client."""

from collections.abc import Mapping
from uuid import UUID

from sqlalchemy.orm import Session

from stemmadb import audit
from stemmadb.accounts import _security_events
from stemmadb.accounts.vocabularies import SecurityEventType
from stemmadb.errors import ValidationError
from stemmadb.query import RowStatement, sql_rows

# Every row of a family, those that were rotated included: a successor that is being made at this moment, and that this statement does not
# see, ends with them.
_REVOKE_TEXT = """
    WITH revoked AS (
        UPDATE stemma.user_sessions SET revoked_at = now(), revoked_reason = :reason
         WHERE {which} AND revoked_at IS NULL
        RETURNING user_id, rotated_at IS NULL AND expires_at > now() AS open
    ), event AS (
        INSERT INTO stemma.security_events (user_id, type, payload, ip_address, user_agent)
        SELECT DISTINCT revoked.user_id, :type, CAST(:payload AS jsonb), CAST(:ip_address AS inet), :user_agent FROM revoked
    )
    SELECT count(*) FILTER (WHERE revoked.open) AS closed FROM revoked HAVING count(*) > 0
"""
FAMILY_TEXT = _REVOKE_TEXT.format(which="family_id = :family_id")
_FAMILY = sql_rows(FAMILY_TEXT)
_OF_SESSION = sql_rows(
    _REVOKE_TEXT.format(which="family_id = (SELECT wanted.family_id FROM stemma.user_sessions AS wanted WHERE wanted.id = :id)")
)
_OF_USER = sql_rows(
    _REVOKE_TEXT.format(
        which="""user_id = :user_id
               AND (CAST(:except_id AS uuid) IS NULL
                    OR family_id IS DISTINCT FROM (SELECT kept.family_id FROM stemma.user_sessions AS kept WHERE kept.id = :except_id))"""
    )
)


def revoke_family(session: Session, family_id: UUID, reason: str) -> int | None:
    """Revoke a family; return 1 when it was open, None when there was nothing to revoke."""
    return _run(session, _FAMILY, reason, {"family_id": family_id})


def revoke_family_of(session: Session, session_id: UUID, reason: str) -> int | None:
    """Revoke the family of a session, likewise."""
    return _run(session, _OF_SESSION, reason, {"id": session_id})


def revoke_user(
    session: Session, user_id: UUID, reason: str, *, except_session_id: UUID | None = None, told: str | None = None
) -> int | None:
    """
    Revoke all sessions of a user, but for the family of one; return how many were open, None when there was nothing to revoke.

    Args:
        session: the caller's.
        user_id: whose.
        reason: what the rows say.
        except_session_id: the session that stays.
        told: what the event says; None: the reason.
    """
    return _run(session, _OF_USER, reason, {"user_id": user_id, "except_id": except_session_id}, told)


def _run(session: Session, statement: RowStatement, reason: str, which: Mapping[str, UUID | None], told: str | None = None) -> int | None:
    closed = statement.scalar(session, **parameters(session, reason, told), **which)
    return None if closed is None else int(closed)


def parameters(session: Session, reason: str, told: str | None = None) -> dict[str, str | None]:
    """Return what the statements take beside the rows that are meant."""
    return {
        "reason": reason,
        "type": SecurityEventType.SESSION_REVOKED.value,
        "payload": _security_events.payload(told or reason),
        **_security_events.client_of(session),
    }


def checked_reason(reason: str) -> str:
    """
    Return why a session ends.

    Raises:
        ValidationError: there is nothing to read in it, or something that PostgreSQL cannot store.
    """
    if not isinstance(reason, str) or not reason.strip() or not _storable(reason):
        raise ValidationError("reason says why, in a few words", field="reason")
    return reason


def checked_client(fingerprint: str | None, ip_address: str | None, user_agent: str | None) -> dict[str, str | None]:
    """
    Return what is known of a client, as parameters.

    Raises:
        ValidationError: the address is none, or a text holds what PostgreSQL cannot store.
    """
    for field, value in (("fingerprint", fingerprint), ("user_agent", user_agent)):
        if value is not None and (not isinstance(value, str) or not _storable(value)):
            raise ValidationError(f"{field} is a text without NUL and half characters", field=field)
    return {"fingerprint": fingerprint, "ip_address": checked_address(ip_address), "user_agent": user_agent}


def checked_address(ip_address: str | None) -> str | None:
    """
    Return an IP address as PostgreSQL takes it.

    Raises:
        ValidationError: it is none.
    """
    return None if ip_address is None else audit.checked_address(ip_address)


def _storable(value: str) -> bool:
    try:
        return b"\0" not in value.encode()
    except UnicodeEncodeError:
        return False
