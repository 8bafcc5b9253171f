"""Which version each value of a document is from. Nothing here touches a database."""

from collections.abc import Iterable, Iterator
from typing import Any

from stemmadb.evaluation._list_alignment import aligned
from stemmadb.evaluation._patches import escape_key, same


def blame_values(line: Iterable[tuple[Any, dict[str, Any]]]) -> dict[str, Any]:
    """
    Return for each value of the last document in a line the source that it is from, by JSON Pointer.

    Args:
        line: sources with their documents, first to last. A source is anything but a dict or a list.

    Returns:
        For scalars, and for empty objects and lists: what a difference from one document to the next leaves alone keeps its source.
    """
    document: dict[str, Any] = {}
    sources: Any = None
    for source, values in line:
        sources = _sources(document, sources, values, source)
        document = values
    return dict(_leaves(document, sources, ""))


def _sources(old: Any, sources: Any, new: Any, source: Any) -> Any:
    """
    Return where the values of the new document are from, in its shape, given that of the old one.

    One source in the place of an object or a list is that of everything in it.
    """
    if same(old, new):
        return sources
    if isinstance(old, dict) and isinstance(new, dict):
        return {
            key: _sources(old[key], _below(sources, key), value, source) if key in old else source for key, value in new.items()
        } or source
    if isinstance(old, list) and isinstance(new, list):
        found = [source] * len(new)
        for place, new_place, _ in aligned(old, new):
            if place is not None and new_place is not None:
                found[new_place] = _sources(old[place], _below(sources, place), new[new_place], source)
        return found or source
    return source


def _below(sources: Any, key: Any) -> Any:
    return sources[key] if isinstance(sources, dict | list) else sources


def _leaves(value: Any, sources: Any, pointer: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, below in value.items():
            yield from _leaves(below, _below(sources, key), f"{pointer}/{escape_key(key)}")
    elif isinstance(value, list) and value:
        for index, below in enumerate(value):
            yield from _leaves(below, _below(sources, index), f"{pointer}/{index}")
    else:
        yield pointer, sources
