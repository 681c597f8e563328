"""Read any common picture as upright RGB."""

from __future__ import annotations

import io
import logging
import os
import struct
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ditto.errors import ImageError

if TYPE_CHECKING:
    from PIL import Image

Bytes = npt.NDArray[np.uint8]
Picture = str | os.PathLike[str] | bytes | bytearray | memoryview | npt.NDArray[Any]

MAX_PIXELS = 40_000_000
MAX_SIZE = 1280
LUMA: npt.NDArray[np.float64] = np.array([0.299, 0.587, 0.114])  # of RGB, Rec. 601
# Named one by one: Pillow's full list holds formats that start other programs (EPS) or fetch nothing we want.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "TGA", "JPEG2000", "AVIF", "ICO")
WANTED = "a picture (JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF, JPEG 2000, PPM, TGA)"

logger = logging.getLogger(__name__)


def read_picture(source: Picture, max_size: int = MAX_SIZE) -> tuple[Bytes, Bytes | None]:
    """The picture as RGB, upright, at most `max_size` on its longer side, and its transparency.

    Args:
        source: A path; the bytes of a picture file; or an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), RGB order,
            uint8, uint16 or float in [0, 1].
        max_size: Larger pictures are reduced to this length of the longer side (antialiased).

    Returns:
        (H, W, 3) uint8 RGB with even H and W (an odd last row or column is cut), and (H, W) uint8 alpha, or None where
        the picture is opaque. EXIF orientation is applied, embedded colour profiles are converted to sRGB, the first
        frame of an animation is taken, wholly transparent pixels are white.

    Raises:
        ImageError: The file is missing, empty, truncated, no picture, over 40 megapixels, or too small; or the array
            has another shape or type, or values that are no colours.
        ValueError: max_size is below 64.
    """
    if max_size < 64:
        raise ValueError(f"max_size is the longer side in pixels, at least 64, got {max_size}")
    if isinstance(source, np.ndarray):
        image, name = _from_array(source), "the array"
    elif isinstance(source, (bytes, bytearray, memoryview)):
        name = "the bytes given"
        image = _decode(bytes(source), name, max_size)
    elif isinstance(source, (str, os.PathLike)):
        name = os.fspath(source)
        image = _decode(_read_file(Path(source)), name, max_size)
    else:
        raise ImageError(f"wanted a path, bytes or a NumPy array as picture, got {type(source).__name__}")
    return _limit(image, name, max_size)


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file; give the path of {WANTED}") from None
    except IsADirectoryError:
        raise ImageError(f"{path} is a folder; give the path of {WANTED}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"the picture {path} cannot be read: {reason}; check its name and permissions") from None


def _too_large(name: str, width: int, height: int) -> ImageError:
    return ImageError(
        f"{name} is {width} x {height}, {width * height / 1e6:.1f} megapixels; at most {MAX_PIXELS / 1e6:.0f} are "
        "taken; reduce it first"
    )


def _decode(data: bytes, name: str, max_size: int) -> Image.Image:
    """The first frame of a picture file, upright, in mode RGB or RGBA, sRGB."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    if not data:
        raise ImageError(f"{name} is empty (0 bytes); wanted {WANTED}")
    try:
        Image.init()
        formats = [f for f in FORMATS if f in Image.OPEN]  # AVIF is not in every build of Pillow
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pictures we refuse ourselves, and of odd metadata
            file = Image.open(io.BytesIO(data), formats=formats)
        with file:
            if file.width * file.height > MAX_PIXELS:
                raise _too_large(name, file.width, file.height)
            file.draft(None, (max_size, max_size))  # JPEG only: decode at 1/2, 1/4, 1/8 where that is enough
            file.load()
            image = _to_srgb(ImageOps.exif_transpose(file))
    except UnidentifiedImageError:
        raise ImageError(f"{name} is no picture that can be read; wanted {WANTED}; convert it first") from None
    except Image.DecompressionBombError:
        raise ImageError(f"{name} is too large; at most {MAX_PIXELS / 1e6:.0f} megapixels are taken") from None
    except (OSError, SyntaxError, ValueError, TypeError, EOFError, KeyError, IndexError, struct.error) as error:
        # What Pillow's decoders raise on damaged files.
        raise ImageError(f"{name} is damaged or truncated ({error}); wanted {WANTED}; export it again") from None
    return image


def _to_srgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode -> RGB or RGBA in sRGB."""
    from PIL import Image

    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return Image.fromarray(_deep_grey(np.asarray(image)))
    alpha: Image.Image | None = None
    if image.mode in ("P", "RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        if rgba.getchannel("A").getextrema() != (255, 255):
            alpha = rgba.getchannel("A")
        if image.mode not in ("L", "RGB"):
            image = rgba.convert("RGB")
    rgb = _apply_profile(image)
    if alpha is not None:
        rgb.putalpha(alpha)
    return rgb


def _apply_profile(image: Image.Image) -> Image.Image:
    """Mode RGB in sRGB; an embedded profile that cannot be used is left out with a log line."""
    from PIL import Image, ImageCms

    profile = image.info.get("icc_profile")
    if profile and image.mode in ("RGB", "CMYK", "L", "LAB"):
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if "srgb" not in ImageCms.getProfileDescription(source).lower():
                target = ImageCms.createProfile("sRGB")
                converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
                if isinstance(converted, Image.Image):
                    return converted
        except (ImageCms.PyCMSError, OSError, TypeError, ValueError) as error:
            logger.warning("the picture's colour profile cannot be used (%s); taking its colours as sRGB", error)
    return image.convert("RGB")


def _deep_grey(values: npt.NDArray[Any]) -> Bytes:
    """(H, W) grey of 16 or 32 bits or float -> (H, W, 3) uint8, by the range the values are in."""
    grey = values.astype(np.float64)
    if not np.isfinite(grey).all():
        raise ValueError("it holds NaN or infinite values")
    high = float(grey.max(initial=0.0))
    if values.dtype.kind == "f":
        white = 1.0 if high <= 1.0 else 255.0 if high <= 255.0 else max(high, 65535.0)
    else:
        white = max(high, 65535.0)
    level = np.clip(np.rint(grey * (255.0 / white)), 0, 255).astype(np.uint8)
    return np.repeat(level[..., None], 3, -1)


def _from_array(array: npt.NDArray[Any]) -> Image.Image:
    """An array of pixels -> RGB or RGBA."""
    from PIL import Image

    shapes = "(H, W), (H, W, 1), (H, W, 3) or (H, W, 4)"
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)) or 0 in array.shape:
        raise ImageError(f"wanted an array of shape {shapes}, got {array.shape}")
    height, width = array.shape[:2]
    if height * width > MAX_PIXELS:
        raise _too_large("the array", width, height)
    if array.dtype == np.uint8:
        pixels = array
    elif array.dtype == np.uint16:
        pixels = np.rint(array.astype(np.float32) / 257.0).astype(np.uint8)
    elif array.dtype.kind == "f":
        low, high = float(array.min()), float(array.max())  # NaN goes through both
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ImageError("the picture array holds NaN or infinite values; wanted float in [0, 1] or uint8")
        if low < -1e-3 or high > 1.0 + 1e-3:
            raise ImageError(
                f"a float picture array lies in [0, 1], got [{low:.4g}, {high:.4g}]; scale it, or pass uint8"
            )
        pixels = np.rint(np.clip(array.astype(np.float32), 0.0, 1.0) * 255.0).astype(np.uint8)
    else:
        raise ImageError(f"a picture array is uint8, uint16 or float, got {array.dtype}; convert it")
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        pixels = np.repeat(pixels.reshape(height, width, 1), 3, -1)
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if image.mode == "RGBA" and image.getchannel("A").getextrema() == (255, 255):
        return image.convert("RGB")
    return image


def _limit(image: Image.Image, name: str, max_size: int) -> tuple[Bytes, Bytes | None]:
    """RGB and alpha arrays, at most `max_size` long, both sides even."""
    from PIL import Image

    full = f"{image.width} x {image.height}"
    factor = max_size / max(image.size)
    if factor < 1.0:
        size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
        image = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=3.0)  # antialiased; alpha premultiplied
    width, height = image.width // 2 * 2, image.height // 2 * 2
    if width < 2 or height < 2:
        raise ImageError(f"{name} is {full} pixels; wanted a picture with a face of 40 or more; give a larger one")
    pixels = np.asarray(image)[:height, :width]
    if image.mode != "RGBA":
        return np.ascontiguousarray(pixels), None
    alpha = np.ascontiguousarray(pixels[..., 3])
    rgb = np.where(alpha[..., None] == 0, np.uint8(255), pixels[..., :3])
    return np.ascontiguousarray(rgb), alpha


def reduce(rgb: Bytes, alpha: Bytes | None, factor: float) -> tuple[Bytes, Bytes | None]:
    """A picture (H, W, 3) and its alpha (H, W) made smaller by `factor` < 1, antialiased, both sides even."""
    from PIL import Image

    image = Image.fromarray(rgb if alpha is None else np.dstack([rgb, alpha]))
    return _limit(image, "the picture", max(2, round(factor * max(image.size))))
