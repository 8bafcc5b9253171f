"""What the functions of this pack take and give besides entities and documents."""

from dataclasses import dataclass

from stemmadb.workspaces.entities import Workspace
from stemmadb.workspaces.vocabularies import WorkspaceRole


@dataclass(frozen=True, slots=True)
class WorkspaceWithRole:
    """A workspace, and what a user is in it."""

    workspace: Workspace
    role: WorkspaceRole
