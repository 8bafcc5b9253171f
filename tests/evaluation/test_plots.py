"""What is drawn of comparisons and of runs: places, intervals, markers and words, not pixels."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sqlalchemy.orm import Session
from tests.evaluation.judged_runs import Bench
from tests.shown_tables import NASTY, Tags

from stemmadb._display import printable
from stemmadb.errors import MissingDependencyError
from stemmadb.evaluation import comparisons, plots, runs, scores
from stemmadb.evaluation.data import PairedStatistics, ScoreSummary, Verdict
from stemmadb.evaluation.documents import AnalysisPlan, RunConfig
from stemmadb.evaluation.entities import Run, RunSlot
from stemmadb.evaluation.vocabularies import SlotStatus

START = datetime(2026, 1, 2, 3, tzinfo=UTC)
FOUND = PairedStatistics(
    test="paired_t",
    n=9,
    baseline=1.0,
    comparison=3.0,
    difference=2.0,
    standard_error=0.5,
    clustered_error=None,
    low=1.0,
    high=3.0,
    p_value=0.01,
    p_adjusted=0.02,
    cohens_d=1.0,
    rank_biserial=1.0,
    wins=9,
    losses=0,
    ties=0,
    verdict=Verdict.HIGHER,
)
TIED = replace(FOUND, difference=-0.5, low=-1.5, high=0.5, p_adjusted=0.4, verdict=Verdict.TIED)
LOWER = replace(FOUND, difference=-2.0, low=-3.0, high=-1.0, verdict=Verdict.LOWER)
EMPTY = replace(FOUND, n=0, difference=None, low=None, high=None, p_adjusted=None, verdict=Verdict.UNTESTED, reason="no pairs")


def intervals_of(ax: Axes) -> list[list[list[float]]]:
    """The ends of each interval that was drawn, in the order of drawing."""
    return [np.asarray(segment).tolist() for bars in ax.collections for segment in bars.get_segments()]  # type: ignore[attr-defined]


def points_of(ax: Axes) -> dict[str, list[list[float]]]:
    """The points of each line, by its label."""
    return {str(line.get_label()): np.asarray(line.get_xydata()).tolist() for line in ax.get_lines()}


def legend_of(ax: Axes) -> list[str]:
    """The lines that the legend names."""
    legend = ax.get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


def run_of(number: int, name: str | None = None) -> Run:
    """A run that started a day after the one before."""
    at = START + timedelta(days=number)
    return Run(id=UUID(int=number), definition_id=UUID(int=0), config=RunConfig(models=("m",)), name=name, started_at=at)


def summary(model: str, mean: float | None, scenario_id: UUID | None = None) -> ScoreSummary:
    """Means with intervals of 0.1 to either side."""
    ends = (None, None) if mean is None else (mean - 0.1, mean + 0.1)
    return ScoreSummary(model, 5, mean, 0.05, *ends, nan=0, missing=0, scenario_id=scenario_id)


def slots_of(run: Run, ended_after: Sequence[float | None], status: SlotStatus = SlotStatus.COMPLETED) -> list[RunSlot]:
    """Slots of a run that ended so many seconds after its start; None has not."""
    assert run.started_at is not None
    return [
        RunSlot(run_id=run.id, scenario_id=UUID(int=place), model="m", status=SlotStatus.QUEUED)
        if after is None
        else RunSlot(
            run_id=run.id,
            scenario_id=UUID(int=place),
            model="m",
            status=status,
            error_code="E" if status == SlotStatus.FAILED else None,
            finished_at=run.started_at + timedelta(seconds=after),
        )
        for place, after in enumerate(ended_after)
    ]


# ------------------------------------------------------------------------------------------------------------------ forests


@pytest.mark.offline
def test_a_forest() -> None:
    """Each effect at its height with its interval, the verdict in its marker and in words; what was not tested has no marker."""
    ax = plots.forest({"right": FOUND, "polite": TIED, NASTY: LOWER, "_none": EMPTY})
    assert intervals_of(ax) == [[[1.0, 0.0], [3.0, 0.0]], [[-1.5, 1.0], [0.5, 1.0]], [[-3.0, 2.0], [-1.0, 2.0]]]
    points = points_of(ax)
    assert {name: points[name] for name in ("higher", "tied", "lower")} == {"higher": [[2, 0]], "tied": [[-0.5, 1]], "lower": [[-2, 2]]}
    markers = {line.get_label(): (line.get_marker(), line.get_fillstyle()) for line in ax.get_lines()[1:]}
    assert markers == {"higher": (">", "full"), "lower": ("<", "full"), "tied": ("o", "none")}
    assert [label.get_text() for label in ax.get_yticklabels()] == ["right", "polite", printable(NASTY), " _none"]
    assert [text.get_text() for text in ax.texts] == [
        "+2 (+1 to +3), higher, p 0.02",
        "-0.5 (-1.5 to +0.5), tied, p 0.4",
        "-2 (-3 to -1), lower, p 0.02",
        "untested: no pairs",
    ]
    low, high = ax.get_ylim()
    assert low > 3 > 0 > high, "the first effect is on top"
    assert ax.get_lines()[0].get_xdata() == [0.0, 0.0]


@pytest.mark.offline
def test_a_forest_ends() -> None:
    """After 100 effects, with their number; without any it is empty."""
    ax = plots.forest({f"metric {number}": TIED for number in range(1234)})
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels[-2:] == ["metric 99", "… and 1,134 more"]
    assert len(ax.texts) == 100
    assert intervals_of(plots.forest({})) == []


def test_a_forest_of_a_matrix(session: Session) -> None:
    """What pairwise returned is drawn as it is, and says what the plan found."""
    bench = Bench(session, 4)
    ids = [bench.run(values) for values in ([0, 0, 0, 0], [0, 1, 0, 0], [1, 2, 1, 2])]
    cells = comparisons.pairwise(session, ids, plan=AnalysisPlan(test="paired_t", alpha=0.05))
    ax = plots.forest(cells)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["run 2 - run 1", "run 3 - run 1", "run 3 - run 2"]
    assert intervals_of(ax) == [[[cell.statistics.low, place], [cell.statistics.high, place]] for place, cell in enumerate(cells)]
    assert points_of(ax)["higher"] == [[cells[place].statistics.difference, place] for place in (1, 2)]


# -------------------------------------------------------------------------------------------------------------------- runs


@pytest.mark.offline
def test_a_trend() -> None:
    """Runs in the order in which they started; a line for each model, with a gap where a mean is missing."""
    first, second, third = run_of(1, "first"), run_of(2), run_of(3, NASTY)
    given = {
        third: [summary("small", 0.9), summary("$large$", 0.8)],
        first: [summary("small", 0.1)],
        second: [summary("small", None), summary("$large$", 0.5)],
    }
    ax = plots.trend(given)
    points = points_of(ax)
    assert list(points) == ["small", "$large$"]
    assert [y for _, y in points["small"]] == [0.1, pytest.approx(np.nan, nan_ok=True), 0.9]
    assert [round(x) for x, _ in points["small"]] == [0, 1, 2]
    assert points["small"][0][0] < points["$large$"][0][0], "models stand beside each other"
    ends = [(low[1], high[1]) for low, high in intervals_of(ax)]
    assert ends == [pytest.approx(end) for end in [(0.0, 0.2), (0.8, 1.0), (0.4, 0.6), (0.7, 0.9)]]
    assert legend_of(ax) == ["small", "$large$"]
    assert len({(line.get_linestyle(), line.get_marker()) for line in ax.get_lines()}) == 2, "not by colour alone"
    assert [label.get_text() for label in ax.get_xticklabels()] == ["first", "…00000002", printable(NASTY)]


@pytest.mark.offline
def test_a_trend_ends() -> None:
    """After the newest 100 runs and 12 lines; axis and legend say so. Without runs it is empty."""
    ax = plots.trend({run_of(number): [summary(f"model {each}", 0.5) for each in range(15)] for number in range(1, 121)})
    assert ax.get_xlabel() == "runs, oldest first; 20 older ones are left out"
    legend = ax.get_legend()
    assert legend is not None
    assert legend.get_title().get_text() == "… and 3 more"
    assert len(ax.get_lines()) == 12
    assert len(ax.get_xticklabels()) <= 12
    assert points_of(plots.trend({})) == {}
    by_scenario = plots.trend({run_of(1): [summary("m", 0.5, UUID(int=7))]})
    assert legend_of(by_scenario) == ["m, scenario …00000007"]


@pytest.mark.offline
def test_progress() -> None:
    """The share of slots that ended, in steps, over the time since the start; the legend counts what failed."""
    run, other = run_of(1, "first"), run_of(2, NASTY)
    ax = plots.progress({run: slots_of(run, [240, 60, None, 120]), other: slots_of(other, [30, 60], SlotStatus.FAILED)})
    points = list(points_of(ax).values())
    assert points == [[[0, 0], [1, 25], [2, 50], [4, 75]], [[0, 0], [0.5, 50], [1, 100]]]
    assert [line.get_drawstyle() for line in ax.get_lines()] == ["steps-post", "steps-post"]
    assert ax.get_xlabel() == "minutes since the run started"
    assert legend_of(ax)[0] == "first: 3 of 4 completed"
    many = plots.progress({run_of(number): [] for number in range(1, 15)})
    legend = many.get_legend()
    assert legend is not None
    assert legend.get_title().get_text() == "… and 2 more"


def test_runs_of_a_database(session: Session) -> None:
    """Summaries and slots come as the functions return them."""
    bench = Bench(session, 3)
    given = {runs.get(session, bench.run(values)): values for values in ([0, 1, 0], [1, 1, 0])}
    ax = plots.trend({run: scores.summarize(session, run.id, name="overall") for run in given})
    assert [y for _, y in next(iter(points_of(ax).values()))] == pytest.approx([1 / 3, 2 / 3])
    planned = runs.create(session, runs.RunCreate(definition_id=bench.definition.id, config=RunConfig(models=("m",))))
    runs.plan_slots(session, planned.id, scenario_ids=[each.id for each in bench.scenarios])
    slots = runs.list_slots(session, planned.id)
    assert legend_of(plots.progress({planned: slots})) == [f"…{str(planned.id)[-8:]}: 0 of 3 completed"]


# ------------------------------------------------------------------------------------------------------------------ figures


@pytest.mark.offline
def test_notebooks_show_a_picture_and_its_words() -> None:
    """A PNG, and beside it a text that says the same, whatever names say."""
    ax = plots.forest({NASTY: FOUND, "\\frac{$": TIED})
    found = Tags(ax._repr_html_())  # type: ignore[attr-defined]
    assert found.tags == ["img"]
    assert found.attributes[0]["alt"] == (
        f"Differences between runs. {printable(NASTY)}: +2 (+1 to +3), higher, p 0.02; \\frac{{$: -0.5 (-1.5 to +0.5), tied, p 0.4"
    )
    source = str(found.attributes[0]["src"])
    assert source.startswith("data:image/png;base64,")
    assert len(source) < 200_000


@pytest.mark.offline
def test_axes_of_the_caller() -> None:
    """What is given is drawn on and returned."""
    ax = Figure().subplots()
    assert plots.forest({"right": FOUND}, ax=ax) is ax
    assert len(intervals_of(ax)) == 1
    assert plots.trend({}, ax=ax) is ax
    assert plots.progress({}, ax=ax) is ax


_APART = """
import sys
from stemmadb.errors import MissingDependencyError
from stemmadb.evaluation import plots
assert "matplotlib" not in sys.modules
sys.modules["matplotlib"] = None
try:
    plots.forest({})
except MissingDependencyError as error:
    print(error)
del sys.modules["matplotlib"]
plots.forest({})._repr_html_()
assert "matplotlib.pyplot" not in sys.modules
"""


@pytest.mark.offline
def test_matplotlib_is_imported_when_something_is_drawn() -> None:
    """Not before, and without pyplot, whose state and windows are the process's. Where it is missing, one line names the extra."""
    ran = subprocess.run([sys.executable, "-c", _APART], capture_output=True, text=True, check=True)
    assert ran.stdout == f"{MissingDependencyError('notebook')}\n"
