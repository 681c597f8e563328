"""Processes that ditto starts leave Ctrl-C to the one that started them, from their first instruction on."""

import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from ditto.cluster.workers import Worker
from ditto.training.prepare.work import Media, Options, Outcome, Step, Work, Workers

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads the masks of signals in /proc")


def blocks_ctrl_c(process):
    """Whether a process blocks SIGINT, which nothing does after the process began."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    mask = next(int(line.split()[1], 16) for line in lines if line.startswith("SigBlk:"))
    return bool(mask >> (signal.SIGINT - 1) & 1)


def no_job(job, file):
    raise AssertionError("no job is sent")


def write_mask(work, item):
    work.file("masks", item.id).write_text(str(blocks_ctrl_c(os.getpid())))
    return Outcome(())


def test_the_worker_of_a_batch_leaves_ctrl_c_to_the_batch_while_it_starts():
    worker = Worker(no_job)
    try:
        assert blocks_ctrl_c(worker.process.pid)
        assert not blocks_ctrl_c(os.getpid())
    finally:
        worker.connection.close()
        worker.process.terminate()
        worker.process.join()


def test_the_workers_of_a_preparation_leave_ctrl_c_to_it_while_they_start(tmp_path):
    (tmp_path / "masks").mkdir()
    work, step = Work(tmp_path, Options()), Step("masks", write_mask, Media)
    with Workers(2) as workers:
        done = list(workers.run(work, step, [SimpleNamespace(id=name) for name in "ab"]))
    assert done[-1] == 2 and [(tmp_path / "masks" / name).read_text() for name in "ab"] == ["True", "True"]
    assert not blocks_ctrl_c(os.getpid())
