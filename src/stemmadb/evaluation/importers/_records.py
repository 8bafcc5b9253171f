"""What every kind of file is turned into before it is stored: logs, each of which becomes a run, and their samples."""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Literal

from stemmadb.errors import MalformedFileError, ValidationError
from stemmadb.evaluation.data import ScenarioCreate, ScoreCreate, TranscriptCreate
from stemmadb.evaluation.documents import DefinitionContent, ScenarioContent, ScoreRationale, TranscriptContent, Turn
from stemmadb.evaluation.importers._nodes import Node, Place, column_text, column_word, storable
from stemmadb.evaluation.vocabularies import AnnotatorKind, RunStatus

_NAME_LENGTH = 200
_ROLES = {"system": "system", "developer": "system", "user": "user", "human": "user", "assistant": "assistant", "model": "assistant"}


@dataclass(frozen=True, slots=True)
class Sample:
    """One dialogue of a log, with its scores."""

    place: Place
    scenario: ScenarioCreate
    transcript: TranscriptCreate
    """Its scenario_id is left out: the scenario may have to be made."""
    scores: list[ScoreCreate] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Log:
    """One evaluation in a file: what becomes one run."""

    place: Place
    key: str
    """Tells it from every other log of its definition; the same in every state and form of its file."""
    definition_name: str
    content: DefinitionContent
    run_name: str
    samples: Callable[[], Iterator[Sample]]
    """Reads the samples from the beginning. It is called more than once."""
    source: Mapping[str, Any]
    """What the run keeps of the log besides its samples: ids, versions, options, results."""
    models: tuple[str, ...] = ()
    """Of the log itself; those of the samples are added."""
    temperature: float | None = None
    seed: int | None = None
    status: RunStatus = RunStatus.COMPLETED
    """COMPLETED becomes PARTIAL or FAILED by the errors of the samples; RUNNING: the log was not finished when it was written."""
    error: str | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    total: int | None = None
    """How many samples it was to have; None: those that it has."""
    completed: int | None = None
    """How many the log says were completed; counts for a log without samples."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file, or the files that make one evaluation together."""

    path: Path
    """What is named in reports."""
    parts: tuple[Path, ...]
    """All of its files, the first of which is ``path``."""
    format: Literal["inspect", "lm-eval", "promptfoo", "table"]
    logs: Callable[[str], Iterator[Log]]
    """Reads the logs, given the SHA-256 of the parts in hexadecimal."""


def definition_name(name: str) -> str:
    """Return a name as definitions have them: of at most 200 characters."""
    return column_word(name)[:_NAME_LENGTH]


def scenario(name: str, prompt: str, **more: Any) -> ScenarioCreate:
    """Return a scenario; what is None is left out, so that equal scenarios of two logs are one."""
    known = {key: storable(value) for key, value in more.items() if value is not None}
    return ScenarioCreate(name=column_word(name), content=ScenarioContent(prompt=prompt, **known))


def dialogue(turns: list[Turn], **more: Any) -> TranscriptContent:
    """Return a dialogue with what its source says beyond it."""
    return TranscriptContent(turns=tuple(turns), **{key: storable(value) for key, value in more.items() if value is not None})


def turn(message: Node) -> Turn:
    """
    Return a message as a turn. What it holds beyond role and text is kept in ``raw``; an unknown role, too.

    Raises:
        MalformedFileError: the message is no object with a role.
    """
    role = message.get("role").text()
    content = message.get("content")
    known = _ROLES.get(role, "tool")
    left_out = {"content"} if isinstance(content.value, str) else set()
    if role == known:
        left_out.add("role")
    raw = {key: value for key, value in message.object().items() if key not in left_out and value is not None}
    return Turn.model_validate({"role": known, "content": text_of(content), "raw": storable(raw) if raw else None})


def text_of(content: Node) -> str:
    """Return the text of a message: the content, or the texts among its parts, joined by line breaks."""
    if content.value is None or isinstance(content.value, str):
        return content.text("")
    texts = []
    for part in content:
        if isinstance(part.value, str):
            texts.append(part.value)
        elif part.get("type").value in ("text", "input_text", "output_text"):
            texts.append(part.get("text").text(""))
    return "\n".join(texts)


def prompt_turns(prompt: str) -> list[Turn]:
    """Return what a model was told: a prompt that is the JSON of messages is those, any other is what the user said."""
    if prompt.lstrip().startswith("["):
        try:
            messages = json.loads(prompt, strict=False)
        except (ValueError, RecursionError):
            messages = None
        if (
            messages
            and isinstance(messages, list)
            and all(isinstance(each, dict) and isinstance(each.get("role"), str) for each in messages)
        ):
            with contextlib.suppress(MalformedFileError):
                return [turn(Node(each, Place(""))) for each in messages]
    return [Turn(role="user", content=prompt)]


@contextlib.contextmanager
def fitting(place: Place) -> Iterator[None]:
    """Name the place of a value that no column or document can hold."""
    try:
        yield
    except MalformedFileError:
        raise
    except ValidationError as error:
        raise place.error(str(error)) from None


def rationale(text: str | None, raw: Mapping[str, Any]) -> ScoreRationale | None:
    """Return why a score is what it is; None when nothing is said."""
    kept = {key: storable(value) for key, value in raw.items() if value is not None}
    return ScoreRationale(text=text, raw=kept) if text is not None or kept else None


def score(
    name: str, value: Any, annotator: str, why: ScoreRationale | None = None, *, kind: AnnotatorKind = AnnotatorKind.RULE
) -> ScoreCreate:
    """
    Return a judgement. A number is its value, a text its label and a truth value both; null is judged, but without a number: NaN.

    Numbers written as text, and what stands for right and wrong, have a value besides their label.
    """
    number, label = _judged(value)
    return ScoreCreate(
        name=column_word(name), annotator_kind=kind, annotator=column_word(annotator), value=number, label=column_text(label), rationale=why
    )


_VALUES = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0, "yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}


def _judged(value: Any) -> tuple[float | None, str | None]:
    if value is None:
        return float("nan"), None
    if isinstance(value, bool):
        return float(value), "true" if value else "false"
    if isinstance(value, int | float):
        try:
            return float(value), None
        except OverflowError:
            return float("inf") if value > 0 else float("-inf"), None
    text = str(value)
    known = _VALUES.get(text, _VALUES.get(text.lower()) if len(text) > 1 else None)
    if known is not None:
        return known, text
    try:
        return float(text), text
    except ValueError:
        return None, text


def cost(node: Node) -> Decimal | None:
    """Return an amount, rounded to the eight places of the column; None for null, NaN and what no column holds."""
    value = node.number()
    if value is None:
        return None
    try:
        rounded = Decimal(repr(value)).quantize(Decimal("1e-8"))
    except InvalidOperation:
        return None
    return rounded if 0 <= rounded < Decimal("1e11") else None
