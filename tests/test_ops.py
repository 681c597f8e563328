"""Warp and composite kernels: equal to their definitions, exact at rest, and clear about bad input."""

import ast
import re
from pathlib import Path

import numpy as np
import pytest

import ditto
from ditto import _native, ops
from ditto.ops import reference
from ditto.ops.reference.warp import Parts


def smooth_texture(height, width, seed=0):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x * rng.uniform(0.05, 0.4) + y * rng.uniform(0.05, 0.4) + rng.uniform(0, 6)) for _ in range(4)]
    return np.rint(127 + 120 * np.stack(waves, -1)).astype(np.uint8)


def grid_mesh(height, width, rows=7, columns=9):
    y, x = np.meshgrid(np.linspace(0, height - 1, rows), np.linspace(0, width - 1, columns), indexing="ij")
    points = np.stack([x, y], -1).reshape(-1, 2).astype(np.float32)
    corners = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).ravel()
    first = np.stack([corners, corners + 1, corners + columns], 1)
    second = np.stack([corners + 1, corners + columns + 1, corners + columns], 1)
    return points, np.concatenate([first, second]).astype(np.int32)


@pytest.mark.parametrize("shake", [0.0, 3.0, 15.0])  # still, moving, folding over itself
@pytest.mark.parametrize("shape", [(96, 120), (37, 61)])
def test_warp_kernel_equals_twin(shape, shake):
    texture = smooth_texture(*shape)
    points, triangles = grid_mesh(*shape)
    moved = (points + np.random.default_rng(1).normal(0, shake, points.shape)).astype(np.float32)
    *got, parts = ops.warp(texture, triangles, moved, points)
    *want, defined = reference.warp(texture, triangles, moved, points)
    # A pixel whose centre lies on an edge may fall to either triangle: the map's last bits differ.
    for kernel, definition, step in zip(got, want, (1, 1, 1e-3), strict=True):
        assert kernel.shape == definition.shape and kernel.dtype == definition.dtype
        assert (np.abs(kernel.astype(float) - definition) > step).mean() < 2e-3
    mixed, expected = (mean_places(p, shape) for p in (parts, defined))
    assert (np.abs(mixed - expected).max(-1) > 1e-2).mean() < 2e-3
    assert all(a.dtype == b.dtype for a, b in zip(parts, defined, strict=True))
    assert mixed.any() == (shake > 0.0)


def mean_places(parts, shape):
    """(H, W, 2) of the parts of each pixel, whose weights are 1 together; zero where a pixel has none."""
    assert (np.diff(parts.pixels) >= 0).all() and (parts.weights > 0.0).all()
    count = int(np.prod(shape))
    assert np.allclose(np.bincount(parts.pixels, parts.weights, count)[np.unique(parts.pixels)], 1.0, atol=1e-6)
    means = [np.bincount(parts.pixels, parts.weights * parts.places[:, i], count) for i in (0, 1)]
    return np.stack(means, -1).reshape(*shape, 2)


@pytest.mark.parametrize("shake", [0.0, 3.0, 200.0])  # still, moving, far outside
def test_a_plane_is_carried_as_its_definition_says(shake):
    plane = smooth_texture(96, 121)[..., 0]
    plane[20:60, 30:90] = 255
    plane[70:, :50] = 0
    points, triangles = grid_mesh(96, 121)
    moved = (points + np.random.default_rng(3).normal(0, 3, points.shape)).astype(np.float32)
    *_, origin, parts = ops.warp(np.zeros((96, 121, 4), np.uint8), triangles, moved, points)
    assert 100 < len(parts.pixels) < 9000
    origin += np.random.default_rng(4).normal(0, shake, origin.shape).astype(np.float32)
    away = np.random.default_rng(5).normal(0, shake, parts.places.shape).astype(np.float32)
    parts = parts._replace(places=parts.places + away)
    assert np.abs(ops.carry(plane, origin, parts).astype(int) - reference.carry(plane, origin, parts)).max() <= 1
    at_rest = np.mgrid[:96, :121][::-1].astype(np.float32)
    assert (ops.carry(plane, at_rest, NO_PARTS) == plane).all()


NO_PARTS = Parts(np.zeros(0, np.int32), np.zeros((0, 2), np.float32), np.zeros(0, np.float32))


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"pixels": np.array([64], np.int32)}, ValueError, "of 64 pixels"),
        ({"pixels": np.array([-1], np.int32)}, ValueError, "got numbers -1"),
        ({"pixels": np.zeros(1)}, TypeError, "int32"),
        ({"places": np.zeros((1, 3), np.float32)}, ValueError, r"\(N, 2\)"),
        ({"places": np.full((1, 2), np.nan, np.float32)}, ValueError, "NaN"),
        ({"weights": np.ones(2, np.float32)}, ValueError, r"\(N,\)"),
    ],
)
def test_carry_refuses_parts(changed, error, message):
    parts = Parts(np.zeros(1, np.int32), np.zeros((1, 2), np.float32), np.ones(1, np.float32))
    with pytest.raises(error, match=message):
        ops.carry(np.zeros((8, 8), np.uint8), np.zeros((2, 8, 8), np.float32), parts._replace(**changed))


def test_how_far_a_plane_is_flat():
    plane = np.zeros((40, 50), np.uint8)
    plane[10:, 20:] = 9
    flat = ops.flat_around(plane)
    assert flat.max() > 9 and flat[0, 0] == 19  # columns 0 to 19 are 0
    for y, x in np.argwhere(flat > 0)[::7]:
        reach = int(flat[y, x])
        around = plane[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1]
        assert (around == plane[y, x]).all()
    assert (ops.flat_around(plane[:, :20]) == 255).all()


def test_all_ways_of_sampling_agree():
    texture = smooth_texture(96, 121)  # a width that no number of lanes divides
    points, triangles = grid_mesh(96, 121)
    moved = (points + np.random.default_rng(2).normal(0, 4, points.shape)).astype(np.float32)
    plain, halves, eight, vector = (
        _native.warp(texture, triangles=triangles, destination=moved, source=points, lanes=lanes)
        for lanes in (1, 4, 8, 0)
    )
    for got, want in zip(eight, vector, strict=True):
        assert (got == want).all()
    for other in (halves, vector):
        assert np.abs(plain[0].astype(int) - other[0]).max() <= 1  # weights in 16 bit
        assert np.abs(plain[1].astype(int) - other[1]).max() <= 1
        assert (plain[2] == other[2]).all()
    # As AVX2, but for its fused multiply-add, which now and then rounds to the other side.
    assert (halves[0] != vector[0]).mean() < 1e-3


def test_warp_at_rest_copies_the_texture():
    texture = np.random.default_rng(0).integers(0, 256, (64, 80, 4)).astype(np.uint8)
    points, triangles = grid_mesh(64, 80)
    image, alpha, origin, parts = ops.warp(texture, triangles, points, points)
    assert (image == texture[..., :3]).all() and (alpha == texture[..., 3]).all()
    assert np.abs(origin - np.mgrid[:64, :80][::-1]).max() < 1e-3 and len(parts.pixels) == 0


def test_warp_follows_a_shift_and_later_triangles_cover_earlier_ones():
    texture = smooth_texture(40, 40)
    square = np.array([[10, 10], [30, 10], [30, 30], [10, 30]], np.float32)
    here = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    points = np.concatenate([square, square])
    moved = np.concatenate([square + 3, square - (4, 0)]).astype(np.float32)
    image = ops.warp(texture, np.concatenate([here, here + 4]), moved, points)[0]
    assert (image[20, 20] == texture[20, 24, :3]).all()  # the second square lies over the first
    assert (image[31, 31] == texture[28, 28, :3]).all()  # here only the first one lies
    assert (image[5, 5] == texture[5, 5, :3]).all()  # and here none


def test_warp_smooths_a_silhouette():
    """A slanted edge of a white patch moved over black shows greys, not stairs."""
    texture = np.zeros((64, 64, 4), np.uint8)
    texture[:, 40:] = 255
    points = np.array([[0, 0], [63, 0], [63, 63], [0, 63], [42, 2], [62, 2], [62, 62], [42, 62]], np.float32)
    triangles = np.array([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]], np.int32)
    moved = points.copy()
    moved[4:] -= (28, 0)
    moved[[6, 7]] += (9, 0)
    image = ops.warp(texture, triangles, moved, points)[0][10:54, 5:35, 0]
    greys = (image > 20) & (image < 235)
    assert greys.any(1).mean() > 0.6


def test_a_silhouette_moves_by_sixteenths_of_its_contrast():
    """However slow a patch moves over another, a pixel on its edge changes by no more than one sample's share, and what is
    carried along as its colours do."""
    texture = np.full((40, 40, 4), 40, np.uint8)
    texture[:, 20:] = 200
    points = np.array([[0, 0], [39, 0], [39, 39], [0, 39], [26, 4], [36, 4], [36, 36], [26, 36]], np.float32)
    triangles = np.array([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]], np.int32)
    frames = []
    for shift in np.linspace(18.0, 20.0, 150):
        destination = points.copy()
        destination[4:, 0] -= np.float32(shift)
        image, _, origin, parts = ops.warp(texture, triangles, destination, points)
        frames.append(image.astype(int))
        carried = ops.carry(np.ascontiguousarray(texture[..., 0]), origin, parts)
        assert np.abs(carried.astype(int) - frames[-1][..., 0]).max() <= 1
    steps = np.abs(np.diff(frames, axis=0))[:, 6:34]  # the ends of the edge belong to corners
    assert np.abs(frames[-1] - frames[0]).max() > 150 and steps.max() <= 160 / 16 + 1


@pytest.mark.parametrize("amount", [1.9, 2.1, 2.9, 3.1])
def test_where_a_texture_shrinks_a_pixel_turns_to_samples_gradually(amount):
    texture = np.random.default_rng(3).integers(0, 256, (64, 64, 4)).astype(np.uint8)
    points = np.array([[0, 0], [63, 0], [63, 63], [0, 63]], np.float32)
    triangles = np.array([[0, 1, 2], [0, 2, 3]], np.int32)

    def drawn(shrinking):
        return ops.warp(texture, triangles, points / np.float32(shrinking), points)[0][:20, :20].astype(float)

    assert np.abs(drawn(amount + 1e-4) - drawn(amount)).mean() < 0.5


@pytest.mark.parametrize("cells", [(9, 11), (64, 64), (1, 1), (1, 5)])
def test_composite_kernel_equals_twin(cells):
    rng = np.random.default_rng(0)
    image, plate = rng.integers(0, 256, (2, 50, 70, 3)).astype(np.uint8)
    alpha = rng.integers(0, 256, (50, 70)).astype(np.uint8)
    gate = rng.random(cells).astype(np.float32)
    kernel, definition = image.copy(), image.copy()
    ops.composite(kernel, alpha, plate, gate)
    reference.composite(definition, alpha, plate, gate)
    assert np.abs(kernel.astype(int) - definition).max() <= 1  # rounding at .5
    assert (kernel != definition).mean() < 1e-3


def test_composite_leaves_what_does_not_move_and_replaces_what_does():
    image = np.full((16, 16, 3), 40, np.uint8)
    plate = np.full((16, 16, 3), 200, np.uint8)
    gate = np.repeat([[0.0, 1.0]], 2, 0).astype(np.float32)
    ops.composite(image, np.zeros((16, 16), np.uint8), plate, gate)
    assert (image[:, :4] == 40).all() and (image[:, 12:] == 200).all()


def warp_arguments():
    points, triangles = grid_mesh(16, 16, 3, 3)
    return {
        "texture": np.zeros((16, 16, 4), np.uint8),
        "triangles": triangles,
        "destination": points,
        "source": points.copy(),
    }


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("texture", np.zeros((16, 16, 3), np.uint8), ValueError, "texture"),
        ("texture", np.zeros((16, 16, 4), np.float32), TypeError, "uint8"),
        ("triangles", np.array([[0, 1, 9]], np.int32), ValueError, "of 9"),
        ("triangles", np.array([[0, 1, -1]], np.int32), ValueError, "-1"),
        ("triangles", np.array([0, 1, 2], np.int32), ValueError, r"\(N, 3\)"),
        ("destination", np.zeros((4, 2), np.float32), ValueError, r"\(V, 2\)"),
        ("destination", np.full((9, 2), np.nan, np.float32), ValueError, "NaN"),
        ("source", np.zeros((9, 2), np.float64), TypeError, "float32"),
    ],
)
def test_warp_refuses(name, value, error, message):
    with pytest.raises(error, match=message):
        ops.warp(**(warp_arguments() | {name: value}))


def test_composite_refuses():
    image = np.zeros((8, 8, 3), np.uint8)
    alpha, plate, gate = np.zeros((8, 8), np.uint8), image.copy(), np.ones((2, 2), np.float32)
    with pytest.raises(ValueError, match="plate"):
        ops.composite(image, alpha, plate[:4], gate)
    with pytest.raises(ValueError, match="gate"):
        ops.composite(image, alpha, plate, np.ones(4, np.float32))
    with pytest.raises(ValueError, match="contiguous"):
        ops.composite(np.zeros((8, 16, 3), np.uint8)[:, ::2], alpha, plate, gate)
    with pytest.raises(TypeError, match="float32"):
        ops.composite(image, alpha, plate, np.ones((2, 2)))


def test_the_stub_types_every_kernel_by_its_own_argument_names():
    stub = ast.parse((Path(ditto.__file__).parent / "_native.pyi").read_text())
    typed = {node.name: node for node in stub.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    public = {name for name in dir(_native) if not name.startswith("_")}
    assert set(typed) == public
    for name, node in typed.items():
        if isinstance(node, ast.FunctionDef):
            arguments = [argument.arg for argument in (*node.args.args, *node.args.kwonlyargs)]
            native = re.findall(r"(\w+): ", getattr(_native, name).__doc__.partition(" -> ")[0])
            assert arguments == native
            assert len(node.args.args) == 1


@pytest.mark.parametrize("name", ["EyeView", "MouthScene"])
def test_a_native_struct_takes_its_fields_by_name_and_says_what_is_wrong(name):
    stub = ast.parse((Path(ditto.__file__).parent / "_native.pyi").read_text())
    (init,) = (node.body[0] for node in stub.body if isinstance(node, ast.ClassDef) and node.name == name)
    lengths = {"to_source": 12, "to_eye": 6, "centre": 2, "down": 2, "gaze": 2}
    fields = {
        field.arg: 1.0 if field.annotation.id == "float" else (1.0,) * lengths.get(field.arg, 3)
        for field in init.args.kwonlyargs
    }
    struct = getattr(_native, name)
    struct(**fields)
    for field, value in fields.items():
        with pytest.raises(TypeError, match=f"expected a value for {name}.{field}, got none"):
            struct(**{other: given for other, given in fields.items() if other != field})
        with pytest.raises(ValueError, match=f"expected finite numbers for {name}.{field}, got NaN or infinity"):
            struct(**fields | {field: np.full(np.size(value), np.inf)})
        with pytest.raises(ValueError, match=f"for {name}.{field}, got {np.size(value) + 1}"):
            struct(**fields | {field: np.ones(np.size(value) + 1)})
        with pytest.raises(TypeError, match=f"expected numbers for {name}.{field}"):
            struct(**fields | {field: "red"})
    with pytest.raises(TypeError, match=f"expected only fields of {name}, got colour"):
        struct(**fields, colour=1.0)
