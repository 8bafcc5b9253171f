"""Async twins of stemmadb.workspaces.members."""

from stemmadb.aio import twin
from stemmadb.workspaces import members as _sync

__all__ = [
    "WorkspaceRole",
    "add",
    "get",
    "find",
    "list_all",
    "change_role",
    "remove",
    "require_role",
]

WorkspaceRole = _sync.WorkspaceRole
add = twin(_sync.add)
get = twin(_sync.get)
find = twin(_sync.find)
list_all = twin(_sync.list_all)
change_role = twin(_sync.change_role)
remove = twin(_sync.remove)
require_role = twin(_sync.require_role)
