"""The pace of frames: 25 a second, later after a late reader, and brought forward by an interrupt."""

import threading

import pytest
from actors import PATIENT, HandClock, until

from ditto.live.clock import LATE_SECONDS, Clock, Pace
from ditto.media.rates import FPS

FRAME = 1.0 / FPS


@pytest.fixture
def clock():
    return HandClock()


@pytest.fixture
def pace(clock):
    """Of a session whose first frame was due now."""
    pace = Pace(clock)
    pace.start(0)
    return pace


def test_before_the_first_frame_all_are_due_when_the_session_opened(clock):
    opened, pace = clock.now(), Pace(clock)
    clock.advance(5.0)
    assert pace.due(0) == pace.due(10) == opened


def test_the_first_frame_is_due_when_drawn_and_the_others_at_25_a_second(clock):
    pace = Pace(clock)
    clock.advance(3.0)  # what loading took is no delay
    pace.start(0)
    start = clock.now()
    clock.advance(0.5)
    pace.start(1)
    assert [pace.due(index) - start for index in (0, 1, 25, 100)] == pytest.approx([0.0, 0.04, 1.0, 4.0])


def test_a_first_frame_with_a_number_is_due_now_too(clock):
    pace = Pace(clock)
    pace.start(50)
    assert pace.due(50) == pytest.approx(clock.now())


def test_a_reader_in_time_or_ahead_moves_nothing(clock, pace):
    start = clock.now()
    for index in range(100):  # all at once
        pace.frame_read(index)
    assert pace.due(100) == pytest.approx(start + 4.0)
    clock.advance(4.0 + LATE_SECONDS)
    pace.frame_read(100)  # a frame late is in time
    assert pace.due(100) == pytest.approx(start + 4.0)


def test_a_late_reader_makes_all_that_follow_due_later(clock, pace):
    clock.advance(2.0)
    pace.frame_read(10)  # 1.6 s late
    assert pace.due(10) == pytest.approx(clock.now())
    assert pace.due(11) == pytest.approx(clock.now() + FRAME)
    pace.frame_read(11)  # which is in time now
    assert pace.due(12) == pytest.approx(clock.now() + 2 * FRAME)


def test_a_reader_that_returns_after_a_minute_gets_frames_at_the_normal_rate(clock, pace):
    clock.advance(60.0)
    pace.frame_read(0)
    assert pace.due(1) == pytest.approx(clock.now() + FRAME)


def test_reading_before_any_frame_moves_nothing(clock):
    pace = Pace(clock)
    clock.advance(9.0)
    pace.frame_read(0)
    pace.make_due(0)
    pace.start(0)
    assert pace.due(0) == pytest.approx(clock.now())


def test_make_due_brings_a_frame_that_is_due_later_to_now(clock, pace):
    for index in range(100):
        pace.frame_read(index)
    pace.make_due(100)
    assert pace.due(100) == pytest.approx(clock.now())
    assert pace.due(101) == pytest.approx(clock.now() + FRAME)


def test_make_due_never_delays_what_is_due_already(clock, pace):
    clock.advance(1.0)
    before = pace.due(10)
    pace.make_due(10)
    assert pace.due(10) == before < clock.now()


def test_a_clock_waits_until_a_time_or_a_notification():
    clock, news = Clock(), threading.Condition()
    with news:
        clock.wait(news, clock.now() - 1.0)  # that is over
        clock.wait(news, clock.now() + 0.02)
    events = []

    def wait():
        with news:
            events.append("waits")
            clock.wait(news, float("inf"))
            events.append("notified")

    waiter = threading.Thread(target=wait)
    waiter.start()
    assert until(lambda: events)
    with news:  # it waits: the condition is free
        news.notify_all()
    waiter.join(PATIENT)
    assert events == ["waits", "notified"]
