"""Reads pictures of all common formats as upright RGB, transparent parts over white."""

from __future__ import annotations

import io
import logging
import struct
import warnings
from typing import IO, TYPE_CHECKING, NamedTuple, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from ditto.errors import ImageError
from ditto.media.files import Readable, Source

if TYPE_CHECKING:
    from PIL import Image
    from PIL.ImageFile import ImageFile

Bytes = npt.NDArray[np.uint8]
Picture: TypeAlias = "Readable | npt.NDArray[np.generic] | Image.Image"  # see `read_picture`

MAX_PIXELS = 40_000_000  # decoded
# JPEG can be decoded at 1/2, 1/4 or 1/8, so larger ones can be read: phones make 48 to 200 megapixels. For a progressive one
# the decoder still holds all coefficients, 3 to 6 bytes a pixel.
MAX_JPEG_PIXELS, MAX_PROGRESSIVE_PIXELS = 256_000_000, 100_000_000
MAX_SIZE = 1920
FULL_SIZE = 1 << 16  # as `max_size`: no reduction
LUMA: npt.NDArray[np.float64] = np.array([0.299, 0.587, 0.114])  # of RGB, Rec. 601
BACKDROP = 255  # level of R, G and B behind transparent parts
BLANK = 16  # levels of contrast: a frame of an animation with less is blank
MIN_FAINT = 32  # pixels below a quarter of opacity; with fewer, nothing can be said about premultiplied colours
MAX_BLANK_FRAMES = 100  # to look through for one that is not blank
DEPTHS = (8, 10, 12, 14)  # bits that the values of a 16-bit picture may have, unscaled
# Not all formats of Pillow: some start other programs (EPS), and many are of no use here.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "TGA", "JPEG2000", "AVIF", "ICO")
FRAMED = ("PNG", "WEBP", "TIFF", "GIF", "AVIF")  # formats that can hold several frames
PICTURE = "a picture (JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF, JPEG 2000, PPM, TGA)"

logger = logging.getLogger(__name__)


class _Decoded(NamedTuple):
    """A picture over white, mode RGB, and its alpha, mode L; None if it is opaque."""

    rgb: Image.Image
    alpha: Image.Image | None


def read_picture(source: Picture, max_size: int = MAX_SIZE) -> tuple[Bytes, Bytes | None]:
    """Read a picture as RGB, upright, at most `max_size` on its longer side, and its alpha.

    Args:
        source: A path; the bytes of a picture file; a file opened for bytes; a `PIL.Image.Image`; or an array (H, W),
            (H, W, 1), (H, W, 3) or (H, W, 4), RGB order, straight alpha, uint8, uint16 or float in [0, 1].
        max_size: Larger pictures are reduced to this length of the longer side, with antialiasing.

    Returns:
        (H, W, 3) uint8 RGB with even H and W (an odd last row or column is cut), and (H, W) uint8 alpha, or None if the
        picture is opaque. The colours are composited over white, `alpha colour + (1 - alpha) white`, so the colours of
        transparent parts are lost; `straight_colours` undoes it. (Premultiplied colours are recognised: no colour is
        above its alpha.) EXIF orientation is applied, an embedded colour profile is converted to sRGB. Of an animation
        it reads the first frame that is not blank. If the values of a 16-bit picture use only 8, 10, 12 or 14 bits, it
        scales by those. It logs a warning if it takes a later frame or fewer bits.

    Raises:
        ImageError: The file is missing, empty, truncated, no picture, over 40 megapixels (JPEG: 256, progressive: 100),
            fully transparent, or too small; or an array of another shape or type, or with values out of range.
        ValueError: `max_size` is below 64.
    """
    return OpenedPicture(source).read(max_size)


class OpenedPicture:
    """A picture that can be read several times, at several sizes, even from a pipe. See `read_picture`."""

    def __init__(self, source: Picture) -> None:
        from PIL import Image

        self._source: Source | npt.NDArray[np.generic] | Image.Image
        if isinstance(source, (np.ndarray, Image.Image)):
            self._source = source
            return
        try:
            self._source = Source(source, PICTURE, ImageError)
        except TypeError as error:
            raise ImageError(f"{error}; give one of these, a NumPy array or a PIL image") from None

    def read(self, max_size: int) -> tuple[Bytes, Bytes | None]:
        """The picture and its alpha, as `read_picture` gives them."""
        if max_size < 64:
            raise ValueError(f"expected a max_size of at least 64 pixels, got {max_size}; give the longer side of the picture")
        if isinstance(self._source, np.ndarray):
            return _limit(_composited(_from_array(self._source)), "the array", max_size)
        if isinstance(self._source, Source):
            return _limit(_decode(self._source, max_size), self._source.name, max_size)
        width, height = self._source.size
        if width * height > MAX_PIXELS:
            raise _too_large("the image", width, height)
        return _limit(_decode_image(self._source), "the image", max_size)


def straight_colours(rgb: Bytes, alpha: Bytes) -> Bytes:
    """The colours (H, W, 3) that, composited over white with alpha (H, W), give `rgb`; white where alpha is 0."""
    import cv2

    straight = np.asarray(cv2.copyTo(rgb, alpha, np.full(rgb.shape, BACKDROP, np.uint8)), np.uint8)
    soft, flat = soft_pixels(alpha), straight.reshape(-1, 3)
    share = alpha.reshape(-1)[soft, None] / np.float32(255.0)
    flat[soft] = np.clip(np.rint(BACKDROP - (BACKDROP - flat[soft].astype(np.float32)) / share), 0, 255)
    return straight


def soft_pixels(alpha: Bytes) -> npt.NDArray[np.intp]:
    """The numbers of the pixels, row by row, that are neither transparent nor opaque."""
    return np.flatnonzero(alpha - np.uint8(1) < 254)  # 0 wraps around to 255


def _composited(image: Image.Image) -> _Decoded:
    """RGB or RGBA composited over the backdrop."""
    from PIL import Image, ImageChops

    if image.mode != "RGBA":
        return _Decoded(image, None)
    alpha = image.getchannel("A")
    if alpha.getextrema() == (255, 255):
        return _Decoded(image.convert("RGB"), None)
    if _is_premultiplied(np.asarray(image)):
        rest = ImageChops.invert(alpha).point(lambda share: share * BACKDROP // 255)
        return _Decoded(ImageChops.add(image.convert("RGB"), Image.merge("RGB", [rest] * 3)), alpha)
    over = Image.new("RGB", image.size, (BACKDROP,) * 3)
    over.paste(image.convert("RGB"), mask=alpha)
    return _Decoded(over, alpha)


def _is_premultiplied(pixels: Bytes) -> bool:
    """Whether the colours of (H, W, 4) pixels are premultiplied by alpha, as some programs export cut-outs.

    No format of `FORMATS` says so. But then no colour is above its alpha, while some straight colour of a faint pixel nearly
    always is. If none is because all faint pixels are black, both readings give the same picture.
    """
    alpha = pixels[..., 3]
    soft = (alpha > 0) & (alpha < 255)
    brightest, alpha = pixels[soft][:, :3].max(1, initial=0), alpha[soft]
    return bool(((brightest > 0) & (alpha < 64)).sum() >= MIN_FAINT and (brightest <= alpha.astype(np.int16) + 1).all())


def _too_large(name: str, width: int, height: int) -> ImageError:
    return ImageError(
        f"expected at most {MAX_PIXELS / 1e6:.0f} megapixels (JPEG: {MAX_JPEG_PIXELS / 1e6:.0f}, progressive: "
        f"{MAX_PROGRESSIVE_PIXELS / 1e6:.0f}), got {width} x {height} in {name}; reduce it first"
    )


# What Pillow's decoders raise on damaged files.
_DAMAGE = (OSError, SyntaxError, ValueError, TypeError, EOFError, KeyError, IndexError, struct.error)


def _decode(source: Source, max_size: int) -> _Decoded:
    """The first frame of a picture file that is not blank, upright, in sRGB."""
    from PIL import Image, UnidentifiedImageError

    name = source.name
    try:
        with source.open() as stream, _open(stream) as file:
            fraction = _least_fraction(file, name)
            # JPEG only: decode at 1/2, 1/4 or 1/8 if that is enough, or if the whole would be too large.
            file.draft(None, (min(max_size, file.width // fraction), min(max_size, file.height // fraction)))
            file.load()
            frame = _first_to_show(file)
            if frame > 0:
                logger.warning("the first frame of %s is blank; ditto takes frame %d", name, frame + 1)
            return _upright(_all_bits(file, source) if frame == 0 else file)
    except UnidentifiedImageError:
        raise ImageError(f"expected {PICTURE}, got {name}, which is none of these; convert it first") from None
    except Image.DecompressionBombError:
        raise ImageError(f"expected at most {MAX_PIXELS / 1e6:.0f} megapixels, got more in {name}; reduce it first") from None
    except _DAMAGE as error:
        raise ImageError(f"expected {PICTURE}, got {name}, which is damaged or truncated ({error}); export it again") from None


def _decode_image(image: Image.Image) -> _Decoded:
    try:
        image.load()
        return _upright(image)
    except _DAMAGE as error:
        raise ImageError(f"expected an open image, got a closed, damaged or truncated one ({error}); open it again") from None


def _open(stream: IO[bytes]) -> ImageFile:
    from PIL import Image, JpegImagePlugin

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about sizes, which are checked here, and about odd metadata
        magic = stream.read(3)
        stream.seek(0)
        if magic == b"\xff\xd8\xff":  # not by Image.open, which refuses 179 megapixels at any decoding fraction
            return JpegImagePlugin.JpegImageFile(stream)
        Image.init()
        formats = [f for f in FORMATS if f in Image.OPEN]  # not every build of Pillow has AVIF
        return Image.open(stream, formats=formats)


def _least_fraction(file: ImageFile, name: str) -> int:
    """1; of a large JPEG 2, 4 or 8: it must be decoded at 1/2, 1/4, 1/8 or less."""
    pixels = file.width * file.height
    most = MAX_PIXELS
    if file.format == "JPEG":
        most = MAX_PROGRESSIVE_PIXELS if file.info.get("progressive") else MAX_JPEG_PIXELS
    if pixels > most:
        raise _too_large(name, file.width, file.height)
    return next(fraction for fraction in (1, 2, 4, 8) if pixels <= MAX_PIXELS * fraction**2)


def _first_to_show(file: ImageFile) -> int:
    """Seek to the first frame that is not blank, or to frame 0 if all are; the number of the frame."""
    if file.format not in FRAMED or not _is_blank(file):
        return 0
    try:
        for frame in range(1, MAX_BLANK_FRAMES):
            file.seek(frame)
            if not _is_blank(file):
                return frame
    except _DAMAGE:
        pass  # no more frames, or a damaged one
    file.seek(0)
    file.load()
    return 0


def _is_blank(image: Image.Image) -> bool:
    shown = _composited(image.convert("RGBA")).rgb if _may_be_transparent(image) else image.convert("RGB")
    return all(high - low < BLANK for low, high in cast(tuple[tuple[int, int], ...], shown.getextrema()))


def _may_be_transparent(image: Image.Image) -> bool:
    return image.mode in ("P", "RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info


def _all_bits(file: ImageFile, source: Source) -> Image.Image:
    """The image; if it has 16 bits a channel, of which Pillow reads the upper 8, scaled by the bits that are used."""
    import cv2
    from PIL import Image

    if file.format not in ("PNG", "TIFF") or file.mode not in ("RGB", "RGBA"):
        return file
    extrema = cast(tuple[tuple[int, int], ...], file.getextrema())
    if max(high for _, high in extrema[:3]) >= 1 << max(DEPTHS) - 8:
        return file
    pixels = cv2.imdecode(np.frombuffer(source.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16 or pixels.ndim != 3:
        return file
    order = [2, 1, 0, 3][: pixels.shape[2]]
    image = Image.fromarray(_eight_bits(np.asarray(pixels[..., order], np.uint16)))
    image.info.update(file.info)
    image.info["exif"] = file.getexif().tobytes()
    return image


def _upright(image: Image.Image) -> _Decoded:
    """Any image, with EXIF orientation applied, in sRGB, over the backdrop."""
    from PIL import ImageOps

    return _composited(_to_srgb(ImageOps.exif_transpose(image)))


def _to_srgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode -> RGB or RGBA in sRGB."""
    from PIL import Image

    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = np.asarray(image)
        rgb = Image.fromarray(_deep_grey(values))
        if isinstance(clear := image.info.get("transparency"), int):
            rgb.putalpha(Image.fromarray(np.where(values == clear, np.uint8(0), np.uint8(255))))
        return rgb
    alpha: Image.Image | None = None
    if _may_be_transparent(image):
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
    """Mode RGB in sRGB. Logs a warning and ignores an embedded profile that cannot be used."""
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
            logger.warning("the colour profile of the picture cannot be used (%s); ditto takes its colours as sRGB", error)
    return image.convert("RGB")


def _deep_grey(values: npt.NDArray[np.generic]) -> Bytes:
    """(H, W) grey of 16 or 32 bits or float -> (H, W, 3) uint8, scaled by the range of the values."""
    grey = values.astype(np.float64)
    if not np.isfinite(grey).all():
        raise ValueError("it holds NaN or infinite values")
    high = float(grey.max(initial=0.0))
    if values.dtype.kind == "f":
        white = 1.0 if high <= 1.0 else 255.0 if high <= 255.0 else max(high, 65535.0)
    else:
        white = max(high, _white(high))
    level = np.clip(np.rint(grey * (255.0 / white)), 0, 255).astype(np.uint8)
    return np.repeat(level[..., None], 3, -1)


def _white(high: float) -> float:
    """The value of white in 16-bit pixels, the largest of which is `high`."""
    depth = next((bits for bits in DEPTHS if high < 1 << bits), 16)
    if depth < 16 and high > 0:
        logger.warning("the picture has 16 bits a channel and uses %d of them; ditto scales it by those", depth)
    return float((1 << depth) - 1)


def _eight_bits(pixels: npt.NDArray[np.uint16]) -> Bytes:
    """uint16 (H, W) or (H, W, C) -> uint8, scaled by the bits that its colours use; the fourth channel is alpha."""
    colours = pixels if pixels.ndim == 2 else pixels[..., :3]
    white = _white(float(colours.max()))
    if pixels.max() > white:  # an alpha of 16 bits with colours of fewer
        return np.dstack([_scaled(colours, white), _scaled(pixels[..., 3], 65535.0)])
    return _scaled(pixels, white)


def _scaled(values: npt.NDArray[np.uint16], white: float) -> Bytes:
    level: npt.NDArray[np.float32] = values.astype(np.float32) / (white / 255.0)
    return np.rint(level).astype(np.uint8)


def _from_array(array: npt.NDArray[np.generic]) -> Image.Image:
    """An array of pixels -> RGB or RGBA."""
    from PIL import Image

    shapes = "(H, W), (H, W, 1), (H, W, 3) or (H, W, 4)"
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)) or 0 in array.shape:
        raise ImageError(f"expected a picture array of shape {shapes}, got {array.shape}; reshape it")
    height, width = array.shape[:2]
    if height * width > MAX_PIXELS:
        raise _too_large("the array", width, height)
    if array.dtype == np.uint8:
        pixels = array.astype(np.uint8, copy=False)
    elif array.dtype == np.uint16:
        pixels = _eight_bits(array.astype(np.uint16, copy=False))
    elif array.dtype.kind == "f":
        low, high = float(array.min()), float(array.max())  # NaN goes through both
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ImageError("expected float in [0, 1] or uint8 in the picture array, got NaN or infinity; clean it")
        if low < -1e-3 or high > 1.0 + 1e-3:
            raise ImageError(
                f"expected a float picture array in [0, 1], got [{low:.4g}, {high:.4g}]; scale it, or give uint8"
            )
        pixels = np.rint(np.clip(array.astype(np.float32), 0.0, 1.0) * 255.0).astype(np.uint8)
    else:
        raise ImageError(f"expected a picture array of uint8, uint16 or float, got {array.dtype}; convert it")
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        pixels = np.repeat(pixels.reshape(height, width, 1), 3, -1)
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if image.mode == "RGBA" and image.getchannel("A").getextrema() == (255, 255):
        return image.convert("RGB")
    return image


def _limit(picture: _Decoded, name: str, max_size: int) -> tuple[Bytes, Bytes | None]:
    """RGB and alpha arrays, at most `max_size` long, both sides even."""
    from PIL import Image

    width, height = picture.rgb.size
    if picture.alpha is not None and picture.alpha.getextrema() == (0, 0):
        raise ImageError(f"expected a visible picture, got {name}, which is fully transparent; export it with its background")
    factor = max_size / max(width, height)
    size = (max(1, round(width * factor)), max(1, round(height * factor))) if factor < 1.0 else (width, height)
    even = tuple(side // 2 * 2 for side in size)
    if min(even) < 2:
        raise ImageError(
            f"expected a picture with a face of 40 pixels or more, got {name}, {width} x {height}; give a larger one"
        )

    def small(image: Image.Image) -> Bytes:
        if factor < 1.0:
            image = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=3.0)  # antialiased
        return np.ascontiguousarray(np.asarray(image)[: even[1], : even[0]])

    return small(picture.rgb), None if picture.alpha is None else small(picture.alpha)


def reduce(rgb: Bytes, alpha: Bytes | None, factor: float) -> tuple[Bytes, Bytes | None]:
    """A picture (H, W, 3) and its alpha (H, W) as `read_picture` gives them, scaled by `factor` < 1, both sides even."""
    from PIL import Image

    picture = _Decoded(Image.fromarray(rgb), None if alpha is None else Image.fromarray(alpha))
    return _limit(picture, "the picture", max(2, round(factor * max(rgb.shape[:2]))))
