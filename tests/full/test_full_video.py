"""A video as the source of the full bundle: against recorded outputs of the released code, and all of it, tiny."""

import json
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from fixtures.reference.recipe import HERE, distance
from footage import write_video
from typer.testing import CliRunner
from wav import write_wav

torch = pytest.importorskip("torch", reason="the full pipeline needs torch (pip install ditto[full])")

from checkpoints import convert_tiny, publish  # noqa: E402

import ditto  # noqa: E402
from ditto.app.cli import app  # noqa: E402
from ditto.clip import Clip, Tracked, first_frames, order_of  # noqa: E402
from ditto.errors import InputError, VideoError  # noqa: E402
from ditto.full.cropping import cut, invert  # noqa: E402
from ditto.full.motion_math import pose_of  # noqa: E402
from ditto.full.paste_back import PasteBack  # noqa: E402
from ditto.full.retargeting import FrameEdit, RetargetOptions, retarget_motion  # noqa: E402
from ditto.full.sampler import FullSampler, Sampling  # noqa: E402
from ditto.full.source import SourceFrame, _transform_landmarks, motion_vector  # noqa: E402
from ditto.full.video_source import ClipRenderer, ClipSource, ShownClip, clip_retarget, open_clip  # noqa: E402
from ditto.motion.emotion import emotion_vector  # noqa: E402
from ditto.motion.motion import LIPS  # noqa: E402

FRAMES = 8
SPOKEN = 3  # frames that are drawn: each takes a quarter of a second
ROOT = Path(__file__).parents[2]
WIRING = 1e-5  # relative: float32 there, float64 here


def recorded(name):
    with np.load(HERE / f"wiring_{name}.npz", allow_pickle=False) as file:
        return dict(file)



def clip_of(path, frames, size=(64, 64)):
    """A clip whose face is not followed, for networks that do not look at it."""
    tracked = Tracked(np.zeros((frames, 478, 3), np.float32), np.ones(frames, np.float32), (), size)
    return Clip(str(path), None, 0, tracked, np.tile(np.eye(3), (frames, 1, 1)))


def numbered(folder, frames):
    """A video whose frame k has the brightness 8 k, and the function that gives frame k what is recorded for it."""
    pictures = [np.full((64, 64, 3), 8 * k, np.uint8) for k in range(frames)]
    return write_video(folder / "numbered.mkv", pictures, lossless=True)


def networks(motions, canonicals, eye_open=None, eye_ball=None):
    def frame(picture, landmarks, seen):
        k = round(picture.mean() / 8)
        eyes = (np.zeros(2), np.zeros(6)) if eye_open is None else (eye_open[k], eye_ball[k])
        return SourceFrame(np.eye(3), motions[k], canonicals[k], *eyes)

    return frame


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("clips")


def test_the_motion_of_a_clip_is_averaged_as_released(folder):
    arrays = recorded("motion_math")
    names = ("pitch", "yaw", "roll", "t", "exp", "scale", "kp")
    given, expected = ({name: arrays[f"smooth_x_s/{which}/{name}"] for name in names} for which in ("in", "out"))
    frames = len(given["exp"])
    motions = [motion_vector({name: values[k] for name, values in given.items()}) for k in range(frames)]
    clip = clip_of(numbered(folder, frames), frames)
    source = ClipSource(clip, networks(motions, given["kp"].reshape(frames, 63)), 13)
    for k in (3, 0, frames - 1, 7 % frames):
        motion, canonical = source.motion(k)
        assert distance(canonical, expected["kp"][k].reshape(-1)) <= WIRING
        assert distance(motion, motion_vector({name: values[k] for name, values in expected.items()})) <= WIRING


def test_the_motion_of_a_clip_is_not_averaged_over_a_cut(folder):
    motions = np.repeat(np.arange(8.0) > 3, 265).reshape(8, 265)
    clip = clip_of(numbered(folder, 8), 8)
    cut = Clip(clip.path, None, 0, clip.tracked._replace(cuts=(4,)), clip.crops)
    for one, expected in ((clip, 0.5), (cut, 0.0)):
        assert ClipSource(one, networks(motions, np.zeros((8, 63))), 13).motion(3)[0][0] == pytest.approx(expected)
    assert first_frames(cut, 4).tracked.cuts == () and first_frames(cut, 4).frames == 4


@pytest.mark.parametrize("case", ["video9_emoarr", "video9_f0"])
def test_the_eyes_of_a_clip_are_conditions_as_released(folder, case):
    arrays = recorded("condition")
    eyes = [arrays[f"cond/{case}/{name}"].reshape(9, -1) for name in ("eye_open", "eye_ball")]
    clip = clip_of(numbered(folder, 9), 9)
    source = ClipSource(clip, networks(np.zeros((9, 265)), np.zeros((9, 63)), *eyes), 13)
    shown = ShownClip(source, order_of(clip, "mirror"), case == "video9_f0")
    for key in [key for key in arrays if key.startswith(f"cond/{case}/idx")]:
        first = int(key.split("/")[2].removeprefix("idx"))
        lids, gaze = shown.eyes([max(0, first + k) for k in range(len(arrays[key]))])
        assert distance(np.concatenate([lids, gaze], 1), arrays[key][:, 8:16]) <= WIRING


@pytest.mark.parametrize("relative", [True, False])
def test_motion_is_retargeted_to_the_clip_s_own_of_each_frame(folder, relative):
    dice = np.random.default_rng(4)
    motions = (0.3 * dice.standard_normal((5, 265))).astype(np.float32)
    clip = clip_of(numbered(folder, 5), 5)
    shown = ShownClip(
        ClipSource(clip, networks(motions, np.zeros((5, 63))), 1), order_of(clip, "pingpong"), first_eyes=False
    )
    made = (0.3 * dice.standard_normal((1, 80, 265))).astype(np.float32)
    options, edit = RetargetOptions(relative=relative), FrameEdit(turn_factor={"yaw": 0.5}, speaking=0.8)
    sampler = FullSampler(
        lambda **_: {"motion": made}, lambda portrait: None, np.zeros((5, 4), np.float32),
        SimpleNamespace(hop_features=5, lookahead=2), Sampling(retarget=options, edit=edit, origin="first"),
    ).for_source(shown, clip_retarget(options, whole_face=False))  # fmt: skip
    rows, _ = sampler(np.zeros((12, 4), np.float32), emotion_vector(None), sampler.begin(None), final=True)
    released = RetargetOptions(relative=relative, factors={"exp": 1.0}, keypoints="lips")
    for k, frame in enumerate([0, 1, 2, 3, 4, 3, 2, 1, 0, 1, 2, 3]):
        pose, rest = pose_of(motions[frame]), None
        moved = made[0, max(0, k - 1) : k + 2].mean(0)  # pose is smoothed over 3; expression, which is moved, is not
        moved[202:] = made[0, k, 202:]
        rest = retarget_motion(motions[frame], moved, made[0, 0], released, edit)
        np.testing.assert_allclose(rows[k, 7:], rest.exp - pose.exp, atol=1e-5)
        np.testing.assert_allclose(rows[k, 1:4], rest.degrees - pose.degrees, atol=1e-3)


# The whole


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    publish(folder)
    return ditto.load(convert_tiny(folder, tmp_path_factory.mktemp("bundles") / "full").path)


@pytest.fixture(scope="module")
def recorded_pictures(head):
    still = head.register(ROOT / "examples" / "portrait.jpg", max_size=256).picture
    return [np.roll(still, 2 * k, axis=1) for k in range(FRAMES)]


@pytest.fixture(scope="module")
def video(recorded_pictures, folder):
    return write_video(folder / "person.mkv", recorded_pictures, lossless=True)


@pytest.fixture(scope="module")
def clip(head, video):
    return head.read_video(video)


@pytest.fixture(scope="module")
def speech():
    return np.random.default_rng(0).standard_normal(SPOKEN * 640).astype(np.float32) * 0.1


@pytest.fixture(scope="module")
def frames(head, clip, speech):
    return list(head.animate_video(clip, speech, seed=1))


def test_a_clip_speaks(head, clip, speech, frames, recorded_pictures):
    assert len(frames) == SPOKEN and frames[0].image.shape == (256, 256, 3)
    np.testing.assert_array_equal(np.concatenate([frame.audio for frame in frames]), speech)
    rows = np.stack([frame.motion.values for frame in frames])
    assert not rows[:, 1:7].any()  # the head is the clip's
    moved = np.abs(rows[:, 7:]).reshape(SPOKEN, 21, 3).max((0, 2)) > 0
    assert np.flatnonzero(moved).tolist() == sorted(LIPS)
    for frame, picture in zip(frames, recorded_pictures, strict=False):
        np.testing.assert_array_equal(frame.image[:, :4], picture[:, :4])  # what lies beyond the crop is the clip's
        assert (frame.image != picture).any()
    again = next(iter(head.animate_video(clip, speech, seed=1)))
    np.testing.assert_array_equal(again.image, frames[0].image)


def test_a_frame_of_a_clip_is_seen_as_its_picture(head, clip):
    """The networks find in a frame what they find in a portrait of it, and draw from the same volume."""
    reader, portrait = head.performer.renderer.source_of, clip.portrait
    still = reader(portrait)
    landmarks = _transform_landmarks(portrait.landmarks, portrait.crop_to_picture)
    found = reader.frame(portrait.picture, landmarks)
    np.testing.assert_array_equal(found.crop_to_picture, still.crop_to_picture)
    np.testing.assert_array_equal(found.motion, still.motion)
    np.testing.assert_array_equal(found.canonical, still.condition.canonical)
    np.testing.assert_array_equal(found.eye_open, still.condition.eye_open[0])
    volume = reader.volume(portrait.picture, found.crop_to_picture)
    np.testing.assert_allclose(np.asarray(volume), np.asarray(still.volume), atol=1e-3)
    crop = ClipSource(clip, reader.frame, 13).crop_to_picture(clip.reference)
    middles = np.stack([crop, still.crop_to_picture]) @ (256, 256, 1)
    assert np.linalg.norm(middles[0] - middles[1]) < 3.0  # registration finds its landmarks in another crop


def test_a_crop_goes_back_to_where_it_came_from(head, clip, recorded_pictures):
    shown = ShownClip(ClipSource(clip, head.performer.renderer.source_of.frame, 13), order_of(clip, "once"), first_eyes=False)
    reader = SimpleNamespace(volume=lambda picture, crop: cut(picture, invert(crop), 512))  # the volume is the crop itself
    same = SimpleNamespace(render=lambda source, motion: source.volume, paste_into=PasteBack)
    for k in (0, FRAMES - 1):
        drawn = ClipRenderer(same, reader, shown).draw(shown.order(k), recorded_pictures[k], None, None)
        away = np.abs(drawn.astype(int) - recorded_pictures[k])
        assert away.mean() < 2.0 and 0 < away.max()
        assert np.abs(np.roll(drawn, 1, 1).astype(int) - recorded_pictures[k]).mean() > 2.0  # a pixel aside is seen


def test_the_whole_face_moves_when_asked(head, clip, speech):
    mover, _ = open_clip(head.performer, clip, "forward", True)
    still = ditto.TalkingHead(head.bundle, mover)
    rows = np.stack([frame.motion.values for frame in still.animate(clip.portrait, np.tile(speech, 5), seed=1)])
    assert len(rows) == 5 * SPOKEN > FRAMES
    assert np.abs(rows[:, 1:7]).max() > 0 and (np.abs(rows[:, 7:]).max(0) > 0).all()
    with pytest.raises(ValueError, match="expected a loop of pingpong, mirror, forward, once, got 'round'"):
        head.animate_video(clip, speech, loop="round")


def test_where_the_face_is_lost_the_clip_is_shown_as_it_is(head, clip, speech, frames, recorded_pictures):
    trust = np.array([0.5, 0, 0, 0, 0, 0, 0, 0], np.float32)
    lost = Clip(clip.path, clip.portrait, clip.reference, clip.tracked._replace(trust=trust), clip.crops)
    found = [frame.image for frame in head.animate_video(lost, speech, seed=1)]
    half = (frames[0].image.astype(int) + recorded_pictures[0]) / 2
    assert np.abs(found[0] - half).max() <= 1.0
    np.testing.assert_array_equal(found[1:], recorded_pictures[1:SPOKEN])


def test_a_clip_that_was_cut_since_and_another_bundle_are_refused(head, clip, speech, recorded_pictures, folder):
    path = write_video(folder / "cut.mkv", recorded_pictures, lossless=True)
    other = Clip(str(path), clip.portrait, clip.reference, clip.tracked, clip.crops)
    write_video(path, recorded_pictures[:5], lossless=True)
    with pytest.raises(VideoError, match="has changed: frame 5 is not there any more"):
        list(head.animate_video(other, speech))
    with pytest.raises(InputError, match="expected the performer of a full bundle"):
        open_clip(ditto.load("lite").performer, clip, "once", False)


def test_the_command_animates_a_clip_with_a_full_bundle(head, video, speech, tmp_path):
    write_wav(tmp_path / "speech.wav", speech[:640])
    words = ["animate", video, tmp_path / "speech.wav", "-o", tmp_path / "out.mp4", "--bundle", head.bundle.path]
    done = CliRunner().invoke(app, [*map(str, words), "--set", "template_n_frames=6", "--set", "emo=3", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["clip_frames"] == FRAMES
    failed = CliRunner().invoke(app, [*map(str, words), "--set", "emo=happy"])
    assert failed.exit_code == 2 and "a setting is not usable: expected emo" in failed.output.replace("\n", " ")
    with av.open(str(tmp_path / "out.mp4")) as written:
        assert written.streams.video[0].width == 256 and written.streams.audio
