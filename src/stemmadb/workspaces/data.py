"""What the functions of this pack take and give besides entities and documents."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import AfterValidator

from stemmadb.data import DataObject
from stemmadb.entity import NotBlank
from stemmadb.workspaces._slugs import checked_slug
from stemmadb.workspaces.documents import WorkspaceSettings
from stemmadb.workspaces.entities import Workspace
from stemmadb.workspaces.vocabularies import WorkspaceRole

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
