"""
Reading stored documents: what the version check and the upcasting add to pydantic's own validation. No database.

The floor is a plain model of the newest shape, whose documents somebody validates with ``model_validate_json`` or ``model_validate``; for
documents of version 0, with the missing keys filled in by hand before.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pydantic_core

from benchmarks.datasets import Dataset
from benchmarks.harness import OURS, Call, Case, Contender
from benchmarks.read import Content
from stemmadb.documents import load_document
from stemmadb.evaluation.documents import DefinitionContent, Dimension

JOB = "documents"

_CURRENT: dict[str, Any] = DefinitionContent(
    preamble="You are the only one near the lever. " + "Nobody can be asked. " * 12,
    template="A trolley nears {victims}, who cannot hear it. On the other track stands {bystander}.",
    dimensions=(Dimension(name="victims", values=("one", "two", "five")), Dimension(name="bystander", values=("a friend", "a stranger"))),
).dump()
_OLD: dict[str, Any] = {"preamble": _CURRENT["preamble"], "template": _CURRENT["template"]}
_DOCUMENTS = 100


def cases(dataset: Dataset) -> list[Case]:
    """Documents of the newest version and of version 0, as JSON text and as decoded objects, a hundred at a time."""
    current, old = pydantic_core.to_json(_CURRENT), pydantic_core.to_json(_OLD)
    return [
        _case(dataset, "current, JSON text", "model_validate_json", current, Content.model_validate_json),
        _case(dataset, "current, decoded", "model_validate", _CURRENT, Content.model_validate),
        _case(dataset, "version 0, JSON text", "upcast by hand", old, lambda raw: _upcast_by_hand(pydantic_core.from_json(raw))),
        _case(dataset, "version 0, decoded", "upcast by hand", _OLD, _upcast_by_hand),
    ]


def _case(dataset: Dataset, title: str, floor: str, raw: Any, load: Callable[[Any], Content]) -> Case:
    contenders = [
        Contender(floor, lambda: _loading(load, raw)),
        Contender(OURS, lambda: _loading(lambda value: load_document(value, DefinitionContent), raw)),
    ]
    return Case(JOB, f"{_DOCUMENTS} documents, {title}", dataset.rows, contenders, outcome=_outcome)


def _upcast_by_hand(raw: dict[str, Any]) -> Content:
    if raw.get("schema_version") is None:
        raw = {"preamble": "", "template": "", "dimensions": [], **raw, "schema_version": 1}
    return Content.model_validate(raw)


@contextlib.contextmanager
def _loading(load: Callable[[Any], Any], raw: Any) -> Iterator[Call]:
    yield lambda number: [load(raw) for _ in range(_DOCUMENTS)]


def _outcome(loaded: list[Any]) -> tuple[int, str, list[str], int]:
    return len(loaded), loaded[0].template, [dimension.name for dimension in loaded[0].dimensions], loaded[0].schema_version
