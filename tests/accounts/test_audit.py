"""The audit trail: what changes leave behind, who is said to have made them, what is hidden, and how it is read."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from tests.evaluation.run_setups import make_definition

from stemmadb.accounts import api_keys, audit, roles, sessions, users
from stemmadb.accounts.audit import AuditAction, SecurityEventType
from stemmadb.accounts.data import OAuthLink, UserRegistration, UserUpdate
from stemmadb.accounts.documents import OAuthProfile, SecurityEventPayload
from stemmadb.accounts.entities import AuditLog
from stemmadb.aio.accounts import audit as aaudit
from stemmadb.aio.accounts import users as ausers
from stemmadb.audit import Actor, ActorType, actor
from stemmadb.database import Database
from stemmadb.documents import RawDocument
from stemmadb.errors import (
    AuthenticationError,
    FrozenError,
    InvalidCursorError,
    NotFoundError,
    PermissionDeniedError,
    ReferenceNotFoundError,
    UnknownSchemaVersionError,
    ValidationError,
)
from stemmadb.evaluation import definitions
from stemmadb.testing import assert_max_queries, count_queries, make_workspace, run_together
from stemmadb.workspaces import approvals, members, providers, workspaces
from stemmadb.workspaces.approvals import ApprovalCreate
from stemmadb.workspaces.data import ProviderConfigUpdate
from stemmadb.workspaces.documents import AIProviderSettings
from stemmadb.workspaces.vocabularies import AIProvider, WorkspaceRole

KEYS = "k:" + base64.b64encode(b"k" * 32).decode()


def make_user(session: Session, name: str | None = None) -> UUID:
    """The id of a new user."""
    return users.create(session, f"{uuid4().hex}@audit.example", name=name).id


def trail(session: Session, entity: str, entity_id: object) -> list[tuple[str, tuple[str, ...]]]:
    """The actions about a row, and what each changed, the oldest first."""
    found = audit.history(session, entity, str(entity_id)).items
    return [(row.action, row.after.changed if row.after else ()) for row in reversed(found)]


def count(session: Session) -> int:
    """How many records the session sees."""
    return int(session.scalar(text("SELECT count(*) FROM stemma.audit_logs")) or 0)


# --------------------------------------------------------------------------------------------------------------------- triggers


@pytest.mark.requirement("EC-191", "EC-005", "EC-077", "EC-226")
def test_every_change_of_a_row_is_on_record(session: Session, workspace: UUID) -> None:
    """CREATE, UPDATE with what changed, a soft deletion, its end, and the deletion; before and after, in the session's workspace."""
    id = make_user(session, "Ada")
    users.update(session, id, UserUpdate(name="Grace", phone="5"))
    users.soft_delete(session, id)
    users.restore(session, id)
    users.purge(session, id)
    assert trail(session, "users", id) == [
        ("CREATE", ()),
        ("UPDATE", ("name", "phone")),
        ("DELETE", ("deleted_at", "status")),
        ("RESTORE", ("deleted_at", "status")),
        ("DELETE", ()),
    ]
    gone, _, _, changed, made = audit.history(session, "users", str(id)).items
    assert made.before is None
    assert made.after is not None
    assert (made.after.table, made.after.data["name"], made.after.data["phone"]) == ("users", "Ada", None)
    assert changed.before is not None
    assert changed.after is not None
    assert (changed.before.data["name"], changed.after.data["name"]) == ("Ada", "Grace")
    assert gone.after is None
    assert gone.before is not None
    assert gone.before.data["id"] == str(id)
    assert {row.workspace_id for row in (gone, changed, made)} == {workspace}
    assert {row.actor_type for row in (gone, changed, made)} == {ActorType.SYSTEM}


@pytest.mark.requirement("EC-226", "EC-191")
def test_a_registration_is_on_record(session: Session) -> None:
    """The user, and the role that they got, with the keys of both."""
    roles.create(session, "customer")
    data = UserRegistration(email="new@audit.example", password=SecretStr("correct horse battery staple"))
    made = users.register(session, data).user
    assert trail(session, "users", made.id) == [("CREATE", ())]
    role = roles.get_by_name(session, "customer")
    assert trail(session, "user_roles", f"{made.id}/{role.id}") == [("CREATE", ())]


@pytest.mark.requirement("EC-191")
def test_bulk_statements_and_raw_sql_are_on_record(session: Session) -> None:
    """One record for each row that changed, whatever the statement: INSERT ... SELECT, UPDATE, ON CONFLICT, a CTE, DELETE."""
    ids = session.scalars(
        text("INSERT INTO stemma.users (email, name) SELECT n || '@bulk.example', 'x' FROM generate_series(1, 50) AS n RETURNING id")
    ).all()
    session.execute(text("UPDATE stemma.users SET name = 'y' WHERE email LIKE '%@bulk.example'"))
    upsert = text(
        "INSERT INTO stemma.users (email, name) VALUES ('1@bulk.example', 'z') "
        "ON CONFLICT (email) DO UPDATE SET name = excluded.name RETURNING id"
    )
    first = session.scalar(upsert)
    session.execute(
        text("WITH gone AS (DELETE FROM stemma.users WHERE email LIKE '%@bulk.example' RETURNING id) SELECT count(*) FROM gone")
    )
    for id in ids:
        again = [("UPDATE", ("name",))] if id == first else []
        assert trail(session, "users", id) == [("CREATE", ()), ("UPDATE", ("name",)), *again, ("DELETE", ())]


def test_a_change_that_changed_nothing_leaves_no_record(session: Session, workspace: UUID) -> None:
    """Neither does a version that moves alone, nor a count or a time that says nothing by itself."""
    id = make_user(session, "Ada")
    issued = api_keys.issue(session, id, "key")
    item = approvals.create(session, ApprovalCreate(type="run", title="Run it"))
    config = providers.upsert(session, AIProvider.OPENAI, data=ProviderConfigUpdate(daily_token_limit=10))
    before = count(session)
    session.execute(text("UPDATE stemma.users SET name = name"))
    session.execute(text("UPDATE stemma.approval_items SET version = version + 1"))
    users.update(session, id, UserUpdate(name="Ada"))
    users.record_failed_login(session, id)
    users.record_successful_login(session, id)
    api_keys.verify(session, issued.token)
    providers.consume_tokens(session, config.id, 1, on=datetime.now(UTC).date())
    assert count(session) == before
    session.execute(text("UPDATE stemma.users SET failed_login_count = 3, name = 'Grace' WHERE id = :id"), {"id": id})
    assert trail(session, "users", id)[-1] == ("UPDATE", ("failed_login_count", "name"))
    assert trail(session, "approval_items", item.id) == [("CREATE", ())]


def test_what_is_rolled_back_leaves_no_record(committed_db: Database) -> None:
    """Neither the transaction nor a savepoint of it; what stays in the transaction does."""
    with pytest.raises(LookupError), committed_db.session() as session:
        make_user(session)
        raise LookupError
    with committed_db.session() as session:
        assert count(session) == 0
        with pytest.raises(LookupError), session.begin_nested():
            make_user(session)
            raise LookupError
        id = make_user(session)
        with session.begin_nested():
            users.update(session, id, UserUpdate(name="x"))
    with committed_db.session() as session:
        assert count(session) == 2
        assert trail(session, "users", id) == [("CREATE", ()), ("UPDATE", ("name",))]


@pytest.mark.requirement("EC-048", "EC-191", "VR-104")
def test_no_secret_is_in_the_trail(committed_db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of everything secret that a user has, neither the plain value nor a digest or ciphertext is anywhere in the logs."""
    monkeypatch.setenv("STEMMADB_SECRET_KEYS", KEYS)
    workspace = make_workspace(committed_db, "lab")
    planted = {name: f"planted-{name}-{uuid4().hex}" for name in ("password", "totp", "access", "refresh", "provider", "header", "claim")}
    plain = list(planted.values())
    with committed_db.session("lab") as session:
        id = make_user(session)
        users.set_password(session, id, SecretStr(planted["password"]))
        setup = users.enable_two_factor(session, id, SecretStr(planted["totp"]))
        users.consume_backup_code(session, id, setup.backup_codes[0])
        link = OAuthLink(
            provider="github",
            provider_account_id="1",
            access_token=SecretStr(planted["access"]),
            refresh_token=SecretStr(planted["refresh"]),
            profile=OAuthProfile(raw={"nested": [{"id_token": planted["claim"]}]}),
        )
        users.link_oauth(session, id, link)
        key = api_keys.issue(session, id, "first", workspace_id=workspace)
        rotated = api_keys.rotate(session, key.key.id)
        opened = sessions.open(session, id)
        settings = AIProviderSettings(headers={"Authorization": planted["header"]})
        config = providers.upsert(
            session, AIProvider.OPENAI, api_key=SecretStr(planted["provider"]), data=ProviderConfigUpdate(settings=settings)
        )
        providers.reveal_key(session, config.id)
        users.disable_two_factor(session, id)
        users.purge(session, id)
        providers.delete(session, config.id)
    secrets = [*setup.backup_codes, key.token, rotated.token, opened.token]
    plain += [secret.get_secret_value() for secret in secrets]
    with committed_db.all_workspaces(reason="the test") as session:
        logs = "".join(session.scalars(text("SELECT audit_logs::text FROM stemma.audit_logs")))
        logs += "".join(session.scalars(text("SELECT security_events::text FROM stemma.security_events")))
        changed = session.scalars(text("SELECT after ->> 'changed' FROM stemma.audit_logs WHERE entity = 'users'")).all()
    for value in plain:
        assert value not in logs
        assert value[-20:] not in logs
    for form in ("$argon2id$", "v1:k:", r"\\\\x"):
        assert form not in logs
    assert logs.count("***") >= 10
    assert any("password_hash" in (names or "") for names in changed)


def test_texts_come_back_as_they_were(session: Session) -> None:
    """Also the characters by which documents escape others."""
    name = '\x1a0000 \x1a \x1a\x1a001a \u2028 é 😀 \\u0000 "quoted"'
    id = make_user(session, name)
    (made,) = audit.history(session, "users", str(id))
    assert made.after is not None
    assert made.after.data["name"] == name


# ------------------------------------------------------------------------------------------------------------------- who, and where


@pytest.mark.requirement("EC-077", "EC-191")
def test_the_record_says_who_and_from_where(committed_db: Database) -> None:
    """The actor of the session, of whatever kind; one who does not exist is left out, and the change goes on."""
    with committed_db.session() as session:
        ada = make_user(session)
    with actor(ada, type=ActorType.API_KEY, ip_address="10.1.2.3", user_agent="curl/8"), committed_db.session() as session:
        roles.create(session, "one")
    with actor(uuid4(), ip_address="::1"), committed_db.session() as session:
        roles.create(session, "two")
    with actor(type=ActorType.SYSTEM), committed_db.session() as session:
        roles.create(session, "three")
    with committed_db.session() as session:
        found = {row.after.data["name"]: row for row in audit.list_all(session, entity="roles") if row.after}
    assert [(row.user_id, row.actor_type, str(row.ip_address), row.user_agent) for row in (found["one"], found["two"], found["three"])] == [
        (ada, ActorType.API_KEY, "10.1.2.3", "curl/8"),
        (None, ActorType.USER, "::1", None),
        (None, ActorType.SYSTEM, "None", None),
    ]


@pytest.mark.requirement("EC-012")
def test_what_administrators_do_is_recorded_as_theirs(committed_db: Database) -> None:
    """Suspensions and grants say ADMIN with the user who acts; what follows in the session is the user's own again."""
    with committed_db.session() as session:
        ada, bob = make_user(session), make_user(session)
        roles.create(session, "staff")
        roles.create_permission(session, "orders:write")
    with actor(ada, ip_address="10.0.0.1"), committed_db.session() as session:
        roles.grant_to_role(session, "staff", "orders:write")
        roles.assign(session, bob, "staff")
        roles.grant(session, bob, "orders:write")
        users.suspend(session, bob, reason="a test")
        users.reinstate(session, bob)
        roles.revoke(session, bob, "orders:write")
        roles.remove(session, bob, "staff")
        roles.revoke_from_role(session, "staff", "orders:write")
        done = audit.list_all(session, user_id=ada)
    assert [(row.entity, row.action, row.actor_type.value) for row in reversed(done.items)] == [
        ("role_permissions", "CREATE", "ADMIN"),
        ("user_roles", "CREATE", "ADMIN"),
        ("user_permissions", "CREATE", "ADMIN"),
        ("users", "UPDATE", "ADMIN"),
        ("users", "UPDATE", "USER"),
        ("user_permissions", "DELETE", "ADMIN"),
        ("user_roles", "DELETE", "ADMIN"),
        ("role_permissions", "DELETE", "ADMIN"),
    ]
    assert {str(row.ip_address) for row in done} == {"10.0.0.1"}


@pytest.mark.requirement("EC-012")
def test_an_administrator_need_not_be_named(session: Session) -> None:
    """Without an actor the record says ADMIN and nobody; a refused call leaves the next one SYSTEM."""
    bob = make_user(session)
    users.suspend(session, bob, reason="a test")
    with pytest.raises(NotFoundError):
        roles.assign(session, bob, "nothing-of-the-kind")
    users.reinstate(session, bob)
    found = audit.history(session, "users", str(bob))
    assert [row.actor_type.value for row in reversed(found.items)] == ["SYSTEM", "ADMIN", "SYSTEM"]


@pytest.mark.requirement("TN-048", "EC-077")
def test_a_workspace_sees_the_records_made_in_it(committed_db: Database) -> None:
    """Not those of another, nor those made outside, which are seen outside; across workspaces all are."""
    here, there = make_workspace(committed_db), make_workspace(committed_db)
    ids = {}
    for place in (here, there, None):
        with committed_db.session(place) as session:
            ids[place] = make_user(session)
    for place in (here, there, None):
        with committed_db.session(place) as session:
            seen = {row.entity_id for row in audit.list_all(session, entity="users", since=datetime.now(UTC) - timedelta(hours=1))}
            assert {str(id) for id in ids.values()} & seen == {str(ids[place])}
            assert {row.workspace_id for row in audit.history(session, "users", str(ids[place]))} == {place}
    with committed_db.all_workspaces(reason="the test") as session:
        seen = {row.entity_id for row in audit.list_all(session, entity="users")}
        assert {str(id) for id in ids.values()} <= seen
        session.execute(text("UPDATE stemma.workspace_members SET role = 'ADMIN' WHERE workspace_id = :id"), {"id": here})
    with committed_db.session(here) as session:
        (change,) = audit.list_all(session, entity="workspace_members", action=AuditAction.UPDATE)
        assert change.workspace_id == here


@pytest.mark.parametrize("inside", [True, False])
def test_a_workspace_that_is_purged_leaves_its_records(committed_db: Database, inside: bool) -> None:
    """Those of its rows go into the records of no workspace; the session that purged it can go on."""
    lab = make_workspace(committed_db, "lab")
    with committed_db.session("lab") as session:
        id = make_user(session)
        members.add(session, id)
    with committed_db.session("lab" if inside else None) as session:
        workspaces.soft_delete(session, lab)
        workspaces.purge(session, lab)
        roles.create(session, "later")
    with committed_db.session() as session:
        assert [row[0] for row in trail(session, "workspaces", lab)] == ["CREATE", "DELETE", "DELETE"]
        assert len(audit.list_all(session, entity="workspace_members", action="DELETE").items) == 2
        assert len(audit.list_all(session, entity="roles").items) == 1
        assert {row.workspace_id for row in audit.list_all(session)} == {None}


def test_whoever_purges_themselves_does_not_stand_in_the_way(committed_db: Database) -> None:
    """The record of it names nobody, as those before do from then on."""
    with committed_db.session() as session:
        ada = make_user(session)
    with actor(ada), committed_db.session() as session:
        roles.create(session, "one")
        users.purge(session, ada)
    with committed_db.session() as session:
        assert [row.user_id for row in audit.list_all(session)] == [None] * 3


@pytest.mark.race
def test_an_actor_who_is_purged_meanwhile_breaks_nothing(committed_db: Database) -> None:
    """Of a change and the purge of whoever makes it, both succeed, in either order."""
    for attempt in range(10):
        with committed_db.session() as session:
            ada = make_user(session)

        def act(number: int, attempt: int = attempt, ada: UUID = ada) -> None:
            with actor(ada):
                if number:
                    committed_db.run(roles.create, f"role-{attempt}")
                else:
                    committed_db.run(users.purge, ada)

        assert run_together(2, act) == [None, None]
    with committed_db.session() as session:
        assert len(audit.list_all(session, entity="roles").items) == 10


@pytest.mark.race
def test_ten_writers_of_one_row_leave_ten_records(committed_db: Database) -> None:
    """Each record's before is what the record ahead of it left."""
    with committed_db.session() as session:
        id = make_user(session, "start")
    results = run_together(10, lambda number: committed_db.run(users.update, id, UserUpdate(name=f"name {number}")) and None)
    assert results == [None] * 10
    with committed_db.session() as session:
        rows = audit.history(session, "users", str(id)).items[::-1]
    names = [(row.before and row.before.data["name"], row.after and row.after.data["name"]) for row in rows]
    assert len(names) == 11
    following = dict(names[1:])
    name, seen = "start", 0
    while name in following:
        name, seen = following[name], seen + 1
    assert seen == 10


# --------------------------------------------------------------------------------------------------------------- what has no trigger


@pytest.mark.requirement("AD-021")
def test_a_key_that_was_revealed_is_on_record(committed_db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever becomes of the caller's transaction, and in a session that only reads."""
    monkeypatch.setenv("STEMMADB_SECRET_KEYS", KEYS)
    lab = make_workspace(committed_db, "lab")
    with committed_db.session("lab") as session:
        ada = make_user(session)
        config = providers.upsert(session, AIProvider.OPENAI, api_key=SecretStr("sk-0123456789abcdef"))
    with actor(ada, ip_address="10.0.0.1"):
        with pytest.raises(LookupError), committed_db.session("lab") as session:
            providers.reveal_key(session, config.id)
            raise LookupError
        with committed_db.session("lab", read_only=True) as session:
            providers.reveal_key(session, config.id)
    with committed_db.session("lab") as session:
        rows = audit.history(session, "ai_provider_configs", str(config.id))
        found = [(row.action, row.user_id, str(row.ip_address), row.workspace_id) for row in rows]
    assert found[:2] == [(AuditAction.REVEAL_KEY, ada, "10.0.0.1", lab)] * 2
    assert [action for action, *_ in found] == ["REVEAL_KEY", "REVEAL_KEY", "CREATE"]


@pytest.mark.requirement("EC-077", "EC-012")
def test_handing_over_and_keys_are_on_record(committed_db: Database) -> None:
    """Ownership and both roles in the workspace; a key made, rotated, restricted and revoked."""
    lab = make_workspace(committed_db, "lab")
    with committed_db.session("lab") as session:
        ada = make_user(session)
        members.add(session, ada)
        workspaces.transfer_ownership(session, lab, ada)
        assert trail(session, "workspaces", lab) == [("UPDATE", ("owner_id",))]
        moved = audit.list_all(session, entity="workspace_members", action="UPDATE")
        assert sorted(row.after.data["role"] for row in moved if row.after) == [WorkspaceRole.ADMIN, WorkspaceRole.OWNER]
        key = api_keys.issue(session, ada, "key").key
        new = api_keys.rotate(session, key.id).key
        api_keys.set_scopes(session, new.id, ["runs:read"])
        api_keys.revoke(session, new.id)
        assert trail(session, "api_keys", key.id) == [("CREATE", ()), ("UPDATE", ("expires_at",))]
        assert trail(session, "api_keys", new.id) == [("CREATE", ()), ("UPDATE", ("scopes",)), ("UPDATE", ("revoked_at",))]


def test_a_label_keeps_its_movers(committed_db: Database) -> None:
    """moved_by_id is the actor, and the trail has every move."""
    make_workspace(committed_db, "lab")
    with committed_db.session("lab") as session:
        ada, bob = make_user(session), make_user(session)
        first, second = make_definition(session, "one").id, make_definition(session, "two").id
    with actor(ada), committed_db.session("lab") as session:
        assert definitions.set_label(session, "production", first).moved_by_id == ada
    with actor(bob), committed_db.session("lab") as session:
        assert definitions.move_label(session, "production", second).moved_by_id == bob
        assert definitions.move_label(session, "production", second).moved_by_id == bob
    with actor(uuid4()), committed_db.session("lab") as session:
        assert definitions.move_label(session, "production", first).moved_by_id is None
    with committed_db.session("lab") as session:
        assert definitions.move_label(session, "production", second).moved_by_id is None
        rows = audit.history(session, "definition_labels", "production").items[::-1]
        assert [(row.action, row.user_id) for row in rows] == [("CREATE", ada), ("UPDATE", bob), ("UPDATE", None), ("UPDATE", None)]
        assert [row.after.data["definition_id"] for row in rows if row.after] == [str(id) for id in (first, second, first, second)]


@pytest.mark.requirement("EC-118")
def test_security_events_say_from_where(committed_db: Database) -> None:
    """Failed log-ins, reuse of a token and refused permissions carry the client of the actor, and outlive a rollback."""
    with committed_db.session() as session:
        ada = make_user(session)
        token = sessions.open(session, ada).token
        sessions.rotate(session, token)
    with actor(ip_address="10.9.9.9", user_agent="curl/8"), pytest.raises(LookupError), committed_db.session() as session:
        users.record_failed_login(session, ada)
        with pytest.raises(AuthenticationError):
            sessions.authenticate(session, token)
        with pytest.raises(PermissionDeniedError):
            roles.require(session, ada, "orders:write")
        raise LookupError
    with committed_db.session() as session:
        found = audit.list_security_events(session, user_id=ada)
    assert {row.type for row in found} == {"LOGIN_FAILED", "SESSION_REVOKED", "PERMISSION_DENIED"}
    assert {(str(row.ip_address), row.user_agent) for row in found} == {("10.9.9.9", "curl/8")}


# ------------------------------------------------------------------------------------------------------------------------- functions


@pytest.mark.requirement("RF-028", "EC-048")
def test_record_what_no_table_shows(session: Session, workspace: UUID) -> None:
    """Any word in capitals; secrets are hidden at any depth; one statement; who acts can be said."""
    ada = make_user(session)
    with assert_max_queries(1):
        written = audit.record(
            session,
            "ACCOUNT_FORCE_DELETE",
            "users",
            str(ada),
            before={"name": "Ada", "token": "planted", "deep": {"password": SecretStr("planted")}, "same": 1},
            after={"name": None, "token": "planted again", "same": 1},
            actor=Actor(ada, ActorType.ADMIN, "10.0.0.1", "curl/8"),
        )
    assert (written.action, written.workspace_id, written.user_id, written.actor_type) == (
        AuditAction.ACCOUNT_FORCE_DELETE,
        workspace,
        ada,
        ActorType.ADMIN,
    )
    assert written.before is not None
    assert written.after is not None
    assert written.before.data == {"name": "Ada", "token": "***", "deep": {"password": "***"}, "same": 1}
    assert written.after.changed == ("deep", "name", "token")
    assert audit.history(session, "users", str(ada)).items[0] is written
    stored = session.scalar(text("SELECT before::text || after::text FROM stemma.audit_logs WHERE id = :id"), {"id": written.id})
    assert "planted" not in str(stored)
    plain = audit.record(session, "EXPORT", "reports", "7", actor=Actor(uuid4()))
    assert (plain.before, plain.after, plain.user_id, plain.actor_type) == (None, None, None, ActorType.USER)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"action": "export"}, "action"),
        ({"action": ""}, "action"),
        ({"entity": 5}, "entity"),
        ({"entity": "a\0b"}, "entity"),
        ({"entity_id": 5}, "entity_id"),
        ({"before": ["x"]}, "before"),
        ({"after": {"x": {1, 2}}}, "after"),
        ({"before": {"x": float("nan")}}, "before"),
    ],
)
def test_what_cannot_be_recorded_is_refused(session: Session, arguments: dict[str, Any], field: str) -> None:
    """A ValidationError before anything is sent."""
    with count_queries() as sent, pytest.raises(ValidationError) as caught:
        audit.record(session, **{"action": "EXPORT", "entity": "users", "entity_id": "1", **arguments})
    assert sent.count == 0
    assert caught.value.field == field


@pytest.mark.requirement("EC-116", "EC-118")
def test_pages_of_records_join(committed_db: Database) -> None:
    """Newest first, by every filter; a cursor is good for one list."""
    with committed_db.session() as session:
        ada = make_user(session)
    middle = datetime.now(UTC)
    with actor(ada), committed_db.session() as session:
        for number in range(7):
            roles.create(session, f"role-{number}")
    with committed_db.session() as session:
        first = audit.list_all(session, user_id=ada, entity="roles", limit=3)
        rows = [*first, *audit.list_all(session, user_id=ada, entity="roles", limit=200, cursor=first.next_cursor)]
        assert [row.after.data["name"] for row in rows if row.after] == [f"role-{number}" for number in reversed(range(7))]
        assert audit.list_all(session, since=middle).items == rows
        assert [row.entity for row in audit.list_all(session, until=middle)] == ["users"]
        assert audit.list_all(session, action="DELETE").items == []
        assert audit.list_all(session, user_id=uuid4()).items == []
        with pytest.raises(InvalidCursorError):
            audit.list_all(session, entity="users", cursor=first.next_cursor)
        for arguments, field in (
            ({"user_id": "ada"}, "user_id"),
            ({"since": datetime(2026, 1, 1)}, "since"),
            ({"until": "today"}, "until"),
            ({"entity": "\0"}, "entity"),
            ({"on_invalid": "drop"}, "on_invalid"),
        ):
            with pytest.raises(ValidationError) as caught:
                audit.list_all(session, **arguments)  # type: ignore[arg-type]
            assert caught.value.field == field


def test_a_record_that_cannot_be_read_costs_itself_at_most(session: Session) -> None:
    """A newer release's snapshot raises, is left out, or comes as it is."""
    session.execute(
        text(
            "INSERT INTO stemma.audit_logs (workspace_id, action, entity, entity_id, after) "
            "VALUES (stemma.stemma_workspace_id(), 'CREATE', 'things', '1', '{\"schema_version\": 99}')"
        )
    )
    audit.record(session, "EXPORT", "things", "1")
    with pytest.raises(UnknownSchemaVersionError):
        audit.history(session, "things", "1")
    assert [row.action for row in audit.history(session, "things", "1", on_invalid="skip")] == ["EXPORT"]
    raw = audit.history(session, "things", "1", on_invalid="raw").items[1]
    assert isinstance(raw.after, RawDocument)


@pytest.mark.requirement("EC-118")
def test_security_events_of_an_application(session: Session) -> None:
    """Written with the transaction, one statement; secrets hidden; an unknown user is refused and the transaction goes on."""
    ada = make_user(session)
    payload = SecurityEventPayload(reason="new device", details={"token": "planted", "device": "phone"})
    with assert_max_queries(1):
        event = audit.record_security_event(session, "NEW_DEVICE", user_id=ada, payload=payload, ip_address="10.0.0.1", user_agent="curl/8")
    assert event.payload.details == {"token": "***", "device": "phone"}
    assert (event.user_id, str(event.ip_address), event.user_agent) == (ada, "10.0.0.1", "curl/8")
    assert audit.list_security_events(session, user_id=ada).items == [event]
    assert audit.list_security_events(session, type="NEW_DEVICE", since=event.created_at).items == [event]
    assert audit.list_security_events(session, user_id=ada, type=SecurityEventType.LOCKOUT).items == []
    with pytest.raises(ReferenceNotFoundError) as caught:
        audit.record_security_event(session, "NEW_DEVICE", user_id=uuid4())
    assert caught.value.field == "user_id"
    assert audit.record_security_event(session, "PROBE").user_id is None
    for arguments, field in (
        ({"type": "probe"}, "type"),
        ({"type": "PROBE", "ip_address": "x"}, "ip_address"),
        ({"type": "P", "user_id": "x"}, "user_id"),
    ):
        with pytest.raises(ValidationError) as refused:
            audit.record_security_event(session, **arguments)
        assert refused.value.field == field


@pytest.mark.requirement("AD-030", "EC-191")
def test_records_are_never_changed(session: Session, owner: Engine) -> None:
    """The library's login may not, by grant; an object of a record is refused too; of the owner, by trigger."""
    written = audit.record(session, "EXPORT", "reports", "7")
    for statement in ("UPDATE stemma.audit_logs SET action = 'X'", "DELETE FROM stemma.audit_logs", "TRUNCATE stemma.audit_logs"):
        with pytest.raises(Exception, match="permission denied"), session.begin_nested():
            session.execute(text(statement))
    with pytest.raises(Exception, match="permission denied"), session.begin_nested():
        written.action = "OTHER"
        session.flush()
    assert FrozenError.code == "frozen"
    with owner.connect() as connection, pytest.raises(Exception, match="append-only"):
        connection.execute(text("INSERT INTO stemma.audit_logs (action, entity, entity_id) VALUES ('X', 'x', '1')"))
        connection.execute(text("DELETE FROM stemma.audit_logs"))


async def test_async_twins(committed_db: Database) -> None:
    """The same functions for an AsyncSession."""
    async with committed_db.async_session() as session:
        ada = (await ausers.create(session, "ada@audit.example")).id
    with aaudit.actor(ada, ip_address="10.0.0.1"):
        async with committed_db.async_session() as session:
            assert isinstance(session, AsyncSession)
            await ausers.update(session, ada, UserUpdate(name="Ada"))
            written = await aaudit.record(session, "EXPORT", "users", str(ada))
            assert written.user_id == ada
            found = await aaudit.history(session, "users", str(ada))
            assert [row.action for row in found] == ["EXPORT", "UPDATE", "CREATE"]
            assert isinstance(found.items[0], AuditLog)
            assert (await aaudit.list_all(session, user_id=ada, limit=1)).items == [written]
            event = await aaudit.record_security_event(session, "PROBE")
            assert str(event.ip_address) == "10.0.0.1"
            assert (await aaudit.list_security_events(session, type="PROBE")).items == [event]
