"""
Write down every public name of the package with its signature, one to a line.

``tests/public_names.txt`` is compared with the code by ``tests/test_public_api.py``, so that a change of the public surface shows up in
review as a change of a line. After a change that is meant, from the top of the repository:

    python -m tests.record_public_names
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import inspect
import pkgutil
import types
import typing
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import stemmadb

FILE = Path(__file__).with_name("public_names.txt")
# The command line is described by its own help. What stands in entities/ is exported by the folder.
_LEFT_OUT = {"cli", "commands", "seed", "__main__"}


def public_modules() -> list[ModuleType]:
    """Return every module that callers may import from, by name."""
    names = [module.name for module in pkgutil.walk_packages(stemmadb.__path__, "stemmadb.")]
    return [stemmadb, *(import_module(name) for name in sorted(names) if _is_public(name.split(".")[1:]))]


def _is_public(parts: list[str]) -> bool:
    return not any(part.startswith("_") for part in parts) and not _LEFT_OUT & set(parts) and "entities" not in parts[:-1]


def exported(module: ModuleType) -> list[str]:
    """Return what a module exports: its ``__all__``, or the names that it defines."""
    if hasattr(module, "__all__"):
        return sorted(module.__all__)
    return sorted(
        name for name, value in vars(module).items() if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    )


def public_names() -> list[str]:
    """Return the lines, sorted."""
    lines = {line for module in public_modules() for name in exported(module) for line in _lines(module, name)}
    return sorted(lines)


def _lines(module: ModuleType, name: str) -> Iterator[str]:
    place, value = f"{module.__name__}.{name}", getattr(module, name)
    if (source := getattr(value, "__stemma_twin__", None)) is not None:
        yield f"{place} = twin of {source.__module__}.{source.__name__}"
    elif (home := _home(module, name, value)) is not None:
        yield f"{place} = {home}"
    elif isinstance(value, type) and value.__module__.startswith("stemmadb"):
        yield from _class(place, value)
    elif inspect.isroutine(value) or hasattr(value, "__wrapped__"):
        yield f"{place}{_signature(value)}"
    elif isinstance(value, ModuleType):
        yield f"{place} = {value.__name__}"
    else:
        yield f"{place} = {_constant(value)}"


def _home(module: ModuleType, name: str, value: Any) -> str | None:
    """Return where a name that is exported again is described; None for one that is described here."""
    home = getattr(value, "__module__", None)
    if not isinstance(home, str) or home == module.__name__ or not home.startswith("stemmadb"):
        return None
    if not _is_public(home.split(".")[1:]):
        # Its home is private, or inside of a folder: the first public module that has it describes it.
        homes = [
            other.__name__
            for other in public_modules()
            if other is not stemmadb and getattr(other, name, None) is value and name in exported(other)
        ]
        home = min(homes, key=lambda other: (other.count("."), other), default=module.__name__)
        return None if home == module.__name__ else f"{home}.{name}"
    return f"{home}.{name}"


# ----------------------------------------------------------------------------------------------------------------- classes


def _class(place: str, kind: type[Any]) -> Iterator[str]:
    bases = ", ".join(base.__name__ for base in kind.__bases__ if base is not object)
    yield f"{place}: class({bases})"
    if issubclass(kind, enum.Enum):
        yield from (f"{place}.{member.name} = {member.value!r}" for member in kind)
    yield from (f"{place}.{name}: {_type(annotation)}" for name, annotation in _fields(kind))
    for name, value in _attributes(kind).items():
        if name.startswith("_") and name != "__init__":
            continue
        function = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        if isinstance(function, property | functools.cached_property):
            getter = function.fget if isinstance(function, property) else function.func
            yield f"{place}.{name}: {_type(getter.__annotations__.get('return'))} (property)"
        elif inspect.isfunction(function) and _is_ours(function) and not (name == "__init__" and _is_made(kind)):
            yield f"{place}{'' if name == '__init__' else f'.{name}'}{_signature(function)}"


def _attributes(kind: type[Any]) -> dict[str, Any]:
    """Return what a class has of its own, and of those of its bases that only it is made of: private ones beside it."""
    parts = [base for base in kind.__bases__ if base.__module__.startswith("stemmadb._") and _is_part(base, kind)]
    return {name: value for part in (*parts, kind) for name, value in vars(part).items() if name != "__init__" or part is kind}


def _is_part(base: type[Any], kind: type[Any]) -> bool:
    return base.__subclasses__() == [kind]


def _fields(kind: type[Any]) -> list[tuple[str, Any]]:
    return [
        (name, hint)
        for name, hint in inspect.get_annotations(kind).items()
        if not name.startswith("_") and not _type(hint).startswith("ClassVar")
    ]


def _is_made(kind: type[Any]) -> bool:
    """Return whether its fields say what its constructor takes."""
    return dataclasses.is_dataclass(kind) or hasattr(kind, "model_fields")


def _is_ours(function: Any) -> bool:
    return str(inspect.unwrap(function).__module__).startswith("stemmadb")


# ------------------------------------------------------------------------------------------------------------------- texts


def _signature(function: Any) -> str:
    """Return parameters and result, written alike by every version of Python."""
    signature = inspect.signature(function)
    parts: list[str] = []
    kinds = [parameter.kind for parameter in signature.parameters.values()]
    for number, parameter in enumerate(signature.parameters.values()):
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.VAR_POSITIONAL not in kinds and parameter.kind not in kinds[:number]:
            parts.append("*")
        stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        hint = "" if parameter.annotation is parameter.empty else f": {_type(parameter.annotation)}"
        default = "" if parameter.default is parameter.empty else f" = {_constant(parameter.default)}"
        parts.append(f"{stars}{parameter.name}{hint}{default}")
        last_positional = parameter.kind is parameter.POSITIONAL_ONLY and kinds[number + 1 : number + 2] != [parameter.POSITIONAL_ONLY]
        parts += ["/"] if last_positional else []
    result = "" if signature.return_annotation is signature.empty else f" -> {_type(signature.return_annotation)}"
    return f"({', '.join(parts)}){result}"


def _constant(value: Any) -> str:
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}.{value.name}"
    if isinstance(value, tuple | list):
        inner = ", ".join(_constant(item) for item in value)
        return f"({inner}{',' if len(value) == 1 else ''})" if isinstance(value, tuple) else f"[{inner}]"
    if value is None or isinstance(value, str | bytes | bool | int | float):
        return "<version>" if value == stemmadb.__version__ else repr(value)
    if typing.get_origin(value) is not None or isinstance(value, type | types.UnionType | typing.TypeVar):
        return _type(value)
    text = repr(value)
    return text if " at 0x" not in text and len(text) < 80 and type(value).__module__ == "datetime" else f"<{type(value).__name__}>"


def _type(hint: Any) -> str:
    """Return a type as it would be written, without the modules of its names."""
    if hint is None or hint is type(None):
        return "None"
    if isinstance(hint, str):
        return hint
    if hint is ...:
        return "..."
    if isinstance(hint, list):
        return f"[{', '.join(_type(item) for item in hint)}]"
    if isinstance(hint, typing.ForwardRef):
        return hint.__forward_arg__
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " | ".join(_type(argument) for argument in arguments)
    if origin is typing.Literal:
        return f"Literal[{', '.join(repr(argument) for argument in arguments)}]"
    if origin is typing.Annotated:
        return _type(arguments[0])
    name = getattr(origin or hint, "__name__", None) or getattr(hint, "_name", None) or repr(hint).removeprefix("typing.")
    return f"{name}[{', '.join(_type(argument) for argument in arguments)}]" if arguments else name


def main() -> None:
    """Write the file."""
    FILE.write_text("".join(f"{line}\n" for line in public_names()))


if __name__ == "__main__":
    main()
