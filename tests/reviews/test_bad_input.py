"""Books, reviews and reactions: what is no id, no text, no object and no order is refused as such, before anything is sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.orm import Session
from tests.bad_input import misuse, parameters_of
from tests.reviews.shelves import book, reader, review

from stemmadb.reviews import ExternalSource, books, reactions, reviews
from stemmadb.reviews.books import BookCreate

OF_BOOKS = ["upsert", "create", "get", "find", "find_by_isbn", "find_by_external", "get_or_fetch", "search", "update", "delete"]
OF_REVIEWS = ["create", "get", "find", "update", "publish", "soft_delete", "restore", "feed", "list_for_user", "list_for_book", "rating"]
OF_REACTIONS = ["like", "unlike", "toggle_like", "bookmark", "unbookmark", "toggle_bookmark", "list_bookmarks", "list_likers", "recount"]


@pytest.mark.property
@pytest.mark.parametrize(
    ("fn", "parameter"),
    [*parameters_of(books, OF_BOOKS), *parameters_of(reviews, OF_REVIEWS), *parameters_of(reactions, OF_REACTIONS)],
    ids=lambda part: part if isinstance(part, str) else f"{part.__module__.rpartition('.')[2]}.{part.__name__}",
)
def test_garbage_is_refused(session: Session, fn: Callable[..., Any], parameter: str) -> None:
    """Wrong types, NUL, lone surrogates, times out of bounds and long texts, for every parameter."""
    user, of = reader(session), book(session)
    made = review(session, user, of, status="DRAFT" if fn is reviews.publish else "PUBLISHED")
    data = {
        reviews.create: {"content": "x"},
        reviews.update: {"content": "x"},
        books.update: {"title": "x"},
    }.get(fn, {"title": "x", "author": "y", "isbn": "9788936433598"})
    good = {
        "user_id": user.id,
        "viewer_id": user.id,
        "book_id": book(session).id if fn is books.delete else of.id,
        "review_id": made.id,
        "review_ids": [made.id],
        "data": data,
        "isbn": "9788936433598",
        "query": "book",
        "source": ExternalSource.ALADIN,
        "external_id": "K1",
        "fetch": lambda: BookCreate(title="t", author="a"),
    }
    misuse(session, fn, good, parameter)
