"""The commands of ``stemmadb migrate``, as functions."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection
from typing import Any, Literal

from alembic import command
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from stemmadb import _heads
from stemmadb.errors import LockTimeoutError, MigrationError, SchemaOutOfDateError, StemmaError
from stemmadb.migrations import _alembic
from stemmadb.migrations._connection import LOCK_TIMEOUT, SCHEMA, SCHEMA_EXISTS, HasDirectUrl, connected, found, log, migrating, step
from stemmadb.migrations._failures import explain, is_lock_timeout, oldest_transaction
from stemmadb.migrations._grants import RENEW_GRANTS, ensure_roles, renew_grants
from stemmadb.migrations._targets import below, branches_of, resolve, revisions_above
from stemmadb.reports import BranchStatus, MigrationStatus, RevisionInfo

_ATTEMPTS = 12


def upgrade(
    db: HasDirectUrl, packs: Collection[str] | None = None, *, phase: Literal["expand"] | None = None, wait_s: float = 60.0
) -> None:
    """
    Bring a database to the schema of this release.

    Several processes may call this at once: one migrates, the others wait and find nothing to do. Ends by giving the roles that exist
    their grants and maintenance policies. A revision that cannot get a lock within five seconds is undone and tried again, twelve times.

    Args:
        db: migrated over its ``direct_url``, as the owner of the schema.
        packs: names of packs or branches; what they depend on comes along. None means every pack of this release.
        phase: ``expand`` stops before the first contract revision, which takes away what the release before uses; None runs them all.
        wait_s: how long to wait for another migrator, in seconds.

    Raises:
        MigrationError: a revision failed; nothing of it was kept, the ones before it are. Or another process migrates for too long.
        LockTimeoutError: a table stayed locked through all attempts.
        SchemaOutOfDateError: the database is of a newer release.
        DatabaseUnavailableError: the server cannot be reached; the message names host, port, database and user.
    """
    chosen = branches_of(packs)
    with migrating(db, wait_s=wait_s) as connection:
        todo = _to_run(found(connection), chosen)
        if phase == "expand":
            todo = _heads.without_contract(todo)
        for id in todo:
            _run(connection, id, command.upgrade, id)
            log.info("applied %s", id)
        _retried(connection, None, lambda: renew_grants(connection))


def downgrade(db: HasDirectUrl, target: str, *, with_dependents: bool = False, wait_s: float = 60.0) -> None:
    """
    Undo revisions. What they made is dropped, rows included: a revision's description says what is lost.

    Args:
        db: migrated over its ``direct_url``, as the owner of the schema.
        target: a revision, which stays (``evaluation_0001``); ``evaluation@base``, and nothing of the branch stays; ``evaluation@-1``
            for one step.
        with_dependents: also undo revisions of other branches that are built on what goes.
        wait_s: how long to wait for another migrator, in seconds.

    Raises:
        MigrationError: the target is unknown, revisions of another branch are built on what would go, or a revision failed.
        LockTimeoutError: a table stayed locked through all attempts.
        SchemaOutOfDateError: the database is of a newer release, which alone can undo its revisions.
    """
    with migrating(db, wait_s=wait_s) as connection:
        rows = found(connection)
        if unknown := _heads.unknown(rows):
            raise _newer(rows, unknown)
        installed = _heads.installed(rows)
        going = revisions_above(target, installed)
        others = [] if not going else [id for id in _heads.dependents(going[-1], installed) if id not in going]
        if others and not with_dependents:
            raise MigrationError(
                f"{', '.join(reversed(others))} depends on what would be undone, and would be dropped with its rows: undo it first, or say "
                "that it goes too (with_dependents=True, --with-dependents)",
                going[-1],
            )
        for id in (*others, *going):
            _run(connection, id, command.downgrade, below(id))
            log.info("undid %s", id)


def stamp(db: HasDirectUrl, target: str, *, wait_s: float = 60.0) -> None:
    """
    Record that a database has a revision, without running it: after a restore, or when the schema was made by other means.

    Args:
        db: over its ``direct_url``, as the owner of the schema.
        target: a revision (``base_0001``), ``evaluation@head``, or ``heads`` for the newest of every branch.
        wait_s: how long to wait for another migrator, in seconds.

    Raises:
        MigrationError: there is no such revision.
    """
    place = resolve(target)
    with migrating(db, wait_s=wait_s) as connection:
        _run(connection, None, command.stamp, place)
        _retried(connection, None, lambda: renew_grants(connection))


def status(db: HasDirectUrl) -> MigrationStatus:
    """Tell which revisions a database has and which are still to run. Takes no lock and changes nothing."""
    with connected(db) as connection:
        rows = found(connection)
    known = _heads.revisions()
    unknown = _heads.unknown(rows)
    newest = {known[id].branch: id for id in _heads.installed(rows)} | {_heads.branch_of(id): id for id in unknown}
    todo = _heads.pending(rows)
    branches = tuple(
        BranchStatus(branch, newest.get(branch), head, tuple(id for id in todo if known[id].branch == branch))
        for branch, head in _heads.heads().items()
    )
    return MigrationStatus(branches, rows, unknown)


def sql(target: str = "heads") -> str:
    """
    Return the SQL that a migration would run, for reading or for an administrator who runs it. Needs no database.

    Args:
        target: ``heads``, ``evaluation@head`` or a revision: from nothing to there. ``base_0001:base_0002`` starts behind the first;
            ``evaluation_0001:evaluation@base``, or a newer one before an older one, undoes.

    Raises:
        MigrationError: the target is unknown.
    """
    start, colon, end = target.rpartition(":")
    start, end = resolve(start) if colon else "", resolve(end)
    down = bool(start) and (end.endswith("@base") or _number(end) < _number(start))
    made = _alembic.config()
    try:
        _alembic.run(command.downgrade if down else command.upgrade, made, f"{start}{colon}{end}", sql=True)
    except Exception as error:
        raise explain(error, None) from error
    head = f"CREATE SCHEMA IF NOT EXISTS {SCHEMA};\n\nSET lock_timeout = '{LOCK_TIMEOUT}';\n\nSET row_security = off;\n\n"
    return head + _alembic.written(made) + ("" if down else f"{RENEW_GRANTS.strip()};\n")


def history() -> list[RevisionInfo]:
    """Return the revisions that this release ships, newest first in each branch. Needs no database."""
    return [
        RevisionInfo(
            revision=revision.id,
            branch=revision.branch,
            phase=revision.phase,
            why=" ".join(revision.doc.split("\n\n", 1)[0].split()),
            depends_on=revision.depends_on,
            file=f"{revision.branch}/{revision.path.name}",
        )
        for revision in reversed(list(_heads.revisions().values()))
    ]


def roles(db: HasDirectUrl, *, login: str | None = None, wait_s: float = 60.0) -> tuple[str, ...]:
    """
    Make the roles ``stemma_owner``, ``stemma_app`` and ``stemma_maintenance`` where they are missing, and renew their grants.

    Before the first migration there is nothing to grant yet; the migration does it.

    Args:
        db: over its ``direct_url``, whose login needs CREATEROLE.
        login: the login of the application, which may then act as ``stemma_app`` and ``stemma_maintenance``.
        wait_s: how long to wait for another migrator, in seconds.

    Returns:
        The roles that were made.

    Raises:
        PermissionDeniedError: the login has no CREATEROLE, or may not grant a role that somebody else made.
    """
    with connected(db) as connection:
        try:
            made = ensure_roles(connection, login=login)
            connection.commit()
            present = step(connection, SCHEMA_EXISTS)
        except DBAPIError as error:
            raise explain(error, None) from error
    if present:
        with migrating(db, wait_s=wait_s) as connection:
            _retried(connection, None, lambda: renew_grants(connection))
    return made


def _to_run(rows: Collection[str], chosen: Collection[str]) -> list[str]:
    """Return the revisions to run, refusing a database that only a newer release understands."""
    todo = _heads.pending(rows, chosen)
    if unknown := _heads.unknown(rows):
        # Rolled back by one release, whose deployment migrates as always: the schema is ahead, and there is nothing to do.
        if todo or _heads.compare(rows) is not None:
            raise _newer(rows, unknown)
        log.warning("the database has %s of a newer release; nothing to do", ", ".join(unknown))
    return todo


def _newer(rows: Collection[str], unknown: Collection[str]) -> StemmaError:
    return SchemaOutOfDateError(
        ", ".join(_heads.heads().values()), ", ".join(rows), f"stemmadb migrate with the release that has {', '.join(unknown)}"
    )


def _run(connection: Connection, id: str | None, alembic_command: Callable[..., Any], target: str) -> None:
    made = _alembic.config(connection=connection)
    _retried(connection, id, lambda: _alembic.run(alembic_command, made, target))


def _retried(connection: Connection, id: str | None, work: Callable[[], object]) -> None:
    """Do the work of one revision in a transaction, again while another transaction holds a lock that it needs."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            work()
            connection.commit()
        except Exception as error:
            _roll_back(connection)
            if not isinstance(error, DBAPIError) or not is_lock_timeout(error):
                raise explain(error, id) from error
            log.warning("%s found a table locked, attempt %d of %d", id or "the grants", attempt, _ATTEMPTS)
            if attempt == _ATTEMPTS:
                raise LockTimeoutError(
                    f"{id or 'Renewing the grants'} could not lock a table in {_ATTEMPTS} attempts of {LOCK_TIMEOUT}: "
                    f"{oldest_transaction(connection)}; let it end, then run the migration again"
                ) from error
            # Waits in line would be the queue that the timeout is there to avoid; a little disorder keeps two migrators apart.
            time.sleep(random.uniform(0.2, 1.0))  # noqa: S311
        else:
            return


def _roll_back(connection: Connection) -> None:
    if not connection.closed and not connection.invalidated:
        connection.rollback()


def _number(target: str) -> int:
    revision = _heads.revisions().get(target)
    return revision.number if revision is not None else 9999
