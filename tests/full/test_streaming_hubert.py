"""HuBERT unit by unit: the same as the masked network over the whole recording, however it is cut."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the full-size networks need torch (pip install ditto[full])")

from fixtures.reference.recipe import distance, noise  # noqa: E402

from ditto.full.networks.hubert import Hubert, HubertConfig  # noqa: E402
from ditto.full.networks.streaming_hubert import HubertState, StreamingHubert  # noqa: E402

CONFIG = HubertConfig(channels=32, width=64, layers=3, heads=4, inner=128, position_kernel=16, position_groups=4)
UNIT, LEFT = 6, 14  # rows; the past is no whole number of units
SAMPLES = 320 * UNIT
EQUAL = 1e-5  # float32, other shapes of the same sums


class ShortUnits(StreamingHubert):
    unit, left = UNIT, LEFT


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return ShortUnits(Hubert(CONFIG).eval())


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def sound(units, batch=1):
    return torch.from_numpy(noise(f"streaming/{units}", (batch, units * SAMPLES), scale=0.1))


def masked_offline(hubert, samples):
    """The plain network's own modules over a whole recording, every look masked by hand. `samples` (1, N)."""
    padded = torch.nn.functional.pad(samples, (80, 0))
    x = hubert.feature_projection(hubert.feature_extractor(padded).transpose(1, 2))
    rows = x.shape[1]
    placed = x.clone()
    for t in range(rows):  # a row's positions, nothing heard behind its unit
        end = (t // UNIT + 1) * UNIT
        placed[:, t] += hubert.encoder.pos_conv_embed(x[:, :end])[:, t]
    x = placed
    mask = torch.zeros(rows, rows, dtype=torch.bool)
    for t in range(rows):
        start = t // UNIT * UNIT
        mask[t, max(0, start - LEFT) : start + UNIT] = True
    for layer in hubert.encoder.layers:
        y, attention = layer.layer_norm(x), layer.attention
        q, k, v = (
            proj(y).reshape(rows, CONFIG.heads, -1).transpose(0, 1)
            for proj in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        score = (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).masked_fill(~mask, float("-inf"))
        x = x + attention.out_proj((score.softmax(-1) @ v).transpose(0, 1).reshape(1, rows, -1))
        x = x + layer.feed_forward(layer.final_layer_norm(x))
    return hubert.encoder.layer_norm(x)


def run(network, pieces, state):
    out = []
    for piece in pieces:
        rows, state = network(piece, state)
        out.append(rows)
    return torch.cat(out, 1), state


def test_streaming_equals_masked_offline(network):
    """Offline pads samples with zeros; the empty state pads each convolution with zeros. Silence in front makes both the
    same but for what a silent row is: after enough of it nothing of the beginning is seen any more."""
    silence = 5 * UNIT  # rows; 3 layers of 14 to 19 rows back reach further, so compare behind them
    samples = torch.cat((torch.zeros(1, 320 * silence), sound(14)), 1)
    offline = masked_offline(network.hubert, samples)
    streamed = run(network, samples.split(SAMPLES, 1), network.empty_state())[0]
    first = 12 * UNIT
    assert streamed.shape == offline.shape
    assert distance(streamed[:, first:], offline[:, first:]) <= EQUAL


@pytest.mark.parametrize("cut", [[1, 1, 1, 1, 1, 1], [6], [2, 3, 1], [1, 4, 1]])
def test_any_cutting_into_units_gives_the_same(network, cut):
    state = network.pseudo_context(sound(9))
    samples = sound(6)
    whole, after = network(samples, state)
    pieces, following = run(network, samples.split([SAMPLES * n for n in cut], 1), state)
    assert distance(pieces, whole) <= EQUAL
    for name, found, expected in zip(HubertState._fields, following, after, strict=True):
        assert found.shape == expected.shape == getattr(state, name).shape, name
        assert distance(found, expected) <= EQUAL, name


def test_equal_calls_give_equal_bits(network):
    state = network.pseudo_context(sound(4))
    a, b = (network(sound(1), state) for _ in range(2))
    assert torch.equal(a[0], b[0])
    assert all(torch.equal(x, y) for x, y in zip(a[1], b[1], strict=True))


def test_sessions_in_one_batch_do_not_touch_each_other(network):
    states = [network.pseudo_context(sound(n)) for n in (1, 3)]  # one has heard less than the cache holds
    samples = [sound(1), -sound(1)]
    apart = [network(x, s)[0] for x, s in zip(samples, states, strict=True)]
    both = HubertState(*(torch.cat(pair) for pair in zip(*states, strict=True)))
    together, _ = network(torch.cat(samples), both)
    assert distance(together, torch.cat(apart)) <= EQUAL


def test_nothing_of_what_comes_later_is_heard(network):
    state = network.pseudo_context(sound(4))
    samples = sound(3)
    other = samples.clone()
    other[:, 2 * SAMPLES :] = 0
    a, b = network(samples, state)[0], network(other, state)[0]
    assert torch.equal(a[:, : 2 * UNIT], b[:, : 2 * UNIT])
    assert not torch.equal(a[:, 2 * UNIT :], b[:, 2 * UNIT :])


def test_the_context_matters_and_fades(network):
    """A row sees LEFT rows back in each layer; the convolutions and positions reach less far."""
    samples = sound(14)
    a, b = (run(network, samples.split(SAMPLES, 1), network.pseudo_context(sound(n)))[0] for n in (2, 5))
    assert distance(a[:, :UNIT], b[:, :UNIT]) > 1e-3
    assert distance(a[:, -UNIT:], b[:, -UNIT:]) <= EQUAL


def test_rows_lie_where_the_whole_recording_has_them(network):
    """An impulse moves the same rows as in `Hubert`: row r covers samples 320 r - 80 to 320 r + 320."""
    extract = network.hubert.feature_extractor
    samples = torch.zeros(1, 3 * SAMPLES)
    struck = samples.clone()
    struck[0, 320 * 8 + 150] = 1.0
    pair = torch.cat((struck, samples))
    streamed = network.convolve(pair, network.empty_state(2))[0].diff(dim=0).abs().sum(1)[0]
    offline = extract(torch.nn.functional.pad(pair, (80, 0))).diff(dim=0).abs().sum(1)[0]
    assert np.array_equal(streamed.nonzero(), offline.nonzero())
    assert 8 in streamed.nonzero()


def test_partial_units_and_short_contexts_are_refused(network):
    state = network.empty_state()
    with pytest.raises(ValueError, match=f"whole units of {SAMPLES} samples, got {SAMPLES + 1}"):
        network(torch.zeros(1, SAMPLES + 1), state)
    with pytest.raises(ValueError, match="got 0"):
        network(torch.zeros(1, 0), state)
    with pytest.raises(ValueError, match=f"{SAMPLES} samples or more, got 5"):
        network.pseudo_context(torch.zeros(1, 5))
