"""The house rules that can be read off the sources: who imports whom, how long a file is, what never appears."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "stemmadb"
FOLDERS_OF_THE_KERNEL = {"aio", "documents", "embedded", "migrations", "testing", "_alembic"}
PACKS = sorted(path.name for path in PACKAGE.iterdir() if (path / "entities.py").exists() or (path / "entities").is_dir())
# What a pack may import beside the kernel. accounts and workspaces share a migration branch because their tables refer to each other.
NEEDS = {"accounts": {"workspaces"}, "workspaces": {"accounts"}, "evaluation": {"accounts", "workspaces"}, "reviews": {"accounts"}}

pytestmark = pytest.mark.offline


def sources() -> Iterator[Path]:
    """Every module of the package."""
    return (path for path in PACKAGE.rglob("*.py") if "_alembic" not in path.parts)


def imported(path: Path) -> set[str]:
    """The modules of the package that a file imports, wherever in the file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return {name for name in found if name.startswith("stemmadb.")}


def pack_of(name: str) -> str | None:
    """The pack that a dotted name belongs to, twins included."""
    parts = name.split(".")[1:]
    if parts and parts[0] == "aio":
        parts = parts[1:]
    return parts[0] if parts and parts[0] in PACKS else None


@pytest.mark.requirement("VR-024", "VR-025")
def test_packs_are_found() -> None:
    """The packs of this release are folders with entities."""
    assert {"accounts", "workspaces", "evaluation", "reviews"} <= set(PACKS)


def test_the_kernel_imports_no_pack() -> None:
    """A module at the root of the package, or in a folder of the kernel, imports no pack."""
    wrong = [
        f"{path.relative_to(PACKAGE)}: {name}"
        for path in sources()
        if pack_of("stemmadb." + ".".join(path.relative_to(PACKAGE).with_suffix("").parts)) is None
        for name in imported(path)
        if pack_of(name) is not None
    ]
    # The command line names packs in one place only, through their entry points.
    assert wrong == []


@pytest.mark.parametrize("pack", PACKS)
def test_a_pack_imports_only_what_it_declares(pack: str) -> None:
    """A pack imports the kernel, itself, and the packs that it declares."""
    wrong = [
        f"{path.relative_to(PACKAGE)}: {name}"
        for path in (PACKAGE / pack).rglob("*.py")
        for name in imported(path)
        if pack_of(name) not in {None, pack, *NEEDS.get(pack, set())}
    ]
    assert wrong == []


@pytest.mark.requirement("VR-009", "VR-013")
def test_files_stay_readable() -> None:
    """No source file has 400 lines or more."""
    long = {str(path.relative_to(ROOT)): lines for path in sources() if (lines := len(path.read_text().splitlines())) > 400}
    assert long == {}


def test_functions_stay_readable() -> None:
    """No function has more than 60 lines without its docstring."""
    long = []
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                documented = ast.get_docstring(node, clean=False)
                lines = (node.end_lineno or 0) - node.lineno - (documented.count("\n") + 1 if documented else 0)
                if lines > 60:
                    long.append(f"{path.relative_to(PACKAGE)}:{node.lineno} {node.name} {lines}")
    assert long == []


def test_no_drawer_modules() -> None:
    """No module is called after nothing in particular."""
    drawers = {"utils", "helpers", "common", "manager", "service", "base"}
    assert [str(path) for path in sources() if path.stem.strip("_") in drawers or path.parent.name in drawers] == []


def test_alembic_is_not_a_package() -> None:
    """A top-level alembic/__init__.py would shadow the library of that name for everything run from here."""
    assert not (ROOT / "alembic" / "__init__.py").exists()
