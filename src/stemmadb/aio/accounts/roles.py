"""Async twins of stemmadb.accounts.roles."""

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

create = twin(_sync.create)
get_by_name = twin(_sync.get_by_name)
list_all = twin(_sync.list_all)
delete = twin(_sync.delete)
create_permission = twin(_sync.create_permission)
list_permissions = twin(_sync.list_permissions)
grant_to_role = twin(_sync.grant_to_role)
revoke_from_role = twin(_sync.revoke_from_role)
assign = twin(_sync.assign)
remove = twin(_sync.remove)
grant = twin(_sync.grant)
revoke = twin(_sync.revoke)
permissions_of = twin(_sync.permissions_of)
has_permission = twin(_sync.has_permission)
require = twin(_sync.require)
