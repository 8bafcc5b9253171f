"""Async twins of stemmadb.evaluation.runs."""

from typing import Final

from stemmadb.aio import twin
from stemmadb.evaluation import runs as _sync
from stemmadb.evaluation.runs import (
    OutcomeKind,
    OutcomeResult,
    ReconcileReport,
    RunConfig,
    RunCreate,
    RunFilters,
    RunProgress,
    RunProgressReport,
    RunStatus,
    RunUpdate,
    RunWithTranscripts,
    SlotClaim,
    SlotKey,
    SlotOutcome,
    SlotStatus,
)

__all__ = [
    "create",
    "get",
    "find",
    "get_with_transcripts",
    "list_all",
    "list_for_tree",
    "update",
    "delete",
    # status
    "set_status",
    "start",
    "pause",
    "resume",
    "request_cancel",
    "finish",
    "claim_next",
    # progress
    "progress",
    "progress_many",
    "report_progress",
    "increment_progress",
    # slots
    "plan_slots",
    "claim_slots",
    "renew_slots",
    "record_outcomes",
    "complete_slot",
    "fail_slot",
    "skip_slots",
    "retry_slots",
    "release_slots",
    "list_slots",
    "missing_slots",
    "reconcile",
    # selection
    "select_scenarios",
    "selected_scenarios",
    # types
    "RunCreate",
    "RunUpdate",
    "RunFilters",
    "RunConfig",
    "RunProgress",
    "RunStatus",
    "RunWithTranscripts",
    "RunProgressReport",
    "SlotStatus",
    "SlotKey",
    "SlotClaim",
    "SlotOutcome",
    "OutcomeKind",
    "OutcomeResult",
    "ReconcileReport",
]

create: Final = twin(_sync.create)
get: Final = twin(_sync.get)
find: Final = twin(_sync.find)
get_with_transcripts: Final = twin(_sync.get_with_transcripts)
list_all: Final = twin(_sync.list_all)
list_for_tree: Final = twin(_sync.list_for_tree)
update: Final = twin(_sync.update)
delete: Final = twin(_sync.delete)
set_status: Final = twin(_sync.set_status)
start: Final = twin(_sync.start)
pause: Final = twin(_sync.pause)
resume: Final = twin(_sync.resume)
request_cancel: Final = twin(_sync.request_cancel)
finish: Final = twin(_sync.finish)
claim_next: Final = twin(_sync.claim_next)
progress: Final = twin(_sync.progress)
progress_many: Final = twin(_sync.progress_many)
report_progress: Final = twin(_sync.report_progress)
increment_progress: Final = twin(_sync.increment_progress)
plan_slots: Final = twin(_sync.plan_slots)
claim_slots: Final = twin(_sync.claim_slots)
renew_slots: Final = twin(_sync.renew_slots)
record_outcomes: Final = twin(_sync.record_outcomes)
complete_slot: Final = twin(_sync.complete_slot)
fail_slot: Final = twin(_sync.fail_slot)
skip_slots: Final = twin(_sync.skip_slots)
retry_slots: Final = twin(_sync.retry_slots)
release_slots: Final = twin(_sync.release_slots)
list_slots: Final = twin(_sync.list_slots)
missing_slots: Final = twin(_sync.missing_slots)
reconcile: Final = twin(_sync.reconcile)
select_scenarios: Final = twin(_sync.select_scenarios)
selected_scenarios: Final = twin(_sync.selected_scenarios)
