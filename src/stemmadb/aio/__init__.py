"""
Async twins: the same function names and parameters, for an AsyncSession.

A twin runs the synchronous function through SQLAlchemy's greenlet on the async driver: one implementation, checked by the type checkers.
"""

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.util.concurrency import await_only, greenlet_spawn, in_greenlet

__all__ = ["in_thread", "twin", "twin_iter"]

P = ParamSpec("P")
R = TypeVar("R")

_BATCH = 500
_spawn = cast("Callable[..., Awaitable[Any]]", greenlet_spawn)


def twin(fn: Callable[Concatenate[Session, P], R], /) -> Callable[Concatenate[AsyncSession, P], Coroutine[Any, Any, R]]:
    """Return the async twin of a function whose first parameter is a Session."""

    @functools.wraps(fn)
    async def call(session: AsyncSession, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await session.run_sync(fn, *args, **kwargs)

    call.__stemma_twin__ = fn  # type: ignore[attr-defined]
    return call


def twin_iter(fn: Callable[Concatenate[Session, P], Iterator[R]], /) -> Callable[Concatenate[AsyncSession, P], AsyncIterator[R]]:
    """
    Return the async twin of a function that yields rows.

    It crosses over once per batch: row by row took 13 times as long.
    """

    @functools.wraps(fn)
    async def call(session: AsyncSession, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[R]:
        # The call itself crosses over too: a host's session may have to look its workspace up.
        rows = await session.run_sync(fn, *args, **kwargs)

        def batch() -> list[R]:
            taken: list[R] = []
            for row in rows:
                taken.append(row)
                if len(taken) == _BATCH:
                    break
            return taken

        try:
            while taken := cast("list[R]", await _spawn(batch)):
                for row in taken:
                    yield row
        finally:
            if (close := getattr(rows, "close", None)) is not None:
                await _spawn(close)

    call.__stemma_twin__ = fn  # type: ignore[attr-defined]
    return call


def in_thread(fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """
    Call a function that keeps a processor busy, off the event loop when there is one.

    Inside a twin the call runs in a thread and the loop goes on; elsewhere it is a plain call.
    """
    if in_greenlet():
        return await_only(asyncio.to_thread(fn, *args, **kwargs))
    return fn(*args, **kwargs)
