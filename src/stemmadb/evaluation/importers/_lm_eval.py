"""
Results of lm-evaluation-harness with their samples: ``results_<time>.json``, and beside it ``samples_<task>_<time>.jsonl`` for each task.

Of every task there is a run. A document that several filters judged stands in the samples once for each: it is one transcript with all
scores.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from stemmadb.evaluation.data import ScoreCreate, TranscriptCreate
from stemmadb.evaluation.documents import DefinitionContent, Turn
from stemmadb.evaluation.importers._json_stream import JsonStream, json_lines
from stemmadb.evaluation.importers._nodes import Node, Place, column_word, storable
from stemmadb.evaluation.importers._records import (
    Log,
    Sample,
    Source,
    definition_name,
    dialogue,
    fitting,
    prompt_turns,
    rationale,
    scenario,
    score,
)

_TIME: Final = re.compile(r"_(\d{4}-\d\d-\d\dT[^_]+)\.jsonl?$")
# What a sample says besides the values of its metrics; older releases do not name these.
_NO_METRICS: Final = frozenset(
    ("doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics", "doc_hash", "prompt_hash", "target_hash")
)
_ANNOTATOR: Final = "lm_eval"


def sources(paths: Sequence[Path]) -> list[Source]:
    """
    Return the sources of files of results, of samples, or folders of them; each evaluation once.

    Raises:
        MalformedFileError: samples have no results beside them, or a folder has none.
    """
    found: dict[Path, Source] = {}
    for path in paths:
        results = sorted(path.rglob("results*.json")) if path.is_dir() else [_results_of(path)]
        if not results:
            raise Place(str(path)).error("there are no files results*.json in this folder")
        for each in results:
            found.setdefault(each, _source(each))
    return list(found.values())


def _results_of(path: Path) -> Path:
    """Return the file of results that a file of samples belongs to; any other file is one itself."""
    match = _TIME.search(path.name)
    if path.suffix != ".jsonl":
        return path
    results = path.with_name(f"results_{match[1]}.json") if match else path.with_name("results.json")
    if not results.exists():
        raise Place(str(path)).error(f"these samples do not say of which model they are: {results.name} is not beside them")
    return results


def _source(results: Path) -> Source:
    match = _TIME.search(results.name)
    pattern = f"samples_*_{match[1]}.jsonl" if match else "samples_*.jsonl"
    samples = sorted(results.parent.glob(pattern))
    return Source(results, (results, *samples), "lm-eval", lambda sha256: _logs(results, samples, sha256))


def _logs(path: Path, files: Sequence[Path], sha256: str) -> Iterator[Log]:
    place = Place(str(path))
    with path.open("rb") as file:
        stream = JsonStream(file, place, inside=("",), skip=("/samples",))
        about = {node.place.pointer[1:]: node.value for node in stream if node.place.pointer}
    header = Node(about, place)
    if "results" not in about or "configs" not in about:
        raise place.error("these are no results of lm-evaluation-harness: they have no results and configs")
    for task, config in header.get("configs").members():
        name = re.compile(rf"samples_{re.escape(task)}(?:_\d{{4}}-\d\d-\d\dT.*)?\.jsonl")
        named = [each for each in files if name.fullmatch(each.name)]
        yield _log(header, task, config, _samples_of(path, task, named), sha256)


def _samples_of(path: Path, task: str, files: Sequence[Path]) -> Callable[[], Iterator[Node]]:
    def samples() -> Iterator[Node]:
        if not files:
            # Programs that call the harness write samples and results into one file.
            prefix = Place("").under("samples").under(task).pointer + "/"
            with path.open("rb") as file:
                for node in JsonStream(file, Place(str(path)), inside=("", "/samples", "/samples/*"), skip=("/*",)):
                    if node.place.pointer.startswith(prefix):
                        yield node
        for each in files:
            with each.open("rb") as file:
                yield from json_lines(file, str(each))

    return samples


def _log(header: Node, task: str, config: Node, samples: Callable[[], Iterator[Node]], sha256: str) -> Log:
    model = _model(header)
    output_type = config.get("output_type").text("")
    hashed = header.at("task_hashes", task).text("")
    seed = header.at("config", "random_seed").value
    started = header.get("date").time()
    effective = header.at("n-samples", task, "effective").count()
    kept = {key: value for key, value in header.object().items() if key not in ("samples", "configs", "results", "pretty_env_info")}
    return Log(
        place=header.place,
        key=f"lm-eval/{header.get('date').value or sha256}/{model}/{task}/{hashed}",
        definition_name=definition_name(task),
        content=_definition(task, config),
        run_name=column_word(f"{task} {model}"),
        samples=lambda: (_sample(node, model, output_type) for node in samples()),
        source={
            "format": "lm-eval",
            "sha256": sha256,
            "tool": f"lm_eval {header.get('lm_eval_version').text('')}".strip(),
            "task": task,
            "results": header.at("results", task).value,
            "original": {**kept, "config_of_task": config.value},
        },
        models=(model,),
        seed=seed if type(seed) is int else None,
        started_at=started,
        total=effective,
        completed=effective,
    )


def _definition(task: str, config: Node) -> DefinitionContent:
    template = config.get("doc_to_text").value
    of = {"format": "lm-eval", "task": task, "version": config.at("metadata", "version").value, "dataset": config.get("dataset_path").value}
    text = template if isinstance(template, str) else "{doc}"
    return DefinitionContent(preamble="", template=text, **{"source": storable(of)})  # noqa: PIE804  (a key that the document keeps)


def _model(header: Node) -> str:
    """Return kind and name: ``hf:EleutherAI/pythia-160m``."""
    kind = header.get("model_source").value or header.at("config", "model").value or "model"
    name = header.get("model_name").value
    arguments = header.at("config", "model_args").value
    if not name and isinstance(arguments, str):
        match = re.search(r"(?:^|,)(?:pretrained|model)=([^,]+)", arguments)
        name = match and match[1]
    return column_word(f"{kind}:{name}" if isinstance(name, str) and name else str(kind))


# --------------------------------------------------------------------------------------------------------------- the samples


def _sample(node: Node, model: str, output_type: str) -> Sample:
    asked = list(_arguments(node.get("arguments")))
    if not asked:
        raise node.get("arguments").place.error("expected at least one argument")
    first = asked[0][0]
    prompt = first if isinstance(first, str) else json.dumps(first, ensure_ascii=False)
    document = node.get("doc_id").count()
    if document is None:
        raise node.get("doc_id").place.error("expected a whole number, at least 0")
    with fitting(node.place):
        return Sample(
            place=node.place,
            scenario=scenario(str(document), prompt, sample_id=document, target=node.get("target").value),
            transcript=_transcript(node, model, output_type, prompt, asked),
            scores=list(_scores(node)),
        )


def _arguments(arguments: Node) -> Iterator[tuple[Any, Any]]:
    """Yield what the model was given, of each call: the context, and the continuation or the options."""
    calls = (each for _, each in arguments.members()) if isinstance(arguments.value, dict) else iter(arguments)
    for call in calls:
        parts = [each.value for _, each in call.members()] if isinstance(call.value, dict) else [each.value for each in call]
        if not parts:
            raise call.place.error("expected what the model was given")
        yield parts[0], parts[1] if len(parts) > 1 else None


def _transcript(node: Node, model: str, output_type: str, prompt: str, asked: list[tuple[Any, Any]]) -> TranscriptCreate:
    answers = [next(iter(each), Node(None, each.place)).value for each in node.get("resps")]
    turns = prompt_turns(prompt)
    raw = {"arguments": node.get("arguments").value, "resps": node.get("resps").value}
    said = _said(output_type, asked, answers)
    if said is not None:
        turns.append(Turn(role="assistant", content=said, raw=storable(raw)))
    about = {key: node.get(key).value for key in ("doc_id", "doc", "doc_hash", "prompt_hash", "target_hash")}
    source = {key: value for key, value in about.items() if value is not None}
    content = dialogue(turns, source=source, responses=raw["resps"] if said is None else None)
    return TranscriptCreate(model=model, content=content)


def _said(output_type: str, asked: list[tuple[Any, Any]], answers: list[Any]) -> str | None:
    """
    Return what the model generated; of likelihoods, the continuation that it held most likely.

    None where there is neither, as for the likelihood of a whole text.
    """
    if output_type == "loglikelihood_rolling" or not answers:
        return None
    if isinstance(answers[0], str):
        return answers[0]
    likelihoods = [_likelihood(answer) for answer in answers[: len(asked)]]
    best = max(range(len(likelihoods)), key=lambda index: likelihoods[index])
    continuation = asked[best][1]
    return continuation if isinstance(continuation, str) else None


def _likelihood(answer: Any) -> float:
    try:
        return float(answer[0] if isinstance(answer, list) else answer)
    except (TypeError, ValueError, IndexError):
        return float("-inf")


def _scores(node: Node) -> Iterator[ScoreCreate]:
    said = node.object()
    names = [each.text() for each in node.get("metrics")] or [name for name in said if name not in _NO_METRICS]
    by = node.get("filter").text("none")
    for name in names:
        if name in said:
            why: Mapping[str, Any] = {"filter": by, "filtered_resps": said.get("filtered_resps")}
            value = said[name]
            nested = isinstance(value, dict | list)
            yield score(
                name if by == "none" else f"{name},{by}",
                None if nested else value,
                _ANNOTATOR,
                rationale(None, {**why, "value": value} if nested else why),
            )
