"""A thousand tasks of twenty workspaces over five connections, and what each of them saw."""

from __future__ import annotations

import asyncio
from uuid import UUID

from sqlalchemy import text
from tests.evaluation.run_setups import make_definition

from stemmadb import tenancy
from stemmadb.aio.evaluation import definitions as adefinitions
from stemmadb.database import Database
from stemmadb.evaluation.data import DefinitionCreate
from stemmadb.evaluation.documents import DefinitionContent
from stemmadb.testing import make_workspace

WORKSPACES, TASKS, CONNECTIONS = 20, 1000, 5
_CONTENT = DefinitionContent(preamble="", template="t")


async def interleave(db: Database) -> list[str]:
    """
    Run them, and return what one of them saw of another workspace.

    Each reads in the workspace of its context, adds a row in a savepoint that is rolled back, comes to another workspace in a nested
    context, and is back in its own one; between all of these the others go on.
    """
    rows: list[tuple[UUID, UUID]] = []
    for number in range(WORKSPACES):
        workspace_id = make_workspace(db, f"w{number}")
        with db.session(workspace=workspace_id) as session:
            rows.append((workspace_id, make_definition(session, f"of {number}").id))

    async def names() -> list[str]:
        async with db.async_session() as session:
            first = [row.name for row in await adefinitions.list_all(session)]
            await asyncio.sleep(0)
            raw = (await session.execute(text("SELECT name FROM stemma.definitions"))).scalars().all()
            return [*first, *raw]

    async def work(task: int) -> list[str]:
        number, other = task % WORKSPACES, (task * 7 + 1) % WORKSPACES
        wrong = []

        @tenancy.workspace(rows[number][0])
        async def own() -> None:
            if await names() != [f"of {number}"] * 2:
                wrong.append(f"{task}: another row")
            async with db.async_session() as session:
                try:
                    async with session.begin_nested():
                        await adefinitions.create(session, DefinitionCreate(name="undone", content=_CONTENT))
                        await asyncio.sleep(0)
                        raise LookupError
                except LookupError:
                    pass
                if await adefinitions.find(session, rows[other][1]) is not None and other != number:
                    wrong.append(f"{task}: a foreign id")
                # The session keeps its workspace whatever the context says.
                with tenancy.workspace(rows[other][0]):
                    await asyncio.sleep(0)
                    if (await adefinitions.get(session, rows[number][1])).workspace_id != rows[number][0]:
                        wrong.append(f"{task}: the session has moved")
            with tenancy.workspace(rows[other][0]):
                if await names() != [f"of {other}"] * 2:
                    wrong.append(f"{task}: another row in the nested context")
            if tenancy.current_workspace() != rows[number][0]:
                wrong.append(f"{task}: the context was not restored")

        await own()
        if tenancy.find_current_workspace() is not None:
            wrong.append(f"{task}: the context stayed")
        return wrong

    try:
        found = [what for each in await asyncio.gather(*map(work, range(TASKS))) for what in each]
        assert db.pool_stats().size == CONNECTIONS
        return found
    finally:
        await db.async_engine.dispose()
