"""
Where a definition stands among its versions: ancestors, descendants, trees and merge bases.

The walks run over ids and join the rows once. None looks for cycles: a child lies one level below its parent (the foreign key
definitions_parent_id_fkey), so none can be stored. Import these functions from ``stemmadb.evaluation.definitions``.
"""

from uuid import UUID

from sqlalchemy.orm import Session

from stemmadb.entity import Id
from stemmadb.errors import ValidationError
from stemmadb.evaluation._definition_rows import key_of, log, missing
from stemmadb.evaluation.data import DefinitionTreeNode
from stemmadb.evaluation.entities import Definition
from stemmadb.query import EntityStatement, sql, sql_rows, tenant_query

_ALL_LEVELS = 2**31 - 1

# Starts at the definition itself, so that an unknown id comes back empty and a root, whose parent is null, does not. OFFSET 0 makes
# PostgreSQL look up each parent by its key: before the table was analyzed it reads the whole workspace for each level instead.
_ANCESTORS = sql(
    Definition,
    """
    WITH RECURSIVE line AS (
        SELECT id, parent_id, 0 AS up
          FROM stemma.definitions
         WHERE workspace_id = :workspace_id AND id = :id
     UNION ALL
        SELECT parent.id, parent.parent_id, line.up + 1
          FROM line,
               LATERAL (SELECT id, parent_id
                          FROM stemma.definitions
                         WHERE workspace_id = :workspace_id AND id = line.parent_id
                        OFFSET 0) AS parent
         WHERE line.up < :max_depth
    )
    SELECT {columns}
      FROM line
      JOIN stemma.definitions ON definitions.workspace_id = :workspace_id AND definitions.id = line.id
     ORDER BY definitions.depth
    """,
)


@tenant_query
def ancestors(session: Session, definition_id: Id, *, include_self: bool = False, max_depth: int | None = None) -> list[Definition]:
    """
    Return the versions this one descends from, root first.

    One statement whatever the depth (``benchmarks/ancestry.py``). A root has no ancestors.

    Args:
        session: the caller's session; its workspace bounds the walk.
        definition_id: where the walk begins.
        include_self: whether that version ends the list.
        max_depth: the most levels to climb; None climbs to the root.

    Returns:
        The root at index 0, down to the parent; with ``max_depth``, the nearest that many.

    Raises:
        NotFoundError: no definition of this workspace has this id.
        WorkspaceNotSetError: the session has no workspace; nothing was sent.
    """
    key = key_of(definition_id)
    log.debug("reading ancestors of definition %s", key)
    line = _ANCESTORS.all(session, id=key, max_depth=_levels(max_depth))
    if not line:
        raise missing(definition_id)
    return line if include_self else line[:-1]


# Rows carry the id of their root, so a whole tree is one index scan. Only a root has rows under its id, and the walk leaves roots
# out: one of the two halves is empty, and costs nothing.
_DESCENDANTS = sql(
    Definition,
    """
    WITH RECURSIVE line AS (
        SELECT id, 0 AS down
          FROM stemma.definitions
         WHERE workspace_id = :workspace_id AND id = :id AND parent_id IS NOT NULL
     UNION ALL
        SELECT child.id, line.down + 1
          FROM line
          JOIN stemma.definitions AS child ON child.workspace_id = :workspace_id AND child.parent_id = line.id
         WHERE line.down < :max_depth
    )
    SELECT {columns}
      FROM stemma.definitions
     WHERE definitions.workspace_id = :workspace_id AND definitions.root_id = :id AND definitions.depth <= :max_depth
    UNION ALL
    SELECT {columns}
      FROM line
      JOIN stemma.definitions ON definitions.workspace_id = :workspace_id AND definitions.id = line.id
     ORDER BY depth, created_at, id
    """,
)


@tenant_query
def descendants(session: Session, definition_id: Id, *, include_self: bool = False, max_depth: int | None = None) -> list[Definition]:
    """
    Return the versions that descend from this one, level by level.

    One statement: for a root an index scan, for another version a recursion over ids.

    Args:
        session: the caller's session; its workspace bounds the walk.
        definition_id: where the walk begins.
        include_self: whether that version begins the list.
        max_depth: the most levels to go down; None goes down to the leaves.

    Returns:
        Children before grandchildren; within a level the oldest first, then by id.

    Raises:
        NotFoundError: no definition of this workspace has this id.
    """
    log.debug("reading descendants of definition %s", definition_id)
    found = _subtree(session, definition_id, max_depth)
    return found if include_self else found[1:]


@tenant_query
def tree(session: Session, root_id: Id, *, max_depth: int | None = None) -> DefinitionTreeNode:
    """
    Return a version with everything below it, nested.

    One statement, as descendants. Built without recursion, so that a tree may have any number of levels.

    Args:
        session: the caller's session; its workspace bounds the walk.
        root_id: the top of the tree; it need not be a root.
        max_depth: the most levels below it; None goes down to the leaves.

    Raises:
        NotFoundError: no definition of this workspace has this id.
    """
    log.debug("reading tree of definition %s", root_id)
    top, *below = _subtree(session, root_id, max_depth)
    root_node = DefinitionTreeNode(top, 0)
    # By number, and past the attributes: UUID hashes and compares in Python, and attributes look for what is loaded, three times a row.
    nodes: dict[int, DefinitionTreeNode] = {top.id.int: root_node}
    above = top.depth
    # Level by level, so a version's parent is there before it.
    for definition in below:
        loaded = definition.__dict__
        node = nodes[loaded["id"].int] = DefinitionTreeNode(definition, loaded["depth"] - above)
        nodes[loaded["parent_id"].int].children.append(node)
    return root_node


def _subtree(session: Session, top_id: Id, max_depth: int | None) -> list[Definition]:
    """Return a definition and what is below it, level by level."""
    found = _DESCENDANTS.all(session, id=key_of(top_id), max_depth=_levels(max_depth))
    if not found:
        raise missing(top_id)
    return found


def _levels(max_depth: int | None) -> int:
    if max_depth is None:
        return _ALL_LEVELS
    if isinstance(max_depth, bool) or not isinstance(max_depth, int) or max_depth < 0:
        raise ValidationError("max_depth is a number of levels, 0 or more; None for all of them", "max_depth")
    return min(max_depth, _ALL_LEVELS)


_ROOT = sql(
    Definition,
    """
    SELECT {columns}
      FROM stemma.definitions AS start
      JOIN stemma.definitions ON definitions.workspace_id = :workspace_id AND definitions.id = start.root_id
     WHERE start.workspace_id = :workspace_id AND start.id = :id
    """,
)


@tenant_query
def root(session: Session, definition_id: Id) -> Definition:
    """
    Return the first version of the tree that this one belongs to; a root is its own.

    Raises:
        NotFoundError: no definition of this workspace has this id.
    """
    key = key_of(definition_id)
    log.debug("reading root of definition %s", key)
    found = _ROOT.one_or_none(session, id=key)
    if found is None:
        raise missing(definition_id)
    return found


_DEPTH = sql_rows("SELECT depth FROM stemma.definitions WHERE workspace_id = :workspace_id AND id = :id")


@tenant_query
def depth(session: Session, definition_id: Id) -> int:
    """
    Return how many levels this version lies below its root: 0 for a root.

    Raises:
        NotFoundError: no definition of this workspace has this id.
    """
    key = key_of(definition_id)
    log.debug("reading depth of definition %s", key)
    level: int | None = _DEPTH.scalar(session, id=key)
    if level is None:
        raise missing(definition_id)
    return level


# The definition itself comes along, so that an unknown id can be told from one without siblings.
_SIBLINGS = sql(
    Definition,
    """
    SELECT {columns}
      FROM stemma.definitions
     WHERE definitions.workspace_id = :workspace_id AND definitions.id = :id
    UNION ALL
    SELECT {columns}
      FROM stemma.definitions AS start
      JOIN stemma.definitions ON definitions.workspace_id = :workspace_id AND definitions.parent_id = start.parent_id
     WHERE start.workspace_id = :workspace_id AND start.id = :id AND definitions.id <> :id
     ORDER BY created_at, id
    """,
)


@tenant_query
def siblings(session: Session, definition_id: Id) -> list[Definition]:
    """
    Return the other versions forked from the same parent, oldest first. A root has none.

    Raises:
        NotFoundError: no definition of this workspace has this id.
    """
    key = key_of(definition_id)
    log.debug("reading siblings of definition %s", key)
    found = _SIBLINGS.all(session, id=key)
    if not found:
        raise missing(definition_id)
    return [definition for definition in found if definition.id != key]


# Climbs no higher than the level of the other one, and not at all in another tree.
_IS_ANCESTOR = sql_rows(
    """
    WITH RECURSIVE line AS (
        SELECT start.id, start.parent_id, start.depth, top.id AS top_id,
               CASE WHEN top.root_id = start.root_id THEN top.depth END AS top_depth
          FROM stemma.definitions AS start
          LEFT JOIN stemma.definitions AS top ON top.workspace_id = :workspace_id AND top.id = :ancestor_id
         WHERE start.workspace_id = :workspace_id AND start.id = :id
     UNION ALL
        SELECT parent.id, parent.parent_id, parent.depth, line.top_id, line.top_depth
          FROM line,
               LATERAL (SELECT id, parent_id, depth
                          FROM stemma.definitions
                         WHERE workspace_id = :workspace_id AND id = line.parent_id
                        OFFSET 0) AS parent
         WHERE line.depth > line.top_depth
    )
    SELECT count(*) > 0 AS definition_exists,
           coalesce(bool_and(top_id IS NOT NULL), false) AS ancestor_exists,
           coalesce(bool_or(id = top_id), false) AS is_met
      FROM line
    """
)


@tenant_query
def is_ancestor(session: Session, ancestor_id: Id, definition_id: Id) -> bool:
    """
    Return whether the second version descends from the first. A version is no ancestor of itself.

    One statement, which climbs as many levels as lie between the two.

    Raises:
        NotFoundError: no definition of this workspace has one of the ids.
    """
    ancestor_key, key = key_of(ancestor_id), key_of(definition_id)
    log.debug("reading whether definition %s is an ancestor of %s", ancestor_key, key)
    found = _IS_ANCESTOR.all(session, ancestor_id=ancestor_key, id=key)[0]
    if not found.definition_exists:
        raise missing(definition_id)
    if not found.ancestor_exists:
        raise missing(ancestor_id)
    return bool(found.is_met) and ancestor_key != key


# Both climb at once, the lower one first, until they meet: as many steps as the farther one is away from the merge base. In different
# trees there is no first pair, so nobody climbs. The two themselves come along, which tells missing ones. The roots are compared in a
# way that no index serves: with `=` PostgreSQL 18 reads the whole tree by its root to find the second one.
PAIRS = """
    WITH RECURSIVE pair AS (
        SELECT a.id AS a_id, a.parent_id AS a_parent_id, a.depth AS a_depth, b.id AS b_id, b.parent_id AS b_parent_id, b.depth AS b_depth
          FROM stemma.definitions AS a
          JOIN stemma.definitions AS b ON b.workspace_id = :workspace_id AND b.id = :b_id AND b.root_id IS NOT DISTINCT FROM a.root_id
         WHERE a.workspace_id = :workspace_id AND a.id = :a_id
     UNION ALL
        SELECT a.id, a.parent_id, a.depth, b.id, b.parent_id, b.depth
          FROM pair,
               LATERAL (SELECT id, parent_id, depth
                          FROM stemma.definitions
                         WHERE workspace_id = :workspace_id AND id = CASE WHEN a_depth < b_depth THEN a_id ELSE a_parent_id END
                        OFFSET 0) AS a,
               LATERAL (SELECT id, parent_id, depth
                          FROM stemma.definitions
                         WHERE workspace_id = :workspace_id AND id = CASE WHEN b_depth < a_depth THEN b_id ELSE b_parent_id END
                        OFFSET 0) AS b
         WHERE a_id <> b_id
    )
"""
_MERGE_BASE = sql(
    Definition,
    PAIRS  # noqa: S608  (of constants only)
    + """
    SELECT {columns}
      FROM stemma.definitions
     WHERE definitions.workspace_id = :workspace_id
       AND definitions.id = ANY (ARRAY(SELECT a_id FROM pair WHERE a_id = b_id
                                       UNION ALL SELECT CAST(:a_id AS uuid) UNION ALL SELECT CAST(:b_id AS uuid)))
    """,
)
_LINEAGE = sql(
    Definition,
    PAIRS  # noqa: S608  (of constants only)
    + """
    SELECT {columns}
      FROM stemma.definitions
     WHERE definitions.workspace_id = :workspace_id
       AND definitions.id = ANY (ARRAY(SELECT a_id FROM pair UNION ALL SELECT b_id FROM pair
                                       UNION ALL SELECT CAST(:a_id AS uuid) UNION ALL SELECT CAST(:b_id AS uuid)))
    """,
)


@tenant_query
def merge_base(session: Session, a_id: Id, b_id: Id) -> Definition | None:
    """
    Return the nearest common ancestor of two versions, which may be one of the two.

    One statement, which climbs from both until they meet. None at once when the two have different roots.

    Raises:
        NotFoundError: no definition of this workspace has one of the ids.
    """
    a, b, found = _read_between(session, _MERGE_BASE, a_id, b_id)
    if a.root_id != b.root_id:
        return None
    return min(found.values(), key=lambda definition: definition.depth)


@tenant_query
def lineage(session: Session, a_id: Id, b_id: Id) -> list[Definition]:
    """
    Return the way from one version to another: up from the first to their merge base, then down to the second. One statement.

    Returns:
        Both ends included; one version when the two are the same. Empty when they have different roots.

    Raises:
        NotFoundError: no definition of this workspace has one of the ids.
    """
    a, b, found = _read_between(session, _LINEAGE, a_id, b_id)
    if a.root_id != b.root_id:
        return []
    # Nothing above the merge base was read, so both ways up end there.
    up, down = _way_up(found, a), _way_up(found, b)
    return [*up, *reversed(down[:-1])]


def _read_between(
    session: Session, statement: EntityStatement[Definition], a_id: Id, b_id: Id
) -> tuple[Definition, Definition, dict[UUID | None, Definition]]:
    """Return both ends, and what the statement found of the way between them, ends included."""
    a_key, b_key = key_of(a_id), key_of(b_id)
    log.debug("reading what lies between definitions %s and %s", a_key, b_key)
    found: dict[UUID | None, Definition] = {definition.id: definition for definition in statement.all(session, a_id=a_key, b_id=b_key)}
    for key in (a_key, b_key):
        if key not in found:
            raise missing(key)
    return found[a_key], found[b_key], found


def _way_up(found: dict[UUID | None, Definition], start: Definition) -> list[Definition]:
    way = [start]
    while (parent := found.get(way[-1].parent_id)) is not None:
        way.append(parent)
    return way
