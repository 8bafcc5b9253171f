"""Every pack does as packs do; and a pack that does not is told, one finding for each thing that was planted in it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

import pytest
from sqlalchemy import text

import stemmadb
from stemmadb import seeding
from stemmadb._conformance import _statements
from stemmadb._conformance._sources import sources_of
from stemmadb._conformance._tables import is_tenant_table
from stemmadb.database import Database
from stemmadb.entity import Entity, metadata
from stemmadb.errors import ConfigurationError
from stemmadb.packs import Pack, documents, packs
from stemmadb.testing import pack_conformance

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("pack", packs(), ids=lambda pack: pack.name)
@pytest.mark.requirement("VR-024", "VR-050", "TN-023", "TN-024", "TN-026", "TN-027", "TN-049", "EC-002", "EC-014", "EC-019", "EC-020")
@pytest.mark.requirement("EC-023", "EC-246", "AD-019", "AD-027", "VR-002", "VR-008", "VR-010")
def test_a_pack_conforms(pack: Pack, committed_db: Database) -> None:
    """Nothing is found in the packs of this release."""
    assert pack_conformance(pack, committed_db) == []


def test_a_database_is_made_for_it() -> None:
    """Without one it makes a database of its own, and drops it."""
    assert pack_conformance(packs()[1]) == []


def test_a_pack_that_nobody_can_find_is_told() -> None:
    """The package is named by hand where the entities do not lead to it."""

    class Elsewhere(Entity):
        pass

    with pytest.raises(ConfigurationError, match=r"package=\.\.\."):
        pack_conformance(Pack("elsewhere", "elsewhere", entities=(Elsewhere,)))


# --------------------------------------------------------------------------------------------------------- what was planted

PLANTED = [
    # tables
    ("unconventional_name", "planted_children.children_of_planted"),
    ("unconventional_name", "planted_tags.camelCase"),
    ("unconventional_name", "planted_tags.mood.bad"),
    ("long_name", "planted_children_with_a_name_that_goes_on_and_on_idx"),
    ("missing_time", "planted_timeless.updated_at"),
    ("key_without_default", "planted_tags.id"),
    ("unindexed_deletion", "planted_tags"),
    ("readable_secret", "planted_tags.password"),
    ("readable_secret", "planted_tags.access_token"),
    ("reference_without_rule", "planted_children.planted_children_third_parent_id_fkey"),
    ("reference_without_index", "planted_children.planted_children_parent_id_fkey"),
    ("reference_without_index", "planted_children.planted_children_third_parent_id_fkey"),
    ("reference_into_a_workspace", "planted_tags.planted_tags_parent_id_fkey"),
    ("enum_without_python", "planted_tags.kind"),
    # tenant tables
    ("key_without_workspace", "planted_parents.planted_parents_id_key"),
    ("key_without_workspace", "planted_children.planted_children_name_idx"),
    ("workspace_without_cascade", "planted_loose"),
    ("reference_across_workspaces", "planted_children.planted_children_parent_id_fkey"),
    ("unsafe_rule", "planted_children.planted_children_second_parent_id_fkey"),
    ("native_enum_in_tenant_table", "planted_children.mood"),
    ("unscoped_table", "planted_tags"),
    # documents
    ("column_without_document", "planted_tags.anything"),
    ("default_without_version", "planted_tags.part"),
    ("document_without_version", "planted_tags.unversioned"),
    ("mutable_document", "planted_tags.part: Loose"),
    ("missing_upcaster", "planted_tags.gap"),
    # functions
    ("undecorated_function", "tests.planted.notes.bare"),
    ("hidden_home", "tests.planted.notes.hidden"),
    ("untyped_function", "tests.planted.notes.untyped"),
    ("open_type", "tests.planted.notes.closed"),
    ("undocumented_function", "tests.planted.notes.silent"),
    ("undocumented_error", "tests.planted.notes.raising"),
    ("undocumented_error", "tests.planted.notes.untold"),
    ("find_without_none", "tests.planted.notes.find"),
    ("get_without_not_found", "tests.planted.notes.get"),
    ("get_with_none", "tests.planted.notes.get_or_none"),
    ("list_without_page", "tests.planted.notes.list_all"),
    ("unscoped_function", "tests.planted.notes.of_a_workspace"),
    ("module_without_logger", "tests.planted.notes"),
    ("module_without_logger", "tests.planted.unheard"),
    # twins
    ("missing_twins", "tests.planted.aio.unheard"),
    ("missing_twin", "tests.planted.aio.notes.forgotten"),
    ("extra_twin", "tests.planted.aio.notes.extra"),
    ("changed_twin", "tests.planted.aio.notes.Kept"),
    ("changed_twin", "tests.planted.aio.notes.iter_all"),
    ("changed_twin", "tests.planted.aio.notes.misleading"),
    ("changed_twin", "tests.planted.aio.notes.of_a_workspace"),
    ("changed_twin", "tests.planted.aio.notes.other"),
    # SQL
    ("statement_with_star", "tests.planted.notes:_STAR"),
    ("statement_with_star", "tests.planted.notes:_TABLE_STAR"),
    ("statement_without_workspace", "tests.planted.notes._CORE"),
    ("statement_without_workspace", "tests.planted.notes._HALF_GUARDED"),
    ("statement_without_workspace", "tests.planted.notes._UNGUARDED"),
    # errors
    ("error_lost_in_pickle", "tests.planted.notes.LostError"),
    ("unconventional_name", "tests.planted.notes.Oops"),
    # seeds
    ("unconventional_name", "elsewhere"),
    ("unknown_profile", "elsewhere"),
    ("unknown_profile", "planted.unreadable"),
    ("seed_given_twice", "planted.twice"),
    ("seed_without_checksum", "planted.unreadable"),
    ("seed_failed", "planted, profile qa"),
    ("seed_not_idempotent", "planted: planted_seeded"),
    # the database
    ("missing_branch", "planted"),
    ("migration_failed", "planted"),
    ("changed_column", "planted_children.name"),
    ("missing_column", "planted_left.extra"),
    ("row_security_off", "planted_children"),
    ("row_security_off", "planted_tags"),
    ("row_security_not_forced", "planted_children"),
    ("row_security_not_forced", "planted_tags"),
    ("missing_policy", "planted_children.planted_children_tenant"),
    ("missing_policy", "planted_children.planted_children_maintenance"),
    ("missing_policy", "planted_tags.planted_tags_tenant"),
    ("missing_policy", "planted_tags.planted_tags_maintenance"),
    ("table_without_trigger", "planted_children.planted_children_bump_version"),
    ("table_without_trigger", "planted_left.planted_left_set_updated_at"),
    ("table_without_trigger", "planted_timeless.planted_timeless_set_updated_at"),
    ("leftover_table", "planted_left"),
    ("changed_by_round_trip", "column planted_left.extra"),
]


@pytest.fixture(scope="module")
def found() -> set[tuple[str, str]]:
    """Code and object of everything found in the planted pack; a line of its sources by the name that stands there."""
    done = subprocess.run([sys.executable, "-m", "tests.planted.findings"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {(finding["code"], _named(finding["object"])) for finding in json.loads(done.stdout)}


def _named(place: str) -> str:
    match = re.fullmatch(r"(tests\.planted\.\w+):(\d+)", place)
    if match is None:
        return place
    line = (ROOT / match[1].replace(".", "/")).with_suffix(".py").read_text().splitlines()[int(match[2]) - 1]
    return f"{match[1]}:{line.split()[0]}"


@pytest.mark.parametrize(("code", "place"), PLANTED)
@pytest.mark.requirement("EC-244", "EC-245", "VR-008", "VR-050")
def test_what_was_planted_is_found(found: set[tuple[str, str]], code: str, place: str) -> None:
    """Each thing that is wrong with the planted pack is told by its code and its name."""
    assert (code, place) in found


def test_nothing_else_is_found(found: set[tuple[str, str]]) -> None:
    """What is right in the planted pack is not told."""
    assert found - set(PLANTED) == set()


# ----------------------------------------------------------------------------------------------------------- reading SQL


@pytest.mark.offline
@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("SELECT * FROM stemma.runs", True),
        ("SELECT runs.* FROM stemma.runs", True),
        ("SELECT runs . * FROM stemma.runs", True),
        ("SELECT id, * FROM stemma.runs", True),
        ("SELECT DISTINCT * FROM stemma.runs", True),
        ("UPDATE stemma.runs SET name = 'x' RETURNING *", True),
        ("WITH made AS (INSERT INTO stemma.runs (name) VALUES ('x') RETURNING runs.*) SELECT id FROM made", True),
        ("SELECT count(*), 2 * 3 FROM stemma.runs", False),
        ("SELECT '*', \"*\" FROM stemma.runs -- SELECT *", False),
        ("SELECT /* , * */ $$ SELECT * $$ FROM stemma.runs", False),
    ],
)
def test_stars_are_told_from_products(statement: str, expected: bool) -> None:
    """A star counts where it stands for columns: not in count(*), not between numbers, not inside quotes and comments."""
    assert _statements.has_star(statement) is expected


@pytest.mark.offline
@pytest.mark.parametrize(
    ("statement", "missing"),
    [
        ("SELECT id FROM stemma.runs WHERE workspace_id = :workspace_id", []),
        ("SELECT r.id FROM stemma.runs AS r WHERE r.workspace_id = :workspace_id", []),
        ("SELECT r.id FROM stemma.runs r WHERE :workspace_id = r.workspace_id", []),
        ("SELECT id FROM stemma.runs WHERE (workspace_id, id) IN (SELECT 1, 2)", []),
        ("SELECT id FROM stemma.users", []),
        ("INSERT INTO stemma.runs (workspace_id, name) VALUES (:workspace_id, 'x')", []),
        ("SELECT id FROM stemma.runs JOIN stemma.scenarios USING (workspace_id, definition_id)", []),
        ("SELECT workspace_id FROM stemma.runs", ["runs"]),
        ("SELECT id FROM stemma.runs WHERE name = 'workspace_id = 1'", ["runs"]),
        ("INSERT INTO stemma.runs (name) VALUES ('x')", ["runs"]),
        ("DELETE FROM stemma.runs", ["runs"]),
        ("SELECT 1 FROM stemma.runs, stemma.scenarios WHERE runs.workspace_id = :workspace_id", ["scenarios"]),
        ("SELECT 1 FROM stemma.runs JOIN stemma.scenarios ON workspace_id = :workspace_id", ["runs", "scenarios"]),
        ("SELECT 1 FROM stemma.runs WHERE workspace_id = 1 UNION ALL SELECT 1 FROM stemma.runs", ["runs"]),
        ("SELECT 1 FROM stemma.runs WHERE workspace_id = 1 AND EXISTS (SELECT FROM stemma.scenarios)", ["scenarios"]),
        ("INSERT INTO stemma.runs (workspace_id, id) SELECT :workspace_id, id FROM stemma.scenarios", ["scenarios"]),
        ("UPDATE stemma.runs SET name = 'x' FROM stemma.scenarios s WHERE runs.workspace_id = 1 AND s.id = 1", ["scenarios"]),
    ],
)
def test_each_part_of_a_statement_needs_the_workspace(statement: str, missing: list[str]) -> None:
    """Arms of a UNION, sub-selects and joined tables are looked at one by one."""
    assert _statements.unguarded(statement) == missing


def _constants() -> Iterator[tuple[str, str]]:
    for pack in packs():
        for module in sources_of(pack).modules:
            for name, statement in _statements._constants(module):
                yield f"{module.__name__}.{name}", statement


@pytest.mark.offline
@pytest.mark.requirement("TN-032", "TN-034")
def test_every_predicate_counts() -> None:
    """Take any one comparison of a workspace_id out of any one statement of the packs, and it is told."""
    mutants, survivors = 0, []
    # Some of these rows belong to a workspace, and some to none: no rule is broken by reading both.
    free = {table.name for table in metadata.tables.values()} - {table.name for table in metadata.tables.values() if is_tenant_table(table)}
    for name, statement in _constants():
        for match in re.finditer(r"(?:(\w+)\.)?workspace_id\s*=\s*[\w.:]+", statement):
            if match[1] in free:
                continue
            mutants += 1
            if not _statements.unguarded(statement[: match.start()] + "true" + statement[match.end() :]):
                survivors.append(f"{name}: {match[0]}")
    assert mutants > 100
    assert survivors == []


@pytest.mark.offline
def test_the_kernel_names_its_columns() -> None:
    """The kernel's own SQL has no star either, and touches no tenant table without its workspace."""
    names = {pack.name for pack in packs()}
    modules = [
        import_module(module.name)
        for module in walk_packages(stemmadb.__path__, "stemmadb.")
        if module.name.split(".")[1] not in {*names, "aio", "_alembic", "__main__"}
    ]
    assert [
        finding for finding in _statements.check(modules) if finding.code != "statement_with_star" or "_conformance" not in finding.object
    ] == []


# ----------------------------------------------------------------------------------------------------------------- documents


@pytest.mark.requirement("VR-008")
def test_what_is_seeded_has_a_version(committed_db: Database) -> None:
    """After the seeds every document says its version, but the one definition that is seeded as the first releases wrote them."""
    for profile in ("dev", "qa", "prod", "demo", "test"):
        seeding.run(committed_db, profile)
    without, planned = {}, []
    with committed_db.all_workspaces(reason="census") as session:
        for table, column in documents(entity for pack in packs() for entity in pack.entities):
            counted = text(f"SELECT count(*), count({column} -> 'schema_version') FROM stemma.{table} WHERE {column} IS NOT NULL")
            rows, versions = session.execute(counted).one()
            if rows != versions:
                without[table, column] = rows - versions
        planned = session.scalars(text("SELECT progress FROM stemma.runs WHERE slot_count IS NOT NULL")).all()
    # One in each workspace that is seeded.
    assert without == {("definitions", "content"): 2}
    assert planned
    assert set(planned) == {None}
