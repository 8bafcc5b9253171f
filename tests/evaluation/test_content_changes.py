"""Diff, blame, merge and bisect: against what a walk in plain Python says, on generated contents and lines."""

import copy
import itertools
import math
import random
import time
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.orm import Session
from tests.evaluation.version_trees import CONTENT, chain, contents, make, naive_blame, plant, raw_objects, shapes

from stemmadb.documents import Document, Raw, set_write_version
from stemmadb.entity import uuid7
from stemmadb.errors import CorruptDocumentError, NotFoundError, UnknownSchemaVersionError, ValidationError
from stemmadb.evaluation import _list_alignment, definitions
from stemmadb.evaluation._blaming import blame_values
from stemmadb.evaluation._changes import _CONTENTS_OF_LINE, _CONTENTS_TO_MERGE
from stemmadb.evaluation._lineage import _ANCESTORS, _LINEAGE, _MERGE_BASE
from stemmadb.evaluation._list_alignment import differing
from stemmadb.evaluation._merging import merge_documents
from stemmadb.evaluation._patches import changes_between, document_of, leaves, make_changes, same, values_of
from stemmadb.evaluation.definitions import ABSENT, Change, ContentDiff, DefinitionFork, MergeConflict
from stemmadb.evaluation.documents import DefinitionContent, Dimension, DimensionLevel
from stemmadb.tenancy import workspace_of
from stemmadb.testing import assert_max_queries

generated = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
stored = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])

AGE, ROLE, COUNT = (Dimension(name=name, values=("1", "2")) for name in ("age", "role", "count"))


def fork(session: Session, parent_id: UUID, **changes: Any) -> UUID:
    """A fork whose content differs so from its parent's."""
    content = definitions.get_with_content(session, parent_id).content.replace(**changes)
    return definitions.fork(session, parent_id, DefinitionFork(content=content)).id


# ---------------------------------------------------------------------------------------------------------------------- diff


def test_diff_names_the_places(session: Session) -> None:
    """Changes at JSON Pointers, with what was there and what is there; one statement, also across trees."""
    a = make(session, content=CONTENT.replace(dimensions=(AGE, ROLE), **{"a/b": 1}))
    b = make(
        session, content=CONTENT.replace(template="Other", dimensions=(COUNT, AGE, ROLE.replace(values=("1",))), matching_rules=("any",))
    )
    with assert_max_queries(1):
        found = definitions.diff(session, a.id, b.id)
    assert found.changes == [
        Change("remove", "/a~1b", old=1),
        Change("add", "/dimensions/0", new={"name": "count", "values": ["1", "2"], "levels": []}),
        Change("remove", "/dimensions/2/values/1", old="2"),
        Change("add", "/matching_rules/0", new="any"),
        Change("replace", "/template", old=CONTENT.template, new="Other"),
    ]
    assert definitions.diff(session, a.id, a.id) == ContentDiff([])


@pytest.mark.offline
def test_a_diff_of_lists_is_short() -> None:
    """What was inserted, removed or edited in one place is one change, wherever it is."""

    def diff(old: list[Any], new: list[Any]) -> list[tuple[str, str]]:
        return [(change.op, change.pointer) for change in changes_between({"x": old}, {"x": new})]

    assert diff([1, 2, 3], [0, 1, 2, 3]) == [("add", "/x/0")]
    assert diff([1, 2, 3], [1, 3]) == [("remove", "/x/1")]
    assert diff([1, 2, 3, 4], [1, 4]) == [("remove", "/x/2"), ("remove", "/x/1")]
    assert diff([1, {"a": [1]}, 3], [1, {"a": [2]}, 3]) == [("replace", "/x/1/a/0")]
    assert diff([1], [True]) == [("replace", "/x/0")]
    assert diff([1, 1], [1]) == [("remove", "/x/1")]
    assert diff([], [1, 2]) == [("add", "/x/0"), ("add", "/x/1")]
    assert diff([1, 2, 3, 4, 5], [0, 1, 2, 9, 4]) == [("add", "/x/0"), ("replace", "/x/3"), ("remove", "/x/5")]
    a, b, c = ({"name": name, "x": 1} for name in "abc")
    assert diff([a, b, c], [b | {"x": 2}, c]) == [("remove", "/x/0"), ("replace", "/x/0/x")]
    assert diff([a, b], [a, c]) == [("replace", "/x/1/name")]
    assert diff([{"id": 1}, {"id": True}], [{"id": True, "y": 1}]) == [("remove", "/x/0"), ("add", "/x/0/y")]


@pytest.mark.offline
@pytest.mark.parametrize("kind", ["other", "inserted", "half", "two values"])
def test_long_lists_are_compared_in_a_moment(kind: str) -> None:
    """Beyond some hundred edits of 10,000 items only what a list holds once is found again; the result is as right."""
    chance = random.Random(1)
    old: list[Any] = [{"x": [place]} for place in range(10_000)]
    new = {
        "other": old[:100] + [{"y": item["x"]} for item in old[100:]],
        "inserted": [0, *old[:5_000], 1, *old[5_010:]],
        "half": [item if chance.random() < 0.5 else item["x"][0] for item in old],
        "two values": [chance.choice("ab") for _ in old],
    }[kind]
    old = [chance.choice("ab") for _ in old] if kind == "two values" else old
    started = time.monotonic()
    changes = changes_between({"x": old}, {"x": new})
    assert time.monotonic() - started < 10
    assert same(make_changes({"x": copy.deepcopy(old)}, changes), {"x": new})
    if kind == "inserted":
        assert len(changes) == 11
    if kind == "half":
        assert len(changes) == sum(isinstance(item, int) for item in new)


def test_contents_are_compared_in_their_newest_shape(session: Session) -> None:
    """An old document and what it is read as do not differ; a newer or broken one cannot be compared, and the error names it."""
    insert = text("INSERT INTO stemma.definitions (name, content) VALUES ('x', CAST(:content AS jsonb)) RETURNING id")
    old, newer, broken = (
        session.execute(insert, {"content": content}).scalar_one()
        for content in ('{"preamble": "p"}', '{"schema_version": 9}', '{"preamble": 1}')
    )
    new = make(session, content=DefinitionContent(preamble="p", template=""))
    assert definitions.diff(session, old, new.id).changes == []
    for id, error in ((newer, UnknownSchemaVersionError), (broken, CorruptDocumentError)):
        with pytest.raises(error) as caught:
            definitions.diff(session, new.id, id)
        assert caught.value.key == id


class Remark(Document, version=2):
    """A document that says more than its older version can hold."""

    text: str
    author: str | None = None


@Remark.upcast(0)
@Remark.upcast(1)
def _same(raw: Raw) -> Raw:
    return raw


@Remark.downcast(2)
def _without_author(raw: Raw) -> Raw:
    return {"text": raw["text"]}


@pytest.mark.offline
def test_the_newest_shape_is_compared_whatever_is_written() -> None:
    """During a rollout older documents are stored, and still what was changed in memory is all there."""
    a, b = Remark(text="a", author="Ada"), Remark(text="a", author="Bob")
    set_write_version(Remark, 1)
    try:
        assert a.dump() == b.dump()
        diff = ContentDiff(changes_between(values_of(a), values_of(b)))
        assert diff.changes == [Change("replace", "/author", old="Ada", new="Bob")]
        assert diff.apply(a) == b
    finally:
        set_write_version(Remark, None)


@pytest.mark.property
@pytest.mark.offline
@given(contents(), contents())
@example(CONTENT.replace(x=1), CONTENT.replace(x=True))
@example(CONTENT.replace(x=1), CONTENT.replace(x=1.0))
@generated
def test_a_diff_leads_from_one_to_the_other(a: DefinitionContent, b: DefinitionContent) -> None:
    """diff(a, b).apply(a) == b, down to the type of each number, and it is empty exactly when nothing differs."""
    old, new = values_of(a), values_of(b)
    diff = ContentDiff(changes_between(old, new))
    made = diff.apply(a)
    assert made == b
    assert same(values_of(made), new)
    assert (diff.changes == []) == same(old, new)
    assert same(values_of(a), old)
    assert not any(change.op == "replace" and same(change.old, change.new) for change in diff.changes)


@pytest.mark.property
@pytest.mark.offline
@given(raw_objects(), raw_objects())
@example({"x": [1, 1.0, True, None]}, {"x": [True, 1, 1.0]})
@example({"~1": {"0": 1}, "": [[]]}, {"/": {"-": 1}, "": [{}]})
@example({"x": None}, {})
@generated
def test_a_diff_of_any_json(a: dict[str, Any], b: dict[str, Any]) -> None:
    """Also without a shape: null is not absent, 1 is neither 1.0 nor true, and keys are what they are."""
    changes = changes_between(a, b)
    assert same(make_changes(copy.deepcopy(a), changes), b)
    assert same(make_changes(copy.deepcopy(b), changes_between(b, a)), a)
    assert (changes == []) == same(a, b)


@pytest.mark.property
@given(contents(), contents())
@stored
def test_diff_of_what_is_stored(session: Session, a: DefinitionContent, b: DefinitionContent) -> None:
    """The same through the database, text that jsonb cannot hold included."""
    diff = definitions.diff(session, make(session, content=a).id, make(session, content=b).id)
    assert diff.apply(a) == b
    assert diff == ContentDiff(changes_between(values_of(a), values_of(b)))


@pytest.mark.offline
@pytest.mark.parametrize(
    "change",
    [
        Change("replace", "/preamble", old="something else", new="x"),
        Change("remove", "/nothing", old=1),
        Change("add", "/preamble", new="x"),
        Change("add", "/dimensions/2", new={}),
        Change("add", "/dimensions/-1", new={}),
        Change("remove", "/dimensions/1", old=None),
        Change("replace", "/dimensions/0/nothing/below", old=1, new=2),
        Change("replace", "/preamble/0", old="Y", new="y"),
        Change("replace", "", old=None, new={}),
        Change("replace", "preamble", old=CONTENT.preamble, new="x"),
        Change("replace", "preamble/template", old=CONTENT.template, new="x"),
        Change("remove", "/dimensions/00", old=values_of(AGE)),
        Change("remove", "/dimensions/" + "9" * 5000, old=None),
    ],
)
def test_a_diff_does_not_apply_to_another_document(change: Change) -> None:
    """A place that is missing, taken, or holds something else: a ValidationError that names the place, and the document is as it was."""
    document = CONTENT.replace(dimensions=(AGE,))
    before = values_of(document)
    with pytest.raises(ValidationError) as caught:
        ContentDiff([change]).apply(document)
    assert caught.value.field == change.pointer
    assert values_of(document) == before


# --------------------------------------------------------------------------------------------------------------------- blame


def test_blame_names_the_version(session: Session) -> None:
    """The last that changed each value, with author and time; schema_version is none. One statement."""
    root = make(session, content=CONTENT.replace(dimensions=(AGE,)))
    middle = fork(session, root.id, template="Second")
    leaf = fork(session, middle, dimensions=(AGE.replace(values=("1", "3")),))
    with assert_max_queries(1):
        found = definitions.blame(session, leaf)
    assert [(entry.pointer, entry.definition_id) for entry in found] == [
        ("/dimensions/0/levels", root.id),
        ("/dimensions/0/name", root.id),
        ("/dimensions/0/values/0", root.id),
        ("/dimensions/0/values/1", leaf),
        ("/matching_rules", root.id),
        ("/preamble", root.id),
        ("/template", middle),
    ]
    assert (found[0].created_at, found[0].created_by_id) == (root.created_at, None)


def test_blame_follows_items_of_lists(session: Session) -> None:
    """Behind what was inserted or removed an item is what it was, whatever its place; with names also when something in it changed."""
    rules = ("a", "b", "c")
    first = make(session, content=CONTENT.replace(matching_rules=rules, dimensions=(AGE, ROLE), x=[]))
    front = fork(session, first.id, matching_rules=("new", *rules), dimensions=(COUNT, AGE, ROLE), x=[1])
    inside = fork(session, front, matching_rules=("new", "a", "c"), dimensions=(COUNT, AGE.replace(values=("0", "1")), ROLE), x=[])
    found = {entry.pointer: entry.definition_id for entry in definitions.blame(session, inside)}
    assert [found[f"/matching_rules/{place}"] for place in range(3)] == [front, first.id, first.id]
    assert [found[f"/dimensions/{place}/name"] for place in range(3)] == [front, first.id, first.id]
    assert (found["/dimensions/1/values/0"], found["/dimensions/1/values/1"]) == (inside, first.id)
    # It was empty before, but not in between.
    assert found["/x"] == inside


@pytest.mark.property
@pytest.mark.offline
@given(st.lists(raw_objects(), min_size=1, max_size=6))
@example([{"x": [1, 2, 3]}, {"x": [0, 1, 2, 3]}, {"x": [0, 3, 1, 2]}])
@example([{"x": {}}, {"x": {"a": 1}}, {"x": {}}])
@example([{"x": [{"name": "a", "y": 1}, {"name": "b"}]}, {"x": [{"name": "b"}, {"name": "a", "y": 2}]}])
@settings(generated, max_examples=100)
def test_blame_equals_the_naive_walk(line: list[dict[str, Any]]) -> None:
    """For each value of any JSON: what the difference from the document before leaves alone keeps its version."""
    versions = [(uuid7(), {"schema_version": 1} | values) for values in line]
    found = blame_values(versions)
    assert found.keys() == leaves(versions[-1][1]).keys()
    del found["/schema_version"]
    assert found == naive_blame(versions)


@pytest.mark.property
@pytest.mark.requirement("VR-065")
@given(shapes(12), st.data())
@stored
def test_blame_and_merge_base_equal_the_naive_walks(session: Session, shape: list[tuple[int, int]], data: st.DataObject) -> None:
    """On generated forests, wherever one stands: down from the root with what changed; up to where both ways meet."""
    said = [data.draw(contents()) for _ in shape]
    forest = plant(session, shape, said)
    values = {id: values_of(content) for id, content in zip(forest.parents, said, strict=True)}
    id, other = (data.draw(st.sampled_from(list(forest.parents))) for _ in range(2))
    expected = naive_blame([(above, values[above]) for above in reversed(forest.up(id))])
    found = definitions.blame(session, id)
    assert {entry.pointer: entry.definition_id for entry in found} == expected
    assert [entry.pointer for entry in found] == sorted(expected)
    base = definitions.merge_base(session, id, other)
    assert (None if base is None else base.id) == forest.merge_base(id, other)


@pytest.mark.property
@pytest.mark.offline
@given(st.lists(st.integers(0, 5), max_size=12), st.lists(st.integers(0, 5), max_size=12), st.sampled_from([2, 500]))
@settings(generated, max_examples=100)
def test_lists_differ_in_the_fewest_items(old: list[int], new: list[int], most: int) -> None:
    """What is equal is the longest common sequence; with fewer edits to be looked for it is less, and as right."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_list_alignment, "_MOST_EDITS", most)
        parts = differing(old, new)
    end, new_end, equal = 0, 0, 0
    for start, part_end, new_start, new_part_end in [*parts, (len(old), len(old), len(new), len(new))]:
        assert old[end:start] == new[new_end:new_start]
        equal += start - end
        end, new_end = part_end, new_part_end
    longest = {(-1, place): 0 for place in range(-1, len(new))} | {(place, -1): 0 for place in range(len(old))}
    for a, b in itertools.product(range(len(old)), range(len(new))):
        longest[a, b] = longest[a - 1, b - 1] + 1 if old[a] == new[b] else max(longest[a - 1, b], longest[a, b - 1])
    best = longest[len(old) - 1, len(new) - 1]
    assert equal == best if most == 500 else equal <= best


def test_a_thousand_levels(session: Session) -> None:
    """Every function about contents works at that depth, in one statement, and bisect within ten runs."""
    said = [CONTENT.replace(template=f"{place // 100}", x=[place]) for place in range(1000)]
    line = list(plant(session, [(place, 0) for place in range(-1, 999)], said).parents)
    with assert_max_queries(1):
        blamed = {entry.pointer: entry.definition_id for entry in definitions.blame(session, line[-1])}
    assert (blamed["/preamble"], blamed["/template"], blamed["/x/0"]) == (line[0], line[900], line[999])
    with assert_max_queries(1):
        assert len(definitions.diff(session, line[0], line[-1]).changes) == 2
    fork_id = fork(session, line[0], preamble="Other")
    with assert_max_queries(1):
        merged = definitions.merge(session, line[-1], fork_id)
    assert merged.content == said[-1].replace(preamble="Other")
    results: dict[UUID, bool] = {}
    while (run := definitions.bisect(session, good_id=line[0], bad_id=line[-1], results=results)) is not None:
        results[run.id] = line.index(run.id) < 618
    assert len(results) <= 10
    assert next(id for id in line if results.get(id) is False) == line[618]


def test_walks_look_up_each_parent_by_its_key(session: Session) -> None:
    """Also before the table was analyzed, when PostgreSQL expects few rows: else each level reads the whole workspace."""
    line = list(plant(session, [(place, 0) for place in range(-1, 999)]).parents)
    workspace_id = workspace_of(session)
    values = {"id": line[-1], "a_id": line[0], "b_id": line[-1], "ancestor_id": line[0], "max_depth": 2000, "workspace_id": workspace_id}
    for statement in (_CONTENTS_OF_LINE.text, _CONTENTS_TO_MERGE.text, _LINEAGE._text, _MERGE_BASE._text, _ANCESTORS._text):
        explain = text(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}")
        (plan,) = session.execute(explain, {name: value for name, value in values.items() if f":{name}" in explain.text}).scalar_one()
        walk = next(node for node in _nodes(plan["Plan"]) if node["Node Type"] == "Recursive Union")
        assert max(node["Actual Rows"] for node in _nodes(walk) if node.get("Relation Name") == "definitions") <= 1


def _nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for below in plan.get("Plans", ()) for node in _nodes(below))]


# --------------------------------------------------------------------------------------------------------------------- merge


def test_merge_takes_what_each_side_changed(session: Session) -> None:
    """One statement, nothing is written, and the result can be forked with."""
    root = make(session, content=CONTENT.replace(dimensions=(AGE, ROLE)))
    ours = fork(session, root.id, template="Ours", dimensions=(AGE.replace(values=("9",)), ROLE))
    theirs = fork(session, root.id, preamble="Theirs", dimensions=(AGE, ROLE, COUNT))
    with assert_max_queries(1):
        merged = definitions.merge(session, ours, theirs)
    assert merged.conflicts == []
    assert merged.content == DefinitionContent(preamble="Theirs", template="Ours", dimensions=(AGE.replace(values=("9",)), ROLE, COUNT))
    assert definitions.list_all(session, with_total=True).total == 3


def test_merge_shows_conflicts(session: Session) -> None:
    """Each place that both changed differently, with all three values; then there is no content."""
    root = make(session)
    ours, theirs = fork(session, root.id, template="Ours", x=1), fork(session, root.id, template="Theirs", x=2)
    merged = definitions.merge(session, ours, theirs)
    assert merged.content is None
    assert merged.conflicts == [MergeConflict("/template", CONTENT.template, "Ours", "Theirs"), MergeConflict("/x", ABSENT, 1, 2)]


def test_merge_along_a_line_and_across_trees(session: Session) -> None:
    """With its ancestor a version stays what it is; without a common ancestor whatever differs is a conflict."""
    root = make(session)
    leaf = fork(session, root.id, template="Leaf")
    for pair in ((root.id, leaf), (leaf, root.id), (leaf, leaf)):
        merged = definitions.merge(session, *pair)
        assert merged.content == CONTENT.replace(template="Leaf")
    stranger = make(session, content=CONTENT.replace(template="Stranger"))
    assert [conflict.pointer for conflict in definitions.merge(session, leaf, stranger.id).conflicts] == ["/template"]
    with pytest.raises(NotFoundError):
        definitions.merge(session, leaf, uuid4())


@pytest.mark.offline
@pytest.mark.parametrize(
    ("base", "ours", "theirs", "merged"),
    [
        ([1, 2, 3], [0, 1, 2, 3], [1, 2, 4], [0, 1, 2, 4]),
        ([1, 2, 3], [2, 3], [1, 2], [2]),
        ([1, 2], [1, 2, 3], [1, 2, 4], None),
        ([1, 2], [1, 2, 3], [1, 2, 3], [1, 2, 3]),
        ([1, 2, 3], [9, 2, 8], [1, 7, 3], [9, 7, 8]),
        ([1, 2, 3], [9, 2, 3], [8, 2, 3], None),
        ([1, 2, 3, 4], [1, 4], [1, 2, 9, 4], None),
        ([1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5, 6], [1, 2, 9, 4, 5], [0, 1, 2, 9, 4, 5, 6]),
        ([1, 2, 3], [0, 1, 2, 4], [0, 1, 2, 3, 5], [0, 1, 2, 4, 5]),
        ([1, 2, 3], [0, 1, 2, 4], [0, 5, 1, 9, 3], None),
        ([1, 2, 3, 4], [0, 1, 2, 3, 5], [0, 1, 9, 3, 4], [0, 1, 9, 3, 5]),
        ([1], [2], [], None),
        (
            [{"name": "a", "x": 1, "y": 1}],
            [{"name": "a", "x": 2, "y": 1}],
            [{"name": "a", "x": 1, "y": 2}],
            [{"name": "a", "x": 2, "y": 2}],
        ),
        ([{"name": "a", "y": 1}], [{"name": "b", "y": 1}], [{"name": "a", "y": 2}], None),
        (
            [{"name": "a"}, {"name": "b"}],
            [{"name": "b"}, {"name": "a"}],
            [{"name": "a", "x": 1}, {"name": "b"}],
            [{"name": "b"}, {"name": "a", "x": 1}],
        ),
        ([{"name": "a"}, {"name": "b"}], [{"name": "b"}, {"name": "a"}], [{"name": "a"}, {"name": "b", "x": 1}], None),
    ],
)
def test_merge_of_lists(base: Any, ours: Any, theirs: Any, merged: Any) -> None:
    """Separate parts merge; the same part only item by item, and never into an item that one side renamed or removed. None: a conflict."""
    found, conflicts = merge_documents({"x": base}, {"x": ours}, {"x": theirs})
    assert bool(conflicts) == (merged is None)
    if merged is not None:
        assert found == {"x": merged}


@pytest.mark.property
@pytest.mark.offline
@given(contents(), contents(), contents())
@generated
def test_merge_keeps_to_three_ways(base: DefinitionContent, ours: DefinitionContent, theirs: DefinitionContent) -> None:
    """One side unchanged: the other. Both alike: that. Sides exchanged: the same content, or the same conflicts mirrored."""
    b, o, t = (values_of(content) for content in (base, ours, theirs))
    assert same(merge_documents(b, o, b)[0], o)
    assert same(merge_documents(b, b, t)[0], t)
    assert same(merge_documents(b, o, o)[0], o)
    merged, conflicts = merge_documents(b, o, t)
    mirrored, other = merge_documents(b, t, o)
    assert other == [MergeConflict(item.pointer, item.base, item.theirs, item.ours) for item in conflicts]
    if not conflicts:
        assert same(merged, mirrored)
        assert isinstance(document_of(DefinitionContent, merged), DefinitionContent)
    for key in b.keys() | o.keys() | t.keys():
        # What one side alone changed is there; what both left alone stays.
        values = [side.get(key, "absent") for side in (b, o, t)]
        if same(values[0], values[2]) or same(values[1], values[2]):
            assert same(merged.get(key, "absent"), values[1])
        elif same(values[0], values[1]):
            assert same(merged.get(key, "absent"), values[2])


@pytest.mark.property
@pytest.mark.offline
@given(contents(), st.data())
@generated
def test_changes_of_separate_keys_always_merge(base: DefinitionContent, data: st.DataObject) -> None:
    """Both sides' changes are in the result when no key was changed by both."""
    other = values_of(data.draw(contents()))
    keys = sorted(other)
    ours_has = {key for key in keys if data.draw(st.booleans())}
    b = values_of(base)
    ours, theirs = ({**b, **{key: other[key] for key in chosen}} for chosen in (ours_has, set(keys) - ours_has))
    merged, conflicts = merge_documents(b, ours, theirs)
    assert conflicts == []
    assert same(merged, {**b, **other})


# -------------------------------------------------------------------------------------------------------------------- bisect


@pytest.mark.property
@given(st.integers(1, 40), st.data())
@stored
def test_bisect_finds_the_first_bad_version(session: Session, count: int, data: st.DataObject) -> None:
    """Within log2(n) runs, rounded up, of n versions below the good one; each of them is run once at most."""
    line = list(plant(session, [(place, 0) for place in range(-1, count)]).parents)
    first_bad = data.draw(st.integers(1, count))
    results: dict[UUID, bool] = {}
    with assert_max_queries(math.ceil(math.log2(count)) + 1):
        while (run := definitions.bisect(session, good_id=line[0], bad_id=line[-1], results=results)) is not None:
            assert run.id not in results
            results[run.id] = line.index(run.id) < first_bad
    assert len(results) <= math.ceil(math.log2(count))
    bad = [id for id in line if results.get(id, True) is False]
    assert (bad[0] if bad else line[-1]) == line[first_bad]


def test_bisect_uses_what_is_known(session: Session) -> None:
    """Results in any order count, those of other versions do not; a good one after a bad one does not mislead."""
    line = [definition.id for definition in chain(session, 9)]
    results = {line[6]: False, line[2]: True, line[7]: True, uuid4(): True}
    found = definitions.bisect(session, good_id=str(line[0]), bad_id=line[-1], results=results)
    assert found is not None
    assert found.id == line[4]
    done = definitions.bisect(session, good_id=line[0], bad_id=line[-1], results={line[3]: True, line[4]: False})
    assert done is None


def test_bisect_needs_a_line(session: Session) -> None:
    """The bad version descends from the good one; else a ValidationError."""
    root, child = chain(session, 2)
    sibling = definitions.fork(session, root.id)
    stranger = make(session)
    assert definitions.bisect(session, good_id=root.id, bad_id=child.id) is None
    for good, bad in ((child, root), (child, child), (child, sibling), (stranger, child)):
        with pytest.raises(ValidationError):
            definitions.bisect(session, good_id=good.id, bad_id=bad.id)
    with pytest.raises(NotFoundError):
        definitions.bisect(session, good_id=root.id, bad_id=uuid4())


@pytest.mark.property
@given(shapes(10), st.data())
@stored
def test_merge_base_is_what_merge_uses(session: Session, shape: list[tuple[int, int]], data: st.DataObject) -> None:
    """For any two versions of generated forests the content is that of a merge against the naive merge base."""
    forest = plant(session, shape)
    ids = list(forest.parents)
    said = {id: CONTENT.replace(template=data.draw(st.sampled_from("abc")), x=data.draw(st.sampled_from([1, 2]))) for id in ids}
    for id, content in said.items():
        statement = text("UPDATE stemma.definitions SET content = CAST(:content AS jsonb) WHERE id = :id")
        session.execute(statement, {"id": id, "content": content.model_dump_json()})
    ours, theirs = data.draw(st.sampled_from(ids)), data.draw(st.sampled_from(ids))
    base = forest.merge_base(ours, theirs)
    merged, conflicts = merge_documents({} if base is None else values_of(said[base]), values_of(said[ours]), values_of(said[theirs]))
    found = definitions.merge(session, ours, theirs)
    assert found.conflicts == conflicts
    assert found.content == (None if conflicts else document_of(DefinitionContent, merged))


@pytest.mark.offline
def test_levels_are_known_by_their_label() -> None:
    """Both sides may edit one level of one dimension, in different fields."""
    level = DimensionLevel(score=1, label="low", description="few")
    base = CONTENT.replace(dimensions=(AGE.replace(levels=(level,)),))
    ours = CONTENT.replace(dimensions=(AGE.replace(levels=(level.replace(score=2),)),))
    theirs = CONTENT.replace(dimensions=(AGE.replace(levels=(level.replace(description="none"),)),))
    merged, conflicts = merge_documents(*(values_of(content) for content in (base, ours, theirs)))
    assert conflicts == []
    assert merged["dimensions"][0]["levels"] == [{"score": 2, "label": "low", "description": "none"}]
