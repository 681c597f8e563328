"""Input files, however they are given; output files that get their name only when they are complete."""

from __future__ import annotations

import errno
import io
import os
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, cast

from ditto.errors import InputError, OutputError

if TYPE_CHECKING:
    from typing_extensions import TypeIs

Readable = str | PathLike[str] | bytes | bytearray | memoryview | IO[bytes]


def is_readable(given: object) -> TypeIs[Readable]:
    """Whether it is a path, the bytes of a file or an open file."""
    return isinstance(given, (str, PathLike, bytes, bytearray, memoryview)) or callable(getattr(given, "read", None))


class Source:
    """The bytes of a file, however it is given. It can be read any number of times.

    A file given by name is read where it lies. One that can be read only once (a named pipe, standard input, any open
    file) is copied to a temporary file first, so memory does not grow with its length.

    Args:
        given: a path, the bytes of a file, or a file opened for reading bytes (from its beginning, if it can seek).
        noun: what the file should be, with its article, for messages.
        error: class of the error for a file that cannot be read.

    Attributes:
        name: of the file, for messages.
        size: in bytes, more than 0.

    Raises:
        TypeError: `given` is of another type, or a file opened for text.
        `error`: the file is missing, a folder, a device, empty, closed or not readable.
        OutputError: the temporary file cannot be written.
    """

    def __init__(self, given: Readable, noun: str, error: type[InputError]) -> None:
        self._noun, self._error = noun, error
        self._path: Path | None = None
        self._data: bytes | None = None
        self._copy: Any = None
        self._lock = threading.Lock()
        try:
            if isinstance(given, (bytes, bytearray, memoryview)):
                self.name, self._data = "the bytes given", bytes(given)
                self.size = len(self._data)
            elif isinstance(given, (str, PathLike)):
                self.name = os.fsdecode(given)
                self._read_path(Path(self.name))
            elif callable(getattr(given, "read", None)):
                name = getattr(given, "name", None)  # a number for a file opened by its descriptor
                self.name = name if isinstance(name, str) and name else "the open file"
                self._copy_of(given)
            else:
                raise TypeError(
                    f"expected a path, the bytes of a file or an open file as {noun}, got {type(given).__name__}; "
                    "give one of these"
                )
        except (OSError, ValueError) as cause:  # ValueError: a null character in a path, a closed file
            raise self._unreadable(cause) from cause
        if self.size == 0:
            raise error(f"expected {noun}, got 0 bytes in {self.name}; make or copy it again")

    @property
    def path(self) -> Path | None:
        """Path of the file, if it was given by name and is not a pipe."""
        return self._path

    def open(self) -> BinaryIO:
        """A new reader at the beginning, independent of other readers. Raises `error`."""
        try:
            if self._data is not None:
                return io.BytesIO(self._data)
            if self._path is not None:
                return self._path.open("rb")
        except OSError as cause:
            raise self._unreadable(cause) from cause
        return cast(BinaryIO, io.BufferedReader(CopyReader(self._copy, self.size, self._lock)))

    def read(self) -> bytes:
        """All bytes. Raises `error`."""
        try:
            with self.open() as stream:
                return stream.read()
        except OSError as cause:
            raise self._unreadable(cause) from cause

    def _read_path(self, path: Path) -> None:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise self._error(f"expected {self._noun}, got the folder {path}; give a file in it")
        if not os.access(path, os.R_OK):
            raise self._error(f"expected {self._noun}, got {path}, which you may not read; check its permissions")
        if stat.S_ISFIFO(status.st_mode):
            with path.open("rb") as stream:
                self._copy_of(stream)
        elif stat.S_ISREG(status.st_mode):
            self._path, self.size = path, status.st_size
        else:
            raise self._error(f"expected {self._noun}, got {path}, a device or a socket; give a file or a named pipe")

    def _copy_of(self, stream: Any) -> None:
        if isinstance(stream, io.TextIOBase):
            raise TypeError(f"expected a file opened for bytes, got {self.name} opened for text; open it with mode 'rb'")
        if hasattr(stream, "seekable") and stream.seekable():
            stream.seek(0)
        with temporary_files():
            self._copy = tempfile.TemporaryFile(prefix="ditto.")
        while block := stream.read(1 << 20):
            with temporary_files():
                self._copy.write(block)
        with temporary_files():
            self._copy.flush()
        self.size = self._copy.tell()

    def _unreadable(self, cause: Exception) -> InputError:
        reason = getattr(cause, "strerror", None) or cause
        return self._error(f"{self.name} cannot be read: {reason}; check the name and that it is {self._noun}")


class CopyReader(io.RawIOBase):
    """A reader with its own position in an open file that several readers share."""

    def __init__(self, file: Any, size: int, lock: threading.Lock) -> None:
        self._file, self._size, self._lock, self._at = file, size, lock, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        at = offset + (0, self._at, self._size)[whence]
        if at < 0:
            raise ValueError(f"expected a position of 0 or more, got {at}; seek inside of the file")
        self._at = at
        return at

    def readinto(self, buffer: Any) -> int:
        with self._lock:
            self._file.seek(self._at)
            count = int(self._file.readinto(buffer))
        self._at += count
        return count


def ffmpeg_name(path: str | PathLike[str]) -> str:
    """A path in the form that FFmpeg takes literally: it would take the 12 of `12:30.wav` for a protocol."""
    return f"file:{os.fspath(path)}"


def partial_file(file: Path) -> Path:
    """A new empty file in the folder of `file`; `complete_file` gives it the name when it is written.

    If `file` is a symbolic link, the folder is that of the link's target.

    Raises:
        OSError: the folder is not writable, or `file` is a folder or a device.
    """
    target = link_target(file)
    if target.exists() and not target.is_file():
        raise OSError(errno.EINVAL, f"{target} is a folder or a device")
    descriptor, name = tempfile.mkstemp(prefix=f".{target.stem[:32]}.", suffix=".part", dir=target.parent)
    os.close(descriptor)
    return Path(name)


def complete_file(part: Path, file: Path) -> None:
    """Flush a written file to the disk and give it its name. Raises OSError.

    If the name is a symbolic link, the link stays and its target is replaced. The permissions are those of the replaced
    file, or those of any new file.
    """
    target = link_target(file)
    with part.open("rb") as stream:
        os.fsync(stream.fileno())
    try:
        mode = stat.S_IMODE(target.stat().st_mode)
    except FileNotFoundError:
        umask = os.umask(0)  # it can be read only by changing it
        os.umask(umask)
        mode = 0o666 & ~umask  # mkstemp gives 0600
    os.chmod(part, mode)
    os.replace(part, target)


@contextmanager
def temporary_files() -> Iterator[None]:
    """Temporary files are made and written in the block; raises OutputError where the system refuses that."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"a temporary file cannot be written: {error.strerror or error}; free some space, or name another folder in TMPDIR"
        ) from error


@contextmanager
def whole_file(file: Path) -> Iterator[Path]:
    """An empty file beside `file` to write in the block; at its end it gets the name of `file`, after an error it is removed.

    Raises:
        OSError: as `partial_file` and `complete_file`.
    """
    part = partial_file(file)
    try:
        yield part
        complete_file(part, file)
    finally:
        part.unlink(missing_ok=True)


def write_file(path: str | PathLike[str], data: bytes | memoryview) -> None:
    """Write a file that gets its name when it is complete. Raises OutputError."""
    file = Path(path)
    try:
        with whole_file(file) as part:
            part.write_bytes(data)
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise refused(file, error) from error


def check_writable(file: Path) -> None:
    """Check that a file of this name can be written, before any work is done. Raises OutputError."""
    try:
        if file.is_dir():
            raise OutputError(f"expected a file name as output, {file} is a folder; add a name to it")
        if not file.parent.is_dir():
            raise OutputError(f"expected the folder {file.parent} for {file.name}, got no such folder; make it first")
        check_name(file)
        os.unlink(partial_file(file))
    except (OSError, ValueError) as error:  # ValueError: a null character
        raise refused(file, error) from error


def check_folder(path: Path) -> None:
    """Raises OutputError where a folder is to be made or used and cannot be: before any work, and nothing is made."""
    try:
        check_name(path)
    except (OSError, ValueError) as error:  # ValueError: a null character
        raise refused(path, error) from error
    place = path
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise OutputError(f"expected a folder as output, got the file {place}; choose another name")
    if not os.access(place, os.W_OK | os.X_OK):
        raise OutputError(f"expected a folder that can be written as output, got {place}; choose another, or its permissions")


def check_output_file(path: Path) -> None:
    """Check that a file of this name, and its folders if they are not there, can be made. Raises OutputError."""
    if path.is_dir():
        raise OutputError(f"expected a file name as output, {path} is a folder; add a name to it")
    check_folder(path.parent)
    try:
        check_name(path)
    except (OSError, ValueError) as error:  # ValueError: a null character
        raise refused(path, error) from error


def check_name(file: Path) -> None:
    """Raise OSError or ValueError for a name that no file can have: too long, with a null character."""
    with suppress(FileNotFoundError, NotADirectoryError):
        os.lstat(file)


def refused(path: Path, error: Exception) -> OutputError:
    """The error for an output that the system refuses to write, with what to do."""
    number = getattr(error, "errno", None)
    todo = {
        errno.ENOSPC: "free some space",
        errno.EDQUOT: "free some space",
        errno.EFBIG: "the file system or a limit allows no larger file; write elsewhere",
        errno.EROFS: "the file system is read-only; write elsewhere",
        errno.EACCES: "choose a folder you may write to",
        errno.EPERM: "choose a folder you may write to",
        errno.ENAMETOOLONG: "choose a shorter name",
    }.get(number or 0, "write elsewhere or check the disk")
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return OutputError(f"{path} cannot be written: {reason}; {todo}")


def link_target(file: Path) -> Path:
    """The target of a symbolic link; any other path as it is. Raises OSError for a circle of links."""
    return Path(os.path.realpath(file, strict=False)) if file.is_symlink() else file
