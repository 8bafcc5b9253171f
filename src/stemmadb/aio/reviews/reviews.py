"""Async twins of stemmadb.reviews.reviews."""

from typing import Final

from stemmadb.aio import twin
from stemmadb.reviews import reviews as _sync

__all__ = [
    "ReviewCreate",
    "ReviewUpdate",
    "ReviewDetail",
    "FeedItem",
    "Author",
    "RatingSummary",
    "create",
    "get",
    "find",
    "update",
    "publish",
    "soft_delete",
    "restore",
    "feed",
    "list_for_user",
    "list_for_book",
    "rating",
    "prune_places",
]

ReviewCreate = _sync.ReviewCreate
ReviewUpdate = _sync.ReviewUpdate
ReviewDetail = _sync.ReviewDetail
FeedItem = _sync.FeedItem
Author = _sync.Author
RatingSummary = _sync.RatingSummary
create: Final = twin(_sync.create)
get: Final = twin(_sync.get)
find: Final = twin(_sync.find)
update: Final = twin(_sync.update)
publish: Final = twin(_sync.publish)
soft_delete: Final = twin(_sync.soft_delete)
restore: Final = twin(_sync.restore)
feed: Final = twin(_sync.feed)
list_for_user: Final = twin(_sync.list_for_user)
list_for_book: Final = twin(_sync.list_for_book)
rating: Final = twin(_sync.rating)
prune_places: Final = twin(_sync.prune_places)
