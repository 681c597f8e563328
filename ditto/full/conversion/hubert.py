"""Reads HuBERT as Hugging Face publishes it: config.json and model.safetensors or pytorch_model.bin in one folder."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from ditto.errors import BundleError
from ditto.full.conversion.checkpoints import Tensors, read_safetensors, read_torch
from ditto.full.conversion.published import describe_path, named
from ditto.full.networks.hubert import HubertConfig
from ditto.full.sizes import KERNELS, STRIDES
from ditto.values import is_whole

logger = logging.getLogger(__name__)

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
PREFIX, HEAD = "hubert.", "lm_head."  # of the encoder; of the speech recognition head, which is dropped
RENAMED = {
    "conv.weight_g": "conv.parametrizations.weight.original0",
    "conv.weight_v": "conv.parametrizations.weight.original1",
}
# key of config.json -> its required value, its default where the key is missing (transformers, HubertConfig)
REQUIRED: dict[str, tuple[Any, Any]] = {
    "model_type": ("hubert", None),
    "feat_extract_norm": ("layer", "group"),
    "do_stable_layer_norm": (True, False),
    "conv_bias": (True, False),
    "conv_kernel": (list(KERNELS), list(KERNELS)),
    "conv_stride": (list(STRIDES), list(STRIDES)),
}


def find_hubert(folder: Path) -> Path | None:
    """The folder of a published HuBERT inside a folder, or that folder itself; None if there is no HuBERT.

    Raises:
        BundleError: there are several, or a config.json beside weights cannot be read.
    """
    found, broken = [], []
    for file in named(folder, "config.json"):
        try:
            described = read_json(file)
        except BundleError as error:
            if any((file.parent / name).is_file() for name in WEIGHTS):
                broken.append(error)
            continue  # of another program
        if isinstance(described, dict) and described.get("model_type") == "hubert":
            found.append(file.parent)
    found = list({path.resolve(): path for path in found}.values())
    if len(found) > 1:
        raise BundleError(
            f"expected one HuBERT in {folder}, got {' and '.join(map(str, found))}; give the right one with --hubert"
        )
    if not found and broken:
        raise broken[0]
    return found[0] if found else None


def read_json(file: Path) -> Any:
    """What a JSON file holds.

    Raises:
        BundleError: it cannot be read, or is not JSON.
    """
    if not file.is_file():
        raise BundleError(f"expected a config.json, {describe_path(file)}; download the folder again")
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BundleError(f"{file}: expected JSON, got: {reason}; download the folder again") from error


def other_configs(folder: Path) -> str:
    """What the config.json files in a folder without a HuBERT are, for a message; "" if there are none."""
    found = []
    for file in named(folder, "config.json"):
        try:
            described = read_json(file)
        except BundleError as error:
            found.append(str(error).partition(";")[0])
        else:
            kind = described.get("model_type") if isinstance(described, dict) else None
            found.append(f"{file} with model_type {kind!r}")
    return "; ".join(found)


def read_config_json(folder: Path) -> HubertConfig:
    """Sizes of a published HuBERT.

    Raises:
        BundleError: config.json is missing, broken, or of another architecture (HuBERT base has its norms in other places).
    """
    file = folder / "config.json"
    described = read_json(file)
    try:
        for key, (required, default) in REQUIRED.items():
            got = described.get(key, default)
            if got != required:
                raise BundleError(
                    f"{file}: expected {key} {required!r}, got {got!r}; give a HuBERT of the large kind "
                    "(facebook/hubert-large-ls960-ft)"
                )
        config = HubertConfig(
            channels=described["conv_dim"][0],
            width=described["hidden_size"],
            layers=described["num_hidden_layers"],
            heads=described["num_attention_heads"],
            inner=described["intermediate_size"],
            position_kernel=described["num_conv_pos_embeddings"],
            position_groups=described["num_conv_pos_embedding_groups"],
        )
        wrong = [f"{name} {size!r}" for name, size in vars(config).items() if not is_whole(size, 1)]
        if wrong:
            raise ValueError(f"expected sizes of 1 or more, got {', '.join(wrong)}")
        return config
    except (ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise BundleError(
            f"{file}: expected the config.json of a published HuBERT, got {type(error).__name__} {error}; give the folder "
            "of facebook/hubert-large-ls960-ft"
        ) from error


def weights_file(folder: Path) -> Path:
    """The weights of a published HuBERT.

    Raises:
        BundleError: the folder has no weights.
    """
    files = [folder / name for name in WEIGHTS if (folder / name).is_file()]
    if len(files) > 1:
        logger.warning("using %s, ignoring %s", files[0], files[1].name)
    if files:
        return files[0]
    found = " and ".join(describe_path(folder / name) for name in WEIGHTS)
    raise BundleError(f"expected {' or '.join(WEIGHTS)} beside config.json, got: {found}; download the folder again")


def read_hubert(file: Path) -> Tensors:
    """The weights of a published HuBERT under the names of our network.

    Raises:
        BundleError: the file is unreadable. Names are checked later.
    """
    tensors = read_safetensors(file) if file.suffix == ".safetensors" else read_torch(file)
    out: Tensors = {}
    for key, tensor in tensors.items():
        if key.startswith(HEAD):
            continue
        name = key.removeprefix(PREFIX)
        for old, new in RENAMED.items():
            name = name.replace(old, new)
        out[name] = tensor
    return out
