"""One of a kind for each event loop: what waits in a pool of connections belongs to the loop that it waits in."""

import asyncio
import threading
import weakref
from asyncio import AbstractEventLoop
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class PerLoop(Generic[T]):
    """
    Makes a thing for the loop that runs, on first use.

    Args:
        make: makes one.
        close: ends one whose loop is over; it runs outside of that loop.
    """

    def __init__(self, make: Callable[[], T], close: Callable[[T], None]) -> None:
        self._make = make
        self._close = close
        self._lock = threading.Lock()
        self._made: list[tuple[weakref.ref[AbstractEventLoop] | None, T]] = []

    def get(self) -> T:
        """Return the one of the running loop. What was made outside of any loop becomes that of the first loop that asks."""
        loop = _running()
        for owner, thing in self._made:
            if loop is not None and owner is not None and owner() is loop:
                return thing
        with self._lock:
            self._drop_ended()
            free = next((place for place, (owner, _) in enumerate(self._made) if owner is None), None)
            if loop is None and self._made:
                return self._made[-1 if free is None else free][1]
            owner = None if loop is None else weakref.ref(loop)
            if free is not None:
                self._made[free] = owner, self._made[free][1]
                return self._made[free][1]
            self._made.append((owner, self._make()))
            return self._made[-1][1]

    def all(self) -> list[T]:
        """Return those that were made and not ended."""
        return [thing for _, thing in self._made]

    def after_fork(self) -> None:
        """Start anew with the lock, which another thread of the parent may have held."""
        self._lock = threading.Lock()

    def _drop_ended(self) -> None:
        kept = []
        for owner, thing in self._made:
            loop = None if owner is None else owner()
            if owner is None or (loop is not None and not loop.is_closed()):
                kept.append((owner, thing))
            else:
                self._close(thing)
        self._made = kept


def _running() -> AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
