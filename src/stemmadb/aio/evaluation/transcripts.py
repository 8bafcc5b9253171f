"""Async twins of ``stemmadb.evaluation.transcripts``."""

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

add = twin(_sync.add)
add_many = twin(_sync.add_many)
get = twin(_sync.get)
find = twin(_sync.find)
find_by_slot = twin(_sync.find_by_slot)
get_content = twin(_sync.get_content)
list_for_run = twin(_sync.list_for_run)
list_for_scenario = twin(_sync.list_for_scenario)
iter_for_run = twin_iter(_sync.iter_for_run)
set_metrics = twin(_sync.set_metrics)
invalidate = twin(_sync.invalidate)
revalidate = twin(_sync.revalidate)
summarize_run = twin(_sync.summarize_run)
delete = twin(_sync.delete)
