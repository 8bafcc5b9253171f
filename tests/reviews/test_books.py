"""Books: one row for each, found by what it is called, kept from external catalogues."""

from __future__ import annotations

import asyncio
import logging
import threading
from datetime import date, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from tests.reviews.shelves import VEGETARIAN, book, plan_of, review

from stemmadb.aio.reviews import books as abooks
from stemmadb.database import Database
from stemmadb.errors import (
    ConflictError,
    ConstraintViolationError,
    InvalidCursorError,
    NotFoundError,
    StillReferencedError,
    ValidationError,
)
from stemmadb.reviews import Book, ExternalSource, books
from stemmadb.reviews.books import BookCreate, BookUpdate
from stemmadb.testing import assert_max_queries, count_queries, run_together

ALADIN = ExternalSource.ALADIN


def of_aladin(external_id: str, title: str = "채식주의자", **fields: object) -> BookCreate:
    """What the catalogue answers."""
    return BookCreate(**{"title": title, "author": "한강", "external_source": ALADIN, "external_id": external_id, **fields})


def refuse() -> BookCreate:
    """A catalogue that cannot be reached."""
    raise TimeoutError("catalogue")


# ------------------------------------------------------------------------------------------------------------ made and found


@pytest.mark.requirement("RF-001", "RF-053")
def test_create_and_read_back(session: Session) -> None:
    """As it was given, in Korean, in one statement; a malformed or unknown id is not found."""
    with assert_max_queries(1):
        made = books.create(session, VEGETARIAN)
    session.expire_all()
    assert books.get(session, str(made.id)) is made
    assert (made.title, made.author, made.publisher, made.published_date) == ("채식주의자", "한강", "창비", date(2007, 10, 30))
    assert (made.isbn, made.page_count, made.language, made.external_source) == ("9788936433598", 192, "ko", ALADIN)
    assert made.external_fetched_at is not None
    assert books.find(session, uuid4()) is None
    assert books.find(session, "no uuid") is None
    for unknown in (uuid4(), "no uuid"):
        with pytest.raises(NotFoundError):
            books.get(session, unknown)


@pytest.mark.requirement("RF-017")
def test_a_book_is_there_once(session: Session) -> None:
    """By ISBN, and by source and id; the refusal leaves the transaction usable."""
    books.create(session, VEGETARIAN)
    for fields, taken in (
        ({"isbn": "89-364-3359-X"}, None),
        ({"isbn": "9788936433598"}, ("isbn",)),
        ({"external_source": ALADIN, "external_id": "K432433598"}, ("external_source", "external_id")),
    ):
        if taken is None:
            with pytest.raises(ValidationError):
                BookCreate(title="t", author="a", **fields)
            continue
        with pytest.raises(ConflictError) as caught:
            books.create(session, BookCreate(title="t", author="a", **fields))
        assert caught.value.fields == taken
    assert books.find_by_external(session, ExternalSource.GOOGLE_BOOKS, "K432433598") is None


def test_isbns_of_ten_and_of_thirteen_find_the_same_book(session: Session) -> None:
    """Also a row that SQL of others stored with ten digits; what is no ISBN finds nothing."""
    made = books.create(session, BookCreate(title="t", author="a", isbn="0-306-40615-2"))
    assert books.find_by_isbn(session, "9780306406157") is books.find_by_isbn(session, "0306406152") is made
    session.execute(text("UPDATE stemma.books SET isbn = '0306406152' WHERE id = :id"), {"id": made.id})
    assert books.find_by_isbn(session, "978-0-306-40615-7") is made
    for nothing in ("9780306406158", "", "no isbn"):
        assert books.find_by_isbn(session, nothing) is None


@pytest.mark.offline
@pytest.mark.parametrize(
    "fields",
    [
        {"title": ""},
        {"title": "a\0b"},
        {"author": None},
        {"isbn": "9788936433590"},
        {"page_count": 0},
        {"page_count": 2**31},
        {"language": "k"},
        {"external_source": "ALADIN"},
        {"external_source": "LIBRARY", "external_id": "1"},
        {"published_date": "30 October"},
        {"colour": "red"},
    ],
)
def test_malformed_books_are_refused(fields: dict[str, object]) -> None:
    """Before anything is sent."""
    with pytest.raises(ValidationError):
        BookCreate(**{"title": "t", "author": "a", **fields})


def test_update(session: Session) -> None:
    """What is given changes, None clears, the rest stays; another book's ISBN and half an external id are refused."""
    made, other = books.create(session, VEGETARIAN), books.create(session, BookCreate(title="t", author="a", isbn="0306406152"))
    changed = books.update(session, made.id, BookUpdate(title="The Vegetarian", publisher=None, language="en"))
    assert changed is made
    assert (made.title, made.publisher, made.language, made.page_count) == ("The Vegetarian", None, "en", 192)
    assert books.update(session, made.id, BookUpdate()) is made
    with pytest.raises(ConflictError, match="isbn"):
        books.update(session, other.id, BookUpdate(isbn=made.isbn))
    with pytest.raises(ConstraintViolationError):
        books.update(session, made.id, BookUpdate(external_id=None))
    for wrong in ({"title": None}, {"author": None}, {"language": None}, {"title": " "}):
        with pytest.raises(ValidationError):
            BookUpdate(**wrong)
    with pytest.raises(NotFoundError):
        books.update(session, uuid4(), BookUpdate(title="x"))
    assert books.get(session, other.id).isbn == "9780306406157"


@pytest.mark.requirement("RF-021")
def test_a_book_with_reviews_stays(session: Session) -> None:
    """Refused while there are reviews, deleted ones too; the transaction goes on."""
    lonely, reviewed = book(session), book(session)
    review(session, of=reviewed)
    with pytest.raises(StillReferencedError):
        books.delete(session, reviewed.id)
    books.delete(session, lonely.id)
    for gone in (lonely.id, uuid4()):
        with pytest.raises(NotFoundError):
            books.delete(session, gone)
    assert books.get(session, reviewed.id) is reviewed


# -------------------------------------------------------------------------------------------------------------------- upsert


def test_upsert_makes_and_refreshes(session: Session) -> None:
    """By source and id; what the newer answer leaves out stays, and the refresh is dated."""
    made = books.upsert(session, of_aladin("K1", publisher="창비", isbn="9788936433598", language="en"))
    session.execute(text("UPDATE stemma.books SET external_fetched_at = now() - interval '1 year'"))
    again = books.upsert(session, of_aladin("K1", "채식주의자 (개정판)", page_count=276))
    assert again is made
    assert (made.title, made.publisher, made.isbn, made.page_count, made.language) == (
        *("채식주의자 (개정판)", "창비", "9788936433598", 276, "en"),
    )
    assert session.scalar(text("SELECT external_fetched_at = now() FROM stemma.books WHERE id = :id"), {"id": made.id})


def test_upsert_by_isbn(session: Session) -> None:
    """A book entered by hand is given its source; one that has a source keeps it; a source without ISBN is a book of its own."""
    by_hand = books.upsert(session, BookCreate(title="t", author="a", isbn="9788936433598"))
    assert by_hand.external_fetched_at is None
    assert books.upsert(session, of_aladin("K1", isbn="9788936433598")) is by_hand
    assert (by_hand.external_source, by_hand.external_id) == (ALADIN, "K1")
    google = BookCreate(title="g", author="a", isbn="9788936433598", external_source="GOOGLE_BOOKS", external_id="G1")
    assert books.upsert(session, google) is by_hand
    assert (by_hand.title, by_hand.external_source, by_hand.external_id) == ("g", ALADIN, "K1")
    assert books.upsert(session, of_aladin("K2")) is not by_hand


def test_upsert_does_not_take_the_isbn_of_another_row(session: Session) -> None:
    """Two rows that turn out to be one book stay two, each with what was unique about it."""
    by_hand = books.create(session, BookCreate(title="t", author="a", isbn="9788936433598"))
    fetched = books.upsert(session, of_aladin("K1"))
    again = books.upsert(session, of_aladin("K1", "newer", isbn="9788936433598"))
    assert again is fetched
    assert (fetched.title, fetched.isbn, by_hand.isbn) == ("newer", None, "9788936433598")


def test_upsert_needs_something_to_know_the_book_by(session: Session) -> None:
    """Neither ISBN nor external id: refused before anything is sent."""
    with count_queries() as sent:
        for fields in ({}, {"external_source": "MANUAL"}):
            with pytest.raises(ValidationError):
                books.upsert(session, BookCreate(title="t", author="a", **fields))
    assert sent.count == 0


@pytest.mark.race
@pytest.mark.requirement("RF-026")
@pytest.mark.parametrize("fields", [{"isbn": "9788936433598"}, {"external_source": "ALADIN", "external_id": "K1"}])
def test_concurrent_upserts_make_one_row(committed_db: Database, fields: dict[str, object]) -> None:
    """Of sixteen at once all get the same row."""

    def once(number: int) -> object:
        with committed_db.session() as session:
            return books.upsert(session, BookCreate(title=f"t{number}", author="a", **fields)).id

    found = run_together(16, once)
    assert len(set(found)) == 1
    with committed_db.session() as session:
        assert session.scalar(text("SELECT count(*) FROM stemma.books")) == 1


# ------------------------------------------------------------------------------------------------------------------ the cache


@pytest.mark.requirement("RF-026")
def test_the_second_look_up_uses_the_row(session: Session) -> None:
    """The catalogue is asked once; what it returns is of the source and id that were asked for."""
    asked: list[str] = []

    def fetch() -> BookCreate:
        asked.append("K1")
        return BookCreate(title="채식주의자", author="한강")

    made = books.get_or_fetch(session, ALADIN, "K1", fetch)
    assert books.get_or_fetch(session, ALADIN, "K1", fetch) is made
    assert (made.external_source, made.external_id, asked) == (ALADIN, "K1", ["K1"])
    assert books.get_or_fetch(session, ALADIN, "K1", fetch, max_age=timedelta(0)) is made
    assert asked == ["K1", "K1"]


@pytest.mark.fault
@pytest.mark.requirement("RF-026")
def test_an_old_row_is_served_when_the_catalogue_fails(session: Session, caplog: pytest.LogCaptureFixture) -> None:
    """And the failure is on record; without an old row it is the caller's."""
    with pytest.raises(TimeoutError):
        books.get_or_fetch(session, ALADIN, "K1", refuse)
    made = books.upsert(session, of_aladin("K1"))
    session.execute(text("UPDATE stemma.books SET external_fetched_at = now() - interval '31 days'"))
    with caplog.at_level(logging.WARNING, "stemmadb.reviews.books"):
        assert books.get_or_fetch(session, ALADIN, "K1", refuse) is made
    (record,) = caplog.records
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], TimeoutError)
    # An answer about another book is a failure as well.
    assert books.get_or_fetch(session, ALADIN, "K1", lambda: of_aladin("K2")) is made
    with pytest.raises(ValidationError, match="K3"):
        books.get_or_fetch(session, ALADIN, "K3", lambda: of_aladin("K2"))
    assert books.get_or_fetch(session, ALADIN, "K1", refuse, max_age=timedelta(days=40)) is made


_OPEN = text(
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND xact_start IS NOT NULL AND pid <> pg_backend_pid()"
)


@pytest.mark.requirement("RF-026")
def test_no_transaction_waits_for_the_catalogue(committed_db: Database) -> None:
    """While the catalogue is asked, no connection of the caller is in a transaction; in a session that has begun it is the caller's."""
    seen: list[int] = []

    def fetch() -> BookCreate:
        with committed_db.session() as other:
            seen.append(other.scalar(_OPEN) or 0)
        return of_aladin("K1")

    with committed_db.session() as session:
        made = books.get_or_fetch(session, ALADIN, "K1", fetch)
        assert books.get_or_fetch(session, ALADIN, "K1", fetch) is made
    with committed_db.session() as session:
        assert books.get_or_fetch(session, ALADIN, "K1", refuse).id == made.id
    with committed_db.session() as session:
        book(session)
        books.get_or_fetch(session, ALADIN, "K1", fetch, max_age=timedelta(0))
    assert seen == [0, 1]


@pytest.mark.race
@pytest.mark.requirement("RF-026")
def test_concurrent_callers_make_one_row(committed_db: Database) -> None:
    """Eight callers that all fetch, all the while, store one row and get it."""
    everybody_fetches = threading.Barrier(8)

    def fetch() -> BookCreate:
        everybody_fetches.wait(timeout=20)
        return of_aladin("K1", isbn="9788936433598")

    def once(_number: int) -> object:
        with committed_db.session() as session:
            return books.get_or_fetch(session, ALADIN, "K1", fetch).id

    found = run_together(8, once)
    assert len(set(found)) == 1
    with committed_db.session() as session:
        assert session.scalar(text("SELECT count(*) FROM stemma.books")) == 1


@pytest.mark.requirement("RF-026")
async def test_the_twin_awaits_the_catalogue(async_session: AsyncSession) -> None:
    """The same, with a coroutine function; an old row is served as well."""
    asked = 0

    async def fetch() -> BookCreate:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        return of_aladin("K1")

    async def fail() -> BookCreate:
        raise TimeoutError

    made = await abooks.get_or_fetch(async_session, ALADIN, "K1", fetch)
    assert await abooks.get_or_fetch(async_session, ALADIN, "K1", fail) is made
    assert await abooks.get_or_fetch(async_session, ALADIN, "K1", fail, max_age=timedelta(0)) is made
    assert asked == 1
    with pytest.raises(TimeoutError):
        await abooks.get_or_fetch(async_session, ALADIN, "K2", fail)
    assert await abooks.find_by_external(async_session, ALADIN, "K1") is made


async def test_the_twin_holds_no_transaction_either(committed_db: Database) -> None:
    """While the coroutine is awaited."""
    seen: list[int] = []

    async def fetch() -> BookCreate:
        with committed_db.session() as other:
            seen.append(other.scalar(_OPEN) or 0)
        return of_aladin("K1")

    async with committed_db.async_session() as session:
        await abooks.get_or_fetch(session, ALADIN, "K1", fetch)
    assert seen == [0]


# -------------------------------------------------------------------------------------------------------------------- search


@pytest.mark.requirement("RF-017")
def test_search(session: Session) -> None:
    """Titles before authors; phrases, alternatives and exclusions; in any letter case; what is no word finds nothing."""
    titles = {
        name: books.create(session, BookCreate(title=title, author=author)).id
        for name, title, author in (
            ("vegetarian", "채식주의자", "한강"),
            ("river", "한강 이야기", "조정래"),
            ("boy", "소년이 온다", "한강"),
            ("night", "A Long Night", "Ada Moon"),
            ("moon", "Moon Night Long", "Ben Reed"),
        )
    }

    def found(query: str) -> list[str]:
        names = {id: name for name, id in titles.items()}
        return [names[each.id] for each in books.search(session, query)]

    assert found("한강")[0] == "river"
    assert set(found("한강")) == {"river", "vegetarian", "boy"}
    assert found("채식주의자") == ["vegetarian"]
    assert found('"long night"') == ["night"]
    assert found("MOON") == ["moon", "night"]
    assert found("moon -reed") == ["night"]
    assert set(found("채식주의자 or moon")) == {"vegetarian", "moon", "night"}
    for nothing in ("", "   ", "' OR 1=1 --", '"', "-", "&|!:*", "없다"):
        assert found(nothing) == []
    with pytest.raises(ValidationError):
        books.search(session, "a\0")


@pytest.mark.property
def test_pages_of_a_search_are_the_whole(session: Session) -> None:
    """Ranks tie and have few digits; still no book is skipped or shown twice."""
    for number in range(60):
        words = "night " * (1 + number % 4) + "moon " * (number % 7)
        books.create(session, BookCreate(title=f"{words}{number}", author="night" if number % 3 else "a"))
    whole = [each.id for each in books.search(session, "night moon or night", limit=200)]
    assert len(whole) == 60
    for limit in (1, 7, 59):
        pages, cursor = [], None
        while True:
            page = books.search(session, "night moon or night", cursor=cursor, limit=limit)
            pages += [each.id for each in page]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert pages == whole
    with pytest.raises(InvalidCursorError):
        books.search(session, "night", cursor=books.search(session, "moon", limit=1).next_cursor)


_MANY = text(
    "INSERT INTO stemma.books (title, author) SELECT 'word' || number % 5000 || ' of a title', 'author' || number "
    "FROM generate_series(1, :number) AS number"
)


def test_search_uses_the_index(committed_db: Database, owner: Engine) -> None:
    """Of 20,000 books those with the word are found through the GIN index."""
    with committed_db.session() as session:
        session.execute(_MANY, {"number": 20_000})
    with owner.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE stemma.books"))
    with committed_db.session() as session:
        plan = plan_of(session, lambda: books.search(session, "word77"))
        assert [each.title for each in books.search(session, "word77")] == ["word77 of a title"] * 4
    assert "Bitmap Index Scan on books_search_vector_idx" in plan
    assert "Seq Scan" not in plan


async def test_twins(async_session: AsyncSession) -> None:
    """The same functions, awaited."""
    made = await abooks.create(async_session, VEGETARIAN)
    assert await abooks.get(async_session, made.id) is await abooks.find(async_session, made.id) is made
    assert await abooks.find_by_isbn(async_session, "9788936433598") is made
    assert await abooks.upsert(async_session, VEGETARIAN) is made
    assert [each.id for each in await abooks.search(async_session, "채식주의자")] == [made.id]
    assert (await abooks.update(async_session, made.id, BookUpdate(title="t"))).title == "t"
    await abooks.delete(async_session, made.id)
    assert isinstance(made, Book)
    assert await abooks.find(async_session, made.id) is None
