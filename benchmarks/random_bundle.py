"""A full bundle with seeded random weights: it moves and draws nonsense, in the time the published one takes.

    python -m benchmarks.random_bundle out/full
    python -m benchmarks.rtf --bundle out/full

For machines on which the published checkpoints cannot be had; 2 GB.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from ditto.bundle import FORMAT, seal
from ditto.commands import Arguments, run, whole_number
from ditto.errors import InputError
from ditto.full.conversion.bundling import FPS, MOTION_SPACE, NAME, SAMPLE_RATE
from ditto.full.conversion.published import ENCODER, PUBLISHED
from ditto.full.networks.decoder import SpectralConv2d
from ditto.full.networks.loading import MODELS
from ditto.media.files import check_folder


def write_random_bundle(folder: Path, seed: int = 0, configs: Mapping[str, Any] | None = None) -> None:
    """Write it; `configs` are sizes by part, of networks of other than the published sizes.

    Raises:
        InputError: something is there already.
    """
    if folder.exists():
        raise InputError(f"a bundle would be written to {folder}, which is there already; give another name")
    folder.mkdir(parents=True)
    torch.manual_seed(seed)
    parts = {}
    for published in (ENCODER, *PUBLISHED):
        config = (configs or {}).get(published.part, published.config)
        network = MODELS[published.model].build(config)
        settle(network)
        name = f"{published.part}.safetensors"
        save_file({key: value.clone() for key, value in network.state_dict().items()}, folder / name)
        parts[published.part] = {
            "model": published.model,
            "config": dataclasses.asdict(config),
            "files": {"weights": name},
            "sha256": {},
        }
    described = {
        "format": FORMAT, "name": NAME, "licence": "none: random numbers", "origin": f"seed {seed}", "fps": FPS,
        "sample_rate": SAMPLE_RATE, "motion_space": MOTION_SPACE, "parts": parts,
    }  # fmt: skip
    (folder / "bundle.json").write_text(json.dumps(described), encoding="utf-8")
    seal(folder)


@torch.no_grad()
def settle(network: nn.Module) -> None:
    """Bring the vectors of spectral norms near the singular ones, as in a trained network."""
    for module in network.modules():
        if isinstance(module, SpectralConv2d):
            matrix = module.weight_orig.flatten(1)
            for _ in range(5):
                module.weight_u.copy_(nn.functional.normalize(matrix @ module.weight_v, dim=0))
                module.weight_v.copy_(nn.functional.normalize(matrix.T @ module.weight_u, dim=0))


def main(arguments: Sequence[str] | None = None) -> None:
    command = Arguments(prog="python -m benchmarks.random_bundle", description=__doc__.split("\n")[0])
    command.add_argument("folder", type=Path)
    command.add_argument("--seed", type=whole_number(0, 2**63), default=0)
    options = command.parse_args(arguments)
    check_folder(options.folder)
    write_random_bundle(options.folder, options.seed)
    print(options.folder)


if __name__ == "__main__":
    run(main)
