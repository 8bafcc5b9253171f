"""
Record the versions of documents that are about to be released: ``python -m tests.golden.record``.

Run it after a version has been raised and its step was written. Stored examples of earlier versions stay as they are for ever; what they
are read as is written anew. ``--anew DefinitionContent`` forgets the newest version of a document that no release has had yet.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.golden.examples import examples, examples_of_version_0
from tests.golden.shapes import FOLDER, Example, Key, locked, read_examples, read_lock, released, shape_problems, write_examples, write_lock

from stemmadb.documents import Document


class RecordError(Exception):
    """What was released would change."""


def record(documents: Mapping[str, type[Document]], folder: Path = FOLDER, anew: Sequence[str] = ()) -> list[str]:
    """
    Write the examples and the lock of documents.

    Args:
        documents: all of them, by name.
        folder: where.
        anew: documents whose newest version was never released.

    Returns:
        What was recorded for the first time, as ``DefinitionContent v2``.

    Raises:
        RecordError: a released shape, a stored example or what one is read as would change. Nothing was written.
    """
    lock = read_lock(folder)
    kept = {key: digest for key, digest in lock.items() if not _is_anew(key, documents, anew)}
    written: dict[tuple[str, int], list[Example]] = {}
    lines: dict[Key, str] = {}
    for name, document in documents.items():
        for version in range(document.newest_version + 1):
            found = _examples(
                name, document, version, [] if _is_anew((name, version, ""), documents, anew) else read_examples(name, version, folder)
            )
            written[name, version] = found
            lines |= locked(name, document, version, found)
        changed = [key for key in lines if key[0] == name and key in kept and kept[key] != lines[key]]
        wrong = shape_problems(name, document, {**lines, **kept})
        if changed or wrong:
            raise RecordError("; ".join([*wrong, *(f"{key[2]} of version {key[1]} of {key[0]} would change" for key in changed)]))
    for (name, version), found in written.items():
        write_examples(name, version, found, folder)
    write_lock({**{key: digest for key, digest in kept.items() if not key[2].startswith("read-as-")}, **lines}, folder)
    return [f"{name} v{version}" for name, version in written if (name, version, "stored") not in kept]


def _is_anew(key: Key, documents: Mapping[str, type[Document]], anew: Sequence[str]) -> bool:
    """Whether a line is of a version that is forgotten. Version 0 is recorded together with version 1."""
    name, version, _ = key
    newest = documents[name].newest_version if name in documents else 0
    return name in anew and (version == newest or newest == 1)


def _examples(name: str, document: type[Document], version: int, found: list[Example]) -> list[Example]:
    stored = [example.stored for example in found]
    if not stored and version == document.newest_version:
        stored = examples(document)
    elif not stored and version == 0 and document.newest_version == 1:
        stored = examples_of_version_0(document)
    elif not stored:
        raise RecordError(f"the examples of version {version} of {name} are gone: restore them")
    return [Example(example, document.load(example).dump()) for example in stored]


def main(arguments: Sequence[str]) -> int:
    """Run the command line."""
    names = [argument for argument in arguments if argument != "--anew"]
    if (names and "--anew" not in arguments) or (unknown := set(names) - set(released())):
        print(f"no such document: {', '.join(unknown) if '--anew' in arguments else ', '.join(names)}", file=sys.stderr)
        return 2
    try:
        recorded = record(released(), anew=names)
    except RecordError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"recorded {', '.join(recorded)}" if recorded else "everything was recorded")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
