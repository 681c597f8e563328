"""Opens a full bundle."""

from __future__ import annotations

from ditto.bundle import Bundle
from ditto.errors import EngineError
from ditto.performer import Performer


def open_performer(bundle: Bundle, device: str, precision: str) -> Performer:
    """The performer of a verified bundle.

    Raises:
        BundleError: a part is missing or damaged.
        EngineError: PyTorch is not installed, or a network cannot run here.
    """
    try:
        from ditto.full.pipeline import PARTS, FullOptions, open_parts
    except ImportError as error:
        raise EngineError(
            f"expected PyTorch for {bundle.path}, got: {error}; pip install 'ditto-talking-head[full]'"
        ) from error
    for part in PARTS:
        bundle.part(part)
    bundle.verify()
    return open_parts(bundle, FullOptions(device=device, precision=precision)).performer()
