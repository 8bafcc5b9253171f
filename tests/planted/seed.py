"""Seeds that are not as seeds are."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy.orm import Session

from stemmadb.errors import ValidationError
from stemmadb.query import sql_rows
from stemmadb.seeding import Profile, Seed

__all__ = ["SEEDS"]

_INSERT = sql_rows("INSERT INTO stemma.planted_seeded (text) VALUES (:text)")


def _again(session: Session, data: Any, _profile: Profile) -> Mapping[str, int]:
    return {"planted_seeded": _INSERT.run(session, text=data)}


def _fail(_session: Session, _data: Any, _profile: Profile) -> Mapping[str, int]:
    message = "these data do not fit"
    raise ValidationError(message)


SEEDS = (
    Seed("planted.again", frozenset({"dev"}), "again", _again),
    Seed("planted.fails", frozenset({"qa"}), "fails", _fail),
    Seed("planted.twice", frozenset({"demo"}), 1, lambda _session, _data, _profile: {}),
    Seed("planted.twice", frozenset({"demo"}), 2, lambda _session, _data, _profile: {}),
    Seed("elsewhere", frozenset(), 1, lambda _session, _data, _profile: {}),
    Seed("planted.unreadable", frozenset(), {1, 2}, lambda _session, _data, _profile: {}),
)
