"""What callers may write for a place in the migrations."""

from __future__ import annotations

import re
from collections.abc import Collection

from stemmadb import _heads
from stemmadb.errors import MigrationError, ValidationError

_POINT = re.compile(r"(?P<branch>[a-z][a-z0-9_]*)@(?:(?P<head>head)|(?P<base>base)|-(?P<steps>[1-9]\d*))")


def branches_of(names: Collection[str] | None) -> tuple[str, ...]:
    """
    Return the branches of packs, ``base`` first.

    Args:
        names: packs or branches; None means every branch of this release.

    Raises:
        ValidationError: there is no such pack, or it brings no migrations.
    """
    shipped = _heads.branches()
    if names is None:
        return shipped
    by_pack = {branch: branch for branch in shipped}
    if not set(names) <= by_pack.keys():
        from stemmadb.packs import packs

        by_pack |= {pack.name: pack.branch for pack in packs() if pack.branch in by_pack}
    if unknown := sorted(set(names) - by_pack.keys()):
        known = ", ".join(sorted(by_pack))
        raise ValidationError(f"there are no migrations of a pack {', '.join(unknown)}: the packs are {known}", "packs")
    chosen = {by_pack[name] for name in names}
    return tuple(branch for branch in shipped if branch in chosen)


def revisions_above(target: str, installed: Collection[str]) -> list[str]:
    """
    Return the installed revisions of a branch that lie above a target, newest first.

    Args:
        target: a revision, ``<branch>@base`` or ``<branch>@-<steps>``.
        installed: the revisions that the database has.

    Raises:
        MigrationError: the target is not of this form, or unknown.
    """
    known = _heads.revisions()
    if target in known:
        branch, floor = known[target].branch, known[target].number
    elif (match := _POINT.fullmatch(target)) is not None and match["branch"] in _heads.branches() and not match["head"]:
        branch = match["branch"]
        numbers = sorted(known[id].number for id in installed if known[id].branch == branch)
        floor = 0 if match["base"] else [0, *numbers][max(0, len(numbers) - int(match["steps"]))]
    else:
        raise unknown_target(target)
    return [id for id in reversed(list(known)) if id in installed and known[id].branch == branch and known[id].number > floor]


def resolve(target: str) -> str:
    """
    Return Alembic's name of a place: ``heads``, a revision, ``<branch>@base`` or the newest revision for ``<branch>@head``.

    Raises:
        MigrationError: there is no such place.
    """
    match = _POINT.fullmatch(target)
    if target == "heads" or target in _heads.revisions():
        return target
    if match is None or match["branch"] not in _heads.branches() or match["steps"]:
        raise unknown_target(target)
    # Alembic itself finds several heads for base@head, because other branches depend on this one.
    return _heads.heads()[match["branch"]] if match["head"] else target


def below(id: str) -> str:
    """Return Alembic's name of the place under a revision."""
    revision = _heads.revisions()[id]
    return revision.down_revision or f"{revision.branch}@base"


def unknown_target(target: str) -> MigrationError:
    """Return the error that says what a target may be."""
    newest = ", ".join(_heads.heads().values())
    return MigrationError(
        f"{target!r} is no place in the migrations: name a revision (the newest are {newest}), or <branch>@base, <branch>@-1, <branch>@head"
    )
