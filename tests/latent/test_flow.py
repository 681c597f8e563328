"""V's generator: its mask, blocks from cached keys and values, and streams. Numbers of the tests: the specification's."""

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from latent_networks import acting, random  # noqa: E402

from ditto.errors import InputError  # noqa: E402
from ditto.latent.config import FLOW_PAPER, FLOW_SMALL, FLOW_TINY  # noqa: E402
from ditto.latent.flow_network import FlowGenerator, FlowInputs  # noqa: E402
from ditto.latent.flow_sampler import FlowSampler, FlowSampling  # noqa: E402
from ditto.latent.schedule import Guidance, euler_step, seeded_noise  # noqa: E402
from ditto.latent.tokens import from_tokens, to_tokens  # noqa: E402

BASE = replace(FLOW_TINY, motion_features=0)
N, K = BASE.window, BASE.block
PLAIN = FlowSampling(steps=2, audio=Guidance(), reference=Guidance())
GUIDED = FlowSampling(steps=2)


def random_network(config, seed=0):
    return acting(lambda: FlowGenerator(config), seed)


@pytest.fixture(scope="module")
def network():
    return random_network(BASE)


def inputs(rows=2, references=2, seed=0, **changed):
    latents = (BASE.channels, N, BASE.rows, BASE.columns)
    made = FlowInputs(
        noisy=random(rows, *latents, seed=seed),
        context=random(rows, *latents, seed=seed + 1),
        time=random(rows, N // K, seed=seed + 2).sigmoid(),
        context_time=torch.zeros(rows, N // K),
        references=random(rows, BASE.channels, references, BASE.rows, BASE.columns, seed=seed + 3),
        reference_count=torch.full((rows,), references),
        first=torch.tensor([True, False] * rows)[:rows],
        audio=random(rows, 4 * N, BASE.audio_features, seed=seed + 4),
        hide_audio=torch.zeros(rows, dtype=torch.bool),
        hide_references=torch.zeros(rows, dtype=torch.bool),
    )
    return made._replace(**changed)


def changed_latents(before, after):
    """Which latents of the velocities (B, C, T, h, w) differ."""
    return [j for j in range(before.shape[2]) if not torch.allclose(before[:, :, j], after[:, :, j], atol=1e-6)]


def block(b):
    return list(range(b * K, (b + 1) * K))


def one_frame_more(latents, j):
    latents = latents.clone()
    latents[:, :, j] += 1
    return latents


@torch.no_grad()
def test_tokens_come_back_as_latents():
    latents = random(2, 3, 5, 4, 6)
    tokens = to_tokens(latents, 2)
    assert tokens.shape == (2, 5, 6, 12)
    assert torch.equal(tokens[0, 0, 0, :3], latents[0, :, 0, 0, 0])
    assert torch.equal(from_tokens(tokens, 2, 4, 6), latents)


@torch.no_grad()
def test_the_mask_lets_noisy_blocks_see_the_past_and_themselves(network):  # 14
    given = inputs()
    before = network(given)
    assert changed_latents(before, network(given._replace(context=one_frame_more(given.context, 5)))) == list(
        range(8, N)
    )
    assert changed_latents(before, network(given._replace(noisy=one_frame_more(given.noisy, 5)))) == block(1)
    audio = given.audio.clone()
    audio[:, 4 * 9] += 1  # of latent 9
    assert changed_latents(before, network(given._replace(audio=audio))) == block(2)
    times = given.time.clone()
    times[:, 3] /= 2
    assert changed_latents(before, network(given._replace(time=times))) == block(3)
    references = one_frame_more(given.references, 1)
    assert changed_latents(before, network(given._replace(references=references))) == list(range(N))


@torch.no_grad()
def test_references_are_a_set_and_those_not_counted_are_not_seen(network):
    given = inputs(references=3)
    before = network(given)
    assert torch.allclose(network(given._replace(references=given.references[:, :, [2, 0, 1]])), before, atol=1e-5)
    two = given._replace(reference_count=torch.tensor([2, 2]))
    assert not torch.allclose(network(two), before, atol=1e-3)
    fewer = given._replace(references=given.references[:, :, :2], reference_count=torch.tensor([2, 2]))
    assert torch.allclose(network(two), network(fewer), atol=1e-5)


@torch.no_grad()
def test_hidden_conditions_are_not_looked_at(network):  # 20
    given = inputs(hide_audio=torch.tensor([True, False]), hide_references=torch.tensor([False, True]))
    before = network(given)
    heard = network(given._replace(audio=given.audio + 1))
    assert torch.equal(heard[0], before[0]) and not torch.allclose(heard[1], before[1], atol=1e-3)
    looked = network(given._replace(references=given.references + 1))
    assert torch.equal(looked[1], before[1]) and not torch.allclose(looked[0], before[0], atol=1e-3)


def stream(sampler, reference, audio, blocks, seed=0, motion=None):
    state, start, made = sampler.begin(reference, seed), 0, []
    for _ in range(blocks):
        frames = sampler.frames(state)
        moved = None if motion is None else [motion[start : start + frames]]
        (generated,) = sampler.generate([state], [audio[start : start + frames]], moved)
        made.append(generated.latents)
        state, start = generated.state, start + frames
    return torch.cat(made, 1) if made else None, state


@torch.no_grad()
@pytest.mark.parametrize("count", [1, 2])
def test_blocks_from_the_cache_are_those_of_one_masked_pass(network, count):  # 13
    given = inputs(rows=1, references=count)
    sampler = FlowSampler(network, FlowSampling(steps=1, shift=1.0, audio=Guidance(), reference=Guidance()))
    state = sampler.begin(sampler.reference(given.references[0]), 5)
    noise = torch.cat([seeded_noise(5, b, (BASE.channels, K, BASE.rows, BASE.columns)) for b in range(N // K)], 1)[None]
    latents, _ = stream(sampler, state.reference, given.audio[0, 3:], N // K, seed=5)
    velocity = network(given._replace(noisy=noise, context=latents[None], time=torch.ones(1, N // K)))
    assert velocity.abs().max() > 0.5
    assert torch.allclose(euler_step(noise, velocity, 1.0, 0.0)[0], latents, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("count", [1, 3])
def test_branches_of_guidance_are_those_of_hidden_conditions(network, count):  # 15
    given = inputs(rows=1, references=count)
    one = FlowSampling(steps=1, shift=1.0, audio=Guidance(3.0), reference=Guidance(2.0))
    sampler = FlowSampler(network, one)
    latents, _ = stream(sampler, sampler.reference(given.references[0]), given.audio[0, 3:], N // K, seed=5)
    noise = torch.cat([seeded_noise(5, b, (BASE.channels, K, BASE.rows, BASE.columns)) for b in range(N // K)], 1)[None]
    given = given._replace(noisy=noise, context=latents[None], time=torch.ones(1, N // K))
    full, true = network(given), torch.tensor([True])
    no_audio, no_reference = network(given._replace(hide_audio=true)), network(given._replace(hide_references=true))
    velocity = full + 2 * (full - no_audio) + (full - no_reference)
    assert not torch.allclose(velocity, full, atol=0.1)
    assert torch.allclose(euler_step(noise, velocity, 1.0, 0.0)[0], latents, atol=1e-4)


def test_the_window_begins_anew_when_it_is_full_and_the_state_stays_of_one_size(network):  # 17
    sampler = FlowSampler(network, replace(GUIDED, steps=1))
    reference = sampler.reference(random(BASE.channels, 2, 2, 2))
    state, sizes, positions = sampler.begin(reference, 0), set(), []
    audio = random(13, BASE.audio_features)
    for _ in range(100):
        audio = random(sampler.frames(state), BASE.audio_features)
        (generated,) = sampler.generate([state], [audio])
        state = generated.state
        assert torch.isfinite(generated.latents).all()
        sizes.add(state.bytes)
        positions.append(state.position)
        tokens = (2 + state.position) * BASE.tokens
        assert state.full.length == tokens and state.null.length == tokens - BASE.tokens
    assert len(sizes) == 1
    assert positions[:7] == [4, 8, 12, 4, 8, 12, 4] and max(positions) == N - K


@torch.no_grad()
def test_a_window_that_begins_anew_holds_the_last_block_alone(network):
    sampler = FlowSampler(network, PLAIN)
    reference = sampler.reference(random(BASE.channels, 1, 2, 2))
    audio = random(200, BASE.audio_features)
    latents, state = stream(sampler, reference, audio, N // K)
    tokens = network.context_tokens(to_tokens(latents[None, :, -K:], 1), torch.tensor([False]))
    slots, _ = sampler._slots([reference.full], tokens.shape[1])
    network.transform(tokens, sampler._clean, sampler._rotation([0]), None, slots)
    place = slice(BASE.tokens, (1 + K) * BASE.tokens)
    for layer, room in enumerate(slots):
        assert torch.allclose(state.full.buffers.keys[layer, :, place], room.keys[0, :, place], atol=1e-6)
        assert torch.allclose(state.full.buffers.values[layer, :, place], room.values[0, :, place], atol=1e-6)


def test_a_stream_is_repeatable_and_hears_no_later_block(network):  # 18
    sampler = FlowSampler(network, GUIDED)
    reference = sampler.reference(random(BASE.channels, 1, 2, 2))
    audio = random(200, BASE.audio_features)
    latents, _ = stream(sampler, reference, audio, 3, seed=7)
    again, _ = stream(sampler, reference, audio, 3, seed=7)
    assert torch.equal(latents, again)
    assert not torch.allclose(stream(sampler, reference, audio, 1, seed=8)[0], latents[:, :K], atol=0.1)
    later = audio.clone()
    later[13 + 16 :] += 1
    other, _ = stream(sampler, reference, later, 3, seed=7)
    assert torch.equal(other[:, : 2 * K], latents[:, : 2 * K]) and not torch.equal(other, latents)


def test_a_state_may_be_used_twice(network):
    sampler = FlowSampler(network, GUIDED)
    reference = sampler.reference(random(BASE.channels, 1, 2, 2))
    _, state = stream(sampler, reference, random(200, BASE.audio_features), 2)
    audio = random(16, BASE.audio_features, seed=3)
    (one,), (two,) = sampler.generate([state], [audio]), sampler.generate([state], [audio])
    assert torch.equal(one.latents, two.latents)


def test_streams_in_one_batch_are_what_they_are_alone(network):
    sampler = FlowSampler(network, replace(GUIDED, audio=Guidance(2.0, 0.9, 1.0)))  # branches end at different steps
    states, audio, alone = [], [], []
    for i, blocks in enumerate((0, 1, 3, 5)):  # different places, and a window that begins anew
        reference = sampler.reference(random(BASE.channels, 1 + i % 2, 2, 2, seed=i))
        _, state = stream(sampler, reference, random(200, BASE.audio_features, seed=i), blocks, seed=i)
        states.append(state)
        audio.append(random(sampler.frames(state), BASE.audio_features, seed=10 + i))
        alone += sampler.generate([state], [audio[-1]])
    together = sampler.generate(states, audio)
    for one, other in zip(alone, together, strict=True):
        assert torch.allclose(one.latents, other.latents, atol=1e-5)
        assert one.state.position == other.state.position
        assert torch.allclose(one.state.full.buffers.keys, other.state.full.buffers.keys, atol=1e-4)


@torch.no_grad()
def test_a_null_motion_is_the_base_model_bit_for_bit(network):
    moved = FlowGenerator(FLOW_TINY).eval()
    missing, unexpected = moved.load_state_dict(network.state_dict(), strict=False)
    assert not unexpected and all(name.startswith("motion.") for name in missing)
    motion, hide = random(2, 4 * N, 70), torch.tensor([False, False])
    given = inputs()
    base = network(given)
    assert torch.equal(moved(given._replace(motion=motion, hide_motion=hide)), base)  # it begins at zero
    torch.nn.init.normal_(moved.motion.output.weight)
    shown = moved(given._replace(motion=motion, hide_motion=torch.tensor([False, True])))
    assert not torch.allclose(shown[0], base[0], atol=1e-3)
    assert torch.equal(shown[1], base[1]) and torch.equal(moved(given), base)  # hidden, or none
    gaze = motion.clone()
    gaze[..., 40] += 1
    assert not torch.equal(moved(given._replace(motion=gaze, hide_motion=hide)), moved(given._replace(motion=motion)))
    sampler, plain = FlowSampler(moved, replace(GUIDED, motion=Guidance(2.0))), FlowSampler(network, GUIDED)
    reference, audio = random(BASE.channels, 1, 2, 2), random(200, BASE.audio_features)
    of_base = stream(plain, plain.reference(reference), audio, 1)[0]
    with_motion = sampler.reference(reference)
    assert torch.equal(stream(sampler, with_motion, audio, 1)[0], of_base)
    assert not torch.allclose(stream(sampler, with_motion, audio, 1, motion=motion[0])[0], of_base, atol=1e-3)


def test_latents_relative_to_the_reference():
    config = replace(BASE, residual=True)
    network = random_network(config)
    network.units.spread.fill_(0.5)
    sampler, plain = FlowSampler(network, PLAIN), FlowSampler(random_network(BASE), PLAIN)
    reference, audio = random(BASE.channels, 2, 2, 2), random(13, BASE.audio_features)
    made, _ = stream(sampler, sampler.reference(reference), audio, 1)
    expected, _ = stream(plain, plain.reference(reference), audio, 1)
    assert torch.allclose(made, 0.5 * expected + reference[:, :1], atol=1e-5)
    encoded = network.units.encode(made[None], reference[None, :, :1])
    assert torch.allclose(network.units.decode(encoded, reference[None, :, :1]), made[None], atol=1e-6)


def test_what_does_not_fit_is_refused(network):
    sampler = FlowSampler(network, PLAIN)
    with pytest.raises(InputError, match="expected references"):
        sampler.reference(random(BASE.channels, 0, 2, 2))
    with pytest.raises(InputError, match="expected references"):
        sampler.reference(random(BASE.channels + 1, 1, 2, 2))
    state = sampler.begin(sampler.reference(random(BASE.channels, 1, 2, 2)), 0)
    with pytest.raises(InputError, match=r"expected 13 frames of 6 numbers .* got \(12, 6\)"):
        sampler.generate([state], [torch.zeros(12, 6)])
    with pytest.raises(InputError, match="got 0 streams"):
        sampler.generate([], [])
    with pytest.raises(InputError, match="expected no motion"):
        sampler.generate([state], [torch.zeros(13, 6)], [torch.zeros(13, 0)])
    with pytest.raises(InputError, match=f"expected noisy and context of {N} latents"):
        network(inputs()._replace(noisy=random(2, BASE.channels, 8, 2, 2)))


def test_the_sizes_of_the_paper():  # 19
    with torch.device("meta"):
        count = sum(p.numel() for p in FlowGenerator(FLOW_PAPER).parameters())
        small = sum(p.numel() for p in FlowGenerator(FLOW_SMALL).parameters())
    assert count == pytest.approx(1028e6, rel=0.01)
    assert small == pytest.approx(4.7e6, rel=0.05)
    assert FLOW_PAPER.tokens * FLOW_PAPER.block == 256 and FLOW_PAPER.tokens * FLOW_PAPER.window == 2048
