"""One process's part of tiny runs: `torchrun latent_two_processes.py OUT`. Each is done whole, and once more in two parts."""

import sys
from pathlib import Path

import torch
from latent_runs import KINDS, start

from ditto.training.workers import open_workers


class Cut(Exception):
    pass


def cut(step):
    if step == 3:
        raise Cut


def main(out: Path) -> None:
    torch.set_num_threads(1)
    workers = open_workers()
    for kind in KINDS:
        start(kind, out / "clips", out / kind / "whole", workers=workers)
        try:
            start(kind, out / "clips", out / kind / "parts", cut, workers=workers)
        except Cut:
            pass
        trained = start(kind, out / "clips", out / kind / "parts", workers=workers, resume=True)
        torch.save(trained.state_dict(), out / kind / f"weights{workers.rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
