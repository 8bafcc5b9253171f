"""The two ways in: a database by its URL, or the engine that a host application has."""

import getpass
import sys
from pathlib import Path
from uuid import UUID

from sqlalchemy import Engine, text
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine

from stemmadb import tenancy
from stemmadb._sqlstates import translate
from stemmadb._urls import parse_url
from stemmadb.database import Database
from stemmadb.errors import ConfigurationError, StemmaError
from stemmadb.settings import Settings, load_settings

LOCAL_USER = "local@stemmadb.invalid"
"""The owner of workspaces that connect() makes on the embedded server; it has no password."""


def connect(
    url: str | URL | None = None, *, workspace: str | UUID | None = None, data_dir: Path | None = None, settings: Settings | None = None
) -> Database:
    """
    Return a Database: the one of the URL, else of DATABASE_URL, else the embedded server.

    A configured database is never created or migrated, and no connection is opened here: a schema behind or ahead gives
    SchemaOutOfDateError at first use. The embedded one is started, migrated to the newest schema, and given the named workspace on
    first use, with a line on stderr.

    Args:
        url: where the database is.
        workspace: slug or id: the default workspace of sessions; else STEMMADB_WORKSPACE.
        data_dir: embedded only: where the cluster lives; None is the per-user data folder.
        settings: pool, timeouts and keys; None reads the environment.

    Raises:
        ConfigurationError: a malformed URL or setting; or a document cannot be written at the version that a setting asks for.
        EmbeddedServerError: the embedded server cannot start; the message says why and what to do.
        MissingDependencyError: no URL, and the extra ``embedded`` is not installed.
    """
    settings = _applied(settings or load_settings())
    workspace = settings.workspace if workspace is None else workspace
    address = url or settings.database_url
    if address is not None:
        if data_dir is not None:
            raise ConfigurationError("data_dir is for the embedded server, and a database URL is configured")
        return Database(
            settings=settings, workspace=workspace, url=parse_url(address), direct_url=settings.direct_database_url if url is None else None
        )
    return _connect_embedded(workspace, data_dir or settings.data_dir, settings)


def _applied(settings: Settings) -> Settings:
    """Apply the settings that hold for the whole process. Packs are imported only where a setting names their documents."""
    if settings.write_versions:
        from stemmadb.documents._write_version import configure_write_versions

        configure_write_versions(settings.write_versions)
    return settings


def connect_unmigrated(url: str | URL | None = None) -> Database:
    """As connect(), but the embedded database is left at the schema that it has: for the commands that migrate."""
    settings = _applied(load_settings())
    if (url or settings.database_url) is not None:
        return connect(url, settings=settings)
    return _connect_embedded(None, settings.data_dir, settings, migrate=False)


def _connect_embedded(workspace: str | UUID | None, data_dir: Path | None, settings: Settings, *, migrate: bool = True) -> Database:
    from stemmadb import _heads, _health, embedded

    server = embedded.start(data_dir)
    try:
        embedded.prepare(server)
        db = Database(settings=settings, workspace=workspace, url=parse_url(server.url()), direct_url=server.owner_url(), server=server)
    except BaseException:
        server.close()
        raise
    if not migrate:
        return db
    try:
        if _heads.pending(_health.installed_heads(db.direct_url)):
            from stemmadb import migrations

            _say("preparing the embedded database")
            migrations.upgrade(db)
        if isinstance(workspace, str) and tenancy.as_id(workspace) is None:
            _make_workspace(db, workspace)
    except BaseException:
        db.close()
        raise
    return db


_FIND_SLUG = text("SELECT id FROM stemma.workspaces WHERE slug = :slug AND deleted_at IS NULL")
_MAKE_WORKSPACE = text(
    """
    WITH local AS (
        INSERT INTO stemma.users (email, name) VALUES (:email, :name)
        ON CONFLICT (email) DO UPDATE SET email = excluded.email
        RETURNING id
    )
    INSERT INTO stemma.workspaces (owner_id, name, slug) SELECT id, :slug, :slug FROM local
    ON CONFLICT (slug) WHERE deleted_at IS NULL DO NOTHING
    RETURNING id, owner_id
    """
)
_MAKE_MEMBER = text("INSERT INTO stemma.workspace_members (workspace_id, user_id, role) VALUES (:workspace_id, :user_id, 'OWNER')")


def _make_workspace(db: Database, slug: str) -> None:
    """Make the workspace that a notebook names, owned by the local user; one that is there stays as it is."""
    try:
        with db.engine.begin() as connection:
            if connection.scalar(_FIND_SLUG, {"slug": slug}) is not None:
                return
            made = connection.execute(_MAKE_WORKSPACE, {"email": LOCAL_USER, "name": getpass.getuser(), "slug": slug}).first()
            if made is not None:
                connection.exec_driver_sql(f"SET LOCAL stemma.workspace_id = '{made.id}'")
                connection.execute(_MAKE_MEMBER, {"workspace_id": made.id, "user_id": made.owner_id})
                _say(f"made the workspace {slug!r}")
    except StemmaError:
        raise
    except Exception as error:
        raise translate(error) from None


def _say(message: str) -> None:
    print(f"stemmadb: {message}", file=sys.stderr)  # noqa: T201


def use(engine: Engine | AsyncEngine, *, workspace: str | UUID | None = None) -> Database:
    """
    Use a host application's own engine.

    The host's statements and exceptions stay as they were. In a transaction with a workspace (that of ``Session(engine,
    info={"workspace": ...})``, of the context, or the default here) ``SET LOCAL stemma.workspace_id`` is sent, inside of
    ``audit.actor(...)`` also ``SET LOCAL stemma.actor``, and nothing else: no role, no search path.
    """
    db = Database(settings=_applied(load_settings()), workspace=workspace, host=engine)
    tenancy.adopt(engine.sync_engine if isinstance(engine, AsyncEngine) else engine, workspace)
    return db
