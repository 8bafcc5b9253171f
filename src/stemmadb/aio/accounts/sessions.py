"""Async twins of stemmadb.accounts.sessions."""

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
open = twin(_sync.open)
create = twin(_sync.create)
authenticate = twin(_sync.authenticate)
find_active = twin(_sync.find_active)
rotate = twin(_sync.rotate)
list_for_user = twin(_sync.list_for_user)
revoke = twin(_sync.revoke)
revoke_family = twin(_sync.revoke_family)
revoke_all = twin(_sync.revoke_all)
delete_expired = twin(_sync.delete_expired)
