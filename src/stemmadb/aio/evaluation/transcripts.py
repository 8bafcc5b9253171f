"""Async twins of ``stemmadb.evaluation.transcripts``."""

from typing import Final

from stemmadb.aio import twin, twin_iter
from stemmadb.evaluation import transcripts as _sync
from stemmadb.evaluation.transcripts import AddReport, ModelMetrics, OnInvalid, RunMetrics, SlotKey, TranscriptCreate

__all__ = [
    "add",
    "add_many",
    "get",
    "find",
    "find_by_slot",
    "get_content",
    "list_for_run",
    "list_for_scenario",
    "iter_for_run",
    "set_metrics",
    "invalidate",
    "revalidate",
    "summarize_run",
    "delete",
    "TranscriptCreate",
    "AddReport",
    "SlotKey",
    "RunMetrics",
    "ModelMetrics",
    "OnInvalid",
]

add: Final = twin(_sync.add)
add_many: Final = twin(_sync.add_many)
get: Final = twin(_sync.get)
find: Final = twin(_sync.find)
find_by_slot: Final = twin(_sync.find_by_slot)
get_content: Final = twin(_sync.get_content)
list_for_run: Final = twin(_sync.list_for_run)
list_for_scenario: Final = twin(_sync.list_for_scenario)
iter_for_run: Final = twin_iter(_sync.iter_for_run)
set_metrics: Final = twin(_sync.set_metrics)
invalidate: Final = twin(_sync.invalidate)
revalidate: Final = twin(_sync.revalidate)
summarize_run: Final = twin(_sync.summarize_run)
delete: Final = twin(_sync.delete)
