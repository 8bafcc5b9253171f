"""Trees and tables as text and as HTML: whatever rows say is shown, and is neither markup nor a control."""

import re
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session
from tests.evaluation.version_trees import plant
from tests.shown_tables import Tags

from stemmadb._display import first_line, guided, json_text, printable
from stemmadb._tables import table_html, tree_html
from stemmadb.evaluation import definitions


@dataclass
class Leaf:
    """A node of a tree."""

    name: str
    children: list["Leaf"] = field(default_factory=list)


@pytest.mark.offline
def test_guides() -> None:
    """Each node under its parent, as trees are drawn."""
    top = Leaf("a", [Leaf("b", [Leaf("c"), Leaf("d")]), Leaf("e", [Leaf("f")])])
    assert [guide + node.name for guide, node in guided(top)] == ["a", "├── b", "│   ├── c", "│   └── d", "└── e", "    └── f"]


@pytest.mark.offline
def test_deep_and_wide_trees_stay_readable() -> None:
    """Lines do not grow with the depth; a notebook shows 500 rows, and says how many there are more."""
    top = leaf = Leaf("0")
    for level in range(1, 20_000):
        leaf.children.append(Leaf(str(level)))
        leaf = leaf.children[0]
    lines = [guide + node.name for guide, node in guided(top)]
    assert len(lines) == 20_000
    assert lines[40] == " " * 156 + "└── 40"
    assert lines[41] == "+1 " + lines[40][:-2] + "41"
    assert max(map(len, lines)) < 180
    found = tree_html(top, ("name",), lambda node: (node.name,))
    assert found.count("<tr>") == 502
    assert "… and 19,500 more" in found


@pytest.mark.property
@pytest.mark.offline
@given(st.text(), st.text())
@settings(deadline=None)
def test_cells_are_text(first: str, second: str) -> None:
    """Whatever stands in a cell, the tags are those of the table, and the text comes back."""
    found = Tags(table_html(("a", "b"), [(first, second)]))
    assert found.tags == ["table", "thead", "tr", "th", "th", "tbody", "tr", "th", "td"]
    assert "".join(found.said) == "ab" + printable(first) + printable(second)


@pytest.mark.property
@pytest.mark.offline
@given(st.text(st.characters()))
@settings(deadline=None)
def test_text_can_be_printed(text: str) -> None:
    """In every encoding of Unicode, without control characters; letters and emoji stay what they are."""
    shown = printable(text)
    shown.encode()
    assert not re.search("[\x00-\x1f\x7f-\x9f\u202a-\u202e]", shown)
    assert printable("é 漢 👩\u200d🚀 a\x1b") == "é 漢 👩\u200d🚀 a\\u001b"


@pytest.mark.offline
def test_short_forms() -> None:
    """One line of a text, and of a JSON value, with an ellipsis where there is more."""
    assert (first_line("a\nb"), first_line(" a "), first_line("")) == ("a …", "a", "")
    assert json_text({"a": ["\u202e\ud800"]}) == '{"a": ["\\u202e\\ud800"]}'
    assert len(json_text("x" * 1000)) == 401


def test_a_tree_yields_its_nodes(session: Session) -> None:
    """Each before its children, at any depth."""
    forest = plant(session, [(place, 0) for place in range(-1, 2000)])
    top = definitions.tree(session, next(iter(forest.parents)))
    assert [node.definition.id for node in top] == list(forest.parents)
    assert [node.depth for node in top] == list(range(2001))
    assert "and 1,501 more" in top._repr_html_()
