"""Opens a full bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ditto.bundle import Bundle
from ditto.errors import EngineError
from ditto.performer import Performer

if TYPE_CHECKING:
    from ditto.full.released import ReleasedSettings


def open_performer(
    bundle: Bundle,
    device: str,
    precision: str,
    settings: Literal["offline", "online"] | None = None,
    changes: ReleasedSettings | None = None,
) -> Performer:
    """The performer of a verified bundle; arguments as of `ditto.full.pipeline.FullOptions`.

    Raises:
        InputError: a setting in `changes` that is unknown or out of its range.
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
    options = FullOptions(device=device, precision=precision, settings=settings, changes=changes or {})
    return open_parts(bundle, options).performer()
