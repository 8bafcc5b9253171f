"""Async twins of stemmadb.accounts.users."""

from typing import Final

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
    "set_password",
    "verify_password",
    "record_failed_login",
    "record_successful_login",
    "is_locked_out",
]

UserUpdate = _sync.UserUpdate
create: Final = twin(_sync.create)
get: Final = twin(_sync.get)
find: Final = twin(_sync.find)
get_by_email: Final = twin(_sync.get_by_email)
find_by_email: Final = twin(_sync.find_by_email)
list_all: Final = twin(_sync.list_all)
update: Final = twin(_sync.update)
soft_delete: Final = twin(_sync.soft_delete)
restore: Final = twin(_sync.restore)
set_password: Final = twin(_sync.set_password)
verify_password: Final = twin(_sync.verify_password)
record_failed_login: Final = twin(_sync.record_failed_login)
record_successful_login: Final = twin(_sync.record_successful_login)
is_locked_out: Final = _sync.is_locked_out
