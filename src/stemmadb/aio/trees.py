"""Async twins of stemmadb.trees."""

from stemmadb import trees as _sync
from stemmadb.aio import twin

__all__ = ["Node", "ancestors", "descendants", "merge_base", "path", "tree"]

Node = _sync.Node
ancestors = twin(_sync.ancestors)
descendants = twin(_sync.descendants)
merge_base = twin(_sync.merge_base)
path = twin(_sync.path)
tree = twin(_sync.tree)
