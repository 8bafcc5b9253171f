"""Walks over parent_id, with and without a lineage, against a naive reference."""

import logging
from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import exc
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from stemmadb import trees
from stemmadb._forests import ancestors, descendants, forest_of, merge_base, path
from stemmadb.accounts.entities import User
from stemmadb.errors import NotFoundError, ValidationError, WorkspaceNotSetError
from stemmadb.evaluation.documents import DefinitionContent
from stemmadb.evaluation.entities import Definition
from stemmadb.testing import assert_max_queries, count_queries

pytestmark = pytest.mark.requirement("VR-065", "VR-066", "VR-067")

CONTENT = DefinitionContent(preamble="", template="t")


class Plain(DeclarativeBase):
    """Tables of a host application; temporary, so that each test has its own."""


class Topic(Plain):
    """Rows that name their parent and nothing else: they may hold a cycle."""

    __tablename__ = "tree_topics"
    __table_args__ = {"prefixes": ["TEMPORARY"]}

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    parent_id: Mapped[int | None] = mapped_column(index=True)
    body: Mapped[str] = mapped_column(default="long", deferred=True, deferred_raiseload=True)


class Version(Plain):
    """Rows that carry their lineage."""

    __tablename__ = "tree_versions"
    __table_args__ = {"prefixes": ["TEMPORARY"]}

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    parent_id: Mapped[int | None] = mapped_column(index=True)
    root_id: Mapped[int] = mapped_column(index=True)
    depth: Mapped[int]


@pytest.fixture
def plain(session: Session) -> Session:
    """The session, with empty tables."""
    Plain.metadata.create_all(session.connection(), checkfirst=False)
    return session


Forest = list[int | None]
"""The parent of each row; a row's id is its place."""

# Each row hangs on an earlier one or on none.
forests = st.lists(st.integers(0, 10**6), min_size=1, max_size=30).map(
    lambda draws: [None if number == 0 or draw % 4 == 0 else draw % number for number, draw in enumerate(draws)]
)
depths = st.none() | st.integers(0, 4)
generated = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def line_of(forest: Forest, number: int) -> list[int]:
    """A row and its ancestors, upwards."""
    line = [number]
    while (parent := forest[line[-1]]) is not None:
        line.append(parent)
    return line


def below(forest: Forest, number: int, max_depth: int | None = None) -> dict[int, int]:
    """A row and its descendants, with their levels below it, level by level and by id."""
    levels = {row: line_of(forest, row).index(number) for row in range(len(forest)) if number in line_of(forest, row)}
    return {row: level for level, row in sorted((level, row) for row, level in levels.items()) if max_depth is None or level <= max_depth}


def plant(session: Session, forest: Forest) -> None:
    session.expunge_all()
    session.execute(sa.delete(Topic))
    session.execute(sa.delete(Version))
    rows = [{"id": number, "parent_id": parent} for number, parent in enumerate(forest)]
    session.execute(sa.insert(Topic), [{**row, "body": "long"} for row in rows])
    lines = [line_of(forest, number) for number in range(len(forest))]
    lineage = [{"root_id": line[-1], "depth": len(line) - 1} for line in lines]
    session.execute(sa.insert(Version), [row | more for row, more in zip(rows, lineage, strict=True)])


def ids(rows: Sequence[Any]) -> list[Any]:
    return [row.id for row in rows]


@pytest.mark.property
@generated
@given(forest=forests, max_depth=depths, entity=st.sampled_from([Topic, Version]))
def test_ancestors_and_descendants_equal_the_reference(plain: Session, forest: Forest, max_depth: int | None, entity: Any) -> None:
    """Ancestors come root first, descendants level by level and by id, whole and within a depth, with and without the row itself."""
    plant(plain, forest)
    for number in range(len(forest)):
        up = line_of(forest, number)[1:][: max_depth if max_depth is not None else None][::-1]
        down = list(below(forest, number, max_depth))
        assert ids(trees.ancestors(plain, entity, number, max_depth=max_depth)) == up
        assert ids(trees.ancestors(plain, entity, number, max_depth=max_depth, include_self=True)) == [*up, number]
        assert ids(trees.descendants(plain, entity, number, max_depth=max_depth)) == down[1:]
        assert ids(trees.descendants(plain, entity, number, max_depth=max_depth, include_self=True)) == down


@pytest.mark.property
@generated
@given(forest=forests, entity=st.sampled_from([Topic, Version]))
def test_ancestors_is_the_inverse_of_descendants(plain: Session, forest: Forest, entity: Any) -> None:
    """One row is an ancestor of another exactly when the other is a descendant of it."""
    plant(plain, forest)
    everything = range(len(forest))
    up = {(above.id, number) for number in everything for above in trees.ancestors(plain, entity, number)}
    down = {(number, under.id) for number in everything for under in trees.descendants(plain, entity, number)}
    assert up == down


@pytest.mark.property
@generated
@given(forest=forests, max_depth=depths, entity=st.sampled_from([Topic, Version]))
def test_trees_equal_the_reference(plain: Session, forest: Forest, max_depth: int | None, entity: Any) -> None:
    """Nodes nest as parents and children do, with their depths, whole and partial, from a root and from any other row."""
    plant(plain, forest)

    def reference(number: int, depth: int) -> Any:
        children = [row for row in range(len(forest)) if forest[row] == number and (max_depth is None or depth < max_depth)]
        return number, depth, [reference(child, depth + 1) for child in children]

    def shape(node: trees.Node[Any]) -> Any:
        return node.item.id, node.depth, [shape(child) for child in node.children]

    for number in range(len(forest)):
        assert shape(trees.tree(plain, entity, number, max_depth=max_depth)) == reference(number, 0)


@pytest.mark.property
@generated
@given(forest=forests, entity=st.sampled_from([Topic, Version]), data=st.data())
def test_merge_bases_and_paths_equal_the_reference(plain: Session, forest: Forest, entity: Any, data: st.DataObject) -> None:
    """The merge base is the first row on both lines; the path climbs to it and goes down to the other end."""
    plant(plain, forest)
    rows = st.integers(0, len(forest) - 1)
    for a, b in data.draw(st.lists(st.tuples(rows, rows), min_size=1, max_size=12)):
        up, down = line_of(forest, a), line_of(forest, b)
        base = next((number for number in up if number in down), None)
        found = trees.merge_base(plain, entity, a, b)
        assert (found.id if found else None) == base
        way = [] if base is None else [*up[: up.index(base) + 1], *reversed(down[: down.index(base)])]
        assert ids(trees.path(plain, entity, a, b)) == way


# ---------------------------------------------------------------------------------------------------------------- cycles


def test_a_cycle_ends_where_it_began(plain: Session) -> None:
    """Rows in a cycle, or below one, are each met once."""
    plain.execute(sa.insert(Topic), [{"id": a, "parent_id": b, "body": ""} for a, b in [(1, 3), (2, 1), (3, 2), (4, 3), (5, 4), (6, 6)]])
    assert ids(trees.ancestors(plain, Topic, 5)) == [1, 2, 3, 4]
    assert ids(trees.ancestors(plain, Topic, 1, include_self=True)) == [2, 3, 1]
    assert ids(trees.descendants(plain, Topic, 3)) == [1, 4, 2, 5]
    assert [(node.item.id, node.depth) for node in trees.tree(plain, Topic, 2)] == [(2, 0), (3, 1), (1, 2), (4, 2), (5, 3)]
    assert ids(trees.path(plain, Topic, 5, 1)) == [5, 4, 3, 1]
    assert ids(trees.ancestors(plain, Topic, 6)) == ids(trees.descendants(plain, Topic, 6)) == []
    assert trees.merge_base(plain, Topic, 6, 1) is None


# ------------------------------------------------------------------------------------------------------------- statements


@pytest.mark.parametrize("entity", [Topic, Version])
def test_each_function_is_one_statement(plain: Session, entity: Any) -> None:
    """One statement each, for a root and for another row, whatever the depth; two when there is no merge base."""
    plant(plain, [None, 0, 1, 2, 1, None])
    calls: list[Any] = [
        lambda: trees.ancestors(plain, entity, 3),
        lambda: trees.descendants(plain, entity, 0),
        lambda: trees.descendants(plain, entity, 1, max_depth=1),
        lambda: trees.tree(plain, entity, 0),
        lambda: trees.tree(plain, entity, 1),
        lambda: trees.path(plain, entity, 3, 4),
        lambda: trees.merge_base(plain, entity, 3, 4),
    ]
    for call in calls:
        with assert_max_queries(1):
            call()
    with assert_max_queries(2):
        assert trees.merge_base(plain, entity, 3, 5) is None


@pytest.mark.offline
@pytest.mark.requirement("VR-101")
def test_definitions_need_no_path_and_name_the_workspace_in_both_arms() -> None:
    """No array, no CYCLE clause: the lineage allows no cycle. The workspace bounds the start, every step and the joined rows."""
    forest = forest_of(Definition)
    for statement in [ancestors(forest, False), descendants(forest, True), merge_base(forest), path(forest)]:
        text = str(statement.compile(dialect=sa.create_engine("postgresql+psycopg://").dialect))
        assert "ARRAY" not in text
        assert "CYCLE" not in text
        assert "RECURSIVE" in text
        start, step = text.split("UNION ALL")[:2]
        assert "workspace_id = " in start
        assert "workspace_id = " in step
        assert "content," not in text
    assert "ARRAY" in str(ancestors(forest_of(Topic), False).compile(dialect=sa.create_engine("postgresql+psycopg://").dialect))


@pytest.mark.offline
def test_statements_are_built_once() -> None:
    """The statement of an entity and shape is one object for the life of the process."""
    assert ancestors(forest_of(Definition), True) is ancestors(forest_of(Definition), True)
    assert descendants(forest_of(Topic), False) is descendants(forest_of(Topic), False)


@pytest.mark.parametrize("entity", [Topic, Version])
def test_ten_thousand_levels_are_no_problem(plain: Session, entity: Any) -> None:
    """A chain of 10,000 rows is walked and nested: Python's recursion limit does not matter, not even when the tree is freed."""
    plain.execute(
        sa.text(
            f"INSERT INTO {entity.__tablename__} "
            + ("(id, parent_id, body) SELECT n, nullif(n - 1, -1), ''" if entity is Topic else "SELECT n, nullif(n - 1, -1), 0, n")
            + " FROM generate_series(0, 9999) AS n"
        )
    )
    plain.execute(sa.text(f"ANALYZE {entity.__tablename__}"))
    top = trees.tree(plain, entity, 0)
    assert [(node.item.id, node.depth) for node in top] == [(number, number) for number in range(10_000)]
    assert "children" not in repr(top)
    del top
    assert len(trees.ancestors(plain, entity, 9999)) == 9999
    assert len(trees.path(plain, entity, 0, 9999)) == 10_000


def test_deferred_columns_stay_deferred(plain: Session) -> None:
    """Bodies are not fetched by a walk, and reading one raises instead of sending a statement."""
    plant(plain, [None, 0])
    (root,) = trees.ancestors(plain, Topic, 1)
    with count_queries() as sent, pytest.raises(exc.InvalidRequestError):
        _ = root.body
    assert sent.count == 0


def test_a_tree_is_built_from_what_the_statement_saw(plain: Session) -> None:
    """A row that the session holds with an older parent hangs where the database has it."""
    plant(plain, [None, 0, 0])
    held = plain.get_one(Topic, 2)
    plain.execute(sa.update(Topic.__table__).where(Topic.__table__.c.id == 2).values(parent_id=1))
    assert held.parent_id == 0
    assert [(node.item.id, node.depth) for node in trees.tree(plain, Topic, 0)] == [(0, 0), (1, 1), (2, 2)]


def test_what_was_added_is_in_the_tree(plain: Session) -> None:
    """Walks flush first, as every query does."""
    plain.add_all([Topic(id=1), Topic(id=2, parent_id=1)])
    assert ids(trees.descendants(plain, Topic, 1)) == [2]


# ------------------------------------------------------------------------------------------------------------ definitions


def chain(session: Session, levels: int) -> list[Definition]:
    """A root and its only descendants."""
    rows: list[Definition] = []
    for number in range(levels):
        parent = rows[-1] if rows else None
        row = Definition(name=f"v{number}", content=CONTENT)
        if parent is not None:
            row = Definition(name=f"v{number}", content=CONTENT, parent_id=parent.id, root_id=parent.root_id, depth=number)
        session.add(row)
        session.flush()
        rows.append(row)
    return rows


def test_ten_levels_of_definitions(session: Session) -> None:
    """The full chain of a definition, root first; a root has no parent and no ancestors."""
    rows = chain(session, 10)
    assert trees.ancestors(session, Definition, rows[-1].id) == rows[:-1]
    assert trees.ancestors(session, Definition, str(rows[-1].id), include_self=True) == rows
    assert trees.ancestors(session, Definition, rows[0].id) == []
    assert rows[0].parent_id is None
    assert trees.descendants(session, Definition, rows[0].id) == rows[1:]
    assert trees.merge_base(session, Definition, rows[4].id, rows[7].id) is rows[4]
    assert trees.path(session, Definition, rows[7].id, rows[4].id) == rows[4:8][::-1]


def test_another_workspace_is_out_of_reach(db: Any, session: Session) -> None:
    """From another workspace a definition is not found, with the message of a random id, and no row of it is read."""
    rows = chain(session, 2)
    calls: list[Any] = [
        lambda other, key: trees.ancestors(other, Definition, key),
        lambda other, key: trees.descendants(other, Definition, key),
        lambda other, key: trees.tree(other, Definition, key),
        lambda other, key: trees.path(other, Definition, key, key),
        lambda other, key: trees.merge_base(other, Definition, key, key),
    ]
    session.flush()
    with db.session_on(session.connection(), workspace=uuid4()) as other:
        for call in calls:
            random = uuid4()
            with pytest.raises(NotFoundError) as foreign:
                call(other, rows[1].id)
            with pytest.raises(NotFoundError) as unknown:
                call(other, random)
            assert str(foreign.value).replace(str(rows[1].id), "") == str(unknown.value).replace(str(random), "")


def test_a_workspace_is_asked_for_before_anything_is_sent(db: Any) -> None:
    """Tenant entities need one, and the message names the function."""
    with db.session() as session, count_queries() as sent:
        with pytest.raises(WorkspaceNotSetError, match=r"trees\.tree"):
            trees.tree(session, Definition, uuid4())
        with pytest.raises(WorkspaceNotSetError, match=r"trees\.merge_base"):
            trees.merge_base(session, Definition, uuid4(), uuid4())
    assert sent.count == 0


# --------------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("id", [UUID(int=7), "nonexistent-id", "", UUID(int=0)])
def test_unknown_and_malformed_ids_are_not_found(session: Session, id: Any) -> None:
    """Both read the same to the caller."""
    for call in (trees.ancestors, trees.descendants, trees.tree):
        with pytest.raises(NotFoundError) as caught:
            call(session, Definition, id)  # type: ignore[operator]
        assert (caught.value.entity, str(caught.value.id)) == ("Definition", str(id))


def test_the_missing_end_of_a_path_is_named(session: Session) -> None:
    """Of two ids, the one without a row is in the error."""
    (row,) = chain(session, 1)
    missing = uuid4()
    for ends in [(row.id, missing), (missing, row.id)]:
        for call in (trees.path, trees.merge_base):
            with pytest.raises(NotFoundError) as caught:
                call(session, Definition, *ends)  # type: ignore[operator]
            assert caught.value.id == missing


@pytest.mark.parametrize("max_depth", [-1, True, 1.5, "2"])
def test_depths_are_numbers_of_levels(session: Session, max_depth: Any) -> None:
    """A negative or other depth is refused and nothing is sent; a huge one is all levels."""
    (row,) = chain(session, 1)
    with count_queries() as sent, pytest.raises(ValidationError):
        trees.tree(session, Definition, row.id, max_depth=max_depth)
    assert sent.count == 0
    assert trees.descendants(session, Definition, row.id, max_depth=2**40) == []


def test_an_entity_without_parent_id_has_no_trees(session: Session) -> None:
    """The message says what is missing."""
    with pytest.raises(ValidationError, match="User has no parent_id"):
        trees.tree(session, User, uuid4())


@pytest.mark.requirement("VR-087", "VR-088")
def test_walks_are_logged(session: Session, caplog: pytest.LogCaptureFixture) -> None:
    """DEBUG with the id before the statement, WARNING with the id when there is no row."""
    missing = uuid4()
    with caplog.at_level(logging.DEBUG, logger="stemmadb.trees"), pytest.raises(NotFoundError):
        trees.ancestors(session, Definition, missing)
    levels = [(record.levelno, str(missing) in record.getMessage()) for record in caplog.records if record.name == "stemmadb.trees"]
    assert levels == [(logging.DEBUG, True), (logging.WARNING, True)]
