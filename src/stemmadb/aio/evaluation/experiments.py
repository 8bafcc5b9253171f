"""Async twins of ``stemmadb.evaluation.experiments``."""

from typing import Final

from stemmadb.aio import twin
from stemmadb.evaluation import experiments as _sync
from stemmadb.evaluation.experiments import ExperimentCreate, ExperimentUpdate, ExperimentWithRuns, OnInvalid

__all__ = [
    "create",
    "get",
    "find",
    "get_with_runs",
    "list_all",
    "update",
    "freeze_plan",
    "amend_plan",
    "plan_in_force",
    "list_amendments",
    "add_run",
    "remove_run",
    "conclude",
    "archive",
    "delete",
    "ExperimentCreate",
    "ExperimentUpdate",
    "ExperimentWithRuns",
    "OnInvalid",
]

create: Final = twin(_sync.create)
get: Final = twin(_sync.get)
find: Final = twin(_sync.find)
get_with_runs: Final = twin(_sync.get_with_runs)
list_all: Final = twin(_sync.list_all)
update: Final = twin(_sync.update)
freeze_plan: Final = twin(_sync.freeze_plan)
amend_plan: Final = twin(_sync.amend_plan)
plan_in_force: Final = twin(_sync.plan_in_force)
list_amendments: Final = twin(_sync.list_amendments)
add_run: Final = twin(_sync.add_run)
remove_run: Final = twin(_sync.remove_run)
conclude: Final = twin(_sync.conclude)
archive: Final = twin(_sync.archive)
delete: Final = twin(_sync.delete)
