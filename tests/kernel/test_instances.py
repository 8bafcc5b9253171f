"""Entities made of SQL text are what SQLAlchemy's own loading would have made."""

import gc
import weakref
from uuid import UUID

import pytest
from sqlalchemy import event, inspect, select, text
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import Session, undefer
from sqlalchemy.orm.exc import StaleDataError

from stemmadb._instances import Loader
from stemmadb.evaluation import definitions
from stemmadb.evaluation.definitions import DefinitionCreate
from stemmadb.evaluation.documents import DefinitionContent
from stemmadb.evaluation.entities import Definition, DefinitionLabel
from stemmadb.query import sql
from stemmadb.testing import assert_max_queries, count_queries

ALL = sql(Definition, "SELECT {columns} FROM stemma.definitions WHERE definitions.workspace_id = :workspace_id ORDER BY definitions.id")
WITH_CONTENT = sql(
    Definition, "SELECT {columns} FROM stemma.definitions WHERE definitions.workspace_id = :workspace_id", undefer=["content"]
)
LABELS = sql(DefinitionLabel, "SELECT {columns} FROM stemma.definition_labels WHERE definition_labels.workspace_id = :workspace_id")
OUTER = sql(Definition, "SELECT {columns} FROM (VALUES (1)) AS one (n) LEFT JOIN stemma.definitions ON definitions.id = :id")
CONTENT = DefinitionContent(preamble="p", template="t")


@pytest.fixture
def made(session: Session) -> UUID:
    """The id of a definition that the session does not hold."""
    found = definitions.create(session, DefinitionCreate(name="Trolley", content=CONTENT)).id
    session.expunge_all()
    return found


def test_an_entity_is_as_sqlalchemy_makes_it(session: Session, made: UUID) -> None:
    """The same values, key, state and unloaded columns; nothing is dirty."""
    (ours,) = ALL.all(session)
    mine = inspect(ours)
    facts = (mine.key, mine.persistent, mine.modified, mine.expired, set(mine.unloaded), mine.session)
    values = {name: value for name, value in ours.__dict__.items() if name != "_sa_instance_state"}
    session.expunge_all()
    theirs = session.scalars(select(Definition)).one()
    their = inspect(theirs)
    assert facts == (their.key, their.persistent, their.modified, their.expired, set(their.unloaded), their.session)
    assert values == {name: value for name, value in theirs.__dict__.items() if name != "_sa_instance_state"}
    assert theirs.id == made


def test_it_is_saved_like_any_other(session: Session, made: UUID) -> None:
    """An assignment is flushed under the optimistic lock, and a stale one is refused."""
    found = ALL.all(session)[0]
    found.message = "changed"
    session.flush()
    assert found.version == 2
    session.execute(text("UPDATE stemma.definitions SET message = 'theirs' WHERE id = :id"), {"id": made})
    found.message = "mine"
    with pytest.raises(StaleDataError):
        session.flush()


def test_one_row_is_one_object(session: Session, made: UUID) -> None:
    """However it is read, and as long as somebody holds it; a key of another kind than id as well."""
    first = ALL.all(session)[0]
    assert ALL.one_or_none(session) is first
    assert session.get(Definition, (first.workspace_id, made)) is first
    label = definitions.set_label(session, "x", made)
    assert LABELS.all(session) == [label]
    gone = weakref.ref(first)
    del first
    gc.collect()
    assert gone() is None
    assert ALL.all(session)[0].id == made


def test_deferred_columns_raise(session: Session, made: UUID) -> None:
    """They are not loaded behind the caller's back, and stay loaded when they were."""
    found = ALL.all(session)[0]
    with count_queries() as sent, pytest.raises(InvalidRequestError):
        _ = found.content
    assert sent.count == 0
    session.scalars(select(Definition).options(undefer(Definition.content)).execution_options(populate_existing=True)).one()
    ALL.all(session)
    assert found.content == CONTENT


@pytest.mark.parametrize("watched", [False, True])
def test_deferred_columns_are_fetched_where_that_is_asked_for(session: Session, made: UUID, watched: bool) -> None:
    """With the rows, in one statement; an object that the session has gets them as well, and is not dirty."""
    if watched:
        event.listen(session, "loaded_as_persistent", lambda _session, _object: None)
    held = ALL.all(session)
    with assert_max_queries(1):
        assert WITH_CONTENT.write_all(session) == held
        assert held[0].content == CONTENT
    assert not inspect(held[0]).modified
    session.expunge_all()
    assert WITH_CONTENT.one_or_none(session).content == CONTENT


def test_reading_again_leaves_an_object_alone(session: Session, made: UUID) -> None:
    """Unless it is asked for as it is now."""
    found = ALL.all(session)[0]
    session.execute(text("UPDATE stemma.definitions SET name = 'Other' WHERE id = :id"), {"id": made})
    assert ALL.all(session)[0].name == "Trolley"
    assert ALL.write_all(session) == [found]
    assert found.name == "Other"


def test_what_was_expired_is_completed(session: Session, made: UUID) -> None:
    """By the rows that come anyway, without a further statement."""
    found = ALL.all(session)[0]
    session.expire(found)
    with assert_max_queries(1):
        ALL.all(session)
        assert (found.id, found.name) == (made, "Trolley")
    assert not inspect(found).expired


def test_unflushed_changes_stay(session: Session, made: UUID) -> None:
    """Without autoflush neither kind of reading takes a change away, or the version that it was made on."""
    found = ALL.all(session)[0]
    session.execute(text("UPDATE stemma.definitions SET message = 'theirs' WHERE id = :id"), {"id": made})
    with session.no_autoflush:
        found.message = "mine"
        ALL.all(session)
        ALL.write_all(session)
        assert (found.message, found.version) == ("mine", 1)
    with pytest.raises(StaleDataError):
        session.flush()


def test_what_was_added_is_found(session: Session, made: UUID) -> None:
    """Pending objects are flushed first."""
    added = Definition(name="Added", content=CONTENT)
    session.add(added)
    assert ALL.all(session)[-1] is added


def test_a_row_without_a_key_is_no_entity(session: Session, made: UUID) -> None:
    """The empty side of an outer join."""
    assert OUTER.all(session, id=None) == []
    assert OUTER.one_or_none(session, id=None) is None
    assert OUTER.one_or_none(session, id=made) is not None


def test_only_listeners_of_the_application_change_the_way(session: Session) -> None:
    """What the library itself listens for does not bring its own statements to SQLAlchemy's loading, which takes as long again."""
    import stemmadb.documents
    import stemmadb.repository  # noqa: F401

    loader = Loader(Definition, [column for column in Definition.__table__.columns if column.key != "content"])
    assert loader.is_alone(session)
    event.listen(session, "do_orm_execute", lambda _execution: None)
    assert not loader.is_alone(session)
    assert not loader.is_watched(session)


def test_listeners_of_the_application_are_called(session: Session, made: UUID) -> None:
    """An application that listens for loaded or refreshed entities hears of ours."""
    heard: list[str] = []

    def loaded(target: Definition, _context: object) -> None:
        heard.append(target.name)

    def refreshed(target: Definition, _context: object, _attributes: object) -> None:
        heard.append(target.name.upper())

    event.listen(Definition, "load", loaded)
    event.listen(Definition, "refresh", refreshed)
    try:
        held = ALL.all(session)
        ALL.write_all(session)
    finally:
        event.remove(Definition, "load", loaded)
        event.remove(Definition, "refresh", refreshed)
    assert heard == ["Trolley", "TROLLEY"]
    assert held[0].id == made
