"""The feed: what is in it, what it costs, and that pages hold together while others write."""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.orm import Session
from tests.reviews.shelves import VEGETARIAN, book, many_reviews, plan_of, reader, readers, review

from stemmadb._test_server import DatabaseServer
from stemmadb.accounts import users
from stemmadb.database import Database
from stemmadb.errors import InvalidCursorError, ValidationError
from stemmadb.reviews import books, reactions, reviews
from stemmadb.reviews.reviews import Author, FeedItem
from stemmadb.testing import assert_max_queries, count_queries

Sort = Literal["latest", "popular"]
each_sort = pytest.mark.parametrize("sort", ["latest", "popular"])


def walk(session: Session, sort: Sort, limit: int, between: Any = None) -> list[UUID]:
    """The ids of all pages, one after the other; something may happen between them."""
    found: list[UUID] = []
    cursor = None
    while True:
        page = reviews.feed(session, sort=sort, cursor=cursor, limit=limit)
        assert len(page) == limit or not page.has_more
        found += [item.review.id for item in page]
        cursor = page.next_cursor
        if cursor is None:
            return found
        if between is not None:
            between(found)


# ------------------------------------------------------------------------------------------------------------------ contents


@pytest.mark.requirement("RF-032", "RF-073")
def test_an_item(session: Session) -> None:
    """Review, book, author, counts, and the viewer's own like and bookmark."""
    author, viewer, of = reader(session, "Rin"), reader(session), books.create(session, VEGETARIAN)
    liked, kept = review(session, author, of), review(session, author, of)
    reactions.like(session, viewer.id, liked.id)
    reactions.like(session, author.id, liked.id)
    reactions.bookmark(session, viewer.id, kept.id)
    rin = Author(author.id, "Rin")
    expected = {
        FeedItem(liked, of, rin, 2, 0, liked_by_viewer=True, bookmarked_by_viewer=False),
        FeedItem(kept, of, rin, 0, 1, liked_by_viewer=False, bookmarked_by_viewer=True),
    }
    assert set(reviews.feed(session, viewer_id=viewer.id)) == expected
    assert [item.review for item in reviews.feed(session, sort="popular", viewer_id=str(viewer.id))] == [liked, kept]
    assert [(item.liked_by_viewer, item.bookmarked_by_viewer) for item in reviews.feed(session)] == [(False, False)] * 2


@each_sort
def test_two_statements_for_any_page(session: Session, sort: Sort) -> None:
    """However long the page; an empty one takes one."""
    with assert_max_queries(1):
        assert len(reviews.feed(session, sort=sort)) == 0
    many_reviews(session, 120)
    viewer = reader(session).id
    for limit in (1, 20, 100):
        with assert_max_queries(2):
            assert len(reviews.feed(session, sort=sort, viewer_id=viewer, limit=limit)) == limit


@pytest.mark.requirement("RF-032", "RF-023")
def test_the_orders(session: Session) -> None:
    """Newest publication first, and most liked first; ties by id, the newest first; only what is published."""
    start, author, of = datetime(2026, 3, 1, tzinfo=UTC), reader(session), book(session)
    made = [review(session, author, of, published_at=start + timedelta(hours=hour // 2)) for hour in (0, 1, 2, 3, 4, 5)]
    hidden = [review(session, author, of, status="DRAFT"), review(session, author, of)]
    reviews.soft_delete(session, hidden[1].id)
    for fan in readers(session, 3):
        reactions.like(session, fan, made[1].id)
    reactions.like(session, author.id, made[4].id)
    assert walk(session, "latest", 4) == [made[number].id for number in (5, 4, 3, 2, 1, 0)]
    assert walk(session, "popular", 1) == [made[number].id for number in (1, 4, 5, 3, 2, 0)]


def test_cursors_are_good_for_one_order(session: Session) -> None:
    """Of another order, edited, or nonsense: refused. An unknown order is refused before anything is sent."""
    many_reviews(session, 3)
    cursor = reviews.feed(session, limit=1).next_cursor
    assert cursor is not None
    for wrong in (cursor[:-2] + "AA", "x", ""):
        with pytest.raises(InvalidCursorError):
            reviews.feed(session, cursor=wrong)
    with pytest.raises(InvalidCursorError):
        reviews.feed(session, sort="popular", cursor=cursor)
    with count_queries() as sent:
        for arguments in ({"sort": "best"}, {"sort": None}, {"limit": 0}, {"limit": 201}, {"viewer_id": "x"}):
            with pytest.raises(ValidationError):
                reviews.feed(session, **arguments)
    assert sent.count == 0


def test_counts_are_those_of_the_page(session: Session) -> None:
    """An object that the session holds already takes the counts by which the page is ordered."""
    made = review(session)
    session.execute(text("UPDATE stemma.reviews SET like_count = 7 WHERE id = :id"), {"id": made.id})
    (item,) = reviews.feed(session, sort="popular")
    assert (item.like_count, made.like_count) == (7, 7)


# --------------------------------------------------------------------------------------------------------------- while others write


class Crowd(threading.Thread):
    """Somebody who publishes, likes, unlikes, hides and removes reviews, and purges their readers, until told to stop."""

    def __init__(self, db: Database, author: UUID, of: UUID, fans: list[UUID], there: list[UUID], authors: list[UUID]) -> None:
        super().__init__(name="crowd")
        self.db, self.author, self.of, self.fans, self.there, self.authors = db, author, of, fans, there, authors
        self.enough = threading.Event()
        self.begun = threading.Event()
        self.failure: BaseException | None = None
        self.turns = 0

    def run(self) -> None:
        chance, mine = random.Random(7), list[UUID]()
        try:
            while not self.enough.is_set():
                with self.db.session() as session:
                    at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=chance.randrange(400))
                    data = reviews.ReviewCreate(content="meanwhile", published_at=chance.choice([None, at]))
                    mine.append(reviews.create(session, self.author, self.of, data).id)
                    if len(mine) % 3 == 0:
                        reviews.soft_delete(session, mine.pop(chance.randrange(len(mine))))
                for _ in range(4):
                    with self.db.session() as session:
                        liked = chance.choice([self.there, self.there[:20], mine])
                        chance.choice((reactions.like, reactions.unlike))(session, chance.choice(self.fans), chance.choice(liked))
                if self.turns % 20 == 19 and len(self.fans) > 20:
                    self.db.run(users.purge, self.fans.pop())
                if self.turns % 40 == 39 and self.authors:
                    self.db.run(users.purge, self.authors.pop())
                self.turns += 1
                self.begun.set()
        except BaseException as failure:
            self.failure = failure
            self.begun.set()


_WHOLE = {
    "latest": text("SELECT id FROM stemma.reviews WHERE status = 'PUBLISHED' ORDER BY published_at DESC, id DESC"),
    "popular": text("SELECT id FROM stemma.reviews WHERE status = 'PUBLISHED' ORDER BY like_count DESC, id DESC"),
}


@pytest.mark.race
@pytest.mark.property
@pytest.mark.requirement("RF-032")
@each_sort
def test_pages_hold_while_others_write(committed_db: Database, sort: Sort) -> None:
    """Beside a writer who publishes, deletes and reacts to all of them, whatever stays is met once, in the order of the first page."""
    with committed_db.session() as session:
        author, of = reader(session), book(session)
        many_reviews(session, 600, author, of)
        there = list(session.scalars(text("SELECT id FROM stemma.reviews")))
        leaving = [reader(session) for _ in range(8)]
        for each in leaving:
            many_reviews(session, 10, each, of)
        fans = readers(session, 60)
    crowd = Crowd(committed_db, author.id, of.id, fans, there, [each.id for each in leaving])
    crowd.start()
    try:
        assert crowd.begun.wait(30)
        for limit in (5, 20, 90):
            found: list[UUID] = []
            cursor, before = None, crowd.turns
            with committed_db.session(isolation="repeatable read") as session:
                whole = list(session.scalars(_WHOLE[sort]))
                page = reviews.feed(session, sort=sort, limit=limit)
            while True:
                found += [item.review.id for item in page]
                cursor = page.next_cursor
                if cursor is None:
                    break
                with committed_db.session() as session:
                    page = reviews.feed(session, sort=sort, cursor=cursor, limit=limit)
            assert len(set(found)) == len(found), "not even what was inserted meanwhile is met twice"
            met = set(found)
            assert [id for id in found if id in set(whole)] == [id for id in whole if id in met]
            assert met >= set(there)
            assert sort == "latest" or met <= set(whole), "by popularity, the whole walk tells of one moment"
            assert crowd.turns > before, "nothing was written meanwhile"
    finally:
        crowd.enough.set()
        crowd.join()
    assert crowd.failure is None


@pytest.mark.property
@pytest.mark.requirement("RF-032")
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data(), sort=st.sampled_from(["latest", "popular"]), limit=st.integers(1, 7), size=st.integers(0, 20))
def test_pages_are_the_whole(session: Session, data: st.DataObject, sort: Sort, limit: int, size: int) -> None:
    """Joined pages equal the unpaged list, with any ties, when reviews are inserted, removed and reacted to between them."""
    session.execute(text("DELETE FROM stemma.reviews"))
    author, of = reader(session), book(session)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    for _ in range(size):
        made = review(session, author, of, published_at=start + timedelta(days=data.draw(st.integers(0, 3))))
        likes = data.draw(st.integers(0, 3))
        session.execute(text("UPDATE stemma.reviews SET like_count = :likes WHERE id = :id"), {"likes": likes, "id": made.id})
    key = (lambda row: (row.published_at, row.id)) if sort == "latest" else (lambda row: (row.like_count, row.id))
    rows = session.execute(text("SELECT id, published_at, like_count FROM stemma.reviews")).all()
    whole = [row.id for row in sorted(rows, key=key, reverse=True)]

    def meanwhile() -> None:
        # Newer, or more liked.
        extra = review(session, author, of, published_at=start + timedelta(days=9))
        session.execute(text("UPDATE stemma.reviews SET like_count = 9 WHERE id = :id"), {"id": extra.id})
        moved = data.draw(st.sampled_from(whole))
        session.execute(text("UPDATE stemma.reviews SET like_count = (like_count * 3 + 2) % 5 WHERE id = :id"), {"id": moved})
        if data.draw(st.booleans()):
            session.execute(text("DELETE FROM stemma.reviews WHERE id = :id"), {"id": extra.id})

    assert walk(session, sort, limit) == whole
    assert walk(session, sort, limit, lambda _: meanwhile()) == whole


@pytest.mark.requirement("RF-032")
def test_a_review_that_goes_between_the_statements_is_left_out(session: Session) -> None:
    """Removed for good after the page was read, before what is shown beside it: the rest is shown."""
    from sqlalchemy import event

    gone, kept = review(session), review(session)
    seen = [False]

    def remove(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        if "FROM stemma.reviews" in statement and not seen[0]:
            seen[0] = True
            connection.exec_driver_sql("DELETE FROM stemma.reviews WHERE id = %s", (gone.id,))

    connection = session.connection()
    session.flush()
    event.listen(connection, "after_cursor_execute", remove)
    try:
        page = reviews.feed(session)
    finally:
        event.remove(connection, "after_cursor_execute", remove)
    assert [item.review.id for item in page] == [kept.id]


# --------------------------------------------------------------------------------------------------------------------- plans


@pytest.fixture(scope="module")
def large(stemmadb_server: DatabaseServer) -> Iterator[Database]:
    """A database with 100,000 published reviews of 2,000 books, analyzed."""
    name = stemmadb_server.create()
    db = stemmadb_server.connect(name)
    owner = create_engine(db.direct_url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    try:
        with db.session() as session:
            fans = readers(session, 500)
            session.execute(
                text("INSERT INTO stemma.books (title, author) SELECT 'Book ' || number, 'x' FROM generate_series(1, 2000) AS number")
            )
            session.execute(
                text(
                    """
                    INSERT INTO stemma.reviews (user_id, book_id, content, rating, like_count, status, published_at)
                    SELECT (CAST(:fans AS uuid[]))[1 + number % 500], books[1 + number % 2000], repeat('Worth reading. ', 20),
                           1 + number % 5, number % 700, CASE WHEN number % 25 = 0 THEN 'DRAFT' ELSE 'PUBLISHED' END::stemma.review_status,
                           CASE WHEN number % 25 > 0 THEN timestamptz '2026-01-01' + number * interval '1 second' END
                      FROM generate_series(1, 104166) AS number, (SELECT array_agg(id) AS books FROM stemma.books) AS shelf
                    """
                ),
                {"fans": fans},
            )
            for table in ("likes", "bookmarks"):
                given = f"INSERT INTO stemma.{table} (user_id, review_id) SELECT :fan, id FROM stemma.reviews WHERE rating < 3"
                session.execute(text(given), {"fan": fans[0]})
        with owner.connect() as connection:
            for table in ("books", "reviews", "likes", "bookmarks", "past_places", "users"):
                connection.execute(text(f"VACUUM ANALYZE stemma.{table}"))
        yield db
    finally:
        owner.dispose()
        db.close()
        stemmadb_server.drop(name)


INDEXES = {"latest": "reviews_status_published_at_idx", "popular": "reviews_like_count_id_idx"}


@each_sort
@pytest.mark.requirement("RF-030", "RF-033")
def test_a_page_is_a_stretch_of_the_index(large: Database, sort: Sort) -> None:
    """Of 100,000 published reviews a page reads the rows that it shows and one more, the first page and one deep in the feed alike."""
    with large.session() as session:
        cursor = None
        for _ in range(40):
            cursor = reviews.feed(session, sort=sort, cursor=cursor, limit=200).next_cursor
        session.expunge_all()
        for behind in (None, cursor):
            plan = plan_of(session, lambda behind=behind: reviews.feed(session, sort=sort, cursor=behind, limit=20))
            assert f"Index Scan using {INDEXES[sort]}" in plan
            assert re.search(rf"{INDEXES[sort]} on reviews( reviews_\d)? \(actual rows=21(\.00)? loops=1\)", plan)
            assert max([0, *map(int, re.findall(r"Sort \(actual rows=(\d+)", plan))]) <= (0 if sort == "latest" or behind is None else 42)
            assert "Seq Scan" not in plan
            assert "Rows Removed" not in plan


@pytest.mark.requirement("RF-030", "RF-033")
def test_a_page_of_then_reads_what_moved_about_it(large: Database) -> None:
    """Where 3,000 of 100,000 moved since the first page, a later page is still found by indexes, and not by sorting them."""
    with large.session() as session:
        try:
            cursors = [reviews.feed(session, sort="popular", limit=20).next_cursor]
            for _ in range(10):
                cursors.append(reviews.feed(session, sort="popular", cursor=cursors[-1], limit=200).next_cursor)
            session.execute(
                text("UPDATE stemma.reviews SET like_count = like_count + 5 WHERE id IN (SELECT id FROM stemma.reviews LIMIT 3000)")
            )
            session.expunge_all()
            for behind in (cursors[0], cursors[-1]):
                plan = plan_of(session, lambda behind=behind: reviews.feed(session, sort="popular", cursor=behind, limit=20))
                assert "Index Scan using reviews_like_count_id_idx" in plan
                assert max([0, *map(int, re.findall(r"Sort \(actual rows=(\d+)", plan))]) <= 42
                assert "Seq Scan" not in plan
        finally:
            session.rollback()


@each_sort
@pytest.mark.requirement("RF-030", "RF-033")
def test_what_is_shown_beside_a_page_is_looked_up(large: Database, sort: Sort) -> None:
    """The likes and bookmarks of a viewer who gave 40,000 of each are looked up for the reviews of the page, and not read."""
    with large.session() as session:
        viewer = session.scalars(text("SELECT user_id FROM stemma.likes LIMIT 1")).one()
        plan = plan_of(session, lambda: reviews.feed(session, sort=sort, viewer_id=viewer), 1)
    for table in ("likes", "bookmarks"):
        assert re.search(rf"Scan using {table}_(user_id_review_id_key|review_id_idx) on {table}", plan)
    for table in ("likes", "bookmarks", "reviews"):
        assert f"Seq Scan on {table}" not in plan


@pytest.mark.requirement("RF-030", "RF-031", "RF-033")
def test_other_lists_use_their_indexes(large: Database) -> None:
    """The reviews of a book, those of a user, and what is shown beside a page, are found by index."""
    with large.session() as session:
        user_id, book_id = session.execute(text("SELECT user_id, book_id FROM stemma.reviews LIMIT 1")).one()
        of_book = plan_of(session, lambda: reviews.list_for_book(session, book_id))
        assert "reviews_book_id_status_published_at_id_idx" in of_book
        of_user = plan_of(session, lambda: reviews.list_for_user(session, user_id, limit=10))
        assert "reviews_user_id_created_at_idx" in of_user
        for plan in (of_book, of_user):
            assert "Seq Scan" not in plan
        published = reviews.feed(session, limit=1)[0].review.id
        shown = plan_of(session, lambda: reviews.get(session, published))
        assert "Seq Scan" not in shown


@pytest.mark.requirement("RF-068", "RF-069")
def test_plain_joins_work(large: Database) -> None:
    """The joins of the requirements, as they are written there."""
    with large.session() as session:
        rows = session.execute(
            text(
                "SELECT r.id, r.title, b.title AS book, u.name AS author FROM reviews r JOIN books b ON r.book_id = b.id "
                "JOIN users u ON r.user_id = u.id LIMIT 5"
            )
        ).all()
        assert len(rows) == 5
        assert session.scalar(text("SELECT count(*) FROM reviews JOIN books ON reviews.book_id = books.id")) == 104_166
