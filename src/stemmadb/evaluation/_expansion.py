"""
A definition's content expanded to its scenarios: every combination of one choice from each dimension.

Pure: nothing here knows a database.
"""

import itertools
import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from stemmadb.errors import ValidationError
from stemmadb.evaluation.data import ScenarioCreate
from stemmadb.evaluation.documents import DefinitionContent, Dimension, ScenarioContent


class _Choice(NamedTuple):
    """One value of a dimension."""

    value: str | int
    """What the scenario keeps: a plain value, or the score of a level."""
    text: str
    """What stands in the prompt: a plain value, or the label of a level."""
    title: str
    """What stands in the scenario's name."""


def expand(content: DefinitionContent, name: str) -> Iterator[ScenarioCreate]:
    """
    Yield the scenarios of a definition, the last dimension varying fastest.

    ``{dimension}`` in the template becomes the choice; other braces stay as they are. A definition without dimensions has one scenario, its
    template, called *name*.

    Raises:
        ValidationError: a dimension has neither values nor levels, or two have one name. Raised before the first scenario.
    """
    names = [dimension.name for dimension in content.dimensions]
    if repeated := [each for each, count in Counter(names).items() if count > 1]:
        message = f"Two dimensions are called {repeated[0]!r}: their values could not be told apart"
        raise ValidationError(message, "dimensions")
    axes = [_choices(dimension, place) for place, dimension in enumerate(content.dimensions)]
    return _combinations(content, name, names, axes)


def _combinations(content: DefinitionContent, name: str, names: list[str], axes: list[list[_Choice]]) -> Iterator[ScenarioCreate]:
    # One pass over the template, so that a value which looks like a placeholder is not expanded in its turn.
    placeholder = re.compile("|".join(re.escape(f"{{{each}}}") for each in names) or r"(?!)")
    for combination in itertools.product(*axes):
        chosen = dict(zip(names, combination, strict=True))
        yield ScenarioCreate(
            name=", ".join(f"{each}={choice.title}" for each, choice in chosen.items()) or name,
            content=ScenarioContent(
                prompt=placeholder.sub(lambda found, chosen=chosen: chosen[found[0][1:-1]].text, content.template),  # type: ignore[misc]
                preamble=content.preamble or None,
                dimension_values={each: choice.value for each, choice in chosen.items()},
            ),
        )


def _choices(dimension: Dimension, place: int) -> list[_Choice]:
    plain = [_Choice(value, value, value) for value in dimension.values]
    scored = [_Choice(level.score, level.label, f"{level.score} {level.label}".rstrip()) for level in dimension.levels]
    if not plain and not scored:
        message = f"Dimension {dimension.name!r} has neither values nor levels: give it some, or take it out"
        raise ValidationError(message, "dimensions", (f"/dimensions/{place}: neither values nor levels",))
    return plain + scored
