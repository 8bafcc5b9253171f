"""What the functions about versions give. Import it from ``stemmadb.evaluation.data``."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum
from typing import Any, Final, Literal
from uuid import UUID

from stemmadb._display import first_line, json_text
from stemmadb._tables import fields_of, table_html, tree_html
from stemmadb.documents import DocumentPart
from stemmadb.errors import CorruptDocumentError, ValidationError
from stemmadb.evaluation._patches import document_of, values_of
from stemmadb.evaluation.documents import DefinitionContent
from stemmadb.evaluation.entities import Definition


@dataclass(eq=False, slots=True)
class DefinitionTreeNode:
    """A definition and what was forked from it; equal to itself alone. Notebooks show it as a tree."""

    definition: Definition
    depth: int
    """Levels below the node that was asked for."""
    children: list["DefinitionTreeNode"] = field(default_factory=list, repr=False)
    """By created_at, id."""

    def __iter__(self) -> Iterator["DefinitionTreeNode"]:
        """Yield this node and all below it, each before its children. As deep as the tree is: nothing recurses."""
        pending: list[DefinitionTreeNode] = [self]
        while pending:
            node = pending.pop()
            yield node
            pending.extend(reversed(node.children))

    def _repr_html_(self) -> str:
        return tree_html(self, ("version", "message", "created", "state", "id"), _cells)


def _cells(node: DefinitionTreeNode) -> tuple[object, ...]:
    loaded = fields_of(node.definition)
    state = None if loaded.get("frozen_at") is None else "frozen"
    return loaded.get("name"), first_line(str(loaded.get("message") or "")), loaded.get("created_at"), state, loaded.get("id")


@dataclass(frozen=True, slots=True)
class BlameEntry:
    """Who last changed one place of a content."""

    pointer: str
    """JSON Pointer."""
    definition_id: UUID
    """The version from which on the place holds what it holds."""
    created_by_id: UUID | None
    """Who made that version; None when nobody was named, or the user is gone."""
    created_at: datetime
    """When that version was made."""


class Absent(Enum):
    """What stands where a document has nothing. ``null`` is something, and in Python it is None."""

    ABSENT = "ABSENT"

    def __repr__(self) -> str:
        return self.name


ABSENT: Final[Literal[Absent.ABSENT]] = Absent.ABSENT
"""Nothing: neither a value nor null."""


@dataclass(frozen=True, slots=True)
class MergeConflict:
    """One place that both sides changed, differently."""

    pointer: str
    """JSON Pointer of the place in the merged content; empty for the whole."""
    base: Any
    """What was there in the merge base, a JSON value; ``ABSENT`` for nothing."""
    ours: Any
    """What the first version has there, or ``ABSENT``."""
    theirs: Any
    """What the second version has there, or ``ABSENT``."""


@dataclass(frozen=True, slots=True)
class MergeResult:
    """The outcome of a three-way merge; nothing was written."""

    content: DefinitionContent | None
    """None with conflicts."""
    conflicts: list[MergeConflict] = field(default_factory=list)
    """In the order of their places."""
    _merged: Any = field(default=None, repr=False, compare=False)
    # What was decided already, by pointer. Places may vanish by it, so it is made only when everything is decided.
    _decided: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def resolve(self, values: Mapping[str, Any]) -> "MergeResult":
        """
        Return the merge with some of its conflicts, or all of them, decided. Nothing is written.

        Args:
            values: by the pointer of a conflict what shall stand there: ``ours`` or ``theirs`` of it, any other JSON value or part of a
                document, or ``ABSENT`` for nothing.

        Returns:
            With the content if no conflict is left; else with those that are.

        Raises:
            ValidationError: there is no conflict at a pointer; or the content cannot hold what was given. ``field`` is the pointer.
        """
        known = {conflict.pointer for conflict in self.conflicts}
        for pointer in values:
            if pointer not in known:
                raise ValidationError(f"no conflict is open at {pointer!r}", pointer)
        decided = {**self._decided, **{pointer: _plain(value) for pointer, value in values.items()}}
        left = [conflict for conflict in self.conflicts if conflict.pointer not in values]
        if left or not self.conflicts:
            return replace(self, conflicts=left, _decided=decided)
        filled = _filled(self._merged, decided)
        if isinstance(filled, dict):
            filled = {"schema_version": DefinitionContent.newest_version, **filled}
        try:
            content = document_of(DefinitionContent, filled)
        except CorruptDocumentError as error:
            reason = f"the merged content cannot hold what was decided: {error.reason}"
            raise ValidationError(reason, error.pointer) from error
        return replace(self, content=content, conflicts=left, _decided=decided)

    def _repr_html_(self) -> str:
        if not self.conflicts:
            return table_html(("outcome",), [["merged without conflicts"]])
        sides = ([each.pointer or "the whole", *map(_side, (each.base, each.ours, each.theirs))] for each in self.conflicts)
        return table_html(("place", "base", "ours", "theirs"), sides, caption="Conflicts")


def _side(value: Any) -> str:
    return "absent" if value is ABSENT else json_text(value)


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: lists for tuples, and objects for parts of documents."""
    if isinstance(value, DocumentPart):
        return values_of(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _filled(value: Any, decided: Mapping[str, Any]) -> Any:
    """Return the merged value with what was decided in the place of each conflict; what is absent is left out."""
    if isinstance(value, MergeConflict):
        return decided[value.pointer]
    if isinstance(value, dict):
        items = {key: _filled(item, decided) for key, item in value.items()}
        return {key: item for key, item in items.items() if item is not ABSENT}
    if isinstance(value, list):
        return [item for item in (_filled(item, decided) for item in value) if item is not ABSENT]
    return value
