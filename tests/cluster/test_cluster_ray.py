"""A batch on a Ray cluster of two nodes on this machine, at a loopback address: nodes that are lost, the head lost."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import batch_work
import numpy as np
import pytest

pytest.importorskip("ray", reason="ray is an extra: pip install 'ditto-talking-head[cluster]'")

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
# The workers import batch_work; the path that pytest sets reaches no other process.
os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
os.environ["RAY_worker_niceness"] = "0"  # 15 by default: on a busy machine they hardly begin

from actors import PATIENT
from typer.testing import CliRunner
from wav import write_wav

from ditto.app.cli import app
from ditto.cluster.batch import run_batch
from ditto.cluster.manifest import read_manifest
from ditto.cluster.on_ray import RayWorkers
from ditto.errors import ClusterError
from ditto.media.audio import read_audio

HERE = "127.0.0.2"  # of the loopback device too; Ray replaces 127.0.0.1 by an address that other machines can reach
NODE = {"num_cpus": 1, "node_ip_address": HERE, "object_store_memory": 80 << 20}
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of one core each. A lost node is noticed within a second or two."""
    from ray.cluster_utils import Cluster

    noticing = {"health_check_period_ms": 300, "health_check_timeout_ms": 300, "health_check_failure_threshold": 3}
    head = NODE | {"include_dashboard": False, "_system_config": noticing}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    yield cluster
    cluster.shutdown()


@pytest.fixture
def second(cluster):
    node = cluster.add_node(**NODE)
    cluster.wait_for_nodes()
    yield node
    if node in cluster.worker_nodes:
        cluster.remove_node(node, allow_graceful=False)


@pytest.fixture
def place(tmp_path):
    (tmp_path / "portrait.txt").write_text(str(tmp_path))
    (tmp_path / "sound.wav").write_bytes(b"sound")
    lines = [{"portrait": "portrait.txt", "audio": "sound.wav", "output": f"{name}.mp4"} for name in "abcdef"]
    lines[4]["seed"] = 13
    lines[5]["audio"] = "no.wav"
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return tmp_path


def lines_of(place, work):
    log = place / "log"
    return [line for line in log.read_text().splitlines() if line.startswith(work)] if log.exists() else []


def run(place, address, work, told=lambda result: None, count=None):
    out = place / "out"
    lines = read_manifest(place / "list.jsonl", out)
    return run_batch(lines, out, lambda: RayWorkers(address, count, out, work), told, provenance=None)


def test_what_a_lost_node_was_doing_is_done_again_and_nothing_twice(cluster, second, place):
    lost = False

    def told(result):
        nonlocal lost
        begun = {line.split()[1]: int(line.split()[2]) for line in lines_of(place, "begun")}
        if len(begun) == 2 and not lost:
            cluster.remove_node(second, allow_graceful=False)
            with contextlib.suppress(ProcessLookupError):
                os.kill(begun[second.node_id], signal.SIGKILL)  # what a lost machine was running is lost with it
            lost = True
            (place / "go").touch()

    results = run(place, cluster.address, batch_work.wait, told)
    assert lost
    assert [result.status for result in results] == ["done"] * 4 + ["failed"] * 2
    assert results[4].about["error"] == "AudioError"
    assert str(place / "sound.wav") in results[4].about["message"]
    assert "no.wav cannot be read" in results[5].about["message"]
    begun = [line.split()[3] for line in lines_of(place, "begun")]
    assert sorted(set(begun)) == [f"{name}.mp4" for name in "abcde"]
    assert len(begun) == 6  # the one that the lost node had begun
    assert sorted(line.split()[1] for line in lines_of(place, "made")) == [f"{name}.mp4" for name in "abcde"]
    for name in "abcd":
        assert (place / "out" / f"{name}.mp4").read_text() == f"{name}.mp4 0"
    again = run(place, cluster.address, batch_work.write)
    assert [result.status for result in again] == ["done before"] * 4 + ["failed"] * 2


def test_the_job_of_a_killed_worker_is_done_again(cluster, place):
    results = run(place, cluster.address, batch_work.die_once)
    assert [result.status for result in results] == ["done"] * 4 + ["failed"] * 2
    assert (place / "died").exists()


def test_the_command_makes_a_real_video_on_the_cluster(cluster, tmp_path):
    sound = read_audio(EXAMPLES / "speech.flac")[16000 : 16000 + 8000]
    write_wav(tmp_path / "sound.wav", np.int16(sound * 32767))
    line = {"portrait": str(EXAMPLES / "portrait.jpg"), "audio": "sound.wav", "output": "a.mp4", "max_size": 128}
    (tmp_path / "list.jsonl").write_text(json.dumps(line))
    arguments = ["batch", str(tmp_path / "list.jsonl"), "-o", str(tmp_path), "--ray", cluster.address, "--json"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["done"] == 1
    assert (tmp_path / "a.mp4").stat().st_size > 1000


def test_an_address_where_no_cluster_answers_is_told(place):
    with pytest.raises(ClusterError, match="nothing answers there"):
        run(place, f"{HERE}:1", batch_work.write)


def test_a_lost_head_ends_the_batch_with_what_is_done(cluster, place):
    """In a process of its own; it is the last test of the cluster, which is gone afterwards."""
    code = (
        "import batch_work, ditto.cluster.on_ray as on_ray, ditto.cluster.work as work\n"
        "from ditto.app.cli import main\n"
        "on_ray.LOST_SECONDS = on_ray.LOOK_SECONDS = 1.0\n"
        "work.animate = batch_work.wait\n"
        "main()\n"
    )
    arguments = ["batch", str(place / "list.jsonl"), "-o", str(place / "out"), "--ray", cluster.address, "--workers", "1"]
    running = subprocess.Popen([sys.executable, "-c", code, *arguments], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + PATIENT
    while not lines_of(place, "begun") and time.monotonic() < deadline:
        time.sleep(0.05)
    cluster.remove_node(cluster.head_node, allow_graceful=False)
    _, said = running.communicate(timeout=PATIENT)
    assert running.returncode == 1, said
    assert "ClusterError: the head node of the Ray cluster is lost" in said
    report = [json.loads(line)["status"] for line in (place / "out" / "report.jsonl").read_text().splitlines()]
    assert report == ["not done"] * 6
