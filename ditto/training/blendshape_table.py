"""Make the table of blendshapes of the motion spaces: what each of ARKit's shapes changes of the 21 keypoints.

Lite: ICT FaceKit's shapes (MIT) on the 478-landmark mesh (`ditto.training.arkit`), as the keypoint change whose mesh, by the
renderer's basis, comes nearest to each: ridge regression towards the keypoints read off the shape. Lids and irises follow the
renderer's own rules instead: a blink is one opening of the template's eye, a lid goes with its iris as in `ditto.motion.eyes`.
Gains bring a weight of 1 near what MediaPipe's FaceLandmarker reads in real faces (`GAINS`).

Full: the roles that LivePortrait's retargeting sliders give its keypoints (`FULL`), in canonical units.

Closed form, no seed.

    python -m ditto.training.blendshape_table arkit478.npz ditto/bundles/lite/renderer.safetensors \\
        ditto/motion/blendshapes.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ditto.commands import Arguments, run
from ditto.lite.rendering.deform import BASIS_KEYPOINTS, BASIS_SIZE, load_basis
from ditto.media.files import check_output_file, write_file
from ditto.motion.eyes import LID_FOLLOWS_GAZE
from ditto.motion.motion import KEYPOINTS, TEMPLATE_APERTURE, Keypoint
from ditto.portrait import face_mesh as g
from ditto.training.arkit import GAZE_DEGREES, IRIS_RADIUS
from ditto.training.mesh_basis import SHAPE_DEPTH

Floats = npt.NDArray[np.float64]

# Of the mean diagonal of the Gram matrix, towards the keypoints read off a shape. With less, keypoints far from a shape
# move to mend its details: .016 fu with 1e-3 for 4 % less of a residual, .010 with 1.
RIDGE = 1.0
SMALLEST = 0.001  # fu: a keypoint that a shape moves less stays where it is
# On the carried shapes (../shared/renderer/arkit.md): browDown, mouthLowerDown, mouthDimple, mouthFrown, mouthPress,
# mouthRollLower, eyeSquint, eyeWide. The others from MediaPipe's scores of six drawn faces with factors from .5 to 4, and by
# eye: as far as the score rises, no keypoint meets its clamp and no skin folds.
GAINS = {
    "browDown": 2.0, "mouthLowerDown": 2.0, "mouthDimple": 2.0, "mouthFrown": 2.0,
    "mouthPress": 1.5, "mouthRollLower": 1.5, "eyeSquint": 1.5, "eyeWide": 2.5,
    "browInnerUp": 1.5, "browOuterUp": 1.5, "mouthFunnel": 1.75, "mouthPucker": 1.25, "mouthSmile": 1.25,
    "mouthStretch": 1.5, "mouthUpperUp": 1.5, "jawLeft": 1.5, "jawRight": 1.5,
}  # fmt: skip

# Weight 1 in canonical units of LivePortrait: (keypoint, axis, change). From the sliders of its published demo (MIT), near the
# ends of their ranges, inside what its published motions show (../shared/data/models/liveportrait_motion_stats.npz). Brows and
# lips have no sides there: a shape of one side does half of what both do. Shapes that are not here have no effect.
FACE_UNITS = 1.7  # face units of a usual portrait in its crop per canonical unit: scale 1.4 over .83 model units a face unit
SMILE = ((20, 1, -0.005), (14, 1, -0.01), (17, 1, 0.00325), (17, 2, 0.0015))
FROWN = ((1, 0, 0.005), (2, 0, -0.005), (1, 1, -0.0015), (2, 1, 0.0015))
FULL: dict[str, tuple[tuple[int, int, float], ...]] = {
    "jawOpen": ((19, 1, 0.06), (19, 2, 0.006), (17, 1, -0.006)),
    "jawLeft": ((19, 0, 0.018),),
    "jawRight": ((19, 0, -0.018),),
    "eyeBlinkRight": ((11, 1, 0.02), (13, 1, -0.006)),
    "eyeBlinkLeft": ((15, 1, 0.02), (16, 1, -0.006)),
    "eyeWideRight": ((11, 1, -0.005), (13, 1, 0.0015)),
    "eyeWideLeft": ((15, 1, -0.005), (16, 1, 0.0015)),
    "eyeLookInRight": ((11, 0, 0.021),),
    "eyeLookOutRight": ((11, 0, -0.03),),
    "eyeLookInLeft": ((15, 0, -0.021),),
    "eyeLookOutLeft": ((15, 0, 0.03),),
    "eyeLookUpRight": ((11, 1, -0.02),),
    "eyeLookUpLeft": ((15, 1, -0.02),),
    "eyeLookDownRight": ((11, 1, 0.02),),
    "eyeLookDownLeft": ((15, 1, 0.02),),
    "browInnerUp": ((1, 1, 0.01), (2, 1, -0.01)),
    "browDownRight": FROWN,
    "browDownLeft": FROWN,
    "mouthSmileRight": (*SMILE, (3, 1, -0.0035), (13, 1, -0.00275)),
    "mouthSmileLeft": (*SMILE, (7, 1, -0.0035), (16, 1, -0.00275)),
    "mouthPucker": ((14, 1, 0.015), (3, 1, -0.0075), (7, 1, -0.0075), (17, 2, -0.0075)),
    "mouthFunnel": ((14, 1, 0.008), (3, 1, -0.004), (7, 1, -0.004), (17, 2, -0.004), (19, 1, 0.015)),
}


def through_basis(shape: Floats, basis: Floats) -> Floats:
    """(21, 3) fu: the keypoint change whose mesh, by a basis (54, 1434), is nearest to a shape (478, 3)."""
    keypoints = np.asarray(g.SELECTOR @ shape)
    own = keypoints[BASIS_KEYPOINTS].ravel()
    gram = basis @ basis.T
    damping = RIDGE * np.trace(gram) / BASIS_SIZE * np.eye(BASIS_SIZE)
    found = own + np.linalg.solve(gram + damping, basis @ (shape.ravel() - own @ basis))
    keypoints[BASIS_KEYPOINTS] = found.reshape(-1, 3)
    return keypoints


def of_eyes(name: str, keypoints: Floats) -> Floats:
    """(21, 3) fu: lids and irises of a shape by the renderer's rules; of the rest what `keypoints` has."""
    out = keypoints.copy()
    out[[eye.lid_keypoint for eye in g.EYES]] = 0.0
    lower, out[Keypoint.LOWER_LIDS] = out[Keypoint.LOWER_LIDS, 1], 0.0
    out[[eye.iris_keypoint for eye in g.EYES]] = 0.0
    if not name.startswith("eye"):
        return out
    eye = g.LEFT_EYE if name.endswith("Left") else g.RIGHT_EYE
    kind = name.removeprefix("eye").removesuffix("Left").removesuffix("Right")
    if kind == "Squint":
        out[Keypoint.LOWER_LIDS, 1] = lower  # both eyes share it: each does half, as ICT's shape of one eye read there
        return out
    out[:] = 0.0
    if kind == "Blink":
        out[eye.lid_keypoint, 1] = TEMPLATE_APERTURE
    elif kind == "Wide":
        out[eye.lid_keypoint, 1] = keypoints[eye.lid_keypoint, 1]
    else:
        sideways, down = IRIS_RADIUS * np.sin(np.radians(GAZE_DEGREES[kind.removeprefix("Look")]))
        out[eye.iris_keypoint, :2] = (-sideways if eye is g.LEFT_EYE else sideways), down
        out[eye.lid_keypoint, 1] = LID_FOLLOWS_GAZE[int(down > 0.0)] * down
    return out


def mirrored(keypoints: Floats) -> Floats:
    return keypoints[g.KEYPOINT_MIRROR] * (-1.0, 1.0, 1.0)


def lite_table(shapes: Path, renderer: Path) -> dict[str, Floats]:
    """(21, 3) fu at weight 1 of each shape that ICT FaceKit has."""
    basis = load_basis(renderer).basis.reshape(BASIS_SIZE, -1).astype(np.float64)
    with np.load(shapes) as archive:
        deltas = archive["deltas"].astype(np.float64) * (1.0, 1.0, SHAPE_DEPTH)
        names = [str(name) for name in archive["names"]]
    table = {name: of_eyes(name, through_basis(shape, basis)) for name, shape in zip(names, deltas, strict=True)}
    for name in names:
        other = name.replace("Left", "?").replace("Right", "Left").replace("?", "Right")
        both = 0.5 * (table[name] + mirrored(table[other]))
        table[name], table[other] = both, mirrored(both)
    return {n: GAINS.get(n, GAINS.get(n.removesuffix("Left").removesuffix("Right"), 1.0)) * t for n, t in table.items()}


def full_table() -> dict[str, Floats]:
    """(21, 3) fu of a usual portrait at weight 1 of each shape in `FULL`."""
    table = {}
    for name, changes in FULL.items():
        table[name] = np.zeros((KEYPOINTS, 3))
        for keypoint, axis, change in changes:
            table[name][keypoint, axis] = FACE_UNITS * change
    return table


def as_json(table: dict[str, Floats]) -> dict[str, dict[str, list[float]]]:
    """By shape and keypoint, those that move; 1e-5 fu are a thousandth of what is seen."""
    return {
        name: {
            Keypoint(k).name.lower(): [round(float(x), 5) for x in change[k]]
            for k in range(KEYPOINTS)
            if np.linalg.norm(change[k]) >= SMALLEST
        }
        for name, change in sorted(table.items())
    }


def main() -> None:
    parser = Arguments(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shapes", type=Path, help="written by ditto.training.arkit")
    parser.add_argument("renderer", type=Path, help="renderer.safetensors of the lite bundle")
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    check_output_file(options.out)
    tables = {"lite": as_json(lite_table(options.shapes, options.renderer)), "full": as_json(full_table())}
    text = "{\n" + ",\n".join(
        f' "{space}": {{\n'
        + ",\n".join(f'  "{name}": {json.dumps(change)}' for name, change in table.items())
        + "\n }"
        for space, table in tables.items()
    )
    write_file(options.out, (text + "\n}\n").encode())


if __name__ == "__main__":
    run(main)
