"""Async twins of stemmadb.evaluation.runs."""

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

create = twin(_sync.create)
get = twin(_sync.get)
find = twin(_sync.find)
get_with_transcripts = twin(_sync.get_with_transcripts)
list_all = twin(_sync.list_all)
list_for_tree = twin(_sync.list_for_tree)
update = twin(_sync.update)
delete = twin(_sync.delete)
set_status = twin(_sync.set_status)
start = twin(_sync.start)
pause = twin(_sync.pause)
resume = twin(_sync.resume)
request_cancel = twin(_sync.request_cancel)
finish = twin(_sync.finish)
claim_next = twin(_sync.claim_next)
progress = twin(_sync.progress)
progress_many = twin(_sync.progress_many)
report_progress = twin(_sync.report_progress)
increment_progress = twin(_sync.increment_progress)
plan_slots = twin(_sync.plan_slots)
claim_slots = twin(_sync.claim_slots)
renew_slots = twin(_sync.renew_slots)
record_outcomes = twin(_sync.record_outcomes)
complete_slot = twin(_sync.complete_slot)
fail_slot = twin(_sync.fail_slot)
skip_slots = twin(_sync.skip_slots)
retry_slots = twin(_sync.retry_slots)
release_slots = twin(_sync.release_slots)
list_slots = twin(_sync.list_slots)
missing_slots = twin(_sync.missing_slots)
reconcile = twin(_sync.reconcile)
select_scenarios = twin(_sync.select_scenarios)
selected_scenarios = twin(_sync.selected_scenarios)
