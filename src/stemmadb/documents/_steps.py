"""The steps from one version of a document to the next."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar
from weakref import WeakSet

from stemmadb import errors

if TYPE_CHECKING:
    from stemmadb.documents._document import Document

Raw: TypeAlias = dict[str, Any]
"""A document as it is stored: what JSON gives for an object."""

Upcaster: TypeAlias = Callable[[Raw], Raw]
"""A step from one version to the next: a pure function. It gets a copy."""

U = TypeVar("U", bound=Upcaster)

known_documents: WeakSet[type[Document]] = WeakSet()
"""Every class with a version."""


def register_upcaster(type: type[Document], from_version: int) -> Callable[[U], U]:
    """
    Register the function below as a document's step from a version to the next.

    A step is a pure and total function of the stored object: no clock, no I/O. It gets a copy, and need not set ``schema_version``. What
    version 0 stored as an array reaches the first step as a list.

    Raises:
        ConfigurationError: there is such a step already, or the version is not below the newest.
    """
    if not 0 <= from_version < type.newest_version:
        raise errors.ConfigurationError(
            f"{type.__name__} has versions up to {type.newest_version}, so there is no step from {from_version}: raise version= first"
        )
    if from_version in type._steps:
        raise errors.ConfigurationError(f"{type.__name__} has two steps from version {from_version}: keep one")

    def register(step: U) -> U:
        if from_version in type._steps:
            raise errors.ConfigurationError(f"{type.__name__} has two steps from version {from_version}: keep one")
        type._steps[from_version] = step
        return step

    return register


def check_upcasters(documents: Iterable[type[Document]] | None = None) -> None:
    """
    Check that every version of a document leads to the next.

    Args:
        documents: the classes to look at; None means all that exist.

    Raises:
        ConfigurationError: steps are missing. The message names the first class that lacks some.
    """
    for document in sorted(known_documents if documents is None else documents, key=lambda document: document.__qualname__):
        check_steps(document)


def check_steps(document: type[Document]) -> None:
    """Check one class, as its first old document is read. Once is enough: a step is never taken away."""
    if document._complete:
        return
    missing = [str(version) for version in range(document.newest_version) if version not in document._steps]
    if missing:
        raise errors.ConfigurationError(
            f"{document.__name__} has no step from version {', '.join(missing)}: register it with @{document.__name__}.upcast(n)"
        )
    document._complete = True
