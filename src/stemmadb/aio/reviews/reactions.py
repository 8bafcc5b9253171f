"""Async twins of stemmadb.reviews.reactions."""

from typing import Final

from stemmadb.aio import twin
from stemmadb.reviews import reactions as _sync

__all__ = [
    "FeedItem",
    "like",
    "unlike",
    "toggle_like",
    "bookmark",
    "unbookmark",
    "toggle_bookmark",
    "list_bookmarks",
    "list_likers",
    "recount",
]

FeedItem = _sync.FeedItem
like: Final = twin(_sync.like)
unlike: Final = twin(_sync.unlike)
toggle_like: Final = twin(_sync.toggle_like)
bookmark: Final = twin(_sync.bookmark)
unbookmark: Final = twin(_sync.unbookmark)
toggle_bookmark: Final = twin(_sync.toggle_bookmark)
list_bookmarks: Final = twin(_sync.list_bookmarks)
list_likers: Final = twin(_sync.list_likers)
recount: Final = twin(_sync.recount)
