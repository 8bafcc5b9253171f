"""Constants of SQL text that goes into functions, generated columns and indexes."""

from __future__ import annotations

import json
import re
from typing import Any

from stemmadb.documents._values import escape, map_strings

# Neither the encoding of a script nor a tool on its way may matter: SQLAlchemy takes a colon before a word for a parameter, psycopg a
# percent sign; Alembic writes tabs as spaces; a dollar sign could end the body of a function. Escaped, they are read by PostgreSQL alone.
_UNSAFE = re.compile(r"[^ -~]|[\\%$]|:(?! )|(?<=\\):")


def quote(text: str) -> str:
    """Write a string as a constant in printable ASCII. It must be one that PostgreSQL can hold."""
    if not _UNSAFE.search(text):
        return "'" + text.replace("'", "''") + "'"
    return "E'" + _UNSAFE.sub(_escaped, text).replace("'", "''") + "'"


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return "\\\\" if code == 0x5C else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def quote_stored(text: str) -> str:
    """Write a string of a document in the form in which jsonb holds it."""
    return quote(escape(text))


def quote_jsonb(value: Any) -> str:
    """Write a JSON value as a jsonb constant, its strings in the form in which jsonb holds them."""
    return f"{quote(json.dumps(map_strings(value, escape)))}::jsonb"
