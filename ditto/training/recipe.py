"""Recipes of motion training: every number that a run depends on, besides its data and its seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import TypeVar

from ditto.errors import InputError
from ditto.motion.motion import MOTION_SIZE, PACKED_SIZE

HIDEABLE = ("emotion", "canonical")

R = TypeVar("R")


@dataclass(frozen=True)
class Recipe:
    """The numbers of one run.

    Attributes:
        size: "lite": `ditto.lite.networks.motion_diffusion`; "full": the LMDM of `ditto.full.networks.lmdm`.
        motion_size: numbers of a frame of motion: 70, or 265 with 66 bins an angle, as the paper has it (full only).
        steps: updates of the weights.
        batch: windows of a process and a backward pass.
        accumulate: backward passes of an update.
        optimizer: "adamw" or "adan" (arXiv:2208.06677, from the package pytorch-optimizer).
        learning_rate, weight_decay: of the optimizer.
        warmup: updates over which the learning rate rises; then it falls as a cosine to `final_rate` of itself.
        clip: largest norm of the gradient.
        average: the running average of the weights keeps this share of itself at an update.
        bfloat16: run the networks in bfloat16 under autocast.
        drop_condition: share of windows whose speech (lite) or whole condition (full) is hidden, for guidance.
        hide: conditions of `HIDEABLE` that are zero in every window, to measure what they are good for.
        flip: share of windows that are mirrored.
        shape_scale, shape_shift: spread of random changes of the canonical keypoints: factor per axis, face units.
        feature_noise: noise on the speech features, in their own spreads.
        velocity, acceleration, initial: weights of these terms beside the error of the motion.
        pose_smoothness: extra factor on velocity and acceleration of the head pose.
        adaptive: whether loss weights of motion groups follow the groups' losses (`motion_losses.AdaptiveWeights`).
        from_bundle: start from the motion network of the base bundle, and keep its units.
        short_steps: updates of the condition half for short look-ahead, after the motion network; lite only.
        score_every: updates between two scores on held clips.
        checkpoint_every: updates between two checkpoints.
    """

    size: str = "lite"
    motion_size: int = MOTION_SIZE
    steps: int = 1000
    batch: int = 24
    accumulate: int = 1
    optimizer: str = "adamw"
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.01
    warmup: int = 150
    final_rate: float = 0.02
    clip: float = 1.0
    average: float = 0.998
    bfloat16: bool = True
    drop_condition: float = 0.1
    hide: tuple[str, ...] = ()
    flip: float = 0.5
    shape_scale: float = 0.06
    shape_shift: float = 0.012
    feature_noise: float = 0.05
    velocity: float = 0.7
    acceleration: float = 0.7
    initial: float = 0.0
    pose_smoothness: float = 5.0
    adaptive: bool = True
    from_bundle: bool = False
    short_steps: int = 1600
    score_every: int = 250
    checkpoint_every: int = 250

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "accumulate", "score_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise InputError(f"expected {name} of 1 or more, got {getattr(self, name)}; give another number")
        for name, known in (("size", ("lite", "full")), ("optimizer", ("adamw", "adan"))):
            if getattr(self, name) not in known:
                raise InputError(f"expected {name} of {' or '.join(known)}, got {getattr(self, name)!r}; give another")
        if unknown := sorted(set(self.hide) - set(HIDEABLE)):
            raise InputError(f"expected hide of {', '.join(HIDEABLE)}, got {', '.join(unknown)}; give others")
        if self.motion_size not in ((MOTION_SIZE,) if self.size == "lite" else (MOTION_SIZE, PACKED_SIZE)):
            raise InputError(
                f"expected motion_size of {MOTION_SIZE}, or {PACKED_SIZE} at the full size, got {self.motion_size} at the "
                f"{self.size} size; give another number"
            )

    def changed(self, steps: int | None, short_steps: int | None, adaptive: bool | None) -> Recipe:
        """This recipe with other numbers where they are given."""
        return replace(
            self,
            steps=self.steps if steps is None else steps,
            short_steps=self.short_steps if short_steps is None else short_steps,
            adaptive=self.adaptive if adaptive is None else adaptive,
        )

    def differences(self, other: Mapping[str, object]) -> list[str]:
        """Names of the numbers that differ from a recipe read back from a checkpoint; one that it lacks had its default."""
        return [f.name for f in fields(self) if other.get(f.name, f.default) != getattr(self, f.name)]


# `lite` made the shipped weights; `short` fine-tunes them on an hour of somebody's footage or less; `paper` is Ditto
# (arXiv:2411.19509), section 3.2, with its Adan, learning rate and weight decay. What the paper leaves out (batch, steps,
# the weights of the terms) is ours. Border velocities do the work of the initial term in `lite`, see `denoising_terms`.
PRESETS: Mapping[str, Recipe] = MappingProxyType(
    {
        "lite": Recipe(final_rate=0.5),
        "short": Recipe(
            steps=600, learning_rate=4e-4, warmup=50, from_bundle=True, short_steps=300, score_every=100, checkpoint_every=100
        ),
        "paper": Recipe(
            size="full", motion_size=PACKED_SIZE, steps=100_000, batch=64, optimizer="adan", learning_rate=1e-4,
            weight_decay=0.02, warmup=1000, average=0.9999, velocity=1.0, acceleration=1.0, initial=1.0,
            pose_smoothness=1.0, feature_noise=0.0, shape_scale=0.0, shape_shift=0.0, short_steps=0, score_every=5000,
            checkpoint_every=1000,
        ),
    }
)  # fmt: skip


def preset(name: str) -> Recipe:
    """The recipe of a name. Raises InputError: no recipe has it."""
    return named(PRESETS, name)


def named(presets: Mapping[str, R], name: str) -> R:
    """The preset of a name. Raises InputError: none has it."""
    if name not in presets:
        raise InputError(f"expected a preset of {', '.join(presets)}, got {name!r}; give one of them")
    return presets[name]
