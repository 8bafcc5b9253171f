"""``stemmadb tree``, ``diff`` and ``blame``: versions by id or label, drawn for people and as JSON for programs."""

import json
from collections.abc import Callable
from subprocess import CompletedProcess
from uuid import UUID

import pytest
from rich.console import Console
from tests.evaluation.version_trees import CONTENT, make, plant
from tests.test_cli import call

from stemmadb.database import Database
from stemmadb.evaluation import definitions
from stemmadb.evaluation.definitions import DefinitionFork

Run = Callable[..., CompletedProcess[str]]


@pytest.fixture
def run(committed_db: Database, committed_workspace: UUID) -> Run:
    """The command line in a workspace of the test's database."""
    url = committed_db.url.render_as_string(hide_password=False)
    return lambda *arguments: call(*arguments, DATABASE_URL=url, STEMMADB_WORKSPACE=str(committed_workspace))


@pytest.fixture
def family(committed_db: Database, committed_workspace: UUID) -> tuple[UUID, UUID]:
    """A root labelled ``production``, and a fork of it, with texts that try to be markup."""
    with committed_db.session(committed_workspace) as session:
        root = make(session, "[red]Trolley\x1b[0m[/]", content=CONTENT.replace(x=1), message="first draft\nand more")
        content = CONTENT.replace(template="[bold]\u202eA bridge", **{"y/z": [None]})
        child = definitions.fork(session, root.id, DefinitionFork(content=content, message="bridge"))
        definitions.set_label(session, "production", root.id)
        definitions.set_label(session, "stable", root.id)
        return root.id, child.id


def test_a_tree_is_drawn(run: Run, family: tuple[UUID, UUID]) -> None:
    """By id or label, with labels; texts of rows are shown as they are, without the terminal obeying them."""
    root, child = family
    drawn = run("tree", str(root))
    assert drawn.returncode == 0, drawn.stderr
    lines = drawn.stdout.splitlines()
    assert lines[0] == "[red]Trolley\\u001b[0m[/]: first draft … frozen [production] [stable]"
    assert lines[1] == "└── [red]Trolley\\u001b[0m[/]: bridge"
    assert run("tree", "production").stdout == drawn.stdout
    assert run("tree", "stable", "--max-depth", "0").stdout.splitlines() == lines[:1]
    rows = json.loads(run("tree", "production", "--json").stdout)
    assert [(row["id"], row["parent_id"], row["depth"]) for row in rows] == [(str(root), None, 0), (str(child), str(root), 1)]
    assert (rows[0]["labels"], rows[0]["message"], rows[1]["frozen_at"]) == (["production", "stable"], "first draft\nand more", None)
    assert run("tree", str(child), "--json").stdout.count('"id"') == 1


def test_a_terminal_without_unicode(run: Run, family: tuple[UUID, UUID], monkeypatch: pytest.MonkeyPatch) -> None:
    """Guides are drawn with what every encoding has, and other letters are written as their codes."""
    monkeypatch.setattr(Console, "encoding", property(lambda _: "ascii"))
    lines = run("tree", "production").stdout.splitlines()
    assert lines[0] == "[red]Trolley\\u001b[0m[/]: first draft ... frozen [production] [stable]"
    assert lines[1].startswith("`-- [red]Trolley")


def test_a_difference_is_shown(run: Run, family: tuple[UUID, UUID]) -> None:
    """What is there no more, what is new, and what is other; nothing between a version and itself."""
    _, child = family
    shown = run("diff", "production", str(child))
    assert shown.stdout.splitlines() == [
        "~ /template",
        '    - "A trolley nears {victims}."',
        '    + "[bold]\\u202eA bridge"',
        "- /x  1",
        "+ /y~1z  [null]",
    ]
    assert json.loads(run("diff", "production", str(child), "--json").stdout)[1:] == [
        {"op": "remove", "pointer": "/x", "old": 1},
        {"op": "add", "pointer": "/y~1z", "new": [None]},
    ]
    assert run("diff", "production", "stable").stdout == "no difference\n"


def test_blame_is_shown(run: Run, family: tuple[UUID, UUID]) -> None:
    """For each value the version, when it was made, and why."""
    root, child = family
    lines = run("blame", str(child)).stdout.splitlines()
    assert any(line.startswith(str(root)) and line.endswith('first draft …  /preamble = "You are at a lever."') for line in lines)
    assert any(line.startswith(str(child)) and line.endswith("bridge  /y~1z/0 = null") for line in lines)
    rows = {row["pointer"]: row for row in json.loads(run("blame", str(child), "--json").stdout)}
    assert (rows["/preamble"]["definition_id"], rows["/preamble"]["value"]) == (str(root), CONTENT.preamble)
    assert (rows["/y~1z/0"]["definition_id"], rows["/y~1z/0"]["created_by_id"]) == (str(child), None)


def test_what_is_not_there(run: Run, family: tuple[UUID, UUID]) -> None:
    """Neither an id nor a label: one line and exit code 1."""
    for arguments in (("tree", "nothing"), ("diff", "production", "nothing"), ("blame", "nothing"), ("blame", str(UUID(int=1)))):
        refused = run(*arguments)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "was not found" in refused.stderr
        assert refused.stderr.count("\n") == 1


def test_a_thousand_levels(run: Run, committed_db: Database, committed_workspace: UUID) -> None:
    """Drawn in lines that stay short, and as JSON that is not nested."""
    with committed_db.session(committed_workspace) as session:
        line = list(plant(session, [(place, 0) for place in range(-1, 999)]).parents)
    drawn = run("tree", str(line[0])).stdout.splitlines()
    assert len(drawn) == 1000
    assert max(map(len, drawn)) < 200
    assert drawn[-1].startswith("+959 ")
    assert [row["id"] for row in json.loads(run("tree", str(line[0]), "--json").stdout)] == [str(id) for id in line]
    assert run("blame", str(line[-1])).stdout.count(str(line[0])) > 0
