"""
Bring a database to the schema of this release, and back.

    import stemmadb
    from stemmadb import migrations

    with stemmadb.connect() as db:
        migrations.upgrade(db)
        print(migrations.status(db).up_to_date)

Migrations run over ``DIRECT_URL`` as the owner of the schema, one migrator at a time, each revision in a transaction of its own. They
wait at most five seconds for a lock on a table and try again, so that they never hold up traffic for longer. ``stemmadb migrate`` is the
same on the command line; docs/runbook.md says when to run what.

Revisions may use operations of ours: ``op.backfill``, ``op.enable_tenant``, ``op.create_index_concurrently``,
``op.create_document_function`` and ``op.drop_document_function``.
"""

from stemmadb.migrations._check import check, drift
from stemmadb.migrations._commands import downgrade, history, roles, sql, stamp, status, upgrade
from stemmadb.migrations._grants import ensure_roles, renew_grants
from stemmadb.migrations._new import new
from stemmadb.reports import BranchStatus, CheckReport, Finding, MigrationStatus, RevisionInfo

__all__ = [
    # what the command line calls
    "upgrade",
    "downgrade",
    "stamp",
    "status",
    "check",
    "sql",
    "history",
    "new",
    "roles",
    # on a connection
    "ensure_roles",
    "renew_grants",
    "drift",
    # what they return
    "MigrationStatus",
    "BranchStatus",
    "CheckReport",
    "Finding",
    "RevisionInfo",
]
