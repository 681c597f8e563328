"""Waiting with a timeout, and ending tasks, for asyncio.

`asyncio.wait_for` of Python 3.10 and 3.11 loses a cancellation that arrives in the same iteration of the event loop in which
its work ends. The cancelled task goes on, and whoever waits for its end waits for ever (python/cpython#86296, fixed in 3.12).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")

logger = logging.getLogger(__name__)

CANCELLATIONS = 5  # that `end_tasks` sends to a task; libraries lose cancellations too


async def within(seconds: float, work: Awaitable[T]) -> T:
    """The result of `work`. If it takes longer, or the caller is cancelled, `work` is cancelled.

    Raises:
        asyncio.TimeoutError: it took longer.
    """
    task = asyncio.ensure_future(work)
    task.add_done_callback(_retrieve_error)  # if the caller is cancelled, nobody asks for its error
    try:
        await asyncio.wait([task], timeout=max(0.0, seconds))
        if not task.done():
            raise asyncio.TimeoutError
    finally:
        task.cancel()
    return task.result()


async def end_tasks(*tasks: asyncio.Future[None], seconds: float) -> None:
    """Cancel tasks and wait at most `seconds` until they have ended; log those that have not."""
    for task in tasks:
        task.add_done_callback(_retrieve_error)
    left = {task for task in tasks if not task.done()}
    for _ in range(CANCELLATIONS):
        for task in left:
            task.cancel()
        if left:
            _, left = await asyncio.wait(left, timeout=seconds / CANCELLATIONS)
    for task in left:
        logger.error("%s did not end within %g s of its cancellation; it keeps running", task, seconds)


def _retrieve_error(task: asyncio.Future[T]) -> None:
    """Mark the error of a task as retrieved, so that asyncio does not log it."""
    if not task.cancelled():
        task.exception()
