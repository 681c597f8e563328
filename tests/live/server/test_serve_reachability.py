"""The page's test of the connection, in a real Chromium, with STUN and TURN servers that answer, refuse or are silent."""

import contextlib
import shutil
import socket
import struct
import threading

import pytest

pytest.importorskip("aiortc", reason="ditto serve is an extra: pip install 'ditto-talking-head[serve]'")
pytest.importorskip("fastapi", reason="ditto serve is an extra: pip install 'ditto-talking-head[serve]'")
pytest.importorskip("selenium", reason="the page is tested in a browser: pip install selenium")

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from serving import StandInHead, running, until

from ditto.live.server import webrtc
from ditto.live.server.app import create_app
from ditto.live.server.ice import IceServer

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason="Chromium or its driver is not installed")

COOKIE = 0x2112A442
BINDING, ALLOCATE = 1, 3
SUCCESS, ERROR = 0x0100, 0x0110
XOR_MAPPED_ADDRESS, ERROR_CODE, REALM, NONCE = 0x0020, 0x0009, 0x0014, 0x0015


def attribute(kind, value):
    return struct.pack("!HH", kind, len(value)) + value + bytes(-len(value) % 4)


def answer_of(request):
    """What a STUN server, and a TURN server that knows nobody, answer (RFC 8489, RFC 8656)."""
    kind, _, cookie = struct.unpack_from("!HHI", request)
    if cookie != COOKIE or kind not in (BINDING, ALLOCATE):
        return None
    if kind == BINDING:  # the address that the client has outside: 203.0.113.7, port 5000
        address = struct.pack("!BBHI", 0, 1, 5000 ^ (COOKIE >> 16), 0xCB007107 ^ COOKIE)
        kind, body = kind | SUCCESS, attribute(XOR_MAPPED_ADDRESS, address)
    else:
        body = attribute(ERROR_CODE, struct.pack("!HBB", 0, 4, 1) + b"Unauthorized")
        kind, body = kind | ERROR, body + attribute(REALM, b"test") + attribute(NONCE, b"once")
    return struct.pack("!HHI", kind, len(body), COOKIE) + request[8:20] + body


@contextlib.contextmanager
def ice_server(answers=True):
    """The port of a STUN and TURN server at all addresses of this machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as here:
        here.bind(("0.0.0.0", 0))
        here.settimeout(0.2)
        over = threading.Event()

        def serve():
            while not over.is_set():
                with contextlib.suppress(OSError):
                    request, client = here.recvfrom(2048)
                    if answers and len(request) >= 20 and (answer := answer_of(request)) is not None:
                        here.sendto(answer, client)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield here.getsockname()[1]
        finally:
            over.set()
            thread.join()


@pytest.fixture(scope="module")
def browser():
    options = Options()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    browser = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield browser
    browser.quit()


def findings(browser, place):
    """Texts of the results of the page's test, and whether each is bad news."""
    browser.get(f"http://{place}/?transport=websocket")
    assert until(lambda: browser.execute_script("return document.body.dataset.transport === 'Socket'"))
    browser.execute_script("document.getElementById('test').click()")
    results = "[...document.querySelectorAll('#test-results li')].map((line) => [line.textContent, 'wrong' in line.dataset])"
    assert until(lambda: browser.execute_script("return !document.getElementById('test').disabled"))
    found = browser.execute_script(f"return {results}")
    browser.get("about:blank")
    return found


def test_the_page_says_of_each_server_what_it_does(browser, monkeypatch):
    # aiortc would wait for its own answer of the silent one
    monkeypatch.setattr("ditto.live.server.app.configuration", lambda servers: webrtc.RTCConfiguration(iceServers=[]))
    with ice_server() as live, ice_server(answers=False) as silent:
        servers = (
            IceServer(f"stun:127.0.0.1:{live}"),
            IceServer(f"turn:127.0.0.1:{live}?transport=udp", "ann", "word"),
            IceServer(f"stun:127.0.0.1:{silent}"),
        )
        head = StandInHead()
        with running(create_app(head, head.portrait, ice_servers=servers)) as place:
            found = findings(browser, place)
    assert [wrong for _, wrong in found] == [False, True, True, False], found
    assert "UDP gets out of this network" in found[0][0]
    assert found[1][0].endswith("refuses the name or the password (401).")
    assert "does not answer" in found[2][0]
    assert found[3][0] == "WebRTC reaches the server: directly."


def test_the_page_says_that_udp_is_stopped(browser, monkeypatch):
    answered = webrtc.ReachabilityTest._negotiated

    async def deaf(test):  # as behind a firewall: nothing of it reaches the page
        sdp = await answered(test)
        await test._connection.close()
        return sdp

    monkeypatch.setattr(webrtc.ReachabilityTest, "_negotiated", deaf)
    head = StandInHead()
    with running(create_app(head, head.portrait)) as place:
        ((text, wrong),) = findings(browser, place)
    assert wrong
    assert text.startswith("WebRTC does not reach the server: UDP between here and there is stopped. A TURN server would help")
