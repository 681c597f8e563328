"""A phone drives a live session."""

import socket
import threading

import numpy as np
import pytest
from actors import until

from ditto.controls.blendshapes import ARKIT_NAMES, SHAPES
from ditto.errors import SessionError
from ditto.exchange.live_link import Follower, LiveLinkReceiver, Packet, pack


class Session:
    """Keeps what it is told; after `end` it is closed."""

    def __init__(self):
        self.told, self.ended = [], False

    def control(self, *, names=None, ramp_seconds=0.4):
        if self.ended:
            raise SessionError("closed")
        self.told.append((dict(names), ramp_seconds))


@pytest.fixture
def phone():
    with LiveLinkReceiver(port=0) as receiver, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:

        def send(head=None, **named):
            weights = np.zeros(SHAPES)
            for name, weight in named.items():
                weights[ARKIT_NAMES.index(name)] = weight
            before = receiver.received
            packet = Packet("phone", weights, None if head is None else np.array(head))
            sender.sendto(pack(packet), ("127.0.0.1", receiver.port))
            assert until(lambda: receiver.received > before)

        send.receiver = receiver
        send.nobody = lambda: sender.sendto(pack(Packet("phone", None)), ("127.0.0.1", receiver.port))
        yield send


def followers():
    return [thread for thread in threading.enumerate() if thread.name == "ditto-live-link-follower"]


def shown(session, count):
    assert until(lambda: len(session.told) >= count)
    return session.told[count - 1][0]


def test_shapes_and_head_of_a_phone_become_controls(phone):
    session = Session()
    with Follower(session, phone.receiver):
        assert until(lambda: followers())
        send_until_heard(session, phone, [1.0, 20.0, 0.0], browInnerUp=0.5)
        names = shown(session, 1)
        assert names["browInnerUp"] == pytest.approx(0.5) and names["head.yaw"] == 0.0  # the first pose is the rest
        count = len(session.told)
        phone([1.0, 30.0, -90.0], browInnerUp=1.5)
        names = shown(session, count + 1)
        assert names["browInnerUp"] == 1.0  # weights end at 1
        assert names["head.yaw"] == pytest.approx(10.0, abs=1e-3) and names["head.roll"] == -25.0  # as far as a picture turns
    assert not followers()
    last, ramp = session.told[-1]
    assert set(last.values()) == {0.0} and ramp == 0.4  # back to neutral


def send_until_heard(session, phone, head, **named):
    """The follower may begin to wait after the first packet came."""
    for _ in range(100):
        phone(head, **named)
        if until(lambda: session.told, seconds=0.1):
            return
    raise AssertionError("nothing was heard")


def test_only_the_shapes_that_are_asked_for_are_taken(phone):
    session = Session()
    with Follower(session, phone.receiver, ["browInnerUp", "browOuterUpLeft"], head=False):
        send_until_heard(session, phone, [1.0, 2.0, 3.0], browInnerUp=0.5, jawOpen=1.0)
        assert set(session.told[0][0]) == {"browInnerUp", "browOuterUpLeft"}


def test_a_session_that_ends_first_ends_the_thread(phone):
    session = Session()
    follower = Follower(session, phone.receiver)
    send_until_heard(session, phone, None, jawOpen=0.2)
    session.ended = True
    for _ in range(100):
        phone(None, jawOpen=0.3)
        if until(lambda: not followers(), seconds=0.1):
            break
    assert not followers()
    follower.close()


def test_every_name_is_a_control_of_a_session():
    from ditto.controls import CATALOG

    assert {*ARKIT_NAMES, "head.pitch", "head.yaw", "head.roll"} <= set(CATALOG)


def test_unknown_shapes_are_refused(phone):
    with pytest.raises(ValueError, match="expected shapes of ARKit, got smile"):
        Follower(Session(), phone.receiver, ["smile"])
    assert not followers()
