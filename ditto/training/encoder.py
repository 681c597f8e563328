"""Train the lite speech encoder: Moonshine's weights in a streaming network, fine-tuned by distillation from Moonshine.

    ditto train encoder DATA TRACKS MOONSHINE -o WORK --align align.json [--steps 3100] [--seed 0] [--resume]

DATA is the data tree (`speech`, `grid_s1`), TRACKS the tracked GRID clips, MOONSHINE the unpacked moonshine-voice
0.1.0 wheel. WORK/teacher.npz keeps the teacher's hidden states, WORK/encoder.pt the weights, WORK/checkpoint.pt all that
the next step depends on.

Targets: the teacher's hidden states of the clean clip, computed with full context, and phone posteriors of a probe on them,
averaged with the forced alignment where there is one. The student's input is the clip at another speed, in another room, with
noise, at any level, and in a stream.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from ditto.errors import InputError, TrainingError
from ditto.lite.networks.speech_encoder import (
    BLOCK,
    CONTEXT,
    SpeechEncoder,
    SpeechEncoderState,
    follow_level,
    zero_state,
)
from ditto.lite.phones import PHONE_TO_VISEME, PHONES, VISEME_NAMES
from ditto.media.audio import HOP_SAMPLES
from ditto.media.files import whole_file
from ditto.media.rates import SAMPLE_RATE
from ditto.training.dataset import unwritable, write_bytes
from ditto.training.runs import FORMAT, check_run, check_same, follow, read_checkpoint, write_checkpoint
from ditto.training.speech_data import TOKEN, Clip, Floats, add_alignments, augment, crop, read_test, read_train
from ditto.training.teacher import Teacher, phone_probe, read_weights, teacher_states, with_neighbours

MODEL = "moonshine_voice/assets/tiny-en/encoder_model.ort"  # in the wheel
HOPS = 40  # of a training segment, 3.2 s; its last hop is look-ahead, so that 156 tokens have targets
TOKENS = (HOPS - 1) * BLOCK
WEIGHTS = {"librispeech": 0.5, "ljspeech": 0.2, "grid": 0.26, "librivox": 0.03, "tts": 0.01}
RATE, WARM_STEPS = 3e-4, 50  # highest learning rate, and the steps in which it is reached
REPORT_STEPS = 250  # between two measurements and checkpoints
SHOWN_STEPS = 10  # between two lines of progress
STEPS, BATCH = 3100, 8  # of the shipped weights
START_LEVEL_DB = -26.0  # of ordinary speech: the level before a stream's own is measured
START_HOPS = 2.0


def from_moonshine(encoder: SpeechEncoder, weights: dict[str, Tensor], speech: Sequence[Clip]) -> None:
    """Copy Moonshine's weights; its normalisation over whole clips becomes a fixed scale, measured on `speech`."""
    own = encoder.state_dict()
    own["stem.conv1.weight"] = weights["conv1.weight"]
    own["stem.conv2.weight"], own["stem.conv2.bias"] = weights["conv2.weight"], weights["conv2.bias"]
    own["stem.conv3.weight"] = weights["conv3.weight"].permute(0, 2, 1).flatten(1)
    own["stem.conv3.bias"] = weights["conv3.bias"]
    own["final.weight"] = weights["final.weight"]
    for i in range(encoder.config.layers):
        p = f"layers.{i}."
        own[p + "qkv.weight"] = torch.cat([weights[f"{p}{n}.weight"] for n in "qkv"])
        own[p + "out.weight"] = weights[p + "o.weight"]
        for name in ("norm1.weight", "norm2.weight", "fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"):
            own[p + name] = weights[p + name]
    mean, std = level_statistics(weights["conv1.weight"], speech)
    own["stem.scale"] = weights["norm.weight"] / std
    own["stem.shift"] = weights["norm.bias"] - own["stem.scale"] * mean
    encoder.load_state_dict(own)


@torch.no_grad()
def level_statistics(conv1: Tensor, speech: Sequence[Clip]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation behind the first convolution on levelled speech."""
    means, squares = [], []
    for clip in speech:
        samples = torch.from_numpy(clip.waveform)[None]
        level, hops = torch.full((1, 1), START_LEVEL_DB), torch.full((1, 1), START_HOPS)
        levelled = []
        for hop in samples[:, : samples.shape[1] // HOP_SAMPLES * HOP_SAMPLES].split(HOP_SAMPLES, 1):
            hop, level, hops = follow_level(hop, level, hops)
            levelled.append(hop)
        x = torch.tanh(F.conv1d(torch.cat(levelled, 1)[:, None], conv1, stride=64))
        means.append(x.mean())
        squares.append(x.square().mean())
    mean = torch.stack(means).mean()
    return mean, (torch.stack(squares).mean() - mean**2).sqrt()


@torch.no_grad()
def pseudo_context(encoder: SpeechEncoder, samples: Floats) -> SpeechEncoderState:
    """The state that streams start from: the state after this speech, with the initial level, in half precision."""
    samples = samples[: len(samples) // HOP_SAMPLES * HOP_SAMPLES]
    _, state = encoder(torch.from_numpy(samples)[None], zero_state(encoder.config))
    state = state._replace(level=torch.full((1, 1), START_LEVEL_DB), hops=torch.full((1, 1), START_HOPS))
    return SpeechEncoderState(*(t.half().float() for t in state))


def context_speech(clips: Sequence[Clip]) -> Floats:
    """About 8 s of LJ Speech (public domain) and a pause of a second, which measures best for the first 0.1 s."""
    clip = next(c for c in clips if c.source == "ljspeech" and 7.5 * SAMPLE_RATE < len(c.samples) < 8.5 * SAMPLE_RATE)
    return np.concatenate([clip.waveform, np.zeros(SAMPLE_RATE, np.float32)])


class Scores(NamedTuple):
    """Strict viseme accuracy at 50 Hz, with and without silence, and recall of each of the 14 classes."""

    everything: float
    spoken: float
    recall: dict[str, float]

    def __str__(self) -> str:
        lips = f"PBM {self.recall['PBM']:.3f} FV {self.recall['FV']:.3f}"
        return f"visemes {self.everything:.3f}, without silence {self.spoken:.3f}, {lips}"


def score(posteriors: Sequence[Floats], labels: Sequence[npt.NDArray[np.int64]]) -> Scores:
    """Phone posteriors (T, 40) against phone classes (T,). A viseme's posterior is the sum over its phones."""
    table = np.asarray(PHONE_TO_VISEME)
    hits, frames = np.zeros(len(VISEME_NAMES)), np.zeros(len(VISEME_NAMES))
    for p, y in zip(posteriors, labels, strict=True):
        n = min(len(p), len(y))
        visemes = np.zeros((n, len(VISEME_NAMES)))
        np.add.at(visemes.T, table, p[:n].T)
        labels_here = table[y[:n]]
        frames += np.bincount(labels_here, minlength=len(frames))
        hits += np.bincount(labels_here[visemes.argmax(1) == labels_here], minlength=len(frames))
    recall = {name: float(hits[i] / max(frames[i], 1)) for i, name in enumerate(VISEME_NAMES)}
    return Scores(float(hits.sum() / frames.sum()), float(hits[1:].sum() / frames[1:].sum()), recall)


@torch.no_grad()
def stream_posteriors(encoder: SpeechEncoder, samples: Floats, start: SpeechEncoderState) -> Floats:
    """(T, 40) phone probabilities at 50 Hz of a clip through the streaming path."""
    hops = -(-len(samples) // HOP_SAMPLES) + 1
    padded = np.zeros(hops * HOP_SAMPLES, np.float32)
    padded[: len(samples)] = samples
    features, _ = encoder(torch.from_numpy(padded)[None], start)
    found: Floats = features[0, 2:, encoder.config.width :].reshape(-1, len(PHONES)).numpy()
    return found


@torch.no_grad()
def measure(encoder: SpeechEncoder, clips: Sequence[Clip], start: SpeechEncoderState) -> Scores:
    """Viseme scores of the streaming path on labelled clips."""
    labelled = [c for c in clips if c.phones is not None]
    posteriors = [stream_posteriors(encoder, c.waveform, start) for c in labelled]
    return score(posteriors, [c.phones for c in labelled if c.phones is not None])


class Targets(NamedTuple):
    """The targets of one clip: teacher hidden states (T, 288) and phone probabilities (T, 40)."""

    hidden: npt.NDArray[np.float16]
    phones: Floats


def make_targets(
    clips: Sequence[Clip], moonshine: Path, work: Path, test: Sequence[Clip], report: Callable[[str], None] = print
) -> dict[str, Targets]:
    """Teacher hidden states (kept in `work`) and posteriors of a probe on them."""
    path = work / "teacher.npz"
    hidden: dict[str, npt.NDArray[np.float16]] = {}
    if path.is_file():
        with np.load(path) as kept:
            hidden = {name: kept[name] for name in kept.files}
    if missing := [clip for clip in [*clips, *test] if clip.name not in hidden]:
        teacher = Teacher(read_weights(moonshine / MODEL), fifty=True).eval()
        for done, clip in enumerate(missing):
            if done % REPORT_STEPS == 0:
                report(f"teacher: {done} of {len(missing)} clips")
            hidden[clip.name] = teacher_states(teacher, clip.waveform).astype(np.float16)
        _keep(path, hidden)
    labelled = [c for c in clips if c.phones is not None]
    few = [c for i, c in enumerate(labelled) if c.source != "grid" or i % 4 == 0]  # so that GRID's 51 words do not dominate
    labels = [c.phones for c in few if c.phones is not None]
    probe = phone_probe([hidden[c.name].astype(np.float32) for c in few], labels)

    def posteriors(name: str) -> Floats:
        with torch.no_grad():
            logits = probe(torch.from_numpy(with_neighbours(hidden[name].astype(np.float32))))
        found: Floats = logits.softmax(-1).numpy()
        return found

    scores = score([posteriors(c.name) for c in test], [c.phones for c in test if c.phones is not None])
    report(f"teacher, full context, probe on {len(few)} labelled clips: {scores}")
    targets = {}
    for clip in clips:
        q = posteriors(clip.name) ** 1.5
        q /= q.sum(1, keepdims=True)
        if clip.phones is not None:
            n = min(len(q), len(clip.phones))
            q[:n] = 0.5 * q[:n] + 0.5 * np.eye(len(PHONES), dtype=np.float32)[clip.phones[:n]]
        targets[clip.name] = Targets(hidden[clip.name], q.astype(np.float32))
    return targets


def _keep(path: Path, arrays: dict[str, npt.NDArray[np.float16]]) -> None:
    """Write arrays whole. Raises OutputError."""
    try:
        with whole_file(path) as part, part.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
    except OSError as error:
        raise unwritable(path, error) from error


class Batch(NamedTuple):
    """samples (B, HOPS x 1280); hidden (B, TOKENS, 288), phones (B, TOKENS, 40); known (B, TOKENS): where `hidden` counts."""

    samples: Tensor
    hidden: Tensor
    phones: Tensor
    known: Tensor


class Segments:
    """Random training segments: crops at other speeds, two clips in a row, pauses, noise alone; all augmented."""

    def __init__(self, clips: Sequence[Clip], targets: dict[str, Targets], seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.targets = targets
        self.clips = list(clips)
        length = np.array([len(c.samples) for c in clips], np.float64)
        share = np.zeros(len(clips))
        for source, weight in WEIGHTS.items():
            of = np.array([c.source == source for c in clips])
            share[of] = weight * length[of] / max(length[of].sum(), 1)
        self.share = share / share.sum()
        self.babble = [c for c in clips if c.source in {"librispeech", "ljspeech"}]

    def clip_piece(self, tokens: int) -> tuple[Floats, Floats, Floats, npt.NDArray[np.bool_]]:
        random = self.random
        clip = self.clips[random.choice(len(self.clips), p=self.share)]
        speed = float(np.clip(random.normal(1, 0.1), 0.85, 1.2)) if random.random() < 0.7 else 1.0
        spare = len(clip.samples) - tokens * TOKEN * speed
        start = random.uniform(0, spare) if spare > 0 else random.uniform(spare, 0)
        samples, places, inside = crop(clip, tokens, speed, float(np.round(start)))
        hidden, phones = self.targets[clip.name]
        last = len(hidden) - 1
        at = np.clip(places - 0.5, 0, last)
        low = np.minimum(at.astype(np.int64), max(last - 1, 0))
        part = (at - low).astype(np.float32)[:, None]
        h = hidden[low] * (1 - part) + hidden[np.minimum(low + 1, last)] * part
        q = phones[np.clip(places.astype(np.int64), 0, last)].copy()
        q[~inside] = np.eye(len(PHONES), dtype=np.float32)[0]
        return samples, h.astype(np.float32), q, inside

    def segment(self) -> tuple[Floats, Floats, Floats, npt.NDArray[np.bool_]]:
        random = self.random
        tokens = HOPS * BLOCK
        if random.random() < 0.3:
            first = BLOCK * int(random.integers(8, HOPS - 8))
            pieces = [self.clip_piece(first), self.clip_piece(tokens - first)]
            samples, h, q, known = (np.concatenate([p[i] for p in pieces]) for i in range(4))
        else:
            samples, h, q, known = self.clip_piece(tokens)
        silent = slice(0, 0)
        kind = random.random()
        if kind < 0.03:
            silent = slice(0, tokens)
        elif kind < 0.2:
            length = int(random.integers(15, 70))
            begin = int(random.integers(0, tokens - length))
            silent = slice(begin, begin + length)
        level = np.sqrt((samples**2).mean()) + 1e-6
        samples[silent.start * TOKEN : silent.stop * TOKEN] = 0
        known[silent] = False
        q[silent] = np.eye(len(PHONES), dtype=np.float32)[0]
        if silent.stop - silent.start == tokens:
            samples = (random.normal(0, level, len(samples))).astype(np.float32)
            samples = augment(samples, random) * np.float32(10 ** random.uniform(-1.5, 0))
        else:
            samples = augment(samples, random, self.babble)
        return samples, h, q, known

    def batch(self, size: int) -> Batch:
        rows = [self.segment() for _ in range(size)]
        samples, h, q, known = (torch.from_numpy(np.stack([r[i] for r in rows])) for i in range(4))
        return Batch(samples, h[:, :TOKENS], q[:, :TOKENS], known[:, :TOKENS])


def student(encoder: SpeechEncoder, samples: Tensor) -> tuple[Tensor, Tensor]:
    """Hidden states and phone logits (B, TOKENS, ...) of segments, each a stream that begins without context."""
    with torch.no_grad():
        level = torch.full((len(samples), 1), START_LEVEL_DB)
        hops = torch.full((len(samples), 1), START_HOPS)
        levelled = [samples.new_zeros(len(samples), CONTEXT)]
        for hop in samples.split(HOP_SAMPLES, 1):
            hop, level, hops = follow_level(hop, level, hops)
            levelled.append(hop)
    tokens = encoder.stem(torch.cat(levelled, 1))[:, 1:]
    none = tokens.new_zeros(len(samples), encoder.config.layers, 0, encoder.config.width)
    hidden, _, _ = encoder.attend(tokens, none, none)
    return hidden, encoder.phones(hidden)


@dataclass(frozen=True)
class Run:
    """What a run consists of besides network and speech.

    Attributes:
        out: folder of `encoder.pt` and `checkpoint.pt`.
        steps, batch: updates, and segments of each.
        seed: of all randomness.
        data: fingerprint of the speech.
        resume: go on from the checkpoint in `out`, with the bits of a run that was never interrupted.
        report: takes lines of progress.
    """

    out: Path
    steps: int = STEPS
    batch: int = BATCH
    seed: int = 0
    data: str = ""
    resume: bool = False
    report: Callable[[str], None] = print

    @property
    def identity(self) -> dict[str, Any]:
        """What a checkpoint has to agree with."""
        return {"steps": self.steps, "batch": self.batch, "seed": self.seed, "data": self.data}


def train(
    encoder: SpeechEncoder, segments: Segments, test: Sequence[Clip], context: Floats, run: Run
) -> SpeechEncoder:
    """Fine-tune; returns the running average of the weights, which is also saved at every measurement.

    Raises:
        InputError: no checkpoint of this run to resume, or one where none is to be resumed.
        TrainingError: a loss or gradient that is not finite; the last checkpoint stays.
        OutputError: a checkpoint cannot be written; the last one stays.
    """
    sample = np.concatenate([t.hidden[::7] for t in segments.targets.values()]).astype(np.float32)
    variance = torch.from_numpy(sample.var(0) + 1e-4)
    average = copy.deepcopy(encoder)
    groups: dict[float, list[torch.nn.Parameter]] = {}
    for name, parameter in encoder.named_parameters():
        factor = 0.4 if name.startswith("stem") else 5.0 if name.startswith("phone") else 1.0
        groups.setdefault(factor, []).append(parameter)
    optimiser = torch.optim.AdamW(
        [{"params": p, "factor": f} for f, p in groups.items()], RATE, betas=(0.9, 0.98), weight_decay=0.01
    )
    path, start, losses = run.out / "checkpoint.pt", 0, [0.0, 0.0]
    if run.resume:
        found = read_checkpoint(path)
        check_same(path, [name for name, value in run.identity.items() if found.get(name) != value])
        encoder.load_state_dict(found["trained"])
        average.load_state_dict(found["model"])
        optimiser.load_state_dict(found["optimizer"])
        segments.random.bit_generator.state = json.loads(found["random"])
        start, losses = int(found["step"]), list(found["losses"])
    for step in range(start + 1, run.steps + 1):
        fraction = min(1.0, step / WARM_STEPS) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / run.steps)))
        for group in optimiser.param_groups:
            group["lr"] = RATE * fraction * group["factor"]
        samples, h, q, known = segments.batch(run.batch)
        with torch.autocast("cpu", torch.bfloat16):
            hidden, logits = student(encoder, samples)
        error = ((hidden.float() - h) ** 2 / variance).mean(-1)
        distance = (error * known).sum() / known.sum()
        speech = -(q * logits.float().log_softmax(-1)).sum(-1).mean()
        optimiser.zero_grad()
        (distance + speech).backward()
        norm = torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        if not torch.isfinite(distance + speech + norm):
            raise TrainingError(
                f"expected a finite loss and gradient at step {step}, got NaN or infinity; look at the speech, or train with "
                "another seed (the last checkpoint is good)"
            )
        optimiser.step()
        follow(average, encoder, 0.998, step)
        for i, value in enumerate((distance, speech)):
            losses[i] += (value.item() - losses[i]) * max(0.02, 1 / step)
        if step % REPORT_STEPS == 0 or step == run.steps or step == 20:
            scores = measure(average, test if step == run.steps else test[::2], pseudo_context(average, context))
            run.report(f"step {step} of {run.steps}, hidden {losses[0]:.3f} phones {losses[1]:.3f} | {scores}")
            save(average, run.out / "encoder.pt")
            kept: dict[str, Any] = {
                "trained": encoder.state_dict(), "model": average.state_dict(), "optimizer": optimiser.state_dict()
            }
            random = json.dumps(segments.random.bit_generator.state)
            kept |= {"format": FORMAT, "step": step, "losses": losses, "random": random, **run.identity}
            write_checkpoint(path, kept)
        elif step % SHOWN_STEPS == 0:
            run.report(f"step {step} of {run.steps}")
    return average


def save(encoder: SpeechEncoder, path: Path) -> None:
    """Write the weights whole. Raises OutputError."""
    data = io.BytesIO()
    torch.save(encoder.state_dict(), data)
    write_bytes(path, data.getbuffer())


@dataclass(frozen=True)
class Options:
    """`ditto train encoder`.

    Attributes:
        data: the data tree, with `speech` and `grid_s1` (`ditto.training.speech_data`).
        tracks: tracked clips of `grid_s1` (`ditto.training.tracks`).
        moonshine: the unpacked wheel of moonshine-voice 0.1.0.
        out: folder of the run.
        align: phone alignments, from `ditto.training.align`.
        steps, batch, seed, resume, report: as in `Run`.
    """

    data: Path
    tracks: Path
    moonshine: Path
    out: Path
    align: Path | None = None
    steps: int = STEPS
    batch: int = BATCH
    seed: int = 0
    resume: bool = False
    report: Callable[[str], None] = print


def train_encoder(options: Options) -> Path:
    """Train the speech encoder; returns the file of its weights, for `ditto.training.export_encoder`.

    Raises:
        InputError: data, teacher, alignments or folder cannot be used.
        TrainingError: the loss became NaN; the last good checkpoint is in the folder.
        OutputError: a file cannot be written; the last good checkpoint is in the folder.
    """
    check_run(options.out, options.resume)
    for path in (options.data / "speech", options.tracks, options.moonshine / MODEL, options.align):
        if path is not None and not path.exists():
            raise InputError(f"expected {path}, got no such file or folder; ditto/bundles/lite/README.md says what it is")
    torch.set_num_threads(1)  # several threads may add in another order in the next run
    torch.manual_seed(options.seed)
    try:
        clips, test = read_train(options.data, options.tracks), read_test(options.data)
        if options.align:
            clips = add_alignments(clips, options.align)
        weights = read_weights(options.moonshine / MODEL)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"expected speech, alignments and teacher as ditto/bundles/lite/README.md says, got: {error}; get them again"
        ) from error
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(options.out, error) from error
    targets = make_targets(clips, options.moonshine, options.out, test, options.report)
    torch.manual_seed(options.seed)
    encoder = SpeechEncoder()
    from_moonshine(encoder, weights, [c for c in clips if c.source in {"librispeech", "ljspeech"}][::6])
    run = Run(
        options.out, options.steps, options.batch, options.seed, fingerprint(clips), options.resume, options.report
    )
    train(encoder, Segments(clips, targets, options.seed), test, context_speech(clips), run)
    return options.out / "encoder.pt"


def fingerprint(clips: Sequence[Clip]) -> str:
    """SHA-256 of names, sound and phones."""
    found = hashlib.sha256()
    for clip in clips:
        found.update(clip.name.encode() + clip.samples.tobytes())
        found.update(b"" if clip.phones is None else clip.phones.tobytes())
    return found.hexdigest()
