"""Seed data: what a database starts with, by profile. Run twice, it is as if run once."""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal, get_args

from sqlalchemy import select
from sqlalchemy.orm import Session

from stemmadb import tenancy
from stemmadb.database import Database
from stemmadb.errors import SeedError, StemmaError, ValidationError
from stemmadb.infra import SeedHistory, SeedRowCounts
from stemmadb.packs import packs
from stemmadb.query import sql_rows

__all__ = ["PROFILES", "Profile", "Seed", "SeedReport", "SeedStatus", "run", "status"]

logger: Final = logging.getLogger(__name__)

Profile = Literal["dev", "qa", "prod", "demo", "test"]
PROFILES: tuple[Profile, ...] = get_args(Profile)
"""dev: a little of everything; qa: more of it; prod: only what an installation needs; demo: to show; test: for suites."""

State = Literal["applied", "pending", "changed"]


@dataclass(frozen=True)
class Seed:
    """
    One module of seed data.

    Args:
        name: ``pack.what``, unique.
        profiles: for which profiles it is.
        data: what ``apply`` is given, JSON values only; its checksum tells whether the module changed since it was applied.
        apply: writes the data by upserts, and returns how many rows of each table it inserted.
        workspace: the slug of the workspace that its session is in; None for global tables.
        check: refuses malformed data before anything is written; raises ValidationError, whose ``field`` says which row it is.
    """

    name: str
    profiles: frozenset[Profile]
    data: Any
    apply: Callable[[Session, Any, Profile], Mapping[str, int]]
    workspace: str | None = None
    check: Callable[[Any], object] | None = None

    @property
    def checksum(self) -> str:
        """SHA-256 of the data, in hexadecimal."""
        return hashlib.sha256(json.dumps(self.data, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class SeedReport:
    """What a run of the seeds did."""

    profile: Profile
    applied: dict[str, dict[str, int]] = field(default_factory=dict)
    """Per module that was applied: the rows inserted, by table."""
    unchanged: tuple[str, ...] = ()
    """Modules that had been applied as they are."""


@dataclass(frozen=True)
class SeedStatus:
    """Where one module of a profile stands."""

    profile: Profile
    module: str
    state: State
    """``changed``: applied, with other data than the module has now."""
    applied_at: datetime | None


def run(db: Database, profile: str) -> SeedReport:
    """
    Apply the seeds of a profile, pack by pack, each module in a transaction of its own.

    A module that was applied as it is now is left alone. Several processes may run seeds at once: each module is applied by one of them.

    Args:
        db: a migrated database.
        profile: one of ``PROFILES``.

    Raises:
        SeedError: a module failed, or its data are malformed; nothing of it was stored, the modules before it stay.
        ValidationError: there is no such profile.
    """
    wanted = _profile(profile)
    applied: dict[str, dict[str, int]] = {}
    unchanged: list[str] = []
    for seed in _seeds(wanted):
        _check(seed)
        try:
            # A module without a workspace has none, whatever the Database or the context says.
            with tenancy.outside():
                counts = db.run(_apply, seed, wanted, workspace=seed.workspace)
        except StemmaError as error:
            raise SeedError(seed.name, f"profile {wanted}", str(error)) from error
        if counts is None:
            unchanged.append(seed.name)
        else:
            applied[seed.name] = counts
            logger.info("seed applied: %s", seed.name, extra={"profile": wanted})
    return SeedReport(wanted, applied, tuple(unchanged))


def _check(seed: Seed) -> None:
    if seed.check is None:
        return
    try:
        seed.check(seed.data)
    except ValidationError as error:
        raise SeedError(seed.name, error.field or "its data", str(error)) from error


def status(db: Database, profile: str | None = None) -> list[SeedStatus]:
    """
    Tell which modules are applied, pending or changed since, profile by profile, in the order in which they run.

    Args:
        db: a migrated database.
        profile: only this one; None: all of them.
    """
    wanted = PROFILES if profile is None else (_profile(profile),)
    with tenancy.outside(), db.session(read_only=True) as session:
        history = {(row.profile, row.module): row for row in session.scalars(select(SeedHistory))}
    found = []
    for each in wanted:
        for seed in _seeds(each):
            row = history.get((each, seed.name))
            state: State = "pending" if row is None else "applied" if row.checksum == seed.checksum else "changed"
            found.append(SeedStatus(each, seed.name, state, None if row is None else row.applied_at))
    return found


# Held until the module's transaction ends: of several processes one applies it, the others find it applied.
_LOCK = sql_rows("SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('stemma.seeding', 0))")
_FIND = sql_rows("SELECT checksum FROM stemma.stemma_seed_history WHERE profile = :profile AND module = :module")
_RECORD = sql_rows(
    """
    INSERT INTO stemma.stemma_seed_history (profile, module, checksum, row_counts)
    VALUES (:profile, :module, :checksum, CAST(:row_counts AS jsonb))
    ON CONFLICT (profile, module) DO UPDATE
       SET checksum = excluded.checksum, row_counts = excluded.row_counts, applied_at = now()
    """
)


def _apply(session: Session, seed: Seed, profile: Profile) -> dict[str, int] | None:
    _LOCK.run(session)
    if _FIND.scalar(session, profile=profile, module=seed.name) == seed.checksum:
        return None
    counts = dict(seed.apply(session, seed.data, profile))
    session.flush()
    document = SeedRowCounts(inserted=counts).dump()
    _RECORD.run(session, profile=profile, module=seed.name, checksum=seed.checksum, row_counts=json.dumps(document))
    return counts


def _seeds(profile: Profile) -> list[Seed]:
    return [seed for pack in packs() for group in pack.load_seeds() for seed in group if profile in seed.profiles]


def _profile(profile: str) -> Profile:
    if profile not in PROFILES:
        raise ValidationError(f"there is no seed profile of this name: use one of {', '.join(PROFILES)}", field="profile")
    return profile
