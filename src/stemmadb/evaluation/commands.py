"""The commands of the pack ``evaluation``: the demonstration, trees, differences, who changed what, importers, and runs."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.console import Console
from rich.text import Text
from sqlalchemy.orm import Session

from stemmadb._console import AsJson, Url, WorkspaceOption, open_database, output
from stemmadb._display import first_line, guided, json_text, printable
from stemmadb.entity import Id, parse_id
from stemmadb.errors import NotFoundError
from stemmadb.evaluation import _import_commands, _run_commands, definitions
from stemmadb.evaluation._labels import labels_of_tree
from stemmadb.evaluation._patches import leaves, values_of
from stemmadb.evaluation.data import BlameEntry, DefinitionTreeNode
from stemmadb.evaluation.definitions import Change
from stemmadb.evaluation.entities import Definition

Version = Annotated[str, typer.Argument(help="id of a definition, or a label")]
MaxDepth = Annotated[int | None, typer.Option("--max-depth", min=0, help="Levels below it. Default: all.", show_default=False)]

_SIGNS = {"add": ("+", "green"), "remove": ("-", "red"), "replace": ("~", "yellow")}


def register(app: typer.Typer) -> None:
    """Add the commands ``demo``, ``tree``, ``diff`` and ``blame``, and the groups ``import`` and ``runs``."""
    app.command("demo")(demo)
    app.command("tree")(tree)
    app.command("diff")(diff)
    app.command("blame")(blame)
    app.add_typer(_import_commands.group, name="import")
    app.add_typer(_run_commands.group, name="runs")


def demo(url: Url = None) -> None:
    """Show the library at work on sample data, on an embedded PostgreSQL unless DATABASE_URL is set."""
    from stemmadb.evaluation import _demo

    console = Console(highlight=False, soft_wrap=True)
    started = time.monotonic()
    with console.status("starting PostgreSQL"), open_database(url) as db:
        _demo.run(db, console)
    console.print(f"[dim]{time.monotonic() - started:.1f} s[/dim]")


def tree(
    definition: Version, workspace: WorkspaceOption = None, max_depth: MaxDepth = None, url: Url = None, as_json: AsJson = False
) -> None:
    """Draw a definition and everything forked from it."""
    with open_database(url, workspace) as db, db.session(read_only=True) as session:
        top = definitions.tree(session, _id_of(session, definition), max_depth=max_depth)
        labels = labels_of_tree(session, top.definition.root_id)
    output([_row(node, labels) for node in top] if as_json else None, as_json, lambda: _say(drawn(top, labels)))


def diff(a: Version, b: Version, workspace: WorkspaceOption = None, url: Url = None, as_json: AsJson = False) -> None:
    """Show what leads from the content of one version to that of another."""
    with open_database(url, workspace) as db, db.session(read_only=True) as session:
        found = definitions.diff(session, _id_of(session, a), _id_of(session, b))
    output([_step(change) for change in found.changes], as_json, lambda: _say(_differences(found.changes)))


def blame(definition: Version, workspace: WorkspaceOption = None, url: Url = None, as_json: AsJson = False) -> None:
    """Show for each value of a version's content which version last changed it, who and when."""
    with open_database(url, workspace) as db, db.session(read_only=True) as session:
        key = _id_of(session, definition)
        entries = definitions.blame(session, key)
        values = leaves(values_of(definitions.get_with_content(session, key).content))
        versions = {version.id: version for version in definitions.ancestors(session, key, include_self=True)}
    rows = [
        {
            "pointer": entry.pointer,
            "value": values.get(entry.pointer),
            "definition_id": entry.definition_id,
            "created_by_id": entry.created_by_id,
            "created_at": entry.created_at.isoformat(),
        }
        for entry in entries
    ]
    output(rows, as_json, lambda: _say(_blamed(entries, values, versions)))


def drawn(top: DefinitionTreeNode, labels: Mapping[UUID, Sequence[str]]) -> Iterator[Text]:
    """Yield the lines of a tree as rich prints them."""
    for guide, node in guided(top):
        row = node.definition
        line = Text(guide)
        line.append(printable(row.name))
        line.append(f": {printable(first_line(row.message or 'no message'))}", "dim")
        if row.frozen_at is not None:
            line.append(" frozen", "dim")
        for label in labels.get(row.id, ()):
            line.append(f" [{label}]", "bold")
        yield line


def _id_of(session: Session, version: str) -> Id:
    """Return the id that was given, or that of the version that a label points at."""
    try:
        return parse_id(version, "Definition")
    except NotFoundError:
        return definitions.get_by_label(session, version).id


def _row(node: DefinitionTreeNode, labels: Mapping[UUID, Sequence[str]]) -> dict[str, object]:
    row = node.definition
    return {
        "id": row.id,
        "parent_id": row.parent_id,
        "depth": row.depth,
        "name": row.name,
        "message": row.message,
        "created_at": row.created_at.isoformat(),
        "created_by_id": row.created_by_id,
        "frozen_at": None if row.frozen_at is None else row.frozen_at.isoformat(),
        "labels": list(labels.get(row.id, ())),
    }


def _step(change: Change) -> dict[str, object]:
    step: dict[str, object] = {"op": change.op, "pointer": change.pointer}
    if change.op != "add":
        step["old"] = change.old
    if change.op != "remove":
        step["new"] = change.new
    return step


def _differences(changes: Sequence[Change]) -> Iterator[Text]:
    if not changes:
        yield Text("no difference")
    for change in changes:
        sign, style = _SIGNS[change.op]
        place = f"{sign} {printable(change.pointer)}"
        if change.op == "replace":
            yield Text(place, style)
            yield Text(f"    - {json_text(change.old)}", "red")
            yield Text(f"    + {json_text(change.new)}", "green")
        else:
            yield Text(f"{place}  {json_text(change.old if change.op == 'remove' else change.new)}", style)


def _blamed(entries: Sequence[BlameEntry], values: Mapping[str, Any], versions: Mapping[UUID, Definition]) -> Iterator[Text]:
    for entry in entries:
        version = versions.get(entry.definition_id)
        said = "" if version is None else printable(first_line(version.message or version.name))
        author = "" if entry.created_by_id is None else f" by {entry.created_by_id}"
        line = Text(f"{entry.definition_id} {entry.created_at:%Y-%m-%d %H:%M}{author} ", "dim")
        line.append(said)
        line.append(f"  {printable(entry.pointer)} = {json_text(values.get(entry.pointer))}")
        yield line


_IN_ASCII = str.maketrans({"├": "|", "─": "-", "└": "`", "│": "|", "…": "..."})


def _say(lines: Iterator[Text]) -> None:
    console = Console(soft_wrap=True, highlight=False)
    for line in lines:
        console.print(line if console.encoding.startswith("utf") else _written_in(console.encoding, line.plain))


def _written_in(encoding: str, line: str) -> Text:
    """Return a line as an encoding can write it that has not all letters."""
    return Text(line.translate(_IN_ASCII).encode(encoding, "backslashreplace").decode(encoding))
