"""The training loop of the latent systems: by steps and stages, the same bits again, and after an interruption.

An update depends on its number and the seed alone, and a checkpoint holds everything else: weights, their running average,
the optimizer and the step. Processes (accelerate, torchrun) average their gradients.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar, cast

import torch
from torch import Tensor, nn

from ditto.errors import InputError
from ditto.training.latent.muon import Muon
from ditto.training.runs import (
    FORMAT,
    SHOWN_EVERY,
    Curve,
    check_finite,
    check_resume,
    check_same,
    cosine_rate,
    follow,
    read_checkpoint,
    write_checkpoint,
)
from ditto.training.workers import OneProcess, Workers

OPTIMIZERS = ("muon", "adamw")
CHECKPOINT = "step", "seed", "words", "model", "trained", "optimizer"

V = TypeVar("V")
R = TypeVar("R", bound="Recipe")


class Batch(Protocol):
    """What an update of one process learns from: a tuple of tensors and others. `clips` names it, in messages."""

    @property
    def clips(self) -> tuple[str, ...]: ...


class Terms(NamedTuple):
    """What an objective finds: the losses (B,), one for each clip, and named numbers to show."""

    losses: Tensor
    figures: Mapping[str, Tensor]


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
        return cosine_rate(self.learning_rate, step, self.steps, self.warmup, self.final_rate)


@dataclass(frozen=True)
class Recipe:
    """The numbers of one run, besides its data and seed.

    Attributes:
        config: of the network.
        stages: one after the other.
        optimizer, average, bfloat16, checkpoint_every: as `Run`.
    """

    config: Any
    stages: tuple[Stage, ...]
    _: KW_ONLY
    optimizer: str = "adamw"
    average: float = 0.9999
    bfloat16: bool = True
    checkpoint_every: int = 500

    def shortened(self: R, steps: int | None) -> R:
        """This recipe with about so many updates in all, each stage with its share."""
        if steps is None:
            return self
        whole = sum(stage.steps for stage in self.stages)
        stages = tuple(replace(stage, steps=max(1, round(stage.steps * steps / whole))) for stage in self.stages)
        return replace(self, stages=stages)


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
        draw_picture: makes that picture, (3, H, W) in [0, 1], of the averaged network.
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
    draw_picture: Callable[[nn.Module], Tensor] | None = None

    @property
    def checkpoint(self) -> Path:
        return self.out / "checkpoint.pt"


@dataclass(frozen=True)
class Options:
    """What a user says of a run, besides the recipe.

    Attributes:
        data: a folder of clips (`ditto.training.latent.data`).
        out: folder of the run.
        seed: of all randomness.
        resume: go on with the run in `out`.
        device: "cpu", "cuda" or "cuda:1".
        report: takes lines of progress.
        tensorboard: also write curves and pictures for TensorBoard, to `out`/tensorboard.
    """

    data: Path
    out: Path
    seed: int = 0
    resume: bool = False
    device: str = "cpu"
    report: Callable[[str], None] = field(default=print)
    tensorboard: bool = False

    def run(
        self,
        recipe: Recipe,
        words: Mapping[str, Any],
        draw_picture: Callable[[nn.Module], Tensor] | None,
        weight_decay: float = 0.0,
    ) -> Run:
        """The run of a recipe; see `Run`."""
        return Run(
            words,
            self.out,
            self.seed,
            recipe.optimizer,
            weight_decay,
            average=recipe.average,
            bfloat16=recipe.bfloat16,
            checkpoint_every=recipe.checkpoint_every,
            report=self.report,
            board=self.out / "tensorboard" if self.tensorboard else None,
            draw_picture=draw_picture,
        )


def on_device(value: V, device: torch.device) -> V:
    """A value of named tuples and tensors with its tensors on a device."""
    moved: Any = value
    if isinstance(value, Tensor):
        moved = value.to(device)
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        moved = type(value)(*(on_device(part, device) for part in value))
    return cast(V, moved)


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
    check_resume(run.checkpoint, resume)
    network = objective.to(workers.device).network
    for tensor in network.state_dict().values():
        tensor.copy_(workers.from_first(tensor))
    average = copy.deepcopy(network).requires_grad_(False).eval()
    start, saved = 0, None
    if resume:
        start, saved = _restore(run, network, average)
    curve = Curve(run.out, start, run.report, run.board, workers.rank == 0)
    ends = [sum(stage.steps for stage in stages[: place + 1]) for place in range(len(stages))]
    optimizer: torch.optim.Optimizer | None = None
    try:
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
                terms: Terms = objective(on_device(batch, workers.device))
            check_finite(terms.losses, batch.clips, step, "loss")
            terms.losses.mean().backward()  # type: ignore[no-untyped-call]
            trained = [p for p in network.parameters() if p.grad is not None]
            _average_gradients(trained, workers)
            norm = torch.nn.utils.clip_grad_norm_(trained, run.clip)
            check_finite(norm, batch.clips, step, "gradient")
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            follow(average, network, run.average, inside + 1)
            done = step + 1
            figures = {"loss": terms.losses.mean(), **terms.figures}
            means = workers.mean(torch.stack([value.detach().float().mean() for value in figures.values()])).tolist()
            found = dict(zip(figures, means, strict=True))
            curve.scalars(done, {**found, "learning rate": rate})
            if not done % SHOWN_EVERY or done in (1, ends[-1]):
                words = "  ".join(f"{name} {value:.4f}" for name, value in found.items())
                curve.line({"step": done, "rate": rate, **found}, f"step {done:6d} of {ends[-1]}  {words}")
            if workers.rank == 0 and (done % run.checkpoint_every == 0 or done in ends):
                kept = {"format": FORMAT, "step": done, "seed": run.seed, "words": json.dumps(run.words, sort_keys=True)}
                kept |= {"model": average.state_dict(), "trained": network.state_dict(), "optimizer": optimizer.state_dict()}
                write_checkpoint(run.checkpoint, kept)
                if run.board is not None and run.draw_picture is not None:
                    curve.picture(done, run.draw_picture(average))
    finally:
        curve.close()
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


def _restore(run: Run, network: nn.Module, average: nn.Module) -> tuple[int, dict[str, Any]]:
    found = read_checkpoint(run.checkpoint)
    if missing := [name for name in CHECKPOINT if name not in found]:
        raise InputError(
            f"expected a checkpoint of a latent system at {run.checkpoint}, got one without {missing[0]}; give another folder"
        )
    before, now = json.loads(found["words"]), json.loads(json.dumps(run.words))
    others = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    if found["seed"] != run.seed:
        others.append("seed")
    check_same(run.checkpoint, others)
    network.load_state_dict(found["trained"])
    average.load_state_dict(found["model"])
    return int(found["step"]), found["optimizer"]
