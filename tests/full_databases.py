"""A database with rows in every table, and every reference set: what tests of isolation and of deletion work on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import text
from sqlalchemy.orm import Session
from tests.evaluation.run_setups import MODEL, complete_all, make_definition, success, transcript

from stemmadb.accounts import api_keys, users
from stemmadb.database import Database
from stemmadb.evaluation import definitions, runs, scenarios, transcripts
from stemmadb.evaluation.data import DefinitionFork, RunCreate, ScenarioCreate, SlotClaim, SlotKey
from stemmadb.evaluation.documents import DefinitionContent, RunConfig, ScenarioContent
from stemmadb.testing import make_workspace
from stemmadb.workspaces import members


@dataclass(frozen=True)
class Filled:
    """A workspace that has rows in every table, and the rows by which functions are called."""

    workspace_id: UUID
    ids: dict[str, UUID]
    """A row of each table by the singular of its name; ``user`` is a member who may be removed."""
    label: str
    content: DefinitionContent
    claim: SlotClaim
    """Of a slot that is running, under a worker of the workspace's own."""
    slot: SlotKey
    """A slot that has a transcript."""


def fill(db: Database, slug: str) -> Filled:
    """Make and commit such a workspace."""
    workspace_id = make_workspace(db, slug)
    with db.session(workspace=workspace_id) as session:
        ids: dict[str, UUID] = {"workspace": workspace_id}
        _members(session, ids)
        _definitions(session, ids, slug)
        claim, slot = _runs(session, ids, slug)
        _results(session, ids)
    content = DefinitionContent(preamble="You decide.", template=f"{slug}: {{side}}")
    return Filled(workspace_id, ids, f"{slug}-label", content, claim, slot)


def fill_accounts(session: Session, user_id: UUID, workspace_id: UUID) -> None:
    """Add rows about a user to every global table."""
    issued = api_keys.issue(session, user_id, "first", workspace_id=workspace_id)
    name = f"a{uuid4().hex}"
    values = {"user_id": user_id, "workspace_id": workspace_id, "key_id": issued.key.id, "digest": uuid4().bytes * 2, "name": name}
    for statement in (*_ACCOUNTS, *_REVIEWS):
        session.execute(text(statement), {**values, "permission": f"{name}:read"})


def _members(session: Session, ids: dict[str, UUID]) -> None:
    first, second = (users.create(session, f"{uuid4().hex}@full.example").id for _ in range(2))
    members.add(session, first)
    members.add(session, second, invited_by_id=first)
    ids["user"] = second
    ids["config"] = _scalar(session, _PROVIDER, ids)
    session.execute(text(_APPROVED), ids)
    ids["item"] = _scalar(session, _PENDING, ids)


def _definitions(session: Session, ids: dict[str, UUID], slug: str) -> None:
    root = make_definition(session, slug, created_by_id=ids["user"])
    child = definitions.fork(session, root.id, DefinitionFork(created_by_id=ids["user"]))
    definitions.fork(session, child.id)
    ids |= {"root": root.id, "definition": child.id}
    definitions.set_label(session, f"{slug}-label", child.id)
    session.execute(text("UPDATE stemma.definition_labels SET moved_by_id = :user_id"), {"user_id": ids["user"]})
    items = [ScenarioCreate(name=f"scenario {n}", content=ScenarioContent(prompt=f"{n}?")) for n in range(5)]
    scenarios.create_many(session, child.id, items)


def _runs(session: Session, ids: dict[str, UUID], slug: str) -> tuple[SlotClaim, SlotKey]:
    """A run that is done, one with a slot in each state, and one that has not begun."""
    ids["experiment"] = _scalar(session, _EXPERIMENT, ids)
    chosen = [scenario.id for scenario in scenarios.list_for_definition(session, ids["definition"])][:4]
    for name in ("other_run", "run", "pending_run"):
        data = RunCreate(
            definition_id=ids["definition"],
            experiment_id=ids["experiment"],
            config=RunConfig(models=(MODEL,)),
            scenario_ids=chosen,
            created_by_id=ids["user"],
        )
        ids[name] = runs.create(session, data).id
    for name in ("other_run", "run"):
        runs.start(session, ids[name])
    complete_all(session, ids["other_run"])
    running, done, invalid = runs.claim_slots(session, ids["run"], worker=f"{slug}-worker", count=3)
    stored, other = [result.transcript_id for result in runs.record_outcomes(session, [success(done), success(invalid)])]
    assert stored is not None
    assert other is not None
    transcripts.invalidate(session, other, reason="a test", by_user_id=ids["user"])
    (queued,) = {*chosen} - {claim.key.scenario_id for claim in (running, done, invalid)}
    ids |= {"transcript": stored, "scenario": queued, "claimed_scenario": running.key.scenario_id}
    transcripts.add(session, ids["run"], transcript(running, "Not of a slot.", sample_index=7, scenario_id=queued))
    return running, done.key


def _results(session: Session, ids: dict[str, UUID]) -> None:
    for name, statement in _RESULTS.items():
        ids[name] = _scalar(session, statement, ids)


def _scalar(session: Session, statement: str, ids: dict[str, UUID]) -> Any:
    return session.execute(text(statement), ids).scalar_one()


_PROVIDER = """
    INSERT INTO stemma.ai_provider_configs (provider, is_default, daily_token_limit) VALUES ('OPENAI', true, 1000) RETURNING id
"""
_APPROVED = """
    INSERT INTO stemma.approval_items (type, title, status, decided_at, requested_by_id, assigned_to_id, decided_by_id)
    VALUES ('run', 'Run it', 'APPROVED', now(), :user, :user, :user)
"""
_PENDING = "INSERT INTO stemma.approval_items (type, title) VALUES ('run', 'Run it again') RETURNING id"
_EXPERIMENT = """
    INSERT INTO stemma.experiments (name, analysis_plan, created_by_id)
    VALUES ('An experiment', '{"schema_version": 1, "alpha": 0.05}', :user) RETURNING id
"""
_RESULTS = {
    "experiment_amendment": """
        INSERT INTO stemma.experiment_amendments (experiment_id, sequence, plan, reason, amended_by_id)
        VALUES (:experiment, 1, '{"schema_version": 1, "alpha": 0.05}', 'a test', :user) RETURNING id
    """,
    "rubric": """
        INSERT INTO stemma.rubrics (name, content, created_by_id)
        VALUES ('A rubric', '{"schema_version": 1, "values": [{"key": "x", "label": "X"}]}', :user) RETURNING id
    """,
    "score": """
        WITH other AS (
            INSERT INTO stemma.scores (transcript_id, rubric_id, name, annotator_kind, annotator, value)
            VALUES (:transcript, :rubric, 'x', 'RULE', 'a rule', 1)
        )
        INSERT INTO stemma.scores (transcript_id, rubric_id, name, annotator_kind, annotator, annotator_user_id, value)
        VALUES (:transcript, :rubric, 'x', 'HUMAN', 'somebody', :user, 1) RETURNING id
    """,
    "comparison": """
        WITH outside AS (
            INSERT INTO stemma.run_comparisons (baseline_run_id, comparison_run_id) VALUES (:run, :other_run)
        )
        INSERT INTO stemma.run_comparisons (experiment_id, baseline_run_id, comparison_run_id)
        VALUES (:experiment, :run, :other_run) RETURNING id
    """,
    "cohort": "INSERT INTO stemma.cohorts (name, created_by_id) VALUES ('A cohort', :user) RETURNING id",
    "analysis": """
        WITH others AS (
            INSERT INTO stemma.analysis_results (run_id, rubric_id, cohort_id, analysis_type, input_hash, output)
            SELECT :run, others.rubric_id, others.cohort_id, 'basic', decode(repeat('00', 32), 'hex'), '{"schema_version": 1}'
              FROM (VALUES (CAST(NULL AS uuid), CAST(NULL AS uuid)), (:rubric, NULL), (NULL, :cohort)) AS others (rubric_id, cohort_id)
        )
        INSERT INTO stemma.analysis_results (run_id, rubric_id, cohort_id, analysis_type, input_hash, output)
        VALUES (:run, :rubric, :cohort, 'basic', decode(repeat('00', 32), 'hex'), '{"schema_version": 1}') RETURNING id
    """,
}
_ACCOUNTS = (
    """
    INSERT INTO stemma.user_sessions (user_id, family_id, refresh_token_hash, expires_at, idle_expires_at)
    VALUES (:user_id, stemma.stemma_uuidv7(), :digest, now() + interval '1 day', now() + interval '1 day')
    """,
    "INSERT INTO stemma.oauth_accounts (user_id, provider, provider_account_id) VALUES (:user_id, 'github', :name)",
    "INSERT INTO stemma.mfa_settings (user_id) VALUES (:user_id)",
    """
    INSERT INTO stemma.email_verification_tokens (user_id, token_hash, email, expires_at)
    VALUES (:user_id, :digest, 'a@full.example', now() + interval '1 day')
    """,
    "INSERT INTO stemma.password_reset_tokens (user_id, token_hash, expires_at) VALUES (:user_id, :digest, now() + interval '1 day')",
    """
    INSERT INTO stemma.api_keys (user_id, workspace_id, name, prefix, key_hash, rotated_from_id)
    VALUES (:user_id, :workspace_id, 'second', :name, :digest, :key_id)
    """,
    "INSERT INTO stemma.roles (name) VALUES (:name)",
    "INSERT INTO stemma.permissions (key) VALUES (:permission)",
    """
    INSERT INTO stemma.role_permissions (role_id, permission_id)
    SELECT roles.id, permissions.id FROM stemma.roles, stemma.permissions WHERE roles.name = :name AND permissions.key = :permission
    """,
    "INSERT INTO stemma.user_roles (user_id, role_id) SELECT :user_id, id FROM stemma.roles WHERE name = :name",
    "INSERT INTO stemma.user_permissions (user_id, permission_id) SELECT :user_id, id FROM stemma.permissions WHERE key = :permission",
    "INSERT INTO stemma.security_events (user_id, type) VALUES (:user_id, 'LOGIN')",
    """
    INSERT INTO stemma.audit_logs (user_id, workspace_id, action, entity, entity_id)
    VALUES (:user_id, :workspace_id, 'TEST', 'users', 'x')
    """,
    "INSERT INTO stemma.stemma_idempotency_keys (workspace_id, key) VALUES (:workspace_id, :name)",
)
_REVIEWS = (
    "INSERT INTO stemma.books (title, author) VALUES (:name, 'Somebody')",
    "INSERT INTO stemma.reviews (user_id, book_id, content) SELECT :user_id, id, 'Read it.' FROM stemma.books WHERE title = :name",
    "INSERT INTO stemma.likes (user_id, review_id) SELECT user_id, id FROM stemma.reviews WHERE user_id = :user_id",
    "INSERT INTO stemma.bookmarks (user_id, review_id) SELECT user_id, id FROM stemma.reviews WHERE user_id = :user_id",
)
