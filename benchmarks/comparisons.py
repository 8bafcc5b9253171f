"""
Comparing runs: nine of 805 samples each with each, and two that are stored as a comparison.

The floor is what people write: it fetches every number with psycopg and aligns and sums up with numpy, in the client. It knows only the
mean difference, its standard error, and how often the second run is higher; no ranks, no clusters, no intervals, nothing is hashed, and
scores of several annotators or runs of a fork would be beyond it.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

import numpy as np

from benchmarks.datasets import Dataset
from benchmarks.harness import OURS, Call, Case, Contender
from stemmadb.entity import uuid7
from stemmadb.evaluation import comparisons
from stemmadb.evaluation.documents import AnalysisPlan

JOB = "comparisons"
CLIENT = "psycopg and numpy"

_RUNS, _SAMPLES = 9, 805
_PLAN = AnalysisPlan(test="paired_t", alpha=0.05, correction="holm")
_DRAWN = AnalysisPlan(alpha=0.05, correction="holm")
_MAKE_SCENARIOS = """
INSERT INTO stemma.scenarios (definition_id, name, content)
SELECT %(definition_id)s, 'To compare ' || n, jsonb_build_object('schema_version', 1, 'prompt', 'To compare ' || n)
  FROM generate_series(1, %(samples)s) AS n
"""
_MAKE_RUN = """
INSERT INTO stemma.runs (id, definition_id, config, slot_count, progress, status, started_at)
VALUES (%(run_id)s, %(definition_id)s, '{"schema_version": 1, "models": ["openai:gpt-4o"]}', %(samples)s, NULL, 'RUNNING', now())
"""
_MAKE_SCORES = """
WITH made AS (
    INSERT INTO stemma.transcripts (run_id, scenario_id, model, sample_index, content, turn_count)
    SELECT %(run_id)s, id, 'openai:gpt-4o', 0, '{"schema_version": 1, "turns": []}', 0
      FROM stemma.scenarios
     WHERE definition_id = %(definition_id)s AND name LIKE 'To compare %%'
    RETURNING id
)
INSERT INTO stemma.scores (transcript_id, name, annotator_kind, annotator, value)
SELECT id, 'overall', 'RULE', 'made up', %(shift)s + random() FROM made
"""
_FETCH = b"""
SELECT transcripts.run_id, transcripts.scenario_id, transcripts.model, transcripts.sample_index, scores.value
  FROM stemma.transcripts
  JOIN stemma.scores ON scores.transcript_id = transcripts.id AND scores.name = 'overall'
 WHERE transcripts.run_id = ANY(%s) AND transcripts.invalidated_at IS NULL
"""


def cases(dataset: Dataset) -> list[Case]:
    """A matrix by closed forms and one by drawing, and one comparison that is stored."""
    runs, samples = (_RUNS, _SAMPLES) if dataset.rows >= 1000 else (3, 20)
    ids = _make_runs(dataset, runs, samples)
    dataset.vacuum("stemma.runs", "stemma.scenarios", "stemma.transcripts", "stemma.scores")
    pairs = f"{math.comb(runs, 2)} pairs of {samples}"
    return [
        _case(dataset, f"{pairs}, paired t", [Contender(OURS, lambda: _pairwise(dataset, ids, _PLAN))], ids),
        _case(dataset, f"{pairs}, 10,000 sign flips and a bootstrap", [Contender(OURS, lambda: _pairwise(dataset, ids, _DRAWN))], ids, 3),
        _case(dataset, f"1 pair of {samples}, stored", [Contender(OURS, lambda: _compare(dataset, ids[:2]))], ids[:2]),
    ]


def _case(dataset: Dataset, title: str, contenders: list[Contender], ids: Sequence[UUID], most_rounds: int | None = None) -> Case:
    floor = Contender(CLIENT, lambda: _in_the_client(dataset, ids))
    return Case(
        JOB, title, dataset.rows, [floor, *contenders], outcome=_rounded, most_calls=1 if most_rounds else 10, most_rounds=most_rounds
    )


def _make_runs(dataset: Dataset, count: int, samples: int) -> list[UUID]:
    ids = [uuid7() for _ in range(count)]
    given: dict[str, Any] = {"definition_id": dataset.chain_id(0), "samples": samples}
    clerk = dataset.clerk
    with clerk.transaction():
        clerk.execute("SELECT setseed(0.5)")
        clerk.execute(_MAKE_SCENARIOS, given)
        for number, run_id in enumerate(ids):
            clerk.execute(_MAKE_RUN, given | {"run_id": run_id})
            clerk.execute(_MAKE_SCORES, given | {"run_id": run_id, "shift": number / 100})
    return ids


def _rounded(found: Any) -> list[tuple[int, float, float, int]]:
    if not isinstance(found, list):
        delta = found.delta.metrics["overall"]
        return [(delta.n, round(delta.delta, 9), 0.0, 0)]
    if isinstance(found[0], tuple):
        return [(n, round(mean, 9), *((round(error, 9), wins) if len(found) > 1 else (0.0, 0))) for n, mean, error, wins in found]
    cells = [cell.statistics for cell in found]
    return [(cell.n, round(cell.difference, 9), round(cell.standard_error, 9), cell.wins) for cell in cells]


@contextlib.contextmanager
def _in_the_client(dataset: Dataset, ids: Sequence[UUID]) -> Iterator[Call]:
    # It sees the workspace, as the floor's connection does not.
    cursor = dataset.clerk.cursor()

    def call(number: int) -> list[tuple[int, float, float, int]]:
        values: dict[UUID, dict[tuple[Any, ...], float]] = {run_id: {} for run_id in ids}
        for run_id, *key, value in cursor.execute(_FETCH, (list(ids),)):
            values[run_id][tuple(key)] = value
        found = []
        for a, b in itertools.combinations(ids, 2):
            x, y = values[a], values[b]
            d = np.array([y[key] - x[key] for key in x.keys() & y.keys()])
            found.append((len(d), float(d.mean()), float(d.std(ddof=1) / math.sqrt(len(d))), int((d > 0).sum())))
        return found

    yield call


@contextlib.contextmanager
def _pairwise(dataset: Dataset, ids: Sequence[UUID], plan: AnalysisPlan) -> Iterator[Call]:
    with dataset.db.session() as session:
        yield lambda number: comparisons.pairwise(session, ids, plan=plan)


@contextlib.contextmanager
def _compare(dataset: Dataset, ids: Sequence[UUID]) -> Iterator[Call]:
    with dataset.db.session() as session:

        def call(number: int) -> Any:
            with session.begin_nested() as savepoint:
                found = comparisons.compare(session, *ids, plan=_PLAN)
                savepoint.rollback()
            return found

        yield call
