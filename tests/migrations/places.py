"""What the tests of the migrations work on: a database, and a copy of the revisions that a test may add to."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy.engine import URL

from stemmadb import _heads
from stemmadb.embedded import Server
from stemmadb.packs import packs

TABLES = sum(len(pack.entities) for pack in packs()) + 2
"""How many tables the shipped branches make: those of the packs, and the kernel's two."""


@dataclass(frozen=True)
class Place:
    """A database, with what migrations ask of a ``Database``, and what tests ask besides."""

    server: Server
    name: str
    direct_url: URL
    has_direct_url: bool = True

    def connect(self, user: str = "stemma_owner") -> psycopg.Connection[Any]:
        """Return a plain connection, without ``stemma`` on its search path, that commits each statement."""
        if user == "postgres":
            return psycopg.connect(self.server._superuser_conninfo(self.name), autocommit=True)
        url = self.server.url(self.name, user)
        return psycopg.connect(url.set(drivername="postgresql").render_as_string(hide_password=False), autocommit=True)

    def ask(self, query: str, *params: object, user: str = "stemma_owner") -> list[Any]:
        """Return the first column of a query."""
        with self.connect(user) as connection:
            return [row[0] for row in connection.execute(query.encode(), params or None)]

    def do(self, *statements: str, user: str = "postgres") -> None:
        """Run statements, each on its own."""
        with self.connect(user) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def tables(self) -> list[str]:
        """Return the tables of the schema, without the version table."""
        return self.ask(
            "SELECT relname::text FROM pg_class WHERE relnamespace = to_regnamespace('stemma') AND relkind = 'r' "
            "AND relname <> 'stemma_alembic_version' ORDER BY 1",
            user="postgres",
        )

    def dump(self) -> str:
        """Return ``pg_dump -s`` without what changes from one call to the next."""
        text = self.server.tool("pg_dump", "--schema-only", database=self.name).stdout
        return re.sub(r"^\\(un)?restrict .*\n", "", text, flags=re.MULTILINE)


@dataclass(frozen=True)
class Revisions:
    """A copy of the shipped revisions, which the library uses in place of them during a test."""

    folder: Path

    def add(self, branch: str, upgrade: str, downgrade: str = "op.execute('SELECT 1')", *, phase: str = "expand", **facts: Any) -> str:
        """Write the next revision of a branch and return its id."""
        _heads.forget()
        heads = _heads.heads()
        number = int(heads[branch].rpartition("_")[2]) + 1 if branch in heads else 1
        known: dict[str, Any] = {
            "revision": f"{branch}_{number:04}",
            "down_revision": heads.get(branch),
            "branch_labels": None if branch in heads else (branch,),
            "depends_on": None if branch in heads else ("base_0001",),
        }
        self.write(branch, f"{number:04}_{phase}_added.py", upgrade, downgrade, phase, {**known, **facts})
        _heads.forget()
        return f"{branch}_{number:04}"

    def write(self, branch: str, name: str, upgrade: str, downgrade: str, phase: str, facts: dict[str, Any]) -> Path:
        """Write a revision's file as it is given."""
        path = self.folder / "versions" / branch / name
        path.parent.mkdir(exist_ok=True)
        assignments = "\n".join(f"{key} = {value!r}" for key, value in facts.items())
        path.write_text(
            f'"""\nAdded by a test.\n\nPhase:  {phase}. For a test.\nLocks:  none.\nUndo:   nothing is lost.\n"""\n\n'
            f"from alembic import op\n\n{assignments}\n\n\ndef upgrade():\n    {upgrade}\n\n\ndef downgrade():\n    {downgrade}\n"
        )
        return path

    def forget(self) -> None:
        """Let the library read the files again, after one was changed."""
        _heads.forget()
