"""stemmadb.query: what every query function shares, and statements as constants."""

import inspect
from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Boolean, Integer, event, text
from sqlalchemy.orm import Session, undefer
from tests.evaluation.run_setups import make_definition

from stemmadb.accounts import users
from stemmadb.accounts.entities import User
from stemmadb.database import Database
from stemmadb.errors import ConflictError, SchemaOutOfDateError, StemmaError, ValidationError, WorkspaceNotSetError
from stemmadb.evaluation.entities import Definition
from stemmadb.observability import count_statements
from stemmadb.query import guard, query, read, sql, sql_rows, tenant_query, translated
from stemmadb.testing import assert_max_queries

_ADD_USER = sql(User, "INSERT INTO stemma.users (email, name) VALUES (:email, :name) RETURNING {columns}")
_RENAME = sql(User, "UPDATE stemma.users SET name = :name WHERE email LIKE :email RETURNING {columns}")
_USERS = sql(User, "SELECT {columns} FROM stemma.users AS person WHERE person.email LIKE :email ORDER BY person.email", alias="person")
_COUNT = sql_rows("SELECT count(*) FROM stemma.definitions WHERE definitions.workspace_id = :workspace_id")
_NAMES = sql_rows("SELECT name, depth FROM stemma.definitions WHERE definitions.workspace_id = :workspace_id ORDER BY name")
_TOUCH = sql_rows("UPDATE stemma.definitions SET message = :message WHERE definitions.workspace_id = :workspace_id")


@query
def number_of_users(session: Session, *, email: str = "%") -> int:
    """Count users."""
    return len(_USERS.all(session, email=email))


@query
def broken(session: Session, statement: str) -> None:
    """Send what the database refuses."""
    session.execute(text(statement))


@query
def broken_stream(session: Session) -> Iterator[int]:
    """Yield one number, then fail."""
    yield 1
    session.execute(text("SELECT nothing_such FROM stemma.users"))


@tenant_query
def own(session: Session, number: int = 1) -> int:
    """Needs a workspace."""
    return number


@tenant_query
def own_stream(session: Session) -> Iterator[int]:
    """Needs a workspace at the call, not at the first row."""
    yield 1


# -------------------------------------------------------------------------------------------------------------- functions


@pytest.mark.offline
def test_a_decorated_function_stays_what_it_was() -> None:
    """Name, documentation and parameters are kept; the mark says which kind it is."""
    assert str(inspect.signature(number_of_users)) == "(session: sqlalchemy.orm.session.Session, *, email: str = '%') -> int"
    assert (number_of_users.__name__, number_of_users.__doc__) == ("number_of_users", "Count users.")
    assert [getattr(fn, "__stemma_query__") for fn in (number_of_users, own, own_stream)] == ["global", "tenant", "tenant"]  # noqa: B009
    assert inspect.isgeneratorfunction(inspect.unwrap(own_stream))


@pytest.mark.requirement("TN-037", "TN-038")
def test_only_tenant_functions_ask_for_a_workspace(db: Database) -> None:
    """Without a workspace they raise at the call, with their name, and nothing is sent; the others work."""
    with db.session() as session:
        assert number_of_users(session) >= 0
        with count_statements() as sent:
            for function in (own, own_stream):
                with pytest.raises(WorkspaceNotSetError, match=rf"test_query\.{function.__name__} needs a workspace"):
                    function(session)
        assert sent.count == 0


def test_what_the_driver_raises_is_translated(session: Session) -> None:
    """Nothing of SQLAlchemy and psycopg gets out, and no cause that would print parameters."""
    for statement, expected in (
        ("SELECT nothing_such FROM stemma.users", SchemaOutOfDateError),
        ("SELECT CAST('x' AS integer)", ValidationError),
    ):
        with pytest.raises(expected) as caught, session.begin_nested():
            broken(session, statement)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__


def test_an_error_in_the_middle_of_a_stream_is_translated(session: Session) -> None:
    """Rows that came stay good; the error is ours."""
    stream = broken_stream(session)
    assert next(stream) == 1
    with pytest.raises(SchemaOutOfDateError), session.begin_nested():
        next(stream)


def test_a_block_is_translated(session: Session) -> None:
    """translated() is for code that is no query function; errors of ours pass."""
    users.create(session, "one@example.com")
    with pytest.raises(ConflictError), session.begin_nested(), translated():
        session.execute(text("INSERT INTO stemma.users (email) VALUES ('one@example.com')"))
    with pytest.raises(StemmaError, match="as it is"), translated():
        raise StemmaError("as it is")


def test_guard_asks_for_tenant_entities_only(db: Database, session: Session) -> None:
    """What works on any entity asks by the entity."""
    guard(session, Definition, "some.function")
    with db.session() as bare:
        guard(bare, User, "some.function")
        with pytest.raises(WorkspaceNotSetError, match=r"some\.function needs a workspace"):
            guard(bare, Definition, "some.function")


# ----------------------------------------------------------------------------------------------------------- reading by id


def test_read_returns_what_the_database_has_now(session: Session) -> None:
    """An object that the session holds is brought up to date, one statement for each reading; a change of its own is sent first."""
    made = make_definition(session)
    session.execute(text("UPDATE stemma.definitions SET message = 'raw'"))
    assert made.message is None
    with assert_max_queries(1):
        assert read(session, Definition, made.id) is made
    assert made.message == "raw"
    made.message = "mine"
    assert read(session, Definition, made.id) is made
    assert made.message == "mine"
    session.expunge_all()
    with assert_max_queries(1):
        again = read(session, Definition, made.id)
    assert again is not None
    assert (again is made, again.message) == (False, "mine")
    assert read(session, Definition, uuid4()) is None


def test_read_leaves_deferred_columns_alone(session: Session) -> None:
    """A body that was fetched stays, one that was not is not fetched."""
    made = make_definition(session)
    session.expunge_all()
    held = session.get(Definition, (made.workspace_id, made.id), options=[undefer(Definition.content)])
    assert held is not None
    content = held.content
    assert read(session, Definition, made.id) is held
    assert held.content is content


def test_read_lets_go_of_a_row_that_is_gone(session: Session) -> None:
    """The object of a row that somebody deleted is None, and out of the session."""
    made = make_definition(session)
    session.execute(text("DELETE FROM stemma.definitions"))
    assert read(session, Definition, made.id) is None
    assert made not in session
    assert made.name == "Trolley"


# -------------------------------------------------------------------------------------------------------------- statements


def test_rows_of_a_constant(session: Session, workspace: UUID) -> None:
    """The workspace fills itself in, what was added is sent first, and each way of asking gives its part."""
    made = make_definition(session)
    session.add(Definition(id=(key := uuid4()), root_id=key, name="Another", content=made.content))
    assert _COUNT.scalar(session) == 2
    assert _COUNT.scalar(session, workspace_id=uuid4()) == 0
    assert [tuple(row) for row in _NAMES.all(session)] == [("Another", 0), ("Trolley", 0)]
    first = _NAMES.first(session)
    assert first is not None
    assert first.name == "Another"
    assert _TOUCH.run(session, message="all") == 2
    assert _NAMES.first(session, workspace_id=uuid4()) is None


@pytest.mark.requirement("TN-038")
def test_a_constant_without_a_workspace_is_not_sent(db: Database) -> None:
    """A statement that asks for the workspace raises before it is sent."""
    with db.session() as session, count_statements() as sent:
        with pytest.raises(WorkspaceNotSetError):
            _COUNT.scalar(session)
    assert sent.count == 0


def test_entities_of_a_constant(session: Session) -> None:
    """Columns stand under the alias; writing shows the row as it is now, reading leaves an object of the session as it is."""
    ada, bob = (_ADD_USER.write(session, email=f"{name}@query.example", name=name) for name in ("ada", "bob"))
    assert ada is not None
    assert _USERS.all(session, email="%@query.example") == [ada, bob]
    assert _USERS.one_or_none(session, email="bob@query.example") is bob
    assert _USERS.one_or_none(session, email="nobody@query.example") is None
    session.execute(text("UPDATE stemma.users SET name = 'raw' WHERE email LIKE '%@query.example'"))
    assert _USERS.all(session, email="ada@query.example")[0].name == "ada"
    assert [user.name for user in _RENAME.write_all(session, name="new", email="%@query.example")] == ["new", "new"]
    assert ada.name == "new"
    assert _RENAME.write(session, name="new", email="nobody") is None


def test_values_beside_entities(session: Session) -> None:
    """They come in their order with their types, whoever loads the entities; what the session holds is brought up to date."""
    made = make_definition(session)
    statement = sql(
        Definition,
        """
        SELECT {columns}, length(definitions.name) AS letters, definitions.parent_id IS NULL AS is_root
          FROM stemma.definitions
         WHERE definitions.workspace_id = :workspace_id
        """,
        beside={"letters": Integer(), "is_root": Boolean()},
    )
    session.execute(text("UPDATE stemma.definitions SET name = 'Bridge'"))
    assert [(entity, entity.name, tuple(values)) for entity, values in statement.pairs(session)] == [(made, "Bridge", (6, True))]
    session.expunge_all()
    heard: list[object] = []
    event.listen(session, "loaded_as_persistent", lambda _session, entity: heard.append(entity))
    ((entity, values),) = statement.pairs(session)
    assert heard == [entity]
    assert tuple(values) == (6, True)
