"""What many tests start from, and how signals reach the programs that tests start."""

import gc
import os
import signal
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Threads of torch wait for each other asleep: beside another process on the cores, waiting in a loop takes six times as
# long. Read when torch is imported. Under `make test` two processes share the cores.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# The same examples in every run, however busy the machine is.
settings.register_profile("ditto", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ditto")


def pytest_configure(config):
    """The tests sign with a key of their own. Under nohup, or in the background of a script, signals are ignored, and programs
    inherit that.
    """
    data = tempfile.TemporaryDirectory(prefix="ditto-tests-")
    config.add_cleanup(data.cleanup)
    os.environ["XDG_DATA_HOME"] = data.name
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)  # as deaf as before, but nothing to inherit


@pytest.fixture(scope="module", autouse=True)
def collections_are_short():
    """What stays (pytest's items, imported packages) is looked through by no further collection of garbage, of which a
    conversion of a bundle alone makes nine."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def portrait():
    """The example's face, small."""
    import ditto

    return ditto.load("lite").register(Path(__file__).parents[1] / "examples" / "portrait.jpg", max_size=256)


@pytest.fixture(scope="module")
def one_server():
    """A stand-in head, and where it is served."""
    from serving import StandInHead, running

    from ditto.live.server.app import create_app

    head = StandInHead()
    with running(create_app(head, head.portrait)) as place:
        yield head, place


@pytest.fixture
def served(one_server):
    """`one_server` as new; whatever a test does with it, nothing stays open."""
    from serving import until

    head, _ = one_server
    head.max_sessions = 8
    head.registered.clear()
    yield one_server
    assert until(lambda: not head.sessions)
