"""stemmadb.aio: the same functions for an AsyncSession, through one implementation."""

import asyncio
import inspect
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from tests.evaluation.run_setups import complete_all, make_definition, make_run

from stemmadb import aio, paging, trees, use
from stemmadb.aio import evaluation, in_thread, twin, twin_iter
from stemmadb.aio import paging as apaging
from stemmadb.aio import trees as atrees
from stemmadb.aio.evaluation import definitions as adefinitions
from stemmadb.aio.evaluation import transcripts as atranscripts
from stemmadb.database import Database
from stemmadb.errors import InvalidCursorError, NotFoundError
from stemmadb.evaluation import definitions
from stemmadb.evaluation.entities import Definition, Transcript
from stemmadb.repository import Repository
from stemmadb.testing import make_workspace


@pytest.fixture
async def line(async_session: AsyncSession) -> list[Definition]:
    """A definition and two forks, each of the one before."""
    root = await async_session.run_sync(make_definition)
    child = await adefinitions.fork(async_session, root.id)
    return [root, child, await adefinitions.fork(async_session, child.id)]


@pytest.mark.offline
@pytest.mark.requirement("AD-027")
@pytest.mark.parametrize(("module", "twins"), [(paging, apaging), (trees, atrees)])
def test_the_kernel_has_twins(module: ModuleType, twins: ModuleType) -> None:
    """Every function of the kernel on a session has a twin with its parameters; the rest is the same object."""
    assert twins.__all__ == module.__all__
    for name in module.__all__:
        ours, theirs = getattr(module, name), getattr(twins, name)
        if hasattr(ours, "__stemma_query__"):
            assert inspect.iscoroutinefunction(theirs)
            assert inspect.signature(theirs) == inspect.signature(ours)
            assert (theirs.__name__, theirs.__doc__) == (ours.__name__, ours.__doc__)
        else:
            assert theirs is ours


async def test_trees_of_any_entity(async_session: AsyncSession, line: list[Definition]) -> None:
    """Walks give the rows that the synchronous functions give."""
    root, child, leaf = line
    assert await atrees.ancestors(async_session, Definition, leaf.id) == [root, child]
    assert await atrees.descendants(async_session, Definition, root.id) == [child, leaf]
    assert [node.item for node in await atrees.tree(async_session, Definition, root.id)] == line
    assert await atrees.path(async_session, Definition, leaf.id, root.id) == [leaf, child, root]
    assert await atrees.merge_base(async_session, Definition, child.id, leaf.id) is child


async def test_pages_of_any_statement(async_session: AsyncSession, line: list[Definition]) -> None:
    """Pages join, and errors are those of the synchronous function."""
    order = [Definition.depth]
    first = await apaging.page(async_session, select(Definition), order_by=order, limit=2)
    rest = await apaging.page(async_session, select(Definition), order_by=order, limit=2, cursor=first.next_cursor)
    assert [*first, *rest] == line
    with pytest.raises(InvalidCursorError):
        await apaging.page(async_session, select(Definition), order_by=order, cursor="forged")


async def test_methods_of_a_repository_have_twins(async_session: AsyncSession, line: list[Definition]) -> None:
    """twin() takes a method, and twin_iter() the one that streams."""
    repository = Repository(Definition)
    get, iter_all = twin(repository.get), twin_iter(repository.iter_all)
    assert await get(async_session, line[0].id) is line[0]
    assert [row async for row in iter_all(async_session)] == line
    assert await async_session.run_sync(repository.count) == 3
    with pytest.raises(NotFoundError):
        await get(async_session, "nonsense")


# --------------------------------------------------------------------------------------------------------------- streaming


async def test_a_stream_crosses_over_once_per_batch(async_session: AsyncSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows come one by one, and are fetched in batches; who stops early ends the stream on the server as well."""
    crossings = 0
    spawn = aio._spawn

    def counted(*args: Any) -> Any:
        nonlocal crossings
        crossings += 1
        return spawn(*args)

    run = await async_session.run_sync(lambda session: make_run(session, scenario_count=7))
    await async_session.run_sync(complete_all, run.id)
    monkeypatch.setattr(aio, "_BATCH", 3)
    monkeypatch.setattr(aio, "_spawn", counted)
    assert len([row async for row in atranscripts.iter_for_run(async_session, run.id, with_content=False)]) == 7
    # 3, 3, 1, none, and the end.
    assert crossings <= 5
    stream = atranscripts.iter_for_run(async_session, run.id)
    assert isinstance(await anext(stream), Transcript)
    await stream.aclose()
    assert (await adefinitions.list_all(async_session)).items


@pytest.mark.requirement("TN-013", "TN-040")
@pytest.mark.parametrize("name", ["iter_for_run", "list_for_run"])
async def test_a_host_session_finds_its_workspace_by_slug(committed_db: Database, name: str) -> None:
    """The first call on a host's AsyncSession looks the slug up, whichever function it is."""
    workspace_id = make_workspace(committed_db, "lab")
    with committed_db.session(workspace=workspace_id) as session:
        run = make_run(session, scenario_count=1)
        complete_all(session, run.id)
    engine = create_async_engine(committed_db.url)
    use(engine)
    try:
        async with AsyncSession(engine, info={"workspace": "lab"}) as session:
            answer = getattr(atranscripts, name)(session, run.id)
            found = [row async for row in answer] if name == "iter_for_run" else (await answer).items
        assert [row.run_id for row in found] == [run.id]
    finally:
        await engine.dispose()


# ----------------------------------------------------------------------------------------------------------------- threads


async def test_heavy_work_leaves_the_loop(async_session: AsyncSession) -> None:
    """Inside a twin in_thread runs in another thread while the loop goes on; elsewhere it is a plain call."""
    loop, started, release = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def work() -> int:
        loop.call_soon_threadsafe(started.set)
        assert release.wait(10)
        return threading.get_ident()

    async def let_go() -> None:
        await started.wait()
        release.set()

    answer: Callable[..., int] = lambda _session: in_thread(work)  # noqa: E731
    ident, _ = await asyncio.gather(async_session.run_sync(answer), let_go())
    assert ident != threading.get_ident()
    assert in_thread(threading.get_ident) == threading.get_ident()


async def test_an_error_of_the_work_comes_through(async_session: AsyncSession) -> None:
    """What the work in the thread raises is raised where it was called."""
    with pytest.raises(ZeroDivisionError):
        await async_session.run_sync(lambda _session: in_thread(lambda: 1 // 0))


async def test_a_cancelled_twin_leaves_the_session_usable(db: Database, workspace_of_test: UUID) -> None:
    """The query is stopped, the connection goes back, and the next session works."""
    from sqlalchemy import text

    def sleep(session: Any) -> None:
        session.execute(text("SELECT pg_sleep(30)"))

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2), db.async_session(workspace=workspace_of_test) as session:
            await session.run_sync(sleep)
    async with db.async_session(workspace=workspace_of_test) as session:
        assert (await adefinitions.list_all(session)).items == []


@pytest.fixture
def workspace_of_test(db: Database) -> UUID:
    """A committed workspace in the database of this worker."""
    return make_workspace(db)


@pytest.mark.offline
def test_twins_know_their_functions() -> None:
    """A twin carries the function that it runs, so that tools can tell."""
    assert adefinitions.fork.__stemma_twin__ is definitions.fork
    assert evaluation.__doc__
