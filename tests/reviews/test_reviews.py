"""Reviews: who sees which, and what becomes of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from pydantic import TypeAdapter
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from tests.reviews.shelves import VEGETARIAN, book, reader, review

from stemmadb.accounts import users
from stemmadb.aio.reviews import reviews as areviews
from stemmadb.database import Database
from stemmadb.errors import InvalidCursorError, InvalidTransitionError, NotFoundError, ReferenceNotFoundError, ValidationError
from stemmadb.reviews import ReadStatus, ReviewStatus, books, reactions, reviews
from stemmadb.reviews.reviews import Author, FeedItem, RatingSummary, ReviewCreate, ReviewDetail, ReviewUpdate
from stemmadb.testing import assert_max_queries, count_queries, run_together

# ------------------------------------------------------------------------------------------------------------------- written


@pytest.mark.requirement("RF-002", "RF-054")
def test_a_published_review(session: Session) -> None:
    """As it was given, with the time of its publication."""
    author, of = reader(session), books.create(session, VEGETARIAN)
    data = ReviewCreate(title="조용한 분노", content="오래 남는다.", rating=5, is_recommended=True, read_status="COMPLETED")
    made = reviews.create(session, author.id, str(of.id), data)
    assert (made.status, made.rating, made.is_recommended, made.read_status) == (ReviewStatus.PUBLISHED, 5, True, ReadStatus.COMPLETED)
    assert (made.like_count, made.bookmark_count, made.deleted_at) == (0, 0, None)
    assert made.published_at == made.created_at
    earlier = datetime(2024, 2, 3, tzinfo=UTC)
    assert review(session, author, of, published_at=earlier).published_at == earlier


def test_a_user_may_review_a_book_again(session: Session) -> None:
    """Ten reviews on three books need it."""
    author, of = reader(session), book(session)
    assert review(session, author, of) is not review(session, author, of)


def test_what_a_review_is_of_must_exist(session: Session) -> None:
    """Unknown users and books are named, and the transaction stays usable; malformed ids are never sent."""
    author, of = reader(session), book(session)
    with pytest.raises(ReferenceNotFoundError, match="user_id"):
        reviews.create(session, uuid4(), of.id, ReviewCreate(content="x"))
    with pytest.raises(ReferenceNotFoundError, match="book_id"):
        reviews.create(session, author.id, uuid4(), ReviewCreate(content="x"))
    with count_queries() as sent, pytest.raises(ValidationError):
        reviews.create(session, author.id, "book", ReviewCreate(content="x"))
    assert sent.count == 0
    assert review(session, author, of).book_id == of.id


@pytest.mark.offline
@pytest.mark.parametrize(
    "fields",
    [
        {"content": " "},
        {"content": "a\ud800"},
        {"rating": 0},
        {"rating": 6},
        {"status": "DELETED"},
        {"read_status": "SKIMMED"},
        {"published_at": datetime(2026, 1, 1)},
        {"status": "DRAFT", "published_at": datetime(2026, 1, 1, tzinfo=UTC)},
        {"like_count": 7},
    ],
)
@pytest.mark.requirement("RF-018")
def test_malformed_reviews_are_refused(fields: dict[str, Any]) -> None:
    """Before anything is sent; counts are nobody's to give."""
    with pytest.raises(ValidationError):
        ReviewCreate(**{"content": "x", **fields})


def test_update(session: Session) -> None:
    """What is given changes, None clears title and rating, the rest stays; of a deleted review nothing changes."""
    made = review(session, title="t", rating=3)
    with assert_max_queries(1):
        assert reviews.update(session, made.id, ReviewUpdate(rating=None, content="Better.", is_recommended=True)) is made
    assert (made.title, made.rating, made.content, made.is_recommended) == ("t", None, "Better.", True)
    assert reviews.update(session, made.id, ReviewUpdate()) is made
    for wrong in ({"content": None}, {"rating": 9}, {"status": "DELETED"}):
        with pytest.raises(ValidationError):
            ReviewUpdate(**wrong)
    reviews.soft_delete(session, made.id)
    for data in (ReviewUpdate(), ReviewUpdate(title="x")):
        for gone in (made.id, uuid4(), "no id"):
            with pytest.raises(NotFoundError):
                reviews.update(session, gone, data)


def test_publish(session: Session) -> None:
    """A draft, once: what is published or deleted cannot be published."""
    draft = review(session, status="DRAFT")
    assert draft.published_at is None
    assert reviews.publish(session, draft.id).published_at is not None
    with pytest.raises(InvalidTransitionError, match="PUBLISHED"):
        reviews.publish(session, draft.id)
    reviews.soft_delete(session, draft.id)
    with pytest.raises(InvalidTransitionError, match="DELETED"):
        reviews.publish(session, draft.id)
    with pytest.raises(NotFoundError):
        reviews.publish(session, uuid4())


@pytest.mark.race
def test_one_of_many_publishes(committed_db: Database) -> None:
    """Of eight at once one does, and seven are told."""
    with committed_db.session() as session:
        draft = review(session, status="DRAFT").id

    def publish(_number: int) -> object:
        with committed_db.session() as session:
            return reviews.publish(session, draft).id

    found = run_together(8, publish)
    assert found.count(draft) == 1
    assert sum(isinstance(each, InvalidTransitionError) for each in found) == 7


@pytest.mark.requirement("RF-022", "RF-023")
def test_soft_delete_and_restore(session: Session) -> None:
    """Status and time together, back to what it was; likes stay; a live review is restored to itself."""
    at = datetime(2025, 1, 1, tzinfo=UTC)
    published, draft = review(session, published_at=at), review(session, status="DRAFT")
    reactions.like(session, reader(session).id, published.id)
    for made, before in ((published, ReviewStatus.PUBLISHED), (draft, ReviewStatus.DRAFT)):
        with assert_max_queries(1):
            reviews.soft_delete(session, made.id)
        assert made.status is ReviewStatus.DELETED
        assert made.deleted_at is not None
        with pytest.raises(NotFoundError):
            reviews.soft_delete(session, made.id)
        assert reviews.restore(session, made.id) is made
        assert (made.status, made.deleted_at) == (before, None)
        assert reviews.restore(session, made.id).status is before
    assert (published.published_at, published.like_count, draft.published_at) == (at, 1, None)
    for call in (reviews.soft_delete, reviews.restore):
        with pytest.raises(NotFoundError):
            call(session, uuid4())


@pytest.mark.requirement("RF-021", "RF-025")
def test_a_purged_user_takes_everything_along(session: Session) -> None:
    """Reviews, likes and bookmarks; and the reviews of others count one less."""
    leaving, staying, of = reader(session), reader(session), book(session)
    gone, kept = review(session, leaving, of), review(session, staying, of)
    for user in (leaving, staying):
        for liked in (gone, kept):
            reactions.like(session, user.id, liked.id)
            reactions.bookmark(session, user.id, liked.id)
    users.purge(session, leaving.id)
    session.expunge(gone)
    session.refresh(kept)
    assert reviews.find(session, gone.id) is None
    assert (kept.like_count, kept.bookmark_count) == (1, 1)
    counts = "SELECT (SELECT count(*) FROM stemma.likes), (SELECT count(*) FROM stemma.bookmarks), (SELECT count(*) FROM stemma.reviews)"
    assert session.execute(text(counts)).one() == (1, 1, 1)


# --------------------------------------------------------------------------------------------------------------------- shown


@pytest.mark.requirement("RF-023")
def test_detail(session: Session) -> None:
    """One statement gives review, book, author, counts and what the viewer did."""
    author, viewer, of = reader(session, "Rin"), reader(session), books.create(session, VEGETARIAN)
    made = review(session, author, of)
    reactions.like(session, viewer.id, made.id)
    reactions.bookmark(session, author.id, made.id)
    with assert_max_queries(1):
        shown = reviews.get(session, str(made.id), viewer_id=viewer.id)
    assert shown == ReviewDetail(made, of, Author(author.id, "Rin"), 1, 1, liked_by_viewer=True, bookmarked_by_viewer=False)
    by_nobody = reviews.find(session, made.id)
    assert by_nobody is not None
    assert (by_nobody.liked_by_viewer, by_nobody.bookmarked_by_viewer, by_nobody.like_count) == (False, False, 1)
    assert (made.like_count, made.bookmark_count) == (1, 1), "the object takes the counts that were read"


@pytest.mark.requirement("RF-023")
def test_drafts_are_their_authors_alone(session: Session) -> None:
    """Nobody else finds one, in no list, no count, no detail; deleted reviews are nobody's."""
    author, other, of = reader(session), reader(session), book(session)
    draft, deleted = review(session, author, of, status="DRAFT", rating=1), review(session, author, of, rating=1)
    reviews.soft_delete(session, deleted.id)
    assert reviews.get(session, draft.id, viewer_id=author.id).review is draft
    for viewer in (None, other.id, uuid4()):
        assert reviews.find(session, draft.id, viewer_id=viewer) is None
        with pytest.raises(NotFoundError):
            reviews.get(session, draft.id, viewer_id=viewer)
    for viewer in (None, other.id, author.id):
        assert reviews.find(session, deleted.id, viewer_id=viewer) is None
        for sort in ("latest", "popular"):
            assert len(reviews.feed(session, sort=sort, viewer_id=viewer)) == 0  # type: ignore[arg-type]
    assert len(reviews.list_for_user(session, author.id)) == 0
    assert [each.id for each in reviews.list_for_user(session, author.id, include_drafts=True)] == [draft.id]
    assert len(reviews.list_for_book(session, of.id)) == 0
    assert reviews.rating(session, of.id).count == 0
    for reaction in (reactions.like, reactions.toggle_like, reactions.bookmark, reactions.toggle_bookmark):
        for hidden in (draft, deleted):
            with pytest.raises(NotFoundError):
                reaction(session, author.id, hidden.id)


def test_ids_that_are_none(session: Session) -> None:
    """A malformed id is not found; a malformed viewer is refused."""
    for id in ("no id", uuid4()):
        assert reviews.find(session, id) is None
        with pytest.raises(NotFoundError):
            reviews.get(session, id)
    for call in (lambda: reviews.get(session, uuid4(), viewer_id="x"), lambda: reviews.feed(session, viewer_id="x")):
        with pytest.raises(ValidationError, match="viewer_id"):
            call()
    for listing in (reviews.list_for_user, reviews.list_for_book, reviews.rating):
        with pytest.raises(NotFoundError):
            listing(session, "x")


@pytest.mark.requirement("RF-011")
def test_lists_of_a_user_and_of_a_book(session: Session) -> None:
    """Newest first, by the time of writing and of publication; page by page the same."""
    author, of = reader(session), book(session)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    made = [review(session, author, of, published_at=start + timedelta(days=day % 3)) for day in range(7)]
    session.execute(text("UPDATE stemma.reviews SET created_at = :at WHERE id = :id"), {"at": start, "id": made[-1].id})
    by_user = [each.id for each in reviews.list_for_user(session, author.id)]
    assert by_user[-1] == made[-1].id
    assert set(by_user[:-1]) == {each.id for each in made[:-1]}
    expected = sorted(made, key=lambda each: (each.published_at, each.id), reverse=True)
    assert [each.id for each in reviews.list_for_book(session, of.id)] == [each.id for each in expected]
    first = reviews.list_for_book(session, of.id, limit=3)
    rest = reviews.list_for_book(session, of.id, limit=200, cursor=first.next_cursor)
    assert [each.id for each in (*first, *rest)] == [each.id for each in expected]
    with pytest.raises(InvalidCursorError):
        reviews.list_for_book(session, book(session).id, cursor=first.next_cursor)
    assert len(reviews.list_for_user(session, uuid4())) == len(reviews.list_for_book(session, uuid4())) == 0


def test_rating(session: Session) -> None:
    """The mean to two places, and how many gave what; without a rating there is none."""
    of = book(session)
    assert reviews.rating(session, of.id) == RatingSummary(0, None, {1: 0, 2: 0, 3: 0, 4: 0, 5: 0})
    for rating in (5, 5, 4, 1, None):
        review(session, of=of, rating=rating)
    with assert_max_queries(1):
        found = reviews.rating(session, of.id)
    assert found == RatingSummary(4, Decimal("3.75"), {1: 1, 2: 0, 3: 0, 4: 1, 5: 2})
    for rating in (5, 5):
        review(session, of=of, rating=rating)
    assert reviews.rating(session, of.id).average == Decimal("4.17")
    with pytest.raises(NotFoundError):
        reviews.rating(session, uuid4())


# ------------------------------------------------------------------------------------------------------------------ contract


@pytest.mark.requirement("RF-073")
def test_an_item_is_what_a_response_needs(session: Session) -> None:
    """Its JSON Schema has review, book, author, counts and flags, and it is written as JSON as it comes."""
    adapter = TypeAdapter(FeedItem)
    schema = adapter.json_schema(mode="serialization")
    names = ["review", "book", "author", "like_count", "bookmark_count", "liked_by_viewer", "bookmarked_by_viewer"]
    assert list(schema["properties"]) == schema["required"] == names
    author = reader(session, "Rin")
    review(session, author, books.create(session, VEGETARIAN), rating=5)
    session.expunge_all()
    (item,) = reviews.feed(session)
    written = adapter.dump_python(item, mode="json", warnings="error")
    assert (written["book"]["title"], written["author"], written["like_count"]) == ("채식주의자", {"id": str(author.id), "name": "Rin"}, 0)
    assert (written["review"]["rating"], written["review"]["status"], written["book"]["external_source"]) == (5, "PUBLISHED", "ALADIN")
    assert "search_vector" not in written["book"]


async def test_twins(async_session: AsyncSession) -> None:
    """The same functions, awaited."""
    made: list[Any] = []

    def prepare(session: Session) -> None:
        made.extend((reader(session), book(session)))

    await async_session.run_sync(prepare)
    author, of = made
    draft = await areviews.create(async_session, author.id, of.id, ReviewCreate(content="x", rating=2, status="DRAFT"))
    assert (await areviews.get(async_session, draft.id, viewer_id=author.id)).review is draft
    assert await areviews.find(async_session, draft.id) is None
    await areviews.publish(async_session, draft.id)
    await areviews.update(async_session, draft.id, ReviewUpdate(rating=3))
    assert (await areviews.rating(async_session, of.id)).average == 3
    for listed in (await areviews.list_for_user(async_session, author.id), await areviews.list_for_book(async_session, of.id)):
        assert [each.id for each in listed] == [draft.id]
    assert [item.review.id for item in await areviews.feed(async_session, sort="popular")] == [draft.id]
    await areviews.soft_delete(async_session, draft.id)
    assert (await areviews.restore(async_session, draft.id)).status is ReviewStatus.PUBLISHED
