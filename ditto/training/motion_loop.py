"""The training loop: by steps, the same bits again on one machine, and the same bits after an interruption.

An update draws its windows by their number (`ditto.training.motion_batches`), so a checkpoint holds everything that the
next update depends on: weights, their running average, the optimizer, the adaptive weights and the step.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ditto.errors import InputError
from ditto.training.motion_batches import Drawn, Units
from ditto.training.motion_losses import GROUPS, AdaptiveWeights, Terms, loss_weights
from ditto.training.motion_objectives import Objective
from ditto.training.recipe import Recipe
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

Draw = Callable[[int, range], Drawn]
Score = Callable[[nn.Module], float]


class Trained(NamedTuple):
    """The end of a run.

    Attributes:
        network: the running average of the weights: that of the best score, or of the last step without scores.
        step: its step.
        score: its score.
    """

    network: nn.Module
    step: int
    score: float | None


@dataclass
class Run:
    """What a run consists of besides its network.

    Attributes:
        recipe: its numbers.
        seed: of all randomness.
        data: fingerprint of the corpus.
        out: folder of checkpoints (`checkpoint.pt`, `best.pt`) and curve (`log.jsonl`).
        units: kept in the checkpoints.
        report: takes lines of progress.
        board: folder for TensorBoard, if any.
    """

    recipe: Recipe
    seed: int
    data: str
    out: Path
    units: Units
    report: Callable[[str], None] = print
    board: Path | None = None


def make_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The optimizer of a recipe.

    Raises:
        InputError: the package of Adan is not installed.
    """
    parameters = [p for p in network.parameters() if p.requires_grad]
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(parameters, recipe.learning_rate, betas=(0.9, 0.98), weight_decay=recipe.weight_decay)
    try:
        from pytorch_optimizer import Adan
    except ImportError as error:
        raise InputError(
            f"the optimizer adan needs pytorch-optimizer ({error}); pip install 'ditto-talking-head[train]', or take adamw"
        ) from error
    optimizer: torch.optim.Optimizer = Adan(
        parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, weight_decouple=True
    )
    return optimizer


def train(
    objective: Objective,
    draw: Draw,
    run: Run,
    workers: Workers | None = None,
    score: Score | None = None,
    resume: bool = False,
) -> Trained:
    """Train until the recipe's last step.

    Args:
        objective: the network and its loss.
        draw: the windows of a step by their numbers.
        run: recipe, seed, folder.
        workers: processes that train together; this one alone by default.
        score: of the averaged network; larger is better. The best is kept in `best.pt`.
        resume: go on from `checkpoint.pt` in the folder, with the bits of a run that was never interrupted. The recipe may
            have more steps than before: the learning rate goes on as in a run of so many.

    Raises:
        InputError: a checkpoint of another run (to resume), or a folder that already has one (not to resume).
        TrainingError: a loss or gradient that is not finite; the message names the clips, the last checkpoint stays.
        OutputError: a checkpoint cannot be written; the last one stays.
    """
    recipe, workers = run.recipe, workers or OneProcess()
    last, best = run.out / "checkpoint.pt", run.out / "best.pt"
    check_resume(last, resume)
    objective.to(workers.device)
    network = objective.network
    average = copy.deepcopy(network).requires_grad_(False).eval()
    optimizer = make_optimizer(objective, recipe)
    weights = torch.from_numpy(loss_weights(objective.motion_size))
    adaptive = AdaptiveWeights.of(weights)
    weights = weights.to(workers.device)
    start, best_score = 0, None
    if resume:
        start, best_score = _restore(last, run, objective, average, optimizer, adaptive)
    module = workers.wrap(objective)
    log = _Log(run, start, workers.rank == 0)
    size = recipe.batch * workers.count
    try:
        for step in range(start, recipe.steps):
            rate = cosine_rate(recipe.learning_rate, step, recipe.steps, recipe.warmup, recipe.final_rate)
            for group in optimizer.param_groups:
                group["lr"] = rate
            factors = (adaptive.factors if recipe.adaptive else torch.ones(len(GROUPS))).to(workers.device)
            found = torch.zeros(2 + len(GROUPS), device=workers.device)
            for part in range(recipe.accumulate):
                first = part * size + workers.rank * recipe.batch
                drawn = draw(step, range(first, first + recipe.batch))
                final = part == recipe.accumulate - 1
                with nullcontext() if final else workers.unsynchronised(module):
                    with torch.autocast(workers.device.type, torch.bfloat16, enabled=recipe.bfloat16):
                        terms: Terms = module(
                            drawn.batch.to(workers.device), drawn.noise.to(workers.device), weights, factors
                        )
                    check_finite(terms.windows, drawn.clips, step, "loss")
                    (terms.total / recipe.accumulate).backward()  # type: ignore[no-untyped-call]
                found += torch.stack([terms.total.detach(), terms.x0, *terms.groups]) / recipe.accumulate
            norm = torch.nn.utils.clip_grad_norm_(objective.parameters(), recipe.clip)
            check_finite(norm, drawn.clips, step, "gradient")
            optimizer.step()
            optimizer.zero_grad()
            found = workers.mean(found).cpu()
            adaptive.update(found[2:])
            done = step + 1
            follow(average, network, recipe.average, done)
            log.add(done, rate, found, factors.cpu())
            if workers.rank == 0:
                if score is not None and (done % recipe.score_every == 0 or done == recipe.steps):
                    value = score(average)
                    log.score(done, value)
                    if best_score is None or value > best_score:
                        best_score = value
                        write_checkpoint(best, _checkpoint(run, objective, average, done, best_score))
                if done % recipe.checkpoint_every == 0 or done == recipe.steps:
                    kept = _checkpoint(run, objective, average, done, best_score)
                    kept |= {
                        "trained": network.state_dict(),
                        "optimizer": optimizer.state_dict(),
                        "adaptive": adaptive.means,
                    }
                    write_checkpoint(last, kept)
    finally:
        log.close()
    if score is None:
        return Trained(average, recipe.steps, None)
    chosen_step = recipe.steps
    if workers.rank == 0:
        chosen = read_checkpoint(best)
        average.load_state_dict(chosen["model"])
        chosen_step = int(chosen["step"])
    for tensor in average.state_dict().values():
        tensor.copy_(workers.from_first(tensor))
    return Trained(average, chosen_step, best_score)


def _checkpoint(run: Run, objective: Objective, average: nn.Module, step: int, best: float | None) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "step": step,
        "score": best,
        "seed": run.seed,
        "data": run.data,
        "recipe": asdict(run.recipe),
        "config": objective.config,
        "units": {name: torch.from_numpy(values) for name, values in run.units._asdict().items()},
        "model": average.state_dict(),
    }


def _restore(
    path: Path,
    run: Run,
    objective: Objective,
    average: nn.Module,
    optimizer: torch.optim.Optimizer,
    adaptive: AdaptiveWeights,
) -> tuple[int, float | None]:
    found = read_checkpoint(path)
    before = int(found["recipe"]["steps"])
    longer = run.recipe.steps > before
    free = {"short_steps", "steps"} if longer else {"short_steps"}  # `short_steps` is for another run
    others = [name for name in run.recipe.differences(found["recipe"]) if name not in free]
    others += [name for name in ("seed", "data") if found[name] != getattr(run, name)]
    if found["config"] != objective.config:
        others.append("size of the network")
    fewer = f" (steps {run.recipe.steps}, fewer than {before})" if "steps" in others else ""
    check_same(path, others, fewer)
    if longer:
        run.report(f"steps {run.recipe.steps} instead of {before}")
    objective.network.load_state_dict(found["trained"])
    average.load_state_dict(found["model"])
    optimizer.load_state_dict(found["optimizer"])
    adaptive.means = found["adaptive"]
    score = found["score"]
    return int(found["step"]), None if score is None else float(score)


class _Log:
    """The curve of a run, in this loop's words."""

    def __init__(self, run: Run, start: int, shown: bool) -> None:
        self._curve = Curve(run.out, start, run.report, run.board, shown)
        self._steps, self._smoothed = run.recipe.steps, float("nan")

    def add(self, step: int, rate: float, found: Tensor, factors: Tensor) -> None:
        loss, x0, *groups = found.tolist()
        self._smoothed = x0 if math.isnan(self._smoothed) else 0.98 * self._smoothed + 0.02 * x0
        values = {"loss": loss, "x0": x0, "learning rate": rate}
        values |= {f"x0/{name}": group for name, group in zip(GROUPS, groups, strict=True)}
        values |= {f"factor/{name}": factor for name, factor in zip(GROUPS, factors.tolist(), strict=True)}
        self._curve.scalars(step, values)
        if step % SHOWN_EVERY and step not in (1, self._steps):
            return
        named = dict(zip(GROUPS, (round(x, 6) for x in groups), strict=True))
        factors_named = dict(zip(GROUPS, (round(x, 4) for x in factors.tolist()), strict=True))
        entry = {"step": step, "loss": loss, "x0": x0, "groups": named, "factors": factors_named, "rate": rate}
        self._curve.line(entry, f"step {step:6d} of {self._steps}  x0 {self._smoothed:.4f}  loss {loss:.4f}")

    def score(self, step: int, value: float) -> None:
        self._curve.scalars(step, {"score": value})
        self._curve.line({"step": step, "score": value}, f"step {step:6d} of {self._steps}  lips {value:.4f}")

    def close(self) -> None:
        self._curve.close()
