"""
Reviews: written, published, deleted and restored; shown one by one, in lists, and as a feed.

    review = reviews.create(session, user.id, book.id, ReviewCreate(content="...", rating=5))
    newest = reviews.feed(session, viewer_id=user.id)
    popular = reviews.feed(session, sort="popular", limit=10)
"""

import logging
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Final

from sqlalchemy import update as sa_update
from sqlalchemy.orm import Session

from stemmadb._exports import adopt
from stemmadb.entity import Id, parse_id, parse_reference
from stemmadb.errors import InvalidTransitionError, NotFoundError
from stemmadb.query import query, read, sql
from stemmadb.reviews._past_places import prune_places
from stemmadb.reviews._reading import RATINGS, feed, find, get, list_for_book, list_for_user
from stemmadb.reviews.data import Author, FeedItem, RatingSummary, ReviewCreate, ReviewDetail, ReviewUpdate
from stemmadb.reviews.entities import Review, ReviewStatus

__all__ = [
    "ReviewCreate",
    "ReviewUpdate",
    "ReviewDetail",
    "FeedItem",
    "Author",
    "RatingSummary",
    "create",
    "get",
    "find",
    "update",
    "publish",
    "soft_delete",
    "restore",
    "feed",
    "list_for_user",
    "list_for_book",
    "rating",
    "prune_places",
]

logger: Final = logging.getLogger(__name__)


# As SQL, because what the trigger sets comes back only where it is asked for.
_INSERT = sql(
    Review,
    """
    INSERT INTO stemma.reviews (id, user_id, book_id, title, content, rating, is_recommended, read_status, status, published_at)
    VALUES (
        :id, :user_id, :book_id, :title, :content, :rating, :is_recommended, CAST(:read_status AS stemma.read_status),
        CAST(:status AS stemma.review_status), :published_at
    )
    RETURNING {columns}
    """,
)


@query
def create(session: Session, user_id: Id, book_id: Id, data: ReviewCreate) -> Review:
    """
    Make a review, published or as a draft. A user may review a book more than once.

    A published review has ``published_at``, now unless ``data`` says when; a draft has none.

    Args:
        session: the caller's session; needs no workspace.
        user_id: its author.
        book_id: what it is about.
        data: the review.

    Raises:
        ReferenceNotFoundError: no such user, or no such book. The transaction stays usable.
        ValidationError: a malformed field or id; nothing was sent.
    """
    given = ReviewCreate.of(data)
    values: dict[str, Any] = {name: getattr(given, name) for name in ReviewCreate.model_fields}
    # Made as an entity first: its rules are those of the columns.
    draft = Review(user_id=parse_reference(user_id, "user_id"), book_id=parse_reference(book_id, "book_id"), **values)
    with session.begin_nested():
        (review,) = _INSERT.write_all(session, id=draft.id, user_id=draft.user_id, book_id=draft.book_id, **values)
    logger.info("review created", extra={"review_id": str(review.id), "book_id": str(review.book_id)})
    return review


@query
def update(session: Session, review_id: Id, data: ReviewUpdate) -> Review:
    """
    Change a live review, draft or published; fields that ``data`` does not give stay. One statement.

    Raises:
        NotFoundError: no live review has this id.
        ValidationError: a malformed field; nothing was sent.
    """
    key = parse_id(review_id, "Review")
    changes = ReviewUpdate.of(data).changes()
    if not changes:
        return _live(read(session, Review, key), review_id)
    statement = sa_update(Review).where(Review.id == key, Review.deleted_at.is_(None)).values(**changes).returning(Review)
    return _live(session.scalars(statement, execution_options={"populate_existing": True}).one_or_none(), review_id)


def _live(review: Review | None, review_id: Id) -> Review:
    if review is None or review.deleted_at is not None:
        raise NotFoundError("Review", review_id)
    return review


_PUBLISH = sql(Review, "UPDATE stemma.reviews SET status = 'PUBLISHED' WHERE id = :id AND status = 'DRAFT' RETURNING {columns}")


@query
def publish(session: Session, review_id: Id) -> Review:
    """
    Show a draft to everybody, from now on. Of callers that come at once one does it.

    Raises:
        InvalidTransitionError: it is published already, or deleted.
        NotFoundError: no review has this id.
    """
    key = parse_id(review_id, "Review")
    review = _PUBLISH.write(session, id=key)
    if review is not None:
        logger.info("review published", extra={"review_id": str(key)})
        return review
    present = read(session, Review, key)
    if present is None:
        raise NotFoundError("Review", review_id)
    raise InvalidTransitionError(present.status, ReviewStatus.PUBLISHED, "Review")


_SOFT_DELETE = sql(
    Review,
    "UPDATE stemma.reviews SET status = 'DELETED', deleted_at = now() WHERE id = :id AND deleted_at IS NULL RETURNING {columns}",
)


@query
def soft_delete(session: Session, review_id: Id) -> Review:
    """
    Hide a review from everybody: status DELETED and deleted_at together. One statement. Likes and bookmarks stay with it.

    Raises:
        NotFoundError: no live review has this id.
    """
    key = parse_id(review_id, "Review")
    review = _SOFT_DELETE.write(session, id=key)
    if review is None:
        raise NotFoundError("Review", review_id)
    logger.info("review deleted", extra={"review_id": str(key)})
    return review


# What was never published comes back as the draft that it was.
_RESTORE = sql(
    Review,
    """
    UPDATE stemma.reviews
       SET status = CASE WHEN published_at IS NULL THEN 'DRAFT' ELSE 'PUBLISHED' END::stemma.review_status, deleted_at = NULL
     WHERE id = :id AND deleted_at IS NOT NULL
    RETURNING {columns}
    """,
)


@query
def restore(session: Session, review_id: Id) -> Review:
    """
    Bring a deleted review back: PUBLISHED at its old place in the feed if it had been published, else DRAFT. A live one stays as it is.

    Raises:
        NotFoundError: no review has this id.
    """
    key = parse_id(review_id, "Review")
    review = _RESTORE.write(session, id=key) or read(session, Review, key)
    if review is None:
        raise NotFoundError("Review", review_id)
    return review


_CENTS: Final = Decimal("0.01")


@query
def rating(session: Session, book_id: Id) -> RatingSummary:
    """
    Return how the published reviews of a book rate it. One statement. Reviews without a rating are not counted.

    Raises:
        NotFoundError: no book has this id.
    """
    rows = session.execute(RATINGS, {"id": parse_id(book_id, "Book")}).all()
    if not rows:
        raise NotFoundError("Book", book_id)
    given = {stars: number for _, stars, number in rows if stars is not None}
    histogram = {stars: given.get(stars, 0) for stars in range(1, 6)}
    count = sum(histogram.values())
    total = sum(stars * number for stars, number in histogram.items())
    average = (Decimal(total) / count).quantize(_CENTS, ROUND_HALF_UP) if count else None
    return RatingSummary(count, average, histogram)


adopt(globals())
