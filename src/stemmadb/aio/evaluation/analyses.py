"""Async twins of ``stemmadb.evaluation.analyses``."""

from typing import Final

from stemmadb.aio import twin
from stemmadb.evaluation import analyses as _sync

__all__ = [
    "save",
    "get",
    "find",
    "get_output",
    "get_latest",
    "find_latest",
    "get_version",
    "list_versions",
    "input_hash",
    "is_stale",
    "find_cached",
    "delete",
]

save: Final = twin(_sync.save)
get: Final = twin(_sync.get)
find: Final = twin(_sync.find)
get_output: Final = twin(_sync.get_output)
get_latest: Final = twin(_sync.get_latest)
find_latest: Final = twin(_sync.find_latest)
get_version: Final = twin(_sync.get_version)
list_versions: Final = twin(_sync.list_versions)
input_hash: Final = twin(_sync.input_hash)
is_stale: Final = twin(_sync.is_stale)
find_cached: Final = twin(_sync.find_cached)
delete: Final = twin(_sync.delete)
