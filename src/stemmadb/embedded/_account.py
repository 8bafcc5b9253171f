"""Whom the server runs as: PostgreSQL refuses root, so root steps down to another account."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stemmadb.errors import EmbeddedServerError


@dataclass(frozen=True)
class Account:
    """The operating system's account that owns the cluster."""

    name: str
    uid: int
    gid: int

    @property
    def is_other(self) -> bool:
        """Whether this process has to step down to it."""
        return self.uid != os.geteuid()

    def process_options(self) -> dict[str, Any]:
        """Return the arguments of ``subprocess`` that start a process as this account."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []} if self.is_other else {}

    def own(self, path: Path) -> None:
        """Give a file or folder that this process just made to the account; not what a symbolic link there points at."""
        if self.is_other:
            os.lchown(path, self.uid, self.gid)

    def blocked_by(self, path: Path) -> Path | None:
        """
        Return the first folder on the way to *path*, itself included, that the account may not enter; None when it may.

        It looks at the permission bits, which decide unless somebody uses access control lists.
        """
        for folder in (*reversed(path.parents), path):
            if not folder.exists():
                return None
            status = folder.stat()
            bit = 0o100 if status.st_uid == self.uid else 0o010 if status.st_gid == self.gid else 0o001
            if not status.st_mode & bit:
                return folder
        return None


def account_for(data_dir: Path, cluster: Path) -> Account:
    """
    Return the account that the server of *data_dir* runs as: this process's own, unless that is root.

    Root takes the owner of the cluster, or else of the folder; where that is root too, ``postgres``, or else ``nobody``.

    Raises:
        EmbeddedServerError: none of them is known to the operating system.
    """
    uid = os.geteuid()
    if uid != 0:
        return Account(str(uid), uid, os.getegid())
    for folder in (cluster, data_dir):
        if folder.exists() and folder.stat().st_uid != 0:
            try:
                found = pwd.getpwuid(folder.stat().st_uid)
            except KeyError:
                reason = f"{folder} belongs to user {folder.stat().st_uid}, who has no account here: give the folder to an existing user"
                raise EmbeddedServerError(str(data_dir), reason) from None
            return Account(found.pw_name, found.pw_uid, found.pw_gid)
    for name in ("postgres", "nobody"):
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(found.pw_name, found.pw_uid, found.pw_gid)
    reason = "PostgreSQL does not run as root, and there is no user postgres or nobody: add one (useradd -r postgres), or be another user"
    raise EmbeddedServerError(str(data_dir), reason)
