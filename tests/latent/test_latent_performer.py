"""The performer of V and RAP: blocks when their speech is there, idle, interrupts, states, batches, bundles that are refused.

What every performer keeps is in tests/test_performer_contract.py.
"""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from actors import HandClock
from drawn import drawn_portrait

torch = pytest.importorskip("torch", reason="V and RAP need torch")

from latent_bundles import REGION, tiny_parts, write_tiny  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from ditto.app.cli_bundle import check_latent  # noqa: E402
from ditto.bundle import Bundle, seal  # noqa: E402
from ditto.errors import BundleError, InputError, OutputError, TooSlowError, UnsupportedError  # noqa: E402
from ditto.frame import SegmentEnd  # noqa: E402
from ditto.latent.audio import mel_windows  # noqa: E402
from ditto.latent.bundling import open_parts, performer_of, write_bundle  # noqa: E402
from ditto.latent.generators import tensors_of  # noqa: E402
from ditto.latent.region import Composer, Region, square_of  # noqa: E402
from ditto.latent.speech import LiteConfig, MelConfig, MelSpeech  # noqa: E402
from ditto.live import Scheduler, Session  # noqa: E402
from ditto.live.settings import Settings  # noqa: E402
from ditto.motion.emotion import emotion_vector  # noqa: E402
from ditto.performer import Advance, Capability, Draw, Edits, Idle  # noqa: E402
from ditto.talking_head import load  # noqa: E402

SYSTEMS = "v", "rap"
PORTRAIT = drawn_portrait(256)
NEUTRAL = emotion_vector(None)
FRAME = 640


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("latent")
    for system in SYSTEMS:
        write_tiny(folder / system, system)
    return folder


@pytest.fixture(scope="module")
def heads(folder):
    return {system: load(folder / system, max_sessions=2) for system in SYSTEMS}


@pytest.fixture(params=SYSTEMS)
def head(request, heads):
    return heads[request.param]


@pytest.fixture
def performer(head):
    return head.performer


def speech(frames, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(frames * FRAME)).astype(np.float32)


def said(performer, state, samples):
    """Advance by whole hops: how many shots came with each, and the state."""
    counts, hop = [], performer.hop_samples
    for start in range(0, samples.size - hop + 1, hop):
        done = performer.advance([Advance(state, samples[start : start + hop], NEUTRAL)])[0]
        counts.append(len(done.shots))
        state = done.state
    return counts, state


@pytest.mark.parametrize(
    ("system", "latency", "blocks"),
    [("v", "low", [13, 16, 16]), ("rap", "low", [17, 16, 16]), ("rap", "quality", [81, 64])],
)
def test_blocks_come_as_soon_as_their_speech_is_there(heads, system, latency, blocks):
    performer = heads[system].performer
    state = performer.begin(heads[system].appearance(PORTRAIT), 0, latency)
    per_hop = performer.hop_samples // FRAME
    hops, end = [], 0
    for size in blocks:
        end += size
        hops.append(-(-end // per_hop) + 1)  # the encoder is one hop behind
    counts, _ = said(performer, state, speech(per_hop * hops[-1]))
    assert [count for count in counts if count] == blocks
    assert [number + 1 for number, count in enumerate(counts) if count] == hops


def test_a_recording_becomes_a_picture_for_every_forty_milliseconds(head):
    """As docs/latent.md shows it."""
    frames = list(head.animate(PORTRAIT, speech(20)[:-100]))
    assert len(frames) == 20
    assert all(frame.image.shape == PORTRAIT.picture.shape and frame.motion is None for frame in frames)


def test_speech_moves_the_region_and_nothing_else(head, performer):
    appearance, pictures = head.appearance(PORTRAIT), []
    for loudness in (0.01, 1.0):
        state = performer.begin(appearance, 0, "low")
        samples = np.float32(loudness) * speech(20)[: performer.hop_samples]
        shots = performer.advance([Advance(state, samples, NEUTRAL, True)])[0].shots
        face = performer.face(appearance, 0)
        pictures.append(performer.draw([Draw(face, shots[-1], Edits.none())])[0].image)
    assert (pictures[0] != pictures[1]).any()
    (x0, y0, _), (x1, y1, _) = (
        REGION.to_picture(square_of(PORTRAIT)) @ (edge, edge, 1) for edge in (-0.5, REGION.size - 0.5)
    )
    outside = np.ones(PORTRAIT.picture.shape[:2], bool)
    outside[int(y0) : int(y1) + 2, int(x0) : int(x1) + 2] = False
    assert 0.5 < outside.mean() < 0.95
    np.testing.assert_array_equal(pictures[0][outside], PORTRAIT.picture[outside])


def test_idle_goes_on_with_what_the_last_block_has_left_and_then_makes_more(head, performer):
    state = performer.begin(head.appearance(PORTRAIT), 0, "low")
    ended = performer.advance([Advance(state, speech(1), NEUTRAL, True)])[0]
    first_block = {"v": 13, "rap": 17}[head.bundle.motion_space]
    assert len(ended.shots) == 1
    left = performer.idle([Idle(ended.state, NEUTRAL)])[0]
    more = performer.idle([Idle(left.state, NEUTRAL)])[0]
    assert (len(left.shots), len(more.shots)) == (first_block - 1, 16)
    spoken = performer.begin(head.appearance(PORTRAIT), 5, "low", after=more.state)
    counts, _ = said(performer, spoken, speech(40))
    assert next(count for count in counts if count) == 16  # one video, not another first block


def test_idle_after_an_interrupt_says_nothing_of_what_was_dropped(head, performer):
    """Speech that is in no block yet when the utterance is dropped does not move the face."""
    state = performer.begin(head.appearance(PORTRAIT), 0, "low")
    _, state = said(performer, state, speech({"v": 20, "rap": 30}[head.bundle.motion_space]))
    hop = speech(9)[: performer.hop_samples]
    more = [performer.advance([Advance(state, piece, NEUTRAL)])[0] for piece in (hop, 0 * hop)]
    assert not any(done.shots for done in more)
    idle = [performer.idle([Idle(done.state, NEUTRAL)])[0] for done in more]
    for one, other in zip(idle[0].shots, idle[1].shots, strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)


def test_an_interrupt_acts_at_the_next_block_and_says_what_was_shown(head):
    first_block = {"v": 13, "rap": 17}[head.bundle.motion_space]
    with head.blocking_session(PORTRAIT, idle=False, any_speed=True) as session:
        assert session._opened().draw_at_rest() == first_block  # what a measured second is divided by
        session.push(speech(60))
        assert [session.get(60.0).kind for _ in range(5)] == ["speech"] * 5
        assert session.interrupt() == 5 * 40
        rest = [session.get(60.0) for _ in range(first_block - 5)]
        assert {item.kind for item in rest} == {"transition"} and not any(item.audio.any() for item in rest)
        session.push(speech(2, 1))
        session.flush()
        after = [session.get(60.0) for _ in range(3)]
    assert [item.kind for item in after[:2]] == ["speech"] * 2 and isinstance(after[2], SegmentEnd)


@pytest.mark.parametrize(("seconds", "said", "blocks"), [(3.0, "4.", 3), (30.0, "0.4", 2), (100.0, "0.1", 1)])
def test_a_machine_that_makes_blocks_too_slowly_is_refused_at_each_latency(heads, monkeypatch, seconds, said, blocks):
    head, clock, made, taken = heads["v"], HandClock(), [], {"quality": seconds, "low": 2.0}
    performer, appearance = head.performer, head.appearance(PORTRAIT)
    idle = performer.idle

    def slow(jobs):
        made.append(jobs)
        clock.time += taken[jobs[0].state.latency]
        return idle(jobs)

    monkeypatch.setattr(performer, "idle", slow)
    scheduler = Scheduler(performer, 1, clock)

    def opened(latency):
        return Session(scheduler, PORTRAIT, lambda: appearance, Settings(latency=latency))

    opened("low").close()  # 13 frames in two seconds
    made.clear()
    with pytest.raises(TooSlowError, match=rf"expected at least 5 frames a second for a live session, measured {said}"):
        opened("quality")
    assert len(made) == blocks


def test_a_state_holds_as_much_after_many_blocks_as_after_two(head, performer):
    def size(state):
        tensors = [tensor for part in (state.generator, state.decoder) for tensor in tensors_of(part)]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    state = performer.begin(head.appearance(PORTRAIT), 0, "low")
    state = performer.idle([Idle(performer.idle([Idle(state, NEUTRAL)])[0].state, NEUTRAL)])[0].state
    early = size(state)
    for _ in range(12):  # over more than three windows of V
        state = performer.idle([Idle(state, NEUTRAL)])[0].state
    assert size(state) == early
    assert len(state.speech.rows) < 2 * performer.hop_samples // FRAME


def test_streams_at_one_place_are_one_batch(head, performer):
    rows = []
    detach = performer.observe(lambda step, seconds, count: rows.append((step, count)))
    states = [performer.begin(head.appearance(PORTRAIT), seed, "low") for seed in range(3)]
    performer.idle([Idle(state, NEUTRAL) for state in states])
    detach()
    assert [count for step, count in rows if step == "block"] == [3]
    assert {count for step, count in rows if step == "encode"} == {3}


def test_capabilities_are_said_honestly(head, performer):
    assert performer.supports == {Capability.IDLE}
    for use in (lambda: head.animate_video(None, speech(1)), lambda: head.read_video("no file is read")):
        with pytest.raises(UnsupportedError, match=r"a bundle that animates videos, lite or full, got 'tiny (v|rap)'"):
            use()
    with pytest.raises(ValueError, match="does not support"):
        head.take(PORTRAIT, speech(1))


def test_the_mel_encoder_of_a_stream_gives_what_the_whole_speech_gives():
    network = MelConfig(8, (4, 4)).network().eval()
    stream, samples = MelSpeech(network), speech(25)
    state, rows = stream.initial_state(1), []
    for start in range(0, samples.size + stream.hop_samples, stream.hop_samples):
        hop = np.zeros(stream.hop_samples, np.float32)
        piece = samples[start : start + stream.hop_samples]
        hop[: piece.size] = piece
        ((found, state),) = stream.step_batch([hop], [state])
        rows.append(found)
    with torch.no_grad():
        whole = network(mel_windows(torch.from_numpy(samples)[None]))[0].numpy()
    np.testing.assert_allclose(np.concatenate(rows)[stream.lead_features :], whole, atol=1e-4)


def test_a_region_is_cut_where_it_is_composed():
    square, region = square_of(PORTRAIT), Region(64, 16, 32, 32)
    cut = region.cut(PORTRAIT.picture, square)
    to_picture = region.to_picture(square)
    x, y, _ = (to_picture @ (16, 16, 1)).round().astype(int)
    patch = PORTRAIT.picture[y - 2 : y + 3, x - 2 : x + 3].reshape(-1, 3).astype(int)
    assert (patch.min(0) - 4 <= cut[16, 16]).all() and (cut[16, 16] <= patch.max(0) + 4).all()
    compose = Composer(PORTRAIT, region, cut)
    np.testing.assert_array_equal(compose(cut), PORTRAIT.picture)  # no difference, no change
    red = cut.copy()
    red[16, 16] = (255, 0, 0)
    change = np.abs(compose(red).astype(int) - PORTRAIT.picture).max(-1)
    np.testing.assert_allclose(np.unravel_index(change.argmax(), change.shape), (y, x), atol=1.0)


@pytest.mark.parametrize("numbers", [(64, 40, 0, 32), (64, -1, 0, 32), (64, 0, 0, 1)])
def test_a_region_outside_of_its_square_is_refused(numbers):
    with pytest.raises(InputError, match="window of 2 pixels or more inside of the square"):
        Region(*numbers)


def edited(folder, tmp_path, system, change):
    """A copy of a bundle with another bundle.json."""
    copy = tmp_path / "copy"
    shutil.copytree(folder / system, copy)
    described = json.loads((copy / "bundle.json").read_text())
    change(described)
    (copy / "bundle.json").write_text(json.dumps(described))
    return copy


@pytest.mark.parametrize(
    ("system", "change", "message"),
    [
        ("v", lambda d: d.update(motion_space="rap"), r"expected model rap for a bundle of 'rap', got 'v'"),
        ("rap", lambda d: d.update(motion_space="v"), r"expected model v for a bundle of 'v', got 'rap'"),
        ("v", lambda d: d["parts"]["codec"]["config"].update(version=2), r"expected version 1, got 2"),
        ("v", lambda d: d["parts"]["codec"]["config"].update(version=True), r"expected version 1, got True"),
        ("v", lambda d: d["parts"].pop("codec"), r"expected part 'codec'"),
        ("v", lambda d: d["parts"].pop("generator"), r"expected part 'generator'"),
        ("v", lambda d: d["parts"].pop("audio"), r"expected part 'audio'"),
        ("v", lambda d: d["parts"]["generator"]["config"]["latencies"].pop("low"), r"missing: low"),
        ("v", lambda d: d["parts"]["generator"]["config"]["sizes"].update(channels=8), r"tensors differ"),
        ("rap", lambda d: d["parts"]["codec"]["config"]["region"].update(size=12), r"expected 16 pixels .* got 12"),
        ("v", lambda d: d["parts"]["codec"]["config"]["region"].update(side=10**6), r"at most 2048 pixels a side"),
        ("rap", lambda d: d["parts"]["generator"]["config"]["latencies"]["low"].update(later=3), r"got 3 and 3"),
        ("v", lambda d: d["parts"]["audio"]["config"]["sizes"].update(network="0" * 64), r"expected the speech encoder 0000"),
        ("v", lambda d: d["parts"]["codec"]["config"]["sizes"].update(stem="8"), r"expected stem"),
    ],
)  # fmt: skip
def test_bundles_that_cannot_be_used_are_refused(folder, tmp_path, system, change, message):
    copy = edited(folder, tmp_path, system, change)
    for use in (load, lambda path: check_latent(Bundle.open(path))):  # the second is of `ditto bundle verify`
        with pytest.raises(BundleError, match=message):
            use(copy)
    check_latent(Bundle.open(folder / system))


def whole_numbers(words, *path):
    """The places of all whole numbers in an object of JSON."""
    if isinstance(words, (dict, list)):
        for key, value in words.items() if isinstance(words, dict) else enumerate(words):
            yield from whole_numbers(value, *path, key)
    elif type(words) is int and path[-1] != "version":
        yield path


@pytest.mark.parametrize("system", ["v", "rap"])
def test_sizes_that_the_weights_do_not_have_are_refused_and_take_no_memory(folder, tmp_path, system):
    copy = edited(folder, tmp_path, system, lambda described: None)
    text = (copy / "bundle.json").read_text()
    places = [place for place in whole_numbers(json.loads(text)["parts"]) if "config" in place]
    assert {place[0] for place in places} >= {"codec", "generator"} and len(places) > 60
    for *path, last in places:
        for huge in (10**5 if last != "motion_width" else 10**6, 10**9):  # that one is not used without motion
            described = json.loads(text)
            target = described["parts"]
            for key in path:
                target = target[key]
            target[last] = huge
            (copy / "bundle.json").write_text(json.dumps(described))
            with pytest.raises(BundleError):
                open_parts(Bundle.open(copy))


def test_weights_that_are_not_finite_are_refused(folder, tmp_path):
    copy = edited(folder, tmp_path, "rap", lambda described: None)
    weights = load_file(copy / "audio.safetensors")
    weights["output.bias"][0] = float("nan")
    save_file(weights, copy / "audio.safetensors")
    with pytest.raises(BundleError, match="expected SHA-256"):
        load(copy)
    seal(copy)
    with pytest.raises(BundleError, match=r"NaN or infinity in output\.bias"):
        load(copy)


@pytest.mark.parametrize(
    ("system", "part", "name"),
    [
        ("v", "generator", "noisy.weight"),
        ("v", "codec", "decoder"),
        ("rap", "audio", "output.weight"),
        ("rap", "codec", "encoder"),
    ],
)
def test_finite_weights_that_are_absurd_give_no_pictures(folder, tmp_path, system, part, name):
    copy = edited(folder, tmp_path, system, lambda described: None)
    file = copy / f"{part}.safetensors"
    weights = load_file(file)
    save_file({key: 1e30 * value if key.startswith(name) else value for key, value in weights.items()}, file)
    seal(copy)
    network = "speech encoder" if part == "audio" else part
    with pytest.raises(BundleError, match=rf"expected numbers up to .* of the bundle's {network}, got NaN"):
        list(load(copy).animate(PORTRAIT, speech(30)))


def test_parts_of_two_trainings_are_refused_and_nothing_is_written(tmp_path):
    v, rap = tiny_parts("v"), tiny_parts("rap")
    for parts, message in (
        (replace(v, codec=rap.codec), "expected 4 frames of a latent for this generator, got 8"),
        (replace(v, audio=rap.audio), "expected 368 numbers of a row of speech for this generator, got 8"),
        (replace(v, latencies=rap.latencies), "expected FlowSampling for V"),
        (replace(v, latencies={"quality": v.latencies["quality"]}), "expected latencies quality, low"),
    ):
        with pytest.raises(InputError, match=message):
            write_bundle(tmp_path / "bundle", parts, "x", "x", "x")
    with pytest.raises(BundleError, match="in this version of ditto"):
        performer_of(replace(v, audio=LiteConfig("1" * 64)))
    assert not list(tmp_path.iterdir())


def test_a_bundle_does_not_overwrite_and_leaves_nothing_half_written(folder, tmp_path):
    with pytest.raises(InputError, match="expected a new folder"):
        write_tiny(folder / "v", "v")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_tiny(tmp_path / "file" / "v", "v")


def test_a_written_bundle_gives_the_pictures_of_its_parts(folder):
    direct, opened = performer_of(tiny_parts("rap")), load(folder / "rap").performer
    assert Bundle.open(folder / "rap").motion_space == "rap"
    shots = []
    for performer in (direct, opened):
        state = performer.begin(performer.prepare(PORTRAIT), 7, "low")
        shots.append(performer.advance([Advance(state, speech(2), NEUTRAL, True)])[0].shots)
    for one, other in zip(*shots, strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)


def test_another_device_is_refused(folder):
    with pytest.raises(InputError, match="device='cpu'"):
        load(folder / "v", device="cuda")
