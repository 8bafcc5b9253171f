"""Everything that ``stemmadb doctor`` knows by name: how bad it is, what is wrong, and what to do."""

from collections.abc import Iterator, Mapping

from stemmadb.reports import Finding, FindingKind

_MADE_AGAIN = "run its statement of stemmadb migrate sql again, as the owner"

_LOGIN = {
    "bypasses_policies": FindingKind(
        "error",
        "{object} is a superuser or has BYPASSRLS, and sessions run as it: row-level security holds nothing back",
        "stemmadb migrate roles --login {object}, or connect as stemma_app; ALTER ROLE {object} NOSUPERUSER NOBYPASSRLS",
    ),
    "login_bypasses_policies": FindingKind(
        "warning",
        "the login {object} is a superuser or has BYPASSRLS: sessions run as stemma_app, but RESET ROLE in any statement undoes that",
        "let DATABASE_URL log in as stemma_app, or ALTER ROLE {object} NOSUPERUSER NOBYPASSRLS",
    ),
    "inherits_maintenance": FindingKind(
        "error",
        "{object} inherits stemma_maintenance, whose policies let it see every workspace at all times",
        "GRANT stemma_maintenance TO {object} WITH INHERIT FALSE, SET TRUE",
    ),
    "owns_tables": FindingKind(
        "warning",
        "{object} owns tables of the schema stemma: it is under row-level security, but may switch it off",
        "let DATABASE_URL log in as stemma_app (stemmadb migrate roles), and only DIRECT_URL as the owner",
    ),
    "may_become_owner": FindingKind(
        "warning",
        "the login {object} may act as {owner}, who owns the tables and may switch row-level security off",
        "REVOKE {owner} FROM {object}; DIRECT_URL has a login of its own for that",
    ),
    "lacks_privileges": FindingKind(
        "error",
        "{object} may not read {count} tables of the schema stemma",
        "stemmadb migrate roles --login {login}",
    ),
    "roles_missing": FindingKind(
        "warning",
        "the role {object} does not exist: nothing separates the application from the owner, or reads across workspaces",
        "stemmadb migrate roles",
    ),
}

_SERVER = {
    "unsupported_server": FindingKind(
        "error", "PostgreSQL {object} is too old: 16, 17 and 18 are supported", "upgrade the server with pg_upgrade"
    ),
    "untested_server": FindingKind(
        "warning", "PostgreSQL {object} is newer than this release was tested with (16, 17 and 18)", "upgrade stemmadb"
    ),
    "old_minor": FindingKind(
        "warning",
        "PostgreSQL {object} lacks fixes of {fixed}: {why}",
        "install {fixed} or newer, and restart the server; no dump is needed",
    ),
    "not_utf8": FindingKind(
        "error",
        "the database is in {object}, not in UTF8: text that it cannot hold is refused, or stored as bytes that nobody checks",
        "CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0, then pg_dump and pg_restore into it",
    ),
    "collation_changed": FindingKind(
        "error",
        "the collation of the database {object} was version {recorded}, and the system has {actual}: indexes on text may miss rows",
        "REINDEX DATABASE CONCURRENTLY {object}; ALTER DATABASE {object} REFRESH COLLATION VERSION",
    ),
    "read_only_server": FindingKind(
        "error",
        "the server only reads: it is a replica, or default_transaction_read_only is on",
        "let DATABASE_URL name the primary; ALTER DATABASE {database} RESET default_transaction_read_only",
    ),
    "clock_skew": FindingKind(
        "warning",
        "the clocks of this machine and of the server are {object} apart: tokens and keys end too early or too late",
        "let both follow NTP (timedatectl set-ntp true)",
    ),
    "transaction_ids_running_out": FindingKind(
        "error",
        "the oldest transaction of the database is {object} transactions old: at 2 billion the server refuses to write",
        "end old transactions and prepared ones, drop replication slots that nobody uses, then VACUUM (FREEZE) as a superuser",
    ),
    "stale_slot": FindingKind(
        "warning",
        "nobody reads the replication slot {object}, for which the server keeps {kept_mb} MB of its log",
        "SELECT pg_drop_replication_slot('{object}')",
    ),
    "forgotten_transaction": FindingKind(
        "warning",
        "the prepared transaction {object} has been waiting for more than an hour: it holds locks, and VACUUM back",
        "ROLLBACK PREPARED '{object}', or COMMIT PREPARED",
    ),
    "too_few_connections": FindingKind(
        "warning",
        "a pool may open {object} connections, and the server gives this login {allowed}",
        "lower DATABASE_POOL_MAX, or raise the limit ({limit})",
    ),
    "row_security_setting": FindingKind(
        "error",
        "row_security is off: statements on tables with policies are refused",
        "ALTER ROLE {login} RESET row_security; ALTER DATABASE {database} RESET row_security",
    ),
    "strings_not_standard": FindingKind(
        "error",
        "standard_conforming_strings is off: a backslash in a literal changes what a statement means",
        "ALTER ROLE {login} RESET standard_conforming_strings; ALTER DATABASE {database} RESET standard_conforming_strings",
    ),
    "triggers_off": FindingKind(
        "error",
        "session_replication_role is {object}: triggers and foreign keys do nothing",
        "ALTER ROLE {login} RESET session_replication_role; ALTER DATABASE {database} RESET session_replication_role",
    ),
    "planner_method_off": FindingKind(
        "warning",
        "{object} is off: the planner does without a method that queries here are measured with",
        "ALTER ROLE {login} RESET {object}; ALTER DATABASE {database} RESET {object}; ALTER SYSTEM RESET {object}",
    ),
    "parameters_logged": FindingKind(
        "warning",
        "the server logs statements with their parameters ({object}), digests and personal data among them",
        "ALTER SYSTEM SET log_parameter_max_length = 0; SELECT pg_reload_conf()",
    ),
    "track_counts_off": FindingKind(
        "error",
        "track_counts is off: autovacuum cannot see which tables need it",
        "ALTER SYSTEM RESET track_counts; ALTER DATABASE {database} RESET track_counts",
    ),
    "autovacuum_off": FindingKind(
        "error",
        "autovacuum is off: tables grow, statistics age, and transaction ids run out",
        "ALTER SYSTEM RESET autovacuum; SELECT pg_reload_conf()",
    ),
    "not_durable": FindingKind(
        "error",
        "{object} is off in production: a crash {loses}",
        "ALTER SYSTEM SET {object} = on; SELECT pg_reload_conf(); ALTER DATABASE {database} RESET {object}",
    ),
    "no_statement_timeout": FindingKind(
        "warning",
        "statements of production may run for ever: neither QUERY_TIMEOUT_MS nor statement_timeout is set",
        "QUERY_TIMEOUT_MS=30000, or ALTER ROLE {login} SET statement_timeout = '30s'",
    ),
    "no_idle_timeout": FindingKind(
        "warning",
        "transactions of production may idle for ever, hold locks and hold VACUUM back: idle_in_transaction_session_timeout is 0",
        "ALTER ROLE {login} SET idle_in_transaction_session_timeout = '5min'",
    ),
    "not_encrypted": FindingKind(
        "error",
        "the connection to {object} goes over the network without TLS, in production",
        "add ?sslmode=verify-full to DATABASE_URL, and ssl = on to the server's settings",
    ),
}

_ADDRESSES = {
    "undeclared_pooler": FindingKind(
        "warning",
        "a pooler stands before the server, and DATABASE_URL does not say so: it is only noticed once a connection is made",
        "add ?pgbouncer=true to DATABASE_URL",
    ),
    "declared_pooler_missing": FindingKind(
        "warning",
        "DATABASE_URL says pgbouncer=true, and no pooler stands before the server: statements are not prepared, for nothing",
        "take pgbouncer=true out of DATABASE_URL",
    ),
    "direct_url_pooled": FindingKind(
        "error",
        "DIRECT_URL leads through a pooler: migrations hold a lock and settings for a session, which a pooler hands to others",
        "let DIRECT_URL name the server itself (often port 5432)",
    ),
    "direct_url_elsewhere": FindingKind(
        "error",
        "DIRECT_URL leads to another database than DATABASE_URL ({object}): migrations would change the wrong one",
        "let both name the same server and database",
    ),
    "direct_url_not_owner": FindingKind(
        "error",
        "the login of DIRECT_URL, {object}, may not act as {owner}, who owns the schema: migrations are refused",
        "let DIRECT_URL log in as {owner}, or GRANT {owner} TO {object}",
    ),
    "direct_url_unreachable": FindingKind(
        "warning", "DIRECT_URL cannot be connected to from here: {why}", "correct it, or leave it out where no migrations are run"
    ),
}

_REVISIONS = {
    "not_migrated": FindingKind("error", "the database has no schema of stemmadb yet", "stemmadb migrate up"),
    "schema_behind": FindingKind(
        "error", "the database is at {object}, and this release needs {needed}: sessions are refused", "stemmadb migrate up"
    ),
    "schema_ahead": FindingKind(
        "error", "the database is at {object}, too far ahead of this release, which has {needed}: sessions are refused", "upgrade stemmadb"
    ),
    "newer_revision": FindingKind(
        "warning", "the database has {object}, which a newer release brought; this one still works with it", "upgrade stemmadb"
    ),
    "pending_migrations": FindingKind(
        "warning", "{object} has not run yet: this release works without it", "stemmadb migrate up, once no older release runs"
    ),
    "unknown_revision": FindingKind(
        "error",
        "the version table holds {object}, which is no revision of stemmadb",
        "stemmadb migrate stamp heads, if all of them have run",
    ),
    "two_heads": FindingKind(
        "error",
        "the version table has several rows of one branch: {object}",
        "DELETE FROM stemma.stemma_alembic_version WHERE version_num = the older one, as the owner",
    ),
    "diverged_heads": FindingKind(
        "error", "the revisions of this release are not one line: {why}", "renumber the newer file, or install the release again"
    ),
}

_TABLES = {
    "row_security_off": FindingKind(
        "error",
        "row-level security is not enabled on {object}: every workspace sees every row",
        "ALTER TABLE stemma.{object} ENABLE ROW LEVEL SECURITY",
    ),
    "row_security_not_forced": FindingKind(
        "error",
        "row-level security is not forced on {object}: its owner sees every row",
        "ALTER TABLE stemma.{object} FORCE ROW LEVEL SECURITY",
    ),
    "missing_policy": FindingKind(
        "error", "the policy {name} of {table} is missing", f"stemmadb migrate up makes those of stemma_maintenance; else {_MADE_AGAIN}"
    ),
    "changed_policy": FindingKind(
        "error",
        "the policy {name} of {table} is not the one of its revision: {detail}",
        f"DROP POLICY {{name}} ON stemma.{{table}}; {_MADE_AGAIN}",
    ),
    "foreign_policy": FindingKind(
        "error",
        "no revision made the policy {name} of {table}; one policy more can only let more rows through, or block them all",
        "DROP POLICY {name} ON stemma.{table}",
    ),
    "missing_trigger": FindingKind("error", "the trigger {name} of {table} is missing", _MADE_AGAIN),
    "changed_trigger": FindingKind("error", "the trigger {name} of {table} is not the one of its revision: {detail}", _MADE_AGAIN),
    "disabled_trigger": FindingKind(
        "error", "the trigger {name} of {table} is disabled, or does not always fire", "ALTER TABLE stemma.{table} ENABLE TRIGGER {name}"
    ),
    "disabled_foreign_keys": FindingKind(
        "error", "foreign keys of {object} are not enforced: their triggers are disabled", "ALTER TABLE stemma.{object} ENABLE TRIGGER ALL"
    ),
    "foreign_trigger": FindingKind(
        "warning", "no revision made the trigger {name} of {table}", "DROP TRIGGER {name} ON stemma.{table}, if nobody needs it"
    ),
    "foreign_rule": FindingKind(
        "error", "the rule {name} rewrites statements on {table}, and no revision made it", "DROP RULE {name} ON stemma.{table}"
    ),
    "missing_function": FindingKind("error", "the function {object} is missing", _MADE_AGAIN),
    "changed_function": FindingKind("error", "the body of the function {object} is not that of its revision", _MADE_AGAIN),
    "foreign_function": FindingKind(
        "warning", "no revision made the function {object}", "ALTER FUNCTION stemma.{object} SET SCHEMA another_schema, or drop it"
    ),
    "unsafe_definer": FindingKind(
        "error",
        "the function {object} runs as its owner (SECURITY DEFINER) without a search_path of its own: its caller chooses what it calls",
        "ALTER FUNCTION {object} SET search_path = pg_catalog, pg_temp",
    ),
    "view_bypasses_policies": FindingKind(
        "error",
        "the view {object} reads our tables as {owner}, whom row-level security does not hold: it shows every workspace",
        "ALTER VIEW {object} SET (security_invoker = true)",
    ),
    "changed_labels": FindingKind(
        "error",
        "the values of {object} are not those of this release: {detail}",
        "stemmadb migrate status; the revision that changes them is missing",
    ),
    "missing_table": FindingKind("error", "the table {object} is missing", "restore it from a backup, or " + _MADE_AGAIN),
    "missing_column": FindingKind(
        "error", "the column {object} is missing", "restore it from a backup, or ALTER TABLE stemma.{table} ADD COLUMN {name} {type}"
    ),
    "changed_column": FindingKind(
        "error",
        "the column {object} is {found}, and this release needs {type}",
        "ALTER TABLE stemma.{table} ALTER COLUMN {name} back to {type}",
    ),
    "required_column": FindingKind(
        "error",
        "{object} must have a value, has no default, and this release does not know it: nothing can be inserted",
        "ALTER TABLE stemma.{table} ALTER COLUMN {name} DROP NOT NULL",
    ),
    "missing_index": FindingKind("error", "the index {name} of {table} is missing: queries that use it read the whole table", _MADE_AGAIN),
    "missing_constraint": FindingKind("error", "the constraint {name} of {table} is missing: nothing refuses what it refused", _MADE_AGAIN),
    "invalid_index": FindingKind(
        "error",
        "the index {object} is not valid, because its build was interrupted: no query uses it",
        "REINDEX INDEX CONCURRENTLY stemma.{object}",
    ),
    "unvalidated_constraint": FindingKind(
        "warning",
        "the constraint {name} of {table} is not validated: older rows may break it",
        "ALTER TABLE stemma.{table} VALIDATE CONSTRAINT {name}",
    ),
    "several_owners": FindingKind(
        "warning",
        "the tables belong to several roles, and migrations need one owner: {detail}",
        "ALTER TABLE stemma.... OWNER TO the schema's owner",
    ),
    "missing_grant": FindingKind("error", "a role lacks what it needs on {object}: {detail}", "stemmadb migrate up"),
    "excess_grant": FindingKind("error", "a role may do more to {object} than it should: {detail}", "stemmadb migrate up"),
    "public_grant": FindingKind("error", "every login may use the table {object}", "REVOKE ALL ON stemma.{object} FROM PUBLIC"),
    "column_grant": FindingKind(
        "error",
        "{role} has privileges of its own on the column {object}, past those of the table",
        "REVOKE ALL ({name}) ON stemma.{table} FROM {role}",
    ),
    "schema_open": FindingKind(
        "error",
        "{role} may make objects in the schema {object}, which our sessions search: it may make what is called in the place of ours",
        "REVOKE CREATE ON SCHEMA {object} FROM {role}",
    ),
    "table_without_autovacuum": FindingKind(
        "warning", "autovacuum is switched off for {object}", "ALTER TABLE stemma.{object} RESET (autovacuum_enabled)"
    ),
    "dead_rows": FindingKind(
        "warning",
        "{object} holds {dead} dead rows beside {live} live ones: it is read more slowly than it should be",
        "VACUUM (ANALYZE) stemma.{object}",
    ),
}

_ROWS = {
    "not_checked": FindingKind("info", "{object} was not looked at: {why}", "{remedy}"),
    "newer_documents": FindingKind(
        "warning",
        "{count} documents in {object} were written by a newer release (version {newest} is known here): they can be read by it alone",
        "upgrade stemmadb, or set STEMMADB_WRITE_VERSIONS in the newer release",
    ),
    "malformed_documents": FindingKind(
        "error", "{count} documents in {object} have no version that can be read", "stemmadb documents status {object}; correct the rows"
    ),
    "old_write_version": FindingKind(
        "warning",
        "documents in {object} are written at version {written} of {newest}: a roll-out that is over",
        "take it out of STEMMADB_WRITE_VERSIONS, once no older release runs",
    ),
    "secret_keys_missing": FindingKind(
        "error",
        "{count} secrets are stored in {object}, and STEMMADB_SECRET_KEYS holds no key to open them",
        "set STEMMADB_SECRET_KEYS to the keys",
    ),
    "unknown_secret_key": FindingKind(
        "error",
        "{count} secrets in {object} are encrypted with the key {key}, which STEMMADB_SECRET_KEYS does not hold",
        "add {key}:base64 behind the newest key in STEMMADB_SECRET_KEYS, then stemmadb secrets rotate",
    ),
    "old_secret_key": FindingKind(
        "info", "{count} secrets in {object} are still encrypted with the older key {key}", "stemmadb secrets rotate"
    ),
    "unreadable_secrets": FindingKind(
        "error", "{count} values in {object} are no ciphertexts", "ask for these secrets again; stemmadb secrets status counts them"
    ),
    "extra_missing": FindingKind(
        "error", "secrets are stored in {object}, and the extra auth, which opens them, is not installed", "pip install 'stemmadb[auth]'"
    ),
}

KINDS: Mapping[str, FindingKind] = {**_LOGIN, **_SERVER, **_ADDRESSES, **_REVISIONS, **_TABLES, **_ROWS}
"""The kernel's, by code; packs have further ones in their checks."""


def finding(code: str, object: str, /, **said: object) -> Finding:
    """Return a finding of the kernel."""
    return KINDS[code].finding(code, object, **said)


def all_kinds() -> Iterator[tuple[str, FindingKind]]:
    """Yield every code with its kind, those of the installed packs included."""
    from stemmadb.packs import packs

    yield from KINDS.items()
    for pack in packs():
        for check in pack.load_checks():
            yield from check.kinds.items()
