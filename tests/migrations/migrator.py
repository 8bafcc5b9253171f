"""A process that migrates a database to the newest revisions; it can kill itself before one of its statements."""

from __future__ import annotations

import argparse
import os
import signal
from dataclasses import dataclass

from sqlalchemy import Engine, event, make_url
from sqlalchemy.engine import URL

from stemmadb import migrations


@dataclass(frozen=True)
class _Address:
    direct_url: URL
    has_direct_url: bool = True


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("--kill-at", type=int, default=-1)
    options = parser.parse_args()
    count = 0

    @event.listens_for(Engine, "before_cursor_execute")
    def _count(*_args: object) -> None:
        nonlocal count
        if count == options.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1

    migrations.upgrade(_Address(make_url(options.address)))
    print(count)


if __name__ == "__main__":
    main()
