"""The web client (clients/web) in a real Chromium without a screen, before a server whose clients may draw the lite bundle."""

import contextlib
import re
import shutil
from pathlib import Path

import httpx
import numpy as np
import pytest

pytest.importorskip("aiortc", reason="ditto serve is an extra: pip install 'ditto-talking-head[serve]'")
pytest.importorskip("fastapi", reason="ditto serve is an extra: pip install 'ditto-talking-head[serve]'")
pytest.importorskip("selenium", reason="the page is tested in a browser: pip install selenium")

from actors import PATIENT, until
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from serving import running
from wav import write_wav

import ditto
from ditto.live.server.app import PAGE, create_app
from ditto.media.audio import read_audio

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason="Chromium or its driver is not installed"),
    pytest.mark.skipif(not (PAGE / "core.wasm").is_file(), reason="core.wasm is not built: make wasm"),
]
ROOT = Path(__file__).parents[1]
EXAMPLES, CLIENT = ROOT / "examples", ROOT / "clients" / "web"
SPOKEN = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
FRAME_MS = 40
HEADER_BYTES, MOTION_BYTES = 28, 140

# Opens a face in an empty document of the server. `seen` are the frames shown, `said` the messages, `ways` who draws.
OPEN = """
const options = arguments[0], done = arguments[arguments.length - 1];
(async () => {
  const { connect } = await import("/client/index.js");
  window.face?.close();
  const canvas = document.createElement("canvas");
  document.body.replaceChildren(canvas);
  Object.assign(window, { seen: [], said: [], ways: [] });
  window.face = await connect(canvas, {
    ...options,
    onshown: (frame) => seen.push({ ...frame, at: performance.now() }),
    onmessage: (message) => said.push(message),
    ondrawing: (drawing) => ways.push(drawing),
  });
  await face.sound(true);
})().then(() => done(null), (error) => done(error.message));
"""


@pytest.fixture(scope="module")
def head():
    return ditto.load("lite", max_sessions=4)


@pytest.fixture(scope="module")
def portrait(head):
    found = head.register(EXAMPLES / "portrait.jpg", max_size=256)
    head.appearance(found)
    return found


@pytest.fixture(scope="module")
def place(head, portrait):
    with running(create_app(head, portrait, client_drawing="all")) as place:
        yield place


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    samples = read_audio(EXAMPLES / "speech.flac")[: 4 * 16000]
    file = tmp_path_factory.mktemp("speech") / "speech.wav"
    return write_wav(file, np.int16(np.clip(samples, -1, 1) * 32767)).read_bytes()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """With a microphone into which the example is spoken, again and again, after a second of silence."""
    spoken = read_audio(EXAMPLES / "speech.flac")[: 3 * 16000]
    sound = np.concatenate([np.zeros(16000), spoken, np.zeros(24000)])
    voice = write_wav(tmp_path_factory.mktemp("voice") / "voice.wav", np.int16(np.clip(sound, -1, 1) * 32767))
    options = Options()
    options.binary_location = CHROMIUM
    for argument in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1280,1000",
        "--autoplay-policy=no-user-gesture-required", "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream", f"--use-file-for-fake-audio-capture={voice}",
    ):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(DRIVER))
    browser.set_script_timeout(PATIENT)
    try:
        yield browser
    finally:
        with contextlib.suppress(Exception):
            browser.get("about:blank")
        browser.quit()


def opened(browser, place, **options):
    """A face in the browser; returns why it could not be opened, or None."""
    browser.get(f"http://{place}/healthz")
    return browser.execute_async_script(OPEN, options)


def js(browser, code, *arguments):
    return browser.execute_script(f"return {code}", *arguments)


def say(browser, place, speech):
    client = js(browser, "said[0].client")
    httpx.post(f"http://{place}/api/clients/{client}/speech", content=speech, timeout=PATIENT).raise_for_status()


def speaking(browser):
    return js(browser, "seen.filter((frame) => frame.kind === 'speech').length")


def text_of(browser, name):
    return js(browser, "document.getElementById(arguments[0]).textContent.trim()", name)


def messages(browser, kind):
    return js(browser, "said.filter((message) => message.type === arguments[0])", kind)


def test_frames_are_drawn_here_in_order_and_with_their_sound(browser, place, speech):
    assert opened(browser, place, drawing="here") is None
    assert js(browser, "face.drawing") == {"where": "here", "why": ""}
    assert messages(browser, "ready")[0]["video"] == "motion"
    say(browser, place, speech)
    assert until(lambda: messages(browser, "segment_end"))
    last = messages(browser, "segment_end")[0]["pts_seconds"] * 25 - 1
    assert until(lambda: js(browser, "seen.at(-1).kind") != "speech")
    seen, counts = js(browser, "seen"), js(browser, "face.statistics()")
    spoken = [frame for frame in seen if frame["kind"] == "speech"]
    print(f"{len(spoken)} of {last + 1:.0f} frames of speech shown; {counts}")
    indices = [frame["index"] for frame in seen]
    assert indices == sorted(set(indices))  # none twice, none out of order
    assert {frame["speechIndex"] for frame in spoken} <= set(range(int(last) + 1))
    # A frame is shown, or its time has passed before it could be: nothing is made up for later.
    assert 0 <= counts["due"] - counts["shown"] - counts["leftOut"] <= 2
    assert len(spoken) > 20
    # What is chosen is the frame whose 40 ms are heard just then.
    late = np.median([frame["late"] for frame in spoken])
    print(f"after the sound that belongs to it: {late:.0f} ms; drawing {counts['milliseconds']:.1f} ms")
    assert 0 <= late <= FRAME_MS + 10  # of the clock, which goes on in blocks


def test_an_interrupt_shows_and_plays_no_more_of_what_was_said(browser, place, speech):
    assert opened(browser, place, drawing="here") is None
    say(browser, place, speech)
    assert until(lambda: speaking(browser) > 10)
    browser.execute_script("window.cut = { at: performance.now(), seen: seen.length }; face.interrupt();")
    assert until(lambda: messages(browser, "interrupted"))
    epoch = messages(browser, "interrupted")[0]["epoch"]
    assert until(lambda: js(browser, "seen.slice(cut.seen).filter((frame) => frame.kind !== 'speech').length") > 5)
    after = js(browser, "seen.slice(cut.seen)")
    stale = [frame for frame in after if frame["kind"] == "speech" and frame["epoch"] < epoch]
    assert len(stale) <= 1 and stale == after[: len(stale)]  # the worker may have been drawing one
    first = next(frame for frame in after if frame["kind"] != "speech")
    print(f"from the interrupt to the first frame without speech: {first['at'] - js(browser, 'cut.at'):.0f} ms")
    say(browser, place, speech)
    assert until(lambda: js(browser, "seen.some((frame) => frame.kind === 'speech' && frame.epoch === arguments[0])", epoch))


def test_motion_takes_a_fraction_of_the_bytes_of_pictures(browser, place):
    sizes = {}
    for way in ("here", "server"):
        assert opened(browser, place, drawing=way) is None
        assert until(lambda: js(browser, "seen.length") >= 25)
        assert js(browser, "face.drawing.where") == way
        # Bytes by the count of frames that came: each has its 40 ms of sound.
        sizes[way] = js(browser, "(({ pictureBytes, soundBytes }) => pictureBytes / (soundBytes / 1920))(face.statistics())")
    print(f"bytes a frame: {sizes}")
    assert sizes["here"] == HEADER_BYTES + MOTION_BYTES
    assert sizes["server"] > 20 * sizes["here"]


def test_a_page_that_was_hidden_shows_the_newest_frame(browser, place):
    assert opened(browser, place, drawing="here") is None
    assert until(lambda: js(browser, "seen.length") >= 5)
    # Hidden pages get no animation frames.
    browser.execute_script("""
        window.real = window.requestAnimationFrame;
        window.requestAnimationFrame = (callback) => { window.held = callback; return 0; };""")
    assert until(lambda: js(browser, "typeof held === 'function'"))
    due, shown = js(browser, "[face.statistics().due, seen.length]")
    assert until(lambda: js(browser, "face.statistics().due") > due + 40)
    browser.execute_script("window.requestAnimationFrame = real; held(performance.now());")
    assert until(lambda: js(browser, "seen.length") >= shown + 5)
    indices = js(browser, "seen.slice(arguments[0] - 1).map((frame) => frame.index)", shown)
    assert max(np.diff(indices)[:2]) > 30  # one may have been drawn when the page was hidden
    assert js(browser, "face.statistics().leftOut") > 30


def test_without_an_audio_worklet_the_page_plays_the_sound(browser, place, speech):
    browser.get(f"http://{place}/healthz")  # http from another machine has none
    browser.execute_script("Object.defineProperty(BaseAudioContext.prototype, 'audioWorklet', { value: undefined })")
    assert browser.execute_async_script(OPEN, {"drawing": "here"}) is None
    say(browser, place, speech)
    assert until(lambda: speaking(browser) > 10)
    browser.execute_script("face.interrupt()")
    assert until(lambda: messages(browser, "interrupted"))
    assert until(lambda: js(browser, "seen.at(-1).kind") != "speech")


def test_slow_drawing_falls_back_to_pictures_of_the_server(browser, place):
    assert opened(browser, place, slowMilliseconds=0) is None
    assert js(browser, "ways") == [{"where": "here", "why": ""}]
    assert until(lambda: js(browser, "ways.length") == 2)
    (_, now), count = js(browser, "ways"), js(browser, "seen.length")
    assert now["where"] == "server" and "ms a frame here, more than 0" in now["why"]
    assert until(lambda: js(browser, "seen.length") > count + 5)
    first, second = messages(browser, "ready")
    assert (first["video"], second["video"]) == ("motion", "jpeg")
    assert first["client"] == second["client"]
    assert js(browser, "document.querySelector('canvas') === face.canvas")
    assert browser.execute_async_script(OPEN, {}) is None  # the page remembers
    assert js(browser, "[face.drawing.where, face.drawing.why]") == ["server", now["why"]]


def test_without_simd_or_the_servers_leave_the_server_draws(browser, place, head, portrait):
    browser.get(f"http://{place}/healthz")
    browser.execute_script("WebAssembly.validate = () => false")
    assert browser.execute_async_script(OPEN, {}) is None
    assert js(browser, "face.drawing") == {"where": "server", "why": "this browser has no WebAssembly SIMD"}
    assert until(lambda: js(browser, "seen.length") > 2)
    browser.execute_script("face.close()")
    with running(create_app(head, portrait)) as other:
        assert opened(browser, other) is None
        assert js(browser, "face.drawing") == {"where": "server", "why": "the server gives no portraits out"}
        refused = opened(browser, other, drawing="here")
        assert refused == "The face cannot be drawn here: the server gives no portraits out."
        # A page that was told otherwise: the server's refusal comes over the socket, and the session begins with pictures.
        stale = {"client_drawing": "all", "core": {}}
        assert opened(browser, other, info=stale) is None
        assert "expected a portrait that this server gives out" in js(browser, "face.drawing.why")
        assert until(lambda: js(browser, "seen.length") > 2)
        browser.execute_script("face.close()")


def test_the_picture_has_the_label_and_the_face(browser, place, portrait):
    bright = []
    for label in (True, False):
        assert opened(browser, place, drawing="here", label=label) is None
        assert until(lambda: js(browser, "seen.length") > 2)
        height, width, _ = portrait.picture.shape
        assert js(browser, "[face.canvas.width, face.canvas.height]") == [width, height]
        pixels = js(browser, """(() => {
            const copy = document.createElement("canvas");
            Object.assign(copy, { width: face.canvas.width, height: face.canvas.height });
            const context = copy.getContext("2d");
            context.drawImage(face.canvas, 0, 0);
            return [...context.getImageData(0, 0, copy.width, copy.height).data];
        })()""")  # fmt: skip
        picture = np.array(pixels, np.uint8).reshape(height, width, 4)[..., :3]
        # The face moves a little; the picture is the portrait's.
        assert np.abs(picture.astype(int) - portrait.picture).mean() < 12
        corner = picture[-20:, -60:].astype(int)
        bright.append((np.abs(corner - portrait.picture[-20:, -60:]) > 40).sum())
    assert bright[0] > 200 > bright[1] or bright[0] > 5 * bright[1] + 50


@SPOKEN
def test_the_example_of_its_page_works(browser, place):
    page = (CLIENT / "README.md").read_text()
    (html,) = re.findall(r"```html\n(.*?)```", page, re.S)
    assert len(html.strip().splitlines()) <= 10
    elements, code = re.fullmatch(r'(.*)<script type="module">\n(.*)</script>\n', html, re.S).groups()
    code = code.replace('import { connect } from "/client/index.js"', 'const { connect } = await import("/client/index.js")')
    assert "await import" in code  # the same as a module of a page, where nothing may be written into the page
    browser.get(f"http://{place}/healthz")
    browser.execute_script("document.body.innerHTML = arguments[0]", elements)
    run = f"(async () => {{ {code}; window.face = face; }})()"
    done = "arguments[arguments.length - 1]"
    assert browser.execute_async_script(f"const d = {done}; {run}.then(() => d(null), (e) => d(e.message))") is None
    browser.find_element(By.ID, "hello").click()
    assert until(lambda: js(browser, "face.statistics().shown") > 10)
    assert js(browser, "document.getElementById('face') === face.canvas && face.canvas.width") == 256


@SPOKEN
def test_the_served_page_draws_here_and_does_what_it_does(browser, place):
    def text(name):
        return text_of(browser, name)

    browser.get_log("browser")
    for width in (400, 1280):
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        browser.get(f"http://{place}/?drawing=here")
        assert until(lambda: text("status") == "Live"), text("notice-text")
        assert text("drawn") == "Drawn here, by your browser."
        assert not browser.find_element(By.CLASS_NAME, "synthetic").is_displayed()  # the picture has the label
        assert browser.find_element(By.ID, "canvas").is_displayed()
        assert js(browser, "document.documentElement.scrollWidth") <= width
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    field = browser.find_element(By.ID, "text")
    field.clear()
    field.send_keys("one two three four five six seven eight nine ten " * 4)
    browser.find_element(By.ID, "say-button").click()
    assert until(lambda: text("status") == "Speaking")
    browser.find_element(By.TAG_NAME, "body").send_keys(Keys.ESCAPE)
    assert until(lambda: text("message").startswith("Interrupted after"))
    field.clear()
    field.send_keys("Good.")
    browser.find_element(By.ID, "say-button").click()
    assert until(lambda: text("message").startswith("Said"))
    browser.execute_script("document.getElementById('message').textContent = ''")
    browser.find_element(By.CSS_SELECTOR, "input[value=repeat]").click()
    assert until(lambda: text("message").startswith("Said"))  # what the microphone heard
    browser.find_element(By.CSS_SELECTOR, "input[value=listen]").click()
    assert until(lambda: "nods" in text("microphone-note"))
    browser.find_element(By.CSS_SELECTOR, "input[value=off]").click()
    assert until(lambda: text("microphone-note") == "The microphone is off.")
    assert text("drawn") == "Drawn here, by your browser."
    assert [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_the_served_page_draws_an_uploaded_portrait_where_only_those_are_given_out(browser, head, portrait):
    with running(create_app(head, portrait, client_drawing="uploaded", max_size=256)) as place:
        browser.get(f"http://{place}/")
        assert until(lambda: text_of(browser, "status") == "Live"), text_of(browser, "notice-text")
        assert text_of(browser, "drawn") == "Drawn by the server: the server does not give this portrait out."
        browser.find_element(By.ID, "portrait").send_keys(str(EXAMPLES / "portrait.jpg"))
        # Drawn here; or, on a machine as slow as that, here for 20 frames and then by the server.
        drawn = "Drawn here|Drawn by the server: drawing takes"
        assert until(lambda: re.match(drawn, text_of(browser, "drawn"))), text_of(browser, "drawn")
        assert until(lambda: text_of(browser, "status") == "Live")
        browser.get("about:blank")
