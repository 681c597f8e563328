"""Teach the condition half of the motion network to do without the speech that a stream does not wait for.

    python -m ditto.training.motion_short CORPUS ditto/bundles/lite OUT [--preset lite] [--seed 0] [--resume]

The network stands as it is in the bundle; a copy of its condition half learns. Teacher and pupil denoise the same frames;
the teacher hears all the speech around them, the pupil as much as `ditto.lite.sampler.fill` leaves of it. The pupil's best
answer is the mean of what the teacher says to all continuations. Writes `motion_condition_short.onnx` into the bundle;
checkpoints go to OUT.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.numpy import load_file
from torch import Tensor, nn

from ditto.commands import Arguments, run, whole_number
from ditto.lite.networks.motion_diffusion import (
    WINDOW,
    MotionCondition,
    MotionDiffusion,
    MotionDiffusionConfig,
    signal_level,
)
from ditto.media.files import check_folder
from ditto.motion.motion import MOTION_SIZE
from ditto.training.motion_batches import Batch, Corpus, Noise, Units, draw, load_corpus
from ditto.training.motion_export import SAMPLER_PREFIX, read_weights, write_short
from ditto.training.motion_loop import Draw, Run, Trained, train
from ditto.training.motion_losses import GROUPS, Terms, motion_groups
from ditto.training.motion_objectives import Objective
from ditto.training.recipe import PRESETS, Recipe, preset
from ditto.training.runs import read_checkpoint
from ditto.training.workers import Workers

BATCH = 16  # windows of 80 frames, each cut into two
LEARNING_RATE = 8e-4
WARMUP = 100
FINAL_RATE = 0.02
PAST, LENGTH, BEYOND = 22, 40, 16  # frames: known, of a pupil's window, and more that the teacher hears
LONGEST_AHEAD = 6  # frames heard beyond the two that are shown
PREDICTED = 0.3  # share of windows that hear neither the frames that are shown nor any beyond (`lowest`)
NO_AHEAD = 0.7  # share of windows up to which no frame beyond those shown is heard
SHOWN, SHOWN_WEIGHT = 2, 4.0  # frames that are shown count more than those that only give context


class Cut(NamedTuple):
    """Windows of `LENGTH` frames, and what the teacher hears of them (`LENGTH + BEYOND`)."""

    motion: Tensor
    features: Tensor
    eyes: Tensor
    emotion: Tensor
    canonical: Tensor


def cuts(batch: Batch) -> Cut:
    """Both ends of 80-frame windows: twice as many, `LENGTH + BEYOND` frames long."""
    size = LENGTH + BEYOND

    def both(x: Tensor) -> Tensor:
        return torch.cat([x[:, :size], x[:, WINDOW - size :]])

    twice = torch.cat([batch.emotion] * 2), torch.cat([batch.canonical] * 2)
    return Cut(both(batch.motion)[:, :LENGTH], both(batch.features), both(batch.eyes), *twice)


def unheard(rows: Tensor, heard: Tensor) -> Tensor:
    """(B, T, k) with the last of the `heard` (B,) frames repeated to the end, as `ditto.lite.sampler.fill` does."""
    frame = torch.arange(rows.shape[1], device=rows.device).expand(len(rows), -1).minimum(heard[:, None] - 1)
    return rows.gather(1, frame[..., None].expand_as(rows))


def frames_ahead(chance: Tensor) -> Tensor:
    """(B,) uniform in [0, 1) -> frames heard beyond those shown: -2 (`PREDICTED`), 0 (up to `NO_AHEAD`), or 1 to 6."""
    above = (chance - NO_AHEAD) / (1 - NO_AHEAD)
    some = 1 + (above * LONGEST_AHEAD).long().clamp(max=LONGEST_AHEAD - 1)
    return torch.where(chance < PREDICTED, -SHOWN, torch.where(above < 0, 0, some))


class ShortDistillation(Objective):
    """The pupil's output of the denoiser against the teacher's; only the pupil, `network`, has a gradient."""

    network: MotionCondition

    def __init__(self, teacher: MotionDiffusion, recipe: Recipe) -> None:
        super().__init__(copy.deepcopy(teacher.condition).requires_grad_(True).train(), recipe, MOTION_SIZE)
        self.teacher = copy.deepcopy(teacher).requires_grad_(False)

    @property
    def config(self) -> dict[str, Any]:
        return asdict(self.teacher.config) | {"teacher": digest(self.teacher)}

    def forward(self, batch: Batch, noise: Noise, weights: Tensor, factors: Tensor) -> Terms:
        cut = cuts(batch)
        level = 0.999 * (1 - torch.cat([noise.level[:, :1], noise.level[:, 1:]]) ** 1.3)
        heard = PAST + SHOWN + frames_ahead(noise.ahead.T.flatten())
        noises = torch.cat([noise.noise[:, :LENGTH], noise.noise[:, WINDOW - LENGTH :]])
        return distillation_terms(
            self.teacher, self.network, cut, heard, level, noises, weights * factors[_group(weights)]
        )


def digest(network: nn.Module) -> str:
    """SHA-256 of a network's weights."""
    found = hashlib.sha256()
    for tensor in network.state_dict().values():
        found.update(tensor.detach().cpu().numpy().tobytes())
    return found.hexdigest()


def begun(folder: Path, objective: Objective) -> bool:
    """Whether a folder has a checkpoint of this teacher. One of another, before that run was lengthened, is deleted."""
    path = folder / "checkpoint.pt"
    if not path.is_file():
        return False
    if read_checkpoint(path)["config"].get("teacher") == objective.config["teacher"]:
        return True
    path.unlink()
    return False


def _group(weights: Tensor) -> Tensor:
    return torch.as_tensor(motion_groups(len(weights)), device=weights.device)


def distillation_terms(
    teacher: MotionDiffusion,
    pupil: MotionCondition,
    cut: Cut,
    heard: Tensor,
    level: Tensor,
    noise: Tensor,
    weights: Tensor,
) -> Terms:
    """Weighted square difference of what both make of the frames after the known ones.

    Args:
        heard: (B,) frames that the pupil hears.
        level: (B, 1) noise level.
        noise: (B, T, 70).
        weights: (70,).
    """
    known = torch.zeros(len(cut.motion), LENGTH, 1, device=cut.motion.device)
    known[:, :PAST] = 1.0
    signal = signal_level(level)[:, None]
    noisy = known * cut.motion + (1 - known) * (signal.sqrt() * cut.motion + (1 - signal).sqrt() * noise)
    ones = torch.ones_like(level)
    with torch.no_grad():
        full = teacher.condition(cut.features, cut.emotion, cut.eyes, cut.canonical, ones)[:, :LENGTH]
        expected = teacher.denoiser(noisy, known, full, level)
    features = unheard(cut.features[:, :LENGTH], heard)
    eyes = unheard(cut.eyes[:, :LENGTH], heard.clamp(min=PAST + SHOWN))  # made for every frame that is shown
    guess = teacher.denoiser(noisy, known, pupil(features, cut.emotion, eyes, cut.canonical, ones), level)
    frame = torch.ones(LENGTH, 1, device=cut.motion.device)
    frame[:PAST] = 0.0
    frame[PAST : PAST + SHOWN] = SHOWN_WEIGHT
    square = (((guess - expected).float() ** 2) * frame).sum(1) / frame.sum()  # (2B, 70)
    halves = (square * weights).mean(1).unflatten(0, (2, -1))  # both cuts of a window
    windows = halves.mean(0)
    with torch.no_grad():
        group = _group(weights)
        totals = torch.zeros(len(GROUPS), device=weights.device).index_add(0, group, square.mean(0) * weights)
        shares = torch.zeros(len(GROUPS), device=weights.device).index_add(0, group, weights)
    return Terms(windows.mean(), windows.mean().detach(), totals / shares, windows.detach())


def short_recipe(recipe: Recipe) -> Recipe:
    """The recipe of the condition half that follows a motion network's."""
    rate = LEARNING_RATE if not recipe.from_bundle else 0.5 * LEARNING_RATE
    return replace(
        recipe,
        steps=recipe.short_steps,
        batch=BATCH,
        optimizer="adamw",
        learning_rate=rate,
        warmup=WARMUP,
        final_rate=FINAL_RATE,
        adaptive=False,
    )


def train_short(
    corpus: Corpus, teacher: MotionDiffusion, run: Run, workers: Workers | None = None, resume: bool = False
) -> Trained:
    """Distil a pupil from a teacher; `run.recipe` is of `short_recipe`. Raises what `motion_loop.train` raises.

    With `resume`, a run of this teacher goes on, and one of another teacher is done again.
    """

    def drawn(step: int, numbers: range) -> Any:
        return draw(corpus, run.units, run.recipe, run.seed, step, numbers)

    windows: Draw = drawn
    pupil = ShortDistillation(teacher, run.recipe)
    return train(pupil, windows, run, workers, None, resume and begun(run.out, pupil))


def main() -> None:
    parser = Arguments(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--preset", default="lite", choices=[name for name, r in PRESETS.items() if r.size == "lite"])
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seed", type=whole_number(0, 2**63), default=0)
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args()
    check_folder(options.out)
    torch.set_num_threads(1)
    corpus = load_corpus(options.corpus)
    weights = options.bundle / "motion.safetensors"
    model = read_weights(weights, MotionDiffusionConfig())
    kept = load_file(str(weights))
    units = Units.of(corpus)._replace(**{name: kept[SAMPLER_PREFIX + name] for name in ("scale", "silence")})
    recipe = preset(options.preset)
    recipe = short_recipe(replace(recipe, short_steps=options.steps or recipe.short_steps))
    run = Run(recipe, options.seed, corpus.fingerprint(), options.out, units)
    pupil = train_short(corpus, model, run, resume=options.resume).network
    assert isinstance(pupil, MotionCondition)
    write_short(pupil, model.config, options.bundle)


if __name__ == "__main__":
    run(main)
