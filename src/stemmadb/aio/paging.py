"""Async twins of stemmadb.paging."""

from typing import Final

from stemmadb import paging as _sync
from stemmadb.aio import twin

__all__ = ["Page", "page"]

Page = _sync.Page
page: Final = twin(_sync.page)
