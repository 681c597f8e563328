"""The measures of benchmarks.quality: known answers on made curves, and a clip against itself."""

import sys
import types

import numpy as np
import pytest

from benchmarks import measures, pictures, quality, theval
from benchmarks.natural import Mouth
from ditto.errors import InputError, VideoError
from ditto.lite.phones import PHONE_INDEX, PHONES
from ditto.motion.motion import rotation_matrix
from ditto.portrait.face_mesh import TEMPLATE

WIDTH_PX, SIZE = 200.0, (512, 512)


def faces(frames=50, degrees=None, opening=None, shut=()):
    """(T, 478, 3) px: the template face, turned by angles (T, 3), its lower lip down by an opening (T,), eyes shut in some."""
    face = np.repeat(TEMPLATE[None], frames, 0)
    if opening is not None:
        face[:, [14, 87, 317], 1] += np.asarray(opening)[:, None]
    for upper, lower in ((159, 145), (386, 374)):
        face[list(shut), upper] = face[list(shut), lower]
    turned = (
        face if degrees is None else np.stack([f @ rotation_matrix(*d) for f, d in zip(face, degrees, strict=True)])
    )
    return WIDTH_PX * turned + [256.0, 256.0, 0.0]


def heard(*phones):
    posteriors = np.zeros((len(phones), len(PHONES)))
    posteriors[np.arange(len(phones)), [PHONE_INDEX[phone] for phone in phones]] = 1.0
    return posteriors


def reference(landmarks, phones, samples=None):
    frames = len(landmarks)
    if samples is None:
        samples = np.random.default_rng(0).standard_normal(640 * frames).astype(np.float32)
    clip = quality.Clip(landmarks, SIZE, [], [])
    return quality.Reference("clip", None, clip, samples, phones, phones[:, 0] <= 0.5)


TALK = ["SIL"] * 10 + (["B"] * 2 + ["AA"] * 4 + ["S"] * 3) * 3 + ["SIL"] * 5 + ["M"] * 2 + ["AE"] * 6 + ["SIL"] * 10
GAPS = {"SIL": 0.03, "B": 0.0, "M": 0.0, "AA": 0.12, "AE": 0.1, "S": 0.05}


def test_a_clip_against_itself_is_perfect():
    opening = np.array([GAPS[phone] for phone in TALK])
    landmarks = faces(len(TALK), opening=opening)
    # The mouth of the template has a width that talk does not change: let it, a little.
    landmarks[:, 61, 0] -= 4.0 * np.sin(np.arange(len(TALK)))
    own = reference(landmarks, heard(*TALK))
    values = quality.clip_values(own.clip, own)
    assert values["lip opening, r"] == values["mouth width, r"] == pytest.approx(1.0)
    assert values["lip opening, lag in frames"] == values["mouth width, lag in frames"] == 0
    assert values["p b m: frames closed"] == values["p b m: sounds with a closure"] == 1.0
    assert np.isnan(values["opening in pauses of 10-19 frames, z"])  # those at the ends are not inside
    z = measures.z_scores(measures.lip_opening(landmarks))
    assert values["opening in pauses of 4-9 frames, z"] == pytest.approx(z[37:42].mean())
    figures = {f.name: f for f in quality.compared({"real": [values] * 4, "same": [values] * 4})}
    scores = [f for f in figures.values() if f.name.endswith("score")]
    assert len(scores) == 4
    assert all(f.bundles[0].value == pytest.approx(1.0) or np.isnan(f.real.value) for f in scores)


def test_lips_that_come_late_or_never_close_are_seen():
    opening = np.array([GAPS[phone] for phone in TALK])
    real = Mouth(opening, np.sin(np.arange(len(TALK))))
    late = quality.lip_values(Mouth(np.roll(opening, 2), real.width), real, heard(*TALK))
    assert late["lip opening, lag in frames"] == 2
    opened = np.where(np.arange(len(opening)) < 5, 0.04, 0.1)  # closed long before the first of them alone
    values = quality.lip_values(Mouth(opened, real.width), real, heard(*TALK))
    assert values["p b m: frames closed"] == values["p b m: sounds with a closure"] == 0.0
    assert values["frames closed (gap under .01 fw)"] == 0.0
    assert values["lip opening, mean, fw"] == pytest.approx(opened.mean())
    assert values["lip opening, std, fw"] == pytest.approx(opened.std())


def test_blinks_are_counted_and_timed_and_shut_eyes_are_none():
    lids = np.full(250, 0.06)
    lids[[20, 21, 22, 100, 101, 102, 103]] = 0.01
    lids[150:190] = 0.01  # asleep
    look = np.stack([np.where(np.arange(250) < 125, -0.01, 0.01), np.zeros(250)], -1)
    values = quality.eye_values(lids, look)
    assert values["blinks a minute"] == pytest.approx(2 * 60 / 10)
    assert values["blink, ms"] == pytest.approx(3.5 * 40)
    assert values["gaze, horizontal std, .001 fw"] == pytest.approx(10.0, rel=0.05)
    assert values["gaze, vertical std, .001 fw"] == 0.0


def test_gaze_is_the_iris_between_the_corners_of_the_eye():
    face = np.repeat(TEMPLATE[None], 2, 0)
    face[1, [468, 473], 0] += 0.02
    found = quality.gaze(face)
    np.testing.assert_allclose(found[1] - found[0], [0.02, 0.0], atol=1e-12)


def test_head_angles_and_bands_of_a_nod():
    times = np.arange(300) / 25.0
    nod = np.stack([5.0 * np.sin(2 * np.pi * 1.5 * times), 0 * times, 2.0 * np.sin(2 * np.pi * 0.25 * times)], -1)
    own = reference(faces(300, nod, 0.05 + 0.05 * np.sin(times * 9)), heard(*["AA"] * 300))
    values = quality.clip_values(own.clip, own)
    assert values["pitch: std"] == pytest.approx(5.0 / np.sqrt(2), rel=0.02)
    assert values["pitch: RMS 1-2 Hz"] == pytest.approx(5.0 / np.sqrt(2), rel=0.05)
    assert values["pitch: RMS 4-8 Hz"] < 0.2
    assert values["yaw: std"] < 0.05
    assert values["roll: RMS 0.15-0.5 Hz"] == pytest.approx(2.0 / np.sqrt(2), rel=0.1)  # the ends leak
    short = quality.head_values(nod[:75])
    assert np.isnan(short["roll: RMS 0.15-0.5 Hz"])  # 3 s do not hold a period
    assert short["pitch: median speed, a second"] == pytest.approx(5 * 2 * np.pi * 1.5 * np.sqrt(0.5), rel=0.15)


def test_jitter_is_trembling_and_not_movement():
    times = np.arange(100) / 25.0
    face = np.repeat(TEMPLATE[None], 100, 0)
    moving = face + (0.1 * times)[:, None, None]
    assert quality.jitter(moving) < 1e-9
    trembling = face + np.array([0.001, 0, 0]) * (-1.0) ** np.arange(100)[:, None, None]
    assert quality.jitter(trembling) == pytest.approx(4.0)


def test_the_interval_holds_the_mean_and_shrinks_with_more_clips():
    rng = np.random.default_rng(1)
    few, many = 3.0 + rng.standard_normal(8), 3.0 + rng.standard_normal(200)
    a, b = quality.bootstrap(quality.mean, few), quality.bootstrap(quality.mean, many)
    assert a.value == pytest.approx(few.mean())
    assert a.low < 3.0 < a.high
    assert b.high - b.low == pytest.approx(4 / np.sqrt(200), rel=0.15)  # 2 x 1.96 standard errors
    assert quality.bootstrap(quality.mean, few) == a  # the same numbers every time
    one = quality.bootstrap(quality.mean, [2.0, np.nan])
    assert one.value == 2.0
    assert np.isnan(one.low)
    assert str(quality.bootstrap(quality.mean, [np.nan])) == "-"


def test_a_difference_is_taken_clip_by_clip():
    first = np.arange(20.0)
    more = quality.bootstrap(quality.difference, first, first + 1.0)
    assert more == quality.Interval(1.0, 1.0, 1.0)  # however much the clips differ
    rows = quality.compared({"real": values_of(0.0), "a": values_of(1.0), "b": values_of(3.0)})
    (row,) = [r for r in rows if r.name == "x"]
    assert [i.value for i in (row.real, *row.bundles, row.more)] == [0.0, 1.0, 3.0, 2.0]


def values_of(x):
    return [{"x": x, **{f"THEval {name}": 1.0 for name in quality.THEVAL.values()}} for _ in range(4)]


# THEval


def shares(landmarks):
    return landmarks[..., :2] / np.array(SIZE, float)


def test_lip_dynamics_is_the_mean_deviation_of_all_lip_distances():
    still = 256 * shares(faces(40))
    assert theval.lip_dynamics(still) == pytest.approx(0.0, abs=1e-9)
    assert len(theval.LIPS) == 40
    # The lips grow and shrink as a whole: each distance by the same share.
    centre = still[:, theval.LIPS].mean(1, keepdims=True)
    factor = 1.0 + 0.1 * (-1.0) ** np.arange(40)[:, None, None]
    grown = still.copy()
    grown[:, theval.LIPS] = centre + factor * (still[:, theval.LIPS] - centre)
    lips = still[0, theval.LIPS]
    distances = [np.linalg.norm(lips[i] - lips[j]) for i in range(40) for j in range(i)]
    assert theval.lip_dynamics(grown) == pytest.approx(0.1 * np.mean(distances))
    moved = grown + 5.0 * np.arange(40)[:, None, None]
    assert theval.lip_dynamics(moved) == pytest.approx(theval.lip_dynamics(grown))


def test_eyebrows_are_the_change_from_frame_to_frame_in_distances_of_the_eyes():
    points = 256 * shares(faces(3))
    eyes = [points[0, eye].mean(0) for eye in theval.EYES]
    between = np.linalg.norm(eyes[1] - eyes[0])
    away = points[0, theval.BROWS[0]].mean(0) - eyes[0]
    raised = points.copy()
    raised[1, theval.BROWS[0]] += 0.1 * between * away / np.linalg.norm(away)  # one brow, in the middle frame
    assert theval.eyebrows(raised) == pytest.approx(0.2 / 4)  # two changes of .1 among four
    assert theval.eyebrows(points * 2.0) == pytest.approx(0.0, abs=1e-12)


def test_silences_are_a_third_of_a_second_at_least():
    speaking = np.ones(40, bool)
    speaking[5:12] = False  # 7 frames, .28 s
    speaking[20:28] = False  # 8 frames, .32 s
    assert np.flatnonzero(theval.silences(speaking)).tolist() == list(range(20, 28))


def test_silent_lips_are_the_median_deviation_from_the_mean_in_silence():
    opening = np.full(50, 0.3)
    opening[20:30] = [0.0, 0.04] * 5
    speaking = np.ones(50, bool)
    speaking[20:30] = False
    points = shares(faces(50))
    between = np.linalg.norm(points[0, 33] - points[0, 263])
    points[:, theval.LOWER_LIP, 1] = points[:, theval.UPPER_LIP, 1] + opening[:, None] * between
    assert theval.silent_lips(points, speaking) == pytest.approx(0.02)
    assert np.isnan(theval.silent_lips(points, np.ones(50, bool)))


def test_lip_sync_compares_opening_and_level_in_speech():
    rng = np.random.default_rng(2)
    loud = np.repeat(rng.random(50), 2)  # changes every 80 ms, so that blocks of 50 ms follow
    samples = np.sin(np.arange(64000) * 2 * np.pi * 500 / 16000) * np.repeat(loud, 640)
    speaking = np.ones(100, bool)
    speaking[60:] = False
    level = theval.levels(samples, 100)
    points = shares(faces(100))

    def opened(curve):
        out = points.copy()
        out[:, theval.LOWER_LIP, 1] = out[:, theval.UPPER_LIP, 1] + np.asarray(curve)[:, None]
        return out

    assert theval.lip_sync(opened(0.2 * level), samples, speaking) == pytest.approx(0.0, abs=1e-6)
    assert theval.lip_sync(opened(1.0 - level), samples, speaking) > 0.3
    silence = np.where(speaking, 0.2 * level, 9.0)
    assert theval.lip_sync(opened(silence), samples, speaking) == pytest.approx(0.0, abs=1e-6)  # only speech counts
    assert np.isnan(theval.lip_sync(points, samples, np.arange(100) < 9))


def test_speech_is_joined_padded_and_long_enough(monkeypatch):
    windows = [False] * 10 + [True] * 10 + [False] * 3 + [True] * 5 + [False] * 20 + [True] * 7 + [False] * 20

    class Detector:
        def push(self, samples):
            return windows

    monkeypatch.setattr(theval, "VoiceDetector", Detector)
    found = np.flatnonzero(theval.speech(np.zeros(75 * 512), 60))
    # From .32 to .896 s (the gap of 96 ms is none), 30 ms more at both ends; the last 224 ms are too short.
    assert found.tolist() == list(range(int(0.29 * 25), int(0.926 * 25) + 1))


def test_levels_are_root_mean_squares_of_blocks():
    samples = np.r_[np.zeros(8000), np.full(8000, 0.5)]
    level = theval.levels(samples, 25)
    assert level[:11].max() < 1e-9
    assert level[15:24] == pytest.approx(np.full(9, 0.5))


def test_a_score_is_one_less_the_relative_error():
    assert theval.score([2.0, 1.0, 3.0, 6.0], 2.0).tolist() == [1.0, 0.5, 0.5, -1.0]
    assert np.isnan(theval.score(1.0, 0.0))


# Pictures


def test_frechet_distance_of_known_gaussians():
    rng = np.random.default_rng(3)
    a = rng.standard_normal((4000, 3)) * [1.0, 2.0, 3.0]
    b = rng.standard_normal((4000, 3)) * [2.0, 2.0, 1.0] + [1.0, 0.0, 2.0]
    # Diagonal covariances: squared distances of means and of standard deviations.
    assert pictures.frechet_distance(a, b) == pytest.approx((1 + 4) + (1 + 0 + 4), rel=0.08)
    assert pictures.frechet_distance(a, a) == pytest.approx(0.0, abs=1e-6)
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    assert pictures.frechet_distance(a @ turn, b @ turn) == pytest.approx(pictures.frechet_distance(a, b))
    with pytest.raises(ValueError, match="at least 2 vectors"):
        pictures.frechet_distance(a[:1], b)


def test_a_face_is_aligned_to_the_five_points():
    rng = np.random.default_rng(4)
    points = pictures.FIVE_POINTS
    angle, scale, shift = 0.4, 2.5, np.array([30.0, -7.0])
    c, s = np.cos(angle), np.sin(angle)
    moved = scale * points @ np.array([[c, s], [-s, c]]) + shift
    back = pictures.similarity(moved, points)
    np.testing.assert_allclose(moved @ back[:, :2].T + back[:, 2], points, atol=1e-9)
    mirrored = pictures.similarity(points * [-1, 1], points)
    assert np.linalg.det(mirrored[:, :2]) > 0  # never a mirror image
    landmarks = faces(1)[0]
    image = rng.integers(0, 255, (512, 512, 3)).astype(np.uint8)
    assert pictures.aligned_face(image, landmarks).shape == (112, 112, 3)


def mean_colour(path, shape):
    """An ONNX network that gives the mean of each channel."""
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    axes = list(range(2, len(shape)))
    node = helper.make_node("ReduceMean", ["x"], ["y"], axes=axes, keepdims=0)
    x, y = helper.make_tensor_value_info("x", kind, shape), helper.make_tensor_value_info("y", kind, [1, 3])
    graph = helper.make_graph([node], "mean", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))
    return path


def test_a_network_sees_pictures_and_clips(tmp_path):
    network = pictures.Network(mean_colour(tmp_path / "a.onnx", [1, 3, 8, 6]), 4)
    assert network.shape == (8, 6)
    seen = network([np.full((20, 30, 3), (0, 255, 127.5), np.uint8), np.full((8, 6, 3), 255, np.uint8)])
    np.testing.assert_allclose(seen, [[-1, 1, 127 / 127.5 - 1], [1, 1, 1]], atol=1e-6)
    films = pictures.Network(mean_colour(tmp_path / "b.onnx", [1, 3, 2, 8, 6]), 5)
    assert films([np.zeros((9, 9, 3), np.uint8), np.full((9, 9, 3), 255, np.uint8)]) == pytest.approx(np.zeros((1, 3)))
    dynamic = mean_colour(tmp_path / "c.onnx", [1, 3, "h", "w"])
    with pytest.raises(InputError, match="of fixed size"):
        pictures.Network(dynamic, 4)
    with pytest.raises(InputError, match="which is no file"):
        pictures.Network(tmp_path / "no.onnx", 4)
    (tmp_path / "bad.onnx").write_bytes(b"no network")
    with pytest.raises(InputError, match="that ONNX Runtime can run"):
        pictures.Network(tmp_path / "bad.onnx", 4)


def test_identity_and_distances_of_a_clip_to_itself(tmp_path):
    rng = np.random.default_rng(5)
    images = [rng.integers(0, 255, (512, 512, 3)).astype(np.uint8) for _ in range(12)]
    clip = quality.Clip(faces(12), SIZE, images, [])
    own = reference(clip.landmarks, heard(*["AA"] * 12))._replace(clip=clip)
    network = pictures.Network(mean_colour(tmp_path / "a.onnx", [1, 3, 8, 6]), 4)
    films = pictures.Network(mean_colour(tmp_path / "b.onnx", [1, 3, 3, 8, 6]), 5)
    eyes = quality.Eyes(network, network, films, None, None)
    assert eyes.keep == quality.Keep(True, False)
    black = quality.Clip(clip.landmarks, SIZE, [images[0]] * 12, [])
    assert quality.picture_values(black, own, eyes, np.zeros(3))["CSIM with the first frame"] == pytest.approx(1.0)
    fid, fvd = quality.distances({"real": [clip], "same": [clip], "other": [black]}, eyes)
    assert fid[0] == "FID, 12 each"
    assert fvd[0] == "FVD, 4 each"
    for row in (fid, fvd):
        assert row[2] == pytest.approx(0.0, abs=1e-9)
        assert row[3] > row[2]


def test_packages_that_are_asked_for_and_missing_are_named(monkeypatch):
    for name in ("lpips", "pyiqa"):
        monkeypatch.setitem(sys.modules, name, None)
    for make, package in ((pictures.Lpips, "lpips"), (pictures.ImageQuality, "pyiqa")):
        with pytest.raises(InputError, match=f"pip install {package}"):
            make()


def test_image_quality_looks_at_frames_and_mouths(monkeypatch):
    torch = pytest.importorskip("torch")
    seen = {}

    def create_metric(name, device):
        def metric(x):
            seen.setdefault(name, []).append(tuple(x.shape))
            return x.mean() * torch.ones(1)

        return metric

    monkeypatch.setitem(sys.modules, "pyiqa", types.SimpleNamespace(create_metric=create_metric))
    landmarks = faces(2)
    frames = [np.full((512, 512, 3), 255, np.uint8), np.zeros((512, 512, 3), np.uint8)]
    assert pictures.ImageQuality()(frames, landmarks) == pytest.approx((0.5, 0.5, 0.5))
    assert seen["topiq_iaa"] == seen["topiq_nr-face"] == [(1, 3, 512, 512)] * 2
    lips = landmarks[0, theval.LIPS, :2].astype(int)
    height, width = np.ptp(lips, axis=0)[::-1] + 20
    assert seen["musiq"][0] == (1, 3, height, width)


# Bad input


def test_bad_videos_are_named(tmp_path):
    with pytest.raises(InputError, match="which does not exist"):
        quality.videos_in([tmp_path / "no"])
    with pytest.raises(InputError, match="at least one video"):
        quality.videos_in([tmp_path])
    bad = tmp_path / "a.mp4"
    bad.write_bytes(b"no video")
    (tmp_path / "notes.txt").touch()
    assert quality.videos_in([tmp_path]) == [bad]
    with pytest.raises(VideoError, match=r"expected a video, got a\.mp4"):
        quality.frames_of(bad, 5.0)


def test_the_command_ends_with_one_line_when_nothing_is_usable(tmp_path, capsys):
    (tmp_path / "a.mp4").write_bytes(b"no video")
    with pytest.raises(SystemExit) as ended:
        quality.main([str(tmp_path)])
    assert ended.value.code == 2
    assert "expected at least one usable video, got none: expected a video, got a.mp4" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        quality.main([str(tmp_path), "--bundle", "lite", "--bundle", "lite"])
    assert "expected bundles of different names, got 'lite' again" in capsys.readouterr().err
