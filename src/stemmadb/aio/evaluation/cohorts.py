"""Async twins of ``stemmadb.evaluation.cohorts``."""

from typing import Final

from stemmadb.aio import twin
from stemmadb.evaluation import cohorts as _sync
from stemmadb.evaluation.cohorts import CohortCreate, CohortUpdate, OnInvalid

__all__ = [
    "create",
    "get",
    "find",
    "find_by_name",
    "list_all",
    "update",
    "resolve",
    "count",
    "delete",
    "CohortCreate",
    "CohortUpdate",
    "OnInvalid",
]

create: Final = twin(_sync.create)
get: Final = twin(_sync.get)
find: Final = twin(_sync.find)
find_by_name: Final = twin(_sync.find_by_name)
list_all: Final = twin(_sync.list_all)
update: Final = twin(_sync.update)
resolve: Final = twin(_sync.resolve)
count: Final = twin(_sync.count)
delete: Final = twin(_sync.delete)
