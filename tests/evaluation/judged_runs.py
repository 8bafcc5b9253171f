"""Runs whose transcripts have scores, as the tests of scores, comparisons and analyses need them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session
from tests.evaluation.run_setups import MODEL, make_definition, make_scenarios

from stemmadb.evaluation import runs, scores, transcripts
from stemmadb.evaluation.data import RunCreate, ScoreCreate, TranscriptCreate
from stemmadb.evaluation.documents import RunConfig, TranscriptContent, TranscriptMetrics, Turn
from stemmadb.evaluation.vocabularies import AnnotatorKind
from stemmadb.query import RowStatement
from stemmadb.tenancy import workspace_of

Cell = tuple[int, str, int]
"""The number of the scenario, the model, the sample."""


def judgement(value: float | None = None, *, name: str = "overall", annotator: str = "exact-match", **fields: Any) -> ScoreCreate:
    """Return what a rule says, unless another kind of annotator is given."""
    return ScoreCreate(**{"annotator_kind": AnnotatorKind.RULE, "annotator": annotator, "name": name, "value": value} | fields)


class Bench:
    """A definition with scenarios, and runs of it whose transcripts have scores."""

    def __init__(self, session: Session, scenario_count: int, name: str = "Trolley") -> None:
        self.session = session
        self.definition = make_definition(session, name)
        self.scenarios = make_scenarios(session, self.definition.id, scenario_count)
        self.cells: dict[UUID, dict[Cell, UUID]] = {}
        """The transcripts of each run."""

    def run(self, values: Sequence[float | None] | Mapping[Cell, float | None], *, metric: bool = False, **fields: Any) -> UUID:
        """Return a run with a transcript for each value, and a score unless it is None; or the value as a metric of the transcript."""
        given = values if isinstance(values, Mapping) else {(number, MODEL, 0): value for number, value in enumerate(values)}
        models = tuple(sorted({model for _, model, _ in given})) or (MODEL,)
        run = runs.create(self.session, RunCreate(definition_id=self.definition.id, config=RunConfig(models=models), **fields))
        items = [
            TranscriptCreate(
                model=model,
                scenario_id=self.scenarios[number].id,
                sample_index=sample,
                content=TranscriptContent(turns=(Turn(role="assistant", content="Yes."),)),
                metrics=TranscriptMetrics(values={"overall": value}) if metric and value is not None else None,
            )
            for (number, model, sample), value in given.items()
        ]
        ids = transcripts.add_many(self.session, run.id, items).ids
        self.cells[run.id] = dict(zip(given, ids, strict=True))
        if not metric:
            self.judge(
                (transcript_id, judgement(value)) for transcript_id, value in zip(ids, given.values(), strict=True) if value is not None
            )
        return run.id

    def judge(self, items: Iterable[tuple[UUID, ScoreCreate]]) -> None:
        """Record judgements."""
        scores.record_many(self.session, list(items))

    def transcript(self, run_id: UUID, number: int = 0, model: str = MODEL, sample: int = 0) -> UUID:
        """Return the transcript of a cell."""
        return self.cells[run_id][number, model, sample]


def most_discarded(session: Session, statement: RowStatement, **values: Any) -> int:
    """Run a statement, and return how many pairs of rows the worst of its joins looked at only to throw them away."""
    explain = text(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement.text.text}")
    (plan,) = session.execute(explain, {"workspace_id": workspace_of(session), **values}).scalar_one()
    pending, most = [plan["Plan"]], 0
    while pending:
        node = pending.pop()
        most = max(most, node.get("Rows Removed by Join Filter", 0) * node["Actual Loops"])
        pending += node.get("Plans", ())
    return int(most)
