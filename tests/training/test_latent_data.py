"""Clips rendered by lite for the latent systems: what is planned, what a clip holds, a rendering that goes on."""

from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch")

from wav import write_wav

from ditto.errors import InputError
from ditto.latent.region import cut_square, square_around, square_of
from ditto.media.audio import read_audio
from ditto.training.latent import data
from ditto.training.latent.data import Job, open_clips, plan, render_clips
from ditto.training.latent.footage import seen_motion, squares_of

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def rendered(tmp_path_factory, portrait):
    """A folder of one clip of 13 frames, of a small picture."""
    folder = tmp_path_factory.mktemp("data")
    cv2.imwrite(str(folder / "face.png"), np.ascontiguousarray(portrait.picture[..., ::-1]))
    write_wav(folder / "speech.wav", read_audio(EXAMPLES / "speech.flac")[: 16 * 640])
    job = Job("one", folder / "face.png", folder / "speech.wav", 3, "train")
    render_clips([job], folder / "clips", side=32, report=lambda line: None)
    return job, folder / "clips"


def test_a_clip_holds_what_was_rendered(rendered, portrait):
    _, folder = rendered
    clips = open_clips(folder)
    (info,) = clips.of("train")
    assert (info.name, info.portrait, info.speech, info.seed, info.frames) == ("one", "face.png", "speech.wav", 3, 13)
    clip = clips.load(info)
    assert clip.frames.shape == (13, 32, 32, 3) and clip.frames.dtype == np.uint8
    assert clip.features.shape == (13, 368) and clip.motion.shape == (13, 70) and clip.sound.shape == (13 * 640,)
    assert np.array_equal(clips.frames(info, 4, 2), clip.frames[4:6]) and np.array_equal(clips.source(info), clip.source)
    difference = np.abs(clip.frames.astype(int) - clip.source)
    assert difference.mean() < 12  # the same face in the same square
    assert difference.max() > 20  # and it speaks
    assert np.ptp(clip.motion, axis=0).max() > 0.01 and np.isfinite(clip.motion).all()


class StandInHead:
    def register(self, picture, max_size):
        return picture


def test_a_rendering_goes_on(rendered, monkeypatch):
    """A finished clip is kept where it was made for the same job, and made again for another."""
    job, folder = rendered
    path, asked = data.clip_file(folder, "one"), []
    before = path.read_bytes()
    clip = open_clips(folder).load(open_clips(folder).clips[0])
    monkeypatch.setattr(data, "load", lambda bundle: StandInHead())
    monkeypatch.setattr(data, "render_clip", lambda *given: asked.append(given[2]) or clip)
    render_clips([job], folder, side=32, report=lambda line: None)
    assert not asked and path.read_bytes() == before
    other = job._replace(seed=4)
    render_clips([other], folder.parent / "other", side=32, report=lambda line: None)
    render_clips([job], folder.parent / "other", side=32, report=lambda line: None)
    assert asked == [other, job]


def test_a_square_is_cut_and_repeats_the_border():
    picture = np.zeros((40, 40, 3), np.uint8)
    picture[:, 20:] = 200
    cut = cut_square(picture, np.array([19.5, 19.5, 8.0]), 16)
    assert cut.shape == (16, 16, 3) and (cut[:, :7] == 0).all() and (cut[:, 9:] == 200).all()
    outside = cut_square(picture, np.array([39.5, 0.0, 16.0]), 8)
    assert (outside == 200).all(axis=(0, 2))[1:].all()


def test_a_turned_square_is_the_picture_turned_back():
    picture = np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)
    square = np.array([19.5, 19.5, 10.0])
    upright, turned = (cut_square(picture, square, 20, angle).astype(int) for angle in (0.0, np.pi / 2))
    assert np.abs(turned - np.rot90(upright)).max() <= 1  # a quarter clockwise: what was at the right is at the top


def test_squares_follow_a_head_that_moves_grows_and_rolls(portrait):
    steps = np.linspace(0, 1, 60)
    turns = 0.3 * steps
    c, s = np.exp(0.2 * steps) * np.cos(turns), np.exp(0.2 * steps) * np.sin(turns)
    moves = np.column_stack([30 * steps, -12 * steps])

    def posed(point, frame):
        return np.array([[c[frame], -s[frame]], [s[frame], c[frame]]]) @ point + moves[frame]

    face = np.asarray(portrait.landmarks, float)
    landmarks = np.stack([np.repeat(face[None], 60, 0)[:, :, 2]] * 3, -1)
    for frame in range(60):
        opened = face[:, :2] + np.outer(np.arange(478) == 14, (0, 0 if frame == 20 else 15))
        landmarks[frame, :, :2] = [posed(point, frame) for point in opened]
        landmarks[frame, :, 2] = face[:, 2] * np.hypot(c[frame], s[frame])
    found = squares_of(landmarks)
    assert found.source == 20 and np.allclose(found.squares[20], square_around(landmarks[20, :, :2]))
    turn = np.array([[c[20], s[20]], [-s[20], c[20]]]) / (c[20] ** 2 + s[20] ** 2)
    centre = turn @ (found.squares[20, :2] - moves[20])
    for frame in range(10, 50):  # beyond, the smoothing feels the ends
        assert np.allclose(found.squares[frame, :2], posed(centre, frame), atol=0.1)
        grown = np.exp(0.2 * (steps[frame] - steps[20]))
        assert found.squares[frame, 2] == pytest.approx(found.squares[20, 2] * grown, rel=1e-3)
        assert found.angles[frame] == pytest.approx(turns[frame] - turns[20], abs=1e-3)


def test_the_motion_that_squares_leave_to_be_seen():
    motion = np.zeros((1, 70), np.float32)
    motion[0, :7] = 0.1, 90, 0, 30, 0.2, 0.3, 0.4
    motion[0, 7:10] = 1, 2, 3
    seen = seen_motion(motion)
    assert seen[0, :7].tolist() == [0, 90, 0, 0, 0, 0, 0]
    x, y, z = seen[0, 7:10]
    assert x == pytest.approx(1) and sorted(abs(np.array([y, z]))) == pytest.approx([2, 3])  # nodded by a right angle
    assert not seen[0, 10:].any()


def test_the_square_holds_the_face(portrait):
    x, y, half = square_of(portrait)
    points = portrait.landmarks[:, :2] @ portrait.crop_to_picture[:2, :2].T + portrait.crop_to_picture[:2, 2]
    assert (np.abs(points - (x, y)) < half).all()


def test_held_speech_and_portraits_are_never_trained_on():
    portraits, speeches = [Path(f"{name}.png") for name in "abc"], [Path(f"{i:02d}.wav") for i in range(30)]
    jobs = plan(portraits, speeches, 10, ["b"])
    trained, held = [j for j in jobs if j.split == "train"], [j for j in jobs if j.split == "held"]
    assert len(trained) == 10 and len(held) == 6 and len({job.name for job in jobs}) == 16
    assert {job.portrait.name for job in trained} == {"a.png", "c.png"}
    assert {job.portrait.name for job in held} == {"a.png", "b.png", "c.png"}
    assert not {job.speech for job in trained} & {job.speech for job in held}


def test_edited_clips_are_trained_on_after_the_others():
    portraits, speeches = [Path(f"{name}.png") for name in "ab"], [Path(f"{i}.wav") for i in range(6)]
    jobs = plan(portraits, speeches, 3, edited=2)
    assert [job for job in jobs if not job.edited] == plan(portraits, speeches, 3)
    assert [(job.name, job.portrait.name, job.speech.name, job.split) for job in jobs if job.edited] == [
        ("edited_0000", "b.png", "3.wav", "train"), ("edited_0001", "a.png", "0.wav", "train")
    ]  # fmt: skip
    assert len({job.seed for job in jobs}) == len(jobs)


def test_edits_follow_from_the_seed_and_move_smoothly():
    (controls, emotion), (again, same), (other, _) = (data.edits_of(seed, 125) for seed in (0, 0, 1))
    assert emotion == same and all(controls(frame) == again(frame) for frame in range(125))
    assert any(controls(frame) != other(frame) for frame in range(125))
    emotions = [data.edits_of(seed, 125)[1] for seed in range(50)]
    assert 10 < sum(map(bool, emotions)) < 30
    looks = np.array([[data.edits_of(seed, 125)[0](frame).gaze[0] for frame in range(125)] for seed in range(30)])
    assert 5 < (looks != 0).any(1).sum() < 20 and np.abs(looks).max() > 12 and np.abs(np.diff(looks)).max() < 4


def test_an_edited_clip_has_the_motion_that_it_shows(rendered):
    job, folder = rendered
    changes = {seed: data.edits_of(seed, 13) for seed in range(40)}
    seed = next(seed for seed, (controls, emotion) in changes.items() if emotion and controls(12) != controls(0))
    edited = job._replace(name="edited", seed=seed, edited=True)
    render_clips([edited], folder.parent / "edited", side=32, report=lambda line: None)
    clips = open_clips(folder.parent / "edited")
    clip, plain = clips.load(clips.clips[0]), open_clips(folder).load(open_clips(folder).clips[0])
    assert np.array_equal(clip.sound, plain.sound) and np.array_equal(clip.features, plain.features)
    assert np.abs(clip.motion - plain.motion).max() > 0.02 and (clip.frames != plain.frames).any()


@pytest.mark.parametrize(
    ("held", "speeches", "message"),
    [(["x"], 9, "begin with x, got none"), (["a", "b", "c"], 9, "got 0 and 9"), ([], 2, "got 3 and 2")],
)
def test_a_plan_without_clips_is_refused(held, speeches, message):
    with pytest.raises(InputError, match=message):
        plan([Path(f"{name}.png") for name in "abc"], [Path(f"{i}.wav") for i in range(speeches)], 4, held)


def test_speech_that_is_too_short_is_refused(rendered, tmp_path, monkeypatch):
    job, _ = rendered
    monkeypatch.setattr(data, "load", lambda bundle: StandInHead())
    write_wav(tmp_path / "short.wav", np.zeros(1000, np.float32))
    with pytest.raises(InputError, match=r"expected speech of 0.32 s or more in .*short.wav, got 0.06 s"):
        render_clips([job._replace(speech=tmp_path / "short.wav")], tmp_path / "out", report=lambda line: None)


def test_a_missing_folder_is_said_in_one_line(tmp_path, capsys):
    assert data.main([str(tmp_path / "none"), str(tmp_path), str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.startswith("ditto: expected a folder with portraits at")
