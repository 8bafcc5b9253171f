"""
What an API key costs each request: form, checksum, one indexed read, a digest and a comparison.

The floor is the read alone, of the same columns, by hand. What it does not do is everything that makes it a verification.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from typing import Any

from benchmarks.datasets import Dataset
from benchmarks.harness import FLOOR, OURS, Call, Case, Contender
from stemmadb.accounts import api_keys, users
from stemmadb.accounts.data import IssuedApiKey

JOB = "credentials"

_READ = b"""
    SELECT api_keys.id, api_keys.user_id, api_keys.workspace_id, api_keys.key_hash, api_keys.scopes,
           api_keys.revoked_at, api_keys.expires_at, users.status, workspaces.deleted_at
      FROM stemma.api_keys
      JOIN stemma.users ON users.id = api_keys.user_id
      LEFT JOIN stemma.workspaces ON workspaces.id = api_keys.workspace_id
     WHERE api_keys.prefix = %s
"""


def cases(dataset: Dataset) -> list[Case]:
    """Verification in an open session."""
    with dataset.db.session() as session:
        user = users.create(session, f"{uuid.uuid4().hex}@benchmark.example")
        issued = api_keys.issue(session, user.id, "benchmark", workspace_id=dataset.workspace_id, scopes=["evaluation:read"])
    contenders = [Contender(FLOOR, lambda: _reading(dataset, issued)), Contender(OURS, lambda: _verifying(dataset, issued))]
    return [
        Case(
            JOB,
            "verifying an API key",
            dataset.rows,
            contenders,
            outcome=lambda found: found[0] if isinstance(found, tuple) else found.key_id,
        )
    ]


@contextlib.contextmanager
def _reading(dataset: Dataset, issued: IssuedApiKey) -> Iterator[Call]:
    def call(number: int) -> Any:
        return dataset.floor.execute(_READ, [issued.key.prefix], prepare=True).fetchone()

    yield call


@contextlib.contextmanager
def _verifying(dataset: Dataset, issued: IssuedApiKey) -> Iterator[Call]:
    with dataset.db.session() as session:
        yield lambda number: api_keys.verify(session, issued.token, required_scope="evaluation:read")
