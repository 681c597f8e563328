"""A performance from a video, its file, and lost faces."""

import json

import numpy as np
import pytest

from ditto import exchange
from ditto.controls.blendshapes import ARKIT_NAMES, to_offsets
from ditto.controls.driving import Performance
from ditto.errors import ExchangeError, NoFaceError, OutputError, VideoError
from ditto.exchange import from_video, performance
from ditto.exchange.from_video import Lost, performance_of_frames, performance_of_video, stretches, trust
from ditto.media.video import VideoWriter
from ditto.motion.motion import EXPRESSION, Keypoint, Motion
from ditto.motion.space import LITE_SPACE


def weights_of(**named):
    weights = np.zeros(len(ARKIT_NAMES))
    for name, weight in named.items():
        weights[ARKIT_NAMES.index(name)] = weight
    return weights


def acted(frames=60):
    """Head values (frames, 70): the head turns right and left, the brows rise, the jaw opens, and a blink."""
    t = np.arange(frames) / 25.0
    values = np.zeros((frames, 70))
    values[:, 1] = 4.0 * np.sin(3.0 * t)
    values[:, 2] = 7.0 * np.sin(2.0 * t)
    rise, jaw = np.maximum(np.sin(4.0 * t), 0.0), 0.35 * np.maximum(np.sin(7.0 * t), 0.0)
    offsets = rise[:, None] * to_offsets(weights_of(browInnerUp=1.0)).reshape(-1)
    offsets = offsets + jaw[:, None] * to_offsets(weights_of(jawOpen=1.0)).reshape(-1)
    blink = np.clip(1.0 - np.abs(np.arange(frames) - 40) / 3.0, 0.0, 1.0)
    values[:, EXPRESSION] = offsets + blink[:, None] * to_offsets(weights_of(eyeBlinkLeft=1.0, eyeBlinkRight=1.0)).reshape(-1)
    return values, rise, jaw, blink


@pytest.fixture(scope="module")
def head():
    import ditto

    return ditto.load("lite")


@pytest.fixture(scope="module")
def drawn(head, portrait):
    """The frames that show `acted`."""
    renderer = head.performer.renderer
    prepared = renderer.prepare(portrait)
    motions = LITE_SPACE.from_head(acted()[0], portrait).astype(np.float32)
    return [renderer.render(prepared, renderer.retarget(portrait, Motion(row))) for row in motions]


def test_what_was_acted_is_found_again(drawn):
    values, lost = performance_of_frames(drawn, "acted")
    assert not lost.any() and len(values) == len(drawn)
    wanted, rise, jaw, blink = acted()
    # A tracker sees six tenths of the turn of a drawn head (of a real one all), and raised brows as a little pitch.
    for column, name, least in ((1, "pitch", 0.75), (2, "yaw", 0.98)):
        turned = wanted[:, column] - np.median(wanted[:, column])
        assert np.corrcoef(values[:, column], turned)[0, 1] > least, name
        assert 0.4 < np.polyfit(turned, values[:, column], 1)[0] < 1.2, name
    points = values[:, EXPRESSION].reshape(-1, 21, 3)
    assert np.corrcoef(-points[:, [Keypoint.RIGHT_BROW, Keypoint.LEFT_BROW], 1].mean(1), rise)[0, 1] > 0.9
    gap = points[:, Keypoint.LOWER_INNER_LIP, 1] - points[:, Keypoint.UPPER_INNER_LIP, 1]
    assert np.corrcoef(gap, jaw)[0, 1] > 0.95
    lids = points[:, Keypoint.RIGHT_UPPER_LID, 1]
    assert abs(int(lids.argmax()) - int(blink.argmax())) <= 1 and lids.max() > 0.04
    assert np.median(np.abs(lids)) < 0.012  # at rest the lids are at rest


def test_a_lost_face_is_held_fades_and_is_listed(drawn):
    black = np.zeros_like(drawn[0])
    frames = [*drawn[:20], *[black] * 30, *drawn[20:30]]
    values, lost = performance_of_frames(frames, "lost")
    assert stretches(lost) == [Lost(0.8, 2.0)]
    assert np.isfinite(values).all()
    weights = trust(lost)
    assert (weights[:20] == 1.0).all() and (weights[50:] == 1.0).all()
    assert weights[20:25].min() == 1.0 and weights[35] == 0.0  # held for 0.2 s, then gone
    assert np.abs(np.diff(weights)).max() < 0.11  # ten frames of fading


def test_faces_lost_at_both_ends():
    lost = np.array([True] * 20 + [False] * 5 + [True] * 30)
    weights = trust(lost)
    assert weights[0] == 0.0 and weights[-1] == 0.0 and (weights[20:25] == 1.0).all()
    assert stretches(lost) == [Lost(0.0, 0.8), Lost(1.0, 2.2)]
    assert stretches(np.zeros(5, bool)) == []


def test_a_video_gives_a_performance_of_its_length(drawn, tmp_path):
    path = tmp_path / "clip.mp4"
    with VideoWriter(path, drawn[0].shape[1], drawn[0].shape[0]) as writer:
        for frame in drawn[:30]:
            writer.write(frame)
    tracked, lost = performance_of_video(path, {"head": 1.0, "brows": 0.5})
    assert lost == [] and tracked.values.shape == (30, 70)
    assert dict(tracked.regions) == {"head": 1.0, "brows": 0.5}
    assert (tracked.weights == 1.0).all()


def test_a_video_without_a_face_is_refused(tmp_path):
    path = tmp_path / "grey.mp4"
    with VideoWriter(path, 128, 128) as writer:
        for _ in range(5):
            writer.write(np.full((128, 128, 3), 120, np.uint8))
    with pytest.raises(NoFaceError, match=r"expected a face in .*grey.mp4, got none in 5 frames"):
        performance_of_video(path)


def test_files_that_are_no_video_are_refused(tmp_path):
    (tmp_path / "x.mp4").write_bytes(b"no video")
    for path in (tmp_path / "x.mp4", tmp_path / "missing.mp4"):
        with pytest.raises(VideoError):
            performance_of_video(path)


def test_a_video_without_end_is_refused(monkeypatch, drawn, tmp_path):
    monkeypatch.setattr(from_video, "MOST_FRAMES", 3)
    path = tmp_path / "clip.mp4"
    with VideoWriter(path, drawn[0].shape[1], drawn[0].shape[0]) as writer:
        for frame in drawn[:5]:
            writer.write(frame)
    with pytest.raises(ExchangeError, match="expected at most 3 frames"):
        performance_of_video(path)


def some_performance(frames=8):
    values = np.random.default_rng(0).normal(size=(frames, 70)).astype(np.float32)
    return Performance(values, {"all": 1.0}, 0.0, np.linspace(0.0, 1.0, frames, dtype=np.float32))


def test_a_performance_comes_back_from_its_file(tmp_path):
    given = some_performance()
    performance.write(given, tmp_path / "x.safetensors", {"clip": "a.mp4"})
    back = performance.read(tmp_path / "x.safetensors", {"head": 0.5}, 2.0)
    np.testing.assert_array_equal(back.values, given.values)
    np.testing.assert_array_equal(back.weights, given.weights)
    assert dict(back.regions) == {"head": 0.5} and back.start_seconds == 2.0
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


def test_a_recording_of_another_program_is_a_performance(tmp_path):
    values, *_ = acted(50)
    track = exchange.BlendshapeTrack.from_head_values(values)
    exchange.write(track, tmp_path / "x.csv")
    back = performance.read(tmp_path / "x.csv")
    assert back.values.shape == (50, 70) and (back.weights == 1.0).all()
    np.testing.assert_allclose(back.values[:, 2], values[:, 2] - np.median(values[:, 2]), atol=1e-3)
    assert np.abs(back.values[:, EXPRESSION] - values[:, EXPRESSION]).mean() < 1e-3


def safetensors_of(told, **arrays):
    from safetensors.numpy import save

    return save(arrays, told)


GOOD = {"format": "ditto.performance", "version": "1"}
VALUES, WEIGHTS = np.zeros((2, 70), np.float32), np.ones(2, np.float32)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (safetensors_of(GOOD | {"version": "2"}, values=VALUES, weights=WEIGHTS), "got ditto.performance 2"),
        (safetensors_of(None, values=VALUES, weights=WEIGHTS), "another safetensors file"),
        (safetensors_of(GOOD, values=VALUES), "expected values (N, 70) and weights (N,)"),
        (safetensors_of(GOOD, values=VALUES[:, :69], weights=WEIGHTS), "expected values (N, 70)"),
        (safetensors_of(GOOD, values=VALUES * np.nan, weights=WEIGHTS), "expected finite values"),
        (safetensors_of(GOOD, values=VALUES + np.float32(1e30), weights=WEIGHTS), "expected finite values up to 1000"),
        (safetensors_of({"ditto": "{}"}, values=VALUES, weights=WEIGHTS), "got another safetensors file"),
        (safetensors_of(GOOD, values=VALUES, weights=2 * WEIGHTS), "weights in [0, 1]"),
        (safetensors_of(GOOD, values=VALUES, weights=WEIGHTS)[:-10], "another safetensors file"),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00{not json at all", "another safetensors file"),
        (b"hello", "got another file"),
    ],
)  # fmt: skip
def test_a_bad_performance_is_refused(data, message):
    with pytest.raises(ExchangeError) as error:
        performance.read(data)
    assert message in str(error.value)


def test_a_performance_that_cannot_be_written(tmp_path):
    with pytest.raises(OutputError):
        performance.write(some_performance(), tmp_path / "no" / "x.safetensors")


def test_what_a_file_tells_is_json(tmp_path):
    performance.write(some_performance(), tmp_path / "x.safetensors", {"lost_seconds": [[0.5, 1.0]]})
    raw = (tmp_path / "x.safetensors").read_bytes()
    told = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"]
    assert json.loads(told["about"]) == {"lost_seconds": [[0.5, 1.0]]}
