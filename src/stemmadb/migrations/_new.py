"""``stemmadb migrate new``: a revision written from the difference between the entities and a database."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from alembic import command

from stemmadb import _heads
from stemmadb.errors import ValidationError
from stemmadb.migrations import _alembic
from stemmadb.migrations._connection import HasDirectUrl, migrating
from stemmadb.migrations._entities import metadata, tables_of
from stemmadb.migrations._environment import compare_options
from stemmadb.migrations._failures import explain


def new(
    db: HasDirectUrl,
    message: str,
    *,
    branch: str,
    phase: Literal["expand", "contract"] = "expand",
    empty: bool = False,
    wait_s: float = 60.0,
) -> Path | None:
    """
    Write the next revision of a branch into the repository.

    What Alembic does not see (CHECK texts, policies, triggers, functions, the order of an index) is added by hand, as is the description.
    ``check`` tells what was forgotten.

    Args:
        db: a database at the newest revisions, over its ``direct_url``.
        message: why; its words become the file's name.
        branch: the branch that it extends.
        phase: ``contract`` for what takes away what the release before uses.
        empty: write a revision without statements, rather than from the difference.
        wait_s: how long to wait for another migrator, in seconds.

    Returns:
        The file, or None when entities and database agree and there is nothing to write.

    Raises:
        ValidationError: the message has no words, or there is no such branch.
        MigrationError: the database is not at the newest revisions.
    """
    what = re.sub(r"[^a-z0-9]+", "_", message.lower()).strip("_")[:60].strip("_")
    if not what:
        raise ValidationError("the message has no words: say why the revision exists", "message")
    folders = _heads.folders()
    if branch not in folders:
        raise ValidationError(f"there is no branch {branch!r}: the branches are {', '.join(folders)}", "branch")
    head = _heads.heads().get(branch)
    number = 1 if head is None else _heads.revisions()[head].number + 1
    place = {"head": head} if head else {"head": "base", "branch_label": branch, "depends_on": _required_heads(branch)}
    with migrating(db, wait_s=wait_s) as connection:
        options: dict[str, Any] = {} if empty else _comparison(branch)
        made = _alembic.config(connection=connection, phase=phase, options=options)
        made.set_main_option("file_template", f"{number:04}_{phase}_{what}")
        try:
            script = _alembic.run(
                command.revision,
                made,
                message,
                autogenerate=not empty,
                version_path=str(folders[branch]),
                rev_id=f"{branch}_{number:04}",
                **place,
            )
        except Exception as error:
            raise explain(error, None) from error
    _heads.forget()
    return Path(script.path) if script else None


def _required_heads(branch: str) -> list[str]:
    """Return the newest revisions of what the packs of a branch require; the first revision of a branch depends on them."""
    from stemmadb.packs import packs

    by_name = {pack.name: pack.branch for pack in packs()}
    required = {_heads.BASE, *(by_name[name] for pack in packs() if pack.branch == branch for name in pack.requires)} - {branch}
    return [head for name, head in _heads.heads().items() if name in required]


def _comparison(branch: str) -> dict[str, Any]:
    def leave_out_nothing(_context: Any, _revision: Any, directives: list[Any]) -> None:
        if directives[0].upgrade_ops.is_empty():
            directives[:] = []

    names = frozenset(table.name for table in tables_of({branch}))
    return {**compare_options(metadata(), names), "process_revision_directives": leave_out_nothing}
