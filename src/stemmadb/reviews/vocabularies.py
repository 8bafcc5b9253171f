"""The words that columns of this pack may hold."""

from enum import StrEnum


class ExternalSource(StrEnum):
    """Where a book was found. MANUAL: entered by hand."""

    GOOGLE_BOOKS = "GOOGLE_BOOKS"
    ALADIN = "ALADIN"
    MANUAL = "MANUAL"


class ReadStatus(StrEnum):
    """How far the reviewer read."""

    READING = "READING"
    COMPLETED = "COMPLETED"
    DROPPED = "DROPPED"


class ReviewStatus(StrEnum):
    """Who sees a review: its author alone (DRAFT), everybody, or nobody. DELETED goes with ``deleted_at``."""

    DRAFT = "DRAFT"
    PUBLISHED = "PUBLISHED"
    DELETED = "DELETED"
