"""The documents of the pack ``accounts``. Version 0 is any object that was stored before documents had a version."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from stemmadb.documents import Document, Raw
from stemmadb.documents.steps import Rename, Steps

__all__ = ["OAuthProfile", "SecurityEventPayload", "AuditSnapshot"]


def _under(key: str, raw: Raw) -> Raw:
    """Return an object that holds the whole of another under one key, but for its version."""
    return {key: {name: value for name, value in raw.items() if name != "schema_version"}}


class OAuthProfile(Document, version=2):
    """What a provider says about a user."""

    subject: str | None = None
    """The provider's own id of the user."""
    name: str | None = None
    picture_url: str | None = None
    raw: Mapping[str, Any] = Field(default_factory=dict)
    """The claims as the provider sent them."""


@OAuthProfile.upcast(0)
def _profile_0(raw: Raw) -> Raw:
    """0 to 1: the claims were stored as they were."""
    return _under("raw", raw)


# 1 to 2: a URL is called so, as in every other document and column.
OAuthProfile.upcast(1)(Steps(Rename("picture", "picture_url")))
OAuthProfile.downcast(2)(Steps(Rename("picture_url", "picture")))


class SecurityEventPayload(Document, version=1):
    """More about a security event. Never a token, a password or a digest."""

    reason: str | None = None
    details: Mapping[str, Any] = Field(default_factory=dict)


@SecurityEventPayload.upcast(0)
def _payload_0(raw: Raw) -> Raw:
    """0 to 1: the details were stored as they were."""
    return _under("details", raw)


class AuditSnapshot(Document, version=1):
    """A row before or after a change."""

    table: str = ""
    data: Mapping[str, Any] = Field(default_factory=dict)
    """The columns; secrets are replaced by ``***``."""
    changed: tuple[str, ...] = ()
    """The columns that an UPDATE changed; in ``after`` only."""


@AuditSnapshot.upcast(0)
def _snapshot_0(raw: Raw) -> Raw:
    """0 to 1: the columns were stored as they were."""
    return _under("data", raw)
