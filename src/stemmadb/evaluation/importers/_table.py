"""Tables, JSONL and CSV: each row is a dialogue, and a mapping says which column is what."""

import csv
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from stemmadb.errors import ValidationError
from stemmadb.evaluation.data import ScoreCreate, TranscriptCreate
from stemmadb.evaluation.documents import DefinitionContent, Turn
from stemmadb.evaluation.importers._json_stream import MAX_VALUE, json_lines
from stemmadb.evaluation.importers._nodes import Node, Place, column_text, column_word
from stemmadb.evaluation.importers._records import Log, Sample, Source, cost, definition_name, dialogue, fitting, scenario, score, turn
from stemmadb.evaluation.vocabularies import AnnotatorKind

FIELDS: Final = (
    *("prompt", "response", "messages", "system", "id", "target", "model", "model_version", "sample_index", "stop_reason", "error"),
    *("input_tokens", "output_tokens", "duration_ms", "cost", "cost_currency", "definition", "run", "annotator", "annotator_kind"),
)
"""What a column can be, besides ``score:NAME``, ``label:NAME`` and ``dimension:NAME``."""
_NAMED: Final = ("score", "label", "dimension")
_OF_THE_FILE: Final = ("definition", "run")


def source(path: Path, mapping: Mapping[str, str]) -> Source:
    """
    Return a table as a source; ``.csv`` and ``.tsv`` by their ends, all else is JSONL.

    Raises:
        ValidationError: the mapping names what is none, or leaves out what is needed.
    """
    _check(mapping)
    return Source(path, (path,), "table", lambda sha256: iter([_log(path, mapping, sha256)]))


def _check(mapping: Mapping[str, str]) -> None:
    for field, column in mapping.items():
        kind, _, name = field.partition(":")
        if field not in FIELDS and not (kind in _NAMED and name.strip()):
            known = ", ".join((*FIELDS, *(f"{each}:NAME" for each in _NAMED)))
            raise ValidationError(f"a mapping has no field {field!r}: use one of {known}", "mapping")
        if not column or column == "=":
            raise ValidationError(f"name the column of {field}, or give =TEXT for the same in every row", "mapping")
    if "model" not in mapping or not ("messages" in mapping or {"prompt", "response"} <= mapping.keys()):
        raise ValidationError("a mapping needs model, and either prompt and response or messages", "mapping")
    if any(field in mapping and not mapping[field].startswith("=") for field in _OF_THE_FILE):
        raise ValidationError("definition and run are those of the whole file: give them as =TEXT", "mapping")
    if mapping.get("annotator_kind", "=RULE").removeprefix("=") not in AnnotatorKind.__members__:
        raise ValidationError("annotator_kind is =HUMAN, =MODEL or =RULE", "mapping")


def _log(path: Path, mapping: Mapping[str, str], sha256: str) -> Log:
    run = mapping.get("run", "").removeprefix("=")
    content: dict[str, Any] = {"preamble": "", "template": "{prompt}", "source": {"format": "table"}}
    return Log(
        place=Place(str(path)),
        key=f"table/{run or sha256}",
        definition_name=definition_name(mapping.get("definition", "").removeprefix("=") or path.stem),
        content=DefinitionContent(**content),
        run_name=column_word(run or path.name),
        samples=lambda: _samples(path, mapping),
        source={"format": "table", "sha256": sha256, "tool": path.suffix.removeprefix(".") or "jsonl", "mapping": dict(mapping)},
    )


def _samples(path: Path, mapping: Mapping[str, str]) -> Iterator[Sample]:
    # How often a question was put to a model so far, where no column says it: a digest of 16 bytes for each.
    seen: dict[bytes, int] = {}
    for row in _csv_rows(path) if path.suffix in (".csv", ".tsv") else _json_rows(path):
        yield _sample(_Row(row, mapping), seen)


def _json_rows(path: Path) -> Iterator[Node]:
    with path.open("rb") as file:
        yield from json_lines(file, str(path))


def _csv_rows(path: Path) -> Iterator[Node]:
    csv.field_size_limit(max(csv.field_size_limit(), MAX_VALUE))
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ",", strict=True)
        place = Place(str(path), "line 1")
        try:
            names = next(reader, None)
            if not names or len(set(names)) < len(names):
                raise place.error("expected the names of the columns, each once")
            for cells in reader:
                place = Place(str(path), f"line {reader.line_num}")
                if not cells:
                    continue
                if len(cells) != len(names):
                    raise place.error(f"expected {len(names)} cells, found {len(cells)}")
                yield Node({name: cell or None for name, cell in zip(names, cells, strict=True)}, place)
        except csv.Error as error:
            raise Place(str(path), f"line {reader.line_num}").error(f"this is not CSV: {error}") from None
        except UnicodeDecodeError as error:
            raise Place(str(path), f"after line {reader.line_num}").error(f"this is not UTF-8: {error.reason}") from None


class _Row:
    """A row, seen through a mapping."""

    def __init__(self, row: Node, mapping: Mapping[str, str]) -> None:
        self.place = row.place
        self.mapping = mapping
        self._row = row
        if row.value is None:
            raise row.place.error("expected an object, found null")

    def get(self, field: str) -> Node:
        """Return the value of a field, null when the mapping or the row has none."""
        column = self.mapping.get(field)
        if column is None:
            return Node(None, self.place)
        if column.startswith("="):
            return Node(column[1:], self.place)
        if not column.startswith("/"):
            return self._row.get(column)
        return self._row.at(*(part.replace("~1", "/").replace("~0", "~") for part in column[1:].split("/")))

    def number(self, field: str) -> Node:
        """Return a field that is a number, also one written as text."""
        node = self.get(field)
        if not isinstance(node.value, str):
            return node
        try:
            return Node(int(node.value), node.place)
        except ValueError:
            pass
        try:
            return Node(float(node.value), node.place)
        except ValueError:
            raise node.place.error("expected a number") from None

    def named(self, kind: str) -> Iterator[tuple[str, str]]:
        """Yield the fields ``kind:NAME`` with their names."""
        for field in self.mapping:
            if field.startswith(f"{kind}:"):
                yield field, field.partition(":")[2]


def _sample(row: _Row, seen: dict[bytes, int]) -> Sample:
    turns = _turns(row)
    prompt = row.get("prompt").text("") if "prompt" in row.mapping else "\n\n".join(each.content for each in turns if each.role == "user")
    model = row.get("model").word()
    sample_id = None if row.get("id").value is None else row.get("id").word()
    dimensions = {name: row.get(field).value for field, name in row.named("dimension")}
    content = {"preamble": row.get("system").text_or_none(), "sample_id": sample_id, "target": row.get("target").value}
    with fitting(row.place):
        values = {name: value for name, value in dimensions.items() if isinstance(value, str) or type(value) is int}
        digest = hashlib.sha256(repr((prompt, content, values, model)).encode("utf-8", "surrogatepass")).digest()[:16]
        index = row.number("sample_index").count()
        if index is None:
            index = seen.get(digest, 0)
            seen[digest] = index + 1
        name = sample_id or hashlib.sha256(repr((prompt, content, values)).encode("utf-8", "surrogatepass")).hexdigest()[:16]
        price = cost(row.number("cost"))
        error = row.get("error").text_or_none()
        return Sample(
            place=row.place,
            scenario=scenario(name, prompt, dimension_values=values or None, **content),
            transcript=TranscriptCreate(
                model=column_word(model),
                model_version=column_text(row.get("model_version").text_or_none()),
                sample_index=index,
                content=dialogue(turns, source={"id": sample_id} if sample_id else None),
                input_tokens=row.number("input_tokens").count(),
                output_tokens=row.number("output_tokens").count(),
                duration_ms=row.number("duration_ms").count(),
                cost=price,
                cost_currency=None if price is None else row.get("cost_currency").text("USD"),
                stop_reason=column_text(row.get("stop_reason").text_or_none()),
                error_message=column_text(error),
            ),
            scores=list(_scores(row)),
        )


def _turns(row: _Row) -> list[Turn]:
    if "messages" in row.mapping:
        return [turn(message) for message in row.get("messages")]
    said: tuple[tuple[Any, str | None], ...] = (
        ("system", row.get("system").text_or_none()),
        ("user", row.get("prompt").text("")),
        ("assistant", row.get("response").text_or_none()),
    )
    return [Turn(role=role, content=content) for role, content in said if content is not None]


def _scores(row: _Row) -> Iterator[ScoreCreate]:
    """Yield the scores that the row has; ``score:NAME`` and ``label:NAME`` of one name are one."""
    annotator = row.get("annotator").text("table")
    kind = AnnotatorKind(row.get("annotator_kind").text("RULE"))
    for name in dict.fromkeys(name for each in ("score", "label") for _, name in row.named(each)):
        label = row.get(f"label:{name}").text_or_none()
        found = row.get(f"score:{name}")
        if found.value is None and label is None:
            continue
        # A truth value, or a word in a column of numbers, is judged as anywhere else.
        made = score(name, label if found.value is None else found.value, annotator, kind=kind)
        yield made if label is None else made.model_copy(update={"label": column_text(label)})
