"""The networks see what MediaPipe sees with them; they can be called from threads and children, and say nothing."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ditto.bundle import SHIPPED, Bundle
from ditto.errors import BundleError
from ditto.portrait.face_networks import DETECTORS, MESH_SIZE, FaceNetworks, anchors, decode, networks
from ditto.portrait.follow import follow
from ditto.training.face_networks import dense

ROOT = Path(__file__).parents[2]
PORTRAIT = ROOT / "examples" / "portrait.jpg"


@pytest.fixture(scope="module")
def picture():
    """(512, 400), as in fixtures/mediapipe_faces.py."""
    return np.ascontiguousarray(np.asarray(Image.open(PORTRAIT))[:, 40:440])


@pytest.fixture(scope="module")
def mediapipe():
    with np.load(Path(__file__).parents[1] / "fixtures" / "mediapipe_faces.npz") as file:
        return dict(file)


# Tolerances: another decoder of JPEG or another OpenCV changes pixels by a level or two.


def test_the_mesh_equals_mediapipes(picture, mediapipe):
    landmarks, presence = networks().mesh(np.ascontiguousarray(picture[40:232, 110:302]))
    assert landmarks.shape == (478, 3)
    np.testing.assert_allclose(landmarks, mediapipe["landmarks"], atol=0.05)  # of 192 pixels
    assert presence == pytest.approx(mediapipe["presence"], abs=1e-3)


@pytest.mark.parametrize("network", DETECTORS)
def test_a_detection_equals_mediapipes(picture, mediapipe, network):
    (face,) = networks().detect(picture, network)
    assert face.score == pytest.approx(mediapipe[network][0], abs=0.02)
    np.testing.assert_allclose(np.append(face.box, face.eyes), mediapipe[network][1:], atol=1.0)


def test_the_person_equals_mediapipes(picture, mediapipe):
    person = networks().segment(np.ascontiguousarray(picture[:400]))
    assert person.shape == (400, 400) and person.dtype == np.float32
    assert np.abs(person[::8, ::8] - mediapipe["person"]).mean() < 0.002


def test_following_a_face_equals_mediapipes(picture, mediapipe):
    first, second = follow([picture, picture])
    np.testing.assert_allclose(first, mediapipe["first"], atol=0.3)
    np.testing.assert_allclose(second, mediapipe["second"], atol=0.3)


def test_a_face_that_is_lost_is_searched_again(picture):
    empty = np.full_like(picture, 90)
    found = list(follow([empty, picture, empty, picture]))
    assert found[0] is None and found[2] is None
    np.testing.assert_array_equal(found[1], found[3])


@given(st.integers(0, 2**32 - 1), st.sampled_from(sorted(DETECTORS)))
def test_any_output_decodes_to_separate_boxes(seed, network):
    detector, rng = DETECTORS[network], np.random.default_rng(seed)
    count = len(anchors(detector))
    boxes = rng.normal(0, detector.size / 4, (1, count, 16)).astype(np.float32)
    scores = rng.normal(rng.uniform(-12, 0), 4, (1, count, 1)).astype(np.float32)
    found = decode(boxes, scores, detector, 0.5)
    assert found.shape[1] == 9 and np.isfinite(found).all()
    assert (found[:, 0] >= 0.5).all() and (np.diff(found[:, 0]) <= 0).all()
    assert bool(len(found)) == bool(((scores[0, :, 0] >= 0) & (boxes[0, :, 2:4] >= 0).all(1)).any())


def test_boxes_that_overlap_are_one_face_and_others_are_not():
    detector = DETECTORS["short_range"]
    boxes = np.zeros((1, len(anchors(detector)), 16), np.float32)
    boxes[..., 2:4] = 30.0
    scores = np.full((1, len(anchors(detector)), 1), -100.0, np.float32)
    corner, opposite = 0, 511  # two anchors a cell: 0 and 1 have the same centre
    scores[0, [corner, corner + 1, opposite], 0] = 1.0, 3.0, 2.0
    boxes[0, corner + 1, 0] = 4.0
    first, second = decode(boxes, scores, detector, 0.5)
    weights = 1 / (1 + np.exp([-1.0, -3.0]))
    assert first[0] == pytest.approx(weights[1])
    assert (first[1] + first[3]) / 2 == pytest.approx(0.5 / 16 + 4 / 128 * weights[1] / weights.sum())
    assert (second[1] + second[3]) / 2 == pytest.approx(15.5 / 16)


@given(st.integers(0, 2**32 - 1), st.lists(st.booleans(), min_size=4, max_size=4))
def test_sparse_weights_are_read_as_they_are_stored(seed, listed):
    rng = np.random.default_rng(seed)
    shape = rng.integers(1, 5, 4)
    full = np.where(rng.random(shape) < 0.4, rng.normal(size=shape), 0).astype(np.float32)
    rows, described = [()], []
    for axis, as_list in enumerate(listed):
        kept, ends, places = [], [0], []
        for row in rows:
            steps = [i for i in range(shape[axis]) if not as_list or full[(*row, i)].any()]
            kept += [(*row, i) for i in steps]
            places += steps
            ends.append(len(places))
        rows = kept
        described.append(
            SimpleNamespace(
                format=int(as_list), denseSize=int(shape[axis]),
                arraySegments=SimpleNamespace(values=ends), arrayIndices=SimpleNamespace(values=places),
            )
        )
    sparsity = SimpleNamespace(traversalOrder=range(4), blockMap=None, dimMetadata=described)
    values = np.array([full[row] for row in rows], np.float32)
    np.testing.assert_array_equal(dense(values, SimpleNamespace(sparsity=sparsity, shape=shape)), full)


def test_a_network_that_was_changed_is_refused(tmp_path, monkeypatch):
    import ditto.bundle

    part = Bundle.open("lite").part("tracker")
    (tmp_path / "lite").mkdir()
    for file in (SHIPPED / "lite").iterdir():
        (tmp_path / "lite" / file.name).symlink_to(file)
    mesh = tmp_path / "lite" / part.file("mesh").name
    mesh.unlink()
    monkeypatch.setattr(ditto.bundle, "SHIPPED", tmp_path)
    with pytest.raises(BundleError, match=mesh.name):
        FaceNetworks()
    mesh.write_bytes(part.file("person").read_bytes())
    with pytest.raises(BundleError, match="SHA-256"):
        FaceNetworks()


def test_threads_get_what_one_thread_gets(picture):
    field = np.ascontiguousarray(picture[40 : 40 + MESH_SIZE, 110 : 110 + MESH_SIZE])
    alone = networks().mesh(field)[0]
    with ThreadPoolExecutor(4) as pool:
        for landmarks, _ in pool.map(networks().mesh, [field] * 16):
            np.testing.assert_array_equal(landmarks, alone)


def program(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, str(PORTRAIT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)


FIRST_IN_THREADS = """
import os, sys, threading
replaced = []
os.dup2 = lambda *given, **named: replaced.append(given)
before = os.fstat(2)
import ditto
head, start = ditto.load("lite"), threading.Barrier(6)
def register():
    start.wait()
    head.register(sys.argv[1], max_size=256)
threads = [threading.Thread(target=register) for _ in range(6)]
[t.start() for t in threads]
[t.join() for t in threads]
after = os.fstat(2)
print((before.st_dev, before.st_ino) == (after.st_dev, after.st_ino), replaced)
"""


def test_first_registrations_at_once_leave_stderr_alone():
    done = program(FIRST_IN_THREADS)
    assert done.stdout == "True []\n" and done.stderr == ""


WITHOUT_STDERR = """
import sys, ditto
class Writer:
    def write(self, text): pass
head = ditto.load("lite")
for sys.stderr in (None, Writer()):
    head.register(sys.argv[1], max_size=256)
print("registered")
"""


def test_a_face_is_registered_without_stderr_and_with_one_that_only_writes():
    assert program(WITHOUT_STDERR).stdout == "registered\n"


def child(queue):
    from ditto.portrait.registration import register

    queue.put(register(PORTRAIT, max_size=256).landmarks)


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_a_child_registers_after_its_parent(method):
    from ditto.portrait.registration import register

    landmarks = register(PORTRAIT, max_size=256).landmarks
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload(["ditto.portrait.registration"])
    queue = context.Queue()
    process = context.Process(target=child, args=(queue,), daemon=True)
    process.start()
    np.testing.assert_array_equal(queue.get(timeout=60), landmarks)
    process.join(30)
    assert process.exitcode == 0


FORK_MEANWHILE = """
import os, signal, sys, threading
import ditto
head = ditto.load("lite")
if sys.argv[2] == "open":
    head.register(sys.argv[1], max_size=256)
ended, started = threading.Event(), threading.Event()
def register():
    started.set()
    while not ended.is_set():
        head.register(sys.argv[1], max_size=256)
threads = [threading.Thread(target=register) for _ in range(2)]
[t.start() for t in threads]
started.wait()
for _ in range(3):
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)  # a child that hangs is killed by it
        head.register(sys.argv[1], max_size=256)
        os._exit(0)
    print(os.waitpid(pid, 0)[1])
ended.set()
[t.join() for t in threads]
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("networks_are", ["open", "about to be opened"])
def test_a_child_forked_while_threads_register_registers(networks_are):
    done = program(FORK_MEANWHILE, networks_are)
    assert done.stdout == "0\n0\n0\n", done.stderr
