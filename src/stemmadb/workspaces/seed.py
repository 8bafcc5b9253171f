"""The workspaces that sample data lies in."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy.orm import Session

from stemmadb.accounts import users
from stemmadb.seeding import Profile, Seed
from stemmadb.workspaces import workspaces

__all__ = ["LOCAL_USER", "SEEDS"]

LOCAL_USER = "local@stemmadb.invalid"
"""Whoever works on the embedded server; has no password."""


def _make(session: Session, data: Any, _profile: Profile) -> Mapping[str, int]:
    inserted = {"users": 0, "workspaces": 0}
    for row in data:
        owner = users.find_by_email(session, row["owner"])
        if owner is None:
            owner = users.create(session, row["owner"], name=row["owner_name"])
            inserted["users"] += 1
        if workspaces.find_by_slug(session, row["slug"]) is None:
            workspaces.create(session, owner.id, row["name"], slug=row["slug"], description=row["description"])
            inserted["workspaces"] += 1
    return inserted


_DEV = [
    {
        "slug": "dev",
        "name": "Development",
        "description": "Sample data of the profiles dev, qa and test",
        "owner": "dev@valuerank.ai",
        "owner_name": "Dev",
    }
]
_DEMO = [
    {"slug": "demo", "name": "Demo", "description": "What stemmadb demo shows", "owner": LOCAL_USER, "owner_name": "Local user"},
]

SEEDS = (
    Seed("workspaces.sample", frozenset({"dev", "qa", "test"}), _DEV, _make),
    Seed("workspaces.demo", frozenset({"demo"}), _DEMO, _make),
)
