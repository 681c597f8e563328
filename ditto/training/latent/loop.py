"""The training loop of the latent systems: by steps and stages, the same bits again, and after an interruption.

An update depends on its number and the seed alone, and a checkpoint holds everything else: weights, their running average,
the optimizer and the step. Processes (accelerate, torchrun) average their gradients.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn

from ditto.errors import InputError, TrainingError
from ditto.training.dataset import unwritable, write_bytes
from ditto.training.latent.muon import Muon
from ditto.training.motion_loop import OneProcess, Workers, read_checkpoint, write_checkpoint

FORMAT = 1  # of a checkpoint; `read_checkpoint` checks it
SHOWN_EVERY = 50  # updates between two lines of progress
OPTIMIZERS = ("muon", "adamw")

AnyBatch = TypeVar("AnyBatch", bound="Batch")


class Batch(Protocol):
    """What an update of one process learns from. `clips` names it, in messages."""

    @property
    def clips(self) -> tuple[str, ...]: ...

    def to(self: AnyBatch, device: torch.device) -> AnyBatch: ...


class Terms(NamedTuple):
    """What an objective finds.

    Attributes:
        losses: (B,) one for each clip.
        figures: named numbers to show.
        picture: (3, H, W) in [0, 1] to show in TensorBoard, if any.
    """

    losses: Tensor
    figures: Mapping[str, Tensor]
    picture: Tensor | None = None


class Objective(nn.Module):
    """A network and its loss: `forward(batch) -> Terms`."""

    network: nn.Module

    def begin(self, stage: int) -> None:
        """Called before the first update of a stage (and when a run goes on in it): what is trained in it needs gradients."""


@dataclass(frozen=True)
class Stage:
    """A stretch of updates. It starts from the average of the stage before, with a new optimizer.

    Attributes:
        steps: updates.
        learning_rate: largest; it falls as a cosine to `final_rate` of it.
        final_rate: a share.
        warmup: updates over which it rises.
    """

    steps: int
    learning_rate: float
    final_rate: float = 0.02
    warmup: int = 40

    def rate(self, step: int) -> float:
        """The learning rate of update `step` (from 0)."""
        fall = 0.5 * (1 + math.cos(math.pi * step / self.steps))
        rise = min(1.0, (step + 1) / max(self.warmup, 1))
        return self.learning_rate * rise * (self.final_rate + (1 - self.final_rate) * fall)


@dataclass(frozen=True)
class Run:
    """What a run consists of besides its network and data.

    Attributes:
        words: recipe, config and fingerprint of the data, as JSON: a run goes on with the same alone.
        out: folder of `checkpoint.pt` and the curve, `log.jsonl`.
        seed: of all randomness.
        optimizer: of `OPTIMIZERS`.
        weight_decay: of the optimizer.
        clip: largest norm of the gradient.
        average: the running average of the weights keeps this share of itself at an update.
        bfloat16: run the network in bfloat16 under autocast.
        checkpoint_every: updates between two checkpoints.
        report: takes lines of progress.
        board: folder for TensorBoard, if any: figures of every update, a picture at every checkpoint.
    """

    words: Mapping[str, Any]
    out: Path
    seed: int = 0
    optimizer: str = "muon"
    weight_decay: float = 0.0
    clip: float = 1.0
    average: float = 0.99
    bfloat16: bool = True
    checkpoint_every: int = 50
    report: Callable[[str], None] = print
    board: Path | None = None

    @property
    def checkpoint(self) -> Path:
        return self.out / "checkpoint.pt"


def train(
    objective: Objective,
    draw: Callable[[int, int], Batch],
    stages: Sequence[Stage],
    run: Run,
    workers: Workers | None = None,
    resume: bool = False,
) -> nn.Module:
    """Train until the end of the last stage; the running average of the weights.

    Args:
        objective: the network and its loss.
        draw: the batch of an update by its number, counted over all stages, and of a process by its rank.
        stages: one after the other.
        run: folder, seed, optimizer.
        workers: processes that train together; this one alone by default.
        resume: go on from the checkpoint in the folder, with the bits of a run that was never interrupted.

    Raises:
        InputError: a checkpoint of another run (to resume), or a folder that already has one (not to resume).
        TrainingError: a loss or gradient that is not finite; the message names the clips, the last checkpoint stays.
        OutputError: a checkpoint cannot be written; the last one stays.
    """
    workers = workers or OneProcess()
    if run.optimizer not in OPTIMIZERS:
        raise InputError(f"expected an optimizer of {', '.join(OPTIMIZERS)}, got {run.optimizer!r}; give one of them")
    if resume != run.checkpoint.is_file():
        raise InputError(
            f"expected a checkpoint to resume at {run.checkpoint}, got no such file; start without --resume"
            if resume
            else f"expected a folder without a checkpoint, got {run.checkpoint}; add --resume, or give another folder"
        )
    network = objective.to(workers.device).network
    for tensor in network.state_dict().values():
        tensor.copy_(workers.from_first(tensor))
    average = copy.deepcopy(network).requires_grad_(False).eval()
    start, saved = 0, None
    if resume:
        start, saved = _restore(run, network, average)
    log = _Log(run, start, workers.rank == 0)
    ends = [sum(stage.steps for stage in stages[: place + 1]) for place in range(len(stages))]
    optimizer: torch.optim.Optimizer | None = None
    for step in range(start, ends[-1]):
        place = next(i for i, end in enumerate(ends) if step < end)
        stage, inside = stages[place], step - (ends[place] - stages[place].steps)
        if optimizer is None or not inside:
            if not inside:
                network.load_state_dict(average.state_dict())
            objective.begin(place)
            optimizer = _make_optimizer(network, run)
            if inside and saved is not None:
                optimizer.load_state_dict(saved)
        rate = stage.rate(inside)
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = draw(step, workers.rank)
        with torch.autocast(workers.device.type, torch.bfloat16, enabled=run.bfloat16):
            terms: Terms = objective(batch.to(workers.device))
        _check_finite(terms.losses, batch, step, "loss")
        terms.losses.mean().backward()  # type: ignore[no-untyped-call]
        trained = [p for p in network.parameters() if p.grad is not None]
        _average_gradients(trained, workers)
        _check_finite(torch.nn.utils.clip_grad_norm_(trained, run.clip), batch, step, "gradient")
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        _follow(average, network, min(run.average, (inside + 1) / (inside + 11)))
        done = step + 1
        figures = {"loss": terms.losses.mean(), **terms.figures}
        found = workers.mean(torch.stack([value.detach().float().mean() for value in figures.values()])).tolist()
        log.add(done, ends[-1], rate, dict(zip(figures, found, strict=True)))
        if workers.rank == 0 and (done % run.checkpoint_every == 0 or done in ends):
            log.show(done, terms.picture)
            kept = {"format": FORMAT, "step": done, "seed": run.seed, "words": json.dumps(run.words, sort_keys=True)}
            kept |= {"model": average.state_dict(), "trained": network.state_dict(), "optimizer": optimizer.state_dict()}
            write_checkpoint(run.checkpoint, kept)
    log.close()
    return average


def _make_optimizer(network: nn.Module, run: Run) -> torch.optim.Optimizer:
    parameters = [p for p in network.parameters() if p.requires_grad]
    if run.optimizer == "muon":
        return Muon(parameters, 0.0, run.weight_decay)
    return torch.optim.AdamW(parameters, 0.0, betas=(0.9, 0.99), weight_decay=run.weight_decay)


def _average_gradients(parameters: Sequence[nn.Parameter], workers: Workers) -> None:
    """Over the processes; all have gradients for the same parameters."""
    if workers.count == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = workers.mean(torch.cat([gradient.flatten() for gradient in gradients]))
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def _follow(average: nn.Module, network: nn.Module, keep: float) -> None:
    with torch.no_grad():
        for slow, fast in zip(average.parameters(), network.parameters(), strict=True):
            slow.lerp_(fast, 1 - keep)


def _check_finite(values: Tensor, batch: Batch, step: int, what: str) -> None:
    finite = torch.isfinite(values.detach())
    if bool(finite.all()):
        return
    clips = batch.clips
    if values.ndim:
        clips = tuple(clip for clip, ok in zip(clips, finite.tolist(), strict=True) if not ok)
    raise TrainingError(
        f"expected a finite {what} at step {step + 1}, got NaN or infinity with the clips {', '.join(sorted(set(clips)))}; "
        "look at them, or lower the learning rate (the last checkpoint is good)"
    )


def _restore(run: Run, network: nn.Module, average: nn.Module) -> tuple[int, dict[str, Any]]:
    found = read_checkpoint(run.checkpoint)
    before, now = json.loads(found["words"]), json.loads(json.dumps(run.words))
    others = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    if found["seed"] != run.seed:
        others.append("seed")
    if others:
        raise InputError(
            f"expected the options of {run.checkpoint}, got others: {', '.join(others)}; resume with the same, or give "
            "another folder"
        )
    network.load_state_dict(found["trained"])
    average.load_state_dict(found["model"])
    return int(found["step"]), found["optimizer"]


class _Log:
    """`log.jsonl`, lines of progress, and TensorBoard if a folder for it is given; of the first process only."""

    def __init__(self, run: Run, start: int, shown: bool) -> None:
        self._run, self._shown, self._path = run, shown, run.out / "log.jsonl"
        self._board: Any = None
        if not shown:
            return
        if run.board is not None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise InputError(
                    f"TensorBoard is not installed ({error}); pip install tensorboard, or leave the option out"
                ) from error
            self._board = SummaryWriter(str(run.board), purge_step=start + 1)
        kept = []
        if start and self._path.is_file():  # an interrupted run may have gone on after its last checkpoint
            kept = [line for line in self._path.read_text().splitlines() if json.loads(line)["step"] <= start]
        write_bytes(self._path, "".join(f"{line}\n" for line in kept).encode())

    def add(self, step: int, last: int, rate: float, figures: Mapping[str, float]) -> None:
        if self._board is not None:
            for name, value in {**figures, "learning rate": rate}.items():
                self._board.add_scalar(name, value, step)
        if not self._shown or (step % SHOWN_EVERY and step not in (1, last)):
            return
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, "rate": rate, **figures}) + "\n")
        except OSError as error:
            raise unwritable(self._path, error) from error
        self._run.report(f"step {step:6d} of {last}  " + "  ".join(f"{name} {value:.4f}" for name, value in figures.items()))

    def show(self, step: int, picture: Tensor | None) -> None:
        if self._board is not None and picture is not None:
            self._board.add_image("picture", picture.detach().float().clamp(0, 1).cpu(), step)

    def close(self) -> None:
        if self._board is not None:
            self._board.close()
