"""Each control moves what it names in the picture: drawn, found again, and more than the noise of finding it."""

import numpy as np
import pytest
from seen_face import SeenFace, along, portrait_paths

import ditto
from ditto.controls import CATALOG, Controls
from ditto.controls.blendshapes import ARKIT_NAMES, to_offsets
from ditto.lite.rendering.mesh import MeshRenderer
from ditto.motion.map import HARDLY, LITE_MAP, NOTHING
from ditto.motion.motion import EXPRESSION, IRISES, MOTION_SIZE, UPPER_LIDS, Keypoint, Motion, euler_degrees
from ditto.motion.regions import POINTS
from ditto.motion.space import LITE_SPACE
from ditto.portrait.face_mesh import EYES, fit_head

SIGNAL = 3.0  # standard deviations of the noise
SPILL = 0.20  # of the energy may lie outside of the region
# Face units around the keypoints of a region that belong to it.
REACH = {"brows": 0.22, "gaze": 0.13, "lids": 0.15, "cheeks": 0.24, "nose": 0.20, "lips": 0.20, "jaw": 0.30, "mouth": 0.24}
# What the tracker sees of ARKit's shapes: it hardly answers to widened eyes, squints, cheeks, and lips that press or roll.
SHAPES = (
    "eyeBlinkLeft", "eyeBlinkRight", "eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft", "eyeLookOutRight", "jawLeft",
    "jawRight", "jawOpen", "mouthFunnel", "mouthPucker", "mouthLeft", "mouthRight", "mouthSmileLeft", "mouthSmileRight",
    "mouthFrownLeft", "mouthFrownRight", "mouthStretchLeft", "mouthStretchRight", "mouthShrugLower", "mouthShrugUpper",
    "mouthLowerDownLeft", "mouthLowerDownRight", "mouthUpperUpLeft", "mouthUpperUpRight", "browInnerUp", "browOuterUpLeft",
    "browOuterUpRight", "noseSneerLeft", "noseSneerRight",
)  # fmt: skip
# Skin and lips whose movement is measured in the picture; eyes are painted, and lips that part show other things.
EYE_POINTS = (*IRISES, *UPPER_LIDS, Keypoint.LOWER_LIDS)
SKIN = [
    d for d in LITE_MAP
    if d.axis < 2 and d.plus not in (NOTHING, HARDLY) and d.keypoint not in EYE_POINTS and "inner_lip" not in d.name
    and d.name != "upper_outer_lip.x"  # one to two pixels
]  # fmt: skip
# Numbers that spill more, by the share that they spill: clips hardly show them alone, so that the mesh basis gives them
# movement of the whole face (`ditto.training.mesh_basis`). And the corners of the jaw, half of whose surroundings is neck.
SPILLS = {
    "forehead.x": 0.85, "forehead.y": 0.75, "glabella.x": 0.75, "glabella.y": 0.65, "right_cheek.x": 0.40,
    "left_cheek.x": 0.40, "nose_tip.x": 0.30, "nose_tip.y": 0.40, "right_jaw.x": 0.30, "left_jaw.x": 0.30,
    "right_jaw.y": 0.35, "left_jaw.y": 0.35, "right_cheek.y": 0.25, "left_cheek.y": 0.25, "browInnerUp": 0.30,
    "noseSneerLeft": 0.75, "noseSneerRight": 0.75,
}  # fmt: skip


@pytest.fixture(scope="module", params=portrait_paths(), ids=lambda path: path.stem)
def face(request):
    if not request.param.exists():
        pytest.skip("needs ../shared/data")
    head = ditto.load("lite")
    return SeenFace(MeshRenderer(head.bundle.path), head.register(request.param))


def degrees(axis):
    return lambda landmarks: float(euler_degrees(fit_head(landmarks)[1])[axis])


def place(axis):
    return lambda landmarks: float(landmarks[:468, axis].mean())


def gaze(axis):
    def of(landmarks):
        canonical = fit_head(landmarks)[3]
        corners = [canonical[[eye.upper[0], eye.upper[-1]], axis].mean() for eye in EYES]
        return float(np.mean([canonical[eye.iris, axis] - c for eye, c in zip(EYES, corners, strict=True)]))

    return of


def aperture(side):
    def of(landmarks):
        canonical = fit_head(landmarks)[3]
        return float(canonical[EYES[side].lower[4], 1] - canonical[EYES[side].upper[4], 1])

    return of


HEAD = [
    *(({f"{group}.{name}": value}, degrees(axis), np.sign(value))
      for group in ("head", "pose") for axis, name in enumerate(("pitch", "yaw", "roll")) for value in (-20.0, 20.0)),
    ({"head.right": 0.06}, place(0), 1), ({"head.right": -0.06}, place(0), -1),
    ({"head.down": 0.06}, place(1), 1), ({"head.down": -0.06}, place(1), -1),
    ({"head.zoom": 1.15}, lambda landmarks: fit_head(landmarks)[0], 1),
    ({"head.zoom": 0.87}, lambda landmarks: fit_head(landmarks)[0], -1),
    ({"gaze.right": 20.0}, gaze(0), 1), ({"gaze.right": -20.0}, gaze(0), -1),
    ({"gaze.down": 25.0}, gaze(1), 1), ({"gaze.down": -25.0}, gaze(1), -1),
    ({"lids.right": 1.0}, aperture(0), -1), ({"lids.left": 1.0}, aperture(1), -1),
]  # fmt: skip


@pytest.mark.parametrize(("names", "measure", "sign"), HEAD, ids=lambda value: str(value) if isinstance(value, dict) else "")
def test_head_eyes_and_lids_are_seen_to_go_where_they_are_sent(face, names, measure, sign):
    assert sign * face.signal(measure, Controls.from_names(names)) > SIGNAL


@pytest.mark.parametrize("name", SHAPES)
def test_a_blendshape_is_seen_to_do_what_its_table_says(face, name):
    offsets = to_offsets(np.eye(len(ARKIT_NAMES))[ARKIT_NAMES.index(name)])
    assert face.signal(along(offsets), Controls(blendshapes={name: 1.0})) > SIGNAL


@pytest.mark.parametrize("dimension", SKIN, ids=lambda d: d.name)
def test_skin_is_seen_to_move_where_a_number_sends_it(face, dimension):
    for value in (dimension.safe_low, dimension.safe_high):
        controls = Controls.from_names({dimension.name: value})
        assert np.sign(value) * face.skin_signal(dimension.keypoint, dimension.axis, controls) > SIGNAL


EYE_NUMBERS = {"right_iris.x": 0.03, "left_iris.x": 0.03, "right_upper_lid.y": 0.07, "left_upper_lid.y": 0.07}


@pytest.mark.parametrize("name", [*EYE_NUMBERS, "upper_inner_lip.y", "lower_inner_lip.y"])
def test_eyes_and_lips_are_seen_to_move_where_a_number_sends_them(face, name):
    dimension = LITE_MAP.by_name[name]
    value = EYE_NUMBERS.get(name, dimension.safe_low if "upper" in name else dimension.safe_high)
    offsets = np.zeros((len(Keypoint), 3))
    offsets[dimension.keypoint, dimension.axis] = value
    assert face.signal(along(offsets), Controls.from_names({name: value})) > SIGNAL


GAINED = {
    "brows": "left_brow.y", "lips": "left_mouth_corner.y", "jaw": "chin.y", "gaze": "left_iris.x", "lids": "left_upper_lid.y"
}  # fmt: skip


@pytest.mark.parametrize("region", [*GAINED, "mouth", "upper", "lower", "eyes", "face"])
def test_a_gain_of_zero_is_seen_to_still_its_region(face, region):
    moved = {name for part, name in GAINED.items() if np.all(LITE_SPACE.regions[part] <= LITE_SPACE.regions[region])}
    assert moved, region
    values, offsets = np.zeros(MOTION_SIZE, np.float32), np.zeros((len(Keypoint), 3))
    for name in moved:
        dimension = LITE_MAP.by_name[name]
        value = dimension.safe_low if name.endswith("brow.y") or "corner" in name else dimension.safe_high
        values[EXPRESSION.start + dimension.number] = offsets[dimension.keypoint, dimension.axis] = value
    assert face.signal(along(offsets), Controls(gains={region: 0.0}), Motion(values)) < -SIGNAL


@pytest.mark.parametrize("name", [*SHAPES, *(d.name for d in SKIN), *EYE_NUMBERS, "gaze.right", "lids.right", "lids.left"])
def test_little_moves_outside_of_a_region(face, name):
    control = CATALOG[name]
    controls = Controls.from_names({name: min(control.safe_high, 20.0)})
    measured = face.picture_outside if control.region in ("gaze", "lids") else face.mesh_outside
    assert measured(controls, POINTS[control.region], REACH[control.region]) < SPILLS.get(name, SPILL)
