"""Seeds: by profile, each module whole or not at all, and twice as if once."""

import time

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from stemmadb import seeding, tenancy
from stemmadb.database import Database
from stemmadb.errors import SeedError, ValidationError
from stemmadb.evaluation import definitions, runs
from stemmadb.evaluation._sample_family import LEAF, ROOT
from stemmadb.evaluation.seed import sample_id
from stemmadb.packs import packs
from stemmadb.seeding import Seed
from stemmadb.testing import run_together

TABLES = ("users", "roles", "permissions", "role_permissions", "user_roles", "workspaces")
TENANT_TABLES = ("definitions", "scenarios", "runs", "run_slots", "transcripts", "workspace_members")


def counts(db: Database) -> dict[str, int]:
    """Rows per table, over all workspaces."""
    with db.all_workspaces(reason="count") as session:
        return {table: session.scalar(text(f"SELECT count(*) FROM stemma.{table}")) for table in (*TABLES, *TENANT_TABLES)}


@pytest.mark.requirement("VR-097", "VR-028", "EC-135", "EC-148", "EC-251", "VR-100", "EC-152", "PF-078")
@pytest.mark.parametrize("profile", seeding.PROFILES)
def test_twice_is_as_once(committed_db: Database, profile: str) -> None:
    """The second run applies nothing and changes no row count; the first says what it inserted, within a minute."""
    started = time.monotonic()
    first = seeding.run(committed_db, profile)
    assert time.monotonic() - started < 60
    before = counts(committed_db)
    second = seeding.run(committed_db, profile)
    assert first.applied
    assert (second.applied, set(second.unchanged)) == ({}, set(first.applied))
    assert counts(committed_db) == before
    assert sum(sum(tables.values()) for tables in first.applied.values()) > 0


def test_the_default_workspace_need_not_exist(committed_db: Database) -> None:
    """A Database for a workspace that the seeds are still to make, in a context that names another one: each module has its own or none."""
    committed_db.workspace = "dev"
    with tenancy.workspace("nowhere"):
        assert seeding.status(committed_db, "dev")[0].state == "pending"
        assert seeding.run(committed_db, "dev").applied
        assert {row.state for row in seeding.status(committed_db, "dev")} == {"applied"}
        assert tenancy.current_workspace() == "nowhere"
    with committed_db.session() as session:
        assert definitions.list_all(session).items


@pytest.mark.requirement("EC-148", "EC-153")
def test_profiles_grow(stemmadb_server: object, committed_db: Database) -> None:
    """prod has no sample data and no person; dev has some; qa has more."""
    seeding.run(committed_db, "prod")
    prod = counts(committed_db)
    assert (prod["users"], prod["workspaces"], prod["definitions"], prod["roles"]) == (0, 0, 0, 3)
    seeding.run(committed_db, "dev")
    dev = counts(committed_db)
    seeding.run(committed_db, "qa")
    qa = counts(committed_db)
    assert sum(prod.values()) < sum(dev.values()) < sum(qa.values())


@pytest.mark.requirement("VR-098", "VR-099", "VR-100", "VR-103", "VR-104", "VR-110", "EC-141")
def test_the_development_data(committed_db: Database) -> None:
    """A person, a tree whose leaf has ancestors up to a root without a parent, a finished run with its transcripts."""
    seeding.run(committed_db, "dev")
    with committed_db.session(workspace="dev") as session:
        leaf = sample_id(session, LEAF)
        line = definitions.ancestors(session, leaf)
        assert len(line) == 4
        assert line[0].parent_id is None
        raw = session.execute(
            text(
                """
                WITH RECURSIVE ancestors AS (
                    SELECT id, parent_id FROM definitions WHERE id = :id
                    UNION ALL
                    SELECT d.id, d.parent_id FROM definitions d JOIN ancestors a ON d.id = a.parent_id
                )
                SELECT id, parent_id FROM ancestors
                """
            ),
            {"id": leaf},
        ).all()
        assert [row.id for row in raw] == [leaf, *(row.id for row in reversed(line))]
        assert raw[-1].parent_id is None
        run = runs.list_for_tree(session, sample_id(session, ROOT)).items[0]
        report = runs.progress(session, run.id)
        assert (run.status, report.completed, report.total) == ("COMPLETED", 12, 12)
        assert len(runs.get_with_transcripts(session, run.id).transcripts) == 12
        assert session.scalar(text("SELECT count(*) FROM stemma.users WHERE email = 'dev@valuerank.ai'")) == 1
        assert session.scalar(text("SELECT count(*) FROM stemma.users WHERE password_hash IS NOT NULL")) == 0


@pytest.mark.requirement("EC-138", "EC-139", "EC-140")
def test_roles_and_permissions(committed_db: Database) -> None:
    """customer, staff, admin; permissions of the form domain:action; admin has all, customer few."""
    seeding.run(committed_db, "prod")
    statement = text(
        "SELECT roles.name, count(permission_id) FROM stemma.roles LEFT JOIN stemma.role_permissions ON role_id = roles.id GROUP BY 1"
    )
    with committed_db.session() as session:
        granted = {row[0]: row[1] for row in session.execute(statement)}
        total = session.scalar(text("SELECT count(*) FROM stemma.permissions WHERE key ~ '^[a-z_]+:([a-z_]+|[*])$'"))
    assert granted["admin"] == total
    assert 0 < granted["customer"] < granted["staff"] < granted["admin"]


@pytest.mark.requirement("EC-151")
def test_status(committed_db: Database) -> None:
    """Pending before, applied after, changed when the data is another."""
    assert {row.state for row in seeding.status(committed_db)} == {"pending"}
    seeding.run(committed_db, "dev")
    assert {row.state for row in seeding.status(committed_db, "dev")} == {"applied"}
    assert {row.state for row in seeding.status(committed_db, "qa")} == {"pending"}
    with committed_db.session() as session:
        session.execute(text("UPDATE stemma.stemma_seed_history SET checksum = 'other' WHERE module = 'accounts.roles'"))
    assert {row.module for row in seeding.status(committed_db, "dev") if row.state == "changed"} == {"accounts.roles"}
    assert set(seeding.run(committed_db, "dev").applied) == {"accounts.roles"}


@pytest.mark.race
@pytest.mark.requirement("EC-135", "EC-251")
def test_at_once_is_as_once(committed_db: Database) -> None:
    """Eight callers at once: each module is applied by one of them."""
    results = run_together(8, lambda _: seeding.run(committed_db, "dev"))
    reports = [result for result in results if isinstance(result, seeding.SeedReport)]
    assert len(reports) == 8
    applied = [module for report in reports for module in report.applied]
    assert sorted(applied) == sorted(set(applied))


@pytest.mark.fault
@pytest.mark.requirement("EC-136", "EC-137")
def test_a_module_that_fails_leaves_nothing(committed_db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """SeedError names the module; what it wrote is gone, the modules before it stay; malformed data is refused unwritten."""

    def broken(session: Session, _data: object, _profile: object) -> dict[str, int]:
        session.execute(text("INSERT INTO stemma.roles (name) VALUES ('half')"))
        session.execute(text("INSERT INTO stemma.roles (name) VALUES ('half')"))
        return {}

    def refuse(_data: object) -> None:
        raise ValidationError("not this", field="data")

    accounts = next(pack for pack in packs() if pack.name == "accounts")
    real = type(accounts).load_seeds
    extra = Seed("accounts.broken", frozenset({"prod"}), {}, broken)
    monkeypatch.setattr(type(accounts), "load_seeds", lambda self: (*real(self), *([(extra,)] if self is accounts else [])))
    with pytest.raises(SeedError, match=r"accounts\.broken"):
        seeding.run(committed_db, "prod")
    with committed_db.session() as session:
        assert set(session.scalars(text("SELECT name FROM stemma.roles"))) == {"customer", "staff", "admin"}
    extra = Seed("accounts.broken", frozenset({"prod"}), {}, broken, check=refuse)
    with pytest.raises(SeedError, match=r"accounts\.broken failed at data: .*not this"):
        seeding.run(committed_db, "prod")


@pytest.mark.offline
def test_an_unknown_profile_is_refused() -> None:
    """The message lists those that there are."""
    with pytest.raises(ValidationError, match="dev, qa, prod, demo, test"):
        seeding._profile("production")
