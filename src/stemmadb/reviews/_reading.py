"""Reviews as they are shown: with book, author, counts, and what the viewer did."""

import logging
from collections.abc import Sequence
from typing import Any, Final, Literal
from uuid import UUID

from sqlalchemy import Boolean, Text, Uuid, bindparam, func, literal_column, or_, select
from sqlalchemy.orm import Session

from stemmadb.accounts.entities import User
from stemmadb.entity import Id, parse_id, parse_reference
from stemmadb.errors import NotFoundError, ValidationError
from stemmadb.paging import Page, page
from stemmadb.query import query, sql
from stemmadb.reviews._popular import popular
from stemmadb.reviews.data import Author, FeedItem, ReviewDetail
from stemmadb.reviews.entities import Book, Bookmark, Like, Review

log: Final = logging.getLogger("stemmadb.reviews.reviews")

Sort = Literal["latest", "popular"]

PUBLISHED: Final[Any] = literal_column("'PUBLISHED'::stemma.review_status")
_DRAFT: Any = literal_column("'DRAFT'::stemma.review_status")
# A row that the session holds already takes the counts of the statement, by which it is ordered.
_FRESH = {"populate_existing": True}
PUBLISHED_REVIEWS: Final = select(Review).where(Review.status == PUBLISHED).execution_options(**_FRESH)

_VIEWER = bindparam("viewer_id", type_=Uuid())
_SHOWN = (
    Book,
    User.id,
    User.name,
    # Not EXISTS: of that PostgreSQL may make a hash of everything that the viewer ever liked, for a page of twenty.
    select(Like.id).where(Like.user_id == _VIEWER, Like.review_id == Review.id).scalar_subquery().is_not(None),
    select(Bookmark.id).where(Bookmark.user_id == _VIEWER, Bookmark.review_id == Review.id).scalar_subquery().is_not(None),
)
_BESIDE: Final = sql(
    Book,
    """
    SELECT {columns}, reviews.id AS review_id, users.id AS author_id, users.name AS author_name,
           (SELECT likes.id FROM stemma.likes WHERE likes.user_id = CAST(:viewer_id AS uuid) AND likes.review_id = reviews.id)
               IS NOT NULL AS liked,
           (SELECT bookmarks.id FROM stemma.bookmarks
             WHERE bookmarks.user_id = CAST(:viewer_id AS uuid) AND bookmarks.review_id = reviews.id) IS NOT NULL AS bookmarked
      FROM stemma.reviews
      JOIN stemma.books ON books.id = reviews.book_id
      JOIN stemma.users ON users.id = reviews.user_id
     WHERE reviews.id = ANY(CAST(:ids AS uuid[]))
    """,
    beside={"review_id": Uuid(), "author_id": Uuid(), "author_name": Text(), "liked": Boolean(), "bookmarked": Boolean()},
)
_DETAIL: Any = (
    select(Review, *_SHOWN)
    .join(Book, Book.id == Review.book_id)
    .join(User, User.id == Review.user_id)
    .where(
        Review.id == bindparam("id", type_=Uuid()),
        or_(Review.status == PUBLISHED, (Review.status == _DRAFT) & (Review.user_id == _VIEWER)),
    )
)


def viewer_of(viewer_id: Id | None) -> UUID | None:
    """
    Return who looks, or None.

    Raises:
        ValidationError: a malformed id.
    """
    return None if viewer_id is None else parse_reference(viewer_id, "viewer_id")


def items_of(session: Session, reviews: Sequence[Review], viewer: UUID | None) -> list[FeedItem]:
    """Return what is shown beside these reviews, in their order; one statement. A review that was removed meanwhile is left out."""
    if not reviews:
        return []
    found = _BESIDE.pairs(session, ids=[review.id for review in reviews], viewer_id=viewer)
    beside = {review_id: (book, *shown) for book, (review_id, *shown) in found}
    return [_shown(FeedItem, review, beside[review.id]) for review in reviews if review.id in beside]


def _shown(kind: Any, review: Review, beside: Sequence[Any]) -> Any:
    book, author_id, name, liked, bookmarked = beside
    return kind(review, book, Author(author_id, name), review.like_count, review.bookmark_count, liked, bookmarked)


@query
def get(session: Session, review_id: Id, *, viewer_id: Id | None = None) -> ReviewDetail:
    """
    Return a review with its book, its author, and what the viewer did. One statement.

    Args:
        session: the caller's session; needs no workspace.
        review_id: which.
        viewer_id: who looks; None for somebody unknown. A draft is there for its author alone.

    Raises:
        NotFoundError: no review has this id, or it is deleted, or somebody else's draft.
        ValidationError: a malformed viewer_id; nothing was sent.
    """
    found = find(session, review_id, viewer_id=viewer_of(viewer_id))
    if found is None:
        log.warning("review not found", extra={"review_id": str(review_id)})
        raise NotFoundError("Review", review_id)
    return found


@query
def find(session: Session, review_id: Id, *, viewer_id: Id | None = None) -> ReviewDetail | None:
    """As get, but None for a review that is not there for the viewer; a malformed id is no review's, and nobody's."""
    try:
        key, viewer = parse_id(review_id, "Review"), viewer_of(viewer_id)
    except (NotFoundError, ValidationError):
        return None
    log.debug("reading review", extra={"review_id": str(key)})
    row = session.execute(_DETAIL, {"id": key, "viewer_id": viewer}, execution_options=_FRESH).one_or_none()
    return None if row is None else _shown(ReviewDetail, row[0], row[1:])


_LATEST: list[Any] = [Review.published_at.desc(), Review.id.desc()]
_SORTS = ("latest", "popular")


@query
def feed(
    session: Session, *, sort: Sort = "latest", viewer_id: Id | None = None, cursor: str | None = None, limit: int = 20
) -> Page[FeedItem]:
    """
    Return published reviews with their books, their authors, and what the viewer did. Two statements, however long the page.

    A page is read from an index in its order, so a page deep in the feed costs what the first does (``benchmarks/feed.py``). Whatever is
    published, removed or liked meanwhile, the pages of a walk meet no review twice, and miss none that stays.

    Args:
        session: the caller's session; needs no workspace.
        sort: ``latest``: by (published_at, id), the newest first. ``popular``: by (like_count, id), the most liked first, as it was when
            the first page was read: what was published since is left out, and the items tell the likes of now. Later pages cost the more,
            the more was liked since.
        viewer_id: whose likes and bookmarks the items tell; None for somebody unknown, who has none.
        cursor: ``next_cursor`` of the page before; None starts at the first.
        limit: 1 to 200.

    Raises:
        ExpiredCursorError: by popularity, the first page is so old that ``prune_places`` has removed what it saw, or it was read
            on another server, or on one that is ahead of this one.
        InvalidCursorError: the cursor is not of this feed in this order; nothing was sent.
        ValidationError: an unknown order, a malformed viewer_id, or a limit out of bounds; nothing was sent.
    """
    viewer = viewer_of(viewer_id)
    if not isinstance(sort, str) or sort not in _SORTS:
        raise ValidationError(f"sort is one of {', '.join(_SORTS)}", field="sort")
    if sort == "popular":
        found = popular(session, cursor, limit)
    else:
        found = page(session, PUBLISHED_REVIEWS, order_by=_LATEST, cursor=cursor, limit=limit)
    return Page(items_of(session, found.items, viewer), found.next_cursor, found.has_more)


@query
def list_for_user(
    session: Session, user_id: Id, *, include_drafts: bool = False, cursor: str | None = None, limit: int = 50
) -> Page[Review]:
    """
    Return a user's reviews, newest first, by (created_at, id). An unknown user has none; deleted reviews are never in the list.

    Args:
        session: the caller's session; needs no workspace.
        user_id: whose reviews.
        include_drafts: whether drafts are in the list: for the author alone.
        cursor: ``next_cursor`` of the page before; None starts at the first.
        limit: 1 to 200.

    Raises:
        InvalidCursorError: the cursor is not of this list.
        NotFoundError: a malformed user_id.
    """
    wanted = Review.deleted_at.is_(None) if include_drafts else Review.status == PUBLISHED
    statement = select(Review).where(Review.user_id == parse_id(user_id, "User"), wanted).execution_options(**_FRESH)
    return page(session, statement, order_by=[Review.created_at.desc(), Review.id.desc()], cursor=cursor, limit=limit)


@query
def list_for_book(session: Session, book_id: Id, *, cursor: str | None = None, limit: int = 50) -> Page[Review]:
    """
    Return the published reviews of a book, by (published_at, id), the newest first. An unknown book has none.

    Args:
        session: the caller's session; needs no workspace.
        book_id: which.
        cursor: ``next_cursor`` of the page before; None starts at the first.
        limit: 1 to 200.

    Raises:
        InvalidCursorError: the cursor is not of this list.
        NotFoundError: a malformed book_id.
    """
    statement = PUBLISHED_REVIEWS.where(Review.book_id == parse_id(book_id, "Book"))
    return page(session, statement, order_by=_LATEST, cursor=cursor, limit=limit)


RATINGS: Final = (
    select(Book.id, Review.rating, func.count(Review.rating))
    .outerjoin(Review, (Review.book_id == Book.id) & (Review.status == PUBLISHED) & Review.rating.is_not(None))
    .where(Book.id == bindparam("id", type_=Uuid()))
    .group_by(Book.id, Review.rating)
)
