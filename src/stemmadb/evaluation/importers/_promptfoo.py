"""Results of promptfoo: JSON exports, of which one holds a whole evaluation, and JSONL exports, with a result on each line."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from stemmadb.evaluation.data import ScoreCreate, TranscriptCreate
from stemmadb.evaluation.documents import DefinitionContent, Turn
from stemmadb.evaluation.importers._json_stream import JsonStream, json_lines
from stemmadb.evaluation.importers._nodes import Node, Place, column_text, column_word, masked, storable
from stemmadb.evaluation.importers._records import (
    Log,
    Sample,
    Source,
    cost,
    definition_name,
    dialogue,
    fitting,
    prompt_turns,
    rationale,
    scenario,
    score,
)

_ERROR: Final = 2
"""The failureReason of a result that is none: the provider failed. 1 is an assertion that does not hold."""
_ANNOTATOR: Final = "promptfoo"


def source(path: Path) -> Source:
    """Return an export as a source."""
    read = _lines if path.suffix == ".jsonl" else _whole
    return Source(path, (path,), "promptfoo", lambda sha256: iter([read(path, sha256)]))


def _whole(path: Path, sha256: str) -> Log:
    place = Place(str(path))
    header: dict[str, Any] = {"results": {}}
    with path.open("rb") as file:
        for node in JsonStream(file, place, inside=("", "/results"), skip=("/results/results", "/results/table")):
            *above, key = node.place.pointer.split("/")[1:] or [""]
            (header["results"] if above else header)[key] = node.value
    if not isinstance(header["results"], dict) or "version" not in header["results"]:
        raise place.error("this is no export of promptfoo: it has no results with a version")

    def results() -> Iterator[Node]:
        with path.open("rb") as file:
            for node in JsonStream(file, place, inside=("", "/results", "/results/results"), skip=("/*", "/results/*")):
                if node.place.pointer.startswith("/results/results/"):
                    yield node

    about = Node(header, place)
    metadata = about.get("metadata")
    created = metadata.get("evaluationCreatedAt").value or about.at("results", "timestamp").value
    description = about.at("config", "description").text_or_none()
    templates = list(dict.fromkeys(prompt.get("raw").text("") for prompt in about.at("results", "prompts")))
    key = about.get("evalId").text_or_none() or f"{created}/{description}"
    started = Node(created, metadata.place).time()
    return Log(
        place=place,
        key=f"promptfoo/{key}",
        definition_name=definition_name(description or "promptfoo"),
        content=_definition(templates),
        run_name=column_word(key),
        samples=lambda: map(_sample, results()),
        source={
            "format": "promptfoo",
            "sha256": sha256,
            "tool": f"promptfoo {metadata.get('promptfooVersion').text('')}".strip(),
            "original": {**header, "results": {name: value for name, value in header["results"].items() if name != "results"}},
        },
        started_at=started,
    )


def _lines(path: Path, sha256: str) -> Log:
    def results() -> Iterator[Node]:
        with path.open("rb") as file:
            yield from json_lines(file, str(path))

    first = next(results(), None)
    # A file that grew begins as it did.
    key = sha256 if first is None else first.get("id").text_or_none() or sha256
    return Log(
        place=Place(str(path)),
        key=f"promptfoo/{key}",
        definition_name=definition_name(path.stem),
        content=_definition([]),
        run_name=column_word(path.name),
        samples=lambda: map(_sample, results()),
        source={"format": "promptfoo", "sha256": sha256, "tool": "promptfoo"},
    )


def _definition(templates: list[str]) -> DefinitionContent:
    template = templates[0] if len(templates) == 1 else "{prompt}"
    of = {"format": "promptfoo", "prompts": templates}
    return DefinitionContent(preamble="", template=template, **{"source": storable(of)})  # noqa: PIE804  (a key that the document keeps)


def _sample(node: Node) -> Sample:
    prompt = node.at("prompt", "raw").text()
    variables = node.get("vars").object()
    test, prompt_id = node.get("testIdx").count(), node.get("promptId").text("")
    # A prompt is told by what it says: its number is another for each provider.
    digest = hashlib.sha256(json.dumps([prompt_id or prompt, variables], sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()
    with fitting(node.place):
        return Sample(
            place=node.place,
            scenario=scenario(
                f"{'' if test is None else test}/{digest[:12]}",
                prompt,
                sample_id=None if test is None else f"{test}/{prompt_id}",
                dimension_values={name: value for name, value in variables.items() if isinstance(value, str) or type(value) is int},
                vars=variables or None,
            ),
            transcript=_transcript(node, prompt),
            scores=[] if _failed(node) else list(_scores(node)),
        )


def _failed(node: Node) -> bool:
    return node.get("failureReason").value == _ERROR or node.at("response", "error").value is not None


def _transcript(node: Node, prompt: str) -> TranscriptCreate:
    provider = node.get("provider")
    response = node.get("response")
    usage = response.get("tokenUsage")
    # Providers that count no tokens say 0 of everything.
    known = bool(usage.get("total").count())
    price = cost(node.get("cost")) if known else None
    turns = prompt_turns(prompt)
    output = response.get("output").value
    if output is not None:
        said = output if isinstance(output, str) else json.dumps(output, ensure_ascii=False)
        turns.append(Turn(role="assistant", content=said, raw=None if isinstance(output, str) else {"output": storable(output)}))
    kept = ("id", "testIdx", "promptIdx", "promptId", "provider", "testCase", "metadata", "error")
    error = node.get("error").value if node.get("error").value is not None else response.get("error").value
    message = error if isinstance(error, str) else json.dumps(error)
    return TranscriptCreate(
        model=_model(provider),
        content=dialogue(turns, source={key: masked(node.get(key).value) for key in kept if node.get(key).value is not None}),
        input_tokens=usage.get("prompt").count() if known else None,
        output_tokens=usage.get("completion").count() if known else None,
        reasoning_tokens=usage.at("completionDetails", "reasoning").count() if known else None,
        duration_ms=_milliseconds(node.get("latencyMs")),
        cost=price,
        cost_currency=None if price is None else "USD",
        stop_reason=column_text(response.get("finishReason").text_or_none()),
        error_message=column_text(message if error else "the provider failed without a message") if _failed(node) else None,
    )


def _milliseconds(node: Node) -> int | None:
    value = node.number()
    return None if value is None or not 0 <= value < 2**60 else round(value)


def _model(provider: Node) -> str:
    """Return the provider's id, with its label where it has one: two of one id are two configurations of it."""
    if isinstance(provider.value, str):
        return column_word(provider.text())
    name, label = provider.get("id").text(), provider.get("label").text("")
    return column_word(f"{name} ({label})" if label and label != name else name)


def _scores(node: Node) -> Iterator[ScoreCreate]:
    grading = node.get("gradingResult")
    raw = {key: value for key, value in grading.object().items() if key not in ("pass", "score", "reason", "namedScores")}
    yield score("score", node.get("score").number(), _ANNOTATOR, rationale(grading.get("reason").text_or_none(), raw))
    if node.get("success").value is not None:
        yield score("pass", node.get("success").value, _ANNOTATOR)
    for name, each in node.get("namedScores").members():
        yield score(f"named/{name}" if name in ("score", "pass") else name, each.number(), _ANNOTATOR)
