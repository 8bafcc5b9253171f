"""The commands of the pack ``evaluation``: the demonstration, and a tree drawn."""

import time
from typing import Annotated

import typer
from rich.console import Console
from rich.tree import Tree

from stemmadb._console import AsJson, Url, WorkspaceOption, open_database, output
from stemmadb.evaluation import definitions
from stemmadb.evaluation.data import DefinitionTreeNode

Definition = Annotated[str, typer.Argument(help="id of a definition")]


def register(app: typer.Typer) -> None:
    """Add the commands ``demo`` and ``tree``."""
    app.command("demo")(demo)
    app.command("tree")(tree)


def demo(url: Url = None) -> None:
    """Show the library at work on sample data, on an embedded PostgreSQL unless DATABASE_URL is set."""
    from stemmadb.evaluation import _demo

    console = Console(highlight=False, soft_wrap=True)
    started = time.monotonic()
    with console.status("starting PostgreSQL"), open_database(url) as db:
        _demo.run(db, console)
    console.print(f"[dim]{time.monotonic() - started:.1f} s[/dim]")


def tree(definition: Definition, workspace: WorkspaceOption = None, url: Url = None, as_json: AsJson = False) -> None:
    """Draw a definition and everything forked from it."""
    with open_database(url, workspace) as db, db.session(read_only=True) as session:
        top = definitions.tree(session, definition)
    output(_nested(top), as_json, lambda: Console(soft_wrap=True).print(drawn(top)))


def drawn(top: DefinitionTreeNode) -> Tree:
    """Return the tree as rich draws it; built without recursion, so that no depth is too much."""
    picture = Tree(_label(top))
    waiting = [(top, picture)]
    while waiting:
        node, branch = waiting.pop()
        waiting += [(child, branch.add(_label(child))) for child in node.children]
    return picture


def _label(node: DefinitionTreeNode) -> str:
    row = node.definition
    frozen = "" if row.frozen_at is None else " [dim]frozen[/dim]"
    return f"{row.name}[dim]: {row.message or 'no message'}[/dim]{frozen}"


def _nested(top: DefinitionTreeNode) -> dict[str, object]:
    made: dict[str, object] = {}
    waiting = [(top, made)]
    while waiting:
        node, place = waiting.pop()
        children: list[dict[str, object]] = [{} for _ in node.children]
        place.update(id=str(node.definition.id), name=node.definition.name, depth=node.definition.depth, children=children)
        waiting += list(zip(node.children, children, strict=True))
    return made
