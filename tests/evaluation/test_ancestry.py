"""Ancestry against walks in plain Python, on generated forests; and that no statement can bend a tree."""

import itertools
import time
from collections.abc import Callable
from typing import Any, ClassVar
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from tests.evaluation.version_trees import Forest, chain, contents, make, plant, shapes

from stemmadb.database import Database
from stemmadb.entity import uuid7
from stemmadb.errors import FrozenError, NotFoundError, StillReferencedError, ValidationError
from stemmadb.evaluation import definitions
from stemmadb.evaluation.definitions import DefinitionFork, DefinitionTreeNode, DefinitionUpdate
from stemmadb.evaluation.documents import DefinitionContent
from stemmadb.evaluation.entities import Definition
from stemmadb.tenancy import workspace_of
from stemmadb.testing import assert_max_queries, count_queries

# Examples share the session of the test: each plants a forest of its own beside the others.
generated = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def ids(found: list[Definition]) -> list[UUID]:
    """The ids, in order."""
    return [definition.id for definition in found]


def nested(node: DefinitionTreeNode) -> tuple[UUID, list[Any]]:
    """A tree as plain Python."""
    return node.definition.id, [nested(child) for child in node.children]


# ---------------------------------------------------------------------------------------------------------------- by example


@pytest.mark.requirement("VR-065", "VR-103")
def test_ten_levels(session: Session) -> None:
    """Root first, by one statement; the root has none; the version itself when asked for."""
    line = chain(session, 10)
    with assert_max_queries(1):
        assert definitions.ancestors(session, line[-1].id) == line[:-1]
    assert line[0].parent_id is None
    assert definitions.ancestors(session, line[0].id) == []
    assert definitions.ancestors(session, str(line[4].id), include_self=True) == line[:5]
    assert definitions.ancestors(session, line[-1].id, max_depth=3) == line[6:9]
    assert definitions.ancestors(session, line[-1].id, max_depth=0) == []
    assert definitions.depth(session, line[-1].id) == 9


@pytest.mark.requirement("VR-066", "VR-067")
def test_a_branching_tree(session: Session) -> None:
    """Level by level and nested, whole and from within; siblings and root; one statement each."""
    root = make(session)
    left, right = (definitions.fork(session, root.id) for _ in range(2))
    leaf, other = (definitions.fork(session, left.id) for _ in range(2))
    with assert_max_queries(2):
        assert definitions.descendants(session, root.id) == [left, right, leaf, other]
        assert definitions.descendants(session, left.id, include_self=True) == [left, leaf, other]
    assert definitions.descendants(session, root.id, max_depth=1) == [left, right]
    assert definitions.descendants(session, leaf.id) == []
    with assert_max_queries(1):
        top = definitions.tree(session, root.id)
    assert nested(top) == (root.id, [(left.id, [(leaf.id, []), (other.id, [])]), (right.id, [])])
    part = definitions.tree(session, left.id)
    assert (part.definition, part.depth, [node.depth for node in part.children]) == (left, 0, [1, 1])
    with assert_max_queries(3):
        assert definitions.siblings(session, leaf.id) == [other]
        assert definitions.siblings(session, root.id) == []
        assert definitions.root(session, leaf.id) is root


def test_between_two_versions(session: Session) -> None:
    """Merge base and lineage between cousins, along a line, of one with itself, and across trees; one statement each."""
    root = make(session)
    left, right = (definitions.fork(session, root.id) for _ in range(2))
    leaf = definitions.fork(session, left.id)
    stranger = make(session)
    with assert_max_queries(8):
        assert definitions.merge_base(session, leaf.id, right.id) is root
        assert definitions.merge_base(session, left.id, leaf.id) is left
        assert definitions.merge_base(session, leaf.id, leaf.id) is leaf
        assert definitions.merge_base(session, leaf.id, stranger.id) is None
        assert definitions.lineage(session, leaf.id, right.id) == [leaf, left, root, right]
        assert definitions.lineage(session, root.id, leaf.id) == [root, left, leaf]
        assert definitions.lineage(session, leaf.id, leaf.id) == [leaf]
        assert definitions.lineage(session, leaf.id, stranger.id) == []
    with assert_max_queries(5):
        assert definitions.is_ancestor(session, root.id, leaf.id)
        assert not definitions.is_ancestor(session, leaf.id, root.id)
        assert not definitions.is_ancestor(session, right.id, leaf.id)
        assert not definitions.is_ancestor(session, leaf.id, leaf.id)
        assert not definitions.is_ancestor(session, stranger.id, leaf.id)


@pytest.mark.parametrize(
    "walk",
    [
        definitions.ancestors,
        definitions.descendants,
        definitions.tree,
        definitions.root,
        definitions.depth,
        definitions.siblings,
        lambda session, key: definitions.is_ancestor(session, key, make(session).id),
        lambda session, key: definitions.is_ancestor(session, make(session).id, key),
        lambda session, key: definitions.merge_base(session, key, make(session).id),
        lambda session, key: definitions.merge_base(session, make(session).id, key),
        lambda session, key: definitions.lineage(session, key, make(session).id),
        lambda session, key: definitions.lineage(session, make(session).id, key),
    ],
)
def test_a_walk_from_nowhere(session: Session, walk: Callable[..., object]) -> None:
    """An unknown id is told from one without relatives, whichever parameter it is; so is one that is malformed."""
    for unknown in (uuid4(), "nonsense"):
        with pytest.raises(NotFoundError) as caught:
            walk(session, unknown)
        assert (caught.value.entity, caught.value.id) == ("Definition", unknown)


@pytest.mark.parametrize("levels", [-1, True, 1.5, "2"])
def test_levels_are_counted(session: Session, levels: Any) -> None:
    """max_depth is a whole number from 0; any number above the deepest tree means all."""
    root = chain(session, 2)[0]
    for walk in (definitions.ancestors, definitions.descendants, definitions.tree):
        with pytest.raises(ValidationError) as caught:
            walk(session, root.id, max_depth=levels)
        assert caught.value.field == "max_depth"
    assert len(definitions.descendants(session, root.id, max_depth=10**30)) == 1


@pytest.mark.requirement("VR-110")
def test_plain_sql_of_others(session: Session) -> None:
    """The recursive query that any SQL client would write ends at the row whose parent is NULL."""
    line = chain(session, 4)
    statement = text(
        """
        WITH RECURSIVE ancestors AS (
            SELECT id, parent_id FROM stemma.definitions WHERE id = :id
            UNION ALL
            SELECT d.id, d.parent_id FROM stemma.definitions d JOIN ancestors a ON d.id = a.parent_id
        )
        SELECT id, parent_id FROM ancestors
        """
    )
    found = session.execute(statement, {"id": line[-1].id}).all()
    assert [row.id for row in found] == ids(line)[::-1]
    assert found[-1].parent_id is None


@pytest.mark.requirement("VR-022")
def test_a_thousand_levels(session: Session) -> None:
    """Every walk is right, and none runs out of stack."""
    forest = plant(session, [(place, 0) for place in range(-1, 999)])
    line = list(forest.parents)
    root, leaf = line[0], line[-1]
    assert ids(definitions.ancestors(session, leaf)) == line[:-1]
    assert ids(definitions.descendants(session, root, include_self=True)) == line
    assert ids(definitions.descendants(session, line[1], include_self=True)) == line[1:]
    assert definitions.depth(session, leaf) == 999
    assert ids(definitions.lineage(session, root, leaf)) == line
    assert ids(definitions.lineage(session, leaf, root)) == line[::-1]
    assert definitions.is_ancestor(session, root, leaf)
    node, levels = definitions.tree(session, root), 0
    repr(node)
    while node.children:
        (node,) = node.children
        levels += 1
    assert (levels, node.depth, node.definition.id) == (999, 999, leaf)
    assert definitions.delete(session, root, subtree=True) == 1000


@pytest.mark.requirement("VR-007")
def test_walks_of_ten_levels_are_fast(session: Session) -> None:
    """Under 100 ms each among a thousand definitions of ten levels; by far, so that a busy machine passes too."""
    forest = plant(session, [(place // 2 if place % 100 else -1, 0) for place in range(-1, 999)])
    root = next(iter(forest.parents))
    leaf = max(forest.parents, key=forest.depth)
    for walk in (
        lambda: definitions.ancestors(session, leaf),
        lambda: definitions.descendants(session, root),
        lambda: definitions.tree(session, root),
    ):
        walk()
        began = time.perf_counter()
        walk()
        assert time.perf_counter() - began < 0.1


def read_and_dropped(session: Session, walk: Callable[[], object], **parameters: object) -> int:
    """How many rows the only statement of a walk read and threw away."""
    with count_queries() as sent:
        walk()
    (statement,) = sent.statements
    explained = f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}"
    (plan,) = session.connection().exec_driver_sql(explained, {**parameters, "workspace_id": workspace_of(session)}).scalar_one()
    pending, dropped = [plan["Plan"]], 0
    while pending:
        node = pending.pop()
        dropped += node.get("Rows Removed by Filter", 0) * node.get("Actual Loops", 1)
        pending += node.get("Plans", [])
    return int(dropped)


@pytest.mark.requirement("VR-007", "VR-023")
def test_walks_read_what_they_return(committed_db: Database, committed_workspace: UUID, owner: Engine) -> None:
    """In a tree of 2,000 versions beside as many small ones no walk between a few of them reads the others."""
    with committed_db.session(committed_workspace) as session:
        line = list(plant(session, [(max(-1, place - place % 7), 0) for place in range(-1, 1999)]).parents)
        plant(session, [(-1, 0)] * 2000)
    with owner.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE stemma.definitions"))
    a, b = line[-1], line[-2]
    everything = 2**31 - 1
    with committed_db.session(committed_workspace) as session:
        for walk, parameters in (
            (lambda: definitions.merge_base(session, a, b), {"a_id": a, "b_id": b}),
            (lambda: definitions.lineage(session, a, b), {"a_id": a, "b_id": b}),
            (lambda: definitions.merge(session, a, b), {"a_id": a, "b_id": b}),
            (lambda: definitions.is_ancestor(session, b, a), {"ancestor_id": b, "id": a}),
            (lambda: definitions.ancestors(session, a), {"id": a, "max_depth": everything}),
            (lambda: definitions.descendants(session, b), {"id": b, "max_depth": everything}),
            (lambda: definitions.siblings(session, a), {"id": a}),
            (lambda: definitions.root(session, a), {"id": a}),
        ):
            assert read_and_dropped(session, walk, **parameters) < 20


# ------------------------------------------------------------------------------------------------------------- by generation


@pytest.mark.property
@pytest.mark.requirement("VR-065", "VR-066", "VR-067")
@given(shapes(), st.none() | st.integers(0, 4))
@generated
def test_walks_equal_the_naive_ones(session: Session, shape: list[tuple[int, int]], levels: int | None) -> None:
    """Up, down, nested, beside: for every version of a forest, whole and to a number of levels."""
    forest = plant(session, shape)
    for id, parent in forest.parents.items():
        up = forest.up(id)[::-1]
        nearest = [other for other in up[:-1] if levels is None or forest.depth(id) - forest.depth(other) <= levels]
        assert ids(definitions.ancestors(session, id, include_self=True)) == up
        assert ids(definitions.ancestors(session, id, max_depth=levels)) == nearest
        below = [other for other in forest.below(id) if levels is None or forest.depth(other) - forest.depth(id) <= levels]
        assert ids(definitions.descendants(session, id, max_depth=levels)) == below
        assert nested(definitions.tree(session, id, max_depth=levels)) == forest.nested(id, levels)
        assert definitions.root(session, id).id == up[0]
        assert definitions.depth(session, id) == len(up) - 1
        siblings = [] if parent is None else [other for other in forest.children(parent) if other != id]
        assert ids(definitions.siblings(session, id)) == siblings


@pytest.mark.property
@given(shapes(12))
@generated
def test_what_lies_between_equals_the_naive_walk(session: Session, shape: list[tuple[int, int]]) -> None:
    """Merge base, lineage and is_ancestor of every pair of a forest."""
    forest = plant(session, shape)
    for a, b in itertools.product(forest.parents, repeat=2):
        base = forest.merge_base(a, b)
        found = definitions.merge_base(session, a, b)
        assert (None if found is None else found.id) == base
        assert definitions.is_ancestor(session, a, b) == (a in forest.up(b)[1:])
        lineage = ids(definitions.lineage(session, a, b))
        if base is None:
            assert lineage == []
        else:
            up, down = forest.up(a), forest.up(b)
            assert lineage == [*up[: up.index(base)], base, *reversed(down[: down.index(base)])]


@pytest.mark.property
@given(shapes())
@generated
def test_ancestors_is_the_inverse_of_descendants(session: Session, shape: list[tuple[int, int]]) -> None:
    """One descends from another exactly when the other is among its ancestors."""
    forest = plant(session, shape)
    above = {(id, other) for id in forest.parents for other in ids(definitions.ancestors(session, id))}
    below = {(other, id) for id in forest.parents for other in ids(definitions.descendants(session, id))}
    assert above == below


# ------------------------------------------------------------------------------------------------------- whatever is attempted


class Versions(RuleBasedStateMachine):
    """
    Definitions made, forked, edited, frozen and deleted by the functions, and attacked with SQL.

    Beside the database a plain model keeps who the parent of each is, and what was frozen.
    """

    session: ClassVar[Session]

    def __init__(self) -> None:
        super().__init__()
        self.forest = Forest()
        self.hashes: dict[UUID, bytes] = {}

    def _one(self, data: st.DataObject) -> UUID:
        return data.draw(st.sampled_from(list(self.forest.parents)))

    def _note(self, made: Definition) -> None:
        self.forest.parents[made.id] = made.parent_id

    def _refused(self, statement: str, **values: object) -> None:
        with pytest.raises(IntegrityError), self.session.begin_nested():
            self.session.execute(text(statement), values)

    @initialize()
    def begin(self) -> None:
        """There is always one."""
        self.session.execute(text("DELETE FROM stemma.definitions"))
        self._note(make(self.session))

    @rule(content=contents())
    def plant_root(self, content: DefinitionContent) -> None:
        """A new tree."""
        self._note(make(self.session, content=content))

    @rule(data=st.data(), content=st.none() | contents())
    def fork(self, data: st.DataObject, content: DefinitionContent | None) -> None:
        """A child freezes its parent."""
        parent_id = self._one(data)
        child = definitions.fork(self.session, parent_id, DefinitionFork(content=content))
        self._note(child)
        self.hashes.setdefault(parent_id, definitions.get(self.session, parent_id).content_hash or b"")

    @rule(data=st.data())
    def freeze(self, data: st.DataObject) -> None:
        """By hand."""
        frozen = definitions.freeze(self.session, self._one(data))
        self.hashes.setdefault(frozen.id, frozen.content_hash or b"")

    @rule(data=st.data(), content=contents())
    def edit(self, data: st.DataObject, content: DefinitionContent) -> None:
        """Possible until frozen."""
        id = self._one(data)
        if id in self.hashes:
            with pytest.raises(FrozenError):
                definitions.update(self.session, id, DefinitionUpdate(content=content))
        else:
            definitions.update(self.session, id, DefinitionUpdate(content=content))
        definitions.update(self.session, id, DefinitionUpdate(message="for ever"))

    @precondition(lambda self: len(self.forest.parents) > 1)
    @rule(data=st.data(), subtree=st.booleans())
    def delete(self, data: st.DataObject, subtree: bool) -> None:
        """A version with children only together with them."""
        id = self._one(data)
        below = [other for other in self.forest.parents if id in self.forest.up(other)[1:]]
        if below and not subtree:
            with pytest.raises(StillReferencedError):
                definitions.delete(self.session, id)
            return
        if len(below) + 1 == len(self.forest.parents):
            return
        assert definitions.delete(self.session, id, subtree=subtree) == len(below) + 1
        for gone in [id, *below]:
            del self.forest.parents[gone]
            self.hashes.pop(gone, None)

    @rule(data=st.data())
    def move(self, data: st.DataObject) -> None:
        """SQL cannot give a version another parent, root or depth, not even all at once."""
        id, target = self._one(data), self._one(data)
        for change in ("parent_id = :target", "root_id = :target", "depth = depth + 1", "parent_id = NULL, root_id = id, depth = 0"):
            unchanged = {"parent_id = :target": self.forest.parents[id] == target, "root_id = :target": self.forest.up(id)[-1] == target}
            if not unchanged.get(change, "NULL" in change and self.forest.parents[id] is None):
                self._refused(f"UPDATE stemma.definitions SET {change} WHERE id = :id", id=id, target=target)

    @rule(data=st.data(), root=st.data(), deeper=st.integers(-1, 3))
    def insert(self, data: st.DataObject, root: st.DataObject, deeper: int) -> None:
        """SQL can insert a child in its parent's tree one level below it, and nowhere else."""
        parent_id, root_id = self._one(data), self._one(root)
        values = {"id": uuid7(), "parent_id": parent_id, "root_id": root_id, "depth": self.forest.depth(parent_id) + deeper}
        columns = "id, parent_id, root_id, depth, name, content"
        statement = f"INSERT INTO stemma.definitions ({columns}) VALUES (:id, :parent_id, :root_id, :depth, 'x', '{{}}')"
        if deeper == 1 and self.forest.up(parent_id)[-1] == root_id:
            self.session.execute(text(statement), values)
            self.forest.parents[values["id"]] = parent_id
        else:
            self._refused(statement, **values)

    @rule(data=st.data(), length=st.integers(1, 4))
    def insert_cycle(self, data: st.DataObject, length: int) -> None:
        """Not even one statement can insert a ring, below a version or beside all."""
        root_id = data.draw(st.none() | st.sampled_from(list(self.forest.parents)))
        ring = [uuid7() for _ in range(length)]
        rows = ", ".join(
            f"('{id}', '{ring[place - 1]}', '{root_id or ring[0]}', {place + 1}, 'x', '{{}}')" for place, id in enumerate(ring)
        )
        self._refused(f"INSERT INTO stemma.definitions (id, parent_id, root_id, depth, name, content) VALUES {rows}")

    @rule(data=st.data())
    def overwrite(self, data: st.DataObject) -> None:
        """SQL cannot change what is frozen, nor thaw it."""
        frozen = [id for id in self.hashes if id in self.forest.parents]
        if frozen:
            id = data.draw(st.sampled_from(frozen))
            for change in ('content = \'{"preamble": "other"}\'', "name = 'other'", "frozen_at = NULL"):
                self._refused(f"UPDATE stemma.definitions SET {change} WHERE id = :id", id=id)

    @invariant()
    def places_are_those_of_a_naive_walk(self) -> None:
        """root_id and depth of every row follow from the parents; what was frozen is what it was."""
        found = self.session.execute(text("SELECT id, parent_id, root_id, depth, content_hash FROM stemma.definitions")).all()
        assert {row.id: row.parent_id for row in found} == self.forest.parents
        for row in found:
            up = self.forest.up(row.id)
            assert (row.root_id, row.depth) == (up[-1], len(up) - 1)
            assert self.hashes.get(row.id, row.content_hash) == row.content_hash


@pytest.mark.property
@pytest.mark.requirement("AD-003", "AD-028", "VR-042")
def test_nothing_bends_a_tree_or_changes_what_is_frozen(session: Session) -> None:
    """No sequence of functions and SQL statements makes root_id or depth wrong, closes a cycle, or changes a frozen content."""
    machine = type("SessionVersions", (Versions,), {"session": session})
    run_state_machine_as_test(machine, settings=settings(generated, max_examples=25, stateful_step_count=25))
