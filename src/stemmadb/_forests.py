"""The statements of ``stemmadb.trees``, built once for each entity: building one costs as much as running it."""

import functools
from typing import Any

from sqlalchemy import (
    CTE,
    Column,
    ColumnElement,
    FromClause,
    Integer,
    Select,
    Uuid,
    all_,
    bindparam,
    column,
    func,
    inspect,
    literal_column,
    select,
    union_all,
)
from sqlalchemy.dialects.postgresql import array
from sqlalchemy.orm import Mapper, Session

from stemmadb import tenancy
from stemmadb.entity import Id, SoftDelete, parse_id
from stemmadb.errors import ValidationError

_MAX_DEPTH = bindparam("max_depth", type_=Integer())
_WORKSPACE = bindparam("workspace_id", type_=Uuid())


class Forest:
    """An entity whose rows name their parent, and what its statements need to know of it."""

    def __init__(self, entity: type[Any]) -> None:
        mapper: Mapper[Any] = inspect(entity)
        names = set(mapper.columns.keys())
        if not {"id", "parent_id"} <= names:
            message = f"{entity.__name__} has no parent_id: a tree is made of rows that name their parent in a column of this name"
            raise ValidationError(message, "entity")
        self.entity = entity
        self.table: FromClause = mapper.local_table
        self.is_tenant = tenancy.is_tenant(entity)
        self.hides_deleted = issubclass(entity, SoftDelete)
        # Below a deleted row there is nothing, which only a walk finds out: read by root_id, its descendants would be there.
        self.has_lineage = {"root_id", "depth"} <= names and not self.hides_deleted
        self.orders = ["created_at", "id"] if "created_at" in names else ["id"]
        self._columns = mapper.columns
        self._fetched = [found.columns[0] for found in mapper.column_attrs if not found.deferred and isinstance(found.columns[0], Column)]

    def key(self, id: Id) -> Any:
        """
        Return the id as its column has it.

        Raises:
            NotFoundError: it is malformed, so no row has it.
        """
        return parse_id(id, self.entity.__name__) if isinstance(self._columns["id"].type, Uuid) else id

    def parameters(self, session: Session, function: str, **values: Any) -> dict[str, Any]:
        """
        Return the parameters of a statement, with the session's workspace for a tenant entity.

        Raises:
            WorkspaceNotSetError: the session has none; the message names ``function``. Nothing was sent.
        """
        return {**values, "workspace_id": tenancy.require(session, function)} if self.is_tenant else values

    def of(self, name: str, table: FromClause) -> ColumnElement[Any]:
        """Return the column behind this attribute in the table or in an alias of it."""
        return table.c[self._columns[name].key]

    def scope(self, table: FromClause) -> list[ColumnElement[bool]]:
        """Return what a row of the table must be to be seen: of the session's workspace, and not deleted."""
        conditions = [self.of("workspace_id", table) == _WORKSPACE] if self.is_tenant else []
        return [*conditions, self.of("deleted_at", table).is_(None)] if self.hides_deleted else conditions

    def rows(self, *extra: ColumnElement[Any]) -> Select[Any]:
        """Select what an entity is loaded from, and its parent's id as ``above``. Deferred columns are not fetched."""
        # The entity may be in the session with an older parent; the tree is built from what this statement saw.
        return select(*self._fetched, self.of("parent_id", self.table).label("above"), *extra)

    def entities(self, rows: Any) -> Select[Any]:
        """Return the statement that makes entities, each with the id of its parent, of such rows."""
        return select(self.entity, column("above", self._columns["parent_id"].type)).from_statement(rows)  # type: ignore[return-value]


def forest_of(entity: Any) -> Forest:
    """
    Return the forest that the rows of an entity are.

    Raises:
        ValidationError: its rows do not name a parent.
    """
    return _forest(entity)


_forest = functools.lru_cache(maxsize=256)(Forest)


@functools.lru_cache(maxsize=256)
def ancestors(forest: Forest, bounded: bool) -> Select[Any]:
    """From the row ``id`` up, root first; the row itself comes last. With ``bounded`` at most ``max_depth`` levels up."""
    line = _climb(forest, "line", "id", bounded=bounded)
    return forest.entities(_joined(forest, line, forest.rows()).order_by(line.c.level.desc()))


@functools.lru_cache(maxsize=256)
def descendants(forest: Forest, bounded: bool) -> Select[Any]:
    """From the row ``id`` down, level by level; the row itself comes first. With ``bounded`` at most ``max_depth`` levels down."""
    table = forest.table
    line = _descend(forest, bounded=bounded)
    below = _joined(forest, line, forest.rows(line.c.level))
    if not forest.has_lineage:
        return forest.entities(below.order_by(line.c.level, *[forest.of(name, table) for name in forest.orders]))
    # Only a root has rows under its root_id, and the walk leaves roots out: one of the two halves is empty, and costs nothing.
    depth = forest.of("depth", table)
    whole = forest.rows(depth.label("level")).where(*forest.scope(table), forest.of("root_id", table) == _bind(forest, "id"))
    if bounded:
        whole = whole.where(depth <= _MAX_DEPTH)
    both = union_all(whole, below)
    return forest.entities(both.order_by(column("level"), *[column(forest.of(name, table).name) for name in forest.orders]))


@functools.lru_cache(maxsize=256)
def merge_base(forest: Forest) -> Select[Any]:
    """The nearest row that is on both ways up, from ``a`` and from ``b``; no row when they are in different trees."""
    up, other = _both(forest)
    found = _joined(forest, up, forest.rows()).join(other, other.c.id == up.c.id)
    return forest.entities(found.order_by(up.c.level).limit(literal_column("1")))


@functools.lru_cache(maxsize=256)
def path(forest: Forest) -> Select[Any]:
    """From ``a`` up to the merge base and down to ``b``; no row when they are in different trees."""
    up, down = _both(forest)
    base = (
        select(up.c.level.label("up"), down.c.level.label("down"))
        .join_from(up, down, up.c.id == down.c.id)
        .order_by(up.c.level)
        .limit(literal_column("1"))
        .cte("base")
    )
    place = (base.c.up + base.c.down - down.c.level).label("level")
    way = union_all(
        select(up.c.id, up.c.level).join_from(up, base, up.c.level <= base.c.up),
        select(down.c.id, place).join_from(down, base, down.c.level < base.c.down),
    ).subquery("way")
    return forest.entities(_joined(forest, way, forest.rows()).order_by(way.c.level))


@functools.lru_cache(maxsize=256)
def known(forest: Forest) -> Select[Any]:
    """Which of the ids ``a`` and ``b`` have a row."""
    own = forest.of("id", forest.table)
    return select(own).where(*forest.scope(forest.table), own.in_([_bind(forest, "a"), _bind(forest, "b")]))


def _bind(forest: Forest, name: str) -> ColumnElement[Any]:
    return bindparam(name, type_=forest.of("id", forest.table).type)


def _both(forest: Forest) -> tuple[CTE, CTE]:
    """Return the ways up from ``a`` and ``b``. With ``root_id`` the first is empty when the two are in different trees."""
    table = forest.table.alias("beside")
    same: list[ColumnElement[bool]] = []
    if forest.has_lineage:
        root = select(forest.of("root_id", table)).where(*forest.scope(table), forest.of("id", table) == _bind(forest, "b"))
        same = [forest.of("root_id", forest.table) == root.scalar_subquery()]
    return _climb(forest, "up", "a", *same), _climb(forest, "down", "b")


def _climb(forest: Forest, name: str, start: str, *conditions: ColumnElement[bool], bounded: bool = False) -> CTE:
    """Return the ids on the way up from the row with the id in ``start``, with their level above it."""
    table, parent = forest.table, forest.table.alias(f"{name}_parent")
    own, above = forest.of("id", table), forest.of("parent_id", table)
    line = (
        select(own.label("id"), above.label("parent_id"), literal_column("0", Integer()).label("level"), *_path(forest, own))
        .where(*forest.scope(table), own == _bind(forest, start), *conditions)
        .cte(name, recursive=True)
    )
    own, above = forest.of("id", parent), forest.of("parent_id", parent)
    step = select(own, above, line.c.level + literal_column("1"), *_longer(forest, line, own))
    higher = step.join_from(line, parent, own == line.c.parent_id)
    return line.union_all(higher.where(*forest.scope(parent), *_limits(forest, line, own, bounded)))


def _descend(forest: Forest, *, bounded: bool) -> CTE:
    """Return the ids below the row ``id`` and itself, with their level below it. With ``root_id`` a root has none: it is read whole."""
    table, child = forest.table, forest.table.alias("child")
    own = forest.of("id", table)
    below_root = [forest.of("parent_id", table).is_not(None)] if forest.has_lineage else []
    line = (
        select(own.label("id"), literal_column("0", Integer()).label("level"), *_path(forest, own))
        .where(*forest.scope(table), own == _bind(forest, "id"), *below_root)
        .cte("line", recursive=True)
    )
    own, above = forest.of("id", child), forest.of("parent_id", child)
    step = select(own, line.c.level + literal_column("1"), *_longer(forest, line, own))
    lower = step.join_from(line, child, above == line.c.id)
    return line.union_all(lower.where(*forest.scope(child), *_limits(forest, line, own, bounded)))


def _path(forest: Forest, own: ColumnElement[Any]) -> list[ColumnElement[Any]]:
    return [] if forest.has_lineage else [array([own]).label("path")]


def _longer(forest: Forest, line: CTE, own: ColumnElement[Any]) -> list[ColumnElement[Any]]:
    return [] if forest.has_lineage else [func.array_append(line.c.path, own, type_=line.c.path.type)]


def _limits(forest: Forest, line: CTE, own: ColumnElement[Any], bounded: bool) -> list[ColumnElement[bool]]:
    """Return where the walk ends: at ``max_depth``, and at a row that it has met already."""
    ends = [line.c.level < _MAX_DEPTH] if bounded else []
    return ends if forest.has_lineage else [*ends, own != all_(line.c.path)]


def _joined(forest: Forest, line: FromClause, rows: Select[Any]) -> Select[Any]:
    """Join the rows to the ids of a walk, once."""
    return rows.join_from(line, forest.table, forest.of("id", forest.table) == line.c.id).where(*forest.scope(forest.table))
