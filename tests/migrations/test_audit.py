"""The audit triggers as the revisions make them: on which tables, what they hide, and what even the owner may not do."""

from __future__ import annotations

import re
from typing import Any

import psycopg
import pytest
from sqlalchemy import LargeBinary
from tests.migrations.places import Place

from stemmadb import entity, migrations

# The data dictionary: accounts and workspaces without sessions, tokens and logs; labels and experiments.
AUDITED = {
    "users",
    "oauth_accounts",
    "mfa_settings",
    "api_keys",
    "roles",
    "permissions",
    "role_permissions",
    "user_roles",
    "user_permissions",
    "workspaces",
    "workspace_members",
    "ai_provider_configs",
    "approval_items",
    "definition_labels",
    "experiments",
}
_TRIGGERS = """
    SELECT relname::text, pg_get_triggerdef(pg_trigger.oid)
      FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid
     WHERE relnamespace = 'stemma'::regnamespace AND tgname LIKE '%%_audit'
"""


def arguments(place: Place) -> dict[str, list[list[str]]]:
    """The key, the secrets and the silent columns of each audited table."""
    found = place.ask("SELECT array_to_json(ARRAY[relname, definition])::text FROM (" + _TRIGGERS + ") AS found (relname, definition)")
    import json

    return {
        table: [part.split(",") if part else [] for part in re.findall(r"'([^']*)'", definition)]
        for table, definition in map(json.loads, found)
    }


@pytest.mark.requirement("EC-191", "EC-005", "EC-077")
def test_the_tables_of_the_dictionary_are_audited(migrated: Place) -> None:
    """These and no others; the slots, transcripts and scores of runs are too hot for it."""
    assert set(arguments(migrated)) == AUDITED


@pytest.mark.requirement("EC-048")
def test_no_secret_column_is_left_unmasked(migrated: Place) -> None:
    """Whatever an entity calls secret, and every column of bytes, is named by the trigger of its table, or has a name that is masked."""
    for name, (key, secrets, silent) in arguments(migrated).items():
        table = entity.metadata.tables[f"stemma.{name}"]
        assert {column.name for column in table.columns if column.info["secret"]} <= set(secrets), name
        digests = {column.name for column in table.columns if isinstance(column.type, LargeBinary)}
        assert all(column in secrets or column.endswith("_hash") for column in digests), name
        assert [column.name for column in table.primary_key.columns if column.name != "workspace_id"] == key
        assert set(secrets) | set(silent) <= set(table.columns.keys()), name


@pytest.mark.requirement("AD-030")
def test_logs_only_grow_even_for_the_owner(migrated: Place) -> None:
    """Triggers refuse the owner's UPDATE, DELETE and TRUNCATE, on their own and as part of a cascade."""
    with psycopg.connect(migrated.direct_url.render_as_string(hide_password=False).replace("+psycopg", ""), autocommit=True) as owner:
        owner.execute("INSERT INTO stemma.users (email) VALUES ('a@example.com')")
        owner.execute("INSERT INTO stemma.security_events (type) VALUES ('TEST')")
        for statement in (
            "UPDATE stemma.{} SET user_agent = 'x'",
            "DELETE FROM stemma.{}",
            "TRUNCATE stemma.{}",
        ):
            for table in ("audit_logs", "security_events"):
                with pytest.raises(psycopg.errors.CheckViolation) as refused:
                    owner.execute(statement.format(table).encode())
                assert refused.value.diag.constraint_name == f"{table}_append_only"
        with pytest.raises(psycopg.errors.CheckViolation):
            owner.execute("TRUNCATE stemma.users CASCADE")
        count: Any = owner.execute("SELECT count(*) FROM stemma.audit_logs").fetchone()
        assert count[0] == 1


@pytest.mark.requirement("EC-191")
def test_a_branch_goes_and_comes_back_with_its_triggers(migrated: Place) -> None:
    """Down and up again, the tables of evaluation are audited as before."""
    before = arguments(migrated)
    migrations.downgrade(migrated, "evaluation@base")
    assert set(arguments(migrated)) == AUDITED - {"definition_labels", "experiments"}
    migrations.upgrade(migrated)
    assert arguments(migrated) == before
