"""
Likes and bookmarks: one statement for each, and counts that are exact whoever reacts at once.

    reactions.like(session, user.id, review.id)          # True: it is new
    reactions.toggle_bookmark(session, user.id, review.id)

Every reaction waits for user, review and reaction in this order, as the removal of a user or of a review does.
"""

import logging
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Row, select
from sqlalchemy.orm import Session

from stemmadb._exports import adopt
from stemmadb.accounts.entities import User
from stemmadb.entity import Id, parse_id
from stemmadb.errors import NotFoundError, SerializationError, ValidationError
from stemmadb.paging import Page, page
from stemmadb.query import RowStatement, query, sql_rows
from stemmadb.reviews._reading import PUBLISHED, items_of
from stemmadb.reviews.data import FeedItem
from stemmadb.reviews.entities import Bookmark, Like, Review

__all__ = [
    "FeedItem",
    "like",
    "unlike",
    "toggle_like",
    "bookmark",
    "unbookmark",
    "toggle_bookmark",
    "list_bookmarks",
    "list_likers",
    "recount",
]

logger: Final = logging.getLogger(__name__)

# Locked first, and in this order: a removed user or review is then found to be gone instead of breaking a foreign key, and no two
# statements wait for each other in a circle. Materialized, so that the planner cannot turn the order round.
_WHO_AND_WHAT = """
    who AS MATERIALIZED (
        SELECT users.id FROM stemma.users WHERE users.id = :user_id FOR KEY SHARE
    ),
    what AS MATERIALIZED (
        SELECT who.id AS user_id, reviews.id, reviews.status
          FROM who, stemma.reviews
         WHERE reviews.id = :review_id
           FOR NO KEY UPDATE OF reviews
    )
"""
_TOLD = """
    SELECT EXISTS (SELECT 1 FROM who) AS has_user, EXISTS (SELECT 1 FROM what WHERE what.status = 'PUBLISHED') AS has_review
"""
_ADD = """
    WITH {who_and_what}, added AS (
        INSERT INTO stemma.{table} (user_id, review_id)
        SELECT what.user_id, what.id FROM what WHERE what.status = 'PUBLISHED'
        ON CONFLICT DO NOTHING
        RETURNING 1
    )
    {told}, EXISTS (SELECT 1 FROM added) AS is_added
"""
_REMOVE = """
    WITH {who_and_what}
    DELETE FROM stemma.{table} USING what WHERE {table}.user_id = what.user_id AND {table}.review_id = what.id
"""
_TOGGLE = """
    WITH {who_and_what}, removed AS (
        DELETE FROM stemma.{table} USING what
         WHERE {table}.user_id = what.user_id AND {table}.review_id = what.id AND what.status = 'PUBLISHED'
        RETURNING 1
    ), added AS (
        INSERT INTO stemma.{table} (user_id, review_id)
        SELECT what.user_id, what.id FROM what WHERE what.status = 'PUBLISHED' AND NOT EXISTS (SELECT 1 FROM removed)
        ON CONFLICT DO NOTHING
        RETURNING 1
    )
    {told}, EXISTS (SELECT 1 FROM added) AS is_added, EXISTS (SELECT 1 FROM removed) AS is_removed
"""


def _statement(text: str, table: str) -> RowStatement:
    return sql_rows(text.format(who_and_what=_WHO_AND_WHAT, told=_TOLD, table=table))


_LIKE, _UNLIKE, _TOGGLE_LIKE = (_statement(text, "likes") for text in (_ADD, _REMOVE, _TOGGLE))
_BOOKMARK, _UNBOOKMARK, _TOGGLE_BOOKMARK = (_statement(text, "bookmarks") for text in (_ADD, _REMOVE, _TOGGLE))
_ATTEMPTS = 10


@query
def like(session: Session, user_id: Id, review_id: Id) -> bool:
    """
    Let a user like a published review. One statement; the count follows in the same transaction.

    Returns:
        True when it is new, False when the user liked it already.

    Raises:
        NotFoundError: no such user, or no published review has this id. The transaction stays usable.
    """
    return _add(session, _LIKE, user_id, review_id)


@query
def unlike(session: Session, user_id: Id, review_id: Id) -> bool:
    """
    Take a like back, also from a review that is no longer published. One statement; the count follows in the same transaction.

    Returns:
        True when there was one, False when not; also for a user or a review that does not exist.

    Raises:
        NotFoundError: a malformed id.
    """
    return _remove(session, _UNLIKE, user_id, review_id)


@query
def toggle_like(session: Session, user_id: Id, review_id: Id) -> bool:
    """
    Like a published review, or take the like back. One statement, and one more for each toggle of the same user that came between.

    Returns:
        Whether the user likes it now.

    Raises:
        NotFoundError: no such user, or no published review has this id. The transaction stays usable.
        SerializationError: the same user toggled it ten times meanwhile; or, in a transaction that is not READ COMMITTED, once.
    """
    return _toggle(session, _TOGGLE_LIKE, user_id, review_id)


@query
def bookmark(session: Session, user_id: Id, review_id: Id) -> bool:
    """
    Keep a published review for later. One statement; the count follows in the same transaction.

    Returns:
        True when it is new, False when the user kept it already.

    Raises:
        NotFoundError: no such user, or no published review has this id. The transaction stays usable.
    """
    return _add(session, _BOOKMARK, user_id, review_id)


@query
def unbookmark(session: Session, user_id: Id, review_id: Id) -> bool:
    """
    Take a bookmark back, also from a review that is no longer published. One statement; the count follows in the same transaction.

    Returns:
        True when there was one, False when not; also for a user or a review that does not exist.

    Raises:
        NotFoundError: a malformed id.
    """
    return _remove(session, _UNBOOKMARK, user_id, review_id)


@query
def toggle_bookmark(session: Session, user_id: Id, review_id: Id) -> bool:
    """
    Bookmark a published review, or take the bookmark back, as toggle_like.

    Returns:
        Whether the user has it bookmarked now.

    Raises:
        NotFoundError: no such user, or no published review has this id. The transaction stays usable.
        SerializationError: as toggle_like.
    """
    return _toggle(session, _TOGGLE_BOOKMARK, user_id, review_id)


def _add(session: Session, statement: RowStatement, user_id: Id, review_id: Id) -> bool:
    return bool(_react(session, statement, user_id, review_id).is_added)


def _remove(session: Session, statement: RowStatement, user_id: Id, review_id: Id) -> bool:
    return statement.run(session, user_id=parse_id(user_id, "User"), review_id=parse_id(review_id, "Review")) > 0


def _toggle(session: Session, statement: RowStatement, user_id: Id, review_id: Id) -> bool:
    for _ in range(_ATTEMPTS):
        row = _react(session, statement, user_id, review_id)
        if row.is_added or row.is_removed:
            return bool(row.is_added)
        # Added by another toggle while this one waited for the review: seen, and taken away, by a statement that begins now.
    raise SerializationError


def _react(session: Session, statement: RowStatement, user_id: Id, review_id: Id) -> Row[Any]:
    """Run a statement that tells what it found."""
    row = statement.all(session, user_id=parse_id(user_id, "User"), review_id=parse_id(review_id, "Review"))[0]
    if not row.has_user:
        raise NotFoundError("User", user_id)
    if not row.has_review:
        raise NotFoundError("Review", review_id)
    return row


@query
def list_bookmarks(session: Session, user_id: Id, *, cursor: str | None = None, limit: int = 50) -> Page[FeedItem]:
    """
    Return the published reviews that a user bookmarked, the newest bookmark first, as the feed shows them to that user. Two statements.

    Args:
        session: the caller's session; needs no workspace.
        user_id: whose bookmarks; an unknown user has none.
        cursor: ``next_cursor`` of the page before; None starts at the first.
        limit: 1 to 200.

    Raises:
        InvalidCursorError: the cursor is not of this list.
        NotFoundError: a malformed user_id.
    """
    key = parse_id(user_id, "User")
    statement = (
        select(Bookmark.id, Bookmark.created_at, Review)
        .join(Review, Review.id == Bookmark.review_id)
        .where(Bookmark.user_id == key, Review.status == PUBLISHED)
        .execution_options(populate_existing=True)
    )
    found = page(session, statement, order_by=[Bookmark.created_at.desc(), Bookmark.id.desc()], cursor=cursor, limit=limit)
    return Page(items_of(session, [row[2] for row in found], key), found.next_cursor, found.has_more)


@query
def list_likers(session: Session, review_id: Id, *, cursor: str | None = None, limit: int = 50) -> Page[User]:
    """
    Return the live users who like a published review, the newest like first. An unknown review is liked by nobody.

    Args:
        session: the caller's session; needs no workspace.
        review_id: which.
        cursor: ``next_cursor`` of the page before; None starts at the first.
        limit: 1 to 200.

    Raises:
        InvalidCursorError: the cursor is not of this list.
        NotFoundError: a malformed review_id.
    """
    statement = (
        select(Like.id, Like.created_at, User)
        .join(User, User.id == Like.user_id)
        .join(Review, Review.id == Like.review_id)
        .where(Like.review_id == parse_id(review_id, "Review"), Review.status == PUBLISHED, User.deleted_at.is_(None))
    )
    found = page(session, statement, order_by=[Like.created_at.desc(), Like.id.desc()], cursor=cursor, limit=limit)
    return Page([row[2] for row in found], found.next_cursor, found.has_more)


_DRIFTED = """
       (reviews.like_count <> (SELECT count(*) FROM stemma.likes WHERE likes.review_id = reviews.id)
        OR reviews.bookmark_count <> (SELECT count(*) FROM stemma.bookmarks WHERE bookmarks.review_id = reviews.id))
"""
# First the locks, then a statement that sees what was committed before they were had.
_LOCK_DRIFTED = sql_rows(
    f"""
    SELECT reviews.id FROM stemma.reviews
     WHERE (CAST(:ids AS uuid[]) IS NULL OR reviews.id = ANY (CAST(:ids AS uuid[]))) AND {_DRIFTED}
     ORDER BY reviews.id
       FOR NO KEY UPDATE
    """  # noqa: S608  (constants only)
)
_RECOUNT = sql_rows(
    f"""
    UPDATE stemma.reviews
       SET like_count = (SELECT count(*) FROM stemma.likes WHERE likes.review_id = reviews.id),
           bookmark_count = (SELECT count(*) FROM stemma.bookmarks WHERE bookmarks.review_id = reviews.id)
     WHERE reviews.id = ANY (CAST(:ids AS uuid[])) AND {_DRIFTED}
    """  # noqa: S608  (constants only)
)


@query
def recount(session: Session, review_ids: Sequence[Id] | None = None) -> int:
    """
    Repair counts that are not the number of likes and bookmarks, which only SQL that went past the triggers can have caused.

    Two statements. It waits for the reviews that are wrong, in the order of their ids, and keeps them locked until the transaction ends;
    reactions that come meanwhile wait, and are counted.

    Args:
        session: the caller's session; needs no workspace.
        review_ids: which reviews; unknown ones are passed over. None looks at all of them, and at all reactions: a scan.

    Returns:
        How many reviews were changed.

    Raises:
        NotFoundError: a malformed id.
        ValidationError: no sequence; nothing was sent.
    """
    if review_ids is not None and (isinstance(review_ids, str | bytes | bytearray) or not isinstance(review_ids, Sequence)):
        raise ValidationError("review_ids is a sequence of ids", field="review_ids")
    wanted = None if review_ids is None else [parse_id(review_id, "Review") for review_id in review_ids]
    ids = [row.id for row in _LOCK_DRIFTED.all(session, ids=wanted)]
    changed = _RECOUNT.run(session, ids=ids) if ids else 0
    if changed:
        logger.warning("counts repaired", extra={"reviews": changed})
    return changed


adopt(globals())
