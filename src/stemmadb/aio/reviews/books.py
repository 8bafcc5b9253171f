"""Async twins of stemmadb.reviews.books."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final

from sqlalchemy.ext.asyncio import AsyncSession

from stemmadb.aio import twin
from stemmadb.query import translated
from stemmadb.reviews import books as _sync
from stemmadb.reviews._book_cache import BookKey, require_callable
from stemmadb.reviews.data import BookCreate as _BookCreate
from stemmadb.reviews.entities import Book, ExternalSource

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

BookCreate = _sync.BookCreate
BookUpdate = _sync.BookUpdate
upsert: Final = twin(_sync.upsert)
create: Final = twin(_sync.create)
get: Final = twin(_sync.get)
find: Final = twin(_sync.find)
find_by_isbn: Final = twin(_sync.find_by_isbn)
find_by_external: Final = twin(_sync.find_by_external)
search: Final = twin(_sync.search)
update: Final = twin(_sync.update)
delete: Final = twin(_sync.delete)


async def get_or_fetch(
    session: AsyncSession,
    source: ExternalSource,
    external_id: str,
    fetch: Callable[[], Awaitable[_BookCreate]],
    *,
    max_age: timedelta = timedelta(days=30),
) -> Book:
    with translated():
        key = BookKey(source, external_id)
        require_callable(fetch)
        if await session.run_sync(key.is_fresh, max_age) and (book := await session.run_sync(key.find)) is not None:
            return book
        try:
            data = key.claim(await fetch())
        except Exception as failure:
            if (stale := await session.run_sync(key.find_stale, failure)) is None:
                raise
            return stale
        return await upsert(session, data)


get_or_fetch.__doc__ = _sync.get_or_fetch.__doc__
get_or_fetch.__stemma_twin__ = _sync.get_or_fetch  # type: ignore[attr-defined]
