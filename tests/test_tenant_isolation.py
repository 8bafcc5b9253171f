"""
Nothing of another workspace is read, changed or revealed, whatever is called.

Every function of a workspace is called, sync and async, with ids of another workspace and with ids that nobody has: both read the same, and
the other workspace stays as it was to the byte. The calls are made from the signatures.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from sqlalchemy import Engine, ForeignKeyConstraint, NullPool, Table, create_engine, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from tests.full_databases import fill, fill_accounts
from tests.generated_calls import Rows, TenantFunction, arguments_of, tenant_functions
from tests.neighbours import TENANTS, Neighbours, calls, refuse_to_depend, refuse_to_tell, rows_of, told, twin_of, two_workspaces

from stemmadb import tenancy, trees
from stemmadb._conformance._tables import is_tenant_table
from stemmadb._test_server import DatabaseServer
from stemmadb.database import Database
from stemmadb.errors import StemmaError, TenantViolationError, WorkspaceNotSetError
from stemmadb.evaluation import definitions
from stemmadb.evaluation.entities import Definition, Run, Scenario, Transcript
from stemmadb.paging import page
from stemmadb.query import read
from stemmadb.repository import Repository
from stemmadb.testing import count_queries

FUNCTIONS = list(tenant_functions())
REFERENCES = [
    key
    for table in TENANTS
    for key in sorted(table.foreign_key_constraints, key=lambda key: str(key.name))
    if is_tenant_table(key.referred_table)
]


@pytest.fixture(scope="module")
def neighbours(stemmadb_server: DatabaseServer) -> Iterator[Neighbours]:
    """Two full workspaces, which no test changes."""
    with two_workspaces(stemmadb_server) as found:
        yield found


@pytest.fixture(scope="module")
def unguarded(stemmadb_server: DatabaseServer) -> Iterator[Neighbours]:
    """The same in a database without row-level security: the predicates of the statements are all there is."""
    with two_workspaces(stemmadb_server) as found:
        owner = create_engine(found.db.direct_url, poolclass=NullPool)
        with owner.begin() as connection:
            for table in TENANTS:
                connection.exec_driver_sql(f"ALTER TABLE stemma.{table.name} DISABLE ROW LEVEL SECURITY")
        owner.dispose()
        yield found


def name_of(function: TenantFunction) -> str:
    return function.name


# ------------------------------------------------------------------------------------------------------ every function


@pytest.mark.requirement("TN-032", "TN-034", "TN-035", "TN-036")
@pytest.mark.parametrize("function", FUNCTIONS, ids=name_of)
def test_anothers_ids_read_like_nobodys(neighbours: Neighbours, function: TenantFunction) -> None:
    """Same answer, and nothing over there changed."""
    refuse_to_tell(neighbours, function)


@pytest.mark.requirement("TN-032", "TN-034", "TN-035")
@pytest.mark.parametrize("function", FUNCTIONS, ids=name_of)
def test_predicates_hold_where_policies_are_missing(unguarded: Neighbours, function: TenantFunction) -> None:
    """The first line of defence is enough by itself: without row-level security the answers are the same."""
    refuse_to_tell(unguarded, function)


@pytest.mark.requirement("TN-032", "TN-035")
@pytest.mark.parametrize("policies", [True, False], ids=["guarded", "unguarded"])
@pytest.mark.parametrize("function", FUNCTIONS, ids=name_of)
def test_no_answer_depends_on_a_neighbour(neighbours: Neighbours, unguarded: Neighbours, function: TenantFunction, policies: bool) -> None:
    """Lists, counts and whatever names no row are what they are where the other workspace was deleted; by the predicates alone as well."""
    refuse_to_depend(neighbours if policies else unguarded, function)


_ENTITIES: list[tuple[type[Any], str]] = [(Definition, "definition"), (Scenario, "scenario"), (Run, "run"), (Transcript, "transcript")]


@pytest.mark.requirement("TN-035", "TN-036")
@pytest.mark.parametrize(("entity", "kind"), _ENTITIES, ids=[kind for _, kind in _ENTITIES])
def test_a_session_takes_no_object_of_another_workspace(neighbours: Neighbours, entity: type[Any], kind: str) -> None:
    """An object that somebody kept between requests is refused, or the session would answer with it when its id is asked for."""
    theirs = neighbours.theirs
    with neighbours.db.session(workspace=theirs.workspace_id) as session:
        kept = session.get(entity, (theirs.workspace_id, theirs.ids[kind]))
    assert kept is not None
    with neighbours.db.session(workspace=neighbours.ours.workspace_id) as session:
        with pytest.raises(TenantViolationError):
            session.add(kept)
        assert session.get(entity, (theirs.workspace_id, theirs.ids[kind])) is None
        with pytest.raises(TenantViolationError):
            session.merge(kept)
            session.flush()
        session.rollback()


# Any worker may claim, any user may have to do with an approval (who may is the application's rule), a new row takes any label, and
# criteria may name what is not there.
_FREE = {
    "evaluation.cohorts.create(data.criteria.definition_ids)",
    "evaluation.cohorts.create(data.criteria.experiment_ids)",
    "evaluation.cohorts.update(data.criteria.definition_ids)",
    "evaluation.cohorts.update(data.criteria.experiment_ids)",
    "evaluation.runs.claim_slots(worker)",
    "evaluation.scores.record(data.label)",
    "workspaces.approvals.assign(user_id)",
    "workspaces.approvals.claim_next(user_id)",
    "workspaces.approvals.decide(decided_by_id)",
    "workspaces.providers.upsert(label)",
}


def test_the_calls_would_find_our_own(neighbours: Neighbours) -> None:
    """The same calls tell our own rows from nobody's: they are no calls that fail for another reason."""
    indifferent = []
    for function in FUNCTIONS:
        for call in calls(neighbours, function):
            answers = []
            for rows in (Rows(neighbours.ours), neighbours.nobodys):
                with neighbours.db.session(workspace=neighbours.ours.workspace_id) as session:
                    answers.append(call.answer(session, rows))
                    session.rollback()
            if answers[0] == answers[1]:
                indifferent.append(f"{function.name}({call.place or ''})")
    assert set(indifferent) == _FREE


@pytest.mark.requirement("TN-035", "AD-027")
async def test_anothers_ids_read_like_nobodys_to_twins(neighbours: Neighbours) -> None:
    """The async twins answer as the functions do, and leave the other workspace alone."""
    db, theirs = neighbours.db, neighbours.theirs.workspace_id
    with db.session() as session:
        before = rows_of(session, theirs)
    try:
        for function in FUNCTIONS:
            for call in calls(neighbours, function):
                with db.session(workspace=neighbours.ours.workspace_id) as session:
                    expected = call.answer(session, neighbours.nobodys)
                    session.rollback()
                async with db.async_session(workspace=neighbours.ours.workspace_id) as asession:
                    assert await call.async_answer(asession, Rows(neighbours.theirs)) == expected, function.name
                    assert await asession.run_sync(rows_of, theirs) in (before, None)
                    await asession.rollback()
    finally:
        await db.async_engine.dispose()


# What works on any entity, by an id.
_ANY: dict[str, Callable[[Session, type[Any], UUID], Any]] = {
    "repository.get": lambda session, entity, key: Repository(entity).get(session, key),
    "repository.find": lambda session, entity, key: Repository(entity).find(session, key),
    "repository.get_many": lambda session, entity, key: Repository(entity).get_many(session, [key]),
    "repository.exists": lambda session, entity, key: Repository(entity).exists(session, key),
    "repository.update": lambda session, entity, key: Repository(entity).update(session, key, {}),
    "repository.delete": lambda session, entity, key: Repository(entity).delete(session, key),
    "repository.count": lambda session, entity, key: Repository(entity).count(session, filters={"id": key}),
    "repository.list_all": lambda session, entity, key: Repository(entity).list_all(session, filters={"id": key}, with_total=True),
    "repository.iter_all": lambda session, entity, key: list(Repository(entity).iter_all(session, filters={"id": key})),
    "query.read": lambda session, entity, key: read(session, entity, key),
    "paging.page": lambda session, entity, key: page(
        session, select(entity).where(entity.id == key), order_by=[entity.id], with_total=True
    ),
}
_TREES: dict[str, Callable[[Session, type[Any], UUID], Any]] = {
    "trees.ancestors": lambda session, entity, key: trees.ancestors(session, entity, key),
    "trees.descendants": lambda session, entity, key: trees.descendants(session, entity, key),
    "trees.tree": lambda session, entity, key: trees.tree(session, entity, key),
    "trees.path": lambda session, entity, key: trees.path(session, entity, key, key),
    "trees.merge_base": lambda session, entity, key: trees.merge_base(session, entity, key, key),
}


@pytest.mark.requirement("TN-032", "TN-034", "TN-035")
@pytest.mark.parametrize(("entity", "kind"), _ENTITIES, ids=[kind for _, kind in _ENTITIES])
def test_the_kernels_functions_tell_nothing_either(neighbours: Neighbours, entity: type[Any], kind: str) -> None:
    """Repositories, pages and trees of any tenant entity answer for another's id as for nobody's, and find our own."""
    theirs = neighbours.theirs.workspace_id
    with neighbours.db.session() as session:
        before = rows_of(session, theirs)
    for name, call in {**_ANY, **(_TREES if kind == "definition" else {})}.items():
        answers = []
        for id in (neighbours.theirs.ids[kind], neighbours.nobodys[kind], neighbours.ours.ids[kind]):
            with neighbours.db.session(workspace=neighbours.ours.workspace_id) as session:
                try:
                    answer = told(call(session, entity, id), {"id": id})
                except StemmaError as error:
                    answer = told(error, {"id": id})
                answers.append(answer)
                assert rows_of(session, theirs) in (before, None)
                session.rollback()
        assert answers[0] == answers[1] != answers[2], name


# ------------------------------------------------------------------------------------------------------ without a workspace


@pytest.mark.requirement("TN-038")
@pytest.mark.parametrize("function", FUNCTIONS, ids=name_of)
def test_without_a_workspace_nothing_is_sent(neighbours: Neighbours, function: TenantFunction) -> None:
    """WorkspaceNotSetError, which names the function as callers import it, at the call; and no statement."""
    arguments = arguments_of(function.function, lambda _place, kind: Rows(neighbours.ours)[kind])
    with neighbours.db.session() as session, count_queries() as sent:
        with pytest.raises(WorkspaceNotSetError, match=f"^{re.escape(function.name)} needs a workspace"):
            function.function(session, *arguments.positional, **arguments.keywords)
        assert session.info["stemma"] == tenancy.NoWorkspace()
    assert sent.count == 0


@pytest.mark.requirement("TN-038", "AD-027")
async def test_without_a_workspace_no_twin_sends_anything(neighbours: Neighbours) -> None:
    """The twins raise the same; those that stream, with the first row that is asked for."""
    try:
        async with neighbours.db.async_session() as session:
            with count_queries() as sent:
                for function in FUNCTIONS:
                    arguments = arguments_of(function.function, lambda _place, kind: Rows(neighbours.ours)[kind])
                    with pytest.raises(WorkspaceNotSetError, match=f"^{re.escape(function.name)} needs a workspace"):
                        found = twin_of(function)(session, *arguments.positional, **arguments.keywords)
                        await (anext(found) if isinstance(found, AsyncIterator) else found)
            assert sent.count == 0
    finally:
        await neighbours.db.async_engine.dispose()


@pytest.mark.requirement("TN-048")
def test_across_workspaces_every_function_refuses(neighbours: Neighbours) -> None:
    """A session of all workspaces is none of one workspace."""
    with neighbours.db.all_workspaces(reason="a test") as session, count_queries() as sent:
        for function in FUNCTIONS:
            arguments = arguments_of(function.function, lambda _place, kind: Rows(neighbours.ours)[kind])
            with pytest.raises(WorkspaceNotSetError):
                function.function(session, *arguments.positional, **arguments.keywords)
        assert sent.count == 0


# ------------------------------------------------------------------------------------------------------------- every table


@pytest.mark.requirement("TN-042", "TN-045")
@pytest.mark.parametrize("table", TENANTS, ids=lambda table: table.name)
def test_policies_hold_where_predicates_are_forgotten(neighbours: Neighbours, table: Table) -> None:
    """Raw SQL without a predicate sees one's own rows only, none without a workspace, and changes nothing over there."""
    ours, theirs = neighbours.ours.workspace_id, neighbours.theirs.workspace_id
    with neighbours.db.session(workspace=ours) as session:
        found = session.execute(text(f"SELECT DISTINCT workspace_id FROM stemma.{table.name}")).scalars().all()
        assert found == [ours]
        for statement in (
            f"UPDATE stemma.{table.name} SET updated_at = now() WHERE workspace_id = :theirs",
            f"DELETE FROM stemma.{table.name} WHERE workspace_id = :theirs",
        ):
            assert session.execute(text(statement), {"theirs": theirs}).rowcount == 0
        session.rollback()
    with neighbours.db.session() as session:
        assert session.scalar(text(f"SELECT count(*) FROM stemma.{table.name}")) == 0


@pytest.mark.requirement("TN-042", "TN-045")
@pytest.mark.parametrize("table", TENANTS, ids=lambda table: table.name)
def test_policies_hold_the_owner_too(neighbours: Neighbours, table: Table) -> None:
    """FORCE: a login that owns the tables sees the rows of the workspace that is set, and none without one."""
    owner = create_engine(neighbours.db.direct_url, poolclass=NullPool)
    with owner.connect() as connection:
        assert connection.scalar(text(f"SELECT count(*) FROM stemma.{table.name}")) == 0
        connection.exec_driver_sql(f"SET LOCAL stemma.workspace_id = '{neighbours.ours.workspace_id}'")
        found = connection.scalars(text(f"SELECT DISTINCT workspace_id FROM stemma.{table.name}")).all()
    owner.dispose()
    assert found == [neighbours.ours.workspace_id]


@pytest.mark.requirement("TN-033", "TN-036", "TN-042")
@pytest.mark.parametrize("table", TENANTS, ids=lambda table: table.name)
def test_no_row_is_put_into_another_workspace(neighbours: Neighbours, table: Table) -> None:
    """Raw SQL that names the other workspace, or moves a row there, is refused by the policy, before any constraint is looked at."""
    columns = ", ".join(column.name for column in table.columns if column.computed is None and column.name != "workspace_id")
    for statement in (
        f"INSERT INTO stemma.{table.name} (workspace_id, {columns}) SELECT :theirs, {columns} FROM stemma.{table.name} LIMIT 1",
        f"UPDATE stemma.{table.name} SET workspace_id = :theirs",
    ):
        with neighbours.db.session(workspace=neighbours.ours.workspace_id) as session:
            with pytest.raises(Exception, match="row-level security policy") as caught:
                session.execute(text(statement), {"theirs": neighbours.theirs.workspace_id})
            assert caught.value.orig.sqlstate == "42501"
            session.rollback()


@pytest.mark.requirement("AD-019", "TN-036", "VR-042")
@pytest.mark.parametrize("key", REFERENCES, ids=lambda key: key.name)
def test_no_row_hangs_on_another_workspaces_row(neighbours: Neighbours, key: ForeignKeyConstraint) -> None:
    """A child under a row of another workspace is refused by the foreign key itself, even for the owner without guards."""
    table, parent = key.table, key.referred_table
    # What beside the workspace says which row is meant, and what it is called over there.
    pairs = {element.parent.name: element.column.name for element in key.elements if element.column.name != "workspace_id"}
    child_column, parent_column = next((ours, theirs) for ours, theirs in pairs.items() if theirs == "id")
    owner = create_engine(neighbours.db.direct_url, poolclass=NullPool)
    with owner.connect() as connection:
        connection.exec_driver_sql(f"SET LOCAL stemma.workspace_id = '{neighbours.theirs.workspace_id}'")
        foreign = connection.scalar(text(f"SELECT {parent_column} FROM stemma.{parent.name} ORDER BY created_at LIMIT 1"))
        connection.exec_driver_sql(f"SET LOCAL stemma.workspace_id = '{neighbours.ours.workspace_id}'")
        connection.exec_driver_sql(f"ALTER TABLE stemma.{table.name} DISABLE TRIGGER USER")
        one = f"SELECT ctid FROM stemma.{table.name} WHERE {child_column} IS NOT NULL LIMIT 1"
        statement = text(f"UPDATE stemma.{table.name} SET {child_column} = :foreign WHERE ctid = ({one})")
        with pytest.raises(IntegrityError) as caught:
            connection.execute(statement, {"foreign": foreign})
            connection.exec_driver_sql("SET CONSTRAINTS ALL IMMEDIATE")
        connection.rollback()
    owner.dispose()
    assert isinstance(caught.value.orig, psycopg.errors.ForeignKeyViolation)
    assert caught.value.orig.diag.constraint_name == key.name


# ------------------------------------------------------------------------------------------------------- the end of a workspace


@pytest.mark.requirement("TN-028", "VR-105")
def test_one_delete_removes_a_workspace(committed_db: Database, owner: Engine) -> None:
    """One DELETE takes a full workspace along, every table of it, and leaves the neighbour as it was."""
    ours, theirs = fill(committed_db, "ours"), fill(committed_db, "theirs")
    with committed_db.session(workspace=theirs.workspace_id) as session:
        fill_accounts(session, theirs.ids["user"], theirs.workspace_id)
    with committed_db.session() as session:
        before = rows_of(session, ours.workspace_id)
    with committed_db.session() as session:
        deleted = session.execute(text("DELETE FROM stemma.workspaces WHERE id = :id"), {"id": theirs.workspace_id})
        assert deleted.rowcount == 1
    with committed_db.session() as session:
        assert {count for _, count, _ in rows_of(session, theirs.workspace_id)} == {0}
        assert rows_of(session, ours.workspace_id) == before
        left = session.execute(text("SELECT count(*) FROM stemma.api_keys WHERE workspace_id IS NOT NULL")).scalar_one()
        logs = session.execute(text("SELECT workspace_id FROM stemma.audit_logs WHERE action = 'TEST'")).scalars().all()
    assert left == 0
    assert logs == [None]


@pytest.mark.requirement("VR-108")
def test_one_delete_removes_a_tree(session: Session) -> None:
    """DELETE FROM definitions takes three levels at once, because a reference to the row's own table is checked at the end."""
    from tests.evaluation.run_setups import make_definition

    root = make_definition(session)
    child = definitions.fork(session, root.id)
    definitions.fork(session, child.id)
    definitions.set_label(session, "a-label", child.id)
    session.execute(text("DELETE FROM stemma.definition_labels"))
    assert session.execute(text("DELETE FROM stemma.definitions")).rowcount == 3
    assert definitions.find(session, uuid4()) is None
