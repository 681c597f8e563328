"""Every format of the table: written, and read back by another program (PyAV's decoders, Pillow)."""

import logging
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from wav import write_wav

from ditto.errors import OutputError
from ditto.media.formats import FORMATS, QUALITIES, SUFFIXES, Place, format_of
from ditto.media.video import VideoWriter, check_output
from ditto.provenance import publish
from ditto.provenance.marking import EMBEDDED

WIDTH, HEIGHT = 96, 64
FILES = [row for row in FORMATS if row.place in (Place.FILE, Place.PICTURES)]
WITH_ALPHA = [row for row in FILES if row.alpha_format]
SOUND = 0.3 * np.sin(np.arange(16000, dtype=np.float32) / 16000 * 2 * np.pi * 440)


def name_of(row):
    return f"out{row.suffix}" if row.place is not Place.PICTURES else "frames/%03d.png"


def picture(number, alpha=False):
    """A blue box that moves over brown, which is transparent."""
    image = np.full((HEIGHT, WIDTH, 4), (180, 120, 90, 0), np.uint8)
    image[14:50, 14 + 2 * number : 50 + 2 * number] = (30, 90, 200, 100)  # a soft edge
    image[16:48, 16 + 2 * number : 48 + 2 * number] = (30, 90, 200, 255)
    return image if alpha else np.ascontiguousarray(image[..., :3])


def write(path, row, frames=8, alpha=False, **options):
    with VideoWriter(path, WIDTH, HEIGHT, codec=row.codec, alpha=alpha, **options) as writer:
        for number in range(frames):
            writer.write(picture(number, alpha), SOUND[640 * number : 640 * (number + 1)])


def read(path, row):
    """The pictures (H, W, 4) of an output. FFmpeg decodes VP9's alpha with libvpx only, and no animated WebP."""
    if row.place is Place.PICTURES:
        return [np.asarray(Image.open(file).convert("RGBA")) for file in sorted(path.parent.glob("*.png"))]
    if row.suffix == ".webp":
        image, found = Image.open(path), []
        for number in range(image.n_frames):
            image.seek(number)
            found.append(np.asarray(image.convert("RGBA")))
        return found
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        decoder = av.CodecContext.create("libvpx-vp9", "r") if row.suffix == ".webm" else stream.codec_context
        frames = [frame for packet in container.demux(stream) for frame in decoder.decode(packet)]
        assert [round(frame.time * 25) for frame in frames] == list(range(len(frames)))
        return [frame.to_ndarray(format="rgba") for frame in frames]


@pytest.mark.parametrize("row", FILES, ids=lambda row: row.name)
def test_every_frame_comes_back(tmp_path, row):
    path = tmp_path / name_of(row)
    write(path, row)
    shown = read(path, row)
    assert len(shown) == 8
    for number in (0, 7):
        difference = shown[number][..., :3].astype(float) - picture(number)
        assert np.sqrt((difference**2).mean()) < 10  # lossy, chroma at half size; WebP 9.2
        assert (shown[number][..., 3] == 255).all()
    made = [p.name for p in tmp_path.iterdir() if p.suffix != ".c2pa"]
    assert made == [path.relative_to(tmp_path).parts[0]]  # and, beside WebM, its content credentials


@pytest.mark.parametrize("row", WITH_ALPHA, ids=lambda row: row.name)
def test_alpha_comes_back_from_0_to_255(tmp_path, row):
    path = tmp_path / name_of(row)
    write(path, row, alpha=True)
    for number, shown in enumerate(read(path, row)):
        alpha = picture(number, alpha=True)[..., 3]
        assert shown[..., 3].min() == 0 and shown[..., 3].max() == 255
        if row.suffix != ".gif":  # which has no soft edges
            assert (abs(shown[..., 3].astype(int) - alpha) > 32).mean() < 0.01
        inside = shown[20:44, 20 + 2 * number : 44 + 2 * number, :3]
        assert abs(inside.reshape(-1, 3).mean(0) - (30, 90, 200)).max() < 8


@pytest.mark.parametrize("row", [row for row in FILES if row.place is Place.FILE], ids=lambda row: row.name)
def test_a_format_has_sound_or_says_that_it_carries_none(tmp_path, row, caplog):
    write_wav(tmp_path / "in.wav", SOUND, 16000)
    with caplog.at_level(logging.INFO, logger="ditto.media.video"), VideoWriter(
        tmp_path / name_of(row), WIDTH, HEIGHT, audio=tmp_path / "in.wav", codec=row.codec
    ) as writer:
        for number in range(8):
            writer.write(picture(number))
    if row.audio_codec is None:
        assert "carries no sound" in caplog.text
        return
    with av.open(str(tmp_path / name_of(row))) as container:
        sound = list(container.decode(audio=0))
    assert abs(sound[-1].time + sound[-1].samples / sound[-1].sample_rate - 8 / 25) < 0.04


@pytest.mark.parametrize("row", [row for row in FILES if row.qualities], ids=lambda row: row.name)
def test_a_lower_quality_is_a_smaller_file(tmp_path, row):
    random = np.random.default_rng(0)
    frames = [random.integers(0, 255, (64, 96, 3), np.uint8) // 2 + picture(n) // 2 for n in range(3)]
    sizes = []
    for quality in ("low", "high"):
        with VideoWriter(tmp_path / name_of(row), WIDTH, HEIGHT, codec=row.codec, quality=quality) as writer:
            for frame in frames:
                writer.write(frame)
        sizes.append((tmp_path / name_of(row)).stat().st_size)
    assert sizes[0] < sizes[1]


def test_the_first_row_of_a_suffix_is_its_usual_codec_and_alpha_takes_one_that_has_it():
    assert [format_of(f"a{suffix}").codec for suffix in (".mp4", ".MOV", ".webm")] == ["h264", "prores", "vp9"]
    assert format_of("a.mov", alpha=True).codec == "prores4444"
    assert {format_of(f"x%d{suffix}").suffix for suffix in SUFFIXES if suffix[0] == "."} <= set(SUFFIXES)
    for row in FORMATS:
        assert set(row.qualities) in (set(), set(QUALITIES))


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("out", {}, "expected an output that ends in .mp4"), ("http://a/b", {}, "expected an output that ends in"),
        ("out.mp4", {"codec": "prores"}, "expected the codec h264 or hevc for .mp4, got 'prores'"),
        ("out.mp4", {"alpha": True}, "keeps alpha, got .mp4 (h264); choose .webm (vp9), .mov (prores4444), .gif (gif)"),
        ("out.mov", {"alpha": True, "codec": "prores"}, "keeps alpha, got .mov (prores)"),
        ("out.mp4", {"quality": "best"}, "expected a quality of low, standard or high, got 'best'"),
        ("f/%d.png", {"quality": "low"}, "loses nothing"), ("out.png", {}, "name it frames/%05d.png"),
        ("%d%d.png", {}, "numbers its pictures"), ("none/folder/%d.png", {}, "make it first"),
        ("f/%0500d.png", {}, "numbers of 99 digits or fewer"), ("f/%0999999999999d.png", {}, "99 digits"),
        (f"f/{'a' * 250}%05d.png", {}, "too long"), (f"{'f' * 300}/%d.png", {}, "too long"), ("a\0/%d.png", {}, "null"),
        (f"{'a' * 300}.mp4", {}, "too long"), (f"{'a' * 245}.m3u8", {}, "too long"), ("a\0.m3u8", {}, "null"),
        ("srt://127.0.0.1:9/a", {}, "expected PyAV with SRT"),
    ],
)  # fmt: skip
def test_what_cannot_be_written_is_refused_before_any_work(tmp_path, monkeypatch, path, options, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError) as error:
        check_output(path, **options)
    assert message in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_what_lies_in_the_way_is_told_before_any_work(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "out.c2pa").mkdir()
    for path, message in (("file/%d.png", "expected a folder for %d.png, got the file"), ("out.webm", "out.c2pa is a folder")):
        with pytest.raises(OutputError, match=message):
            check_output(tmp_path / path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "out.c2pa"]


def test_a_sequence_replaces_no_pictures_and_appears_whole(tmp_path):
    path = tmp_path / "a%3" / "x%03d.png"
    path.parent.mkdir()
    with pytest.raises(RuntimeError), VideoWriter(path, WIDTH, HEIGHT) as writer:
        writer.write(picture(0))
        raise RuntimeError
    assert list(path.parent.iterdir()) == []
    write(path, format_of(path), frames=2)
    assert sorted(p.name for p in path.parent.iterdir()) == ["x000.png", "x001.png"]
    with pytest.raises(OutputError, match=r"expected no pictures of the name .*, got x000\.png"):
        VideoWriter(path, WIDTH, HEIGHT)


def test_of_two_that_write_one_sequence_the_second_is_refused(tmp_path):
    writers = [VideoWriter(tmp_path / "f%d.png", WIDTH, HEIGHT, provenance=None) for _ in range(2)]
    for number, writer in enumerate(writers):
        for frame in range(2 + number):
            writer.write(picture(frame + 5 * number))
    writers[0].close()
    there = {file.name: file.read_bytes() for file in tmp_path.glob("f*.png")}
    with pytest.raises(OutputError, match=r"expected no pictures of the name .*, got f0\.png"):
        writers[1].close()
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == there and len(there) == 2


def test_a_sequence_that_cannot_be_completed_leaves_nothing(tmp_path, monkeypatch):
    calls = []

    def refuse_the_second(part, target, provenance):
        calls.append(target)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return publish(part, target, provenance)

    monkeypatch.setattr("ditto.media.video.publish", refuse_the_second)
    with pytest.raises(OutputError, match="free some space"):
        write(tmp_path / "x%03d.png", format_of("x%d.png"), frames=3)
    assert len(calls) == 2 and list(tmp_path.iterdir()) == []


def test_a_gif_keeps_still_what_stands_still(tmp_path):
    random = np.random.default_rng(0)
    background = np.repeat(np.repeat(random.integers(0, 255, (8, 12, 3), np.uint8), 8, 0), 8, 1)
    with VideoWriter(tmp_path / "a.gif", WIDTH, HEIGHT) as writer:
        for number in range(30):  # more than the palette is made from
            frame = background.copy()
            frame[:16, 2 * number : 2 * number + 8] = (200, 10, 10)
            writer.write(frame)
    shown = read(tmp_path / "a.gif", format_of("a.gif"))
    assert len(shown) == 30
    assert all((frame[16:] == shown[0][16:]).all() for frame in shown)
    assert Image.open(tmp_path / "a.gif").info["loop"] == 0


def test_odd_sizes_are_refused_only_where_colours_have_half_the_pixels(tmp_path):
    for name in ("a.mp4", "a.webm", "a.mov", "a.webp"):
        with pytest.raises(ValueError, match="expected even sizes"):
            VideoWriter(tmp_path / name, 95, 64)
    for name in ("a.gif", "%d.png"):
        with VideoWriter(tmp_path / name, 95, 63) as writer:
            writer.write(picture(0)[:63, :95])
    assert Image.open(tmp_path / "0.png").size == Image.open(tmp_path / "a.gif").size == (95, 63)


def playlist(path):
    return path.read_text().splitlines()


def test_a_playlist_can_be_played_while_it_grows_and_ends_properly(tmp_path):
    path = tmp_path / "a%2.m3u8"
    with VideoWriter(path, WIDTH, HEIGHT) as writer:
        for number in range(160):
            writer.write(picture(number % 8), SOUND[:640])
        grown = playlist(path)
        assert len([line for line in grown if line.endswith(".m4s")]) >= 1 and "#EXT-X-ENDLIST" not in grown
        for line in grown:  # what it names is there
            assert line.startswith("#") or (tmp_path / line).is_file()
        with av.open(str(path), options={"live_start_index": "0"}) as container:
            assert next(container.decode(video=0)).time < 0.04  # AAC begins a frame of its own earlier
    assert playlist(path)[-1] == "#EXT-X-ENDLIST"
    with av.open(str(path)) as container:
        assert len(list(container.decode(video=0))) == 160
    assert not list(tmp_path.glob("*.tmp"))


def test_a_playlist_ends_properly_after_an_error(tmp_path):
    path = tmp_path / "a.m3u8"
    with pytest.raises(RuntimeError), VideoWriter(path, WIDTH, HEIGHT) as writer:
        for number in range(60):
            writer.write(picture(number % 8))
        raise RuntimeError
    assert playlist(path)[-1] == "#EXT-X-ENDLIST"
    with av.open(str(path)) as container:
        assert len(list(container.decode(video=0))) == 60


def free_port():
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


SERVER = """
import av, sys
with av.open(sys.argv[1], options={"listen": "1"}) as container:
    packets = {"audio": 0, "video": 0}
    try:
        for packet in container.demux():
            packets[packet.stream.type] += 1
            if packets["video"] == int(sys.argv[2]):
                sys.exit()
    except av.FFmpegError:  # the end of the stream
        pass
print(packets["video"], packets["audio"])
"""


def send(address, server, frames):
    """Send frames to a server, as soon as it listens."""
    while True:
        try:
            with VideoWriter(address, WIDTH, HEIGHT) as writer:
                for number in range(frames):
                    writer.write(picture(number % 8), SOUND[:640])
            return
        except OutputError as error:
            if "refused" not in str(error) or server.poll() is not None:
                raise


def serve(address, count=-1):
    return subprocess.Popen([sys.executable, "-c", SERVER, address, str(count)], stdout=subprocess.PIPE, text=True)


def test_a_server_gets_the_stream():
    address = f"rtmp://127.0.0.1:{free_port()}/live/a|b"
    with serve(address) as server:
        send(address, server, 6)
        video, audio = map(int, server.communicate(timeout=60)[0].split())
        assert video == 6 and audio >= 6 / 25 * 48000 / 1024


def test_a_server_that_goes_away_is_an_output_error():
    address = f"rtmp://127.0.0.1:{free_port()}/live/a"
    with serve(address, 2) as server:
        with pytest.raises(OutputError, match=r"expected a server at 127\.0\.0\.1:\d+ that takes RTMP"):
            send(address, server, 10_000)


def test_a_server_that_is_not_there_is_an_output_error():
    address = f"rtmp://user:secret@127.0.0.1:{free_port()}/live/a"
    with pytest.raises(OutputError, match=r"expected a server at 127\.0\.0\.1:\d+ that takes RTMP") as error, VideoWriter(
        address, WIDTH, HEIGHT
    ) as writer:
        writer.write(picture(0))
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("address", ["rtmp://", "srt://", "rtmps:///"])
def test_an_address_without_a_host_is_refused_before_any_work(address):
    with pytest.raises(OutputError, match="expected an address, got"):
        check_output(address)


def test_the_page_has_the_table():
    page = (Path(__file__).parents[2] / "docs" / "outputs.md").read_text()
    for row in FORMATS:
        line = next(line for line in page.splitlines() if line.startswith(f"| `{row.suffix}") and f"`{row.codec}`" in line)
        _, _, _, alpha, sound, credentials, *_ = (cell.strip() for cell in line.split("|"))
        kept = row.place in (Place.FILE, Place.PICTURES)
        assert credentials == ("none" if not kept else "inside" if row.suffix in EMBEDDED else "beside it")
        assert alpha.startswith("yes" if row.alpha_format else "no") and sound.startswith("yes" if row.audio_codec else "no")
