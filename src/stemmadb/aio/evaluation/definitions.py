"""Async twins of stemmadb.evaluation.definitions."""

from typing import Final

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
    "search",
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
    "protect_label",
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
    "Absent",
    "ABSENT",
]

create: Final = twin(_sync.create)
fork: Final = twin(_sync.fork)
get: Final = twin(_sync.get)
find: Final = twin(_sync.find)
get_by_label: Final = twin(_sync.get_by_label)
find_by_label: Final = twin(_sync.find_by_label)
find_by_content: Final = twin(_sync.find_by_content)
get_with_content: Final = twin(_sync.get_with_content)
list_all: Final = twin(_sync.list_all)
list_children: Final = twin(_sync.list_children)
search: Final = twin(_sync.search)
update: Final = twin(_sync.update)
freeze: Final = twin(_sync.freeze)
delete: Final = twin(_sync.delete)
ancestors: Final = twin(_sync.ancestors)
descendants: Final = twin(_sync.descendants)
tree: Final = twin(_sync.tree)
root: Final = twin(_sync.root)
depth: Final = twin(_sync.depth)
siblings: Final = twin(_sync.siblings)
is_ancestor: Final = twin(_sync.is_ancestor)
merge_base: Final = twin(_sync.merge_base)
lineage: Final = twin(_sync.lineage)
diff: Final = twin(_sync.diff)
blame: Final = twin(_sync.blame)
merge: Final = twin(_sync.merge)
bisect: Final = twin(_sync.bisect)
set_label: Final = twin(_sync.set_label)
move_label: Final = twin(_sync.move_label)
protect_label: Final = twin(_sync.protect_label)
delete_label: Final = twin(_sync.delete_label)
list_labels: Final = twin(_sync.list_labels)
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
Absent = _sync.Absent
ABSENT: Final = _sync.ABSENT
