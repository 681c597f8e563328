"""What every command of a terminal shares, `ditto` and `python -m`: interruptions, arguments, errors in one line."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

from ditto.errors import DittoError, InputError

EXIT_INPUT_ERROR, EXIT_FAILURE = 2, 1
EXIT_INTERRUPTED, EXIT_PIPE_CLOSED = 130, 141  # 128 + signal: what a shell reports for SIGINT and SIGPIPE
NOTHING_WRITTEN = "nothing was written"
KEPT = "what is finished is kept"


SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
IMPORT_SECONDS = 0.02  # between two looks whether an import is over


class Interruption:
    """SIGINT (Ctrl-C), SIGTERM and SIGHUP raise KeyboardInterrupt, so that unfinished files are removed.

    In the midst of an import they wait for its end: native modules such as PyTorch make another error of the exception, drop
    it with a traceback, or end the process.

    `number` records the signal, because other native code that calls Python (a destructor) may swallow the exception. `check`
    raises it again. `outcome` is what the report says of the work.
    """

    number: int | None = None
    outcome = NOTHING_WRITTEN
    _at_once = False

    def watch(self, at_once: bool = False) -> None:
        """Handle these signals from now on, except those that the process ignores.

        Args:
            at_once: report and end the process, in the midst of an import too; for a time when there is nothing to be removed.
        """
        self.number, self.outcome, self._at_once = None, NOTHING_WRITTEN, at_once
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._stop)

    def leave(self, code: int | None) -> NoReturn:
        """Exit the program; a signal that comes meanwhile ends it, without a traceback."""
        self._waits(False)
        for number in SIGNALS:
            if signal.getsignal(number) == self._stop:
                signal.signal(number, signal.SIG_DFL)
        sys.exit(code)

    def _waits(self, wait: bool) -> None:
        """Whether a signal that came in the midst of an import comes again."""
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, IMPORT_SECONDS if wait else 0)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        if self._at_once:
            with suppress(OSError):
                os.write(2, f"{self.report()}\n".encode())
            os._exit(self.code)
        if hasattr(signal, "setitimer") and _imports(frame):
            signal.signal(signal.SIGALRM, lambda _, later: self._stop(number, later))
            self._waits(True)
            return
        raise KeyboardInterrupt

    def check(self) -> None:
        """Raises KeyboardInterrupt if a signal has come."""
        if self.number is not None:
            raise KeyboardInterrupt

    def report(self) -> str:
        """What the user is told. After this the signal does not come again."""
        self._waits(False)
        return f"ditto: interrupted; {self.outcome}"

    @property
    def code(self) -> int:
        """The exit code that a shell gives the signal."""
        return EXIT_INTERRUPTED if self.number is None else 128 + self.number


def _imports(frame: FrameType | None) -> bool:
    """Whether a frame is reached from an import statement."""
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None


interruption = Interruption()


def started(package: str) -> None:
    """Called by a package whose modules are run with `python -m`, before they import anything: a signal ends the process at
    once, until `run` runs.
    """
    if sys.argv[:1] != ["-m"] or "-m" not in sys.orig_argv:  # the documented name of a program that is being looked for
        return
    module = sys.orig_argv[sys.orig_argv.index("-m") + 1]
    if module.startswith(f"{package}."):
        interruption.watch(at_once=True)


def run(main: Callable[[], int | None], outcome: str = KEPT) -> NoReturn:
    """Run the function of a module that was started with `python -m`, and exit with what it returns.

    An error of ditto and an interruption are one line on stderr. The exit code is 2 for input that cannot be used, 1 for
    another error of ditto, 130 for Ctrl-C.

    Args:
        outcome: what is said of the work when it is interrupted.
    """
    interruption.watch()
    interruption.outcome = outcome
    try:
        code = main()
    except BrokenPipeError:  # nobody reads the output any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python would try again at exit
        code = EXIT_PIPE_CLOSED
    except (KeyboardInterrupt, Exception) as error:
        if isinstance(error, KeyboardInterrupt) or interruption.number is not None:  # native code made another error of it
            line, code = interruption.report(), interruption.code
        elif isinstance(error, DittoError):
            line, code = f"ditto: {one_line(error)}", EXIT_INPUT_ERROR if isinstance(error, InputError) else EXIT_FAILURE
        else:
            raise
        print(line, file=sys.stderr, flush=True)
    interruption.leave(code)


def one_line(error: Exception) -> str:
    """An error with its type in one line, in which characters that control a terminal are shown as escapes."""
    text = " ".join(str(error).split()) or "no message"
    return f"{type(error).__name__}: {printable(text)}"


def printable(text: str) -> str:
    """A text in which characters that end the line or control a terminal are shown as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class Arguments(argparse.ArgumentParser):
    """A parser of arguments that tells an error in one line, with exit code 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_INPUT_ERROR, f"{self.prog}: error: {printable(' '.join(message.split()))}\n")


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """The type of an argument: a whole number from `least` to `most`."""

    def read(text: str) -> int:
        with suppress(ValueError):
            if least <= (number := int(text)) <= most:
                return number
        raise argparse.ArgumentTypeError(f"expected a whole number from {least} to {most}, got {text!r}")

    return read


def real_number(least: float, most: float) -> Callable[[str], float]:
    """The type of an argument: a number from `least` to `most`."""

    def read(text: str) -> float:
        with suppress(ValueError):
            if least <= (found := float(text)) <= most:
                return found
        raise argparse.ArgumentTypeError(f"expected a number from {least:g} to {most:g}, got {text!r}")

    return read


def existing_folder(text: str) -> Path:
    """The type of an argument: a folder that is there."""
    return _existing(text, "a folder", "a file", os.path.isdir)


def existing_file(text: str) -> Path:
    """The type of an argument: a file that is there."""
    return _existing(text, "a file", "a folder", os.path.isfile)


def _existing(text: str, expected: str, other: str, is_one: Callable[[str], bool]) -> Path:
    if not is_one(text):
        raise argparse.ArgumentTypeError(f"expected {expected} at {text!r}, got {other if os.path.exists(text) else 'none'}")
    return Path(text)
