"""The files of docs/deploy/ name commands, ports, routes, metrics and images that exist."""

import json
import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

pytest.importorskip("yaml", reason="the manifests are read with PyYAML: pip install pyyaml")
pytest.importorskip("fastapi", reason="ditto serve is an extra: pip install 'ditto-talking-head[serve]'")
pytest.importorskip("aiortc", reason="ditto serve is an extra: pip install 'ditto-talking-head[serve]'")

import yaml
from serving import StandInHead, running

from ditto.app.cli import app
from ditto.live.server import probe
from ditto.live.server.access import check_token
from ditto.live.server.app import create_app

DEPLOY = Path(__file__).parents[2] / "docs" / "deploy"
PUBLIC = re.compile(r"docker\.io/library/python:3\.\d+-slim")
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))


def parts(file):
    return list(yaml.safe_load_all(file.read_text()))


def pods(file):
    return [part["spec"]["template"]["spec"] for part in parts(file) if part["kind"] in ("Deployment", "Job")]


def options_of(command):
    """What a `ditto` command line is parsed to. Raises for one that is none."""
    called, arguments = get_command(app), list(command)
    while arguments and hasattr(called, "commands"):
        called = called.commands[arguments.pop(0)]
    return called.make_context("ditto", arguments).params


def routes():
    head = StandInHead()
    return {getattr(route, "path", "") for route in create_app(head, head.portrait).routes}


@pytest.mark.parametrize("file", MANIFESTS, ids=lambda file: file.name)
def test_a_manifest_names_public_images_and_commands_there_are(file):
    for pod in pods(file):
        for container in pod["initContainers"] + pod["containers"]:
            assert PUBLIC.fullmatch(container["image"])
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            assert mounted <= {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert container["command"][:3] == ["python", "-m", "ditto"]
            assert options_of(container["command"][3:])


def test_ports_probes_and_times_of_the_server_agree():
    secret, deployment, service, budget = parts(DEPLOY / "kubernetes" / "serve.yaml")
    (pod,) = pods(DEPLOY / "kubernetes" / "serve.yaml")
    (container,) = pod["containers"]
    options = options_of(container["command"][3:])
    (port,) = container["ports"]
    assert port["containerPort"] == options["port"]
    assert service["spec"]["ports"][0]["targetPort"] == port["name"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == service["spec"]["selector"] == labels
    assert budget["spec"]["selector"]["matchLabels"] == labels
    notes = deployment["spec"]["template"]["metadata"]["annotations"]
    assert int(notes["prometheus.io/port"]) == options["port"]
    known = routes()
    assert notes["prometheus.io/path"] in known
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        *command, url = container[name]["exec"]["command"]
        assert command == ["python", "-m", "ditto.live.server.probe"]
        place, _, path = url.removeprefix("http://").partition("/")
        assert place == f"127.0.0.1:{options['port']}"
        assert f"/{path}" in known
        assert container[name]["timeoutSeconds"] > probe.SECONDS
    assert pod["terminationGracePeriodSeconds"] > options["drain"] + 30
    check_token("0.0.0.0", secret["stringData"]["token"])


def test_the_probe_sends_the_token(monkeypatch):
    head = StandInHead()
    with running(create_app(head, head.portrait, token="correct-horse-battery")) as place:
        monkeypatch.delenv("DITTO_TOKEN", raising=False)
        assert probe.status_of(f"http://{place}/readyz") == 401
        monkeypatch.setenv("DITTO_TOKEN", "correct-horse-battery")
        assert probe.status_of(f"http://{place}/readyz") == 200
    assert probe.status_of(f"http://{place}/readyz") == 0


def test_the_dashboard_shows_metrics_there_are():
    pytest.importorskip("prometheus_client")
    from types import SimpleNamespace

    from ditto.live.server.metrics import Metrics

    class Clients(list):
        draining = False

    metrics = Metrics(StandInHead(), Clients())
    metrics.delivered(SimpleNamespace(kind="idle"))
    metrics._steps.labels("draw").observe(0.01)
    known = set(re.findall(r"^(\w+)", metrics.text().decode(), re.M))
    board = json.loads((DEPLOY / "grafana.json").read_text())
    for panel in board["panels"]:
        for target in panel["targets"]:
            names = set(re.findall(r"(?:ditto|process)_\w+", target["expr"]))
            assert names and names <= known, names - known


def test_the_container_runs_a_command_there_is_and_has_no_compiler_at_the_end():
    text = (DEPLOY / "Containerfile").read_text()
    stages = re.split(r"^FROM ", text, flags=re.M)[1:]
    assert len(stages) == 2
    assert all(PUBLIC.match(stage) for stage in stages)
    assert not re.search(r"g\+\+|gcc|build-essential|clang", stages[-1])
    assert "USER 10001" in stages[-1]
    command = json.loads(re.search(r"^CMD (.*)$", stages[-1], re.M)[1])
    assert options_of(command[1:])["port"] == int(re.search(r"^EXPOSE (\d+)$", stages[-1], re.M)[1])
    assert "constraints.txt" in shlex.split(re.search(r"^RUN python -m venv.*$", stages[0], re.M)[0])
