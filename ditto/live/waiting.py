"""Waiting with a limit, and ending tasks, for asyncio.

`asyncio.wait_for` of Python 3.10 and 3.11 loses a cancellation that comes in the turn of the event loop in which its work
ends: the task that was cancelled goes on, and whoever waits for its end waits for ever (python/cpython#86296, mended in
3.12).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")

logger = logging.getLogger(__name__)

CANCELLATIONS = 5  # what `end_tasks` tries before it leaves a task behind; libraries lose cancellations too


async def within(seconds: float, work: Awaitable[T]) -> T:
    """What `work` gives. If it takes longer, or the caller is cancelled, it is cancelled.

    Raises:
        asyncio.TimeoutError: it took longer.
    """
    task = asyncio.ensure_future(work)
    task.add_done_callback(_heard)  # where the caller is cancelled, nobody asks for its error
    try:
        await asyncio.wait([task], timeout=max(0.0, seconds))
        if not task.done():
            raise asyncio.TimeoutError
    finally:
        task.cancel()
    return task.result()


async def end_tasks(*tasks: asyncio.Future[None], seconds: float) -> None:
    """Cancel tasks and wait until they have ended, for at most so many seconds; one that goes on is logged."""
    for task in tasks:
        task.add_done_callback(_heard)
    left = {task for task in tasks if not task.done()}
    for _ in range(CANCELLATIONS):
        for task in left:
            task.cancel()
        if left:
            _, left = await asyncio.wait(left, timeout=seconds / CANCELLATIONS)
    for task in left:
        logger.error("%s did not end within %g s of its cancellation; it is left behind", task, seconds)


def _heard(task: asyncio.Future[T]) -> None:
    """An error that nobody asks for is not logged."""
    if not task.cancelled():
        task.exception()
