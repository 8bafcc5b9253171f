"""Async twins of ``stemmadb.evaluation.scenarios``."""

from stemmadb.aio import twin
from stemmadb.evaluation import scenarios as _sync
from stemmadb.evaluation.scenarios import ScenarioCreate

__all__ = [
    "create",
    "create_many",
    "generate",
    "get",
    "find",
    "get_content",
    "list_for_definition",
    "rename",
    "sample",
    "delete",
    "ScenarioCreate",
]

create = twin(_sync.create)
create_many = twin(_sync.create_many)
generate = twin(_sync.generate)
get = twin(_sync.get)
find = twin(_sync.find)
get_content = twin(_sync.get_content)
list_for_definition = twin(_sync.list_for_definition)
rename = twin(_sync.rename)
sample = twin(_sync.sample)
delete = twin(_sync.delete)
