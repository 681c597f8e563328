"""The codec of V: geometry, causality, streams, blocks without parameters, references, counts."""

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from ditto.errors import InputError  # noqa: E402
from ditto.latent.codec import Codec  # noqa: E402
from ditto.latent.config import CODEC_PAPER, CODEC_TINY, Level  # noqa: E402
from ditto.latent.layers import CausalConv, Down, Pass, StreamState, Up  # noqa: E402

SIDE = 16
CHUNKS = ([1, 1, 1, 1, 1], [4, 1], [1, 4], [2, 3], [3, 2])  # latents


def untrained(config):
    """A codec in which every parameter counts: none is zero, as some of a new one are."""
    torch.manual_seed(0)
    codec = Codec(config).eval().requires_grad_(False)
    for parameter in codec.parameters():
        parameter += 0.05 * torch.randn_like(parameter)
    return codec


@pytest.fixture(scope="module")
def codec():
    return untrained(replace(CODEC_TINY, aligned_features=True, distance_bias=(0.5, 0.0)))


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def video(frames, seed=0, batch=1):
    return noise(batch, 3, frames, SIDE, SIDE, seed=seed).clamp(-1, 1)


@pytest.fixture(scope="module")
def references(codec):
    return codec.references(video(2, seed=5))


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def test_counts_of_the_paper():
    """Encoder 497 M, decoder 406 M (V, section 3.1); ours within 1 and 2 %."""
    with torch.device("meta"):
        codec = Codec(CODEC_PAPER)
    assert abs(parameters(codec.encoder) / 496.3e6 - 1) < 1e-3
    assert abs(parameters(codec.encoder) / 497e6 - 1) < 0.01
    assert abs(parameters(codec.decoder) / 400.9e6 - 1) < 1e-3
    assert abs(parameters(codec.decoder) / 406e6 - 1) < 0.02


@pytest.mark.parametrize(("frames", "latents"), [(1, 1), (5, 2), (17, 5), (73, 19)])
def test_frames_become_latents_and_frames_again(codec, frames, latents):
    z = codec.encode(video(frames)).mean
    assert z.shape == (1, 4, latents, 2, 2)
    assert codec.decode(z).shape == (1, 3, frames, SIDE, SIDE)


def test_a_first_frame_does_not_see_the_rest(codec):
    x = video(17)
    torch.testing.assert_close(codec.encode(x).mean[:, :, :1], codec.encode(x[:, :, :1]).mean, atol=1e-5, rtol=0)


@pytest.mark.parametrize("frame", [0, 1, 4, 5, 8, 16])
def test_a_frame_changes_its_latent_and_later_ones_alone(codec, frame):
    x, changed = video(17), video(17)
    changed[:, :, frame] += 1
    difference = (codec.encode(x).mean - codec.encode(changed).mean).abs().amax((0, 1, 3, 4))
    own = -(-frame // 4)
    assert not difference[:own].any() and difference[own] > 1e-4


@pytest.mark.parametrize("latent", [0, 1, 3])
def test_a_latent_changes_its_frames_and_later_ones_alone(codec, latent):
    z, changed = noise(1, 4, 5, 2, 2), noise(1, 4, 5, 2, 2)
    changed[:, :, latent] += 1
    difference = (codec.decode(z) - codec.decode(changed)).abs().amax((0, 1, 3, 4))
    own = max(0, 4 * latent - 3)
    assert not difference[:own].any() and difference[own] > 1e-4


@pytest.mark.parametrize("chunks", CHUNKS, ids=str)
def test_streaming_equals_offline(codec, references, chunks):
    """Convolutions of other shapes add in another order: 1e-4 of numbers of about 1."""
    x = video(17)
    whole = codec.encode(x)
    state, found, start = StreamState(), [], 0
    for latents in chunks:
        frames = codec.config.frames(latents, state.first)
        part, state = codec.encode_stream(x[:, :, start : start + frames], state)
        found.append(part)
        start += frames
    assert start == 17
    torch.testing.assert_close(torch.cat([p.mean for p in found], 2), whole.mean, atol=1e-4, rtol=0)
    torch.testing.assert_close(torch.cat([p.log_variance for p in found], 2), whole.log_variance, atol=1e-4, rtol=0)
    state, pictures = StreamState(), []
    for part in whole.mean.split(chunks, 2):
        y, state = codec.decode_stream(part, state, references)
        pictures.append(y)
    torch.testing.assert_close(torch.cat(pictures, 2), codec.decode(whole.mean, references), atol=1e-4, rtol=0)


def test_streaming_equals_offline_with_eight_frames_a_latent():
    """RAP's codec changes time in front of D_ref too."""
    codec = untrained(replace(CODEC_TINY, bottleneck=(Level(16, time=2),), expand=(Level(16, time=2),)))
    x, references = video(17), codec.references(video(1, seed=5))
    whole = codec.encode(x).mean
    assert whole.shape[2] == 3
    state, latents, decoding, pictures = StreamState(), [], StreamState(), []
    for part in x.split([1, 8, 8], 2):
        encoded, state = codec.encode_stream(part, state)
        y, decoding = codec.decode_stream(encoded.mean, decoding, references)
        latents.append(encoded.mean)
        pictures.append(y)
    torch.testing.assert_close(torch.cat(latents, 2), whole, atol=1e-4, rtol=0)
    torch.testing.assert_close(torch.cat(pictures, 2), codec.decode(whole, references), atol=1e-4, rtol=0)


def test_two_streams_do_not_mix_and_a_state_can_be_used_again(codec):
    latents = [noise(1, 4, 4, 2, 2, seed=seed) for seed in (1, 2)]
    states, found = [StreamState(), StreamState()], [[], []]
    for start in (0, 2):
        for stream in (0, 1):
            y, states[stream] = codec.decode_stream(latents[stream][:, :, start : start + 2], states[stream])
            found[stream].append(y)
    for stream in (0, 1):
        torch.testing.assert_close(torch.cat(found[stream], 2), codec.decode(latents[stream]), atol=1e-4, rtol=0)
    again, _ = codec.decode_stream(latents[0][:, :, :1], states[0])
    torch.testing.assert_close(codec.decode_stream(latents[0][:, :, :1], states[0])[0], again, atol=0, rtol=0)


def test_a_state_stays_as_large_as_it_is(codec):
    z, x = noise(1, 4, 1, 2, 2), video(4)
    _, decoding = codec.decode_stream(z, StreamState())
    _, encoding = codec.encode_stream(x[:, :, :1], StreamState())
    sizes = set()
    for _ in range(100):
        _, decoding = codec.decode_stream(z, decoding)
        _, encoding = codec.encode_stream(x, encoding)
        sizes.add((decoding.nbytes, encoding.nbytes, tuple(c.shape for c in decoding.caches)))
    assert len(sizes) == 1 and decoding.nbytes > 0 and encoding.nbytes > 0
    assert all(c.untyped_storage().nbytes() == c.numel() * 4 for c in decoding.caches)  # no cache keeps a chunk alive


@pytest.mark.parametrize(
    ("wide", "narrow", "time", "space"), [(4, 16, 1, 2), (8, 8, 2, 2), (4, 8, 4, 2), (4, 2, 2, 1), (8, 32, 1, 2)]
)
def test_shortcuts_invert_each_other(wide, narrow, time, space):
    """Up then Down is the identity; Down then Up is a projection, and the identity where nothing is averaged."""
    down, up = Down(wide, narrow, time, space, 3), Up(narrow, wide, time, space, 3)
    chunk = Pass()
    inner = noise(2, 3, 2, 2, narrow)
    torch.testing.assert_close(down.shortcut(up.shortcut(inner, chunk), chunk), inner, atol=1e-6, rtol=0)
    x = noise(2, 1 + 2 * time, 2 * space, 2 * space, wide)
    projected = up.shortcut(down.shortcut(x, chunk), chunk)
    torch.testing.assert_close(up.shortcut(down.shortcut(projected, chunk), chunk), projected, atol=1e-6, rtol=0)
    nothing_averaged = time == 1 and narrow == wide * space**2
    assert torch.allclose(projected, x, atol=1e-6) == nothing_averaged
    even = torch.full_like(x, 0.7)
    torch.testing.assert_close(up.shortcut(down.shortcut(even, chunk), chunk), even)


def test_a_shortcut_by_hand():
    """Four pixels of two channels to four channels: the order is channel, row, column; two neighbours are averaged."""
    pixels = torch.tensor([[[1.0, 10], [2, 20]], [[3, 30], [4, 40]]])[None, None]  # (1, 1, 2, 2, 2)
    found = Down(2, 4, 1, 2, 3).shortcut(pixels, Pass())
    torch.testing.assert_close(found.flatten(), torch.tensor([1.5, 3.5, 15.0, 35.0]))
    later = Down(2, 2, 2, 1, 3).shortcut(torch.arange(10.0).view(1, 5, 1, 1, 2), Pass())
    torch.testing.assert_close(later.flatten(), torch.tensor([0.0, 1, 3, 4, 7, 8]))  # frame 0, then means of pairs


@pytest.mark.parametrize("block", [Down(4, 8, 2, 2, 3), Up(8, 4, 2, 2, 3)], ids=["down", "up"])
def test_without_its_convolutions_a_block_is_its_shortcut(block):
    shortcut_parameters = parameters(block)
    for conv in (block.in_time, block.in_space):
        shortcut_parameters -= parameters(conv)
        for parameter in conv.parameters():
            torch.nn.init.zeros_(parameter)
    assert shortcut_parameters == 0
    x = noise(1, 3, 4, 4, 4 if isinstance(block, Down) else 8)
    assert torch.equal(block(x, Pass()), block.shortcut(x, Pass()))


@pytest.mark.parametrize("taps", [1, 2, 3])
def test_taps_equal_a_convolution_in_three_dimensions(taps):
    torch.manual_seed(0)
    conv, x = CausalConv(5, 7, taps), noise(2, 6, 4, 3, 5)
    torch.nn.init.normal_(conv.conv.bias)
    weight = conv.conv.weight.unflatten(1, (taps, 5)).transpose(1, 2)
    padded = torch.nn.functional.pad(x.movedim(-1, 1), (1, 1, 1, 1, taps - 1, 0))
    expected = torch.nn.functional.conv3d(padded, weight, conv.conv.bias).movedim(1, -1)
    torch.testing.assert_close(conv(x, Pass()), expected, atol=1e-5, rtol=0)


def test_references_are_a_set(codec):
    z, pictures = noise(1, 4, 3, 2, 2), video(3, seed=3)
    found = [codec.decode(z, codec.references(pictures[:, :, order])) for order in ([0, 1, 2], [2, 0, 1])]
    torch.testing.assert_close(*found, atol=1e-5, rtol=0)


def test_every_number_of_references_decodes_and_each_counts(codec):
    z, pictures = noise(1, 4, 2, 2, 2), video(3, seed=3)
    found = [codec.decode(z)] + [codec.decode(z, codec.references(pictures[:, :, :count])) for count in (1, 2, 3)]
    found.append(codec.decode(z, codec.references(pictures[:, :, 1:2])))
    for i, one in enumerate(found):
        assert one.shape == (1, 3, 5, SIDE, SIDE)
        assert all((one - other).abs().max() > 1e-3 for other in found[:i])


def test_a_reference_is_a_video_of_one_frame(codec):
    pictures = video(2, seed=5, batch=2)
    found = codec.references(pictures)
    assert found.latents.shape == (2, 4, 2, 2, 2) and found.grid == (4, 4)
    torch.testing.assert_close(found.latents[:, :, 1:], codec.encode(pictures[:, :, 1:]).mean, atol=1e-5, rtol=0)
    keys, values = found.keys_values[0]
    assert keys.shape == values.shape == (2, 2, 32, 8)  # videos, heads, 2 pictures of 4 x 4 cells, numbers of a head


def test_a_near_cell_of_a_reference_counts_more(codec):
    """The distance bias takes d² / 2 off the scores of the first head and nothing off the second's."""
    from ditto.latent.layers import distance_bias

    bias = distance_bias(3, 4, (0.5, 0.0), torch.zeros(1))
    assert bias.shape == (2, 12, 12) and not bias[1].any()
    assert bias[0, 0, 0] == 0 and bias[0, 0, 5] == -1 and bias[0, 0, 11] == -0.5 * (4 + 9)


def test_normalised_latents(codec):
    codec = untrained(codec.config)
    codec.latent_mean.copy_(torch.tensor([1.0, 2, 3, 4]))
    codec.latent_deviation.copy_(torch.tensor([1.0, 2, 0.5, 4]))
    z = torch.full((1, 4, 1, 1, 1), 5.0)
    torch.testing.assert_close(codec.normalise(z).flatten(), torch.tensor([4.0, 1.5, 4.0, 0.25]))
    torch.testing.assert_close(codec.denormalise(codec.normalise(z)), z)


def test_latents_are_drawn_from_their_distribution(codec):
    encoded = codec.encode(video(1))
    one = torch.ones_like(encoded.mean)
    torch.testing.assert_close((encoded.sample(one) - encoded.mean).log() * 2, encoded.log_variance, atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c, r: c.encode(video(4)), r"expected 4 n \+ 1 frames at the start of a video, got 4"),
        (lambda c, r: c.encode(video(5)[..., :12]), "multiples of 8, got 16 x 12"),
        (lambda c, r: c.encode(video(5)[:, :2]), r"expected video of \(B, 3, T, H, W\), got \(1, 2, 5, 16, 16\)"),
        (lambda c, r: c.encode_stream(video(5), StreamState(False)), "4 n frames after the start of a stream, got 5"),
        (lambda c, r: c.encode_stream(video(0), StreamState(False)), "4 n frames after the start of a stream, got 0"),
        (lambda c, r: c.decode(noise(1, 5, 2, 2, 2), r), r"latents of \(B, 4, T, h, w\), got \(1, 5, 2, 2, 2\)"),
        (lambda c, r: c.decode(noise(1, 4, 0, 2, 2), r), r"got \(1, 4, 0, 2, 2\)"),
        (lambda c, r: c.decode(noise(1, 4, 2, 3, 2), r), r"references of a grid of \(6, 4\) for 1 videos, got \(4, 4\)"),
        (lambda c, r: c.decode_stream(noise(2, 4, 2, 2, 2), StreamState(), r), "for 2 videos, got .* for 1"),
        (lambda c, r: c.references(video(0)), "expected one or more reference pictures, got none"),
        (lambda c, r: c.references(video(1)[..., :4, :]), "multiples of 8, got 4 x 16"),
    ],
)
def test_bad_input_is_refused(codec, references, call, message):
    with pytest.raises(InputError, match=message):
        call(codec, references)
