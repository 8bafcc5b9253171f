"""The benchmarks run, and all contenders of a job come to the same result. Nobody looks at a clock here."""

import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from benchmarks import memory
from benchmarks.__main__ import JOBS
from benchmarks.datasets import Dataset, make_dataset
from benchmarks.harness import FLOOR, ONCE, OURS, PEERS, PYRMUTE, Measurement, counted_round_trips, measure
from benchmarks.imports import measured
from benchmarks.marks import Mark, marks_of
from benchmarks.report import tables

from stemmadb._test_server import DatabaseServer


@pytest.fixture(scope="module")
def dataset(stemmadb_server: DatabaseServer) -> Iterator[Dataset]:
    """A hundred definitions, and what the contenders connect with."""
    made = make_dataset(stemmadb_server, 100)
    try:
        yield made
    finally:
        made.close()


def run(job: str, dataset: Dataset) -> list[Measurement]:
    """Let every contender of a job do its work."""
    cases = importlib.import_module(f"benchmarks.{job}").cases(dataset)
    return [measurement for case in cases for measurement in measure([case], ONCE)]


@pytest.mark.requirement("EC-234")
@pytest.mark.parametrize("job", JOBS)
def test_a_job_runs(dataset: Dataset, job: str) -> None:
    """Each contender does the work once and agrees with the floor; the figures make tables."""
    if job == "frames":
        pytest.importorskip("adbc_driver_postgresql")
    found = run(job, dataset)
    assert {OURS} < {one.contender for one in found}
    assert all(one.samples >= 1 and one.ratio > 0 for one in found)
    table = tables(found)
    assert all(f"| {one.contender} |" in table for one in found)


def test_round_trips_are_exact(dataset: Dataset) -> None:
    """A read in an open session takes one, in a transaction of its own three; so does psycopg's, counted by hand."""
    trips = {(one.case, one.contender): one.round_trips for one in run("read", dataset)}
    assert trips["by key, open session", FLOOR] == trips["by key, open session", OURS] == 1
    assert trips["by key, own transaction", OURS] == 3
    with counted_round_trips() as count, dataset.floor.transaction():
        dataset.floor.execute("SELECT 1", prepare=False)
    assert count() == 3


def test_the_memory_of_an_import_is_told(dataset: Dataset, tmp_path: Path) -> None:
    """A file of about the size is written and imported whole; the row says what it took."""
    cells = [cell.strip() for cell in measured(dataset.db, tmp_path / "some.jsonl", 200_000).strip("|").split("|")]
    assert (len(cells), cells[:2]) == (6, ["0", "59"])


@pytest.mark.offline
def test_a_contender_that_differs_is_told() -> None:
    """Figures of contenders that do different work would say nothing: the first difference ends the run."""
    from contextlib import nullcontext

    from benchmarks.harness import Case, Contender

    contenders = [Contender(FLOOR, lambda: nullcontext(lambda number: 1)), Contender(OURS, lambda: nullcontext(lambda number: 2))]
    with pytest.raises(AssertionError, match="stemmadb does not come to the result"):
        measure([Case("job", "case", 1, contenders, outcome=int)], ONCE)


@pytest.mark.offline
def test_marks_compare_within_a_round() -> None:
    """A machine that was slow in one round was slow for everybody: what counts is the ratio in each round."""

    def measured(contender: str, *rounds: float) -> Measurement:
        return Measurement("read", "by key, open session", 1000, contender, 1, rounds_us=list(rounds))

    ours, theirs = measured(OURS, 10, 50, 10), measured(PEERS[0], 20, 100, 20)
    (ahead, p95) = marks_of([ours, theirs])
    assert (ahead.value, ahead.reached) == (0.5, True)
    assert p95.text.endswith("p95 in ms")
    assert str(Mark("a", 3.0, 2.5)) == "FAIL  a: 3.00 (at most 2.5)"


@pytest.mark.offline
def test_marks_of_documents_are_for_each_document() -> None:
    """What reading adds is told in microseconds for one document; a step may add more; whoever migrates documents too is no faster."""

    def measured(case: str, contender: str, *rounds: float) -> Measurement:
        ratio = rounds[0] / 1000
        return Measurement("documents", case, 1000, contender, None, rounds_us=list(rounds), ratio=ratio)

    found = []
    for case in ("current, 2 kB, decoded", "one version old, 2 kB, decoded", "current, 2 kB, JSON text"):
        found += [measured(case, "by pydantic", 1000, 1000), measured(case, OURS, 1100, 1100), measured(case, PYRMUTE, 1000, 1000)]
    marks = {mark.text: (round(mark.value, 3), mark.reached) for mark in marks_of(found)}
    assert marks == {
        "documents: current, 2 kB, decoded, us more for each than by pydantic": (2.0, False),
        "documents: current, 2 kB, decoded, time to that of pyrmute": (1.1, False),
        "documents: one version old, 2 kB, decoded, us more for each than by pydantic": (2.0, True),
        "documents: one version old, 2 kB, decoded, time to that of pyrmute": (1.1, False),
        "documents: current, 2 kB, JSON text, times by pydantic": (1.1, True),
        "documents: current, 2 kB, JSON text, time to that of pyrmute": (1.1, False),
    }


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of a process is read from Linux")
def test_the_memory_of_streams_and_removals_is_measured(stemmadb_server: DatabaseServer, dataset: Dataset) -> None:
    """A process of its own reads all rows, another removes them, and neither grows by what it reads."""
    works = ("aio transcripts.iter_for_run", "purging.purge_run")
    found = memory.figures_of(stemmadb_server, dataset, 3000, 1000, works)
    assert [(figure.work, figure.rows) for figure in found] == [(works[0], 3000), (works[1], 1000)]
    assert all(figure.grown_mb < memory.GROWTH_MB and f"| {figure.work} |" in str(figure) for figure in found)
