"""Trained networks of the latent systems as files: the codec and the generators."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from safetensors.torch import save
from torch import nn

from ditto.errors import BundleError, NoBundleError
from ditto.latent.config import from_json, to_json
from ditto.latent.loading import load_network
from ditto.training.dataset import write_bytes, write_json
from ditto.values import is_same

FORMAT = 1  # of NAME.json

C = TypeVar("C")
N = TypeVar("N", bound=nn.Module)


def write_network(folder: Path, name: str, network: nn.Module, words: Mapping[str, Any]) -> None:
    """Write `NAME.safetensors`, the weights, and `NAME.json`, the config with `words` beside it. Raises OutputError."""
    weights = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    write_bytes(folder / f"{name}.safetensors", save(weights))
    write_json(folder / f"{name}.json", {"format": FORMAT, "config": to_json(network.config), **words})


def read_network(folder: Path, name: str, kind: type[C], make: Callable[[C], N]) -> N:
    """The network that `write_network` wrote.

    Args:
        kind: of its config.
        make: a network from a config.

    Raises:
        NoBundleError: missing.
        BundleError: damaged or of another format.
    """
    try:
        words = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        if not is_same(words.get("format"), FORMAT):
            raise ValueError(f"format {words.get('format')!r}")
        network = load_network(make, from_json(kind, words.get("config")), folder / f"{name}.safetensors")
    except Exception as error:  # safetensors and torch raise errors of their own
        reason, missing = " ".join(str(error).split())[:200], isinstance(error, FileNotFoundError)
        raise (NoBundleError if missing else BundleError)(
            f"expected a {name} network of format {FORMAT} in {folder}, got: {reason}; train it again"
        ) from error
    return network.requires_grad_(False)
