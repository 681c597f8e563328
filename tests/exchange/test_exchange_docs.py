"""The live blocks of docs/exchange.md, with addresses of this machine."""

import re
from pathlib import Path

import numpy as np
from actors import until

from ditto.exchange import live_link
from ditto.exchange.live_link import LiveLinkReceiver

PAGE = Path(__file__).parents[2] / "docs" / "exchange.md"


class Frame:
    motion = np.zeros(70, np.float32)
    image = np.zeros((2, 2, 3), np.uint8)


class Session:
    """Three frames; what is controlled is kept."""

    def __init__(self):
        self.told = []

    def __iter__(self):
        return iter([Frame()] * 3)

    def control(self, *, names=None, ramp_seconds=0.4):
        self.told.append(names)


def block(beginning):
    found = [text for text in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S) if text.startswith(beginning)]
    assert len(found) == 1
    return found[0]


def test_the_session_to_unreal():
    with LiveLinkReceiver(port=0) as unreal:
        code = block("from ditto.exchange.live_link import LiveLinkSender").replace(
            '"192.168.1.20"', f'"127.0.0.1", {unreal.port}'
        )  # fmt: skip
        exec(compile(code, str(PAGE), "exec"), {"session": Session()})
        assert until(lambda: unreal.received >= 1)
        assert unreal.latest.subject == "Ada"


def test_the_phone_that_drives_a_session(monkeypatch):
    monkeypatch.setattr(live_link, "PORT", 0)
    code = block("from ditto.exchange.live_link import Follower").replace('"192.168.1.5"', '"127.0.0.1", 0')
    shown = []
    exec(compile(code, str(PAGE), "exec"), {"session": Session(), "show": shown.append})
    assert len(shown) == 3
