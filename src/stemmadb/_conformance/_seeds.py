"""Seeds of a pack: named, for known profiles, and without effect the second time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.orm import Session

from stemmadb import seeding
from stemmadb._openings import Opening
from stemmadb.database import Database
from stemmadb.entity import metadata
from stemmadb.errors import StemmaError
from stemmadb.packs import Pack, packs
from stemmadb.query import sql_rows
from stemmadb.reports import Finding
from stemmadb.seeding import Profile, Seed

_FORGET = sql_rows("DELETE FROM stemma.stemma_seed_history WHERE profile = :profile AND module = :module")
_BOOKKEEPING = "stemma_seed_history"


def check(pack: Pack) -> Iterator[Finding]:
    """Yield what can be said of the seeds of a pack without a database."""
    seen: set[tuple[str, str]] = set()
    for seed in _of(pack):
        if not seed.name.startswith(f"{pack.name}."):
            yield Finding("unconventional_name", "error", seed.name, f"seeds are called {pack.name}.<what>")
        if not seed.profiles or seed.profiles - set(seeding.PROFILES):
            yield Finding("unknown_profile", "error", seed.name, f"its profiles are among {', '.join(seeding.PROFILES)}")
        for profile in sorted(seed.profiles):
            if (profile, seed.name) in seen:
                yield Finding("seed_given_twice", "error", seed.name, f"two seeds of this name are for {profile}, and have one record")
            seen.add((profile, seed.name))
        try:
            _ = seed.checksum
        except TypeError as error:
            yield Finding("seed_without_checksum", "error", seed.name, f"its data are no JSON values: {error}")


def check_twice(pack: Pack, db: Database) -> Iterator[Finding]:
    """Apply the seeds of a pack, and of those that it requires, to a disposable database; then its own once more."""
    for profile in seeding.PROFILES:
        own = [seed for seed in _of(pack) if profile in seed.profiles]
        if not own:
            continue
        try:
            for required in _required(pack):
                _apply(db, [seed for seed in _of(required) if profile in seed.profiles], profile)
            _apply(db, own, profile)
            before = _rows(db)
            # Without its record a seed is applied again: it must see for itself what is there.
            db.run(_forget, own, profile)
            _apply(db, own, profile)
            after = _rows(db)
        except StemmaError as error:
            yield Finding("seed_failed", "error", f"{pack.name}, profile {profile}", str(error))
            continue
        for table in sorted(name for name in before if before[name] != after[name]):
            message = f"applied again, the seeds of profile {profile} changed it: write what is missing, by ON CONFLICT"
            yield Finding("seed_not_idempotent", "error", f"{pack.name}: {table}", message)


def _of(pack: Pack) -> list[Seed]:
    return [seed for group in pack.load_seeds() for seed in group]


def _required(pack: Pack) -> list[Pack]:
    """Return the packs that this one requires, and those that they require, in order."""
    wanted = set(pack.requires)
    for other in reversed(packs()):
        if other.name in wanted:
            wanted |= set(other.requires)
    return [other for other in packs() if other.name in wanted]


def _apply(db: Database, seeds: Sequence[Seed], profile: Profile) -> None:
    for seed in seeds:
        if seed.check is not None:
            seed.check(seed.data)
        db.run(seeding._apply, seed, profile, workspace=seed.workspace)


def _forget(session: Session, seeds: Sequence[Seed], profile: Profile) -> None:
    for seed in seeds:
        _FORGET.run(session, profile=profile, module=seed.name)


def _rows(db: Database) -> dict[str, tuple[Any, ...]]:
    """Return how many rows each table has in all workspaces, and a digest of them without the time of their last change."""
    with db._own.opened_by(db.engine, Opening(role="stemma_maintenance")).begin() as connection:
        return {table.name: _digest(connection, table.name) for table in metadata.sorted_tables if table.name != _BOOKKEEPING}


def _digest(connection: Connection, table: str) -> tuple[Any, ...]:
    row = connection.execute(
        text(
            "SELECT count(*), coalesce(sum(hashtextextended(CAST(to_jsonb(found) - 'updated_at' AS text), 0)), 0) "  # noqa: S608
            f"FROM stemma.{table} AS found"
        )
    ).one()
    return tuple(row)
