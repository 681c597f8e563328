"""Make `ditto/motion/emotions.json`: what each emotion changes of the lite face's keypoints.

`ASKED` says by hand what an emotion does. A change of 21 keypoints that no real face makes would be cut back by the
renderer's clamp, and the renderer's basis couples what real faces couple: brows asked for alone part the lips. So the table
has the change nearest to the one asked for that

* stays inside the clamp (`ditto.lite.rendering.deform.clamp_keypoints`), and so does every mix of emotions, since the limits
  are convex;
* leaves the gap between the inner lips as it is, in their middle exactly and along their whole length nearly.

Closed form but for the limits, which an alternating projection (ADMM; Boyd et al. 2011, section 5.2) meets. No seed.

    python -m ditto.training.emotion_table ditto/bundles/lite/renderer.safetensors ditto/motion/emotions.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ditto.commands import Arguments, run
from ditto.lite.rendering.deform import BASIS_KEYPOINTS, BASIS_SIZE, MeshBasis, load_basis
from ditto.media.files import check_output_file, write_file
from ditto.motion.motion import (
    BROWS,
    CHEEKS,
    INNER_LIPS,
    JAW,
    KEYPOINTS,
    MOUTH_CORNERS,
    UPPER_LIDS,
    Keypoint,
)
from ditto.portrait.face_mesh import LOWER_INNER_LIP, UPPER_INNER_LIP

Floats = npt.NDArray[np.float64]

# fu. Of a pair: outwards, down, back; of a single keypoint: to the right of the picture, down, back; "lips" are both inner
# lips. The muscles are those of EMFACS (Ekman and Friesen): happy 6 12, sad 1 4 15 17, surprise 1 2 5, fear 1 2 4 5 20, angry
# 4 5 7, disgust 4 9 10, contempt 12 of one side. The sizes come from a search on 29 portraits, one direction at a time, until
# MediaPipe's blendshapes met the bars of `benchmarks.controls`; then by eye. No jaw drops: it would be taken for speech.
PAIRS = {"brows": BROWS, "cheeks": CHEEKS, "corners": MOUTH_CORNERS, "upper_lids": UPPER_LIDS}
ASKED: dict[str, dict[str, tuple[float, float, float]]] = {
    "angry": {
        "brows": (-0.022, 0.056, -0.004), "glabella": (0, 0.024, 0), "upper_lids": (0, -0.006, 0),
        "lower_lids": (0, -0.013, 0), "corners": (-0.006, 0.014, 0), "nose_tip": (0, -0.004, 0),
    },
    "disgust": {
        "upper_outer_lip": (0, -0.068, 0), "lips": (0, -0.050, 0.006), "cheeks": (0.012, -0.052, 0),
        "corners": (0.027, 0.022, 0), "nose_tip": (0, -0.024, 0), "brows": (-0.018, 0.044, 0), "glabella": (0, 0.012, 0),
        "lower_lids": (0, -0.016, 0),
    },
    "fear": {
        "brows": (-0.010, -0.052, 0), "glabella": (0, -0.028, 0), "forehead": (0, -0.014, 0), "upper_lids": (0, -0.024, 0),
        "lower_lids": (0, 0.014, 0), "corners": (0.028, 0.014, 0.012), "cheeks": (0.006, -0.004, 0),
    },
    "happy": {
        "corners": (0.058, -0.064, 0.020), "cheeks": (0.027, -0.050, 0.004), "lower_lids": (0, -0.015, 0),
        "lips": (0, -0.010, 0), "upper_outer_lip": (0, -0.010, 0.006), "brows": (0, -0.004, 0),
    },
    "sad": {
        "corners": (0.024, 0.084, 0), "cheeks": (-0.002, 0.022, 0), "glabella": (0, -0.034, 0), "brows": (-0.016, -0.036, 0),
        "forehead": (0, -0.006, 0), "upper_lids": (0, 0.008, 0), "lower_lids": (0, 0.008, 0), "chin": (0, -0.026, 0),
    },
    "surprise": {
        "brows": (0.004, -0.066, 0), "glabella": (0, -0.018, 0), "forehead": (0, -0.020, 0), "upper_lids": (0, -0.022, 0),
        "lower_lids": (0, 0.014, 0), "cheeks": (0, -0.008, 0),
    },
    "contempt": {
        "right_mouth_corner": (-0.078, -0.080, 0.022), "right_cheek": (-0.032, -0.044, 0.006),
        "left_mouth_corner": (-0.006, 0.020, 0), "upper_outer_lip": (-0.002, -0.016, 0), "lips": (-0.004, -0.006, 0),
        "upper_lids": (0, 0.008, 0), "right_brow": (0, -0.008, 0), "left_brow": (0, 0.004, 0),
    },
}  # fmt: skip
# While the face talks, the lips are left to speech. The face mesh takes shut lips that an emotion raises or bends for parted
# ones: with the shapes above disgust had 10 %, sad and fear 94 % of the frames of p, b, m closed, with these 98, 98 and 96 %;
# neutral 98 % (52 frames). Others keep their shape: 96 % or more. A keypoint asked for as zero is held where it is.
HELD = {"lips": (0.0, 0.0, 0.0), "upper_outer_lip": (0.0, 0.0, 0.0)}
ASKED_TALKING: dict[str, dict[str, tuple[float, float, float]]] = {
    "disgust": {
        "cheeks": (0.004, -0.014, 0), "nose_tip": (0, -0.014, 0), "brows": (-0.018, 0.048, 0), "glabella": (0, 0.012, 0),
        "lower_lids": (0, -0.016, 0), **HELD,
    },
    "fear": {
        **ASKED["fear"], "corners": (0.014, 0.006, 0.006), "cheeks": (0.002, -0.004, 0), **HELD,
    },
    "sad": {
        **ASKED["sad"], "corners": (0.016, 0.060, 0), "cheeks": (-0.002, 0.016, 0), "chin": (0, -0.012, 0), **HELD,
    },
}  # fmt: skip
# What a departure costs. Numbers that were not asked for are free to follow, depth most: little of it is seen.
KEPT, KEPT_DEPTH, FREE, FREE_DEPTH, FREE_JAW = 1.0, 0.3, 0.12, 0.04, 0.5
GAP_COST = 6.0  # of the gap between the inner lips
# Of disgust in silence less: what raises the upper lip parts it from the lower one near the corners, by .007 fu of .34.
DISGUST_GAP_COST = 0.7
INSIDE = 0.95  # of the limit of a component, which the clamp then moves by .0015 fu at most
STEPS, PENALTY = 4000, 2.0  # of the alternating projection; more steps change nothing at the digits written
SMALLEST = 0.0015  # fu: a smaller change is left out

_LIPS = slice(1, -1)  # of a contour of the inner lips: without the corners, in which both meet


def asked_offset(asked: dict[str, tuple[float, float, float]]) -> tuple[Floats, list[Keypoint]]:
    """One of `ASKED`: (21, 3) fu, head frame, and the keypoints that are held."""
    change, held = np.zeros((KEYPOINTS, 3)), []
    for name, (out, down, back) in asked.items():
        if name in PAIRS:
            right, left = PAIRS[name]
            change[right] += -out, down, back
            change[left] += out, down, back
        else:
            for keypoint in INNER_LIPS if name == "lips" else (Keypoint[name.upper()],):
                change[keypoint] += out, down, back
                if not any((out, down, back)):
                    held.append(keypoint)
    return change, held


def place(keypoint: Keypoint, axis: int) -> int:
    """Where a number of a keypoint stands in the renderer's basis."""
    keypoints: list[Keypoint] = list(BASIS_KEYPOINTS)
    return 3 * keypoints.index(keypoint) + axis


def nearest_offset(learned: MeshBasis, asked: Floats, held: list[Keypoint], gap_cost: float) -> Floats:
    """(21, 3) fu nearest to a change (21, 3) that the clamp leaves alone and that leaves shut lips shut.

    Args:
        held: keypoints that stay where they are if they can; others that were not asked for are free to follow.
    """
    keypoints = list(BASIS_KEYPOINTS)
    wanted = asked[keypoints].ravel()
    cost = np.where(wanted != 0.0, KEPT, FREE)
    cost[2::3] = np.where(wanted[2::3] != 0.0, KEPT_DEPTH, FREE_DEPTH)
    for keypoint in held:
        cost[place(keypoint, 0) : place(keypoint, 3)] = KEPT, KEPT, KEPT_DEPTH
    for keypoint in (Keypoint.CHIN, *JAW):
        at = slice(place(keypoint, 0), place(keypoint, 3))
        cost[at] = np.where(wanted[at] != 0.0, KEPT, FREE_JAW)
    basis = learned.basis.astype(np.float64)
    gap = (basis[:, LOWER_INNER_LIP[_LIPS], 1] - basis[:, UPPER_INNER_LIP[_LIPS], 1]).T

    upper, lower = INNER_LIPS
    exact = np.zeros((1, BASIS_SIZE))
    exact[0, place(lower, 1)], exact[0, place(upper, 1)] = 1.0, -1.0
    lids = [place(lid, axis) for lid in UPPER_LIDS for axis in range(3)] + [place(Keypoint.LOWER_LIDS, 1)]
    limits = INSIDE * learned.component_limits
    rows = np.concatenate([learned.components, np.eye(BASIS_SIZE), exact, np.eye(BASIS_SIZE)[lids]])
    low = np.concatenate([-limits, learned.low[keypoints].ravel(), [0.0], wanted[lids]])
    high = np.concatenate([limits, learned.high[keypoints].ravel(), [0.0], wanted[lids]])

    inverse = np.linalg.inv(np.diag(cost) + gap_cost * gap.T @ gap + PENALTY * rows.T @ rows)
    met, dual, x = np.zeros(len(rows)), np.zeros(len(rows)), wanted
    for _ in range(STEPS):
        x = inverse @ (cost * wanted + PENALTY * rows.T @ (met - dual))
        met = np.clip(rows @ x + dual, low, high)
        dual += rows @ x - met
    change = np.zeros((KEYPOINTS, 3))
    change[keypoints] = x.reshape(-1, 3)
    return change


def mirrored(change: Floats) -> Floats:
    """The change (21, 3) of the other side of the face."""
    out = change.copy()
    for right, left in (BROWS, CHEEKS, MOUTH_CORNERS, JAW, UPPER_LIDS):
        out[[right, left]] = change[[left, right]]
    return out * (-1.0, 1.0, 1.0)


def table(learned: MeshBasis, asked: dict[str, dict[str, tuple[float, float, float]]]) -> dict[str, Floats]:
    """(21, 3) fu of each emotion asked for at weight 1, to .001."""
    found = {}
    for emotion, changes in asked.items():
        wanted, held = asked_offset(changes)
        gap_cost = DISGUST_GAP_COST if emotion == "disgust" and not held else GAP_COST
        change = nearest_offset(learned, wanted, held, gap_cost)
        if emotion != "contempt":  # the only one that is not the same on both sides
            change = 0.5 * (change + mirrored(change))
        change[np.abs(change) < SMALLEST] = 0.0
        change = change.round(3)
        upper, lower = INNER_LIPS
        change[lower, 1] = change[upper, 1]
        found[emotion] = change + 0.0  # no negative zeros
    return found


def main() -> None:
    parser = Arguments(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("renderer", type=Path, help="renderer.safetensors of the lite bundle")
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    check_output_file(options.out)
    learned, parts = load_basis(options.renderer), []
    for name, asked in (("silent", ASKED), ("talking", ASKED_TALKING)):
        lines = []
        for emotion, change in table(learned, asked).items():
            moved = {k.name.lower(): [round(float(x), 3) for x in change[k]] for k in Keypoint if change[k].any()}
            lines.append(f'  "{emotion}": {json.dumps(moved)}')
        parts.append(f' "{name}": {{\n' + ",\n".join(lines) + "\n }")
    write_file(options.out, ("{\n" + ",\n".join(parts) + "\n}\n").encode())


if __name__ == "__main__":
    run(main)
