"""Eight clips learnt by heart: the network, the loss and the sampler fit together."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch (pip install ditto[train])")

from small_corpus import small_corpus  # noqa: E402

from ditto.bundle import Bundle  # noqa: E402
from ditto.lite.performer import postprocess_config  # noqa: E402
from ditto.lite.sampler import MotionNetwork, MotionSampler  # noqa: E402
from ditto.motion.motion import EXPRESSION, KEYPOINTS  # noqa: E402
from ditto.training.motion_batches import Units, draw  # noqa: E402
from ditto.training.motion_eval import ModuleEngine, head_frame, opening  # noqa: E402
from ditto.training.motion_loop import Run, train  # noqa: E402
from ditto.training.motion_objectives import LiteDenoising, lite_network  # noqa: E402
from ditto.training.recipe import Recipe  # noqa: E402


@pytest.mark.slow
def test_eight_clips_are_overfitted(tmp_path):
    torch.manual_seed(0)
    torch.set_num_threads(1)
    corpus = small_corpus(8)
    units = Units.of(corpus)
    recipe = Recipe(
        steps=240, batch=12, learning_rate=2e-3, warmup=20, flip=0.0, shape_scale=0.0, shape_shift=0.0, feature_noise=0.0,
        drop_condition=0.0, average=0.97,
    )  # fmt: skip
    run = Run(recipe, 0, corpus.fingerprint(), tmp_path, units, lambda line: None)
    objective = LiteDenoising(lite_network(units), recipe, 70)
    network = train(objective, lambda step, numbers: draw(corpus, units, recipe, 0, step, numbers), run).network
    bundle = Bundle.open("lite")
    engines = MotionNetwork.open(bundle.path, postprocess_config(bundle))._replace(
        condition=ModuleEngine(network.condition, "condition"),
        denoiser=ModuleEngine(network.denoiser, "clean"),
        scale=units.scale,
        silence=units.silence,
    )
    sampler, found = MotionSampler(engines), []
    for i in range(8):
        rows = slice(corpus.start[i], corpus.start[i] + corpus.length[i])
        state = sampler.initial_state(corpus.canonical[i].reshape(KEYPOINTS, 3), np.ones(2))
        made, _ = sampler(corpus.features[rows].astype(np.float32), corpus.emotion[i], state, final=True)
        real = corpus.motion[rows, EXPRESSION].reshape(-1, KEYPOINTS, 3)
        found.append(np.corrcoef(opening(head_frame(made)), opening(real.astype(np.float64)))[0, 1])
    assert np.mean(found) >= 0.95
