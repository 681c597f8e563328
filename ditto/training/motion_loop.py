"""The training loop: by steps, the same bits again on one machine, and the same bits after an interruption.

An update draws its windows by their number (`ditto.training.motion_batches`), so a checkpoint holds everything that the
next update depends on: weights, their running average, the optimizer, the adaptive weights and the step.
"""

from __future__ import annotations

import copy
import io
import json
import math
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from ditto.engines.torch_engine import torch_device
from ditto.errors import InputError, TrainingError
from ditto.training.dataset import unwritable, write_bytes
from ditto.training.motion_batches import Drawn, Units
from ditto.training.motion_losses import GROUPS, AdaptiveWeights, Terms, loss_weights
from ditto.training.motion_objectives import Objective
from ditto.training.recipe import Recipe

FORMAT = 1  # of a checkpoint
SHOWN_EVERY = 50  # updates between two lines of progress
Draw = Callable[[int, range], Drawn]
Score = Callable[[nn.Module], float]


class Workers(Protocol):
    """The processes that train together. Each takes its own windows of an update; gradients are averaged.

    `mean` is over the processes; `from_first` gives the first one's values to all. Those that go on from a checkpoint read
    it themselves, so the folder of the run lies where all of them find it.
    """

    rank: int
    count: int
    device: torch.device

    def wrap(self, objective: Objective) -> nn.Module: ...

    def unsynchronised(self, module: nn.Module) -> AbstractContextManager[Any]: ...

    def mean(self, values: Tensor) -> Tensor: ...

    def from_first(self, values: Tensor) -> Tensor: ...


class OneProcess:
    """This process alone."""

    rank, count = 0, 1

    def __init__(self, device: str | torch.device = "cpu") -> None:
        self.device = torch.device(device)

    def wrap(self, objective: Objective) -> nn.Module:
        return objective

    def unsynchronised(self, module: nn.Module) -> AbstractContextManager[Any]:
        return nullcontext()

    def mean(self, values: Tensor) -> Tensor:
        return values

    def from_first(self, values: Tensor) -> Tensor:
        return values


class ManyProcesses:
    """The processes that `accelerate launch` or `torchrun` started, on one machine or several.

    Raises:
        InputError: the package accelerate is not installed.
    """

    def __init__(self, cpu: bool = False) -> None:
        try:
            from accelerate import Accelerator
        except ImportError as error:
            raise InputError(
                f"training in several processes needs accelerate ({error}); pip install 'ditto-talking-head[train]'"
            ) from error
        self._accelerator = Accelerator(cpu=cpu)
        self.rank, self.count = self._accelerator.process_index, self._accelerator.num_processes
        self.device = self._accelerator.device

    def wrap(self, objective: Objective) -> nn.Module:
        wrapped: nn.Module = self._accelerator.prepare_model(objective)
        return wrapped

    def unsynchronised(self, module: nn.Module) -> AbstractContextManager[Any]:
        context: AbstractContextManager[Any] = self._accelerator.no_sync(module)
        return context

    def mean(self, values: Tensor) -> Tensor:
        reduced: Tensor = self._accelerator.reduce(values, "mean")
        return reduced

    def from_first(self, values: Tensor) -> Tensor:
        from accelerate.utils import broadcast

        sent: Tensor = broadcast(values.clone(), from_process=0)
        return sent


def open_workers(device: str = "cpu") -> Workers:
    """This process, or its part of those that `accelerate launch` or `torchrun` started.

    Raises:
        InputError: the name is none of cpu, cuda and cuda:N, or the package accelerate is not installed.
        EngineError: the GPU does not exist, or torch is built without CUDA.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return ManyProcesses(cpu=device == "cpu")
    try:
        return OneProcess(torch_device(device))
    except ValueError as error:
        raise InputError(str(error)) from None


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


def learning_rate(recipe: Recipe, step: int) -> float:
    """Of update `step` (from 0): a linear rise, then a cosine down to `final_rate` of the recipe's rate."""
    fall = 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
    rise = min(1.0, (step + 1) / max(recipe.warmup, 1))
    return recipe.learning_rate * rise * (recipe.final_rate + (1 - recipe.final_rate) * fall)


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
    _prepare_folder(run, last, resume)
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
            rate = learning_rate(recipe, step)
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
                    _check_finite(terms.windows, drawn, step, "loss")
                    (terms.total / recipe.accumulate).backward()  # type: ignore[no-untyped-call]
                found += torch.stack([terms.total.detach(), terms.x0, *terms.groups]) / recipe.accumulate
            norm = torch.nn.utils.clip_grad_norm_(objective.parameters(), recipe.clip)
            _check_finite(norm, drawn, step, "gradient")
            optimizer.step()
            optimizer.zero_grad()
            found = workers.mean(found).cpu()
            adaptive.update(found[2:])
            _follow(average, network, min(recipe.average, (step + 1) / (step + 11)))
            done = step + 1
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


def _follow(average: nn.Module, network: nn.Module, keep: float) -> None:
    with torch.no_grad():
        for slow, fast in zip(average.parameters(), network.parameters(), strict=True):
            slow.lerp_(fast, 1 - keep)


def _check_finite(values: Tensor, drawn: Drawn, step: int, what: str) -> None:
    finite = torch.isfinite(values.detach())
    if bool(finite.all()):
        return
    clips = drawn.clips
    if values.ndim:
        clips = tuple(clip for clip, ok in zip(clips, finite.tolist(), strict=True) if not ok)
    raise TrainingError(
        f"expected a finite {what} at step {step + 1}, got NaN or infinity with the clips {', '.join(sorted(set(clips)))}; "
        "look at their features and motion, or lower the learning rate (the last checkpoint is good)"
    )


def _prepare_folder(run: Run, last: Path, resume: bool) -> None:
    if resume and not last.is_file():
        raise InputError(f"expected a checkpoint to resume at {last}, got no such file; start without --resume")
    if not resume and last.exists():
        raise InputError(f"expected a folder without a checkpoint, got {last}; add --resume, or give another folder")
    try:
        run.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(run.out, error) from error


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
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        got = found.get("format") if isinstance(found, dict) else type(found).__name__
        raise InputError(f"expected a checkpoint of format {FORMAT} at {path}, got {got}; train again")
    return found


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
    if others:
        fewer = f" (steps {run.recipe.steps}, fewer than {before})" if "steps" in others else ""
        raise InputError(
            f"expected the options of {path}, got others: {', '.join(others)}{fewer}; resume with the same, or give another "
            "folder"
        )
    if longer:
        run.report(f"steps {run.recipe.steps} instead of {before}")
    objective.network.load_state_dict(found["trained"])
    average.load_state_dict(found["model"])
    optimizer.load_state_dict(found["optimizer"])
    adaptive.means = found["adaptive"]
    score = found["score"]
    return int(found["step"]), None if score is None else float(score)


class _Log:
    """`log.jsonl`, lines of progress, and TensorBoard if a folder for it is given; of the first process only."""

    def __init__(self, run: Run, start: int, shown: bool) -> None:
        self._run, self._shown, self._smoothed = run, shown, None
        self._path = run.out / "log.jsonl"
        self._board: Any = None
        if not shown:
            return
        kept = []
        if start and self._path.is_file():  # an interrupted run may have gone on after its last checkpoint
            kept = [line for line in self._path.read_text().splitlines() if json.loads(line)["step"] <= start]
        write_bytes(self._path, "".join(f"{line}\n" for line in kept).encode())
        if run.board is not None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise InputError(
                    f"TensorBoard is not installed ({error}); pip install tensorboard, or leave the option out"
                ) from error
            self._board = SummaryWriter(str(run.board), purge_step=start + 1)

    def add(self, step: int, rate: float, found: Tensor, factors: Tensor) -> None:
        if not self._shown:
            return
        loss, x0, *groups = found.tolist()
        self._smoothed = x0 if self._smoothed is None else 0.98 * self._smoothed + 0.02 * x0
        if self._board is not None:
            self._board.add_scalar("loss", loss, step)
            self._board.add_scalar("x0", x0, step)
            self._board.add_scalar("learning rate", rate, step)
            for name, group, factor in zip(GROUPS, groups, factors.tolist(), strict=True):
                self._board.add_scalar(f"x0/{name}", group, step)
                self._board.add_scalar(f"factor/{name}", factor, step)
        if step % SHOWN_EVERY and step not in (1, self._run.recipe.steps):
            return
        named = dict(zip(GROUPS, (round(x, 6) for x in groups), strict=True))
        factors_named = dict(zip(GROUPS, (round(x, 4) for x in factors.tolist()), strict=True))
        self._line({"step": step, "loss": loss, "x0": x0, "groups": named, "factors": factors_named, "rate": rate})
        self._run.report(f"step {step:6d} of {self._run.recipe.steps}  x0 {self._smoothed:.4f}  loss {loss:.4f}")

    def score(self, step: int, value: float) -> None:
        self._line({"step": step, "score": value})
        if self._board is not None:
            self._board.add_scalar("score", value, step)
        self._run.report(f"step {step:6d} of {self._run.recipe.steps}  lips {value:.4f}")

    def _line(self, entry: Mapping[str, object]) -> None:
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
        except OSError as error:
            raise unwritable(self._path, error) from error

    def close(self) -> None:
        if self._board is not None:
            self._board.close()
