"""The output queue: every item comes once and in order, whatever is drawn again or interrupted."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis.strategies import integers, lists, sampled_from, tuples

from ditto.frame import Frame, SegmentEnd
from ditto.live.intake import Intake
from ditto.live.pictures import NO_UTTERANCE, PictureQueue, Position, QueuedShot, ShotGroup
from ditto.live.utterance import Utterance
from ditto.media.rates import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from ditto.motion.emotion import emotion_vector
from ditto.performer import Face, Shot, State

SIZE = SAMPLES_PER_FRAME
PICTURE = np.zeros((2, 2, 3), np.uint8)
CALM = emotion_vector(None)


def utterance(frames, epoch=0, ended=True):
    """An utterance with the sound of so many frames, each of which holds its own number."""
    intake, spoken = Intake(SAMPLE_RATE, SIZE), Utterance(epoch, lambda performer_state: State(), SIZE)
    intake.push(np.repeat(np.arange(frames, dtype=np.float32), SIZE), SAMPLE_RATE, 0)
    if ended:
        intake.end_utterance()
    while len(intake):
        spoken.next_job(intake.take(), CALM, None)
    spoken.publish()
    return spoken


def group_of(speech, first, count):
    """Shots of an utterance that came from one call of the performer."""
    group = ShotGroup(State())
    return [QueuedShot(Shot(), group, speech, first + i, 0.0) for i in range(count)]


def idle_shot(group=None):
    return QueuedShot(Shot(), group or ShotGroup(State()), None, 0, 0.0)


def finish(queue, shot):
    """A shot that was taken is drawn."""
    speech, index = shot.utterance, queue.last_drawn.frames
    epoch = NO_UTTERANCE if speech is None else speech.epoch
    kind = "speech" if speech is not None else "transition" if shot.interrupted else "idle"
    number = None if speech is None else shot.number
    frame = Frame(PICTURE, index, index / FPS, shot.sound, None, kind, epoch, number)
    queue.add_picture(frame, shot, Position(Face(), index + 1, epoch))


def draw(queue, count=1):
    """Draw the next shots, as far as there are any, and let ends pass."""
    queue.forward_ends()
    for _ in range(count):
        if (shot := queue.take_shot(SIZE)) is not None:
            finish(queue, shot)
        queue.forward_ends()


def read(queue, count=None):
    """The next `count` items; by default all."""
    items = []
    while (count is None or len(items) < count) and (item := queue.pop()) is not None:
        items.append(item)
    return items


def numbers(items):
    """What items are: (epoch, number) of speech, (epoch, "end"), or the kind."""
    out = []
    for item in items:
        if isinstance(item, SegmentEnd):
            out.append((item.epoch, "end"))
        else:
            out.append((item.epoch, item.speech_index) if item.kind == "speech" else item.kind)
    return out


@pytest.fixture(params=[True, False], ids=["redrawable", "whole groups"])
def queue(request):
    return PictureQueue(Face(), request.param)


def test_shots_come_out_as_pictures_in_order_with_their_own_sound(queue):
    speech = utterance(5)
    queue.put_shots(group_of(speech, 0, 2))
    queue.put_shots(group_of(speech, 2, 3))
    assert (queue.shots, queue.pictures) == (5, 0)
    draw(queue, 3)
    assert (queue.shots, queue.pictures) == (2, 3)
    draw(queue, 2)
    items = read(queue)
    assert numbers(items) == [(0, n) for n in range(5)]
    assert [item.index for item in items] == list(range(5))
    assert [item.audio.tolist() for item in items] == [[float(n)] * SIZE for n in range(5)]
    assert queue.pop() is None and queue.take_shot(SIZE) is None
    assert queue.last_read == queue.last_drawn and queue.last_drawn.frames == 5 and queue.last_drawn.speaking == 0


def test_a_shot_waits_for_its_sound_and_stays_where_it_is(queue):
    speech = utterance(1, ended=False)
    queue.put_shots(group_of(speech, 0, 2))
    draw(queue)
    assert queue.next_shot(SIZE) is None and queue.take_shot(SIZE) is None
    assert queue.shots == 1


def test_idle_shots_are_silent_and_ready_at_once(queue):
    shot = idle_shot()
    queue.put_shots([shot])
    assert queue.next_shot(SIZE) is shot and queue.shots == 1  # looking takes nothing
    draw(queue)
    (item,) = read(queue)
    assert item.audio.shape == (SIZE,) and not item.audio.any()
    assert queue.last_drawn.speaking == NO_UTTERANCE


def test_ends_pass_to_the_reader_once_what_comes_before_is_drawn(queue):
    first, second = SegmentEnd(0, 0.04), SegmentEnd(1, 0.0)
    queue.put_shots([*group_of(utterance(1), 0, 1), first, second])
    assert not queue.next_is_end and not queue.forward_ends() and queue.pop() is None
    queue.take_shot(SIZE)
    assert queue.next_is_end and queue.next_shot(SIZE) is None
    assert queue.forward_ends() and not queue.forward_ends() and not queue.next_is_end
    assert read(queue) == [first, second]


def test_an_end_has_the_place_of_the_picture_before_it(queue):
    queue.put_shots([*group_of(utterance(2), 0, 2), SegmentEnd(0, 0.08)])
    draw(queue, 2)
    read(queue, 2)
    before = queue.last_read
    read(queue, 1)
    assert queue.last_read is before and before.frames == 2


def test_the_first_unread_frame_is_kept_with_the_ends_before_it(queue):
    assert queue.pictures_to_keep() == 0
    queue.put_shots([*group_of(utterance(1), 0, 1), SegmentEnd(0, 0.04), *group_of(utterance(2, 1), 0, 2)])
    draw(queue, 3)
    assert queue.pictures_to_keep() == 1
    assert queue.position_after(1).frames == 1 and queue.position_after(0) is queue.last_read
    read(queue, 1)
    assert queue.pictures_to_keep() == 2 and queue.position_after(2).frames == 2
    read(queue)
    queue.put_shots([SegmentEnd(1, 0.08)])
    queue.forward_ends()
    assert queue.pictures_to_keep() == 0


def test_redrawn_shots_keep_their_order_and_sound():
    queue, speech, after = PictureQueue(Face(), True), utterance(4), utterance(1, epoch=1)
    queue.put_shots([*group_of(speech, 0, 4), SegmentEnd(0, 0.16), *group_of(after, 0, 1)])
    draw(queue, 3)
    drawing = queue.take_shot(SIZE)
    generation, keep = queue.generation, queue.position_after(1)
    queue.redraw(1, drawing)
    assert queue.generation == generation + 1 and queue.last_drawn is keep
    assert queue.pictures == 1 and queue.shots == 5
    draw(queue, 4)
    items = read(queue)
    assert numbers(items) == [(0, 0), (0, 1), (0, 2), (0, 3), (0, "end"), (1, 0)]
    frames = [item for item in items if isinstance(item, Frame)]
    assert [frame.index for frame in frames] == list(range(5))
    assert [float(frame.audio[0]) for frame in frames] == [0.0, 1.0, 2.0, 3.0, 0.0]


def test_idle_pictures_are_not_redrawn_but_made_when_due():
    queue = PictureQueue(Face(), True)
    queue.put_shots([idle_shot(), idle_shot(), *group_of(utterance(1), 0, 1)])
    draw(queue, 3)
    queue.redraw(1, None)
    assert (queue.pictures, queue.shots) == (1, 1)
    draw(queue)
    assert numbers(read(queue)) == ["idle", (0, 0)]
    queue.put_shots([idle_shot()])
    drawing = queue.take_shot(SIZE)
    queue.redraw(0, drawing)
    assert queue.shots == 0


STEPS = tuples(sampled_from(["group", "end", "draw", "read", "redraw", "drawing"]), integers(1, 4))


@given(steps=lists(STEPS, max_size=30))
def test_repeated_redraws_give_every_item_once_and_in_order(steps):
    queue, expected, items = PictureQueue(Face(), True), [], []
    epoch, count, speech = 0, 0, utterance(200)
    for step, number in steps:
        if step == "group":
            queue.put_shots(group_of(speech, count, number))
            expected += [(epoch, count + i) for i in range(number)]
            count += number
        elif step == "end":
            queue.put_shots([SegmentEnd(epoch, count / FPS)])
            expected.append((epoch, "end"))
            epoch, count = epoch + 1, 0
            speech = utterance(200, epoch)
        elif step == "draw":
            draw(queue, number)
        elif step == "read":
            items += read(queue, number)
        elif step == "redraw":
            queue.redraw(queue.pictures_to_keep(), None)
        else:
            queue.forward_ends()
            drawing = queue.take_shot(SIZE)
            queue.redraw(queue.pictures_to_keep(), drawing)
    draw(queue, len(expected))
    items += read(queue)
    assert numbers(items) == expected
    frames = [item for item in items if isinstance(item, Frame)]
    assert [frame.index for frame in frames] == list(range(len(frames)))
    assert all(frame.audio[0] == frame.speech_index for frame in frames)


def test_an_interrupt_of_separable_shots_drops_all_that_was_not_read():
    queue, speech = PictureQueue(Face(), True), utterance(6)
    group = group_of(speech, 0, 4)
    queue.put_shots([*group, *group_of(speech, 4, 2), SegmentEnd(0, 0.24)])
    draw(queue, 3)
    read(queue, 1)
    position, generation = queue.last_read, queue.generation
    drawing = queue.take_shot(SIZE)
    assert queue.interrupt(drawing) is group[0].group  # the performer goes on from its state
    assert (queue.shots, queue.pictures, queue.generation) == (0, 0, generation + 1)
    assert queue.last_drawn is queue.last_read is position


def test_an_interrupt_before_anything_was_read_leaves_nothing(queue):
    queue.put_shots(group_of(utterance(4), 0, 4))
    draw(queue, 2)
    assert queue.interrupt(queue.take_shot(SIZE)) is None
    assert (queue.shots, queue.pictures, queue.last_drawn.frames) == (0, 0, 0)


def test_an_interrupt_of_whole_groups_shows_the_rest_of_the_one_being_read_without_sound():
    queue, speech = PictureQueue(Face(), False), utterance(9)
    first, second = group_of(speech, 0, 6), group_of(speech, 6, 3)
    queue.put_shots([*first, *second, SegmentEnd(0, 0.36)])
    draw(queue, 3)
    assert numbers(read(queue, 1)) == [(0, 0)]
    drawing = queue.take_shot(SIZE)  # one is read, two are drawn, one is being drawn, two wait, and the next group
    position, generation = queue.last_read, queue.generation
    assert queue.interrupt(drawing) is first[0].group
    assert (queue.shots, queue.pictures, queue.generation) == (5, 0, generation + 1)
    assert queue.last_drawn is queue.last_read is position
    rest = [queue.next_shot(SIZE).shot]
    draw(queue, 5)
    items = read(queue)
    assert rest[0] is first[1].shot  # in their order
    assert numbers(items) == ["transition"] * 5
    assert [item.index for item in items] == [1, 2, 3, 4, 5]
    assert not any(item.audio.any() for item in items)


def test_the_rest_of_a_group_survives_a_second_interrupt_and_what_came_meanwhile_does_not():
    queue = PictureQueue(Face(), False)
    group = group_of(utterance(4), 0, 4)
    queue.put_shots(group)
    draw(queue, 1)
    read(queue)
    queue.interrupt(None)
    queue.put_shots([*group_of(utterance(3, epoch=1), 0, 3), SegmentEnd(1, 0.12)])
    draw(queue, 1)
    read(queue)
    assert queue.interrupt(None) is group[0].group
    draw(queue, 2)
    assert numbers(read(queue)) == ["transition"] * 2 and queue.shots == 0


def test_a_group_that_is_read_to_its_end_leaves_no_rest():
    queue, speech = PictureQueue(Face(), False), utterance(4)
    first = group_of(speech, 0, 2)
    queue.put_shots([*first, *group_of(speech, 2, 2)])
    draw(queue, 3)
    read(queue, 2)
    assert queue.interrupt(None) is first[0].group
    assert (queue.shots, queue.pictures) == (0, 0)


def test_idle_shots_that_cannot_be_cut_go_on_too():
    queue, group = PictureQueue(Face(), False), ShotGroup(State())
    queue.put_shots([idle_shot(group) for _ in range(3)])
    draw(queue)
    read(queue)
    assert queue.interrupt(None) is group
    assert queue.shots == 2


def test_shots_may_be_put_before_the_queue(queue):
    one, two, three = (idle_shot() for _ in range(3))
    queue.put_shots([three])
    queue.put_shots([one, two], first=True)
    assert [queue.take_shot(SIZE).shot for _ in range(3)] == [one.shot, two.shot, three.shot]


def test_clear_shots_keeps_pictures_and_clear_keeps_nothing(queue):
    queue.put_shots(group_of(utterance(3), 0, 3))
    draw(queue)
    queue.clear_shots()
    assert (queue.shots, queue.pictures) == (0, 1)
    queue.clear()
    assert (queue.shots, queue.pictures) == (0, 0)
