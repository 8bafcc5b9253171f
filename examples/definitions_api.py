"""
A web service that serves definitions, each caller those of the workspace that its API key opens.

    DATABASE_URL=postgresql://... python examples/definitions_api.py --port 8000
    curl -H "X-API-Key: stm_k_..." http://127.0.0.1:8000/definitions

A key needs the scope ``definitions:read``, to change something ``definitions:write``; ``stemmadb keys issue`` makes one. What happens in a
request: the key is verified in a session without a workspace, then the work is done in a session in the key's workspace, which commits
before the answer is sent. No endpoint names a workspace, so none can name a wrong one. Without DATABASE_URL the service starts a PostgreSQL
of its own, which is empty.

Needs ``fastapi`` and ``uvicorn``.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import uvicorn
from fastapi import Depends, FastAPI, Header, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, SecretStr
from sqlalchemy.ext.asyncio import AsyncSession

import stemmadb
from stemmadb import errors
from stemmadb.aio.accounts import api_keys
from stemmadb.aio.evaluation import definitions
from stemmadb.database import Database
from stemmadb.evaluation.data import DefinitionCreate, DefinitionFork, DefinitionUpdate
from stemmadb.evaluation.documents import DefinitionContent
from stemmadb.evaluation.entities import Definition
from stemmadb.paging import Page

logger = logging.getLogger("definitions_api")

READ, WRITE = "definitions:read", "definitions:write"
# By the code of an error, which never changes. What is not here is nothing that the caller did: 500, without the message.
STATUS = {
    "not_found": 404,
    "validation": 422,
    "constraint_violation": 422,
    "invalid_cursor": 422,
    "document_too_large": 413,
    "conflict": 409,
    "version_conflict": 409,
    "frozen": 409,
    "still_referenced": 409,
    "reference_not_found": 409,
    "authentication": 401,
    "permission_denied": 403,
    "database_unavailable": 503,
    "connection_lost": 503,
    "pool_timeout": 503,
    "lock_timeout": 503,
    "serialization": 503,
    "query_timeout": 504,
}


# ------------------------------------------------------------------------------------------------------ what is sent and got


class NewDefinition(BaseModel):
    """A definition to be made."""

    name: str
    template: str
    preamble: str = ""
    message: str | None = None


class NewFork(BaseModel):
    """A version of a definition; what is absent stays as it is there."""

    name: str | None = None
    template: str | None = None
    preamble: str | None = None
    message: str | None = None


class Change(BaseModel):
    """Another name for a definition that nothing depends on yet."""

    name: str
    version: int
    """The version that the caller read: somebody else's change is not overwritten."""


class DefinitionOut(BaseModel):
    """A definition without its texts."""

    id: UUID
    parent_id: UUID | None
    name: str
    message: str | None
    depth: int
    frozen: bool
    version: int
    created_at: datetime

    @classmethod
    def of(cls, row: Definition) -> DefinitionOut:
        """Return what is sent of a row."""
        return cls(
            id=row.id,
            parent_id=row.parent_id,
            name=row.name,
            message=row.message,
            depth=row.depth,
            frozen=row.frozen_at is not None,
            version=row.version,
            created_at=row.created_at,
        )


class WholeDefinition(DefinitionOut):
    """A definition with its texts."""

    preamble: str
    template: str


class DefinitionPage(BaseModel):
    """Some of a list, and where it goes on."""

    items: list[DefinitionOut]
    next_cursor: str | None = Field(description="for the next page; null on the last one")

    @classmethod
    def of(cls, page: Page[Definition]) -> DefinitionPage:
        """Return what is sent of a page."""
        return cls(items=[DefinitionOut.of(row) for row in page.items], next_cursor=page.next_cursor)


# ---------------------------------------------------------------------------------------------------------------- the caller


class Caller:
    """Whoever sent a request, and the workspace in which it is answered."""

    def __init__(self, db: Database, user_id: UUID, workspace_id: UUID) -> None:
        self.user_id = user_id
        self._db = db
        self._workspace_id = workspace_id

    def session(self) -> AbstractAsyncContextManager[AsyncSession]:
        """Open a session in the caller's workspace; it commits at the end of its block, before the answer is sent."""
        return self._db.async_session(workspace=self._workspace_id)


def caller_with(scope: str) -> Any:
    """Make the dependency that lets those in whose key has a scope."""

    async def caller(request: Request, x_api_key: Annotated[str, Header()] = "") -> Caller:
        db: Database = request.app.state.db
        async with db.async_session() as session:
            identity = await api_keys.verify(session, SecretStr(x_api_key), required_scope=scope)
        if identity.workspace_id is None:
            raise errors.PermissionDeniedError(scope, "a personal key opens no workspace")
        return Caller(db, identity.user_id, identity.workspace_id)

    return Depends(caller)


Reader = Annotated[Caller, caller_with(READ)]
Writer = Annotated[Caller, caller_with(WRITE)]


# ------------------------------------------------------------------------------------------------------------- the endpoints


async def list_definitions(
    caller: Reader, cursor: str | None = None, limit: Annotated[int, Query(ge=1, le=200)] = 50, q: str | None = None
) -> DefinitionPage:
    """The newest first; with ``q`` those that have its words."""
    async with caller.session() as session:
        if q is not None:
            return DefinitionPage.of(await definitions.search(session, q, cursor=cursor, limit=limit))
        return DefinitionPage.of(await definitions.list_all(session, cursor=cursor, limit=limit))


async def get_definition(caller: Reader, definition_id: str) -> WholeDefinition:
    """One definition with its texts."""
    async with caller.session() as session:
        found = await definitions.get_with_content(session, definition_id)
    row = DefinitionOut.of(found.definition)
    return WholeDefinition(**row.model_dump(), preamble=found.content.preamble, template=found.content.template)


async def create_definition(caller: Writer, new: NewDefinition) -> DefinitionOut:
    """Make a definition without a parent."""
    content = DefinitionContent(preamble=new.preamble, template=new.template)
    data = DefinitionCreate(name=new.name, content=content, message=new.message, created_by_id=caller.user_id)
    async with caller.session() as session:
        return DefinitionOut.of(await definitions.create(session, data))


async def fork_definition(caller: Writer, definition_id: str, new: NewFork) -> DefinitionOut:
    """Make a version of a definition, which is frozen by it."""
    texts = new.model_dump(include={"preamble", "template"}, exclude_none=True)
    others = new.model_dump(include={"name", "message"}, exclude_none=True)
    async with caller.session() as session:
        if texts:
            parent = await definitions.get_with_content(session, definition_id)
            others["content"] = parent.content.replace(**texts)
        return DefinitionOut.of(await definitions.fork(session, definition_id, DefinitionFork(created_by_id=caller.user_id, **others)))


async def change_definition(caller: Writer, definition_id: str, change: Change) -> DefinitionOut:
    """Rename a definition."""
    async with caller.session() as session:
        data = DefinitionUpdate(name=change.name)
        return DefinitionOut.of(await definitions.update(session, definition_id, data, expected_version=change.version))


async def list_ancestors(caller: Reader, definition_id: str) -> list[DefinitionOut]:
    """What a definition descends from, the root first."""
    async with caller.session() as session:
        return [DefinitionOut.of(row) for row in await definitions.ancestors(session, definition_id)]


async def refuse(request: Request, error: Exception) -> JSONResponse:
    """Answer with the code of an error, which clients may rely on, and its message, which names no value of a row."""
    code = error.code if isinstance(error, errors.StemmaError) else "internal"
    status = STATUS.get(code, 500)
    if status >= 500:
        logger.error("%s %s failed: %s", request.method, request.url.path, code)
    message = str(error) if status < 500 else "the request could not be answered: try again later"
    return JSONResponse({"code": code, "message": message}, status_code=status)


# ----------------------------------------------------------------------------------------------------------- the application


@asynccontextmanager
async def _with_database(app: FastAPI) -> AsyncIterator[None]:
    """Hold one Database as long as the service runs; its connections are given back when the last request is answered."""
    with stemmadb.connect() as db:
        app.state.db = db
        try:
            yield
        finally:
            await db.async_engine.dispose()


def create_app() -> FastAPI:
    """Make the application; ``uvicorn --factory`` takes this function."""
    app = FastAPI(title="Definitions", lifespan=_with_database)
    app.add_exception_handler(errors.StemmaError, refuse)
    app.get("/definitions")(list_definitions)
    app.post("/definitions", status_code=201)(create_definition)
    app.get("/definitions/{definition_id}")(get_definition)
    app.patch("/definitions/{definition_id}")(change_definition)
    app.post("/definitions/{definition_id}/forks", status_code=201)(fork_definition)
    app.get("/definitions/{definition_id}/ancestors")(list_ancestors)

    @app.get("/health")
    def health() -> JSONResponse:
        found = app.state.db.health()
        return JSONResponse({"ok": found.ok}, status_code=200 if found.ok else 503)

    return app


def main(argv: list[str] | None = None) -> None:
    """Serve until a signal comes; requests that have begun are answered."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    parser.add_argument("--port", type=int, default=8000, help="the port to listen on")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO)
    uvicorn.run(create_app(), host=options.host, port=options.port)


if __name__ == "__main__":
    main()
