"""The folder of a cluster: making it, refusing one that these programs cannot run, and the postmaster's own pid file."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from stemmadb.embedded._account import Account
from stemmadb.errors import EmbeddedServerError

# The same order of texts on every machine, whatever its language settings. A locale that is not installed makes initdb fail.
ENVIRONMENT = {"LC_ALL": "C", "TZ": "UTC", "PATH": "/usr/bin:/bin"}

_FULL = "No space left on device"


@dataclass(frozen=True)
class PidFile:
    """The lines of ``postmaster.pid`` that are used here."""

    pid: int
    port: int
    socket_dir: Path
    ready: bool
    """What the server last said about itself, if it still lives."""


@dataclass(frozen=True)
class Cluster:
    """A cluster below a data folder: ``<data_dir>/cluster``, beside the locks and the log."""

    data_dir: Path
    account: Account

    @property
    def folder(self) -> Path:
        """Return PostgreSQL's own data directory."""
        return self.data_dir / "cluster"

    @property
    def log(self) -> Path:
        """Return the file that the server's messages go to."""
        return self.data_dir / "server.log"

    def fail(self, reason: str) -> EmbeddedServerError:
        """Return the error that names this folder."""
        return EmbeddedServerError(str(self.data_dir), reason)

    def fail_on(self, error: OSError) -> EmbeddedServerError:
        """Return the error for a file operation that failed in this folder."""
        if error.errno == errno.ENOSPC:
            return self.fail(f"no space is left on its disk: free some, or give another data_dir ({error})")
        if error.errno == errno.EROFS:
            return self.fail(f"the file system is read-only: give a data_dir that can be written ({error})")
        if error.errno in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
            return self.fail(f"its file system knows no locks: give a data_dir on a local disk ({error})")
        if error.errno in (errno.EACCES, errno.EPERM):
            return self.fail(f"this user may not write there: change its permissions, or give another data_dir ({error})")
        return self.fail(f"{error}: give another data_dir")

    def fail_with(self, output: str, code: int | None = None) -> EmbeddedServerError:
        """Return the error for a program that failed with *output*."""
        if _FULL in output:
            return self.fail(f"no space is left on its disk: free some, or give another data_dir. The server said:\n{output}")
        if "ermission denied" in output:
            return self.fail(f"user {self.account.name} may not read or write it: change its permissions. The server said:\n{output}")
        if code is not None:
            return self.fail(f"initdb ended with {code} and said:\n{output}")
        return self.fail(
            "the server ended as it started. If it speaks of damaged or missing files, restore a backup, or move the folder away to begin "
            f"with an empty database. The whole log is in {self.log}; its end:\n{output}"
        )

    def exists(self) -> bool:
        """Return whether there is a cluster. Only a finished one is ever called ``cluster``."""
        return self.folder.exists()

    def check_version(self, major: int) -> None:
        """Raise EmbeddedServerError unless programs of version *major* run this cluster."""
        try:
            found = (self.folder / "PG_VERSION").read_text().strip()
        except FileNotFoundError:
            found = ""
        if not found.isdecimal():
            raise self.fail(f"{self.folder} is damaged, its PG_VERSION is missing or empty: restore a backup, or move the folder away")
        if int(found) != major:
            reason = (
                f"it was made by PostgreSQL {found}, and the programs are PostgreSQL {major}: use those of {found} (STEMMADB_PG_BINDIR), "
                "or dump it with them and restore the dump into a new data_dir"
            )
            raise self.fail(reason)

    def create(self, programs: Path, major: int, *, durable: bool) -> None:
        """Run initdb beside the final place and move the finished cluster there."""
        making = self.data_dir / "cluster.init"
        if making.exists():
            # Left by a process that was killed in the middle.
            shutil.rmtree(making)
        making.mkdir(mode=0o700)
        self.account.own(making)
        try:
            result = self._initdb(programs, making, _locales(major)[0], durable=durable)
            if result.returncode and "locale" in result.stderr and len(_locales(major)) > 1:
                result = self._initdb(programs, making, _locales(major)[1], durable=durable)
            if result.returncode:
                raise self.fail_with(result.stderr.strip(), result.returncode)
            making.rename(self.folder)
        except BaseException:
            shutil.rmtree(making, ignore_errors=True)
            raise

    def _initdb(self, programs: Path, folder: Path, locale: list[str], *, durable: bool) -> subprocess.CompletedProcess[str]:
        # Trust on the socket: the folder it lies in admits nobody else. Over TCP, if settings open it, only roles with a password.
        command = [str(programs / "initdb"), "-D", str(folder), "-U", "postgres", "--auth-local=trust", "--auth-host=scram-sha-256"]
        command += ["--encoding=UTF8", "--no-instructions", *locale, *([] if durable else ["--no-sync"])]
        return subprocess.run(
            command,
            env=ENVIRONMENT,
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            **self.account.process_options(),
        )

    def pid_file(self) -> PidFile | None:
        """Return what the postmaster wrote about itself; None when there is nothing, or not all of it yet."""
        try:
            lines = (self.folder / "postmaster.pid").read_text().splitlines()
            return PidFile(int(lines[0]), int(lines[3]), Path(lines[4]), ready=len(lines) > 7 and lines[7].startswith("ready"))
        except (FileNotFoundError, IndexError, ValueError):
            return None

    def runs_here(self, pid: int) -> bool:
        """
        Return whether a process is a live postmaster of this folder.

        After a crash, and always after a container started again, the id in the pid file may be any other process's.
        """
        if sys.platform == "linux":
            try:
                return Path(f"/proc/{pid}/cwd").readlink() == self.folder
            except OSError:
                return False
        else:
            # The command line names the folder.
            said = subprocess.run(["/bin/ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
            return str(self.folder) in said

    def forget_dead_postmaster(self) -> None:
        """
        Remove a pid file whose process is gone or is somebody else's.

        PostgreSQL itself refuses to start when the id in the file lives under the same user, whatever that process is.
        """
        path = self.folder / "postmaster.pid"
        try:
            pid = abs(int(path.read_text().partition("\n")[0]))
        except FileNotFoundError:
            return
        except ValueError:
            pid = 0
        if not pid or not self.runs_here(pid):
            path.unlink(missing_ok=True)

    def open_file(self, name: str, flags: int) -> int:
        """Open a file of the data folder, for this process alone; a symbolic link is refused."""
        descriptor = os.open(self.data_dir / name, flags | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        owner = self.data_dir.stat()
        if os.geteuid() == 0 and owner.st_uid != 0:
            os.chown(descriptor, owner.st_uid, owner.st_gid)
        return descriptor


def _locales(major: int) -> list[list[str]]:
    if major >= 17:
        return [["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]]
    # 16 has no provider of its own: C orders the same way, and letters outside of ASCII have case where the system knows C.UTF-8.
    return [["--locale=C", "--lc-ctype=C.UTF-8"], ["--locale=C"]]
