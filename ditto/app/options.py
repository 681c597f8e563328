"""Options of several commands, read: emotions, styles, timelines, provenance, labels."""

from __future__ import annotations

import json
import logging
import math
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ditto.errors import InputError

if TYPE_CHECKING:
    from ditto.controls.timeline import Timeline
    from ditto.provenance import Label, Provenance

logger = logging.getLogger(__name__)

Seed = Annotated[int, typer.Option(min=0, max=2**64 - 1, help="Of all randomness; the same seed gives the same video.")]
Emotion = Annotated[
    str,
    typer.Option(
        help="Weights, at most 1 in all, of angry, disgust, fear, happy, neutral, sad, surprise, contempt: "
        "happy:0.6, or happy:0.3,surprise:0.2."
    ),
]
Style = Annotated[
    str, typer.Option(help="How much head and brows move: calm, natural, lively, or a factor from 0 to 2 on natural.")
]
ControlsFile = Annotated[
    Path | None, typer.Option(metavar="FILE", readable=False, help="Edits over time: a timeline, .yaml or .json.")
]
BundleName = Annotated[str, typer.Option(help="Name or folder of the weights.")]
Device = Annotated[str, typer.Option(help="Where a full bundle's networks run: cpu, cuda, cuda:1.")]
PublishedSettings = Annotated[
    str | None,
    typer.Option("--settings", help="Of a full bundle: offline or online, the settings published with its checkpoints."),
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Of a full bundle, again and again: a released setting (docs/full.md), its value as in JSON or the name of an "
        ".npy file: --set fade_type=s --set overall_ctrl_info.vad_alpha=0.5; or a file of settings, .yaml or .json.",
    ),
]
Face = Annotated[
    str,
    typer.Option(
        metavar="WHICH",
        help="Which face of the picture: its number (0 is the largest), a box left,top,width,height around it in pixels of "
        "the file, or a picture cut from this one. `ditto faces PICTURE` lists them.",
    ),
]
Still = Annotated[bool, typer.Option("--still", help="Keep the head where it is; only the face moves.")]
MaxSize = Annotated[
    int | None,
    typer.Option(min=64, help="Longest side of the video in pixels, of a picture only; 1920 by default."),
]
VideoOutput = Annotated[
    str,
    typer.Option(
        "--output",
        "-o",
        help="The video to write: .mp4, .webm, .mov, .gif, .webp, frames/%05d.png, a playlist .m3u8, or an address rtmp://, "
        "rtmps://, srt://; an existing file is replaced.",
    ),
]
Codec = Annotated[
    str | None,
    typer.Option(help="For formats with several: h264 or hevc; for .mov also prores, prores4444. The usual one by default."),
]
Quality = Annotated[str, typer.Option(help="low, standard or high.")]
Background = Annotated[
    str | None,
    typer.Option(
        metavar="WHAT",
        help="Behind the person, who is cut out of an opaque picture: a colour such as '#20c040', a picture, a video that "
        "loops, blur; or transparent, for an output with alpha. By default the picture's own, white where it is transparent.",
    ),
]
NoProvenance = Annotated[
    bool,
    typer.Option(
        "--no-provenance",
        help="Leave out the content credentials (C2PA): the signed note in the file that it is AI-generated, by what and from "
        "what. Where the law asks for a mark that machines read, you then have to add one yourself.",
    ),
]
SigningCertificate = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        readable=False,
        envvar="DITTO_SIGNING_CERTIFICATE",
        help="PEM of your own certificate, and those above it, to sign with; by default a key of this installation signs.",
    ),
]
SigningKey = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", readable=False, envvar="DITTO_SIGNING_KEY", help="PEM of the private key of --signing-certificate."
    ),
]
LabelText = Annotated[
    str | None, typer.Option("--label", metavar="TEXT", help="Draw a visible label into every picture: AI-generated.")
]
LabelCorner = Annotated[
    str, typer.Option("--label-corner", help="Of --label: top-left, top-right, bottom-left or bottom-right.")
]
LabelFont = Annotated[
    Path | None,
    typer.Option(
        "--label-font", metavar="FILE", readable=False, help="Font of --label (TrueType, OpenType), for letters beyond ASCII."
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]


def parse_settings(settings: str | None, changes: list[str] | None) -> dict[str, Any]:
    """`--settings` and `--set` as arguments of `ditto.load`.

    Raises:
        InputError: another kind of settings, a file that cannot be read, or no NAME=VALUE.
    """
    if settings not in (None, "offline", "online"):
        raise InputError(f"expected --settings offline or online, got {settings!r}; choose one of them")
    found: dict[str, Any] = {}
    for item in changes or ():
        name, equals, text = item.partition("=")
        if not equals:
            found |= _settings_of(Path(item))
            continue
        inside, (*path, last) = found, name.strip().split(".")
        for key in path:
            inside = inside.setdefault(key, {})
            if not isinstance(inside, dict):
                raise InputError(f"expected --set {name}=VALUE, got a value for {key} before; leave one of them out")
        inside[last] = _value_of(text)
    return {"settings": settings, "changes": found or None}


def _value_of(text: str) -> Any:
    """A value of `--set`: JSON, the array of a file, or the text itself."""
    if text.endswith(".npy"):
        import numpy as np

        try:
            return np.load(text, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"expected an array of NumPy in {text}, got: {error}; check the name") from None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _settings_of(file: Path) -> dict[str, Any]:
    """The settings of a file."""
    if file.suffix.lower() not in (".yaml", ".yml", ".json"):
        raise InputError(f"expected --set NAME=VALUE or a file .yaml or .json, got {str(file)!r}; write it so")
    import yaml

    try:
        data = file.read_text(encoding="utf-8")
        found = json.loads(data) if file.suffix.lower() == ".json" else yaml.safe_load(data)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"expected settings by name in {file}, got: {reason}; correct the file") from None
    if not isinstance(found, dict):
        raise InputError(f"expected settings by name in {file}, got {type(found).__name__}; write them as NAME: VALUE")
    return found


def parse_emotion(text: str) -> dict[str, float]:
    """`happy:0.6,surprise:0.2` -> weights by name.

    Raises:
        InputError: another form, an unknown name, or weights outside [0, 1] or over 1 in all.
    """
    from ditto.motion.emotion import EMOTIONS, emotion_vector

    weights: dict[str, float] = {}
    for item in filter(None, text.split(",")):
        name, colon, weight = item.strip().partition(":")
        name = name.strip().lower()
        if name in weights:
            raise InputError(f"expected each emotion once in --emotion, got {name} twice; leave one out")
        try:
            weights[name] = float(weight) if colon else 1.0
        except ValueError:
            raise InputError(f"expected name:weight in --emotion, got {item!r}; write it as happy:0.6") from None
    try:
        emotion_vector(weights)
    except ValueError as error:
        raise InputError(f"expected name:weight of {', '.join(EMOTIONS)} in --emotion: {error}") from None
    return weights


def parse_style(text: str) -> float:
    """`lively` or `1.2` -> strength.

    Raises:
        InputError: neither a style's name nor a number in range.
    """
    from ditto.motion.style import style_strength

    style: str | float = text
    with suppress(ValueError):  # a name
        style = float(text)
    try:
        return style_strength(style)
    except ValueError as error:
        raise InputError(f"--style: {error}") from None


def parse_timeline(path: Path | None, seconds: float | None) -> Timeline | None:
    """The timeline of `--controls`; a note is printed for an empty layer.

    Args:
        seconds: of the recording, None if they are not known.

    Raises:
        TimelineError: the file cannot be read or used.
    """
    if path is None:
        return None
    from ditto.controls.timeline_file import read_timeline

    timeline = read_timeline(path, math.inf if seconds is None else seconds)
    for n, layer in enumerate(timeline.layers):
        if not layer.tracks:
            logger.warning("%s, layers[%d] has no controls and changes nothing; add some, or take it out", path, n)
    return timeline


def parse_provenance(left_out: bool, certificate: Path | None, key: Path | None) -> Provenance | None:
    """Who signs what a command writes, checked; None with `--no-provenance`.

    Raises:
        ProvenanceError: certificate or key cannot be used, or the key of the installation cannot be made.
    """
    if left_out:
        return None
    from ditto.provenance import Provenance
    from ditto.provenance.credentials import own_or_default
    from ditto.provenance.marking import can_sign

    return Provenance(credentials=own_or_default(certificate, key)) if can_sign() else Provenance()


def parse_label(text: str | None, corner: str, font: Path | None) -> Label | None:
    """The label of `--label`; None without it.

    Raises:
        InputError: a text, corner or font that cannot be used; or one of the latter without a text.
    """
    from ditto.provenance import Label

    if text is None:
        if corner != Label.corner or font is not None:
            raise InputError("expected --label with --label-corner and --label-font, got none; give the text of the label")
        return None
    try:
        return Label(text, corner, None if font is None else str(font))
    except ValueError as error:
        raise InputError(f"--label: {error}") from None
