"""Full-text search: the words of a workspace's definitions, by an index, and never those of another workspace."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, NullPool, create_engine, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from tests.evaluation.run_setups import make_definition

from stemmadb._test_server import DatabaseServer
from stemmadb.aio.evaluation import definitions as adefinitions
from stemmadb.database import Database
from stemmadb.errors import InvalidCursorError, ValidationError, WorkspaceNotSetError
from stemmadb.evaluation import definitions
from stemmadb.evaluation.data import DefinitionCreate, DefinitionUpdate
from stemmadb.evaluation.documents import DefinitionContent
from stemmadb.testing import assert_max_queries, count_queries, make_workspace

FUNCTION = "stemma.stemma_search_definitions(uuid, text)"
RAW = text("SELECT id FROM stemma.stemma_search_definitions(CAST(:workspace AS uuid), :query)")


def add(session: Session, name: str = "Plain", **texts: str) -> UUID:
    """A new definition; its message is one of the texts."""
    message = texts.pop("message", None)
    content = DefinitionContent(**{"preamble": "", "template": "", **texts})
    return definitions.create(session, DefinitionCreate(name=name, content=content, message=message)).id


def found(session: Session, query: str) -> list[UUID]:
    return [definition.id for definition in definitions.search(session, query)]


# ------------------------------------------------------------------------------------------------------------- what is found


@pytest.mark.requirement("TN-012")
def test_words_are_found_where_they_stand(session: Session) -> None:
    """In names, messages, preambles and templates, in any case and order, newest first, in one statement."""
    by_name = add(session, "Trolley on a Bridge")
    by_message = add(session, message="about a trolley")
    by_preamble = add(session, preamble="The TROLLEY is loose.")
    by_template = add(session, template="A trolley passes a bridge at {speed}.")
    add(session, "Something else")
    with assert_max_queries(1):
        page = definitions.search(session, "trolley")
    assert [definition.id for definition in page] == [by_template, by_preamble, by_message, by_name]
    assert found(session, "bridge trolley") == [by_template, by_name]
    assert found(session, "trolleys") == []


@pytest.mark.requirement("TN-012")
def test_phrases_alternatives_and_exclusions(session: Session) -> None:
    """As in web searches; no input is an error, and a text without a word finds nothing."""
    red, blue = add(session, "red fast car"), add(session, "fast blue car")
    assert found(session, '"red fast"') == [red]
    assert found(session, "red or blue") == [blue, red]
    assert found(session, "car -red") == [blue]
    assert found(session, "-red") == [blue]
    for nothing in ("", " ", "&|!()", "'", '"', ":*", "\\", "!!", "<->"):
        assert found(session, nothing) == []


def test_a_change_is_found_at_once(session: Session) -> None:
    """Words come and go with the row, before anything is committed."""
    row = definitions.create(session, DefinitionCreate(name="early", content=DefinitionContent(preamble="", template="x")))
    assert found(session, "early") == [row.id]
    definitions.update(session, row.id, DefinitionUpdate(name="late"), expected_version=row.version)
    assert found(session, "early") == []
    assert found(session, "late") == [row.id]
    definitions.delete(session, row.id)
    assert found(session, "late") == []


def test_long_texts_are_stored_and_found_by_their_beginning(session: Session) -> None:
    """No text is too long to be stored: of more than 50,000 characters the first count, and a word of two thousand is none."""
    words = " ".join(f"{number:05x}" for number in range(60_000))
    row = add(session, template=words, preamble="y" * 3000 + " after")
    assert found(session, f"{8000:05x}") == [row]
    assert found(session, f"{59_000:05x}") == []
    assert found(session, "after") == [row]


def test_pages_join_to_the_whole(session: Session) -> None:
    """Newest first in pages, each row once; a cursor is good for its own query."""
    rows = [add(session, f"tram {number}") for number in range(7)][::-1]
    first = definitions.search(session, "tram", limit=3)
    second = definitions.search(session, "tram", limit=3, cursor=first.next_cursor)
    third = definitions.search(session, "tram", limit=3, cursor=second.next_cursor)
    assert [definition.id for page in (first, second, third) for definition in page] == rows
    assert third.next_cursor is None
    with pytest.raises(InvalidCursorError):
        definitions.search(session, "other", limit=3, cursor=first.next_cursor)


@pytest.mark.parametrize("query", [None, 5, "a\0b", "\ud800", "x" * 1001])
def test_what_is_no_query_is_refused(session: Session, query: object) -> None:
    """Nothing is sent for it."""
    with count_queries() as sent, pytest.raises(ValidationError) as caught:
        definitions.search(session, query)  # type: ignore[arg-type]
    assert (caught.value.field, sent.count) == ("query", 0)


async def test_the_twin_finds_the_same(async_session: AsyncSession) -> None:
    """Through asyncio as well."""
    row = await async_session.run_sync(lambda session: add(session, "tram"))
    assert [definition.id for definition in await adefinitions.search(async_session, "tram")] == [row]


# ------------------------------------------------------------------------------------------------------- other workspaces


@dataclass(frozen=True)
class Two:
    """Two workspaces whose definitions say the same word."""

    db: Database
    ours: UUID
    theirs: UUID
    row: UUID
    """Of ours."""


def two_on(db: Database) -> Two:
    """Make them."""
    ours, theirs = make_workspace(db, "ours"), make_workspace(db, "theirs")
    with db.session(workspace=ours) as session:
        row = add(session, "tram of ours")
    with db.session(workspace=theirs) as session:
        add(session, "tram of theirs")
    return Two(db, ours, theirs, row)


@pytest.fixture
def two(committed_db: Database) -> Two:
    return two_on(committed_db)


@pytest.mark.requirement("TN-012", "TN-032", "TN-042")
def test_words_of_another_workspace_are_never_found(two: Two) -> None:
    """Not by the function of the library, not by the one of the database, whichever workspace it is given, and by none without one."""
    with two.db.session(workspace=two.ours) as session:
        assert found(session, "tram") == [two.row]
        assert found(session, "theirs") == []
        assert found(session, "tram -ours") == []
        assert found(session, f"tram or {two.theirs}") == [two.row]
        assert session.scalars(RAW, {"workspace": two.ours, "query": "tram"}).all() == [two.row]
        for workspace in (two.theirs, uuid4(), None):
            for query in ("tram", "theirs", "-ours", str(two.theirs)):
                assert session.scalars(RAW, {"workspace": workspace, "query": query}).all() == []
    with two.db.session() as session:
        for workspace in (two.ours, two.theirs, uuid4(), None):
            assert session.scalars(RAW, {"workspace": workspace, "query": "tram"}).all() == []
        with pytest.raises(WorkspaceNotSetError), count_queries() as sent:
            definitions.search(session, "tram")
        assert sent.count == 0


@pytest.mark.requirement("TN-012", "AD-030")
def test_a_schema_in_front_changes_nothing(two: Two, owner: Engine) -> None:
    """The function fixes its search path: what a caller puts into a schema of its own, or into pg_temp, is not run as somebody else."""
    with owner.begin() as connection:
        connection.exec_driver_sql("CREATE SCHEMA planted; GRANT USAGE ON SCHEMA planted TO PUBLIC")
        connection.exec_driver_sql(
            "CREATE FUNCTION planted.numnode(tsquery) RETURNS integer LANGUAGE plpgsql AS $$ BEGIN RAISE 'planted'; END $$"
        )
    with two.db.session(workspace=two.ours) as session:
        session.execute(text("SET LOCAL search_path = planted, pg_catalog, stemma"))
        assert session.scalars(RAW, {"workspace": two.ours, "query": "tram"}).all() == [two.row]


@pytest.mark.requirement("TN-012", "AD-029")
def test_only_the_application_may_search(two: Two, owner: Engine) -> None:
    """EXECUTE is granted to stemma_app; the function belongs to stemma_maintenance, which cannot log in; everybody else is refused."""
    with owner.connect() as connection:
        facts = connection.execute(
            text(
                "SELECT pg_get_userbyid(proowner)::text, prosecdef, proconfig, "
                "ARRAY(SELECT CASE grantee WHEN 0 THEN 'public' ELSE pg_get_userbyid(grantee)::text END "
                "FROM aclexplode(proacl) WHERE privilege_type = 'EXECUTE' ORDER BY 1) "
                f"FROM pg_proc WHERE oid = '{FUNCTION}'::regprocedure"
            )
        ).one()
        assert tuple(facts) == (
            "stemma_maintenance",
            True,
            ["search_path=pg_catalog, pg_temp"],
            ["stemma_app", "stemma_maintenance"],
        )
        assert connection.scalar(text("SELECT has_schema_privilege('stemma_maintenance', 'stemma', 'CREATE')")) is False
        with pytest.raises(ProgrammingError, match="permission denied for function stemma_search_definitions"):
            connection.execute(RAW, {"workspace": two.ours, "query": "tram"})


@pytest.mark.requirement("TN-012")
def test_without_the_maintenance_role_the_policy_holds_the_search(two: Two, owner: Engine) -> None:
    """Where the roles could not be made it is the owner's: slower, since the index is behind the policy then, and as tight."""
    with owner.begin() as connection:
        definition = connection.scalar(text(f"SELECT pg_get_functiondef('{FUNCTION}'::regprocedure)"))
        connection.exec_driver_sql(f"DROP FUNCTION {FUNCTION}")
        connection.exec_driver_sql(definition)
        connection.exec_driver_sql(f"GRANT EXECUTE ON FUNCTION {FUNCTION} TO stemma_app")
    with two.db.session(workspace=two.ours) as session:
        assert found(session, "tram") == [two.row]
        assert session.scalars(RAW, {"workspace": two.theirs, "query": "tram"}).all() == []
    with two.db.session() as session:
        assert session.scalars(RAW, {"workspace": two.ours, "query": "tram"}).all() == []


# ----------------------------------------------------------------------------------------------------------------- the index


@pytest.fixture(scope="module")
def crowded(stemmadb_server: DatabaseServer) -> Iterator[Two]:
    """Two workspaces with 50,000 definitions each, in which every word of a number stands once, and ``tram`` in all."""
    name = stemmadb_server.create()
    db = stemmadb_server.connect(name)
    try:
        workspaces = [make_workspace(db, slug) for slug in ("ours", "theirs")]
        for workspace_id in workspaces:
            with db.session(workspace=workspace_id) as session:
                session.execute(text(_CROWD))
        engine = create_engine(db.direct_url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
        with engine.connect() as connection:
            connection.exec_driver_sql("VACUUM ANALYZE stemma.definitions")
        engine.dispose()
        with db.session(workspace=workspaces[0]) as session:
            row = session.scalar(text("SELECT id FROM stemma.definitions WHERE name = 'Number 4711'"))
        assert row is not None
        yield Two(db, *workspaces, row)
    finally:
        db.close()
        stemmadb_server.drop(name)


_CROWD = """
    INSERT INTO stemma.definitions (name, content)
    SELECT 'Number ' || n, jsonb_build_object('schema_version', 1, 'preamble', 'A tram.', 'template', 'w' || n, 'dimensions', '[]'::jsonb)
      FROM generate_series(1, 50000) AS n
"""
_SCANS = text("SELECT pg_stat_get_xact_numscans('stemma.definitions_words_idx'::regclass)")
_READ = text("SELECT pg_stat_get_xact_tuples_returned('stemma.definitions'::regclass)")


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.requirement("TN-012", "AD-020")
def test_the_index_answers_among_a_hundred_thousand(crowded: Two) -> None:
    """The plan is a scan of the index with the words and the workspace as its condition, and that is what a call does."""
    with crowded.db.session(workspace=crowded.ours) as session:
        body = str(session.scalar(text(f"SELECT prosrc FROM pg_proc WHERE oid = '{FUNCTION}'::regprocedure")))
        asked = re.sub(r"\bworkspace\b", f"'{crowded.ours}'", re.sub(r"\bquery\b", "'w4711'", body))
        session.execute(text("SET LOCAL ROLE stemma_maintenance"))
        plan = "\n".join(session.connection().exec_driver_sql(f"EXPLAIN (COSTS OFF) {asked}").scalars())
    assert "Bitmap Index Scan on definitions_words_idx" in plan
    assert "w4711" in plan.partition("Index Cond:")[2].partition("\n")[0]
    assert "Seq Scan" not in plan
    with crowded.db.session(workspace=crowded.ours) as session:
        before = session.scalar(_SCANS)
        assert found(session, "w4711") == [crowded.row]
        assert session.scalar(_SCANS) == before + 1
        assert session.scalar(_READ) < 100
        assert found(session, "tram w4711") == [crowded.row]
        assert session.scalar(_READ) < 100
        first = definitions.search(session, "tram", limit=10)
        assert first.items[0].name.startswith("Number ")


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.requirement("TN-012")
def test_without_the_function_every_row_is_looked_at(crowded: Two) -> None:
    """What the function is for: the same condition under the policy reads the whole workspace."""
    with crowded.db.session(workspace=crowded.ours) as session:
        rows = session.execute(
            text(
                "EXPLAIN (COSTS OFF) SELECT id FROM stemma.definitions WHERE stemma.stemma_definition_words_v1"
                "(workspace_id, name, message, content) @@ CAST('w4711' AS tsquery)"
            )
        ).scalars()
        assert "definitions_words_idx" not in "\n".join(rows)


def test_a_workspace_is_a_word_of_its_rows(session: Session, workspace: UUID) -> None:
    """The index is entered by workspace: the function of the words gives the id as one of them."""
    make_definition(session, "tram")
    words = session.scalar(
        text("SELECT tsvector_to_array(stemma.stemma_definition_words_v1(workspace_id, name, message, content)) FROM stemma.definitions")
    )
    assert {str(workspace), "tram"} <= set(words)
