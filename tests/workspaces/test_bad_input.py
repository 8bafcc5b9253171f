"""Workspaces and members: what is no name, no slug, no role and no id is refused as such, before anything is sent."""

from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy.orm import Session
from tests.bad_input import misuse, parameters_of

from stemmadb.accounts import users
from stemmadb.workspaces import members, workspaces

OF_WORKSPACES = ["create", "get", "find", "get_by_slug", "find_by_slug", "list_all", "list_for_user", "update", "soft_delete", "restore"]
OF_MEMBERS = ["add", "get", "find", "list_all", "change_role", "remove", "require_role"]


@pytest.mark.property
@pytest.mark.requirement("TN-035")
@pytest.mark.parametrize(
    ("fn", "parameter"),
    [*parameters_of(workspaces, OF_WORKSPACES), *parameters_of(members, OF_MEMBERS)],
    ids=lambda part: part if isinstance(part, str) else f"{part.__module__.rpartition('.')[2]}.{part.__name__}",
)
def test_garbage_is_refused(session: Session, workspace: UUID, fn: Callable[..., Any], parameter: str) -> None:
    """Wrong types, NUL, lone surrogates and long texts, for every parameter."""
    user = users.create(session, f"{uuid4().hex}@example.com")
    stranger = users.create(session, f"{uuid4().hex}@example.com")
    made = workspaces.create(session, user.id, "Lab")
    if fn.__module__.endswith("members") and fn.__name__ != "add":
        members.add(session, user.id)
    good = {
        "user_id": stranger.id if fn is members.add else user.id,
        "owner_id": user.id,
        "workspace_id": made.id,
        "name": "Lab",
        "slug": f"lab-{uuid4().hex[:8]}",
        "data": {"name": "Lab"},
        "role": "MEMBER",
        "at_least": "MEMBER",
    }
    misuse(session, fn, good, parameter)
