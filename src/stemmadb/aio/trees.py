"""Async twins of stemmadb.trees."""

from typing import Final

from stemmadb import trees as _sync
from stemmadb.aio import twin

__all__ = ["Node", "ancestors", "descendants", "merge_base", "path", "tree"]

Node = _sync.Node
ancestors: Final = twin(_sync.ancestors)
descendants: Final = twin(_sync.descendants)
merge_base: Final = twin(_sync.merge_base)
path: Final = twin(_sync.path)
tree: Final = twin(_sync.tree)
