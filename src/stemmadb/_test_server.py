"""
The server of a test run: where it comes from, and the databases made on it.

Without TEST_DATABASE_URL it is an embedded one, not durable, in /dev/shm if there is room. Its folder stays between runs, and with
it the migrated template, so that a run begins in a fraction of a second. Databases made for a run carry a number that the run
holds an advisory lock on: the next run drops those whose run was killed.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, LiteralString

from sqlalchemy.engine import URL, make_url

from stemmadb.errors import ConfigurationError, PermissionDeniedError

if TYPE_CHECKING:
    from psycopg import Connection

    from stemmadb.database import Database
    from stemmadb.embedded import Server

_PREFIX = "stemmadb_test_"
_MADE = re.compile(rf"{_PREFIX}(?P<run>[0-9a-f]{{8}})(_\d+)?")
_TEMPLATES_KEPT = 3
_ROOM = 512 * 1024 * 1024

# Classes of advisory locks on the database that the run's own connection is in: templates, and the number of a run.
_TEMPLATE_LOCK = (7_310_577, 1)
_RUN_LOCK = 7_310_578

_SETTINGS = {
    "max_connections": "300",
    "max_wal_size": "256MB",
    "shared_buffers": "64MB",
}


class DatabaseServer:
    """The PostgreSQL server that tests run on, and the databases that this process made there."""

    def __init__(self, administrator: str, base: URL, *, embedded: Server | None = None, in_memory: bool = False) -> None:
        self.embedded = embedded
        """The embedded server; None with TEST_DATABASE_URL."""
        self._base = base
        self._made: list[str] = []
        # Copying files is faster where the disk is memory; elsewhere it waits for two checkpoints.
        self._strategy: Literal["FILE_COPY", "WAL_LOG"] = "FILE_COPY" if in_memory else "WAL_LOG"
        self._connection = _connect(administrator)
        try:
            self._run = self._take_number()
            self._make_roles()
            self._drop_abandoned()
        except BaseException:
            self._connection.close()
            raise

    def url(self, database: str) -> URL:
        """Return the run-time address of a database: of stemma_app, or of a login that switches to it."""
        return self.embedded.url(database) if self.embedded else self._base.set(database=database)

    def owner_url(self, database: str) -> URL:
        """Return the address of a database as stemma_owner."""
        if self.embedded:
            return self.embedded.owner_url(database)
        return self._base.set(database=database).update_query_dict({"options": "-c role=stemma_owner"})

    def connect(self, database: str) -> Database:
        """Return a Database on one of this server's databases, with small pools; the workspace of the environment is left aside."""
        from stemmadb import connect
        from stemmadb.settings import Settings

        settings = Settings(
            database_url=self.url(database), direct_database_url=self.owner_url(database), workspace=None, pool_min=2, pool_max=20
        )
        return connect(settings=settings)

    def create(self) -> str:
        """Make a migrated, empty database and return its name (15 to 60 ms)."""
        name = f"{_PREFIX}{self._run:08x}_{len(self._made)}"
        with self._locked():
            template = self._template()
            self._create(name, template)
        self._made.append(name)
        return name

    def drop(self, name: str) -> None:
        """Drop a database that ``create()`` made, with whatever is connected to it."""
        if _MADE.fullmatch(name):
            self._run_sql("DROP DATABASE IF EXISTS {} WITH (FORCE)", name)

    def close(self) -> None:
        """Drop what is left of this run's databases and leave the server."""
        for name in self._made:
            self.drop(name)
        self._connection.close()
        if self.embedded:
            self.embedded.close()

    # ------------------------------------------------------------------------------------------------------- templates

    def _template(self) -> str:
        """Return the name of the migrated template, made if there is none for these migrations."""
        name = f"{_PREFIX}template_{_fingerprint()}"
        if name in self._databases():
            return name
        making = f"{_PREFIX}making"
        self._run_sql("DROP DATABASE IF EXISTS {} WITH (FORCE)", making)
        self._create(making, "template0")
        self._migrate(making)
        # No connection may be open to a database that is copied.
        self._run_sql("ALTER DATABASE {} ALLOW_CONNECTIONS false", making)
        self._run_sql("ALTER DATABASE {} RENAME TO {}", making, name)
        older = [other for other in self._databases() if other.startswith(f"{_PREFIX}template_") and other != name]
        for other in older[: -(_TEMPLATES_KEPT - 1)]:
            self._run_sql("DROP DATABASE IF EXISTS {} WITH (FORCE)", other)
        return name

    def _migrate(self, database: str) -> None:
        from stemmadb import migrations

        db = self.connect(database)
        try:
            migrations.upgrade(db)
        finally:
            db.close()

    # ----------------------------------------------------------------------------------------------------- the server

    def _take_number(self) -> int:
        while True:
            number = secrets.randbits(31)
            if self._hold(number):
                return number

    def _hold(self, number: int) -> bool:
        row = self._connection.execute("SELECT pg_try_advisory_lock(%s, %s)", [_RUN_LOCK, number]).fetchone()
        return bool(row and row[0])

    def _drop_abandoned(self) -> None:
        for name in self._databases():
            if not (made := _MADE.fullmatch(name)):
                continue
            number = int(made["run"], 16)
            if number < 2**31 and number != self._run and self._hold(number):
                self._run_sql("DROP DATABASE IF EXISTS {} WITH (FORCE)", name)
                self._connection.execute("SELECT pg_advisory_unlock(%s, %s)", [_RUN_LOCK, number])

    def _databases(self) -> list[str]:
        """Return the names of all databases, oldest first."""
        return [name for (name,) in self._connection.execute("SELECT datname FROM pg_database ORDER BY oid")]

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._connection.execute("SELECT pg_advisory_lock(%s, %s)", _TEMPLATE_LOCK)
        try:
            yield
        finally:
            self._connection.execute("SELECT pg_advisory_unlock(%s, %s)", _TEMPLATE_LOCK)

    def _create(self, name: str, template: str) -> None:
        from psycopg.errors import InsufficientPrivilege

        try:
            self._run_sql(f"CREATE DATABASE {{}} TEMPLATE {{}} OWNER stemma_owner STRATEGY {self._strategy}", name, template)
        except InsufficientPrivilege as error:
            raise _lacks_rights(str(error)) from None

    def _run_sql(self, statement: LiteralString, *names: str) -> None:
        from psycopg import sql

        identifiers = (sql.Identifier(name) for name in names)
        self._connection.execute(sql.SQL(statement).format(*identifiers))

    def _make_roles(self) -> None:
        if self.embedded:
            from stemmadb import embedded

            embedded.prepare(self.embedded, "postgres")
            return
        from sqlalchemy import NullPool, create_engine

        from stemmadb import migrations

        engine = create_engine(self._base, poolclass=NullPool)
        try:
            with self._locked(), engine.begin() as connection:
                migrations.ensure_roles(connection)
        except PermissionDeniedError as error:
            raise _lacks_rights(str(error)) from None


def open_server(environment: Mapping[str, str]) -> DatabaseServer:
    """
    Return the server that *environment* asks for.

    TEST_DATABASE_URL names one; its login needs CREATEDB and CREATEROLE, and its database is only connected to. Otherwise
    STEMMADB_TEST_PG, a major version or a folder of programs, chooses the embedded one; unset, it is the newest found.

    Raises:
        ConfigurationError: TEST_DATABASE_URL is no PostgreSQL address, or its login may not make roles and databases.
        EmbeddedServerError: the embedded server does not start.
    """
    if address := environment.get("TEST_DATABASE_URL"):
        url = make_url(address).set(drivername="postgresql+psycopg")
        return DatabaseServer(url.set(drivername="postgresql").render_as_string(hide_password=False), url)
    return _open_embedded(environment.get("STEMMADB_TEST_PG", ""))


def _open_embedded(wanted: str) -> DatabaseServer:
    from stemmadb import embedded
    from stemmadb.embedded._binaries import major_version

    programs = Path(wanted) if "/" in wanted else embedded.bindir(int(wanted) if wanted else None)
    folder, in_memory = _folder(f"{major_version(programs)}")
    server = embedded.start(folder, durable=False, settings=_SETTINGS, bindir=programs)
    try:
        return DatabaseServer(server._superuser_conninfo(), server.url("postgres"), embedded=server, in_memory=in_memory)
    except BaseException:
        server.close()
        raise


def _folder(name: str) -> tuple[Path, bool]:
    """Return the folder of the server, and whether it is kept in memory: in /dev/shm when it has room, else on the disk."""
    memory = Path("/dev/shm")  # noqa: S108
    for base, in_memory in ((memory, True), (Path(tempfile.gettempdir()), False)):
        folder = base / f"stemmadb-test-{os.geteuid()}"
        if in_memory and not (os.access(base, os.W_OK) and (folder.exists() or shutil.disk_usage(base).free >= _ROOM)):
            continue
        folder.mkdir(mode=0o755, exist_ok=True)
        # Everybody may make a folder of this name there.
        if folder.stat().st_uid == os.geteuid():
            return folder / name, in_memory
    return Path(tempfile.mkdtemp(prefix="stemmadb-test-")) / name, False


def _connect(conninfo: str) -> Connection[tuple[Any, ...]]:
    import psycopg

    try:
        return psycopg.connect(conninfo, autocommit=True)
    except psycopg.Error as error:
        raise ConfigurationError(f"the test server cannot be reached: {str(error).strip()}") from None


def _lacks_rights(reason: str) -> ConfigurationError:
    return ConfigurationError(f"the login of TEST_DATABASE_URL needs CREATEDB and CREATEROLE: {reason}")


def _fingerprint() -> str:
    """Return a digest of everything that decides what a migrated database looks like."""
    from stemmadb import _heads

    code = Path(__file__).parent / "migrations"
    digest = hashlib.sha256()
    for root in (_heads.location(), code, *_heads.folders().values()):
        for path in sorted(root.rglob("*.py")):
            digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]
