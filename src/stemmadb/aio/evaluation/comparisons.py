"""Async twins of ``stemmadb.evaluation.comparisons``."""

from typing import Final

from stemmadb.aio import twin
from stemmadb.evaluation import comparisons as _sync
from stemmadb.evaluation.comparisons import (
    ComparabilityReport,
    OnInvalid,
    PairedStatistics,
    PairwiseCell,
    RunComparisonCreate,
    RunDifference,
    Verdict,
)

__all__ = [
    "compare",
    "pairwise",
    "create",
    "get",
    "find",
    "find_pair",
    "list_for_run",
    "list_for_experiment",
    "comparability",
    "is_stale",
    "refresh",
    "delete",
    "RunComparisonCreate",
    "PairwiseCell",
    "PairedStatistics",
    "Verdict",
    "ComparabilityReport",
    "RunDifference",
    "OnInvalid",
]

compare: Final = twin(_sync.compare)
pairwise: Final = twin(_sync.pairwise)
create: Final = twin(_sync.create)
get: Final = twin(_sync.get)
find: Final = twin(_sync.find)
find_pair: Final = twin(_sync.find_pair)
list_for_run: Final = twin(_sync.list_for_run)
list_for_experiment: Final = twin(_sync.list_for_experiment)
comparability: Final = twin(_sync.comparability)
is_stale: Final = twin(_sync.is_stale)
refresh: Final = twin(_sync.refresh)
delete: Final = twin(_sync.delete)
