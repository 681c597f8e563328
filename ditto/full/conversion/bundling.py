"""A folder of published checkpoints to a bundle.

Every file is checked against the network it is for, name by name and shape by shape, and tensors go over one at a time.
The bundle has its name only when all of it is written.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ditto.bundle import FORMAT, Bundle, digest, examine_onnx, user_bundles
from ditto.bundle import SETTINGS as SETTINGS_MODEL
from ditto.errors import BundleError, InputError, OutputError
from ditto.full.conversion.checkpoints import FLOATS, HALF, Stored, Tensors, find_state, load_torch, strip
from ditto.full.conversion.hubert import find_hubert, other_configs, read_config_json, read_hubert, weights_file
from ditto.full.conversion.onnx_weights import read_hubert_onnx
from ditto.full.conversion.published import (
    HUBERT_ONNX,
    PUBLISHED,
    SETTINGS,
    Published,
    find,
    find_all,
    find_first,
    what_it_is,
)
from ditto.full.conversion.settings import read_settings, take_apart
from ditto.full.conversion.writing import write_safetensors
from ditto.full.networks.hubert import HubertConfig
from ditto.full.networks.loading import build, build_checked
from ditto.full.networks.trial import try_part
from ditto.full.networks.weights import Entry, check_entries, entries

logger = logging.getLogger(__name__)

NAME, MOTION_SPACE, FPS, SAMPLE_RATE = "full", "full", 25, 16000
LICENCE = "Apache-2.0 (Ditto, HuBERT), MIT (LivePortrait)"
ORIGIN = "converted from the published checkpoints of Ditto (huggingface.co/digital-avatar/ditto-talkinghead)"
BESIDES_SPEECH = 8 + 2 + 6 + 63  # numbers of a condition: emotion, lids, eyeballs, canonical keypoints
SPARE = 1 << 24  # bytes for headers, settings and bundle.json


@dataclass(frozen=True)
class Read:
    """A network whose file has been opened.

    Attributes:
        network: which it is.
        tensors: what the file holds; numbers are read when they are written.
        file: where they are, for messages.
    """

    network: Published
    tensors: Tensors
    file: Path

    @cached_property
    def wanted(self) -> dict[str, Entry]:
        """What the network takes."""
        return entries(build(self.network.model, self.network.config))


def convert(
    source: str | Path,
    output: str | Path | None = None,
    *,
    hubert: str | Path | None = None,
    configs: Mapping[str, Any] | None = None,
    replace: bool = False,
    report: Callable[[str], None] = logger.info,
) -> Bundle:
    """Make a bundle of the published checkpoints.

    Args:
        source: the published folder, Ditto's or one with LivePortrait's names; files are found anywhere in it.
        output: the bundle's folder; by default "full" in the user's folder of bundles, where `ditto.load("full")` finds it.
        hubert: a Hugging Face HuBERT (folder); by default one inside `source`, or else the weights in the released
            HuBERT ONNX.
        configs: sizes by part, of networks of other than the published sizes.
        replace: whether a bundle that is there may be replaced.
        report: is told in a few words what is being done.

    Returns:
        The bundle.

    Raises:
        InputError: no such folder, or the output is there already.
        BundleError: a file is missing, unreadable, unsafe, or does not fit its network.
        OutputError: the bundle cannot be written, e.g. for want of space.
    """
    folder = given_folder(source)
    target = free_target(output, replace)
    networks = [dataclasses.replace(n, config=(configs or {}).get(n.part, n.config)) for n in PUBLISHED]
    files = find_all(folder)
    speech = given_folder(hubert) if hubert is not None else find_hubert(folder)
    onnx = find_first(folder, HUBERT_ONNX)
    weights = [read_encoder(folder, speech, onnx, (configs or {}).get("encoder"), networks, report)]
    for network in networks:
        if network.part in files and (item := read_network(network, files[network.part], report)):
            weights.append(item)
    for item in weights:
        check(item, networks)
    arrays: dict[str, Stored] = {}
    config = settings(folder, arrays, report)
    with new_folder(target, replace) as part_folder:
        enough_space(part_folder, folder, weights, onnx)
        parts, origins = {}, {}
        while weights:  # what is written is let go
            item = weights.pop(0)
            report(f"{item.network.part}: writing")
            parts[item.network.part], origins[item.network.part] = write_network(part_folder, item), item.file
        del item
        if onnx is not None:
            report(f"encoder: copying {onnx}")
            copy = Path(shutil.copyfile(onnx, part_folder / "encoder.onnx"))
            parts["encoder"]["files"]["onnx"] = copy.name
            parts["encoder"]["sha256"]["onnx"] = digest(copy)
        if config:
            parts["settings"] = write_settings(part_folder, config, arrays, folder)
        described = {
            "format": FORMAT, "name": NAME, "licence": LICENCE, "origin": ORIGIN, "fps": FPS,
            "sample_rate": SAMPLE_RATE, "motion_space": MOTION_SPACE, "parts": parts,
        }  # fmt: skip
        text = json.dumps(described, indent=2, ensure_ascii=False) + "\n"
        (part_folder / "bundle.json").write_text(text, encoding="utf-8")
        written = Bundle.open(part_folder)
        for name, file in origins.items():  # not before all sources are let go: a network more would be held
            report(f"{name}: trying it out")
            try_part(written.part(name), file)
        if onnx is not None:
            examine_onnx("hubert", part_folder / "encoder.onnx", onnx)
    return Bundle.open(target)


def free_target(output: str | Path | None, replace: bool) -> Path:
    """The folder to write to.

    Raises:
        InputError: there is something that may not be replaced.
    """
    target = user_bundles() / NAME if output is None else Path(output)
    if target.exists() and not (replace and (target / "bundle.json").is_file()):
        what = "is there already" if (target / "bundle.json").is_file() else "is there and is no bundle"
        raise InputError(
            f"the bundle would be written to {target}, which {what}; give another folder, or --replace a bundle"
        )
    return target


def given_folder(path: str | Path) -> Path:
    """A folder that the caller named.

    Raises:
        InputError: there is none.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise InputError(f"expected a folder of published checkpoints, {what_it_is(folder)}; check the name")
    return folder


@contextmanager
def new_folder(target: Path, replace: bool) -> Iterator[Path]:
    """A folder beside `target` that takes its name when the block ends well, and goes away when it does not.

    Raises:
        OutputError: something cannot be written.
    """
    part: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{target.name[:32]}.", suffix=".part", dir=target.parent))
        yield part
        for file in part.iterdir():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
        umask = os.umask(0)  # the system tells it only while changing it
        os.umask(umask)
        part.chmod(0o777 & ~umask)  # mkdtemp gives 0700
        if replace and target.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{target.name[:32]}.", suffix=".old", dir=target.parent))
            os.rename(target, old / target.name)
            try:
                os.rename(part, target)
            except BaseException:
                os.rename(old / target.name, target)
                raise
            finally:
                shutil.rmtree(old, ignore_errors=True)
        else:
            os.rename(part, target)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = "there is no space left" if full else error.strerror or error
        raise OutputError(
            f"the bundle cannot be written to {target}: {reason}; nothing of it is kept, choose another place with -o"
        ) from error
    finally:
        if part is not None:
            shutil.rmtree(part, ignore_errors=True)


def enough_space(part_folder: Path, source: Path, weights: list[Read], onnx: Path | None) -> None:
    """Compare what the bundle takes with what is free.

    Raises:
        OutputError: there is less.
    """
    needed = sum(wanted.bytes for item in weights for wanted in item.wanted.values()) + SPARE
    needed += onnx.stat().st_size if onnx is not None else 0
    free = shutil.disk_usage(part_folder).free
    if free < needed:
        raise OutputError(
            f"the bundle of {source} needs {needed / 1e9:.2f} GB at {part_folder.parent}, {free / 1e9:.2f} GB are free; "
            "choose another place with -o"
        )


def read_encoder(
    source: Path,
    speech: Path | None,
    onnx: Path | None,
    config: HubertConfig | None,
    networks: list[Published],
    report: Callable[[str], None],
) -> Read:
    """The speech encoder's weights: of a Hugging Face HuBERT, or else out of the released graph.

    Raises:
        BundleError: there is neither; it is unreadable, or of another width than the motion network listens to.
    """
    if speech is not None:
        file = weights_file(speech)
        report(f"encoder: reading {file}")
        config, tensors = config or read_config_json(speech), read_hubert(file)
        build_checked("hubert", config, speech / "config.json")
    elif onnx is not None:
        file, config = onnx, config or HubertConfig()
        report(f"encoder: taking the weights out of {file}")
        tensors = read_hubert_onnx(file, entries(build_checked("hubert", config, "the encoder's config")))
    else:
        raise BundleError(
            f"{source} lacks a HuBERT: {' or '.join(HUBERT_ONNX)}, or the folder of facebook/hubert-large-ls960-ft"
            f"{other_configs(source)}; give the latter with --hubert"
        )
    listens = next(n.config.condition for n in networks if n.part == "motion") - BESIDES_SPEECH
    if config.width != listens:
        raise BundleError(
            f"{file}: the motion network takes features of {listens} numbers, this HuBERT gives {config.width}; give "
            "facebook/hubert-large-ls960-ft"
        )
    return Read(Published("encoder", "hubert", config, (file.name,)), tensors, file)


def read_network(network: Published, file: Path, report: Callable[[str], None]) -> Read | None:
    """A network's weights; None where Ditto does without it and its file has none of it."""
    report(f"{network.part}: reading {file}")
    loaded = load_torch(file)
    if not network.needed and not (isinstance(loaded, Mapping) and network.module in loaded):
        return None
    return Read(network, strip(find_state(loaded, network.module, file), file), file)


def check(item: Read, networks: list[Published]) -> None:
    """Compare names, shapes and types with what the network takes. Floats of another width become single precision.

    Raises:
        BundleError: they differ; where they are another network's, it says which.
    """
    found = {
        name: item.wanted[name] if becomes(tensor.entry, item.wanted.get(name)) else tensor.entry
        for name, tensor in item.tensors.items()
    }
    try:
        check_entries(found, item.wanted, item.file)
    except BundleError as error:
        other = next((network for network in networks if fits(item.tensors, network)), None)
        if other is None:
            raise
        if item.network.module and item.network.files == other.files:
            raise BundleError(
                f"{item.file}: expected the network {item.network.part!r} under {item.network.module!r}, got "
                f"{other.part!r}, whose place is {other.module!r}; networks inside the file are exchanged: get it again"
            ) from error
        raise BundleError(
            f"{item.file}: expected the network {item.network.part!r}, got {other.part!r} ({' or '.join(other.files)}); "
            "files are exchanged or renamed: give each its own name"
        ) from error
    if any(tensor.entry.dtype in HALF for tensor in item.tensors.values()):
        logger.warning("%s is in half precision: the bundle gets single precision, but no more digits", item.file)


def becomes(found: Entry, wanted: Entry | None) -> bool:
    """Whether a stored tensor can be written as the wanted one: equal, or a float of another width."""
    if wanted is None or found.shape != wanted.shape:
        return False
    return found.dtype == wanted.dtype or (found.dtype in FLOATS and wanted.dtype == "float32")


def fits(tensors: Tensors, network: Published) -> bool:
    """Whether tensors are those of a network, by names and shapes."""
    wanted = entries(build(network.model, network.config))
    return tensors.keys() == wanted.keys() and all(becomes(tensors[name].entry, wanted[name]) for name in wanted)


def write_network(part_folder: Path, item: Read) -> dict[str, Any]:
    """Write a network's weights; gives its entry of bundle.json.

    Raises:
        BundleError: they hold values that no trained weights have.
    """
    network, name = item.network, f"{item.network.part}.safetensors"
    sha256 = write_safetensors(part_folder / name, item.tensors, item.wanted, item.file)
    return {
        "model": network.model,
        "config": dataclasses.asdict(network.config),
        "files": {"weights": name},
        "sha256": {"weights": sha256},
    }


def settings(source: Path, arrays: dict[str, Stored], report: Callable[[str], None]) -> dict[str, Any]:
    """The released settings by kind as JSON; their arrays go into `arrays`.

    Raises:
        BundleError: they are unreadable, or want to run code.
    """
    config = {}
    for kind, stems in SETTINGS.items():
        ways = (find(source, tuple(stem + suffix for suffix in (".json", ".pkl"))) for stem in stems)
        if file := next((way for way in ways if way is not None), None):
            report(f"settings: reading {file}")
            config[kind] = take_apart(read_settings(file), kind, arrays, file)
    if not config:
        logger.warning("%s has no settings (ditto_cfg); the defaults of the released code stand in", source)
    return config


def write_settings(
    part_folder: Path, config: dict[str, Any], arrays: dict[str, Stored], source: Path
) -> dict[str, Any]:
    """Write the arrays of the settings; gives their entry of bundle.json."""
    name = "settings.safetensors"
    wanted = {key: array.entry for key, array in arrays.items()}
    sha256 = write_safetensors(part_folder / name, arrays, wanted, source, weights=False)
    return {"model": SETTINGS_MODEL, "config": config, "files": {"arrays": name}, "sha256": {"arrays": sha256}}
