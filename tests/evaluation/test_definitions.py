"""Definitions: made, forked, read, changed while nothing refers to them, frozen, deleted."""

import json
import logging
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from tests.evaluation.version_trees import CONTENT, make

from stemmadb.aio.evaluation import definitions as adefinitions
from stemmadb.database import Database
from stemmadb.errors import (
    ConflictError,
    CorruptDocumentError,
    DatabaseError,
    DocumentError,
    FrozenError,
    InvalidCursorError,
    LabelMovedError,
    NotFoundError,
    PermissionDeniedError,
    ReferenceNotFoundError,
    StillReferencedError,
    UnknownSchemaVersionError,
    ValidationError,
    VersionConflictError,
    WorkspaceNotSetError,
)
from stemmadb.evaluation import definitions, runs, scenarios
from stemmadb.evaluation.data import RunCreate, ScenarioCreate
from stemmadb.evaluation.definitions import DefinitionCreate, DefinitionFilters, DefinitionFork, DefinitionUpdate
from stemmadb.evaluation.documents import DefinitionContent, RunConfig, ScenarioContent
from stemmadb.evaluation.entities import Definition
from stemmadb.testing import assert_max_queries, count_queries, make_workspace, run_together

OTHER = DefinitionContent(preamble="Other", template="Other")
RUN = RunConfig(models=("openai:gpt-4o",))


def raw(session: Session, content: Any) -> UUID:
    """Insert a root by hand, with any stored content."""
    statement = text("INSERT INTO stemma.definitions (name, content) VALUES ('By hand', CAST(:content AS jsonb)) RETURNING id")
    found: UUID = session.execute(statement, {"content": json.dumps(content)}).scalar_one()
    return found


def stored(session: Session, id: UUID) -> Any:
    """The row as it is in the database: its place on disk changes with every write."""
    return session.execute(
        text("SELECT xmin, ctid, content, version, frozen_at, updated_at FROM stemma.definitions WHERE id = :id"), {"id": id}
    ).one()


def count(session: Session) -> int:
    """How many definitions the workspace has."""
    found: int = session.execute(text("SELECT count(*) FROM stemma.definitions")).scalar_one()
    return found


# -------------------------------------------------------------------------------------------------------------------- create


@pytest.mark.requirement("VR-031", "VR-057", "VR-069", "VR-089")
def test_create_and_read_back(session: Session, workspace: UUID, caplog: pytest.LogCaptureFixture) -> None:
    """One statement makes a root, which is its own root; the name is logged."""
    with caplog.at_level(logging.INFO, "stemmadb.evaluation.definitions"), assert_max_queries(1):
        made = make(session, "Trolley", message="first")
    assert (made.workspace_id, made.parent_id, made.root_id, made.depth) == (workspace, None, made.id, 0)
    assert (made.version, made.frozen_at, made.content_version, made.message) == (1, None, 2, "first")
    assert made.content == CONTENT
    assert definitions.get(session, made.id) is made
    assert definitions.get(session, str(made.id)) is made
    assert "Trolley" in caplog.text


@pytest.mark.requirement("VR-058")
def test_content_is_required() -> None:
    """The message says so, and the field is named."""
    with pytest.raises(ValidationError) as caught:
        DefinitionCreate(name="Trolley")  # type: ignore[call-arg]
    assert (str(caught.value), caught.value.field) == ("Definition content is required", "content")


@pytest.mark.parametrize("name", ["", "  ", "x" * 201, "a\x00b", "a\ud800b"])
def test_an_unacceptable_name_is_refused(session: Session, name: str) -> None:
    """Blank, too long, or nothing that PostgreSQL can store: a ValidationError, and the transaction goes on."""
    with pytest.raises(ValidationError):
        make(session, name)
    assert count(session) == 0


@pytest.mark.requirement("VR-042", "AD-002")
def test_create_with_a_parent_is_a_fork(session: Session) -> None:
    """The child stands below its parent, which is frozen; one statement."""
    parent = make(session)
    with assert_max_queries(1):
        child = make(session, "Child", OTHER, parent_id=str(parent.id))
    assert (child.parent_id, child.root_id, child.depth, child.content) == (parent.id, parent.id, 1, OTHER)
    assert parent.frozen_at is not None


@pytest.mark.requirement("VR-042")
def test_create_needs_its_references(session: Session) -> None:
    """An unknown parent or author is ReferenceNotFoundError, a malformed one a ValidationError; both name the field."""
    with pytest.raises(ReferenceNotFoundError) as caught:
        make(session, parent_id=uuid4())
    assert caught.value.field == "parent_id"
    with pytest.raises(ValidationError) as malformed:
        make(session, parent_id="nonsense")
    assert malformed.value.field == "parent_id"
    assert count(session) == 0
    with pytest.raises(ReferenceNotFoundError) as author, session.begin_nested():
        make(session, created_by_id=uuid4())
    assert author.value.field == "created_by_id"


def test_an_id_that_is_taken_is_refused(session: Session) -> None:
    """ConflictError names the field, for a root and for a child, and the transaction goes on."""
    taken = make(session, id=uuid4())
    for parent_id in (None, make(session).id):
        with pytest.raises(ConflictError) as caught:
            make(session, id=taken.id, parent_id=parent_id)
        assert (caught.value.entity, caught.value.fields) == ("Definition", ("id",))
    assert count(session) == 2


# ---------------------------------------------------------------------------------------------------------------------- fork


@pytest.mark.requirement("VR-059", "VR-060", "VR-089", "AD-002")
def test_a_fork_is_its_parent_but_for_what_was_given(session: Session, caplog: pytest.LogCaptureFixture) -> None:
    """One statement copies name and full content and freezes the parent; both ids are logged."""
    parent = make(session, "Trolley", message="first")
    with caplog.at_level(logging.INFO, "stemmadb.evaluation.definitions"), assert_max_queries(1):
        child = definitions.fork(session, parent.id)
    assert (child.parent_id, child.root_id, child.depth) == (parent.id, parent.id, 1)
    assert (child.name, child.message, child.frozen_at, child.version) == ("Trolley", None, None, 1)
    assert child.content_hash == parent.content_hash
    assert definitions.get_with_content(session, child.id).content == CONTENT
    assert str(parent.id) in caplog.text
    assert str(child.id) in caplog.text
    # The object that the caller holds shows what became of it, and can still be saved.
    assert parent.frozen_at is not None
    assert parent.content == CONTENT
    parent.message = "edited"
    session.flush()


@pytest.mark.requirement("VR-060")
def test_a_fork_can_say_something_else(session: Session) -> None:
    """Name, content and message are the child's own; the parent keeps its."""
    parent = make(session)
    child = definitions.fork(session, parent.id, DefinitionFork(name="Bridge", content=OTHER, message="a bridge"))
    assert (child.name, child.content, child.message) == ("Bridge", OTHER, "a bridge")
    assert definitions.get_with_content(session, parent.id).content == CONTENT


@pytest.mark.requirement("VR-060")
def test_a_fork_of_an_old_content_is_written_in_the_newest_version(session: Session) -> None:
    """The child of a version-0 parent has schema_version 2 and keeps the keys nobody knows; the parent's content stays as it is."""
    parent_id = raw(session, {"preamble": "old", "flavour": "kept"})
    with assert_max_queries(3):
        child = definitions.fork(session, parent_id)
    assert child.content_version == 2
    assert stored(session, child.id).content == {
        "schema_version": 2,
        "preamble": "old",
        "template": "",
        "dimensions": [],
        "matching_rules": [],
        "flavour": "kept",
    }
    parent = stored(session, parent_id)
    assert parent.content == {"preamble": "old", "flavour": "kept"}
    assert parent.frozen_at is not None


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ({"schema_version": 3}, UnknownSchemaVersionError),
        ({"schema_version": "two"}, CorruptDocumentError),
        ({"preamble": 1}, CorruptDocumentError),
    ],
)
def test_a_content_that_cannot_be_read_is_not_forked(session: Session, content: Any, error: type[DocumentError]) -> None:
    """The error names the row, and nothing was written; a fork with a content of its own is possible."""
    parent_id = raw(session, content)
    before = stored(session, parent_id)
    with pytest.raises(error) as caught:
        definitions.fork(session, parent_id)
    assert (caught.value.table, caught.value.column, caught.value.key) == ("definitions", "content", parent_id)
    assert stored(session, parent_id)[2:] == before[2:]
    assert count(session) == 1
    assert definitions.fork(session, parent_id, DefinitionFork(content=OTHER)).content == OTHER


@pytest.mark.requirement("VR-061", "VR-088")
def test_fork_of_nothing_writes_nothing(session: Session, caplog: pytest.LogCaptureFixture) -> None:
    """NotFoundError with the id, which is logged as well."""
    unknown = uuid4()
    with caplog.at_level(logging.WARNING, "stemmadb.evaluation.definitions"), pytest.raises(NotFoundError) as caught:
        definitions.fork(session, unknown, DefinitionFork(content=OTHER))
    assert (caught.value.entity, caught.value.id) == ("Definition", unknown)
    assert str(unknown) in caplog.text
    assert count(session) == 0


@pytest.mark.requirement("AD-001")
def test_a_fork_takes_the_label_along(session: Session) -> None:
    """The label points at the child afterwards."""
    parent = make(session)
    label = definitions.set_label(session, "production", parent.id)
    with assert_max_queries(2):
        child = definitions.fork(session, parent.id, DefinitionFork(label="production"))
    assert definitions.get_by_label(session, "production") is child
    assert label.definition_id == child.id


@pytest.mark.requirement("AD-001", "VR-090")
@pytest.mark.parametrize("content", [None, OTHER])
def test_a_fork_without_its_label_is_refused_whole(session: Session, content: DefinitionContent | None) -> None:
    """A label elsewhere, a missing or a protected one: an error, no child, and the parent is not frozen."""
    parent, other = make(session), make(session)
    definitions.set_label(session, "elsewhere", other.id)
    definitions.set_label(session, "protected", parent.id, protected=True)
    for label, error in (("elsewhere", LabelMovedError), ("missing", LabelMovedError), ("protected", PermissionDeniedError)):
        with pytest.raises(error) as caught:
            definitions.fork(session, parent.id, DefinitionFork(content=content, label=label))
        if isinstance(caught.value, LabelMovedError):
            assert caught.value.actual == (other.id if label == "elsewhere" else None)
    assert count(session) == 2
    assert definitions.get(session, parent.id).frozen_at is None


@pytest.mark.race
@pytest.mark.requirement("VR-060", "AD-002")
def test_a_fork_against_an_edit_copies_what_is_frozen(committed_db: Database, committed_workspace: UUID) -> None:
    """In 60 rounds of a fork and an edit at once the child equals its frozen parent, and an edit that came too late is told."""
    outcomes = set()
    for number in range(60):
        with committed_db.session(committed_workspace) as session:
            parent_id = make(session).id
        edited = CONTENT.replace(preamble=f"edited in round {number}")

        def act(caller: int, parent_id: UUID = parent_id, edited: DefinitionContent = edited) -> UUID:
            with committed_db.session(committed_workspace) as session:
                if caller:
                    return definitions.fork(session, parent_id).id
                return definitions.update(session, parent_id, DefinitionUpdate(content=edited)).id

        edit, child_id = run_together(2, act)
        assert isinstance(child_id, UUID), child_id
        with committed_db.session(committed_workspace) as session:
            parent = definitions.get_with_content(session, parent_id)
            assert parent.definition.frozen_at is not None
            assert parent.content == (CONTENT if isinstance(edit, FrozenError) else edited)
            assert definitions.get_with_content(session, child_id).content == parent.content
        outcomes.add(type(edit))
    assert outcomes <= {UUID, FrozenError}


def _wait_until_somebody_waits(db: Database) -> None:
    with db.engine.connect() as connection:
        while not connection.scalar(text("SELECT EXISTS (SELECT FROM pg_catalog.pg_locks WHERE NOT granted)")):
            connection.rollback()


@pytest.mark.race
@pytest.mark.requirement("VR-091")
@pytest.mark.parametrize("first", ["delete", "fork"])
def test_a_fork_and_a_delete_of_the_parent(committed_db: Database, committed_workspace: UUID, first: str) -> None:
    """The second waits for the first: a fork then finds no parent, a delete a child."""
    with committed_db.session(committed_workspace) as session:
        parent_id = make(session).id
    acts: dict[str, Callable[[Session], object]] = {
        "fork": lambda session: definitions.fork(session, parent_id).id,
        "delete": lambda session: definitions.delete(session, parent_id),
    }
    second = next(name for name in acts if name != first)

    def act(caller: int) -> object:
        if caller == 0:
            with committed_db.session(committed_workspace) as session:
                outcome = acts[first](session)
                begun.set()
                _wait_until_somebody_waits(committed_db)
                return outcome
        begun.wait(10)
        with committed_db.session(committed_workspace) as session:
            with pytest.raises((NotFoundError, StillReferencedError)) as caught:
                acts[second](session)
            # A refused call leaves the transaction usable.
            return caught.value, count(session)

    begun = threading.Event()
    _, refused = run_together(2, act)
    assert isinstance(refused, tuple), refused
    error, left = refused
    if first == "delete":
        assert isinstance(error, NotFoundError)
        assert left == 0
    else:
        assert isinstance(error, StillReferencedError)
        assert error.by == ("children",)
        assert left == 2


@pytest.mark.fault
@pytest.mark.requirement("VR-090")
def test_a_fork_that_cannot_freeze_leaves_no_child(committed_db: Database, committed_workspace: UUID, owner: Engine) -> None:
    """A failure between the two writes undoes both."""
    with committed_db.session(committed_workspace) as session:
        parent_id = make(session).id
    with owner.begin() as connection:
        connection.execute(
            text(
                """
                CREATE FUNCTION stemma.fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'out of order'; END $$;
                CREATE TRIGGER definitions_zz_fail BEFORE UPDATE ON stemma.definitions FOR EACH ROW EXECUTE FUNCTION stemma.fail()
                """
            )
        )
    with pytest.raises(DatabaseError), committed_db.session(committed_workspace) as session:
        definitions.fork(session, parent_id)
    with committed_db.session(committed_workspace) as session:
        assert count(session) == 1


# ---------------------------------------------------------------------------------------------------------------------- read


@pytest.mark.requirement("VR-062", "VR-087", "VR-088")
@pytest.mark.parametrize("unknown", ["nonsense", "0190a000-0000-7000-8000-000000000000", UUID(int=1), ""])
def test_an_unknown_id(session: Session, unknown: Any, caplog: pytest.LogCaptureFixture) -> None:
    """get raises and logs a warning with the id, find returns None; a malformed id is nobody's."""
    assert definitions.find(session, unknown) is None
    with caplog.at_level(logging.DEBUG, "stemmadb.evaluation.definitions"), pytest.raises(NotFoundError) as caught:
        definitions.get(session, unknown)
    assert (caught.value.entity, caught.value.id) == ("Definition", unknown)
    assert [record.levelname for record in caplog.records if str(unknown) in record.getMessage()][-1] == "WARNING"


@pytest.mark.requirement("VR-087")
def test_the_id_is_logged_before_the_query(session: Session, caplog: pytest.LogCaptureFixture) -> None:
    """At DEBUG, also when the query then fails."""
    made = make(session)
    session.execute(text("SET LOCAL statement_timeout = 1"))
    session.execute(text("SAVEPOINT before"))
    with caplog.at_level(logging.DEBUG, "stemmadb.evaluation.definitions"):
        definitions.get(session, made.id)
    assert caplog.records[-1].levelname == "DEBUG"
    assert str(made.id) in caplog.records[-1].getMessage()


def test_get_shows_the_row_as_it_is(session: Session) -> None:
    """An object that the session holds takes what somebody else saved; its content is given up only if it changed."""
    made = make(session)
    session.execute(text("UPDATE stemma.definitions SET message = 'theirs' WHERE id = :id"), {"id": made.id})
    assert definitions.get(session, made.id) is made
    assert (made.message, made.version, made.content) == ("theirs", 2, CONTENT)
    session.execute(text('UPDATE stemma.definitions SET content = content || \'{"preamble": "theirs"}\' WHERE id = :id'), {"id": made.id})
    definitions.get(session, made.id)
    with pytest.raises(Exception, match="content"):
        _ = made.content


@pytest.mark.requirement("VR-063", "VR-111")
def test_content_of_any_version_is_read_and_not_touched(session: Session) -> None:
    """A row that raw SQL inserted without schema_version comes in the newest shape, and stays as it is, also after a commit."""
    id = raw(session, {"preamble": "test"})
    before = stored(session, id)
    with assert_max_queries(1):
        found = definitions.get_with_content(session, str(id))
    assert found.content == DefinitionContent(preamble="test", template="")
    assert (found.content.schema_version, found.stored_version) == (2, 0)
    assert found.definition.content is found.content
    assert not session.dirty
    session.commit()
    assert stored(session, id) == before


@pytest.mark.requirement("VR-063")
def test_a_newer_content_is_not_parsed(session: Session) -> None:
    """UnknownSchemaVersionError with place and versions; the row without its content can be read."""
    id = raw(session, {"schema_version": 7})
    with pytest.raises(UnknownSchemaVersionError) as caught:
        definitions.get_with_content(session, id)
    error = caught.value
    assert (error.table, error.column, error.key, error.found, error.known) == ("definitions", "content", id, 7, 2)
    assert definitions.get(session, id).content_version == 7


def test_find_by_content(session: Session) -> None:
    """Every definition that says exactly this, oldest first; text that jsonb cannot hold included."""
    strange = CONTENT.replace(preamble="a\x00b\ud800")
    first, _, second = make(session, "a", strange), make(session, "b"), make(session, "c", strange)
    with assert_max_queries(1):
        assert definitions.find_by_content(session, strange) == [first, second]
    assert definitions.find_by_content(session, OTHER) == []


@pytest.mark.requirement("VR-064")
def test_list_all_is_newest_first_by_pages(session: Session) -> None:
    """Pages of any size join to the whole; one statement each; the total is counted when asked for."""
    made = [make(session, f"Version {number}") for number in range(7)]
    seen: list[Definition] = []
    cursor = None
    while True:
        with assert_max_queries(1):
            page = definitions.list_all(session, cursor=cursor, limit=3, with_total=True)
        seen += page
        assert page.total == 7
        cursor = page.next_cursor
        if not page.has_more:
            break
    assert seen == made[::-1]
    with pytest.raises(InvalidCursorError):
        definitions.list_all(session, DefinitionFilters(roots_only=True), cursor=definitions.list_all(session, limit=2).next_cursor)
    with pytest.raises(ValidationError):
        definitions.list_all(session, limit=201)


@pytest.mark.requirement("VR-064")
def test_filters(session: Session) -> None:
    """Each narrows as its name says, together they narrow to what meets all."""
    root = make(session, "100%_sure")
    child = definitions.fork(session, root.id, DefinitionFork(name="Child"))
    grandchild = definitions.fork(session, child.id)
    other = make(session, "Other")
    runs.create(session, RunCreate(definition_id=other.id, config=RUN))

    def found(**filters: Any) -> set[UUID]:
        return {definition.id for definition in definitions.list_all(session, DefinitionFilters(**filters))}

    assert found() == {root.id, child.id, grandchild.id, other.id}
    assert found(name_contains="0%_s") == {root.id}
    assert found(name_contains="child") == set()
    assert found(parent_id=child.id) == {grandchild.id}
    assert found(root_id=str(root.id)) == {root.id, child.id, grandchild.id}
    assert found(roots_only=True) == {root.id, other.id}
    assert found(frozen=True) == {root.id, child.id, other.id}
    assert found(frozen=False) == {grandchild.id}
    assert found(has_runs=True) == {other.id}
    assert found(has_runs=False, roots_only=True) == {root.id}
    moment = root.created_at
    assert found(created_from=moment) == found()
    assert found(created_to=moment) == set()
    assert found(created_to=moment + timedelta(seconds=1)) == found()
    with pytest.raises(ValidationError) as caught:
        found(root_id="nonsense")
    assert caught.value.field == "root_id"


def test_list_children(session: Session) -> None:
    """The forks of one version, oldest first, by pages; an unknown parent is told from one without children."""
    root = make(session)
    children = [definitions.fork(session, root.id) for _ in range(3)]
    definitions.fork(session, children[0].id)
    with assert_max_queries(1):
        page = definitions.list_children(session, root.id, limit=2)
    rest = definitions.list_children(session, root.id, limit=2, cursor=page.next_cursor)
    assert [*page, *rest] == children
    assert list(definitions.list_children(session, children[1].id)) == []
    with pytest.raises(NotFoundError):
        definitions.list_children(session, uuid4())


# -------------------------------------------------------------------------------------------------------------------- update


@pytest.mark.requirement("VR-068")
def test_update_changes_what_was_given(session: Session) -> None:
    """Absent fields stay, None takes a message away, the version counts; one statement."""
    made = make(session, message="why")
    with assert_max_queries(1):
        saved = definitions.update(session, made.id, DefinitionUpdate(name="Bridge", content=OTHER), expected_version=1)
    assert saved is made
    assert (saved.name, saved.content, saved.message, saved.version) == ("Bridge", OTHER, "why", 2)
    assert definitions.update(session, made.id, DefinitionUpdate(message=None)).message is None
    assert definitions.get_with_content(session, made.id).content == OTHER


def test_an_empty_update_changes_nothing(session: Session) -> None:
    """It says what is there, and still compares the version."""
    made = make(session)
    before = stored(session, made.id)
    assert definitions.update(session, made.id, DefinitionUpdate(), expected_version=1) is made
    with pytest.raises(VersionConflictError):
        definitions.update(session, made.id, DefinitionUpdate(), expected_version=2)
    assert stored(session, made.id) == before
    for field in ("name", "content"):
        with pytest.raises(ValidationError):
            DefinitionUpdate(**{field: None})


@pytest.mark.requirement("VR-068")
def test_update_tells_what_stands_against_it(session: Session) -> None:
    """Nobody's id, somebody's save, a frozen row, a newer document: each its own error, one more statement, and a usable transaction."""
    made = make(session)
    with pytest.raises(NotFoundError):
        definitions.update(session, uuid4(), DefinitionUpdate(name="x"))
    with pytest.raises(VersionConflictError) as conflict, assert_max_queries(2):
        definitions.update(session, made.id, DefinitionUpdate(name="x"), expected_version=9)
    assert (conflict.value.key, conflict.value.seen, conflict.value.current) == (made.id, 9, 1)
    newer = raw(session, {"schema_version": 3})
    with pytest.raises(UnknownSchemaVersionError):
        definitions.update(session, newer, DefinitionUpdate(content=OTHER))
    nobody_knows = raw(session, {"schema_version": -3})
    with pytest.raises(CorruptDocumentError):
        definitions.update(session, nobody_knows, DefinitionUpdate(content=OTHER))
    assert stored(session, newer).content == {"schema_version": 3}
    assert definitions.update(session, newer, DefinitionUpdate(name="can be named")).name == "can be named"
    definitions.freeze(session, made.id)
    for change in (DefinitionUpdate(name="x"), DefinitionUpdate(content=OTHER), DefinitionUpdate(name="x", message="y")):
        # A stale version would not help either: the way on is a fork.
        with pytest.raises(FrozenError, match="Fork it"):
            definitions.update(session, made.id, change, expected_version=1)
    assert definitions.get(session, made.id).message is None


@pytest.mark.requirement("VR-068")
def test_the_message_can_be_edited_for_ever(session: Session) -> None:
    """Also of a frozen definition."""
    made = definitions.freeze(session, make(session).id)
    assert definitions.update(session, made.id, DefinitionUpdate(message="why it was")).message == "why it was"


@pytest.mark.race
@pytest.mark.requirement("VR-068")
def test_of_ten_concurrent_updates_one_wins(committed_db: Database, committed_workspace: UUID) -> None:
    """Of ten updates from one reading, run at once, exactly one is kept and nine are told."""
    with committed_db.session(committed_workspace) as session:
        id = make(session).id

    def rename(number: int) -> str:
        with committed_db.session(committed_workspace) as session:
            return definitions.update(session, id, DefinitionUpdate(name=f"Name {number}"), expected_version=1).name

    results = run_together(10, rename)
    won = [result for result in results if isinstance(result, str)]
    assert len(won) == 1, results
    assert sum(isinstance(result, VersionConflictError) and result.current == 2 for result in results) == 9
    with committed_db.session(committed_workspace) as session:
        assert definitions.get(session, id).name == won[0]


def test_a_conflict_can_be_answered_in_the_same_session(session: Session) -> None:
    """Reading again shows the new version, with which the change is saved."""
    made = make(session)
    session.execute(text("UPDATE stemma.definitions SET message = 'theirs' WHERE id = :id"), {"id": made.id})
    with pytest.raises(VersionConflictError):
        definitions.update(session, made.id, DefinitionUpdate(name="mine"), expected_version=made.version)
    again = definitions.get(session, made.id)
    assert definitions.update(session, made.id, DefinitionUpdate(name="mine"), expected_version=again.version).message == "theirs"


# -------------------------------------------------------------------------------------------------------------------- freeze


@pytest.mark.requirement("AD-002", "VR-031")
def test_the_first_reference_freezes(session: Session) -> None:
    """A child, a scenario, a run: each freezes what it refers to. A label does not."""
    for refer in (
        lambda key: definitions.fork(session, key),
        lambda key: scenarios.create(session, key, ScenarioCreate(name="a", content=ScenarioContent(prompt="?"))),
        lambda key: runs.create(session, RunCreate(definition_id=key, config=RUN)),
    ):
        made = make(session)
        refer(made.id)
        assert definitions.get(session, made.id).frozen_at is not None
    labelled = make(session)
    definitions.set_label(session, "draft", labelled.id)
    assert definitions.get(session, labelled.id).frozen_at is None


@pytest.mark.requirement("AD-002")
def test_freeze_is_for_ever(session: Session) -> None:
    """A second time changes nothing, and raw SQL cannot undo it or write over it."""
    made = make(session)
    frozen = definitions.freeze(session, made.id)
    assert frozen is made
    before = stored(session, made.id)
    assert definitions.freeze(session, str(made.id)).frozen_at == made.frozen_at
    for change in ("frozen_at = NULL", "frozen_at = now() + interval '1 day'", "name = 'x'", "content = '{}'"):
        with pytest.raises(IntegrityError, match="definition is frozen"), session.begin_nested():
            session.execute(text(f"UPDATE stemma.definitions SET {change} WHERE id = :id"), {"id": made.id})
    assert stored(session, made.id)[2:] == before[2:]
    with pytest.raises(NotFoundError):
        definitions.freeze(session, uuid4())


# -------------------------------------------------------------------------------------------------------------------- delete


@pytest.mark.requirement("VR-044")
def test_delete_takes_the_scenarios_along(session: Session) -> None:
    """One statement, and the session finds the definition no more."""
    made = make(session)
    scenarios.create(session, made.id, ScenarioCreate(name="a", content=ScenarioContent(prompt="?")))
    with assert_max_queries(1):
        assert definitions.delete(session, made.id) == 1
    assert session.get(Definition, (made.workspace_id, made.id)) is None
    assert session.execute(text("SELECT count(*) FROM stemma.scenarios")).scalar_one() == 0
    with pytest.raises(NotFoundError):
        definitions.delete(session, made.id)


@pytest.mark.requirement("VR-042", "VR-043")
def test_delete_says_what_still_refers(session: Session) -> None:
    """Children, runs, labels: named together, nothing is deleted, and the transaction goes on."""
    root = make(session)
    child = definitions.fork(session, root.id)
    with pytest.raises(StillReferencedError) as caught:
        definitions.delete(session, root.id)
    assert caught.value.by == ("children",)
    runs.create(session, RunCreate(definition_id=child.id, config=RUN))
    definitions.set_label(session, "production", child.id)
    with pytest.raises(StillReferencedError) as caught:
        definitions.delete(session, root.id, subtree=True)
    assert caught.value.by == ("runs", "labels")
    assert count(session) == 2


def test_a_scenario_that_a_run_of_another_definition_uses(session: Session) -> None:
    """It keeps its definition: the run is named, and the transaction goes on."""
    made, other = make(session), make(session)
    scenario = scenarios.create(session, made.id, ScenarioCreate(name="a", content=ScenarioContent(prompt="?")))
    run = runs.create(session, RunCreate(definition_id=other.id, config=RUN))
    session.execute(
        text("INSERT INTO stemma.run_scenario_selection (run_id, scenario_id) VALUES (:run, :scenario)"),
        {"run": run.id, "scenario": scenario.id},
    )
    with pytest.raises(StillReferencedError) as caught:
        definitions.delete(session, made.id)
    assert caught.value.by == ("runs",)
    assert count(session) == 2


@pytest.mark.requirement("VR-108")
def test_a_whole_tree_goes_in_one_statement(session: Session) -> None:
    """The number of definitions comes back; those beside and above stay. A plain DELETE of everything works as well."""
    root = make(session)
    child, sibling = definitions.fork(session, root.id), definitions.fork(session, root.id)
    for _ in range(3):
        definitions.fork(session, definitions.fork(session, child.id).id)
    with assert_max_queries(1):
        assert definitions.delete(session, child.id, subtree=True) == 7
    assert definitions.descendants(session, root.id) == [sibling]
    session.execute(text("DELETE FROM stemma.definitions"))
    assert count(session) == 0


# ------------------------------------------------------------------------------------------------------ workspaces and twins

_FUNCTIONS = [name for name in definitions.__all__ if hasattr(getattr(definitions, name), "__stemma_query__")]
# They take no id that must exist.
_ANSWERING = {"create", "find", "find_by_content", "find_by_label", "list_all", "list_labels", "search"}


def call(name: str, session: Session, id: UUID) -> Any:
    """Call a function with an id, or the label named after it, and something for its other parameters."""
    function = getattr(definitions, name)
    match name:
        case "create":
            return function(session, DefinitionCreate(name="x", content=CONTENT))
        case "find_by_content":
            return function(session, CONTENT)
        case "list_all" | "list_labels":
            return function(session)
        case "update":
            return function(session, id, DefinitionUpdate(name="x"))
        case "is_ancestor" | "merge_base" | "lineage" | "diff" | "merge":
            return function(session, id, id)
        case "bisect":
            return function(session, good_id=id, bad_id=id)
        case "get_by_label" | "find_by_label" | "delete_label" | "search":
            return function(session, str(id))
        case "set_label" | "move_label":
            return function(session, str(id), id)
    return function(session, id)


@pytest.mark.parametrize("name", _FUNCTIONS)
def test_without_a_workspace_nothing_is_sent(db: Database, name: str) -> None:
    """WorkspaceNotSetError, which names the function as callers know it."""
    with db.session() as session, count_queries() as sent, pytest.raises(WorkspaceNotSetError, match=rf"evaluation\.definitions\.{name}\b"):
        call(name, session, uuid4())
    assert sent.count == 0


def test_another_workspace_is_as_if_it_were_not_there(committed_db: Database, committed_workspace: UUID) -> None:
    """An id of another workspace gives what a random id gives, message included, and nothing there is changed."""
    with committed_db.session(make_workspace(committed_db, "elsewhere")) as session:
        foreign = make(session)
        definitions.set_label(session, str(foreign.id), foreign.id)
        before = stored(session, foreign.id)
    for name in sorted(set(_FUNCTIONS) - _ANSWERING):
        answers = []
        for id in (uuid4(), foreign.id):
            with committed_db.session(committed_workspace) as session, pytest.raises(NotFoundError) as caught:
                call(name, session, id)
            answers.append(str(caught.value).replace(str(id), "..."))
        assert answers[0] == answers[1], name
    with committed_db.session(committed_workspace) as session:
        assert [call(name, session, foreign.id) for name in ("find", "find_by_label", "find_by_content")] == [None, None, []]
        assert not definitions.list_all(session).items
        assert not definitions.list_labels(session).items
        with pytest.raises(ReferenceNotFoundError):
            make(session, parent_id=foreign.id)
    with committed_db.session("elsewhere") as session:
        assert stored(session, foreign.id) == before


def test_twins_have_every_function() -> None:
    """The async module has the same names in the same order, and the data objects are the same."""
    assert adefinitions.__all__ == definitions.__all__
    for name in definitions.__all__:
        twin, function = getattr(adefinitions, name), getattr(definitions, name)
        assert getattr(twin, "__stemma_twin__", twin) is function


async def test_twins_do_the_same(async_session: AsyncSession) -> None:
    """Made, forked, walked, compared and labelled by the same code."""
    root = await adefinitions.create(async_session, DefinitionCreate(name="Trolley", content=CONTENT))
    child = await adefinitions.fork(async_session, root.id, DefinitionFork(content=OTHER))
    assert await adefinitions.ancestors(async_session, child.id) == [root]
    assert (await adefinitions.diff(async_session, root.id, child.id)).apply(CONTENT) == OTHER
    await adefinitions.set_label(async_session, "production", root.id)
    with pytest.raises(StillReferencedError):
        await adefinitions.delete(async_session, root.id, subtree=True)
    await adefinitions.delete_label(async_session, "production")
    assert await adefinitions.delete(async_session, root.id, subtree=True) == 2
