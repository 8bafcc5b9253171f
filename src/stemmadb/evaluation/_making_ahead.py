"""
What a statement sends is made by a thread while the database executes the statement before.

The thread begins when that statement is with the server: one that makes rows keeps the interpreter for 5 ms at a time, and whoever sends
asks for it with every 200 kB, so that the server would wait for its rows as long as it takes to make others.
"""

import contextlib
import functools
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from sqlalchemy.orm import Session

from stemmadb import tenancy
from stemmadb._driver import telling

T = TypeVar("T")

_ROWS_IN_A_ROW: Final = 8
_PAUSE_S: Final = 2e-5


def made_ahead(session: Session, pieces: Iterator[Callable[[], T]]) -> Generator[T, None, None]:
    """
    Yield what the pieces make, in their order; each is made while the caller's statement for the one before is executed.

    The pieces are asked for by the caller's thread, one ahead, between its statements. A single one is made by it as well.
    """
    piece, following = next(pieces, None), next(pieces, None)
    if piece is None:
        return
    if following is None:
        yield piece()
        return
    with ThreadPoolExecutor(1, "stemmadb-rows") as thread:
        making = thread.submit(piece)
        while following is not None:
            made = making.result()
            begin = threading.Event()
            making = thread.submit(functools.partial(_after, begin, following))
            with contextlib.ExitStack() as sending:
                sending.callback(begin.set)
                sending.enter_context(telling(tenancy.connection_of(session), begin.set))
                yield made
            following = next(pieces, None)
        yield making.result()


def _after(begin: threading.Event, piece: Callable[[], T]) -> T:
    begin.wait()
    return piece()


def give_way(number: int) -> None:
    """Let other threads go on, every few rows: an event loop, or the caller's that has the answer to its statement."""
    if number % _ROWS_IN_A_ROW == 0:
        time.sleep(_PAUSE_S)
