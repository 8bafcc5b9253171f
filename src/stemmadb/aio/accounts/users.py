"""Async twins of stemmadb.accounts.users."""

from stemmadb.accounts import users as _sync
from stemmadb.aio import twin

__all__ = [
    "UserUpdate",
    "create",
    "get",
    "find",
    "get_by_email",
    "find_by_email",
    "list_all",
    "update",
    "soft_delete",
    "restore",
]

UserUpdate = _sync.UserUpdate
create = twin(_sync.create)
get = twin(_sync.get)
find = twin(_sync.find)
get_by_email = twin(_sync.get_by_email)
find_by_email = twin(_sync.find_by_email)
list_all = twin(_sync.list_all)
update = twin(_sync.update)
soft_delete = twin(_sync.soft_delete)
restore = twin(_sync.restore)
