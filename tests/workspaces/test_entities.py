"""The entities of workspaces, and the rules that all tenant tables keep."""

import re

import pytest
from sqlalchemy import ForeignKeyConstraint, Index, UniqueConstraint

from stemmadb.entity import Entity, NaturalKey, WorkspaceEntity
from stemmadb.errors import ValidationError
from stemmadb.packs import packs
from stemmadb.workspaces.documents import AIProviderSettings, ApprovalPayload, WorkspaceSettings
from stemmadb.workspaces.entities import (
    AIProvider,
    AIProviderConfig,
    ApprovalItem,
    ApprovalPriority,
    ApprovalStatus,
    Workspace,
    WorkspaceRole,
)

pytestmark = pytest.mark.offline

ENTITIES = [entity for pack in packs() for entity in pack.entities]
TENANTS = [entity for entity in ENTITIES if issubclass(entity, WorkspaceEntity)]


def name_of(entity: type[Entity]) -> str:
    return entity.__tablename__


@pytest.mark.requirement("TN-019", "TN-020", "TN-021", "TN-023")
def test_the_tenant_tables() -> None:
    """These 17 tables are tenant-scoped, and no other has a workspace in its key."""
    assert {name_of(entity) for entity in TENANTS} == {
        *("workspace_members", "ai_provider_configs", "approval_items"),
        *("definitions", "definition_labels", "scenarios", "experiments", "experiment_amendments", "runs", "run_scenario_selection"),
        *("run_slots", "transcripts", "rubrics", "scores", "run_comparisons", "cohorts", "analysis_results"),
    }
    keyed = {name_of(entity) for entity in ENTITIES if "workspace_id" in entity.__table__.primary_key.columns}
    assert keyed == {name_of(entity) for entity in TENANTS}


@pytest.mark.parametrize("entity", TENANTS, ids=name_of)
@pytest.mark.requirement("TN-023", "TN-024", "TN-028")
def test_a_tenant_table_is_keyed_by_its_workspace(entity: type[Entity]) -> None:
    """workspace_id leads the key, is never NULL, and goes with its workspace."""
    table = entity.__table__
    key = [column.name for column in table.primary_key]
    assert key[0] == "workspace_id"
    assert not table.c.workspace_id.nullable
    assert issubclass(entity, NaturalKey) or key == ["workspace_id", "id"]
    (own,) = [key for key in table.foreign_key_constraints if key.column_keys == ["workspace_id"]]
    assert (own.elements[0].target_fullname, own.ondelete) == ("stemma.workspaces.id", "CASCADE")


@pytest.mark.parametrize("entity", TENANTS, ids=name_of)
@pytest.mark.requirement("TN-023", "TN-024", "AD-019", "VR-050")
def test_a_tenant_table_refers_within_its_workspace(entity: type[Entity]) -> None:
    """Foreign keys to tenant tables carry the workspace, and never set it to NULL; unique keys and indexes begin with it."""
    table = entity.__table__
    tenant_tables = {f"stemma.{name_of(other)}" for other in TENANTS}
    to_users = set()
    for key in table.foreign_key_constraints:
        target = key.elements[0].target_fullname.rpartition(".")[0]
        if target in tenant_tables:
            assert key.column_keys[0] == "workspace_id"
            assert key.elements[0].target_fullname.endswith(".workspace_id")
            assert key.ondelete in {"CASCADE", "NO ACTION"}
        elif target == "stemma.users":
            to_users.add(key.column_keys[0])
    for item in (*table.indexes, *(constraint for constraint in table.constraints if isinstance(constraint, UniqueConstraint))):
        if isinstance(item, Index) and item.dialect_options["postgresql"]["using"] == "gin":
            # An index of words has no order; the workspace is one of its words.
            assert "workspace_id" in str(next(iter(item.expressions)))
            continue
        first = next(iter(item.columns)).name
        assert first == "workspace_id" or (isinstance(item, Index) and first in to_users)


@pytest.mark.parametrize("entity", TENANTS, ids=name_of)
@pytest.mark.requirement("TN-023")
def test_names_of_a_tenant_table_stay_short(entity: type[Entity]) -> None:
    """At most 50 characters: Citus appends the number of a shard. Names leave the workspace out."""
    table = entity.__table__
    names = [str(item.name) for item in (*table.constraints, *table.indexes)]
    assert [name for name in (table.name, *names) if len(name) > 50] == []
    assert [name for name in names if "workspace_id" in name] == [f"{table.name}_workspace_id_fkey"]


@pytest.mark.parametrize("entity", ENTITIES, ids=name_of)
@pytest.mark.requirement("TN-026", "TN-027", "EC-014")
def test_every_table_keeps_the_conventions(entity: type[Entity]) -> None:
    """Names in snake case, times everywhere, every foreign key with an ON DELETE and an index or key that begins with it."""
    table = entity.__table__
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name in (table.name, *table.columns.keys()))
    assert list(table.columns.keys())[-2:] == ["created_at", "updated_at"]
    constraints = [item for item in table.constraints if not isinstance(item, ForeignKeyConstraint)]
    led = [[column.name for column in item.columns] for item in (*table.indexes, *constraints)]
    for key in table.foreign_key_constraints:
        assert key.ondelete is not None
        # The last two columns of the lineage key follow from the row that the first two name.
        needed = key.column_keys[:2]
        assert any(columns[: len(needed)] == needed for columns in led), key.name


def test_the_lock_is_on_the_tables_that_have_one() -> None:
    """version counts saves in these tables only; in rubrics and analysis_results it numbers versions of a document."""
    locked = {name_of(entity) for entity in ENTITIES if entity.__mapper__.version_id_col is not None}
    assert locked == {"approval_items", "definitions", "definition_labels", "experiments", "cohorts"}


def test_defaults_of_new_objects() -> None:
    """What a new object says of itself is what the columns default to."""
    owner = "0190a3d4-0000-7000-8000-000000000001"
    assert Workspace(owner_id=owner, name="Lab", slug="lab").settings == WorkspaceSettings(locale="en", timezone="UTC")
    config = AIProviderConfig(provider="OPENAI")
    assert (config.provider, config.label, config.is_default, config.is_enabled) == (AIProvider.OPENAI, "default", False, True)
    item = ApprovalItem(type="content.publish", title="Publish")
    assert (item.status, item.priority, item.payload) == (ApprovalStatus.PENDING, ApprovalPriority.NORMAL, ApprovalPayload())
    assert [*WorkspaceRole] == ["OWNER", "ADMIN", "MEMBER", "VIEWER"]


def test_provider_keys_are_secret() -> None:
    """The ciphertext of a provider's key is fetched only when asked for, and plain text is no ciphertext."""
    assert {column.name for column in AIProviderConfig.__table__.columns if column.info["secret"]} == {"api_key"}
    with pytest.raises(ValidationError, match="api_key") as caught:
        AIProviderConfig(provider="OPENAI", api_key="sk-plain")
    assert "sk-plain" not in str(caught.value)


@pytest.mark.parametrize("slug", ["Lab", "lab_1", "-lab", "lab-", "a--b", "", "lab 1"])
def test_a_slug_has_one_form(slug: str) -> None:
    """Lower-case words joined by single hyphens."""
    with pytest.raises(ValidationError, match="slug"):
        Workspace(owner_id="0190a3d4-0000-7000-8000-000000000001", name="Lab", slug=slug)


def test_documents_without_a_version() -> None:
    """Settings get their defaults; a proposal moves under one key."""
    assert WorkspaceSettings.load({"locale": "de"}).dump() == {"schema_version": 1, "locale": "de", "timezone": "UTC", "features": {}}
    assert AIProviderSettings.load(None) == AIProviderSettings()
    assert ApprovalPayload.load({"text": "x"}).proposal == {"text": "x"}
