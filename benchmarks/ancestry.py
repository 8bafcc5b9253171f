"""
Where a version comes from, and what came of it.

The floor is the recursion that somebody writes on ``parent_id``, as a constant; so is the peers', with SQLAlchemy's own ``cte``. Ours
reads a whole tree without recursion, since each version carries the id of its root.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from uuid import UUID

import sqlmodel
from sqlalchemy import Select, bindparam, literal, select
from sqlalchemy.orm import Session, aliased, defer

from benchmarks.datasets import CHAIN_LEVELS, Dataset
from benchmarks.harness import ALCHEMY, FLOOR, OURS, SQLMODEL, Call, Case, Contender
from benchmarks.peers import HAS_ALCHEMY, VERSION_COLUMNS, PlainDefinition, Version
from stemmadb.evaluation import definitions

if HAS_ALCHEMY:
    from benchmarks.peers import AlchemyDefinition, AlchemyDefinitions

JOB = "ancestry"

Key = Callable[[int], UUID]
"""The id that a call is about."""

_COLUMNS = ", ".join(f"definitions.{name}" for name in VERSION_COLUMNS.split(", "))
# Carrying the rows through the recursion is a tenth faster here than joining them afterwards; there is no content among them.
_ANCESTORS = f"""
WITH RECURSIVE line AS (
    SELECT {VERSION_COLUMNS}, 0 AS up FROM plain.definitions WHERE id = %s
 UNION ALL
    SELECT {_COLUMNS}, line.up + 1 FROM line JOIN plain.definitions ON definitions.id = line.parent_id
)
SELECT {VERSION_COLUMNS} FROM line WHERE up > 0 ORDER BY up DESC
""".encode()
_DESCENDANTS = f"""
WITH RECURSIVE line AS (
    SELECT {VERSION_COLUMNS}, 0 AS down FROM plain.definitions WHERE id = %s
 UNION ALL
    SELECT {_COLUMNS}, line.down + 1 FROM line JOIN plain.definitions ON definitions.parent_id = line.id
)
SELECT {VERSION_COLUMNS} FROM line WHERE down > 0 ORDER BY down, created_at, id
""".encode()


def cases(dataset: Dataset) -> list[Case]:
    """Ancestors of 10, 100 and 1,000 levels; what is below a root and below another version; a nested tree."""
    deep, roots, tops = _keys(dataset.deep_ids), _keys(dataset.root_ids), _keys(_wide_ids(dataset))
    chain = {levels: _keys([dataset.chain_id(min(levels, dataset.rows))]) for levels in (100, CHAIN_LEVELS)}
    return [
        _ancestors(dataset, "ancestors, 10 levels, open session", deep),
        _own_transaction(dataset, "ancestors, 10 levels, own transaction", deep),
        *(_ancestors(dataset, f"ancestors, {levels:,} levels", key) for levels, key in chain.items()),
        _descendants(dataset, "what is below a root", roots),
        _descendants(dataset, "what is below another version", tops),
        _nested(dataset, "nested tree of a root", roots),
    ]


def _keys(ids: list[UUID]) -> Key:
    return lambda number: ids[number % len(ids)]


def _wide_ids(dataset: Dataset) -> list[UUID]:
    """Return the versions below a root that were forked most often, one of each tree, at most 500."""
    return dataset.ids(
        """
        SELECT DISTINCT ON (child.root_id) child.parent_id
          FROM stemma.definitions AS child
         WHERE child.root_id = ANY (%(roots)s) AND child.depth = 2
         GROUP BY child.root_id, child.parent_id
         ORDER BY child.root_id, count(*) DESC, child.parent_id
        """,
        roots=dataset.root_ids,
    )


def _ids(found: Iterable[Any]) -> list[UUID]:
    return [version.id for version in found]


def _ancestors(dataset: Dataset, title: str, key: Key) -> Case:
    contenders = [
        Contender(FLOOR, lambda: _psycopg(dataset, key, _ANCESTORS)),
        Contender(OURS, lambda: _stemmadb(dataset, key, definitions.ancestors)),
        Contender(SQLMODEL, lambda: _sqlmodel(dataset, key, _SQLMODEL_ANCESTORS)),
    ]
    if HAS_ALCHEMY:
        contenders.append(Contender(ALCHEMY, lambda: _alchemy(dataset, key, _ALCHEMY_ANCESTORS)))
    return Case(JOB, title, dataset.rows, contenders, outcome=_ids)


def _own_transaction(dataset: Dataset, title: str, key: Key) -> Case:
    contenders = [
        Contender(FLOOR, lambda: _psycopg(dataset, key, _ANCESTORS)),
        Contender(OURS, lambda: _stemmadb_transaction(dataset, key)),
        Contender(SQLMODEL, lambda: _sqlmodel_transaction(dataset, key)),
    ]
    if HAS_ALCHEMY:
        contenders.append(Contender(ALCHEMY, lambda: _alchemy_transaction(dataset, key)))
    return Case(JOB, title, dataset.rows, contenders, outcome=_ids)


def _descendants(dataset: Dataset, title: str, key: Key) -> Case:
    contenders = [
        Contender(FLOOR, lambda: _psycopg(dataset, key, _DESCENDANTS)),
        Contender(OURS, lambda: _stemmadb(dataset, key, definitions.descendants)),
        Contender(SQLMODEL, lambda: _sqlmodel(dataset, key, _SQLMODEL_DESCENDANTS)),
    ]
    if HAS_ALCHEMY:
        contenders.append(Contender(ALCHEMY, lambda: _alchemy(dataset, key, _ALCHEMY_DESCENDANTS)))
    return Case(JOB, title, dataset.rows, contenders, outcome=_ids)


# ------------------------------------------------------------------------------------------------------------------- floor


@contextlib.contextmanager
def _psycopg(dataset: Dataset, key: Key, statement: bytes) -> Iterator[Call]:
    cursor = dataset.floor.cursor()

    def call(number: int) -> list[Version]:
        return [Version(*row) for row in cursor.execute(statement, (key(number),))]

    yield call


# ---------------------------------------------------------------------------------------------------------------- stemmadb


@contextlib.contextmanager
def _stemmadb(dataset: Dataset, key: Key, walk: Callable[[Session, UUID], Any]) -> Iterator[Call]:
    with dataset.db.session() as session:
        yield lambda number: walk(session, key(number))


@contextlib.contextmanager
def _stemmadb_transaction(dataset: Dataset, key: Key) -> Iterator[Call]:
    def call(number: int) -> list[definitions.Definition]:
        with dataset.db.session() as session:
            return definitions.ancestors(session, key(number))

    yield call


# ------------------------------------------------------------------------------------------------------------------- peers


def _select_ancestors(entity: Any) -> Select[Any]:
    """Return the ancestors as SQLAlchemy's documentation writes recursion: ids in the CTE, rows joined to it."""
    line = select(entity.id, entity.parent_id, literal(0).label("up")).where(entity.id == bindparam("id")).cte("line", recursive=True)
    parent = aliased(entity)
    line = line.union_all(select(parent.id, parent.parent_id, line.c.up + 1).join(line, parent.id == line.c.parent_id))
    return select(entity).options(defer(entity.content)).join(line, entity.id == line.c.id).where(line.c.up > 0).order_by(line.c.up.desc())


def _select_descendants(entity: Any) -> Select[Any]:
    """Return what is below a version, level by level, as above."""
    line = select(entity.id, literal(0).label("down")).where(entity.id == bindparam("id")).cte("line", recursive=True)
    child = aliased(entity)
    line = line.union_all(select(child.id, line.c.down + 1).join(line, child.parent_id == line.c.id))
    rows = select(entity).options(defer(entity.content)).join(line, entity.id == line.c.id).where(line.c.down > 0)
    return rows.order_by(line.c.down, entity.created_at, entity.id)


_SQLMODEL_ANCESTORS = _select_ancestors(PlainDefinition)
_SQLMODEL_DESCENDANTS = _select_descendants(PlainDefinition)
if HAS_ALCHEMY:
    _ALCHEMY_ANCESTORS = _select_ancestors(AlchemyDefinition)
    _ALCHEMY_DESCENDANTS = _select_descendants(AlchemyDefinition)


@contextlib.contextmanager
def _sqlmodel(dataset: Dataset, key: Key, statement: Select[Any]) -> Iterator[Call]:
    with sqlmodel.Session(dataset.engine) as session:
        yield lambda number: session.scalars(statement, {"id": key(number)}).all()


@contextlib.contextmanager
def _sqlmodel_transaction(dataset: Dataset, key: Key) -> Iterator[Call]:
    def call(number: int) -> Any:
        with sqlmodel.Session(dataset.engine) as session:
            return session.scalars(_SQLMODEL_ANCESTORS, {"id": key(number)}).all()

    yield call


@contextlib.contextmanager
def _alchemy(dataset: Dataset, key: Key, statement: Select[Any]) -> Iterator[Call]:
    with Session(dataset.engine, expire_on_commit=False) as session:
        repository = AlchemyDefinitions(session=session)
        yield lambda number: repository.get_many(statement=statement.params(id=key(number)))


@contextlib.contextmanager
def _alchemy_transaction(dataset: Dataset, key: Key) -> Iterator[Call]:
    def call(number: int) -> Any:
        with Session(dataset.engine, expire_on_commit=False) as session:
            return AlchemyDefinitions(session=session).get_many(statement=_ALCHEMY_ANCESTORS.params(id=key(number)))

    yield call


# ------------------------------------------------------------------------------------------------------------------ nested


def _nested(dataset: Dataset, title: str, key: Key) -> Case:
    """Each fetches as above and nests; the outcome is how many nodes each level has, and what the root is."""
    contenders = [
        Contender(FLOOR, lambda: _nesting(_psycopg(dataset, key, _DESCENDANTS), key)),
        Contender(OURS, lambda: _stemmadb(dataset, key, definitions.tree)),
        Contender(SQLMODEL, lambda: _nesting(_sqlmodel(dataset, key, _SQLMODEL_DESCENDANTS), key)),
    ]
    if HAS_ALCHEMY:
        contenders.append(Contender(ALCHEMY, lambda: _nesting(_alchemy(dataset, key, _ALCHEMY_DESCENDANTS), key)))
    return Case(JOB, title, dataset.rows, contenders, outcome=_widths)


@contextlib.contextmanager
def _nesting(walk: contextlib.AbstractContextManager[Call], key: Key) -> Iterator[Call]:
    def call(number: int) -> _Node:
        root = _Node()
        nodes = {key(number): root}
        for version in fetch(number):
            node = nodes[version.id] = _Node(version)
            nodes[version.parent_id].children.append(node)
        return root

    with walk as fetch:
        yield call


class _Node:
    __slots__ = ("children", "version")

    def __init__(self, version: Any = None) -> None:
        self.version = version
        self.children: list[_Node] = []


def _widths(root: Any) -> list[int]:
    widths, level = [], [root]
    while level:
        widths.append(len(level))
        level = [child for node in level for child in node.children]
    return widths
