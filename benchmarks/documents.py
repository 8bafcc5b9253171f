"""
Reading documents of 2 and 20 kB, of the newest version and of the one before: decoded already, as JSON text, and from the database.

The floor validates the newest documents with pydantic alone, by the same class; those of the version before after a step by hand. What the
version check, the search for escaped characters and the step add to that is the time of the library. The peers are pyrmute, and what people
write: ``json.loads`` or ``orjson.loads`` and ``model_validate`` of a plain model, which keeps no unknown keys and can be changed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pydantic
from psycopg.types.json import set_json_loads

from benchmarks.datasets import Dataset
from benchmarks.harness import OURS, PYRMUTE, Call, Case, Contender
from stemmadb.documents import dump_json
from stemmadb.evaluation.documents import DefinitionContent, Dimension, DimensionLevel

JOB = "documents"

HAS_PYRMUTE = importlib.util.find_spec("pyrmute") is not None
HAS_ORJSON = importlib.util.find_spec("orjson") is not None

DOCUMENTS = 50
"""Documents in one call."""
SIZES = {"2 kB": 4, "20 kB": 56}
"""How many dimensions with three levels make a document of such a size."""


class Level(pydantic.BaseModel):
    """A plain model."""

    score: int
    label: str
    description: str | None = None


class Axis(pydantic.BaseModel):
    """A plain model."""

    name: str
    values: list[str] = []
    levels: list[Level] = []


class Before(pydantic.BaseModel):
    """Version 1 as a plain model."""

    schema_version: int
    preamble: str
    template: str
    dimensions: list[Axis] = []
    matching_rules: str | None = None


class Newest(pydantic.BaseModel):
    """Version 2 as a plain model."""

    schema_version: int
    preamble: str
    template: str
    dimensions: list[Axis] = []
    matching_rules: list[str] = []


@dataclass(frozen=True)
class Stored:
    """A document, as it is stored at one version."""

    text: str
    raw: dict[str, Any]


Load = Callable[[Any], Any]


def cases(dataset: Dataset) -> list[Case]:
    """Each size and version: decoded, as text, and fetched."""
    found = []
    for size, dimensions in SIZES.items():
        document = _document(dimensions)
        for title, version in (("current", 2), ("one version old", 1)):
            text = dump_json(document, version)
            # As PostgreSQL writes it.
            stored = Stored(json.dumps(json.loads(text)), json.loads(text))
            found += _cases(dataset, f"{title}, {size}", stored, old=version == 1)
    return found


def _document(dimensions: int) -> DefinitionContent:
    levels = tuple(
        DimensionLevel(score=score, label=f"level {score}", description=f"What it means to stand at {score} of three, in one sentence.")
        for score in (1, 2, 3)
    )
    return DefinitionContent(
        preamble="You are the only one near the lever. " + "Nobody can be asked. " * 12,
        template="A trolley nears {victims}, who cannot hear it. On the other track stands {bystander}.",
        dimensions=tuple(Dimension(name=f"dimension {number}", levels=levels) for number in range(dimensions)),
        matching_rules=("Nobody stands on both tracks.",),
    )


def _cases(dataset: Dataset, title: str, stored: Stored, *, old: bool) -> Iterator[Case]:
    same = DefinitionContent
    step = _step_by_hand if old else _as_it_is
    decoded: dict[str, Load] = {
        "by hand, the same class" if old else "model_validate, the same class": lambda raw: same.model_validate(step(raw)),
        OURS: same.load,
        "model_validate, a plain model": lambda raw: Newest.model_validate(step(raw)),
    }
    texts: dict[str, Load] = {
        ("by hand, the same class" if old else "model_validate_json, the same class"): (
            (lambda text: same.model_validate(step(json.loads(text)))) if old else same.model_validate_json
        ),
        OURS: same.load,
        "json.loads, a plain model": lambda text: Newest.model_validate(step(json.loads(text))),
    }
    if HAS_ORJSON:
        import orjson

        texts["orjson.loads, a plain model"] = lambda text: Newest.model_validate(step(orjson.loads(text)))
    if HAS_PYRMUTE:
        migrated = _pyrmute()
        decoded[PYRMUTE] = migrated
        texts[PYRMUTE] = lambda text: migrated(json.loads(text))
    yield _case(dataset, f"{title}, decoded", decoded, stored.raw)
    yield _case(dataset, f"{title}, JSON text", texts, stored.text)
    yield _fetched(dataset, f"{title}, fetched", stored, old=old)


def _case(dataset: Dataset, title: str, loads: dict[str, Load], raw: Any) -> Case:
    def contender(name: str, load: Load) -> Contender:
        return Contender(name, lambda: contextlib.nullcontext(lambda number: [load(raw) for _ in range(DOCUMENTS)]))

    return Case(JOB, title, dataset.rows, [contender(name, load) for name, load in loads.items()], outcome=_outcome)


def _as_it_is(raw: dict[str, Any]) -> dict[str, Any]:
    return raw


def _step_by_hand(raw: dict[str, Any]) -> dict[str, Any]:
    if raw.get("schema_version") == 1:
        rules = raw.get("matching_rules")
        return {**raw, "schema_version": 2, "matching_rules": [rules] if rules else []}
    return raw


def _pyrmute() -> Load:
    """Return what pyrmute makes of an object; it is told the version, which it does not look for."""
    import pyrmute

    manager = pyrmute.ModelManager()
    manager.model("Content", "1.0.0")(Before)
    manager.model("Content", "2.0.0")(Newest)

    @manager.migration("Content", "1.0.0", "2.0.0")
    def _rules_become_a_list(raw: dict[str, Any]) -> dict[str, Any]:
        return _step_by_hand(raw)

    return lambda raw: manager.migrate(raw, "Content", f"{raw['schema_version']}.0.0", "2.0.0")


# ------------------------------------------------------------------------------------------------------------------ fetched


def _fetched(dataset: Dataset, title: str, stored: Stored, *, old: bool) -> Case:
    """Rows of one table over one connection: what differs is in which form the driver hands over the documents, and who validates them."""
    table = "documents_" + re.sub("[^a-z0-9]+", "_", title)
    dataset.floor.execute(
        f"CREATE TEMP TABLE IF NOT EXISTS {table} AS "
        f"SELECT n AS id, CAST(%s AS jsonb) AS content FROM generate_series(1, {DOCUMENTS}) AS n",
        [stored.text],
    )
    step = _step_by_hand if old else _as_it_is
    as_text, as_object = f"SELECT content::text FROM {table} ORDER BY id", f"SELECT content FROM {table} ORDER BY id"
    by_hand: Load = (
        (lambda text: DefinitionContent.model_validate(step(json.loads(text)))) if old else DefinitionContent.model_validate_json
    )
    contenders = [
        Contender("text, by hand, the same class", lambda: _selecting(dataset, as_text, by_hand)),
        Contender(OURS, lambda: _selecting(dataset, as_text, DefinitionContent.load)),
        Contender("the driver's dict, a plain model", lambda: _selecting(dataset, as_object, lambda raw: Newest.model_validate(step(raw)))),
    ]
    if HAS_ORJSON:
        import orjson

        contenders.append(
            Contender(
                "orjson's dict, a plain model",
                lambda: _selecting(dataset, as_object, lambda raw: Newest.model_validate(step(raw)), orjson.loads),
            )
        )
    if HAS_PYRMUTE:
        migrated = _pyrmute()
        contenders.append(Contender(PYRMUTE, lambda: _selecting(dataset, as_object, migrated)))
    return Case(JOB, title, dataset.rows, contenders, outcome=_outcome)


@contextlib.contextmanager
def _selecting(dataset: Dataset, statement: str, load: Load, loads: Callable[[bytes], Any] | None = None) -> Iterator[Call]:
    cursor = dataset.floor.cursor()
    if loads is not None:
        set_json_loads(loads, cursor)
    yield lambda number: [load(content) for (content,) in cursor.execute(statement.encode())]


def _outcome(loaded: list[Any]) -> tuple[Any, ...]:
    first = loaded[-1]
    names = [(axis.name, len(axis.levels), axis.levels[-1].label) for axis in first.dimensions]
    return len(loaded), first.template, names, list(first.matching_rules), first.schema_version
