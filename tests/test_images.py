"""Any common picture is read upright as RGB; what is none is refused in words."""

import io

import numpy as np
import PIL
import pytest
from PIL import Image, ImageCms

from ditto import images
from ditto.errors import ImageError
from ditto.images import read_picture


def gradient(height=90, width=120):
    y, x = np.mgrid[:height, :width]
    return np.stack([2 * x, 2 * y, np.full_like(x, 60)], -1).astype(np.uint8)


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "TGA", "WEBP", "GIF", "JPEG", "JPEG2000"])
def test_common_formats_give_the_same_picture(kind):
    options = {"JPEG": {"quality": 97}, "WEBP": {"lossless": True}}.get(kind, {})
    rgb, alpha = read_picture(encoded(Image.fromarray(gradient()), kind, **options))
    assert rgb.shape == (90, 120, 3) and rgb.dtype == np.uint8 and alpha is None
    worst = {"JPEG": 6, "GIF": 24}.get(kind, 0)  # lossy; 256 colours
    assert np.abs(rgb.astype(int) - gradient()).max() <= worst


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    upright = gradient()
    turned = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1),
        7: np.rot90(upright, 2).swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    rgb, _ = read_picture(encoded(Image.fromarray(np.ascontiguousarray(turned)), "PNG", exif=exif.tobytes()))
    assert (rgb == upright).all()


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "YCbCr", "LAB", "I;16", "I", "F", "LA", "RGBA"])
def test_every_mode_becomes_rgb(mode):
    grey = Image.fromarray(gradient()[..., 0])
    deep = np.asarray(grey).astype(np.uint16) * 257
    image = {
        "I;16": lambda: Image.fromarray(deep),
        "I": lambda: Image.fromarray(deep.astype(np.int32)),
        "F": lambda: Image.fromarray(np.asarray(grey).astype(np.float32) / 255),
        "LAB": lambda: ImageCms.profileToProfile(
            grey.convert("RGB"), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
        ),
    }.get(mode, lambda: grey.convert("RGB").convert(mode))()
    if mode == "YCbCr" and int(PIL.__version__.split(".")[0]) < 13:
        pytest.skip("Pillow before 13 cannot read the YCbCr TIFF it writes")
    rgb, alpha = read_picture(encoded(image, "TIFF"))
    assert rgb.shape == (90, 120, 3) and alpha is None
    if mode not in ("1", "P"):  # two colours; a web palette
        assert np.abs(rgb.astype(int) - np.asarray(grey)[..., None]).max() <= 4


def test_transparency_is_kept_and_what_is_invisible_is_white():
    pixels = np.dstack([gradient(), np.full((90, 120), 255, np.uint8)])
    pixels[:30, :, 3], pixels[30:60, :, 3] = 0, 128
    rgb, alpha = read_picture(encoded(Image.fromarray(pixels), "PNG"))
    assert (alpha == pixels[..., 3]).all()
    assert (rgb[:30] == 255).all() and (rgb[30:] == pixels[30:, :, :3]).all()


def test_first_frame_of_an_animation():
    frames = [Image.fromarray(np.full((40, 40, 3), level, np.uint8)) for level in (200, 90)]
    rgb, _ = read_picture(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert np.abs(rgb.astype(int) - 200).max() <= 3


def test_colour_profile_is_converted():
    swapped = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    lab = ImageCms.profileToProfile(
        Image.fromarray(gradient()), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    rgb, _ = read_picture(encoded(lab, "TIFF", icc_profile=swapped))
    assert np.abs(rgb.astype(int) - gradient()).mean() < 3


def test_unusable_colour_profile_is_told_and_left_out(caplog):
    rgb, _ = read_picture(encoded(Image.fromarray(gradient()), "PNG", icc_profile=b"not a profile"))
    assert (rgb == gradient()).all() and "colour profile" in caplog.text


def test_large_pictures_are_limited_and_sides_are_even():
    rgb, _ = read_picture(gradient(333, 777), max_size=256)
    assert rgb.shape == (110, 256, 3)
    assert read_picture(gradient(91, 121))[0].shape == (90, 120, 3)
    assert (read_picture(gradient(91, 121))[0] == gradient(90, 120)).all()


def test_reduction_averages():
    checker = np.where(np.indices((600, 600)).sum(0) % 2, 255, 0).astype(np.uint8)
    rgb, _ = read_picture(checker, max_size=100)
    assert np.abs(rgb.astype(int) - 127).max() < 20


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(40, 60), (40, 60, 1), (40, 60, 3), (40, 60, 4)])
def test_arrays(dtype, shape):
    white = {np.uint8: 255, np.uint16: 65535}.get(dtype, 1.0)
    array = (np.full(shape, 0.6) * white).astype(dtype)
    rgb, alpha = read_picture(array)
    assert rgb.shape == (40, 60, 3) and np.abs(rgb.astype(int) - 153).max() <= 1
    assert (alpha is not None) == (shape[-1] == 4)


BAD_ARRAYS = {
    "shape": np.zeros((4, 5, 2), np.uint8),
    "one axis": np.zeros(12, np.uint8),
    "empty": np.zeros((0, 4, 3), np.uint8),
    "type": np.zeros((40, 40, 3), np.int64),
    "NaN": np.full((40, 40, 3), np.nan, np.float32),
    "infinite": np.full((40, 40, 3), np.inf),
    "range": np.full((40, 40, 3), 255.0),
    "tiny": np.zeros((1, 40, 3), np.uint8),
}


@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_bad_arrays_are_refused(name):
    with pytest.raises(ImageError, match=r"array|pixels"):
        read_picture(BAD_ARRAYS[name])


def test_bad_files_are_refused(tmp_path):
    good = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 120, 3)).astype(np.uint8)), "PNG")
    files = {
        "empty.png": (b"", "empty"),
        "cut.png": (good[: len(good) // 2], "truncated"),
        "cut.jpg": (encoded(Image.fromarray(gradient()), "JPEG")[:700], "truncated"),
        "words.jpg": (b"this is no picture at all", "no picture"),
        "sound.wav": (b"RIFF\x00\x00\x00\x00WAVEfmt ", "no picture"),
        "vector.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no picture"),
    }
    for name, (data, words) in files.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ImageError, match=words) as error:
            read_picture(tmp_path / name)
        assert name in str(error.value)
    with pytest.raises(ImageError, match="no such file"):
        read_picture(tmp_path / "missing.png")
    with pytest.raises(ImageError, match="folder"):
        read_picture(tmp_path)
    with pytest.raises(ImageError, match="wanted a path"):
        read_picture(7)
    with pytest.raises(ValueError, match="max_size"):
        read_picture(gradient(), max_size=3)


def test_damaged_bytes_never_raise_anything_else():
    good = encoded(Image.fromarray(gradient()), "PNG"), encoded(Image.fromarray(gradient()), "JPEG")
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(150):
        data = bytearray(good[rng.integers(2)])
        for at in rng.integers(0, len(data), 6):
            data[at] = rng.integers(256)
        try:
            assert read_picture(bytes(data))[0].ndim == 3
        except ImageError:
            refused += 1
    assert refused > 20


def test_over_40_megapixels_is_refused_without_decoding():
    header = encoded(Image.new("1", (8000, 5001)), "PNG")
    with pytest.raises(ImageError, match=r"40\.0 megapixels; at most 40"):
        read_picture(header)
    assert images.MAX_PIXELS == 40_000_000


def test_40_megapixels_are_read():
    rgb, _ = read_picture(encoded(Image.new("L", (8000, 5000), 90), "JPEG"))
    assert rgb.shape == (800, 1280, 3) and (rgb == 90).all()


def test_reduce_keeps_sides_even_and_content() -> None:
    from ditto.images import reduce

    rgb = np.full((301, 203, 3), (10, 200, 30), np.uint8)
    small, alpha = reduce(rgb, np.full((301, 203), 255, np.uint8), 0.5)
    assert small.shape == (150, 100, 3)
    assert alpha is not None and alpha.shape == (150, 100)
    assert (small == (10, 200, 30)).all()
