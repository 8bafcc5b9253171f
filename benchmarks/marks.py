"""What the figures have to reach, and whether they do."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks.harness import OURS, PEERS, PYRMUTE, Measurement, paired

_COPY_SHARE = 2.0
"""Recording outcomes is at least half as fast as COPY."""
_VOLUME = {"adding": 1.1, "recording": 1.3}
"""Many transcripts, in times of a COPY into the same table."""
_FRAMES = 1.1
"""Plain columns, in times of ADBC by hand."""
_FRAMES_COPY = 2.0
"""Any transcripts, in times of a COPY whose bytes are thrown away."""
_ANCESTORS = 2.5
"""Ten levels of ancestors in an open session, in times of raw psycopg."""
_WORKSPACE = 1.15
"""Reading by key in a workspace, in times of the same without."""
_VERIFICATION_US = 200.0
"""Five thousand keys a second in one process."""
_GROWTH = 1.5
"""From the smallest to the largest table."""
_DEPTH = 2.0
"""Page 10,000 of the feed, in times of its first page."""
_ADDED_US = 1.0
"""A current document that is decoded already, over ``model_validate``."""
_STEP_US = 2.0
"""A step."""
_TEXT = 1.2
"""A current document as text, in times of pydantic's own ``model_validate_json``."""
_DOCUMENTS_IN_A_CALL = 50
_STEADY = (
    ("read", "by key, open session"),
    ("ancestry", "ancestors, 10 levels, open session"),
    ("page", "the first page of 50"),
    ("page", "the page in the middle"),
    ("feed", "the first page of 20"),
    ("feed", "page 10,000"),
)
_FIRST_PAGES = {"page 10,000": "the first page of 20", "page 10,000 of the most liked": "the first page of the most liked"}
# What users were promised in milliseconds, 95 of 100 times: (job, the start of the case, the sizes that count, the limit).
_WITHIN_MS = (
    ("read", "by key, open session", None, 10.0),
    ("page", "", None, 100.0),
    ("feed", "", None, 100.0),
    ("ancestry", "ancestors, 10 levels", 1_000, 100.0),
    ("ancestry", "what is below a root", 1_000, 100.0),
    ("ancestry", "nested tree", 1_000, 100.0),
)


@dataclass(frozen=True)
class Mark:
    """One thing to reach."""

    text: str
    value: float
    limit: float

    @property
    def reached(self) -> bool:
        """Whether the value is within the limit."""
        return self.value <= self.limit

    def __str__(self) -> str:
        return f"{'PASS' if self.reached else 'FAIL'}  {self.text}: {self.value:.2f} (at most {self.limit:g})"


def marks_of(measurements: Sequence[Measurement]) -> list[Mark]:
    """Return the marks that these measurements say something about."""
    return [
        *_ahead(measurements),
        *_floors(measurements),
        *_security(measurements),
        *_frames(measurements),
        *_documents(measurements),
        *_growth(measurements),
        *_depth(measurements),
        *_times(measurements),
    ]


def _ahead(measurements: Sequence[Measurement]) -> Iterator[Mark]:
    """Every job is ahead of the peers: for each the case that comes closest, since one mark for each case would hide the others."""
    for job in dict.fromkeys(one.job for one in measurements):
        for peer in PEERS:
            found = list(_against(peer, [one for one in measurements if one.job == job]))
            if found:
                ratio, case = max(found)
                yield Mark(f"{job}: time to that of {peer}, at worst ({case})", ratio, 1.0)


def _against(peer: str, measurements: Sequence[Measurement]) -> Iterator[tuple[float, str]]:
    places = {(one.case, one.rows, one.contender): one for one in measurements}
    for (case, rows, name), theirs in places.items():
        ours = places.get((case, rows, OURS))
        if name == peer and ours is not None:
            yield paired(ours.rounds_us, theirs.rounds_us), f"{case}, {rows:,} rows"


def _floors(measurements: Iterable[Measurement]) -> Iterator[Mark]:
    for one in measurements:
        if one.contender == OURS and (one.job, one.case) == ("ancestry", "ancestors, 10 levels, open session"):
            yield Mark(f"ancestry: {one.case}, {one.rows:,} rows, times raw psycopg", one.ratio, _ANCESTORS)
        if one.contender == OURS and one.job == "volume":
            yield Mark(f"volume: {one.case}, times a COPY of the same rows into the same tables", one.ratio, _VOLUME[one.case.split()[0]])
        if one.contender == OURS and one.job == "outcomes":
            yield Mark(f"outcomes: {one.case}, {one.rows:,} rows there, times a bare COPY", one.ratio, _COPY_SHARE)


def _frames(measurements: Sequence[Measurement]) -> Iterator[Mark]:
    """Nothing is lost against the driver, and at most half of the speed of COPY."""
    found = {(one.case, one.contender): one for one in measurements if one.job == "frames"}
    for (case, contender), one in found.items():
        if contender == OURS:
            if case.endswith("plain columns"):
                yield Mark(f"frames: {case}, times ADBC", one.ratio, _FRAMES)
            copied = next(other for (same, name), other in found.items() if same == case and name.startswith("COPY, "))
            yield Mark(f"frames: {case}, times COPY", paired(one.rounds_us, copied.rounds_us), _FRAMES_COPY)


def _documents(measurements: Sequence[Measurement]) -> Iterator[Mark]:
    """What reading adds to pydantic's own validation, for each document; and nobody who migrates documents too is faster."""
    found = [one for one in measurements if one.job == "documents"]
    for case in dict.fromkeys(one.case for one in found):
        floor, *others = (one for one in found if one.case == case)
        ours = next(one for one in others if one.contender == OURS)
        added = statistics.median(a - b for a, b in zip(ours.rounds_us, floor.rounds_us, strict=True)) / _DOCUMENTS_IN_A_CALL
        if case.endswith("decoded"):
            limit = _ADDED_US + (_STEP_US if case.startswith("one version old") else 0)
            yield Mark(f"documents: {case}, us more for each than {floor.contender}", added, limit)
        elif case.startswith("current"):
            yield Mark(f"documents: {case}, times {floor.contender}", ours.ratio, _TEXT)
        for peer in others:
            if peer.contender == PYRMUTE:
                yield Mark(f"documents: {case}, time to that of {PYRMUTE}", paired(ours.rounds_us, peer.rounds_us), 1.0)


def _security(measurements: Iterable[Measurement]) -> Iterator[Mark]:
    for one in measurements:
        if one.contender != OURS:
            continue
        if (one.job, one.case) == ("tenancy", "reading by key with the library"):
            yield Mark(f"tenancy: {one.case}, {one.rows:,} rows, times without a workspace", one.ratio, _WORKSPACE)
        if (one.job, one.case) == ("credentials", "verifying an API key"):
            yield Mark(f"credentials: {one.case}, microseconds", one.wall_us, _VERIFICATION_US)


def _growth(measurements: Iterable[Measurement]) -> Iterator[Mark]:
    ours = [one for one in measurements if one.contender == OURS]
    for job, case in _STEADY:
        found = sorted((one for one in ours if (one.job, one.case) == (job, case)), key=lambda one: one.rows)
        if len(found) > 1:
            small, large = found[0], found[-1]
            ratio = paired(large.rounds_us, small.rounds_us)
            yield Mark(f"{job}: {case}, {large.rows:,} rows, times the same at {small.rows:,}", ratio, _GROWTH)


def _depth(measurements: Iterable[Measurement]) -> Iterator[Mark]:
    ours = [one for one in measurements if one.contender == OURS and one.job == "feed"]
    found = {(one.case, one.rows): one for one in ours}
    for one in ours:
        shallow = found.get((_FIRST_PAGES.get(one.case, ""), one.rows))
        if shallow is not None:
            # Measured one after the other, so it is the medians that are compared.
            ratio = statistics.median(one.rounds_us) / statistics.median(shallow.rounds_us)
            yield Mark(f"feed: {one.case}, {one.rows:,} rows, times the first page", ratio, _DEPTH)


def _times(measurements: Iterable[Measurement]) -> Iterator[Mark]:
    ours = [one for one in measurements if one.contender == OURS]
    for job, start, rows, limit in _WITHIN_MS:
        found = [one for one in ours if one.job == job and one.case.startswith(start) and rows in (None, one.rows)]
        if found:
            slowest = max(found, key=lambda one: one.p95_us)
            yield Mark(f"{job}: {slowest.case}, {slowest.rows:,} rows, p95 in ms", slowest.p95_us / 1000, limit)
