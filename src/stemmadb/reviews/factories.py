"""How rows of the pack are made up for tests: numbers with their check digits, and the times that a status brings."""

from typing import ClassVar

from stemmadb.reviews._isbn import normalize_isbn
from stemmadb.reviews.entities import Book, ExternalSource, PastPlace, Review, ReviewStatus
from stemmadb.testing import _values
from stemmadb.testing.factories import EntityFactory, PostGenerated, Use

__all__ = ["FACTORIES", "BookFactory", "PastPlaceFactory", "ReviewFactory"]


def _isbn() -> str:
    """Return an ISBN that nobody gave out: whatever its last digit has to be."""
    body = f"979{_values.RANDOM.randrange(10**9):09}"
    total = sum((1, 3)[place % 2] * int(digit) for place, digit in enumerate(body))
    return normalize_isbn(f"{body}{-total % 10}")


class BookFactory(EntityFactory[Book]):
    """A book that was entered by hand. A source brings what the source calls it."""

    isbn: ClassVar[object] = Use(_isbn)
    external_id: ClassVar[object] = PostGenerated(
        lambda _, values: _values.token() if _comes_from_elsewhere(values.get("external_source")) else None
    )


class ReviewFactory(EntityFactory[Review]):
    """A published review that nobody has liked yet. ``status=DELETED`` brings ``deleted_at``, and the reverse; a draft has no date."""

    status: ClassVar[object] = PostGenerated(lambda _, values: ReviewStatus.DELETED if values.get("deleted_at") else ReviewStatus.PUBLISHED)
    deleted_at: ClassVar[object] = PostGenerated(
        lambda _, values: _values.moment() if values.get("status") == ReviewStatus.DELETED else None
    )
    published_at: ClassVar[object] = PostGenerated(
        lambda _, values: None if values.get("status") == ReviewStatus.DRAFT else _values.moment()
    )


class PastPlaceFactory(EntityFactory[PastPlace]):
    """A row that stands for those that were removed. ``review_id`` makes one of a place."""

    review_id: ClassVar[object] = None
    like_count: ClassVar[object] = PostGenerated(lambda _, values: 0 if values.get("review_id") else None)


def _comes_from_elsewhere(source: object) -> bool:
    return source not in (None, ExternalSource.MANUAL)


FACTORIES = (BookFactory, PastPlaceFactory, ReviewFactory)
