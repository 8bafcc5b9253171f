"""stemmadb._sqlstates: what PostgreSQL, psycopg and SQLAlchemy say becomes the library's errors."""

import threading
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pydantic
import pytest
from sqlalchemy import Connection, Engine, NullPool, create_engine, exc, insert, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.orm import exc as orm_exc

from stemmadb import errors
from stemmadb._sqlstates import translate
from stemmadb.accounts.entities import User
from stemmadb.database import Database

SECRET = "hunter2@example.com"

TABLES = """
CREATE SCHEMA probe;
CREATE TABLE probe.shelves (id integer PRIMARY KEY, parent_id integer CONSTRAINT shelves_parent_id_fkey REFERENCES probe.shelves);
CREATE TABLE probe.books (
  id integer PRIMARY KEY,
  shelf_id integer CONSTRAINT books_shelf_id_fkey REFERENCES probe.shelves DEFERRABLE,
  box_id integer CONSTRAINT books_box_id_fkey REFERENCES probe.shelves ON DELETE RESTRICT,
  isbn text CONSTRAINT books_isbn_key UNIQUE,
  title varchar(5),
  pages smallint CONSTRAINT books_pages_check CHECK (pages > 0),
  author text NOT NULL DEFAULT 'somebody',
  workspace_id integer NOT NULL DEFAULT 1
);
CREATE TABLE probe.loans (during int4range, CONSTRAINT loans_during_excl EXCLUDE USING gist (during WITH &&));
CREATE FUNCTION probe.guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'a shelf never moves' USING ERRCODE = '23514', CONSTRAINT = 'shelves_immutable', TABLE = 'shelves', SCHEMA = 'probe';
END $$;
CREATE TRIGGER shelves_guard BEFORE UPDATE OF parent_id ON probe.shelves FOR EACH ROW EXECUTE FUNCTION probe.guard();
CREATE TABLE probe.notes (id integer PRIMARY KEY, owner text);
ALTER TABLE probe.notes ENABLE ROW LEVEL SECURITY;
ALTER TABLE probe.notes FORCE ROW LEVEL SECURITY;
CREATE POLICY notes_tenant ON probe.notes USING (owner = current_setting('probe.owner', true));
INSERT INTO probe.shelves VALUES (1), (2), (3);
INSERT INTO probe.books (id, shelf_id, box_id, isbn) VALUES (1, 1, 2, 'taken');
"""


@pytest.fixture(scope="module")
def engine(stemmadb_database: Database) -> Iterator[Engine]:
    """An engine of the owner, on a database with a few tables that rules stand on."""
    made = create_engine(stemmadb_database.direct_url, poolclass=NullPool)
    with made.begin() as connection:
        connection.exec_driver_sql(TABLES)
    yield made
    with made.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA probe CASCADE")


def provoke(engine: Engine, act: Callable[[Connection], object]) -> errors.StemmaError:
    """Return the translation of what an act raises in a transaction of its own."""
    with pytest.raises(Exception) as raised, engine.connect() as connection, connection.begin():
        act(connection)
        connection.exec_driver_sql("SET CONSTRAINTS ALL IMMEDIATE")
    assert not isinstance(raised.value, errors.StemmaError)
    return translated(raised.value)


def translated(error: Exception) -> errors.StemmaError:
    """Translate, and check what holds of every translation."""
    result = translate(error)
    shown = "\n".join([str(result), repr(result), *getattr(result, "__notes__", ())])
    assert SECRET not in shown
    assert "DETAIL" not in shown
    return result


def sql(statement: str, **parameters: Any) -> Callable[[Connection], object]:
    """An act of one statement."""
    return lambda connection: connection.execute(text(statement), parameters)


BOOK = "INSERT INTO probe.books (id, shelf_id, box_id, isbn, title, pages, author, workspace_id)"

REFUSALS: list[tuple[str, str, str, dict[str, Any]]] = [
    ("23505", f"{BOOK} VALUES (9, 1, 1, 'taken', 'a', 1, 'x', 1)", "conflict", {"entity": "books", "fields": ("isbn",)}),
    ("23505 of a key", f"{BOOK} VALUES (1, 1, 1, 'b', 'a', 1, 'x', 1)", "conflict", {"fields": ("id",)}),
    ("23503 insert", f"{BOOK} VALUES (9, 99, 1, 'b', 'a', 1, 'x', 1)", "reference_not_found", {"field": "shelf_id"}),
    ("23503 update", "UPDATE probe.books SET shelf_id = 99", "reference_not_found", {"field": "shelf_id"}),
    ("23503 delete", "DELETE FROM probe.shelves WHERE id = 1", "still_referenced", {"constraint": "books_shelf_id_fkey", "by": ("books",)}),
    ("23503 update of a key", "UPDATE probe.shelves SET id = 9 WHERE id = 1", "still_referenced", {"by": ("books",)}),
    ("23503 cte", "WITH x AS (DELETE FROM probe.shelves WHERE id = 1 RETURNING 1) SELECT 1 FROM x", "still_referenced", {"by": ("books",)}),
    (
        "23503 cte insert",
        "WITH x AS (INSERT INTO probe.shelves VALUES (9, 99) RETURNING 1) SELECT 1 FROM x",
        "reference_not_found",
        {"field": "parent_id"},
    ),
    ("23001", "DELETE FROM probe.shelves WHERE id = 2", "still_referenced", {"constraint": "books_box_id_fkey"}),
    ("23514", f"{BOOK} VALUES (9, 1, 1, 'b', 'a', 0, 'x', 1)", "constraint_violation", {"constraint": "books_pages_check"}),
    ("23514 guard", "UPDATE probe.shelves SET parent_id = 2", "frozen", {"entity": "shelves", "reason": "a shelf never moves"}),
    ("23502", f"{BOOK} VALUES (9, 1, 1, 'b', 'a', 1, NULL, 1)", "constraint_violation", {"column": "author"}),
    ("23502 workspace", f"{BOOK} VALUES (9, 1, 1, 'b', 'a', 1, 'x', NULL)", "workspace_not_set", {}),
    ("23P01", "INSERT INTO probe.loans VALUES ('[1,5)'), ('[2,3)')", "conflict", {"entity": "loans", "fields": ("during",)}),
    ("22001", "UPDATE probe.books SET title = 'longer than five'", "validation", {}),
    ("22003", "UPDATE probe.books SET pages = 70000", "validation", {}),
    ("22P02", "SELECT CAST('x' AS uuid)", "validation", {}),
    ("22P05", """SELECT CAST('{"a": "\\u0000"}' AS jsonb) ->> 'a'""", "validation", {}),
    ("22012", "SELECT 1 / 0", "validation", {}),
    ("42501 policy", "INSERT INTO probe.notes VALUES (1, 'another')", "tenant_violation", {"entity": "notes"}),
    ("42501 grant", "SELECT * FROM pg_authid", "permission_denied", {}),
    ("42P01", "SELECT 1 FROM probe.nothing", "schema_out_of_date", {"command": "stemmadb migrate up"}),
    ("42703", "SELECT nothing FROM probe.books", "schema_out_of_date", {}),
    ("42601", "SELEC 1", "database", {"sqlstate": "42601"}),
    ("25006", "SET TRANSACTION READ ONLY; DELETE FROM probe.books", "database_unavailable", {"safe_to_retry": True}),
    ("57014", "SET LOCAL statement_timeout = 20; SELECT pg_sleep(5)", "query_timeout", {"kind": "statement"}),
    ("P0001", "DO $$ BEGIN RAISE EXCEPTION 'odd'; END $$", "database", {"sqlstate": "P0001"}),
]


@pytest.mark.parametrize(("statement", "code", "fields"), [row[1:] for row in REFUSALS], ids=[row[0] for row in REFUSALS])
def test_a_refusal_of_the_server(engine: Engine, statement: str, code: str, fields: dict[str, Any]) -> None:
    """Each SQLSTATE that PostgreSQL gives for a statement becomes the error that the tables of the design name."""

    def act(connection: Connection) -> None:
        for part in statement.split("; ") if not statement.startswith("DO") else [statement]:
            connection.exec_driver_sql(part)

    result = provoke(engine, act)
    assert (result.code, {name: getattr(result, name) for name in fields}) == (code, fields)


def test_the_same_row_twice_names_the_fields_and_no_value(engine: Engine) -> None:
    """A conflict says "already exists" and which fields; what the row holds is not in it, nor in the note beside it."""
    result = provoke(
        engine,
        lambda c: [c.execute(text(f"{BOOK} VALUES (:id, 1, 1, :isbn, 'a', :id, 'x', 1)"), {"id": i, "isbn": SECRET}) for i in (31, 62)],
    )
    assert "isbn already exists" in str(result)
    assert result.__notes__ == ["SQLSTATE 23505 (unique violation), table books, constraint books_isbn_key"]


def test_a_deferred_foreign_key_is_told_apart_without_a_statement(engine: Engine) -> None:
    """What a COMMIT refuses has no verb: the names in the refusal say which end of the key it is."""
    for statement, expected in (
        ("INSERT INTO probe.books (id, shelf_id) VALUES (9, 99)", errors.ReferenceNotFoundError),
        ("DELETE FROM probe.shelves WHERE id = 1", errors.StillReferencedError),
    ):
        with pytest.raises(exc.IntegrityError) as raised, engine.connect() as connection, connection.begin():
            connection.exec_driver_sql("SET CONSTRAINTS ALL DEFERRED")
            connection.exec_driver_sql("ALTER TABLE probe.books ALTER CONSTRAINT books_shelf_id_fkey INITIALLY DEFERRED")
            connection.exec_driver_sql(statement)
        assert raised.value.statement is None
        assert type(translated(raised.value)) is expected


def test_fields_come_from_the_entity_where_there_is_one(session: Session) -> None:
    """A table of the library is named by its class, and its constraint by its columns without the workspace."""
    assert User.__tablename__ == "users"
    row = {"email": SECRET, "name": "x"}
    with pytest.raises(exc.IntegrityError) as raised, session.begin_nested():
        session.execute(text("INSERT INTO stemma.users (email, name) VALUES (:email, :name), (:email, :name)"), row)
    result = translated(raised.value)
    assert isinstance(result, errors.ConflictError)
    assert (result.entity, result.fields) == ("User", ("email",))


def test_a_bare_error_of_psycopg(engine: Engine) -> None:
    """An error that SQLAlchemy has not wrapped is translated the same way."""
    with psycopg.connect(engine.url.set(drivername="postgresql").render_as_string(hide_password=False)) as connection:
        with pytest.raises(psycopg.Error) as raised:
            connection.execute("INSERT INTO probe.books (id, isbn) VALUES (9, 'taken')")
        result = translated(raised.value)
        assert isinstance(result, errors.ConflictError)
        assert result.fields == ("isbn",)
        with pytest.raises(psycopg.Error) as raised:
            connection.execute("SELECT 1")
        assert "roll back" in str(translated(raised.value))


def test_waiting_for_a_lock(engine: Engine) -> None:
    """55P03 is LockTimeoutError, 40P01 is SerializationError for one of two that wait for each other."""
    with engine.connect() as holder, holder.begin():
        holder.exec_driver_sql("SELECT 1 FROM probe.shelves WHERE id = 3 FOR UPDATE")
        result = provoke(engine, lambda c: c.exec_driver_sql("SELECT 1 FROM probe.shelves WHERE id = 3 FOR UPDATE NOWAIT"))
        assert isinstance(result, errors.LockTimeoutError)


@pytest.mark.race
def test_a_deadlock(engine: Engine) -> None:
    """Of two transactions that wait for each other one gets SerializationError, and the other goes on."""
    barrier = threading.Barrier(2)
    results: list[errors.StemmaError] = []

    def lock(first: int, second: int) -> None:
        try:
            with engine.connect() as connection, connection.begin():
                connection.exec_driver_sql(f"SELECT 1 FROM probe.shelves WHERE id = {first} FOR UPDATE")
                barrier.wait(10)
                connection.exec_driver_sql(f"SELECT 1 FROM probe.shelves WHERE id = {second} FOR UPDATE")
        except exc.OperationalError as error:
            results.append(translated(error))

    threads = [threading.Thread(target=lock, args=pair) for pair in ((1, 2), (2, 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [result.args for result in results] == [("40P01",)]
    assert isinstance(results[0], errors.SerializationError)


@pytest.mark.race
def test_a_serialization_failure(engine: Engine) -> None:
    """Two serializable transactions that both read and write: 40001."""
    with engine.connect() as first, engine.connect() as second:
        for connection in (first, second):
            connection.execution_options(isolation_level="REPEATABLE READ")
            connection.exec_driver_sql("SELECT count(*) FROM probe.shelves")
        first.exec_driver_sql("UPDATE probe.books SET author = 'first' WHERE id = 1")
        first.commit()
        with pytest.raises(exc.OperationalError) as raised:
            second.exec_driver_sql("UPDATE probe.books SET author = 'second' WHERE id = 1")
    result = translated(raised.value)
    assert isinstance(result, errors.SerializationError)
    assert result.sqlstate == "40001"


@pytest.mark.fault
def test_a_backend_that_is_ended(engine: Engine) -> None:
    """57P01 in a statement is ConnectionLostError, safe to retry: nothing was committed."""
    result = provoke(engine, sql("SELECT pg_terminate_backend(pg_backend_pid())"))
    assert isinstance(result, errors.ConnectionLostError)
    assert result.safe_to_retry


@pytest.mark.fault
def test_a_connection_lost_before_commit_is_not_safe_to_retry(engine: Engine) -> None:
    """A COMMIT without an answer may have taken effect, as far as the exception says."""
    with pytest.raises(exc.OperationalError) as raised, engine.connect() as connection, connection.begin():
        pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        with engine.connect() as other:
            other.exec_driver_sql("SELECT pg_terminate_backend(%s, 5000)", (pid,))
    result = translated(raised.value)
    assert isinstance(result, errors.ConnectionLostError)
    assert not result.safe_to_retry


@pytest.mark.fault
def test_a_transaction_left_idle(engine: Engine) -> None:
    """25P03 is QueryTimeoutError of the kind "idle"."""

    def act(connection: Connection) -> None:
        connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 10")
        pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        with engine.connect() as other:
            gone = "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = %s"
            while not other.exec_driver_sql(gone, (pid,)).scalar_one():
                other.rollback()
        connection.exec_driver_sql("SELECT 1")

    result = provoke(engine, act)
    assert isinstance(result, errors.QueryTimeoutError)
    assert result.kind == "idle"


@pytest.mark.fault
def test_refused_logins_and_unreachable_servers(engine: Engine) -> None:
    """A refused login names host, port, database and user, never the password; a server that is not there is unavailable."""
    for changes in ({"username": "nobody_of_that_name", "password": SECRET}, {"database": "nothing_of_that_name"}):
        refused = create_engine(engine.url.set(**changes))
        with pytest.raises(exc.OperationalError) as raised:
            refused.connect()
        result = translated(raised.value)
        assert isinstance(result, errors.ConfigurationError)
        wanted = refused.url
        assert (result.database, result.user) == (wanted.database, wanted.username)
        assert result.host
        assert result.port
    absent = create_engine(f"postgresql+psycopg://me:{SECRET}@localhost:1/nothing", connect_args={"connect_timeout": 5})
    with pytest.raises(exc.OperationalError) as raised:
        absent.connect()
    result = translated(raised.value)
    assert type(result) is errors.DatabaseUnavailableError
    assert result.safe_to_retry


@pytest.mark.parametrize(
    ("value", "expected"),
    [("\x00" + SECRET, errors.ValidationError), ("\ud800" + SECRET, errors.ValidationError), (object(), errors.ValidationError)],
    ids=["NUL", "surrogate", "unknown type"],
)
def test_values_that_cannot_be_sent(engine: Engine, value: object, expected: type[errors.StemmaError]) -> None:
    """What psycopg refuses to send is a ValidationError, without the value."""
    assert type(provoke(engine, sql("SELECT :value", value=value))) is expected


def test_a_pool_that_is_exhausted(engine: Engine) -> None:
    """The pool's own timeout is PoolTimeoutError."""
    small = create_engine(engine.url, pool_size=1, max_overflow=0, pool_timeout=0.01)
    with small.connect(), pytest.raises(exc.TimeoutError) as raised:
        small.connect()
    assert isinstance(translated(raised.value), errors.PoolTimeoutError)
    small.dispose()


class _Model(DeclarativeBase):
    pass


class _Shelf(_Model):
    __tablename__ = "shelves"
    __table_args__ = {"schema": "probe"}
    id: Mapped[int] = mapped_column(primary_key=True)
    parent_id: Mapped[int | None]


def test_what_the_session_itself_raises(engine: Engine) -> None:
    """A stale row, a failed session and a row that is not there have errors of their own."""
    with Session(engine) as session:
        shelf = session.get_one(_Shelf, 3)
        session.execute(text("DELETE FROM probe.shelves WHERE id = 3"))
        shelf.id = 4
        with pytest.raises(orm_exc.StaleDataError) as stale:
            session.flush()
        conflict = translated(stale.value)
        assert isinstance(conflict, errors.VersionConflictError)
        assert (conflict.entity, "read it again" in str(conflict)) == ("shelves", True)
        session.rollback()
        session.add(_Shelf(id=1))
        with pytest.raises(exc.IntegrityError):
            session.flush()
        session.add(_Shelf(id=1))
    with Session(engine) as session, pytest.raises(exc.NoResultFound) as missing:
        session.get_one(_Shelf, 99)
    assert isinstance(translated(missing.value), errors.NotFoundError)


@pytest.mark.offline
def test_errors_of_ours_come_through() -> None:
    """An error of ours is itself, also when SQLAlchemy has wrapped it around a parameter."""
    ours = errors.NotFoundError("Run", uuid4())
    assert translate(ours) is ours
    assert translate(exc.StatementError("x", "SELECT 1", {}, ours)) is ours


@pytest.mark.offline
def test_the_text_of_the_first_failure_is_not_repeated() -> None:
    """SQLAlchemy's PendingRollbackError quotes the first error with its parameters; ours does not."""
    result = translated(exc.PendingRollbackError(f"Original exception was: ... {SECRET}"))
    assert "roll back" in str(result)


@pytest.mark.offline
def test_a_pydantic_error_names_the_places() -> None:
    """Each place stands in details, without what was given."""

    class Data(pydantic.BaseModel):
        email: int

    with pytest.raises(pydantic.ValidationError) as raised:
        Data.model_validate({"email": SECRET})
    result = translated(raised.value)
    assert isinstance(result, errors.ValidationError)
    assert result.details[0].startswith("/email: ")


@pytest.mark.offline
@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (TimeoutError(), errors.QueryTimeoutError),
        (exc.InvalidRequestError("'Run.config' is not available"), errors.DatabaseError),
        (exc.ResourceClosedError("closed"), errors.DatabaseError),
        (exc.ArgumentError("odd"), errors.DatabaseError),
        (exc.SQLAlchemyError("odd"), errors.DatabaseError),
        (exc.StatementError("x", "SELECT 1", {}, ValueError(SECRET)), errors.ValidationError),
        (psycopg.errors.DiskFull(), errors.DatabaseError),
    ],
    ids=lambda value: type(value).__name__,
)
def test_nothing_comes_out_untranslated(error: Exception, expected: type[errors.StemmaError]) -> None:
    """Whatever it is, the result is one of ours."""
    assert isinstance(translated(error), expected)


class _Diagnostics:
    """What a refusal carries behind Citus: the sentence alone."""

    def __init__(self, message: str) -> None:
        self.message_primary = message

    def __getattr__(self, name: str) -> None:
        return None


@pytest.mark.offline
@pytest.mark.parametrize(
    ("state", "message", "code", "fields"),
    [
        (
            psycopg.errors.UniqueViolation,
            'duplicate key value violates unique constraint "runs_name_key_102009"',
            "conflict",
            {"fields": ("runs_name",)},
        ),
        (
            psycopg.errors.ForeignKeyViolation,
            'insert or update on table "runs_102010" violates foreign key constraint "runs_definition_id_fkey_102010"',
            "reference_not_found",
            {"constraint": "runs_definition_id_fkey"},
        ),
        (
            psycopg.errors.ForeignKeyViolation,
            'update or delete on table "r_102008" violates foreign key constraint "runs_definition_id_fkey_102010" on table "runs_102010"',
            "still_referenced",
            {"constraint": "runs_definition_id_fkey"},
        ),
        (
            psycopg.errors.NotNullViolation,
            'null value in column "workspace_id" of relation "runs_102010" violates not-null constraint',
            "workspace_not_set",
            {},
        ),
    ],
)
def test_behind_citus_the_names_come_from_the_sentence(
    state: type[psycopg.Error], message: str, code: str, fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers pass on no diagnostics; the number of the shard is cut from the names."""
    monkeypatch.setattr(psycopg.Error, "diag", property(lambda _: _Diagnostics(message)))
    result = translate(state(message))
    assert (result.code, {name: getattr(result, name) for name in fields}) == (code, fields)


@pytest.mark.offline
@pytest.mark.parametrize("state", ["53100", "53300", "57P03", "08006", "40003", "28P01", "3D000", "25P04", "57P05"])
def test_states_that_only_a_broken_server_gives(state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """States that a test cannot provoke at will have their class too."""
    expected = {
        "53100": errors.StorageFullError,
        "53300": errors.DatabaseUnavailableError,
        "57P03": errors.DatabaseUnavailableError,
        "08006": errors.ConnectionLostError,
        "40003": errors.CommitUnknownError,
        "28P01": errors.ConfigurationError,
        "3D000": errors.ConfigurationError,
        "25P04": errors.QueryTimeoutError,
        "57P05": errors.ConnectionLostError,
    }
    monkeypatch.setattr(psycopg.Error, "diag", property(lambda _: _Diagnostics("")))
    assert type(translate(psycopg.errors.lookup(state)("")) if state != "57P05" else _of(state)) is expected[state]


def _of(state: str) -> errors.StemmaError:
    error = psycopg.OperationalError("")
    error.sqlstate = state
    return translate(error)


def test_insert_of_sqlalchemy_is_told_by_its_verb(engine: Engine) -> None:
    """A compiled INSERT, also one that begins with a comment, is an INSERT."""
    statement = insert(_Shelf).values(id=77, parent_id=99).prefix_with("/* why */", dialect="postgresql")
    assert isinstance(provoke(engine, lambda c: c.execute(statement)), errors.ReferenceNotFoundError)
    assert isinstance(provoke(engine, sql("-- why\n INSERT INTO probe.shelves VALUES (77, 99)")), errors.ReferenceNotFoundError)
