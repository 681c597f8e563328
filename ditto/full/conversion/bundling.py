"""Converts a folder of published checkpoints to a bundle.

Every file is compared with its network, name by name and shape by shape. Tensors are copied one at a time. The bundle gets
its name when all of it is written.
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
from ditto.full.conversion.checkpoints import FLOATS, HALF, StoredTensor, Tensors, find_state, load_torch, strip
from ditto.full.conversion.hubert import find_hubert, other_configs, read_config_json, read_hubert, weights_file
from ditto.full.conversion.onnx_weights import read_hubert_onnx
from ditto.full.conversion.published import (
    ENCODER,
    HUBERT_ONNX,
    PUBLISHED,
    SETTINGS,
    Published,
    describe_path,
    find,
    find_all,
    find_first,
)
from ditto.full.conversion.settings import read_settings, separate_arrays
from ditto.full.conversion.writing import write_safetensors
from ditto.full.networks.loading import build, build_checked
from ditto.full.networks.trial import try_part
from ditto.full.networks.weights import TensorSpec, check_specs, specs_of
from ditto.full.sizes import CONDITION_SIZE, SPEECH_SIZE
from ditto.media.rates import FPS, SAMPLE_RATE

logger = logging.getLogger(__name__)

NAME, MOTION_SPACE = "full", "full"
LICENCE = "Apache-2.0 (Ditto, HuBERT), MIT (LivePortrait)"
ORIGIN = "converted from the published checkpoints of Ditto (huggingface.co/digital-avatar/ditto-talkinghead)"
BESIDES_SPEECH = CONDITION_SIZE - SPEECH_SIZE  # 79 numbers of a condition: emotion, lids, gaze, canonical keypoints
SPARE = 1 << 24  # bytes for headers, settings and bundle.json; they take a few hundred kilobytes


@dataclass(frozen=True)
class OpenedNetwork:
    """A network whose file is open.

    Attributes:
        network: its description.
        tensors: of the file; their numbers are read when they are written.
        file: the path, for messages.
    """

    network: Published
    tensors: Tensors
    file: Path

    @cached_property
    def expected(self) -> dict[str, TensorSpec]:
        """Names, shapes and types of the network's tensors."""
        return specs_of(build(self.network.model, self.network.config))


def convert(
    source: str | Path,
    output: str | Path | None = None,
    *,
    hubert: str | Path | None = None,
    replace: bool = False,
    report: Callable[[str], None] = logger.info,
) -> Bundle:
    """Make a bundle of the published checkpoints.

    Args:
        source: the published folder, Ditto's or one with LivePortrait's names; files are found anywhere in it.
        output: the bundle's folder; by default "full" in the user's folder of bundles, where `ditto.load("full")` finds it.
        hubert: a Hugging Face HuBERT (folder); by default one inside `source`, or else the weights in the released
            HuBERT ONNX.
        replace: whether an existing bundle may be replaced.
        report: called with a few words before each step.

    Returns:
        The bundle.

    Raises:
        InputError: `source` is not a folder, or the output exists.
        BundleError: a file is missing, unreadable, unsafe, or does not fit its network.
        OutputError: the bundle cannot be written, for example because the disk is full.
    """
    folder = source_folder(source)
    target = check_target(output, replace)
    files = find_all(folder)
    speech = source_folder(hubert) if hubert is not None else find_hubert(folder)
    onnx = find_first(folder, HUBERT_ONNX)
    weights = [read_encoder(folder, speech, onnx, report)]
    for network in PUBLISHED:
        if network.part in files and (item := read_network(network, files[network.part], report)):
            weights.append(item)
    for item in weights:
        check(item)
    arrays: dict[str, StoredTensor] = {}
    config = settings(folder, arrays, report)
    with new_folder(target, replace) as part_folder:
        check_space(part_folder, folder, weights, onnx)
        parts, origins = {}, {}
        while weights:  # each network is released when it is written
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
        for name, file in origins.items():  # after all sources are released, so that one network at a time is in memory
            report(f"{name}: running it once")
            try_part(written.part(name), file)
        if onnx is not None:
            examine_onnx("hubert", part_folder / "encoder.onnx", onnx)
    return Bundle.open(target)


def check_target(output: str | Path | None, replace: bool) -> Path:
    """The folder to write to.

    Raises:
        InputError: it exists and may not be replaced.
    """
    target = user_bundles() / NAME if output is None else Path(output)
    if target.exists() and not (replace and (target / "bundle.json").is_file()):
        what = "a bundle" if (target / "bundle.json").is_file() else "a file or folder without bundle.json"
        raise InputError(
            f"expected a free path for the bundle, got {target}, which is {what}; give another path, or --replace a bundle"
        )
    return target


def source_folder(path: str | Path) -> Path:
    """The folder at a path.

    Raises:
        InputError: there is no folder.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise InputError(f"expected a folder of published checkpoints, {describe_path(folder)}; check the name")
    return folder


@contextmanager
def new_folder(target: Path, replace: bool) -> Iterator[Path]:
    """A temporary folder beside `target`. It becomes `target` when the block succeeds, and is deleted when it fails.

    Raises:
        OutputError: a file cannot be written.
    """
    part: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{target.name[:32]}.", suffix=".part", dir=target.parent))
        yield part
        for file in part.iterdir():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
        umask = os.umask(0)  # the system returns the umask only when it sets one
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
        reason = "no space left on the disk" if full else error.strerror or error
        raise OutputError(
            f"expected to write the bundle to {target}, got: {reason}; nothing was kept: choose another place with -o"
        ) from error
    finally:
        if part is not None:
            shutil.rmtree(part, ignore_errors=True)


def check_space(part_folder: Path, source: Path, weights: list[OpenedNetwork], onnx: Path | None) -> None:
    """Compare the size of the bundle with the free space.

    Raises:
        OutputError: the space is too small.
    """
    needed = sum(spec.bytes for item in weights for spec in item.expected.values()) + SPARE
    needed += onnx.stat().st_size if onnx is not None else 0
    free = shutil.disk_usage(part_folder).free
    if free < needed:
        raise OutputError(
            f"expected {needed / 1e9:.2f} GB free at {part_folder.parent} for the bundle of {source}, got "
            f"{free / 1e9:.2f} GB; choose another place with -o"
        )


def read_encoder(
    source: Path,
    speech: Path | None,
    onnx: Path | None,
    report: Callable[[str], None],
) -> OpenedNetwork:
    """The speech encoder's weights: of a Hugging Face HuBERT, or else from the released ONNX file.

    Raises:
        BundleError: there is neither, it is unreadable, or its features do not have the width that the motion network takes.
    """
    if speech is not None:
        file = weights_file(speech)
        report(f"encoder: reading {file}")
        config, tensors = read_config_json(speech), read_hubert(file)
        build_checked("hubert", config, speech / "config.json")
    elif onnx is not None:
        file, config = onnx, ENCODER.config
        report(f"encoder: reading the weights in {file}")
        tensors = read_hubert_onnx(file, specs_of(build_checked("hubert", config, "the encoder's config")))
    else:
        raise BundleError(
            f"expected a HuBERT in {source}: {' or '.join(HUBERT_ONNX)}, or the folder of facebook/hubert-large-ls960-ft, got "
            f"{other_configs(source) or 'none'}; give that folder with --hubert"
        )
    speech_size = next(n.config.condition for n in PUBLISHED if n.part == "motion") - BESIDES_SPEECH
    if config.width != speech_size:
        raise BundleError(
            f"{file}: expected a HuBERT with features of {speech_size} numbers, got {config.width}; give "
            "facebook/hubert-large-ls960-ft"
        )
    return OpenedNetwork(dataclasses.replace(ENCODER, config=config), tensors, file)


def read_network(network: Published, file: Path, report: Callable[[str], None]) -> OpenedNetwork | None:
    """A network's weights; None for an optional network that is not in its file."""
    report(f"{network.part}: reading {file}")
    loaded = load_torch(file)
    if not network.needed and not (isinstance(loaded, Mapping) and network.module in loaded):
        return None
    return OpenedNetwork(network, strip(find_state(loaded, network.module, file), file), file)


def check(item: OpenedNetwork) -> None:
    """Compare names, shapes and types with the network's. Half and double precision become single.

    Raises:
        BundleError: they differ. If they are another network's, the message names that network.
    """
    found = {
        name: item.expected[name] if can_store(tensor.spec, item.expected.get(name)) else tensor.spec
        for name, tensor in item.tensors.items()
    }
    try:
        check_specs(found, item.expected, item.file)
    except BundleError as error:
        other = next((network for network in PUBLISHED if matches(item.tensors, network)), None)
        if other is None:
            raise
        if item.network.module and item.network.files == other.files:
            raise BundleError(
                f"{item.file}: expected the network {item.network.part!r} under {item.network.module!r}, got "
                f"{other.part!r}, which belongs under {other.module!r}; the file has its networks swapped: get it again"
            ) from error
        raise BundleError(
            f"{item.file}: expected the network {item.network.part!r}, got {other.part!r} ({' or '.join(other.files)}); "
            "files are swapped or renamed: give each its own name"
        ) from error
    if any(tensor.spec.dtype in HALF for tensor in item.tensors.values()):
        logger.warning("%s is in half precision; the bundle stores the same values in single precision", item.file)


def can_store(found: TensorSpec, expected: TensorSpec | None) -> bool:
    """Whether a stored tensor can be written as the expected one: equal, or a float of another width."""
    if expected is None or found.shape != expected.shape:
        return False
    return found.dtype == expected.dtype or (found.dtype in FLOATS and expected.dtype == "float32")


def matches(tensors: Tensors, network: Published) -> bool:
    """Whether tensors have the names and shapes of a network."""
    expected = specs_of(build(network.model, network.config))
    return tensors.keys() == expected.keys() and all(can_store(tensors[name].spec, expected[name]) for name in expected)


def write_network(part_folder: Path, item: OpenedNetwork) -> dict[str, Any]:
    """Write a network's weights; gives its entry for bundle.json.

    Raises:
        BundleError: they hold values that no trained weights have.
    """
    network, name = item.network, f"{item.network.part}.safetensors"
    sha256 = write_safetensors(part_folder / name, item.tensors, item.expected, item.file)
    return {
        "model": network.model,
        "config": dataclasses.asdict(network.config),
        "files": {"weights": name},
        "sha256": {"weights": sha256},
    }


def settings(source: Path, arrays: dict[str, StoredTensor], report: Callable[[str], None]) -> dict[str, Any]:
    """The released settings by kind as JSON; their arrays go into `arrays`.

    Raises:
        BundleError: they are unreadable, or would run code.
    """
    config = {}
    for kind, stems in SETTINGS.items():
        files = (find(source, tuple(stem + suffix for suffix in (".json", ".pkl"))) for stem in stems)
        if file := next((file for file in files if file is not None), None):
            report(f"settings: reading {file}")
            config[kind] = separate_arrays(read_settings(file), kind, arrays, file)
    if not config:
        logger.warning("%s has no settings (ditto_cfg); the bundle is written without them", source)
    return config


def write_settings(
    part_folder: Path, config: dict[str, Any], arrays: dict[str, StoredTensor], source: Path
) -> dict[str, Any]:
    """Write the arrays of the settings; gives the part's entry for bundle.json."""
    name = "settings.safetensors"
    specs = {key: array.spec for key, array in arrays.items()}
    sha256 = write_safetensors(part_folder / name, arrays, specs, source, weights=False)
    return {"model": SETTINGS_MODEL, "config": config, "files": {"arrays": name}, "sha256": {"arrays": sha256}}
