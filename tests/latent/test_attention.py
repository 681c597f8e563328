"""The attention of all latent transformers: its formula, its positions, its cache."""

import pytest

torch = pytest.importorskip("torch")

from ditto.errors import InputError  # noqa: E402
from ditto.latent.attention import Attention, Cache, rotary_axes, rotate, rotation_of  # noqa: E402

DIM, HEADS = 24, 2


@pytest.fixture
def attention():
    torch.manual_seed(0)
    module = Attention(DIM, HEADS)
    for parameter in module.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return module.eval()


def tokens(count, seed=1):
    return torch.randn(2, count, DIM, generator=torch.Generator().manual_seed(seed))


def positions(count):
    return rotation_of(torch.stack([torch.arange(count), torch.arange(count) % 3, torch.arange(count) % 2], -1), DIM // HEADS)


def test_it_is_the_formula(attention):
    """softmax(q k / sqrt(c)) v in each head; q and k normalised over all heads together."""
    x = tokens(5)
    with torch.no_grad():
        q, k, v = attention.query(x), attention.key(x), attention.value(x)
        q = q / (q.square().mean(-1, keepdim=True) + 1e-6).sqrt() * attention.query_norm.gain
        k = k / (k.square().mean(-1, keepdim=True) + 1e-6).sqrt() * attention.key_norm.gain
        c = DIM // HEADS
        heads = []
        for h in range(HEADS):
            part = slice(h * c, (h + 1) * c)
            scores = q[..., part] @ k[..., part].transpose(1, 2) / c**0.5
            heads.append(scores.softmax(-1) @ v[..., part])
        expected = attention.output(torch.cat(heads, -1))
        torch.testing.assert_close(attention(x)[0], expected, atol=1e-5, rtol=1e-5)


def test_the_axes_of_a_head_are_those_of_wan():
    assert rotary_axes(128) == (44, 42, 42)
    assert rotary_axes(64) == (24, 20, 20)


def test_scores_depend_on_distances_alone():
    query, key = torch.randn(1, 1, 4, 12), torch.randn(1, 1, 4, 12)
    place = torch.tensor([[0, 0, 0], [3, 1, 0], [5, 2, 2], [9, 0, 7]])

    def scores(shift):
        rotation = rotation_of(place + torch.tensor(shift), 12)
        return rotate(query, rotation) @ rotate(key, rotation).transpose(2, 3)

    torch.testing.assert_close(scores([0, 0, 0]), scores([-1, 4, 2]), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(scores([0, 0, 0]), query @ key.transpose(2, 3), atol=1e-2)


def test_an_angle_by_hand():
    rotation = rotation_of(torch.tensor([[2, 3, 5]]), 6)  # two numbers an axis, so one frequency of 1
    torch.testing.assert_close(rotation.cos[0], torch.tensor([2.0, 3.0, 5.0]).cos())
    turned = rotate(torch.tensor([1.0, 0, 0, 1, 1, 0]).view(1, 1, 1, 6), rotation)[0, 0, 0]
    angle = torch.tensor([2.0, 3.0, 5.0])
    expected = torch.stack(
        [angle[0].cos(), angle[0].sin(), -angle[1].sin(), angle[1].cos(), angle[2].cos(), angle[2].sin()]
    )
    torch.testing.assert_close(turned, expected)


@pytest.mark.parametrize("whole_buffers", [False, True], ids=["filled", "static"])
def test_tokens_with_a_cache_equal_one_masked_forward(attention, whole_buffers):
    """Block by block with a cache = all at once with a mask, whether the cache's shape grows or stays."""
    x, rotation = tokens(9), positions(9)
    block = torch.arange(9) // 3
    with torch.no_grad():
        expected, _ = attention(x, rotation, mask=block[:, None] >= block[None])
        first, new = attention(x[:, :3], rotation.at(slice(3)))
        cache, found = Cache.of(new, 12), [first]
        for start in (3, 6):
            part = slice(start, start + 3)
            if whole_buffers:
                y, new = attention(x[:, part], rotation.at(part), mask=cache.mask(3), past=cache.buffers)
            else:
                y, new = attention(x[:, part], rotation.at(part), past=cache.filled())
            cache = cache.append(new)
            found.append(y)
    torch.testing.assert_close(torch.cat(found, 1), expected, atol=1e-5, rtol=1e-5)
    assert cache.length == 9 and cache.capacity == 12


def test_a_cache_is_a_value(attention):
    first, more = attention.keys_values(tokens(2)), attention.keys_values(tokens(2, seed=2))
    cache = Cache.of(first, 4)
    longer = cache.append(more)
    assert cache.length == 2 and not cache.buffers.keys[:, :, 2:].any()
    assert longer.length == 4 and longer.buffers.keys.shape == cache.buffers.keys.shape
    torch.testing.assert_close(longer.filled().keys, first.then(more).keys)
    with pytest.raises(InputError, match="expected at most 4 tokens in a cache, got 6; reset"):
        longer.append(more)


def test_a_context_is_a_set(attention):
    """Without positions, the order of the context changes nothing; another context does."""
    x, context = tokens(3), tokens(6, seed=2)
    with torch.no_grad():
        q = attention.queries(x)
        here = attention.attend(q, attention.keys_values(context))
        turned = attention.attend(q, attention.keys_values(context.flip(1)))
        other = attention.attend(q, attention.keys_values(tokens(6, seed=3)))
    torch.testing.assert_close(here, turned, atol=1e-5, rtol=1e-5)
    assert (here - other).abs().max() > 0.01


def test_bfloat16_stays_near(attention):
    """bfloat16 has 8 bits of mantissa: 2e-2 on numbers of about 1."""
    x, rotation = tokens(5), positions(5)
    with torch.no_grad():
        expected = attention(x, rotation)[0]
        with torch.autocast("cpu", torch.bfloat16):
            found = attention(x, rotation)[0]
    assert found.dtype == torch.bfloat16
    assert (found.float() - expected).abs().mean() < 2e-2 * expected.abs().mean().clamp(min=1)


def test_heads_that_do_not_divide_are_refused():
    with pytest.raises(InputError, match="expected heads that divide 24, got 5"):
        Attention(24, 5)
    with pytest.raises(InputError, match="even width, got 3"):
        rotation_of(torch.zeros(1, 3), 3)
