"""What notebooks show of versions, runs, scores and comparisons: all of it as text, whatever names and contents say."""

from uuid import UUID

import pytest
from sqlalchemy.orm import Session
from tests.evaluation.judged_runs import Bench, judgement
from tests.evaluation.version_trees import CONTENT, make
from tests.shown_tables import NASTY, Tags, table_of

from stemmadb import trees
from stemmadb._display import json_text, printable
from stemmadb.evaluation import comparisons, definitions, runs, scores, transcripts
from stemmadb.evaluation.data import DefinitionTreeNode, PairwiseCell, RunCreate
from stemmadb.evaluation.definitions import DefinitionFork
from stemmadb.evaluation.documents import AnalysisPlan, RunConfig
from stemmadb.evaluation.entities import Definition, RunComparison
from stemmadb.testing import count_queries

PLAN = AnalysisPlan(test="paired_t", alpha=0.05)


def test_trees_and_differences(session: Session) -> None:
    """Of definitions and of any entity: names, messages and contents are text."""
    root = make(session, NASTY, message=f"{NASTY}\nmore")
    child = definitions.fork(session, root.id, DefinitionFork(name="child"))
    content = definitions.get_with_content(session, root.id).content
    changed = definitions.fork(session, root.id, DefinitionFork(content=content.replace(template=NASTY, **{NASTY[:-1]: None})))
    other = definitions.fork(session, root.id, DefinitionFork(content=content.replace(template="other")))
    shown = (definitions.tree(session, root.id), trees.tree(session, Definition, root.id))
    session.expunge_all()
    for top in shown:
        said = table_of(top).said
        assert printable(NASTY) in said
        assert "├── child" in said
        assert str(child.id) in said
    said = table_of(definitions.diff(session, root.id, changed.id)).said
    assert json_text(NASTY) in said
    assert said[:4] == ["place", "change", "was", "is"]
    assert {"/template", "replace", "add"} <= set(said)
    said = table_of(definitions.blame(session, changed.id)).said
    assert said[:3] == ["pointer", "definition_id", "created_at"]
    assert str(changed.id) in said
    said = table_of(definitions.merge(session, changed.id, other.id)).said
    assert said[0] == "Conflicts"
    assert {"/template", json_text(NASTY), '"other"'} <= set(said)
    assert table_of(definitions.merge(session, root.id, other.id)).said[-1] == "merged without conflicts"


@pytest.mark.offline
def test_a_large_tree_makes_a_small_page() -> None:
    """Of 10,000 versions, wide or deep, 500 are shown, and the page says so."""
    version = Definition(name=NASTY * 4, content=CONTENT)
    for deep in (False, True):
        top = at = DefinitionTreeNode(version, 0)
        for _ in range(1, 10_000):
            at.children.append(DefinitionTreeNode(version, 1))
            at = at.children[0] if deep else at
        text = top._repr_html_()
        assert len(text) < 600_000
        assert Tags(text).said[-1] == "… and 9,500 more"


def test_runs(session: Session) -> None:
    """A run shows its configuration, its progress and what it cost, and asks the database for none of it."""
    definition = make(session)
    run = runs.create(session, RunCreate(definition_id=definition.id, name=NASTY, config=RunConfig(models=(NASTY,))))
    report = runs.report_progress(session, run.id, runs.RunProgress(total=4, completed=1))
    with count_queries() as sent:
        found = table_of(run)
    assert sent.count == 0
    assert found.said[:3] == ["Run", "field", "value"]
    assert printable(NASTY) in found.said
    assert any(NASTY[:8] in said for said in found.said if said.startswith("{"))
    assert report is run
    assert table_of(runs.progress(session, run.id)).said[0] == "25 % of 4 done"
    assert table_of(transcripts.summarize_run(session, run.id)).said[0] == f"Run {run.id}"
    assert table_of(runs.list_all(session)).said[0] == "1 rows; the last page"


def test_comparisons(session: Session) -> None:
    """Each says in words which run is higher, tied ones too, with interval, p-value and coverage."""
    bench = Bench(session, 6)
    low, same, high = (bench.run(values) for values in ([0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 1, 0], [1, 2, 1, 2, 1, 2]))
    stored = comparisons.compare(session, low, high, plan=PLAN)
    cells = comparisons.pairwise(session, [low, same, high], plan=PLAN)
    report = comparisons.comparability(session, [low, high])
    summary = scores.summarize(session, low, name="overall")
    bench.judge([(bench.transcript(low), judgement(1.0, annotator=NASTY))])
    agreed = scores.agreement(session, low, name="overall")
    session.expunge_all()
    with count_queries() as sent:
        said = table_of(stored).said
        assert said[0].startswith("HIGHER: paired_t, 6 wins, 0 losses, 0 ties. Run ")
        assert said[0].endswith("Samples: 6 matched, 0 only in the baseline, 0 only in the other run, 0 invalidated")
        assert said[8:12] == ["overall", "0.1667", "1.5", "1.333"]
        said = table_of(cells).said
        assert said[0].startswith("Mean of the column")
        assert said[1:4] == ["baseline", "run 2", "run 3"]
        assert said[4:7] == [f"run 1: {low}", "+0 (-0.664 to +0.664), tied, p 1", said[6]]
        assert said[6].startswith("+1.33 (")
        assert ", higher, p " in said[6]
        covered = "6 matched, 0 only in the baseline, 0 only in the other run, 0 invalidated"
        assert {"verdict", "TIED", covered} <= set(table_of(cells[0]).said)
        assert "TIED" in table_of(cells[0].statistics).said
        assert table_of(report).said[0].startswith("Comparable. Samples: 6 matched, 0 only in the baseline")
        assert {"model", "mean", "missing"} <= set(table_of(summary).said)
        assert table_of(agreed).said[0].startswith("Krippendorff's alpha: ")
    assert sent.count == 0


@pytest.mark.offline
def test_results_of_any_size_and_kind() -> None:
    """A matrix ends after 20 runs; a comparison without a delta shows what it has."""
    bare = RunComparison(baseline_run_id=UUID(int=1), comparison_run_id=UUID(int=2), notes=NASTY)
    del bare.__dict__["delta"]
    assert printable(NASTY) in table_of(bare).said


def test_a_matrix_of_many_runs(session: Session) -> None:
    """Without results there is a matrix too, which says what was not tested; it ends after 20 runs."""
    bench = Bench(session, 1)
    ids = [bench.run([]) for _ in range(22)]
    cells = comparisons.pairwise(session, ids, plan=PLAN)
    assert isinstance(cells[0], PairwiseCell)
    said = table_of(cells).said
    assert said[-1] == "… and 2 more"
    assert said.count("untested: no pairs") == 190
