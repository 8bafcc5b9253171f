"""
Books: entered by hand, or kept from external catalogues.

    book = books.get_or_fetch(session, ExternalSource.ALADIN, "K432433598", lambda: ask_aladin("K432433598"))
    found = books.search(session, '"채식주의자" or 한강')
"""

import logging
from typing import Any, Final

from sqlalchemy import Double, cast, func, literal_column, select
from sqlalchemy import delete as sa_delete
from sqlalchemy import update as sa_update
from sqlalchemy.orm import Session
from sqlalchemy.orm.util import identity_key

from stemmadb._exports import adopt
from stemmadb.data import checked_text
from stemmadb.entity import Id, parse_id, uuid7
from stemmadb.errors import ConflictError, NotFoundError
from stemmadb.paging import Page, page
from stemmadb.query import query, read, sql
from stemmadb.reviews._book_cache import INSERT, find_by_external, get_or_fetch, upsert, values_of
from stemmadb.reviews._isbn import forms_of, normalize_isbn
from stemmadb.reviews.data import BookCreate, BookUpdate
from stemmadb.reviews.entities import Book

__all__ = [
    "BookCreate",
    "BookUpdate",
    "upsert",
    "create",
    "get",
    "find",
    "find_by_isbn",
    "find_by_external",
    "get_or_fetch",
    "search",
    "update",
    "delete",
]

logger: Final = logging.getLogger(__name__)


@query
def create(session: Session, data: BookCreate) -> Book:
    """
    Make a book. One statement.

    Args:
        session: the caller's session; needs no workspace.
        data: what is known of it.

    Raises:
        ConflictError: there is a book of this ISBN, or of this source and id. The transaction stays usable.
        ValidationError: an ISBN whose check digit is wrong, or another malformed field; nothing was sent.
    """
    given = BookCreate.of(data)
    book = INSERT.write(session, id=uuid7(), **values_of(given))
    if book is None:
        same_isbn = given.isbn is not None and find_by_isbn(session, given.isbn) is not None
        raise ConflictError("Book", ("isbn",) if same_isbn else ("external_source", "external_id"))
    logger.info("book created", extra={"book_id": str(book.id)})
    return book


@query
def get(session: Session, book_id: Id) -> Book:
    """
    Return a book by id.

    Raises:
        NotFoundError: no book has this id.
    """
    book = find(session, book_id)
    if book is None:
        logger.warning("book not found", extra={"book_id": str(book_id)})
        raise NotFoundError("Book", book_id)
    return book


@query
def find(session: Session, book_id: Id) -> Book | None:
    """Return a book by id, or None; a malformed id is no book's."""
    try:
        key = parse_id(book_id, "Book")
    except NotFoundError:
        return None
    logger.debug("reading book", extra={"book_id": str(key)})
    return read(session, Book, key)


# A row of ten digits can only come from SQL of others.
_BY_ISBN = sql(Book, "SELECT {columns} FROM stemma.books WHERE isbn = ANY (CAST(:isbns AS text[])) ORDER BY length(isbn) DESC LIMIT 1")


@query
def find_by_isbn(session: Session, isbn: str) -> Book | None:
    """Return a book by its ISBN of ten or thirteen digits, with or without hyphens, or None; what is no ISBN is no book's."""
    try:
        wanted = normalize_isbn(isbn)
    except (TypeError, ValueError):
        return None
    return _BY_ISBN.one_or_none(session, isbns=forms_of(wanted))


_SIMPLE: Any = literal_column("'simple'::regconfig")


@query
def search(session: Session, query: str, *, cursor: str | None = None, limit: int = 50) -> Page[Book]:
    """
    Return the books whose title or author has the words, the best first: by rank, then the newest.

    A word of the title weighs more than one of the author. Words are compared in lower case and whole: nothing is stemmed.

    Args:
        session: the caller's session; needs no workspace.
        query: as for search engines: ``two words``, ``"a phrase"``, ``or``, ``-without``. Never a syntax error; without a word it finds
            nothing.
        cursor: ``next_cursor`` of the page before; None starts at the first.
        limit: 1 to 200.

    Raises:
        InvalidCursorError: the cursor is not of this search.
        ValidationError: what no text can contain; nothing was sent.
    """
    wanted: Any = func.websearch_to_tsquery(_SIMPLE, checked_text(query, "query"))
    # A rank has seven digits, which Python reads as a number of sixteen: compared as such, the cursor's row would not equal itself.
    rank = cast(func.ts_rank(Book.search_vector, wanted), Double)
    statement = select(Book).where(Book.search_vector.op("@@")(wanted))
    return page(session, statement, order_by=[rank.desc(), Book.id.desc()], cursor=cursor, limit=limit)


@query
def update(session: Session, book_id: Id, data: BookUpdate) -> Book:
    """
    Change a book; fields that ``data`` does not give stay.

    Raises:
        ConflictError: the new ISBN, or source and id, is another book's. The transaction stays usable.
        ConstraintViolationError: a source other than MANUAL would be left without an external id. The transaction stays usable.
        NotFoundError: no book has this id.
    """
    key = parse_id(book_id, "Book")
    changes = BookUpdate.of(data).changes()
    if not changes:
        return get(session, key)
    statement = sa_update(Book).where(Book.id == key).values(**changes).returning(Book)
    with session.begin_nested():
        book = session.scalars(statement, execution_options={"populate_existing": True}).one_or_none()
    if book is None:
        raise NotFoundError("Book", book_id)
    return book


@query
def delete(session: Session, book_id: Id) -> None:
    """
    Remove a book that nobody has reviewed.

    Raises:
        NotFoundError: no book has this id.
        StillReferencedError: it has reviews, deleted ones and drafts included. The transaction stays usable.
    """
    key = parse_id(book_id, "Book")
    with session.begin_nested():
        removed = session.scalar(sa_delete(Book).where(Book.id == key).returning(Book.id))
    if removed is None:
        raise NotFoundError("Book", book_id)
    held = session.identity_map.get(identity_key(Book, key))
    if held is not None:
        session.expunge(held)
    logger.info("book deleted", extra={"book_id": str(key)})


adopt(globals())
