"""HuBERT as Hugging Face publishes it: a folder with config.json and model.safetensors or pytorch_model.bin."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from ditto.errors import BundleError
from ditto.full.conversion.checkpoints import Tensors, read_safetensors, read_torch
from ditto.full.conversion.published import named, what_it_is
from ditto.full.networks.hubert import KERNELS, STRIDES, HubertConfig

logger = logging.getLogger(__name__)

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
PREFIX, HEAD = "hubert.", "lm_head."  # of the features; the letters of the fine-tuned model, which nobody needs here
RENAMED = {
    "conv.weight_g": "conv.parametrizations.weight.original0",
    "conv.weight_v": "conv.parametrizations.weight.original1",
}
# What config.json must say, and what it means when it says nothing (transformers, HubertConfig).
WANTED: dict[str, tuple[Any, Any]] = {
    "model_type": ("hubert", None),
    "feat_extract_norm": ("layer", "group"),
    "do_stable_layer_norm": (True, False),
    "conv_bias": (True, False),
    "conv_kernel": (list(KERNELS), list(KERNELS)),
    "conv_stride": (list(STRIDES), list(STRIDES)),
}


def find_hubert(folder: Path) -> Path | None:
    """The folder of a published HuBERT inside a folder, or that folder itself; None: there is none.

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
            continue  # some other program's
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
        BundleError: it cannot be read, or is no JSON.
    """
    if not file.is_file():
        raise BundleError(f"expected a config.json, {what_it_is(file)}; download the folder again")
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BundleError(f"{file} is broken: expected JSON, got {reason}; download the folder again") from error


def other_configs(folder: Path) -> str:
    """What each config.json in a folder without a HuBERT is, in words for a message; "" where there is none."""
    told = []
    for file in named(folder, "config.json"):
        try:
            described = read_json(file)
        except BundleError as error:
            told.append(str(error).partition(";")[0])
        else:
            kind = described.get("model_type") if isinstance(described, dict) else None
            told.append(f"{file} has model_type {kind!r}")
    return f" ({'; '.join(told)})" if told else ""


def read_config_json(folder: Path) -> HubertConfig:
    """Sizes of a published HuBERT.

    Raises:
        BundleError: no config.json, a broken one, or one of another architecture (HuBERT base has its norms elsewhere).
    """
    file = folder / "config.json"
    described = read_json(file)
    try:
        for key, (wanted, default) in WANTED.items():
            got = described.get(key, default)
            if got != wanted:
                raise BundleError(
                    f"{file}: {key} {wanted!r} is wanted, got {got!r}; give a HuBERT of the large kind "
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
        wrong = [f"{name} {size!r}" for name, size in vars(config).items() if not isinstance(size, int) or size < 1]
        if wrong:
            raise ValueError(f"sizes of 1 and more are expected, not {', '.join(wrong)}")
        return config
    except (ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise BundleError(
            f"{file}: the config.json of a published HuBERT is wanted, got {type(error).__name__} {error}; give the folder "
            "of facebook/hubert-large-ls960-ft"
        ) from error


def weights_file(folder: Path) -> Path:
    """The weights of a published HuBERT.

    Raises:
        BundleError: there are none.
    """
    files = [folder / name for name in WEIGHTS if (folder / name).is_file()]
    if len(files) > 1:
        logger.warning("%s is taken, not %s", files[0], files[1].name)
    if files:
        return files[0]
    there = " and ".join(what_it_is(folder / name) for name in WEIGHTS)
    raise BundleError(f"expected {' or '.join(WEIGHTS)} beside config.json, but {there}; download the folder again")


def read_hubert(file: Path) -> Tensors:
    """The weights of a published HuBERT by the names of our network.

    Raises:
        BundleError: unreadable; names are checked later.
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
