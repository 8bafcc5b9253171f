"""Tables, of which only the first is nearly right."""

from enum import StrEnum
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import Enum, ForeignKeyConstraint, Index, PrimaryKeyConstraint, Text, UniqueConstraint, Uuid
from sqlalchemy.dialects.postgresql import JSONB
from tests.planted.documents import Unversioned, WithGap, WithLoosePart

from stemmadb.entity import Entity, Field, Mapped, SoftDelete, Versioned, WorkspaceEntity, document_field, enum_field, reference


class PlantedMood(StrEnum):
    """A label that is not in capitals."""

    GOOD = "GOOD"
    BAD = "bad"


class PlantedParent(WorkspaceEntity, table=True):
    """Its second key does not start with the workspace."""

    __tablename__ = "planted_parents"
    __table_args__ = (*WorkspaceEntity.keys(), UniqueConstraint("id", name="planted_parents_id_key"))

    name: Mapped[str]


class PlantedChild(WorkspaceEntity, Versioned, table=True):
    """References that reach too far, or are not indexed; names that nobody expects; no policy in the database."""

    __tablename__ = "planted_children"
    __table_args__ = (
        *WorkspaceEntity.keys(),
        ForeignKeyConstraint(["parent_id"], ["stemma.planted_parents.id"], ondelete="CASCADE"),
        reference("second_parent_id", "planted_parents", ondelete="SET NULL"),
        ForeignKeyConstraint(["workspace_id", "third_parent_id"], ["stemma.planted_parents.workspace_id", "stemma.planted_parents.id"]),
        Index("planted_children_second_parent_id_idx", "workspace_id", "second_parent_id"),
        Index("planted_children_third_parent_id_idx", "workspace_id", "third_parent_id", postgresql_where="name <> ''"),
        Index("planted_children_name_idx", "name"),
        Index("children_of_planted", "workspace_id", "name"),
        Index("planted_children_with_a_name_that_goes_on_and_on_idx", "workspace_id", "name"),
    )

    parent_id: Mapped[UUID]
    second_parent_id: Mapped[UUID | None] = None
    third_parent_id: Mapped[UUID | None] = None
    name: Mapped[str]
    mood: Mapped[PlantedMood] = enum_field(PlantedMood, "planted_mood", default=PlantedMood.GOOD)


class PlantedLoose(WorkspaceEntity, table=True):
    """Nothing removes its rows with their workspace."""

    __tablename__ = "planted_loose"
    __table_args__ = (PrimaryKeyConstraint("workspace_id", "id"),)


class PlantedTag(SoftDelete, table=True):
    """A global table with rows of workspaces, secrets in the open, and columns that hold anything."""

    __tablename__ = "planted_tags"
    __table_args__ = (
        ForeignKeyConstraint(
            ["workspace_id", "parent_id"], ["stemma.planted_parents.workspace_id", "stemma.planted_parents.id"], ondelete="CASCADE"
        ),
        Index("planted_tags_parent_id_idx", "workspace_id", "parent_id"),
    )

    id: Mapped[UUID] = Field(sa_type=Uuid())
    workspace_id: Mapped[UUID]
    parent_id: Mapped[UUID]
    camelCase: Mapped[str | None] = Field(default=None, sa_type=Text())
    password: Mapped[str | None] = None
    access_token: Mapped[str | None] = None
    secret: Mapped[str | None] = Field(default=None, secret=True)
    anything: Mapped[Any] = Field(default=None, sa_type=JSONB())
    kind: Mapped[str] = Field(default="a", sa_type=Enum("a", "b", name="planted_kind", schema="stemma"))
    mood: Mapped[PlantedMood] = enum_field(PlantedMood, "planted_mood", default=PlantedMood.GOOD)
    part: Mapped[WithLoosePart] = document_field(WithLoosePart, server_default="{}", default_factory=WithLoosePart)
    gap: Mapped[WithGap] = document_field(WithGap)
    unversioned: Mapped[Unversioned] = document_field(Unversioned)


class PlantedTimeless(Entity, table=True):
    """Nobody knows when its rows changed."""

    __tablename__ = "planted_timeless"

    updated_at: ClassVar[Any]


class PlantedLeft(Entity, table=True):
    """Its revision does not take it away again, but for a column."""

    __tablename__ = "planted_left"

    extra: Mapped[str | None] = None


class PlantedSeeded(Entity, table=True):
    """What the seeds write."""

    __tablename__ = "planted_seeded"

    text: Mapped[str]
