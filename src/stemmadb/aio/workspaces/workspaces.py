"""Async twins of stemmadb.workspaces.workspaces."""

from typing import Final

from stemmadb.aio import twin
from stemmadb.workspaces import workspaces as _sync

__all__ = [
    "WorkspaceUpdate",
    "WorkspaceWithRole",
    "create",
    "get",
    "find",
    "get_by_slug",
    "find_by_slug",
    "list_all",
    "list_for_user",
    "update",
    "transfer_ownership",
    "soft_delete",
    "restore",
    "purge",
]

WorkspaceUpdate = _sync.WorkspaceUpdate
WorkspaceWithRole = _sync.WorkspaceWithRole
create: Final = twin(_sync.create)
get: Final = twin(_sync.get)
find: Final = twin(_sync.find)
get_by_slug: Final = twin(_sync.get_by_slug)
find_by_slug: Final = twin(_sync.find_by_slug)
list_all: Final = twin(_sync.list_all)
list_for_user: Final = twin(_sync.list_for_user)
update: Final = twin(_sync.update)
transfer_ownership: Final = twin(_sync.transfer_ownership)
soft_delete: Final = twin(_sync.soft_delete)
restore: Final = twin(_sync.restore)
purge: Final = twin(_sync.purge)
