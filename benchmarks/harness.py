"""
How contenders are timed: in turns, many short batches each, so that whatever else the machine does meets all of them alike.

The order of the contenders changes with every round. A round counts as the fastest tenth of its calls: where other programs want the
cores too, a call waits for its turn as soon as it is longer than a time slice, and the median says how busy the machine is. A ratio is the
median, over the rounds, of what a contender took to what the floor took in the same round; absolute times are medians of rounds. Round
trips are exact: libpq's own trace of a connection says how often the server reported that it is ready.
"""

from __future__ import annotations

import contextlib
import gc
import random
import statistics
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from typing import Any

import psycopg
from sqlalchemy import Pool, event

Call = Callable[[int], Any]
"""Does the work once. The argument counts the calls, so that every contender comes by the same rows in the same order."""

FLOOR = "raw psycopg"
OURS = "stemmadb"
SQLMODEL = "SQLModel"
ALCHEMY = "advanced-alchemy"
PYRMUTE = "pyrmute"
DJANGO = "Django"
PEERS = (SQLMODEL, ALCHEMY, DJANGO)


@dataclass(frozen=True)
class Contender:
    """One way to do the work of a case."""

    name: str
    open: Callable[[], AbstractContextManager[Call]]
    """Makes it ready, a session for example, and cleans up afterwards: neither is timed."""


@dataclass
class Case:
    """Work on one data set, and those who do it."""

    job: str
    title: str
    rows: int
    contenders: list[Contender]
    """The floor is the first."""
    outcome: Callable[[Any], Any]
    """Turns what any of them returns into something that is equal for all."""
    most_calls: int = 200
    """The most calls in a batch; with 1 each call is opened for itself."""
    most_rounds: int | None = None
    """The most rounds, for work that takes seconds."""
    is_long: bool = False
    """Work of many seconds: nobody does it but for the clock, and its messages are not traced."""
    after: Callable[[], None] | None = None
    """Called when all is measured."""


@dataclass
class Measurement:
    """What a contender took. Times in microseconds a call."""

    job: str
    case: str
    rows: int
    contender: str
    round_trips: float | None
    """For each call, once statements are prepared. None: nothing is sent."""
    wall_us: float = 0.0
    spread: float = 0.0
    """Half of the rounds lie within so much of the median, as a share of it: the quartiles' distance."""
    cpu_us: float = 0.0
    """Of this process."""
    p95_us: float = 0.0
    """Of single calls."""
    ratio: float = 1.0
    """Wall time to the floor's, paired by round."""
    cpu_ratio: float = 1.0
    samples: int = 0
    rounds_us: list[float] = field(default_factory=list, repr=False)

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the rounds themselves."""
        return {name: value for name, value in asdict(self).items() if name != "rounds_us"}


@dataclass(frozen=True)
class Effort:
    """How long to measure."""

    rounds: int = 25
    batch_s: float = 0.03
    """A batch has as many calls as fit."""
    least_calls: int = 5
    """But so many at least."""


ONCE = Effort(rounds=1, batch_s=0.0, least_calls=1)
"""Every contender does its work, and nobody looks at the clock: for tests."""


def measure(cases: Sequence[Case], effort: Effort) -> list[Measurement]:
    """
    Time all contenders of the same work on data sets of different sizes.

    Raises:
        AssertionError: a contender does not come to the result of the floor.
    """
    lanes = [_Lane(case, contender) for case in cases for contender in case.contenders]
    for case in cases:
        if not case.is_long:
            _compare(case)
    for lane in lanes:
        if not lane.case.is_long:
            lane.warm_up(effort)
    gc.collect()
    gc.freeze()
    try:
        shuffled = random.Random(1)
        for _ in range(min(effort.rounds, cases[0].most_rounds or effort.rounds)):
            for lane in shuffled.sample(lanes, len(lanes)):
                lane.run()
    finally:
        gc.unfreeze()
    for case in cases:
        if case.after is not None:
            case.after()
    for case in cases:
        found = {lane.outcome for lane in lanes if lane.case is case} if case.is_long else ()
        assert len(found) <= 1, f"{case.title}, {case.rows:,} rows: contenders come to different results"
    floors = {lane.case.rows: lane for lane in reversed(lanes)}
    return [lane.measurement(floors[lane.case.rows]) for lane in lanes]


def paired(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the median of the ratios of two series, round by round."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def _compare(case: Case) -> None:
    expected: list[Any] = []
    for contender in case.contenders:
        with contender.open() as call:
            found = [case.outcome(call(number)) for number in range(min(2, case.most_calls))]
        expected = expected or found
        floor = case.contenders[0].name
        assert found == expected, f"{case.title}, {case.rows:,} rows: {contender.name} does not come to the result of {floor}"


class _Lane:
    """A contender on one data set, and what it took so far."""

    def __init__(self, case: Case, contender: Contender) -> None:
        self.case = case
        self._contender = contender
        self._number = 2
        self._calls = 1
        self._wall: list[float] = []
        self._cpu: list[float] = []
        self._single: list[float] = []
        self._round_trips: float | None = None
        self.outcome: Any = None
        """What the last call came to, where nobody else asks."""

    def warm_up(self, effort: Effort) -> None:
        """Count the round trips, and how many calls make a batch."""
        if self.case.most_calls == 1:
            with self._contender.open() as call, counted_round_trips() as count:
                call(self._next())
            self._round_trips = count() or None
            return
        with self._contender.open() as call:
            took = min(self._timed(call, effort) for _ in range(4))
            with counted_round_trips() as count:
                call(self._next())
            self._round_trips = count() or None
        self._calls = min(self.case.most_calls, max(effort.least_calls, int(effort.batch_s / took)))

    def _timed(self, call: Call, effort: Effort) -> float:
        """Call until statements are prepared, or for a batch's time; return what the fastest call took."""
        took = []
        while len(took) < min(8, self.case.most_calls) and sum(took) <= effort.batch_s:
            started = time.perf_counter()
            call(self._next())
            took.append(time.perf_counter() - started)
        return min(took)

    def run(self) -> None:
        """Time one batch."""
        single = []
        clock = time.perf_counter
        with self._contender.open() as call:
            # What was made ready is not searched while it is worked with: 200,000 objects take the collector a second.
            gc.freeze()
            cpu = time.process_time()
            before = clock()
            for _ in range(self._calls):
                last = call(self._next())
                now = clock()
                single.append(now - before)
                before = now
            self._cpu.append((time.process_time() - cpu) / self._calls)
        if self.case.is_long:
            self.outcome = self.case.outcome(last)
        self._wall.append(sorted(single)[len(single) // 10])
        self._single += single

    def measurement(self, floor: _Lane) -> Measurement:
        """Return what it took, and how that compares."""
        quartiles = statistics.quantiles(self._wall, n=4) if len(self._wall) > 1 else self._wall * 3
        wall = statistics.median(self._wall)
        return Measurement(
            job=self.case.job,
            case=self.case.title,
            rows=self.case.rows,
            contender=self._contender.name,
            round_trips=self._round_trips,
            wall_us=wall * 1e6,
            spread=(quartiles[2] - quartiles[0]) / wall,
            cpu_us=statistics.median(self._cpu) * 1e6,
            p95_us=sorted(self._single)[int(len(self._single) * 0.95)] * 1e6,
            ratio=paired(self._wall, floor._wall),
            cpu_ratio=paired(self._cpu, floor._cpu),
            samples=len(self._single),
            rounds_us=[wall * 1e6 for wall in self._wall],
        )

    def _next(self) -> int:
        self._number += 1
        return self._number


# ------------------------------------------------------------------------------------------------------------- round trips

_connections: weakref.WeakSet[psycopg.Connection[Any]] = weakref.WeakSet()


def watch(connection: psycopg.Connection[Any]) -> None:
    """Count the round trips of a connection that no pool has made."""
    _connections.add(connection)


@event.listens_for(Pool, "connect")
def _watch_pooled(connection: Any, _record: object) -> None:
    if isinstance(connection, psycopg.Connection):
        _connections.add(connection)


@contextlib.contextmanager
def counted_round_trips() -> Iterator[Callable[[], int]]:
    """Count, inside the block, how often a server has reported to be ready, on every connection of this process that is open already."""
    found = 0
    with tempfile.TemporaryFile() as log:
        traced = [connection for connection in _connections if not connection.closed]
        for connection in traced:
            connection.pgconn.trace(log.fileno())
        try:
            yield lambda: found
        finally:
            for connection in traced:
                if not connection.closed:
                    connection.pgconn.untrace()
            log.seek(0)
            found = log.read().count(b"ReadyForQuery")
