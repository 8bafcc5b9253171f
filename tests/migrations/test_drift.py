"""What ``check`` finds when entities, revisions and database do not agree: each kind of drift is planted and found."""

from __future__ import annotations

import re

import pytest
from sqlalchemy import Column, MetaData, Table, Text, create_engine
from tests.migrations.places import Place, Revisions

from stemmadb import _heads, migrations
from stemmadb.migrations import _check, _entities

# What is done by hand, and the code and the object of the finding.
_PLANTED = [
    ("ALTER TABLE stemma.users ADD COLUMN nickname text", "extra_column", "users.nickname"),
    ("ALTER TABLE stemma.users DROP COLUMN phone", "missing_column", "users.phone"),
    ("ALTER TABLE stemma.users ALTER COLUMN name SET NOT NULL", "changed_column", "users.name"),
    ("ALTER TABLE stemma.users ALTER COLUMN failed_login_count TYPE bigint", "changed_column", "users.failed_login_count"),
    ("ALTER TABLE stemma.users ALTER COLUMN failed_login_count SET DEFAULT 3", "changed_column", "users.failed_login_count"),
    ("ALTER TABLE stemma.definitions ALTER COLUMN content_hash DROP EXPRESSION", "changed_column", "definitions.content_hash"),
    ("CREATE TABLE stemma.mine (id integer)", "extra_table", "mine"),
    ("DROP TABLE stemma.role_permissions", "missing_table", "role_permissions"),
    ("ALTER TABLE stemma.users DROP CONSTRAINT users_email_lower_check", "missing_constraint", "users.users_email_lower_check"),
    ("ALTER TABLE stemma.users ADD CONSTRAINT mine CHECK (name <> 'x')", "extra_constraint", "users.mine"),
    (
        "ALTER TABLE stemma.cohorts DROP CONSTRAINT cohorts_name_check, ADD CONSTRAINT cohorts_name_check CHECK (name <> '')",
        "changed_constraint",
        "cohorts.cohorts_name_check",
    ),
    (
        (
            "ALTER TABLE stemma.scores DROP CONSTRAINT scores_rubric_id_fkey, ADD CONSTRAINT scores_rubric_id_fkey "
            "FOREIGN KEY (workspace_id, rubric_id) REFERENCES stemma.rubrics ON DELETE CASCADE"
        ),
        "changed_constraint",
        "scores.scores_rubric_id_fkey",
    ),
    (
        (
            "ALTER TABLE stemma.scores DROP CONSTRAINT scores_annotation_key, ADD CONSTRAINT scores_annotation_key "
            "UNIQUE (workspace_id, transcript_id, rubric_id, name, annotator_kind, annotator)"
        ),
        "changed_constraint",
        "scores.scores_annotation_key",
    ),
    ("DROP INDEX stemma.runs_created_at_id_idx", "missing_index", "runs.runs_created_at_id_idx"),
    ("CREATE INDEX mine ON stemma.users (name)", "extra_index", "users.mine"),
    (
        (
            "DROP INDEX stemma.definitions_parent_id_idx; "
            "CREATE INDEX definitions_parent_id_idx ON stemma.definitions (workspace_id, parent_id)"
        ),
        "changed_index",
        "definitions.definitions_parent_id_idx",
    ),
    (
        "DROP INDEX stemma.runs_created_at_id_idx; CREATE INDEX runs_created_at_id_idx ON stemma.runs (workspace_id, created_at, id)",
        "changed_index",
        "runs.runs_created_at_id_idx",
    ),
    (
        "DROP INDEX stemma.workspaces_slug_live_key; CREATE UNIQUE INDEX workspaces_slug_live_key ON stemma.workspaces (slug)",
        "changed_index",
        "workspaces.workspaces_slug_live_key",
    ),
    ("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'stemma.runs_created_by_id_idx'::regclass", "invalid_index", None),
    ("ALTER TYPE stemma.user_status ADD VALUE 'ASLEEP'", "changed_enum", "user_status"),
    ("ALTER TYPE stemma.user_status RENAME VALUE 'DELETED' TO 'GONE'", "changed_labels", "users.status"),
    (
        (
            "ALTER TABLE stemma.experiments DROP CONSTRAINT experiments_status_check, ADD CONSTRAINT experiments_status_check "
            "CHECK (status IN ('DRAFT', 'ACTIVE', 'COMPLETED'))"
        ),
        "changed_labels",
        "experiments.status",
    ),
    ("ALTER TABLE stemma.runs DISABLE ROW LEVEL SECURITY", "row_security_off", "runs"),
    ("ALTER TABLE stemma.runs NO FORCE ROW LEVEL SECURITY", "row_security_not_forced", "runs"),
    ("DROP POLICY runs_tenant ON stemma.runs", "missing_policy", "runs.runs_tenant"),
    ("DROP POLICY audit_logs_tenant ON stemma.audit_logs", "missing_policy", "audit_logs.audit_logs_tenant"),
    ("DROP POLICY runs_maintenance ON stemma.runs", "missing_policy", "runs.runs_maintenance"),
    ("DROP POLICY workspace_members_self ON stemma.workspace_members", "missing_policy", "workspace_members.workspace_members_self"),
    ("CREATE POLICY mine ON stemma.runs USING (true)", "foreign_policy", "runs.mine"),
    ("ALTER POLICY runs_tenant ON stemma.runs USING (true)", "changed_policy", "runs.runs_tenant"),
    ("ALTER POLICY runs_tenant ON stemma.runs WITH CHECK (true)", "changed_policy", "runs.runs_tenant"),
    ("ALTER POLICY runs_maintenance ON stemma.runs TO stemma_app", "changed_policy", "runs.runs_maintenance"),
    (
        "ALTER POLICY stemma_idempotency_keys_tenant ON stemma.stemma_idempotency_keys USING (workspace_id IS NULL)",
        "changed_policy",
        "stemma_idempotency_keys.stemma_idempotency_keys_tenant",
    ),
    ("ALTER POLICY workspace_members_self ON stemma.workspace_members USING (true)", "changed_policy", None),
    ("DROP TRIGGER runs_guard ON stemma.runs", "missing_trigger", "runs.runs_guard"),
    ("ALTER TABLE stemma.runs DISABLE TRIGGER runs_guard", "disabled_trigger", "runs.runs_guard"),
    (
        (
            "CREATE OR REPLACE TRIGGER runs_guard BEFORE UPDATE OF config ON stemma.runs "
            "FOR EACH ROW EXECUTE FUNCTION stemma.stemma_runs_guard()"
        ),
        "changed_trigger",
        "runs.runs_guard",
    ),
    ("DROP TRIGGER users_audit ON stemma.users", "missing_trigger", "users.users_audit"),
    ("ALTER TABLE stemma.audit_logs DISABLE TRIGGER audit_logs_not_emptied", "disabled_trigger", "audit_logs.audit_logs_not_emptied"),
    (
        (
            "CREATE OR REPLACE TRIGGER users_audit AFTER INSERT OR DELETE OR UPDATE ON stemma.users "
            "FOR EACH ROW EXECUTE FUNCTION stemma.stemma_audit('id', '', '')"
        ),
        "changed_trigger",
        "users.users_audit",
    ),
    (
        "CREATE TRIGGER mine BEFORE UPDATE ON stemma.runs FOR EACH ROW EXECUTE FUNCTION stemma.stemma_set_updated_at()",
        "foreign_trigger",
        "runs.mine",
    ),
    (
        "CREATE OR REPLACE FUNCTION stemma.stemma_runs_guard() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        "changed_function",
        "stemma_runs_guard",
    ),
    ("DROP FUNCTION stemma.stemma_append_only() CASCADE", "missing_function", "stemma_append_only"),
    ("CREATE FUNCTION stemma.mine() RETURNS integer LANGUAGE sql AS 'SELECT 1'", "foreign_function", "mine"),
    ("REVOKE UPDATE ON stemma.runs FROM stemma_app", "missing_grant", "runs"),
    ("REVOKE USAGE ON SCHEMA stemma FROM stemma_maintenance", "missing_grant", "stemma"),
    ("REVOKE EXECUTE ON FUNCTION stemma.stemma_uuidv7() FROM PUBLIC", "missing_grant", "stemma.stemma_uuidv7()"),
    ("GRANT TRUNCATE ON stemma.runs TO stemma_app", "excess_grant", "runs"),
    ("GRANT UPDATE ON stemma.audit_logs TO stemma_app", "excess_grant", "audit_logs"),
    ("GRANT SELECT ON stemma.users TO PUBLIC", "public_grant", "users"),
    ("ALTER TABLE stemma.users OWNER TO postgres", "several_owners", "stemma"),
    ("ALTER TABLE stemma.users ADD CONSTRAINT mine CHECK (name <> 'x') NOT VALID", "unvalidated_constraint", "users.mine"),
]


@pytest.mark.requirement("EC-123", "EC-128", "PF-046", "PF-050", "RF-045", "TN-056", "VR-093", "VR-095")
def test_entities_revisions_and_database_agree(migrated: Place) -> None:
    """A database made by the revisions has nothing that an entity does not say, and lacks nothing that one says."""
    report = migrations.check(migrated)
    assert report.findings == []
    assert report.ok
    assert report.pending_migrations == 0
    assert report.server_version.split(".")[0] in {"16", "17", "18"}
    assert 0 < report.latency_ms < 1000


@pytest.mark.parametrize(
    ("statements", "code", "object"), _PLANTED, ids=[f"{code}-{number}" for number, (_, code, _) in enumerate(_PLANTED)]
)
def test_planted_drift_is_found(migrated: Place, statements: str, code: str, object: str | None) -> None:
    """What was changed by hand is named, with the thing that was changed."""
    migrated.do(statements)
    before = migrated.dump()
    findings = migrations.check(migrated).findings
    assert (code, object) in {(finding.code, finding.object if object is not None else None) for finding in findings}
    assert migrated.dump() == before


def test_the_runtime_login_may_look_too(migrated: Place) -> None:
    """``drift`` only reads, and needs no right that stemma_app lacks."""
    engine = create_engine(migrated.server.url(migrated.name))
    with engine.connect() as connection:
        assert migrations.drift(connection) == []
        connection.rollback()
        migrated.do("ALTER TABLE stemma.runs NO FORCE ROW LEVEL SECURITY")
        assert [finding.code for finding in migrations.drift(connection)] == ["row_security_not_forced"]
    engine.dispose()


def test_a_database_behind_is_told_before_it_is_compared(empty: Place) -> None:
    """An empty database: what is pending, and nothing else."""
    report = migrations.check(empty)
    assert [finding.code for finding in report.findings] == ["pending_migrations"]
    assert report.pending_migrations == len(_heads.revisions())
    assert not report.ok


def test_a_pack_that_is_not_installed_is_not_missed(empty: Place) -> None:
    """The entities of a pack are compared once its branch is there."""
    migrations.upgrade(empty, ["base"])
    engine = create_engine(empty.direct_url)
    with engine.connect() as connection:
        assert migrations.drift(connection) == []
    engine.dispose()


@pytest.mark.requirement("TN-063")
def test_diverged_heads_are_a_finding(migrated: Place, revisions: Revisions) -> None:
    """``check`` reports them, with the advice, rather than breaking off."""
    facts = {"revision": "base_0002", "down_revision": "base_0001", "branch_labels": None, "depends_on": None}
    for name in ("0002_expand_mine.py", "0002_expand_yours.py"):
        revisions.write("base", name, "op.execute('SELECT 1')", "op.execute('SELECT 1')", "expand", facts)
    report = migrations.check(migrated)
    assert [finding.code for finding in report.findings] == ["diverged_heads"]


@pytest.mark.requirement("VR-093")
def test_an_entity_without_a_revision_is_found_and_written(migrated: Place, revisions: Revisions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Change an entity, write the revision, run it, and they agree; before and after that, there is nothing to write."""
    assert migrations.new(migrated, "Nothing to do", branch="base") is None
    changed = MetaData(schema="stemma", naming_convention=_entities.metadata().naming_convention)
    for table in _entities.metadata().tables.values():
        table.to_metadata(changed)
    changed.tables["stemma.users"].append_column(Column("nickname", Text(), nullable=True))
    Table("pets", changed, Column("name", Text(), primary_key=True), schema="stemma")
    for module in (_check, _entities):
        monkeypatch.setattr(module, "metadata", lambda: changed)
    monkeypatch.setattr("stemmadb.migrations._new.metadata", lambda: changed)
    assert {(finding.code, finding.object) for finding in migrations.check(migrated).findings} == {
        ("missing_column", "users.nickname"),
        ("missing_table", "pets"),
    }
    assert migrations.new(migrated, "Nothing to do", branch="evaluation") is None
    path = migrations.new(migrated, "Users have nicknames, and pets!", branch="base")
    assert path is not None
    assert path.name == "0002_expand_users_have_nicknames_and_pets.py"
    assert {finding.code for finding in migrations.check(migrated).findings} == {"undescribed_revision", "pending_migrations"}
    text = path.read_text()
    path.write_text(re.sub(r"<(.*?\.)>", r"\1", text))
    revisions.forget()
    migrations.upgrade(migrated)
    assert migrations.check(migrated).findings == []
    migrations.downgrade(migrated, "base_0001")
    assert "pets" not in migrated.tables()


def test_an_empty_revision_is_written_on_request(migrated: Place, revisions: Revisions) -> None:
    """For what Alembic does not see; until it is filled in, ``check`` says that it does nothing."""
    path = migrations.new(migrated, "Drop what 0.3 used", branch="evaluation", phase="contract", empty=True)
    assert path is not None
    assert path.name == "0002_contract_drop_what_0_3_used.py"
    assert {"empty_revision", "undescribed_revision"} <= {finding.code for finding in migrations.check(migrated).findings}
