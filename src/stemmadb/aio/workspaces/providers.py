"""Async twins of stemmadb.workspaces.providers."""

from typing import Final

from stemmadb.aio import twin
from stemmadb.workspaces import providers as _sync

__all__ = [
    "AIProvider",
    "ProviderConfigUpdate",
    "upsert",
    "get",
    "find",
    "get_default",
    "set_default",
    "reveal_key",
    "list_all",
    "consume_tokens",
    "mark_validated",
    "delete",
]

AIProvider = _sync.AIProvider
ProviderConfigUpdate = _sync.ProviderConfigUpdate
upsert: Final = twin(_sync.upsert)
get: Final = twin(_sync.get)
find: Final = twin(_sync.find)
get_default: Final = twin(_sync.get_default)
set_default: Final = twin(_sync.set_default)
reveal_key: Final = twin(_sync.reveal_key)
list_all: Final = twin(_sync.list_all)
consume_tokens: Final = twin(_sync.consume_tokens)
mark_validated: Final = twin(_sync.mark_validated)
delete: Final = twin(_sync.delete)
