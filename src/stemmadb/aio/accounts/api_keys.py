"""Async twins of stemmadb.accounts.api_keys."""

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
create = twin(_sync.create)
issue = twin(_sync.issue)
verify = twin(_sync.verify)
looks_like_token = _sync.looks_like_token
get = twin(_sync.get)
find = twin(_sync.find)
get_by_prefix = twin(_sync.get_by_prefix)
find_by_prefix = twin(_sync.find_by_prefix)
list_for_user = twin(_sync.list_for_user)
list_for_workspace = twin(_sync.list_for_workspace)
rotate = twin(_sync.rotate)
set_scopes = twin(_sync.set_scopes)
revoke = twin(_sync.revoke)
delete = twin(_sync.delete)
