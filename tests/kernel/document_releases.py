"""
Two releases of one document in one process, and the table that both write.

``OldNote`` is what the release before knows, ``NewNote`` what the new one does. The table remembers for each change which release made it,
and from which version to which, so that a test need not trust what a release says about itself.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypeAlias

from sqlalchemy import Connection, Engine, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from stemmadb.documents import Document, DocumentColumn, Raw


class OldNote(Document, version=2):
    """Version 0 had one tag, or none; version 1 a text that may not be absent; version 2 has several tags."""

    text: str
    tags: tuple[str, ...] = ()


class NewNote(Document, version=3):
    """Version 3 calls the text body, and gives each tag a weight."""

    body: str
    labels: Mapping[str, int] = {}


def _text_is_there(raw: Raw) -> Raw:
    """0 to 1: the text may be absent."""
    return {"text": "", **raw}


def _tag_becomes_tags(raw: Raw) -> Raw:
    """1 to 2: one tag was a string, several are a list."""
    kept = dict(raw)
    tag = kept.pop("tag", None)
    return {**kept, "tags": [tag] if tag else []}


def _tags_have_weights(raw: Raw) -> Raw:
    """2 to 3: a weight is 1, unless the step down has kept another."""
    kept = dict(raw)
    body, tags, weights = kept.pop("text"), kept.pop("tags", []), kept.pop("weights", {})
    return {**kept, "body": body, "labels": {tag: weights.get(tag, 1) for tag in tags}}


def _weights_are_kept_aside(raw: Raw) -> Raw:
    """3 to 2: version 2 knows no weights, but keeps what it does not know."""
    kept = dict(raw)
    body, labels = kept.pop("body"), kept.pop("labels", {})
    weights = {tag: weight for tag, weight in labels.items() if weight != 1}
    return {**kept, "text": body, "tags": list(labels), **({"weights": weights} if weights else {})}


for _note in (OldNote, NewNote):
    _note.upcast(0)(_text_is_there)
    _note.upcast(1)(_tag_becomes_tags)
NewNote.upcast(2)(_tags_have_weights)
NewNote.downcast(3)(_weights_are_kept_aside)


class _OldTables(DeclarativeBase):
    pass


class _NewTables(DeclarativeBase):
    pass


class OldRow(_OldTables):
    """The table as the release before sees it."""

    __tablename__ = "notes"
    __table_args__ = {"schema": "probe_releases"}

    id: Mapped[int] = mapped_column(primary_key=True)
    note: Mapped[OldNote | None] = mapped_column(DocumentColumn(OldNote))
    title: Mapped[str | None]
    version: Mapped[int] = mapped_column(default=1)
    updated_at: Mapped[datetime | None]


class NewRow(_NewTables):
    """The table as the new release sees it."""

    __tablename__ = "notes"
    __table_args__ = {"schema": "probe_releases"}

    id: Mapped[int] = mapped_column(primary_key=True)
    note: Mapped[NewNote | None] = mapped_column(DocumentColumn(NewNote))
    title: Mapped[str | None]
    version: Mapped[int] = mapped_column(default=1)
    updated_at: Mapped[datetime | None]


AnyRow: TypeAlias = type[OldRow] | type[NewRow]

_TABLES = """
CREATE SCHEMA probe_releases;
CREATE TABLE probe_releases.notes (
  id integer PRIMARY KEY,
  note jsonb,
  title text,
  version integer NOT NULL DEFAULT 1,
  updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE probe_releases.changes (
  id integer NOT NULL,
  release text NOT NULL,
  found integer,
  stored integer
);
CREATE FUNCTION probe_releases.remember() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF OLD.note IS DISTINCT FROM NEW.note THEN
    INSERT INTO probe_releases.changes
    VALUES (NEW.id, coalesce(current_setting('probe.release', true), ''),
            stemma.stemma_document_version(OLD.note), stemma.stemma_document_version(NEW.note));
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER notes_set_updated_at BEFORE UPDATE ON probe_releases.notes FOR EACH ROW EXECUTE FUNCTION stemma.stemma_set_updated_at();
CREATE TRIGGER notes_bump_version BEFORE UPDATE ON probe_releases.notes FOR EACH ROW EXECUTE FUNCTION stemma.stemma_bump_version();
CREATE TRIGGER notes_remember AFTER UPDATE ON probe_releases.notes FOR EACH ROW EXECUTE FUNCTION probe_releases.remember();
GRANT USAGE ON SCHEMA probe_releases TO stemma_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA probe_releases TO stemma_app;
"""


def make_tables(owner: Engine) -> None:
    """Make the table and its record of changes."""
    with owner.begin() as connection:
        connection.exec_driver_sql(_TABLES)


def drop_tables(owner: Engine) -> None:
    """Drop both."""
    with owner.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA probe_releases CASCADE")


def act_as(connection: Connection, release: str) -> None:
    """Say which release makes the changes of this transaction."""
    connection.execute(text("SELECT set_config('probe.release', :release, true)"), {"release": release})


def changes(connection: Connection) -> list[tuple[Any, ...]]:
    """Return every change of a note: the row, the release, the version that it found, the version that it stored."""
    return [tuple(row) for row in connection.execute(text("SELECT id, release, found, stored FROM probe_releases.changes ORDER BY id"))]
