"""What goes wrong with databases: each case does it to a healthy one, and says what ``stemmadb doctor`` has to name."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """
    One misconfiguration.

    ``{db}`` in a statement stands for the database. ``also`` are the codes that come with it, because they are true then.
    """

    code: str
    object: str | None
    statements: tuple[str, ...] = ()
    also: frozenset[str] = frozenset()
    undo: tuple[str, ...] = ()
    """For what is of the whole server."""
    login: str = "stemma_app"
    production: bool = False

    def __str__(self) -> str:
        return self.code


def case(code: str, object: str | None, *statements: str, also: str = "", undo: tuple[str, ...] = (), login: str = "stemma_app") -> Case:
    return Case(code, object, statements, frozenset(also.split()), undo, login)


LOGINS = [
    case("bypasses_policies", "stemma_app", "ALTER ROLE stemma_app BYPASSRLS", undo=("ALTER ROLE stemma_app NOBYPASSRLS",)),
    case("login_bypasses_policies", "postgres", login="postgres"),
    case(
        "inherits_maintenance",
        "stemma_app",
        "GRANT stemma_maintenance TO stemma_app WITH INHERIT TRUE",
        undo=("GRANT stemma_maintenance TO stemma_app WITH INHERIT FALSE",),
    ),
    case("owns_tables", "stemma_owner", login="stemma_owner"),
    case("may_become_owner", "stemma_app", "GRANT stemma_owner TO stemma_app", undo=("REVOKE stemma_owner FROM stemma_app",)),
    case(
        "lacks_privileges",
        "visitor",
        "CREATE ROLE visitor LOGIN",
        "GRANT USAGE ON SCHEMA stemma TO visitor",
        undo=("DROP OWNED BY visitor", "DROP ROLE visitor"),
        login="visitor",
    ),
    case(
        "roles_missing",
        "stemma_maintenance",
        "ALTER ROLE stemma_maintenance RENAME TO stemma_aside",
        undo=("ALTER ROLE stemma_aside RENAME TO stemma_maintenance",),
        also="foreign_policy not_checked",
    ),
    case(
        "not_checked",
        "rows",
        "REVOKE stemma_maintenance FROM stemma_app",
        undo=("GRANT stemma_maintenance TO stemma_app WITH INHERIT FALSE, SET TRUE",),
    ),
]

SERVERS = [
    case("row_security_setting", None, "ALTER DATABASE {db} SET row_security = off", also="not_checked"),
    case("strings_not_standard", None, "ALTER DATABASE {db} SET standard_conforming_strings = off"),
    case("triggers_off", "replica", "ALTER DATABASE {db} SET session_replication_role = replica"),
    case("planner_method_off", "enable_indexscan", "ALTER DATABASE {db} SET enable_indexscan = off"),
    case("parameters_logged", "log_statement = mod", "ALTER DATABASE {db} SET log_statement = 'mod'"),
    case("parameters_logged", "log_min_duration_statement = 0", "ALTER DATABASE {db} SET log_min_duration_statement = 0"),
    case("track_counts_off", None, "ALTER DATABASE {db} SET track_counts = off"),
    case("read_only_server", None, "ALTER DATABASE {db} SET default_transaction_read_only = on", also="not_checked"),
    case("too_few_connections", "20", "ALTER DATABASE {db} CONNECTION LIMIT 9"),
    case("too_few_connections", "20", "ALTER ROLE stemma_app CONNECTION LIMIT 9", undo=("ALTER ROLE stemma_app CONNECTION LIMIT -1",)),
    Case("not_durable", "synchronous_commit", ("ALTER DATABASE {db} SET synchronous_commit = off",), production=True),
    Case("no_idle_timeout", None, ("ALTER DATABASE {db} RESET idle_in_transaction_session_timeout",), production=True),
]

TABLES = [
    case("row_security_off", "runs", "ALTER TABLE stemma.runs DISABLE ROW LEVEL SECURITY"),
    case("row_security_not_forced", "runs", "ALTER TABLE stemma.runs NO FORCE ROW LEVEL SECURITY"),
    case("missing_policy", "runs.runs_tenant", "DROP POLICY runs_tenant ON stemma.runs"),
    case("missing_policy", "runs.runs_maintenance", "DROP POLICY runs_maintenance ON stemma.runs"),
    case("changed_policy", "runs.runs_tenant", "ALTER POLICY runs_tenant ON stemma.runs USING (true)"),
    case("foreign_policy", "runs.mine", "CREATE POLICY mine ON stemma.runs USING (true)"),
    case("missing_trigger", "runs.runs_guard", "DROP TRIGGER runs_guard ON stemma.runs"),
    case("disabled_trigger", "runs.runs_guard", "ALTER TABLE stemma.runs DISABLE TRIGGER runs_guard"),
    case(
        "changed_trigger",
        "runs.runs_guard",
        "CREATE OR REPLACE TRIGGER runs_guard BEFORE UPDATE OF config ON stemma.runs "
        "FOR EACH ROW EXECUTE FUNCTION stemma.stemma_runs_guard()",
    ),
    case("disabled_foreign_keys", "cohorts", "ALTER TABLE stemma.cohorts DISABLE TRIGGER ALL", also="disabled_trigger"),
    case(
        "foreign_trigger",
        "runs.mine",
        "CREATE TRIGGER mine BEFORE UPDATE ON stemma.runs FOR EACH ROW EXECUTE FUNCTION stemma.stemma_set_updated_at()",
    ),
    case("foreign_rule", "runs.mine", "CREATE RULE mine AS ON DELETE TO stemma.runs DO INSTEAD NOTHING"),
    case("missing_function", "stemma_append_only", "DROP FUNCTION stemma.stemma_append_only() CASCADE", also="missing_trigger"),
    case(
        "changed_function",
        "stemma_runs_guard",
        "CREATE OR REPLACE FUNCTION stemma.stemma_runs_guard() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
    ),
    case("foreign_function", "mine", "CREATE FUNCTION stemma.mine() RETURNS integer LANGUAGE sql AS 'SELECT 1'"),
    case("unsafe_definer", "stemma.stemma_uuidv7()", "ALTER FUNCTION stemma.stemma_uuidv7() SECURITY DEFINER RESET search_path"),
    case("view_bypasses_policies", "public.mine", "CREATE VIEW public.mine AS SELECT id FROM stemma.runs"),
    case("changed_labels", "users.status", "ALTER TYPE stemma.user_status ADD VALUE 'ASLEEP'"),
    case(
        "changed_labels",
        "experiments.status",
        "ALTER TABLE stemma.experiments DROP CONSTRAINT experiments_status_check, ADD CONSTRAINT experiments_status_check "
        "CHECK (status IN ('DRAFT', 'ACTIVE', 'COMPLETED'))",
    ),
    case("missing_table", "role_permissions", "DROP TABLE stemma.role_permissions"),
    case("missing_column", "users.phone", "ALTER TABLE stemma.users DROP COLUMN phone"),
    case("changed_column", "users.failed_login_count", "ALTER TABLE stemma.users ALTER COLUMN failed_login_count TYPE bigint"),
    case("changed_column", "users.name", "ALTER TABLE stemma.users ALTER COLUMN name SET NOT NULL"),
    case("required_column", "users.nickname", "ALTER TABLE stemma.users ADD COLUMN nickname text NOT NULL"),
    case("missing_index", "runs.runs_created_at_id_idx", "DROP INDEX stemma.runs_created_at_id_idx"),
    case("missing_constraint", "users.users_email_lower_check", "ALTER TABLE stemma.users DROP CONSTRAINT users_email_lower_check"),
    case(
        "invalid_index",
        "runs_created_by_id_idx",
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'stemma.runs_created_by_id_idx'::regclass",
    ),
    case("unvalidated_constraint", "users.mine", "ALTER TABLE stemma.users ADD CONSTRAINT mine CHECK (name <> 'x') NOT VALID"),
    case("several_owners", "stemma", "ALTER TABLE stemma.users OWNER TO postgres"),
    case("missing_grant", "runs", "REVOKE UPDATE ON stemma.runs FROM stemma_app"),
    case("excess_grant", "runs", "GRANT TRUNCATE ON stemma.runs TO stemma_app"),
    case("excess_grant", "audit_logs", "GRANT DELETE ON stemma.audit_logs TO stemma_app"),
    case("public_grant", "users", "GRANT SELECT ON stemma.users TO PUBLIC"),
    case("column_grant", "audit_logs.action", "GRANT UPDATE (action) ON stemma.audit_logs TO stemma_app"),
    case("schema_open", "stemma", "GRANT CREATE ON SCHEMA stemma TO PUBLIC"),
    case("schema_open", "public", "GRANT CREATE ON SCHEMA public TO PUBLIC"),
    case("table_without_autovacuum", "runs", "ALTER TABLE stemma.runs SET (autovacuum_enabled = false)"),
    case(
        "dead_rows",
        "users",
        "ALTER TABLE stemma.users SET (autovacuum_enabled = false)",
        "INSERT INTO stemma.users (email) SELECT 'u' || n || '@example.com' FROM generate_series(1, 10001) AS n",
        "DELETE FROM stemma.users",
        "SELECT pg_stat_force_next_flush()",
        also="table_without_autovacuum",
    ),
]

_PERSON = "INSERT INTO stemma.users (email) VALUES ('ada@example.com')"
_WORKSPACE = "INSERT INTO stemma.workspaces (owner_id, name, slug) SELECT id, 'Lab', 'lab' FROM stemma.users"
_MEMBER = (
    "INSERT INTO stemma.workspace_members (workspace_id, user_id, role) SELECT workspaces.id, owner_id, 'OWNER' FROM stemma.workspaces"
)
_HERE = (_PERSON, _WORKSPACE, _MEMBER)
_SECRET = "UPDATE stemma.users SET two_factor_secret = '{}', two_factor_enabled = true"

ROWS = [
    case("newer_documents", "workspaces.settings", *_HERE, """UPDATE stemma.workspaces SET settings = '{{"schema_version": 99}}'"""),
    case("malformed_documents", "workspaces.settings", *_HERE, """UPDATE stemma.workspaces SET settings = '{{"schema_version": "x"}}'"""),
    case("unknown_secret_key", "users.two_factor_secret", _PERSON, _SECRET.format("v1:lost:AAAA")),
    case("old_secret_key", "users.two_factor_secret", _PERSON, _SECRET.format("v1:old:AAAA")),
    case("unreadable_secrets", "users.two_factor_secret", _PERSON, _SECRET.format("plain")),
    case(
        "unknown_pepper",
        "7",
        _PERSON,
        "INSERT INTO stemma.api_keys (user_id, name, prefix, key_hash, pepper_version, last_four, scopes) "
        "SELECT id, 'x', 'stm_k_live_000000000000', decode(repeat('00', 32), 'hex'), 7, '0000', '{{}}' FROM stemma.users",
    ),
    case("workspace_without_owner", "lab", _PERSON, _WORKSPACE),
    case("workspace_without_owner", "lab", *_HERE, "UPDATE stemma.users SET deleted_at = now(), status = 'DELETED'"),
    case(
        "unfrozen_definition",
        None,
        *_HERE,
        "INSERT INTO stemma.definitions (workspace_id, id, root_id, name, content) "
        "SELECT workspaces.id, u, u, 'x', '{{}}' FROM stemma.workspaces, (SELECT stemma.stemma_uuidv7() AS u) AS made",
        "INSERT INTO stemma.scenarios (workspace_id, definition_id, name, content) "
        "SELECT workspace_id, id, 'x', '{{}}' FROM stemma.definitions",
        "ALTER TABLE stemma.definitions DISABLE TRIGGER USER",
        "UPDATE stemma.definitions SET frozen_at = NULL",
        "ALTER TABLE stemma.definitions ENABLE TRIGGER USER",
    ),
]

CASES = [*LOGINS, *SERVERS, *TABLES, *ROWS]
