"""The released pipeline's wiring against recorded inputs and outputs of it; NumPy only, no networks."""

import numpy as np
import pytest
from fixtures.reference.recipe import HERE, distance, noise

from ditto.full.conditioning import SourceCondition, condition_rows, emotion_of_labels, emotion_of_weights
from ditto.full.cropping import (
    FACE,
    LANDMARK_FIELD,
    FaceOutline,
    crop_matrix,
    cut,
    invert,
    network_input,
    outline_of_106,
    outline_of_203,
)
from ditto.full.motion_math import degrees_of, mirror_index, pose_of, posed_keypoints, smooth_rows
from ditto.full.paste_back import PasteBack, soft_mask
from ditto.full.released import Fade
from ditto.full.retargeting import (
    FrameEdit,
    RetargetOptions,
    blink_frames,
    hold_gaze,
    mixed_motion,
    retarget_motion,
)
from ditto.full.speech_window import WindowEncoder
from ditto.full.windows import WindowRules, advance_stream, recording_motion, start_stream
from ditto.media.rates import SAMPLES_PER_FRAME
from ditto.motion.motion import rotation_matrix
from ditto.portrait.face_state import eye_state

WIRING = 1e-5  # relative: float32 there, float64 here
NAMES = ("pitch", "yaw", "roll", "t", "exp")


def recorded(name):
    with np.load(HERE / f"wiring_{name}.npz", allow_pickle=False) as file:
        return dict(file)


def vector(arrays, stem, row=0):
    """The motion vector (265,) of entries by name."""
    columns = [arrays[f"{stem}/{name}"].reshape(-1, arrays[f"{stem}/{name}"].shape[-1])[row] for name in NAMES]
    return np.concatenate([arrays[f"{stem}/scale"].reshape(-1, 1)[row] - 1, *columns]).astype(np.float32)


def picture(tag, shape):
    return (noise(tag, shape, uniform=True) * 255).astype(np.uint8)


def grey_levels(found, expected):
    return int(np.abs(np.asarray(found, int) - np.asarray(expected, int)).max())


# Crops


@pytest.mark.parametrize("points", ["106", "203", "68", "5", "101"])
def test_crop_matrices(points):
    arrays = recorded("crop")
    outlines = {"106": outline_of_106, "203": outline_of_203}
    anchors, outline = arrays[f"pt2_{points}"].astype(float), arrays[f"pts{points}"].astype(float)
    face = FaceOutline(*anchors, outline)
    if points in outlines:
        face = outlines[points](outline)
        assert distance(np.stack([face.eyes, face.lips]), anchors) <= WIRING
    level = FACE._replace(upright=False)
    for case, framing in (("lmk224", LANDMARK_FIELD), ("full512", FACE), ("norot512", level)):
        matrix = crop_matrix(face, framing)
        assert distance(matrix, arrays[f"{points}/{case}/M_o2c"]) <= WIRING
        assert distance(invert(matrix), arrays[f"{points}/{case}/M_c2o"]) <= WIRING


def test_crop_pixels():
    arrays = recorded("crop")
    source = picture("crop/img", (240, 320, 3))
    face = outline_of_203(arrays["pts203"])
    for case, framing in (("lmk224", LANDMARK_FIELD), ("full512", FACE)):
        crop = cut(source, crop_matrix(face, framing), framing.size)
        assert grey_levels(crop[::8, ::8], arrays[f"203/{case}/img_crop_sub8"]) <= 1
    given = network_input(crop)
    assert given.shape == (1, 3, 256, 256)
    assert np.abs(given[..., ::4, ::4] - arrays["crop512_to_256/sub4"]).max() <= 1.001 / 255  # a crop's grey level


# Conditions


def test_emotions():
    arrays = recorded("condition")
    for case in range(4):
        assert distance(emotion_of_labels(arrays[f"emo/{case}/in"]), arrays[f"emo/{case}/out"][0]) <= WIRING
    found = [emotion_of_labels(labels) for labels in ([4], [3, 4], [3, 4, 5])]
    assert distance(found, arrays["emo/list_of_lists/out"]) <= WIRING
    np.testing.assert_array_equal(emotion_of_weights(np.eye(8)[3]), emotion_of_labels(3))


@pytest.mark.parametrize("case", ["image_emo4", "image_emo4_n93", "video9_emoarr", "video9_f0"])
def test_conditions_of_frames(case):
    arrays = recorded("condition")
    eyes = [arrays[f"cond/{case}/{name}"] for name in ("eye_open", "eye_ball")]
    if case == "video9_f0":  # the first frame's eyes throughout
        eyes = [values[:1] for values in eyes]
    source = SourceCondition(*eyes, arrays[f"cond/{case}/sc"])
    emotions = {"video9_emoarr": arrays["emo/arr7x8"], "video9_f0": emotion_of_labels([3, 4])[None]}
    for key in [key for key in arrays if key.startswith(f"cond/{case}/idx")]:
        expected = arrays[key]
        speech = noise("speech", (len(expected), 1024))
        first = int(key.split("/")[2].removeprefix("idx"))
        found = condition_rows(speech, first, emotions.get(case, emotion_of_labels(4)[None]), source)
        assert found.shape == (len(expected), 1103)
        np.testing.assert_array_equal(found[:, :1024], speech)
        assert distance(found[:, 1024:], expected) <= WIRING


def test_eye_state():
    arrays = recorded("eye")
    for case in range(3):
        landmarks = np.zeros((478, 3))
        landmarks[arrays["idx"]] = arrays["lmk_used"][case]
        opening, gaze = eye_state(landmarks, 1)
        assert distance(opening, arrays["eye_open"][case]) <= WIRING
        assert distance(gaze, arrays["eye_ball"][case]) <= WIRING


# Speech


def stand_in_rows(windows):
    """(B, 6480) -> (B, 20, 8): what a row of HuBERT lies over."""
    rows = []
    for window in windows:
        for j in range(20):
            own = window[320 * j : 320 * j + 400]
            rows.append([own.mean(), own[0], own[-1], j, window[0], window[-1], len(window), (own**2).mean()])
    return np.array(rows, np.float32).reshape(len(windows), 20, 8)


@pytest.mark.parametrize("samples", [16000, 12345, 3200, 41])
def test_speech_windows(samples):
    """A stream gives the features that the released code gives for the whole recording."""
    audio = np.pad(noise(f"wav2feat/audio{samples}", (samples,), scale=0.1), (0, 16000))
    frames = -(-samples // SAMPLES_PER_FRAME)
    encoder = WindowEncoder(stand_in_rows)
    state, found, arrival = encoder.initial_state(1), [], []
    for start in range(0, (frames + 7) * SAMPLES_PER_FRAME, SAMPLES_PER_FRAME):
        features, state = encoder(audio[None, start : start + SAMPLES_PER_FRAME], state)
        found += list(features[0])
        arrival.append(len(found))
    assert distance(found[:frames], recorded("wav2feat")[f"offline/{samples}/feat8"]) <= WIRING
    assert arrival[5:8] == [0, 5, 5]  # the first five frames with the seventh frame of sound
    with pytest.raises(ValueError, match=r"expected samples \(1, 640\), got \(1, 3200\)"):
        encoder(np.zeros((1, 3200)), state)


# Windows of motion

RECORDINGS = {
    "off_50": (50, WindowRules()),
    "off_80": (80, WindowRules()),
    "off_81": (81, WindowRules()),
    "off_200": (200, WindowRules()),
    "off_200_fix1": (200, WindowRules(reset_every=1, reset_keeps=slice(0, 202))),
    "off_200_fix2": (200, WindowRules(reset_every=2)),
    "off_160_ov20_nosmo": (160, WindowRules(20, smoothing=1)),
}
STREAMS = {
    "on_100": (100, WindowRules(70)),
    "on_95_ov75": (95, WindowRules(75)),
    "on_103": (103, WindowRules(70)),
    "on_100_fix1": (100, WindowRules(70, reset_every=1, reset_keeps=slice(0, 202))),
    "on_12": (12, WindowRules(70)),
}


class MotionStandIn:
    """Motion that follows from the conditions and from what is known, as where the outputs were recorded."""

    def __init__(self):
        self.projection = noise("sched/proj", (1103, 265), scale=0.02)
        self.known, self.ends = [], []

    def __call__(self, known, conditions):
        self.known.append(known)
        self.ends.append((conditions[0, 0], conditions[-1, 0]))
        drift = np.linspace(-0.2, 0.2, 80, dtype=np.float32)[:, None]
        return np.tanh(conditions @ self.projection) * np.float32(0.5) + np.float32(0.3) * known + drift


@pytest.fixture(scope="module")
def schedule():
    arrays = recorded("schedule")
    source = SourceCondition(arrays["src/eye_open"], arrays["src/eye_ball"], arrays["src/kp"][0])
    return arrays, vector(arrays, "src"), source


def stream_motion(sample, speech, silence, source, conditions_of, rules, block=5):
    """Motion of a stream that gets `block` frames at a time, and its last state."""
    live = start_stream(source, conditions_of(silence, -rules.overlap), rules)
    found = []
    for first in range(0, len(speech), block):
        rows = conditions_of(speech[first : first + block], first)
        motion, live = advance_stream(live, rows, sample, source, rules)
        found.append(motion)
    motion, live = advance_stream(live, rows[:0], sample, source, rules, final=True)
    return np.concatenate([*found, motion]), live


@pytest.mark.parametrize("case", [*RECORDINGS, *STREAMS])
def test_windows(schedule, case):
    arrays, source, eyes = schedule
    sample = MotionStandIn()

    def conditions_of(speech, first):
        return condition_rows(speech, first, emotion_of_labels(4)[None], eyes)

    frames, rules = (RECORDINGS | STREAMS)[case]
    speech = noise(f"sched/{case}/aud", (frames, 1024))
    if case in RECORDINGS:
        motion = recording_motion(sample, conditions_of(speech, 0), source, rules)
        origin = motion[0]
    else:
        silence = noise(f"sched/{case}/silence", (rules.overlap, 1024), scale=0.1)
        motion, live = stream_motion(sample, speech, silence, source, conditions_of, rules)
        origin = live.origin[0]
    shown = motion[:, ::7] + np.eye(1, 38)  # recorded with the scale made whole
    assert distance(shown, arrays[f"{case}/motion265_sub"]) <= WIRING
    assert len(sample.known) == arrays[f"{case}/n_calls"]
    assert distance(np.array(sample.known)[:, ::7], arrays[f"{case}/call_kp_cond_sub"]) <= WIRING
    assert distance(sample.ends, arrays[f"{case}/call_aud_first_last_col0"]) <= WIRING
    if f"{case}/x_d" in arrays:
        driven = [retarget_motion(source, row, origin, RetargetOptions()) for row in motion]
        found = [posed_keypoints(eyes.canonical, pose) for pose in driven]
        assert distance(found, arrays[f"{case}/x_d"]) <= WIRING


def test_stream_windows_come_as_often_as_released(schedule):
    arrays, source, _ = schedule
    for overlap, frames, given, calls in arrays["online_counts/overlap_F_frames_calls"].tolist():
        known = []

        def sample(before, conditions, known=known):
            known.append(before)
            return np.zeros((80, 265), np.float32)

        rules = WindowRules(overlap)
        silence, speech = np.zeros((overlap, 3), np.float32), np.ones((frames, 3), np.float32)
        motion, _ = stream_motion(sample, speech, silence, source, lambda rows, first: rows, rules)
        if given == 0:  # the released code loses speech shorter than a hop
            given, calls = 2 * rules.hop, 2
        assert (len(motion), len(known)) == (given, calls)


def test_any_cutting_of_a_stream_gives_the_same_motion(schedule):
    _, source, eyes = schedule
    speech, silence = noise("cut/speech", (57, 1024)), np.zeros((70, 1024), np.float32)

    def conditions_of(rows, first):
        return condition_rows(rows, first, emotion_of_labels(4)[None], eyes)

    found = [
        stream_motion(MotionStandIn(), speech, silence, source, conditions_of, WindowRules(70), block)[0]
        for block in (1, 7, 57)
    ]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_rules_that_cannot_be_followed_are_refused():
    with pytest.raises(ValueError, match="overlap to be a whole number, 0 to 79, got 80"):
        recording_motion(MotionStandIn(), np.zeros((1, 3), np.float32), np.zeros(265), WindowRules(80))
    with pytest.raises(ValueError, match="40 frames or more and as many frames of silence, got 10 and 10"):
        start_stream(np.zeros(265), np.zeros((10, 3), np.float32), WindowRules(10))
    with pytest.raises(ValueError, match="got 70 and 69"):
        start_stream(np.zeros(265), np.zeros((69, 3), np.float32), WindowRules(70))


# The motion that is shown


def test_angles_rotations_and_keypoints():
    arrays = recorded("motion_math")
    assert distance(degrees_of(arrays["bin66/in"]), arrays["bin66/out"]) <= WIRING
    assert distance([rotation_matrix(*angles) for angles in arrays["rot/pyr_deg"]], arrays["rot/out"]) <= WIRING
    for case in range(3):
        stem = f"transform_keypoint/{case}"
        found = posed_keypoints(arrays[f"{stem}/kp"], pose_of(vector(arrays, stem)))
        assert distance(found, arrays[f"{stem}/out"][0]) <= WIRING
    assert distance(vector(arrays, "dic2arr/in"), arrays["dic2arr/265"]) <= WIRING


def test_source_video_order_and_smoothing():
    arrays = recorded("motion_math")
    assert [mirror_index(i, 4) for i in range(20)] == arrays["mirror_index/size4_0..19"].tolist()
    assert [mirror_index(i, 1) for i in range(6)] == [0] * 6
    for name in (*NAMES, "scale", "kp"):
        assert distance(smooth_rows(arrays[f"smooth_x_s/in/{name}"], 13), arrays[f"smooth_x_s/out/{name}"]) <= WIRING


def test_gaze_is_held():
    arrays = recorded("motion_math")
    for case in range(2):
        stem = f"fix_gaze/{case}"
        yaw, pitch = arrays[f"{stem}/pose_s_yaw_pitch"]
        turned = (degrees_of(arrays[f"{stem}/{name}"][0]) for name in ("pitch", "yaw"))
        found = hold_gaze(
            arrays[f"{stem}/exp_in"][0], *(now - was for now, was in zip(turned, (pitch, yaw), strict=True))
        )
        assert distance(found, arrays[f"{stem}/exp_out"][0]) <= WIRING
    for case in range(3):
        right, down = arrays[f"eye_delta/{case}/dxdy"]
        found = hold_gaze(arrays["eye_delta/exp_in"][0], down / 0.28, right / 0.26)
        assert distance(found, arrays[f"eye_delta/{case}/out"][0]) <= WIRING


def test_blinks():
    arrays = recorded("motion_math")
    for case, waits in enumerate([(60,), (50, 80, 30), (-1,), (60,)]):
        expected = arrays[f"blink_idx/{case}/out"]
        np.testing.assert_array_equal(blink_frames(len(expected), waits), expected)
    np.testing.assert_array_equal(blink_frames(600, seed=3), arrays["blink_idx/random_seed3_N600/out"])
    stitched = recorded("stitch")
    np.testing.assert_array_equal(blink_frames(60, (2,)), stitched["delta_eye/idx_list"])


POSES = ("exp", "pitch", "yaw", "roll", "t")
BINS = {"angles": "logits", "silence": "all"}  # as released
SHOWN = {
    # case: how motion is retargeted, the edit of each of four frames
    "image_default": ({}, [{}] * 4),
    "no_relative": ({"relative": False}, [{}] * 4),
    "video_default": ({"factors": {"exp": 1.0}, "keypoints": "lips"}, [{}] * 4),
    "use_d_dict": ({"factors": {"exp": 1.2, "pitch": 0.5, "yaw": 0.8, "roll": 1.0, "t": 1.0}}, [{}] * 4),
    "delta_pose": (
        {},
        [
            {"turn": {"pitch": 2.0}},
            {"turn": {"pitch": 2.0, "yaw": -3.0}},
            {"turn": {"pitch": 1.0, "roll": 4.0}},
            {"turn": {"pitch": 2.0}},
        ],
    ),
    "alpha_pose_bins": (BINS, [{"turn_factor": {"pitch": 0.5}}] * 4),
    "delta_exp": ({}, [{"expression": "recorded"}] * 4),
    "vad": (BINS, [{"speaking": v} for v in (1, 0.7, 0.3, 0.0)]),
    "fade_d0": (BINS, [{"opacity": v} for v in (0.0, 0.3, 0.6, 1.0)]),
    "fade_s_all": (BINS, [{"opacity": v, "faded": POSES} for v in (1.0, 0.6, 0.3, 0.0)]),
    "delta_eye": ({}, [{"blink": "recorded"}] * 4),
    "no_drive_eye": ({"keypoints": "lips"}, [{}] * 4),
    "ch_info": ({"strength": "recorded"}, [{}] * 4),
    "drive_eye_video": ({"factors": {"exp": 1.0}}, [{}] * 4),
}


@pytest.mark.parametrize("case", SHOWN)
def test_shown_motion(case):
    arrays = recorded("stitch")
    how, edits = SHOWN[case]
    source, canonical = vector(arrays, "src"), arrays["src/kp"][0]
    if "strength" in how:
        how = how | {"strength": float(arrays["ch_scale"][0, 0] / arrays["src/scale"][0, 0])}
    origin = vector(arrays, "drv")
    blinks = arrays["delta_eye_arr"][blink_frames(60, (2,))]
    found = []
    for frame, edit in enumerate(edits):
        given = {"expression": arrays["delta_exp"][0], "blink": blinks[frame]}
        edit = FrameEdit(**{key: given[key] if value == "recorded" else value for key, value in edit.items()})
        motion, options = vector(arrays, "drv", frame), RetargetOptions(**how)
        goal = mixed_motion(source, origin, origin, options) if case == "fade_d0" else None
        found.append(posed_keypoints(canonical, retarget_motion(source, motion, origin, options, edit, goal)))
    assert distance(found, arrays[f"{case}/x_d"]) <= WIRING
    assert distance(posed_keypoints(canonical, pose_of(source)), arrays[f"{case}/x_s"][0]) <= WIRING


def test_fades():
    arrays = recorded("stitch")
    fade = Fade(frames_in=5, frames_out=7)
    found = {frame: share for frame in range(40) if (share := fade.opacity(frame, 40)) is not None}
    assert list(found) == arrays["fade_ctrl/N40_in5_out7/idx"].tolist()
    assert distance(list(found.values()), arrays["fade_ctrl/N40_in5_out7/alpha"]) <= WIRING
    assert fade.held == 8 and fade.opacity(39, None) is None


# Paste-back


def test_masks():
    arrays = recorded("putback")
    mask = soft_mask(512)
    parts = {
        "mask_row256": mask[256],
        "mask_col256": mask[:, 256],
        "mask_corner32": mask[:32, :32],
        "mask_corner_br32": mask[-32:, -32:],
        "mask_sub7": mask[::7, ::7],
    }
    for name, found in parts.items():
        assert distance(found, arrays[name]) <= WIRING


def test_paste_back():
    arrays = recorded("putback")
    frame = picture("putback/frame", (360, 300, 3))
    found = PasteBack(frame, arrays["M_c2o"])(noise("putback/render", (512, 512, 3), uniform=True) * 255)
    assert found.dtype == np.uint8
    assert grey_levels(found[::3], arrays["out_cython"]) <= 1
    far = PasteBack(frame, np.array([[1.0, 0.0, 5000.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))
    np.testing.assert_array_equal(far(np.zeros((512, 512, 3), np.uint8)), frame)  # a crop beyond the picture
