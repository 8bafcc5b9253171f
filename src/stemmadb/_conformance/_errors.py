"""Errors of a pack's own: they pickle, so that they get out of worker processes."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Iterable, Iterator
from types import FunctionType, ModuleType

from stemmadb.errors import StemmaError
from stemmadb.reports import Finding


def check(modules: Iterable[ModuleType]) -> Iterator[Finding]:
    """Yield the errors of these modules that do not come back from a pickle as they were."""
    for module in modules:
        for name, kind in sorted(vars(module).items()):
            if not (isinstance(kind, type) and issubclass(kind, StemmaError) and kind.__module__ == module.__name__):
                continue
            place = f"{module.__name__}.{name}"
            if not name.endswith("Error"):
                yield Finding("unconventional_name", "error", place, "errors are called ...Error: their code is made of it")
            if (reason := _lost(kind)) is not None:
                yield Finding("error_lost_in_pickle", "error", place, f"{reason}: let args be what its constructor takes")


def _lost(kind: type[StemmaError]) -> str | None:
    """Return what becomes of an error of this class on the way through a pickle; None when it comes back."""
    required = ["text"]
    if isinstance(kind.__init__, FunctionType):
        required = [parameter.name for parameter in inspect.signature(kind).parameters.values() if _must_be_given(parameter)]
    try:
        error = kind(*required)
        back = pickle.loads(pickle.dumps(error))  # noqa: S301  (of our own making)
    except Exception as failure:  # whatever a constructor raises
        return f"it does not come back ({type(failure).__name__}: {failure})"
    if (type(back), back.args, vars(back), str(back)) != (kind, error.args, vars(error), str(error)):
        return "it comes back changed"
    return None


def _must_be_given(parameter: inspect.Parameter) -> bool:
    return parameter.default is parameter.empty and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
