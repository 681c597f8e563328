import errno
import io
import os
import threading
from pathlib import Path

import pytest

from ditto.errors import AudioError, OutputError
from ditto.media.files import Source, check_writable, partial_file, whole_file, write_file

CONTENT = bytes(range(256)) * 20


def source_of(given):
    return Source(given, "a recording", AudioError)


def directory_entry(path: Path) -> os.DirEntry:
    return next(entry for entry in os.scandir(path.parent) if entry.name == path.name)


@pytest.mark.parametrize(
    "give",
    [str, Path, directory_entry, Path.read_bytes, lambda p: bytearray(p.read_bytes()), lambda p: memoryview(CONTENT),
     lambda p: io.BytesIO(p.read_bytes()), lambda p: p.open("rb"), lambda p: p.open("rb", buffering=0)],
)  # fmt: skip
def test_every_way_to_give_a_file_gives_its_bytes_again_and_again(tmp_path, give):
    (tmp_path / "a").write_bytes(CONTENT)
    source = source_of(give(tmp_path / "a"))
    first, second = source.open(), source.open()
    assert source.size == len(CONTENT)
    assert (first.read(100), second.read(50), first.read()) == (CONTENT[:100], CONTENT[:50], CONTENT[100:])
    assert second.seek(-5, os.SEEK_END) == len(CONTENT) - 5
    assert second.read() == CONTENT[-5:]
    assert source.read() == CONTENT


def test_an_open_file_is_read_from_its_beginning():
    stream = io.BytesIO()
    stream.write(CONTENT)  # its position is the end now
    assert source_of(stream).read() == CONTENT


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes")
def test_a_named_pipe_can_be_read_again(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(CONTENT,))
    writer.start()
    source = source_of(tmp_path / "pipe")
    writer.join()
    assert source.read() == source.read() == CONTENT


@pytest.mark.parametrize(
    ("give", "message"),
    [
        (lambda p: p / "none", "No such file"),
        (lambda p: p, "got the folder"),
        (lambda p: "a\0b", "null"),
        (lambda p: b"", "0 bytes"),
        (lambda p: io.BytesIO(), "0 bytes"),
        (lambda p: os.devnull, "a device"),
    ],
)
def test_what_cannot_be_read_is_a_typed_error(tmp_path, give, message):
    with pytest.raises(AudioError, match=message):
        source_of(give(tmp_path))


def test_a_full_temporary_folder_is_told_and_not_blamed_on_the_recording(monkeypatch):
    class Full(io.BytesIO):
        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    def refuse(**_):
        raise OSError(errno.EROFS, "Read-only file system")

    for make, words in ((lambda **_: Full(), "No space left"), (refuse, "Read-only")):
        monkeypatch.setattr("ditto.media.files.tempfile.TemporaryFile", make)
        with pytest.raises(OutputError, match=f"a temporary file cannot be written: {words}.*; free some space, .* TMPDIR"):
            source_of(io.BytesIO(CONTENT))


def test_a_closed_file_is_a_typed_error():
    stream = io.BytesIO(CONTENT)
    stream.close()
    with pytest.raises(AudioError, match="closed"):
        source_of(stream)


@pytest.mark.parametrize("given", [io.StringIO("text"), 5, None, [1.0]])
def test_other_kinds_are_type_errors(given):
    with pytest.raises(TypeError, match="bytes"):
        source_of(given)


def written(path: Path, content: bytes) -> None:
    with whole_file(path) as part:
        part.write_bytes(content)


def test_a_link_stays_and_leads_to_the_new_file(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("second")
    (tmp_path / "second").symlink_to(Path("there") / "real")
    written(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "second").is_symlink()
    assert (tmp_path / "there" / "real").read_bytes() == b"new"
    assert [p.name for p in (tmp_path / "there").iterdir()] == ["real"]


def test_a_link_to_nothing_yet_is_followed(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "real")
    written(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_a_device_is_not_replaced(tmp_path):
    (tmp_path / "link").symlink_to(os.devnull)
    with pytest.raises(OSError, match="device"):
        partial_file(tmp_path / "link")


@pytest.mark.skipif(os.name == "nt", reason="modes")
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664])
def test_the_mode_of_the_file_replaced_is_kept(tmp_path, mode):
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "file").chmod(mode)
    written(tmp_path / "file", b"new")
    assert (tmp_path / "file").stat().st_mode & 0o777 == mode


@pytest.mark.skipif(os.name == "nt", reason="modes")
def test_a_new_file_has_the_mode_of_new_files(tmp_path):
    written(tmp_path / "ours", b"new")
    (tmp_path / "theirs").write_bytes(b"new")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "theirs").stat().st_mode


@pytest.mark.parametrize("error", [OSError("full"), KeyboardInterrupt(), ValueError()])
def test_an_error_leaves_the_file_that_was_there_and_nothing_else(tmp_path, error):
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(type(error)), whole_file(tmp_path / "file") as part:
        part.write_bytes(b"half")
        raise error
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("file", b"old")]


@pytest.mark.parametrize("name", ["no/file", "folder", "a\0b", "n" * 300])
@pytest.mark.parametrize("write", [check_writable, lambda path: write_file(path, CONTENT)])
def test_what_cannot_be_written_is_a_typed_error_with_advice(tmp_path, name, write):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match=r".+; .+"):
        write(tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_a_check_writes_nothing(tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    check_writable(tmp_path / "file")
    check_writable(tmp_path / "other")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("file", b"old")]
