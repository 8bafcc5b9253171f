"""What the functions about scores give. Import it from ``stemmadb.evaluation.data``."""

from dataclasses import dataclass
from uuid import UUID

from stemmadb._tables import items_html


@dataclass(frozen=True, slots=True)
class ScoreSummary:
    """What was judged of one model in one run, under one name. Each live transcript counts once."""

    model: str
    n: int
    """Transcripts with a number; the mean of their annotators' where there are several."""
    mean: float | None
    """None without a number."""
    standard_error: float | None
    """Of the mean, for independent transcripts; None with fewer than two."""
    low: float | None
    """Where the 95 % interval of the mean begins, by Student's t; None with fewer than two."""
    high: float | None
    nan: int
    """Transcripts that were judged, but without a number to reckon with: NaN, infinite, or beyond 1e100 in size."""
    missing: int
    """Transcripts without a value: no score of this name, or a label alone."""
    clustered_error: float | None = None
    """The standard error when transcripts of one scenario depend on each other; None with fewer than two scenarios."""
    scenario_id: UUID | None = None
    """The scenario, when summaries are by scenario."""


@dataclass(frozen=True, slots=True)
class AgreementPair:
    """How far two annotators agree, over the transcripts that both have judged."""

    a: str
    b: str
    n: int
    equal: float
    """Share of equal verdicts, 0 to 1."""
    kappa: float | None
    """Cohen's kappa; None where chance alone explains all, as when both always say the same."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far the annotators of a run agree."""

    pairs: list[AgreementPair]
    """By annotators; each is named ``KIND:annotator``."""
    alpha: float | None
    """Krippendorff's alpha for nominal verdicts, over all annotators; None without two differing verdicts to pair."""

    def _repr_html_(self) -> str:
        return items_html(self.pairs, caption=f"Krippendorff's alpha: {'none' if self.alpha is None else format(self.alpha, '.4g')}")
