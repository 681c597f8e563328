"""From phones to lips: dominance-weighted targets per phone, blended in time, with a hand table as the prior of a fit.

Every phone pulls the mouth towards its target with a dominance of its own (Cohen and Massaro 1993); what the mouth does
is the dominance-weighted mean of its neighbours' targets. The targets are keypoint changes in face units, so that a fit
to real motion and the hand table speak one language and one network can learn from both.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.lite.phones import PHONE_INDEX, PHONES
from ditto.motion.motion import CHEEKS, INNER_LIPS, JAW, KEYPOINTS, LIPS, MOUTH_CORNERS, Keypoint
from ditto.portrait.face_mesh import KEYPOINT_MIRROR
from ditto.training.smoothing import gaussian

Floats = npt.NDArray[np.float64]

CHANNELS = ("jaw", "gap", "wide", "round", "upper", "lower", "close", "fv")
# phone, then the channels (0..1, wide -1..1) and the dominance.
_TABLE = """
SIL .00 .02  0  0  0  0  0  0  .25
AA  .85 .80 -.05 .05 .25 .45 0 0 .9
AE  .75 .72 .35 0 .35 .50 0 0 .9
AH  .45 .45 0 0 .15 .25 0 0 .6
AO  .65 .55 -.35 .55 .2 .35 0 0 .9
AW  .75 .65 -.15 .35 .25 .40 0 0 .9
AY  .75 .75 .20 0 .30 .40 0 0 .9
B   .10 .00 0 0 0 0 1 0 1.6
CH  .18 .28 -.40 .60 .35 .35 0 0 1.0
D   .22 .22 .10 0 .10 .20 0 0 .5
DH  .22 .25 .05 0 .10 .20 0 0 .7
EH  .65 .65 .35 0 .25 .40 0 0 .8
ER  .35 .35 -.25 .40 .20 .30 0 0 .8
EY  .60 .62 .45 0 .25 .38 0 0 .8
F   .12 .08 .05 0 .35 0 0 1 1.4
G   .28 .28 .10 0 .1 .2 0 0 .4
HH  .30 .30 0 0 .1 .2 0 0 .15
IH  .35 .38 .35 0 .2 .35 0 0 .6
IY  .25 .32 .65 0 .2 .38 0 0 .8
JH  .18 .28 -.40 .60 .35 .35 0 0 1.0
K   .28 .28 .10 0 .1 .2 0 0 .4
L   .32 .34 .05 0 .15 .25 0 0 .5
M   .08 .00 0 0 0 0 1 0 1.6
N   .20 .22 .10 0 .10 .20 0 0 .5
NG  .28 .28 .10 0 .1 .2 0 0 .4
OW  .45 .36 -.60 .75 .15 .25 0 0 1.0
OY  .55 .48 -.45 .60 .20 .30 0 0 1.0
P   .08 .00 0 0 0 0 1 0 1.6
R   .25 .24 -.40 .50 .20 .25 0 0 .8
S   .08 .18 .30 0 .20 .35 0 0 .9
SH  .12 .26 -.50 .65 .40 .40 0 0 1.0
T   .18 .20 .10 0 .10 .20 0 0 .5
TH  .20 .24 .05 0 .10 .20 0 0 .8
UH  .35 .30 -.45 .55 .15 .2 0 0 .8
UW  .25 .18 -.75 .95 .1 .15 0 0 1.1
V   .12 .08 .05 0 .35 0 0 1 1.4
W   .18 .10 -.85 1.0 .1 .1 0 0 1.2
Y   .22 .28 .45 0 .2 .3 0 0 .6
Z   .08 .18 .30 0 .20 .35 0 0 .9
ZH  .12 .26 -.50 .65 .40 .40 0 0 1.0
"""
_ROWS = {row.split()[0]: [float(x) for x in row.split()[1:]] for row in _TABLE.strip().splitlines()}
TARGETS: Floats = np.array([_ROWS[p][:8] for p in PHONES])  # (40, 8)
DOMINANCE: Floats = np.array([_ROWS[p][8] for p in PHONES])  # (40,)

# Keypoint travel of a channel at one, face units. The width of an opening mouth is a channel of its own. The numbers here
# and in `keypoints_of_channels` were tuned by eye on three faces (../shared/renderer/end_to_end.md); the table above is that
# of ../shared/voice/viseme_table_rules.json with changes, as are the seconds and the loudness below (spec.md, section 5).
GAP, JAW_DROP, WIDE, NARROW, ROUND_X, ROUND_Z = 0.135, 0.034, 0.075, 0.150, 0.020, 0.030
UPPER, LOWER, PRESS, TUCK = 0.014, 0.008, 0.008, 0.020
CORNERS_IN_PER_GAP = 0.10  # corners are drawn in as the jaw drops
MOUTH_KEYPOINTS = tuple(sorted({*LIPS, *CHEEKS, *JAW}))

ROUNDED, ROUNDED_SHARE = ("W", "UW", "OW", "UH", "SH", "ZH", "CH", "JH"), 0.75

BLEND_SECONDS, SETTLE_SECONDS = 0.045, 0.020
LOUDNESS_PER_DB, LOUDNESS_RANGE = 0.035, (0.35, 1.3)


def keypoints_of_channels(channels: npt.ArrayLike) -> Floats:
    """(T, 8) channels -> (T, 21, 3) keypoint changes, head frame, face units (x right, y down, z away)."""
    jaw, gap, wide, rounding, upper, lower, close, tuck = np.moveaxis(np.asarray(channels, np.float64), -1, 0)
    d = np.zeros((*gap.shape, KEYPOINTS, 3))
    g, j, r = GAP * gap, JAW_DROP * jaw, rounding
    w = np.where(wide > 0, WIDE, NARROW) * wide
    spread = np.maximum(w, 0.0)
    fv = tuck * (1.0 - close)
    d[..., Keypoint.LOWER_INNER_LIP, 1] = 0.90 * g - 0.12 * spread + 0.5 * LOWER * lower - PRESS * close + 0.15 * TUCK * fv
    d[..., Keypoint.LOWER_INNER_LIP, 2] = 0.10 * g + 0.16 * w - ROUND_Z * r + TUCK * fv
    d[..., Keypoint.UPPER_INNER_LIP, 1] = (
        -0.08 * g - 0.12 * spread - 0.8 * UPPER * upper + 0.4 * PRESS * close - 0.9 * TUCK * fv
    )
    d[..., Keypoint.UPPER_INNER_LIP, 2] = 0.16 * w - ROUND_Z * r
    d[..., Keypoint.UPPER_OUTER_LIP, 1] = (
        -0.03 * g - 0.08 * spread - UPPER * upper + 0.5 * PRESS * close - 0.55 * TUCK * fv - 0.2 * ROUND_X * r
    )
    d[..., Keypoint.UPPER_OUTER_LIP, 2] = 0.16 * w - 0.9 * ROUND_Z * r
    d[..., Keypoint.CHIN, 1] = 0.25 * g + j - 0.5 * PRESS * close - 0.25 * TUCK * fv + 0.2 * ROUND_X * r
    d[..., Keypoint.CHIN, 2] = 0.20 * g - 0.2 * ROUND_Z * r
    for corner, side in zip(MOUTH_CORNERS, (-1.0, 1.0), strict=True):
        d[..., corner, 0] = side * (0.5 * w - 0.5 * ROUND_X * r - CORNERS_IN_PER_GAP * g)
        d[..., corner, 1] = 0.20 * g - 0.30 * spread
        d[..., corner, 2] = 0.30 * w - 0.3 * ROUND_Z * r
    for cheek, side in zip(CHEEKS, (-1.0, 1.0), strict=True):
        d[..., cheek, 0] = side * 0.16 * w
        d[..., cheek, 1] = 0.03 * g - 0.12 * spread
        d[..., cheek, 2] = 0.08 * w
    d[..., list(JAW), 1] = (0.05 * g)[..., None]
    return d


def loudness(samples: npt.ArrayLike) -> tuple[Floats, Floats]:
    """(N,) samples -> per 20 ms: factor on the opening, and level in dB smoothed over 60 ms."""
    x = np.asarray(samples, np.float64)
    frames = len(x) // 320
    level = 10.0 * np.log10((x[: 320 * frames].reshape(frames, 320) ** 2).mean(1) + 1e-10)
    level = gaussian(level, 3.0)
    factor = np.clip(1.0 + LOUDNESS_PER_DB * (level - np.percentile(level, 80)), *LOUDNESS_RANGE)
    return factor, level


class Articulation(NamedTuple):
    """Targets of a mouth.

    Attributes:
        targets: (40, 21, 3) keypoint changes per phone, head frame, fu.
        dominance: (40,).
    """

    targets: Floats
    dominance: Floats


PRIOR = Articulation(keypoints_of_channels(TARGETS), DOMINANCE)


def blend_weights(phones: npt.ArrayLike, dominance: npt.ArrayLike) -> Floats:
    """(2T, 40) phone probabilities at 50 Hz -> (T, 40) shares of each phone in the mouth's shape, at 25 Hz."""
    pull = gaussian(np.asarray(phones, np.float64) * np.asarray(dominance), BLEND_SECONDS * 50)
    share = gaussian(pull / (pull.sum(1, keepdims=True) + 1e-3), SETTLE_SECONDS * 50)
    frames = len(share) // 2
    return np.asarray(share[: 2 * frames].reshape(frames, 2, -1).mean(1))


def articulate(phones: npt.ArrayLike, factor: npt.ArrayLike, mouth: Articulation) -> Floats:
    """Mouth motion of speech.

    Args:
        phones: (2T, 40) phone probabilities at 50 Hz.
        factor: (2T,) loudness factor.
        mouth: targets.

    Returns:
        (T, 21, 3) keypoint changes, head frame, fu.
    """
    p = np.asarray(phones, np.float64)
    share = blend_weights(p, mouth.dominance)
    frames = len(share)
    loud = np.asarray(factor, np.float64)[: 2 * frames].reshape(frames, 2).mean(1)
    return np.asarray(np.einsum("tp,pkd->tkd", share * loud[:, None], mouth.targets))


def refit(
    shares: npt.ArrayLike, motion: npt.ArrayLike, prior: Articulation, frames_of_trust: float = 60.0
) -> Articulation:
    """Targets fitted to real motion; a phone with few frames stays near the prior.

    Args:
        shares: (T, 40) blend weights times loudness of all real clips, one after another.
        motion: (T, 21, 3) the real changes.
        prior: where to stay.
        frames_of_trust: how many frames of a phone weigh as much as the prior.
    """
    a = np.asarray(shares, np.float64)
    y = np.asarray(motion, np.float64).reshape(len(a), -1)
    x0 = prior.targets.reshape(len(PHONES), -1)
    gram = a.T @ a + frames_of_trust * 0.3 * np.eye(len(PHONES))
    x = (x0 + np.linalg.solve(gram, a.T @ (y - a @ x0))).reshape(prior.targets.shape)
    targets = prior.targets.copy()
    targets[:, list(MOUTH_KEYPOINTS)] = x[:, list(MOUTH_KEYPOINTS)]
    targets = 0.5 * (targets + mirror(targets))
    for phone in ROUNDED:  # tracked lips show little rounding, and a portrait needs to show it
        i = PHONE_INDEX[phone]
        for corner, side in zip(MOUTH_CORNERS, (1.0, -1.0), strict=True):
            floor = ROUNDED_SHARE * abs(prior.targets[i, corner, 0])
            targets[i, corner, 0] = side * max(side * targets[i, corner, 0], floor)
        for lip in (*INNER_LIPS, Keypoint.UPPER_OUTER_LIP):
            targets[i, lip, 2] = min(targets[i, lip, 2], ROUNDED_SHARE * prior.targets[i, lip, 2])
    return Articulation(targets, prior.dominance)


def mirror(changes: npt.ArrayLike) -> Floats:
    """(..., 21, 3) keypoint changes of the face seen in a mirror."""
    return np.asarray(np.asarray(changes, np.float64)[..., KEYPOINT_MIRROR, :] * np.array([-1.0, 1.0, 1.0]))
