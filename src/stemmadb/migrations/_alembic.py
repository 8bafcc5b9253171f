"""Alembic with our settings: made in code, so that there is no alembic.ini to ship."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any, Literal

from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory

from stemmadb import _heads
from stemmadb.migrations import _operations

# alembic.context and alembic.op belong to the process, not to a thread.
_ONE_COMMAND = threading.Lock()


def config(**attributes: Any) -> Config:
    """Return the configuration for one command; ``attributes`` are what env.py reads."""
    folder = _heads.location()
    _heads.revisions()  # refuses a branch that is not one line, in clearer words than Alembic's
    made = Config(output_buffer=StringIO(), stdout=StringIO())
    made.set_main_option("script_location", _escape(str(folder)))
    made.set_main_option("path_separator", "newline")
    made.set_main_option("version_locations", "\n".join(_escape(str(path)) for path in _heads.folders().values()))
    made.attributes.update(attributes)
    return made


def run(command: Callable[..., Any], made: Config, *args: Any, **kwargs: Any) -> Any:
    """Run one Alembic command, alone in this process."""
    with _ONE_COMMAND:
        return command(made, *args, **kwargs)


def statements(id: str, direction: Literal["upgrade", "downgrade"] = "upgrade") -> tuple[str, ...]:
    """Return the SQL of one revision alone, statement by statement as it was given, without those of its surroundings."""
    return _statements(_heads.location(), id, direction)


@cache
def _statements(folder: Path, id: str, direction: str) -> tuple[str, ...]:  # noqa: ARG001  (the folder is part of the key)
    _operations.register()
    buffer = StringIO()
    context = MigrationContext.configure(
        dialect_name="postgresql",
        dialect_opts={"paramstyle": "named"},
        opts={"as_sql": True, "literal_binds": True, "output_buffer": _Separated(buffer)},
    )
    revision = ScriptDirectory.from_config(config()).get_revision(id)
    with _ONE_COMMAND, Operations.context(context):
        getattr(revision.module, direction)()
    return tuple(part for part in buffer.getvalue().split(_BETWEEN) if part.strip())


_BETWEEN = "\x1e"


class _Separated(StringIO):
    """Alembic writes each statement with one call; a mark between them spares parsing SQL."""

    def __init__(self, target: StringIO) -> None:
        super().__init__()
        self._target = target

    def write(self, text: str) -> int:
        return self._target.write(text + _BETWEEN)


def written(made: Config) -> str:
    """Return the SQL that a command wrote instead of running it."""
    buffer = made.output_buffer
    return buffer.getvalue() if isinstance(buffer, StringIO) else ""


def _escape(value: str) -> str:
    # ConfigParser reads % as an interpolation.
    return value.replace("%", "%%")
