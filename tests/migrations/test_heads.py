"""The revisions as files: names, one line in each branch, and whether a release and a database fit."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.migrations.places import Revisions

from stemmadb import _heads, migrations
from stemmadb.errors import MigrationError

pytestmark = pytest.mark.offline
REPOSITORY = Path(__file__).parents[2]


@pytest.mark.requirement("EC-120")
def test_files_are_named_by_number_phase_and_purpose() -> None:
    """Every revision is ``NNNN_{expand|contract}_<what>.py`` in the folder of its branch, its id made of branch and number."""
    folder = _heads.location() / "versions"
    files = [path for path in folder.rglob("*.py") if "__pycache__" not in path.parts]
    assert files
    for path in files:
        assert re.fullmatch(r"\d{4}_(expand|contract)_[a-z0-9_]+\.py", path.name), path
        assert f"{path.parent.name}_{path.name[:4]}" in _heads.revisions()


def test_the_folder_of_the_migrations_is_no_package() -> None:
    """With an ``__init__.py``, ``import alembic`` in the repository would find our folder instead of Alembic."""
    assert not list(_heads.location().rglob("__init__.py"))


def test_heads_are_read_without_alembic() -> None:
    """The first connection of an engine asks for them, and must not wait for an import."""
    program = "import sys; from stemmadb import _heads; _heads.compare({'base_0001'}); assert 'alembic' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.requirement("EC-123")
def test_alembic_sees_the_same_heads() -> None:
    """What the files' names say is what Alembic reads in them."""
    from alembic.script import ScriptDirectory

    from stemmadb.migrations import _alembic

    script = ScriptDirectory.from_config(_alembic.config())
    assert {revision.revision for revision in script.walk_revisions()} == set(_heads.revisions())
    assert set(script.get_heads()) <= set(_heads.heads().values())


@pytest.mark.requirement("EC-123", "EC-131")
def test_the_shipped_revisions_have_no_finding() -> None:
    """Names, descriptions, offline SQL, downgrades and statements that hold up traffic."""
    from stemmadb.migrations._lint import lint

    assert lint() == []


@pytest.mark.requirement("TN-063")
def test_two_revisions_of_one_number_get_advice(revisions: Revisions) -> None:
    """Two people added the next revision: the message names both files and says which to renumber."""
    facts = {"revision": "base_0002", "down_revision": "base_0001", "branch_labels": None, "depends_on": None}
    for name in ("0002_expand_mine.py", "0002_expand_yours.py"):
        revisions.write("base", name, "op.execute('SELECT 1')", "op.execute('SELECT 1')", "expand", facts)
    _heads.forget()
    with pytest.raises(MigrationError, match=r"0002_expand_mine.py and 0002_expand_yours.py.*next free number.*down_revision"):
        migrations.history()


@pytest.mark.requirement("TN-063")
def test_two_heads_of_one_branch_get_advice(revisions: Revisions) -> None:
    """A revision that was renumbered without its ``down_revision``."""
    revisions.add("base", "op.execute('SELECT 1')")
    facts = {"revision": "base_0003", "down_revision": "base_0001", "branch_labels": None, "depends_on": None}
    revisions.write("base", "0003_expand_yours.py", "op.execute('SELECT 1')", "op.execute('SELECT 1')", "expand", facts)
    _heads.forget()
    with pytest.raises(MigrationError, match=r"branch base is not one line: see 0002_expand_added.py and 0003_expand_yours.py"):
        migrations.sql()


@pytest.mark.parametrize(("name", "facts"), [("0002_add.py", {}), ("0002_expand_x.py", {"revision": "x"}), ("2_expand_x.py", {})])
def test_a_file_that_breaks_the_rule_is_named(revisions: Revisions, name: str, facts: dict[str, object]) -> None:
    """Wrong name, or an id that is not that of the name."""
    revisions.write("base", name, "pass", "pass", "expand", facts)
    _heads.forget()
    with pytest.raises(MigrationError, match=name):
        _heads.revisions()


@pytest.mark.parametrize(
    ("found", "fits"),
    [
        ({"evaluation_0001"}, True),
        ({"base_0001"}, True),
        (set(), False),
        ({"base_0001", "evaluation_0001"}, True),
        # One ahead, while the next release is being deployed; two are another release.
        ({"evaluation_0002"}, True),
        ({"base_0002", "evaluation_0001"}, True),
        ({"evaluation_0003"}, False),
        ({"base_0003", "evaluation_0001"}, False),
        # A branch of a newer release is none of our business.
        ({"evaluation_0001", "portfolio_0001"}, True),
    ],
)
def test_a_database_fits_when_it_is_at_most_one_revision_ahead(found: set[str], fits: bool) -> None:
    """Not behind, at most one ahead; a pack that is not installed is no mismatch, the base is."""
    assert (_heads.compare(found) is None) is fits


def test_a_mismatch_says_what_is_needed_and_what_was_found() -> None:
    """Both go into SchemaOutOfDateError."""
    assert _heads.compare(set()) == ("base_0001", "nothing")
    assert _heads.compare({"evaluation_0003"}) == ("evaluation_0001", "evaluation_0003")


def test_a_release_works_before_its_contract_revisions(revisions: Revisions) -> None:
    """Behind an expand revision is too old; behind a trailing contract revision is the time of deployment."""
    revisions.add("base", "op.execute('SELECT 1')")
    revisions.add("base", "op.execute('SELECT 1')", phase="contract")
    assert _heads.needed_heads() == {"base": "base_0002", "evaluation": "evaluation_0001", "reviews": "reviews_0001"}
    assert _heads.compare({"base_0001", "evaluation_0001"}) == ("base_0002", "base_0001, evaluation_0001")
    assert _heads.compare({"base_0002", "evaluation_0001"}) is None
    assert _heads.compare({"base_0003", "evaluation_0001"}) is None
    assert _heads.pending({"base_0002", "evaluation_0001", "reviews_0001"}) == ["base_0003"]


def test_what_a_row_implies_is_counted(revisions: Revisions) -> None:
    """The version table leaves out what another row depends on, over more than one step."""
    revisions.add("base", "op.execute('SELECT 1')")
    revisions.add("evaluation", "op.execute('SELECT 1')", depends_on=("base_0002",))
    assert _heads.covered({"evaluation_0002"}) == {"evaluation": 2, "base": 2}
    assert _heads.compare({"evaluation_0002"}) is None
    assert _heads.pending(set(), ["base", "evaluation"]) == ["base_0001", "base_0002", "evaluation_0001", "evaluation_0002"]
    assert _heads.pending(set(), ["evaluation"]) == ["base_0001", "evaluation_0001", "base_0002", "evaluation_0002"]
    # The unknown revision may imply any of the base.
    assert _heads.compare({"evaluation_0003"}) is None
    assert _heads.pending({"evaluation_0003", "reviews_0001"}) == []


def test_a_wheel_brings_the_migrations() -> None:
    """The build puts the folder into the package; an installed package looks there first."""
    import tomllib

    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"] == {"alembic": "stemmadb/_alembic"}
