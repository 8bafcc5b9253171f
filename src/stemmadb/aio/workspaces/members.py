"""Async twins of stemmadb.workspaces.members."""

from typing import Final

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
add: Final = twin(_sync.add)
get: Final = twin(_sync.get)
find: Final = twin(_sync.find)
list_all: Final = twin(_sync.list_all)
change_role: Final = twin(_sync.change_role)
remove: Final = twin(_sync.remove)
require_role: Final = twin(_sync.require_role)
