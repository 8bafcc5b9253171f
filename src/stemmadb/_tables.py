"""
Tables of HTML, which notebooks show.

What rows say is text there, never markup, a script or a formula. Colours are those of the notebook's theme, light or dark. Nothing is asked
of the database: what was not loaded is left out.
"""

import dataclasses
import html
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from enum import Enum
from typing import Any, Final, TypeVar
from uuid import UUID

from pydantic import BaseModel

from stemmadb._display import Branch, guided, json_text, printable

B = TypeVar("B", bound=Branch)

_MOST_ROWS: Final = 500
_MOST_CHARACTERS: Final = 500_000
"""Of the HTML of all rows: a page stays readable, and a saved notebook small."""
_MOST_LETTERS: Final = 400
_MOST_LETTERS_IN_A_LINE: Final = 40
"""Ids, times and the beginnings of documents stay on one line; a sentence need not."""

# Notebooks typeset what stands between dollars as a formula, unless it is told so; the two names are those of MathJax 2 and 3.
_TABLE: Final = '<table class="tex2jax_ignore mathjax_ignore">'
_CAPTION: Final = '<caption style="text-align:left;caption-side:top">'
_TEXT: Final = "text-align:left;vertical-align:top"
_LONG: Final = f"{_TEXT};white-space:pre-wrap;overflow-wrap:break-word;max-width:30em"
_SHORT: Final = f"{_TEXT};white-space:nowrap"
_NUMBER: Final = "text-align:right;vertical-align:top;white-space:nowrap"
_GUIDED: Final = f"{_TEXT};white-space:pre;font-family:monospace;font-weight:normal"


def table_html(
    head: Sequence[str], rows: Iterable[Sequence[object]], *, caption: str = "", count: int | None = None, first: str = _SHORT
) -> str:
    """
    Return a table.

    It ends after 500 rows, or when its HTML has half a million characters, and says how many rows there are more.

    Args:
        head: the names of the columns.
        rows: their cells: texts, numbers, times, ids, documents. Read to the end unless ``count`` is given.
        caption: what it is a table of; empty for none.
        count: how many rows there are, when ``rows`` has only the first of them.
        first: the style of the first column, whose cells are the headings of their rows.
    """
    parts = [_TABLE, f"{_CAPTION}{_escaped(_cut(caption))}</caption>" if caption else "", "<thead><tr>"]
    parts += [f'<th scope="col" style="{_TEXT}">{_escaped(_cut(name))}</th>' for name in head]
    parts.append("</tr></thead><tbody>")
    shown = size = more = 0
    for row in rows:
        made = "" if more else _row(row, first)
        size += len(made)
        if more or shown == _MOST_ROWS or size > _MOST_CHARACTERS:
            more += 1
        else:
            shown += 1
            parts.append(made)
    more = more if count is None else count - shown
    if more:
        parts.append(f'<tr><td colspan="{len(head)}" style="{_TEXT}">… and {more:,} more</td></tr>')
    return "".join([*parts, "</tbody></table>"])


def _row(cells: Sequence[object], first: str) -> str:
    heading, *others = cells
    made = [f'<tr><th scope="row" style="{first}">{_escaped(_cut(shown(heading)))}</th>']
    for cell in others:
        text = _cut(shown(cell))
        is_number = isinstance(cell, int | float) and not isinstance(cell, bool)
        style = _NUMBER if is_number else _LONG if len(text) > _MOST_LETTERS_IN_A_LINE + 1 else _SHORT
        made.append(f'<td style="{style}">{_escaped(text)}</td>')
    return "".join([*made, "</tr>"])


def tree_html(top: B, head: Sequence[str], cells: Callable[[B], Sequence[object]], *, caption: str = "") -> str:
    """Return a tree as a table, of which the first column has the guides."""
    rows = ((f"{guide}{first}", *others) for guide, node in guided(top) for first, *others in (cells(node),))
    return table_html(head, rows, caption=caption, first=_GUIDED)


def record_html(item: object, caption: str = "") -> str:
    """Return an object as a table of its fields, each a row; those that hold nothing are left out."""
    fields = [(name, shown(value)) for name, value in fields_of(item).items() if value is not None]
    return table_html(("field", "value"), fields, caption=caption or type(item).__name__)


def items_html(items: Sequence[object], *, caption: str = "") -> str:
    """
    Return objects as a table, each a row.

    Their columns are the fields that hold something in a row that is shown, of entities the name first and the ids last. Ids of
    workspaces, digests and generated columns are left out.
    """
    rows = [_fields_in_a_row(item) for item in items[:_MOST_ROWS]]
    names = list(dict.fromkeys(name for row in rows for name, value in row.items() if value is not None))
    cells = ([row.get(name) for name in names] for row in rows if names)
    return table_html(names or ("no rows",), cells, caption=caption, count=len(items))


def _fields_in_a_row(item: object) -> dict[str, object]:
    left_out: frozenset[str] = getattr(item, "__generated__", frozenset()) | {"workspace_id"}
    found = {name: value for name, value in fields_of(item).items() if name not in left_out and not isinstance(value, bytes)}
    if isinstance(item, BaseModel):
        found = dict(sorted(found.items(), key=lambda field: (field[0] != "name", isinstance(field[1], UUID))))
    return {name: _cut(shown(value), _MOST_LETTERS_IN_A_LINE) if _is_nested(value) else value for name, value in found.items()}


def fields_of(item: object) -> dict[str, object]:
    """Return what an object shows of itself, by name. Of an entity that is what was loaded, without bodies and secrets."""
    if isinstance(item, BaseModel):
        return {str(name): value for name, value in item.__repr_args__()}
    if dataclasses.is_dataclass(item):
        return {field.name: getattr(item, field.name) for field in dataclasses.fields(item) if field.repr}
    if isinstance(item, Mapping):
        return {str(name): value for name, value in item.items()}
    # Rows of SQLAlchemy are named tuples in this respect.
    as_dict: Callable[[], dict[str, object]] | None = getattr(item, "_asdict", None)
    return {"value": item} if as_dict is None else as_dict()


def shown(value: object) -> str:
    """Return a value as the text of a cell; nothing for None, times to the second."""
    if value is None:
        return ""
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="seconds").replace("+00:00", "Z")
    if isinstance(value, bytes):
        return f"{value[:8].hex()}…"
    if _is_nested(value):
        return json_text(_plain(value))
    return str(value)


def _is_nested(value: object) -> bool:
    return isinstance(value, BaseModel | Mapping | list | tuple) or (dataclasses.is_dataclass(value) and not isinstance(value, type))


def _plain(value: Any) -> Any:
    """Return a value as JSON has it, as far as it goes; what JSON does not know is a text."""
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, BaseModel | Mapping) or dataclasses.is_dataclass(value):
        return {name: _plain(item) for name, item in fields_of(value).items() if item is not None and name != "schema_version"}
    return value if isinstance(value, bool | int | float) or value is None else shown(value)


def _cut(text: str, most: int = _MOST_LETTERS) -> str:
    return text if len(text) <= most else f"{text[:most]}…"


def _escaped(text: str) -> str:
    return html.escape(printable(text))
