"""A session belongs to one workspace, and nothing reaches another one's rows."""

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, delete, exists, func, insert, literal, select, text, union_all, update
from sqlalchemy.orm import Session, aliased
from tests.interleaved import CONNECTIONS, interleave

from stemmadb import connect, tenancy, use
from stemmadb.accounts.entities import User
from stemmadb.database import Database
from stemmadb.errors import NotFoundError, StemmaError, TenantViolationError, ValidationError, WorkspaceNotSetError
from stemmadb.evaluation import definitions
from stemmadb.evaluation.data import DefinitionCreate
from stemmadb.evaluation.documents import DefinitionContent
from stemmadb.evaluation.entities import Definition
from stemmadb.settings import Settings
from stemmadb.testing import count_queries, make_workspace, run_together
from stemmadb.workspaces.entities import Workspace

CONTENT = DefinitionContent(preamble="", template="t")


def add(session: Session, name: str = "one") -> Definition:
    """A definition in the session's workspace."""
    return definitions.create(session, DefinitionCreate(name=name, content=CONTENT))


@pytest.fixture
def pair(committed_db: Database) -> tuple[UUID, UUID, UUID]:
    """Two workspaces, and a definition of the first."""
    ours, theirs = make_workspace(committed_db, "ours"), make_workspace(committed_db, "theirs")
    with committed_db.session(workspace=ours) as session:
        row = add(session).id
    return ours, theirs, row


# ------------------------------------------------------------------------------------------------------------- the context


@pytest.mark.offline
@pytest.mark.requirement("TN-030", "TN-031", "TN-039")
def test_context_nests_and_restores() -> None:
    """The inner workspace hides the outer one, which is back afterwards, also after an error."""
    assert tenancy.find_current_workspace() is None
    with tenancy.workspace("outer"):
        with pytest.raises(ZeroDivisionError), tenancy.workspace("inner"):
            assert tenancy.current_workspace() == "inner"
            _ = 1 / 0
        assert tenancy.current_workspace() == "outer"
    with pytest.raises(WorkspaceNotSetError):
        tenancy.current_workspace()


@pytest.mark.offline
@pytest.mark.requirement("TN-031")
def test_context_is_a_decorator() -> None:
    """A function can run in a workspace as a whole."""

    @tenancy.workspace("lab")
    def inside() -> object:
        return tenancy.current_workspace()

    assert inside() == "lab"
    assert tenancy.find_current_workspace() is None


@pytest.mark.offline
@pytest.mark.requirement("TN-031")
async def test_context_decorates_coroutine_functions() -> None:
    """It holds to the last await, for calls side by side, and not for the code between."""

    @tenancy.workspace("lab")
    async def inside(depth: int) -> list[object]:
        seen: list[object] = [tenancy.find_current_workspace()]
        await asyncio.sleep(0)
        if depth:
            seen += await inside(depth - 1)
        with tenancy.workspace("other"):
            await asyncio.sleep(0)
        return [*seen, tenancy.find_current_workspace()]

    calls = [asyncio.create_task(inside(2)) for _ in range(20)]
    assert tenancy.find_current_workspace() is None
    assert {name for seen in await asyncio.gather(*calls) for name in seen} == {"lab"}
    assert tenancy.find_current_workspace() is None


@pytest.mark.offline
def test_context_does_not_decorate_what_yields() -> None:
    """Its body would run in the workspace of whoever iterates: TypeError where it is written."""

    def rows() -> Iterator[int]:
        yield 1

    async def more_rows() -> AsyncIterator[int]:
        yield 1

    for fn in (rows, more_rows):
        with pytest.raises(TypeError, match="rows yields"):
            tenancy.workspace("lab")(fn)


@pytest.mark.offline
def test_a_context_can_be_entered_again() -> None:
    """One object, nested in itself."""
    context = tenancy.workspace("lab")
    with context, context:
        assert tenancy.current_workspace() == "lab"
    assert tenancy.find_current_workspace() is None


@pytest.mark.offline
@pytest.mark.requirement("TN-039", "TN-040")
async def test_context_is_isolated_between_tasks_and_threads() -> None:
    """A hundred tasks keep their own; tasks inherit, a copied context carries into a thread, a bare thread has none."""

    async def own(number: int) -> bool:
        with tenancy.workspace(f"w{number}"):
            await asyncio.sleep(0)
            return tenancy.current_workspace() == f"w{number}"

    assert all(await asyncio.gather(*(own(number) for number in range(100))))
    with tenancy.workspace("outer"):
        assert await asyncio.create_task(asyncio.to_thread(tenancy.find_current_workspace)) == "outer"
        seen: list[object] = []
        context = contextvars.copy_context()
        for target in (
            lambda: seen.append(tenancy.find_current_workspace()),
            lambda: context.run(lambda: seen.append(tenancy.find_current_workspace())),
        ):
            thread = threading.Thread(target=target)
            thread.start()
            thread.join()
    assert seen == [None, "outer"]


# ----------------------------------------------------------------------------------------------------------- no workspace


@pytest.mark.requirement("TN-038", "TN-048")
@pytest.mark.parametrize(
    "call",
    [
        lambda session: definitions.get(session, uuid4()),
        lambda session: definitions.list_all(session),
        lambda session: session.scalars(select(Definition)).all(),
        lambda session: session.scalars(select(Definition.name)).all(),
        lambda session: session.scalars(select(aliased(Definition))).all(),
        lambda session: session.execute(update(Definition).values(message="x")),
        lambda session: session.execute(delete(Definition)),
        lambda session: session.execute(insert(Definition), [{"name": "x", "content": CONTENT, "root_id": uuid4()}]),
        lambda session: (session.add(Definition(name="x", content=CONTENT, root_id=uuid4())), session.flush()),
    ],
    ids=["get", "list", "select", "column", "alias", "update", "delete", "insert", "flush"],
)
def test_nothing_is_sent_without_a_workspace(db: Database, call: Callable[[Session], object]) -> None:
    """A tenant statement in a session without a workspace raises, and no statement leaves."""
    with Session(db.engine, info={"stemma": tenancy.NoWorkspace()}) as session, count_queries() as sent:
        with pytest.raises(Exception) as caught:
            call(session)
        session.rollback()
    error = caught.value if isinstance(caught.value, StemmaError) else getattr(caught.value, "orig", None) or caught.value.__cause__
    assert isinstance(error, WorkspaceNotSetError) or isinstance(caught.value, WorkspaceNotSetError)
    assert sent.count == 0


@pytest.mark.requirement("TN-038")
def test_message_names_the_function(db: Database) -> None:
    """The error says which function needs a workspace."""
    with db.session() as session, pytest.raises(WorkspaceNotSetError, match=r"definitions\.get"):
        definitions.get(session, uuid4())


@pytest.mark.requirement("TN-037")
def test_global_tables_need_none(db: Database) -> None:
    """Users and workspaces are read without a workspace."""
    with db.session() as session:
        assert session.scalar(text("SELECT count(*) FROM stemma.users")) is not None


def test_raw_sql_without_a_workspace_sees_nothing(committed_db: Database, pair: tuple[UUID, UUID, UUID]) -> None:
    """SQL text gets past the first line; the policy shows it no row and lets it add none."""
    with committed_db.session() as session:
        assert session.scalar(text("SELECT count(*) FROM stemma.definitions")) == 0
    with pytest.raises(Exception, match="policy"), committed_db.engine.begin() as connection:
        connection.execute(text("INSERT INTO stemma.definitions (name, content) VALUES ('x', '{}')"))


# ------------------------------------------------------------------------------------------------------- the other workspace


@pytest.mark.requirement("TN-032", "TN-034", "TN-042")
def test_statements_see_one_workspace(committed_db: Database, pair: tuple[UUID, UUID, UUID]) -> None:
    """Entities, columns, aliases, joins, subqueries, counts, bulk updates and deletes, Core and text: nothing of the other workspace."""
    ours, theirs, row = pair
    other = aliased(Definition)
    table = Definition.__table__
    with committed_db.session(workspace=theirs) as session:
        assert session.scalars(select(Definition)).all() == []
        assert session.scalars(select(Definition.name)).all() == []
        assert session.scalars(select(other)).all() == []
        assert session.scalars(select(Definition).join(other, other.id == Definition.id)).all() == []
        assert session.scalar(select(func.count()).select_from(Definition)) == 0
        assert session.scalar(select(exists(select(Definition.id)))) is False
        assert session.execute(select(table.c.name)).all() == []
        assert session.execute(text("SELECT name FROM stemma.definitions")).all() == []
        assert session.get(Definition, (ours, row)) is None
        assert session.execute(update(Definition).where(Definition.id == row).values(message="x")).rowcount == 0
        assert session.execute(update(table).values(message="x")).rowcount == 0
        assert session.execute(delete(Definition)).rowcount == 0
        assert session.execute(text("DELETE FROM stemma.definitions")).rowcount == 0
    with committed_db.session(workspace=ours) as session:
        assert definitions.get(session, row).message is None


@pytest.mark.requirement("TN-032", "TN-034", "TN-042")
@pytest.mark.parametrize(
    "statement",
    [
        lambda other: select(Definition).from_statement(union_all(select(Definition), select(other))),
        lambda other: union_all(select(Definition.id), select(other.id)),
        lambda other: select(select(Definition.id).cte("c").c.id),
        lambda other: select(select(Definition).subquery().c.id),
        lambda other: select(User.id).where(exists(select(Definition.id).where(Definition.name == "one"))),
        lambda other: select(select(Definition.name).limit(1).scalar_subquery()).where(
            literal(1) == select(func.count(other.id)).scalar_subquery()
        ),
        lambda other: select(Workspace.id).join(Definition, Definition.workspace_id == Workspace.id),
        lambda other: insert(User).from_select(["email", "name"], select(literal("x@example.com"), Definition.name)).returning(User.id),
        lambda other: update(Workspace).where(Workspace.id == Definition.workspace_id).values(description="x").returning(Definition.id),
        lambda other: update(Workspace).where(Workspace.id == other.workspace_id).values(description="x").returning(other.id),
        lambda other: update(Workspace).where(Workspace.id.in_(select(Definition.workspace_id))).values(name="x").returning(Workspace.id),
        lambda other: update(Definition).where(Definition.id == other.id).values(message="x").returning(other.id),
        lambda other: delete(User).where(User.name == Definition.name).returning(User.id),
        lambda other: delete(Definition).where(Definition.id.in_(select(other.id))).returning(Definition.id),
    ],
)
def test_the_first_line_holds_alone(
    committed_db: Database, pair: tuple[UUID, UUID, UUID], owner: Engine, statement: Callable[[Any], Any]
) -> None:
    """Without policies, as under a login that they do not hold, statements of entities still see one workspace, wherever it is named."""
    with owner.begin() as connection:
        connection.execute(text("ALTER TABLE stemma.definitions DISABLE ROW LEVEL SECURITY"))
    ours, theirs, _ = pair
    with committed_db.session(theirs) as session:
        assert session.scalar(text("SELECT count(*) FROM stemma.definitions")) == 1
        found = session.execute(statement(aliased(Definition)), execution_options={"synchronize_session": False})
        assert found.all() == []
    with committed_db.session() as session, pytest.raises(Exception) as caught:
        session.execute(statement(aliased(Definition)), execution_options={"synchronize_session": False})
    assert isinstance(getattr(caught.value, "orig", None) or caught.value, WorkspaceNotSetError)


@pytest.mark.requirement("TN-035")
def test_a_foreign_id_reads_like_a_random_one(committed_db: Database, pair: tuple[UUID, UUID, UUID]) -> None:
    """Same class, same message but for the id itself."""
    _, theirs, row = pair
    random = uuid4()
    messages = []
    for wanted in (row, random):
        with committed_db.session(workspace=theirs) as session, pytest.raises(NotFoundError) as caught:
            definitions.get(session, wanted)
        messages.append(str(caught.value).replace(str(wanted), "ID"))
    assert messages[0] == messages[1]


@pytest.mark.requirement("TN-033", "TN-036")
def test_rows_cannot_be_written_into_another_workspace(committed_db: Database, pair: tuple[UUID, UUID, UUID]) -> None:
    """Not by an entity, not by a list of values, not by text, not by moving a row."""
    ours, theirs, row = pair
    with committed_db.session(workspace=theirs) as session:
        session.add(Definition(workspace_id=ours, name="x", content=CONTENT, root_id=uuid4()))
        with pytest.raises(TenantViolationError):
            session.flush()
        session.rollback()
    key = uuid4()
    values = {"id": key, "root_id": key, "name": "x", "content": CONTENT, "workspace_id": ours}
    for statement, parameters in (
        (insert(Definition), [values]),
        (text("INSERT INTO stemma.definitions (workspace_id, name, content) VALUES (:w, 'x', '{}')"), {"w": ours}),
    ):
        with pytest.raises(Exception, match="policy"), committed_db.session(workspace=theirs) as session:
            session.execute(statement, parameters)
    with committed_db.session(workspace=ours) as session:
        mine = definitions.get(session, row)
        mine.workspace_id = theirs
        with pytest.raises(TenantViolationError):
            session.flush()
        session.rollback()


@pytest.mark.requirement("TN-033")
def test_new_rows_get_the_workspace_of_the_session(session: Session, workspace: UUID) -> None:
    """Entities, lists of values and text alike."""
    key = uuid4()
    session.add(Definition(name="entity", content=CONTENT, root_id=key, id=key))
    session.flush()
    session.execute(text("INSERT INTO stemma.definitions (name, content) VALUES ('text', '{}')"))
    assert set(session.execute(text("SELECT DISTINCT workspace_id FROM stemma.definitions")).scalars()) == {workspace}


@pytest.mark.requirement("TN-025")
def test_tenant_id_is_the_other_name(session: Session, workspace: UUID) -> None:
    """session.info["stemma"] carries the workspace under both names."""
    assert session.info["stemma"].tenant_id == session.info["stemma"].workspace_id == tenancy.workspace_of(session) == workspace


# ------------------------------------------------------------------------------------------------ which workspace, and for how long


def test_the_nearest_wins(committed_db: Database) -> None:
    """The session's argument, then the context, then the Database's own; a slug and an id are the same."""
    first, second, third = (make_workspace(committed_db, slug) for slug in ("first", "second", "third"))
    committed_db.workspace = "first"
    with committed_db.session() as session:
        assert tenancy.workspace_of(session) == first
    with tenancy.workspace(second):
        with committed_db.session() as session:
            assert tenancy.workspace_of(session) == second
        with committed_db.session(workspace="third") as session:
            assert tenancy.workspace_of(session) == third
        with committed_db.session(workspace=str(third)) as session:
            assert tenancy.workspace_of(session) == third


def test_unknown_and_deleted_workspaces_are_not_found(committed_db: Database, owner: Engine) -> None:
    """Neither a slug nor an id opens a session when no live workspace has it."""
    gone = make_workspace(committed_db, "gone")
    with owner.begin() as connection:
        connection.execute(text("UPDATE stemma.workspaces SET deleted_at = now()"))
    for wanted in ("nowhere", "gone", gone, uuid4()):
        with pytest.raises(NotFoundError, match="Workspace"), committed_db.session(workspace=wanted):
            pass


@pytest.mark.requirement("TN-044")
def test_a_setting_does_not_outlive_its_transaction(committed_db: Database, pair: tuple[UUID, UUID, UUID]) -> None:
    """On the one connection of a pool: a workspace, then none, then the other."""
    ours, theirs, _ = pair
    with connect(f"{committed_db.url.render_as_string(hide_password=False)}&connection_limit=2") as db:
        seen = []
        for wanted in (ours, None, theirs, ours):
            with db.session(workspace=wanted) as session:
                seen.append(
                    (session.scalar(text("SELECT pg_backend_pid()")), session.scalar(text("SELECT count(*) FROM stemma.definitions")))
                )
    assert [count for _, count in seen] == [1, 0, 0, 1]
    assert len({pid for pid, _ in seen}) == 1


@pytest.mark.requirement("TN-042", "TN-043")
def test_savepoints_and_rollbacks_keep_the_workspace(committed_db: Database, pair: tuple[UUID, UUID, UUID]) -> None:
    """After a savepoint is rolled back, and after the transaction is, the session is where it was."""
    ours, _, row = pair
    with committed_db.session(workspace=ours) as session:
        with pytest.raises(RuntimeError), session.begin_nested():
            raise RuntimeError
        assert definitions.get(session, row).id == row
        session.rollback()
        assert session.scalar(text("SELECT count(*) FROM stemma.definitions")) == 1
        session.commit()
        assert session.scalar(text("SELECT count(*) FROM stemma.definitions")) == 1


@pytest.mark.race
@pytest.mark.requirement("TN-039")
async def test_interleaved_tasks_stay_in_their_workspaces(committed_db: Database) -> None:
    """Two hundred tasks of ten workspaces over a small pool each see their own row and no other."""
    from stemmadb.aio.evaluation import definitions as adefinitions

    ids = [make_workspace(committed_db, f"w{number}") for number in range(10)]
    for number, workspace_id in enumerate(ids):
        with committed_db.session(workspace=workspace_id) as session:
            add(session, f"of {number}")

    async def look(number: int) -> bool:
        async with committed_db.async_session(workspace=ids[number % 10]) as session:
            first = await adefinitions.list_all(session)
            await asyncio.sleep(0)
            second = await adefinitions.list_all(session)
            return [row.name for row in first] == [row.name for row in second] == [f"of {number % 10}"]

    assert all(await asyncio.gather(*(look(number) for number in range(200))))


@pytest.mark.slow
@pytest.mark.race
@pytest.mark.requirement("TN-039", "TN-040", "TN-044")
async def test_a_thousand_interleaved_tasks(committed_db: Database) -> None:
    """Of twenty workspaces over a pool of five, with nested contexts and savepoints: no row of another workspace."""
    settings = Settings(workspace=None, pool_min=2, pool_max=CONNECTIONS, pool_timeout_s=120)
    with connect(committed_db.url.render_as_string(hide_password=False), settings=settings) as db:
        assert await interleave(db) == []


@pytest.mark.race
@pytest.mark.requirement("TN-031", "TN-039", "TN-040")
def test_decorated_functions_in_threads_keep_apart(committed_db: Database) -> None:
    """Eight threads run one function, decorated for two workspaces in turn: each call has its own, and the thread none afterwards."""
    slugs = [f"w{number}" for number in range(2)]
    ids = [make_workspace(committed_db, slug) for slug in slugs]

    def look() -> UUID:
        with committed_db.session() as session:
            return tenancy.workspace_of(session)

    decorated = [tenancy.workspace(slug)(look) for slug in slugs]

    def work(number: int) -> list[object]:
        seen: list[object] = [decorated[(number + turn) % 2]() == ids[(number + turn) % 2] for turn in range(20)]
        return [*seen, tenancy.find_current_workspace()]

    assert run_together(8, work) == [[True] * 20 + [None]] * 8


# --------------------------------------------------------------------------------------------------------------- a host's engine


@pytest.mark.requirement("TN-013")
def test_a_host_session_takes_the_workspace(committed_db: Database, pair: tuple[UUID, UUID, UUID]) -> None:
    """From Session.info, from the context, and from use(): the setting is sent, and no role and no search path."""
    ours, theirs, row = pair
    from sqlalchemy import create_engine

    engine = create_engine(committed_db.url)
    try:
        path = "SHOW search_path"
        with engine.connect() as connection:
            untouched = connection.scalar(text(path))
        with Session(engine, info={"workspace": ours}) as session:
            assert definitions.get(session, row).id == row
            assert session.scalar(text(path)) == untouched
        with Session(engine, info={"workspace": "theirs"}) as session:
            assert definitions.find(session, row) is None
        with tenancy.workspace("ours"), Session(engine) as session:
            assert definitions.get(session, row).id == row
        with Session(engine) as session:
            session.execute(text("SELECT 1"))
            with tenancy.workspace("ours"):
                assert definitions.get(session, row).id == row
        with use(engine, workspace=ours).session() as session:
            assert definitions.get(session, row).id == row
        with Session(engine) as session:
            assert definitions.get(session, row).id == row
    finally:
        engine.dispose()
    assert tenancy.find_current_workspace() is None


def test_a_host_session_without_a_workspace_is_refused(db: Database) -> None:
    """A host's session is told as well, before anything is sent."""
    from sqlalchemy import create_engine

    engine = create_engine(db.url)
    with Session(engine) as session, count_queries() as sent, pytest.raises(WorkspaceNotSetError):
        definitions.list_all(session)
    engine.dispose()
    assert sent.count == 0


# ---------------------------------------------------------------------------------------------------------------- all of them


@pytest.mark.requirement("AD-021", "TN-048")
def test_all_workspaces_reads_across_and_is_on_record(committed_db: Database, pair: tuple[UUID, UUID, UUID]) -> None:
    """As stemma_maintenance every row is seen, tenant functions refuse, and audit_logs has the reason."""
    with committed_db.all_workspaces(reason="census") as session:
        assert session.scalar(text("SELECT current_user")) == "stemma_maintenance"
        assert session.scalar(select(func.count()).select_from(Definition)) == 1
        with pytest.raises(WorkspaceNotSetError):
            definitions.list_all(session)
    with committed_db.session() as session:
        found = session.execute(text("SELECT action, after -> 'data' ->> 'reason' FROM stemma.audit_logs WHERE entity_id = '*'")).all()
    assert [tuple(row) for row in found] == [("ALL_WORKSPACES", "census")]


@pytest.mark.requirement("AD-021")
def test_what_was_read_across_workspaces_stays_on_record(committed_db: Database, pair: tuple[UUID, UUID, UUID]) -> None:
    """Also when the block raises, or rolls back: who has seen everything cannot take the record of it along."""
    with pytest.raises(ZeroDivisionError), committed_db.all_workspaces(reason="raised") as session:
        assert session.scalar(select(func.count()).select_from(Definition)) == 1
        _ = 1 / 0
    with committed_db.all_workspaces(reason="rolled back") as session:
        assert session.scalar(text("SELECT current_user")) == "stemma_maintenance"
        session.rollback()
        assert session.scalar(text("SELECT current_user")) == "stemma_maintenance"
    with committed_db.session() as session:
        reasons = session.scalars(
            text("SELECT after -> 'data' ->> 'reason' FROM stemma.audit_logs WHERE entity_id = '*' ORDER BY created_at")
        ).all()
    assert reasons == ["raised", "rolled back"]


@pytest.mark.parametrize("reason", ["", " ", None, 5, "a\0b", "\ud800"])
def test_all_workspaces_needs_a_reason(db: Database, reason: object) -> None:
    """One that can be recorded; nothing is sent for another."""
    with count_queries() as sent, pytest.raises(ValidationError) as caught, db.all_workspaces(reason=reason):  # type: ignore[arg-type]
        pass
    assert (caught.value.field, sent.count) == ("reason", 0)
