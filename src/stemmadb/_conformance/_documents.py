"""Documents of a pack: every JSONB column has one, which is frozen and leads from version 0 to its newest without a gap."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel
from sqlalchemy import JSON

from stemmadb.documents import Document, DocumentColumn, check_upcasters
from stemmadb.errors import ConfigurationError
from stemmadb.packs import Pack
from stemmadb.reports import Finding


def check(pack: Pack) -> Iterator[Finding]:
    """Yield what is wrong with the documents of a pack."""
    for entity in pack.entities:
        for column in entity.__table__.columns:
            place = f"{entity.__tablename__}.{column.name}"
            document: type[Document] | None = column.info.get("document")
            if document is None:
                if isinstance(column.type, JSON | DocumentColumn):
                    yield Finding("column_without_document", "error", place, "it would hold anything: use document_field()")
                continue
            # A generated default has no text of its own.
            default = getattr(column.server_default, "arg", None)
            if not column.nullable and default is not None and '"schema_version"' not in str(default):
                yield Finding("default_without_version", "error", place, f"its default {default} names no schema_version")
            yield from _document(place, document)


def _document(place: str, document: type[Document]) -> Iterator[Finding]:
    if document.newest_version < 1:
        yield Finding("document_without_version", "error", place, f"say which: class {document.__name__}(Document, version=1)")
    for model in sorted(_models(document, set()), key=lambda model: model.__name__):
        if not model.model_config.get("frozen"):
            yield Finding("mutable_document", "error", f"{place}: {model.__name__}", "an edit in place would be lost: keep it frozen")
    try:
        check_upcasters([document])
    except ConfigurationError as error:
        yield Finding("missing_upcaster", "error", place, str(error))


def _models(annotation: Any, seen: set[type[BaseModel]]) -> set[type[BaseModel]]:
    """Return every model that a value of this type may hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if annotation not in seen:
            seen.add(annotation)
            for field in annotation.model_fields.values():
                _models(field.annotation, seen)
        return seen
    for argument in get_args(annotation):
        _models(argument, seen)
    return seen
