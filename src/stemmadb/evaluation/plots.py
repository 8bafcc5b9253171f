"""
Plots of comparisons and of runs, drawn by matplotlib, which the extra ``notebook`` installs.

    cells = {name: comparisons.pairwise(session, [before.id, after.id], metric=name)[0] for name in ("right", "polite")}
    plots.forest(cells)
    plots.trend({run: scores.summarize(session, run.id, name="right") for run in runs.list_all(session)})
    plots.progress({run: runs.list_slots(session, run.id, limit=200)})

Each draws what it is given and reads nothing. Without ``ax`` a figure is made that notebooks show, with a text that says the same; pyplot
and its windows are not touched. ``ax.figure.savefig("forest.svg")`` stores it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from stemmadb._display import printable
from stemmadb.errors import MissingDependencyError
from stemmadb.evaluation._comparison_data import effect_said
from stemmadb.evaluation.data import PairedStatistics, PairwiseCell, ScoreSummary, Verdict
from stemmadb.evaluation.entities import Run, RunSlot
from stemmadb.evaluation.vocabularies import SlotStatus

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["forest", "trend", "progress"]

_MOST_ROWS: Final = 100
_MOST_LINES: Final = 12
_MOST_LETTERS: Final = 60
_TIED: Final = "0.5"
"""A grey that is seen on white and on black. The marker and the words say the same."""
_VERDICTS: Final = {
    Verdict.HIGHER: (">", "full", "C0"),
    Verdict.LOWER: ("<", "full", "C1"),
    Verdict.TIED: ("o", "none", _TIED),
    Verdict.UNTESTED: ("x", "full", _TIED),
}
_STYLES: Final = ("-", "--", "-.", ":")
_MARKERS: Final = ("o", "s", "^", "D", "v", "P")
_UNITS: Final = (("hours", 3600.0), ("minutes", 60.0), ("seconds", 1.0))
_NOWHERE: Final = float("nan")


def forest(effects: Mapping[str, PairedStatistics | PairwiseCell] | Sequence[PairwiseCell], *, ax: "Axes | None" = None) -> "Axes":
    """
    Draw differences of runs with their intervals, one below the other, and a line at zero.

    The verdict stands beside each, and its marker says it too: filled and pointing to the side of the higher run, hollow when tied, a cross
    when nothing was tested. After 100 rows it ends, and says how many there are more.

    Args:
        effects: by what each is called: metrics, kinds of scenarios, pairs of runs. They share an axis, so give what has one scale. What
            ``comparisons.pairwise`` returned can be given as it is: its runs are then called by their numbers.
        ax: where to draw; None makes a figure.

    Returns:
        The axes: the interval of the first effect at height 0, of the second at 1, and so on downwards.

    Raises:
        MissingDependencyError: ``ax`` is None, and the extra ``notebook`` is not installed.
    """
    named = effects if isinstance(effects, Mapping) else _numbered(effects)
    rows = [(_label(name), found.statistics if isinstance(found, PairwiseCell) else found) for name, found in named.items()]
    more = len(rows) - _MOST_ROWS
    del rows[_MOST_ROWS:]
    words = [effect_said(found) for _, found in rows]
    said = "; ".join(f"{name}: {text}" for (name, _), text in zip(rows, words, strict=True))
    ax = _axes(ax, 8.0, 1.4 + 0.34 * len(rows), f"Differences between runs. {said}")
    ax.axvline(0.0, color=_TIED, linestyle="--", linewidth=1.0)
    for place, (_, found) in enumerate(rows):
        if found.low is not None and found.high is not None:
            ax.hlines(place, found.low, found.high, colors=_VERDICTS[found.verdict][2], linewidth=1.8)
    for verdict, (marker, fill, color) in _VERDICTS.items():
        points = [(found.difference, place) for place, (_, found) in enumerate(rows) if found.verdict == verdict]
        drawn = [(x, y) for x, y in points if x is not None]
        if drawn:
            xs, ys = [x for x, _ in drawn], [y for _, y in drawn]
            ax.plot(xs, ys, marker=marker, fillstyle=fill, color=color, linestyle="none", markersize=8, label=str(verdict).lower())
    for place, text in enumerate(words):
        ax.text(1.02, place, text, transform=ax.get_yaxis_transform(), va="center", fontsize="small", parse_math=False, usetex=False)
    labels = [name for name, _ in rows] + ([f"… and {more:,} more"] if more > 0 else [])
    ax.set_yticks(range(len(labels)), labels, parse_math=False, usetex=False)
    ax.set_ylim(max(len(labels), 1) - 0.5, -0.5)
    ax.set_xlabel("difference from the baseline, with its interval")
    return ax


def trend(summaries: Mapping[Run, Sequence[ScoreSummary]], *, ax: "Axes | None" = None) -> "Axes":
    """
    Draw the means of a score run after run, with their 95 % intervals, a line for each model.

    Runs stand in the order in which they started, evenly spaced: they come in bursts. A mean that there is not leaves a gap. Of more than
    100 runs the newest are drawn, of more than 12 lines the first; axis and legend say so.

    Args:
        summaries: what ``scores.summarize`` returned for each run; those by scenario give a line for each model and scenario.
        ax: where to draw; None makes a figure.

    Returns:
        The axes: the first run around 0, the second around 1, and so on; models stand beside each other.

    Raises:
        MissingDependencyError: ``ax`` is None, and the extra ``notebook`` is not installed.
    """
    ordered = sorted(summaries, key=lambda run: (run.started_at or run.created_at, run.id))
    shown = ordered[-_MOST_ROWS:]
    lines: dict[str, dict[int, ScoreSummary]] = {}
    for place, run in enumerate(shown):
        for found in summaries[run]:
            name = found.model if found.scenario_id is None else f"{found.model}, scenario …{str(found.scenario_id)[-8:]}"
            lines.setdefault(name, {})[place] = found
    drawn = list(lines.items())[:_MOST_LINES]
    said = "; ".join(f"{name}: {_means_in_words(line, shown)}" for name, line in drawn)
    ax = _axes(ax, min(max(7.0, 3.0 + len(shown)), 14.0), 4.0, f"Means of runs. {said}")
    for number, (name, line) in enumerate(drawn):
        side = 0.05 * (number - (len(drawn) - 1) / 2)
        points = [line.get(place) for place in range(len(shown))]
        means = [_NOWHERE if found is None or found.mean is None else found.mean for found in points]
        places = [place + side for place in range(len(shown))]
        ax.plot(places, means, linestyle=_STYLES[number % 4], marker=_MARKERS[number % 6], color=f"C{number}", label=_label(name))
        bars = [
            (place, found.low, found.high)
            for place, found in zip(places, points, strict=True)
            if found is not None and found.low is not None and found.high is not None
        ]
        ax.vlines([place for place, _, _ in bars], [low for _, low, _ in bars], [high for _, _, high in bars], colors=f"C{number}")
    ticks = range(0, len(shown), max(1, -(-len(shown) // 12)))
    turned = 30.0 if len(shown) > 4 else 0.0
    ax.set_xticks(ticks, [_called(shown[place]) for place in ticks], rotation=turned, parse_math=False, usetex=False)
    ax.set_xlim(-0.5, max(len(shown), 1) - 0.5)
    older = len(ordered) - len(shown)
    ax.set_xlabel(f"runs, oldest first; {older:,} older ones are left out" if older else "runs, oldest first")
    ax.set_ylabel("mean, with its 95 % interval")
    _add_legend(ax, len(lines) - len(drawn))
    return ax


def progress(slots: Mapping[Run, Iterable[RunSlot]], *, ax: "Axes | None" = None) -> "Axes":
    """
    Draw how runs came along: the share of their slots that had ended, over the time since each started.

    The legend counts what was completed and what failed. Of more than 12 runs the first are drawn, and the legend says so.

    Args:
        slots: of each run all slots, in any order.
        ax: where to draw; None makes a figure.

    Returns:
        The axes: from 0 to 100 %, over hours, minutes or seconds.

    Raises:
        MissingDependencyError: ``ax`` is None, and the extra ``notebook`` is not installed.
    """
    drawn = [(run, list(given)) for run, given in list(slots.items())[:_MOST_LINES]]
    ends = [_seconds_to_ends(run, given) for run, given in drawn]
    longest = max((line[-1] for line in ends if line), default=0.0)
    unit, size = next(((unit, size) for unit, size in _UNITS if longest >= 2 * size), _UNITS[-1])
    names = [f"{_called(run)}: {_outcomes_in_words(given)}" for run, given in drawn]
    ax = _axes(ax, 9.0, 4.0, f"Progress of runs. {'; '.join(names)}")
    for number, ((_, given), line, name) in enumerate(zip(drawn, ends, names, strict=True)):
        shares = [100.0 * count / len(given) for count in range(len(line) + 1)] if given else [0.0]
        places = [0.0, *(seconds / size for seconds in line)]
        ax.plot(places, shares, linestyle=_STYLES[number % 4], color=f"C{number}", drawstyle="steps-post", label=_label(name))
    ax.set_ylim(0.0, 105.0)
    ax.set_xlabel(f"{unit} since the run started")
    ax.set_ylabel("slots that have ended, %")
    _add_legend(ax, len(slots) - len(drawn))
    return ax


# ------------------------------------------------------------------------------------------------------------------ in words


def _numbered(cells: Sequence[PairwiseCell]) -> dict[str, PairwiseCell]:
    """Return cells by the numbers that their runs have in the matrix of all of them."""
    runs = list(dict.fromkeys(run_id for cell in cells for run_id in (cell.baseline_run_id, cell.comparison_run_id)))
    return {f"run {runs.index(cell.comparison_run_id) + 1} - run {runs.index(cell.baseline_run_id) + 1}": cell for cell in cells}


def _means_in_words(line: Mapping[int, ScoreSummary], runs: Sequence[Run]) -> str:
    return ", ".join(f"{found.mean:.3g} in {_called(runs[place])}" for place, found in line.items() if found.mean is not None)


def _outcomes_in_words(slots: Sequence[RunSlot]) -> str:
    counts = Counter(slot.status for slot in slots)
    words = [f"{counts[SlotStatus.COMPLETED]} of {len(slots)} completed"]
    words += [f"{counts[status]} {status.lower()}" for status in (SlotStatus.FAILED, SlotStatus.SKIPPED) if counts[status]]
    return ", ".join(words)


def _seconds_to_ends(run: Run, slots: Sequence[RunSlot]) -> list[float]:
    """Return when slots ended, in seconds since the run started, in their order."""
    start = run.started_at or run.created_at
    return sorted(max(0.0, (slot.finished_at - start).total_seconds()) for slot in slots if slot.finished_at is not None)


def _called(run: Run) -> str:
    return _label(run.name) if run.name else f"…{str(run.id)[-8:]}"


def _label(text: str) -> str:
    """Return a text that fits beside axes. matplotlib keeps names that begin with an underscore out of legends."""
    line = printable(text)
    line = line if len(line) <= _MOST_LETTERS else f"{line[:_MOST_LETTERS]}…"
    return f" {line}" if line.startswith("_") else line


# --------------------------------------------------------------------------------------------------------------------- axes


def _axes(ax: "Axes | None", width: float, height: float, said: str) -> "Axes":
    """Return the axes given, or new ones of this size in inches; ``said`` is in words what is going to be drawn."""
    if ax is not None:
        return ax
    try:
        from stemmadb.evaluation._drawings import draw
    except ImportError:
        raise MissingDependencyError("notebook") from None
    return draw(width, height, said)


def _add_legend(ax: "Axes", more: int) -> None:
    """Name the lines, beside the axes so that it hides none of them; ``more`` is how many were left out."""
    if not ax.get_lines():
        return
    title = f"… and {more:,} more" if more > 0 else None
    legend = ax.legend(title=title, loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False)
    for text in legend.get_texts():
        # What names say is no formula.
        text.set_parse_math(False)
        text.set_usetex(False)
