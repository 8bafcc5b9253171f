"""The entities of reviews, and what the database does with rows whoever writes them."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from sqlalchemy import inspect, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, configure_mappers
from tests.reviews.shelves import book, reader, review

from stemmadb import migrations
from stemmadb.accounts.entities import User
from stemmadb.errors import ConflictError, ValidationError
from stemmadb.reviews import PACK, Book, Bookmark, ExternalSource, Like, ReadStatus, Review, ReviewStatus, books
from stemmadb.reviews._isbn import forms_of, normalize_isbn
from stemmadb.reviews.books import BookCreate

ENUMS = {"external_source": ExternalSource, "read_status": ReadStatus, "review_status": ReviewStatus}


@pytest.mark.offline
@pytest.mark.requirement("RF-001", "RF-002", "RF-003", "RF-004", "RF-013", "RF-047")
def test_the_tables_and_their_columns() -> None:
    """Tables named after their rows, four of them and one of the past; keys first, then the columns of the design, then the times."""
    times = ["created_at", "updated_at"]
    assert {entity.__tablename__: list(entity.__table__.columns.keys()) for entity in PACK.entities} == {
        "books": [
            *("id", "isbn", "title", "author", "publisher", "published_date", "cover_image_url", "description", "page_count", "language"),
            *("external_source", "external_id", "external_fetched_at", "search_vector", *times),
        ],
        "reviews": [
            *("id", "user_id", "book_id", "title", "content", "rating", "is_recommended", "read_status", "status"),
            *("like_count", "bookmark_count", "published_at", "deleted_at", *times),
        ],
        "likes": ["id", "user_id", "review_id", *times],
        "bookmarks": ["id", "user_id", "review_id", *times],
        "past_places": ["transaction_id", "previous_transaction_id", "number", "cluster_id", "review_id", "like_count", *times],
    }


@pytest.mark.offline
@pytest.mark.requirement("RF-011", "RF-012")
def test_relations_are_functions_and_foreign_keys() -> None:
    """No entity has a relationship, so nothing loads by itself; users have no column of this pack."""
    configure_mappers()
    assert [entity.__name__ for entity in (User, *PACK.entities) if inspect(entity).relationships] == []
    assert {"reviews", "likes", "bookmarks"}.isdisjoint(User.__table__.columns.keys())


@pytest.mark.requirement("RF-005", "RF-006", "RF-007", "RF-008", "RF-009")
def test_vocabularies_are_native_enums(session: Session) -> None:
    """The labels of the types, in their order, are the members in Python; the columns have these types."""
    for name, words in ENUMS.items():
        assert session.scalar(text(f"SELECT enum_range(NULL::stemma.{name})::text[]")) == [*words]
    types = session.execute(
        text(
            "SELECT attrelid::regclass::text || '.' || attname, atttypid::regtype::text, attnotnull FROM pg_attribute "
            "JOIN pg_type ON pg_type.oid = atttypid WHERE typtype = 'e' "
            "AND attrelid IN ('stemma.books'::regclass, 'stemma.reviews'::regclass) ORDER BY 1"
        )
    )
    assert [(column.removeprefix("stemma."), kind.removeprefix("stemma."), needed) for column, kind, needed in types] == [
        ("books.external_source", "external_source", False),
        ("reviews.read_status", "read_status", True),
        ("reviews.status", "review_status", True),
    ]


@pytest.mark.requirement("RF-010", "RF-016", "RF-068")
def test_defaults_are_the_servers(session: Session) -> None:
    """SQL that names only what must be given gets the defaults; users have a name to join."""
    session.execute(text("INSERT INTO stemma.users (email, name) VALUES ('r@example.com', 'Rin')"))
    session.execute(text("INSERT INTO stemma.books (title, author) VALUES ('채식주의자', '한강')"))
    session.execute(
        text(
            "INSERT INTO stemma.reviews (user_id, book_id, content) "
            "SELECT users.id, books.id, 'x' FROM stemma.users, stemma.books WHERE users.name = 'Rin'"
        )
    )
    found = session.execute(
        text(
            "SELECT r.status, r.read_status, r.is_recommended, r.like_count, r.bookmark_count, r.published_at = now(), r.rating, "
            "b.title, b.language, b.isbn, u.name AS author FROM stemma.reviews r JOIN stemma.books b ON r.book_id = b.id "
            "JOIN stemma.users u ON r.user_id = u.id LIMIT 5"
        )
    ).one()
    assert found == ("PUBLISHED", "COMPLETED", False, 0, 0, True, None, "채식주의자", "ko", None, "Rin")


@pytest.mark.requirement("RF-015")
def test_types(session: Session) -> None:
    """Ids are uuid, counts integer, times timestamptz."""
    found = session.execute(
        text(
            "SELECT attname, atttypid::regtype::text FROM pg_attribute WHERE attrelid = 'stemma.reviews'::regclass AND attnum > 0 "
            "AND (attname LIKE '%id' OR attname LIKE '%\\_at' OR attname LIKE '%count')"
        )
    )
    kinds = {"id": "uuid", "at": "timestamp with time zone", "count": "integer"}
    assert [name for name, kind in found if kinds[name.rpartition("_")[2]] != kind] == []


@pytest.mark.requirement("RF-014")
def test_long_texts_come_back(session: Session) -> None:
    """A megabyte of review and of description."""
    long = "가" * 350_000
    shelved = books.create(session, BookCreate(title="t", author="a", description=long))
    written = review(session, of=shelved, content=long)
    session.expire_all()
    assert session.get_one(Book, shelved.id).description == long
    assert session.get_one(Review, written.id).content == long


@pytest.mark.requirement("RF-017", "RF-018", "RF-022")
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE stemma.reviews SET rating = 0",
        "UPDATE stemma.reviews SET rating = 6",
        "UPDATE stemma.reviews SET status = 'DELETED'",
        "UPDATE stemma.reviews SET deleted_at = now()",
        "UPDATE stemma.reviews SET like_count = -1",
        "UPDATE stemma.reviews SET content = ' '",
        "UPDATE stemma.books SET title = ''",
        "UPDATE stemma.books SET isbn = '978'",
        "UPDATE stemma.books SET page_count = 0",
        "UPDATE stemma.books SET external_source = 'ALADIN'",
        "DELETE FROM stemma.books",
    ],
)
def test_what_the_database_refuses(session: Session, statement: str) -> None:
    """Ratings outside 1 to 5, half a deletion, blank texts, half an external id, a book with reviews: whoever asks."""
    review(session)
    with pytest.raises(IntegrityError), session.begin_nested():
        session.execute(text(statement))
    session.execute(text("UPDATE stemma.reviews SET rating = NULL, status = 'DELETED', deleted_at = now()"))


@pytest.mark.requirement("RF-019")
@pytest.mark.parametrize("kind", [Like, Bookmark])
def test_one_reaction_for_each_user_and_review(session: Session, kind: type[Like | Bookmark]) -> None:
    """A second row is refused."""
    author, written = reader(session), review(session)
    session.add(kind(user_id=author.id, review_id=written.id))
    session.flush()
    with pytest.raises(IntegrityError, match=f"{kind.__tablename__}_user_id_review_id_key"), session.begin_nested():
        session.add(kind(user_id=author.id, review_id=written.id))
        session.flush()


@pytest.mark.requirement("RF-020", "RF-031", "RF-067")
def test_foreign_keys_cascade_or_restrict_and_have_indexes(session: Session) -> None:
    """Six of them; only the book of a review restricts; each has an index that starts with its column."""
    keys = session.execute(
        text(
            "SELECT conname, confdeltype::text, EXISTS (SELECT 1 FROM pg_index WHERE indrelid = conrelid AND indkey[0] = conkey[1]) "
            "FROM pg_constraint WHERE contype = 'f' AND conrelid::regclass::text IN ('books', 'reviews', 'likes', 'bookmarks') "
            "ORDER BY 1"
        )
    ).all()
    assert keys == [
        ("bookmarks_review_id_fkey", "c", True),
        ("bookmarks_user_id_fkey", "c", True),
        ("likes_review_id_fkey", "c", True),
        ("likes_user_id_fkey", "c", True),
        ("reviews_book_id_fkey", "r", True),
        ("reviews_user_id_fkey", "c", True),
    ]


@pytest.mark.requirement("RF-029", "RF-066", "RF-067")
def test_the_indexes_of_the_design(session: Session) -> None:
    """The feed's index among them, newest first."""
    found = dict(
        session.execute(text("SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'stemma' AND tablename = 'reviews'")).all()
    )
    assert found.keys() == {
        *("reviews_pkey", "reviews_status_published_at_idx", "reviews_user_id_created_at_idx", "reviews_like_count_id_idx"),
        *("reviews_book_id_status_published_at_id_idx", "reviews_deleted_at_idx"),
    }
    assert found["reviews_status_published_at_idx"].endswith("(status, published_at DESC, id DESC)")
    assert found["reviews_like_count_id_idx"].endswith("(like_count DESC, id DESC) WHERE (status = 'PUBLISHED'::review_status)")


@pytest.mark.offline
@pytest.mark.requirement("RF-035")
def test_the_revision_makes_all_of_it() -> None:
    """The four tables and that of the past, three types, every index, and the foreign keys to users, in one revision of the branch."""
    script = migrations.sql("base_0001:reviews@head")
    assert re.findall(r"CREATE TABLE stemma\.(\w+)", script) == ["books", "reviews", "likes", "bookmarks", "past_places"]
    assert script.count("CREATE TYPE stemma.") == 3
    assert script.count("CREATE INDEX ") == 13
    assert script.count("REFERENCES stemma.users (id) ON DELETE CASCADE") == 3
    assert "ALTER TABLE stemma.users" not in script


def test_the_times_of_the_application_are_kept(session: Session) -> None:
    """published_at is set where a review becomes PUBLISHED without one, and left alone where it has one."""
    at = datetime(2020, 5, 1, tzinfo=UTC)
    assert review(session, published_at=at).published_at == at
    draft = review(session, status="DRAFT")
    assert draft.published_at is None
    session.execute(text("UPDATE stemma.reviews SET status = 'PUBLISHED' WHERE id = :id"), {"id": draft.id})
    assert session.scalar(text("SELECT published_at = now() FROM stemma.reviews WHERE id = :id"), {"id": draft.id})


@pytest.mark.offline
def test_entities_check_what_they_hold() -> None:
    """Before anything is sent."""
    for wrong in ({"title": " "}, {"isbn": "9788936433590"}, {"page_count": 0}, {"language": "x"}, {"external_source": "LIBRARY"}):
        with pytest.raises(ValidationError):
            Book(**{"title": "t", "author": "a", **wrong})
    assert Book(title="t", author="a", isbn="978-89-364-3359-8").isbn == "9788936433598"


def test_the_search_vector_is_nobodys_business(session: Session) -> None:
    """It is neither fetched nor dumped, so that a book can be dumped as it comes."""
    made = book(session, "Words")
    session.refresh(made)
    assert "search_vector" not in made.model_dump()
    assert "search_vector" not in repr(made)


# -------------------------------------------------------------------------------------------------------------------- ISBN


@pytest.mark.offline
@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("9788936433598", "9788936433598"),
        ("978-89-364-3359-8", "9788936433598"),
        ("0-306-40615-2", "9780306406157"),
        ("080442957X", "9780804429573"),
        ("0 8044 2957 x", "9780804429573"),
        ("979-10-90636-07-1", "9791090636071"),
    ],
)
def test_isbns_have_one_form(given: str, stored: str) -> None:
    """Thirteen digits, whichever way they were written."""
    assert normalize_isbn(given) == stored


@pytest.mark.offline
@pytest.mark.parametrize(
    "wrong", ["9788936433599", "0306406153", "0804429570", "1234567890123", "978893643359", "", "X" * 10, "９７８８９３６４３３５９８"]
)
def test_check_digits_count(wrong: str) -> None:
    """One wrong digit, another prefix, another length, or digits of another script: refused."""
    with pytest.raises(ValueError, match="is not an ISBN"):
        normalize_isbn(wrong)


@pytest.mark.offline
@pytest.mark.property
def test_every_single_digit_error_is_found() -> None:
    """In ISBNs of ten and of thirteen, any digit changed and any two neighbours of an ISBN of ten exchanged."""
    for isbn in ("9780306406157", "0306406152", "080442957X"):
        for place in range(len(isbn)):
            for digit in "0123456789":
                changed = isbn[:place] + digit + isbn[place + 1 :]
                if changed != isbn:
                    with pytest.raises(ValueError, match="is not an ISBN"):
                        normalize_isbn(changed)
    ten = "0306406152"
    for place in range(9):
        swapped = ten[:place] + ten[place + 1] + ten[place] + ten[place + 2 :]
        if swapped != ten:
            with pytest.raises(ValueError, match="check digit"):
                normalize_isbn(swapped)


@pytest.mark.offline
def test_both_forms_of_an_isbn() -> None:
    """What begins with 978 has an older form, and the two lead to each other; what begins with 979 has none."""
    for ten, thirteen in (("0306406152", "9780306406157"), ("080442957X", "9780804429573")):
        assert forms_of(thirteen) == [thirteen, ten]
        assert normalize_isbn(ten) == thirteen
    assert forms_of("9791090636071") == ["9791090636071"]


def test_a_conflict_names_the_field(session: Session) -> None:
    """ISBN or external id."""
    books.create(session, BookCreate(title="t", author="a", isbn="0306406152"))
    with pytest.raises(ConflictError) as caught:
        books.create(session, BookCreate(title="t", author="a", isbn="9780306406157"))
    assert caught.value.fields == ("isbn",)
