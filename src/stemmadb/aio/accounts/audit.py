"""Async twins of stemmadb.accounts.audit."""

from typing import Final

from stemmadb.accounts import audit as _sync
from stemmadb.accounts.audit import Actor, ActorType, AuditAction, SecurityEventType, actor
from stemmadb.aio import twin

__all__ = [
    "Actor",
    "ActorType",
    "AuditAction",
    "SecurityEventType",
    "record",
    "actor",
    "history",
    "list_all",
    "record_security_event",
    "list_security_events",
]

record: Final = twin(_sync.record)
history: Final = twin(_sync.history)
list_all: Final = twin(_sync.list_all)
record_security_event: Final = twin(_sync.record_security_event)
list_security_events: Final = twin(_sync.list_security_events)
