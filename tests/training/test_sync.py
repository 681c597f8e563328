"""The sync scorer: lips are the same numbers from landmarks and keypoints; the network learns, finds and refuses."""

import sys

import numpy as np
import pytest

from ditto.errors import BundleError, InputError, OutputError
from ditto.lite.speech_encoder import FEATURE_SIZE, FRAMES_PER_HOP
from ditto.media.audio import HOP_SAMPLES
from ditto.motion.motion import KEYPOINTS, Keypoint, rotation_matrix
from ditto.portrait.face_mesh import TEMPLATE, keypoints

torch = pytest.importorskip("torch")

from small_corpus import smooth  # noqa: E402

from ditto.training import sync, sync_training  # noqa: E402
from ditto.training.prepare.lip_sync import Heard  # noqa: E402


def talking(frames, random):
    """Faces (T, 478, 3) whose lips and chin move, and the curve they follow (T,)."""
    curve = smooth(random, frames, 1)[:, 0]
    faces = np.repeat(TEMPLATE[None], frames, 0)
    low = TEMPLATE[:, 1] > TEMPLATE[14, 1] - 1e-6
    faces[:, low, 1] += 0.02 * curve[:, None]
    return faces, curve


def pair(random, frames=90):
    """Lips and features that follow the same curves, among noise."""
    cause = smooth(random, frames, 3)
    lips = np.concatenate([cause, cause[:, :1], 0.3 * random.normal(size=(frames, 3))], 1)
    features = 0.3 * random.normal(size=(frames, FEATURE_SIZE))
    features[:, :60] += np.repeat(cause, 20, 1)
    return sync.Pair(lips.astype(np.float32), features.astype(np.float16))


def moved(features, by, margin=sync.MOST_OFFSET):
    """(T, C) -> (T + 2 margin, C), late by `by` frames."""
    at = np.arange(-margin, len(features) + margin) - by
    return features[np.clip(at, 0, len(features) - 1)]


@pytest.fixture(scope="module")
def trained():
    random = np.random.default_rng(1)
    torch.set_num_threads(1)
    return sync_training.train([[pair(random) for _ in range(40)]], steps=60, seed=0)


@pytest.fixture(scope="module")
def scorer(trained, tmp_path_factory):
    file = tmp_path_factory.mktemp("sync") / "sync.safetensors"
    sync_training.save(trained, file, {"steps": "60"})
    return sync.NetworkScorer(file)


def test_lips_of_a_turned_head_are_those_of_its_keypoints():
    random = np.random.default_rng(0)
    faces, _ = talking(60, random)
    turn = rotation_matrix(np.full(60, 12.0), np.linspace(-15, 15, 60), np.full(60, 5.0))
    landmarks = 130.0 * faces @ turn + [200.0, 150.0, 0.0]
    np.testing.assert_allclose(
        sync.lips_of_landmarks(landmarks), sync.lip_numbers(keypoints(faces)), atol=0.02
    )  # the pose is fitted, to landmarks that stay still


def test_lips_are_the_same_from_changes_of_keypoints_and_at_any_loudness():
    random = np.random.default_rng(0)
    faces = keypoints(talking(60, random)[0])
    np.testing.assert_allclose(sync.lip_numbers(faces - faces[0]), sync.lip_numbers(faces), atol=1e-4)
    np.testing.assert_allclose(sync.lip_numbers(2.0 * faces), sync.lip_numbers(faces), atol=0.05)


def test_an_opening_mouth_has_these_signs():
    faces = np.zeros((40, KEYPOINTS, 3))
    bump = np.exp(-0.5 * ((np.arange(40) - 20) / 3.0) ** 2)
    faces[:, Keypoint.LOWER_INNER_LIP, 1] = 0.05 * bump
    faces[:, Keypoint.LEFT_MOUTH_CORNER, 0] = -0.02 * bump
    opening, width, upper, lower, *rest = sync.lip_numbers(faces)[20]
    assert opening > 1 and lower > 1 and width < -1 and upper == 0 and not np.any(rest)


def test_lips_at_rest_are_zeros():
    assert not sync.lip_numbers(np.zeros((30, KEYPOINTS, 3))).any()


@pytest.mark.parametrize("shape", [(0, KEYPOINTS, 3), (5, 20, 3), (5, 63)])
def test_other_faces_are_refused(shape):
    with pytest.raises(ValueError, match="expected faces"):
        sync.lip_numbers(np.zeros(shape))


def test_the_loss_is_that_of_the_formula():
    random = np.random.default_rng(0)
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in random.normal(size=(2, 5, 8)))
    logits = a @ b.T / sync_training.TEMPERATURE
    both = [np.mean(np.log(np.exp(m).sum(1)) - np.diag(m)) for m in (logits, logits.T)]
    assert float(sync_training.contrast(torch.tensor(a), torch.tensor(b))) == pytest.approx(np.mean(both))


def test_embeddings_come_from_thirteen_frames_and_have_unit_length():
    network = sync_training.SyncNetwork().eval()
    x = torch.randn(1, 13 + 4, FEATURE_SIZE, generator=torch.Generator().manual_seed(0))
    found = network.embed_speech(x)
    assert found.shape == (1, 5, sync.EMBEDDING)
    torch.testing.assert_close(found.norm(dim=2), torch.ones(1, 5))
    torch.testing.assert_close(network.embed_speech(x[:, 2:15])[0, 0], found[0, 2])


def test_the_scorer_computes_what_the_network_does(trained, scorer):
    random = np.random.default_rng(9)
    lips, features = random.normal(size=(30, 7)), random.normal(size=(60, FEATURE_SIZE))
    network = sync_training.SyncNetwork().eval()
    network.load_state_dict({name: values.half().float() for name, values in trained.state_dict().items()})
    ends = ((6, 6), (0, 0))
    with torch.no_grad():
        seen = network.embed_lips(torch.tensor(np.pad(lips, ends, mode="edge"), dtype=torch.float32)[None])[0].numpy()
        heard = network.embed_speech(torch.tensor(np.pad(features, ends, mode="edge"), dtype=torch.float32)[None])[0].numpy()
    expected = [(seen * heard[place : place + 30]).sum(1).mean() for place in range(31)]
    np.testing.assert_allclose(scorer.similarities(lips, features), expected, atol=1e-5)  # float32, sums in another order
    assert sync.shapes() == {name: tuple(values.shape) for name, values in network.state_dict().items()}


@pytest.mark.parametrize("late", [-12, -3, 0, 1, 15])
def test_a_known_offset_is_found_on_clips_not_trained_on(scorer, late):
    random = np.random.default_rng(2)
    clips = [pair(random, 120) for _ in range(4)]
    for clip in clips:
        found = scorer.offset(clip.lips, moved(clip.features, late))
        assert found.frames == late and found.confidence > 0


def test_own_speech_scores_higher_than_anothers_and_than_late_speech(scorer):
    random = np.random.default_rng(3)
    one, other = pair(random, 120), pair(random, 120)
    own = scorer.score(one.lips, one.features)
    assert own > 0.2 > scorer.score(one.lips, other.features)
    assert own > scorer.score(one.lips, np.roll(one.features, 5, 0))
    assert own > scorer.offset(one.lips, moved(other.features, 0)).confidence


def test_training_twice_gives_the_same_bits_and_another_seed_others():
    random = np.random.default_rng(4)
    pools = [[pair(random) for _ in range(3)], [pair(random) for _ in range(3)]]
    torch.rand(3)  # what the program drew before does not matter
    first = sync_training.train(pools, 3, 7).state_dict()
    state = torch.random.get_rng_state()
    again = sync_training.train(pools, 3, 7).state_dict()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(first[name], again[name]) for name in first)
    other = sync_training.train(pools, 3, 8).state_dict()
    assert not torch.equal(first["lips.enter.weight"], other["lips.enter.weight"])


def test_clips_shorter_than_a_window_are_refused():
    random = np.random.default_rng(5)
    with pytest.raises(ValueError, match="expected a clip of 62 frames"):
        sync_training.train([[pair(random, 61)]], 1)


@pytest.mark.parametrize(
    ("lips", "features"),
    [((20, 6), (50, FEATURE_SIZE)), ((20, 7), (51, FEATURE_SIZE)), ((20, 7), (18, FEATURE_SIZE)), ((0, 7), (30, 368)),
     ((20, 7), (50, 367))],
)  # fmt: skip
def test_other_shapes_are_refused(scorer, lips, features):
    with pytest.raises(ValueError, match=r"expected (lips|features)"):
        scorer.similarities(np.zeros(lips), np.zeros(features))


def test_weights_of_another_network_are_refused(tmp_path):
    from safetensors.numpy import save_file

    file = tmp_path / "sync.safetensors"
    with pytest.raises(BundleError, match="readable safetensors"):
        sync.NetworkScorer(file)
    save_file({"mean": np.zeros(3, np.float32)}, file)
    with pytest.raises(BundleError, match=r"tensors of ditto\.training\.sync.*mean"):
        sync.NetworkScorer(file)


def test_weights_that_cannot_be_written_are_a_typed_error(trained, tmp_path):
    (tmp_path / "sync.safetensors").mkdir()
    with pytest.raises(OutputError, match="expected to write"):
        sync_training.save(trained, tmp_path / "sync.safetensors", {})


class Echo:
    """An encoder whose features are the hop's number; late by one hop, as the real one is."""

    def initial_state(self):
        return -1

    def __call__(self, hop, state):
        assert hop.shape == (1, HOP_SAMPLES)
        return np.full((1, FRAMES_PER_HOP, FEATURE_SIZE), state, np.float32), state + 1


@pytest.mark.parametrize(("samples", "frames"), [(640 * 6, 6), (640 * 5 + 639, 5), (0, 0), (100, 0)])
def test_features_are_of_the_whole_frames_of_the_sound(samples, frames):
    found = sync.speech_features(Echo(), np.zeros(samples, np.float32))
    assert found[:, 0].tolist() == [i // 2 for i in range(frames)]


def test_a_scorer_of_the_preparation_reads_landmarks(scorer):
    random = np.random.default_rng(8)
    faces, _ = talking(60, random)
    features = random.normal(size=(90, FEATURE_SIZE)).astype(np.float32)
    expected = scorer.offset(sync.lip_numbers(keypoints(faces)), features)
    found = scorer.offset_and_confidence(Heard(100.0 * faces, features, np.zeros(0, np.int16), 15))
    assert found == (expected.frames, pytest.approx(expected.confidence, abs=1e-3))


def write_track(file, frames, fps=25.0, random=None):
    faces, _ = talking(frames, random or np.random.default_rng(0))
    np.savez(file, landmarks=(100 * faces).astype(np.float32), samples=np.zeros(frames * 640, np.float32), fps=fps)


def test_a_track_of_another_frame_rate_is_interpolated(tmp_path):
    write_track(tmp_path / "a.npz", 61, fps=30.0)
    landmarks, _ = sync.read_track(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as track:
        np.testing.assert_allclose(landmarks[25], track["landmarks"][30], atol=1e-4)
        assert len(landmarks) == 50


def test_what_is_no_track_is_refused(tmp_path):
    file = tmp_path / "a.npz"
    for write in (lambda: file.write_bytes(b"no"), lambda: np.savez(file, landmarks=np.zeros((3, 478, 3)))):
        write()
        with pytest.raises(InputError, match=r"expected a tracked clip.*track it again"):
            sync.read_track(file)


def test_the_command_trains_on_tracks_and_a_corpus(tmp_path, monkeypatch, capsys):
    tracks = tmp_path / "tracks"
    tracks.mkdir()
    random = np.random.default_rng(6)
    for i in range(3):
        write_track(tracks / f"{i}.npz", 75, random=random)
    np.savez(tracks / "lost.npz", landmarks=np.full((75, 478, 3), np.nan), samples=np.zeros(48000), fps=25.0)
    faces = np.concatenate([keypoints(talking(80, random)[0]) for _ in range(2)])
    motion = np.concatenate([np.zeros((160, 7)), faces.reshape(160, -1)], 1).astype(np.float32)
    np.savez(
        tmp_path / "corpus.npz", kind=np.array(["made", "real"]), lengths=np.array([80, 80]), motion=motion,
        features=random.normal(size=(160, FEATURE_SIZE)).astype(np.float16),
    )  # fmt: skip
    assert len(sync.made_pairs(tmp_path / "corpus.npz")) == 1
    monkeypatch.setattr(sync, "SpeechEncoder", lambda folder: Echo())
    out = tmp_path / "sync.safetensors"
    words = [str(tracks), "bundle", str(out), "--corpus", str(tmp_path / "corpus.npz"), "--steps", "2"]
    monkeypatch.setattr(sys, "argv", ["sync", *words])
    sync.main()
    printed = capsys.readouterr().out
    assert "loss" in printed and "left out lost: expected a tracked clip" in printed
    sync.NetworkScorer(out)


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--steps", "0"], "a whole number"), (["--corpus", "no.npz"], "expected a corpus"), ([], "a clip of 62 frames")],
)
def test_the_command_ends_with_one_line(tmp_path, monkeypatch, capsys, words, message):
    write_track(tmp_path / "0.npz", 30)
    monkeypatch.setattr(sync, "SpeechEncoder", lambda folder: Echo())
    monkeypatch.setattr(sys, "argv", ["sync", str(tmp_path), "bundle", str(tmp_path / "out"), *words])
    with pytest.raises(SystemExit) as ended:
        sync.main()
    assert ended.value.code == 2 and message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_the_shipped_weights_load_and_are_small():
    assert sync.WEIGHTS.stat().st_size < 500_000
    random = np.random.default_rng(0)
    found = sync.NetworkScorer().offset(random.normal(size=(30, 7)), random.normal(size=(60, FEATURE_SIZE)))
    assert abs(found.frames) <= sync.MOST_OFFSET and np.isfinite(found.confidence)
