"""Async twins of stemmadb.workspaces.workspaces."""

from stemmadb.aio import twin
from stemmadb.workspaces import workspaces as _sync

__all__ = [
    "WorkspaceWithRole",
    "create",
    "get",
    "find",
    "get_by_slug",
    "find_by_slug",
    "list_all",
    "list_for_user",
]

WorkspaceWithRole = _sync.WorkspaceWithRole
create = twin(_sync.create)
get = twin(_sync.get)
find = twin(_sync.find)
get_by_slug = twin(_sync.get_by_slug)
find_by_slug = twin(_sync.find_by_slug)
list_all = twin(_sync.list_all)
list_for_user = twin(_sync.list_for_user)
