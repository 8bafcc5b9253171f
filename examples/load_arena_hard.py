"""
Load Arena-Hard: its questions as scenarios, and the answers of models as the transcripts of one run.

    python examples/load_arena_hard.py FOLDER --workspace lab

The folder holds a file of questions and a file of answers for each model, ``.jsonl`` or ``.jsonl.gz``; their names contain ``question`` and
``model_answer``. Without ``--database-url`` the database is that of DATABASE_URL, else the embedded one. A load that was interrupted goes
on where it stopped, and one that is complete changes nothing.

Answers go the way of a worker: it claims slots and records their outcomes, a batch a transaction.
"""

import argparse
import gzip
import json
import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

import stemmadb
from stemmadb.documents import content_hash
from stemmadb.errors import StemmaError
from stemmadb.evaluation import definitions, runs, scenarios, transcripts
from stemmadb.evaluation.definitions import DefinitionCreate
from stemmadb.evaluation.documents import DefinitionContent, Dimension, RunConfig, ScenarioContent, TranscriptContent, Turn
from stemmadb.evaluation.entities import Definition, Run
from stemmadb.evaluation.runs import RunCreate, RunFilters, RunStatus, SlotClaim, SlotOutcome
from stemmadb.evaluation.scenarios import ScenarioCreate
from stemmadb.evaluation.transcripts import TranscriptCreate

NAME = "Arena-Hard"
WORKER = "load_arena_hard"
BATCH = 100


class MalformedError(Exception):
    """A file or the folder is not what it should be; the text says where."""


# --------------------------------------------------------------------------------------------------------------- the files


@dataclass(frozen=True)
class Question:
    """A prompt, and the cluster of similar ones that it was drawn from."""

    uid: str
    cluster: str
    prompt: str


@dataclass(frozen=True)
class Answer:
    """What a model said to a question."""

    content: TranscriptContent
    output_tokens: int | None
    """None where the file does not say."""


@dataclass(frozen=True)
class Benchmark:
    """The folder, read and checked: every model answers every question."""

    questions: list[Question]
    answers: dict[str, dict[str, Answer]]
    """By model, then by the question's uid."""


def read_folder(folder: Path) -> Benchmark:
    """
    Read and check all files before anything is stored.

    Raises:
        MalformedError: the folder, a file or a line is not what it should be.
    """
    if not folder.is_dir():
        raise MalformedError(f"{folder} is not a folder")
    files = sorted(path for path in folder.rglob("*") if path.name.endswith((".jsonl", ".jsonl.gz")))
    answer_files = [path for path in files if "model_answer" in path.relative_to(folder).as_posix()]
    question_files = [path for path in files if "question" in path.name and path not in answer_files]
    if len(question_files) != 1:
        raise MalformedError(f"{folder} has {len(question_files)} files *question*.jsonl, and one is needed")
    if not answer_files:
        raise MalformedError(f"{folder} has no files *model_answer*.jsonl")
    questions = read_questions(question_files[0])
    answers: dict[str, dict[str, Answer]] = {}
    for path in answer_files:
        model, found = read_answers(path, {question.uid for question in questions})
        if model in answers:
            raise MalformedError(f"{path}: another file has the answers of {model}, too")
        answers[model] = found
    return Benchmark(questions, answers)


def read_questions(path: Path) -> list[Question]:
    """Return the questions of a file, in its order."""
    questions: dict[str, Question] = {}
    for place, line in lines_of(path):
        question = Question(text_of(line, "uid", place), text_of(line, "cluster", place), text_of(line, "prompt", place))
        if question.uid in questions:
            raise MalformedError(f"{place}: the uid {question.uid} stands there twice")
        questions[question.uid] = question
    if not questions:
        raise MalformedError(f"{path} is empty")
    return list(questions.values())


def read_answers(path: Path, wanted: set[str]) -> tuple[str, dict[str, Answer]]:
    """Return the model of a file, and its answers by the uid of the question."""
    model = None
    answers: dict[str, Answer] = {}
    for place, line in lines_of(path):
        uid, of = text_of(line, "uid", place), text_of(line, "model", place)
        if uid not in wanted:
            raise MalformedError(f"{place}: there is no question {uid}")
        if uid in answers:
            raise MalformedError(f"{place}: the question {uid} is answered twice")
        if model not in (None, of):
            raise MalformedError(f"{place}: the model is {of}, and above it is {model}")
        model = of
        answers[uid] = Answer(dialogue_of(line, place), tokens_of(line, place))
    if model is None or len(answers) < len(wanted):
        raise MalformedError(f"{path} answers {len(answers)} of {len(wanted)} questions")
    return model, answers


def lines_of(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the objects of a file, each with its place."""
    number = 0
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            for number, text in enumerate(file, 1):
                if text.strip():
                    line = json.loads(text)
                    if not isinstance(line, dict):
                        raise MalformedError(f"{path}, line {number}: this is not a JSON object")
                    yield f"{path}, line {number}", line
    except json.JSONDecodeError as error:
        raise MalformedError(f"{path}, line {number}: this is not JSON: {error.msg}") from None
    except (OSError, EOFError, UnicodeDecodeError, RecursionError, zlib.error) as error:
        raise MalformedError(f"{path} cannot be read behind line {number}: {error}") from None


def text_of(line: dict[str, Any], key: str, place: str) -> str:
    """Return a text that must be there."""
    value = line.get(key)
    if not isinstance(value, str) or not value.strip():
        raise MalformedError(f"{place}: {key} must be a text")
    return value


def dialogue_of(line: dict[str, Any], place: str) -> TranscriptContent:
    """Return the messages as turns. What a model said is ``{"answer": ...}`` in newer files, and a text in others."""
    messages = line.get("messages")
    if not isinstance(messages, list) or not messages:
        raise MalformedError(f"{place}: messages must be a list of them")
    turns = []
    for message in messages:
        content = message.get("content") if isinstance(message, dict) else None
        said = content.get("answer") if isinstance(content, dict) else content
        if not isinstance(said, str) or message.get("role") not in ("system", "user", "assistant"):
            raise MalformedError(f"{place}: a message has a role and a content")
        at = time_of(line, place) if message["role"] == "assistant" else None
        turns.append(Turn(role=message["role"], content=said, at=at))
    return TranscriptContent(turns=tuple(turns))


def time_of(line: dict[str, Any], place: str) -> datetime | None:
    """Return when the model answered; None where the file does not say."""
    value = line.get("tstamp")
    if value is None:
        return None
    try:
        return datetime.fromtimestamp(value, UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        raise MalformedError(f"{place}: tstamp must be seconds since 1970") from None


def tokens_of(line: dict[str, Any], place: str) -> int | None:
    """Return how many tokens the answer has; None where the file does not say."""
    metadata = line.get("metadata") or {}
    count = metadata.get("token_len") if isinstance(metadata, dict) else metadata
    if count is not None and (type(count) is not int or count < 0):
        raise MalformedError(f"{place}: metadata.token_len must be a whole number")
    return count


# ------------------------------------------------------------------------------------------------------------ the database


def load(db: stemmadb.Database, benchmark: Benchmark) -> None:
    """Store what is missing, and print what is there."""
    started = time.monotonic()
    total = len(benchmark.questions) * len(benchmark.answers)
    with db.session() as session:
        definition = find_or_create_definition(session, benchmark)
        uids = find_or_create_scenarios(session, definition, benchmark)
        run = find_or_create_run(session, definition, list(uids), list(benchmark.answers))
        # Leases of an earlier load that was interrupted.
        runs.release_slots(session, worker=WORKER)
        done = before = runs.progress(session, run.id).completed
    while done < total:
        with db.session() as session:
            claims = runs.claim_slots(session, run.id, worker=WORKER, count=BATCH)
        if not claims:
            break
        with db.session() as session:
            runs.record_outcomes(session, [outcome_of(claim, uids, benchmark) for claim in claims])
            done = runs.progress(session, run.id).completed
        print(f"transcripts {done}/{total}", flush=True)
    with db.session() as session:
        runs.finish(session, run.id)
        report(session, run.id, stored=done - before, total=total)
    print(f"{time.monotonic() - started:.1f} s")


def find_or_create_definition(session: Session, benchmark: Benchmark) -> Definition:
    """Return the definition of these questions; an earlier load's is known by its content."""
    clusters = sorted({question.cluster for question in benchmark.questions})
    content = DefinitionContent(preamble="", template="{prompt}", dimensions=(Dimension(name="cluster", values=tuple(clusters)),))
    for definition in definitions.find_by_content(session, content):
        if definition.name == NAME:
            return definition
    message = f"{len(benchmark.questions)} prompts in {len(clusters)} clusters"
    return definitions.create(session, DefinitionCreate(name=NAME, content=content, message=message))


def find_or_create_scenarios(session: Session, definition: Definition, benchmark: Benchmark) -> dict[UUID, str]:
    """Return the uid of the question of each scenario. Those that are there already stay what they are."""
    items = [
        ScenarioCreate(
            name=question.uid,
            content=ScenarioContent(prompt=question.prompt, dimension_values={"cluster": question.cluster}),
        )
        for question in benchmark.questions
    ]
    made = scenarios.create_many(session, definition.id, items)
    if len(made) < len(items):
        raise MalformedError(f"{len(items) - len(made)} questions are the same as others")
    return {scenario.id: question.uid for scenario, question in zip(made, benchmark.questions, strict=True)}


def find_or_create_run(session: Session, definition: Definition, scenario_ids: list[UUID], models: list[str]) -> Run:
    """Return the run of these models on these scenarios, started; an earlier load's is known by its configuration."""
    config = RunConfig(models=tuple(models))
    for run in runs.list_all(session, RunFilters(definition_id=definition.id, config_hash=content_hash(config))):
        selected = {scenario.id for scenario in runs.selected_scenarios(session, run.id)}
        if run.status != RunStatus.CANCELLED and selected == set(scenario_ids):
            return run
    data = RunCreate(definition_id=definition.id, config=config, scenario_ids=list(scenario_ids), name="published answers")
    return runs.start(session, runs.create(session, data).id)


def outcome_of(claim: SlotClaim, uids: dict[UUID, str], benchmark: Benchmark) -> SlotOutcome:
    """Return the published answer as the outcome of a claimed slot."""
    answer = benchmark.answers[claim.key.model][uids[claim.key.scenario_id]]
    transcript = TranscriptCreate(model=claim.key.model, content=answer.content, output_tokens=answer.output_tokens)
    return SlotOutcome(claim=claim, transcript=transcript)


def report(session: Session, run_id: UUID, *, stored: int, total: int) -> None:
    """Print what the run holds. What the files do not say is unknown, not 0."""
    progress = runs.progress(session, run_id)
    if not stored:
        print(f"transcripts {progress.completed}/{total}: all of it was there already, and nothing was changed")
    for model in transcripts.summarize_run(session, run_id).models:
        known = model.count - model.unknown["output_tokens"]
        tokens = f"{model.tokens['output']:,} output tokens" if known else "output tokens unknown"
        gap = f" ({model.unknown['output_tokens']} unknown)" if known and model.unknown["output_tokens"] else ""
        print(f"{model.model}: {model.count} transcripts, {tokens}{gap}")
    if progress.completed < total:
        raise MalformedError(f"the run {run_id} has {progress.completed} of {total} transcripts: others hold its slots, or it was stopped")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where the files are")
    parser.add_argument("--workspace", default="lab", help="slug or id; on the embedded server it is made if it is missing (default: lab)")
    parser.add_argument("--database-url", help="default: DATABASE_URL, else the embedded server")
    options = parser.parse_args(arguments)
    try:
        benchmark = read_folder(options.folder)
        print(f"questions {len(benchmark.questions)}, models {', '.join(benchmark.answers)}")
        with stemmadb.connect(options.database_url, workspace=options.workspace) as db:
            load(db, benchmark)
    except (MalformedError, StemmaError) as error:
        print(f"load_arena_hard: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
