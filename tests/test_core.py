"""The core (csrc/core) draws what `MeshRenderer` defines, from a blob that it trusts in nothing, in any number of threads."""

import struct
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from actors import PATIENT
from drawn import drawn_portrait

import ditto
from ditto._native import Core
from ditto.lite.rendering.blob import VERSION, model_arrays, pack_blob, picture_arrays, portrait_arrays, portrait_blob
from ditto.lite.rendering.core import CoreRenderer
from ditto.lite.rendering.surround import move_surround
from ditto.media.audio import SAMPLE_RATE, read_audio
from ditto.motion.motion import MOTION_SIZE, Keypoint, Motion, rest_motion
from ditto.portrait.face_mesh import LANDMARKS

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data" / "portraits" / "public_domain"
PICTURES = [ROOT / "examples" / "portrait.jpg", *(p for p in sorted(SHARED.glob("*")) if p.suffix in (".jpg", ".png"))]
FRAMES = 50
# The core sums in another order than NumPy and BLAS do, so a byte that lies on the border between two levels may fall to
# the other side. Positions are float32 there: 512 of them are exact to 3e-5.
MOST_LEVELS = 1
MOST_PX = 1e-4


@pytest.fixture(scope="module")
def renderer():
    return CoreRenderer(Path(ditto.__file__).parent / "bundles" / "lite")


@pytest.fixture(scope="module")
def head():
    return ditto.load("lite")


@pytest.fixture(scope="module")
def rows(head):
    """(FRAMES, 70): the example said, every other frame 2.5 times as strong; heads turned, lids shut, mouths rounded."""
    portrait = head.register(PICTURES[0])
    stream = head.stream(portrait, emotion={"happy": 0.5})
    samples = read_audio(ROOT / "examples" / "speech.flac")[: 4 * SAMPLE_RATE]
    said = np.stack([frame.motion.values for frame in stream.push(samples) + stream.flush()])
    random = np.random.default_rng(0)
    chosen = said[np.linspace(10, len(said) - 1, FRAMES).astype(int)].copy()
    chosen[1::2] *= np.float32(2.5)
    chosen[::3, 1:4] += random.uniform(-12.0, 12.0, (len(chosen[::3]), 3)).astype(np.float32)
    expression = chosen[:, 7:].reshape(FRAMES, -1, 3)  # a view
    expression[::7, [Keypoint.RIGHT_UPPER_LID, Keypoint.LEFT_UPPER_LID], 1] += 0.08
    expression[3::7, Keypoint.RIGHT_MOUTH_CORNER, 0] += 0.06
    expression[3::7, Keypoint.LEFT_MOUTH_CORNER, 0] -= 0.06
    expression[3::7, Keypoint.LOWER_INNER_LIP, 1] += 0.05
    expression[5::7, Keypoint.LOWER_INNER_LIP, 1] -= 0.03  # pressed together
    expression[6::7, [Keypoint.RIGHT_IRIS, Keypoint.LEFT_IRIS], 0] += 0.03
    return chosen


def open_core(renderer, portrait):
    """The portrait prepared, its pasting back, and a core of both."""
    appearance, paste_back = renderer.mesh.prepare(portrait), renderer.mesh.paste_back(portrait)
    return appearance, paste_back, Core(portrait_blob(renderer.mesh.learned, portrait, appearance, paste_back))


def expect_equal(renderer, portrait, rows):
    appearance, paste_back, core = open_core(renderer, portrait)
    moved = 0
    for number, row in enumerate(rows):
        render_pose = renderer.mesh.retarget(portrait, Motion(row))
        pose = renderer.mesh.pose(appearance, render_pose)
        vertices = core.vertices(row)
        around = move_surround(appearance.surround, appearance.geometry, pose)
        scale = max(portrait.crop.shape[0] / 512, 1.0)
        assert np.abs(vertices[:LANDMARKS] - pose.vertices[:, :2]).max() <= MOST_PX * scale, f"frame {number}"
        assert np.abs(vertices[LANDMARKS:] - around).max() <= MOST_PX * scale, f"frame {number}"
        expected = renderer.mesh.render(appearance, render_pose)
        crop, picture = core.frame(row)
        difference = np.abs(crop.astype(int) - expected)
        assert difference.max() <= MOST_LEVELS, f"frame {number}: {(difference > MOST_LEVELS).sum()} bytes differ"
        if number % 10 == 0:
            assert (crop == core.crop(row)).all() and (picture == core.picture(row)).all()
        assert (picture == paste_back(crop)).all(), f"frame {number}"
        moved = max(moved, int(np.abs(crop.astype(int) - portrait.crop).max()))
    assert moved > 100  # the frames show something


@pytest.mark.parametrize(("size", "pose"), [(512, (2.0, -5.0, 3.0)), (768, (-6.0, 22.0, -8.0)), (200, (0.0, 0.0, 0.0))])
def test_the_core_draws_drawn_faces_as_the_definition_does(renderer, rows, size, pose):
    expect_equal(renderer, drawn_portrait(size, pose), rows[:14])


@pytest.mark.parametrize("picture", PICTURES, ids=lambda path: path.stem)
def test_the_core_draws_portraits_as_the_definition_does(renderer, head, rows, picture):
    expect_equal(renderer, head.register(picture, face=0, max_size=640), rows)


def test_the_core_moves_alpha_as_the_definition_does(renderer, head, rows):
    portrait = head.cut_out(head.register(PICTURES[0], max_size=400))
    appearance, _, core = open_core(renderer, portrait)
    plane = renderer.mesh.prepare_alpha(portrait)
    moved = 0
    for row in rows[:12]:
        crop, alpha = core.with_plane(row, *plane)
        expected = renderer.mesh.render_with_alpha(appearance, renderer.mesh.retarget(portrait, Motion(row)), plane)
        assert np.abs(crop.astype(int) - expected[0]).max() <= MOST_LEVELS
        assert np.abs(alpha.astype(int) - expected[1]).max() <= 2 * MOST_LEVELS  # sampled, and laid over the plate
        assert (crop == core.crop(row)).all()
        moved = max(moved, int(np.abs(alpha.astype(int) - plane.values).max()))
    assert moved > 100
    with pytest.raises(ValueError, match="expected planes as large as the crop"):
        core.with_plane(rows[0], *plane._replace(values=plane.values[:-1]))


def test_the_lite_bundle_draws_with_the_core(head):
    assert isinstance(head.performer.renderer, CoreRenderer)
    portrait = drawn_portrait()
    prepared = head.performer.renderer.prepare(portrait)
    assert isinstance(prepared, Core) and prepared.size == 512
    with pytest.raises(ValueError, match=r"expected one frame of motion \(70,\), got \(2, 70\)"):
        head.performer.renderer.retarget(portrait, rest_motion(2))


def test_numbers_beyond_any_face_are_limited_as_in_the_definition(renderer, rows):
    portrait = drawn_portrait(200)
    appearance, _, core = open_core(renderer, portrait)
    for factor in (30.0, -30.0, 1e6, 1e30):
        row = (rows[4] * np.float32(factor)).astype(np.float32)
        pose = renderer.mesh.pose(appearance, renderer.mesh.retarget(portrait, Motion(row)))
        # Far outside of the picture float32 holds hundredths of a pixel.
        assert np.allclose(core.vertices(row)[:LANDMARKS], pose.vertices[:, :2], rtol=1e-5, atol=1e-2)
        assert core.crop(row).shape == (200, 200, 3)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_motion_that_is_not_finite_is_refused(renderer, value):
    _, _, core = open_core(renderer, drawn_portrait(128))
    for number in (0, 2, 6, MOTION_SIZE - 1):
        row = np.zeros(MOTION_SIZE, np.float32)
        row[number] = value
        for draw in (core.crop, core.picture, core.frame, core.vertices):
            with pytest.raises(ValueError, match="expected finite numbers that lead to a face near the picture"):
                draw(row)
    core.crop(np.zeros(MOTION_SIZE, np.float32))  # and goes on


@pytest.mark.parametrize("shape", [(69,), (2, 70), (0,), (70, 1)])
def test_a_motion_of_another_size_is_refused(renderer, shape):
    _, _, core = open_core(renderer, drawn_portrait(128))
    with pytest.raises(ValueError, match=r"expected one frame of motion \(70,\)"):
        core.crop(np.zeros(shape, np.float32))


# Threads


def in_threads(*works):
    """What each work gives, run at once."""
    results = [None] * len(works)

    def run(number):
        results[number] = works[number]()

    threads = [threading.Thread(target=run, args=(number,), name=f"draw {number}") for number in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENT)
        assert not thread.is_alive()
    return results


def test_threads_that_share_a_core_and_threads_with_their_own_draw_the_same(renderer, rows):
    cores = [open_core(renderer, drawn_portrait(200, pose))[2] for pose in ((2.0, -5.0, 3.0), (0.0, 10.0, 0.0))]
    alone = [[core.picture(row) for row in rows[:12]] for core in cores]

    def draw(core, backwards):
        order = rows[11::-1] if backwards else rows[:12]
        pictures = [core.picture(row) for row in order]
        return pictures[::-1] if backwards else pictures

    together = in_threads(*(lambda c=core, b=back: draw(c, b) for core in cores for back in (False, True)))
    for number, pictures in enumerate(together):
        assert all((a == b).all() for a, b in zip(pictures, alone[number // 2], strict=True))


def test_other_threads_run_while_a_frame_is_drawn(renderer):
    """With an interval that long, another thread runs only where the one that draws lets go of the lock."""
    _, _, core = open_core(renderer, drawn_portrait(128))
    row, stop, begun = np.zeros(MOTION_SIZE, np.float32), threading.Event(), threading.Event()
    drawn = 0

    def draw():
        nonlocal drawn
        begun.set()
        while not stop.is_set() and drawn < 20_000:
            core.crop(row)
            drawn += 1

    before = sys.getswitchinterval()
    sys.setswitchinterval(1000.0)
    try:
        thread = threading.Thread(target=draw, name="draw")
        thread.start()
        assert begun.wait(PATIENT)
        stop.set()
        thread.join(PATIENT)
    finally:
        sys.setswitchinterval(before)
    assert not thread.is_alive() and drawn < 20_000


# Blobs


@pytest.fixture(scope="module")
def arrays(renderer):
    portrait = drawn_portrait(128)
    appearance = renderer.mesh.prepare(portrait)
    model = model_arrays(renderer.mesh.learned)
    return model | portrait_arrays(portrait, appearance) | picture_arrays(renderer.mesh.paste_back(portrait))


def test_a_blob_without_a_picture_draws_crops_alone(renderer):
    portrait = drawn_portrait(128)
    core = Core(portrait_blob(renderer.mesh.learned, portrait, renderer.mesh.prepare(portrait)))
    assert core.crop(np.zeros(MOTION_SIZE, np.float32)).shape == (128, 128, 3)
    with pytest.raises(ValueError, match="expected a blob with a picture, got one without"):
        core.picture(np.zeros(MOTION_SIZE, np.float32))


ANY_NUMBER = ("lips.chains", "mouth.overlap", "surround.outline", ".relief", ".landmarks")  # of elements along the last axis


def test_every_array_is_needed_and_its_type_and_sizes_are_checked(arrays):
    Core(pack_blob(arrays))
    for name, array in arrays.items():
        without = {key: value for key, value in arrays.items() if key != name}
        if name in ("picture", "paste.detail"):
            continue  # a blob may lack them
        with pytest.raises(ValueError, match=f"expected an array {name} of .*, got none"):
            Core(pack_blob(without))
        other = array.astype(np.float32 if array.dtype != np.float32 else np.float64)
        with pytest.raises(ValueError, match=f"expected the array {name} to be "):
            Core(pack_blob({**arrays, name: other}))
        if not name.endswith(ANY_NUMBER) or name == "face.landmarks":
            with pytest.raises(ValueError, match=r"expected the array .* to be |the blob is damaged"):
                Core(pack_blob({**arrays, name: np.concatenate([array, array], -1)}))


def test_numbers_of_a_blob_are_checked(arrays):
    for name, array in arrays.items():
        if array.dtype.kind == "f":
            for value in (np.nan, np.inf, 2e7):
                damaged = array.copy()
                damaged.flat[-1] = value
                with pytest.raises(ValueError, match=f"expected (finite numbers up to 1e7 in the array )?{name}"):
                    Core(pack_blob({**arrays, name: damaged}))
        elif array.dtype == np.int32:
            for value in (-2, 1 << 30):
                damaged = array.copy()
                damaged.flat[-1] = value
                with pytest.raises(ValueError, match=f"expected numbers from .* in the array {name}, got {value}"):
                    Core(pack_blob({**arrays, name: damaged}))


def test_a_blob_that_is_cut_off_or_of_another_kind_is_refused(arrays):
    blob = pack_blob(arrays)
    for size in (0, 7, 31, 32, 100, len(blob) // 2, len(blob) - 1):
        with pytest.raises(ValueError, match="expected a blob"):
            Core(blob[:size])
    with pytest.raises(ValueError, match=f"expected a blob of version {VERSION}, got version {VERSION + 1}"):
        Core(blob[:8] + struct.pack("<I", VERSION + 1) + blob[12:])
    with pytest.raises(ValueError, match="expected a directory inside the blob"):
        Core(blob[:12] + struct.pack("<I", 1 << 20) + blob[16:])
    with pytest.raises(ValueError, match="inside the blob"):
        Core(blob[: 32 + 40] + struct.pack("<Q", len(blob)) + blob[32 + 48 :])
    with pytest.raises(ValueError, match="each array once"):
        Core(blob[: 32 + 48] + blob[32:56] + blob[32 + 48 + 24 :])
    with pytest.raises(TypeError):
        Core("a path")
    with pytest.raises(ValueError, match="expected a blob as bytes"):
        Core(np.zeros((4, 4)))


def test_what_changes_after_opening_changes_nothing(arrays):
    blob = bytearray(pack_blob(arrays))
    core, row = Core(blob), np.zeros(MOTION_SIZE, np.float32)
    before = core.picture(row)
    blob[:] = bytes(len(blob))
    assert (core.picture(row) == before).all()


def test_a_blob_takes_arrays_it_can_name_only():
    for name, array in (("a" * 24, np.zeros(1)), ("a", np.zeros((1, 1, 1, 1))), ("a", np.zeros(1, np.complex128))):
        with pytest.raises(ValueError, match="expected arrays with names of up to 23 characters"):
            pack_blob({name: array})
