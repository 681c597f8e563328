"""Values made on first use: by one thread a key, while other keys do not wait."""

import gc
import os
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from ditto.engines.batched import BatchedEngine
from ditto.lite.latency import LATENCIES
from ditto.once import Once, OncePerProcess
from ditto.row_performer import RowPerformer
from ditto.talking_head import TalkingHead


class Key:
    pass


class Slow:
    """Makes values; the first call waits until it is released."""

    def __init__(self):
        self.calls, self.inside, self.again, self.release = [], threading.Event(), threading.Event(), threading.Event()

    def __call__(self, key):
        self.calls.append(key)
        if self.inside.is_set():
            self.again.set()
        else:
            self.inside.set()
            assert self.release.wait(60)
        return object()


def in_thread(call):
    """Runs a call in a thread; gives the thread, and a list that holds what it returned."""
    got = []
    thread = threading.Thread(target=lambda: got.append(call()))
    thread.start()
    return thread, got


def ask_twice(ask, slow):
    """Two threads ask, the second while the first is inside; what they got."""
    first, one = in_thread(ask)
    assert slow.inside.wait(60)
    second, other = in_thread(ask)
    assert not slow.again.wait(0.3)
    slow.release.set()
    first.join(60)
    second.join(60)
    return one + other


def test_one_thread_makes_a_value_and_the_others_wait_for_it():
    once, key, slow = Once(), Key(), Slow()
    one, other = ask_twice(lambda: once.get(key, slow), slow)
    assert one is other
    assert slow.calls == [key]


def test_another_key_does_not_wait():
    once, slow, held, other = Once(), Slow(), Key(), Key()
    first, _ = in_thread(lambda: once.get(held, slow))
    assert slow.inside.wait(60)
    second, got = in_thread(lambda: once.get(other, lambda key: key))
    second.join(60)
    assert got == [other]
    slow.release.set()
    first.join(60)


def test_what_could_not_be_made_is_made_by_the_next_who_asks():
    once, key = Once(), Key()

    def fail(key):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        once.get(key, fail)
    assert once.get(key, lambda key: 7) == 7
    assert once.get(key, fail) == 7


def test_a_value_lives_as_long_as_its_key():
    once, key = Once(), Key()
    value = weakref.ref(once.get(key, lambda key: Key()))
    assert value() is not None
    del key
    gc.collect()
    assert value() is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_makes_what_was_being_made():
    once, key, done, slow = Once(), Key(), Key(), Slow()
    once.get(done, lambda key: 1)
    thread, _ = in_thread(lambda: once.get(key, slow))
    assert slow.inside.wait(60)
    child = os.fork()
    if child == 0:
        os._exit(0 if (once.get(key, lambda key: 2), once.get(done, lambda key: 3)) == (2, 1) else 1)
    slow.release.set()
    thread.join(60)
    assert os.waitpid(child, 0)[1] == 0


def test_threads_that_ask_for_one_portrait_prepare_it_once(portrait):
    performer = SimpleNamespace(prepare=Slow(), hop_samples=1280)
    head = TalkingHead(None, performer)
    one, other = ask_twice(lambda: head.appearance(portrait), performer.prepare)
    assert one is other
    assert head.appearance(replace(portrait)) is not one


def test_every_thread_gets_the_same_sampler_of_a_latency():
    sampler = SimpleNamespace(latencies=tuple(LATENCIES), at=lambda latency: object())
    performer = RowPerformer(None, sampler, None, None)
    together, found = threading.Barrier(8), []

    def ask():
        together.wait(60)
        found.append([performer.sampler_for(latency) for latency in LATENCIES])

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len({tuple(map(id, samplers)) for samplers in found}) == 1
    with pytest.raises(ValueError, match="expected a latency of"):
        performer.sampler_for("fast")


def test_a_difference_that_another_thread_saw_is_not_forgotten():
    """Two batches of one size at once: the first is equal, and finishes after the second, which is not."""
    slow = Slow()

    class Engine:
        inputs = outputs = ()

        def __call__(self, x):
            if len(x) > 1 and x[0, 0] == 1:
                slow(x)
            return {"y": x + (len(x) > 1 and x[0, 0] == 2)}

    engine = BatchedEngine(Engine())
    first, _ = in_thread(lambda: engine(x=np.ones((2, 1))))
    assert slow.inside.wait(60)
    engine(x=np.full((2, 1), 2.0))
    slow.release.set()
    first.join(60)
    assert np.array_equal(engine(x=np.full((2, 1), 2.0))["y"], np.full((2, 1), 2.0))


def test_one_value_a_process_for_all_threads():
    made = []

    def make():
        time.sleep(0.05)
        made.append(object())
        return made[-1]

    once = OncePerProcess(make)
    with ThreadPoolExecutor(8) as pool:
        values = set(pool.map(lambda _: once(), range(16)))
    assert values == set(made) and len(made) == 1


def test_a_value_that_could_not_be_made_is_tried_again():
    answers = iter([RuntimeError("no"), "yes"])

    def make():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    once = OncePerProcess(make)
    with pytest.raises(RuntimeError, match="no"):
        once()
    assert once() == "yes"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_makes_its_own_value():
    once = OncePerProcess(os.getpid)
    assert once() == os.getpid()
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if once() == os.getpid() else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert once() == os.getpid()
