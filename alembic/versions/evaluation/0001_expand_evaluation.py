"""
Definitions, runs, transcripts, scores and what is computed from them.

Phase:  expand. The first revision of its branch; a release without the pack keeps working beside it.
Locks:  SHARE ROW EXCLUSIVE on users and workspaces for milliseconds, because new foreign keys point at them: writes to the two wait.
Undo:   loses every definition, run, transcript, score and result.
"""

from alembic import op

revision = "evaluation_0001"
down_revision = None
branch_labels = ("evaluation",)
depends_on = ("base_0001",)

# In the order of their references. A child definition is one level below its parent and in its tree (definitions_parent_id_fkey):
# since depth grows along every edge, no statement can make a cycle.
_TABLES = {
    "definitions": """
    CREATE TABLE stemma.definitions (
        workspace_id uuid NOT NULL DEFAULT stemma.stemma_workspace_id(),
        id uuid NOT NULL DEFAULT stemma.stemma_uuidv7(),
        parent_id uuid,
        root_id uuid NOT NULL,
        depth integer NOT NULL DEFAULT 0,
        parent_depth integer GENERATED ALWAYS AS (depth - 1) STORED,
        name text NOT NULL,
        content jsonb NOT NULL,
        content_version integer GENERATED ALWAYS AS (stemma.stemma_document_version(content)) STORED,
        content_hash bytea GENERATED ALWAYS AS (stemma.stemma_document_hash(content)) STORED,
        message text,
        frozen_at timestamptz,
        version integer NOT NULL DEFAULT 1,
        created_by_id uuid,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT definitions_pkey PRIMARY KEY (workspace_id, id),
        CONSTRAINT definitions_lineage_key UNIQUE (workspace_id, id, root_id, depth),
        CONSTRAINT definitions_name_check CHECK (btrim(name) <> '' AND length(name) <= 200),
        CONSTRAINT definitions_lineage_check CHECK (CASE WHEN parent_id IS NULL THEN root_id = id AND depth = 0 ELSE depth > 0 END),
        CONSTRAINT definitions_content_object_check CHECK (jsonb_typeof(content) = 'object'),
        CONSTRAINT definitions_workspace_id_fkey FOREIGN KEY (workspace_id) REFERENCES stemma.workspaces (id) ON DELETE CASCADE,
        CONSTRAINT definitions_parent_id_fkey FOREIGN KEY (workspace_id, parent_id, root_id, parent_depth)
            REFERENCES stemma.definitions (workspace_id, id, root_id, depth) ON DELETE NO ACTION,
        CONSTRAINT definitions_created_by_id_fkey FOREIGN KEY (created_by_id) REFERENCES stemma.users (id) ON DELETE SET NULL
    );
    CREATE INDEX definitions_parent_id_idx ON stemma.definitions (workspace_id, parent_id) INCLUDE (id);
    CREATE INDEX definitions_root_id_depth_idx ON stemma.definitions (workspace_id, root_id, depth) INCLUDE (id, parent_id);
    CREATE INDEX definitions_created_at_id_idx ON stemma.definitions (workspace_id, created_at DESC, id DESC);
    CREATE INDEX definitions_content_hash_idx ON stemma.definitions (workspace_id, content_hash);
    CREATE INDEX definitions_name_created_at_idx ON stemma.definitions (workspace_id, name, created_at DESC);
    CREATE INDEX definitions_created_by_id_idx ON stemma.definitions (created_by_id)
    """,
    "definition_labels": """
    CREATE TABLE stemma.definition_labels (
        workspace_id uuid NOT NULL DEFAULT stemma.stemma_workspace_id(),
        name text NOT NULL,
        definition_id uuid NOT NULL,
        is_protected boolean NOT NULL DEFAULT false,
        description text,
        moved_by_id uuid,
        moved_at timestamptz NOT NULL DEFAULT now(),
        version integer NOT NULL DEFAULT 1,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT definition_labels_pkey PRIMARY KEY (workspace_id, name),
        CONSTRAINT definition_labels_name_check CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9._/-]{0,199}$'),
        CONSTRAINT definition_labels_workspace_id_fkey FOREIGN KEY (workspace_id) REFERENCES stemma.workspaces (id) ON DELETE CASCADE,
        CONSTRAINT definition_labels_definition_id_fkey FOREIGN KEY (workspace_id, definition_id)
            REFERENCES stemma.definitions (workspace_id, id) ON DELETE NO ACTION,
        CONSTRAINT definition_labels_moved_by_id_fkey FOREIGN KEY (moved_by_id) REFERENCES stemma.users (id) ON DELETE SET NULL
    );
    CREATE INDEX definition_labels_definition_id_idx ON stemma.definition_labels (workspace_id, definition_id);
    CREATE INDEX definition_labels_moved_by_id_idx ON stemma.definition_labels (moved_by_id)
    """,
    "scenarios": """
    CREATE TABLE stemma.scenarios (
        workspace_id uuid NOT NULL DEFAULT stemma.stemma_workspace_id(),
        id uuid NOT NULL DEFAULT stemma.stemma_uuidv7(),
        definition_id uuid NOT NULL,
        name text NOT NULL,
        content jsonb NOT NULL,
        content_version integer GENERATED ALWAYS AS (stemma.stemma_document_version(content)) STORED,
        content_hash bytea GENERATED ALWAYS AS (stemma.stemma_document_hash(content)) STORED,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT scenarios_pkey PRIMARY KEY (workspace_id, id),
        CONSTRAINT scenarios_definition_id_name_key UNIQUE (workspace_id, definition_id, name),
        CONSTRAINT scenarios_definition_id_content_hash_key UNIQUE (workspace_id, definition_id, content_hash),
        CONSTRAINT scenarios_name_check CHECK (btrim(name) <> ''),
        CONSTRAINT scenarios_content_object_check CHECK (jsonb_typeof(content) = 'object'),
        CONSTRAINT scenarios_workspace_id_fkey FOREIGN KEY (workspace_id) REFERENCES stemma.workspaces (id) ON DELETE CASCADE,
        CONSTRAINT scenarios_definition_id_fkey FOREIGN KEY (workspace_id, definition_id)
            REFERENCES stemma.definitions (workspace_id, id) ON DELETE CASCADE
    )
    """,
    "experiments": """
    CREATE TABLE stemma.experiments (
        workspace_id uuid NOT NULL DEFAULT stemma.stemma_workspace_id(),
        id uuid NOT NULL DEFAULT stemma.stemma_uuidv7(),
        name text NOT NULL,
        hypothesis text,
        null_hypothesis text,
        description text,
        status text NOT NULL DEFAULT 'DRAFT',
        analysis_plan jsonb,
        plan_hash bytea GENERATED ALWAYS AS (stemma.stemma_document_hash(analysis_plan)) STORED,
        plan_frozen_at timestamptz,
        conclusion text,
        concluded_at timestamptz,
        version integer NOT NULL DEFAULT 1,
        created_by_id uuid,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT experiments_pkey PRIMARY KEY (workspace_id, id),
        CONSTRAINT experiments_status_check CHECK (status IN ('DRAFT', 'ACTIVE', 'COMPLETED', 'ARCHIVED')),
        CONSTRAINT experiments_name_check CHECK (btrim(name) <> ''),
        CONSTRAINT experiments_plan_frozen_check CHECK (plan_frozen_at IS NULL OR analysis_plan IS NOT NULL),
        CONSTRAINT experiments_concluded_check CHECK (concluded_at IS NULL OR status IN ('COMPLETED', 'ARCHIVED')),
        CONSTRAINT experiments_workspace_id_fkey FOREIGN KEY (workspace_id) REFERENCES stemma.workspaces (id) ON DELETE CASCADE,
        CONSTRAINT experiments_created_by_id_fkey FOREIGN KEY (created_by_id) REFERENCES stemma.users (id) ON DELETE SET NULL
    );
    CREATE INDEX experiments_status_created_at_idx ON stemma.experiments (workspace_id, status, created_at DESC, id DESC);
    CREATE INDEX experiments_created_by_id_idx ON stemma.experiments (created_by_id)
    """,
    "experiment_amendments": """
    CREATE TABLE stemma.experiment_amendments (
        workspace_id uuid NOT NULL DEFAULT stemma.stemma_workspace_id(),
        id uuid NOT NULL DEFAULT stemma.stemma_uuidv7(),
        experiment_id uuid NOT NULL,
        sequence integer NOT NULL,
        plan jsonb NOT NULL,
        plan_hash bytea GENERATED ALWAYS AS (stemma.stemma_document_hash(plan)) STORED,
        reason text NOT NULL,
        amended_by_id uuid,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT experiment_amendments_pkey PRIMARY KEY (workspace_id, id),
        CONSTRAINT experiment_amendments_experiment_id_sequence_key UNIQUE (workspace_id, experiment_id, sequence),
        CONSTRAINT experiment_amendments_sequence_check CHECK (sequence >= 1),
        CONSTRAINT experiment_amendments_reason_check CHECK (btrim(reason) <> ''),
        CONSTRAINT experiment_amendments_plan_object_check CHECK (jsonb_typeof(plan) = 'object'),
        CONSTRAINT experiment_amendments_workspace_id_fkey FOREIGN KEY (workspace_id)
            REFERENCES stemma.workspaces (id) ON DELETE CASCADE,
        CONSTRAINT experiment_amendments_experiment_id_fkey FOREIGN KEY (workspace_id, experiment_id)
            REFERENCES stemma.experiments (workspace_id, id) ON DELETE CASCADE,
        CONSTRAINT experiment_amendments_amended_by_id_fkey FOREIGN KEY (amended_by_id) REFERENCES stemma.users (id) ON DELETE SET NULL
    );
    CREATE INDEX experiment_amendments_amended_by_id_idx ON stemma.experiment_amendments (amended_by_id)
    """,
    "runs": """
    CREATE TABLE stemma.runs (
        workspace_id uuid NOT NULL DEFAULT stemma.stemma_workspace_id(),
        id uuid NOT NULL DEFAULT stemma.stemma_uuidv7(),
        definition_id uuid NOT NULL,
        experiment_id uuid,
        name text,
        status text NOT NULL DEFAULT 'PENDING',
        config jsonb NOT NULL,
        config_version integer GENERATED ALWAYS AS (stemma.stemma_document_version(config)) STORED,
        config_hash bytea GENERATED ALWAYS AS (stemma.stemma_document_hash(config)) STORED,
        slot_count integer,
        progress jsonb DEFAULT '{"schema_version": 1, "total": 0, "completed": 0, "failed": 0}'::jsonb,
        error_code text,
        error_message text,
        cancel_requested_at timestamptz,
        started_at timestamptz,
        completed_at timestamptz,
        created_by_id uuid,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT runs_pkey PRIMARY KEY (workspace_id, id),
        CONSTRAINT runs_status_check CHECK (status IN ('PENDING', 'RUNNING', 'PAUSED', 'COMPLETED', 'PARTIAL', 'FAILED', 'CANCELLED')),
        CONSTRAINT runs_config_object_check CHECK (jsonb_typeof(config) = 'object'),
        CONSTRAINT runs_progress_source_check CHECK ((slot_count IS NULL) <> (progress IS NULL)),
        CONSTRAINT runs_slot_count_check CHECK (slot_count IS NULL OR slot_count >= 1),
        CONSTRAINT runs_progress_counts_check CHECK (
            coalesce((progress ->> 'total')::bigint, 0) >= 0 AND coalesce((progress ->> 'completed')::bigint, 0) >= 0
            AND coalesce((progress ->> 'failed')::bigint, 0) >= 0
            AND coalesce((progress ->> 'completed')::bigint, 0) + coalesce((progress ->> 'failed')::bigint, 0)
                <= coalesce((progress ->> 'total')::bigint, 0)
        ),
        CONSTRAINT runs_finished_check CHECK ((status IN ('COMPLETED', 'PARTIAL', 'FAILED', 'CANCELLED')) = (completed_at IS NOT NULL)),
        CONSTRAINT runs_times_check CHECK (started_at IS NULL OR completed_at IS NULL OR completed_at >= started_at),
        CONSTRAINT runs_workspace_id_fkey FOREIGN KEY (workspace_id) REFERENCES stemma.workspaces (id) ON DELETE CASCADE,
        CONSTRAINT runs_definition_id_fkey FOREIGN KEY (workspace_id, definition_id)
            REFERENCES stemma.definitions (workspace_id, id) ON DELETE NO ACTION,
        CONSTRAINT runs_experiment_id_fkey FOREIGN KEY (workspace_id, experiment_id)
            REFERENCES stemma.experiments (workspace_id, id) ON DELETE NO ACTION,
        CONSTRAINT runs_created_by_id_fkey FOREIGN KEY (created_by_id) REFERENCES stemma.users (id) ON DELETE SET NULL
    );
    CREATE INDEX runs_definition_id_created_at_idx ON stemma.runs (workspace_id, definition_id, created_at DESC, id DESC);
    CREATE INDEX runs_experiment_id_created_at_idx ON stemma.runs (workspace_id, experiment_id, created_at DESC);
    CREATE INDEX runs_status_created_at_idx ON stemma.runs (workspace_id, status, created_at DESC, id DESC);
    CREATE INDEX runs_created_at_id_idx ON stemma.runs (workspace_id, created_at DESC, id DESC);
    CREATE INDEX runs_created_by_id_idx ON stemma.runs (created_by_id)
    """,
    "run_scenario_selection": """
    CREATE TABLE stemma.run_scenario_selection (
        workspace_id uuid NOT NULL DEFAULT stemma.stemma_workspace_id(),
        run_id uuid NOT NULL,
        scenario_id uuid NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT run_scenario_selection_pkey PRIMARY KEY (workspace_id, run_id, scenario_id),
        CONSTRAINT run_scenario_selection_workspace_id_fkey FOREIGN KEY (workspace_id)
            REFERENCES stemma.workspaces (id) ON DELETE CASCADE,
        CONSTRAINT run_scenario_selection_run_id_fkey FOREIGN KEY (workspace_id, run_id)
            REFERENCES stemma.runs (workspace_id, id) ON DELETE CASCADE,
        CONSTRAINT run_scenario_selection_scenario_id_fkey FOREIGN KEY (workspace_id, scenario_id)
            REFERENCES stemma.scenarios (workspace_id, id) ON DELETE NO ACTION
    );
    CREATE INDEX run_scenario_selection_scenario_id_idx ON stemma.run_scenario_selection (workspace_id, scenario_id)
    """,
    "transcripts": """
    CREATE TABLE stemma.transcripts (
        workspace_id uuid NOT NULL DEFAULT stemma.stemma_workspace_id(),
        id uuid NOT NULL DEFAULT stemma.stemma_uuidv7(),
        run_id uuid NOT NULL,
        scenario_id uuid,
        model text NOT NULL,
        model_version text,
        sample_index integer NOT NULL DEFAULT 0,
        content jsonb NOT NULL,
        content_version integer GENERATED ALWAYS AS (stemma.stemma_document_version(content)) STORED,
        metrics jsonb NOT NULL DEFAULT '{"schema_version": 1}'::jsonb,
        preview text,
        turn_count integer NOT NULL DEFAULT 0,
        input_tokens bigint,
        output_tokens bigint,
        reasoning_tokens bigint,
        cache_read_tokens bigint,
        cache_write_tokens bigint,
        duration_ms bigint,
        ttft_ms bigint,
        cost numeric(19,8),
        cost_currency char(3),
        stop_reason text,
        error_message text,
        invalidated_at timestamptz,
        invalidated_by_id uuid,
        invalidated_reason text,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT transcripts_pkey PRIMARY KEY (workspace_id, id),
        CONSTRAINT transcripts_content_object_check CHECK (jsonb_typeof(content) = 'object'),
        CONSTRAINT transcripts_model_check CHECK (btrim(model) <> ''),
        CONSTRAINT transcripts_counts_check CHECK (
            turn_count >= 0 AND sample_index >= 0 AND coalesce(duration_ms, 0) >= 0 AND coalesce(ttft_ms, 0) >= 0
        ),
        CONSTRAINT transcripts_tokens_check CHECK (
            coalesce(input_tokens, 0) >= 0 AND coalesce(output_tokens, 0) >= 0 AND coalesce(reasoning_tokens, 0) >= 0
            AND coalesce(cache_read_tokens, 0) >= 0 AND coalesce(cache_write_tokens, 0) >= 0
        ),
        CONSTRAINT transcripts_cost_check CHECK (cost IS NULL OR (cost >= 0 AND cost <> 'NaN' AND cost_currency IS NOT NULL)),
        CONSTRAINT transcripts_currency_check CHECK (cost_currency IS NULL OR cost_currency ~ '^[A-Z]{3}$'),
        CONSTRAINT transcripts_preview_check CHECK (length(preview) <= 500),
        CONSTRAINT transcripts_invalidated_check CHECK ((invalidated_at IS NULL) = (invalidated_reason IS NULL)),
        CONSTRAINT transcripts_workspace_id_fkey FOREIGN KEY (workspace_id) REFERENCES stemma.workspaces (id) ON DELETE CASCADE,
        CONSTRAINT transcripts_run_id_fkey FOREIGN KEY (workspace_id, run_id)
            REFERENCES stemma.runs (workspace_id, id) ON DELETE CASCADE,
        CONSTRAINT transcripts_scenario_id_fkey FOREIGN KEY (workspace_id, scenario_id)
            REFERENCES stemma.scenarios (workspace_id, id) ON DELETE NO ACTION,
        CONSTRAINT transcripts_invalidated_by_id_fkey FOREIGN KEY (invalidated_by_id) REFERENCES stemma.users (id) ON DELETE SET NULL
    );
    CREATE UNIQUE INDEX transcripts_live_slot_key
        ON stemma.transcripts (workspace_id, run_id, scenario_id, model, sample_index) NULLS NOT DISTINCT WHERE invalidated_at IS NULL;
    CREATE INDEX transcripts_run_id_created_at_id_idx ON stemma.transcripts (workspace_id, run_id, created_at, id);
    CREATE INDEX transcripts_scenario_id_idx ON stemma.transcripts (workspace_id, scenario_id);
    CREATE INDEX transcripts_model_created_at_idx ON stemma.transcripts (workspace_id, model, created_at DESC, id DESC);
    CREATE INDEX transcripts_invalidated_by_id_idx ON stemma.transcripts (invalidated_by_id)
    """,
    "run_slots": """
    CREATE TABLE stemma.run_slots (
        workspace_id uuid NOT NULL DEFAULT stemma.stemma_workspace_id(),
        run_id uuid NOT NULL,
        scenario_id uuid NOT NULL,
        model text NOT NULL,
        sample_index integer NOT NULL DEFAULT 0,
        status text NOT NULL DEFAULT 'QUEUED',
        attempt integer NOT NULL DEFAULT 0,
        error_code text,
        error_message text,
        transcript_id uuid,
        queued_at timestamptz NOT NULL DEFAULT now(),
        available_at timestamptz NOT NULL DEFAULT now(),
        started_at timestamptz,
        finished_at timestamptz,
        lease_owner text,
        lease_expires_at timestamptz,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT run_slots_pkey PRIMARY KEY (workspace_id, run_id, scenario_id, model, sample_index),
        CONSTRAINT run_slots_transcript_id_key UNIQUE (workspace_id, transcript_id),
        CONSTRAINT run_slots_status_check CHECK (status IN ('QUEUED', 'RUNNING', 'COMPLETED', 'FAILED', 'SKIPPED')),
        CONSTRAINT run_slots_sample_index_check CHECK (sample_index >= 0),
        CONSTRAINT run_slots_attempt_check CHECK (attempt >= 0),
        CONSTRAINT run_slots_model_check CHECK (btrim(model) <> ''),
        CONSTRAINT run_slots_lease_check CHECK (
            (status = 'RUNNING') = (lease_owner IS NOT NULL) AND (lease_owner IS NULL) = (lease_expires_at IS NULL)
        ),
        CONSTRAINT run_slots_finished_check CHECK ((status IN ('COMPLETED', 'FAILED', 'SKIPPED')) = (finished_at IS NOT NULL)),
        CONSTRAINT run_slots_failed_check CHECK (status <> 'FAILED' OR error_code IS NOT NULL),
        CONSTRAINT run_slots_transcript_check CHECK (transcript_id IS NULL OR status = 'COMPLETED'),
        CONSTRAINT run_slots_times_check CHECK (started_at IS NULL OR finished_at IS NULL OR finished_at >= started_at),
        CONSTRAINT run_slots_workspace_id_fkey FOREIGN KEY (workspace_id) REFERENCES stemma.workspaces (id) ON DELETE CASCADE,
        CONSTRAINT run_slots_run_id_fkey FOREIGN KEY (workspace_id, run_id) REFERENCES stemma.runs (workspace_id, id) ON DELETE CASCADE,
        CONSTRAINT run_slots_scenario_id_fkey FOREIGN KEY (workspace_id, scenario_id)
            REFERENCES stemma.scenarios (workspace_id, id) ON DELETE NO ACTION,
        CONSTRAINT run_slots_transcript_id_fkey FOREIGN KEY (workspace_id, transcript_id)
            REFERENCES stemma.transcripts (workspace_id, id) ON DELETE NO ACTION
    );
    CREATE INDEX run_slots_run_id_status_available_at_idx ON stemma.run_slots (workspace_id, run_id, status, available_at);
    CREATE INDEX run_slots_scenario_id_idx ON stemma.run_slots (workspace_id, scenario_id);
    CREATE INDEX run_slots_lease_expires_at_idx ON stemma.run_slots (workspace_id, lease_expires_at) WHERE status = 'RUNNING'
    """,
    "rubrics": """
    CREATE TABLE stemma.rubrics (
        workspace_id uuid NOT NULL DEFAULT stemma.stemma_workspace_id(),
        id uuid NOT NULL DEFAULT stemma.stemma_uuidv7(),
        name text NOT NULL,
        version integer NOT NULL DEFAULT 1,
        content jsonb NOT NULL,
        content_hash bytea GENERATED ALWAYS AS (stemma.stemma_document_hash(content)) STORED,
        is_active boolean NOT NULL DEFAULT true,
        created_by_id uuid,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT rubrics_pkey PRIMARY KEY (workspace_id, id),
        CONSTRAINT rubrics_name_version_key UNIQUE (workspace_id, name, version),
        CONSTRAINT rubrics_name_check CHECK (btrim(name) <> ''),
        CONSTRAINT rubrics_version_check CHECK (version >= 1),
        CONSTRAINT rubrics_content_object_check CHECK (jsonb_typeof(content) = 'object'),
        CONSTRAINT rubrics_workspace_id_fkey FOREIGN KEY (workspace_id) REFERENCES stemma.workspaces (id) ON DELETE CASCADE,
        CONSTRAINT rubrics_created_by_id_fkey FOREIGN KEY (created_by_id) REFERENCES stemma.users (id) ON DELETE SET NULL
    );
    CREATE INDEX rubrics_created_by_id_idx ON stemma.rubrics (created_by_id)
    """,
    "scores": """
    CREATE TABLE stemma.scores (
        workspace_id uuid NOT NULL DEFAULT stemma.stemma_workspace_id(),
        id uuid NOT NULL DEFAULT stemma.stemma_uuidv7(),
        transcript_id uuid NOT NULL,
        rubric_id uuid,
        name text NOT NULL DEFAULT 'overall',
        annotator_kind text NOT NULL,
        annotator text NOT NULL,
        annotator_user_id uuid,
        value double precision,
        label text,
        rationale jsonb,
        duration_ms bigint,
        cost numeric(19,8),
        cost_currency char(3),
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT scores_pkey PRIMARY KEY (workspace_id, id),
        CONSTRAINT scores_annotation_key UNIQUE NULLS NOT DISTINCT
            (workspace_id, transcript_id, rubric_id, name, annotator_kind, annotator),
        CONSTRAINT scores_annotator_kind_check CHECK (annotator_kind IN ('HUMAN', 'MODEL', 'RULE')),
        CONSTRAINT scores_name_check CHECK (btrim(name) <> ''),
        CONSTRAINT scores_annotator_check CHECK (btrim(annotator) <> ''),
        CONSTRAINT scores_outcome_check CHECK (value IS NOT NULL OR label IS NOT NULL),
        CONSTRAINT scores_human_check CHECK (annotator_user_id IS NULL OR annotator_kind = 'HUMAN'),
        CONSTRAINT scores_cost_check CHECK (cost IS NULL OR (cost >= 0 AND cost <> 'NaN' AND cost_currency IS NOT NULL)),
        CONSTRAINT scores_workspace_id_fkey FOREIGN KEY (workspace_id) REFERENCES stemma.workspaces (id) ON DELETE CASCADE,
        CONSTRAINT scores_transcript_id_fkey FOREIGN KEY (workspace_id, transcript_id)
            REFERENCES stemma.transcripts (workspace_id, id) ON DELETE CASCADE,
        CONSTRAINT scores_rubric_id_fkey FOREIGN KEY (workspace_id, rubric_id)
            REFERENCES stemma.rubrics (workspace_id, id) ON DELETE NO ACTION,
        CONSTRAINT scores_annotator_user_id_fkey FOREIGN KEY (annotator_user_id) REFERENCES stemma.users (id) ON DELETE SET NULL
    );
    CREATE INDEX scores_rubric_id_name_idx ON stemma.scores (workspace_id, rubric_id, name);
    CREATE INDEX scores_name_annotator_idx ON stemma.scores (workspace_id, name, annotator_kind, created_at DESC);
    CREATE INDEX scores_annotator_user_id_idx ON stemma.scores (annotator_user_id)
    """,
    "run_comparisons": """
    CREATE TABLE stemma.run_comparisons (
        workspace_id uuid NOT NULL DEFAULT stemma.stemma_workspace_id(),
        id uuid NOT NULL DEFAULT stemma.stemma_uuidv7(),
        experiment_id uuid,
        baseline_run_id uuid NOT NULL,
        comparison_run_id uuid NOT NULL,
        delta jsonb NOT NULL DEFAULT '{"schema_version": 1}'::jsonb,
        plan_hash bytea,
        input_hash bytea,
        code_version text,
        notes text,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT run_comparisons_pkey PRIMARY KEY (workspace_id, id),
        CONSTRAINT run_comparisons_pair_key UNIQUE NULLS NOT DISTINCT (workspace_id, experiment_id, baseline_run_id, comparison_run_id),
        CONSTRAINT run_comparisons_distinct_runs_check CHECK (baseline_run_id <> comparison_run_id),
        CONSTRAINT run_comparisons_hashes_check CHECK (octet_length(plan_hash) = 32 AND octet_length(input_hash) = 32),
        CONSTRAINT run_comparisons_workspace_id_fkey FOREIGN KEY (workspace_id) REFERENCES stemma.workspaces (id) ON DELETE CASCADE,
        CONSTRAINT run_comparisons_experiment_id_fkey FOREIGN KEY (workspace_id, experiment_id)
            REFERENCES stemma.experiments (workspace_id, id) ON DELETE CASCADE,
        CONSTRAINT run_comparisons_baseline_run_id_fkey FOREIGN KEY (workspace_id, baseline_run_id)
            REFERENCES stemma.runs (workspace_id, id) ON DELETE CASCADE,
        CONSTRAINT run_comparisons_comparison_run_id_fkey FOREIGN KEY (workspace_id, comparison_run_id)
            REFERENCES stemma.runs (workspace_id, id) ON DELETE CASCADE
    );
    CREATE INDEX run_comparisons_baseline_run_id_idx ON stemma.run_comparisons (workspace_id, baseline_run_id);
    CREATE INDEX run_comparisons_comparison_run_id_idx ON stemma.run_comparisons (workspace_id, comparison_run_id)
    """,
    "cohorts": """
    CREATE TABLE stemma.cohorts (
        workspace_id uuid NOT NULL DEFAULT stemma.stemma_workspace_id(),
        id uuid NOT NULL DEFAULT stemma.stemma_uuidv7(),
        name text NOT NULL,
        description text,
        criteria jsonb NOT NULL DEFAULT '{"schema_version": 1}'::jsonb,
        criteria_hash bytea GENERATED ALWAYS AS (stemma.stemma_document_hash(criteria)) STORED,
        version integer NOT NULL DEFAULT 1,
        created_by_id uuid,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT cohorts_pkey PRIMARY KEY (workspace_id, id),
        CONSTRAINT cohorts_name_key UNIQUE (workspace_id, name),
        CONSTRAINT cohorts_name_check CHECK (btrim(name) <> ''),
        CONSTRAINT cohorts_workspace_id_fkey FOREIGN KEY (workspace_id) REFERENCES stemma.workspaces (id) ON DELETE CASCADE,
        CONSTRAINT cohorts_created_by_id_fkey FOREIGN KEY (created_by_id) REFERENCES stemma.users (id) ON DELETE SET NULL
    );
    CREATE INDEX cohorts_created_by_id_idx ON stemma.cohorts (created_by_id)
    """,
    "analysis_results": """
    CREATE TABLE stemma.analysis_results (
        workspace_id uuid NOT NULL DEFAULT stemma.stemma_workspace_id(),
        id uuid NOT NULL DEFAULT stemma.stemma_uuidv7(),
        run_id uuid NOT NULL,
        rubric_id uuid,
        cohort_id uuid,
        analysis_type text NOT NULL,
        version integer NOT NULL DEFAULT 1,
        code_version text,
        input_hash bytea NOT NULL,
        output jsonb NOT NULL,
        output_version integer GENERATED ALWAYS AS (stemma.stemma_document_version(output)) STORED,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT analysis_results_pkey PRIMARY KEY (workspace_id, id),
        CONSTRAINT analysis_results_version_key UNIQUE NULLS NOT DISTINCT
            (workspace_id, run_id, analysis_type, rubric_id, cohort_id, version),
        CONSTRAINT analysis_results_analysis_type_check CHECK (analysis_type ~ '^[a-z][a-z0-9_.-]{0,99}$'),
        CONSTRAINT analysis_results_version_check CHECK (version >= 1),
        CONSTRAINT analysis_results_input_hash_check CHECK (octet_length(input_hash) = 32),
        CONSTRAINT analysis_results_output_object_check CHECK (jsonb_typeof(output) = 'object'),
        CONSTRAINT analysis_results_workspace_id_fkey FOREIGN KEY (workspace_id) REFERENCES stemma.workspaces (id) ON DELETE CASCADE,
        CONSTRAINT analysis_results_run_id_fkey FOREIGN KEY (workspace_id, run_id)
            REFERENCES stemma.runs (workspace_id, id) ON DELETE CASCADE,
        CONSTRAINT analysis_results_rubric_id_fkey FOREIGN KEY (workspace_id, rubric_id)
            REFERENCES stemma.rubrics (workspace_id, id) ON DELETE NO ACTION,
        CONSTRAINT analysis_results_cohort_id_fkey FOREIGN KEY (workspace_id, cohort_id)
            REFERENCES stemma.cohorts (workspace_id, id) ON DELETE NO ACTION
    );
    CREATE INDEX analysis_results_rubric_id_idx ON stemma.analysis_results (workspace_id, rubric_id);
    CREATE INDEX analysis_results_cohort_id_idx ON stemma.analysis_results (workspace_id, cohort_id);
    CREATE INDEX analysis_results_input_hash_idx ON stemma.analysis_results (workspace_id, input_hash)
    """,
}

# Guards look at nothing but the row itself.
_GUARDS = {
    "definitions": (
        "parent_id, root_id, depth, content, name, frozen_at",
        """
        IF (NEW.parent_id, NEW.root_id, NEW.depth) IS DISTINCT FROM (OLD.parent_id, OLD.root_id, OLD.depth) THEN
          PERFORM stemma.stemma_refuse('definitions', 'definitions_parent_immutable', 'parent_id',
            'parent_id, root_id and depth of a definition never change');
        END IF;
        IF OLD.frozen_at IS NOT NULL THEN
          IF NEW.frozen_at IS DISTINCT FROM OLD.frozen_at THEN
            PERFORM stemma.stemma_refuse('definitions', 'definitions_frozen', 'frozen_at', 'definition is frozen');
          END IF;
          IF NEW.name IS DISTINCT FROM OLD.name THEN
            PERFORM stemma.stemma_refuse('definitions', 'definitions_frozen', 'name', 'definition is frozen');
          END IF;
          IF NEW.content IS DISTINCT FROM OLD.content THEN
            PERFORM stemma.stemma_refuse('definitions', 'definitions_frozen', 'content', 'definition is frozen');
          END IF;
        END IF;
        """,
    ),
    "scenarios": (
        "definition_id, content",
        """
        IF NEW.definition_id IS DISTINCT FROM OLD.definition_id THEN
          PERFORM stemma.stemma_refuse('scenarios', 'scenarios_immutable', 'definition_id', 'scenarios.definition_id never changes');
        END IF;
        IF NEW.content IS DISTINCT FROM OLD.content THEN
          PERFORM stemma.stemma_refuse('scenarios', 'scenarios_immutable', 'content', 'scenarios.content never changes');
        END IF;
        """,
    ),
    "experiments": (
        "analysis_plan, plan_frozen_at",
        """
        IF OLD.plan_frozen_at IS NOT NULL
           AND (NEW.analysis_plan IS DISTINCT FROM OLD.analysis_plan OR NEW.plan_frozen_at IS DISTINCT FROM OLD.plan_frozen_at) THEN
          PERFORM stemma.stemma_refuse('experiments', 'experiments_plan_frozen', 'analysis_plan',
            'the analysis plan is frozen; amend it');
        END IF;
        """,
    ),
    "experiment_amendments": (
        "experiment_id, sequence, plan, reason",
        """
        IF (NEW.experiment_id, NEW.sequence, NEW.reason) IS DISTINCT FROM (OLD.experiment_id, OLD.sequence, OLD.reason)
           OR NEW.plan IS DISTINCT FROM OLD.plan THEN
          PERFORM stemma.stemma_refuse('experiment_amendments', 'experiment_amendments_immutable', 'plan', 'amendments never change');
        END IF;
        """,
    ),
    "runs": (
        "definition_id, config, slot_count",
        """
        IF NEW.definition_id IS DISTINCT FROM OLD.definition_id THEN
          PERFORM stemma.stemma_refuse('runs', 'runs_definition_immutable', 'definition_id', 'runs.definition_id never changes');
        END IF;
        IF OLD.started_at IS NOT NULL AND NEW.config IS DISTINCT FROM OLD.config THEN
          PERFORM stemma.stemma_refuse('runs', 'runs_config_frozen', 'config', 'the configuration of a started run never changes');
        END IF;
        IF OLD.slot_count IS NOT NULL AND NEW.slot_count IS DISTINCT FROM OLD.slot_count THEN
          PERFORM stemma.stemma_refuse('runs', 'runs_slots_planned', 'slot_count', 'the slots of a run are planned once');
        END IF;
        """,
    ),
    "rubrics": (
        "name, version, content",
        """
        IF (NEW.name, NEW.version) IS DISTINCT FROM (OLD.name, OLD.version) OR NEW.content IS DISTINCT FROM OLD.content THEN
          PERFORM stemma.stemma_refuse('rubrics', 'rubrics_immutable', 'content', 'a rubric version never changes');
        END IF;
        """,
    ),
    "analysis_results": (
        "run_id, analysis_type, rubric_id, cohort_id, version, input_hash",
        """
        IF (NEW.run_id, NEW.analysis_type, NEW.rubric_id, NEW.cohort_id, NEW.version, NEW.input_hash)
           IS DISTINCT FROM (OLD.run_id, OLD.analysis_type, OLD.rubric_id, OLD.cohort_id, OLD.version, OLD.input_hash) THEN
          PERFORM stemma.stemma_refuse('analysis_results', 'analysis_results_immutable', 'input_hash',
            'the identity of an analysis result never changes');
        END IF;
        """,
    ),
}

# A root is its own root; a child brings root_id and depth itself, and its foreign key checks them.
_ROOT = """
    CREATE FUNCTION stemma.stemma_definitions_root() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      NEW.root_id := NEW.id;
      NEW.depth := 0;
      RETURN NEW;
    END $$;
    CREATE TRIGGER definitions_root BEFORE INSERT ON stemma.definitions
        FOR EACH ROW WHEN (NEW.parent_id IS NULL) EXECUTE FUNCTION stemma.stemma_definitions_root()
"""

# What a definition is found by: the words of its name, its message and its texts, and the id of its workspace as one word more, so that one
# index of all workspaces is entered by workspace. An index is made of it: another list of words is another function, under another name.
_WORDS = """
    CREATE FUNCTION stemma.stemma_definition_words_v1(workspace_id uuid, name text, message text, content jsonb) RETURNS tsvector
    LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
      SELECT array_to_tsvector(ARRAY[workspace_id::text])
          || to_tsvector('pg_catalog.simple', name || ' ' || coalesce(message, ''))
          || to_tsvector('pg_catalog.simple', left(coalesce(content ->> 'preamble', ''), 50000))
          || to_tsvector('pg_catalog.simple', left(coalesce(content ->> 'template', ''), 50000))
    $$;
    CREATE INDEX definitions_words_idx ON stemma.definitions USING gin
        (stemma.stemma_definition_words_v1(workspace_id, name, message, content))
"""

# @@ is not leakproof: under the policy of a workspace it is asked row by row, behind the policy. stemma_maintenance, to whom the end of
# every upgrade gives this function, is held by no such policy. So the function asks for the workspace itself: the one of the transaction.
_SEARCH = """
    CREATE FUNCTION stemma.stemma_search_definitions(workspace uuid, query text) RETURNS TABLE (id uuid)
    LANGUAGE sql STABLE SECURITY DEFINER ROWS 100 SET search_path = pg_catalog, pg_temp AS $$
      SELECT definitions.id
        FROM stemma.definitions
       WHERE workspace = stemma.stemma_workspace_id()
         AND numnode(websearch_to_tsquery('pg_catalog.simple', query)) > 0
         AND definitions.workspace_id = workspace
         AND stemma.stemma_definition_words_v1(
               definitions.workspace_id, definitions.name, definitions.message, definitions.content
             ) @@ (quote_literal(workspace)::tsquery && websearch_to_tsquery('pg_catalog.simple', query))
    $$;
    REVOKE EXECUTE ON FUNCTION stemma.stemma_search_definitions(uuid, text) FROM PUBLIC
"""

_VERSIONED = ("definitions", "definition_labels", "experiments", "cohorts")
# By the columns of the key without the workspace, and those whose change alone makes no record.
_AUDITED = {"definition_labels": ("name", "moved_at"), "experiments": ("id", "")}

_RULE = "workspace_id = nullif(current_setting('stemma.workspace_id', true), '')::uuid"


def _trigger(table: str, name: str, function: str, columns: str = "") -> None:
    event = f"UPDATE OF {columns}" if columns else "UPDATE"
    op.execute(f"CREATE TRIGGER {table}_{name} BEFORE {event} ON stemma.{table} FOR EACH ROW EXECUTE FUNCTION stemma.{function}()")


def upgrade() -> None:
    for statement in _TABLES.values():
        op.execute(statement)
    for table in _TABLES:
        _trigger(table, "set_updated_at", "stemma_set_updated_at")
    for table in _VERSIONED:
        _trigger(table, "bump_version", "stemma_bump_version")
    op.execute(_ROOT)
    op.execute(_WORDS)
    op.execute(_SEARCH)
    for table, (columns, body) in _GUARDS.items():
        op.execute(
            f"CREATE FUNCTION stemma.stemma_{table}_guard() RETURNS trigger LANGUAGE plpgsql AS $$\n"
            f"      BEGIN{body}RETURN NEW;\n      END $$"
        )
        _trigger(table, "guard", f"stemma_{table}_guard", columns)
    for table, (key, silent) in _AUDITED.items():
        op.execute(
            f"CREATE TRIGGER {table}_audit AFTER INSERT OR DELETE OR UPDATE ON stemma.{table} "
            f"FOR EACH ROW EXECUTE FUNCTION stemma.stemma_audit('{key}', '', '{silent}')"
        )
    for table in _TABLES:
        op.execute(f"ALTER TABLE stemma.{table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE stemma.{table} FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY {table}_tenant ON stemma.{table} USING ({_RULE}) WITH CHECK ({_RULE})")


def downgrade() -> None:
    # No CASCADE: an object of somebody else that depends on these stops the downgrade instead of disappearing.
    op.execute("DROP TABLE " + ", ".join(f"stemma.{table}" for table in _TABLES))
    op.execute("DROP FUNCTION stemma.stemma_search_definitions(uuid, text)")
    op.execute("DROP FUNCTION stemma.stemma_definition_words_v1(uuid, text, text, jsonb)")
    op.execute("DROP FUNCTION stemma.stemma_definitions_root(), " + ", ".join(f"stemma.stemma_{table}_guard()" for table in _GUARDS))
