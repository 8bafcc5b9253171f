"""
Lists that notebooks show as tables.

    Table(definitions.ancestors(session, version.id))

Trees, pages, entities and most results show themselves. What they show is what they hold: nothing is asked of the database for it, so they
also do when their session is closed.
"""

from typing import TypeVar

from stemmadb._tables import items_html

__all__ = ["Table"]

T = TypeVar("T")


class Table(list[T]):
    """
    A list that notebooks show as a table; everywhere else it is a list.

    Each item is a row: entities, data objects, results, rows of a statement, mappings; anything else is its text. Columns are the fields
    that hold something in a row that is shown. Bodies and secrets of entities, digests and ids of workspaces are left out. The table ends
    after 500 rows and says how many there are more.
    """

    def _repr_html_(self) -> str:
        return items_html(self)
