"""
Ancestors, descendants, trees and merge bases of any entity whose rows name their parent in ``parent_id``.

The recursion runs over ids only, and the rows are joined to its result once. An entity with ``root_id`` and ``depth``, both fixed at
birth, cannot hold a cycle, and its whole trees are read by ``root_id``. Other walks carry the path behind them, which ends a cycle.
"""

import dataclasses
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Generic, TypeVar

from sqlalchemy import Select
from sqlalchemy.orm import Session

from stemmadb import _forests as forests
from stemmadb._tables import fields_of, tree_html
from stemmadb.entity import Id
from stemmadb.errors import NotFoundError, ValidationError
from stemmadb.query import query

__all__ = ["Node", "ancestors", "descendants", "merge_base", "path", "tree"]

T = TypeVar("T")

log: Final = logging.getLogger("stemmadb.trees")

_MOST_LEVELS = 2**31 - 1


@dataclasses.dataclass(frozen=True, eq=False)
class Node(Generic[T]):
    """A row of a tree, and the trees below it. Notebooks show it as a tree."""

    item: T
    depth: int
    """Levels below the node that was asked for, which has 0."""
    children: list["Node[T]"] = dataclasses.field(default_factory=list, repr=False)
    """Oldest first."""

    def __iter__(self) -> Iterator["Node[T]"]:
        """Yield this node and all below it, each before its children. As deep as the tree is: nothing recurses."""
        pending: list[Node[T]] = [self]
        while pending:
            node = pending.pop()
            yield node
            pending.extend(reversed(node.children))

    def _repr_html_(self) -> str:
        return tree_html(self, ("row", "id"), _cells)


def _cells(node: Node[Any]) -> tuple[object, object]:
    loaded = fields_of(node.item)
    return loaded.get("name", loaded.get("id")), loaded.get("id")


@query
def ancestors(session: Session, entity: type[T], id: Id, *, include_self: bool = False, max_depth: int | None = None) -> list[T]:
    """
    Return the rows that this one descends from, root first.

    One statement whatever the depth.

    Args:
        session: the caller's session; for a tenant entity its workspace bounds the walk.
        entity: the class of the rows.
        id: where the walk begins.
        include_self: whether that row ends the list.
        max_depth: the most levels to climb; None climbs to the root.

    Returns:
        The root at index 0, down to the parent; with ``max_depth``, the nearest that many. In a cycle, each row once.

    Raises:
        NotFoundError: no row has this id.
        ValidationError: the entity has no ``parent_id``, or ``max_depth`` is negative.
    """
    rows = [row for row, _ in _walk(session, entity, id, forests.ancestors, "trees.ancestors", max_depth)]
    return rows if include_self else rows[:-1]


@query
def descendants(session: Session, entity: type[T], id: Id, *, include_self: bool = False, max_depth: int | None = None) -> list[T]:
    """
    Return the rows that descend from this one, level by level.

    One statement. Of a root with ``root_id`` it is one index scan, otherwise a recursion over ids.

    Args:
        session: the caller's session; for a tenant entity its workspace bounds the walk.
        entity: the class of the rows.
        id: where the walk begins.
        include_self: whether that row begins the list.
        max_depth: the most levels to go down; None goes down to the leaves.

    Returns:
        Children before grandchildren; within a level the oldest first, then by id.

    Raises:
        NotFoundError: no row has this id.
        ValidationError: the entity has no ``parent_id``, or ``max_depth`` is negative.
    """
    rows = [row for row, _ in _walk(session, entity, id, forests.descendants, "trees.descendants", max_depth)]
    return rows if include_self else rows[1:]


@query
def tree(session: Session, entity: type[T], id: Id, *, max_depth: int | None = None) -> Node[T]:
    """
    Return the row with everything below it, nested.

    One statement, as descendants. Built without recursion: a tree may have any number of levels.

    Args:
        session: the caller's session; for a tenant entity its workspace bounds the walk.
        entity: the class of the rows.
        id: the top of the tree; it need not be a root.
        max_depth: the most levels below it; None means all.

    Raises:
        NotFoundError: no row has this id.
        ValidationError: the entity has no ``parent_id``, or ``max_depth`` is negative.
    """
    rows = _walk(session, entity, id, forests.descendants, "trees.tree", max_depth)
    top: Node[T] = Node(rows[0][0], 0)
    nodes = {rows[0][0].id: top}
    # Level by level, so a row's parent is there before it.
    for row, above in rows[1:]:
        parent = nodes[above]
        nodes[row.id] = node = Node(row, parent.depth + 1)
        parent.children.append(node)
    return top


@query
def path(session: Session, entity: type[T], a: Id, b: Id) -> list[T]:
    """
    Return the way from one row to another: from ``a`` up to their merge base, and down to ``b``.

    One statement; a second one, when there is no way, tells which row is missing.

    Returns:
        Both ends included; one row when ``a`` is ``b``. Empty when they are in different trees.

    Raises:
        NotFoundError: no row has one of the ids.
        ValidationError: the entity has no ``parent_id``.
    """
    return [row for row, _ in _between(session, entity, a, b, forests.path, "trees.path")]


@query
def merge_base(session: Session, entity: type[T], a: Id, b: Id) -> T | None:
    """
    Return the nearest common ancestor of two rows, which may be one of the two.

    One statement; a second one, when there is none, tells which row is missing.

    Returns:
        None when the two are in different trees.

    Raises:
        NotFoundError: no row has one of the ids.
        ValidationError: the entity has no ``parent_id``.
    """
    rows = _between(session, entity, a, b, forests.merge_base, "trees.merge_base")
    return rows[0][0] if rows else None


def _walk(
    session: Session,
    entity: type[T],
    id: Id,
    statement: Callable[[forests.Forest, bool], Select[Any]],
    function: str,
    max_depth: int | None,
) -> Sequence[tuple[Any, Any]]:
    """Return the rows of a walk that starts at ``id``, each with the id of its parent."""
    if max_depth is not None and (isinstance(max_depth, bool) or not isinstance(max_depth, int) or max_depth < 0):
        message = "max_depth is a number of levels, 0 or more; None for all of them"
        raise ValidationError(message, "max_depth")
    forest = forests.forest_of(entity)
    values = forest.parameters(session, function, id=forest.key(id))
    if max_depth is not None:
        values["max_depth"] = min(max_depth, _MOST_LEVELS)
    log.debug("%s of %s %s", function, entity.__name__, id)
    rows: Sequence[Any] = session.execute(statement(forest, max_depth is not None), values).all()
    if not rows:
        log.warning("%s %s was not found", entity.__name__, id)
        raise NotFoundError(entity.__name__, id)
    return rows


def _between(
    session: Session, entity: type[T], a: Id, b: Id, statement: Callable[[forests.Forest], Select[Any]], function: str
) -> Sequence[tuple[Any, Any]]:
    """Return the rows that a statement about two rows finds; none when they have nothing in common."""
    forest = forests.forest_of(entity)
    ends = {"a": forest.key(a), "b": forest.key(b)}
    values = forest.parameters(session, function, **ends)
    log.debug("%s of %s %s and %s", function, entity.__name__, a, b)
    rows: Sequence[Any] = session.execute(statement(forest), values).all()
    if not rows:
        found = set(session.scalars(forests.known(forest), values))
        for end in ends.values():
            if end not in found:
                log.warning("%s %s was not found", entity.__name__, end)
                raise NotFoundError(entity.__name__, end)
    return rows
