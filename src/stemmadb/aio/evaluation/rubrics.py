"""Async twins of ``stemmadb.evaluation.rubrics``."""

from typing import Final

from stemmadb.aio import twin
from stemmadb.evaluation import rubrics as _sync

__all__ = [
    "create_version",
    "get",
    "find",
    "get_content",
    "get_active",
    "get_version",
    "list_versions",
    "list_all",
    "set_active",
    "delete",
]

create_version: Final = twin(_sync.create_version)
get: Final = twin(_sync.get)
find: Final = twin(_sync.find)
get_content: Final = twin(_sync.get_content)
get_active: Final = twin(_sync.get_active)
get_version: Final = twin(_sync.get_version)
list_versions: Final = twin(_sync.list_versions)
list_all: Final = twin(_sync.list_all)
set_active: Final = twin(_sync.set_active)
delete: Final = twin(_sync.delete)
