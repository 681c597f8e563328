"""A small bundle of V or RAP that talks, from nothing but portraits and recordings of speech, on a CPU.

    python -m ditto.training.latent_demo --system v|rap [--portraits DIR] [--speech DIR] [-o latent-demo]

    -o/clips/, calibration/, long/   clips rendered by lite (`ditto.training.latent.data`), for both systems
    -o/SYSTEM/codec/, generator/     runs of training
    -o/SYSTEM/bundle/                the bundle: `ditto animate --bundle -o/SYSTEM/bundle portrait.jpg speech.wav`
    -o/SYSTEM/figures.json, *.png    figures and sheets

Every step that is finished is kept, and an interrupted one goes on: run the same command again.
"""

from __future__ import annotations

import io
import itertools
import sys
import time
import wave
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from ditto.commands import Arguments, run, whole_number
from ditto.controls import Controls
from ditto.errors import DittoError, InputError
from ditto.latent.bundling import LatentParts, write_bundle
from ditto.latent.codec import Codec
from ditto.latent.config import FlowConfig, RapConfig
from ditto.latent.flow_network import FlowGenerator
from ditto.latent.layers import StreamState
from ditto.latent.motion_source import MotionConfig, shipped_motion
from ditto.latent.rap_network import RapDenoiser
from ditto.latent.region import Region
from ditto.latent.speech import LiteConfig, shipped_encoder
from ditto.media.audio import read_audio
from ditto.media.files import check_folder
from ditto.media.rates import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from ditto.portrait.portrait import Portrait
from ditto.talking_head import TalkingHead, load
from ditto.training.dataset import read_json, write_bytes, write_json
from ditto.training.latent import codec as codec_training
from ditto.training.latent.bundle import FLOW_LATENCIES, RAP_LATENCIES
from ditto.training.latent.codec import CodecRecipe, as_video, read_codec, train_codec, whole_latents
from ditto.training.latent.data import PICTURE_SIZE, SIDE, Clips, Job, files_of, plan, render_clips, split_speeches
from ditto.training.latent.evaluation import (
    Figure,
    Pictures,
    Talk,
    change_of,
    drift_of,
    followed,
    lips_of,
    lite_openings,
    parts_of,
    reader_of,
    show,
    talk,
)
from ditto.training.latent.flow import FLOW
from ditto.training.latent.generator import GeneratorSystem, train_generator
from ditto.training.latent.loop import Options
from ditto.training.latent.networks import read_network
from ditto.training.latent.rap import RAP
from ditto.training.latent.sheets import codec_rows, lips_rows, long_rows, write_png
from ditto.values import is_number

T = TypeVar("T")
PORTRAITS = Path("../shared/data/portraits/public_domain")
SPEECH = Path("../shared/data/speech/librispeech_train")
HELD_PORTRAIT = "lady_agnew"
CLIPS, EDITED = 140, 70  # to train on, 8 s each
CALIBRATION = 6  # clips of the held portrait that the reader of its mouth learns from; no network sees them
LONG_SECONDS = 60.0
STREAM_FRAMES = 125  # of the codec's figures

EDITS: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    "gaze": ({"controls": Controls(gaze=(20, 0))}, {"controls": Controls(gaze=(-20, 0))}),
    "lids": ({"controls": Controls(lids=(1.0, 1.0))}, {}),
    "brows": ({"controls": Controls(blendshapes={"browInnerUp": 0.8})}, {}),
    "jaw": ({"controls": Controls(blendshapes={"jawOpen": 0.4})}, {}),
    "happy": ({"emotion": {"happy": 0.8}}, {}),
    "surprise": ({"emotion": {"surprise": 0.8}}, {}),
}
EDITED_SECONDS = 4.0


@dataclass(frozen=True)
class System:
    """What is trained of a system, and what is asked of it.

    Attributes:
        codec, generator: names of presets.
        lips: least correlation of the lips with lite's.
        spread: least spread of the opening over lite's.
    """

    codec: str
    generator: str
    lips: float
    spread: float = 0.85


SYSTEMS: Mapping[str, System] = {"v": System("face", "face", 0.85), "rap": System("face-rap", "face", 0.75)}


class Demo:
    """The steps of the demo, each kept when it is finished.

    Args:
        name: "v" or "rap".
        portraits, speech: folders.
        out: of the demo.
        seed: of all randomness.
        report: takes lines of progress.
    """

    def __init__(
        self, name: str, portraits: Path, speech: Path, out: Path, seed: int = 0, report: Callable[[str], None] = print
    ) -> None:
        self.name, self.system, self.seed, self.report = name, SYSTEMS[name], seed, report
        self.portraits = {path.name: path for path in files_of(portraits, "portraits")}
        self.speeches = files_of(speech, "speech")
        self.out, self.run = out, out / name
        for folder in (self.run, out / "clips", out / "speech"):
            check_folder(folder)
        self._minutes: dict[str, float] = {}

    # ---- data

    @cached_property
    def clips(self) -> Clips:
        """To train on, and held ones."""
        return self._rendered("clips", plan(list(self.portraits.values()), self.speeches, CLIPS, (HELD_PORTRAIT,), EDITED))

    @cached_property
    def calibration(self) -> Clips:
        """Clips of the portrait that no network sees, for the reader of its mouth."""
        held = next(path for name, path in self.portraits.items() if name.startswith(HELD_PORTRAIT))
        spoken = split_speeches(self.speeches)[0][::-1]
        jobs = [Job(f"calibration_{i}", held, spoken[i % len(spoken)], 3000 + i, "train") for i in range(CALIBRATION)]
        return self._rendered("calibration", jobs)

    @cached_property
    def long(self) -> Clips:
        """A minute of held speech, for a known portrait and the one never seen."""
        jobs = []
        for i, portrait in enumerate((next(iter(self._known())), HELD_PORTRAIT)):
            path = next(path for name, path in self.portraits.items() if name.startswith(portrait))
            jobs.append(Job(f"long_{i}", path, self._long_speech(i), 4000 + i, "held"))
        return self._rendered("long", jobs, LONG_SECONDS)

    def _known(self) -> list[str]:
        return [name for name in self.portraits if not name.startswith(HELD_PORTRAIT)]

    def _long_speech(self, place: int) -> Path:
        """Held recordings one after the other."""
        path = self.out / "speech" / f"long_{place}.wav"
        if not path.is_file():
            unheard = split_speeches(self.speeches)[1]
            parts, size = list[npt.NDArray[np.float32]](), 0
            for i in itertools.count(12 * place):
                parts.append(read_audio(unheard[i % len(unheard)]))
                size += len(parts[-1])
                if size >= LONG_SECONDS * SAMPLE_RATE:
                    break
            samples, buffer = np.concatenate(parts)[: int(LONG_SECONDS * SAMPLE_RATE)], io.BytesIO()
            with wave.open(buffer, "wb") as out:
                out.setparams((1, 2, SAMPLE_RATE, 0, "NONE", "not compressed"))
                out.writeframes(np.clip(np.rint(samples * 32768), -32768, 32767).astype("<i2").tobytes())
            write_bytes(path, buffer.getbuffer())
        return path

    def _rendered(self, name: str, jobs: Sequence[Job], seconds: float = 8.0) -> Clips:
        return self._timed(name, lambda: render_clips(jobs, self.out / name, SIDE, seconds, report=self.report))

    # ---- training

    def _options(self, folder: Path) -> Options:
        return Options(
            self.clips.folder, folder, self.seed, (folder / "checkpoint.pt").is_file(), report=self.report
        )

    def _finished(self, path: Path) -> bool:
        """Whether a step is finished, as its description says.

        Raises:
            InputError: it is, but with another seed or other clips.
        """
        if not path.is_file():
            return False
        found = read_json(path)
        words = found.get("words")
        data = words.get("data") if isinstance(words, dict) else None
        if (found.get("seed"), data) != (self.seed, self.clips.fingerprint):
            raise InputError(
                f"expected {path} of seed {self.seed} and of the clips in {self.clips.folder}, got one of seed "
                f"{found.get('seed')} or of other clips; give another folder"
            )
        return True

    @property
    def _codec_recipe(self) -> CodecRecipe:
        return codec_training.PRESETS[self.system.codec]

    @cached_property
    def codec(self) -> Codec:
        """The codec, trained."""
        folder = self.run / "codec"
        if not self._finished(folder / "codec.json"):
            options = self._options(folder)
            self._timed("codec", lambda: train_codec(options, self._codec_recipe))
        return read_codec(folder)

    @cached_property
    def generator(self) -> FlowGenerator | RapDenoiser:
        """The generator, trained."""
        folder, kind = self.run / "generator", "flow" if self.name == "v" else "rap"
        if not self._finished(folder / f"{kind}.json"):
            assert self.codec is not None
            system: GeneratorSystem[Any, Any] = FLOW if kind == "flow" else RAP
            recipe, options = system.presets[self.system.generator].with_motion(), self._options(folder)
            self._timed("generator", lambda: train_generator(system, options, self.run / "codec", recipe))
        if kind == "flow":
            return read_network(folder, kind, FlowConfig, FlowGenerator)
        return read_network(folder, kind, RapConfig, RapDenoiser)

    @cached_property
    def bundle(self) -> Path:
        """The bundle."""
        folder, codec, generator = self.run / "bundle", self.codec, self.generator
        if not folder.is_dir():
            top, left, size = self._codec_recipe.window
            region = Region(SIDE, left, top, size)
            latencies: Any = FLOW_LATENCIES if self.name == "v" else RAP_LATENCIES
            parts = LatentParts(
                codec, generator, region, latencies, LiteConfig(shipped_encoder()), MotionConfig(shipped_motion())
            )
            origin = f"python -m ditto.training.latent_demo --system {self.name}, seed {self.seed}; clips rendered by lite"
            write_bundle(folder, parts, f"{self.name} demo", "Apache-2.0", origin)
        return folder

    # ---- figures

    def evaluate(self) -> list[Figure]:
        """The figures; sheets are written on the way."""
        figures = self._codec_figures()
        head = load(self.bundle)
        registered = {
            name: head.register(path, max_size=PICTURE_SIZE) for name, path in self.portraits.items()
        }
        figures += self._lips_figures(head, registered)
        figures += self._control_figures(head, registered)
        return figures + self._long_figures(head, registered)

    def _codec_figures(self) -> list[Figure]:
        window = self._codec_recipe.window
        frames = whole_latents(self.codec.config, STREAM_FRAMES)
        found = codec_training.evaluate(self.codec, self.clips, window, frames)
        figures = []
        for group, least in (("known", 28.0), ("unseen", 30.0)):
            f = found[group]
            figures += [
                Figure(f"codec, {group} portraits, dB", f.with_reference, least),
                Figure(f"codec, {group} portraits, the reference repeated, dB", f.repeated),
                Figure(f"codec, {group} portraits, gain of the reference, dB", f.with_reference - f.without_reference, 1.5),
                Figure(f"codec, {group} portraits, movement, cosine", f.movement, 0.75),
            ]
        rows, worst = [], 0.0
        for clip in self.clips.of("held")[::2]:
            loaded = self.clips.load(clip)
            frames = whole_latents(self.codec.config, clip.frames)
            real, source = as_video(loaded.frames[:frames], window), as_video(loaded.source[None], window)
            with torch.no_grad():
                latents, references = self.codec.encode(real).mean, self.codec.references(source)
                whole = self.codec.decode(latents, references)
                worst = max(worst, float((self._streamed(latents, references) - whole).abs().max()))
            shown = [_pixels(video) for video in (real, whole, source)]
            rows += codec_rows(clip.portrait, shown[0], shown[1], shown[2][0], lite_openings(loaded.motion)[:frames])
        write_png(self.run / "codec.png", rows)
        return [*figures, Figure("codec, stream against whole, of a range of 2", worst, most=1e-4)]

    def _streamed(self, latents: torch.Tensor, references: Any) -> torch.Tensor:
        state, parts = StreamState(), []
        for piece in latents.split(4, 2):
            made, state = self.codec.decode_stream(piece, state, references)
            parts.append(made)
        return torch.cat(parts, 2)

    def _lips_figures(self, head: TalkingHead, registered: Mapping[str, Portrait]) -> list[Figure]:
        rows, figures, seconds, spoken = list[tuple[str, Pictures]](), list[Figure](), 0.0, 0.0
        held = self.clips.of("held")
        groups: dict[str, list[tuple[Talk, Any, Any]]] = {"known": [], "unseen": []}
        readers = {name: reader_of(self.clips, name) for name in self._known()}
        openings = {clip.name: lite_openings(self.clips.load(clip).motion) for clip in held}
        for place, clip in enumerate(held):
            unseen = clip.portrait.startswith(HELD_PORTRAIT)
            reader = readers.get(clip.portrait) or reader_of(self.calibration, clip.portrait)
            portrait = registered[clip.portrait]
            found = talk(head, portrait, self.clips, clip, reader)
            others = [opening for name, opening in openings.items() if name != clip.name]
            silence = np.zeros(clip.frames * SAMPLES_PER_FRAME, np.float32)
            still = reader(show(head, portrait, silence, SIDE, clip.seed).pictures)
            groups["unseen" if unseen else "known"].append((found, others, still))
            seconds, spoken = seconds + found.seconds, spoken + len(found.made) / FPS
            if place % 2 == 0:
                rows += lips_rows(found)
        write_png(self.run / "lips.png", rows)
        for group, talks in groups.items():
            lips = lips_of(*zip(*talks, strict=True))
            figures += [
                Figure(f"lips, {group}, speech, r", lips.speech, self.system.lips),
                Figure(f"lips, {group}, wrong speech, r", abs(lips.wrong), most=0.15),
                Figure(f"lips, {group}, no speech, r", abs(lips.still), most=0.15),
                Figure(f"lips, {group}, lite's own pictures, r", lips.real),
                Figure(f"lips, {group}, loudness alone, r", lips.loudness),
                Figure(f"lips, {group}, spread over lite's", lips.spread, self.system.spread),
            ]
        return [*figures, Figure("real-time factor on one core", seconds / spoken, most=0.3)]

    def _control_figures(self, head: TalkingHead, registered: Mapping[str, Portrait]) -> list[Figure]:
        """What edits change, beside lite: for a known portrait and the one never seen."""
        figures, lite = list[Figure](), load("lite")
        samples = read_audio(split_speeches(self.speeches)[1][0])[: int(EDITED_SECONDS * SAMPLE_RATE)]
        for group, begin in (("known", self._known()[-1]), ("unseen", HELD_PORTRAIT)):
            portrait = next(portrait for name, portrait in registered.items() if name.startswith(begin))
            for name, edits in EDITS.items():
                still = [{**edit, "still": True} for edit in edits]
                made, real = (change_of(h, portrait, samples, SIDE, still) for h in (head, lite))
                found = followed(made, real)
                figures.append(Figure(f"control, {group}, {name}, cosine with lite", found.cosine))
                figures.append(Figure(f"control, {group}, {name}, of lite's size", found.size))
        return figures

    def _long_figures(self, head: TalkingHead, registered: Mapping[str, Portrait]) -> list[Figure]:
        figures, rows = list[Figure](), list[tuple[str, Pictures]]()
        for clip in self.long.of("held"):
            clips = self.calibration if clip.portrait.startswith(HELD_PORTRAIT) else self.clips
            found = talk(head, registered[clip.portrait], self.long, clip, reader_of(clips, clip.portrait))
            parts, rows = parts_of(found), rows + long_rows(found)
            group = "unseen" if clips is self.calibration else "known"
            for place, part in enumerate(parts):
                words = "  ".join(f"{name} {value:.3g}" for name, value in part._asdict().items())
                self.report(f"60 s, {group}, part {place + 1}: {words}")
            figures += [Figure(f"60 s, {group}, {f.name}", f.value, f.least, f.most) for f in drift_of(parts)]
        write_png(self.run / "long.png", rows)
        return figures

    def __call__(self) -> list[Figure]:
        """All steps; the figures, which are also written."""
        for rendered in (self.clips, self.calibration, self.long):
            self.report(f"{rendered.folder.name}: {len(rendered.clips)} clips")
        self.report(f"bundle: {self.bundle}")
        figures = self._timed("evaluation", self.evaluate)
        words = {
            "system": self.name, "seed": self.seed, "minutes": self._minutes,
            "figures": [{**asdict(figure), "met": figure.met} for figure in figures],
        }  # fmt: skip
        write_json(self.run / "figures.json", words)
        return figures

    def _timed(self, step: str, work: Callable[[], T]) -> T:
        """Do a step; keep the minutes of processor time of those that took some."""
        before = time.process_time()
        made = work()
        minutes = round((time.process_time() - before) / 60, 2)
        path = self.run / "minutes.json"
        kept = read_json(path) if path.is_file() else {}
        self._minutes = {name: value for name, value in kept.items() if is_number(value)}
        if minutes >= self._minutes.get(step, 0.0):
            self._minutes[step] = minutes
            write_json(path, self._minutes)
        return made


def _pixels(video: torch.Tensor) -> Pictures:
    """(1, 3, T, H, W) in [-1, 1] -> (T, H, W, 3)."""
    found: Pictures = ((video[0].clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 3, 0).numpy()
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = Arguments(prog="python -m ditto.training.latent_demo", description="A small bundle that talks.")
    parser.add_argument("--system", choices=tuple(SYSTEMS), required=True)
    parser.add_argument("--portraits", type=Path, default=PORTRAITS)
    parser.add_argument("--speech", type=Path, default=SPEECH)
    parser.add_argument("-o", "--output", type=Path, default=Path("latent-demo"))
    parser.add_argument("--seed", type=whole_number(0, 2**62), default=0)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        figures = Demo(given.system, given.portraits, given.speech, given.output, given.seed)()
    except DittoError as error:
        print(f"ditto: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("ditto: interrupted; finished steps are kept, run the same command again to go on", file=sys.stderr)
        return 130
    for figure in figures:
        print(figure)
    missed = sum(figure.met is False for figure in figures)
    print(f"{missed} of {sum(figure.met is not None for figure in figures)} bars missed")
    return 1 if missed else 0


if __name__ == "__main__":
    run(main)
