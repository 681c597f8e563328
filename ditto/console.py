"""What every command shares: errors in one line, warnings once, interruptions, output that has arrived."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Annotated, Any, NoReturn

import typer

from ditto.errors import DittoError, InputError, OutputError

CALLERS_MISTAKE, OUR_MISTAKE = 2, 1
INTERRUPTED, PIPE_CLOSED = 130, 141  # as a shell reports a process that SIGINT, SIGPIPE ended

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


class Notes(logging.Handler):
    """Shows every warning of the library once."""

    def __init__(self, console: Any) -> None:
        super().__init__(logging.WARNING)
        self._console = console
        self._shown: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if message not in self._shown:
            self._shown.add(message)
            self._console.print(f"note: {message}", style="yellow", highlight=False, markup=False)


def show_notes(console: Any) -> None:
    """Warnings of the library go to this console from now on, each once."""
    logger = logging.getLogger("ditto")
    for handler in [handler for handler in logger.handlers if isinstance(handler, Notes)]:
        logger.removeHandler(handler)
    logger.addHandler(Notes(console))


class Interruption:
    """Ctrl-C, a request to end, a closed terminal: raised as KeyboardInterrupt, so that files are removed, and noted.

    Noted, because native code that calls Python (an import, a destructor) sometimes swallows what is raised in it.
    """

    number: int | None = None

    def watch(self) -> None:
        """Listen to the signals that are not ignored, from now on."""
        self.number = None
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._stop)

    def _stop(self, number: int, frame: object) -> NoReturn:
        self.number = number
        raise KeyboardInterrupt

    def check(self) -> None:
        """Raises KeyboardInterrupt if that was swallowed."""
        if self.number is not None:
            raise KeyboardInterrupt

    def told(self) -> typer.Exit:
        """Says it; gives the exit code as a shell has it."""
        print("ditto: interrupted; nothing was written", file=sys.stderr)
        return typer.Exit(INTERRUPTED if self.number is None else 128 + self.number)


interruption = Interruption()


@contextmanager
def errors_reported(as_json: bool, debug: bool) -> Iterator[None]:
    """Turns what goes wrong into one line on stderr (with --json also an object on stdout) and an exit code."""
    interruption.watch()
    try:
        yield
    except typer.Exit:
        raise
    except BrokenPipeError:  # whoever read the report has gone
        drop_output()
        raise typer.Exit(PIPE_CLOSED) from None
    except KeyboardInterrupt:
        raise interruption.told() from None
    except Exception as error:
        if interruption.number is not None:  # a native module that was being imported made this of it
            raise interruption.told() from None
        if debug:
            import traceback

            traceback.print_exc()
        ours = not isinstance(error, InputError)
        advice = " (this is a fault of ditto; --debug shows where)"
        if isinstance(error, DittoError):
            advice = ""
        elif isinstance(error, ImportError):
            advice = " (something ditto needs is missing or broken; `ditto doctor` says what to do)"
        message = " ".join(str(error).split()) or "no message"
        print(f"ditto: {type(error).__name__}: {message}{advice}", file=sys.stderr)
        if as_json:
            with suppress(OSError, OutputError):
                say(json.dumps({"error": type(error).__name__, "message": message}))
        drop_output()
        raise typer.Exit(OUR_MISTAKE if ours else CALLERS_MISTAKE) from None


def say(text: str) -> None:
    """Print, and make sure that it has arrived.

    Raises:
        OutputError: standard output takes no more; BrokenPipeError: nobody reads it.
    """
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"the report cannot be written to standard output: {reason}; send it elsewhere") from error


def drop_output() -> None:
    """What standard output cannot take is forgotten; Python would try again on its way out and complain."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
