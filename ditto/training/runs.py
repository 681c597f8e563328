"""What every training loop needs: checkpoints, running average, learning rate, curve, TensorBoard."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ditto.errors import InputError, TrainingError
from ditto.media.files import check_folder
from ditto.training.dataset import unwritable, write_bytes
from ditto.values import is_same, is_whole

FORMAT = 1  # of a checkpoint
LOG = "log.jsonl"
SHOWN_EVERY = 50  # updates between two lines of progress


def check_run(out: Path, resume: bool) -> None:
    """Refuse a run whose folder cannot be written or does not fit, before any work.

    Raises:
        OutputError: the folder cannot be made or written.
        InputError: as `check_resume`; to resume, a log that is damaged.
    """
    check_folder(out)
    check_resume(out / "checkpoint.pt", resume)
    if resume and (log := out / LOG).is_file():
        _lines_until(0, log)


def check_resume(checkpoint: Path, resume: bool) -> None:
    """Raises InputError if there is no checkpoint to resume, or one where none is to be resumed."""
    if resume and not checkpoint.is_file():
        raise InputError(f"expected a checkpoint to resume at {checkpoint}, got no such file; start without --resume")
    if not resume and checkpoint.exists():
        raise InputError(f"expected a folder without a checkpoint, got {checkpoint}; add --resume, or give another folder")


def check_same(checkpoint: Path, others: Iterable[str], note: str = "") -> None:
    """Raises InputError if a run differs from that of its checkpoint in anything: `others` names it."""
    if named := ", ".join(others):
        raise InputError(
            f"expected the options of {checkpoint}, got others: {named}{note}; resume with the same, or give another folder"
        )


def write_checkpoint(path: Path, checkpoint: Mapping[str, Any]) -> None:
    """Write a checkpoint whole.

    Raises:
        OutputError: it cannot be written; a file that was there stays as it was.
    """
    buffer = io.BytesIO()
    torch.save(dict(checkpoint), buffer)
    write_bytes(path, buffer.getbuffer())


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint, on the CPU.

    Raises:
        InputError: it cannot be read, or is of another format.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises errors of its own, of zipfile and of pickle
        raise InputError(
            f"expected a checkpoint at {path}, got: {' '.join(str(error).split())[:200]}; train again"
        ) from error
    if not isinstance(found, dict) or not is_same(found.get("format"), FORMAT):
        got = found.get("format") if isinstance(found, dict) else type(found).__name__
        raise InputError(f"expected a checkpoint of format {FORMAT} at {path}, got {got}; train again")
    return found


def cosine_rate(largest: float, step: int, steps: int, warmup: int, final: float) -> float:
    """The learning rate of update `step` (from 0) of `steps`: a linear rise over `warmup` updates, and a cosine from
    `largest` down to `final` of it.
    """
    fall = 0.5 * (1 + math.cos(math.pi * step / steps))
    rise = min(1.0, (step + 1) / max(warmup, 1))
    return largest * rise * (final + (1 - final) * fall)


def follow(average: nn.Module, network: nn.Module, keep: float, done: int) -> None:
    """Move a running average of weights after update `done` (from 1): it keeps the share `keep`, at first less."""
    keep = min(keep, done / (done + 10))
    with torch.no_grad():
        for slow, fast in zip(average.parameters(), network.parameters(), strict=True):
            slow.lerp_(fast, 1 - keep)


def check_finite(values: Tensor, clips: Sequence[str], step: int, what: str) -> None:
    """Raises TrainingError if a value of update `step` (from 0) is not finite; it names the clips of those values (B,), or
    all clips of a single value.
    """
    finite = torch.isfinite(values.detach())
    if bool(finite.all()):
        return
    if values.ndim:
        clips = [clip for clip, ok in zip(clips, finite.tolist(), strict=True) if not ok]
    raise TrainingError(
        f"expected a finite {what} at step {step + 1}, got NaN or infinity with the clips {', '.join(sorted(set(clips)))}; "
        "look at them, or lower the learning rate (the last checkpoint is good)"
    )


class Curve:
    """What a run tells: `log.jsonl`, lines of progress, and TensorBoard if a folder for it is given.

    Args:
        out: folder of the run.
        start: the update that the run goes on from: later lines of an interrupted run are dropped.
        report: takes lines of progress.
        board: folder for TensorBoard, if any.
        shown: False for processes other than the first, which tell nothing.

    Raises:
        InputError: TensorBoard is not installed; a line of the log that was there is damaged, and not the last one.
        OutputError: a file cannot be written; methods raise it too.
    """

    def __init__(
        self, out: Path, start: int, report: Callable[[str], None], board: Path | None, shown: bool = True
    ) -> None:
        self._path, self._report, self._shown = out / LOG, report, shown
        self._folder = board or out
        self._board: Any = None
        if not shown:
            return
        kept = _lines_until(start, self._path) if start and self._path.is_file() else []
        write_bytes(self._path, b"".join(line + b"\n" for line in kept))
        if board is not None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise InputError(
                    f"TensorBoard is not installed ({error}); pip install tensorboard, or leave the option out"
                ) from error
            with _writes(board):
                self._board = SummaryWriter(str(board), purge_step=start + 1)

    def line(self, entry: Mapping[str, object], words: str) -> None:
        """Add an entry to the log, and say it in words."""
        if not self._shown:
            return
        with _writes(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        self._report(words)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of an update, for TensorBoard."""
        if self._board is not None:
            with _writes(self._folder):
                for name, value in values.items():
                    self._board.add_scalar(name, value, step)

    def picture(self, step: int, picture: Tensor) -> None:
        """A picture (3, H, W) in [0, 1] after an update, for TensorBoard."""
        if self._board is not None:
            with _writes(self._folder):
                self._board.add_image("picture", picture.detach().float().clamp(0, 1).cpu(), step)

    def close(self) -> None:
        if self._board is not None:
            with _writes(self._folder):
                self._board.close()


def _lines_until(start: int, path: Path) -> list[bytes]:
    """The lines of a log up to an update. A last line that is not whole is left out: the machine stopped while it was written.

    Raises:
        InputError: the log cannot be read, or another line is not whole.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}; check its permissions") from error
    kept = []
    for number, line in enumerate(lines, 1):
        try:
            step = json.loads(line)["step"]
            if not is_whole(step):
                raise ValueError(f"step {step!r}")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            if number == len(lines):
                break
            raise InputError(
                f"expected a line of the log in {path}, line {number}, got {line[:60]!r}; delete it, and resume again"
            ) from error
        if step <= start:
            kept.append(line)
    return kept


@contextmanager
def _writes(path: Path) -> Iterator[None]:
    """Raises OutputError where the system refuses to write a file."""
    try:
        yield
    except OSError as error:
        raise unwritable(path, error) from error
