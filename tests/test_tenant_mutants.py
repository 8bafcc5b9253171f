"""
What holds workspaces apart is taken out, piece by piece, and a named test fails.

Policies, keys and functions are altered in the database for real, predicates in the statements that the library sends, and the guards of
sessions in the process. Each mutant names the test that catches it; the test is run against the mutant, and must fail, after it passed
without.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, NullPool, Table, create_engine, event, text, true
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, with_loader_criteria
from tests import test_catalogue as catalogue
from tests import test_tenant_isolation as isolation
from tests.evaluation import test_definition_search as searching
from tests.generated_calls import Rows, TenantFunction, tenant_functions
from tests.kernel import test_hosts as hosts
from tests.kernel import test_tenancy as sessions
from tests.neighbours import TENANTS, Call, Neighbours, calls, refuse_to_depend, refuse_to_tell, two_workspaces

from stemmadb import _openings, migrations, paging, query, tenancy
from stemmadb._conformance import _statements
from stemmadb._conformance._sources import sources_of
from stemmadb._test_server import DatabaseServer
from stemmadb.database import Database
from stemmadb.errors import NotFoundError, StemmaError
from stemmadb.evaluation import _definition_rows
from stemmadb.packs import packs
from stemmadb.query import EntityStatement, RowStatement
from stemmadb.testing import make_workspace

pytestmark = pytest.mark.fault
FAILURES = (AssertionError, pytest.fail.Exception)


def require_caught(check: Callable[..., Any], *arguments: Any) -> None:
    """The test fails, as tests do."""
    with pytest.raises(FAILURES):
        check(*arguments)


@dataclass(frozen=True)
class Place:
    """Two full workspaces, and the owner of their tables."""

    neighbours: Neighbours
    owner: Engine

    def do(self, *statements: str) -> None:
        with self.owner.begin() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)

    @contextlib.contextmanager
    def mutated(self, *statements: str, undo: tuple[str, ...]) -> Iterator[None]:
        """Commit a change of the catalogue, and take it back."""
        self.do(*statements)
        try:
            yield
        finally:
            self.do(*undo)


def place_on(server: DatabaseServer) -> Iterator[Place]:
    with two_workspaces(server) as neighbours:
        owner = create_engine(neighbours.db.direct_url, poolclass=NullPool)
        yield Place(neighbours, owner)
        owner.dispose()


@pytest.fixture(scope="module")
def place(stemmadb_server: DatabaseServer) -> Iterator[Place]:
    """A database whose catalogue is altered and put right."""
    yield from place_on(stemmadb_server)


@pytest.fixture(scope="module")
def bare(stemmadb_server: DatabaseServer) -> Iterator[Place]:
    """One without policies: what statements say is all there is."""
    for found in place_on(stemmadb_server):
        found.do(*(f"ALTER TABLE stemma.{table.name} DISABLE ROW LEVEL SECURITY" for table in TENANTS))
        yield found


# ------------------------------------------------------------------------------------------------ policies, in every table

_RULE = "workspace_id = nullif(current_setting('stemma.workspace_id', true), '')::uuid"
_SEEN, _WRITTEN = isolation.test_policies_hold_where_predicates_are_forgotten, isolation.test_no_row_is_put_into_another_workspace
_OWNED = isolation.test_policies_hold_the_owner_too
# What is done to a table, how it is undone, and the test that fails.
_POLICIES: dict[str, tuple[str, str, Callable[[Neighbours, Table], None]]] = {
    "row security off": ("ALTER TABLE {t} DISABLE ROW LEVEL SECURITY", "ALTER TABLE {t} ENABLE ROW LEVEL SECURITY", _SEEN),
    "FORCE off": ("ALTER TABLE {t} NO FORCE ROW LEVEL SECURITY", "ALTER TABLE {t} FORCE ROW LEVEL SECURITY", _OWNED),
    "policy dropped": ("DROP POLICY {p} ON {t}", "CREATE POLICY {p} ON {t} USING ({rule}) WITH CHECK ({rule})", _SEEN),
    "everything seen": ("ALTER POLICY {p} ON {t} USING (true)", "ALTER POLICY {p} ON {t} USING ({rule})", _SEEN),
    "everything written": ("ALTER POLICY {p} ON {t} WITH CHECK (true)", "ALTER POLICY {p} ON {t} WITH CHECK ({rule})", _WRITTEN),
    "a second policy": ("CREATE POLICY mutant ON {t} USING (true)", "DROP POLICY mutant ON {t}", _SEEN),
    "no workspace is every workspace": (
        "ALTER POLICY {p} ON {t} USING ({rule} OR coalesce(current_setting('stemma.workspace_id', true), '') = '')",
        "ALTER POLICY {p} ON {t} USING ({rule})",
        _SEEN,
    ),
}


@pytest.mark.requirement("TN-042", "TN-045")
@pytest.mark.parametrize("table", TENANTS, ids=lambda table: table.name)
def test_nothing_is_caught_without_a_mutant(place: Place, table: Table) -> None:
    """The tests that catch mutants pass where there is none."""
    for check in (_SEEN, _WRITTEN, _OWNED):
        check(place.neighbours, table)


@pytest.mark.requirement("TN-042", "TN-045")
@pytest.mark.parametrize("table", TENANTS, ids=lambda table: table.name)
@pytest.mark.parametrize("kind", _POLICIES)
def test_a_policy_that_is_altered_is_caught(place: Place, kind: str, table: Table) -> None:
    """In each tenant table, by what callers then see or write, and by the catalogue's own test."""
    done, undone, check = _POLICIES[kind]
    names = {"t": f"stemma.{table.name}", "p": f"{table.name}_tenant", "rule": _RULE}
    with place.mutated(done.format(**names), undo=(undone.format(**names),)):
        require_caught(check, place.neighbours, table)
        if kind != "a second policy":
            require_caught(catalogue.test_one_policy_text_guards_every_tenant_table, place.owner)


@pytest.mark.requirement("AD-019", "TN-036")
@pytest.mark.parametrize("key", isolation.REFERENCES, ids=lambda key: key.name)
def test_a_key_without_the_workspace_is_caught(place: Place, key: Any) -> None:
    """Each composite foreign key, made one of the id alone, by test_no_row_hangs_on_another_workspaces_row."""
    pairs = {element.parent.name: element.column.name for element in key.elements if element.column.name != "workspace_id"}
    child_column, parent_column = next((ours, theirs) for ours, theirs in pairs.items() if theirs == "id")
    table, parent = f"stemma.{key.table.name}", f"stemma.{key.referred_table.name}"
    with place.owner.connect() as connection:
        found = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = :name"
        definition = connection.scalar(text(found), {"name": key.name})
    isolation.test_no_row_hangs_on_another_workspaces_row(place.neighbours, key)
    drop = f"ALTER TABLE {table} DROP CONSTRAINT {key.name}"
    with place.mutated(
        f"CREATE UNIQUE INDEX mutant ON {parent} ({parent_column})",
        drop,
        f"ALTER TABLE {table} ADD CONSTRAINT {key.name} FOREIGN KEY ({child_column}) REFERENCES {parent} ({parent_column})",
        undo=(drop, f"ALTER TABLE {table} ADD CONSTRAINT {key.name} {definition}", f"DROP INDEX stemma.{'mutant'}"),
    ):
        require_caught(isolation.test_no_row_hangs_on_another_workspaces_row, place.neighbours, key)


# -------------------------------------------------------------------------------------------------- predicates of statements

# A comparison of workspace_id: with the parameter, with another table's, in a row, in USING.
_PREDICATE = re.compile(
    r"(?:[\w.]+\.)?workspace_id = (?::workspace_id|[\w.]+\.workspace_id)"
    r"|\([\w.]*workspace_id, [^()]*\) (?:=|IN) ?\([^()]*\)|USING \(workspace_id[^)]*\)"
)


def modules() -> list[ModuleType]:
    return [module for pack in packs() for module in sources_of(pack).modules]


def constants() -> dict[str, str]:
    """Every SQL constant with a predicate, by the module and the name that hold it first."""
    found: dict[str, str] = {}
    known: set[str] = set()
    for module in modules():
        for number, (name, statement) in enumerate(_statements._constants(module)):
            if statement not in known and _PREDICATE.search(statement):
                known.add(statement)
                found[f"{module.__name__.removeprefix('stemmadb.')}.{name}.{number}"] = statement
    return found


CONSTANTS = constants()


@pytest.mark.offline
@pytest.mark.requirement("TN-032", "TN-034")
@pytest.mark.parametrize("name", CONSTANTS)
def test_each_predicate_that_is_left_out_is_caught(name: str) -> None:
    """One after the other, in every statement, by what test_a_pack_conforms asks of SQL: no table without its workspace."""
    statement = CONSTANTS[name]
    assert _statements.unguarded(statement) == []
    for found in _PREDICATE.finditer(statement):
        assert _statements.unguarded(f"{statement[: found.start()]}true{statement[found.end() :]}") != [], found[0]


@pytest.mark.offline
def test_no_statement_of_a_tenant_table_is_left_aside() -> None:
    """There are more than a hundred such predicates, in statements of every pack that has tenant tables."""
    assert sum(len(_PREDICATE.findall(statement)) for statement in CONSTANTS.values()) > 100
    assert {name.partition(".")[0] for name in CONSTANTS} >= {"workspaces", "evaluation"}


@pytest.mark.offline
def test_the_conformance_of_a_pack_reads_what_the_module_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A finding names the statement: the check is one of the constants themselves, not of a copy."""
    mutant = query.sql_rows("SELECT definitions.id FROM stemma.definitions WHERE definitions.id = :id")
    monkeypatch.setattr(_definition_rows, "_BY_ID", mutant)
    (finding,) = [found for found in _statements.check([_definition_rows]) if found.code == "statement_without_workspace"]
    assert finding.object == "stemmadb.evaluation._definition_rows._BY_ID"


def statement_objects() -> dict[str, EntityStatement[Any] | RowStatement]:
    """Every statement of the library's own kinds that has a predicate, by its name."""
    found: dict[int, tuple[str, EntityStatement[Any] | RowStatement]] = {}
    for module in modules():
        for name, value in sorted(vars(module).items()):
            for number, statement in enumerate(_statements._in(value)):
                if isinstance(statement, EntityStatement | RowStatement) and _PREDICATE.search(_source_of(statement)):
                    found.setdefault(id(statement), (f"{module.__name__.removeprefix('stemmadb.')}.{name}.{number}", statement))
    return dict(found.values())


def _source_of(statement: EntityStatement[Any] | RowStatement) -> str:
    return statement._source if isinstance(statement, EntityStatement) else statement.text.text


@contextlib.contextmanager
def without_predicates(statement: EntityStatement[Any] | RowStatement) -> Iterator[None]:
    """Let a statement of the library say ``true`` for each of its predicates."""
    source = _PREDICATE.sub("true", _source_of(statement))
    # The id of the workspace is still written into new rows.
    mutant: Any = (
        EntityStatement(statement.entity, source, statement._alias, statement._undefer)
        if isinstance(statement, EntityStatement)
        else RowStatement(source)
    )
    kept = dict(vars(statement))
    try:
        vars(statement).clear()
        vars(statement).update(vars(mutant))
        yield
    finally:
        vars(statement).clear()
        vars(statement).update(kept)


STATEMENTS = statement_objects()


@pytest.fixture(scope="module")
def users(bare: Place) -> dict[int, list[TenantFunction]]:
    """The functions that send a statement, whatever rows they are given."""
    neighbours, found = bare.neighbours, {id(statement): [] for statement in STATEMENTS.values()}
    current: list[TenantFunction] = []
    plain = query._Statement._parameters

    def noted(statement: Any, session: Session, parameters: dict[str, Any]) -> dict[str, Any]:
        if id(statement) in found and current[0] not in found[id(statement)]:
            found[id(statement)].append(current[0])
        return plain(statement, session, parameters)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(query._Statement, "_parameters", noted)
        for function in tenant_functions():
            current[:] = [function]
            for rows in (Rows(neighbours.ours), Rows(neighbours.theirs)):
                for call in [*calls(neighbours, function), Call(neighbours, function, None)]:
                    with neighbours.db.session(workspace=neighbours.ours.workspace_id) as session:
                        call.answer(session, rows)
                        session.rollback()
    return found


@pytest.mark.slow
@pytest.mark.requirement("TN-032", "TN-034")
def test_most_are_caught_by_what_callers_learn_too(bare: Place, users: dict[int, list[TenantFunction]]) -> None:
    """
    Of the statements without any predicate six in ten change an answer, or a row of the neighbour, in what the functions are called with.

    The others are given what was read within the workspace just before, or find nothing that is due. Where policies are, none of them
    does any harm.
    """
    caught, missed = [], []
    for name, statement in STATEMENTS.items():
        checks = [(check, function) for function in users[id(statement)] for check in (refuse_to_tell, refuse_to_depend)]
        with without_predicates(statement):
            found = any(fails(check, bare.neighbours, function) for check, function in checks)
        (caught if found else missed).append(name)
    print(f"{len(caught)} of {len(STATEMENTS)}; not {missed}")
    assert len(caught) >= 0.5 * len(STATEMENTS)


def fails(check: Callable[..., Any], *arguments: Any) -> bool:
    try:
        check(*arguments)
    except FAILURES:
        return True
    return False


# ------------------------------------------------------------------------------------------------- what a transaction is told


@pytest.fixture
def pair(committed_db: Database) -> tuple[UUID, UUID, UUID]:
    """What the tests of sessions work on: two workspaces, and a definition of the first."""
    ours, theirs = make_workspace(committed_db, "ours"), make_workspace(committed_db, "theirs")
    with committed_db.session(workspace=ours) as session:
        row = sessions.add(session).id
    return ours, theirs, row


def rewritten(monkeypatch: pytest.MonkeyPatch, pattern: str, by: str) -> None:
    """Let every transaction begin with another message."""
    plain = _openings.text_of

    def text_of(*arguments: Any, **keywords: Any) -> str:
        return re.sub(pattern, by, plain(*arguments, **keywords))

    monkeypatch.setattr(_openings, "text_of", text_of)


@pytest.mark.requirement("TN-042", "TN-044")
@pytest.mark.parametrize("table", TENANTS, ids=lambda table: table.name)
def test_a_transaction_that_is_not_told_is_caught(place: Place, table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the SET LOCAL of the workspace a session does not see its own rows."""
    rewritten(monkeypatch, r"; SET LOCAL stemma.workspace_id = '[^']*'", "")
    require_caught(_SEEN, place.neighbours, table)


@pytest.mark.requirement("TN-044")
def test_a_setting_of_the_connection_is_caught(
    committed_db: Database, pair: tuple[UUID, UUID, UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SET instead of SET LOCAL stays for the next user of the connection."""
    sessions.test_a_setting_does_not_outlive_its_transaction(committed_db, pair)
    rewritten(monkeypatch, "SET LOCAL stemma.workspace_id", "SET stemma.workspace_id")
    require_caught(sessions.test_a_setting_does_not_outlive_its_transaction, committed_db, pair)


@pytest.mark.requirement("TN-013", "TN-031")
def test_a_host_session_that_is_not_told_is_caught(
    committed_db: Database, pair: tuple[UUID, UUID, UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The setting that goes with a transaction of a host's engine."""
    sessions.test_a_host_session_takes_the_workspace(committed_db, pair)
    monkeypatch.setattr(tenancy, "_send", lambda connection, workspace_id: None)
    with pytest.raises(NotFoundError):
        sessions.test_a_host_session_takes_the_workspace(committed_db, pair)


@contextlib.contextmanager
def unhooked(name: str, listener: Callable[..., Any]) -> Iterator[None]:
    """Take one of the library's listeners off sessions."""
    event.remove(Session, name, listener)
    try:
        yield
    finally:
        event.listen(Session, name, listener)


@pytest.mark.requirement("TN-042", "TN-043")
def test_a_workspace_lost_with_a_savepoint_is_caught(committed_db: Database, pair: tuple[UUID, UUID, UUID]) -> None:
    """PostgreSQL takes the setting back with the savepoint in which it was made."""
    engine = create_engine(committed_db.url)
    host = hosts.Place(*pair, engine, engine)
    check = hosts.test_a_workspace_that_became_known_in_a_savepoint_outlives_it
    check(host, 1)
    with unhooked("after_soft_rollback", tenancy._back_to_savepoint):
        require_caught(check, host, 1)
    engine.dispose()


# ------------------------------------------------------------------------------------------------------- guards of sessions


@pytest.mark.requirement("TN-033", "TN-036")
def test_rows_without_the_stamp_are_caught(committed_db: Database, pair: tuple[UUID, UUID, UUID]) -> None:
    """Without before_flush nobody refuses a row of another workspace before the database does."""
    sessions.test_rows_cannot_be_written_into_another_workspace(committed_db, pair)
    with unhooked("before_flush", tenancy._stamp), pytest.raises(DBAPIError, match="row-level security policy"):
        sessions.test_rows_cannot_be_written_into_another_workspace(committed_db, pair)


@pytest.mark.requirement("TN-035", "TN-036")
@pytest.mark.parametrize(("entity", "kind"), isolation._ENTITIES, ids=[kind for _, kind in isolation._ENTITIES])
def test_objects_that_are_attached_unseen_are_caught(place: Place, entity: type[Any], kind: str) -> None:
    """Without before_attach a session answers with an object that somebody kept."""
    isolation.test_a_session_takes_no_object_of_another_workspace(place.neighbours, entity, kind)
    with unhooked("before_attach", tenancy._attach):
        require_caught(isolation.test_a_session_takes_no_object_of_another_workspace, place.neighbours, entity, kind)


(_FIRST_LINE,) = [mark.args[1] for mark in sessions.test_the_first_line_holds_alone.pytestmark if mark.name == "parametrize"]


@pytest.mark.requirement("TN-032", "TN-034")
@pytest.mark.parametrize("number", range(len(_FIRST_LINE)))
def test_statements_without_the_criteria_are_caught(
    committed_db: Database, pair: tuple[UUID, UUID, UUID], owner: Engine, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each form of an ORM statement, where the condition on its entities is none."""
    nothing = with_loader_criteria(tenancy._TenantTables, lambda cls: true(), include_aliases=True)
    monkeypatch.setattr(tenancy, "_criteria", lambda workspace_id: nothing)
    monkeypatch.setattr(tenancy, "_joined", lambda session, statement: ())
    require_caught(sessions.test_the_first_line_holds_alone, committed_db, pair, owner, _FIRST_LINE[number])


@pytest.mark.requirement("TN-032", "TN-034")
def test_second_tables_without_a_condition_are_caught(
    committed_db: Database, pair: tuple[UUID, UUID, UUID], owner: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an UPDATE or DELETE names beside its own table has a condition of its own, which the criteria leave out."""
    monkeypatch.setattr(tenancy, "_joined", lambda session, statement: ())
    caught = [
        number
        for number, statement in enumerate(_FIRST_LINE)
        if fails(sessions.test_the_first_line_holds_alone, committed_db, pair, owner, statement)
    ]
    assert caught


@pytest.mark.requirement("TN-032")
def test_pages_without_the_scope_are_caught(bare: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists that are made of plain rows have their condition from it: their answers then depend on the neighbour."""
    monkeypatch.setattr(tenancy, "scoped", lambda statement: statement)
    monkeypatch.setattr(paging, "_shapes", {})
    paged = [function for function in tenant_functions() if function.name.rpartition(".")[2] == "list_all"]
    caught = {function.name for function in paged if fails(refuse_to_depend, bare.neighbours, function)}
    assert "evaluation.definitions.list_all" in caught


@pytest.mark.requirement("TN-038")
@pytest.mark.parametrize("function", isolation.FUNCTIONS, ids=isolation.name_of)
def test_functions_that_do_not_ask_are_caught(place: Place, function: TenantFunction, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the question of tenant_query a function of a workspace sends something, or fails in another way."""
    isolation.test_without_a_workspace_nothing_is_sent(place.neighbours, function)
    monkeypatch.setattr(tenancy, "require", lambda session, function: place.neighbours.ours.workspace_id)
    with pytest.raises((*FAILURES, StemmaError)):
        isolation.test_without_a_workspace_nothing_is_sent(place.neighbours, function)


# ------------------------------------------------------------------------------------------------------- the search function

_FOUND, _FIXED, _GRANTED = (
    searching.test_words_of_another_workspace_are_never_found,
    searching.test_a_schema_in_front_changes_nothing,
    searching.test_only_the_application_may_search,
)
_SETTING, _PARAMETER = "workspace = stemma.stemma_workspace_id()", "definitions.workspace_id = workspace"
# What is put in the place of what in the function's definition, what is done beside, and the test that fails.
_FUNCTION: dict[str, tuple[dict[str, str], str, Callable[..., None]]] = {
    "the setting is not asked": ({_SETTING: "true"}, "", _FOUND),
    "the workspace is not asked": ({_SETTING: "true", _PARAMETER: "true", "quote_literal(workspace)::tsquery &&": ""}, "", _FOUND),
    "the search path is the caller's": ({"SET search_path TO 'pg_catalog', 'pg_temp'": ""}, "", _FIXED),
    "it has the caller's rights": ({"SECURITY DEFINER": ""}, "", _GRANTED),
    "everybody may": ({}, "GRANT EXECUTE ON FUNCTION {f} TO PUBLIC", _GRANTED),
}


@pytest.mark.requirement("TN-012")
@pytest.mark.parametrize("kind", _FUNCTION)
def test_a_search_function_that_is_altered_is_caught(committed_db: Database, owner: Engine, kind: str) -> None:
    """Each thing that keeps it tight, by the test of the search that is about it."""
    changes, beside, check = _FUNCTION[kind]
    two = searching.two_on(committed_db)
    with owner.begin() as connection:
        definition = str(connection.scalar(text(f"SELECT pg_get_functiondef('{searching.FUNCTION}'::regprocedure)")))
        for old, new in changes.items():
            assert old in definition
            definition = definition.replace(old, new)
        connection.exec_driver_sql(f"DROP FUNCTION {searching.FUNCTION}")
        connection.exec_driver_sql(definition)
        connection.exec_driver_sql(f"REVOKE EXECUTE ON FUNCTION {searching.FUNCTION} FROM PUBLIC")
        if beside:
            connection.exec_driver_sql(beside.format(f=searching.FUNCTION))
        migrations.renew_grants(connection)
    with pytest.raises((*FAILURES, DBAPIError)):
        check(*([two] if check is _FOUND else [two, owner]))
