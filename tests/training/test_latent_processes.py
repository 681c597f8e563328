"""Two processes train codec, V and RAP as one does with the batches of both, and go on with the same bits."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

torch = pytest.importorskip("torch", reason="training needs torch (pip install ditto[train])")
pytest.importorskip("accelerate", reason="several processes need accelerate (pip install ditto[train])")

from latent_clips import write_clips  # noqa: E402
from latent_runs import KINDS, parts, run_of  # noqa: E402

from ditto.training.latent.loop import Objective, Terms, train  # noqa: E402
from ditto.training.runs import read_checkpoint  # noqa: E402

HERE = Path(__file__).parent


class Both(NamedTuple):
    """The batches of two processes."""

    clips: tuple
    first: tuple
    second: tuple


class OfBoth(Objective):
    """The losses of both batches, each as its process has them."""

    def __init__(self, objective):
        super().__init__()
        self.network, self._objective = objective.network, [objective]

    def begin(self, stage):
        self._objective[0].begin(stage)

    def forward(self, batch):
        found = [self._objective[0](part) for part in (batch.first, batch.second)]
        return Terms(torch.cat([terms.losses for terms in found]), {})


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The folder of the runs of two processes."""
    out = tmp_path_factory.mktemp("two")
    write_clips(out / "clips")
    path = os.pathsep.join([str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, str(HERE / "latent_two_processes.py"), str(out)], env=environment, cwd=HERE.parents[1],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return out


def losses(folder):
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_learn_as_one_with_both_batches(two, kind, tmp_path):
    torch.set_num_threads(1)
    objective, draw, stages = parts(kind, two / "clips")

    def both(step, rank):
        batches = draw(step, 0), draw(step, 1)
        return Both(batches[0].clips + batches[1].clips, *batches)

    train(OfBoth(objective), both, stages, run_of(tmp_path))
    one, found = losses(tmp_path), losses(two / kind / "whole")
    assert len(one) == len(found) == 2 and one[0] != pytest.approx(one[1], rel=1e-3)
    assert found == pytest.approx(one, rel=1e-5)  # of the first and the last update


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_go_on_with_the_same_bits(two, kind):
    whole, resumed = (read_checkpoint(two / kind / name / "checkpoint.pt") for name in ("whole", "parts"))
    assert whole["step"] == resumed["step"] == 4
    for part in ("model", "trained"):
        assert all(torch.equal(value, resumed[part][name]) for name, value in whole[part].items())
    for rank in (0, 1):
        weights = torch.load(two / kind / f"weights{rank}.pt", weights_only=True)
        assert all(torch.equal(value, weights[name]) for name, value in whole["model"].items())
