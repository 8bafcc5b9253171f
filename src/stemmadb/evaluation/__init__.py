"""Evaluation: definitions and their versions, runs, transcripts, scores, and what is concluded from them."""

from stemmadb.evaluation import entities
from stemmadb.packs import Pack

__all__ = ["PACK"]

PACK = Pack(
    name="evaluation",
    branch="evaluation",
    requires=("accounts", "workspaces"),
    entities=(
        entities.Definition,
        entities.DefinitionLabel,
        entities.Scenario,
        entities.Experiment,
        entities.ExperimentAmendment,
        entities.Run,
        entities.RunScenarioSelection,
        entities.Transcript,
        entities.RunSlot,
        entities.Rubric,
        entities.Score,
        entities.RunComparison,
        entities.Cohort,
        entities.AnalysisResult,
    ),
    seeds=("stemmadb.evaluation.seed:SEEDS",),
    commands="stemmadb.evaluation.commands:register",
    checks=("stemmadb.evaluation._checks:CHECK",),
    factories="stemmadb.evaluation.factories:FACTORIES",
)
