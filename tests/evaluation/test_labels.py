"""Labels: one name, one definition, moved by whoever knows where it is."""

import logging
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session
from tests.evaluation.version_trees import make

from stemmadb.accounts import audit
from stemmadb.database import Database
from stemmadb.errors import (
    ConflictError,
    InvalidCursorError,
    LabelMovedError,
    NotFoundError,
    PermissionDeniedError,
    StillReferencedError,
    ValidationError,
)
from stemmadb.evaluation import definitions
from stemmadb.evaluation.definitions import DefinitionFork
from stemmadb.evaluation.entities import DefinitionLabel
from stemmadb.testing import assert_max_queries, count_queries, run_together

LONGEST = "a" * 200


@pytest.mark.requirement("AD-001")
def test_set_and_find(session: Session, caplog: pytest.LogCaptureFixture) -> None:
    """One statement sets a label, one reads the definition by it; nothing is frozen by that."""
    made = make(session)
    with caplog.at_level(logging.INFO, "stemmadb.evaluation.definitions"), assert_max_queries(1):
        label = definitions.set_label(session, "trolley/candidate", made.id, description="next release")
    assert (label.name, label.definition_id, label.is_protected, label.description) == ("trolley/candidate", made.id, False, "next release")
    assert label.version == 1
    assert "trolley/candidate" in caplog.text
    with assert_max_queries(1):
        assert definitions.get_by_label(session, "trolley/candidate") is made
    assert made.frozen_at is None


@pytest.mark.parametrize("name", ["missing", "", "-x", "a b", "a\x00", "ä", LONGEST + "a"])
def test_what_is_no_label(session: Session, name: str) -> None:
    """get raises, find returns None, moving and deleting raise; a malformed name is nobody's, and cannot be set."""
    made = make(session)
    assert definitions.find_by_label(session, name) is None
    for act in (
        lambda: definitions.get_by_label(session, name),
        lambda: definitions.move_label(session, name, made.id),
        lambda: definitions.delete_label(session, name),
    ):
        with pytest.raises(NotFoundError) as caught:
            act()
        assert (caught.value.entity, caught.value.id) == ("DefinitionLabel", name)
    if name != "missing":
        with count_queries() as sent, pytest.raises(ValidationError) as refused:
            definitions.set_label(session, name, made.id)
        assert (sent.count, refused.value.field) == (0, "label")


def test_a_label_is_set_once(session: Session) -> None:
    """ConflictError points to move_label, an unknown definition is NotFoundError; both leave the transaction usable."""
    made = make(session)
    definitions.set_label(session, LONGEST, made.id)
    with pytest.raises(ConflictError, match="move_label") as caught:
        definitions.set_label(session, LONGEST, make(session).id)
    assert (caught.value.entity, caught.value.fields) == ("DefinitionLabel", ("name",))
    with pytest.raises(NotFoundError) as missing:
        definitions.set_label(session, "other", uuid4())
    assert missing.value.entity == "Definition"
    assert definitions.get_by_label(session, LONGEST) is made


@pytest.mark.requirement("AD-001")
def test_move(session: Session) -> None:
    """One statement; the object that the caller holds follows, and the label says when it was moved."""
    first, second = make(session), make(session)
    label = definitions.set_label(session, "production", first.id)
    with assert_max_queries(1):
        moved = definitions.move_label(session, "production", str(second.id), expected_definition_id=first.id)
    assert moved is label
    assert (label.definition_id, label.version) == (second.id, 2)
    assert definitions.move_label(session, "production", first.id).definition_id == first.id


@pytest.mark.requirement("AD-001")
def test_a_label_that_moved(session: Session) -> None:
    """LabelMovedError says where it is now; a definition that is not there is NotFoundError. One more statement, and nothing changes."""
    first, second = make(session), make(session)
    definitions.set_label(session, "production", second.id)
    with pytest.raises(LabelMovedError) as caught, assert_max_queries(2):
        definitions.move_label(session, "production", first.id, expected_definition_id=first.id)
    assert caught.value.actual == second.id
    with pytest.raises(NotFoundError) as missing:
        definitions.move_label(session, "production", uuid4())
    assert missing.value.entity == "Definition"
    with pytest.raises(ValidationError):
        definitions.move_label(session, "production", first.id, expected_definition_id="nonsense")
    assert definitions.get_by_label(session, "production") is second


@pytest.mark.requirement("AD-001")
def test_a_protected_label_takes_force(session: Session) -> None:
    """To move it and to delete it."""
    first, second = make(session), make(session)
    definitions.set_label(session, "production", first.id, protected=True)
    with pytest.raises(PermissionDeniedError, match="force"):
        definitions.move_label(session, "production", second.id)
    with pytest.raises(PermissionDeniedError, match="force"):
        definitions.delete_label(session, "production")
    assert definitions.move_label(session, "production", second.id, force=True).definition_id == second.id
    definitions.delete_label(session, "production", force=True)
    assert definitions.find_by_label(session, "production") is None


def test_protection_comes_and_goes(session: Session) -> None:
    """One statement each, as often as one likes; the object that the caller holds follows, and a name that is none is not found."""
    first, second = make(session), make(session)
    label = definitions.set_label(session, "production", first.id, description="what customers see")
    with assert_max_queries(2):
        assert definitions.protect_label(session, "production") is label
        definitions.protect_label(session, "production")
    assert (label.is_protected, label.definition_id, label.description) == (True, first.id, "what customers see")
    with pytest.raises(PermissionDeniedError):
        definitions.move_label(session, "production", second.id)
    assert not definitions.protect_label(session, "production", protected=False).is_protected
    assert definitions.move_label(session, "production", second.id).definition_id == second.id
    for name in ("missing", "a b"):
        with pytest.raises(NotFoundError):
            definitions.protect_label(session, name)


@pytest.mark.requirement("AD-001")
def test_the_history_of_a_label(session: Session) -> None:
    """Every move, change of protection and end of it is in the audit trail, with where it was and is."""
    first, second = make(session), make(session)
    definitions.set_label(session, "production", first.id)
    definitions.move_label(session, "production", second.id)
    definitions.protect_label(session, "production")
    definitions.delete_label(session, "production", force=True)
    records = audit.history(session, "definition_labels", "production").items
    assert [record.action for record in records] == ["DELETE", "UPDATE", "UPDATE", "CREATE"]
    moved = records[2]
    assert moved.before is not None
    assert moved.after is not None
    assert (moved.before.data["definition_id"], moved.after.data["definition_id"]) == (str(first.id), str(second.id))


def test_delete(session: Session) -> None:
    """The definition stays, and can be deleted afterwards; the session finds the label no more."""
    made = make(session)
    label = definitions.set_label(session, "production", made.id)
    with pytest.raises(StillReferencedError):
        definitions.delete(session, made.id)
    with assert_max_queries(1):
        definitions.delete_label(session, "production")
    assert session.get(DefinitionLabel, (label.workspace_id, "production")) is None
    assert definitions.delete(session, made.id) == 1


def test_list(session: Session) -> None:
    """By name, in pages, of one definition or with one prefix, whose wildcards are letters."""
    first, second = make(session), make(session)
    for name in ("a/2", "a/1", "b", "a_x"):
        definitions.set_label(session, name, (second if name == "b" else first).id)
    page = definitions.list_labels(session, limit=3)
    rest = definitions.list_labels(session, limit=3, cursor=page.next_cursor)
    names = [label.name for label in (*page, *rest)]
    assert sorted(names) == sorted(["a/1", "a/2", "a_x", "b"])
    assert names == list(session.execute(text("SELECT name FROM stemma.definition_labels ORDER BY name")).scalars())
    assert [label.name for label in definitions.list_labels(session, prefix="a/")] == ["a/1", "a/2"]
    assert [label.name for label in definitions.list_labels(session, prefix="a_")] == ["a_x"]
    assert [label.name for label in definitions.list_labels(session, definition_id=str(second.id))] == ["b"]
    with pytest.raises(InvalidCursorError):
        definitions.list_labels(session, prefix="a", cursor=page.next_cursor)


@pytest.mark.race
@pytest.mark.requirement("AD-001")
def test_of_two_movers_one_wins(committed_db: Database, committed_workspace: UUID) -> None:
    """In 20 rounds of two movers with the same expectation one moves the label, and the other learns where it went."""
    with committed_db.session(committed_workspace) as session:
        start, *targets = (make(session).id for _ in range(3))
        definitions.set_label(session, "production", start)

    def move(caller: int) -> UUID:
        with committed_db.session(committed_workspace) as session:
            return definitions.move_label(session, "production", targets[caller], expected_definition_id=start).definition_id

    for _ in range(20):
        results = run_together(2, move)
        (won,) = (result for result in results if isinstance(result, UUID))
        (lost,) = (result for result in results if isinstance(result, LabelMovedError))
        assert lost.actual == won
        with committed_db.session(committed_workspace) as session:
            assert definitions.get_by_label(session, "production").id == won
            definitions.move_label(session, "production", start)


@pytest.mark.race
@pytest.mark.requirement("AD-001")
def test_of_two_forks_with_the_label_one_wins(committed_db: Database, committed_workspace: UUID) -> None:
    """In 20 rounds one fork takes the label along; the other finds it moved, and leaves no child."""
    for number in range(20):
        with committed_db.session(committed_workspace) as session:
            parent_id = make(session).id
            definitions.set_label(session, f"round/{number}", parent_id)

        def fork(_: int, parent_id: UUID = parent_id, number: int = number) -> UUID:
            with committed_db.session(committed_workspace) as session:
                return definitions.fork(session, parent_id, DefinitionFork(label=f"round/{number}")).id

        results = run_together(2, fork)
        (won,) = (result for result in results if isinstance(result, UUID))
        (lost,) = (result for result in results if isinstance(result, LabelMovedError))
        assert lost.actual == won
        with committed_db.session(committed_workspace) as session:
            assert [child.id for child in definitions.descendants(session, parent_id)] == [won]


@pytest.mark.race
def test_of_two_setters_one_wins(committed_db: Database, committed_workspace: UUID) -> None:
    """One sets the label, the other is told that it exists."""
    with committed_db.session(committed_workspace) as session:
        targets = [make(session).id for _ in range(2)]

    def set_(caller: int) -> UUID:
        with committed_db.session(committed_workspace) as session:
            return definitions.set_label(session, "production", targets[caller]).definition_id

    results = run_together(2, set_)
    assert sorted(type(result).__name__ for result in results) == ["ConflictError", "UUID"]
