"""RAP's denoiser: hybrid attention, and clips that inherit latents. Numbers of the tests: the specification's, R9."""

from dataclasses import replace
from itertools import pairwise

import pytest

torch = pytest.importorskip("torch")

from latent_networks import acting, random  # noqa: E402

from ditto.errors import InputError  # noqa: E402
from ditto.latent.config import RAP_PAPER, RAP_TINY  # noqa: E402
from ditto.latent.rap_network import HybridAttention, RapDenoiser, RapInputs  # noqa: E402
from ditto.latent.rap_sampler import RapSampler, RapSampling  # noqa: E402
from ditto.latent.schedule import Guidance, seeded_noise  # noqa: E402

BASE = replace(RAP_TINY, motion_features=0)
QUICK = RapSampling(steps=3, audio=Guidance(2.0))
SPEECH = BASE.audio_layers, BASE.audio_features


def random_network(config, seed=0):
    return acting(lambda: RapDenoiser(config), seed)


@pytest.fixture(scope="module")
def network():
    return random_network(BASE)


def inputs(latents=5, rows=2, **changed):
    shape = (rows, BASE.channels, latents, BASE.rows, BASE.columns)
    made = RapInputs(
        noisy=random(*shape),
        time=torch.tensor([0.3, 0.8])[:rows],
        reference=random(*shape, seed=1),
        static=torch.tensor([True, False])[:rows],
        audio=random(rows, 8 * latents, *SPEECH, seed=2),
        hide_audio=torch.zeros(rows, dtype=torch.bool),
    )
    return made._replace(**changed)


@pytest.fixture(scope="module")
def reference():
    return random(BASE.channels, BASE.reference_latents, BASE.rows, BASE.columns, seed=9)


def run(sampler, state, lengths, audio, motion=None):
    """A stream's clips of these lengths."""
    clips = []
    for length in lengths:
        place = slice(state.frames, state.frames + sampler.frames(state, length))
        clips += sampler.generate([state], [audio[place]], length, None if motion is None else [motion[place]])
        state = clips[-1].state
    return clips


def changed_latents(before, after, latents):
    rows = (before - after).abs().unflatten(1, (latents, -1)).amax((0, 2, 3))
    return [j for j in range(latents) if rows[j] > 1e-6]


@torch.no_grad()
def test_the_share_of_the_window_decides_which_speech_a_latent_hears():  # 4, 5
    torch.manual_seed(0)
    hybrid, latents = HybridAttention(32, 4), 5
    x, speech = random(2, latents * 4, 32), random(2, latents * 6, 32, seed=1)
    other = speech.clone()
    other[:, 2 * 6 : 3 * 6] += 1  # of latent 2
    heard, changed = hybrid.attention.keys_values(speech), hybrid.attention.keys_values(other)
    for share, expected in ((1.0, [2]), (0.5, list(range(latents))), (0.0, list(range(latents)))):
        before = hybrid(x, heard, latents, share)
        assert changed_latents(before, hybrid(x, changed, latents, share), latents) == expected
    window, full = hybrid(x, heard, latents, 1.0), hybrid(x, heard, latents, 0.0)
    assert torch.allclose(hybrid(x, heard, latents, 0.3), 0.3 * window + 0.7 * full, atol=1e-6)
    alone = [
        hybrid.attention.output(
            hybrid.attention.attend(
                hybrid.attention.queries(x[:, 4 * j : 4 * j + 4]),
                hybrid.attention.keys_values(speech[:, 6 * j : 6 * j + 6]),
            )
        )
        for j in range(latents)
    ]
    assert torch.allclose(window, torch.cat(alone, 1), atol=1e-6)


@pytest.mark.parametrize("slope", [-1.0, -0.5, 0.5, 1.0])
def test_the_shares_of_the_layers(slope):  # 3
    config = replace(RAP_PAPER, window_slope=slope, window_start=0.5 - slope / 2)
    shares = [config.window_share(i) for i in range(30)]
    assert shares[0] == pytest.approx(0.5 - slope / 2) and sum(shares) / 30 == pytest.approx(0.5, abs=0.02)
    assert all(b - a == pytest.approx(slope / 30) for a, b in pairwise(shares))
    still = replace(RAP_PAPER, window_slope=0.0, window_start=0.25)
    assert {still.window_share(i) for i in range(30)} == {0.25}
    steep = replace(RAP_PAPER, window_slope=3.0, window_start=-0.5)
    assert steep.window_share(0) == 0 and steep.window_share(29) == 1


@torch.no_grad()
def test_hidden_speech_is_not_heard(network):
    given = inputs(hide_audio=torch.tensor([True, False]))
    before, after = network(given), network(given._replace(audio=given.audio + 1))
    assert torch.equal(before[0], after[0]) and not torch.allclose(before[1], after[1], atol=1e-3)
    looked = network(given._replace(reference=given.reference + 1))
    assert not torch.allclose(before, looked, atol=1e-3)


class Recorded(RapDenoiser):
    """Keeps what it is asked to denoise and to hear."""

    def __init__(self, config):
        super().__init__(config)
        self.seen, self.spoken = [], []

    def denoise(self, noisy, time, reference, heard, moved):
        self.seen.append((float(time[0]), noisy.clone(), reference.clone()))
        return super().denoise(noisy, time, reference, heard, moved)

    def speech(self, audio, hidden):
        if not hidden.any():
            self.spoken.append(audio.clone())
        return super().speech(audio, hidden)


@pytest.fixture
def recorded(network):
    copy = Recorded(BASE).eval()
    copy.load_state_dict(network.state_dict())
    return copy


def test_frames_of_clips_and_the_speech_of_each(recorded, reference):  # 1, 7, 8
    sampler = RapSampler(recorded, replace(QUICK, steps=1))
    audio = random(400, *SPEECH)
    clips = run(sampler, sampler.begin(reference, 0), (11, 11, 11), audio)
    assert [clip.state.frames for clip in clips] == [81, 81 + 64, 81 + 2 * 64]
    assert [clip.latents.shape[1] for clip in clips] == [11, 8, 8]
    assert torch.equal(recorded.spoken[0][0], torch.cat([audio[:1].expand(7, -1, -1), audio[:81]]))
    for i in (2, 3):
        start = 57 + 64 * (i - 2)
        assert torch.equal(recorded.spoken[i - 1][0], audio[start : start + 88])
    state = sampler.begin(reference, 0)
    clips = run(sampler, state, (3, 5, 8, 11), audio)
    assert [clip.state.frames for clip in clips] == [17, 33, 73, 137]
    assert [clip.latents.shape[1] for clip in clips] == [3, 2, 5, 8]
    with pytest.raises(InputError, match="expected a clip of 3, 5, 8, 11 latents here, got 4"):
        sampler.frames(state, 4)
    with pytest.raises(InputError, match="expected a clip of 5, 8, 11 latents here, got 3"):
        sampler.frames(clips[0].state, 3)


def test_every_step_of_a_later_clip_begins_with_the_end_of_the_clip_before_it(recorded, reference):  # 6, 2
    sampler = RapSampler(recorded, QUICK)
    clips = run(sampler, sampler.begin(reference, 0), (5, 5, 5), random(200, *SPEECH))
    steps = QUICK.steps
    for clip in (1, 2):
        for step in range(steps):
            (t, before, _), (same, noisy, _) = (
                recorded.seen[(clip - 1) * steps + step],
                recorded.seen[clip * steps + step],
            )
            assert t == same and torch.equal(noisy[0, :, :3], before[0, :, -3:])
            assert torch.equal(clips[clip - 1].state.history[step], before[0, :, -3:])
    assert torch.equal(recorded.seen[0][2][0], reference[:, :5])  # the video's start
    assert torch.equal(recorded.seen[steps][2][0], reference[:, -5:])


def test_a_clip_after_the_shortest_still_begins_with_the_video(recorded, reference):
    sampler = RapSampler(recorded, replace(QUICK, steps=1))
    run(sampler, sampler.begin(reference, 0), (3, 5, 5), random(200, *SPEECH))
    assert [torch.equal(seen[0], reference[:, : seen.shape[2]]) for _, _, seen in recorded.seen] == [True, True, False]


def test_without_guidance_the_conditional_velocity_is_followed(network, reference):  # 9
    sampler = RapSampler(network, RapSampling(steps=1, audio=Guidance()))
    audio = random(17, *SPEECH)
    (clip,) = run(sampler, sampler.begin(reference, 4), (3,), audio)
    noise = seeded_noise(4, 0, (BASE.channels, 3, BASE.rows, BASE.columns))[None]
    padded = torch.cat([audio[:1].expand(7, -1, -1), audio])[None]
    given = RapInputs(noise, torch.ones(1), reference[None, :, :3], torch.tensor([True]), padded, torch.tensor([False]))
    with torch.no_grad():
        full, silent = network(given), network(given._replace(hide_audio=torch.tensor([True])))
    assert torch.allclose(clip.latents, (noise - full)[0], atol=1e-5)
    guided = RapSampler(network, RapSampling(steps=1, audio=Guidance(5.0)))
    (clip,) = run(guided, guided.begin(reference, 4), (3,), audio)
    assert torch.allclose(clip.latents, (noise - silent - 5 * (full - silent))[0], atol=1e-4)


def test_the_state_stays_of_one_size_and_clips_are_repeatable(network, reference):  # 12
    sampler = RapSampler(network, QUICK)
    audio = random(500, *SPEECH)
    state = sampler.begin(reference, 3)
    clips = run(sampler, state, (5,) * 25, audio)
    assert {clip.state.bytes for clip in clips} == {state.bytes}
    again = run(sampler, state, (5,) * 3, audio)
    assert all(torch.equal(a.latents, b.latents) for a, b in zip(again, clips[:3], strict=True))
    assert not torch.allclose(
        run(sampler, sampler.begin(reference, 4), (5,), audio)[0].latents, clips[0].latents, atol=0.1
    )


def test_streams_in_one_batch_are_what_they_are_alone(network, reference):
    sampler = RapSampler(network, replace(QUICK, audio=Guidance(2.0, 0.5, 1.0)))
    states, audio, alone = [], [], []
    for i, before in enumerate(((), (3,), (5, 8))):
        state = sampler.begin(reference + i, i)
        clips = run(sampler, state, before, random(200, *SPEECH, seed=i))
        states.append(clips[-1].state if clips else state)
        audio.append(random(sampler.frames(states[-1], 5), *SPEECH, seed=10 + i))
        alone += sampler.generate([states[-1]], [audio[-1]], 5)
    for one, other in zip(alone, sampler.generate(states, audio, 5), strict=True):
        assert torch.allclose(one.latents, other.latents, atol=1e-5)
        assert torch.allclose(one.state.history, other.state.history, atol=1e-5)
        assert one.state.frames == other.state.frames


@torch.no_grad()
def test_a_null_motion_is_the_base_model_bit_for_bit(network, reference):
    moved = RapDenoiser(RAP_TINY).eval()
    missing, unexpected = moved.load_state_dict(network.state_dict(), strict=False)
    assert not unexpected and all(name.startswith("motion.") for name in missing)
    motion, given = random(2, 40, 70), inputs()
    base = network(given)
    assert torch.equal(moved(given._replace(motion=motion)), base)  # it begins at zero
    torch.nn.init.normal_(moved.motion.output.weight)
    shown = moved(given._replace(motion=motion, hide_motion=torch.tensor([False, True])))
    assert not torch.allclose(shown[0], base[0], atol=1e-3) and torch.equal(shown[1], base[1])
    plain, sampler = RapSampler(network, QUICK), RapSampler(moved, replace(QUICK, motion=Guidance(2.0)))
    audio = random(100, *SPEECH)
    of_base = run(plain, plain.begin(reference, 0), (5, 5), audio)
    without = run(sampler, sampler.begin(reference, 0), (5, 5), audio)
    guided = run(sampler, sampler.begin(reference, 0), (5, 5), audio, random(100, 70))
    assert torch.equal(without[1].latents, of_base[1].latents)
    assert not torch.allclose(guided[1].latents, of_base[1].latents, atol=1e-3)


def test_what_does_not_fit_is_refused(network, reference):
    sampler = RapSampler(network, QUICK)
    with pytest.raises(
        InputError, match="expected 16 latents of a reference, got 4; encode its picture repeated 121 times"
    ):
        sampler.reference(reference[:, :4])
    with pytest.raises(InputError, match="expected reference latents"):
        sampler.reference(reference[:3])
    assert sampler.reference(reference) is reference
    state = sampler.begin(reference, 0)
    with pytest.raises(InputError, match=r"expected the 17 new frames of this clip, \(17, 2, 6\), got \(16, 2, 6\)"):
        sampler.generate([state], [torch.zeros(16, *SPEECH)], 3)
    with pytest.raises(InputError, match="got 0 streams"):
        sampler.generate([], [], 3)
    with pytest.raises(InputError, match="expected no motion"):
        sampler.generate([state], [torch.zeros(17, *SPEECH)], 3, [torch.zeros(17, 0)])
    with pytest.raises(InputError, match="expected speech"):
        network(inputs()._replace(audio=torch.zeros(2, 39, *SPEECH)))
    with pytest.raises(InputError, match="at most 11 latents"):
        network(inputs(latents=12))


def test_the_sizes_of_the_paper():  # 11, 13
    with torch.device("meta"):
        count = sum(p.numel() for p in RapDenoiser(RAP_PAPER).parameters())
    assert count == pytest.approx(1411e6, rel=0.01)
    assert 11 * RAP_PAPER.tokens == 2816
    assert 3 * 8 * 32 * 32 / RAP_PAPER.channels == 192
