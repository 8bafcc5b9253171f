"""The entities of accounts: what the catalogue of a database does not show."""

import pytest

from stemmadb.accounts import entities
from stemmadb.accounts.documents import AuditSnapshot, OAuthProfile, SecurityEventPayload
from stemmadb.accounts.entities import (
    ActorType,
    ApiKey,
    AuditLog,
    MfaMethod,
    MfaSettings,
    OAuthAccount,
    Permission,
    Role,
    RolePermission,
    SecurityEvent,
    User,
    UserPermission,
    UserRole,
    UserSession,
    UserStatus,
)
from stemmadb.entity import Entity

pytestmark = pytest.mark.offline

TABLES = {entity.__tablename__: entity for entity in (getattr(entities, name) for name in entities.__all__) if issubclass(entity, Entity)}


def columns(entity: type[Entity], fact: str) -> set[str]:
    return {column.name for column in entity.__table__.columns if column.info[fact]}


@pytest.mark.requirement("TN-018", "VR-029", "VR-030")
def test_the_tables() -> None:
    """The pack has these tables, and each class is named after its table's rows."""
    assert {name: entity.__name__ for name, entity in TABLES.items()} == {
        "users": "User",
        "user_sessions": "UserSession",
        "oauth_accounts": "OAuthAccount",
        "mfa_settings": "MfaSettings",
        "email_verification_tokens": "EmailVerificationToken",
        "password_reset_tokens": "PasswordResetToken",
        "api_keys": "ApiKey",
        "roles": "Role",
        "permissions": "Permission",
        "role_permissions": "RolePermission",
        "user_roles": "UserRole",
        "user_permissions": "UserPermission",
        "security_events": "SecurityEvent",
        "audit_logs": "AuditLog",
    }


@pytest.mark.requirement("EC-048", "VR-030")
def test_what_could_authenticate_is_secret_and_deferred() -> None:
    """Hashes, digests and ciphertexts are fetched only when asked for, and never shown."""
    secret = {name: columns(entity, "secret") for name, entity in TABLES.items()}
    assert {name: found for name, found in secret.items() if found} == {
        "users": {"password_hash", "two_factor_secret"},
        "user_sessions": {"refresh_token_hash"},
        "oauth_accounts": {"access_token", "refresh_token"},
        "mfa_settings": {"backup_code_hashes"},
        "email_verification_tokens": {"token_hash"},
        "password_reset_tokens": {"token_hash"},
        "api_keys": {"key_hash"},
    }
    assert all(columns(entity, "secret") == columns(entity, "deferred") for entity in TABLES.values())


@pytest.mark.requirement("EC-040", "EC-041", "EC-047")
def test_columns_in_their_order() -> None:
    """Keys first, then the table's own columns, then the times."""
    assert list(User.__table__.columns.keys()) == [
        *("id", "email", "password_hash", "name", "first_name", "last_name", "phone", "email_verified", "email_verified_at"),
        *("failed_login_count", "lockout_until", "two_factor_secret", "two_factor_enabled", "status", "last_login_at"),
        *("deleted_at", "created_at", "updated_at"),
    ]
    assert list(UserSession.__table__.columns.keys()) == [
        *("id", "user_id", "family_id", "refresh_token_hash", "fingerprint", "ip_address", "user_agent", "expires_at", "idle_expires_at"),
        *("last_seen_at", "rotated_at", "revoked_at", "revoked_reason", "created_at", "updated_at"),
    ]
    assert list(SecurityEvent.__table__.columns.keys()) == [
        *("id", "user_id", "type", "ip_address", "user_agent", "payload", "created_at", "updated_at"),
    ]


@pytest.mark.requirement("EC-042", "EC-043", "EC-044", "EC-045", "EC-046")
def test_roles_and_permissions_have_natural_keys() -> None:
    """Junctions are known by what they join; roles and permissions are unique by name and key."""
    keys = {entity: [column.name for column in entity.__table__.primary_key] for entity in (RolePermission, UserRole, UserPermission)}
    assert keys == {
        RolePermission: ["role_id", "permission_id"],
        UserRole: ["user_id", "role_id"],
        UserPermission: ["user_id", "permission_id"],
    }
    assert all("assigned_at" in entity.__table__.columns for entity in keys)
    assert "roles_name_key" in {constraint.name for constraint in Role.__table__.constraints}
    assert "permissions_key_key" in {constraint.name for constraint in Permission.__table__.constraints}


@pytest.mark.requirement("TN-022")
def test_a_key_belongs_to_a_user_and_perhaps_to_a_workspace() -> None:
    """One table serves personal keys and those of workspaces, and is no tenant table."""
    table = ApiKey.__table__
    assert (table.c.user_id.nullable, table.c.workspace_id.nullable) == (False, True)
    assert [column.name for column in table.primary_key] == ["id"]


def test_vocabularies_are_native_enums() -> None:
    """The labels and their order are those of the type."""
    labels = {
        column.type.name: column.type.enums
        for column in (User.__table__.c.status, AuditLog.__table__.c.actor_type, MfaSettings.__table__.c.method)
    }
    assert labels == {"user_status": [*UserStatus], "actor_type": [*ActorType], "mfa_method": [*MfaMethod]}


def test_defaults_of_new_objects() -> None:
    """What a new object says of itself is what the columns default to."""
    user = User(email="a@b.c")
    assert (user.status, user.email_verified, user.failed_login_count, user.two_factor_enabled) == (UserStatus.ACTIVE, False, 0, False)
    assert SecurityEvent(type="LOCKOUT").payload == SecurityEventPayload()
    assert AuditLog(action="CREATE", entity="users", entity_id="1").actor_type is ActorType.SYSTEM
    linked = OAuthAccount(user_id=user.id, provider="GitHub", provider_account_id="1")
    assert (linked.provider, linked.profile) == ("github", OAuthProfile())


@pytest.mark.parametrize(("document", "under"), [(OAuthProfile, "raw"), (SecurityEventPayload, "details"), (AuditSnapshot, "data")])
def test_documents_without_a_version_move_under_one_key(document: type[AuditSnapshot], under: str) -> None:
    """What was stored before documents had a version is kept whole, under one key."""
    loaded = document.load({"login": "ada", "nested": {"schema_version": 7}, "schema_version": None})
    assert getattr(loaded, under) == {"login": "ada", "nested": {"schema_version": 7}}
    assert document.load(None) == document()
