"""
Random walks of callers in three workspaces: any function, with rows of any of them, in sessions that nest, commit and roll back.

Fifty thousand steps; fewer with STEMMADB_WALK_STEPS, for one's own machine. A walk is repeated by its seed, which is in the name of the
test beside the number of its steps.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections import Counter
from collections.abc import Iterator
from uuid import uuid4

import pytest
from sqlalchemy import text
from tests.full_databases import Filled
from tests.walkers import FUNCTIONS, ID, City, Step, Undone, Walker, city_on

from stemmadb import tenancy
from stemmadb._test_server import DatabaseServer
from stemmadb.testing import run_together

STEPS = int(os.environ.get("STEMMADB_WALK_STEPS") or 50_000)
THREADS = 6
TASKS = 20
NAMES = {function.name for function, _places in FUNCTIONS}


def walks(kind: str, shares: int) -> list[tuple[str, int]]:
    """Each walk of a kind by its seed, and how many of the steps it takes; a share is a twentieth of all."""
    return [(f"{kind}-{number}", STEPS // 20 * 2) for number in range(shares // 2)]


ALONE, APART, THREADED, AS_TASKS = walks("alone", 8), walks("apart", 4), walks("threads", 4), walks("tasks", 4)

pytestmark = pytest.mark.property
a_walk = pytest.mark.timeout(600)


def named(walks: list[tuple[str, int]]) -> list[str]:
    return [f"{seed}-{steps}-steps" for seed, steps in walks]


@pytest.fixture
def city(stemmadb_server: DatabaseServer) -> Iterator[City]:
    """A city of the test's own: walkers leave traces."""
    with city_on(stemmadb_server) as found:
        yield found


def require(walkers: list[Walker], steps: int) -> None:
    """All steps were taken, every function was called and most of them answered, and nobody was told of a neighbour."""
    called, answered = (sum((getattr(walker, name) for walker in walkers), Counter[str]()) for name in ("called", "answered"))
    print(f"{called.total()} steps, {answered.total()} of them answered; {len(called)} functions")
    assert [what for walker in walkers for what in walker.revealed] == []
    assert called.total() == steps
    if steps >= 2000:
        assert set(called) == NAMES
        assert answered.total() > steps / 4


@pytest.mark.offline
@pytest.mark.skipif("STEMMADB_WALK_STEPS" in os.environ, reason="STEMMADB_WALK_STEPS asks for fewer")
def test_fifty_thousand_steps() -> None:
    """The walks below take so many together, whoever runs them."""
    assert sum(steps for _, steps in [*ALONE, *APART, *THREADED, *AS_TASKS]) == 50_000


@pytest.mark.slow
@a_walk
@pytest.mark.requirement("TN-032", "TN-034", "TN-035", "TN-044")
@pytest.mark.parametrize(("seed", "steps"), ALONE, ids=named(ALONE))
def test_a_walker_leaves_the_neighbours_alone(city: City, seed: str, steps: int) -> None:
    """After every session of one walker, the two other workspaces are what they were to the byte, and nothing of them was told."""
    walker, before = Walker(city, seed), city.state()
    for visit in walker.visits(steps):
        own = visit.own
        with contextlib.suppress(Undone), city.db.session(workspace=own.workspace_id) as session:
            for _ in range(visit.steps):
                walker.step(session, own)
                if walker.chance(0.05):
                    session.rollback()
            if visit.ending == "exception":
                raise Undone
            if visit.ending == "rollback":
                session.rollback()
        after = city.state()
        assert [other.workspace_id for other in city.others(own) if after[other.workspace_id] != before[other.workspace_id]] == []
        before = after
        if visit.ending == "commit":
            assert city.counts(own) == []
        with city.db.session() as session:
            assert session.scalar(text("SELECT count(*) FROM stemma.definitions")) == 0
    require([walker], steps)


@pytest.mark.slow
@a_walk
@pytest.mark.requirement("TN-032", "TN-035")
@pytest.mark.parametrize(("seed", "steps"), APART, ids=named(APART))
def test_no_answer_depends_on_the_neighbours(city: City, seed: str, steps: int) -> None:
    """Where no other workspace ever was, the same calls have the same answers: results, errors, counts, orders."""
    walker = Walker(city, seed)
    for visit in walker.visits(steps):
        own = visit.own
        calls = [walker.choose(own) for _ in range(visit.steps)]
        answers = []
        for alone in (False, True):
            with city.db.session(workspace=own.workspace_id) as session:
                if alone:
                    session.execute(text("DELETE FROM stemma.workspaces WHERE id <> :own"), {"own": own.workspace_id})
                answers.append([_answer(city, walker, own, call, session, counts=not alone) for call in calls])
                session.rollback()
        for here, alone in zip(*answers, strict=True):
            assert here == alone
    require([walker], steps)


def _answer(city: City, walker: Walker, own: Filled, call: Step, session: object, *, counts: bool) -> str:
    """What a caller learns, without the ids and times that are new in each call."""
    with contextlib.suppress(Undone), session.begin_nested():  # type: ignore[attr-defined]
        answer, is_result = call.answer(session)  # type: ignore[arg-type]
        if counts:
            walker.note(own, call, answer, is_result=is_result)
        if not is_result:
            raise Undone
    kept = ID.sub(lambda found: found[0] if found[0] in city.homes else "<id>", answer)
    return f"{call.function.name}: {_without_times(kept)}"


def _without_times(answer: str) -> str:
    found = re.sub(r"datetime\.datetime\([^)]*\)\)?", "<time>", answer)
    found = re.sub(r"""\bb('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")""", "<bytes>", found)
    found = re.sub(r"\b(per_minute)=[0-9.]+", r"\1=<rate>", found)
    return re.sub(r"next_cursor='[^']*'", "<cursor>", found)


@pytest.mark.slow
@a_walk
@pytest.mark.race
@pytest.mark.requirement("TN-031", "TN-039", "TN-040", "TN-044")
@pytest.mark.parametrize(("seed", "steps"), THREADED, ids=named(THREADED))
def test_walkers_in_threads_meet_nobody(city: City, seed: str, steps: int) -> None:
    """Six at once, each in a workspace of the context, nesting into another one in between: none is told of the others."""
    db = city.db
    shares = [steps // THREADS + (number < steps % THREADS) for number in range(THREADS)]

    def walk(number: int) -> Walker:
        walker, home = Walker(city, f"{seed}, thread {number}"), city.filled[number % 3]
        for visit in walker.visits(shares[number], home):

            def session_of(own: Filled = home, count: int = visit.steps, ending: str = visit.ending) -> None:
                with contextlib.suppress(Undone), db.session() as session:
                    for _ in range(min(count, shares[number] - walker.steps)):
                        walker.step(session, own)
                    # A session keeps its workspace, whatever the context says meanwhile. The inner one waits for no lock of the outer one.
                    other = city.others(own)[number % 2]
                    if walker.steps < shares[number] - 1:
                        with tenancy.workspace(other.workspace_id), db.session(read_only=True) as inner:
                            walker.step(inner, other)
                            walker.step(session, own)
                    if ending == "exception":
                        raise Undone
                    if ending == "rollback":
                        session.rollback()

            walker.inside(home, session_of)
            assert tenancy.find_current_workspace() is None
        return walker

    found = run_together(THREADS, walk)
    for walker in found:
        if isinstance(walker, BaseException):
            raise walker
    require([walker for walker in found if isinstance(walker, Walker)], steps)


@pytest.mark.slow
@a_walk
@pytest.mark.race
@pytest.mark.requirement("TN-031", "TN-039", "TN-040")
@pytest.mark.parametrize(("seed", "steps"), AS_TASKS, ids=named(AS_TASKS))
async def test_walkers_in_tasks_meet_nobody(city: City, seed: str, steps: int) -> None:
    """The same with the async twins, in twenty tasks over one pool."""

    async def walk(number: int) -> Walker:
        walker, home = Walker(city, f"{seed}, task {number}"), city.filled[number % 3]

        @tenancy.workspace(home.workspace_id)
        async def session_of(count: int, ending: str) -> None:
            with contextlib.suppress(Undone):
                async with city.db.async_session() as session:
                    for _ in range(count):
                        await walker.async_step(session, home)
                        await asyncio.sleep(0)
                    if ending == "exception":
                        raise Undone
                    if ending == "rollback":
                        await session.rollback()

        for visit in walker.visits(steps // TASKS, home):
            await session_of(visit.steps, visit.ending)
            assert tenancy.find_current_workspace() is None
        return walker

    try:
        require(await asyncio.gather(*map(walk, range(TASKS))), steps)
    finally:
        await city.db.async_engine.dispose()


def test_texts_of_every_workspace_are_marked(city: City) -> None:
    """The mark stands in what a workspace's names, titles, messages and previews say, and in nothing of another one."""
    assert {"definitions", "scenarios", "runs", "approval_items", "cohorts", "rubrics", "experiments"} <= city.marked
    for filled in city.filled:
        with city.db.session(workspace=filled.workspace_id) as session:
            for table in city.marked:
                rows = session.scalars(text(f"SELECT CAST(found AS text) FROM stemma.{table} AS found")).all()
                assert rows
                assert city.reveals(filled, "".join(rows), "") == []
            names = session.scalars(text("SELECT name FROM stemma.scenarios")).all()
        assert all(city.marks[filled.workspace_id] in name for name in names)


@pytest.mark.offline
def test_a_walk_would_notice() -> None:
    """What reveals() looks for: an entity of another workspace, the id of a row over there that the caller did not name, a marked text."""
    own, other, row = uuid4(), uuid4(), uuid4()
    city = object.__new__(City)
    city.homes = {str(row): other}
    city.marks = {own: "here-1", other: "there-2"}
    here = Filled(own, {}, "", None, None, None)  # type: ignore[arg-type]
    assert city.reveals(here, f"[Run(workspace_id=UUID('{other}'))]", "") == [str(other)]
    assert city.reveals(here, f"{{'{row}'}}", "") == [str(row)]
    assert city.reveals(here, f"{{'{row}'}}", f"{row}") == []
    assert city.reveals(here, "name='x there-2'", "") == ["there-2"]
    assert city.reveals(here, "name='x there-2'", "there-2") == []
    assert city.reveals(here, f"[Run(workspace_id=UUID('{own}'), name='here-1')]", "") == []
