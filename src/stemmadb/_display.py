"""How trees and tables show themselves: as text in terminals, as HTML in notebooks. What rows say is never markup or a control there."""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final, Protocol, TypeVar

# C0 and C1 controls, what changes the direction of the text around it, line separators, and what no encoding can write.
_UNSHOWN: Final = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

_MOST_LEVELS = 40
_MOST_LETTERS = 400


class Branch(Protocol):
    """A node of a tree."""

    @property
    def children(self) -> Sequence[Any]:
        """The nodes below it."""
        ...


B = TypeVar("B", bound=Branch)


def guided(top: B) -> Iterator[tuple[str, B]]:
    """
    Yield each node before its children, with the lines that lead to it. Nothing recurses.

    Of deep trees the leftmost guides are left out, and their number stands there: else the text would grow with the square of the depth.
    """
    pending: list[tuple[B, str, str, int]] = [(top, "", "", 0)]
    while pending:
        node, guide, below, level = pending.pop()
        hidden = max(0, level - _MOST_LEVELS)
        yield f"+{hidden} {guide}" if hidden else guide, node
        kept = below[-4 * (_MOST_LEVELS - 1) :]
        last = True
        for child in reversed(node.children):
            pending.append((child, kept + ("└── " if last else "├── "), kept + ("    " if last else "│   "), level + 1))
            last = False


def printable(text: str) -> str:
    """Return a text that can be printed anywhere: what would steer a terminal or mislead a reader is written as its code."""
    return _UNSHOWN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def first_line(text: str) -> str:
    """Return the first line of a text; an ellipsis says that there is more."""
    line, *more = text.strip().splitlines() or [""]
    return f"{line} …" if more else line


def json_text(value: Any) -> str:
    """Return a JSON value as one printable line, which ends early when it is long."""
    text = printable(json.dumps(value, ensure_ascii=False))
    return text if len(text) <= _MOST_LETTERS else f"{text[:_MOST_LETTERS]}…"
