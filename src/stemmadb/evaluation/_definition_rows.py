"""What the modules about definitions share: ids as callers give them, rows that are missing, stored contents."""

import logging
from uuid import UUID

from sqlalchemy.orm import Session

from stemmadb.entity import Id, parse_id
from stemmadb.errors import DocumentError, NotFoundError
from stemmadb.evaluation.documents import DefinitionContent
from stemmadb.evaluation.entities import Definition
from stemmadb.query import sql

# The private modules of the pack log under the name that callers import.
log = logging.getLogger("stemmadb.evaluation.definitions")


def key_of(definition_id: Id) -> UUID:
    """
    Return the id as a UUID.

    Raises:
        NotFoundError: it is malformed, so no definition has it.
    """
    try:
        return parse_id(definition_id, "Definition")
    except NotFoundError:
        log.warning("definition %r was not found: that is no id", definition_id)
        raise


def missing(definition_id: Id) -> NotFoundError:
    """Log that there is no such definition in the session's workspace, and return the error that says so."""
    log.warning("definition %s was not found", definition_id)
    return NotFoundError("Definition", definition_id)


def read_content(definition_id: UUID, stored: str) -> DefinitionContent:
    """
    Return a stored content in its newest shape.

    Raises:
        CorruptDocumentError, UnknownSchemaVersionError: it cannot be read; the error names the definition.
    """
    try:
        return DefinitionContent.load(stored)
    except DocumentError as error:
        raise error.located("definitions", "content", definition_id) from None


_BY_ID = sql(Definition, "SELECT {columns} FROM stemma.definitions WHERE definitions.workspace_id = :workspace_id AND definitions.id = :id")


def read_definition(session: Session, key: UUID) -> Definition | None:
    """Return a definition, or None."""
    log.debug("reading definition %s", key)
    # As it is now, also when the session has read it before: this is how a caller recovers from a VersionConflictError.
    return _BY_ID.write(session, id=key)
