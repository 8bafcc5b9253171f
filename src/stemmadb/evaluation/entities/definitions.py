"""Definitions, the labels that point at them, and the scenarios made from them."""

from datetime import datetime
from typing import Any, ClassVar, Self
from uuid import UUID

from pydantic import model_validator
from sqlalchemy import CheckConstraint, Index, UniqueConstraint, func, text

from stemmadb.entity import (
    Field,
    Mapped,
    NaturalKey,
    NotBlank,
    Versioned,
    WorkspaceEntity,
    document_field,
    generated_field,
    lineage_key,
    reference,
)
from stemmadb.errors import ValidationError
from stemmadb.evaluation.documents import DefinitionContent, ScenarioContent


class Definition(Versioned, WorkspaceEntity, table=True):
    """
    One version of a scenario definition.

    Versions form a forest: ``parent_id`` is the version this one was forked from, and a root has none. A version is frozen
    by its first child, scenario or run; a change is a fork.
    """

    __tablename__ = "definitions"
    __table_args__: ClassVar[tuple[Any, ...]] = (
        *WorkspaceEntity.keys(),
        UniqueConstraint("workspace_id", "id", "root_id", "depth", name="definitions_lineage_key"),
        # One level below its parent and in its parent's tree: since depth grows along every edge, no statement can make a cycle.
        lineage_key("parent_id", "root_id", "parent_depth"),
        CheckConstraint("btrim(name) <> '' AND length(name) <= 200", name="name"),
        CheckConstraint("CASE WHEN parent_id IS NULL THEN root_id = id AND depth = 0 ELSE depth > 0 END", name="lineage"),
        CheckConstraint("jsonb_typeof(content) = 'object'", name="content_object"),
        # Every ancestry query walks this edge downwards.
        Index("definitions_parent_id_idx", "workspace_id", "parent_id", postgresql_include=["id"]),
        # A whole tree, level by level, is one range of this index.
        Index("definitions_root_id_depth_idx", "workspace_id", "root_id", "depth", postgresql_include=["id", "parent_id"]),
        Index("definitions_created_at_id_idx", "workspace_id", text("created_at DESC"), text("id DESC")),
        Index("definitions_content_hash_idx", "workspace_id", "content_hash"),
        Index("definitions_name_created_at_idx", "workspace_id", "name", text("created_at DESC")),
        Index("definitions_created_by_id_idx", "created_by_id"),
        Index(
            "definitions_words_idx",
            text("stemma.stemma_definition_words_v1(workspace_id, name, message, content)"),
            postgresql_using="gin",
        ),
    )

    parent_id: Mapped[UUID | None] = Field(default=None)
    """The version this one was forked from; None for a root. Never changes."""
    root_id: Mapped[UUID] = Field(default=None)
    """The root of its tree, a root's own id. Never changes."""
    depth: Mapped[int] = Field(default=0, ge=0)
    """Levels below the root. Never changes."""
    parent_depth: Mapped[int | None] = generated_field("depth - 1")
    """Only there for the foreign key."""
    name: Mapped[NotBlank] = Field(max_length=200)
    content: Mapped[DefinitionContent] = document_field(DefinitionContent, deferred=True)
    content_version: Mapped[int | None] = generated_field("stemma.stemma_document_version(content)")
    """The ``schema_version`` of the stored content; 0 = missing, -1 = malformed."""
    content_hash: Mapped[bytes | None] = generated_field("stemma.stemma_document_hash(content)")
    """SHA-256 of the canonical JSON of the content."""
    message: Mapped[str | None] = Field(default=None)
    """Why this version exists. Stays editable when the version is frozen."""
    frozen_at: Mapped[datetime | None] = Field(default=None)
    """When the first child, scenario or run referred to it; None while it can be edited."""
    version: Mapped[int] = Field(default=1, ge=1)
    """Counts saves of this row, for optimistic locking. Starts at 1. Not a version of the document."""
    created_by_id: Mapped[UUID | None] = Field(default=None, foreign_key="users.id", ondelete="SET NULL")

    @model_validator(mode="after")
    def _place_in_tree(self) -> Self:
        if "root_id" not in self.model_fields_set:
            if self.parent_id is not None:
                raise ValidationError("Definition.root_id: a child names the root of its parent's tree", "root_id")
            self.root_id = self.id
        return self


class DefinitionLabel(Versioned, NaturalKey, WorkspaceEntity, table=True):  # pyright: ignore[reportIncompatibleMethodOverride]  (fk)
    """
    A name that points at a definition and can be moved, as a branch's does: ``production``, ``trolley/candidate``.

    A label does not freeze its definition, but a labelled definition cannot be deleted.
    """

    __tablename__ = "definition_labels"
    __table_args__: ClassVar[tuple[Any, ...]] = (
        *WorkspaceEntity.keys("name"),
        reference("definition_id", "definitions", ondelete="NO ACTION"),
        CheckConstraint("name ~ '^[A-Za-z0-9][A-Za-z0-9._/-]{0,199}$'", name="name"),
        Index("definition_labels_definition_id_idx", "workspace_id", "definition_id"),
        Index("definition_labels_moved_by_id_idx", "moved_by_id"),
    )

    name: Mapped[str] = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,199}$")
    definition_id: Mapped[UUID]
    is_protected: Mapped[bool] = Field(default=False)
    """Moving or deleting it needs ``force=True``."""
    description: Mapped[str | None] = Field(default=None)
    moved_by_id: Mapped[UUID | None] = Field(default=None, foreign_key="users.id", ondelete="SET NULL")
    moved_at: Mapped[datetime] = Field(default=None, server_default=func.now())
    version: Mapped[int] = Field(default=1, ge=1)
    """Counts moves and edits, for optimistic locking. Starts at 1."""


class Scenario(WorkspaceEntity, table=True):
    """
    One variant of a definition. Its content is fixed from birth; its name is not.

    Equal content under one definition is one row, so that generating twice adds nothing, and two runs compare by scenario.
    """

    __tablename__ = "scenarios"
    __table_args__: ClassVar[tuple[Any, ...]] = (
        *WorkspaceEntity.keys(),
        reference("definition_id", "definitions", ondelete="CASCADE"),
        CheckConstraint("btrim(name) <> ''", name="name"),
        CheckConstraint("jsonb_typeof(content) = 'object'", name="content_object"),
        UniqueConstraint("workspace_id", "definition_id", "name"),
        UniqueConstraint("workspace_id", "definition_id", "content_hash"),
    )

    definition_id: Mapped[UUID]
    name: Mapped[NotBlank]
    content: Mapped[ScenarioContent] = document_field(ScenarioContent, deferred=True)
    content_version: Mapped[int | None] = generated_field("stemma.stemma_document_version(content)")
    """The ``schema_version`` of the stored content; 0 = missing, -1 = malformed."""
    content_hash: Mapped[bytes | None] = generated_field("stemma.stemma_document_hash(content)")
    """SHA-256 of the canonical JSON of the content."""
