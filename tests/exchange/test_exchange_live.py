"""Live Link and VMC: packets, a sender without a flood, a receiver that survives what comes."""

import socket
import struct
import threading

import numpy as np
import pytest
from actors import PATIENT, until
from hypothesis import given, settings
from hypothesis import strategies as st

from ditto.controls.blendshapes import ARKIT_NAMES, SHAPES, to_offsets
from ditto.errors import ExchangeError
from ditto.exchange.live_link import (
    LONGEST_PACKET,
    LiveLinkReceiver,
    LiveLinkSender,
    Packet,
    pack,
    unpack,
)
from ditto.exchange.vmc import degrees_of_quaternion, quaternion_of
from ditto.motion.motion import Motion

DEVICE = "8E1F5B4A-0000-4000-8000-0123456789AB"  # 36 characters, as the app's


def weights_of(**named):
    weights = np.zeros(SHAPES)
    for name, weight in named.items():
        weights[ARKIT_NAMES.index(name)] = weight
    return weights


def packet_of(seed=0, subject="iPhone"):
    random = np.random.default_rng(seed)
    values = random.uniform(size=SHAPES).astype(np.float32).astype(np.float64)
    return Packet(subject, values, random.normal(size=3), random.normal(size=(2, 2)), 1234.5, 60.0, DEVICE)


def motion_of(**named):
    values = np.zeros(70)
    values[7:] = to_offsets(weights_of(**named)).reshape(-1)
    return Motion(values)


def test_a_packet_has_the_form_that_unreal_reads():
    raw = pack(packet_of())
    assert len(raw) == 306 + len("iPhone")
    assert raw[0] == 6
    assert struct.unpack_from(">i", raw, 1) == (36,) and raw[5:41].decode() == DEVICE
    assert raw[1:5][-1:] == b"$"  # what some programs take for a sign before the id
    assert struct.unpack_from(">i", raw, 41) == (6,) and raw[45:51] == b"iPhone"
    assert struct.unpack_from(">ifii", raw, 51) == (1234, 0.5, 60, 1)
    assert raw[67] == 61


def test_values_go_in_the_order_of_arkits_enumeration():
    raw = pack(Packet("x", weights_of(jawForward=0.1, jawLeft=0.2, jawRight=0.3, jawOpen=0.4, mouthLeft=0.5, mouthRight=0.6)))
    values = np.frombuffer(raw[-61 * 4 :], ">f4")
    np.testing.assert_allclose(values[14:18], [0.1, 0.2, 0.3, 0.4], rtol=1e-6)
    np.testing.assert_allclose(values[21:23], [0.5, 0.6], rtol=1e-6)


def test_a_packet_comes_back():
    for sent in (packet_of(), Packet("nobody", None)):
        got = unpack(pack(sent))
        assert (got.subject, got.frame, got.fps, got.device) == (sent.subject, sent.frame, sent.fps, sent.device)
        for name in ("weights", "head_degrees", "eyes_degrees"):
            if getattr(sent, name) is None:
                assert getattr(got, name) is None
            else:
                np.testing.assert_allclose(getattr(got, name), getattr(sent, name), atol=1e-5)


GOOD = pack(packet_of())
BAD = {
    "another version": (b"\x05" + GOOD[1:], "version: expected 6, got 5"),
    "empty": (b"", "version: expected 1 bytes, got 0"),
    "one value short": (GOOD[:-4], "values: expected 244 bytes, got 240"),
    "a name that is cut": (GOOD[:20], "device id: expected 36 bytes, got 15"),
    "a name of 2 GB": (b"\x06\x7f\xff\xff\xff" + GOOD[5:], "device id: expected at most 256 bytes"),
    "a name of negative length": (b"\x06\xff\xff\xff\xff" + GOOD[5:], "device id: expected at most 256 bytes, got -1"),
    "no text": (GOOD[:45] + b"\xff\xfe" + GOOD[47:], "subject name: expected UTF-8"),
    "two packets": (GOOD + GOOD, "expected 312 bytes, got 624"),
    "NaN": (GOOD[:-4] + struct.pack(">f", np.nan), "value 60: expected up to 10, got nan"),
    "a wild value": (GOOD[:-4] + struct.pack(">f", 1e9), "value 60"),
    "another count": (GOOD[:67] + b"\x34" + GOOD[68:], "count: expected 61 values, got 52"),
    "no rate": (GOOD[:59] + bytes(8) + GOOD[67:], "expected a rate above 0"),
    "another protocol": (b"/VMC/Ext/OK\x00,i\x00\x00\x00\x00\x00\x01", "version"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_packet_is_named_by_field(case):
    data, message = BAD[case]
    with pytest.raises(ExchangeError) as error:
        unpack(data)
    assert message in str(error.value)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400), st.integers(0, len(GOOD)))
def test_no_bytes_make_anything_but_a_typed_error(data, place):
    for raw in (data, GOOD[:place] + data, GOOD[:place] + data + GOOD[place + len(data) :]):
        try:
            assert len(unpack(raw).subject) <= 256
        except ExchangeError:
            pass


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "ditto-live-link"]


def test_a_sender_reaches_a_receiver_and_no_thread_stays():
    with LiveLinkReceiver(port=0) as receiver:
        with LiveLinkSender("127.0.0.1", receiver.port, subject="Ada") as sender:
            assert sender.send(motion_of(jawOpen=0.7, browInnerUp=0.4))
            assert until(lambda: receiver.received == 1)
        packet = receiver.latest
        assert packet.subject == "Ada" and packet.fps == 60.0 and len(packet.device) == 36
        np.testing.assert_allclose(packet.weights, weights_of(jawOpen=0.7, browInnerUp=0.4), atol=0.01)
    assert not threads()
    receiver.close()  # again does nothing


def test_a_sender_tells_the_pose_of_the_head():
    with LiveLinkReceiver(port=0) as receiver, LiveLinkSender("127.0.0.1", receiver.port) as sender:
        values = np.zeros(70)
        values[1:4] = 3.0, -8.0, 2.0
        sender.send(values)
        assert until(lambda: receiver.received == 1)
        np.testing.assert_allclose(receiver.latest.head_degrees, [3.0, -8.0, 2.0], atol=1e-4)


def test_frames_that_are_drawn_faster_than_shown_make_no_flood():
    now = [0.0]
    with LiveLinkSender("127.0.0.1", 9, clock=lambda: now[0]) as sender:
        sent = []
        for _ in range(400):  # 400 frames in a second
            sent.append(sender.send(motion_of()))
            now[0] += 1 / 400
        assert 40 <= sum(sent) <= 51


def test_a_closed_sender_says_so():
    sender = LiveLinkSender("127.0.0.1", 9)
    sender.close()
    with pytest.raises(ValueError, match="got one that was closed"):
        sender.send(motion_of())


def test_a_receiver_drops_what_it_cannot_read_and_goes_on(caplog):
    with LiveLinkReceiver(port=0) as receiver, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as phone:
        address = ("127.0.0.1", receiver.port)
        foreign = [b"", b"\x00", b"\x06" * 400, bytes(LONGEST_PACKET + 500), GOOD[:100]]
        for data in (*foreign, *(case for case, _ in BAD.values())):
            phone.sendto(data, address)
        phone.sendto(GOOD, address)
        assert until(lambda: receiver.received == 1)
        assert receiver.dropped == len(foreign) + len(BAD)
        assert receiver.latest.subject == "iPhone"
        assert caplog.text.count("packets like it are dropped") == 1


def test_a_receiver_takes_one_subject_of_several():
    with LiveLinkReceiver(port=0, subject="Ada") as receiver, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as phone:
        for subject in ("Bob", "Ada", "Bob"):
            phone.sendto(pack(packet_of(subject=subject)), ("127.0.0.1", receiver.port))
        assert until(lambda: receiver.received == 1)
        assert receiver.latest.subject == "Ada"


def test_who_waits_for_a_packet_is_woken_by_the_end():
    receiver = LiveLinkReceiver(port=0)
    found = []
    waiting = threading.Thread(target=lambda: found.append(receiver.wait(PATIENT)))
    waiting.start()
    receiver.close()
    waiting.join(PATIENT)
    assert found == [None]


@pytest.mark.parametrize(("host", "port"), [("no.such.host.invalid", 11111), ("127.0.0.1", 70000), ("127.0.0.1", -1)])
def test_an_address_that_is_none_is_refused(host, port):
    for kind in (LiveLinkSender, LiveLinkReceiver):
        with pytest.raises(ExchangeError, match="expected"):
            kind(host, port)


def test_a_port_in_use_is_named():
    with LiveLinkReceiver(port=0) as receiver, pytest.raises(ExchangeError, match=f"127.0.0.1:{receiver.port}"):
        LiveLinkReceiver(port=receiver.port)
    assert not threads()


@settings(max_examples=50, deadline=None)
@given(st.tuples(*[st.floats(-89.0, 89.0)] * 3))
def test_a_quaternion_gives_the_pose_back(degrees):
    np.testing.assert_allclose(degrees_of_quaternion(quaternion_of(degrees)), degrees, atol=1e-6)


def test_quaternions_are_in_unitys_axes():
    """x to the person's right, y up, z forward, left-handed: about y to the right, about x down."""
    half = np.sin(np.radians(10.0))
    np.testing.assert_allclose(quaternion_of([20.0, 0.0, 0.0])[:3], [half, 0.0, 0.0], atol=1e-9)
    np.testing.assert_allclose(quaternion_of([0.0, 20.0, 0.0])[:3], [0.0, half, 0.0], atol=1e-9)
    np.testing.assert_allclose(quaternion_of([0.0, 0.0, 20.0])[:3], [0.0, 0.0, half], atol=1e-9)


class TestVmc:
    """Packets of OSC, as python-osc and as others read them."""

    vmc = property(lambda self: pytest.importorskip("ditto.exchange.vmc"))

    @pytest.fixture(autouse=True)
    def needs_osc(self):
        pytest.importorskip("pythonosc", reason="needs python-osc ([exchange])")

    def test_a_frame_comes_back_from_packets_that_a_network_card_takes(self):
        weights, degrees = packet_of().weights, [4.0, -9.0, 2.0]
        sent = self.vmc.packets(weights, degrees, 1.5)
        assert all(len(raw) <= 1400 for raw in sent) and len(sent) > 1
        frames = [self.vmc.read(raw) for raw in sent]
        found = {place: x for frame in frames for place, x in frame.weights.items()}
        np.testing.assert_allclose([found[i] for i in range(SHAPES)], weights, atol=1e-6)
        np.testing.assert_allclose(frames[0].head_degrees, degrees, atol=1e-4)
        assert frames[0].seconds == 1.5
        assert [frame.applied for frame in frames] == [False] * (len(frames) - 1) + [True]

    def test_the_bytes_are_those_of_osc_1_0(self):
        """Read without python-osc: a bundle, then each element with its length, address, types and arguments."""
        raw = self.vmc.packets(weights_of(jawOpen=0.5))[-1]
        assert raw[:8] == b"#bundle\x00"
        at, found = 16, []
        while at < len(raw):
            (size,) = struct.unpack_from(">i", raw, at)
            found.append(raw[at + 4 : at + 4 + size])
            at += 4 + size
        assert found[-1] == b"/VMC/Ext/Blend/Apply\x00\x00\x00\x00,\x00\x00\x00"
        assert found[-2] == (
            b"/VMC/Ext/Blend/Val\x00\x00,sf\x00tongueOut\x00\x00\x00" + struct.pack(">f", 0.0)
        )  # fmt: skip

    def test_one_message_and_unknown_ones_are_read(self):
        from pythonosc.osc_message_builder import OscMessageBuilder

        def message(address, *values):
            builder = OscMessageBuilder(address)
            for value in values:
                builder.add_arg(value)
            return builder.build().dgram

        assert self.vmc.read(message("/VMC/Ext/Blend/Val", "JawOpen", 0.25)).weights == {ARKIT_NAMES.index("jawOpen"): 0.25}
        assert self.vmc.read(message("/VMC/Ext/Blend/Val", "Joy", 0.25)).weights == {}
        assert self.vmc.read(message("/other", 1)).weights == {}
        for bad in (("/VMC/Ext/Blend/Val", "jawOpen"), ("/VMC/Ext/Blend/Val", "jawOpen", "x"),
                    ("/VMC/Ext/Blend/Val", "jawOpen", float("nan")), ("/VMC/Ext/Bone/Pos", "Head", 0.0)):  # fmt: skip
            with pytest.raises(ExchangeError, match="VMC packet"):
                self.vmc.read(message(*bad))

    @settings(max_examples=100, deadline=None)
    @given(st.binary(max_size=200), st.integers(0, 300))
    def test_no_bytes_make_anything_but_a_typed_error(self, data, place):
        good = self.vmc.packets(packet_of().weights, [1.0, 2.0, 3.0])[0]
        for raw in (data, good[:place] + data, good[:place] + data + good[place + len(data) :]):
            try:
                frame = self.vmc.read(raw)
            except ExchangeError:
                continue
            assert all(np.isfinite(x) for x in frame.weights.values())

    def test_weights_of_another_number_are_refused(self):
        with pytest.raises(ValueError, match="expected 52 finite weights"):
            self.vmc.packets(np.zeros(51))


def test_without_python_osc_the_error_says_what_to_install(monkeypatch):
    import sys

    from ditto.exchange import vmc

    for name in ("pythonosc", "pythonosc.osc_message_builder", "pythonosc.osc_packet"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ExchangeError, match=r"\[exchange\]"):
        vmc.packets(np.zeros(SHAPES))
