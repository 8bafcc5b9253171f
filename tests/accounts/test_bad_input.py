"""Users and API keys: what is no name, no address, no id and no token is refused as such, before anything is sent."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import SecretStr
from sqlalchemy.orm import Session
from tests.bad_input import misuse, parameters_of

from stemmadb.accounts import api_keys, users

OF_USERS = ["create", "get", "find", "get_by_email", "find_by_email", "list_all", "update", "soft_delete", "restore"]
OF_KEYS = ["issue", "create", "verify", "looks_like_token", "get", "find", "get_by_prefix", "find_by_prefix", "list_for_user"]
OF_KEYS += ["list_for_workspace", "rotate", "set_scopes", "revoke", "delete"]


@pytest.mark.property
@pytest.mark.requirement("EC-161", "EC-249")
@pytest.mark.parametrize(
    ("fn", "parameter"),
    [*parameters_of(users, OF_USERS), *parameters_of(api_keys, OF_KEYS)],
    ids=lambda part: part if isinstance(part, str) else f"{part.__module__.rpartition('.')[2]}.{part.__name__}",
)
def test_garbage_is_refused(session: Session, workspace: UUID, fn: Callable[..., Any], parameter: str) -> None:
    """Wrong types, NUL, lone surrogates, times out of bounds and long texts, for every parameter."""
    user = users.create(session, f"{uuid4().hex}@example.com")
    key = api_keys.issue(session, user.id, "k", workspace_id=workspace)
    good = {
        "user_id": user.id,
        "key_id": key.key.id,
        "workspace_id": workspace,
        "email": f"{uuid4().hex}@example.com",
        "name": "name",
        "data": {"name": "name"},
        "query": "name",
        "key_hash": bytes(32),
        "prefix": f"prefix-{uuid4().hex}",
        "token": key.token,
        "text": "text",
        "scopes": ("runs:read",),
        "expires_in": timedelta(days=1),
    }
    misuse(session, fn, good, parameter)


def test_an_unwrapped_token_is_refused_by_name(session: Session) -> None:
    """Not taken for a wrong one: a string would end in logs and tracebacks."""
    from stemmadb.errors import AuthenticationError, ValidationError

    with pytest.raises(ValidationError, match="SecretStr"):
        api_keys.verify(session, "stm_k_live_x")  # type: ignore[arg-type]
    with pytest.raises(AuthenticationError):
        api_keys.verify(session, SecretStr("stm_k_live_x"))
