"""What can be said about the revisions themselves, without a database."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from stemmadb import _heads
from stemmadb.errors import MigrationError
from stemmadb.migrations import _alembic
from stemmadb.reports import Finding

_FACT = re.compile(r"^(Phase|Locks|Undo):\s+(.+)", re.MULTILINE)

# What holds up the transactions of a running release, or breaks its statements. On tables that the revision itself makes nobody waits.
_UNSAFE = (
    (
        "index_blocks_writes",
        re.compile(r"CREATE (?:UNIQUE )?INDEX (?!CONCURRENTLY)\S+\s+ON (?:ONLY )?stemma\.(?P<table>\w+)", re.IGNORECASE),
        "builds an index while writes wait: use op.create_index_concurrently in a revision of its own",
    ),
    (
        "constraint_scans_table",
        re.compile(
            r"ALTER TABLE (?:ONLY )?stemma\.(?P<table>\w+)\s+ADD CONSTRAINT \w+ (?:CHECK|FOREIGN KEY)(?![^;]*NOT VALID)", re.IGNORECASE
        ),
        "reads the whole table under a lock: add the constraint NOT VALID, and VALIDATE it in the next revision",
    ),
    (
        "unique_blocks_table",
        re.compile(
            r"ALTER TABLE (?:ONLY )?stemma\.(?P<table>\w+)\s+ADD CONSTRAINT \w+ (?:UNIQUE|PRIMARY KEY)(?! USING INDEX)", re.IGNORECASE
        ),
        "builds an index under ACCESS EXCLUSIVE: build it concurrently, then ADD CONSTRAINT ... USING INDEX",
    ),
    (
        "not_null_scans_table",
        re.compile(r"ALTER TABLE (?:ONLY )?stemma\.(?P<table>\w+)\s+ALTER (?:COLUMN )?\w+ SET NOT NULL", re.IGNORECASE),
        "reads the whole table under ACCESS EXCLUSIVE: validate CHECK (column IS NOT NULL) first, which spares the reading",
    ),
    (
        "type_rewrites_table",
        re.compile(r"ALTER TABLE (?:ONLY )?stemma\.(?P<table>\w+)\s+ALTER (?:COLUMN )?\w+ (?:SET DATA )?TYPE", re.IGNORECASE),
        "may rewrite the table under ACCESS EXCLUSIVE: add a column, backfill it, and drop the old one in a contract revision",
    ),
    (
        "required_column",
        re.compile(
            r"ALTER TABLE (?:ONLY )?stemma\.(?P<table>\w+)\s+ADD (?:COLUMN )?\w+ (?![^;]*\bDEFAULT\b)(?![^;]*GENERATED)[^;]*NOT NULL",
            re.IGNORECASE,
        ),
        "adds a column that the running release does not fill: let it be NULL or have a default",
    ),
)
# The running release would fail on these, so they wait for it to be gone.
_CONTRACTING = re.compile(
    r"ALTER TABLE (?:ONLY )?stemma\.(?P<table>\w+)\s+(?:DROP COLUMN|RENAME)|DROP TABLE (?:IF EXISTS )?stemma\.(?P<dropped>\w+)",
    re.IGNORECASE,
)
_MADE = re.compile(r"CREATE TABLE (?:IF NOT EXISTS )?stemma\.(\w+)", re.IGNORECASE)


def lint() -> list[Finding]:
    """Return what is wrong with names, descriptions, order and statements of the shipped revisions."""
    try:
        revisions = _heads.revisions()
    except MigrationError as error:
        return [Finding("diverged_heads", "error", error.revision or "versions", error.message)]
    return [finding for revision in revisions.values() for finding in (*_description(revision), *_code(revision), *_statements(revision))]


def _description(revision: _heads.Revision) -> Iterator[Finding]:
    facts = dict(_FACT.findall(revision.doc))
    if not revision.doc.split("\n\n", 1)[0].strip() or facts.keys() != {"Phase", "Locks", "Undo"}:
        yield Finding("undescribed_revision", "error", revision.id, "its docstring does not say why, Phase, Locks and Undo")
    elif not facts["Phase"].startswith(revision.phase):
        yield Finding("wrong_phase", "error", revision.id, f"its name says {revision.phase}, its docstring {facts['Phase'].split('.')[0]}")
    if "<" in revision.doc and ">" in revision.doc:
        yield Finding("undescribed_revision", "error", revision.id, "its docstring still has the words of the template: replace <...>")


def _stands_on_base(revision: _heads.Revision) -> bool:
    known = _heads.revisions()
    return any(
        _heads.branch_of(id) == _heads.BASE or (id in known and id != revision.id and _stands_on_base(known[id])) for id in revision.before
    )


def _code(revision: _heads.Revision) -> Iterator[Finding]:
    first = revision.down_revision is None
    if first != bool(revision.branch_labels) or (first and revision.branch_labels != (revision.branch,)):
        yield Finding("wrong_label", "error", revision.id, f"only the first revision of a branch has a label, ({revision.branch!r},)")
    if first and revision.branch != _heads.BASE and not _stands_on_base(revision):
        message = "the first revision of a pack depends on one of base, or of a pack that does: set depends_on"
        yield Finding("missing_dependency", "error", revision.id, message)
    for id in revision.depends_on:
        if id not in _heads.revisions():
            yield Finding("missing_dependency", "error", revision.id, f"it depends on {id}, which does not exist")
    functions = {node.name: node for node in ast.parse(revision.path.read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)}
    for name in ("upgrade", "downgrade"):
        body = functions[name].body if name in functions else []
        if not any(not isinstance(node, ast.Pass | ast.Expr) or isinstance(getattr(node, "value", None), ast.Call) for node in body):
            yield Finding("empty_revision", "error", revision.id, f"{name}() does nothing")


def _statements(revision: _heads.Revision) -> Iterator[Finding]:
    try:
        texts = _alembic.statements(revision.id)
        _alembic.statements(revision.id, "downgrade")
    except Exception as error:  # whatever a revision raises
        yield Finding("offline_sql", "error", revision.id, f"its SQL cannot be written down: {error}")
        return
    made = {name for text in texts for name in _MADE.findall(text)}
    for text in texts:
        for code, pattern, advice in _UNSAFE:
            for match in pattern.finditer(text):
                if match["table"] not in made:
                    yield Finding(code, "warning", f"{revision.id}: {match['table']}", f"{match[0].splitlines()[0]} {advice}")
        if revision.phase == "expand":
            for match in _CONTRACTING.finditer(text):
                yield Finding(
                    "expand_takes_away",
                    "error",
                    f"{revision.id}: {match['table'] or match['dropped']}",
                    f"{match[0]} takes away what the running release uses: do it in a contract revision of the next one",
                )
