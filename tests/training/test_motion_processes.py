"""Two processes with a batch of two each learn as one process with a batch of four does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="training needs torch (pip install ditto[train])")
pytest.importorskip("accelerate", reason="several processes need accelerate (pip install ditto[train])")

from ditto.training.runs import read_checkpoint  # noqa: E402

HERE = Path(__file__).parent
PROGRAM = HERE / "motion_two_processes.py"


def curve(folder):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if "loss" in line]


def test_two_processes_learn_as_one_with_twice_the_batch(tmp_path):
    path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for program, folder, batch in ((launch, "two", "2"), ([sys.executable], "one", "4")):
        command = [*program, str(PROGRAM), str(tmp_path / folder), batch]
        done = subprocess.run(
            command, env=environment, cwd=HERE.parents[1], capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr[-2000:]
    one, two = curve(tmp_path / "one"), curve(tmp_path / "two")
    assert one[0]["loss"] == pytest.approx(two[0]["loss"], rel=1e-6)
    assert one[-1]["loss"] == pytest.approx(two[-1]["loss"], rel=1e-3)  # AdamW takes whole steps along mere rounding
    assert one[-1]["step"] == two[-1]["step"] == 6
    assert one[-1]["loss"] != one[0]["loss"]
    # All processes end with the network of the best score, which only the first one knows.
    assert (tmp_path / "two" / "weights0").read_bytes() == (tmp_path / "two" / "weights1").read_bytes()
    best = read_checkpoint(tmp_path / "two" / "best.pt")
    state = torch.cat([tensor.flatten() for tensor in best["model"].values()])
    assert best["step"] == 2 and (tmp_path / "two" / "weights1").read_bytes() == state.numpy().tobytes()
