"""Async twins of stemmadb.workspaces.approvals."""

from typing import Final

from stemmadb.aio import twin
from stemmadb.workspaces import approvals as _sync

__all__ = [
    "ApprovalCreate",
    "ApprovalPriority",
    "ApprovalStatus",
    "create",
    "get",
    "find",
    "list_all",
    "assign",
    "claim_next",
    "decide",
    "cancel",
    "expire_due",
]

ApprovalCreate = _sync.ApprovalCreate
ApprovalPriority = _sync.ApprovalPriority
ApprovalStatus = _sync.ApprovalStatus
create: Final = twin(_sync.create)
get: Final = twin(_sync.get)
find: Final = twin(_sync.find)
list_all: Final = twin(_sync.list_all)
assign: Final = twin(_sync.assign)
claim_next: Final = twin(_sync.claim_next)
decide: Final = twin(_sync.decide)
cancel: Final = twin(_sync.cancel)
expire_due: Final = twin(_sync.expire_due)
