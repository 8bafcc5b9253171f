"""Stored ciphertexts, over all workspaces: which columns hold them, and how many were written with which key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from sqlalchemy import Column, String, case, func, select
from sqlalchemy.orm import Session

from stemmadb._secrets import Place
from stemmadb.errors import ConfigurationError
from stemmadb.packs import packs
from stemmadb.settings import load_settings

_FORM = r"^v1:[^:]+:[A-Za-z0-9+/=]+$"


@dataclass(frozen=True)
class SecretCounts:
    """How many secrets of one column are stored under which key."""

    column: str
    """``users.two_factor_secret``"""
    keys: dict[str, int] = field(default_factory=dict)
    """Rows by the id of the key, in the order of the ids."""
    malformed: int = 0
    """Rows that hold something else than a ciphertext of this release."""


def columns() -> dict[str, Column[Any]]:
    """
    Return the columns that the installed packs declare as ``secrets``, by ``table.column``, in the order of the packs.

    Raises:
        ConfigurationError: a pack names a column that none of its entities has.
    """
    found: dict[str, Column[Any]] = {}
    for pack in packs():
        known = {f"{entity.__tablename__}.{column.name}": column for entity in pack.entities for column in entity.__table__.columns}
        for name in pack.secrets:
            if name not in known:
                raise ConfigurationError(f"the pack {pack.name!r} declares the secret {name}, which is no column of its entities")
            found[name] = known[name]
    return found


def key_of(column: Column[Any]) -> Any:
    """Return the expression of the id of the key that a value was encrypted with; NULL for what is no ciphertext."""
    return case((column.op("~")(_FORM), func.split_part(column, ":", 2, type_=String)))


def place_of(column: Column[Any], key: Sequence[Any]) -> Place:
    """
    Return where a ciphertext is stored.

    Args:
        column: of which column.
        key: the values of the table's primary key.
    """
    workspace_id = key[0] if len(key) == 2 else None
    return Place(column.table.name, column.name, key[-1], workspace_id)


def count(session: Session, name: str, column: Column[Any]) -> SecretCounts:
    """Count the rows of one column, in one statement."""
    key = key_of(column).label("key")
    rows = session.connection().execute(select(key, func.count()).select_from(column.table).where(column.is_not(None)).group_by(key))
    counted: dict[str | None, int] = {found: number for found, number in rows}  # noqa: C416  (a row is no pair to type checkers)
    malformed = counted.pop(None, 0)
    return SecretCounts(name, {found: counted[found] for found in sorted(found for found in counted if found is not None)}, malformed)


def key_names() -> list[str]:
    """Return the ids of STEMMADB_SECRET_KEYS, newest first."""
    return [name for name, _ in load_settings().secret_keys]


def can_open() -> bool:
    """Return whether the extra ``auth`` is installed."""
    return find_spec("cryptography") is not None
