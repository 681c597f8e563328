"""A video as the source: the person of a clip says something else (docs/video.md)."""

import errno
import io
from itertools import islice, pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from footage import write_video
from wav import write_wav

import ditto
from ditto.clip import LOOPS, _Reader, best_loop, frames_of, order_of, read_clip
from ditto.errors import NoFaceError, OutputError, VideoError
from ditto.media.audio import read_audio
from ditto.portrait.follow import follow

EXAMPLES = Path(__file__).parents[2] / "examples"
FRAMES = 24


@pytest.fixture(scope="module")
def head():
    return ditto.load("lite")


@pytest.fixture(scope="module")
def speech():
    return read_audio(EXAMPLES / "speech.flac")[8000:][: 30 * 640]


@pytest.fixture(scope="module")
def recorded(head, speech):
    """Frames of a person who talks, and sways to the side and back."""
    portrait = head.register(EXAMPLES / "portrait.jpg", max_size=256)
    frames = [frame.image for frame in islice(head.animate(portrait, speech, seed=2), FRAMES)]
    return [np.roll(image, round(5 * np.sin(k / 4)), axis=1) for k, image in enumerate(frames)]


@pytest.fixture(scope="module")
def video(recorded, tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("clip") / "person.mkv", recorded, lossless=True)


@pytest.fixture(scope="module")
def clip(head, video):
    return head.read_video(video)


@pytest.fixture(scope="module")
def talking(head, clip, speech):
    return [frame.image for frame in islice(head.animate_video(clip, speech, seed=1), FRAMES)]


@pytest.fixture(scope="module")
def silent(head, clip, speech):
    return [frame.image for frame in islice(head.animate_video(clip, np.zeros_like(speech), seed=1), FRAMES)]


def gaps(frames):
    """The opening between the lips, in face widths, as the tracker sees it."""
    found = list(follow(frames))
    width = np.array([np.linalg.norm(points[454, :2] - points[234, :2]) for points in found])
    return np.array([points[14, 1] - points[13, 1] for points in found]) / width


def test_the_face_is_followed(clip, recorded):
    assert clip.frames == FRAMES and clip.tracked.size == (256, 256) and (clip.tracked.trust == 1.0).all()
    noses = clip.tracked.landmarks[:, 1, 0]
    swayed = np.array([round(5 * np.sin(k / 4)) for k in range(FRAMES)])
    assert np.corrcoef(noses, swayed)[0, 1] > 0.9
    assert 0 <= clip.reference < FRAMES and clip.portrait.picture.shape == (256, 256, 3)


def test_the_mouth_of_the_clip_gives_way_to_the_speech(recorded, talking, silent, speech):
    own, said, still = gaps(recorded), gaps(talking), gaps(silent)
    assert own.std() > 0.01  # the clip talks
    assert still.std() < 0.5 * own.std() and still.max() < 0.6 * own.max()
    assert said.std() > 1.5 * still.std()


def test_what_lies_away_from_the_mouth_stays_as_it_was(recorded, talking, clip):
    for number in range(1, FRAMES):
        before, after = recorded[number].astype(int), talking[number]
        assert (before[:20] == after[:20]).all()  # above the head
        between_eyes = int(clip.tracked.landmarks[number, 6, 1])
        assert np.abs(before - after)[:between_eyes].mean() < 0.5  # eyes and brows are the clip's


def test_with_the_whole_face_the_head_moves_too(head, clip, speech, talking):
    whole = [frame.image for frame in islice(head.animate_video(clip, speech, seed=1, whole_face=True), FRAMES)]
    assert any((one[40:100] != other[40:100]).mean() > 0.05 for one, other in zip(whole, talking, strict=True))


def test_the_same_seed_gives_the_same_frames(head, clip, speech, talking):
    again = list(islice(head.animate_video(clip, speech, seed=1), 5))
    assert all((frame.image == image).all() for frame, image in zip(again, talking, strict=False))
    assert [frame.index for frame in again] == [0, 1, 2, 3, 4] and again[2].motion is not None
    assert np.allclose(again[0].audio, speech[:640])


def test_a_recording_may_be_longer_than_the_clip(head, clip, speech):
    sound = np.concatenate([speech] * 2)
    frames = list(head.animate_video(clip, sound, loop="pingpong"))
    assert len(frames) == -(-len(sound) // 640) > clip.frames


def shown(clip, loop, count):
    return list(map(order_of(clip, loop), range(count)))


def test_orders_of_a_clip(clip):
    there_and_back = [one.frame for one in shown(clip, "pingpong", 3 * FRAMES)]
    assert set(np.abs(np.diff(there_and_back))) == {1} and there_and_back[: FRAMES + 2][-2:] == [FRAMES - 2, FRAMES - 3]
    once = [one.frame for one in shown(clip, "once", FRAMES + 5)]
    assert once == [*range(FRAMES), *[FRAMES - 1] * 5]
    first, last = best_loop(clip)
    assert 0 <= first < last <= FRAMES and last - first >= 0.4 * FRAMES
    forward = shown(clip, "forward", 3 * FRAMES)
    faded = [one for one in forward if one.other >= 0]
    assert faded and all(0.0 < one.share < 1.0 and one.frame - one.other == last - first for one in faded)
    for before, after in pairwise(forward):
        arrives = before.other if before.other >= 0 and after.other < 0 else before.frame
        assert after.frame == arrives + 1 or after.frame == before.frame + 1
    mirrored = [one.frame for one in shown(clip, "mirror", 3 * FRAMES)]  # as released: both ends twice
    assert mirrored == [*range(FRAMES), *reversed(range(FRAMES)), *range(FRAMES)]
    assert LOOPS == ("pingpong", "mirror", "forward", "once")
    with pytest.raises(ValueError, match="expected a loop of pingpong, mirror, forward, once, got 'round'"):
        order_of(clip, "round")


def test_pictures_come_in_any_order(clip, recorded):
    reader = _Reader(clip, 5)
    for number in [0, 1, 2, 20, 21, 20, 19, 18, 17, 16, 15, 14, 15, 16, 3, FRAMES - 1, FRAMES - 2, 0]:
        assert (reader.picture(number) == recorded[number]).all(), number
    for one, picture, other in islice(frames_of(clip, order_of(clip, "forward")), 2 * FRAMES):
        assert (picture == recorded[one.frame]).all()
        assert (other is None) == (one.other < 0) and (other is None or (other == recorded[one.other]).all())


def test_where_the_face_is_lost_the_clip_is_shown_as_it_is(head, recorded, speech, tmp_path):
    long = recorded + [np.full_like(recorded[0], 90)] * 30 + recorded[:6]
    clip = read_clip(write_video(tmp_path / "lost.mkv", long, lossless=True))
    assert clip.tracked.trust[FRAMES + 15] == 0.0 and clip.tracked.trust[3] == 1.0
    sound = np.concatenate([speech] * 3)
    for number, frame in enumerate(islice(head.animate_video(clip, sound, loop="once"), FRAMES + 16)):
        if number == FRAMES + 15:
            assert (frame.image == 90).all()


def test_nothing_is_smoothed_across_a_cut(recorded, tmp_path):
    import cv2

    near = [np.asarray(cv2.resize(image[30:170, 60:200], (256, 256))) for image in recorded[:12]]
    clip = read_clip(write_video(tmp_path / "cut.mkv", recorded[:12] + near, lossless=True))
    assert clip.tracked.cuts == (12,)
    widths = np.linalg.norm(clip.tracked.landmarks[:, 454, :2] - clip.tracked.landmarks[:, 234, :2], axis=1)
    assert widths[12] > 1.6 * widths[11] and np.ptp(widths[:12]) < 0.1 * widths[0] and np.ptp(widths[12:]) < 0.1 * widths[12]
    scales = np.linalg.norm(clip.crops[:, :2, 0], axis=1)
    assert scales[12] > 1.6 * scales[11]


def test_ten_bits_are_read_and_hdr_is_told(recorded, tmp_path, caplog):
    from ditto.media.footage import pictures

    path = tmp_path / "deep.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 256, 256, "yuv420p10le"
        stream.codec_context.color_trc = 18
        for image in recorded[:5]:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p10le")))
        container.mux(stream.encode())
    read = list(pictures(str(path)))
    assert len(read) == 5 and np.abs(read[0].astype(int) - recorded[0]).mean() < 6.0
    assert "is HDR video" in caplog.text


@pytest.mark.parametrize("fault", ["no face", "short", "no video", "missing"])
def test_videos_that_cannot_be_used(recorded, tmp_path, fault):
    path = tmp_path / "clip.mkv"
    if fault == "no face":
        write_video(path, [np.full((64, 64, 3), 90, np.uint8)] * 8, lossless=True)
        with pytest.raises(NoFaceError, match=r"expected a face in .*clip\.mkv, got none in 8 frames"):
            read_clip(path)
        return
    if fault == "short":
        write_video(path, recorded[:3], lossless=True)
    if fault == "no video":
        path.write_bytes(b"RIFF" + bytes(100))
    with pytest.raises(VideoError, match=r"clip\.mkv"):
        read_clip(path)


def test_a_clip_that_was_cut_since_is_refused(head, recorded, speech, tmp_path):
    path = write_video(tmp_path / "clip.mkv", recorded, lossless=True)
    clip = read_clip(path)
    write_video(path, recorded[:8], lossless=True)
    with pytest.raises(VideoError, match="has changed: frame 8 is not there any more"):
        list(head.animate_video(clip, speech))


def test_a_full_temporary_folder_is_an_output_error(video, monkeypatch):
    class Full:
        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("ditto.clip.tempfile.TemporaryFile", lambda **_: Full())
    with pytest.raises(OutputError, match=r"temporary file cannot be written: No space left on device; .* TMPDIR"):
        read_clip(video)


def test_the_command_writes_a_video(video, speech, tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from ditto.app.cli import app

    def run(*words):
        return CliRunner().invoke(app, ["animate", str(video), str(tmp_path / "speech.wav"), *map(str, words)])

    write_wav(tmp_path / "speech.wav", speech[: 10 * 640])
    done = run("-o", tmp_path / "out.mp4", "--loop", "forward", "-q")
    assert done.exit_code == 0, done.output
    with av.open(str(tmp_path / "out.mp4")) as written:
        assert written.streams.video[0].width == 256 and written.streams.audio
    monkeypatch.setattr("ditto.app.cli_video.standard_input", lambda noun: io.BytesIO((tmp_path / "speech.wav").read_bytes()))
    done = CliRunner().invoke(app, ["animate", str(video), "-", "-o", str(tmp_path / "piped.mp4"), "-q"])
    assert done.exit_code == 0 and (tmp_path / "piped.mp4").exists(), done.output
    for words, message in [
        (["--loop", "round"], "expected a loop of pingpong"),
        (["--still"], "expected a picture with --still"),
        (["--face", 1], "expected a picture with --face"),
    ]:
        failed = run("-o", tmp_path / "no.mp4", *words)
        assert failed.exit_code == 2 and message in failed.output.replace("\n", " ")
    assert not (tmp_path / "no.mp4").exists()
