"""Async twins of stemmadb.evaluation.definitions."""

from stemmadb.aio import twin
from stemmadb.evaluation import definitions as _sync

__all__ = [
    "create",
    "fork",
    "get",
    "find",
    "get_by_label",
    "find_by_label",
    "find_by_content",
    "get_with_content",
    "list_all",
    "list_children",
    "update",
    "freeze",
    "delete",
    "ancestors",
    "descendants",
    "tree",
    "root",
    "depth",
    "siblings",
    "is_ancestor",
    "merge_base",
    "lineage",
    "diff",
    "blame",
    "merge",
    "bisect",
    "set_label",
    "move_label",
    "delete_label",
    "list_labels",
    "DefinitionCreate",
    "DefinitionFork",
    "DefinitionUpdate",
    "DefinitionFilters",
    "DefinitionTreeNode",
    "DefinitionWithContent",
    "ContentDiff",
    "Change",
    "BlameEntry",
    "MergeResult",
    "MergeConflict",
]

create = twin(_sync.create)
fork = twin(_sync.fork)
get = twin(_sync.get)
find = twin(_sync.find)
get_by_label = twin(_sync.get_by_label)
find_by_label = twin(_sync.find_by_label)
find_by_content = twin(_sync.find_by_content)
get_with_content = twin(_sync.get_with_content)
list_all = twin(_sync.list_all)
list_children = twin(_sync.list_children)
update = twin(_sync.update)
freeze = twin(_sync.freeze)
delete = twin(_sync.delete)
ancestors = twin(_sync.ancestors)
descendants = twin(_sync.descendants)
tree = twin(_sync.tree)
root = twin(_sync.root)
depth = twin(_sync.depth)
siblings = twin(_sync.siblings)
is_ancestor = twin(_sync.is_ancestor)
merge_base = twin(_sync.merge_base)
lineage = twin(_sync.lineage)
diff = twin(_sync.diff)
blame = twin(_sync.blame)
merge = twin(_sync.merge)
bisect = twin(_sync.bisect)
set_label = twin(_sync.set_label)
move_label = twin(_sync.move_label)
delete_label = twin(_sync.delete_label)
list_labels = twin(_sync.list_labels)
DefinitionCreate = _sync.DefinitionCreate
DefinitionFork = _sync.DefinitionFork
DefinitionUpdate = _sync.DefinitionUpdate
DefinitionFilters = _sync.DefinitionFilters
DefinitionTreeNode = _sync.DefinitionTreeNode
DefinitionWithContent = _sync.DefinitionWithContent
ContentDiff = _sync.ContentDiff
Change = _sync.Change
BlameEntry = _sync.BlameEntry
MergeResult = _sync.MergeResult
MergeConflict = _sync.MergeConflict
