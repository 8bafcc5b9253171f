"""
The feed: reviews with their books, their authors and what the viewer did, twenty at a time; the first page, and page 10,000.

The floor compares rows with the last one of the page before, as ours does, in one statement; the peers skip rows with OFFSET, as their
documentation does. For this job the plain tables have the indexes of the feed. Nobody counts: Django's Paginator and ``get_many_and_count``
would add a scan of the table. Of fewer than 200,000 reviews the deep page is the last one.

What the order of the most liked costs those who like is told by one like, in a transaction of its own: the row and the count. The peers do
it as their documentation does, the floor in one statement.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import sqlmodel
from sqlalchemy import exists, update
from sqlalchemy.orm import Session, joinedload

from benchmarks import peers_feed as peers
from benchmarks.datasets import Dataset
from benchmarks.harness import ALCHEMY, DJANGO, FLOOR, OURS, SQLMODEL, Call, Case, Contender
from stemmadb.entity import uuid7
from stemmadb.reviews import reactions, reviews
from stemmadb.reviews.reviews import FeedItem

JOB = "feed"
LIMIT = 20
DEEP = 10_000

_TABLES = ("books", "readers", "reviews", "likes", "bookmarks")
_BOOKS = 2_000
_READERS = 5_000
_ID = "(lpad(to_hex({0}), 12, '0') || '7' || substr(md5({0}::text), 1, 3) || '8' || substr(md5({0}::text), 4, 15))::uuid"
_MAKE = f"""
CREATE TABLE plain.books (id uuid PRIMARY KEY, title text NOT NULL, author text NOT NULL);
CREATE TABLE plain.readers (id uuid PRIMARY KEY, name text);
CREATE TABLE plain.reviews (
    id uuid PRIMARY KEY, user_id uuid NOT NULL REFERENCES plain.readers (id), book_id uuid NOT NULL REFERENCES plain.books (id),
    content text NOT NULL, rating smallint, status text NOT NULL, like_count integer NOT NULL, bookmark_count integer NOT NULL,
    published_at timestamptz
);
CREATE TABLE plain.likes (
    id uuid PRIMARY KEY, user_id uuid NOT NULL REFERENCES plain.readers (id), review_id uuid NOT NULL REFERENCES plain.reviews (id),
    UNIQUE (user_id, review_id)
);
CREATE TABLE plain.bookmarks (
    id uuid PRIMARY KEY, user_id uuid NOT NULL REFERENCES plain.readers (id), review_id uuid NOT NULL REFERENCES plain.reviews (id),
    UNIQUE (user_id, review_id)
);
INSERT INTO plain.books SELECT {_ID.format("n")}, 'Book ' || n, 'Author ' || n % 300 FROM generate_series(1, {_BOOKS}) AS n;
INSERT INTO plain.readers SELECT {_ID.format("n")}, 'Reader ' || n FROM generate_series(1, {_READERS}) AS n;
INSERT INTO plain.reviews
SELECT {_ID.format("n")}, {_ID.format(f"(1 + n % {_READERS})")}, {_ID.format(f"(1 + n % {_BOOKS})")},
       repeat('Worth reading, and worth reading again. ', 10), 1 + n % 5, 'PUBLISHED', (n::bigint * 7919) % 1000, 0,
       timestamptz '2025-01-01' + n * interval '1 second'
  FROM generate_series(1, :rows) AS n;
CREATE INDEX ON plain.reviews (status, published_at DESC, id DESC);
CREATE INDEX ON plain.reviews (like_count DESC, id DESC) WHERE status = 'PUBLISHED';
INSERT INTO plain.likes SELECT {_ID.format("n")}, {_ID.format("1")}, {_ID.format("n")}
  FROM generate_series(1, :rows, greatest(3, :rows / 500)) AS n;
INSERT INTO plain.bookmarks SELECT {_ID.format("n")}, {_ID.format("1")}, {_ID.format("n")}
  FROM generate_series(1, :rows, greatest(7, :rows / 200)) AS n;
INSERT INTO stemma.users (id, email, name) SELECT id, id || '@bench.example', name FROM plain.readers;
INSERT INTO stemma.books (id, title, author) SELECT id, title, author FROM plain.books;
INSERT INTO stemma.reviews (id, user_id, book_id, content, rating, like_count, published_at)
SELECT id, user_id, book_id, content, rating, like_count, published_at FROM plain.reviews ORDER BY id;
ALTER TABLE stemma.likes DISABLE TRIGGER USER;
ALTER TABLE stemma.bookmarks DISABLE TRIGGER USER;
INSERT INTO stemma.likes (id, user_id, review_id) SELECT id, user_id, review_id FROM plain.likes;
INSERT INTO stemma.bookmarks (id, user_id, review_id) SELECT id, user_id, review_id FROM plain.bookmarks;
ALTER TABLE stemma.likes ENABLE TRIGGER USER;
ALTER TABLE stemma.bookmarks ENABLE TRIGGER USER
"""

_COLUMNS = """
    reviews.id, reviews.content, reviews.rating, reviews.status, reviews.like_count, reviews.bookmark_count, reviews.published_at,
    books.id, books.title, books.author, readers.id, readers.name,
    EXISTS (SELECT 1 FROM plain.likes WHERE likes.user_id = %(viewer)s AND likes.review_id = reviews.id),
    EXISTS (SELECT 1 FROM plain.bookmarks WHERE bookmarks.user_id = %(viewer)s AND bookmarks.review_id = reviews.id)
"""
_FLOOR = f"""
SELECT {_COLUMNS}
  FROM plain.reviews JOIN plain.books ON books.id = reviews.book_id JOIN plain.readers ON readers.id = reviews.user_id
 WHERE reviews.status = 'PUBLISHED' {{behind}}
 ORDER BY reviews.{{column}} DESC, reviews.id DESC LIMIT {LIMIT + 1}
"""
_ORDERS = {"latest": "published_at", "popular": "like_count"}

Shown = tuple[UUID, str, str | None, bool, bool]
"""What all of them must agree on: review, title, author's name, liked, bookmarked."""


@dataclass(frozen=True)
class _Page:
    """One page of the feed, and how each contender finds it."""

    sort: Any
    cursor: str | None
    behind: dict[str, Any]
    offset: int


def cases(dataset: Dataset) -> list[Case]:
    """Pages of both orders, in an open session."""
    for statement in _MAKE.split(";\n"):
        dataset.clerk.execute(statement.replace(":rows", str(dataset.rows)).encode())
    dataset.vacuum(
        *(f"plain.{table}" for table in _TABLES),
        *("stemma.users", "stemma.past_places"),
        *(f"stemma.{table}" for table in _TABLES if table != "readers"),
    )
    deep = min(DEEP, dataset.rows // LIMIT) - 1
    return [
        _case(dataset, "the first page of 20", _Page("latest", None, {}, 0)),
        _case(dataset, "page 10,000", _walk(dataset, "latest", deep * LIMIT)),
        _case(dataset, "the first page of the most liked", _Page("popular", None, {}, 0)),
        _case(dataset, "page 10,000 of the most liked", _walk(dataset, "popular", deep * LIMIT)),
        _liking(dataset),
    ]


def _viewer(dataset: Dataset) -> UUID:
    return dataset.ids(f"SELECT {_ID.format('1')}")[0]


def _walk(dataset: Dataset, sort: Any, offset: int) -> _Page:
    """Return the page behind so many reviews, by walking there."""
    cursor, last, left = None, None, offset
    with dataset.db.session() as session:
        while left:
            page = reviews.feed(session, sort=sort, limit=min(200, left), cursor=cursor)
            cursor, last, left = page.next_cursor, page[-1].review, left - len(page)
            session.expunge_all()
    behind = {} if last is None else {"value": getattr(last, _ORDERS[sort]), "id": last.id}
    return _Page(sort, cursor, behind, offset)


def _case(dataset: Dataset, title: str, page: _Page) -> Case:
    viewer = _viewer(dataset)
    contenders = [
        Contender(FLOOR, lambda: _psycopg(dataset, page, viewer)),
        Contender(OURS, lambda: _stemmadb(dataset, page, viewer)),
        Contender(SQLMODEL, lambda: _sqlmodel(dataset, page, viewer)),
    ]
    if peers.HAS_ALCHEMY:
        contenders.append(Contender(ALCHEMY, lambda: _alchemy(dataset, page, viewer)))
    if peers.HAS_DJANGO:
        contenders.append(Contender(DJANGO, lambda: _django(dataset, page, viewer)))
    return Case(JOB, title, dataset.rows, contenders, outcome=list)


def _drop(dataset: Dataset) -> Callable[[], None]:
    def drop() -> None:
        # Other jobs find the data set as they know it.
        for table in reversed(_TABLES):
            dataset.clerk.execute(f"DROP TABLE plain.{table} CASCADE".encode())
        dataset.clerk.execute("TRUNCATE stemma.bookmarks, stemma.likes, stemma.past_places, stemma.reviews, stemma.books")
        dataset.clerk.execute("DELETE FROM stemma.users WHERE email LIKE '%@bench.example'")

    return drop


@contextlib.contextmanager
def _psycopg(dataset: Dataset, page: _Page, viewer: UUID) -> Iterator[Call]:
    column = _ORDERS[page.sort]
    behind = f"AND (reviews.{column}, reviews.id) < (%(value)s, %(id)s)" if page.behind else ""
    statement = _FLOOR.format(behind=behind, column=column).encode()
    cursor = dataset.floor.cursor()

    def call(number: int) -> list[Shown]:
        rows = cursor.execute(statement, {**page.behind, "viewer": viewer}).fetchall()[:LIMIT]
        return [(row[0], row[8], row[11], row[12], row[13]) for row in rows]

    yield call


def _of_item(item: FeedItem) -> Shown:
    return item.review.id, item.book.title, item.author.name, item.liked_by_viewer, item.bookmarked_by_viewer


@contextlib.contextmanager
def _stemmadb(dataset: Dataset, page: _Page, viewer: UUID) -> Iterator[Call]:
    with dataset.db.session() as session:
        yield lambda number: [
            _of_item(item) for item in reviews.feed(session, sort=page.sort, viewer_id=viewer, cursor=page.cursor, limit=LIMIT)
        ]


@contextlib.contextmanager
def _sqlmodel(dataset: Dataset, page: _Page, viewer: UUID) -> Iterator[Call]:
    review, like, bookmark = peers.PlainReview, peers.PlainLike, peers.PlainBookmark
    column: Any = getattr(review, _ORDERS[page.sort])

    def call(number: int) -> list[Shown]:
        liked = exists().where(like.user_id == viewer, like.review_id == review.id)
        kept = exists().where(bookmark.user_id == viewer, bookmark.review_id == review.id)
        statement: Any = (
            sqlmodel.select(review, peers.PlainBook, peers.PlainReader, liked, kept)  # type: ignore[call-overload]
            .join(peers.PlainBook, peers.PlainBook.id == review.book_id)
            .join(peers.PlainReader, peers.PlainReader.id == review.user_id)
            .where(review.status == "PUBLISHED")
            .order_by(column.desc(), sqlmodel.desc(review.id))
            .offset(page.offset)
            .limit(LIMIT)
        )
        return [(row[0].id, row[1].title, row[2].name, row[3], row[4]) for row in session.exec(statement)]

    with sqlmodel.Session(dataset.engine) as session:
        yield call


@contextlib.contextmanager
def _alchemy(dataset: Dataset, page: _Page, viewer: UUID) -> Iterator[Call]:
    def call(number: int) -> list[Shown]:
        found = repository.get_many(
            peers.AlchemyReview.status == "PUBLISHED",
            peers.LimitOffset(limit=LIMIT, offset=page.offset),
            peers.OrderBy(field_name=_ORDERS[page.sort], sort_order="desc"),
            peers.OrderBy(field_name="id", sort_order="desc"),
            load=[joinedload(peers.AlchemyReview.book), joinedload(peers.AlchemyReview.reader)],
        )
        ids = [review.id for review in found]
        liked, kept = (
            {row.review_id for row in reactions.get_many(kind.user_id == viewer, kind.review_id.in_(ids))}
            for kind, reactions in ((peers.AlchemyLike, likes), (peers.AlchemyBookmark, bookmarks))
        )
        return [(review.id, review.book.title, review.reader.name, review.id in liked, review.id in kept) for review in found]

    with Session(dataset.engine, expire_on_commit=False) as session:
        repository = peers.AlchemyReviews(session=session)
        likes, bookmarks = peers.AlchemyLikes(session=session), peers.AlchemyBookmarks(session=session)
        yield call


@contextlib.contextmanager
def _django(dataset: Dataset, page: _Page, viewer: UUID) -> Iterator[Call]:
    models, alias = peers.django(dataset)

    def call(number: int) -> list[Shown]:
        liked, kept = (
            models.Exists(kind.objects.using(alias).filter(user_id=viewer, review_id=models.OuterRef("id")))
            for kind in (models.Like, models.Bookmark)
        )
        found = (
            models.Review.objects.using(alias)
            .filter(status="PUBLISHED")
            .select_related("book", "user")
            .annotate(liked=liked, kept=kept)
            .order_by(f"-{_ORDERS[page.sort]}", "-id")[page.offset : page.offset + LIMIT]
        )
        return [(review.id, review.book.title, review.user.name, review.liked, review.kept) for review in found]

    with models.atomic(using=alias):
        yield call


# ------------------------------------------------------------------------------------------------------------------ one like

_LIKE = b"""
WITH added AS (INSERT INTO plain.likes (id, user_id, review_id) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING RETURNING review_id)
UPDATE plain.reviews SET like_count = like_count + 1 FROM added WHERE reviews.id = added.review_id
"""


def _liking(dataset: Dataset) -> Case:
    readers = dataset.ids("SELECT id FROM plain.readers ORDER BY id OFFSET 1")
    liked = dataset.ids("SELECT id FROM plain.reviews ORDER BY md5(id::text) LIMIT 20000")
    ways: dict[str, Any] = {FLOOR: _psycopg_like, OURS: _stemmadb_like, SQLMODEL: _sqlmodel_like}
    if peers.HAS_ALCHEMY:
        ways[ALCHEMY] = _alchemy_like
    if peers.HAS_DJANGO:
        ways[DJANGO] = _django_like

    def contender(place: int, name: str) -> Contender:
        @contextlib.contextmanager
        def way() -> Iterator[Call]:
            like = ways[name](dataset)
            # Nobody likes twice, and nobody likes what another contender's reader did.
            yield lambda number: like(readers[(place + len(ways) * (number // len(liked))) % len(readers)], liked[number % len(liked)])

        return Contender(name, way)

    contenders = [contender(place, name) for place, name in enumerate(ways)]
    return Case(JOB, "one like, own transaction", dataset.rows, contenders, outcome=bool, after=_drop(dataset))


def _psycopg_like(dataset: Dataset) -> Callable[[UUID, UUID], bool]:
    cursor = dataset.floor.cursor()
    return lambda user, review: cursor.execute(_LIKE, (uuid7(), user, review)).rowcount == 1


def _stemmadb_like(dataset: Dataset) -> Callable[[UUID, UUID], bool]:
    def like(user: UUID, review: UUID) -> bool:
        with dataset.db.session() as session:
            return reactions.like(session, user, review)

    return like


def _sqlmodel_like(dataset: Dataset) -> Callable[[UUID, UUID], bool]:
    def like(user: UUID, review: UUID) -> bool:
        with sqlmodel.Session(dataset.engine) as session:
            session.add(peers.PlainLike(id=uuid7(), user_id=user, review_id=review))
            session.exec(_counted(peers.PlainReview, review))
            session.commit()
            return True

    return like


def _alchemy_like(dataset: Dataset) -> Callable[[UUID, UUID], bool]:
    def like(user: UUID, review: UUID) -> bool:
        with Session(dataset.engine, expire_on_commit=False) as session:
            peers.AlchemyLikes(session=session).add(peers.AlchemyLike(id=uuid7(), user_id=user, review_id=review))
            session.execute(_counted(peers.AlchemyReview, review))
            session.commit()
            return True

    return like


def _counted(reviews: Any, review: UUID) -> Any:
    return update(reviews).where(reviews.id == review).values(like_count=reviews.like_count + 1)


def _django_like(dataset: Dataset) -> Callable[[UUID, UUID], bool]:
    models, alias = peers.django(dataset)

    def like(user: UUID, review: UUID) -> bool:
        with models.atomic(using=alias):
            models.Like.objects.using(alias).create(id=uuid7(), user_id=user, review_id=review)
            models.Review.objects.using(alias).filter(id=review).update(like_count=models.F("like_count") + 1)
        return True

    return like
