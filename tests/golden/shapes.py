"""
What is kept of every released version of a document, and the check that it still holds.

``<Document>/v<n>.json`` has stored examples of a version, each with the document of the newest version that it is read as.
``schemas.lock`` has the SHA-256 of each version's shape, of the examples stored, and of what they are read as.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.golden.examples import AT_LEAST
from tests.golden.fingerprints import fingerprint

from stemmadb import errors
from stemmadb.documents import Document, registered_documents

FOLDER = Path(__file__).parent
RECORD = "python -m tests.golden.record"

Key = tuple[str, int, str]
"""A document, a version, and what of it: ``schema``, ``stored``, or ``read-as-<newest>``."""
Lock = Mapping[Key, str]


@dataclass(frozen=True)
class Example:
    """What a release stored, and what it is read as now."""

    stored: Any
    newest: Any


def released() -> Mapping[str, type[Document]]:
    """The documents of every installed pack and of the kernel."""
    return registered_documents()


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


# --------------------------------------------------------------------------------------------------------------------- files


def read_lock(folder: Path = FOLDER) -> dict[Key, str]:
    """Return what the lock says."""
    path = folder / "schemas.lock"
    lines = path.read_text().splitlines() if path.exists() else []
    rows = (line.split() for line in lines if line and not line.startswith("#"))
    return {(document, int(version.removeprefix("v")), what): digest for document, version, what, digest in rows}


def write_lock(lock: Lock, folder: Path = FOLDER) -> None:
    """Write the lock, in the order of its documents and versions."""
    rows = [f"{document} v{version} {what} {digest}" for (document, version, what), digest in sorted(lock.items())]
    folder.joinpath("schemas.lock").write_text(
        "\n".join([f"# Written by {RECORD}. A line that changes breaks what is stored.", *rows]) + "\n"
    )


def read_examples(document: str, version: int, folder: Path = FOLDER) -> list[Example]:
    """Return the examples of a version; none when there is no file."""
    path = folder / document / f"v{version}.json"
    return [Example(**example) for example in json.loads(path.read_text())] if path.exists() else []


def write_examples(document: str, version: int, examples: Iterable[Example], folder: Path = FOLDER) -> None:
    """Write the examples of a version, one in a line."""
    path = folder / document / f"v{version}.json"
    path.parent.mkdir(exist_ok=True)
    lines = [json.dumps({"stored": example.stored, "newest": example.newest}, separators=(",", ":")) for example in examples]
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n")


def locked(name: str, document: type[Document], version: int, examples: list[Example]) -> dict[Key, str]:
    """Return the lines of a lock for one version of a document."""
    lines = {
        (name, version, "stored"): _hash([example.stored for example in examples]),
        (name, version, f"read-as-{document.newest_version}"): _hash([example.newest for example in examples]),
    }
    return {**lines, (name, version, "schema"): fingerprint(document)} if version == document.newest_version else lines


# --------------------------------------------------------------------------------------------------------------------- check


def problems(documents: Mapping[str, type[Document]], folder: Path = FOLDER) -> list[str]:
    """Return everything in which documents are not what was recorded of them; each says what to do."""
    lock = read_lock(folder)
    found = [f"{name} was released and is gone: keep it, or migrate what is stored" for name in {key[0] for key in lock} - set(documents)]
    for name, document in documents.items():
        found += shape_problems(name, document, lock)
        for version in range(document.newest_version + 1):
            found += _example_problems(name, document, version, read_examples(name, version, folder), lock)
    return found


def shape_problems(name: str, document: type[Document], lock: Lock) -> list[str]:
    """Return whether a document's class has another shape than its version was recorded with."""
    version = document.newest_version
    newest = max((key[1] for key in lock if key[0] == name), default=0)
    if version < newest:
        return [f"{name} was released at version {newest}, and its class is at {version}: a version never goes back"]
    recorded = lock.get((name, version, "schema"))
    if recorded is None:
        return [f"version {version} of {name} is not recorded: run {RECORD}"]
    if recorded != fingerprint(document):
        return [f"the shape of {name} is not that of version {version}: raise version=, write the step, and run {RECORD}"]
    return []


def _example_problems(name: str, document: type[Document], version: int, examples: list[Example], lock: Lock) -> Iterator[str]:
    place = f"version {version} of {name}"
    if len(examples) < AT_LEAST:
        yield f"{place} has {len(examples)} stored examples, and {AT_LEAST} are needed: run {RECORD}"
        return
    for key, digest in locked(name, document, version, examples).items():
        if key[2] != "schema" and lock.get(key) != digest:
            yield f"the examples of {place} are not the recorded ones ({key[2]}): restore {name}/v{version}.json"
    for number, example in enumerate(examples):
        if (_version_of(example.stored), _version_of(example.newest)) != (version, document.newest_version):
            yield f"example {number} of {place} is of another version"
        try:
            read = document.load(example.stored).dump()
        except errors.StemmaError as error:
            yield f"example {number} of {place} cannot be read: {error}"
            continue
        if json.dumps(read, sort_keys=True) != json.dumps(example.newest, sort_keys=True):
            yield f"example {number} of {place} is read as something else: a step that was released never changes"


def _version_of(stored: Any) -> Any:
    return (stored.get("schema_version") or 0) if isinstance(stored, dict) else 0
