"""`ditto train prepare` on footage that ditto itself made of the example, and on files that are unusual in one way."""

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
import tracemalloc
from dataclasses import asdict, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from drawn import drawn_portrait
from footage import rotate, write_video
from typer.testing import CliRunner

import ditto
from ditto.app import cli_train
from ditto.app.cli import app
from ditto.errors import DatasetError, InputError, OutputError, VideoError
from ditto.latent.region import cut_square
from ditto.media import files as media_files
from ditto.media.audio import read_audio
from ditto.media.footage import picture_of, pictures, pixel_aspect
from ditto.motion.motion import Keypoint
from ditto.portrait import emotion_reader
from ditto.training import dataset as dataset_files
from ditto.training.dataset import read_dataset
from ditto.training.latent.data import open_clips
from ditto.training.latent.footage import clips_of_footage
from ditto.training.prepare import (
    STEPS,
    Options,
    clips,
    faces,
    filters,
    lip_sync,
    pipeline,
    prepare,
    scenes,
    sources,
    work,
)
from ditto.training.prepare.video import examine, sound_of, take_media
from ditto.training.sync import NetworkScorer

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"
QUICK = Options(cuts=False, min_seconds=1.0, max_seconds=1.6, emotion="neutral")


@pytest.fixture(scope="session")
def talk():
    """Three seconds of a talking face of 110 pixels, (75, 224, 224, 3), and its sound."""
    head = ditto.load("lite")
    portrait = head.register(ROOT / "examples" / "portrait.jpg", max_size=512)
    sound = read_audio(ROOT / "examples" / "speech.flac")[: 75 * 640]
    frames = [frame.image[11:235, 113:337] for frame in head.animate(portrait, sound, seed=1)]
    return np.stack(frames), sound


@pytest.fixture(scope="session")
def tracked(talk):
    """(75, 478, 3) landmarks of that face."""
    (track,) = faces.follow_all(talk[0])
    return np.array(track.landmarks)


@pytest.fixture(scope="session")
def footage(talk, tmp_path_factory):
    """A folder: two good videos, and four that cannot be used."""
    folder = tmp_path_factory.mktemp("footage")
    frames, sound = talk
    write_video(folder / "good.mp4", frames, sound)
    (folder / "more").mkdir()
    write_video(folder / "more" / "good two.mkv", frames[:40], sound[: 40 * 640])
    (folder / "broken.mp4").write_bytes((folder / "good.mp4").read_bytes()[:5000])
    (folder / "text.mp4").write_text("no video")
    write_video(folder / "silent.mp4", frames[:40])
    write_video(folder / "wall.mkv", np.full((40, 64, 64, 3), 90, np.uint8), sound[: 40 * 640])
    return folder


@pytest.fixture(scope="session")
def prepared(footage, tmp_path_factory):
    output = tmp_path_factory.mktemp("prepared") / "dataset"
    return output, prepare(footage, output, QUICK)


def files(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# media


def grey(levels, size=32):
    return [np.full((size, size, 3), level, np.uint8) for level in levels]


def shown(path, *place):
    return [int(picture[0, 0, 0]) for picture in pictures(str(path), *place)]


def test_25_a_second_stay_as_they_are(tmp_path):
    levels = list(range(10, 60))
    assert shown(write_video(tmp_path / "a.mkv", grey(levels), lossless=True)) == levels


def test_of_30_a_second_the_nearest_is_shown(tmp_path):
    found = shown(write_video(tmp_path / "a.mkv", grey(range(60)), fps=30, lossless=True))
    assert len(found) == 50
    assert all(abs(level / 30 - k / 25) <= 0.5 / 30 + 0.001 for k, level in enumerate(found))


def test_a_variable_frame_rate_keeps_its_time(tmp_path):
    times = [0.0, 0.04, 0.08, 0.5, 0.54, 1.0]  # a still of .42 s, then one of .46 s
    path = write_video(tmp_path / "a.mkv", grey(range(0, 60, 10)), times=times, lossless=True)
    found = shown(path)
    assert found[:3] == [0, 10, 20] and found[3:12] == [20] * 9 and found[12] in (20, 30)  # .48 s: .50 is near
    assert found[13] in (30, 40) and found[14] == 40 and found[24] == 40 and found[25] == 50
    assert "variable frame rate" in examine(str(path))[1]


def test_time_stamps_that_jump_are_an_error(tmp_path):
    path = write_video(tmp_path / "a.mkv", grey(range(3)), times=[0.0, 0.04, 100.0], lossless=True)
    with pytest.raises(VideoError, match=r"at most 10 s apart .* got a jump from 0\.04 to 100\.00 s"):
        shown(path)


def test_a_part_is_that_part_of_the_whole(talk, tmp_path):
    path = write_video(tmp_path / "a.mp4", talk[0][:, ::4, ::4], talk[1])
    whole = list(pictures(str(path)))
    assert len(whole) == 75
    for start, end in ((0, 10), (26, 30), (40, 75), (60, 61), (70, None)):
        for a, b in zip(pictures(str(path), start, end), whole[start:end], strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_rotated_video_is_turned_upright(talk, tmp_path, turns):
    upright = talk[0][:6, :160, :96]
    path = rotate(write_video(tmp_path / "a.mp4", np.rot90(upright, turns, (1, 2))), turns)
    for a, b in zip(pictures(str(path)), upright, strict=True):
        assert a.shape == b.shape and np.abs(a.astype(int) - b).mean() < 6  # the codec's loss
    assert "rotated" in examine(str(path))[1]


def test_pixels_that_are_not_square_are_made_so():
    frame = av.VideoFrame.from_ndarray(grey([7])[0], format="rgb24")
    assert picture_of(frame, 2.0).shape == (32, 64, 3) and picture_of(frame, 1.0).shape == (32, 32, 3)
    for said, taken in ((Fraction(16, 15), 16 / 15), (None, 1.0), (Fraction(1000, 1), 1.0)):
        stream = SimpleNamespace(sample_aspect_ratio=said)
        assert pixel_aspect(SimpleNamespace(streams=SimpleNamespace(video=[stream]))) == taken


@pytest.mark.parametrize("sound_from", [0.0, 0.4])
def test_sound_keeps_its_place_beside_the_pictures(tmp_path, sound_from):
    sound = np.zeros(16000, np.float32)
    sound[8000:8100] = 0.5
    path = write_video(tmp_path / "a.mkv", grey(range(50)), sound, sound_from=sound_from)
    job = work.Work(tmp_path / "steps", QUICK)
    (media,) = take_media(job, work.Video("a", str(path), "a.mkv", (work.Stretch("a"),))).items
    assert media.frames == 50
    found = np.flatnonzero(np.abs(sound_of(job, "a", 0, 50).astype(float)) > 3000)
    assert abs(found[0] - (8000 + 16000 * sound_from)) <= 20 and 80 < len(found) < 120
    early = sound_of(job, "a", -2, 1)
    assert len(early) == 3 * 640 and not early[: 2 * 640].any() and len(sound_of(job, "a", 49, 60)) == 11 * 640


def test_memory_does_not_grow_with_the_length(tmp_path):
    path = write_video(tmp_path / "a.mkv", grey([i % 250 for i in range(1500)], 64), fps=5)
    assert examine(str(path))[0] == 7500

    def peak(end):
        tracemalloc.start()
        count = sum(1 for _ in pictures(str(path), 0, end))
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert count == end
        return most

    assert peak(7500) < peak(500) + 200_000


# scenes


def test_a_cut_is_found_and_divides(tmp_path):
    pytest.importorskip("scenedetect", reason="needs PySceneDetect (the train extra)")
    random = np.random.default_rng(0)
    one, two = random.integers(0, 255, (2, 48, 64, 3), dtype=np.uint8)
    cuts, count = scenes.scene_cuts([one] * 40 + [two] * 37)
    assert (cuts, count) == ([40], 77)
    assert scenes.scene_cuts([one] * 30) == ([], 30) and scenes.scene_cuts([]) == ([], 0)
    path = write_video(tmp_path / "a.mkv", [one] * 50 + [two] * 20, lossless=True)
    media = work.Media("a", str(path), "a.mkv", (work.Stretch("a"),), 70, "")
    found = scenes.find_scenes(work.Work(tmp_path, replace(QUICK, cuts=True, max_seconds=1.0)), media)
    assert [(p.start, p.end) for p in found.items] == [(0, 25), (25, 50)]
    assert [d.reason for d in found.dropped] == ["too short"]


def test_without_scenedetect_the_message_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "scenedetect", None)
    with pytest.raises(InputError, match=r"ditto-talking-head\[train\].*--no-cuts"):
        prepare(tmp_path, tmp_path / "out", Options())


@pytest.mark.parametrize(("frames", "longest"), [(0, 10), (9, 10), (10, 10), (11, 10), (360_000, 250)])
def test_a_scene_of_any_length_is_divided_evenly(frames, longest):
    parts = scenes.divide(100, 100 + frames, longest)
    assert sum(b - a for a, b in parts) == frames
    assert all(b - a <= longest for a, b in parts)
    assert len({b - a for a, b in parts}) <= 2 and all(b == c for (_, b), (c, _) in pairwise(parts))


# faces


def test_one_face_is_one_track_beside_that_of_the_corpus(talk, tracked):
    from ditto.portrait.follow import follow

    assert len(tracked) == 75
    other = np.stack(list(follow(talk[0])))
    assert np.abs(tracked - other)[5:].mean() < 0.3  # pixels: the first field of view differs


@pytest.fixture(scope="session")
def two_people(talk):
    """The talking face, and a drawn one, at one size: two still pictures (224, 160, 3)."""
    drawn = drawn_portrait(224).picture
    return talk[0][0][:, 32:192], np.ascontiguousarray(drawn[:, 32:192])


def beside(left, right, gap=0):
    return np.concatenate([left, np.full((left.shape[0], gap, 3), 80, np.uint8), right], 1)


def test_two_faces_that_swap_places_at_once_are_not_joined(two_people):
    a, b = two_people
    tracks = faces.follow_all([beside(a, b)] * 20 + [beside(b, a)] * 20)
    assert sorted((t.start, len(t.landmarks)) for t in tracks) == [(0, 20), (0, 20), (20, 20), (20, 20)]


def test_two_faces_that_pass_each_other_are_not_joined(two_people):
    a, b = two_people
    frames = []
    for x in range(0, 401, 10):
        frame = np.full((224, 560, 3), 80, np.uint8)
        frame[:, 400 - x : 560 - x] = b
        frame[:, x : x + 160] = a  # in front
        frames.append(frame)
    for track in faces.follow_all(frames):
        x = np.array([np.nanmean(frame[:, 0]) for frame in track.landmarks])
        way = np.sign(np.diff(x[np.isfinite(x)]))
        assert len({*way} - {0}) <= 1, "a track turned round: it went over to the other face"


def test_a_face_that_is_gone_for_a_moment_stays_one(talk, two_people):
    a, _ = two_people
    blank = np.full_like(a, 80)
    (track,) = faces.follow_all([a] * 12 + [blank] * 3 + [a] * 12)
    assert len(track.landmarks) == 27 and np.isnan(np.array(track.landmarks)[12:15]).all()
    assert len(faces.follow_all([a] * 12 + [blank] * 9 + [a] * 12)) == 2


# filters


@pytest.fixture
def job(tracked, talk, tmp_path):
    """A clip of 75 frames whose tracks a test sets, with the sound of the talk."""
    made = work.Work(tmp_path / "steps", QUICK)
    clip = work.Piece("a-0000-0", "a", "a.mp4", "a.mp4", 0, 75, None, None, "a-0000")
    made.file("media", "a").parent.mkdir(parents=True)
    made.file("media", "a.pcm").write_bytes(np.int16(talk[1] * 32767).tobytes())

    def run(landmarks=tracked, sharpness=0.07, size=(224, 224), others=(), options=QUICK):
        arrays = {"size": np.array(size)}
        for i, marks in enumerate((landmarks, *others)):
            arrays |= {f"track_{i}": marks.astype(np.float32), f"sharpness_{i}": sharpness, f"start_{i}": 0}
        dataset_files.write_arrays(made.file("faces", "a-0000.npz"), arrays)
        found = filters.filter_clip(made._replace(options=options), clip)
        return found.dropped[0].reason if found.dropped else None

    run.work, run.clip = made, clip
    return run


def test_a_good_clip_passes(job):
    assert job() is None


def test_each_filter_says_why(job, tracked):
    assert job(tracked * 0.5) == "small"
    assert job(tracked - [80, 0, 0]) == "cut off"
    assert job(sharpness=0.01) == "blurred"
    turn = np.radians(50)
    turned = (tracked - tracked.mean((0, 1))) @ [[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]]
    assert job(turned + tracked.mean((0, 1))) == "turned away"
    lost = tracked.copy()
    lost[10:22] = np.nan
    assert job(lost) == "lost"
    assert job(others=[tracked]) == "several faces"
    assert job(others=[tracked * 0.25]) is None  # somebody in the background
    assert job(others=[tracked], options=replace(QUICK, several_faces="keep")) is None


def test_a_clip_without_speech_is_dropped(job):
    quiet = np.random.default_rng(0).normal(0, 20, 75 * 640).astype(np.int16)
    job.work.file("media", "a.pcm").write_bytes(quiet.tobytes())
    assert job() == "no speech"


# sync


def heard(landmarks, sound, margin=15):
    pad = np.zeros(margin * 640, np.int16)
    samples = np.concatenate([pad, sound, pad])
    return lip_sync.Heard(landmarks, clips.features_of(clips.encoder_of("lite"), samples), samples, margin)


def test_a_known_shift_of_the_sound_is_found(talk, tracked):
    sound = np.int16(talk[1] * 32767)
    scorer = lip_sync.KernelScorer()
    own = int(scorer.scores(heard(tracked, sound)).argmax()) - 15
    assert abs(own) <= 1  # ditto's own lips
    for shift in (-7, 4, 9):
        offset, confidence = scorer.offset_and_confidence(heard(tracked, np.roll(sound, 640 * shift)))
        assert abs(offset - shift - own) <= 1 and confidence > 0.5


def test_the_sound_of_somebody_else_is_refused(talk, tracked):
    other = np.int16(32767 * read_audio(ROOT / "examples" / "speech.flac")[6 * 16000 : 6 * 16000 + 75 * 640])
    _, confidence = lip_sync.KernelScorer().offset_and_confidence(heard(tracked, other))
    _, own = lip_sync.KernelScorer().offset_and_confidence(heard(tracked, np.int16(talk[1] * 32767)))
    assert confidence < Options().min_sync_confidence + 0.1 < own


def test_the_network_decides_unless_another_scorer_is_given(job):
    job()
    (clip,) = lip_sync.align(job.work, job.clip).items
    offset, confidence = NetworkScorer().offset_and_confidence(lip_sync.hear(job.work, job.clip))
    assert (clip.sync_offset, clip.sync_confidence) == (offset, round(confidence, 4))
    assert abs(offset) <= 1 and confidence > Options().min_sync_confidence


def test_the_network_refuses_the_sound_of_somebody_else(tracked):
    other = np.int16(32767 * read_audio(ROOT / "examples" / "speech.flac")[6 * 16000 : 6 * 16000 + 75 * 640])
    _, confidence = NetworkScorer().offset_and_confidence(heard(tracked, other))
    assert confidence < Options().min_sync_confidence


def test_a_scorer_of_ones_own_decides(job):
    class Sure:
        def offset_and_confidence(self, clip):
            assert clip.features.shape == (75 + 2 * clip.margin, 368) and len(clip.sound) == 640 * len(clip.features)
            return 3, 0.9

    job()
    (clip,) = lip_sync.align(job.work, job.clip, Sure()).items
    assert (clip.sync_offset, clip.sync_confidence) == (3, 0.9)
    Sure.offset_and_confidence = lambda self, clip: (3, 0.1)
    assert lip_sync.align(job.work, job.clip, Sure()).dropped[0].reason == "out of sync"


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared recordings")
def test_sound_that_is_late_in_real_footage_is_found(tmp_path):
    """The nine cuts' sound is 2 frames late; GRID's is in time."""
    found = {}
    for name in ("natural_talk/mus_10.mp4", "natural_talk/mus_26.mp4", "grid_other/grid_pwij3p.mpg"):
        path = SHARED / name
        (track,) = faces.follow_all(pictures(str(path)))
        sound = np.int16(32767 * np.clip(read_audio(path), -1, 1))[: 640 * len(track.landmarks)]
        sound = np.pad(sound, (0, 640 * len(track.landmarks) - len(sound)))
        found[name], _ = lip_sync.KernelScorer().offset_and_confidence(heard(np.array(track.landmarks), sound))
    assert [abs(offset - due) <= 1 for offset, due in zip(found.values(), (2, 2, 0), strict=True)] == [True] * 3, found


# motion and features


def test_a_clip_that_never_closes_its_lips_is_used(tracked):
    from ditto.training.motion_data import CLOSED_GAP, real_clip

    gap = lip_sync.lips(tracked)[:, 0]
    closed, wide = real_clip(tracked), real_clip(tracked[gap > 4 * CLOSED_GAP])
    assert (gap < CLOSED_GAP).sum() >= 5 and (gap > 4 * CLOSED_GAP).sum() > 20
    off = np.linalg.norm((wide.canonical - closed.canonical).reshape(21, 3), axis=1)
    assert off.max() < 0.03 and np.isfinite(wide.motion).all()  # fu; the lips are .14 apart at their widest


def test_features_are_those_of_a_stream_bit_for_bit(talk, monkeypatch):
    """The stream gets the samples in odd pieces; its encoder is asked by way of its performer."""
    sound = np.int16(talk[1] * 32767)[: 41 * 640]
    rows = []
    from ditto.lite.speech_encoder import SpeechEncoder

    step = SpeechEncoder.step_batch

    def spy(self, hops, states):
        found = step(self, hops, states)
        rows.extend(features for features, _ in found)
        return found

    monkeypatch.setattr(SpeechEncoder, "step_batch", spy)
    head = ditto.load("lite")
    stream = head.stream(head.register(ROOT / "examples" / "portrait.jpg", max_size=256))
    samples = sound.astype(np.float32) / 32768
    for piece in np.split(samples, [1000, 1001, 9000, 20000]):
        stream.push(piece)
    stream.flush()
    expected = np.concatenate(rows)[2 : 2 + 41]
    np.testing.assert_array_equal(clips.features_of(clips.encoder_of("lite"), sound), expected)


def test_hsemotion_is_used_if_it_is_there_and_its_names_are_put_in_order(job, talk, tmp_path, monkeypatch):
    class Network:
        def predict_emotions(self, face, logits):
            assert face.ndim == 3 and min(face.shape[:2]) > 50 and not logits
            return "Happiness", np.array([0.0, 0.1, 0.0, 0.0, 0.7, 0.2, 0.0, 0.0])

    job()
    path = write_video(tmp_path / "a.mkv", talk[0], talk[1])
    monkeypatch.setattr(emotion_reader, "hsemotion_network", lambda download: Network())
    monkeypatch.setattr(pipeline, "hsemotion_network", Network)
    options, notes = pipeline.decide_emotion(replace(QUICK, emotion="auto"))
    assert options.emotion == "hsemotion" and notes == ("emotion: by HSEmotion",)
    made = job.work._replace(options=options)
    clips.judge_emotion(made, replace(job.clip, path=str(path)))
    weights = dict(zip(ditto.EMOTIONS, np.load(made.file("emotion", "a-0000-0.npz"))["emotion"], strict=True))
    assert weights["happy"] == pytest.approx(0.7) and weights["contempt"] == pytest.approx(0.1)
    assert weights["neutral"] == pytest.approx(0.2)


def test_without_hsemotion_the_landmarks_are_read_and_the_report_says_so(job, talk, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    emotion_reader.hsemotion_network.cache_clear()
    options, notes = pipeline.decide_emotion(replace(QUICK, emotion="auto"))
    assert options.emotion == "landmarks"
    assert notes[0].startswith("emotion: by the landmarks of the face; expected HSEmotion's")
    job()
    made = job.work._replace(options=options)
    clips.judge_emotion(made, job.clip)
    weights = np.load(made.file("emotion", "a-0000-0.npz"))["emotion"]
    assert weights.dtype == np.float32 and weights.sum() == pytest.approx(1.0) and (weights >= 0.0).all()


# lists


def listing(tmp_path, objects, name="list.jsonl"):
    path = tmp_path / name
    path.write_text("\n".join(json.dumps(o) for o in objects) if name.endswith("l") else json.dumps(objects))
    return path


@pytest.mark.parametrize("name", ["list.jsonl", "list.json"])
def test_a_list_with_talkvids_keys_is_read(tmp_path, name):
    objects = [
        {"id": "v/1", "video-path": "a.mp4", "start-time": 1.5, "end-time": "00:00:04", "person": {"id": "p"},
         "language": "English"},
        {"id": "v2", "video_path": "a.mp4", "start_time": 5, "end_time": 9.0, "person_id": 7},
        {"path": "sub/b.mp4"},
    ]  # fmt: skip
    a, b = sources.read_videos(listing(tmp_path, objects, name))
    assert a.path == str(tmp_path.resolve() / "a.mp4") and b.video == "sub/b.mp4"
    assert [(s.start_seconds, s.end_seconds, s.person, s.language) for s in a.stretches] == [
        (5.0, 9.0, "7", None), (1.5, 4.0, "p", "English")
    ]  # fmt: skip
    assert a.stretches[1].id.startswith("v_1-") and a.stretches[0].id == "v2" and len({a.id, b.id}) == 2
    media = work.Media(a.id, a.path, a.video, a.stretches, 200, "")
    pieces = scenes.find_scenes(work.Work(tmp_path, replace(QUICK, max_seconds=10.0)), media).items
    assert [(p.start, p.end, p.person) for p in pieces] == [(125, 200, "7"), (38, 100, "p")]


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        ([], "got an empty list"),
        ([3], "expected a JSON object as object 1"),
        ([{"id": "a"}], "expected the path of a video"),
        ([{"id": "a", "video": "https://example.org/a.mp4"}], "download the videos first"),
        ([{"id": "a", "path": "a.mp4"}, {"id": "a", "path": "b.mp4"}], "expected each id once .* got 'a' twice"),
        ([{"path": "a.mp4", "start": -1}], "expected a time in seconds"),
        ([{"path": "a.mp4", "start": "soon"}], "expected a time in seconds"),
        ([{"path": "a.mp4", "start": 3, "end": 2}], "expected an end after the start"),
    ],
)
def test_a_list_that_makes_no_sense_is_refused(tmp_path, objects, message):
    with pytest.raises(InputError, match=message):
        sources.read_videos(listing(tmp_path, objects))


def test_ids_are_file_names_and_differ():
    ids = sources.ids_of(["a", "A", "x/y", "x_y", "..", "b"], ["a.mp4", "A.mp4", "x/y.mp4", "x_y.mp4", "...mp4", "b.mov"])
    assert len({id.lower() for id in ids}) == 6 and ids[5] == "b"
    assert not [id for id in ids if "/" in id or id.startswith(".")]


def test_no_folder_no_list_and_no_video_are_told(tmp_path):
    with pytest.raises(InputError, match="expected videos in"):
        sources.read_videos(tmp_path)
    with pytest.raises(InputError, match=r"expected a folder of videos or a \.jsonl list"):
        sources.read_videos(tmp_path / "missing")
    (tmp_path / "bad.jsonl").write_text("{")
    with pytest.raises(InputError, match="expected JSON"):
        sources.read_videos(tmp_path / "bad.jsonl")
    (tmp_path / "one.mp4").write_bytes(b"")
    with pytest.raises(InputError, match=r"got the video .*; give the folder that it is in"):
        sources.read_videos(tmp_path / "one.mp4")


def test_a_tenth_is_held_out_by_person_video_or_clip():
    def clip(id, media="m", person=None):
        return work.Piece(id, media, "", "", 0, 9, person, None, id)

    videos = [work.Video(f"v{i:02d}", "", "", (work.Stretch(f"v{i:02d}"),)) for i in range(20)]
    made = [clip(f"{v.id}-{k}", v.id) for v in videos for k in range(2)]
    assert sources.held_clips(videos, made) == {"v09-0", "v09-1", "v19-0", "v19-1"}
    assert sources.held_clips(videos[:3], made[:12]) == {"v04-1"}
    named = [replace(v, stretches=(replace(v.stretches[0], person=f"p{i % 10}"),)) for i, v in enumerate(videos)]
    people = [replace(c, person=f"p{int(c.media[1:]) % 10}") for c in made]
    assert {c.person for c in people if c.id in sources.held_clips(named, people)} == {"p9"}


# the whole


def test_a_bad_file_among_good_ones_is_named_and_the_rest_goes_on(prepared):
    output, result = prepared
    found = read_dataset(output)
    assert found == result.dataset and {c.video for c in found.clips} == {"good.mp4", "more/good two.mkv"}
    reasons = {d.id: (r.step, d.reason) for r in result.reports for d in r.dropped}
    assert reasons == {
        "broken": ("media", "unreadable"), "text": ("media", "unreadable"), "silent": ("media", "no sound"),
        "wall-0000": ("faces", "no face"),
    }  # fmt: skip
    page = (output / "steps" / "report.md").read_text()
    assert all(id in page for id in reasons)
    assert page.count("emotion: neutral") == 1 and "## emotion\n\n* emotion: neutral" in page
    assert "emotion: neutral" not in "\n".join(cli_train.lines(result, output))  # not at every run
    told = json.loads((output / "steps" / "report.json").read_text())
    assert [s["step"] for s in told["steps"]] == [s.name for s in STEPS]
    assert sorted(p.name for p in (output / "steps").iterdir() if p.is_dir()) == sorted(s.name for s in STEPS)


def test_the_clips_are_what_the_contract_says(prepared, talk):
    output, _ = prepared
    found = read_dataset(output)
    assert (found.bundle, found.options) == ("lite", asdict(QUICK))
    assert sum(c.frames for c in found.clips if c.video == "good.mp4") == 75
    for info in found.clips:
        clip = found.load(info)  # checks kinds and shapes
        assert info.emotion_source == "neutral" and clip.emotion.tolist() == [0, 0, 0, 0, 1, 0, 0, 0]
        assert info.sync_confidence >= QUICK.min_sync_confidence and abs(info.sync_offset_frames) <= 1
        assert info.end_seconds - info.start_seconds == pytest.approx(info.frames / 25)
        features = clips.features_of(clips.encoder_of("lite"), clip.sound)
        np.testing.assert_array_equal(clip.features, features.astype(np.float16))
        assert np.ptp(clip.motion[:, 7:].reshape(-1, 21, 3)[:, Keypoint.LOWER_INNER_LIP, 1]) > 0.01  # the lower lip moves


def test_any_number_of_workers_gives_the_same_files(footage, prepared, tmp_path):
    prepare(footage, tmp_path / "out", QUICK, workers=2)
    assert files(tmp_path / "out") == files(prepared[0])


def test_a_killed_preparation_goes_on_to_the_same_files(footage, prepared, tmp_path):
    output = tmp_path / "out"
    program = (
        "from pathlib import Path; from ditto.training.prepare import Options, prepare; "
        f"prepare(Path({str(footage)!r}), Path({str(output)!r}), Options(**{asdict(QUICK)!r}))"
    )
    for step in ("faces", "features"):
        running = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
        until = time.monotonic() + 300
        while not list(output.glob(f"steps/{step}/*.json")) and running.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        running.send_signal(signal.SIGKILL)
        running.wait()
        assert not (output / "dataset.json").exists(), f"it was finished before it could be killed in {step}"
        with pytest.raises(DatasetError, match="has not finished"):
            read_dataset(output)
    (output / "steps" / "media" / ".left.x.part").write_bytes(b"half")  # as a kill in the middle of a write leaves
    prepare(footage, output, QUICK)
    assert files(output) == files(prepared[0])


def test_finished_work_is_not_done_again_and_a_new_video_is(footage, prepared, tmp_path, monkeypatch):
    folder, output = tmp_path / "videos", tmp_path / "out"
    folder.mkdir()
    (folder / "a.mp4").write_bytes((footage / "good.mp4").read_bytes())
    prepare(folder, output, QUICK)
    first = files(output)
    ran = []

    def counting(step):
        def run(made, item):
            ran.append((step.name, item.id))
            return step.run(made, item)

        return step._replace(run=run)

    monkeypatch.setattr(pipeline, "STEPS", tuple(map(counting, STEPS)))
    assert prepare(folder, output, QUICK).dataset == read_dataset(output)
    assert not ran and files(output) == first
    (folder / "b.mkv").write_bytes((footage / "more" / "good two.mkv").read_bytes())
    assert {c.video for c in prepare(folder, output, QUICK).dataset.clips} == {"a.mp4", "b.mkv"}
    assert {id[0] for _, id in ran} == {"b"}
    ran.clear()
    (folder / "a.mp4").write_bytes((footage / "more" / "good two.mkv").read_bytes())  # another video of the same name
    (folder / "b.mkv").unlink()
    found = prepare(folder, output, QUICK).dataset
    assert {id[0] for _, id in ran} == {"a"} and sum(c.frames for c in found.clips) == 40
    assert {p.stem for p in (output / "clips").iterdir()} == {c.id for c in found.clips}


def test_other_options_another_format_and_other_files_are_refused(footage, prepared, tmp_path):
    output, _ = prepared
    with pytest.raises(InputError, match=r"with min_face 80\.0 and now 60\.0; choose another folder"):
        prepare(footage, output, replace(QUICK, min_face=60.0))
    old = tmp_path / "old"
    old.mkdir()
    (old / "dataset.json").write_text(json.dumps({"format": 2}))
    with pytest.raises(DatasetError, match="format 1"):
        prepare(footage, old, QUICK)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("x")
    with pytest.raises(InputError, match="expected a new or empty folder"):
        prepare(footage, mine, QUICK)
    with pytest.raises(OutputError, match="expected a folder as output"):
        prepare(footage, mine / "thesis.txt", QUICK)
    assert [p.name for p in mine.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    "options",
    [replace(QUICK, several_faces="merge"), replace(QUICK, emotion="happy"), replace(QUICK, min_seconds=5.0),
     replace(QUICK, max_seconds=1e9), replace(QUICK, emotion="hsemotion"), replace(QUICK, bundle="nothing")],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(footage, tmp_path, options, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    emotion_reader.hsemotion_network.cache_clear()
    with pytest.raises(ditto.errors.DittoError, match=r"expected|no bundle named 'nothing'"):
        prepare(footage, tmp_path / "out", options)
    assert not (tmp_path / "out").exists()


def test_a_full_disk_loses_nothing(footage, prepared, tmp_path, monkeypatch):
    output = tmp_path / "out"
    written = []
    complete = media_files.complete_file

    def full(part, file):
        written.append(file)
        if len(written) > 20:
            raise OSError(28, "No space left on device")
        complete(part, file)

    monkeypatch.setattr(media_files, "complete_file", full)
    with pytest.raises(OutputError, match=r"No space left on device; make room .* finished work is kept"):
        prepare(footage, output, QUICK)
    assert not list(output.rglob("*.part"))
    monkeypatch.undo()
    prepare(footage, output, QUICK)
    assert files(output) == files(prepared[0])


def test_it_stops_after_the_step_that_is_named(footage, tmp_path):
    result = prepare(footage, tmp_path / "out", QUICK, until="scenes")
    assert result.dataset is None and [r.step for r in result.reports] == ["media", "scenes"]
    assert not (tmp_path / "out" / "dataset.json").exists()
    with pytest.raises(InputError, match="expected a step of media, scenes"):
        prepare(footage, tmp_path / "out", QUICK, until="dance")


def test_shards_hold_the_clips_and_are_the_same_each_time(footage, prepared, tmp_path):
    import shutil

    output = tmp_path / "out"
    shutil.copytree(prepared[0], output)
    prepare(footage, output, QUICK, shard_megabytes=1)
    (shard,) = (output / "shards").iterdir()
    with tarfile.open(shard) as tar:
        names = tar.getnames()
        data = tar.extractfile(names[0]).read()
    ids = [c.id for c in read_dataset(output).clips]
    assert names == [f"{id}.{suffix}" for id in ids for suffix in ("npz", "json")]
    assert data == (output / "clips" / names[0]).read_bytes()
    before = shard.read_bytes()
    shard.unlink()
    prepare(footage, output, QUICK, shard_megabytes=1)
    assert shard.read_bytes() == before


def test_clips_for_the_latent_systems_are_cut_from_the_footage(prepared, footage, tmp_path):
    """Their heads stand still, their mouths move; what was cut is kept."""
    folder, said = prepared[0], []
    dataset, made = read_dataset(folder), clips_of_footage(folder, tmp_path / "clips", 32, said.append)
    assert [clip.name for clip in made.clips] == [f"footage_{info.id}" for info in dataset.clips]
    assert open_clips(tmp_path / "clips") == made and len(said) == len(made.clips)
    for info, clip in zip(dataset.clips, made.clips, strict=True):
        arrays, found = dataset.load(info), made.load(clip)
        count = info.frames - (info.frames - 1) % 4
        assert (clip.frames, clip.portrait, clip.split) == (count, info.video, info.split)
        assert found.frames.shape == (count, 32, 32, 3) and found.source.shape == (32, 32, 3)
        assert np.array_equal(found.features, arrays.features[:count])
        assert np.array_equal(found.sound, arrays.sound[: 640 * count])
        assert not found.motion[:, [0, 3, 4, 5, 6]].any() and found.motion[:, 7:].any()
        assert any(np.array_equal(found.source, frame) for frame in found.frames)
        start, end = round(25 * info.start_seconds), round(25 * info.end_seconds)
        fixed = [cut_square(picture, found.square, 32) for picture in pictures(str(footage / info.video), start, end)]
        moved, in_fixed = (np.std(x, 0).mean(-1) for x in (found.frames, fixed))
        assert moved[6:14, 8:24].mean() < 0.97 * in_fixed[6:14, 8:24].mean()  # brows and eyes
        assert moved[20:26, 11:21].mean() > 5  # the mouth
    clips_of_footage(folder, tmp_path / "clips", 32, said.append)
    assert len(said) == len(made.clips)


def test_footage_that_is_gone_or_has_changed_gives_no_clips(prepared, tmp_path):
    import shutil

    output = tmp_path / "dataset"
    shutil.copytree(prepared[0], output)
    prints = json.loads((output / "steps" / "videos.json").read_text())
    (output / "steps" / "videos.json").write_text(json.dumps(dict.fromkeys(prints, "another")))
    done = CliRunner().invoke(app, ["train", "clips", str(output), "-o", str(tmp_path / "clips"), "-q"])
    assert done.exit_code == 2 and "as it was prepared, got none or another" in done.stderr
    shutil.rmtree(output / "steps")
    done = CliRunner().invoke(app, ["train", "clips", str(output), "-o", str(tmp_path / "clips"), "-q"])
    assert done.exit_code == 2 and "expected the steps of the preparation" in done.stderr
    assert not (tmp_path / "clips" / "clips.json").exists()


# the command


def run(*arguments):
    return CliRunner().invoke(app, ["train", "prepare", *map(str, arguments)])


def test_the_command_reports(footage, prepared):
    options = ("--no-cuts", "--min-seconds", 1, "--max-seconds", 1.6, "--emotion", "neutral", "--json")
    done = run(footage, "-o", prepared[0], *options)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["clips"] == len(read_dataset(prepared[0]).clips) and told["steps"]["media"]["dropped"] == 3


def test_no_usable_clip_is_exit_code_2_and_one_line(footage, tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ("broken.mp4", "silent.mp4"):
        (folder / name).write_bytes((footage / name).read_bytes())
    done = run(folder, "-o", tmp_path / "out", "--no-cuts", "--quiet")
    assert done.exit_code == 2 and done.stdout == ""
    assert "DatasetError: expected a usable clip" in done.stderr and done.stderr.count("\n") == 1
    assert "no sound 1, unreadable 1" in done.stderr
    assert "silent: no sound" in (tmp_path / "out" / "steps" / "report.md").read_text()
    assert not (tmp_path / "out" / "dataset.json").exists()
    assert run(tmp_path / "nothing", "-o", tmp_path / "o2", "--no-cuts").exit_code == 2


def test_ctrl_c_says_that_work_is_kept(footage, tmp_path):
    running = subprocess.Popen(
        [sys.executable, "-m", "ditto", "train", "prepare", str(footage), "-o", str(tmp_path / "out"), "--no-cuts",
         "--workers", "2"], cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    until = time.monotonic() + 300
    while not list(tmp_path.glob("out/steps/media/*.json")) and running.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    os.killpg(running.pid, signal.SIGINT)
    out, err = running.communicate(timeout=300)
    assert running.returncode == 130 and out == ""
    assert err.splitlines()[-1] == "ditto: interrupted; finished work is kept; run the same command again to go on"
    assert "Traceback" not in err
