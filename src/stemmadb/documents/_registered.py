"""The documents and document columns of the installed packs and of the kernel, and how they are named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sqlalchemy import Column

from stemmadb import errors
from stemmadb.documents._steps import known_documents

if TYPE_CHECKING:
    from stemmadb.documents._document import Document


def registered_columns() -> Mapping[str, Column[Any]]:
    """Return every document column of the installed packs and of the kernel, in the order of the packs, by ``table.column``."""
    # They import this package.
    from stemmadb import infra
    from stemmadb.packs import packs

    entities = [entity for pack in packs() for entity in pack.entities] + [infra.SeedHistory, infra.IdempotencyKey]
    return {
        f"{entity.__tablename__}.{column.name}": column
        for entity in entities
        for column in entity.__table__.columns
        if column.info["document"] is not None
    }


def registered_documents() -> Mapping[str, type[Document]]:
    """Return the documents of these columns, in the order of their names."""
    documents = [column.info["document"] for column in registered_columns().values()]
    return {document.__name__: document for document in sorted(documents, key=lambda document: document.__name__)}


def document_called(name: str) -> type[Document]:
    """
    Return the document class of a name: one of a registered column, else the only one that has been imported.

    Raises:
        ValidationError: there is none, or several are called so.
    """
    registered = registered_documents()
    if name in registered:
        return registered[name]
    imported = [document for document in known_documents if document.__name__ == name]
    if len(imported) == 1:
        return imported[0]
    if imported:
        raise errors.ValidationError(f"{len(imported)} documents are called {name}: give them names of their own", "document")
    known = ", ".join(registered)
    raise errors.ValidationError(f"no document is called {name!r}: import its module first, or use one of {known}", "document")
