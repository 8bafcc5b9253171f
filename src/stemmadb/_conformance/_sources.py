"""Where the code of a pack stands: its package, all of its modules, and among them those that callers import functions from."""

from __future__ import annotations

import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from types import FunctionType, ModuleType
from typing import Any

from sqlalchemy.orm import Session

from stemmadb.errors import ConfigurationError
from stemmadb.packs import Pack

_OURS = "stemmadb"


@dataclass(frozen=True)
class Sources:
    """The modules of one pack."""

    package: str
    twins: str
    """The package of the async twins: ``stemmadb.aio.<pack>`` for a pack of the library, else ``<package>.aio``."""
    modules: tuple[ModuleType, ...]
    """All of them, without the twins."""
    public: tuple[ModuleType, ...]
    """Those directly in the package under a public name; not the ones that the pack names for its seeds, commands and factories."""

    def functions(self) -> Iterator[tuple[ModuleType, str, Callable[..., Any]]]:
        """Yield the query functions: exported by a public module, with a Session as first parameter."""
        for module in self.public:
            for name in getattr(module, "__all__", ()):
                value = getattr(module, name)
                if takes_session(value):
                    yield module, name, value


def sources_of(pack: Pack, package: str | None = None) -> Sources:
    """
    Import the modules of a pack.

    Args:
        pack: whose.
        package: where they stand; None: the package of its entities in which the pack itself is defined.

    Raises:
        ConfigurationError: no package of its entities defines the pack.
    """
    name = package or _package_of(pack)
    top = import_module(name)
    twins = f"{_OURS}.aio{name.removeprefix(_OURS)}" if name.startswith(f"{_OURS}.") else f"{name}.aio"
    if not hasattr(top, "__path__"):
        return Sources(name, twins, (top,), (top,))
    names = [found.name for found in pkgutil.walk_packages(top.__path__, f"{name}.")]
    modules = [import_module(found) for found in names if found != twins and not found.startswith(f"{twins}.")]
    apart = {reference.partition(":")[0] for reference in (*pack.seeds, *(named for named in (pack.commands, pack.factories) if named))}
    public = [module for module in modules if module.__name__ not in apart and _is_public(module.__name__.removeprefix(f"{name}."))]
    return Sources(name, twins, (top, *modules), tuple(public))


def takes_session(value: object) -> bool:
    """Return whether this is a function whose first parameter is a Session, by its annotation or, without one, by its name."""
    if isinstance(value, type) or not callable(value):
        return False
    function = inspect.unwrap(value)
    if not isinstance(function, FunctionType):
        return False
    parameters = function.__code__.co_varnames[: function.__code__.co_argcount]
    if not parameters:
        return False
    annotation = function.__annotations__.get(parameters[0])
    named = isinstance(annotation, str) and annotation.rpartition(".")[2] in ("Session", "AsyncSession")
    typed = isinstance(annotation, type) and issubclass(annotation, Session)
    return named or typed or (annotation is None and parameters[0] == "session")


def _is_public(name: str) -> bool:
    return "." not in name and not name.startswith("_")


def _package_of(pack: Pack) -> str:
    for entity in pack.entities:
        parts = entity.__module__.split(".")
        for length in range(len(parts), 0, -1):
            name = ".".join(parts[:length])
            module = sys.modules.get(name)
            if module is not None and any(value is pack for value in vars(module).values()):
                return name
    raise ConfigurationError(f"the pack {pack.name!r} is not defined in a package of its entities: say where its modules are, package=...")
