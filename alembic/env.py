"""Alembic runs this file for every command. What it does is in stemmadb.migrations; ``stemmadb migrate`` is the command to use."""

from stemmadb.migrations import _environment

_environment.run()
