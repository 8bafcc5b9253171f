"""
What a statement sends is made by a thread while the database executes the statement before.

The thread begins when that statement is with the server: one that makes rows keeps the interpreter for 5 ms at a time, and whoever sends
asks for it with every 200 kB, so that the server would wait for its rows as long as it takes to make others.
"""

import functools
import itertools
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from sqlalchemy.orm import Session

from stemmadb import tenancy
from stemmadb._driver import telling

S = TypeVar("S")
T = TypeVar("T")

_PARTS: Final = (100, 400)
"""Where the first of several groups is divided."""
_ROWS_IN_A_ROW: Final = 8
_PAUSE_S: Final = 2e-5


def made_ahead(session: Session, groups: Iterator[Sequence[S]], make: Callable[[Sequence[S]], T]) -> Generator[T, None, None]:
    """
    Yield what is made of groups of rows, in their order; each is made while the caller's statement for the one before is executed.

    The groups are asked for by the caller's thread, one ahead, between its statements. A single one is made by it as well; of several the
    first is divided, so that the database has something to do soon.
    """
    parts = _begun_small(groups)
    part, following = next(parts, None), next(parts, None)
    if part is None:
        return
    if following is None:
        yield make(part)
        return
    with ThreadPoolExecutor(1, "stemmadb-rows") as thread:
        making = thread.submit(make, part)
        while following is not None:
            made = making.result()
            begin = threading.Event()
            making = thread.submit(_after, begin, functools.partial(make, following))
            try:
                with telling(tenancy.connection_of(session), begin.set):
                    yield made
            finally:
                begin.set()
            following = next(parts, None)
        yield making.result()


def _begun_small(groups: Iterator[Sequence[S]]) -> Iterator[Sequence[S]]:
    group, following = next(groups, None), next(groups, None)
    if group is None:
        return
    if following is None:
        yield group
        return
    # While a part is stored, one that is three times as long can be made.
    yield from filter(None, (group[start:end] for start, end in itertools.pairwise((0, *_PARTS, len(group)))))
    yield following
    yield from groups


def _after(begin: threading.Event, make: Callable[[], T]) -> T:
    begin.wait()
    return make()


def give_way(number: int) -> None:
    """Let other threads go on, every few rows: an event loop, or the caller's that has the answer to its statement."""
    if number % _ROWS_IN_A_ROW == 0:
        time.sleep(_PAUSE_S)
