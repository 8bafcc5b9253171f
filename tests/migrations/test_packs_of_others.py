"""Packs that other distributions bring: their revisions run beside the library's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from tests.migrations.places import Place
from tests.test_docs import PACKS, blocks_of

from stemmadb import _heads
from stemmadb.errors import MigrationError


def install(folder: Path) -> Path:
    """Write the files of the how-to into a folder, with the metadata that an installer makes of its pyproject.toml."""
    for block in blocks_of(PACKS):
        if block.file is not None:
            path = folder / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    groups = [[f"[{group}]", *(f"{name} = {value}" for name, value in points.items())] for group, points in project["entry-points"].items()]
    metadata = folder / f"{project['name']}-{project['version']}.dist-info"
    metadata.mkdir()
    (metadata / "entry_points.txt").write_text("\n".join(line for group in groups for line in group))
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    return folder


def run(folder: Path, *command: str, place: Place | None = None) -> str:
    """Run Python where the distribution is installed; return what it prints."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    if place is not None:
        address = place.direct_url.render_as_string(hide_password=False)
        environment |= {"DATABASE_URL": address, "DIRECT_URL": address}
    ran = subprocess.run([sys.executable, *command], env=environment, cwd=folder, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.mark.slow
def test_a_pack_of_another_distribution(tmp_path: Path) -> None:
    """The how-to's distribution conforms: its table equals its entity, it goes up, down and up, and its rows stay in their workspaces."""
    folder = install(tmp_path)
    options = ["-q", "-p", "no:cacheprovider", "-o", "asyncio_default_fixture_loop_scope=function", "-c", "/dev/null", "--rootdir"]
    assert "2 passed" in run(folder, "-m", "pytest", *options, str(folder), "test_remarks.py")


def test_its_branch_is_migrated_with_the_others(tmp_path: Path, empty: Place) -> None:
    """``migrate up`` installs it, ``check`` compares it with its entities, ``down`` takes it away; without it, its tables stand aside."""
    folder = install(tmp_path)
    run(folder, "-m", "stemmadb", "migrate", "up", place=empty)
    status = json.loads(run(folder, "-m", "stemmadb", "migrate", "status", "--json", place=empty))
    assert "remarks_0001" in json.dumps(status)
    run(folder, "-m", "stemmadb", "migrate", "check", place=empty)
    empty.do("ALTER TABLE stemma.remarks NO FORCE ROW LEVEL SECURITY")
    with pytest.raises(AssertionError, match="remarks"):
        run(folder, "-m", "stemmadb", "migrate", "check", place=empty)
    empty.do("ALTER TABLE stemma.remarks FORCE ROW LEVEL SECURITY")
    without = tmp_path / "without"
    without.mkdir()
    run(without, "-c", "import stemmadb; db = stemmadb.connect(); s = db.session(); s.__enter__().connection()", place=empty)
    run(folder, "-m", "stemmadb", "migrate", "down", "remarks@base", "--yes", place=empty)
    assert empty.ask("SELECT to_regclass('stemma.remarks') IS NULL") == [True]


def test_the_first_revision_of_a_branch_is_written(tmp_path: Path, empty: Place) -> None:
    """``migrate new`` begins a branch whose folder is empty, on top of what its pack requires."""
    folder = install(tmp_path)
    (folder / "remarks/migrations/0001_expand_remarks.py").unlink()
    run(folder, "-m", "stemmadb", "migrate", "up", place=empty)
    run(folder, "-m", "stemmadb", "migrate", "new", "remarks", "remarks", place=empty)
    (path,) = (folder / "remarks/migrations").glob("*.py")
    text = path.read_text()
    assert path.name == "0001_expand_remarks.py"
    assert "branch_labels = ('remarks',)" in text or "branch_labels = ['remarks']" in text or "branch_labels = 'remarks'" in text
    assert "'base_0001', 'evaluation_0001'" in text
    assert "'remarks'" in text
    run(folder, "-m", "stemmadb", "migrate", "up", place=empty)
    assert empty.ask("SELECT to_regclass('stemma.remarks') IS NOT NULL") == [True]


@pytest.mark.offline
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("remarks", "remarks.nowhere", "names 'remarks.nowhere', where there is no folder of revisions"),
        ("remarks", "nothing_like_it", "names 'nothing_like_it', where there is no folder of revisions"),
        ("base", "remarks.migrations", "two installed packages bring the branch 'base'"),
        ("Remarks", "remarks.migrations", "is no name of a branch"),
    ],
)
def test_a_wrong_entry_point_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str) -> None:
    """Nothing is guessed: the error says which entry point is wrong, and how."""
    folder = install(tmp_path)
    (metadata,) = folder.glob("*.dist-info")
    (metadata / "entry_points.txt").write_text(f"[stemmadb.migrations]\n{name} = {value}\n")
    monkeypatch.syspath_prepend(str(folder))
    _heads.forget()
    try:
        with pytest.raises(MigrationError, match=message):
            _heads.folders()
    finally:
        monkeypatch.undo()
        _heads.forget()
