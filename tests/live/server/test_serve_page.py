"""The page of `ditto serve` in a real Chromium without a screen, before the real lite bundle."""

import contextlib
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("aiortc", reason="ditto serve is an extra: pip install 'ditto-talking-head[serve]'")
pytest.importorskip("fastapi", reason="ditto serve is an extra: pip install 'ditto-talking-head[serve]'")
pytest.importorskip("selenium", reason="the page is tested in a browser: pip install selenium")

from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from serving import running, until
from wav import write_wav

import ditto
from ditto.live.server.app import create_app
from ditto.media.audio import read_audio
from ditto.motion.idle import idle_frame, initial_idle

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason="Chromium or its driver is not installed")
EXAMPLES = Path(__file__).parents[3] / "examples"
PICTURE = EXAMPLES / "portrait.jpg"
TOKEN = "a-token-for-the-page"
SPOKEN = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
SPEAKING = 8.0  # change of the mouth's pixels in 0.4 s, of 255; more in speech
LIPS = (13, 14, 61, 291)  # inner lips and corners, of the 478 landmarks

# Looks at the mouth every 40 ms: by how much its pixels change from one look to the next, summed over 0.4 s; `moved` is
# the largest of that since `begin`, `looks` counts them.
WATCH = """
const [left, top, width, height] = arguments;
const canvas = document.createElement("canvas");
canvas.width = 16; canvas.height = 12;
const context = canvas.getContext("2d", { willReadFrequently: true });
let last = [];
window.begin = () => { window.moved = 0; window.looks = 0; last = []; };
begin();
let before = null;
setInterval(() => {
  const shown = document.body.dataset.transport === "Socket"
    ? document.getElementById("canvas") : document.getElementById("video");
  if (shown.hidden) return;
  context.drawImage(shown, left, top, width, height, 0, 0, 16, 12);
  const now = context.getImageData(0, 0, 16, 12).data;
  if (before) {
    let change = 0;
    for (let i = 0; i < now.length; i++) change += Math.abs(now[i] - before[i]);
    last = [...last.slice(-9), change / now.length];
    const sum = last.reduce((all, one) => all + one, 0);
    window.moved = Math.max(window.moved, sum);
    window.looks += 1;
  }
  before = now;
}, 40);
"""


@pytest.fixture(scope="module", autouse=True)
def unmoved_when_silent():
    """What moves the mouth is speech alone: a silent face could lift its mouth corners just now."""
    still, _ = idle_frame(initial_idle(), 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ditto.row_performer.idle_frame", lambda state, *_: (still, state))
        yield


@pytest.fixture(scope="module")
def head():
    return ditto.load("lite", max_sessions=4)


@pytest.fixture(scope="module")
def portrait(head):
    found = head.register(PICTURE, max_size=256)
    head.appearance(found)
    return found


@pytest.fixture(scope="module")
def place(head, portrait):
    with running(create_app(head, portrait, max_size=512)) as place:
        yield place


@contextlib.contextmanager
def chromium(*arguments):
    options = Options()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", *arguments):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        yield browser
    finally:
        with contextlib.suppress(Exception):
            browser.get("about:blank")  # the page says goodbye to the server
        browser.quit()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """With a microphone into which the example is spoken, again and again, after a second of silence."""
    spoken = read_audio(EXAMPLES / "speech.flac")[: 6 * 16000]
    sound = np.concatenate([np.zeros(16000), spoken, np.zeros(24000)])
    file = write_wav(tmp_path_factory.mktemp("voice") / "voice.wav", np.int16(np.clip(sound, -1, 1) * 32767))
    with chromium(
        "--window-size=1280,1000", "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={file}",
    ) as browser:  # fmt: skip
        yield browser


def opened(browser, place, query=""):
    browser.get(f"http://{place}/{query}")
    assert until(lambda: text(browser, "status") == "Live"), (text(browser, "status"), text(browser, "notice-text"))


def text(browser, name):
    return browser.execute_script("return document.getElementById(arguments[0]).textContent.trim()", name)


def choose(browser, microphone):
    browser.find_element(By.CSS_SELECTOR, f"input[value={microphone}]").click()


def mouth_of(portrait):
    """left, top, width, height of the mouth in the picture, with a margin for what it does."""
    crop = portrait.landmarks[list(LIPS), :2]
    points = crop @ portrait.crop_to_picture[:2, :2].T + portrait.crop_to_picture[:2, 2]
    (left, top), (right, bottom) = points.min(0), points.max(0)
    margin = 0.25 * (right - left)
    return [float(value) for value in (left, top - margin, right - left, bottom - top + 3 * margin)]


def watch(browser, portrait):
    """Look at the mouth from now on; nothing is said, so it does not move."""
    browser.execute_script(WATCH, *mouth_of(portrait))

    def calm():  # a video of changing quality moves too, at first
        browser.execute_script("begin()")
        assert until(lambda: browser.execute_script("return looks") > 25)
        return browser.execute_script("return moved") < SPEAKING / 2

    assert until(calm)
    browser.execute_script("begin()")


def speaks(browser):
    """Whether the mouth comes to move as it does in speech."""
    return until(lambda: browser.execute_script("return moved") > SPEAKING)


@SPOKEN
@pytest.mark.parametrize("transport", ["webrtc", "websocket"])
def test_typed_text_is_spoken(browser, place, portrait, transport):
    opened(browser, place, f"?transport={transport}")
    watch(browser, portrait)
    browser.find_element(By.ID, "say-button").click()
    assert speaks(browser)
    assert until(lambda: text(browser, "delay-compute").isdigit())
    assert text(browser, "delay-algorithmic") == "160"
    assert "after 0.16 s of speech" in text(browser, "latency")
    assert until(lambda: text(browser, "message").startswith("Said"))


def test_the_page_repeats_the_microphone(browser, place, portrait):
    opened(browser, place)
    watch(browser, portrait)
    choose(browser, "repeat")
    assert speaks(browser)
    assert text(browser, "microphone-note").startswith("Speak")
    assert until(lambda: text(browser, "message").startswith("Said"))  # the gate found the end of what was said
    choose(browser, "listen")
    assert until(lambda: "nods" in text(browser, "microphone-note"))
    choose(browser, "off")
    assert until(lambda: text(browser, "microphone-note") == "The microphone is off.")


@SPOKEN
def test_interrupt_stops_speech(browser, place):
    opened(browser, place)
    field = browser.find_element(By.ID, "text")
    field.clear()
    field.send_keys("one two three four five six seven eight nine ten " * 8)
    browser.find_element(By.ID, "say-button").click()
    assert until(lambda: text(browser, "status") == "Speaking")
    browser.find_element(By.TAG_NAME, "body").send_keys(Keys.ESCAPE)
    assert until(lambda: text(browser, "message").startswith("Interrupted after"))
    assert text(browser, "status") == "Live"


def test_a_recording_is_spoken(browser, place):
    opened(browser, place)
    browser.find_element(By.ID, "recording").send_keys(str(EXAMPLES / "speech.flac"))
    assert until(lambda: text(browser, "status") == "Speaking")
    assert text(browser, "recording-note") == "Saying speech.flac"
    browser.find_element(By.ID, "interrupt").click()
    assert until(lambda: text(browser, "message").startswith("Interrupted after"))
    browser.find_element(By.ID, "recording").send_keys(str(PICTURE))
    assert until(lambda: "Expected a sound file" in text(browser, "recording-note"))


def test_portraits_are_accepted_or_refused_with_a_message(browser, place, tmp_path):
    opened(browser, place)
    upload = browser.find_element(By.ID, "portrait")
    Image.new("RGB", (300, 300), "grey").save(tmp_path / "nobody.png")
    upload.send_keys(str(tmp_path / "nobody.png"))
    assert until(lambda: "No human face was found" in text(browser, "portrait-note"))
    face = Image.open(PICTURE)
    two = Image.new("RGB", (2 * face.width, face.height))
    two.paste(face, (0, 0))
    two.paste(face, (face.width, 0))
    two.save(tmp_path / "two.png")
    upload.send_keys(str(tmp_path / "two.png"))
    assert until(lambda: "2 faces" in text(browser, "portrait-note"))
    largest = browser.find_element(By.ID, "largest")
    assert largest.is_displayed()
    largest.click()
    assert until(lambda: "512 × 256" in text(browser, "portrait-note"))
    assert until(lambda: text(browser, "status") == "Live")
    shown = """const video = document.getElementById("video"), canvas = document.getElementById("canvas");
        return canvas.hidden ? [video.videoWidth, video.videoHeight] : [canvas.width, canvas.height]"""
    assert until(lambda: browser.execute_script(shown) == [512, 256]), (
        browser.execute_script(shown), text(browser, "status"), text(browser, "notice-text"),
        browser.execute_script("return document.body.dataset.transport"),
    )  # fmt: skip
    assert not largest.is_displayed()


def test_controls_are_sent_from_keyboard_and_pointer(browser, place):
    opened(browser, place)
    pad = browser.find_element(By.ID, "pad")
    pad.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_UP)
    assert pad.get_attribute("aria-valuetext") == "4 degrees right, 2 degrees up"
    browser.find_element(By.ID, "ahead").click()
    assert pad.get_attribute("aria-valuetext") == "straight ahead"
    for name in ("happy", "sad", "angry"):  # together more than one: scaled, so nothing is refused
        browser.execute_script(
            "const s = document.getElementById('emotion-' + arguments[0]); s.value = 90;"
            "s.dispatchEvent(new Event('input', { bubbles: true }))", name)  # fmt: skip
    browser.find_element(By.ID, "interrupt").click()
    assert until(lambda: text(browser, "message") == "Nothing was being said.")  # and no error before it


@pytest.mark.parametrize("width", [320, 360, 800, 1280])
def test_nothing_overflows(browser, place, width):
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        opened(browser, place)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        past_the_edge = """return [...document.querySelectorAll("main *, header *, footer *")]
            .filter((item) => item.getBoundingClientRect().right > innerWidth + 1).map((item) => item.id || item.tagName)"""
        assert browser.execute_script(past_the_edge) == []
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_page_is_of_this_server_alone_named_and_without_errors(browser, place):
    browser.get_log("browser")
    opened(browser, place)
    loaded = browser.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert loaded
    assert all(name.startswith(f"http://{place}/") for name in loaded)
    unnamed = """return [...document.querySelectorAll("button, input, select, textarea, [role=slider]")].filter((item) =>
        !(item.getAttribute("aria-label") || item.labels?.length || item.textContent.trim())).map((item) => item.id)"""
    assert browser.execute_script(unnamed) == []
    assert [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_a_refused_or_missing_microphone_shows_a_message(place):
    with chromium("--use-fake-device-for-media-stream") as browser:
        browser.execute_cdp_cmd("Browser.setPermission", {"permission": {"name": "microphone"}, "setting": "denied"})
        opened(browser, place)
        choose(browser, "repeat")
        assert until(lambda: "refused the microphone" in text(browser, "microphone-note"))
        assert browser.execute_script("return document.querySelector('input[name=microphone]:checked').value") == "off"
        browser.execute_cdp_cmd("Browser.setPermission", {"permission": {"name": "microphone"}, "setting": "granted"})
        browser.execute_script(
            "navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('', 'NotFoundError'))"
        )
        choose(browser, "repeat")
        assert until(lambda: "No microphone was found" in text(browser, "microphone-note"))


def test_over_plain_http_from_elsewhere_the_token_is_asked_and_the_microphone_explained(head, portrait):
    with (
        running(create_app(head, portrait, token=TOKEN)) as place,
        chromium("--host-resolver-rules=MAP portrait.test 127.0.0.1") as browser,
    ):
        elsewhere = place.replace("127.0.0.1", "portrait.test")
        browser.get(f"http://{elsewhere}/")
        assert "Token needed" in browser.page_source
        browser.find_element(By.NAME, "token").send_keys(TOKEN, Keys.ENTER)
        assert until(lambda: browser.find_elements(By.ID, "status") and text(browser, "status") == "Live")
        assert TOKEN not in browser.current_url
        choose(browser, "repeat")
        assert until(lambda: "only to https pages" in text(browser, "microphone-note"))
