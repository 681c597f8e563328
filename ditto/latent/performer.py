"""Opens a bundle of V or RAP."""

from __future__ import annotations

from ditto.bundle import Bundle
from ditto.errors import EngineError, InputError
from ditto.performer import Performer


def open_performer(bundle: Bundle, device: str, precision: str) -> Performer:
    """The performer of a verified bundle.

    Raises:
        InputError: another device than the CPU, or another precision than float32.
        BundleError: a part is missing or damaged, of another system or version, or does not fit the others.
        EngineError: PyTorch is not installed.
    """
    if (device, precision) != ("cpu", "float32"):
        raise InputError(
            f"expected device='cpu' and precision='float32' for the bundle {bundle.name!r}, got device={device!r}, "
            f"precision={precision!r}; leave them out"
        )
    try:
        from ditto.latent.bundling import open_parts
    except ImportError as error:
        raise EngineError(
            f"expected PyTorch for {bundle.path}, got: {error}; pip install 'ditto-talking-head[full]'"
        ) from error
    bundle.verify()
    return open_parts(bundle)
