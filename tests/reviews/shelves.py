"""Readers, books and reviews for tests."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID, uuid4

from sqlalchemy import event, text
from sqlalchemy.orm import Session

from stemmadb.accounts import users
from stemmadb.accounts.entities import User
from stemmadb.reviews import Book, Review, books, reviews
from stemmadb.reviews.books import BookCreate
from stemmadb.reviews.reviews import ReviewCreate

VEGETARIAN = BookCreate(
    isbn="978-89-364-3359-8",
    title="채식주의자",
    author="한강",
    publisher="창비",
    published_date="2007-10-30",
    page_count=192,
    language="ko",
    external_source="ALADIN",
    external_id="K432433598",
)
"""The book of the requirements."""

_DRIFT = text(
    """
    SELECT count(*) FROM stemma.reviews
     WHERE like_count <> (SELECT count(*) FROM stemma.likes WHERE likes.review_id = reviews.id)
        OR bookmark_count <> (SELECT count(*) FROM stemma.bookmarks WHERE bookmarks.review_id = reviews.id)
    """
)
_MANY_USERS = text(
    "INSERT INTO stemma.users (email, name) SELECT :stem || number || '@example.com', 'Reader ' || number "
    "FROM generate_series(1, :number) AS number RETURNING id"
)
_MANY_REVIEWS = text(
    """
    INSERT INTO stemma.reviews (user_id, book_id, content, rating, like_count, published_at)
    SELECT :user_id, :book_id, 'review ' || number, 1 + number % 5, number % 50,
           timestamptz '2026-01-01' + (number / 3) * interval '1 second'
      FROM generate_series(1, :number) AS number
    """
)


def reader(session: Session, name: str | None = None) -> User:
    """Somebody new."""
    return users.create(session, f"{uuid4().hex}@example.com", name=name)


def readers(session: Session, number: int) -> list[UUID]:
    """Many of them."""
    return list(session.scalars(_MANY_USERS, {"stem": uuid4().hex, "number": number}))


def book(session: Session, title: str = "A book") -> Book:
    """A new book."""
    return books.create(session, BookCreate(title=title, author="Somebody"))


def review(session: Session, author: User | None = None, of: Book | None = None, **fields: object) -> Review:
    """A review, published unless said otherwise."""
    data = ReviewCreate(**{"content": "Worth reading.", **fields})
    return reviews.create(session, (author or reader(session)).id, (of or book(session)).id, data)


def many_reviews(session: Session, number: int, author: User | None = None, of: Book | None = None) -> None:
    """Published reviews; three share each published_at, and fifty like counts are all there are. The counts are made up."""
    values = {"user_id": (author or reader(session)).id, "book_id": (of or book(session)).id, "number": number}
    session.execute(_MANY_REVIEWS, values)


def drift(session: Session) -> int:
    """How many reviews have a count that is not the number of their rows."""
    found = session.scalar(_DRIFT)
    assert found is not None
    return found


def plan_of(session: Session, call: Callable[[], object], number: int = 0) -> str:
    """How PostgreSQL executes a statement of a call, the first unless another is asked for."""
    sent: list[tuple[str, object]] = []

    def note(_connection: object, _cursor: object, statement: str, parameters: object, *_rest: object) -> None:
        sent.append((statement, parameters))

    connection = session.connection()
    event.listen(connection, "before_cursor_execute", note)
    try:
        call()
    finally:
        event.remove(connection, "before_cursor_execute", note)
    statement, parameters = [pair for pair in sent if pair[0].lstrip().startswith(("SELECT", "WITH"))][number]
    rows = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) {statement}", parameters)  # type: ignore[arg-type]
    return "\n".join(row[0] for row in rows)
