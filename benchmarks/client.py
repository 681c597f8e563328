"""Measure the web client in a real browser: frames held, lips against sound, interrupts, bytes, beside pictures of the server.

    python -m benchmarks.client [--picture examples/portrait.jpg] [--seconds 8] [--interrupts 5]

starts `ditto serve --client-drawing all` and Chromium without a screen on this machine, so server and browser share its cores.
It needs the extra [serve], selenium, Chromium with its driver, and core.wasm (`make wasm`).
"""

from __future__ import annotations

import base64
import gzip
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks._report import ROOT, Figure, figures_table, publish
from ditto.commands import Arguments, real_number, run, whole_number
from ditto.errors import InputError
from ditto.media.audio import SAMPLE_RATE, read_audio
from ditto.media.images import read_picture

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

CORE = ROOT / "ditto" / "live" / "server" / "page" / "core.wasm"
FRAME_MS = 40.0
START_SECONDS, SCRIPT_SECONDS = 60.0, 120.0
BUZZ_HERTZ = 150.0

# Opens a face, and measures what comes out of the loudspeaker.
OPEN = """
const [drawing, done] = [arguments[0], arguments[arguments.length - 1]];
(async () => {
  const { connect } = await import("/client/index.js");
  const join = AudioNode.prototype.connect;
  AudioNode.prototype.connect = function (to, ...rest) {
    if (to instanceof AudioDestinationNode) {
      window.tap = new AnalyserNode(to.context, { fftSize: 256 });
      join.call(this, tap);
    }
    return join.call(this, to, ...rest);
  };
  const canvas = document.createElement("canvas");
  document.body.replaceChildren(canvas);
  Object.assign(window, { seen: [], ended: 0 });
  const began = performance.now();
  window.face = await connect(canvas, {
    drawing,
    onshown: (frame) => seen.push({ ...frame, at: performance.now() }),
    onmessage: (message) => { if (message.type === "segment_end") ended += 1; },
  });
  const opened = performance.now() - began;
  await face.sound(true);
  window.until = async (condition) => { while (!condition()) await new Promise((next) => setTimeout(next, 2)); };
  window.speak = (text) => {
    const samples = new Int16Array(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer);
    for (let at = 0; at < samples.length; at += 3200) face.push(samples.slice(at, at + 3200));
    face.flush();
  };
  await until(() => seen.length > 50); // compiled by then
  return opened;
})().then((opened) => done({ opened }), (error) => done({ error: error.message }));
"""
SPEAK = """
const [text, done] = [arguments[0], arguments[arguments.length - 1]];
(async () => {
  const from = seen.length, before = { ...face.statistics() };
  speak(text);
  await until(() => ended && seen.at(-1).kind !== "speech");
  return { seen: seen.slice(from).filter((frame) => frame.kind === "speech"), before, after: face.statistics() };
})().then(done, (error) => done({ error: error.message }));
"""
INTERRUPT = """
const [text, done] = [arguments[0], arguments[arguments.length - 1]];
(async () => {
  const block = new Float32Array(256);
  const level = () => { tap.getFloatTimeDomainData(block); return Math.max(...block.map(Math.abs)); };
  const from = seen.length;
  speak(text);
  await until(() => seen.slice(from).filter((frame) => frame.kind === "speech").length > 15 && level() > 0.01);
  const shown = seen.length, click = performance.now();
  face.interrupt();
  let silent = null, other = null;
  await until(() => {
    if (level() < 0.001) silent ??= performance.now() - click;
    const first = seen.slice(shown).find((frame) => frame.kind !== "speech");
    if (first) other ??= first.at - click;
    return silent !== null && other !== null;
  });
  await until(() => seen.length > shown + 40);
  return { silent, other };
})().then(done, (error) => done({ error: error.message }));
"""


@contextmanager
def served(picture: Path) -> Iterator[str]:
    """`ditto serve` of a picture in a process of its own; gives host and port."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "ditto", "serve", "--port", str(port), "--portrait", str(picture)]
    server = subprocess.Popen([*command, "--client-drawing", "all"], cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + START_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1.0).close()
                break
            except OSError:
                if server.poll() is not None or time.monotonic() > until:
                    raise SystemExit("expected ditto serve to listen, got none; run it by hand to see why") from None
                time.sleep(0.2)
        yield f"127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


@contextmanager
def chromium() -> Iterator[Chrome]:
    """Chromium without a screen, in which sound needs no click."""
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or driver is None:
        raise InputError("expected Chromium and its driver, got none; apt install chromium chromium-driver")
    options = Options()
    options.binary_location = binary
    for argument in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--autoplay-policy=no-user-gesture-required",
    ):  # fmt: skip
        options.add_argument(argument)
    browser = webdriver.Chrome(options=options, service=Service(driver))
    browser.set_script_timeout(SCRIPT_SECONDS)
    try:
        yield browser
    finally:
        browser.quit()


def asked(browser: Chrome, script: str, *arguments: object) -> dict[str, Any]:
    """What a script of the page answers."""
    answer: dict[str, Any] = browser.execute_async_script(script, *arguments)
    if "error" in answer:
        raise SystemExit(f"expected the page to measure, got: {answer['error']}")
    return answer


def measure(browser: Chrome, place: str, way: str, speech: str, buzz: str, interrupts: int) -> dict[str, float]:
    """Figures by name, of one way that pictures come: "here" or "server"."""
    browser.get(f"http://{place}/healthz")
    opened = asked(browser, OPEN, way)["opened"]
    said = asked(browser, SPEAK, speech)
    cut = [asked(browser, INTERRUPT, buzz) for _ in range(interrupts)]
    browser.execute_script("face.close()")
    before, after = said["before"], said["after"]
    frames = (after["soundBytes"] - before["soundBytes"]) / 1920
    shown = len(said["seen"])
    due = 1 + said["seen"][-1]["speechIndex"] - said["seen"][0]["speechIndex"]
    late = [frame["late"] for frame in said["seen"]]
    drawn = [frame["late"] + frame["milliseconds"] for frame in said["seen"]]
    return {
        "opened_ms": opened,
        "fps": 25.0 * shown / due,
        "late_ms": float(np.median(late)),
        "late_p95_ms": float(np.percentile(late, 95)),
        "drawn_p95_ms": float(np.percentile(drawn, 95)),
        "drawing_ms": float(np.median([frame["milliseconds"] for frame in said["seen"]])),
        "dry": after["dry"] - before["dry"],
        "silent_ms": float(np.median([one["silent"] for one in cut])),
        "silent_most_ms": max(one["silent"] for one in cut),
        "other_ms": float(np.median([one["other"] for one in cut])),
        "other_most_ms": max(one["other"] for one in cut),
        "picture_kbit_s": 8e-3 * 25.0 * (after["pictureBytes"] - before["pictureBytes"]) / frames,
        "sound_kbit_s": 8e-3 * 25.0 * 1920,
    }


def encoded(samples: np.ndarray) -> str:
    return base64.b64encode((np.clip(samples, -1.0, 1.0) * 32767).astype("<i2").tobytes()).decode()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Arguments(prog="python -m benchmarks.client", description=__doc__.split("\n")[0])
    parser.add_argument("--picture", type=Path, default=ROOT / "examples" / "portrait.jpg")
    parser.add_argument("--seconds", type=real_number(2, 600), default=8.0)
    parser.add_argument("--interrupts", type=whole_number(1, 1000), default=5)
    options = parser.parse_args(arguments)
    read_picture(options.picture)
    if not CORE.is_file():
        raise InputError("expected core.wasm, got none; make wasm")
    speech = read_audio(ROOT / "examples" / "speech.flac")[: round(options.seconds * SAMPLE_RATE)]
    time_s = np.arange(4 * SAMPLE_RATE) / SAMPLE_RATE
    buzz = 0.5 * (2.0 * (BUZZ_HERTZ * time_s % 1.0) - 1.0)  # never silent by itself
    with served(options.picture) as place, chromium() as browser:
        here, server = (
            measure(browser, place, way, encoded(speech), encoded(buzz), options.interrupts)
            for way in ("here", "server")
        )

    def figure(name: str, key: str, **bar: float) -> Figure:
        return Figure(name, here[key], beside={"pictures": server[key]}, **bar)

    figures = [
        figure("frames of speech shown a second, of 25", "fps", low=24.75),
        figure("chosen after its sound began, median ms", "late_ms", high=FRAME_MS),
        figure("chosen after its sound began, 95 %, ms", "late_p95_ms", high=FRAME_MS),
        figure("drawn after its sound began, 95 %, ms", "drawn_p95_ms"),
        figure("drawing (or decoding) a frame, median ms", "drawing_ms", high=20.0),
        figure("speech waited for the network, times", "dry"),
        figure("interrupt to silence, median ms", "silent_ms", high=120.0),
        figure("interrupt to silence, longest ms", "silent_most_ms", high=120.0),
        figure("interrupt to the first frame without speech, median ms", "other_ms", high=120.0),
        figure("interrupt to the first frame without speech, longest ms", "other_most_ms"),
        figure("pictures or motion, kbit/s", "picture_kbit_s"),
        figure("sound, kbit/s", "sound_kbit_s"),
        figure("opened, ms", "opened_ms"),
        Figure("core.wasm, kB", CORE.stat().st_size / 1e3),
        Figure("core.wasm with gzip, kB", len(gzip.compress(CORE.read_bytes(), 9)) / 1e3),
    ]
    publish("client", figures, [figures_table("Drawn here, beside pictures of the server", figures, "here")])


if __name__ == "__main__":
    run(main)
