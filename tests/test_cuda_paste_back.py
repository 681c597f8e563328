"""A crop that stays on the device gives the frame of one that comes down; here the device is the CPU."""

from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the full pipeline needs torch (pip install ditto[full])")

from engine_networks import TINY, make  # noqa: E402

from ditto.engines.networks import example_of  # noqa: E402
from ditto.engines.torch_engine import TorchEngine  # noqa: E402
from ditto.full.motion_math import Pose  # noqa: E402
from ditto.full.paste_back import PasteBack  # noqa: E402
from ditto.full.renderer import NeuralFaceRenderer  # noqa: E402
from ditto.motion.motion import rest_motion  # noqa: E402


@pytest.mark.parametrize("outside", [0.0, 400.0])
def test_a_crop_that_stays_gives_the_same_frame(outside):
    network = make(TINY, "renderer")
    example = example_of(network, size=16)
    engine = TorchEngine(network, example.inputs, example.outputs)
    rest = Pose(1.0, np.zeros(3), np.zeros(3), np.zeros(63))
    condition = SimpleNamespace(canonical=example.inputs["kp_source"].numpy()[0].ravel().astype(np.float64))
    source = SimpleNamespace(
        volume=example.inputs["feature_3d"], keypoints=example.inputs["kp_source"].numpy()[0], pose=rest, condition=condition
    )
    picture = np.random.default_rng(0).integers(0, 256, (90, 110, 3), np.uint8)
    side = engine.outputs[0].shape[-1]
    to_picture = np.array([[0.9, -0.2, 20.0 + outside], [0.2, 0.9, 5.0], [0.0, 0.0, 1.0]])
    motion = rest_motion(1)[0]
    down, stays = (NeuralFaceRenderer(lambda portrait: source, engine, None, kept) for kept in (False, True))
    crop, tensor = down.render(source, motion), stays.render(source, motion)
    assert isinstance(tensor, torch.Tensor) and tensor.shape == (3, side, side)
    frame = stays.paste_into(picture, to_picture)(tensor)
    assert np.array_equal(frame, PasteBack(picture, to_picture, side)(crop))
    assert (frame != picture).any() == (outside == 0)
