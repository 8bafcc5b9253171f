"""Entities of an application and their factories. Run by ``test_factories.py`` in a process of its own."""

from typing import Annotated, Any, ClassVar
from uuid import UUID

import pytest
from pydantic import AfterValidator
from sqlalchemy import CheckConstraint, Engine, UniqueConstraint, text

from stemmadb.accounts.entities import User
from stemmadb.accounts.factories import UserFactory
from stemmadb.database import Database
from stemmadb.documents import Document
from stemmadb.entity import Entity, Field, Mapped, NotBlank, document_field
from stemmadb.errors import ConfigurationError, ConstraintViolationError
from stemmadb.testing.factories import EntityFactory, PostGenerated, Use, factory_of


def _even(value: int) -> int:
    if value % 2:
        raise ValueError("is odd")
    return value


def _palindrome(value: str) -> str:
    if not value or value != value[::-1]:
        raise ValueError("is no palindrome")
    return value


class FactoryNoteBody(Document, version=1):
    """The document of an application."""

    lines: tuple[str, ...]
    stars: float | None = None


@FactoryNoteBody.upcast(0)
def _body_0(raw: dict[str, Any]) -> dict[str, Any]:
    return raw


class FactoryNote(Entity, table=True):
    """A table of an application that has no rules of its own."""

    __tablename__ = "factory_notes"
    __table_args__: ClassVar[tuple[Any, ...]] = (
        UniqueConstraint("owner_id", "title"),
        CheckConstraint("closed_by IS NULL OR closed", name="closed"),
    )

    owner_id: Mapped[UUID] = Field(foreign_key="users.id", ondelete="CASCADE")
    title: Mapped[NotBlank] = Field(max_length=40)
    places: Mapped[Annotated[int, AfterValidator(_even)]] = Field(ge=10, le=20)
    body: Mapped[FactoryNoteBody] = document_field(FactoryNoteBody)
    closed: Mapped[bool] = Field(default=False)
    closed_by: Mapped[str | None] = Field(default=None)
    mirror: Mapped[Annotated[str, AfterValidator(_palindrome)] | None] = Field(default=None)


def _answer(value: int) -> int:
    if value != 424_242:
        raise ValueError("is not the answer")
    return value


class FactoryRiddle(Entity, table=True):
    """A column that nobody can guess."""

    __tablename__ = "factory_riddles"

    answer: Mapped[Annotated[int, AfterValidator(_answer)]]


class FactoryNoteFactory(EntityFactory[FactoryNote]):
    """What an application writes."""

    title = Use(lambda: "a title")
    mirror = "abba"
    closed_by = PostGenerated(lambda _, values: "Ada" if values.get("closed") else None)


@pytest.mark.offline
def test_an_entity_of_an_application_has_a_factory_at_once() -> None:
    """Made from its columns: validators are asked, what CHECKs tie together keeps its default."""
    with pytest.raises(ConfigurationError, match=r"FactoryRiddle\.answer"):
        factory_of(FactoryRiddle).build()
    note = factory_of(FactoryNote).build(mirror=None)
    assert (note.closed, note.closed_by) == (False, None)
    assert note.places in range(10, 21, 2)
    assert note.title.strip()
    assert factory_of(FactoryNote) is factory_of(FactoryNote)


def test_they_are_stored(committed_db: Database, owner: Engine) -> None:
    """With the users that they point at; what a CHECK ties together and nobody declared is the database's to refuse."""
    with owner.begin() as connection:
        FactoryNote.__table__.create(connection)
        connection.execute(text("GRANT ALL ON stemma.factory_notes TO stemma_app"))
    with committed_db.session() as session:
        notes = factory_of(FactoryNote).create_many(session, 50, mirror=None)
        assert len({note.owner_id for note in notes}) == 50
        assert len(factory_of(FactoryNote).create_many(session, 50, mirror=None, owner_id=notes[0].owner_id)) == 50
        with pytest.raises(ConstraintViolationError):
            factory_of(FactoryNote).create(session, mirror=None, closed_by="Ada")


@pytest.mark.offline
def test_an_application_derives_its_own() -> None:
    """Columns are declared as polyfactory has them; theirs is the default when it says so, until another one says so."""
    note = FactoryNoteFactory.build(closed=True)
    assert (note.title, note.mirror, note.closed_by) == ("a title", "abba", "Ada")
    assert factory_of(FactoryNote) is not FactoryNoteFactory

    class AdminFactory(UserFactory):
        name = "Admin"

    assert AdminFactory.build().name == "Admin"
    assert factory_of(User) is UserFactory
    own = type("Own", (FactoryNoteFactory,), {"__set_as_default_factory_for_type__": True})
    assert factory_of(FactoryNote) is own
