"""What is said about a revision before it runs anywhere."""

from __future__ import annotations

import pytest
from tests.migrations.places import Revisions

from stemmadb.migrations._lint import lint

pytestmark = [pytest.mark.offline, pytest.mark.requirement("EC-123")]


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        ("CREATE INDEX x ON stemma.users (name)", "index_blocks_writes"),
        ("ALTER TABLE stemma.users ADD CONSTRAINT x CHECK (name <> '')", "constraint_scans_table"),
        ("ALTER TABLE stemma.users ADD CONSTRAINT x FOREIGN KEY (a) REFERENCES stemma.users (id)", "constraint_scans_table"),
        ("ALTER TABLE stemma.users ADD CONSTRAINT x UNIQUE (name)", "unique_blocks_table"),
        ("ALTER TABLE stemma.users ALTER COLUMN name SET NOT NULL", "not_null_scans_table"),
        ("ALTER TABLE stemma.users ALTER name TYPE varchar(3)", "type_rewrites_table"),
        ("ALTER TABLE stemma.users ADD COLUMN nickname text NOT NULL", "required_column"),
        ("ALTER TABLE stemma.users DROP COLUMN name", "expand_takes_away"),
        ("ALTER TABLE stemma.users RENAME COLUMN name TO title", "expand_takes_away"),
        ("DROP TABLE stemma.users", "expand_takes_away"),
    ],
)
def test_a_statement_that_holds_up_traffic_is_named(revisions: Revisions, statement: str, code: str) -> None:
    """On a table of an earlier revision it is a finding."""
    id = revisions.add("base", f'op.execute("{statement}")')
    assert [(finding.code, finding.object) for finding in lint()] == [(code, f"{id}: users")]


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE stemma.notes (id uuid); CREATE INDEX x ON stemma.notes (id); ALTER TABLE stemma.notes ALTER id SET NOT NULL",
        "ALTER TABLE stemma.users ADD CONSTRAINT x CHECK (name <> '') NOT VALID",
        "ALTER TABLE stemma.users ADD COLUMN nickname text",
        "ALTER TABLE stemma.users ADD COLUMN nickname text NOT NULL DEFAULT ''",
        "ALTER TABLE stemma.users ADD CONSTRAINT x UNIQUE USING INDEX y",
    ],
)
def test_what_holds_up_nobody_is_fine(revisions: Revisions, statement: str) -> None:
    """New tables, constraints that are validated later, columns that the running release need not fill."""
    revisions.add("base", f'op.execute("{statement}")')
    assert lint() == []


def test_contract_revisions_take_away(revisions: Revisions) -> None:
    """That is what they are for."""
    revisions.add("base", 'op.execute("ALTER TABLE stemma.users DROP COLUMN name")', phase="contract")
    assert lint() == []


def test_a_description_says_why_phase_locks_and_undo(revisions: Revisions) -> None:
    """A missing fact, and a phase that is not that of the name."""
    revisions.add("base", "op.execute('SELECT 1')")
    path = revisions.folder / "versions" / "base" / "0002_expand_added.py"
    sound = path.read_text()
    for wrong, code in (
        (sound.replace("Undo:", "Hm:"), "undescribed_revision"),
        (sound.replace("Phase:  expand", "Phase:  contract"), "wrong_phase"),
    ):
        path.write_text(wrong)
        revisions.forget()
        assert [finding.code for finding in lint()] == [code]


def test_a_revision_does_something_both_ways(revisions: Revisions) -> None:
    """``pass`` in either function is a finding."""
    revisions.add("base", "op.execute('SELECT 1')", "pass")
    assert [(finding.code, finding.message) for finding in lint()] == [("empty_revision", "downgrade() does nothing")]


def test_sql_that_cannot_be_written_down_is_a_finding(revisions: Revisions) -> None:
    """A revision that asks the database while it is written down."""
    revisions.add("base", "op.get_bind().scalar('SELECT 1')")
    assert [finding.code for finding in lint()] == ["offline_sql"]


def test_a_pack_depends_on_the_base_and_has_a_label(revisions: Revisions) -> None:
    """The first revision of a branch without label or dependency."""
    revisions.add("portfolio", "op.execute('SELECT 1')", branch_labels=None, depends_on=None)
    assert {finding.code for finding in lint()} == {"wrong_label", "missing_dependency"}
