"""Tiny runs of codec, V and RAP: objective, draws and stages of each, always the same ones."""

from dataclasses import replace

import torch
from latent_clips import SIDE, write_clips

from ditto.latent.config import CODEC_TINY, FLOW_TINY, RAP_TINY
from ditto.training.latent.codec import CodecObjective, CodecRecipe, CodecStage, Length, Sampler
from ditto.training.latent.data import open_clips
from ditto.training.latent.flow import FlowDraw, FlowObjective, FlowRecipe, new_flow
from ditto.training.latent.latents import LatentClip
from ditto.training.latent.loop import Run, Stage, train
from ditto.training.latent.rap import RapDraw, RapObjective, RapRecipe, new_rap

KINDS = ("codec", "flow", "rap")
STAGES = (Stage(4, 2e-3, warmup=2),)
CODEC = CodecRecipe(
    CODEC_TINY,
    (
        CodecStage(2, 2e-3, warmup=2, lengths=(Length(5, 2, 0.5), Length(1, 2, 0.5))),
        CodecStage(2, 1e-3, warmup=1, lengths=(Length(9, 2),), decoder_only=True, latent_noise=0.5),
    ),
    window=(0, 0, SIDE),
    shift=0,
    bfloat16=False,
)
FLOW = FlowRecipe(replace(FLOW_TINY, channels=4, motion_features=0), STAGES, 2, references=2, bfloat16=False)
RAP = RapRecipe(
    replace(RAP_TINY, channels=4, audio_layers=1, frames_per_latent=4, motion_features=0), STAGES, 2, bfloat16=False
)


def latent_clip(latents, per_latent, seed):
    random = torch.Generator().manual_seed(seed)
    frames = per_latent * (latents - 1) + 1

    def drawn(*shape):
        return torch.randn(shape, generator=random)

    video = (4, latents, 2, 2)
    return LatentClip(
        f"clip_{seed}", drawn(*video), drawn(4, 3, 2, 2), drawn(*video), drawn(frames, 6), drawn(frames, 70),
        torch.ones(latents, 2, 2),
    )  # fmt: skip


def parts(kind, folder):
    """Objective with new weights, draws and stages; the codec's clips lie in a folder."""
    torch.manual_seed(0)
    if kind == "codec":
        clips = open_clips(folder) if (folder / "clips.json").is_file() else write_clips(folder)
        return CodecObjective(CODEC), Sampler(clips, CODEC, 0), CODEC.stages
    if kind == "flow":
        pieces = [latent_clip(20, 4, seed) for seed in (1, 2)]
        return FlowObjective(new_flow(FLOW.config, pieces)), FlowDraw(pieces, FLOW, 0), STAGES
    pieces = [latent_clip(16, 4, seed) for seed in (1, 2)]
    return RapObjective(new_rap(RAP.config, pieces), RAP), RapDraw(pieces, RAP, 0), STAGES


def run_of(out):
    return Run({}, out, bfloat16=False, checkpoint_every=2, report=lambda line: None)


def start(kind, clips, out, before=lambda step: None, **options):
    """Train in a folder; `before` is called with the number of each update."""
    objective, draw, stages = parts(kind, clips)

    def drawn(step, rank):
        before(step)
        return draw(step, rank)

    return train(objective, drawn, stages, run_of(out), **options)
