"""Async twins of stemmadb.paging."""

from stemmadb import paging as _sync
from stemmadb.aio import twin

__all__ = ["Page", "page"]

Page = _sync.Page
page = twin(_sync.page)
