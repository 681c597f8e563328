"""What every performer keeps: its callers need to know no more than `ditto.performer` says."""

from functools import cache

import numpy as np
import pytest
from block_performer import BLOCK, BlockPerformer
from drawn import drawn_portrait

from ditto.controls import Controls
from ditto.errors import SessionError
from ditto.frame import SegmentEnd
from ditto.motion.emotion import emotion_vector
from ditto.motion.motion import CHEEKS, EXPRESSION, KEYPOINTS, LIPS, UPPER_LIDS, Motion
from ditto.performer import Advance, Capability, Draw, Edits, Idle, Performer
from ditto.stream import Stream
from ditto.talking_head import TalkingHead, load

LATENT = "v", "rap", "v motion"
PERFORMERS = "lite", "full", "block", *LATENT
NEUTRAL = emotion_vector(None)
FRAME = 640  # samples; BLOCK, 16 frames, is also that of V and RAP once a stream runs
PORTRAIT = drawn_portrait()


@cache
def lite():
    return load("lite").performer


@cache
def block():
    return BlockPerformer()


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    pytest.importorskip("torch", reason="the full bundle needs torch (pip install ditto[full])")
    from checkpoints import convert_tiny, publish

    from ditto.full.networks import decoder

    folder = tmp_path_factory.mktemp("contract")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoder, "HIDDEN", 4)  # of 128: most of the work of a frame
        publish(folder)
        yield load(convert_tiny(folder, folder / "bundle" / "full").path).performer


@pytest.fixture(scope="module")
def latent(tmp_path_factory):
    """The performers of V and RAP with tiny random networks, and of V with a condition on motion."""
    pytest.importorskip("torch", reason="V and RAP need torch (pip install ditto[full])")
    from latent_bundles import write_tiny

    folder = tmp_path_factory.mktemp("latent")
    return {system: load(write_tiny(folder / system, system).path).performer for system in LATENT}


@pytest.fixture(params=PERFORMERS)
def performer(request) -> Performer:
    if request.param == "full":
        return request.getfixturevalue("full")
    if request.param in LATENT:
        return request.getfixturevalue("latent")[request.param]
    return {"lite": lite, "block": block}[request.param]()


@pytest.fixture
def head(performer):
    return TalkingHead(None, performer, max_sessions=2)


def speech(frames, seed=0):
    """As many frames of something that gets louder and softer."""
    random = np.random.default_rng(seed)
    loud = np.repeat(random.uniform(0.0, 0.3, frames), FRAME)
    return (loud * random.standard_normal(frames * FRAME)).astype(np.float32)


def shots_of(performer, samples, latency="low", seed=0, state=None):
    """All shots of an utterance, and the state after it."""
    if state is None:
        state = performer.begin(performer.prepare(PORTRAIT), seed, latency)
    hop, shots = performer.hop_samples, []
    for start in range(0, max(1, samples.size), hop):
        piece = samples[start : start + hop]
        done = performer.advance([Advance(state, piece, NEUTRAL, final=start + hop >= samples.size)])[0]
        shots += done.shots
        state = done.state
    return shots, state


def pictures_of(performer, shots, seed=0):
    """Pictures of the first shot and of the last two; a face may go on from any other."""
    face, pictures = performer.face(performer.prepare(PORTRAIT), seed), []
    for shot in [*shots[:1], *shots[1:][-2:]]:
        drawn = performer.draw([Draw(face, shot, Edits.none())])[0]
        face = drawn.face
        pictures.append(drawn)
    return pictures


def frames_of(head, samples, **options):
    stream = Stream(head, PORTRAIT, **{"latency": "low", **options})
    return stream.push(samples) + stream.flush()


def few(performer, frames):
    """So many frames, or as few as a performer that draws slowly can show the same with."""
    return min(frames, 7) if performer.motion_space is not None and performer.motion_space.name == "full" else frames


def same(some, others):
    assert len(some) == len(others)
    for one, other in zip(some, others, strict=True):
        np.testing.assert_array_equal(one.image, other.image)


def size_of(state):
    """About how much a state holds: bytes of its arrays, and its other values."""
    seen, total, left = set(), 0, [state]
    while left:
        value = left.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, np.ndarray):
            total += value.nbytes
        elif isinstance(value, dict):
            left += value.values()
        elif isinstance(value, (list, tuple, set)):
            left += value
        elif hasattr(value, "__dataclass_fields__"):
            left += [getattr(value, name) for name in value.__dataclass_fields__ if name not in ("sampler", "appearance")]
    return total


@pytest.mark.parametrize("frames", [1, 17, 40])
def test_any_chunking_gives_the_same_frames(head, frames):
    samples = speech(few(head.performer, frames))
    whole = frames_of(head, samples)
    stream, pieces = head.stream(PORTRAIT, latency="low"), []
    for start in range(0, samples.size, 977):
        pieces += stream.push(samples[start : start + 977])
    same(pieces + stream.flush(), whole)


@pytest.mark.parametrize("samples", [0, 1, FRAME, FRAME + 1, 16 * FRAME, 23 * FRAME - 1])
def test_an_utterance_has_a_frame_for_every_forty_milliseconds_begun(performer, samples):
    shots, _ = shots_of(performer, speech(23)[:samples])
    assert len(shots) == -(-samples // FRAME)


def test_an_utterance_with_pauses_has_all_of_its_frames(performer):
    samples, hop, shots = speech(few(performer, 40)), performer.hop_samples, []
    state = performer.begin(performer.prepare(PORTRAIT), 0, "low")
    for number, start in enumerate(range(0, samples.size, hop), 1):
        done = performer.advance([Advance(state, samples[start : start + hop], NEUTRAL, start + hop >= samples.size)])[0]
        shots, state = [*shots, *done.shots], done.state
        if number % 5 == 1 and start + hop < samples.size:
            done = performer.advance([Advance(state, samples[:0], NEUTRAL, pause=True)])[0]
            shots, state = [*shots, *done.shots], performer.idle([Idle(done.state, NEUTRAL)])[0].state
    assert len(shots) == -(-samples.size // FRAME)
    if Capability.REDRAW in performer.supports:
        same(pictures_of(performer, shots), pictures_of(performer, shots_of(performer, samples)[0]))


def test_the_same_seed_gives_the_same_pictures_and_another_does_not(head):
    samples = speech(few(head.performer, 24))
    first = frames_of(head, samples, seed=3)
    same(frames_of(head, samples, seed=3), first)
    other = frames_of(head, samples, seed=4)
    differ = [(a.image != b.image).any() for a, b in zip(first, other, strict=True)]
    if Capability.MOTION in head.performer.supports:  # of which a tiny renderer may show little
        differ = [(a.motion.values != b.motion.values).any() for a, b in zip(first, other, strict=True)]
    assert any(differ)


def test_streams_that_take_turns_do_not_mix(head):
    samples = [speech(few(head.performer, 20), seed) for seed in (1, 2)]
    alone = [frames_of(head, s, seed=n) for n, s in enumerate(samples)]
    streams, found = [head.stream(PORTRAIT, seed=n, latency="low") for n in range(2)], [[], []]
    for start in range(0, samples[0].size, 1500):
        for n in range(2):
            found[n] += streams[n].push(samples[n][start : start + 1500])
    for n in range(2):
        same(found[n] + streams[n].flush(), alone[n])


def test_a_batch_gives_what_each_stream_gets_alone(performer):
    appearance, hop = performer.prepare(PORTRAIT), performer.hop_samples
    states = [performer.begin(appearance, seed, "low") for seed in range(3)]
    alone, together = list(states), list(states)
    for step in range(6):
        pieces = [speech(-(-6 * hop // FRAME), seed)[step * hop : (step + 1) * hop] for seed in range(3)]
        jobs = [Advance(state, piece, NEUTRAL) for state, piece in zip(together, pieces, strict=True)]
        found = performer.advance(jobs)
        for n, piece in enumerate(pieces):
            one = performer.advance([Advance(alone[n], piece, NEUTRAL)])[0]
            same(pictures_of(performer, found[n].shots), pictures_of(performer, one.shots))
            alone[n], together[n] = one.state, found[n].state


def test_an_old_state_can_be_gone_on_from_again(performer):
    """States and faces are values: what was computed since leaves no trace in them."""
    appearance, hop = performer.prepare(PORTRAIT), performer.hop_samples
    state = performer.begin(appearance, 0, "low")
    for _ in range(4):
        state = performer.advance([Advance(state, speech(40)[:hop], NEUTRAL)])[0].state
    first = shots_of(performer, speech(12), state=state)[0]
    shots_of(performer, speech(30, 5), state=state)
    again = shots_of(performer, speech(12), state=state)[0]
    same(pictures_of(performer, first), pictures_of(performer, again))
    face = performer.face(appearance, 0)
    for shot in first[:3]:
        face = performer.draw([Draw(face, shot, Edits.none())])[0].face
    one = performer.draw([Draw(face, first[3], Edits.none())])[0]
    performer.draw([Draw(one.face, first[4], Edits.none())])
    np.testing.assert_array_equal(performer.draw([Draw(face, first[3], Edits.none())])[0].image, one.image)


def test_a_state_does_not_grow(performer):
    state = performer.begin(performer.prepare(PORTRAIT), 0, "low")
    hop, sizes = performer.hop_samples, []
    for step in range(40 if hop < 8000 else 12):
        state = performer.advance([Advance(state, speech(40, step)[:hop], NEUTRAL)])[0].state
        sizes.append(size_of(state))
    assert max(sizes[len(sizes) // 2 :]) <= 1.5 * max(sizes[: len(sizes) // 2])


def test_frames_come_after_the_delay_that_is_told(performer):
    """Fed in tiny pieces, no frame waits longer than `delay_seconds` for its last sample, and one waits as long."""
    for latency in performer.latencies:
        state = performer.begin(performer.prepare(PORTRAIT), 0, latency)
        hop, given, heard, late = performer.hop_samples, 0, 0, 0.0
        while given < 130:
            done = performer.advance([Advance(state, np.zeros(hop, np.float32), NEUTRAL)])[0]
            state, heard = done.state, heard + hop
            if done.shots:
                late = max(late, heard / 16000 - given / 25)
            given += len(done.shots)
        assert late == pytest.approx(performer.delay_seconds(latency))


def test_unknown_latencies_are_refused(performer):
    with pytest.raises(ValueError, match=r"expected a latency of .*got 'fast'"):
        performer.delay_seconds("fast")
    with pytest.raises(ValueError, match=r"expected a latency of .*got 'fast'"):
        performer.begin(performer.prepare(PORTRAIT), 0, "fast")


def test_what_another_performer_made_is_refused(performer):
    stranger = block() if not isinstance(performer, BlockPerformer) else lite()
    state = stranger.begin(stranger.prepare(PORTRAIT), 0, "low")
    with pytest.raises(TypeError, match="only values that the same performer returned"):
        performer.advance([Advance(state, np.zeros(performer.hop_samples, np.float32), NEUTRAL)])


def test_pictures_have_motion_where_the_performer_says_so(performer):
    picture = pictures_of(performer, shots_of(performer, speech(2))[0])[0]
    assert picture.image.shape == PORTRAIT.picture.shape and picture.image.dtype == np.uint8
    if Capability.MOTION in performer.supports:
        assert isinstance(picture.motion, Motion) and picture.motion.values.shape == (70,)
        assert performer.motion_space is not None
    else:
        assert picture.motion is None and performer.motion_space is None


def test_idle_pictures_follow_from_the_seed(performer):
    if Capability.IDLE not in performer.supports:
        pytest.skip("no idle")

    def idle(seed):
        state, shots = performer.begin(performer.prepare(PORTRAIT), seed, "low"), []
        while len(shots) < 6:
            done = performer.idle([Idle(state, NEUTRAL)])[0]
            shots += done.shots
            state = done.state
        return pictures_of(performer, shots[:6], seed)

    same(idle(1), idle(1))


def test_controls_emotions_and_styles_act_or_are_refused(head, performer):
    asked = {
        Capability.CONTROLS: ({"controls": Controls(gaze=(9.0, 0.0))}, {"still": True}),
        Capability.HEAD: ({"controls": Controls(yaw_degrees=9.0)},),
        Capability.EMOTION: ({"emotion": {"happy": 1.0}},),
        Capability.STYLE: ({"style": "calm"}, {"style": 1.5}),
    }
    for capability, options in asked.items():
        for option in options:
            if capability in performer.supports:
                assert frames_of(head, speech(2), **option)
            else:
                missing = "(controls|head pose)" if capability is Capability.HEAD else capability.value
                with pytest.raises(ValueError, match=f"does not support {missing}"):
                    head.stream(PORTRAIT, **option)
                with pytest.raises(ValueError, match=f"does not support {missing}"):
                    head.blocking_session(PORTRAIT, any_speed=True, **option)


def test_neutral_controls_change_nothing(head, performer):
    if Capability.CONTROLS not in performer.supports:
        pytest.skip("no controls")
    same(frames_of(head, speech(3), controls=Controls()), frames_of(head, speech(3)))


def test_the_natural_style_is_none_at_all(head):
    same(frames_of(head, speech(3), style="natural"), frames_of(head, speech(3)))
    same(frames_of(head, speech(3), style=1), frames_of(head, speech(3)))


def test_a_style_changes_the_head_and_no_lip(head, performer):
    if not {Capability.STYLE, Capability.MOTION} <= performer.supports:
        pytest.skip("no style, or no motion to see it in")
    samples, space = speech(few(performer, 30)), performer.motion_space
    natural, calm = (
        space.to_head(np.array([frame.motion.values for frame in frames_of(head, samples, style=style)]), PORTRAIT)
        for style in ("natural", 0.45)
    )
    np.testing.assert_allclose(calm[:, : EXPRESSION.start], 0.45 * natural[:, : EXPRESSION.start], atol=1e-4)
    natural, calm = (v[:, EXPRESSION].reshape(-1, KEYPOINTS, 3)[:, [*LIPS, *UPPER_LIDS, *CHEEKS]] for v in (natural, calm))
    np.testing.assert_allclose(calm, natural, rtol=2e-5, atol=1e-5)


def test_a_session_takes_on_a_style_or_refuses_it(head, performer):
    with head.blocking_session(PORTRAIT, idle=False, any_speed=True) as session:
        session.control(style="natural")
        if Capability.STYLE in performer.supports:
            session.control(style="lively", ramp_seconds=0.0)
        else:
            with pytest.raises(ValueError, match="does not support style"):
                session.control(style="lively")


def test_a_session_gives_the_pictures_of_a_stream(head, performer):
    count = few(performer, 20)
    samples = speech(count)
    with head.blocking_session(PORTRAIT, idle=False, seed=0, any_speed=True) as session:
        assert session.delay_seconds == performer.delay_seconds("low")
        for start in range(0, samples.size, 1000):
            session.push(samples[start : start + 1000])
        session.flush()
        frames = []
        while not isinstance(item := session.get(60.0), SegmentEnd):
            frames.append(item)
    same(frames, frames_of(head, samples, seed=0))
    assert [frame.speech_index for frame in frames] == list(range(count))
    sound = np.concatenate([frame.audio for frame in frames])
    np.testing.assert_array_equal(sound, samples)


def test_a_session_of_motion_gives_the_motions_of_the_pictures_or_is_refused(head, performer):
    options = {"idle": False, "seed": 2, "output": "motion"}
    if Capability.MOTION not in performer.supports:
        with pytest.raises(ValueError, match="does not support motion"):
            head.blocking_session(PORTRAIT, **options)
        shot = shots_of(performer, speech(1))[0][0]
        with pytest.raises(ValueError, match="motion"):
            performer.move([Draw(performer.face(performer.prepare(PORTRAIT), 0), shot, Edits.none())])
        return
    samples = speech(few(performer, 20))
    with head.blocking_session(PORTRAIT, **options) as session:
        session.push(samples)
        session.flush()
        frames = []
        while not isinstance(item := session.get(60.0), SegmentEnd):
            frames.append(item)
    for mine, drawn in zip(frames, frames_of(head, samples, seed=2), strict=True):
        np.testing.assert_array_equal(mine.motion.values, drawn.motion.values)
        assert mine.image.shape == (0, 0, 3)


def test_a_session_is_idle_speaks_is_interrupted_and_comes_to_rest(head, performer):
    with head.blocking_session(PORTRAIT, seed=0, any_speed=True) as session:
        assert session.get(60.0).kind == "idle"
        session.push(speech(60))
        kinds = []
        while kinds.count("speech") < 3:
            kinds.append(session.get(60.0).kind)
        assert session.interrupt() == 3 * 40
        rest = [session.get(60.0) for _ in range(24)]
        assert all(item.kind != "speech" and item.epoch == 1 and not item.audio.any() for item in rest)
        assert rest[0].kind == "transition" and rest[-1].kind == "idle"
        if Capability.REDRAW not in performer.supports:  # the rest of the block that was being read, and no more
            assert [item.kind for item in rest].count("transition") == BLOCK - 3
        session.push(speech(3, 7))
        session.flush()
        items = []
        while not items or not isinstance(items[-1], SegmentEnd):
            items.append(session.get(60.0))
        assert [item.speech_index for item in items[:-1] if item.kind == "speech"] == [0, 1, 2]


def test_a_reader_that_stops_holds_back_the_work(performer):
    """Speech for half an hour is not computed ahead of a reader who takes nothing."""
    head = TalkingHead(None, performer, max_sessions=1)
    with head.blocking_session(PORTRAIT, idle=False, any_speed=True) as session:
        for _ in range(5):
            session.push(speech(100))
        first = session.get(60.0)
        assert first.speech_index == 0
        session.interrupt()
    with pytest.raises(SessionError):
        session.push(speech(1))
