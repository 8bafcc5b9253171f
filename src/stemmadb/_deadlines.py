"""A moment after which nobody waits any longer: neither for a free connection nor for a server that does not answer."""

import asyncio
import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar

from sqlalchemy.util.concurrency import in_greenlet

from stemmadb.errors import QueryTimeoutError

# The server ends a statement at the same moment by itself, which leaves the connection usable: it goes first.
_GRACE_S = 0.1


class Deadline:
    """
    Cuts the connections that are used under it when the time is over.

    A server that went away without a word answers nothing, not even a cancellation, and keep-alives take minutes to notice. A socket
    that is shut down from here ends the wait at once, in a thread and in an event loop.
    """

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] | None = []
        self.is_over = False
        self._timer = _call_later(seconds + _GRACE_S, self._cut)

    @property
    def left_s(self) -> float:
        """Seconds until the end; 0 when it has passed."""
        return max(0.0, self.end - time.monotonic())

    @property
    def left_ms(self) -> int:
        """Whole milliseconds until the end, at least 1, as PostgreSQL takes a timeout."""
        return min(max(1, int(self.left_s * 1000)), 2**31 - 1)

    def check(self) -> None:
        """
        Begin nothing when the time is over.

        Raises:
            QueryTimeoutError: it is; the kind is "deadline".
        """
        if time.monotonic() >= self.end:
            raise QueryTimeoutError("deadline")

    def watch(self, fileno: int) -> None:
        """Cut this socket as well, at once when the time is over."""
        if self.is_over:
            return
        # A duplicate: the number may belong to another connection by then.
        duplicate = socket.socket(fileno=os.dup(fileno))
        with self._lock:
            if self._sockets is not None:
                self._sockets.append(duplicate)
                return
        _shut(duplicate)

    def close(self) -> None:
        """Leave the connections alone from now on."""
        self.is_over = True
        self._timer.cancel()
        with self._lock:
            watched, self._sockets = self._sockets or [], []
        for one in watched:
            one.close()

    def _cut(self) -> None:
        with self._lock:
            watched, self._sockets = self._sockets or [], None
        for one in watched:
            _shut(one)


def _call_later(seconds: float, fn: Callable[[], None]) -> asyncio.TimerHandle | threading.Timer:
    if in_greenlet():
        # An async session: its loop runs while it waits, and a thread for each of a thousand tasks would be too many.
        return asyncio.get_running_loop().call_later(seconds, fn)
    timer = threading.Timer(seconds, fn)
    timer.daemon = True
    timer.start()
    return timer


def _shut(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()


_current: ContextVar[Deadline | None] = ContextVar("stemmadb_deadline", default=None)


def current() -> Deadline | None:
    """Return the deadline that holds here, or None. A task that outlives the block which it was started in has none."""
    deadline = _current.get()
    return None if deadline is None or deadline.is_over else deadline


@contextlib.contextmanager
def within(seconds: float | None) -> Iterator[Deadline | None]:
    """
    Let a deadline hold inside the block, for whatever is opened there; the outer one, when it comes first.

    Args:
        seconds: from now; None leaves the outer one, if there is one.
    """
    outer = current()
    if seconds is None or (outer is not None and outer.left_s <= seconds):
        yield outer
        return
    deadline = Deadline(seconds)
    token = _current.set(deadline)
    try:
        yield deadline
    finally:
        _current.reset(token)
        deadline.close()
