"""Values made on first use and shared by all threads."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary, WeakSet

K = TypeVar("K")
V = TypeVar("V")


@dataclass
class _Entry(Generic[V]):
    """A value in a tuple; the tuple is empty before the value is made. The thread that makes it holds `lock`."""

    lock: threading.RLock = field(default_factory=threading.RLock)
    value: tuple[()] | tuple[V] = ()


class Once(Generic[K, V]):
    """One value a key, made by the first thread that asks for it.

    Other threads that ask for the same key wait until the value is made; those that ask for another key do not. If
    making it fails, the thread that made it gets the error, and the next one to ask tries again. Keys are weak
    references: a value is kept as long as its key lives. A forked process keeps the values that were made.
    """

    def __init__(self) -> None:
        self._entries: MutableMapping[K, _Entry[V]] = WeakKeyDictionary()
        self._lock = threading.Lock()
        _all.add(self)

    def get(self, key: K, make: Callable[[K], V]) -> V:
        """The value of a key, made by `make(key)` on first use. Raises what `make` raises."""
        with self._lock:
            entry = self._entries.setdefault(key, _Entry())
        if not entry.value:
            with entry.lock:
                if not entry.value:
                    entry.value = (make(key),)
        return entry.value[0]

    def _forked(self) -> None:
        self._lock = threading.Lock()
        for key, entry in list(self._entries.items()):
            self._entries[key] = _Entry(value=entry.value)


_all: WeakSet[Once[Any, Any]] = WeakSet()


def _forked() -> None:
    """In a forked process: new locks, because the threads that held the old ones belong to the parent."""
    for once in list(_all):
        once._forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


class OncePerProcess(Generic[V]):
    """A value made at the first call in each process, by whichever thread calls first.

    For what does not survive `fork`, such as a network: a forked process makes its own. `fork` waits until a thread that
    makes the value is through, because the child would wait for ever to import what that thread was importing. The
    parent's value is never closed in the child, since a lock inside it may be held by a thread that the child lacks.
    """

    def __init__(self, make: Callable[[], V]) -> None:
        self._make = make
        self._made: dict[int, V] = {}  # by process
        self._lock = lock = threading.RLock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)

    def __call__(self) -> V:
        """The value of this process. Raises what `make` raises; the next call tries again."""
        process = os.getpid()
        if process not in self._made:
            with self._lock:
                if process not in self._made:
                    self._made[process] = self._make()
        return self._made[process]
