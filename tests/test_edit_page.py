"""The page of `ditto edit` in a real Chromium without a screen, before the real lite bundle."""

import contextlib
import json
import shutil
import time
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="ditto edit needs an extra: pip install 'ditto-talking-head[serve]'")
pytest.importorskip("selenium", reason="the page is tested in a browser: pip install selenium")

from actors import until
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from serving import running
from wav import write_wav

import ditto
from ditto.controls.timeline import Timeline
from ditto.controls.timeline_file import read_timeline, write_timeline
from ditto.editor.app import create_app
from ditto.editor.opening import open_project
from ditto.media.audio import read_audio
from ditto.take import Take

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason="Chromium or its driver is not installed")
PIXELS = """
const picture = document.getElementById("picture");
const canvas = document.createElement("canvas");
canvas.width = picture.naturalWidth || 1; canvas.height = picture.naturalHeight || 1;
canvas.getContext("2d").drawImage(picture, 0, 0);
return canvas.toDataURL();
"""
EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def head():
    return ditto.load("lite")


@pytest.fixture(scope="module")
def portrait(head):
    return head.register(EXAMPLES / "portrait.jpg", max_size=256)


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    """Two seconds of the example."""
    samples = read_audio(EXAMPLES / "speech.flac")[16000:48000]
    return write_wav(tmp_path_factory.mktemp("speech") / "speech.wav", samples)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "edit.yaml"
    write_timeline(Timeline().layer({"left_brow.y": [(0.4, 0.0), (1.0, -0.03)]}), path)
    return path


@pytest.fixture
def place(head, portrait, speech, file, tmp_path):
    project = open_project(head, portrait, speech, file, tmp_path)
    with running(create_app(project)) as place:
        yield place


@pytest.fixture(scope="module")
def downloads(tmp_path_factory):
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def browser(downloads):
    options = Options()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1400,1100"):
        options.add_argument(argument)
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        yield browser
    finally:
        with contextlib.suppress(Exception):
            browser.get("about:blank")
        browser.quit()


@pytest.fixture
def page(browser, place):
    browser.get(f"http://{place}/")
    assert until(lambda: browser.execute_script("return document.body.dataset.ready")), complaints(browser)
    yield browser
    found = complaints(browser)
    browser.get("about:blank")  # before the server ends
    complaints(browser)
    assert not found


def complaints(browser):
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


def picture(browser):
    return browser.execute_script(PIXELS)


def shown(browser):
    """The picture, once the preview has caught up."""
    before = [""]

    def still():
        now = picture(browser)
        same, before[0] = now == before[0], now
        time.sleep(0.15)
        return same

    assert until(still)
    return before[0]


def message(browser):
    return browser.find_element(By.ID, "message").text


def key(browser, name, index):
    return browser.find_element(By.CSS_SELECTOR, f'.key[data-key$="{name} {index}"]')


def keyframes(browser, file, name):
    browser.find_element(By.ID, "save").click()
    assert until(lambda: browser.find_element(By.ID, "file").get_attribute("data-changed") is None), message(browser)
    (track,) = (track for layer in read_timeline(file).layers for track in layer.tracks if track.name == name)
    return [(round(k.seconds, 3), k.value) for k in track.keyframes]


def test_a_dragged_keyframe_moves_and_undo_brings_it_back(page, file):
    handle = key(page, "left_brow.y", 1)
    width = handle.find_element(By.XPATH, "..").size["width"]
    ActionChains(page).drag_and_drop_by_offset(handle, round(0.2 / 2.0 * width), 0).perform()
    moved = keyframes(page, file, "left_brow.y")
    assert moved[0] == (0.4, 0.0) and moved[1][1] == -0.03 and abs(moved[1][0] - 1.2) <= 0.04
    page.find_element(By.ID, "undo").click()
    assert keyframes(page, file, "left_brow.y") == [(0.4, 0.0), (1.0, -0.03)]
    page.find_element(By.ID, "redo").click()
    assert keyframes(page, file, "left_brow.y") == moved


def test_a_keyframe_is_moved_changed_and_removed_by_the_keyboard(page, file):
    key(page, "left_brow.y", 1).send_keys(Keys.ARROW_RIGHT, Keys.ARROW_UP)
    ((_, _), (seconds, value)) = keyframes(page, file, "left_brow.y")
    assert seconds == 1.04 and -0.03 < value < -0.02
    key(page, "left_brow.y", 0).send_keys(Keys.DELETE)
    assert keyframes(page, file, "left_brow.y") == [(1.04, value)]


def test_a_slider_changes_the_picture_and_undo_brings_it_back(page):
    before = shown(page)
    page.find_element(By.ID, "tab-lips").click()
    slider = page.find_element(By.ID, "slider-lower_inner_lip.y")
    ActionChains(page).click_and_hold(slider).move_by_offset(60, 0).release().perform()
    assert shown(page) != before
    page.find_element(By.ID, "undo").click()
    assert shown(page) == before
    print("preview", page.find_element(By.ID, "latency").text)


def test_a_point_on_the_face_shows_its_controls(page):
    page.find_element(By.CSS_SELECTOR, '[aria-label="left brow"]').click()
    rows = [row.get_attribute("data-name") for row in page.find_elements(By.CSS_SELECTOR, ".control")]
    assert rows == ["left_brow.x", "left_brow.y", "left_brow.z"]


def test_a_control_gets_keyframes_where_its_button_is_pressed(page, file):
    search = page.find_element(By.ID, "search")
    search.send_keys("jawOpen")
    row = page.find_element(By.CSS_SELECTOR, '.control[data-name="jawOpen"]')
    row.find_element(By.TAG_NAME, "button").click()
    page.find_element(By.ID, "ruler").send_keys(Keys.PAGE_UP)
    number = row.find_element(By.CSS_SELECTOR, "input[type=number]")
    number.clear()
    number.send_keys("0.5", Keys.ENTER)
    assert keyframes(page, file, "jawOpen") == [(0.0, 0.0), (1.0, 0.5)]


def test_what_is_saved_comes_back_after_a_reload(page, file, place):
    page.find_element(By.ID, "tab-head").click()
    number = page.find_element(By.CSS_SELECTOR, '.control[data-name="head.yaw"] input[type=number]')
    number.clear()
    number.send_keys("8", Keys.ENTER)
    assert keyframes(page, file, "head.yaw") == [(0.0, 8.0)]
    page.get(f"http://{place}/")
    assert until(lambda: page.execute_script("return document.body.dataset.ready"))
    number = page.find_element(By.CSS_SELECTOR, '.control[data-name="head.yaw"] input[type=number]')
    assert float(number.get_attribute("value")) == 8.0


def test_a_timeline_file_is_opened_and_a_wrong_one_is_explained(page, tmp_path):
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    write_timeline(Timeline().layer({"jawOpen": 0.4}), good)
    bad.write_text("timeline: 1\nlayers:\n- controls:\n    jaw_open: 1\n")
    page.find_element(By.ID, "open").send_keys(str(good))
    assert until(lambda: "good.yaml" in message(page))
    assert page.find_element(By.CSS_SELECTOR, "[data-lane='0 jawOpen'] .hold").text == "0.4 throughout"
    page.find_element(By.ID, "open").send_keys(str(bad))
    assert until(lambda: "jawOpen" in message(page) and "line 4" in message(page)), message(page)
    assert [entry for entry in complaints(page) if "/api/parse" not in entry] == []  # the browser logs the refusal


@pytest.mark.parametrize("kind", ["take", "live-link", "mp4"])
def test_an_edit_is_exported(page, downloads, kind):
    from selenium.webdriver.support.ui import Select

    for old in downloads.iterdir():
        old.unlink()
    Select(page.find_element(By.ID, "format")).select_by_value(kind)
    page.find_element(By.ID, "export").click()
    assert until(lambda: message(page).startswith("Exported")), message(page)
    suffix = {"take": ".take", "live-link": ".csv", "mp4": ".mp4"}[kind]
    assert until(lambda: [file.suffix for file in downloads.iterdir()] == [suffix])  # the browser's own files are gone
    (found,) = downloads.iterdir()
    if kind == "take":
        assert Take.load(found).seconds == 2.0
    elif kind == "live-link":
        header, *rows = found.read_text().splitlines()
        assert header.startswith("Timecode,BlendShapeCount,EyeBlinkLeft") and len(rows) >= 50
    else:
        assert found.stat().st_size > 10_000


def test_the_recording_plays_and_the_picture_follows(page):
    page.find_element(By.ID, "play").click()
    seen = set()
    assert until(lambda: seen.add(picture(page)) or len(seen) > 5)
    page.find_element(By.ID, "play").click()
    assert float(page.find_element(By.ID, "clock").text.split()[0]) > 0.0


def test_every_part_is_reached_by_the_keyboard(page):
    """Tab goes through all that can be used: tools, picture, tabs, controls, timeline."""
    reached = set()
    page.find_element(By.TAG_NAME, "body").click()
    for _ in range(90):
        ActionChains(page).send_keys(Keys.TAB).perform()
        active = page.switch_to.active_element
        reached.add(active.get_attribute("id") or active.get_attribute("class"))
    assert {"save", "export", "play", "search", "tab-head", "slider-head.yaw", "ruler", "key", "blink"} <= reached
    print(json.dumps(sorted(reached)))
