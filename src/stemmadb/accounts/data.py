"""What the functions of this pack take and give besides entities and documents."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, ClassVar
from uuid import UUID

from pydantic import AwareDatetime, SecretStr, StringConstraints

from stemmadb.accounts._emails import Email
from stemmadb.accounts.documents import OAuthProfile
from stemmadb.accounts.entities import ApiKey, MfaSettings, Role, User, UserSession
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


class OAuthLink(DataObject):
    """An identity at a provider, as the provider gave it."""

    noun: ClassVar[str] = "OAuthAccount"

    provider: Annotated[str, StringConstraints(min_length=1, max_length=200, to_lower=True)]
    """``google``, ``github``; stored in lower case."""
    provider_account_id: Annotated[str, StringConstraints(min_length=1, max_length=500)]
    """What the provider calls the user."""
    email: str | None = None
    """Not confirmed by us."""
    access_token: SecretStr | None = None
    refresh_token: SecretStr | None = None
    token_type: str | None = None
    scope: str | None = None
    token_expires_at: AwareDatetime | None = None
    profile: OAuthProfile = OAuthProfile()


@dataclass(frozen=True, slots=True)
class OAuthTokens:
    """The tokens of an identity, decrypted; None for one that the provider did not give."""

    access_token: SecretStr | None
    refresh_token: SecretStr | None


@dataclass(frozen=True, slots=True)
class TwoFactorSetup:
    """A second factor that was enabled, and its backup codes, which are shown this once."""

    settings: MfaSettings
    backup_codes: list[SecretStr]


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
