"""Workspaces: the tenants, their members and AI providers, and what waits for a person's decision."""

from stemmadb.packs import Pack
from stemmadb.workspaces import entities

__all__ = ["PACK"]

PACK = Pack(
    name="workspaces",
    branch="base",
    requires=("accounts",),
    entities=(entities.Workspace, entities.WorkspaceMember, entities.AIProviderConfig, entities.ApprovalItem),
    seeds=("stemmadb.workspaces.seed:SEEDS",),
    commands="stemmadb.workspaces.commands:register",
    secrets=("ai_provider_configs.api_key",),
    checks=("stemmadb.workspaces._checks:CHECK",),
    factories="stemmadb.workspaces.factories:FACTORIES",
)
