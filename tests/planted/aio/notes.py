"""Async twins of tests.planted.notes that are not twins."""

from sqlalchemy.ext.asyncio import AsyncSession
from tests.planted import notes as _sync

from stemmadb.aio import twin

__all__ = [
    "bare",
    "closed",
    "extra",
    "find",
    "get",
    "get_or_none",
    "hidden",
    "iter_all",
    "Kept",
    "list_all",
    "misleading",
    "of_a_workspace",
    "other",
    "raising",
    "silent",
    "untold",
    "untyped",
]


class Kept:
    """Another class of the same name."""


bare = twin(_sync.bare)
closed = twin(_sync.closed)
find = twin(_sync.find)
get = twin(_sync.get)
get_or_none = twin(_sync.get_or_none)
hidden = twin(_sync.hidden)
iter_all = twin(_sync.iter_all)
list_all = twin(_sync.list_all)
misleading = twin(_sync.bare)
of_a_workspace = _sync.of_a_workspace
raising = twin(_sync.raising)
silent = twin(_sync.silent)
untold = twin(_sync.untold)
untyped = twin(_sync.untyped)
extra = twin(_sync.bare)


async def other(session: AsyncSession, *, limit: int = 2) -> None:
    """Written by hand, with another default."""
