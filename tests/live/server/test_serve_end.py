"""Connections that break, and servers that are told to end: both end, whatever state they are in."""

import asyncio
import contextlib
import gc
import json
import os
import random
import re
import signal
import socket as sockets
import struct
import subprocess
import sys
import weakref
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("fastapi", reason="ditto serve is an extra: pip install 'ditto-talking-head[serve]'")
pytest.importorskip("aiortc", reason="ditto serve is an extra: pip install 'ditto-talking-head[serve]'")

import httpx
from serving import PATIENT, Line, StandInHead, ended, running, started, tone, until
from websockets.sync.client import connect

from ditto.live.server.app import create_app
from ditto.live.server.clients import STOPPED, Client, Clients
from ditto.live.server.pictures import NoEncoder
from ditto.live.server.protocol import ProtocolError, Start
from ditto.live.server.socket import Outbox, send_all
from ditto.live.waiting import end_tasks, within


class Taking:
    """A socket that takes everything at once."""

    async def send_text(self, data):
        pass

    async def send_bytes(self, data):
        pass


async def turn(times):
    for _ in range(times):
        await asyncio.sleep(0)


# Cancellation


@pytest.mark.parametrize("turns", range(12))
def test_a_sender_that_is_cancelled_as_a_message_leaves_ends(turns):
    async def run():
        box = Outbox(False)
        box.put_message({"type": "any"})
        sending = asyncio.ensure_future(send_all(Taking(), box, NoEncoder()))
        await turn(turns)
        sending.cancel()
        await turn(12)
        return sending.done()

    assert asyncio.run(run())


@pytest.mark.parametrize("turns", range(8))
def test_a_cancellation_is_not_lost_as_the_work_ends(turns):
    async def run():
        caller = asyncio.ensure_future(within(PATIENT, turn(2)))
        await turn(1 + turns)
        ended = caller.done()
        caller.cancel()
        await turn(8)
        assert caller.done()
        return ended or caller.cancelled()

    assert asyncio.run(run())


def test_work_past_its_time_limit_is_cancelled():
    async def run():
        work = asyncio.ensure_future(asyncio.sleep(PATIENT))
        with pytest.raises(asyncio.TimeoutError):
            await within(0.0, work)
        await turn(2)
        assert work.cancelled()
        assert await within(PATIENT, asyncio.sleep(0, "done")) == "done"
        with pytest.raises(KeyError):
            await within(PATIENT, raising(KeyError()))

    asyncio.run(run())


async def raising(error):
    raise error


def test_a_task_that_ignores_cancellation_is_cancelled_again_and_then_abandoned(caplog):
    async def deaf(times):
        for _ in range(times):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(PATIENT)

    async def run():
        hard, harder = (asyncio.ensure_future(deaf(times)) for times in (2, 100))
        await turn(1)
        await end_tasks(hard, harder, seconds=0.05)
        assert (hard.done(), harder.done()) == (True, False)
        while not harder.done():
            harder.cancel()
            await turn(1)

    asyncio.run(run())
    assert caplog.text.count("keeps running") == 1


def test_a_client_that_does_not_end_delays_no_other(monkeypatch, caplog):
    import ditto.live.server.clients as module

    monkeypatch.setattr(module, "END_SECONDS", 0.01)

    async def run():
        clients = Clients(StandInHead(), {"default": None}, None)
        clients._clients["stuck-for-ever"] = Client("stuck-for-ever", None, {})
        with pytest.raises(ProtocolError, match="has not ended yet"):
            async with clients.connect(Start(client="stuck-for-ever"), "bgr24", 16000, print):
                pass
        await clients.end()
        with pytest.raises(ProtocolError, match="server is stopping"):
            async with clients.connect(Start(client="another-one"), "bgr24", 16000, print):
                pass

    asyncio.run(run())
    assert "client stuck-for-ever did not end within" in caplog.text


# Many clients of few names, broken in every state; then the server ends


async def break_socket(app, name, chance):
    """A WebSocket client that is gone after some turns of the loop, wherever that is in its life."""
    line = Line(app)
    line.say("websocket.connect")
    script = [
        {"text": json.dumps({"type": "start", "client": name, "video": "none", "pace": chance.choice(["playout", "fast"])})},
        *({"bytes": tone(chance.choice([0.01, 1.0, 9.0]), 16000)} for _ in range(chance.randrange(4))),
        {"text": chance.choice(['{"type": "flush"}', '{"type": "interrupt"}', '{"type": "close"}', "no json"])},
    ]
    for message in script[: chance.randrange(len(script) + 1)]:
        line.say("websocket.receive", **message)
        await turn(chance.randrange(30))
    await turn(chance.randrange(200))
    line.close_socket()
    return line.served


async def break_upload(app, name, chance):
    """A portrait or a recording of which only a part comes."""
    path = chance.choice(["/api/portraits", f"/api/clients/{name}/speech", "/api/webrtc"])
    line = Line(app, path, "POST")
    line.say("http.request", body=b"RIFF" + bytes(chance.randrange(60)), more_body=True)
    await turn(chance.randrange(30))
    line.close_socket()
    return line.served


async def break_offer(app, name, chance):
    """A WebRTC client that is never heard of after its offer."""
    from aiortc import RTCConfiguration, RTCPeerConnection

    browser = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    browser.addTransceiver("audio", direction="sendrecv")
    browser.addTransceiver("video", direction="recvonly")
    browser.createDataChannel("control")
    await browser.setLocalDescription(await browser.createOffer())
    line = Line(app, "/api/webrtc", "POST")
    line.say("http.request", body=json.dumps({"client": name, "sdp": browser.localDescription.sdp}).encode())
    await turn(chance.randrange(300))
    line.close_socket()
    await browser.close()
    return line.served


def test_200_times_clients_break_in_every_state_and_the_server_ends():
    async def round_of(number):
        head = StandInHead(max_sessions=2)
        app = create_app(head, head.portrait)
        chance = random.Random(number)
        names = ["the-first-client", "the-second-client"]
        ways = [break_socket] * 5 + [break_upload] + [break_offer] * (number % 10 == 0)
        async with app.router.lifespan_context(app):
            served = await asyncio.gather(*(chance.choice(ways)(app, chance.choice(names), chance) for _ in range(8)))
            open_line = Line(app)
            open_line.say("websocket.connect")
            open_line.say("websocket.receive", text=json.dumps({"type": "start", "client": names[0], "video": "none"}))
            await turn(chance.randrange(300))
            await asyncio.wait_for(app.state.clients.end(), PATIENT)
            await asyncio.wait_for(asyncio.gather(*served, open_line.served), PATIENT)
        assert head.sessions == []
        assert len(app.state.clients) == 0
        me = asyncio.current_task()
        return [task for task in asyncio.all_tasks() if task is not me]

    async def run():
        for number in range(200):
            left = await round_of(number)
            if left:
                await asyncio.wait(left, timeout=PATIENT)
            assert not [task for task in left if not task.done()], number

    asyncio.run(run())


def reset(socket):
    """Break a connection without a goodbye of TCP either."""
    raw = socket.socket if hasattr(socket, "send") and not isinstance(socket, sockets.socket) else socket
    raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_LINGER, struct.pack("ii", 1, 0))
    raw.close()


def test_real_connections_break_and_the_server_ends():
    for number in range(3):
        head = StandInHead(max_sessions=2)
        with running(create_app(head, head.portrait)) as place:
            host, port = place.split(":")
            for turn in range(4):
                socket, _ = started(place, client="the-same-client", pace="fast")
                socket.send(tone(5.0, 16000))
                if (number + turn) % 2:
                    reset(socket)
            silent = connect(f"ws://{place}/api/live")  # before hello
            half = sockets.create_connection((host, int(port)))  # an upload that stops; it has to be cut off
            if number == 0:
                half.sendall(b"POST /api/portraits HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9999\r\n\r\nabc")
            last, _ = started(place, client="another-client")
        assert ended(last)[0] == STOPPED
        assert head.sessions == []
        silent.close_socket()
        half.close()


class Node:
    """Something that may refer to itself."""


def test_a_server_leaves_what_is_loaded_out_of_collections(monkeypatch):
    from ditto.live.server import run

    garbage, loaded = Node(), Node()
    garbage.itself, loaded.itself = garbage, loaded
    seen = weakref.ref(garbage), weakref.ref(loaded)
    del garbage
    counts = []
    stand_in = SimpleNamespace(run=lambda sockets: counts.append(gc.get_freeze_count()), handle_exit=None)
    monkeypatch.setattr(run, "server_of", lambda app, address: stand_in)
    monkeypatch.setattr(run.signal, "signal", lambda number, handler: None)
    try:
        run.serve(None, run.Address(), None)
        assert counts[0] > 1000
        del loaded
        gc.collect()
        assert seen[0]() is None and seen[1]() is not None  # garbage of before is gone, what was there stays
    finally:
        gc.unfreeze()
    gc.collect()
    assert seen[1]() is None


SERVER = """
import asyncio, logging, os, sys, threading
sys.path.insert(0, "tests")
from serving import StandInHead
from ditto.live.server import clients, run
from ditto.live.server.app import create_app
head = StandInHead(max_sessions=2)
app = create_app(head, head.portrait)
{change}
with run.listen(run.Address(port=0)) as listening:
    print(listening.getsockname()[1], flush=True)
    run.serve(app, run.Address(port=0), listening)
print("ended", flush=True)
"""


@contextlib.contextmanager
def server(change=""):
    """A server in a process of its own; gives the process and its place."""
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER.format(change=change)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        cwd=root, env=environment,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        assert port, process.stderr and process.stderr.read()
        place = f"127.0.0.1:{port}"
        assert until(lambda: answers(place), PATIENT)
        yield process, place
    finally:
        process.kill()
        process.communicate()


def answers(place):
    try:
        return httpx.get(f"http://{place}/", timeout=PATIENT).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, getattr(signal, "SIGHUP", None)])
def test_a_signal_ends_the_process_with_clients_connected(number):
    with server() as (process, place):
        gone, _ = started(place, client="the-same-client", pace="fast")
        gone.send(tone(5.0, 16000))
        reset(gone)
        again, _ = started(place, client="the-same-client")
        silent = connect(f"ws://{place}/api/live")
        process.send_signal(number)
        assert ended(again)[0] == STOPPED
        out, errors = process.communicate(timeout=PATIENT)
        silent.close_socket()
    assert (process.returncode, out, errors) == (0, "ended\n", "")


STUCK = "clients.Clients.end = lambda self: asyncio.Event().wait()"


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_an_ending_server_refuses_connections_and_a_second_signal_ends_it_at_once():
    with server(STUCK) as (process, place):
        process.send_signal(signal.SIGTERM)
        assert until(lambda: not listens(place), PATIENT)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENT)
    assert process.returncode == -signal.SIGTERM


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_server_that_cannot_end_still_ends_its_process():
    with server(f"{STUCK}\nrun.STOP_SECONDS = 0.2") as (process, _):
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=PATIENT)
    assert process.returncode == 1
    assert re.search(r"did not end within 0\.2 s", errors)


def listens(place):
    host, port = place.split(":")
    try:
        sockets.create_connection((host, int(port)), 5).close()
    except OSError:
        return False
    return True
