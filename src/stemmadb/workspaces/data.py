"""What the functions of this pack take and give besides entities and documents."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, ClassVar

from pydantic import AfterValidator, AwareDatetime, Field

from stemmadb.data import DataObject
from stemmadb.entity import Id, NotBlank
from stemmadb.workspaces._slugs import checked_slug
from stemmadb.workspaces.documents import AIProviderSettings, ApprovalPayload, WorkspaceSettings
from stemmadb.workspaces.entities import Workspace
from stemmadb.workspaces.vocabularies import ApprovalPriority, WorkspaceRole

# --------------------------------------------------------------------------------------------------------------- workspaces


class WorkspaceUpdate(DataObject):
    """What an update changes; an absent field is unchanged, and only the description can be taken away, with None."""

    noun: ClassVar[str] = "Workspace"

    name: NotBlank = ""
    slug: Annotated[str, AfterValidator(checked_slug)] = ""
    """Lower-case letters, digits and hyphens; nothing that reads as a UUID."""
    description: str | None = None
    settings: WorkspaceSettings = WorkspaceSettings()
    """In the place of the whole document."""


@dataclass(frozen=True, slots=True)
class WorkspaceWithRole:
    """A workspace, and what a user is in it."""

    workspace: Workspace
    role: WorkspaceRole


# ---------------------------------------------------------------------------------------------------------------- approvals


class ApprovalCreate(DataObject):
    """Something that is to be decided."""

    noun: ClassVar[str] = "ApprovalItem"

    type: NotBlank
    """What it is, in the application's words: ``content.publish``."""
    title: NotBlank
    description: str | None = None
    payload: ApprovalPayload = ApprovalPayload()
    priority: ApprovalPriority = ApprovalPriority.NORMAL
    confidence_score: Decimal | None = Field(default=None, ge=0, le=100, max_digits=5, decimal_places=2)
    """How sure the proposer is, 0 to 100."""
    due_at: AwareDatetime | None = None
    """After this it expires; None for never."""
    requested_by_id: Id | None = None


# ---------------------------------------------------------------------------------------------------------------- providers


class ProviderConfigUpdate(DataObject):
    """What is said about a provider beside its key; an absent field is unchanged."""

    noun: ClassVar[str] = "AIProviderConfig"

    base_url: str | None = Field(default=None, pattern="^https?://")
    default_model: str | None = None
    is_enabled: bool = True
    daily_token_limit: int | None = Field(default=None, gt=0, lt=2**63)
    """None for no limit."""
    settings: AIProviderSettings = AIProviderSettings()
    """In the place of the whole document."""
