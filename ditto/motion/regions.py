"""Regions of the face and the head: which numbers of a motion, in head values (`ditto.motion.space`), belong to each."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from ditto.motion.motion import (
    BROWS,
    CHEEKS,
    EXPRESSION,
    EYES,
    INNER_LIPS,
    IRISES,
    JAW,
    KEYPOINTS,
    MOTION_SIZE,
    MOUTH_CORNERS,
    UPPER_LIDS,
    Keypoint,
)

Floats = npt.NDArray[np.float64]
Masks = Mapping[str, Floats]

# Share of a keypoint in each region. A share below one lies at the border of its region: the skin around the keypoint
# belongs to two regions. The shares at borders were chosen by hand.
BROW_POINTS = dict.fromkeys((Keypoint.FOREHEAD, *BROWS, Keypoint.GLABELLA), 1.0)
LID_POINTS = dict.fromkeys((*UPPER_LIDS, Keypoint.LOWER_LIDS), 1.0)
LIP_POINTS = dict.fromkeys((*MOUTH_CORNERS, *INNER_LIPS, Keypoint.UPPER_OUTER_LIP), 1.0)
JAW_POINTS = dict.fromkeys((*JAW, Keypoint.CHIN), 1.0)
POINTS: Mapping[str, Mapping[Keypoint, float]] = MappingProxyType(
    {
        "brows": BROW_POINTS,
        "eyes": dict.fromkeys(EYES, 1.0),
        "lids": LID_POINTS,
        "gaze": dict.fromkeys(IRISES, 1.0),
        "cheeks": dict.fromkeys(CHEEKS, 1.0),
        "nose": {Keypoint.NOSE_TIP: 1.0},
        "lips": LIP_POINTS,
        "jaw": JAW_POINTS,
        "mouth": LIP_POINTS | JAW_POINTS | dict.fromkeys(CHEEKS, 0.5),
        "upper": BROW_POINTS | dict.fromkeys(EYES, 1.0) | {Keypoint.NOSE_TIP: 0.5},
        "lower": LIP_POINTS | JAW_POINTS | dict.fromkeys(CHEEKS, 1.0) | {Keypoint.NOSE_TIP: 0.5},
        "neck": {Keypoint.NECK: 1.0} | dict.fromkeys(JAW, 0.5),
        "head": {},
        "face": dict.fromkeys(Keypoint, 1.0),
        "all": dict.fromkeys(Keypoint, 1.0),
    }
)
REGIONS = tuple(POINTS)


def region_masks(lids_in_irises: bool = False) -> Masks:
    """(70,) share of each number in each region; "head" is pose, translation and scale, "all" is face and head.

    Args:
        lids_in_irises: whether y and z of the irises' keypoints move the lids, as in LivePortrait's space.
    """
    masks = {}
    for name, points in POINTS.items():
        mask = np.zeros((KEYPOINTS, 3))
        for keypoint, share in points.items():
            mask[keypoint] = share
        if lids_in_irises and name in ("lids", "gaze"):
            mask[list(IRISES), 1:] = float(name == "lids")
        masks[name] = np.concatenate([np.full(EXPRESSION.start, float(name in ("head", "all"))), mask.reshape(-1)])
        masks[name].flags.writeable = False
    assert all(len(mask) == MOTION_SIZE for mask in masks.values())
    return MappingProxyType(masks)
