"""HuBERT as Hugging Face publishes it: a folder with config.json and model.safetensors or pytorch_model.bin."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ditto.conversion.checkpoints import Tensors, read_safetensors, read_torch
from ditto.errors import BundleError
from ditto.models.hubert import KERNELS, STRIDES, HubertConfig

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
    """The folder of a published HuBERT inside a folder, or that folder itself; None: there is none."""
    for file in sorted(folder.rglob("config.json")):
        try:
            described = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue  # some other program's
        if isinstance(described, dict) and described.get("model_type") == "hubert":
            return file.parent
    return None


def read_config_json(folder: Path) -> HubertConfig:
    """Sizes of a published HuBERT.

    Raises:
        BundleError: no config.json, or one of another architecture (HuBERT base has its norms elsewhere).
    """
    file = folder / "config.json"
    try:
        described = json.loads(file.read_text(encoding="utf-8"))
        for key, (wanted, default) in WANTED.items():
            got = described.get(key, default)
            if got != wanted:
                raise BundleError(
                    f"{file}: {key} {wanted!r} is wanted, got {got!r}; give a HuBERT of the large kind "
                    "(facebook/hubert-large-ls960-ft)"
                )
        return HubertConfig(
            channels=described["conv_dim"][0],
            width=described["hidden_size"],
            layers=described["num_hidden_layers"],
            heads=described["num_attention_heads"],
            inner=described["intermediate_size"],
            position_kernel=described["num_conv_pos_embeddings"],
            position_groups=described["num_conv_pos_embedding_groups"],
        )
    except (OSError, ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise BundleError(
            f"{file}: the config.json of a published HuBERT is wanted, got {type(error).__name__} {error}; give the folder "
            "of facebook/hubert-large-ls960-ft"
        ) from error


def weights_file(folder: Path) -> Path:
    """The weights of a published HuBERT.

    Raises:
        BundleError: there are none.
    """
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise BundleError(f"{folder}: {' or '.join(WEIGHTS)} is wanted beside config.json, got neither; download it again")


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
