"""The full pipeline's parts over tiny networks: what depends on what, and the choices where released code errs."""

import dataclasses
import json
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
from drawn import drawn_portrait
from typer.testing import CliRunner
from wav import write_wav

torch = pytest.importorskip("torch", reason="the full pipeline needs torch (pip install ditto[full])")

from checkpoints import TINY, convert_tiny, publish  # noqa: E402

from benchmarks.random_bundle import write_random_bundle  # noqa: E402
from ditto import load  # noqa: E402
from ditto.app.cli import app  # noqa: E402
from ditto.bundle import Bundle  # noqa: E402
from ditto.controls import Controls  # noqa: E402
from ditto.errors import BundleError, EngineError, InputError  # noqa: E402
from ditto.full import pipeline  # noqa: E402
from ditto.full.pipeline import FullOptions, open_parts  # noqa: E402
from ditto.full.sampler import LATENCIES  # noqa: E402
from ditto.full.space import FullSpace  # noqa: E402
from ditto.full.speech_stream import CachedEncoder  # noqa: E402
from ditto.full.speech_window import SAMPLES_PER_FRAME, window_features  # noqa: E402
from ditto.live import SegmentEnd  # noqa: E402
from ditto.motion.emotion import emotion_vector  # noqa: E402
from ditto.motion.eyes import CAMERA_HOLD  # noqa: E402
from ditto.motion.motion import PACKED_SIZE, TEMPLATE_APERTURE, Motion, rest_motion  # noqa: E402
from ditto.performer import Advance  # noqa: E402

NEUTRAL = emotion_vector(None)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    publish(folder)
    return convert_tiny(folder, tmp_path_factory.mktemp("bundles") / "full")


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
    assert source.motion.shape == (PACKED_SIZE,)
    assert source.condition.canonical.shape == (63,)
    eyes = source.condition.eye_open[0]
    assert 0.5 < eyes.min() <= eyes.max() < 2.0  # the drawn eyes are open
    corner = source.crop_to_picture @ (256, 256, 1)
    assert np.abs(corner[:2] - 256).max() < 60  # the crop's middle is about the face's


def test_rest_is_the_source(parts, portrait):
    source = parts.renderer.prepare(portrait)
    rest = rest_motion(1)[0]
    found = parts.renderer.keypoints(source, rest)
    np.testing.assert_allclose(found, source.keypoints, atol=1e-6)
    with pytest.raises(ValueError, match=r"one frame of motion \(70,\), got \(1, 70\)"):
        parts.renderer.retarget(portrait, rest_motion(1))


@pytest.mark.parametrize("latency", LATENCIES)
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
    for latency in LATENCIES:
        sampler = parts.sampler.at(latency)
        encoder, late = parts.encoder, 0
        state, encoder_state, given = sampler.begin(portrait), encoder.initial_state(1), 0
        for frame, hop in enumerate(speech_of(200).reshape(-1, SAMPLES_PER_FRAME)):
            features, encoder_state = encoder(hop[None], encoder_state)
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
    for (rows, _), (block, mood, state, final) in zip(sampler.step_batch(*zip(*jobs, strict=True)), jobs, strict=True):
        np.testing.assert_array_equal(rows, sampler(block, mood, state, final)[0])

    hops = speech_of(16).reshape(2, 8, SAMPLES_PER_FRAME)
    alone, together = [encoder.initial_state(1)] * 2, [encoder.initial_state(1)] * 2
    for frame in range(8):
        found = encoder.step_batch(hops[:, frame], together)
        for i in range(2):
            expected, alone[i] = encoder(hops[i, frame][None], alone[i])
            np.testing.assert_array_equal(found[i][0], expected[0])
        together = [state for _, state in found]


def test_streams_of_speech_are_what_windows_of_it_are(parts):
    samples = speech_of(10)
    padded = np.pad(samples, (2000, 6480))
    network = parts.encoder.network
    expected = [window_features(network, padded[None, start : start + 6480])[0] for start in (0, 3200)]
    np.testing.assert_array_equal(features_of(parts.encoder, samples), np.concatenate(expected))


def test_a_frame_is_drawn_and_pasted_back(parts, portrait):
    source = parts.renderer.prepare(portrait)
    paste_back = parts.renderer.paste_back(portrait)
    moved = np.zeros(70, np.float32)
    moved[1:7] = 5.0, 10.0, -5.0, 0.2, -0.1, 0.0
    crops = [parts.renderer.render(source, Motion(row)) for row in (0 * moved, moved)]
    assert crops[0].shape == (512, 512, 3)
    assert 0.0 <= crops[0].min() < crops[0].max() <= 255.0
    assert np.abs(crops[0] - crops[1]).max() > 1.0
    frame = paste_back(crops[0])
    assert frame.dtype == np.uint8
    assert frame.shape == portrait.picture.shape
    centre = frame[250:260, 250:260].astype(float) - portrait.picture[250:260, 250:260]
    assert np.abs(centre).max() > 1.0


def test_an_unknown_latency_is_refused(parts):
    with pytest.raises(ValueError, match="quality, balanced, low, got 'fast'"):
        parts.sampler.at("fast")


def test_settings_of_a_bundle(bundle):
    with pytest.raises(BundleError, match="ch_info to have lists eye_open_lst"):  # the tiny folder's is incomplete
        open_parts(bundle, FullOptions(settings="offline"))


EVERY_SETTING = {
    "sampling_timesteps": 3, "smo_k_d": np.int64(4), "overlap_v2": 60, "online_mode": False, "fix_kp_cond": 1,
    "fix_kp_cond_dim": (0, 202), "v_min_max_for_clip": np.stack([np.full(265, -np.inf), np.full(265, np.inf)]),
    "emo": [[3], [4, 5]], "use_d_keys": {"exp": 1.0, "yaw": 0.5}, "relative_d": True, "drive_eye": None,
    "delta_eye_arr": np.full((15, 63), 0.01, np.float32), "delta_eye_open_n": [4, 9], "N_d": 50, "fade_type": "s",
    "flag_stitching": False, "crop_scale": 2.5, "crop_vy_ratio": -0.1, "crop_flag_do_rot": False, "ctrl_info": {},
    "overall_ctrl_info": {"delta_pitch": np.float64(2.0), "delta_exp": np.zeros((1, 63)), "vad_alpha": 0.5},
    "max_size": 1920, "fade_out_keys": ("exp",),
    "ch_info": {
        "x_s_info_lst": [{name: np.full((1, size), 0.4) for name, size in
                          (("scale", 1), ("pitch", 66), ("yaw", 66), ("roll", 66), ("t", 3), ("exp", 63), ("kp", 63))}],
        "eye_open_lst": [np.ones((1, 2))] * 3, "eye_ball_lst": [np.zeros((1, 6))] * 3, "sc": np.full(63, 0.1),
    },
}  # fmt: skip


@pytest.mark.parametrize("suffix", [".pkl", ".json"])
def test_every_setting_goes_from_the_published_file_to_the_pictures(suffix, tmp_path, portrait, caplog):
    folder = tmp_path / "published"
    publish(folder)
    file = folder / "ditto_cfg" / "v0.4_hubert_cfg_pytorch.pkl"
    file.unlink()
    described = {"default_kwargs": EVERY_SETTING}
    if suffix == ".pkl":
        file.write_bytes(pickle.dumps(described))
    else:
        lists = json.dumps(described, default=lambda value: value.tolist())
        file.with_suffix(suffix).write_text(lists)
    bundle = convert_tiny(folder, tmp_path / "full")
    parts = open_parts(bundle, FullOptions(settings="offline", threads=1))
    (text,) = [message for message in caplog.messages if message.startswith("unused settings")]
    assert "max_size" in text and text.count("(") == 1
    sampler, released = parts.sampler, parts.sampler.sampling.released
    assert (sampler.rules.overlap, sampler.rules.smoothing, sampler.sampling.ddim_steps) == (60, 4, 3)
    assert released.waits == (4, 9) and released.blink_plan_frames == 50 and not released.stitching
    assert released.edit.turn == {"pitch": 2.0} and released.edit.speaking == 0.5
    assert len(released.reference.condition.eye_open) == 3
    rows = run(sampler, features_of(parts.encoder, speech_of(30)), portrait)
    assert rows.shape == (30, 70)
    np.testing.assert_allclose(rows[:, 1], 2.0, atol=1e-4)  # of pitch the added degrees alone, it is not in use_d_keys
    assert not rows[:, 3:7].any()
    crop = parts.renderer.render(parts.renderer.prepare(portrait), Motion(rows[5]))
    assert np.isfinite(crop).all()


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
    for found, expected in zip(streamed, frames, strict=True):
        np.testing.assert_array_equal(found.image, expected.image)
        np.testing.assert_array_equal(found.motion.values, expected.motion.values)


def test_devices_and_precisions(bundle):
    if not torch.cuda.is_available():
        with pytest.raises(EngineError, match=r"expected cuda, got torch .* with 0 CUDA devices"):
            load(bundle.path, device="cuda")
    with pytest.raises(ValueError, match="device to be cpu, cuda or cuda:N, got 'gpu'"):
        load(bundle.path, device="gpu")
    with pytest.raises(InputError, match=r"precision='float32' for the bundle .*, got device='cuda'"):
        load("lite", device="cuda")


def test_controls_and_still_work_on_the_portrait(head, portrait):
    samples = speech_of(1)
    still = next(iter(head.animate(portrait, samples, still=True, controls=Controls(gains={"face": 0.0}))))
    np.testing.assert_allclose(still.motion.values, np.zeros(70), atol=1e-3)
    turned = next(iter(head.animate(portrait, samples, still=True, controls=Controls(yaw_degrees=9.0))))
    assert turned.motion.yaw_degrees == pytest.approx(9.0, abs=1e-2)


@pytest.mark.parametrize("latency", ["low", "balanced", "quality"])
def test_a_stream_tells_its_delay(head, portrait, latency):
    assert head.stream(portrait, latency=latency).delay_seconds == head.performer.delay_seconds(latency)


@pytest.mark.slow
def test_onnx_runtime_gives_what_torch_gives(bundle, parts, portrait, monkeypatch, tmp_path):
    pytest.importorskip("onnxscript", reason="exporting networks needs onnxscript")
    monkeypatch.setenv("DITTO_CACHE", str(tmp_path))
    others = open_parts(bundle, FullOptions(backend="onnxruntime", threads=1))
    row = np.eye(1, 70, 2, dtype=np.float32)[0] * 3
    crops = [p.renderer.render(p.renderer.prepare(portrait), Motion(row)) for p in (parts, others)]
    assert np.abs(crops[0] - crops[1]).max() < 1.0  # grey levels
    features = [features_of(p.encoder, speech_of(10)) for p in (parts, others)]
    np.testing.assert_allclose(features[0], features[1], atol=1e-4)
    rows = [run(p.sampler.at("low"), features[0], portrait) for p in (parts, others)]
    assert np.abs(rows[0] - rows[1]).max() <= 1e-3 * np.abs(rows[0]).max()


def test_the_released_hubert_file_as_it_is(bundle, monkeypatch):
    samples = speech_of(11)[None, :6480]
    rows = np.random.default_rng(2).standard_normal((20, 8)).astype(np.float32)
    for shape in ((20, 8), (1, 20, 8)):  # with and without a batch
        given = []

        def engine(input_values, shape=shape, given=given):
            given.append(input_values)
            return {"encoding_out": rows.reshape(shape)}

        engine.inputs = (SimpleNamespace(name="input_values"),)
        monkeypatch.setattr(pipeline, "open_engine", lambda path, threads, engine=engine: engine)
        part = dataclasses.replace(
            bundle.part("encoder"), files={"onnx": bundle.part("encoder").file("weights")}, sha256={}
        )
        encoder, silence = pipeline.open_encoder(part, FullOptions())
        assert silence.shape == (5, 8)
        given.clear()
        found = window_features(encoder.network, np.repeat(samples, 2, 0))
        np.testing.assert_allclose(found, np.tile(rows[6:16].reshape(1, 5, 2, 8).mean(2), (2, 1, 1)), rtol=1e-6)
        assert [array.shape for array in given] == [(1, 6480)] * 2


def test_on_a_gpu_the_log_says_that_the_released_hubert_file_runs_on_the_cpu(bundle, monkeypatch, caplog):
    asked = []

    def engine(path, **how):
        asked.append(how)
        if "device" in how:
            raise EngineError("no CUDAExecutionProvider")
        return "engine"

    monkeypatch.setattr(pipeline, "open_engine", engine)
    file = bundle.part("encoder").file("weights")
    assert FullOptions(device="cuda", threads=3).open_file(file) == "engine"
    assert asked == [{"device": "cuda", "shape": (1, 6480)}, {"threads": 3}]  # the one length that it gets
    assert "encoder.safetensors runs on the CPU: no CUDAExecutionProvider" in caplog.text


def test_streams_that_share_a_batch_move_as_alone(bundle, portrait):
    parts = open_parts(bundle, FullOptions(batch=2))
    sampler = parts.sampler.at("low")
    features = [features_of(parts.encoder, speech_of(10, seed)) for seed in (0, 1)]
    begun = [sampler.begin(portrait, seed) for seed in (0, 1)]
    together = sampler.step_batch(features, [NEUTRAL, NEUTRAL], begun, [True, True])
    for (rows, _), speech, state in zip(together, features, begun, strict=True):
        assert len(rows) == 10 and np.array_equal(rows, sampler(speech, NEUTRAL, state, final=True)[0])
    assert not np.array_equal(together[0][0], together[1][0])


def test_a_streaming_encoder_with_context(bundle, portrait):
    options = FullOptions(encoder="streaming", context=speech_of(25, 7))
    parts = open_parts(bundle, options)
    assert isinstance(parts.encoder, CachedEncoder)
    assert parts.encoder.hop_samples == 6400
    assert parts.sampler.at("low").delay_seconds == pytest.approx(0.6)
    performer = parts.performer()
    for frames in (10, 13):  # a whole unit, which is the end of the speech; and more than one
        samples, state = speech_of(frames), performer.begin(performer.prepare(portrait), 0, "low")
        shots = 0
        for start in range(0, samples.size, 6400):
            last = start + 6400 >= samples.size
            done = performer.advance([Advance(state, samples[start : start + 6400], NEUTRAL, last)])[0]
            shots, state = shots + len(done.shots), done.state
        assert shots == frames
    other = open_parts(bundle, FullOptions(encoder="streaming"))
    features = [encoder(speech_of(10)[None], encoder.initial_state(1))[0] for encoder in (parts.encoder, other.encoder)]
    assert np.abs(features[0] - features[1]).max() > 1e-4  # the context has an effect
    with pytest.raises(ValueError, match=r"expected samples \(1, 6400\), got \(1, 640\)"):
        parts.encoder(np.zeros((1, 640)), parts.encoder.initial_state(1))
    with pytest.raises(ValueError, match="window, streaming, got 'both'"):
        open_parts(bundle, FullOptions(encoder="both"))


def test_idle_motion_in_the_motion_of_the_networks(parts, portrait):
    renderer = parts.renderer
    source = renderer.prepare(portrait)
    assert np.abs(source.eye_closure).max() > 1e-3  # the tiny bundle has a retargeting network with random weights
    source = source._replace(eye_closure=np.random.default_rng(0).standard_normal(63) * 0.01)
    row = np.zeros(70, np.float32)
    row[:7] = 0.01, 4.0, -6.0, 2.0, 0.005, -0.002, 0.0
    points = np.zeros((21, 3))
    points[[11, 15], :2] = 0.02, 0.01  # the eyes look right and down
    points[[13, 16], 1] = 0.5 * TEMPLATE_APERTURE
    points[[1, 2, 6, 14], 1] = -0.02
    row[7:] = points.reshape(-1)
    found = FullSpace(lambda portrait: source).idle_motion(row, portrait)
    np.testing.assert_array_equal(found[:4], row[:4])
    change = (found[7:] - 0.5 * source.eye_closure).reshape(21, 3)
    assert np.abs(np.delete(change, [11, 15], 0)).max() < 1e-6  # half a blink, and nothing else but gaze
    right, down = np.degrees(np.arcsin([0.02 / CAMERA_HOLD, 0.01 / CAMERA_HOLD]))
    np.testing.assert_allclose(
        change[[11, 15], :2], right * np.array([[7e-4, 0], [1e-3, 0]]) + [0, 1e-3 * down], atol=1e-6
    )


def test_a_session_of_a_full_head_lives_between_utterances(head, portrait):
    with head.blocking_session(portrait, seed=0, emotion={"happy": 1.0}, any_speed=True) as session:
        item = session.get(60.0)
    assert item.kind == "idle"
    assert item.image.shape == portrait.picture.shape
    assert np.abs(item.motion.values[1:4]).max() < 5.0  # a quiet head


def test_a_session_of_a_full_head_speaks(head, portrait):
    samples = speech_of(2)
    with head.blocking_session(portrait, idle=False, seed=0, any_speed=True) as session:
        session.push(samples)
        session.flush()
        frames = []
        while not isinstance(item := session.get(30.0), SegmentEnd):
            assert item is not None
            frames.append(item)
    expected = head.stream(portrait, latency="low", seed=0)
    expected = expected.push(samples) + expected.flush()
    assert len(frames) == len(expected) == 2
    for found, frame in zip(frames, expected, strict=True):
        np.testing.assert_array_equal(found.image, frame.image)


def test_the_command_line_animates_with_a_converted_bundle_by_name(bundle, portrait, tmp_path, monkeypatch):
    monkeypatch.setenv("DITTO_BUNDLES", str(bundle.path.parent))
    portrait.save(tmp_path / "face.npz")
    write_wav(tmp_path / "speech.wav", speech_of(1))
    command = ["animate", "face.npz", "speech.wav", "-o", "out.mp4", "--bundle", bundle.path.name, "--json"]
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
