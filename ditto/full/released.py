"""The settings that come with the published checkpoints, as choices of the sampler.

A bundle carries them in its part "settings" where the converter found their files. What their keys mean is said by the
released code at e9191cf; the files themselves were not at hand where this was written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.errors import BundleError
from ditto.full.conditioning import SourceCondition
from ditto.full.motion_math import Floats
from ditto.full.source import motion_vector
from ditto.motion import MOTION_SIZE

Array = npt.NDArray[np.float32]

BLINK_SHAPE = (15, 63)


class Reference(NamedTuple):
    """A face that conditions come from, in the place of the portrait.

    Attributes:
        motion: (265,), what is known before the first window.
        condition: lids, gaze and canonical keypoints.
    """

    motion: Array
    condition: SourceCondition


class Released(NamedTuple):
    """What the published settings ask for beyond the defaults here.

    Attributes:
        steps: of DDIM.
        smoothing: frames that pose is averaged over.
        reset_every: as of `WindowRules`.
        reset_keeps: likewise.
        turn: degrees added to pitch, yaw, roll, by name.
        limits: lowest and highest motion (265,) each, or None.
        blinks: (15, 63) expression of the eyes in a blink, or None: eyes move as they are generated.
        reference: the face that conditions come from, or None: the portrait.
    """

    steps: int = 10
    smoothing: int = 3
    reset_every: int = 0
    reset_keeps: slice | None = None
    turn: Mapping[str, float] = {}
    limits: tuple[Floats, Floats] | None = None
    blinks: Floats | None = None
    reference: Reference | None = None


def read_released(settings: Mapping[str, Any]) -> Released:
    """The released settings as `ditto.conversion.settings.released_settings` gives them.

    Raises:
        BundleError: a value of another kind than the released code takes; the message names it.
    """
    try:
        keeps = settings.get("fix_kp_cond_dim")
        limits = settings.get("v_min_max_for_clip")
        blinks = settings.get("delta_eye_arr")
        character = settings.get("ch_info")
        control = settings.get("overall_ctrl_info") or {}
        return Released(
            int(settings.get("sampling_timesteps", 50)),
            int(settings.get("smo_k_d", 3)),
            int(settings.get("fix_kp_cond", 0)),
            None if keeps is None else slice(int(keeps[0]), int(keeps[1])),
            {name.removeprefix("delta_"): float(control[name]) for name in control if name in _TURNS},
            None if limits is None else (_array(limits[0], (MOTION_SIZE,)), _array(limits[1], (MOTION_SIZE,))),
            None if blinks is None else _array(blinks, BLINK_SHAPE),
            None if character is None else _reference(character),
        )
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise BundleError(
            f"the bundle's settings are not those of the released code ({type(error).__name__}: {error}); convert the "
            "published files again, or leave the settings out"
        ) from error


_TURNS = ("delta_pitch", "delta_yaw", "delta_roll")


def _array(values: Any, shape: tuple[int, ...]) -> Floats:
    array = np.asarray(values, np.float64)
    if array.shape != shape:
        raise ValueError(f"an array {shape} is wanted, got {array.shape}")
    return array


def _reference(character: Mapping[str, Any]) -> Reference:
    """The first frame of the released `ch_info`."""
    motion = character["x_s_info_lst"][0]
    lids, gaze = (
        np.asarray(character[name][0], np.float32).reshape(1, -1) for name in ("eye_open_lst", "eye_ball_lst")
    )
    canonical = np.asarray(motion["kp"], np.float32).reshape(-1)
    if (lids.size, gaze.size, canonical.size) != (2, 6, 63):
        raise ValueError(f"lids 2, gaze 6 and keypoints 63 are wanted, got {lids.size}, {gaze.size}, {canonical.size}")
    return Reference(motion_vector(motion), SourceCondition(lids, gaze, canonical))
