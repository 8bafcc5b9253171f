"""Async twins of stemmadb.accounts.api_keys."""

from typing import Final

from stemmadb.accounts import api_keys as _sync
from stemmadb.aio import twin

__all__ = [
    "ApiKeyIdentity",
    "IssuedApiKey",
    "create",
    "issue",
    "verify",
    "looks_like_token",
    "get",
    "find",
    "get_by_prefix",
    "find_by_prefix",
    "list_for_user",
    "list_for_workspace",
    "rotate",
    "set_scopes",
    "revoke",
    "delete",
]

ApiKeyIdentity = _sync.ApiKeyIdentity
IssuedApiKey = _sync.IssuedApiKey
create: Final = twin(_sync.create)
issue: Final = twin(_sync.issue)
verify: Final = twin(_sync.verify)
looks_like_token: Final = _sync.looks_like_token
get: Final = twin(_sync.get)
find: Final = twin(_sync.find)
get_by_prefix: Final = twin(_sync.get_by_prefix)
find_by_prefix: Final = twin(_sync.find_by_prefix)
list_for_user: Final = twin(_sync.list_for_user)
list_for_workspace: Final = twin(_sync.list_for_workspace)
rotate: Final = twin(_sync.rotate)
set_scopes: Final = twin(_sync.set_scopes)
revoke: Final = twin(_sync.revoke)
delete: Final = twin(_sync.delete)
