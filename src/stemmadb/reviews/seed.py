"""Sample data: Korean books, and reviews of every kind, by people of the sample data and by readers of their own."""

import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID, uuid5

from sqlalchemy.orm import Session

from stemmadb.accounts import users
from stemmadb.errors import ValidationError
from stemmadb.query import sql_rows
from stemmadb.reviews._sample_reviews import BOOKMARKS, BOOKS, LIKES, READERS, REVIEWS, many_reviews
from stemmadb.reviews.data import BookCreate, ReviewCreate
from stemmadb.seeding import Profile, Seed

__all__ = ["SEEDS", "sample_review_id"]

_NAMESPACE = UUID("5f0c2f0e-6f5b-4c55-9d0b-4a3f0a1c7e21")


def sample_review_id(key: str) -> UUID:
    """Return the id that a review of the sample data has in every database."""
    return uuid5(_NAMESPACE, key)


# Whoever changed a row keeps the change, and a book that was there already, under whichever id, is the one that is reviewed.
_BOOKS = sql_rows(
    """
    INSERT INTO stemma.books (isbn, title, author, publisher, published_date, page_count, language, external_source, external_id)
    SELECT isbn, title, author, publisher, published_date, page_count, language,
           CAST(external_source AS stemma.external_source), external_id
      FROM json_to_recordset(CAST(:rows AS json)) AS given (
        isbn text, title text, author text, publisher text, published_date date, page_count integer, language text, external_source text,
        external_id text
      )
    ON CONFLICT DO NOTHING
    """
)
_REVIEWS = sql_rows(
    """
    INSERT INTO stemma.reviews (
        id, user_id, book_id, title, content, rating, is_recommended, read_status, status, published_at, created_at
    )
    SELECT given.id, users.id, books.id, given.title, given.content, given.rating, given.is_recommended,
           CAST(given.read_status AS stemma.read_status), CAST(given.status AS stemma.review_status), given.published_at,
           coalesce(given.published_at, now())
      FROM json_to_recordset(CAST(:rows AS json)) AS given (
        id uuid, "by" text, isbn text, title text, content text, rating smallint, is_recommended boolean, read_status text, status text,
        published_at timestamptz
      )
      JOIN stemma.users ON users.email = given."by"
      JOIN stemma.books ON books.isbn = given.isbn
    ON CONFLICT (id) DO NOTHING
    """
)
_LIKES = sql_rows(
    """
    INSERT INTO stemma.likes (user_id, review_id)
    SELECT users.id, reviews.id
      FROM json_to_recordset(CAST(:rows AS json)) AS given (review uuid, "by" text)
      JOIN stemma.users ON users.email = given."by"
      JOIN stemma.reviews ON reviews.id = given.review
    ON CONFLICT (user_id, review_id) DO NOTHING
    """
)
_BOOKMARKS = sql_rows(
    """
    INSERT INTO stemma.bookmarks (user_id, review_id)
    SELECT users.id, reviews.id
      FROM json_to_recordset(CAST(:rows AS json)) AS given (review uuid, "by" text)
      JOIN stemma.users ON users.email = given."by"
      JOIN stemma.reviews ON reviews.id = given.review
    ON CONFLICT (user_id, review_id) DO NOTHING
    """
)


def _make_readers(session: Session, data: Any, _profile: Profile) -> Mapping[str, int]:
    missing = [person for person in data if users.find_by_email(session, person["email"]) is None]
    for person in missing:
        users.create(session, person["email"], name=person["name"])
    return {"users": len(missing)}


def _make_books(session: Session, data: Any, _profile: Profile) -> Mapping[str, int]:
    return {"books": _BOOKS.run(session, rows=json.dumps(data))}


def _make_reviews(session: Session, data: Any, _profile: Profile) -> Mapping[str, int]:
    rows = [{**review, "id": str(sample_review_id(review["key"]))} for review in data]
    return {"reviews": _REVIEWS.run(session, rows=json.dumps(rows))}


def _make_reactions(session: Session, data: Any, _profile: Profile) -> Mapping[str, int]:
    likes, bookmarks = (
        json.dumps([{"review": str(sample_review_id(row["review"])), "by": row["by"]} for row in data[kind]])
        for kind in ("likes", "bookmarks")
    )
    return {"likes": _LIKES.run(session, rows=likes), "bookmarks": _BOOKMARKS.run(session, rows=bookmarks)}


def _check_books(data: Any) -> None:
    for number, book in enumerate(data):
        _check(BookCreate, book, f"book {number} ({book.get('title')})")


def _check_reviews(data: Any) -> None:
    for number, review in enumerate(data):
        values = {name: value for name, value in review.items() if name not in ("key", "by", "isbn")}
        _check(ReviewCreate, values, f"review {number} ({review.get('key')})")


def _check(kind: type[BookCreate] | type[ReviewCreate], values: Mapping[str, Any], row: str) -> None:
    try:
        kind.of(values)
    except ValidationError as error:
        raise ValidationError(str(error), field=row) from None


_EVERYWHERE: frozenset[Profile] = frozenset({"dev", "qa", "demo", "test"})
_BY_READERS = [review for review in REVIEWS if review["by"].endswith("@example.com")]

SEEDS = (
    Seed("reviews.readers", _EVERYWHERE, READERS, _make_readers),
    Seed("reviews.books", _EVERYWHERE, BOOKS, _make_books, check=_check_books),
    Seed("reviews.reviews", frozenset({"dev", "test"}), REVIEWS, _make_reviews, check=_check_reviews),
    Seed("reviews.reviews", frozenset({"qa"}), [*REVIEWS, *many_reviews(20, 10)], _make_reviews, check=_check_reviews),
    # The demonstration has nobody of the development data.
    Seed("reviews.reviews", frozenset({"demo"}), _BY_READERS, _make_reviews, check=_check_reviews),
    Seed("reviews.reactions", _EVERYWHERE, {"likes": LIKES, "bookmarks": BOOKMARKS}, _make_reactions),
)
