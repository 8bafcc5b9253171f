"""The three-way merge: what is merged by name, and how conflicts are decided."""

import pickle
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import model_validator
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from tests.evaluation.version_trees import CONTENT, contents, make, raw_objects

from stemmadb.aio.evaluation import definitions as aio_definitions
from stemmadb.documents import Document
from stemmadb.errors import ValidationError
from stemmadb.evaluation import _changes, _lineage_data, definitions
from stemmadb.evaluation._changes import _merged
from stemmadb.evaluation._merging import merge_documents
from stemmadb.evaluation._patches import same, values_of
from stemmadb.evaluation.definitions import ABSENT, DefinitionCreate, DefinitionFork, MergeConflict
from stemmadb.evaluation.documents import DefinitionContent, Dimension
from stemmadb.testing import assert_max_queries

generated = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])

AGE, ROLE, COUNT = (Dimension(name=name, values=("1", "2")) for name in ("age", "role", "count"))


def fork(session: Session, parent_id: UUID, **changes: Any) -> UUID:
    """A fork whose content differs so from its parent's."""
    content = definitions.get_with_content(session, parent_id).content.replace(**changes)
    return definitions.fork(session, parent_id, DefinitionFork(content=content)).id


# ------------------------------------------------------------------------------------------------------------------- by name


@pytest.mark.offline
@pytest.mark.parametrize(
    ("base", "ours", "theirs", "merged"),
    [
        # Both edit one item, in different fields, and one of the two adds another.
        ([{"name": "a"}], [{"name": "a", "x": 1}], [{"name": "a", "y": 2}, {"name": "b"}], [{"name": "a", "x": 1, "y": 2}, {"name": "b"}]),
        # One removes an item that the other left alone.
        ([{"id": 1}, {"id": 2}], [{"id": 1, "x": 1}], [{"id": 1, "y": 2}, {"id": 2}], [{"id": 1, "x": 1, "y": 2}]),
        # One removes what the other edits.
        ([{"id": 1}, {"id": 2}], [{"id": 1, "x": 1}], [{"id": 1, "y": 2}, {"id": 2, "y": 2}], None),
        # Both add at the same place, so nobody knows the order.
        ([{"id": 1}], [{"id": 1, "x": 1}, {"id": 2}], [{"id": 1, "x": 2}, {"id": 3}], None),
        # The same item, added at two places.
        ([{"id": 1}, {"id": 2}], [{"id": 9}, {"id": 1}, {"id": 2}], [{"id": 1, "x": 1}, {"id": 2}, {"id": 9}], None),
        # Items without names, or with one for two of them.
        ([{"x": 1}], [{"x": 2}], [{"x": 3}, {"x": 4}], None),
        ([{"id": 1}], [{"id": 1, "x": 1}], [{"id": 1, "x": 2}, {"id": 1, "x": 3}], None),
        # Each gives the same name to another item.
        ([{"id": 1}, {"id": 2}], [{"id": 3}, {"id": 2}], [{"id": 1}, {"id": 3}], None),
        # 1 and true are two names.
        ([{"id": 1}, {"id": True}], [{"id": 1, "x": 1}, {"id": True}], [{"id": 1, "y": 1}], [{"id": 1, "x": 1, "y": 1}]),
        # Renamed by one, edited by the other.
        ([{"name": "a"}], [{"name": "b"}, {"name": "c"}], [{"name": "a", "x": 1}], None),
    ],
)
def test_items_are_merged_by_name(base: Any, ours: Any, theirs: Any, merged: Any) -> None:
    """Where places do not tell which item is which. None: one conflict, of the whole list."""
    for left, right in ((ours, theirs), (theirs, ours)):
        found, conflicts = merge_documents({"x": base}, {"x": left}, {"x": right})
        if merged is None:
            assert conflicts == [MergeConflict("/x", base, left, right)]
        else:
            assert (found, conflicts) == ({"x": merged}, [])


@pytest.mark.offline
def test_a_conflict_inside_of_an_item_has_its_place() -> None:
    """In the merged list, of which the items are named."""
    base = [{"name": "a", "x": 1}]
    ours, theirs = [{"name": "a", "x": 2}], [{"name": "new"}, {"name": "a", "x": 3}]
    _, conflicts = merge_documents({"l": base}, {"l": ours}, {"l": theirs})
    assert conflicts == [MergeConflict("/l/1/x", 1, 2, 3)]


@pytest.mark.property
@pytest.mark.offline
@given(raw_objects(), raw_objects(), raw_objects())
@generated
def test_a_merge_of_any_json(base: dict[str, Any], ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Also without a shape: the other side where one changed nothing, conflicts mirrored by an exchange, and nothing absent left inside."""
    assert same(merge_documents(base, ours, base)[0], ours)
    assert same(merge_documents(base, base, theirs)[0], theirs)
    merged, conflicts = merge_documents(base, ours, theirs)
    mirrored, other = merge_documents(base, theirs, ours)
    assert [(item.pointer, item.theirs, item.ours) for item in other] == [(item.pointer, item.ours, item.theirs) for item in conflicts]
    assert ABSENT not in _parts(merged)
    if not conflicts:
        assert same(merged, mirrored)


def _parts(value: Any) -> list[Any]:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [value, *(part for item in inside for part in _parts(item))]


# ----------------------------------------------------------------------------------------------------------------- conflicts


def test_conflicts_are_decided(session: Session) -> None:
    """At once or one by one, with a side's value, another one, or none; no statement is sent."""
    root = make(session, content=CONTENT.replace(dimensions=(AGE,), x=0, y=[1]))
    ours = fork(session, root.id, template="Ours", dimensions=(AGE, ROLE), x=1, y=[2])
    theirs = fork(session, root.id, template="Theirs", dimensions=(AGE, COUNT), x=2, y=[3])
    merged = definitions.merge(session, ours, theirs)
    assert [conflict.pointer for conflict in merged.conflicts] == ["/dimensions", "/template", "/x", "/y/0"]
    with assert_max_queries(0):
        half = merged.resolve({"/template": merged.conflicts[1].theirs, "/dimensions": (AGE, ROLE, COUNT)})
        assert (half.content, [conflict.pointer for conflict in half.conflicts]) == (None, ["/x", "/y/0"])
        done = half.resolve({"/x": ABSENT, "/y/0": None})
    assert done.conflicts == []
    assert done.content == CONTENT.replace(template="Theirs", dimensions=(AGE, ROLE, COUNT), y=[None])
    both = definitions.fork(session, ours, DefinitionFork(content=done.content, message=f"merged {theirs}"))
    assert both.content == done.content
    assert merged.content is None
    assert len(merged.conflicts) == 4
    assert merged.resolve({}) == merged


def test_what_is_removed_does_not_move_others(session: Session) -> None:
    """Items of a list may be decided one by one, and each is still where the conflict said."""
    root = make(session, content=CONTENT.replace(x=[1, 2, 3]))
    ours, theirs = fork(session, root.id, x=[4, 5, 6]), fork(session, root.id, x=[7, 8, 9])
    merged = definitions.merge(session, ours, theirs)
    for pointer, value in (("/x/0", ABSENT), ("/x/1", 8), ("/x/2", ABSENT)):
        merged = merged.resolve({pointer: value})
    assert merged.content == CONTENT.replace(x=[8])


def test_what_cannot_be_decided(session: Session) -> None:
    """A place without a conflict, and a value that the content cannot hold: the error names the place, and nothing is decided."""
    root = make(session)
    ours, theirs = fork(session, root.id, template="Ours"), fork(session, root.id, template="Theirs")
    merged = definitions.merge(session, ours, theirs)
    for values in ({"/preamble": "x"}, {"/template": 1}, {"/template": ABSENT}, {"/template": object()}):
        with pytest.raises(ValidationError) as caught:
            merged.resolve(values)
        assert caught.value.field == next(iter(values))
    with pytest.raises(ValidationError):
        merged.resolve({"/template": "x"}).resolve({"/template": "y"})
    assert [conflict.pointer for conflict in merged.conflicts] == ["/template"]


@pytest.mark.property
@pytest.mark.offline
@given(contents(), contents(), contents(), st.data())
@generated
def test_one_side_may_be_taken_everywhere(
    base: DefinitionContent, ours: DefinitionContent, theirs: DefinitionContent, data: st.DataObject
) -> None:
    """Conflicts decided in any order and in any portions give the same content; where everything conflicts, that of the side."""
    merged = _merged(*(values_of(content) for content in (base, ours, theirs)))
    side = data.draw(st.sampled_from(["ours", "theirs"]))
    chosen = {conflict.pointer: getattr(conflict, side) for conflict in merged.conflicts}
    at_once = merged.resolve(chosen)
    assert at_once.conflicts == []
    one_by_one = merged
    for pointer in data.draw(st.permutations(list(chosen))):
        one_by_one = one_by_one.resolve({pointer: chosen[pointer]})
    assert one_by_one == at_once
    assert pickle.loads(pickle.dumps(merged)).resolve(chosen) == at_once
    for key, value in values_of(theirs if side == "theirs" else ours).items():
        if f"/{key}" in chosen:
            assert at_once.content is not None
            assert same(values_of(at_once.content)[key], value)


class Pair(Document, version=1):
    """Two names that must differ."""

    a: str
    b: str

    @model_validator(mode="after")
    def _differ(self) -> "Pair":
        if self.a == self.b:
            raise ValueError("they are the same")
        return self


@pytest.mark.offline
def test_changes_that_do_not_go_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each side is a content, and both changes together are none: one conflict, of the whole."""
    for module in (_changes, _lineage_data):
        monkeypatch.setattr(module, "DefinitionContent", Pair)
    base, ours, theirs = ({"schema_version": 1, "a": a, "b": b} for a, b in ("xy", "zy", "xz"))
    merged = _merged(base, ours, theirs)
    assert (merged.content, merged.conflicts) == (None, [MergeConflict("", base, ours, theirs)])
    assert _merged(None, {"schema_version": 1, "a": "x"}, {"schema_version": 1, "b": "x"}).conflicts[0].base is ABSENT
    with pytest.raises(ValidationError):
        merged.resolve({"": {"a": "z", "b": "z"}})
    for whole in ({"a": "z", "b": "x"}, Pair(a="z", b="x")):
        assert merged.resolve({"": whole}).content == Pair(a="z", b="x")


async def test_the_twin(async_session: AsyncSession) -> None:
    """The same through an AsyncSession."""
    root = await aio_definitions.create(async_session, DefinitionCreate(name="Trolley", content=CONTENT))
    sides = []
    for template in ("Ours", "Theirs"):
        fork = DefinitionFork(content=CONTENT.replace(template=template))
        sides.append((await aio_definitions.fork(async_session, root.id, fork)).id)
    merged = await aio_definitions.merge(async_session, *sides)
    assert merged.resolve({"/template": "Both"}).content == CONTENT.replace(template="Both")
    assert aio_definitions.ABSENT is ABSENT
