"""Shared by all commands: output, errors in one line, each warning once, interruptions.

Commands call `open_streams` first, and print with `print_output`, `print_result`, `print_table`, `print_error` and the console
of `open_console`. Then a character, a closed descriptor or a full disk that prevents printing does not cost the result.
"""

from __future__ import annotations

import io
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TYPE_CHECKING, Annotated, Any, TextIO, cast

import typer

from ditto.commands import EXIT_FAILURE, EXIT_INPUT_ERROR, EXIT_PIPE_CLOSED, interruption, printable
from ditto.errors import DittoError, InputError, OutputError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


class _StandardError:
    """Standard error that drops what it cannot print: a lost note is better than a lost video."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):  # ValueError: closed, or a character outside of its encoding
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError, AttributeError):  # AttributeError: some development environments have no flush
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def open_streams() -> None:
    """Make standard output and error accept every text. Call it before anything is printed or opened.

    A character outside of the encoding (file names may hold any) is printed as an escape. A closed descriptor (`>&-`, a
    daemon) is opened on the null device: otherwise the next opened file would get its number, and native code would
    print into that file.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # gets the lowest free number, this one
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if not isinstance(sys.stderr, _StandardError):
        sys.stderr = cast(TextIO, _StandardError(sys.stderr))


class WarningHandler(logging.Handler):
    """Prints every warning of the library once."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self._console = console
        self._shown: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if message not in self._shown:
            self._shown.add(message)
            self._console.print(f"note: {message}", style="yellow", highlight=False, markup=False, soft_wrap=True)


def open_console(quiet: bool = False) -> Console:
    """A console on standard error, for notes and progress; with `quiet` it prints nothing."""
    from rich.console import Console

    return Console(file=sys.stderr, quiet=quiet)


def progress_of(console: Console, step: str) -> AbstractContextManager[Any]:
    """A context manager that shows the name of a step with a spinner, on a terminal."""
    return console.status(step, spinner="dots" if console.encoding.startswith("utf") else "line")


def progress(frames: Iterator[Any], total: int | None, console: Console) -> Iterator[Any]:
    """The frames; meanwhile a progress bar with frames, speed and time left."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("animating"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=console.quiet) as bar:
        task = bar.add_task("animating", total=total, speed="")
        for done, frame in enumerate(frames, 1):
            interruption.check()
            yield frame
            speed = bar.tasks[0].speed
            bar.update(task, completed=done, speed=f"{speed:.0f} frames/s" if speed else "")


def show_warnings(console: Console) -> None:
    """Print warnings of the library on this console from now on, each once."""
    logger = logging.getLogger("ditto")
    for handler in [handler for handler in logger.handlers if isinstance(handler, WarningHandler)]:
        logger.removeHandler(handler)
    logger.addHandler(WarningHandler(console))


def interrupted() -> typer.Exit:
    """Print that the command was interrupted; the exit, with the code that a shell gives the signal."""
    print_error(interruption.report())
    return typer.Exit(interruption.code)


@contextmanager
def errors_reported(as_json: bool, debug: bool) -> Iterator[None]:
    """Turn an exception into one line on stderr (with --json also an object on stdout) and an exit code."""
    open_streams()
    interruption.watch()
    try:
        yield
    except typer.Exit:
        raise
    except BrokenPipeError:  # nobody reads the output any more
        discard_output()
        raise typer.Exit(EXIT_PIPE_CLOSED) from None
    except KeyboardInterrupt:
        raise interrupted() from None
    except Exception as error:
        if interruption.number is not None:  # a native import turned KeyboardInterrupt into another error
            raise interrupted() from None
        if debug:
            import traceback

            traceback.print_exc()
        ours = not isinstance(error, InputError)
        advice = " (this is a bug in ditto; --debug shows where)"
        if isinstance(error, DittoError):
            advice = ""
        elif isinstance(error, ImportError):
            advice = " (a package that ditto needs is missing or broken; `ditto doctor` says what to do)"
        message = printable(" ".join(str(error).split())) or "no message"
        print_error(f"ditto: {type(error).__name__}: {message}{advice}")
        if as_json:
            with suppress(OSError, OutputError):
                print_output(json.dumps({"error": type(error).__name__, "message": message}))
        discard_output()
        raise typer.Exit(EXIT_FAILURE if ours else EXIT_INPUT_ERROR) from None


def print_error(text: str) -> None:
    """Print to standard error."""
    print(text, file=sys.stderr, flush=True)


def print_output(text: str) -> None:
    """Print to standard output and flush it.

    Raises:
        OutputError: standard output cannot be written. BrokenPipeError: nobody reads it any more.
    """
    try:
        print(text, flush=hasattr(sys.stdout, "flush"))
    except BrokenPipeError:
        raise
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"the report cannot be written to standard output: {reason}; send it elsewhere") from error


def print_result(text: str) -> None:
    """Print the report of finished work to standard output; if that fails, the command still succeeds."""
    try:
        print_output(text)
    except BrokenPipeError:
        discard_output()
    except OutputError as error:
        discard_output()
        print_error(f"note: {error}")


def print_table(table: Table, report: Callable[[str], None] = print_output) -> None:
    """Print a table with `report`; raises what `report` raises."""
    from rich.console import Console

    text = io.StringIO()
    Console(file=text, force_terminal=hasattr(sys.stdout, "isatty") and sys.stdout.isatty()).print(table)
    report(text.getvalue().rstrip("\n"))


def discard_output() -> None:
    """Drop what standard output cannot write; otherwise Python would try again at exit and print an error."""
    try:
        if hasattr(sys.stdout, "flush"):
            sys.stdout.flush()
    except OSError:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")
