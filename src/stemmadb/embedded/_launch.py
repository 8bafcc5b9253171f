"""
Starting a server that processes share, or joining the one that runs.

Three files in the data folder are locked with flock, whose locks the kernel drops when a process ends, kill -9 included:

* ``start.lock``, exclusive, while a process decides whether a server has to be started;
* ``users.lock``, shared, by every user of the server, for as long as it uses it; the supervisor waits for it exclusively;
* ``supervisor.lock``, exclusive, by the supervisor for its life.

A child made by fork shares its parent's descriptors, and so keeps the server when the parent ends first.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from stemmadb.embedded import _binaries, _supervisor
from stemmadb.embedded._account import account_for
from stemmadb.embedded._cluster import ENVIRONMENT, Cluster
from stemmadb.embedded._probe import State, probe, socket_path

_PORT = 5432
_POLL_S = 0.004
_LOG_LIMIT = 10_000_000
# What bind() takes on macOS; Linux allows a few more.
_LONGEST_SOCKET_PATH = 103

_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "cluster_name": "stemmadb",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
_NOT_DURABLE = {"fsync": "off", "full_page_writes": "off"}


@dataclass(frozen=True)
class Joined:
    """A running server and the descriptor that holds it."""

    socket_dir: Path
    port: int
    programs: Path
    users: int


def join(data_dir: Path, programs: Path | None, settings: Mapping[str, str], deadline: float, *, durable: bool) -> Joined:
    """Return the server of *data_dir*, started if need be; *deadline* is a time of ``time.monotonic``."""
    cluster = Cluster(data_dir, account_for(data_dir, data_dir / "cluster"))
    try:
        data_dir.mkdir(mode=0o755 if cluster.account.is_other else 0o700, parents=True, exist_ok=True)
        if cluster.account.is_other and (blocked := cluster.account.blocked_by(data_dir)):
            raise cluster.fail(
                f"it would run as user {cluster.account.name}, who may not enter {blocked}: give a data_dir that this user can reach, "
                f"such as one below /var/lib, or allow it (chmod o+x {blocked})"
            )
        return _join(cluster, programs, settings, deadline, durable=durable)
    except OSError as error:
        raise cluster.fail_on(error) from error


def _join(cluster: Cluster, programs: Path | None, settings: Mapping[str, str], deadline: float, *, durable: bool) -> Joined:
    programs = programs or _binaries.bindir()
    programs = _binaries.reachable(programs, cluster.account, cluster.data_dir)
    with _locked(cluster, "start.lock", fcntl.LOCK_EX, deadline) as start:
        users = cluster.open_file("users.lock", os.O_RDWR)
        try:
            # Waits for the end of a server that is being shut down.
            _flock(cluster, users, fcntl.LOCK_SH, deadline)
            socket_dir, port = _running(cluster, deadline) or _launch(cluster, programs, settings, deadline, durable=durable)
        except BaseException:
            _release(users)
            raise
        _unlock(start)
    return Joined(socket_dir, port, programs, users)


def _running(cluster: Cluster, deadline: float) -> tuple[Path, int] | None:
    """Return where the server listens; None when there is none, and no trace of one either."""
    while True:
        found = cluster.pid_file()
        supervised = _supervisor_lives(cluster)
        if not supervised:
            _end_orphan(cluster, deadline)
            return None
        # The supervisor holds its lock to the end of the server, so this waits for one that starts, recovers or ends.
        if found and probe(found.socket_dir, found.port) is State.READY:
            return found.socket_dir, found.port
        if time.monotonic() > deadline:
            where = found.socket_dir if found else "an unknown place"
            raise cluster.fail(
                f"its server runs but did not answer in time on its socket in {where}. If it was started in another container, "
                "only that one can use it; otherwise try again"
            )
        time.sleep(_POLL_S)


def _supervisor_lives(cluster: Cluster) -> bool:
    descriptor = cluster.open_file("supervisor.lock", os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        _unlock(descriptor)
        os.close(descriptor)
    return False


def _end_orphan(cluster: Cluster, deadline: float) -> None:
    """Shut down a server whose supervisor was killed, and remove the pid file of a dead one."""
    found = cluster.pid_file()
    if found and cluster.runs_here(found.pid):
        if not found.socket_dir.name.startswith("stemma-"):
            raise cluster.fail(f"a server that stemmadb did not start runs on it, process {found.pid}: stop that one first (pg_ctl stop)")
        with contextlib.suppress(ProcessLookupError):
            os.kill(found.pid, signal.SIGINT)
        while cluster.runs_here(found.pid):
            if time.monotonic() > deadline:
                raise cluster.fail(f"a server left behind by a killed process, {found.pid}, does not end: stop it (kill -QUIT {found.pid})")
            time.sleep(_POLL_S)
    cluster.forget_dead_postmaster()


def _launch(cluster: Cluster, programs: Path, settings: Mapping[str, str], deadline: float, *, durable: bool) -> tuple[Path, int]:
    major = _binaries.major_version(programs)
    if major < _binaries.MINIMUM_MAJOR:
        raise cluster.fail(f"the programs in {programs} are PostgreSQL {major}, and {_binaries.MINIMUM_MAJOR} is the oldest supported")
    if cluster.exists():
        cluster.check_version(major)
    else:
        cluster.create(programs, major, durable=durable)
    port = int(settings.get("port", _PORT))
    while True:
        socket_dir = _make_socket_dir(cluster, port)
        options = {**_SETTINGS, **({} if durable else _NOT_DURABLE), **settings, "unix_socket_directories": f'"{socket_dir}"'}
        argv = [str(programs / "postgres"), "-D", str(cluster.folder)]
        argv += [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        output = _await_ready(cluster, argv, socket_dir, port, deadline)
        if output is None:
            return socket_dir, port
        # The processes of a postmaster that was killed notice within milliseconds, unless they are in the middle of a statement.
        if "pre-existing shared memory block" not in output or time.monotonic() > deadline:
            raise cluster.fail_with(output)
        time.sleep(0.05)


def _await_ready(cluster: Cluster, argv: list[str], socket_dir: Path, port: int, deadline: float) -> str | None:
    """Run a supervisor; return None when its server is ready, else what the server said as it ended."""
    if cluster.log.exists() and cluster.log.stat().st_size > _LOG_LIMIT:
        cluster.log.replace(cluster.log.with_suffix(".log.1"))
    log = cluster.open_file("server.log", os.O_RDWR | os.O_APPEND)
    try:
        begin = os.fstat(log).st_size
        _supervise(cluster, argv, socket_dir, log)
        # A login that comes too early leaves a line in the log: the pid file, new since the old one was removed, says when to try.
        while not ((found := cluster.pid_file()) and found.ready and probe(socket_dir, port) is State.READY):
            if not _supervisor_lives(cluster):
                return _tail(log, begin)
            if time.monotonic() > deadline:
                reason = (
                    "it was not ready in time, perhaps because it recovers from a crash: try again with a longer timeout. The server said:"
                )
                raise cluster.fail(f"{reason}\n{_tail(log, begin)}")
            time.sleep(_POLL_S)
        return None
    finally:
        os.close(log)


def _tail(log: int, begin: int) -> str:
    return os.pread(log, 1_000_000, begin).decode(errors="replace")[-4000:].strip()


def _supervise(cluster: Cluster, argv: list[str], socket_dir: Path, log: int) -> None:
    account = cluster.account
    ids = (account.uid, account.gid) if account.is_other else (-1, -1)
    # Locked here and inherited: from this moment on everybody sees that a supervisor lives.
    alive = cluster.open_file("supervisor.lock", os.O_RDWR)
    try:
        fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
        users = str(cluster.data_dir / "users.lock")
        subprocess.run(
            [sys.executable, "-I", "-S", _supervisor.__file__, users, str(alive), str(socket_dir), str(ids[0]), str(ids[1]), *argv],
            pass_fds=(alive,),
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=ENVIRONMENT,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        raise cluster.fail(f"the process that looks after it ended with {error.returncode}; {cluster.log} says why") from error
    finally:
        os.close(alive)


def _make_socket_dir(cluster: Cluster, port: int) -> Path:
    """Make a short folder that only the server's account can enter: that is what keeps others out of the database."""
    digest = hashlib.sha256(os.fsencode(cluster.data_dir)).hexdigest()[:12]
    temporary = Path(tempfile.gettempdir())
    if len(os.fsencode(socket_path(temporary / f"stemma-{cluster.account.uid}-{digest}", port))) > _LONGEST_SOCKET_PATH:
        temporary = Path("/tmp")  # noqa: S108
    folder = temporary / f"stemma-{cluster.account.uid}-{digest}"
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        status = folder.lstat()
        private = folder.is_dir() and not folder.is_symlink() and status.st_uid == cluster.account.uid and not status.st_mode & 0o077
        # A server of a folder that was since removed may still answer in the old place; and anybody may make a folder of this name.
        if private and probe(folder, port) is State.DOWN:
            return folder
        folder = Path(tempfile.mkdtemp(prefix=folder.name, dir=temporary))
    cluster.account.own(folder)
    return folder


@contextlib.contextmanager
def _locked(cluster: Cluster, name: str, operation: int, deadline: float) -> Iterator[int]:
    descriptor = cluster.open_file(name, os.O_RDWR)
    try:
        _flock(cluster, descriptor, operation, deadline)
        yield descriptor
    finally:
        _release(descriptor)


def _flock(cluster: Cluster, descriptor: int, operation: int, deadline: float) -> None:
    while True:
        try:
            return fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise cluster.fail("other processes were starting or stopping it all the time: try again with a longer timeout") from None
            time.sleep(_POLL_S)


def _unlock(descriptor: int) -> None:
    # Closing alone would leave the lock with a child that another thread forked meanwhile.
    fcntl.flock(descriptor, fcntl.LOCK_UN)


def _release(descriptor: int) -> None:
    _unlock(descriptor)
    os.close(descriptor)
