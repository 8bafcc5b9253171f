"""``stemmadb demo``: the pack at work on its sample data, step by step."""

import json
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from sqlalchemy import text
from sqlalchemy.orm import Session

from stemmadb import seeding
from stemmadb.accounts import api_keys, users
from stemmadb.database import Database
from stemmadb.evaluation import definitions, runs
from stemmadb.evaluation._sample_family import LEAF, OLD, ROOT
from stemmadb.evaluation.commands import drawn
from stemmadb.evaluation.seed import STAND_INS, sample_id

WORKSPACE = "demo"
_OWNER = text("SELECT owner_id FROM stemma.workspaces WHERE slug = :slug AND deleted_at IS NULL")
_STORED = text("SELECT content::text FROM stemma.definitions WHERE workspace_id = stemma.stemma_workspace_id() AND id = :id")


def run(db: Database, console: Console) -> None:
    """Seed what is missing, then show it. A second time nothing is changed."""
    report = _seed(db, console)
    console.print("[bold]Sample data[/bold]")
    for module, counts in report.applied.items():
        console.print(f"  {module}: {', '.join(f'{count} {table}' for table, count in counts.items()) or 'nothing new'}")
    if not report.applied:
        console.print("  all there from an earlier run; nothing was changed")
    with db.session(workspace=WORKSPACE) as session:
        _show_tree(session, console)
        _show_run(session, console)
        _show_old_document(session, console)
    _show_key(db, console)
    console.print("\n[bold]Go on in a notebook[/bold]")
    console.print(f'  db = stemmadb.connect(workspace="{WORKSPACE}")', markup=False)
    console.print("  with db.session() as session: print(definitions.list_all(session))", markup=False)


def _seed(db: Database, console: Console) -> seeding.SeedReport:
    started = time.monotonic()
    with Progress(TextColumn("{task.description}"), BarColumn(), console=console, transient=True) as progress:
        progress.add_task("definitions, scenarios, a run and its transcripts", total=None)
        report = seeding.run(db, "demo")
    console.print(f"[dim]seeds: {time.monotonic() - started:.1f} s[/dim]")
    return report


def _show_tree(session: Session, console: Console) -> None:
    console.print("\n[bold]The tree of versions[/bold]")
    root = sample_id(session, ROOT)
    for drawing in drawn(definitions.tree(session, root), {}):
        console.print(drawing)
    console.print(f"[dim]again: stemmadb tree {root} --workspace {WORKSPACE}[/dim]")
    leaf = definitions.get(session, sample_id(session, LEAF))
    line = definitions.ancestors(session, leaf.id)
    console.print(f"\n[bold]The ancestors of “{leaf.name}: {leaf.message}”, root first[/bold]")
    for row in line:
        console.print(f"  {row.depth}  {row.name}: {row.message}", markup=False)


def _show_run(session: Session, console: Console) -> None:
    console.print("\n[bold]The run[/bold]")
    for row in runs.list_for_tree(session, sample_id(session, ROOT)):
        report = runs.progress(session, row.id)
        done = report.completed + report.failed + report.skipped
        console.print(
            f"  {row.name}: {row.status}, {done}/{report.total} slots, {report.failed} failed, {report.percent:.0f} %", markup=False
        )
    console.print(
        f"  answered by {' and '.join(STAND_INS)}: stand-ins, not models; each answer is computed from a hash of its prompt", markup=False
    )


def _show_old_document(session: Session, console: Console) -> None:
    old = sample_id(session, OLD)
    stored = session.scalar(_STORED, {"id": old})
    read = definitions.get_with_content(session, old)
    console.print("\n[bold]A document that was stored before documents had versions[/bold]")
    console.print(f"  stored   {stored}", markup=False)
    console.print(f"  read     {json.dumps(read.content.dump(), ensure_ascii=False)}", markup=False)
    kept = "as it was" if session.scalar(_STORED, {"id": old}) == stored else "changed"
    console.print(f"  version {read.stored_version} in the table, {read.content.schema_version} in hand; the row is {kept}")


def _show_key(db: Database, console: Console) -> None:
    """Issue and verify a key in a transaction that is rolled back: a demonstration leaves no key behind."""
    with db.session() as session:
        owner = users.get(session, session.scalar(_OWNER, {"slug": WORKSPACE}))
        issued = api_keys.issue(session, owner.id, "demo", scopes=["evaluation:read"])
        identity = api_keys.verify(session, issued.token, required_scope="evaluation:read")
        said = [
            f"  issued   {issued.key.prefix}_… ending in {issued.key.last_four}; only its digest is stored",
            f"  verified for {owner.email}, scopes {', '.join(sorted(identity.scopes))}; then taken back",
        ]
        session.rollback()
    console.print("\n[bold]An API key[/bold]")
    for line in said:
        console.print(line, markup=False)
