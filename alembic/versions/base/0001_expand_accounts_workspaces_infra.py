"""
Users, workspaces and what every pack needs.

Users and their credentials, the tenant and its members, the functions and triggers that the tables of other branches call, the seed
history and the idempotency keys.

Phase:  expand. The first revision of its branch; nothing runs beside it.
Locks:  none that anybody waits for: every object is new.
Undo:   loses everything in these tables: users, keys, sessions, roles, workspaces, members, provider configurations, approvals, logs.
"""

from alembic import op

revision = "base_0001"
down_revision = None
branch_labels = ("base",)
depends_on = None

# Function bodies name the schema: triggers also run on connections that do not have it on their path.
_FUNCTIONS = (
    # uuidv7() begins with PostgreSQL 18. The substitute has the same form and is ordered by millisecond only.
    """
    DO $do$ BEGIN
      IF current_setting('server_version_num')::int >= 180000 THEN
        CREATE FUNCTION stemma.stemma_uuidv7() RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE AS $$ SELECT uuidv7() $$;
      ELSE
        CREATE FUNCTION stemma.stemma_uuidv7() RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
          SELECT encode(
            set_bit(set_bit(
              overlay(
                uuid_send(gen_random_uuid())
                PLACING substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3)
                FROM 1 FOR 6
              ), 52, 1), 53, 1),
            'hex')::uuid
        $$;
      END IF;
    END $do$
    """,
    # The workspace of this transaction. A setting that was once SET LOCAL reads as '' later in the session, hence nullif.
    """
    CREATE FUNCTION stemma.stemma_workspace_id() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE AS $$
      SELECT nullif(current_setting('stemma.workspace_id', true), '')::uuid
    $$
    """,
    # array_to_string() is only STABLE; generated search columns and CHECKs need an immutable join.
    """
    CREATE FUNCTION stemma.stemma_join_text(text[]) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
      SELECT coalesce(array_to_string($1, ' '), '')
    $$
    """,
    # No document is NULL, a missing version is 0, a malformed one -1. Never raises: no row may be unstorable because of it.
    """
    CREATE FUNCTION stemma.stemma_document_version(document jsonb) RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
      SELECT CASE
        WHEN document IS NULL THEN NULL
        WHEN coalesce(jsonb_typeof(document -> 'schema_version'), 'null') = 'null' THEN 0
        WHEN jsonb_typeof(document -> 'schema_version') = 'number' AND document ->> 'schema_version' ~ '^[0-9]{1,9}$'
          THEN (document ->> 'schema_version')::integer
        ELSE -1 END
    $$
    """,
    # SHA-256 of the canonical text of a document; a wrapper, because convert_to() is only STABLE.
    """
    CREATE FUNCTION stemma.stemma_document_hash(document jsonb) RETURNS bytea LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
      SELECT sha256(convert_to(document::text, 'UTF8'))
    $$
    """,
    # Rewriting a document in a newer version (SET LOCAL stemma.rewrite = 'on') changes none of the row's facts.
    """
    CREATE FUNCTION stemma.stemma_set_updated_at() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      IF current_setting('stemma.rewrite', true) = 'on' THEN RETURN NEW; END IF;
      NEW.updated_at := now();
      RETURN NEW;
    END $$
    """,
    # Raw SQL that forgets the counter still moves it; the ORM's own step is not doubled.
    """
    CREATE FUNCTION stemma.stemma_bump_version() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      IF current_setting('stemma.rewrite', true) = 'on' THEN RETURN NEW; END IF;
      IF NEW.version = OLD.version THEN NEW.version := OLD.version + 1; END IF;
      RETURN NEW;
    END $$
    """,
    # What a guard raises looks like a failed CHECK, so that it is told by its constraint name and not by its text.
    """
    CREATE FUNCTION stemma.stemma_refuse(t text, rule text, col text, msg text) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
      RAISE EXCEPTION '%', msg USING ERRCODE = '23514', CONSTRAINT = rule, TABLE = t, COLUMN = col;
    END $$
    """,
    # Lets through an UPDATE that only empties user_id or workspace_id: that is what the foreign keys' SET NULL does.
    """
    CREATE FUNCTION stemma.stemma_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      IF TG_OP = 'UPDATE'
         AND (to_jsonb(NEW) - ARRAY['user_id', 'workspace_id', 'updated_at'])
           = (to_jsonb(OLD) - ARRAY['user_id', 'workspace_id', 'updated_at'])
      THEN
        IF NEW.user_id IS NULL AND (to_jsonb(NEW) ->> 'workspace_id') IS NOT DISTINCT FROM (to_jsonb(OLD) ->> 'workspace_id') THEN
          RETURN NEW;
        END IF;
        IF NEW.user_id IS NOT DISTINCT FROM OLD.user_id AND (to_jsonb(NEW) ->> 'workspace_id') IS NULL THEN
          RETURN NEW;
        END IF;
      END IF;
      RAISE EXCEPTION '% is append-only', TG_TABLE_NAME
        USING ERRCODE = '23514', CONSTRAINT = TG_TABLE_NAME || '_append_only', TABLE = TG_TABLE_NAME;
    END $$
    """,
    # Who acts: the setting of the transaction, as JSON. As above, it may read as ''.
    """
    CREATE FUNCTION stemma.stemma_actor() RETURNS jsonb LANGUAGE sql STABLE PARALLEL SAFE AS $$
      SELECT coalesce(nullif(current_setting('stemma.actor', true), ''), '{}')::jsonb
    $$
    """,
    # A value of a record: '***' in the place of the columns named, of what is called like a secret, at any depth, and of what is nested
    # deeper than the record could be read with. Text columns are escaped as strings of documents are (U+001A).
    r"""
    CREATE FUNCTION stemma.stemma_mask(value jsonb, secrets text[], depth integer DEFAULT 0) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
    DECLARE
      plain text;
      secret text;
    BEGIN
      IF depth = 0 AND jsonb_typeof(value) = 'object' THEN
        -- Most rows hide nothing but the columns named: one look at the text of the rest is a tenth of a walk through it.
        plain := (value - secrets)::text;
        IF strpos(plain, '\u001a') = 0 AND length(plain) - length(translate(plain, '{[', '')) <= 50
           AND plain !~* ('(password|passwd|passphrase|secrets?|token|api[_-]?keys?|private[_-]?keys?|authorization|cookies?|credentials?'
                       || '|digests?|hash(es)?|ciphertexts?|["_-](pin|cvv|cvc|otp|pwd))":')
        THEN
          FOREACH secret IN ARRAY secrets LOOP
            IF value -> secret <> 'null' THEN value := value || jsonb_build_object(secret, '***'); END IF;
          END LOOP;
          RETURN value;
        END IF;
      END IF;
      RETURN CASE
        WHEN depth > 60 AND jsonb_typeof(value) IN ('object', 'array') THEN '"***"'
        WHEN jsonb_typeof(value) = 'object' THEN (
          SELECT coalesce(jsonb_object_agg(name, CASE
                   WHEN item = 'null' THEN item
                   WHEN name = ANY (secrets)
                     OR name ~* ('(password|passwd|passphrase|secrets?|token|api[_-]?keys?|private[_-]?keys?|authorization|cookies?'
                              || '|credentials?|digests?|hash(es)?|ciphertexts?)$|(^|[_-])(pin|cvv|cvc|otp|pwd)$') THEN '"***"'
                   WHEN jsonb_typeof(item) IN ('object', 'array') THEN stemma.stemma_mask(item, '{}', depth + 1)
                   WHEN depth = 0 AND jsonb_typeof(item) = 'string' AND strpos(item #>> '{}', chr(26)) > 0
                     THEN to_jsonb(replace(item #>> '{}', chr(26), chr(26) || '001a'))
                   ELSE item END), '{}')
            FROM jsonb_each(value) AS each (name, item))
        WHEN jsonb_typeof(value) = 'array' THEN (
          SELECT coalesce(jsonb_agg(stemma.stemma_mask(item, '{}', depth + 1) ORDER BY place), '[]')
            FROM jsonb_array_elements(value) WITH ORDINALITY AS each (item, place))
        ELSE value END;
    END $$
    """,
    # AFTER ROW, so that it sees what was stored, whatever the statement. Its arguments are lists: the columns of the key without the
    # workspace, those that are secret, and those whose change alone makes no record, because they count or time and change nothing else.
    #
    # The actor and the workspace are locked as a foreign key locks them: somebody who deletes them meanwhile makes the record wait, and
    # go without them, instead of failing the change.
    """
    CREATE FUNCTION stemma.stemma_audit() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
      unnamed text[] := ARRAY['updated_at', 'version'];
      silent text[] := string_to_array(TG_ARGV[2], ',') || unnamed;
      secrets text[] := coalesce(string_to_array(TG_ARGV[1], ','), '{}');
      old_row jsonb := CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) END;
      new_row jsonb := CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) END;
      found_row jsonb := coalesce(new_row, old_row);
      changed text[] := '{}';
      snapshot jsonb := jsonb_build_object('schema_version', 1, 'table', TG_TABLE_NAME, 'changed', '[]'::jsonb);
      part text;
      key text;
      what text := CASE TG_OP WHEN 'INSERT' THEN 'CREATE' ELSE TG_OP END;
      actor jsonb := stemma.stemma_actor();
      who uuid := (actor ->> 'user_id')::uuid;
      setting text := coalesce(current_setting('stemma.workspace_id', true), '');
      place uuid := nullif(setting, '')::uuid;
    BEGIN
      IF TG_OP = 'UPDATE' THEN
        IF old_row - silent = new_row - silent THEN RETURN NULL; END IF;
        changed := ARRAY(SELECT name FROM jsonb_each(new_row) AS each (name, item)
                          WHERE item IS DISTINCT FROM old_row -> name AND name <> ALL (unnamed) ORDER BY name);
        IF 'deleted_at' = ANY (changed) AND (old_row ->> 'deleted_at' IS NULL) <> (new_row ->> 'deleted_at' IS NULL) THEN
          what := CASE WHEN old_row ->> 'deleted_at' IS NULL THEN 'DELETE' ELSE 'RESTORE' END;
        END IF;
      END IF;
      FOREACH part IN ARRAY string_to_array(TG_ARGV[0], ',') LOOP
        key := concat_ws('/', key, found_row ->> part);
      END LOOP;
      IF who IS NOT NULL THEN
        SELECT users.id INTO who FROM stemma.users WHERE users.id = who FOR KEY SHARE;
      END IF;
      -- Nobody else may write a record of a workspace from outside of it.
      IF place IS NULL AND current_user = 'stemma_maintenance' THEN
        place := (found_row ->> 'workspace_id')::uuid;
      END IF;
      IF place IS NOT NULL THEN
        SELECT workspaces.id INTO place FROM stemma.workspaces WHERE workspaces.id = place FOR KEY SHARE;
      END IF;
      IF place IS NULL AND setting <> '' THEN
        -- The workspace is gone with this transaction; a record of none may only be written outside.
        PERFORM set_config('stemma.workspace_id', '', true);
      END IF;
      INSERT INTO stemma.audit_logs
             (user_id, workspace_id, actor_type, action, entity, entity_id, before, after, ip_address, user_agent, created_at, updated_at)
      VALUES (who, place, coalesce(actor ->> 'type', 'SYSTEM')::stemma.actor_type, what, TG_TABLE_NAME, key,
              CASE WHEN old_row IS NOT NULL THEN snapshot || jsonb_build_object('data', stemma.stemma_mask(old_row, secrets)) END,
              CASE WHEN new_row IS NOT NULL THEN
                snapshot || jsonb_build_object('data', stemma.stemma_mask(new_row, secrets), 'changed', changed) END,
              (actor ->> 'ip_address')::inet, actor ->> 'user_agent', clock_timestamp(), clock_timestamp());
      IF place IS NULL AND setting <> '' THEN
        PERFORM set_config('stemma.workspace_id', setting, true);
      END IF;
      RETURN NULL;
    END $$
    """,
)

_TYPES = {
    "user_status": "('ACTIVE', 'SUSPENDED', 'DELETED')",
    "actor_type": "('USER', 'ADMIN', 'API_KEY', 'SYSTEM')",
    "mfa_method": "('TOTP', 'SMS', 'EMAIL', 'WEBAUTHN')",
}

# In the order of their references.
_TABLES = {
    "users": r"""
    CREATE TABLE stemma.users (
        id uuid NOT NULL DEFAULT stemma.stemma_uuidv7(),
        email text NOT NULL,
        password_hash text,
        name text,
        first_name text,
        last_name text,
        phone text,
        email_verified boolean NOT NULL DEFAULT false,
        email_verified_at timestamptz,
        failed_login_count integer NOT NULL DEFAULT 0,
        lockout_until timestamptz,
        two_factor_secret text,
        two_factor_enabled boolean NOT NULL DEFAULT false,
        status stemma.user_status NOT NULL DEFAULT 'ACTIVE',
        last_login_at timestamptz,
        deleted_at timestamptz,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT users_pkey PRIMARY KEY (id),
        CONSTRAINT users_email_key UNIQUE (email),
        CONSTRAINT users_email_format_check CHECK (email ~ '^[^@\s]+@[^@\s]+\.[^@\s]+$'),
        CONSTRAINT users_email_lower_check CHECK (email = lower(btrim(email))),
        CONSTRAINT users_password_hash_format_check CHECK (password_hash IS NULL OR password_hash ~ '^\$(2[aby]|argon2id)\$'),
        CONSTRAINT users_failed_login_count_check CHECK (failed_login_count >= 0),
        CONSTRAINT users_two_factor_check CHECK (NOT two_factor_enabled OR two_factor_secret IS NOT NULL),
        CONSTRAINT users_email_verified_check CHECK (NOT email_verified OR email_verified_at IS NOT NULL),
        CONSTRAINT users_soft_delete_check CHECK ((status = 'DELETED') = (deleted_at IS NOT NULL))
    );
    CREATE INDEX users_status_created_at_idx ON stemma.users (status, created_at);
    CREATE INDEX users_deleted_at_idx ON stemma.users (deleted_at) WHERE deleted_at IS NOT NULL
    """,
    "workspaces": """
    CREATE TABLE stemma.workspaces (
        id uuid NOT NULL DEFAULT stemma.stemma_uuidv7(),
        owner_id uuid NOT NULL,
        name text NOT NULL,
        slug text NOT NULL,
        description text,
        settings jsonb NOT NULL DEFAULT '{"schema_version": 1}'::jsonb,
        deleted_at timestamptz,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT workspaces_pkey PRIMARY KEY (id),
        CONSTRAINT workspaces_name_check CHECK (btrim(name) <> ''),
        CONSTRAINT workspaces_slug_format_check CHECK (slug ~ '^[a-z0-9]+(-[a-z0-9]+)*$'),
        CONSTRAINT workspaces_owner_id_fkey FOREIGN KEY (owner_id) REFERENCES stemma.users (id) ON DELETE RESTRICT
    );
    CREATE UNIQUE INDEX workspaces_slug_live_key ON stemma.workspaces (slug) WHERE deleted_at IS NULL;
    CREATE INDEX workspaces_owner_id_idx ON stemma.workspaces (owner_id);
    CREATE INDEX workspaces_deleted_at_idx ON stemma.workspaces (deleted_at) WHERE deleted_at IS NOT NULL
    """,
    "user_sessions": """
    CREATE TABLE stemma.user_sessions (
        id uuid NOT NULL DEFAULT stemma.stemma_uuidv7(),
        user_id uuid NOT NULL,
        family_id uuid NOT NULL,
        refresh_token_hash bytea NOT NULL,
        fingerprint text,
        ip_address inet,
        user_agent text,
        expires_at timestamptz NOT NULL,
        idle_expires_at timestamptz NOT NULL,
        last_seen_at timestamptz,
        rotated_at timestamptz,
        revoked_at timestamptz,
        revoked_reason text,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT user_sessions_pkey PRIMARY KEY (id),
        CONSTRAINT user_sessions_refresh_token_hash_key UNIQUE (refresh_token_hash),
        CONSTRAINT user_sessions_expires_after_created_check CHECK (expires_at > created_at),
        CONSTRAINT user_sessions_idle_within_check CHECK (idle_expires_at <= expires_at),
        CONSTRAINT user_sessions_hash_length_check CHECK (octet_length(refresh_token_hash) = 32),
        CONSTRAINT user_sessions_user_id_fkey FOREIGN KEY (user_id) REFERENCES stemma.users (id) ON DELETE CASCADE
    );
    CREATE INDEX user_sessions_user_id_revoked_at_idx ON stemma.user_sessions (user_id, revoked_at);
    CREATE INDEX user_sessions_family_id_idx ON stemma.user_sessions (family_id);
    CREATE INDEX user_sessions_expires_at_revoked_at_idx ON stemma.user_sessions (expires_at, revoked_at)
    """,
    "oauth_accounts": """
    CREATE TABLE stemma.oauth_accounts (
        id uuid NOT NULL DEFAULT stemma.stemma_uuidv7(),
        user_id uuid NOT NULL,
        provider text NOT NULL,
        provider_account_id text NOT NULL,
        email text,
        access_token text,
        refresh_token text,
        token_type text,
        scope text,
        token_expires_at timestamptz,
        profile jsonb NOT NULL DEFAULT '{"schema_version": 1}'::jsonb,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT oauth_accounts_pkey PRIMARY KEY (id),
        CONSTRAINT oauth_accounts_provider_provider_account_id_key UNIQUE (provider, provider_account_id),
        CONSTRAINT oauth_accounts_provider_check CHECK (provider = lower(provider) AND provider <> ''),
        CONSTRAINT oauth_accounts_user_id_fkey FOREIGN KEY (user_id) REFERENCES stemma.users (id) ON DELETE CASCADE
    );
    CREATE INDEX oauth_accounts_user_id_idx ON stemma.oauth_accounts (user_id)
    """,
    "mfa_settings": """
    CREATE TABLE stemma.mfa_settings (
        id uuid NOT NULL DEFAULT stemma.stemma_uuidv7(),
        user_id uuid NOT NULL,
        method stemma.mfa_method NOT NULL DEFAULT 'TOTP',
        backup_code_hashes bytea[] NOT NULL DEFAULT '{}',
        enabled_at timestamptz,
        last_used_at timestamptz,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT mfa_settings_pkey PRIMARY KEY (id),
        CONSTRAINT mfa_settings_user_id_key UNIQUE (user_id),
        CONSTRAINT mfa_settings_user_id_fkey FOREIGN KEY (user_id) REFERENCES stemma.users (id) ON DELETE CASCADE
    )
    """,
    "email_verification_tokens": """
    CREATE TABLE stemma.email_verification_tokens (
        id uuid NOT NULL DEFAULT stemma.stemma_uuidv7(),
        user_id uuid NOT NULL,
        token_hash bytea NOT NULL,
        email text NOT NULL,
        expires_at timestamptz NOT NULL,
        used_at timestamptz,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT email_verification_tokens_pkey PRIMARY KEY (id),
        CONSTRAINT email_verification_tokens_token_hash_key UNIQUE (token_hash),
        CONSTRAINT email_verification_tokens_hash_length_check CHECK (octet_length(token_hash) = 32),
        CONSTRAINT email_verification_tokens_expires_after_created_check CHECK (expires_at > created_at),
        CONSTRAINT email_verification_tokens_user_id_fkey FOREIGN KEY (user_id) REFERENCES stemma.users (id) ON DELETE CASCADE
    );
    CREATE INDEX email_verification_tokens_user_id_idx ON stemma.email_verification_tokens (user_id);
    CREATE INDEX email_verification_tokens_expires_at_idx ON stemma.email_verification_tokens (expires_at)
    """,
    "password_reset_tokens": """
    CREATE TABLE stemma.password_reset_tokens (
        id uuid NOT NULL DEFAULT stemma.stemma_uuidv7(),
        user_id uuid NOT NULL,
        token_hash bytea NOT NULL,
        ip_address inet,
        expires_at timestamptz NOT NULL,
        used_at timestamptz,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT password_reset_tokens_pkey PRIMARY KEY (id),
        CONSTRAINT password_reset_tokens_token_hash_key UNIQUE (token_hash),
        CONSTRAINT password_reset_tokens_hash_length_check CHECK (octet_length(token_hash) = 32),
        CONSTRAINT password_reset_tokens_expires_after_created_check CHECK (expires_at > created_at),
        CONSTRAINT password_reset_tokens_user_id_fkey FOREIGN KEY (user_id) REFERENCES stemma.users (id) ON DELETE CASCADE
    );
    CREATE INDEX password_reset_tokens_user_id_idx ON stemma.password_reset_tokens (user_id);
    CREATE INDEX password_reset_tokens_expires_at_idx ON stemma.password_reset_tokens (expires_at)
    """,
    "api_keys": """
    CREATE TABLE stemma.api_keys (
        id uuid NOT NULL DEFAULT stemma.stemma_uuidv7(),
        user_id uuid NOT NULL,
        workspace_id uuid,
        name text NOT NULL,
        prefix text NOT NULL,
        key_hash bytea NOT NULL,
        pepper_version smallint,
        last_four text,
        scopes text[] NOT NULL DEFAULT '{}',
        expires_at timestamptz,
        revoked_at timestamptz,
        rotated_from_id uuid,
        last_used_at timestamptz,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT api_keys_pkey PRIMARY KEY (id),
        CONSTRAINT api_keys_prefix_key UNIQUE (prefix),
        CONSTRAINT api_keys_name_check CHECK (btrim(name) <> ''),
        CONSTRAINT api_keys_prefix_format_check CHECK (prefix ~ '^[0-9A-Za-z_-]{8,64}$'),
        CONSTRAINT api_keys_hash_length_check CHECK (octet_length(key_hash) = 32),
        CONSTRAINT api_keys_scopes_check CHECK (
            array_position(scopes, NULL) IS NULL
            AND stemma.stemma_join_text(scopes) ~ '^([a-z][a-z0-9_]*:([a-z][a-z0-9_]*|[*])( |$))*$'
        ),
        CONSTRAINT api_keys_expires_after_created_check CHECK (expires_at IS NULL OR expires_at > created_at),
        CONSTRAINT api_keys_user_id_fkey FOREIGN KEY (user_id) REFERENCES stemma.users (id) ON DELETE CASCADE,
        CONSTRAINT api_keys_workspace_id_fkey FOREIGN KEY (workspace_id) REFERENCES stemma.workspaces (id) ON DELETE CASCADE,
        CONSTRAINT api_keys_rotated_from_id_fkey FOREIGN KEY (rotated_from_id) REFERENCES stemma.api_keys (id) ON DELETE SET NULL
    );
    CREATE INDEX api_keys_user_id_created_at_idx ON stemma.api_keys (user_id, created_at DESC);
    CREATE INDEX api_keys_workspace_id_idx ON stemma.api_keys (workspace_id);
    CREATE INDEX api_keys_rotated_from_id_idx ON stemma.api_keys (rotated_from_id)
    """,
    "roles": """
    CREATE TABLE stemma.roles (
        id uuid NOT NULL DEFAULT stemma.stemma_uuidv7(),
        name text NOT NULL,
        description text,
        is_system boolean NOT NULL DEFAULT false,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT roles_pkey PRIMARY KEY (id),
        CONSTRAINT roles_name_key UNIQUE (name),
        CONSTRAINT roles_name_check CHECK (name ~ '^[a-z][a-z0-9_-]{0,62}$')
    )
    """,
    "permissions": r"""
    CREATE TABLE stemma.permissions (
        id uuid NOT NULL DEFAULT stemma.stemma_uuidv7(),
        key text NOT NULL,
        description text,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT permissions_pkey PRIMARY KEY (id),
        CONSTRAINT permissions_key_key UNIQUE (key),
        CONSTRAINT permissions_key_format_check CHECK (key ~ '^[a-z][a-z0-9_]*:([a-z][a-z0-9_]*|\*)$')
    )
    """,
    "role_permissions": """
    CREATE TABLE stemma.role_permissions (
        role_id uuid NOT NULL,
        permission_id uuid NOT NULL,
        assigned_at timestamptz NOT NULL DEFAULT now(),
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT role_permissions_pkey PRIMARY KEY (role_id, permission_id),
        CONSTRAINT role_permissions_role_id_fkey FOREIGN KEY (role_id) REFERENCES stemma.roles (id) ON DELETE CASCADE,
        CONSTRAINT role_permissions_permission_id_fkey FOREIGN KEY (permission_id) REFERENCES stemma.permissions (id) ON DELETE CASCADE
    );
    CREATE INDEX role_permissions_permission_id_idx ON stemma.role_permissions (permission_id)
    """,
    "user_roles": """
    CREATE TABLE stemma.user_roles (
        user_id uuid NOT NULL,
        role_id uuid NOT NULL,
        assigned_at timestamptz NOT NULL DEFAULT now(),
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT user_roles_pkey PRIMARY KEY (user_id, role_id),
        CONSTRAINT user_roles_user_id_fkey FOREIGN KEY (user_id) REFERENCES stemma.users (id) ON DELETE CASCADE,
        CONSTRAINT user_roles_role_id_fkey FOREIGN KEY (role_id) REFERENCES stemma.roles (id) ON DELETE CASCADE
    );
    CREATE INDEX user_roles_role_id_idx ON stemma.user_roles (role_id)
    """,
    "user_permissions": """
    CREATE TABLE stemma.user_permissions (
        user_id uuid NOT NULL,
        permission_id uuid NOT NULL,
        assigned_at timestamptz NOT NULL DEFAULT now(),
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT user_permissions_pkey PRIMARY KEY (user_id, permission_id),
        CONSTRAINT user_permissions_user_id_fkey FOREIGN KEY (user_id) REFERENCES stemma.users (id) ON DELETE CASCADE,
        CONSTRAINT user_permissions_permission_id_fkey FOREIGN KEY (permission_id) REFERENCES stemma.permissions (id) ON DELETE CASCADE
    );
    CREATE INDEX user_permissions_permission_id_idx ON stemma.user_permissions (permission_id)
    """,
    "security_events": """
    CREATE TABLE stemma.security_events (
        id uuid NOT NULL DEFAULT stemma.stemma_uuidv7(),
        user_id uuid,
        type text NOT NULL,
        ip_address inet,
        user_agent text,
        payload jsonb NOT NULL DEFAULT '{"schema_version": 1}'::jsonb,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT security_events_pkey PRIMARY KEY (id),
        CONSTRAINT security_events_type_format_check CHECK (type ~ '^[A-Z][A-Z0-9_]*$'),
        CONSTRAINT security_events_user_id_fkey FOREIGN KEY (user_id) REFERENCES stemma.users (id) ON DELETE SET NULL
    );
    CREATE INDEX security_events_user_id_created_at_idx ON stemma.security_events (user_id, created_at DESC);
    CREATE INDEX security_events_type_created_at_idx ON stemma.security_events (type, created_at DESC)
    """,
    "audit_logs": """
    CREATE TABLE stemma.audit_logs (
        id uuid NOT NULL DEFAULT stemma.stemma_uuidv7(),
        user_id uuid,
        workspace_id uuid,
        actor_type stemma.actor_type NOT NULL DEFAULT 'SYSTEM',
        action text NOT NULL,
        entity text NOT NULL,
        entity_id text NOT NULL,
        before jsonb,
        after jsonb,
        ip_address inet,
        user_agent text,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT audit_logs_pkey PRIMARY KEY (id),
        CONSTRAINT audit_logs_action_format_check CHECK (action ~ '^[A-Z][A-Z0-9_]*$'),
        CONSTRAINT audit_logs_user_id_fkey FOREIGN KEY (user_id) REFERENCES stemma.users (id) ON DELETE SET NULL,
        CONSTRAINT audit_logs_workspace_id_fkey FOREIGN KEY (workspace_id) REFERENCES stemma.workspaces (id) ON DELETE SET NULL
    );
    CREATE INDEX audit_logs_user_id_created_at_idx ON stemma.audit_logs (user_id, created_at DESC);
    CREATE INDEX audit_logs_workspace_id_created_at_idx ON stemma.audit_logs (workspace_id, created_at DESC);
    CREATE INDEX audit_logs_entity_entity_id_created_at_idx ON stemma.audit_logs (entity, entity_id, created_at DESC);
    CREATE INDEX audit_logs_created_at_idx ON stemma.audit_logs (created_at)
    """,
    "workspace_members": """
    CREATE TABLE stemma.workspace_members (
        workspace_id uuid NOT NULL DEFAULT stemma.stemma_workspace_id(),
        id uuid NOT NULL DEFAULT stemma.stemma_uuidv7(),
        user_id uuid NOT NULL,
        role text NOT NULL DEFAULT 'MEMBER',
        invited_by_id uuid,
        invited_at timestamptz,
        joined_at timestamptz NOT NULL DEFAULT now(),
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT workspace_members_pkey PRIMARY KEY (workspace_id, id),
        CONSTRAINT workspace_members_user_id_key UNIQUE (workspace_id, user_id),
        CONSTRAINT workspace_members_role_check CHECK (role IN ('OWNER', 'ADMIN', 'MEMBER', 'VIEWER')),
        CONSTRAINT workspace_members_workspace_id_fkey FOREIGN KEY (workspace_id) REFERENCES stemma.workspaces (id) ON DELETE CASCADE,
        CONSTRAINT workspace_members_user_id_fkey FOREIGN KEY (user_id) REFERENCES stemma.users (id) ON DELETE CASCADE,
        CONSTRAINT workspace_members_invited_by_id_fkey FOREIGN KEY (invited_by_id) REFERENCES stemma.users (id) ON DELETE SET NULL
    );
    CREATE INDEX workspace_members_user_id_idx ON stemma.workspace_members (user_id);
    CREATE INDEX workspace_members_invited_by_id_idx ON stemma.workspace_members (invited_by_id)
    """,
    "ai_provider_configs": """
    CREATE TABLE stemma.ai_provider_configs (
        workspace_id uuid NOT NULL DEFAULT stemma.stemma_workspace_id(),
        id uuid NOT NULL DEFAULT stemma.stemma_uuidv7(),
        provider text NOT NULL,
        label text NOT NULL DEFAULT 'default',
        api_key text,
        api_key_hint text,
        base_url text,
        default_model text,
        is_default boolean NOT NULL DEFAULT false,
        is_enabled boolean NOT NULL DEFAULT true,
        daily_token_limit bigint,
        tokens_used_today bigint NOT NULL DEFAULT 0,
        tokens_reset_on date,
        last_validated_at timestamptz,
        last_error text,
        settings jsonb NOT NULL DEFAULT '{"schema_version": 1}'::jsonb,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT ai_provider_configs_pkey PRIMARY KEY (workspace_id, id),
        CONSTRAINT ai_provider_configs_provider_label_key UNIQUE (workspace_id, provider, label),
        CONSTRAINT ai_provider_configs_provider_check CHECK (
            provider IN ('OPENAI', 'ANTHROPIC', 'GOOGLE', 'MISTRAL', 'DEEPSEEK', 'XAI', 'OPENROUTER', 'AZURE_OPENAI', 'OLLAMA', 'CUSTOM')
        ),
        CONSTRAINT ai_provider_configs_label_check CHECK (btrim(label) <> ''),
        CONSTRAINT ai_provider_configs_api_key_check CHECK (api_key IS NULL OR api_key ~ '^v[0-9]+:[A-Za-z0-9_-]+:[A-Za-z0-9+/=]+$'),
        CONSTRAINT ai_provider_configs_daily_token_limit_check CHECK (daily_token_limit IS NULL OR daily_token_limit > 0),
        CONSTRAINT ai_provider_configs_tokens_used_today_check CHECK (tokens_used_today >= 0),
        CONSTRAINT ai_provider_configs_base_url_check CHECK (base_url IS NULL OR base_url ~ '^https?://'),
        CONSTRAINT ai_provider_configs_workspace_id_fkey FOREIGN KEY (workspace_id) REFERENCES stemma.workspaces (id) ON DELETE CASCADE
    );
    CREATE UNIQUE INDEX ai_provider_configs_default_key ON stemma.ai_provider_configs (workspace_id) WHERE is_default
    """,
    "approval_items": """
    CREATE TABLE stemma.approval_items (
        workspace_id uuid NOT NULL DEFAULT stemma.stemma_workspace_id(),
        id uuid NOT NULL DEFAULT stemma.stemma_uuidv7(),
        type text NOT NULL,
        title text NOT NULL,
        description text,
        status text NOT NULL DEFAULT 'PENDING',
        priority smallint NOT NULL DEFAULT 1,
        confidence_score numeric(5,2),
        payload jsonb NOT NULL DEFAULT '{"schema_version": 1}'::jsonb,
        requested_by_id uuid,
        assigned_to_id uuid,
        decided_by_id uuid,
        decided_at timestamptz,
        decision_note text,
        due_at timestamptz,
        version integer NOT NULL DEFAULT 1,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT approval_items_pkey PRIMARY KEY (workspace_id, id),
        CONSTRAINT approval_items_status_check CHECK (status IN ('PENDING', 'APPROVED', 'REJECTED', 'CANCELLED', 'EXPIRED')),
        CONSTRAINT approval_items_priority_check CHECK (priority BETWEEN 0 AND 3),
        CONSTRAINT approval_items_confidence_score_check CHECK (confidence_score IS NULL OR confidence_score BETWEEN 0 AND 100),
        CONSTRAINT approval_items_decided_check CHECK ((status IN ('APPROVED', 'REJECTED')) = (decided_at IS NOT NULL)),
        CONSTRAINT approval_items_title_check CHECK (btrim(title) <> ''),
        CONSTRAINT approval_items_workspace_id_fkey FOREIGN KEY (workspace_id) REFERENCES stemma.workspaces (id) ON DELETE CASCADE,
        CONSTRAINT approval_items_requested_by_id_fkey FOREIGN KEY (requested_by_id) REFERENCES stemma.users (id) ON DELETE SET NULL,
        CONSTRAINT approval_items_assigned_to_id_fkey FOREIGN KEY (assigned_to_id) REFERENCES stemma.users (id) ON DELETE SET NULL,
        CONSTRAINT approval_items_decided_by_id_fkey FOREIGN KEY (decided_by_id) REFERENCES stemma.users (id) ON DELETE SET NULL
    );
    CREATE INDEX approval_items_queue_idx ON stemma.approval_items (workspace_id, status, priority DESC, created_at, id);
    CREATE INDEX approval_items_assignee_idx
        ON stemma.approval_items (workspace_id, assigned_to_id, status) WHERE assigned_to_id IS NOT NULL;
    CREATE INDEX approval_items_assigned_to_id_idx ON stemma.approval_items (assigned_to_id);
    CREATE INDEX approval_items_requested_by_id_idx ON stemma.approval_items (requested_by_id);
    CREATE INDEX approval_items_decided_by_id_idx ON stemma.approval_items (decided_by_id);
    CREATE INDEX approval_items_due_at_idx ON stemma.approval_items (workspace_id, due_at) WHERE status = 'PENDING'
    """,
    "stemma_seed_history": """
    CREATE TABLE stemma.stemma_seed_history (
        id uuid NOT NULL DEFAULT stemma.stemma_uuidv7(),
        profile text NOT NULL,
        module text NOT NULL,
        checksum text NOT NULL,
        row_counts jsonb NOT NULL DEFAULT '{"schema_version": 1}'::jsonb,
        applied_at timestamptz NOT NULL DEFAULT now(),
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT stemma_seed_history_pkey PRIMARY KEY (id),
        CONSTRAINT stemma_seed_history_profile_module_key UNIQUE (profile, module)
    )
    """,
    "stemma_idempotency_keys": """
    CREATE TABLE stemma.stemma_idempotency_keys (
        id uuid NOT NULL DEFAULT stemma.stemma_uuidv7(),
        workspace_id uuid DEFAULT stemma.stemma_workspace_id(),
        key text NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT stemma_idempotency_keys_pkey PRIMARY KEY (id),
        CONSTRAINT stemma_idempotency_keys_workspace_id_key_key UNIQUE NULLS NOT DISTINCT (workspace_id, key),
        CONSTRAINT stemma_idempotency_keys_key_check CHECK (btrim(key) <> '' AND length(key) <= 200),
        CONSTRAINT stemma_idempotency_keys_workspace_id_fkey FOREIGN KEY (workspace_id)
            REFERENCES stemma.workspaces (id) ON DELETE CASCADE
    );
    CREATE INDEX stemma_idempotency_keys_created_at_idx ON stemma.stemma_idempotency_keys (created_at)
    """,
}

_VERSIONED = ("approval_items",)
_APPEND_ONLY = ("audit_logs", "security_events")
# By the columns of the key without the workspace, those that are secret, and those whose change alone makes no record. Not audited are
# sessions and tokens, whose story the security events tell, and the logs.
_AUDITED = {
    "users": ("id", "password_hash,two_factor_secret", "failed_login_count,lockout_until,last_login_at"),
    "oauth_accounts": ("id", "access_token,refresh_token", ""),
    "mfa_settings": ("id", "backup_code_hashes", "last_used_at"),
    "api_keys": ("id", "key_hash", "last_used_at"),
    "roles": ("id", "", ""),
    "permissions": ("id", "", ""),
    "role_permissions": ("role_id,permission_id", "", ""),
    "user_roles": ("user_id,role_id", "", ""),
    "user_permissions": ("user_id,permission_id", "", ""),
    "workspaces": ("id", "", ""),
    "workspace_members": ("id", "", ""),
    "ai_provider_configs": ("id", "api_key", "tokens_used_today,tokens_reset_on"),
    "approval_items": ("id", "", ""),
}
_TENANT = ("workspace_members", "ai_provider_configs", "approval_items")
# Inside a workspace its rows, outside one only the rows of none.
_WORKSPACE_OR_NONE = ("audit_logs", "stemma_idempotency_keys")

_WORKSPACE = "nullif(current_setting('stemma.workspace_id', true), '')::uuid"

# A person's own memberships can be listed before a workspace is chosen.
_OWN_MEMBERSHIPS = """
    CREATE POLICY workspace_members_self ON stemma.workspace_members
        FOR SELECT USING (user_id = nullif(current_setting('stemma.user_id', true), '')::uuid)
"""


def _policy(table: str, rule: str) -> None:
    op.execute(f"ALTER TABLE stemma.{table} ENABLE ROW LEVEL SECURITY")
    op.execute(f"ALTER TABLE stemma.{table} FORCE ROW LEVEL SECURITY")
    op.execute(f"CREATE POLICY {table}_tenant ON stemma.{table} USING ({rule}) WITH CHECK ({rule})")


def _trigger(table: str, name: str, events: str, function: str) -> None:
    op.execute(f"CREATE TRIGGER {table}_{name} BEFORE {events} ON stemma.{table} FOR EACH ROW EXECUTE FUNCTION stemma.{function}()")


def upgrade() -> None:
    for statement in _FUNCTIONS:
        op.execute(statement)
    for name, labels in _TYPES.items():
        op.execute(f"CREATE TYPE stemma.{name} AS ENUM {labels}")
    for statement in _TABLES.values():
        op.execute(statement)
    for table in _TABLES:
        _trigger(table, "set_updated_at", "UPDATE", "stemma_set_updated_at")
    for table in _VERSIONED:
        _trigger(table, "bump_version", "UPDATE", "stemma_bump_version")
    for table in _APPEND_ONLY:
        _trigger(table, "append_only", "DELETE OR UPDATE", "stemma_append_only")
        op.execute(
            f"CREATE TRIGGER {table}_not_emptied BEFORE TRUNCATE ON stemma.{table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION stemma.stemma_append_only()"
        )
    for table, arguments in _AUDITED.items():
        listed = ", ".join(f"'{argument}'" for argument in arguments)
        op.execute(
            f"CREATE TRIGGER {table}_audit AFTER INSERT OR DELETE OR UPDATE ON stemma.{table} "
            f"FOR EACH ROW EXECUTE FUNCTION stemma.stemma_audit({listed})"
        )
    for table in _TENANT:
        _policy(table, f"workspace_id = {_WORKSPACE}")
    for table in _WORKSPACE_OR_NONE:
        _policy(table, f"workspace_id IS NOT DISTINCT FROM {_WORKSPACE}")
    op.execute(_OWN_MEMBERSHIPS)


def downgrade() -> None:
    # No CASCADE: an object of somebody else that depends on these stops the downgrade instead of disappearing.
    op.execute("DROP TABLE " + ", ".join(f"stemma.{table}" for table in _TABLES))
    op.execute("DROP TYPE " + ", ".join(f"stemma.{name}" for name in _TYPES))
    op.execute(
        """
        DROP FUNCTION
            stemma.stemma_audit(), stemma.stemma_mask(jsonb, text[], integer), stemma.stemma_actor(),
            stemma.stemma_append_only(), stemma.stemma_refuse(text, text, text, text), stemma.stemma_bump_version(),
            stemma.stemma_set_updated_at(), stemma.stemma_document_hash(jsonb), stemma.stemma_document_version(jsonb),
            stemma.stemma_join_text(text[]), stemma.stemma_workspace_id(), stemma.stemma_uuidv7()
        """
    )
