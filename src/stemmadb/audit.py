"""
Who acts: what the records of changes say about whoever made them.

    with actor(user.id, ip_address="203.0.113.7"), db.session() as session:
        roles.assign(session, other.id, "staff")

Triggers write the records (``audit_logs``), in the transaction of the change; ``stemmadb.accounts.audit`` reads them.
"""

import functools
import ipaddress
import json
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar, Token
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

from pydantic import SecretBytes, SecretStr
from sqlalchemy import Connection
from sqlalchemy.orm import Session

from stemmadb._ids import Id, parse_reference
from stemmadb.data import checked_member, checked_text
from stemmadb.errors import ValidationError

__all__ = ["ActorType", "Actor", "actor", "find_current_actor", "actor_of"]


class ActorType(StrEnum):
    """Who did what an audit record tells."""

    USER = "USER"
    ADMIN = "ADMIN"
    API_KEY = "API_KEY"
    SYSTEM = "SYSTEM"


@dataclass(frozen=True, slots=True)
class Actor:
    """
    Who acts in a session. Made anywhere, and checked as it is made.

    Raises:
        ValidationError: ``user_id`` is no UUID, ``type`` no ActorType, ``ip_address`` no IP address, or ``user_agent`` cannot be stored.
    """

    user_id: UUID | None = None
    """Of a row of ``users``; None when nobody is known, or nobody is meant."""
    type: ActorType = ActorType.USER
    ip_address: str | None = None
    """An IPv4 or IPv6 address, without a zone."""
    user_agent: str | None = None

    def __post_init__(self) -> None:
        put = functools.partial(object.__setattr__, self)
        if self.user_id is not None:
            put("user_id", parse_reference(self.user_id, "user_id"))
        put("type", checked_member(self.type, ActorType, "type"))
        if self.ip_address is not None:
            put("ip_address", checked_address(self.ip_address))
        if self.user_agent is not None:
            checked_text(self.user_agent, "user_agent")


def checked_address(address: str) -> str:
    """
    Return an IP address as PostgreSQL takes it.

    Raises:
        ValidationError: it is none, or names a zone (``fe80::1%eth0``), which PostgreSQL cannot store.
    """
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        found = None
    if found is None or not isinstance(address, str) or "%" in address:
        raise ValidationError("ip_address is neither an IPv4 nor an IPv6 address", field="ip_address")
    return str(found)


# --------------------------------------------------------------------------------------------------- the actor of a context

_current: ContextVar[Actor | None] = ContextVar("stemmadb_actor", default=None)


class _Acting(AbstractContextManager[Actor]):
    """The context that ``actor`` gives; it can be entered again, and within itself."""

    def __init__(self, acting: Actor) -> None:
        self._actor = acting
        self._tokens: list[Token[Actor | None]] = []

    def __enter__(self) -> Actor:
        self._tokens.append(_current.set(self._actor))
        return self._actor

    def __exit__(self, *_error: object) -> None:
        _current.reset(self._tokens.pop())


def actor(
    user_id: Id | None = None, *, type: ActorType = ActorType.USER, ip_address: str | None = None, user_agent: str | None = None
) -> AbstractContextManager[Actor]:
    """
    Name who acts in the sessions opened inside; records of what they change say so.

    A session keeps the actor that it was opened under for its life, and sends it with the first message of each transaction. Nests: the
    inner one holds alone, and the outer one is back afterwards. Tasks and copied contexts inherit it, other threads do not. Without an
    actor, records say SYSTEM.

    Args:
        user_id: who; None for somebody who is not known yet. A user who does not exist is left out of the records.
        type: on what authority.
        ip_address: where the request came from: an IPv4 or IPv6 address without a zone.
        user_agent: with what.

    Raises:
        ValidationError: one of them cannot be; ``field`` says which.

    Example:
        >>> with actor(type=ActorType.SYSTEM, user_agent="nightly") as acting:
        ...     acting.type
        <ActorType.SYSTEM: 'SYSTEM'>
    """
    return _Acting(Actor(None if user_id is None else parse_reference(user_id, "user_id"), type, ip_address, user_agent))


def find_current_actor() -> Actor | None:
    """Return the actor of the context, whom a session opened now would have, or None."""
    return _current.get()


# --------------------------------------------------------------------------------------------------- the actor of a session

_KEY = "stemma_actor"


def info() -> dict[Any, Any]:
    """Return what a session's info says about who acts in it: the actor of the context in which it is opened."""
    return {_KEY: _current.get()}


def is_bound(session: Session) -> bool:
    """Return whether it is settled who acts in the session."""
    return _KEY in session.info


def actor_of(session: Session) -> Actor | None:
    """
    Return who acts in a session, or None. Nothing is sent.

    Of a session that a host made by itself, it is whoever is the actor of the context as its first transaction begins.
    """
    if not is_bound(session):
        return _current.get()
    found: Actor | None = session.info[_KEY]
    return found


def setting_of(acting: Actor | None) -> str:
    """Return the setting ``stemma.actor`` of a transaction: JSON in ASCII, without a percent sign; empty for nobody."""
    if acting is None:
        return ""
    found = {"user_id": acting.user_id and str(acting.user_id), "type": acting.type.value}
    found |= {"ip_address": acting.ip_address, "user_agent": acting.user_agent}
    # psycopg takes a percent sign for a parameter where it is given parameters.
    return json.dumps({name: value for name, value in found.items() if value is not None}).replace("%", "\\u0025")


def literal(setting: str) -> str:
    """Return a setting as a literal of SQL."""
    # With E, backslashes mean the same whatever standard_conforming_strings is; ASCII means the same in every client encoding.
    return "E'" + setting.replace("\\", "\\\\").replace("'", "''") + "'"


def send(connection: Connection, acting: Actor | None) -> None:
    """Tell the transaction that is open who acts from now on."""
    connection.exec_driver_sql(f"SET LOCAL stemma.actor = {literal(setting_of(acting))}")


def begin(session: Session, connection: Connection, told: str) -> None:
    """
    Tell a transaction who acts, where the message that began it did not.

    Args:
        session: whose transaction begins; it keeps the actor that it has, or now gets.
        connection: in the transaction.
        told: the setting that the message had.
    """
    if not is_bound(session):
        session.info.update(info())
    acting = actor_of(session)
    if setting_of(acting) != told:
        send(connection, acting)


# ---------------------------------------------------------------------------------------------------------------- secrets

MASK = "***"

# Beside the columns that are known as secret. The function stemma_mask in the database has the same.
_MASKED_NAMES = (
    "(password|passwd|passphrase|secrets?|token|api[_-]?keys?|private[_-]?keys?|authorization|cookies?|credentials?|digests?|hash(es)?"
    "|ciphertexts?)$|(^|[_-])(pin|cvv|cvc|otp|pwd)$"
)
_is_secret = re.compile(_MASKED_NAMES, re.IGNORECASE | re.ASCII).search


def masked(value: Any) -> Any:
    """Return a value of a record with ``***`` in the place of secrets, at any depth: by their names, and what pydantic holds as secret."""
    if isinstance(value, SecretStr | SecretBytes):
        return MASK
    if isinstance(value, Mapping):
        return {name: MASK if _hides(name, item) else masked(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [masked(item) for item in value]
    return value


def _hides(name: object, item: object) -> bool:
    # None says that there is no secret, which is worth knowing.
    return item is not None and isinstance(name, str) and _is_secret(name) is not None
