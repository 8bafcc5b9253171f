"""Names that a public module exports from the private modules behind it."""

from collections.abc import Mapping
from typing import Any


def adopt(namespace: Mapping[str, Any]) -> None:
    """
    Let what a module exports from private modules of its package say that it is this module's.

    A private module is nobody's import path: messages, pickles and documentation then name the public one.

    Args:
        namespace: ``globals()`` of the public module, at its end.
    """
    home: str = namespace["__name__"]
    private = (f"{home.rpartition('.')[0]}._", f"{home}._")
    for name in namespace["__all__"]:
        value = namespace[name]
        if str(getattr(value, "__module__", "")).startswith(private):
            value.__module__ = home
