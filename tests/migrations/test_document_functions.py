"""Functions of documents, shipped by revisions: made, found to be changed, and taken away."""

from __future__ import annotations

import json

import pytest
from tests.migrations.places import Place, Revisions

from stemmadb import migrations
from stemmadb.documents import Document
from stemmadb.documents.steps import Default, MapValues, Rename, Steps, upcast_function
from stemmadb.errors import MigrationError


class Parcel(Document, version=2):
    """Its steps have keys and values that a tool on the way could take for its own."""


Parcel.upcast(0)(Steps(Default("note", "a\tb: :c %s %% $$ \\: \x00 \ud800 é😀 '\""), Rename("%(x)s", ":y")))
Parcel.upcast(1)(Steps(MapValues("state", ((":a", {"b:c": "d: :e"}), (True, 10**20)))))

BEFORE = {"%(x)s": 1, "state": ":a"}
AFTER = (
    json.dumps({**Parcel._steps[1](Parcel._steps[0](BEFORE)), "schema_version": 2})
    .replace("\\u0000", "\\u001a0000")
    .replace("\\ud800", "\\u001ad800")
)
_MAKE = "from tests.migrations.test_document_functions import Parcel; op.{}_document_function(Parcel, {})"
_ASK = "SELECT stemma.parcel_v2(CAST(%s AS jsonb)) = CAST(%s AS jsonb)"
_GONE = "SELECT to_regprocedure('stemma.parcel_v2(jsonb)') IS NULL"


def _add(revisions: Revisions, version: int = 2) -> str:
    return revisions.add("evaluation", _MAKE.format("create", version), _MAKE.format("drop", version), depends_on=None)


def test_a_revision_makes_the_function(migrated: Place, revisions: Revisions) -> None:
    """Every character of the steps gets through, everybody may call it, and going back drops it."""
    _add(revisions)
    migrations.upgrade(migrated)
    for user in ("stemma_owner", "stemma_app"):
        assert migrated.ask(_ASK, json.dumps(BEFORE), AFTER, user=user) == [True]
    assert [finding for finding in migrations.check(migrated).findings if "parcel" in finding.object] == []
    migrations.downgrade(migrated, "evaluation_0001")
    assert migrated.ask(_GONE) == [True]


def test_a_function_can_be_written_down(migrated: Place, revisions: Revisions) -> None:
    """The offline SQL makes the same one."""
    id = _add(revisions)
    with migrated.connect() as owner:
        owner.execute(migrations.sql(f"evaluation_0001:{id}").encode())
    assert migrated.ask(_ASK, json.dumps(BEFORE), AFTER) == [True]
    assert migrated.ask("SELECT prosrc FROM pg_proc WHERE proname = 'parcel_v2'") == [upcast_function(Parcel).split("$$")[1]]
    assert [finding for finding in migrations.check(migrated).findings if "parcel" in finding.object] == []


def test_an_older_version_stays_what_it_was(migrated: Place, revisions: Revisions) -> None:
    """The revision says which version it makes, and both can be there."""
    _add(revisions, 1)
    _add(revisions, 2)
    migrations.upgrade(migrated)
    assert migrated.ask("""SELECT stemma.parcel_v1('{"schema_version": 1, "state": ":a"}') ->> 'state'""") == [":a"]
    assert migrated.ask("""SELECT (stemma.parcel_v1('{}') ->> 'schema_version')::integer""") == [1]


@pytest.mark.fault
@pytest.mark.parametrize("code", ["changed_function", "missing_function"])
def test_a_function_that_is_another_one_is_found(migrated: Place, revisions: Revisions, code: str) -> None:
    """One whose body was changed by hand, and one that is gone."""
    _add(revisions)
    migrations.upgrade(migrated)
    edited = upcast_function(Parcel).replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION").replace("<= 0", "<= 1")
    migrated.do(edited if code == "changed_function" else "DROP FUNCTION stemma.parcel_v2(jsonb)", user="stemma_owner")
    assert (code, "parcel_v2") in [(finding.code, finding.object) for finding in migrations.check(migrated).findings]


@pytest.mark.fault
def test_a_released_step_that_was_changed_is_found(migrated: Place, revisions: Revisions, monkeypatch: pytest.MonkeyPatch) -> None:
    """The function in the database is then not the one that this release compiles."""
    _add(revisions)
    migrations.upgrade(migrated)
    monkeypatch.setitem(Parcel._steps, 1, Steps())
    from stemmadb.migrations import _alembic

    _alembic._statements.cache_clear()
    try:
        findings = [(finding.code, finding.object) for finding in migrations.check(migrated).findings]
    finally:
        _alembic._statements.cache_clear()
    assert ("changed_function", "parcel_v2") in findings


def test_an_index_holds_its_function(migrated: Place, revisions: Revisions) -> None:
    """A function cannot be dropped from under an index."""
    _add(revisions)
    migrations.upgrade(migrated)
    migrated.do(
        "CREATE TABLE public.parcels (content jsonb)",
        "CREATE INDEX ON public.parcels ((stemma.parcel_v2(content) ->> 'note'))",
        user="postgres",
    )
    with pytest.raises(MigrationError, match="depend"):
        migrations.downgrade(migrated, "evaluation_0001")
    assert migrated.ask(_GONE) == [False]
