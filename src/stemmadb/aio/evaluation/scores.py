"""Async twins of ``stemmadb.evaluation.scores``."""

from typing import Final

from stemmadb.aio import twin
from stemmadb.evaluation import scores as _sync
from stemmadb.evaluation.scores import AddReport, Agreement, AgreementPair, OnInvalid, ScoreCreate, ScoreSummary

__all__ = [
    "record",
    "record_many",
    "get",
    "find",
    "list_for_transcript",
    "list_for_run",
    "summarize",
    "agreement",
    "delete",
    "ScoreCreate",
    "ScoreSummary",
    "Agreement",
    "AgreementPair",
    "AddReport",
    "OnInvalid",
]

record: Final = twin(_sync.record)
record_many: Final = twin(_sync.record_many)
get: Final = twin(_sync.get)
find: Final = twin(_sync.find)
list_for_transcript: Final = twin(_sync.list_for_transcript)
list_for_run: Final = twin(_sync.list_for_run)
summarize: Final = twin(_sync.summarize)
agreement: Final = twin(_sync.agreement)
delete: Final = twin(_sync.delete)
