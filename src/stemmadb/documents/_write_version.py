"""
The version that is written: the newest, unless a rolling upgrade asks for an older one.

Releases that only know version n refuse documents of n + 1. So the readers of n + 1 are deployed first, still writing n; when no process
of the release before is left, they are told to write n + 1. A step down says how a document of n + 1 is stored as n.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import pydantic_core

from stemmadb import errors
from stemmadb.documents._load import load_text, parse
from stemmadb.documents._registered import document_called
from stemmadb.documents._steps import Raw
from stemmadb.documents._values import escape, map_strings, unescape

if TYPE_CHECKING:
    from stemmadb.documents._document import Document

Downcaster: TypeAlias = Callable[[Raw], Raw]
"""A step from one version to the one before: a pure function. It gets a copy."""

S = TypeVar("S", bound=Downcaster)


def register_downcaster(type: type[Document], from_version: int) -> Callable[[S], S]:
    """
    Register the function below as a document's step from a version to the one before.

    A step is a pure and total function of the stored object: no clock, no I/O. It gets a copy, and need not set ``schema_version``. What
    the older version can hold has to come back from the step up. A key that the older version does not know may stay: every release
    keeps unknown keys.

    Raises:
        ConfigurationError: there is such a step already, or the class has no such version.
    """
    if not 1 <= from_version <= type.newest_version:
        raise errors.ConfigurationError(
            f"{type.__name__} has versions 1 to {type.newest_version}, so no step leads down from {from_version}"
        )

    def register(step: S) -> S:
        if from_version in type._steps_down:
            raise errors.ConfigurationError(f"{type.__name__} has two steps down from version {from_version}: keep one")
        type._steps_down[from_version] = step
        return step

    return register


def set_write_version(type: type[Document], version: int | None) -> None:
    """
    Say at which version documents of a class are stored from now on, by every thread of this process.

    Reading is not touched: every version up to the newest is read. Content hashes are those of what is stored.

    Args:
        type: the class. One that derives from it and has a version of its own is another document.
        version: the version; None is the newest.

    Raises:
        ConfigurationError: the class has no such version, or no step down to it. What was written before is written still.
    """
    type._write_version = None if version is None else checked_version(type, version)


def checked_version(type: type[Document], version: int) -> int | None:
    """
    Return a version at which documents of a class can be written; None for the newest.

    Raises:
        ConfigurationError: the class has no such version, or no step down to it.
    """
    if not 0 <= version <= type.newest_version:
        raise errors.ConfigurationError(f"{type.__name__} has versions up to {type.newest_version}: it cannot be written at {version}")
    missing = [str(step) for step in range(type.newest_version, version, -1) if step not in type._steps_down]
    if missing:
        raise errors.ConfigurationError(
            f"{type.__name__} cannot be written at version {version}: there is no step down from {', '.join(missing)}; "
            f"register it with @{type.__name__}.downcast(n)"
        )
    return None if version == type.newest_version else version


def write_version(type: type[Document]) -> int:
    """Return the version at which documents of a class are stored: the newest, unless ``set_write_version`` said otherwise."""
    return type.newest_version if type._write_version is None else type._write_version


def configure_write_versions(versions: Iterable[tuple[str, int]]) -> None:
    """
    Apply the setting STEMMADB_WRITE_VERSIONS.

    Args:
        versions: names of document classes, each with the version to write.

    Raises:
        ConfigurationError: there is no document of that name, or it cannot be written at that version. The message names the variable.
    """
    for name, version in versions:
        try:
            set_write_version(document_called(name), version)
        except errors.StemmaError as error:
            raise errors.ConfigurationError(f"STEMMADB_WRITE_VERSIONS: {error}") from None


def step_down(document: type[Document], text: bytes, version: int) -> bytes:
    """
    Bring the JSON text of a newest document to an older version.

    Raises:
        CorruptDocumentError: the text cannot be parsed, since it is nested too deeply; or a step failed, or gave no object.
    """
    value: Any = map_strings(parse(text), unescape)
    for source in range(document.newest_version, version, -1):
        try:
            value = document._steps_down[source](value)
        except Exception as error:
            reason = f"the step down from version {source} failed with {type(error).__name__}"
            raise errors.CorruptDocumentError(None, None, None, reason) from error
        if not isinstance(value, dict):
            raise errors.CorruptDocumentError(None, None, None, f"the step down from version {source} gave no object")
        value = {**value, "schema_version": source - 1}
    try:
        return pydantic_core.to_json(map_strings(value, escape))
    except (pydantic_core.PydanticSerializationError, RecursionError) as error:
        raise errors.CorruptDocumentError(None, None, None, f"the steps down to version {version} gave what is not JSON") from error


def require_readable(document: type[Document], text: bytes, version: int) -> None:
    """
    Read back what steps down gave, before it is stored.

    Raises:
        CorruptDocumentError: it cannot be read. Stored, it would be lost to every release.
    """
    try:
        load_text(document, text)
    except errors.CorruptDocumentError as error:
        reason = f"the steps down to version {version} gave what cannot be read back: {error.reason}"
        raise errors.CorruptDocumentError(None, None, None, reason, error.pointer) from error
