"""One process's part of a tiny run: `python motion_two_processes.py OUT BATCH`, alone or under torchrun."""

import sys
from dataclasses import replace
from pathlib import Path

import torch
from small_corpus import small_corpus

from ditto.lite.networks.motion_diffusion import MotionDiffusionConfig
from ditto.training.motion_batches import Units, draw
from ditto.training.motion_loop import Run, train
from ditto.training.motion_objectives import LiteDenoising, lite_network
from ditto.training.recipe import Recipe
from ditto.training.workers import open_workers


def main(out: Path, batch: int) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    corpus = small_corpus()
    units = Units.of(corpus)
    recipe = replace(Recipe(steps=6, batch=batch, warmup=2, score_every=2, bfloat16=False), learning_rate=1e-3)
    network = lite_network(units, MotionDiffusionConfig(width=32, heads=2, condition_layers=1, layers=2, time_size=16))
    run = Run(recipe, 0, corpus.fingerprint(), out, units, lambda line: None)
    draw_windows = lambda step, numbers: draw(corpus, units, recipe, 0, step, numbers)  # noqa: E731
    scores = iter([1.0, 0.5, 0.0])
    workers = open_workers()
    trained = train(LiteDenoising(network, recipe, 70), draw_windows, run, workers, lambda network: next(scores))
    state = torch.cat([tensor.flatten() for tensor in trained.network.state_dict().values()])
    (out / f"weights{workers.rank}").write_bytes(state.numpy().tobytes())


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
