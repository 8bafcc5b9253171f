"""stemmadb.packs: found through entry points, in the order of what they require."""

import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import EntryPoint

import pytest

from stemmadb import packs
from stemmadb.entity import metadata
from stemmadb.errors import ConfigurationError
from stemmadb.packs import Pack

pytestmark = pytest.mark.offline


def found(monkeypatch: pytest.MonkeyPatch, installed: Iterable[Pack]) -> tuple[Pack, ...]:
    """What packs() returns when these are installed."""
    by_value = {f"x:{number}": pack for number, pack in enumerate(installed)}
    points = [EntryPoint(name=value, value=value, group=packs.GROUP) for value in by_value]
    monkeypatch.setattr(packs, "entry_points", lambda group: points)
    monkeypatch.setattr(packs, "_load", lambda point: by_value[point.value])
    return packs.packs.__wrapped__()


def test_the_packs_of_this_release() -> None:
    """accounts, workspaces, evaluation, reviews, in this order; the first two share the migration branch base."""
    assert [(pack.name, pack.branch) for pack in packs.packs()] == [
        ("accounts", "base"),
        ("workspaces", "base"),
        ("evaluation", "evaluation"),
        ("reviews", "reviews"),
    ]


def test_every_table_belongs_to_one_pack_or_to_the_kernel() -> None:
    """No table is claimed twice, and what no pack claims are the kernel's two."""
    claimed = [entity.__tablename__ for pack in packs.packs() for entity in pack.entities]
    assert len(claimed) == len(set(claimed))
    kernel = {"stemma_seed_history", "stemma_idempotency_keys"}
    assert {table.name for table in metadata.tables.values()} == {*claimed, *kernel}


@pytest.mark.requirement("VR-008")
def test_every_jsonb_column_has_a_document() -> None:
    """A JSONB column without a document type would hold anything."""
    documents = {place for pack in packs.packs() for place in pack.documents} | {("stemma_seed_history", "row_counts")}
    columns = {
        (table.name, column.name)
        for table in metadata.tables.values()
        for column in table.columns
        if "JSON" in type(column.type).__name__.upper() or column.info["document"] is not None
    }
    assert columns == documents
    assert len(documents) == 21


def test_what_is_required_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order is that of the requirements, whatever the names are."""
    installed = [Pack("a", "a", requires=("c",)), Pack("b", "b"), Pack("c", "c", requires=("b",))]
    assert [pack.name for pack in found(monkeypatch, installed)] == ["b", "c", "a"]


@pytest.mark.parametrize(
    ("installed", "message"),
    [
        ([Pack("a", "a", requires=("z",))], "'a' requires 'z', which is not installed"),
        ([Pack("a", "a", requires=("b",)), Pack("b", "b", requires=("a",))], "require each other: a -> b -> a"),
        ([Pack("a", "a"), Pack("a", "other")], "two installed packs are called 'a'"),
    ],
)
def test_a_wrong_installation_is_told(monkeypatch: pytest.MonkeyPatch, installed: list[Pack], message: str) -> None:
    """A missing requirement, a circle and a name taken twice are configuration errors that name the packs."""
    with pytest.raises(ConfigurationError, match=message):
        found(monkeypatch, installed)


def test_an_entry_point_that_is_no_pack_is_told() -> None:
    """The error names the entry point and what it points at."""
    with pytest.raises(ConfigurationError, match=r"stemmadb\.packs:odd names json:dumps, which is not a Pack"):
        packs._load(EntryPoint(name="odd", value="json:dumps", group=packs.GROUP))


def test_seeds_and_commands_are_imported_when_they_are_used() -> None:
    """A pack names them as text, so that it stays cheap to import."""
    pack = Pack("a", "a", seeds=("json:dumps", "json"), commands="json:loads")
    import json

    assert pack.load_seeds() == (json.dumps, json)
    assert pack.load_commands() is json.loads
    assert Pack("b", "b").load_commands() is None


def test_the_first_use_of_an_entity_loads_the_tables_it_refers_to() -> None:
    """Who imports one pack only can use it: tables of other packs, at which its foreign keys point, are there in time."""
    program = (
        "from stemmadb.accounts.entities import User\n"
        "from stemmadb.entity import metadata\n"
        "assert 'stemma.workspaces' not in metadata.tables\n"
        "User(email='a@b.c')\n"
        "print([table.name for table in metadata.sorted_tables].index('workspaces') > 0)\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("True\n", "")
