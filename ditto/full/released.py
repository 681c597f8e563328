"""The settings published with the checkpoints, as options of the pipeline.

A bundle has them in its part "settings" if the converter found their files. The meanings and defaults of the keys are those
of the released code at e9191cf (`setup` of its StreamSDK); this module has not been run on the published files. Every key is
used, refused, or named in one line of the log.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypedDict

import numpy as np
import numpy.typing as npt

from ditto.errors import BundleError, InputError
from ditto.full.conditioning import SourceCondition, emotion_of_labels
from ditto.full.cropping import FACE, Framing
from ditto.full.motion_math import ANGLES, LAYOUT, Floats
from ditto.full.retargeting import BLINK_FRAMES, NO_EDIT, FrameEdit
from ditto.full.sizes import EXPRESSION_SIZE, GAZE, LEVELS, LIDS, WINDOW
from ditto.full.source import motion_vector
from ditto.motion.emotion import EMOTIONS
from ditto.motion.motion import PACKED_SIZE

Array = npt.NDArray[np.float32]

log = logging.getLogger(__name__)

BLINK_SHAPE = (BLINK_FRAMES, EXPRESSION_SIZE)
BLINK_PLAN_FRAMES = 3000  # for how many frames the released code plans blinks if it does not know the length
LARGEST_TURN = 90.0  # degrees; the bins of an angle end at 97.5
LARGEST_FACTOR = 10.0  # of a motion: our bound, which turns a mistyped setting into an error
SOURCE_SMOOTHING = 13  # frames that the motion of a source video is averaged over, as released
LARGEST_SMOOTHING = 250  # frames, 10 s: our bound, likewise
STREAM_OVERLAP = 70  # frames; as the released settings for streams

Numbers = npt.ArrayLike  # of plain lists, as JSON has them, or arrays


class FrameControl(TypedDict, total=False):
    """Changes to a frame, by their released names.

    Attributes:
        delta_pitch, delta_yaw, delta_roll: degrees that are added to an angle.
        alpha_pitch, alpha_yaw, alpha_roll: factors on an angle, after that.
        delta_exp: (63,) or one number, added to the expression, canonical units.
        vad_alpha: 1: the motion; 0: closed lips; as of `FrameEdit.speaking`.
        fade_alpha: 1: the motion; 0: what `fade_type` fades to. No effect without `fade_type`.
        fade_out_keys: names of the parts that fade, in place of the setting of that name.
    """

    delta_pitch: float
    delta_yaw: float
    delta_roll: float
    alpha_pitch: float
    alpha_yaw: float
    alpha_roll: float
    delta_exp: Numbers
    vad_alpha: float
    fade_alpha: float
    fade_out_keys: Sequence[str]


class ReleasedSettings(TypedDict, total=False):
    """The settings of the released code by their names there; what they do is a table in docs/full.md.

    Attributes:
        sampling_timesteps: steps of DDIM, 1 to 1000.
        overlap_v2: frames that windows share, 0 to 79; with `online_mode` 40 to 79.
        online_mode: whether `overlap_v2` is for streams.
        smo_k_d: frames that the generated pose is averaged over.
        fix_kp_cond, fix_kp_cond_dim, v_min_max_for_clip: as of `WindowRules` and `Released`.
        emo: a label 0 to 7 (`EMOTIONS`), several at once, a list of such lists, one a frame, or (m, 8) numbers, one row a
            frame; repeated.
        use_d_keys: names, or factors by name, of exp, pitch, yaw, roll, t, scale that the speech moves.
        relative_d: whether motion is added to the source's.
        drive_eye: whether the speech moves the eyes.
        delta_eye_arr: (15, 63) expression of a blink.
        delta_eye_open_n: frames between blinks; several in turn; 0: random; below 0: none.
        N_d: frames for which blinks are planned at once.
        fade_type: what fades go to: "s" the source, "d0" the first frame; "": no fades.
        fade_in, fade_out: frames of a fade at the beginning and at the end of the speech.
        fade_out_keys: names of the parts that fade.
        overall_ctrl_info: changes to every frame.
        ctrl_info: changes to single frames, by number; they come on top of those to every frame.
        ch_info: the face that conditions come from, in place of the source.
        eye_f0_mode: whether lids and gaze of the first frame alone are conditions.
        template_n_frames: frames of a source video that are used; -1: all.
        smo_k_s: frames that the motion of a source video is averaged over.
        flag_stitching: whether keypoints go through the stitching network.
        crop_scale, crop_vy_ratio, crop_flag_do_rot: of the crop, as of `Framing`.
    """

    sampling_timesteps: int
    overlap_v2: int
    online_mode: bool
    smo_k_d: int
    fix_kp_cond: int
    fix_kp_cond_dim: Sequence[int]
    v_min_max_for_clip: Numbers
    emo: Numbers
    use_d_keys: Sequence[str] | Mapping[str, float]
    relative_d: bool
    drive_eye: bool
    delta_eye_arr: Numbers
    delta_eye_open_n: int | Sequence[int]
    N_d: int
    fade_type: Literal["", "s", "d0"]
    fade_in: int
    fade_out: int
    fade_out_keys: Sequence[str]
    overall_ctrl_info: FrameControl
    ctrl_info: Mapping[int, FrameControl]
    ch_info: Mapping[str, Any]
    eye_f0_mode: bool
    template_n_frames: int
    smo_k_s: int
    flag_stitching: bool
    crop_scale: float
    crop_vy_ratio: float
    crop_flag_do_rot: bool


class Reference(NamedTuple):
    """A face that replaces the portrait as the source of conditions.

    Attributes:
        motion: (265,), known before the first window.
        condition: lids and gaze of its frames, canonical keypoints.
    """

    motion: Array
    condition: SourceCondition


class Fade(NamedTuple):
    """How a stream fades in and out.

    Attributes:
        first: whether what is faded to is the first frame, not the source.
        frames_in: frames of the fade at the beginning.
        frames_out: frames of the fade at the end. The last `frames_out` + 1 frames wait for the end of the speech.
    """

    first: bool = False
    frames_in: int = 0
    frames_out: int = 0

    @property
    def held(self) -> int:
        """Frames that wait for the end of the speech."""
        return self.frames_out + 1 if self.frames_out else 0

    def opacity(self, frame: int, frames: int | None) -> float | None:
        """The `FrameEdit.opacity` of a frame; None: the frame's own. `frames` is their number; None: not near the end.

        Source: the released `setup_Nd` (tests/fixtures/reference, wiring_stitch, fade_ctrl).
        """
        if frames is not None and self.frames_out:
            after = frame - (frames - self.frames_out - 1)
            if after >= 0:
                return max(1.0 - after / self.frames_out, 0.0)
        return frame / self.frames_in if frame < self.frames_in else None


class Released(NamedTuple):
    """The published settings.

    Attributes:
        steps: of DDIM.
        overlap: frames that windows share: of the latency "quality", or if `online` of "balanced".
        online: whether the settings are for streams.
        smoothing: frames that pose is averaged over.
        reset_every: as of `WindowRules`.
        reset_keeps: likewise.
        edit: changes to every frame.
        edits: changes to single frames, by number; in place of `edit`.
        fade: how a stream fades in and out; None: not at all.
        retarget: fields of `RetargetOptions` that the settings name, with their values.
        limits: lowest and highest motion (265,) each, or None.
        blinks: (15, 63) expression of the eyes in a blink, or None: eyes move as generated.
        waits: open frames between blinks, as of `blink_frames`.
        blink_plan_frames: frames that blinks are planned for at once.
        reference: the face that conditions come from, or None: the portrait.
        emotions: (M, 8) in the network's coding, one row a frame, repeated; None: neutral. They replace the caller's
            neutral emotion.
        framing: of the crop that is animated.
        stitching: whether keypoints go through the stitching network.
        first_eyes: whether lids and gaze of a clip's first frame alone are conditions.
        source_frames: frames of a clip that are used; 0: all.
        source_smoothing: frames that the motion of a clip is averaged over.
    """

    steps: int = 10
    overlap: int = 10
    online: bool = False
    smoothing: int = 3
    reset_every: int = 0
    reset_keeps: slice | None = None
    edit: FrameEdit = NO_EDIT
    edits: Mapping[int, FrameEdit] = {}
    fade: Fade | None = None
    retarget: Mapping[str, Any] = {}
    limits: tuple[Floats, Floats] | None = None
    blinks: Floats | None = None
    waits: tuple[int, ...] = ()
    blink_plan_frames: int = BLINK_PLAN_FRAMES
    reference: Reference | None = None
    emotions: Array | None = None
    framing: Framing = FACE
    stitching: bool = True
    first_eyes: bool = False
    source_frames: int = 0
    source_smoothing: int = SOURCE_SMOOTHING


# Settings without an effect, and why.
NOT_NEEDED = {
    "crop_vx_ratio": "the released code does not use it either",
    "fade_in": "no effect without fade_type",
    "fade_out": "no effect without fade_type",
    "fade_out_keys": "no effect without fade_type",
    "max_size": "give it where the portrait is registered",
}


def read_released(settings: Mapping[str, Any]) -> Released:
    """The released settings as `ditto.full.conversion.settings.released_settings` gives them.

    Raises:
        BundleError: a value that the released code refuses, or that is not supported here; the message names the key, the
            expected value and the given one.
    """
    given = dict(settings)
    try:
        released = _read(given)
    except ValueError as error:
        raise BundleError(
            f"the bundle's settings are not usable: {error}; correct them and convert the published files again, or open the "
            "bundle without settings"
        ) from error
    ignored = [f"{key} ({NOT_NEEDED.get(key, 'the released code does not know it')})" for key in given]
    if ignored:
        log.warning("unused settings: %s", ", ".join(ignored))
    return released


def check_changes(changes: ReleasedSettings) -> None:
    """Refuse settings that a caller gives in place of a bundle's.

    Raises:
        InputError: a name that is unknown or has no effect here, or a value out of its range; the message says which.
    """
    given = dict(changes)
    try:
        _read(given)
    except ValueError as error:
        raise InputError(f"a setting is not usable: {error}; correct it") from None
    for name in given:
        if name in NOT_NEEDED:
            raise InputError(f"expected settings with an effect, got {name}: {NOT_NEEDED[name]}; leave it out")
        known = ", ".join(ReleasedSettings.__annotations__)
        raise InputError(f"expected settings of {known}, got {name!r}; correct the name")


def _read(given: dict[str, Any]) -> Released:
    """The settings; what is left in `given` has no effect. Raises ValueError for a value that cannot be used."""
    if _whole("seq_frames", given.pop("seq_frames", WINDOW), 1) != WINDOW:
        raise ValueError(f"expected seq_frames to be {WINDOW}, the length of the published network's windows")
    online = _flag("online_mode", given.pop("online_mode", False))
    lowest = WINDOW // 2 if online else 0
    overlap = _whole("overlap_v2", given.pop("overlap_v2", STREAM_OVERLAP if online else 10), lowest, WINDOW - 1)
    keeps, limits, blinks = (given.pop(key, None) for key in ("fix_kp_cond_dim", "v_min_max_for_clip", "delta_eye_arr"))
    character, emotions = given.pop("ch_info", None), given.pop("emo", None)
    first_eyes = _flag("eye_f0_mode", given.pop("eye_f0_mode", False))
    blink_plan = _whole("N_d", given.pop("N_d", -1), -1)
    if blink_plan == 0:
        raise ValueError("expected N_d to be -1 or a number of frames, got 0")
    retarget, fade = _retarget(given), _fade(given)
    edit, edits = _edits(given, fade is not None)
    source_frames = _whole("template_n_frames", given.pop("template_n_frames", -1), -1)
    return Released(
        steps=_whole("sampling_timesteps", given.pop("sampling_timesteps", 50), 1, LEVELS),
        overlap=overlap,
        online=online,
        smoothing=_whole("smo_k_d", given.pop("smo_k_d", 3), 0, WINDOW),
        reset_every=_whole("fix_kp_cond", given.pop("fix_kp_cond", 0), 0),
        reset_keeps=None if keeps is None else _columns(keeps),
        edit=edit,
        edits=edits,
        fade=fade,
        retarget=retarget,
        limits=None if limits is None else _limits(limits),
        blinks=None if blinks is None else _array("delta_eye_arr", blinks, BLINK_SHAPE),
        waits=_waits(given.pop("delta_eye_open_n", 0)),
        blink_plan_frames=BLINK_PLAN_FRAMES if blink_plan < 0 else blink_plan,
        reference=None if character is None else _reference(character, first_eyes),
        emotions=None if emotions is None else _emotions(emotions),
        framing=Framing(
            FACE.size,
            _number("crop_scale", given.pop("crop_scale", FACE.scale), 1.0, LARGEST_FACTOR),
            -_number("crop_vy_ratio", given.pop("crop_vy_ratio", -FACE.rise), -1.0, 1.0),
            _flag("crop_flag_do_rot", given.pop("crop_flag_do_rot", FACE.upright)),
        ),
        stitching=_flag("flag_stitching", given.pop("flag_stitching", True)),
        first_eyes=first_eyes,
        source_frames=max(source_frames, 0),
        source_smoothing=_whole("smo_k_s", given.pop("smo_k_s", SOURCE_SMOOTHING), 0, LARGEST_SMOOTHING),
    )


def _retarget(given: dict[str, Any]) -> dict[str, Any]:
    """Fields of `RetargetOptions` that the settings name."""
    out: dict[str, Any] = {}
    keys, relative, eyes = (given.pop(key, None) for key in ("use_d_keys", "relative_d", "drive_eye"))
    if keys is not None:
        if not isinstance(keys, (Mapping, list, tuple)):
            raise ValueError(f"expected use_d_keys to be names or factors by name, got {keys!r}")
        unknown = [str(name) for name in keys if name not in LAYOUT]
        if unknown:
            raise ValueError(f"expected use_d_keys to be of {', '.join(LAYOUT)}, got {', '.join(unknown)}")
        factors = keys if isinstance(keys, Mapping) else dict.fromkeys(keys, 1.0)
        out["factors"] = {
            name: _number(f"use_d_keys.{name}", factor, -LARGEST_FACTOR, LARGEST_FACTOR)
            for name, factor in factors.items()
        }
    if relative is not None:
        out["relative"] = _flag("relative_d", relative)
    if eyes is not None:
        out["keypoints"] = "lips and eyes" if _flag("drive_eye", eyes) else "lips"
    return out


def _fade(given: dict[str, Any]) -> Fade | None:
    """The fades; None without a type, and then what belongs to them stays in `given`."""
    kind = given.pop("fade_type", "")
    if kind not in ("", "d0", "s"):
        raise ValueError(f"expected fade_type to be '', 'd0' or 's', got {kind!r}")
    if not kind:
        return None
    frames_in, frames_out = (max(_whole(key, given.pop(key, -1), -1), 0) for key in ("fade_in", "fade_out"))
    return Fade(kind == "d0", frames_in, frames_out)


def _edits(given: dict[str, Any], fades: bool) -> tuple[FrameEdit, dict[int, FrameEdit]]:
    """The changes to every frame, and those to single frames with the former under them."""
    faded = _names("fade_out_keys", given.pop("fade_out_keys", ("exp",))) if fades else ("exp",)
    overall, single = (
        _by_name(key, given.pop(key, None) or {}) for key in ("overall_ctrl_info", "ctrl_info")
    )
    edits = {}
    for number, control in single.items():
        frame = int(number) if isinstance(number, str) and number.isdecimal() else number  # JSON has no other keys
        edits[_whole("ctrl_info's frames", frame, 0)] = _edit(overall | _by_name(f"ctrl_info.{number}", control), fades, faded)
    return _edit(overall, fades, faded), edits


def _by_name(key: str, values: Any) -> dict[Any, Any]:
    if not isinstance(values, Mapping):
        raise ValueError(f"expected {key} to be values by name, got {type(values).__name__}")
    return dict(values)


def _names(key: str, names: Any) -> tuple[str, ...]:
    """Names of the parts of a motion."""
    if not isinstance(names, (list, tuple)) or any(name not in LAYOUT for name in names):
        raise ValueError(f"expected {key} to be names of {', '.join(LAYOUT)}, got {names!r}")
    return tuple(names)


def _edit(control: dict[str, Any], fades: bool, faded: tuple[str, ...]) -> FrameEdit:
    """The changes to a frame. Where nothing fades, `fade_alpha` has no effect, as released."""
    control = dict(control)
    opacity = _number("fade_alpha", control.pop("fade_alpha", 1.0), 0.0, 1.0)
    faded = _names("fade_out_keys", control.pop("fade_out_keys", faded))
    turn, factor = (
        {
            name: _number(f"{kind}_{name}", control.pop(f"{kind}_{name}"), -largest, largest)
            for name in ANGLES
            if f"{kind}_{name}" in control
        }
        for kind, largest in (("delta", LARGEST_TURN), ("alpha", LARGEST_FACTOR))
    )
    speaking = _number("vad_alpha", control.pop("vad_alpha", 1.0), 0.0, 1.0)
    offset = control.pop("delta_exp", 0.0)
    expression: Floats | float = (
        _number("delta_exp", offset, -1.0, 1.0)
        if np.size(offset) == 1
        else _array("delta_exp", offset, (EXPRESSION_SIZE,))
    )
    if control:
        known = ", ".join(FrameControl.__annotations__)
        raise ValueError(
            f"expected overall_ctrl_info and ctrl_info to have {known}, got {', '.join(map(str, control))}"
        )
    return FrameEdit(
        speaking=speaking,
        turn=turn,
        turn_factor=factor,
        expression=expression,
        opacity=opacity if fades else 1.0,
        faded=faded,
    )


def _whole(key: str, value: Any, low: int, high: int | None = None) -> int:
    """A whole number in [low, high]."""
    allowed = f"{low} or more" if high is None else f"{low} to {high}"
    number = _plain(value)
    if number is None or number != int(number) or number < low or (high is not None and number > high):
        raise ValueError(f"expected {key} to be a whole number, {allowed}, got {value!r}")
    return int(number)


def _number(key: str, value: Any, low: float, high: float) -> float:
    """A number in [low, high]."""
    number = _plain(value)
    if number is None or not low <= number <= high:
        raise ValueError(f"expected {key} to be a number, {low:g} to {high:g}, got {value!r}")
    return number


def _plain(value: Any) -> float | None:
    """A finite number, or an array of one; None: something else."""
    array = np.asarray(value) if isinstance(value, (int, float, np.generic, np.ndarray)) else np.zeros(0)
    if array.size != 1 or array.dtype.kind not in "fiu" or not np.isfinite(array).all():
        return None
    return float(array.reshape(()))


def _flag(key: str, value: Any) -> bool:
    if not isinstance(value, (bool, np.bool_)) and not (isinstance(value, int) and value in (0, 1)):
        raise ValueError(f"expected {key} to be true or false, got {value!r}")
    return bool(value)


def _array(key: str, values: Any, shape: tuple[int, ...], finite: bool = True) -> Floats:
    """Numbers of a shape, with or without a batch of one in front."""
    try:
        array = np.asarray(values, np.float64)
    except (ValueError, TypeError) as error:
        raise ValueError(f"expected {key} to be an array {shape}, got {type(values).__name__}") from error
    if array.shape not in (shape, (1, *shape)):
        raise ValueError(f"expected {key} to be an array {shape}, got {array.shape}")
    if np.isnan(array).any() or (finite and not np.isfinite(array).all()):
        raise ValueError(f"expected {key} to be numbers, got NaN or infinity in it")
    return array.reshape(shape)


def _columns(values: Any) -> slice:
    """Columns of a motion, first and behind the last."""
    if not isinstance(values, (list, tuple, np.ndarray)) or len(values) != 2:
        raise ValueError(f"expected fix_kp_cond_dim to be two columns, got {values!r}")
    first, stop = (_whole("fix_kp_cond_dim", value, 0, PACKED_SIZE) for value in values)
    if first > stop:
        raise ValueError(f"expected fix_kp_cond_dim to rise, got {first} to {stop}")
    return slice(first, stop)


def _limits(values: Any) -> tuple[Floats, Floats]:
    """Lowest and highest motion; what is not limited is infinite. Of the released array (4, 265) two rows count."""
    rows = list(values) if isinstance(values, (list, tuple, np.ndarray)) else []
    if len(rows) < 2:
        raise ValueError(f"expected v_min_max_for_clip to be two rows of {PACKED_SIZE} or more, got {len(rows)}")
    low, high = (_array("v_min_max_for_clip", row, (PACKED_SIZE,), finite=False) for row in rows[:2])
    crossed = np.flatnonzero(low > high)
    if len(crossed):
        at = crossed[0]
        raise ValueError(
            f"expected the first row of v_min_max_for_clip to be at most the second, got {low[at]:g} and {high[at]:g} in "
            f"column {at}"
        )
    return low, high


def _waits(value: Any) -> tuple[int, ...]:
    """Open frames between blinks: 0 random ones, a number, a number below zero for none, or several in turn."""
    if isinstance(value, (list, tuple, np.ndarray)) and np.ndim(value) == 1:
        return tuple(_whole("delta_eye_open_n", wait, 0) for wait in value)
    wait = _whole("delta_eye_open_n", value, -1_000_000)
    return () if wait == 0 else (wait,)


def _emotions(value: Any) -> Array:
    """(M, 8): of a label, of several at once, of such lists in turn, or rows as they are."""
    if isinstance(value, np.ndarray) and value.ndim == 2 and value.shape[1] == len(EMOTIONS) and len(value):
        if value.dtype.kind not in "fiu" or not np.isfinite(value).all():
            raise ValueError("expected emo to be numbers, got NaN or infinity in it")
        return value.astype(np.float32)
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (list, tuple)) and value and all(
        isinstance(row, (list, tuple)) and len(row) == len(EMOTIONS) for row in value
    ):
        return _array("emo", value, (len(value), len(EMOTIONS))).astype(np.float32)
    several = isinstance(value, (list, tuple)) and len(value) > 0 and isinstance(value[0], (list, tuple))
    return np.stack([_labels(labels) for labels in (value if several else [value])])


def _labels(value: Any) -> Array:
    """(8,) of one emotion or of several at once."""
    labels: Sequence[Any] = value if isinstance(value, (list, tuple)) else [value]
    if not 0 < len(labels) < len(EMOTIONS):
        raise ValueError(
            f"expected emo to be 1 to {len(EMOTIONS) - 1} labels or rows of {len(EMOTIONS)} numbers, got {value!r}"
        )
    return emotion_of_labels([_whole("emo", label, 0, len(EMOTIONS) - 1) for label in labels])


def _reference(character: Any, first_eyes: bool) -> Reference:
    """The face of the released `ch_info`; of its eyes all frames, or the first alone."""
    if not isinstance(character, Mapping):
        raise ValueError(f"expected ch_info to be values by name, got {type(character).__name__}")
    lists = {key: character.get(key) for key in ("x_s_info_lst", "eye_open_lst", "eye_ball_lst")}
    missing = [key for key, rows in lists.items() if not isinstance(rows, (list, tuple, np.ndarray)) or not len(rows)]
    if missing:
        raise ValueError(f"expected ch_info to have lists {', '.join(missing)}, got {', '.join(map(str, character))}")
    lids, gaze = (
        np.stack([_array(f"ch_info.{key}", row, (size,)) for row in character[key]]).astype(np.float32)
        for key, size in (("eye_open_lst", LIDS), ("eye_ball_lst", GAZE))
    )
    if len(lids) != len(gaze):
        raise ValueError(f"expected as many eye_open_lst as eye_ball_lst in ch_info, got {len(lids)} and {len(gaze)}")
    face = character["x_s_info_lst"][0]
    sizes = {name: columns.stop - columns.start for name, columns in LAYOUT.items()} | {"kp": EXPRESSION_SIZE}
    if not isinstance(face, Mapping) or any(name not in face for name in sizes):
        raise ValueError(f"expected the faces of ch_info to have {', '.join(sizes)}")
    parts = {
        name: _array(f"ch_info.{name}", np.reshape(face[name], -1), (size,)).astype(np.float32)
        for name, size in sizes.items()
    }
    if not parts["scale"] > 0:
        raise ValueError(f"expected the scale of ch_info to be above 0, got {float(parts['scale'][0]):g}")
    canonical = parts.pop("kp")
    if "sc" in character:
        canonical = _array("ch_info.sc", np.reshape(character["sc"], -1), (EXPRESSION_SIZE,)).astype(np.float32)
    eyes = slice(0, 1) if first_eyes else slice(None)
    return Reference(motion_vector(parts), SourceCondition(lids[eyes], gaze[eyes], canonical))
