"""
Logs of Inspect AI, versions 2 and 3: ``.eval``, a zip archive with a member for each sample, and ``.json``.

Long texts of a log stand once, as attachments; what a model was told stands once, in a pool. Both are put back where they were referred to.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from stemmadb.evaluation.data import ScoreCreate, TranscriptCreate
from stemmadb.evaluation.documents import DefinitionContent
from stemmadb.evaluation.importers._archives import archive, read_member
from stemmadb.evaluation.importers._json_stream import JsonStream
from stemmadb.evaluation.importers._nodes import Node, Place, column_text, column_word, storable
from stemmadb.evaluation.importers._records import (
    Log,
    Sample,
    Source,
    cost,
    definition_name,
    dialogue,
    fitting,
    rationale,
    scenario,
    score,
    text_of,
    turn,
)
from stemmadb.evaluation.vocabularies import AnnotatorKind, RunStatus

_VERSIONS: Final = (2, 3)
_STATUSES: Final = {
    "started": RunStatus.RUNNING,
    "success": RunStatus.COMPLETED,
    "cancelled": RunStatus.CANCELLED,
    "error": RunStatus.FAILED,
}
_SAMPLE: Final = re.compile(r"samples/.+\.json")
_ATTACHMENT: Final = re.compile(r"(?:attachment|tc)://([0-9a-f]{32})")


def source(path: Path) -> Source:
    """Return an Inspect log as a source."""
    return Source(path, (path,), "inspect", lambda sha256: _logs(path, sha256))


def _logs(path: Path, sha256: str) -> Iterator[Log]:
    with path.open("rb") as file:
        is_archive = file.read(2) == b"PK"
    header, samples = _archived(path) if is_archive else _plain(path)
    yield _log(header, samples, sha256)


# -------------------------------------------------------------------------------------------------------------------- files


def _archived(path: Path) -> tuple[Node, Callable[[], Iterator[Node]]]:
    with archive(path) as opened:
        names = set(opened.namelist())
        # A log whose run was killed has no header, but what was written when the run started.
        name = next((each for each in ("header.json", "_journal/start.json") if each in names), None)
        if name is None:
            raise Place(str(path)).error("this is no Inspect log: it has neither header.json nor _journal/start.json")
        header = read_member(opened, opened.getinfo(name), path)
    if name != "header.json":
        header = Node({**header.object(), "status": "started"}, header.place)

    def samples() -> Iterator[Node]:
        with archive(path) as opened:
            last = {info.filename: info for info in opened.infolist() if _SAMPLE.fullmatch(info.filename)}
            for info in last.values():
                yield read_member(opened, info, path)

    return header, samples


def _plain(path: Path) -> tuple[Node, Callable[[], Iterator[Node]]]:
    place = Place(str(path))
    with path.open("rb") as file:
        stream = JsonStream(file, place, inside=("",), skip=("/samples", "/reductions"))
        header = {node.place.pointer[1:]: node.value for node in stream if node.place.pointer}
    if "eval" not in header:
        raise place.error("this is no Inspect log: it has no eval")

    def samples() -> Iterator[Node]:
        with path.open("rb") as file:
            for node in JsonStream(file, place, inside=("", "/samples"), skip=("/reductions", "/*")):
                if node.place.pointer.startswith("/samples/"):
                    yield node

    return Node(header, place), samples


# ---------------------------------------------------------------------------------------------------------------- the header


def _log(header: Node, samples: Callable[[], Iterator[Node]], sha256: str) -> Log:
    version = header.get("version")
    if version.value not in _VERSIONS:
        raise version.place.error("logs of Inspect are read in versions 2 and 3")
    about = header.get("eval")
    task = about.get("task").word()
    status = header.get("status")
    if status.value not in _STATUSES:
        raise status.place.error(f"expected one of {', '.join(_STATUSES)}")
    run_id = about.get("run_id").text("")
    results = header.get("results")
    model = about.get("model").word()
    config = header.at("plan", "config")
    return Log(
        place=header.place,
        key="/".join(("inspect", about.get("eval_id").text(run_id), run_id, about.get("task_id").text(""), about.get("created").text(""))),
        definition_name=definition_name(task),
        content=_definition(about, task),
        run_name=column_word(f"{task} {about.get('created').text('')}".strip()),
        samples=lambda: (_sample(node, model, _graders(about)) for node in samples()),
        source=_provenance(header, sha256),
        models=(_model(model),),
        temperature=_temperature(config.get("temperature")),
        seed=config.get("seed").value if type(config.get("seed").value) is int else None,
        status=_STATUSES[status.value],
        error=column_text(header.at("error", "message").text_or_none()),
        started_at=header.at("stats", "started_at").time(),
        completed_at=header.at("stats", "completed_at").time(),
        total=results.get("total_samples").count(),
        completed=results.get("completed_samples").count(),
    )


def _definition(about: Node, task: str) -> DefinitionContent:
    """What was asked, without what differs between two evaluations of it."""
    dataset = about.at("dataset", "name").text_or_none()
    version = about.get("task_version").value
    of = {"format": "inspect", "task": task, "task_version": version, "dataset": dataset}
    return DefinitionContent(preamble="", template="{input}", **{"source": storable(of)})  # noqa: PIE804  (a key that the document keeps)


def _provenance(header: Node, sha256: str) -> dict[str, Any]:
    packages = header.at("eval", "packages").object()
    kept = {key: value for key, value in header.object().items() if key not in ("samples", "reductions")}
    # The ids of the samples stand with the scenarios; of a large data set they would be most of the run.
    dataset = {key: value for key, value in header.at("eval", "dataset").object().items() if key != "sample_ids"}
    kept["eval"] = {**header.get("eval").object(), "dataset": dataset}
    return {
        "format": "inspect",
        "sha256": sha256,
        "tool": " ".join(("inspect_ai", str(packages.get("inspect_ai", "")))).strip(),
        "original": kept,
    }


def _graders(about: Node) -> Mapping[str, str]:
    """Return the models that judged, by the name of their scorer: that of its options, else of the role, else the one that was asked."""
    found = {}
    role = about.at("model_roles", "grader", "model").text_or_none() or about.get("model").text()
    for scorer in about.get("scorers"):
        name = scorer.get("name").text("").rpartition("/")[2]
        model = scorer.at("options", "model").value
        if isinstance(model, str) and model.strip():
            found[name] = _model(model)
        elif name.startswith("model_graded"):
            found[name] = _model(role)
    return found


def _model(name: str) -> str:
    """Return ``openai/gpt-4o`` as ``openai:gpt-4o``."""
    return column_word(name.replace("/", ":", 1))


def _temperature(node: Node) -> float | None:
    value = node.number()
    return value if value is not None and 0 <= value <= 2 else None


# --------------------------------------------------------------------------------------------------------------- the samples


def _sample(node: Node, model: str, graders: Mapping[str, str]) -> Sample:
    texts = {**node.at("transcript", "content").object(), **node.get("attachments").object()}
    node = Node({**node.object(), **_resolved(node, texts)}, node.place)
    sample_id = node.get("id").word()
    epoch = node.get("epoch").count()
    asked = node.get("input")
    prompt = asked.text() if isinstance(asked.value, str) else "\n\n".join(text_of(message.get("content")) for message in asked)
    with fitting(node.place):
        return Sample(
            place=node.place,
            scenario=scenario(
                sample_id,
                prompt,
                sample_id=node.get("id").value,
                target=node.get("target").value,
                choices=node.get("choices").value,
                messages=None if isinstance(asked.value, str) else [_without_id(message) for message in asked],
            ),
            transcript=_transcript(node, model, max((epoch or 1) - 1, 0)),
            scores=list(_scores(node.get("scores"), graders)),
        )


def _without_id(message: Node) -> dict[str, Any]:
    """Return a message of a data set without its id, which is another in each evaluation."""
    return {key: value for key, value in message.object().items() if key not in ("id", "source")}


def _resolved(node: Node, texts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts of a sample that are kept, with the attachments in their places."""
    kept = ("input", "messages", "output", "scores", "metadata", "error")
    found = {key: _put_back(node.get(key).value, texts) for key in kept}
    if not found["messages"]:
        found["messages"] = _put_back(_last_dialogue(node), texts)
    return found


def _put_back(value: Any, texts: Mapping[str, Any]) -> Any:
    if isinstance(value, str):
        match = _ATTACHMENT.fullmatch(value)
        return value if match is None else texts.get(match[1], value)
    if isinstance(value, list):
        return [_put_back(item, texts) for item in value]
    if isinstance(value, dict):
        return {key: _put_back(item, texts) for key, item in value.items()}
    return value


def _last_dialogue(node: Node) -> list[Any]:
    """Return what the last call of a model was told and answered, of a sample that has no messages of its own: it was broken off."""
    calls = [event for event in node.get("events") if event.get("event").value == "model"]
    if not calls:
        asked = node.get("input").value
        return asked if isinstance(asked, list) else [{"role": "user", "content": asked}]
    pool = node.get("message_pool").value or node.at("events_data", "messages").value or []
    told = list(calls[-1].get("input"))
    messages = [message.value for message in told]
    for reference in calls[-1].get("input_refs"):
        bounds = [each.count() for each in reference]
        if len(bounds) != 2 or None in bounds or not isinstance(pool, list) or not bounds[0] <= bounds[1] <= len(pool):  # type: ignore[operator]
            raise reference.place.error("expected the bounds of messages in the pool")
        messages += pool[bounds[0] : bounds[1]]
    answers = [choice.get("message").value for choice in calls[-1].at("output", "choices")]
    return messages + answers[:1]


def _transcript(node: Node, model: str, sample_index: int) -> TranscriptCreate:
    output = node.get("output")
    usages = node.get("model_usage").object()
    usage = node.get("model_usage").get(model) if model in usages else output.get("usage")
    choice = next(iter(output.get("choices")), None)
    price = cost(usage.get("total_cost"))
    error = node.get("error")
    said = {
        "id": node.get("id").value,
        "epoch": node.get("epoch").value,
        "uuid": node.get("uuid").value,
        "metadata": node.get("metadata").value or None,
        "limit": node.get("limit").value,
        "error": error.value,
        "model_usage": usages or None,
    }
    message = error.get("message").text("") if error.value is not None else None
    return TranscriptCreate(
        model=_model(model),
        model_version=column_text(output.get("model").text_or_none()),
        sample_index=sample_index,
        content=dialogue([turn(each) for each in node.get("messages")], source={k: v for k, v in said.items() if v is not None}),
        input_tokens=usage.get("input_tokens").count(),
        output_tokens=usage.get("output_tokens").count(),
        reasoning_tokens=usage.get("reasoning_tokens").count(),
        cache_read_tokens=usage.get("input_tokens_cache_read").count(),
        cache_write_tokens=usage.get("input_tokens_cache_write").count(),
        duration_ms=node.get("total_time").milliseconds(),
        cost=price,
        cost_currency=None if price is None else "USD",
        stop_reason=None if choice is None else column_text(choice.get("stop_reason").text_or_none()),
        error_message=None if message is None else column_text(message or "the sample failed without a message"),
    )


def _scores(scores: Node, graders: Mapping[str, str]) -> Iterator[ScoreCreate]:
    for scorer, node in scores.members():
        grader = graders.get(scorer)
        said = node.object()
        left_out = {"value", "explanation"} | {key for key in ("metadata", "history") if not said.get(key)}
        raw = {key: value for key, value in said.items() if key not in left_out}
        explanation = node.get("explanation").text_or_none()
        value = node.get("value").value
        parts = value if isinstance(value, dict) else dict(enumerate(value)) if isinstance(value, list) else {None: value}
        for part, each in parts.items():
            nested = isinstance(each, dict | list)
            # What is no plain value cannot be a number or a word: it is kept beside the judgement.
            why = rationale(explanation, {**raw, "value": each} if nested or _is_odd(each) else raw)
            name = scorer if part is None else f"{scorer}/{part}"
            kind = AnnotatorKind.RULE if grader is None else AnnotatorKind.MODEL
            yield score(name, None if nested else each, grader or scorer, why, kind=kind)


def _is_odd(value: Any) -> bool:
    """Return whether a text could not stand in a column as it is."""
    return isinstance(value, str) and column_text(value) != value
