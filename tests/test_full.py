"""The full pipeline's parts over tiny networks: what depends on what, and the choices where released code errs."""

import json

import numpy as np
import pytest
from test_mesh import drawn_portrait
from typer.testing import CliRunner
from wav import write_wav

torch = pytest.importorskip("torch", reason="the full pipeline needs torch (pip install ditto[full])")

from checkpoints import TINY, publish  # noqa: E402

from benchmarks.random_bundle import write_random_bundle  # noqa: E402
from ditto import load  # noqa: E402
from ditto.bundle import Bundle  # noqa: E402
from ditto.cli import app  # noqa: E402
from ditto.controls import Controls  # noqa: E402
from ditto.conversion import convert  # noqa: E402
from ditto.emotion import emotion_vector  # noqa: E402
from ditto.errors import BundleError, EngineError, InputError  # noqa: E402
from ditto.full.driving import LIPS, Driving, Edit, drive_motion, split  # noqa: E402
from ditto.full.motion_math import posed_keypoints  # noqa: E402
from ditto.full.pipeline import FullOptions, open_parts  # noqa: E402
from ditto.full.released import read_released  # noqa: E402
from ditto.full.sampler import PACES, FullSampler, Sampling  # noqa: E402
from ditto.full.speech_stream import CachedEncoder  # noqa: E402
from ditto.full.speech_window import SAMPLES_PER_FRAME, window_features  # noqa: E402
from ditto.full.windows import WindowRules, advance_recording, recording_motion, start_recording  # noqa: E402
from ditto.life import CAMERA_HOLD  # noqa: E402
from ditto.live import SegmentEnd  # noqa: E402
from ditto.motion import MOTION_SIZE, TEMPLATE_APERTURE, Motion, rest_motion, rotation_matrix  # noqa: E402
from ditto.talking_head import TalkingHead  # noqa: E402
from ditto.utterance import Utterance  # noqa: E402

NEUTRAL = emotion_vector(None)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    publish(folder)
    return convert(folder, tmp_path_factory.mktemp("bundles") / "full", configs=TINY)


@pytest.fixture(scope="module")
def parts(bundle):
    return open_parts(bundle)


@pytest.fixture(scope="module")
def portrait():
    return drawn_portrait()


def speech_of(frames, seed=0):
    return np.random.default_rng(seed).standard_normal(frames * SAMPLES_PER_FRAME).astype(np.float32) * 0.1


def features_of(encoder, samples):
    """All features of some speech, as a stream gets them."""
    state, found = encoder.initial_state(1), []
    frames = len(samples) // SAMPLES_PER_FRAME
    hops = np.pad(samples, (0, 7 * SAMPLES_PER_FRAME)).reshape(-1, SAMPLES_PER_FRAME)
    for hop in hops:
        features, state = encoder(hop[None], state)
        found += list(features[0])
    return np.array(found[:frames])


def run(sampler, features, portrait, seed=0, block=5, emotion=NEUTRAL):
    state, rows = sampler.begin(portrait, seed), []
    for first in range(0, len(features), block):
        last = first + block >= len(features)
        found, state = sampler(features[first : first + block], emotion, state, final=last)
        rows.append(found)
    return np.concatenate(rows)


def test_source_of_a_portrait(parts, portrait):
    source = parts.renderer.prepare(portrait)
    assert parts.renderer.prepare(portrait) is source
    assert source.volume.shape == (1, TINY["appearance"].channels, TINY["appearance"].depth, 64, 64)
    assert source.motion.shape == (MOTION_SIZE,)
    assert source.condition.canonical.shape == (63,)
    eyes = source.condition.eye_open[0]
    assert 0.5 < eyes.min() <= eyes.max() < 2.0  # the drawn eyes are open
    corner = source.crop_to_picture @ (256, 256, 1)
    assert np.abs(corner[:2] - 256).max() < 60  # the crop's middle is about the face's


def test_rest_is_the_source(parts, portrait):
    source = parts.renderer.prepare(portrait)
    rest = rest_motion(1)[0]
    found = parts.renderer.keypoints(source, rest)
    np.testing.assert_allclose(found, source.keypoints, atol=1e-4)  # angles go through bins
    with pytest.raises(ValueError, match=r"one frame \(265,\), got \(1, 265\)"):
        parts.renderer.drive(portrait, rest_motion(1))


@pytest.mark.parametrize("latency", PACES)
@pytest.mark.parametrize("frames", [3, 57, 170])
def test_any_cutting_of_features_gives_as_many_rows_as_came_in(parts, portrait, latency, frames):
    sampler = parts.sampler.at(latency)
    features = np.random.default_rng(frames).standard_normal((frames, TINY["encoder"].width)).astype(np.float32)
    whole = run(sampler, features, portrait, block=frames)
    assert whole.shape == (frames, 70)
    np.testing.assert_array_equal(run(sampler, features, portrait), whole)
    assert np.isfinite(whole).all()
    assert not whole[:, 0].any()  # the scale is the source's


def test_rows_come_after_the_delay_that_is_told(parts, portrait):
    for latency in PACES:
        sampler = parts.sampler.at(latency)
        encoder, late = parts.encoder, 0
        state, heard, given = sampler.begin(portrait), encoder.initial_state(1), 0
        for frame, hop in enumerate(speech_of(200).reshape(-1, SAMPLES_PER_FRAME)):
            features, heard = encoder(hop[None], heard)
            rows, state = sampler(features[0], NEUTRAL, state)
            if len(rows):
                late = max(late, frame + 1 - given)  # of the first of them: frames from its first sample to now
            given += len(rows)
        assert late / 25 == pytest.approx(sampler.delay_seconds)


def test_seed_and_emotion_and_speech_change_the_motion(parts, portrait):
    sampler = parts.sampler.at("low")
    features = features_of(parts.encoder, speech_of(30))
    first = run(sampler, features, portrait, seed=3)
    np.testing.assert_array_equal(run(sampler, features, portrait, seed=3), first)
    others = (
        run(sampler, features, portrait, seed=4),
        run(sampler, features_of(parts.encoder, speech_of(30, 1)), portrait, seed=3),
        run(sampler, features, portrait, seed=3, emotion=emotion_vector({"happy": 1.0})),
    )
    for other in others:
        assert np.abs(other - first).max() > 1e-6


def test_several_streams_together_are_as_each_alone(parts, portrait):
    sampler, encoder = parts.sampler.at("low"), parts.encoder
    features = [features_of(encoder, speech_of(20, seed)) for seed in (0, 1)]
    jobs = [(block, NEUTRAL, sampler.begin(portrait, seed), True) for seed, block in enumerate(features)]
    for (rows, _), (block, mood, state, final) in zip(sampler.together(jobs), jobs, strict=True):
        np.testing.assert_array_equal(rows, sampler(block, mood, state, final)[0])

    hops = speech_of(16).reshape(2, 8, SAMPLES_PER_FRAME)
    alone, together = [encoder.initial_state(1)] * 2, [encoder.initial_state(1)] * 2
    for frame in range(8):
        found = encoder.together(hops[:, frame], together)
        for i in range(2):
            wanted, alone[i] = encoder(hops[i, frame][None], alone[i])
            np.testing.assert_array_equal(found[i][0], wanted[0])
        together = [state for _, state in found]


def test_streams_of_speech_are_what_windows_of_it_are(parts):
    samples = speech_of(10)
    padded = np.pad(samples, (2000, 6480))
    network = parts.encoder.network
    wanted = [window_features(network, padded[None, start : start + 6480])[0] for start in (0, 3200)]
    np.testing.assert_array_equal(features_of(parts.encoder, samples), np.concatenate(wanted))


def test_a_frame_is_drawn_and_pasted_back(parts, portrait):
    source = parts.renderer.prepare(portrait)
    paste_back = parts.renderer.paste_back(portrait)
    moved = np.zeros(70, np.float32)
    moved[1:7] = 5.0, 10.0, -5.0, 0.2, -0.1, 0.0
    crops = [parts.renderer.render(source, Motion.from_compact(row)) for row in (0 * moved, moved)]
    assert crops[0].shape == (512, 512, 3)
    assert 0.0 <= crops[0].min() < crops[0].max() <= 255.0
    assert np.abs(crops[0] - crops[1]).max() > 1.0
    frame = paste_back(crops[0])
    assert frame.dtype == np.uint8
    assert frame.shape == portrait.picture.shape
    centre = frame[250:260, 250:260].astype(float) - portrait.picture[250:260, 250:260]
    assert np.abs(centre).max() > 1.0


def test_a_latency_there_is_not_is_refused(parts):
    with pytest.raises(ValueError, match="quality, balanced, low, got 'fast'"):
        parts.sampler.at("fast")


# Choices


def test_noise_is_fresh_or_shared(parts, portrait):
    given = []

    def engine(cond_frame, cond, start, noise):
        given.append((start, noise))
        return {"motion": np.zeros((1, 80, MOTION_SIZE), np.float32)}

    silence = np.zeros((5, 4), np.float32)
    for noise, fresh in (("fresh", True), ("shared", False)):
        given.clear()
        sampler = FullSampler(engine, parts.renderer.prepare, silence, parts.encoder, Sampling(noise=noise), "balanced")
        run(sampler, np.zeros((30, 4), np.float32), portrait)
        assert len(given) == 4
        starts, steps = (np.stack(values) for values in zip(*given, strict=True))
        assert steps.shape == (4, 9, 1, 80, MOTION_SIZE)
        assert len(np.unique(starts[:, 0, 0, 0])) == 4
        assert (len(np.unique(steps[:, 0, 0, 0, 0])) == 4) is fresh


def test_head_is_not_bowed_by_a_chance_first_frame(parts, portrait):
    def engine(cond_frame, cond, start, noise):
        motion = np.zeros((1, 80, MOTION_SIZE), np.float32)
        motion[:, 0, 1:67] = np.linspace(-3, 3, 66)  # the first frame alone looks elsewhere
        return {"motion": motion}

    silence = np.zeros((5, 4), np.float32)
    bowed = {}
    for origin in ("silence", "first"):
        sampler = FullSampler(
            engine, parts.renderer.prepare, silence, parts.encoder, Sampling(origin=origin), "balanced"
        )
        bowed[origin] = np.abs(run(sampler, np.zeros((60, 4), np.float32), portrait)[30:, 1]).mean()
    assert bowed["first"] > 10 * bowed["silence"]


def vectors():
    dice = np.random.default_rng(5)
    return [dice.standard_normal(MOTION_SIZE) * 0.3 for _ in range(3)]


def keypoints_of(edit, driving=None):
    source, motion, origin = vectors()
    pose = drive_motion(source, motion, origin, driving or Driving(), edit).pose
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


def test_settings_published_with_the_checkpoints(parts, portrait):
    told = []

    def engine(cond_frame, cond, start, noise):
        told.append((cond_frame, cond))
        return {"motion": 100 * start}

    released = read_released(settings_of())
    silence = np.zeros((5, 4), np.float32)
    sampler = FullSampler(
        engine, parts.renderer.prepare, silence, parts.encoder, Sampling(released=released), "balanced"
    )
    rows = run(sampler, np.zeros((100, 4), np.float32), portrait)
    reference = released.reference
    np.testing.assert_array_equal(told[0][0][0], reference.motion)
    np.testing.assert_array_equal(told[0][1][0, 0, -63:], reference.condition.canonical)
    np.testing.assert_array_equal(told[5][0][0, 202:], reference.motion[202:])  # reset before every window
    assert np.abs(told[5][0][0, :202] - reference.motion[:202]).max() > 1.0
    assert np.abs(rows[:, 4:7]).max() <= 18.0  # within the limits
    eyes = rows[:, 7:].reshape(-1, 21, 3)[:, [13, 16, 18]]
    np.testing.assert_allclose(eyes, 0.5, atol=1e-6)  # as in the array of blinks, not as sampled
    brows = rows[:, 7:].reshape(-1, 21, 3)[:, [1, 2]]
    assert not brows.any()


def test_published_settings_of_another_kind_are_told():
    for name, value, message in (
        ("ch_info", {"x_s_info_lst": [{"kp": np.ones(63)}]}, "KeyError: 'eye_open_lst'"),
        ("delta_eye_arr", np.ones((3, 63)), r"an array \(15, 63\) is wanted, got \(3, 63\)"),
        ("smo_k_d", "many", "invalid literal"),
        ("fix_kp_cond_dim", [], "list index out of range"),
    ):
        with pytest.raises(BundleError, match=message):
            read_released(settings_of(**{name: value}))
    assert read_released({}).steps == 50


def test_settings_of_a_bundle(bundle):
    with pytest.raises(BundleError, match="KeyError: 'eye_open_lst'"):  # the tiny folder's reference is incomplete
        open_parts(bundle, FullOptions(settings="offline"))


def test_silence_closes_lips_and_leaves_the_rest():
    spoken, _ = keypoints_of(Edit())
    silent, _ = keypoints_of(Edit(speaking=0.0))
    changed = np.flatnonzero(np.abs(silent - spoken).max(1) > 1e-9)
    assert changed.tolist() == sorted(LIPS)
    frozen, _ = keypoints_of(Edit(speaking=0.0), Driving(silence="all"))
    assert len(np.flatnonzero(np.abs(frozen - spoken).max(1) > 1e-9)) > len(LIPS)


def test_expression_of_all_keypoints_when_asked():
    source, motion, origin = vectors()
    for keypoints, moved in (("lips", 6), ("lips and eyes", 11), ("all", 21)):
        driving = Driving(keypoints=keypoints, hold_gaze=False)
        change = drive_motion(source, motion, origin, driving).pose.exp - split(source)["exp"]
        assert np.count_nonzero(np.abs(change).reshape(21, 3).max(1) > 1e-9) == moved


def test_angles_fade_in_degrees():
    angles = ("pitch", "yaw", "roll")
    _, whole = keypoints_of(Edit())
    _, half = keypoints_of(Edit(shown=0.5, faded=angles))
    _, none = keypoints_of(Edit(shown=0.0, faded=angles))
    np.testing.assert_allclose(half.degrees, (whole.degrees + none.degrees) / 2, atol=1e-9)
    _, bins = keypoints_of(Edit(shown=0.5, faded=angles), Driving(angles="logits"))
    assert np.abs(bins.degrees - half.degrees).max() > 0.01
    _, mixed = keypoints_of(Edit(turn={"yaw": 4.0}, shown=0.5, faded=angles), Driving(angles="logits"))
    assert np.isfinite(mixed.degrees).all()  # a turned angle is in degrees, what it fades to in logits


@pytest.mark.parametrize("frames", [1, 69, 70, 80, 149, 150, 151, 231])
def test_a_recording_in_pieces_is_the_recording(frames):
    def sample(known, conditions):
        return np.sin(conditions[:, :1] * np.arange(1, 266) + known).astype(np.float32)

    conditions = np.random.default_rng(1).standard_normal((frames, 3)).astype(np.float32)
    source, rules = np.zeros(MOTION_SIZE), WindowRules()
    whole = recording_motion(sample, conditions, source, rules)
    assert whole.shape == (frames, MOTION_SIZE)
    state, pieces = start_recording(source, 3, rules), []
    for first in range(0, frames, 7):
        last = first + 7 >= frames
        motion, state = advance_recording(state, conditions[first : first + 7], sample, source, rules, final=last)
        pieces.append(motion)
    np.testing.assert_array_equal(np.concatenate(pieces), whole)


# The whole


@pytest.fixture(scope="module")
def head(bundle):
    return load(bundle.path)


def test_a_full_bundle_makes_a_talking_head(head, portrait):
    samples = speech_of(2)
    frames = list(head.animate(portrait, samples, seed=2))
    assert len(frames) == 2
    assert frames[0].image.shape == portrait.picture.shape
    np.testing.assert_array_equal(np.concatenate([frame.audio for frame in frames]), samples)
    stream, streamed = head.stream(portrait, seed=2), []
    for first in range(0, len(samples), 777):
        streamed += stream.push(samples[first : first + 777])
    streamed += stream.flush()
    for found, wanted in zip(streamed, frames, strict=True):
        np.testing.assert_array_equal(found.image, wanted.image)
        np.testing.assert_array_equal(found.motion.values, wanted.motion.values)


def test_devices_and_precisions(bundle):
    if not torch.cuda.is_available():
        with pytest.raises(EngineError, match=r"cuda is wanted, torch .* sees 0 CUDA devices"):
            load(bundle.path, device="cuda")
    with pytest.raises(ValueError, match="device is cpu, cuda or cuda:N, got 'gpu'"):
        load(bundle.path, device="gpu")
    with pytest.raises(InputError, match="runs on the CPU in float32, got device='cuda'"):
        load("lite", device="cuda")


def test_controls_and_still_work_on_the_portrait(head, portrait):
    samples = speech_of(1)
    still = next(iter(head.animate(portrait, samples, still=True, controls=Controls(expression=0.0))))
    np.testing.assert_allclose(still.motion.compact, np.zeros(70), atol=1e-3)
    turned = next(iter(head.animate(portrait, samples, still=True, controls=Controls(yaw_degrees=9.0))))
    assert turned.motion.yaw_degrees == pytest.approx(9.0, abs=1e-2)


@pytest.mark.parametrize("latency", ["low", "balanced", "quality"])
def test_a_stream_tells_its_delay(head, portrait, latency):
    assert head.stream(portrait, latency=latency).delay_seconds == head.sampler.at(latency).delay_seconds


def test_hearing_with_a_memory(bundle, portrait):
    options = FullOptions(hearing="streaming", context=speech_of(25, 7))
    parts = open_parts(bundle, options)
    assert isinstance(parts.encoder, CachedEncoder)
    assert parts.encoder.hop_samples == 6400
    assert parts.sampler.at("low").delay_seconds == pytest.approx(0.6)
    head = TalkingHead(bundle, *parts)
    for frames in (10, 13):  # a whole unit, after whose features nothing more is heard; and more than one
        utterance = Utterance(head.encoder, head.sampler_for("low"), portrait, 0)
        utterance.push(speech_of(frames))
        utterance.end()
        rows = []
        while (hop := utterance.hop()) is not None:
            features, state = head.encoder(hop[None], utterance.encoder_state)
            job = utterance.heard(features[0], state, NEUTRAL)
            rows += list(utterance.moved(*utterance.sampler(*job)))
        assert utterance.done
        assert len(rows) == frames
    other = open_parts(bundle, FullOptions(hearing="streaming"))
    features = [encoder(speech_of(10)[None], encoder.initial_state(1))[0] for encoder in (parts.encoder, other.encoder)]
    assert np.abs(features[0] - features[1]).max() > 1e-4  # the context is heard
    with pytest.raises(ValueError, match=r"takes \(1, 6400\) samples, got \(1, 640\)"):
        parts.encoder(np.zeros((1, 640)), parts.encoder.initial_state(1))
    with pytest.raises(ValueError, match="window or streaming, got 'both'"):
        open_parts(bundle, FullOptions(hearing="both"))


def test_idle_life_in_the_motion_of_the_networks(parts, portrait):
    renderer = parts.renderer
    source = renderer.prepare(portrait)
    assert np.abs(source.shut).max() > 1e-3  # the tiny folder has the retargeting network, of no sense
    source = source._replace(shut=np.random.default_rng(0).standard_normal(63) * 0.01)
    row = np.zeros(70, np.float32)
    row[:7] = 0.01, 4.0, -6.0, 2.0, 0.005, -0.002, 0.0
    points = np.zeros((21, 3))
    points[[11, 15], :2] = 0.02, 0.01  # the eyes look right and down
    points[[13, 16], 1] = 0.5 * TEMPLATE_APERTURE
    points[[1, 2, 6, 14], 1] = -0.02
    row[7:] = (points @ rotation_matrix(4.0, -6.0, 2.0)).reshape(-1)  # camera frame
    found = renderer.translate(source, row)
    np.testing.assert_array_equal(found[:4], row[:4])
    change = (found[7:] - 0.5 * source.shut).reshape(21, 3)
    assert np.abs(np.delete(change, [11, 15], 0)).max() < 1e-6  # half a blink, and nothing else but gaze
    right, down = np.degrees(np.arcsin([0.02 / CAMERA_HOLD, 0.01 / CAMERA_HOLD]))
    np.testing.assert_allclose(
        change[[11, 15], :2], right * np.array([[7e-4, 0], [1e-3, 0]]) + [0, 1e-3 * down], atol=1e-6
    )


def test_a_session_of_a_full_head_lives_between_utterances(head, portrait):
    with head.blocking_session(portrait, seed=0, emotion={"happy": 1.0}) as session:
        item = session.get(60.0)
    assert item.kind == "idle"
    assert item.image.shape == portrait.picture.shape
    assert np.abs(item.motion.compact[1:4]).max() < 5.0  # a quiet head


def test_a_session_of_a_full_head_speaks(head, portrait):
    samples = speech_of(2)
    with head.blocking_session(portrait, idle=False, seed=0) as session:
        session.push(samples)
        session.flush()
        frames = []
        while not isinstance(item := session.get(30.0), SegmentEnd):
            assert item is not None
            frames.append(item)
    wanted = head.stream(portrait, latency="low", seed=0)
    wanted = wanted.push(samples) + wanted.flush()
    assert len(frames) == len(wanted) == 2
    for found, frame in zip(frames, wanted, strict=True):
        np.testing.assert_array_equal(found.image, frame.image)


def test_the_command_line_animates_with_a_converted_bundle(bundle, portrait, tmp_path):
    portrait.save(tmp_path / "face.npz")
    write_wav(tmp_path / "speech.wav", speech_of(1))
    command = ["animate", "face.npz", "speech.wav", "-o", "out.mp4", "--bundle", bundle.path, "--json"]
    command = [str(tmp_path / word) if str(word).endswith((".npz", ".wav", ".mp4")) else str(word) for word in command]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert (result["frames"], result["bundle"], result["width"]) == (1, "full", portrait.picture.shape[1])
    assert (tmp_path / "out.mp4").stat().st_size > 1000


def test_random_bundles_of_the_benchmarks_open(tmp_path):
    write_random_bundle(tmp_path / "a", seed=3, configs=TINY)
    write_random_bundle(tmp_path / "b", seed=3, configs=TINY)
    found = [(tmp_path / name / "motion.safetensors").read_bytes() for name in ("a", "b")]
    assert found[0] == found[1]
    assert open_parts(Bundle.open(tmp_path / "a")).encoder.hop_samples == SAMPLES_PER_FRAME
    with pytest.raises(InputError, match="which is there already"):
        write_random_bundle(tmp_path / "a")
