"""Run the conformance suite over the planted pack and print what it found, as JSON. In a process of its own, whose entities end with it."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tempfile
from pathlib import Path

from stemmadb import _heads
from stemmadb._test_server import open_server
from stemmadb.testing import pack_conformance

_TIMES = "created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now()"
_ID = "id uuid NOT NULL DEFAULT stemma.stemma_uuidv7()"
_WORKSPACE = "workspace_id uuid NOT NULL DEFAULT stemma.stemma_workspace_id()"

# The name of a planted child may be NULL, and only the parents are under row-level security.
_UP = f"""
    CREATE TYPE stemma.planted_mood AS ENUM ('GOOD', 'bad');
    CREATE TYPE stemma.planted_kind AS ENUM ('a', 'b');
    CREATE TABLE stemma.planted_parents (
        {_WORKSPACE}, {_ID}, name text NOT NULL, {_TIMES},
        CONSTRAINT planted_parents_pkey PRIMARY KEY (workspace_id, id),
        CONSTRAINT planted_parents_id_key UNIQUE (id),
        CONSTRAINT planted_parents_workspace_id_fkey FOREIGN KEY (workspace_id) REFERENCES stemma.workspaces (id) ON DELETE CASCADE);
    CREATE TABLE stemma.planted_children (
        {_WORKSPACE}, {_ID}, parent_id uuid NOT NULL, second_parent_id uuid, third_parent_id uuid, name text,
        mood stemma.planted_mood NOT NULL DEFAULT 'GOOD', version integer NOT NULL DEFAULT 1, {_TIMES},
        CONSTRAINT planted_children_pkey PRIMARY KEY (workspace_id, id),
        CONSTRAINT planted_children_workspace_id_fkey FOREIGN KEY (workspace_id) REFERENCES stemma.workspaces (id) ON DELETE CASCADE,
        CONSTRAINT planted_children_parent_id_fkey FOREIGN KEY (parent_id) REFERENCES stemma.planted_parents (id) ON DELETE CASCADE,
        CONSTRAINT planted_children_second_parent_id_fkey FOREIGN KEY (workspace_id, second_parent_id)
            REFERENCES stemma.planted_parents (workspace_id, id) ON DELETE SET NULL,
        CONSTRAINT planted_children_third_parent_id_fkey FOREIGN KEY (workspace_id, third_parent_id)
            REFERENCES stemma.planted_parents (workspace_id, id));
    CREATE INDEX planted_children_second_parent_id_idx ON stemma.planted_children (workspace_id, second_parent_id);
    CREATE INDEX planted_children_third_parent_id_idx ON stemma.planted_children (workspace_id, third_parent_id) WHERE name <> '';
    CREATE INDEX planted_children_name_idx ON stemma.planted_children (name);
    CREATE INDEX children_of_planted ON stemma.planted_children (workspace_id, name);
    CREATE INDEX planted_children_with_a_name_that_goes_on_and_on_idx ON stemma.planted_children (workspace_id, name);
    CREATE TABLE stemma.planted_loose ({_WORKSPACE}, {_ID}, {_TIMES}, CONSTRAINT planted_loose_pkey PRIMARY KEY (workspace_id, id));
    CREATE TABLE stemma.planted_tags (
        id uuid NOT NULL, workspace_id uuid NOT NULL, parent_id uuid NOT NULL, "camelCase" text, password text, access_token text,
        secret text, anything jsonb NOT NULL, kind stemma.planted_kind NOT NULL DEFAULT 'a',
        mood stemma.planted_mood NOT NULL DEFAULT 'GOOD',
        part jsonb NOT NULL DEFAULT '{{}}', gap jsonb NOT NULL, unversioned jsonb NOT NULL, deleted_at timestamptz, {_TIMES},
        CONSTRAINT planted_tags_pkey PRIMARY KEY (id),
        CONSTRAINT planted_tags_parent_id_fkey FOREIGN KEY (workspace_id, parent_id)
            REFERENCES stemma.planted_parents (workspace_id, id) ON DELETE CASCADE);
    CREATE INDEX planted_tags_parent_id_idx ON stemma.planted_tags (workspace_id, parent_id);
    CREATE TABLE stemma.planted_timeless ({_ID}, created_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT planted_timeless_pkey PRIMARY KEY (id));
    CREATE TABLE IF NOT EXISTS stemma.planted_left ({_ID}, extra text, {_TIMES}, CONSTRAINT planted_left_pkey PRIMARY KEY (id));
    CREATE TABLE stemma.planted_seeded ({_ID}, text text NOT NULL, {_TIMES}, CONSTRAINT planted_seeded_pkey PRIMARY KEY (id))
"""
_TRIGGERS = {
    "planted_parents": ("set_updated_at",),
    # Not the one that counts its versions.
    "planted_children": ("set_updated_at",),
    "planted_loose": ("set_updated_at",),
    "planted_tags": ("set_updated_at",),
    "planted_seeded": ("set_updated_at",),
    "planted_left": (),
    "planted_timeless": (),
}
_REVISION = '''"""
Tables of a pack that is wrong.

Phase:  expand. For a test.
Locks:  none.
Undo:   loses them, but for one.
"""

from alembic import op

revision = "planted_0001"
down_revision = None
branch_labels = ("planted",)
depends_on = ("base_0001",)


def upgrade():
    for statement in {up!r}:
        op.execute(statement)
    op.enable_tenant("planted_parents")
    op.enable_tenant("planted_loose")


def downgrade():
    op.execute("DROP TABLE stemma.planted_children, stemma.planted_loose, stemma.planted_tags, stemma.planted_timeless, "
               "stemma.planted_seeded, stemma.planted_parents")
    op.execute("ALTER TABLE stemma.planted_left DROP COLUMN extra")
    op.execute("DROP TYPE stemma.planted_mood")
    op.execute("DROP TYPE stemma.planted_kind")
'''


def _revision() -> str:
    triggers = [
        f"CREATE TRIGGER {table}_{name} BEFORE UPDATE ON stemma.{table} FOR EACH ROW EXECUTE FUNCTION stemma.stemma_{name}()"
        for table, names in _TRIGGERS.items()
        for name in names
    ]
    return _REVISION.format(up=[*(statement.strip() for statement in _UP.split(";\n")), *triggers])


def main() -> None:
    """Plant the revision beside the library's own, in a copy of them, and look."""
    from tests.planted import PACK

    server = open_server(os.environ)
    with tempfile.TemporaryDirectory() as folder:
        # Before the revision is there: the template of the other tests does not have it.
        db = server.connect(server.create())
        copy = Path(folder) / "alembic"
        shutil.copytree(_heads.location(), copy, ignore=shutil.ignore_patterns("__pycache__"))
        planted = copy / "versions" / "planted" / "0001_expand_planted.py"
        planted.parent.mkdir()
        planted.write_text(_revision())
        _heads.location = lambda: copy
        _heads.forget()
        try:
            found = pack_conformance(PACK, db)
            nowhere = dataclasses.replace(PACK, branch="nowhere")
            # Its downgrade took a column away that its upgrade does not bring back: a second one fails.
            for again, package in ((nowhere, "tests.planted"), (PACK, None)):
                found += [finding for finding in pack_conformance(again, db, package=package) if finding not in found]
        finally:
            db.close()
            server.close()
    print(json.dumps([dataclasses.asdict(finding) for finding in found]))


if __name__ == "__main__":
    main()
