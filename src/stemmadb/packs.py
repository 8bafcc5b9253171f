"""
Packs: what a domain brings to the library, declared once.

Packs are found through the entry point group ``stemmadb.packs``, so that other distributions can add some. The kernel imports none by name.
"""

import functools
import pkgutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from stemmadb.documents import Document, check_upcasters
from stemmadb.entity import Entity
from stemmadb.errors import ConfigurationError

__all__ = ["GROUP", "Pack", "packs", "documents"]

GROUP = "stemmadb.packs"


@dataclass(frozen=True)
class Pack:
    """
    One domain: its tables, its documents, and what the command line offers for it.

    Args:
        name: of the package, the test folder and the page of the documentation.
        branch: its migration branch; its name, but for the packs that share ``base``.
        requires: the packs that its tables refer to.
        entities: its tables, each after those that it refers to where that is possible.
        seeds: where its seeds stand, each a tuple of ``stemmadb.seeding.Seed``, as ``module:name``; imported when seeds run.
        commands: what adds its commands, a function of the command line's Typer application, as ``module:name``; imported when the command
            line starts. None for a pack without.
        secrets: its columns, as ``table.column``, that hold what the library encrypts with STEMMADB_SECRET_KEYS; ``stemmadb secrets``
            counts and rotates them.
        checks: what it looks at in its rows, each a ``stemmadb.reports.Check``, as ``module:name``; imported by ``stemmadb doctor``.
        factories: where a tuple of ``stemmadb.testing.factories.EntityFactory`` classes stands, as ``module:name``, for those entities
            whose columns do not tell all that a row needs; imported when a test asks for a factory. None for a pack without.
    """

    name: str
    branch: str
    requires: tuple[str, ...] = ()
    entities: tuple[type[Entity], ...] = ()
    seeds: tuple[str, ...] = ()
    commands: str | None = None
    secrets: tuple[str, ...] = ()
    checks: tuple[str, ...] = ()
    factories: str | None = None

    @functools.cached_property
    def documents(self) -> Mapping[tuple[str, str], type[Document]]:
        """The document type of each of its JSONB columns, by (table, column)."""
        return documents(self.entities)

    def load_seeds(self) -> tuple[Any, ...]:
        """Import what ``seeds`` names."""
        return tuple(pkgutil.resolve_name(seed) for seed in self.seeds)

    def load_checks(self) -> tuple[Any, ...]:
        """Import what ``checks`` names."""
        return tuple(pkgutil.resolve_name(check) for check in self.checks)

    def load_commands(self) -> Any | None:
        """Import what ``commands`` names; None for a pack without."""
        return None if self.commands is None else pkgutil.resolve_name(self.commands)

    def load_factories(self) -> tuple[Any, ...]:
        """Import what ``factories`` names; an empty tuple for a pack without."""
        return () if self.factories is None else tuple(pkgutil.resolve_name(self.factories))


@functools.cache
def packs() -> tuple[Pack, ...]:
    """
    Return the installed packs, each after those that it requires. The first call imports the entities of all of them.

    Raises:
        ConfigurationError: an entry point names no pack, two packs have one name, a pack requires one that is not installed, or a document
            of a pack lacks a step between two versions.
    """
    import stemmadb.infra  # noqa: F401  (the kernel's own tables, which belong to no pack)

    found: dict[str, Pack] = {}
    for entry_point in sorted(entry_points(group=GROUP), key=lambda entry_point: entry_point.name):
        pack = _load(entry_point)
        if found.setdefault(pack.name, pack) is not pack:
            raise ConfigurationError(f"two installed packs are called {pack.name!r}: uninstall one of their distributions")
    return _in_order(found)


def documents(entities: Iterable[type[Entity]]) -> Mapping[tuple[str, str], type[Document]]:
    """Return the document type of each JSONB column of the entities, by (table, column)."""
    return {
        (entity.__tablename__, column.name): column.info["document"]
        for entity in entities
        for column in entity.__table__.columns
        if column.info["document"] is not None
    }


def _load(entry_point: EntryPoint) -> Pack:
    pack = entry_point.load()
    if not isinstance(pack, Pack):
        raise ConfigurationError(f"the entry point {GROUP}:{entry_point.name} names {entry_point.value}, which is not a Pack")
    # A step that is missing is found here, not when the first old document is read.
    check_upcasters(pack.documents.values())
    return pack


def _in_order(found: Mapping[str, Pack]) -> tuple[Pack, ...]:
    ordered: dict[str, Pack] = {}

    def add(pack: Pack, dependents: tuple[str, ...]) -> None:
        if pack.name in dependents:
            raise ConfigurationError(f"packs require each other: {' -> '.join((*dependents, pack.name))}")
        for name in pack.requires:
            if name not in found:
                raise ConfigurationError(f"the pack {pack.name!r} requires {name!r}, which is not installed")
            add(found[name], (*dependents, pack.name))
        ordered.setdefault(pack.name, pack)

    for pack in found.values():
        add(pack, ())
    return tuple(ordered.values())
