"""SyncNet with random weights: layers, features of the sound, crops, offsets. The real file is not here."""

import numpy as np
import pytest

from ditto.errors import BundleError, InputError
from ditto.portrait.face_mesh import TEMPLATE

torch = pytest.importorskip("torch")

from benchmarks import syncnet  # noqa: E402


@pytest.fixture(scope="module")
def network():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return syncnet.SyncNet().eval()


def test_layers_have_the_names_and_shapes_of_the_published_file(network):
    shapes = {name: tuple(values.shape) for name, values in network.state_dict().items()}
    facts = {
        "netcnnaud.0.weight": (64, 1, 3, 3), "netcnnaud.4.weight": (192, 64, 3, 3), "netcnnaud.18.weight": (512, 256, 5, 4),
        "netcnnlip.0.weight": (96, 3, 5, 7, 7), "netcnnlip.4.weight": (256, 96, 1, 5, 5),
        "netcnnlip.18.weight": (512, 256, 1, 6, 6), "netfcaud.3.weight": (1024, 512), "netfclip.1.running_var": (512,),
    }  # fmt: skip
    assert facts.items() <= shapes.items()
    assert len(shapes) == 2 * (6 * 7 + 2 * 2 + 5)  # six layers and their norms a tower, then two dense and a norm


def test_the_file_is_read_and_others_are_refused(network, tmp_path):
    file = tmp_path / "syncnet_v2.model"
    with pytest.raises(BundleError, match=r"expected syncnet_v2\.model"):
        syncnet.load(file)
    file.write_text("hello\n")
    with pytest.raises(BundleError, match="state dict"):
        syncnet.load(file)
    torch.save({"netfcaud.0.weight": torch.zeros(2)}, file)
    with pytest.raises(BundleError, match="state dict"):
        syncnet.load(file)
    torch.save(network, file)  # runs code when it is read
    with pytest.raises(BundleError, match="state dict"):
        syncnet.load(file)
    torch.save(network.state_dict(), file)
    loaded = syncnet.load(file).state_dict()
    assert all(torch.equal(values, loaded[name]) for name, values in network.state_dict().items())


def test_mfcc_are_those_of_python_speech_features():
    t = np.arange(900)
    noise = 50 * ((t * 7919) % 101 - 50)
    x = np.round(8000 * np.sin(2 * np.pi * 440 * t / 16000) + 2000 * np.sin(0.9 * t + 1) + noise).astype(np.int16)
    found = syncnet.mfcc(x)
    assert found.shape == (13, 5)
    # Rows of python_speech_features 0.6, mfcc(x, 16000), at frames 0, 2 and 4.
    expected = {
        0: [21.2417, 21.2406, 20.814], 1: [-20.1198, -15.9799, -15.6414], 2: [-0.0513, 8.5052, 7.5199],
        11: [40.8415, 40.7443, 38.3563], 12: [-13.7605, -11.9232, -15.1337],
    }  # fmt: skip
    for row, values in expected.items():
        np.testing.assert_allclose(found[row, ::2], values, atol=6e-5)
    assert np.isfinite(syncnet.mfcc(np.zeros(100, np.int16))).all()


def picture_and_landmarks(dx=0, dy=0):
    """A picture (300, 400, 3) with one bright square where the face's middle is, and the landmarks."""
    landmarks = 80.0 * TEMPLATE + [180.0 + dx, 140.0 + dy, 0.0]
    picture = np.full((300, 400, 3), syncnet.GREY, np.uint8)
    picture[130 + dy : 150 + dy, 170 + dx : 190 + dx] = (250, 20, 30)
    return picture, landmarks


def test_a_face_that_moves_by_whole_pixels_gives_the_same_crop():
    found = [syncnet.crops([picture], landmarks[None]) for picture, landmarks in map(picture_and_landmarks, (0, 17), (0, -9))]
    assert found[0].shape == (1, 224, 224, 3)
    np.testing.assert_array_equal(*found)
    assert (found[0] == (30, 20, 250)).all(-1).any()  # blue first, as OpenCV reads


def test_a_face_at_the_border_is_padded():
    picture, landmarks = picture_and_landmarks()
    outside = syncnet.crops([picture[100:, 150:]], (landmarks - [150.0, 100.0, 0.0])[None])
    np.testing.assert_array_equal(outside, syncnet.crops([picture], landmarks[None]))


def test_windows_do_not_depend_on_the_batch(network, monkeypatch):
    random = np.random.default_rng(0)
    faces = random.integers(0, 255, (7, 224, 224, 3)).astype(np.uint8)
    sound = random.integers(-9000, 9000, 640 * 7).astype(np.int16)
    seen, heard = syncnet.embeddings(network, faces, sound)
    assert seen.shape == heard.shape == (2, 1024)
    monkeypatch.setattr(syncnet, "BATCH", 1)
    for one, all_at_once in zip(syncnet.embeddings(network, faces, sound), (seen, heard), strict=True):
        torch.testing.assert_close(one, all_at_once, rtol=1e-4, atol=1e-5)  # sums in another order


@pytest.mark.parametrize(("frames", "samples"), [(5, 64000), (25, 640 * 5), (0, 0)])
def test_clips_that_are_too_short_are_refused(network, frames, samples):
    faces = np.zeros((frames, 224, 224, 3), np.uint8)
    with pytest.raises(InputError, match="expected 6 frames"):
        syncnet.embeddings(network, faces, np.zeros(samples, np.int16))


@pytest.mark.parametrize("late", [-15, -4, 0, 7])
def test_late_sound_is_found_with_distance_and_confidence(late):
    seen = torch.randn(60, 1024, generator=torch.Generator().manual_seed(0))
    heard = torch.roll(seen, late, 0)
    found = syncnet.compare(seen, heard)
    assert found.late_frames == late
    # Frames whose sound lies beyond the ends are compared with zeros; all others have no distance, but for the epsilon.
    assert found.distance == pytest.approx(abs(late) / 60 * 1024**0.5, rel=0.05, abs=0.01)
    assert found.confidence > 10
