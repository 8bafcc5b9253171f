"""The tables of the pack ``evaluation``, all of them tenant-scoped."""

from stemmadb.evaluation.entities.analyses import AnalysisResult, Cohort, Rubric, RunComparison, Score
from stemmadb.evaluation.entities.definitions import Definition, DefinitionLabel, Scenario
from stemmadb.evaluation.entities.experiments import Experiment, ExperimentAmendment
from stemmadb.evaluation.entities.runs import Run, RunScenarioSelection, RunSlot, Transcript
from stemmadb.evaluation.vocabularies import AnnotatorKind, ExperimentStatus, RunStatus, SlotStatus

__all__ = [
    "Definition",
    "DefinitionLabel",
    "Scenario",
    "Experiment",
    "ExperimentAmendment",
    "Run",
    "RunScenarioSelection",
    "RunSlot",
    "Transcript",
    "Rubric",
    "Score",
    "RunComparison",
    "Cohort",
    "AnalysisResult",
    "RunStatus",
    "SlotStatus",
    "ExperimentStatus",
    "AnnotatorKind",
]
