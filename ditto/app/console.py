"""What every command shares: everything it prints, errors in one line, warnings once, interruptions.

Commands print through `say`, `tell`, `show`, `complain` and the console of `open_console`, after `open_streams`: then no
character, closed descriptor or full disk of standard output or error costs a result.
"""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TextIO, cast

import typer

from ditto.errors import DittoError, InputError, OutputError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

CALLERS_MISTAKE, OUR_MISTAKE = 2, 1
INTERRUPTED, PIPE_CLOSED = 130, 141  # as a shell reports a process that SIGINT, SIGPIPE ended

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


class _StandardError:
    """Standard error as it was, but what it cannot take is dropped: a note is not worth a video."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):  # ValueError: closed, or a character that its encoding lacks
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError, AttributeError):  # AttributeError: some development environments have no flush
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def open_streams() -> None:
    """Make standard output and error take every text; call it before anything is printed or opened.

    A character that the encoding lacks (file names may hold any) is written as its escape. A descriptor that is closed
    (`>&-`, a daemon) leads to the null device: the next file to be opened would get its number, and with it what
    native code prints there.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free: this one
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if not isinstance(sys.stderr, _StandardError):
        sys.stderr = cast(TextIO, _StandardError(sys.stderr))


class Notes(logging.Handler):
    """Shows every warning of the library once."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self._console = console
        self._shown: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if message not in self._shown:
            self._shown.add(message)
            self._console.print(f"note: {message}", style="yellow", highlight=False, markup=False)


def open_console(quiet: bool = False) -> Console:
    """Standard error, for notes and progress; a quiet one shows nothing."""
    from rich.console import Console

    return Console(file=sys.stderr, quiet=quiet)


def working(console: Console, on: str) -> AbstractContextManager[Any]:
    """Say what is being done, on a terminal, as long as it lasts."""
    return console.status(on, spinner="dots" if console.encoding.startswith("utf") else "line")


def show_notes(console: Console) -> None:
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
        complain("ditto: interrupted; nothing was written")
        return typer.Exit(INTERRUPTED if self.number is None else 128 + self.number)


interruption = Interruption()


@contextmanager
def errors_reported(as_json: bool, debug: bool) -> Iterator[None]:
    """Turns what goes wrong into one line on stderr (with --json also an object on stdout) and an exit code."""
    open_streams()
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
        complain(f"ditto: {type(error).__name__}: {message}{advice}")
        if as_json:
            with suppress(OSError, OutputError):
                say(json.dumps({"error": type(error).__name__, "message": message}))
        drop_output()
        raise typer.Exit(OUR_MISTAKE if ours else CALLERS_MISTAKE) from None


def complain(text: str) -> None:
    """Print to standard error."""
    print(text, file=sys.stderr, flush=True)


def say(text: str) -> None:
    """Print to standard output, and see to it that it arrives.

    Raises:
        OutputError: standard output takes no more; BrokenPipeError: nobody reads it.
    """
    try:
        print(text, flush=hasattr(sys.stdout, "flush"))
    except BrokenPipeError:
        raise
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"the report cannot be written to standard output: {reason}; send it elsewhere") from error


def tell(text: str) -> None:
    """`say` of work that is complete, whether or not anybody reads about it."""
    try:
        say(text)
    except BrokenPipeError:
        drop_output()
    except OutputError as error:
        drop_output()
        complain(f"note: {error}")


def show(table: Table, report: Callable[[str], None] = say) -> None:
    """A table on standard output; raises what `report` raises."""
    from rich.console import Console

    text = io.StringIO()
    Console(file=text, force_terminal=hasattr(sys.stdout, "isatty") and sys.stdout.isatty()).print(table)
    report(text.getvalue().rstrip("\n"))


def drop_output() -> None:
    """What standard output cannot take is forgotten; Python would try again on its way out and complain."""
    try:
        if hasattr(sys.stdout, "flush"):
            sys.stdout.flush()
    except OSError:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")
