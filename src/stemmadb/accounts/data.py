"""What the functions of this pack take and give besides entities and documents."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, ClassVar
from uuid import UUID

from pydantic import SecretStr, StringConstraints

from stemmadb.accounts._emails import Email
from stemmadb.accounts.entities import ApiKey, Role, User, UserSession
from stemmadb.data import DataObject

PersonName = Annotated[str, StringConstraints(max_length=200)]


class UserRegistration(DataObject):
    """Somebody who signs up."""

    noun: ClassVar[str] = "User"

    email: Email
    password: SecretStr
    """15 to 1024 characters."""
    name: PersonName | None = None
    first_name: PersonName | None = None
    last_name: PersonName | None = None
    phone: PersonName | None = None


class UserUpdate(DataObject):
    """What an update changes; an absent field is unchanged, None clears it (but not the e-mail)."""

    noun: ClassVar[str] = "User"

    email: Email = ""
    name: PersonName | None = None
    first_name: PersonName | None = None
    last_name: PersonName | None = None
    phone: PersonName | None = None


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A new token to be mailed, which is shown this once and stored nowhere."""

    id: UUID
    token: SecretStr
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Registration:
    """A user who signed up, and the token that confirms their address."""

    user: User
    verification: IssuedToken


@dataclass(frozen=True, slots=True)
class UserWithRoles:
    """A user, and what they may do while they are active."""

    user: User
    roles: list[Role]
    """By name."""
    permissions: frozenset[str]
    """What the roles give and what was granted directly, as keys; ``domain:*`` stands for a domain."""


@dataclass(frozen=True, slots=True)
class IssuedApiKey:
    """A new key and its token, which is shown this once and stored nowhere."""

    key: ApiKey
    token: SecretStr


@dataclass(frozen=True, slots=True)
class ApiKeyIdentity:
    """Whom a verified token speaks for, and what it may do."""

    key_id: UUID
    user_id: UUID
    workspace_id: UUID | None
    """None: a personal key, of no workspace."""
    scopes: frozenset[str]

    def allows(self, scope: str) -> bool:
        """Return whether the key may do this: the scope itself, or ``domain:*``."""
        return scope in self.scopes or f"{scope.partition(':')[0]}:*" in self.scopes


@dataclass(frozen=True, slots=True)
class IssuedSession:
    """A new session and its refresh token, which is shown this once and stored nowhere."""

    session: UserSession
    token: SecretStr
