"""Soft limits: nothing changes inside, no kink, and no input leaves the range of real faces."""

import numpy as np
import pytest

from ditto.controls.limits import POSE, POSE_LEAST, POSE_MOST, limit, soften
from ditto.full.space import FullSpace
from ditto.lite.rendering.core import CoreRenderer
from ditto.lite.rendering.deform import signed_areas
from ditto.motion.map import REACH
from ditto.motion.motion import EXPRESSION, MOTION_SIZE, Motion
from ditto.motion.space import LITE_SPACE
from ditto.portrait.face_mesh import inner_gap

FULL_SPACE = FullSpace(lambda portrait: pytest.fail("limits ask for no portrait"))
SPACES = pytest.mark.parametrize("space", [LITE_SPACE, FULL_SPACE], ids=["lite", "full"])
# Of six clips of expressive faces, 1398 frames: gap between the inner lips, fu; aperture against an open eye; change of the
# distance between the inner corners of the mouth, fu.
OBSERVED_GAP, OBSERVED_APERTURE, OBSERVED_WIDTH = (-0.004, 0.356), (0.0, 1.37), (-0.208, 0.124)


def wild(count: int, seed: int = 0) -> np.ndarray:
    """(count, 70) from a twitch to a million face units, of one number or of all."""
    random = np.random.default_rng(seed)
    size = 10.0 ** random.uniform(-2.5, 6.0, (count, 1))
    chosen = random.random((count, MOTION_SIZE)) < random.uniform(0.05, 1.0, (count, 1))
    return random.standard_normal((count, MOTION_SIZE)) * size * chosen


@SPACES
def test_each_number_alone_is_untouched_in_its_safe_range(space):
    for dimension in space.map:
        values = np.zeros((9, MOTION_SIZE))
        values[:, EXPRESSION.start + dimension.number] = np.linspace(dimension.safe_low, dimension.safe_high, 9)
        np.testing.assert_array_equal(limit(values, space), values, err_msg=dimension.name)


@SPACES
def test_motion_inside_every_safe_range_is_untouched(space):
    low, high = space.map.safe
    random = np.random.default_rng(1)
    values = random.normal(0, 1, (500, MOTION_SIZE)) * random.uniform(0, 1, (500, MOTION_SIZE)) ** 4
    face = values[:, EXPRESSION]
    measures = space.map.measures(face)
    over = np.maximum(measures / high, measures / low).max(1)
    if space.map.wholes:
        over = np.maximum(over, (space.map.sizes(measures) / [whole.safe for whole in space.map.wholes]).max(1))
    values[:, EXPRESSION] = 0.999 * face / over[:, None]
    values[:, POSE] = 0.1 * values[:, POSE]
    np.testing.assert_array_equal(limit(values, space), values)


@SPACES
def test_no_input_passes_a_limit(space):
    face = limit(wild(10_000), space)
    assert np.isfinite(face).all()
    assert (face[:, POSE] >= POSE_LEAST).all() and (face[:, POSE] <= POSE_MOST).all()
    face_map = space.map
    measures = face_map.measures(face[:, EXPRESSION])
    for i, relation in enumerate(face_map.relations):
        found = measures[:, 63 + i]
        assert found.min() >= relation.least - 1e-12 and found.max() <= relation.most + 1e-12, relation.name
    # A number that a relation moves may pass its own end by what the relation's other numbers may move.
    spread = REACH * (face_map.high - face_map.low)
    numbers = measures[:, :63]
    assert (numbers > REACH * face_map.low - spread).all() and (numbers < REACH * face_map.high + spread).all()
    if face_map.wholes:
        assert (face_map.sizes(measures) <= [whole.most + 1e-9 for whole in face_map.wholes]).all()


@SPACES
def test_limits_have_no_kink(space):
    """Along a line the slope never jumps: with steps of 1 % of the shortest way from a safe end to a limit's, it changes by
    a share of the slope itself; a kink would change it by all of it."""
    random = np.random.default_rng(2)
    room = min(
        [min(r.low - r.least, r.most - r.high) for r in space.map.relations]
        + [float(((REACH - 1.0) * np.minimum(-space.map.low, space.map.high)).min())]
    )
    along = random.standard_normal((6, MOTION_SIZE))
    along[:, POSE] *= 20.0
    along /= np.abs(along[:, EXPRESSION]).max(1, keepdims=True)
    steps = np.arange(0.0, 0.4, 0.01 * room)
    for direction in along:
        path = limit(steps[:, None] * direction, space)
        slope = np.diff(path, axis=0) / steps[1]
        assert np.abs(np.diff(slope, axis=0)).max() < 0.1 * np.abs(slope).max()


def test_softening_is_the_identity_inside_and_ends_at_the_limit():
    x = np.array([-1e9, -1.5, -1.0, -0.3, 0.0, 2.0, 2.0 + 1e-6, 1e9])
    y = soften(x, -1.0, 2.0, -2.0, 3.0)
    np.testing.assert_array_equal(y[2:6], x[2:6])
    assert y[0] == -2.0 and y[-1] == 3.0 and y[6] == pytest.approx(x[6], abs=1e-12)
    assert y[1] == pytest.approx(-1.0 - np.tanh(0.5))


@SPACES
def test_one_frame_and_many_agree(space):
    values = wild(40, seed=3)
    together = limit(values, space)
    np.testing.assert_array_equal(together, np.stack([limit(row, space) for row in values]))
    np.testing.assert_array_equal(limit(values.reshape(4, 10, MOTION_SIZE), space).reshape(together.shape), together)


def test_what_is_not_finite_is_refused():
    values = np.zeros(MOTION_SIZE)
    for wrong in (np.nan, np.inf):
        values[9] = wrong
        with pytest.raises(ValueError, match="finite"):
            limit(values, LITE_SPACE)


def test_the_values_given_stay_as_they_are():
    values = wild(3)
    before = values.copy()
    limit(values, LITE_SPACE)
    np.testing.assert_array_equal(values, before)


def test_10000_wild_motions_give_faces(portrait):
    """On the renderer's own mesh: lips, lids and corners as far apart as on real faces, and hardly a triangle folds.

    Real talk and ARKit's shapes fold 0.4 to 0.9 % of the triangles on this mesh, 2.8 % in the worst frame: slivers at the
    corners of the mouth and the wings of the nose, .1 % of the area. Wild motions without limits fold 3.8 %, at most 11.5 %.
    """
    import ditto
    from ditto.row_performer import RowPerformer

    performer = ditto.load("lite").performer
    assert isinstance(performer, RowPerformer)
    assert isinstance(performer.renderer, CoreRenderer)
    renderer = performer.renderer.mesh
    appearance = renderer.prepare(portrait)
    rest = appearance.geometry.canonical
    sign, area = np.sign(signed_areas(rest)), np.abs(signed_areas(rest))
    motions = LITE_SPACE.from_head(limit(wild(10_000), LITE_SPACE), portrait).astype(np.float32)
    folded, folded_area, gaps, widths, closures = [], [], [], [], []
    for motion in motions:
        pose = renderer.pose(appearance, renderer.retarget(portrait, Motion(motion)))
        assert np.isfinite(pose.vertices).all()
        turned = sign * signed_areas(pose.canonical) <= 0.0
        folded.append(turned.mean())
        folded_area.append((area * turned).sum() / area.sum())
        gaps.append(inner_gap(pose.canonical))
        widths.append(pose.canonical[308, 0] - pose.canonical[78, 0])
        closures.append(pose.closure)
    assert np.mean(folded) < 0.02
    assert max(folded_area) < 0.02
    assert max(folded) < 0.08
    assert min(gaps) >= OBSERVED_GAP[0] and max(gaps) <= OBSERVED_GAP[1]
    change = np.array(widths) - (rest[308, 0] - rest[78, 0])
    assert change.min() >= OBSERVED_WIDTH[0] and change.max() <= OBSERVED_WIDTH[1]
    apertures = 1.0 - np.array(closures)
    assert apertures.min() >= OBSERVED_APERTURE[0] and apertures.max() <= OBSERVED_APERTURE[1]
