"""The tables that the entities of installed packs describe, and the branch that each belongs to."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import MetaData, Table

from stemmadb import _heads


def metadata() -> MetaData:
    """Return the library's tables, with the entities of every pack loaded."""
    from stemmadb import entity
    from stemmadb.packs import packs

    packs()
    return entity.metadata


def tables_of(branches: Collection[str]) -> list[Table]:
    """
    Return the tables of branches, in the order of their references.

    What no pack claims is the kernel's own and of the branch ``base``.
    """
    from stemmadb.packs import packs

    owner = {entity.__table__.name: pack.branch for pack in packs() for entity in pack.entities}
    return [table for table in metadata().sorted_tables if owner.get(table.name, _heads.BASE) in branches]
