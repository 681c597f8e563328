"""Warping and decoding as one network give what the two give one after the other."""

import copy

import pytest

torch = pytest.importorskip("torch", reason="the full-size networks need torch (pip install ditto[full])")

from engine_networks import DECODER, WARPING, decoder  # noqa: E402
from fixtures.reference.recipe import distance  # noqa: E402

from ditto.engines.networks import example_of  # noqa: E402
from ditto.full.networks.neural_renderer import NeuralRenderer  # noqa: E402
from ditto.full.networks.upsampling import RepeatedConv2d  # noqa: E402
from ditto.full.networks.warping import WarpingNetwork  # noqa: E402

EQUAL = 1e-5  # float32, sums in another order, an instance norm behind


@pytest.fixture(autouse=True)
def no_gradients():
    torch.manual_seed(0)
    with torch.no_grad():
        yield


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (5, 8)])
def test_a_convolution_of_repeated_pixels_is_one_of_the_small_image(scale, size):
    conv = torch.nn.Conv2d(3, 4, 3, padding=1)
    x = torch.randn(2, 3, *size)
    expected = conv(x.repeat_interleave(scale, 2).repeat_interleave(scale, 3))
    found = RepeatedConv2d(conv, scale)(x)
    assert found.shape == expected.shape
    assert distance(found, expected) <= EQUAL


def test_the_renderer_gives_what_its_networks_give():
    warping, plain = WarpingNetwork(WARPING).eval(), decoder(DECODER).eval()
    renderer = NeuralRenderer(warping, copy.deepcopy(plain)).eval()
    assert sum(isinstance(module, RepeatedConv2d) for module in renderer.modules()) == 6
    given = example_of(renderer, batch=2, size=16).inputs
    image = renderer(**given)
    assert image.shape == (2, 3, 128, 128)
    assert distance(image, plain(warping(**given).feature)) <= EQUAL


def test_a_decoder_is_folded_once():
    once = decoder(DECODER).eval()
    warping = WarpingNetwork(WARPING).eval()
    feature = torch.randn(1, 16, 8, 8)
    expected = NeuralRenderer(warping, once).decoder(feature)
    assert torch.equal(NeuralRenderer(warping, once).decoder(feature), expected)
