"""Takes: rendered as `animate` does, edited, cut, joined, kept in files. The networks are the shipped ones."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from wav import write_wav

import ditto
from ditto.controls import Controls
from ditto.controls.timeline import Timeline
from ditto.errors import AudioError, OutputError, TakeError
from ditto.media.audio import read_audio
from ditto.take import Take

EXAMPLES = Path(__file__).parents[1] / "examples"
FRAMES = 20
EDIT = Timeline().layer({"left_brow.y": -0.03, "emotion.happy": 0.5}, start=0.2, end=0.6).wink("right", at=0.4)


@pytest.fixture(scope="module")
def head():
    return ditto.load("lite")


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    samples = read_audio(EXAMPLES / "speech.flac")[8000:][: FRAMES * 640 - 100]
    return write_wav(tmp_path_factory.mktemp("speech") / "speech.wav", samples)


@pytest.fixture(scope="module")
def take(head, portrait, speech):
    return head.take(portrait, speech, seed=3)


@pytest.fixture(scope="module")
def frames(head, portrait, take):
    return list(head.render(portrait, take))


def same(frames, others):
    assert len(frames) == len(others)
    for a, b in zip(frames, others, strict=True):
        assert (a.index, a.pts_seconds, a.speech_index) == (b.index, b.pts_seconds, b.speech_index)
        np.testing.assert_array_equal(a.motion.values, b.motion.values)
        np.testing.assert_array_equal(a.image, b.image)
        np.testing.assert_array_equal(a.audio, b.audio)


def motions(head, portrait, take, **options):
    return np.stack([frame.motion.values for frame in head.render(portrait, take, **options)])


def test_a_take_is_rendered_as_animate_does_and_twice_the_same(head, portrait, take, frames, speech):
    assert take.frames == FRAMES and take.seconds == FRAMES / 25
    same(frames, list(head.animate(portrait, speech, seed=3)))
    same(frames, list(head.render(portrait, take)))


@pytest.mark.parametrize(
    "options",
    [
        {"controls": EDIT, "emotion": {"sad": 0.4}},
        {"controls": Controls(yaw_degrees=5, pose=(0, 3, 0), gains={"mouth": 0.5}), "style": "calm", "still": True},
    ],
)
def test_options_are_kept_and_survive_a_file(head, portrait, speech, tmp_path, options):
    head.take(portrait, speech, **options).save(tmp_path / "a.take")
    same(list(head.render(portrait, Take.load(tmp_path / "a.take"))), list(head.animate(portrait, speech, **options)))


def test_an_edit_changes_its_range_alone(head, portrait, take, frames):
    edited = take.edit(Timeline().layer({"left_brow.y": -0.03}, start=0.2, end=0.4))
    changed = np.abs(motions(head, portrait, edited) - np.stack([f.motion.values for f in frames])).max(1)
    assert not changed[:6].any() and not changed[10:].any() and changed[6:10].max() > 0.02
    again = edited.edit(Timeline(), replace_others=True)
    np.testing.assert_array_equal(motions(head, portrait, again), motions(head, portrait, take))


def test_its_motion_is_that_of_the_frames_without_drawing_them(head, portrait, take, monkeypatch):
    edited = take.edit(EDIT).cut(0.1, 0.5) + take.edit(EDIT)
    shown = motions(head, portrait, edited)
    monkeypatch.setattr(head.performer.renderer, "render", None)
    np.testing.assert_array_equal(head.motion(portrait, edited).values, shown)


def test_a_cut_shows_the_same_frames_with_their_edits_and_sound(head, portrait, take):
    edited = take.edit(EDIT)
    whole, part = list(head.render(portrait, edited)), list(head.render(portrait, edited.cut(0.2, 0.6)))
    assert len(part) == 10
    for n, frame in enumerate(part):
        np.testing.assert_array_equal(frame.motion.values, whole[5 + n].motion.values)
        np.testing.assert_array_equal(frame.audio, whole[5 + n].audio)


def test_parts_that_belong_together_become_one_again(head, portrait, take):
    again = take.cut(0, 0.32) + take.cut(0.32)
    assert len(again.clips) == 1
    np.testing.assert_array_equal(again.clips[0].rows, take.clips[0].rows)
    assert len((take.cut(0, 0.32) + take.cut(0.36)).clips) == 2


def test_a_joint_has_no_jump_in_motion_or_sound(head, portrait, take, frames):
    joined = take.cut(0, 0.4).join(take.cut(0.6), take.cut(0.2, 0.6))
    shown = list(head.render(portrait, joined))
    assert [len(clip) for clip in joined.clips] == [10, 5, 10] and len(shown) == 25
    motion = np.stack([frame.motion.values for frame in shown])
    slow = slice(1, 7)  # pose and translation
    own = np.abs(np.diff(np.stack([frame.motion.values for frame in frames])[:, slow], axis=0)).max(0)
    assert np.all(np.abs(np.diff(motion[:, slow], axis=0)).max(0) <= 2.0 * own + 1e-4)
    raw = np.concatenate([clip.rows for clip in joined.clips])[:, slow]
    assert np.any(np.abs(np.diff(raw, axis=0)).max(0) > 2.0 * own)  # without the transition there is one
    sound = np.concatenate([frame.audio for frame in shown])
    assert np.abs(np.diff(sound)).max() <= 1.5 * np.abs(np.diff(np.concatenate([f.audio for f in frames]))).max()


def test_an_edit_of_a_joined_take_counts_from_its_beginning(head, portrait, take):
    joined = take.cut(0.4) + take.cut(0, 0.4)
    edited = joined.edit(Timeline().layer({"left_brow.y": -0.03}, start=0.5, end=0.7, fade=0))
    changed = np.abs(motions(head, portrait, edited) - motions(head, portrait, joined)).max(1)
    assert np.flatnonzero(changed).tolist() == [13, 14, 15, 16, 17]


def test_samples_are_given_again(head, portrait, speech):
    samples = read_audio(speech)[: 6 * 640]
    take = head.take(portrait, samples)
    with pytest.raises(AudioError, match="expected the samples that this take was made of, got none"):
        head.render(portrait, take)
    same(list(head.render(portrait, take, audio=samples)), list(head.animate(portrait, samples)))


def test_a_recording_that_moved_or_changed_is_told_and_can_be_given(head, portrait, speech, tmp_path):
    here = write_wav(tmp_path / "here.wav", read_audio(speech)[: 6 * 640])
    take = head.take(portrait, here)
    expected = list(head.render(portrait, take))
    there = here.rename(tmp_path / "there.wav")
    with pytest.raises(AudioError, match=r"here.wav, got no such file; give the recording: --audio"):
        head.render(portrait, take)
    same(list(head.render(portrait, take, audio=there)), expected)
    write_wav(here, np.zeros(4000, np.float32))
    with pytest.raises(AudioError, match="a file that has changed since"):
        head.render(portrait, take)
    both = take + head.take(portrait, speech).cut(0, 0.2)
    assert len(list(head.render(portrait, both, audio=[speech, there]))) == 11
    with pytest.raises(AudioError, match="among those given, got others"):
        head.render(portrait, both, audio=[speech, here])


def test_takes_of_other_bundles_are_refused_by_name(head, portrait, take):
    other = Take("full 0123456789ab", take.clips)
    with pytest.raises(TakeError, match=f"expected a take of the bundle {head.bundle.id}, got one of full 0123456789ab"):
        head.render(portrait, other)
    with pytest.raises(TakeError, match="takes of one bundle"):
        take.join(other)


@pytest.mark.parametrize("part", [(0.5, 0.2), (0.2, 0.21), (-1, 0.2), (0, 2), (float("nan"), 0.5)])
def test_a_part_that_is_none_is_refused(take, part):
    with pytest.raises(ValueError, match=r"expected a part of the take, 0 to 0.80 s"):
        take.cut(*part)


def test_what_a_take_cannot_keep_is_refused(head, portrait, speech, take):
    with pytest.raises(TypeError, match="Controls or a Timeline, got function"):
        head.take(portrait, speech, controls=lambda frame: Controls())
    with pytest.raises(ValueError, match="without only and freeze"):
        head.take(portrait, speech, controls=Controls(freeze=("jaw",)))
    with pytest.raises(ValueError, match=r"ends at 0.79 s"):
        head.take(portrait, speech, controls=Timeline().blink(2))
    with pytest.raises(ValueError, match=r"ends at 0.80 s"):
        take.edit(Timeline().blink(2))


def test_a_take_that_cannot_be_written_leaves_nothing(take, tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        take.save(tmp_path / "no" / "a.take")
    take.save(tmp_path / "a.take")
    assert [path.name for path in tmp_path.iterdir()] == ["a.take"]
    assert (tmp_path / "a.take").stat().st_size < 4 * 78 * FRAMES + 2000


def damaged(take, path, change):
    """A saved take whose description or tensors are changed."""
    from safetensors import safe_open

    take.save(path)
    tensors = load_file(path)
    with safe_open(path, "np") as file:
        described = json.loads(file.metadata()["ditto"])
    change(described, tensors)
    save_file(tensors, path, {"ditto": json.dumps(described)})
    return path


def nan(described, tensors):
    tensors["0.rows"][3, 5] = np.nan


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d, t: d.update(format="mine"), "is no take"),
        (lambda d, t: d.update(version=2), "a take of version 2, this ditto reads version 1"),
        (lambda d, t: d.update(version=True), "a take of version True"),
        (lambda d, t: d["clips"][0].update(emotion=[True, *[0.0] * 7]), "expected emotion as float, got True"),
        (lambda d, t: d.update(bundle=3), "expected bundle as str"),
        (lambda d, t: d.update(clips={}), "expected clips as list"),
        (lambda d, t: d.update(clips=[]), "at least one frame|beside those of the clips"),
        (lambda d, t: d["clips"][0].update(seed=-1), "in range"),
        (lambda d, t: d["clips"][0].update(style=10**400), "expected style as float, got int"),
        (lambda d, t: d["clips"][0].update(style="calm"), "expected style as float, got str"),
        (lambda d, t: d["clips"][0].update(frames=1), "rows of clip 0 as finite numbers"),
        (lambda d, t: d["clips"][0].update(emotion=[1.0]), "emotion of clip 0"),
        (lambda d, t: d["clips"][0]["timeline"].update(layers=[{"controls": {"head.jaw": 1}}]), "did you mean"),
        (lambda d, t: d["clips"][0].update(sound="a.wav"), "expected sound as dict"),
        (lambda d, t: d["clips"][0].pop("still"), "expected still as bool"),
        (lambda d, t: t.pop("0.rows"), "rows of clip 0"),
        (lambda d, t: t.update({"0.emotions": t["0.emotions"] + 1}), "emotions of clip 0"),
        (lambda d, t: t.update({"0.rows": t["0.rows"].astype(np.float64)}), "type F32"),
        (lambda d, t: t.update({"1.rows": t["0.rows"]}), "no tensors beside"),
        (nan, "rows of clip 0 as finite"),
    ],
)
def test_a_damaged_take_is_refused(take, tmp_path, change, words):
    with pytest.raises(TakeError, match=words):
        Take.load(damaged(take, tmp_path / "a.take", change))


@pytest.mark.parametrize("content", [None, b"", b"\xff" * 100, b"\x10\0\0\0\0\0\0\0{}              ", b"\0" * 64])
def test_a_file_that_is_no_take_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "a.take").write_bytes(content)
    with pytest.raises(TakeError, match=r"no such file|damaged or no take|is no take"):
        Take.load(tmp_path / "a.take")
