"""Alembic with our settings: made in code, so that there is no alembic.ini to ship."""

from __future__ import annotations

import threading
from collections.abc import Callable
from io import StringIO
from typing import Any

from alembic.config import Config

from stemmadb import _heads

# alembic.context and alembic.op belong to the process, not to a thread.
_ONE_COMMAND = threading.Lock()


def config(**attributes: Any) -> Config:
    """Return the configuration for one command; ``attributes`` are what env.py reads."""
    folder = _heads.location()
    made = Config(output_buffer=StringIO(), stdout=StringIO())
    made.set_main_option("script_location", _escape(str(folder)))
    made.set_main_option("path_separator", "newline")
    made.set_main_option("version_locations", "\n".join(_escape(str(folder / "versions" / name)) for name in _heads.branches()))
    made.attributes.update(attributes)
    return made


def run(command: Callable[..., Any], made: Config, *args: Any, **kwargs: Any) -> Any:
    """Run one Alembic command, alone in this process."""
    with _ONE_COMMAND:
        return command(made, *args, **kwargs)


def written(made: Config) -> str:
    """Return the SQL that a command wrote instead of running it."""
    buffer = made.output_buffer
    return buffer.getvalue() if isinstance(buffer, StringIO) else ""


def _escape(value: str) -> str:
    # ConfigParser reads % as an interpolation.
    return value.replace("%", "%%")
