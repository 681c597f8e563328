"""The full pipeline where released code errs, where it has settings, and where others' files come in; no torch."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
from drawn import drawn_portrait

from ditto import load
from ditto.app.options import parse_settings
from ditto.errors import BundleError, InputError
from ditto.full import detection, face_mesh
from ditto.full.conditioning import emotion_of_labels
from ditto.full.cropping import Framing
from ditto.full.motion_math import degrees_of, posed_keypoints
from ditto.full.released import Released, ReleasedSettings, check_changes, read_released
from ditto.full.retargeting import LIPS, FrameEdit, RetargetOptions, blink_frames, retarget_motion, split_motion
from ditto.full.sampler import FullSampler, Sampling
from ditto.full.source import SourceReader
from ditto.full.windows import (
    WindowRules,
    advance_recording,
    advance_stream,
    recording_motion,
    start_recording,
    start_stream,
)
from ditto.motion.emotion import emotion_vector
from ditto.motion.motion import PACKED_SIZE

NEUTRAL = emotion_vector(None)
SIZES = {"pitch": 66, "yaw": 66, "roll": 66, "t": 3, "exp": 63, "scale": 1, "kp": 63}
ENCODER = SimpleNamespace(hop_features=5, lookahead=2)
SILENCE = np.zeros((5, 4), np.float32)


def reader(**landmarks):
    """Sources by networks that look at nothing but a picture's brightness."""
    return SourceReader(
        lambda image: {"volume": np.zeros((1, 2, 2, 4, 4), np.float32)},
        lambda image: {name: np.full((1, size), image.mean(), np.float32) for name, size in SIZES.items()},
        **landmarks,
    )


@pytest.fixture(scope="module")
def portrait():
    return drawn_portrait()


@pytest.fixture(scope="module")
def source_of():
    return reader()


def run(sampler, features, portrait, seed=0, block=5, emotion=NEUTRAL):
    state, rows = sampler.begin(portrait, seed), []
    for first in range(0, len(features), block):
        last = first + block >= len(features)
        found, state = sampler(features[first : first + block], emotion, state, final=last)
        rows.append(found)
    return np.concatenate(rows)


def test_original_landmark_files_in_the_place_of_mediapipe(source_of, portrait, monkeypatch):
    own = source_of(portrait)
    box = np.array([[150.0, 120.0, 360.0, 400.0, 0.9], [0.0, 0.0, 40.0, 40.0, 0.95]])
    wide = np.zeros((1, 212), np.float32)
    wide[0, 0::2], wide[0, 1::2] = np.linspace(-0.5, 0.5, 106), np.tile([-0.5, 0.5], 53)
    wide[0, [2 * i + 1 for i in (33, 35, 40, 39, 87, 89, 94, 93)]] = -0.3  # eyes above the mouth
    wide[0, [2 * i + 1 for i in (52, 61)]] = 0.4
    fine = np.random.default_rng(0).random((1, 406)).astype(np.float32)
    fine[0, [2 * i + 1 for i in (0, 6, 12, 18, 24, 30, 36, 42)]], fine[0, [97, 133]] = 0.3, 0.7
    mesh = np.random.default_rng(1).random((1, 1434)).astype(np.float32) * 256
    blaze = {"boxes": np.zeros((1, 896, 16), np.float32), "scores": np.full((1, 896, 1), -9.0, np.float32)}
    blaze["boxes"][0, 400, 2:4], blaze["boxes"][0, 400, 6], blaze["scores"][0, 400] = 60.0, 30.0, 9.0
    found = {"2d106det.onnx": {"a": wide}, "landmark203.onnx": {"a": fine}, "face_mesh.onnx": {"a": mesh}}
    found |= {"blaze_face.onnx": blaze, "det_10g.onnx": {f"out{i}": np.zeros(0) for i in range(9)}}

    def engine(path):
        names = [SimpleNamespace(name=name) for name in found[path.name]]
        call = SimpleNamespace(inputs=(SimpleNamespace(name="image"),), outputs=names)
        return type("Engine", (), {"__call__": lambda self, image: found[path.name], **vars(call)})()

    for module in (detection, face_mesh):
        monkeypatch.setattr(module, "open_engine", engine)
    monkeypatch.setattr(detection, "detected_boxes", lambda outputs, grown: (box, None))
    other = reader(outline_of=detection.OriginalLandmarks("x"), mesh_of=face_mesh.OnnxFaceMesh("x"))(portrait)
    assert np.abs(other.crop_to_picture - own.crop_to_picture).max() > 1.0
    centre = other.crop_to_picture @ (256, 256, 1)
    assert 150 < centre[0] < 360  # the face at the portrait's, not the surer one in the corner
    assert np.abs(other.condition.eye_open - own.condition.eye_open).max() > 0.01


def test_noise_is_fresh_or_shared(source_of, portrait):
    given = []

    def engine(cond_frame, cond, start, noise):
        given.append((start, noise))
        return {"motion": np.zeros((1, 80, PACKED_SIZE), np.float32)}

    for noise, fresh in (("fresh", True), ("shared", False)):
        given.clear()
        sampler = FullSampler(engine, source_of, SILENCE, ENCODER, Sampling(noise=noise), "balanced")
        run(sampler, np.zeros((30, 4), np.float32), portrait)
        assert len(given) == 4
        starts, steps = (np.stack(values) for values in zip(*given, strict=True))
        assert steps.shape == (4, 9, 1, 80, PACKED_SIZE)
        assert len(np.unique(starts[:, 0, 0, 0])) == 4
        assert (len(np.unique(steps[:, 0, 0, 0, 0])) == 4) is fresh


def test_head_is_not_bowed_by_a_chance_first_frame(source_of, portrait):
    def engine(cond_frame, cond, start, noise):
        motion = np.zeros((1, 80, PACKED_SIZE), np.float32)
        motion[:, 0, 1:67] = np.linspace(-3, 3, 66)  # the first frame alone looks elsewhere
        return {"motion": motion}

    bowed = {}
    for origin in ("silence", "first"):
        sampler = FullSampler(engine, source_of, SILENCE, ENCODER, Sampling(origin=origin), "balanced")
        bowed[origin] = np.abs(run(sampler, np.zeros((60, 4), np.float32), portrait)[30:, 1]).mean()
    assert bowed["first"] > 10 * bowed["silence"]


def vectors():
    dice = np.random.default_rng(5)
    return [dice.standard_normal(PACKED_SIZE) * 0.3 for _ in range(3)]


def keypoints_of(edit, retarget=None):
    source, motion, origin = vectors()
    pose = retarget_motion(source, motion, origin, retarget or RetargetOptions(), edit)
    return posed_keypoints(np.zeros(63), pose), pose


def settings_of(**changed):
    dice = np.random.default_rng(8)
    eyes = {"eye_open_lst": np.ones((4, 2)), "eye_ball_lst": np.zeros((4, 6))}
    sizes = {"scale": 1, "pitch": 66, "yaw": 66, "roll": 66, "t": 3, "exp": 63, "kp": 63}
    motion = {name: dice.standard_normal((1, size)) for name, size in sizes.items()} | {"scale": np.full((1, 1), 1.5)}
    return {
        "sampling_timesteps": 10, "smo_k_d": 3, "fix_kp_cond": 1, "fix_kp_cond_dim": [0, 202],
        "overall_ctrl_info": {"delta_pitch": 2}, "v_min_max_for_clip": np.stack([np.full(265, -9.0), np.full(265, 9.0)]),
        "delta_eye_arr": np.full((15, 63), 0.5), "ch_info": {"x_s_info_lst": [motion], **eyes},
    } | changed  # fmt: skip


def test_settings_published_with_the_checkpoints(source_of, portrait):
    inputs = []

    def engine(cond_frame, cond, start, noise):
        inputs.append((cond_frame, cond))
        return {"motion": 100 * start}

    released = read_released(settings_of())
    sampler = FullSampler(engine, source_of, SILENCE, ENCODER, Sampling(released=released), "balanced")
    rows = run(sampler, np.zeros((100, 4), np.float32), portrait)
    reference = released.reference
    np.testing.assert_array_equal(inputs[0][0][0], reference.motion)
    np.testing.assert_array_equal(inputs[0][1][0, 0, -63:], reference.condition.canonical)
    np.testing.assert_array_equal(inputs[5][0][0, 202:], reference.motion[202:])  # reset before every window
    assert np.abs(inputs[5][0][0, :202] - reference.motion[:202]).max() > 1.0
    assert np.abs(rows[:, 4:7]).max() <= 18.0  # within the limits
    eyes = rows[:, 7:].reshape(-1, 21, 3)[:, [13, 16, 18]]
    np.testing.assert_allclose(eyes, 0.5, atol=1e-6)  # as in the array of blinks, not as sampled
    brows = rows[:, 7:].reshape(-1, 21, 3)[:, [1, 2]]
    assert not brows.any()


OUT_OF_RANGE = {
    "sampling_timesteps": [0, -1, 1001, 2.5, float("nan"), "many", None, True, [10]],
    "smo_k_d": [-1, 81, "many", 1.5],
    "overlap_v2": [-1, 80, 10.5, None],
    "seq_frames": [0, 79],
    "fix_kp_cond": [-1, 0.5],
    "fix_kp_cond_dim": [[], [0], [0, 1, 2], [202, 0], [0, 266], [-1, 5], 3],
    "v_min_max_for_clip": [
        np.stack([np.ones(265), -np.ones(265)]), np.zeros((1, 265)), np.zeros((2, 264)), np.full((2, 265), np.nan), 4.0,
    ],
    "delta_eye_arr": [np.ones((3, 63)), np.full((15, 63), np.nan), "none", np.ones(63)],
    "delta_eye_open_n": [1.5, [3, -1], [2.5], "often", None],
    "N_d": [0, -2, 1.5],
    "online_mode": ["yes", 2, None],
    "emo": [8, -1, 1.5, "happy", [], [9], list(range(8)), [[4], [8]], [[]], np.full((2, 8), np.nan), np.zeros((0, 8))],
    "use_d_keys": ["exp", {"exp": float("inf")}, {"exp": None}, ["kp"], 3],
    "relative_d": ["no", 2],
    "drive_eye": ["no", 2],
    "crop_scale": [0.0, -2.3, float("inf"), "wide"],
    "crop_vy_ratio": [2.0, None],
    "crop_flag_do_rot": ["no", None],
    "eye_f0_mode": ["no", None],
    "flag_stitching": ["no", None],
    "fade_type": ["d1", None],
    "ctrl_info": [{-1: {"delta_pitch": 2}}, {"first": {}}, {3: 2}, {3: {"delta_nod": 1}}, 4],
    "fade_in": [-2, 1.5], "fade_out": [-2, "long"], "fade_out_keys": ["exp", ["kp"]], "template_n_frames": [-2, 1.5],
    "smo_k_s": [-1, 251, None],
    "overall_ctrl_info": [
        {"delta_pitch": float("nan")}, {"delta_yaw": 91}, {"alpha_roll": float("inf")}, {"vad_alpha": 1.5},
        {"vad_alpha": -0.1}, {"fade_alpha": 1.5}, {"fade_out_keys": ["kp"]},
        {"delta_exp": np.ones(62)}, {"delta_exp": np.full(63, np.nan)}, {"delta_nod": 1}, 3,
    ],
    "ch_info": [
        {}, 3, {"x_s_info_lst": [{"kp": np.ones(63)}]},
        {"x_s_info_lst": [{"kp": np.ones(63)}], "eye_open_lst": 3, "eye_ball_lst": np.zeros((1, 6))},
        {"x_s_info_lst": [{"kp": np.ones(63)}], "eye_open_lst": np.ones((2, 2)), "eye_ball_lst": np.zeros((1, 6))},
        {"x_s_info_lst": [{"kp": np.ones(63)}], "eye_open_lst": np.ones((1, 3)), "eye_ball_lst": np.zeros((1, 6))},
        {"x_s_info_lst": [{"kp": np.ones(63)}], "eye_open_lst": np.ones((1, 2)), "eye_ball_lst": np.zeros((1, 6))},
    ],
}  # fmt: skip


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in OUT_OF_RANGE.items() for value in values])
def test_a_setting_out_of_its_range_is_refused_by_name(key, value):
    with pytest.raises(BundleError) as raised:
        read_released(settings_of(**{"fade_type": "s", key: value}))
    named = next(iter(value)) if key == "overall_ctrl_info" and isinstance(value, dict) else key
    assert re.search(rf"\b{named}\b", str(raised.value))
    assert "open the bundle without settings" in str(raised.value)


def test_an_overlap_that_leaves_gaps_in_a_stream_is_refused():
    with pytest.raises(BundleError, match="overlap_v2 to be a whole number, 40 to 79, got 10"):
        read_released(settings_of(online_mode=True, overlap_v2=10))
    assert read_released(settings_of(online_mode=True)).overlap == 70


def test_settings_that_have_no_effect_are_named_and_all_others_are_taken(caplog):
    described = dict.fromkeys(("max_size", "fade_in", "crop_vx_ratio", "fade_out_keys", "new_key"), 7)
    read_released(settings_of(**described))
    (message,) = caplog.messages
    assert all(key in message for key in described)
    assert "new_key (the released code does not know it)" in message
    caplog.clear()
    taken = {key: value for key, value in RELEASED_DEFAULTS.items() if key not in described}
    found = read_released(taken)
    np.testing.assert_array_equal(found.emotions, [emotion_of_labels(4)])
    assert found._replace(emotions=None) == Released(steps=50, retarget={"relative": True})
    assert caplog.messages == []


RELEASED_DEFAULTS = {  # what `setup` of the released code takes where nothing is said
    "crop_scale": 2.3, "crop_vy_ratio": -0.125, "crop_flag_do_rot": True, "emo": 4, "eye_f0_mode": False, "ch_info": None,
    "overlap_v2": 10, "fix_kp_cond": 0, "fix_kp_cond_dim": None, "sampling_timesteps": 50, "online_mode": False,
    "v_min_max_for_clip": None, "smo_k_d": 3, "N_d": -1, "use_d_keys": None, "relative_d": True, "drive_eye": None,
    "delta_eye_arr": None, "delta_eye_open_n": 0, "fade_type": "", "flag_stitching": True, "ctrl_info": {},
    "overall_ctrl_info": {}, "seq_frames": 80, "template_n_frames": -1, "smo_k_s": 13,
}  # fmt: skip


def shown_with(settings, source_of, portrait, latency="balanced", emotion=NEUTRAL, frames=30):
    """Rows under some settings, and what the network was given for every window."""
    inputs = []

    def engine(cond_frame, cond, start, noise):
        inputs.append(cond[0])
        return {"motion": 0.3 * start}

    sampling = Sampling(released=read_released(settings))
    sampler = FullSampler(engine, source_of, SILENCE, ENCODER, sampling, latency)
    return run(sampler, np.zeros((frames, 4), np.float32), portrait, emotion=emotion), inputs


def test_settings_of_how_motion_acts(source_of, portrait):
    plain, _ = shown_with({}, source_of, portrait)
    weak, _ = shown_with({"use_d_keys": {"exp": 0.5, "pitch": 2.0}}, source_of, portrait)
    lips = [3 * k + i for k in LIPS for i in range(3)]
    np.testing.assert_allclose(weak[:, 7:][:, lips], 0.5 * plain[:, 7:][:, lips], atol=1e-6)
    assert not weak[:, [2, 3, 4, 5, 6]].any()
    assert np.abs(weak[:, 1] - plain[:, 1]).max() > 1e-3
    named, _ = shown_with({"use_d_keys": ("exp",)}, source_of, portrait)
    assert not named[:, 1:7].any()
    eyes, _ = shown_with({"drive_eye": False}, source_of, portrait)
    assert not eyes[:, 7:].reshape(-1, 21, 3)[:, [11, 13, 15, 16, 18]].any()
    still, _ = shown_with({"relative_d": False}, source_of, portrait)
    assert np.abs(still[:, 4:7] - plain[:, 4:7]).max() > 1e-3


def test_settings_that_change_every_frame(source_of, portrait):
    plain, _ = shown_with({}, source_of, portrait)
    offset = np.linspace(-0.01, 0.01, 63)
    for control, edit in (
        ({"delta_pitch": 2, "delta_yaw": -3.0}, FrameEdit(turn={"pitch": 2.0, "yaw": -3.0})),
        ({"alpha_roll": 0.5}, FrameEdit(turn_factor={"roll": 0.5})),
        ({"delta_exp": offset}, FrameEdit(expression=offset)),
        ({"vad_alpha": 0.25}, FrameEdit(speaking=0.25)),
    ):
        found, _ = shown_with({"overall_ctrl_info": control}, source_of, portrait)
        sampler = FullSampler(
            lambda cond_frame, cond, start, noise: {"motion": 0.3 * start}, source_of, SILENCE, ENCODER,
            Sampling(steps=50, edit=edit), "balanced",
        )  # fmt: skip
        np.testing.assert_array_equal(found, run(sampler, np.zeros((30, 4), np.float32), portrait))
        assert np.abs(found - plain).max() > 1e-3


def test_settings_of_a_caller():
    check_changes({"emo": [[3]], "fade_type": "d0", "fade_in": 3, "ctrl_info": {3: {"fade_alpha": 0.5}}, "smo_k_s": 5})
    for changes, message in (
        ({"emo": 9}, "a setting is not usable: expected emo to be a whole number, 0 to 7, got 9"),
        ({"crop_scal": 2}, "expected settings of sampling_timesteps, .*, got 'crop_scal'; correct the name"),
        ({"fade_in": 3}, "got fade_in: no effect without fade_type; leave it out"),
        ({"ctrl_info": {3: {"delta_pitch": 91}}}, "expected delta_pitch to be a number, -90 to 90, got 91"),
        ({"max_size": 512}, "got max_size: give it where the portrait is registered"),
    ):
        with pytest.raises(InputError, match=message):
            check_changes(changes)
    rows = np.arange(24.0).reshape(3, 8)
    np.testing.assert_array_equal(read_released({"emo": rows.tolist()}).emotions, rows)  # one row a frame, as from JSON
    fades = {"fade_in", "fade_out", "fade_out_keys"}
    assert set(ReleasedSettings.__annotations__) == {*RELEASED_DEFAULTS, *fades} - {"seq_frames"}


def test_settings_of_the_command_line(tmp_path):
    np.save(tmp_path / "moods.npy", np.eye(8))
    (tmp_path / "more.yaml").write_text("smo_k_s: 5\novergiven: 1\n")
    given = [str(tmp_path / "more.yaml"), f"emo={tmp_path / 'moods.npy'}", "fade_type=s", "overall_ctrl_info.delta_yaw=2"]
    found = parse_settings("online", given)
    np.testing.assert_array_equal(found["changes"].pop("emo"), np.eye(8))
    expected = {"smo_k_s": 5, "overgiven": 1, "fade_type": "s", "overall_ctrl_info": {"delta_yaw": 2}}
    assert found == {"settings": "online", "changes": expected}
    assert parse_settings(None, None) == {"settings": None, "changes": None}
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "bad.yaml").write_text("a: [1")
    for wrong, message in (
        (["words"], "expected --set NAME=VALUE or a file"),
        ([str(tmp_path / "list.json")], "expected settings by name in .*, got list"),
        ([str(tmp_path / "bad.yaml")], "expected settings by name in .*, got: while parsing"),
        ([str(tmp_path / "none.json")], "No such file"),
        (["emo=none.npy"], "expected an array of NumPy in none.npy"),
        (["emo=3", "emo.first=3"], "got a value for emo before"),
    ):
        with pytest.raises(InputError, match=message):
            parse_settings(None, wrong)
    with pytest.raises(InputError, match="expected --settings offline or online, got 'live'"):
        parse_settings("live", None)
    with pytest.raises(InputError, match="expected a full bundle with changes, got the bundle 'lite'"):
        load("lite", changes={"emo": 3})


def test_fades_and_changes_to_single_frames(source_of, portrait):
    plain, _ = shown_with({}, source_of, portrait)
    faded, _ = shown_with({"fade_type": "s", "fade_in": 4, "fade_out": 5}, source_of, portrait)
    np.testing.assert_array_equal(faded[4:25], plain[4:25])  # 25 is the first of the last 5 that fade, from 1 on
    lips = [7 + 3 * k + i for k in LIPS for i in range(3)]
    assert not faded[[0, 29]][:, lips].any() and np.abs(plain[[0, 29]][:, lips]).min(1).max() > 1e-3
    np.testing.assert_array_equal(faded[:, :7], plain[:, :7])  # the head does not fade
    shares = [1.0, 0.8, 0.6, 0.4, 0.2]
    np.testing.assert_allclose(faded[24:29, lips], np.array(shares)[:, None] * plain[24:29, lips], atol=1e-5)
    whole, _ = shown_with({"fade_type": "d0", "fade_out": 5, "fade_out_keys": ["exp", "yaw"]}, source_of, portrait)
    np.testing.assert_allclose(whole[29, lips], plain[0, lips], atol=1e-5)
    assert whole[29, 2] == pytest.approx(plain[0, 2], abs=1e-5) and whole[29, 1] == plain[29, 1]
    settings = {"overall_ctrl_info": {"delta_yaw": 3.0}, "ctrl_info": {"7": {"delta_pitch": 2.0}, 9: {"vad_alpha": 0.0}}}
    changed, _ = shown_with(settings, source_of, portrait)
    np.testing.assert_allclose(changed[:, 2] - plain[:, 2], 3.0, atol=1e-4)
    np.testing.assert_allclose(changed[:, 1] - plain[:, 1], 2.0 * np.eye(1, 30, 7)[0], atol=1e-4)
    assert not changed[9, lips].any() and np.abs(changed[10, lips]).max() > 1e-3


def test_a_fade_at_the_end_waits_for_the_end(source_of, portrait):
    def sampler(**fade):
        sampling = Sampling(released=read_released({"fade_type": "s"} | fade))
        return FullSampler(
            lambda cond_frame, cond, start, noise: {"motion": 0.3 * start}, source_of, SILENCE, ENCODER, sampling, "low"
        )

    assert sampler(fade_out=5).delay_seconds == pytest.approx(sampler(fade_in=5).delay_seconds + 6 / 25)
    whole = run(sampler(fade_out=5), np.zeros((30, 4), np.float32), portrait, block=30)
    np.testing.assert_array_equal(run(sampler(fade_out=5), np.zeros((30, 4), np.float32), portrait), whole)
    assert len(run(sampler(fade_in=3, fade_out=50), np.zeros((10, 4), np.float32), portrait)) == 10


def test_degrees_are_added_as_released(source_of, portrait):
    """The head turns by just so much and the eyes turn back; nothing else of the expression moves."""
    rows = []
    for turn in ({}, {"pitch": 2.0, "yaw": -15.0}):
        sampler = FullSampler(
            lambda cond_frame, cond, start, noise: {"motion": 0.3 * start}, source_of, SILENCE, ENCODER,
            Sampling(edit=FrameEdit(turn=turn)), "balanced",
        )  # fmt: skip
        rows.append(run(sampler, np.zeros((30, 4), np.float32), portrait))
    change = rows[1] - rows[0]
    np.testing.assert_allclose(change[:, 1:4], [[2.0, -15.0, 0.0]] * 30, atol=1e-4)
    assert not change[:, 4:7].any()
    moved = np.abs(change[:, 7:].reshape(-1, 21, 3)).max((0, 2)) > 1e-6
    assert np.flatnonzero(moved).tolist() == [11, 15]


def test_settings_of_blinks(source_of, portrait):
    blinks = np.arange(15)[:, None] * np.full((15, 63), 0.01)
    for given, stretch, waits in ((0, 3000, ()), (4, 3000, (4,)), ([2, 6], 70, (2, 6)), (-1, 3000, (-1,))):
        settings = {"delta_eye_arr": blinks, "delta_eye_open_n": given, "N_d": -1 if stretch == 3000 else stretch}
        rows, _ = shown_with(settings, source_of, portrait, frames=160)
        places = np.concatenate([blink_frames(stretch, waits, seed) for seed in range(3)])[:160]
        np.testing.assert_allclose(rows[:, 7 + 39], 0.01 * places, atol=1e-6)  # keypoint 13, an upper lid
    rows, _ = shown_with({"delta_eye_arr": blinks, "drive_eye": False}, source_of, portrait, frames=160)
    assert not rows[:, 7 + 39].any()
    with pytest.raises(ValueError, match="waits between blinks to be 0 or more"):
        blink_frames(100, (5, -20))


@pytest.mark.parametrize(
    ("emo", "rows"),
    [
        (3, [[3]]),
        ([3, 4], [[3, 4]]),
        ([[3], [4, 5]], [[3], [4, 5]]),
        (np.array([[3.0], [6.0]], np.float32), [[3], [6]]),  # from JSON
        (np.arange(16.0).reshape(2, 8), None),
    ],
)
def test_emotions_of_the_settings_count_where_none_is_asked_for(source_of, portrait, emo, rows):
    expected = np.stack([emotion_of_labels(labels) for labels in rows]) if rows else emo
    _, inputs = shown_with({"emo": emo}, source_of, portrait)
    np.testing.assert_allclose(inputs[-1][0, 4:12], expected[0], rtol=1e-6)
    second = np.concatenate([window[:, 4:12] for window in inputs[-1:]])
    assert {tuple(row) for row in second} <= {tuple(row) for row in expected.astype(np.float32)}
    happy = emotion_vector({"happy": 1.0})
    _, inputs = shown_with({"emo": emo}, source_of, portrait, emotion=happy)
    np.testing.assert_allclose(inputs[-1][5, 4:12], emotion_of_labels(3), rtol=1e-6)


def test_settings_say_the_overlap_of_their_own_kind(source_of, portrait):
    def rules(settings, latency):
        sampling = Sampling(released=read_released(settings))
        return FullSampler(lambda **_: {}, source_of, SILENCE, ENCODER, sampling, latency).rules.overlap

    recording, stream = {"overlap_v2": 60, "online_mode": False}, {"overlap_v2": 72, "online_mode": True}
    assert [rules(recording, latency) for latency in ("quality", "balanced", "low")] == [60, 70, 75]
    assert [rules(stream, latency) for latency in ("quality", "balanced", "low")] == [10, 72, 75]
    rows, inputs = shown_with(recording, source_of, portrait, latency="quality", frames=100)
    assert len(rows) == 100
    assert len(inputs) == 1 + 5  # silence, and windows at 0, 20, 40, 60, 80


@pytest.mark.parametrize(("overlap", "smoothing"), [(0, 3), (10, 13), (41, 3), (60, 5), (79, 3), (79, 80)])
def test_a_sampler_tells_the_delay_of_any_overlap(source_of, portrait, overlap, smoothing):
    sampling = Sampling(released=Released(overlap=overlap, smoothing=smoothing))
    sampler = FullSampler(
        lambda cond_frame, cond, start, noise: {"motion": start}, source_of, SILENCE, ENCODER, sampling
    )
    state, given, late = sampler.begin(portrait), 0, 0
    for frame in range(0, 250, 5):  # features come five at a time, two frames late
        rows, state = sampler(np.zeros((5, 4), np.float32), NEUTRAL, state)
        if len(rows):
            late = max(late, frame + 5 + 2 - given)
        given += len(rows)
    assert sampler.delay_seconds == pytest.approx(late / 25)


def test_settings_of_a_reference_with_many_frames_and_of_the_crop(portrait):
    lids, gaze = np.random.default_rng(0).random((3, 1, 2)), np.random.default_rng(1).random((3, 1, 6))
    character = settings_of()["ch_info"] | {
        "eye_open_lst": list(lids),
        "eye_ball_lst": list(gaze),
        "sc": np.full(63, 0.5),
    }
    reference = read_released({"ch_info": character}).reference
    np.testing.assert_allclose(reference.condition.eye_open, lids[:, 0], rtol=1e-6)
    np.testing.assert_allclose(reference.condition.canonical, 0.5)
    first = read_released({"ch_info": character, "eye_f0_mode": True}).reference
    np.testing.assert_allclose(first.condition.eye_ball, gaze[:1, 0], rtol=1e-6)
    framing = read_released({"crop_scale": 3.0, "crop_vy_ratio": -0.2, "crop_flag_do_rot": False}).framing
    assert framing == Framing(512, 3.0, 0.2, False)
    near, far = (reader(framing=f)(portrait).crop_to_picture for f in (Framing(512, 2.3, 0.125), framing))
    sides = [np.sqrt(np.linalg.det(matrix[:2, :2])) for matrix in (near, far)]
    assert sides[1] / sides[0] == pytest.approx(3.0 / 2.3, rel=0.2)  # the box is another where the crop stands upright


def test_silence_closes_lips_and_leaves_the_rest():
    spoken, _ = keypoints_of(FrameEdit())
    silent, _ = keypoints_of(FrameEdit(speaking=0.0))
    changed = np.flatnonzero(np.abs(silent - spoken).max(1) > 1e-9)
    assert changed.tolist() == sorted(LIPS)
    frozen, _ = keypoints_of(FrameEdit(speaking=0.0), RetargetOptions(silence="all"))
    assert len(np.flatnonzero(np.abs(frozen - spoken).max(1) > 1e-9)) > len(LIPS)


def test_expression_of_all_keypoints_when_asked():
    source, motion, origin = vectors()
    for keypoints, moved in (("lips", 6), ("lips and eyes", 11), ("all", 21)):
        retarget = RetargetOptions(keypoints=keypoints, hold_gaze=False)
        change = retarget_motion(source, motion, origin, retarget).exp - split_motion(source)["exp"]
        assert np.count_nonzero(np.abs(change).reshape(21, 3).max(1) > 1e-9) == moved


@pytest.mark.parametrize("relative", [True, False])
def test_strength_acts_on_expression_and_angles_alone(relative):
    """As released: scale and t keep their factors (`_set_scale_ratio` there)."""
    source, motion, origin = vectors()
    factors = {"exp": 0.5, "pitch": 0.8, "yaw": 1.0, "roll": 1.2, "t": 0.7, "scale": 0.6}
    options = RetargetOptions(relative, factors, "all", 1.7, hold_gaze=False)
    found = retarget_motion(source, motion, origin, options)
    still, moved, first = (split_motion(vector) for vector in (source, motion, origin))
    expected = {}
    for name, factor in factors.items():
        amount = factor * (1.0 if name in ("scale", "t") else 1.7)
        expected[name] = still[name] + amount * (moved[name] - first[name]) if relative else amount * moved[name]
    assert found.scale == pytest.approx(float(expected["scale"][0]), abs=1e-12)
    np.testing.assert_allclose(found.t, expected["t"], atol=1e-12)
    np.testing.assert_allclose(found.exp, expected["exp"], atol=1e-12)
    np.testing.assert_allclose(
        found.degrees, [degrees_of(expected[name]) for name in ("pitch", "yaw", "roll")], atol=1e-9
    )


def test_angles_fade_in_degrees():
    angles = ("pitch", "yaw", "roll")
    _, whole = keypoints_of(FrameEdit())
    _, half = keypoints_of(FrameEdit(opacity=0.5, faded=angles))
    _, none = keypoints_of(FrameEdit(opacity=0.0, faded=angles))
    np.testing.assert_allclose(half.degrees, (whole.degrees + none.degrees) / 2, atol=1e-9)
    _, bins = keypoints_of(FrameEdit(opacity=0.5, faded=angles), RetargetOptions(angles="logits"))
    assert np.abs(bins.degrees - half.degrees).max() > 0.01
    _, mixed = keypoints_of(FrameEdit(turn={"yaw": 4.0}, opacity=0.5, faded=angles), RetargetOptions(angles="logits"))
    assert np.isfinite(mixed.degrees).all()  # a turned angle is in degrees, the source's in logits


def plain_smooth(motion, first, stop, width):
    """Averages as the released code takes them, from a copy of the motion; scale, angles and t alone."""
    if width <= 1:
        return
    before, half = motion.copy(), width // 2
    for i in range(first, stop):
        motion[i, :202] = before[max(0, i - half) : i + half + 1, :202].mean(0)


def plain_windows(sample, windows, source, rules, fused):
    """The motion after each of some windows of conditions (80, D), joined as the released code does: all of it kept."""
    hop, known, motion = 80 - rules.overlap, source, None
    for number, conditions in enumerate(windows, 1):
        window = np.asarray(sample(known, conditions), np.float64)
        if motion is None:
            motion = window.copy()
            plain_smooth(motion, 0, 80, rules.smoothing)
        else:
            for i in range(fused):
                share, row = i / fused, len(motion) - fused + i
                motion[row] = motion[row] * (1 - share) + window[rules.overlap - fused + i] * share
            motion = np.concatenate([motion, window[rules.overlap :]])
            plain_smooth(motion, len(motion) - hop - fused, len(motion) - hop + 1, rules.smoothing)
        known = motion[len(motion) - rules.overlap - 1]
        if rules.reset_every and number % rules.reset_every == 0:
            known, before = source.copy(), known
            if rules.reset_keeps is not None:
                known[rules.reset_keeps] = before[rules.reset_keeps]
        yield motion


def wavy(known, conditions):
    """Motion that depends on every condition and on what is known, and differs from frame to frame."""
    base = np.sin(np.outer(conditions[:, 0] + np.arange(80), np.arange(1, 266) * 0.37))
    return (base + 0.4 * np.asarray(known)[None]).astype(np.float32)


def padded(rows):
    return np.concatenate([rows, np.repeat(rows[-1:], 80 - len(rows), 0)])


SOURCE = np.linspace(-1, 1, PACKED_SIZE, dtype=np.float32)
RULES = [
    *(WindowRules(overlap) for overlap in range(80)),
    *(WindowRules(overlap, smoothing) for overlap in (0, 10, 41, 79) for smoothing in (0, 1, 2, 13, 80)),
    *(WindowRules(overlap, 3, 2, keeps) for overlap in (0, 10, 60, 79) for keeps in (None, slice(0, 202))),
]


@pytest.mark.parametrize("rules", RULES, ids=str)
def test_a_recording_is_joined_as_released_whatever_the_overlap(rules):
    hop = 80 - rules.overlap
    for frames in (1, 79, 81, 80 + hop, 171):
        conditions = np.random.default_rng(frames).standard_normal((frames, 2)).astype(np.float32)
        starts = range(0, frames, hop)
        windows = [padded(conditions[start : start + 80]) for start in starts]
        *_, expected = plain_windows(wavy, windows, SOURCE.astype(np.float64), rules, rules.overlap)
        expected = expected[:frames]
        plain_smooth(expected, 0, frames, rules.smoothing)
        whole = recording_motion(wavy, conditions, SOURCE, rules)
        np.testing.assert_allclose(whole, expected, atol=2e-4)  # float32 against float64 over 171 windows
        state, pieces = start_recording(SOURCE, 2, rules), []
        for first in range(0, frames, 7):
            motion, state = advance_recording(
                state, conditions[first : first + 7], wavy, SOURCE, rules, final=first + 7 >= frames
            )
            pieces.append(motion)
        np.testing.assert_array_equal(np.concatenate(pieces), whole)


@pytest.mark.parametrize("overlap", range(40, 80))
def test_a_stream_is_joined_as_released_whatever_the_overlap(overlap):
    rules, hop = WindowRules(overlap, 5), 80 - overlap
    fused, frames = min(overlap, hop), 3 * hop + 1
    conditions = np.random.default_rng(overlap).standard_normal((frames, 2)).astype(np.float32)
    silence = np.zeros((overlap, 2), np.float32)
    everything = np.concatenate([silence, conditions])
    windows = [padded(everything[start : start + 80]) for start in range(0, frames // hop * hop + 1, hop)]
    expected, given = [], 80 - fused
    for number, motion in enumerate(plain_windows(wavy, windows, SOURCE.astype(np.float64), rules, fused)):
        if number:
            expected.append(motion[given : given + hop].copy())
            given += hop
    expected.append(motion[given:])  # no window comes after the last, so its end stays as it is
    live, found = start_stream(SOURCE, silence, rules), []
    for first in range(0, frames, 5):
        motion, live = advance_stream(
            live, conditions[first : first + 5], wavy, SOURCE, rules, final=first + 5 >= frames
        )
        found.append(motion)
    found, expected = np.concatenate(found), np.concatenate(expected)
    assert len(found) >= frames
    np.testing.assert_allclose(found, expected, atol=2e-4)


@pytest.mark.parametrize(
    "fields",
    [
        {"overlap": -1}, {"overlap": 80}, {"overlap": 10.0}, {"smoothing": -1}, {"smoothing": 81}, {"reset_every": -1},
        {"reset_keeps": slice(202, 0)}, {"reset_keeps": slice(0, 266)}, {"reset_keeps": slice(-3, 9)},
    ],
)  # fmt: skip
def test_window_rules_out_of_range_are_refused(fields):
    with pytest.raises(ValueError, match=f"expected {next(iter(fields))} to be"):
        start_recording(SOURCE, 2, WindowRules(**fields))


@pytest.mark.parametrize("frames", [1, 69, 70, 80, 149, 150, 151, 231])
def test_a_recording_in_pieces_is_the_recording(frames):
    def sample(known, conditions):
        return np.sin(conditions[:, :1] * np.arange(1, 266) + known).astype(np.float32)

    conditions = np.random.default_rng(1).standard_normal((frames, 3)).astype(np.float32)
    source, rules = np.zeros(PACKED_SIZE), WindowRules()
    whole = recording_motion(sample, conditions, source, rules)
    assert whole.shape == (frames, PACKED_SIZE)
    state, pieces = start_recording(source, 3, rules), []
    for first in range(0, frames, 7):
        last = first + 7 >= frames
        motion, state = advance_recording(state, conditions[first : first + 7], sample, source, rules, final=last)
        pieces.append(motion)
    np.testing.assert_array_equal(np.concatenate(pieces), whole)


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        (Sampling, {"schedule": "float46"}),
        (Sampling, {"noise": "new"}),
        (Sampling, {"origin": "last"}),
        (RetargetOptions, {"keypoints": "brows"}),
        (RetargetOptions, {"silence": "none"}),
        (RetargetOptions, {"angles": "radians"}),
        (RetargetOptions, {"factors": {"expression": 1.0}}),
        (FrameEdit, {"turn": {"nod": 1.0}}),
        (FrameEdit, {"turn_factor": {"exp": 1.0}}),
        (FrameEdit, {"faded": ("eyes",)}),
    ],
)
def test_unknown_choices_are_refused(options, fields):
    with pytest.raises(ValueError, match=f"expected {next(iter(fields))} to (be one|have names) of .*, got "):
        options(**fields)


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        (Sampling, {"steps": 0}),
        (Sampling, {"steps": 1001}),
        (Sampling, {"steps": 2.5}),
        (Sampling, {"guidance": float("nan")}),
        (RetargetOptions, {"factors": {"exp": float("inf")}}),
        (RetargetOptions, {"strength": float("nan")}),
        (FrameEdit, {"speaking": 1.5}),
        (FrameEdit, {"opacity": float("nan")}),
        (FrameEdit, {"turn": {"pitch": float("nan")}}),
        (FrameEdit, {"expression": np.full(63, np.inf)}),
        (FrameEdit, {"blink": np.full(63, np.nan)}),
    ],
)
def test_numbers_out_of_their_range_are_refused(options, fields):
    with pytest.raises(ValueError, match=f"expected {next(iter(fields))} to be .*, got "):
        options(**fields)
