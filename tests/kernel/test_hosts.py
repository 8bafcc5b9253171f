"""Sessions that a host application makes: they take the workspace, keep it, and what is none of our business stays as it was."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from uuid import UUID, uuid4

import pytest
import sqlmodel
from sqlalchemy import Engine, create_engine, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from stemmadb import Entity, tenancy, use
from stemmadb.accounts import users
from stemmadb.database import Database
from stemmadb.errors import (
    ConfigurationError,
    DatabaseUnavailableError,
    NotFoundError,
    TenantViolationError,
    ValidationError,
    WorkspaceNotSetError,
)
from stemmadb.evaluation import definitions
from stemmadb.evaluation.data import DefinitionCreate
from stemmadb.evaluation.documents import DefinitionContent
from stemmadb.evaluation.entities import Definition
from stemmadb.testing import count_queries, make_workspace
from stemmadb.workspaces import members, workspaces

SETTING = text("SELECT current_setting('stemma.workspace_id', true)")
MODES = text("SELECT current_setting('transaction_isolation'), current_setting('transaction_read_only')")


@dataclass(frozen=True)
class Place:
    """Two workspaces, a definition of the first, and engines of a host."""

    ours: UUID
    theirs: UUID
    row: UUID
    engine: Engine
    elsewhere: Engine
    """The host's other database, which has no tables of ours."""


@pytest.fixture
def place(committed_db: Database) -> Iterator[Place]:
    ours, theirs = make_workspace(committed_db, "ours"), make_workspace(committed_db, "theirs")
    with committed_db.session(ours) as session:
        row = definitions.create(session, DefinitionCreate(name="one", content=DefinitionContent(preamble="", template="t"))).id
    engine, elsewhere = create_engine(committed_db.url), create_engine(committed_db.url.set(database="postgres"))
    yield Place(ours, theirs, row, engine, elsewhere)
    engine.dispose()
    elsewhere.dispose()


# ------------------------------------------------------------------------------------------------------------------- savepoints


@pytest.mark.requirement("TN-042", "TN-043")
@pytest.mark.parametrize("levels", [1, 2])
def test_a_workspace_that_became_known_in_a_savepoint_outlives_it(place: Place, levels: int) -> None:
    """PostgreSQL takes the setting back with the savepoint; the session goes on in its workspace, and finds its rows."""
    with Session(place.engine) as session:
        session.execute(text("SELECT 1"))
        with tenancy.workspace("ours"):
            with pytest.raises(LookupError), session.begin_nested():
                if levels == 2:
                    session.begin_nested()
                assert definitions.find(session, place.row) is not None
                raise LookupError
            assert definitions.find(session, place.row) is not None
        assert session.scalar(SETTING) == str(place.ours)


async def test_a_workspace_that_became_known_in_an_async_savepoint_outlives_it(committed_db: Database, place: Place) -> None:
    """The same on an async engine."""
    engine = create_async_engine(committed_db.url)
    async with AsyncSession(engine) as session:
        await session.execute(text("SELECT 1"))
        with tenancy.workspace(place.ours):
            with pytest.raises(LookupError):
                async with session.begin_nested():
                    await session.run_sync(definitions.get, place.row)
                    raise LookupError
            assert await session.run_sync(definitions.find, place.row) is not None
    await engine.dispose()


# --------------------------------------------------------------------------------------------------------- none of our business


def test_a_context_leaves_other_databases_alone(place: Place) -> None:
    """In a workspace, sessions of SQLite and of a database without our tables work as ever, and are sent nothing."""
    lite = create_engine("sqlite://")
    for wanted in ("ours", place.ours):
        with tenancy.workspace(wanted), Session(lite) as one, Session(place.elsewhere) as two, count_queries() as sent:
            assert one.scalar(text("SELECT 1")) == 1
            assert two.scalar(text("SELECT 1")) == 1
            assert sent.statements == ["SELECT 1", "SELECT 1"]
    lite.dispose()


class _HostBase(DeclarativeBase):
    pass


class _HostRow(_HostBase):
    __tablename__ = "host_rows"

    id: Mapped[int] = mapped_column(primary_key=True)


def test_a_hosts_own_entities_are_not_filtered(place: Place) -> None:
    """Its statements keep their text, with and without a workspace in the context."""
    lite = create_engine("sqlite://")
    _HostBase.metadata.create_all(lite)
    with tenancy.workspace("ours"), Session(lite) as session, count_queries() as sent:
        session.add(_HostRow(id=1))
        session.flush()
        assert session.scalars(select(_HostRow.id)).all() == [1]
        assert session.execute(update(_HostRow).values(id=2)).rowcount == 1  # type: ignore[attr-defined]
        assert session.execute(insert(_HostRow), [{"id": 3}]) is not None
    assert not any("workspace" in statement for statement in sent.statements)
    lite.dispose()


def test_of_several_binds_the_one_of_our_entities_is_ours(place: Place) -> None:
    """Every kind of function works in a session whose other tables are elsewhere, by id, by slug and from the context."""
    binds = {Entity: place.engine, _HostBase: place.elsewhere}

    def everything(session: Session) -> None:
        session.connection(bind_arguments={"mapper": _HostRow})
        assert definitions.get(session, place.row).id == place.row
        assert definitions.list_all(session).items[0].id == place.row
        assert definitions.ancestors(session, place.row) == []
        member = members.list_all(session).items[0]
        assert members.change_role(session, member.user_id, member.role).user_id == member.user_id
        assert workspaces.get_by_slug(session, "ours").id == place.ours
        assert users.get(session, member.user_id).id == member.user_id

    for info in ({"workspace": place.ours}, {"workspace": "ours"}):
        with Session(binds=binds, info=info) as session:
            everything(session)
    with tenancy.workspace("ours"), Session(binds=binds) as session:
        everything(session)
    with Session(place.elsewhere, binds={Entity: place.engine}, info={"workspace": "ours"}) as session:
        assert members.list_all(session).items[0].workspace_id == place.ours


# ------------------------------------------------------------------------------------------------------------ which workspace


@pytest.mark.requirement("TN-013")
def test_the_default_of_use_holds_for_every_session_of_the_engine(place: Place) -> None:
    """For sessionmakers, for sqlmodel's Session, on a connection and with options of the engine; the nearest wins."""
    use(place.engine, workspace="ours")
    isolated = place.engine.execution_options(isolation_level="SERIALIZABLE")
    for make in (sessionmaker(place.engine), sessionmaker(isolated), lambda: sqlmodel.Session(place.engine)):
        with make() as session:
            assert definitions.get(session, place.row).id == place.row
            assert session.scalar(SETTING) == str(place.ours)
    with place.engine.connect() as connection, Session(connection) as session:
        assert definitions.get(session, place.row).id == place.row
    with Session(binds={Entity: place.engine}) as session:
        assert definitions.get(session, place.row).id == place.row
    with tenancy.workspace("theirs"), Session(place.engine) as session:
        assert definitions.find(session, place.row) is None
    with tenancy.workspace("theirs"), Session(place.engine, info={"workspace": "ours"}) as session:
        assert definitions.find(session, place.row) is not None
    with sqlmodel.Session(place.engine) as session:
        assert session.exec(sqlmodel.select(Definition.id)).all() == [place.row]


async def test_an_async_engine_of_a_host(committed_db: Database, place: Place) -> None:
    """By id, by slug, from the context and from use(); options and units of work as on a synchronous one."""
    engine = create_async_engine(committed_db.url)

    async def found(**options: object) -> bool:
        async with AsyncSession(engine, **options) as session:  # type: ignore[arg-type]
            return await session.run_sync(definitions.find, place.row) is not None

    assert await found(info={"workspace": place.ours})
    assert await found(info={"workspace": "ours"})
    assert not await found(info={"workspace": "theirs"})
    with pytest.raises(WorkspaceNotSetError):
        await found()
    with tenancy.workspace("ours"):
        assert await found()
    host = use(engine, workspace="ours")
    assert await found()
    async with host.async_session(read_only=True, isolation="serializable") as session:
        assert await session.run_sync(definitions.find, place.row) is not None
        assert tuple((await session.execute(MODES)).one()) == ("serializable", "on")

    async def work(session: AsyncSession) -> UUID:
        return (await session.run_sync(definitions.get, place.row)).id

    assert await host.arun(work, deadline_s=5) == place.row
    assert host.pool_stats().in_use == 0
    with pytest.raises(ConfigurationError, match="async_session"), host.session():
        pass
    await engine.dispose()


def test_options_of_a_session_hold_on_a_hosts_engine(place: Place) -> None:
    """read_only and isolation are what PostgreSQL is told, for this session only; without them nothing is sent."""
    host = use(place.engine)
    with host.session(read_only=True, isolation="repeatable read") as session:
        assert tuple(session.execute(MODES).one()) == ("repeatable read", "on")
    with pytest.raises(DatabaseUnavailableError), host.session(read_only=True) as session:
        users.create(session, "a@example.com")
    with host.session() as session, count_queries() as sent:
        assert tuple(session.execute(MODES).one()) == ("read committed", "off")
    assert sent.count == 1
    with pytest.raises(ConfigurationError, match="belongs to the host"), host.all_workspaces(reason="x"):
        pass


def test_autocommit_and_a_workspace_do_not_go_together(committed_db: Database, place: Place) -> None:
    """The setting would be gone with its own statement, and every table look empty: ConfigurationError instead."""
    engine = create_engine(committed_db.url, isolation_level="AUTOCOMMIT")
    with Session(engine, info={"workspace": place.ours}) as session, pytest.raises(ConfigurationError, match="AUTOCOMMIT"):
        definitions.find(session, place.row)
    with Session(engine) as session:
        assert session.scalar(text("SELECT 1")) == 1
    engine.dispose()


@pytest.mark.parametrize("wanted", [5, b"ours", 1.5, ["ours"], object()])
def test_a_workspace_of_another_type_is_refused(committed_db: Database, place: Place, wanted: object) -> None:
    """ValidationError before anything is sent, wherever it is given."""
    with count_queries() as sent:
        with pytest.raises(ValidationError), Session(place.engine, info={"workspace": wanted}) as session:
            definitions.find(session, place.row)
        with pytest.raises(ValidationError), committed_db.session(wanted):  # type: ignore[arg-type]
            pass
        with pytest.raises(ValidationError), tenancy.workspace(wanted):  # type: ignore[arg-type]
            pass
    assert sent.count == 0


@pytest.mark.parametrize("wanted", ["", " ", "Ours", "ours ", "a\0b", "\ud800", "x y" * 10_000, "'; --", "ours\n"])
def test_what_can_be_no_slug_is_not_found_without_asking(committed_db: Database, place: Place, wanted: str) -> None:
    """Not the default, which an empty string might be taken for; and the message can be printed."""
    committed_db.workspace = "theirs"
    for open_session in (
        lambda: committed_db.session(wanted),
        lambda: Session(place.engine, info={"workspace": wanted}),
    ):
        with count_queries() as sent, pytest.raises(NotFoundError) as caught, open_session() as session:
            definitions.find(session, place.row)
        assert sent.count == 0
        assert str(caught.value).encode().isascii()
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 400


def test_an_unreachable_database_is_a_typed_error() -> None:
    """Also when it is the look-up of the slug that fails, before the function begins."""
    engine = create_engine("postgresql+psycopg://u:hunter2@127.0.0.1:9/x", connect_args={"connect_timeout": 2})
    for wanted in ("ours", uuid4()):
        with Session(engine, info={"workspace": wanted}) as session, pytest.raises(DatabaseUnavailableError) as caught:
            definitions.find(session, uuid4())
        assert "hunter2" not in str(caught.value)
        with Session(engine, info={"workspace": wanted}) as session, pytest.raises(DatabaseUnavailableError):
            list(definitions.list_all(session))


# -------------------------------------------------------------------------------------------------- rows from somewhere else


@pytest.fixture
def foreign(place: Place) -> Definition:
    """A row of the first workspace, detached."""
    with Session(place.engine, info={"workspace": place.ours}) as session:
        return definitions.get(session, place.row)


@pytest.mark.requirement("TN-033", "TN-036")
@pytest.mark.parametrize(
    "use_it",
    [
        lambda session, row: session.add(row),
        lambda session, row: (session.delete(row), session.flush()),
        lambda session, row: session.merge(row),
        lambda session, row: session.merge(row, load=False),
    ],
    ids=["add", "delete", "merge", "merge without a look"],
)
@pytest.mark.parametrize("begun", [True, False], ids=["begun", "new"])
def test_a_row_of_another_workspace_is_not_taken_in(
    place: Place, foreign: Definition, use_it: Callable[[Session, Definition], object], begun: bool
) -> None:
    """A stored row of another workspace is refused when it is given to the session, or when the session's workspace is known."""
    with Session(place.engine, info={"workspace": place.theirs}) as session:
        if begun:
            assert definitions.list_all(session).items == []
        with pytest.raises(TenantViolationError, match="Definition is not of the session's workspace"):
            kept = use_it(session, foreign)
            session.flush()
            definitions.find(session, place.row)
            del kept
        session.expunge_all()
        session.rollback()
    with Session(place.engine, info={"workspace": place.ours}) as session:
        assert definitions.find(session, place.row) is not None


def test_sessions_on_async_engines_are_garbage_free(committed_db: Database) -> None:
    """use() keeps no engine alive."""
    import gc
    import weakref

    engine: AsyncEngine | None = create_async_engine(committed_db.url)
    assert engine is not None
    use(engine)
    gone = weakref.ref(engine.sync_engine.dialect)
    engine = None
    gc.collect()
    assert gone() is None
