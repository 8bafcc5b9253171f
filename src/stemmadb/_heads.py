"""
The revisions that this release ships, read from their files without Alembic.

Alembic takes 60 ms to import; the first connection of an engine only asks whether the schema fits. File names say branch, number and
phase, and the few assignments at the top of each file say the rest.
"""

import ast
import re
import threading
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from stemmadb.errors import MigrationError

BASE = "base"
"""The branch that is always installed."""

GROUP = "stemmadb.migrations"
"""The entry points through which other distributions bring branches: its name, and the package that lies in the folder of its revisions."""

_FILE_NAME = re.compile(r"(?P<number>\d{4})_(?P<phase>expand|contract)_(?P<what>[a-z0-9_]+)\.py")
_READING = threading.Lock()
_BRANCH = re.compile(r"[a-z][a-z0-9_]*")
_REVISION = re.compile(r"(?P<branch>[a-z][a-z0-9_]*)_(?P<number>\d{4})")


@dataclass(frozen=True)
class Revision:
    """One migration, as its file describes it."""

    id: str
    branch: str
    number: int
    phase: str
    """``expand`` runs before the release is deployed, ``contract`` after it."""
    path: Path
    down_revision: str | None
    branch_labels: tuple[str, ...]
    depends_on: tuple[str, ...]
    doc: str

    @property
    def before(self) -> tuple[str, ...]:
        """The revisions that it is built on."""
        return self.depends_on if self.down_revision is None else (*self.depends_on, self.down_revision)


class Mismatch(NamedTuple):
    """What this release needs and what the database has, for ``SchemaOutOfDateError``."""

    needed: str
    found: str


def location() -> Path:
    """Return the folder of the migrations: inside an installed package, or at the top of the repository."""
    package = Path(__file__).parent
    shipped = package / "_alembic"
    return shipped if shipped.is_dir() else package.parents[1] / "alembic"


def folders() -> Mapping[str, Path]:
    """
    Return the folder of every branch, ``base`` first: those that the package ships, and those of other distributions.

    Nothing of another distribution is imported.

    Raises:
        MigrationError: the package's own are missing, or a distribution names a folder that is not there or a branch that is taken.
    """
    return _folders(location())


def revisions() -> Mapping[str, Revision]:
    """
    Return every installed revision by its id: branch by branch, ``base`` first, each in the order of its numbers.

    Raises:
        MigrationError: two revisions of a branch have one number, or a file breaks the naming rule.
    """
    # One thread at a time: ast.parse of CPython 3.11 counts how deep it is for all threads together, and may fail for it.
    with _READING:
        return _read(location())


def branches() -> tuple[str, ...]:
    """Return the branches that have revisions, ``base`` first."""
    return tuple(dict.fromkeys(revision.branch for revision in revisions().values()))


def heads() -> dict[str, str]:
    """Return the newest revision of every shipped branch."""
    return {revision.branch: revision.id for revision in revisions().values()}


def needed_heads(wanted: Iterable[str] | None = None) -> dict[str, str]:
    """
    Return the oldest revision of each branch that this release works with.

    That is the newest ``expand``: a release is deployed before its ``contract`` revisions run.

    Args:
        wanted: branches; None means all that are shipped.
    """
    chosen = None if wanted is None else set(wanted)
    return {
        revision.branch: revision.id
        for revision in revisions().values()
        if revision.phase == "expand" and (chosen is None or revision.branch in chosen)
    }


def covered(found: Collection[str]) -> dict[str, int]:
    """
    Return the number that each branch has reached in a database.

    The version table leaves out what another row implies, so ``depends_on`` is followed. A revision that this release does not know
    counts with the number in its id, and implies the newest known one of its branch.

    Args:
        found: the rows of ``stemma_alembic_version``.
    """
    known = revisions()
    newest = heads()
    reached: dict[str, int] = {}
    seen: set[str] = set()
    waiting = set(found)
    while waiting:
        id = waiting.pop()
        seen.add(id)
        branch, number = _parse(id)
        reached[branch] = max(number, reached.get(branch, 0))
        if id in known:
            waiting |= set(known[id].before) - seen
        elif branch in newest:
            waiting |= {newest[branch]} - seen
    return reached


def compare(found: Collection[str], wanted: Iterable[str] | None = None) -> Mismatch | None:
    """
    Tell whether this release works with a database.

    A database may be one revision ahead in a branch (the next release is being deployed) and may lack trailing ``contract`` revisions.
    A branch that is not installed is no mismatch, unless it is ``base``.

    Args:
        found: the rows of ``stemma_alembic_version``.
        wanted: the branches of the installed packs; None means all that are shipped.

    Returns:
        None when they fit, else what is needed and what was found.
    """
    known, newest, reached = revisions(), heads(), covered(found)
    needed = needed_heads(wanted)
    unknown = [id for id in found if id not in known]
    named = {_parse(id)[0] for id in found}
    behind = {
        branch: id
        for branch, id in needed.items()
        if reached.get(branch, 0) < known[id].number
        and (branch in reached or branch == BASE)
        # A revision of a newer release may imply rows that the table leaves out.
        and (not unknown or branch in named)
    }
    ahead = {branch: newest[branch] for branch, number in reached.items() if branch in newest and number > known[newest[branch]].number + 1}
    if not behind and not ahead:
        return None
    return Mismatch(", ".join(sorted({**ahead, **behind}.values())), ", ".join(sorted(found)) or "nothing")


def pending(found: Collection[str], wanted: Iterable[str] | None = None) -> list[str]:
    """
    Return the shipped revisions that a database lacks, in the order in which they can run.

    Args:
        found: the rows of ``stemma_alembic_version``.
        wanted: only these branches, and what they depend on; None means all that are shipped.
    """
    known, reached = revisions(), covered(found)
    unknown = any(id not in known for id in found)
    named = {_parse(id)[0] for id in found}
    ordered: dict[str, None] = {}

    def visit(revision: Revision) -> None:
        if reached.get(revision.branch, 0) >= revision.number or (unknown and revision.branch not in named and revision.branch == BASE):
            return
        for id in revision.before:
            visit(known[id])
        ordered.setdefault(revision.id)

    chosen = None if wanted is None else set(wanted)
    for revision in known.values():
        if chosen is None or revision.branch in chosen:
            visit(revision)
    return list(ordered)


def without_contract(todo: Collection[str]) -> list[str]:
    """
    Leave out contract revisions, and what is built on them.

    Args:
        todo: revisions in the order in which they can run.
    """
    known = revisions()
    left: set[str] = set()
    for id in todo:
        if known[id].phase == "contract" or left & set(known[id].before):
            left.add(id)
    return [id for id in todo if id not in left]


def dependents(id: str, among: Collection[str]) -> list[str]:
    """
    Return the revisions that are built on one, newest first.

    Args:
        id: the revision that would go away.
        among: the revisions that are installed.
    """
    known = revisions()
    gone = {id}
    grew = True
    while grew:
        grew = False
        for revision in known.values():
            if revision.id not in gone and gone & set(revision.before):
                gone.add(revision.id)
                grew = True
    return [revision for revision in reversed(list(known)) if revision in gone and revision != id and revision in among]


def unknown(found: Collection[str]) -> tuple[str, ...]:
    """Return the revisions of a database that a newer release must have brought."""
    known = revisions()
    return tuple(id for id in found if id not in known)


def branch_of(id: str) -> str:
    """Return the branch that a revision's id names, known or not."""
    return _parse(id)[0]


def installed(found: Collection[str]) -> list[str]:
    """Return the shipped revisions that a database has, oldest first in each branch."""
    reached = covered(found)
    return [revision.id for revision in revisions().values() if revision.number <= reached.get(revision.branch, 0)]


def forget() -> None:
    """Read the files again at the next question, after one was added."""
    _read.cache_clear()
    _folders.cache_clear()


@cache
def _folders(folder: Path) -> Mapping[str, Path]:
    versions = folder / "versions"
    if not versions.is_dir():
        raise MigrationError(f"the migrations are missing: {versions} does not exist; install the package again")
    found = {path.name: path for path in versions.iterdir() if path.is_dir() and not path.name.startswith("_")}
    for entry_point in entry_points(group=GROUP):
        brought = _brought(entry_point)
        if found.setdefault(entry_point.name, brought) != brought:
            raise MigrationError(f"two installed packages bring the branch {entry_point.name!r}: the second is {entry_point.value!r}")
    return MappingProxyType(dict(sorted(found.items(), key=lambda item: (item[0] != BASE, item[0]))))


def _brought(entry_point: EntryPoint) -> Path:
    if _BRANCH.fullmatch(entry_point.name) is None:
        raise MigrationError(f"{entry_point.name!r}, of the entry points {GROUP}, is no name of a branch: it is made of a-z, 0-9 and _")
    top, *below = entry_point.value.split(".")
    # A distribution that is installed as editable lies anywhere; the parent of a package would be imported to find it.
    spec = find_spec(top)
    for place in () if spec is None else spec.submodule_search_locations or ():
        folder = Path(place).joinpath(*below)
        if folder.is_dir():
            return folder.resolve()
    raise MigrationError(f"the entry point {GROUP}:{entry_point.name} names {entry_point.value!r}, where there is no folder of revisions")


@cache
def _read(folder: Path) -> Mapping[str, Revision]:
    found: dict[str, Revision] = {}
    for branch, versions in _folders(folder).items():
        for path in sorted(versions.glob("*.py")):
            if path.name == "__init__.py":
                continue
            revision = _read_file(branch, path)
            if (other := found.get(revision.id)) is not None:
                raise MigrationError(_two_heads(branch, other.path, path), revision.id)
            found[revision.id] = revision
        _require_one_line(branch, [revision for revision in found.values() if revision.branch == branch])
    return MappingProxyType(found)


def _read_file(branch: str, path: Path) -> Revision:
    match = _FILE_NAME.fullmatch(path.name)
    if match is None:
        raise MigrationError(f"{branch}/{path.name} is not named NNNN_expand_<what>.py or NNNN_contract_<what>.py: rename it")
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    facts: dict[str, object] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id in _FACTS:
            facts[node.targets[0].id] = ast.literal_eval(node.value)
    id = f"{branch}_{match['number']}"
    if facts.get("revision") != id:
        raise MigrationError(f"{branch}/{path.name} says revision = {facts.get('revision')!r}: by its name it is {id!r}", id)
    down = facts.get("down_revision")
    return Revision(
        id=id,
        branch=branch,
        number=int(match["number"]),
        phase=match["phase"],
        path=path,
        down_revision=None if down is None else str(down),
        branch_labels=_strings(facts.get("branch_labels")),
        depends_on=_strings(facts.get("depends_on")),
        doc=ast.get_docstring(tree) or "",
    )


_FACTS = frozenset({"revision", "down_revision", "branch_labels", "depends_on"})


def _strings(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(str(item) for item in value) if isinstance(value, (tuple, list)) else ()


def _require_one_line(branch: str, line: list[Revision]) -> None:
    """Refuse a branch that is not one line of numbers without a gap."""
    before: Revision | None = None
    for revision in line:
        if revision.down_revision != (None if before is None else before.id):
            raise MigrationError(_two_heads(branch, *(r.path for r in (before, revision) if r is not None)), revision.id)
        before = revision


def _two_heads(branch: str, *paths: Path) -> str:
    names = " and ".join(path.name for path in paths)
    return (
        f"the branch {branch} is not one line: see {names}. Two people probably added a revision at the same time: give the one that no "
        "database has yet the next free number, in its file name and in `revision`, and set its `down_revision` to the revision before it"
    )


def _parse(id: str) -> tuple[str, int]:
    match = _REVISION.fullmatch(id)
    return (match["branch"], int(match["number"])) if match else (id, 0)
