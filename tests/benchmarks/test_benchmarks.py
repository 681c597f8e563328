"""The measures of the benchmarks measure what they claim."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from footage import write_video
from wav import write_wav

import ditto
from benchmarks import blendshapes, kernels, life, lips, measures, natural, render, sheet
from benchmarks._motions import style_option
from benchmarks._report import ROOT, Figure, figures_table, json_line, number, publish, rows_table
from benchmarks.faces import grid_holdout, spread
from ditto.errors import InputError
from ditto.lite.phones import PHONE_INDEX, PHONES
from ditto.motion.motion import Motion, rotation_matrix
from ditto.motion.space import LITE_SPACE
from ditto.portrait.face_mesh import RIGHT_EYE, TEMPLATE, keypoints
from ditto.portrait.portrait import Portrait
from ditto.row_performer import NoPictures, RowPerformer
from ditto.talking_head import TalkingHead

WIDTH_PX = 200.0


def posed(degrees=(0.0, 0.0, 0.0), open_fu=0.0, lid_fu=0.0):
    """The template face in a 512 crop, its lower lip down by `open_fu`, its right upper lid down by `lid_fu`."""
    face = TEMPLATE.copy()
    face[[14, 87, 317], 1] += open_fu
    face[RIGHT_EYE.upper[1:-1], 1] += lid_fu
    return WIDTH_PX * face @ rotation_matrix(*degrees) + [256.0, 256.0, 0.0]


def test_openings_are_face_widths_and_hold_under_roll():
    base, opened = posed(), posed(open_fu=0.1)
    width = measures.face_width(base)
    assert width == pytest.approx(WIDTH_PX, rel=0.02)
    change = measures.lip_opening(opened) - measures.lip_opening(base)
    assert change == pytest.approx(0.1, rel=0.02)
    rolled = measures.lip_opening(posed((0, 0, 25), 0.1)) - measures.lip_opening(posed((0, 0, 25)))
    assert rolled == pytest.approx(change, rel=0.02)
    # one of two lids comes down: the mean falls by half
    assert measures.lid_opening(base) - measures.lid_opening(posed(lid_fu=0.04)) == pytest.approx(0.02, rel=0.02)


def test_landmark_errors_see_a_shift_and_an_opening():
    base = posed()
    shifted = measures.landmark_errors(base + [3.0, 4.0, 9.0], base, WIDTH_PX)
    assert shifted.everything == pytest.approx(5 / WIDTH_PX)
    assert shifted.lips == pytest.approx(5 / WIDTH_PX)
    assert shifted.gap == pytest.approx(0.0, abs=1e-9)
    opened = measures.landmark_errors(posed(open_fu=0.05), base, WIDTH_PX)
    assert opened.gap == pytest.approx(0.05, rel=0.02)
    assert opened.lid == pytest.approx(0.0, abs=1e-9)
    assert 0 < opened.lips < 0.05
    assert measures.landmark_errors(posed(lid_fu=0.03), base, WIDTH_PX).lid == pytest.approx(0.015, rel=0.02)


def test_identity_drift_ignores_pose_and_speech_but_not_shape():
    assert measures.identity_drift(posed((8, -10, 5), open_fu=0.1), posed()) == pytest.approx(0.0, abs=5e-3)
    wider = TEMPLATE * [1.1, 1.0, 1.0] * WIDTH_PX + [256.0, 256.0, 0.0]
    assert measures.identity_drift(wider, posed()) > 0.01


def test_oval_mask_covers_the_face():
    mask = measures.oval_mask(posed(), 512)
    points = posed()
    for landmark, inside in ((1, 1), (14, 1), (468, 1)):
        x, y = points[landmark, :2].round().astype(int)
        assert mask[y, x] == inside
    assert mask[256, 256 + int(WIDTH_PX * 0.7)] == 0
    assert mask[5, 256] == 0
    assert 0.6 * WIDTH_PX**2 < mask.sum() < 1.5 * WIDTH_PX**2


def picture(seed=0, size=48):
    return np.random.default_rng(seed).integers(40, 216, (size, size, 3)).astype(np.uint8)


def test_psnr_is_20_log10_and_looks_under_the_mask_only():
    a = picture()
    b = a + np.uint8(5)
    assert measures.psnr(a, b) == pytest.approx(20 * math.log10(255 / 5))
    assert measures.psnr(a, a) == 100.0
    mask = np.zeros((48, 48))
    mask[:24] = 1
    c = a.copy()
    c[24:] = 0
    assert measures.psnr(a, c, mask) == 100.0
    c[:24] = a[:24] + np.uint8(2)
    assert measures.psnr(a, c, mask) == pytest.approx(20 * math.log10(255 / 2))


def test_sharpness_falls_with_blur_and_rises_with_contrast():
    a, mask = picture(), np.ones((48, 48))
    blurred = (a.astype(np.float64) + np.roll(a, 1, 0) + np.roll(a, 1, 1) + np.roll(a, (1, 1), (0, 1))) / 4
    assert measures.sharpness_ratio(blurred.astype(np.uint8), a, mask) < 0.6
    assert measures.sharpness_ratio(a, a, mask) == 1.0
    assert measures.sharpness_ratio((a // 2).astype(np.uint8), a, mask) == pytest.approx(0.5, rel=0.02)


def test_flicker_is_zero_for_a_steady_ramp_and_counts_trembling():
    mask = np.ones((8, 8))
    ramp = [np.full((8, 8, 3), 20 + 3 * i, np.uint8) for i in range(6)]
    tremble = [np.full((8, 8, 3), 20 + 3 * (i % 2), np.uint8) for i in range(6)]
    assert measures.flicker(ramp, mask) == pytest.approx(0.0, abs=1e-9)
    assert measures.flicker(tremble, mask) == pytest.approx(6.0)
    with pytest.raises(ValueError, match="at least 3"):
        measures.flicker(ramp[:2], mask)


def test_smoothing_keeps_what_is_steady_and_takes_out_noise():
    assert measures.smoothed(np.full((9, 2), 3.0), 1.5) == pytest.approx(np.full((9, 2), 3.0))
    noise = np.random.default_rng(3).standard_normal((400, 1))
    assert measures.smoothed(noise, 1.5).std() < 0.5 * noise.std()


def test_largest_difference_does_not_wrap():
    a = np.zeros((2, 2, 3), np.uint8)
    b = a.copy()
    b[1, 1, 2] = 255
    assert measures.largest_difference(a, b) == 255


SPEECH = [(0.5, 0.62, "B"), (0.62, 0.9, "AA"), (0.9, 1.0, "SIL"), (1.0, 1.2, "M")]
SEGMENTS = [(0.0, 0.5, "SIL"), *SPEECH, (1.2, 2.0, "SIL")]


def test_visemes_are_scored_strictly_with_and_without_silence():
    phones = measures.labels_at(SEGMENTS, (np.arange(100) + 0.5) / 50)
    assert [PHONES[i] for i in phones[[0, 26, 40, 46, 52, 99]]] == ["SIL", "B", "AA", "SIL", "M", "SIL"]
    posteriors = np.eye(len(PHONES))[phones]
    posteriors[phones == PHONE_INDEX["B"]] = np.eye(len(PHONES))[PHONE_INDEX["P"]]  # same viseme
    posteriors[phones == PHONE_INDEX["AA"]] = np.eye(len(PHONES))[PHONE_INDEX["S"]]  # wrong
    scores = measures.viseme_scores(posteriors, phones)
    spoken, vowel = int((phones > 0).sum()), int((phones == PHONE_INDEX["AA"]).sum())
    assert scores.accuracy == pytest.approx(1 - vowel / 100)
    assert scores.accuracy_without_silence == pytest.approx(1 - vowel / spoken)
    assert scores.recall("PBM") == 1.0
    assert scores.recall("A") == 0.0
    assert math.isnan(scores.recall("FV"))
    assert (scores + scores).accuracy == scores.accuracy


def test_a_viseme_wins_by_all_its_phones_together():
    row = np.zeros((1, len(PHONES)))
    row[0, [PHONE_INDEX[p] for p in "PBM"]] = 0.2
    row[0, PHONE_INDEX["S"]] = 0.4
    assert measures.viseme_scores(row, [PHONE_INDEX["M"]]).recall("PBM") == 1.0


def test_unlabelled_frames_are_left_out():
    posteriors = np.eye(len(PHONES))[[3, 4]]
    assert measures.viseme_scores(posteriors, [3, -1]).frames.sum() == 1


def test_correlate_finds_the_lag_and_its_sign():
    curve = np.convolve(np.random.default_rng(1).standard_normal(120), np.hanning(7), "same")
    late = np.roll(curve, 2)
    match = measures.correlate(late[10:110], curve[10:110])
    assert match.lag == 2
    assert match.best == pytest.approx(1.0)
    assert match.zero_lag < 0.9
    assert measures.correlate(curve[10:110], late[10:110]).lag == -2
    assert measures.correlate(-curve, curve, 0).zero_lag == pytest.approx(-1.0)


def test_correlate_leaves_out_lost_frames_and_refuses_too_few():
    curve = np.sin(np.arange(60) / 3)
    lost = curve.copy()
    lost[20:25] = np.nan
    assert measures.correlate(lost, curve).zero_lag == pytest.approx(1.0)
    with pytest.raises(ValueError, match="at least 10"):
        measures.correlate(curve[:12], curve[:12])


def test_opening_is_a_share_of_the_clips_own_range():
    share = measures.in_range(np.linspace(0.02, 0.12, 101))
    assert share[2] == pytest.approx(0.0, abs=1e-9)
    assert share[98] == pytest.approx(1.0)
    assert np.isfinite(measures.in_range(np.full(10, 0.3))).all()


def test_bilabial_frames_and_events():
    frames = measures.bilabial_frames(SEGMENTS, 50)
    assert np.flatnonzero(frames).tolist() == [12, 13, 14, 25, 26, 27, 28, 29]  # middles .50-.62 and 1.0-1.2
    events = measures.bilabial_events(SEGMENTS, 50)
    assert [(e.start, e.stop) for e in events] == [(12, 16), (25, 30)]


def test_pauses_are_long_silences_without_their_edges():
    assert measures.pauses(SEGMENTS) == [(0.0, 0.5), (1.2, 2.0)]
    split = [(0.0, 0.3, "SIL"), (0.3, 0.6, "SIL"), (0.6, 1.0, "AA")]
    assert measures.pauses(split) == [(0.0, 0.6)]
    inside = np.flatnonzero(measures.pause_frames(SEGMENTS, 50, 0.2, 0.12)) / 25
    assert inside.min() >= 0.18
    assert not ((inside > 0.38) & (inside < 1.38)).any()
    assert inside.max() < 1.88


def test_figures_say_met_or_missed_and_a_missing_number_misses():
    assert Figure("a", 0.5, low=0.5).met is True
    assert Figure("a", 1.6, 0.88, 1.5).met is False
    assert Figure("a", float("nan"), low=0.5).met is False
    assert Figure("a", 3.0).met is None
    assert (Figure("a", 1, 0.88, 1.5).bar, Figure("a", 1, high=2).bar) == ("0.88 .. 1.5", "<= 2")


def test_the_json_line_is_one_line_of_valid_json():
    line = json_line("lips", [Figure("r", float("nan"), low=0.5, beside={"RMS": 0.25})], clips=["a"])
    assert "\n" not in line
    body = json.loads(line)
    assert body["figures"]["r"] == {"value": None, "bar": ">= 0.5", "met": False, "RMS": 0.25}
    assert body["clips"] == ["a"]
    assert {"commit", "machine", "versions"} <= body.keys()


def test_the_table_has_every_baseline_as_a_column():
    table = figures_table("t", [Figure("a", 1.0, beside={"RMS": 2.0}), Figure("b", 1.0)])
    assert [c.header for c in table.columns] == ["figure", "ours", "RMS", "bar", ""]
    assert (number(float("nan")), number(0.01234), number(25.04)) == ("-", "0.0123", "25.0")


def test_a_title_is_one_line_above_the_narrowest_table(capsys):
    publish("b", [], [rows_table("milliseconds of the codec, 16 frames of a block", ("", "ms"), [["encode", 1.5]])])
    assert "milliseconds of the codec, 16 frames of a block" in capsys.readouterr().out.splitlines()


def test_the_grid_holdout_is_every_tenth_clip(tmp_path):
    for i in range(25):
        (tmp_path / f"c{i:02}.mkv").touch()
    assert [p.stem for p in grid_holdout(tmp_path)] == ["c09", "c19"]
    assert [p.stem for p in spread(sorted(tmp_path.iterdir()), 3)] == ["c00", "c12", "c24"]


def template_portrait():
    landmarks = posed()
    crop = np.full((512, 512, 3), 128, np.uint8)
    return Portrait(
        picture=crop,
        alpha=None,
        crop=crop,
        crop_to_picture=np.eye(3),
        landmarks=landmarks,
        mask=np.ones((512, 512), np.float32),
        canonical_keypoints=keypoints(TEMPLATE),
        scale=WIDTH_PX / 256,
        rotation=np.eye(3),
        translation=np.zeros(3),
        expression=np.zeros((21, 3)),
        eye_open=np.full(2, 0.3, np.float32),
        eye_ball=np.zeros(6, np.float32),
    )


def loudness_motion(samples):
    """(T,) mouth gap of the loudness mouth on the streaming path."""
    head = TalkingHead(None, RowPerformer(lips.LoudnessEncoder(), lips.LoudnessMouth(), NoPictures(), LITE_SPACE))
    frames = list(head.animate(template_portrait(), samples))
    deltas = np.stack([f.motion.expression for f in frames])
    return deltas[:, 17, 1] - deltas[:, 14, 1]


def test_the_loudness_mouth_follows_the_level_in_time_with_it():
    rng = np.random.default_rng(2)
    samples = (rng.standard_normal(3 * 16000) * 0.1).astype(np.float32)
    samples[16000:32000] = 0.0
    gap = loudness_motion(samples)
    assert len(gap) == 75
    assert gap[10:25].mean() > 0.08  # loud: nearly the widest gap
    assert gap[30:50].max() < 0.01
    assert gap[55:].mean() > 0.08
    assert gap[24] > 0.05 > gap[26]  # it closes where the sound stops, not a hop later
    quieter = loudness_motion(samples * 0.05)
    assert np.abs(quieter[50:] - gap[50:]).mean() < 0.02  # the level of the recording does not matter


def test_closures_count_frames_events_and_pauses():
    curve = np.full(50, 0.1)
    curve[:12] = 0.0  # the first pause is closed, the last open
    curve[13:15] = 0.0  # B: frames 12-14, closed from 13 on
    found = lips.closures([curve], [SEGMENTS])
    assert found.bilabial_frames == pytest.approx(2 / 8)
    assert found.bilabial_events == pytest.approx(1 / 2)
    assert found.pauses == pytest.approx(1 / 2)
    lost = np.where(np.arange(50) < 12, np.nan, curve)
    assert lips.closures([lost], [SEGMENTS]).pauses == 0.0  # frames without a face do not count as closed


def test_word_onsets_count_only_words_that_begin_closed():
    opening = np.full(75, 0.1)
    opening[[24, 25, 26, 70]] = 0.0
    words = [(1.0, 1.2, "bin"), (1.4, 1.5, "red"), (2.0, 2.2, "please")]
    assert lips.onsets_closed(opening, words) == [True, False]


def test_moments_are_where_the_sound_is_heard_most_clearly():
    posteriors = np.zeros((40, len(PHONES)))
    posteriors[:, 0] = 1.0
    posteriors[20:22, [0, PHONE_INDEX["M"]]] = (0.2, 0.8)
    posteriors[30:32, [0, PHONE_INDEX["AA"]]] = (0.1, 0.9)
    moments = sheet.choose(posteriors)
    assert moments["p b m"] == 10
    assert moments["open"] == 15


def test_the_pause_looked_at_is_the_longest_inside():
    heard = heard_as(*["SIL"] * 9, "AA", *["SIL"] * 2, "B", *["SIL"] * 5, "AA", *["SIL"] * 8)
    assert sheet.choose_pause(np.repeat(heard, 2, 0)) == 12  # the frame of the B before five of silence
    assert sheet.choose_pause(np.repeat(heard_as("AA", "B"), 2, 0)) == 0


def test_lid_closure_is_a_share_of_the_portraits_own_aperture():
    portrait = template_portrait()
    compact = np.zeros((3, 70), np.float32)
    lids = compact[:, 7:].reshape(3, 21, 3)
    lids[1, [13, 16], 1] = 0.5 * 0.074  # half the template's aperture: half shut on every face
    lids[2, [13, 16], 1] = 0.074
    assert sheet.lid_closure(portrait, Motion(compact)) == pytest.approx([0.0, 0.5, 1.0], abs=0.01)


def test_window_keeps_its_size_beyond_the_border():
    image = np.arange(100, dtype=np.uint8).reshape(10, 10)[..., None].repeat(3, -1)
    assert sheet.window(image, np.array([0.0, 9.0]), 8, 6).shape == (6, 8, 3)
    assert sheet.window(image, np.array([5.0, 5.0]), 2, 2)[0, 0, 0] == 44


def test_watched_ops_see_every_call_and_are_put_back():
    from ditto import ops

    names = list(ops.__all__)
    wrappers = [getattr(ops, name) for name in names]
    seen = []
    with kernels.watched_ops(lambda name, wrapper, arguments, keywords: seen.append((name, arguments))):
        getattr(ops, names[0])(1, 2)
    assert seen == [(names[0], (1, 2))]
    assert [getattr(ops, name) for name in names] == wrappers


def test_arrays_in_looks_through_nested_results():
    a, b = np.zeros(1), np.ones(2)
    assert [x.size for x in kernels.arrays_in((a, [b, None, "x"]))] == [1, 2]


def heard_as(*phones):
    """(T, 40) probabilities of phones heard with certainty, one a frame."""
    posteriors = np.zeros((len(phones), len(PHONES)))
    posteriors[np.arange(len(phones)), [PHONE_INDEX[phone] for phone in phones]] = 1.0
    return posteriors


def test_mouth_width_is_face_widths_and_holds_when_the_head_turns():
    straight, turned = posed(), posed((0.0, 30.0, 0.0))
    width = measures.mouth_width(straight)
    assert 0.2 < width < 0.6
    assert measures.mouth_width(turned) == pytest.approx(width, abs=1e-6)
    wider = straight.copy()
    wider[291, 0] += 0.1 * WIDTH_PX
    assert measures.mouth_width(wider) == pytest.approx(width + 0.1, abs=2e-3)


def test_z_scores_leave_lost_frames_out():
    z = measures.z_scores([1.0, np.nan, 3.0])
    np.testing.assert_allclose(z, [-1.0, np.nan, 1.0])


def test_phone_means_weigh_by_probability_where_it_is_above_one_half():
    posteriors = np.zeros((4, len(PHONES)))
    posteriors[:, PHONE_INDEX["AA"]] = [0.6, 0.9, 0.4, 1.0]
    found = measures.PhoneMeans.of([1.0, 2.0, 100.0, np.nan], posteriors)
    assert found.means() == {"AA": pytest.approx((0.6 * 1 + 0.9 * 2) / 1.5)}  # neither the unsure nor the lost frame
    assert found.means(3) == {}
    assert (found + found).means(4) == found.means()


def test_agreement_of_means_is_over_common_phones_and_may_be_weighted():
    expected = {"AA": 1.0, "B": -1.0, "S": 0.0, "T": 0.3}
    assert measures.agreement_of_means({"AA": 3.0, "B": -1.0, "S": 1.0}, expected) == pytest.approx(1.0)
    found = {"AA": 1.0, "B": -1.0, "S": 0.0, "T": 9.0}  # one phone is far off
    plain = measures.agreement_of_means(found, expected)
    light = measures.agreement_of_means(found, expected, {"AA": 1.0, "B": 1.0, "S": 1.0, "T": 1e-9})
    assert plain < 0.4
    assert light == pytest.approx(1.0, abs=1e-5)
    assert np.isnan(measures.agreement_of_means({"AA": 1.0, "B": 2.0}, expected))


def test_pauses_inside_have_speech_on_both_sides():
    heard = heard_as(*["SIL"] * 3, *["AA"] * 4, *["SIL"] * 5, *["B"] * 2, *["SIL"] * 6)
    assert measures.pauses_inside(heard) == [slice(7, 12)]


def test_resampling_keeps_time_and_whole_frames():
    times = (np.arange(90) + 0.5) / 30.0
    at_25 = measures.resampled(np.stack([times, -times], -1), 30.0)
    assert at_25.shape == (75, 2)
    np.testing.assert_allclose(at_25[1:-1, 0], measures.frame_times(75)[1:-1])
    assert len(measures.resampled(np.zeros(115), 29.97)) == 95


def test_late_sound_is_moved_to_its_frames():
    landmarks = np.zeros((60, 478, 3))
    samples = np.arange(2 * 16000, dtype=np.float32)
    found, sound = natural.in_time(landmarks, samples, 30.0, 2)
    assert sound[0] == round(2 / 30 * 16000)
    assert len(sound) == 640 * len(found)
    assert len(found) == 48  # 50 frames of video, but sound for 48
    same, _ = natural.in_time(landmarks[:50], samples, 25.0, 0)
    np.testing.assert_array_equal(same, landmarks[:50])


def talking(frames=120, seed=3):
    """A mouth with pauses closed and open, and the phones heard in it."""
    rng = np.random.default_rng(seed)
    phones = (["AA"] * 6 + ["S"] * 6 + ["B"] * 4 + ["T"] * 4) * (frames // 20)
    opening = np.array([{"AA": 0.12, "S": 0.06, "B": 0.0, "T": 0.07}[p] for p in phones]) + 0.002 * rng.random(frames)
    phones[40:46], opening[40:46] = ["SIL"] * 6, 0.06
    phones[60:75], opening[60:75] = ["SIL"] * 15, 0.0
    return natural.Mouth(opening, 0.4 + 0.1 * rng.random(frames)), heard_as(*phones)


def test_talk_figures_of_a_mouth_against_itself():
    mouth, heard = talking()
    expected = natural.Statistics({"AA": 1.5, "S": 0.0, "B": -1.5, "T": 0.2}, {"AA": 9, "S": 9, "B": 9, "T": 9})
    found = natural.talk_figures([mouth], [heard], expected, [mouth])
    assert (found.opening, found.width, found.zero_lag, found.lag) == pytest.approx((1.0, 1.0, 1.0, 0.0))
    assert found.phones > 0.95
    z = measures.z_scores(mouth.opening)
    assert found.pauses == pytest.approx((z[40:46].mean(), z[60:75].mean(), (z[40:46].mean() + z[60:75].mean()) / 2))
    assert found.closed == found.closed_of_range == pytest.approx(np.mean(mouth.opening < 0.01))
    assert found.bilabials == 1.0
    assert natural.pause_counts([heard]) == [1, 1, 2]


def test_talk_figures_see_a_mouth_that_comes_late_and_one_that_never_closes():
    mouth, heard = talking()
    expected = natural.Statistics({"AA": 1.0, "S": 0.0, "B": -1.0}, {"AA": 9, "S": 9, "B": 9})
    late = natural.Mouth(np.roll(mouth.opening, 3), mouth.width)
    found = natural.talk_figures([late], [heard], expected, [mouth])
    assert found.lag == 3
    assert found.zero_lag < 0.8 < found.opening
    backwards = natural.Mouth(0.2 - mouth.opening, mouth.width)
    found = natural.talk_figures([backwards], [heard], expected)
    assert found.bilabials == found.closed == 0.0
    assert found.phones < -0.9
    assert np.isnan(found.opening)


def test_the_mouth_before_rendering_is_in_the_head_frame():
    rows = np.zeros((1, 70), np.float32)
    turn = rotation_matrix(10.0, 25.0, -5.0)
    points = np.zeros((21, 3))
    points[17, 1], points[14, 1], points[12, 0], points[6, 0] = 0.05, -0.01, 0.02, -0.02
    rows[0, 1:4], rows[0, 7:] = (10.0, 25.0, -5.0), (points @ turn).reshape(-1)
    mouth = natural.Mouth.before_rendering(LITE_SPACE, template_portrait(), [Motion(rows[0])])
    assert mouth.opening == pytest.approx([0.06], abs=1e-6)
    assert mouth.width == pytest.approx([0.04], abs=1e-6)


def test_closed_after_the_last_word_counts_from_a_second_on():
    opening = np.r_[np.tile([0.0, 0.1], 25), np.full(20, 0.1), np.zeros(30)]  # closes at 2.8 s
    assert lips.closed_after(opening, 1.8, 50)
    assert not lips.closed_after(opening, 1.7, 50)
    assert not lips.closed_after(np.r_[opening[:-1], np.nan], 1.8, 50)  # a lost face is not closed


def test_a_style_is_passed_on_only_where_streams_have_one(monkeypatch):
    assert style_option(None) == {}
    monkeypatch.setattr(TalkingHead, "stream", lambda self, portrait, *, style="natural": None)
    assert style_option("lively") == {"style": "lively"}
    assert style_option("0.7") == {"style": 0.7}
    monkeypatch.setattr(TalkingHead, "stream", lambda self, portrait: None)
    with pytest.raises(InputError, match="got style 'lively'"):
        style_option("lively")


def test_band_rms_of_a_sum_of_sines():
    times = np.arange(12 * 25) / 25.0
    parts = {0.3: 3.0, 0.75: 2.0, 1.5: 1.0, 3.0: 0.5, 6.0: 0.2}  # Hz: amplitude
    curve = sum(a * np.sin(2 * np.pi * f * times + f) for f, a in parts.items())
    for (low, high), amplitude in zip(life.BANDS, parts.values(), strict=True):
        assert measures.band_rms(curve, low, high) == pytest.approx(amplitude / np.sqrt(2), rel=0.1)
    both = measures.band_rms(np.stack([curve, 2 * curve + 5.0], -1), 1.0, 2.0)
    assert both[1] == pytest.approx(2 * both[0])
    drift = measures.band_rms(np.linspace(0.0, 10.0, 300), 1.0, 8.0)
    assert drift < 0.05  # a slow drift is no fast movement
    full = measures.band_rms(curve, 0.0, 13.0)
    assert full == pytest.approx(curve.std())  # Parseval


def test_speed_and_acceleration_are_differences():
    np.testing.assert_allclose(measures.speed([0.0, 1.0, -1.0]), [25.0, 50.0])
    points = np.zeros((4, 2, 3))
    points[2, 1] = (0.3, 0.4, 0.0)
    np.testing.assert_allclose(measures.accelerations(points), [0.5, 1.0])


def head_motion(degrees=None, shut=(), frames=300):
    """(T, 70) head values with angles (T, 3) and lids shut in some frames."""
    rows = np.zeros((frames, 70))
    if degrees is not None:
        rows[:, 1:4] = degrees
    points = rows[:, 7:].reshape(-1, 21, 3)
    points[list(shut), 13, 1] = points[list(shut), 16, 1] = 0.074
    return rows


def test_life_asks_for_something_to_measure_and_for_takes_to_render(capsys, tmp_path):
    network = tmp_path / "face_landmarker.task"
    network.touch()
    nothing = ["--minutes", "0", "--utterances", "0"]
    for words, told in (
        (nothing, "got --minutes 0 and --utterances 0; give one of them above 0"),
        ([*nothing, "--face-landmarker", str(network)], "got --utterances 0 and --rendered 8; give both above 0"),
        (["--minutes", "1e-9"], "expected --minutes 0, or 0.1 and more"),
    ):
        with pytest.raises(SystemExit) as ended:
            life.main(words)
        said = capsys.readouterr().err
        assert ended.value.code == 2 and told in said and said.count("\n") == 1


def test_life_counts_blinks_and_measures_the_head():
    times = np.arange(300) / 25.0
    pitch = 4.0 * np.sin(2 * np.pi * times / 3.0)
    found = life.Life.of(head_motion(np.stack([pitch, 0 * pitch, 2 * pitch], -1), shut=(10, 11, 12, 200)))
    np.testing.assert_allclose(found.std, 4.0 / np.sqrt(2) * np.array([1, 0, 2]), rtol=1e-6)
    np.testing.assert_allclose(found.std_3s, found.std, rtol=1e-6)  # a whole period
    np.testing.assert_allclose(found.range, [8.0, 0.0, 16.0], atol=0.05)
    assert found.bands[0, 0] == pytest.approx(4.0 / np.sqrt(2), rel=0.05)  # 1/3 Hz
    assert found.bands[2:].max() < 0.04 * found.std.max()  # the rest leaks, from the ends
    assert found.speed_p95[0] == pytest.approx(4.0 * 2 * np.pi / 3.0, rel=0.02)
    assert found.blinks == 2
    assert found.acceleration.max() > 0.07  # the lids


def test_a_turning_head_carries_its_expression_along():
    rows = head_motion(np.tile([10.0, 30.0, 0.0], (3, 1)), shut=(0, 1, 2), frames=3)
    turned = LITE_SPACE.from_head(rows, None)
    direct = keypoints(TEMPLATE) @ rotation_matrix(10.0, 30.0, 0.0) + turned[0, 7:].reshape(21, 3)
    np.testing.assert_allclose(life.posed(rows)[0], direct, atol=1e-6)


def test_takes_have_one_length_and_come_from_the_folders_in_turn(tmp_path):
    for folder, count in (("a", 3), ("b", 2)):
        (tmp_path / folder).mkdir()
        for i in range(count):
            write_wav(tmp_path / folder / f"{folder}{i}.wav", np.full(13 * 16000, (i + 1) / 10, np.float32))
    said = life.takes([tmp_path / "a", tmp_path / "b"], 4)
    assert [take.name for take in said] == ["a0", "b0", "a1", "b1"]
    assert {len(take.samples) for take in said} == {12 * 16000}
    assert [take.name for take in life.takes([tmp_path / "a", tmp_path / "b"], 9)] == ["a0", "b0", "a1", "b1", "a2"]


READER = """
import json, sys
height, width = int(sys.argv[2]), int(sys.argv[3])
print(json.dumps({"about": {}}))
number = 0
while len(raw := sys.stdin.buffer.read(height * width * 3)) == height * width * 3:
    c, s = 0.8660254, 0.5
    seen = {"shapes": {"jawOpen": raw[0] / 255}, "rotation": [[1, 0, 0], [0, c, -s], [0, s, c]]}
    print(json.dumps(None if number == 1 else seen))
    number += 1
"""


def test_the_landmarker_runs_in_another_python(tmp_path, monkeypatch):
    reader, model = tmp_path / "reader.py", tmp_path / "model.task"
    reader.write_text(READER)
    model.touch()
    monkeypatch.setattr(blendshapes, "READER", reader)
    frames = [np.full((6, 8, 3), value, np.uint8) for value in (0, 9, 255)]
    seen = blendshapes.see(frames, model, sys.executable)
    assert [None if frame is None else frame.shapes["jawOpen"] for frame in seen] == [0.0, None, 1.0]
    assert blendshapes.fill_head(seen) == pytest.approx(np.tile([30.0, 0.0, 0.0], (3, 1)), abs=1e-4)
    assert blendshapes.spreads([seen]) == {"jawOpen": 0.5}
    with pytest.raises(InputError, match="which is no file"):
        blendshapes.see(frames, tmp_path / "other.task", sys.executable)
    with pytest.raises(InputError, match="expected a Python with the package mediapipe"):
        blendshapes.see(frames, model, str(tmp_path / "no-python"))
    reader.write_text("raise SystemExit('no such package')")
    with pytest.raises(InputError, match=r"got 0 \(no such package"):
        blendshapes.see(frames, model, sys.executable)


@pytest.mark.skipif(not natural.STATISTICS.exists(), reason="the statistics of natural talk lie in ../shared")
def test_head_figures_meet_their_bars_at_the_mean_of_real_talk():
    sources = json.loads(natural.STATISTICS.read_text())["head_pose_degrees_pitch_yaw_roll"]

    def mean(field):
        return np.mean([sources[name][field] for name in life.REAL_SOURCES], axis=0)

    fields = {field: mean(field) for field in life.HEAD_FIELDS}
    bands = np.array([mean(f"band_{low:g}_{high:g}") for low, high in life.BANDS])
    figures = life.head_figures(mean("std"), fields, bands)
    assert [f.name for f in figures if f.met is False] == []
    assert all(f.beside["of real mean"] == pytest.approx(1.0) for f in figures)
    assert all(f.met is False for f in life.head_figures(0.2 * mean("std"), fields, 0.2 * bands) if f.met is not None)


@pytest.mark.parametrize(
    ("benchmark", "words", "said"),
    [
        (life, ("--minutes", "0", "--data"), "expected recordings in"),
        (lips, ("--data",), "expected the folder grid_other in"),
        (render, ("--clips",), "expected a clip or a folder of .mp4 clips"),
    ],
)
def test_data_that_are_not_there_are_told_in_one_line(benchmark, words, said, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        benchmark.main([*words, str(tmp_path)])
    assert ended.value.code == 2 and said in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.skipif(Path(ditto.__file__).parents[1] != ROOT, reason="draws with the checkout's own build")
def test_a_checkout_against_itself_draws_the_same_pictures(capsys):
    render.main(["--against", str(ROOT), "--frames", "2", "--turns", "1"])
    figures = json.loads(capsys.readouterr().out.splitlines()[0])["figures"]
    assert figures["mean difference of their pictures, levels"]["value"] == 0.0
    assert all(figure["value"] > 0.0 for name, figure in figures.items() if "other / this" in name)


def test_a_checkout_that_does_not_draw_is_told_in_one_line(tmp_path, capsys):
    for _ in range(2):  # no checkout, then one that fails
        with pytest.raises(SystemExit) as ended:
            render.main(["--against", str(tmp_path), "--frames", "1"])
        assert ended.value.code == 2
        (tmp_path / "ditto").mkdir(exist_ok=True)
        (tmp_path / "ditto" / "__init__.py").write_text("raise ImportError('not built')")
    said = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert "expected a checkout of ditto, got" in said[0] and "to draw, got exit code 1" in said[1]


@pytest.mark.parametrize("kind", ["text", "sound", "no face"])
def test_a_clip_that_is_none_is_told_in_one_line(kind, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("benchmarks.faces.SCRATCH", tmp_path / "scratch")
    path = tmp_path / "clip.mp4"
    if kind == "text":
        path.write_text("not a video")
    elif kind == "sound":
        path = tmp_path / "sound.wav"
        write_wav(path, np.zeros(16000, np.float32))
    else:
        write_video(path, [np.full((64, 64, 3), i, np.uint8) for i in range(6)])
    with pytest.raises(SystemExit) as ended:
        render.main(["--clips", str(path)])
    assert ended.value.code == 2 and f"expected a video{' with a face' * (kind == 'no face')}" in (
        capsys.readouterr().err.splitlines()[-1]
    )
