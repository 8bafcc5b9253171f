"""Async twins of stemmadb.accounts.sessions."""

from typing import Final

from stemmadb.accounts import sessions as _sync
from stemmadb.aio import twin

__all__ = [
    "IssuedSession",
    "open",
    "create",
    "authenticate",
    "find_active",
    "rotate",
    "list_for_user",
    "revoke",
    "revoke_family",
    "revoke_all",
    "delete_expired",
]

IssuedSession = _sync.IssuedSession
open: Final = twin(_sync.open)
create: Final = twin(_sync.create)
authenticate: Final = twin(_sync.authenticate)
find_active: Final = twin(_sync.find_active)
rotate: Final = twin(_sync.rotate)
list_for_user: Final = twin(_sync.list_for_user)
revoke: Final = twin(_sync.revoke)
revoke_family: Final = twin(_sync.revoke_family)
revoke_all: Final = twin(_sync.revoke_all)
delete_expired: Final = twin(_sync.delete_expired)
