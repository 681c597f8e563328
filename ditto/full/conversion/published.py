"""The published checkpoints: names of the files, and the networks in them.

Source of the names: antgroup/ditto-talkinghead, README ("Download Checkpoints"); KlingTeam/LivePortrait, README.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ditto.errors import BundleError
from ditto.full.networks.appearance import AppearanceConfig
from ditto.full.networks.decoder import DecoderConfig
from ditto.full.networks.hubert import HubertConfig
from ditto.full.networks.lmdm import LMDMConfig
from ditto.full.networks.motion_extractor import MotionExtractorConfig
from ditto.full.networks.stitching import EYE_RETARGETING, LIP_RETARGETING, STITCHING
from ditto.full.networks.warping import WarpingConfig

logger = logging.getLogger(__name__)

HUBERT_ONNX = ("hubert_streaming_fix_kv.onnx", "hubert.onnx")
SETTINGS = {
    "offline": ("v0.4_hubert_cfg_pytorch", "v0.4_hubert_cfg_trt"),
    "online": ("v0.4_hubert_cfg_trt_online",),
}


@dataclass(frozen=True)
class Published:
    """A network as it is published.

    Attributes:
        part: its name in the bundle.
        model: one of `ditto.full.networks.loading.MODELS`.
        config: its sizes.
        files: names its file may have: Ditto's, LivePortrait's.
        module: its name inside a file of several networks.
        needed: False for a network that Ditto runs without.
    """

    part: str
    model: str
    config: Any
    files: tuple[str, ...]
    module: str = ""
    needed: bool = True


ENCODER = Published("encoder", "hubert", HubertConfig(), HUBERT_ONNX)
STITCHING_FILES = ("stitch_network.pth", "stitching_retargeting_module.pth")
PUBLISHED = (
    Published("motion", "lmdm", LMDMConfig(), ("lmdm_v0.4_hubert.pth",)),
    Published(
        "appearance",
        "appearance_extractor",
        AppearanceConfig(),
        ("appearance_extractor.pth", "appearance_feature_extractor.pth"),
    ),
    Published("motion_extractor", "motion_extractor", MotionExtractorConfig(), ("motion_extractor.pth",)),
    Published("warping", "warping_network", WarpingConfig(), ("warp_network.pth", "warping_module.pth")),
    Published("decoder", "spade_decoder", DecoderConfig(), ("decoder.pth", "spade_generator.pth")),
    Published("stitching", "stitching_network", STITCHING, STITCHING_FILES, "retarget_shoulder"),
    Published("eye_retargeting", "retargeting_network", EYE_RETARGETING, STITCHING_FILES, "retarget_eye", False),
    Published("lip_retargeting", "retargeting_network", LIP_RETARGETING, STITCHING_FILES, "retarget_mouth", False),
)


def find(folder: Path, names: tuple[str, ...]) -> Path | None:
    """The file of one of these names anywhere in a folder; None if there is no such file.

    Links to one file count once.

    Raises:
        BundleError: there are several files, or only a folder or a broken link of this name.
    """
    found = named(folder, *names)
    files = list({path.resolve(): path for path in reversed(found) if path.is_file()}.values())[::-1]
    if len(files) > 1:
        raise BundleError(
            f"expected one file {' or '.join(names)} in {folder}, got {' and '.join(map(str, files))}; move all but the right "
            "one out of the folder"
        )
    if found and not files:
        raise BundleError(f"expected {found[0].name} to be a file, {describe_path(found[0])}; get it again")
    return files[0] if files else None


def named(folder: Path, *names: str) -> list[Path]:
    """Everything of these names anywhere in a folder: files, folders, and links that lead nowhere."""
    return sorted(path for path in folder.rglob("*") if path.name in names)  # a pattern without * skips such links


def find_first(folder: Path, names: tuple[str, ...]) -> Path | None:
    """The file of the first of these names that exists; the log says which of several is used.

    Raises:
        BundleError: as `find`, for one name.
    """
    files = [file for name in names if (file := find(folder, (name,))) is not None]
    if len(files) > 1:
        logger.warning("using %s, ignoring %s", files[0], ", ".join(map(str, files[1:])))
    return files[0] if files else None


def describe_path(path: Path) -> str:
    """What is at a path, in words for a message."""
    if path.is_symlink() and not path.exists():
        return f"{path} is a link to {path.readlink()}, which does not exist"
    kind = "a folder" if path.is_dir() else "a file" if path.is_file() else "no file or folder"
    return f"{path} is {kind}" if path.exists() else f"{path} does not exist"


def find_all(folder: Path) -> dict[str, Path]:
    """The file of every network in a published folder, by part.

    Raises:
        BundleError: some are missing; the message names them all, and what the folder has instead.
    """
    files = {network.part: find(folder, network.files) for network in PUBLISHED}
    missing = [" or ".join(n.files) for n in PUBLISHED if n.needed and files[n.part] is None]
    if missing:
        raise BundleError(
            f"expected {', '.join(missing)} in {folder}, got {describe_folder(folder)}; give the files of "
            "ditto_pytorch/models of huggingface.co/digital-avatar/ditto-talkinghead (`ditto bundle pull full` gets them)"
        )
    return {part: file for part, file in files.items() if file is not None}


def describe_folder(folder: Path) -> str:
    """What a folder without the torch files holds, in words for a message."""
    suffixes = {path.suffix for path in folder.rglob("*") if path.is_file()}
    if ".pth" not in suffixes and suffixes & {".onnx", ".engine"}:
        kinds = " and ".join(sorted(suffixes & {".onnx", ".engine"}))
        return f"{kinds} files, which cannot be converted: their batch norms are folded into other weights"
    names = sorted(path.name for path in folder.rglob("*.pth") if path.is_file())
    return f"the .pth files {', '.join(names[:6])}" if names else "no .pth files"
