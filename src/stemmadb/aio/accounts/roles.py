"""Async twins of stemmadb.accounts.roles."""

from typing import Final

from stemmadb.accounts import roles as _sync
from stemmadb.aio import twin

__all__ = [
    "create",
    "get_by_name",
    "list_all",
    "delete",
    "create_permission",
    "list_permissions",
    "grant_to_role",
    "revoke_from_role",
    "assign",
    "remove",
    "grant",
    "revoke",
    "permissions_of",
    "has_permission",
    "require",
]

create: Final = twin(_sync.create)
get_by_name: Final = twin(_sync.get_by_name)
list_all: Final = twin(_sync.list_all)
delete: Final = twin(_sync.delete)
create_permission: Final = twin(_sync.create_permission)
list_permissions: Final = twin(_sync.list_permissions)
grant_to_role: Final = twin(_sync.grant_to_role)
revoke_from_role: Final = twin(_sync.revoke_from_role)
assign: Final = twin(_sync.assign)
remove: Final = twin(_sync.remove)
grant: Final = twin(_sync.grant)
revoke: Final = twin(_sync.revoke)
permissions_of: Final = twin(_sync.permissions_of)
has_permission: Final = twin(_sync.has_permission)
require: Final = twin(_sync.require)
