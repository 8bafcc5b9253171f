"""What the functions about cohorts, experiments and comparisons take and give. Import it from ``stemmadb.evaluation.data``."""

from dataclasses import dataclass
from typing import ClassVar, Self, TypeVar

from pydantic import Field, model_validator

from stemmadb.data import DataObject
from stemmadb.entity import Id
from stemmadb.evaluation._data_types import Text, Word
from stemmadb.evaluation.documents import AnalysisPlan, CohortCriteria
from stemmadb.evaluation.entities import Experiment, Run
from stemmadb.evaluation.vocabularies import ExperimentStatus

D = TypeVar("D", bound=DataObject)


class CohortCreate(DataObject):
    """A new cohort."""

    noun: ClassVar[str] = "Cohort"

    name: Word
    description: Text | None = None
    criteria: CohortCriteria = Field(default_factory=CohortCriteria)
    """Without any: every transcript of the workspace."""
    created_by_id: Id | None = None


class CohortUpdate(DataObject):
    """What an update changes; an absent field is unchanged."""

    noun: ClassVar[str] = "Cohort"

    name: Word | None = None
    description: Text | None = None
    """None removes it."""
    criteria: CohortCriteria | None = None

    @model_validator(mode="after")
    def _required_stays(self) -> Self:
        return required_stays(self, "name", "criteria")


class ExperimentCreate(DataObject):
    """A new experiment, in status DRAFT."""

    noun: ClassVar[str] = "Experiment"

    name: Word
    hypothesis: Text | None = None
    null_hypothesis: Text | None = None
    description: Text | None = None
    analysis_plan: AnalysisPlan | None = None
    """How its runs will be compared. Frozen by the first run that starts."""
    created_by_id: Id | None = None


class ExperimentUpdate(DataObject):
    """What an update changes; an absent field is unchanged, and None removes what may be absent."""

    noun: ClassVar[str] = "Experiment"

    name: Word | None = None
    hypothesis: Text | None = None
    null_hypothesis: Text | None = None
    description: Text | None = None
    analysis_plan: AnalysisPlan | None = None
    status: ExperimentStatus | None = None
    """DRAFT or ACTIVE; ``experiments.conclude`` and ``experiments.archive`` do the rest."""

    @model_validator(mode="after")
    def _required_stays(self) -> Self:
        if self.status in (ExperimentStatus.COMPLETED, ExperimentStatus.ARCHIVED):
            message = "status is DRAFT or ACTIVE here: conclude and archive do the rest"
            raise ValueError(message)
        return required_stays(self, "name", "status")


@dataclass(frozen=True, slots=True)
class ExperimentWithRuns:
    """An experiment and its runs, newest first."""

    experiment: Experiment
    runs: list[Run]


def required_stays(data: D, *names: str) -> D:
    """Refuse None for a field that cannot be removed."""
    for name in names:
        if name in data.model_fields_set and getattr(data, name) is None:
            message = f"{name} cannot be removed"
            raise ValueError(message)
    return data
