"""
Search keys: values inside of documents by which rows are found and ordered, whatever the versions that the rows are stored in.

    @search_key("template", {0: "/tmpl", 1: "/template"}, default="")
    class DefinitionContent(Document, version=2):
        template: str

    select(Definition).where(search_equals(Definition.content, "template", "Who rows?"))
    select(Definition).order_by(search_expression(Definition.content, "template"))

A key is declared once, with the place of its value in each version. From that come one expression of SQL for all versions, the index for
it, and the same value in Python.

The expression gives text of at most 500 characters, since an index takes no more, and a row with a longer value must be storable all the
same. Numbers and booleans are text too, and null, arrays and objects count as nothing.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

from sqlalchemy import ColumnElement, Connection, Integer, Numeric, Table, Text, and_, bindparam, case, cast, func, literal_column, select
from sqlalchemy import column as column_named
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from stemmadb import errors
from stemmadb.documents._canonical import canonical, parse_exactly, scalar_text
from stemmadb.documents._document import Document
from stemmadb.documents._dump import dump_json
from stemmadb.documents._search_places import Path, check_field, follow, parse_pointer
from stemmadb.documents._sql_text import quote
from stemmadb.documents._steps import Raw
from stemmadb.documents._values import escape

__all__ = [
    "MAX_LENGTH",
    "SearchKey",
    "SearchDifference",
    "search_key",
    "search_keys",
    "search_value",
    "search_text",
    "search_expression",
    "search_equals",
    "search_sql",
    "search_column",
    "search_index",
    "search_differences",
]

D = TypeVar("D", bound=type[Document])
Place: TypeAlias = str | tuple[str, ...] | None

MAX_LENGTH = 500
"""The most characters of the text of a key. An entry of a B-tree has 2704 bytes at most, and a character up to four."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_MAX_IDENTIFIER = 63
# A U+001A that raw SQL stored by itself reads like an escaped one. The four characters behind the last one that counts are looked at too.
_BARE_LEAD: ColumnElement[Any] = literal_column(quote("\x1a(?!0000|001a|d[89a-f][0-9a-f]{2})"))
_ESCAPED_LEAD: ColumnElement[Any] = literal_column(quote("\x1a001a"))
_LOOKED_AT = MAX_LENGTH + 4
_DIALECT: Any = postgresql.dialect()  # type: ignore[no-untyped-call]


@dataclasses.dataclass(frozen=True)
class SearchKey:
    """A search key as it was declared."""

    name: str
    places: Mapping[int, tuple[str, ...]]
    """From each version on, where the value is: JSON Pointers, of which the first one with a value counts. Ascending; empty: nowhere."""
    default: str | None
    """What counts where there is nothing, as the loaded document would have it."""


_declared: WeakKeyDictionary[type[Document], dict[str, SearchKey]] = WeakKeyDictionary()


def search_key(name: str, places: Place | Mapping[int, Place] = None, *, default: str | float | bool | None = None) -> Callable[[D], D]:
    """
    Declare a search key of the document below.

    Args:
        name: what the key is called; also in the names of columns and indexes, so lower-case letters, digits and underscores.
        places: where the value is, as a JSON Pointer; of several, the first one with a value counts. For versions that differ, a mapping: a
            place holds from its version on, also in versions that are not known yet, so that a version that moves nothing leaves expression
            and index as they are. None is nowhere; when it is all that is said, the field with the key's name.
        default: what the loaded document has where there is nothing in the stored one, because a step or the field has a default.

    Raises:
        ConfigurationError: the class has no such field, its values have no text or several, or the name is taken.
    """
    if not _NAME.fullmatch(name):
        raise errors.ConfigurationError(f"{name!r} cannot name a search key: use up to 40 lower-case letters, digits and underscores")
    said: Mapping[int, Place] = places if isinstance(places, Mapping) else {0: f"/{name}" if places is None else places}
    pointers = {version: _pointers(said[version]) for version in sorted(said)}
    key = SearchKey(name, MappingProxyType(pointers), None if default is None else _plain(default))

    def declare(document: D) -> D:
        newest = document.newest_version
        if not pointers or not all(type(version) is int and 0 <= version <= newest for version in pointers):
            raise errors.ConfigurationError(f"the search key {name} of {document.__name__} has places from the versions 0 to {newest} on")
        for paths in pointers.values():
            for pointer in paths:
                parse_pointer(pointer)
        newest_places = pointers[max(pointers)]
        if not newest_places:
            raise errors.ConfigurationError(f"the search key {name} is nowhere in the newest {document.__name__}")
        for pointer in newest_places:
            check_field(document, pointer)
        own = _declared.setdefault(document, {})
        if name in own:
            raise errors.ConfigurationError(f"{document.__name__} has two search keys called {name}: keep one")
        own[name] = key
        return document

    return declare


def search_keys(document: type[Document]) -> Mapping[str, SearchKey]:
    """Return the search keys of a class by name, with those of the bases that share its versions or have none."""
    found: dict[str, SearchKey] = {}
    versioned = False
    for base in document.__mro__:
        if issubclass(base, Document) and not (versioned and base.newest_version):
            found = {**_declared.get(base, {}), **found}
            versioned = versioned or "_steps" in vars(base)
    return MappingProxyType(found)


def search_value(document: Document, name: str) -> str | None:
    """
    Return what ``search_expression`` gives for a document: the text in the form in which jsonb holds it, its first 500 characters.

    Raises:
        ConfigurationError: the class has no such key.
    """
    key = _key(type(document), name)
    stored = parse_exactly(dump_json(document))
    version = int(stored["schema_version"])
    for since, paths in _paths(key):
        if version >= since:
            texts = (scalar_text(follow(stored, path)) for path in paths)
            found = next((text for text in texts if text is not None), None)
            return found[:MAX_LENGTH] if found is not None else search_text(key.default)
    return search_text(key.default)


def search_text(value: str | float | bool | None) -> str | None:
    """Return a value as ``search_expression`` gives it, to compare with that: ``.startswith(search_text("Who"), autoescape=True)``."""
    return None if value is None else escape(_plain(value))[:MAX_LENGTH]


def search_expression(column: Any, name: str) -> ColumnElement[str | None]:
    """
    Return the text of a search key as SQL, for ordering and for conditions; right for rows of every version.

    The column ``<column>_<name>`` is used where the table has one that the database computes (``search_column``); else the expression that
    ``search_index`` indexes. It is NULL for a malformed version.

    Args:
        column: a document column, ``Definition.content``.
        name: a key of its documents.

    Raises:
        ConfigurationError: they have no such key.
    """
    plain = _plain_column(column)
    key = _key(plain.type.document, name)
    computed: Any = plain.table.columns.get(f"{plain.name}_{name}") if getattr(plain, "table", None) is not None else None
    # The columns of an alias do not say themselves how they come about.
    if computed is not None and any(getattr(base, "computed", None) is not None for base in computed.base_columns):
        narrow: ColumnElement[str | None] = computed
        return narrow
    return _shortened(key, plain)


def search_equals(column: Any, name: str, value: str | float | bool | None) -> ColumnElement[bool]:
    """
    Return the condition that a search key has a value, whatever its length; None asks for rows without one.

    An index on the key is used. For a value of 500 characters or more the rest is compared too, in the few documents that begin like it.

    Args:
        column: a document column, ``Definition.content``.
        name: a key of its documents.
        value: as Python has it; it is escaped here.

    Raises:
        ConfigurationError: the documents have no such key.
    """
    narrow = search_expression(column, name)
    if value is None:
        return narrow.is_(None)
    text = escape(_plain(value))
    if len(text) < MAX_LENGTH:
        return narrow == text
    plain = _plain_column(column)
    return and_(narrow == text[:MAX_LENGTH], _escaped(_found(_key(plain.type.document, name), plain)) == text)


def search_sql(document: type[Document], name: str, column_name: str) -> str:
    """
    Return the expression of a search key as text, over a column of a table: for ``generated_field``, for ``Index`` and for revisions.

    Args:
        document: the class of the column's documents.
        name: a key of it.
        column_name: the column, ``content``.
    """
    expression = _shortened(_key(document, name), column_named(column_name, JSONB()))
    return str(expression.compile(dialect=_DIALECT, compile_kwargs={"literal_binds": True}))


def search_column(column: Any, name: str) -> str:
    """
    Return the ALTER TABLE that adds the column of a search key: ``<column>_<name>``, computed with every write and stored.

    For tables of workspaces: under row-level security PostgreSQL uses no index on an expression over jsonb, because it does not trust the
    functions in it with rows of others, while it compares text in any case. Adding the column rewrites the table under ACCESS EXCLUSIVE.
    """
    plain = _plain_column(column)
    quoted = _DIALECT.identifier_preparer.quote(_identifier(f"{plain.name}_{name}"))
    expression = search_sql(plain.type.document, name, plain.name)
    return f"ALTER TABLE {_table_name(plain.table)} ADD COLUMN {quoted} text GENERATED ALWAYS AS ({expression}) STORED"


def search_index(column: Any, name: str) -> tuple[str, str]:
    """
    Return name and definition of the index of a search key, for ``op.create_index_concurrently(*search_index(Plan.content, "title"))``.

    For a table of workspaces it is on the workspace and the column of ``search_column``; for others on the expression.
    """
    plain = _plain_column(column)
    table = plain.table
    quote_name = _DIALECT.identifier_preparer.quote
    if "workspace_id" in table.columns and not table.columns["workspace_id"].nullable:
        _key(plain.type.document, name)
        indexed = f"workspace_id, {quote_name(f'{plain.name}_{name}')}"
    else:
        indexed = f"({search_sql(plain.type.document, name, plain.name)})"
    return _identifier(f"{table.name}_{plain.name}_{name}_idx"), f"ON {_table_name(table)} ({indexed})"


@dataclasses.dataclass(frozen=True)
class SearchDifference:
    """A stored document for which a search key means one thing in the database and another in Python."""

    name: str
    stored: Any
    in_database: str | None
    in_python: str | None


def search_differences(session: Session | Connection, document: type[Document], stored: Iterable[Raw | str]) -> list[SearchDifference]:
    """
    Compare, for stored documents of any version, the search keys as the database has them with those of the loaded documents.

    A test asks it about every document that was ever released. One statement; no row is read or written.

    Args:
        session: a session or connection to a migrated database.
        document: their class.
        stored: the documents as they are stored, as dicts or JSON text. They must load.

    Returns:
        Where they differ: a place is wrong, or a default is missing. Empty when all is well.
    """
    texts = [item if isinstance(item, str) else json.dumps(item) for item in stored]
    names = list(search_keys(document))
    value, place = column_named("value", JSONB()), column_named("place", Integer())
    array = cast(bindparam("stored", type_=Text()), JSONB())
    rows = func.jsonb_array_elements(array).table_valued("value", with_ordinality="place").render_derived()
    expressions = [_shortened(_key(document, name), value).label(f"key_{name}") for name in names]
    statement = select(place, *expressions).select_from(rows).order_by(place)
    found = session.execute(statement, {"stored": f"[{', '.join(texts)}]"})
    differences = []
    for text, (_, *in_database) in zip(texts, found, strict=True):
        loaded = document.load(text)
        for name, has in zip(names, in_database, strict=True):
            wants = search_value(loaded, name)
            if has != wants:
                differences.append(SearchDifference(name, json.loads(canonical(text)), has, wants))
    return differences


def _key(document: type[Document], name: str) -> SearchKey:
    keys = search_keys(document)
    if name not in keys:
        known = ", ".join(keys) or "none"
        raise errors.ConfigurationError(f"{document.__name__} has no search key {name} (it has: {known}): declare it with @search_key")
    return keys[name]


def _paths(key: SearchKey) -> list[tuple[int, list[Path]]]:
    """Return the versions from which places hold, from the newest down, each with its places."""
    return [(version, [parse_pointer(pointer) for pointer in key.places[version]]) for version in sorted(key.places, reverse=True)]


def _pointers(place: Place) -> tuple[str, ...]:
    return () if place is None else (place,) if isinstance(place, str) else tuple(place)


def _plain(value: str | float | bool) -> str:
    text = scalar_text(parse_exactly(json.dumps(value)))
    if text is None:
        raise errors.ConfigurationError(f"a search key is text, a number or a boolean, not {type(value).__name__}")
    return text


def _plain_column(attribute: Any) -> Any:
    """Return the column of an attribute; that of an alias belongs to the alias."""
    return attribute.__clause_element__() if hasattr(attribute, "__clause_element__") else attribute


def _identifier(name: str) -> str:
    if len(name.encode()) > _MAX_IDENTIFIER:
        raise errors.ConfigurationError(f"{name} is too long a name for PostgreSQL, which would cut it: use a shorter name for the key")
    return name


def _table_name(table: Table) -> str:
    name: str = _DIALECT.identifier_preparer.format_table(table)
    return name


def _found(key: SearchKey, documents: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return the whole text of a key."""
    version = func.stemma.stemma_document_version(documents)
    branches = [(since, [_text_at(documents, path) for path in paths]) for since, paths in _paths(key)]
    if branches[-1][0] > 0:
        branches.append((0, []))
    default = [] if key.default is None else [literal_column(quote(escape(key.default)), Text())]
    values = [(since, [*texts, *default]) for since, texts in branches]
    return case(*((version >= literal_column(str(since)), _first(texts)) for since, texts in values))


def _first(texts: list[ColumnElement[Any]]) -> ColumnElement[Any]:
    if not texts:
        return cast(literal_column("NULL"), Text())
    return texts[0] if len(texts) == 1 else func.coalesce(*texts)


def _text_at(documents: ColumnElement[Any], path: Path) -> ColumnElement[Any]:
    """Return the text of a value when it is text, a number or a boolean. Of a number without trailing zeros, for which JSON has no rule."""
    keys: list[ColumnElement[Any]] = [literal_column(quote(key)) for key in path]
    text = func.jsonb_extract_path_text(documents, *keys, type_=Text())
    number = cast(func.trim_scale(cast(text, Numeric())), Text())
    kind = func.jsonb_typeof(func.jsonb_extract_path(documents, *keys))
    of_kind: dict[Any, Any] = {literal_column("'string'"): text, literal_column("'boolean'"): text, literal_column("'number'"): number}
    return case(of_kind, value=kind)


def _escaped(text: ColumnElement[Any]) -> ColumnElement[Any]:
    return func.regexp_replace(text, _BARE_LEAD, _ESCAPED_LEAD, literal_column("'g'"), type_=Text())


def _shortened(key: SearchKey, documents: ColumnElement[Any]) -> ColumnElement[Any]:
    looked_at = func.left(_found(key, documents), literal_column(str(_LOOKED_AT)), type_=Text())
    return func.left(_escaped(looked_at), literal_column(str(MAX_LENGTH)), type_=Text())
