"""Pictures as people have them: cut out, cut off, covered, a small face in a large photograph."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from wav import write_wav

import ditto
from ditto.errors import NoFaceError
from ditto.lite.rendering.mesh import MeshRenderer
from ditto.media.images import read_picture
from ditto.motion.motion import RenderPose
from ditto.portrait.cropping import check_seen
from ditto.portrait.registration import find_faces, register

PICTURES = Path(__file__).parents[1] / "fixtures" / "pictures"
PORTRAIT = Path(__file__).parents[2] / "examples" / "portrait.jpg"


@pytest.fixture(scope="module")
def renderer():
    return MeshRenderer(Path(ditto.__file__).parent / "bundles" / "lite")


@pytest.fixture(scope="module")
def picture():
    return read_picture(PORTRAIT, 640)[0]


def moved(renderer, portrait):
    """A frame with the head aside and the mouth open."""
    delta = np.zeros((21, 3))
    delta[[17, 19], 1] = 0.05
    pose = RenderPose(portrait.scale, portrait.rotation, portrait.translation + [0.06, 0.0, 0.0], delta)
    return renderer.paste_back(portrait)(renderer.render(renderer.prepare(portrait), pose))


def in_crop(portrait, values):
    """Values (H, W) of the picture under every pixel of the crop, nearest."""
    a, size = portrait.crop_to_picture, len(portrait.crop)
    y, x = np.mgrid[:size, :size]
    u, v = a[0, 0] * x + a[0, 1] * y + a[0, 2], a[1, 0] * x + a[1, 1] * y + a[1, 2]
    height, width = values.shape
    return values[np.clip(np.rint(v).astype(int), 0, height - 1), np.clip(np.rint(u).astype(int), 0, width - 1)]


def test_a_soft_cutout_is_soft_all_the_way_to_the_frames(renderer):
    portrait = register(PICTURES / "cutout_soft.png")
    rgb, alpha = read_picture(PICTURES / "cutout_soft.png")
    assert (portrait.alpha == alpha).all() and (portrait.picture == rgb).all()
    under = in_crop(portrait, alpha)
    assert portrait.mask[under < 2].max() < 0.05  # nothing to move where nothing is seen
    half = portrait.mask[(under > 100) & (under < 156)]
    assert half.max() < 0.75 and ((half > 0.3) & (half < 0.7)).mean() > 0.1  # soft where the person is
    plate = renderer.prepare(portrait).background.plate
    assert plate[under < 20].min() > 200  # white behind, no removed background
    frame = moved(renderer, portrait)
    assert frame[alpha == 0].min() > 150 and np.abs(frame.astype(int) - rgb).max() > 60


@pytest.mark.parametrize("level", [102, 178, 254])
def test_an_evenly_transparent_picture_is_shown_as_such_and_moves(renderer, picture, level):
    portrait = register(np.dstack([picture, np.full(picture.shape[:2], level, np.uint8)]))
    share = level / 255
    assert np.abs(portrait.picture - (picture * share + 255 * (1 - share))).max() <= 1
    assert (portrait.alpha == level).all()
    opaque = register(picture)
    assert np.abs(portrait.mask - opaque.mask).mean() < 0.05  # the person is as much a person as without
    frame = moved(renderer, portrait)
    assert (frame.min(-1) < 255 * (1 - share) - 12).mean() < 0.02  # nothing is darker, but for the inside of the mouth
    assert np.abs(frame.astype(int) - portrait.picture).max() > 60


def test_a_removed_background_does_not_come_back(renderer, picture):
    x = np.arange(picture.shape[1]) + np.zeros((picture.shape[0], 1))
    across = np.abs(x / picture.shape[1] - 0.5)
    alpha = np.rint(255 * np.clip((0.42 - across) / 0.08, 0, 1)).astype(np.uint8)
    removed = picture.copy()
    removed[across > 0.34] = (0, 255, 0)
    for behind in (removed, picture):
        portrait = register(np.dstack([behind, alpha]))
        assert (portrait.picture[alpha == 0] == 255).all()
        assert moved(renderer, portrait)[alpha == 0].min() > 200


def cut(picture, landmarks, side, at):
    """The picture without what lies beyond a landmark: below, to the left or to the right of it."""
    x, y = (int(v) // 2 * 2 for v in landmarks[at, :2])
    return np.ascontiguousarray({"below": picture[:y], "left": picture[:, x:], "right": picture[:, :x]}[side])


CUTS = [
    ("below", 0, "the mouth and the chin"),
    ("below", 13, "the mouth and the chin"),
    ("below", 18, "the chin"),
    ("left", 468, "the eye on the left"),
    ("right", 473, "the eye on the right"),
]


@pytest.mark.parametrize(("side", "at", "missing"), CUTS)
def test_what_lies_outside_of_the_picture_is_named(picture, side, at, missing):
    landmarks = find_faces(picture)[0].landmarks
    with pytest.raises(NoFaceError, match=f"^{missing} of the face (is|are) not in the picture"):
        register(cut(picture, landmarks, side, at))


def test_a_mouth_outside_of_the_picture_is_named():
    with pytest.raises(NoFaceError, match="the mouth and the chin of the face are not in the picture"):
        register(PICTURES / "no_mouth.jpg")


def test_a_picture_that_ends_close_to_the_face_is_taken(picture):
    landmarks = find_faces(picture)[0].landmarks[:, :2]
    (x0, y0), (x1, y1) = np.floor(landmarks.min(0)).astype(int) - 2, np.ceil(landmarks.max(0)).astype(int) + 3
    assert register(np.ascontiguousarray(picture[max(y0, 0) : y1, max(x0, 0) : x1])).scale > 0.5


def test_a_mouth_that_is_transparent_is_named(picture):
    landmarks = find_faces(picture)[0].landmarks
    check_seen(landmarks, *picture.shape[1::-1], np.full(picture.shape[:2], 3, np.uint8))
    alpha = np.full(picture.shape[:2], 255, np.uint8)
    alpha[int(landmarks[2, 1]) :] = 0
    with pytest.raises(NoFaceError, match="the mouth and the chin"):
        check_seen(landmarks, *picture.shape[1::-1], alpha)


@pytest.mark.parametrize("corner", [(0.7, 0.4), (1.0, 1.0)])
def test_a_small_face_in_a_large_photograph_is_found_and_shown_near(picture, corner, caplog):
    width, height, max_size = 2000, 1400, 400
    y, x = np.mgrid[:height, :width]
    photograph = np.stack([90 + 60 * np.sin(x / 300), 110 + 50 * np.cos(y / 200), 140 + 0.0 * x], -1).astype(np.uint8)
    small = read_picture(PORTRAIT, 220)[0]  # 48 pixels of face: 10 in a picture of 400
    left, top = round(corner[0] * (width - small.shape[1])), round(corner[1] * (height - small.shape[0]))
    photograph[top : top + small.shape[0], left : left + small.shape[1]] = small
    alpha = np.full((height, width), 200, np.uint8)
    alpha[0] = 7
    for given in (photograph, np.dstack([photograph, alpha])):
        portrait = register(given, max_size=max_size)
        assert portrait.picture.shape == (280, 400, 3)
        assert (portrait.alpha is None) == (given is photograph)
        whole, _ = read_picture(given, width)
        part = whole[top + 60 : top + 140, left + 60 : left + 140]
        assert cv2.matchTemplate(portrait.picture, part, cv2.TM_SQDIFF).min() < 1000.0  # cut out as it is (rounding of an FFT)
    assert "pixels high in the picture of 2000 x 1400; the frames show 400 x 280 of it" in caplog.text
    with pytest.raises(NoFaceError, match="face 1 was asked for"):
        register(photograph, face=1, max_size=max_size)


def test_a_picture_smaller_than_its_face_is_refused_with_a_size_that_works():
    with pytest.raises(NoFaceError, match=r"expected a max_size larger than the face.*, got 64; give \d+ or more") as caught:
        register(PORTRAIT, max_size=64)
    enough = int(re.search(r"give (\d+)", str(caught.value))[1])
    assert max(register(PORTRAIT, max_size=enough).picture.shape) <= enough


def test_a_large_face_in_a_large_photograph_is_reduced_as_before(picture):
    large = cv2.resize(picture, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC)
    portrait = register(large, max_size=480)
    assert (portrait.picture == read_picture(large, 480)[0]).all()


def covered(picture, landmarks, what):
    """A picture with something drawn before the mouth."""
    lips, width = landmarks[[0, 17, 61, 291], :2].mean(0), np.ptp(landmarks[:, 0])
    x, y, skin = int(lips[0]), int(lips[1]), picture[tuple(landmarks[205, 1::-1].astype(int))]
    out, half = picture.copy(), int(0.13 * width)
    if what == "caption":
        cv2.rectangle(out, (0, y - half), (out.shape[1], y + half), (0, 0, 0), -1)
        cv2.putText(out, "WHAT IS SAID HERE", (8, y + half // 3), cv2.FONT_HERSHEY_SIMPLEX, width / 250, (255, 255, 255), 2)
    for finger in range(4 if what == "hand" else 0):
        centre = x + int((finger - 1.5) * 0.13 * width), y + int(0.12 * width)
        axes = int(0.08 * width), int(0.35 * width)
        for tone, line in ((0.85 + 0.05 * finger, -1), (0.6, 2)):
            cv2.ellipse(out, centre, axes, 5, 0, 360, [int(v * tone) for v in skin], line)
    return out


@pytest.mark.parametrize("what", ["hand", "caption", "nothing"])
def test_a_covered_mouth_is_told(picture, what, caplog):
    register(covered(picture, find_faces(picture)[0].landmarks, what))
    assert ("the mouth is hardly seen" in caplog.text) == (what != "nothing")


def test_the_command_line_takes_a_picture_from_standard_input_or_a_pipe(tmp_path):
    sound, out = tmp_path / "a.wav", tmp_path / "a.mp4"
    write_wav(sound, 0.1 * np.sin(np.arange(8000) / 20), 16000)
    command = [sys.executable, "-m", "ditto", "animate", "-", str(sound), "-o", str(out), "--quiet"]
    data = (PICTURES / "closed_eyes_agnew.jpg").read_bytes()
    done = subprocess.run(command, input=data, capture_output=True, check=False)
    assert done.returncode == 0 and out.stat().st_size > 0, done.stderr
    for given, words in ((b"", "got 0 bytes"), (b"no picture", "expected a picture")):
        out.unlink(missing_ok=True)
        done = subprocess.run(command, input=given, capture_output=True, check=False, text=False)
        assert done.returncode == 2 and words in done.stderr.decode() and not out.exists()
        assert done.stderr.count(b"\n") == 1
    command[5] = "-"
    done = subprocess.run(command, input=data, capture_output=True, check=False)
    assert done.returncode == 2 and b"got it for both" in done.stderr
