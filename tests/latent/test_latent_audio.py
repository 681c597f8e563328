"""Speech and motion as conditions of the latent generators."""

import pytest

torch = pytest.importorskip("torch")

from ditto.errors import InputError  # noqa: E402
from ditto.latent.audio import (  # noqa: E402
    FeatureUnits,
    LatentEmbedder,
    MelEncoder,
    layers_at_frames,
    mel_bank,
    mel_windows,
)
from ditto.latent.motion_condition import MotionCondition  # noqa: E402


def test_mel_windows_of_frames():
    silence = mel_windows(torch.zeros(1, 16000))
    assert silence.shape == (1, 25, 80, 16) and (silence == -4).all()
    assert mel_windows(torch.zeros(2, 641)).shape[1] == 2  # a part of a frame is a frame
    time = torch.arange(16000) / 16000
    tone = mel_windows(0.5 * torch.sin(2 * torch.pi * 1000 * time)[None])
    band = int(mel_bank()[:, 50].argmax())  # 1000 Hz is bin 50 of 400
    assert (tone[0, 5:15].mean(-1).argmax(-1) - band).abs().max() <= 1
    with pytest.raises(InputError, match="expected samples"):
        mel_windows(torch.zeros(1, 0))


def test_a_window_begins_with_its_frame_and_looks_ahead_by_a_fifth_of_a_second():
    sound = torch.zeros(1, 16000)
    sound[0, 8000:] = torch.randn(8000, generator=torch.Generator().manual_seed(0))
    loud = (mel_windows(sound)[0] > -3.9).any(1)  # (frames, 16)
    assert not loud[7].any()  # frame 7 sees [0.28 s, 0.48 s)
    assert loud[9, -1] and loud[13].all()


def test_the_bank_has_filters_of_area_one():
    areas = mel_bank().sum(1) * 20  # Hz of a bin
    assert torch.allclose(areas[40:], torch.ones(40), atol=0.1)


def test_the_mel_encoder_gives_512_numbers_a_frame():
    torch.manual_seed(0)
    encoder = MelEncoder()
    windows = torch.randn(2, 3, 80, 16)
    found = encoder(windows)
    assert found.shape == (2, 3, 512)
    assert torch.allclose(encoder(windows[:, 1:2]), found[:, 1:2], atol=1e-5)  # each frame on its own


def test_latents_look_at_their_own_frames():
    torch.manual_seed(0)
    embedder = LatentEmbedder(5, 4, 8)
    rows = torch.randn(2, 12, 5)
    first = torch.tensor([True, False])
    found = embedder(rows, first)
    assert found.shape == (2, 3, 8)
    changed = rows.clone()
    changed[:, :3] += 1  # before the only frame of a video's first latent
    other = embedder(changed, first)
    assert torch.equal(other[0], found[0]) and torch.equal(other[1, 1:], found[1, 1:])
    assert not torch.equal(other[1, 0], found[1, 0])
    for shape in ((2, 11, 5), (2, 12, 6), (12, 5)):
        with pytest.raises(InputError, match="expected rows"):
            embedder(torch.zeros(shape), first)


def test_features_are_in_units_and_clamped():
    units = FeatureUnits(2)
    units.mean.copy_(torch.tensor([1.0, 0.0]))
    units.spread.copy_(torch.tensor([2.0, 1.0]))
    assert torch.equal(units(torch.tensor([[5.0, -9.0]])), torch.tensor([[2.0, -5.0]]))


def test_hidden_layers_at_the_times_of_frames():
    hidden = torch.arange(5.0).reshape(1, 1, 5, 1).expand(1, 2, 5, 1)
    assert layers_at_frames(hidden, 4)[0, :, 1, 0].tolist() == [0.5, 2.5, 4.0, 4.0]
    assert layers_at_frames(hidden, 4).shape == (1, 4, 2, 1)
    with pytest.raises(InputError, match="expected hidden layers"):
        layers_at_frames(torch.zeros(1, 2, 0, 3), 2)


def test_a_hidden_motion_adds_nothing():
    torch.manual_seed(0)
    condition = MotionCondition(70, 4, 8, 16)
    motion, first = torch.randn(2, 8, 70), torch.tensor([True, False])
    assert (condition(motion, first, torch.zeros(2, dtype=torch.bool)) == 0).all()  # zero-initialised
    torch.nn.init.normal_(condition.output.weight)
    added = condition(motion, first, torch.tensor([False, True]))
    assert added.shape == (2, 2, 1, 16)
    assert (added[0] != 0).any() and (added[1] == 0).all()
