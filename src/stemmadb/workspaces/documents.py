"""The documents of the pack ``workspaces``. Version 0 is any object that was stored before documents had a version."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from stemmadb.documents import Document, Raw

__all__ = ["WorkspaceSettings", "AIProviderSettings", "ApprovalPayload"]


class WorkspaceSettings(Document, version=1):
    """How a workspace presents itself."""

    locale: str = "en"
    timezone: str = "UTC"
    """An IANA name, for what is shown; stored times are in UTC."""
    features: Mapping[str, bool] = Field(default_factory=dict)
    """Switches of the application."""


@WorkspaceSettings.upcast(0)
def _settings_0(raw: Raw) -> Raw:
    """0 to 1: only the version is new."""
    return raw


class AIProviderSettings(Document, version=1):
    """What goes with every request to an AI provider. No secrets: the key has a column of its own, which is encrypted."""

    temperature: float | None = Field(default=None, ge=0, le=2)
    max_output_tokens: int | None = Field(default=None, ge=1)
    timeout_s: float | None = Field(default=None, gt=0)
    headers: Mapping[str, str] = Field(default_factory=dict)


@AIProviderSettings.upcast(0)
def _provider_0(raw: Raw) -> Raw:
    """0 to 1: only the version is new."""
    return raw


class ApprovalPayload(Document, version=1):
    """What is to be approved."""

    entity: str | None = None
    """The name of the table that it would change."""
    entity_id: str | None = None
    proposal: Mapping[str, Any] = Field(default_factory=dict)
    preview: str | None = None
    """For the person who decides, as text."""


@ApprovalPayload.upcast(0)
def _approval_0(raw: Raw) -> Raw:
    """0 to 1: the proposal was stored as it was."""
    return {"proposal": {name: value for name, value in raw.items() if name != "schema_version"}}
