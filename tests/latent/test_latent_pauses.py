"""A pause in the speech: what is there is said, then silence is heard and shown, and the rest goes on where it stopped."""

import numpy as np
import pytest
from actors import HandClock, at_rest
from drawn import drawn_portrait

torch = pytest.importorskip("torch", reason="V and RAP need torch")

from latent_bundles import tiny_parts  # noqa: E402

from ditto.controls import Controls  # noqa: E402
from ditto.controls.timeline import Timeline  # noqa: E402
from ditto.frame import Frame  # noqa: E402
from ditto.latent.bundling import performer_of  # noqa: E402
from ditto.live import Scheduler, Session  # noqa: E402
from ditto.live.settings import Settings  # noqa: E402
from ditto.motion.emotion import EMOTIONS, emotion_vector  # noqa: E402
from ditto.performer import Advance, Edits, Idle  # noqa: E402
from ditto.talking_head import TalkingHead  # noqa: E402

SYSTEMS = "v", "rap"
FIRST_BLOCK = {"v": 13, "rap": 17}
BLOCK = 16  # frames of every later one
PORTRAIT = drawn_portrait(256)
NEUTRAL = emotion_vector(None)
LOOK = Controls(gaze=(20.0, 0.0), blendshapes={"jawOpen": 0.5})
FRAME = 640
PAUSE = np.zeros(0, np.float32)


@pytest.fixture(scope="module")
def heads():
    return {system: TalkingHead(None, performer_of(tiny_parts(system)), max_sessions=4) for system in (*SYSTEMS, "v motion")}


@pytest.fixture(params=SYSTEMS)
def system(request):
    return request.param


@pytest.fixture
def performer(heads, system):
    return heads[system].performer


def speech(frames, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(frames * FRAME)).astype(np.float32)


def hops_of(performer, samples):
    return [samples[start : start + performer.hop_samples] for start in range(0, samples.size, performer.hop_samples)]


def edited(shot):
    return Edits(NEUTRAL, (LOOK,))


class Stream:
    """What a performer shows of one stream."""

    def __init__(self, performer, seed=0, edits=None):
        self.performer, self.edits = performer, edits
        self.state = performer.begin(performer.prepare(PORTRAIT), seed, "low")
        self.spoken, self.idled = [], []

    def say(self, hops, final=False):
        for number, hop in enumerate(hops, 1):
            self.advance(Advance(self.state, hop, NEUTRAL, final and number == len(hops), self.edits))

    def pause(self):
        self.advance(Advance(self.state, PAUSE, NEUTRAL, edits=self.edits, pause=True))

    def advance(self, job):
        (done,) = self.performer.advance([job])
        self.spoken += done.shots
        self.state = done.state

    def idle(self):
        (done,) = self.performer.idle([Idle(self.state, NEUTRAL, self.edits)])
        self.idled += done.shots
        self.state = done.state


def same(some, others):
    pairs = zip(some, others, strict=True)
    return len(some) == len(others) and all((one.pixels == other.pixels).all() for one, other in pairs)


def rows_heard(performer, monkeypatch):
    """The rows of speech that the generator gets, block by block."""
    rows, generator = [], performer.generators["low"]
    generate = generator.generate

    def recorded(states, given, motion=None):
        rows.append(given[0].numpy().copy())
        return generate(states, given, motion)

    monkeypatch.setattr(generator, "generate", recorded)
    return rows


def encoded(performer, samples):
    """The features of some speech."""
    heard = performer.initial_hearing()
    silence = np.zeros(performer.hop_samples, np.float32)
    for hop in [*hops_of(performer, samples), silence]:
        hop = np.pad(hop, (0, performer.hop_samples - hop.size))
        heard = heard.accept(*performer.speech.encoder.step_batch([hop], [heard.encoder])[0])
    return heard.rows


@pytest.mark.parametrize("hops", [1, 3, 8])
def test_what_is_there_is_said_then_silence_is_heard_and_the_rest_goes_on(performer, system, monkeypatch, hops):
    """Every row of speech is heard once and in order, around a pause at any place and of any length."""
    rows, stream = rows_heard(performer, monkeypatch), Stream(performer)
    whole = hops_of(performer, speech(60))
    per_hop = performer.hop_samples // FRAME
    stream.say(whole[:hops])
    before = len(stream.spoken)
    stream.pause()
    there = (hops - 1) * per_hop  # the encoder is one hop behind
    assert len(stream.spoken) == there
    blocks = [FIRST_BLOCK[system], *[BLOCK] * 10]
    count = len(rows)
    assert sum(blocks[:count]) - there == len(stream.state.rest) > 0
    shown = stream.state.rest
    stream.idle()
    assert same(stream.idled, shown) and not stream.state.rest
    stream.pause()  # the pause goes on
    assert len(stream.spoken) == there and len(stream.state.rest) == blocks[count]
    stream.idle()
    stream.say(whole[hops:], final=True)
    assert len(stream.spoken) == 60

    features = encoded(performer, speech(60))
    paused = encoded(performer, np.concatenate([speech(60)[: hops * performer.hop_samples], np.zeros(60 * FRAME, np.float32)]))
    silence = paused[hops * per_hop :]
    heard = np.concatenate(rows)
    quiet = sum(blocks[: count + 1]) - there
    np.testing.assert_array_equal(heard[:there], features[:there])
    np.testing.assert_allclose(heard[there : there + quiet], silence[:quiet], atol=1e-6)
    np.testing.assert_array_equal(heard[there + quiet :][: 60 - there], features[there : 60])
    assert before <= there


def test_the_same_pauses_give_the_same_bits_and_a_pause_changes_what_follows(performer):
    def streamed(paused, seed=0):
        stream, whole = Stream(performer, seed), hops_of(performer, speech(40))
        stream.say(whole[:3])
        if paused:
            stream.pause()
            stream.idle()
        stream.say(whole[3:], final=True)
        return stream.spoken

    assert same(streamed(True), streamed(True))
    assert not same(streamed(True), streamed(False))
    assert not same(streamed(True), streamed(True, 1))


def test_speech_that_comes_at_once_leaves_out_the_silence_that_was_made(performer):
    stream, whole = Stream(performer), hops_of(performer, speech(40))
    stream.say(whole[:3])
    stream.pause()
    rest = stream.state.rest
    stream.say(whole[3:4])
    assert stream.state.rest == rest  # no block yet: a further pause begins with it
    stream.say(whole[4:], final=True)
    assert len(stream.spoken) == 40 and not stream.idled


def test_an_interrupt_in_a_pause_says_nothing_of_what_was_dropped(performer):
    """Idle frames are the rest of the block, then silence, whatever speech was held; the next utterance begins anew."""
    idled = []
    for seed in (1, 2):
        stream = Stream(performer)
        stream.say(hops_of(performer, speech(40))[:3])
        stream.pause()
        stream.say(hops_of(performer, speech(40, seed))[3:4])
        stream.idle()
        stream.idle()
        idled.append(stream.idled)
        state = performer.begin(performer.prepare(PORTRAIT), 5, "low", after=stream.state)
        assert not state.rest and state.silence is None and state.shown == 0 and len(state.speech.rows) == 0
    assert same(*idled) and len(idled[0]) > BLOCK


def test_a_pause_in_a_batch_is_what_it_is_alone(performer):
    states = [performer.begin(performer.prepare(PORTRAIT), seed, "low") for seed in range(3)]
    hops = [hops_of(performer, speech(40, seed)) for seed in range(3)]
    alone = list(states)
    for step in range(-(-30 * FRAME // performer.hop_samples)):
        def job(place, state):
            pause = place == 1 and step in (2, 3)  # noqa: B023
            return Advance(state, PAUSE if pause else hops[place][step], NEUTRAL, pause=pause)  # noqa: B023

        found = performer.advance([job(place, state) for place, state in enumerate(states)])
        single = [performer.advance([job(place, state)])[0] for place, state in enumerate(alone)]
        for one, other in zip(found, single, strict=True):
            assert len(one.shots) == len(other.shots) and len(one.state.rest) == len(other.state.rest)
            for a, b in zip([*one.shots, *one.state.rest], [*other.shots, *other.state.rest], strict=True):
                assert np.abs(a.pixels.astype(int) - b.pixels).max() <= 1  # a batch may move a feature by 4e-6
        states, alone = [one.state for one in found], [one.state for one in single]


@pytest.mark.parametrize("system", ["rap", "v motion"])
def test_a_state_does_not_grow_over_many_pauses(performer):
    stream, sizes = Stream(performer, edits=edited), []
    for hop in hops_of(performer, speech(100))[:7]:
        stream.say([hop])
        stream.pause()
        stream.idle()
        state = stream.state
        sizes.append((len(state.speech.rows), len(state.silence.rows), 0 if state.motion is None else len(state.motion.rows)))
    assert max(sizes[3:]) <= max(sizes[:3])


def test_a_job_of_a_pause_has_no_samples_and_ends_nothing(performer):
    state = performer.begin(performer.prepare(PORTRAIT), 0, "low")
    for samples, final in ((speech(1), False), (PAUSE, True), (np.zeros(performer.hop_samples, np.float32), False)):
        with pytest.raises(ValueError, match="none with pause=True, got"):
            performer.advance([Advance(state, samples, NEUTRAL, final, pause=True)])


def test_motion_goes_on_through_a_pause(heads, monkeypatch):
    """Before the pause it is that of the speech without one, and after it each frame has its own row again."""
    performer = heads["v motion"].performer
    blocks, follow = [], performer.motion.follow

    def recorded(jobs):
        found = follow(jobs)
        blocks.append(found[0].motion)
        return found

    monkeypatch.setattr(performer.motion, "follow", recorded)
    whole = hops_of(performer, speech(60))
    plain = Stream(performer, edits=edited)
    plain.say(whole, final=True)
    motion, blocks[:] = np.concatenate(blocks), []
    for rounds in (1, 3):
        blocks[:] = []
        stream = Stream(performer, edits=edited)
        stream.say(whole[:9])  # 13 frames, then 3 of the 16 frames of the next block
        for _ in range(rounds):
            stream.pause()
            stream.idle()
            assert stream.state.motion.heard == len(stream.state.motion.rows) == 0
        stream.say(whole[9:], final=True)
        found = np.concatenate(blocks)
        assert len(stream.spoken) == 60 and len(found) >= 60 + 13 + BLOCK * (rounds - 1)
        np.testing.assert_array_equal(found[:16], motion[:16])
        borders = np.cumsum([len(block) for block in blocks])[:-1]
        assert np.abs(found[borders] - found[borders - 1]).max() < 2 * np.abs(np.diff(motion, axis=0)).max()  # no jump


class Show:
    """A session on a clock that is moved by hand, and all that it gave."""

    def __init__(self, head, **options):
        self.clock = HandClock()
        self.scheduler = Scheduler(head.performer, 4, self.clock)
        settings = Settings(any_speed=True, **options)
        self.session = Session(self.scheduler, PORTRAIT, lambda: head.appearance(PORTRAIT), settings)
        self.items, self.start, self.passed = [], self.clock.time, 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.session.close()

    def play(self, frames, late=False):
        """Read for as many frames of the clock; the kinds of what came. Unless `late`, nothing ever stands still."""
        count = len(self.items)
        for _ in range(frames):
            while True:
                assert at_rest(self.scheduler)
                item = self.session.get(0.0)
                if item is None:
                    break
                self.items.append(item)
                if isinstance(item, Frame) and not late:
                    assert self.clock.time - self.start <= item.index / 25 + 0.001
            self.tick()
        return "".join(item.kind[0] if isinstance(item, Frame) else "|" for item in self.items[count:])

    def tick(self):
        """Let the time of a frame pass."""
        self.passed += 1
        self.clock.advance(self.start + self.passed / 25 + 1e-6 - self.clock.time)

    @property
    def frames(self):
        return [item for item in self.items if isinstance(item, Frame)]

    @property
    def sound(self):
        return np.concatenate([frame.audio for frame in self.frames if frame.kind == "speech"])


def check_frames(show, samples):
    """All of an utterance's sound is there, once and in order, each frame with its own; silence elsewhere."""
    speaking = [frame for frame in show.frames if frame.kind == "speech"]
    assert [frame.speech_index for frame in speaking] == list(range(-(-samples.size // FRAME)))
    np.testing.assert_array_equal(show.sound[: samples.size], samples)
    assert not show.sound[samples.size :].any()
    assert [frame.index for frame in show.frames] == list(range(len(show.frames)))
    assert not any(frame.audio.any() for frame in show.frames if frame.kind != "speech")


@pytest.mark.parametrize("stall", [8, 40, 100])  # frames
def test_idle_frames_fill_a_pause_and_the_speech_goes_on_after_it(heads, system, stall):
    samples = speech(90)
    cut = 33 * FRAME
    with Show(heads[system]) as show:
        before = show.play(4)
        show.session.push(samples[:cut])
        show.play(33 + FIRST_BLOCK[system] - 4 + stall)
        show.session.push(samples[cut:])
        show.session.flush()
        after = show.play(90 + 3 * BLOCK)
        check_frames(show, samples)
    kinds = "".join(frame.kind[0] for frame in show.frames)
    runs = [len(run) for run in kinds.strip("i").split("s") if run]
    assert "|" in after and "s" not in before
    assert stall - BLOCK < sum(runs) < stall + 2 * BLOCK and len(runs) == 1  # one pause, longer by at most a block


def test_the_first_words_of_an_utterance_that_stops_at_once_are_said(heads, system):
    """Half a block of speech, and no more for two seconds."""
    samples = speech(40)
    with Show(heads[system]) as show:
        show.play(2)
        show.session.push(samples[: 10 * FRAME])
        kinds = show.play(60)
        assert 4 <= kinds.count("s") <= 8 and kinds.endswith("i" * 25)
        show.session.push(samples[10 * FRAME :])
        show.session.flush()
        show.play(80)
        check_frames(show, samples)


def test_speech_at_the_speed_of_talk_is_no_pause(heads, system):
    """It is never cut, however small the pieces: the first block waits for its speech, and the others follow it."""
    samples = speech(80)
    with Show(heads[system]) as show:
        show.play(5)
        for start in range(0, samples.size, FRAME):
            show.session.push(samples[start : start + FRAME])
            show.play(1, late=True)
        show.session.flush()
        show.play(60, late=True)
        check_frames(show, samples)
    kinds = "".join(frame.kind[0] for frame in show.frames)
    assert "s" * 80 in kinds


def test_an_interrupt_in_a_pause_says_what_was_read_and_the_next_utterance_is_whole(heads, system):
    samples = speech(50)
    with Show(heads[system]) as show:
        show.play(2)
        show.session.push(samples[: 30 * FRAME])
        kinds = show.play(30 + FIRST_BLOCK[system] + 20)
        assert kinds.endswith("iiiii")
        assert show.session.interrupt() == 40 * kinds.count("s")
        rest = show.play(30)
        assert set(rest) <= {"t", "i"} and "i" in rest
        show.items.clear()
        show.session.push(samples)
        show.session.flush()
        assert show.play(50 + 3 * BLOCK).count("|") == 1
        assert {frame.epoch for frame in show.frames if frame.kind == "speech"} == {1}
        np.testing.assert_array_equal(show.sound, samples)


def test_a_flush_in_a_pause_says_the_rest(heads, system):
    samples = speech(30)[:-77]
    with Show(heads[system]) as show:
        show.play(2)
        show.session.push(samples)
        kinds = show.play(30 + FIRST_BLOCK[system] + 20)
        assert kinds.endswith("iiiii") and "|" not in kinds
        show.session.flush()
        assert "s|" in show.play(3 * BLOCK)
        check_frames(show, samples)


def test_a_pause_of_one_session_is_none_of_another(heads, system):
    head = heads[system]
    samples = speech(60)
    with Show(head) as show:
        settings = Settings(any_speed=True, seed=3)
        other = Session(show.scheduler, PORTRAIT, lambda: head.appearance(PORTRAIT), settings)
        with other:
            show.play(2)
            show.session.push(samples[: 30 * FRAME])
            other.push(samples)
            other.flush()
            kinds = []
            for _ in range(120):
                show.play(1)
                kinds += [item for _ in range(3) if (item := other.get(0.0)) is not None]
            spoken = [item for item in kinds if isinstance(item, Frame) and item.kind == "speech"]
            np.testing.assert_array_equal(np.concatenate([frame.audio for frame in spoken]), samples)
            numbers = [item.index for item in spoken]
            assert numbers == list(range(numbers[0], numbers[0] + 60))  # in one piece
            show.session.push(samples[30 * FRAME :])
            show.session.flush()
            show.play(60)
            check_frames(show, samples)


def test_a_reader_that_stopped_reading_makes_no_frames_of_a_pause(heads, system):
    with Show(heads[system]) as show:
        show.play(2)
        show.session.push(speech(40))
        for _ in range(200):
            assert at_rest(show.scheduler)
            show.tick()
        assert show.session.unread <= 40
        kinds = "".join(
            item.kind[0] for _ in range(60) if at_rest(show.scheduler) and (item := show.session.get(0.0)) is not None
        )
        assert kinds.count("i") <= FIRST_BLOCK[system] + BLOCK


def test_speech_alone_waits(heads, system):
    """With `idle=False` nothing fills a pause."""
    samples = speech(40)
    with Show(heads[system], idle=False) as show:
        show.session.push(samples[: 30 * FRAME])
        show.clock.advance(60.0)
        assert at_rest(show.scheduler)
        early = [item for _ in range(40) if at_rest(show.scheduler) and (item := show.session.get(0.0)) is not None]
        show.session.push(samples[30 * FRAME :])
        show.session.flush()
        late = [item for _ in range(60) if at_rest(show.scheduler) and (item := show.session.get(0.0)) is not None]
    items = [*early, *late]
    assert len(early) < 30 and [item.kind for item in items[:-1]] == ["speech"] * 40


def test_a_timeline_and_a_change_act_in_a_pause(heads):
    """Frames are counted through a pause: a timeline goes on in it, and a change comes with the next block."""
    samples = speech(50)
    with Show(heads["v motion"]) as show:
        show.play(2)
        show.session.push(samples[: 30 * FRAME])
        show.play(50)
        asked, state = [], show.session._opened()
        look_up = state._edits_at
        state._edits_at = lambda ramps, cues, frame: asked.append(frame) or look_up(ramps, cues, frame)
        show.session.control(timeline=Timeline().layer({"gaze.right": [(0.0, 0), (3.0, 20)]}))
        kinds = show.play(40)
        assert "s" not in kinds and asked
        show.session.push(samples[30 * FRAME :])
        show.session.flush()
        show.play(60)
        check_frames(show, samples)
        numbers = sorted(set(asked))
        assert numbers == list(range(numbers[0], numbers[-1] + 1))


def test_idle_blocks_are_made_before_their_frames_are_due(heads, system, monkeypatch):
    """And none is made for a frame that is due already."""
    performer = heads[system].performer
    with Show(heads[system]) as show:
        show.play(2)
        state = show.session._opened()
        made, idle = [], performer.idle

        def recorded(jobs):
            made.append((show.clock.time - show.start, jobs[0].ahead, bool(jobs[0].state.rest), state._next_new))
            return idle(jobs)

        monkeypatch.setattr(performer, "idle", recorded)
        state._block_seconds = 0.2
        assert set(show.play(60)) == {"i"}
    ahead = [(time, frame) for time, first, _, frame in made if first]
    assert len(ahead) >= 3 and all(frame / 25 - time > 0.1 for time, frame in ahead)
    assert all(held for _, first, held, _ in made if not first)


def test_a_change_begins_with_the_first_frame_that_is_not_made_yet(heads):
    with Show(heads["v motion"]) as show:
        show.play(2)
        state = show.session._opened()
        state._block_seconds = 0.5
        while not state._held:
            show.play(1)
        held, first = state._held, state._next_new
        show.session.control(gaze=(20.0, 0.0), ramp_seconds=0.4)
        looks = [state._edits_at(state._ramps, state._cues, frame).controls for frame in range(first, first + held + 2)]
        assert not any(looks[:held]) and all(looks[held:])


def test_without_idle_frames_a_change_begins_with_the_next_frame_of_speech(heads):
    with Show(heads["v motion"], idle=False) as show:
        show.session.push(speech(5))
        show.session.flush()
        assert show.play(8) == "sssss|"
        state = show.session._opened()
        show.session.control(gaze=(20.0, 0.0), ramp_seconds=0.4)
        assert state._held and state._edits_at(state._ramps, state._cues, 5).controls


def test_an_interrupt_while_an_idle_block_is_made_drops_it(heads, system, monkeypatch):
    performer = heads[system].performer
    with Show(heads[system]) as show:
        show.play(2)
        state, idle, dropped = show.session._opened(), performer.idle, []

        def interrupted(jobs):
            if jobs[0].ahead and not dropped:
                show.session.interrupt()
                found = idle(jobs)
                dropped.append(found[0].state)
                return found
            return idle(jobs)

        monkeypatch.setattr(performer, "idle", interrupted)
        kinds = show.play(40, late=True)
        assert dropped and state._performer_state is not dropped[0] and set(kinds) <= {"i", "t"}
        assert [frame.index for frame in show.frames] == list(range(len(show.frames)))


def test_a_change_before_an_interrupt_begins_with_the_first_frame_that_is_made_after_it(heads):
    with Show(heads["v motion"]) as show:
        show.play(2)
        show.session.push(speech(90))
        assert at_rest(show.scheduler)  # nobody reads
        show.session.control(gaze=(20.0, 0.0), ramp_seconds=0.4)
        show.session.control(timeline=Timeline().layer({"emotion.happy": 1.0}), ramp_seconds=0.4)
        state = show.session._opened()
        late = state._next_new
        show.session.interrupt()
        first = state._next_new + state._held
        assert first < late - BLOCK // 2
        looks = [state._edits_at(state._ramps, state._cues, frame) for frame in range(first, first + 11)]
        assert all(look.controls for look in looks) and looks[-1].controls[0].gaze == (20.0, 0.0)
        assert looks[-1].emotion[EMOTIONS.index("happy")] > 0.9
