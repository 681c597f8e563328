"""`ditto serve` on Ray Serve: a conversation through its proxy, and a replica that ends without cutting it."""

import os
import socket
import threading
from types import SimpleNamespace

import pytest

pytest.importorskip("fastapi", reason="ditto serve is an extra: pip install 'ditto-talking-head[serve]'")
pytest.importorskip("aiortc", reason="ditto serve is an extra: pip install 'ditto-talking-head[serve]'")

from ditto.cluster.serve import LOAD, ServeOptions, app, options_of, policy, replicas_needed
from ditto.errors import InputError

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_worker_niceness"] = "0"  # 15 by default: on a busy machine they hardly begin
os.environ["RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S"] = "60"  # 5 s are too few on a busy machine
TOKEN = "correct-horse-battery"
HERE = "127.0.0.2"  # of the loopback device too; Ray replaces 127.0.0.1 by an address that other machines can reach


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "expected a token"),
        ({"token": TOKEN, "speed": 1}, "expected token, portrait"),
        ({"token": TOKEN, "sessions": "many"}, "expected sessions to be a number"),
        ({"token": TOKEN, "sessions": "-1"}, "expected sessions of 0 or more"),
        ({"token": TOKEN, "min_replicas": 3, "max_replicas": 2}, "1 <= min_replicas <= max_replicas"),
        ({"token": TOKEN, "target_load": "nan"}, "target_load in"),
        ({"token": TOKEN, "ice_servers": "http://x"}, "expected --ice-server"),
    ],
)
def test_bad_options_are_told(given, expected):
    with pytest.raises(InputError, match=expected):
        options_of(given)


def test_options_come_as_texts():
    assert options_of({"token": TOKEN, "sessions": "3", "target_load": "0.5"}) == ServeOptions(
        token=TOKEN, sessions=3, target_load=0.5
    )


@pytest.mark.parametrize(
    ("loads", "running", "needed"), [((), 2, 2), ((0,), 1, 1), ((0.75,), 1, 2), ((1, 1), 2, 3), ((0.25, 0, 0), 3, 1)]
)
def test_replicas_follow_the_load(loads, running, needed):
    assert replicas_needed(loads, running, 0.7) == needed


def test_the_policy_keeps_to_the_limits():
    context = SimpleNamespace(
        aggregated_metrics={LOAD: {"a": 9.0}},
        current_num_replicas=1,
        config=SimpleNamespace(target_ongoing_requests=0.7),
        capacity_adjusted_min_replicas=1,
        capacity_adjusted_max_replicas=3,
    )
    assert policy(context) == (3, {})
    context.aggregated_metrics = None
    assert policy(context) == (1, {})


def test_a_conversation_is_not_cut_by_the_end_of_its_replica():
    ray = pytest.importorskip("ray", reason="ray is an extra: pip install 'ditto-talking-head[cluster]'")
    from ray import serve
    from ray.cluster_utils import Cluster
    from serving import said, spoken, started

    node = {"num_cpus": 3, "node_ip_address": HERE, "object_store_memory": 80 << 20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    try:
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(app({"token": TOKEN, "sessions": 1, "max_replicas": 1, "max_size": 128, "drain_seconds": 60}))
        place, header = f"127.0.0.1:{port}", {"authorization": f"Bearer {TOKEN}"}
        client, ready = started(place, headers=header, rate=16000, pace="fast", idle=False)
        assert (ready["type"], ready["fps"]) == ("ready", 25)
        ending = threading.Thread(target=serve.delete, args=("default",), daemon=True)
        ending.start()
        ending.join(3)
        assert ending.is_alive()  # it waits for the conversation
        client.send(spoken(1.0, 16000))
        client.send('{"type": "flush"}')
        assert said(client, "segment_end")["pts_seconds"] == 1.0
        client.send('{"type": "close"}')
        ending.join(60)
        assert not ending.is_alive()
        serve.shutdown()
    finally:
        ray.shutdown()
        cluster.shutdown()
