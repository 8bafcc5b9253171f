"""Books kept from external catalogues: asked for once, kept for a while, shown old rather than not at all."""

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from stemmadb import tenancy
from stemmadb.data import checked_member, checked_text
from stemmadb.entity import uuid7
from stemmadb.errors import ConflictError, ValidationError
from stemmadb.query import query, sql, translated
from stemmadb.reviews._isbn import forms_of
from stemmadb.reviews.data import BookCreate
from stemmadb.reviews.entities import Book, ExternalSource

log: Final = logging.getLogger("stemmadb.reviews.books")

# Whatever is unique: nothing happens then, and the row that is there is looked for.
INSERT = sql(
    Book,
    """
    INSERT INTO stemma.books (
        id, isbn, title, author, publisher, published_date, cover_image_url, description, page_count, language,
        external_source, external_id, external_fetched_at
    )
    VALUES (
        :id, :isbn, :title, :author, :publisher, :published_date, :cover_image_url, :description, :page_count, coalesce(:language, 'ko'),
        CAST(:external_source AS stemma.external_source), :external_id, CASE WHEN CAST(:fetched AS boolean) THEN now() END
    )
    ON CONFLICT DO NOTHING
    RETURNING {columns}
    """,
)
# Known by what its source calls it, else by its ISBN. A row found by ISBN keeps the source that it has, and a row found by its source keeps
# its ISBN where another row has the new one.
_REFRESH = sql(
    Book,
    """
    UPDATE stemma.books
       SET isbn = CASE WHEN EXISTS (SELECT 1 FROM stemma.books AS other WHERE other.isbn = :isbn AND other.id <> books.id)
                       THEN books.isbn ELSE coalesce(:isbn, books.isbn) END,
           title = :title,
           author = :author,
           publisher = coalesce(:publisher, books.publisher),
           published_date = coalesce(:published_date, books.published_date),
           cover_image_url = coalesce(:cover_image_url, books.cover_image_url),
           description = coalesce(:description, books.description),
           page_count = coalesce(:page_count, books.page_count),
           language = coalesce(:language, books.language),
           external_id = CASE WHEN books.external_source IS NULL THEN :external_id ELSE books.external_id END,
           external_source = coalesce(books.external_source, CAST(:external_source AS stemma.external_source)),
           external_fetched_at = CASE WHEN CAST(:fetched AS boolean) THEN now() ELSE books.external_fetched_at END
     WHERE books.id = (
        SELECT found.id
          FROM stemma.books AS found
         WHERE (found.external_source = CAST(:external_source AS stemma.external_source) AND found.external_id = :external_id)
            OR found.isbn = ANY (CAST(:isbns AS text[]))
         ORDER BY (found.external_source = CAST(:external_source AS stemma.external_source) AND found.external_id = :external_id)
                  DESC NULLS LAST, found.id
         LIMIT 1
     )
    RETURNING {columns}
    """,
)
_BY_EXTERNAL = sql(
    Book,
    """
    SELECT {columns} FROM stemma.books
     WHERE external_source = CAST(:source AS stemma.external_source) AND external_id = :external_id
    """,
)
_IS_FRESH = text(
    """
    SELECT coalesce(external_fetched_at > now() - CAST(:max_age AS interval), false)
      FROM stemma.books
     WHERE external_source = CAST(:source AS stemma.external_source) AND external_id = :external_id
    """
)
_ATTEMPTS = 5
_LONGEST: Final = timedelta(days=365_000)


def values_of(data: BookCreate) -> dict[str, object]:
    """Return what the statements take."""
    language = data.language if "language" in data.model_fields_set else None
    fetched = data.external_source not in (None, ExternalSource.MANUAL)
    return {**{name: getattr(data, name) for name in BookCreate.model_fields}, "language": language, "fetched": fetched}


@query
def upsert(session: Session, data: BookCreate) -> Book:
    """
    Make a book, or bring the one that is there up to date. One statement for a new book, two for a known one.

    A book is known by what its source calls it, else by its ISBN. What ``data`` leaves out, or gives as None, stays as it was. A book that
    another source knows keeps that source's id. However many callers come at once, there is one row.

    Args:
        session: the caller's session; needs no workspace.
        data: has an ISBN, or a source and its id.

    Raises:
        ConflictError: others kept deleting the book, or gave its ISBN to another at this moment. The transaction stays usable.
        ValidationError: neither ISBN nor external id; nothing was sent.
    """
    given = BookCreate.of(data)
    if given.isbn is None and (given.external_source is None or given.external_id is None):
        raise ValidationError("Book isbn: needed, unless external_source and external_id are given", field="isbn")
    values = values_of(given)
    isbns = [] if given.isbn is None else forms_of(given.isbn)
    with session.begin_nested():
        for _ in range(_ATTEMPTS):
            if (book := INSERT.write(session, id=uuid7(), **values)) is not None:
                log.info("book created", extra={"book_id": str(book.id)})
                return book
            if (book := _REFRESH.write(session, isbns=isbns, **values)) is not None:
                return book
        raise ConflictError("Book", message="The book was deleted by others again and again: try later")


@query
def find_by_external(session: Session, source: ExternalSource, external_id: str) -> Book | None:
    """Return the book that a source calls so, or None; an unknown source, or what is no text, is no book's."""
    try:
        key = BookKey(source, external_id)
    except ValidationError:
        return None
    return key.find(session)


@query
def get_or_fetch(
    session: Session, source: ExternalSource, external_id: str, fetch: Callable[[], BookCreate], *, max_age: timedelta = timedelta(days=30)
) -> Book:
    """
    Return a book of an external catalogue: the stored row while it is fresh, else what ``fetch`` brings, which is stored.

    ``fetch`` runs outside of any lock, and outside of a transaction too when the session has not begun one: a slow catalogue then holds
    neither a row nor a connection. Callers that come at once may each fetch; they store one row. When ``fetch`` raises and there is an old
    row, that is returned, and the failure is logged.

    Args:
        session: the caller's session; needs no workspace.
        source: the catalogue.
        external_id: what it calls the book.
        fetch: asks it; in the async twin a coroutine function. What it returns is of this source and id, whether or not it says so.
        max_age: for how long a row is fresh after it was fetched, by the clock of the database.

    Raises:
        ConflictError: as upsert.
        ValidationError: an unknown source, a max_age that is no timedelta, or a fetch that cannot be called; or what ``fetch`` returned is
            of another source or id, and there is no old row.
    """
    key = BookKey(source, external_id)
    require_callable(fetch)
    if key.is_fresh(session, max_age) and (book := key.find(session)) is not None:
        return book
    try:
        data = key.claim(fetch())
    except Exception as failure:
        if (stale := key.find_stale(session, failure)) is None:
            raise
        return stale
    return upsert(session, data)


def require_callable(fetch: object) -> None:
    """
    Refuse what cannot be asked, old row or not.

    Raises:
        ValidationError: it cannot be called.
    """
    if not callable(fetch):
        raise ValidationError("fetch is a function that returns a BookCreate", field="fetch")


class BookKey:
    """A book as its source calls it."""

    def __init__(self, source: ExternalSource, external_id: str) -> None:
        self.source = checked_member(source, ExternalSource, "source")
        self.external_id = checked_text(external_id, "external_id")

    def find(self, session: Session) -> Book | None:
        """Return the stored row, or None."""
        # A row that the session holds already may have been refreshed by others since.
        return _BY_EXTERNAL.write(session, source=self.source, external_id=self.external_id)

    def claim(self, data: BookCreate) -> BookCreate:
        """Return what was fetched as of this source and id; refuse what says that it is another's."""
        given = BookCreate.of(data)
        own = {"external_source": self.source, "external_id": self.external_id}
        if any(getattr(given, name) not in (None, value) for name, value in own.items()):
            raise ValidationError(f"what was fetched is not {self.source} {self.external_id}", field="external_id")
        return BookCreate(**{**given.changes(), **own})

    def find_stale(self, session: Session, failure: Exception) -> Book | None:
        """Return the old row, to be served because the source failed, or None."""
        book = self.find(session)
        if book is not None:
            log.warning("book not refreshed, served as it was stored", exc_info=failure, extra={"book_id": str(book.id)})
        return book

    def is_fresh(self, session: Session, max_age: timedelta) -> bool:
        """Return whether the stored row is young enough; asked on a connection of its own when the session has not begun."""
        if not isinstance(max_age, timedelta):
            raise ValidationError("max_age is a timedelta", field="max_age")
        # Beyond that PostgreSQL has no time to compare with, and no row is so old.
        age = max(-_LONGEST, min(max_age, _LONGEST))
        values = {"source": self.source, "external_id": self.external_id, "max_age": age}
        with translated():
            bind = tenancy.bind_of(session)
            if isinstance(bind, Engine) and not session.in_transaction():
                with bind.connect() as connection:
                    return bool(connection.scalar(_IS_FRESH, values))
            session.flush()
            return bool(tenancy.connection_of(session).scalar(_IS_FRESH, values))
