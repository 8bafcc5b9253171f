"""Async twins of ``stemmadb.evaluation.scenarios``."""

from typing import Final

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

create: Final = twin(_sync.create)
create_many: Final = twin(_sync.create_many)
generate: Final = twin(_sync.generate)
get: Final = twin(_sync.get)
find: Final = twin(_sync.find)
get_content: Final = twin(_sync.get_content)
list_for_definition: Final = twin(_sync.list_for_definition)
rename: Final = twin(_sync.rename)
sample: Final = twin(_sync.sample)
delete: Final = twin(_sync.delete)
