"""The words that columns of this pack may hold."""

from enum import StrEnum


class RunStatus(StrEnum):
    """Where a run stands. The last four are final."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    COMPLETED = "COMPLETED"
    PARTIAL = "PARTIAL"
    """Finished, with some outcomes and some failures."""
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class SlotStatus(StrEnum):
    """Where one probe of a run stands. The last three are final, until a retry queues the slot again."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"


class ExperimentStatus(StrEnum):
    """Where an experiment stands."""

    DRAFT = "DRAFT"
    ACTIVE = "ACTIVE"
    COMPLETED = "COMPLETED"
    ARCHIVED = "ARCHIVED"


class AnnotatorKind(StrEnum):
    """Who judged a transcript."""

    HUMAN = "HUMAN"
    MODEL = "MODEL"
    RULE = "RULE"
